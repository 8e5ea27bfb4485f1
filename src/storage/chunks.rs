//! A stream of bytes as whole items: a second thread reads (and decompresses) and checksums it, chunk by chunk; the
//! parser takes items out of the chunks without copying them, but for those that lie across two. Used by `snapshot`
//! alone.

use std::io::{self, Read};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::storage::snapshot::SnapshotError;

/// Bytes read and checksummed at once by the reading thread.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the parser.
const CHUNKS_AHEAD: usize = 4;

/// Reads a stream while `parse` takes it apart: on a thread of its own, unless it is short.
pub(super) fn read<T>(
    from: Box<dyn Read + Send>,
    parse: impl FnOnce(Chunks) -> Result<T, SnapshotError>,
) -> Result<T, SnapshotError> {
    let (full, filled) = bounded(CHUNKS_AHEAD);
    let (spare, empty) = bounded(CHUNKS_AHEAD + 2);
    let mut reading = Reading { from, adler: simd_adler32::Adler32::new() };
    let goes_on = reading.read_chunk(Vec::new(), &full);
    thread::scope(|scope| {
        if goes_on {
            let read_on = move || while reading.read_chunk(empty.try_recv().unwrap_or_default(), &full) {};
            thread::Builder::new().name("snapshot-read".into()).spawn_scoped(scope, read_on)?;
        } else {
            drop(full);
        }
        parse(Chunks::new(filled, spare))
    })
}

/// Some bytes of the stream, and the checksum of everything before them.
pub(super) struct Chunk {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Checksum of what stands before them.
    pub adler_before: u32,
}

/// The stream as it is read.
struct Reading {
    from: Box<dyn Read + Send>,
    adler: simd_adler32::Adler32,
}

impl Reading {
    /// Reads a chunk into this buffer and hands it on; false at the end of the stream, or when nobody wants more.
    fn read_chunk(&mut self, mut bytes: Vec<u8>, full: &Sender<io::Result<Chunk>>) -> bool {
        bytes.clear();
        let read = Read::take(&mut self.from, CHUNK_BYTES as u64).read_to_end(&mut bytes);
        let adler_before = self.adler.finish();
        self.adler.write(&bytes);
        // What was read before an error counts, the error itself is told next.
        if !bytes.is_empty() && full.send(Ok(Chunk { bytes, adler_before })).is_err() {
            return false;
        }
        match read {
            Ok(read) => read == CHUNK_BYTES,
            Err(error) => {
                let _ = full.send(Err(error));
                false
            }
        }
    }
}

/// How long the item at the beginning of some bytes is.
pub(super) enum Measure {
    /// It is whole.
    Whole(usize),
    /// It cannot be told, or is longer than the bytes: at least this many are needed.
    AtLeast(usize),
    /// It is not what it should be.
    Bad,
}

/// The stream as whole items, across chunks.
pub(super) struct Chunks {
    filled: Receiver<io::Result<Chunk>>,
    spare: Sender<Vec<u8>>,
    chunk: Chunk,
    /// Bytes of the chunk that are used.
    used: usize,
    /// Offset of the chunk in the stream.
    offset: u64,
    /// An item that began in an earlier chunk.
    carry: Vec<u8>,
}

impl Chunks {
    /// Takes chunks as they are read, and gives their buffers back.
    pub fn new(filled: Receiver<io::Result<Chunk>>, spare: Sender<Vec<u8>>) -> Chunks {
        Chunks {
            filled,
            spare,
            chunk: Chunk { bytes: Vec::new(), adler_before: 1 },
            used: 0,
            offset: 0,
            carry: Vec::new(),
        }
    }

    /// Offset of the next unused byte.
    pub fn at(&self) -> u64 {
        self.offset + self.used as u64
    }

    /// Goes on to the next chunk, whatever of this one is used; false at the end of the stream.
    fn next_chunk(&mut self) -> Result<bool, SnapshotError> {
        let Ok(next) = self.filled.recv() else { return Ok(false) };
        let old = std::mem::replace(&mut self.chunk, next?);
        self.offset += old.bytes.len() as u64;
        self.used = 0;
        let _ = self.spare.try_send(old.bytes);
        Ok(true)
    }

    /// The next item, whole. It lies in the chunk, or was put together in `carry`.
    pub fn item(&mut self, inside: &'static str, measure: impl Fn(&[u8]) -> Measure) -> Result<&[u8], SnapshotError> {
        let begin = self.used;
        let malformed = SnapshotError::Malformed { at: self.at(), inside };
        match measure(&self.chunk.bytes[begin..]) {
            Measure::Whole(bytes) => {
                self.used += bytes;
                return Ok(&self.chunk.bytes[begin..begin + bytes]);
            }
            Measure::Bad => return Err(malformed),
            Measure::AtLeast(_) => {}
        }
        self.carry.clear();
        loop {
            let wanted = match measure(&self.carry) {
                Measure::Whole(bytes) => {
                    debug_assert_eq!(bytes, self.carry.len());
                    return Ok(&self.carry);
                }
                Measure::Bad => return Err(malformed),
                Measure::AtLeast(bytes) => bytes,
            };
            if self.used == self.chunk.bytes.len() && !self.next_chunk()? {
                return Err(SnapshotError::Truncated { at: self.at(), inside });
            }
            let rest = &self.chunk.bytes[self.used..];
            let taken = rest.len().min(wanted - self.carry.len());
            self.carry.extend_from_slice(&rest[..taken]);
            self.used += taken;
        }
    }

    /// The checksum of everything used so far.
    pub fn adler(&self) -> simd_adler32::Adler32 {
        let mut adler = simd_adler32::Adler32::from_checksum(self.chunk.adler_before);
        adler.write(&self.chunk.bytes[..self.used]);
        adler
    }

    /// Everything that is left, up to a bound.
    pub fn rest(&mut self, bytes_max: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut rest = Vec::new();
        loop {
            rest.extend_from_slice(&self.chunk.bytes[self.used..]);
            self.used = self.chunk.bytes.len();
            if rest.len() >= bytes_max || !self.next_chunk()? {
                rest.truncate(bytes_max);
                return Ok(rest);
            }
        }
    }
}

/// An item of a fixed size.
pub(super) fn exactly(bytes: usize) -> impl Fn(&[u8]) -> Measure {
    move |have| if have.len() >= bytes { Measure::Whole(bytes) } else { Measure::AtLeast(bytes) }
}
