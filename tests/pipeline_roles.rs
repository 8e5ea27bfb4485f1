//! The pipeline as a member of an ensemble. This test is its quorum thread and its log: it says what the server becomes,
//! commits, delivers, and forwards what learners would.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

use rookeeper::ops::{ReadOp, WriteOp, encode};
#[path = "support/roles.rs"]
mod roles;

use roles::*;
use rookeeper::admin::view::{Mode, ServerView, SnapshotProgress};
use rookeeper::config::Members;
use rookeeper::config::voters::Configs;
use rookeeper::ids::{LinkId, ServerId, SessionId, Zxid};
use rookeeper::jute::Writer;
use rookeeper::mail::{ForwardedRequest, Role, ToPipeline, ToQuorum, ToSnapshot};
use rookeeper::ops::{Create, Op, OpCode, Reconfig, SetData};
use rookeeper::pipeline::Rules;
use rookeeper::records::{Acl, OwnerRules, StatPersisted};
use rookeeper::state::{JointVerdict, Loader, State, StateRules, WrongJoint};
use rookeeper::storage::snapshot;
use rookeeper::txn::{CreateOwner, CreateTxn, DIGEST_VERSION, Txn, TxnBody, TxnDigest, TxnHeader, kind};

/// A leader and a learner of it, and the wire between them.
struct Pair {
    leader: Server,
    learner: Server,
    delivered: usize,
}

impl Pair {
    fn new(role: Role) -> Pair {
        Pair::with(rules(), role)
    }

    fn with(rules: Rules, role: Role) -> Pair {
        let mut learner = Server::with(Rules { server_id: 2, ..rules.clone() });
        learner.say(ToPipeline::Role(role));
        let mut leader = Server::with(rules);
        leader.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
        Pair { leader, learner, delivered: 0 }
    }

    /// Everything that is on its way arrives, until nothing is.
    fn exchange(&mut self) {
        loop {
            let up = self.learner.told_quorum();
            let down = self.leader.told_quorum();
            if up.is_empty() && down.is_empty() && self.delivered == self.leader.log.len() {
                return;
            }
            for mail in up {
                self.leader.say(match mail {
                    ToQuorum::Forward(request) => ToPipeline::Forwarded { learner: LEARNER, request },
                    ToQuorum::Revalidate { session, timeout_ms } => {
                        ToPipeline::Revalidate { learner: LEARNER, session, timeout_ms }
                    }
                    ToQuorum::Touched(sessions) => ToPipeline::Touched { sessions },
                    other => panic!("{other:?}"),
                });
            }
            if self.delivered < self.leader.log.len() {
                let txns = self.leader.log[self.delivered..].to_vec();
                self.delivered = self.leader.log.len();
                self.leader.commit_all();
                self.learner.say(ToPipeline::Deliver { txns });
            }
            for mail in down.into_iter().chain(self.leader.told_quorum()) {
                self.learner.say(match mail {
                    ToQuorum::SyncReady { .. } => ToPipeline::Synced,
                    ToQuorum::Revalidated { session, valid, .. } => ToPipeline::Revalidated { session, valid },
                    other => panic!("{other:?}"),
                });
            }
        }
    }

    fn assert_same(&self) {
        assert_eq!(view(self.leader.core.state()), view(self.learner.core.state()));
        assert_eq!(self.learner.core.state().digest_mismatches(), 0);
    }
}

// ---- looking ----

#[test]
fn a_server_that_looks_for_a_leader_takes_no_clients_and_says_so() {
    let mut server = Server::new();
    assert_eq!(server.core.mode(), Mode::NotServing);
    server.connect(conn(1));
    assert!(server.client(conn(1)).closed && server.client(conn(1)).bytes.is_empty());
    assert!(server.to_quorum.is_empty(), "nobody asked yet whether it has settled");
    server.say(ToPipeline::Role(Role::Looking));
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { zxid: Zxid::ZERO, .. }]));
}

#[test]
fn a_leader_that_loses_its_quorum_answers_everybody_once_and_applies_what_it_logged() {
    let mut server = Server::leader();
    for n in 1..=2 {
        server.connect(conn(n));
    }
    server.commit_all();
    server.ask(conn(1), 1, OpCode::Exists, exists("/a", true));
    server.ask(conn(1), 2, OpCode::Create, create("/a", 0));
    server.ask(conn(1), 3, OpCode::Exists, exists("/a", false));
    server.ask(conn(2), 4, OpCode::Create, create("/b", 1));
    server.say(ToPipeline::Disconnected { conn: conn(2) });
    server.connect(conn(3));
    server.say(ToPipeline::Role(Role::Looking));
    let first = server.client(conn(1));
    assert!(first.closed);
    assert_eq!((first.replies(), first.answered), (vec![(1, -101)], 3), "nothing is confirmed, no watch fires");
    assert_eq!(server.client(conn(2)).answered, 1);
    assert_eq!((server.client(conn(3)).answered, server.client(conn(3)).session), (0, None));
    assert!(server.core.state().tree().lookup("/a").is_some() && server.core.state().tree().lookup("/b").is_some());
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { zxid: Zxid(0x1_0000_0005), .. }]));
    // What was on its way from the poller is answered too.
    server.ask(conn(1), 5, OpCode::Create, create("/c", 0));
    assert_eq!(server.client(conn(1)).answered, 4);
    server.say(ToPipeline::Committed { zxid: Zxid(0x1_0000_0005), at_us: 0, synced: vec![] });
    assert_eq!(server.log.len(), 5);
}

#[test]
fn what_was_logged_and_not_committed_is_applied_before_the_server_has_settled() {
    let mut server = Server::in_role(Role::Following);
    let header = TxnHeader { client_id: SESSION, cxid: 0, zxid: Zxid(0x1_0000_0001), time_ms: 5 };
    let txn = Txn { header, body: TxnBody::CreateSession { timeout_ms: 4000 }, digest: None };
    server.core.step(ToPipeline::Role(Role::Looking));
    server.say(ToPipeline::Deliver { txns: vec![txn] });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { zxid: Zxid(0x1_0000_0001), .. }]));
    assert_eq!(server.core.state().session_count(), 1);
}

#[test]
fn a_learner_that_loses_its_leader_answers_everybody_once() {
    let mut server = Server::in_role(Role::Following);
    server.connect(conn(1));
    let begun = server.forwarded().remove(0);
    let header = TxnHeader { client_id: begun.session, cxid: 0, zxid: Zxid(0x1_0000_0001), time_ms: 5 };
    let txn = Txn { header, body: TxnBody::CreateSession { timeout_ms: 4000 }, digest: None };
    server.say(ToPipeline::Deliver { txns: vec![txn] });
    assert_eq!(server.client(conn(1)).session, Some(begun.session));
    server.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    server.ask(conn(1), 2, OpCode::Sync, Op::Read(ReadOp::Sync { path: Some("/".into()) }));
    server.ask(conn(1), 3, OpCode::Exists, exists("/a", false));
    server.connect(conn(2));
    server.say(ToPipeline::Role(Role::Looking));
    assert_eq!((server.client(conn(1)).answered, server.client(conn(1)).closed), (3, true));
    assert_eq!((server.client(conn(2)).answered, server.client(conn(2)).closed), (0, true));
    assert!(!server.core.awaits_commit());
    server.say(ToPipeline::Synced);
    server.say(ToPipeline::Disconnected { conn: conn(1) });
    assert_eq!(server.client(conn(1)).answered, 3);
}

// ---- leading ----

#[test]
fn a_leader_counts_from_one_in_its_epoch_and_lives_up_to_its_name() {
    let mut server = Server::in_role(Role::Leading { epoch: 5 });
    server.connect(conn(1));
    server.commit_all();
    assert_eq!(server.log[0].header.zxid, Zxid(0x5_0000_0001));
    assert_eq!(server.client(conn(1)).session.unwrap().0 >> 56, 1, "sessions begin with the server's id");
    assert_eq!(server.core.mode(), Mode::Leader);
    assert_eq!(server.core.peer_state().as_deref(), Some("leading - broadcast"));
}

