//! Our own ZooKeeper client: what the shell, backups and checks of a running server talk with. Blocking calls; one thread
//! reads, pings, and moves the session to another server when its own is lost (`session`). Speaks with Apache's servers too.
//!
//! ```no_run
//! use rookeeper::client::{Client, Options};
//! let client = Client::start("h121,h122,h123/app", Options::default(), |event| eprintln!("{event}"))?;
//! let (names, _stat) = client.children("/", false)?;
//! # Ok::<(), rookeeper::client::Error>(())
//! ```

mod error;
mod event;
mod frames;
mod hosts;
mod session;
#[cfg(test)]
mod tests;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

pub use error::{Attempt, Error};
pub use event::{Event, KeeperState, Kind};
pub use hosts::Hosts;

use crate::codes::Code;
use crate::ids::SessionId;
use crate::jute::{JuteError, Reader};
use crate::ops::{
    Create, Delete, MultiOp, Op, OpCode, PathWatch, ReadOp, Reconfig, SetAcl, SetData, WatchSelection, WatcherType,
    WriteOp,
};
use crate::records::{Acl, Stat};
use crate::state::path;
use session::{Phase, Session};

/// How often a waiting caller looks whether it was interrupted.
const INTERRUPT_POLL: Duration = Duration::from_millis(50);
/// Longest wait for the answer to a close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Raised by somebody else, to end what a caller waits for. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Every wait ends with [`Error::Interrupted`] until [`Interrupt::lower`].
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waiting is allowed again.
    pub fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same as an error.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Session timeout to ask for, ms.
    pub timeout_ms: i32,
    /// Also take a server that can only read, while none that can write is found.
    pub read_only: bool,
    /// Ends waiting calls.
    pub interrupt: Interrupt,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout_ms: 30_000, read_only: false, interrupt: Interrupt::default() }
    }
}

/// What a new node is, beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreateMode {
    /// Gone with the session.
    pub ephemeral: bool,
    /// With a number behind its name.
    pub sequential: bool,
    /// Gone with its last child.
    pub container: bool,
    /// Gone when unchanged and childless for this long, ms.
    pub ttl_ms: Option<i64>,
}

impl CreateMode {
    /// Opcode and flags on the wire.
    fn wire(self) -> (OpCode, i32) {
        let sequential = i32::from(self.sequential);
        match self {
            CreateMode { ttl_ms: Some(_), .. } => (OpCode::CreateTtl, 5 + sequential),
            CreateMode { container: true, .. } => (OpCode::CreateContainer, 4),
            CreateMode { ephemeral, .. } => (OpCode::Create2, i32::from(ephemeral) + 2 * sequential),
        }
    }
}

/// One identity of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `ip`, `digest`, …
    pub scheme: String,
    /// Who that is there.
    pub user: String,
}

/// A request on its way. Dropping it does not take the request back.
#[derive(Debug)]
#[must_use = "the answer comes here"]
pub struct Ticket {
    receiver: Receiver<Result<Vec<u8>, Error>>,
    interrupt: Interrupt,
}

impl Ticket {
    /// The body of the answer.
    pub fn wait(self) -> Result<Vec<u8>, Error> {
        loop {
            self.interrupt.check()?;
            match self.receiver.recv_timeout(INTERRUPT_POLL) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
            }
        }
    }

    /// The same, or `None` when there is none within this time.
    pub fn wait_within(self, within: Duration) -> Option<Result<Vec<u8>, Error>> {
        self.receiver.recv_timeout(within).ok()
    }
}

/// A session with an ensemble. Calls wait for their answer; while the session moves to another server, reads wait and are
/// asked again, and a write on its way fails with [`Error::ConnectionLoss`], because nobody knows whether it happened.
pub struct Client {
    session: Arc<Session>,
    interrupt: Interrupt,
}

