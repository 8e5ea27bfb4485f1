//! Data that the disk changed or lost after it was durable: a server that stands alone refuses it, a member of an ensemble
//! says what it cannot read and changes nothing. A crash is in `crash.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::fs;

use rookeeper::ids::Zxid;
use rookeeper::limits::LOG_BATCH_RECORDS_MAX;
use rookeeper::storage::recover::{Behind, Origin, RecoverError, RecoverOptions, Recovered, recover};
use rookeeper::storage::txnlog::{self, HEADER_BYTES, SECTOR_BYTES};
use rookeeper::txn::TxnBody;

use support::{DataDir, dir_with, log, options, record, txn, view, write_snapshot};

/// A record begins with zeros, which no lost sector takes away.
const ZEROS_FIRST: usize = 4;

/// As a member of an ensemble does it.
fn as_member(dir: &DataDir) -> Result<Recovered, RecoverError> {
    recover(&dir.dirs(), &RecoverOptions { repairable: true, recent_max: 100, ..options() })
}

/// The member has everything up to `last`, says that there was more, and leaves all files as they are.
#[track_caller]
fn assert_repairable(dir: &DataDir, last: i64) {
    let before = dir.files();
    let recovered = as_member(dir).unwrap_or_else(|error| panic!("{error}"));
    let Some(damage) = &recovered.damage else { panic!("no damage is found") };
    assert_eq!(damage.last, Zxid(last), "{damage}");
    // By what helps a server alone a member would lose what only it has, before the others are back.
    let said = damage.to_string();
    assert!(!said.contains("log cut") && !said.contains("empty them"), "{said}");
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

/// A server that stands alone refuses to start, and says where the damage is and what is behind it.
#[track_caller]
fn assert_refused(dir: &DataDir, name: &str, wanted_offset: usize, wanted_last: i64) -> Behind {
    let before = dir.files();
    let error = dir.recover().unwrap_err();
    let text = error.with_way_out();
    assert!(dir.files() == before, "the files changed");
    let RecoverError::Damaged { path, offset, last, behind, .. } = error else { panic!("{text}") };
    assert_eq!((path, offset, last), (dir.file(name), wanted_offset as u64, Zxid(wanted_last)), "{text}");
    for said in [
        name,
        &format!("offset {offset}"),
        &last.to_string(),
        "Restore both version-2 folders from one backup",
        "rookeeper log cut",
    ] {
        assert!(text.contains(said) || last == Zxid::ZERO, "{said}: {text}");
    }
    behind
}

#[test]
fn a_bad_sector_does_not_take_the_synced_records_behind_it() {
    let (bytes, ends) = log(1..=20_000, |_| 0);
    let mut image = bytes.clone();
    image[4 * SECTOR_BYTES..5 * SECTOR_BYTES].fill(0);
    image.resize(image.len() + 100_000, 0);
    let dir = dir_with(&[("log.1", &image)]);
    let readable = ends.iter().rposition(|end| *end <= 4 * SECTOR_BYTES).unwrap();
    let behind_at = ends.iter().position(|end| *end >= 5 * SECTOR_BYTES).unwrap();
    let behind = assert_refused(&dir, "log.1", ends[readable], readable as i64);
    assert_eq!(behind, Behind { records: 20_000 - behind_at as u64, last: Some(Zxid(20_000)) });
    assert_repairable(&dir, readable as i64);
}

#[test]
fn each_sector_of_a_log_of_many_syncs_is_believed_lost_only_within_the_last() {
    let count = 2 * LOG_BATCH_RECORDS_MAX as i64;
    let (bytes, ends) = log(1..=count, |_| 0);
    let (mut crashes, mut damaged) = (0, 0);
    for sector in 0..bytes.len() / SECTOR_BYTES {
        let mut image = bytes.clone();
        image[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        let first_lost = ends.iter().position(|end| *end > sector * SECTOR_BYTES).unwrap();
        let whole_behind =
            count as usize - ends.iter().position(|end| *end + ZEROS_FIRST >= (sector + 1) * SECTOR_BYTES).unwrap();
        let dir = dir_with(&[("log.1", &image)]);
        if sector > 0 && whole_behind < LOG_BATCH_RECORDS_MAX {
            crashes += 1;
            assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(first_lost as i64 - 1), "sector {sector}");
            assert!(whole_behind == 0 || dir.file("uncut-log.1").exists());
        } else {
            damaged += 1;
            // Without a header there is no log.
            let offset = if sector == 0 { 0 } else { ends[first_lost - 1] };
            let behind = assert_refused(&dir, "log.1", offset, (first_lost as i64 - 1).max(0));
            assert_eq!(behind.records, whole_behind as u64);
        }
    }
    assert!(crashes > 100 && damaged > 100, "{crashes} {damaged}");
}

#[test]
fn with_large_records_what_is_believed_lost_is_bounded_by_bytes() {
    // 2.5 MB, each record synced alone.
    let (bytes, ends) = log(1..=50, |_| 50_000);
    for at in [1, 10, 20, 25, 45, 49] {
        let mut image = bytes.clone();
        let from = (ends[at] + 1000).next_multiple_of(SECTOR_BYTES);
        image[from..from + SECTOR_BYTES].fill(0);
        let dir = dir_with(&[("log.1", &image)]);
        match dir.recover() {
            Ok(recovered) => {
                assert!(bytes.len() - ends[at] <= 1 << 20, "{at}");
                assert_eq!(recovered.state.last_zxid(), Zxid(at as i64));
            }
            Err(error) => {
                assert!(bytes.len() - ends[at] > 1 << 20, "{at}: {error}");
                assert_repairable(&dir, at as i64);
            }
        }
    }
}

#[test]
fn without_force_sync_a_crash_may_have_spoiled_anything() {
    let (bytes, ends) = log(1..=3_000, |_| 0);
    let mut image = bytes.clone();
    image[4 * SECTOR_BYTES..5 * SECTOR_BYTES].fill(0);
    let dir = dir_with(&[("log.1", &image)]);
    let recovered = recover(&dir.dirs(), &RecoverOptions { force_sync: false, ..options() }).unwrap();
    let readable = ends.iter().rposition(|end| *end <= 4 * SECTOR_BYTES).unwrap();
    assert_eq!(recovered.state.last_zxid(), Zxid(readable as i64));
}

/// A log whose values are all zeros, as long as fits between two sectors' ends.
fn log_of_zeros(count: i64) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = txnlog::header().to_vec();
    let mut ends = vec![bytes.len()];
    for zxid in 1..=count {
        let mut txn = txn(zxid, 0);
        if let TxnBody::Create(create) = &mut txn.body {
            create.data = Some(vec![0; 500]);
        }
        bytes.extend(record(&txn));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_crash() {
    let without_zeros = log(1..=3, |_| 30);
    for (bytes, ends) in [without_zeros, log_of_zeros(3)] {
        for at in HEADER_BYTES..bytes.len() {
            let mut image = bytes.clone();
            image[at] ^= 1 << (at % 8);
            let dir = DataDir::new();
            for padding in [0, 8192] {
                image.resize(bytes.len() + padding, 0);
                fs::write(dir.file("snapshot.0"), fresh_snapshot()).unwrap();
                fs::write(dir.file("log.1"), &image).unwrap();
                let readable = ends.iter().rposition(|end| *end <= at).unwrap();
                let behind = assert_refused(&dir, "log.1", ends[readable], readable as i64);
                assert_eq!(behind.records, 2 - readable as u64, "byte {at}");
            }
        }
    }
}

fn fresh_snapshot() -> Vec<u8> {
    static FRESH: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FRESH.get_or_init(|| dir_with(&[]).files()["snapshot.0"].clone()).clone()
}

/// A directory with these logs and a snapshot as of a transaction.
fn with_snapshot(logs: &[(&str, &[u8])], as_of: i64) -> DataDir {
    let (bytes, _) = log(1..=as_of, |_| 40);
    let dir = dir_with(&[]);
    let mut state = dir_with(&[("log.1", &bytes)]).recover().unwrap().state;
    write_snapshot(&dir, &mut state);
    logs.iter().for_each(|(name, bytes)| fs::write(dir.file(name), bytes).unwrap());
    dir
}

#[test]
fn damage_in_a_log_that_a_newer_snapshot_covers_is_passed_over() {
    let ((old, _), (new, _)) = (log(1..=20, |_| 40), log(21..=30, |_| 40));
    for at in (0..old.len()).step_by(17) {
        for flipped in [true, false] {
            let mut image = old.clone();
            if flipped {
                image[at] ^= 1;
            } else {
                image[at..(at + 600).min(old.len())].fill(0);
            }
            let dir = with_snapshot(&[("log.1", &image), ("log.15", &new)], 20);
            let recovered = dir.recover().unwrap_or_else(|error| panic!("byte {at}: {error}"));
            assert_eq!(recovered.state.last_zxid(), Zxid(30));
            assert!(fs::read(dir.file("log.1")).unwrap() == image);
            assert!(as_member(&dir).unwrap().damage.is_none());
        }
    }
}

#[test]
fn damage_is_passed_over_within_a_log_as_far_as_the_snapshot_reaches() {
    let (bytes, ends) = log(1..=30, |_| 40);
    for damaged in 1..=30 {
        let mut image = bytes.clone();
        image[ends[damaged] - 5] ^= 1;
        let dir = with_snapshot(&[("log.1", &image)], 10);
        if damaged <= 10 {
            assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(30), "record {damaged}");
            assert!(fs::read(dir.file("log.1")).unwrap() == image);
        } else {
            assert_refused(&dir, "log.1", ends[damaged - 1], damaged as i64 - 1);
            assert_repairable_from(&dir, 10, damaged as i64 - 1);
        }
    }
}

#[track_caller]
fn assert_repairable_from(dir: &DataDir, snapshot: i64, last: i64) {
    let before = dir.files();
    let recovered = as_member(dir).unwrap();
    assert_eq!(recovered.damage.map(|damage| damage.last), Some(Zxid(last)));
    assert!(recovered.recent.iter().map(|record| record.zxid).eq((snapshot + 1..=last).map(Zxid)));
    assert!(dir.files() == before, "the files changed");
}

#[test]
fn a_damaged_last_record_is_passed_over_if_the_snapshot_has_it() {
    let (bytes, ends) = log(1..=20, |_| 40);
    let mut image = bytes.clone();
    image[ends[20] - 5] ^= 1;
    let dir = with_snapshot(&[("log.1", &image)], 20);
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(20));
    let (next, _) = log(21..=25, |_| 40);
    fs::write(dir.file("log.15"), next).unwrap();
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(25));
    assert_refused(&with_snapshot(&[("log.1", &image)], 19), "log.1", ends[19], 19);
}

