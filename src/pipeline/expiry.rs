//! Which sessions live, until when, and on which connection (`SessionTrackerImpl`, `ExpiryQueue`). Deadlines fall on
//! multiples of the tick, so that thousands of sessions that are touched all the time rarely move between buckets. They are
//! times of a clock that stands still while the server does not run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::ids::{ConnId, LinkId, Now, SessionId};
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
    /// For how long the clock has stood still.
    still_ms: i64,
    /// Sessions that have ended and are remembered for a while, and until when, in that order.
    ended: VecDeque<(i64, SessionId)>,
    has_ended: FxHashSet<SessionId>,
}

impl SessionTracker {
    pub fn new(tick_ms: i64) -> SessionTracker {
        SessionTracker {
            tick_ms,
            sessions: FxHashMap::default(),
            buckets: BTreeMap::new(),
            still_ms: 0,
            ended: VecDeque::new(),
            has_ended: FxHashSet::default(),
        }
    }

    /// Every session of the state, with its full timeout and without an owner.
    pub fn of(state: &State, tick_ms: i64, now: Now) -> SessionTracker {
        let mut sessions = SessionTracker::new(tick_ms);
        state.sessions().for_each(|(id, timeout_ms)| sessions.add(id, timeout_ms, now));
        sessions
    }

    /// What a learner says of a timeout is what its client said: less than nothing is nothing.
    fn deadline(&self, timeout_ms: i32, now: Now) -> i64 {
        let timeout_ms = timeout_ms.max(0);
        ((now.mono_ms - self.still_ms + i64::from(timeout_ms)) / self.tick_ms + 1) * self.tick_ms
    }

    /// The server did not run for this long: that counts for nobody's expiry.
    pub fn stand_still(&mut self, ms: i64) {
        self.still_ms += ms;
    }

    /// A session begins, with its full timeout.
    pub fn add(&mut self, id: SessionId, timeout_ms: i32, now: Now) {
        // One of the same id may be here, where two servers gave out the same.
        self.leave_bucket(id);
        let deadline_ms = self.deadline(timeout_ms, now);
        self.sessions.insert(id, Tracked { timeout_ms, deadline_ms, owner: None, closing: false });
        self.buckets.entry(deadline_ms).or_default().insert(id);
    }

