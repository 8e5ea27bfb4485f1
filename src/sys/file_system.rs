//! Files and folders as the server uses them, behind two small traits: those of the host ([`Host`]), or of a test that
//! knows what is durable, forgets the rest, and fails where it is told to. All of `storage` works through the handle
//! [`Files`](super::files::Files); only the mapped log (`mapped_log`, `log_ahead`) is the host's alone.
//!
//! What the traits promise is what POSIX does, and no more. What was written is seen by every reader at once. It survives
//! the loss of power once the file was synced, and its name once the folder was; either without the other is possible, and
//! so is any part of what was not synced. A sync that fails says nothing about what is durable, and the next one nothing
//! about what the failed one was for.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, PosixFadviseAdvice, RenameFlags, posix_fadvise, renameat2};

use super::mapped_log;

/// An open file.
pub trait OpenFile: fmt::Debug + Send + Sync {
    /// Reads some bytes from an offset on; 0 behind the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of these bytes there.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Its length, bytes.
    fn length(&self) -> io::Result<u64>;
    /// Bytes of the disk that it takes.
    fn allocated(&self) -> io::Result<u64>;
    /// Cuts it, or lets it end with zeros.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Takes room on the disk for so many bytes, and makes the file as long.
    fn allocate(&self, bytes: usize) -> io::Result<()>;
    /// Makes what it holds durable, and its length.
    fn sync_data(&self) -> io::Result<()>;
    /// The same, and all else that is known of it but its name.
    fn sync_all(&self) -> io::Result<()>;
    /// Has these bytes written to the disk and lets memory forget them: nothing is durable by that, but the sync that will
    /// come has less to do.
    fn write_out(&self, from: u64, bytes: u64) -> io::Result<()>;
    /// Lets memory forget what the disk has, up to an offset, or with 0 all of it. Advice.
    fn forget(&self, to: u64);
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Bytes.
    pub length: u64,
    /// A folder.
    pub is_dir: bool,
    /// A file as any other.
    pub is_file: bool,
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The name. Those that are no UTF-8 are nobody's of this server, and are not told.
    pub name: String,
    /// The folder and the name.
    pub path: PathBuf,
}

/// Files, folders and their names.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Opens a file to be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Opens a file that is there, to be written.
    fn open_to_write(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Makes a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// A file without a name in a folder, which goes when it is closed.
    fn scratch(&self, dir: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// What has this name, behind links.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// The names in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes a folder in one that is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames; what has the new name goes.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames unless something has the new name.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Two names change places; an error where one of them is not there, or the file system cannot.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The path without links, from the root on.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
    /// Lets whoever may read and write the one do so with the other, too.
    fn copy_mode(&self, like: &Path, to: &Path) -> io::Result<()>;
}

/// The host's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Host;

impl FileSystem for Host {
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn scratch(&self, dir: &Path) -> io::Result<Box<dyn OpenFile>> {
        match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(dir) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let named = dir.join("writable?");
                let file = File::create(&named)?;
                // It stays what it is without a name.
                fs::remove_file(&named)?;
                Ok(Box::new(file))
            }
            file => Ok(Box::new(file?)),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::metadata(path).map(|found| Stat { length: found.len(), is_dir: found.is_dir(), is_file: found.is_file() })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, path: entry.path() });
            }
        }
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
                // A file system without the flag. Nobody else makes files here, so looking first is as good.
                if to.exists() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(from, to)
            }
            other => Ok(other?),
        }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn copy_mode(&self, like: &Path, to: &Path) -> io::Result<()> {
        fs::set_permissions(to, fs::metadata(like)?.permissions())
    }
}

impl OpenFile for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        // In blocks of this size, whatever the file system's are (stat(2)).
        Ok(self.metadata()?.blocks() * 512)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn allocate(&self, bytes: usize) -> io::Result<()> {
        mapped_log::allocate(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn write_out(&self, from: u64, bytes: u64) -> io::Result<()> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::sync_file_range(self.as_raw_fd(), from as i64, bytes as i64, flags) } != 0 {
            let error = io::Error::last_os_error();
            // Some file systems cannot; the final sync is what counts.
            if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE)) {
                return Err(error);
            }
        }
        let _ = posix_fadvise(self, from as i64, bytes as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(())
    }

    fn forget(&self, to: u64) {
        let _ = posix_fadvise(self, 0, to as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
