//! Which sessions live, until when, and on which connection (`SessionTrackerImpl`, `ExpiryQueue`). Deadlines fall on
//! multiples of the tick, so that thousands of sessions that are touched all the time rarely move between buckets.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::ids::{ConnId, Now, SessionId};
use crate::quorum::LinkId;
use crate::state::State;

/// Who speaks for a session. That stays so when the connection or the learner is gone, until somebody else takes the
/// session over: what was sent before that by the one who had it earlier may still come, and is not to be done any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionOwner {
    /// A connection of this server.
    Conn(ConnId),
    /// A connection of the learner behind this link.
    Learner(LinkId),
}

#[derive(Debug)]
struct Tracked {
    timeout_ms: i32,
    deadline_ms: i64,
    owner: Option<SessionOwner>,
    /// Its end is proposed: nothing new is accepted of it.
    closing: bool,
}

/// Every global session. Invariant: a session that is not closing is in exactly one bucket, that of its deadline.
#[derive(Debug)]
pub(super) struct SessionTracker {
    tick_ms: i64,
    sessions: FxHashMap<SessionId, Tracked>,
    buckets: BTreeMap<i64, BTreeSet<SessionId>>,
}

impl SessionTracker {
    pub fn new(tick_ms: i64) -> SessionTracker {
        SessionTracker { tick_ms, sessions: FxHashMap::default(), buckets: BTreeMap::new() }
    }

    /// Every session of the state, with its full timeout and without an owner.
    pub fn of(state: &State, tick_ms: i64, now: Now) -> SessionTracker {
        let mut sessions = SessionTracker::new(tick_ms);
        state.sessions().for_each(|(id, timeout_ms)| sessions.add(id, timeout_ms, now));
        sessions
    }

    fn deadline(&self, timeout_ms: i32, now: Now) -> i64 {
        ((now.mono_ms + i64::from(timeout_ms)) / self.tick_ms + 1) * self.tick_ms
    }

    /// A session begins, with its full timeout.
    pub fn add(&mut self, id: SessionId, timeout_ms: i32, now: Now) {
        let deadline_ms = self.deadline(timeout_ms, now);
        self.sessions.insert(id, Tracked { timeout_ms, deadline_ms, owner: None, closing: false });
        self.buckets.entry(deadline_ms).or_default().insert(id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the session is known and not closing.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| !s.closing)
    }

    /// Whether there is no session with this id, not even a closing one.
    pub fn is_unknown(&self, id: SessionId) -> bool {
        !self.sessions.contains_key(&id)
    }

    /// Whether its end is proposed, or past.
    pub fn is_closing(&self, id: SessionId) -> bool {
        !self.is_live(id)
    }

    /// How long its client may be silent; 0 of one that is unknown.
    pub fn timeout_ms(&self, id: SessionId) -> i32 {
        self.sessions.get(&id).map_or(0, |session| session.timeout_ms)
    }

    /// The session was heard of.
    pub fn touch(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(&id) else { return };
        let deadline_ms = self.deadline(session.timeout_ms, now);
        if session.closing || deadline_ms <= session.deadline_ms {
            return;
        }
        self.leave_bucket(id);
        self.buckets.entry(deadline_ms).or_default().insert(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.deadline_ms = deadline_ms;
        }
    }

    fn leave_bucket(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if let Some(bucket) = self.buckets.get_mut(&session.deadline_ms) {
            bucket.remove(&id);
            if bucket.is_empty() {
                self.buckets.remove(&session.deadline_ms);
            }
        }
    }

    /// A learner heard of the session, and knows what its timeout is by now.
    pub fn touch_for(&mut self, id: SessionId, timeout_ms: i32, now: Now) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.timeout_ms = timeout_ms;
        }
        self.touch(id, now);
    }

    /// Somebody takes the session over, with a timeout negotiated anew. Gives who had it.
    pub fn renew(&mut self, id: SessionId, owner: SessionOwner, timeout_ms: i32, now: Now) -> Option<SessionOwner> {
        self.leave_bucket(id);
        let deadline_ms = self.deadline(timeout_ms, now);
        let session = self.sessions.get_mut(&id)?;
        session.timeout_ms = timeout_ms;
        session.deadline_ms = deadline_ms;
        self.buckets.entry(deadline_ms).or_default().insert(id);
        session.owner.replace(owner)
    }

    /// Somebody takes a new session, or one that nobody has.
    pub fn own(&mut self, id: SessionId, owner: SessionOwner) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.owner = Some(owner);
        }
    }

    /// Who has the session.
    pub fn owner(&self, id: SessionId) -> Option<SessionOwner> {
        self.sessions.get(&id)?.owner
    }

    /// The connection of this server that has the session.
    pub fn owner_here(&self, id: SessionId) -> Option<ConnId> {
        match self.owner(id)? {
            SessionOwner::Conn(conn) => Some(conn),
            SessionOwner::Learner(_) => None,
        }
    }

    /// The session's end is proposed. `false` when it was before, or there is no such session.
    pub fn close(&mut self, id: SessionId) -> bool {
        if !self.is_live(id) {
            return false;
        }
        self.leave_bucket(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = true;
        }
        true
    }

    /// The session's end is applied.
    pub fn remove(&mut self, id: SessionId) {
        self.leave_bucket(id);
        self.sessions.remove(&id);
    }

    /// Sessions whose time is up, in the order of their ids.
    pub fn expired(&self, now_mono_ms: i64) -> Vec<SessionId> {
        self.buckets.range(..=now_mono_ms).flat_map(|(_, bucket)| bucket.iter().copied()).collect()
    }

    /// When the next bucket is due.
    pub fn next_deadline_ms(&self) -> i64 {
        self.buckets.keys().next().copied().unwrap_or(i64::MAX)
    }

    /// Sessions that have not closed with their deadlines, in the order of these, for `dump`.
    pub fn deadlines(&self) -> impl Iterator<Item = (i64, SessionId)> + '_ {
        self.buckets.iter().flat_map(|(&deadline_ms, bucket)| bucket.iter().map(move |&id| (deadline_ms, id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: i64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    #[test]
    fn a_session_expires_between_its_timeout_and_one_tick_later() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), 4000, at(1000));
        assert_eq!(tracker.next_deadline_ms(), 6000);
        assert!(tracker.expired(5999).is_empty());
        tracker.touch(SessionId(1), at(5000));
        assert!(tracker.expired(6000).is_empty());
        assert_eq!(tracker.expired(10_000), [SessionId(1)]);
    }

    #[test]
    fn a_closing_session_neither_expires_nor_is_touched() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), 4000, at(0));
        assert!(tracker.close(SessionId(1)));
        assert!(!tracker.close(SessionId(1)));
        tracker.touch(SessionId(1), at(100));
        assert!(tracker.expired(i64::MAX).is_empty());
    }

    #[test]
    fn a_renewal_moves_the_session_and_tells_whose_it_was() {
        let mut tracker = SessionTracker::new(1000);
        let conn = ConnId { slot: 0, generation: 1 };
        let (a, b) = (SessionOwner::Conn(conn), SessionOwner::Learner(LinkId(2)));
        tracker.add(SessionId(1), 4000, at(0));
        assert_eq!(tracker.renew(SessionId(1), a, 2000, at(0)), None);
        assert_eq!(tracker.renew(SessionId(1), b, 8000, at(0)), Some(a));
        assert_eq!(tracker.next_deadline_ms(), 9000);
        assert_eq!(tracker.owner(SessionId(1)), Some(b));
    }
}