#[test]
fn every_forwarded_request_becomes_one_transaction_whatever_it_is() {
    let mut server = Server::leader();
    let say = |server: &mut Server, request| server.say(ToPipeline::Forwarded { learner: LEARNER, request });
    say(&mut server, new_session(SESSION, 6000));
    say(&mut server, forwarded(SESSION, 1, OpCode::Create, create("/a", 1)));
    say(&mut server, forwarded(SESSION, 2, OpCode::Create, create("/a", 0)));
    say(&mut server, forwarded(SessionId(99), 3, OpCode::Create, create("/b", 0)));
    say(&mut server, ForwardedRequest { body: vec![1, 2], ..forwarded(SESSION, 4, OpCode::Create, create("/b", 0)) });
    say(&mut server, forwarded(SESSION, 5, OpCode::Check, Op::Read(ReadOp::Unknown)));
    say(&mut server, forwarded(SESSION, 6, OpCode::GetData, exists("/", false)));
    say(&mut server, ForwardedRequest { op: 20, ..forwarded(SESSION, 7, OpCode::Create, create("/b", 0)) });
    let huge = ForwardedRequest {
        body: vec![0; 2 << 20],
        ..forwarded(SESSION, 8, OpCode::SetData, Op::Read(ReadOp::Unknown))
    };
    say(&mut server, huge);
    say(&mut server, forwarded(SESSION, 9, OpCode::CloseSession, Op::CloseSession));
    say(&mut server, forwarded(SESSION, 10, OpCode::CloseSession, Op::CloseSession));
    let cxids: Vec<i32> = server.log.iter().map(|txn| txn.header.cxid).collect();
    assert_eq!(cxids, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let errors: Vec<i32> = server.log.iter().map(error_of).collect();
    let (moot, odd, bad) = (SESSION_EXPIRED, UNIMPLEMENTED, MARSHALLING_ERROR);
    assert_eq!(errors, [0, 0, NODE_EXISTS, moot, bad, odd, odd, odd, bad, 0, moot]);
    assert_eq!(server.log[0].body, TxnBody::CreateSession { timeout_ms: 6000 });
    assert_eq!(server.log[9].body, TxnBody::CloseSession { paths: Some(vec!["/a".into()]) });
    server.commit_all();
    assert!(server.core.state().tree().lookup("/a").is_none());
}

#[test]
fn a_session_belongs_to_the_learner_that_last_asked_for_it() {
    let mut server = Server::leader();
    let write = |server: &mut Server, learner| {
        let request = forwarded(SESSION, 1, OpCode::Create, create("/a", 2));
        server.say(ToPipeline::Forwarded { learner, request });
        error_of(server.log.last().unwrap())
    };
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 6000) });
    assert_eq!(write(&mut server, LEARNER), 0);
    assert_eq!(write(&mut server, OTHER_LEARNER), SESSION_MOVED);
    server.say(ToPipeline::Revalidate { learner: OTHER_LEARNER, session: SESSION, timeout_ms: 6000 });
    server.say(ToPipeline::Revalidate { learner: LEARNER, session: SessionId(99), timeout_ms: 6000 });
    let answers = server.told_quorum();
    assert!(matches!(
        answers[..],
        [
            ToQuorum::Revalidated { learner: OTHER_LEARNER, session: SESSION, valid: true },
            ToQuorum::Revalidated { learner: LEARNER, session: SessionId(99), valid: false }
        ]
    ));
    assert_eq!(write(&mut server, LEARNER), SESSION_MOVED);
    server.say(ToPipeline::LearnerGone { learner: OTHER_LEARNER });
    assert_eq!(write(&mut server, LEARNER), SESSION_MOVED, "this was sent before the session moved on");
    server.say(ToPipeline::Revalidate { learner: LEARNER, session: SESSION, timeout_ms: 6000 });
    assert_eq!(write(&mut server, LEARNER), 0);
}

#[test]
fn a_sync_is_ready_behind_everything_proposed_before_it() {
    let mut server = Server::leader();
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 6000) });
    let sync = forwarded(SESSION, 1, OpCode::Sync, Op::Read(ReadOp::Sync { path: Some("/".into()) }));
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: sync });
    let after = Zxid(0x1_0000_0001);
    assert!(matches!(server.told_quorum()[..], [ToQuorum::SyncReady { learner: LEARNER, after: a }] if a == after));
    assert_eq!(server.log.len(), 1);
}

#[test]
fn only_the_leader_ends_silent_sessions_and_it_takes_the_word_of_learners_for_them() {
    let mut pair = Pair::new(Role::Following);
    pair.learner.connect(conn(1));
    pair.exchange();
    let session = pair.learner.client(conn(1)).session.unwrap();
    for _ in 0..4 {
        pair.leader.wait(3000);
        pair.learner.wait(3000);
        pair.learner.ask(conn(1), 1, OpCode::Ping, Op::Read(ReadOp::Ping));
        pair.learner.say(ToPipeline::TellTouched);
        pair.exchange();
    }
    assert!(!pair.learner.client(conn(1)).closed);
    pair.learner.say(ToPipeline::TellTouched);
    assert!(matches!(&pair.learner.told_quorum()[..], [ToQuorum::Touched(none)] if none.is_empty()));
    pair.learner.wait(100_000);
    assert_eq!(pair.learner.core.next_deadline_ms(), i64::MAX);
    pair.leader.wait(7000);
    pair.exchange();
    let last = pair.leader.log.last().unwrap();
    assert_eq!((last.header.client_id, last.header.cxid), (session, 0));
    assert!(pair.learner.client(conn(1)).closed, "its session is over");
    pair.assert_same();
}

#[test]
fn a_new_leader_gives_every_session_its_full_timeout() {
    let mut server = Server::leader();
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 10_000) });
    server.commit_all();
    server.wait(9000);
    server.say(ToPipeline::Role(Role::Looking));
    server.stop_for(60_000);
    server.say(ToPipeline::Role(Role::Leading { epoch: 2 }));
    server.wait(9000);
    assert_eq!(server.log.len(), 1);
    server.wait(5000);
    assert_eq!(server.log[1].header.zxid, Zxid(0x2_0000_0001));
    assert!(matches!(server.log[1].body, TxnBody::CloseSession { .. }));
}

#[test]
fn an_epoch_whose_zxids_are_used_up_ends() {
    let mut server = Server::with(Rules { last_counter: 2, ..rules() });
    server.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    server.connect(conn(1));
    server.commit_all();
    server.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    assert_eq!(server.log.last().unwrap().header.zxid, Zxid(0x1_0000_0002));
    assert!(server.told_quorum().is_empty());
    server.ask(conn(1), 2, OpCode::Create, create("/b", 0));
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 6000) });
    server.connect(conn(2));
    server.wait(100_000);
    assert!(matches!(server.told_quorum()[..], [ToQuorum::EpochExhausted]), "said once");
    assert_eq!(server.core.next_deadline_ms(), i64::MAX, "what is due by time is left to the next leader");
    assert_eq!(server.log.len(), 2);
    assert!(server.client(conn(1)).closed && server.client(conn(2)).closed);
    server.say(ToPipeline::Role(Role::Looking));
    assert_eq!(server.client(conn(1)).answered, 2);
}

// ---- following ----

#[test]
fn a_learners_clients_are_answered_in_order_and_see_what_they_wrote() {
    for role in [Role::Following, Role::Observing] {
        let mut pair = Pair::new(role);
        pair.learner.connect(conn(1));
        assert!(pair.learner.clients.is_empty(), "the session is not committed");
        pair.exchange();
        pair.learner.ask(conn(1), 1, OpCode::Create, create("/a", 1));
        pair.learner.ask(conn(1), 2, OpCode::Exists, exists("/a", false));
        pair.learner.ask(conn(1), 3, OpCode::Create, create("/a", 0));
        pair.learner.ask(conn(1), 4, OpCode::Sync, Op::Read(ReadOp::Sync { path: Some("/".into()) }));
        pair.learner.ask(conn(1), 5, OpCode::Exists, exists("/nope", false));
        assert_eq!(pair.learner.client(conn(1)).answered, 0);
        pair.exchange();
        let expected = vec![(1, 0), (2, 0), (3, NODE_EXISTS), (4, 0), (5, -101)];
        assert_eq!(pair.learner.client(conn(1)).replies(), expected);
        pair.learner.ask(conn(1), 6, OpCode::CloseSession, Op::CloseSession);
        pair.exchange();
        let client = pair.learner.client(conn(1));
        assert_eq!((client.replies().last(), client.answered, client.closed), (Some(&(6, 0)), 6, true));
        assert!(pair.leader.core.state().tree().lookup("/a").is_none());
        pair.assert_same();
    }
}

#[test]
fn what_a_learner_forwards_is_what_its_client_sent() {
    let mut pair = Pair::new(Role::Following);
    pair.learner.connect(conn(1));
    pair.exchange();
    let session = pair.learner.client(conn(1)).session.unwrap();
    pair.learner.ask(conn(1), 9, OpCode::Create, create("/a", 0));
    assert_eq!(pair.learner.forwarded(), [forwarded(session, 9, OpCode::Create, create("/a", 0))]);
    pair.learner.ask(conn(1), 10, OpCode::Check, Op::Read(ReadOp::Unknown));
    assert!(pair.learner.to_quorum.is_empty(), "a check by itself goes nowhere");
}

#[test]
fn a_watch_on_a_learner_fires_for_a_write_on_another_server() {
    let mut pair = Pair::new(Role::Following);
    pair.learner.connect(conn(1));
    pair.leader.connect(conn(2));
    pair.exchange();
    pair.learner.ask(conn(1), 1, OpCode::Exists, exists("/a", true));
    pair.leader.ask(conn(2), 1, OpCode::Create, create("/a", 0));
    pair.exchange();
    assert_eq!(pair.learner.client(conn(1)).replies(), [(1, -101), (-1, 0)]);
}

