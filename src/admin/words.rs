//! TABLE of four-letter words.

use std::net::SocketAddr;

use crate::ids::SessionId;
use crate::mail::LastAnswer;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The four-letter words.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Word { $($(#[$doc])* $name,)* }

        impl Word {
            /// Every word.
            pub const ALL: &'static [Word] = &[$(Word::$name,)*];

            /// Its text.
            pub fn text(self) -> &'static str {
                match self { $(Word::$name => $text,)* }
            }
        }
    };
}

words! {
    /// The configuration in force.
    Conf = "conf";
    /// Connections in full.
    Cons = "cons";
    /// Reset connection statistics.
    Crst = "crst";
    /// Sizes of the directories.
    Dirs = "dirs";
    /// Sessions and ephemerals.
    Dump = "dump";
    /// The environment.
    Envi = "envi";
    /// Trace mask.
    Gtmk = "gtmk";
    /// Are you ok?
    Ruok = "ruok";
    /// Set the trace mask.
    Stmk = "stmk";
    /// Reset server statistics.
    Srst = "srst";
    /// Server statistics.
    Srvr = "srvr";
    /// Server statistics and connections in brief.
    Stat = "stat";
    /// Watches by session.
    Wchc = "wchc";
    /// Watches by path.
    Wchp = "wchp";
    /// Watches in numbers.
    Wchs = "wchs";
    /// Every metric.
    Mntr = "mntr";
    /// Read-only?
    Isro = "isro";
    /// Digests of the past.
    Hash = "hash";
}

impl Word {
    /// The word that these four bytes are.
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Word> {
        Word::ALL.iter().copied().find(|word| word.text().as_bytes() == bytes)
    }
}

/// What only the poller knows when a word arrives.
#[derive(Debug, Default)]
pub struct PollerView {
    /// `stmk`: the eight bytes behind the word.
    pub argument: Option<i64>,
    /// The connections; filled for the words that list them (cons, stat, dump), else empty.
    pub connections: Vec<ConnView>,
    /// Number of open connections, this one included.
    pub connection_count: u32,
    /// What the poller counted since the start.
    pub counts: PollerCounts,
}

/// What the poller counts, for `mntr`; named as Apache's metrics are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PollerCounts {
    /// Connections over `maxClientCnxns` or `maxCnxns`, closed at once.
    pub connection_rejected: u64,
    /// Connections that were closed after they had been accepted, whatever for.
    pub connection_drop_count: u64,
    /// Connect requests passed on.
    pub connection_request_count: u64,
    /// Bytes read from clients.
    pub bytes_received_count: u64,
    /// Frames over `largeRequestMaxBytes`.
    pub large_requests_rejected: u64,
    /// Connections closed because they were silent.
    pub sessionless_connections_expired: u64,
}

/// One connection as `cons` shows it.
#[derive(Debug, Clone)]
pub struct ConnView {
    /// Remote address.
    pub peer: SocketAddr,
    /// 1 read, 4 write, 5 both.
    pub interest_ops: u8,
    /// Requests not answered yet.
    pub queued: u32,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// With a session only.
    pub session: Option<SessionView>,
}

/// The session part of a `cons` line.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Session id.
    pub id: SessionId,
    /// Negotiated timeout.
    pub timeout_ms: i32,
    /// When the connection was made, wall clock, ms.
    pub established_wall_ms: i64,
    /// The last answer, if there was one.
    pub last: Option<LastAnswer>,
    /// When it was sent, monotonic ms.
    pub last_response_mono_ms: i64,
    /// Latencies, ms.
    pub last_latency_ms: i64,
    /// Smallest.
    pub min_latency_ms: i64,
    /// Mean.
    pub avg_latency_ms: i64,
    /// Largest.
    pub max_latency_ms: i64,
}
