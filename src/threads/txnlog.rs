//! The txnlog thread: takes what is to be logged, syncs once for all that is there ([`crate::engine::txnlog`]), and posts what
//! waited for it, which it does not read. Blocks on its channel and on the disk, nowhere else. Whatever the disk refuses
//! ends the process: what was acknowledged is on disk, and nothing else may be. So does a log or folder that somebody took
//! away: once a second their names are looked up, and what is written into nothing is not acknowledged for longer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use thiserror::Error;

use crate::engine::txnlog::{LogRules, Then, Txnlog};
use crate::ids::Zxid;
use crate::limits;
use crate::mail::{Mail, ToTxnlog};
use crate::storage::dirs::DataDirs;
use crate::storage::names;
use crate::storage::writer::{LogFile, LogFiles};
use crate::sys::clock;
use crate::sys::exit::{ExitCode, fatal};
use crate::sys::files::{self, Dir, Gone, Identity};
use crate::sys::log_ahead::LogAhead;
use crate::sys::mapped_log::{self, MappedLog};
use crate::sys::priority;
use crate::threads::spin::{Spin, receive};

/// How the log is written.
#[derive(Clone, Debug)]
pub struct TxnlogConfig {
    /// What and where.
    pub rules: LogRules,
    /// Bytes of a file, `preAllocSize`.
    pub file_bytes: usize,
    /// `txnLogStore=mmap`, see [`MappedFiles`].
    pub through_mapping: bool,
    /// Whether writes wait for company.
    pub batch: BatchDelay,
}

/// Which writes share a sync (`SyncRequestProcessor.shouldFlush`). By default: all that are there when the last sync is
/// done, and nobody waits for more.
#[derive(Clone, Copy, Debug)]
pub struct BatchDelay {
    /// `flushDelay`: how long the first of them may wait for company.
    pub delay: Duration,
    /// `maxWriteQueuePollTime`: without another write for this long, nobody waits on.
    pub quiet: Duration,
}

/// Between two looks whether log and folders are still there. What is acknowledged meanwhile may be lost with them.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Both folders, as they were when the server started. They are held open: file systems that make up their numbers
/// (overlays, FUSE) keep those of what is open.
#[derive(Debug)]
pub struct Folders(Vec<(PathBuf, File)>);

impl Folders {
    /// They are there.
    pub fn of(dirs: &DataDirs) -> io::Result<Folders> {
        let of = |dir: &Dir| Ok((dir.to_path_buf(), File::open(dir)?));
        [&dirs.logs, &dirs.snapshots].map(of).into_iter().collect::<io::Result<_>>().map(Folders)
    }

    /// Whether they still are; else a [`Gone`].
    fn check(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(dir, open)| Identity::of(&open.metadata()?).check(dir))
    }
}

/// The log cannot be written.
#[derive(Debug, Error)]
#[error("the transaction log in {} cannot be written: {source}; {}. Nothing acknowledged is lost", dir.display(), files::advice(source))]
pub struct TxnlogError {
    /// The folder.
    pub dir: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl TxnlogError {
    /// What an operator is to know, and the code to end with. A start without the data would begin with nothing.
    fn told(&self) -> (ExitCode, String) {
        match Gone::of(&self.source) {
            None => (ExitCode::TxnLog, self.to_string()),
            Some(gone) => (
                ExitCode::DataDir,
                format!(
                    "{gone}. What it would write from now on would be lost, so it ends; writes of the last second may be \
                     lost already. Find out who did that (rm, a job that cleans up, a mount), then put the folder back (mv, \
                     umount) or restore a backup before the next start, which else begins with what it finds. In an \
                     ensemble: copy version-2 away and start with none, and the others fill it"
                ),
            ),
        }
    }
}

/// Files made ahead by a helper, mapped, with the pages that come next in memory. Records are written into those pages
/// by `pwrite`, or stored through the mapping. The latter needs no system call, yet is slower here: before a page that
/// was stored into can be synced, the kernel takes write access from every core that runs a thread of this process.
pub struct MappedFiles {
    dir: PathBuf,
    through_mapping: bool,
    ahead: LogAhead,
}

impl MappedFiles {
    /// Starts the helper.
    pub fn start(dir: &Path, file_bytes: usize, through_mapping: bool) -> io::Result<MappedFiles> {
        mapped_log::die_politely_on_sigbus()?;
        Ok(MappedFiles { dir: dir.to_owned(), through_mapping, ahead: LogAhead::start(dir.to_owned(), file_bytes)? })
    }
}

/// One of [`MappedFiles`].
pub struct MappedFile {
    log: MappedLog,
    through_mapping: bool,
}

impl LogFile for MappedFile {
    fn capacity(&self) -> usize {
        self.log.capacity()
    }

    fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        if self.through_mapping && self.log.is_mapped() {
            self.log.store(at, bytes);
            return Ok(());
        }
        self.log.write(at, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    fn check(&self) -> io::Result<()> {
        self.log.check()
    }
}

impl LogFiles for MappedFiles {
    type File = MappedFile;

    fn next(&mut self, bytes_min: usize) -> io::Result<MappedFile> {
        Ok(MappedFile { log: self.ahead.take(bytes_min)?, through_mapping: self.through_mapping })
    }

    fn publish(&mut self, file: &mut MappedFile, first: Zxid) -> io::Result<()> {
        file.log.rename(self.dir.join(names::log_name(first)))
    }

    fn flushed(&mut self, end: usize) {
        self.ahead.appended(end);
    }

    fn retire(&mut self, file: MappedFile, end: usize) {
        self.ahead.retire(file.log, end);
    }
}

/// The thread's body: ends after `Stop`, or when nobody can send any more. `post` delivers mail and wakes receivers; it
/// is called once a batch.
pub fn run(config: &TxnlogConfig, from: &Receiver<ToTxnlog>, post: impl FnMut(Vec<Mail>)) {
    priority::take_short_turns();
    let open = || MappedFiles::start(&config.rules.dirs.logs, config.file_bytes, config.through_mapping);
    let written = match Folders::of(&config.rules.dirs) {
        Ok(folders) => write_all(config, open, || folders.check(), from, post),
        Err(source) => Err(TxnlogError { dir: config.rules.dirs.logs.to_path_buf(), source }),
    };
    if let Err(error) = written {
        let (code, what) = error.told();
        fatal(code, &what);
    }
}

/// What [`run`] does, over any files, and without ending the process. `open` is called at once, and after each truncation
/// when there is something to append again. `check` looks whether the folders are there.
pub fn write_all<L: LogFiles>(
    config: &TxnlogConfig,
    open: impl FnMut() -> io::Result<L>,
    check: impl Fn() -> io::Result<()>,
    from: &Receiver<ToTxnlog>,
    post: impl FnMut(Vec<Mail>),
) -> Result<(), TxnlogError> {
    let log = Txnlog::new(config.rules.clone(), open);
    let mut thread = Thread { log, check, next_look_us: clock::mono_us(), batch: config.batch, post };
    let written = thread.log.open().and_then(|()| thread.serve(from));
    // Of a folder that is gone other errors are what comes of it.
    let told = written.map_err(|error| thread.look().err().filter(|gone| Gone::of(gone).is_some()).unwrap_or(error));
    told.map_err(|source| TxnlogError { dir: config.rules.dirs.logs.to_path_buf(), source })
}

struct Thread<L: LogFiles, O, C, P> {
    log: Txnlog<L, O>,
    /// Looks whether the folders are there.
    check: C,
    /// When that, and the log, are looked at, monotonic microseconds.
    next_look_us: i64,
    batch: BatchDelay,
    post: P,
}

impl<L: LogFiles, O: FnMut() -> io::Result<L>, C: Fn() -> io::Result<()>, P: FnMut(Vec<Mail>)> Thread<L, O, C, P> {
    fn serve(&mut self, from: &Receiver<ToTxnlog>) -> io::Result<()> {
        let mut spin = Spin::new(limits::SPIN_TXNLOG_US);
        loop {
            let mut mail = match receive(from, &mut spin, LOOK_PAUSE) {
                Ok(mail) => mail,
                Err(RecvTimeoutError::Timeout) => {
                    self.look()?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.log.roll(),
            };
            let begun_us = clock::mono_us();
            loop {
                if !self.log.takes(&mail) {
                    self.sync()?;
                }
                if self.log.on_mail(mail)? == Then::Stop {
                    self.sync()?;
                    return self.log.roll();
                }
                match self.next_of_batch(from, begun_us) {
                    Some(next) => mail = next,
                    None => break,
                }
            }
            self.sync()?;
        }
    }

    /// What else goes into the batch that was begun then; `None`: it is complete.
    fn next_of_batch(&self, from: &Receiver<ToTxnlog>, begun_us: i64) -> Option<ToTxnlog> {
        let BatchDelay { delay, quiet } = self.batch;
        if self.log.is_full() {
            return None;
        }
        if delay.is_zero() {
            return from.try_recv().ok();
        }
        let waited = Duration::from_micros(u64::try_from(clock::mono_us() - begun_us).unwrap_or(0));
        from.recv_timeout(delay.checked_sub(waited)?.min(quiet)).ok()
    }

    /// One sync for the batch, then everything that waited for it.
    fn sync(&mut self) -> io::Result<()> {
        if !self.log.has_batch() {
            return Ok(());
        }
        let begun_us = clock::mono_us();
        self.log.sync()?;
        let done_us = clock::mono_us();
        if done_us >= self.next_look_us {
            self.look()?;
        }
        let posts = self.log.take_posts(begun_us, done_us);
        if !posts.is_empty() {
            (self.post)(posts);
        }
        Ok(())
    }

    /// Looks whether what was synced can be found again: a log or a folder without a name takes all that is written.
    fn look(&mut self) -> io::Result<()> {
        self.next_look_us = clock::mono_us() + LOOK_PAUSE.as_micros() as i64;
        self.log.check()?;
        (self.check)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Dropped, LogRecord, ToPipeline, ToQuorum};
    use crate::storage::logdir::LogReader;
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
        ToTxnlog::Append { records: zxids.map(record).collect(), then, handed_us: 0 }
    }

