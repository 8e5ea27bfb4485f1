//! Generated lists of members: whatever is taken from somebody is taken by the next start of every server, and by all
//! others, however they are set.

use super::*;
use crate::config::reconfig::ReconfigError;

/// Every name resolves: a name server that fails is another matter.
struct Everywhere(Fake);

impl World for Everywhere {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.0.read(path)
    }

    fn resolve(&self, _: &str) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, 1]))
    }
}

struct Chance(fastrand::Rng);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly one of the first, which are good.
    fn pick<'a>(&mut self, good: &[&'a str], odd: &[&'a str]) -> &'a str {
        if self.one_in(12) { odd[self.below(odd.len())] } else { good[self.below(good.len())] }
    }

    fn address(&mut self) -> String {
        let host = self.pick(
            &["127.0.0.1", "a", "b.example.org", "[::1]", "10.0.0.7", "zürich"],
            &["", "[fe80::1%eth0]", "[::1", " a", "a b", "a\\nb", "[]", "[a]", "under_score", "0.0.0.0", "b=c", "#d"],
        );
        let ports = self.pick(
            &["1:2", "3:4", "2888:3888", "65535:1"],
            &["1:1", "0:0", "1:65536", "x:2", "1: 2", "1", "1:2:3:4", "+1:02", ":"],
        );
        let role =
            self.pick(&["", "", "", ":participant", ":observer", ":OBSERVER"], &[":voter", ":", ": participant"]);
        format!("{host}:{ports}{role}")
    }

    fn server(&mut self) -> String {
        let count = if self.one_in(4) { 2 + self.below(2) } else { 1 };
        let addresses: Vec<String> = (0..count).map(|_| self.address()).collect();
        let client = self.pick(
            &["", ";2181", ";127.0.0.1:2182", ";[::1]:2183", ";localhost:2184", ";2181;2281", ";;a:2282"],
            &[";", ";0", ";x", ";a b:1", ";1;2;3", ";1 ", ";[::1]", ";99999", ";1;", ";;", ";;x"],
        );
        addresses.join("|") + client
    }

    fn id(&mut self) -> &'static str {
        self.pick(
            &["1", "2", "3", "4", "5"],
            &["255", "01", "-3", "x", "", "9223372036854775807", "9223372036854775808", "+2"],
        )
    }

    /// Lines of a list.
    fn list(&mut self) -> Vec<String> {
        let mut lines: Vec<String> =
            (0..1 + self.below(6)).map(|_| format!("server.{}={}", self.id(), self.server())).collect();
        if self.one_in(5) {
            for group in 1..=1 + self.below(3) {
                let ids: Vec<&str> = (0..1 + self.below(3)).map(|_| self.id()).collect();
                lines.push(format!("group.{group}={}", ids.join(":")));
            }
            for _ in 0..self.below(3) {
                let weight = self.pick(&["0", "1", "7"], &["-1", "x", "9223372036854775807"]);
                lines.push(format!("weight.{}={weight}", self.id()));
            }
        }
        if self.one_in(10) {
            lines.push(
                self.pick(&["version=7", "# a comment"], &["version=-1", "tickTime=1", "server.1", "groupie=1", "\\"])
                    .to_string(),
            );
        }
        lines
    }

    fn rules(&mut self) -> MemberRules {
        MemberRules { multi_address: self.one_in(2), extended_types: self.one_in(2), negative_ids: false }
    }
}

const BASE: &str = "dataDir=/d\ninitLimit=5\nsyncLimit=2\nreconfigEnabled=true\n";

fn settings(rules: MemberRules, standalone: bool) -> String {
    format!(
        "{BASE}standaloneEnabled={standalone}\nmultiAddress.enabled={}\nextendedTypesEnabled={}\n",
        rules.multi_address, rules.extended_types
    )
}

fn load_everywhere(world: Fake, text: &[u8]) -> Result<Config, String> {
    Config::load(Path::new("/c/zoo.cfg"), text, &[], &[], &Everywhere(world)).0.map_err(|error| error.to_string())
}

/// Every server starts with the files that it writes of a list that was taken, and finds the same list.
fn check_starts(members: &Members, rules: MemberRules, standalone: bool) {
    let dynamic = format!("/c/zoo.cfg.dynamic.{:x}", members.version);
    let ids = members.servers.keys().copied().filter(|id| !rules.extended_types || *id < 255);
    for id in ids.chain([200]) {
        let listed = members.servers.get(&id);
        let own = ensemble::Server::parse(id, "here:1:2;5", MemberRules::AGREED).unwrap();
        let unlisted = if listed.is_none() { Some(&own) } else { None };
        let has_client = listed.is_some_and(|server| server.client.is_some());
        let zoo_cfg = format!("clientPort=5\nserver.1=a:1:2\n{}", settings(rules, standalone));
        let zoo_cfg = point_to(zoo_cfg.as_bytes(), Path::new(&dynamic), has_client).unwrap();
        let text = |proposed| String::from_utf8(member_file(members, proposed, unlisted)).unwrap();
        let world = Fake::with("/d/myid", &id.to_string()).and(&dynamic, &text(false));
        let world = world.and("/c/zoo.cfg.dynamic.next", &text(true));
        let config = load_everywhere(world, &zoo_cfg).unwrap_or_else(|why| panic!("server {id}: {why}\n{members}"));
        let Mode::Quorum(ensemble) = config.mode else {
            let is_alone = standalone && members.servers.len() == 1 && listed.is_some();
            assert!(is_alone, "server {id} runs alone\n{members}");
            continue;
        };
        let mut found = ensemble.members;
        if let Some(own) = found.servers.get_mut(&id).filter(|own| own.client_is_from_zoo_cfg) {
            (own.client, own.client_is_from_zoo_cfg) = (None, false);
        }
        assert_eq!((&found, ensemble.next.as_ref()), (members, Some(members)));
        assert!(listed.is_some() || (ensemble.own == own && ensemble.my_id == id));
    }
}