impl Client {
    /// Starts looking for a server; does not wait for one. `on_event` is called by the client's thread, in the order in
    /// which things happened, answers included: it must be quick and must not call the client.
    pub fn start(
        servers: &str,
        options: Options,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client, Error> {
        let hosts = Hosts::parse(servers)?;
        let interrupt = options.interrupt.clone();
        let session = Session::start(hosts, options, Box::new(on_event))
            .map_err(|e| Error::Malformed(format!("no thread for the client: {e}")))?;
        Ok(Client { session, interrupt })
    }

    /// Waits for a server.
    pub fn wait_connected(&self, within: Duration) -> Result<(), Error> {
        let mut left = within;
        while !self.session.wait(left.min(INTERRUPT_POLL), |state| state.phase != Phase::Connecting) {
            self.interrupt.check()?;
            left = left.saturating_sub(INTERRUPT_POLL);
            if left.is_zero() {
                return Err(Error::ConnectionLoss { path: None, tried: self.session.state().tried.clone() });
            }
        }
        match self.session.state().phase {
            Phase::Expired => Err(Error::SessionExpired { path: None }),
            Phase::AuthFailed => Err(Error::AuthFailed { path: None }),
            Phase::Closed => Err(Error::Closed),
            Phase::Connecting | Phase::Connected { .. } => Ok(()),
        }
    }

    /// Whether the session can still be used, now or after a reconnect.
    pub fn is_alive(&self) -> bool {
        self.session.state().is_alive()
    }

    /// How the client stands, as Apache's prompt shows it.
    pub fn keeper_state(&self) -> &'static str {
        match self.session.state().phase {
            Phase::Connecting => "CONNECTING",
            Phase::Connected { read_only: false } => "CONNECTED",
            Phase::Connected { read_only: true } => "CONNECTEDREADONLY",
            Phase::AuthFailed => "AUTH_FAILED",
            Phase::Expired | Phase::Closed => "CLOSED",
        }
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        matches!(self.session.state().phase, Phase::Connected { .. })
    }

    /// The server of the present connection, `host:port`; empty before the first.
    pub fn server(&self) -> String {
        self.session.state().server.clone()
    }

    /// The session's id, 0 before the first connection.
    pub fn session_id(&self) -> SessionId {
        SessionId(self.session.state().session_id)
    }

    /// The session timeout that the server granted, ms.
    pub fn timeout_ms(&self) -> i32 {
        self.session.state().timeout_ms
    }

    /// Ends the session: its ephemerals are gone when this returns, if a server could be asked. Does nothing the second time.
    pub fn close(&self) {
        if self.is_connected() {
            let _ = self.session.submit(OpCode::CloseSession, Op::CloseSession, None).wait_within(CLOSE_WAIT);
        }
        if self.session.end(Phase::Closed) {
            self.session.tell(Event::keeper_state(KeeperState::Closed));
        }
    }

    // -- writes

    /// Makes a node; its path, which a sequential one learns here, and its stat.
    pub fn create(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
    ) -> Result<(String, Stat), Error> {
        self.read_created(self.ask_create(path, data, acl, mode)?)
    }

    /// The same without waiting: see [`Client::read_created`].
    pub fn ask_create(&self, path: &str, data: Option<&[u8]>, acl: &[Acl], mode: CreateMode) -> Result<Ticket, Error> {
        let named = if mode.sequential { format!("{path}1") } else { path.to_owned() };
        check_path(&named)?;
        check_acl(acl)?;
        let (code, flags) = mode.wire();
        let create = Create {
            code,
            path: self.full(path),
            data: data.map(<[u8]>::to_vec),
            acl: Some(acl.to_vec()),
            flags,
            ttl_ms: mode.ttl_ms.unwrap_or(-1),
        };
        Ok(self.submit(code, Op::Write(WriteOp::Create(create)), path))
    }

    /// The answer to a create.
    pub fn read_created(&self, ticket: Ticket) -> Result<(String, Stat), Error> {
        answer(ticket, |r| Ok((self.session.hosts.short(&r.required_string()?), Stat::read(r)?)))
    }

    /// Deletes a node without children; version -1 is any.
    pub fn delete(&self, path: &str, version: i32) -> Result<(), Error> {
        check_path(path)?;
        let op = Op::Write(WriteOp::Delete(Delete { path: self.full(path), version }));
        self.submit(OpCode::Delete, op, path).wait().map(drop)
    }

    /// Replaces the data; version -1 is any.
    pub fn set_data(&self, path: &str, data: Option<&[u8]>, version: i32) -> Result<Stat, Error> {
        answer(self.ask_set_data(path, data, version)?, Stat::read)
    }

    /// The same without waiting.
    pub fn ask_set_data(&self, path: &str, data: Option<&[u8]>, version: i32) -> Result<Ticket, Error> {
        check_path(path)?;
        let op =
            Op::Write(WriteOp::SetData(SetData { path: self.full(path), data: data.map(<[u8]>::to_vec), version }));
        Ok(self.submit(OpCode::SetData, op, path))
    }

    /// Replaces the ACL; version -1 is any.
    pub fn set_acl(&self, path: &str, acl: &[Acl], version: i32) -> Result<Stat, Error> {
        answer(self.ask_set_acl(path, acl, version)?, Stat::read)
    }

    /// The same without waiting.
    pub fn ask_set_acl(&self, path: &str, acl: &[Acl], version: i32) -> Result<Ticket, Error> {
        check_path(path)?;
        check_acl(acl)?;
        let op = Op::Write(WriteOp::SetAcl(SetAcl { path: self.full(path), acl: Some(acl.to_vec()), version }));
        Ok(self.submit(OpCode::SetAcl, op, path))
    }

