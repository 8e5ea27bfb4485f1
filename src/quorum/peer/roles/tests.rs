//! A server of an ensemble from one role to the next, its disk and the others played by hand.

use std::collections::BTreeMap;

use super::*;
use crate::ids::{LinkId, SessionId};
use crate::mail::{LogRecord, ToQuorum};
use crate::quorum::joint::{Relation, Told};
use crate::quorum::notification::Hello;
use crate::quorum::packet::{LearnerInfo, Packet};
use crate::quorum::peer::PeerStart;
use crate::quorum::{Epochs, Foreigners, PeerRules, Timing};
use crate::state::{JointVerdict, Loader, StateRules};
use crate::txn::{Txn, TxnBody, TxnHeader};

fn observer(id: i64, observer_pauses_ms: [i64; 2]) -> Peer {
    let members = format!("server.1=h:1:2\nserver.{id}=h:1:2:observer\n");
    Peer::new(start(id, Members::parse_text(members.as_bytes()).unwrap(), observer_pauses_ms), 0)
}

fn start(id: i64, committed: Members, observer_pauses_ms: [i64; 2]) -> PeerStart {
    let timing = Timing { tick_ms: 1000, init_ms: 5000, sync_ms: 2000, connect_ms: 5000 };
    PeerStart {
        my_id: ServerId(id),
        configs: Configs { committed, last_seen: None, reconfig_enabled: false },
        rules: PeerRules { observer_pauses_ms, ..timing.into() },
        epochs: Epochs::default(),
        last: Zxid::ZERO,
        recent: Vec::new(),
        tree: None,
        earlier: None,
        marks: Vec::new(),
        gives_up: false,
        damage: None,
        wrong_join: None,
        foreigners: Foreigners::new(),
        hello: Vec::new(),
        read_only_after_ms: None,
        observer_logs: true,
    }
}

/// A voter that was being sent a snapshot when its leader died, and has settled since.
fn bereft() -> (Peer, Zxid) {
    let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
    let last = Zxid(1 << 32 | 5);
    let epochs = Epochs { accepted: 1, current: 1 };
    let mut peer = Peer::new(PeerStart { last, epochs, ..start(2, members, [0, 0]) }, 0);
    let committed_log = CommittedLog::new(last, Vec::new());
    let (configs, rules) = (peer.configs.clone(), peer.rules);
    let learner = Learner::new(ServerId(2), false, ServerId(3), configs, rules, epochs, committed_log, last, 0);
    peer.activity = Activity::Learning(Box::new(learner));
    let link = LinkId(9);
    peer.on_leader_connected(link);
    let snap = Packet::Snap { zxid: Zxid(1 << 32 | 9), told: None };
    peer.on_packets(link, [Packet::LeaderInfo { epoch: 2, ours: None }, snap]);
    assert!(!peer.wants_packets());
    peer.take_effects();
    peer.on_link_closed(link);
    peer.on_inner(ToQuorum::Forgotten);
    peer.on_inner(ToQuorum::Quiesced { zxid: last, tree: None });
    let truncated = |effect: &Effect| match effect {
        Effect::Truncate { to, dropped: Dropped::Contained } => Some(*to),
        _ => None,
    };
    assert_eq!(peer.take_effects().iter().find_map(truncated), Some(last), "a truncation that leaves all");
    assert!(matches!(peer.activity, Activity::Quiescing { .. }), "without its state it must not lead");
    (peer, last)
}

#[test]
fn a_state_that_was_forgotten_for_a_snapshot_that_did_not_come_is_read_again() {
    let (mut peer, last) = bereft();
    peer.on_truncated(Ok(last));
    assert!(matches!(peer.activity, Activity::Looking { .. }) && !peer.hollow && peer.damage.is_none());
    let (mut peer, _) = bereft();
    peer.on_truncated(Err("the disk is gone".to_owned()));
    assert!(matches!(peer.activity, Activity::Looking { .. }) && peer.abstains() && peer.wants_snapshot);
    assert!(peer.take_effects().iter().all(|effect| !matches!(effect, Effect::Truncate { .. })));
}

const JOINT: Zxid = Zxid(2 << 32 | 5);

fn record(zxid: Zxid) -> LogRecord {
    let header = TxnHeader { client_id: SessionId(7), cxid: 1, zxid, time_ms: 1 };
    LogRecord { zxid, payload: Txn { header, body: TxnBody::Error(-101), digest: None }.to_bytes() }
}

/// Server 2 of three, whose history ends there in epoch 2; the end of epoch 1 is known to be agreed upon.
fn voter(last: Zxid) -> Peer {
    let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
    let epochs = Epochs { accepted: 2, current: 2 };
    let recent = (1..=last.counter()).map(|counter| record(Zxid(2 << 32 | i64::from(counter)))).collect();
    let start = start(2, members, [0, 0]);
    let mut peer = Peer::new(PeerStart { last, epochs, recent, earlier: Some(Zxid(1 << 32 | 7)), ..start }, 0);
    peer.take_effects();
    peer
}

/// Server 3, which tells nothing of its history, leads this one in epoch 4, and puts its own behind the joint. What it
/// says next is said here.
fn follow(peer: &mut Peer, mode: Packet) -> LinkId {
    follow_in(4, peer, mode)
}

