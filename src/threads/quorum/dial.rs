//! Connecting to other servers: names are resolved in a thread of their own (a name server may take seconds), then all
//! addresses are tried at once, and the first that answers counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::{QuorumHandle, QuorumMail, look_up};
use crate::engine::quorum::Whom;
use crate::quiet::Quiet;
use crate::sys::net::{prepare_client, resolve};

/// Tokens of sockets that are not connected yet.
const FIRST: usize = usize::MAX / 4;
const LAST: usize = FIRST + (1 << 32);

/// Between two complaints about a server that cannot be reached: as long as the longest pause between two attempts.
const COMPLAINT_MS: i64 = 5_000;

/// A dial that is given up: who it was, and why nobody answered.
pub type Failed = (Whom, String);

/// What an event on a socket led to.
#[derive(Debug)]
pub enum Outcome {
    /// Others are still tried.
    Pending,
    /// Nobody answered.
    Failed(Failed),
    /// Connected.
    Connected(Whom, TcpStream, SocketAddr),
}

#[derive(Debug)]
struct Dial {
    whom: Whom,
    hosts: Vec<String>,
    /// In a list of members. All others are complained of as one.
    is_member: bool,
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
    /// Members that were complained about and have not answered since, and all other servers as one.
    complaints: BTreeMap<Option<Whom>, Quiet>,
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
            complaints: BTreeMap::new(),
        }
    }

    /// Whether a token is that of a socket that is being connected.
    pub fn has(token: usize) -> bool {
        (FIRST..LAST).contains(&token)
    }

    /// Begins to dial. What comes of it is told later, never within this call.
    pub fn begin(&mut self, whom: Whom, is_member: bool, mut targets: Vec<(String, u16)>, now_ms: i64) {
        // Two lists may differ in another port.
        targets.sort();
        targets.dedup();
        let dial = self.next_dial;
        self.next_dial += 1;
        let until_ms = now_ms + self.timeout_ms;
        let hosts = targets.iter().map(|(host, _)| host.clone()).collect();
        self.dials
            .insert(dial, Dial { whom, hosts, is_member, until_ms, tried: Vec::new(), last_error: String::new() });
        let literal: Option<Vec<SocketAddr>> =
            targets.iter().map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port))).collect();
        if let Some(addresses) = literal {
            return self.handle.post(QuorumMail::Resolved { dial, addresses });
        }
        // Without an answer, the dial is given up when its time is over.
        look_up(&self.handle, move || QuorumMail::Resolved { dial, addresses: resolve_all(&targets) });
    }

    /// Names became addresses: tries them. Gives the dial back if there is nothing to try.
    pub fn on_resolved(
        &mut self,
        dial: u64,
        addresses: &[SocketAddr],
        registry: &Registry,
        now_ms: i64,
    ) -> Option<Failed> {
        let entry = self.dials.get_mut(&dial)?;
        entry.until_ms = now_ms + self.timeout_ms;
        if addresses.is_empty() {
            entry.last_error =
                format!("{} has no address that is known now; it is looked up again", entry.hosts.join(" or "));
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
        if entry.tried.is_empty() { self.give_up(dial, now_ms) } else { None }
    }

    fn give_up(&mut self, dial: u64, now_ms: i64) -> Option<Failed> {
        let Dial { whom, is_member, last_error, .. } = self.dials.remove(&dial)?;
        let complaint = self.complaints.entry(is_member.then_some(whom)).or_insert_with(|| Quiet::every(COMPLAINT_MS));
        if complaint.pass(now_ms).is_some() {
            log::warn!("{whom} cannot be reached: {last_error}");
        }
        Some((whom, last_error))
    }

    /// A socket is connected, or failed.
    pub fn on_event(&mut self, token: usize, event: &Event, now_ms: i64) -> Outcome {
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
                self.complaints.remove(&Some(whom));
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
        self.give_up(id, now_ms).map_or(Outcome::Pending, Outcome::Failed)
    }

    /// The role that wanted the leader is over.
    pub fn forget_leader(&mut self) {
        self.dials.retain(|_, dial| !matches!(dial.whom, Whom::Master(_)));
    }

    /// Dials that took too long, given up.
    pub fn overdue(&mut self, now_ms: i64) -> Vec<Failed> {
        let mut late = Vec::new();
        for (id, dial) in self.dials.iter_mut().filter(|(_, dial)| dial.until_ms <= now_ms) {
            let places: Vec<String> = dial.tried.iter().map(|(_, _, address)| address.to_string()).collect();
            dial.last_error = match places.is_empty() {
                true => format!("the name server says nothing of {}", dial.hosts.join(" or ")),
                false => format!("{}: no answer within {} ms", places.join(" or "), self.timeout_ms),
            };
            late.push(*id);
        }
        late.into_iter().filter_map(|dial| self.give_up(dial, now_ms)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerId;
    use crate::threads::quorum::prepare;

    #[test]
    fn those_who_are_in_no_list_are_complained_of_as_one() {
        let prepared = prepare().unwrap();
        let mut dials = Dials::new(prepared.handle(), 100);
        for id in 0..100 {
            dials.begin(Whom::Election(ServerId(id)), id < 3, vec![("nowhere.invalid".into(), 1)], 0);
            dials.on_resolved(id as u64, &[], prepared.poll.registry(), 0).unwrap();
        }
        assert_eq!(dials.complaints.len(), 4);
    }

    #[test]
    fn a_dial_that_fails_says_where_and_why() {
        let prepared = prepare().unwrap();
        let mut dials = Dials::new(prepared.handle(), 100);
        let server = Whom::Election(ServerId(2));
        dials.begin(server, true, vec![("one.invalid".into(), 1), ("two.invalid".into(), 1)], 0);
        let (whom, why) = dials.on_resolved(0, &[], prepared.poll.registry(), 0).unwrap();
        assert_eq!((whom, whom.to_string()), (server, "the election port of server 2".to_owned()));
        assert!(why.contains("one.invalid or two.invalid has no address"), "{why}");
        // Nobody ever answers at an address for documentation; some hosts have no way there at all.
        dials.begin(Whom::Master(ServerId(3)), true, vec![("192.0.2.1".into(), 7)], 0);
        let at_once = dials.on_resolved(1, &["192.0.2.1:7".parse().unwrap()], prepared.poll.registry(), 0);
        let (_, why) = at_once.or_else(|| dials.overdue(100).pop()).unwrap();
        assert!(why.starts_with("192.0.2.1:7: "), "{why}");
    }
}
