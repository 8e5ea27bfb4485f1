//! Courses of events that chance would hardly find: which disks are lost or damaged, who starts when. What is between, and
//! how long each thing takes, is drawn from a seed.

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::mail::{LogRecord, Role};
use rookeeper::records::Acl;
use rookeeper::state::State;
use rookeeper::txn::{CreateOwner, CreateTxn, Txn, TxnBody, TxnHeader};

use crate::server::STATE_RULES;
use crate::world::{Event, World};

/// How many seeds each scenario is told with, unless `SCENARIO_FIRST` and `SCENARIO_SEEDS` say otherwise.
const SEEDS: u64 = 8;

/// Tells a scenario with seeds of its own, and then lets the world come to rest: all must serve and agree.
pub fn told(voters: usize, scenario: impl Fn(&mut World)) {
    let first = crate::setting("SCENARIO_FIRST").unwrap_or(1);
    for seed in first..=crate::setting("SCENARIO_SEEDS").unwrap_or(SEEDS) {
        let end = |readable| {
            let mut world = World::of_scenario(seed, voters, readable);
            scenario(&mut world);
            if world.check.violation.is_none() && !world.is_over() {
                world.end_faults();
                while world.step() {}
            }
            world
        };
        if let Some(violation) = end(false).check.violation {
            let again = end(true);
            again.alarms.iter().for_each(|(s, alarm)| eprintln!("s{}: {alarm}", s + 1));
            eprintln!("{}", again.trace.tail(160));
            panic!("seed {seed}: {violation}");
        }
    }
}

impl World {
    pub fn run_for(&mut self, ms: u64) {
        let end_us = self.now_us + ms * 1000;
        self.schedule(end_us, Event::Nothing);
        while self.now_us < end_us && self.step() {}
    }

    pub fn run_until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let end_us = self.now_us + 30_000_000;
        while !is_so(self) {
            if self.now_us > end_us {
                self.violation(format!("it took too long until {what}"));
            }
            if !self.step() {
                return;
            }
        }
    }

    pub fn start_all(&mut self, servers: &[usize]) {
        servers.iter().for_each(|s| self.start(*s));
    }

    pub fn kill_all(&mut self, servers: &[usize]) {
        servers.iter().for_each(|s| self.kill(*s, false, "killed"));
    }

    pub fn serves(&self, s: usize) -> bool {
        let process = self.servers[s].process.as_ref();
        process.is_some_and(|process| process.peer().is_serving() && process.pipeline_role != Role::Looking)
    }

    pub fn run_until_serving(&mut self, servers: &[usize]) {
        self.run_until(&format!("{servers:?} serve"), |world| servers.iter().all(|s| world.serves(*s)));
    }

    /// Until this many more transactions are committed.
    pub fn run_until_written(&mut self, count: usize) {
        let wanted = self.check.len() + count;
        self.run_until("enough is written", |world| world.check.len() >= wanted);
    }

    pub fn demand(&mut self, holds: bool, what: &str) {
        if !holds {
            self.violation(what.to_owned());
        }
    }

    fn last_on_disk(&self, s: usize) -> Zxid {
        self.servers[s].disk.log().last().map_or(Zxid::ZERO, |record| record.zxid)
    }
}

/// The case of one bad sector: 2 and 3 have what 1 lacks, 2 cannot read it, 1 and 2 start.
#[test]
fn a_damaged_server_helps_nobody_to_lead_and_everything_is_there_when_the_third_comes() {
    told(3, |world| {
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(20);
        world.kill(0, false, "it stays behind");
        world.run_until_serving(&[1, 2]);
        world.run_until_written(20);
        world.kill_all(&[1, 2]);
        world.servers[1].disk.damage(1);
        world.alarms_expected = true;
        world.start_all(&[0, 1]);
        world.run_for(4000);
        world.demand(!world.serves(0) && !world.serves(1), "nobody serves without what 3 has");
        let alarms: Vec<usize> = world.alarms.iter().map(|(s, _)| *s).collect();
        world.demand(alarms == [1], "2 says once that it is damaged");
        let text = world.alarms.pop().map_or_else(String::new, |(_, text)| text);
        world.demand(text.contains("cannot read all of its history"), "it says what is damaged");
        world.demand(text.contains("out of reach: 3."), "it says who is missing");
        world.start(2);
        world.run_until_serving(&[0, 1, 2]);
        // The repaired one counts again: without the third there is a quorum.
        world.run_until_written(10);
        world.kill(0, false, "again");
        world.run_until_serving(&[1, 2]);
        world.run_until_written(10);
        world.alarms_expected = false;
    });
}

