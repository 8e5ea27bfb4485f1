//! What a leader does, driven by packets.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::*;
use crate::config::Members;
use crate::ids::SessionId;
use crate::mail::{ForwardedRequest, ToPipeline};
use crate::quorum::Timing;
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::{Ends, Relation};
use crate::quorum::packet::{LearnerInfo, PROTOCOL};
use crate::txn::{SetDataTxn, Txn, TxnBody, TxnHeader};

const TIMING: Timing = Timing { tick_ms: 1000, init_ms: 5000, sync_ms: 2000, connect_ms: 5000 };

fn z(epoch: i64, counter: i64) -> Zxid {
    Zxid(epoch << 32 | counter)
}

fn record(zxid: Zxid) -> LogRecord {
    LogRecord { zxid, payload: format!("{zxid}").into_bytes() }
}

fn configs(participants: i64) -> Configs {
    let text: String = (1..=participants).map(|id| format!("server.{id}=h:1:2\n")).collect();
    Configs { committed: Members::parse_text(text.as_bytes()).unwrap(), last_seen: None, reconfig_enabled: false }
}

/// A leader, server 1, and what it said that no test has looked at yet, as short words.
struct Reign {
    leader: Leader,
    now_ms: i64,
    said: Vec<String>,
    /// What an operator was warned of.
    warned: Vec<String>,
    links: u64,
    /// What the pipeline knows.
    followers: BTreeSet<ServerId>,
    told_version: i64,
}

/// What a server says of itself when it connects.
#[derive(Clone, Copy)]
struct Peer {
    id: i64,
    observer: bool,
    accepted: u32,
    current: u32,
    last: Zxid,
}

fn peer(id: i64) -> Peer {
    Peer { id, observer: false, accepted: 1, current: 1, last: z(1, 3) }
}

fn info(peer: Peer) -> LearnerInfo {
    LearnerInfo {
        observer: peer.observer,
        accepted_epoch: peer.accepted,
        server: Some(ServerId(peer.id)),
        protocol: PROTOCOL,
        config_version: 0,
        history: None,
    }
}

fn three_old_transactions() -> CommittedLog {
    CommittedLog::new(z(1, 3), (1..=3).map(|c| record(z(1, c))).collect())
}

impl Reign {
    /// Three transactions of epoch 1 are behind it.
    fn new(participants: i64) -> Reign {
        Reign::with(configs(participants), three_old_transactions())
    }

    fn with(configs: Configs, committed_log: CommittedLog) -> Reign {
        Reign::by_rules(PeerRules { unlisted: Some(true), ..TIMING.into() }, configs, committed_log)
    }

    fn by_rules(rules: PeerRules, configs: Configs, committed_log: CommittedLog) -> Reign {
        let (epochs, last) = (Epochs { accepted: 1, current: 1 }, committed_log.last());
        let leader = Leader::new(ServerId(1), configs, rules, epochs, committed_log, last, 0);
        Reign {
            leader,
            now_ms: 0,
            said: Vec::new(),
            warned: Vec::new(),
            links: 0,
            followers: BTreeSet::new(),
            told_version: -1,
        }
    }

    /// A leader of three in broadcast in epoch 2, with server 2.
    fn serving() -> (Reign, LinkId) {
        let mut reign = Reign::new(3);
        let two = reign.connect(peer(2));
        reign.promise(two, peer(2));
        reign.ack(two, z(2, 0));
        reign.ack(two, z(2, 0));
        assert!(reign.leader.is_serving());
        reign.said();
        (reign, two)
    }

    /// One who is synchronized up to UPTODATE and has acknowledged that.
    fn join(&mut self, peer: Peer) -> LinkId {
        let link = self.connect(peer);
        self.promise(link, peer);
        self.ack(link, z(2, 0));
        self.ack(link, z(2, 0));
        link
    }

    fn connect(&mut self, peer: Peer) -> LinkId {
        self.connect_saying(Packet::LearnerInfo(info(peer)))
    }

    fn connect_saying(&mut self, packet: Packet) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.leader.on_learner_connected(link);
        self.packet(link, packet);
        link
    }

    fn promise(&mut self, link: LinkId, peer: Peer) {
        let epoch = Some(peer.current).filter(|_| peer.accepted < 2);
        self.packet(link, Packet::AckEpoch { zxid: peer.last, epoch, reach: None });
    }

    fn ack(&mut self, link: LinkId, zxid: Zxid) {
        self.packet(link, Packet::Ack { zxid });
    }

    fn packet(&mut self, link: LinkId, packet: Packet) {
        self.leader.on_packet(link, packet);
        self.listen();
    }

    fn inner(&mut self, mail: ToQuorum) {
        self.leader.on_inner(mail);
        self.listen();
    }

    fn propose(&mut self, counters: std::ops::RangeInclusive<i64>) {
        self.inner(ToQuorum::Proposed(counters.map(|c| record(z(2, c))).collect()));
    }

    fn durable(&mut self, zxid: Zxid) {
        self.inner(ToQuorum::Durable { zxid, at_us: self.now_ms * 1000 });
    }

    fn pass(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = self.leader.next_deadline_ms().clamp(self.now_ms + 1, end_ms);
            self.leader.set_time(self.now_ms);
            self.leader.tick();
            self.listen();
        }
    }

    /// The server does not run for this long.
    fn stop_for(&mut self, ms: i64) {
        self.now_ms += ms;
        self.leader.set_time(self.now_ms);
    }

    fn listen(&mut self) {
        for effect in self.leader.take_effects() {
            match effect {
                Effect::Pipeline(ToPipeline::Followers(servers)) => self.followers = servers,
                Effect::Pipeline(ToPipeline::Configs(configs)) => self.told_version = configs.committed.version,
                Effect::Warn { what, .. } => self.warned.push(what),
                effect => self.said.push(word(effect)),
            }
        }
    }

    /// What was said since the last time.
    fn said(&mut self) -> Vec<String> {
        self.listen();
        std::mem::take(&mut self.said)
    }

    /// The same, but only what concerns a learner.
    fn said_to(&mut self, link: LinkId) -> Vec<String> {
        let start = format!("{}:", link.0);
        self.said().iter().filter_map(|word| Some(word.strip_prefix(&start)?.to_string())).collect()
    }
}

