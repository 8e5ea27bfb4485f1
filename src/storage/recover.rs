//! Recovery: the newest snapshot that proves whole, then the logs, then the tail of the last log
//! (`FileTxnSnapLog.restore`). It gives a state that holds every acknowledged transaction, or refuses and says why,
//! where, and what can be done. Run at start, before any thread, and in a member of an ensemble again after a truncation,
//! with the option that says so.
//!
//! Apache starts with a hole in its history when a log is missing or torn in the middle, and says nothing; this refuses.
//! Apache refuses when the newest log is empty or has no header yet; this starts, since such a file holds nothing.
//!
//! | found while replaying | done |
//! |---|---|
//! | the next zxid of the epoch, or counter 0 or 1 of a later epoch | applied |
//! | any other zxid above the last one | refused: transactions are missing |
//! | a transaction that was read before (see `repeats`) | passed over; Apache applies it again |
//! | any other zxid at or below the last one | refused: files of two histories are mixed |
//! | a file that ends in a tear, followed by files that go on without a gap | an earlier crash, recovered before: passed over |
//! | the last file with records ends in a tear | see `tail` |
//! | files without a record behind it | removed |
//! | damage, and the next readable transaction is in the state already, or the next one after it | passed over, with a warning |
//! | anything else that a crash does not leave | refused |
//! | the logs end below what a newer, unreadable snapshot held | refused |
//!
//! A newer snapshot that cannot be read for another reason than its data (rights, too many open files) may be good: unless
//! the older one and the logs reach as far, no state is made without it, and nothing is called damaged.
//!
//! What the disk lost or changed is refused by a server that stands alone. A member of an ensemble changes nothing and gives
//! what is readable in front of it ([`Recovered::damage`]): others may have the rest.
//!
//! Before it is done, what it stands on is made durable (`durable`).

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};
use thiserror::Error;

use crate::config::Compression;
use crate::ids::Zxid;
use crate::mail::LogRecord;
use crate::quorum::joint::RecordMark;
use crate::quorum::{Foreign, JoinStage, WrongJoin};
use crate::state::{JointVerdict, LoadError, Loader, State, StateRules, WrongJoint};
use crate::storage::ANEW;
use crate::storage::dirs::DataDirs;
use crate::storage::durable::LastRecords;
use crate::storage::logdir::{Ending, Entry, FileEnd, LogError, LogFile, LogReader, Step, follows, show};
use crate::storage::names::{self, Found};
use crate::storage::purge::{looks_complete, why_incomplete};
use crate::storage::snapshot::{self, Loaded, SnapshotError, SnapshotWriter};
use crate::storage::tail::{self, Place, Tail, Written};
use crate::storage::truncate::{TruncateError, resume_install};
use crate::storage::txnlog::FRAME_BYTES;
use crate::storage::wrong_join::{self, WrongJoinError};
use crate::storage::{epochs, foreign};
use crate::sys::exit::ExitCode;
use crate::sys::file_system::DirEntry;
use crate::sys::files::{self, Files, Stream};
use crate::txn::DIGEST_VERSION;

/// What recovery may do.
#[derive(Clone, Copy, Debug)]
pub struct RecoverOptions {
    /// How the state is read.
    pub rules: StateRules,
    /// `zookeeper.datadir.autocreate`: missing folders are made.
    pub datadir_autocreate: bool,
    /// `zookeeper.db.autocreate`: without any data, the database is empty; otherwise only if `initialize` says so.
    pub db_autocreate: bool,
    /// `zookeeper.snapshot.trust.empty`: logs without any snapshot are replayed from nothing.
    pub trust_empty: bool,
    /// `jute.maxbuffer` and its slack: what a length in a log may claim beyond the end of the file.
    pub record_bytes_max: usize,
    /// How many of the last transactions are kept for [`Recovered::recent`].
    pub recent_max: usize,
    /// The server is running, and its history was just truncated to this transaction: snapshots behind it are passed
    /// over, what other threads have under way is left alone, and a state as of any other transaction is an error. No
    /// log is open.
    pub as_of: Option<Zxid>,
    /// `forceSync`: the log was synced batch by batch, so a crash can have spoiled one batch and no more.
    pub force_sync: bool,
    /// Other members of an ensemble may have what cannot be read here: damage is told in [`Recovered::damage`], and is no
    /// error.
    pub repairable: bool,
}

/// Where the state came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A snapshot of this file name, and logs.
    Snapshot(String),
    /// Logs alone (`snapshot.trust.empty`).
    Logs,
    /// Nothing was there, and nothing had to be.
    Nothing,
    /// Nothing was there though `db.autocreate` is off and `initialize` is missing: the data may be lost. A member of
    /// an ensemble must not vote for it.
    NothingUnexpectedly,
    /// Something was there, and nothing that a state can begin with is readable ([`Recovered::damage`] says what).
    Unreadable,
}

/// What a member of an ensemble cannot read of its own history. Its files stay as they are. Until the history of a leader
/// has replaced them, the server must not be counted on: it may have acknowledged what it cannot read.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong, with which file, where.
    pub why: RecoverError,
    /// The last readable transaction in front of it, which is the state's.
    pub last: Zxid,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this server cannot read all of its history, only what is up to {}: {}", self.last, self.why)
    }
}