#[test]
fn a_damaged_follower_is_repaired_by_the_leader_it_had() {
    told(3, |world| {
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(20);
        let leads = |s: &usize| matches!(world.servers[*s].process.as_ref().unwrap().role, Role::Leading { .. });
        let Some(leader) = (0..3).find(leads) else { return };
        let follower = (leader + 1) % 3;
        world.kill(follower, false, "its disk goes bad");
        world.servers[follower].disk.damage(0);
        let damaged = world.servers[follower].disk.log();
        world.run_until_written(10);
        world.start(follower);
        world.run_until_serving(&[0, 1, 2]);
        let kept = world.servers[follower].disk.kept();
        let all_kept = damaged.iter().all(|record| kept.contains(record));
        world.demand(all_kept, "what was damaged is set aside");
        world.run_until_written(10);
        world.kill((leader + 2) % 3, false, "the other one");
        world.run_until_written(10);
    });
}

#[test]
fn with_two_of_three_damaged_nobody_serves_and_both_say_so() {
    told(3, |world| {
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(30);
        world.kill_all(&[0, 1, 2]);
        world.servers[0].disk.damage(0);
        world.servers[1].disk.damage(3);
        let before = world.last_on_disk(0);
        world.alarms_expected = true;
        world.start_all(&[0, 1, 2]);
        world.run_for(5000);
        world.demand((0..3).all(|s| !world.serves(s)), "nobody serves");
        let mut alarms: Vec<usize> = world.alarms.iter().map(|(s, _)| *s).collect();
        alarms.sort_unstable();
        world.demand(alarms == [0, 1], "both say it, once");
        world.demand(world.last_on_disk(0) == before, "nothing is removed from the damaged disk");
        // What an operator can do: the disk is put right.
        world.kill(0, false, "its disk is restored");
        world.servers[0].disk.repair();
        world.start(0);
        world.run_until_serving(&[0, 1, 2]);
        world.alarms_expected = false;
    });
}

/// What a server alone logged: so many nodes, in epoch 0.
fn alone(count: i64) -> Vec<LogRecord> {
    let create = |n: i64| {
        let header = TxnHeader { client_id: SessionId::NONE, cxid: 0, zxid: Zxid(n), time_ms: 1_600_000_000_000 + n };
        let body = TxnBody::Create(CreateTxn {
            path: format!("/alone{n}"),
            data: Some(b"the only copy".to_vec()),
            acl: vec![Acl::new(31, "world", "anyone")],
            owner: CreateOwner::None,
            parent_cversion: n as i32,
            with_stat: false,
        });
        LogRecord { zxid: Zxid(n), payload: Txn { header, body, digest: None }.to_bytes() }
    };
    (1..=count).map(create).collect()
}

impl World {
    fn holds_all(&self, s: usize, records: &[LogRecord]) -> bool {
        let disk = &self.servers[s].disk;
        let holds = |record: &LogRecord| disk.log().contains(record) || disk.kept().contains(record);
        // Purging takes a beginning that a snapshot has.
        let first = records.iter().position(holds);
        records.is_empty() || first.is_some_and(|first| records[first..].iter().all(holds))
    }

    /// 2 and 3 have nothing any more, and serve as an ensemble that begins.
    fn two_lose_their_disks(&mut self) {
        for s in [1, 2] {
            self.servers[s].disk.exchange(&[]);
        }
        self.begin_another_history();
        self.start_all(&[1, 2]);
        self.run_until_serving(&[1, 2]);
    }

    /// 2 and 3 lose their disks and write a shorter history of their own; nobody runs then. Gives what 1 has logged: from here
    /// on no other history may be served than theirs.
    fn two_begin_anew(&mut self) -> Vec<LogRecord> {
        let old = self.servers[0].disk.log();
        self.two_lose_their_disks();
        // Trees without a node are one, whatever sessions came and went; and two that are the same tell nobody anything.
        let of_old = |zxid: Zxid| {
            let before = old.iter().rev().filter(|record| record.zxid <= zxid);
            let digest = |record: &LogRecord| Txn::from_bytes(&record.payload).ok()?.digest;
            before.filter_map(digest).next().map(|digest| digest.tree_digest)
        };
        let is_another = |world: &World, s: usize| {
            let Some(process) = &world.servers[s].process else { return false };
            let (state, empty) = (process.pipeline.state(), State::fresh(STATE_RULES).tree_digest());
            state.tree_digest() != empty && of_old(state.last_zxid()) != Some(state.tree_digest())
        };
        self.run_until("they have a tree of their own", |world| [1, 2].iter().all(|s| is_another(world, *s)));
        self.kill_all(&[1, 2]);
        let shorter = self.servers[1].disk.log().len() < old.len();
        self.demand(shorter, "the old history goes on behind the new one");
        self.alarms_expected = true;
        old
    }

