//! `rookeeper restore`: a new data directory from a backup. Called by `cli::restore`.
//!
//! Everything is put together and proved under other names; then the folders get theirs, that of the logs first. A
//! server that finds only the logs refuses to start, so a restore that was interrupted is never taken for whole.
//!
//! | file | alone | member | why |
//! |---|---|---|---|
//! | snapshot, logs | yes | yes | the history |
//! | `currentEpoch` | no | as backed up, at least the last transaction's epoch | whose history this is; decides elections before the zxid does |
//! | `acceptedEpoch` | no | as backed up, at least currentEpoch | a promise to follow no leader of an older epoch: kept |
//! | `myid` | no | yes | who the server is |
//! | `currentEpoch.tmp` | no | no | it only says that an epoch is being changed, which it is not |
//! | `wrong-join` | no | as backed up | it may say that this server must not help to elect |
//! | `foreign-histories` | no | no | it is found out anew |
//! | `initialize` | no | no | it is about an empty database |
//!
//! A server alone reads no epochs; were it put into an ensemble later, it would make both from its last transaction.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde_json::json;

use crate::inspect::backup::{Entry, Manifest, print, verify};
use crate::inspect::checksum::copy;
use crate::inspect::{FOUND, Failure, Folders, GOOD, Outcome, progress};
use crate::storage::dirs::DataDirs;
use crate::storage::{epochs, names, wrong_join};
use crate::sys::files::{Dir, Files};

/// What the folders are called until they are whole.
const UNFINISHED: &str = "unfinished-restore";
/// What a data directory may hold before: the mark of a file system, and who the server is.
const HARMLESS: [&str; 2] = ["lost+found", "myid"];

/// Restores a backup into new folders; with `my_id` as a member of an ensemble.
pub fn restore(backup: &Path, folders: &Folders, my_id: Option<i64>, as_json: bool, out: &mut dyn Write) -> Outcome {
    let manifest = Manifest::read(backup)?;
    let owner = fs::metadata(&folders.data).ok().map(|dir| (dir.uid(), dir.gid()));
    for dir in [Some(&folders.data), folders.logs.as_ref()].into_iter().flatten() {
        check_new(dir)?;
        Files::host().create_dirs(dir).map_err(Failure::at(dir))?;
    }
    check_my_id(&folders.data, my_id)?;
    let target = folders.dirs();
    let log_dir = folders.logs.as_ref().unwrap_or(&folders.data);
    let unfinished = DataDirs {
        snapshots: Dir::of_host(folders.data.join(UNFINISHED)),
        logs: Dir::of_host(log_dir.join(UNFINISHED)),
        initialize: log_dir.join("initialize"),
        give_up: target.give_up.clone(),
    };
    let result = fill(backup, &manifest, &unfinished, my_id).and_then(|()| finish(&unfinished, &target));
    if let Err(failure) = result {
        for dir in [&unfinished.snapshots, &unfinished.logs] {
            // What cannot be removed now is in the way of the next try, which says so.
            let _ = fs::remove_dir_all(dir);
        }
        return Err(failure);
    }
    if let Some(id) = my_id {
        let path = folders.data.join("myid");
        let files = Files::host();
        let written = files.write_durably(&path, format!("{id}\n").as_bytes());
        written.and_then(|()| files.sync_dir(&folders.data)).map_err(Failure::at(&path))?;
    }
    give_to(owner, &target, folders)?;
    if as_json {
        let content = &manifest.content;
        let value = json!({
            "data_dir": folders.data.display().to_string(),
            "zxid": content.zxid.to_string(),
            "nodes": content.nodes,
            "digest": format!("{:#x}", content.digest),
            "my_id": my_id,
            "current_epoch": my_id.map(|_| manifest.epochs.current),
            "accepted_epoch": my_id.map(|_| manifest.epochs.accepted),
        });
        writeln!(out, "{value}")?;
    } else {
        print(&manifest, "restored, and proved by recovering it", &folders.data, out)?;
        match my_id {
            Some(id) => writeln!(
                out,
                "member {id}, current epoch {}, accepted epoch {}",
                manifest.epochs.current, manifest.epochs.accepted
            )?,
            None => writeln!(out, "for a server that runs alone")?,
        }
    }
    Ok(GOOD)
}

