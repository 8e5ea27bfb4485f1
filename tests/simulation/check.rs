//! What must hold, whatever happens: one history, of which every server applies a prefix; one leader an epoch; clients
//! that see what they were promised. The history is kept here once, with a state of its own that applies it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::mail::LogRecord;
use rookeeper::state::State;
use rookeeper::state::quota::stats_path;
use rookeeper::txn::{Txn, TxnBody, kind};

use crate::model::Model;
use crate::server::STATE_RULES;

/// A committed transaction.
#[derive(Debug)]
struct Entry {
    zxid: Zxid,
    hash: u64,
    is_error: bool,
    /// Of the tree after it.
    digest: u64,
    beside: Beside,
}

/// What the digest does not tell: sums over all that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Beside {
    sessions: u64,
    /// Lists, and how many nodes have each.
    acls: u64,
    /// What is used of each quota.
    quotas: u64,
}

impl Beside {
    fn of(state: &State) -> Beside {
        let tree = state.tree();
        let usage = |path: &str| tree.lookup(&stats_path(path)).and_then(|id| tree.node(id).data());
        Beside {
            sessions: state.sessions().map(|session| hash(&session)).fold(0, u64::wrapping_add),
            acls: state.acl_table().iter().map(|entry| hash(&entry)).fold(0, u64::wrapping_add),
            quotas: state.quotas().iter().map(|path| hash(&(path, usage(path)))).fold(0, u64::wrapping_add),
        }
    }
}

/// A session as the history tells it.
#[derive(Debug, Default)]
struct SessionStory {
    last_cxid: i32,
    closed: Option<Zxid>,
}

/// See the module.
#[derive(Debug)]
pub struct Check {
    history: Vec<Entry>,
    state: State,
    /// All that any leader ever proposed.
    proposed: BTreeMap<Zxid, Vec<u8>>,
    leaders: BTreeMap<u32, usize>,
    sessions: HashMap<SessionId, SessionStory>,
    /// Sessions whose end some leader has proposed: whether or not that is ever committed, they may be refused from then.
    ending: HashSet<SessionId>,
    /// What every request has to come to.
    pub model: Model,
    /// Sessions that ended without their client asking for it, not looked at yet.
    pub expired: Vec<SessionId>,
    /// The first thing that did not hold.
    pub violation: Option<String>,
    /// A server that compares no histories is among them: two may be joined that are not one, until a digest tells.
    pub joins_unproven: bool,
    /// Nothing was told: each server's history begins with the one that is judged.
    pub is_drawn: bool,
    /// What of each server was looked at last.
    seen: HashMap<usize, Zxid>,
}

