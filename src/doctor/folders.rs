//! What is in the data folders: who has them, what stands out, how much room is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};

use crate::doctor::disk::{PROBE_PREFIX, nearest};
use crate::doctor::facts::{Account, Folder, Leftover, LeftoverKind, Service};
use crate::doctor::service;
use crate::storage::dirs::DataDirs;
use crate::storage::{names, wrong_join};
use crate::sys::files::{self, Dir};

/// Both folders, or the one that is both, as the service finds them.
pub fn probe(dirs: &DataDirs, service: Option<&Service>) -> Vec<Folder> {
    let same = dirs.logs == dirs.snapshots;
    let mut folders = vec![probe_one(&dirs.snapshots, service)];
    folders[0].holds_snapshots = true;
    folders[0].holds_logs = same;
    if !same {
        folders.push(Folder { holds_logs: true, ..probe_one(&dirs.logs, service) });
    }
    folders
}

fn probe_one(dir: &Dir, service: Option<&Service>) -> Folder {
    let mut folder = Folder { path: dir.to_path_buf(), real_path: real_path(dir), ..Folder::default() };
    // What systemd gives to the user is the user's by the time it matters.
    let given = service.is_some_and(|service| service::is_given(service, &folder.real_path));
    let account = service.and_then(|service| service.account.as_ref()).filter(|_| !given);
    if let Some(there) = nearest(dir) {
        folder.file_system = file_system(there);
        folder.temporary = temporary(&folder.real_path);
        folder.device = fs::metadata(there).map_or(0, |found| found.dev());
        folder.free_bytes = statvfs(there).map_or(0, |found| found.blocks_available() * found.fragment_size());
    }
    match look_into(dir, account, &mut folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => folder.is_missing = true,
        Err(error) => folder.error = Some(error.to_string()),
    }
    if let Some(account) = account {
        compare(dir, account, &mut folder);
    }
    if given {
        folder.foreign.clear();
    }
    folder
}

/// Where a folder is or will be.
fn real_path(dir: &Path) -> PathBuf {
    let real = |there: &Path| Some(fs::canonicalize(there).ok()?.join(dir.strip_prefix(there).ok()?));
    nearest(dir).and_then(real).unwrap_or_else(|| dir.to_owned())
}

/// Whether a user can come to the folder, make files in it or make it, and read whose data it is.
fn compare(dir: &Path, account: &Account, folder: &mut Folder) {
    let is_closed = |path: &Path, wanted: u32| fs::metadata(path).is_ok_and(|found| !may(account, wanted, &found));
    let Some(there) = nearest(&folder.real_path).map(Path::to_owned) else { return };
    folder.owner = account.name.clone();
    folder.closed_above = there.ancestors().skip(1).find(|above| is_closed(above, 0o1)).map(Path::to_owned);
    let my_id = dir.with_file_name("myid");
    let closed = [(there, 0o7), (my_id, 0o4)].into_iter().filter(|(path, wanted)| is_closed(path, *wanted));
    folder.foreign.extend(closed.map(|(path, _)| path));
    folder.foreign.sort();
}

fn may(account: &Account, wanted: u32, found: &fs::Metadata) -> bool {
    account.may(wanted, (found.uid(), found.gid(), found.mode()))
}

fn file_system(dir: &Path) -> Option<&'static str> {
    let kind = statfs(dir).ok()?.filesystem_type();
    [(TMPFS_MAGIC, "tmpfs"), (NFS_SUPER_MAGIC, "nfs"), (OVERLAYFS_SUPER_MAGIC, "overlayfs")]
        .into_iter()
        .find_map(|(magic, name)| (kind == magic).then_some(name))
}

/// Where systemd-tmpfiles and its like remove what is old, and a start of the host may remove everything.
fn temporary(place: &Path) -> Option<&'static str> {
    ["/tmp", "/var/tmp"].into_iter().find(|temporary| place.starts_with(temporary))
}

