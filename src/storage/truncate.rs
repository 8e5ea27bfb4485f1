//! Takes transactions back: a learner's history is cut to what its leader has (TRUNC), or is replaced by a state that the
//! leader sent (SNAP); or what a leader sent that turned out to have another history is taken out again. Called by the
//! txnlog thread with no log open, and by a start (`wrong_join`); the plans are open to tests, which stop after each step.
//!
//! **What is dropped** ([`Dropped`]) is deleted only if the leader's history is proven to hold it. Else its files are moved
//! into a folder beside the data, which no reader of data looks into, neither ours nor Apache's: logs into one in the log
//! folder, snapshots into one of the same name in the snapshot folder. One warning says how many transactions, up to which
//! zxid, and where.
//!
//! | folder | what is in it |
//! |---|---|
//! | `cut-<first>-<last>` | the end of an epoch that an election passed over; or what a leader with another history had sent |
//! | `replaced-<first>-<last>` | what nothing proves to be elsewhere: another history, damaged files, or all of a history that ended where no log of the leader reaches any more |
//!
//! Only an operator removes them (`replaced`). That an election passed over it does not prove that nobody was told of it: the
//! majority that acknowledged it may have lost its data since. What is in it is bounded by what a leader proposes before it
//! hears from a quorum.
//!
//! A whole log can be put back as it is. Of a log that is cut, the rest is copied first, as a log of its own.
//!
//! Each function plans [`Step`]s and takes one after the other, each durable before the next. A crash after any of them
//! leaves a history that recovery accepts: the old one, a beginning of it that holds at least what was to stay, or the new
//! one. Never does recovery read a record of the old history behind the new one; and what is to be kept is always in one of
//! the two places.
//!
//! Until a state that is installed is durable, nothing of the old history is touched. What is damaged in it shows that this
//! server may lack what it acknowledged, and a server that dies meanwhile must know that when it starts again.
//!
//! | function | steps | a crash leaves |
//! |---|---|---|
//! | [`truncate`] to T | the folder is made; snapshots that are not whole go; logs behind T go, newest first, and the one that holds T is copied and cut; then snapshots behind T go, newest first | a snapshot that is still there and what the logs add to it: the old history up to some transaction from T on |
//! | [`prepare_install`] of S | snapshots named as S will be get another name, by which they are read all the same; then a file says that S is being installed, and into which folder the rest goes | the old history, and [`resume_install`] gives the names back at the next start |
//! | (snapshot S is written) | | S: [`resume_install`] finishes it at the next start |
//! | [`finish_install`] of S | the folder is made; logs go, newest first; then all other snapshots; then that file | the same |
//!
//! So as long as that file is there, a snapshot that has the exact name of S is the one that is installed: that is told by
//! names alone, and holds for a copy of the folders, too.
//!
//! Older snapshots go too when a state is installed: between them and the new one the log has a hole, and recovery could
//! take the first transaction of the new epoch for what follows the old history. For the same reason no start leaves an
//! installation half done: records that are appended to it would stand behind the hole.
//!
//! `quorum::replacement` says what comes when, and what else is done between.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use log::{info, warn};
use thiserror::Error;

use crate::ids::Zxid;
use crate::mail::Dropped;
use crate::storage::dirs::DataDirs;
use crate::storage::logdir::{Ending, LogError, LogFile, LogReader, end_of, follows, select};
use crate::storage::names::{self, Found};
use crate::storage::purge::{deciding, looks_complete};
use crate::storage::replaced;
use crate::storage::tail::last_non_zero;
use crate::storage::txnlog::HEADER_BYTES;
use crate::sys::files::{self, Dir, Files, Stream, read_exact};

/// Bytes of logs that are read to count the transactions that go. The learner's leader waits meanwhile, `initLimit` at most,
/// and logs may be of any size: this much a slow disk reads in a few seconds.
const COUNTED_BYTES_MAX: u64 = 128 << 20;

