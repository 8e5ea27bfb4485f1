//! The mapping of a transaction log: single pages, in memory before they are needed, written and synced, nothing else.
//! Owned by `log_ahead`, which makes the files, and by the txnlog thread, which writes. Where the file system cannot map
//! (FUSE with direct_io, 9p) it is a file as any other.
//!
//! Two things make a mapped log as fast as any other way to the disk (`benches/logsync.rs`). Every block is allocated
//! and zero on disk before the first record, so that a sync writes data and no metadata. And no page of it lies in a
//! large folio: one byte changed dirties its whole folio, and the sync writes all of it. Writing the
//! zeros past the page cache, and telling the kernel that access is random, keeps folios at a page.
//!
//! A store into a mapping cannot fail politely: if the kernel cannot get the page, the process gets SIGBUS. All blocks
//! are there, so only a dying disk or somebody else's truncate does that; then [`die_politely_on_sigbus`] ends the
//! process with a message and the exit code of a failed log.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::sys::exit::ExitCode;
use crate::sys::files::{Cut, Files, Gone, Identity};

/// Bytes of a page: mappings and direct writes are multiples of it.
pub const PAGE_BYTES: usize = 4096;

/// A file of a fixed size whose blocks are all allocated, mapped where that can be.
#[derive(Debug)]
pub struct MappedLog {
    mapping: Arc<Mapping>,
    path: PathBuf,
}

#[derive(Debug)]
struct Mapping {
    file: File,
    bytes: usize,
    map: Option<MmapRaw>,
}

/// The pages of a [`MappedLog`], for whoever moves them in and out of memory. It cannot store.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Mapping>);

impl MappedLog {
    /// Maps a file that has `bytes` bytes, a multiple of [`PAGE_BYTES`], all allocated. `random` keeps folios small
    /// (it is off only to measure what that is worth).
    pub fn map(file: File, path: &Path, bytes: usize, random: bool) -> io::Result<MappedLog> {
        if file.metadata()?.len() < bytes as u64 || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than its mapping"));
        }
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        if random {
            map.advise(Advice::Random)?;
        }
        Ok(MappedLog { mapping: Arc::new(Mapping { file, bytes, map: Some(map) }), path: path.to_owned() })
    }

    /// The same without a mapping: it is written, and never stored into.
    pub fn plain(file: File, path: &Path, bytes: usize) -> MappedLog {
        MappedLog { mapping: Arc::new(Mapping { file, bytes, map: None }), path: path.to_owned() }
    }

    /// Bytes that can be stored.
    pub fn capacity(&self) -> usize {
        self.mapping.bytes
    }

    /// Whether it can be stored into.
    pub fn is_mapped(&self) -> bool {
        self.mapping.map.is_some()
    }

    /// Whether the file is what it was, by its name and its length; else a [`Gone`]. Nobody but its owner may change that.
    pub fn check(&self) -> io::Result<()> {
        let found = self.mapping.file.metadata()?;
        Identity::of(&found).check(&self.path)?;
        let (now, before) = (found.len(), self.capacity() as u64);
        let cut = || io::Error::other(Gone::Cut { path: self.path.clone(), now, before });
        if now == before { Ok(()) } else { Err(cut()) }
    }

    /// Its pages.
    pub fn pages(&self) -> Pages {
        Pages(Arc::clone(&self.mapping))
    }

    /// Its present name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it a name that was free; durable when it returns.
    pub fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        Files::host().rename_new_durably(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// Copies bytes into the mapping, from the first to the last: wherever the process ends, and whenever the kernel writes
    /// a page, there is a beginning of them. Recovery counts on it. A range beyond the capacity, or no mapping, is a bug of
    /// the caller.
    pub fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.capacity() && bytes.len() <= self.capacity() - at, "stored beyond the end of the log");
        let map = self.mapping.map.as_ref().expect("only a log that is mapped is stored into");
        // SAFETY: the range lies within the mapping (asserted), which is writable and lives as long as `self`; nobody
        // else holds a reference into it, as it is only handed out as a raw pointer.
        unsafe { store_in_order(map.as_mut_ptr().add(at), bytes) }
    }

    /// Writes bytes into the pages of the file, without the mapping: the next reader of either sees them.
    pub fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at <= self.capacity() && bytes.len() <= self.capacity() - at, "written beyond the end of the log");
        std::os::unix::fs::FileExt::write_all_at(&self.mapping.file, bytes, at as u64)
    }

    /// Makes everything stored so far durable. A failure is final: the kernel has forgotten which pages it could not
    /// write.
    pub fn sync(&self) -> io::Result<()> {
        self.mapping.file.sync_data()
    }

    /// A handle for cutting the file, which must not be stored into or loaded any more.
    pub fn into_cut(self, end: usize) -> io::Result<Cut> {
        Cut::new(Box::new(self.mapping.file.try_clone()?), end as u64)
    }

    /// Tells the SIGBUS handler that stores go here from now on.
    pub fn guard(&self) {
        GUARDED_LEN.store(0, Ordering::SeqCst);
        let Some(map) = &self.mapping.map else { return };
        GUARDED_START.store(map.as_ptr() as usize, Ordering::SeqCst);
        GUARDED_LEN.store(self.capacity(), Ordering::SeqCst);
    }
}