    /// The bucket that is due next holds sessions, and those belong there.
    ///
    /// # Panics
    /// If not: some would expire too early, or never.
    pub fn invariants(&self) {
        let Some((due_ms, bucket)) = self.buckets.first_key_value() else { return };
        let first = bucket.first().and_then(|id| self.sessions.get(id));
        assert!(
            first.is_some_and(|session| session.deadline_ms == *due_ms && !session.closing),
            "the bucket due at {due_ms} ms begins with {:?}, which is {first:?}",
            bucket.first()
        );
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the session is known and not closing.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| !s.closing)
    }

    /// Whether there is no session with this id, not even a closing one or one that is remembered.
    pub fn is_unknown(&self, id: SessionId) -> bool {
        !self.sessions.contains_key(&id) && !self.has_ended.contains(&id)
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

    /// The same, and it is remembered for so long: what was sent under it before may still come.
    pub fn end(&mut self, id: SessionId, remembered_ms: i64, now: Now) {
        self.remove(id);
        let clock_ms = now.mono_ms - self.still_ms;
        while let Some((_, id)) = self.ended.pop_front_if(|(until_ms, _)| *until_ms <= clock_ms) {
            self.has_ended.remove(&id);
        }
        if self.has_ended.insert(id) {
            self.ended.push_back((clock_ms + remembered_ms, id));
        }
    }

    /// The session whose time has been up for longest; the lowest id of those whose time was up together.
    pub fn first_expired(&self, now: Now) -> Option<SessionId> {
        let (deadline_ms, bucket) = self.buckets.first_key_value()?;
        if *deadline_ms <= now.mono_ms - self.still_ms { bucket.first().copied() } else { None }
    }

    /// When the next bucket is due.
    pub fn next_deadline_ms(&self) -> i64 {
        self.buckets.keys().next().map_or(i64::MAX, |deadline_ms| deadline_ms + self.still_ms)
    }

    /// Sessions that have not closed with their deadlines, in the order of these, for `dump`.
    pub fn deadlines<'a>(&'a self) -> impl Iterator<Item = (i64, SessionId)> + 'a {
        let still_ms = self.still_ms;
        let of = move |(at_ms, bucket): (&i64, &'a BTreeSet<SessionId>)| (at_ms + still_ms, bucket);
        let buckets = self.buckets.iter().map(of);
        buckets.flat_map(|(deadline_ms, bucket)| bucket.iter().map(move |&id| (deadline_ms, id)))
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
        assert_eq!(tracker.first_expired(at(5999)), None);
        tracker.touch(SessionId(1), at(5000));
        assert_eq!(tracker.first_expired(at(6000)), None);
        assert_eq!(tracker.first_expired(at(10_000)), Some(SessionId(1)));
    }

    #[test]
    fn a_session_that_begins_twice_expires_once() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), 4000, at(1000));
        tracker.add(SessionId(1), 8000, at(1000));
        tracker.invariants();
        assert_eq!(tracker.first_expired(at(9_999)), None);
        assert_eq!(tracker.first_expired(at(10_000)), Some(SessionId(1)));
        tracker.close(SessionId(1));
        assert_eq!(tracker.first_expired(at(100_000)), None);
    }

    #[test]
    fn time_that_stood_still_is_added_to_every_deadline() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), 4000, at(1000));
        tracker.stand_still(6000);
        tracker.add(SessionId(2), 4000, at(7000));
        assert_eq!(tracker.next_deadline_ms(), 12_000);
        assert_eq!(tracker.deadlines().collect::<Vec<_>>(), [(12_000, SessionId(1)), (12_000, SessionId(2))]);
        assert_eq!(tracker.first_expired(at(11_999)), None);
        assert_eq!(tracker.first_expired(at(12_000)), Some(SessionId(1)));
        tracker.close(SessionId(1));
        assert_eq!(tracker.first_expired(at(12_000)), Some(SessionId(2)));
    }

    #[test]
    fn a_session_that_ended_is_remembered_for_a_while() {
        let mut tracker = SessionTracker::new(2000);
        for n in 1..=3 {
            tracker.add(SessionId(n), 4000, at(0));
            tracker.end(SessionId(n), 5000, at(1000 * n));
        }
        assert!((1..=3).all(|n| !tracker.is_unknown(SessionId(n)) && tracker.is_closing(SessionId(n))));
        assert_eq!(tracker.len(), 0);
        tracker.end(SessionId(4), 5000, at(7000));
        assert!(tracker.is_unknown(SessionId(1)) && tracker.is_unknown(SessionId(2)));
        assert!(!tracker.is_unknown(SessionId(3)));
    }

    #[test]
    fn a_timeout_below_zero_is_none_at_all() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), i32::MIN, at(1000));
        tracker.add(SessionId(2), 4000, at(1000));
        tracker.touch_for(SessionId(2), -1, at(5000));
        assert_eq!(tracker.deadlines().collect::<Vec<_>>(), [(2000, SessionId(1)), (6000, SessionId(2))]);
        assert_eq!(tracker.renew(SessionId(1), SessionOwner::Learner(LinkId(1)), -4000, at(1000)), None);
        assert_eq!(tracker.next_deadline_ms(), 2000);
    }

    #[test]
    fn a_closing_session_neither_expires_nor_is_touched() {
        let mut tracker = SessionTracker::new(2000);
        tracker.add(SessionId(1), 4000, at(0));
        assert!(tracker.close(SessionId(1)));
        assert!(!tracker.close(SessionId(1)));
        tracker.touch(SessionId(1), at(100));
        assert_eq!(tracker.first_expired(at(i64::MAX)), None);
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
