//! Appends records to log files: which file, when to begin the next, in which order things become durable. Pure but for
//! the [`LogFiles`] it is given; the txnlog thread gives it real ones, tests give it ones that fail.
//!
//! Order, told once. (1) Records of a batch are stored, in one file or, when it fills up, in two. (2) The older file is
//! synced. (3) The newer one is synced under its working name, header and all. (4) It gets its name, `log.<zxid>`, and
//! the folder is synced. (5) The batch is durable. So a visible log always has its header and its first record, and no
//! log is visible whose predecessor lacks records.

use std::io;

use crate::ids::Zxid;
use crate::limits::{LOG_BATCH_BYTES_MAX, LOG_BATCH_RECORDS_MAX};
use crate::mail::LogRecord;
use crate::storage::txnlog::{self, END_BYTE, FRAME_BYTES, HEADER_BYTES};

/// A batch of ordinary size reuses its memory; a huge one gives it back.
const BATCH_BYTES_KEPT: usize = 1 << 20;

/// One preallocated file.
pub trait LogFile {
    /// Bytes it holds.
    fn capacity(&self) -> usize;
    /// Puts bytes into it, within the capacity. Interrupted, it leaves a prefix of them.
    fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything stored durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Whether it still is the file that it was when it got its name.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Where files come from and go to.
pub trait LogFiles {
    /// A file of theirs.
    type File: LogFile;
    /// A zeroed file with room for at least `bytes_min`, under a name that nobody reads.
    fn next(&mut self, bytes_min: usize) -> io::Result<Self::File>;
    /// Gives the file its name, durably. The name must be free.
    fn publish(&mut self, file: &mut Self::File, first: Zxid) -> io::Result<()>;
    /// Everything up to `end` of the current file is on its way, or durable: the pages are not needed again.
    fn flushed(&mut self, end: usize);
    /// A file that ends at `end` and is written no more.
    fn retire(&mut self, file: Self::File, end: usize);
}

/// The file that is appended to.
struct Current<F> {
    file: F,
    /// What is appended and not yet stored: one store a batch, since each costs a system call.
    batch: Vec<u8>,
    /// Its records.
    records: usize,
    /// Where the batch goes.
    stored: usize,
    first: Zxid,
    /// Has its name.
    published: bool,
    /// How far it is synced.
    synced: usize,
}

impl<F> Current<F> {
    /// Behind the last record.
    fn end(&self) -> usize {
        self.stored + self.batch.len()
    }

    /// Whether a record of this size is too much for the batch. One that is larger than any batch goes alone.
    fn is_full_for(&self, bytes: usize) -> bool {
        self.records == LOG_BATCH_RECORDS_MAX || (self.records > 0 && self.batch.len() + bytes > LOG_BATCH_BYTES_MAX)
    }
}

/// Appends records.
pub struct LogWriter<L: LogFiles> {
    files: L,
    current: Option<Current<L::File>>,
    force_sync: bool,
    roll_bytes: Option<usize>,
}

impl<L: LogFiles> LogWriter<L> {
    /// A writer whose first record opens a file. `force_sync` is `zookeeper.forceSync`; `roll_bytes` is
    /// `txnLogSizeLimitInKb`.
    pub fn new(files: L, force_sync: bool, roll_bytes: Option<usize>) -> LogWriter<L> {
        LogWriter { files, current: None, force_sync, roll_bytes }
    }

    /// Adds a record to the batch; durable after the next [`LogWriter::sync`]. A batch that is full is synced before, so that
    /// no more than one batch is ever written and not synced: recovery counts on it (`tail`). An error is final.
    pub fn append(&mut self, record: &LogRecord) -> io::Result<()> {
        let bytes = FRAME_BYTES + record.payload.len();
        if self.current.as_ref().is_some_and(|current| current.file.capacity() - current.end() < bytes) {
            self.roll()?;
        }
        if self.current.as_ref().is_some_and(|current| current.is_full_for(bytes)) {
            self.flush(self.force_sync)?;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let file = self.files.next(HEADER_BYTES + bytes)?;
                let batch = txnlog::header().to_vec();
                self.current.insert(Current {
                    file,
                    batch,
                    records: 0,
                    stored: 0,
                    first: record.zxid,
                    published: false,
                    synced: 0,
                })
            }
        };
        current.batch.extend_from_slice(&txnlog::prefix(&record.payload));
        current.batch.extend_from_slice(&record.payload);
        current.batch.push(END_BYTE);
        current.records += 1;
        Ok(())
    }