#[test]
fn a_client_moves_between_the_servers_of_an_ensemble() {
    let mut pair = Pair::new(Role::Following);
    pair.leader.connect(conn(1));
    pair.exchange();
    let session = pair.leader.client(conn(1)).session.unwrap();
    let password = pair.leader.client(conn(1)).bytes[24..40].to_vec();
    pair.learner.connect_with(conn(2), session, vec![0; 16]);
    assert!(pair.learner.client(conn(2)).closed && pair.learner.to_quorum.is_empty(), "no need to ask");
    pair.learner.connect_with(conn(3), session, password.clone());
    pair.exchange();
    assert_eq!(pair.learner.client(conn(3)).session, Some(session));
    assert!(pair.leader.client(conn(1)).closed, "the session moved away");
    pair.learner.ask(conn(3), 1, OpCode::Create, create("/a", 1));
    pair.exchange();
    assert_eq!(pair.learner.client(conn(3)).replies(), [(1, 0)]);
    // And back, without the learner hearing of it before its client writes again.
    pair.leader.connect_with(conn(4), session, password);
    pair.learner.ask(conn(3), 2, OpCode::Create, create("/b", 0));
    pair.exchange();
    let old = pair.learner.client(conn(3));
    assert_eq!((old.replies(), old.answered, old.closed), (vec![(1, 0)], 2, true), "told by closing");
    assert_eq!(pair.leader.client(conn(4)).session, Some(session));
    pair.learner.connect_with(conn(5), SessionId(99), rookeeper_password(99));
    pair.exchange();
    assert_eq!(pair.learner.client(conn(5)).session, None);
    assert!(pair.learner.client(conn(5)).closed);
}

/// Any server can make the password of any session.
fn rookeeper_password(session: i64) -> Vec<u8> {
    let mut state = (session ^ 0xB341_5C00 ^ 0x5_DEEC_E66D) & ((1 << 48) - 1);
    let mut bytes = Vec::new();
    for _ in 0..4 {
        state = (state.wrapping_mul(0x5_DEEC_E66D) + 0xB) & ((1 << 48) - 1);
        bytes.extend(((state >> 16) as i32).to_le_bytes());
    }
    bytes
}

#[test]
fn every_learner_hears_of_a_new_session_once() {
    let mut pair = Pair::new(Role::Following);
    pair.leader.connect(conn(1));
    pair.exchange();
    let session = pair.leader.client(conn(1)).session.unwrap();
    pair.learner.say(ToPipeline::TellTouched);
    pair.learner.say(ToPipeline::TellTouched);
    let told = pair.learner.told_quorum();
    assert!(matches!(&told[..], [ToQuorum::Touched(one), ToQuorum::Touched(none)]
        if one[..] == [(session, 4000)] && none.is_empty()));
}

#[test]
fn a_client_that_is_gone_is_counted_when_its_write_comes_back() {
    let mut pair = Pair::new(Role::Following);
    pair.learner.connect(conn(1));
    pair.exchange();
    pair.learner.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    pair.learner.ask(conn(1), 2, OpCode::Sync, Op::Read(ReadOp::Sync { path: None }));
    pair.learner.say(ToPipeline::Disconnected { conn: conn(1) });
    assert_eq!(pair.learner.client(conn(1)).answered, 1, "the sync needs no answer any more");
    pair.exchange();
    assert_eq!(pair.learner.client(conn(1)).answered, 2);
    assert!(!pair.learner.core.awaits_commit());
}

// ---- states as a whole ----

/// Everything that is said for one learner, until the stream ends.
fn stream(server: &mut Server, learner: LinkId) -> (Zxid, Vec<u8>) {
    let mut all = Vec::new();
    loop {
        let mine = |mail: &ToQuorum| matches!(mail, ToQuorum::Snapshot { learner: l, .. } if *l == learner);
        let Some(at) = server.to_quorum.iter().position(mine) else {
            assert!(server.core.wants_to_run(), "the stream goes on by itself");
            server.gather();
            continue;
        };
        let ToQuorum::Snapshot { zxid, bytes, last, .. } = server.to_quorum.remove(at) else { unreachable!() };
        all.extend(bytes);
        if last {
            return (zxid, all);
        }
        server.say(ToPipeline::SnapshotPieceSent { learner });
    }
}

/// A stream as a file: header in front, seal instead of the signature behind.
fn parse(zxid: Zxid, stream: &[u8]) -> State {
    let tree = stream.strip_suffix(&encode::string("BenWasHere")[..]).expect("it is signed");
    let mut file = b"ZKSN".to_vec();
    file.put_int(2);
    file.put_long(-1);
    file.extend(tree);
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in &file {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    file.put_long(i64::from(b << 16 | a));
    file.put_string("/");
    let mut loader = Loader::new(STATE_RULES);
    snapshot::load(Box::new(std::io::Cursor::new(file)), &mut loader).unwrap();
    loader.finish(zxid)
}

/// A leader with some hundred KiB of nodes.
fn leader_with_nodes() -> Server {
    let mut server = Server::leader();
    server.connect(conn(1));
    server.commit_all();
    for n in 0..40 {
        let mut op = create(&format!("/node-{n}"), n % 2);
        if let Op::Write(WriteOp::Create(create)) = &mut op {
            create.data = Some(vec![n as u8; 30_000]);
        }
        server.ask(conn(1), n, OpCode::Create, op);
    }
    server.commit_all();
    server
}

#[test]
fn a_learner_gets_the_state_as_it_was_when_the_stream_began() {
    let mut server = leader_with_nodes();
    let expected = view(server.core.state());
    let zxid = server.core.state().last_zxid();
    server.say(ToPipeline::StreamSnapshot { learner: LEARNER });
    for _ in 0..100 {
        server.gather();
    }
    assert!(server.to_quorum.len() <= 4, "a few pieces are on their way, no more");
    assert!(!server.core.wants_to_run());
    server.ask(conn(1), 99, OpCode::Create, create("/later", 0));
    server.commit_all();
    let (as_of, bytes) = stream(&mut server, LEARNER);
    assert_eq!(as_of, zxid);
    assert_eq!(view(&parse(as_of, &bytes)), expected);
}

#[test]
fn several_learners_and_the_disk_are_served_one_after_the_other() {
    let mut server = leader_with_nodes();
    let expected = view(server.core.state());
    server.say(ToPipeline::StreamSnapshot { learner: LEARNER });
    server.core.want_snapshot();
    server.say(ToPipeline::StreamSnapshot { learner: OTHER_LEARNER });
    server.say(ToPipeline::StreamSnapshot { learner: LinkId(9) });
    server.say(ToPipeline::LearnerGone { learner: LEARNER });
    server.say(ToPipeline::LearnerGone { learner: LinkId(9) });
    // The disk's turn: nothing is written, so its cut stands still; it goes on piece by piece.
    let mut finished = false;
    while !finished {
        server.gather();
        for mail in std::mem::take(&mut server.to_snapshot) {
            finished |= matches!(mail, ToSnapshot::Finish { .. });
            if matches!(mail, ToSnapshot::Chunk(_)) {
                server.say(ToPipeline::SnapshotChunkWritten);
            }
        }
    }
    let (zxid, bytes) = stream(&mut server, OTHER_LEARNER);
    assert_eq!(view(&parse(zxid, &bytes)), expected);
    server.gather();
    assert!(!server.core.wants_to_run());
    let to_the_gone = |mail: &ToQuorum| matches!(mail, ToQuorum::Snapshot { learner: LinkId(9), .. });
    assert!(!server.to_quorum.iter().any(to_the_gone));
}

/// The snapshot that is due is written, as of this transaction: the digest that it promises.
fn written(server: &mut Server, zxid: Zxid) -> Option<u64> {
    loop {
        server.gather();
        for mail in std::mem::take(&mut server.to_snapshot) {
            match mail {
                ToSnapshot::Begin { zxid: begun } => assert_eq!(begun, zxid),
                ToSnapshot::Chunk(_) => server.say(ToPipeline::SnapshotChunkWritten),
                ToSnapshot::Finish { digest } => return digest,
            }
        }
    }
}

/// A server that was given the state which this leader sends, as of this transaction.
fn installing_from(leader: &mut Server) -> (Server, Zxid) {
    leader.say(ToPipeline::StreamSnapshot { learner: LEARNER });
    let (zxid, bytes) = stream(leader, LEARNER);
    let mut server = Server::new();
    server.say(ToPipeline::Role(Role::Looking));
    server.told_quorum();
    server.say(ToPipeline::Install { state: Box::new(parse(zxid, &bytes)), durable: true });
    (server, zxid)
}

#[test]
fn an_installed_state_is_served_and_its_snapshot_makes_it_durable() {
    let mut leader = leader_with_nodes();
    let (mut server, zxid) = installing_from(&mut leader);
    assert_eq!(written(&mut server, zxid), Some(leader.core.state().tree_digest()));
    assert!(server.to_quorum.is_empty());
    server.say(ToPipeline::SnapshotDone { zxid, bytes: 1 });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Installed { zxid: z }] if z == zxid));
    server.say(ToPipeline::Role(Role::Following));
    assert_eq!(view(server.core.state()), view(leader.core.state()));
    server.ask(conn(1), 1, OpCode::Ping, Op::Read(ReadOp::Ping));
    assert_eq!(server.core.last_zxid(), zxid);
}

