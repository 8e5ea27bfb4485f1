//! What crashes leave behind, and that recovery brings back every transaction that was durable, and nothing that
//! contradicts it. A crash is an image: a directory as it would be found afterwards.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::fs;

use rookeeper::ids::Zxid;
use rookeeper::mail::LogRecord;
use rookeeper::storage::logdir::LogReader;
use rookeeper::storage::recover::{Origin, RecoverError, recover};
use rookeeper::storage::txnlog::{FRAME_BYTES, HEADER_BYTES, SECTOR_BYTES};
use rookeeper::storage::writer::LogWriter;
use rookeeper::threads::txnlog::MappedFiles;

use support::{DataDir, dir_with, log, options, record, txn, view};

#[track_caller]
fn assert_recovers(dir: &DataDir, last: i64) {
    let recovered = dir.recover().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.state.last_zxid(), Zxid(last));
    let nodes = view(&recovered.state).nodes;
    (1..=last).for_each(|zxid| assert!(nodes.contains_key(&format!("/n{zxid:x}")), "{zxid:#x}"));
    assert!(!nodes.contains_key(&format!("/n{:x}", last + 1)));
}

#[test]
fn a_fresh_directory_has_its_first_snapshot_before_anything_else() {
    let dir = DataDir::new();
    assert_eq!(dir.recover().unwrap().origin, Origin::Nothing);
    assert_eq!(dir.files().keys().collect::<Vec<_>>(), ["snapshot.0"]);
    let again = dir.recover().unwrap();
    assert_eq!(again.origin, Origin::Snapshot("snapshot.0".into()));
    assert_eq!(again.state.digest_mismatches(), 0);
}

#[test]
fn a_log_cut_anywhere_keeps_every_whole_record() {
    let (bytes, ends) = log(1..=4, |zxid| 20 * zxid as usize);
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1) as i64;
        // The file ends there; or zeros follow, as in a preallocated file.
        for padding in [0, 1, 5000] {
            let mut image = bytes[..cut].to_vec();
            image.resize(cut + padding, 0);
            let dir = dir_with(&[("log.1", &image)]);
            assert_recovers(&dir, whole);
            // The tail was tidied: the file ends behind its last record, or is gone.
            match whole {
                0 => assert!(!dir.file("log.1").exists()),
                _ => assert_eq!(fs::read(dir.file("log.1")).unwrap(), &bytes[..ends[whole as usize]]),
            }
            // The next record goes on in a log of its own.
            let (next, _) = log(whole + 1..=whole + 2, |_| 3);
            fs::write(dir.file(&format!("log.{:x}", whole + 1)), next).unwrap();
            assert_recovers(&dir, whole + 2);
        }
    }
}

#[test]
fn a_torn_log_that_apache_left_and_went_on_from_is_no_damage() {
    let (first, ends) = log(1..=4, |_| 40);
    let (second, _) = log(4..=6, |_| 10);
    for cut in ends[3]..ends[4] {
        let mut image = first[..cut].to_vec();
        image.resize(8192, 0);
        let dir = dir_with(&[("log.1", &image), ("log.4", &second)]);
        assert_recovers(&dir, 6);
    }
}

#[test]
fn a_torn_log_that_later_logs_do_not_continue_is_refused() {
    let (first, ends) = log(1..=4, |_| 40);
    let (second, _) = log(5..=6, |_| 10);
    let dir = dir_with(&[("log.1", &first[..ends[4] - 3]), ("log.5", &second)]);
    let before = dir.files();
    let error = dir.recover().unwrap_err();
    assert!(matches!(error, RecoverError::Gap { last: Zxid(3), found: Zxid(5), .. }), "{error}");
    assert!(error.to_string().contains(&format!("log.1 ends at offset {}", ends[3])), "{error}");
    assert!(dir.files() == before);
}

#[test]
fn a_sync_that_the_power_cut_short_may_have_written_any_of_its_sectors() {
    // Records 1 and 2 are synced; 3 to 5 were under way, and any sector of theirs may be missing.
    let (bytes, ends) = log(1..=5, |_| 1500);
    let sectors = (ends[2] / SECTOR_BYTES)..=(ends[5] / SECTOR_BYTES);
    for lost in sectors.clone() {
        for also_lost in sectors.clone() {
            let mut image = bytes.clone();
            image.resize(16 << 10, 0);
            for sector in [lost, also_lost] {
                let from = (sector * SECTOR_BYTES).max(ends[2]);
                image[from..(sector + 1) * SECTOR_BYTES].fill(0);
            }
            let first_lost = ends.iter().position(|end| *end > lost.min(also_lost) * SECTOR_BYTES).unwrap() as i64;
            let dir = dir_with(&[("log.1", &image)]);
            assert_recovers(&dir, (first_lost - 1).max(2));
        }
    }
}