    fn committed(posted: &[Mail]) -> Vec<i64> {
        let zxid = |mail: &Mail| match mail {
            Mail::Pipeline(ToPipeline::Committed { zxid, .. }) => zxid.0,
            other => panic!("{other:?}"),
        };
        posted.iter().map(zxid).collect()
    }

    #[test]
    fn what_was_posted_can_be_read_back_in_order() {
        [false, true].into_iter().for_each(can_be_read_back);
    }

    fn can_be_read_back(through_mapping: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (to, from) = unbounded();
        for mail in [append(1..=3), append(4..=4), ToTxnlog::Roll, append(5..=900), ToTxnlog::Stop] {
            to.send(mail).unwrap();
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
        mail.into_iter().for_each(|mail| to.send(mail).unwrap());
        let mut said = Vec::new();
        let open = || MappedFiles::start(dir.path(), 1 << 20, false);
        write_all(&config(dir.path()), open, || Ok(()), &from, |mail| said.extend(mail.iter().map(posted))).unwrap();
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
            to.send(mail).unwrap();
        }
        let mut to = Some(to);
        let open = || MappedFiles::start(dir.path(), 1 << 20, false);
        write_all(
            &config(dir.path()),
            open,
            || Ok(()),
            &from,
            |mail| {
                if mail.iter().any(|mail| matches!(mail, Mail::Quorum(_))) {
                    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
                    assert_eq!(names.collect::<Vec<_>>(), ["log.1"]);
                    to = None;
                }
            },
        )
        .unwrap();
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
        [append(1..=6), prepare].into_iter().for_each(|mail| to.send(mail).unwrap());
        let mut to = Some(to);
        let mut turn = 0;
        let open = || MappedFiles::start(dir.path(), 1 << 20, false);
        write_all(
            &config(dir.path()),
            open,
            || Ok(()),
            &from,
            |mail| {
                turn += 1;
                match (turn, committed(&mail)[..].as_ref(), &to) {
                    (1, [6], _) => {}
                    (2, [4], Some(to)) => {
                        std::fs::write(dir.path().join("snapshot.4"), &snapshot).unwrap();
                        to.send(ToTxnlog::FinishInstall { zxid: Zxid(4), then: then() }).unwrap();
                        to.send(append(5..=5)).unwrap();
                    }
                    (3, [4, 5], _) => to = None,
                    (turn, other, _) => panic!("{turn}: {other:?}"),
                }
            },
        )
        .unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log.5", "snapshot.4"]);
    }

    #[test]
    fn what_waited_for_a_sync_is_told_when_it_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let (to, from) = unbounded();
        let then = vec![Mail::Quorum(ToQuorum::Durable { zxid: Zxid(2), at_us: 0 })];
        to.send(append(1..=1)).unwrap();
        to.send(ToTxnlog::Append { records: vec![record(2)], then, handed_us: 0 }).unwrap();
        to.send(ToTxnlog::Stop).unwrap();
        let open = || MappedFiles::start(dir.path(), 1 << 20, false);
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
        write_all(&config(dir.path()), open, || Ok(()), &from, post).unwrap();
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
        to.send(append(1..=2)).unwrap();
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
        to.send(append(1..=1)).unwrap();
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
    fn ended_by(dir: &Path, mut done: impl FnMut(&Sender<ToTxnlog>)) -> String {
        let (to, from) = unbounded();
        let open = || MappedFiles::start(dir, 1 << 20, false);
        to.send(append(1..=1)).unwrap();
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
            [ToTxnlog::Roll, append(2..=2), ToTxnlog::Stop].into_iter().for_each(|mail| to.send(mail).unwrap());
        });
        assert!(posts == 1 && said.contains("log.1 was removed"), "{said}");
    }

    #[test]
    fn where_the_folder_is_gone_that_is_said_and_not_what_comes_of_it() {
        let (to, from) = unbounded();
        to.send(append(1..=2)).unwrap();
        let gone = || Err(io::Error::other(Gone::Away("/data/version-2".into())));
        let error = write_all(&config(Path::new("/data/version-2")), || Ok(Failing), gone, &from, |_| ()).unwrap_err();
        assert!(error.told().1.contains("removed or moved away"), "{error}");
    }
}
