//! The core of the server: requests in, transactions out to the log, replies out to the poller. One pure state machine:
//! mail and time in, mail out. Driven by `threads::pipeline`; owns the replicated state, the sessions, the watches and
//! the order of each connection's replies.
//!
//! A write: [`prepare`] checks it against the state and everything proposed before it and makes the transaction (an
//! error is one too), which goes to the log. When its zxid is committed, [`State::apply`] does it, watches fire, the
//! reply goes out. A read is answered from the applied state, at once, unless its connection has a write in flight: then
//! right after that write.
//!
//! That is a leader, and a server alone is the leader of an ensemble of one. On a learner the leader prepares: a write is
//! forwarded, and comes back as a committed transaction, which is applied and answered the same way. `backlog` has what
//! waits to be prepared because enough is proposed and not committed. `roles` has what
//! happens between one role and the next, `leading` what learners ask of their leader, `following` the learner's part.

pub mod audit;
mod auth;
mod backlog;
mod commit;
mod connect;
mod expiring;
mod expiry;
mod following;
mod housekeeping;
mod leading;
mod listing;
mod local;
mod long_reads;
mod prepare;
mod reads;
mod reconfig;
mod replies;
mod reply_budget;
mod rewatching;
mod roles;
mod rules;
mod slow;
mod snapshots;
mod view;
mod watches;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use rules::{DigestAuth, Rules, SnapshotRules};

use crate::codes::Code;
use crate::config::voters::Configs;
use crate::ids::{ConnId, Now, ServerId, SessionId, Zxid};
use crate::limits::WATCHES_REMOVED_AT_ONCE;
use crate::mail::{Fate, LastAnswer, LogRecord, Outgoing, Role, Synced, ToPipeline, ToPoller, ToQuorum, ToSnapshot};
use crate::metrics;
use crate::ops::{Op, OpCode, ReadOp, Request, WriteOp};
use crate::parts::Parts;
use crate::quiet::{Quiet, suppressed};
use crate::state::acl::AuthId;
use crate::state::pending::Pending;
use crate::state::{Change, State};
use crate::txn::{Txn, TxnBody, TxnDigest, TxnHeader};
use crate::wrong::{self, Wrong};
use audit::Audited;
use backlog::{Awaiting, Backlog};
use connect::{Handshake, PendingConnect};
use expiring::Expiring;
use expiry::{SessionOwner, SessionTracker};
use following::Following;
use housekeeping::Housekeeping;
use listing::Listing;
use long_reads::{Answer, LongReads};
use reply_budget::ReplyBudget;
use rewatching::Rewatching;
use slow::Durable;
use snapshots::Snapshots;
use watches::Watches;

/// What one turn leaves to be delivered; in which order is `engine::pipeline`'s.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the log, in zxid order; their commit comes back as `Committed`. In an ensemble they are proposed to the
    /// quorum at the same time.
    pub records: Vec<LogRecord>,
    /// Once the records are in the log, and all before them: the pipeline is told that so many bytes are
    /// ([`ToPipeline::Logged`]).
    pub logged: Option<usize>,
    /// Before anything is told: much memory was freed and is wanted elsewhere.
    pub frees_memory: bool,
    /// After the records: the next one starts a new file.
    pub roll: bool,
    /// For the snapshot thread.
    pub snapshot: Vec<ToSnapshot>,
    /// For the quorum thread.
    pub quorum: Vec<ToQuorum>,
    /// For the poller.
    pub poller: ToPoller,
    /// How many writes of this server's clients are answered in `poller`.
    pub applied: usize,
    /// Everything is answered and a stop was asked for: the shell ends after delivering.
    pub stopped: bool,
}

/// A transaction that is on its way through the log.
#[derive(Debug)]
struct Proposal {
    txn: Txn,
    origin: Option<Origin>,
    durable: Durable,
    /// What it adds to the bytes that are proposed and not committed.
    bytes: usize,
}

/// Who waits for a transaction.
#[derive(Debug)]
struct Origin {
    conn: ConnId,
    xid: i32,
    received_us: i64,
    /// When it became a transaction here, or was forwarded, monotonic microseconds.
    taken_us: i64,
    reply: ReplyShape,
    /// What the audit log is told of it.
    audited: Option<Box<Audited>>,
}

impl Origin {
    /// Of the new session that a connection asks for: it has no xid, and is taken up as it comes.
    fn of_connect(conn: ConnId, now_us: i64) -> Origin {
        Origin { conn, xid: 0, received_us: now_us, taken_us: now_us, reply: ReplyShape::Connect, audited: None }
    }
}

