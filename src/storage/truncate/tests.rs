//! Histories that are taken back: what stays, and what is refused.

use super::*;
use crate::ids::SessionId;
use crate::storage::txnlog::{END_BYTE, header, prefix};
use crate::txn::{Txn, TxnBody, TxnHeader};
use std::fs;

const RECORD_BYTES_MAX: usize = 1 << 20;

fn log(dir: &Path, zxids: std::ops::RangeInclusive<i64>) {
    let mut bytes = header().to_vec();
    for zxid in zxids.clone() {
        let header = TxnHeader { client_id: SessionId(1), cxid: 0, zxid: Zxid(zxid), time_ms: 0 };
        let payload = Txn { header, body: TxnBody::Error(-1), digest: None }.to_bytes();
        bytes.extend([&prefix(&payload)[..], &payload, &[END_BYTE]].concat());
    }
    bytes.resize(bytes.len() + 10_000, 0);
    fs::write(dir.join(names::log_name(Zxid(*zxids.start()))), bytes).unwrap();
}

#[test]
fn no_more_of_the_logs_is_read_for_the_count_than_a_bound_the_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    [1..=100, 101..=200, 201..=300].into_iter().for_each(|zxids| log(dir.path(), zxids));
    let logs = names::list_logs(&Dir::of_host(dir.path())).unwrap();
    let count = |to, bytes_max| Counted::behind(&Files::host(), &logs, Zxid(to), RECORD_BYTES_MAX, bytes_max);
    let counted = |count, (first, last), is_part, is_open_ended| {
        let extent = Some((Zxid(first), Zxid(last)));
        Counted { count, extent, is_part, is_open_ended }
    };
    let all = counted(300, (1, 300), false, false);
    assert_eq!(count(0, u64::MAX), all);
    assert_eq!((all.to_string(), all.up_to(Zxid(300))), ("300 transactions".into(), "up to 0x12c".into()));
    let newest = count(0, 1);
    assert_eq!(newest, counted(1, (201, 201), true, true));
    assert_eq!(newest.to_string(), "at least 1 transactions");
    assert_eq!(newest.up_to(Zxid(201)), "up to at least 0xc9");
    let one_log = LogFile::open(&Files::host(), logs[2].path.clone(), RECORD_BYTES_MAX).map(|mut file| {
        while file.next_entry().unwrap().is_some() {}
        file.offset()
    });
    let one_log = one_log.unwrap();
    assert_eq!(count(0, one_log + 1), counted(101, (101, 300), true, false));
    assert_eq!(count(0, one_log).count, 100);
    assert!(count(0, one_log).is_part);
    assert_eq!(count(150, u64::MAX).count, 150);
    // What stays is read in any case, and is not counted.
    assert_eq!(count(299, 1), counted(1, (300, 300), true, true));
    assert_eq!(count(300, 1), Counted::default());
    // Whole records behind damage count. How many it has swallowed, nobody knows.
    let whole = fs::read(&logs[2].path).unwrap();
    let mut damaged = whole.clone();
    damaged[one_log as usize / 2] ^= 1;
    fs::write(&logs[2].path, damaged).unwrap();
    let found = count(0, u64::MAX);
    assert_eq!(found, counted(299, (1, 300), true, true));
    assert_eq!(
        (found.to_string(), found.up_to(Zxid(300))),
        ("at least 299 transactions".into(), "up to at least 0x12c".into())
    );
    fs::write(&logs[2].path, b"not a log, but some bytes all the same").unwrap();
    assert_eq!(count(200, u64::MAX).to_string(), "transactions whose number cannot be read");
    fs::write(&logs[2].path, whole).unwrap();
    // What a newer log repeats counts once.
    log(dir.path(), 91..=200);
    fs::remove_file(&logs[1].path).unwrap();
    let logs = names::list_logs(&Dir::of_host(dir.path())).unwrap();
    assert_eq!(Counted::behind(&Files::host(), &logs, Zxid::ZERO, RECORD_BYTES_MAX, u64::MAX), all);
}

#[test]
fn an_announcement_that_is_no_text_moves_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = Dir::of_host(dir.path());
    let name = names::installing_name(Zxid(5));
    fs::write(dir.join(&name), b"cut-1-\xff\n").unwrap();
    let found = names::list_installing(&dir).unwrap();
    let error = announced_folder(&dir, &found, Zxid(5)).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn a_truncation_that_takes_nothing_away_makes_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    fs::create_dir_all(&dirs.logs).unwrap();
    log(&dirs.logs, 1..=100);
    // Nothing that was read told whether there is more.
    let mut away = Away::into(&dirs, Some("cut-65-65".into()));
    away.counted.is_part = true;
    let cut = Step::Cut { path: dirs.logs.join("log.1"), length: 5000 };
    assert_eq!(away.with_folders(vec![cut.clone()]), [cut]);
    let file = names::list_logs(&dirs.logs).unwrap();
    let steps = away.with_folders(away.files(&file));
    assert_eq!(steps[0], Step::MakeFolder(dirs.logs.join("cut-65-65")));
    assert!(steps.len() == 2 && steps[1].keeps(), "{steps:?}");
}

#[test]
fn the_copy_of_a_log_that_was_not_read_is_named_by_no_zxid_behind_its_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    fs::create_dir_all(&dirs.logs).unwrap();
    [1..=100, 101..=200].into_iter().for_each(|zxids| log(&dirs.logs, zxids));
    let away = Away::behind_read(&dirs, Zxid(50), Dropped::Unproven, RECORD_BYTES_MAX, 1).unwrap();
    assert_eq!(away.folder.as_deref(), Some("replaced-33-65"));
    let steps = away.rest_of(&names::list_logs(&dirs.logs).unwrap()[0], 1000, true);
    assert!(matches!(&steps[0], Step::CopyRest { to, .. } if to.ends_with("replaced-33-65/log.33.rest-of-log.1")));
}