/// A state, and how it came about.
#[derive(Debug)]
pub struct Recovered {
    /// As of the last transaction on disk. Ephemerals of sessions that are gone are still in it.
    pub state: State,
    /// Where from.
    pub origin: Origin,
    /// Nodes in the snapshot.
    pub snapshot_nodes: u64,
    /// Transactions replayed.
    pub replayed: u64,
    /// Snapshots passed over because they are not whole.
    pub snapshots_passed_over: Vec<String>,
    /// The last transactions, one after the other up to the state's last, as far as the log has them: as many as were asked
    /// for, [`RECENT_BYTES_MAX`] at most.
    pub recent: Vec<LogRecord>,
    /// The last transaction of the epochs before that of the last one, if the logs that were replayed tell.
    pub earlier: Option<Zxid>,
    /// Of the transactions that were replayed the first ones of epochs and the last ones: what a history can be known by.
    pub marks: Vec<RecordMark>,
    /// Why the state does not hold all that was acknowledged, if so. Only with [`RecoverOptions::repairable`].
    pub damage: Option<Damage>,
    /// What is left of a leader with another history, or of one that told nothing of it, that was followed.
    pub wrong_join: Option<WrongJoin>,
}

/// The last transactions in [`Recovered::marks`].
const MARKS: usize = 512;

/// Bytes of a log that a start reads in front of its snapshot: as many as a log usually has, and a disk reads in an instant.
const BEFORE_BYTES_MAX: u64 = 128 << 20;

/// Payload bytes of [`Recovered::recent`].
pub const RECENT_BYTES_MAX: usize = 32 << 20;

/// Why there is no state. Every message names the place and a way out.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// A folder is not usable.
    #[error("{} {what}: {source}; {remedy}", path.display())]
    Dir {
        /// What about it.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: String,
        /// Whether that may be otherwise at a later start, though nobody changes a setting.
        may_mend: bool,
    },
    /// A file that the user of this server has no right to: somebody else made or copied it.
    #[error("{} may not be read by {user}, as whom this server runs. As root: chown -R {user} {}", path.display(), files::parent(path).display())]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// Name or number.
        user: String,
    },
    /// dataDir and dataLogDir are two folders, and this file is in the wrong one.
    #[error("{} belongs in {}: dataDir and dataLogDir are mixed up, or were changed without moving the files; move it there, or set them back", path.display(), belongs.display())]
    Mixed {
        /// The file.
        path: PathBuf,
        /// Where it should be.
        belongs: PathBuf,
    },
    /// A record that was synced is unreadable now.
    #[error("{} is damaged at offset {offset}: {what}. Everything up to {last} is readable, and behind the damage {behind}, so no crash left this", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The end of its last good record.
        offset: u64,
        /// What stands there.
        what: String,
        /// The last readable transaction, of whatever file.
        last: Zxid,
        /// The last readable transaction of this file.
        last_in_file: Option<Zxid>,
        /// What stands behind it, in all files.
        behind: Behind,
    },
    /// A log cannot be read on.
    #[error("{0}. The transactions behind this point cannot be recovered here")]
    Log(#[from] LogError),
    /// A file could not be read, cut or removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An installation that was interrupted cannot be finished.
    #[error(transparent)]
    Install(#[from] TruncateError),
    /// What a leader with another history sent cannot be taken back.
    #[error(transparent)]
    WrongJoin(#[from] WrongJoinError),
    /// Transactions are missing.
    #[error("transactions are missing: {} goes on with {found} at offset {offset} where the one after {last} belongs{}", path.display(), torn(tear))]
    Gap {
        /// The last transaction before the hole.
        last: Zxid,
        /// The one found.
        found: Zxid,
        /// In which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The file that ended inside a record just before, if one did.
        tear: Option<FileEnd>,
    },
    /// An old transaction after a newer one.
    #[error("{} holds transaction {found} at offset {offset}, behind {last}: files of different times or servers are mixed. Move those that do not belong here out of the folder", path.display())]
    Backwards {
        /// The last transaction before it.
        last: Zxid,
        /// The one found.
        found: Zxid,
        /// In which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// Logs, but no snapshot they build on.
    #[error("{} holds logs, but {} holds no whole snapshot that they build on{}{}", logs.display(), snapshots.display(), first_log(*first), refused(tried))]
    NoSnapshot {
        /// The log folder.
        logs: PathBuf,
        /// The snapshot folder.
        snapshots: PathBuf,
        /// The zxid the oldest log is named by.
        first: Option<Zxid>,
        /// Snapshots that are not whole, each with the reason.
        tried: Vec<String>,
    },
    /// Snapshots, none of them readable.
    #[error("no snapshot in {} can be used{}", snapshots.display(), refused(tried))]
    BadSnapshots {
        /// The folder.
        snapshots: PathBuf,
        /// The zxid the oldest log is named by; `None` without logs.
        first: Option<Zxid>,
        /// Each with the reason.
        tried: Vec<String>,
    },
    /// A snapshot is whole, and cannot be understood.
    #[error("{} is whole but cannot be understood: {error}. It was written by another version, or with other settings (zookeeper.extendedTypesEnabled, zookeeper.emulate353TTLNodes)", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: LoadError,
    },
    /// An older snapshot had to be used, and the logs do not reach what the newer one held.
    #[error("{} is not whole ({reason}), and the older snapshot and the logs end at {reached}: transactions up to {} are missing", path.display(), zxid)]
    Unreached {
        /// The newer snapshot.
        path: PathBuf,
        /// What it held.
        zxid: Zxid,
        /// Why it was not used.
        reason: String,
        /// What was reached without it.
        reached: Zxid,
    },
    /// The history goes no further without a snapshot that may be good.
    #[error("{} cannot be read: {reason}. What can be read without it ends at {reached}, and its own data may be good: put right what keeps it from being read (rights, open files), then start again", path.display())]
    Unread {
        /// The snapshot.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// Where the history ends without it.
        reached: Zxid,
    },
    /// What was read may be in memory only, as after a sync that failed, and cannot be made durable.
    #[error("{} holds transactions that may not be on the disk yet, and cannot be written again: {source}; nobody was answered from them. Make room or mend the disk, then start again", path.display())]
    NotDurable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// [`RecoverOptions::as_of`] is not where the history ends.
    #[error("the history in {} was truncated to {wanted}, but what is left ends at {reached}; restart this server", logs.display())]
    NotAsOf {
        /// The log folder.
        logs: PathBuf,
        /// Where it should end.
        wanted: Zxid,
        /// Where it does.
        reached: Zxid,
    },
}

/// What is still readable behind damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind {
    /// Whole records.
    pub records: u64,
    /// The highest zxid of them.
    pub last: Option<Zxid>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => f.write_str("nothing is readable, but it is not what an interrupted sync leaves"),
            Some(last) => write!(f, "{} whole records up to {last} stand", self.records),
        }
    }
}