/// What the reply to a write looks like.
#[derive(Debug)]
enum ReplyShape {
    /// Header only.
    Empty,
    /// The path of a create.
    Path,
    /// Path and stat.
    PathStat,
    /// Stat.
    Stat,
    /// The new configuration and the stat of its node.
    Config,
    /// A multi: the opcode each result is given as.
    Multi(Vec<OpCode>),
    /// No reply header: the handshake's answer.
    Connect,
    /// Header, then the connection closes.
    Close,
}

/// What a connection waits for, in the order of its requests.
#[derive(Debug)]
enum Slot {
    /// A write of its own.
    Write,
    /// A read behind it.
    Read(Read),
}

/// What is asked of a server that makes no transaction of it.
#[derive(Debug)]
enum Query {
    /// Answered from the state.
    Read(ReadOp),
    /// The end of a session that only this server knows.
    CloseSession,
    /// Read or write: it waited too long in front of the pipeline, or this server takes no writes.
    Refused(Code),
}

/// What becomes a transaction.
#[derive(Debug)]
enum Update {
    Write(WriteOp),
    CloseSession,
}

/// A request of a client of this server, but for what it asks.
#[derive(Debug)]
struct Asked {
    xid: i32,
    op_number: i32,
    /// As it came, for a leader to which it may go.
    body: Vec<u8>,
    received_us: i64,
}

/// What is answered without a transaction, when its turn comes.
#[derive(Debug)]
struct Read {
    xid: i32,
    op_number: i32,
    query: Query,
    /// The identities it arrived with.
    auth: Arc<[AuthId]>,
    received_us: i64,
    /// When the pipeline took it up, monotonic microseconds.
    taken_us: i64,
    /// A sync that the leader has not confirmed: its turn comes after that.
    awaits_sync: bool,
    /// The lists that it asks for were made for it: what is not there by now is made at once.
    is_listed: bool,
    /// Of a long multiRead, once that is begun.
    answer: Option<Box<Answer>>,
    /// What it waited for since its turn came, each from then on, monotonic microseconds.
    waits: Vec<(&'static str, i64)>,
}

impl Read {
    fn new(asked: &Asked, query: Query, auth: Arc<[AuthId]>, taken_us: i64) -> Read {
        Read {
            xid: asked.xid,
            op_number: asked.op_number,
            query,
            auth,
            received_us: asked.received_us,
            taken_us,
            awaits_sync: false,
            is_listed: false,
            answer: None,
            waits: Vec::new(),
        }
    }

