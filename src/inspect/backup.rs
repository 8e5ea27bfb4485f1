//! `rookeeper backup`: a consistent copy of a data directory, whether or not its server runs; and the manifest, which
//! `restore` reads. Called by `cli::backup`.
//!
//! A running server appends to its newest log, adds and purges files, and may take history back or replace it. So the copy
//! is made in an order that leaves it a state that the server had:
//!
//! 1. The epochs, before the history: what is copied then is at least the history that they speak of. The other way
//!    round the copy could claim an epoch without all of the history that made it, and win an election with it.
//! 2. The newest snapshot that looks complete. Whatever it holds was logged before, so the logs that follow reach it.
//! 3. Every log that it needs, oldest first, record by record up to the last whole one: a log has its successor only when
//!    it is complete, so the copy is a beginning of the history without a hole.
//! 4. A look back: each file copied must still be there, no shorter than what was copied of it. If not, history was
//!    taken back or purged meanwhile, and it begins again.
//! 5. The proof: the copy is recovered as a server would, every digest compared. If that fails, an older snapshot may do.
//!
//! A copy is itself a data directory: its `version-2` holds the snapshot and the logs. The epochs are in the manifest
//! only: `restore` decides whether they belong to the new server.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::ids::Zxid;
use crate::inspect::checksum::{Sum, Summing, copy};
use crate::inspect::{FOUND, Failure, Folders, GOOD, Outcome, RECORD_BYTES_MAX, progress};
use crate::quorum::{Epochs, WrongJoin};
use crate::records::OwnerRules;
use crate::state::StateRules;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs;
use crate::storage::logdir::{Ending, LogFile, select};
use crate::storage::names::{self, Found};
use crate::storage::purge::looks_complete;
use crate::storage::recover::{OnRead, Origin, RecoverOptions, recover_watched};
use crate::storage::tail::Tail;
use crate::storage::txnlog::{self, END_BYTE, HEADER_BYTES};
use crate::storage::wrong_join;
use crate::sys::files::{self, Dir, Files};

/// The manifest's name in a backup.
pub const MANIFEST: &str = "manifest.json";
/// Version of the manifest.
const FORMAT: u64 = 1;
/// How often a copy is begun anew because the server changed its history meanwhile.
const CHANGES_MAX: usize = 5;
/// How often the end of a log is read again because a write seems to be under way there.
const TAIL_ATTEMPTS: usize = 25;
/// The time between two of them.
const TAIL_PAUSE: Duration = Duration::from_millis(20);

/// What a copy holds, as found by recovering it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The last transaction.
    pub zxid: Zxid,
    /// Znodes.
    pub nodes: usize,
    /// Sessions.
    pub sessions: usize,
    /// Of the tree.
    pub digest: u64,
    /// How often a digest on disk was not that of the nodes. Apache may write a wrong one into a snapshot that it takes
    /// while it applies transactions, without harm.
    pub digest_mismatches: u64,
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// In `version-2`.
    pub name: String,
    /// What it is.
    pub sum: Sum,
}

/// What a backup says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Program and version that made it.
    pub made_by: String,
    /// When, ms since 1970.
    pub time_ms: i64,
    /// The data directory it was made from.
    pub source: String,
    /// What it holds.
    pub content: Content,
    /// For a member of an ensemble.
    pub epochs: Epochs,
    /// What a member knows of a leader that told nothing of its history, or had another one: it may have no voice for that.
    pub wrong_join: Option<WrongJoin>,
    /// The snapshot first.
    pub files: Vec<Entry>,
}

impl Manifest {
    fn to_json(&self) -> Value {
        let file = |entry: &Entry| json!({ "name": entry.name, "bytes": entry.sum.bytes, "sha256": entry.sum.sha256 });
        json!({
            "format": FORMAT,
            "made_by": self.made_by,
            "time_ms": self.time_ms,
            "source": self.source,
            "zxid": self.content.zxid.to_string(),
            "nodes": self.content.nodes,
            "sessions": self.content.sessions,
            "digest": format!("{:#x}", self.content.digest),
            "digest_mismatches": self.content.digest_mismatches,
            "accepted_epoch": self.epochs.accepted,
            "current_epoch": self.epochs.current,
            "wrong_join": self.wrong_join.as_ref().map(wrong_join::text),
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
        })
    }

