//! The thread of the log over real files: what is posted, and when.

use super::*;
use crate::mail::{Dropped, LogRecord, ToPipeline, ToQuorum};
use crate::storage::logdir::LogReader;
use crate::threads::health::CheckedThread;
use crate::txn::{Txn, TxnBody, TxnHeader};
use crossbeam_channel::{Sender, unbounded};
use std::fs;

fn config(dir: &Path) -> TxnlogConfig {
    let dirs = DataDirs {
        snapshots: Dir::of_host(dir),
        logs: Dir::of_host(dir),
        initialize: dir.join("initialize"),
        give_up: dir.join("give-up-history"),
    };
    TxnlogConfig {
        rules: LogRules {
            dirs,
            record_bytes_max: 1 << 20,
            force_sync: true,
            roll_bytes: None,
            batch_records_max: 0,
            sync_warning_ms: 10_000,
        },
        file_bytes: 1 << 20,
        through_mapping: false,
        batch: BatchDelay { delay: Duration::ZERO, quiet: Duration::ZERO },
    }
}

fn record(zxid: i64) -> LogRecord {
    let header = TxnHeader { zxid: Zxid(zxid), ..TxnHeader::default() };
    let txn = Txn { header, body: TxnBody::Error(-101), digest: None };
    LogRecord { zxid: Zxid(zxid), payload: txn.to_bytes() }
}

fn append(zxids: std::ops::RangeInclusive<i64>) -> ToTxnlog {
    let last = Zxid(*zxids.end());
    let then = vec![Mail::Pipeline(ToPipeline::Committed { zxid: last, at_us: 0, synced: vec![] })];
    ToTxnlog::Append { records: zxids.map(record).collect(), then, sent_us: 0 }
}

fn committed(posted: &[Mail]) -> Vec<i64> {
    let zxid = |mail: &Mail| match mail {
        Mail::Pipeline(ToPipeline::Committed { zxid, .. }) => zxid.0,
        other => panic!("{other:?}"),
    };
    posted.iter().map(zxid).collect()
}

/// Lets the thread work in this folder until nobody sends any more.
fn serve(dir: &Path, from: &Receiver<TxnlogMail>, post: impl FnMut(Vec<Mail>)) {
    write_all(&config(dir), || MappedFiles::start(dir, 1 << 20, false), || Ok(()), from, post).unwrap();
}

#[test]
fn what_was_posted_can_be_read_back_in_order() {
    [false, true].into_iter().for_each(can_be_read_back);
}