/// `link:packet` for packets, else what is done; zxids as epoch.counter.
fn word(effect: Effect) -> String {
    let short = |zxid: Zxid| format!("{}.{}", zxid.epoch(), zxid.counter());
    match effect {
        Effect::Send { link, packet } => {
            let packet = match packet {
                Packet::LeaderInfo { epoch, .. } => format!("LEADERINFO {epoch}"),
                Packet::Diff { zxid } => format!("DIFF {}", short(zxid)),
                Packet::Trunc { zxid } => format!("TRUNC {}", short(zxid)),
                Packet::Snap { zxid, .. } => format!("SNAP {}", short(zxid)),
                Packet::Proposal { zxid, payload } => {
                    assert!(payload == record(zxid).payload || crate::quorum::proposed_members(&payload).is_some());
                    format!("P {}", short(zxid))
                }
                Packet::Commit { zxid } => format!("C {}", short(zxid)),
                Packet::Inform { zxid, payload } => {
                    assert_eq!(payload, record(zxid).payload);
                    format!("INFORM {}", short(zxid))
                }
                Packet::NewLeader { zxid, config } => {
                    assert!(config.starts_with(b"server.1=h:1:2:participant\n"));
                    match Members::parse_text(&config).unwrap().version {
                        0 => format!("NEWLEADER {}", short(zxid)),
                        version => format!("NEWLEADER {} {}", short(zxid), short(Zxid(version))),
                    }
                }
                Packet::CommitAndActivate { zxid, designated } => format!("C {} {}", short(zxid), designated.0),
                Packet::InformAndActivate { zxid, designated, .. } => {
                    format!("INFORM {} {}", short(zxid), designated.0)
                }
                Packet::Ping { zxid, .. } => format!("PING {}", short(zxid)),
                other => other.name().to_string(),
            };
            format!("{}:{packet}", link.0)
        }
        Effect::SendSnapshot { link, bytes } => format!("{}:bytes {}", link.0, bytes.len()),
        Effect::Close { link, why } => format!("{}:closed: {why}", link.0),
        Effect::ReadLog { link, from, to } => format!("{}:ReadLog {} {}", link.0, short(from), short(to)),
        Effect::Pipeline(ToPipeline::Committed { zxid, .. }) => format!("Committed {}", short(zxid)),
        Effect::Pipeline(mail) => format!("{mail:?}"),
        Effect::SaveConfigs(configs) => {
            let proposed =
                configs.last_seen.map_or_else(String::new, |members| format!(", {}", short(Zxid(members.version))));
            format!("configs {}{proposed}", short(Zxid(configs.committed.version)))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn a_server_that_cannot_read_its_history_makes_no_quorum_before_it_has_the_leaders() {
    let mut reign = Reign::new(3);
    let two = reign.connect(peer(2));
    reign.said();
    // Whatever it says of its epoch, also an Apache server that has nothing and should.
    reign.packet(two, Packet::AckEpoch { zxid: UNTRUSTED, epoch: Some(7), reach: None });
    assert_eq!(reign.said(), [""; 0]);
    let three = reign.connect(peer(3));
    reign.promise(three, peer(3));
    let said = reign.said();
    assert!(said.contains(&"SetCurrentEpoch(2)".to_owned()), "{said:?}");
    assert!(said.iter().any(|word| word.contains("StreamSnapshot { learner: LinkId(1) }")), "{said:?}");
    reign.inner(ToQuorum::Snapshot { learner: two, zxid: z(1, 3), bytes: vec![1], last: true });
    reign.ack(two, z(2, 0));
    assert!(reign.leader.is_serving(), "with the history it counts");
}

#[test]
fn a_reign_begins_step_by_step() {
    let mut reign = Reign::new(3);
    assert_eq!(reign.said(), ["Listen(true)"]);
    let peer = Peer { accepted: 4, ..peer(2) };
    let two = reign.connect(peer);
    assert_eq!(reign.said(), ["SetAcceptedEpoch(5)", "1:LEADERINFO 5"]);
    reign.packet(two, Packet::AckEpoch { zxid: z(1, 2), epoch: Some(1), reach: None });
    let sync = ["SetCurrentEpoch(5)", "1:DIFF 1.3", "1:P 1.3", "1:C 1.3", "1:NEWLEADER 5.0"];
    assert_eq!(reign.said(), sync);
    assert_eq!(reign.leader.epochs(), Epochs { accepted: 5, current: 5 });
    assert!(!reign.leader.is_serving());
    reign.ack(two, z(5, 0));
    assert_eq!(reign.said(), ["Role(Leading { epoch: 5 })", "1:UPTODATE"]);
    assert!(reign.leader.is_serving());
}

#[test]
fn observers_and_strangers_raise_the_epoch_but_are_no_quorum() {
    let mut reign = Reign::new(3);
    reign.connect(Peer { observer: true, accepted: 8, ..peer(4) });
    reign.connect(Peer { accepted: 9, ..peer(77) });
    assert_eq!(reign.said(), ["Listen(true)"]);
    reign.connect(peer(3));
    assert_eq!(reign.said(), ["SetAcceptedEpoch(10)", "1:LEADERINFO 10", "2:LEADERINFO 10", "3:LEADERINFO 10"]);
    // Promises and synchronization neither.
    reign.packet(LinkId(1), Packet::AckEpoch { zxid: z(1, 3), epoch: Some(1), reach: None });
    reign.packet(LinkId(2), Packet::AckEpoch { zxid: z(1, 3), epoch: Some(1), reach: None });
    assert!(reign.said().is_empty());
    reign.packet(LinkId(3), Packet::AckEpoch { zxid: z(1, 3), epoch: Some(1), reach: None });
    reign.ack(LinkId(1), z(10, 0));
    reign.ack(LinkId(2), z(10, 0));
    assert!(!reign.leader.is_serving());
    reign.ack(LinkId(3), z(10, 0));
    assert!(reign.leader.is_serving());
}

#[test]
fn who_is_in_no_list_is_taken_only_where_lists_can_change_or_a_key_allows_it() {
    for (key, reconfig_enabled, taken) in
        [(None, false, false), (None, true, true), (Some(true), false, true), (Some(false), true, false)]
    {
        let (rules, configs) =
            (PeerRules { unlisted: key, ..TIMING.into() }, Configs { reconfig_enabled, ..configs(3) });
        for observer in [false, true] {
            let mut reign = Reign::by_rules(rules, configs.clone(), CommittedLog::new(z(1, 0), Vec::new()));
            reign.said();
            let stranger = reign.connect(Peer { observer, accepted: 9, ..peer(77) });
            let said = reign.said_to(stranger);
            let what = if taken { "follows without a vote" } else { "is refused" };
            let expected = format!("server 77 is in no list of members, and {what}");
            assert!(reign.warned.len() == 1 && reign.warned[0].starts_with(&expected), "{:?}", reign.warned);
            assert!(reign.warned[0].contains("allowUnlistedLearners"), "{:?}", reign.warned);
            let closed: &[&str] = if taken { &[] } else { &["closed: server 77 is in no list of members"] };
            assert_eq!(said, closed);
            reign.connect(peer(2));
            let epoch = if taken { 10 } else { 2 };
            assert!(reign.said().contains(&format!("SetAcceptedEpoch({epoch})")), "it has no say in the epoch");
        }
    }
}

#[test]
fn bytes_do_not_put_off_the_time_in_which_a_learner_must_say_who_it_is() {
    let (mut reign, _) = Reign::serving();
    reign.links += 1;
    let slow = LinkId(reign.links);
    reign.leader.on_learner_connected(slow);
    while !reign.said.iter().any(|word| word.starts_with(&format!("{}:closed", slow.0))) {
        reign.leader.on_heard(slow);
        reign.leader.on_heard(LinkId(1));
        reign.pass(100);
        assert!(reign.now_ms <= TIMING.init_ms);
    }
}

#[test]
fn a_single_voter_serves_at_once_and_commits_alone() {
    let mut reign = Reign::new(1);
    let begin = ["Listen(true)", "SetAcceptedEpoch(2)", "SetCurrentEpoch(2)", "Role(Leading { epoch: 2 })"];
    assert_eq!(reign.said(), begin);
    reign.propose(1..=2);
    assert!(reign.said().is_empty());
    reign.durable(z(2, 2));
    assert_eq!(reign.said(), ["Committed 2.2"]);
}

#[test]
fn a_learner_with_a_longer_history_is_refused_and_not_waited_for() {
    let mut reign = Reign::new(3);
    let two = reign.connect(peer(2));
    let three = reign.connect(peer(3));
    reign.said();
    reign.packet(two, Packet::AckEpoch { zxid: z(1, 4), epoch: Some(1), reach: None });
    let said = reign.said();
    assert!(said.len() == 1 && said[0].contains("server 2 has a longer history"), "{said:?}");
    // One that promised this epoch before does not count either, but is synchronized.
    reign.packet(three, Packet::AckEpoch { zxid: z(1, 4), epoch: None, reach: None });
    assert!(reign.said().is_empty());
    let two = reign.connect(peer(2));
    reign.promise(two, peer(2));
    assert_eq!(reign.said_to(three), ["TRUNC 1.3", "NEWLEADER 2.0"]);
}

#[test]
fn without_a_quorum_each_stage_ends_after_init_limit() {
    let mut reign = Reign::new(3);
    reign.pass(4999);
    assert_eq!(reign.leader.ended(), None);
    reign.connect(peer(2));
    reign.pass(5000);
    assert!(reign.leader.ended().unwrap().contains("promised"));
    let mut reign = Reign::new(3);
    reign.pass(5000);
    assert!(reign.leader.ended().unwrap().contains("connected"));
    let mut reign = Reign::new(5);
    reign.connect(peer(2));
    let three = reign.connect(peer(3));
    reign.promise(LinkId(1), peer(2));
    reign.promise(three, peer(3));
    reign.ack(three, z(2, 0));
    reign.pass(5000);
    assert!(reign.leader.ended().unwrap().contains("synchronized"));
}

#[test]
fn a_transaction_is_proposed_acknowledged_and_committed() {
    let (mut reign, two) = Reign::serving();
    let observer = reign.join(Peer { observer: true, ..peer(9) });
    reign.said();
    reign.propose(1..=2);
    assert_eq!(reign.said(), ["1:P 2.1", "1:P 2.2"]);
    reign.ack(two, z(2, 1));
    reign.ack(observer, z(2, 1));
    assert!(reign.said().is_empty(), "an observer has no voice");
    reign.durable(z(2, 1));
    assert_eq!(reign.said(), ["2:INFORM 2.1", "1:C 2.1", "Committed 2.1"]);
    reign.durable(z(2, 2));
    reign.ack(two, z(2, 2));
    assert_eq!(reign.said(), ["2:INFORM 2.2", "1:C 2.2", "Committed 2.2"]);
    // Late, repeated and invented ones do nothing.
    reign.ack(two, z(2, 2));
    reign.ack(two, z(2, 900));
    reign.ack(two, Zxid(-1));
    assert!(reign.said().is_empty());
    assert_eq!(reign.leader.committed_log().last(), z(2, 2));
}

#[test]
fn a_commit_says_since_when_it_is_one_and_what_was_synced_here_when() {
    let (Reign { mut leader, .. }, two) = Reign::serving();
    let commits = |leader: &mut Leader| {
        let of = |effect| match effect {
            Effect::Pipeline(ToPipeline::Committed { zxid, at_us, synced }) => Some((zxid, at_us, synced)),
            _ => None,
        };
        leader.take_effects().into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let (one, three) = (Synced { zxid: z(2, 1), at_us: 7 }, Synced { zxid: z(2, 3), at_us: 5_000 });
    leader.on_inner(ToQuorum::Proposed((1..=4).map(|c| record(z(2, c))).collect()));
    for Synced { zxid, at_us } in [one, three] {
        leader.on_inner(ToQuorum::Durable { zxid, at_us });
    }
    assert!(commits(&mut leader).is_empty());
    leader.set_time(25);
    leader.on_packet(two, Packet::Ack { zxid: z(2, 1) });
    assert_eq!(commits(&mut leader), [(z(2, 1), 25_000, vec![one, three])]);
    // Each is said once.
    leader.set_time(26);
    leader.on_packet(two, Packet::Ack { zxid: z(2, 2) });
    assert_eq!(commits(&mut leader), [(z(2, 2), 26_000, vec![])]);
}

#[test]
fn an_early_ack_hangs_nothing() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=3);
    reign.durable(z(2, 3));
    reign.ack(two, z(2, 3));
    reign.ack(two, z(2, 2));
    assert_eq!(reign.said(), ["1:P 2.1", "1:P 2.2", "1:P 2.3"]);
    reign.ack(two, z(2, 1));
    assert_eq!(reign.said(), ["1:C 2.1", "1:C 2.2", "1:C 2.3", "Committed 2.3"]);
}

#[test]
fn followers_commit_before_the_leaders_own_disk_is_ready() {
    let (mut reign, two) = Reign::serving();
    let three = reign.join(peer(3));
    reign.propose(1..=1);
    reign.said();
    reign.ack(two, z(2, 1));
    reign.ack(three, z(2, 1));
    assert_eq!(reign.said(), ["1:C 2.1", "2:C 2.1", "Committed 2.1"]);
}

#[test]
fn what_was_proposed_and_committed_meanwhile_follows_uptodate() {
    let (mut reign, two) = Reign::serving();
    let [three, observer] = [peer(3), Peer { observer: true, ..peer(9) }];
    reign.propose(1..=3);
    reign.durable(z(2, 3));
    reign.ack(two, z(2, 1));
    let links = [three, observer].map(|peer| {
        let link = reign.connect(peer);
        reign.promise(link, peer);
        let sync = ["LEADERINFO 2", "DIFF 2.1", "P 2.1", "C 2.1", "NEWLEADER 2.0"];
        assert_eq!(reign.said_to(link), sync);
        link
    });
    reign.ack(two, z(2, 2));
    reign.propose(4..=4);
    let said = reign.said();
    assert!(!said.iter().any(|word| word.starts_with("2:") || word.starts_with("3:")), "{said:?}");
    reign.ack(links[0], z(2, 0));
    assert_eq!(reign.said_to(links[0]), ["UPTODATE", "P 2.2", "C 2.2", "P 2.3", "P 2.4"]);
    reign.ack(links[1], z(2, 0));
    assert_eq!(reign.said_to(links[1]), ["UPTODATE", "INFORM 2.2"]);
    reign.ack(two, z(2, 3));
    assert_eq!(reign.said(), ["3:INFORM 2.3", "1:C 2.3", "2:C 2.3", "Committed 2.3"]);
}

#[test]
fn a_learner_that_takes_long_to_acknowledge_newleader_keeps_what_it_missed_at_hand_up_to_a_bound() {
    let (mut reign, two) = Reign::serving();
    let three = reign.connect(peer(3));
    reign.promise(three, peer(3));
    let commit = |reign: &mut Reign, counters: std::ops::RangeInclusive<i64>| {
        let last = z(2, *counters.end());
        reign.propose(counters);
        reign.durable(last);
        reign.ack(two, last);
    };
    (1..=1200).for_each(|counter| commit(&mut reign, counter..=counter));
    reign.said();
    reign.ack(three, z(2, 0));
    let said = reign.said_to(three);
    assert_eq!(said.len(), 1 + 2 * 1200, "more than the window has else");
    assert_eq!(said[..3], ["UPTODATE", "P 2.1", "C 2.1"]);
    commit(&mut reign, 1201..=1201);
    assert_eq!(reign.leader.committed_log().after(Zxid::ZERO).count(), 500, "nothing is kept for it any more");
}

#[test]
fn a_learner_that_was_dropped_and_cut_back_is_counted_again() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=3);
    reign.durable(z(2, 3));
    reign.leader.on_link_closed(two);
    reign.said();
    // It had logged, and may have acknowledged, what is cut off now.
    let back = Peer { last: z(2, 3), accepted: 2, ..peer(2) };
    let two = reign.connect(back);
    reign.promise(two, back);
    assert_eq!(reign.said_to(two), ["LEADERINFO 2", "TRUNC 1.3", "NEWLEADER 2.0"]);
    // In front of UPTODATE nobody speaks of what is outstanding, or is believed.
    reign.ack(two, z(2, 1));
    reign.ack(two, z(2, 0));
    assert_eq!(reign.said(), ["2:UPTODATE", "2:P 2.1", "2:P 2.2", "2:P 2.3"]);
    reign.ack(two, z(2, 1));
    assert_eq!(reign.said(), ["2:C 2.1", "Committed 2.1"]);
    reign.ack(two, z(2, 0));
    reign.ack(two, z(2, 3));
    reign.ack(two, z(2, 2));
    assert_eq!(reign.said(), ["2:C 2.2", "2:C 2.3", "Committed 2.3"]);
}