    /// Deletes all of these nodes in this order, or none, without waiting: see [`Client::read_deleted`].
    pub fn ask_delete_all(&self, paths: &[String]) -> Ticket {
        let deletes = paths.iter().map(|path| MultiOp::Delete(Delete { path: self.full(path), version: -1 }));
        self.session.submit(OpCode::Multi, Op::Write(WriteOp::Multi(deletes.collect())), None)
    }

    /// Whether they are deleted. A multi's failure stands in its body: the first result that is one says so.
    pub fn read_deleted(&self, ticket: Ticket) -> Result<bool, Error> {
        answer(ticket, |r| {
            let kind = r.int()?;
            let done = r.bool()?;
            Ok(done || kind != -1)
        })
    }

    /// Changes the ensemble: `joining` and `leaving`, or the whole list; the new configuration.
    pub fn reconfig(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        members: Option<&str>,
        version: i64,
    ) -> Result<(Vec<u8>, Stat), Error> {
        let op = Op::Write(WriteOp::Reconfig(Reconfig {
            joining: joining.map(str::to_owned),
            leaving: leaving.map(str::to_owned),
            new_members: members.map(str::to_owned),
            cur_config_id: version,
        }));
        let ticket = self.session.submit(OpCode::Reconfig, op, None);
        answer(ticket, |r| Ok((r.buffer()?.unwrap_or_default().to_vec(), Stat::read(r)?)))
    }

    // -- reads

