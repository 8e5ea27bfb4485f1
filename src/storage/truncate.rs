//! Takes transactions back: a learner's history is cut to what its leader has (TRUNC), or is replaced by a state that the
//! leader sent (SNAP). Called by the txnlog thread, with no log open; the plans are open to tests, which stop after each
//! step.
//!
//! Each function plans [`Step`]s and takes one after the other, each durable before the next. A crash after any of them
//! leaves a history that recovery accepts: the old one, a beginning of it that holds at least what was to stay, or the new
//! one. Never does a record of the old history stand behind the new one.
//!
//! | function | steps | a crash leaves |
//! |---|---|---|
//! | [`truncate`] to T | snapshots that are not whole go; logs behind T go, newest first, and the one that holds T is cut; then snapshots behind T go, newest first | a snapshot that is still there and what the logs add to it: the old history up to some transaction from T on |
//! | [`prepare_install`] of S | snapshots that are not whole go; logs behind S go, newest first, the one that reaches S is cut; then a file says that S is being installed | the same |
//! | (snapshot S is written) | | S: [`resume_install`] finishes it at the next start |
//! | [`finish_install`] of S | snapshots behind S go, newest first; then all logs up to S; then older snapshots; then that file | the same |
//!
//! Older snapshots go too when a state is installed: between them and the new one the log has a hole, and recovery could
//! take the first transaction of the new epoch for what follows the old history. For the same reason no start leaves an
//! installation half done: records that are appended to it would stand behind the hole.
//!
//! `quorum::replacement` says what comes when, and what else is done between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use log::{info, warn};
use thiserror::Error;

use crate::ids::Zxid;
use crate::storage::dirs::DataDirs;
use crate::storage::logdir::{Ending, LogError, LogReader, end_of, follows, select};
use crate::storage::names::{self, Found};
use crate::storage::purge::{deciding, looks_complete};
use crate::storage::txnlog::HEADER_BYTES;
use crate::sys::files;

/// Why a history is not cut.
#[derive(Debug, Error)]
pub enum TruncateError {
    /// Nothing was changed: there is no way back to this transaction.
    #[error("the history in {} cannot be truncated to {to}: {why}", logs.display())]
    Impossible {
        /// The log folder.
        logs: PathBuf,
        /// The last transaction that was to stay.
        to: Zxid,
        /// What is missing.
        why: String,
    },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TruncateError {
    let path = path.to_owned();
    move |source| TruncateError::Io { path, source }
}

/// One change on disk. All or nothing, and durable when it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// This empty file is made: an installation begins.
    Announce(PathBuf),
    /// The file gets a name that nobody reads.
    SetAside(PathBuf),
    /// The log ends here.
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length from now on.
        length: u64,
    },
    /// The file goes: an installation is done, or never came to its snapshot.
    Remove(PathBuf),
}

impl Step {
    /// Does it.
    pub fn take(&self) -> Result<(), TruncateError> {
        match self {
            Step::Announce(path) => files::write_durably(path, b"")
                .and_then(|()| files::sync_dir(files::parent(path)))
                .map_err(io_error(path)),
            Step::Remove(path) => files::remove_durably(path).map_err(io_error(path)),
            Step::SetAside(path) => fs::rename(path, aside(path))
                .and_then(|()| files::sync_dir(files::parent(path)))
                .map_err(io_error(path)),
            Step::Cut { path, length } => files::truncate_durably(path, *length).map_err(io_error(path)),
        }
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn aside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}{}", names::REMOVED_PREFIX, name_of(path)))
}

/// Removes every transaction behind `to`, from logs and snapshots. `record_bytes_max`: `jute.maxbuffer` and its slack.
pub fn truncate(dirs: &DataDirs, to: Zxid, record_bytes_max: usize) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(&plan_truncate(dirs, to, record_bytes_max)?)
}

/// Removes every record behind `zxid` from the logs, since a snapshot as of it is about to replace this history.
pub fn prepare_install(dirs: &DataDirs, zxid: Zxid, record_bytes_max: usize) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(&plan_prepare_install(dirs, zxid, record_bytes_max)?)
}

