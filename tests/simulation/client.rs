//! Simulated clients: each keeps a session, wherever it gets served, asks one thing after another, and hands what it is
//! told to the checks. It knows nothing of roles.

use std::collections::VecDeque;
use std::rc::Rc;

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::ops::{AuthOp, ConnectRequest, Op, ReadOp, Request, encode};

use crate::frames::{self, Frame};
use crate::model::acl::Who;
use crate::model::code;
use crate::model::watches::{self, Watching};
use crate::model::{self, Wrong};
use crate::requests::{self, code_of, is_write};
use crate::world::{Event, World};

/// What a client sends.
#[derive(Debug)]
pub enum ToServer {
    /// It connected, and these are its first bytes.
    Connect(Vec<u8>),
    Bytes(Vec<u8>),
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

#[derive(Debug)]
struct Asked {
    xid: i32,
    op: Rc<Op>,
    sent_us: u64,
    /// The last transaction that was committed then, and the newest epoch.
    committed: Zxid,
    epoch: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// Counts its connections: what belongs to an earlier one is not heard.
    generation: u32,
    standing: Standing,
    /// Server and its incarnation.
    server: (usize, u32),
    /// What came of a frame that is not whole.
    unread: Vec<u8>,
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
    /// Its server has no leader, and lets it read.
    reads_only: bool,
    /// Who it is, on each of its connections.
    who: Rc<Who>,
    /// What it watches.
    watching: Watching,
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

/// A reply without a body, which is no answer to a handshake.
const REFUSAL_BYTES: usize = 16;
/// Requests on their way at once.
const ASKED_MAX: usize = 4;

impl Client {
    pub fn new(timeout_ms: i32, is_quiet: bool, who: Who) -> Client {
        Client {
            generation: 0,
            standing: Standing::Apart,
            server: (0, 0),
            unread: Vec::new(),
            since_us: 0,
            session: None,
            timeout_ms,
            seen: Zxid::ZERO,
            floor: Zxid::ZERO,
            next_xid: 1,
            values: 0,
            asked: VecDeque::new(),
            reads_only: false,
            who: Rc::new(who),
            watching: Watching::default(),
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
            && !self.reads_only
            && self.session.as_ref().is_some_and(|(own, _)| *own == session)
            && now_us - self.heard_us < self.timeout_ms as u64 * 500
    }

    /// Whether it has a session on this server.
    pub fn talks_to(&self, server: usize) -> bool {
        self.standing == Standing::Talking && !self.reads_only && self.server.0 == server
    }

    /// No two of its values are the same.
    pub fn next_value(&mut self) -> u32 {
        self.values += 1;
        self.values
    }

    /// Its session is over: it is a new client, which has seen nothing.
    fn forget(&mut self) {
        self.session = None;
        (self.seen, self.floor, self.next_xid) = (Zxid::ZERO, Zxid::ZERO, 1);
        self.watching.forget();
    }

    /// Its session is over.
    fn leave(&mut self) {
        self.forget();
        self.apart();
    }

    /// The next whole frame, without its length.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let length = i32::from_be_bytes(*self.unread.first_chunk()?);
        let end = 4 + usize::try_from(length).expect("frames have a length");
        if self.unread.len() < end {
            return None;
        }
        let rest = self.unread.split_off(end);
        let frame = std::mem::replace(&mut self.unread, rest);
        Some(frame[4..].to_vec())
    }

    /// Server and its incarnation.
    pub fn server(&self) -> (usize, u32) {
        self.server
    }

