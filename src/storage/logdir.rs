//! Reads the logs of a directory as one sequence of records, from a zxid on (`FileTxnLog.FileTxnIterator`). Used by
//! recovery, and by whoever must send old transactions to a peer; single files also by `inspect`. It judges single files by
//! their grammar, and passes over what `repeats` proves to be logged twice; what a tear or a gap between files means is
//! `recover`'s to say.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ids::Zxid;
use crate::mail::LogRecord;
use crate::quorum::LogPart;
use crate::storage::dirs::DataDirs;
use crate::storage::names::{self, Found};
use crate::storage::repeats::Seen;
use crate::storage::tail::{self, Place, Tail, Written};
use crate::storage::txnlog::{self, Damage, Parsed, Start, Tear};
use crate::sys::file_system::OpenFile;
use crate::sys::files::{self, Dir, Files};
use crate::txn::{Txn, TxnError};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Why a log cannot be read on.
#[derive(Debug, Error)]
pub enum LogError {
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that no crash leaves behind.
    #[error("{} is damaged at offset {offset}: {damage} (last good record before it: {last})", path.display(), last = show(*last_good))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// The last readable record of the file.
        last_good: Option<Zxid>,
        /// What is wrong.
        damage: Damage,
    },
    /// A record whose checksum is right and whose content makes no sense.
    #[error("{} holds a record at offset {offset} that cannot be understood: {error} (last good record before it: {last})", path.display(), last = show(*last_good))]
    NotATxn {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The last readable record of the file.
        last_good: Option<Zxid>,
        /// What is wrong.
        error: TxnError,
    },
}

impl LogError {
    /// What is wrong, without the place.
    pub fn what(&self) -> String {
        match self {
            LogError::Io { source, .. } => source.to_string(),
            LogError::Damaged { damage, .. } => damage.to_string(),
            LogError::NotATxn { error, .. } => error.to_string(),
        }
    }
}

/// A zxid or "none", for messages.
pub fn show(zxid: Option<Zxid>) -> String {
    zxid.map_or_else(|| "none".into(), |z| z.to_string())
}

/// How a file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Right behind a record, or at zeros (whether only zeros follow was not looked at).
    Clean,
    /// Inside a record.
    Torn(Tear),
    /// It has no header: its server died before it wrote any of it.
    Unfinished,
    /// At damage, behind which nothing is needed.
    Damaged,
}

/// A log that was read to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEnd {
    /// The file.
    pub path: PathBuf,
    /// Behind the last good record (or the header).
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Its last record.
    pub last: Option<Zxid>,
    /// How it ended.
    pub ending: Ending,
    /// Its records that repeat earlier ones of the sequence.
    pub repeats: u64,
}

/// What [`LogReader::step`] comes to.
#[derive(Debug)]
pub enum Step {
    /// A transaction.
    Entry(Entry),
    /// The end of a file, or what looks like it.
    End,
    /// What is no record, and not the end of a file either.
    Broken(LogError),
    /// The end of the last file.
    Done,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The transaction.
    pub txn: Txn,
    /// Where it begins in its file.
    pub offset: u64,
    /// Whether it is the first of its file.
    pub first: bool,
}

/// Whether the transaction `next` may stand right behind `last`: the next of the epoch, or the first of a later one.
pub fn follows(last: Zxid, next: Zxid) -> bool {
    next == last.next() || (next.epoch() > last.epoch() && next.counter() <= 1)
}

/// The logs that hold transactions from `from` on: every one whose name says so, and the one before.
pub fn select(logs: Vec<Found>, from: Zxid) -> Vec<Found> {
    let mut exact_or_alone: Vec<Found> = Vec::with_capacity(logs.len());
    for log in logs {
        match exact_or_alone.last() {
            Some(kept) if kept.zxid == log.zxid => {
                log::warn!("{} is not read: {} is the log of {}", log.path.display(), kept.name, log.zxid);
            }
            _ => exact_or_alone.push(log),
        }
    }
    let reaching = exact_or_alone.iter().rposition(|log| log.zxid < from).unwrap_or(0);
    exact_or_alone.split_off(reaching)
}

