//! Servers that stopped in the midst of a change of their members, each at a point of its own, and start again: whatever
//! each of them finds in its files, they find each other, serve, and have one list in the end.

use std::collections::BTreeSet;
use std::path::Path;

use rookeeper::config::Members;
use rookeeper::config::ensemble::Server;
use rookeeper::config::voters::Configs;
use rookeeper::ids::{ServerId, SessionId, Zxid};
use rookeeper::mail::LogRecord;
use rookeeper::quorum::Epochs;
use rookeeper::state::path;
use rookeeper::storage::config_files::ConfigFiles;
use rookeeper::txn::{SetDataTxn, Txn, TxnBody, TxnHeader};

use crate::breakage::Breakage;
use crate::disk::ZOO_CFG;
use crate::world::{NO_SERVICE, World};

/// How far a server had come with the change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Heard {
    /// It has the old list.
    Nothing,
    /// `zoo.cfg.dynamic.next` is written, the transaction is not logged.
    Seen,
    /// The transaction is logged; on every other server the file is written, too.
    Logged,
    /// The new list is in force.
    Committed,
}

const STAGES: [Heard; 4] = [Heard::Nothing, Heard::Seen, Heard::Logged, Heard::Committed];

const OLD: Zxid = Zxid(0x1_0000_0000);
const NEW: Zxid = Zxid(0x1_0000_0001);

/// A list of servers, each with how far its ports have moved; `o` observes.
fn list(servers: &str, version: Zxid) -> Members {
    let line = |word: &str| {
        let (id, rest) = word.split_at(1);
        let role = if rest.contains('o') { "observer" } else { "participant" };
        let moved = rest.matches('+').count();
        format!("server.{id}=s{id}:{}:{}:{role}\n", 2888 + moved, 3888 + moved)
    };
    let text: String = servers.split(' ').map(line).collect();
    let text = format!("{text}version={:x}", version.0);
    Members::parse_text(text.as_bytes()).unwrap()
}

/// What a server has on its disk: where it was first, the old list, and what it had heard of the new one.
fn stop(world: &mut World, s: usize, old: &Members, new: &Members, heard: Heard) {
    let id = s as i64 + 1;
    let disk = &mut world.servers[s].disk;
    let own = if old.servers.contains_key(&id) { old } else { new };
    let mut first = old.clone();
    first.servers.insert(id, own.servers[&id].clone());
    let lines = first.to_string();
    disk.configure(id, lines.rsplit_once('\n').unwrap().0);
    let (ensemble, mut configs) = disk.members().unwrap();
    let mut files = ConfigFiles::new(&disk.files(), Path::new(ZOO_CFG), ServerId(id), ensemble.own, configs.clone());
    let mut save = |configs: &Configs| {
        let steps = files.steps(configs, || Ok(disk.zoo_cfg())).unwrap();
        steps.into_iter().for_each(|step| disk.write(step).unwrap());
        files.on_saved(configs);
    };
    configs.activate(old.clone());
    save(&configs);
    // The log of a leader may be quicker than its file.
    if heard >= Heard::Seen && (heard != Heard::Logged || s % 2 == 1) {
        configs.see(new.clone());
        save(&configs);
    }
    if heard == Heard::Committed {
        configs.activate(new.clone());
        save(&configs);
    }
    let disk = &mut world.servers[s].disk;
    disk.write_epochs(Epochs { accepted: 1, current: 1 });
    if heard >= Heard::Logged {
        disk.log_alone(&[record(new)]);
    }
}

fn record(new: &Members) -> LogRecord {
    let set = SetDataTxn { path: path::CONFIG.to_owned(), data: Some(new.to_string().into_bytes()), version: -1 };
    let header = TxnHeader { client_id: SessionId::NONE, cxid: 0, zxid: NEW, time_ms: 0 };
    LogRecord { zxid: NEW, payload: Txn { header, body: TxnBody::Reconfig(set), digest: None }.to_bytes() }
}

/// All ways in which so many servers may stand.
fn ways(servers: usize) -> Vec<Vec<Heard>> {
    let longer = |ways: Vec<Vec<Heard>>| {
        let with = |way: &Vec<Heard>| STAGES.map(|stage| [way.as_slice(), &[stage]].concat());
        ways.iter().flat_map(with).collect()
    };
    (0..servers).fold(vec![Vec::new()], |ways, _| longer(ways))
}

/// What is in force somewhere was logged by a quorum of the old members and of the new ones.
fn is_possible(heard: &[Heard], old: &Members, new: &Members) -> bool {
    let logged: BTreeSet<ServerId> =
        (1..).zip(heard).filter(|(_, heard)| **heard >= Heard::Logged).map(|(id, _)| ServerId(id)).collect();
    !heard.contains(&Heard::Committed) || (old.is_quorum(&logged) && new.is_quorum(&logged))
}

