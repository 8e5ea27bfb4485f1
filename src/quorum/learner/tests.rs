//! A learner's leader played by hand: what it says on the left, what the learner wants done on the right.

use std::collections::BTreeSet;

use super::*;
use crate::config::Members;
use crate::config::ensemble::{PeerAddress, PeerRole, QuorumRule, Server};
use crate::mail::{Dropped, ForwardedRequest};
use crate::memory::Bounds;
use crate::ops::OpCode;
use crate::quorum::joint::{HistoryEnd, Relation, Told};
use crate::quorum::packet::LearnerInfo;
use crate::records::Acl;
use crate::state::{Loader, State, StateRules};
use crate::txn::{CreateOwner, CreateTxn, SetDataTxn, TxnBody, TxnHeader};

const LINK: LinkId = LinkId(7);
const TIMING: Timing = Timing { tick_ms: 1000, init_ms: 10_000, sync_ms: 4000, connect_ms: 10_000 };
const EPOCHS: Epochs = Epochs { accepted: 1, current: 1 };

fn z(epoch: i64, counter: i64) -> Zxid {
    Zxid(epoch << 32 | counter)
}

fn server(id: i64, role: PeerRole) -> Server {
    let address = PeerAddress { host: format!("host{id}"), quorum_port: 2888, election_port: 3888 };
    Server { id, addresses: vec![address], role, client: None, client_is_from_zoo_cfg: false, secure_client: None }
}

fn configs() -> Configs {
    let servers = [
        (1, server(1, PeerRole::Participant)),
        (2, server(2, PeerRole::Participant)),
        (3, server(3, PeerRole::Participant)),
        (4, server(4, PeerRole::Observer)),
    ];
    let committed = Members { servers: servers.into(), rule: QuorumRule::Majority, version: 5 };
    Configs { committed, last_seen: None, reconfig_enabled: false }
}

fn learner(observer: bool, last: Zxid) -> Learner {
    let my_id = ServerId(if observer { 4 } else { 1 });
    Learner::new(my_id, observer, ServerId(3), configs(), TIMING, EPOCHS, CommittedLog::new(last, Vec::new()), last, 0)
}

fn payload(zxid: Zxid, body: TxnBody) -> Vec<u8> {
    let header = TxnHeader { client_id: SessionId(0x77), cxid: 1, zxid, time_ms: 1 };
    Txn { header, body, digest: None }.to_bytes()
}

fn write(zxid: Zxid) -> Vec<u8> {
    payload(zxid, TxnBody::Error(-101))
}

fn propose(zxid: Zxid) -> Packet {
    Packet::Proposal { zxid, payload: write(zxid) }
}

fn commit(zxid: Zxid) -> Packet {
    Packet::Commit { zxid }
}

fn inform(zxid: Zxid) -> Packet {
    Packet::Inform { zxid, payload: write(zxid) }
}

fn new_leader(epoch: i64) -> Packet {
    Packet::NewLeader { zxid: z(epoch, 0), config: Vec::new() }
}

fn state(zxid: Zxid) -> Box<State> {
    Box::new(Loader::new(StateRules::default()).finish(zxid))
}

/// Effects in short, in order. A configuration that cannot change is left out, from where on the state is exact, and joints.
fn done(learner: &mut Learner) -> Vec<String> {
    let fixed = !learner.configs.reconfig_enabled;
    let tells = |effect: &Effect| match effect {
        Effect::Pipeline(ToPipeline::Configs(_)) => fixed,
        Effect::Pipeline(ToPipeline::ExactFrom(_) | ToPipeline::Joined(_)) => true,
        _ => false,
    };
    learner.take_effects().into_iter().filter(|effect| !tells(effect)).map(short).collect()
}

fn short(effect: Effect) -> String {
    let zxids = |zxids: Vec<Zxid>| zxids.iter().map(Zxid::to_string).collect::<Vec<_>>().join(" ");
    match effect {
        Effect::Send { link, packet } => {
            assert_eq!(link, LINK);
            match packet {
                Packet::Ack { zxid } => format!("ACK {zxid}"),
                Packet::AckEpoch { zxid, epoch, .. } => format!("ACKEPOCH {zxid} {epoch:?}"),
                Packet::Ping { zxid, touched } => format!("PING {zxid} {}", touched.len()),
                other => other.name().to_string(),
            }
        }
        Effect::DialLeader { addresses, .. } => format!("dial {}", addresses[0].host),
        Effect::SetAcceptedEpoch(epoch) => format!("acceptedEpoch {epoch}"),
        Effect::SetCurrentEpoch(epoch) => format!("currentEpoch {epoch}"),
        Effect::Log(records) => format!("log {}", zxids(records.iter().map(|record| record.zxid).collect())),
        Effect::Truncate { to, .. } => format!("truncate {to}"),
        Effect::ReadBack { from, to } => format!("read back {from} to {to}"),
        Effect::Install { state, .. } => format!("install {}", state.last_zxid()),
        Effect::Pipeline(ToPipeline::Deliver { txns }) => {
            format!("deliver {}", zxids(txns.iter().map(|txn| txn.header.zxid).collect()))
        }
        Effect::Pipeline(ToPipeline::Role(role)) => format!("{role:?}"),
        Effect::Pipeline(ToPipeline::Configs(configs)) => format!("told {}", configs.committed.version),
        Effect::SaveConfigs(configs) => match &configs.last_seen {
            Some(proposed) => format!("configs {}, {}", configs.committed.version, proposed.version),
            None => format!("configs {}", configs.committed.version),
        },
        Effect::Pipeline(ToPipeline::Forget) => "forget".into(),
        Effect::Pipeline(ToPipeline::TellTouched) => "touched?".into(),
        Effect::Pipeline(ToPipeline::Synced) => "synced".into(),
        Effect::Pipeline(ToPipeline::Revalidated { session, valid }) => format!("session {session} {valid}"),
        other => format!("{other:?}"),
    }
}

/// What is not committed at the end of the role.
fn left(learner: &mut Learner) -> Vec<Zxid> {
    let mut uncommitted = learner.take_uncommitted();
    std::iter::from_fn(|| uncommitted.take_kept()).map(|(_, record)| record.zxid).collect()
}

fn why(learner: &Learner) -> &str {
    learner.ended().expect("the role is over")
}

/// Connected, and told of epoch 2; the first packet of the synchronization is next.
fn greeted(observer: bool, last: Zxid) -> Learner {
    let mut learner = learner(observer, last);
    learner.on_leader_connected(LINK);
    learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: Some(ForeignEnds::new()) });
    learner.take_effects();
    learner
}

/// Synchronized by an empty DIFF, serving.
fn serving(observer: bool, last: Zxid) -> Learner {
    let mut learner = greeted(observer, last);
    for packet in [Packet::Diff { zxid: last }, new_leader(2), Packet::UpToDate] {
        learner.on_packet(packet);
    }
    learner.take_effects();
    assert!(learner.is_serving());
    learner
}

#[test]
fn a_promise_is_durable_before_it_is_given() {
    let mut learner = learner(false, z(1, 5));
    assert_eq!(done(&mut learner), ["dial host3"]);
    learner.on_leader_connected(LINK);
    let sent = learner.take_effects();
    let info = LearnerInfo {
        observer: false,
        accepted_epoch: 1,
        server: Some(ServerId(1)),
        protocol: 0x10000,
        config_version: 5,
        history: Some(HistoryEnd { epoch: 1, last: z(1, 5) }),
    };
    assert!(matches!(&sent[..], [Effect::Send { packet: Packet::LearnerInfo(sent), .. }] if *sent == info));
    learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    assert_eq!(done(&mut learner), ["acceptedEpoch 2", "ACKEPOCH 0x100000005 Some(1)"]);
    assert_eq!(learner.epochs(), Epochs { accepted: 2, current: 1 });
}

#[test]
fn an_epoch_promised_before_is_not_promised_again_and_an_older_one_never() {
    let mut same = learner(false, z(1, 5));
    same.on_leader_connected(LINK);
    same.take_effects();
    same.on_packet(Packet::LeaderInfo { epoch: 1, ours: None });
    assert_eq!(done(&mut same), ["ACKEPOCH 0x100000005 None"]);

    let mut older = learner(false, z(1, 5));
    older.epochs.accepted = 3;
    older.on_leader_connected(LINK);
    older.take_effects();
    older.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    assert!(why(&older).contains("older than 0x3"));
    assert_eq!(older.take_refusal(), None, "a promise is no history");
    assert_eq!(done(&mut older), [""; 0]);
}

