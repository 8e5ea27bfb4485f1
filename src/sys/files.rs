//! Small things done to files and folders that the standard library does not say in one call: durable renames, cut
//! files, folders that are made to last. Safe code; used by `storage` and `threads`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The folder a file is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it, durably.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    let mut made = Vec::new();
    let mut at = dir;
    while !at.as_os_str().is_empty() && !at.exists() {
        made.push(at);
        at = parent(at);
        if at == Path::new(".") {
            break;
        }
    }
    fs::create_dir_all(dir)?;
    made.iter().try_for_each(|dir| sync_dir(parent(dir)))
}

/// Whether files can be made in a folder. Leaves nothing behind.
pub fn check_writable(dir: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(dir) {
        // Not every file system has unnamed files.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            let probe = dir.join("writable?");
            File::create(&probe)?;
            fs::remove_file(&probe)
        }
        // Full is not unwritable: what it means is said by whoever needs the room.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(()),
        other => other.map(drop),
    }
}

/// Writes a whole file; its content is durable when it returns, its name is not.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// Renames within a folder, replacing; durable when it returns.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent(to))
}

/// Renames within a folder unless the new name is taken; durable when it returns.
pub fn rename_new_durably(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            // A file system without the flag. Nobody else makes files here, so looking first is as good.
            if to.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)?;
        }
        other => other?,
    }
    sync_dir(parent(to))
}

/// Cuts a file, durably.
pub fn truncate_durably(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Removes a file, durably.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_dir(parent(path))
}

/// Takes a folder for this process alone, until the file is dropped or the process ends, however it ends. Nothing is left
/// behind. `None`: another process has it.
pub fn lock_dir(dir: &Path) -> io::Result<Option<File>> {
    let file = File::open(dir)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
