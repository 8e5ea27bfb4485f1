//! Sockets beyond what mio offers: listening with a backlog, options of accepted connections, closing without a trace.
//! Called by `threads::poller` and, for [`bind`], by main before the thread starts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::config::ensemble::without_zone;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::limits::SOCKET_UNSENT_BYTES;

/// Connections that may wait to be accepted when the configuration does not say (Java's 50 makes a reconnecting crowd
/// wait a second for its next try; the kernel caps this at `somaxconn`).
const BACKLOG_DEFAULT: i32 = 1024;

/// A port that accepts clients already, though nobody answers them yet.
#[derive(Debug)]
pub struct Listener {
    /// Non-blocking.
    pub socket: TcpListener,
    /// The address in force: the port is known even when 0 was asked for.
    pub address: SocketAddr,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// What was asked for, host and port.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

/// Listens on an address. `backlog` below 1 means the default. `0.0.0.0` and `[::]` are every address, IPv4 and IPv6, as
/// Java takes them; on a host without IPv6 every IPv4 one.
pub fn bind(address: SocketAddr, backlog: i32) -> Result<Listener, BindError> {
    let is_everywhere = address.ip().is_unspecified();
    let first = if is_everywhere { SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())) } else { address };
    match listen(first, backlog) {
        Err(error) if is_everywhere && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), backlog)
        }
        other => other,
    }
    .map_err(|source| BindError { address: address.to_string(), source })
}

/// The address of a host, IPv4 before IPv6 as Java prefers them. May take as long as a name server does.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let found: Vec<SocketAddr> = (without_zone(host), port).to_socket_addrs()?.collect();
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
}

fn listen(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(if backlog < 1 { BACKLOG_DEFAULT } else { backlog })?;
    let socket = TcpListener::from_std(socket.into());
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

/// Sets the options of an accepted connection.
pub fn prepare_client(stream: &TcpStream, keepalive: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The kernel takes no more than it will send soon: what waits for a client that does not read stays in one place, where
    // it is counted, and may be shared; a socket's buffer would take megabytes of it.
    SockRef::from(stream).set_tcp_notsent_lowat(SOCKET_UNSENT_BYTES)?;
    if keepalive {
        SockRef::from(stream).set_keepalive(true)?;
    }
    Ok(())
}

/// Ends a connection whose other side leaves what it is sent without an answer for so long. The kernel alone would send it
/// again at ever longer intervals, for a quarter of an hour; and where a network comes back meanwhile, nothing arrives
/// before the next of these attempts. Not for one whose other side may take its time to read: the kernel counts that, too.
pub fn end_unanswered(stream: &TcpStream, after: Duration) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(after))
}

/// Closes with a reset, so that surplus connections leave nothing behind (no TIME_WAIT), as Apache does.
pub fn close_at_once(stream: TcpStream) {
    // The connection may be reset by the other side already; then there is nothing to set.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    #[test]
    fn the_zero_address_of_either_family_is_every_address_of_both() {
        for zero in ["0.0.0.0:0", "[::]:0"] {
            let listener = bind(zero.parse().unwrap(), -1).unwrap();
            for own in ["127.0.0.1", "127.0.0.2", "::1"] {
                let address = SocketAddr::new(own.parse().unwrap(), listener.address.port());
                assert!(Client::connect(address).is_ok(), "{zero} at {own}");
            }
        }
    }
}