#[test]
fn a_leader_that_refuses_is_dialed_again_and_given_up_on_long_before_the_budget() {
    let mut learner = learner(false, Zxid::ZERO);
    let mut dials = 0;
    let mut now_ms = 0;
    while learner.ended().is_none() {
        dials += done(&mut learner).iter().filter(|effect| *effect == "dial host3").count();
        learner.on_leader_unreachable("host3:1: refused");
        now_ms = learner.next_deadline_ms().min(now_ms + 100);
        learner.set_time(now_ms);
        learner.tick();
    }
    assert!((20..=26).contains(&dials), "{dials}");
    assert!(why(&learner).contains("does not take connections") && why(&learner).ends_with("host3:1: refused"));
    assert_eq!(learner.next_deadline_ms(), i64::MAX);
}

#[test]
fn a_leader_that_does_not_answer_is_given_up_on_when_the_budget_is_spent() {
    let mut learner = learner(false, Zxid::ZERO);
    assert_eq!(learner.next_deadline_ms(), TIMING.connect_ms);
    learner.set_time(TIMING.connect_ms);
    learner.tick();
    assert!(why(&learner).contains("10000 ms"));
    learner.take_effects();
    learner.on_leader_connected(LINK);
    assert!(matches!(&learner.take_effects()[..], [Effect::Close { link: LINK, .. }]));
}

/// An observer of an ensemble whose followers take observers at port 2191.
fn observer_of_followers(timing: Timing, now_ms: i64) -> Learner {
    let rules = PeerRules { observer_master_port: Some(2191), ..PeerRules::from(timing) };
    let history = CommittedLog::new(z(1, 5), Vec::new());
    Learner::new(ServerId(4), true, ServerId(3), configs(), rules, EPOCHS, history, z(1, 5), now_ms)
}

fn dialed(learner: &mut Learner) -> Option<(String, u16)> {
    learner.take_effects().into_iter().find_map(|effect| match effect {
        Effect::DialLeader { addresses, .. } => Some((addresses[0].host.clone(), addresses[0].quorum_port)),
        _ => None,
    })
}

#[test]
fn an_observer_dials_the_followers_in_turn_and_the_leader_last() {
    let mut firsts = Vec::new();
    for begun_ms in [0, 1] {
        let mut learner = observer_of_followers(TIMING, begun_ms);
        let mut dials = Vec::new();
        while learner.ended().is_none() {
            let (master, after_ms) = (learner.master(), learner.now_ms - begun_ms);
            dials.extend(dialed(&mut learner).map(|(host, port)| (host, port, master, after_ms)));
            learner.on_leader_unreachable("refused");
            learner.set_time(learner.next_deadline_ms());
            learner.tick();
        }
        let (early, late): (Vec<_>, Vec<_>) = dials.iter().partition(|(.., after_ms)| *after_ms < 2000);
        let of = |dials: &[&(String, u16, ServerId, i64)]| dials.iter().map(|d| (d.2, d.1)).collect::<BTreeSet<_>>();
        let followers = [(ServerId(1), 2191), (ServerId(2), 2191)];
        assert_eq!(of(&early), BTreeSet::from(followers), "they may still open that port");
        let all = BTreeSet::from([followers[0], followers[1], (ServerId(3), 2888)]);
        assert_eq!(of(&late[..3]), all, "the leader has not that port");
        let expected = "neither does a follower take connections at port 2191, nor the leader on its quorum port (";
        assert!(why(&learner).starts_with(expected), "{}", why(&learner));
        firsts.push(dials[0].0.clone());
    }
    firsts.sort();
    assert_eq!(firsts, ["host1", "host2"], "who begins depends on the time");
}

/// Who is to get a vote is an observer until then, and nobody may be elected without it.
#[test]
fn an_observer_dials_the_leader_while_that_waits_for_a_quorum() {
    let mut learner = observer_of_followers(Timing { init_ms: 1000, ..TIMING }, 0);
    while dialed(&mut learner).is_some_and(|(_, port)| port == 2191) {
        learner.on_leader_unreachable("refused");
        learner.set_time(learner.next_deadline_ms());
        learner.tick();
    }
    assert_eq!((learner.master(), learner.ended()), (ServerId(3), None));
    assert!((500..900).contains(&learner.now_ms), "{} ms", learner.now_ms);
}

#[test]
fn followers_that_do_not_answer_do_not_take_the_time_in_which_an_observer_finds_the_leader() {
    let mut learner = observer_of_followers(TIMING, 0);
    for dial in 1..=3 {
        assert_eq!(dialed(&mut learner).map(|(_, port)| port), Some(if dial == 3 { 2888 } else { 2191 }));
        // Until then it is for the shell to give up a dial.
        assert_eq!(learner.next_deadline_ms() == i64::MAX, dial < 3);
        if dial < 3 {
            learner.set_time(i64::from(dial) * TIMING.connect_ms);
            learner.on_leader_unreachable("no answer");
            learner.set_time(learner.next_deadline_ms());
            learner.tick();
        }
    }
    learner.on_leader_connected(LINK);
    assert_eq!((done(&mut learner), learner.master()), (vec!["OBSERVERINFO".to_string()], ServerId(3)));
}

#[test]
fn an_observer_that_knows_no_address_of_the_leader_still_dials_the_followers() {
    let mut configs = configs();
    configs.committed.servers.remove(&3);
    let rules = PeerRules { observer_master_port: Some(2191), ..PeerRules::from(TIMING) };
    let history = || CommittedLog::new(z(1, 5), Vec::new());
    let begin = |configs| Learner::new(ServerId(4), true, ServerId(3), configs, rules, EPOCHS, history(), z(1, 5), 0);
    let mut learner = begin(configs.clone());
    let mut hosts = Vec::new();
    for _ in 0..4 {
        hosts.extend(dialed(&mut learner).map(|(host, _)| host));
        learner.on_leader_unreachable("refused");
        learner.set_time(learner.next_deadline_ms());
        learner.tick();
    }
    assert_eq!(hosts, ["host1", "host2", "host1", "host2"]);
    configs.committed.servers.clear();
    assert_eq!(why(&begin(configs)), "no configuration has its address");
}

#[test]
fn newleader_is_acknowledged_when_the_history_and_the_epoch_are_durable() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Diff { zxid: z(1, 7) });
    for zxid in [z(1, 6), z(1, 7)] {
        learner.on_packet(propose(zxid));
        learner.on_packet(commit(zxid));
    }
    learner.on_packet(new_leader(2));
    assert_eq!(
        done(&mut learner),
        ["log 0x100000006 0x100000007", "deliver 0x100000006 0x100000007"],
        "one batch, logged before it is applied"
    );
    learner.on_inner(ToQuorum::Durable { zxid: z(1, 6), at_us: 0 });
    assert_eq!(done(&mut learner), [""; 0]);
    assert_eq!(learner.epochs().current, 1);
    learner.on_inner(ToQuorum::Durable { zxid: z(1, 7), at_us: 0 });
    assert_eq!(done(&mut learner), ["currentEpoch 2", "ACK 0x200000000"]);
    assert_eq!(learner.epochs().current, 2);
    assert!(!learner.is_serving());
    learner.on_packet(Packet::UpToDate);
    assert_eq!(done(&mut learner), ["Following", "ACK 0x200000000"]);
    assert!(learner.is_serving());
    assert_eq!(learner.committed_log().last(), z(1, 7));
}

#[test]
fn the_acknowledgement_of_newleader_is_the_first() {
    let mut learner = greeted(false, z(1, 5));
    // Committed, outstanding since before NEWLEADER, and proposed after it.
    for packet in [
        Packet::Diff { zxid: z(1, 6) },
        propose(z(1, 6)),
        commit(z(1, 6)),
        propose(z(2, 1)),
        propose(z(2, 2)),
        new_leader(2),
        propose(z(2, 3)),
    ] {
        learner.on_packet(packet);
    }
    learner.take_effects();
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 1), at_us: 0 });
    assert_eq!(done(&mut learner), [""; 0]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 2), at_us: 0 });
    assert_eq!(done(&mut learner), ["currentEpoch 2", "ACK 0x200000000", "ACK 0x200000001", "ACK 0x200000002"]);
    // The commit of a proposal from before NEWLEADER, before UPTODATE: where released learners fall over.
    learner.on_packet(commit(z(2, 1)));
    learner.on_packet(Packet::UpToDate);
    assert_eq!(done(&mut learner), ["deliver 0x200000001", "Following", "ACK 0x200000000"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 3), at_us: 0 });
    assert_eq!(done(&mut learner), ["ACK 0x200000003"]);
    learner.on_packet(commit(z(2, 2)));
    learner.on_packet(commit(z(2, 3)));
    assert_eq!(done(&mut learner), ["deliver 0x200000002 0x200000003"]);
}