    /// Servers die and start in all orders, for a while.
    fn shuffle(&mut self, rounds: u64) {
        let count = self.servers.len();
        for _ in 0..rounds {
            for s in 0..count {
                if self.random.one_in(3) {
                    let with_power = self.random.one_in(2);
                    self.kill(s, with_power, "shuffled");
                }
            }
            let longest = self.random.scaled(100, 4000);
            let wait_ms = self.random.between(10, longest);
            self.run_for(wait_ms);
            let first = self.random.index(count);
            for s in (first..first + count).map(|s| s % count) {
                if self.random.one_in(2) {
                    self.start(s);
                    let wait_ms = self.random.scaled(1, 1000);
                    self.run_for(wait_ms);
                }
            }
        }
    }
}

/// The case of a server that was alone, and joins empty ones that serve already.
#[test]
fn the_only_copy_of_the_data_is_not_given_up_for_an_empty_ensemble() {
    told(3, |world| {
        let old = alone(20);
        world.servers[0].disk.exchange(&old);
        world.start_all(&[1, 2]);
        world.run_until_serving(&[1, 2]);
        let written = world.random.below(60) as usize;
        world.run_until_written(written);
        world.alarms_expected = true;
        world.start(0);
        world.run_for(3000);
        world.demand(!world.serves(0), "it stays out");
        world.demand(world.serves(1) && world.serves(2), "the others go on");
        world.demand(world.servers[0].disk.log() == old, "its files are as they were");
        let said = world.alarms.iter().filter(|(s, _)| *s == 0).map(|(_, text)| text.clone()).collect::<Vec<_>>();
        world.demand(said.len() == 1, "it calls an operator, once");
        let text = said.first().cloned().unwrap_or_default();
        world.demand(
            text.contains("not known to have the 20 transactions, up to 0x14,"),
            &format!("it says what: {text}"),
        );
        // Whoever starts when: it does not join, and what the others wrote stays.
        world.shuffle(4);
        world.demand(world.holds_all(0, &old), "nothing of it is lost");
        // The operator gives it up.
        world.kill(0, false, "its history is given up");
        world.servers[0].disk.give_up();
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.demand(world.holds_all(0, &old), "what was given up is set aside");
        world.demand(!world.servers[0].disk.gives_up(), "the consent is for once");
    });
}

/// The same when all were stopped: one that must not join does not keep the others from serving, neither by the voice that
/// it gives to one and then to the other, nor by those waiting for it.
#[test]
fn a_server_that_was_alone_does_not_keep_those_that_served_without_it_from_doing_so_again() {
    told(3, |world| {
        world.options.rules.timing.init_ms = 20_000;
        let old = alone(20);
        world.servers[0].disk.exchange(&old);
        world.start_all(&[1, 2]);
        world.run_until_serving(&[1, 2]);
        world.run_until_written(20);
        world.alarms_expected = true;
        for _ in 0..4 {
            world.kill_all(&[0, 1, 2]);
            let first = world.random.index(3);
            let second = 1 + world.random.index(2);
            for s in [first, first + second, first + 3 - second] {
                let wait_ms = world.random.scaled(1, 4000);
                world.run_for(wait_ms);
                world.start(s % 3);
            }
            let from_us = world.now_us;
            world.run_until_serving(&[1, 2]);
            world.demand(world.now_us - from_us < 3_000_000, "they serve soon");
            world.run_until_written(3);
        }
        world.kill(0, false, "its history is given up");
        world.servers[0].disk.give_up();
        world.start(0);
        world.run_until_serving(&[0, 1, 2]);
        world.demand(world.holds_all(0, &old), "nothing of it is lost");
    });
}

