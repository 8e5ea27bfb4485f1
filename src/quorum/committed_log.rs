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

/// Records in the window unless [`CommittedLog::keeping`] says otherwise (`commitLogCount`).
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
pub struct CommittedLog {
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

impl CommittedLog {
    /// A history that ends with `last`. Of the recent records, ascending, those are kept that lead to it without a gap.
    pub fn new(last: Zxid, recent: Vec<LogRecord>) -> CommittedLog {
        CommittedLog::keeping(RECORDS_MAX, Bounds::default().get(Account::CommittedLog), last, recent)
    }

    /// The same with bounds of its own: on the number of records (`commitLogCount`), and on the bytes of their payloads, for
    /// 500 of a megabyte may not be worth the memory.
    pub fn keeping(records_max: usize, bytes_max: usize, last: Zxid, recent: Vec<LogRecord>) -> CommittedLog {
        let mut history = CommittedLog {
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
    pub fn of_bytes(bytes_max: usize, last: Zxid, known: Known) -> CommittedLog {
        CommittedLog { before_known: known, ..CommittedLog::keeping(usize::MAX, bytes_max, last, Vec::new()) }
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

    /// What is known of what was agreed upon, for [`CommittedLog::agree_as_before`].
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
        let of_last = |this: &CommittedLog| match this.records.back() {
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
    /// `last_processed` as for [`CommittedLog::plan`].
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
mod tests;