#[test]
fn the_state_is_exact_from_what_was_proposed_before_the_synchronization_ended() {
    let mut learner = greeted(false, z(1, 5));
    let proposals = [propose(z(1, 6)), propose(z(1, 7))];
    for packet in [Packet::Diff { zxid: z(1, 5) }].into_iter().chain(proposals).chain([new_leader(2)]) {
        learner.on_packet(packet);
    }
    let exact: Vec<Zxid> = learner
        .take_effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Pipeline(ToPipeline::ExactFrom(zxid)) => Some(zxid),
            _ => None,
        })
        .collect();
    assert_eq!(exact, [z(1, 7)], "committed or not");
}

#[test]
fn a_joint_of_which_the_leader_tells_nothing_is_watched_before_anything_follows() {
    let joints = |learner: &mut Learner| {
        let joint = |effect| match effect {
            Effect::Pipeline(ToPipeline::Joined(zxid)) => Some(zxid),
            Effect::Pipeline(ToPipeline::Deliver { .. }) => panic!("delivered before"),
            _ => None,
        };
        learner.take_effects().into_iter().filter_map(joint).collect::<Vec<Zxid>>()
    };
    let told = |compares: bool, last, packet| {
        let mut learner = learner(false, last);
        learner.on_leader_connected(LINK);
        learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: compares.then(ForeignEnds::new) });
        learner.on_packet(packet);
        learner
    };
    let mut diff = told(false, z(1, 5), Packet::Diff { zxid: z(1, 6) });
    assert_eq!(joints(&mut diff), [z(1, 5)]);
    let mut trunc = told(false, z(1, 5), Packet::Trunc { zxid: z(1, 3) });
    trunc.on_packet(propose(z(2, 1)));
    trunc.on_packet(commit(z(2, 1)));
    assert_eq!(joints(&mut trunc), []);
    trunc.on_truncated(Ok(z(1, 3)));
    let effects = trunc.take_effects();
    assert!(matches!(effects[0], Effect::Pipeline(ToPipeline::Joined(at)) if at == z(1, 3)), "{effects:?}");
    // One that compares, a server without a history, and a snapshot.
    assert_eq!(joints(&mut told(true, z(1, 5), Packet::Diff { zxid: z(1, 6) })), []);
    assert_eq!(joints(&mut told(false, Zxid::ZERO, Packet::Diff { zxid: z(1, 6) })), []);
    let mut snap = told(false, z(1, 5), Packet::Snap { zxid: z(1, 9), told: None });
    snap.on_snapshot(state(z(1, 9)));
    snap.on_inner(ToQuorum::Installed { zxid: z(1, 9) });
    assert_eq!(joints(&mut snap), []);
}

#[test]
fn behind_a_joint_of_which_the_leader_tells_nothing_newleader_is_acknowledged_when_the_digests_had_their_say() {
    let joined = |last, packets: Vec<Packet>| {
        let mut learner = learner(false, last);
        learner.on_leader_connected(LINK);
        learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
        learner.take_effects();
        let packets = [vec![Packet::Diff { zxid: last }], packets, vec![new_leader(2)]].concat();
        packets.into_iter().for_each(|packet| learner.on_packet(packet));
        learner
    };
    let acknowledged = ["currentEpoch 2", "ACK 0x200000000"];
    let sent = vec![propose(z(1, 6)), commit(z(1, 6)), propose(z(1, 7))];
    // Either may be done first.
    for durable_first in [true, false] {
        let mut learner = joined(z(1, 5), sent.clone());
        let expected = ["log 0x100000006 0x100000007", "deliver 0x100000006", "Pipeline(CatchUp)"];
        assert_eq!(done(&mut learner), expected, "what is not committed is not waited for");
        let done_by = [ToQuorum::Durable { zxid: z(1, 7), at_us: 0 }, ToQuorum::CaughtUp];
        let mut mails = if durable_first { Vec::from(done_by) } else { done_by.into_iter().rev().collect() };
        learner.on_inner(mails.remove(0));
        assert_eq!(done(&mut learner), [""; 0]);
        assert_eq!(learner.epochs().current, 1);
        learner.on_inner(mails.remove(0));
        assert_eq!(done(&mut learner), ["currentEpoch 2", "ACK 0x200000000", "ACK 0x100000007"]);
    }
    // Nothing came: the pipeline says so at once. A server without a history has no joint.
    let mut nothing = joined(z(1, 5), Vec::new());
    assert_eq!(done(&mut nothing), ["Pipeline(CatchUp)"]);
    nothing.on_inner(ToQuorum::CaughtUp);
    assert_eq!(done(&mut nothing), acknowledged);
    assert_eq!(done(&mut joined(Zxid::ZERO, Vec::new())), acknowledged);
}

#[test]
fn the_old_state_goes_before_a_snapshot_comes() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    assert_eq!(done(&mut learner), ["forget"]);
    assert!(!learner.wants_packets() && learner.is_hollow());
    assert_eq!(learner.next_deadline_ms(), i64::MAX, "that takes as long as it takes");
    learner.set_time(60_000);
    learner.on_inner(ToQuorum::Forgotten);
    assert!(learner.wants_packets() && learner.next_deadline_ms() > 60_000);
    learner.on_snapshot(state(z(1, 9)));
    assert!(!learner.is_hollow());
    // Without a state there is nothing to forget.
    let mut empty = greeted(false, Zxid::ZERO);
    empty.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    assert!(done(&mut empty).is_empty() && empty.wants_packets());
}

#[test]
fn what_follows_a_snapshot_waits_until_the_snapshot_is_durable() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    learner.on_snapshot(state(z(1, 9)));
    // Transactions went on while the snapshot was sent: those up to its zxid are in it.
    for zxid in [z(1, 8), z(1, 9), z(1, 10)] {
        learner.on_packet(propose(zxid));
        learner.on_packet(commit(zxid));
    }
    learner.on_packet(new_leader(2));
    assert_eq!(done(&mut learner), ["forget", "install 0x100000009"]);
    assert!(learner.is_replacing() && !learner.wants_packets());
    learner.on_inner(ToQuorum::Installed { zxid: z(1, 9) });
    assert_eq!(done(&mut learner), ["log 0x10000000a", "deliver 0x10000000a"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(1, 10), at_us: 0 });
    assert_eq!(done(&mut learner), ["currentEpoch 2", "ACK 0x200000000"]);
}

#[test]
fn a_fresh_leader_sends_a_snapshot_as_of_the_start_of_its_epoch() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Snap { zxid: z(2, 0), told: None });
    learner.on_snapshot(state(z(2, 0)));
    learner.on_inner(ToQuorum::Installed { zxid: z(2, 0) });
    for packet in [new_leader(2), Packet::UpToDate, propose(z(2, 1))] {
        learner.on_packet(packet);
    }
    let tail = ["currentEpoch 2", "ACK 0x200000000", "Following", "ACK 0x200000000", "log 0x200000001"];
    assert_eq!(done(&mut learner)[2..], tail);
}

#[test]
fn what_is_truncated_is_gone_before_anything_follows() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Trunc { zxid: z(1, 3) });
    learner.on_packet(propose(z(2, 1)));
    assert_eq!(done(&mut learner), ["truncate 0x100000003"]);
    learner.on_truncated(Ok(z(1, 3)));
    assert_eq!(done(&mut learner), ["log 0x200000001"]);
    assert_eq!(learner.last(), z(2, 1));
}

#[test]
fn a_truncation_to_what_is_not_in_the_log_makes_the_learner_ask_for_a_snapshot() {
    let outcomes: [fn(&mut Learner); 3] = [
        |learner| learner.on_packet(Packet::Trunc { zxid: z(1, 6) }),
        |learner| {
            learner.on_packet(Packet::Trunc { zxid: z(1, 3) });
            learner.on_truncated(Ok(z(1, 2)));
        },
        |learner| {
            learner.on_packet(Packet::Trunc { zxid: z(1, 3) });
            learner.on_truncated(Err("the oldest snapshot is newer".into()));
        },
    ];
    for outcome in outcomes {
        let mut learner = greeted(false, z(1, 5));
        outcome(&mut learner);
        assert!(why(&learner).contains("a snapshot will be asked for"));
        assert!(learner.needs_snapshot());
    }
}