#[test]
fn a_leader_that_commits_nothing_for_sync_limit_steps_down_whoever_comes_and_goes() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=2);
    reign.durable(z(2, 2));
    // Each new connection is one that may yet follow; none gets there.
    let mut link = two;
    let mut rounds = 0;
    while reign.leader.ended().is_none() {
        reign.pass(500);
        reign.leader.on_link_closed(link);
        link = reign.connect(peer(2));
        rounds += 1;
        assert!(rounds < 10);
    }
    let why = reign.leader.ended().unwrap();
    assert!(why.contains("nothing was committed within syncLimit (2000 ms): 2 transactions") && rounds > 4, "{why}");
    assert!(why.contains("0x200000001, is acknowledged by 1 only"), "{why}");
}

#[test]
fn a_leader_whose_own_disk_hangs_steps_down_when_the_others_are_no_quorum_without_it() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=2);
    reign.ack(two, z(2, 1));
    reign.ack(two, z(2, 2));
    let mut pings = 0;
    while reign.leader.ended().is_none() {
        reign.pass(500);
        reign.packet(two, Packet::Ping { zxid: Zxid(0), touched: Vec::new() });
        pings += 1;
        assert!(pings < 10);
    }
    let why = reign.leader.ended().unwrap();
    assert!(why.contains("0x200000001, is acknowledged by 2 only; this server's own log did not sync it"), "{why}");
}

#[test]
fn a_leader_that_commits_a_little_stays() {
    let (mut reign, two) = Reign::serving();
    let ping = |reign: &mut Reign| reign.packet(two, Packet::Ping { zxid: Zxid(0), touched: Vec::new() });
    reign.propose(1..=1);
    for counter in 1..=10 {
        // Something is always open.
        reign.propose(counter + 1..=counter + 1);
        reign.durable(z(2, counter + 1));
        reign.pass(1500);
        ping(&mut reign);
        reign.ack(two, z(2, counter));
    }
    assert_eq!(reign.leader.ended(), None);
    reign.ack(two, z(2, 11));
    // While this server did not run, nobody could do anything about it.
    reign.propose(12..=12);
    reign.durable(z(2, 12));
    reign.now_ms += 1500;
    reign.pass(1);
    ping(&mut reign);
    assert_eq!(reign.leader.ended(), None);
}

#[test]
fn a_learner_whose_packet_is_long_in_coming_is_alive() {
    let (mut reign, two) = Reign::serving();
    for _ in 0..6 {
        reign.pass(1500);
        reign.leader.on_heard(two);
    }
    assert_eq!(reign.leader.ended(), None);
    assert!(!reign.said().iter().any(|word| word.contains("closed")));
    reign.pass(2500);
    assert!(reign.leader.ended().is_some());
}

#[test]
fn the_acks_of_a_learner_go_with_its_connection() {
    let mut reign = Reign::new(5);
    for id in [2, 3] {
        let link = reign.connect(peer(id));
        if id == 3 {
            reign.promise(LinkId(1), peer(2));
            reign.promise(link, peer(3));
        }
    }
    for link in [1, 1, 2, 2] {
        reign.ack(LinkId(link), z(2, 0));
    }
    let four = reign.join(peer(4));
    reign.propose(1..=1);
    reign.durable(z(2, 1));
    reign.ack(four, z(2, 1));
    // It comes back, is cut back to what is committed, and may not have it now.
    reign.leader.on_link_closed(four);
    let four = reign.join(Peer { accepted: 2, last: z(2, 1), ..peer(4) });
    assert_eq!(reign.said_to(four), ["LEADERINFO 2", "TRUNC 1.3", "NEWLEADER 2.0", "UPTODATE", "P 2.1"]);
    reign.ack(LinkId(1), z(2, 1));
    assert!(!reign.said().contains(&"Committed 2.1".to_string()));
    reign.ack(four, z(2, 1));
    assert!(reign.said().contains(&"Committed 2.1".to_string()));
}

#[test]
fn a_snapshot_is_followed_by_all_that_was_committed_since() {
    let (mut reign, two) = Reign::serving();
    let fresh = Peer { last: Zxid(0), accepted: 0, current: 0, ..peer(3) };
    let three = reign.connect(fresh);
    reign.promise(three, fresh);
    assert_eq!(reign.said(), ["2:LEADERINFO 2", "StreamSnapshot { learner: LinkId(2) }"]);
    let piece = |zxid, last| ToQuorum::Snapshot { learner: three, zxid, bytes: vec![0; 10], last };
    let commit = |reign: &mut Reign, counters: std::ops::RangeInclusive<i64>| {
        let last = z(2, *counters.end());
        reign.propose(counters.clone());
        reign.durable(last);
        counters.for_each(|c| reign.ack(two, z(2, c)));
    };
    commit(&mut reign, 1..=1);
    reign.inner(piece(z(2, 1), false));
    // Far more than the window keeps otherwise.
    commit(&mut reign, 2..=2000);
    reign.propose(2001..=2001);
    reign.leader.on_snapshot_sent(three);
    assert!(reign.said().contains(&"SnapshotPieceSent { learner: LinkId(2) }".to_string()));
    reign.inner(piece(z(2, 1), true));
    let said = reign.said_to(three);
    assert_eq!(said[..3], ["bytes 10", "P 2.2", "C 2.2"]);
    assert_eq!(said[said.len() - 3..], ["P 2.2000", "C 2.2000", "NEWLEADER 2.0"]);
    assert_eq!(said.len(), 1 + 2 * 1999 + 1);
    // Pieces that still come are for nobody.
    reign.leader.on_link_closed(three);
    assert_eq!(reign.said(), ["LearnerGone { learner: LinkId(2) }"]);
    reign.inner(piece(z(2, 1), false));
    assert!(reign.said().is_empty());
}

/// A server of ours with records up to its last one, which are the leader's but for some.
fn of_ours(peer: Peer, first: i64, other: &[i64]) -> (Peer, Packet) {
    let mut records: Vec<LogRecord> = (first..=i64::from(peer.last.counter())).map(|c| record(z(1, c))).collect();
    records.iter_mut().filter(|one| other.contains(&i64::from(one.zxid.counter()))).for_each(|one| one.payload.push(7));
    let end = HistoryEnd { epoch: peer.current, last: peer.last };
    let reach = CommittedLog::new(peer.last, records).reach(end);
    (peer, Packet::AckEpoch { zxid: peer.last, epoch: Some(peer.current), reach: Some(Box::new(reach)) })
}

