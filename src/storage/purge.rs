//! Which snapshots and logs are not needed any more (`PurgeTxnLog`, `autopurge`), and their removal. The decision is
//! pure; the snapshot thread applies it.
//!
//! Kept are the newest N snapshots that are whole, every log from the oldest of them on and the one log that reaches
//! below it. Each is read anew before anything goes, since what was good when it was written may not be any more; a
//! snapshot that fails does not count, and while fewer than N are good nothing goes. Apache looks at the first and last
//! bytes, and deletes strays too (`log.junk`, `log.5.bak`); here only exact names go.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Compression;
use crate::ids::Zxid;
use crate::storage::dirs::DataDirs;
use crate::storage::names::{self, Found};
use crate::storage::snapshot::{self, SnapshotError};
use crate::sys::files::{Cut, Files, read_exact};
use crate::sys::paced_file::PacedReader;

/// Smallest number of snapshots that may be asked for.
pub const RETAIN_MIN: usize = 3;

/// Bytes at the end of a snapshot that the cheap check looks at.
const END_BYTES: usize = 5;

/// The cheap check of a snapshot, by its first and last bytes. A plain one is nearly never fooled: the last thing
/// written is the mark it looks for.
pub fn looks_complete(files: &Files, path: &Path) -> io::Result<bool> {
    let file = files.open(path)?;
    let length = file.length()?;
    let mut first = [0; 10];
    let mut last = [0; END_BYTES];
    let have = first.len().min(length as usize);
    read_exact(&*file, &mut first[..have], 0)?;
    if length >= END_BYTES as u64 {
        read_exact(&*file, &mut last, length - END_BYTES as u64)?;
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    Ok(Compression::of_name(name).looks_complete(&first[..have], &last))
}

/// What the cheap check found wrong with a snapshot.
pub fn why_incomplete(files: &Files, path: &Path) -> &'static str {
    let ends_with_zeros = || -> io::Result<bool> {
        let (file, mut last) = (files.open(path)?, [1; END_BYTES]);
        read_exact(&*file, &mut last, file.length()?.saturating_sub(END_BYTES as u64))?;
        Ok(last == [0; END_BYTES])
    };
    match ends_with_zeros() {
        Ok(true) => "ends with zero bytes, where the mark of its end should be: they were never written, or appended",
        _ => "is cut short",
    }
}

/// What may go, given everything that is there and which snapshots are whole. Nothing, without a whole one.
fn to_purge<'a>(
    snapshots: &'a [Found],
    logs: &'a [Found],
    whole: impl Fn(&Found) -> bool,
    retain: usize,
) -> Vec<&'a Found> {
    let mut kept: Vec<Zxid> = snapshots.iter().filter(|s| s.exact && whole(s)).map(|s| s.zxid).collect();
    kept.sort_unstable();
    kept.dedup();
    let Some(&oldest) = kept.get(kept.len().saturating_sub(retain.max(RETAIN_MIN))) else { return Vec::new() };
    let reaching = logs.iter().map(|l| l.zxid).filter(|zxid| *zxid <= oldest).max();
    let old_snapshots = snapshots.iter().filter(|s| s.exact && s.zxid < oldest);
    let old_logs = logs.iter().filter(|l| l.exact && l.zxid < oldest && Some(l.zxid) != reaching);
    old_snapshots.chain(old_logs).collect()
}

/// Reads a snapshot from the disk to its end, gently, and checks all that is sealed in it.
pub fn verify(files: &Files, path: &Path) -> Result<(), SnapshotError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    snapshot::check(Compression::of_name(name).reader(PacedReader::open(files, path)?)).map(drop)
}

/// The snapshots that are to stay, verified.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    good: Vec<PathBuf>,
    /// What was looked at and is not whole, with the reason.
    pub bad: Vec<(PathBuf, String)>,
}

impl Verified {
    /// Whether enough of them are good that others may go.
    fn suffices(&self, retain: usize) -> bool {
        self.bad.is_empty() || self.good.len() >= retain.max(RETAIN_MIN)
    }

    /// If nothing may go because too few are good: why.
    pub fn why_nothing_goes(&self, retain: usize) -> Option<String> {
        let (good, bad, wanted) = (self.good.len(), self.bad.len(), retain.max(RETAIN_MIN));
        (!self.suffices(retain)).then(|| {
            format!(
                "nothing is removed: of the newest {} snapshots {bad} are damaged, and {wanted} good ones are to stay",
                good + bad
            )
        })
    }
}

