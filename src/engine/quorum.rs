//! A member of an ensemble, whole: its core ([`Peer`]), the links to the other servers, the files that say what was promised.
//! What effects of the core do stands here, each before the next; how its history is replaced, step by step; what is read of
//! which link, and when it is sent. What differs between a host and a simulation stays outside, behind [`Environment`]:
//! sockets and how they come about, the other threads, the clock.
//!
//! Whoever drives tells of what happened (`turn`: bytes, connections, mail, the time), and ends each turn with
//! [`Member::end_turn`], in which what waits leaves. A process may end between any two effects.
//!
//! `link` is one connection, `inbound` what is heard on it, `links` are all of them, `callers` what the log says of those who
//! came, `pipeline_batch` what the pipeline is told, `reads` what is read of the disk.

mod callers;
pub mod inbound;
pub mod link;
pub mod links;
mod pipeline_batch;
pub mod reads;
mod turn;

use std::collections::VecDeque;
use std::{fmt, io};

use thiserror::Error;

use crate::config::Members;
use crate::config::ensemble::PeerAddress;
use crate::config::voters::Configs;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{Dropped, LogRecord, Mail, ToPipeline, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::quorum::peer::{Peer, PeerStart};
use crate::quorum::replacement::{Replacement, Step};
use crate::quorum::{Effect, Foreigners, WrongJoin};
use crate::state::State;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
use crate::storage::{foreign, names, wrong_join};
use crate::sys::exit::ExitCode;
use crate::txn::TxnHeader;

use callers::Callers;
use link::Socket;
use links::Links;
use pipeline_batch::PipelineBatch;
use reads::{Part, Reads, ToRead};

/// Bytes of transactions that are proposed at once: with more, the first would wait until the last is ready for everybody.
const PROPOSED_BYTES_AT_ONCE: usize = 256 << 10;

/// Who is dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whom {
    /// The leader's quorum port, or a follower's port for observers.
    Master(ServerId),
    /// A server's election port.
    Election(ServerId),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Master(server) => write!(f, "the quorum port of server {}", server.0),
            Whom::Election(server) => write!(f, "the election port of server {}", server.0),
        }
    }
}

/// What is around a member. What of this takes longer comes back as an input.
pub trait Environment {
    /// A connection to another server.
    type Socket: Socket;

    /// The socket gets this number: from here on [`Member::on_event`] says when there is something to read, or it takes more.
    fn register(&mut self, id: LinkId, socket: &mut Self::Socket, is_election: bool) -> io::Result<()>;
    /// [`Effect::DialLeader`] and [`Effect::DialElection`]; [`Member::on_dialed`] tells what came of it. Complaints about all
    /// that are no members count as of one.
    fn dial(&mut self, whom: Whom, is_member: bool, addresses: &[PeerAddress]);
    /// Nobody waits for a leader that is being dialled.
    fn forget_leader(&mut self);
    /// [`Effect::Listen`]; who comes is told to [`Member::on_accepted`].
    fn listen(&mut self, open: bool);
    /// [`Effect::ListenForObservers`].
    fn listen_for_observers(&mut self);
    /// These are the members in force: it listens where they have it.
    fn move_to(&mut self, members: &Members);
    /// [`Effect::Alarm`].
    fn alarm(&mut self, what: String);
    /// One after the other; [`Member::on_read`] gets what was found, the pipeline a state, to install it durably.
    fn read(&mut self, what: ToRead);
    /// Mail for the log.
    fn tell_txnlog(&mut self, mail: ToTxnlog);
    /// Mail for the pipeline.
    fn tell_pipeline(&mut self, mail: Vec<ToPipeline>);
    /// An effect was carried out; or a file could not be written.
    fn on_done(&mut self, done: Result<(), Failure>);
    /// Monotonic microseconds, for metrics.
    fn mono_us(&self) -> i64;
    /// The wall clock, for metrics and for operators.
    fn wall_ms(&self) -> i64;

    /// These effects are next. A simulation may do something else in their place, to see whether it is found out.
    fn prepare(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        effects
    }

    /// What came by a link cannot be read; the log says so, or why it is lost. In a simulation nobody sends such.
    fn on_unreadable(&mut self, _why: &str) {}