/// Reads record after record, over all files.
#[derive(Debug)]
pub struct LogReader {
    files: Files,
    waiting: VecDeque<Found>,
    current: Option<LogFile>,
    ends: Vec<FileEnd>,
    from: Zxid,
    /// `from`, or what stands in its place, was met.
    reached: bool,
    seen: Seen,
    record_bytes_max: usize,
}

impl LogReader {
    /// The transactions from `from` on. `record_bytes_max`: `jute.maxbuffer` and its slack.
    pub fn open(dir: &Dir, from: Zxid, record_bytes_max: usize) -> Result<LogReader, LogError> {
        let logs = names::list_logs(dir).map_err(|source| LogError::Io { path: dir.to_path_buf(), source })?;
        let waiting = VecDeque::from(select(logs, from));
        let (ends, seen) = (Vec::new(), Seen::default());
        Ok(LogReader {
            files: dir.files.clone(),
            waiting,
            current: None,
            ends,
            from,
            reached: false,
            seen,
            record_bytes_max,
        })
    }

    /// Without the files in front of the one that begins with `from`: none of them is needed, and they may be damaged.
    fn begin_with_its_file(&mut self) {
        let its_file = self.waiting.iter().position(|log| log.zxid == self.from).unwrap_or(0);
        self.waiting.drain(..its_file);
    }

    /// The next transaction. Those in front of the first one asked for are checked and passed over, and so are repeats; any
    /// other lower one behind it is given as it stands.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        loop {
            match self.step() {
                Step::Entry(entry) => return Ok(Some(entry)),
                Step::End => self.leave(),
                Step::Broken(error) => return Err(error),
                Step::Done => return Ok(None),
            }
        }
    }

    /// The transactions from this one to that one, both included, if they are the next here.
    pub fn next_run(&mut self, from: Zxid, to: Zxid) -> Result<Option<Vec<LogRecord>>, LogError> {
        let mut records = Vec::new();
        while let Some(entry) = self.next_entry()? {
            let zxid = entry.txn.header.zxid;
            if (records.is_empty() && zxid != from) || zxid > to {
                return Ok(None);
            }
            records.push(LogRecord { zxid, payload: self.payload().to_vec() });
            if zxid == to {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    /// The same for who decides where to go on when a file cannot be read on: with [`leave`](LogReader::leave) or
    /// [`skip_to`](LogReader::skip_to).
    pub fn step(&mut self) -> Step {
        let mut begun = Ok(());
        let file = match &mut self.current {
            Some(file) => file,
            None => {
                let Some(found) = self.waiting.pop_front() else { return Step::Done };
                let file = match LogFile::new(&self.files, found.path, self.record_bytes_max) {
                    Ok(file) => self.current.insert(file),
                    Err(error) => return Step::Broken(error),
                };
                begun = file.begin();
                file
            }
        };
        if let Err(error) = begun {
            return Step::Broken(error);
        }
        loop {
            match file.next_entry() {
                Ok(Some(entry)) if self.seen.is_repeat(&entry.txn, file.payload()) => file.repeats += 1,
                Ok(Some(entry)) if !self.reached && entry.txn.header.zxid < self.from => {}
                Ok(Some(entry)) => {
                    self.reached = true;
                    return Step::Entry(entry);
                }
                Ok(None) => return Step::End,
                Err(error) => return Step::Broken(error),
            }
        }
    }

    /// Goes on with the next file.
    pub fn leave(&mut self) {
        self.ends.extend(self.current.take().map(LogFile::into_end));
    }

    /// Goes on in this file, at this offset.
    pub fn skip_to(&mut self, offset: u64) {
        if let Some(file) = &mut self.current {
            file.skip_to(offset);
        }
    }

    /// The file that is being read.
    pub fn file(&self) -> Option<&LogFile> {
        self.current.as_ref()
    }

    /// By its name, the first transaction of the next file that holds any.
    pub fn next_file(&self) -> Option<Zxid> {
        let holds_any = |found: &&Found| {
            let Ok(mut file) = LogFile::new(&self.files, found.path.clone(), self.record_bytes_max) else {
                return false;
            };
            file.begin().is_ok() && matches!(file.next_entry(), Ok(Some(_))) || file.find_next().unwrap_or(false)
        };
        self.waiting.iter().find(holds_any).map(|found| found.zxid)
    }

    /// Reads on to the end of all files, past whatever cannot be read: how many whole records there are, and the last.
    pub fn count_rest(&mut self) -> (u64, Option<Zxid>) {
        let (mut records, mut last) = (0, None);
        loop {
            match self.step() {
                Step::Entry(entry) => {
                    records += 1;
                    last = last.max(Some(entry.txn.header.zxid));
                }
                Step::End | Step::Broken(_) => {
                    if !self.current.as_mut().is_some_and(|file| file.find_next().unwrap_or(false)) {
                        self.leave();
                    }
                }
                Step::Done => return (records, last),
            }
        }
    }

    /// The transaction of the last entry, as it stands in the file.
    pub fn payload(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], LogFile::payload)
    }

    /// The file of the last entry.
    pub fn path(&self) -> &Path {
        self.current.as_ref().map_or(Path::new(""), |file| &file.path)
    }

    /// The files read to their end so far, in order.
    pub fn ends(&self) -> &[FileEnd] {
        &self.ends
    }
}