#[test]
fn a_server_of_ours_gets_a_diff_only_where_the_histories_are_one() {
    let sync = |peer: Peer, first: i64, other: &[i64]| {
        let mut reign = Reign::new(3);
        let (peer, promise) = of_ours(peer, first, other);
        let two = reign.connect(peer);
        reign.said();
        reign.packet(two, promise);
        let snapshot = ToQuorum::Snapshot { learner: two, zxid: z(1, 3), bytes: vec![1], last: true };
        reign.leader.on_inner(snapshot);
        let told = reign.leader.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Send { packet: Packet::Snap { told, .. }, .. } => told,
            _ => None,
        });
        (reign.said_to(two).first().cloned(), told.map(|told| told.relation))
    };
    let behind = Peer { last: z(1, 2), ..peer(2) };
    assert_eq!(sync(behind, 1, &[]), (Some("DIFF 1.3".to_owned()), None));
    assert_eq!(sync(peer(2), 3, &[]), (Some("DIFF 1.3".to_owned()), None));
    assert_eq!(sync(behind, 1, &[2]).1, Some(Relation::Differs { at: z(1, 2) }));
    assert_eq!(sync(peer(2), 1, &[1, 2, 3]).1, Some(Relation::Differs { at: z(1, 3) }));
    // Nothing to compare with: no record at hand, and no tree.
    assert_eq!(sync(behind, 3, &[]).1, Some(Relation::Unknown));
}

#[test]
fn the_log_is_compared_too_and_tells_what_a_snapshot_replaces() {
    let recent = || CommittedLog::new(z(1, 600), (1..=600).map(|c| record(z(1, c))).collect());
    let all = |from: i64| Some((from..=100).map(|c| record(z(1, c))).collect::<Vec<_>>());
    let joint = Some(record(z(1, 97)));
    let relation = |other: &[i64], part: LogPart| {
        let mut reign = Reign::with(configs(3), recent());
        let (peer, promise) = of_ours(Peer { last: z(1, 97), ..peer(2) }, 90, other);
        let two = reign.connect(peer);
        reign.packet(two, promise);
        assert_eq!(reign.said_to(two), ["LEADERINFO 2", "ReadLog 1.97 1.100"]);
        reign.leader.on_log_read(two, part);
        reign.leader.on_inner(ToQuorum::Snapshot { learner: two, zxid: z(1, 600), bytes: vec![1], last: true });
        reign.leader.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Send { packet: Packet::Snap { told, .. }, .. } => told.map(|told| told.relation),
            _ => None,
        })
    };
    let whole = LogPart { joint: joint.clone(), below: None, records: all(98) };
    assert_eq!(relation(&[], whole.clone()), None, "DIFF");
    assert_eq!(relation(&[97], whole), Some(Relation::Differs { at: z(1, 97) }));
    let too_much = LogPart { joint, ..LogPart::default() };
    assert_eq!(relation(&[], too_much), Some(Relation::Contained));
    let without = LogPart { below: Some(record(z(1, 96))), ..LogPart::default() };
    assert_eq!(relation(&[], without.clone()), Some(Relation::Parted { at: z(1, 96) }));
    assert_eq!(relation(&[96], without), Some(Relation::Differs { at: z(1, 96) }));
    let long_before = LogPart { below: Some(record(z(1, 50))), ..LogPart::default() };
    assert_eq!(relation(&[], long_before), Some(Relation::Absent { below: z(1, 50) }));
    assert_eq!(relation(&[], LogPart::default()), Some(Relation::Unknown));
}

#[test]
fn a_history_of_a_later_epoch_ends_no_reign_that_serves() {
    let (mut reign, _) = Reign::serving();
    // By what it says itself, or as a server of Apache said when it began to look.
    let ours = HistoryEnd { epoch: 5, last: z(5, 2) };
    let later = Peer { accepted: 5, current: 5, last: z(5, 2), ..peer(3) };
    let told = reign.connect_saying(Packet::LearnerInfo(LearnerInfo { history: Some(ours), ..info(later) }));
    assert_eq!(reign.said_to(told), ["LEADERINFO 2"], "it sees for itself");
    reign.leader.on_link_closed(told);
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 5, last: z(1, 3) });
    let silent = reign.connect(later);
    assert_eq!(reign.said_to(silent), [""; 0], "it is held, and not let in");
    assert_eq!(reign.leader.ended(), None);
    reign.packet(silent, Packet::Ping { zxid: z(5, 2), touched: Vec::new() });
    assert!(reign.leader.is_serving());
    // With nothing but a promise another epoch has to begin.
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 1, last: z(1, 3) });
    reign.connect(later);
    assert!(reign.leader.ended().unwrap().contains("promised epoch 0x5"));
}

#[test]
fn a_server_of_apache_with_a_later_promise_is_sent_back_once_to_say_where_its_history_ends() {
    let later = Peer { accepted: 5, current: 5, last: z(5, 2), ..peer(3) };
    let sent_back = || {
        let (mut reign, _) = Reign::serving();
        let link = reign.connect(later);
        assert!(reign.said_to(link)[0].contains("has not said yet where its history ends"));
        assert!(reign.leader.is_serving() && reign.leader.ended().is_none());
        reign
    };
    let mut reign = sent_back();
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 5, last: z(5, 2) });
    let held = reign.connect(later);
    assert_eq!(reign.said_to(held), [""; 0]);
    assert!(reign.leader.is_serving());
    // What it says may not arrive: it must not stay out for that.
    let mut reign = sent_back();
    reign.connect(later);
    assert!(reign.leader.ended().unwrap().contains("promised epoch 0x5"));
}

#[test]
fn those_of_ours_that_follow_already_hear_of_a_later_history_that_is_refused() {
    let mut reign = Reign::new(3);
    let (two, promise) = of_ours(peer(2), 1, &[]);
    let two = reign.connect(two);
    reign.packet(two, promise);
    reign.ack(two, z(2, 0));
    reign.ack(two, z(2, 0));
    let apache = reign.join(Peer { observer: true, ..peer(4) });
    assert!(reign.leader.is_serving());
    // It took part in epoch 5, and nothing was written there.
    let end = HistoryEnd { epoch: 5, last: z(1, 9) };
    reign.leader.on_history_heard(ServerId(3), end);
    let mut told = BTreeMap::new();
    for _ in 0..8 {
        for link in [two, apache] {
            reign.packet(link, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
        }
        let link = reign.connect(Peer { accepted: 5, current: 5, last: end.last, ..peer(3) });
        reign.leader.on_link_closed(link);
        let end_ms = reign.now_ms + 1000;
        while reign.now_ms < end_ms {
            reign.now_ms = reign.leader.next_deadline_ms().clamp(reign.now_ms + 1, end_ms);
            reign.leader.set_time(reign.now_ms);
            reign.leader.tick();
            for effect in reign.leader.take_effects() {
                if let Effect::Send { link, packet: Packet::TellingPing { foreign, .. } } = effect {
                    told.insert(link, foreign);
                }
            }
        }
    }
    assert_eq!(told, BTreeMap::from([(two, ForeignEnds::from([(ServerId(3), Ends::at(end))]))]), "none of Apache's");
    // It comes with nothing and is taken: who follows hears of that, too.
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 0, last: Zxid::ZERO });
    assert!(is_taken(&mut reign, Peer { accepted: 2, current: 0, last: Zxid::ZERO, ..peer(3) }));
    reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
    reign.leader.set_time(reign.leader.next_deadline_ms());
    reign.leader.tick();
    let told = reign.leader.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Send { link, packet: Packet::TellingPing { foreign, .. } } if link == two => Some(foreign),
        _ => None,
    });
    assert_eq!(told, Some(ForeignEnds::new()));
    // One who was away and knows the history that it had then tells nothing new.
    let emptied = Peer { accepted: 2, current: 0, last: Zxid::ZERO, ..peer(3) };
    let link = reign.connect(emptied);
    reign.promise(link, emptied);
    let (_, promise) = accuses(peer(2), 1, z(1, 9)..=z(1, 9));
    let back = reign.connect(peer(2));
    reign.packet(back, promise);
    assert!(reign.leader.refused_histories().is_empty());
}

#[test]
fn an_operator_hears_of_a_later_history_when_it_lasts_and_seldom_again() {
    let (mut reign, two) = Reign::serving();
    let later = Peer { accepted: 5, current: 5, last: z(5, 2), ..peer(3) };
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 5, last: z(5, 2) });
    let mut alarms = Vec::new();
    for second in 0..700 {
        reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
        let link = reign.connect(later);
        let said = reign.said();
        alarms.extend(said.iter().filter(|word| word.starts_with("Alarm")).map(|word| (second, word.clone())));
        reign.leader.on_link_closed(link);
        reign.pass(1000);
    }
    assert_eq!(alarms.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [3, 303, 603]);
    assert!(alarms[0].1.contains("server 3 has a history of epoch 0x5, up to 0x500000002"), "{}", alarms[0].1);
    // Later reigns reach that epoch.
    assert_eq!(reign.leader.take_refused_histories(), BTreeMap::from([(ServerId(3), (z(5, 2)..=z(5, 2)).into())]));
}