fn can_be_read_back(through_mapping: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = unbounded();
    for mail in [append(1..=3), append(4..=4), ToTxnlog::Roll, append(5..=900), ToTxnlog::Stop] {
        to.send(TxnlogMail::Core(mail)).unwrap();
    }
    let mut batches = Vec::new();
    let open = || MappedFiles::start(dir.path(), 1 << 20, through_mapping);
    write_all(&config(dir.path()), open, || Ok(()), &from, |mail| batches.push(committed(&mail))).unwrap();
    assert_eq!(batches, [[3, 4, 900]]);
    let mut logs = LogReader::open(&Dir::of_host(dir.path()), Zxid(1), 1 << 20).unwrap();
    let mut next = 1;
    while let Some(entry) = logs.next_entry().unwrap() {
        assert_eq!(entry.txn.header.zxid, Zxid(next));
        next += 1;
    }
    assert_eq!(next, 901);
    // Both files end behind their last record, and nothing else is left.
    assert!(logs.ends().iter().all(|end| end.offset == end.length));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

fn posted(mail: &Mail) -> String {
    match mail {
        Mail::Pipeline(ToPipeline::Committed { zxid, .. }) => format!("durable {zxid}"),
        Mail::Quorum(ToQuorum::Truncated { to, possible }) => format!("truncated to {to}: {possible}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_a_truncation_the_history_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let next_epoch = 1 << 32 | 1;
    // An empty snapshot, of which only the ends are looked at.
    let snapshot = [&b"ZKSN"[..], &[0; 20], &[0, 0, 0, 1, b'/']].concat();
    std::fs::write(dir.path().join("snapshot.0"), snapshot).unwrap();
    let (to, from) = unbounded();
    let truncate = |to| ToTxnlog::Truncate { to: Zxid(to), dropped: Dropped::Contained };
    let mail = [
        append(1..=3),
        ToTxnlog::Roll,
        append(4..=9),
        truncate(10),
        truncate(5),
        ToTxnlog::Roll,
        truncate(2),
        append(next_epoch..=next_epoch + 1),
        ToTxnlog::Stop,
    ];
    mail.into_iter().for_each(|mail| to.send(TxnlogMail::Core(mail)).unwrap());
    let mut said = Vec::new();
    serve(dir.path(), &from, |mail| said.extend(mail.iter().map(posted)));
    let wanted = [
        "durable 0x3",
        "durable 0x9",
        "truncated to 0xa: false",
        "truncated to 0x5: true",
        "truncated to 0x2: true",
        "durable 0x100000002",
    ];
    assert_eq!(said, wanted);
    let mut logs = LogReader::open(&Dir::of_host(dir.path()), Zxid(1), 1 << 20).unwrap();
    for zxid in [1, 2, next_epoch, next_epoch + 1] {
        assert_eq!(logs.next_entry().unwrap().map(|entry| entry.txn.header.zxid), Some(Zxid(zxid)));
    }
    assert_eq!(logs.next_entry().unwrap(), None);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn once_a_truncation_is_told_no_file_of_the_thread_is_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = unbounded();
    for mail in [append(1..=2), ToTxnlog::Truncate { to: Zxid(2), dropped: Dropped::Contained }] {
        to.send(TxnlogMail::Core(mail)).unwrap();
    }
    let mut to = Some(to);
    serve(dir.path(), &from, |mail| {
        if mail.iter().any(|mail| matches!(mail, Mail::Quorum(_))) {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(names.collect::<Vec<_>>(), ["log.1"]);
            to = None;
        }
    });
    assert!(to.is_none());
}

#[test]
fn a_received_state_replaces_the_logs_once_its_snapshot_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = [&b"ZKSN"[..], &[0; 20], &[0, 0, 0, 1, b'/']].concat();
    std::fs::write(dir.path().join("snapshot.0"), &snapshot).unwrap();
    let (to, from) = unbounded();
    let then = || vec![Mail::Pipeline(ToPipeline::Committed { zxid: Zxid(4), at_us: 0, synced: vec![] })];
    let prepare = ToTxnlog::PrepareInstall { zxid: Zxid(4), dropped: Dropped::Contained, then: then() };
    [append(1..=6), prepare].into_iter().for_each(|mail| to.send(TxnlogMail::Core(mail)).unwrap());
    let mut to = Some(to);
    let mut turn = 0;
    serve(dir.path(), &from, |mail| {
        turn += 1;
        match (turn, committed(&mail)[..].as_ref(), &to) {
            (1, [6], _) => {}
            (2, [4], Some(to)) => {
                std::fs::write(dir.path().join("snapshot.4"), &snapshot).unwrap();
                to.send(TxnlogMail::Core(ToTxnlog::FinishInstall { zxid: Zxid(4), then: then() })).unwrap();
                to.send(TxnlogMail::Core(append(5..=5))).unwrap();
            }
            (3, [4, 5], _) => to = None,
            (turn, other, _) => panic!("{turn}: {other:?}"),
        }
    });
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["log.5", "snapshot.4"]);
}

#[test]
fn what_waited_for_a_sync_is_told_when_it_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = unbounded();
    let then = vec![Mail::Quorum(ToQuorum::Durable { zxid: Zxid(2), at_us: 0 })];
    to.send(TxnlogMail::Core(append(1..=1))).unwrap();
    to.send(TxnlogMail::Core(ToTxnlog::Append { records: vec![record(2)], then, sent_us: 0 })).unwrap();
    to.send(TxnlogMail::Core(ToTxnlog::Stop)).unwrap();
    let begun_us = clock::mono_us();
    let mut times = Vec::new();
    let post = |mail: Vec<Mail>| {
        times.extend(mail.into_iter().map(|mail| match mail {
            Mail::Pipeline(ToPipeline::Committed { at_us, .. }) | Mail::Quorum(ToQuorum::Durable { at_us, .. }) => {
                at_us
            }
            other => panic!("{other:?}"),
        }));
    };
    serve(dir.path(), &from, post);
    // One sync for both.
    assert!(times.len() == 2 && times[0] == times[1], "{times:?}");
    assert!((begun_us..=clock::mono_us()).contains(&times[0]), "{times:?}");
}

/// Files whose sync fails.
struct Failing;
struct FailingFile(Vec<u8>);

impl LogFile for FailingFile {
    fn capacity(&self) -> usize {
        self.0.len()
    }
    fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

impl LogFiles for Failing {
    type File = FailingFile;
    fn next(&mut self, _bytes_min: usize) -> io::Result<FailingFile> {
        Ok(FailingFile(vec![0; 1 << 16]))
    }
    fn publish(&mut self, _file: &mut FailingFile, _first: Zxid) -> io::Result<()> {
        Ok(())
    }
    fn flushed(&mut self, _end: usize) {}
    fn retire(&mut self, _file: FailingFile, _end: usize) {}
}

#[test]
fn a_failed_sync_ends_the_thread_and_posts_nothing() {
    let dir = Path::new("/data/version-2");
    let (to, from) = unbounded();
    to.send(TxnlogMail::Core(append(1..=2))).unwrap();
    let posted = |mail: Vec<Mail>| panic!("posted {mail:?}");
    let error = write_all(&config(dir), || Ok(Failing), || Ok(()), &from, posted).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::EIO));
    assert!(error.to_string().contains("/data/version-2"), "{error}");
}

