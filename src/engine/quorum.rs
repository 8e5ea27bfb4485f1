//! A member of an ensemble: what the effects of its core ([`Peer`]) do, each before the next; how its history is replaced,
//! step by step; which files say what was promised. What differs between a host and a simulation stays outside, behind
//! [`Environment`]: links and how they come about, the other threads, the clock.
//!
//! Whoever drives hands inputs to [`Member::peer`], and mail of other threads to [`Member::on_mail`]; behind each of them it
//! takes the core's effects and has them [carried out](Member::carry_out) in their order. A process may end between any two.

use std::collections::VecDeque;

use thiserror::Error;

use crate::config::Members;
use crate::config::ensemble::PeerAddress;
use crate::ids::{ServerId, Zxid};
use crate::mail::{Dropped, LogRecord, Mail, ToPipeline, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::quorum::packet::Packet;
use crate::quorum::peer::{Peer, PeerStart};
use crate::quorum::replacement::{Replacement, Step};
use crate::quorum::voters::Configs;
use crate::quorum::{Effect, Foreigners, LinkId, LinkPriority, WrongJoin};
use crate::state::State;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
use crate::storage::{foreign, names, wrong_join};
use crate::sys::exit::ExitCode;
use crate::txn::TxnHeader;

/// Bytes of transactions that are proposed at once: with more, the first would wait until the last is ready for everybody.
const PROPOSED_BYTES_AT_ONCE: usize = 256 << 10;

/// What is around a member. What of this takes longer comes back as an input.
pub trait Environment {
    /// [`Effect::Send`]; `priority` tells who matters, should too much wait for too many.
    fn send(&mut self, link: LinkId, packet: Packet, priority: impl Fn(LinkId) -> LinkPriority);
    /// [`Effect::SendSnapshot`].
    fn send_snapshot(&mut self, link: LinkId, bytes: Vec<u8>);
    /// [`Effect::SendElection`].
    fn send_election(&mut self, link: LinkId, bytes: Vec<u8>);
    /// [`Effect::Close`].
    fn close(&mut self, link: LinkId, why: &str);
    /// [`Effect::DialLeader`].
    fn dial_leader(&mut self, master: ServerId, addresses: &[PeerAddress]);
    /// [`Effect::DialElection`].
    fn dial_election(&mut self, server: ServerId, is_member: bool, addresses: &[PeerAddress]);
    /// [`Effect::Listen`].
    fn listen(&mut self, open: bool);
    /// [`Effect::ListenForObservers`].
    fn listen_for_observers(&mut self);
    /// [`Effect::LeaveRole`]: links of the quorum port are closed, its dials and what is read for its learners given up.
    fn leave_role(&mut self);
    /// These are the members in force: it listens where they have it.
    fn move_to(&mut self, members: &Members);
    /// [`Effect::Alarm`].
    fn alarm(&mut self, what: String);
    /// [`Effect::Warn`].
    fn warn(&mut self, link: LinkId, what: &str);
    /// [`Effect::ReadLog`].
    fn read_part(&mut self, link: LinkId, from: Zxid, to: Zxid);
    /// [`Effect::ReadBack`].
    fn read_back(&mut self, from: Zxid, to: Zxid);
    /// Recovery as of this transaction; the pipeline is told to install the state, durably.
    fn read_state(&mut self, to: Zxid);
    /// The history ends here: what is read from now on is of another one.
    fn forget_history(&mut self);
    /// Mail for the log.
    fn tell_txnlog(&mut self, mail: ToTxnlog);
    /// Mail for the pipeline, which has it before anything that is sent later leaves.
    fn tell_pipeline(&mut self, mail: ToPipeline);
    /// Monotonic microseconds, for metrics.
    fn mono_us(&self) -> i64;
    /// The wall clock, for metrics.
    fn wall_ms(&self) -> i64;
}

/// The files that say what was promised.
#[derive(Debug)]
pub struct Store {
    /// The epochs.
    pub epoch_files: EpochFiles,
    /// The configuration.
    pub config_files: ConfigFiles,
    /// Folders.
    pub dirs: DataDirs,
}

/// A file could not be written.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct Failure {
    what: String,
    /// What the server ends with; `None`: it goes on, as the text says.
    pub ends_with: Option<ExitCode>,
}

