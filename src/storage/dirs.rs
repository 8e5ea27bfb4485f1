//! The folders of a server: where snapshots and logs live, that they are there, and that they are not mixed up
//! (`FileTxnSnapLog`). Changes nothing but to make missing folders. Used at start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::storage::names;
use crate::storage::recover::RecoverError;
use crate::sys::file_system::DirEntry;
use crate::sys::files::{self, Dir, Files};
use crate::sys::host;
use crate::sys::log_ahead::FILE_BYTES_MIN;
use crate::sys::systemd::sandbox_remedy;

/// Both folders hold their files in this one: the version of the formats.
const VERSION_DIR: &str = "version-2";

/// Room without which no log can be begun, bytes: that of the smallest one.
const LOG_ROOM_BYTES: usize = FILE_BYTES_MIN;

/// The same for the small files beside the snapshots.
const SNAPSHOTS_ROOM_BYTES: usize = 64 << 10;

/// Where the data is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirs {
    /// `dataDir/version-2`.
    pub snapshots: Dir,
    /// `dataLogDir/version-2`.
    pub logs: Dir,
    /// `dataLogDir/initialize`: an empty database may be trusted.
    pub initialize: PathBuf,
    /// `dataDir/give-up-history`: what the ensemble lacks of this server's history is given up.
    pub give_up: PathBuf,
}

impl DataDirs {
    /// From `dataDir` and, if it is another, `dataLogDir`, of the host.
    pub fn new(data_dir: &Path, data_log_dir: Option<&Path>) -> DataDirs {
        DataDirs::within(&Files::host(), data_dir, data_log_dir)
    }

    /// The same, of this file system.
    pub fn within(files: &Files, data_dir: &Path, data_log_dir: Option<&Path>) -> DataDirs {
        let log_dir = data_log_dir.unwrap_or(data_dir);
        DataDirs {
            snapshots: Dir::new(files, data_dir.join(VERSION_DIR)),
            logs: Dir::new(files, log_dir.join(VERSION_DIR)),
            initialize: log_dir.join("initialize"),
            give_up: data_dir.join("give-up-history"),
        }
    }

    /// The file system that both are of.
    pub fn files(&self) -> &Files {
        &self.logs.files
    }

    /// Makes the folders, or with `autocreate` off insists that they are there; checks that they can be written, that
    /// what they hold can be read, and that neither holds what belongs in the other.
    pub fn prepare(&self, autocreate: bool) -> Result<(), RecoverError> {
        for dir in [&self.logs, &self.snapshots] {
            if !dir.files.is_dir(dir) {
                if !autocreate {
                    return Err(missing(dir));
                }
                if let Some(error) = in_the_way(dir) {
                    return Err(error);
                }
                dir.files.create_dirs(dir).map_err(unusable("cannot be created", dir))?;
            }
            dir.files.check_writable(dir).map_err(unusable("cannot be written", dir))?;
            check_readable(dir)?;
        }
        self.check_mixed()
    }

    /// Whether there is room to go on: for a log, and beside the snapshots for epochs and their like. Folders that are not
    /// there yet are looked at where they will be.
    pub fn check_room(&self) -> io::Result<()> {
        for (dir, bytes) in [(&self.logs, LOG_ROOM_BYTES), (&self.snapshots, SNAPSHOTS_ROOM_BYTES)] {
            if let Some(there) = dir.ancestors().find(|above| dir.files.is_dir(above)) {
                dir.files.check_room(there, bytes).map_err(|error| files::at_path(there, error))?;
            }
        }
        Ok(())
    }

    fn check_mixed(&self) -> Result<(), RecoverError> {
        let same = match (self.files().canonicalize(&self.logs), self.files().canonicalize(&self.snapshots)) {
            (Ok(logs), Ok(snapshots)) => logs == snapshots,
            _ => self.logs == self.snapshots,
        };
        if same {
            return Ok(());
        }
        let unreadable = |dir| unusable("cannot be read", dir);
        let logs = names::list_logs(&self.snapshots).map_err(unreadable(&self.snapshots))?;
        let snapshots = names::list_snapshots(&self.logs).map_err(unreadable(&self.logs))?;
        match (logs.first(), snapshots.first()) {
            (Some(log), _) => Err(RecoverError::Mixed { path: log.path.clone(), belongs: self.logs.to_path_buf() }),
            (_, Some(snapshot)) => {
                Err(RecoverError::Mixed { path: snapshot.path.clone(), belongs: self.snapshots.to_path_buf() })
            }
            (None, None) => Ok(()),
        }
    }
}

