//! Elections by votes that are handed in: who is elected, and who is told what.

use super::*;
use crate::config::Members;
use crate::quorum::joint::Ends;
use PeerState::{Following, Leading, Looking, Observing};

const NEW: i64 = 1_000;
const WAITS_MS: (i64, i64) = (200, 60_000);

fn members(text: &str) -> Members {
    Members::parse_text(text.as_bytes()).unwrap()
}

fn configs(participants: i64, observers: &[i64]) -> Configs {
    let mut text: String = (1..=participants).map(|id| format!("server.{id}=h:1:2:participant\n")).collect();
    text.extend(observers.iter().map(|id| format!("server.{id}=h:1:2:observer\n")));
    Configs { committed: members(&text), last_seen: None, reconfig_enabled: false }
}

fn vote(leader: i64, zxid: i64, epoch: i64) -> Vote {
    Vote { leader: ServerId(leader), zxid: Zxid(zxid), epoch }
}

fn says(state: PeerState, vote: Vote, round: i64) -> Notification {
    Notification { state, vote, round, version: 2, config: None }
}

/// Server `me` looks since `NEW`, with (zxid, epoch), among so many participants; what it sent first is taken.
fn looking(me: i64, zxid: i64, epoch: i64, configs: &Configs) -> Election {
    let mut e = Election::new(ServerId(me), WAITS_MS);
    e.look(configs, vote(me, zxid, epoch), NEW);
    e.take();
    e
}

fn hears(e: &mut Election, from: i64, n: Notification) -> ElectionOutput {
    e.on_notification(ServerId(from), &n, NEW);
    e.take()
}

fn sent(output: &ElectionOutput) -> Vec<(i64, PeerState, Vote, i64)> {
    output.sends.iter().map(|(to, n)| (to.0, n.state, n.vote, n.round)).collect()
}

#[test]
fn an_election_begins_by_telling_all_voters_the_own_vote() {
    let mut e = Election::new(ServerId(1), WAITS_MS);
    let configs = configs(3, &[4]);
    e.look(&configs, vote(1, 7, 2), NEW);
    let output = e.take();
    assert_eq!(sent(&output), [(2, Looking, vote(1, 7, 2), 1), (3, Looking, vote(1, 7, 2), 1)]);
    let first = &output.sends[0].1;
    assert_eq!((first.version, &first.config), (2, &Some(configs.committed.to_string().into_bytes())));
    assert!(!output.connect_all && output.elected.is_none());
}

#[test]
fn epoch_then_zxid_then_server_decides_between_votes() {
    let configs = configs(5, &[]);
    for (better, than) in [((1, 0, 3), (2, 9, 2)), ((1, 9, 2), (2, 8, 2)), ((4, 8, 2), (3, 8, 2))] {
        let (better, than) = (vote(better.0, better.1, better.2), vote(than.0, than.1, than.2));
        let mut e = looking(5, 0, 0, &configs);
        hears(&mut e, 1, says(Looking, than, 1));
        assert_eq!(sent(&hears(&mut e, 2, says(Looking, better, 1)))[0].2, better);
        assert_eq!(sent(&hears(&mut e, 3, says(Looking, than, 1))), []);
    }
}

