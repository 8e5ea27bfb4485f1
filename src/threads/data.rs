//! The data before a server starts: its folders are locked, there is room in them, and what they hold is recovered. Called
//! by `threads::start`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::metrics;
use crate::quiet::Quiet;
use crate::storage::dirs::DataDirs;
use crate::storage::purge::{Removals, verify_kept};
use crate::storage::recover::{self, Origin, Recovered};
use crate::storage::replaced;
use crate::sys::clock;
use crate::sys::exit::ExitCode;
use crate::sys::files::{self, lock_dir};
use crate::sys::notify::Notify;
use crate::sys::stop;
use crate::sys::systemd::sandbox_remedy;
use crate::threads::options;
use crate::threads::start::StartError;

/// Between two looks whether there is room, and between two lines that say that there is none.
const ROOM_PAUSE: Duration = Duration::from_secs(1);
const ROOM_COMPLAINT_MS: i64 = 60_000;
/// How much longer a start may take from each look on.
const ROOM_EXTENSION_US: u64 = 60_000_000;

/// Two servers on the same data would destroy it: the second one ends here.
pub fn lock(config: &Config, dirs: &DataDirs) -> Result<Vec<File>, StartError> {
    dirs.prepare(config.storage.datadir_autocreate).map_err(|error| StartError::new(error.exit_code(), error))?;
    // The same folder may go by two names.
    let mut folders: Vec<PathBuf> =
        [&dirs.snapshots, &dirs.logs].map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf())).into();
    folders.dedup();
    let mut locks = Vec::new();
    for dir in folders {
        locks.extend(locked(&dir, lock_dir(&dir), config.storage.lock_data_dir)?);
    }
    Ok(locks)
}

/// What an attempt to lock a folder means; `is_wanted` is `dataDirLock`.
fn locked(dir: &Path, lock: io::Result<Option<File>>, is_wanted: bool) -> Result<Option<File>, StartError> {
    let path = dir.display();
    match lock {
        Ok(Some(lock)) => Ok(Some(lock)),
        // It may end, as one that zkServer.sh started does.
        Ok(None) => Err(StartError::new(
            ExitCode::Unexpected,
            format!("{path}: another server has this data; stop it first, or give this one a dataDir of its own"),
        )),
        Err(error) if files::knows_no_locks(&error) && is_wanted => Err(StartError::new(
            ExitCode::DataDir,
            format!(
                "{path} cannot be locked, for its file system knows no locks ({error}), and two servers on the same data \
                 would destroy it. Mount it with locks (on NFS: without nolock, with rpc.statd running), use a local disk, \
                 or set dataDirLock=no in zoo.cfg and see to it yourself that no other server has this folder"
            ),
        )),
        Err(error) if files::knows_no_locks(&error) => {
            log::warn!("{path} is not locked ({error}; dataDirLock=no): a second server here would destroy the data");
            Ok(None)
        }
        Err(error) => {
            let advice = files::advice(&error);
            Err(StartError::new(ExitCode::Unexpected, format!("{path} cannot be locked: {error}; {advice}")))
        }
    }
}

/// On a full disk this server could serve for a moment at most, on a read-only one not at all: it waits until it can write,
/// before anybody can connect, and says so.
pub fn wait_for_room(config: &Config) {
    let dirs = DataDirs::new(&config.data_dir, Some(&config.data_log_dir));
    let Some(first) = obstacle(&dirs) else { return };
    if files::is_full(&first) {
        make_room(config, &dirs);
    }
    let mut quiet = Quiet::every(ROOM_COMPLAINT_MS);
    while let Some(error) = obstacle(&dirs) {
        let what = if files::is_full(&error) { "no room for the data" } else { "the data cannot be written" };
        let what = format!("{what}: {error}");
        if quiet.pass(clock::now().mono_ms).is_some() {
            let advice = files::advice(&error);
            log::error!("{what}; {advice}. This server waits, serves nobody, and goes on by itself after that");
        }
        if let Some(mut manager) = Notify::from_env() {
            manager.tell(&format!("STATUS=waiting: {what}\nEXTEND_TIMEOUT_USEC={ROOM_EXTENSION_US}"));
        }
        if let Some(signal) = stop::sleep_unless_stopped(ROOM_PAUSE) {
            log::info!("{signal}: stopped while waiting for room");
            std::process::exit(ExitCode::Finished as i32);
        }
    }
    log::info!("the data can be written again: starting");
}