fn follow_in(epoch: u32, peer: &mut Peer, mode: Packet) -> LinkId {
    elect(peer, Vote { leader: ServerId(3), zxid: Zxid(3 << 32 | 9), epoch: 3 });
    let link = LinkId(9);
    peer.on_leader_connected(link);
    peer.on_packets(link, [Packet::LeaderInfo { epoch, ours: None }, mode]);
    link
}

fn elect(peer: &mut Peer, vote: Vote) {
    (peer.vote, peer.vote_has_epoch) = (vote, false);
    peer.elected = Some(vote);
    peer.pump();
}

fn propose_and_commit(zxid: Zxid) -> [Packet; 2] {
    [Packet::Proposal { zxid, payload: record(zxid).payload }, Packet::Commit { zxid }]
}

/// It serves as a follower of that leader, which has sent it another transaction of epoch 2.
fn deceived() -> Peer {
    let mut peer = voter(JOINT);
    let link = follow(&mut peer, Packet::Diff { zxid: JOINT.next() });
    let new_leader = Packet::NewLeader { zxid: Zxid(4 << 32), config: Vec::new() };
    peer.on_packets(link, propose_and_commit(JOINT.next()).into_iter().chain([new_leader]));
    peer.on_inner(ToQuorum::Durable { zxid: JOINT.next(), at_us: 0 });
    peer.on_inner(ToQuorum::CaughtUp);
    peer.on_packets(link, [Packet::UpToDate]);
    assert!(peer.is_serving() && peer.epochs.current == 4);
    peer.take_effects();
    peer
}

fn wrong(joint: Zxid, seen: Zxid) -> ToQuorum {
    ToQuorum::Joint(JointVerdict::Wrong(WrongJoint { joint, seen }))
}

/// What is done about files, in order.
fn on_disk(peer: &mut Peer) -> Vec<String> {
    let told = |effect: Effect| match effect {
        Effect::Truncate { .. } | Effect::SetCurrentEpoch(_) | Effect::SetBackEpoch(_) | Effect::MarkWrongJoin(_) => {
            Some(format!("{effect:?}"))
        }
        _ => None,
    };
    peer.take_effects().into_iter().filter_map(told).collect()
}

fn marked(joint: Zxid, last: Zxid, stage: JoinStage) -> String {
    marks(WrongJoin { joint, last, stage, ..MARK })
}

const MARK: WrongJoin = WrongJoin {
    joint: JOINT,
    epoch: 2,
    last: JOINT,
    agreed: Zxid(1 << 32 | 7),
    leader: ServerId(3),
    stage: JoinStage::Unproven,
};

fn marks(wrong: WrongJoin) -> String {
    format!("{:?}", Effect::MarkWrongJoin(Some(wrong)))
}

fn taken_out(to: Zxid) -> String {
    format!("{:?}", Effect::Truncate { to, dropped: Dropped::Foreign })
}

#[test]
fn what_a_leader_with_another_history_sent_is_taken_back() {
    let mut peer = deceived();
    peer.on_inner(wrong(JOINT, JOINT.next()));
    assert_eq!(on_disk(&mut peer), [marked(JOINT, JOINT, JoinStage::Joined)], "a start knows of it first of all");
    peer.on_inner(ToQuorum::Quiesced { zxid: JOINT.next(), tree: None });
    assert_eq!(on_disk(&mut peer), [taken_out(JOINT)]);
    assert!(
        matches!(peer.activity, Activity::Quiescing { .. }),
        "it must not be said in an election before it is gone"
    );
    peer.on_truncated(Ok(JOINT));
    assert_eq!(on_disk(&mut peer), ["SetBackEpoch(2)", "MarkWrongJoin(None)"]);
    // It votes as it did before: for those who have its history, and not for that leader nor another one like it.
    assert_eq!(peer.epochs, Epochs { accepted: 4, current: 2 });
    let Activity::Looking { last, committed_log, .. } = &peer.activity else { panic!("it looks for a leader") };
    assert_eq!(
        (*last, committed_log.agreed()),
        (JOINT, Zxid(1 << 32 | 7)),
        "what that leader knew of agreement is not so"
    );
    assert!(peer.refused.contains_key(&ServerId(3)) && peer.strange.contains_key(&ServerId(3)) && !peer.abstains());
    let ends = JOINT.next()..=Zxid(4 << 32 | 0xffff_ffff);
    assert_eq!(
        peer.refused_histories,
        BTreeMap::from([(ServerId(3), ends.into())]),
        "nor is it told to forget its own"
    );
    // Where nobody comes of it, an operator hears of it.
    peer.set_time(peer.alarm_ms);
    peer.tick();
    let alarm = peer.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Alarm(text) => Some(text),
        _ => None,
    });
    let alarm = alarm.expect("an alarm");
    assert!(alarm.contains("does not help to elect server 3: its history up to 0x200000005"), "{alarm}");
    assert!(alarm.contains("If its data are the right ones: stop the other servers"), "{alarm}");
}

