//! What is done to files and folders in more than one call, on whatever [`FileSystem`] there is: durable renames, cut
//! files, folders that are made to last, room given back without a jolt; and what errors of the system mean. Safe code; used
//! by `storage` and `threads`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use thiserror::Error;

use super::file_system::{DirEntry, FileSystem, Host, OpenFile};

/// What is read alone where a larger piece cannot be read: a page.
pub const LOST_BYTES: usize = 4096;

/// What [`Dir::read_small`] reads at most: more than a line for each server that an ensemble can have.
const SMALL_BYTES_MAX: u64 = 1 << 16;

/// Whether the disk says that it cannot read what it once wrote: a bad sector, or a checksum of the file system. Anything
/// else that goes wrong (rights, room, too many open files) says nothing about the data.
pub fn is_lost(error: &io::Error) -> bool {
    matches!(number(error), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::ENODATA | libc::EILSEQ))
}

/// An error with the file or folder that it is about. What the system said can still be told from it.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
struct AtPath {
    path: PathBuf,
    source: io::Error,
}

/// An error that says which file or folder it is about.
pub fn at_path(path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), AtPath { path: path.to_owned(), source })
}

/// The number that the system gave an error, with a path or without.
fn number(error: &io::Error) -> Option<i32> {
    let inner = || error.get_ref()?.downcast_ref::<AtPath>()?.source.raw_os_error();
    error.raw_os_error().or_else(inner)
}

/// Whether there is no room left, on the disk or in the quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(number(error), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Whether the file system takes no writes until somebody mounts it again.
pub fn is_read_only(error: &io::Error) -> bool {
    number(error) == Some(libc::EROFS)
}

/// From now on what this process makes is its user's alone, whatever the umask: files 0600, folders 0700. Data holds
/// secrets, and hashes of passwords.
pub fn keep_private() {
    let others = Mode::S_IRWXG | Mode::S_IRWXO;
    let before = umask(others);
    umask(before | others);
}

/// Whether this process, or the host, may open no more files.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(number(error), Some(libc::EMFILE | libc::ENFILE))
}

/// What an operator can do about an error of a disk or folder; to stand behind what the system said.
pub fn advice(error: &io::Error) -> &'static str {
    match number(error) {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "make room (`rookeeper purge`, autopurge.purgeInterval), or enlarge the disk or the quota"
        }
        Some(libc::EROFS) => {
            "the file system is read-only: the kernel makes it so after an error of the disk (`dmesg` says which), or \
             somebody remounted it; check the disk, then mount it writable again"
        }
        Some(libc::EMFILE) => {
            "this process may open no more files: raise LimitNOFILE= with `systemctl edit`, or `ulimit -n` where it is \
             started by hand"
        }
        Some(libc::ENFILE) => "the host may open no more files: raise fs.file-max with sysctl",
        Some(libc::EACCES | libc::EPERM) => "give the server's user the right to it",
        Some(libc::ENOENT) => "the folder is gone: put it back",
        _ if is_lost(error) => "the disk failed: `dmesg` says how; mend or replace it",
        _ => "make room or mend the disk",
    }
}

/// A file system, for whoever works with files: the operations of the trait, and what is made of them.
#[derive(Clone, Debug)]
pub struct Files(Arc<dyn FileSystem>);

impl Default for Files {
    fn default() -> Files {
        Files::host()
    }
}

impl std::ops::Deref for Files {
    type Target = dyn FileSystem;

    fn deref(&self) -> &(dyn FileSystem + 'static) {
        &*self.0
    }
}

impl Files {
    /// The host's.
    pub fn host() -> Files {
        Files::of(Host)
    }

    /// Those of this file system.
    pub fn of(system: impl FileSystem + 'static) -> Files {
        Files(Arc::new(system))
    }

    /// Whether something has this name, and can be looked at.
    pub fn exists(&self, path: &Path) -> bool {
        self.stat(path).is_ok()
    }

