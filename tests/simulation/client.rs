//! Simulated clients: each keeps a session, wherever it gets served, asks one thing after another, and hands what it is
//! told to the checks. It knows nothing of roles.

use std::collections::VecDeque;

use rookeeper::ids::{ConnId, SessionId, Zxid};
use rookeeper::jute::Reader;
use rookeeper::mail::ToPipeline;
use rookeeper::ops::{
    self, ConnectRequest, Create, Delete, MultiOp, Op, OpCode, PathWatch, Reconfig, Request, SetData,
};
use rookeeper::records::Acl;

use crate::frames::{self, Frame};
use crate::world::{Event, World};
use rookeeper::ops::encode;

/// What a client sends.
#[derive(Debug)]
pub enum ToServer {
    Connect(ConnectRequest),
    Request(Vec<u8>),
    /// It closed the connection.
    Gone,
}

/// What a client gets.
#[derive(Debug)]
pub struct FromServer {
    pub bytes: Vec<u8>,
    pub closes: bool,
}

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Apart,
    Greeting,
    Talking,
}

/// What the answer to a request is checked for.
#[derive(Debug)]
enum What {
    Write,
    Read {
        path: String,
    },
    /// With all that anybody had been told before it was asked, and the newest epoch then.
    Sync {
        told: Zxid,
        epoch: u32,
    },
    Ping,
    Close,
}

#[derive(Debug)]
struct Asked {
    xid: i32,
    what: What,
    sent_us: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// Counts its connections: what belongs to an earlier one is not heard.
    generation: u32,
    standing: Standing,
    /// Server and its incarnation.
    server: (usize, u32),
    since_us: u64,
    session: Option<(SessionId, Vec<u8>)>,
    timeout_ms: i32,
    /// The last zxid it was told.
    seen: Zxid,
    /// What its reads must see after a sync.
    floor: Zxid,
    next_xid: i32,
    values: u32,
    asked: VecDeque<Asked>,
    heard_us: u64,
    sent_us: u64,
    /// Both directions keep their order.
    up_us: u64,
    down_us: u64,
    /// Asks for little: pings and reads.
    is_quiet: bool,
    /// Asks for nothing more.
    pub stopped: bool,
    /// It connects to this server only.
    pub stays_at: Option<usize>,
    /// When it asked for the write that was acknowledged last.
    pub served_us: u64,
}

/// Nodes that everybody writes.
const SHARED: u64 = 5;
/// Ephemerals of each client.
const OWN: u64 = 3;
/// Requests on their way at once.
const ASKED_MAX: usize = 4;

impl Client {
    pub fn new(timeout_ms: i32, is_quiet: bool) -> Client {
        Client {
            generation: 0,
            standing: Standing::Apart,
            server: (0, 0),
            since_us: 0,
            session: None,
            timeout_ms,
            seen: Zxid::ZERO,
            floor: Zxid::ZERO,
            next_xid: 1,
            values: 0,
            asked: VecDeque::new(),
            heard_us: 0,
            sent_us: 0,
            up_us: 0,
            down_us: 0,
            is_quiet,
            stopped: false,
            stays_at: None,
            served_us: 0,
        }
    }

    /// Whether this is its session, and it was answered less than half a timeout ago.
    pub fn is_cared_for(&self, session: SessionId, now_us: u64) -> bool {
        self.standing == Standing::Talking
            && self.session.as_ref().is_some_and(|(own, _)| *own == session)
            && now_us - self.heard_us < self.timeout_ms as u64 * 500
    }

    /// Whether it has a session on this server.
    pub fn talks_to(&self, server: usize) -> bool {
        self.standing == Standing::Talking && self.server.0 == server
    }

    fn apart(&mut self) {
        self.generation += 1;
        self.standing = Standing::Apart;
        self.asked.clear();
    }
}

impl World {
    /// Clients of another ensemble: they have seen nothing of this one.
    pub fn forget_clients(&mut self) {
        for c in 0..self.clients.len() {
            self.drop_client(c);
            let client = &mut self.clients[c];
            (client.session, client.seen, client.floor) = (None, Zxid::ZERO, Zxid::ZERO);
        }
        self.told = Zxid::ZERO;
    }