#[test]
fn a_start_and_a_leader_are_told_whose_history_is_another_one() {
    let ends = Ends::from(JOINT.next()..=Zxid(4 << 32 | 0xffff_ffff));
    let mut peer = deceived();
    peer.on_inner(wrong(JOINT, JOINT.next()));
    let kept = peer.take_effects().into_iter().take_while(|effect| !matches!(effect, Effect::MarkWrongJoin(_)));
    let kept = kept.filter_map(|effect| match effect {
        Effect::KeepForeigners(foreigners) => Some(foreigners),
        _ => None,
    });
    let foreigners = kept.last().expect("before anything is taken back");
    let strange = "its history up to 0x200000005 is another one than that of the leader which it followed from there: \
                   the data digest of 0x200000006 does not fit";
    let foreign = Foreign { ends: ends.clone(), strange: Some(strange.to_owned()) };
    assert_eq!(foreigners, Foreigners::from([(ServerId(3), foreign)]));
    let begun = |foreigners: Foreigners| {
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let epochs = Epochs { accepted: 4, current: 2 };
        let start = PeerStart { last: JOINT, epochs, foreigners, ..start(2, members, [0, 0]) };
        Peer::new(start, 0)
    };
    let mut peer = begun(foreigners);
    assert!(peer.strange.contains_key(&ServerId(3)) && !peer.abstains());
    peer.take_effects();
    elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
    let link = LinkId(9);
    peer.on_leader_connected(link);
    peer.on_packets(link, [Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) }]);
    let told = peer.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: Packet::AckEpoch { reach, .. }, .. } => reach,
        _ => None,
    });
    assert_eq!(told.expect("its history").foreign, BTreeMap::from([(ServerId(3), ends)]));
    // It holds a leader's history: who is elected is not for it to doubt; that one may still be in the way.
    let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
    peer.on_packets(link, [Packet::Diff { zxid: JOINT }, new_leader]);
    assert_eq!(peer.foreigners.values().map(|foreign| foreign.strange.clone()).collect::<Vec<_>>(), [None]);
    peer.on_link_closed(link);
    peer.on_inner(ToQuorum::Quiesced { zxid: JOINT, tree: None });
    follow_in(6, &mut peer, Packet::Trunc { zxid: Zxid(JOINT.0 - 1) });
    let last = peer.take_effects().into_iter().rev().find_map(|effect| match effect {
        Effect::KeepForeigners(foreigners) => Some(foreigners),
        _ => None,
    });
    assert_eq!(last, Some(Foreigners::new()), "its history is another one now");
}

#[test]
fn what_a_leader_of_ours_says_of_other_histories_holds_here_once_this_server_has_its_own() {
    let ends = || Ends::from(JOINT.next()..=Zxid(4 << 32 | 9));
    let mut peer = voter(JOINT);
    elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
    let link = LinkId(9);
    peer.on_leader_connected(link);
    let none = Ends::from(Zxid::ZERO..=Zxid(9));
    let ours = Some(BTreeMap::from([(ServerId(2), ends()), (ServerId(3), ends()), (ServerId(99), ends())]));
    peer.on_packets(link, [Packet::LeaderInfo { epoch: 5, ours }, Packet::Diff { zxid: JOINT }]);
    assert!(peer.refused_histories.is_empty());
    peer.on_packets(link, [Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() }]);
    assert_eq!(peer.refused_histories, BTreeMap::from([(ServerId(3), ends())]));
    assert_eq!(peer.foreigners, BTreeMap::from([(ServerId(3), Foreign { ends: ends(), strange: None })]));
    // Nobody is kept out for ever.
    peer.on_link_closed(link);
    peer.on_inner(ToQuorum::Quiesced { zxid: JOINT, tree: None });
    elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 5 });
    peer.on_leader_connected(link);
    let ours = Some(BTreeMap::from([(ServerId(1), none)]));
    let new_leader = Packet::NewLeader { zxid: Zxid(6 << 32), config: Vec::new() };
    peer.on_packets(link, [Packet::LeaderInfo { epoch: 6, ours }, Packet::Diff { zxid: JOINT }, new_leader]);
    assert_eq!(peer.refused_histories.keys().collect::<Vec<_>>(), [&ServerId(3)]);
}

