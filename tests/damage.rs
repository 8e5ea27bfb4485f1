//! Data that the disk changed or lost after it was durable: a server that stands alone refuses it, a member of an ensemble
//! says what it cannot read and changes nothing. A crash is in `crash.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::fs;

use rookeeper::ids::Zxid;
use rookeeper::storage::recover::{Origin, RecoverError, RecoverOptions, Recovered, recover};

use support::{DataDir, dir_with, log, options, view};

/// As a member of an ensemble does it.
fn as_member(dir: &DataDir) -> Result<Recovered, RecoverError> {
    recover(&dir.dirs(), &RecoverOptions { repairable: true, recent_max: 100, ..options() })
}

/// The member has everything up to `last`, says that there was more, and leaves all files as they are.
#[track_caller]
fn assert_repairable(dir: &DataDir, last: i64) {
    let before = dir.files();
    let recovered = as_member(dir).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.damage.as_ref().map(|damage| damage.last), Some(Zxid(last)), "{:?}", recovered.damage);
    assert_eq!(recovered.state.last_zxid(), Zxid(last));
    let nodes = view(&recovered.state).nodes;
    (1..=last).for_each(|zxid| assert!(nodes.contains_key(&format!("/n{zxid:x}")), "{zxid:#x}"));
    assert!(!nodes.contains_key(&format!("/n{:x}", last + 1)));
    assert!(recovered.recent.iter().map(|record| record.zxid).eq((1..=last).map(Zxid)));
    assert!(dir.files() == before, "the files changed");
}

#[test]
fn a_member_with_a_damaged_log_has_what_is_readable_and_changes_no_file() {
    let (mut bytes, ends) = log(1..=5, |_| 40);
    bytes[ends[2] + 30] ^= 1;
    // Padding is not trimmed, and a log without records is not removed.
    bytes.resize(8192, 0);
    let dir = dir_with(&[("log.1", &bytes), ("log.6", b"")]);
    assert!(dir.recover().is_err());
    assert_repairable(&dir, 2);
}

#[test]
fn a_member_with_a_missing_log_has_what_comes_before_it() {
    let ((first, _), (third, _)) = (log(1..=3, |_| 40), log(5..=6, |_| 40));
    let dir = dir_with(&[("log.1", &first), ("log.5", &third)]);
    assert!(dir.recover().is_err());
    assert_repairable(&dir, 3);
}

#[test]
fn a_member_whose_snapshots_are_all_unreadable_has_nothing_and_says_so() {
    let (bytes, _) = log(1..=3, |_| 40);
    for log in [Some(bytes), None] {
        let dir = DataDir::new();
        fs::write(dir.file("snapshot.3"), b"cut short").unwrap();
        if let Some(bytes) = log {
            fs::write(dir.file("log.1"), bytes).unwrap();
        }
        assert!(dir.recover().is_err());
        assert_repairable(&dir, 0);
        assert_eq!(as_member(&dir).unwrap().origin, Origin::Unreadable);
    }
}

#[test]
fn a_member_whose_newest_snapshot_is_unreadable_has_what_the_logs_still_hold() {
    let (bytes, _) = log(1..=3, |_| 40);
    let dir = dir_with(&[("log.1", &bytes), ("snapshot.5", b"cut short")]);
    assert!(dir.recover().is_err());
    assert_repairable(&dir, 3);
}

#[test]
fn files_that_a_person_mixed_up_are_refused_by_a_member_too() {
    let ((first, _), (second, _)) = (log(1..=6, |_| 40), log(3..=4, |_| 50));
    let dir = dir_with(&[("log.1", &first), ("log.7", &second)]);
    assert!(matches!(as_member(&dir).unwrap_err(), RecoverError::Backwards { .. }));
}