/// Reads transactions back that were let go of memory, part after part, each of them synced.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// Where the last part ended, and the transaction that comes next there.
    reader: Option<(Zxid, LogReader)>,
}

impl ReadBack {
    /// The transactions from this one to that one, both included, if they are there.
    pub fn read(
        &mut self,
        dir: &Dir,
        from: Zxid,
        to: Zxid,
        record_bytes_max: usize,
    ) -> Result<Option<Vec<LogRecord>>, LogError> {
        // Where the last part ended, if this one goes on there: a log may be long. But it read ahead, and may have seen
        // there what was not written yet.
        let reader = self.reader.take().filter(|(next, _)| *next == from);
        let goes_on = reader.and_then(|(_, mut reader)| Some((reader.next_run(from, to).ok()??, reader)));
        let (records, reader) = match goes_on {
            Some(read) => read,
            None => {
                let mut reader = LogReader::open(dir, from, record_bytes_max)?;
                reader.begin_with_its_file();
                let Some(records) = reader.next_run(from, to)? else { return Ok(None) };
                (records, reader)
            }
        };
        self.reader = Some((to.next(), reader));
        Ok(Some(records))
    }

    /// The log is about to be cut or replaced: what was read ahead may not be what comes there now.
    pub fn forget(&mut self) {
        self.reader = None;
    }
}

/// One log file, read record by record to its end.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Box<dyn OpenFile>,
    length: u64,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are parsed.
    used: usize,
    /// The last entry's payload, in `buffer`.
    payload: Range<usize>,
    /// File offset of `buffer[used]`.
    offset: u64,
    last: Option<Zxid>,
    repeats: u64,
    ending: Option<Ending>,
    record_bytes_max: usize,
}

impl LogFile {
    /// Opens it and judges its beginning. `record_bytes_max`: `jute.maxbuffer` and its slack.
    pub fn open(files: &Files, path: PathBuf, record_bytes_max: usize) -> Result<LogFile, LogError> {
        let mut log = LogFile::new(files, path, record_bytes_max)?;
        log.begin()?;
        Ok(log)
    }

    fn new(files: &Files, path: PathBuf, record_bytes_max: usize) -> Result<LogFile, LogError> {
        let io = |source| LogError::Io { path: path.clone(), source };
        let file = files.open(&path).map_err(io)?;
        let length = file.length().map_err(io)?;
        Ok(LogFile {
            path,
            file,
            length,
            buffer: Vec::new(),
            used: 0,
            payload: 0..0,
            offset: 0,
            last: None,
            repeats: 0,
            ending: None,
            record_bytes_max,
        })
    }