/// [`verify_newest`]; `None` if nothing would go anyway.
pub fn verify_kept(dirs: &DataDirs, retain: usize) -> io::Result<Option<Verified>> {
    if list_old(dirs, retain, |found| looks_complete(dirs.files(), &found.path).unwrap_or(false))?.is_empty() {
        return Ok(None);
    }
    verify_newest(dirs, retain).map(Some)
}

/// Verifies the newest snapshots, until as many as are to stay are good. It takes as long as they are large. One that cannot
/// be read for another reason than its data is an error: it may be good.
pub fn verify_newest(dirs: &DataDirs, retain: usize) -> io::Result<Verified> {
    verify_newest_by(dirs, retain, |path| verify(dirs.files(), path))
}

fn verify_newest_by(
    dirs: &DataDirs,
    retain: usize,
    verify: impl Fn(&Path) -> Result<(), SnapshotError>,
) -> io::Result<Verified> {
    let mut verified = Verified::default();
    for found in names::list_snapshots(&dirs.snapshots)?.into_iter().rev().filter(|found| found.exact) {
        if verified.good.len() >= retain.max(RETAIN_MIN) {
            break;
        }
        match verify(&found.path) {
            Ok(()) => verified.good.push(found.path),
            // It was replaced or removed meanwhile.
            Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.is_of_data() => verified.bad.push((found.path, error.to_string())),
            Err(error) => return Err(io::Error::other(format!("{} {error}", found.path.display()))),
        }
    }
    Ok(verified)
}

/// The files of the folders that may go, by what was verified.
pub fn list_unneeded(dirs: &DataDirs, retain: usize, verified: &Verified) -> io::Result<Vec<Found>> {
    if !verified.suffices(retain) {
        return Ok(Vec::new());
    }
    list_old(dirs, retain, |found| verified.good.contains(&found.path))
}

fn list_old(dirs: &DataDirs, retain: usize, whole: impl Fn(&Found) -> bool) -> io::Result<Vec<Found>> {
    let snapshots = names::list_snapshots(&dirs.snapshots)?;
    let logs = names::list_logs(&dirs.logs)?;
    Ok(to_purge(&snapshots, &logs, whole, retain).into_iter().cloned().collect())
}

/// Held by whoever decides which files go, until they have gone from sight: what one of them relies on, another must not
/// take away.
pub fn deciding() -> MutexGuard<'static, ()> {
    static DECIDING: Mutex<()> = Mutex::new(());
    DECIDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file that is not needed any more.
pub fn removed_name(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    path.with_file_name(format!("{}{name}", names::REMOVED_PREFIX))
}

/// Files on their way out: renamed first, so that a half removed one is never taken for whole, then cut in small steps
/// (see [`Cut`]), then removed.
#[derive(Debug)]
pub struct Removals {
    files: Files,
    waiting: VecDeque<PathBuf>,
    cutting: Option<(Cut, PathBuf)>,
}

impl Removals {
    /// None yet, in this file system.
    pub fn new(files: &Files) -> Removals {
        Removals { files: files.clone(), waiting: VecDeque::new(), cutting: None }
    }

    /// The file system.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Sends every file of the folders that may go on its way; gives how many.
    pub fn purge(&mut self, dirs: &DataDirs, retain: usize, verified: &Verified) -> io::Result<usize> {
        for (path, reason) in &verified.bad {
            log::warn!(
                "{} is not whole: {reason}. It does not count, and older ones stay in its place",
                path.display()
            );
        }
        if let Some(why) = verified.why_nothing_goes(retain) {
            log::warn!("{why}");
        }
        let _deciding = deciding();
        let old = list_unneeded(dirs, retain, verified)?;
        for found in &old {
            log::info!("purging {}", found.path.display());
            self.add(&found.path)?;
        }
        if !old.is_empty() {
            dirs.snapshots.sync()?;
            dirs.logs.sync()?;
        }
        Ok(old.len())
    }

