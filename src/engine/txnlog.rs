//! The transaction log: what its mail does to the files, which of it shares a sync, and what is posted after that.
//!
//! A batch is handed in mail by mail ([`Txnlog::on_mail`]) until it [is full](Txnlog::is_full) or nothing more is there or
//! [goes into it](Txnlog::takes); then comes one [`Txnlog::sync`] for all of it, and only then what waited for that is
//! posted ([`Txnlog::take_posts`]). An error of any of these is final: nobody knows what the disk has.

use std::io;

use crate::limits;
use crate::mail::{Dropped, Mail, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::storage::dirs::DataDirs;
use crate::storage::truncate::{TruncateError, finish_install, prepare_install, truncate};
use crate::storage::writer::{LogFiles, LogWriter};
use crate::sys::files::at_path;

/// How the log is written.
#[derive(Clone, Debug)]
pub struct LogRules {
    /// Where the logs are, and the snapshots that go with them.
    pub dirs: DataDirs,
    /// `jute.maxbuffer` and its slack: what a length in a log may claim beyond the end of the file.
    pub record_bytes_max: usize,
    /// `forceSync`.
    pub force_sync: bool,
    /// `txnLogSizeLimitInKb`, in bytes.
    pub roll_bytes: Option<usize>,
    /// `maxBatchSize`: how many writes share a sync; 0 is without a bound but [`limits::LOG_BATCH_RECORDS_MAX`].
    pub batch_records_max: usize,
    /// A sync that takes longer is worth a warning, ms; `fsync.warningthresholdms`.
    pub sync_warning_ms: u64,
}

/// What comes after a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Then {
    /// The next one.
    GoOn,
    /// The last sync, and [`Txnlog::roll`]: that was all.
    Stop,
}

/// See the module. `open` gives files to write to, at the first record, and after each change of the history when there is
/// something to append again: in between nothing in the folder is held.
pub struct Txnlog<L: LogFiles, O> {
    rules: LogRules,
    open: O,
    writer: Option<LogWriter<L>>,
    /// Waits for the sync of the batch.
    then: Vec<Mail>,
    /// Records of the batch.
    records: usize,
    /// Payload bytes of the batch.
    bytes: usize,
    /// How many of the records were sent when, monotonic microseconds.
    handed: Vec<(usize, i64)>,
}

impl<L: LogFiles, O: FnMut() -> io::Result<L>> Txnlog<L, O> {
    /// Touches nothing yet.
    pub fn new(rules: LogRules, open: O) -> Txnlog<L, O> {
        Txnlog { rules, open, writer: None, then: Vec::new(), records: 0, bytes: 0, handed: Vec::new() }
    }

    /// Has files ready before the first record comes.
    pub fn open(&mut self) -> io::Result<()> {
        self.writer().map(drop)
    }

