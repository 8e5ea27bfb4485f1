//! Grammar of a transaction log, `log.<hex zxid of its first record>` (`FileTxnLog`). Pure bytes; `logdir` reads files
//! by it, `writer` writes them.
//!
//! ```text
//! file    = header record* padding?
//! header  = magic "ZKLG"  version i32 = 2  dbid i64 = 0        16 bytes; readers check the magic only
//! record  = adler32(payload) as i64  length i32  payload  'B'
//! payload = transaction header, body, digest                   see `txn`
//! padding = zeros, up to the preallocated size
//! ```
//!
//! A *tear* is a record that looks unfinished: the file ends inside it, its length is 0, its end byte is not 'B'. Apache
//! ends the file there, silently. Everything else that does not fit is damage, and Apache refuses to start. Here `tail`
//! says whether either is what a crash leaves.

use thiserror::Error;

/// "ZKLG".
pub const MAGIC: [u8; 4] = *b"ZKLG";
/// Bytes of the file header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a record in front of its payload.
pub const PREFIX_BYTES: usize = 12;
/// Bytes of a record beside its payload.
pub const FRAME_BYTES: usize = PREFIX_BYTES + 1;
/// Ends a record.
pub const END_BYTE: u8 = b'B';
/// What a disk writes as a whole: a write that is lost leaves such a stretch as it was, which is zeros.
pub const SECTOR_BYTES: usize = 512;

/// The header of every log.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[7] = 2;
    header
}

/// Version and database id of a header, which nobody checks.
pub fn header_says(header: &[u8; HEADER_BYTES]) -> (i32, i64) {
    let (version, dbid) = (header[4..8].try_into(), header[8..].try_into());
    (i32::from_be_bytes(version.expect("4 bytes")), i64::from_be_bytes(dbid.expect("8 bytes")))
}

/// What stands in front of a payload: checksum and length.
pub fn prefix(payload: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&i64::from(simd_adler32::adler32(&payload)).to_be_bytes());
    prefix[8..].copy_from_slice(&crate::jute::len_i32(payload.len()).to_be_bytes());
    prefix
}

/// What the beginning of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A log.
    Header,
    /// A log whose header was not written when its server died: an unfinished one, followed by nothing but zeros if by
    /// anything. `whole` says that 16 bytes are there, zeros behind what was written of the header.
    Unfinished {
        /// Whether the file has the 16 bytes.
        whole: bool,
    },
    /// Something else.
    Foreign,
}

/// Judges the first bytes of a file (16, or fewer if the file is shorter).
pub fn start(first: &[u8]) -> Start {
    if first.len() >= HEADER_BYTES && first[..4] == MAGIC {
        return Start::Header;
    }
    let written = first.iter().zip(header()).take_while(|(found, wanted)| **found == *wanted).count();
    if first[written..].iter().all(|b| *b == 0) {
        Start::Unfinished { whole: first.len() >= HEADER_BYTES }
    } else {
        Start::Foreign
    }
}

/// What stands at a record's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// A record with a right checksum.
    Record {
        /// The transaction.
        payload: &'a [u8],
        /// Bytes of the whole record.
        bytes: usize,
    },
    /// The bytes given end inside the record. A tear, if the file ends there too.
    Short {
        /// Bytes of the record as far as is known: more than were given.
        wanted: usize,
    },
    /// Checksum and length are zero: padding.
    Zeros,
    /// A record that was never finished.
    Torn(Tear),
}

/// How a record is unfinished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Tear {
    /// The file ends before the record does.
    #[error("the file ends inside a record")]
    EndOfFile,
    /// A checksum, but length 0.
    #[error("a record has length 0")]
    ZeroLength,
    /// Not closed by 'B'.
    #[error("a record is not closed by its end byte")]
    EndByte,
}

/// What is wrong with a file beyond that. (A crash of the host can leave a record whose checksum is wrong; `tail` tells.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Damage {
    /// Neither a log nor an unfinished one.
    #[error("it does not begin as a transaction log does")]
    BadMagic,
    /// Negative, or above what one record may take and beyond the end of the file.
    #[error("unreasonable length {0}")]
    BadLength(i32),
    /// Some byte of the record changed.
    #[error("the checksum does not match: {wanted:#x} is written, {found:#x} found")]
    Checksum {
        /// In the record.
        wanted: i64,
        /// Over its payload.
        found: u32,
    },
}