#[test]
fn what_a_reconfiguration_takes_every_start_takes() {
    let mut chance = Chance(fastrand::Rng::with_seed(1));
    let (mut taken, mut refused) = (0, 0);
    let three = "server.1=a:1:2;5\nserver.2=b:1:2;5\nserver.3=127.0.0.1:7:8\nversion=100000005";
    for version in 0x1_0000_0006..0x1_0000_1006 {
        let (rules, standalone) = (chance.rules(), chance.one_in(2));
        let asked = match chance.one_in(2) {
            true => Members::parse_request(&chance.list().join(if chance.one_in(2) { "," } else { "\n" }), rules),
            false => {
                let joining = format!("server.{}={}", chance.id(), chance.server());
                Members::parse_text(three.as_bytes()).unwrap().changed(
                    &joining,
                    ["", "1", "2,3"][chance.below(3)],
                    rules,
                )
            }
        };
        let Ok(members) = asked.map(|members| Members { version, ..members }) else {
            refused += 1;
            continue;
        };
        if members.participants().count() < if standalone { 2 } else { 1 } {
            continue;
        }
        taken += 1;
        assert_eq!(Members::parse_text(members.to_string().as_bytes()).as_ref(), Ok(&members));
        check_starts(&members, rules, standalone);
        // The others may be set otherwise, and are told all the same.
        check_starts(&members, chance.rules(), chance.one_in(2));
    }
    assert!(taken > 400 && refused > 400, "{taken} taken, {refused} refused");
}

#[test]
fn what_a_start_takes_the_others_take() {
    let mut chance = Chance(fastrand::Rng::with_seed(2));
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..4000 {
        let text = settings(chance.rules(), chance.one_in(2)) + &chance.list().join("\n");
        match load_everywhere(Fake::with("/d/myid", "1"), &text.bytes().collect::<Vec<u8>>()) {
            Ok(Config { mode: Mode::Quorum(ensemble), .. }) => {
                taken += 1;
                let told = ensemble.members.to_string();
                let heard = Members::parse_text(told.as_bytes()).unwrap_or_else(|why| panic!("{why}\n{told}"));
                assert_eq!(heard.to_string(), told);
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 200 && refused > 400, "{taken} taken, {refused} refused");
}

#[test]
fn several_addresses_are_taken_from_a_client_only_where_zoo_cfg_allows_them() {
    let list = "server.1=127.0.0.1:3000:3001|127.0.0.1:3003:3004;127.0.0.1:3002";
    let three = Members::parse_text(b"server.1=a:1:2;5\nserver.2=b:1:2;5\nserver.3=c:1:2\nversion=100000005").unwrap();
    let asked = |rules| [three.changed(list, "", rules), Members::parse_request(list, rules)];
    for refused in asked(MemberRules::PLAIN) {
        let Err(ReconfigError::Bad(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("expected one address, since multiAddress.enabled is not true"), "{why}");
    }
    for taken in asked(MemberRules { multi_address: true, ..MemberRules::PLAIN }) {
        let members = Members { version: 0x1_0000_0006, ..taken.unwrap() };
        check_starts(&members, MemberRules::PLAIN, false);
    }
}

#[test]
fn a_list_that_would_not_fit_into_a_message_is_refused_by_whoever_hears_of_it_first() {
    // Short when it is asked for, long when it is written.
    let lines = |count: usize| (1..=count).map(|id| format!("server.{id}=[::1]:1:2;9")).collect::<Vec<_>>().join("\n");
    let (fits, long) = (lines(8000), lines(10_000));
    assert!(Members::parse_request(&fits, MemberRules::PLAIN).is_ok());
    let Err(ReconfigError::Bad(why)) = Members::parse_request(&long, MemberRules::PLAIN) else { panic!() };
    assert!(why.ends_with("bytes are too long for a list of members"), "{why}");
    let text = format!("{BASE}{long}");
    let why = load_everywhere(Fake::with("/d/myid", "1"), text.as_bytes()).unwrap_err();
    assert!(why.ends_with("bytes are too long for a list of members"), "{why}");
}