#[test]
fn a_server_of_apache_that_was_alone_is_not_told_to_forget_everything() {
    for last in [Zxid::ZERO, z(1, 3)] {
        let committed_log = CommittedLog::new(last, (1..=last.counter().into()).map(|c| record(z(1, c))).collect());
        let mut reign = Reign::with(configs(3), committed_log);
        let two = reign.join(Peer { last, current: 0, ..peer(2) });
        reign.said_to(two);
        assert!(reign.leader.is_serving());
        let alone = Peer { accepted: 0, current: 0, last: Zxid(20), ..peer(3) };
        let three = reign.connect(alone);
        reign.promise(three, alone);
        if last > Zxid::ZERO {
            reign.leader.on_log_read(three, LogPart::default());
            reign.listen();
        }
        let said = reign.said();
        let alarm = said.iter().find(|word| word.starts_with("Alarm")).unwrap();
        assert!(alarm.contains("server 3 comes with a history up to 0x14 that no election led to"), "{alarm}");
        assert!(!said.iter().any(|word| word.contains("TRUNC") || word.contains("StreamSnapshot")), "{said:?}");
    }
}

/// A leader of epoch 2 that has just been elected, whose own history is of this epoch.
fn leading_after(current: u32, committed_log: CommittedLog) -> Reign {
    let (epochs, last) = (Epochs { accepted: 1, current }, committed_log.last());
    let leader = Leader::new(ServerId(1), configs(3), TIMING, epochs, committed_log, last, 0);
    let mut reign = Reign {
        leader,
        now_ms: 0,
        said: Vec::new(),
        warned: Vec::new(),
        links: 0,
        followers: BTreeSet::new(),
        told_version: -1,
    };
    reign.join(Peer { last, current, ..peer(2) });
    assert!(reign.leader.is_serving());
    reign.said();
    reign
}

/// What a server of Apache is told that comes to it late.
fn told_late(mut reign: Reign, last: Zxid) -> Vec<String> {
    let late = Peer { accepted: 2, current: last.epoch(), last, ..peer(3) };
    let link = reign.connect(late);
    reign.promise(link, late);
    reign.said().into_iter().filter(|word| !word.contains("LEADERINFO")).collect()
}

#[test]
fn a_server_of_apache_forgets_what_an_election_can_have_left_and_nothing_else() {
    let empty = || CommittedLog::new(Zxid::ZERO, Vec::new());
    let young = || {
        let mut committed_log = empty();
        committed_log.push(record(z(1, 1)));
        committed_log
    };
    // What was proposed at the end of an epoch that this leader knows, to the last of it.
    assert!(told_late(leading_after(1, three_old_transactions()), z(1, 9))[0].contains("TRUNC 1.3"));
    assert!(told_late(leading_after(1, young()), z(1, 9))[0].contains("TRUNC 1.1"));
    // The start of an epoch is no transaction.
    assert!(!told_late(leading_after(0, empty()), z(1, 0)).iter().any(|word| word.contains("Alarm")));
    let foreign = [
        (leading_after(1, empty()), z(1, 9), "an empty leader"),
        (leading_after(0, empty()), z(1, 9), "an empty one of an earlier epoch"),
        (
            leading_after(0, CommittedLog::new(Zxid(3), (1..=3).map(|c| record(Zxid(c))).collect())),
            z(1, 9),
            "a later epoch",
        ),
        (leading_after(1, three_old_transactions()), z(2, 1), "more than it proposed itself"),
    ];
    for (reign, last, what) in foreign {
        let said = told_late(reign, last);
        assert!(
            !said.iter().any(|word| ["TRUNC", "StreamSnapshot", "DIFF"].iter().any(|w| word.contains(w))),
            "{said:?}"
        );
        let alarm = said.iter().find(|word| word.starts_with("Alarm")).expect(what);
        assert!(alarm.contains(&format!("server 3 comes with a history up to {last}")), "{alarm}");
        assert!(alarm.contains("stop server 3, move its version-2 folder away"), "{alarm}");
    }
}

/// Comes, and promises; whether it is synchronized.
fn is_taken(reign: &mut Reign, apache: Peer) -> bool {
    reign.said();
    let link = reign.connect(apache);
    reign.promise(link, apache);
    let said = reign.said();
    reign.leader.on_link_closed(link);
    said.iter().any(|word| ["TRUNC", "StreamSnapshot", "DIFF"].iter().any(|what| word.contains(what)))
}

#[test]
fn a_history_that_was_foreign_stays_so_when_this_one_reaches_the_same_zxids() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=2);
    reign.durable(z(2, 2));
    reign.ack(two, z(2, 2));
    let apache = Peer { accepted: 2, current: 2, last: z(2, 5), ..peer(3) };
    assert!(!is_taken(&mut reign, apache));
    reign.propose(3..=9);
    reign.durable(z(2, 9));
    reign.ack(two, z(2, 9));
    assert!(!is_taken(&mut reign, apache), "it would get a DIFF from a transaction that it does not have");
    // Nor by the same server when it leads again.
    let refused = reign.leader.take_refused_histories();
    assert_eq!(refused, BTreeMap::from([(ServerId(3), (z(2, 5)..=z(2, 5)).into())]));
    reign.leader.refuse_histories(refused);
    assert!(!is_taken(&mut reign, apache));
    // Its files were moved away: what it has from now on comes from here.
    assert!(is_taken(&mut reign, Peer { accepted: 2, current: 0, last: Zxid::ZERO, ..peer(3) }));
    assert!(is_taken(&mut reign, apache));
}

#[test]
fn what_a_follower_found_out_of_another_history_keeps_that_out_here_too() {
    let apache = peer(3);
    let says = |reign: &mut Reign, other: &[i64]| {
        let (two, mut promise) = of_ours(peer(2), 1, other);
        if let Packet::AckEpoch { reach: Some(reach), .. } = &mut promise {
            reach.foreign.extend([3, 99].map(|id| (ServerId(id), (z(1, 2)..=z(1, 0xffff_ffff)).into())));
        }
        let link = reign.connect(two);
        reign.packet(link, promise);
        reign.ack(link, z(2, 0));
        link
    };
    // By their zxids they would be one.
    let mut reign = Reign::new(3);
    says(&mut reign, &[1, 2, 3]);
    assert!(is_taken(&mut reign, apache), "who has another history itself has nothing to say of it");
    let mut reign = Reign::new(3);
    says(&mut reign, &[]);
    assert!(!is_taken(&mut reign, apache));
    assert!(is_taken(&mut reign, Peer { last: Zxid::ZERO, ..apache }), "its files were moved away");
    assert_eq!(reign.leader.take_refused_histories(), BTreeMap::new(), "a stranger is none of those who are left out");
    // Both promised before anybody was synchronized.
    let mut reign = Reign::new(5);
    let three = reign.connect(apache);
    let (two, mut promise) = of_ours(peer(2), 1, &[]);
    if let Packet::AckEpoch { reach: Some(reach), .. } = &mut promise {
        reach.foreign.insert(ServerId(3), (z(1, 2)..=z(1, 9)).into());
    }
    let two = reign.connect(two);
    reign.promise(three, apache);
    reign.packet(two, promise);
    assert!(!reign.said_to(three).iter().any(|word| word.contains("DIFF")), "it is told nothing");
    // Those who come later hear it at once.
    let ours = reign.leader.refused_histories().clone();
    assert_eq!(ours, BTreeMap::from([(ServerId(3), (z(1, 2)..=z(1, 9)).into())]));
    reign.leader.take_effects();
    let (four, link) = (of_ours(peer(4), 1, &[]).0, LinkId(40));
    reign.leader.on_learner_connected(link);
    reign.leader.on_packet(link, Packet::LearnerInfo(info(four)));
    let told = reign.leader.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: Packet::LeaderInfo { ours, .. }, .. } => ours,
        _ => None,
    });
    assert_eq!(told, Some(ours));
    // It was taken before that was known: what it has by now is of both.
    let mut reign = Reign::new(3);
    let three = reign.join(apache);
    assert!(reign.leader.is_serving());
    reign.said();
    says(&mut reign, &[]);
    assert!(reign.said_to(three).iter().any(|word| word.starts_with("closed: its history is another one")));
    assert!(!is_taken(&mut reign, Peer { last: z(2, 1), ..apache }));
    assert!(is_taken(&mut reign, Peer { last: Zxid::ZERO, ..apache }));
    assert!(is_taken(&mut reign, apache));
}

#[test]
fn who_was_left_out_is_looked_at_anew_with_other_data_or_as_a_server_of_ours() {
    let last = z(1, 3);
    let later = Ends::at(HistoryEnd { epoch: 7, last });
    let refuses = || {
        let (mut reign, _) = Reign::serving();
        reign.leader.refuse_histories(BTreeMap::from([(ServerId(3), later.clone())]));
        reign
    };
    // It says the same again, or that it has this ensemble's history, which ends there, too.
    for (epoch, is_known) in [(7, true), (1, false)] {
        let mut reign = refuses();
        reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch, last });
        assert_eq!(reign.leader.refused_histories().contains_key(&ServerId(3)), is_known, "{epoch}");
        assert_eq!(is_taken(&mut reign, Peer { accepted: 1, current: 1, last, ..peer(3) }), !is_known, "{epoch}");
    }
    let mut reign = refuses();
    let (three, promise) = of_ours(peer(3), 1, &[]);
    let link = reign.connect(three);
    reign.packet(link, promise);
    assert!(reign.leader.refused_histories().is_empty());
}

#[test]
fn a_history_of_an_epoch_that_no_elector_knows_is_replaced_and_not_joined_by_its_zxids() {
    let gets_snapshot = |epoch, last| {
        let mut reign = Reign::new(3);
        // Server 2 has promised epoch 5, and its history is none of that.
        let two = reign.connect(Peer { accepted: 5, ..peer(2) });
        reign.promise(two, peer(2));
        reign.ack(two, z(6, 0));
        reign.ack(two, z(6, 0));
        assert!(reign.leader.is_serving());
        reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch, last });
        let apache = Peer { accepted: 5, current: epoch, last, ..peer(3) };
        let link = reign.connect(apache);
        reign.said();
        reign.promise(link, apache);
        let said = reign.said();
        assert_ne!(said, [""; 0]);
        said.iter().any(|word| word.contains("StreamSnapshot"))
    };
    assert!(gets_snapshot(5, z(1, 3)));
    // One that they know, and this reign's.
    assert!(!gets_snapshot(1, z(1, 3)));
    assert!(!gets_snapshot(6, z(1, 3)));
}

