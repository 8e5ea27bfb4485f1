//! A large file written or read without getting in the way of others: each megabyte is on its way to the disk before the
//! next one is taken, so that a sync of the log never finds a long queue, and what is written or read leaves the page cache
//! again. Used for snapshots.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::sys::clock;
use crate::sys::file_system::OpenFile;
use crate::sys::files::{Files, Stream};

/// Bytes written, and waited for, at once.
const PIECE_BYTES: usize = 1 << 20;
/// Longest pause between two pieces that are read: one that took longer was held up by others.
const PAUSE_US_MAX: u64 = 20_000;

/// A new file being written.
#[derive(Debug)]
pub struct PacedFile {
    file: Stream,
    buffer: Vec<u8>,
}

impl PacedFile {
    /// Writes to this file, which is empty.
    pub fn new(file: Box<dyn OpenFile>) -> PacedFile {
        PacedFile { file: Stream::new(file), buffer: Vec::with_capacity(PIECE_BYTES) }
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let from = self.file.at();
        self.file.write_all(&self.buffer)?;
        self.file.file().write_out(from, self.buffer.len() as u64)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and makes everything durable; gives the length.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        self.file.file().sync_all()?;
        Ok(self.file.at())
    }
}

/// A file that is read from the disk, not from memory as far as the kernel can be told so, half of the time.
#[derive(Debug)]
pub struct PacedReader {
    file: Stream,
    /// How long the reads of this piece took.
    took_us: u64,
}

impl PacedReader {
    /// Reads this file from its beginning.
    pub fn open(files: &Files, path: &Path) -> io::Result<PacedReader> {
        let file = files.open(path)?;
        file.forget(0);
        Ok(PacedReader { file: Stream::new(file), took_us: 0 })
    }
}

impl Read for PacedReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wanted = bytes.len().min(PIECE_BYTES);
        let begun_us = clock::mono_us();
        let read = self.file.read(&mut bytes[..wanted])?;
        self.took_us += u64::try_from(clock::mono_us() - begun_us).unwrap_or(0);
        let at = self.file.at();
        let is_piece = at / PIECE_BYTES as u64 > (at - read as u64) / PIECE_BYTES as u64;
        if read == 0 || is_piece {
            self.file.file().forget(at);
        }
        if is_piece {
            std::thread::sleep(Duration::from_micros(std::mem::take(&mut self.took_us).min(PAUSE_US_MAX)));
        }
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
        let mut paced = PacedFile::new(Files::host().create(&path).unwrap());
        bytes.chunks(99_999).for_each(|part| paced.write_all(part).unwrap());
        assert_eq!(paced.finish().unwrap(), bytes.len() as u64);
        assert!(std::fs::read(path).unwrap() == bytes);
    }
}
