//! Small things done to files and folders that the standard library does not say in one call: durable renames, cut
//! files, folders that are made to last, room given back without a jolt. Safe code; used by `storage` and `threads`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use thiserror::Error;

use super::mapped_log;

/// What is read alone where a larger piece cannot be read: a page.
pub const LOST_BYTES: usize = 4096;

/// What [`read_small`] reads at most: more than a line for each server that an ensemble can have.
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

/// Reads bytes of a file that are there by its length; what the disk cannot read any more is zeros. So is what a running
/// server has trimmed meanwhile: it was padding.
pub fn read_what_is_left(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
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
fn read_or_zeros(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], at + have as u64) {
            Ok(0) => bytes[have..].fill(0),
            Ok(read) => {
                have += read;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        break;
    }
    Ok(())
}

/// Makes what a file holds and its name durable, if it is there: whoever wrote it may have died before.
pub fn settle(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all().and_then(|()| sync_dir(parent(path))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes bytes where they already stand, and makes them durable.
pub fn rewrite_durably(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_data()
}

/// Copies a file to a new name beside it; durable when it returns.
pub fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    sync_dir(parent(to))
}

/// Makes the names in a folder durable. Some file systems (cifs, vboxsf) cannot be asked to: that is said once.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let synced = File::open(dir)?.sync_all();
    match synced {
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

fn cannot_sync_folders(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
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
    match with_scratch_file(dir, |_| Ok(())) {
        // Full is not unwritable: what it means is said by whoever needs the room.
        Err(error) if is_full(&error) => Ok(()),
        other => other,
    }
}

/// Whether a folder has room for a file of so many bytes. Leaves nothing behind.
pub fn check_room(dir: &Path, bytes: usize) -> io::Result<()> {
    with_scratch_file(dir, |file| {
        mapped_log::allocate(file, bytes)?;
        // Where nothing can be allocated ahead, and where what is allocated is not what is written.
        let zeros = [0; LOST_BYTES];
        (0..bytes.div_ceil(LOST_BYTES)).try_for_each(|n| file.write_all_at(&zeros, (n * LOST_BYTES) as u64))
    })
}

/// Does something with a new file, which has a name only where the file system knows none without.
fn with_scratch_file(dir: &Path, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(dir) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            let named = dir.join("writable?");
            let done = File::create(&named).and_then(|file| work(&file));
            let removed = fs::remove_file(&named);
            done.and(removed)
        }
        file => work(&file?),
    }
}

/// Of a file that holds a few lines if it is what it should be, as many bytes as those may have: more are not read.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
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
    file: File,
    length: u64,
    end: u64,
}

impl Cut {
    /// Cuts this file at `end`.
    pub fn new(file: File, end: u64) -> io::Result<Cut> {
        let found = file.metadata()?;
        // Nothing is given back by cutting off what was never allocated.
        let allocated = found.blocks() * 512;
        Ok(Cut { length: found.len().min(end.saturating_add(allocated)), file, end })
    }

    /// Takes one step; false when there is no other.
    pub fn step(&mut self) -> io::Result<bool> {
        if self.length <= self.end {
            return Ok(false);
        }
        self.length = self.length.saturating_sub(CUT_BYTES).max(self.end);
        self.file.set_len(self.length)?;
        self.file.sync_data()?;
        Ok(self.length > self.end)
    }

    /// Takes all steps at once.
    pub fn finish(self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.end { self.file.set_len(self.end) } else { Ok(()) }
    }
}