#[test]
fn a_server_that_does_not_know_its_history_abstains() {
    let configs = configs(3, &[]);
    let own = Vote { leader: ServerId(2), zxid: UNTRUSTED, epoch: 9 };
    let mut e = Election::new(ServerId(2), WAITS_MS);
    e.look(&configs, own, NEW);
    let lowest = Vote { epoch: i64::MIN, ..own };
    assert_eq!(sent(&e.take()), [(1, Looking, lowest, 1), (3, Looking, lowest, 1)]);
    // It takes up nobody's vote, and its own is no voice for a quorum.
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(1, 7, 8), 1))), []);
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(2, 7, 8), 1))), []);
    e.on_notification(ServerId(1), &says(Following, vote(2, 7, 8), 1), NEW);
    e.on_notification(ServerId(3), &says(Following, vote(2, 7, 8), 1), NEW);
    e.tick(NEW + 10_000);
    assert_eq!(e.take().elected, None);
    // A server with a history of an earlier epoch is not outdone by it, nor helped.
    let mut other = looking(1, 7, 8, &configs);
    assert_eq!(sent(&hears(&mut other, 2, says(Looking, lowest, 1))), []);
    other.tick(NEW + 10_000);
    assert_eq!(other.take().elected, None);
    // Those who elected a leader without it are joined.
    hears(&mut e, 1, says(Following, vote(3, 7, 8), 4));
    assert_eq!(hears(&mut e, 3, says(Leading, vote(3, 7, 8), 4)).elected, Some(vote(3, 7, 8)));
}

#[test]
fn a_shunned_server_is_neither_elected_nor_joined() {
    let mut e = looking(1, 7, 1, &configs(3, &[]));
    e.shun(Shunned { leaders: BTreeSet::from([ServerId(3)]), ..Shunned::default() });
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 9, 1), 1))), []);
    hears(&mut e, 2, says(Following, vote(3, 9, 1), 4));
    assert_eq!(hears(&mut e, 3, says(Leading, vote(3, 9, 1), 4)).elected, None);
    hears(&mut e, 2, says(Looking, vote(1, 7, 1), 1));
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(1, 7, 1)), "with the rest it forms a quorum");
}

#[test]
fn a_voter_looks_again_in_a_later_round_or_for_another_leader_in_the_same_one() {
    let mut e = looking(2, 7, 1, &configs(3, &[]));
    hears(&mut e, 1, says(Looking, vote(2, 7, 1), 1));
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(2, 7, 1)));
    for (n, again) in [
        (says(Looking, vote(2, 7, 1), 1), false),
        (says(Looking, vote(3, 7, 1), 1), true),
        (says(Looking, vote(2, 7, 1), 2), true),
        (says(Following, vote(3, 7, 1), 1), false),
    ] {
        assert_eq!(e.looks_again(&n), again, "{n:?}");
    }
}

#[test]
fn those_who_know_of_a_foreign_history_elect_without_it_and_take_a_third_one_of_that_server() {
    let last = Zxid(1 << 32 | 9);
    let knows = |id, counter: i64| {
        let mut e = looking(id, 1 << 32 | counter, 1, &configs(3, &[]));
        let later = Ends::at(HistoryEnd { epoch: 3, last });
        e.shun(Shunned { foreign: ForeignEnds::from([(ServerId(3), later)]), ..Shunned::default() });
        e
    };
    let mut e = knows(2, 5);
    // Its zxid is of an epoch that is known here. It is in a later round, and no round goes on for it.
    for (epoch, round) in [(3, 1), (3, 7), (4, 7)] {
        assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, last.0, epoch), round))), []);
    }
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(3, last.0, 3), 1))), [], "nor for who does not know");
    hears(&mut e, 1, says(Looking, vote(2, 1 << 32 | 5, 1), 1));
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(2, 1 << 32 | 5, 1)));
    // Who comes with what a leader of this ensemble had may be elected.
    for (zxid, epoch) in [(last.0, 2), (last.0 + 1, 3), (2 << 32 | 1, 2)] {
        let mut e = knows(1, 5);
        hears(&mut e, 3, says(Looking, vote(3, zxid, epoch), 1));
        e.tick(NEW + 200);
        assert_eq!(e.take().elected, Some(vote(3, zxid, epoch)));
    }
}