impl Failure {
    fn ends(ends_with: ExitCode, what: String) -> Failure {
        Failure { what, ends_with: Some(ends_with) }
    }

    fn goes_on(what: String) -> Failure {
        Failure { what, ends_with: None }
    }

    /// Nothing may be promised on an epoch that is not on disk. Whoever started this server starts it again, and then it
    /// waits until there is room.
    fn of_epoch(error: EpochError) -> Failure {
        Failure::ends(ExitCode::TxnLog, format!("an epoch cannot be written: {error}. Nothing acknowledged is lost"))
    }
}

impl Store {
    fn set_accepted_epoch(&mut self, epoch: u32) -> Result<(), Failure> {
        self.epoch_files.set_accepted(epoch).map_err(Failure::of_epoch)
    }

    /// An operator's consent is not used up: this server has no leader's history.
    fn set_back_epoch(&mut self, epoch: u32) -> Result<(), Failure> {
        self.epoch_files.set_current(epoch).map_err(Failure::of_epoch)
    }

    /// Has a leader's records appended; `ToQuorum::Durable` says when they are synced.
    fn log(&mut self, records: Vec<LogRecord>, env: &mut impl Environment) -> Result<(), Failure> {
        let Some(last) = records.last() else { return Ok(()) };
        self.epoch_files.announce(last.zxid).map_err(Failure::of_epoch)?;
        let then = vec![Mail::Quorum(ToQuorum::Durable { zxid: last.zxid, at_us: 0 })];
        env.tell_txnlog(ToTxnlog::Append { records, then, sent_us: env.mono_us() });
        Ok(())
    }

    /// Has room made for a state that the leader sent, and then the pipeline save it.
    fn prepare_install(
        &mut self,
        state: Box<State>,
        dropped: Dropped,
        env: &mut impl Environment,
    ) -> Result<(), Failure> {
        let zxid = state.last_zxid();
        self.epoch_files.announce(zxid).map_err(Failure::of_epoch)?;
        let install = Mail::Pipeline(ToPipeline::Install { state, durable: true });
        env.tell_txnlog(ToTxnlog::PrepareInstall { zxid, dropped, then: vec![install] });
        Ok(())
    }

    fn set_current_epoch(&mut self, epoch: u32) -> Result<(), Failure> {
        self.epoch_files.set_current(epoch).map_err(Failure::of_epoch)?;
        let consent = &self.dirs.give_up;
        let files = self.dirs.files();
        if files.exists(consent) {
            // It was for this once, needed or not.
            files.remove_durably(consent).map_err(|error| {
                Failure::goes_on(format!(
                    "{} cannot be removed: {error}. Remove it: while it is there, each start gives up again what the leader \
                     lacks",
                    consent.display()
                ))
            })?;
            log::info!("{} is removed: this server has the leader's history", consent.display());
        }
        Ok(())
    }

    fn mark_wrong_join(&mut self, wrong: Option<&WrongJoin>) -> Result<(), Failure> {
        wrong_join::write(&self.dirs.snapshots, wrong)
            .map_err(|error| Failure::ends(ExitCode::TxnLog, format!("{error}. Nothing acknowledged is lost")))
    }

    /// Where they cannot be written, they are found out anew.
    fn keep_foreigners(&mut self, foreigners: &Foreigners) -> Result<(), Failure> {
        let dir = &self.dirs.snapshots;
        foreign::write(dir, foreigners).map_err(|error| {
            let path = dir.join(names::FOREIGN);
            Failure::goes_on(format!("{} cannot be written: {error}; a start does not know of them", path.display()))
        })
    }

    fn save_configs(&mut self, configs: &Configs) -> Result<(), Failure> {
        self.config_files.save(configs).map_err(|error| {
            let what = format!("{error}; with reconfigEnabled the folder of the configuration file must be writable");
            if configs.last_seen.as_ref().is_some_and(|members| Zxid(members.version).counter() != 0) {
                // The proposal would be acknowledged, and forgotten at the next start.
                return Failure::ends(ExitCode::Unexpected, what);
            }
            Failure::goes_on(format!("{what}; the members at the next start are those that the file names now"))
        })
    }
}

/// See the module.
pub struct Member {
    /// The core.
    pub peer: Peer,
    store: Store,
    replacement: Replacement,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
    /// The rest of a large batch that the pipeline proposes.
    unproposed: std::vec::IntoIter<LogRecord>,
}