/// The snapshot that was begun cannot be written; its chunks are taken all the same.
fn fail_snapshot(server: &mut Server) -> Zxid {
    server.gather();
    let mut failed = None;
    for mail in std::mem::take(&mut server.to_snapshot) {
        match mail {
            ToSnapshot::Begin { zxid } => {
                failed = Some(zxid);
                server.say(ToPipeline::SnapshotFailed { zxid });
            }
            ToSnapshot::Chunk(_) => server.say(ToPipeline::SnapshotChunkWritten),
            ToSnapshot::Finish { .. } => {}
        }
    }
    failed.expect("one was begun")
}

#[test]
fn a_snapshot_that_cannot_be_written_is_taken_anew_when_it_is_asked_for() {
    let mut server = leader_with_nodes();
    server.core.want_snapshot();
    let zxid = fail_snapshot(&mut server);
    server.gather();
    assert!(server.to_snapshot.is_empty() && !server.core.wants_to_run());
    assert_eq!(server.core.snapshot_progress(), SnapshotProgress::Failed);
    // Nothing of it can appear any more: a search for a leader does not wait for it.
    server.say(ToPipeline::Role(Role::Looking));
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { .. }]));
    server.say(ToPipeline::Role(Role::Following));
    server.say(ToPipeline::TakeSnapshot);
    // The failure before is not that of the one which is wanted now.
    assert_eq!(server.core.snapshot_progress(), SnapshotProgress::UnderWay);
    // What is said of another one does not end this one.
    server.say(ToPipeline::SnapshotFailed { zxid: Zxid(zxid.0 - 1) });
    written(&mut server, zxid);
    server.say(ToPipeline::SnapshotDone { zxid, bytes: 1 });
    assert_eq!(server.core.snapshot_progress(), SnapshotProgress::Done);
}

#[test]
fn a_received_state_that_cannot_be_written_is_not_called_durable_before_it_is() {
    let (mut server, zxid) = installing_from(&mut leader_with_nodes());
    for _ in 0..2 {
        assert_eq!(fail_snapshot(&mut server), zxid);
        assert!(server.to_quorum.is_empty());
        server.say(ToPipeline::TakeSnapshot);
    }
    written(&mut server, zxid);
    server.say(ToPipeline::SnapshotDone { zxid, bytes: 1 });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Installed { zxid: z }] if z == zxid));
}

#[test]
fn no_snapshot_of_an_abandoned_history_appears_after_the_server_has_settled() {
    let mut server = leader_with_nodes();
    // One that is being cut is given up at once, and taken anew when there is a role again.
    server.core.want_snapshot();
    server.gather();
    server.say(ToPipeline::Role(Role::Looking));
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { .. }]));
    assert!(!server.core.wants_to_run());
    server.say(ToPipeline::Role(Role::Following));
    let begun = |server: &Server| server.to_snapshot.iter().filter(|m| matches!(m, ToSnapshot::Begin { .. })).count();
    server.gather();
    assert_eq!(begun(&server), 2);
    // One that is cut whole will be done: that is waited for.
    while !matches!(server.to_snapshot.last(), Some(ToSnapshot::Finish { .. })) {
        server.say(ToPipeline::SnapshotChunkWritten);
    }
    server.say(ToPipeline::Role(Role::Looking));
    assert!(server.told_quorum().is_empty());
    server.say(ToPipeline::SnapshotDone { zxid: server.core.last_zxid(), bytes: 1 });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Quiesced { .. }]));
}

// ---- the rest ----

#[test]
fn a_read_only_server_turns_away_who_needs_a_leader() {
    let mut server = Server::in_role(Role::ReadOnly);
    assert_eq!(server.core.mode(), Mode::ReadOnly);
    server.connect(conn(1));
    assert!(server.client(conn(1)).closed);
    assert_eq!(server.client(conn(1)).replies(), [(0, NOT_READ_ONLY)], "in place of the handshake's answer");
    // It may live, for all this server knows.
    server.connect_with(conn(2), SessionId(99), rookeeper_password(99));
    assert!(server.client(conn(2)).closed && server.client(conn(2)).bytes.is_empty());
    server.connect_with(conn(3), SessionId(99), vec![0; 16]);
    assert_eq!(server.client(conn(3)).bytes.last(), Some(&1), "expired, says a read-only server");
}

#[test]
fn a_local_session_reads_from_a_read_only_server_and_can_change_nothing_there() {
    let mut server = Server::with(Rules { local_sessions: true, ..rules() });
    server.say(ToPipeline::Role(Role::ReadOnly));
    server.connect(conn(1));
    assert!(server.client(conn(1)).session.is_some());
    assert_eq!(server.client(conn(1)).bytes.last(), Some(&1), "the answer says read-only");
    server.ask(conn(1), 1, OpCode::Exists, exists("/zookeeper", false));
    server.ask(conn(1), 2, OpCode::Create, create("/a", 0));
    server.ask(conn(1), 3, OpCode::Sync, Op::Read(ReadOp::Sync { path: None }));
    server.ask(conn(1), 4, OpCode::CloseSession, Op::CloseSession);
    let client = server.client(conn(1));
    assert_eq!(client.replies(), [(1, 0), (2, NOT_READ_ONLY), (3, NOT_READ_ONLY), (4, 0)]);
    assert!(client.closed);
    assert_eq!(server.core.local_sessions(), 0);
    server.connect(conn(2));
    server.wait(7000);
    assert!(server.client(conn(2)).closed, "silent for too long");
}

#[test]
fn a_local_session_costs_no_transaction_and_owns_no_ephemerals() {
    let mut pair = Pair::with(Rules { local_sessions: true, ..rules() }, Role::Following);
    pair.learner.connect(conn(1));
    pair.leader.connect(conn(2));
    assert!(pair.learner.client(conn(1)).session.is_some() && pair.leader.client(conn(2)).session.is_some());
    assert!(pair.leader.log.is_empty() && pair.learner.to_quorum.is_empty());
    for (server, id) in [(&mut pair.learner, conn(1)), (&mut pair.leader, conn(2))] {
        server.ask(id, 1, OpCode::Create, create(&format!("/a{}", id.slot), 0));
        server.ask(id, 2, OpCode::Create, create("/b", 1));
        server.ask(id, 3, OpCode::CloseSession, Op::CloseSession);
    }
    pair.exchange();
    let expected = vec![(1, 0), (2, EPHEMERAL_ON_LOCAL_SESSION), (3, 0)];
    assert_eq!(pair.learner.client(conn(1)).replies(), expected);
    assert_eq!(pair.leader.client(conn(2)).replies(), expected);
    assert_eq!(pair.leader.log.len(), 4);
    pair.assert_same();
}

#[test]
fn a_local_session_becomes_global_with_its_first_ephemeral() {
    let rules = Rules { local_sessions: true, local_sessions_upgrading: true, ..rules() };
    let mut pair = Pair::with(rules, Role::Following);
    pair.learner.connect(conn(1));
    pair.leader.connect(conn(2));
    for (server, id) in [(&mut pair.learner, conn(1)), (&mut pair.leader, conn(2))] {
        server.ask(id, 1, OpCode::Create, create(&format!("/e{}", id.slot), 1));
    }
    pair.exchange();
    assert_eq!(pair.learner.client(conn(1)).replies(), [(1, 0)]);
    assert_eq!(pair.leader.client(conn(2)).replies(), [(1, 0)]);
    assert_eq!(pair.leader.core.state().session_count(), 2);
    pair.learner.ask(conn(1), 2, OpCode::CloseSession, Op::CloseSession);
    pair.exchange();
    assert!(pair.learner.client(conn(1)).closed);
    assert_eq!(pair.leader.core.state().session_count(), 1);
    assert!(pair.leader.core.state().tree().lookup("/e1").is_none());
    pair.assert_same();
}

#[test]
fn what_a_learner_sends_for_a_global_session_that_has_ended_is_not_done() {
    let rules = Rules { local_sessions: true, local_sessions_upgrading: true, ..rules() };
    let mut pair = Pair::with(rules, Role::Following);
    for id in [1, 2] {
        pair.learner.connect(conn(id));
        pair.learner.ask(conn(id), 1, OpCode::Create, create(&format!("/e{id}"), 1));
    }
    pair.learner.connect(conn(3));
    pair.exchange();
    // The link is cut, and the first session expires; the learner does not hear of it. The second one moves to the leader.
    let moved = pair.learner.client(conn(2)).session.unwrap();
    pair.leader.connect_with(conn(9), moved, rookeeper_password(moved.0));
    let before = pair.leader.log.len();
    pair.leader.wait(3000);
    pair.leader.ask(conn(9), 1, OpCode::Ping, Op::Read(ReadOp::Ping));
    pair.leader.wait(4000);
    pair.leader.commit_all();
    assert_eq!(pair.leader.core.state().session_count(), 1);
    pair.leader.ask(conn(9), 2, OpCode::CloseSession, Op::CloseSession);
    pair.leader.commit_all();
    for id in [1, 2, 3] {
        pair.learner.ask(conn(id), 2, OpCode::Create, create(&format!("/late{id}"), 0));
    }
    let late = pair.learner.forwarded();
    for request in &late {
        pair.leader.say(ToPipeline::Forwarded { learner: LEARNER, request: request.clone() });
    }
    let errors: Vec<i32> = pair.leader.log[before..].iter().filter(|txn| txn.header.cxid == 2).map(error_of).collect();
    assert_eq!(errors, [0, SESSION_EXPIRED, SESSION_EXPIRED, 0], "the close, two that ended, and a local session's");
    // An upgrade of a session that has ended meanwhile makes no new one.
    let session = late[0].session;
    pair.leader.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(session, 4000) });
    assert_eq!(error_of(pair.leader.log.last().unwrap()), SESSION_EXPIRED);
    pair.exchange();
    pair.assert_same();
    assert_eq!(pair.learner.client(conn(3)).replies(), [(2, 0)]);
}