#[test]
fn nobody_is_elected_with_a_history_that_lacks_this_servers_and_who_was_elected_is_joined() {
    let without = || {
        let mut e = looking(1, 7, 0, &configs(3, &[]));
        e.shun(Shunned {
            epochs: BTreeSet::from([1]),
            strange: BTreeSet::from([ServerId(2)]),
            foreign: ForeignEnds::from([(ServerId(3), (Zxid(5 << 32 | 1)..=Zxid(5 << 32 | 9)).into())]),
            ..Shunned::default()
        });
        e
    };
    let mut e = without();
    // Whoever it is, and however far that history goes by now.
    let foreign = vote(3, 5 << 32 | 9, 5);
    for vote in [vote(3, 1 << 32 | 9, 2), vote(3, 1 << 32 | 10, 1), vote(2, 2 << 32, 2), foreign] {
        let n = says(Looking, vote, 1);
        assert_eq!(sent(&hears(&mut e, 3, n)), []);
    }
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 2 << 32, 2), 1)))[0].2, vote(3, 2 << 32, 2));
    let vote = vote(3, 1 << 32 | 9, 2);
    let mut e = without();
    hears(&mut e, 2, says(Following, vote, 4));
    assert_eq!(hears(&mut e, 3, says(Leading, vote, 4)).elected, Some(vote));
}

#[test]
fn who_looks_in_a_later_round_has_left_the_leader_of_this_one() {
    let mut e = looking(1, 7, 0, &configs(3, &[]));
    hears(&mut e, 2, says(Looking, vote(1, 7, 0), 1));
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(1, 7, 0)));
    assert!(!e.looks_again(&says(Looking, vote(1, 7, 0), 1)), "it has not decided yet");
    assert!(e.looks_again(&says(Looking, vote(2, 7, 0), 2)));
    assert!(!e.looks_again(&says(Following, vote(1, 7, 0), 2)));
}

#[test]
fn a_quorum_that_nobody_challenges_for_a_moment_elects() {
    let mut e = looking(1, 7, 0, &configs(5, &[]));
    hears(&mut e, 2, says(Looking, vote(2, 7, 0), 1));
    assert_eq!(e.next_deadline_ms(), NEW + 200, "the wait for the next re-send");
    hears(&mut e, 3, says(Looking, vote(2, 7, 0), 1));
    e.tick(NEW + 199);
    // Better, without a quorum: waiting begins anew.
    e.on_notification(ServerId(4), &says(Looking, vote(4, 7, 0), 1), NEW + 199);
    e.tick(NEW + 399);
    assert!(e.take().elected.is_none());
    e.on_notification(ServerId(2), &says(Looking, vote(4, 7, 0), 1), NEW + 500);
    e.tick(NEW + 700);
    assert_eq!(e.take().elected, Some(vote(4, 7, 0)));
    assert_eq!(e.next_deadline_ms(), i64::MAX);
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(2, 7, 0), 1))), [(3, Following, vote(4, 7, 0), 1)]);
}

#[test]
fn a_server_alone_elects_itself_and_one_of_three_does_not() {
    let mut e = looking(1, 0, 0, &configs(1, &[]));
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(1, 0, 0)));
    let mut e = looking(1, 0, 0, &configs(3, &[]));
    (0..100).for_each(|i| e.tick(NEW + i * 100_000));
    assert!(e.take().elected.is_none());
}

#[test]
fn silence_makes_it_send_again_at_doubling_intervals() {
    let mut e = Election::new(ServerId(1), (200, 1_000));
    e.look(&configs(2, &[]), vote(1, 0, 0), 0);
    let mut at = Vec::new();
    for now_ms in 1..5_000 {
        e.take();
        e.tick(now_ms);
        let output = e.take();
        assert_eq!(output.connect_all, !output.sends.is_empty());
        at.extend(output.connect_all.then_some(now_ms));
    }
    assert_eq!(at, [200, 600, 1_400, 2_400, 3_400, 4_400]);
}

