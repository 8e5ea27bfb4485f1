//! A large file written or read without getting in the way of others: each megabyte is on its way to the disk before the
//! next one is taken, so that a sync of the log never finds a long queue, and what is written or read leaves the page cache
//! again. Used for snapshots.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use crate::sys::clock;

/// Bytes written, and waited for, at once.
const PIECE_BYTES: usize = 1 << 20;
/// Longest pause between two pieces that are read: a read that took longer was held up by others.
const PAUSE_US_MAX: u64 = 20_000;

/// A new file being written.
#[derive(Debug)]
pub struct PacedFile {
    file: File,
    buffer: Vec<u8>,
    written: u64,
}

impl PacedFile {
    /// Writes to this file, which is empty.
    pub fn new(file: File) -> PacedFile {
        PacedFile { file, buffer: Vec::with_capacity(PIECE_BYTES), written: 0 }
    }

    fn write_piece(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        let (from, bytes) = (self.written as i64, self.buffer.len() as i64);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::sync_file_range(self.file.as_raw_fd(), from, bytes, flags) } != 0 {
            let error = io::Error::last_os_error();
            // Some file systems cannot; the final sync is what counts.
            if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE)) {
                return Err(error);
            }
        }
        // Only advice.
        let dont_need = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = nix::fcntl::posix_fadvise(&self.file, from, bytes, dont_need);
        Ok(())
    }

    /// Writes the rest and makes everything durable; gives the length.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        self.file.sync_all()?;
        Ok(self.written)
    }
}

/// A file that is read from the disk, not from memory as far as the kernel can be told so, half of the time.
#[derive(Debug)]
pub struct PacedReader {
    file: File,
    read: u64,
}

impl PacedReader {
    /// Reads this file from its beginning.
    pub fn open(path: &Path) -> io::Result<PacedReader> {
        let reader = PacedReader { file: File::open(path)?, read: 0 };
        reader.forget(0);
        Ok(reader)
    }

    /// Drops the file from memory, up to a length or with 0 all of it. Only advice.
    fn forget(&self, bytes: u64) {
        let dont_need = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = nix::fcntl::posix_fadvise(&self.file, 0, bytes as i64, dont_need);
    }
}

impl Read for PacedReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wanted = bytes.len().min(PIECE_BYTES);
        let begun_us = clock::mono_us();
        let read = self.file.read(&mut bytes[..wanted])?;
        let took_us = u64::try_from(clock::mono_us() - begun_us).unwrap_or(0);
        let before = self.read / PIECE_BYTES as u64;
        self.read += read as u64;
        if read == 0 || self.read / PIECE_BYTES as u64 > before {
            self.forget(self.read);
        }
        std::thread::sleep(Duration::from_micros(took_us.min(PAUSE_US_MAX)));
        Ok(read)
    }
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_piece() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
        let mut paced = PacedFile::new(File::create(&path).unwrap());
        bytes.chunks(99_999).for_each(|part| paced.write_all(part).unwrap());
        assert_eq!(paced.finish().unwrap(), bytes.len() as u64);
        assert!(std::fs::read(path).unwrap() == bytes);
    }
}
