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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Members;
    use crate::ids::{ServerId, SessionId};
    use crate::quorum::JoinStage;
    use crate::state::StateRules;
    use crate::sys::files::Files;
    use crate::txn::{Txn, TxnBody};
    use crossbeam_channel::{Receiver, unbounded};

    /// The first transaction of an epoch.
    const FIRST: Zxid = Zxid(7 << 32 | 1);

    /// The disk of a server that was never started, its folders, and what its log is told.
    fn disk() -> (tempfile::TempDir, Disk, DataDirs, Receiver<ToTxnlog>) {
        let folder = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(folder.path(), None);
        dirs.files().create_dirs(&dirs.snapshots).unwrap();
        let members = Members::parse_text(b"server.1=127.0.0.1:2888:3888;127.0.0.1:2181\nversion=0\n").unwrap();
        let own = members.servers[&1].clone();
        let configs = Configs { committed: members, last_seen: None, reconfig_enabled: false };
        let config_files = ConfigFiles::new(&Files::host(), &folder.path().join("zoo.cfg"), ServerId(1), own, configs);
        let epoch_files = EpochFiles::open(&dirs.snapshots, Zxid::ZERO).unwrap();
        let (txnlog, told) = unbounded();
        let disk = Disk::new(Store { epoch_files, config_files, dirs: dirs.clone() }, txnlog);
        (folder, disk, dirs, told)
    }

    fn txn(zxid: Zxid) -> Txn {
        let header = TxnHeader { client_id: SessionId(0), cxid: 0, zxid, time_ms: 1 };
        Txn { header, body: TxnBody::Error(-101), digest: None }
    }

    #[test]
    fn a_start_that_finds_records_of_a_new_epoch_finds_that_it_was_announced() {
        let (_folder, mut disk, dirs, told) = disk();
        disk.set_accepted_epoch(7);
        disk.log(vec![LogRecord { zxid: FIRST, payload: txn(FIRST).to_bytes() }]);
        assert!(matches!(told.try_recv(), Ok(ToTxnlog::Append { .. })));
        let found = EpochFiles::open(&dirs.snapshots, FIRST).unwrap().epochs();
        assert_eq!((found.accepted, found.current), (7, 7));
    }

    #[test]
    fn a_start_that_finds_a_state_of_a_new_epoch_finds_that_it_was_announced() {
        let (_folder, mut disk, dirs, told) = disk();
        disk.set_accepted_epoch(7);
        let mut state = Box::new(State::fresh(StateRules::default()));
        state.replay(&txn(FIRST));
        disk.prepare_install(state, Dropped::Contained);
        assert!(matches!(told.try_recv(), Ok(ToTxnlog::PrepareInstall { zxid: FIRST, .. })));
        assert_eq!(EpochFiles::open(&dirs.snapshots, FIRST).unwrap().epochs().current, 7);
    }

    #[test]
    fn a_start_finds_what_was_promised_and_what_is_wrong() {
        let (_folder, mut disk, dirs, _told) = disk();
        disk.set_accepted_epoch(7);
        disk.set_current_epoch(7);
        let found = EpochFiles::open(&dirs.snapshots, Zxid::ZERO).unwrap().epochs();
        assert_eq!((found.accepted, found.current), (7, 7));
        let wrong = WrongJoin {
            joint: Zxid(1),
            epoch: 6,
            last: Zxid(2),
            agreed: Zxid(2),
            leader: ServerId(3),
            stage: JoinStage::Unproven,
        };
        disk.mark_wrong_join(Some(&wrong));
        assert_eq!(wrong_join::read(&dirs.snapshots).unwrap(), Some(wrong));
        disk.mark_wrong_join(None);
        assert_eq!(wrong_join::read(&dirs.snapshots).unwrap(), None);
    }

    #[test]
    fn consent_to_give_up_a_history_is_used_up_by_the_leaders_only() {
        let (_folder, mut disk, dirs, _told) = disk();
        std::fs::write(&dirs.give_up, "").unwrap();
        disk.set_accepted_epoch(7);
        disk.set_back_epoch(6);
        assert!(dirs.give_up.exists());
        disk.set_current_epoch(7);
        assert!(!dirs.give_up.exists());
    }
}