    /// Sends a file on its way.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        let removed = removed_name(path);
        self.files.rename(path, &removed)?;
        self.add_renamed(removed);
        Ok(())
    }

    /// Sends a file on its way that has its [`removed_name`] already.
    pub fn add_renamed(&mut self, removed: PathBuf) {
        self.waiting.push_back(removed);
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.cutting.is_none()
    }

    /// Does a bit of it. A file that resists is left for the next start.
    pub fn step(&mut self) -> io::Result<()> {
        let Some((mut cut, path)) = self.take()? else { return Ok(()) };
        if cut.step()? {
            self.cutting = Some((cut, path));
            return Ok(());
        }
        self.files.remove(&path)
    }

    fn take(&mut self) -> io::Result<Option<(Cut, PathBuf)>> {
        if self.cutting.is_some() {
            return Ok(self.cutting.take());
        }
        let Some(path) = self.waiting.pop_front() else { return Ok(None) };
        match self.files.open_to_write(&path) {
            Ok(file) => Ok(Some((Cut::new(file, 0)?, path))),
            // Another one of the same name was sent on its way meanwhile, and has gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{State, StateRules};
    use crate::storage::snapshot::SnapshotWriter;
    use std::fs;

    fn snapshots(list: &[&str]) -> Vec<Found> {
        named(list, names::parse_snapshot)
    }

    fn logs(list: &[&str]) -> Vec<Found> {
        named(list, names::parse_log)
    }

    fn named(list: &[&str], parse: fn(&str) -> Option<(Zxid, bool)>) -> Vec<Found> {
        list.iter()
            .map(|name| {
                let (zxid, exact) = parse(name).unwrap();
                Found { zxid, exact, name: (*name).into(), path: (*name).into() }
            })
            .collect()
    }

    fn purged(snaps: &[&str], log_names: &[&str], broken: &[&str]) -> Vec<String> {
        let (snaps, log_names) = (snapshots(snaps), logs(log_names));
        let complete = |found: &Found| !broken.contains(&found.name.as_str());
        to_purge(&snaps, &log_names, complete, 3).into_iter().map(|f| f.name.clone()).collect()
    }

    #[test]
    fn the_log_that_reaches_below_the_oldest_kept_snapshot_stays() {
        let snaps = ["snapshot.0", "snapshot.65", "snapshot.a3", "snapshot.167"];
        assert_eq!(purged(&snaps, &["log.1", "log.50", "log.70", "log.ec"], &[]), ["snapshot.0", "log.1"]);
        assert_eq!(purged(&snaps, &["log.1", "log.65", "log.70"], &[]), ["snapshot.0", "log.1"]);
    }

    #[test]
    fn snapshots_that_are_not_whole_do_not_count() {
        let snaps = ["snapshot.0", "snapshot.65", "snapshot.a3", "snapshot.167"];
        assert!(purged(&snaps, &["log.1", "log.70"], &["snapshot.167"]).is_empty());
        assert!(purged(&snaps, &["log.1", "log.70"], &snaps).is_empty());
    }

    /// A folder with snapshots as of 1 to `last`, and a log that begins with each.
    fn folder(last: i64) -> (tempfile::TempDir, DataDirs) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).unwrap();
        let mut state = State::fresh(StateRules::default());
        for zxid in 1..=last {
            let mut writer = SnapshotWriter::new(Compression::None, Vec::new()).unwrap();
            writer.write(&state.begin_cut()).unwrap();
            let mut done = false;
            while !done {
                let (bytes, last) = state.cut_slice(usize::MAX);
                writer.write(&bytes).unwrap();
                done = last;
            }
            let bytes = writer.finish(Zxid(zxid), None, true).unwrap();
            fs::write(dirs.snapshots.join(format!("snapshot.{zxid:x}")), bytes).unwrap();
            fs::write(dirs.logs.join(format!("log.{zxid:x}")), b"").unwrap();
        }
        (dir, dirs)
    }

    fn names_in(dirs: &DataDirs) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&dirs.logs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn flip_a_byte(dirs: &DataDirs, zxid: i64) {
        let path = dirs.snapshots.join(format!("snapshot.{zxid:x}"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(path, bytes).unwrap();
    }

    fn purge(dirs: &DataDirs) -> usize {
        let mut removals = Removals::new(&Files::host());
        let removed = match verify_kept(dirs, 3).unwrap() {
            Some(verified) => removals.purge(dirs, 3, &verified).unwrap(),
            None => 0,
        };
        while !removals.is_empty() {
            removals.step().unwrap();
        }
        removed
    }

    #[test]
    fn what_may_go_goes_in_steps_and_under_another_name() {
        let (_dir, dirs) = folder(5);
        let mut removals = Removals::new(&Files::host());
        let verified = verify_kept(&dirs, 3).unwrap().unwrap();
        assert_eq!(removals.purge(&dirs, 3, &verified).unwrap(), 4);
        let names = names_in(&dirs);
        assert!(names.iter().filter(|name| names::is_leftover(name)).count() == 4, "{names:?}");
        while !removals.is_empty() {
            removals.step().unwrap();
        }
        assert_eq!(names_in(&dirs), ["log.3", "log.4", "log.5", "snapshot.3", "snapshot.4", "snapshot.5"]);
        assert!(verify_kept(&dirs, 3).unwrap().is_none(), "nothing is read when nothing would go");
    }

    #[test]
    fn snapshots_with_a_flipped_byte_do_not_count_and_the_good_ones_stay_with_their_logs() {
        let (_dir, dirs) = folder(9);
        [6, 8, 9].into_iter().for_each(|zxid| flip_a_byte(&dirs, zxid));
        // Good are 7, 5 and 4: they stay, with all behind them.
        assert_eq!(verify_newest(&dirs, 3).unwrap().why_nothing_goes(3), None);
        assert_eq!(purge(&dirs), 6);
        let kept: Vec<String> =
            ["log", "snapshot"].iter().flat_map(|n| (4..=9).map(move |z| format!("{n}.{z}"))).collect();
        assert_eq!(names_in(&dirs), kept);
    }

    #[test]
    fn a_snapshot_that_may_be_good_but_cannot_be_read_ends_the_purge() {
        let (_dir, dirs) = folder(5);
        let fails_with = |code| {
            verify_newest_by(&dirs, 3, |path: &Path| {
                if path.ends_with("snapshot.5") {
                    Err(io::Error::from_raw_os_error(code).into())
                } else {
                    verify(dirs.files(), path)
                }
            })
        };
        for code in [libc::EMFILE, libc::EACCES, libc::ENOMEM] {
            let error = fails_with(code).unwrap_err().to_string();
            assert!(error.contains("snapshot.5"), "{error}");
        }
        // What the disk has lost is bad.
        assert_eq!(fails_with(libc::EIO).unwrap().bad.len(), 1);
    }

    #[test]
    fn the_last_good_snapshot_never_goes() {
        let (_dir, dirs) = folder(5);
        (3..=5).for_each(|zxid| flip_a_byte(&dirs, zxid));
        let before = names_in(&dirs);
        assert_eq!(purge(&dirs), 0);
        assert_eq!(names_in(&dirs), before);
        let why = verify_newest(&dirs, 3).unwrap().why_nothing_goes(3).unwrap();
        assert_eq!(why, "nothing is removed: of the newest 5 snapshots 3 are damaged, and 3 good ones are to stay");
        (1..=2).for_each(|zxid| flip_a_byte(&dirs, zxid));
        assert_eq!(purge(&dirs), 0);
        assert_eq!(names_in(&dirs), before);
    }

    #[test]
    fn what_an_end_that_is_not_there_looks_like_is_said() {
        let (_dir, dirs) = folder(1);
        let path = dirs.snapshots.join("snapshot.1");
        let whole = fs::read(&path).unwrap();
        let incomplete = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            assert!(!looks_complete(dirs.files(), &path).unwrap());
            why_incomplete(dirs.files(), &path)
        };
        assert_eq!(incomplete(&whole[..whole.len() - 1]), "is cut short");
        let zeros = incomplete(&[&whole[..], &[0; 4096]].concat());
        assert!(zeros.starts_with("ends with zero bytes, where the mark of its end should be"), "{zeros}");
        assert_eq!(incomplete(&[]), "is cut short");
    }

    #[test]
    fn strays_are_never_purged() {
        let snaps = ["snapshot.1", "snapshot.1.tmp", "snapshot.5", "snapshot.6.gz", "snapshot.7"];
        assert_eq!(purged(&snaps, &["log.1", "log.1.bak", "log.4", "log.6"], &[]), ["snapshot.1", "log.1"]);
    }
}