#[test]
fn a_newer_round_is_joined_with_the_better_of_its_vote_and_the_own() {
    let mut e = looking(2, 7, 0, &configs(5, &[]));
    hears(&mut e, 1, says(Looking, vote(2, 7, 0), 1));
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 5, 0), 4)))[0], (1, Looking, vote(2, 7, 0), 4));
    hears(&mut e, 4, says(Looking, vote(2, 7, 0), 4));
    e.tick(NEW + 200);
    assert!(e.take().elected.is_none(), "votes of the older round are forgotten");
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 9, 0), 5)))[0], (1, Looking, vote(3, 9, 0), 5));
    hears(&mut e, 3, says(Looking, vote(3, 9, 0), i64::MAX));
    e.look(&configs(5, &[]), vote(2, 7, 0), NEW);
}

#[test]
fn a_voter_that_votes_for_nobody_yet_is_met_in_its_round() {
    // Server 3 is to join, and does not know.
    let text = |ids: &[i64]| ids.iter().map(|id| format!("server.{id}=h:1:2\n")).collect::<String>();
    let last_seen = Some(Members { version: 9, ..members(&text(&[2, 3])) });
    let configs = Configs { committed: members(&text(&[1, 2])), last_seen, reconfig_enabled: true };
    let mut e = looking(2, 7, 0, &configs);
    hears(&mut e, 1, says(Looking, vote(2, 7, 0), 1));
    let nobody = Vote { leader: NOBODY, ..vote(3, 5, 0) };
    let mine = (3, Looking, vote(2, 7, 0), 4);
    assert!(sent(&hears(&mut e, 3, says(Looking, nobody, 4))).contains(&mine));
    hears(&mut e, 3, says(Looking, vote(2, 7, 0), 4));
    e.tick(NEW + 200);
    assert!(e.take().elected.is_none(), "server 1 is to come to this round too");
    hears(&mut e, 1, says(Looking, vote(2, 7, 0), 4));
    e.tick(NEW + 400);
    assert_eq!(e.take().elected, Some(vote(2, 7, 0)));
    // Earlier rounds, and what nobody needs any more, change nothing.
    let mut e = looking(2, 7, 0, &configs);
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, nobody, 1))), []);
}

#[test]
fn an_older_round_does_not_count_and_is_told_the_proposal() {
    let mut e = looking(2, 7, 0, &configs(3, &[]));
    hears(&mut e, 3, says(Looking, vote(3, 1, 0), 4));
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(2, 7, 9), 3))), [(1, Looking, vote(2, 7, 0), 4)]);
    e.tick(NEW + 200);
    assert!(e.take().elected.is_none());
}

#[test]
fn joining_needs_the_leaders_word_and_a_quorum() {
    let configs = configs(5, &[]);
    let (at_3, at_4) = (vote(3, 1, 6), vote(3, 4, 6));
    let mut e = looking(5, 99, 5, &configs);
    for (from, state) in [(1, Following), (2, Following), (4, Following)] {
        assert!(hears(&mut e, from, says(state, at_3, 17)).elected.is_none());
    }
    // Zxid and round are those of each one's own last election.
    assert_eq!(hears(&mut e, 3, says(Leading, at_4, 16)).elected, Some(at_4));
    let other = vote(1, 0, 0);
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, other, 1))), [(1, Following, at_4, 16)]);

    let mut e = looking(5, 99, 5, &configs);
    for (from, state, epoch) in [(3, Leading, 6), (1, Following, 6), (2, Following, 5)] {
        assert!(hears(&mut e, from, says(state, vote(3, 1, epoch), 17)).elected.is_none());
    }
    let old = Notification { version: 0, ..says(Following, vote(3, 1, 5), 17) };
    assert!(hears(&mut e, 4, old).elected.is_some(), "a form without version agrees by the leader alone");
}