fn look_into(dir: &Dir, account: Option<&Account>, folder: &mut Folder) -> std::io::Result<()> {
    let uid = fs::metadata(dir)?.uid();
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let owner = Account { uid, name: user.map_or_else(|| uid.to_string(), |user| user.name), gids: Vec::new() };
    folder.in_use = match files::lock_dir(dir) {
        // Whether one runs cannot be told there.
        Err(error) if files::knows_no_locks(&error) => false,
        lock => lock?.is_none(),
    };
    folder.snapshot_bytes = names::list_snapshots(dir)?
        .last()
        .and_then(|newest| fs::metadata(&newest.path).ok())
        .map_or(0, |file| file.len());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // It may be gone by now: a server may be running.
        let Ok(found) = entry.metadata() else { continue };
        if !may(account.unwrap_or(&owner), 0o6, &found) || (account.is_none() && found.uid() != uid) {
            folder.foreign.push(entry.path());
        }
        let name = entry.file_name();
        let is_data = |name: &str| names::parse_log(name).is_some() || names::parse_snapshot(name).is_some();
        if found.mode() & 0o4 != 0 && is_data(&name.to_string_lossy()) {
            folder.readable = Some(entry.path());
        }
        let kind = kind_of(&name.to_string_lossy(), folder.in_use);
        if let Some(kind) = kind.filter(|kind| *kind != LeftoverKind::WrongJoin || is_wrong(dir)) {
            let bytes = if found.is_dir() { bytes_in(&entry.path()) } else { found.len() };
            folder.leftovers.push(Leftover { path: entry.path(), kind, bytes });
        }
    }
    let is_passed = |above: &Path| fs::metadata(above).is_ok_and(|found| found.mode() & 0o1 != 0);
    if !folder.real_path.ancestors().all(is_passed) {
        folder.readable = None;
    }
    folder.owner = owner.name;
    folder.leftovers.sort_by(|a, b| a.path.cmp(&b.path));
    folder.foreign.sort();
    Ok(())
}

/// Whether what was joined is not only unproven, as is usual behind leaders that tell nothing of their histories.
fn is_wrong(dir: &Dir) -> bool {
    wrong_join::read(dir).map_or(true, |wrong| wrong.is_some_and(|wrong| wrong.unproven().is_none()))
}