#[test]
fn what_was_written_into_a_folder_that_is_gone_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = unbounded();
    let mut posts = 0;
    let (gone, place) = (std::cell::Cell::new(false), dir.path().join("version-2"));
    let check = || if gone.get() { Err(io::Error::other(Gone::Away(place.clone()))) } else { Ok(()) };
    let open = || MappedFiles::start(dir.path(), 1 << 20, false);
    to.send(TxnlogMail::Core(append(1..=1))).unwrap();
    let error = write_all(&config(dir.path()), open, check, &from, |_| {
        posts += 1;
        gone.set(true);
    })
    .unwrap_err();
    // Nothing else came: it was noticed all the same.
    assert_eq!(posts, 1);
    let (code, what) = error.told();
    assert_eq!(code, ExitCode::DataDir);
    assert!(what.contains("version-2 was removed or moved away") && what.contains("restore a backup"), "{what}");
}

#[test]
fn folders_are_known_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    dirs.prepare(true).unwrap();
    let folders = Folders::of(&dirs).unwrap();
    folders.check().unwrap();
    fs::write(dirs.logs.join("log.1"), b"").unwrap();
    folders.check().unwrap();
    fs::rename(&dirs.logs, dir.path().join("elsewhere")).unwrap();
    assert!(Gone::of(&folders.check().unwrap_err()).is_some());
    dirs.prepare(true).unwrap();
    assert!(Gone::of(&folders.check().unwrap_err()).is_some(), "it is another one");
}

/// What ends the thread that has logged transaction 1, when this is done as soon as that is durable.
fn ended_by(dir: &Path, mut done: impl FnMut(&Sender<TxnlogMail>)) -> String {
    let (to, from) = unbounded();
    let open = || MappedFiles::start(dir, 1 << 20, false);
    to.send(TxnlogMail::Core(append(1..=1))).unwrap();
    let written = write_all(&config(dir), open, || Ok(()), &from, |_| done(&to));
    written.unwrap_err().told().1
}

#[test]
fn a_log_that_is_removed_or_cut_ends_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.1");
    let said = ended_by(dir.path(), |_| fs::File::options().write(true).open(&log).unwrap().set_len(4096).unwrap());
    assert!(said.contains("log.1 was ") && said.contains("4096 bytes"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let said = ended_by(dir.path(), |_| fs::remove_file(dir.path().join("log.1")).unwrap());
    assert!(said.contains("log.1 was removed"), "{said}");
}

#[test]
fn a_log_that_is_removed_is_missed_also_when_the_next_one_begins_before_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut posts = 0;
    let said = ended_by(dir.path(), |to| {
        posts += 1;
        fs::remove_file(dir.path().join("log.1")).unwrap();
        [ToTxnlog::Roll, append(2..=2), ToTxnlog::Stop]
            .into_iter()
            .for_each(|mail| to.send(TxnlogMail::Core(mail)).unwrap());
    });
    assert!(posts == 1 && said.contains("log.1 was removed"), "{said}");
}

#[test]
fn where_the_folder_is_gone_that_is_said_and_not_what_comes_of_it() {
    let (to, from) = unbounded();
    to.send(TxnlogMail::Core(append(1..=2))).unwrap();
    let gone = || Err(io::Error::other(Gone::Away("/data/version-2".into())));
    let error = write_all(&config(Path::new("/data/version-2")), || Ok(Failing), gone, &from, |_| ()).unwrap_err();
    assert!(error.told().1.contains("removed or moved away"), "{error}");
}

#[test]
fn a_health_check_is_answered_once_all_before_it_is_posted() {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = unbounded();
    let (reply_to, reply) = unbounded();
    let check = HealthCheck { thread: CheckedThread::Txnlog, reply_to };
    let mail = [TxnlogMail::Core(append(1..=2)), TxnlogMail::HealthCheck(check), TxnlogMail::Core(append(3..=3))];
    mail.into_iter().for_each(|mail| to.send(mail).unwrap());
    drop(to);
    let mut said = Vec::new();
    let post = |mail: Vec<Mail>| {
        assert!(reply.is_empty());
        said.extend(committed(&mail));
    };
    serve(dir.path(), &from, post);
    assert_eq!(said, [2, 3]);
    assert_eq!(reply.try_recv().unwrap().report, HealthReport::Alive);
}