    fn apart(&mut self) {
        self.generation += 1;
        self.unread.clear();
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
            client.forget();
        }
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
            // There may be a leader elsewhere.
            Standing::Talking if client.reads_only && self.random.one_in(10) => self.client_leaves(c),
            Standing::Talking => {
                let rests = client.stopped || (client.is_quiet && !self.random.one_in(20));
                if now_us - client.sent_us > timeout_us / 4 {
                    self.client_asks(c, Op::Read(ReadOp::Ping));
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
        client.reads_only = false;
        client.watching.on_connected();
        client.standing = Standing::Greeting;
        client.server = (s, incarnation);
        (client.since_us, client.heard_us, client.sent_us) = (self.now_us, self.now_us, self.now_us);
        let (session_id, password) = client.session.clone().map_or((0, vec![0; 16]), |(id, password)| (id.0, password));
        let last_zxid_seen = client.seen.0;
        if session_id != 0 {
            self.check.model.on_moving(session_id, client.generation);
        }
        let request = ConnectRequest {
            last_zxid_seen,
            timeout_ms,
            session_id,
            password,
            read_only: Some(self.options.read_only_after_ms.is_some()),
        };
        self.client_sends(c, ToServer::Connect(encode::framed(&encode::connect(&request))));
    }

    fn client_is_apart(&mut self, c: usize) {
        let client = &mut self.clients[c];
        if let (Standing::Greeting, Some((session, _))) = (client.standing, &client.session) {
            self.check.model.on_left_ungreeted(session.0, client.generation);
        }
        client.apart();
    }

    fn client_leaves(&mut self, c: usize) {
        self.client_sends(c, ToServer::Gone);
        self.client_is_apart(c);
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

    /// They may arrive in two pieces, wherever they are cut.
    fn client_sends_bytes(&mut self, c: usize, mut bytes: Vec<u8>) {
        if self.random.one_in(4) {
            let rest = bytes.split_off(self.random.index(bytes.len()));
            self.client_sends(c, ToServer::Bytes(bytes));
            bytes = rest;
        }
        self.client_sends(c, ToServer::Bytes(bytes));
    }

    /// Bytes for a client.
    pub fn send_to_client(&mut self, s: usize, c: usize, generation: u32, what: FromServer) {
        let us = self.random.scaled(30, 3000);
        let client = &mut self.clients[c];
        if client.generation != generation || client.server.0 != s {
            return;
        }
        client.down_us = client.down_us.max(self.now_us + us);
        let at_us = client.down_us;
        self.schedule(at_us, Event::ToClient { client: c, generation, what });
    }

    pub fn close_client(&mut self, c: usize, generation: u32) {
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
        self.on_client_read(c, generation, what.bytes.len());
        self.clients[c].unread.extend_from_slice(&what.bytes);
        while let Some(frame) = self.clients[c].next_frame() {
            self.clients[c].heard_us = self.now_us;
            if self.clients[c].standing == Standing::Greeting {
                self.client_is_greeted(c, &frame);
            } else {
                self.client_is_answered(c, &frame);
            }
        }
        if what.closes && self.clients[c].generation == generation {
            self.client_is_apart(c);
        }
    }

    fn client_is_greeted(&mut self, c: usize, frame: &[u8]) {
        if frame.len() == REFUSAL_BYTES && self.options.read_only_after_ms.is_some() {
            // A session takes a transaction, and its server has no leader.
            return self.client_is_apart(c);
        }
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
            client.leave();
            return;
        }
        client.standing = Standing::Talking;
        if self.options.local_sessions {
            self.check.model.on_greeted(session.0);
        }
        client.session = Some((session, welcome.password));
        client.timeout_ms = welcome.timeout_ms;
        client.reads_only = welcome.read_only == Some(true);
        self.client_introduces_itself(c);
    }

    /// What belongs to a connection and not to a session is said again on each: who the client is, and what it watches.
    fn client_introduces_itself(&mut self, c: usize) {
        for user in self.clients[c].who.users.clone() {
            let credentials = Some(user.credentials.into());
            self.client_asks(c, Op::Auth(AuthOp::Scheme { scheme: Some("digest".to_owned()), credentials }));
        }
        let client = &mut self.clients[c];
        if client.watching.watches_anything() && !client.reads_only {
            let again = client.watching.again(client.seen);
            self.client_asks(c, Op::Read(ReadOp::SetWatches(Box::new(again))));
        }
    }

    fn client_is_answered(&mut self, c: usize, frame: &[u8]) {
        let client = &mut self.clients[c];
        let Some((session, _)) = client.session else { return };
        let (xid, zxid, err, body) = match frames::frame(frame) {
            Frame::Reply { xid, zxid, err, body } => (xid, zxid, err, body),
            Frame::Event { zxid, kind, path } => {
                let event = watches::Event { zxid, kind, path };
                self.trace.note(self.now_us, 100 + c, 23, || format!("c{c} <- {event:?}"));
                if client.reads_only {
                    return self.violation(format!("client {c}, session {session}, only reads, and is told {event:?}"));
                }
                let (who, last) = (client.who.clone(), self.check.last());
                let told = client.watching.on_event(&self.check.model, last, &who, event);
                return self.must(c, session, told);
            }
        };
        let Some(asked) = client.asked.pop_front() else {
            return self.violation(format!("client {c} is answered {xid}, which it did not ask"));
        };
        let now_us = self.now_us;
        self.trace.note(now_us, 100 + c, 21, || format!("c{c} <- {xid} {zxid} {err}: {asked:?}"));
        if asked.xid != xid {
            return self.violation(format!("client {c} is answered {xid} when {} comes next", asked.xid));
        }
        if let Op::Auth(AuthOp::Scheme { .. }) = *asked.op {
            if (zxid, err) != (Zxid::ZERO, 0) {
                self.violation(format!("session {session} says who it is, and is answered {err} at {zxid}"));
            }
            return;
        }
        if client.reads_only {
            let answer = self.client_is_answered_read_only(c, session, &asked, zxid, (err, &body));
            return self.must(c, session, answer);
        }
        if zxid < client.seen {
            let seen = client.seen;
            return self.violation(format!("session {session} is told {zxid} after {seen}: it goes backward"));
        }
        if !self.check.is_committed(zxid) {
            return self.violation(format!("session {session} is told {zxid}, which is not committed"));
        }
        client.seen = zxid;
        let events = client.watching.on_reply(&self.check.model, &client.who, zxid);
        self.must(c, session, events);
        // A local session ends without a transaction.
        let ends_locally = *asked.op == Op::CloseSession && self.check.model.is_local(session.0);
        let answer = if ends_locally {
            let client = &mut self.clients[c];
            client.leave();
            Ok(())
        } else if is_write(&asked.op) {
            self.client_is_answered_write(c, session, &asked, zxid, (err, &body))
        } else {
            self.client_is_answered_read(c, session, &asked, zxid, (err, &body))
        };
        self.must(c, session, answer);
    }

    fn must(&mut self, c: usize, session: SessionId, what: Result<(), Wrong>) {
        if let Err(wrong) = what {
            self.violation(format!("client {c}, session {session}: {wrong}"));
        }
    }

    /// Without a leader: reads alone, as of what this server has, which need not be agreed upon. It counts for nothing that
    /// the client is told elsewhere.
    fn client_is_answered_read_only(
        &mut self,
        c: usize,
        session: SessionId,
        asked: &Asked,
        zxid: Zxid,
        answer: (i32, &[u8]),
    ) -> Result<(), Wrong> {
        let client = &mut self.clients[c];
        let is_local = self.check.model.is_local(session.0);
        if *asked.op == Op::CloseSession && is_local {
            client.leave();
            return Ok(());
        }
        if is_write(&asked.op) || matches!(*asked.op, Op::Read(ReadOp::Sync { .. })) {
            let is_refused = answer.0 == code::NOT_READ_ONLY;
            return if is_refused {
                Ok(())
            } else {
                Err(format!("it only reads, and {:?} is answered {}", asked.op, answer.0))
            };
        }
        if !self.check.is_committed(zxid) {
            return Ok(());
        }
        self.check.model.check_read(session.0, &client.who, zxid, &asked.op, answer)
    }

    fn client_is_answered_write(
        &mut self,
        c: usize,
        session: SessionId,
        asked: &Asked,
        zxid: Zxid,
        answer: (i32, &[u8]),
    ) -> Result<(), Wrong> {
        self.check.model.check_write(session.0, asked.xid, zxid, &asked.op, answer)?;
        let client = &mut self.clients[c];
        if answer.0 == 0 {
            client.served_us = client.served_us.max(asked.sent_us);
        }
        if *asked.op == Op::CloseSession {
            client.leave();
        }
        Ok(())
    }

    fn client_is_answered_read(
        &mut self,
        c: usize,
        session: SessionId,
        asked: &Asked,
        zxid: Zxid,
        answer: (i32, &[u8]),
    ) -> Result<(), Wrong> {
        let client = &mut self.clients[c];
        if zxid < client.floor {
            let floor = client.floor;
            return Err(format!("it reads at {zxid}, after a sync at {floor}"));
        }
        if let (Op::Read(ReadOp::Sync { .. }), 0) = (&*asked.op, answer.0) {
            // A leader that was replaced and does not know it yet answers for its own reign: so does Apache's.
            let process = self.servers[client.server.0].process.as_ref();
            if process.is_some_and(|process| process.peer().epochs().current >= asked.epoch) {
                if zxid < asked.committed {
                    return Err(format!("a sync is answered at {zxid}, and {} was committed before", asked.committed));
                }
                client.floor = client.floor.max(asked.committed);
            }
        }
        let model = &self.check.model;
        client.watching.on_answered(model, zxid, &asked.op, answer.0)?;
        model.check_read(session.0, &client.who, zxid, &asked.op, answer)
    }

    fn client_asks(&mut self, c: usize, op: Op) {
        let client = &mut self.clients[c];
        let xid = match op {
            Op::Read(ReadOp::Ping) => -2,
            Op::Auth(AuthOp::Scheme { .. }) => -4,
            Op::Read(ReadOp::SetWatches(_)) => -8,
            _ => {
                client.next_xid += 1;
                client.next_xid - 1
            }
        };
        self.trace.note(self.now_us, 100 + c, 22, || format!("c{c} -> s{} {xid} {op:?}", client.server.0 + 1));
        let op_number = code_of(&op) as i32;
        let op = Rc::new(op);
        if let Some((session, _)) = client.session.as_ref().filter(|_| is_write(&op)) {
            let asked = model::Asked { op: op.clone(), who: client.who.clone(), generation: client.generation };
            self.check.model.on_asked(session.0, xid, asked);
        }
        client.sent_us = self.now_us;
        let (committed, epoch) = (self.check.last(), self.check.epoch());
        client.asked.push_back(Asked { xid, op: op.clone(), sent_us: self.now_us, committed, epoch });
        let request = Request { xid, op_number, op: Op::clone(&op), body: Vec::new() };
        self.client_sends_bytes(c, encode::framed(&encode::request(&request)));
    }

    fn client_asks_something(&mut self, c: usize) {
        let Some(op) = self.draw_request(c) else { return };
        let is_sync = matches!(op, Op::Read(ReadOp::Sync { .. }));
        self.client_asks(c, op);
        if is_sync {
            let read = self.draw_read(c);
            self.client_asks(c, read);
        }
    }

    /// A client asks for this list of members.
    pub fn client_asks_for_members(&mut self, c: usize, list: String) {
        self.client_asks(c, requests::members(list));
    }
}