#[test]
fn within_a_round_the_own_vote_helps_and_epochs_may_differ() {
    let configs = configs(5, &[]);
    let mut e = looking(1, 0, 0, &configs);
    hears(&mut e, 2, says(Looking, vote(2, 0, 0), 1));
    assert!(hears(&mut e, 2, says(Leading, vote(2, 0, 0), 1)).elected.is_none());
    assert!(hears(&mut e, 3, says(Following, vote(2, 0, 0), 1)).elected.is_some());
    let mut e = looking(1, 0, 0, &configs);
    assert!(hears(&mut e, 2, says(Leading, vote(2, 0, 1), 1)).elected.is_none());
    assert!(hears(&mut e, 3, says(Following, vote(2, 0, 0), 1)).elected.is_none());
    assert_eq!(hears(&mut e, 4, says(Following, vote(2, 0, 1), 1)).elected, Some(vote(2, 0, 1)));
}

#[test]
fn followers_of_a_former_life_do_not_make_a_leader() {
    let mut e = looking(3, 0, 0, &configs(3, &[]));
    for from in [1, 2] {
        assert!(hears(&mut e, from, says(Following, vote(3, 0, 0), 8)).elected.is_none());
    }
    hears(&mut e, 1, says(Looking, vote(1, 0, 0), 8));
    let again = hears(&mut e, 2, says(Following, vote(3, 0, 0), 8));
    assert!(again.elected.is_some(), "in the round of this life it counts");
}

#[test]
fn with_a_role_only_those_who_look_are_answered() {
    let configs = configs(3, &[4]);
    let mut e = looking(1, 0, 0, &configs);
    e.set_outcome(Leading, vote(1, 0, 0));
    e.set_outcome(Leading, vote(1, 0, 1));
    let told = |e: &mut Election, from, state| sent(&hears(e, from, says(state, vote(2, 0, 0), 99)));
    assert_eq!(told(&mut e, 2, Looking), [(2, Leading, vote(1, 0, 1), -1)], "no election made this role");
    assert_eq!(told(&mut e, 4, Looking), [(4, Leading, vote(1, 0, 1), 1)], "an observer, by the clock");
    for state in [Following, Leading, Observing] {
        assert_eq!(told(&mut e, 2, state), []);
        assert_eq!(told(&mut e, 4, state), []);
    }
}

#[test]
fn strangers_are_answered_and_neither_they_nor_votes_for_them_count() {
    let mut e = looking(1, 0, 0, &configs(3, &[4]));
    for stranger in [4, 9] {
        let n = says(Looking, vote(3, 9, 9), 7);
        assert_eq!(sent(&hears(&mut e, stranger, n)), [(stranger, Looking, vote(1, 0, 0), 1)]);
    }
    for leader in [4, 9] {
        assert_eq!(sent(&hears(&mut e, 2, says(Looking, vote(leader, 9, 9), 1))), []);
        assert!(hears(&mut e, 3, says(Leading, vote(leader, 9, 9), 1)).elected.is_none());
    }
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(3, 9, 9), 7))), [], "somebody else under the own name");
}

#[test]
fn an_observer_votes_for_nobody_and_ends_observing() {
    let mut e = Election::new(ServerId(4), WAITS_MS);
    e.look(&configs(3, &[4]), vote(4, 7, 7), NEW);
    let least = vote(i64::MIN, i64::MIN, i64::MIN);
    let first = sent(&e.take());
    assert_eq!(first, [1, 2, 3].map(|to| (to, Looking, least, 1)));
    for from in [1, 2] {
        hears(&mut e, from, says(Looking, vote(2, 0, 0), 1));
    }
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(2, 0, 0)));
    assert_eq!(sent(&hears(&mut e, 1, says(Looking, vote(2, 0, 0), 1)))[0].1, Observing);
    // Not in the list at all: no vote, and the history is shown.
    let mut e = Election::new(ServerId(9), WAITS_MS);
    e.look(&configs(3, &[]), vote(9, 7, 7), NEW);
    assert_eq!(e.take().sends[0].1.vote, vote(i64::MIN, 7, 7));
}

