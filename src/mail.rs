//! Every sentence that one core can say to another, an enum per receiver. Plain values; the threads post them over
//! crossbeam channels, in batches, and wake a neighbour once per batch. What a thread answers without its core (health
//! checks, four-letter words, queries of the admin server) is in its own envelope, see `threads`.
//!
//! Order is in the type: what must wait for the disk travels as `then` inside what is to be written, and the txnlog
//! thread posts it after the sync, and only notes when that was.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::config::voters::Configs;
use crate::ids::{ConnId, LinkId, ServerId, SessionId, Zxid};
use crate::limits;
use crate::ops::{ConnectRequest, Request};
use crate::parts::Parts;
use crate::state::acl::AuthId;
use crate::state::{JointVerdict, State};
use crate::txn::Txn;

/// Mail for any of the threads.
#[derive(Debug)]
pub enum Mail {
    /// For the pipeline.
    Pipeline(ToPipeline),
    /// For the quorum thread.
    Quorum(ToQuorum),
}

impl Mail {
    /// Notes when the sync that this waited for was done, monotonic microseconds.
    pub fn stamp(&mut self, now_us: i64) {
        if let Mail::Pipeline(ToPipeline::Committed { at_us, .. }) | Mail::Quorum(ToQuorum::Durable { at_us, .. }) =
            self
        {
            *at_us = now_us;
        }
    }
}

/// That this server's own log had everything up to a transaction, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synced {
    /// The last of the transactions.
    pub zxid: Zxid,
    /// When their sync was done, monotonic microseconds.
    pub at_us: i64,
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
    /// Connections have taken what they were told, or are gone: so many bytes that they had for themselves, and maybe some
    /// that were shared. Said now and then.
    Taken {
        /// Since this was said last.
        bytes: usize,
    },
    /// A connection has sent more than there is room for, and is not read meanwhile: its session lives.
    Waits {
        /// The connection.
        conn: ConnId,
    },
    /// An operator wants a snapshot now; or one that could not be written is to be tried again.
    TakeSnapshot,
    /// Every transaction up to this one is durable where it must be, and is to be applied.
    Committed {
        /// The last of them.
        zxid: Zxid,
        /// Since when, monotonic microseconds: for warnings.
        at_us: i64,
        /// In an ensemble: what this server's own log had when, in order, each once: for warnings. May be ahead of `zxid`,
        /// or behind it.
        synced: Vec<Synced>,
    },
    /// Leader: this server's own log has so many bytes more of the records that it was given, [`LogRecord::bytes`] of each.
    Logged {
        /// Since this was said last.
        bytes: usize,
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
    /// The snapshot as of this transaction cannot be written, and is over; another is asked for after a pause, by
    /// `TakeSnapshot`.
    SnapshotFailed {
        /// Its name.
        zxid: Zxid,
    },
    /// What this server is to the ensemble from now on. Only in an ensemble; a standalone server leads from the start.
    Role(Role),
    /// Who belongs to the ensemble: before a role in which clients are served, and when that changes.
    Configs(Box<Configs>),
    /// Leader: the followers that have the history and are connected, when that changes.
    Followers(BTreeSet<ServerId>),
    /// Learner: transactions that the ensemble committed, in order, to be applied now. A client of this server that waits
    /// for one of them (its session and cxid are in the header) is answered.
    Deliver {
        /// Ascending zxids.
        txns: Vec<Txn>,
    },
    /// Learner: whatever state it began with, a snapshot that was made while writes went on among them, is exact once this
    /// transaction is applied: the leader had proposed it before it ended the synchronization.
    ExactFrom(Zxid),
    /// Learner: what is delivered from here on is of a leader that says nothing of what it has up to this transaction, the
    /// last one here. The first digest tells; [`ToQuorum::Joint`] says what.
    Joined(Zxid),
    /// Learner: is all applied that was delivered until now? Answered by [`ToQuorum::CaughtUp`]; what the digests in it told of
    /// the joint is said before.
    CatchUp,
    /// Leader: a learner forwards a request of one of its clients. Exactly one transaction per request, errors included;
    /// a sync is answered by [`ToQuorum::SyncReady`].
    Forwarded {
        /// Who forwards; owns the session from now on.
        learner: LinkId,
        /// The request.
        request: ForwardedRequest,
    },
    /// Leader: sessions that a learner heard of.
    Touched {
        /// With their timeouts.
        sessions: Vec<(SessionId, i32)>,
    },
    /// Leader: a learner asks whether a session is alive, since a client came to it with that session; the learner owns it
    /// if so. Answered by [`ToQuorum::Revalidated`].
    Revalidate {
        /// Who asks.
        learner: LinkId,
        /// The session.
        session: SessionId,
        /// The timeout that was negotiated.
        timeout_ms: i32,
    },
    /// Leader: a learner is gone; the sessions that it owned have no owner.
    LearnerGone {
        /// Which.
        learner: LinkId,
    },
    /// Learner: the leader's answer to a [`ToQuorum::Revalidate`].
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it is alive.
        valid: bool,
    },
    /// Learner: the oldest sync that was forwarded is done.
    Synced,
    /// Learner: which sessions were heard of since the last time? Answered by [`ToQuorum::Touched`].
    TellTouched,
    /// Leader: a learner needs the whole state, as of now. Answered by [`ToQuorum::Snapshot`] pieces.
    StreamSnapshot {
        /// Who.
        learner: LinkId,
    },
    /// The kernel took a piece of that stream: another may follow. A learner that is gone is told by `LearnerGone`.
    SnapshotPieceSent {
        /// Who.
        learner: LinkId,
    },
    /// Another state is to take the place of this one, and there is no room for two: the state goes, all but its last zxid.
    /// Nobody is served before [`ToPipeline::Install`]; what is on disk stays. Answered by [`ToQuorum::Forgotten`].
    Forget,
    /// The state is replaced by this one (received from the leader, or read again after a truncation). No client is
    /// connected. When `durable` is asked for, a snapshot of it is written at once and [`ToQuorum::Installed`] said when it
    /// is on disk.
    Install {
        /// The state.
        state: Box<State>,
        /// Whether a snapshot is needed.
        durable: bool,
    },
    /// Stop: answer what is acknowledged, take no more.
    Stop,
}