#[test]
fn a_later_history_that_was_refused_is_not_elected_where_its_leader_is_gone() {
    // Nothing was written in epoch 7.
    let later = HistoryEnd { epoch: 7, last: JOINT };
    let foreign = ForeignEnds::from([(ServerId(3), Ends::at(later))]);
    let says = |peer: &mut Peer, foreign: ForeignEnds| {
        peer.on_packets(LinkId(9), [Packet::TellingPing { zxid: Zxid(5 << 32), foreign }]);
    };
    let told = || {
        let mut peer = voter(JOINT);
        elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
        peer.on_leader_connected(LinkId(9));
        let info = Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) };
        let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
        peer.on_packets(LinkId(9), [info, Packet::Diff { zxid: JOINT }, new_leader, Packet::UpToDate]);
        // It follows already when its leader refuses that one. What it says of strangers and of this server is passed over.
        let others = [2, 99].map(|id| (ServerId(id), Ends::at(later)));
        says(&mut peer, foreign.clone().into_iter().chain(others).collect());
        assert!(peer.is_serving());
        assert_eq!(peer.refused_histories, foreign);
        peer
    };
    let leave = |peer: &mut Peer| {
        peer.on_link_closed(LinkId(9));
        peer.on_inner(ToQuorum::Quiesced { zxid: JOINT, tree: None });
        assert!(matches!(peer.activity, Activity::Looking { .. }));
        peer.take_effects();
    };
    let elects = |peer: &mut Peer, HistoryEnd { epoch, last }| {
        let vote = Vote { leader: ServerId(3), zxid: last, epoch: i64::from(epoch) };
        let word = Notification { state: PeerState::Looking, vote, round: 9, version: 2, config: None };
        peer.note_history(ServerId(3), &word);
        peer.election.on_notification(ServerId(3), &word, peer.now_ms);
        peer.set_time(peer.now_ms + 1000);
        peer.tick();
        matches!(peer.activity, Activity::Learning(_))
    };
    let mut peer = told();
    leave(&mut peer);
    assert!(!elects(&mut peer, later));
    peer.set_time(peer.next_deadline_ms().max(peer.alarm_ms));
    peer.tick();
    let alarm = peer.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Alarm(text) => Some(text),
        _ => None,
    });
    let alarm = alarm.expect("an alarm");
    assert!(
        alarm.contains("does not help to elect server 3: its history of epoch 0x7, up to 0x200000005, is not the one"),
        "{alarm}"
    );
    assert!(alarm.contains("stop server 3, move its version-2 folder away, and start it again"), "{alarm}");
    // A start knows of it, too. Whoever gives up its own history helps, and asks for all of the other one.
    for gives_up in [false, true] {
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let (epochs, foreigners) = (Epochs { accepted: 5, current: 5 }, peer.foreigners.clone());
        let start = PeerStart { last: JOINT, epochs, foreigners, gives_up, ..start(2, members, [0, 0]) };
        let mut begun = Peer::new(start, 0);
        assert_eq!(elects(&mut begun, later), gives_up);
        if !gives_up {
            continue;
        }
        begun.on_leader_connected(LinkId(9));
        begun.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 8, ours: None }]);
        let said = begun.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Send { packet: Packet::AckEpoch { zxid, epoch, .. }, .. } => Some((zxid, epoch)),
            _ => None,
        });
        assert_eq!(said, Some((Zxid::ZERO, Some(5))), "it counts, or nobody leads");
    }
    // It comes with another history, or with one of this ensemble that ends there.
    assert!(elects(&mut peer, HistoryEnd { epoch: 5, last: Zxid(5 << 32 | 9) }));
    let mut peer = told();
    leave(&mut peer);
    assert!(elects(&mut peer, HistoryEnd { epoch: 5, last: JOINT }));
    // The leader took it meanwhile.
    let mut peer = told();
    says(&mut peer, ForeignEnds::new());
    assert!(peer.foreigners.is_empty());
    leave(&mut peer);
    assert!(elects(&mut peer, later));
}

#[test]
fn a_later_history_that_lacks_what_was_agreed_upon_is_not_elected_again() {
    let refuses = |epoch| {
        let mut peer = voter(JOINT);
        elect(&mut peer, Vote { leader: ServerId(3), zxid: Zxid(1 << 32 | 6), epoch });
        peer.on_leader_connected(LinkId(9));
        let trunc = Packet::Trunc { zxid: Zxid(1 << 32 | 6) };
        peer.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 4, ours: None }, trunc]);
        assert!(!matches!(peer.activity, Activity::Learning(_)) && peer.refused.contains_key(&ServerId(3)));
        peer.refused_histories
    };
    let end = HistoryEnd { epoch: 3, last: Zxid(1 << 32 | 6) };
    assert_eq!(refuses(3), ForeignEnds::from([(ServerId(3), Ends::at(end))]));
    assert!(refuses(2).is_empty(), "one that is only behind");
}

#[test]
fn a_leader_that_is_stopped_keeps_whom_it_left_out_for_its_next_start() {
    let mut peer = voter(JOINT);
    peer.refused_histories = BTreeMap::from([(ServerId(3), (JOINT.next()..=JOINT.next()).into())]);
    elect(&mut peer, Vote { leader: ServerId(2), zxid: JOINT, epoch: 2 });
    assert!(matches!(peer.activity, Activity::Leading(_)) && peer.foreigners.contains_key(&ServerId(3)));
    peer.on_inner(ToQuorum::Stop);
    // What comes in later changes nothing of it.
    peer.pump();
    assert!(matches!(peer.activity, Activity::Stopped) && peer.foreigners.contains_key(&ServerId(3)));
}

#[test]
fn a_server_that_comes_with_a_third_history_or_none_is_no_longer_the_one_that_was_found_out() {
    let found_out = || {
        let mut peer = deceived();
        peer.on_inner(wrong(JOINT, JOINT.next()));
        peer.on_inner(ToQuorum::Quiesced { zxid: JOINT.next(), tree: None });
        peer.on_truncated(Ok(JOINT));
        assert!(matches!(peer.activity, Activity::Looking { .. }));
        peer.take_effects();
        peer
    };
    let hears = |peer: &mut Peer, zxid| {
        let vote = Vote { leader: ServerId(3), zxid, epoch: i64::from(zxid.epoch()) };
        let word = Notification { state: PeerState::Looking, vote, round: 1, version: 2, config: None };
        peer.note_history(ServerId(3), &word);
        peer.pump();
        let kept = peer.take_effects().into_iter().find_map(|effect| match effect {
            Effect::KeepForeigners(foreigners) => Some(foreigners),
            _ => None,
        });
        (kept, peer.strange.is_empty() && peer.refused_histories.is_empty())
    };
    // It has that history still.
    for end in [JOINT.next(), Zxid(3 << 32 | 9), Zxid(4 << 32 | 7)] {
        assert_eq!(hears(&mut found_out(), end), (None, false), "{end}");
    }
    // Its files were moved away, and a leader may have sent it what the ensemble has.
    for end in [Zxid::ZERO, Zxid(5 << 32 | 1)] {
        assert_eq!(hears(&mut found_out(), end), (Some(Foreigners::new()), true), "{end}");
    }
}

