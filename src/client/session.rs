//! One session and its thread: finds a server, shakes hands, hands out answers and events, pings, and goes to another
//! server when this one is lost. Called by [`super::Client`].
//!
//! Locks: `wire` before `state`, never the other way round; whoever sends holds `wire` from giving the request its place
//! in `pending` until it is written, so that both have one order. The thread takes `state` alone to hand out answers, so a
//! sender that waits for the socket never keeps it from reading.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::error::{Attempt, Error};
use super::event::{Event, KeeperState, Kind};
use super::frames::Frames;
use super::hosts::Hosts;
use super::watches::Watches;
use super::{Options, Ticket};
use crate::codes::Code;
use crate::ids::Zxid;
use crate::jute::{JuteError, Reader};
use crate::ops::{AuthOp, Class, ConnectRequest, Op, OpCode, ReadOp, Request, encode};
use crate::sys::clock;

const NOTIFICATION_XID: i32 = -1;
const PING_XID: i32 = -2;
const AUTH_XID: i32 = -4;
const SET_WATCHES_XID: i32 = -8;

/// Longest wait for one server's answer to a connect, ms; a short session timeout makes it shorter.
const CONNECT_MS_MAX: i32 = 5_000;
/// Rest after a round in which no server answered, ms: doubles up to the second.
const REST_MS: (u64, u64) = (100, 1_000);
/// How often a client of a read-only server looks for one that can write, ms.
const PROBE_MS: i64 = 5_000;

/// Where the session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Connected { read_only: bool },
    AuthFailed,
    Expired,
    Closed,
}

/// Where an answer goes: the body, or why there is none.
type Answers = Sender<Result<Vec<u8>, Error>>;

/// A request without its answer.
struct Pending {
    xid: i32,
    op: Op,
    code: OpCode,
    frame: Arc<[u8]>,
    /// Whether it was written to the present connection.
    sent: bool,
    /// As the caller named it.
    path: Option<String>,
    answer: Answers,
}

/// An identity that each connection is given.
struct Identity {
    scheme: String,
    credentials: Option<Vec<u8>>,
    /// Who waits for the first answer.
    waiter: Option<Answers>,
}

pub(super) struct State {
    pub phase: Phase,
    pub session_id: i64,
    /// What the server granted, else what was asked for.
    pub timeout_ms: i32,
    /// The server of the present connection, else of the last one.
    pub server: String,
    /// What the servers said in the last round that found none.
    pub tried: Vec<Attempt>,
    pub watches: Watches,
    password: Vec<u8>,
    last_zxid: i64,
    last_xid: i32,
    /// Once a server that can write knew the session; one that cannot may not know it.
    seen_writable: bool,
    /// In the order of their answers: those sent, then those not sent.
    pending: VecDeque<Pending>,
    identities: Vec<Identity>,
    /// One for each auth packet on its way.
    auth_waiters: VecDeque<Option<Answers>>,
    /// When something was last written, monotonic ms.
    sent_ms: i64,
    /// Since when there is no connection; none before the first.
    lost_ms: Option<i64>,
}

pub(super) struct Session {
    pub hosts: Hosts,
    options: Options,
    sink: Box<dyn Fn(Event) + Send + Sync>,
    wire: Mutex<Option<TcpStream>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the thread's rest.
    stop: (Sender<()>, Receiver<()>),
}

fn now_ms() -> i64 {
    clock::now().mono_ms
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

fn ms(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms.max(1)).unwrap_or(1))
}

