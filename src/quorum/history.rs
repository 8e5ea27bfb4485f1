//! The last committed transactions, and how a learner is brought up to date from them
//! (`ZKDatabase.committedLog`, `LearnerHandler.syncFollower`). Pure; used by [`super::leader`], kept up by
//! [`super::learner`] and handed on from role to role by [`super::peer`].
//!
//! The window has no gap, by construction: a record that does not follow the one before it begins a new window. So a
//! learner is never sent over a gap, and never told to forget what is in one.

use std::collections::VecDeque;

use crate::ids::Zxid;
use crate::limits::HISTORY_BYTES_MAX;
use crate::mail::LogRecord;

/// Records in the window unless [`History::keeping`] says otherwise (`commitLogCount`).
const RECORDS_MAX: usize = 500;

/// How a learner comes to have this server's history. What follows the point named is in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// It gets what is behind this transaction, which it has.
    Diff {
        /// The last one it has.
        after: Zxid,
    },
    /// It has more than was committed and forgets that; then nothing is missing.
    Trunc {
        /// The last one that stays.
        to: Zxid,
    },
    /// It gets what the disk log has from behind `from` up to `to`, then what is behind that; if the disk log cannot
    /// prove that there is no gap, a snapshot.
    Log {
        /// The learner's last transaction.
        from: Zxid,
        /// Where the window goes on.
        to: Zxid,
    },
    /// It gets the whole state.
    Snapshot,
}

/// Committed transactions up to the last one, without a gap: a number and 32 MiB of them, more only while one is pinned.
#[derive(Debug)]
pub struct History {
    /// The transaction in front of the first record, where it is known: a learner that ends there needs all of them.
    before: Option<Zxid>,
    records: VecDeque<LogRecord>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
    last: Zxid,
    pin: Option<Zxid>,
}

impl History {
    /// A history that ends with `last`. Of the recent records, ascending, those are kept that lead to it without a gap.
    pub fn new(last: Zxid, recent: Vec<LogRecord>) -> History {
        History::keeping(RECORDS_MAX, last, recent)
    }

    /// The same with a bound of its own on the number of records (`commitLogCount`).
    pub fn keeping(records_max: usize, last: Zxid, recent: Vec<LogRecord>) -> History {
        let mut history = History {
            before: None,
            records: VecDeque::new(),
            bytes: 0,
            records_max,
            bytes_max: HISTORY_BYTES_MAX,
            last,
            pin: None,
        };
        for record in recent {
            history.push(record);
        }
        // The records start in the middle of something, or end where they should not.
        if history.last != last || history.records.is_empty() {
            history.reset(last);
        }
        history
    }

    /// An empty one from `last` on, bounded by the bytes of its payloads alone (`observerMaster.sizeLimit`).
    pub fn of_bytes(bytes_max: usize, last: Zxid) -> History {
        History { bytes_max, ..History::keeping(usize::MAX, last, Vec::new()) }
    }

    /// The last committed transaction.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// Bytes of payload held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another transaction is committed.
    pub fn push(&mut self, record: LogRecord) {
        if !follows(self.last, record.zxid) {
            self.clear();
            self.before = None;
        } else if self.records.is_empty() {
            self.before = Some(self.last);
        }
        self.last = record.zxid;
        self.bytes += record.payload.len();
        self.records.push_back(record);
        self.shrink();
    }

    /// The state was replaced by one as of `last`; how it came about is not known.
    pub fn reset(&mut self, last: Zxid) {
        self.clear();
        self.before = Some(last);
        self.last = last;
    }

    /// Everything behind `to` is forgotten.
    pub fn truncate(&mut self, to: Zxid) {
        while let Some(record) = self.records.pop_back_if(|record| record.zxid > to) {
            self.bytes -= record.payload.len();
        }
        match self.records.back() {
            Some(record) if record.zxid == to => self.last = to,
            _ => self.reset(to),
        }
    }

    /// Keeps everything behind this transaction, whatever it takes; with `None`, no longer.
    pub fn pin(&mut self, after: Option<Zxid>) {
        self.pin = after;
        self.shrink();
    }

    /// The records behind a transaction.
    pub fn after(&self, zxid: Zxid) -> impl Iterator<Item = &LogRecord> {
        let start = self.records.partition_point(|record| record.zxid <= zxid);
        self.records.range(start..)
    }

    /// Whether a history that ends with this transaction becomes this one by the records behind it.
    pub fn continues(&self, zxid: Zxid) -> bool {
        if zxid == self.last || self.before == Some(zxid) {
            return true;
        }
        if zxid > self.last || zxid < self.floor() {
            return false;
        }
        match self.records.binary_search_by_key(&zxid, |record| record.zxid) {
            Ok(_) => true,
            // The start of an epoch stands for the last transaction before it; of an epoch that came to nothing, for
            // whatever its leader had.
            Err(next) => {
                let next = self.records.get(next).map(|record| record.zxid);
                zxid.counter() == 0 && next.is_some_and(|next| next.epoch() == zxid.epoch())
            }
        }
    }

