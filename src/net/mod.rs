//! The cores of the client side: bytes into requests and replies into bytes, one file per concern. Pure: no socket, no
//! clock; `threads::poller` owns the sockets and calls in here. Bytes in, bytes out, so that TLS fits underneath.

pub mod admit;
pub mod conn;
pub mod ingress;
pub mod load;
pub mod output;
pub mod stats;
#[cfg(test)]
mod tests;

pub use admit::{AdmitLimits, ThrottleOptions};
pub use load::LoadLimits;

use crate::admin::words::Word;
use crate::memory::{Account, Bounds};

/// How clients are served: what `config` knows, under the names of its keys.
#[derive(Debug, Clone)]
pub struct PollerOptions {
    /// `jute.maxbuffer`: longest frame accepted, bytes.
    pub frame_bytes_max: usize,
    /// `maxClientCnxns`, `maxCnxns`, for each listener.
    pub admit: AdmitLimits,
    /// `connection_throttle_*`.
    pub throttle: ThrottleOptions,
    /// `globalOutstandingLimit`, `largeRequest*`.
    pub load: LoadLimits,
    /// Bytes of replies that may wait: the account of replies.
    pub replies_bytes_max: usize,
    /// `nio.sessionlessCnxnTimeout`, ms: also the grain at which silent connections are noticed.
    pub sessionless_timeout_ms: i64,
    /// `clientTcpKeepAlive`.
    pub tcp_keepalive: bool,
    /// `4lw.commands.whitelist`, with `srvr` (and `isro`) added already.
    pub words: Vec<Word>,
    /// A member of an ensemble: writes and syncs keep their bytes, for they may have to go to the leader.
    pub keep_bodies: bool,
}

impl Default for PollerOptions {
    fn default() -> Self {
        PollerOptions {
            frame_bytes_max: 0xf_ffff,
            admit: AdmitLimits { per_address: 60, total: 0 },
            throttle: ThrottleOptions::default(),
            load: LoadLimits::default(),
            replies_bytes_max: Bounds::default().get(Account::Replies),
            sessionless_timeout_ms: 10_000,
            tcp_keepalive: false,
            words: vec![Word::Srvr],
            keep_bodies: false,
        }
    }
}