/// Gives a finished file a name that another may have; that one then has the old name. Durable when it returns; true if
/// there was another.
pub fn exchange_durably(from: &Path, to: &Path) -> io::Result<bool> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let exchanged = match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => true,
        // There is none, or the file system cannot exchange.
        Err(_) => {
            fs::rename(from, to)?;
            false
        }
    };
    sync_dir(parent(to))?;
    Ok(exchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_is_much_longer_than_it_should_be_only_so_much_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("currentEpoch");
        fs::write(&path, b"5").unwrap();
        assert_eq!(read_small(&path).unwrap(), b"5");
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_small(&path).unwrap().len() as u64, SMALL_BYTES_MAX);
    }

    #[test]
    fn what_was_trimmed_while_a_file_is_read_was_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, [1; 6]).unwrap();
        let mut bytes = [9; 8];
        read_what_is_left(&File::open(&path).unwrap(), &mut bytes, 2).unwrap();
        assert_eq!(bytes, [1, 1, 1, 1, 0, 0, 0, 0]);
        read_what_is_left(&File::open(&path).unwrap(), &mut bytes, 100).unwrap();
        assert_eq!(bytes, [0; 8]);
    }

    #[test]
    fn a_cut_takes_small_steps_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        io::Write::write_all(&mut &file, &vec![1; 2 * CUT_BYTES as usize + 10]).unwrap();
        let mut cut = Cut::new(file, 7).unwrap();
        let mut lengths = Vec::new();
        while cut.step().unwrap() {
            lengths.push(fs::metadata(&path).unwrap().len());
        }
        assert_eq!(lengths, [CUT_BYTES + 10, 10]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 7);
        assert!(!cut.step().unwrap());
    }

    #[test]
    fn a_hole_is_cut_off_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(100 * CUT_BYTES).unwrap();
        let mut cut = Cut::new(file, 7).unwrap();
        assert!(!cut.step().unwrap());
        cut.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 7);
    }

    fn gone(checked: io::Result<()>) -> Option<Gone> {
        checked.err().as_ref().and_then(Gone::of).cloned()
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (dir.path().join("folder"), dir.path().join("elsewhere"));
        fs::create_dir(&folder).unwrap();
        let identity = Identity::of(&fs::metadata(&folder).unwrap());
        assert_eq!(gone(identity.check(&folder)), None);
        fs::rename(&folder, &elsewhere).unwrap();
        assert_eq!(gone(identity.check(&folder)), Some(Gone::Away(folder.clone())));
        fs::create_dir(&folder).unwrap();
        assert_eq!(gone(identity.check(&folder)), Some(Gone::Replaced(folder.clone())));
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
        assert_eq!(gone(identity.check(&folder)), None, "a link to it will do");
    }

    #[test]
    fn what_an_error_is_about_does_not_hide_what_it_says() {
        let at = |number| at_path(Path::new("/data"), io::Error::from_raw_os_error(number));
        assert!(is_full(&at(libc::EDQUOT)) && is_lost(&at(libc::EIO)) && is_out_of_descriptors(&at(libc::EMFILE)));
        assert!(!is_full(&at(libc::EIO)) && !is_full(&io::Error::other("full")));
        assert!(advice(&at(libc::EROFS)).contains("read-only") && at(libc::EROFS).to_string().starts_with("/data: "));
    }

    #[test]
    fn what_a_file_system_cannot_do_is_told_from_what_fails() {
        for number in [libc::EINVAL, libc::EIO, libc::ENOSPC, libc::ENOLCK] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(cannot_sync_folders(&error), number == libc::EINVAL);
            assert_eq!(knows_no_locks(&error), number == libc::ENOLCK);
        }
    }

    #[test]
    fn room_is_looked_for_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        check_room(dir.path(), 1 << 20).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!is_full(&check_room(&dir.path().join("nowhere"), 1).unwrap_err()));
    }

    #[test]
    fn an_exchange_keeps_the_file_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("new"), dir.path().join("name"));
        fs::write(&from, b"1").unwrap();
        assert!(!exchange_durably(&from, &to).unwrap());
        fs::write(&from, b"2").unwrap();
        assert!(exchange_durably(&from, &to).unwrap());
        assert_eq!((fs::read(&to).unwrap(), fs::read(&from).unwrap()), (b"2".to_vec(), b"1".to_vec()));
    }
}
