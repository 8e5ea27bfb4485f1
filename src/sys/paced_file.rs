//! A large file written without getting in the way of others: each megabyte is on its way to the disk before the next
//! one is taken, so that a sync of the log never finds a long queue, and what is written leaves the page cache again.
//! Used for snapshots.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// Bytes written, and waited for, at once.
const PIECE_BYTES: usize = 1 << 20;

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