fn torn(tear: &Option<FileEnd>) -> String {
    match tear {
        Some(FileEnd { path, offset, ending: Ending::Torn(tear), .. }) => {
            format!(" ({} ends at offset {offset}: {tear})", path.display())
        }
        _ => String::new(),
    }
}

/// How to do without snapshots.
const LOGS_ALONE: &str = "start once with -Dzookeeper.snapshot.trust.empty=true to rebuild everything from the logs";

fn first_log(first: Option<Zxid>) -> String {
    first.map_or_else(String::new, |zxid| format!(" (the oldest log is log.{:x})", zxid.0))
}

fn refused(tried: &[String]) -> String {
    if tried.is_empty() { String::new() } else { format!(" ({})", tried.join("; ")) }
}

impl RecoverError {
    /// What is wrong, and what an operator can do about it where nobody repairs this server. Not for a member that others
    /// repair ([`Damage`]): by any of that it would lose what only it has.
    pub fn with_way_out(&self) -> String {
        let way_out = match self {
            RecoverError::Damaged { path, last_in_file, .. } => {
                let cut = match last_in_file {
                    Some(last) => {
                        format!("cut this one with `rookeeper log cut --in-place --to {last} {}`", path.display())
                    }
                    None => "move this one away".to_owned(),
                };
                format!(
                    "{ANEW}. To give up everything behind the damage, move away the later logs and snapshots, then {cut}"
                )
            }
            RecoverError::Gap { .. } | RecoverError::Unreached { .. } => {
                format!("If a log is missing, put it back. Else: {ANEW}")
            }
            RecoverError::Log(_) | RecoverError::BadSnapshots { first: None, .. } => ANEW.to_owned(),
            RecoverError::BadSnapshots { first: first @ Some(_), .. } => format!(
                "{ANEW}. Or, if the logs begin with the very first transaction{}, move these snapshots out of the folder \
                 (with snapshots in it the key does nothing), and {LOGS_ALONE}",
                first_log(*first)
            ),
            RecoverError::NoSnapshot { .. } => {
                format!("Put one back; or, if the first log begins with the very first transaction, {LOGS_ALONE}")
            }
            _ => return self.to_string(),
        };
        format!("{self}. {way_out}")
    }

    /// Whether the disk lost or changed something that the other members of an ensemble may have. Not: what a person must
    /// put right (rights, folders, files of other servers or versions), or what would come back after a repair.
    fn is_damage(&self) -> bool {
        match self {
            RecoverError::Damaged { .. }
            | RecoverError::Log(LogError::Damaged { .. })
            | RecoverError::Gap { .. }
            | RecoverError::NoSnapshot { .. }
            | RecoverError::BadSnapshots { .. }
            | RecoverError::Unreached { .. } => true,
            RecoverError::Log(LogError::Io { source, .. }) | RecoverError::Io { source, .. } => files::is_lost(source),
            RecoverError::Log(LogError::NotATxn { .. })
            | RecoverError::Dir { .. }
            | RecoverError::Forbidden { .. }
            | RecoverError::Mixed { .. }
            | RecoverError::Install(_)
            | RecoverError::WrongJoin(_)
            | RecoverError::Backwards { .. }
            | RecoverError::Foreign { .. }
            | RecoverError::Unread { .. }
            | RecoverError::NotDurable { .. }
            | RecoverError::NotAsOf { .. } => false,
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            // What may mend by itself is tried again by whoever started this server.
            RecoverError::Dir { source, .. } | RecoverError::Io { source, .. } if files::is_full(source) => {
                ExitCode::Snapshot
            }
            RecoverError::Dir { may_mend: true, .. } => ExitCode::Unexpected,
            RecoverError::Dir { .. } | RecoverError::Forbidden { .. } | RecoverError::Mixed { .. } => ExitCode::DataDir,
            RecoverError::NotDurable { .. } => ExitCode::TxnLog,
            RecoverError::Io { .. }
            | RecoverError::Log(_)
            | RecoverError::Install(_)
            | RecoverError::WrongJoin(_)
            | RecoverError::Gap { .. }
            | RecoverError::Backwards { .. }
            | RecoverError::Damaged { .. }
            | RecoverError::NoSnapshot { .. }
            | RecoverError::BadSnapshots { .. }
            | RecoverError::Foreign { .. }
            | RecoverError::Unreached { .. }
            | RecoverError::Unread { .. }
            | RecoverError::NotAsOf { .. } => ExitCode::Unexpected,
        }
    }
}