/// Stores word by word, each after the one before. The copy of a C library may store the beginning last.
///
/// # Safety
/// `to` points to as many writable bytes, which nobody in this process accesses meanwhile.
unsafe fn store_in_order(to: *mut u8, bytes: &[u8]) {
    const WORD_BYTES: usize = size_of::<u64>();
    let (unaligned, rest) = bytes.split_at(to.align_offset(WORD_BYTES).min(bytes.len()));
    let (words, last) = rest.split_at(rest.len() - rest.len() % WORD_BYTES);
    let store_bytes = |from: usize, bytes: &[u8]| {
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: it lies within the range (the caller's promise), and a byte is always aligned.
            unsafe { AtomicU8::from_ptr(to.add(from + i)) }.store(*byte, Ordering::Release);
        }
    };
    store_bytes(0, unaligned);
    for (i, word) in words.chunks_exact(WORD_BYTES).enumerate() {
        let word = u64::from_ne_bytes(word.try_into().expect("it has the bytes of a word"));
        // SAFETY: it lies within the range (the caller's promise), and what is unaligned stands before it.
        unsafe { AtomicU64::from_ptr(to.add(unaligned.len() + i * WORD_BYTES).cast()) }.store(word, Ordering::Release);
    }
    store_bytes(unaligned.len() + words.len(), last);
}

impl Pages {
    /// Bytes of the file.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Brings a range into the page cache and the page table, so that stores find it there. Never fails: a store would
    /// fault it in.
    pub fn load(&self, from: usize, to: usize) {
        let Some(map) = &self.0.map else { return };
        let (from, to) = (from - from % PAGE_BYTES, to.min(self.0.bytes).next_multiple_of(PAGE_BYTES));
        if from < to {
            // Reads it all at once, in single pages; the second call then maps what is there.
            let _ = nix::fcntl::posix_fadvise(
                &self.0.file,
                from as i64,
                (to - from) as i64,
                nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED,
            );
            let _ = map.advise_range(Advice::PopulateRead, from, to - from);
        }
    }

    /// Drops whole pages of a range from the process: what was stored stays in the page cache and goes to the disk.
    pub fn unload(&self, from: usize, to: usize) {
        let (from, to) = (from.next_multiple_of(PAGE_BYTES), to - to % PAGE_BYTES);
        if let Some(map) = &self.0.map
            && from < to
        {
            // SAFETY: the mapping is shared and backed by a file: dropping its pages loses nothing, the next access
            // finds the same bytes.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        }
    }
}

/// The mapping that is stored into.
static GUARDED_START: AtomicUsize = AtomicUsize::new(0);
static GUARDED_LEN: AtomicUsize = AtomicUsize::new(0);

/// From now on a store into the guarded mapping that the kernel cannot carry out ends the process with a message and
/// [`ExitCode::TxnLog`]; any other SIGBUS does what it always did.
pub fn die_politely_on_sigbus() -> io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(
        SigHandler::SigAction(on_sigbus),
        SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    // SAFETY: the handler calls nothing but write(2) and _exit(2) and reads two atomics: it is async-signal-safe.
    unsafe { sigaction(Signal::SIGBUS, &action) }?;
    Ok(())
}

extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    const MESSAGE: &[u8] =
        b"the transaction log cannot be written: the disk failed under its mapping, or the file was \
        cut by somebody else; exiting with code 11\n";
    // SAFETY: the kernel passes a valid siginfo for SA_SIGINFO, and SIGBUS fills the address.
    let address = unsafe { (*info).si_addr() } as usize;
    let start = GUARDED_START.load(Ordering::SeqCst);
    let len = GUARDED_LEN.load(Ordering::SeqCst);
    if address.wrapping_sub(start) < len {
        // SAFETY: both calls are async-signal-safe; the buffer is a constant.
        unsafe {
            libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(ExitCode::TxnLog as i32);
        }
    }
    // SA_RESETHAND restored the default: the access faults again and ends the process as it always did.
}

/// Whether a file system offers no writable shared mappings.
pub fn cannot_map(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// A file, no link to one, to be written past the page cache; `None` where the file system does not offer it.
pub fn open_direct(path: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    match File::options().read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        other => other.map(Some),
    }
}