    /// Reads the one of a backup.
    pub fn read(backup: &Path) -> Result<Manifest, Failure> {
        let path = backup.join(MANIFEST);
        let text = fs::read(&path).map_err(|error| {
            let hint = "a backup has one, unless it was never finished";
            Failure::unable(format!("{}: {error}; {hint}", path.display()))
        })?;
        let bad = |what: &str| Failure::unable(format!("{}: {what}", path.display()));
        let value: Value = serde_json::from_slice(&text).map_err(|error| bad(&format!("is not JSON: {error}")))?;
        if value["format"].as_u64() != Some(FORMAT) {
            return Err(bad("is of another version of this program"));
        }
        Manifest::from_json(&value).ok_or_else(|| bad("lacks a field, or has one that makes no sense"))
    }

    fn from_json(value: &Value) -> Option<Manifest> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let hex = |value: &Value| u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok();
        let count = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let epoch = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let entry = |value: &Value| {
            let name = text(&value["name"])?;
            // Nothing but a file of its folder.
            let known = [names::parse_log(&name), names::parse_snapshot(&name)];
            known.iter().flatten().find(|(_, exact)| *exact)?;
            Some(Entry { name, sum: Sum { bytes: value["bytes"].as_u64()?, sha256: text(&value["sha256"])? } })
        };
        Some(Manifest {
            made_by: text(&value["made_by"])?,
            time_ms: value["time_ms"].as_i64()?,
            source: text(&value["source"])?,
            content: Content {
                zxid: Zxid(i64::try_from(hex(&value["zxid"])?).ok()?),
                nodes: count(&value["nodes"])?,
                sessions: count(&value["sessions"])?,
                digest: hex(&value["digest"])?,
                digest_mismatches: value["digest_mismatches"].as_u64()?,
            },
            epochs: Epochs { accepted: epoch(&value["accepted_epoch"])?, current: epoch(&value["current_epoch"])? },
            // Backups of earlier versions say nothing of it.
            wrong_join: match &value["wrong_join"] {
                Value::Null => None,
                mark => Some(wrong_join::parse(mark.as_str()?.as_bytes())?),
            },
            files: value["files"].as_array()?.iter().map(entry).collect::<Option<_>>()?,
        })
    }
}

/// Recovers the data in these folders, and says what it is.
pub fn verify(dirs: &DataDirs) -> Result<Content, String> {
    // Whoever owns a node: that key is not in the files.
    let owners = OwnerRules::default();
    let options = RecoverOptions {
        rules: StateRules::new(owners, true),
        datadir_autocreate: false,
        db_autocreate: false,
        trust_empty: false,
        record_bytes_max: RECORD_BYTES_MAX,
        recent_max: 0,
        as_of: None,
        force_sync: true,
        repairable: false,
    };
    let listed =
        names::list_snapshots(&dirs.snapshots).and_then(|snapshots| Ok((snapshots, names::list_logs(&dirs.logs)?)));
    let (snapshots, logs) = listed.map_err(|error| error.to_string())?;
    let bar = progress::files("proving", snapshots.iter().chain(&logs).map(|found| found.path.as_path()));
    let moved = bar.clone();
    let recovered = recover_watched(dirs, &options, &(Arc::new(move |read: usize| moved.inc(read as u64)) as OnRead));
    bar.finish_and_clear();
    let recovered = recovered.map_err(|error| error.to_string())?;
    let state = &recovered.state;
    if !matches!(recovered.origin, Origin::Snapshot(_)) {
        return Err("it holds no snapshot".into());
    }
    Ok(Content {
        zxid: state.last_zxid(),
        nodes: state.tree().len(),
        sessions: state.session_count(),
        digest: state.tree_digest(),
        digest_mismatches: state.digest_mismatches(),
    })
}

/// What is wrong with a snapshot and the logs behind it.
#[derive(Debug)]
enum Damage {
    /// A server would not start with them.
    Unusable(String),
    /// It would, and count so many wrong digests.
    Digests(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Unusable(why) => f.write_str(why),
            Damage::Digests(count) => write!(f, "{count} digests are not those of the nodes"),
        }
    }
}

/// Why a copy is none.
enum Refused {
    /// The server changed its history meanwhile.
    Changed(String),
    /// This snapshot, or a log behind it, is damaged.
    Damaged(Damage),
    /// The disk.
    Failed(Failure),
}

