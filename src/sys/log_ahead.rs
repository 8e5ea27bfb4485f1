//! Log files made ahead of need, by a helper thread (`log-ahead`): the next file is allocated, zeroed on disk, synced
//! and mapped before the present one is full, and the pages the txnlog thread will store into next are in memory before
//! it does. Nothing of this waits on the hot path, except for the very first file after a start.
//!
//! The zeroing follows the appending, at such a pace that the next file is there when the present one is half full. So
//! an idle server writes nothing, and a busy one spreads the work evenly. The first file after a start is small, so that
//! the first write does not wait for much, and the next ones grow up to their full size.
//!
//! ```text
//! txnlog thread                         log-ahead thread
//!   take()        <- a ready file --      makes the next
//!   appended(at)  -- now and then -->     loads pages ahead, drops those behind, zeroes on
//!   retire(file)  -- a full file ---->    cuts it behind its last record
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use crate::sys::files::{self, CUT_PAUSE, Cut};
use crate::sys::mapped_log::{self, MappedLog, PAGE_BYTES, Pages, Zeros};

/// Prefix of a log prepared for records to come: `next-log.<n>`.
pub const NEXT_LOG_PREFIX: &str = "next-log.";

/// Smallest file made, bytes, however small `preAllocSize` is: a file every few records would be a burden.
pub const FILE_BYTES_MIN: usize = 1 << 20;
/// The first file after a start, and the smallest after it: room for what one snapshot's worth of records took.
const FIRST_FILE_BYTES: usize = 4 << 20;
/// How much larger than the present file the next one is, up to the full size.
const GROWTH: usize = 4;
/// Largest file made ahead; larger ones only for a larger record. More would be zeroed for nothing at a roll.
const FILE_BYTES_MAX: usize = 1 << 30;
/// Bytes zeroed at once: little enough not to stand in a sync's way.
const ZERO_BYTES: usize = 256 << 10;
/// Bytes of the next file zeroed before the first byte of the present one.
const ZEROED_FIRST_BYTES: usize = 1 << 20;
/// Bytes between two reports of the txnlog thread.
const REPORT_BYTES: usize = 128 << 10;
/// Files that may wait to be cut.
const CUTTING_MAX: usize = 4;
/// Bytes kept loaded in front of the append position: some milliseconds of the highest load.
const LOADED_BYTES: usize = 2 << 20;

enum ToAhead {
    /// Records were stored up to here, and synced.
    Appended(usize),
    /// A file with room for this much is waited for.
    Wanted(usize),
    /// Stores go to this file from now on.
    Current(Pages),
    /// This file is done: cut it here.
    Retire(MappedLog, usize),
}

/// The txnlog thread's end.
pub struct LogAhead {
    to: Option<Sender<ToAhead>>,
    ready: Receiver<io::Result<MappedLog>>,
    thread: Option<JoinHandle<()>>,
    /// Where the next report is due.
    report_at: usize,
}

impl LogAhead {
    /// Starts the helper: it makes the first file at once. `file_bytes` is `preAllocSize`.
    pub fn start(dir: PathBuf, file_bytes: usize) -> io::Result<LogAhead> {
        let (to, from) = unbounded();
        let (ready, taken) = unbounded();
        let file_bytes = file_bytes.clamp(FILE_BYTES_MIN, FILE_BYTES_MAX).next_multiple_of(PAGE_BYTES);
        let helper = Helper {
            dir,
            file_bytes,
            fitting_bytes: file_bytes,
            since_left_early: 0,
            next_bytes: file_bytes.min(FIRST_FILE_BYTES),
            zeros: Zeros::new(ZERO_BYTES),
            made: 0,
            making: None,
            is_ready: false,
            waited_for: None,
            current: None,
            current_bytes: 0,
            cutting: VecDeque::new(),
            appended: 0,
            loaded: 0,
            warned: false,
            ready,
        };
        let thread = thread::Builder::new().name("log-ahead".into()).spawn(move || helper.run(&from))?;
        Ok(LogAhead { to: Some(to), ready: taken, thread: Some(thread), report_at: 0 })
    }

    fn tell(&self, message: ToAhead) {
        // The helper ends only when this end does, or by a panic, which ends the process.
        if let Some(to) = &self.to {
            let _ = to.send(message);
        }
    }