// ---- owners that look like TTL nodes ----

/// The session of a server with the id 255, up for less than five hours: as an owner it looks like a TTL node.
const OF_255: SessionId = SessionId(0xff00_0012_3456_0001_u64 as i64);

/// A state with one node of that owner, on a server without extended types.
fn state_with_owner(has_session: bool) -> Box<State> {
    let mut loader = Loader::new(StateRules::new(OwnerRules::default(), true));
    if has_session {
        loader.session(OF_255, 4000);
    }
    let owned = StatPersisted { ephemeral_owner: OF_255.0, ..StatPersisted::default() };
    loader.node("", None, -1, StatPersisted::default()).unwrap();
    loader.node("/lock", Some(b"held"), -1, owned).unwrap();
    Box::new(loader.finish(Zxid(0x1_0000_0005)))
}

fn leader_of(state: Box<State>) -> Server {
    let mut server = Server::with(Rules { extended_types: false, container_check_interval_ms: 500, ..rules() });
    server.say(ToPipeline::Install { state, durable: false });
    server.say(ToPipeline::Role(Role::Leading { epoch: 2 }));
    server
}

#[test]
fn an_ephemeral_of_a_server_with_the_id_255_ends_with_its_session() {
    let mut server = leader_of(state_with_owner(true));
    let state = server.core.state();
    assert_eq!(state.ephemerals_of(OF_255), ["/lock"]);
    assert_eq!(state.stat(state.tree().lookup("/lock").unwrap()).ephemeral_owner, OF_255.0);
    assert_eq!(state.ttls().len(), 0);
    server.wait(7000);
    server.commit_all();
    assert!(server.core.state().tree().lookup("/lock").is_none());
    assert_eq!(server.core.state().session_count(), 0);
}

#[test]
fn what_may_be_a_ttl_node_is_kept_when_the_key_was_taken_away() {
    let mut server = leader_of(state_with_owner(false));
    server.wait(60_000);
    assert!(server.log.is_empty());
    assert!(server.core.state().tree().lookup("/lock").is_some());
    let mut alone = state_with_owner(false);
    assert!(alone.delete_orphans().is_empty());
}

// ---- a snapshot that holds a part of what comes after it ----

#[test]
fn a_learner_takes_no_digest_for_damage_before_its_state_is_exact() {
    let mut loader = Loader::new(STATE_RULES);
    loader.node("", None, -1, StatPersisted::default()).unwrap();
    let mut state = loader.finish(Zxid(0x1_0000_0000));
    state.doubt_digests();
    let mut server = Server::in_role(Role::Following);
    server.say(ToPipeline::Install { state: Box::new(state), durable: true });
    let promised = written(&mut server, Zxid(0x1_0000_0000));
    assert_eq!(promised, None, "its snapshot promises nothing that it does not know");
    let txn = |counter: i64, tree_digest: u64| {
        let header = TxnHeader { client_id: SESSION, cxid: 0, zxid: Zxid(0x1_0000_0000 + counter), time_ms: 5 };
        let body = TxnBody::CreateSession { timeout_ms: 4000 };
        Txn { header, body, digest: Some(TxnDigest { version: DIGEST_VERSION, tree_digest }) }
    };
    let right = server.core.state().tree_digest();
    server.say(ToPipeline::Deliver { txns: (1..=5).map(|n| txn(n, right + 1)).collect() });
    server.say(ToPipeline::ExactFrom(Zxid(0x1_0000_0006)));
    assert_eq!(server.core.state().digest_mismatches(), 0);
    server.say(ToPipeline::Deliver { txns: vec![txn(6, right), txn(7, right + 1)] });
    assert_eq!(server.core.state().digest_mismatches(), 1);
}

#[test]
fn a_learner_says_that_the_first_digest_behind_a_joint_is_not_its_trees() {
    let mut server = Server::in_role(Role::Following);
    let right = server.core.state().tree_digest();
    let txn = |counter: i64, tree_digest: u64| {
        let header = TxnHeader { client_id: SESSION, cxid: 0, zxid: Zxid(0x1_0000_0000 + counter), time_ms: 5 };
        let body = TxnBody::CreateSession { timeout_ms: 4000 };
        Txn { header, body, digest: Some(TxnDigest { version: DIGEST_VERSION, tree_digest }) }
    };
    // The question whether all is applied is answered behind that.
    let mut found = |joint: i64, txns: Vec<Txn>| {
        server.say(ToPipeline::Joined(Zxid(0x1_0000_0000 + joint)));
        server.say(ToPipeline::Deliver { txns });
        server.say(ToPipeline::CatchUp);
        let told = server.told_quorum();
        assert!(matches!(told.last(), Some(ToQuorum::CaughtUp)), "{told:?}");
        let told = told.into_iter();
        told.filter_map(|mail| if let ToQuorum::Joint(told) = mail { Some(told) } else { None }).collect::<Vec<_>>()
    };
    // That a tree is right is told of any.
    assert_eq!(found(0, vec![txn(1, right)]), [JointVerdict::Right]);
    assert_eq!(found(1, vec![txn(2, right), txn(3, right + 1), txn(4, right)]), [JointVerdict::Right]);
    let wrong = WrongJoint { joint: Zxid(0x1_0000_0004), seen: Zxid(0x1_0000_0005) };
    assert_eq!(found(4, vec![txn(5, right + 1), txn(6, right + 1)]), [JointVerdict::Wrong(wrong)]);
    assert_eq!(found(6, vec![txn(7, right + 1)]), [JointVerdict::Open], "it was wrong before that joint");
    // A start could not tell the two histories any more by what is in such a snapshot.
    server.to_snapshot.clear();
    server.say(ToPipeline::TakeSnapshot);
    assert!(server.to_snapshot.is_empty());
}

// ---- time in which a server did not run ----

#[test]
fn a_leader_that_did_not_run_expires_nobody_who_was_heard_of_elsewhere() {
    let mut leader = Server::leader();
    leader.connect(conn(1));
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    leader.commit_all();
    let live = |server: &Server| server.core.state().session_count();
    leader.wait(1000);
    // It stops; its clients, and those of its learner, do not. Time alone makes the first turn.
    leader.stop_for(60_000);
    assert_eq!(leader.log.len(), 2, "nothing expires");
    leader.say(ToPipeline::Touched { sessions: vec![(SESSION, 4000)] });
    leader.wait(1000);
    leader.ask(conn(1), 1, OpCode::Ping, Op::Read(ReadOp::Ping));
    leader.wait(4000);
    assert_eq!(leader.log.len(), 2);
    // Who is silent from then on has its timeout, and no more.
    leader.wait(4000);
    leader.commit_all();
    assert_eq!(live(&leader), 0);
}

#[test]
fn a_leader_that_stops_all_the_time_expires_sessions_all_the_same() {
    let mut leader = Server::leader();
    leader.connect(conn(1));
    leader.commit_all();
    // Each turn comes far too late: the time between counts as what was asked for.
    (0..12).for_each(|_| leader.stop_for(9000));
    leader.commit_all();
    assert_eq!(leader.core.state().session_count(), 0);
}

#[test]
fn a_ttl_node_is_not_removed_before_what_refreshes_it_is_taken_in() {
    let mut leader = Server::with(Rules { container_check_interval_ms: 1000, ..rules() });
    leader.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    leader.connect(conn(1));
    let node = Op::Write(WriteOp::Create(Create { code: OpCode::CreateTtl, ttl_ms: 3000, ..created("/ttl", 5) }));
    leader.ask(conn(1), 1, OpCode::CreateTtl, node);
    leader.commit_all();
    leader.wait(1000);
    leader.stop_for(6000);
    let refresh = Op::Write(WriteOp::SetData(SetData { path: "/ttl".into(), data: None, version: -1 }));
    leader.ask(conn(1), 2, OpCode::SetData, refresh);
    leader.commit_all();
    leader.wait(2000);
    assert!(leader.core.state().tree().lookup("/ttl").is_some());
    leader.ask(conn(1), 3, OpCode::Ping, Op::Read(ReadOp::Ping));
    leader.wait(3000);
    leader.commit_all();
    assert!(leader.core.state().tree().lookup("/ttl").is_none(), "its time is up");
}

#[test]
fn a_local_session_is_not_expired_by_a_server_that_did_not_run() {
    let mut server = Server::with(Rules { local_sessions: true, ..rules() });
    server.say(ToPipeline::Role(Role::Following));
    server.connect(conn(1));
    server.wait(1000);
    server.stop_for(60_000);
    server.ask(conn(1), 1, OpCode::Ping, Op::Read(ReadOp::Ping));
    server.wait(3000);
    assert!(!server.client(conn(1)).closed);
    server.wait(4000);
    assert!(server.client(conn(1)).closed);
}

