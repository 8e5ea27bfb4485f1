//! Connecting to other servers: names are resolved in a thread of their own (a name server may take seconds), then all
//! addresses are tried at once, and the first that answers counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::{QuorumHandle, QuorumMail};
use crate::ids::ServerId;
use crate::quiet::Quiet;
use crate::sys::net::{prepare_client, resolve};

/// Tokens of sockets that are not connected yet.
const FIRST: usize = usize::MAX / 4;
const LAST: usize = FIRST + (1 << 32);

/// Who is dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whom {
    /// The leader's quorum port.
    Leader,
    /// A server's election port.
    Election(ServerId),
}

/// What an event on a socket led to.
#[derive(Debug)]
pub enum Outcome {
    /// Others are still tried.
    Pending,
    /// Nobody answered.
    Failed(Whom),
    /// Connected.
    Connected(Whom, TcpStream, SocketAddr),
}

#[derive(Debug)]
struct Dial {
    whom: Whom,
    hosts: Vec<String>,
    until_ms: i64,
    tried: Vec<(usize, TcpStream, SocketAddr)>,
    last_error: String,
}

/// All dials under way.
#[derive(Debug)]
pub struct Dials {
    handle: QuorumHandle,
    timeout_ms: i64,
    dials: BTreeMap<u64, Dial>,
    next_dial: u64,
    next_token: usize,
    /// Who was complained about; the core deals with a bounded number of servers.
    unresolved: BTreeMap<Whom, Quiet>,
}

impl Dials {
    /// `handle` is where names come back to.
    pub fn new(handle: QuorumHandle, timeout_ms: i64) -> Dials {
        Dials {
            handle,
            timeout_ms,
            dials: BTreeMap::new(),
            next_dial: 0,
            next_token: FIRST,
            unresolved: BTreeMap::new(),
        }
    }

    /// Whether a token is that of a socket that is being connected.
    pub fn has(token: usize) -> bool {
        (FIRST..LAST).contains(&token)
    }

    /// Begins to dial. What comes of it is told later, never within this call.
    pub fn begin(&mut self, whom: Whom, targets: Vec<(String, u16)>, now_ms: i64) {
        let dial = self.next_dial;
        self.next_dial += 1;
        let until_ms = now_ms + self.timeout_ms;
        let hosts = targets.iter().map(|(host, _)| host.clone()).collect();
        self.dials.insert(dial, Dial { whom, hosts, until_ms, tried: Vec::new(), last_error: "no address".to_owned() });
        let literal: Option<Vec<SocketAddr>> =
            targets.iter().map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port))).collect();
        let handle = self.handle.clone();
        if let Some(addresses) = literal {
            return handle.post(QuorumMail::Resolved { dial, addresses });
        }
        let body = move || handle.post(QuorumMail::Resolved { dial, addresses: resolve_all(&targets) });
        if let Err(error) = std::thread::Builder::new().name("resolver".into()).spawn(body) {
            // The dial is given up when its time is over.
            log::warn!("no thread to look up a host's address: {error}");
        }
    }

    /// Names became addresses: tries them. Gives the dial back if there is nothing to try.
    pub fn on_resolved(
        &mut self,
        dial: u64,
        addresses: &[SocketAddr],
        registry: &Registry,
        now_ms: i64,
    ) -> Option<Whom> {
        let entry = self.dials.get_mut(&dial)?;
        entry.until_ms = now_ms + self.timeout_ms;
        if addresses.is_empty() && self.unresolved.entry(entry.whom).or_default().pass(now_ms).is_some() {
            log::warn!("{} has no address that is known now; it is looked up again", entry.hosts.join(" or "));
        }
        for &address in addresses {
            let token = self.next_token;
            self.next_token = if token + 1 == LAST { FIRST } else { token + 1 };
            let connecting = TcpStream::connect(address).and_then(|mut stream| {
                registry.register(&mut stream, Token(token), Interest::WRITABLE)?;
                Ok(stream)
            });
            match connecting {
                Ok(stream) => entry.tried.push((token, stream, address)),
                Err(error) => entry.last_error = format!("{address}: {error}"),
            }
        }
        if entry.tried.is_empty() { self.give_up(dial) } else { None }
    }

    fn give_up(&mut self, dial: u64) -> Option<Whom> {
        let dial = self.dials.remove(&dial)?;
        log::debug!("{:?} cannot be reached: {}", dial.whom, dial.last_error);
        Some(dial.whom)
    }

    /// A socket is connected, or failed.
    pub fn on_event(&mut self, token: usize, event: &Event) -> Outcome {
        let holds = |dial: &Dial| dial.tried.iter().position(|(its, ..)| *its == token);
        let Some((&id, at)) = self.dials.iter().find_map(|(id, dial)| Some((id, holds(dial)?))) else {
            return Outcome::Pending;
        };
        let dial = self.dials.get_mut(&id).expect("it was just found");
        let (_, stream, address) = &dial.tried[at];
        let error = match stream.take_error() {
            Ok(None) if stream.peer_addr().is_ok() => {
                let whom = dial.whom;
                let (_, stream, address) = dial.tried.swap_remove(at);
                self.dials.remove(&id);
                let _ = prepare_client(&stream, false);
                return Outcome::Connected(whom, stream, address);
            }
            Ok(None) if !(event.is_error() || event.is_write_closed()) => return Outcome::Pending,
            Ok(None) => "refused".to_owned(),
            Ok(Some(error)) | Err(error) => error.to_string(),
        };
        dial.last_error = format!("{address}: {error}");
        dial.tried.swap_remove(at);
        if !dial.tried.is_empty() {
            return Outcome::Pending;
        }
        self.give_up(id).map_or(Outcome::Pending, Outcome::Failed)
    }

    /// The role that wanted the leader is over.
    pub fn forget_leader(&mut self) {
        self.dials.retain(|_, dial| dial.whom != Whom::Leader);
    }

    /// Dials that took too long, given up.
    pub fn overdue(&mut self, now_ms: i64) -> Vec<Whom> {
        let late: Vec<u64> = self.dials.iter().filter(|(_, dial)| dial.until_ms <= now_ms).map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|dial| self.give_up(dial)).collect()
    }

    /// When the next dial is overdue.
    pub fn next_deadline_ms(&self) -> i64 {
        self.dials.values().map(|dial| dial.until_ms).min().unwrap_or(i64::MAX)
    }
}

/// One address for each host that has any.
fn resolve_all(targets: &[(String, u16)]) -> Vec<SocketAddr> {
    targets.iter().filter_map(|(host, port)| resolve(host, *port).ok()).collect()
}
