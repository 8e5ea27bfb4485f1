//! Copies a file, durably, and says what was copied: bytes and SHA-256. Used by `backup` and `restore`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 1 << 20;

/// A file's length and SHA-256.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// Length.
    pub bytes: u64,
    /// In lower-case hex.
    pub sha256: String,
}

/// Takes what is written through it.
pub struct Summing<W> {
    to: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Summing<W> {
    /// Onto a writer.
    pub fn new(to: W) -> Summing<W> {
        Summing { to, hasher: Sha256::new(), bytes: 0 }
    }

    /// The next bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// The writer, and the sum of what went through.
    pub fn finish(self) -> (W, Sum) {
        let sha256 = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.to, Sum { bytes: self.bytes, sha256 })
    }
}

/// Copies a whole file into a new one; the copy is durable but for its name.
pub fn copy(from: &Path, to: File, bar: &ProgressBar) -> io::Result<Sum> {
    let mut from = File::open(from)?;
    let mut copy = Summing::new(to);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        copy.write_all(&chunk[..n])?;
        bar.inc(n as u64);
    }
    let (file, sum) = copy.finish();
    file.sync_all()?;
    Ok(sum)
}