    fn writer(&mut self) -> io::Result<&mut LogWriter<L>> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => {
                let LogRules { force_sync, roll_bytes, .. } = self.rules;
                Ok(none.insert(LogWriter::new((self.open)()?, force_sync, roll_bytes)))
            }
        }
    }

    /// Whether it goes into the batch that was begun. A change of the history comes after the sync of what is before it,
    /// which others wait for.
    pub fn takes(&self, mail: &ToTxnlog) -> bool {
        let replaces = matches!(
            mail,
            ToTxnlog::Truncate { .. } | ToTxnlog::PrepareInstall { .. } | ToTxnlog::FinishInstall { .. }
        );
        !(replaces && self.has_batch())
    }

    /// Whether a sync is due, or something is to be posted.
    pub fn has_batch(&self) -> bool {
        self.records > 0 || !self.then.is_empty()
    }

    /// Whether the batch is complete. More would be synced in parts, and a reply waits for its whole batch.
    pub fn is_full(&self) -> bool {
        let records_max = match self.rules.batch_records_max {
            0 => limits::LOG_BATCH_RECORDS_MAX,
            records_max => records_max.min(limits::LOG_BATCH_RECORDS_MAX),
        };
        self.bytes >= limits::LOG_BATCH_BYTES_MAX || self.records >= records_max
    }

    /// Appends, or changes the history.
    ///
    /// # Panics
    /// If it does not [go into](Txnlog::takes) the batch that was begun: what was cut would be told to be durable.
    pub fn on_mail(&mut self, mail: ToTxnlog) -> io::Result<Then> {
        assert!(self.takes(&mail), "{mail:?} comes within a batch of {} records", self.records);
        match mail {
            ToTxnlog::Append { records, mut then, sent_us } => {
                let writer = self.writer()?;
                for record in &records {
                    writer.append(record)?;
                }
                self.bytes += records.iter().map(|record| record.payload.len()).sum::<usize>();
                self.records += records.len();
                self.handed.push((records.len(), sent_us));
                self.then.append(&mut then);
            }
            ToTxnlog::Roll => self.roll()?,
            ToTxnlog::Truncate { to, dropped } => {
                self.close()?;
                let possible = match truncate(&self.rules.dirs, to, dropped, self.rules.record_bytes_max) {
                    Err(error @ TruncateError::Impossible { .. }) => {
                        log::warn!("{error}; {}", instead_of_truncation(dropped));
                        false
                    }
                    cut => replaced(cut).map(|()| true)?,
                };
                self.then.push(Mail::Quorum(ToQuorum::Truncated { to, possible }));
            }
            ToTxnlog::PrepareInstall { zxid, dropped, mut then } => {
                self.close()?;
                replaced(prepare_install(&self.rules.dirs, zxid, dropped, self.rules.record_bytes_max))?;
                self.then.append(&mut then);
            }
            ToTxnlog::FinishInstall { zxid, mut then } => {
                self.close()?;
                replaced(finish_install(&self.rules.dirs, zxid))?;
                self.then.append(&mut then);
            }
            ToTxnlog::Stop => return Ok(Then::Stop),
        }
        Ok(Then::GoOn)
    }

    /// One sync for the batch.
    pub fn sync(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), LogWriter::sync)
    }

    /// What waited for the sync, which lasted from then to then, monotonic microseconds.
    pub fn take_posts(&mut self, begun_us: i64, done_us: i64) -> Vec<Mail> {
        if self.records > 0 {
            self.then.iter_mut().for_each(|mail| mail.stamp(done_us));
            self.count(begun_us, u64::try_from(done_us - begun_us).unwrap_or(0));
        }
        std::mem::take(&mut self.then)
    }

    /// Whether the log that is written to is still there, and whole.
    pub fn check(&self) -> io::Result<()> {
        self.writer.as_ref().map_or(Ok(()), LogWriter::check)
    }

    /// Syncs and ends the file: the next record begins another one.
    pub fn roll(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), LogWriter::roll)
    }

    /// Syncs what was appended, and leaves nothing behind but whole logs.
    fn close(&mut self) -> io::Result<()> {
        self.roll()?;
        // Ends a helper, too, which trims the logs and removes what it had made ahead.
        self.writer = None;
        Ok(())
    }

    fn count(&mut self, begun_us: i64, took_us: u64) {
        let signed_us = i64::try_from(took_us).unwrap_or(i64::MAX);
        metrics::FSYNCTIME.record(signed_us / 1000);
        metrics::SYNC_PROCESSOR_QUEUE_FLUSH_TIME_MS.record(signed_us / 1000);
        metrics::SYNC_PROCESSOR_REQUEST_QUEUED.add(i64::try_from(self.records).unwrap_or(i64::MAX));
        metrics::SYNC_PROCESSOR_BATCH_SIZE.record(i64::try_from(self.records).unwrap_or(i64::MAX));
        let waited_us = self.handed.first().map_or(0, |(_, sent_us)| begun_us - sent_us);
        for (records, sent_us) in self.handed.drain(..) {
            metrics::WRITE_APPENDED.record(begun_us - sent_us, records);
        }
        metrics::WRITE_SYNCED.record(signed_us, self.records);
        let (records, bytes) = (self.records, self.bytes);
        (self.records, self.bytes) = (0, 0);
        if took_us > self.rules.sync_warning_ms.saturating_mul(1000) {
            metrics::SLOW_SYNCS.add(1);
            let (took_ms, waited_ms, dir) = (took_us / 1000, waited_us / 1000, self.rules.dirs.logs.display());
            log::warn!(
                "fsync-ing the write ahead log in {dir} took {took_ms}ms for {records} transactions of {bytes} bytes, which slows every write down; they had waited {waited_ms} ms for the sync before and for being written. Is the disk shared?"
            );
        }
    }
}