#[test]
fn a_gap_in_the_history_is_healed_by_a_snapshot() {
    // A leader's log can have a gap where that leader itself got a snapshot.
    for gap in [z(1, 7), z(2, 2), z(1, 4_294_967_296 - 1)] {
        let mut learner = greeted(false, z(1, 5));
        learner.on_packet(Packet::Diff { zxid: gap });
        learner.on_packet(propose(gap));
        learner.on_packet(commit(gap));
        assert!(why(&learner).contains("missing"));
        assert!(learner.needs_snapshot());
        assert_eq!(done(&mut learner), [""; 0]);
    }
    let mut next = learner(false, z(1, 5));
    next.ask_for_snapshot();
    next.on_leader_connected(LINK);
    next.take_effects();
    next.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    assert_eq!(done(&mut next), ["acceptedEpoch 2", "ACKEPOCH 0x0 Some(1)"]);
    next.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    next.on_snapshot(state(z(1, 9)));
    assert!(next.needs_snapshot());
    next.on_inner(ToQuorum::Installed { zxid: z(1, 9) });
    assert!(!next.needs_snapshot());
}

#[test]
fn a_server_that_cannot_read_its_history_counts_when_it_has_the_leaders() {
    let distrusted = |epochs: Epochs, told: Packet| {
        let mut learner = learner(false, z(1, 5));
        learner.epochs = epochs;
        learner.distrust_history();
        learner.on_leader_connected(LINK);
        learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
        learner.take_effects();
        learner.on_packet(told);
        learner
    };
    for packet in [Packet::Diff { zxid: z(1, 5) }, Packet::Trunc { zxid: z(1, 4) }] {
        assert!(why(&distrusted(EPOCHS, packet)).contains("expected SNAP"));
    }
    let mut promises = learner(false, Zxid::ZERO);
    promises.distrust_history();
    promises.on_leader_connected(LINK);
    promises.take_effects();
    promises.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    assert_eq!(done(&mut promises), ["acceptedEpoch 2", "ACKEPOCH 0xffffffffffffffff None"]);
    // Also when it comes back to the leader that it had: the epoch says that the history is here.
    for epochs in [EPOCHS, Epochs { accepted: 2, current: 2 }] {
        let mut learner = distrusted(epochs, Packet::Snap { zxid: z(1, 9), told: None });
        learner.on_snapshot(state(z(1, 9)));
        learner.on_inner(ToQuorum::Installed { zxid: z(1, 9) });
        learner.on_packet(new_leader(2));
        assert_eq!(done(&mut learner), ["forget", "install 0x100000009", "currentEpoch 2", "ACK 0x200000000"]);
    }
}

/// A learner with records of these zxids, whose leader says the rest.
fn with_history(zxids: &[Zxid], current: u32, says: &[Packet]) -> Learner {
    let last = *zxids.last().unwrap();
    let mut history = CommittedLog::new(zxids[0], Vec::new());
    zxids[1..].iter().for_each(|zxid| history.push(LogRecord { zxid: *zxid, payload: write(*zxid) }));
    let mut learner = learner(false, last);
    (learner.committed_log, learner.epochs) = (history, Epochs { accepted: current, current });
    learner.on_leader_connected(LINK);
    learner.on_packet(Packet::LeaderInfo { epoch: 9, ours: None });
    learner.take_effects();
    says.iter().for_each(|packet| learner.on_packet(packet.clone()));
    learner
}

fn snap(zxid: Zxid, relation: Relation, established: bool) -> Packet {
    Packet::Snap { zxid, told: Some(Told { relation, established }) }
}

#[test]
fn no_more_than_the_end_of_the_last_epoch_is_given_up_without_an_operator() {
    let zxids = [z(1, 4), z(1, 5), z(3, 1), z(3, 2)];
    let (parted, differs) = (|at| Relation::Parted { at }, |at| Relation::Differs { at });
    let refused = |packet: Packet| {
        let mut learner = with_history(&zxids, 3, &[packet]);
        learner.take_refusal().map(|refusal| refusal.kind)
    };
    assert_eq!(refused(Packet::Trunc { zxid: z(3, 1) }), None);
    assert_eq!(refused(Packet::Trunc { zxid: z(1, 5) }), None, "all of an epoch that came to nothing");
    assert_eq!(refused(Packet::Trunc { zxid: z(1, 4) }), Some(RefusalKind::Candidate));
    assert_eq!(refused(snap(z(8, 9), Relation::Contained, false)), None);
    assert_eq!(refused(snap(z(8, 9), Relation::Unknown, false)), None, "it may only have been away for long");
    assert_eq!(refused(snap(z(1, 4), Relation::Unknown, true)), Some(RefusalKind::Established));
    assert_eq!(refused(snap(z(8, 9), parted(z(1, 4)), true)), Some(RefusalKind::Established));
    assert_eq!(refused(snap(z(8, 9), differs(z(1, 4)), true)), Some(RefusalKind::Established));
    // Another history: that of a quorum which serves, or one that needs this server to be one.
    assert_eq!(refused(snap(z(8, 9), differs(z(3, 2)), true)), None);
    assert_eq!(refused(snap(z(8, 9), differs(z(3, 2)), false)), Some(RefusalKind::Candidate));
    let absent = |below| snap(z(8, 9), Relation::Absent { below }, false);
    assert_eq!(refused(absent(z(3, 1))), None, "nothing tells, and it looks like the end of an epoch");
    assert_eq!(refused(absent(z(1, 4))), Some(RefusalKind::Candidate));
    // What was committed while this server listened is not only the end of an epoch.
    let mut learner = with_history(&zxids, 3, &[]);
    learner.committed_log.know_agreed();
    learner.on_packet(Packet::Trunc { zxid: z(3, 1) });
    assert_eq!(learner.take_refusal().map(|refusal| refusal.kind), Some(RefusalKind::Candidate));
    assert_eq!(done(&mut learner), [""; 0]);
    // But what the leader proposed in its own reign it may take back, for all that was said of commits: an Apache leader
    // tells a learner that comes back of what it has applied.
    let mut learner = with_history(&[z(8, 5), z(9, 1), z(9, 2)], 9, &[]);
    learner.committed_log.know_agreed();
    learner.on_packet(Packet::Trunc { zxid: z(9, 1) });
    assert_eq!(learner.take_refusal(), None);
}

#[test]
fn a_server_that_was_alone_gives_nothing_up_until_an_operator_says_so() {
    let zxids: Vec<Zxid> = (1..=20).map(Zxid).collect();
    for packet in [
        Packet::Trunc { zxid: Zxid(3) },
        Packet::Trunc { zxid: Zxid(0) },
        snap(z(8, 9), Relation::Unknown, true),
        snap(z(8, 9), Relation::Differs { at: Zxid(20) }, true),
    ] {
        let mut learner = with_history(&zxids, 0, std::slice::from_ref(&packet));
        let refusal = learner.take_refusal().unwrap();
        assert!(refusal.why.contains("not known to have the 20 transactions, up to 0x14,"), "{}", refusal.why);
        assert!(refusal.why.contains("create the empty file give-up-history"), "{}", refusal.why);
        let mut consents = with_history(&zxids, 0, &[]);
        consents.give_up();
        consents.on_packet(packet);
        assert_eq!((consents.take_refusal(), consents.ended()), (None, None));
    }
    // A leader that has its history is followed.
    assert_eq!(with_history(&zxids, 0, &[snap(z(8, 9), Relation::Contained, true)]).ended(), None);
}

#[test]
fn what_becomes_of_a_replaced_history_depends_on_what_is_proven() {
    let zxids = [z(1, 4), z(1, 5), z(3, 1), z(3, 2)];
    let dropped = |packet: Packet, tree: Option<u64>| {
        let mut learner = with_history(&zxids, 3, &[packet]);
        if let Some(tree) = tree {
            learner.committed_log.reset(z(3, 2));
            learner.committed_log.know_last(Some(tree));
        }
        let zxid = match learner.phase {
            Phase::Stream { zxid } => zxid,
            _ => Zxid::ZERO,
        };
        learner.on_snapshot(state(zxid));
        learner.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Install { dropped, .. } | Effect::Truncate { dropped, .. } => Some(dropped),
            _ => None,
        })
    };
    assert_eq!(dropped(Packet::Trunc { zxid: z(3, 1) }, None), Some(Dropped::Tail));
    assert_eq!(dropped(snap(z(8, 9), Relation::Contained, true), None), Some(Dropped::Contained));
    assert_eq!(dropped(snap(z(8, 9), Relation::Unknown, true), None), Some(Dropped::Unproven));
    // A leader of Apache says nothing; if its tree is this server's, nothing is lost.
    let silent = Packet::Snap { zxid: z(8, 0), told: None };
    assert_eq!(dropped(silent.clone(), None), Some(Dropped::Unproven));
    assert_eq!(dropped(silent, Some(state(z(8, 0)).tree_digest())), Some(Dropped::Contained));
}