    /// The client's turn: it connects, gives up, or asks for something.
    pub fn on_client(&mut self, c: usize) {
        let now_us = self.now_us;
        let client = &mut self.clients[c];
        let timeout_us = client.timeout_ms as u64 * 1000;
        match client.standing {
            Standing::Apart => self.client_connects(c),
            Standing::Greeting if now_us - client.since_us > 1_000_000 => self.client_leaves(c),
            Standing::Talking if now_us - client.heard_us > timeout_us * 2 / 3 => self.client_leaves(c),
            Standing::Greeting => {}
            Standing::Talking => {
                let rests = client.stopped || (client.is_quiet && !self.random.one_in(20));
                if now_us - client.sent_us > timeout_us / 4 {
                    self.client_asks(c, What::Ping, Op::Ping, OpCode::Ping, -2);
                } else if !rests && client.asked.len() < ASKED_MAX {
                    self.client_asks_something(c);
                }
            }
        }
        let pause_us = self.random.scaled(1000, self.options.think_us);
        self.schedule(self.now_us + pause_us, Event::Client { client: c });
    }

    fn client_connects(&mut self, c: usize) {
        let s = self.clients[c].stays_at.unwrap_or_else(|| self.random.index(self.servers.len()));
        let (timeout_ms, incarnation) = (self.clients[c].timeout_ms, self.servers[s].incarnation);
        let client = &mut self.clients[c];
        client.apart();
        client.standing = Standing::Greeting;
        client.server = (s, incarnation);
        (client.since_us, client.heard_us, client.sent_us) = (self.now_us, self.now_us, self.now_us);
        let (session_id, password) = client.session.clone().map_or((0, vec![0; 16]), |(id, password)| (id.0, password));
        let last_zxid_seen = client.seen.0;
        let request = ConnectRequest { last_zxid_seen, timeout_ms, session_id, password, read_only: Some(false) };
        self.client_sends(c, ToServer::Connect(request));
    }

    fn client_leaves(&mut self, c: usize) {
        self.client_sends(c, ToServer::Gone);
        self.clients[c].apart();
    }

    /// The connection of a client breaks.
    pub fn drop_client(&mut self, c: usize) {
        if self.clients[c].standing != Standing::Apart {
            self.client_leaves(c);
        }
    }

    fn client_sends(&mut self, c: usize, what: ToServer) {
        let us = self.random.scaled(30, 3000);
        let client = &mut self.clients[c];
        client.up_us = client.up_us.max(self.now_us + us);
        let (server, incarnation) = client.server;
        let event = Event::ToServer { client: c, generation: client.generation, server, incarnation, what };
        self.schedule(self.clients[c].up_us, event);
    }

    pub fn on_to_server(&mut self, c: usize, generation: u32, s: usize, incarnation: u32, what: ToServer) {
        let conn = World::client_conn(c, generation);
        let server = &mut self.servers[s];
        let mono_us = server.clock.mono_us(self.now_us);
        let alive = server.incarnation == incarnation;
        let Some(process) = server.process.as_mut().filter(|_| alive) else {
            if !server.is_dark {
                self.close_client(c, generation);
            }
            return;
        };
        match what {
            ToServer::Connect(request) => {
                process.conns.insert(conn);
                self.post_pipeline(s, ToPipeline::Connect { conn, peer: World::client_address(), request });
            }
            _ if !process.conns.contains(&conn) => {}
            ToServer::Request(frame) => {
                let mut request = ops::decode(&frame).expect("clients send whole requests");
                request.keep_body(&frame);
                self.post_pipeline(s, ToPipeline::Request { conn, request, received_us: mono_us });
            }
            ToServer::Gone => {
                process.conns.remove(&conn);
                self.post_pipeline(s, ToPipeline::Disconnected { conn });
            }
        }
    }

    /// Bytes for a client, as the poller would send them.
    pub fn send_to_client(&mut self, s: usize, conn: ConnId, what: FromServer) {
        let us = self.random.scaled(30, 3000);
        let client = &mut self.clients[conn.slot as usize];
        if client.generation != conn.generation || client.server.0 != s {
            return;
        }
        client.down_us = client.down_us.max(self.now_us + us);
        let at_us = client.down_us;
        self.schedule(at_us, Event::ToClient { client: conn.slot as usize, generation: conn.generation, what });
    }