/// What a start waits for. Where the unit alone lets nobody write, no waiting helps, and the start fails with what does.
fn obstacle(dirs: &DataDirs) -> Option<io::Error> {
    let is_of_unit = |error: &io::Error| {
        [&dirs.snapshots, &dirs.logs].iter().any(|dir| sandbox_remedy(files::parent(dir), error).is_some())
    };
    let is_awaited = |error: &io::Error| files::is_full(error) || files::is_read_only(error) && !is_of_unit(error);
    dirs.check_room().err().filter(is_awaited)
}

/// Removes what autopurge would, were there room enough to start; from a history that is whole.
fn make_room(config: &Config, dirs: &DataDirs) {
    let Ok(_locks) = lock(config, dirs) else { return };
    let is_whole =
        || recover::recover(dirs, &options::recover_options(config)).is_ok_and(|found| found.damage.is_none());
    if config.storage.purge_interval_ms.is_none() || !is_whole() {
        return;
    }
    log::warn!("no room for the data in {}: what autopurge removes goes now", dirs.logs.display());
    let retain = config.storage.snap_retain_count as usize;
    let mut removals = Removals::new(dirs.files());
    let purged = verify_kept(dirs, retain).and_then(|proven| match proven {
        Some(proven) => removals.purge(dirs, retain, &proven).map(drop),
        None => Ok(()),
    });
    let mut removed = purged;
    while removed.is_ok() && !removals.is_empty() {
        removed = removals.step();
    }
    if let Err(error) = removed {
        log::warn!("an old snapshot or log cannot be removed: {error}");
    }
}

/// Brings back what is on disk, and says what it is.
pub fn recover(config: &Config, dirs: &DataDirs) -> Result<Recovered, StartError> {
    let options = options::recover_options(config);
    let begun_us = clock::mono_us();
    let recovered = recover::recover(dirs, &options).map_err(|error| {
        let code = error.exit_code();
        let hint = if code == ExitCode::Snapshot { "; make room, then start again" } else { "" };
        StartError::new(code, format!("{}{hint}", error.with_way_out()))
    })?;
    replaced::warn_of_all(dirs);
    metrics::DBINITTIME.record((clock::mono_us() - begun_us) / 1000);
    metrics::STARTUP_TXNS_LOADED.record(i64::try_from(recovered.replayed).unwrap_or(i64::MAX));
    if let Some(damage) = &recovered.damage {
        log::error!(
            "{damage}. Do not empty, cut or replace its files: this server takes no part in elections and serves nobody until \
             a leader that was elected without it has sent it everything. Start the other servers; which are missing is \
             said here if no leader comes"
        );
    }
    match &recovered.origin {
        Origin::Nothing => log::warn!(
            "{} has no data of ZooKeeper's: this server begins with nothing. If it had data, stop it and mend dataDir",
            dirs.snapshots.display()
        ),
        Origin::NothingUnexpectedly => log::warn!(
            "{} has no data of ZooKeeper's, db.autocreate is false, and there is no file {}: this server does not vote \
             until it has the data of a leader. If it is new, run zkServer-initialize.sh",
            dirs.snapshots.display(),
            dirs.initialize.display()
        ),
        Origin::Snapshot(_) | Origin::Logs | Origin::Unreadable => {}
    }
    log::info!(
        "recovered {} nodes as of {} in {} ms ({} transactions replayed)",
        recovered.state.tree().len(),
        recovered.state.last_zxid(),
        (clock::mono_us() - begun_us) / 1000,
        recovered.replayed
    );
    Ok(recovered)
}

/// Whether the newest snapshot is the state itself; else one is due, so that the next start is quick.
pub fn is_up_to_date(recovered: &Recovered) -> bool {
    !matches!(recovered.origin, Origin::Logs) && recovered.replayed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_locked_is_a_choice_with_a_key() {
        let of = |number, is_wanted| locked(Path::new("/data"), Err(io::Error::from_raw_os_error(number)), is_wanted);
        for number in [libc::ENOLCK, libc::ENOSYS] {
            let refused = of(number, true).unwrap_err();
            assert!(refused.message.contains("dataDirLock=no") && refused.code == ExitCode::DataDir, "{refused:?}");
            assert!(of(number, false).unwrap().is_none());
        }
        // Anything else is no matter of the file system.
        assert_eq!(of(libc::EIO, false).unwrap_err().code, ExitCode::Unexpected);
        let taken = locked(Path::new("/data"), Ok(None), false).unwrap_err();
        assert!(taken.message.contains("another server has this data"));
        // That one may end: a later start may do better.
        assert_eq!(taken.code, ExitCode::Unexpected);
    }
}