/// A request as it travels to the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardedRequest {
    /// The client's session.
    pub session: SessionId,
    /// The client's xid; 0 for createSession and what a server does by itself.
    pub cxid: i32,
    /// Opcode.
    pub op: i32,
    /// The request record as the client sent it.
    pub body: Vec<u8>,
    /// The identities of the client's connection; `None` for what a server does by itself.
    pub auth: Option<Vec<AuthId>>,
}

impl ForwardedRequest {
    /// Of a client with more identities than are taken: nothing of it came but whose it is.
    pub fn is_unreadable(&self) -> bool {
        self.auth.is_none() && self.body.is_empty()
    }

    /// Bytes that it takes while it waits.
    pub fn size(&self) -> usize {
        let identities = self.auth.iter().flatten().map(|who| who.scheme.len() + who.id.len());
        self.body.len() + identities.sum::<usize>()
    }
}

/// What a server is to its ensemble, for the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// None: every client is disconnected and new ones are refused. Whatever was proposed here and logged is applied, as
    /// the log has it; [`ToQuorum::Quiesced`] says when. Requests forwarded and unanswered are forgotten. What was logged
    /// and not committed follows as [`ToPipeline::Deliver`], in the same batch of mail: one that comes later makes the
    /// pipeline quiesce once more.
    Looking,
    /// A quorum has this server's history: it makes the transactions of this epoch, from counter 1, and serves clients.
    /// Every session gets its full timeout anew.
    Leading {
        /// The epoch.
        epoch: u32,
    },
    /// Serves clients; writes are forwarded.
    Following,
    /// The same, without a vote.
    Observing,
    /// Cut off from a quorum, `readonlymode.enabled`: serves reads to clients that accept that.
    ReadOnly,
}