#[test]
fn a_cut_that_loses_readable_records_keeps_a_copy() {
    let (bytes, ends) = log(1..=3, |_| 1500);
    let mut image = bytes.clone();
    image[ends[1]..2048].fill(0);
    let dir = dir_with(&[("log.1", &image)]);
    assert_recovers(&dir, 1);
    assert_eq!(dir.files()["uncut-log.1"], image);
    assert_recovers(&dir, 1);
}

#[test]
fn a_flipped_bit_anywhere_in_synced_records_never_loses_more_than_the_last_one_unnoticed() {
    let (bytes, ends) = log(1..=3, |_| 30);
    for at in HEADER_BYTES..bytes.len() {
        let mut image = bytes.clone();
        image[at] ^= 0x10;
        image.resize(8192, 0);
        let dir = dir_with(&[("log.1", &image)]);
        match dir.recover() {
            Err(_) => {}
            // Only in the last record can a change look like a crash: its length, or its end byte.
            Ok(recovered) => {
                assert!(at >= ends[2], "byte {at}");
                assert_eq!(recovered.state.last_zxid(), Zxid(2));
            }
        }
    }
}

#[test]
fn a_server_killed_while_it_wrote_its_very_first_snapshot_starts_anew() {
    let whole = dir_with(&[]).files()["snapshot.0"].clone();
    for cut in 0..whole.len() {
        let dir = DataDir::new();
        fs::write(dir.file("snapshot.0"), &whole[..cut]).unwrap();
        assert_recovers(&dir, 0);
    }
}

#[test]
fn an_unreadable_snapshot_whose_transactions_are_nowhere_else_is_refused() {
    let (bytes, _) = log(1..=3, |_| 30);
    let dir = dir_with(&[("log.1", &bytes), ("snapshot.5", b"cut short")]);
    let error = dir.recover().unwrap_err();
    assert!(matches!(error, RecoverError::Unreached { zxid: Zxid(5), reached: Zxid(3), .. }), "{error}");
    // A copy under way from a leader says nothing about this server's own history.
    fs::rename(dir.file("snapshot.5"), dir.file("snapshot.5.tmp")).unwrap();
    assert_recovers(&dir, 3);
}

#[test]
fn logs_without_a_snapshot_are_refused_unless_trusted() {
    let (bytes, _) = log(1..=3, |_| 30);
    let dir = dir_with(&[("log.1", &bytes)]);
    fs::remove_file(dir.file("snapshot.0")).unwrap();
    let error = dir.recover().unwrap_err();
    assert!(matches!(error, RecoverError::NoSnapshot { .. }), "{error}");
    // A member that others repair is told what is wrong, and not to do without.
    let trust = "start once with -Dzookeeper.snapshot.trust.empty=true";
    assert!(!error.to_string().contains(trust) && error.with_way_out().contains(trust), "{error}");
    let trusting = rookeeper::storage::recover::RecoverOptions { trust_empty: true, ..options() };
    let recovered = recover(&dir.dirs(), &trusting).unwrap();
    assert_eq!((recovered.origin, recovered.state.last_zxid()), (Origin::Logs, Zxid(3)));
}

#[test]
fn where_no_snapshot_is_good_the_logs_may_be_enough_once_the_snapshots_are_out_of_the_way() {
    let (bytes, _) = log(1..=3, |_| 30);
    let dir = dir_with(&[("log.1", &bytes)]);
    let snapshot = dir.file("snapshot.0");
    let mut damaged = fs::read(&snapshot).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x20;
    fs::write(&snapshot, damaged).unwrap();
    let trusting = rookeeper::storage::recover::RecoverOptions { trust_empty: true, ..options() };
    let error = recover(&dir.dirs(), &trusting).unwrap_err();
    let way_out = "move these snapshots out of the folder (with snapshots in it the key does nothing), and start once with \
                   -Dzookeeper.snapshot.trust.empty=true";
    assert!(error.with_way_out().contains(way_out), "{}", error.with_way_out());
    fs::rename(&snapshot, dir.file("moved")).unwrap();
    assert_eq!(recover(&dir.dirs(), &trusting).unwrap().state.last_zxid(), Zxid(3));
    // Without logs it is of no use.
    fs::rename(dir.file("moved"), dir.file("snapshot.9")).unwrap();
    fs::remove_file(dir.file("log.1")).unwrap();
    let error = dir.recover().unwrap_err();
    assert!(!error.with_way_out().contains("trust.empty"), "{}", error.with_way_out());
}