impl Member {
    /// Begins at this time, monotonic ms.
    pub fn new(start: PeerStart, store: Store, now_ms: i64) -> Member {
        Member {
            peer: Peer::new(start, now_ms),
            store,
            replacement: Replacement::default(),
            unsynced: VecDeque::new(),
            unproposed: Vec::new().into_iter(),
        }
    }

    /// The epoch that is durable.
    pub fn current_epoch(&self) -> u32 {
        self.store.epoch_files.epochs().current
    }

    // Mail of the other threads.

    /// Takes it.
    pub fn on_mail(&mut self, mail: ToQuorum, env: &mut impl Environment) {
        match mail {
            ToQuorum::Proposed(records) => {
                assert!(!self.is_proposing(), "proposals come before those in front of them are proposed");
                self.unproposed = records.into_iter();
                self.propose();
            }
            ToQuorum::Truncated { to, possible } => {
                let step = self.replacement.on_cut(to, possible);
                self.on_step(step, env);
            }
            ToQuorum::Installed { zxid } => {
                let step = self.replacement.on_installed(zxid);
                self.on_step(step, env);
            }
            ToQuorum::Forgotten => match self.replacement.on_forgotten() {
                None => self.peer.on_inner(ToQuorum::Forgotten),
                step => self.on_step(step, env),
            },
            ToQuorum::Durable { zxid, .. } => {
                self.count_acks(zxid, env.wall_ms());
                self.peer.on_inner(mail);
            }
            mail => self.peer.on_inner(mail),
        }
    }

    /// Whether more is to be [proposed](Member::propose) before the next mail.
    pub fn is_proposing(&self) -> bool {
        self.unproposed.len() > 0
    }

    /// Proposes the next part of a large batch.
    pub fn propose(&mut self) {
        let part = take_bytes(&mut self.unproposed, PROPOSED_BYTES_AT_ONCE);
        self.peer.on_inner(ToQuorum::Proposed(part));
    }

    /// The replacement of this server's history goes on.
    fn on_step(&mut self, step: Option<Step>, env: &mut impl Environment) {
        match step {
            None => {}
            Some(Step::Cut { to, dropped }) => env.tell_txnlog(ToTxnlog::Truncate { to, dropped }),
            Some(Step::Forget) => env.tell_pipeline(ToPipeline::Forget),
            Some(Step::ReadAgain { to }) => env.read_state(to),
            Some(Step::Finish { zxid }) => {
                let then = vec![Mail::Quorum(ToQuorum::Installed { zxid })];
                env.tell_txnlog(ToTxnlog::FinishInstall { zxid, then });
            }
            Some(Step::Truncated(result)) => self.peer.on_truncated(result),
            Some(Step::Installed(zxid)) => self.peer.on_inner(ToQuorum::Installed { zxid }),
        }
    }

    // Effects.

    /// Does what the core wants, durably where that is asked for. A failure that is not the end leaves all else done.
    pub fn carry_out(&mut self, effect: Effect, env: &mut impl Environment) -> Result<(), Failure> {
        match effect {
            Effect::Send { link, packet } => env.send(link, packet, |link| self.peer.priority(link)),
            Effect::SendSnapshot { link, bytes } => env.send_snapshot(link, bytes),
            Effect::SendElection { link, bytes } => env.send_election(link, bytes),
            Effect::Close { link, why } => env.close(link, &why),
            Effect::DialLeader { master, addresses } => env.dial_leader(master, &addresses),
            Effect::DialElection { server, addresses } => {
                env.dial_election(server, self.peer.is_member(server), &addresses);
            }
            Effect::Alarm(what) => env.alarm(what),
            Effect::Warn { link, what } => env.warn(link, &what),
            Effect::Listen(open) => env.listen(open),
            Effect::ListenForObservers => env.listen_for_observers(),
            Effect::LeaveRole { why } => {
                log::warn!("{why}");
                env.leave_role();
            }
            Effect::SetAcceptedEpoch(epoch) => self.store.set_accepted_epoch(epoch)?,
            Effect::SetCurrentEpoch(epoch) => self.store.set_current_epoch(epoch)?,
            Effect::SetBackEpoch(epoch) => self.store.set_back_epoch(epoch)?,
            Effect::MarkWrongJoin(wrong) => self.store.mark_wrong_join(wrong.as_ref())?,
            Effect::KeepForeigners(foreigners) => self.store.keep_foreigners(&foreigners)?,
            Effect::SaveConfigs(configs) => {
                let saved = self.store.save_configs(&configs);
                if saved.as_ref().err().is_none_or(|failure| failure.ends_with.is_none()) {
                    env.move_to(&configs.committed);
                }
                saved?;
            }
            Effect::Log(records) => self.log(records, env)?,
            Effect::Truncate { to, dropped } => {
                log::info!("{}", truncation(to, dropped));
                self.replacement.begin_truncation(to, dropped);
                env.forget_history();
                env.tell_txnlog(ToTxnlog::Truncate { to, dropped });
            }
            Effect::Install { state, dropped } => {
                self.replacement.begin_installation(state.last_zxid());
                env.forget_history();
                self.store.prepare_install(state, dropped, env)?;
            }
            Effect::ReadLog { link, from, to } => env.read_part(link, from, to),
            Effect::ReadBack { from, to } => env.read_back(from, to),
            Effect::Pipeline(mail) => env.tell_pipeline(mail),
        }
        Ok(())
    }