    /// Makes everything appended durable. An error is final.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush(self.force_sync)?;
        if self.current.as_ref().is_some_and(|current| self.roll_bytes.is_some_and(|limit| current.end() > limit)) {
            self.roll()?;
        }
        Ok(())
    }

    /// Whether the file that has a name is still there, and whole.
    pub fn check(&self) -> io::Result<()> {
        self.current.as_ref().filter(|current| current.published).map_or(Ok(()), |current| current.file.check())
    }

    /// The next record opens a new file. The old one is synced even without `forceSync`: a hole between two files would
    /// keep the server from starting again. It is looked at once more, since nobody looks at it again: files may be full
    /// sooner than the next look comes.
    pub fn roll(&mut self) -> io::Result<()> {
        self.flush(true)?;
        self.check()?;
        if let Some(current) = self.current.take() {
            self.files.retire(current.file, current.stored);
        }
        Ok(())
    }

    fn flush(&mut self, force_sync: bool) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.synced == current.end() {
            return Ok(());
        }
        current.file.store(current.stored, &current.batch)?;
        current.stored += current.batch.len();
        current.batch.clear();
        current.records = 0;
        current.batch.shrink_to(BATCH_BYTES_KEPT);
        // A file without a durable header must not be seen, whatever forceSync says.
        if force_sync || !current.published {
            current.file.sync()?;
            current.synced = current.stored;
        }
        if !current.published {
            self.files.publish(&mut current.file, current.first)?;
            current.published = true;
        }
        self.files.flushed(current.stored);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// What happened to the files, in order.
    #[derive(Default)]
    struct Story {
        events: Vec<String>,
        /// The call that fails, counted from 1.
        failing: Option<usize>,
        calls: usize,
        files: usize,
    }

    type Shared = Rc<RefCell<Story>>;

    fn happen(story: &Shared, what: String) -> io::Result<()> {
        let mut story = story.borrow_mut();
        story.calls += 1;
        if story.failing == Some(story.calls) {
            return Err(io::Error::other("no"));
        }
        story.events.push(what);
        Ok(())
    }

    struct FakeFile {
        id: usize,
        bytes: Vec<u8>,
        story: Shared,
    }

    impl LogFile for FakeFile {
        fn capacity(&self) -> usize {
            self.bytes.len()
        }
        fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            happen(&self.story, format!("sync {}", self.id))
        }
    }

    struct FakeFiles {
        capacity: usize,
        story: Shared,
    }

    impl LogFiles for FakeFiles {
        type File = FakeFile;
        fn next(&mut self, bytes_min: usize) -> io::Result<FakeFile> {
            let id = self.story.borrow().files;
            self.story.borrow_mut().files += 1;
            happen(&self.story, format!("next {id}"))?;
            Ok(FakeFile { id, bytes: vec![0; self.capacity.max(bytes_min)], story: Rc::clone(&self.story) })
        }
        fn publish(&mut self, file: &mut FakeFile, first: Zxid) -> io::Result<()> {
            happen(&self.story, format!("publish {} {first}", file.id))
        }
        fn flushed(&mut self, _end: usize) {}
        fn retire(&mut self, file: FakeFile, end: usize) {
            assert!(file.bytes[end..].iter().all(|b| *b == 0));
            self.story.borrow_mut().events.push(format!("retire {} {end}", file.id));
        }
    }

    fn writer(capacity: usize, failing: Option<usize>) -> (Shared, LogWriter<FakeFiles>) {
        let story = Rc::new(RefCell::new(Story { failing, ..Story::default() }));
        let files = FakeFiles { capacity, story: Rc::clone(&story) };
        (story, LogWriter::new(files, true, None))
    }

    fn record(zxid: i64, bytes: usize) -> LogRecord {
        LogRecord { zxid: Zxid(zxid), payload: vec![1; bytes] }
    }

    #[test]
    fn a_full_file_is_synced_before_the_next_one_is_seen() {
        let (story, mut writer) = writer(100, None);
        writer.append(&record(1, 40)).unwrap();
        writer.append(&record(2, 40)).unwrap();
        writer.append(&record(3, 40)).unwrap();
        writer.sync().unwrap();
        writer.sync().unwrap();
        assert_eq!(
            story.borrow().events,
            [
                "next 0",
                "sync 0",
                "publish 0 0x1",
                "retire 0 69",
                "next 1",
                "sync 1",
                "publish 1 0x2",
                "retire 1 69",
                "next 2",
                "sync 2",
                "publish 2 0x3"
            ]
        );
    }

    #[test]
    fn a_record_that_just_fits_needs_no_new_file() {
        let (story, mut writer) = writer(HEADER_BYTES + 2 * (FRAME_BYTES + 10), None);
        writer.append(&record(1, 10)).unwrap();
        writer.append(&record(2, 10)).unwrap();
        writer.sync().unwrap();
        assert_eq!(story.borrow().files, 1);
        writer.append(&record(3, 1)).unwrap();
        assert_eq!(story.borrow().files, 2);
    }

    #[test]
    fn any_call_that_fails_is_told_at_once() {
        for failing in 1..=6 {
            let (_, mut writer) = writer(60, Some(failing));
            let failed = (1..4).any(|zxid| writer.append(&record(zxid, 20)).is_err() || writer.sync().is_err());
            assert!(failed, "call {failing}");
        }
    }

    #[test]
    fn no_more_than_one_batch_is_ever_unsynced() {
        let synced_at = |records: &[usize]| -> Vec<usize> {
            let (story, mut writer) = writer(64 << 20, None);
            let mut synced_at = Vec::new();
            for (at, bytes) in records.iter().enumerate() {
                let before = story.borrow().events.iter().filter(|event| event.starts_with("sync")).count();
                writer.append(&record(at as i64 + 1, *bytes)).unwrap();
                if story.borrow().events.iter().filter(|event| event.starts_with("sync")).count() > before {
                    synced_at.push(at);
                }
            }
            synced_at
        };
        assert_eq!(synced_at(&[10; 2500]), [1000, 2000]);
        let quarter = LOG_BATCH_BYTES_MAX / 4;
        assert_eq!(synced_at(&[quarter; 8]), [3, 6]);
        // Up to the bound, and not a byte more.
        let rest = LOG_BATCH_BYTES_MAX - HEADER_BYTES - 2 * FRAME_BYTES - 10;
        assert_eq!((synced_at(&[10, rest]), synced_at(&[10, rest + 1])), (vec![], vec![1]));
        // A record beyond the bound is a batch of its own.
        assert_eq!(synced_at(&[10, 3 * LOG_BATCH_BYTES_MAX, 10, 10]), [1, 2]);
    }

    #[test]
    fn a_roll_without_records_makes_no_file() {
        let (story, mut writer) = writer(100, None);
        writer.roll().unwrap();
        writer.append(&record(1, 10)).unwrap();
        writer.roll().unwrap();
        writer.roll().unwrap();
        assert_eq!(story.borrow().events, ["next 0", "sync 0", "publish 0 0x1", "retire 0 39"]);
    }

    #[test]
    fn a_size_limit_rolls_after_the_sync() {
        let (story, mut writer) = writer(1000, None);
        writer.roll_bytes = Some(60);
        for zxid in 1..=3 {
            writer.append(&record(zxid, 20)).unwrap();
            writer.sync().unwrap();
        }
        assert_eq!(story.borrow().files, 2);
    }

    #[test]
    fn a_file_as_large_as_the_limit_is_not_too_large() {
        let (story, mut writer) = writer(1000, None);
        writer.roll_bytes = Some(HEADER_BYTES + FRAME_BYTES + 20);
        writer.append(&record(1, 20)).unwrap();
        writer.sync().unwrap();
        assert_eq!(story.borrow().events.len(), 3, "it is not retired");
    }

    #[test]
    fn without_force_sync_a_file_is_synced_before_it_is_seen_and_before_the_next_one() {
        let (story, mut writer) = writer(1000, None);
        writer.force_sync = false;
        for zxid in 1..=3 {
            writer.append(&record(zxid, 20)).unwrap();
            writer.sync().unwrap();
        }
        assert_eq!(story.borrow().events, ["next 0", "sync 0", "publish 0 0x1"]);
        writer.roll().unwrap();
        assert_eq!(story.borrow().events[3..], ["sync 0", "retire 0 115"]);
    }
}
