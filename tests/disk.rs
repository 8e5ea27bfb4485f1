//! What the disk does to a log: fills up, shrinks under it. Root on Linux makes the small file systems; without it those
//! tests say so and pass.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

mod support;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::mail::LogRecord;
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::recover::recover;
use rookeeper::storage::writer::LogWriter;
use rookeeper::sys::mapped_log::{MappedLog, PAGE_BYTES, allocate, die_politely_on_sigbus};
use rookeeper::threads::txnlog::MappedFiles;
use rookeeper::txn::{Txn, TxnBody, TxnHeader};

/// A small file system in memory, unmounted with the value.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` when this user may not mount.
    fn new(mib: usize) -> Option<SmallDisk> {
        let disk = SmallDisk { dir: tempfile::tempdir().unwrap() };
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "rookeeper-test"])
            .arg(disk.dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            _ => {
                eprintln!("left out: this user may not mount a small file system");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

fn record(zxid: i64) -> LogRecord {
    let header = TxnHeader { client_id: SessionId(1), zxid: Zxid(zxid), ..TxnHeader::default() };
    let mut payload = Txn { header, body: TxnBody::Error(-101), digest: None }.to_bytes();
    // Bytes behind the digest are not read.
    payload.resize(1000, 1);
    LogRecord { zxid: Zxid(zxid), payload }
}

#[test]
fn a_disk_that_fills_up_loses_nothing_that_was_synced_and_is_used_to_the_end() {
    let Some(disk) = SmallDisk::new(12) else { return };
    let dirs = DataDirs::new(disk.path(), None);
    recover(&dirs, &support::options()).unwrap();
    let mut writer = LogWriter::new(MappedFiles::start(&dirs.logs, 64 << 20, false).unwrap(), true, None);
    let mut synced = 0;
    let error = loop {
        let written = writer.append(&record(synced + 1)).and_then(|()| writer.sync());
        match written {
            Ok(()) => synced += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(synced > 9_000, "only {synced} records of 1 KiB fitted on 12 MiB");
    drop(writer);
    let recovered = recover(&dirs, &support::options()).unwrap();
    assert_eq!(recovered.state.last_zxid(), Zxid(synced));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_told_before_anything_is_acknowledged() {
    let Some(disk) = SmallDisk::new(2) else { return };
    let dirs = DataDirs::new(disk.path(), None);
    recover(&dirs, &support::options()).unwrap();
    fs::write(disk.path().join("other"), vec![1; 1_900_000]).unwrap();
    let mut writer = LogWriter::new(MappedFiles::start(&dirs.logs, 64 << 20, false).unwrap(), true, None);
    assert_eq!(writer.append(&record(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    drop(writer);
    // Once there is room it goes on.
    fs::remove_file(disk.path().join("other")).unwrap();
    recover(&dirs, &support::options()).unwrap();
    let mut writer = LogWriter::new(MappedFiles::start(&dirs.logs, 64 << 20, false).unwrap(), true, None);
    writer.append(&record(1)).and_then(|()| writer.sync()).unwrap();
}

/// Tells [`a_child_whose_log_is_cut`] where to work.
const CHILD_DIR: &str = "ROOKEEPER_TEST_CHILD_DIR";
/// Where it stores, on two pages of which the second is gone.
const STORED_AT: usize = PAGE_BYTES - 333;

/// What it stores, without zeros.
fn stored() -> Vec<u8> {
    (0..900_u32).map(|i| (i % 255) as u8 + 1).collect()
}

#[test]
fn a_log_cut_by_somebody_else_ends_the_process_with_a_message_and_leaves_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "a_child_whose_log_is_cut"])
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(11), "{child:?}");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("the transaction log cannot be written"), "{said}");
    // A store that ends in its midst leaves what recovery takes for the work of a crash.
    let left = fs::read(dir.path().join("log")).unwrap();
    assert_eq!(left[STORED_AT..], stored()[..PAGE_BYTES - STORED_AT]);
}

#[test]
#[ignore = "run as a child by a_log_cut_by_somebody_else_ends_the_process_with_a_message_and_leaves_a_beginning"]
fn a_child_whose_log_is_cut() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    die_politely_on_sigbus().unwrap();
    let path = dir.join("log");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    allocate(&file, 2 * PAGE_BYTES).unwrap();
    let mut log = MappedLog::map(file, &path, 2 * PAGE_BYTES, true).unwrap();
    log.guard();
    File::options().write(true).open(&path).unwrap().set_len(PAGE_BYTES as u64).unwrap();
    log.store(STORED_AT, &stored());
}