/// Else the two would go on as fast as they can, for as long as nobody is elected.
#[test]
fn one_without_a_vote_and_a_voter_of_an_earlier_round_do_not_answer_each_other_on_and_on() {
    let configs = configs(3, &[4]);
    let least = vote(i64::MIN, i64::MIN, i64::MIN);
    let mut observer = Election::new(ServerId(4), WAITS_MS);
    observer.look(&configs, vote(4, 7, 7), NEW);
    hears(&mut observer, 2, says(Looking, vote(2, 0, 0), 9));
    let earlier = || says(Looking, vote(1, 0, 0), 1);
    assert_eq!(sent(&hears(&mut observer, 1, earlier())), [(1, Looking, vote(2, 0, 0), 9)]);
    assert_eq!(sent(&hears(&mut observer, 1, earlier())), []);
    let mut voter = looking(1, 0, 0, &configs);
    let answer = |voter: &mut Election, now_ms| {
        voter.on_notification(ServerId(4), &says(Looking, least, 9), now_ms);
        sent(&voter.take())
    };
    let word = |zxid| vec![(4, Looking, vote(1, zxid, 0), 1)];
    assert_eq!((answer(&mut voter, NEW), answer(&mut voter, NEW + 1)), (word(0), vec![]));
    assert_eq!(answer(&mut voter, NEW + WAITS_MS.0), word(0), "it may not have heard it");
    hears(&mut voter, 2, says(Looking, vote(2, 5, 0), 1));
    assert_eq!(answer(&mut voter, NEW + WAITS_MS.0 + 1), [(4, Looking, vote(2, 5, 0), 1)], "that is news");
}

#[test]
fn a_store_that_is_not_trusted_neither_counts_nor_is_counted() {
    let configs = configs(3, &[]);
    let mut e = looking(1, 0, 0, &configs);
    assert_eq!(sent(&hears(&mut e, 2, says(Looking, vote(2, -1, 5), 1))), []);
    let mut e = looking(1, -1, 0, &configs);
    assert_eq!(sent(&hears(&mut e, 2, says(Looking, vote(2, 5, 5), 1))), []);
    hears(&mut e, 3, says(Following, vote(2, 5, 5), 1));
    assert!(hears(&mut e, 2, says(Leading, vote(2, 5, 5), 1)).elected.is_some(), "it may follow");
}

#[test]
fn a_server_without_weight_is_not_voted_for() {
    let text = "server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\ngroup.1=1:2:3\nweight.3=0";
    let mut e = looking(1, 0, 0, &Configs { committed: members(text), last_seen: None, reconfig_enabled: false });
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 9, 9), 1))), []);
    assert_ne!(sent(&hears(&mut e, 2, says(Looking, vote(2, 0, 0), 1))), []);
}

#[test]
fn the_present_word_is_said_again_when_that_is_asked_for() {
    let configs = configs(3, &[4]);
    let mut e = looking(1, 0, 0, &configs);
    let again = |e: &mut Election| {
        e.tell_again([ServerId(2), ServerId(4)]);
        sent(&e.take())
    };
    assert_eq!(again(&mut e), [2, 4].map(|to| (to, Looking, vote(1, 0, 0), 1)));
    e.appoint(Leading, vote(1, 0, 1), NEW);
    assert_eq!(again(&mut e), [(2, Leading, vote(1, 0, 1), -1), (4, Leading, vote(1, 0, 1), 1)]);
    e.leave();
    assert_eq!(again(&mut e), [], "it has none");
}

#[test]
fn what_is_heard_between_two_roles_counts_in_the_next_election() {
    let configs = configs(3, &[]);
    let mut e = Election::new(ServerId(1), WAITS_MS);
    assert_eq!(sent(&hears(&mut e, 2, says(Looking, vote(2, 0, 0), 1))), []);
    e.look(&configs, vote(1, 0, 0), NEW);
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(2, 0, 0)));
    e.leave();
    assert_eq!(sent(&hears(&mut e, 3, says(Looking, vote(3, 0, 0), 2))), [], "it follows nobody any more");
    for stranger in 100..1_000 {
        hears(&mut e, stranger, says(Looking, vote(3, 0, 0), 2));
    }
    assert_eq!(e.held.len(), MAX_HELD);
    e.look(&configs, vote(1, 0, 0), NEW);
    e.tick(NEW + 200);
    assert_eq!(e.take().elected, Some(vote(3, 0, 0)));
}