    fn wait(&mut self, what: &'static str, now_us: i64) {
        if self.waits.last().is_none_or(|(last, _)| *last != what) {
            self.waits.push((what, now_us));
        }
    }
}

/// What clients are complained about, each kind at most once a second.
#[derive(Clone, Copy, Debug)]
enum Complaint {
    /// It has seen a later state than this server's.
    Ahead,
    /// It names another ensemble.
    Ensemble,
    /// It asks for more than memory holds.
    Flood,
    /// It says that it is more people than there is room for.
    Identities,
    /// Its session moved to another connection.
    Moved,
    /// A quota is exceeded.
    Quota,
    /// A reconfiguration is refused.
    Reconfig,
    /// A read took longer than it should.
    SlowRead,
    /// A write took longer than it should.
    SlowWrite,
    /// It sent an opcode that there is not.
    UnknownOp,
}

/// A turn that comes later than this, and later than half a tick, was kept from coming. Less is the scheduler's share.
const LATE_MS_MIN: i64 = 100;

const COMPLAINTS: usize = Complaint::UnknownOp as usize + 1;

/// A request that waits until its connection has taken what it was told.
#[derive(Debug)]
struct Held {
    request: Request,
    received_us: i64,
}

/// A connection that said `Connect`.
#[derive(Debug)]
struct Conn {
    peer: IpAddr,
    session: Option<SessionId>,
    timeout_ms: i32,
    /// Its connect request, until that is answered.
    handshake: Option<Box<Handshake>>,
    /// The handshake had the read-only byte, so the answer has it.
    read_only_byte: bool,
    auth: Arc<[AuthId]>,
    waiting: VecDeque<Slot>,
    /// It has been told more than it has taken: it is not answered until the poller says so.
    is_full: bool,
    /// What it asked since.
    held: VecDeque<Held>,
    /// Its next request is a large read that waits for room.
    in_line: bool,
    /// What it asked for is done some of it in each turn: what it asks behind that is held.
    in_turns: bool,
    /// When something was held last no more, monotonic microseconds, and for what it was.
    released: Option<(i64, &'static str)>,
    /// Nothing more is accepted from it: it closes, or its session does.
    closing: bool,
    /// What it is to be told at the end of this step; present only when it is in `Pipeline::told`.
    out: Option<Outgoing>,
}

/// The core. See the module.
#[derive(Debug)]
pub struct Pipeline {
    rules: Rules,
    role: Role,
    state: State,
    pending: Pending,
    /// Leader: parents whose count of creates is at its end, and the number of the next sequential node there.
    overflowed: FxHashMap<String, i32>,
    last_proposed: Zxid,
    proposals: VecDeque<Proposal>,
    backlog: Backlog,
    /// Leader: since when this server's log has what is not committed, in order, and maybe a little of what is.
    synced: VecDeque<Synced>,
    sessions: SessionTracker,
    /// Leader: what ends since its time was up.
    expiring: Expiring,
    /// Sessions that only this server knows.
    locals: SessionTracker,
    watches: Watches,
    housekeeping: Housekeeping,
    snapshots: Snapshots,
    following: Following,
    /// Who belongs to the ensemble, once that is told.
    configs: Option<Configs>,
    /// Leader: what came of its own clients while a reconfiguration is not committed, in order. Bounded as all is of theirs
    /// that waits for a commit, by the poller, which admits it.
    parked: VecDeque<ToPipeline>,
    /// Leader: who has the history and is connected.
    followers: BTreeSet<ServerId>,
    conns: FxHashMap<ConnId, Conn>,
    /// Those of them that wait for a role to be answered, in order of time.
    pending_connects: VecDeque<PendingConnect>,
    /// Of their identities, as far as they count for the bound on all of them.
    identity_bytes: usize,
    next_session_id: i64,
    now: Now,
    now_us: i64,
    /// The server did not run, and nothing expires before this, monotonic ms.
    expiry_from_ms: Option<i64>,
    started_mono_ms: i64,
    /// The state was forgotten, and nobody may be served.
    is_hollow: bool,
    /// The quorum thread waits for [`ToQuorum::Quiesced`].
    owes_quiesced: bool,
    /// It was told that this epoch has no zxid left.
    epoch_used_up: bool,
    stopping: bool,
    /// Connections with something in `Conn::out`.
    told: Vec<ConnId>,
    /// What was told and not taken yet.
    reply_budget: ReplyBudget,
    /// Who waits for lists of very many children.
    listing: Listing,
    /// Who waits for the answer to a long multiRead.
    long_reads: LongReads,
    /// Who waits until very many watches are set.
    rewatching: Rewatching,
    /// Requests finished whose connection is gone: the poller counts them all the same.
    departed: FxHashMap<ConnId, u32>,
    out: Outbox,
    complaints: [Quiet; COMPLAINTS],
    /// Reused between transactions.
    changes: Vec<Change>,
}

impl Pipeline {
    /// Starts from a recovered state. `seed` varies when snapshots are taken, so that servers do not take theirs at the
    /// same time.
    pub fn new(rules: Rules, mut state: State, now: Now, seed: u64) -> Pipeline {
        // In an ensemble that takes a transaction, see `Pipeline::lead`.
        let orphaned = if rules.ensemble { Vec::new() } else { state.delete_orphans() };
        let role = if rules.ensemble { Role::Looking } else { Role::Leading { epoch: state.last_zxid().epoch() } };
        for session in &orphaned {
            log::info!("deleted the ephemerals of session {session}, which no longer exists");
        }
        let sessions = SessionTracker::of(&state, rules.tick_ms, now);
        let mut pipeline = Pipeline {
            pending: Pending::new(&state),
            overflowed: FxHashMap::default(),
            locals: SessionTracker::new(rules.tick_ms),
            last_proposed: state.last_zxid(),
            next_session_id: connect::first_session_id(&rules, now),
            housekeeping: Housekeeping::new(&rules, now),
            snapshots: Snapshots::new(rules.snapshots, seed),
            following: Following::default(),
            configs: None,
            parked: VecDeque::new(),
            followers: BTreeSet::new(),
            rules,
            role,
            state,
            proposals: VecDeque::new(),
            backlog: Backlog::default(),
            synced: VecDeque::new(),
            sessions,
            expiring: Expiring::default(),
            watches: Watches::default(),
            conns: FxHashMap::default(),
            pending_connects: VecDeque::new(),
            identity_bytes: 0,
            now,
            now_us: now.mono_ms * 1000,
            expiry_from_ms: None,
            started_mono_ms: now.mono_ms,
            is_hollow: false,
            owes_quiesced: false,
            epoch_used_up: false,
            stopping: false,
            told: Vec::new(),
            reply_budget: ReplyBudget::default(),
            listing: Listing::default(),
            long_reads: LongReads::default(),
            rewatching: Rewatching::default(),
            departed: FxHashMap::default(),
            out: Outbox::default(),
            complaints: Default::default(),
            changes: Vec::new(),
        };
        if !orphaned.is_empty() {
            // No transaction says so: the next start must not begin from before it.
            pipeline.want_snapshot();
        }
        pipeline
    }

