//! Names and ports of the other servers: what a name stands for, who answers, how soon. Connects and closes, says nothing.
//! And the ports of this server: whether it could listen there.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crate::config::ensemble::{HostPort, PeerAddress, PeerRole, Server as ServerLine};
use crate::config::{Config, EnsembleConfig, MetricsProvider, Mode};
use crate::doctor::facts::{Address, Answer, Ensemble, PortMissed, PortUse, Server};
use crate::sys::clock::mono_us;
use crate::sys::net::bind;
use crate::threads::{admin, ensemble};

/// How long a connection may take.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1000);
/// The round trip is the best of so many.
const DIALS: usize = 3;

/// Asks for every server at once.
pub fn probe(config: &EnsembleConfig, listens_everywhere: bool) -> Ensemble {
    let servers = &config.members.servers;
    let found: Vec<Server> = thread::scope(|scope| {
        let probes: Vec<_> = servers
            .values()
            .map(|server| {
                let is_me = server.id == config.my_id;
                (server.id, scope.spawn(move || probe_server(server, is_me)))
            })
            .collect();
        let joined = |(id, probe): (i64, thread::ScopedJoinHandle<'_, Vec<Address>>)| Server {
            id,
            addresses: probe.join().expect("a probe does not panic"),
        };
        probes.into_iter().map(joined).collect()
    });
    let participants = servers.values().filter(|server| server.role == PeerRole::Participant).count();
    Ensemble { my_id: config.my_id, participants, listens_everywhere, servers: found }
}

fn probe_server(server: &ServerLine, is_me: bool) -> Vec<Address> {
    let mut addresses: Vec<Address> = server.addresses.iter().map(|address| probe_address(address, is_me)).collect();
    let (Some(HostPort { host, port }), false) = (&server.client, is_me) else { return addresses };
    let dial_client = |ip| vec![(*port, PortUse::Client, dial(SocketAddr::new(ip, *port)))];
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        // Everywhere, so also where the servers talk.
        if let Some(address) = addresses.first_mut()
            && let Some(ip) = first_of(&address.ips)
        {
            address.ports.extend(dial_client(ip));
        }
        return addresses;
    }
    // What its own host alone can reach, or find, is nothing to dial from here.
    let ips = look_up(host);
    if let Some(ip) = first_of(&ips).filter(|ip| !ip.is_loopback() || addresses.iter().all(Address::is_loopback)) {
        addresses.push(Address { host: host.clone(), ips, is_local: None, ports: dial_client(ip) });
    }
    addresses
}

fn look_up(host: &str) -> Vec<IpAddr> {
    (host, 0_u16).to_socket_addrs().map_or_else(|_| Vec::new(), |found| found.map(|address| address.ip()).collect())
}

/// IPv4 first, as the server dials.
fn first_of(ips: &[IpAddr]) -> Option<IpAddr> {
    ips.iter().find(|ip| ip.is_ipv4()).or(ips.first()).copied()
}

fn probe_address(address: &PeerAddress, is_me: bool) -> Address {
    let host = &address.host;
    let ips = look_up(host);
    let is_local = (is_me && !ips.is_empty()).then(|| ips.iter().any(|ip| TcpListener::bind((*ip, 0)).is_ok()));
    let ports = [(address.election_port, PortUse::Election), (address.quorum_port, PortUse::Quorum)];
    let ports = match first_of(&ips) {
        Some(ip) if !is_me => {
            ports.into_iter().map(|(port, kind)| (port, kind, dial(SocketAddr::new(ip, port)))).collect()
        }
        _ => Vec::new(),
    };
    Address { host: host.clone(), ips, is_local, ports }
}

fn dial(address: SocketAddr) -> Answer {
    let mut best: Option<Answer> = None;
    for _ in 0..DIALS {
        let begun_us = mono_us();
        let dialed = TcpStream::connect_timeout(&address, DIAL_TIMEOUT);
        let round_trip_us = mono_us() - begun_us;
        let answer = match dialed {
            Ok(_) => Answer::Open { round_trip_us },
            Err(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => Answer::Refused { round_trip_us },
                std::io::ErrorKind::TimedOut => return Answer::Silent,
                _ => return Answer::Failed(error.to_string()),
            },
        };
        let sooner = |a: &Answer, b: &Answer| a.round_trip_us() < b.round_trip_us();
        if best.as_ref().is_none_or(|best| sooner(&answer, best)) {
            best = Some(answer);
        }
    }
    best.unwrap_or(Answer::Silent)
}

/// Listens on each port for a moment, as the server would, and says where that cannot be.
pub fn probe_own_ports(config: &Config) -> Vec<PortMissed> {
    const NO_START: (&str, bool) = ("the server does not start (exit code 1)", true);
    let mut missed = Vec::new();
    let mut note = |setting: &'static str, (then, is_fatal): (&'static str, bool), error: &str, is_taken: bool| {
        missed.push(PortMissed { setting, then, is_fatal, error: error.to_owned(), is_taken });
    };
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let listen = |listen: &crate::config::Listen| bind(listen.socket_addr(), -1).err();
    if let Some(error) = config.clients.listen.as_ref().and_then(listen) {
        note("clientPort", NO_START, &error.to_string(), is_taken(&error.source));
    }
    let mut try_http = |setting, then, host: &str, port: u16| {
        if let Err(error) = admin::listen(host, port) {
            note(setting, then, &format!("cannot listen on {host}:{port}: {error}"), is_taken(&error));
        }
    };
    let then = match config.mode {
        Mode::Standalone => ("the server does not start (exit code 4)", true),
        Mode::Quorum(_) => ("the server goes on without its admin server", false),
    };
    if config.admin.enabled && !config.admin.https_only {
        try_http("admin.serverPort", then, &config.admin.address, config.admin.port);
    }
    if config.metrics.provider == MetricsProvider::Prometheus {
        try_http("metricsProvider.httpPort", NO_START, &config.metrics.host, config.metrics.port);
    }
    if let Mode::Quorum(member) = &config.mode {
        let mut place = ensemble::place(config, member);
        // A name that cannot be looked up, and an address that is not of this host, are told by other rules.
        let found = place.look_up().is_ok();
        let then = ("the server does not start, or cannot lead (exit code 1)", true);
        for listeners in [place.listen(|line| line.election_port), place.listen(|line| line.quorum_port)] {
            if let Some(error) = listeners.err().filter(|error| found && error.is_taken()) {
                note("this server's own line", then, &error.to_string(), true);
            }
        }
    }
    missed
}

impl Answer {
    /// If anything came back.
    pub fn round_trip_us(&self) -> Option<i64> {
        match self {
            Answer::Open { round_trip_us } | Answer::Refused { round_trip_us } => Some(*round_trip_us),
            Answer::Silent | Answer::Failed(_) => None,
        }
    }
}