fn replaced(done: Result<(), TruncateError>) -> io::Result<()> {
    done.map_err(|error| match error {
        TruncateError::Io { path, source } => at_path(&path, source),
        TruncateError::Impossible { .. } => io::Error::other(error.to_string()),
    })
}

/// What comes where the log cannot be truncated.
fn instead_of_truncation(dropped: Dropped) -> &'static str {
    match dropped {
        Dropped::Contained | Dropped::Tail | Dropped::Unproven => "the leader is asked for a snapshot instead",
        Dropped::Foreign => {
            "what a leader with another history sent stays in the log, so this server has no voice until a leader has sent it \
             a snapshot"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Zxid;
    use crate::mail::LogRecord;
    use crate::storage::writer::LogFile;
    use std::path::Path;

    /// Files that keep nothing.
    struct Nowhere;

    impl LogFile for Nowhere {
        fn capacity(&self) -> usize {
            1 << 30
        }
        fn store(&mut self, _: usize, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogFiles for Nowhere {
        type File = Nowhere;
        fn next(&mut self, _bytes_min: usize) -> io::Result<Nowhere> {
            Ok(Nowhere)
        }
        fn publish(&mut self, _file: &mut Nowhere, _first: Zxid) -> io::Result<()> {
            Ok(())
        }
        fn flushed(&mut self, _end: usize) {}
        fn retire(&mut self, _file: Nowhere, _end: usize) {}
    }

    fn log(batch_records_max: usize) -> Txnlog<Nowhere, fn() -> io::Result<Nowhere>> {
        let rules = LogRules {
            dirs: DataDirs::new(Path::new("/nowhere"), None),
            record_bytes_max: 2 << 20,
            force_sync: true,
            roll_bytes: None,
            batch_records_max,
            sync_warning_ms: 1_000,
        };
        Txnlog::new(rules, || Ok(Nowhere))
    }

    /// How many records of this size go into a batch.
    fn batch(log: &mut Txnlog<Nowhere, fn() -> io::Result<Nowhere>>, bytes: usize) -> usize {
        for count in 1.. {
            let record = LogRecord { zxid: Zxid(count), payload: vec![0; bytes] };
            let mail = ToTxnlog::Append { records: vec![record], then: Vec::new(), sent_us: 0 };
            assert_eq!(log.on_mail(mail).unwrap(), Then::GoOn);
            if log.is_full() {
                return count as usize;
            }
        }
        unreachable!("a batch has a bound")
    }

    #[test]
    fn a_batch_has_an_end_in_records_and_in_bytes() {
        assert_eq!(batch(&mut log(0), 1), limits::LOG_BATCH_RECORDS_MAX);
        assert_eq!(batch(&mut log(7), 1), 7);
        assert_eq!(batch(&mut log(100_000), 1), limits::LOG_BATCH_RECORDS_MAX);
        assert_eq!(batch(&mut log(0), limits::LOG_BATCH_BYTES_MAX / 4), 4);
        let mut log = log(3);
        assert_eq!(batch(&mut log, 1), 3);
        log.sync().unwrap();
        log.take_posts(0, 0);
        assert!(!log.is_full() && !log.has_batch());
    }

    #[test]
    #[should_panic(expected = "within a batch of 1 records")]
    fn a_change_of_the_history_waits_for_the_sync_of_what_is_before_it() {
        let mut log = log(0);
        let record = LogRecord { zxid: Zxid(1), payload: vec![0] };
        let append = ToTxnlog::Append { records: vec![record], then: Vec::new(), sent_us: 0 };
        assert_eq!(log.on_mail(append).unwrap(), Then::GoOn);
        let truncate = ToTxnlog::Truncate { to: Zxid(0), dropped: Dropped::Contained };
        assert!(!log.takes(&truncate));
        let _ = log.on_mail(truncate);
    }
}