    /// The replicated state, for tests and for those who publish figures.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is proposed and not applied yet, for tests.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// When [`Pipeline::tick`] is to be called, monotonic ms: while anything can expire, twice a tick, so that it is noticed
    /// when the server did not run.
    pub fn next_deadline_ms(&self) -> i64 {
        let expiry_ms = match self.next_expiry_ms() {
            i64::MAX => i64::MAX,
            due_ms => {
                let due_ms = self.expiry_from_ms.map_or(due_ms, |from_ms| from_ms.max(due_ms));
                due_ms.min(self.now.mono_ms + (self.rules.tick_ms / 2).max(1))
            }
        };
        expiry_ms.min(self.next_connect_timeout_ms())
    }

    fn next_expiry_ms(&self) -> i64 {
        let locals_ms = self.locals.next_deadline_ms();
        // What is due on the leader takes a zxid: without one it waits for the next leader.
        if !self.leads() || self.epoch_used_up || self.is_reconfiguring() {
            return locals_ms;
        }
        self.next_end_ms().min(locals_ms)
    }

    /// Sets the time for the mail that follows. `now_us` is the finer clock that latencies are measured with.
    pub fn set_time(&mut self, now: Now, now_us: i64) {
        let asked_ms = self.next_deadline_ms().max(self.now.mono_ms);
        let late_ms = now.mono_ms.saturating_sub(asked_ms);
        (self.now, self.now_us) = (now, now_us);
        if late_ms > LATE_MS_MIN.max(self.rules.tick_ms / 2) {
            self.stand_still(late_ms);
        }
    }

    /// The server did not run for this long, or had no time: that counts for nobody's expiry. For one tick nothing expires:
    /// what waits in its sockets, and what learners have heard, is taken in first. That is so once until something may
    /// expire again, else nothing ever would on a host that stops all the time.
    fn stand_still(&mut self, late_ms: i64) {
        self.sessions.stand_still(late_ms);
        self.locals.stand_still(late_ms);
        if self.expiry_from_ms.is_none() {
            self.expiry_from_ms = Some(self.now.mono_ms + self.rules.tick_ms);
            if self.leads() && late_ms > self.rules.tick_ms {
                log::warn!("this server did not run for {late_ms} ms: that time counts for no session's timeout");
            }
        }
    }

    /// What is due by time alone: local sessions expire; on the leader global ones too, and containers and TTL nodes are
    /// removed.
    pub fn tick(&mut self) {
        self.admit_pending_connects();
        self.refuse_late_connects();
        if self.expiry_from_ms.is_some_and(|from_ms| self.now.mono_ms < from_ms) {
            return;
        }
        self.expiry_from_ms = None;
        self.expire_locals();
        if !self.leads() || self.is_reconfiguring() {
            return;
        }
        self.expire_sessions();
        self.remove_childless();
    }