/// Server 2, with its last records from this one on, says that server 3's history ends here, and is another one.
fn accuses(peer: Peer, first: i64, ends: RangeInclusive<Zxid>) -> (Peer, Packet) {
    let (peer, mut promise) = of_ours(peer, first, &[]);
    if let Packet::AckEpoch { reach: Some(reach), .. } = &mut promise {
        reach.foreign.insert(ServerId(3), ends.into());
    }
    (peer, promise)
}

#[test]
fn what_a_follower_found_out_is_heard_also_where_only_the_log_tells_of_its_own_history() {
    let recent = CommittedLog::new(z(1, 600), (1..=600).map(|c| record(z(1, c))).collect());
    let mut reign = Reign::with(configs(3), recent);
    let (two, promise) = accuses(Peer { last: z(1, 97), ..peer(2) }, 97, z(1, 90)..=z(1, 99));
    let link = reign.connect(two);
    reign.packet(link, promise);
    assert!(reign.leader.refused_histories().is_empty(), "nothing is known of its own history");
    let records = Some((98..=100).map(|c| record(z(1, c))).collect());
    let part = LogPart { joint: Some(record(z(1, 97))), below: None, records };
    reign.leader.on_log_read(link, part);
    assert_eq!(*reign.leader.refused_histories(), BTreeMap::from([(ServerId(3), (z(1, 90)..=z(1, 99)).into())]));
}

#[test]
fn who_was_sent_the_whole_state_has_no_other_history_any_more() {
    let mut reign = Reign::new(3);
    reign.leader.master.rules.always_snapshot = true;
    let apache = peer(3);
    let three = reign.connect(apache);
    reign.promise(three, apache);
    let snapshot = ToQuorum::Snapshot { learner: three, zxid: z(1, 3), bytes: vec![1], last: true };
    reign.leader.on_inner(snapshot);
    reign.leader.on_snapshot_sent(three);
    reign.ack(three, z(2, 0));
    reign.said();
    let (two, promise) = accuses(peer(2), 1, z(1, 2)..=z(1, 9));
    let link = reign.connect(two);
    reign.packet(link, promise);
    let said = reign.said_to(three);
    assert!(!said.iter().any(|word| word.starts_with("closed")), "{said:?}");
    assert!(reign.leader.refused_histories().is_empty());
}

#[test]
fn nobody_is_kept_out_by_the_word_of_a_stranger_or_by_one_that_cannot_be() {
    let refused = |two: Peer, ends| {
        let mut reign = Reign::new(3);
        let (two, promise) = accuses(two, 1, ends);
        let link = reign.connect(two);
        reign.packet(link, promise);
        // Whoever comes first is not synchronized before a quorum has promised.
        let (one, promise) = of_ours(peer(2), 1, &[]);
        if two.observer {
            let link = reign.connect(one);
            reign.packet(link, promise);
        }
        reign.leader.take_refused_histories()
    };
    let known = BTreeMap::from([(ServerId(3), (z(1, 2)..=z(1, 9)).into())]);
    assert_eq!(refused(peer(2), z(1, 2)..=z(1, 9)), known);
    assert_eq!(refused(Peer { observer: true, ..peer(99) }, z(1, 2)..=z(1, 9)), BTreeMap::new());
    // Who comes with nothing could never be taken again.
    for start in [Zxid::ZERO, Zxid(-5)] {
        assert_eq!(refused(peer(2), start..=z(1, 9)), BTreeMap::new());
    }
    assert_eq!(refused(peer(2), z(1, 9)..=z(1, 8)), BTreeMap::new());
}

#[test]
fn what_the_window_lacks_comes_from_the_log_or_else_as_a_snapshot() {
    let recent = CommittedLog::new(z(1, 600), (1..=600).map(|c| record(z(1, c))).collect());
    let mut reign = Reign::with(configs(3), recent);
    let far = Peer { last: z(1, 97), ..peer(2) };
    let two = reign.connect(far);
    reign.promise(two, far);
    assert_eq!(reign.said_to(two), ["LEADERINFO 2", "ReadLog 1.97 1.100"]);
    let records = Some((98..=100).map(|c| record(z(1, c))).collect());
    reign.leader.on_log_read(two, LogPart { records, ..LogPart::default() });
    let said = reign.said_to(two);
    assert_eq!(said[..4], ["DIFF 1.600", "P 1.98", "C 1.98", "P 1.99"]);
    assert_eq!(said.len(), 1 + 2 * 503 + 1);
    for records in [None, Some(Vec::new()), Some(vec![record(z(1, 98)), record(z(1, 100))])] {
        let far = Peer { last: z(1, 97), ..peer(3) };
        let three = reign.connect(far);
        reign.promise(three, far);
        reign.said();
        reign.leader.on_log_read(three, LogPart { records, ..LogPart::default() });
        assert_eq!(reign.said(), [format!("StreamSnapshot {{ learner: {three:?} }}")]);
    }
    // To read the log keeps everybody waiting: not for somebody who is no member.
    let far = Peer { last: z(1, 97), ..peer(99) };
    let stranger = reign.connect(far);
    reign.promise(stranger, far);
    let said = reign.said();
    assert!(said.contains(&format!("StreamSnapshot {{ learner: {stranger:?} }}")), "{said:?}");
    assert!(!said.iter().any(|word| word.contains("ReadLog")), "{said:?}");
}

#[test]
fn syncs_wait_for_what_was_proposed_before_them() {
    let (mut reign, two) = Reign::serving();
    reign.inner(ToQuorum::SyncReady { learner: two, after: z(2, 0) });
    assert_eq!(reign.said(), ["1:SYNC"]);
    reign.propose(1..=2);
    reign.inner(ToQuorum::SyncReady { learner: two, after: z(2, 1) });
    reign.inner(ToQuorum::SyncReady { learner: two, after: z(2, 2) });
    reign.durable(z(2, 2));
    reign.said();
    reign.ack(two, z(2, 1));
    assert_eq!(reign.said(), ["1:C 2.1", "1:SYNC", "Committed 2.1"]);
    reign.ack(two, z(2, 2));
    assert_eq!(reign.said(), ["1:C 2.2", "1:SYNC", "Committed 2.2"]);
}

#[test]
fn a_sync_is_answered_in_front_of_the_commits_of_what_was_proposed_after_it() {
    let (mut reign, two) = Reign::serving();
    let observer = reign.join(Peer { observer: true, ..peer(9) });
    reign.propose(1..=3);
    for (learner, after) in [(two, z(2, 1)), (two, z(2, 2)), (two, z(2, 2)), (observer, z(2, 1))] {
        reign.inner(ToQuorum::SyncReady { learner, after });
    }
    (1..=3).for_each(|counter| reign.ack(two, z(2, counter)));
    reign.said();
    reign.durable(z(2, 3));
    let to_observer = ["2:INFORM 2.1", "2:SYNC", "2:INFORM 2.2", "2:INFORM 2.3"];
    let to_two = ["1:C 2.1", "1:SYNC", "1:C 2.2", "1:SYNC", "1:SYNC", "1:C 2.3"];
    assert_eq!(reign.said(), [&to_observer[..], &to_two[..], &["Committed 2.3"]].concat());
}

#[test]
fn learners_speak_to_the_pipeline() {
    let (mut reign, two) = Reign::serving();
    let request = ForwardedRequest { session: SessionId(7), cxid: 3, op: 1, body: vec![1], auth: None };
    reign.packet(two, Packet::Request(request));
    reign.packet(two, Packet::Revalidate { session: SessionId(7), timeout_ms: 9 });
    reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: vec![(SessionId(7), 9)] });
    reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
    reign.inner(ToQuorum::Revalidated { learner: two, session: SessionId(7), valid: true });
    let said = reign.said();
    let starts = ["Forwarded { learner: LinkId(1)", "Revalidate { learner: LinkId(1)", "Touched { ", "1:REVALIDATE"];
    assert!(said.len() == 4 && said.iter().zip(starts).all(|(word, start)| word.starts_with(start)), "{said:?}");
    reign.leader.on_link_closed(two);
    reign.inner(ToQuorum::Revalidated { learner: two, session: SessionId(7), valid: true });
    assert_eq!(reign.said(), ["LearnerGone { learner: LinkId(1) }"]);
}