/// Whoever wrote this file may not have made it durable.
fn make_durable(files: &Files, path: &Path) -> Result<(), RecoverError> {
    files.make_durable(path).map_err(|source| RecoverError::NotDurable { path: path.to_owned(), source })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_owned();
    move |source| RecoverError::Io { path, source }
}

/// Is told of bytes as they are read from snapshots and logs.
pub type OnRead = Arc<dyn Fn(usize) + Send + Sync>;

/// Brings back what is on disk.
pub fn recover(dirs: &DataDirs, options: &RecoverOptions) -> Result<Recovered, RecoverError> {
    recover_watched(dirs, options, &(Arc::new(|_: usize| ()) as OnRead))
}

/// The same, for somebody who waits for it.
pub fn recover_watched(dirs: &DataDirs, options: &RecoverOptions, on_read: &OnRead) -> Result<Recovered, RecoverError> {
    recover_with(dirs, options, on_read, &|found| load(dirs.files(), found, options, on_read))
}

/// Reads a snapshot.
type Load<'a> = dyn Fn(&Found) -> Result<(Loaded, Loader), SnapshotError> + 'a;

fn recover_with(
    dirs: &DataDirs,
    options: &RecoverOptions,
    on_read: &OnRead,
    load: &Load<'_>,
) -> Result<Recovered, RecoverError> {
    dirs.prepare(options.datadir_autocreate)?;
    let running = options.as_of.is_some();
    if !running {
        remove_unfinished(dirs)?;
        resume_install(dirs)?;
    }
    let wrong_join =
        if running { wrong_join::read(&dirs.snapshots)? } else { wrong_join::resume(dirs, options.record_bytes_max)? };
    let unproven = wrong_join.and_then(WrongJoin::unproven);
    let joint = unproven.map(|wrong| wrong.joint);
    let initialize = dirs.files().exists(&dirs.initialize);
    let repairable = options.repairable && !running;
    let base = match choose_snapshot(dirs, options, load) {
        Err(why) if repairable && why.is_damage() => Base::Unreadable(why),
        base => base?,
    };
    let mut recovered = match base {
        Base::Nothing if !running && (initialize || options.db_autocreate) => {
            let mut recovered = Recovered::nothing(options, Origin::Nothing);
            write_first_snapshot(&mut recovered.state, dirs)?;
            recovered
        }
        Base::Nothing => Recovered::nothing(options, Origin::NothingUnexpectedly),
        Base::LogsAlone => Recovered::nothing(options, Origin::Logs),
        Base::Unreadable(why) => {
            let mut recovered = Recovered::nothing(options, Origin::Unreadable);
            recovered.damage = Some(Damage { why, last: Zxid::ZERO });
            recovered
        }
        Base::Snapshot { found, loaded, loader, passed_over } => {
            let mut recovered = Recovered::nothing(options, Origin::Snapshot(found.name.clone()));
            if !running {
                make_durable(dirs.files(), &found.path)?;
            }
            recovered.state = loader.finish(found.zxid);
            match loaded.trailer.digest {
                Some(digest) => recovered.state.expect_digest(digest.zxid, digest.version, digest.value),
                None => recovered.state.doubt_digests(),
            }
            recovered.snapshot_nodes = loaded.nodes;
            recovered.replay_or_repair(dirs, options, joint, passed_over, on_read)?;
            // A follower of Apache may apply what it has not logged yet, and a snapshot of the time shows it.
            let reached = recovered.state.last_zxid();
            if let Some(digest) = loaded.trailer.digest.filter(|digest| digest.zxid > reached) {
                warn!("{} was written when {} was applied, but the logs end at {reached}", found.name, digest.zxid);
            }
            recovered
        }
    };
    if recovered.origin == Origin::Logs {
        recovered.replay_or_repair(dirs, options, joint, Vec::new(), on_read)?;
    }
    recovered.wrong_join = wrong_join;
    let reached = recovered.state.last_zxid();
    if let Some(unproven) = unproven.filter(|_| !running) {
        let verdict = recovered.state.take_joint_verdict();
        recovered.wrong_join = unproven.judged(verdict, &foreign::read(&dirs.snapshots), reached);
        if let Some(JointVerdict::Wrong(wrong)) = verdict {
            let WrongJoint { joint, seen } = wrong;
            warn!(
                "what server {} sent behind {joint} is of another history than this server's: the data digest of {seen} does \
                 not fit. A majority lost its data once, or this server was restored from elsewhere",
                unproven.leader.0
            );
            note_foreign(dirs, &unproven, &wrong, reached)?;
        }
        if recovered.wrong_join != Some(unproven) {
            wrong_join::write(&dirs.snapshots, recovered.wrong_join.as_ref())?;
        }
        if recovered.wrong_join.is_some_and(|wrong| wrong.stage == JoinStage::Joined) {
            return recover_with(dirs, options, on_read, load);
        }
    }
    if let Some(wanted) = options.as_of.filter(|wanted| *wanted != reached) {
        return Err(RecoverError::NotAsOf { logs: dirs.logs.to_path_buf(), wanted, reached });
    }
    if initialize {
        dirs.files().remove_durably(&dirs.initialize).map_err(io_error(&dirs.initialize))?;
    }
    Ok(recovered)
}

