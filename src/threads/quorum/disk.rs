//! What the quorum thread needs of the disk: it writes the epochs and the configuration itself; the log's thread appends what
//! a leader sent, and removes what a replaced history leaves behind; `reader` reads.

use std::collections::VecDeque;

use crossbeam_channel::Sender;

use crate::ids::Zxid;
use crate::mail::{Dropped, LogRecord, Mail, ToPipeline, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::quorum::voters::Configs;
use crate::quorum::{Foreigners, WrongJoin};
use crate::state::State;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
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
}

/// The store, and how to talk to the log's thread.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    txnlog: Sender<ToTxnlog>,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
}

impl Disk {
    /// Over what is open already.
    pub fn new(store: Store, txnlog: Sender<ToTxnlog>) -> Disk {
        Disk { store, txnlog, unsynced: VecDeque::new() }
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

    /// Has the history behind this transaction taken away; `ToQuorum::Truncated` says whether it is.
    pub fn cut(&self, to: Zxid, dropped: Dropped) {
        self.tell_txnlog(ToTxnlog::Truncate { to, dropped });
    }

    /// Has room made for this state, which the leader sent, and then the pipeline save it.
    pub fn prepare_install(&mut self, state: Box<State>, dropped: Dropped) {
        let zxid = state.last_zxid();
        must(self.store.epoch_files.announce(zxid));
        let install = Mail::Pipeline(ToPipeline::Install { state, durable: true });
        self.tell_txnlog(ToTxnlog::PrepareInstall { zxid, dropped, then: vec![install] });
    }

    /// Has everything removed that came before the state that is saved now; `ToQuorum::Installed` says when it is.
    pub fn finish_install(&self, zxid: Zxid) {
        let then = vec![Mail::Quorum(ToQuorum::Installed { zxid })];
        self.tell_txnlog(ToTxnlog::FinishInstall { zxid, then });
    }
}

/// Nothing may be promised on an epoch that is not on disk. Whoever started this server starts it again, and then it waits
/// until there is room.
fn must(written: Result<(), EpochError>) {
    if let Err(error) = written {
        fatal(ExitCode::TxnLog, &format!("an epoch cannot be written: {error}. Nothing acknowledged is lost"));
    }
}