#[test]
fn what_was_joined_before_anything_proved_it_is_taken_back_with_what_followed() {
    // The first of two leaders sends nothing whose digest tells.
    let seen = Zxid(5 << 32 | 1);
    let (mut peer, last) = left();
    assert!(matches!(peer.activity, Activity::Looking { .. }));
    let link = follow(&mut peer, Packet::Diff { zxid: last });
    peer.on_packets(link, propose_and_commit(seen));
    peer.take_effects();
    // The pipeline may know of the last one alone.
    peer.on_inner(wrong(last, seen));
    assert_eq!(on_disk(&mut peer), [marked(JOINT, JOINT, JoinStage::Joined)]);
    // Once a digest fits, that is over.
    let mut peer = deceived();
    peer.on_inner(ToQuorum::Joint(JointVerdict::Right));
    peer.on_link_closed(LinkId(9));
    peer.on_inner(ToQuorum::Quiesced { zxid: last, tree: None });
    let link = follow(&mut peer, Packet::Diff { zxid: last });
    peer.on_packets(link, propose_and_commit(seen));
    peer.take_effects();
    peer.on_inner(wrong(last, seen));
    let mark = WrongJoin { joint: last, epoch: 4, last, agreed: last, leader: ServerId(3), stage: JoinStage::Joined };
    assert_eq!(on_disk(&mut peer), [marks(mark)]);
}

#[test]
fn a_start_is_told_of_a_joint_before_anything_behind_it_is_logged_and_until_something_told_of_it() {
    let logged = |effect: Effect| match effect {
        Effect::MarkWrongJoin(_) | Effect::Truncate { .. } => Some(format!("{effect:?}")),
        Effect::Log(_) => Some("log".to_owned()),
        _ => None,
    };
    let logged = |peer: &mut Peer| peer.take_effects().into_iter().filter_map(logged).collect::<Vec<_>>();
    let (unproven, gone) = (marks(MARK), format!("{:?}", Effect::MarkWrongJoin(None)));
    let mut peer = voter(JOINT);
    let link = follow(&mut peer, Packet::Diff { zxid: JOINT });
    assert!(logged(&mut peer).is_empty(), "nothing is there");
    peer.on_packets(link, propose_and_commit(JOINT.next()));
    assert_eq!(logged(&mut peer), [unproven.as_str(), "log"]);
    peer.on_packets(link, propose_and_commit(JOINT.next().next()));
    assert_eq!(logged(&mut peer), ["log"]);
    // It stays when another leader tells as little.
    peer.on_link_closed(link);
    let last = JOINT.next().next();
    peer.on_inner(ToQuorum::Durable { zxid: last, at_us: 0 });
    peer.on_inner(ToQuorum::Quiesced { zxid: last, tree: None });
    let link = follow(&mut peer, Packet::Diff { zxid: last });
    peer.on_packets(link, propose_and_commit(last.next()));
    assert_eq!(logged(&mut peer), ["log"]);
    peer.on_inner(ToQuorum::Joint(JointVerdict::Right));
    assert_eq!(logged(&mut peer), [gone.as_str()]);
    peer.on_packets(link, propose_and_commit(last.next().next()));
    assert_eq!(logged(&mut peer), ["log"]);
    // What is cut off for a leader is told of before.
    let own_end = Zxid(JOINT.0 + 2);
    let mut peer = voter(own_end);
    let link = follow(&mut peer, Packet::Trunc { zxid: JOINT });
    let cut = format!("{:?}", Effect::Truncate { to: JOINT, dropped: Dropped::Tail });
    assert_eq!(logged(&mut peer), [marked(JOINT, own_end, JoinStage::Unproven), cut]);
    peer.on_truncated(Ok(JOINT));
    peer.on_packets(link, propose_and_commit(Zxid(3 << 32 | 1)));
    assert_eq!(logged(&mut peer), ["log"]);
    peer.on_inner(ToQuorum::Joint(JointVerdict::Open));
    assert_eq!(logged(&mut peer), [gone]);
}

