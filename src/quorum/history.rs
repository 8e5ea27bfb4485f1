//! The last committed transactions, and how a learner is brought up to date from them
//! (`ZKDatabase.committedLog`, `LearnerHandler.syncFollower`). Pure; used by [`super::leader`], kept up by
//! [`super::learner`] and handed on from role to role by [`super::peer`].
//!
//! The window has no gap, by construction: a record that does not follow the one before it begins a new window. So a
//! learner is never sent over a gap, and never told to forget what is in one.

use std::collections::VecDeque;
use std::mem;

use crate::ids::Zxid;
use crate::mail::LogRecord;
use crate::memory::{Account, Bounds};
use crate::quorum::joint::{HistoryEnd, Reach, RecordMark, Relation, Witness, changes_nothing, tree_after};

/// Records in the window unless [`History::keeping`] says otherwise (`commitLogCount`).
const RECORDS_MAX: usize = 500;

/// Transactions of which is kept how they are known, beside the window.
const MARKS_MAX: usize = 1024;

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

/// Committed transactions up to the last one, without a gap: a number and an account of them, more only while one is pinned.
#[derive(Debug)]
pub struct History {
    /// The transaction in front of the first record, where it is known: a learner that ends there needs all of them.
    before: Option<Zxid>,
    /// How that one is known.
    before_known: Known,
    /// The last transaction of the epochs before that of `last`, where it is known: with the next epoch's first one it was
    /// agreed upon.
    earlier: Option<Zxid>,
    /// Up to here a quorum was heard to have it, in the life of this process.
    agreed: Zxid,
    /// How transactions are known that may have left the window, ascending: the first ones of epochs (with them begins what
    /// another leader of an epoch with the same number made of it), and the last ones that a start replayed.
    marks: Vec<RecordMark>,
    records: VecDeque<LogRecord>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
    last: Zxid,
    pin: Option<Zxid>,
}

/// How much of a history was agreed upon, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Agreement {
    earlier: Option<Zxid>,
    agreed: Zxid,
}

impl Agreement {
    /// A quorum had the history up to this transaction; from when that is known is not.
    pub fn up_to(agreed: Zxid) -> Agreement {
        Agreement { earlier: Some(agreed).filter(|agreed| *agreed > Zxid::ZERO), agreed }
    }

    /// Up to where a quorum is known to have had the history.
    pub fn last(&self) -> Zxid {
        self.agreed.max(self.earlier.unwrap_or(Zxid::ZERO))
    }
}

/// What is at hand of a transaction that is not in the window.
#[derive(Clone, Debug, Default)]
pub struct Known {
    record: Option<LogRecord>,
    tree: Option<u64>,
}

impl Known {
    /// The tree after it.
    pub fn by_tree(tree: Option<u64>) -> Known {
        Known { record: None, tree }
    }

    /// The digest of the tree after it.
    pub fn tree(&self) -> Option<u64> {
        self.witness().tree
    }

    fn witness(&self) -> Witness {
        let witness = self.record.as_ref().map(Witness::of_record).unwrap_or_default();
        Witness { tree: witness.tree.or(self.tree), ..witness }
    }
}

impl History {
    /// A history that ends with `last`. Of the recent records, ascending, those are kept that lead to it without a gap.
    pub fn new(last: Zxid, recent: Vec<LogRecord>) -> History {
        History::keeping(RECORDS_MAX, Bounds::default().get(Account::CommittedLog), last, recent)
    }

