//! The ways to make an append durable, one row each: what the server does, what it could do, and the floor. Used by
//! `doctor::disk` for a host, and by `benches/logsync.rs` for the table in ARCHITECTURE.md.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::mapped_log::{MappedLog, PAGE_BYTES, Zeros, allocate, open_direct};

/// Pages of a mapping that are loaded ahead of the records.
const AHEAD_BYTES: usize = 1 << 20;

/// How a file is made ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// Empty: it grows.
    Growing,
    /// Its blocks are allocated.
    Allocated,
    /// Zeros are written past the page cache.
    ZeroedDirect,
    /// Zeros are written through the page cache.
    ZeroedCached {
        /// Bytes a write.
        at_once: usize,
    },
}

/// How a record gets into the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// A write, then a sync, or with `dsync` both in one.
    Pwrite {
        /// The descriptor syncs by itself (`O_DSYNC`, the same as `RWF_DSYNC` a call).
        dsync: bool,
    },
    /// Into a mapped file, then a sync.
    Mapped {
        /// The kernel is told that access is random.
        random: bool,
        /// Pages are in memory before their records come.
        loaded: bool,
        /// Stored through the mapping, else written into its pages.
        through: bool,
    },
    /// Whole pages past the page cache: what a log with a format of its own could do.
    Direct {
        /// As for `Pwrite`.
        dsync: bool,
    },
}

/// One way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// For tables.
    pub name: &'static str,
    /// The file.
    pub made: Made,
    /// The append.
    pub written: Written,
}

const fn way(name: &'static str, made: Made, written: Written) -> Way {
    Way { name, made, written }
}

const fn pwrite(dsync: bool) -> Written {
    Written::Pwrite { dsync }
}

const fn mapped(random: bool, loaded: bool, through: bool) -> Written {
    Written::Mapped { random, loaded, through }
}

/// What the server does by default.
pub const SERVER: Way =
    way("zeroed O_DIRECT, mapped, loaded, pwrite (txnLogStore=write)", Made::ZeroedDirect, mapped(true, true, false));
/// What it does with `txnLogStore=mmap`.
pub const SERVER_MMAP: Way =
    way("zeroed O_DIRECT, mapped, loaded, stores (txnLogStore=mmap)", Made::ZeroedDirect, mapped(true, true, true));
/// What it does where the file system cannot map.
pub const SERVER_PLAIN: Way = way("zeroed O_DIRECT, pwrite + fdatasync", Made::ZeroedDirect, pwrite(false));
/// What no log of Apache's format can do better.
pub const FLOOR: Way = way("O_DIRECT pages, O_DSYNC (the floor)", Made::ZeroedDirect, Written::Direct { dsync: true });
/// What Apache does: it leaves the file sparse.
pub const GROWING: Way = way("growing file, pwrite + fdatasync", Made::Growing, pwrite(false));

/// All of them, in the order of the table.
pub const ALL: [Way; 12] = [
    GROWING,
    way("fallocate, pwrite + fdatasync", Made::Allocated, pwrite(false)),
    SERVER_PLAIN,
    way("zeroed O_DIRECT, pwrite O_DSYNC", Made::ZeroedDirect, pwrite(true)),
    way("zeroed cached 1 MiB, mmap + fdatasync", Made::ZeroedCached { at_once: 1 << 20 }, mapped(false, false, true)),
    way("zeroed cached 4 KiB, mmap + fdatasync", Made::ZeroedCached { at_once: PAGE_BYTES }, mapped(true, false, true)),
    way("zeroed O_DIRECT, mmap, no MADV_RANDOM", Made::ZeroedDirect, mapped(false, false, true)),
    way("zeroed O_DIRECT, mmap random", Made::ZeroedDirect, mapped(true, false, true)),
    SERVER_MMAP,
    SERVER,
    FLOOR,
    way("O_DIRECT pages + fdatasync", Made::ZeroedDirect, Written::Direct { dsync: false }),
];