    fn begin(&mut self) -> Result<(), LogError> {
        self.fill(txnlog::HEADER_BYTES)?;
        let first = &self.buffer[..self.buffer.len().min(txnlog::HEADER_BYTES)];
        match txnlog::start(first) {
            Start::Header => self.advance(txnlog::HEADER_BYTES),
            Start::Unfinished { whole: false } => self.ending = Some(Ending::Unfinished),
            Start::Unfinished { whole: true } if self.only_zeros_follow()? => self.ending = Some(Ending::Unfinished),
            Start::Unfinished { whole: true } | Start::Foreign => return Err(self.damaged(Damage::BadMagic)),
        }
        Ok(())
    }

    /// Goes on at this offset, at which a record begins.
    pub fn skip_to(&mut self, offset: u64) {
        self.buffer.clear();
        (self.used, self.payload, self.offset, self.ending) = (0, 0..0, offset, None);
    }

    /// Goes on at the next whole record behind the place where it cannot be read on; false if there is none.
    pub fn find_next(&mut self) -> Result<bool, LogError> {
        let io = |source| LogError::Io { path: self.path.clone(), source };
        match tail::next_record(&*self.file, self.offset + 1, self.length, self.last).map_err(io)? {
            Some(next) => {
                self.skip_to(next.at);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Says what stands behind the last entry.
    pub fn judge_tail(&self, synced: bool) -> Result<Tail, LogError> {
        let place = Place { file: &*self.file, offset: self.offset, length: self.length, last: self.last };
        let written = Written { record_bytes_max: self.record_bytes_max, synced };
        tail::judge(place, written).map_err(|source| LogError::Io { path: self.path.clone(), source })
    }

    /// The last transaction read.
    pub fn last(&self) -> Option<Zxid> {
        self.last
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether exactly one record is behind the last entry, and it is unreadable.
    pub fn lacks_one_record(&self) -> Result<bool, LogError> {
        let io = |source| LogError::Io { path: self.path.clone(), source };
        let left = self.length - self.offset;
        let ready = &self.buffer[self.used..];
        let Some(frame) = txnlog::framed_bytes(ready) else { return Ok(false) };
        let nothing_behind = frame as u64 <= left
            && tail::last_non_zero(&*self.file, self.offset + frame as u64, self.length).map_err(io)?.is_none();
        Ok(nothing_behind)
    }

    /// The last entry's transaction, as it stands in the file.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    fn damaged(&self, damage: Damage) -> LogError {
        LogError::Damaged { path: self.path.clone(), offset: self.offset, last_good: self.last, damage }
    }

    fn only_zeros_follow(&self) -> Result<bool, LogError> {
        let io = |source| LogError::Io { path: self.path.clone(), source };
        Ok(tail::last_non_zero(&*self.file, txnlog::HEADER_BYTES as u64, self.length).map_err(io)?.is_none())
    }

    fn advance(&mut self, bytes: usize) {
        self.used += bytes;
        self.offset += bytes as u64;
    }

    /// Makes at least `wanted` unparsed bytes available, fewer only at the end of the file.
    fn fill(&mut self, wanted: usize) -> Result<(), LogError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let target = wanted.max(READ_BYTES).min(left);
        let mut piece = READ_BYTES;
        while self.buffer.len() < target {
            let have = self.buffer.len();
            self.buffer.resize(target.min(have + piece), 0);
            let read = self.file.read_at(&mut self.buffer[have..], self.offset + have as u64);
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the disk can still read in front of a bad sector counts.
                Err(error) if files::is_lost(&error) && piece > files::LOST_BYTES => piece = files::LOST_BYTES,
                Err(error) if files::is_lost(&error) && have >= wanted => break,
                Err(source) => return Err(LogError::Io { path: self.path.clone(), source }),
            }
        }
        Ok(())
    }

    /// Where it ended, once [`next_entry`](LogFile::next_entry) gave `None`.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Behind the last entry.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on behind the record at which [`next_entry`](LogFile::next_entry) stopped because its checksum is wrong: gives
    /// what it says all the same. `None` if it stopped for another reason. Only for people who want to see what is left.
    pub fn pass_over(&mut self) -> Option<&[u8]> {
        let ready = &self.buffer[self.used..];
        let left = self.length - self.offset;
        let Err(Damage::Checksum { .. }) = txnlog::parse(ready, left, self.record_bytes_max) else { return None };
        let length = i32::from_be_bytes(ready[8..txnlog::PREFIX_BYTES].try_into().expect("4 bytes"));
        let begin = self.used + txnlog::PREFIX_BYTES;
        self.payload = begin..begin + usize::try_from(length).expect("a record with a checksum has a length");
        self.advance(self.payload.len() + txnlog::FRAME_BYTES);
        Some(self.payload())
    }

    /// The next transaction; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        while self.ending.is_none() {
            let left = self.length - self.offset;
            let ready = &self.buffer[self.used..];
            match txnlog::parse(ready, left, self.record_bytes_max) {
                Ok(Parsed::Record { payload, bytes }) => {
                    let txn = Txn::from_bytes(payload).map_err(|error| LogError::NotATxn {
                        path: self.path.clone(),
                        offset: self.offset,
                        last_good: self.last,
                        error,
                    })?;
                    let entry = Entry { txn, offset: self.offset, first: self.last.is_none() };
                    self.last = Some(entry.txn.header.zxid);
                    let begin = self.used + txnlog::PREFIX_BYTES;
                    self.payload = begin..begin + payload.len();
                    self.advance(bytes);
                    return Ok(Some(entry));
                }
                Ok(Parsed::Short { .. }) if left == 0 => self.ending = Some(Ending::Clean),
                Ok(Parsed::Short { .. }) if ready.len() as u64 == left => {
                    self.ending = Some(Ending::Torn(Tear::EndOfFile));
                }
                Ok(Parsed::Short { wanted }) => {
                    let had = ready.len();
                    self.fill(wanted)?;
                    if self.buffer.len() == had {
                        // The file became shorter while it was read.
                        self.length = self.offset + had as u64;
                    }
                }
                Ok(Parsed::Zeros) => self.ending = Some(Ending::Clean),
                Ok(Parsed::Torn(tear)) => self.ending = Some(Ending::Torn(tear)),
                Err(damage) => return Err(self.damaged(damage)),
            }
        }
        Ok(None)
    }

    /// What it came to. Only behind the last entry.
    pub fn into_end(self) -> FileEnd {
        let ending = self.ending.unwrap_or(Ending::Damaged);
        let LogFile { path, offset, length, last, repeats, .. } = self;
        FileEnd { path, offset, length, last, ending, repeats }
    }
}

