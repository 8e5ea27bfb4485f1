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
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::spin::{Spin, receive};

/// Mail of this thread.
#[derive(Debug)]
pub enum TxnlogMail {
    /// For its core.
    Core(ToTxnlog),
    /// Are you there? Answered once all mail before it is done, synced, and what waited for that is posted.
    HealthCheck(HealthCheck),
}

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
pub fn run(config: &TxnlogConfig, from: &Receiver<TxnlogMail>, post: impl FnMut(Vec<Mail>)) {
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
    from: &Receiver<TxnlogMail>,
    post: impl FnMut(Vec<Mail>),
) -> Result<(), TxnlogError> {
    let log = Txnlog::new(config.rules.clone(), open);
    let mut thread =
        Thread { log, check, health_checks: Vec::new(), next_look_us: clock::mono_us(), batch: config.batch, post };
    let written = thread.log.open().and_then(|()| thread.serve(from));
    // Of a folder that is gone other errors are what comes of it.
    let told = written.map_err(|error| thread.look().err().filter(|gone| Gone::of(gone).is_some()).unwrap_or(error));
    told.map_err(|source| TxnlogError { dir: config.rules.dirs.logs.to_path_buf(), source })
}

struct Thread<L: LogFiles, O, C, P> {
    log: Txnlog<L, O>,
    /// Looks whether the folders are there.
    check: C,
    /// Those that came with the batch.
    health_checks: Vec<HealthCheck>,
    /// When that, and the log, are looked at, monotonic microseconds.
    next_look_us: i64,
    batch: BatchDelay,
    post: P,
}

impl<L: LogFiles, O: FnMut() -> io::Result<L>, C: Fn() -> io::Result<()>, P: FnMut(Vec<Mail>)> Thread<L, O, C, P> {
    fn serve(&mut self, from: &Receiver<TxnlogMail>) -> io::Result<()> {
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
                match mail {
                    TxnlogMail::HealthCheck(check) => self.health_checks.push(check),
                    TxnlogMail::Core(mail) => {
                        if !self.log.takes(&mail) {
                            self.sync()?;
                        }
                        if self.log.on_mail(mail)? == Then::Stop {
                            self.sync()?;
                            return self.log.roll();
                        }
                    }
                }
                match self.next_of_batch(from, begun_us) {
                    Some(next) => mail = next,
                    None => break,
                }
            }
            self.sync()?;
            self.health_checks.drain(..).for_each(|check| check.reply(HealthReport::Alive));
        }
    }

    /// What else goes into the batch that was begun then; `None`: it is complete.
    fn next_of_batch(&self, from: &Receiver<TxnlogMail>, begun_us: i64) -> Option<TxnlogMail> {
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
mod tests;