/// Whose history is another one is known before what it sent is taken back: nothing would tell of it then.
fn note_foreign(dirs: &DataDirs, joined: &WrongJoin, wrong: &WrongJoint, reached: Zxid) -> Result<(), RecoverError> {
    let dir = &dirs.snapshots;
    let epochs = epochs::peek(dir).map_err(WrongJoinError::from)?;
    let accepted = epochs.map_or(reached.epoch(), |epochs| epochs.accepted);
    let mut foreigners = foreign::read(dir);
    foreigners.insert(joined.leader, Foreign::found(joined, wrong, accepted));
    foreign::write(dir, &foreigners).map_err(io_error(&dir.join(names::FOREIGN)))
}

/// An empty database has a snapshot before it has a log: logs without one are refused, here and by Apache.
fn write_first_snapshot(state: &mut State, dirs: &DataDirs) -> Result<(), RecoverError> {
    let snapshot_name = names::snapshot_name(Zxid::ZERO, Compression::None);
    let digest = state.promised_digest();
    let mut write = || {
        let mut writer = SnapshotWriter::new(Compression::None, Vec::new())?;
        writer.write(&state.begin_cut())?;
        let mut complete = false;
        while !complete {
            let (bytes, last) = state.cut_slice(usize::MAX);
            writer.write(&bytes)?;
            complete = last;
        }
        let bytes = writer.finish(Zxid::ZERO, digest, false)?;
        dirs.snapshots.replace_durably(&snapshot_name, names::UNFINISHED_SNAPSHOT, &bytes)
    };
    write().map_err(io_error(&dirs.snapshots.join(&snapshot_name)))
}

/// Files of this server's own making that were never finished.
fn remove_unfinished(dirs: &DataDirs) -> Result<(), RecoverError> {
    for dir in [&dirs.logs, &dirs.snapshots] {
        for DirEntry { name, path } in dir.list().map_err(io_error(dir))? {
            if names::is_leftover(&name) {
                dir.files.remove(&path).map_err(io_error(&path))?;
            }
        }
    }
    Ok(())
}

/// What replay starts from.
enum Base {
    /// Neither snapshot nor log.
    Nothing,
    /// `snapshot.trust.empty`.
    LogsAlone,
    /// Nothing readable, though something is there.
    Unreadable(RecoverError),
    /// A whole snapshot.
    Snapshot { found: Found, loaded: Loaded, loader: Box<Loader>, passed_over: Vec<PassedOver> },
}

/// A snapshot newer than the one that is used.
struct PassedOver {
    found: Found,
    reason: String,
    /// Whether its data is not what was written. Else it could not be read now, and may be good.
    is_damaged: bool,
}

impl PassedOver {
    fn unread(&self, reached: Zxid) -> RecoverError {
        RecoverError::Unread { path: self.found.path.clone(), reason: self.reason.clone(), reached }
    }
}

fn choose_snapshot(dirs: &DataDirs, options: &RecoverOptions, load: &Load<'_>) -> Result<Base, RecoverError> {
    let mut candidates = names::list_snapshots(&dirs.snapshots).map_err(io_error(&dirs.snapshots))?;
    candidates.retain(|found| options.as_of.is_none_or(|last| found.zxid <= last));
    let logs = names::list_logs(&dirs.logs).map_err(io_error(&dirs.logs))?;
    let mut passed_over: Vec<PassedOver> = Vec::new();
    let mut any_complete = false;
    // Newest first; of equal ones the exact name first.
    candidates.sort_by(|a, b| b.zxid.cmp(&a.zxid).then(b.exact.cmp(&a.exact)));
    for found in candidates {
        let loaded = match looks_complete(dirs.files(), &found.path) {
            Ok(true) => {
                any_complete = true;
                load(&found)
            }
            Err(error) if !files::is_lost(&error) => Err(error.into()),
            Ok(false) | Err(_) => Err(SnapshotError::CutShort),
        };
        let (reason, is_damaged) = match loaded {
            Ok((loaded, loader)) => {
                return Ok(Base::Snapshot { found, loaded, loader: Box::new(loader), passed_over });
            }
            Err(SnapshotError::Content(error @ LoadError::BadOwner { .. })) => {
                return Err(RecoverError::Foreign { path: found.path, error });
            }
            Err(error @ SnapshotError::CutShort) => {
                (why_incomplete(dirs.files(), &found.path).to_owned(), error.is_of_data())
            }
            Err(error) => (error.to_string(), error.is_of_data()),
        };
        warn!("{} is passed over: {reason}", found.path.display());
        passed_over.push(PassedOver { found, reason, is_damaged });
    }
    if let Some(unread) = passed_over.iter().find(|snapshot| !snapshot.is_damaged) {
        return Err(unread.unread(Zxid::ZERO));
    }
    let tried: Vec<String> =
        passed_over.iter().map(|PassedOver { found, reason, .. }| format!("{}: {reason}", found.name)).collect();
    let (snapshots, first) = (dirs.snapshots.to_path_buf(), logs.first().map(|log| log.zxid));
    // A server that died while it wrote its very first snapshot has lost nothing.
    let only_the_first = passed_over.iter().all(|PassedOver { found, .. }| found.zxid == Zxid::ZERO || !found.exact);
    match (logs.is_empty(), tried.is_empty()) {
        (true, _) if only_the_first => Ok(Base::Nothing),
        (true, _) => Err(RecoverError::BadSnapshots { snapshots, first, tried }),
        (false, _) if any_complete => Err(RecoverError::BadSnapshots { snapshots, first, tried }),
        (false, _) if options.trust_empty => Ok(Base::LogsAlone),
        (false, _) => Err(RecoverError::NoSnapshot { logs: dirs.logs.to_path_buf(), snapshots, first, tried }),
    }
}