/// What stands where a folder is to be, or to lead to it. Where a link leads, a disk may be mounted later.
fn in_the_way(dir: &Path) -> Option<RecoverError> {
    for path in dir.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let Ok(found) = fs::symlink_metadata(path) else { continue };
        let (why, remedy, may_mend) = match fs::metadata(path) {
            Ok(there) if there.is_dir() => continue,
            Err(_) if found.is_symlink() => {
                let to = fs::read_link(path).unwrap_or_default();
                let why = format!("{} is a link to {}, which is not there", path.display(), to.display());
                (why, "mount what it leads to", true)
            }
            Err(_) => continue,
            Ok(_) => (format!("{} is a file, no folder", path.display()), "move that away", false),
        };
        let source = io::Error::new(io::ErrorKind::NotADirectory, why);
        let remedy = format!("{remedy}, or mend dataDir and dataLogDir");
        return Some(RecoverError::Dir { what: "cannot be used", path: dir.to_owned(), source, remedy, may_mend });
    }
    None
}

/// A folder that is not to be made is not there: a disk may be mounted by the next start, and none begins without.
fn missing(dir: &Path) -> RecoverError {
    RecoverError::Dir {
        what: "missing",
        path: dir.to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, "zookeeper.datadir.autocreate is false"),
        remedy: "mount the disk that it is on, or make it".to_owned(),
        may_mend: true,
    }
}

fn unusable(what: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = dir.to_owned();
    move |source| {
        // What the unit lets in is the folder that zoo.cfg names.
        let remedy = sandbox_remedy(files::parent(&path), &source);
        let is_of_host =
            files::is_lost(&source) || files::is_read_only(&source) || files::is_out_of_descriptors(&source);
        let may_mend = is_of_host && remedy.is_none();
        let remedy = remedy.unwrap_or_else(|| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                "make it or give this user the right to it".to_owned()
            }
            _ => files::advice(&source).to_owned(),
        });
        RecoverError::Dir { what, path, source, remedy, may_mend }
    }
}

/// Looks for a file that this user may not read before anything is read: no later start would do better.
fn check_readable(dir: &Dir) -> Result<(), RecoverError> {
    for DirEntry { name, path } in dir.list().map_err(unusable("cannot be read", dir))? {
        let is_data =
            names::parse_log(&name).is_some() || names::parse_snapshot(&name).is_some() || name.ends_with("Epoch");
        // What else goes wrong is told where the file is read.
        let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        if is_data && dir.files.open(&path).is_err_and(denied) {
            return Err(RecoverError::Forbidden { path, user: host::user_name() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::exit::ExitCode;

    #[test]
    fn what_stands_where_a_folder_is_to_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
        let error = |data_dir: &Path| DataDirs::new(data_dir, None).prepare(true).expect_err("there is something");
        let why = |data_dir: &Path| error(data_dir).to_string();
        assert!(why(&file).contains(&format!("{} is a file, no folder", file.display())), "{}", why(&file));
        let expected = format!("{} is a link to /nowhere/at/all, which is not there", link.display());
        assert!(why(&link).contains(&expected), "{}", why(&link));
        // Where it leads, a disk may be mounted by the next start; nothing is begun in its place.
        assert_eq!([error(&link).exit_code(), error(&file).exit_code()], [ExitCode::Unexpected, ExitCode::DataDir]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && !link.exists());
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join(VERSION_DIR), "").unwrap();
        assert!(why(&data).contains("version-2 is a file, no folder; move that away"), "{}", why(&data));
    }

    #[test]
    fn a_folder_that_may_be_usable_later_leaves_the_next_start_to_whoever_started_this_one() {
        let code = |number| {
            unusable("cannot be written", Path::new("/data"))(io::Error::from_raw_os_error(number)).exit_code()
        };
        assert_eq!([libc::EROFS, libc::EIO, libc::EMFILE].map(code), [ExitCode::Unexpected; 3]);
        assert_eq!(code(libc::ENOSPC), ExitCode::Snapshot);
        assert_eq!([libc::EACCES, libc::ENOTDIR].map(code), [ExitCode::DataDir; 2]);
        let missing = DataDirs::new(Path::new("/not/mounted"), None).prepare(false).expect_err("it is not made");
        assert_eq!(missing.exit_code(), ExitCode::Unexpected);
        assert!(missing.to_string().contains("mount the disk that it is on"), "{missing}");
    }
}