/// What the quorum thread is told by the others.
#[derive(Debug)]
pub enum ToQuorum {
    /// Leader: new transactions, on their way to this server's log at the same time; `Durable` will tell.
    Proposed(Vec<LogRecord>),
    /// Everything up to this zxid that was given to the log is durable.
    Durable {
        /// The last of them.
        zxid: Zxid,
        /// Since when, monotonic microseconds; the txnlog thread notes it.
        at_us: i64,
    },
    /// Learner: a request for the leader.
    Forward(ForwardedRequest),
    /// Learner: is this session alive? Answered by [`ToPipeline::Revalidated`].
    Revalidate {
        /// The session.
        session: SessionId,
        /// The timeout that was negotiated.
        timeout_ms: i32,
    },
    /// Leader: the answer to [`ToPipeline::Revalidate`].
    Revalidated {
        /// Who asked.
        learner: LinkId,
        /// The session.
        session: SessionId,
        /// Whether it is alive.
        valid: bool,
    },
    /// Leader: a sync that this learner forwarded waits for everything proposed so far.
    SyncReady {
        /// Who.
        learner: LinkId,
        /// The last transaction proposed before it.
        after: Zxid,
    },
    /// Learner: so many more bytes of what was delivered are applied, [`Txn::size_hint`] of each. Said now and then.
    Applied {
        /// Since this was said last.
        bytes: usize,
    },
    /// Learner: whether the leader's transactions fit the history that they were put behind, see [`ToPipeline::Joined`].
    Joint(JointVerdict),
    /// The answer to [`ToPipeline::CatchUp`].
    CaughtUp,
    /// The answer to [`ToPipeline::TellTouched`].
    Touched(Vec<(SessionId, i32)>),
    /// Leader: a piece of the state for a learner, in order.
    Snapshot {
        /// For whom.
        learner: LinkId,
        /// The state is as of this transaction; the same in each piece.
        zxid: Zxid,
        /// Bytes of the stream, signature included in the last.
        bytes: Vec<u8>,
        /// That was all.
        last: bool,
    },
    /// The answer to [`ToTxnlog::Truncate`].
    Truncated {
        /// The last transaction that was to stay.
        to: Zxid,
        /// False: this server's own history does not hold that transaction, or cannot be brought back as of it. Nothing was
        /// changed; only a snapshot from the leader helps.
        possible: bool,
    },
    /// The answer to [`ToPipeline::Forget`]: the memory is free.
    Forgotten,
    /// A state that was installed is durable.
    Installed {
        /// Its last transaction.
        zxid: Zxid,
    },
    /// The answer to [`Role::Looking`]: everything that was proposed or delivered here is applied, and no snapshot of it is
    /// under way: what is on disk now is all, until a role or [`ToPipeline::Install`].
    Quiesced {
        /// The last transaction applied.
        zxid: Zxid,
        /// The digest of the tree after it.
        tree: Option<u64>,
    },
    /// The zxids of this epoch are used up: the next write needs a new leader.
    EpochExhausted,
    /// End: peers are told by closing.
    Stop,
}

/// What the poller is told: all that the pipeline has for it after one batch.
#[derive(Debug, Default)]
pub struct ToPoller {
    /// At most one entry a connection.
    pub outgoing: Vec<Outgoing>,
    /// How many writes are answered by it, and when they were applied, monotonic microseconds: for the metrics.
    pub applied: Option<(usize, i64)>,
    /// Replies that wait have so many bytes too many; 0: there is room. When that changes.
    pub excess_bytes: Option<usize>,
    /// Every request was answered and nothing more comes: flush and end.
    pub stop: bool,
}

/// What one connection gets.
#[derive(Debug)]
pub struct Outgoing {
    /// The connection; gone ones are passed over.
    pub conn: ConnId,
    /// Whole frames (or the text of a four-letter word), in order.
    pub bytes: Parts,
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
        session: SessionId,
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

impl LogRecord {
    /// What it counts where bytes of transactions are bounded: what surrounds a small one costs more than the payload.
    pub fn bytes(&self) -> usize {
        limits::TXN_OVERHEAD_BYTES + self.payload.len()
    }
}

/// What becomes of transactions that this server has, when its history is replaced by a leader's, or is its own again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// The leader's history is proven to hold them: their files go.
    Contained,
    /// They are the end of this server's last epoch, which an election passed over. Kept until an operator removes them.
    Tail,
    /// They are no part of this server's history: a leader with another one sent them. Kept, too.
    Foreign,
    /// Nothing proves where else they are: they are kept until an operator removes them.
    Unproven,
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
        /// When this was sent, monotonic microseconds: for the metrics.
        sent_us: i64,
    },
    /// The next record starts a new file (a snapshot begins here).
    Roll,
    /// What was appended is synced and the file closed; then every trace of what comes behind this transaction is taken
    /// out of logs and snapshots. Answered by [`ToQuorum::Truncated`]. See `quorum::replacement` for what comes next.
    Truncate {
        /// The last transaction that stays.
        to: Zxid,
        /// What becomes of the rest.
        dropped: Dropped,
    },
    /// A state received from the leader is to replace this server's, and no snapshot of it is written yet: what was appended
    /// is synced, the file closed, and it is noted on disk what comes.
    PrepareInstall {
        /// The last transaction of the state.
        zxid: Zxid,
        /// What becomes of what is here.
        dropped: Dropped,
        /// Posted afterwards.
        then: Vec<Mail>,
    },
    /// The snapshot of that state is durable: all other snapshots, and all logs, are removed.
    FinishInstall {
        /// The last transaction of the state.
        zxid: Zxid,
        /// Posted afterwards.
        then: Vec<Mail>,
    },
    /// Sync what was appended, cut the unused tail, end.
    Stop,
}

/// What the snapshot thread is told. It ends with whoever tells it; an unfinished snapshot is thrown away.
#[derive(Debug)]
pub enum ToSnapshot {
    /// A snapshot of the state as of this transaction begins. One that is not finished is thrown away. When it cannot be
    /// written, `SnapshotFailed` comes once, and what follows of it is thrown away.
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
}
