//! Compression of snapshots: gzip, and the stream format of the Java library `org.xerial.snappy` (`SnappyOutputStream`).
//! Streams only; `snapshot` says what is in them.
//!
//! ```text
//! snappy stream = magic 82 "SNAPPY" 00   version i32 = 1   compatible i32 = 1   block*
//! block         = length i32   raw snappy of at most 32 KiB
//! ```

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::config::Compression;

const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_HEADER_BYTES: usize = 16;
/// What the Java library puts in a block.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// Largest block that is read, compressed or not: the library lets writers choose, nobody chooses this much.
const SNAPPY_BLOCK_BYTES_MAX: usize = 64 << 20;

impl Compression {
    /// By the last part of a file's name; `snapshot.5.tmp` is plain.
    pub fn of_name(name: &str) -> Compression {
        match name.rsplit_once('.') {
            Some((_, "gz")) => Compression::Gzip,
            Some((_, "snappy")) => Compression::Snappy,
            _ => Compression::None,
        }
    }

    /// What its names end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Snappy => ".snappy",
        }
    }

    /// The plain bytes of a compressed stream.
    pub fn reader<R: Read + Send + 'static>(self, from: R) -> Box<dyn Read + Send> {
        match self {
            Compression::None => Box::new(from),
            Compression::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, from))),
            Compression::Snappy => Box::new(SnappyReader::new(io::BufReader::with_capacity(1 << 18, from))),
        }
    }

    /// Whether these first and last bytes of a file may belong to a complete snapshot: the cheap check that both the
    /// choice of a snapshot and the purge go by (`SnapStream.isValidSnapshot`).
    pub fn looks_complete(self, first: &[u8], last: &[u8]) -> bool {
        match self {
            Compression::None => first.len() >= 10 && last.ends_with(&[0, 0, 0, 1, b'/']),
            Compression::Gzip => first.starts_with(&[0x1f, 0x8b]),
            Compression::Snappy => first.starts_with(&SNAPPY_MAGIC),
        }
    }
}

struct SnappyReader<R> {
    from: R,
    begun: bool,
    compressed: Vec<u8>,
    plain: Vec<u8>,
    used: usize,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snappy stream: {what}"))
}

impl<R: Read> SnappyReader<R> {
    fn new(from: R) -> SnappyReader<R> {
        SnappyReader { from, begun: false, compressed: Vec::new(), plain: Vec::new(), used: 0 }
    }

    /// Reads the next block into `plain`; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        if !self.begun {
            let mut header = [0; SNAPPY_HEADER_BYTES];
            self.from.read_exact(&mut header)?;
            if header[..8] != SNAPPY_MAGIC {
                return Err(invalid("bad magic"));
            }
            self.begun = true;
        }
        let mut length = [0; 4];
        loop {
            if self.from.read(&mut length[..1])? == 0 {
                return Ok(false);
            }
            self.from.read_exact(&mut length[1..])?;
            if length != SNAPPY_MAGIC[..4] {
                break;
            }
            // Streams may be joined: the rest of another header.
            self.from.read_exact(&mut [0; SNAPPY_HEADER_BYTES - 4])?;
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > SNAPPY_BLOCK_BYTES_MAX {
            return Err(invalid("unreasonable block length"));
        }
        self.compressed.clear();
        if Read::take(&mut self.from, length as u64).read_to_end(&mut self.compressed)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain_bytes = snap::raw::decompress_len(&self.compressed).map_err(|_| invalid("bad block"))?;
        if plain_bytes > SNAPPY_BLOCK_BYTES_MAX {
            return Err(invalid("unreasonable block length"));
        }
        self.plain.resize(plain_bytes, 0);
        self.used = 0;
        let mut decoder = snap::raw::Decoder::new();
        decoder.decompress(&self.compressed, &mut self.plain).map_err(|_| invalid("bad block"))?;
        Ok(true)
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.used == self.plain.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = out.len().min(self.plain.len() - self.used);
        out[..n].copy_from_slice(&self.plain[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}

/// Compresses a stream as it is written.
pub enum Encoder<W: Write> {
    /// Passes on.
    Plain(W),
    /// Gzip at the level Java's `GZIPOutputStream` uses.
    Gzip(Box<GzEncoder<W>>),
    /// Snappy blocks.
    Snappy {
        /// Where to.
        to: W,
        /// Plain bytes that do not fill a block yet.
        block: Vec<u8>,
    },
}

impl<W: Write> Encoder<W> {
    /// Begins a stream.
    pub fn new(method: Compression, mut to: W) -> io::Result<Encoder<W>> {
        Ok(match method {
            Compression::None => Encoder::Plain(to),
            Compression::Gzip => Encoder::Gzip(Box::new(GzEncoder::new(to, flate2::Compression::new(6)))),
            Compression::Snappy => {
                to.write_all(&SNAPPY_MAGIC)?;
                to.write_all(&[0, 0, 0, 1, 0, 0, 0, 1])?;
                Encoder::Snappy { to, block: Vec::with_capacity(SNAPPY_BLOCK_BYTES) }
            }
        })
    }

    /// The writer below.
    pub fn get_mut(&mut self) -> &mut W {
        match self {
            Encoder::Plain(to) | Encoder::Snappy { to, .. } => to,
            Encoder::Gzip(encoder) => encoder.get_mut(),
        }
    }

    /// Takes the next plain bytes.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Plain(to) => to.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Snappy { to, block } => {
                while !bytes.is_empty() {
                    let n = bytes.len().min(SNAPPY_BLOCK_BYTES - block.len());
                    block.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    if block.len() == SNAPPY_BLOCK_BYTES {
                        write_snappy_block(to, block)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends the stream.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Plain(to) => Ok(to),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Snappy { mut to, mut block } => {
                if !block.is_empty() {
                    write_snappy_block(&mut to, &mut block)?;
                }
                Ok(to)
            }
        }
    }
}

fn write_snappy_block(to: &mut impl Write, block: &mut Vec<u8>) -> io::Result<()> {
    let compressed = snap::raw::Encoder::new().compress_vec(block).map_err(|e| io::Error::other(e.to_string()))?;
    to.write_all(&crate::jute::len_i32(compressed.len()).to_be_bytes())?;
    to.write_all(&compressed)?;
    block.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_back_what_it_wrote() {
        let plain: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for method in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let mut encoder = Encoder::new(method, Vec::new()).unwrap();
            plain.chunks(1000).for_each(|part| encoder.write_all(part).unwrap());
            let written = encoder.finish().unwrap();
            let mut read = Vec::new();
            method.reader(io::Cursor::new(written)).read_to_end(&mut read).unwrap();
            assert!(read == plain, "{method:?}");
        }
    }

    #[test]
    fn a_snappy_stream_that_claims_too_much_is_refused() {
        let mut bytes = SNAPPY_MAGIC.to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]);
        assert!(Compression::Snappy.reader(io::Cursor::new(bytes)).read(&mut [0; 8]).is_err());
    }
}