/// Reads one log up to and including `last`: where the record behind that one begins, or else where the last record ends.
pub fn end_of(files: &Files, path: &Path, last: Zxid, record_bytes_max: usize) -> Result<FileEnd, LogError> {
    let mut file = LogFile::open(files, path.to_owned(), record_bytes_max)?;
    let mut end = FileEnd {
        path: path.to_owned(),
        offset: file.offset,
        length: file.length,
        last: None,
        ending: file.ending.unwrap_or(Ending::Clean),
        repeats: 0,
    };
    while let Some(entry) = file.next_entry()? {
        if entry.txn.header.zxid > last {
            return Ok(end);
        }
        (end.offset, end.last) = (file.offset, file.last);
    }
    Ok(file.into_end())
}

/// Whether a learner that ends with `from` is better sent log than a snapshot (`snapshotSizeFactor`): the logs behind the
/// one that holds `from` are at most this part of the newest snapshot. Without a snapshot, or with 0, always.
pub fn is_worth_reading(dirs: &DataDirs, from: Zxid, factor: f64) -> bool {
    let bytes = |found: &Found| dirs.files().stat(&found.path).map_or(0, |file| file.length);
    let snapshots = names::list_snapshots(&dirs.snapshots).unwrap_or_default();
    let bytes_max = snapshots.last().map_or(0.0, |newest| bytes(newest) as f64 * factor);
    // What cannot be listed cannot be read either; the reader says so.
    let logs = names::list_logs(&dirs.logs).unwrap_or_default();
    let behind: u64 = select(logs, from).iter().skip(1).map(bytes).sum();
    bytes_max <= 0.0 || behind as f64 <= bytes_max
}

