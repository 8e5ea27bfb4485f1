//! Courses of events in which the members of an ensemble change, and what is cut, killed or wiped meanwhile. That no two
//! quorums serve in one epoch, and nothing else is ever committed under a zxid, is checked at each step (`check`).

use std::fmt::Write;

use rookeeper::mail::Role;

use crate::disk::Disk;
use crate::scenarios::told;
use crate::world::World;

/// Server `n` is `n + 1` in every list.
fn text(servers: &[usize], separator: &str) -> String {
    let mut text = String::new();
    servers.iter().for_each(|s| write!(text, "server.{0}=s{0}:2888:3888{separator}", s + 1).unwrap());
    text
}

impl World {
    /// These begin with a list of these, out of zoo.cfg.
    fn list(&mut self, servers: &[usize], members: &[usize]) {
        servers.iter().for_each(|s| self.servers[*s].disk.configure(*s as i64 + 1, &text(members, "\n")));
        // How long a leader takes to look for voters that do not follow.
        self.options.rules.notification_interval_ms = (200, 1000);
    }

    fn has_in_force(&self, s: usize, members: &[usize]) -> bool {
        let wanted = members.iter().map(|member| *member as i64 + 1);
        self.servers[s].disk.members().is_ok_and(|(_, configs)| configs.committed.servers.keys().copied().eq(wanted))
    }

    fn leader(&self) -> Option<usize> {
        let leads = |s: &usize| {
            let process = self.servers[*s].process.as_ref();
            process.is_some_and(|process| matches!(process.role, Role::Leading { .. }) && process.peer().is_serving())
        };
        (0..self.servers.len()).find(leads)
    }

    /// The first client has a session there.
    fn send_client_to(&mut self, s: usize) {
        self.clients[0].stays_at = Some(s);
        if !self.clients[0].talks_to(s) {
            self.drop_client(0);
        }
        self.run_until("the client is there", |world| world.clients[0].talks_to(s));
    }

    /// These are to be the members, whom the client asks again if the leader that it asked is gone; until they are.
    fn reconfigure(&mut self, members: &[usize], to_know: &[usize]) {
        self.clients[0].stays_at = Some(to_know[0]);
        for _ in 0..20 {
            if to_know.iter().all(|s| self.has_in_force(*s, members)) {
                return;
            }
            if self.clients[0].talks_to(to_know[0]) {
                self.client_asks_for_members(0, text(members, ","));
            } else {
                self.drop_client(0);
            }
            self.run_for(500);
        }
        self.violation(format!("{members:?} did not become the members"));
    }

    fn cut_between(&mut self, some: &[usize], others: &[usize], cut: bool) {
        for (a, b) in some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))) {
            self.net.set_cut(a, b, cut);
            self.net.set_cut(b, a, cut);
        }
        self.let_flow();
    }

    /// A new disk, and a list out of zoo.cfg.
    fn wipe(&mut self, s: usize, members: &[usize]) {
        self.kill(s, false, "wiped");
        self.servers[s].disk = Disk::default();
        self.list(&[s], members);
    }
}

/// Of five, the leader and a sixth that has no vote are cut from three; {fourth, leader, sixth} are asked for; the fourth
/// starts anew, learns of that from the leader, and is cut from the three as well.
#[test]
fn a_list_that_a_minority_proposed_makes_no_quorum_of_who_comes_late() {
    told(6, |world| {
        let all = [0, 1, 2, 3, 4];
        world.list(&all, &all);
        world.list(&[5], &[0, 1, 2, 3, 4, 5]);
        world.start_all(&[0, 1, 2, 3, 4, 5]);
        world.run_until_serving(&[0, 1, 2, 3, 4, 5]);
        world.run_until_written(10);
        let Some(leader) = world.leader() else { return };
        let late = (leader + 1) % 5;
        let rest: Vec<usize> = all.into_iter().filter(|s| *s != leader && *s != late).collect();
        world.send_client_to(leader);
        let mut minority = [late, leader, 5];
        minority.sort_unstable();
        world.cut_between(&[leader, 5], &rest, true);
        world.client_asks_for_members(0, text(&minority, ","));
        world.run_for(60);
        world.kill(late, false, "it comes late");
        world.start(late);
        // Whether the leader has it before its own time is up is a matter of the seed.
        world.run_for(200);
        world.cut_between(&[late], &rest, true);
        world.run_for(4000);
        world.demand(minority.iter().all(|s| !world.serves(*s)), "the minority serves");
        world.run_until_serving(&rest);
        world.run_until_written(10);
        world.cut_between(&minority, &rest, false);
        world.run_until_serving(&all);
        world.demand(all.iter().all(|s| !world.has_in_force(*s, &minority)), "nobody agreed to that list");
        world.clients[0].stays_at = None;
    });
}