/// A file that was copied, and as far as it was.
struct Copied {
    from: PathBuf,
    inode: u64,
    /// Bytes of it that the copy relies on.
    bytes: u64,
    entry: Entry,
}

impl Copied {
    /// Whether the file still is what was copied, or goes on behind it.
    fn check_source(&self) -> Result<(), Refused> {
        let same = fs::metadata(&self.from).is_ok_and(|now| now.ino() == self.inode && now.len() >= self.bytes);
        if same {
            return Ok(());
        }
        Err(Refused::Changed(format!("{}: it was changed or removed while it was copied", self.from.display())))
    }
}

/// Copies `folders` to the new folder `to`, proves the copy and prints what it holds.
pub fn backup(folders: &Folders, to: &Path, wall_ms: i64, as_json: bool, out: &mut dyn Write) -> Outcome {
    make_empty(to)?;
    let dirs = folders.dirs();
    let copy_dirs = DataDirs::new(to, None);
    let (mut changes, mut tolerant, mut passed_over) = (0, false, Vec::new());
    let manifest = loop {
        let Some(snapshot) = choose(&dirs, &passed_over)? else {
            if tolerant || !passed_over.iter().any(|(_, damage)| matches!(damage, Damage::Digests(_))) {
                return Err(no_snapshot(&dirs, &passed_over));
            }
            // None is better: the newest then, and everybody is told.
            tolerant = true;
            passed_over.retain(|(_, damage)| !matches!(damage, Damage::Digests(_)));
            continue;
        };
        make_private(&copy_dirs.snapshots).map_err(Failure::at(&copy_dirs.snapshots))?;
        let refused = match attempt(&dirs, &snapshot, &copy_dirs) {
            Ok((content, ..)) if content.digest_mismatches > 0 && !tolerant => {
                Refused::Damaged(Damage::Digests(content.digest_mismatches))
            }
            Ok((content, epochs, files)) => {
                let made_by = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
                let source = folders.data.display().to_string();
                // As it is behind the copy: a mark that is there too long costs a voice until a leader's history has come.
                let wrong_join = wrong_join::read(&dirs.snapshots).map_err(Failure::unable)?;
                break Manifest { made_by, time_ms: wall_ms, source, content, epochs, wrong_join, files };
            }
            Err(refused) => refused,
        };
        fs::remove_dir_all(&copy_dirs.snapshots).map_err(Failure::at(&copy_dirs.snapshots))?;
        match refused {
            Refused::Failed(failure) => return Err(failure),
            Refused::Damaged(damage) => {
                eprintln!("{}: {damage}; an older snapshot is tried", snapshot.path.display());
                passed_over.push((snapshot.zxid, damage));
            }
            Refused::Changed(why) if changes < CHANGES_MAX => {
                eprintln!("{why}; begun anew");
                changes += 1;
            }
            Refused::Changed(why) => return Err(Failure::unable(format!("{why}; so it went {CHANGES_MAX} times"))),
        }
    };
    let path = to.join(MANIFEST);
    let text = format!("{:#}\n", manifest.to_json());
    let written = create_private(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let written = written.and_then(|()| copy_dirs.snapshots.sync()).and_then(|()| Dir::of_host(to).sync());
    written.map_err(Failure::at(&path))?;
    if as_json {
        writeln!(out, "{}", manifest.to_json())?;
    } else {
        print(&manifest, "backed up and proved by recovering the copy", to, out)?;
    }
    Ok(if manifest.content.digest_mismatches == 0 { GOOD } else { FOUND })
}

/// What is in a backup, or was restored.
pub fn print(manifest: &Manifest, what: &str, to: &Path, out: &mut dyn Write) -> io::Result<()> {
    let Content { zxid, nodes, sessions, digest, digest_mismatches } = &manifest.content;
    let bytes: u64 = manifest.files.iter().map(|entry| entry.sum.bytes).sum();
    writeln!(out, "{}: {what}", to.display())?;
    writeln!(out, "zxid {zxid}, {nodes} nodes, {sessions} sessions, digest {digest:x}")?;
    if *digest_mismatches > 0 {
        writeln!(
            out,
            "{digest_mismatches} digests on disk are not those of the nodes: compare with another member's data"
        )?;
    }
    writeln!(out, "{} files, {bytes} bytes", manifest.files.len())
}

/// Makes a folder that nobody else may look into: what is in a backup passes by all ACLs.
fn make_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Makes a file that nobody else may read.
fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Insists that a folder is empty, or makes it.
fn make_empty(dir: &Path) -> Result<(), Failure> {
    if !dir.exists() {
        let parent = files::parent(dir);
        fs::create_dir_all(parent).map_err(Failure::at(parent))?;
        make_private(dir).map_err(Failure::at(dir))?;
    }
    if fs::read_dir(dir).map_err(Failure::at(dir))?.next().is_some() {
        return Err(Failure::unable(format!("{}: it is not empty; name a new folder", dir.display())));
    }
    Ok(())
}

/// The newest snapshot that looks complete and was not found wanting.
fn choose(dirs: &DataDirs, passed_over: &[(Zxid, Damage)]) -> Result<Option<Found>, Failure> {
    let snapshots = names::list_snapshots(&dirs.snapshots).map_err(Failure::at(&dirs.snapshots))?;
    let known = |found: &Found| passed_over.iter().any(|(zxid, _)| *zxid == found.zxid);
    for found in snapshots.into_iter().rev().filter(|found| found.exact && !known(found)) {
        match looks_complete(dirs.files(), &found.path) {
            Ok(true) => return Ok(Some(found)),
            // An older one would not be what was asked for.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::at(&found.path)(error));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn no_snapshot(dirs: &DataDirs, passed_over: &[(Zxid, Damage)]) -> Failure {
    let dir = dirs.snapshots.display();
    if passed_over.is_empty() {
        return Failure::unable(format!("{dir}: no whole snapshot is there; a server makes one at its start"));
    }
    let reasons: Vec<String> = passed_over.iter().map(|(zxid, damage)| format!("as of {zxid}: {damage}")).collect();
    let message = format!("{dir}: no snapshot can be backed up with its logs ({})", reasons.join("; "));
    Failure { code: FOUND, message }
}

type Attempt = Result<(Content, Epochs, Vec<Entry>), Refused>;

fn attempt(dirs: &DataDirs, snapshot: &Found, to: &DataDirs) -> Attempt {
    let epochs = epochs::peek(&dirs.snapshots).map_err(|error| Refused::Failed(Failure::unable(error)))?;
    let mut copied = vec![copy_snapshot(snapshot, &to.snapshots)?];
    let listed = names::list_logs(&dirs.logs).map_err(|error| Refused::Failed(Failure::at(&dirs.logs)(error)))?;
    let logs = select(listed, snapshot.zxid.next());
    for (at, log) in logs.iter().enumerate() {
        let needed = Needed { from: snapshot.zxid.next(), next_log: logs.get(at + 1).map(|log| log.zxid) };
        copied.extend(copy_log(log, needed, &to.snapshots)?);
    }
    copied.iter().try_for_each(Copied::check_source)?;
    let content = verify(to).map_err(|why| Refused::Damaged(Damage::Unusable(why)))?;
    let of_history = content.zxid.epoch();
    // Whoever has a transaction of an epoch has the history that the epoch began with.
    let current = epochs.map_or(0, |epochs| epochs.current).max(of_history);
    let accepted = epochs.map_or(0, |epochs| epochs.accepted).max(current);
    Ok((content, Epochs { accepted, current }, copied.into_iter().map(|copied| copied.entry).collect()))
}

/// A source that is gone was purged; everything else is the disk's.
fn gone(path: &Path) -> impl FnOnce(io::Error) -> Refused {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => Refused::Changed(format!("{}: it was removed", path.display())),
        _ => Refused::Failed(Failure::at(path)(error)),
    }
}

fn copy_snapshot(snapshot: &Found, to: &Path) -> Result<Copied, Refused> {
    let before = fs::metadata(&snapshot.path).map_err(gone(&snapshot.path))?;
    let bar = progress::bytes(&snapshot.name, before.len());
    let target = to.join(&snapshot.name);
    let file = create_private(&target).map_err(|error| Refused::Failed(Failure::at(&target)(error)))?;
    let sum = copy(&snapshot.path, file, &bar).map_err(gone(&snapshot.path))?;
    bar.finish_and_clear();
    let entry = Entry { name: snapshot.name.clone(), sum };
    // A snapshot that is being removed is cut first.
    Ok(Copied { from: snapshot.path.clone(), inode: before.ino(), bytes: before.len(), entry })
}

/// What of a log a start would read: what is not in the snapshot. Damage in front of that is none of its concern.
#[derive(Clone, Copy)]
struct Needed {
    /// The first transaction that is not in the snapshot.
    from: Zxid,
    /// The first one of the next log.
    next_log: Option<Zxid>,
}

/// Copies the records of a log; `None` if it has none.
fn copy_log(log: &Found, needed: Needed, to: &Path) -> Result<Option<Copied>, Refused> {
    let mut tries = 0;
    loop {
        let before = fs::metadata(&log.path).map_err(gone(&log.path))?;
        let bar = progress::bytes(&log.name, before.len());
        let copied = copy_records(log, needed, &to.join(&log.name), &bar);
        bar.finish_and_clear();
        let (sum, ending) = match copied {
            Ok(copied) => copied,
            // The end of a running server's log may be half written.
            Err(Refused::Damaged(_)) if tries < TAIL_ATTEMPTS => {
                tries += 1;
                thread::sleep(TAIL_PAUSE);
                continue;
            }
            Err(refused) => return Err(refused),
        };
        if matches!(ending, Some(Ending::Torn(_) | Ending::Unfinished)) && tries < TAIL_ATTEMPTS {
            tries += 1;
            thread::sleep(TAIL_PAUSE);
            continue;
        }
        if sum.bytes <= HEADER_BYTES as u64 {
            let copy = to.join(&log.name);
            fs::remove_file(&copy).map_err(|error| Refused::Failed(Failure::at(&copy)(error)))?;
            return Ok(None);
        }
        let entry = Entry { name: names::log_name(log.zxid), sum };
        return Ok(Some(Copied { from: log.path.clone(), inode: before.ino(), bytes: entry.sum.bytes, entry }));
    }
}

fn copy_records(log: &Found, needed: Needed, to: &Path, bar: &ProgressBar) -> Result<(Sum, Option<Ending>), Refused> {
    use crate::storage::logdir::LogError;
    let refuse = |error: LogError| match error {
        LogError::Io { path, source } => gone(&path)(source),
        damaged => Refused::Damaged(Damage::Unusable(damaged.to_string())),
    };
    let at = |error: io::Error| Refused::Failed(Failure::at(to)(error));
    let mut file = LogFile::open(&Files::host(), log.path.clone(), RECORD_BYTES_MAX).map_err(refuse)?;
    // A try before may have left one.
    let to_file = File::options().write(true).create(true).truncate(true).mode(0o600).open(to).map_err(at)?;
    let mut copy = Summing::new(io::BufWriter::new(to_file));
    if file.ending().is_none() {
        let mut header = [0; HEADER_BYTES];
        let read = File::open(&log.path).and_then(|file| file.read_exact_at(&mut header, 0));
        read.map_err(gone(&log.path))?;
        copy.write_all(&header).map_err(at)?;
    }
    let rest_is_needed = needed.next_log.is_none_or(|next| next > needed.from);
    let mut broken = None;
    loop {
        let entry = match file.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(LogError::Damaged { .. }) if !rest_is_needed => break,
            Err(error @ LogError::Damaged { .. }) if file.find_next().map_err(refuse)? => {
                broken = Some(error);
                continue;
            }
            Err(error) => return Err(refuse(error)),
        };
        if let Some(error) = broken.take().filter(|_| entry.txn.header.zxid > needed.from) {
            return Err(refuse(error));
        }
        let payload = file.payload();
        for part in [&txnlog::prefix(payload)[..], payload, &[END_BYTE]] {
            copy.write_all(part).map_err(at)?;
        }
        bar.set_position(file.offset());
    }
    // Between two tries a running server finishes what it is writing; what stays unreadable is for a start to judge.
    if rest_is_needed && matches!(file.judge_tail(true).map_err(refuse)?, Tail::Damaged { .. }) {
        let what = format!("{} is damaged at offset {}", log.path.display(), file.offset());
        return Err(Refused::Damaged(Damage::Unusable(what)));
    }
    let (writer, sum) = copy.finish();
    let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    written.map_err(at)?;
    Ok((sum, file.ending()))
}

#[cfg(test)]
mod tests;