impl Session {
    pub fn start(hosts: Hosts, options: Options, sink: Box<dyn Fn(Event) + Send + Sync>) -> io::Result<Arc<Session>> {
        let state = State {
            phase: Phase::Connecting,
            session_id: 0,
            timeout_ms: options.timeout_ms,
            server: String::new(),
            tried: Vec::new(),
            watches: Watches::default(),
            password: vec![0; 16],
            last_zxid: 0,
            last_xid: 0,
            seen_writable: false,
            pending: VecDeque::new(),
            identities: Vec::new(),
            auth_waiters: VecDeque::new(),
            sent_ms: 0,
            lost_ms: None,
        };
        let session = Arc::new(Session {
            hosts,
            options,
            sink,
            wire: Mutex::new(None),
            state: Mutex::new(state),
            changed: Condvar::new(),
            stop: bounded(1),
        });
        let of_thread = Arc::clone(&session);
        std::thread::Builder::new().name("client".into()).spawn(move || of_thread.run())?;
        Ok(session)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until `done` says so, at most this long.
    pub fn wait(&self, within: Duration, done: impl Fn(&State) -> bool) -> bool {
        let (state, _) =
            self.changed.wait_timeout_while(self.state(), within, |state| !done(state)).expect("nobody panics with it");
        done(&state)
    }

    pub fn tell(&self, event: Event) {
        (self.sink)(event);
    }

    /// Sends a request, or keeps it until there is a server.
    pub fn submit(&self, code: OpCode, op: Op, path: Option<String>) -> Ticket {
        let (answer, receiver) = bounded(1);
        let ticket = Ticket { receiver, interrupt: self.options.interrupt.clone() };
        let mut wire = lock(&self.wire);
        let mut state = self.state();
        if let Some(error) = state.end(path.clone()) {
            // The receiver is in our hands: there is room for the one answer.
            let _ = answer.send(Err(error));
            return ticket;
        }
        let xid = state.next_xid();
        let frame: Arc<[u8]> = frame(xid, code, &op).into();
        let sent = wire.is_some();
        state.pending.push_back(Pending { xid, op, code, frame: Arc::clone(&frame), sent, path, answer });
        state.sent_ms = now_ms();
        drop(state);
        write(&mut wire, &frame);
        ticket
    }

    /// Gives the session an identity, on this connection and all later ones.
    pub fn add_identity(&self, scheme: &str, credentials: Option<&[u8]>) -> Ticket {
        let (waiter, receiver) = bounded(1);
        let ticket = Ticket { receiver, interrupt: self.options.interrupt.clone() };
        let mut wire = lock(&self.wire);
        let mut state = self.state();
        if let Some(error) = state.end(Some(scheme.to_owned())) {
            let _ = waiter.send(Err(error));
            return ticket;
        }
        state.identities.push(Identity {
            scheme: scheme.to_owned(),
            credentials: credentials.map(<[u8]>::to_vec),
            waiter: Some(waiter),
        });
        let mut bytes = Vec::new();
        if wire.is_some() {
            let newest = state.identities.len() - 1;
            state.put_identity(newest, &mut bytes);
        }
        drop(state);
        write(&mut wire, &bytes);
        ticket
    }

    /// Ends it for good; the thread goes by itself.
    pub fn end(&self, phase: Phase) -> bool {
        let mut wire = lock(&self.wire);
        let mut state = self.state();
        if !state.is_alive() {
            return false;
        }
        state.phase = phase;
        let error = |path| state_error(phase, path).expect("the phase is an end");
        state.fail(|_| true, error);
        for waiter in std::mem::take(&mut state.auth_waiters).into_iter().flatten() {
            let _ = waiter.send(Err(error(None)));
        }
        for waiter in state.identities.iter_mut().filter_map(|identity| identity.waiter.take()) {
            let _ = waiter.send(Err(error(None)));
        }
        drop(state);
        if let Some(stream) = wire.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.stop.0.try_send(());
        self.changed.notify_all();
        true
    }

    fn run(&self) {
        let count = self.hosts.servers.len();
        // Clients spread over the servers.
        let mut next = RandomState::new().build_hasher().finish() as usize % count;
        let mut rest_ms = REST_MS.0;
        while self.state().is_alive() {
            let mut tried = Vec::new();
            let mut served = false;
            for _ in 0..count {
                let (host, port) = &self.hosts.servers[next];
                next = (next + 1) % count;
                let server = shown(host, *port);
                match self.connect(host, *port) {
                    Ok(Shaken { stream, frames, response }) => {
                        if response.timeout_ms <= 0 || response.session_id == 0 {
                            if self.end(Phase::Expired) {
                                self.tell(Event::keeper_state(KeeperState::Expired));
                            }
                            return;
                        }
                        served = true;
                        self.serve(stream, frames, response, server);
                        break;
                    }
                    Err(why) => tried.push(Attempt { server, why }),
                }
                if !self.state().is_alive() {
                    return;
                }
            }
            if served {
                rest_ms = REST_MS.0;
                continue;
            }
            self.on_none_answered(tried);
            let _ = self.stop.1.recv_timeout(Duration::from_millis(rest_ms));
            rest_ms = (rest_ms * 2).min(REST_MS.1);
        }
    }

    /// Requests wait for another server as long as the session would live without one; a client that never had a server
    /// learns at once that there is none.
    fn on_none_answered(&self, tried: Vec<Attempt>) {
        let mut state = self.state();
        let patience_ms = i64::from(state.timeout_ms);
        if state.lost_ms.is_none_or(|since| now_ms() - since >= patience_ms) {
            state.fail(|_| true, |path| Error::ConnectionLoss { path, tried: tried.clone() });
        }
        state.tried = tried;
        drop(state);
        self.changed.notify_all();
    }

    fn connect(&self, host: &str, port: u16) -> Result<Shaken, String> {
        let within_ms = (self.options.timeout_ms / len_i32(self.hosts.servers.len())).clamp(1, CONNECT_MS_MAX);
        let addresses = (host, port).to_socket_addrs().map_err(|e| format!("the name cannot be resolved: {e}"))?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, ms(within_ms)) {
                Ok(stream) => return self.shake(stream, within_ms),
                Err(e) => last = connect_error(&e, within_ms),
            }
        }
        Err(last)
    }

    fn shake(&self, mut stream: TcpStream, within_ms: i32) -> Result<Shaken, String> {
        let request = {
            let state = self.state();
            ConnectRequest {
                last_zxid_seen: state.last_zxid,
                timeout_ms: self.options.timeout_ms,
                session_id: if state.seen_writable { state.session_id } else { 0 },
                password: state.password.clone(),
                read_only: Some(self.options.read_only),
            }
        };
        let told = |e: io::Error| connect_error(&e, within_ms);
        stream.set_nodelay(true).map_err(told)?;
        stream.set_read_timeout(Some(ms(within_ms))).map_err(told)?;
        stream.set_write_timeout(Some(ms(self.options.timeout_ms))).map_err(told)?;
        stream.write_all(&encode::framed(&encode::connect(&request))).map_err(told)?;
        let mut frames = Frames::default();
        loop {
            if let Some(frame) = frames.next().map_err(told)? {
                let response = ConnectResponse::read(frame).map_err(|e| format!("its greeting makes no sense: {e}"))?;
                return Ok(Shaken { stream, frames, response });
            }
            if frames.fill(&mut stream).map_err(told)? == 0 {
                return Err(REFUSED.to_owned());
            }
        }
    }

    /// One connection, from its handshake to its end.
    fn serve(&self, mut stream: TcpStream, mut frames: Frames, response: ConnectResponse, server: String) {
        let tick_ms = (response.timeout_ms / 10).clamp(10, 1_000);
        let _ = stream.set_read_timeout(Some(ms(tick_ms)));
        if !self.on_connected(&stream, &response, server) {
            return;
        }
        let why = self.read(&mut stream, &mut frames, &response);
        self.on_lost(why);
    }

    /// What every connection begins with: identities, watches, and the requests without an answer.
    fn on_connected(&self, stream: &TcpStream, response: &ConnectResponse, server: String) -> bool {
        let Ok(mut copy) = stream.try_clone() else { return false };
        let mut wire = lock(&self.wire);
        let mut state = self.state();
        if !state.is_alive() {
            return false;
        }
        log::debug!("connected to {server}, session 0x{:x}", response.session_id);
        state.phase = Phase::Connected { read_only: response.read_only };
        state.seen_writable |= !response.read_only;
        state.session_id = response.session_id;
        state.password.clone_from(&response.password);
        state.timeout_ms = response.timeout_ms;
        state.server = server;
        let mut bytes = Vec::new();
        for index in 0..state.identities.len() {
            state.put_identity(index, &mut bytes);
        }
        for watches in state.watches.again(state.last_zxid) {
            let old = watches.persistent.is_empty() && watches.persistent_recursive.is_empty();
            let code = if old { OpCode::SetWatches } else { OpCode::SetWatches2 };
            bytes.extend(frame(SET_WATCHES_XID, code, &Op::Read(ReadOp::SetWatches(Box::new(watches)))));
        }
        for pending in &mut state.pending {
            pending.sent = true;
            bytes.extend_from_slice(&pending.frame);
        }
        state.sent_ms = now_ms();
        drop(state);
        // Before any answer can come, and so before any other event.
        let keeper_state = if response.read_only { KeeperState::ConnectedReadOnly } else { KeeperState::SyncConnected };
        self.tell(Event::keeper_state(keeper_state));
        self.changed.notify_all();
        if copy.write_all(&bytes).is_err() {
            let _ = copy.shutdown(Shutdown::Both);
        }
        *wire = Some(copy);
        true
    }

    /// Takes what comes until the connection ends; says why it did.
    fn read(&self, stream: &mut TcpStream, frames: &mut Frames, response: &ConnectResponse) -> String {
        let timeout_ms = i64::from(response.timeout_ms);
        let mut heard_ms = now_ms();
        let mut probed_ms = heard_ms;
        loop {
            loop {
                match frames.next() {
                    Ok(Some(frame)) => {
                        if let Err(why) = self.on_frame(frame) {
                            return why;
                        }
                    }
                    Ok(None) => break,
                    Err(e) => return e.to_string(),
                }
            }
            match frames.fill(stream) {
                Ok(0) => return "closed the connection".to_owned(),
                Ok(_) => heard_ms = now_ms(),
                Err(e) if is_timeout(&e) => {}
                Err(e) => return e.to_string(),
            }
            let now_ms = now_ms();
            if now_ms - heard_ms > timeout_ms * 2 / 3 {
                return format!("said nothing for {} ms", now_ms - heard_ms);
            }
            self.ping(now_ms, timeout_ms);
            if response.read_only && now_ms - probed_ms > PROBE_MS {
                probed_ms = now_ms;
                if self.hosts.servers.iter().any(|(host, port)| can_write(host, *port)) {
                    return "is read-only, and another server is not".to_owned();
                }
            }
        }
    }

    fn ping(&self, now_ms: i64, timeout_ms: i64) {
        // A sender that holds the wire is as good as a ping.
        let Ok(mut wire) = self.wire.try_lock() else { return };
        let mut state = self.state();
        if now_ms - state.sent_ms < timeout_ms / 3 {
            return;
        }
        state.sent_ms = now_ms;
        drop(state);
        write(&mut wire, &frame(PING_XID, OpCode::Ping, &Op::Read(ReadOp::Ping)));
    }

    fn on_frame(&self, frame: &[u8]) -> Result<(), String> {
        let senseless = |e: JuteError| format!("sent an answer that makes no sense: {e}");
        let mut r = Reader::new(frame);
        let xid = r.int().map_err(senseless)?;
        let zxid = r.long().map_err(senseless)?;
        let err = r.int().map_err(senseless)?;
        match xid {
            PING_XID | SET_WATCHES_XID => Ok(()),
            NOTIFICATION_XID => self.on_notification(zxid, &mut r).map_err(senseless),
            AUTH_XID => self.on_auth(err),
            _ => self.on_answer(xid, zxid, err, r.rest()),
        }
    }

    fn on_notification(&self, zxid: i64, r: &mut Reader<'_>) -> Result<(), JuteError> {
        let kind = r.int()?;
        let _state = r.int()?;
        let path = r.required_string()?;
        let Some(kind) = Kind::from_number(kind) else { return Ok(()) };
        if self.state().watches.on_event(kind, &path) {
            let path = Some(self.hosts.short(&path));
            self.tell(Event { kind, keeper_state: KeeperState::SyncConnected, path, zxid: Zxid(zxid) });
        }
        Ok(())
    }

    fn on_auth(&self, err: i32) -> Result<(), String> {
        let waiter = self.state().auth_waiters.pop_front().flatten();
        if err == 0 {
            if let Some(waiter) = waiter {
                let _ = waiter.send(Ok(Vec::new()));
            }
            return Ok(());
        }
        if self.end(Phase::AuthFailed) {
            self.tell(Event::keeper_state(KeeperState::AuthFailed));
        }
        if let Some(waiter) = waiter {
            let _ = waiter.send(Err(Error::AuthFailed { path: None }));
        }
        Err("refused an identity".to_owned())
    }

    fn on_answer(&self, xid: i32, zxid: i64, err: i32, body: &[u8]) -> Result<(), String> {
        let mut state = self.state();
        if zxid > 0 {
            state.last_zxid = state.last_zxid.max(zxid);
        }
        let Some(pending) = state.pending.pop_front_if(|pending| pending.sent && pending.xid == xid) else {
            return Err(format!("answered request {xid}, which is not the next in turn"));
        };
        state.watches.on_answer(&pending.op, err);
        let removed = match &pending.op {
            Op::Read(ReadOp::RemoveWatches(which)) if err == 0 => state.watches.remove(which),
            _ => Vec::new(),
        };
        drop(state);
        for kind in removed {
            self.tell_removed(kind, pending.path.clone());
        }
        let answer = if err == 0 { Ok(body.to_vec()) } else { Err(refusal(err, pending.path)) };
        // Nobody waits any more when the caller was interrupted.
        let _ = pending.answer.send(answer);
        Ok(())
    }

    /// A watch was removed on request.
    pub fn tell_removed(&self, kind: Kind, path: Option<String>) {
        self.tell(Event { kind, keeper_state: KeeperState::SyncConnected, path, zxid: Zxid(-1) });
    }

    /// Reads are asked again on the next connection; of a write nobody knows whether it happened.
    fn on_lost(&self, why: String) {
        let mut wire = lock(&self.wire);
        if let Some(stream) = wire.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let mut state = self.state();
        if !state.is_alive() {
            return;
        }
        log::debug!("{} {why}", state.server);
        state.phase = Phase::Connecting;
        state.lost_ms = Some(now_ms());
        let tried = vec![Attempt { server: state.server.clone(), why }];
        let lost = |path| Error::ConnectionLoss { path, tried: tried.clone() };
        state.fail(|pending| pending.sent && pending.code.class() == Class::Write, lost);
        for pending in &mut state.pending {
            pending.sent = false;
        }
        for waiter in std::mem::take(&mut state.auth_waiters).into_iter().flatten() {
            let _ = waiter.send(Err(lost(None)));
        }
        state.tried = tried;
        drop(state);
        drop(wire);
        self.changed.notify_all();
        self.tell(Event::keeper_state(KeeperState::Disconnected));
    }
}