/// From that start to the end: all serve, with one list.
fn run(old: &Members, new: &Members, heard: &[Heard], seed: u64, breakage: Option<Breakage>, readable: bool) -> World {
    let mut world = World::of_scenario(seed, heard.len(), readable);
    world.options.breakage = breakage;
    world.check.on_proposed(0, &record(new));
    for (s, heard) in heard.iter().enumerate() {
        stop(&mut world, s, old, new, *heard);
    }
    world.end_faults();
    while world.check.violation.is_none() && !world.is_over() {
        world.run_for(100);
        if (0..heard.len()).all(|s| world.serves(s)) && have_one_list(&world, new, heard) {
            return world;
        }
    }
    world.violation("in the end they have different lists".to_owned());
    world
}

/// Where everybody moves, one that heard nothing of it before the others had it in force knows nobody any more: an operator
/// must tell it. Nobody else may be left behind.
fn only_lacks_those_whom_everybody_left(world: &World, old: &Members, new: &Members, heard: &[Heard]) -> bool {
    let moves = |(id, server): (&i64, &Server)| new.servers.get(id).is_some_and(|at| at.addresses != server.addresses);
    let mut servers = heard.iter().enumerate();
    let goes_on = |s: usize| {
        world.serves(s) && world.servers[s].disk.members().unwrap().1.committed.to_string() == new.to_string()
    };
    old.servers.iter().all(moves) && servers.all(|(s, heard)| *heard == Heard::Nothing || goes_on(s))
}

fn have_one_list(world: &World, new: &Members, heard: &[Heard]) -> bool {
    let mut lists = world.servers.iter().map(|server| server.disk.members().unwrap().1.committed.to_string());
    let first = lists.next().unwrap();
    let may_be = first == new.to_string() || !heard.contains(&Heard::Committed);
    may_be && lists.all(|list| list == first)
}

fn come_back(old: &str, new: &str, possible: impl Fn(&[Heard]) -> bool) {
    let (old, new) = (list(old, OLD), list(new, NEW));
    let servers = old.servers.keys().chain(new.servers.keys()).collect::<BTreeSet<_>>().len();
    for (seed, heard) in (1..).zip(ways(servers)) {
        if !is_possible(&heard, &old, &new) || !possible(&heard) {
            continue;
        }
        let world = run(&old, &new, &heard, seed, None, false);
        if let Some(violation) = &world.check.violation
            && !(violation.starts_with(NO_SERVICE) && only_lacks_those_whom_everybody_left(&world, &old, &new, &heard))
        {
            eprintln!("{}", run(&old, &new, &heard, seed, None, true).trace.tail(160));
            panic!("from {old}\nto {new}\nwith {heard:?}: {violation}");
        }
    }
}

/// What these tests are for: two servers listen where the list in force has them, and are dialled there.
#[test]
fn servers_that_are_dialled_only_where_they_are_to_move_never_meet() {
    let heard = [Heard::Seen; 2];
    let world = run(&list("1 2", OLD), &list("1+ 2+", NEW), &heard, 1, Some(Breakage::DialedWhereProposed), false);
    assert!(world.check.violation.is_some_and(|what| what.starts_with(NO_SERVICE)));
}

/// Where everybody has moved, one that heard nothing of it knows nobody any more: an operator must tell it.
#[test]
fn all_move_their_ports() {
    let somebody_is_lost = |heard: &[Heard]| heard.contains(&Heard::Nothing) && heard.contains(&Heard::Committed);
    come_back("1 2", "1+ 2+", |heard| !somebody_is_lost(heard));
    come_back("1 2 3", "1+ 2+ 3+", |heard| !somebody_is_lost(heard));
    come_back("1+ 2+ 3+", "1 2 3", |heard| !somebody_is_lost(heard));
}

#[test]
fn one_moves_its_ports() {
    come_back("1 2 3", "1+ 2 3", |_| true);
    come_back("1 2 3", "1 2 3+", |_| true);
}

#[test]
fn one_joins_or_leaves() {
    come_back("1 2", "1 2 3", |_| true);
    come_back("2 3", "1 2 3", |_| true);
    come_back("1 2 3", "1 2", |_| true);
    come_back("1 2 3", "2 3", |_| true);
}

/// Who leaves may be the only one to know that the change is committed. Where nobody logged it but who joins, the others
/// need its voice, which it gives to nobody that lacks what it has: an operator must move its data away.
#[test]
fn one_takes_the_place_of_another_while_the_third_moves() {
    let has_it_alone = |joins: usize, heard: &[Heard]| {
        heard.iter().enumerate().all(|(s, heard)| (*heard >= Heard::Logged) == (s == joins))
    };
    come_back("2 3", "1 3+", |heard| !has_it_alone(0, heard));
    come_back("1 2", "1+ 3", |heard| !has_it_alone(2, heard));
}

#[test]
fn one_gets_or_loses_its_vote() {
    come_back("1 2 3", "1 2 3o", |_| true);
    come_back("1 2 3o", "1 2 3", |_| true);
    come_back("1 2 3", "1o 2+ 3", |_| true);
}
