//! Courses of events that chance would hardly find: which disks are lost or damaged, who starts when. What is between, and
//! how long each thing takes, is drawn from a seed.

use rookeeper::ids::Zxid;
use rookeeper::mail::Role;

use crate::world::{Event, World};

/// How many seeds each scenario is told with.
const SEEDS: u64 = 8;

/// Tells a scenario with seeds of its own, and then lets the world come to rest: all must serve and agree.
pub fn told(voters: usize, scenario: impl Fn(&mut World)) {
    for seed in 1..=SEEDS {
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
            eprintln!("{}", end(true).trace.tail(160));
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
        process.is_some_and(|process| process.peer.is_serving() && process.pipeline_role != Role::Looking)
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
        world.demand(text.contains("its log cannot be read behind"), "it says what is damaged");
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
        let damaged = world.servers[follower].disk.log().to_vec();
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