#[test]
fn what_follows_an_upgrade_is_done_in_its_order_in_hand_or_later() {
    let rules = Rules { local_sessions: true, local_sessions_upgrading: true, ..rules() };
    let requests = |id: u32| {
        [
            (1, OpCode::Create, create(&format!("/before{id}"), 0)),
            (2, OpCode::Exists, exists(&format!("/e{id}"), false)),
            (3, OpCode::Create, create(&format!("/e{id}"), 1)),
            (4, OpCode::Exists, exists(&format!("/e{id}"), false)),
            (5, OpCode::Create, create(&format!("/f{id}"), 1)),
            (6, OpCode::Create, create(&format!("/after{id}"), 0)),
            (7, OpCode::Sync, Op::Read(ReadOp::Sync { path: None })),
            (8, OpCode::Ping, Op::Read(ReadOp::Ping)),
        ]
    };
    // All at once, and each when the one before it is answered.
    for at_once in [true, false] {
        let mut pair = Pair::with(rules.clone(), Role::Following);
        for id in [1, 2] {
            if id == 1 {
                pair.learner.connect(conn(id))
            } else {
                pair.leader.connect(conn(id))
            }
            for (xid, code, op) in requests(id) {
                let server = if id == 1 { &mut pair.learner } else { &mut pair.leader };
                server.ask(conn(id), xid, code, op);
                if !at_once {
                    pair.exchange();
                }
            }
            pair.exchange();
            let server = if id == 1 { &pair.learner } else { &pair.leader };
            let replies: Vec<i32> = server.client(conn(id)).replies().iter().map(|(_, err)| *err).collect();
            assert_eq!(replies, [0, NO_NODE, 0, 0, 0, 0, 0, 0], "at once: {at_once}");
            let session = server.client(conn(id)).session.unwrap();
            let owned = [format!("/e{id}"), format!("/f{id}")];
            assert_eq!(pair.leader.core.state().ephemerals_of(session), owned);
        }
        assert_eq!(pair.leader.core.state().session_count(), 2);
        pair.assert_same();
    }
}

#[test]
fn a_member_of_an_ensemble_stops_without_waiting_for_the_others() {
    let mut server = Server::leader();
    server.connect(conn(1));
    server.commit_all();
    server.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    server.say(ToPipeline::Stop);
    assert!(server.stopped);
    let client = server.client(conn(1));
    assert_eq!((client.answered, client.closed, client.replies()), (1, true, vec![]));
}

#[test]
fn a_leader_that_does_not_serve_leads_without_clients_of_its_own() {
    let mut pair = Pair::with(Rules { leader_serves: false, ..rules() }, Role::Following);
    pair.leader.connect(conn(1));
    assert!(pair.leader.client(conn(1)).closed);
    assert_eq!(pair.leader.core.mode(), Mode::NotServing, "as its client port says");
    pair.learner.connect(conn(1));
    pair.exchange();
    pair.learner.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    pair.exchange();
    assert_eq!(pair.learner.client(conn(1)).replies(), [(1, 0)]);
    // Alone it has nobody else to serve.
    let mut alone = Server::with(Rules { leader_serves: false, ensemble: false, ..rules() });
    alone.connect(conn(1));
    alone.commit_all();
    assert!(alone.client(conn(1)).session.is_some());
}

// ---- reconfiguration ----

fn members(ids: &[i64], version: i64) -> ToPipeline {
    let text: String = ids.iter().map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
    let committed = Members { version, ..Members::parse_text(text.as_bytes()).unwrap() };
    ToPipeline::Configs(Box::new(Configs { committed, last_seen: None, reconfig_enabled: true }))
}

/// A leader of three, with two clients; one of them has asked for a list without it, and the other one for a node.
fn reconfiguring() -> Server {
    let rules = Rules { server_id: 1, reconfig_enabled: true, skip_acl: true, forwarded_bytes_max: 10_000, ..rules() };
    let mut leader = Server::with(rules);
    leader.say(members(&[1, 2, 3], 5));
    leader.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    leader.say(ToPipeline::Followers([ServerId(2), ServerId(3)].into()));
    leader.connect(conn(1));
    leader.connect(conn(2));
    leader.commit_all();
    let new_members = Some("server.2=h2:1:2,server.3=h3:1:2".to_owned());
    let reconfig = Reconfig { joining: None, leaving: None, new_members, cur_config_id: -1 };
    leader.ask(conn(1), 1, OpCode::Reconfig, Op::Write(WriteOp::Reconfig(reconfig)));
    assert!(matches!(leader.log.last().unwrap().body, TxnBody::Reconfig(_)));
    leader
}

#[test]
fn nothing_is_proposed_behind_a_reconfiguration_until_its_list_is_in_force() {
    let mut leader = reconfiguring();
    let proposed = leader.log.len();
    leader.ask(conn(2), 1, OpCode::Create, create("/a", 0));
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    let request = forwarded(SESSION, 1, OpCode::Create, create("/b", 0));
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request });
    leader.connect(conn(3));
    leader.connect(conn(4));
    leader.say(ToPipeline::Disconnected { conn: conn(4) });
    // No session ends meanwhile either: what its client said may be among what waits.
    leader.wait(60_000);
    assert!(leader.core.next_deadline_ms() > leader.now.mono_ms);
    leader.commit_all();
    assert_eq!(leader.client(conn(1)).replies(), [(1, 0)]);
    assert_eq!(leader.log.len(), proposed);

    leader.say(members(&[2, 3], leader.log[proposed - 1].header.zxid.0));
    let paths: Vec<_> = leader.log[proposed..].iter().map(|txn| txn.body.kind()).collect();
    // What learners forwarded comes first, in the order in which it came; then what came of this server's own clients.
    assert_eq!(paths, [kind::CREATE_SESSION, kind::CREATE, kind::CREATE, kind::CREATE_SESSION, kind::CREATE_SESSION]);
    assert_eq!(leader.log[proposed + 1].header.client_id, SESSION);
    leader.commit_all();
    assert_eq!(leader.client(conn(2)).replies(), [(1, 0)]);
    assert!(leader.client(conn(3)).session.is_some());
}

#[test]
fn what_a_learner_forwards_during_a_reconfiguration_is_bounded_and_stays_in_order() {
    let mut leader = reconfiguring();
    let proposed = leader.log.len();
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    for cxid in 1..=8 {
        let request = match cxid {
            1 => forwarded(SESSION, cxid, OpCode::Create, create("/a", 0)),
            _ => forwarded(SESSION, cxid, OpCode::SetData, set("/a", 3000)),
        };
        leader.say(ToPipeline::Forwarded { learner: LEARNER, request });
    }
    let sync = forwarded(SESSION, 9, OpCode::Sync, Op::Read(ReadOp::Sync { path: Some("/".into()) }));
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request: sync });
    leader.told_quorum();
    leader.commit_all();
    assert_eq!(leader.log.len(), proposed);
    leader.say(members(&[2, 3], leader.log[proposed - 1].header.zxid.0));
    leader.commit_all();
    let told: Vec<_> = leader.log[proposed..].iter().map(|txn| (txn.header.cxid, error_of(txn))).collect();
    let in_full = (0..=4).map(|cxid| (cxid, 0));
    assert_eq!(told, in_full.chain((5..=8).map(|cxid| (cxid, THROTTLED_OP))).collect::<Vec<_>>());
    let last = leader.log.last().unwrap().header.zxid;
    assert!(
        leader.told_quorum().iter().any(|told| matches!(told, ToQuorum::SyncReady { after, .. } if *after == last))
    );
}

#[test]
fn a_learner_that_is_gone_during_a_reconfiguration_leaves_nothing_behind() {
    let mut leader = reconfiguring();
    let proposed = leader.log.len();
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    leader.say(ToPipeline::LearnerGone { learner: LEARNER });
    leader.commit_all();
    leader.say(members(&[2, 3], leader.log[proposed - 1].header.zxid.0));
    assert_eq!(leader.log.len(), proposed);
}

#[test]
fn who_hands_over_proposes_nothing_more_and_answers_everybody_once() {
    let mut leader = reconfiguring();
    let proposed = leader.log.len();
    leader.ask(conn(2), 1, OpCode::Create, create("/a", 0));
    leader.connect(conn(3));
    let request = forwarded(SESSION, 1, OpCode::Create, create("/b", 0));
    leader.say(ToPipeline::Forwarded { learner: LEARNER, request });
    leader.commit_all();
    leader.say(ToPipeline::Role(Role::Looking));
    assert_eq!((leader.client(conn(1)).answered, leader.client(conn(1)).replies()), (1, vec![(1, 0)]));
    assert_eq!((leader.client(conn(2)).answered, leader.client(conn(2)).closed), (1, true));
    assert!(leader.client(conn(3)).closed && leader.client(conn(3)).session.is_none());
    assert_eq!(leader.log.len(), proposed);

    let mut leader = reconfiguring();
    leader.ask(conn(2), 1, OpCode::Create, create("/a", 0));
    leader.say(ToPipeline::Stop);
    assert!(leader.stopped);
    assert_eq!((leader.client(conn(2)).answered, leader.log.len()), (1, proposed));
}