#[test]
fn bad_learners_are_closed_and_others_served() {
    let (mut reign, two) = Reign::serving();
    let good = info(peer(3));
    let bad = [
        (Packet::Ack { zxid: z(2, 1) }, "neither FOLLOWERINFO"),
        (Packet::LearnerInfo(LearnerInfo { protocol: 1, ..good }), "before ZooKeeper 3.4"),
        (Packet::LearnerInfo(LearnerInfo { server: None, ..good }), "which server"),
        (Packet::LearnerInfo(LearnerInfo { server: Some(ServerId(1)), ..good }), "correct its myid"),
        (Packet::LearnerInfo(LearnerInfo { config_version: 1, ..good }), "configuration of version 0x1"),
        (Packet::LearnerInfo(LearnerInfo { accepted_epoch: u32::MAX, ..good }), "another ensemble"),
    ];
    for (packet, why) in bad {
        let link = reign.connect_saying(packet);
        let said = reign.said();
        assert!(said.len() == 1 && said[0].starts_with(&format!("{}:closed", link.0)), "{said:?}");
        assert!(said[0].contains(why), "{said:?}");
    }
    // In each phase, what belongs to another.
    let three = reign.connect(peer(3));
    reign.packet(three, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
    assert!(reign.said_to(three)[1].contains("it sent PING while it was to promise"));
    let three = reign.connect(peer(3));
    reign.promise(three, peer(3));
    reign.ack(three, z(1, 0));
    assert!(reign.said_to(three)[3].contains("acknowledged epoch 0x1 instead of 0x2"));
    reign.packet(two, Packet::UpToDate);
    assert!(reign.said_to(two)[0].contains("it sent UPTODATE while it was in broadcast"));
    // What nobody knows is passed over.
    let two = reign.join(peer(2));
    reign.said();
    reign.packet(two, Packet::Unknown { kind: 99 });
    assert!(reign.said().is_empty() && reign.leader.is_serving());
}

#[test]
fn a_later_epoch_is_believed_of_a_voter_that_is_away_and_of_nobody_else() {
    let (mut reign, two) = Reign::serving();
    let claims = |accepted_epoch, id| Packet::LearnerInfo(LearnerInfo { accepted_epoch, ..info(peer(id)) });
    let link = reign.connect_saying(claims(9, 2));
    assert!(reign.said_to(link)[0].contains("is here"), "server 2 is in broadcast with this leader");
    let link = reign.connect_saying(claims(9, 99));
    assert_eq!(reign.said_to(link), ["LEADERINFO 2"], "no voter");
    let link = reign.connect_saying(claims(0x4000_0000, 3));
    assert!(reign.said_to(link)[0].contains("no election can have led to"));
    assert!(reign.leader.is_serving() && reign.leader.ended().is_none());
    reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 1, last: z(1, 3) });
    reign.connect_saying(claims(9, 3));
    assert!(reign.leader.ended().is_some_and(|why| why.contains("server 3 promised epoch")));
}

#[test]
fn the_newer_connection_of_a_server_replaces_the_older() {
    let (mut reign, two) = Reign::serving();
    let again = reign.join(peer(2));
    let said = reign.said();
    assert_eq!(said[..2], ["1:closed: server 2 connected again", "LearnerGone { learner: LinkId(1) }"]);
    reign.propose(1..=1);
    reign.durable(z(2, 1));
    reign.ack(two, z(2, 1));
    assert_eq!(reign.said(), ["2:P 2.1"]);
    reign.ack(again, z(2, 1));
    assert_eq!(reign.said(), ["2:C 2.1", "Committed 2.1"]);
}

#[test]
fn learners_are_pinged_twice_a_tick_but_never_before_newleader() {
    let (mut reign, two) = Reign::serving();
    let three = reign.connect(peer(3));
    reign.said();
    reign.pass(1000);
    assert_eq!(reign.said(), ["1:PING 2.0", "1:PING 2.0"]);
    reign.promise(three, peer(3));
    reign.said();
    reign.packet(two, Packet::Ping { zxid: z(2, 0), touched: Vec::new() });
    reign.pass(500);
    assert_eq!(reign.said(), ["1:PING 2.0", "2:PING 2.0"]);
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let (mut reign, _) = Reign::serving();
    reign.pass(1900);
    assert_eq!(reign.leader.ended(), None);
    reign.pass(1100);
    assert!(reign.said().iter().any(|word| word.starts_with("1:closed: nothing came")));
    assert!(reign.leader.ended().unwrap().contains("no quorum was heard of"));
    assert!(!reign.leader.is_serving());
    assert_eq!(reign.leader.next_deadline_ms(), i64::MAX);

    let (mut reign, two) = Reign::serving();
    reign.leader.on_link_closed(two);
    reign.pass(1000);
    assert!(reign.leader.ended().is_some());

    // Nor does one that is left out, and still connected, take the place of who is gone.
    let (mut reign, two) = Reign::serving();
    let (last, later) = (z(5, 2), Peer { accepted: 5, current: 5, last: z(5, 2), ..peer(3) });
    reign.leader.on_history_heard(ServerId(3), HistoryEnd { epoch: 5, last });
    reign.connect(later);
    reign.leader.on_link_closed(two);
    reign.pass(1000);
    assert!(reign.leader.ended().is_some());

    let (mut reign, _) = Reign::serving();
    reign.inner(ToQuorum::EpochExhausted);
    assert!(reign.leader.ended().unwrap().contains("used up"));
}

#[test]
fn a_learner_that_pings_but_does_not_acknowledge_is_closed() {
    let (mut reign, two) = Reign::serving();
    let three = reign.join(peer(3));
    reign.propose(1..=1);
    reign.ack(three, z(2, 1));
    for _ in 0..5 {
        for link in [two, three] {
            reign.packet(link, Packet::Ping { zxid: z(2, 1), touched: Vec::new() });
        }
        reign.pass(500);
    }
    let said = reign.said();
    assert!(said.iter().any(|word| word.starts_with("1:closed: it did not acknowledge 0x200000001")), "{said:?}");
    assert!(!said.iter().any(|word| word.starts_with("2:closed")), "{said:?}");
}

#[test]
fn a_learner_that_missed_nothing_is_left_in_peace() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=1);
    reign.durable(z(2, 1));
    reign.ack(two, z(2, 1));
    let three = reign.join(peer(3));
    for _ in 0..6 {
        for link in [two, three] {
            reign.packet(link, Packet::Ping { zxid: z(2, 1), touched: Vec::new() });
        }
        reign.pass(500);
    }
    assert!(!reign.said().iter().any(|word| word.contains("closed")));
}

/// A leader of three in broadcast in epoch 2, with 2 and 3 and with these strangers, where members may change.
fn changeable(strangers: &[i64]) -> (Reign, Vec<LinkId>) {
    let configs = Configs { reconfig_enabled: true, ..configs(3) };
    let mut reign = Reign::with(configs, CommittedLog::new(z(1, 3), Vec::new()));
    let links = [2, 3].iter().chain(strangers).map(|id| reign.join(peer(*id))).collect();
    reign.said();
    (reign, links)
}

/// Proposes that these servers, all participants, are the ensemble.
fn reconfigure(reign: &mut Reign, counter: i64, ids: &[i64]) {
    let zxid = z(2, counter);
    let mut text: String = ids.iter().map(|id| format!("server.{id}=h:1:2\n")).collect();
    text += &format!("version={:x}", zxid.0);
    let set = SetDataTxn { path: "/zookeeper/config".into(), data: Some(text.into_bytes()), version: -1 };
    let header = TxnHeader { zxid, ..TxnHeader::default() };
    let payload = Txn { header, body: TxnBody::Reconfig(set), digest: None }.to_bytes();
    reign.inner(ToQuorum::Proposed(vec![LogRecord { zxid, payload }]));
}

#[test]
fn a_list_out_of_zoo_cfg_gets_its_version_from_the_first_leader() {
    let configs = Configs { reconfig_enabled: true, ..configs(3) };
    let mut reign = Reign::with(configs, CommittedLog::new(z(1, 3), Vec::new()));
    let two = reign.connect(peer(2));
    assert_eq!(reign.said()[1..], ["configs 0.0, 2.0", "SetAcceptedEpoch(2)", "1:LEADERINFO 2"]);
    reign.promise(two, peer(2));
    reign.said();
    reign.ack(two, z(2, 0));
    assert_eq!(reign.said(), ["configs 2.0", "Role(Leading { epoch: 2 })", "1:UPTODATE"]);
    assert_eq!((reign.told_version, reign.followers.clone()), (z(2, 0).0, BTreeSet::from([ServerId(2)])));
    reign.leader.on_link_closed(two);
    reign.listen();
    assert!(reign.followers.is_empty());
}

#[test]
fn a_reconfiguration_needs_a_quorum_of_the_old_members_and_of_the_new() {
    let (mut reign, links) = changeable(&[4, 5]);
    assert_eq!(reign.followers.len(), 4);
    reconfigure(&mut reign, 1, &[1, 4, 5]);
    assert_eq!(reign.said()[0], "configs 2.0, 2.1");
    reign.durable(z(2, 1));
    reign.ack(links[0], z(2, 1));
    assert_eq!(reign.said(), [""; 0]);
    reign.ack(links[2], z(2, 1));
    let expected = ["1:C 2.1 1", "2:C 2.1 1", "3:C 2.1 1", "4:C 2.1 1", "Committed 2.1", "configs 2.1"];
    assert_eq!(reign.said(), expected);
    assert_eq!(reign.told_version, z(2, 1).0);
    // The old members have no say in what comes next.
    reign.propose(2..=2);
    reign.durable(z(2, 2));
    reign.said();
    reign.ack(links[0], z(2, 2));
    reign.ack(links[1], z(2, 2));
    assert_eq!(reign.said(), [""; 0]);
    reign.ack(links[3], z(2, 2));
    assert_eq!(reign.said().last().unwrap(), "Committed 2.2");
}

#[test]
fn a_leader_that_is_no_member_any_more_names_the_next_one_and_goes() {
    let (mut reign, links) = changeable(&[4]);
    reconfigure(&mut reign, 1, &[2, 3, 4]);
    reign.durable(z(2, 1));
    reign.said();
    // 2 is behind. It has not all, and cannot lead.
    reign.ack(links[1], z(2, 1));
    assert_eq!(reign.said(), [""; 0], "one of the three that are to be");
    reign.ack(links[2], z(2, 1));
    assert_eq!(reign.said(), ["1:C 2.1 3", "2:C 2.1 3", "3:C 2.1 3", "Committed 2.1", "configs 2.1"]);
    assert_eq!(reign.told_version, z(2, 0).0, "the pipeline is not to go on");
    assert!(reign.leader.ended().is_none() && !reign.leader.is_serving());
    links.iter().for_each(|link| reign.leader.on_link_closed(*link));
    assert_eq!(reign.leader.ended(), Some("server 3 is to lead by the new configuration"));
    assert_eq!(reign.leader.successor(), Some(ServerId(3)));
}