/// What the log has for a learner whose last transaction is `from`: that one, and the records behind it up to and
/// including `to`. No records, if they are not all here, one after the other, if it is not certain that `from` belongs to
/// this history, or if their payloads have more than `bytes_max` bytes. The log may be appended to meanwhile, as long as
/// `to` is durable in it, and purged.
///
/// `from` may belong to this history if its record is here, or the next one of its epoch. A hole is also where the log goes
/// on with a later epoch while a snapshot shows that there were transactions between, as with a server of Apache that got
/// them in a snapshot.
pub fn read_part(
    dirs: &DataDirs,
    from: Zxid,
    to: Zxid,
    bytes_max: usize,
    record_bytes_max: usize,
) -> Result<LogPart, LogError> {
    let mut part = LogPart::default();
    if from > to {
        return Ok(part);
    }
    let snapshots = names::list_snapshots(&dirs.snapshots)
        .map_err(|source| LogError::Io { path: dirs.snapshots.to_path_buf(), source })?;
    let hidden = |last: Zxid, next: Zxid| {
        snapshots.iter().any(|s| s.exact && s.zxid.counter() > 0 && last < s.zxid && s.zxid < next)
    };
    let mut logs = LogReader::open(&dirs.logs, from, record_bytes_max)?;
    let mut records: Vec<LogRecord> = Vec::new();
    let (mut last, mut bytes) = (None, 0);
    if from == to {
        part.records = Some(Vec::new());
    }
    loop {
        let zxid = match logs.next_entry() {
            Ok(Some(entry)) => entry.txn.header.zxid,
            Ok(None) => return Ok(part),
            // Purged meanwhile.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(part),
            Err(error) => return Err(error),
        };
        let goes_on = match last {
            None if zxid == from => {
                part.joint = Some(LogRecord { zxid, payload: logs.payload().to_vec() });
                last = Some(from);
                if from == to || bytes_max == 0 {
                    return Ok(part);
                }
                continue;
            }
            None if zxid > from.next() => {
                // Without it, if nothing is left out.
                let below = last_before(dirs, from, record_bytes_max)?;
                part.below = below.filter(|LogRecord { zxid: below, .. }| {
                    *below < from && follows(*below, zxid) && !hidden(*below, zxid)
                });
                return Ok(part);
            }
            None => zxid == from.next(),
            Some(last) => follows(last, zxid) && !hidden(last, zxid),
        };
        bytes += logs.payload().len();
        if !goes_on || zxid > to || bytes > bytes_max {
            return Ok(part);
        }
        records.push(LogRecord { zxid, payload: logs.payload().to_vec() });
        if zxid == to {
            part.records = Some(records);
            return Ok(part);
        }
        last = Some(zxid);
    }
}

/// The last transaction in front of this one.
fn last_before(dirs: &DataDirs, zxid: Zxid, record_bytes_max: usize) -> Result<Option<LogRecord>, LogError> {
    let logs = names::list_logs(&dirs.logs).map_err(|source| LogError::Io { path: dirs.logs.to_path_buf(), source })?;
    let Some(log) = select(logs, zxid).into_iter().next() else { return Ok(None) };
    let Some(last) = end_of(dirs.files(), &log.path, zxid, record_bytes_max)?.last else { return Ok(None) };
    let mut logs = LogReader::open(&dirs.logs, last, record_bytes_max)?;
    let found = logs.next_entry()?.map(|entry| entry.txn.header.zxid);
    Ok((found == Some(last)).then(|| LogRecord { zxid: last, payload: logs.payload().to_vec() }))
}

#[cfg(test)]
mod tests;