#[test]
fn a_leader_of_an_earlier_epoch_than_the_history_here_is_not_followed() {
    let mut learner = learner(false, z(1, 5));
    learner.epochs = Epochs { accepted: 3, current: 3 };
    learner.on_leader_connected(LINK);
    learner.take_effects();
    learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    let refusal = learner.take_refusal().unwrap();
    assert_eq!(refusal.kind, RefusalKind::LaterHistory);
    assert!(refusal.why.contains("a majority of the servers lost its data"), "{}", refusal.why);
}

#[test]
fn records_that_fit_nowhere_are_refused_where_a_snapshot_was_asked_for() {
    let mut learner = learner(false, z(1, 5));
    learner.ask_for_snapshot();
    learner.on_leader_connected(LINK);
    learner.on_packet(Packet::LeaderInfo { epoch: 2, ours: None });
    learner.on_packet(Packet::Diff { zxid: z(1, 5) });
    assert!(why(&learner).contains("expected SNAP"));
    assert!(learner.needs_snapshot());
}

#[test]
fn what_cannot_be_read_is_not_acknowledged_and_ends_the_role() {
    // A check outside a multi: released servers log it and are lost.
    let check = payload(z(2, 2), TxnBody::Unknown { kind: 13 });
    for payload in [check, Vec::new(), write(z(2, 3))] {
        let mut learner = serving(false, z(1, 5));
        learner.on_packet(propose(z(2, 1)));
        learner.on_packet(Packet::Proposal { zxid: z(2, 2), payload });
        assert!(why(&learner).contains("transaction 0x200000002"));
        assert_eq!(done(&mut learner), ["log 0x200000001"]);
        learner.on_inner(ToQuorum::Durable { zxid: z(2, 1), at_us: 0 });
        assert_eq!(done(&mut learner), [""; 0]);
        assert_eq!(left(&mut learner), [z(2, 1)]);
    }
}

#[test]
fn proposals_are_acknowledged_one_by_one_when_durable_and_delivered_when_committed() {
    let mut learner = serving(false, z(1, 5));
    for counter in 1..=3 {
        learner.on_packet(propose(z(2, counter)));
    }
    assert_eq!(done(&mut learner), ["log 0x200000001 0x200000002 0x200000003"]);
    // A quorum without this server is enough.
    learner.on_packet(commit(z(2, 1)));
    assert_eq!(done(&mut learner), ["deliver 0x200000001"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 2), at_us: 0 });
    assert_eq!(done(&mut learner), ["ACK 0x200000001", "ACK 0x200000002"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 3), at_us: 0 });
    assert_eq!(done(&mut learner), ["ACK 0x200000003"]);
}

#[test]
fn what_is_logged_and_not_committed_is_applied_when_the_role_ends() {
    let mut learner = serving(false, z(1, 5));
    for packet in [propose(z(2, 1)), propose(z(2, 2)), commit(z(2, 1))] {
        learner.on_packet(packet);
    }
    learner.on_link_closed();
    assert_eq!(done(&mut learner), ["log 0x200000001 0x200000002", "deliver 0x200000001"]);
    assert_eq!(left(&mut learner), [z(2, 2)]);
    assert_eq!(learner.last(), z(2, 2));
    assert_eq!(learner.committed_log().last(), z(2, 1), "the rest belongs to it once it is delivered");
}

#[test]
fn what_the_log_has_is_let_go_of_memory_and_read_back_for_its_commit() {
    let mut learner = serving(false, z(1, 5));
    // Room for one.
    let record = LogRecord { zxid: z(2, 1), payload: write(z(2, 1)) };
    learner.uncommitted = Uncommitted::new(record.bytes());
    (1..=4).for_each(|counter| learner.on_packet(propose(z(2, counter))));
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 3), at_us: 0 });
    done(&mut learner);
    // The oldest are let go as long as there is too much; what is not durable stays.
    learner.on_packet(commit(z(2, 1)));
    learner.on_packet(commit(z(2, 2)));
    learner.on_packet(propose(z(2, 5)));
    assert_eq!(done(&mut learner), ["read back 0x200000001 to 0x200000003"]);
    learner.set_time(50_000);
    assert!(!learner.wants_packets() && learner.next_deadline_ms() == i64::MAX, "this server's own disk is waited for");
    learner.on_read_back(
        (1..=3).map(|counter| LogRecord { zxid: z(2, counter), payload: write(z(2, counter)) }).collect(),
    );
    assert_eq!(done(&mut learner), ["log 0x200000005", "deliver 0x200000001 0x200000002"]);
    assert!(learner.wants_packets() && learner.next_deadline_ms() > 50_000);
    // What is left may be read back by whoever goes on behind the role.
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 5), at_us: 0 });
    learner.on_link_closed();
    let mut uncommitted = learner.take_uncommitted();
    assert_eq!(uncommitted.take_kept().map(|(_, record)| record.zxid), Some(z(2, 3)));
    assert_eq!(uncommitted.read_back(), Some((z(2, 4), z(2, 5))));
    assert_eq!(uncommitted.read_back(), None, "once");
}

#[test]
fn commits_out_of_order_and_gaps_end_the_role() {
    for (packets, reason) in [
        (vec![propose(z(2, 1)), propose(z(2, 2)), commit(z(2, 2))], "0x200000001 is the next"),
        (vec![commit(z(2, 1))], "nothing proposed"),
        (vec![propose(z(2, 1)), commit(z(2, 1)), commit(z(2, 1))], "nothing proposed"),
        (vec![propose(z(2, 1)), propose(z(2, 3))], "missing"),
        (vec![propose(z(2, 1)), propose(z(2, 1))], "repeated"),
        (vec![propose(z(3, 1))], "not of its epoch"),
        (vec![propose(z(1, 6))], "not of its epoch"),
        (vec![Packet::Snap { zxid: z(2, 1), told: None }], "in the middle"),
        (vec![new_leader(2)], "second NEWLEADER"),
    ] {
        let mut learner = serving(false, z(1, 5));
        packets.into_iter().for_each(|packet| learner.on_packet(packet));
        assert!(why(&learner).contains(reason), "{}", why(&learner));
        assert!(!learner.needs_snapshot());
    }
}

#[test]
fn packets_in_the_wrong_place_end_the_role() {
    for (packet, reason) in [
        (Packet::Ping { zxid: z(2, 0), touched: Vec::new() }, "expected DIFF, TRUNC or SNAP, got PING"),
        (propose(z(1, 6)), "got PROPOSAL"),
        (Packet::Unknown { kind: 99 }, "expected DIFF"),
        (Packet::Snap { zxid: z(3, 1), told: None }, "beyond its epoch"),
    ] {
        let mut learner = greeted(false, z(1, 5));
        learner.on_packet(packet);
        assert!(why(&learner).contains(reason), "{}", why(&learner));
    }
    let mut old = learner(false, z(1, 5));
    old.on_leader_connected(LINK);
    old.on_packet(new_leader(2));
    assert!(why(&old).contains("expected LEADERINFO, got NEWLEADER"));

    for (packet, reason) in [(Packet::UpToDate, "before ACK(NEWLEADER)"), (new_leader(3), "not of its epoch")] {
        let mut learner = greeted(false, z(1, 5));
        learner.on_packet(Packet::Diff { zxid: z(1, 5) });
        learner.on_packet(packet);
        assert!(why(&learner).contains(reason), "{}", why(&learner));
    }
    let mut torn = greeted(false, z(1, 5));
    torn.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    torn.on_snapshot(state(z(1, 8)));
    assert!(why(&torn).contains("SNAP says"));
}

#[test]
fn a_ping_is_answered_with_the_sessions_heard_of_or_when_the_next_one_comes() {
    let mut learner = serving(false, z(1, 5));
    let ping = |counter| Packet::Ping { zxid: z(2, counter), touched: Vec::new() };
    learner.on_packet(ping(0));
    assert_eq!(done(&mut learner), ["touched?"]);
    learner.on_inner(ToQuorum::Touched(vec![(SessionId(1), 4000)]));
    assert_eq!(done(&mut learner), ["PING 0x200000000 1"]);
    // The pipeline is slow: it is asked once, and the leader need not wait for it.
    for counter in 1..=3 {
        learner.on_packet(ping(counter));
    }
    assert_eq!(done(&mut learner), ["touched?", "PING 0x200000001 0", "PING 0x200000002 0"]);
    learner.on_inner(ToQuorum::Touched(vec![(SessionId(1), 4000), (SessionId(2), 4000)]));
    learner.on_inner(ToQuorum::Touched(Vec::new()));
    assert_eq!(done(&mut learner), ["PING 0x200000003 2"]);
    // They say how far the leader is, whatever of it came.
    assert_eq!(learner.leaders_last(), Some(z(2, 3)));
}