/// Insists that nothing is there that could be somebody's data.
fn check_new(dir: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::at(dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(Failure::at(dir))?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            let what = format!("it holds {}; restore into a new folder, or move it away", name.display());
            return Err(Failure::unable(format!("{}: {what}", dir.display())));
        }
    }
    Ok(())
}

fn check_my_id(data: &Path, wanted: Option<i64>) -> Result<(), Failure> {
    let path = data.join("myid");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    match wanted {
        Some(id) if text.lines().next() != Some(&id.to_string()) => {
            Err(Failure::unable(format!("{}: it says {:?}, not {id}; remove it first", path.display(), text.trim())))
        }
        _ => Ok(()),
    }
}

fn fill(backup: &Path, manifest: &Manifest, to: &DataDirs, my_id: Option<i64>) -> Result<(), Failure> {
    for dir in [&to.snapshots, &to.logs] {
        fs::create_dir_all(dir).map_err(Failure::at(dir))?;
    }
    let from = DataDirs::new(backup, None).snapshots;
    for Entry { name, sum } in &manifest.files {
        let dir = if names::parse_log(name).is_some() { &to.logs } else { &to.snapshots };
        let (source, target) = (from.join(name), dir.join(name));
        let bar = progress::bytes(name, sum.bytes);
        let file = File::create(&target).map_err(Failure::at(&target))?;
        let found = copy(&source, file, &bar).map_err(Failure::at(&source))?;
        bar.finish_and_clear();
        if found != *sum {
            let what = format!("{} bytes, sha256 {}", sum.bytes, sum.sha256);
            let message = format!("{}: it is not what was backed up ({what}): damaged or edited", source.display());
            return Err(Failure { code: FOUND, message });
        }
    }
    let content = verify(to).map_err(|why| Failure { code: FOUND, message: format!("{}: {why}", backup.display()) })?;
    if content != manifest.content {
        let message =
            format!("{}: it recovers to {content:?}, the manifest says {:?}", backup.display(), manifest.content);
        return Err(Failure { code: FOUND, message });
    }
    if my_id.is_some() {
        epochs::write_new(&to.snapshots, manifest.epochs).map_err(Failure::unable)?;
        wrong_join::write(&to.snapshots, manifest.wrong_join.as_ref()).map_err(Failure::unable)?;
    }
    [&to.logs, &to.snapshots].into_iter().try_for_each(|dir| dir.sync().map_err(Failure::at(dir)))
}

/// Gives the folders their names.
fn finish(from: &DataDirs, to: &DataDirs) -> Result<(), Failure> {
    if from.logs != from.snapshots {
        to.files().rename_new_durably(&from.logs, &to.logs).map_err(Failure::at(&to.logs))?;
    }
    to.files().rename_new_durably(&from.snapshots, &to.snapshots).map_err(Failure::at(&to.snapshots))
}

/// Root restores, somebody else serves: whoever had the data directory has what is in it. Of a new one nobody knows whose
/// it will be.
fn give_to(owner: Option<(u32, u32)>, dirs: &DataDirs, folders: &Folders) -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let data = &folders.data;
    let Some((uid, gid)) = owner.filter(|(uid, _)| *uid != 0) else {
        let logs = folders.logs.as_ref().map_or(String::new(), |logs| format!(" {}", logs.display()));
        eprintln!("all of it is root's; unless the server runs as root: chown -R USER: {}{logs}", data.display());
        eprintln!("USER is whom the server runs as: User= of its unit, zookeeper as packaged");
        return Ok(());
    };
    let mut paths: Vec<PathBuf> = vec![data.join("myid"), dirs.snapshots.to_path_buf(), dirs.logs.to_path_buf()];
    for dir in [&dirs.snapshots, &dirs.logs] {
        for entry in fs::read_dir(dir).map_err(Failure::at(dir))? {
            paths.push(entry.map_err(Failure::at(dir))?.path());
        }
    }
    for path in paths.into_iter().filter(|path| path.exists()) {
        chown(&path, Some(uid), Some(gid)).map_err(Failure::at(&path))?;
    }
    Ok(())
}