/// Bytes of a log that are copied at once; where the disk cannot read them, zeros.
const COPY_BYTES: usize = 4096;

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
    /// This file is made: an installation begins. It holds the name of the folder for what is there, if that is kept.
    Announce(PathBuf, String),
    /// The snapshot gets another name that is read.
    Rename {
        /// The file.
        path: PathBuf,
        /// With its new name.
        to: PathBuf,
    },
    /// The folder is made.
    MakeFolder(PathBuf),
    /// The file is moved into that folder.
    Keep {
        /// The file.
        path: PathBuf,
        /// Where to.
        folder: PathBuf,
    },
    /// The records of the log from there on are copied, as a log.
    CopyRest {
        /// The file.
        path: PathBuf,
        /// Where they begin.
        offset: u64,
        /// The copy.
        to: PathBuf,
    },
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
    /// Whether something goes into a folder.
    fn keeps(&self) -> bool {
        matches!(self, Step::Keep { .. } | Step::CopyRest { .. })
    }

    /// Does it.
    pub fn take(&self, files: &Files) -> Result<(), TruncateError> {
        match self {
            Step::Announce(path, text) => files
                .write_durably(path, text.as_bytes())
                .and_then(|()| files.sync_dir(files::parent(path)))
                .map_err(io_error(path)),
            Step::MakeFolder(path) => files.create_dirs(path).map_err(io_error(path)),
            Step::Rename { path, to } => files.rename_durably(path, to).map_err(io_error(path)),
            Step::Keep { path, folder } => files
                .rename(path, &folder.join(names::name_before(name_of(path))))
                .and_then(|()| files.sync_dir(folder))
                .and_then(|()| files.sync_dir(files::parent(path)))
                .map_err(io_error(path)),
            Step::CopyRest { path, offset, to } => copy_rest(files, path, *offset, to).map_err(io_error(to)),
            Step::Remove(path) => files.remove_durably(path).map_err(io_error(path)),
            Step::SetAside(path) => files.rename_durably(path, &aside(path)).map_err(io_error(path)),
            Step::Cut { path, length } => files.truncate_durably(path, *length).map_err(io_error(path)),
        }
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn aside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}{}", names::REMOVED_PREFIX, names::name_before(name_of(path))))
}

/// The records of a log from `offset` on, in a log of their own, without the zeros behind them.
fn copy_rest(files: &Files, path: &Path, offset: u64, to: &Path) -> io::Result<()> {
    let from = files.open(path)?;
    let length = from.length()?;
    let end = match last_non_zero(&*from, offset, length) {
        Ok(last) => last.map_or(offset, |last| last + 1),
        Err(error) if files::is_lost(&error) => length,
        Err(error) => return Err(error),
    };
    let mut copy = Stream::new(files.create(to)?);
    let mut header = [0; HEADER_BYTES];
    read_exact(&*from, &mut header, 0)?;
    copy.write_all(&header)?;
    let mut at = offset;
    while at < end {
        let mut bytes = [0; COPY_BYTES];
        let part = &mut bytes[..COPY_BYTES.min(usize::try_from(end - at).unwrap_or(COPY_BYTES))];
        match read_exact(&*from, part, at) {
            Err(error) if files::is_lost(&error) => part.fill(0),
            read => read?,
        }
        copy.write_all(part)?;
        at += part.len() as u64;
    }
    copy.file().sync_all()?;
    files.sync_dir(files::parent(to))
}

/// Takes every transaction behind `to` out of logs and snapshots. `record_bytes_max`: `jute.maxbuffer` and its slack.
pub fn truncate(dirs: &DataDirs, to: Zxid, dropped: Dropped, record_bytes_max: usize) -> Result<(), TruncateError> {
    let _deciding = deciding();
    let away = Away::behind(dirs, to, dropped, record_bytes_max)?;
    let steps = plan_truncate_into(&away, dirs, to, dropped, record_bytes_max)?;
    if steps.iter().any(Step::keeps) {
        away.tell(dirs, dropped);
    }
    take_all(dirs.files(), &steps)
}

/// Announces that a snapshot as of `zxid` is about to replace this history.
pub fn prepare_install(
    dirs: &DataDirs,
    zxid: Zxid,
    dropped: Dropped,
    record_bytes_max: usize,
) -> Result<(), TruncateError> {
    let _deciding = deciding();
    let away = Away::behind(dirs, Zxid::ZERO, dropped, record_bytes_max)?;
    away.tell(dirs, dropped);
    take_all(dirs.files(), &away.announce(dirs, zxid)?)
}

/// Removes all logs, and all snapshots but the one as of `zxid`, which is there and durable; keeps them where it was
/// announced that they are kept.
pub fn finish_install(dirs: &DataDirs, zxid: Zxid) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(dirs.files(), &plan_finish_install(dirs, zxid)?)
}

/// Before anything is recovered: finishes the installation during which the last process ended, if its snapshot is there.
pub fn resume_install(dirs: &DataDirs) -> Result<(), TruncateError> {
    let _deciding = deciding();
    take_all(dirs.files(), &plan_resume_install(dirs)?)
}