/// Elections over a network that delays, reorders, repeats and for a while loses messages.
struct Net {
    random: fastrand::Rng,
    now_ms: i64,
    servers: BTreeMap<i64, Election>,
    own: BTreeMap<i64, Vote>,
    configs: Configs,
    /// By arrival, then by the order of sending.
    flying: BTreeMap<(i64, u64), (i64, i64, Notification)>,
    elected: BTreeMap<i64, Vote>,
    elected_at_ms: BTreeMap<i64, i64>,
    /// Who said which vote, in which round, while looking.
    said: BTreeSet<(i64, i64, i64)>,
    /// Messages get lost until then.
    lossy_until_ms: i64,
}

impl Net {
    fn new(seed: u64, voters: i64, observers: &[i64]) -> Net {
        let mut net = Net {
            random: fastrand::Rng::with_seed(seed),
            now_ms: 0,
            servers: BTreeMap::new(),
            own: BTreeMap::new(),
            configs: configs(voters, observers),
            flying: BTreeMap::new(),
            elected: BTreeMap::new(),
            elected_at_ms: BTreeMap::new(),
            said: BTreeSet::new(),
            lossy_until_ms: 0,
        };
        net.lossy_until_ms = net.any(10_000);
        for id in (1..=voters).chain(observers.iter().copied()) {
            let own = vote(id, net.any(3), net.any(2));
            net.own.insert(id, own);
            net.servers.insert(id, Election::new(ServerId(id), WAITS_MS));
        }
        net
    }

    /// Below `below`.
    fn any(&mut self, below: i64) -> i64 {
        self.random.i64(0..below)
    }

    fn look(&mut self, id: i64) {
        let (own, configs, now_ms) = (self.own[&id], self.configs.clone(), self.now_ms);
        self.elected.remove(&id);
        self.server(id).look(&configs, own, now_ms);
        self.carry(id);
    }

    /// A server that is there.
    fn server(&mut self, id: i64) -> &mut Election {
        self.servers.get_mut(&id).unwrap()
    }

    fn carry(&mut self, id: i64) {
        let output = self.server(id).take();
        for (to, n) in output.sends {
            if n.state == Looking {
                self.said.insert((id, n.vote.leader.0, n.round));
            }
            let lossy = self.now_ms < self.lossy_until_ms;
            let copies = match self.any(10) {
                0..3 if lossy => 0,
                3 => 2,
                _ => 1,
            };
            for copy in 0..copies {
                let delay_ms = if lossy { self.any(400) } else { self.any(20) };
                let at = (self.now_ms + delay_ms, self.any(i64::MAX) as u64 + copy);
                self.flying.insert(at, (id, to.0, n.clone()));
            }
        }
        if let Some(vote) = output.elected {
            self.elected.insert(id, vote);
            self.elected_at_ms.insert(id, self.now_ms);
        }
    }

    /// The next thing that happens: a message arrives or a deadline passes.
    fn step(&mut self) -> bool {
        let arrival = self.flying.first_key_value().map_or(i64::MAX, |((at, _), _)| *at);
        let due = self.servers.iter().map(|(id, e)| (e.next_deadline_ms(), *id)).min().unwrap();
        if arrival.min(due.0) == i64::MAX {
            return false;
        }
        let id = if arrival <= due.0 {
            let ((at, _), (from, to, n)) = self.flying.pop_first().unwrap();
            self.now_ms = at;
            // A server that died meanwhile hears nothing.
            let Some(server) = self.servers.get_mut(&to) else { return true };
            server.on_notification(ServerId(from), &n, at);
            to
        } else {
            self.now_ms = due.0;
            self.server(due.1).tick(due.0);
            due.1
        };
        self.carry(id);
        true
    }