    /// Has a leader's records appended.
    fn log(&mut self, records: Vec<LogRecord>, env: &mut impl Environment) -> Result<(), Failure> {
        let wall_ms = env.wall_ms();
        for record in &records {
            let made_ms = TxnHeader::time_ms_in(&record.payload);
            metrics::PROPOSAL_LATENCY.record((wall_ms - made_ms).max(0));
            self.unsynced.push_back((record.zxid, made_ms));
        }
        self.store.log(records, env)
    }

    /// What this server's log has from a leader is acknowledged now.
    fn count_acks(&mut self, durable: Zxid, wall_ms: i64) {
        while let Some((_, made_ms)) = self.unsynced.pop_front_if(|(zxid, _)| *zxid <= durable) {
            metrics::PROPOSAL_ACK_CREATION_LATENCY.record((wall_ms - made_ms).max(0));
        }
    }
}

/// Why the log is truncated.
fn truncation(to: Zxid, dropped: Dropped) -> String {
    match dropped {
        Dropped::Contained => format!("this server's history up to {to} is read again"),
        Dropped::Tail | Dropped::Unproven => {
            format!("the leader's history is this server's up to {to}: the log is truncated to it")
        }
        Dropped::Foreign => {
            format!(
                "this server's own history ends at {to}: the log is truncated to it, as it was before it followed a leader with another one"
            )
        }
    }
}

