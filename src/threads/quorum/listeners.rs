//! Where this server is reached by the others: the election port always, the quorum port while it leads, the port for
//! observers while it follows; and by its clients. A new configuration moves them all; names are looked up in a thread of
//! their own (a name server may take seconds).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::{QuorumConfig, QuorumHandle, QuorumMail, look_up};
use crate::config::Members;
use crate::config::ensemble::{HostPort, PeerAddress};
use crate::ids::ServerId;
use crate::quiet::{Quiet, suppressed};
use crate::sys::exit::{ExitCode, fatal};
use crate::sys::net::{Listener, bind, resolve};
use crate::threads::poller::{PollerHandle, PollerMail};

/// The host to listen on when it is to be all of them.
const ANY_HOST: &str = "::";
/// More addresses than a server has.
const LISTENERS_MAX: usize = 1 << 16;
/// Tokens of the listeners for elections, and of those for learners. The last token of all is the waker's.
const ELECTION: Range<usize> = usize::MAX - LISTENERS_MAX..usize::MAX;
const LEARNERS: Range<usize> = usize::MAX / 2..usize::MAX / 2 + LISTENERS_MAX;
/// Between two attempts to look up a host of this server, or to bind its election port (`QuorumCnxManager.Listener`).
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// Attempts without electionPortBindRetry: Apache's.
const BIND_ATTEMPTS: u32 = 3;
/// The same while the name of this server's host leads nowhere, or to another host: of a machine or a pod that just came up
/// it may take a while until everybody knows its address.
const NAME_ATTEMPTS: u32 = 30;

/// Shortest distance of two complaints about connections that cannot be accepted, ms.
const COMPLAINTS_INTERVAL_MS: i64 = 60_000;

/// Between two attempts to look up the host where its clients are to connect.
const CLIENTS_PAUSE: Duration = Duration::from_secs(10);

/// Where a server listens for others.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its own lines.
    pub addresses: Vec<PeerAddress>,
    /// `quorumListenOnAllIPs`: whatever the host is.
    pub on_all_ips: bool,
    /// The addresses of its hosts, looked up once: a name server may be slow just when this server is to lead.
    pub found: BTreeMap<String, SocketAddr>,
    /// The number of its lines, the file that has them, and the one that says the number: for complaints.
    pub origin: LineSource,
}

/// Where it is said where a server is.
#[derive(Clone, Debug, Default)]
pub struct LineSource {
    /// The server.
    pub id: i64,
    /// zoo.cfg, or the dynamic file.
    pub lines: PathBuf,
    /// The file `myid`.
    pub my_id: PathBuf,
}

/// A place of this server's where it cannot listen.
#[derive(Debug)]
pub struct ListenError {
    host: String,
    port: u16,
    /// What the host is, if it is anything.
    found: Option<IpAddr>,
    source: io::Error,
    /// The line that says so, and where it stands.
    line: String,
    my_id: PathBuf,
    id: i64,
}

impl ListenError {
    /// The host's address is that of another host.
    fn is_elsewhere(&self) -> bool {
        self.found.is_some() && self.source.kind() == io::ErrorKind::AddrNotAvailable
    }

    /// The host is a name, and that may soon be right.
    fn is_of_name(&self) -> bool {
        (self.found.is_none() || self.is_elsewhere()) && self.host.parse::<IpAddr>().is_err()
    }

    /// Another process has the port.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self.found {
            None => "mend the host's name, or the line",
            Some(_) if self.is_elsewhere() => "mend the line, the host's name, or myid",
            Some(_) => "end the process that has the port, or change the line",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, source, id) = (&self.line, &self.source, self.id);
        let at = HostPort { host: self.host.clone(), port: self.port };
        match self.found {
            Some(found) if self.is_elsewhere() => write!(
                f,
                "cannot listen on {at}: {line} is {found}, which no interface of this host has; {} says {id}",
                self.my_id.display()
            ),
            _ => write!(f, "cannot listen on {at}: {source} ({line})"),
        }
    }
}

impl Place {
    /// Looks up the hosts that were not yet. That may take a while. One of several that has no address is done without.
    pub fn look_up(&mut self) -> Result<(), ListenError> {
        let mut results = Vec::new();
        for (host, port) in self.host_ports(|address| address.election_port) {
            if self.found.contains_key(&host) {
                results.push(Ok(()));
                continue;
            }
            results.push(match resolve(&host, port) {
                Ok(found) => {
                    self.found.insert(host, found);
                    Ok(())
                }
                Err(source) => Err(self.error(host, port, None, source)),
            });
        }
        without_failures(results.into_iter()).map(drop)
    }