fn take_all(files: &Files, steps: &[Step]) -> Result<(), TruncateError> {
    for step in steps {
        match step {
            Step::SetAside(path) => info!("{} is not part of the history any more", path.display()),
            Step::Keep { path, folder } => info!("{} is moved into {}", path.display(), folder.display()),
            Step::Cut { path, length } => info!("{} is cut at offset {length}", path.display()),
            Step::Announce(..)
            | Step::Rename { .. }
            | Step::MakeFolder(_)
            | Step::CopyRest { .. }
            | Step::Remove(_) => {}
        }
        step.take(files)?;
    }
    for step in steps {
        if let Step::SetAside(path) = step
            && names::is_leftover(name_of(&aside(path)))
            && let Err(error) = files.remove(&aside(path))
        {
            // Tried again at the next start.
            warn!("{} cannot be removed: {error}", aside(path).display());
        }
    }
    Ok(())
}

/// Where files go that are not part of the history any more.
struct Away {
    logs: Dir,
    snapshots: Dir,
    /// The name of the folder; `None`: they are removed.
    folder: Option<String>,
    /// Transactions in the logs that go.
    counted: Counted,
    /// The first and the last one that anything tells of; if not all was read, a first one that none is in front of.
    extent: (Zxid, Zxid),
}

/// Transactions in logs, as far as they were read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Counted {
    count: u64,
    extent: Option<(Zxid, Zxid)>,
    /// There may be more of them: not all was read.
    is_part: bool,
    /// Behind the last one, too: the newest log was not read to its end.
    is_open_ended: bool,
}

impl Counted {
    /// Those behind `to`, from the newest log backwards, until so many bytes of them are read. Whatever ends the reading of a
    /// log is no reason not to keep the files.
    fn behind(files: &Files, logs: &[Found], to: Zxid, record_bytes_max: usize, bytes_max: u64) -> Counted {
        let mut counted = Counted::default();
        let mut left = bytes_max;
        for (newer, log) in select(logs.to_vec(), to.next()).into_iter().rev().enumerate() {
            let (bytes, is_whole) =
                if left > 0 { counted.add(files, log, to, record_bytes_max, left) } else { (0, false) };
            counted.is_part |= !is_whole;
            counted.is_open_ended |= !is_whole && newer == 0;
            left = left.saturating_sub(bytes);
        }
        counted
    }

    /// Adds what is behind `to` in a log, and in front of what is counted: a newer log may begin with repeats of this one.
    /// Whole records behind damage count. Gives the bytes that were read from the first record behind `to` on (those in
    /// front of it are read for the cut, too), and whether that was all of it.
    fn add(&mut self, files: &Files, log: Found, to: Zxid, record_bytes_max: usize, bytes_max: u64) -> (u64, bool) {
        let end = self.extent.map_or(Zxid(i64::MAX), |(first, _)| first);
        let Ok(mut file) = LogFile::open(files, log.path, record_bytes_max) else { return (0, false) };
        let (mut from, mut is_whole) = (0, true);
        loop {
            match file.next_entry() {
                Ok(Some(entry)) => {
                    let zxid = entry.txn.header.zxid;
                    if zxid > to && zxid < end {
                        self.count += 1;
                        let (first, last) = self.extent.unwrap_or((zxid, zxid));
                        self.extent = Some((first.min(zxid), last.max(zxid)));
                    }
                    if zxid <= to {
                        from = file.offset();
                    }
                }
                Ok(None) => return (file.offset() - from, is_whole),
                Err(_) => {
                    is_whole = false;
                    if !file.find_next().unwrap_or(false) {
                        return (file.offset() - from, false);
                    }
                }
            }
            if file.offset() - from >= bytes_max {
                return (file.offset() - from, false);
            }
        }
    }

    /// `last`, as what anything tells of.
    fn up_to(&self, last: Zxid) -> String {
        format!("up to {}{last}", if self.is_open_ended { "at least " } else { "" })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.is_part) {
            (0, true) => write!(f, "transactions whose number cannot be read"),
            (count, true) => write!(f, "at least {count} transactions"),
            (count, false) => write!(f, "{count} transactions"),
        }
    }
}

impl Away {
    /// For what is behind a transaction.
    fn behind(dirs: &DataDirs, to: Zxid, dropped: Dropped, record_bytes_max: usize) -> Result<Away, TruncateError> {
        Away::behind_read(dirs, to, dropped, record_bytes_max, COUNTED_BYTES_MAX)
    }