#[test]
fn before_uptodate_pings_and_unknown_packets_are_passed_over() {
    let mut learner = greeted(false, z(1, 5));
    for packet in [
        Packet::Diff { zxid: z(1, 5) },
        Packet::Ping { zxid: z(2, 0), touched: Vec::new() },
        Packet::Unknown { kind: 99 },
        Packet::Revalidated { session: SessionId(1), valid: true },
        inform(z(2, 1)),
    ] {
        learner.on_packet(packet);
    }
    assert_eq!(learner.ended(), None);
    assert_eq!(done(&mut learner), [""; 0]);
}

#[test]
fn requests_go_to_the_leader_and_a_sync_is_done_after_the_commits_before_it() {
    let mut learner = serving(false, z(1, 5));
    let request = |op: OpCode| {
        let body = Vec::new();
        ToQuorum::Forward(ForwardedRequest { session: SessionId(1), cxid: 1, op: op as i32, body, auth: None })
    };
    learner.on_packet(Packet::Sync);
    assert_eq!(done(&mut learner), [""; 0], "nobody asked");
    learner.on_inner(request(OpCode::Create));
    learner.on_inner(request(OpCode::Sync));
    learner.on_inner(ToQuorum::Revalidate { session: SessionId(2), timeout_ms: 4000 });
    assert_eq!(done(&mut learner), ["REQUEST", "REQUEST", "REVALIDATE"]);
    for packet in [
        propose(z(2, 1)),
        commit(z(2, 1)),
        Packet::Sync,
        Packet::Revalidated { session: SessionId(2), valid: false },
        Packet::Sync,
    ] {
        learner.on_packet(packet);
    }
    assert_eq!(done(&mut learner), ["log 0x200000001", "deliver 0x200000001", "synced", "session 0x2 false"]);
}

#[test]
fn an_observer_logs_and_delivers_what_it_is_informed_of_and_acknowledges_no_proposal() {
    let mut learner = greeted(true, z(1, 5));
    for packet in [Packet::Diff { zxid: z(1, 6) }, propose(z(1, 6)), commit(z(1, 6)), new_leader(2), inform(z(2, 1))] {
        learner.on_packet(packet);
    }
    assert_eq!(done(&mut learner), ["log 0x100000006 0x200000001", "deliver 0x100000006 0x200000001"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 1), at_us: 0 });
    learner.on_packet(Packet::UpToDate);
    assert_eq!(done(&mut learner), ["currentEpoch 2", "ACK 0x200000000", "Observing", "ACK 0x200000000"]);
    learner.on_packet(inform(z(2, 2)));
    learner.on_packet(inform(z(2, 3)));
    assert_eq!(done(&mut learner), ["log 0x200000002 0x200000003", "deliver 0x200000002 0x200000003"]);
    learner.on_inner(ToQuorum::Durable { zxid: z(2, 3), at_us: 0 });
    assert_eq!(done(&mut learner), [""; 0]);
}

#[test]
fn an_observer_that_skips_its_log_waits_for_no_disk() {
    let mut learner = greeted(true, z(1, 5));
    learner.skip_log();
    for packet in [Packet::Diff { zxid: z(1, 6) }, propose(z(1, 6)), commit(z(1, 6)), new_leader(2)] {
        learner.on_packet(packet);
    }
    assert_eq!(done(&mut learner), ["deliver 0x100000006", "currentEpoch 2", "ACK 0x200000000"]);
}

/// A reconfiguration of these participants and observers, as it is proposed.
fn reconfig(zxid: Zxid, participants: &[i64], observers: &[i64]) -> Vec<u8> {
    let line = |id: &i64, role: PeerRole| (*id, server(*id, role));
    let voters = participants.iter().map(|id| line(id, PeerRole::Participant));
    let servers = voters.chain(observers.iter().map(|id| line(id, PeerRole::Observer))).collect();
    let members = Members { servers, rule: QuorumRule::Majority, version: zxid.0 };
    let data = Some(members.to_string().into_bytes());
    payload(zxid, TxnBody::Reconfig(SetDataTxn { path: "/zookeeper/config".into(), data, version: -1 }))
}

/// Serving, where members may change.
fn changeable(observer: bool) -> Learner {
    let mut learner = serving(observer, z(1, 5));
    learner.configs.reconfig_enabled = true;
    learner
}

#[test]
fn a_proposed_configuration_is_on_disk_before_it_is_logged_and_in_force_once_committed() {
    let (zxid, designated) = (z(2, 1), ServerId(3));
    let mut follower = changeable(false);
    follower.on_packet(Packet::Proposal { zxid, payload: reconfig(zxid, &[1, 2, 3, 5], &[4]) });
    assert_eq!(done(&mut follower), ["configs 5, 8589934593", "log 0x200000001"]);
    follower.on_inner(ToQuorum::Durable { zxid, at_us: 0 });
    assert_eq!(done(&mut follower), ["ACK 0x200000001"]);
    follower.on_packet(Packet::CommitAndActivate { zxid, designated });
    assert_eq!(done(&mut follower), ["deliver 0x200000001", "configs 8589934593", "told 8589934593"]);
    assert!(follower.is_serving());

    let mut observer = changeable(true);
    let payload = reconfig(zxid, &[1, 2, 3], &[4]);
    observer.on_packet(Packet::InformAndActivate { zxid, designated, payload: payload.clone() });
    let expected =
        ["configs 5, 8589934593", "log 0x200000001", "deliver 0x200000001", "configs 8589934593", "told 8589934593"];
    assert_eq!(done(&mut observer), expected);

    let mut fixed = serving(true, z(1, 5));
    fixed.on_packet(Packet::InformAndActivate { zxid, designated, payload });
    assert_eq!(done(&mut fixed), ["log 0x200000001", "deliver 0x200000001"]);
}

#[test]
fn a_configuration_that_changes_the_own_role_or_the_leader_ends_the_role() {
    let zxid = z(2, 1);
    for (observer, participants, observers, designated, stays) in [
        (false, &[1, 2, 3][..], &[][..], 3, true),
        (false, &[2, 3], &[], 3, true),
        (false, &[2, 3], &[1], 3, false),
        (false, &[1, 2], &[], 1, false),
        (true, &[1, 2, 3], &[4], 3, true),
        (true, &[1, 2, 3, 4], &[], 3, false),
    ] {
        let mut learner = changeable(observer);
        let (payload, designated) = (reconfig(zxid, participants, observers), ServerId(designated));
        match observer {
            true => learner.on_packet(Packet::InformAndActivate { zxid, designated, payload }),
            false => {
                learner.on_packet(Packet::Proposal { zxid, payload });
                learner.on_packet(Packet::CommitAndActivate { zxid, designated });
            }
        }
        assert_eq!(learner.is_serving(), stays, "{observer} {participants:?} {observers:?} {designated:?}");
        assert_eq!(learner.successor(), (!stays).then_some(designated));
        assert!(done(&mut learner).contains(&"deliver 0x200000001".to_string()), "its client is answered all the same");
    }
}

#[test]
fn the_leaders_configuration_is_in_force_from_uptodate_on() {
    let text = |version: i64| {
        let members = Members { version, ..configs().committed };
        members.to_string().into_bytes()
    };
    let mut learner = greeted(false, z(1, 5));
    learner.configs.reconfig_enabled = true;
    // What an older leader proposed, and this one has never heard of, is over.
    learner.configs.last_seen = Some(Members { version: z(1, 9).0, ..configs().committed });
    learner.on_packet(Packet::Diff { zxid: z(1, 5) });
    learner.on_packet(Packet::NewLeader { zxid: z(2, 0), config: text(z(1, 4).0) });
    let expected = ["configs 5", "configs 5, 4294967300", "currentEpoch 2", "ACK 0x200000000"];
    assert_eq!(done(&mut learner), expected);
    learner.on_packet(Packet::UpToDate);
    assert_eq!(done(&mut learner), ["configs 4294967300", "told 4294967300", "Following", "ACK 0x200000000"]);
}