impl State {
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Connected { .. })
    }

    /// Why nothing can be asked any more.
    fn end(&self, path: Option<String>) -> Option<Error> {
        state_error(self.phase, path)
    }

    fn next_xid(&mut self) -> i32 {
        self.last_xid = if self.last_xid == i32::MAX { 1 } else { self.last_xid + 1 };
        self.last_xid
    }

    fn put_identity(&mut self, index: usize, out: &mut Vec<u8>) {
        let identity = &mut self.identities[index];
        let op = Op::Auth(AuthOp::Scheme {
            scheme: Some(identity.scheme.clone()),
            credentials: identity.credentials.clone(),
        });
        out.extend(frame(AUTH_XID, OpCode::Auth, &op));
        self.auth_waiters.push_back(identity.waiter.take());
    }

    fn fail(&mut self, which: impl Fn(&Pending) -> bool, error: impl Fn(Option<String>) -> Error) {
        let (failed, kept) = std::mem::take(&mut self.pending).into_iter().partition(which);
        self.pending = kept;
        let failed: VecDeque<Pending> = failed;
        for pending in failed {
            let _ = pending.answer.send(Err(error(pending.path)));
        }
    }
}

fn state_error(phase: Phase, path: Option<String>) -> Option<Error> {
    match phase {
        Phase::Connecting | Phase::Connected { .. } => None,
        Phase::AuthFailed => Some(Error::AuthFailed { path }),
        Phase::Expired => Some(Error::SessionExpired { path }),
        Phase::Closed => Some(Error::Closed),
    }
}

