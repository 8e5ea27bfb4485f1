//! What systemd is told about this service: one datagram a message (`sd_notify(3)`). Called by `main`, `threads::data` and
//! `threads::health`. The crate `sd-notify` waits for a manager that does not read, knows no names outside the file system,
//! and takes a watchdog of 0 for one.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::quiet::{Quiet, suppressed};
use crate::sys::clock;

/// The service manager that started this process and wants to be told.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
    complaints: Quiet,
}

impl Notify {
    /// From `$NOTIFY_SOCKET`; `None` where nobody wants to be told, or the address makes no sense (which is logged).
    pub fn from_env() -> Option<Notify> {
        let address = std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())?;
        let open = || {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not make a thread wait.
            socket.set_nonblocking(true)?;
            Ok((socket, socket_address(&address)?))
        };
        match open() {
            Ok((socket, manager)) => Some(Notify { socket, manager, complaints: Quiet::default() }),
            Err(error) => {
                let error: std::io::Error = error;
                log::warn!("NOTIFY_SOCKET={address} cannot be used, so the service manager is told nothing: {error}");
                None
            }
        }
    }

    /// Sends one message, lines of `NAME=value`. What cannot be sent is logged and lost: the next one says it again.
    pub fn tell(&mut self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.manager)
            && let Some(others) = self.complaints.pass(clock::mono_us() / 1000)
        {
            log::warn!("the service manager cannot be told {message:?}: {error}{}", suppressed(others));
        }
    }
}

/// A path, or `@name` for a name outside the file system.
fn socket_address(address: &str) -> std::io::Result<SocketAddr> {
    match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(address),
    }
}

/// How long the service manager waits for `WATCHDOG=1` before it restarts this process; `None`: it does not wait.
pub fn watchdog() -> Option<Duration> {
    let own = |pid: &String| pid.parse() == Ok(std::process::id());
    if std::env::var("WATCHDOG_PID").is_ok_and(|pid| !own(&pid)) {
        return None;
    }
    let us: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (us > 0).then(|| Duration::from_micros(us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_path_and_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        for address in [path, format!("@rookeeper-test-{}", std::process::id())] {
            let manager = UnixDatagram::bind_addr(&socket_address(&address).unwrap()).unwrap();
            let socket = UnixDatagram::unbound().unwrap();
            let mut notify =
                Notify { socket, manager: socket_address(&address).unwrap(), complaints: Quiet::default() };
            notify.tell("READY=1\nSTATUS=leader");
            let mut buffer = [0; 64];
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=leader", "{address}");
        }
    }
}