    fn close_client(&mut self, c: usize, generation: u32) {
        let at_us = self.now_us + self.random.scaled(30, 3000);
        let what = FromServer { bytes: Vec::new(), closes: true };
        self.schedule(at_us, Event::ToClient { client: c, generation, what });
    }

    /// A process is gone: its clients hear of it, unless the power went too.
    pub fn clients_lose_server(&mut self, s: usize, silently: bool) {
        for c in 0..self.clients.len() {
            let client = &self.clients[c];
            if client.standing != Standing::Apart && client.server.0 == s && !silently {
                self.close_client(c, client.generation);
            }
        }
    }

    pub fn on_to_client(&mut self, c: usize, generation: u32, what: &FromServer) {
        if self.clients[c].generation != generation {
            return;
        }
        for frame in frames::split(&what.bytes) {
            self.clients[c].heard_us = self.now_us;
            if self.clients[c].standing == Standing::Greeting {
                self.client_is_greeted(c, frame);
            } else {
                self.client_is_answered(c, frame);
            }
        }
        if what.closes && self.clients[c].generation == generation {
            self.clients[c].apart();
        }
    }

    fn client_is_greeted(&mut self, c: usize, frame: &[u8]) {
        let welcome = frames::welcome(frame);
        let client = &mut self.clients[c];
        let session = SessionId(welcome.session);
        let own = client.session.as_ref().map(|(id, _)| *id);
        let (s, now_us) = (client.server.0, self.now_us);
        self.trace.note(now_us, 100 + c, 20, || format!("c{c} has session {session} on s{}, had {own:?}", s + 1));
        if session == SessionId::NONE {
            // Who has seen nothing yet may meet a leader that does not know that it leads no more, nor of a session of its
            // successor. Anybody else it does not let in.
            let seen = client.seen;
            if let Some((own, _)) = client.session.take().filter(|_| seen > Zxid::ZERO) {
                self.check.on_refused(own);
            }
            // A new session is a new client, which has seen nothing.
            (client.seen, client.floor, client.next_xid) = (Zxid::ZERO, Zxid::ZERO, 1);
            client.apart();
            return;
        }
        client.standing = Standing::Talking;
        client.session = Some((session, welcome.password));
        client.timeout_ms = welcome.timeout_ms;
    }

    fn client_is_answered(&mut self, c: usize, frame: &[u8]) {
        let Frame::Reply { xid, zxid, err, body } = frames::frame(frame) else { return };
        let client = &mut self.clients[c];
        let Some((session, _)) = client.session else { return };
        let Some(asked) = client.asked.pop_front() else {
            return self.violation(format!("client {c} is answered {xid}, which it did not ask"));
        };
        let now_us = self.now_us;
        self.trace.note(now_us, 100 + c, 21, || format!("c{c} <- {xid} {zxid} {err}: {asked:?}"));
        if asked.xid != xid {
            return self.violation(format!("client {c} is answered {xid} when {} comes next", asked.xid));
        }
        if zxid < client.seen && zxid != Zxid::ZERO {
            let seen = client.seen;
            return self.violation(format!("session {session} is told {zxid} after {seen}: it goes backward"));
        }
        client.seen = client.seen.max(zxid);
        match asked.what {
            What::Write if err == 0 => {
                self.told = self.told.max(zxid);
                client.served_us = client.served_us.max(asked.sent_us);
                self.check.on_acknowledged(session, xid, zxid);
            }
            What::Read { path } => {
                if zxid < client.floor {
                    let floor = client.floor;
                    return self.violation(format!("session {session} reads at {zxid}, after a sync at {floor}"));
                }
                match err {
                    0 => {
                        let data = Reader::new(&body).buffer().expect("data");
                        self.check.on_read(session, &path, zxid, data);
                    }
                    -101 => self.check.on_read(session, &path, zxid, None),
                    _ => {}
                }
            }
            What::Sync { told, epoch } if err == 0 => {
                // A leader that was replaced and does not know it yet answers for its own reign: so does Apache's.
                let process = self.servers[client.server.0].process.as_ref();
                if process.is_some_and(|process| process.peer.epochs().current >= epoch) {
                    client.floor = client.floor.max(told);
                }
            }
            What::Close => {
                client.session = None;
                (client.seen, client.floor, client.next_xid) = (Zxid::ZERO, Zxid::ZERO, 1);
                client.apart();
            }
            What::Write | What::Sync { .. } | What::Ping => {}
        }
    }

