//! The pipeline as a member of an ensemble. This test is its quorum thread and its log: it says what the server becomes,
//! commits, delivers, and forwards what learners would.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

#[path = "support/encode.rs"]
mod encode;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rookeeper::admin::view::{Mode, ServerView, Settings};
use rookeeper::ids::{ConnId, Now, SessionId, Zxid};
use rookeeper::jute::{Reader, Writer};
use rookeeper::mail::{Fate, LogRecord, Outgoing, Role, ToPipeline, ToQuorum, ToSnapshot};
use rookeeper::ops::{ConnectRequest, Create, Op, OpCode, PathWatch, Request};
use rookeeper::pipeline::{Outbox, Pipeline, Rules, SnapshotRules};
use rookeeper::quorum::LinkId;
use rookeeper::quorum::packet::ForwardedRequest;
use rookeeper::records::{Acl, OwnerRules};
use rookeeper::state::acl::AuthId;
use rookeeper::state::{Loader, State, StateRules};
use rookeeper::storage::snapshot;
use rookeeper::txn::{Txn, TxnBody, TxnHeader};

const STATE_RULES: StateRules =
    StateRules { owners: OwnerRules { extended_types: true, emulate_353: false }, digest_enabled: true };
const LEARNER: LinkId = LinkId(7);
const OTHER_LEARNER: LinkId = LinkId(8);
const SESSION: SessionId = SessionId(0x0200_0000_0000_0001);

const SESSION_MOVED: i32 = -118;
const SESSION_EXPIRED: i32 = -112;
const NODE_EXISTS: i32 = -110;
const UNIMPLEMENTED: i32 = -6;
const MARSHALLING_ERROR: i32 = -5;

fn rules() -> Rules {
    Rules {
        settings: Settings {
            client_port: 2181,
            secure_client_port: -1,
            data_dir: "data".into(),
            data_log_dir: "data".into(),
            tick_ms: 2000,
            max_client_cnxns: 60,
            min_session_timeout_ms: 4000,
            max_session_timeout_ms: 40_000,
            client_port_listen_backlog: -1,
            server_id: 1,
            quorum: None,
        },
        tick_ms: 2000,
        session_timeout_ms_min: 4000,
        session_timeout_ms_max: 40_000,
        ensemble: true,
        server_id: 1,
        request_bytes_max: 1 << 20,
        digest_enabled: true,
        txn_body_bytes_max: 2_000_000,
        close_session_txn: true,
        extended_types: true,
        enforce_quota: false,
        skip_acl: false,
        reconfig_enabled: false,
        digest_auth: None,
        enforced_schemes: Vec::new(),
        ensemble_names: None,
        drops_stale_requests: false,
        throttled_op_wait_ms: 0,
        container_check_interval_ms: 60_000,
        container_max_per_minute: 10_000,
        container_never_used_ms_max: 0,
        full_bytes: 1 << 20,
        snapshots: SnapshotRules { snap_count: 100_000, snap_size_bytes: 0 },
    }
}

/// A client's side of its connection.
#[derive(Debug, Default)]
struct Client {
    bytes: Vec<u8>,
    session: Option<SessionId>,
    closed: bool,
    answered: u32,
}

impl Client {
    /// Xid and error of each reply, the handshake's left out.
    fn replies(&self) -> Vec<(i32, i32)> {
        let mut replies = Vec::new();
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let mut frame = Reader::new(rest);
            let length = frame.int().unwrap() as usize;
            let (xid, _zxid, err) = (frame.int().unwrap(), frame.long().unwrap(), frame.int().unwrap());
            // The handshake is the only frame of this length that begins with protocol version 0.
            if !(xid == 0 && matches!(length, 36 | 37)) {
                replies.push((xid, err));
            }
            rest = &rest[4 + length..];
        }
        replies
    }
}

/// A pipeline, and all that it said.
struct Server {
    core: Pipeline,
    now: Now,
    clients: BTreeMap<ConnId, Client>,
    log: Vec<Txn>,
    to_quorum: Vec<ToQuorum>,
    to_snapshot: Vec<ToSnapshot>,
    stopped: bool,
}

impl Server {
    /// In no role yet.
    fn new() -> Server {
        Server::with(rules())
    }