/// The next records until they are this many bytes.
fn take_bytes(records: &mut std::vec::IntoIter<LogRecord>, bytes_max: usize) -> Vec<LogRecord> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max
        && let Some(record) = records.next()
    {
        bytes += record.payload.len();
        taken.push(record);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::quorum::JoinStage;
    use crate::state::StateRules;
    use crate::sys::files::Files;
    use crate::txn::{Txn, TxnBody};

    #[test]
    fn a_large_batch_is_proposed_in_parts_and_in_order() {
        let record = |n| LogRecord { zxid: Zxid(n), payload: vec![0; 100] };
        let mut records = (1..=7).map(record).collect::<Vec<_>>().into_iter();
        let mut parts = Vec::new();
        while records.len() > 0 {
            let part = take_bytes(&mut records, 250);
            parts.push(part.iter().map(|record| record.zxid.0).collect::<Vec<_>>());
        }
        assert_eq!(parts, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    }

    /// The first transaction of an epoch.
    const FIRST: Zxid = Zxid(7 << 32 | 1);

    /// The store of a server that was never started, and its folders.
    fn store() -> (tempfile::TempDir, Store, DataDirs) {
        let folder = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(folder.path(), None);
        dirs.files().create_dirs(&dirs.snapshots).unwrap();
        let members = Members::parse_text(b"server.1=127.0.0.1:2888:3888;127.0.0.1:2181\nversion=0\n").unwrap();
        let own = members.servers[&1].clone();
        let configs = Configs { committed: members, last_seen: None, reconfig_enabled: false };
        let config_files = ConfigFiles::new(&Files::host(), &folder.path().join("zoo.cfg"), ServerId(1), own, configs);
        let epoch_files = EpochFiles::open(&dirs.snapshots, Zxid::ZERO).unwrap();
        (folder, Store { epoch_files, config_files, dirs: dirs.clone() }, dirs)
    }

    /// What the log is told.
    #[derive(Default)]
    struct Told(Vec<ToTxnlog>);

    impl Environment for Told {
        fn send(&mut self, _: LinkId, _: Packet, _: impl Fn(LinkId) -> LinkPriority) {}
        fn send_snapshot(&mut self, _: LinkId, _: Vec<u8>) {}
        fn send_election(&mut self, _: LinkId, _: Vec<u8>) {}
        fn close(&mut self, _: LinkId, _: &str) {}
        fn dial_leader(&mut self, _: ServerId, _: &[PeerAddress]) {}
        fn dial_election(&mut self, _: ServerId, _: bool, _: &[PeerAddress]) {}
        fn listen(&mut self, _: bool) {}
        fn listen_for_observers(&mut self) {}
        fn leave_role(&mut self) {}
        fn move_to(&mut self, _: &Members) {}
        fn alarm(&mut self, _: String) {}
        fn warn(&mut self, _: LinkId, _: &str) {}
        fn read_part(&mut self, _: LinkId, _: Zxid, _: Zxid) {}
        fn read_back(&mut self, _: Zxid, _: Zxid) {}
        fn read_state(&mut self, _: Zxid) {}
        fn forget_history(&mut self) {}
        fn tell_txnlog(&mut self, mail: ToTxnlog) {
            self.0.push(mail);
        }
        fn tell_pipeline(&mut self, _: ToPipeline) {}
        fn mono_us(&self) -> i64 {
            0
        }
        fn wall_ms(&self) -> i64 {
            0
        }
    }

    fn txn(zxid: Zxid) -> Txn {
        let header = TxnHeader { client_id: SessionId(0), cxid: 0, zxid, time_ms: 1 };
        Txn { header, body: TxnBody::Error(-101), digest: None }
    }

    #[test]
    fn a_start_that_finds_records_of_a_new_epoch_finds_that_it_was_announced() {
        let (_folder, mut store, dirs) = store();
        let mut told = Told::default();
        store.set_accepted_epoch(7).unwrap();
        store.log(vec![LogRecord { zxid: FIRST, payload: txn(FIRST).to_bytes() }], &mut told).unwrap();
        assert!(matches!(told.0[..], [ToTxnlog::Append { .. }]));
        let found = EpochFiles::open(&dirs.snapshots, FIRST).unwrap().epochs();
        assert_eq!((found.accepted, found.current), (7, 7));
    }

    #[test]
    fn a_start_that_finds_a_state_of_a_new_epoch_finds_that_it_was_announced() {
        let (_folder, mut store, dirs) = store();
        let mut told = Told::default();
        store.set_accepted_epoch(7).unwrap();
        let mut state = Box::new(State::fresh(StateRules::default()));
        state.replay(&txn(FIRST));
        store.prepare_install(state, Dropped::Contained, &mut told).unwrap();
        assert!(matches!(told.0[..], [ToTxnlog::PrepareInstall { zxid: FIRST, .. }]));
        assert_eq!(EpochFiles::open(&dirs.snapshots, FIRST).unwrap().epochs().current, 7);
    }

    #[test]
    fn a_start_finds_what_was_promised_and_what_is_wrong() {
        let (_folder, mut store, dirs) = store();
        store.set_accepted_epoch(7).unwrap();
        store.set_current_epoch(7).unwrap();
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
        store.mark_wrong_join(Some(&wrong)).unwrap();
        assert_eq!(wrong_join::read(&dirs.snapshots).unwrap(), Some(wrong));
        store.mark_wrong_join(None).unwrap();
        assert_eq!(wrong_join::read(&dirs.snapshots).unwrap(), None);
    }

    #[test]
    fn consent_to_give_up_a_history_is_used_up_by_the_leaders_only() {
        let (_folder, mut store, dirs) = store();
        std::fs::write(&dirs.give_up, "").unwrap();
        store.set_accepted_epoch(7).unwrap();
        store.set_back_epoch(6).unwrap();
        assert!(dirs.give_up.exists());
        store.set_current_epoch(7).unwrap();
        assert!(!dirs.give_up.exists());
    }
}