    /// The stat of a node that may be absent.
    pub fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, Error> {
        check_path(path)?;
        let op = Op::Read(ReadOp::Exists(PathWatch { path: self.full(path), watch }));
        match answer(self.submit(OpCode::Exists, op, path), Stat::read) {
            Err(error) if error.is_no_node() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Data and stat.
    pub fn data(&self, path: &str, watch: bool) -> Result<(Option<Vec<u8>>, Stat), Error> {
        self.read_data(self.ask_data(path, watch)?)
    }

    /// The same without waiting: see [`Client::read_data`].
    pub fn ask_data(&self, path: &str, watch: bool) -> Result<Ticket, Error> {
        check_path(path)?;
        let op = Op::Read(ReadOp::GetData(PathWatch { path: self.full(path), watch }));
        Ok(self.submit(OpCode::GetData, op, path))
    }

    /// The answer to [`Client::ask_data`].
    pub fn read_data(&self, ticket: Ticket) -> Result<(Option<Vec<u8>>, Stat), Error> {
        answer(ticket, |r| Ok((r.buffer()?.map(<[u8]>::to_vec), Stat::read(r)?)))
    }

    /// The configuration of the ensemble, which no chroot hides.
    pub fn config(&self, watch: bool) -> Result<(Option<Vec<u8>>, Stat), Error> {
        let op = Op::Read(ReadOp::GetData(PathWatch { path: path::CONFIG.to_owned(), watch }));
        self.read_data(self.submit(OpCode::GetData, op, path::CONFIG))
    }

    /// ACL and stat.
    pub fn acl(&self, path: &str) -> Result<(Vec<Acl>, Stat), Error> {
        self.read_acl(self.ask_acl(path)?)
    }

    /// The same without waiting: see [`Client::read_acl`].
    pub fn ask_acl(&self, path: &str) -> Result<Ticket, Error> {
        check_path(path)?;
        Ok(self.submit(OpCode::GetAcl, Op::Read(ReadOp::GetAcl { path: self.full(path) }), path))
    }

    /// The answer to [`Client::ask_acl`].
    pub fn read_acl(&self, ticket: Ticket) -> Result<(Vec<Acl>, Stat), Error> {
        answer(ticket, |r| Ok((Acl::read_list(r)?.unwrap_or_default(), Stat::read(r)?)))
    }

    /// Names of the children, in no order, and the stat.
    pub fn children(&self, path: &str, watch: bool) -> Result<(Vec<String>, Stat), Error> {
        self.read_children(self.ask_children(path, watch)?)
    }

    /// The same without waiting: see [`Client::read_children`].
    pub fn ask_children(&self, path: &str, watch: bool) -> Result<Ticket, Error> {
        check_path(path)?;
        let target = PathWatch { path: self.full(path), watch };
        Ok(self.submit(OpCode::GetChildren2, Op::Read(ReadOp::GetChildren { target, with_stat: true }), path))
    }

    /// The answer to [`Client::ask_children`].
    pub fn read_children(&self, ticket: Ticket) -> Result<(Vec<String>, Stat), Error> {
        answer(ticket, children)
    }

    /// The names only, unless it takes too long: for completion.
    pub fn children_within(&self, path: &str, within: Duration) -> Option<Vec<String>> {
        if !self.is_connected() {
            return None;
        }
        let body = self.ask_children(path, false).ok()?.wait_within(within)?.ok()?;
        children(&mut Reader::new(&body)).ok().map(|(names, _)| names)
    }

    /// How many nodes lie below.
    pub fn descendants(&self, path: &str) -> Result<i32, Error> {
        check_path(path)?;
        let op = Op::Read(ReadOp::GetAllChildrenNumber { path: self.full(path) });
        answer(self.submit(OpCode::GetAllChildrenNumber, op, path), |r| r.int())
    }

    /// This session's ephemerals whose path begins like this.
    pub fn ephemerals(&self, prefix: &str) -> Result<Vec<String>, Error> {
        check_path(prefix)?;
        let op = Op::Read(ReadOp::GetEphemerals { prefix: Some(self.full(prefix)) });
        let paths = answer(self.submit(OpCode::GetEphemerals, op, prefix), |r| r.strings())?;
        Ok(paths.unwrap_or_default().iter().map(|path| self.session.hosts.short(path)).collect())
    }

    /// Waits until this server has all that the leader had committed.
    pub fn sync(&self, path: &str) -> Result<(), Error> {
        check_path(path)?;
        self.submit(OpCode::Sync, Op::Read(ReadOp::Sync { path: Some(self.full(path)) }), path).wait().map(drop)
    }

    // -- identities and watches

    /// Adds an identity, on this connection and all later ones.
    pub fn add_auth(&self, scheme: &str, credentials: Option<&[u8]>) -> Result<(), Error> {
        self.session.add_identity(scheme, credentials).wait().map(drop)
    }

    /// The identities of the connection.
    pub fn who_am_i(&self) -> Result<Vec<Identity>, Error> {
        answer(self.session.submit(OpCode::WhoAmI, Op::Read(ReadOp::WhoAmI), None), |r| {
            let count = r.count()?.unwrap_or(0);
            let mut identities = Vec::with_capacity(r.capacity_for(count, 8));
            for _ in 0..count {
                let scheme = r.string()?.unwrap_or_default().into_owned();
                identities.push(Identity { scheme, user: r.string()?.unwrap_or_default().into_owned() });
            }
            Ok(identities)
        })
    }

    /// Leaves a persistent watch; a recursive one hears of every node below.
    pub fn add_watch(&self, path: &str, recursive: bool) -> Result<(), Error> {
        check_path(path)?;
        let op = Op::Read(ReadOp::AddWatch { path: self.full(path), recursive });
        self.submit(OpCode::AddWatch, op, path).wait().map(drop)
    }

    /// Takes watches back; an event tells of each kind that was there. With `local`, also when no server can be told.
    pub fn remove_watches(&self, path: &str, kind: WatcherType, local: bool) -> Result<(), Error> {
        check_path(path)?;
        let which = WatchSelection { path: self.full(path), kind };
        if !self.session.state().watches.has(&which) {
            return Err(Error::Refused { code: Code::NoWatcher, path: Some(path.to_owned()) });
        }
        let ticket = self.submit(OpCode::RemoveWatches, Op::Read(ReadOp::RemoveWatches(which.clone())), path);
        match ticket.wait() {
            Err(_) if local => {
                let removed = self.session.state().watches.remove(&which);
                for kind in removed {
                    self.session.tell_removed(kind, Some(path.to_owned()));
                }
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn full(&self, path: &str) -> String {
        self.session.hosts.full(path)
    }

    fn submit(&self, code: OpCode, op: Op, path: &str) -> Ticket {
        self.session.submit(code, op, Some(path.to_owned()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

fn children(r: &mut Reader<'_>) -> Result<(Vec<String>, Stat), JuteError> {
    Ok((r.strings()?.unwrap_or_default(), Stat::read(r)?))
}

fn answer<T>(ticket: Ticket, read: impl FnOnce(&mut Reader<'_>) -> Result<T, JuteError>) -> Result<T, Error> {
    let body = ticket.wait()?;
    read(&mut Reader::new(&body)).map_err(|e| Error::Protocol(format!("the server's answer makes no sense: {e}")))
}

fn check_path(path: &str) -> Result<(), Error> {
    path::problem(path).map_or(Ok(()), |why| Err(Error::Malformed(why)))
}

/// An empty list would be refused by the server; Apache's client does not even ask, and names no path.
fn check_acl(acl: &[Acl]) -> Result<(), Error> {
    if acl.is_empty() { Err(Error::Refused { code: Code::InvalidAcl, path: None }) } else { Ok(()) }
}