/// The text of a list of servers, as NEWLEADER has it.
fn list(version: Zxid) -> Vec<u8> {
    Members { version: version.0, ..configs().committed }.to_string().into_bytes()
}

#[test]
fn a_list_that_is_only_proposed_is_not_in_force_at_uptodate_whatever_newleader_says() {
    // An Apache leader says its newest list. It may have committed the one before in the history, and this one at last.
    for observer in [false, true] {
        let mut learner = greeted(observer, z(1, 5));
        learner.configs.reconfig_enabled = true;
        learner.on_packet(Packet::Diff { zxid: z(2, 2) });
        learner.on_packet(Packet::Proposal { zxid: z(2, 1), payload: reconfig(z(2, 1), &[1, 2, 3], &[4]) });
        learner.on_packet(commit(z(2, 1)));
        let open = reconfig(z(2, 2), &[1, 2, 3, 5], &[4]);
        if !observer {
            learner.on_packet(Packet::Proposal { zxid: z(2, 2), payload: open.clone() });
        }
        learner.on_packet(Packet::NewLeader { zxid: z(2, 0), config: list(z(2, 2)) });
        learner.on_inner(ToQuorum::Durable { zxid: z(2, 2), at_us: 0 });
        learner.on_packet(Packet::UpToDate);
        let in_force = |learner: &Learner| {
            (learner.configs.committed.version, learner.configs.last_seen.as_ref().map(|seen| seen.version))
        };
        assert_eq!(in_force(&learner), (z(2, 1).0, Some(z(2, 2).0)));
        let designated = ServerId(3);
        learner.on_packet(match observer {
            true => Packet::InformAndActivate { zxid: z(2, 2), designated, payload: open },
            false => Packet::CommitAndActivate { zxid: z(2, 2), designated },
        });
        assert_eq!(in_force(&learner), (z(2, 2).0, None));
        assert!(learner.is_serving(), "{:?}", learner.ended());
    }
}

#[test]
fn a_list_that_is_committed_before_uptodate_is_in_force_from_then_on() {
    let mut learner = greeted(false, z(1, 5));
    learner.configs.reconfig_enabled = true;
    learner.on_packet(Packet::Diff { zxid: z(1, 5) });
    learner.on_packet(Packet::NewLeader { zxid: z(2, 0), config: list(z(2, 0)) });
    learner.on_packet(Packet::Proposal { zxid: z(2, 1), payload: reconfig(z(2, 1), &[1, 2, 3, 5], &[4]) });
    learner.on_packet(Packet::CommitAndActivate { zxid: z(2, 1), designated: ServerId(3) });
    assert_eq!(learner.configs.committed.version, 5);
    learner.on_packet(Packet::UpToDate);
    assert_eq!(learner.configs.committed.version, z(2, 1).0);
}

#[test]
fn the_list_in_a_snapshot_is_on_disk_before_the_snapshot_is() {
    // Whoever has this history and leads some day must know whose voices it needs.
    let mut learner = greeted(false, z(1, 5));
    learner.configs.reconfig_enabled = true;
    learner.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    let mut state = Box::new(State::fresh(StateRules::default()));
    state.replay(&Txn::from_bytes(&write(z(1, 9))).unwrap());
    state.set_config(&String::from_utf8(list(z(1, 8))).unwrap(), z(1, 8).0, 0);
    learner.on_snapshot(state);
    assert_eq!(done(&mut learner)[..3], ["forget", "configs 5, 4294967304", "install 0x100000009"]);
    learner.on_inner(ToQuorum::Installed { zxid: z(1, 9) });
    // Apache's newest list is another one, and is proposed.
    learner.on_packet(Packet::NewLeader { zxid: z(2, 0), config: list(z(2, 1)) });
    learner.on_packet(Packet::UpToDate);
    assert_eq!(learner.configs.committed.version, z(1, 8).0);
}

#[test]
fn a_silent_leader_is_left_but_not_while_the_own_disk_is_slow() {
    let silent_for = |learner: &mut Learner, ms: i64| {
        learner.set_time(ms);
        learner.tick();
        learner.ended().is_some()
    };
    let mut learner = greeted(false, z(1, 5));
    assert_eq!(learner.next_deadline_ms(), TIMING.init_ms);
    learner.on_packet(Packet::Diff { zxid: z(1, 6) });
    learner.on_packet(propose(z(1, 6)));
    learner.on_packet(new_leader(2));
    assert!(!silent_for(&mut learner, 60_000), "waiting for the log");
    learner.on_inner(ToQuorum::Durable { zxid: z(1, 6), at_us: 0 });
    assert_eq!(learner.next_deadline_ms(), 60_000 + TIMING.sync_ms);
    assert!(!silent_for(&mut learner, 63_999));
    learner.on_packet(Packet::UpToDate);
    assert!(!silent_for(&mut learner, 67_998));
    assert!(silent_for(&mut learner, 67_999));
    assert_eq!(why(&learner), "silent for 4000 ms");

    let mut slow = greeted(false, z(1, 5));
    slow.on_packet(Packet::Snap { zxid: z(1, 9), told: None });
    slow.on_inner(ToQuorum::Forgotten);
    slow.set_time(9000);
    slow.on_heard(LINK);
    assert!(!silent_for(&mut slow, 18_999));
    assert!(silent_for(&mut slow, 19_000));
}

#[test]
fn a_leader_that_is_faster_than_the_log_is_asked_to_wait_and_not_blamed_for_it() {
    let mut learner = serving(false, z(1, 5));
    let data = Some(vec![0; Bounds::default().get(Account::LogQueue)]);
    let path = "/a".into();
    let create =
        CreateTxn { path, data, acl: Acl::open(), owner: CreateOwner::None, with_stat: false, parent_cversion: 1 };
    let zxid = z(2, 1);
    learner.on_packet(Packet::Proposal { zxid, payload: payload(zxid, TxnBody::Create(create)) });
    assert!(!learner.wants_packets());
    assert_eq!(learner.next_deadline_ms(), i64::MAX);
    learner.set_time(50_000);
    learner.on_inner(ToQuorum::Durable { zxid, at_us: 0 });
    assert!(learner.wants_packets());
    assert_eq!(learner.next_deadline_ms(), 50_000 + TIMING.sync_ms);
}

#[test]
fn a_learner_whose_pipeline_is_behind_lets_its_leader_wait() {
    let mut learner = serving(false, z(1, 5));
    let mut bytes = 0;
    let mut counter = 0;
    while learner.wants_packets() {
        counter += 1;
        let zxid = z(2, counter);
        let set = SetDataTxn { path: "/a".into(), data: Some(vec![0; 3 << 20]), version: 1 };
        let payload = payload(zxid, TxnBody::SetData(set));
        bytes += Txn::from_bytes(&payload).unwrap().size_hint();
        learner.on_packet(Packet::Proposal { zxid, payload });
        learner.on_inner(ToQuorum::Durable { zxid, at_us: 0 });
        learner.on_packet(commit(zxid));
    }
    assert_eq!((learner.ended(), counter), (None, 11));
    learner.set_time(50_000);
    assert_eq!(learner.next_deadline_ms(), i64::MAX, "its silence means nothing");
    learner.on_inner(ToQuorum::Applied { bytes });
    assert!(learner.wants_packets() && learner.unapplied_bytes == 0);
    assert_eq!(learner.next_deadline_ms(), 50_000 + TIMING.sync_ms);
}

#[test]
fn a_leader_that_floods_is_left() {
    let mut learner = greeted(false, z(1, 5));
    learner.on_packet(Packet::Trunc { zxid: z(1, 3) });
    for _ in 0..5 {
        assert_eq!(learner.ended(), None);
        learner.on_packet(Packet::Proposal {
            zxid: z(2, 1),
            payload: vec![0; Bounds::default().get(Account::LogQueue) / 2],
        });
    }
    assert!(why(&learner).contains("64 MiB"));
    // The log is being cut all the same, and the next role must know what is left of it.
    assert!(learner.is_replacing());
    learner.on_truncated(Ok(z(1, 3)));
    assert!(!learner.is_replacing());
    assert_eq!(learner.committed_log().last(), z(1, 3));
}

/// What the learner's log, pipeline and leader may see, whatever the pace of the leader, the log and the commits.
#[derive(Default)]
struct Watch {
    logged: Vec<Zxid>,
    durable: usize,
    delivered: usize,
    current_epoch: u32,
    leader_is_new: bool,
    acked: Vec<Zxid>,
    /// What is to be read of the log.
    read_back: Option<(Zxid, Zxid)>,
}