/// Removes all snapshots but the one as of `zxid`, which is there and durable, and all logs up to it.
pub fn finish_install(dirs: &DataDirs, zxid: Zxid) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(&plan_finish_install(dirs, zxid)?)
}

/// Before anything is recovered: finishes the installation during which the last process ended, if its snapshot is there.
pub fn resume_install(dirs: &DataDirs) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(&plan_resume_install(dirs)?)
}

fn take_all(steps: &[Step]) -> Result<(), TruncateError> {
    for step in steps {
        match step {
            Step::SetAside(path) => info!("{} is not part of the history any more", path.display()),
            Step::Cut { path, length } => info!("{} is cut at offset {length}", path.display()),
            Step::Announce(_) | Step::Remove(_) => {}
        }
        step.take()?;
    }
    for step in steps {
        if let Step::SetAside(path) = step
            && names::is_leftover(name_of(&aside(path)))
            && let Err(error) = fs::remove_file(aside(path))
        {
            // Tried again at the next start.
            warn!("{} cannot be removed: {error}", aside(path).display());
        }
    }
    Ok(())
}

/// What [`truncate`] does.
pub fn plan_truncate(dirs: &DataDirs, to: Zxid, record_bytes_max: usize) -> Result<Vec<Step>, TruncateError> {
    let Snapshots { whole, broken } = Snapshots::list(dirs)?;
    let base = check_way_back(dirs, &whole, to, record_bytes_max)?;
    let mut steps = set_aside(&broken);
    steps.extend(plan_cut(dirs, to, base.next(), record_bytes_max)?);
    steps.extend(set_aside(whole.iter().rev().filter(|snapshot| snapshot.zxid > to)));
    Ok(steps)
}

/// What [`prepare_install`] does.
pub fn plan_prepare_install(dirs: &DataDirs, zxid: Zxid, record_bytes_max: usize) -> Result<Vec<Step>, TruncateError> {
    let mut steps = set_aside(&Snapshots::list(dirs)?.broken);
    steps.extend(plan_cut(dirs, zxid, zxid.next(), record_bytes_max)?);
    steps.push(Step::Announce(dirs.snapshots.join(names::installing_name(zxid))));
    Ok(steps)
}

/// What [`finish_install`] does.
pub fn plan_finish_install(dirs: &DataDirs, zxid: Zxid) -> Result<Vec<Step>, TruncateError> {
    let Snapshots { whole, .. } = Snapshots::list(dirs)?;
    if !whole.iter().any(|snapshot| snapshot.exact && snapshot.zxid == zxid) {
        let source = io::Error::new(io::ErrorKind::NotFound, format!("the snapshot as of {zxid} is not there"));
        return Err(TruncateError::Io { path: dirs.snapshots.clone(), source });
    }
    let logs = names::list_logs(&dirs.logs).map_err(io_error(&dirs.logs))?;
    let mut steps = set_aside(whole.iter().rev().filter(|snapshot| snapshot.zxid > zxid));
    steps.extend(set_aside(logs.iter().rev().filter(|log| log.zxid <= zxid)));
    steps.extend(set_aside(whole.iter().rev().filter(|snapshot| snapshot.zxid < zxid)));
    steps.extend(installing(dirs)?.into_iter().map(|found| Step::Remove(found.path)));
    Ok(steps)
}

/// What [`resume_install`] does.
pub fn plan_resume_install(dirs: &DataDirs) -> Result<Vec<Step>, TruncateError> {
    let installing = installing(dirs)?;
    let Some(last) = installing.last() else { return Ok(Vec::new()) };
    if Snapshots::list(dirs)?.whole.iter().any(|snapshot| snapshot.exact && snapshot.zxid == last.zxid) {
        return plan_finish_install(dirs, last.zxid);
    }
    Ok(installing.into_iter().map(|found| Step::Remove(found.path)).collect())
}

fn installing(dirs: &DataDirs) -> Result<Vec<Found>, TruncateError> {
    names::list_installing(&dirs.snapshots).map_err(io_error(&dirs.snapshots))
}