    /// Until nobody looks and all are led. Who elected somebody that a quorum does not follow gives up after a second,
    /// as a real server does when it cannot connect or nobody comes.
    fn run(&mut self) {
        for _ in 0..20_000 {
            let all_quiet = !self.step();
            let lone = |(id, v): (&i64, &Vote)| (!self.is_led(v.leader.0)).then_some(*id);
            let lone: Vec<i64> = self.elected.iter().filter_map(lone).collect();
            if lone.is_empty() && self.elected.len() == self.servers.len() {
                return;
            }
            if all_quiet {
                self.now_ms += 1_000;
            }
            for id in lone {
                if self.now_ms - self.elected_at_ms[&id] >= 1_000 {
                    self.look(id);
                }
            }
        }
        panic!("no end at {} ms: {:?}", self.now_ms, self.elected);
    }

    fn is_led(&self, leader: i64) -> bool {
        let followers = self.elected.iter().filter(|(_, v)| v.leader.0 == leader).map(|(id, _)| ServerId(*id));
        let followers: BTreeSet<ServerId> = followers.collect();
        followers.contains(&ServerId(leader)) && self.configs.is_quorum(&followers)
    }

    /// One leader, of whom a quorum said that none of them has a longer history.
    fn check(&self) {
        let leaders: BTreeSet<i64> = self.elected.values().map(|v| v.leader.0).collect();
        assert_eq!(leaders.len(), 1, "{:?}", self.elected);
        let leader = *leaders.first().unwrap();
        let known = |id: &ServerId| self.servers.contains_key(&id.0) && !self.own[&id.0].beats(&self.own[&leader]);
        let behind: BTreeSet<ServerId> = self.configs.voters().into_iter().filter(known).collect();
        assert!(self.configs.is_quorum(&behind), "{leader} leads {behind:?}");
        let in_a_round = |round: &i64| {
            let said = self.said.iter().filter(|(_, l, r)| *l == leader && r == round);
            self.configs.is_quorum(&said.map(|(id, _, _)| ServerId(*id)).collect())
        };
        let rounds: BTreeSet<i64> = self.said.iter().map(|(_, _, r)| *r).collect();
        assert!(rounds.iter().any(in_a_round), "a quorum voted for {leader} in one round");
    }
}

#[test]
fn all_elect_the_same_whatever_the_network_does_meanwhile() {
    for seed in 0..400 {
        let voters = [3, 5][seed as usize % 2];
        let mut net = Net::new(seed, voters, [[].as_slice(), &[9]][seed as usize / 2 % 2]);
        let ids: Vec<i64> = net.servers.keys().copied().collect();
        for id in ids {
            for _ in 0..net.any(10) {
                net.step();
            }
            net.look(id);
        }
        net.run();
        net.check();
    }
}

#[test]
fn a_server_that_comes_back_joins_and_a_lost_leader_is_replaced() {
    for seed in 0..200 {
        let voters = [3, 5][seed as usize % 2];
        let mut net = Net::new(seed, voters, &[]);
        net.lossy_until_ms = 0;
        (1..=voters).for_each(|id| net.look(id));
        net.run();
        let leader = net.elected[&1].leader.0;
        let back = 1 + (leader + seed as i64) % voters;
        if back != leader {
            *net.server(back) = Election::new(ServerId(back), WAITS_MS);
            net.look(back);
            net.run();
            assert_eq!(net.elected[&back].leader.0, leader, "nobody else looks");
        }
        net.lossy_until_ms = net.now_ms + net.any(5_000);
        net.servers.remove(&leader);
        net.elected.clear();
        net.said.clear();
        let ids: Vec<i64> = net.servers.keys().copied().collect();
        ids.into_iter().for_each(|id| net.look(id));
        net.run();
        net.check();
    }
}