impl Watch {
    fn see(&mut self, effects: Vec<Effect>, before_new_leader: usize) {
        for effect in effects {
            match effect {
                Effect::Log(records) => self.logged.extend(records.iter().map(|record| record.zxid)),
                Effect::Pipeline(ToPipeline::Deliver { txns }) => {
                    for txn in txns {
                        assert_eq!(self.logged.get(self.delivered), Some(&txn.header.zxid));
                        self.delivered += 1;
                    }
                }
                Effect::ReadBack { from, to } => {
                    assert!(self.logged[..self.durable].contains(&to));
                    self.read_back = Some((from, to));
                }
                Effect::SetCurrentEpoch(epoch) => {
                    assert!(self.durable >= before_new_leader);
                    self.current_epoch = epoch;
                }
                Effect::Send { packet: Packet::Ack { zxid }, .. } if zxid.counter() == 0 => {
                    assert_eq!(self.current_epoch, 2);
                    self.leader_is_new = true;
                }
                Effect::Send { packet: Packet::Ack { zxid }, .. } => {
                    assert!(self.leader_is_new);
                    assert!(self.logged[..self.durable].contains(&zxid));
                    self.acked.push(zxid);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn at_any_pace_only_what_is_durable_is_acknowledged_and_each_proposal_once() {
    let mut read_back = 0;
    for seed in 1..=300_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        let (committed, outstanding) = (roll(4) as usize, roll(4) as usize);
        let zxids: Vec<Zxid> = (1..=12).map(|counter| z(2, counter)).collect();
        let mut learner = greeted(false, z(1, 5));
        let size = write(z(2, 1)).len();
        learner.uncommitted = Uncommitted::new([0, 2 * size, usize::MAX][roll(3) as usize]);
        let mut watch = Watch::default();
        learner.on_packet(Packet::Diff { zxid: z(1, 5) });
        for zxid in &zxids[..committed] {
            learner.on_packet(propose(*zxid));
            learner.on_packet(commit(*zxid));
        }
        let before_new_leader = committed + outstanding;
        zxids[committed..before_new_leader].iter().for_each(|zxid| learner.on_packet(propose(*zxid)));
        if roll(2) == 0 {
            // The log may be done with the history before NEWLEADER comes.
            watch.see(learner.take_effects(), before_new_leader);
            watch.durable = watch.logged.len();
            watch
                .logged
                .last()
                .into_iter()
                .for_each(|zxid| learner.on_inner(ToQuorum::Durable { zxid: *zxid, at_us: 0 }));
        }
        learner.on_packet(new_leader(2));
        let (mut proposed, mut commits) = (before_new_leader, committed);
        while watch.acked.len() < zxids.len() - committed
            || watch.delivered < zxids.len()
            || commits < zxids.len()
            || !learner.is_serving()
        {
            match roll(6) {
                0 if proposed < zxids.len() => {
                    learner.on_packet(propose(zxids[proposed]));
                    proposed += 1;
                }
                1 if commits < proposed => {
                    learner.on_packet(commit(zxids[commits]));
                    commits += 1;
                }
                2 if watch.durable < watch.logged.len() => {
                    watch.durable += 1 + roll((watch.logged.len() - watch.durable) as u64) as usize;
                    learner.on_inner(ToQuorum::Durable { zxid: watch.logged[watch.durable - 1], at_us: 0 });
                }
                3 if watch.leader_is_new => learner.on_packet(Packet::UpToDate),
                4 => {
                    let run = watch.read_back.take().map_or(Vec::new(), |(from, to)| {
                        zxids.iter().filter(|zxid| from <= **zxid && **zxid <= to).copied().collect()
                    });
                    if !run.is_empty() {
                        read_back += 1;
                        let record = |zxid| LogRecord { zxid, payload: write(zxid) };
                        learner.on_read_back(run.into_iter().map(record).collect());
                    }
                }
                _ => watch.see(learner.take_effects(), before_new_leader),
            }
            assert_eq!(learner.ended(), None, "seed {seed}");
        }
        watch.see(learner.take_effects(), before_new_leader);
        assert_eq!(watch.acked, zxids[committed..], "seed {seed}");
        assert_eq!(watch.delivered, zxids.len(), "seed {seed}");
        assert_eq!(learner.committed_log().last(), z(2, 12));
    }
    assert!(read_back > 300, "{read_back}");
}

#[test]
fn no_packet_at_any_time_is_more_than_the_end_of_the_role() {
    let z6 = z(1, 6);
    let packets = || {
        vec![
            propose(z6),
            propose(Zxid(-1)),
            propose(Zxid(i64::MAX)),
            commit(Zxid(i64::MIN)),
            commit(z6),
            inform(z6),
            new_leader(2),
            new_leader(-1),
            Packet::NewLeader { zxid: Zxid(i64::MAX), config: vec![1] },
            Packet::UpToDate,
            Packet::Ack { zxid: z6 },
            Packet::Ping { zxid: Zxid(-1), touched: Vec::new() },
            Packet::Sync,
            Packet::Revalidate { session: SessionId(1), timeout_ms: 1 },
            Packet::Diff { zxid: Zxid(-1) },
            Packet::Trunc { zxid: Zxid(-1) },
            Packet::Trunc { zxid: z(1, 2) },
            Packet::Snap { zxid: Zxid(i64::MAX), told: None },
            Packet::Snap { zxid: z6, told: None },
            Packet::LeaderInfo { epoch: u32::MAX, ours: None },
            Packet::LeaderInfo { epoch: 2, ours: None },
            Packet::CommitAndActivate { zxid: z6, designated: ServerId(-1) },
            Packet::InformAndActivate { zxid: z6, designated: ServerId(1), payload: Vec::new() },
            Packet::Unknown { kind: -1 },
        ]
    };
    let begin =
        [Packet::LeaderInfo { epoch: 2, ours: None }, Packet::Diff { zxid: z(1, 5) }, new_leader(2), Packet::UpToDate];
    for observer in [false, true] {
        for known in 0..=begin.len() {
            for (i, first) in packets().into_iter().enumerate() {
                for second in packets() {
                    let mut learner = learner(observer, z(1, 5));
                    learner.on_leader_connected(LINK);
                    begin[..known].iter().for_each(|packet| learner.on_packet(packet.clone()));
                    learner.on_packet(first.clone());
                    learner.on_packet(second);
                    learner.on_inner(ToQuorum::Durable { zxid: Zxid(i64::MAX), at_us: 0 });
                    learner.on_truncated(if i % 2 == 0 { Ok(z(1, 2)) } else { Err("no".into()) });
                    learner.take_effects();
                    learner.take_uncommitted();
                }
            }
        }
    }
}

#[test]
fn nobody_speaks_for_a_session_that_went_from_one_observer_to_another() {
    let (old, new) = (LinkId(21), LinkId(22));
    let mut learner = serving(false, z(1, 5));
    learner.begin_to_relay();
    let session = SessionId(9);
    let write = || {
        let op = OpCode::SetData as i32;
        Packet::Request(ForwardedRequest { session, cxid: 1, op, body: vec![7; 4], auth: None })
    };
    let sent = |learner: &mut Learner| match learner.take_effects().pop() {
        Some(Effect::Send { packet: Packet::Request(request), .. }) => request.body.len(),
        other => panic!("{other:?}"),
    };
    for observer in [old, new] {
        learner.on_observer_packet(observer, Packet::Revalidate { session, timeout_ms: 4000 });
        learner.take_effects();
        learner.on_observer_packet(observer, write());
        assert_eq!(sent(&mut learner), 4);
    }
    learner.on_observer_packet(old, write());
    assert_eq!(sent(&mut learner), 0, "an error that takes the place of what came too late");
    // Each answer goes to whom it is for, in order, behind what was committed before.
    learner.on_packet(propose(z(2, 1)));
    learner.on_packet(commit(z(2, 1)));
    for _ in [old, new] {
        learner.on_packet(Packet::Revalidated { session, valid: true });
    }
    let relays = learner.take_relays();
    assert!(matches!(
        &relays[..],
        [Relay::Committed(record, None), Relay::Answer(LinkId(21), _), Relay::Answer(LinkId(22), _)]
            if record.zxid == z(2, 1)
    ));
}

#[test]
fn where_a_learner_was_its_accounts_are_empty() {
    let accounts = [Account::Unapplied, Account::Uncommitted];
    accounts.iter().for_each(|account| account.publish(5));
    Learner::publish_none();
    assert_eq!(accounts.map(|account| account.published().0), [0; 2]);
}