fn set_aside<'a>(files: impl IntoIterator<Item = &'a Found>) -> Vec<Step> {
    files.into_iter().map(|found| Step::SetAside(found.path.clone())).collect()
}

/// The snapshots of a folder, ascending.
struct Snapshots {
    whole: Vec<Found>,
    /// Cut short by a crash. They hold nothing, but recovery would insist on the transaction they are named by.
    broken: Vec<Found>,
}

impl Snapshots {
    fn list(dirs: &DataDirs) -> Result<Snapshots, TruncateError> {
        let (mut whole, mut broken) = (Vec::new(), Vec::new());
        for found in names::list_snapshots(&dirs.snapshots).map_err(io_error(&dirs.snapshots))? {
            match looks_complete(&found.path) {
                Ok(true) => whole.push(found),
                Ok(false) => broken.push(found),
                // A copy that somebody took away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(&found.path)(error)),
            }
        }
        Ok(Snapshots { whole, broken })
    }
}

/// Whether the state as of `to` can be had: from a snapshot as of it, or from an older one and all records up to it. Gives
/// the zxid of that snapshot.
fn check_way_back(
    dirs: &DataDirs,
    snapshots: &[Found],
    to: Zxid,
    record_bytes_max: usize,
) -> Result<Zxid, TruncateError> {
    let impossible = |why: String| Err(TruncateError::Impossible { logs: dirs.logs.clone(), to, why });
    let Some(base) = snapshots.iter().rfind(|snapshot| snapshot.zxid <= to) else {
        return impossible("there is no snapshot that old".into());
    };
    let mut last = base.zxid;
    let readable = |error: LogError| match error {
        LogError::Io { path, source } => Err(TruncateError::Io { path, source }),
        LogError::Damaged { .. } | LogError::NotATxn { .. } => Ok(error.to_string()),
    };
    let mut logs = match LogReader::open(&dirs.logs, last.next(), record_bytes_max) {
        Ok(logs) => logs,
        Err(error) => return impossible(readable(error)?),
    };
    while last < to {
        match logs.next_entry() {
            Ok(Some(entry)) if follows(last, entry.txn.header.zxid) => last = entry.txn.header.zxid,
            Ok(Some(entry)) => {
                return impossible(format!("{} comes right behind {last} in the log", entry.txn.header.zxid));
            }
            Ok(None) => return impossible(format!("the log ends at {last}")),
            Err(error) => return impossible(readable(error)?),
        }
    }
    if last == to { Ok(base.zxid) } else { impossible(format!("the log goes on with {last} instead")) }
}

/// Removes every record behind `to` from the logs that hold transactions from `from` on, newest file first. The file that
/// ends with `to` need not be the only one to hold it: it may begin with repeats of what the one before it holds.
fn plan_cut(dirs: &DataDirs, to: Zxid, from: Zxid, record_bytes_max: usize) -> Result<Vec<Step>, TruncateError> {
    let (behind, rest): (Vec<Found>, Vec<Found>) =
        names::list_logs(&dirs.logs).map_err(io_error(&dirs.logs))?.into_iter().partition(|log| log.zxid > to);
    let mut steps = set_aside(behind.iter().rev());
    for log in select(rest, Zxid::ZERO).iter().rev() {
        let end = match end_of(&log.path, to, record_bytes_max) {
            Ok(end) => end,
            Err(LogError::Io { path, source }) => return Err(TruncateError::Io { path, source }),
            // Recovery does not read past this either. It refuses, as it would without us.
            Err(LogError::Damaged { .. } | LogError::NotATxn { .. }) => break,
        };
        // What stands behind the record may be a tear or padding: it goes too, so that the file ends as a newest log does.
        if end.offset < end.length && end.ending != Ending::Unfinished {
            steps.push(Step::Cut { path: log.path.clone(), length: end.offset });
        }
        if end.offset > HEADER_BYTES as u64 && log.zxid < from {
            break;
        }
    }
    Ok(steps)
}