    /// The same, when so many bytes of logs are read.
    fn behind_read(
        dirs: &DataDirs,
        to: Zxid,
        dropped: Dropped,
        record_bytes_max: usize,
        bytes_max: u64,
    ) -> Result<Away, TruncateError> {
        let prefix = match dropped {
            Dropped::Contained => return Ok(Away::into(dirs, None)),
            Dropped::Tail | Dropped::Foreign => names::CUT_PREFIX,
            Dropped::Unproven => names::REPLACED_PREFIX,
        };
        let list = |listed: io::Result<Vec<Found>>, dir: &Path| listed.map_err(io_error(dir));
        let logs = list(names::list_logs(&dirs.logs), &dirs.logs)?;
        let snapshots = list(names::list_snapshots(&dirs.snapshots), &dirs.snapshots)?;
        let counted = Counted::behind(dirs.files(), &logs, to, record_bytes_max, bytes_max);
        let mut found: Vec<Zxid> = logs.iter().chain(&snapshots).map(|file| file.zxid).collect();
        found.extend(counted.extent.iter().flat_map(|(first, last)| [*first, *last]));
        // What was not read may begin anywhere behind `to`, and the copy of a log must not be named by what is behind that.
        found.extend((counted.is_part && to > Zxid::ZERO).then(|| to.next()));
        found.retain(|zxid| *zxid > to);
        let Some((first, last)) = found.iter().min().zip(found.iter().max()) else {
            return Ok(Away::into(dirs, None));
        };
        let name = format!("{prefix}{:x}-{:x}", first.0, last.0);
        let is_free =
            |name: &String| [&dirs.logs, &dirs.snapshots].iter().all(|dir| !dir.files.exists(&dir.join(name)));
        let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}.{n}")));
        let mut away = Away::into(dirs, names.find(is_free));
        (away.counted, away.extent) = (counted, (*first, *last));
        Ok(away)
    }

    fn into(dirs: &DataDirs, folder: Option<String>) -> Away {
        let (logs, snapshots) = (dirs.logs.clone(), dirs.snapshots.clone());
        Away { logs, snapshots, folder, counted: Counted::default(), extent: (Zxid::ZERO, Zxid::ZERO) }
    }

    /// The steps, and in front of them the folders, if anything goes there.
    fn with_folders(&self, steps: Vec<Step>) -> Vec<Step> {
        let folder = self.folder.as_ref().filter(|_| steps.iter().any(Step::keeps));
        let mut folders: Vec<PathBuf> =
            folder.iter().flat_map(|folder| [self.logs.join(folder), self.snapshots.join(folder)]).collect();
        folders.dedup();
        folders.into_iter().map(Step::MakeFolder).chain(steps).collect()
    }

    /// A state as of this zxid is installed, and what is here goes into the folder.
    fn announce(&self, dirs: &DataDirs, zxid: Zxid) -> Result<Vec<Step>, TruncateError> {
        let snapshots = names::list_snapshots(&dirs.snapshots).map_err(io_error(&dirs.snapshots))?;
        let old = snapshots.into_iter().filter(|snapshot| snapshot.exact && snapshot.zxid == zxid);
        let mut steps: Vec<Step> = old
            .map(|Found { path, name, .. }| Step::Rename { to: path.with_file_name(names::before_name(&name)), path })
            .collect();
        let path = dirs.snapshots.join(names::installing_name(zxid));
        steps.push(Step::Announce(path, format!("{}\n", self.folder.as_deref().unwrap_or_default())));
        Ok(steps)
    }

    fn file(&self, found: &Found) -> Step {
        let path = found.path.clone();
        match &self.folder {
            Some(folder) => Step::Keep { folder: files::parent(&path).join(folder), path },
            None => Step::SetAside(path),
        }
    }

    fn files<'a>(&self, found: impl IntoIterator<Item = &'a Found>) -> Vec<Step> {
        found.into_iter().map(|found| self.file(found)).collect()
    }

    /// The log ends there, and what is behind goes away.
    fn rest_of(&self, log: &Found, offset: u64, has_records: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(folder) = self.folder.as_ref().filter(|_| has_records) {
            let name = format!("{}.rest-of-{}", names::log_name(self.extent.0), log.name);
            let to = self.logs.join(folder).join(name);
            steps.push(Step::CopyRest { path: log.path.clone(), offset, to });
        }
        steps.push(Step::Cut { path: log.path.clone(), length: offset });
        steps
    }

    fn tell(&self, dirs: &DataDirs, dropped: Dropped) {
        let Some(folder) = &self.folder else { return };
        let (counted, (first, last), mut place) =
            (&self.counted, self.extent, self.logs.join(folder).display().to_string());
        if self.logs != self.snapshots {
            place = format!("{place} and {}", self.snapshots.join(folder).display());
        }
        let up_to = counted.up_to(last);
        if counted.count == 0 && !counted.is_part {
            return info!("snapshots of what is no part of the history any more are kept in {place}");
        }
        // What cannot be counted is told at the next start.
        let beside = match replaced::find(dirs) {
            Ok(Some(before)) => format!("; beside it there are from before: {before}"),
            Ok(None) | Err(_) => String::new(),
        };
        match dropped {
            Dropped::Tail => warn!(
                "{counted}, {first} {up_to}, are taken off the end of this server's history, as its leader says: \
                 they are kept in {place}. What the leader has of them it sends again; of the rest nobody was told, if no \
                 server lost its data. Remove that folder when nothing in it is missed{beside}"
            ),
            Dropped::Foreign => warn!(
                "{counted}, {first} {up_to}, are taken out of this server's log again: a leader with another history sent \
                 them. They are kept in {place}. Remove that folder when nothing in it is missed{beside}"
            ),
            Dropped::Contained | Dropped::Unproven => warn!(
                "{counted}, {up_to}, are replaced by the leader's history, which is not proven to hold \
                 them: their files are kept in {place}. Remove that folder when nothing in it is missed{beside}"
            ),
        }
    }
}

