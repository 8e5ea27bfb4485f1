//! What the quorum thread needs of the disk: it writes the epochs and the configuration, and reads a learner's part of the
//! log, itself; the log's thread appends what a leader sent, and removes what a replaced history leaves behind.

use std::collections::VecDeque;
use std::io;

use crossbeam_channel::Sender;

use crate::ids::Zxid;
use crate::mail::{Dropped, LogRecord, Mail, ToPipeline, ToQuorum, ToTxnlog};
use crate::memory::Bounds;
use crate::metrics;
use crate::quorum::voters::Configs;
use crate::quorum::{Foreigners, LogPart, WrongJoin};
use crate::state::State;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
use crate::storage::logdir::{self, LogError, ReadBack};
use crate::storage::recover::{RecoverOptions, recover};
use crate::storage::{foreign, names, wrong_join};
use crate::sys::clock;
use crate::sys::exit::{ExitCode, fatal};
use crate::txn::TxnHeader;

/// Where all that is.
#[derive(Debug)]
pub struct Store {
    /// The epochs.
    pub epoch_files: EpochFiles,
    /// The configuration.
    pub config_files: ConfigFiles,
    /// Folders.
    pub dirs: DataDirs,
    /// How a history is read again.
    pub recover: RecoverOptions,
    /// `snapshotSizeFactor`: how much log a learner may be sent, as a part of the newest snapshot's size; `Some(0)` is
    /// without bound, `None` never.
    pub snapshot_size_factor: Option<f64>,
    /// How much of it may be read at once.
    pub memory: Bounds,
}

/// The store, and how to talk to the log's thread.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    txnlog: Sender<ToTxnlog>,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
    read_back: ReadBack,
}

impl Disk {
    /// Over what is open already.
    pub fn new(store: Store, txnlog: Sender<ToTxnlog>) -> Disk {
        Disk { store, txnlog, unsynced: VecDeque::new(), read_back: ReadBack::default() }
    }

    /// The epoch that is durable.
    pub fn current_epoch(&self) -> u32 {
        self.store.epoch_files.epochs().current
    }

    /// Durable on return.
    pub fn set_accepted_epoch(&mut self, epoch: u32) {
        must(self.store.epoch_files.set_accepted(epoch));
    }

    /// Durable on return.
    pub fn set_current_epoch(&mut self, epoch: u32) {
        must(self.store.epoch_files.set_current(epoch));
        let consent = &self.store.dirs.give_up;
        let files = self.store.dirs.files();
        if files.exists(consent) {
            // It was for this once, needed or not.
            match files.remove_durably(consent) {
                Ok(()) => log::info!("{} is removed: this server has the leader's history", consent.display()),
                Err(error) => log::error!(
                    "{} cannot be removed: {error}. Remove it: while it is there, each start gives up again what the \
                     leader lacks",
                    consent.display()
                ),
            }
        }
    }

    /// Durable on return. An operator's consent is not used up: this server has no leader's history.
    pub fn set_back_epoch(&mut self, epoch: u32) {
        must(self.store.epoch_files.set_current(epoch));
    }

    /// What the next start is to know of a wrong join. Durable on return.
    pub fn mark_wrong_join(&mut self, wrong: Option<&WrongJoin>) {
        if let Err(error) = wrong_join::write(&self.store.dirs.snapshots, wrong) {
            fatal(ExitCode::TxnLog, &format!("{error}. Nothing acknowledged is lost"));
        }
    }

    /// What the next start is to know of histories that are others. Durable on return, or found out anew.
    pub fn keep_foreigners(&mut self, foreigners: &Foreigners) {
        let dir = &self.store.dirs.snapshots;
        if let Err(error) = foreign::write(dir, foreigners) {
            let path = dir.join(names::FOREIGN);
            log::error!("{} cannot be written: {error}; a start does not know of them", path.display());
        }
    }

    /// What the next start is to know of the members.
    pub fn save_configs(&mut self, configs: &Configs) {
        if let Err(error) = self.store.config_files.save(configs) {
            let what = format!("{error}; with reconfigEnabled the folder of the configuration file must be writable");
            if configs.last_seen.as_ref().is_some_and(|members| Zxid(members.version).counter() != 0) {
                // The proposal would be acknowledged, and forgotten at the next start.
                fatal(ExitCode::Unexpected, &what);
            }
            log::error!("{what}; the members at the next start are those that the file names now");
        }
    }

    fn tell_txnlog(&self, mail: ToTxnlog) {
        // The log ends the process when it fails, and else outlives this thread.
        let _ = self.txnlog.send(mail);
    }