    /// Whether the process is still there to carry this out. In a simulation it dies between any two effects.
    fn goes_on(&mut self, _effect: &Effect) -> bool {
        true
    }
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
pub struct Member<S> {
    /// The core.
    pub peer: Peer,
    store: Store,
    replacement: Replacement,
    /// The connections to other servers.
    pub links: Links<S>,
    callers: Callers,
    pipeline: PipelineBatch,
    reads: Reads,
    /// The link to the leader, while this server has enough to do with what it was sent.
    held: Option<LinkId>,
    now_ms: i64,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
    /// The rest of a large batch that the pipeline proposes.
    unproposed: std::vec::IntoIter<LogRecord>,
}

impl<S: Socket> Member<S> {
    /// Begins at this time, monotonic ms.
    pub fn new(start: PeerStart, store: Store, links: Links<S>, now_ms: i64) -> Member<S> {
        Member {
            peer: Peer::new(start, now_ms),
            store,
            replacement: Replacement::default(),
            links,
            callers: Callers::default(),
            pipeline: PipelineBatch::default(),
            reads: Reads::default(),
            held: None,
            now_ms,
            unsynced: VecDeque::new(),
            unproposed: Vec::new().into_iter(),
        }
    }

    /// The epoch that is durable.
    pub fn current_epoch(&self) -> u32 {
        self.store.epoch_files.epochs().current
    }

    // Mail of the other threads.

    fn take_mail(&mut self, mail: ToQuorum, env: &mut impl Environment) {
        match mail {
            ToQuorum::Proposed(records) => {
                assert!(!self.is_proposing(), "proposals come before those in front of them are proposed");
                self.unproposed = records.into_iter();
                self.propose_part();
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

    fn propose_part(&mut self) {
        let part = take_bytes(&mut self.unproposed, PROPOSED_BYTES_AT_ONCE);
        self.peer.on_inner(ToQuorum::Proposed(part));
    }

    /// The replacement of this server's history goes on.
    fn on_step(&mut self, step: Option<Step>, env: &mut impl Environment) {
        match step {
            None => {}
            Some(Step::Cut { to, dropped }) => env.tell_txnlog(ToTxnlog::Truncate { to, dropped }),
            Some(Step::Forget) => self.pipeline.push(ToPipeline::Forget),
            Some(Step::ReadAgain { to }) => env.read(ToRead::State { to }),
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
    fn do_effect(&mut self, effect: Effect, env: &mut impl Environment<Socket = S>) -> Result<(), Failure> {
        match effect {
            Effect::Send { link, packet } => self.send(link, &packet, env),
            Effect::SendSnapshot { link, bytes } => {
                if let Some(to) = self.links.get_mut(link) {
                    to.push_snapshot_piece(&bytes);
                }
            }
            Effect::SendElection { link, bytes } => {
                if let Some(to) = self.links.get_mut(link) {
                    to.push_bytes(&bytes);
                }
            }
            Effect::Close { link, why } => self.close(link, &why, env),
            Effect::DialLeader { master, addresses } => env.dial(Whom::Master(master), true, &addresses),
            Effect::DialElection { server, addresses } => {
                env.dial(Whom::Election(server), self.peer.is_member(server), &addresses);
            }
            Effect::Alarm(what) => env.alarm(what),
            Effect::Warn { link, what } => self.warn(link, &what),
            Effect::Listen(open) => env.listen(open),
            Effect::ListenForObservers => env.listen_for_observers(),
            Effect::LeaveRole { why } => {
                log::warn!("{why}");
                self.leave_role(env);
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
                env.read(ToRead::Forget);
                env.tell_txnlog(ToTxnlog::Truncate { to, dropped });
            }
            Effect::Install { state, dropped } => {
                self.replacement.begin_installation(state.last_zxid());
                env.read(ToRead::Forget);
                self.store.prepare_install(state, dropped, env)?;
            }
            Effect::ReadLog { link, from, to } => {
                if let Some(part) = self.reads.push(Part { link, from, to }) {
                    env.read(ToRead::Part(part));
                }
            }
            Effect::ReadBack { from, to } => env.read(ToRead::Back { from, to }),
            Effect::Pipeline(mail) => self.pipeline.push(mail),
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

    /// No connection.
    struct NoSocket;

    impl io::Read for NoSocket {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl io::Write for NoSocket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Socket for NoSocket {
        fn descriptor(&self) -> u64 {
            0
        }
    }

    impl Environment for Told {
        type Socket = NoSocket;
        fn register(&mut self, _: LinkId, _: &mut NoSocket, _: bool) -> io::Result<()> {
            Ok(())
        }
        fn dial(&mut self, _: Whom, _: bool, _: &[PeerAddress]) {}
        fn forget_leader(&mut self) {}
        fn listen(&mut self, _: bool) {}
        fn listen_for_observers(&mut self) {}
        fn move_to(&mut self, _: &Members) {}
        fn alarm(&mut self, _: String) {}
        fn read(&mut self, _: ToRead) {}
        fn tell_txnlog(&mut self, mail: ToTxnlog) {
            self.0.push(mail);
        }
        fn tell_pipeline(&mut self, _: Vec<ToPipeline>) {}
        fn on_done(&mut self, done: Result<(), Failure>) {
            done.unwrap();
        }
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