/// What [`truncate`] does.
pub fn plan_truncate(
    dirs: &DataDirs,
    to: Zxid,
    dropped: Dropped,
    record_bytes_max: usize,
) -> Result<Vec<Step>, TruncateError> {
    plan_truncate_into(&Away::behind(dirs, to, dropped, record_bytes_max)?, dirs, to, dropped, record_bytes_max)
}

fn plan_truncate_into(
    away: &Away,
    dirs: &DataDirs,
    to: Zxid,
    dropped: Dropped,
    record_bytes_max: usize,
) -> Result<Vec<Step>, TruncateError> {
    let Snapshots { whole, broken } = Snapshots::list(dirs)?;
    let base = check_way_back(dirs, &whole, to, record_bytes_max)?;
    let mut steps = away.files(&broken);
    steps.extend(plan_cut(away, dirs, to, base.next(), record_bytes_max)?);
    steps.extend(away.files(whole.iter().rev().filter(|snapshot| snapshot.zxid > to)));
    // It is for a leader's history that takes the place of this one.
    if let Dropped::Tail | Dropped::Unproven = dropped {
        steps.extend(consent_used(dirs));
    }
    Ok(away.with_folders(steps))
}

/// What [`prepare_install`] does.
pub fn plan_prepare_install(
    dirs: &DataDirs,
    zxid: Zxid,
    dropped: Dropped,
    record_bytes_max: usize,
) -> Result<Vec<Step>, TruncateError> {
    Away::behind(dirs, Zxid::ZERO, dropped, record_bytes_max)?.announce(dirs, zxid)
}

/// What [`finish_install`] does.
pub fn plan_finish_install(dirs: &DataDirs, zxid: Zxid) -> Result<Vec<Step>, TruncateError> {
    let Snapshots { whole, broken } = Snapshots::list(dirs)?;
    let installing = installing(dirs)?;
    let Some(installed) = find_installed(&whole, zxid) else {
        let source = io::Error::new(io::ErrorKind::NotFound, format!("the snapshot as of {zxid} is not there"));
        return Err(TruncateError::Io { path: dirs.snapshots.to_path_buf(), source });
    };
    let away = Away::into(dirs, announced_folder(&dirs.snapshots, &installing, zxid)?);
    let logs = names::list_logs(&dirs.logs).map_err(io_error(&dirs.logs))?;
    let mut steps = away.files(logs.iter().rev());
    steps.extend(away.files(whole.iter().rev().filter(|snapshot| *snapshot != installed)));
    steps.extend(away.files(&broken));
    steps.extend(consent_used(dirs));
    steps.extend(installing.into_iter().map(|found| Step::Remove(found.path)));
    Ok(away.with_folders(steps))
}

