//! What the server that runs here says of itself, through its admin server: files do not tell that snapshots fail. It is
//! asked once, and one that does not answer says nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::Admin;

/// How long connecting, and each piece of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than the figures of any server are.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// In the table of metrics.
const FAILURES: &str = "snapshot_failures_in_a_row";

/// How many snapshots it could not write since the last one that it could.
pub fn probe_snapshot_failures(admin: &Admin) -> Option<i64> {
    if !admin.enabled {
        return None;
    }
    let address = (admin.address.as_str(), admin.port).to_socket_addrs().ok()?.next()?;
    let here = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(here, address.port()), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {}/monitor HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n", admin.command_url);
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    failures_in(&answer)
}

fn failures_in(answer: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(answer).ok()?;
    let figures: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    figures.get(FAILURES)?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    #[test]
    fn the_figure_is_found_by_its_name() {
        assert_eq!(
            failures_in(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"a\": 1, \"snapshot_failures_in_a_row\": 3}"),
            Some(3)
        );
        for other in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n{\"a\": 1}", b"HTTP/1.1 503\r\n\r\nbusy"] {
            assert_eq!(failures_in(other), None);
        }
        assert!(metrics::TABLE.iter().any(|row| row.name == FAILURES));
    }
}