/// A file that is appended to in one way. It is removed when this is dropped.
pub struct Trial {
    path: PathBuf,
    to: To,
}

enum To {
    Pwrite { file: File, dsync: bool },
    Mapped { log: MappedLog, loaded: Option<usize>, through: bool },
    Direct { file: File, pages: Zeros, dsync: bool },
}

/// Removes a file when dropped.
struct Removed<'a>(Option<&'a Path>);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

impl Way {
    /// Makes a file of `bytes` bytes, a multiple of 1 MiB, ready for appends. `Unsupported` where the file system does
    /// not offer direct writes.
    pub fn begin(&self, path: &Path, bytes: usize) -> io::Result<Trial> {
        let mut guard = Removed(Some(path));
        let file = make(path, self.made, bytes)?;
        let to = match self.written {
            Written::Pwrite { dsync: false } => To::Pwrite { file, dsync: false },
            Written::Pwrite { dsync: true } => To::Pwrite { file: reopened(path, libc::O_DSYNC)?, dsync: true },
            Written::Mapped { random, loaded, through } => {
                let log = MappedLog::map(file, path, bytes, random)?;
                To::Mapped { log, loaded: loaded.then_some(0), through }
            }
            Written::Direct { dsync } => {
                let flags = libc::O_DIRECT | if dsync { libc::O_DSYNC } else { 0 };
                To::Direct { file: reopened(path, flags)?, pages: Zeros::new(AHEAD_BYTES), dsync }
            }
        };
        guard.0 = None;
        Ok(Trial { path: path.to_owned(), to })
    }
}

fn make(path: &Path, made: Made, bytes: usize) -> io::Result<File> {
    // One that an earlier run left behind goes first. A link that somebody put there is never followed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    match made {
        Made::Growing => return Ok(file),
        Made::Allocated => allocate(&file, bytes)?,
        Made::ZeroedDirect => {
            allocate(&file, bytes)?;
            let direct = open_direct(path)?.unwrap_or(file.try_clone()?);
            let zeros = Zeros::new(1 << 20);
            (0..bytes >> 20).try_for_each(|i| direct.write_all_at(zeros.get(), (i << 20) as u64))?;
        }
        Made::ZeroedCached { at_once } => {
            let zeros = vec![0; at_once];
            (0..bytes / at_once).try_for_each(|i| file.write_all_at(&zeros, (i * at_once) as u64))?;
        }
    }
    file.sync_all()?;
    Ok(file)
}

/// The file again; not through a link that was put in its place, for root measures in folders of the service's.
fn reopened(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(flags | libc::O_NOFOLLOW).open(path)
}

impl Trial {
    /// What a helper would do meanwhile, for an append that ends at `to`; not to be measured.
    pub fn prepare(&mut self, to: usize) {
        if let To::Mapped { log, loaded: Some(loaded), .. } = &mut self.to
            && *loaded < to
        {
            log.pages().load(*loaded, to + AHEAD_BYTES);
            *loaded = to + AHEAD_BYTES;
        }
    }

    /// Appends at `at`, durably.
    pub fn append(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Pwrite { file, dsync } => {
                file.write_all_at(bytes, at as u64)?;
                if *dsync { Ok(()) } else { file.sync_data() }
            }
            To::Mapped { log, through, .. } => {
                if *through {
                    log.store(at, bytes);
                } else {
                    log.write(at, bytes)?;
                }
                log.sync()
            }
            To::Direct { file, pages, dsync } => {
                let from = at - at % PAGE_BYTES;
                let to = (at + bytes.len()).next_multiple_of(PAGE_BYTES);
                file.write_all_at(&pages.get()[..to - from], from as u64)?;
                if *dsync { Ok(()) } else { file.sync_data() }
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, link) = (dir.path().join("precious"), dir.path().join("link"));
        fs::write(&precious, "kept").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        assert!(reopened(&link, 0).is_err());
        assert!(open_direct(&link).is_err());
        make(&link, Made::Growing, 1 << 20).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"kept");
    }
}
