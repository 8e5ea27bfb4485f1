//! What clients watched before they came (setWatches) is very much at times, and everybody comes at once when a server has
//! ended: of large requests some watches are set in each turn, between the requests of others, and of each request in turn.
//! Its client is answered when all are set; what it asks behind that is held. A node that changes meanwhile changed before
//! its watch is set, and its event is told then, as of all that changed since the client was told of the last.

use std::collections::VecDeque;

use crate::ids::ConnId;
use crate::limits::{WATCHES_SET_AT_ONCE, WATCHES_SET_IN_TURNS};
use crate::ops::{ReadOp, SetWatches};
use crate::pipeline::{Pipeline, Query, Read, Slot};

/// Whose watches are being set. Such a request is the next that its connection waits for.
#[derive(Debug, Default)]
pub(super) struct Rewatching {
    line: VecDeque<ConnId>,
}

impl SetWatches {
    fn lists(&mut self) -> [&mut Vec<String>; 5] {
        [&mut self.data, &mut self.exist, &mut self.child, &mut self.persistent, &mut self.persistent_recursive]
    }

    fn len(&self) -> usize {
        let SetWatches { data, exist, child, persistent, persistent_recursive, .. } = self;
        data.len() + exist.len() + child.len() + persistent.len() + persistent_recursive.len()
    }

    /// Takes so many out of it, the first.
    fn take(&mut self, count: usize) -> SetWatches {
        let none = Vec::new;
        let mut taken = SetWatches {
            relative_zxid: self.relative_zxid,
            data: none(),
            exist: none(),
            child: none(),
            persistent: none(),
            persistent_recursive: none(),
        };
        let mut left = count;
        for (to, from) in taken.lists().into_iter().zip(self.lists()) {
            to.extend(from.drain(..from.len().min(left)));
            left -= to.len();
        }
        taken
    }
}

impl Pipeline {
    /// Whether this sets so many watches that it is done in turns. Then its connection waits.
    pub(super) fn rewatches_in_turns(&mut self, id: ConnId, read: &Read) -> bool {
        let Query::Read(ReadOp::SetWatches(watches)) = &read.query else { return false };
        if watches.len() <= WATCHES_SET_IN_TURNS {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.in_turns, true)
        {
            self.rewatching.line.push_back(id);
        }
        true
    }

    /// Whether somebody's watches are being set. While a list of members is not in force none are, see
    /// [`Pipeline::can_go_on_with_lists`].
    pub(super) fn can_go_on_rewatching(&self) -> bool {
        !self.rewatching.line.is_empty() && !self.is_reconfiguring()
    }

    pub(super) fn go_on_rewatching(&mut self) {
        let mut left = WATCHES_SET_AT_ONCE;
        while left > 0
            && self.can_go_on_rewatching()
            && let Some(id) = self.rewatching.line.pop_front()
        {
            let (set, is_done) = self.set_some_watches(id, left.min(WATCHES_SET_IN_TURNS));
            left = left.saturating_sub(set.max(1));
            if is_done {
                self.end_turns_of(id);
            } else {
                self.rewatching.line.push_back(id);
            }
        }
    }

    /// How many were set, and whether that was all.
    fn set_some_watches(&mut self, id: ConnId, count: usize) -> (usize, bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return (0, true) };
        // It may have been done at once, before a write of its own, or given up.
        let Some(Slot::Read(Read { query: Query::Read(ReadOp::SetWatches(watches)), .. })) = conn.waiting.front_mut()
        else {
            return (0, true);
        };
        let Some(session) = conn.session else { return (0, true) };
        let some = watches.take(count);
        let is_done = watches.len() == 0;
        self.set_watches(id, session, &some);
        (some.len(), is_done)
    }
}
