//! Names and ports of the other servers: what a name stands for, who answers, how soon. Connects and closes, says nothing.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crate::config::EnsembleConfig;
use crate::config::ensemble::{PeerAddress, PeerRole};
use crate::doctor::facts::{Address, Answer, Ensemble, PortUse, Server};
use crate::sys::clock::mono_us;

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
                let probe = move || server.addresses.iter().map(|address| probe_address(address, is_me)).collect();
                (server.id, scope.spawn(probe))
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

fn probe_address(address: &PeerAddress, is_me: bool) -> Address {
    let host = &address.host;
    let ips: Vec<IpAddr> = match (host.as_str(), 0_u16).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    };
    // IPv4 first, as the server dials.
    let first = ips.iter().find(|ip| ip.is_ipv4()).or(ips.first()).copied();
    let is_local = (is_me && !ips.is_empty()).then(|| ips.iter().any(|ip| TcpListener::bind((*ip, 0)).is_ok()));
    let ports = [(address.election_port, PortUse::Election), (address.quorum_port, PortUse::Quorum)];
    let ports = match first {
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

impl Answer {
    /// If anything came back.
    pub fn round_trip_us(&self) -> Option<i64> {
        match self {
            Answer::Open { round_trip_us } | Answer::Refused { round_trip_us } => Some(*round_trip_us),
            Answer::Silent | Answer::Failed(_) => None,
        }
    }
}