/// Allocates blocks for a file and sets its length, so that a full disk is met here.
pub fn allocate(file: &File, bytes: usize) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: a plain system call on a descriptor that is open.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                file.set_len(bytes as u64)
            }
            error => Err(error),
        },
    }
}

/// Zeros in memory, aligned as direct writes want them.
pub struct Zeros {
    buffer: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Zeros {
    /// `bytes` zeros.
    pub fn new(bytes: usize) -> Zeros {
        let buffer = vec![0; bytes + PAGE_BYTES];
        let start = buffer.as_ptr().align_offset(PAGE_BYTES);
        Zeros { buffer, start, bytes }
    }

    /// The zeros, from the beginning of a page on.
    pub fn get(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(bytes: usize) -> (tempfile::TempDir, MappedLog) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next-log.0");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        allocate(&file, bytes).unwrap();
        let log = MappedLog::map(file, &path, bytes, true).unwrap();
        (dir, log)
    }

    #[test]
    fn what_is_stored_is_in_the_file_and_the_rest_can_be_cut() {
        let (dir, mut log) = mapped(2 * PAGE_BYTES);
        log.pages().load(0, 2 * PAGE_BYTES);
        log.store(PAGE_BYTES - 2, b"abcd");
        log.sync().unwrap();
        log.pages().unload(0, PAGE_BYTES + 2);
        let name = dir.path().join("log.1");
        log.rename(name.clone()).unwrap();
        log.into_cut(PAGE_BYTES + 2).unwrap().finish().unwrap();
        let bytes = std::fs::read(name).unwrap();
        assert_eq!(bytes.len(), PAGE_BYTES + 2);
        assert_eq!(&bytes[PAGE_BYTES - 2..], b"abcd");
    }

    #[test]
    fn a_plain_log_is_written_as_a_mapped_one_is() {
        let unmapped = |number| cannot_map(&io::Error::from_raw_os_error(number));
        assert!(unmapped(libc::ENODEV), "as FUSE with direct_io says");
        assert!(!unmapped(libc::EIO) && !unmapped(libc::ENOMEM), "mapping it again may do");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next-log.0");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        allocate(&file, 2 * PAGE_BYTES).unwrap();
        let log = MappedLog::plain(file, &path, 2 * PAGE_BYTES);
        assert!(!log.is_mapped() && log.capacity() == 2 * PAGE_BYTES && log.pages().bytes() == 2 * PAGE_BYTES);
        log.guard();
        log.pages().load(0, 2 * PAGE_BYTES);
        log.write(PAGE_BYTES - 2, b"abcd").unwrap();
        log.sync().unwrap();
        log.pages().unload(0, 2 * PAGE_BYTES);
        log.check().unwrap();
        assert_eq!(&std::fs::read(path).unwrap()[PAGE_BYTES - 2..PAGE_BYTES + 2], b"abcd");
    }

    fn gone(log: &MappedLog) -> Option<Gone> {
        log.check().err().as_ref().and_then(Gone::of).cloned()
    }

    #[test]
    fn a_log_that_is_cut_moved_removed_or_replaced_is_noticed() {
        let (dir, log) = mapped(2 * PAGE_BYTES);
        let path = log.path().to_owned();
        assert_eq!(gone(&log), None);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(PAGE_BYTES as u64).unwrap();
        let cut = Gone::Cut { path: path.clone(), now: PAGE_BYTES as u64, before: 2 * PAGE_BYTES as u64 };
        assert_eq!(gone(&log), Some(cut));
        file.set_len(2 * PAGE_BYTES as u64).unwrap();
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert_eq!(gone(&log), Some(Gone::Away(path.clone())));
        std::fs::write(&path, [0; 2 * PAGE_BYTES]).unwrap();
        assert_eq!(gone(&log), Some(Gone::Replaced(path.clone())));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(gone(&log), Some(Gone::Away(path)));
    }

    #[test]
    fn a_name_that_is_taken_is_not_overwritten() {
        let (dir, mut log) = mapped(PAGE_BYTES);
        let taken = dir.path().join("log.1");
        std::fs::write(&taken, b"records").unwrap();
        assert_eq!(log.rename(taken.clone()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(taken).unwrap(), b"records");
    }

    #[test]
    #[should_panic(expected = "stored beyond the end")]
    fn a_store_beyond_the_end_is_a_bug() {
        mapped(PAGE_BYTES).1.store(PAGE_BYTES - 1, b"ab");
    }

    #[test]
    fn a_file_shorter_than_its_mapping_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("short");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        assert!(MappedLog::map(file, &path, PAGE_BYTES, true).is_err());
    }
}