/// A file whose reading is watched.
struct Watched(Stream, OnRead);

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        (self.1)(read);
        Ok(read)
    }
}

fn load(
    files: &Files,
    found: &Found,
    options: &RecoverOptions,
    on_read: &OnRead,
) -> Result<(Loaded, Loader), SnapshotError> {
    let file = Watched(Stream::new(files.open(&found.path)?), on_read.clone());
    let mut loader = Loader::new(options.rules);
    let loaded = snapshot::load(Compression::of_name(&found.name).reader(file), &mut loader)?;
    Ok((loaded, loader))
}

impl Recovered {
    fn nothing(options: &RecoverOptions, origin: Origin) -> Recovered {
        Recovered {
            state: State::fresh(options.rules),
            origin,
            snapshot_nodes: 0,
            replayed: 0,
            snapshots_passed_over: Vec::new(),
            recent: Vec::new(),
            earlier: None,
            marks: Vec::new(),
            damage: None,
            wrong_join: None,
        }
    }

    /// Replays the logs, and with [`RecoverOptions::repairable`] stops at damage.
    fn replay_or_repair(
        &mut self,
        dirs: &DataDirs,
        options: &RecoverOptions,
        joint: Option<Zxid>,
        passed_over: Vec<PassedOver>,
        on_read: &OnRead,
    ) -> Result<(), RecoverError> {
        let mut recent = Recent { records: VecDeque::new(), bytes: 0, max: options.recent_max };
        recent.begin_before(&self.state, dirs, options);
        let replayed = self.replay(dirs, options, joint, &mut recent, &passed_over, on_read);
        self.recent = recent.records.into();
        let reached = self.state.last_zxid();
        let unread = passed_over.iter().find(|snapshot| !snapshot.is_damaged && snapshot.found.zxid > reached);
        match replayed {
            // Whatever else is missing, that snapshot may hold.
            Err(why) if why.is_damage() && unread.is_some() => Err(unread.map_or(why, |it| it.unread(reached))),
            Err(why) if options.repairable && options.as_of.is_none() && why.is_damage() => {
                self.damage = Some(Damage { why, last: self.state.last_zxid() });
                Ok(())
            }
            replayed => replayed,
        }
    }

    /// Applies every transaction behind the state's last one, and tidies the tail of the last log.
    fn replay(
        &mut self,
        dirs: &DataDirs,
        options: &RecoverOptions,
        mut joint: Option<Zxid>,
        recent: &mut Recent,
        passed_over: &[PassedOver],
        on_read: &OnRead,
    ) -> Result<(), RecoverError> {
        let base = self.state.last_zxid();
        let mut logs = LogReader::open(&dirs.logs, base.next(), options.record_bytes_max)?;
        let mut tail = LastRecords::default();
        // A snapshot behind the joint holds nothing of which a digest told: then the joint would not be open.
        self.state.pass_joint(&mut joint);
        loop {
            let broken = match logs.step() {
                Step::Entry(entry) => {
                    self.check_order(&entry, &logs)?;
                    self.note_epoch(entry.txn.header.zxid, logs.payload());
                    self.state.replay(&entry.txn);
                    self.state.pass_joint(&mut joint);
                    self.replayed += 1;
                    recent.push(entry.txn.header.zxid, logs.payload());
                    tail.push(logs.ends().len(), entry.offset, logs.payload().len() + FRAME_BYTES);
                    on_read(logs.payload().len() + FRAME_BYTES);
                    continue;
                }
                Step::Done => break,
                Step::End => None,
                Step::Broken(error) => Some(error),
            };
            match self.go_on(&mut logs, base, broken, options.force_sync)? {
                Some(offset) => logs.skip_to(offset),
                None => logs.leave(),
            }
        }
        for FileEnd { path, repeats, .. } in logs.ends().iter().filter(|end| end.repeats > 0) {
            info!("{}: {repeats} records that say again what was logged before are passed over", path.display());
        }
        self.check_reach(passed_over)?;
        tidy(dirs.files(), logs.ends(), options)?;
        if options.as_of.is_some() {
            // What is here was synced by this process.
            return Ok(());
        }
        let files = dirs.files();
        let rewrite = |path: &Path, at, bytes: &[u8]| files.rewrite_durably(path, at, bytes);
        let rewritten = tail.make_durable(files, logs.ends(), rewrite);
        rewritten.map_err(|(path, source)| RecoverError::NotDurable { path: path.to_owned(), source })?;
        dirs.logs.sync().map_err(|source| RecoverError::NotDurable { path: dirs.logs.to_path_buf(), source })
    }