/// The folder for what is there, as it was announced; `None`: that is removed. A name that this program does not give is
/// none.
fn announced_folder(dir: &Dir, installing: &[Found], zxid: Zxid) -> Result<Option<String>, TruncateError> {
    let Some(found) = installing.iter().find(|found| found.zxid == zxid) else { return Ok(None) };
    let read = dir
        .read_small(&found.name)
        .and_then(|bytes| String::from_utf8(bytes.unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidData.into()));
    let text = read.map_err(io_error(&found.path))?;
    let name = text.lines().next().unwrap_or_default();
    let is_ours = |prefix| names::parse_kept(name, prefix).is_some() && !name.contains('/');
    Ok(names::KEPT_PREFIXES.into_iter().any(is_ours).then(|| name.to_owned()))
}

/// The snapshot that was installed, if it is there: those of before have another name.
fn find_installed(whole: &[Found], zxid: Zxid) -> Option<&Found> {
    whole.iter().find(|snapshot| snapshot.exact && snapshot.zxid == zxid)
}

/// An operator's consent is for one history.
fn consent_used(dirs: &DataDirs) -> Option<Step> {
    dirs.files().exists(&dirs.give_up).then(|| Step::Remove(dirs.give_up.clone()))
}

/// What [`resume_install`] does.
pub fn plan_resume_install(dirs: &DataDirs) -> Result<Vec<Step>, TruncateError> {
    let installing = installing(dirs)?;
    let Snapshots { whole, broken } = Snapshots::list(dirs)?;
    if let Some(announced) = installing.iter().find(|announced| find_installed(&whole, announced.zxid).is_some()) {
        return plan_finish_install(dirs, announced.zxid);
    }
    // Names are given back when nothing is announced any more: what has the exact name would be the new one.
    let mut steps: Vec<Step> = installing.into_iter().map(|found| Step::Remove(found.path)).collect();
    for Found { path, name, .. } in whole.into_iter().chain(broken) {
        let to = path.with_file_name(names::name_before(&name));
        if to != path && !dirs.files().exists(&to) {
            steps.push(Step::Rename { path, to });
        }
    }
    Ok(steps)
}

fn installing(dirs: &DataDirs) -> Result<Vec<Found>, TruncateError> {
    names::list_installing(&dirs.snapshots).map_err(io_error(&dirs.snapshots))
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
            match looks_complete(dirs.files(), &found.path) {
                Ok(true) => whole.push(found),
                Ok(false) => broken.push(found),
                // A copy that somebody took away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if files::is_lost(&error) => broken.push(found),
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
    let impossible = |why: String| Err(TruncateError::Impossible { logs: dirs.logs.to_path_buf(), to, why });
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

/// Takes every record behind `to` out of the logs that hold transactions from `from` on, newest file first. The file that
/// ends with `to` need not be the only one to hold it: it may begin with repeats of what the one before it holds.
fn plan_cut(
    away: &Away,
    dirs: &DataDirs,
    to: Zxid,
    from: Zxid,
    record_bytes_max: usize,
) -> Result<Vec<Step>, TruncateError> {
    let (behind, rest): (Vec<Found>, Vec<Found>) =
        names::list_logs(&dirs.logs).map_err(io_error(&dirs.logs))?.into_iter().partition(|log| log.zxid > to);
    let mut steps = away.files(behind.iter().rev());
    for log in select(rest, Zxid::ZERO).iter().rev() {
        let end = match end_of(dirs.files(), &log.path, to, record_bytes_max) {
            Ok(end) => end,
            Err(LogError::Io { path, source }) if !files::is_lost(&source) => {
                return Err(TruncateError::Io { path, source });
            }
            // Recovery does not read past this either. It refuses, as it would without us.
            Err(LogError::Io { .. } | LogError::Damaged { .. } | LogError::NotATxn { .. }) => break,
        };
        // What stands behind the record may be a tear or padding: it goes too, so that the file ends as a newest log does.
        if end.offset < end.length && end.ending != Ending::Unfinished {
            let has_records = holds_something(dirs.files(), &log.path, end.offset, end.length)?;
            steps.extend(away.rest_of(log, end.offset, has_records));
        }
        if end.offset > HEADER_BYTES as u64 && log.zxid < from {
            break;
        }
    }
    Ok(steps)
}

/// Whether anything but zeros stands in this part of a file, as far as the disk can tell.
fn holds_something(files: &Files, path: &Path, from: u64, to: u64) -> Result<bool, TruncateError> {
    let file = files.open(path).map_err(io_error(path))?;
    match last_non_zero(&*file, from, to) {
        Ok(last) => Ok(last.is_some()),
        Err(error) if files::is_lost(&error) => Ok(true),
        Err(error) => Err(io_error(path)(error)),
    }
}

#[cfg(test)]
mod tests;