/// What a leader of three in epoch 1, whose list has this version, answers to a change of it.
fn answer_to(version: i64, joining: Option<&str>, leaving: Option<&str>) -> i32 {
    let mut leader = Server::with(Rules { server_id: 1, reconfig_enabled: true, skip_acl: true, ..rules() });
    leader.say(members(&[1, 2, 3], version));
    leader.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    leader.say(ToPipeline::Followers([ServerId(2)].into()));
    leader.connect(conn(1));
    leader.commit_all();
    let [joining, leaving] = [joining, leaving].map(|text| text.map(str::to_owned));
    let reconfig = Reconfig { joining, leaving, new_members: None, cur_config_id: -1 };
    leader.ask(conn(1), 1, OpCode::Reconfig, Op::Write(WriteOp::Reconfig(reconfig)));
    match &leader.log.last().unwrap().body {
        TxnBody::Error(code) => *code,
        _ => 0,
    }
}

#[test]
fn a_list_that_could_not_follow_the_one_in_force_is_refused() {
    assert_eq!((answer_to(5, None, Some("3")), answer_to(0x5_0000_0000, None, Some("3"))), (0, -8));
}

#[test]
fn a_list_that_a_start_refuses_or_warns_of_is_refused() {
    for joining in ["server.-1=h4:1:2;3", "server.4=h2:1:9;3", "server.4=h4:1:2;h3:2"] {
        assert_eq!(answer_to(5, Some(joining), None), -8, "{joining}");
    }
    assert_eq!(answer_to(5, Some("server.4=h4:1:2;3"), Some("3")), 0);
}

// ---- more than can be worked at ----

fn set(path: &str, bytes: usize) -> Op {
    Op::Write(WriteOp::SetData(SetData { path: path.into(), data: Some(vec![b'x'; bytes]), version: -1 }))
}

/// A leader that has room for so many bytes of proposals, with a node `/a`, and its first client.
fn leader_with_room(proposed_bytes_max: usize) -> Server {
    let mut server = Server::with(Rules { proposed_bytes_max, forwarded_bytes_max: 10_000, ..rules() });
    server.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    server.connect(conn(1));
    server.commit_all();
    server.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    server.commit_all();
    server.log.clear();
    server
}

/// Session and cxid of each transaction since the last time.
fn cxids(server: &mut Server) -> Vec<i32> {
    server.log.drain(..).map(|txn| txn.header.cxid).collect()
}

fn commit_to(server: &mut Server, zxid: Zxid) {
    server.say(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
}

#[test]
fn a_leader_proposes_no_more_than_it_has_room_for_and_the_rest_in_order() {
    let mut server = leader_with_room(5000);
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    let first = server.log[0].header.zxid;
    for cxid in 2..=9 {
        match cxid % 2 {
            0 => server.ask(conn(1), cxid, OpCode::SetData, set("/a", 2000)),
            _ => {
                let request = forwarded(SESSION, cxid, OpCode::SetData, set("/a", 2000));
                server.say(ToPipeline::Forwarded { learner: LEARNER, request });
            }
        }
    }
    // A read waits for the write before it, though that is not even proposed.
    server.ask(conn(1), 10, OpCode::Exists, exists("/a", false));
    let sync = forwarded(SESSION, 11, OpCode::Sync, Op::Read(ReadOp::Sync { path: Some("/".into()) }));
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: sync });
    assert_eq!(cxids(&mut server), [0, 2, 3, 4], "one more once there is room");
    assert!(server.told_quorum().is_empty() && server.client(conn(1)).replies().len() == 1);
    commit_to(&mut server, Zxid(first.0 + 2));
    assert_eq!(cxids(&mut server), [5, 6]);
    commit_to(&mut server, Zxid(first.0 + 5));
    assert_eq!(cxids(&mut server), [7, 8, 9]);
    commit_to(&mut server, Zxid(first.0 + 8));
    let told = server.told_quorum();
    assert!(
        matches!(told[..], [ToQuorum::SyncReady { learner: LEARNER, after }] if after.0 == first.0 + 8),
        "{told:?}"
    );
    assert_eq!(server.client(conn(1)).replies(), [1, 2, 4, 6, 8, 10].map(|xid| (xid, 0)));
    assert_eq!(server.client(conn(1)).answered, 6);
}

#[test]
fn a_leader_whose_own_log_stalls_while_others_carry_the_quorum_proposes_no_more_than_its_queue_has_room_for() {
    let mut server = Server::with(Rules { log_queue_bytes_max: 3 << 20, ..rules() });
    server.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    server.connect(conn(1));
    server.commit_all();
    server.ask(conn(1), 1, OpCode::Create, create("/a", 0));
    server.commit_all();
    server.log.clear();
    for cxid in 2..=9 {
        server.ask(conn(1), cxid, OpCode::SetData, set("/a", 700_000));
        // Whatever is proposed is committed at once.
        if let Some(txn) = server.log.last() {
            let zxid = txn.header.zxid;
            commit_to(&mut server, zxid);
        }
    }
    assert_eq!(cxids(&mut server), [2, 3, 4, 5, 6]);
    let logged: usize = server.logged.drain(..).sum();
    assert!((2 << 20..4 << 20).contains(&logged), "{logged}");
    server.say(ToPipeline::Logged { bytes: logged });
    assert_eq!(cxids(&mut server), [7, 8, 9]);
    assert!(server.logged.iter().sum::<usize>() > 2_000_000, "the log is asked again");
}

#[test]
fn a_write_that_is_larger_than_the_room_is_proposed_alone() {
    let mut server = leader_with_room(1000);
    for cxid in 2..=4 {
        server.ask(conn(1), cxid, OpCode::SetData, set("/a", 50_000));
    }
    for cxid in 2..=4 {
        let zxid = server.log[0].header.zxid;
        assert_eq!(cxids(&mut server), [cxid]);
        commit_to(&mut server, zxid);
    }
    assert_eq!(server.client(conn(1)).replies().len(), 4);
}

#[test]
fn what_waits_to_be_proposed_ends_with_the_role_or_its_session_and_is_answered_once() {
    let mut server = leader_with_room(1000);
    server.connect(conn(2));
    server.commit_all();
    server.log.clear();
    for (cxid, client) in [(2, 1), (3, 1), (4, 2), (5, 1)] {
        server.ask(conn(client), cxid, OpCode::SetData, set("/a", 2000));
    }
    server.say(ToPipeline::Disconnected { conn: conn(2) });
    assert_eq!(server.client(conn(2)).answered, 0, "it is done all the same");
    // Its turn comes when the session is gone.
    let session = server.client(conn(1)).session.unwrap();
    server.wait(20_000);
    let closes =
        |server: &Server| server.log.iter().filter(|txn| matches!(txn.body, TxnBody::CloseSession { .. })).count();
    assert_eq!(closes(&server), 1, "time does not wait for what is proposed, but for those who wait for it");
    server.say(ToPipeline::Disconnected { conn: conn(1) });
    server.wait(20_000);
    assert_eq!(closes(&server), 2);
    let mut all = Vec::new();
    while !server.log.is_empty() {
        server.commit_all();
        let committed = server.log.iter().take_while(|txn| txn.header.zxid <= server.core.state().last_zxid()).count();
        all.extend(server.log.drain(..committed));
    }
    let of_first = all.iter().filter(|txn| txn.header.client_id == session && txn.header.cxid > 0);
    let errors: Vec<_> = of_first.map(|txn| (txn.header.cxid, error_of(txn))).collect();
    assert_eq!(errors, [(2, 0), (3, SESSION_EXPIRED), (5, SESSION_EXPIRED)]);
    assert_eq!((server.client(conn(1)).answered, server.client(conn(2)).answered), (4, 1));

    let mut server = leader_with_room(1000);
    for cxid in 2..=5 {
        server.ask(conn(1), cxid, OpCode::SetData, set("/a", 2000));
    }
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    server.say(ToPipeline::Role(Role::Looking));
    assert_eq!((server.client(conn(1)).answered, cxids(&mut server)), (5, vec![2]));
    server.say(ToPipeline::Role(Role::Leading { epoch: 2 }));
    assert!(server.log.is_empty());
}

#[test]
fn what_a_learner_passes_on_is_bounded_and_refused_beyond() {
    let mut server = leader_with_room(1000);
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 4000) });
    server.say(ToPipeline::Forwarded { learner: OTHER_LEARNER, request: new_session(SessionId(9), 4000) });
    server.commit_all();
    server.log.clear();
    for cxid in 1..=6 {
        let request = forwarded(SESSION, cxid, OpCode::SetData, set("/a", 3000));
        server.say(ToPipeline::Forwarded { learner: LEARNER, request });
    }
    // Small ones cost little, and another learner has a bound of its own.
    let request = forwarded(SESSION, 7, OpCode::SetData, set("/a", 10));
    server.say(ToPipeline::Forwarded { learner: LEARNER, request });
    let request = forwarded(SessionId(9), 8, OpCode::SetData, set("/a", 20_000));
    server.say(ToPipeline::Forwarded { learner: OTHER_LEARNER, request });
    let mut errors = Vec::new();
    while let Some(last) = server.log.last() {
        let zxid = last.header.zxid;
        errors.extend(server.log.drain(..).map(|txn| (txn.header.cxid, error_of(&txn))));
        commit_to(&mut server, zxid);
    }
    let refused = |cxid| (cxid, THROTTLED_OP);
    assert_eq!(errors, [(1, 0), (2, 0), (3, 0), (4, 0), refused(5), refused(6), (7, 0), (8, 0)]);
    // What waits for a learner that is gone is nobody's.
    for cxid in 9..=12 {
        let request = forwarded(SESSION, cxid, OpCode::SetData, set("/a", 3000));
        server.say(ToPipeline::Forwarded { learner: LEARNER, request });
    }
    server.say(ToPipeline::LearnerGone { learner: LEARNER });
    server.commit_all();
    assert_eq!(cxids(&mut server), [9]);
}