/// Reads the record at the beginning of `bytes`, in a file that has `left` bytes from there on. `record_bytes_max` bounds
/// a length that the file could not hold.
pub fn parse(bytes: &[u8], left: u64, record_bytes_max: usize) -> Result<Parsed<'_>, Damage> {
    let Some((prefix, rest)) = bytes.split_at_checked(PREFIX_BYTES) else {
        return Ok(if bytes.len() as u64 == left && bytes.iter().all(|b| *b == 0) {
            Parsed::Zeros
        } else {
            Parsed::Short { wanted: PREFIX_BYTES }
        });
    };
    let wanted = i64::from_be_bytes(prefix[..8].try_into().expect("8 bytes"));
    let length = i32::from_be_bytes(prefix[8..].try_into().expect("4 bytes"));
    if length == 0 {
        return Ok(if wanted == 0 { Parsed::Zeros } else { Parsed::Torn(Tear::ZeroLength) });
    }
    let payload_bytes = usize::try_from(length).map_err(|_| Damage::BadLength(length))?;
    let total = payload_bytes + FRAME_BYTES;
    if total as u64 > left && payload_bytes > record_bytes_max {
        return Err(Damage::BadLength(length));
    }
    if rest.len() <= payload_bytes {
        return Ok(Parsed::Short { wanted: total });
    }
    if rest[payload_bytes] != END_BYTE {
        return Ok(Parsed::Torn(Tear::EndByte));
    }
    let payload = &rest[..payload_bytes];
    let found = simd_adler32::adler32(&payload);
    if i64::from(found) == wanted {
        return Ok(Parsed::Record { payload, bytes: total });
    }
    Err(Damage::Checksum { wanted, found })
}

/// Bytes of the record at the beginning of `bytes`, if its end byte stands where its length says. Its content may be wrong.
pub fn framed_bytes(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(bytes.get(8..PREFIX_BYTES)?.try_into().expect("4 bytes"));
    let at = PREFIX_BYTES + usize::try_from(length).ok().filter(|length| *length > 0)?;
    (bytes.get(at) == Some(&END_BYTE)).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut bytes = prefix(payload).to_vec();
        bytes.extend_from_slice(payload);
        bytes.push(END_BYTE);
        bytes
    }

    fn parse_all(bytes: &[u8]) -> Result<Parsed<'_>, Damage> {
        parse(bytes, bytes.len() as u64, 1 << 20)
    }

    #[test]
    fn a_record_reads_back() {
        let bytes = record(b"payload");
        assert_eq!(parse_all(&bytes), Ok(Parsed::Record { payload: b"payload", bytes: bytes.len() }));
    }

    #[test]
    fn every_prefix_of_a_record_is_short_and_never_a_record() {
        let bytes = record(b"some payload");
        for cut in 1..bytes.len() {
            let parsed = parse_all(&bytes[..cut]).unwrap();
            assert!(matches!(parsed, Parsed::Short { wanted } if wanted > cut) || parsed == Parsed::Zeros, "{cut}");
        }
    }

    #[test]
    fn a_record_followed_by_zeros_instead_of_its_end_is_torn() {
        let mut bytes = record(b"some payload");
        let end = bytes.len() - 1;
        bytes[end] = 0;
        assert_eq!(parse_all(&bytes), Ok(Parsed::Torn(Tear::EndByte)));
        bytes[8..].fill(0);
        assert_eq!(parse_all(&bytes), Ok(Parsed::Torn(Tear::ZeroLength)));
        bytes.fill(0);
        assert_eq!(parse_all(&bytes), Ok(Parsed::Zeros));
    }

    #[test]
    fn a_changed_byte_is_damage() {
        let mut bytes = record(&[7; 2000]);
        bytes[700] ^= 1;
        assert!(matches!(parse_all(&bytes), Err(Damage::Checksum { .. })));
    }

    #[test]
    fn lengths_no_record_can_have_are_damage() {
        for length in [-1, i32::MIN, i32::MAX] {
            let mut bytes = record(b"payload");
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            assert_eq!(parse_all(&bytes), Err(Damage::BadLength(length)));
        }
        let mut bytes = record(b"payload");
        bytes[8..12].copy_from_slice(&100_000_i32.to_be_bytes());
        assert_eq!(parse_all(&bytes), Ok(Parsed::Short { wanted: 100_013 }));
    }

    #[test]
    fn the_start_of_a_file_tells_logs_from_unfinished_ones_and_strangers() {
        assert_eq!(start(&header()), Start::Header);
        assert_eq!(start(&header()[..8]), Start::Unfinished { whole: false });
        assert_eq!(start(&[]), Start::Unfinished { whole: false });
        assert_eq!(start(&[0; 16]), Start::Unfinished { whole: true });
        assert_eq!(start(b"ZKSN000000000000"), Start::Foreign);
        assert_eq!(start(b"ZK"), Start::Unfinished { whole: false });
        assert_eq!(start(b"zz"), Start::Foreign);
    }
}
