//! Logs that hold transactions twice, as followers of Apache leave them: each transaction counts once, for recovery, for a
//! learner that is sent records, and for a truncation. What only looks like a repeat is refused.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::fs;

use rookeeper::ids::Zxid;
use rookeeper::mail::Dropped;
use rookeeper::storage::logdir::read_part;
use rookeeper::storage::recover::{RecoverError, RecoverOptions, recover};
use rookeeper::storage::truncate::{plan_truncate, truncate};
use rookeeper::storage::txnlog;

use support::{DataDir, dir_with, log, options, record, txn, view, write_snapshot};

const RECORD_BYTES_MAX: usize = 1 << 20;

/// A log of these transactions in this order.
fn log_of(zxids: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let mut bytes = txnlog::header().to_vec();
    zxids.into_iter().for_each(|zxid| bytes.extend(record(&txn(zxid, 20))));
    bytes
}

/// Directories with the transactions 1 to 9, some of them more than once.
fn layouts() -> Vec<DataDir> {
    let one_file = log_of((1..=6).chain(4..=6).chain(4..=9));
    let a_run_cut_short = log_of((1..=7).chain(4..=5).chain(4..=9));
    let at_the_end = log_of((1..=9).chain(4..=9));
    let before_a_roll = log_of((1..=6).chain(4..=6));
    let across = [log_of((1..=6).chain(4..=5)), log_of(6..=9)];
    let behind_a_roll = [log_of(1..=6), log_of(4..=9)];
    let twice_behind_a_roll = [log_of(1..=6), log_of((4..=5).chain(4..=9))];
    vec![
        dir_with(&[("log.1", &one_file)]),
        dir_with(&[("log.1", &a_run_cut_short)]),
        dir_with(&[("log.1", &at_the_end)]),
        dir_with(&[("log.1", &before_a_roll), ("log.7", &log(7..=9, |_| 20).0)]),
        dir_with(&[("log.1", &across[0]), ("log.6", &across[1])]),
        dir_with(&[("log.1", &behind_a_roll[0]), ("log.4", &behind_a_roll[1])]),
        dir_with(&[("log.1", &twice_behind_a_roll[0]), ("log.4", &twice_behind_a_roll[1])]),
    ]
}

fn once() -> DataDir {
    dir_with(&[("log.1", &log(1..=9, |_| 20).0)])
}

#[test]
fn each_transaction_counts_once_whatever_snapshot_replay_starts_from() {
    let expected = view(&once().recover().unwrap().state);
    for (n, dir) in layouts().into_iter().enumerate() {
        for snapshot in 0..=9 {
            if snapshot > 0 {
                let until = dir_with(&[("log.1", &log(1..=snapshot, |_| 20).0)]);
                write_snapshot(&dir, &mut until.recover().unwrap().state);
            }
            let recovered = recover(&dir.dirs(), &RecoverOptions { recent_max: 500, ..options() }).unwrap();
            assert_eq!(view(&recovered.state), expected, "layout {n}, snapshot {snapshot}");
            let recent: Vec<i64> = recovered.recent.iter().map(|record| record.zxid.0).collect();
            assert_eq!(recent, (snapshot + 1..=9).collect::<Vec<_>>(), "layout {n}");
            assert_eq!(recovered.replayed, 9 - snapshot as u64);
        }
    }
}

#[test]
fn a_learner_is_sent_each_record_once() {
    for (n, dir) in layouts().into_iter().enumerate() {
        for (from, to) in (0..=9).flat_map(|from| (from..=9).map(move |to| (from, to))) {
            let part = read_part(&dir.dirs(), Zxid(from), Zxid(to), 1 << 20, RECORD_BYTES_MAX).unwrap();
            let sent: Vec<i64> = part.records.unwrap().iter().map(|record| record.zxid.0).collect();
            assert_eq!(sent, (from + 1..=to).collect::<Vec<_>>(), "layout {n}");
        }
    }
}

#[test]
fn a_truncation_leaves_no_repeat_of_what_it_takes_back() {
    for n in 0..layouts().len() {
        for (to, crash) in (0..=9).flat_map(|to| (0..3).map(move |crash| (to, crash))) {
            let dir = layouts().swap_remove(n);
            let steps = plan_truncate(&dir.dirs(), Zxid(to), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            steps.iter().take(crash).for_each(|step| step.take(dir.dirs().files()).unwrap());
            assert!((to..=9).contains(&dir.recover().unwrap().state.last_zxid().0), "layout {n} to {to}");
            truncate(&dir.dirs(), Zxid(to), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(to), "layout {n}");
            let next_epoch = 1 << 32 | 1;
            fs::write(dir.file(&format!("log.{next_epoch:x}")), log_of([next_epoch])).unwrap();
            assert_eq!(dir.recover().unwrap().replayed, to as u64 + 1, "layout {n}");
        }
    }
}

#[test]
fn a_repeat_that_was_never_finished_is_cut_and_the_log_goes_on() {
    let whole = log_of((1..=6).chain(4..=5));
    let mut torn = log_of((1..=6).chain(4..=6));
    torn.truncate(torn.len() - 7);
    let dir = dir_with(&[("log.1", &torn)]);
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(6));
    assert!(fs::read(dir.file("log.1")).unwrap() == whole);
    fs::write(dir.file("log.7"), log_of(7..=9)).unwrap();
    assert_eq!(view(&dir.recover().unwrap().state), view(&once().recover().unwrap().state));
}

#[test]
fn another_transaction_with_an_old_zxid_is_refused() {
    let other = record(&txn(5, 21));
    let mut of_another_history = log_of((1..=6).chain([4]));
    of_another_history.extend(other);
    let mut with_a_gap = log_of((1..=6).chain(4..=6));
    with_a_gap.extend(record(&txn(8, 20)));
    let dir = dir_with(&[("log.1", &of_another_history)]);
    let before = dir.files();
    assert!(matches!(dir.recover().unwrap_err(), RecoverError::Backwards { last: Zxid(6), found: Zxid(5), .. }));
    assert!(dir.files() == before);
    assert!(read_part(&dir.dirs(), Zxid(1), Zxid(7), 1 << 20, RECORD_BYTES_MAX).unwrap().records.is_none());
    let dir = dir_with(&[("log.1", &with_a_gap)]);
    assert!(matches!(dir.recover().unwrap_err(), RecoverError::Gap { last: Zxid(6), found: Zxid(8), .. }));
}