    /// Has a leader's records appended; `ToQuorum::Durable` says when they are synced.
    pub fn log(&mut self, records: Vec<LogRecord>) {
        let Some(last) = records.last() else { return };
        let wall_ms = clock::wall_ms();
        for record in &records {
            let made_ms = TxnHeader::time_ms_in(&record.payload);
            metrics::PROPOSAL_LATENCY.record((wall_ms - made_ms).max(0));
            self.unsynced.push_back((record.zxid, made_ms));
        }
        must(self.store.epoch_files.announce(last.zxid));
        let then = vec![Mail::Quorum(ToQuorum::Durable { zxid: last.zxid, at_us: 0 })];
        self.tell_txnlog(ToTxnlog::Append { records, then, handed_us: clock::mono_us() });
    }

    /// What this server's log has from a leader is acknowledged now.
    pub fn count_acks(&mut self, durable: Zxid) {
        let wall_ms = clock::wall_ms();
        while let Some((_, made_ms)) = self.unsynced.pop_front_if(|(zxid, _)| *zxid <= durable) {
            metrics::PROPOSAL_ACK_CREATION_LATENCY.record((wall_ms - made_ms).max(0));
        }
    }

    /// A part of the log for a learner: its last transaction, and what is behind that if it is there and worth reading.
    pub fn read_log(&self, from: Zxid, to: Zxid) -> LogPart {
        let Store { dirs, recover, snapshot_size_factor, memory, .. } = &self.store;
        let is_worth_reading = snapshot_size_factor.is_some_and(|factor| logdir::is_worth_reading(dirs, from, factor));
        let bytes_max = if is_worth_reading { memory.log_part() } else { 0 };
        logdir::read_part(dirs, from, to, bytes_max, recover.record_bytes_max).unwrap_or_else(|error| {
            log::warn!("{error}; a learner gets a snapshot instead");
            LogPart::default()
        })
    }

    /// What was let go of memory: these transactions, both included, which the log has synced.
    pub fn read_back(&mut self, from: Zxid, to: Zxid) -> Vec<LogRecord> {
        let Store { dirs, recover, .. } = &self.store;
        let read = self.read_back.read(&dirs.logs, from, to, recover.record_bytes_max);
        let (code, why) = match read {
            Ok(Some(records)) => return records,
            Ok(None) => (ExitCode::DataDir, "they are not there".to_owned()),
            Err(error) => (code_of(&error), error.to_string()),
        };
        let what = format!("transactions {from} to {to} were synced to the log and cannot be read again: {why}");
        fatal(code, &format!("{what}; check the disk of {}", dirs.logs.display()))
    }

    /// Has the history behind this transaction taken away; `ToQuorum::Truncated` says whether it is.
    pub fn cut(&mut self, to: Zxid, dropped: Dropped) {
        self.read_back.forget();
        self.tell_txnlog(ToTxnlog::Truncate { to, dropped });
    }

    /// The state as of a transaction, behind which everything is removed.
    pub fn read_again(&self, to: Zxid) -> Box<State> {
        let options = RecoverOptions { as_of: Some(to), recent_max: 0, ..self.store.recover };
        let recovered =
            recover(&self.store.dirs, &options).unwrap_or_else(|error| fatal(error.exit_code(), &error.with_way_out()));
        Box::new(recovered.state)
    }

    /// Has room made for this state, which the leader sent, and then the pipeline save it.
    pub fn prepare_install(&mut self, state: Box<State>, dropped: Dropped) {
        let zxid = state.last_zxid();
        must(self.store.epoch_files.announce(zxid));
        self.read_back.forget();
        let install = Mail::Pipeline(ToPipeline::Install { state, durable: true });
        self.tell_txnlog(ToTxnlog::PrepareInstall { zxid, dropped, then: vec![install] });
    }

    /// Has everything removed that came before the state that is saved now; `ToQuorum::Installed` says when it is.
    pub fn finish_install(&self, zxid: Zxid) {
        let then = vec![Mail::Quorum(ToQuorum::Installed { zxid })];
        self.tell_txnlog(ToTxnlog::FinishInstall { zxid, then });
    }
}

/// What this server ends with when a log that was synced cannot be read. Where it is not there any more, the next start would
/// begin with what it finds. Else that start says what is damaged, and the leader has it.
fn code_of(error: &LogError) -> ExitCode {
    match error {
        LogError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ExitCode::DataDir,
        LogError::Io { .. } | LogError::Damaged { .. } | LogError::NotATxn { .. } => ExitCode::TxnLog,
    }
}

/// Nothing may be promised on an epoch that is not on disk. Whoever started this server starts it again, and then it waits
/// until there is room.
fn must(written: Result<(), EpochError>) {
    if let Err(error) = written {
        fatal(ExitCode::TxnLog, &format!("an epoch cannot be written: {error}. Nothing acknowledged is lost"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_is_gone_is_left_to_an_operator() {
        let code =
            |number| code_of(&LogError::Io { path: "log.1".into(), source: io::Error::from_raw_os_error(number) });
        assert_eq!(code(libc::ENOENT), ExitCode::DataDir);
        assert_eq!([libc::EIO, libc::EMFILE].map(code), [ExitCode::TxnLog; 2]);
    }
}
