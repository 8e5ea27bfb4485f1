//! A pipeline as a member of an ensemble, and what its clients and its quorum thread hear. Used by the tests of the roles.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rookeeper::ids::{ConnId, LinkId, Now, SessionId};
use rookeeper::jute::Reader;
use rookeeper::mail::{Fate, ForwardedRequest, LogRecord, Outgoing, Role, ToPipeline, ToQuorum, ToSnapshot};
use rookeeper::ops::{ConnectRequest, Create, Op, OpCode, PathWatch, ReadOp, Request, WriteOp};
use rookeeper::pipeline::{Outbox, Pipeline, Rules};
use rookeeper::records::{Acl, OwnerRules};
use rookeeper::state::acl::AuthId;
use rookeeper::state::{State, StateRules};
use rookeeper::txn::{Txn, TxnBody};

use rookeeper::ops::encode;

pub const STATE_RULES: StateRules = StateRules::new(OwnerRules { extended_types: true, emulate_353: false }, true);
pub const LEARNER: LinkId = LinkId(7);
pub const OTHER_LEARNER: LinkId = LinkId(8);
pub const SESSION: SessionId = SessionId(0x0200_0000_0000_0001);

pub const SESSION_MOVED: i32 = -118;
pub const SESSION_EXPIRED: i32 = -112;
pub const THROTTLED_OP: i32 = -127;
pub const NODE_EXISTS: i32 = -110;
pub const NO_NODE: i32 = -101;
pub const UNIMPLEMENTED: i32 = -6;
pub const MARSHALLING_ERROR: i32 = -5;
pub const NOT_READ_ONLY: i32 = -119;
pub const EPHEMERAL_ON_LOCAL_SESSION: i32 = -120;

pub fn rules() -> Rules {
    Rules {
        tick_ms: 2000,
        sync_ms: 10_000,
        session_timeout_ms_min: 4000,
        session_timeout_ms_max: 40_000,
        ensemble: true,
        extended_types: true,
        digest_auth: None,
        // Who comes while there is no role is turned away.
        connect_hold_ms: 0,
        ..Rules::default()
    }
}

/// A client's side of its connection.
#[derive(Debug, Default)]
pub struct Client {
    pub bytes: Vec<u8>,
    pub session: Option<SessionId>,
    pub closed: bool,
    pub answered: u32,
}