    /// The same for all of them, whatever was found before: a name may mean another address by now.
    pub fn look_up_again(&mut self) -> Result<(), ListenError> {
        self.found.clear();
        self.look_up()
    }

    fn error(&self, host: String, port: u16, found: Option<IpAddr>, source: io::Error) -> ListenError {
        let LineSource { id, lines, my_id } = &self.origin;
        let address = self.addresses.iter().find(|address| address.host == host);
        let lines = lines.display();
        let line = match address {
            Some(PeerAddress { host, quorum_port, election_port }) => {
                let quorum = HostPort { host: host.clone(), port: *quorum_port };
                format!("server.{id}={quorum}:{election_port} in {lines}")
            }
            None => format!("server.{id} in {lines}"),
        };
        ListenError { host, port, found, source, line, my_id: my_id.clone(), id: *id }
    }

    /// What to say if the others are on other hosts and none of them can reach this one where its line says. That is not
    /// known while one of several own hosts has no address; and a server that is at a loopback address, too, is here.
    pub fn loopback_hint(&self, others: &[(i64, String)]) -> Option<String> {
        let is_loopback = |host: &str| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
        };
        let here: BTreeSet<i64> = others.iter().filter(|(_, host)| is_loopback(host)).map(|(id, _)| *id).collect();
        let all: BTreeSet<i64> = others.iter().map(|(id, _)| *id).collect();
        let elsewhere: Vec<String> = all.difference(&here).map(i64::to_string).collect();
        let is_own = |ip: &SocketAddr| ip.ip().to_canonical().is_loopback();
        if elsewhere.is_empty() || self.on_all_ips || !self.is_looked_up() || !self.found.values().all(is_own) {
            return None;
        }
        let (host, found) = self.found.first_key_value()?;
        let on_other_hosts = match &elsewhere[..] {
            [one] => format!("server {one} is"),
            several => format!("servers {} are", several.join(", ")),
        };
        Some(format!(
            "server.{}, {host} in {}, is {} here, where no other host reaches this server, and {} on other hosts: \
             set quorumListenOnAllIPs=true, or mend the name in /etc/hosts",
            self.origin.id,
            self.origin.lines.display(),
            found.ip(),
            on_other_hosts
        ))
    }

    /// Opens one of the ports on all hosts that are this server's, or on none. They are looked up before.
    pub fn listen_on_all(&self, port: impl Fn(&PeerAddress) -> u16) -> Result<Vec<Listener>, ListenError> {
        self.open(port).collect()
    }

    /// The same, but where one of several cannot be opened it is done without: a network may be down.
    pub fn listen(&self, port: impl Fn(&PeerAddress) -> u16) -> Result<Vec<Listener>, ListenError> {
        without_failures(self.open(port))
    }

    /// A host without an address was told of when it was looked up.
    fn open(&self, port: impl Fn(&PeerAddress) -> u16) -> impl Iterator<Item = Result<Listener, ListenError>> {
        let mut host_ports = self.host_ports(port);
        if host_ports.iter().any(|(host, _)| self.found.contains_key(host)) {
            host_ports.retain(|(host, _)| self.found.contains_key(host));
        }
        host_ports.into_iter().map(|(host, port)| match self.found.get(&host) {
            Some(found) => bind(SocketAddr::new(found.ip(), port), -1)
                .map_err(|error| self.error(host, port, Some(found.ip()), error.source)),
            None => {
                let source = io::Error::new(io::ErrorKind::NotFound, "no address was found for this name");
                Err(self.error(host, port, None, source))
            }
        })
    }

    fn is_looked_up(&self) -> bool {
        self.host_ports(|address| address.election_port).iter().all(|(host, _)| self.found.contains_key(host))
    }

    /// Where a port is open, each place once.
    fn host_ports(&self, port: impl Fn(&PeerAddress) -> u16) -> BTreeSet<(String, u16)> {
        let host = |address: &PeerAddress| if self.on_all_ips { ANY_HOST.to_owned() } else { address.host.clone() };
        self.addresses.iter().map(|address| (host(address), port(address))).collect()
    }
}

/// What succeeded, if anything did.
fn without_failures<T>(results: impl Iterator<Item = Result<T, ListenError>>) -> Result<Vec<T>, ListenError> {
    let (done, failed): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    let mut failed: Vec<ListenError> = failed.into_iter().filter_map(Result::err).collect();
    if done.is_empty()
        && let Some(error) = failed.pop()
    {
        return Err(error);
    }
    for error in failed {
        log::warn!("{error}; this server goes on with its other addresses");
    }
    Ok(done.into_iter().flatten().collect())
}

/// A new configuration has this server elsewhere.
#[derive(Debug)]
struct Moving {
    addresses: Vec<PeerAddress>,
    /// It was elected meanwhile, and opens the quorum port there.
    leads: bool,
}