    fn with(rules: Rules) -> Server {
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 };
        Server {
            core: Pipeline::new(rules, State::fresh(STATE_RULES), now, 1),
            now,
            clients: BTreeMap::new(),
            log: Vec::new(),
            to_quorum: Vec::new(),
            to_snapshot: Vec::new(),
            stopped: false,
        }
    }

    fn in_role(role: Role) -> Server {
        let mut server = Server::new();
        server.say(ToPipeline::Role(role));
        server
    }

    fn leader() -> Server {
        Server::in_role(Role::Leading { epoch: 1 })
    }

    fn say(&mut self, mail: ToPipeline) {
        self.core.step(mail);
        self.gather();
    }

    fn gather(&mut self) {
        let Outbox { records, snapshot, quorum, poller, stopped, .. } = self.core.take_outbox();
        self.log.extend(records.iter().map(|LogRecord { payload, .. }| Txn::from_bytes(payload).unwrap()));
        self.to_snapshot.extend(snapshot);
        self.to_quorum.extend(quorum);
        self.stopped |= stopped;
        for Outgoing { conn, bytes, answered, fate, .. } in poller.outgoing {
            let client = self.clients.entry(conn).or_default();
            client.answered += answered;
            if !client.closed {
                client.bytes.extend(bytes);
            }
            match fate {
                Fate::Open => {}
                Fate::Established { session, .. } => client.session = Some(session),
                Fate::Close => client.closed = true,
            }
        }
    }

    fn commit_all(&mut self) {
        let zxid = self.log.last().unwrap().header.zxid;
        self.say(ToPipeline::Committed { zxid });
    }

    fn wait(&mut self, ms: i64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        self.core.set_time(self.now, self.now.mono_ms * 1000);
        self.core.tick();
        self.gather();
    }

    fn connect_with(&mut self, conn: ConnId, session: SessionId, password: Vec<u8>) {
        let peer: SocketAddr = "127.0.0.1:1234".parse().unwrap();
        let request = ConnectRequest {
            last_zxid_seen: 0,
            timeout_ms: 4000,
            session_id: session.0,
            password,
            read_only: Some(true),
        };
        self.say(ToPipeline::Connect { conn, peer, request });
    }

    fn connect(&mut self, conn: ConnId) {
        self.connect_with(conn, SessionId::NONE, Vec::new());
    }

    /// As the poller reads it: with its bytes.
    fn ask(&mut self, conn: ConnId, xid: i32, code: OpCode, op: Op) {
        let frame = encode::request(&Request { xid, op_number: code as i32, op, body: Vec::new() });
        let mut request = rookeeper::ops::decode(&frame).unwrap();
        request.keep_body(&frame);
        self.say(ToPipeline::Request { conn, request, received_us: self.now.mono_ms * 1000 });
    }

    fn client(&self, conn: ConnId) -> &Client {
        &self.clients[&conn]
    }

    /// What went to the quorum thread since this was asked last.
    fn told_quorum(&mut self) -> Vec<ToQuorum> {
        std::mem::take(&mut self.to_quorum)
    }

    fn forwarded(&mut self) -> Vec<ForwardedRequest> {
        let requests = self.told_quorum().into_iter().map(|mail| match mail {
            ToQuorum::Forward(request) => request,
            other => panic!("{other:?}"),
        });
        requests.collect()
    }
}

/// A leader and a learner of it, and the wire between them.
struct Pair {
    leader: Server,
    learner: Server,
    delivered: usize,
}

impl Pair {
    fn new(role: Role) -> Pair {
        let mut learner = Server::with(Rules { server_id: 2, ..rules() });
        learner.say(ToPipeline::Role(role));
        Pair { leader: Server::leader(), learner, delivered: 0 }
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

fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: slot }
}

fn create(path: &str, flags: i32) -> Op {
    Op::Create(Create {
        code: OpCode::Create,
        path: path.into(),
        data: Some(b"data".to_vec()),
        acl: Some(Acl::open()),
        flags,
        ttl_ms: -1,
    })
}

fn exists(path: &str, watch: bool) -> Op {
    Op::Exists(PathWatch { path: path.into(), watch })
}

/// What a learner sends for a client of its own.
fn forwarded(session: SessionId, cxid: i32, code: OpCode, op: Op) -> ForwardedRequest {
    let frame = encode::request(&Request { xid: cxid, op_number: code as i32, op, body: Vec::new() });
    let auth = Some(vec![AuthId::new("ip", "127.0.0.1")]);
    ForwardedRequest { session, cxid, op: code as i32, body: frame[8..].to_vec(), auth }
}

fn new_session(session: SessionId, timeout_ms: i32) -> ForwardedRequest {
    ForwardedRequest { session, cxid: 0, op: -10, body: timeout_ms.to_be_bytes().to_vec(), auth: None }
}

fn error_of(txn: &Txn) -> i32 {
    match txn.body {
        TxnBody::Error(code) => code,
        _ => 0,
    }
}

/// A state as something to compare.
fn view(state: &State) -> (Vec<String>, Vec<(SessionId, i32)>, u64) {
    let mut nodes = Vec::new();
    state.for_each_node(|path, node, acl, stat| nodes.push(format!("{path} {:?} {acl:?} {stat:?}", node.data())));
    nodes.sort_unstable();
    let mut sessions: Vec<_> = state.sessions().collect();
    sessions.sort_unstable();
    (nodes, sessions, state.tree_digest())
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
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Settled { zxid: Zxid::ZERO }]));
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
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Settled { zxid: Zxid(0x1_0000_0005) }]));
    // What was on its way from the poller is answered too.
    server.ask(conn(1), 5, OpCode::Create, create("/c", 0));
    assert_eq!(server.client(conn(1)).answered, 4);
    server.say(ToPipeline::Committed { zxid: Zxid(0x1_0000_0005) });
    assert_eq!(server.log.len(), 5);
}

