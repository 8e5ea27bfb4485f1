//! `rookeeper purge`: removes the snapshots and logs that a server does not need any more, by the rule it goes by itself
//! (`storage::purge`). A server may be running: what it needs is kept. Called by `cli::purge` and `scripts`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::thread;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::inspect::{FOUND, Failure, Folders, GOOD, Outcome, progress};
use crate::storage::names::{Found, list_snapshots};
use crate::storage::purge::{Removals, Verified, list_unneeded, verify_newest};
use crate::sys::files::{CUT_BYTES, CUT_PAUSE, Files};

/// What a purge comes to.
#[derive(Debug)]
pub struct Plan {
    /// What may go, logs first, as Apache's tool has it.
    pub old: Vec<Found>,
    /// Damaged snapshots among the newest, which stay, with the reason.
    pub damaged: Vec<(PathBuf, String)>,
}

impl Plan {
    /// Damage is for whoever looks after the data, whatever was removed.
    pub fn exit_code(&self) -> i32 {
        if self.damaged.is_empty() { GOOD } else { FOUND }
    }
}

/// Looks at the newest snapshots, whether anything would go or not, and says which are damaged.
pub fn plan(folders: &Folders, retain: usize) -> Result<Plan, Failure> {
    let dirs = folders.dirs();
    for dir in [&dirs.snapshots, &dirs.logs] {
        if !dir.is_dir() {
            return Err(Failure::unable(format!("{}: there is no such folder", dir.display())));
        }
    }
    // Of a snapshot that it may not read a running server only knows that it does not count. Whoever asks as the wrong user
    // would take "nothing to remove" for an answer.
    for found in list_snapshots(&dirs.snapshots).map_err(Failure::at(&dirs.snapshots))? {
        match File::open(&found.path) {
            Err(error) if found.exact && error.kind() == ErrorKind::PermissionDenied => {
                return Err(Failure::at(&found.path)(error));
            }
            _ => (),
        }
    }
    let proven = verify_newest(&dirs, retain).map_err(Failure::at(&dirs.snapshots))?;
    let mut old = list_unneeded(&dirs, retain, &proven).map_err(Failure::at(&dirs.snapshots))?;
    old.sort_by_key(|found| (!found.name.starts_with("log"), found.zxid));
    tell_of_damage(&proven, retain);
    Ok(Plan { old, damaged: proven.bad })
}

fn tell_of_damage(proven: &Verified, retain: usize) {
    for (path, reason) in &proven.bad {
        eprintln!("{} is not whole: {reason}; it does not count, and older ones stay in its place", path.display());
    }
    if let Some(why) = proven.why_nothing_goes(retain) {
        eprintln!("{why}");
    }
    if !proven.bad.is_empty() {
        eprintln!("Look at the disk. Damaged snapshots go by a later purge, once enough newer ones are good");
    }
}

/// A bar over the removal of these files.
pub fn bar(old: &[Found]) -> ProgressBar {
    progress::files("removing", old.iter().map(|found| found.path.as_path()))
}

/// Removes one file, gently.
pub fn remove(found: &Found, bar: &ProgressBar) -> std::io::Result<()> {
    let end = bar.position() + std::fs::metadata(&found.path)?.len();
    let mut removals = Removals::new(&Files::host());
    removals.add(&found.path)?;
    while !removals.is_empty() {
        removals.step()?;
        bar.set_position(end.min(bar.position() + CUT_BYTES));
        // A running server syncs its log to the same disk.
        thread::sleep(CUT_PAUSE);
    }
    Ok(())
}

/// Removes what may go, or with `dry_run` only says so.
pub fn purge(folders: &Folders, retain: usize, dry_run: bool, as_json: bool, out: &mut dyn Write) -> Outcome {
    let (mut removed, mut bytes, mut failed) = (Vec::new(), 0, 0);
    let plan = plan(folders, retain)?;
    let bar = if dry_run { ProgressBar::hidden() } else { bar(&plan.old) };
    for found in &plan.old {
        let length = std::fs::metadata(&found.path).map_or(0, |file| file.len());
        let done = if dry_run { Ok(()) } else { remove(found, &bar) };
        match done {
            Ok(()) => {
                if !as_json {
                    let done = if dry_run { "would remove" } else { "removed" };
                    bar.suspend(|| writeln!(out, "{done} {}", found.path.display()))?;
                }
                bytes += length;
                removed.push(found.path.display().to_string());
            }
            Err(error) => {
                bar.suspend(|| eprintln!("{}: cannot be removed: {error}", found.path.display()));
                failed += 1;
            }
        }
    }
    bar.finish_and_clear();
    if as_json {
        let damaged: Vec<Value> = plan
            .damaged
            .iter()
            .map(|(path, reason)| json!({ "file": path.display().to_string(), "reason": reason }))
            .collect();
        let said = json!({
            "dry_run": dry_run, "files": removed, "bytes": bytes, "failed": failed, "damaged": damaged,
        });
        writeln!(out, "{said}")?;
    } else {
        writeln!(out, "{} files, {bytes} bytes", removed.len())?;
    }
    Ok(if failed == 0 { plan.exit_code() } else { FOUND })
}