    /// A file with room for `bytes_min` bytes. Waits only if it is not ready.
    pub fn take(&mut self, bytes_min: usize) -> io::Result<MappedLog> {
        loop {
            let ready = match self.ready.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.tell(ToAhead::Wanted(bytes_min));
                    self.ready.recv().map_err(|_| io::Error::other("the log-ahead thread is gone"))?
                }
                other => other.map_err(|_| io::Error::other("the log-ahead thread is gone"))?,
            };
            let log = ready?;
            if log.capacity() >= bytes_min {
                log.guard();
                self.report_at = REPORT_BYTES;
                self.tell(ToAhead::Current(log.pages()));
                return Ok(log);
            }
            // Too small for this record: a larger one is made instead.
            fs::remove_file(log.path())?;
            self.tell(ToAhead::Wanted(bytes_min));
        }
    }

    /// Everything up to `end` of the current file is synced.
    pub fn appended(&mut self, end: usize) {
        if end >= self.report_at {
            self.report_at = end + REPORT_BYTES;
            self.tell(ToAhead::Appended(end));
        }
    }

    /// A synced file that is not stored into any more.
    pub fn retire(&self, log: MappedLog, end: usize) {
        self.tell(ToAhead::Retire(log, end));
    }
}

impl Drop for LogAhead {
    /// Ends the helper, which removes what it had made.
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        while let Ok(Ok(log)) = self.ready.try_recv() {
            let _ = fs::remove_file(log.path());
        }
    }
}

/// What stays is padding, which every reader passes over.
fn warn_uncut(cut: io::Result<()>) {
    if let Err(error) = cut {
        log::warn!("the padding of a log stays: {error}");
    }
}

/// Said once: the file system stays what it is.
fn warn_unmapped(path: &Path, error: &io::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        let dir = files::parent(path).display();
        log::warn!(
            "{dir}: its file system has no writable shared mappings ({error}), so the log is written as a plain file, \
             which is slower; a local disk for dataLogDir (ext4, xfs) is better"
        );
    }
}

/// A file that is being zeroed.
struct Making {
    path: PathBuf,
    file: File,
    /// The same file past the page cache, where that is possible.
    direct: Option<File>,
    bytes: usize,
    zeroed: usize,
}

struct Helper {
    dir: PathBuf,
    /// Bytes of a file at most.
    file_bytes: usize,
    /// Bytes of a file at most, as things are.
    fitting_bytes: usize,
    /// Bytes written since a file was left before it was half full.
    since_left_early: usize,
    /// Bytes of the next file.
    next_bytes: usize,
    zeros: Zeros,
    /// Files begun so far: names the next.
    made: u64,
    making: Option<Making>,
    /// A file was handed over and not taken yet, as far as is known.
    is_ready: bool,
    waited_for: Option<usize>,
    current: Option<Pages>,
    current_bytes: usize,
    /// Files that are being cut behind their last record.
    cutting: VecDeque<Cut>,
    /// How far the current file is stored into.
    appended: usize,
    /// How far its pages are loaded.
    loaded: usize,
    warned: bool,
    ready: Sender<io::Result<MappedLog>>,
}