/// The other way out: the servers without data start after the one that has them.
#[test]
fn a_server_that_was_alone_leads_those_that_start_empty_after_it() {
    told(3, |world| {
        let old = alone(20);
        world.servers[0].disk.exchange(&old);
        world.start(0);
        world.run_for(500);
        world.start_all(&[1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        let tree = |s: usize| world.servers[s].process.as_ref().map(|p| p.pipeline.state().tree().lookup("/alone20"));
        let has_all = (0..3).all(|s| tree(s).flatten().is_some());
        world.demand(has_all, "all have its data");
        world.run_until_written(20);
    });
}

/// The case of a majority that lost its disks and an old member that returns, in all orders.
#[test]
fn after_a_majority_lost_its_disks_there_is_one_history_whoever_starts_when() {
    told(3, |world| {
        world.options.rules.always_snapshot = false;
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        for _ in 0..world.random.below(3) {
            world.run_until_written(8);
            let leads = |s: &usize| matches!(world.servers[*s].process.as_ref().unwrap().role, Role::Leading { .. });
            let Some(leader) = (0..3).find(leads) else { return };
            world.kill(leader, false, "another leads");
            world.start(leader);
            world.run_until_serving(&[0, 1, 2]);
        }
        world.run_until_written(20);
        world.kill_all(&[0, 1, 2]);
        let old = world.servers[0].disk.log();
        if old.first().is_none_or(|first| first.zxid.counter() != 1) {
            // It got the beginning in a snapshot; what it commits later is held against a whole history.
            return;
        }
        world.two_lose_their_disks();
        world.alarms_expected = true;
        let written = world.random.below(60) as usize;
        world.run_until_written(written);
        // From here on the disks are kept: nothing that was acknowledged may be lost, and no two trees may serve.
        world.start(0);
        world.run_for(4000);
        world.demand(world.serves(1) && world.serves(2), "the others go on");
        // When nobody serves, either may be elected; what gives way is kept.
        world.kill_all(&[0, 1, 2]);
        // What was not committed may be given up.
        let mut new = world.servers[1].disk.log();
        new.retain(|record| world.check.has(record));
        world.begin_another_history();
        let first = world.random.index(3);
        for s in (first..first + 3).map(|s| s % 3) {
            world.start(s);
            let wait_ms = world.random.scaled(1, 1000);
            world.run_for(wait_ms);
        }
        world.run_until_serving(&[1, 2]);
        world.run_until_written(10);
        world.demand(world.holds_all(0, &old), "the old history is still there, or set aside");
        world.demand(world.holds_all(1, &new), "so is the new one");
        // It has joined by now, or found out that it must not.
        world.run_for(5000);
        if !world.serves(0) {
            world.demand(world.alarms.iter().any(|(s, _)| *s == 0), "it says why it does not serve");
            world.kill(0, false, "its data are moved away");
            world.servers[0].disk.exchange(&[]);
            world.start(0);
            world.run_until_serving(&[0, 1, 2]);
        }
        world.shuffle(6);
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
    });
}

/// The old member is as Apache's, and only one of those that began anew has followed it and found out: the other one has but
/// zxids to go by.
#[test]
fn a_history_that_one_server_found_to_be_another_one_is_joined_by_nobody_who_hears_of_it() {
    told(3, |world| {
        world.options.apache = Some(0);
        world.options.rules.always_snapshot = false;
        world.options.rules.history_max = 500;
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(80);
        world.kill_all(&[0, 1, 2]);
        let old = world.two_begin_anew();
        let deceived = 1 + world.random.index(2);
        world.start_all(&[0, deceived]);
        world.run_until("one finds out", |world| !world.servers[deceived].disk.foreigners().is_empty());
        world.kill_all(&[0, deceived]);
        world.start_all(&[1, 2]);
        world.run_until_serving(&[1, 2]);
        // It is left out, whoever leads from now on, starts when, and dies meanwhile.
        for _ in 0..6 {
            let written = world.random.below(30) as usize;
            world.run_until_written(written);
            let first = world.random.index(3);
            for s in (first..first + 3).map(|s| s % 3) {
                world.start(s);
                let wait_ms = world.random.scaled(1, 1000);
                world.run_for(wait_ms);
            }
            world.run_until_serving(&[1, 2]);
            world.run_for(1000);
            world.demand(!world.serves(0), "it is left out");
            let in_log = world.servers[0].disk.read_back(old[0].zxid, old[old.len() - 1].zxid);
            world.demand(in_log == Ok(old.clone()), "it is told to forget nothing");
            for s in 0..3 {
                if world.random.one_in(2) {
                    let with_power = world.random.one_in(2);
                    world.kill(s, with_power, "starts anew");
                }
            }
            world.start_all(&[1, 2]);
            world.run_until_serving(&[1, 2]);
        }
        // With nothing it is taken, and not left out again for what it had once.
        world.kill(0, false, "its data are moved away");
        world.servers[0].disk.exchange(&[]);
        world.start(0);
        world.run_until_serving(&[0, 1, 2]);
        for _ in 0..3 {
            let one = world.random.index(3);
            world.kill(one, false, "starts anew");
            world.run_until_written(3);
            world.start(one);
            world.run_until_serving(&[0, 1, 2]);
        }
    });
}

/// The same where the old member's history is the later one: no leader lets it in, and nobody elects it when that is gone.
#[test]
fn a_later_history_that_a_quorum_left_out_is_elected_by_nobody_whoever_dies() {
    told(3, |world| {
        world.options.apache = Some(0);
        world.options.rules.always_snapshot = false;
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(20);
        let leader_of = |world: &World, servers: &[usize]| {
            let leads = |s: &usize| world.servers[*s].process.as_ref().map(|process| process.role);
            servers.iter().copied().find(|s| matches!(leads(s), Some(Role::Leading { .. })))
        };
        for _ in 0..2 {
            let Some(leader) = leader_of(world, &[0, 1, 2]) else { return };
            world.kill(leader, false, "another leads");
            world.start(leader);
            world.run_until_serving(&[0, 1, 2]);
        }
        world.kill_all(&[0, 1, 2]);
        world.two_lose_their_disks();
        world.alarms_expected = true;
        let written = world.random.below(60) as usize;
        world.run_until_written(written);
        world.start(0);
        let know = |world: &World| [1, 2].iter().all(|s| !world.servers[*s].disk.foreigners().is_empty());
        world.run_until("the follower knows, too", know);
        for _ in 0..4 {
            let Some(leader) = leader_of(world, &[1, 2]) else { return };
            let with_power = world.random.one_in(2);
            world.kill(leader, with_power, "it leads");
            if world.random.one_in(2) {
                world.kill(3 - leader, with_power, "it knows from its disk");
                world.start(3 - leader);
            }
            world.run_for(3000);
            world.demand(
                (0..3).all(|s| !world.serves(s)),
                "nobody serves without a quorum of those who have one history",
            );
            world.start(leader);
            world.run_until_serving(&[1, 2]);
            world.run_until_written(5);
            world.demand(!world.serves(0), "it is left out");
        }
        let helps_not =
            |(_, text): &(usize, String)| text.contains("does not help to elect server 1: its history of epoch");
        let is_told = world.alarms.iter().any(helps_not);
        world.demand(is_told, "an operator is called");
        // With nothing it is taken, and counts whoever dies.
        world.kill(0, false, "its data are moved away");
        world.servers[0].disk.exchange(&[]);
        world.start(0);
        world.run_until_serving(&[0, 1, 2]);
        for _ in 0..3 {
            let Some(one) = leader_of(world, &[0, 1, 2]) else { return };
            world.kill(one, false, "the two others lead");
            world.run_until_written(3);
            world.start(one);
            world.run_until_serving(&[0, 1, 2]);
        }
    });
}

/// The same where the old member, which compares no histories, leads those that have begun anew, and the first digest behind
/// the joint tells them. They die at every step from when they log what it sent to when that is taken
/// back.
#[test]
fn what_a_leader_with_another_history_sent_is_taken_back_wherever_a_server_dies() {
    told(3, |world| {
        world.options.apache = Some(0);
        world.options.rules.always_snapshot = false;
        world.options.rules.history_max = 500;
        world.start_all(&[0, 1, 2]);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(80);
        // What stands in front of an epoch was agreed upon: the old member gives nothing of that up, though it leads nobody.
        let leads = |s: &usize| matches!(world.servers[*s].process.as_ref().unwrap().role, Role::Leading { .. });
        let Some(leader) = (0..3).find(leads) else { return };
        world.kill(leader, false, "another leads");
        world.start(leader);
        world.run_until_serving(&[0, 1, 2]);
        world.run_until_written(10);
        world.kill_all(&[0, 1, 2]);
        let old = world.two_begin_anew();
        world.deaths_taking_back = 12;
        for _ in 0..12 {
            let one = 1 + world.random.index(2);
            world.start_all(&[0, one]);
            let wait_ms = world.random.scaled(100, 3000);
            world.run_for(wait_ms);
            world.kill_all(&[0, 1, 2]);
        }
        let died = world.deaths_taking_back < 12;
        world.demand(died, "somebody followed the wrong leader");
        world.deaths_taking_back = 0;
        world.start_all(&[1, 2]);
        world.run_until_serving(&[1, 2]);
        world.run_until_written(10);
        world.start(0);
        world.run_for(3000);
        world.demand(world.serves(1) && world.serves(2), "they go on");
        let in_log = world.servers[0].disk.read_back(old[0].zxid, old[old.len() - 1].zxid);
        let holds_old = in_log.is_ok_and(|in_log| in_log.starts_with(&old)) || world.holds_all(0, &old);
        world.demand(holds_old, "the old history is still there, or set aside");
        if !world.serves(0) {
            world.kill(0, false, "its data are moved away");
            world.servers[0].disk.exchange(&[]);
            world.start(0);
        }
        world.run_until_serving(&[0, 1, 2]);
    });
}