/// Bytes of the files in a folder, as far as they can be seen.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// What a server that runs has under way is no leftover.
fn kind_of(name: &str, in_use: bool) -> Option<LeftoverKind> {
    let stray = [names::parse_log(name), names::parse_snapshot(name)].iter().flatten().any(|(_, exact)| !exact);
    // The next start gives such a snapshot its name back, or removes it.
    let stray = stray && names::name_before(name) == name;
    if names::is_leftover(name) || name.ends_with("Epoch.tmp") {
        (!in_use).then_some(LeftoverKind::Unfinished)
    } else if name.starts_with(names::UNCUT_PREFIX) {
        Some(LeftoverKind::Uncut)
    } else if names::KEPT_PREFIXES.into_iter().any(|prefix| names::parse_kept(name, prefix).is_some()) {
        Some(LeftoverKind::Replaced)
    } else if name == names::WRONG_JOIN {
        Some(LeftoverKind::WrongJoin)
    } else if name.starts_with(PROBE_PREFIX) {
        Some(LeftoverKind::OfTool)
    } else {
        stray.then_some(LeftoverKind::Stray)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ids::{ServerId, Zxid};
    use crate::quorum::{JoinStage, WrongJoin};

    #[test]
    fn a_place_for_temporary_files_is_known_by_where_links_lead() {
        let of = |path: &str| temporary(Path::new(path));
        assert_eq!(of("/tmp/zookeeper/version-2"), Some("/tmp"));
        assert_eq!(of("/var/tmp/zookeeper"), Some("/var/tmp"));
        assert_eq!((of("/var/lib/tmp/zookeeper"), of("/tmpfs")), (None, None));
        let elsewhere = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let link = elsewhere.path().join("data");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert_eq!(probe(&DataDirs::new(&link, None), None)[0].temporary, Some("/tmp"));
    }

    #[test]
    fn a_file_system_in_memory_is_known() {
        let shm = Path::new("/dev/shm");
        assert!(!shm.is_dir() || file_system(shm) == Some("tmpfs"));
        assert_eq!(file_system(Path::new("/proc")), None);
    }

    #[test]
    fn folders_are_looked_at_as_the_services_user_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(dir.path(), None);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let service = |uid| {
            let account = Account { name: "somebody".into(), uid, gids: vec![uid] };
            Service { account: Some(account), ..Service::default() }
        };
        let me = Uid::effective().as_raw();
        let look = |service: &Service| {
            let [folder]: [Folder; 1] = probe(&dirs, Some(service)).try_into().unwrap();
            (folder.owner, folder.foreign, folder.closed_above)
        };
        let real = fs::canonicalize(dir.path()).unwrap();
        let somebody = || "somebody".to_owned();
        assert_eq!(look(&service(me)), (somebody(), vec![], None), "it can be made");
        assert_eq!(look(&service(me + 1)), (somebody(), vec![real.clone()], None));
        dirs.prepare(true).unwrap();
        for name in ["log.5", "snapshot.4", "../myid"] {
            fs::write(dirs.logs.join(name), b"1").unwrap();
        }
        let set =
            |name: &str, mode| fs::set_permissions(dirs.logs.join(name), fs::Permissions::from_mode(mode)).unwrap();
        set("", 0o777);
        set("log.5", 0o666);
        set("snapshot.4", 0o644);
        set("../myid", 0o600);
        let closed = vec![dir.path().join("myid"), dirs.logs.join("snapshot.4")];
        assert_eq!(look(&service(me + 1)), (somebody(), closed, None));
        assert_eq!(look(&service(me)), (somebody(), vec![], None));
        let readable = || probe(&dirs, None)[0].readable.clone();
        assert!(readable().is_some());
        set("..", 0o700);
        assert_eq!(readable(), None, "nobody else comes so far");
        assert_eq!(look(&service(me + 1)).2, Some(real.clone()));
        // A folder that systemd gives to the user is somebody else's only until then.
        assert!(look(&Service { made: vec![real], ..service(me + 1) }).1.is_empty());
    }

    #[test]
    fn what_stands_out_in_a_folder_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).unwrap();
        for name in [
            "log.5",
            "log.5.bak",
            "uncut-log.1",
            "snapshot.4",
            "snapshot.3.before",
            "removed-log.2",
            "next-log.0",
            "myid",
            "wrong-join",
        ] {
            fs::write(dirs.logs.join(name), b"abc").unwrap();
        }
        for name in ["replaced-5-c", "cut-5-c"] {
            fs::create_dir(dirs.logs.join(name)).unwrap();
            fs::write(dirs.logs.join(name).join("log.5"), b"abcde").unwrap();
        }
        let [folder] = &probe(&dirs, None)[..] else { panic!("one folder") };
        let kinds: Vec<LeftoverKind> = folder.leftovers.iter().map(|found| found.kind).collect();
        use LeftoverKind::{Replaced, Stray, Uncut, Unfinished};
        assert_eq!(kinds, [Replaced, Stray, Unfinished, Unfinished, Replaced, Uncut, LeftoverKind::WrongJoin]);
        assert!([0, 4].iter().all(|n| folder.leftovers[*n].bytes == 5));
        assert!(folder.holds_logs && folder.holds_snapshots && !folder.in_use && folder.foreign.is_empty());
        assert!(folder.free_bytes > 0 && folder.snapshot_bytes == 3 && folder.error.is_none());
        // Behind a leader that tells nothing of its history that is as it should be, until something is known to be wrong.
        use JoinStage::{Joined, Mixed, Short, Unproven};
        for stage in [Unproven, Joined, Short, Mixed] {
            let (joint, last, agreed) = (Zxid(4), Zxid(5), Zxid(4));
            let wrong = WrongJoin { joint, epoch: 0, last, agreed, leader: ServerId(3), stage };
            wrong_join::write(&dirs.snapshots, Some(&wrong)).unwrap();
            let told = probe(&dirs, None)[0].leftovers.iter().any(|found| found.kind == LeftoverKind::WrongJoin);
            assert_eq!(told, stage != Unproven, "{stage:?}");
        }
    }
}