#[test]
fn a_learner_says_now_and_then_how_much_it_has_applied() {
    let mut server = Server::in_role(Role::Following);
    let mut txns = Vec::new();
    let mut bytes = 0;
    for counter in 1..=3 {
        let header = TxnHeader { client_id: SESSION, cxid: 0, zxid: Zxid(0x1_0000_0000 + counter), time_ms: 5 };
        let acl = Acl::open();
        let (path, data) = (format!("/{counter}"), Some(vec![0; 600_000]));
        let create = CreateTxn { path, data, acl, owner: CreateOwner::None, with_stat: false, parent_cversion: 1 };
        let txn = Txn { header, body: TxnBody::Create(create), digest: None };
        bytes += txn.size_hint();
        txns.push(txn);
    }
    let third = txns.pop().unwrap();
    for (txn, told) in [(txns.remove(0), None), (txns.remove(0), Some(bytes - third.size_hint())), (third, None)] {
        server.say(ToPipeline::Deliver { txns: vec![txn] });
        match (server.told_quorum().as_slice(), told) {
            ([], None) => {}
            ([ToQuorum::Applied { bytes }], Some(told)) => assert_eq!(*bytes, told),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_waits_for_room_at_the_door_is_alive() {
    let mut server = Server::leader();
    server.connect(conn(1));
    server.commit_all();
    for _ in 0..20 {
        server.wait(3000);
        server.say(ToPipeline::Waits { conn: conn(1) });
    }
    assert_eq!(server.log.len(), 1);
    server.wait(10_000);
    assert!(matches!(server.log[1].body, TxnBody::CloseSession { .. }));
    // A follower tells its leader.
    let mut server = Server::in_role(Role::Following);
    server.connect(conn(1));
    let session = server.forwarded().remove(0).session;
    server.say(ToPipeline::Waits { conn: conn(1) });
    server.say(ToPipeline::TellTouched);
    assert!(matches!(&server.told_quorum()[..], [ToQuorum::Touched(touched)] if touched == &[(session, 4000)]));
}

#[test]
fn a_learner_says_of_those_who_wait_for_its_answer_that_they_are_alive() {
    for role in [Role::Following, Role::Observing] {
        let mut pair = Pair::with(Rules { full_bytes: 100, ..rules() }, role);
        pair.learner.connect(conn(1));
        pair.learner.connect(conn(2));
        pair.exchange();
        let [one, two] = [1, 2].map(|n| pair.learner.client(conn(n)).session.unwrap());
        let touched = |pair: &mut Pair| {
            pair.learner.say(ToPipeline::TellTouched);
            match pair.learner.told_quorum().pop() {
                Some(ToQuorum::Touched(touched)) => touched,
                other => panic!("{other:?}"),
            }
        };
        touched(&mut pair);
        assert_eq!(touched(&mut pair), []);
        // One's write is at the leader, the other one has not taken two stats.
        pair.learner.ask(conn(1), 1, OpCode::Create, create("/a", 0));
        pair.learner.ask(conn(2), 1, OpCode::Exists, exists("/", false));
        let request = rookeeper::ops::Request { xid: 2, op_number: 3, op: exists("/", false), body: Vec::new() };
        pair.learner.core.step(ToPipeline::Request { conn: conn(2), request: request.clone(), received_us: 0 });
        pair.learner.core.step(ToPipeline::Request { conn: conn(2), request, received_us: 0 });
        touched(&mut pair);
        assert_eq!(touched(&mut pair), [(one, 4000), (two, 4000)]);
        pair.learner.say(ToPipeline::Drained { conn: conn(2) });
        touched(&mut pair);
        assert_eq!(touched(&mut pair), [(one, 4000)]);
        pair.learner.say(ToPipeline::Disconnected { conn: conn(1) });
        assert_eq!(touched(&mut pair), []);
    }
}

#[test]
fn who_connected_before_is_let_in_once_the_list_of_members_is_in_force() {
    let mut leader = Server::with(Rules { reconfig_enabled: true, skip_acl: true, connect_hold_ms: 1000, ..rules() });
    (1..=600).for_each(|n| leader.connect(conn(n)));
    leader.say(members(&[1, 2, 3], 5));
    leader.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    leader.say(ToPipeline::Followers([ServerId(2), ServerId(3)].into()));
    leader.commit_all();
    let new_members = Some("server.2=h2:1:2,server.3=h3:1:2".to_owned());
    let reconfig = Reconfig { joining: None, leaving: None, new_members, cur_config_id: -1 };
    leader.ask(conn(1), 1, OpCode::Reconfig, Op::Write(WriteOp::Reconfig(reconfig)));
    let proposed = leader.log.len();
    assert!(matches!(leader.log[proposed - 1].body, TxnBody::Reconfig(_)) && proposed < 600);
    leader.wait(5000);
    assert_eq!(leader.log.len(), proposed, "nothing is proposed behind it");
    assert!(leader.core.next_deadline_ms() > leader.now.mono_ms);
    leader.commit_all();
    leader.say(members(&[2, 3], leader.log[proposed - 1].header.zxid.0));
    leader.wait(3);
    leader.commit_all();
    assert!((1..=600).all(|n| leader.client(conn(n)).session.is_some()));
}

#[test]
fn who_connects_while_a_leader_is_looked_for_is_answered_when_there_is_one() {
    let holding = || Server::with(Rules { connect_hold_ms: 1000, ..rules() });
    let mut server = holding();
    for n in 1..=600 {
        server.connect(conn(n));
    }
    server.say(ToPipeline::Disconnected { conn: conn(2) });
    server.wait(900);
    assert!(server.clients.is_empty(), "neither answered nor closed");
    server.say(ToPipeline::Role(Role::Leading { epoch: 1 }));
    server.wait(3);
    server.commit_all();
    let with_session = server.clients.values().filter(|client| client.session.is_some()).count();
    assert_eq!((with_session, server.clients.contains_key(&conn(2))), (599, false));
    // A role that ends takes its connections along, and no others.
    server.say(ToPipeline::Role(Role::Looking));
    assert!(server.client(conn(1)).closed);
    server.connect(conn(1000));
    server.say(ToPipeline::Install { state: Box::new(State::fresh(STATE_RULES)), durable: true });
    server.say(ToPipeline::Role(Role::Leading { epoch: 2 }));
    server.commit_all();
    assert!(server.client(conn(1000)).session.is_some());
    // Not for ever, and not when this server stops.
    let mut server = holding();
    server.connect(conn(1));
    server.wait(400);
    server.connect(conn(2));
    server.wait(600);
    assert!(server.client(conn(1)).closed && !server.clients.contains_key(&conn(2)));
    server.say(ToPipeline::Stop);
    assert!(server.client(conn(2)).closed);
}

#[test]
fn who_had_no_answer_to_its_connect_request_when_a_role_ends_gets_it_in_the_next() {
    // The client of a leader that died was here before the news of it.
    let mut server = Server::with(Rules { connect_hold_ms: 1000, ..rules() });
    server.say(ToPipeline::Role(Role::Following));
    server.connect(conn(1));
    let lost = server.forwarded().remove(0).session;
    let old = SessionId(77);
    server.connect_with(conn(2), old, rookeeper_password(old.0));
    server.say(ToPipeline::Role(Role::Looking));
    server.wait(900);
    assert!(server.clients.is_empty(), "neither answered nor closed");
    server.told_quorum();
    server.say(ToPipeline::Role(Role::Following));
    let asked = server.told_quorum();
    let [ToQuorum::Forward(begun), ToQuorum::Revalidate { session: SessionId(77), .. }] = &asked[..] else {
        panic!("{asked:?}");
    };
    let again = begun.session;
    assert_ne!(lost, again);
    // The leader of before had logged the first one: nobody has that session now.
    for (n, session) in [(1, lost), (2, again)] {
        let header = TxnHeader { client_id: session, cxid: 0, zxid: Zxid(0x1_0000_0000 + n), time_ms: 5 };
        let txn = Txn { header, body: TxnBody::CreateSession { timeout_ms: 4000 }, digest: None };
        server.say(ToPipeline::Deliver { txns: vec![txn] });
    }
    server.say(ToPipeline::Revalidated { session: old, valid: true });
    assert_eq!((server.client(conn(1)).session, server.client(conn(2)).session), (Some(again), Some(old)));
    // Where connect requests do not wait, it is closed.
    let mut server = Server::in_role(Role::Following);
    server.connect(conn(1));
    server.say(ToPipeline::Role(Role::Looking));
    assert!(server.client(conn(1)).closed);
}
