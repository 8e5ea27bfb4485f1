//! The window of committed transactions: what a learner that stands anywhere is sent of it.

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
fn observed() -> CommittedLog {
    let zxids = (1..=10).map(|c| z(1, c)).chain((1..=3).map(|c| z(2, c)));
    CommittedLog::new(z(2, 3), records(zxids))
}

fn after(history: &CommittedLog, zxid: Zxid) -> Vec<Zxid> {
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
    CommittedLog::new(last, all).reach(HistoryEnd { epoch: last.epoch(), last })
}

#[test]
fn a_leader_that_got_a_snapshot_knows_its_point_by_the_tree_as_a_learner_with_the_record_does() {
    let mut history = CommittedLog::new(z(1, 10), Vec::new());
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
    let empty = CommittedLog::new(Zxid::ZERO, Vec::new());
    assert_eq!(empty.relation(&reach(first(3), &[]), Zxid::ZERO), Relation::Parted { at: Zxid::ZERO });
}

#[test]
fn a_snapshot_is_compared_by_its_tree() {
    let told = |tree| Reach::new(HistoryEnd { epoch: 4, last: z(4, 7) }, Some(tree), &[], [].iter());
    let mut installed = CommittedLog::new(z(4, 7), Vec::new());
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
    let mut history = CommittedLog::keeping(2, usize::MAX, Zxid::ZERO, Vec::new());
    let epochs = (1..=9).map(|c| z(1, c)).chain((1..=9).map(|c| z(2, c)));
    records(epochs.clone()).into_iter().for_each(|record| history.commit(record));
    let learner = |other: &[Zxid]| {
        let mut learner = CommittedLog::keeping(2, usize::MAX, Zxid::ZERO, Vec::new());
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
    let history = CommittedLog::new(z(1, 10), records((1..=10).map(|c| z(1, c))));
    let plan = |p| history.plan(p, z(2, 0));
    assert_eq!(plan(z(1, 12)), Plan::Trunc { to: z(1, 10) });
    assert_eq!(plan(z(2, 0)), Plan::Diff { after: z(1, 10) });
    assert_eq!(plan(z(1, 10)), Plan::Diff { after: z(1, 10) });
    assert_eq!(plan(z(1, 1)), Plan::Diff { after: z(1, 1) });
}

#[test]
fn the_start_of_an_epoch_that_came_to_nothing_tells_no_history() {
    let history = CommittedLog::new(z(3, 1), records((8..=10).map(|c| z(1, c)).chain([z(3, 1)])));
    assert_eq!(history.plan(z(2, 0), z(3, 1)), Plan::Snapshot);
    assert_eq!(history.plan(z(3, 0), z(3, 1)), Plan::Diff { after: z(3, 0) });
}

#[test]
fn equal_learners_of_an_empty_window_need_nothing_and_fresh_ones_too() {
    let installed = CommittedLog::new(z(4, 7), Vec::new());
    assert_eq!(installed.plan(z(4, 7), z(5, 0)), Plan::Diff { after: z(4, 7) });
    assert_eq!(installed.plan(z(4, 6), z(5, 0)), Plan::Log { from: z(4, 6), to: z(4, 7) });
    assert_eq!(CommittedLog::new(Zxid(0), Vec::new()).plan(Zxid(0), Zxid(0)), Plan::Diff { after: Zxid(0) });
}

#[test]
fn a_gap_begins_a_new_window() {
    let mut history = CommittedLog::new(z(1, 11), records((1..=11).map(|c| z(1, c))));
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
    let short = CommittedLog::new(z(1, 9), records((1..=5).map(|c| z(1, c))));
    assert_eq!(short.plan(z(1, 5), z(1, 9)), Plan::Log { from: z(1, 5), to: z(1, 9) });
}

#[test]
fn only_a_history_that_is_known_from_its_beginning_is_known_to_begin_behind_another() {
    let mut history = CommittedLog::new(Zxid::ZERO, Vec::new());
    assert!(history.begins_behind(z(1, 1)));
    history.push(record(z(2, 1)));
    assert!(history.begins_behind(z(1, 9)) && !history.begins_behind(z(2, 1)) && !history.begins_behind(z(3, 1)));
    (2..=501).for_each(|c| history.push(record(z(2, c))));
    assert!(!history.begins_behind(z(1, 9)), "its first transaction has left the window");
    assert!(!observed().begins_behind(Zxid(5)), "what was before these records is not known");
    assert!(!CommittedLog::new(z(2, 0), Vec::new()).begins_behind(z(1, 9)));
}

#[test]
fn behind_the_last_zxid_of_an_epoch_comes_the_first_of_the_next() {
    let last = z(1, i64::from(u32::MAX) - 1);
    let mut history = CommittedLog::new(last, records([Zxid(last.0 - 1), last]));
    history.push(record(z(2, 1)));
    assert_eq!(history.plan(last, z(2, 1)), Plan::Diff { after: last });
    assert_eq!(after(&history, Zxid(last.0 - 1)), [last, z(2, 1)]);
    assert!(!follows(last.next(), z(2, 0)), "no transaction has counter 0");
}

#[test]
fn the_window_is_bounded_unless_pinned() {
    let bytes_max = Bounds::default().get(Account::CommittedLog);
    let mut history = CommittedLog::new(Zxid(0), Vec::new());
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