/// A connection that was accepted.
#[derive(Debug)]
pub enum Accepted {
    /// On the election port.
    Election(TcpStream, SocketAddr),
    /// On a port for learners.
    Learner(TcpStream, SocketAddr),
}

/// All that is open.
#[derive(Debug)]
pub struct Listeners {
    my_id: ServerId,
    place: Place,
    /// The hosts of a new configuration are being looked up.
    moving_to: Option<Moving>,
    bind_attempts: Option<u32>,
    observer_master_port: Option<u16>,
    /// Where clients connect, by the configuration.
    client: Option<HostPort>,
    election: Vec<TcpListener>,
    learners: Vec<TcpListener>,
    /// About connections that cannot be accepted.
    complaints: Quiet,
    registry: Registry,
    /// Where names come back to.
    handle: QuorumHandle,
    poller: PollerHandle,
}

impl Listeners {
    /// The election port is bound already.
    pub fn new(
        config: &QuorumConfig,
        election: Vec<Listener>,
        registry: Registry,
        handle: QuorumHandle,
        poller: PollerHandle,
    ) -> io::Result<Listeners> {
        let mut listeners = Listeners {
            my_id: config.start.my_id,
            place: config.place.clone(),
            moving_to: None,
            bind_attempts: config.bind_attempts,
            observer_master_port: config.start.rules.observer_master_port,
            client: config.client.clone(),
            election: Vec::new(),
            learners: Vec::new(),
            complaints: Quiet::every(COMPLAINTS_INTERVAL_MS),
            registry,
            handle,
            poller,
        };
        add(&mut listeners.election, election, ELECTION, &listeners.registry)?;
        if let (false, Some(client)) = (config.client_is_open, listeners.client.clone()) {
            listeners.find_clients_place(client, Duration::ZERO);
        }
        Ok(listeners)
    }

    /// Whether a token is that of a listener.
    pub fn has(token: usize) -> bool {
        ELECTION.contains(&token) || LEARNERS.contains(&token)
    }