impl Helper {
    fn run(mut self, from: &Receiver<ToAhead>) {
        loop {
            self.load_ahead();
            let message = match (self.step(), self.cutting.is_empty()) {
                (true, _) => from.try_recv(),
                (false, true) => from.recv().map_err(|_| TryRecvError::Disconnected),
                (false, false) => match from.recv_timeout(CUT_PAUSE) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.cut_on();
                        continue;
                    }
                    other => other.map_err(|_| TryRecvError::Disconnected),
                },
            };
            match message {
                Ok(message) => self.on_message(message),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
        }
        self.cutting.drain(..).for_each(|cut| warn_uncut(cut.finish()));
        if let Some(making) = self.making {
            let _ = fs::remove_file(making.path);
        }
    }

    /// Cuts a bit. It waits for quiet moments; when there are none, files pile up to a bound.
    fn cut_on(&mut self) {
        while self.cutting.len() > CUTTING_MAX {
            self.cutting.pop_front().into_iter().for_each(|cut| warn_uncut(cut.finish()));
        }
        let Some(cut) = self.cutting.front_mut() else { return };
        let more = cut.step();
        if !matches!(more, Ok(true)) {
            self.cutting.pop_front();
        }
        warn_uncut(more.map(drop));
    }

    fn on_message(&mut self, message: ToAhead) {
        match message {
            ToAhead::Appended(end) => {
                if let Some(pages) = &self.current {
                    pages.unload(self.appended, end);
                }
                self.appended = end;
            }
            ToAhead::Wanted(bytes) => {
                self.is_ready = false;
                self.waited_for = Some(bytes);
            }
            ToAhead::Current(pages) => {
                self.is_ready = false;
                self.current_bytes = pages.bytes();
                self.next_bytes = self.current_bytes.saturating_mul(GROWTH).min(self.fitting_bytes);
                self.current = Some(pages);
                self.appended = 0;
                self.loaded = LOADED_BYTES;
            }
            ToAhead::Retire(log, end) => self.retire(log, end),
        }
    }

    fn retire(&mut self, log: MappedLog, end: usize) {
        // A file left early, as at each snapshot, says how much is written from one snapshot to the next.
        self.since_left_early += end;
        if end < log.capacity() / 2 {
            let fitting = self.since_left_early.max(FIRST_FILE_BYTES).next_multiple_of(PAGE_BYTES);
            self.fitting_bytes = fitting.min(self.file_bytes);
            self.since_left_early = 0;
        } else {
            self.fitting_bytes = self.fitting_bytes.saturating_mul(GROWTH).min(self.file_bytes);
        }
        match log.into_cut(end) {
            Ok(cut) => self.cutting.push_back(cut),
            Err(error) => warn_uncut(Err(error)),
        }
        if self.cutting.len() > CUTTING_MAX {
            self.cut_on();
        }
    }

    fn load_ahead(&mut self) {
        if let Some(pages) = &self.current
            && self.loaded < self.appended + LOADED_BYTES
        {
            let to = self.appended + LOADED_BYTES + REPORT_BYTES;
            pages.load(self.loaded, to);
            self.loaded = to;
        }
    }

    /// Does the next bit of work; false when there is none now.
    fn step(&mut self) -> bool {
        if self.is_ready {
            return false;
        }
        match self.make_on() {
            Ok(busy) => busy,
            Err(error) => self.on_failure(error),
        }
    }

    fn make_on(&mut self) -> io::Result<bool> {
        let wanted = self.waited_for.unwrap_or(0).max(self.next_bytes).next_multiple_of(PAGE_BYTES);
        let needed = self.waited_for.unwrap_or(0);
        if let Some(small) = self.making.take_if(|making| making.bytes < needed) {
            fs::remove_file(small.path)?;
        }
        // Before the first file, and while one is waited for, there is nobody to be considerate to.
        let at_once = self.current.is_none() || self.waited_for.is_some();
        let pace = 2 * wanted.div_ceil(self.current_bytes.max(1));
        let due = if at_once { usize::MAX } else { ZEROED_FIRST_BYTES + pace * self.appended };
        let making = match &mut self.making {
            Some(making) => making,
            None => {
                let making = self.begin_within(wanted)?;
                self.making.insert(making)
            }
        };
        if making.zeroed < making.bytes {
            if making.zeroed >= due {
                return Ok(false);
            }
            let part = &self.zeros.get()[..ZERO_BYTES.min(making.bytes - making.zeroed)];
            making.zero(part)?;
            return Ok(true);
        }
        let Some(making) = self.making.take() else { return Ok(false) };
        let log = making.finish()?;
        self.is_ready = true;
        self.waited_for = None;
        self.warned = false;
        let _ = self.ready.send(Ok(log));
        Ok(true)
    }

    /// Begins a file of this size, or on a disk that is nearly full, while somebody waits, of what there is room for.
    fn begin_within(&mut self, wanted: usize) -> io::Result<Making> {
        let least = self.waited_for.map_or(wanted, |needed| needed.max(FILE_BYTES_MIN).next_multiple_of(PAGE_BYTES));
        let mut bytes = wanted;
        loop {
            match self.begin(bytes) {
                Err(error) if files::is_full(&error) && bytes > least => {
                    bytes = (bytes / 2).next_multiple_of(PAGE_BYTES).max(least);
                }
                other => return other,
            }
        }
    }

    fn begin(&mut self, bytes: usize) -> io::Result<Making> {
        let path = self.dir.join(format!("{NEXT_LOG_PREFIX}{}", self.made));
        self.made += 1;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let made = mapped_log::allocate(&file, bytes).and_then(|()| mapped_log::open_direct(&path));
        match made {
            Ok(direct) => Ok(Making { path, file, direct, bytes, zeroed: 0 }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Somebody waits: tell them. Nobody does: try again when more was appended; until then there is room in the
    /// current file.
    fn on_failure(&mut self, error: io::Error) -> bool {
        if let Some(making) = self.making.take() {
            let _ = fs::remove_file(making.path);
        }
        if self.waited_for.take().is_some() {
            let _ = self.ready.send(Err(error));
        } else if !self.warned {
            self.warned = true;
            let advice = files::advice(&error);
            log::warn!(
                "{}: the next log file cannot be made yet: {error}; {advice}. When the present one is full this server ends",
                self.dir.display()
            );
        }
        false
    }
}

impl Making {
    fn zero(&mut self, zeros: &[u8]) -> io::Result<()> {
        let at = self.zeroed as u64;
        match &self.direct {
            Some(direct) => direct.write_all_at(zeros, at)?,
            // Page by page: the page cache then holds single pages.
            None => zeros
                .chunks(PAGE_BYTES)
                .enumerate()
                .try_for_each(|(i, page)| self.file.write_all_at(page, at + (i * PAGE_BYTES) as u64))?,
        }
        self.zeroed += zeros.len();
        Ok(())
    }

    fn finish(self) -> io::Result<MappedLog> {
        self.file.sync_all()?;
        let log = match MappedLog::map(self.file.try_clone()?, &self.path, self.bytes, true) {
            Err(error) if mapped_log::cannot_map(&error) => {
                warn_unmapped(&self.path, &error);
                MappedLog::plain(self.file, &self.path, self.bytes)
            }
            mapped => mapped?,
        };
        log.pages().load(0, LOADED_BYTES);
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::Select;

    fn ahead(file_bytes: usize) -> (tempfile::TempDir, LogAhead) {
        let dir = tempfile::tempdir().unwrap();
        let ahead = LogAhead::start(dir.path().to_owned(), file_bytes).unwrap();
        (dir, ahead)
    }

    #[test]
    fn files_come_zeroed_and_one_after_the_other() {
        let (dir, mut ahead) = ahead(0);
        let first = ahead.take(10).unwrap();
        assert_eq!(first.capacity(), FILE_BYTES_MIN);
        assert!(std::fs::read(first.path()).unwrap().iter().all(|b| *b == 0));
        let second = ahead.take(10).unwrap();
        assert_ne!(first.path(), second.path());
        let path = first.path().to_owned();
        ahead.retire(first, 100);
        drop(ahead);
        assert_eq!(std::fs::metadata(path).unwrap().len(), 100);
        // The two that were taken; what was made and not taken is gone.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_record_larger_than_a_file_gets_a_larger_file() {
        let (_dir, mut ahead) = ahead(FILE_BYTES_MIN);
        let large = ahead.take(3 * FILE_BYTES_MIN + 1).unwrap();
        assert!(large.capacity() > 3 * FILE_BYTES_MIN);
        assert_eq!(ahead.take(10).unwrap().capacity(), FILE_BYTES_MIN);
    }

    #[test]
    fn a_file_that_is_ready_and_too_small_for_a_record_is_not_handed_out() {
        let (dir, mut ahead) = ahead(FILE_BYTES_MIN);
        // Until it is ready: one that is still being made is given up where it is made.
        let mut made = Select::new();
        made.recv(&ahead.ready);
        made.ready();
        let log = ahead.take(FILE_BYTES_MIN + 1).unwrap();
        assert!(log.capacity() > FILE_BYTES_MIN, "{}", log.capacity());
        drop(ahead);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the small one is gone");
    }

    #[test]
    fn a_folder_that_is_gone_is_told_to_who_waits() {
        let (dir, mut ahead) = ahead(FILE_BYTES_MIN);
        drop(ahead.take(10).unwrap());
        // Moved, not removed: the helper may be making a file in it.
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::rename(dir.path(), elsewhere.path().join("moved")).unwrap();
        let failed = (0..3).any(|_| ahead.take(4 * FILE_BYTES_MIN).is_err());
        assert!(failed);
    }
}