#[test]
fn what_a_start_knows_of_a_joint_goes_with_what_it_was_known_of() {
    let begun = |stage| {
        let mut peer = voter(Zxid(JOINT.0 + 3));
        let members = peer.configs.committed.clone();
        let epochs = Epochs { accepted: 4, current: 4 };
        let wrong_join = Some(WrongJoin { stage, ..MARK });
        let start = PeerStart { last: Zxid(JOINT.0 + 3), epochs, wrong_join, ..start(2, members, [0, 0]) };
        peer = Peer::new(start, 0);
        peer.take_effects();
        peer
    };
    let mut peer = begun(JoinStage::Unproven);
    assert!(!peer.abstains());
    // What was noted of the time before counts.
    let seen = Zxid(5 << 32 | 1);
    let link = follow_in(5, &mut peer, Packet::Diff { zxid: Zxid(JOINT.0 + 3) });
    peer.on_packets(link, propose_and_commit(seen));
    assert!(on_disk(&mut peer).is_empty());
    peer.on_inner(wrong(JOINT, seen));
    assert_eq!(on_disk(&mut peer), [marks(WrongJoin { stage: JoinStage::Joined, ..MARK })]);
    // This server leads.
    let mut peer = begun(JoinStage::Unproven);
    elect(&mut peer, Vote { leader: ServerId(2), zxid: Zxid(JOINT.0 + 3), epoch: 4 });
    let link = LinkId(10);
    peer.on_learner_connected(link);
    let (accepted_epoch, server) = (4, Some(ServerId(1)));
    let info =
        LearnerInfo { observer: false, accepted_epoch, server, protocol: 0x10000, config_version: 0, history: None };
    let ack = Packet::Ack { zxid: Zxid(5 << 32) };
    let promise = Packet::AckEpoch { zxid: Zxid(JOINT.0 + 3), epoch: Some(4), reach: None };
    peer.on_packets(link, [Packet::LearnerInfo(info), promise]);
    assert_eq!(on_disk(&mut peer), ["SetCurrentEpoch(5)"], "it may end before anybody has it");
    peer.on_packets(link, [ack.clone(), ack]);
    assert!(peer.is_serving() && peer.joined.is_none());
    assert_eq!(on_disk(&mut peer), ["MarkWrongJoin(None)"]);
}

/// It followed that leader, of which nothing told, and is looking for another one.
fn left() -> (Peer, Zxid) {
    let (mut peer, last) = (deceived(), JOINT.next());
    peer.on_link_closed(LinkId(9));
    peer.on_inner(ToQuorum::Quiesced { zxid: last, tree: None });
    (peer, last)
}

/// Its leader of epoch 5 is gone; one with another history leads in epoch 6, and only what that sent is taken back.
fn takes_back_nothing_before(mut peer: Peer, last: Zxid) {
    for now_ms in (0..10_000).step_by(500) {
        peer.set_time(now_ms);
        peer.tick();
    }
    peer.on_inner(ToQuorum::Quiesced { zxid: last, tree: None });
    let (seen, epoch) = (Zxid(6 << 32 | 1), peer.epochs.current);
    assert!(matches!(peer.activity, Activity::Looking { .. }) && epoch == 5);
    let link = follow_in(6, &mut peer, Packet::Diff { zxid: last });
    peer.on_packets(link, propose_and_commit(seen));
    peer.take_effects();
    peer.on_inner(wrong(last, seen));
    let agreed = peer.entered.agreement.last();
    let mark = WrongJoin { joint: last, epoch, last, agreed, stage: JoinStage::Joined, ..MARK };
    assert_eq!(on_disk(&mut peer), [marks(mark)]);
}

#[test]
fn what_a_quorum_had_since_is_not_taken_back_with_what_was_joined_before() {
    // It led, and server 1 has what it has.
    let (mut peer, joined) = left();
    elect(&mut peer, Vote { leader: ServerId(2), zxid: joined, epoch: 4 });
    let (link, led) = (LinkId(10), Zxid(5 << 32 | 1));
    peer.on_learner_connected(link);
    let follower = LearnerInfo {
        observer: false,
        accepted_epoch: 4,
        server: Some(ServerId(1)),
        protocol: 0x10000,
        config_version: 0,
        history: None,
    };
    let ack = Packet::Ack { zxid: Zxid(5 << 32) };
    let promise = Packet::AckEpoch { zxid: joined, epoch: Some(4), reach: None };
    peer.on_packets(link, [Packet::LearnerInfo(follower), promise, ack.clone(), ack]);
    assert!(peer.is_serving() && peer.state() == PeerState::Leading);
    peer.on_inner(ToQuorum::Proposed(vec![record(led)]));
    peer.on_inner(ToQuorum::Durable { zxid: led, at_us: 0 });
    peer.on_packets(link, [Packet::Ack { zxid: led }]);
    peer.on_link_closed(link);
    takes_back_nothing_before(peer, led);
    // Or it followed a leader that compared the two histories.
    let (mut peer, joined) = left();
    elect(&mut peer, Vote { leader: ServerId(1), zxid: joined, epoch: 4 });
    let link = LinkId(10);
    peer.on_leader_connected(link);
    let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
    let diff = Packet::Diff { zxid: joined };
    peer.on_packets(
        link,
        [Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) }, diff, new_leader, Packet::UpToDate],
    );
    assert!(peer.is_serving());
    peer.on_link_closed(link);
    takes_back_nothing_before(peer, joined);
}