#[test]
fn a_damaged_log_in_the_middle_names_what_stands_behind_in_later_logs() {
    let ((mut first, ends), (second, _)) = (log(1..=6, |_| 40), log(7..=9, |_| 40));
    first[ends[3] + 40] ^= 4;
    let dir = dir_with(&[("log.1", &first), ("log.7", &second)]);
    assert_eq!(assert_refused(&dir, "log.1", ends[3], 3), Behind { records: 5, last: Some(Zxid(9)) });
    assert_repairable(&dir, 3);
}

#[test]
fn a_start_writes_again_what_the_last_sync_may_have_left_in_memory_only() {
    let (bytes, _) = log(1..=5, |_| 40);
    let dir = dir_with(&[("log.1", &bytes)]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let modified = || fs::metadata(dir.file("log.1")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(dir.file("log.1")).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(5));
    assert!(modified() > long_ago);
    assert!(fs::read(dir.file("log.1")).unwrap() == bytes);

    // What is damaged is written by nobody.
    let mut image = bytes.clone();
    image[100] ^= 1;
    fs::write(dir.file("log.1"), &image).unwrap();
    fs::File::options().write(true).open(dir.file("log.1")).unwrap().set_modified(long_ago).unwrap();
    assert!(as_member(&dir).unwrap().damage.is_some());
    assert_eq!(modified(), long_ago);
}

#[test]
fn a_start_that_cannot_write_it_again_ends_as_after_a_failed_sync() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let (bytes, _) = log(1..=5, |_| 40);
    let dir = dir_with(&[]);
    // A file that can be read, and opened, and not written: as a disk that fails.
    let sealed = nix::sys::memfd::memfd_create("log", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING).unwrap();
    fs::File::from(sealed.try_clone().unwrap()).write_all(&bytes).unwrap();
    let seal = nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_WRITE);
    nix::fcntl::fcntl(&sealed, seal).unwrap();
    std::os::unix::fs::symlink(format!("/proc/self/fd/{}", sealed.as_raw_fd()), dir.file("log.1")).unwrap();
    for repairable in [false, true] {
        let error = recover(&dir.dirs(), &RecoverOptions { repairable, ..options() }).unwrap_err();
        assert!(matches!(error, RecoverError::NotDurable { .. }), "{error}");
        assert_eq!(error.exit_code() as i32, 11);
        assert!(error.to_string().contains("log.1"), "{error}");
    }
}