#[test]
fn what_was_logged_and_not_committed_is_applied_before_the_server_has_settled() {
    let mut server = Server::in_role(Role::Following);
    let header = TxnHeader { client_id: SESSION, cxid: 0, zxid: Zxid(0x1_0000_0001), time_ms: 5 };
    let txn = Txn { header, body: TxnBody::CreateSession { timeout_ms: 4000 }, digest: None };
    server.core.step(ToPipeline::Role(Role::Looking));
    server.say(ToPipeline::Deliver { txns: vec![txn] });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Settled { zxid: Zxid(0x1_0000_0001) }]));
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
    server.ask(conn(1), 2, OpCode::Sync, Op::Sync { path: Some("/".into()) });
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
    say(&mut server, forwarded(SESSION, 5, OpCode::Check, Op::Unknown));
    say(&mut server, forwarded(SESSION, 6, OpCode::GetData, exists("/", false)));
    say(&mut server, ForwardedRequest { op: 20, ..forwarded(SESSION, 7, OpCode::Create, create("/b", 0)) });
    let huge = ForwardedRequest { body: vec![0; 2 << 20], ..forwarded(SESSION, 8, OpCode::SetData, Op::Unknown) };
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
    assert_eq!(write(&mut server, LEARNER), 0, "whoever speaks first for a session that nobody has gets it");
}

#[test]
fn a_sync_is_ready_behind_everything_proposed_before_it() {
    let mut server = Server::leader();
    server.say(ToPipeline::Forwarded { learner: LEARNER, request: new_session(SESSION, 6000) });
    let sync = forwarded(SESSION, 1, OpCode::Sync, Op::Sync { path: Some("/".into()) });
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
        pair.learner.ask(conn(1), 1, OpCode::Ping, Op::Ping);
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
    server.wait(60_000);
    server.say(ToPipeline::Role(Role::Leading { epoch: 2 }));
    server.wait(9000);
    assert_eq!(server.log.len(), 1);
    server.wait(5000);
    assert_eq!(server.log[1].header.zxid, Zxid(0x2_0000_0001));
    assert!(matches!(server.log[1].body, TxnBody::CloseSession { .. }));
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
        pair.learner.ask(conn(1), 4, OpCode::Sync, Op::Sync { path: Some("/".into()) });
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
    pair.learner.ask(conn(1), 10, OpCode::Check, Op::Unknown);
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
    pair.learner.ask(conn(1), 2, OpCode::Sync, Op::Sync { path: None });
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
        if let Op::Create(create) = &mut op {
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

#[test]
fn an_installed_state_is_served_and_its_snapshot_makes_it_durable() {
    let mut leader = leader_with_nodes();
    leader.say(ToPipeline::StreamSnapshot { learner: LEARNER });
    let (zxid, bytes) = stream(&mut leader, LEARNER);
    let mut server = Server::new();
    server.say(ToPipeline::Role(Role::Looking));
    server.told_quorum();
    server.say(ToPipeline::Install { state: Box::new(parse(zxid, &bytes)), durable: true });
    let mut finished = false;
    while !finished {
        server.gather();
        for mail in std::mem::take(&mut server.to_snapshot) {
            match mail {
                ToSnapshot::Begin { zxid: begun } => assert_eq!(begun, zxid),
                ToSnapshot::Chunk(_) => server.say(ToPipeline::SnapshotChunkWritten),
                ToSnapshot::Finish { digest } => {
                    assert_eq!(digest, Some(leader.core.state().tree_digest()));
                    finished = true;
                }
                ToSnapshot::Stop => panic!("only the shell stops"),
            }
        }
    }
    assert!(server.to_quorum.is_empty());
    server.say(ToPipeline::SnapshotDone { zxid, bytes: 1 });
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Installed { zxid: z }] if z == zxid));
    server.say(ToPipeline::Role(Role::Following));
    assert_eq!(view(server.core.state()), view(leader.core.state()));
    server.ask(conn(1), 1, OpCode::Ping, Op::Ping);
    assert_eq!(server.core.last_zxid(), zxid);
}

#[test]
fn no_snapshot_of_an_abandoned_history_appears_after_the_server_has_settled() {
    let mut server = leader_with_nodes();
    // One that is being cut is given up at once, and taken anew when there is a role again.
    server.core.want_snapshot();
    server.gather();
    server.say(ToPipeline::Role(Role::Looking));
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Settled { .. }]));
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
    assert!(matches!(server.told_quorum()[..], [ToQuorum::Settled { .. }]));
}

// ---- the rest ----

#[test]
fn a_read_only_server_turns_away_who_needs_a_leader() {
    let mut server = Server::in_role(Role::ReadOnly);
    assert_eq!(server.core.mode(), Mode::ReadOnly);
    server.connect(conn(1));
    assert!(server.client(conn(1)).closed && server.client(conn(1)).bytes.is_empty());
    server.connect_with(conn(2), SessionId(99), rookeeper_password(99));
    assert_eq!(server.client(conn(2)).bytes.last(), Some(&1), "expired, says a read-only server");
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