    /// Where to go on in a log that ends or cannot be read on: at an offset, or with the next file.
    ///
    /// What is lost is not needed if all of it is in the state already: the zxids run on without a gap, so the first
    /// transaction that is readable behind it tells.
    fn go_on(
        &self,
        logs: &mut LogReader,
        base: Zxid,
        broken: Option<LogError>,
        synced: bool,
    ) -> Result<Option<u64>, RecoverError> {
        let reached = self.state.last_zxid();
        let next_file = logs.next_file();
        let file = match (logs.file(), broken.as_ref()) {
            (Some(file), None | Some(LogError::Damaged { .. })) => file,
            (Some(file), Some(LogError::Io { source, .. })) if files::is_lost(source) => file,
            _ => return broken.map_or(Ok(None), |error| Err(error.into())),
        };
        if file.ending() == Some(Ending::Unfinished) {
            return Ok(None);
        }
        let (path, offset, last_in_file) = (file.path().to_owned(), file.offset(), file.last());
        let what = match (&broken, file.ending()) {
            (Some(error), _) => error.what(),
            (None, Some(Ending::Torn(tear))) => tear.to_string(),
            (None, _) => "what stands there is no record".to_owned(),
        };
        let whole = match &self.origin {
            Origin::Snapshot(name) if reached == base => format!("{name} has all up to {reached}"),
            _ => format!("the state up to {reached} is whole"),
        };
        let pass_over = |up_to: &str| {
            let path = path.display();
            warn!(
                "{path} is damaged at offset {offset}: {what}. It is passed over up to {up_to}: nothing that it held is needed, {whole}"
            );
        };
        if let Some(next) = next_file.filter(|next| *next <= reached.next()) {
            // An earlier recovery gave up what a crash left behind the last record, so the next log goes on from there. Where
            // there is a hole, whatever is readable in it was not given up.
            let is_hole = || last_in_file.is_none_or(|last| !follows(last, next));
            let has_more = |tail| matches!(tail, Tail::Damaged { .. } | Tail::Unsynced { next: Some(_) });
            if broken.is_some() || (is_hole() && file.judge_tail(synced).is_ok_and(has_more)) {
                pass_over("the next log");
            }
            return Ok(None);
        }
        // A crash changes no header, since a log has its name only when that is durable, and makes nothing unreadable.
        let may_be_crash = offset > 0 && !matches!(broken, Some(LogError::Io { .. }));
        let next = match file.judge_tail(synced)? {
            Tail::Nothing | Tail::Zeros if may_be_crash => return Ok(None),
            Tail::Nothing | Tail::Zeros => None,
            Tail::Unsynced { next: None } if may_be_crash => return Ok(None),
            // Apache leaves the tail of a log as it is when it goes on in another one after a crash.
            Tail::Unsynced { next: Some(next) }
                if may_be_crash
                    && next.zxid > reached.next()
                    && next_file.is_none_or(|first| reached == base && follows(reached, first)) =>
            {
                return Ok(None);
            }
            Tail::Unsynced { next } | Tail::Damaged { next } => next,
        };
        if let Some(next) = next.filter(|next| next.zxid <= reached.next()) {
            pass_over(&format!("offset {}", next.at));
            return Ok(Some(next.at));
        }
        let only_known = last_in_file.is_some_and(|last| last < reached);
        if next_file.is_none() && only_known && broken.is_some() && file.lacks_one_record()? {
            pass_over("its end");
            return Ok(None);
        }
        let (records, last) = logs.count_rest();
        let behind = Behind { records, last };
        Err(RecoverError::Damaged { path, offset, what, last: reached, last_in_file, behind })
    }

    /// Keeps what tells of the history, before the next transaction is applied.
    fn note_epoch(&mut self, zxid: Zxid, payload: &[u8]) {
        let last = self.state.last_zxid();
        if zxid.epoch() > last.epoch() {
            self.earlier = Some(last);
        }
        self.marks.push(RecordMark::of(&LogRecord { zxid, payload: payload.to_vec() }));
        if self.marks.len() > 4 * MARKS {
            let last = self.marks.split_off(self.marks.len() - MARKS);
            self.marks.retain(|mark| mark.zxid.counter() == 1);
            self.marks.extend(last);
        }
    }

    fn check_order(&self, entry: &Entry, logs: &LogReader) -> Result<(), RecoverError> {
        let (last, found) = (self.state.last_zxid(), entry.txn.header.zxid);
        if follows(last, found) {
            return Ok(());
        }
        let (path, offset) = (logs.path().to_owned(), entry.offset);
        if found <= last {
            return Err(RecoverError::Backwards { last, found, path, offset });
        }
        let tear = logs.ends().last().filter(|end| matches!(end.ending, Ending::Torn(_))).cloned();
        Err(RecoverError::Gap { last, found, path, offset, tear })
    }

    /// A newer snapshot that is not whole tells at least how far the history went. A stray name does not: a copy from
    /// the leader (`snapshot.x.tmp`) may have been under way.
    fn check_reach(&mut self, passed_over: &[PassedOver]) -> Result<(), RecoverError> {
        let reached = self.state.last_zxid();
        for PassedOver { found, reason, .. } in passed_over {
            // An epoch's start is no transaction: no log holds it.
            let begun = found.zxid.counter() == 0 && found.zxid.epoch() > reached.epoch();
            if found.exact && found.zxid > reached && !begun {
                let (path, zxid, reason) = (found.path.clone(), found.zxid, reason.clone());
                return Err(RecoverError::Unreached { path, zxid, reason, reached });
            }
            self.snapshots_passed_over.push(found.name.clone());
        }
        Ok(())
    }
}

