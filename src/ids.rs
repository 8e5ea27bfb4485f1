//! The ids everybody shares: transactions, sessions, servers, connections, and the two clocks as values.
//! Plain data; any layer may use it. Nothing here reads a clock: time is made in `sys::clock` and handed in.

use std::fmt;

/// A transaction id: epoch in the upper 32 bits, counter in the lower. Ordered as Java orders it (signed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    /// Before the first transaction of a fresh store.
    pub const ZERO: Zxid = Zxid(0);

    /// The zxid after this one in the same epoch.
    pub fn next(self) -> Zxid {
        Zxid(self.0 + 1)
    }

    /// The epoch: which leader's reign this transaction belongs to.
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Position within the epoch; the first transaction has 1.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client session; the top byte is the id of the server that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// "No session": what the server itself uses for transactions of its own.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `myid`: a member of an ensemble; 1 in session ids of a standalone server without one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServerId(pub i64);

/// One accepted client connection. The poller makes them; a slot is used again only under a new generation, so that
/// mail for a connection that is gone never reaches its successor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    /// Index into the poller's slab.
    pub slot: u32,
    /// Counts the connections accepted so far.
    pub generation: u32,
}

/// A connection of the quorum thread, on either port. The shell makes them, never one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// The time of one step, read once by the thread's shell and handed to its core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic milliseconds: deadlines, expiry, latencies.
    pub mono_ms: i64,
    /// Wall clock, milliseconds since 1970: ctime and mtime, and what people read.
    pub wall_ms: i64,
}