/// Its own end was cut off for that leader, before it was found out.
fn shortened() -> Peer {
    let own_end = Zxid(JOINT.0 + 2);
    let mut peer = voter(own_end);
    let link = follow(&mut peer, Packet::Trunc { zxid: JOINT });
    peer.on_truncated(Ok(JOINT));
    peer.on_packets(link, propose_and_commit(Zxid(3 << 32 | 1)));
    peer.take_effects();
    peer.on_inner(wrong(JOINT, Zxid(3 << 32 | 1)));
    assert_eq!(on_disk(&mut peer), [marked(JOINT, own_end, JoinStage::Joined)]);
    // The next leader is told of it. If that one is elected again, it is followed: this server has no voice.
    assert!(peer.foreigners[&ServerId(3)].ends.contains(Zxid(3 << 32 | 9)) && peer.strange.is_empty());
    peer.on_inner(ToQuorum::Durable { zxid: Zxid(3 << 32 | 1), at_us: 0 });
    peer.on_inner(ToQuorum::Quiesced { zxid: Zxid(3 << 32 | 1), tree: None });
    assert_eq!(on_disk(&mut peer), [taken_out(JOINT)]);
    peer
}

#[test]
fn a_server_whose_end_was_cut_off_for_a_leader_with_another_history_does_not_help_to_elect() {
    let own_end = Zxid(JOINT.0 + 2);
    let mut peer = shortened();
    peer.on_truncated(Ok(JOINT));
    assert_eq!(on_disk(&mut peer), ["SetBackEpoch(2)".to_owned(), marked(JOINT, own_end, JoinStage::Short)]);
    assert!(peer.abstains() && peer.epochs.current == 2);
    // Nor after a start, until it has the history of a leader.
    let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
    let mark = WrongJoin { last: own_end, stage: JoinStage::Short, ..MARK };
    let epochs = Epochs { accepted: 4, current: 2 };
    let start = PeerStart { last: JOINT, epochs, wrong_join: Some(mark), ..start(2, members, [0, 0]) };
    let mut peer = Peer::new(start, 0);
    assert!(peer.abstains());
    let link = follow(&mut peer, Packet::Snap { zxid: Zxid(4 << 32), told: None });
    peer.gives_up = true;
    peer.on_inner(ToQuorum::Forgotten);
    if let Activity::Learning(learner) = &mut peer.activity {
        learner.give_up();
    }
    peer.on_snapshot(Box::new(Loader::new(StateRules::default()).finish(Zxid(4 << 32))));
    peer.on_inner(ToQuorum::Installed { zxid: Zxid(4 << 32) });
    assert!(peer.abstains() && on_disk(&mut peer).is_empty());
    peer.on_packets(link, [Packet::NewLeader { zxid: Zxid(4 << 32), config: Vec::new() }]);
    assert_eq!(on_disk(&mut peer), ["SetCurrentEpoch(4)", "MarkWrongJoin(None)"]);
    assert!(!peer.abstains());
}

#[test]
fn a_server_that_cannot_take_back_what_was_sent_has_no_voice() {
    let mut peer = shortened();
    peer.on_truncated(Err("there is no snapshot that old".to_owned()));
    assert_eq!(on_disk(&mut peer), [marked(JOINT, Zxid(JOINT.0 + 2), JoinStage::Mixed)]);
    assert!(peer.abstains() && peer.wants_snapshot);
    assert!(peer.damage.as_ref().unwrap().contains("could not be taken out"), "{:?}", peer.damage);
}

#[test]
fn a_foreign_history_stays_refused_until_this_servers_own_changes() {
    let ends = || BTreeMap::from([(ServerId(1), (JOINT..=JOINT).into())]);
    let joined = |mode: Packet| {
        let mut peer = voter(JOINT);
        peer.refused_histories = ends();
        follow(&mut peer, mode);
        peer
    };
    assert_eq!(joined(Packet::Diff { zxid: JOINT }).refused_histories, ends());
    assert!(joined(Packet::Trunc { zxid: Zxid(JOINT.0 - 1) }).refused_histories.is_empty());
    let mut peer = joined(Packet::Snap { zxid: Zxid(3 << 32 | 9), told: None });
    assert_eq!(peer.refused_histories, ends(), "it may not come");
    peer.on_inner(ToQuorum::Forgotten);
    if let Activity::Learning(learner) = &mut peer.activity {
        learner.give_up();
    }
    let other = || Box::new(Loader::new(StateRules::default()).finish(Zxid(3 << 32 | 9)));
    peer.on_snapshot(other());
    assert!(peer.refused_histories.is_empty());
    // Whatever becomes of this server before it serves with a leader of ours: what left its history within the part that
    // stays is another one still, and of a history that is taken over the leader has said it.
    let before = Zxid(JOINT.0 - 1);
    let told = BTreeMap::from([(ServerId(1), (Zxid(3 << 32 | 4)..=Zxid(3 << 32 | 4)).into())]);
    let joins_ours = |ends: &ForeignEnds, mode: Packet| {
        let mut peer = voter(JOINT);
        peer.refused_histories = ends.clone();
        elect(&mut peer, Vote { leader: ServerId(3), zxid: Zxid(3 << 32 | 9), epoch: 3 });
        peer.on_leader_connected(LinkId(9));
        peer.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 4, ours: Some(told.clone()) }, mode]);
        peer
    };
    let of_beginning = BTreeMap::from([(ServerId(1), (before..=JOINT).into())]);
    let trunc = || Packet::Trunc { zxid: before };
    assert_eq!(joins_ours(&of_beginning, trunc()).refused_histories, of_beginning);
    assert!(joins_ours(&ends(), trunc()).refused_histories.is_empty());
    let outdated = Told { relation: Relation::Contained, established: true };
    let mut peer = joins_ours(&ends(), Packet::Snap { zxid: Zxid(3 << 32 | 9), told: Some(outdated) });
    peer.on_inner(ToQuorum::Forgotten);
    peer.on_snapshot(other());
    assert_eq!(peer.refused_histories, told);
}