/// {1,2,3} become {4,5}, and then {1,2,3} again; 4 and 5 are wiped, and added again at the same time.
#[test]
fn two_that_were_wiped_and_are_added_again_found_no_ensemble_of_their_own() {
    told(5, |world| {
        let (all, old) = ([0, 1, 2, 3, 4], [0, 1, 2]);
        world.list(&old, &old);
        world.list(&[3], &[0, 1, 2, 3]);
        world.list(&[4], &[0, 1, 2, 4]);
        world.start_all(&all);
        world.run_until_serving(&all);
        world.run_until_written(10);
        world.reconfigure(&[3, 4], &[3, 4, 0, 1, 2]);
        // The others lose their leader, and ask these two for one: their links may begin with that later.
        for s in [3, 4] {
            world.run_until_serving(&all);
            world.kill(s, false, "for a while");
            world.run_for(100);
            world.start(s);
        }
        world.run_until_serving(&all);
        world.reconfigure(&old, &[0, 1, 2, 3, 4]);
        world.run_until_serving(&all);
        world.wipe(3, &[0, 1, 2, 3]);
        world.wipe(4, &[0, 1, 2, 4]);
        world.run_until_written(10);
        world.start_all(&[3, 4]);
        world.reconfigure(&all, &[0, 1, 2, 3, 4]);
        world.run_until_serving(&all);
        world.clients[0].stays_at = None;
    });
}

/// {1,2,3} become {3,4,5} while 3 is down, and 1 and 2 are switched off. Then 3 comes back; or 4 goes before that.
#[test]
fn a_server_that_was_down_follows_an_ensemble_that_has_moved_on() {
    for fourth_stays in [true, false] {
        told(5, |world| {
            world.list(&[0, 1, 2], &[0, 1, 2]);
            world.list(&[3], &[0, 1, 2, 3]);
            world.list(&[4], &[0, 1, 2, 4]);
            world.start_all(&[0, 1, 2, 3, 4]);
            world.run_until_serving(&[0, 1, 2, 3, 4]);
            world.run_until_written(10);
            world.kill(2, false, "it is away");
            world.run_until_serving(&[0, 1, 3, 4]);
            world.reconfigure(&[2, 3, 4], &[0, 1, 3, 4]);
            world.run_until_serving(&[3, 4]);
            world.clients[0].stays_at = Some(4);
            world.kill_all(&[0, 1]);
            if !fourth_stays {
                world.kill(3, false, "one more is lost");
            }
            world.start(2);
            let rest: &[usize] = if fourth_stays { &[2, 3, 4] } else { &[2, 4] };
            world.run_until_serving(rest);
            world.demand(world.has_in_force(2, &[2, 3, 4]), "3 knows who belongs to it");
            world.run_until_written(10);
            world.kill(3, false, "now");
            world.run_until_serving(&[2, 4]);
            world.run_until_written(10);
            world.clients[0].stays_at = None;
        });
    }
}

/// {1,2,3} become {3,…,7}, and only one of them hears that it was committed, before the old ones and two new ones go.
#[test]
fn who_knows_that_a_list_was_committed_tells_those_to_whom_it_was_proposed() {
    told(7, |world| {
        world.list(&[0, 1, 2], &[0, 1, 2]);
        (3..7).for_each(|s| world.list(&[s], &[0, 1, 2, s]));
        let all = [0, 1, 2, 3, 4, 5, 6];
        world.start_all(&all);
        world.run_until_serving(&all);
        let Some(leader) = world.leader() else { return };
        let new = [2, 3, 4, 5, 6];
        world.send_client_to(leader);
        world.client_asks_for_members(0, text(&new, ","));
        world.run_until("somebody has it in force", |world| all.iter().any(|s| world.has_in_force(*s, &new)));
        world.kill_all(&[0, 1, 5, 6]);
        world.clients[0].stays_at = Some(3);
        world.run_for(3000);
        // Who of them knows is a matter of the seed, and whether any does.
        if [2, 3, 4].iter().any(|s| world.has_in_force(*s, &new)) {
            world.run_until_serving(&[2, 3, 4]);
            world.run_until_written(10);
        }
        world.clients[0].stays_at = None;
    });
}