fn refusal(err: i32, path: Option<String>) -> Error {
    match Code::from_number(err) {
        Some(code) => Error::Refused { code, path },
        None => Error::Protocol(format!("the server answers with the unknown error code {err}")),
    }
}

/// A stream behind its handshake.
struct Shaken {
    stream: TcpStream,
    frames: Frames,
    response: ConnectResponse,
}

struct ConnectResponse {
    timeout_ms: i32,
    session_id: i64,
    password: Vec<u8>,
    read_only: bool,
}

impl ConnectResponse {
    fn read(frame: &[u8]) -> Result<ConnectResponse, JuteError> {
        let mut r = Reader::new(frame);
        let _protocol_version = r.int()?;
        Ok(ConnectResponse {
            timeout_ms: r.int()?,
            session_id: r.long()?,
            password: r.buffer()?.unwrap_or_default().to_vec(),
            read_only: r.bool().unwrap_or(false),
        })
    }
}

fn frame(xid: i32, code: OpCode, op: &Op) -> Vec<u8> {
    let request = Request { xid, op_number: code as i32, op: op.clone(), body: Vec::new() };
    encode::framed(&encode::request(&request))
}

/// A failure here is noticed by the thread, which reads the same socket.
fn write(wire: &mut Option<TcpStream>, bytes: &[u8]) {
    if let Some(stream) = wire
        && let Err(e) = stream.write_all(bytes)
    {
        log::debug!("write: {e}");
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Whether a server says that it can write (`isro`).
fn can_write(host: &str, port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let within = Some(Duration::from_secs(1));
        let address = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(within)?;
        stream.write_all(b"isro")?;
        let mut answer = Vec::new();
        stream.take(16).read_to_end(&mut answer)?;
        Ok(answer == b"rw")
    };
    ask().unwrap_or(false)
}

const REFUSED: &str = "closes the connection: it is not serving (no quorum yet, or read-only), it has too many connections, \
                       or it is behind what this client has seen";

fn connect_error(e: &io::Error, within_ms: i32) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: no server listens there".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => REFUSED.to_owned(),
        _ if is_timeout(e) => format!("no answer within {within_ms} ms"),
        _ => e.to_string(),
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn len_i32(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