    fn client_asks(&mut self, c: usize, what: What, op: Op, code: OpCode, xid: i32) {
        let client = &mut self.clients[c];
        let xid = if xid == 0 {
            client.next_xid += 1;
            client.next_xid - 1
        } else {
            xid
        };
        self.trace.note(self.now_us, 100 + c, 22, || format!("c{c} -> s{} {xid} {op:?}", client.server.0 + 1));
        let request = Request { xid, op_number: code as i32, op, body: Vec::new() };
        client.sent_us = self.now_us;
        client.asked.push_back(Asked { xid, what, sent_us: self.now_us });
        self.client_sends(c, ToServer::Request(encode::request(&request)));
    }

    fn client_asks_something(&mut self, c: usize) {
        let shared = format!("/k{}", self.random.below(SHARED));
        let own = format!("/e{c}-{}", self.random.below(OWN));
        self.clients[c].values += 1;
        let data = format!("{c}.{}", self.clients[c].values).into_bytes();
        let create = |path: String, data: Vec<u8>, flags: i32| Create {
            code: OpCode::Create,
            path,
            data: Some(data),
            acl: Some(Acl::open()),
            flags,
            ttl_ms: -1,
        };
        let set = |path: String, data: Vec<u8>| SetData { path, data: Some(data), version: -1 };
        match self.random.below(100) {
            0..25 => self.client_asks(c, What::Write, Op::SetData(set(shared, data)), OpCode::SetData, 0),
            25..37 => self.client_asks(c, What::Write, Op::Create(create(shared, data, 0)), OpCode::Create, 0),
            37..47 => self.client_asks(c, What::Write, Op::Create(create(own, data, 1)), OpCode::Create, 0),
            47..53 => {
                let path = if self.random.one_in(2) { shared } else { own };
                self.client_asks(c, What::Write, Op::Delete(Delete { path, version: -1 }), OpCode::Delete, 0);
            }
            53..60 => {
                let other = format!("/k{}", self.random.below(SHARED));
                let parts = vec![MultiOp::SetData(set(shared, data.clone())), MultiOp::SetData(set(other, data))];
                self.client_asks(c, What::Write, Op::Multi(parts), OpCode::Multi, 0);
            }
            60..80 => self.client_reads(c, shared),
            80..88 => self.client_reads(c, own),
            88 if self.options.reconfigures && self.now_us < self.options.faults_until_us => {
                self.client_reconfigures(c);
            }
            88..99 => {
                let what = What::Sync { told: self.told, epoch: self.check.epoch() };
                self.client_asks(c, what, Op::Sync { path: Some("/".to_owned()) }, OpCode::Sync, 0);
                self.client_reads(c, shared);
            }
            _ if self.random.one_in(3) => self.client_asks(c, What::Close, Op::CloseSession, OpCode::CloseSession, 0),
            _ => {}
        }
    }

    /// Any server may vote, observe, or not belong. One of them moves between its ports: where all others have moved
    /// meanwhile, a server that was down for long knows nobody any more.
    fn client_reconfigures(&mut self, c: usize) {
        let mover = 1 + self.options.think_us as usize % self.servers.len();
        let mut lines = Vec::new();
        for n in 1..=self.servers.len() {
            let role = match self.random.below(8) {
                0 => continue,
                1 => "observer",
                _ => "participant",
            };
            let port = if n == mover { self.moves.below(3) } else { 0 };
            lines.push(format!("server.{n}=s{n}:{}:{}:{role}", 2888 + port, 3888 + port));
        }
        self.client_asks_for_members(c, lines.join(","));
    }

    /// A client asks for this list of members.
    pub fn client_asks_for_members(&mut self, c: usize, list: String) {
        let new_members = Some(list);
        let op = Op::Reconfig(Reconfig { joining: None, leaving: None, new_members, cur_config_id: -1 });
        self.client_asks(c, What::Write, op, OpCode::Reconfig, 0);
    }

    fn client_reads(&mut self, c: usize, path: String) {
        let op = Op::GetData(PathWatch { path: path.clone(), watch: false });
        self.client_asks(c, What::Read { path }, op, OpCode::GetData, 0);
    }
}