/// A window of the last records.
struct Recent {
    records: VecDeque<LogRecord>,
    bytes: usize,
    max: usize,
}

impl Recent {
    /// Begins with records in front of the snapshot, if the last log that reaches it has them up to it: others compare their
    /// histories with this one's by them. Whatever is in the way, damage too, only makes this window shorter.
    fn begin_before(&mut self, snapshot: &State, dirs: &DataDirs, options: &RecoverOptions) {
        if self.max > 0 && !self.read_before(snapshot, dirs, options).unwrap_or(false) {
            *self = Recent { records: VecDeque::new(), bytes: 0, max: self.max };
        }
    }

    /// Whether they lead to the snapshot: by their zxids, and by the tree that the last one left.
    fn read_before(&mut self, snapshot: &State, dirs: &DataDirs, options: &RecoverOptions) -> Result<bool, LogError> {
        let base = snapshot.last_zxid();
        let logs = names::list_logs(&dirs.logs).unwrap_or_default();
        let Some(log) = logs.into_iter().rfind(|log| log.exact && log.zxid <= base) else { return Ok(false) };
        let mut log = LogFile::open(dirs.files(), log.path, options.record_bytes_max)?;
        let (mut last, mut tree) = (None, None);
        while let Some(Entry { txn, .. }) = log.next_entry()? {
            let zxid = txn.header.zxid;
            if zxid > base || last.is_some_and(|last| !follows(last, zxid)) || log.offset() > BEFORE_BYTES_MAX {
                break;
            }
            (last, tree) = (Some(zxid), txn.digest.or(tree));
            self.push(zxid, log.payload());
        }
        let is_its_tree = tree
            .is_some_and(|tree| tree.version == DIGEST_VERSION && snapshot.exact_digest() == Some(tree.tree_digest));
        Ok(last == Some(base) && is_its_tree)
    }

    fn push(&mut self, zxid: Zxid, payload: &[u8]) {
        if self.max == 0 {
            return;
        }
        self.records.push_back(LogRecord { zxid, payload: payload.to_vec() });
        self.bytes += payload.len();
        while self.records.len() > self.max || self.bytes > RECENT_BYTES_MAX {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.payload.len());
        }
    }
}

/// Cuts what a crash left behind the last good record, and removes the files behind it that hold no record, so that
/// neither Apache nor the next recovery stumbles over them.
fn tidy(files: &Files, ends: &[FileEnd], options: &RecoverOptions) -> Result<(), RecoverError> {
    let last_with_records = ends.iter().rposition(|end| end.last.is_some());
    // What damage is in them is not needed; it was looked at before.
    let last: Vec<&FileEnd> =
        ends[last_with_records.unwrap_or(0)..].iter().filter(|end| end.ending != Ending::Damaged).collect();
    let tails = last.iter().map(|end| judge(files, end, options)).collect::<Result<Vec<Tail>, RecoverError>>()?;
    last.iter().zip(tails).rev().try_for_each(|(end, tail)| tidy_tail(files, end, tail, end.last.is_none()))
}

fn judge(files: &Files, end: &FileEnd, options: &RecoverOptions) -> Result<Tail, RecoverError> {
    let path = &end.path;
    let file = files.open(path).map_err(io_error(path))?;
    let place = Place { file: &*file, offset: end.offset, length: end.length, last: end.last };
    let written = Written { record_bytes_max: options.record_bytes_max, synced: options.force_sync };
    tail::judge(place, written).map_err(io_error(path))
}

fn tidy_tail(files: &Files, end: &FileEnd, tail: Tail, remove: bool) -> Result<(), RecoverError> {
    let path = &end.path;
    let cut = end.length - end.offset;
    match tail {
        // Told before, where the log was read.
        Tail::Damaged { .. } => return Ok(()),
        Tail::Unsynced { next } => {
            let last = show(end.last);
            warn!(
                "{} ends in a record that was never finished: cut at offset {} ({cut} bytes), last good zxid {last}",
                path.display(),
                end.offset
            );
            if next.is_some() {
                keep_aside(files, path)?;
            }
        }
        Tail::Zeros if end.ending == Ending::Unfinished => warn!("{} was never begun: removed", path.display()),
        Tail::Zeros => info!("{}: {cut} bytes of padding trimmed", path.display()),
        Tail::Nothing if remove => info!("{} holds no record: removed", path.display()),
        Tail::Nothing => return Ok(()),
    }
    if remove {
        return files.remove_durably(path).map_err(io_error(path));
    }
    files.truncate_durably(path, end.offset).map_err(io_error(path))
}

/// Copies a log whose tail holds readable records before it is cut, under a name that nobody reads.
fn keep_aside(files: &Files, path: &Path) -> Result<(), RecoverError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let aside = path.with_file_name(format!("{}{name}", names::UNCUT_PREFIX));
    files.copy_durably(path, &aside).map_err(io_error(&aside))?;
    warn!("a copy of {} as it was is in {}", path.display(), aside.display());
    Ok(())
}

#[cfg(test)]
mod tests;