#[test]
fn a_damaged_server_calls_an_operator_after_a_while_and_seldom_again_and_serves_nobody() {
    let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
    let mut start = start(2, members, [0, 0]);
    start.damage = Some("log.5 cannot be read behind 0x7".into());
    start.read_only_after_ms = Some(2000);
    let mut peer = Peer::new(start, 0);
    let mut alarms = Vec::new();
    let mut now_ms = 0;
    while now_ms < 700_000 {
        for effect in peer.take_effects() {
            match effect {
                Effect::Alarm(text) => alarms.push((now_ms, text)),
                Effect::Pipeline(mail) => panic!("{mail:?}"),
                _ => {}
            }
        }
        now_ms = peer.next_deadline_ms().clamp(now_ms + 1, now_ms + 60_000);
        peer.set_time(now_ms);
        peer.tick();
    }
    let times: Vec<i64> = alarms.iter().map(|(at_ms, _)| *at_ms).collect();
    assert_eq!(times, [5000, 305_000, 605_000]);
    let expected = "server 2 has no leader to follow, and must not help to elect one: log.5 cannot be read behind 0x7";
    assert!(alarms[0].1.starts_with(expected), "{}", alarms[0].1);
    assert!(alarms[0].1.contains("out of reach: 1, 3."), "{}", alarms[0].1);
}

/// What is said on this link of an election.
fn words(peer: &mut Peer, to: LinkId) -> Vec<(PeerState, Vote)> {
    let notification = |effect: Effect| match effect {
        Effect::SendElection { link, bytes } if link == to => Notification::decode(bytes.get(4..)?).ok(),
        _ => None,
    };
    peer.take_effects().into_iter().filter_map(notification).map(|n| (n.state, n.vote)).collect()
}

/// Server 1, which this one dials back, has a new link.
fn comes(peer: &mut Peer, back: LinkId) -> Vec<(PeerState, Vote)> {
    peer.on_election_hello(LinkId(back.0 + 100), &Hello { server: ServerId(1), addresses: Vec::new() });
    peer.on_election_dialed(back, ServerId(1));
    let mut said = words(peer, back);
    for _ in 0..2 {
        peer.on_election_flushed(back);
        said.extend(words(peer, back));
    }
    said
}

#[test]
fn a_new_link_begins_with_nothing_that_is_not_true_any_more() {
    let (mut peer, three) = (voter(JOINT), LinkId(3));
    peer.on_inner(ToQuorum::Quiesced { zxid: JOINT, tree: None });
    peer.on_election_hello(three, &Hello { server: ServerId(3), addresses: Vec::new() });
    let vote = Vote { leader: ServerId(3), zxid: JOINT.next(), epoch: 2 };
    let says = |state| Notification { state, vote, round: 1, version: 2, config: None };
    peer.on_notification(three, &says(PeerState::Looking));
    assert_eq!(comes(&mut peer, LinkId(11)), [(PeerState::Looking, vote)], "it is in time for this election");
    peer.on_election_closed(LinkId(11));

    // The vote is for nobody any more who comes with an empty disk and takes up what is better than its own.
    peer.set_time(1_000);
    peer.tick();
    assert!(matches!(peer.activity, Activity::Learning(_)));
    assert_eq!(comes(&mut peer, LinkId(12)), []);
    let asks = Notification { vote: Vote { leader: ServerId(1), zxid: Zxid(0), epoch: 0 }, ..says(PeerState::Looking) };
    peer.on_notification(LinkId(12), &asks);
    assert_eq!(words(&mut peer, LinkId(12)), [(PeerState::Following, vote)]);
    peer.on_election_flushed(LinkId(12));
    peer.on_election_closed(LinkId(12));

    // Nor whom it followed, once it does not.
    peer.set_time(20_000);
    peer.tick();
    peer.on_inner(ToQuorum::Quiesced { zxid: JOINT, tree: None });
    assert!(matches!(peer.activity, Activity::Looking { .. }));
    let own = Vote { leader: ServerId(2), zxid: JOINT, epoch: 2 };
    assert_eq!(comes(&mut peer, LinkId(13)), [(PeerState::Looking, own)]);
}

#[test]
fn observers_that_lose_their_leader_do_not_all_come_back_at_once() {
    let mut pauses_ms = Vec::new();
    for id in 2..=101 {
        pauses_ms.push(observer(id, [0, 200]).pause_ms());
    }
    assert!(pauses_ms.iter().all(|pause_ms| (0..200).contains(pause_ms)));
    pauses_ms.sort_unstable();
    pauses_ms.dedup();
    assert!(pauses_ms.len() > 50, "{pauses_ms:?}");
    let mut one = observer(2, [0, 1_000_000]);
    assert_ne!(one.pause_ms(), one.pause_ms());
    assert!(observer(2, [i64::MAX, i64::MAX]).pause_ms() >= 0);
    assert_eq!(observer(2, [0, 0]).pause_ms(), 0);
}