    /// One piece of mail.
    pub fn step(&mut self, mail: ToPipeline) {
        if self.is_reconfiguring() && may_propose(&mail) {
            return self.parked.push_back(mail);
        }
        match mail {
            ToPipeline::Connect { conn, peer, request } => self.on_connect(conn, peer, &request),
            ToPipeline::Request { conn, request, received_us } => self.on_request(conn, request, received_us),
            ToPipeline::Disconnected { conn } => self.on_disconnected(conn),
            ToPipeline::Drained { conn } => self.on_drained(conn),
            ToPipeline::Waits { conn } => self.on_waiting(conn),
            ToPipeline::Taken { bytes } => self.on_taken(bytes),
            ToPipeline::TakeSnapshot => self.want_snapshot(),
            ToPipeline::Committed { zxid, at_us, synced } => {
                self.synced.extend(synced);
                self.on_committed(zxid, at_us);
            }
            ToPipeline::Logged { bytes } => self.on_logged(bytes),
            ToPipeline::SnapshotChunkWritten => self.snapshots.on_chunk_written(),
            ToPipeline::SnapshotDone { zxid, bytes } => self.on_snapshot_done(zxid, bytes),
            ToPipeline::SnapshotFailed { zxid } => self.snapshots.on_failed(zxid, &mut self.state),
            ToPipeline::Role(role) => self.on_role(role),
            ToPipeline::Configs(configs) => self.on_configs(*configs),
            ToPipeline::Followers(servers) => self.followers = servers,
            ToPipeline::Forget => self.forget(),
            ToPipeline::Install { state, durable } => self.install(*state, durable),
            ToPipeline::Deliver { txns } => self.on_delivered(txns),
            ToPipeline::ExactFrom(zxid) => self.state.exact_from(zxid),
            ToPipeline::Joined(zxid) => self.state.join(zxid),
            ToPipeline::CatchUp => self.out.quorum.push(ToQuorum::CaughtUp),
            ToPipeline::Synced => self.on_synced(),
            ToPipeline::Revalidated { session, valid } => self.on_revalidated(session, valid),
            ToPipeline::TellTouched => self.tell_touched(),
            ToPipeline::Forwarded { learner, request } => self.on_forwarded(learner, request),
            ToPipeline::Touched { sessions } => self.on_touched(&sessions),
            ToPipeline::Revalidate { learner, session, timeout_ms } => self.revalidate(learner, session, timeout_ms),
            ToPipeline::LearnerGone { learner } => self.on_learner_gone(learner),
            ToPipeline::StreamSnapshot { learner } => self.stream_snapshot(learner),
            ToPipeline::SnapshotPieceSent { learner } => self.snapshots.on_piece_sent(learner),
            ToPipeline::Stop => self.stop(),
        }
    }

    /// Gathers what the steps since the last call have to say.
    pub fn take_outbox(&mut self) -> Outbox {
        self.advance_snapshot();
        self.go_on_with_lists();
        self.go_on_with_long_reads();
        self.go_on_rewatching();
        self.serve_those_in_line();
        self.watches.remove_some(WATCHES_REMOVED_AT_ONCE);
        self.say_quiesced();
        if !self.out.records.is_empty() {
            self.out.logged = self.backlog.ask_log();
        }
        if self.leads() {
            self.backlog.publish(!self.rules.ensemble);
        }
        self.snapshots.publish();
        for conn in self.told.drain(..) {
            if let Some(outgoing) = self.conns.get_mut(&conn).and_then(|c| c.out.take()) {
                if outgoing.fate == Fate::Close {
                    // Whatever the poller still reads of it is not for us.
                    if let Some(gone) = self.conns.get_mut(&conn) {
                        gone.closing = true;
                    }
                }
                self.out.poller.outgoing.push(outgoing);
            }
        }
        for (conn, answered) in self.departed.drain() {
            self.out.poller.outgoing.push(Outgoing { answered, ..Outgoing::new(conn) });
        }
        self.tell_excess();
        if self.stopping && self.proposals.is_empty() {
            self.out.poller.stop = true;
            self.out.stopped = true;
        }
        self.invariants();
        std::mem::take(&mut self.out)
    }

    /// What is true after each turn, whatever came in it.
    ///
    /// # Panics
    /// If it is not: that is a bug, and nothing may be said because of it.
    fn invariants(&self) {
        let (applied, proposed) = (self.state.last_zxid(), self.last_proposed);
        match (self.proposals.front(), self.proposals.back()) {
            (Some(first), Some(last)) => {
                let (first, last, count) = (first.txn.header.zxid, last.txn.header.zxid, self.proposals.len());
                assert!(
                    first > applied && last == proposed && last.0 - first.0 + 1 == count as i64,
                    "{count} proposals from {first} to {last}, applied {applied}, proposed {proposed}"
                );
            }
            _ => {
                let (pending, bytes) = (self.pending.len(), self.backlog.proposed_bytes);
                assert!(pending == 0 && bytes == 0, "{pending} nodes pending, {bytes} bytes proposed, by no proposal");
            }
        }
        self.sessions.invariants();
        self.locals.invariants();
    }

    /// Whether [`Pipeline::take_outbox`] can go on without waiting for mail: with a snapshot, a long list,
    /// the watches of those who came or left.
    pub fn wants_to_run(&self) -> bool {
        self.can_go_on_with_snapshot()
            || self.can_go_on_with_lists()
            || self.can_go_on_with_long_reads()
            || self.can_go_on_rewatching()
            || self.watches.is_removing()
    }

