//! What is in the data folders: who has them, what stands out, how much room is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};

use crate::doctor::disk::{PROBE_PREFIX, nearest};
use crate::doctor::facts::{Folder, Leftover, LeftoverKind};
use crate::storage::dirs::DataDirs;
use crate::storage::names;
use crate::sys::files;

/// Both folders, or the one that is both.
pub fn probe(dirs: &DataDirs) -> Vec<Folder> {
    let same = dirs.logs == dirs.snapshots;
    let mut folders = vec![probe_one(&dirs.snapshots)];
    folders[0].holds_snapshots = true;
    folders[0].holds_logs = same;
    if !same {
        folders.push(Folder { holds_logs: true, ..probe_one(&dirs.logs) });
    }
    folders
}

fn probe_one(dir: &Path) -> Folder {
    let mut folder = Folder { path: dir.to_owned(), ..Folder::default() };
    if let Some(there) = nearest(dir) {
        folder.file_system = file_system(there);
        folder.temporary = fs::canonicalize(there).ok().and_then(|place| temporary(&place));
        folder.device = fs::metadata(there).map_or(0, |found| found.dev());
        folder.free_bytes = statvfs(there).map_or(0, |found| found.blocks_available() * found.fragment_size());
    }
    match look_into(dir, &mut folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => folder.is_missing = true,
        Err(error) => folder.error = Some(error.to_string()),
    }
    folder
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

fn look_into(dir: &Path, folder: &mut Folder) -> std::io::Result<()> {
    let owner = fs::metadata(dir)?.uid();
    let user = User::from_uid(Uid::from_raw(owner)).ok().flatten();
    folder.owner = user.map_or_else(|| owner.to_string(), |user| user.name);
    folder.in_use = files::lock_dir(dir)?.is_none();
    folder.snapshot_bytes = names::list_snapshots(dir)?
        .last()
        .and_then(|newest| fs::metadata(&newest.path).ok())
        .map_or(0, |file| file.len());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // It may be gone by now: a server may be running.
        let Ok(found) = entry.metadata() else { continue };
        // Root is let in everywhere.
        let open = found.mode() & 0o600 == 0o600;
        if found.uid() != owner || (!open && owner != 0) {
            folder.foreign.push(entry.path());
        }
        let name = entry.file_name();
        if let Some(kind) = kind_of(&name.to_string_lossy(), folder.in_use) {
            folder.leftovers.push(Leftover { path: entry.path(), kind, bytes: found.len() });
        }
    }
    folder.leftovers.sort_by(|a, b| a.path.cmp(&b.path));
    folder.foreign.sort();
    Ok(())
}

/// What a server that runs has under way is no leftover.
fn kind_of(name: &str, in_use: bool) -> Option<LeftoverKind> {
    let stray = [names::parse_log(name), names::parse_snapshot(name)].iter().flatten().any(|(_, exact)| !exact);
    if names::is_leftover(name) || name.ends_with("Epoch.tmp") {
        (!in_use).then_some(LeftoverKind::Unfinished)
    } else if name.starts_with(names::UNCUT_PREFIX) {
        Some(LeftoverKind::Uncut)
    } else if name.starts_with(PROBE_PREFIX) {
        Some(LeftoverKind::OfTool)
    } else {
        stray.then_some(LeftoverKind::Stray)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_temporary_files_is_known_by_where_links_lead() {
        let of = |path: &str| temporary(Path::new(path));
        assert_eq!(of("/tmp/zookeeper/version-2"), Some("/tmp"));
        assert_eq!(of("/var/tmp/zookeeper"), Some("/var/tmp"));
        assert_eq!((of("/var/lib/tmp/zookeeper"), of("/tmpfs")), (None, None));
        let elsewhere = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let link = elsewhere.path().join("data");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert_eq!(probe(&DataDirs::new(&link, None))[0].temporary, Some("/tmp"));
    }

    #[test]
    fn a_file_system_in_memory_is_known() {
        let shm = Path::new("/dev/shm");
        assert!(!shm.is_dir() || file_system(shm) == Some("tmpfs"));
        assert_eq!(file_system(Path::new("/proc")), None);
    }

    #[test]
    fn what_stands_out_in_a_folder_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).unwrap();
        for name in ["log.5", "log.5.bak", "uncut-log.1", "snapshot.4", "removed-log.2", "next-log.0", "myid"] {
            fs::write(dirs.logs.join(name), b"abc").unwrap();
        }
        let [folder] = &probe(&dirs)[..] else { panic!("one folder") };
        let kinds: Vec<LeftoverKind> = folder.leftovers.iter().map(|found| found.kind).collect();
        use LeftoverKind::{Stray, Uncut, Unfinished};
        assert_eq!(kinds, [Stray, Unfinished, Unfinished, Uncut]);
        assert!(folder.holds_logs && folder.holds_snapshots && !folder.in_use && folder.foreign.is_empty());
        assert!(folder.free_bytes > 0 && folder.snapshot_bytes == 3 && folder.error.is_none());
    }
}