    /// Whether a folder has this name.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.stat(path).is_ok_and(|found| found.is_dir)
    }

    /// All of a file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Stream::new(self.open(path)?).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes what a file holds and its name durable, if it is there: whoever wrote it may have died before.
    pub fn make_durable(&self, path: &Path) -> io::Result<()> {
        match self.open(path) {
            Ok(file) => file.sync_all().and_then(|()| self.sync_dir(parent(path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes a whole file; its content is durable when it returns, its name is not.
    pub fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.create(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    }

    /// Writes bytes where they already stand, and makes them durable.
    pub fn rewrite_durably(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_to_write(path)?;
        file.write_all_at(bytes, at)?;
        file.sync_data()
    }

    /// Copies a file to a new name beside it; durable when it returns.
    pub fn copy_durably(&self, from: &Path, to: &Path) -> io::Result<()> {
        let copy = self.create(to)?;
        let mut to_end = Stream::new(copy);
        io::copy(&mut Stream::new(self.open(from)?), &mut to_end)?;
        self.copy_mode(from, to)?;
        to_end.file().sync_all()?;
        self.sync_dir(parent(to))
    }

    /// Renames within a folder, replacing; durable when it returns.
    pub fn rename_durably(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to)?;
        self.sync_dir(parent(to))
    }

    /// Renames within a folder unless the new name is taken; durable when it returns.
    pub fn rename_new_durably(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_new(from, to)?;
        self.sync_dir(parent(to))
    }

    /// Gives a finished file a name that another may have; that one then has the old name. Durable when it returns; true if
    /// there was another.
    pub fn exchange_durably(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let exchanged = self.exchange(from, to).is_ok();
        if !exchanged {
            // There is none, or the file system cannot exchange.
            self.rename(from, to)?;
        }
        self.sync_dir(parent(to))?;
        Ok(exchanged)
    }

    /// Cuts a file, durably.
    pub fn truncate_durably(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = self.open_to_write(path)?;
        file.set_length(length)?;
        file.sync_all()
    }

    /// Removes a file, durably.
    pub fn remove_durably(&self, path: &Path) -> io::Result<()> {
        self.remove(path)?;
        self.sync_dir(parent(path))
    }

    /// Makes the names in a folder durable. Some file systems (cifs, vboxsf) cannot be asked to: that is said once.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        static WARNED: AtomicBool = AtomicBool::new(false);
        match self.0.sync_dir(dir) {
            Err(error) if cannot_sync_folders(&error) => {
                if !WARNED.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "{}: its file system does not sync folders ({error}): files that were just made may be gone after a \
                         power failure; put dataDir and dataLogDir on a local disk",
                        dir.display()
                    );
                }
                Ok(())
            }
            synced => synced,
        }
    }

    /// Makes a folder and those above it, durably.
    pub fn create_dirs(&self, dir: &Path) -> io::Result<()> {
        if self.is_dir(dir) {
            return Ok(());
        }
        let above = parent(dir);
        if above != Path::new(".") {
            self.create_dirs(above)?;
        }
        match self.create_dir(dir) {
            // Somebody else makes it, too.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_dir(dir) => {}
            made => made?,
        }
        self.sync_dir(above)
    }

    /// Whether files can be made in a folder. Leaves nothing behind.
    pub fn check_writable(&self, dir: &Path) -> io::Result<()> {
        match self.scratch(dir) {
            // Full is not unwritable: what it means is said by whoever needs the room.
            Err(error) if is_full(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whether a folder has room for a file of so many bytes. Leaves nothing behind.
    pub fn check_room(&self, dir: &Path, bytes: usize) -> io::Result<()> {
        let file = self.scratch(dir)?;
        file.allocate(bytes)?;
        // Where nothing can be allocated ahead, and where what is allocated is not what is written.
        let zeros = [0; LOST_BYTES];
        (0..bytes.div_ceil(LOST_BYTES)).try_for_each(|n| file.write_all_at(&zeros, (n * LOST_BYTES) as u64))
    }
}

/// A folder of a file system.
#[derive(Clone, Debug)]
pub struct Dir {
    /// The file system.
    pub files: Files,
    path: PathBuf,
}

impl Dir {
    /// The folder with this path.
    pub fn new(files: &Files, path: impl Into<PathBuf>) -> Dir {
        Dir { files: files.clone(), path: path.into() }
    }

    /// One of the host's.
    pub fn of_host(path: impl Into<PathBuf>) -> Dir {
        Dir::new(&Files::host(), path)
    }

    /// The names in it, in no order.
    pub fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.files.list(&self.path)
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        self.files.sync_dir(&self.path)
    }

    /// Of a file in it that holds a few lines if it is what it should be, as many bytes as those may have: more are not
    /// read. `None` if there is no such file.
    pub fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.files.open(&self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        Stream::new(file).take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Replaces a file in it, or makes it, by way of another one; durable when it returns.
    pub fn replace_durably(&self, name: &str, tmp: &str, bytes: &[u8]) -> io::Result<()> {
        let tmp = self.path.join(tmp);
        self.files.write_durably(&tmp, bytes)?;
        self.files.rename_durably(&tmp, &self.path.join(name))
    }

    /// Removes a file in it, durably, if it is there.
    pub fn remove_durably(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        if self.files.exists(&path) { self.files.remove_durably(&path) } else { Ok(()) }
    }
}

/// Of one file system, as those of a server are.
impl PartialEq for Dir {
    fn eq(&self, other: &Dir) -> bool {
        self.path == other.path
    }
}

impl Eq for Dir {}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl std::ops::Deref for Dir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

fn cannot_sync_folders(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// A file that is read or written from its beginning to its end.
#[derive(Debug)]
pub struct Stream {
    file: Box<dyn OpenFile>,
    at: u64,
}

impl Stream {
    /// At the beginning.
    pub fn new(file: Box<dyn OpenFile>) -> Stream {
        Stream { file, at: 0 }
    }

    /// The file.
    pub fn file(&self) -> &dyn OpenFile {
        &*self.file
    }

    /// How far it is.
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file().read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads bytes of a file that are there by its length; what the disk cannot read any more is zeros. So is what a running
/// server has trimmed meanwhile: it was padding.
pub fn read_what_is_left(file: &dyn OpenFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    match read_or_zeros(file, bytes, at) {
        Err(error) if is_lost(&error) => {}
        other => return other,
    }
    let mut from = at;
    for part in bytes.chunks_mut(LOST_BYTES) {
        match read_or_zeros(file, part, from) {
            Err(error) if is_lost(&error) => part.fill(0),
            other => other?,
        }
        from += part.len() as u64;
    }
    Ok(())
}

/// Reads bytes of a file; zeros behind its end.
fn read_or_zeros(file: &dyn OpenFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let read = read_up_to(file, bytes, at)?;
    bytes[read..].fill(0);
    Ok(())
}

/// Reads bytes of a file, fewer only at its end; gives how many.
fn read_up_to(file: &dyn OpenFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], at + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Reads bytes of a file that are to be there.
pub fn read_exact(file: &dyn OpenFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    if read_up_to(file, bytes, at)? < bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The folder a file is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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

/// Whether a file system knows no locks, or has nobody who keeps them (NFS without its lock daemon).
pub fn knows_no_locks(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// What became of a file or folder that a running server has open: whatever it writes there is lost, or soon will be.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Gone {
    /// Nothing has the name any more.
    #[error("{} was removed or moved away while this server ran, or something above it was", .0.display())]
    Away(PathBuf),
    /// Something else has the name.
    #[error("another file or folder has taken the place of {} while this server ran: something was mounted over it, or moved there", .0.display())]
    Replaced(PathBuf),
    /// It is shorter or longer.
    #[error("{} was cut or overwritten by somebody else while this server ran: it has {now} bytes, and had {before}", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length.
        now: u64,
        /// What it was.
        before: u64,
    },
}

impl Gone {
    /// Whether that is what an error says.
    pub fn of(error: &io::Error) -> Option<&Gone> {
        error.get_ref()?.downcast_ref()
    }
}

/// Which file or folder it is, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of what is open.
    pub fn of(found: &fs::Metadata) -> Identity {
        Identity { device: found.dev(), inode: found.ino() }
    }

    /// Whether it still has this name; else a [`Gone`].
    pub fn check(self, path: &Path) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(found) if Identity::of(&found) == self => Ok(()),
            Ok(_) => Err(io::Error::other(Gone::Replaced(path.to_owned()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(io::Error::other(Gone::Away(path.to_owned())))
            }
            // A name that cannot be looked up just now says nothing.
            Err(_) => Ok(()),
        }
    }
}

/// Bytes given back at once by a [`Cut`].
pub const CUT_BYTES: u64 = 4 << 20;
/// Pause between two steps of a [`Cut`], for those who take them.
pub const CUT_PAUSE: Duration = Duration::from_millis(10);

/// A file that is made shorter in small steps. With the `discard` mount option the file system tells the disk of each
/// freed block at the next commit, and every sync waits for that: 45 ms for 160 MiB where it was measured.
#[derive(Debug)]
pub struct Cut {
    file: Box<dyn OpenFile>,
    length: u64,
    end: u64,
}

impl Cut {
    /// Cuts this file at `end`.
    pub fn new(file: Box<dyn OpenFile>, end: u64) -> io::Result<Cut> {
        // Nothing is given back by cutting off what was never allocated.
        Ok(Cut { length: file.length()?.min(end.saturating_add(file.allocated()?)), file, end })
    }

    /// Takes one step; false when there is no other.
    pub fn step(&mut self) -> io::Result<bool> {
        if self.length <= self.end {
            return Ok(false);
        }
        self.length = self.length.saturating_sub(CUT_BYTES).max(self.end);
        self.file.set_length(self.length)?;
        self.file.sync_data()?;
        Ok(self.length > self.end)
    }

    /// Takes all steps at once.
    pub fn finish(self) -> io::Result<()> {
        if self.file.length()? > self.end { self.file.set_length(self.end) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