    /// Whether a transaction is on its way through the log, here or on the leader.
    pub fn awaits_commit(&self) -> bool {
        !self.proposals.is_empty() || self.following.awaits_commit()
    }

    fn on_disconnected(&mut self, conn: ConnId) {
        let Some(gone) = self.conns.remove(&conn) else { return };
        self.identity_bytes -= auth::counted_bytes(&gone.auth);
        self.watches.remove_connection(conn);
        // Its writes are finished when they are committed.
        let reads = gone.waiting.iter().filter(|slot| matches!(slot, Slot::Read(_))).count();
        let untold = gone.out.map_or(0, |outgoing| outgoing.answered);
        let unanswered = u32::try_from(reads + gone.held.len()).expect("UNANSWERED_PER_CONNECTION_MAX is small");
        self.answer_departed(conn, untold + unanswered);
    }

    fn answer_departed(&mut self, conn: ConnId, answered: u32) {
        if answered > 0 {
            *self.departed.entry(conn).or_default() += answered;
        }
    }

    fn on_request(&mut self, id: ConnId, request: Request, received_us: i64) {
        match self.conns.get_mut(&id) {
            Some(conn) if (conn.is_full || conn.in_turns) && !conn.closing => {
                conn.held.push_back(Held { request, received_us })
            }
            _ => self.take_up(id, request, received_us),
        }
    }

    /// The connection has room again: on with what it asked, in order, until it is full again.
    fn on_drained(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.is_full = false;
        conn.released = Some((self.now_us, "its client to take earlier answers"));
        self.serve_waiting(id);
        self.take_up_held(id);
    }

    /// On with what was held, until there is a reason to hold it again.
    fn take_up_held(&mut self, id: ConnId) {
        while let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.is_full && !conn.in_turns)
            && let Some(Held { request, received_us }) = conn.held.pop_front()
        {
            self.take_up(id, request, received_us);
        }
    }