impl Client {
    /// Xid and error of each reply, the handshake's left out.
    pub fn replies(&self) -> Vec<(i32, i32)> {
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
pub struct Server {
    pub core: Pipeline,
    pub now: Now,
    pub clients: BTreeMap<ConnId, Client>,
    pub log: Vec<Txn>,
    pub to_quorum: Vec<ToQuorum>,
    pub to_snapshot: Vec<ToSnapshot>,
    pub stopped: bool,
    /// What the log was asked to say once it has what it was given.
    pub logged: Vec<usize>,
}

impl Server {
    /// In no role yet.
    pub fn new() -> Server {
        Server::with(rules())
    }

    pub fn with(rules: Rules) -> Server {
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 };
        Server {
            core: Pipeline::new(rules, State::fresh(STATE_RULES), now, 1),
            now,
            clients: BTreeMap::new(),
            log: Vec::new(),
            to_quorum: Vec::new(),
            to_snapshot: Vec::new(),
            stopped: false,
            logged: Vec::new(),
        }
    }

    pub fn in_role(role: Role) -> Server {
        let mut server = Server::new();
        server.say(ToPipeline::Role(role));
        server
    }

    pub fn leader() -> Server {
        Server::in_role(Role::Leading { epoch: 1 })
    }

    pub fn say(&mut self, mail: ToPipeline) {
        self.core.step(mail);
        self.gather();
    }

    pub fn gather(&mut self) {
        let Outbox { records, logged, snapshot, quorum, poller, stopped, .. } = self.core.take_outbox();
        self.logged.extend(logged);
        self.log.extend(records.iter().map(|LogRecord { payload, .. }| Txn::from_bytes(payload).unwrap()));
        self.to_snapshot.extend(snapshot);
        self.to_quorum.extend(quorum);
        self.stopped |= stopped;
        for Outgoing { conn, bytes, answered, fate, .. } in poller.outgoing {
            let client = self.clients.entry(conn).or_default();
            client.answered += answered;
            if !client.closed {
                client.bytes.extend(bytes.into_vec());
            }
            match fate {
                Fate::Open => {}
                Fate::Established { session, .. } => client.session = Some(session),
                Fate::Close => client.closed = true,
            }
        }
    }

    pub fn commit_all(&mut self) {
        let zxid = self.log.last().unwrap().header.zxid;
        self.say(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
    }

    /// Time passes, with a turn whenever one was asked for.
    pub fn wait(&mut self, ms: i64) {
        let end_ms = self.now.mono_ms + ms;
        while self.now.mono_ms < end_ms {
            let next_ms = self.core.next_deadline_ms().clamp(self.now.mono_ms + 1, end_ms);
            self.stop_for(next_ms - self.now.mono_ms);
        }
    }

    /// The server does not run for this long, whatever it asked for; then it has one turn.
    pub fn stop_for(&mut self, ms: i64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        self.core.set_time(self.now, self.now.mono_ms * 1000);
        self.core.tick();
        self.gather();
    }

    pub fn connect_with(&mut self, conn: ConnId, session: SessionId, password: Vec<u8>) {
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

    pub fn connect(&mut self, conn: ConnId) {
        self.connect_with(conn, SessionId::NONE, Vec::new());
    }

    /// As the poller reads it: with its bytes.
    pub fn ask(&mut self, conn: ConnId, xid: i32, code: OpCode, op: Op) {
        let frame = encode::request(&Request { xid, op_number: code as i32, op, body: Vec::new() });
        let mut request = rookeeper::ops::decode(&frame).unwrap();
        request.keep_body(&frame);
        self.say(ToPipeline::Request { conn, request, received_us: self.now.mono_ms * 1000 });
    }

    pub fn client(&self, conn: ConnId) -> &Client {
        &self.clients[&conn]
    }

    /// What went to the quorum thread since this was asked last.
    pub fn told_quorum(&mut self) -> Vec<ToQuorum> {
        std::mem::take(&mut self.to_quorum)
    }

    pub fn forwarded(&mut self) -> Vec<ForwardedRequest> {
        let requests = self.told_quorum().into_iter().map(|mail| match mail {
            ToQuorum::Forward(request) => request,
            other => panic!("{other:?}"),
        });
        requests.collect()
    }
}

pub fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: slot }
}

pub fn create(path: &str, flags: i32) -> Op {
    Op::Write(WriteOp::Create(created(path, flags)))
}

pub fn created(path: &str, flags: i32) -> Create {
    Create {
        code: OpCode::Create,
        path: path.into(),
        data: Some(b"data".to_vec()),
        acl: Some(Acl::open()),
        flags,
        ttl_ms: -1,
    }
}

pub fn exists(path: &str, watch: bool) -> Op {
    Op::Read(ReadOp::Exists(PathWatch { path: path.into(), watch }))
}

/// What a learner sends for a client of its own.
pub fn forwarded(session: SessionId, cxid: i32, code: OpCode, op: Op) -> ForwardedRequest {
    let frame = encode::request(&Request { xid: cxid, op_number: code as i32, op, body: Vec::new() });
    let auth = Some(vec![AuthId::new("ip", "127.0.0.1")]);
    ForwardedRequest { session, cxid, op: code as i32, body: frame[8..].to_vec(), auth }
}

pub fn new_session(session: SessionId, timeout_ms: i32) -> ForwardedRequest {
    ForwardedRequest { session, cxid: 0, op: -10, body: timeout_ms.to_be_bytes().to_vec(), auth: None }
}

pub fn error_of(txn: &Txn) -> i32 {
    match txn.body {
        TxnBody::Error(code) => code,
        _ => 0,
    }
}

/// A state as something to compare.
pub fn view(state: &State) -> (Vec<String>, Vec<(SessionId, i32)>, u64) {
    let mut nodes = Vec::new();
    state.for_each_node(|path, node, acl, stat| nodes.push(format!("{path} {:?} {acl:?} {stat:?}", node.data())));
    nodes.sort_unstable();
    let mut sessions: Vec<_> = state.sessions().collect();
    sessions.sort_unstable();
    (nodes, sessions, state.tree_digest())
}