fn hash<T: Hash + ?Sized>(payload: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

impl Check {
    pub fn new() -> Check {
        Check {
            history: Vec::new(),
            state: State::fresh(STATE_RULES),
            proposed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            sessions: HashMap::new(),
            ending: HashSet::new(),
            model: Model::new(),
            expired: Vec::new(),
            violation: None,
            joins_unproven: false,
            is_drawn: false,
            seen: HashMap::new(),
        }
    }

    fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The last committed transaction.
    pub fn last(&self) -> Zxid {
        self.history.last().map_or(Zxid::ZERO, |entry| entry.zxid)
    }

    /// How many transactions were committed.
    pub fn len(&self) -> usize {
        self.history.len()
    }

    /// The epoch of the last leader that a quorum followed.
    pub fn epoch(&self) -> u32 {
        self.leaders.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// Whether the history has this very transaction.
    pub fn has(&self, record: &LogRecord) -> bool {
        self.find(record.zxid).is_some_and(|at| self.history[at].hash == hash(&record.payload))
    }

    /// Whether there is such a transaction, or it stands for the beginning.
    pub fn is_committed(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.find(zxid).is_some()
    }

    /// The state after everything committed.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn find(&self, zxid: Zxid) -> Option<usize> {
        self.history.binary_search_by_key(&zxid, |entry| entry.zxid).ok()
    }

    // The ensemble.

    /// A server begins to lead: its whole log is committed, and nothing else may be.
    pub fn on_leading(&mut self, s: usize, epoch: u32, log: &[LogRecord], last: Zxid) {
        if let Some(other) = self.leaders.insert(epoch, s) {
            self.fail(format!("epoch {epoch:x} has two leaders, servers {} and {}", other + 1, s + 1));
        }
        if last < self.last() {
            self.fail(format!("server {} leads with history up to {last}, {} is committed", s + 1, self.last()));
        }
        // Whoever proposed in that epoch had all that was committed before, so nothing of an earlier one can be missing.
        // What is new was proposed once, and may be here as part of a snapshot only.
        let epoch_start = Zxid(i64::from(last.epoch()) << 32);
        let from = self.last().max(epoch_start).next();
        if from <= last {
            let new: Vec<_> =
                self.proposed.range(from..=last).map(|(zxid, payload)| (*zxid, payload.clone())).collect();
            new.iter().for_each(|(zxid, payload)| self.on_committed(s, *zxid, payload));
        }
        for record in log {
            self.on_committed(s, record.zxid, &record.payload);
        }
        if last != self.last() {
            self.fail(format!("server {} leads with {last}, its log and the history end at {}", s + 1, self.last()));
        }
    }

    /// A server says that a transaction is committed. It is either the next one, or one that was said to be before.
    pub fn on_committed(&mut self, s: usize, zxid: Zxid, payload: &[u8]) {
        let hash = hash(payload);
        if zxid <= self.last() {
            let known = self.find(zxid).map(|at| self.history[at].hash);
            if known.is_none() && self.history.first().is_some_and(|first| zxid < first.zxid) {
                return;
            }
            let was_error = self.find(zxid).is_some_and(|at| self.history[at].is_error);
            let is_error = || Txn::from_bytes(payload).is_ok_and(|txn| txn.body.is_error());
            // No digest tells a failed request from another one.
            if known != Some(hash) && !(self.joins_unproven && was_error && is_error()) {
                let what = if known.is_some() { "another transaction has that zxid" } else { "nothing has that zxid" };
                self.fail(format!("server {} commits {zxid}; in the history {what}", s + 1));
            }
            return;
        }
        let txn = match Txn::from_bytes(payload) {
            Ok(txn) => txn,
            Err(error) => return self.fail(format!("server {} commits {zxid}, unreadable: {error}", s + 1)),
        };
        let last = self.last();
        let follows = zxid == last.next() || (zxid.epoch() > last.epoch() && zxid.counter() == 1);
        if !follows || txn.header.zxid != zxid {
            self.fail(format!("server {} commits {zxid} (header {}) behind {last}", s + 1, txn.header.zxid));
        }
        self.state.replay(&txn);
        if self.state.digest_mismatches() > 0 {
            self.fail(format!("the digest of {zxid} is not that of the state"));
        }
        self.follow_session(&txn);
        if let Err(wrong) = self.model.on_committed(&txn, self.joins_unproven) {
            self.fail(format!("{zxid} is not what was asked: {wrong}"));
        }
        let is_error = txn.body.is_error();
        let digest = self.state.tree_digest();
        let beside = Beside::of(&self.state);
        self.history.push(Entry { zxid, hash, is_error, digest, beside });
    }

    /// A leader proposes: no zxid ever means two transactions.
    pub fn on_proposed(&mut self, s: usize, record: &LogRecord) {
        if self.proposed.insert(record.zxid, record.payload.clone()).is_some() {
            self.fail(format!("server {} proposes {}, which was proposed before", s + 1, record.zxid));
        }
        // The type stands at the end of the header of 32 bytes.
        if record.payload.get(28..32) == Some(&kind::CLOSE_SESSION.to_be_bytes()[..])
            && let Ok(txn) = Txn::from_bytes(&record.payload)
        {
            self.ending.insert(txn.header.client_id);
        }
    }

    /// Transactions are given to a server to be applied behind `last`: those that are committed come in order, none left
    /// out.
    pub fn on_delivered(&mut self, s: usize, last: Zxid, txns: &[Txn]) {
        let mut before = if last == Zxid::ZERO { Some(0) } else { self.find(last).map(|at| at + 1) };
        for txn in txns {
            let zxid = txn.header.zxid;
            let Some(at) = self.find(zxid) else {
                before = None;
                continue;
            };
            if before.is_some_and(|before| before != at) {
                self.fail(format!("server {} is given {zxid} behind {last}: something is left out", s + 1));
            }
            before = Some(at + 1);
        }
    }

    /// What a server has applied. While it serves, that is a prefix of the history; with equal zxids states are equal.
    /// Where a leader's history is joined by a zxid alone, digests tell before it serves.
    pub fn on_applied(&mut self, s: usize, serving: bool, state: &State) {
        let zxid = state.last_zxid();
        if state.digest_mismatches() > 0 && (serving || !self.joins_unproven) {
            self.fail(format!("server {} counts a digest mismatch at {zxid}", s + 1));
        }
        if zxid == Zxid::ZERO {
            return;
        }
        match self.find(zxid) {
            Some(at) if self.history[at].digest != state.tree_digest() && serving => {
                self.fail(format!("server {} at {zxid} differs from the history", s + 1));
            }
            None if serving => self.fail(format!("server {} serves {zxid}, which is not committed", s + 1)),
            Some(at) if serving && self.seen.insert(s, zxid) != Some(zxid) => self.compare_beside(s, at, state),
            Some(_) | None => {}
        }
    }

    /// What a server finds on its disk is what was there as of its last transaction, if that is committed.
    pub fn on_recovered(&mut self, s: usize, state: &State) {
        self.seen.remove(&s);
        let zxid = state.last_zxid();
        if let Some(at) = self.find(zxid).filter(|_| self.is_drawn) {
            if self.history[at].digest != state.tree_digest() {
                self.fail(format!("server {} finds {zxid} on its disk, and it differs from the history", s + 1));
            }
            self.compare_beside(s, at, state);
        }
    }

    fn compare_beside(&mut self, s: usize, at: usize, state: &State) {
        let (expected, found) = (self.history[at].beside, Beside::of(state));
        if expected != found && !self.joins_unproven {
            let zxid = self.history[at].zxid;
            self.fail(format!("server {} at {zxid} has {found:?}, and the history {expected:?}", s + 1));
        }
    }

    // Sessions.

    fn follow_session(&mut self, txn: &Txn) {
        let (session, zxid) = (txn.header.client_id, txn.header.zxid);
        if session == SessionId::NONE || txn.body.is_error() {
            return;
        }
        if let TxnBody::CreateSession { .. } = txn.body {
            if self.sessions.insert(session, SessionStory::default()).is_some() {
                self.fail(format!("session {session} is created twice, again by {zxid}"));
            }
            return;
        }
        if self.model.is_local(session.0) {
            return;
        }
        let Some(story) = self.sessions.get_mut(&session) else {
            return self.fail(format!("{zxid} is of session {session}, which was never created"));
        };
        if let Some(closed) = story.closed {
            return self.fail(format!("{zxid} is of session {session}, which {closed} closed"));
        }
        let cxid = txn.header.cxid;
        // A wish to end the session is granted whoever brings it, and may be overtaken by its client on another server.
        let ends = matches!(txn.body, TxnBody::CloseSession { .. });
        if cxid != 0 && !ends {
            if cxid <= story.last_cxid {
                let before = story.last_cxid;
                return self.fail(format!("{zxid} does request {cxid} of session {session} after request {before}"));
            }
            story.last_cxid = cxid;
        }
        if ends {
            story.closed = Some(zxid);
            if cxid == 0 {
                self.expired.push(session);
            }
            let left = self.state.ephemerals_of(session);
            if !left.is_empty() {
                self.fail(format!("{zxid} closes session {session}, yet {} lives", left[0]));
            }
        }
    }

    // What clients are told.

    /// A client was told that its session is no more.
    pub fn on_refused(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|story| story.closed.is_none()) && !self.ending.contains(&session) {
            self.fail(format!("a client is told that session {session} has expired, whose end nobody proposed"));
        }
    }
}