    fn take_up(&mut self, id: ConnId, request: Request, received_us: i64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.closing || self.stopping {
            self.tell(id).answered += 1;
            return;
        }
        let Some(session) = conn.session else {
            // The handshake made or found a session, or the connection is closing.
            self.tell(id).answered += 1;
            return;
        };
        if self.rules.drops_stale_requests && self.now_us - received_us > i64::from(conn.timeout_ms) * 1000 {
            metrics::STALE_REQUESTS.add(1);
            metrics::STALE_REQUESTS_DROPPED.add(1);
            self.tell(id).answered += 1;
            return self.close_connection(id);
        }
        let timeout_ms = conn.timeout_ms;
        self.touch(session, timeout_ms);
        let Request { xid, op_number, op, body } = request;
        let asked = Asked { xid, op_number, body, received_us };
        match op {
            Op::Auth(op) => self.on_auth(id, xid, &op, received_us),
            _ if !self.is_authenticated(id) => {
                self.refuse_early(id, xid, Code::SessionClosedRequireSaslAuth, received_us);
            }
            _ if self.waited_too_long(&op, received_us) => {
                self.answer_in_order(id, asked, Query::Refused(Code::ThrottledOp));
            }
            Op::Read(op) => self.take_up_read(id, session, asked, op),
            Op::Write(op) => self.take_up_update(id, session, asked, Update::Write(op)),
            Op::CloseSession if self.is_local(session) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.closing = true;
                }
                self.answer_in_order(id, asked, Query::CloseSession);
            }
            Op::CloseSession => self.take_up_update(id, session, asked, Update::CloseSession),
        }
    }

    fn take_up_read(&mut self, id: ConnId, session: SessionId, asked: Asked, op: ReadOp) {
        match (op, self.role) {
            (op @ ReadOp::Sync { .. }, Role::Following | Role::Observing) => self.forward_sync(id, session, asked, op),
            (ReadOp::Sync { .. }, Role::ReadOnly) => self.answer_in_order(id, asked, Query::Refused(Code::NotReadOnly)),
            (op, _) => self.answer_in_order(id, asked, Query::Read(op)),
        }
    }

    fn take_up_update(&mut self, id: ConnId, session: SessionId, asked: Asked, update: Update) {
        match self.role {
            Role::Leading { .. } => self.on_update(id, session, &asked, update),
            Role::Following | Role::Observing => self.forward_update(id, session, asked, &update),
            Role::ReadOnly | Role::Looking => self.answer_in_order(id, asked, Query::Refused(Code::NotReadOnly)),
        }
    }

    /// A client of this server was heard of.
    fn touch(&mut self, session: SessionId, timeout_ms: i32) {
        let now = self.now;
        if self.leads() || self.is_local(session) {
            self.tracker_of(session).touch(session, now);
        } else {
            self.following.touch(session, timeout_ms);
        }
    }

    /// Its client has sent something that the poller has no room for yet.
    fn on_waiting(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.closing) else { return };
        if let Some(session) = conn.session {
            self.touch(session, conn.timeout_ms);
        }
    }

    /// `throttled_op_wait_time`: a request that waited longer than this in front of the pipeline is not executed.
    fn waited_too_long(&self, op: &Op, received_us: i64) -> bool {
        self.rules.throttled_op_wait_ms > 0
            && !matches!(op, Op::Read(ReadOp::Ping) | Op::CloseSession)
            && self.now_us - received_us > self.rules.throttled_op_wait_ms * 1000
    }

    fn answer_in_order(&mut self, id: ConnId, asked: Asked, query: Query) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let taken_us = self.now_us;
        let mut read = Read::new(&asked, query, conn.auth.clone(), taken_us);
        let is_next = conn.waiting.is_empty();
        if !is_next {
            // Behind a write: the list is made meanwhile, and a long answer when its turn has come.
            self.awaits_list(id, &read);
            self.hold_behind_long_read(id, &mut read);
        } else if let Some(what) = self.waits_for(id, &mut read) {
            read.wait(what, taken_us);
        } else {
            return self.serve_read(id, &mut read);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.waiting.push_back(Slot::Read(read));
        }
    }

    /// What a read whose turn has come waits for all the same.
    fn waits_for(&mut self, id: ConnId, read: &mut Read) -> Option<&'static str> {
        if self.is_answered_in_turns(id, read) {
            Some("its answer to be made, some of it in each turn")
        } else if self.awaits_list(id, read) {
            Some("its list of children to be made, some in each turn")
        } else if self.rewatches_in_turns(id, read) {
            Some("its watches to be set, some in each turn")
        } else if read.answer.is_none() && self.must_wait(id, read) {
            Some("room for its answer, which others are to take")
        } else {
            None
        }
    }

    fn on_update(&mut self, id: ConnId, session: SessionId, asked: &Asked, update: Update) {
        metrics::PREP_PROCESSOR_REQUEST_QUEUED.add(1);
        let origin = self.origin(id, session, asked, &update);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.closing |= matches!(update, Update::CloseSession);
        conn.waiting.push_back(Slot::Write);
        let auth = conn.auth.clone();
        self.upgrade_for(id, session, &update);
        self.propose_in_turn(Awaiting::Own { origin, session, auth, update });
    }

    fn origin(&self, id: ConnId, session: SessionId, asked: &Asked, update: &Update) -> Origin {
        Origin {
            conn: id,
            xid: asked.xid,
            received_us: asked.received_us,
            taken_us: self.now_us,
            reply: ReplyShape::of(update),
            audited: self.audited(id, session, update),
        }
    }

    fn propose_update(&mut self, mut origin: Origin, session: SessionId, auth: &[AuthId], update: Update) {
        origin.taken_us = self.now_us;
        let xid = origin.xid;
        let op = match update {
            Update::Write(op) => op,
            Update::CloseSession => return self.propose_close(session, xid, Some(origin)),
        };
        if self.is_used_up() {
            return self.give_up_write(&origin);
        }
        let zxid = self.last_proposed.next();
        let body = if self.sessions.is_closing(session) && !self.is_local(session) {
            TxnBody::Error(Code::SessionExpired.value())
        } else {
            self.prepare(auth, session, zxid, op)
        };
        let header = TxnHeader { client_id: session, cxid: xid, zxid, time_ms: self.now.wall_ms };
        self.propose(header, body, Some(origin));
    }

    /// What the audit log is to be told of a request.
    fn audited(&self, id: ConnId, session: SessionId, update: &Update) -> Option<Box<Audited>> {
        self.rules.audit_as.as_ref()?;
        let Update::Write(op) = update else { return None };
        let conn = self.conns.get(&id)?;
        Audited::of(op, session, &conn.auth, auth::ip_identity(conn.peer).id)
    }

    /// Gives the transaction to the log. Its digest is that of the tree after everything proposed so far. With an origin, its
    /// connection waits for a write.
    fn propose(&mut self, header: TxnHeader, body: TxnBody, origin: Option<Origin>) {
        let digest = (self.rules.digest_enabled && !body.is_error())
            .then(|| TxnDigest { version: crate::txn::DIGEST_VERSION, tree_digest: self.pending.digest() });
        let txn = Txn { header, body, digest };
        let payload = txn.to_bytes();
        self.last_proposed = header.zxid;
        if self.rules.ensemble {
            metrics::PROPOSAL.record(payload.len() as i64);
        }
        self.out.roll |= self.snapshots.on_logged(payload.len());
        let record = LogRecord { zxid: header.zxid, payload };
        let bytes = record.bytes();
        self.backlog.proposed_bytes += bytes;
        if self.rules.ensemble {
            self.backlog.on_record(bytes);
        }
        self.out.records.push(record);
        self.proposals.push_back(Proposal { txn, origin, durable: Durable::default(), bytes });
    }

    /// Ends a live session: at its client's wish or because its time is up (then `cxid` is 0).
    fn propose_close(&mut self, session: SessionId, cxid: i32, origin: Option<Origin>) {
        if self.is_used_up() {
            return origin.iter().for_each(|origin| self.give_up_write(origin));
        }
        if !self.sessions.close(session) {
            // It is closing already, or gone.
            return self.propose_error(session, cxid, Code::SessionExpired, origin);
        }
        let mut paths = self.pending.ephemerals_of(&self.state, session);
        if wrong::is_on(Wrong::EphemeralOutlivesSession) {
            paths.pop();
        }
        while let Some(part) = self.part_of_close(&mut paths) {
            let zxid = self.last_proposed.next();
            self.pend_deletes(zxid, &part);
            let deletes = part.into_iter().map(|path| TxnBody::Delete { path, container: false });
            let header = TxnHeader { client_id: session, cxid: 0, zxid, time_ms: self.now.wall_ms };
            self.propose(header, TxnBody::Multi(deletes.collect()), None);
            if self.is_used_up() {
                return origin.iter().for_each(|origin| self.give_up_write(origin));
            }
        }
        let zxid = self.last_proposed.next();
        self.pend_deletes(zxid, &paths);
        let paths = self.rules.close_session_txn.then_some(paths);
        let header = TxnHeader { client_id: session, cxid, zxid, time_ms: self.now.wall_ms };
        self.propose(header, TxnBody::CloseSession { paths }, origin);
    }

    /// A write that fails before it is looked at.
    fn propose_error(&mut self, session: SessionId, cxid: i32, code: Code, origin: Option<Origin>) {
        let zxid = self.last_proposed.next();
        let header = TxnHeader { client_id: session, cxid, zxid, time_ms: self.now.wall_ms };
        self.propose(header, TxnBody::Error(code.value()), origin);
    }

    /// Logs what a client did, unless the like was logged a moment ago.
    fn complain(&mut self, about: Complaint, text: impl FnOnce() -> String) {
        match self.complaints[about as usize].pass(self.now.mono_ms) {
            None => {}
            Some(0) => log::warn!("{}", text()),
            Some(more) => log::warn!("{}{}", text(), suppressed(more)),
        }
    }

    /// What a connection is told at the end of this step. Only connections that said `Connect` are told anything.
    fn tell(&mut self, id: ConnId) -> &mut Outgoing {
        let conn = self.conns.get_mut(&id).expect("callers look the connection up first");
        if conn.out.is_none() {
            self.told.push(id);
        }
        conn.out.get_or_insert_with(|| Outgoing::new(id))
    }
}

/// Whether it is of this server's clients, and a transaction may come of it, or it is about a connection of which such mail
/// may wait. What learners forward waits in the backlog, which bounds it.
fn may_propose(mail: &ToPipeline) -> bool {
    matches!(
        mail,
        ToPipeline::Connect { .. }
            | ToPipeline::Request { .. }
            | ToPipeline::Disconnected { .. }
            | ToPipeline::Drained { .. }
    )
}

impl Outgoing {
    fn new(conn: ConnId) -> Outgoing {
        Outgoing {
            conn,
            bytes: Parts::default(),
            frames: 0,
            tell_drained: false,
            answered: 0,
            fate: Fate::Open,
            last: None,
        }
    }

    fn note(&mut self, op: &'static str, cxid: i32, zxid: Zxid, received_us: i64) {
        self.answered += 1;
        self.frames += 1;
        self.last = Some(LastAnswer { op, cxid, zxid, received_us });
    }
}