    /// The same with bounds of its own: on the number of records (`commitLogCount`), and on the bytes of their payloads, for
    /// 500 of a megabyte may not be worth the memory.
    pub fn keeping(records_max: usize, bytes_max: usize, last: Zxid, recent: Vec<LogRecord>) -> History {
        let mut history = History {
            before: None,
            before_known: Known::default(),
            earlier: None,
            agreed: Zxid::ZERO,
            marks: Vec::new(),
            records: VecDeque::new(),
            bytes: 0,
            records_max,
            bytes_max,
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
    pub fn of_bytes(bytes_max: usize, last: Zxid, known: Known) -> History {
        History { before_known: known, ..History::keeping(usize::MAX, bytes_max, last, Vec::new()) }
    }

    /// The last committed transaction.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// Bytes of payload held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// For operators.
    pub fn publish(&self, bounds: Bounds) {
        let window = self.bytes.min(bounds.get(Account::CommittedLog));
        Account::CommittedLog.publish(window);
        Account::PinnedLog.publish(self.bytes - window);
    }

    /// Another transaction is committed.
    pub fn commit(&mut self, record: LogRecord) {
        self.agreed = record.zxid;
        self.push(record);
    }

    /// Another transaction belongs to the history; whether it is committed is not known.
    pub fn push(&mut self, record: LogRecord) {
        if !follows(self.last, record.zxid) {
            self.clear();
            (self.before, self.before_known, self.earlier) = (None, Known::default(), None);
            self.marks.clear();
        } else {
            if self.records.is_empty() {
                self.before = Some(self.last);
            }
            if record.zxid.epoch() > self.last.epoch() {
                self.earlier = Some(self.last);
            }
        }
        if record.zxid.counter() == 1 && self.marks.last().is_none_or(|mark| mark.zxid < record.zxid) {
            self.marks.push(RecordMark::of(&record));
            self.marks.drain(..self.marks.len().saturating_sub(MARKS_MAX));
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
        self.agreed = Zxid::ZERO;
        (self.before_known, self.earlier) = (Known::default(), None);
        self.marks.clear();
    }

    /// How the last transaction can be known, if its record is not in the window.
    pub fn know_last(&mut self, tree: Option<u64>) {
        if self.records.is_empty() && self.before == Some(self.last) {
            self.before_known.tree = tree;
        }
    }

    /// What was found at the start of the epochs before the last one, and how transactions are known.
    pub fn know_epochs(&mut self, earlier: Option<Zxid>, mut marks: Vec<RecordMark>) {
        self.earlier = self.earlier.or(earlier);
        marks.drain(..marks.len().saturating_sub(MARKS_MAX));
        self.marks = marks;
    }

    /// Up to where a quorum is known to have had this history: what an epoch's first transaction follows, and what was
    /// committed in the life of this process.
    pub fn agreed(&self) -> Zxid {
        self.agreement().last()
    }

    /// The same for what was agreed upon before an epoch.
    pub fn agreed_before(&self, epoch: u32) -> Zxid {
        if self.agreed.epoch() < epoch { self.agreed() } else { self.earlier.unwrap_or(Zxid::ZERO) }
    }

    /// What is known of what was agreed upon, for [`History::agree_as_before`].
    pub fn agreement(&self) -> Agreement {
        Agreement { earlier: self.earlier, agreed: self.agreed }
    }

    /// What came behind the last transaction was no part of this history, and what it said of agreement is not true of it.
    pub fn agree_as_before(&mut self, before: Agreement) {
        self.earlier = before.earlier.filter(|earlier| *earlier < self.last);
        self.agreed = before.agreed.min(self.last);
    }

    /// A leader that a quorum follows has this history.
    pub fn know_agreed(&mut self) {
        self.agreed = self.last;
    }

    /// What is at hand of the last transaction.
    pub fn last_known(&self) -> Known {
        match self.records.back() {
            Some(record) => Known { record: Some(record.clone()), tree: self.tree_at(self.records.len()) },
            None => self.before_known.clone(),
        }
    }

    /// What a learner says of a history that ends so.
    pub fn reach(&self, end: HistoryEnd) -> Reach {
        if end.last != self.last {
            return Reach::new(end, None, &[], [].iter());
        }
        Reach::new(end, self.tree_at(self.records.len()), &self.marks, self.records.iter())
    }

    /// The tree after so many records of the window.
    fn tree_at(&self, records: usize) -> Option<u64> {
        for record in self.records.range(..records).rev() {
            if !changes_nothing(record) {
                return tree_after(record);
            }
        }
        self.before_known.witness().tree
    }

    /// How a point of this history is known; `None`: it is not in the window. The start of an epoch stands for what came
    /// before it.
    fn witness(&self, zxid: Zxid, last_processed: Zxid) -> Option<Witness> {
        let of_last = |this: &History| match this.records.back() {
            Some(record) => Witness { tree: this.tree_at(this.records.len()), ..Witness::of_record(record) },
            None => this.before_known.witness(),
        };
        if zxid == self.last {
            return Some(of_last(self));
        }
        if zxid == last_processed {
            return Some(Witness { record: None, ..of_last(self) });
        }
        if self.before == Some(zxid) {
            return Some(self.before_known.witness());
        }
        match self.records.binary_search_by_key(&zxid, |record| record.zxid) {
            Ok(at) => Some(Witness { tree: self.tree_at(at + 1), ..Witness::of_record(&self.records[at]) }),
            Err(next) if zxid.counter() == 0 => {
                let follows = self.records.get(next)?.zxid.epoch() == zxid.epoch();
                follows.then(|| Witness { record: None, tree: self.tree_at(next) })
            }
            Err(_) => None,
        }
    }

    /// How a learner's history stands to this one, as far as the window tells: by the last point that both have.
    /// `last_processed` as for [`History::plan`].
    pub fn relation(&self, reach: &Reach, last_processed: Zxid) -> Relation {
        if reach.is_empty() {
            return Relation::Contained;
        }
        for zxid in reach.points() {
            let Some(theirs) = reach.witness(zxid) else { continue };
            // In the window nothing is left out: what is not there, this history has not.
            if let Some(own) = self.witness(zxid, last_processed) {
                match own.agrees(&theirs) {
                    Some(true) if zxid == reach.end.last => return Relation::Contained,
                    Some(true) => return Relation::Parted { at: zxid },
                    Some(false) => return Relation::Differs { at: zxid },
                    None => {}
                }
            } else if let Ok(at) = self.marks.binary_search_by_key(&zxid, |mark| mark.zxid)
                && self.marks[at].witness().agrees(&theirs) == Some(false)
            {
                return Relation::Differs { at: zxid };
            }
        }
        // Before the first transaction all histories are one.
        if self.last == Zxid::ZERO {
            return Relation::Parted { at: Zxid::ZERO };
        }
        let end = reach.end.last;
        let next = self.records.partition_point(|record| record.zxid < end);
        let below = next.checked_sub(1).map(|at| self.records[at].zxid).or(self.before.filter(|_| next == 0));
        match below {
            // Nothing is left out between the two, and it stands between them.
            Some(below) if next < self.records.len() && below < end && end.counter() != 0 => {
                if self.records[next].zxid == end { Relation::Unknown } else { Relation::Absent { below } }
            }
            _ => Relation::Unknown,
        }
    }

    /// Everything behind `to` is forgotten.
    pub fn truncate(&mut self, to: Zxid) {
        let same_epoch = to.epoch() == self.last.epoch();
        let earlier = self.earlier.filter(|_| same_epoch);
        let (marks, agreed) = (mem::take(&mut self.marks), self.agreed.min(to));
        while let Some(record) = self.records.pop_back_if(|record| record.zxid > to) {
            self.bytes -= record.payload.len();
        }
        match self.records.back() {
            Some(record) if record.zxid == to => self.last = to,
            None if self.before == Some(to) => self.last = to,
            _ => self.reset(to),
        }
        (self.earlier, self.agreed) = (earlier, agreed);
        self.marks = marks;
        self.marks.retain(|mark| mark.zxid <= to);
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

    /// Whether all of this history is at hand, and nothing of it is as early as this transaction.
    pub fn begins_behind(&self, zxid: Zxid) -> bool {
        match self.records.front() {
            Some(first) => self.before == Some(Zxid::ZERO) && first.zxid > zxid,
            None => self.last == Zxid::ZERO,
        }
    }

    /// Whether a transaction is known not to be of this history.
    pub fn lacks(&self, zxid: Zxid) -> bool {
        zxid > self.floor() && !self.continues(zxid)
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
            let tree = if changes_nothing(&record) { self.before_known.witness().tree } else { None };
            self.before = Some(record.zxid);
            self.before_known = Known { record: Some(record), tree };
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
        assert!(history.lacks(z(1, 12)) && history.lacks(z(2, 9)) && !history.lacks(z(2, 2)));
        assert!(!history.lacks(z(1, 0)), "it may be in the log");
        assert_eq!(plan(z(2, 9)), Plan::Trunc { to: z(2, 3) });
        assert_eq!(plan(z(3, 1)), Plan::Trunc { to: z(2, 3) });
        assert_eq!(plan(z(3, 0)), Plan::Snapshot);
        assert_eq!(plan(Zxid(0)), Plan::Snapshot);
        // Only the disk log can know what was before, and here it does not.
        assert_eq!(plan(z(1, 0)), Plan::Log { from: z(1, 0), to: z(1, 1) });
        assert_eq!(after(&history, z(1, 10)), [z(2, 1), z(2, 2), z(2, 3)]);
        assert_eq!(after(&history, z(2, 0)), [z(2, 1), z(2, 2), z(2, 3)]);
    }

    /// What a learner with these records says, some of them other than the leader's.
    fn reach(zxids: impl IntoIterator<Item = Zxid>, other: &[Zxid]) -> Reach {
        let mut all = records(zxids);
        all.iter_mut().filter(|record| other.contains(&record.zxid)).for_each(|record| record.payload[0] = 9);
        let last = all.last().unwrap().zxid;
        History::new(last, all).reach(HistoryEnd { epoch: last.epoch(), last })
    }

    #[test]
    fn a_leader_that_got_a_snapshot_knows_its_point_by_the_tree_as_a_learner_with_the_record_does() {
        let mut history = History::new(z(1, 10), Vec::new());
        history.know_last(Some(7));
        history.push(record(z(2, 1)));
        let mark = |counter, tree| RecordMark { tree, ..RecordMark::of(&record(z(1, counter))) };
        let relation = |tree| {
            let records = vec![mark(10, tree), mark(11, Some(9))];
            let end = HistoryEnd { epoch: 1, last: z(1, 11) };
            history.relation(&Reach { tree: Some(9), records, ..Reach::new(end, None, &[], [].iter()) }, z(2, 1))
        };
        assert_eq!(relation(Some(7)), Relation::Parted { at: z(1, 10) });
        assert_eq!(relation(Some(8)), Relation::Differs { at: z(1, 10) });
        assert_eq!(relation(None), Relation::Absent { below: z(1, 10) });
    }

    #[test]
    fn a_learners_history_is_compared_where_both_have_the_same_zxid() {
        let history = observed();
        let relation = |reach: &Reach| history.relation(reach, z(2, 3));
        let first = |last| (1..=last).map(|c| z(1, c));
        assert_eq!(relation(&reach(first(7), &[])), Relation::Contained);
        assert_eq!(relation(&reach(first(10).chain([z(2, 1), z(2, 2), z(2, 3)]), &[])), Relation::Contained);
        // Another transaction has the zxid of the last one, or of the last one that both have.
        assert_eq!(relation(&reach(first(7), &[z(1, 7)])), Relation::Differs { at: z(1, 7) });
        assert_eq!(relation(&reach(first(10).chain([z(2, 1), z(2, 2), z(2, 3), z(2, 4)]), &[z(2, 3)])), {
            Relation::Differs { at: z(2, 3) }
        });
        // More of an epoch than the leader has, or of one that it never saw.
        assert_eq!(relation(&reach(first(12), &[])), Relation::Parted { at: z(1, 10) });
        assert_eq!(relation(&reach(first(10).chain([z(3, 1)]), &[])), Relation::Parted { at: z(1, 10) });
        // The last ones that the learner remembers are none of the leader's.
        assert_eq!(relation(&reach([z(1, 14), z(1, 15)], &[])), Relation::Absent { below: z(1, 10) });
        assert_eq!(relation(&reach([z(3, 8), z(3, 9)], &[])), Relation::Unknown);
        let nothing = Reach::new(HistoryEnd { epoch: 0, last: Zxid::ZERO }, None, &[], [].iter());
        assert_eq!(relation(&nothing), Relation::Contained);
        // A leader without any history has in common with all what was before the first transaction.
        let empty = History::new(Zxid::ZERO, Vec::new());
        assert_eq!(empty.relation(&reach(first(3), &[]), Zxid::ZERO), Relation::Parted { at: Zxid::ZERO });
    }

    #[test]
    fn a_snapshot_is_compared_by_its_tree() {
        let told = |tree| Reach::new(HistoryEnd { epoch: 4, last: z(4, 7) }, Some(tree), &[], [].iter());
        let mut installed = History::new(z(4, 7), Vec::new());
        assert_eq!(installed.relation(&told(5), z(5, 0)), Relation::Unknown, "nothing is known of its own");
        installed.know_last(Some(5));
        assert_eq!(installed.relation(&told(5), z(5, 0)), Relation::Contained);
        assert_eq!(installed.relation(&told(6), z(5, 0)), Relation::Differs { at: z(4, 7) });
        // Failed requests change nothing: the tree is the one before them. The start of an epoch is the end of what was.
        let mut failed = record(z(5, 1));
        failed.payload = [vec![0; 28], vec![0xff; 4]].concat();
        installed.push(failed);
        let at = |last, tree| Reach::new(HistoryEnd { epoch: 5, last }, Some(tree), &[], [].iter());
        for last in [z(4, 7), z(5, 0), z(5, 1), z(6, 0)] {
            assert_eq!(installed.relation(&at(last, 5), z(6, 0)), Relation::Contained, "{last}");
            assert_eq!(installed.relation(&at(last, 6), z(6, 0)), Relation::Differs { at: last }, "{last}");
        }
    }

    #[test]
    fn the_first_transactions_of_epochs_tell_long_after_they_left_the_window() {
        let mut history = History::keeping(2, usize::MAX, Zxid::ZERO, Vec::new());
        let epochs = (1..=9).map(|c| z(1, c)).chain((1..=9).map(|c| z(2, c)));
        records(epochs.clone()).into_iter().for_each(|record| history.commit(record));
        let learner = |other: &[Zxid]| {
            let mut learner = History::keeping(2, usize::MAX, Zxid::ZERO, Vec::new());
            let mut all = records((1..=7).map(|c| z(1, c)));
            all.iter_mut().filter(|record| other.contains(&record.zxid)).for_each(|record| record.payload[0] = 9);
            all.into_iter().for_each(|record| learner.push(record));
            learner.reach(HistoryEnd { epoch: 1, last: z(1, 7) })
        };
        assert_eq!(history.relation(&learner(&[]), z(2, 9)), Relation::Unknown, "the log has to be read");
        assert_eq!(history.relation(&learner(&[z(1, 1)]), z(2, 9)), Relation::Differs { at: z(1, 1) });
        assert_eq!(history.agreed(), z(2, 9));
        history.truncate(z(2, 8));
        assert_eq!(history.agreed(), z(2, 8));
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
    fn only_a_history_that_is_known_from_its_beginning_is_known_to_begin_behind_another() {
        let mut history = History::new(Zxid::ZERO, Vec::new());
        assert!(history.begins_behind(z(1, 1)));
        history.push(record(z(2, 1)));
        assert!(history.begins_behind(z(1, 9)) && !history.begins_behind(z(2, 1)) && !history.begins_behind(z(3, 1)));
        (2..=501).for_each(|c| history.push(record(z(2, c))));
        assert!(!history.begins_behind(z(1, 9)), "its first transaction has left the window");
        assert!(!observed().begins_behind(Zxid(5)), "what was before these records is not known");
        assert!(!History::new(z(2, 0), Vec::new()).begins_behind(z(1, 9)));
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
        let bytes_max = Bounds::default().get(Account::CommittedLog);
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
        history.push(LogRecord { zxid: z(1, 2001), payload: vec![0; bytes_max] });
        assert_eq!((after(&history, Zxid(0)), history.bytes()), (vec![z(1, 2001)], bytes_max));
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
