//! Every sentence that one thread can say to another, an enum per receiver. Plain values; the threads post them over
//! crossbeam channels, in batches, and wake a neighbour once per batch.
//!
//! Order is in the type: what must wait for the disk travels as `then` inside what is to be written, and the txnlog
//! thread posts it, unread, after the sync.

use std::net::SocketAddr;

use crate::admin::words::{PollerView, Word};
use crate::ids::{ConnId, Zxid};
use crate::ops::{ConnectRequest, Request};

/// Mail for any of the threads.
#[derive(Debug)]
pub enum Mail {
    /// For the pipeline.
    Pipeline(ToPipeline),
}

/// What the pipeline is told.
#[derive(Debug)]
pub enum ToPipeline {
    /// A connection sent its connect request. Nothing else was heard of it before.
    Connect {
        /// The connection.
        conn: ConnId,
        /// Where from.
        peer: SocketAddr,
        /// The handshake.
        request: ConnectRequest,
    },
    /// A request of a connection that said `Connect` before. Each is answered by exactly one entry of
    /// [`Outgoing::answered`], even when no bytes are sent.
    Request {
        /// The connection.
        conn: ConnId,
        /// What is asked.
        request: Request,
        /// When the poller read it, monotonic microseconds: for latencies.
        received_us: i64,
    },
    /// The connection is closed, whoever closed it: no more mail of it follows, and none for it is delivered. Comes once
    /// after each `Connect`, also when [`Fate::Close`] was the reason. Requests of it that are still in process are
    /// answered all the same (without bytes): that is how the poller knows what is in flight.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// A connection that was told so much that [`Outgoing::tell_drained`] was set has taken nearly all of it.
    Drained {
        /// The connection.
        conn: ConnId,
    },
    /// A four-letter word, with what only the poller knows.
    Word {
        /// Where the text goes; the connection has said nothing else.
        conn: ConnId,
        /// Which.
        word: Word,
        /// The poller's part of the answer.
        view: Box<PollerView>,
    },
    /// Every transaction up to this one is durable where it must be, and is to be applied.
    Committed {
        /// The last of them.
        zxid: Zxid,
    },
    /// A chunk of the running snapshot is written: another may follow.
    SnapshotChunkWritten,
    /// The running snapshot is complete, synced and under its final name.
    SnapshotDone {
        /// Its name.
        zxid: Zxid,
        /// Bytes, compressed.
        bytes: u64,
    },
    /// Stop: answer what is acknowledged, take no more.
    Stop,
}

/// What the poller is told: all that the pipeline has for it after one batch.
#[derive(Debug, Default)]
pub struct ToPoller {
    /// At most one entry a connection.
    pub outgoing: Vec<Outgoing>,
    /// The server is about to stop: close the listening sockets, serve who is connected. Said by main.
    pub stop_accepting: bool,
    /// Every request was answered and nothing more comes: flush and end.
    pub stop: bool,
}

/// What one connection gets.
#[derive(Debug)]
pub struct Outgoing {
    /// The connection; gone ones are passed over.
    pub conn: ConnId,
    /// Whole frames (or the text of a four-letter word), in order.
    pub bytes: Vec<u8>,
    /// How many frames `bytes` holds: packets sent, as `cons` counts them.
    pub frames: u32,
    /// The pipeline answers nothing more of this connection until it is told [`ToPipeline::Drained`].
    pub tell_drained: bool,
    /// How many requests of the connection are finished by this.
    pub answered: u32,
    /// What becomes of the connection.
    pub fate: Fate,
    /// For `cons` and the metrics: what was answered last.
    pub last: Option<LastAnswer>,
}

/// What becomes of a connection after its bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays.
    Open,
    /// Its session is set up with this id and timeout: requests are read from now on.
    Established {
        /// Session id.
        session: crate::ids::SessionId,
        /// Negotiated timeout.
        timeout_ms: i32,
    },
    /// It closes once the bytes are sent (or cannot be).
    Close,
}

/// The last request answered on a connection, as `cons` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastAnswer {
    /// Opcode, as short text.
    pub op: &'static str,
    /// The request's xid.
    pub cxid: i32,
    /// Zxid of the reply.
    pub zxid: Zxid,
    /// When the request was read, monotonic microseconds.
    pub received_us: i64,
}

/// One transaction as it is logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Names the file, should this be its first record.
    pub zxid: Zxid,
    /// `Txn::to_bytes`.
    pub payload: Vec<u8>,
}

/// What the txnlog thread is told.
#[derive(Debug)]
pub enum ToTxnlog {
    /// Append these in order; once they are durable, post `then`.
    Append {
        /// Ascending zxids.
        records: Vec<LogRecord>,
        /// Posted after the sync.
        then: Vec<Mail>,
    },
    /// The next record starts a new file (a snapshot begins here).
    Roll,
    /// Sync what was appended, cut the unused tail, end.
    Stop,
}

/// What the snapshot thread is told.
#[derive(Debug)]
pub enum ToSnapshot {
    /// A snapshot of the state as of this transaction begins.
    Begin {
        /// Names the file.
        zxid: Zxid,
    },
    /// Its next bytes, uncompressed, from the file header to the end of the tree. Answered by `SnapshotChunkWritten`.
    Chunk(Vec<u8>),
    /// The tree is complete: seal it (with the digest, if digests are on), sync it, give it its name.
    Finish {
        /// The tree's digest at the snapshot's zxid.
        digest: Option<u64>,
    },
    /// End; an unfinished snapshot is thrown away.
    Stop,
}