#[test]
fn the_first_transaction_of_a_later_epoch_follows_any() {
    let epoch = 2 << 32;
    for (first, follows) in [(epoch, true), (epoch + 1, true), (epoch + 2, false)] {
        let (old, _) = log(1..=3, |_| 5);
        let (new, _) = log(first..=first + 1, |_| 5);
        let dir = dir_with(&[("log.1", &old), (&format!("log.{first:x}"), &new)]);
        assert_eq!(dir.recover().is_ok(), follows, "{first:#x}");
    }
}

#[test]
fn mixed_up_folders_are_refused_with_code_3() {
    let dir = DataDir::new();
    let log_dir = dir.path().join("logs");
    let dirs = rookeeper::storage::dirs::DataDirs::new(dir.path(), Some(&log_dir));
    fs::write(dir.file("log.1"), b"").unwrap();
    let error = recover(&dirs, &options()).unwrap_err();
    assert_eq!(error.exit_code() as i32, 3);
    assert!(error.to_string().contains("belongs in"), "{error}");
    let missing = rookeeper::storage::recover::RecoverOptions { datadir_autocreate: false, ..options() };
    let dirs = rookeeper::storage::dirs::DataDirs::new(&dir.path().join("none"), None);
    assert_eq!(recover(&dirs, &missing).unwrap_err().exit_code() as i32, 1, "a disk may be mounted by the next start");
}

#[test]
fn the_initialize_marker_is_used_once() {
    let without = rookeeper::storage::recover::RecoverOptions { db_autocreate: false, ..options() };
    let dir = DataDir::new();
    assert_eq!(recover(&dir.dirs(), &without).unwrap().origin, Origin::NothingUnexpectedly);
    assert!(dir.files().is_empty());
    fs::write(dir.path().join("initialize"), b"").unwrap();
    assert_eq!(recover(&dir.dirs(), &without).unwrap().origin, Origin::Nothing);
    assert!(!dir.path().join("initialize").exists());
}

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn whatever_is_written_reads_back() {
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let dir = dir_with(&[]);
        let files = MappedFiles::start(&dir.version_2(), 1 << 20, false).unwrap();
        let mut writer = LogWriter::new(files, true, None);
        let count = 60 + dice.below(60) as i64;
        for zxid in 1..=count {
            // Now and then one that is larger than a whole file.
            let bytes = if dice.below(40) == 0 { 2_500_000 } else { dice.below(60_000) as usize };
            let payload = txn(zxid, bytes).to_bytes();
            writer.append(&LogRecord { zxid: Zxid(zxid), payload }).unwrap();
            match dice.below(8) {
                0 => writer.roll().unwrap(),
                1..4 => writer.sync().unwrap(),
                _ => {}
            }
        }
        writer.sync().unwrap();
        // As after a kill: the last file still has its padding, and one made ahead may be there.
        let image = DataDir::new();
        let files = dir.files();
        drop(writer);
        files.iter().for_each(|(name, bytes)| fs::write(image.file(name), bytes).unwrap());
        let dir = image;
        let mut logs = LogReader::open(&dir.version_2(), Zxid(1), 2 << 20).unwrap();
        for zxid in 1..=count {
            assert_eq!(logs.next_entry().unwrap().unwrap().txn.header.zxid, Zxid(zxid), "seed {seed}");
        }
        assert!(logs.next_entry().unwrap().is_none());
        assert_recovers(&dir, count);
        assert!(dir.files().keys().all(|name| !name.starts_with("next-log.")), "{:?}", dir.files().keys());
    }
}

#[test]
fn a_record_of_one_byte_is_framed_like_any_other() {
    let bytes = record(&txn(1, 0));
    assert_eq!(bytes.len(), FRAME_BYTES + txn(1, 0).to_bytes().len());
}