#[test]
fn a_learner_that_was_being_synchronized_hears_of_the_new_configuration() {
    let (mut reign, links) = changeable(&[]);
    let four = reign.connect(peer(4));
    reign.promise(four, peer(4));
    reconfigure(&mut reign, 1, &[1, 2, 3, 4]);
    reign.ack(links[0], z(2, 1));
    reign.ack(links[1], z(2, 1));
    reign.durable(z(2, 1));
    assert_eq!(reign.told_version, z(2, 1).0);
    reign.said();
    reign.ack(four, z(2, 0));
    assert_eq!(reign.said_to(four), ["UPTODATE", "P 2.1", "C 2.1 1"]);
}

#[test]
fn a_late_learner_gets_the_list_in_force_and_then_the_one_that_is_proposed() {
    let (mut reign, links) = changeable(&[4]);
    reconfigure(&mut reign, 1, &[1, 4, 5]);
    reign.said();
    for id in [3, 4] {
        // It was here before, and has promised.
        let late = Peer { accepted: 2, last: z(2, 0), ..peer(id) };
        let link = reign.connect(late);
        reign.promise(link, late);
        let said = reign.said_to(link);
        assert_eq!(said.last().unwrap(), "NEWLEADER 2.0 2.0");
        reign.ack(link, z(2, 0));
        assert_eq!(reign.said_to(link), ["UPTODATE", "P 2.1"]);
    }
    assert_eq!(reign.told_version, z(2, 0).0, "2 alone is left of those who can agree");
    reign.durable(z(2, 1));
    reign.ack(links[0], z(2, 1));
    assert_eq!(reign.told_version, z(2, 0).0);
}

#[test]
fn what_a_leader_came_with_is_agreed_upon_by_uptodate() {
    let proposed = Members { version: z(1, 3).0, ..configs(3).committed };
    let configs = Configs { last_seen: Some(proposed), reconfig_enabled: true, ..configs(3) };
    let mut reign = Reign::with(configs, three_old_transactions());
    let two = reign.connect(peer(2));
    reign.promise(two, peer(2));
    assert_eq!(reign.said_to(two).last().unwrap(), "NEWLEADER 2.0 1.3");
    reign.ack(two, z(2, 0));
    assert_eq!(reign.said_to(two), ["UPTODATE"]);
    assert_eq!(reign.told_version, z(1, 3).0);
}

#[test]
fn where_snapshots_are_forced_nobody_gets_a_diff() {
    let rules = PeerRules { always_snapshot: true, ..TIMING.into() };
    let mut reign = Reign::by_rules(rules, configs(3), three_old_transactions());
    let two = reign.connect(peer(2));
    reign.promise(two, peer(2));
    assert_eq!(reign.said().last().unwrap(), "StreamSnapshot { learner: LinkId(1) }");
}

#[test]
fn an_observer_waits_while_too_many_are_synchronized_and_a_voter_does_not() {
    let rules = PeerRules { diff_syncs_max: 1, unlisted: Some(true), ..TIMING.into() };
    let mut reign = Reign::by_rules(rules, configs(3), three_old_transactions());
    let watcher = |id| Peer { observer: true, ..peer(id) };
    let two = reign.connect(peer(2));
    reign.promise(two, peer(2));
    reign.said();
    let four = reign.connect(watcher(4));
    reign.promise(four, watcher(4));
    assert!(reign.said_to(four).last().unwrap().contains("has to try again"));
    let three = reign.connect(peer(3));
    reign.promise(three, peer(3));
    assert!(reign.said_to(three).contains(&"NEWLEADER 2.0".to_string()));
    // Whoever acknowledged is not being synchronized any more.
    reign.ack(two, z(2, 0));
    reign.ack(three, z(2, 0));
    let four = reign.connect(watcher(4));
    reign.promise(four, watcher(4));
    assert_eq!(reign.said_to(four).last().unwrap(), "NEWLEADER 2.0");
}

#[test]
fn a_leader_without_an_epoch_gives_up_once_a_voter_of_its_own_looks_again() {
    let rules = PeerRules { epoch_wait_ms: Some(300), ..TIMING.into() };
    let mut reign = Reign::by_rules(rules, configs(3), three_old_transactions());
    reign.pass(299);
    reign.leader.on_voter_looks(ServerId(2));
    assert_eq!(reign.leader.ended(), None);
    reign.pass(1);
    reign.leader.on_voter_looks(ServerId(2));
    assert!(reign.leader.ended().unwrap().contains("looks again"));
    // With an epoch, or without the setting, it goes on.
    let (mut reign, _) = Reign::serving();
    reign.pass(1000);
    reign.leader.on_voter_looks(ServerId(3));
    assert_eq!(reign.leader.ended(), None);
}

#[test]
fn a_leader_shows_who_is_in_step() {
    let (mut reign, two) = Reign::serving();
    reign.join(peer(77));
    reign.join(Peer { observer: true, ..peer(4) });
    reign.connect(peer(3));
    reign.propose(1..=1);
    reign.inner(ToQuorum::SyncReady { learner: two, after: z(2, 1) });
    reign.leader.publish();
    let shown = [
        &metrics::LEARNERS,
        &metrics::SYNCED_FOLLOWERS,
        &metrics::SYNCED_NON_VOTING_FOLLOWERS,
        &metrics::SYNCED_OBSERVERS,
        &metrics::PENDING_SYNCS,
    ];
    assert_eq!(shown.map(|gauge| gauge.get()), [4, 2, 1, 1, 1]);
    Leader::publish_none();
    assert_eq!(shown.map(|gauge| gauge.get()), [0; 5]);
}

// ---- time in which a leader did not run ----

#[test]
fn a_leader_that_did_not_run_gives_its_learners_the_time_to_answer() {
    let (mut reign, two) = Reign::serving();
    reign.propose(1..=1);
    reign.durable(z(2, 1));
    reign.pass(500);
    reign.said();
    reign.stop_for(60_000);
    reign.leader.tick();
    assert_eq!(reign.said_to(two), ["PING 2.1"], "it is pinged, and not judged");
    reign.packet(two, Packet::Ping { zxid: z(2, 1), touched: Vec::new() });
    reign.ack(two, z(2, 1));
    reign.pass(1900);
    assert_eq!(reign.leader.ended(), None);
    assert!(reign.leader.master.has(two));
}

#[test]
fn a_leader_that_is_late_all_the_time_finds_out_that_it_is_alone() {
    let (mut reign, two) = Reign::serving();
    let mut turns = 0;
    while reign.leader.ended().is_none() {
        reign.stop_for(1600);
        reign.leader.tick();
        turns += 1;
        assert!(turns < 10);
    }
    assert!(!reign.leader.master.has(two));
}

#[test]
fn a_leader_that_its_electors_leave_before_it_serves_gives_up_at_once() {
    let elected_by = |ids: &[i64]| {
        let mut reign = Reign::by_rules(TIMING.into(), configs(3), three_old_transactions());
        reign.leader.elected_by(&ids.iter().map(|id| ServerId(*id)).collect());
        reign
    };
    // 2 promised, and then refused the history.
    let mut reign = elected_by(&[1, 2]);
    let two = reign.connect(peer(2));
    reign.promise(two, peer(2));
    reign.leader.on_link_closed(two);
    assert_eq!(reign.leader.ended(), None, "it may come again");
    reign.leader.on_voter_lost(ServerId(2));
    assert!(reign.leader.ended().unwrap().contains("server 2, which elected it, has left it"));
    // As long as the rest of its electors is a quorum, they are waited for.
    let mut reign = elected_by(&[1, 2, 3]);
    reign.leader.on_voter_lost(ServerId(2));
    assert_eq!(reign.leader.ended(), None);
    // Who came again counts again.
    reign.connect(peer(2));
    reign.leader.on_voter_lost(ServerId(3));
    assert_eq!(reign.leader.ended(), None);
    reign.leader.on_voter_lost(ServerId(2));
    assert!(reign.leader.ended().is_some());
    // And so does who came without having elected it.
    let mut reign = elected_by(&[1, 3]);
    reign.connect(peer(2));
    reign.leader.on_voter_lost(ServerId(3));
    assert_eq!(reign.leader.ended(), None);
    // Once it serves, its followers tell whether it has a quorum.
    let (mut reign, _) = Reign::serving();
    reign.leader.on_voter_lost(ServerId(2));
    assert_eq!(reign.leader.ended(), None);
}

#[test]
fn a_leader_that_was_named_and_has_the_shorter_history_gives_up_where_the_rest_is_no_quorum() {
    let longer = || Packet::AckEpoch { zxid: z(1, 4), epoch: Some(1), reach: None };
    // An Apache leader names one that has not acknowledged all that it proposed. The third is down.
    let mut reign = Reign::new(3);
    let two = reign.connect(peer(2));
    reign.packet(two, longer());
    let why = reign.leader.ended().unwrap();
    assert!(why.contains("server 2 has a longer history") && why.ends_with("and the rest is no quorum"), "{why}");
    // The third is there: it goes on with that.
    let mut reign = Reign::new(3);
    let (two, three) = (reign.connect(peer(2)), reign.connect(peer(3)));
    reign.packet(two, longer());
    assert_eq!(reign.leader.ended(), None);
    reign.promise(three, peer(3));
    assert_eq!(reign.leader.ended(), None);
    // Who was elected waits for its electors, which may come more slowly.
    let mut reign = Reign::new(3);
    reign.leader.elected_by(&[ServerId(1), ServerId(3)].into());
    let two = reign.connect(peer(2));
    reign.packet(two, longer());
    assert_eq!(reign.leader.ended(), None);
}