    /// How a learner that ends with `learner_last` is brought up to date. `last_processed` is the last transaction of
    /// this history, or the start of the epoch if that came later (`LearnerHandler.syncFollower`).
    pub fn plan(&self, learner_last: Zxid, last_processed: Zxid) -> Plan {
        if learner_last == last_processed || learner_last == self.last {
            return Plan::Diff { after: self.last };
        }
        // Nothing at all, or a learner that does not trust what it was sent and asks for everything.
        if learner_last.0 <= 0 {
            return Plan::Snapshot;
        }
        if learner_last > self.last {
            // What the learner of an epoch had before its first transaction is not told by its zxid.
            return if learner_last.counter() == 0 { Plan::Snapshot } else { Plan::Trunc { to: self.last } };
        }
        if self.continues(learner_last) {
            return Plan::Diff { after: learner_last };
        }
        let floor = self.floor();
        // Inside the window, but never committed: where it went astray is not known.
        if learner_last > floor { Plan::Snapshot } else { Plan::Log { from: learner_last, to: floor } }
    }

    /// The first transaction that the window can go on from.
    fn floor(&self) -> Zxid {
        let first = self.records.front().map_or(self.last, |record| record.zxid);
        self.before.unwrap_or(first)
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    fn shrink(&mut self) {
        while self.records.len() > self.records_max || self.bytes > self.bytes_max {
            let pin = self.pin.unwrap_or(self.last);
            let Some(record) = self.records.pop_front_if(|record| record.zxid <= pin) else { return };
            self.bytes -= record.payload.len();
            self.before = Some(record.zxid);
        }
    }
}

/// Whether nothing can be between two transactions: the next of the epoch, or the first of a later one.
pub fn follows(before: Zxid, zxid: Zxid) -> bool {
    zxid.counter() != 0
        && (before.0.checked_add(1) == Some(zxid.0) || zxid.counter() == 1 && zxid.epoch() > before.epoch())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(epoch: i64, counter: i64) -> Zxid {
        Zxid(epoch << 32 | counter)
    }

    fn record(zxid: Zxid) -> LogRecord {
        LogRecord { zxid, payload: vec![0; 10] }
    }

    fn records(zxids: impl IntoIterator<Item = Zxid>) -> Vec<LogRecord> {
        zxids.into_iter().map(record).collect()
    }

    /// The history of the live observations: ten transactions of epoch 1, three of epoch 2.
    fn observed() -> History {
        let zxids = (1..=10).map(|c| z(1, c)).chain((1..=3).map(|c| z(2, c)));
        History::new(z(2, 3), records(zxids))
    }

    fn after(history: &History, zxid: Zxid) -> Vec<Zxid> {
        history.after(zxid).map(|record| record.zxid).collect()
    }

    #[test]
    fn learners_are_planned_as_apache_was_seen_to_do() {
        let history = observed();
        let plan = |p| history.plan(p, z(2, 3));
        assert_eq!(plan(z(2, 3)), Plan::Diff { after: z(2, 3) });
        assert_eq!(plan(z(1, 10)), Plan::Diff { after: z(1, 10) });
        assert_eq!(plan(z(2, 0)), Plan::Diff { after: z(2, 0) });
        assert_eq!(plan(z(1, 12)), Plan::Snapshot);
        assert_eq!(plan(z(2, 9)), Plan::Trunc { to: z(2, 3) });
        assert_eq!(plan(z(3, 1)), Plan::Trunc { to: z(2, 3) });
        assert_eq!(plan(z(3, 0)), Plan::Snapshot);
        assert_eq!(plan(Zxid(0)), Plan::Snapshot);
        // Only the disk log can know what was before, and here it does not.
        assert_eq!(plan(z(1, 0)), Plan::Log { from: z(1, 0), to: z(1, 1) });
        assert_eq!(after(&history, z(1, 10)), [z(2, 1), z(2, 2), z(2, 3)]);
        assert_eq!(after(&history, z(2, 0)), [z(2, 1), z(2, 2), z(2, 3)]);
    }

    #[test]
    fn before_the_first_transaction_of_an_epoch_the_last_one_ends_before_it() {
        let history = History::new(z(1, 10), records((1..=10).map(|c| z(1, c))));
        let plan = |p| history.plan(p, z(2, 0));
        assert_eq!(plan(z(1, 12)), Plan::Trunc { to: z(1, 10) });
        assert_eq!(plan(z(2, 0)), Plan::Diff { after: z(1, 10) });
        assert_eq!(plan(z(1, 10)), Plan::Diff { after: z(1, 10) });
        assert_eq!(plan(z(1, 1)), Plan::Diff { after: z(1, 1) });
    }

    #[test]
    fn the_start_of_an_epoch_that_came_to_nothing_tells_no_history() {
        let history = History::new(z(3, 1), records((8..=10).map(|c| z(1, c)).chain([z(3, 1)])));
        assert_eq!(history.plan(z(2, 0), z(3, 1)), Plan::Snapshot);
        assert_eq!(history.plan(z(3, 0), z(3, 1)), Plan::Diff { after: z(3, 0) });
    }

    #[test]
    fn equal_learners_of_an_empty_window_need_nothing_and_fresh_ones_too() {
        let installed = History::new(z(4, 7), Vec::new());
        assert_eq!(installed.plan(z(4, 7), z(5, 0)), Plan::Diff { after: z(4, 7) });
        assert_eq!(installed.plan(z(4, 6), z(5, 0)), Plan::Log { from: z(4, 6), to: z(4, 7) });
        assert_eq!(History::new(Zxid(0), Vec::new()).plan(Zxid(0), Zxid(0)), Plan::Diff { after: Zxid(0) });
    }

    #[test]
    fn a_gap_begins_a_new_window() {
        let mut history = History::new(z(1, 11), records((1..=11).map(|c| z(1, c))));
        history.reset(z(1, 31));
        history.push(record(z(1, 32)));
        // One that ends in the gap, or before it, is not brought over it, nor cut back to its start.
        assert_eq!(history.plan(z(1, 15), z(1, 32)), Plan::Log { from: z(1, 15), to: z(1, 31) });
        assert_eq!(history.plan(z(1, 31), z(1, 32)), Plan::Diff { after: z(1, 31) });
        history.push(record(z(1, 40)));
        assert_eq!(history.plan(z(1, 32), z(1, 40)), Plan::Log { from: z(1, 32), to: z(1, 40) });
        // Counter 2 of a later epoch does not follow.
        history.push(record(z(2, 2)));
        assert_eq!(after(&history, Zxid(0)), [z(2, 2)]);
        // Recent records that stop short of the last one prove nothing.
        let short = History::new(z(1, 9), records((1..=5).map(|c| z(1, c))));
        assert_eq!(short.plan(z(1, 5), z(1, 9)), Plan::Log { from: z(1, 5), to: z(1, 9) });
    }

    #[test]
    fn behind_the_last_zxid_of_an_epoch_comes_the_first_of_the_next() {
        let last = z(1, i64::from(u32::MAX) - 1);
        let mut history = History::new(last, records([Zxid(last.0 - 1), last]));
        history.push(record(z(2, 1)));
        assert_eq!(history.plan(last, z(2, 1)), Plan::Diff { after: last });
        assert_eq!(after(&history, Zxid(last.0 - 1)), [last, z(2, 1)]);
        assert!(!follows(last.next(), z(2, 0)), "no transaction has counter 0");
    }

    #[test]
    fn the_window_is_bounded_unless_pinned() {
        let mut history = History::new(Zxid(0), Vec::new());
        (1..=600).for_each(|c| history.push(record(z(1, c))));
        assert_eq!(history.plan(z(1, 100), z(1, 600)), Plan::Diff { after: z(1, 100) });
        assert_eq!(history.plan(z(1, 99), z(1, 600)), Plan::Log { from: z(1, 99), to: z(1, 100) });
        history.pin(Some(z(1, 300)));
        (601..=2000).for_each(|c| history.push(record(z(1, c))));
        assert_eq!(after(&history, z(1, 300)).len(), 1700);
        history.pin(None);
        assert_eq!(after(&history, Zxid(0)).len(), 500);
        assert_eq!(history.bytes(), 5000);
        history.push(LogRecord { zxid: z(1, 2001), payload: vec![0; HISTORY_BYTES_MAX] });
        assert_eq!((after(&history, Zxid(0)), history.bytes()), (vec![z(1, 2001)], HISTORY_BYTES_MAX));
    }

    #[test]
    fn a_truncated_history_goes_on_from_where_it_was_cut() {
        let mut history = observed();
        history.truncate(z(1, 9));
        history.push(record(z(3, 1)));
        assert_eq!(history.plan(z(1, 8), z(3, 1)), Plan::Diff { after: z(1, 8) });
        assert_eq!(after(&history, z(1, 8)), [z(1, 9), z(3, 1)]);
        history.truncate(z(1, 0));
        assert_eq!((history.last(), history.bytes()), (z(1, 0), 0));
    }
}