    /// The next connection that waits at this listener.
    pub fn accept(&mut self, token: usize, now_ms: i64) -> Option<Accepted> {
        let (listeners, first) =
            if ELECTION.contains(&token) { (&self.election, ELECTION.start) } else { (&self.learners, LEARNERS.start) };
        let listener = listeners.get(token - first)?;
        loop {
            match listener.accept() {
                Ok((stream, peer)) if first == ELECTION.start => return Some(Accepted::Election(stream, peer)),
                Ok((stream, peer)) => return Some(Accepted::Learner(stream, peer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Some(others) = self.complaints.pass(now_ms) {
                        let more = suppressed(others);
                        log::warn!("a connection of another server was not accepted: {error}{more}");
                    }
                    return None;
                }
            }
        }
    }

    /// Opens the quorum port, or closes every port for learners.
    pub fn listen(&mut self, open: bool) {
        if let Some(moving) = &mut self.moving_to {
            moving.leads = open;
            if open {
                return;
            }
        }
        if !open {
            return close(&mut self.learners, &self.registry);
        }
        if let Err(error) = self.open_for_learners(|a| a.quorum_port) {
            let hint = error.hint();
            let what = format!("{error}: this server was elected and cannot lead without its quorum port; {hint}");
            fatal(ExitCode::Unexpected, &what);
        }
    }

    /// Opens the port for observers, if they are taken.
    pub fn listen_for_observers(&mut self) {
        let Some(port) = self.observer_master_port else { return };
        if let Err(error) = self.open_for_learners(|_| port) {
            log::error!("{error}: observers have to go elsewhere; change observerMasterPort, or free the port");
        } else {
            log::info!("taking observers on port {port}");
        }
    }

    fn open_for_learners(&mut self, port: impl Fn(&PeerAddress) -> u16) -> Result<(), ListenError> {
        let listeners = self.place.listen(port)?;
        add(&mut self.learners, listeners, LEARNERS, &self.registry).expect("a new socket can be polled");
        Ok(())
    }

    /// These are in force.
    pub fn move_to(&mut self, members: &Members) {
        self.move_ports_to(members.addresses(self.my_id));
        let own = members.servers.get(&self.my_id.0);
        if let Some(client) = own.and_then(|server| server.client.clone()) {
            self.move_clients_to(client);
        }
    }

    /// The election port opens where the configuration says; the quorum port does when this server leads again.
    fn move_ports_to(&mut self, addresses: &[PeerAddress]) {
        let last = self.moving_to.as_ref().map_or(&self.place.addresses, |moving| &moving.addresses);
        if addresses.is_empty() || addresses == last {
            return;
        }
        let mut place = Place { addresses: addresses.to_vec(), ..self.place.clone() };
        let leads = self.moving_to.take().is_some_and(|moving| moving.leads);
        self.moving_to = Some(Moving { addresses: addresses.to_vec(), leads });
        if place.is_looked_up() {
            return self.on_moved(place, Ok(()));
        }
        let attempts = self.bind_attempts;
        look_up(&self.handle, move || {
            let result = patiently(attempts, || place.look_up());
            QuorumMail::Moved { place, result }
        });
    }

    /// The hosts of a new configuration were looked up.
    pub fn on_moved(&mut self, place: Place, result: Result<(), ListenError>) {
        if self.moving_to.as_ref().is_none_or(|moving| moving.addresses != place.addresses) {
            // The configuration has changed again.
            return;
        }
        if let Err(error) = result {
            let hint = "the new configuration names this host; mend the name, then start again";
            fatal(ExitCode::Unexpected, &format!("{error}: {hint}"));
        }
        let leads = self.moving_to.take().is_some_and(|moving| moving.leads);
        let before = self.place.host_ports(|a| a.election_port);
        self.place = place;
        if self.place.host_ports(|a| a.election_port) != before {
            self.reopen_election_port();
        }
        if leads {
            self.listen(true);
        }
    }

    fn reopen_election_port(&mut self) {
        close(&mut self.election, &self.registry);
        let listeners = self.place.listen(|a| a.election_port).unwrap_or_else(|error| {
            let hint = error.hint();
            fatal(
                ExitCode::Unexpected,
                &format!("{error}: the new configuration names this port for elections; {hint}, then start again"),
            )
        });
        for listener in &listeners {
            log::info!("elections are held on {} from now on", listener.address);
        }
        add(&mut self.election, listeners, ELECTION, &self.registry).expect("a new socket can be polled");
    }

    /// A configuration without an address for the clients of this server leaves them where zoo.cfg says.
    fn move_clients_to(&mut self, client: HostPort) {
        let before = self.client.replace(client.clone());
        if before.as_ref() == Some(&client) {
            return;
        }
        let same_port = before.as_ref().is_some_and(|place| place.port == client.port);
        let was_everywhere = before.and_then(|place| place.host.parse().ok());
        if !(same_port && was_everywhere.is_some_and(|ip: IpAddr| ip.is_unspecified())) {
            self.find_clients_place(client, Duration::ZERO);
        }
    }

    fn find_clients_place(&self, to: HostPort, pause: Duration) {
        look_up(&self.handle, move || {
            std::thread::sleep(pause);
            QuorumMail::ClientsMoved { address: resolve(&to.host, to.port), to }
        });
    }

    /// The host where clients are to connect was looked up.
    pub fn on_clients_moved(&self, to: &HostPort, address: io::Result<SocketAddr>) {
        if self.client.as_ref() != Some(to) {
            return;
        }
        match address {
            Ok(address) => {
                self.poller.post(PollerMail::Listen(address));
            }
            Err(error) => {
                log::error!("clients are to connect to {to}: {error}; nothing changes until that host has an address");
                self.find_clients_place(to.clone(), CLIENTS_PAUSE);
            }
        }
    }
}

fn add(
    listeners: &mut Vec<TcpListener>,
    more: Vec<Listener>,
    tokens: Range<usize>,
    registry: &Registry,
) -> io::Result<()> {
    for Listener { socket: mut listener, .. } in more {
        registry.register(&mut listener, Token(tokens.start + listeners.len()), Interest::READABLE)?;
        listeners.push(listener);
    }
    Ok(())
}

fn close(listeners: &mut Vec<TcpListener>, registry: &Registry) {
    for mut listener in listeners.drain(..) {
        let _ = registry.deregister(&mut listener);
    }
}

/// Tries again what fails: the server that has a port may be about to end, the name server may still come up. For ever if
/// `attempts_max` is 0.
pub fn patiently<T>(
    attempts_max: Option<u32>,
    mut attempt: impl FnMut() -> Result<T, ListenError>,
) -> Result<T, ListenError> {
    let mut attempts = 1;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let usual = if error.is_of_name() { NAME_ATTEMPTS } else { BIND_ATTEMPTS };
        let max = attempts_max.unwrap_or(usual);
        if max != 0 && attempts >= max {
            return Err(error);
        }
        if attempts <= BIND_ATTEMPTS || attempts.is_multiple_of(NAME_ATTEMPTS) {
            log::warn!("{error}; trying again");
        }
        std::thread::sleep(BIND_PAUSE);
        attempts += 1;
    }
}

#[cfg(test)]
mod tests;
