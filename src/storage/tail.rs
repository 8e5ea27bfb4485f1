//! What stands behind the last good record of a log, and whether a crash can have left it. The logger writes one batch,
//! syncs it, and only then writes the next (`writer`): so all that a crash can spoil is one batch. What it left of that
//! batch on a file that was zeroed before is either
//!
//! - a beginning of it and then zeros, if the process died while it wrote, or
//! - any of its sectors, and zeros where the others should be, if the power went while the disk wrote.
//!
//! | behind the last good record | a crash? | what is done |
//! |---|---|---|
//! | nothing, or zeros | yes, or an orderly end | zeros are trimmed |
//! | no more than one batch, no readable record, and a record that ends in zeros or lacks a sector | yes | cut |
//! | no more than one batch, readable records, and in front of them one that lacks a sector | yes | cut, a copy kept aside |
//! | anything else | no: the disk changed or lost what was synced | refused, or repaired from others |
//!
//! Whose log it is cannot be told. Apache too syncs after 1000 records at the latest, but counts no bytes: what it left of
//! a batch with more than [`LOG_BATCH_BYTES_MAX`] is taken for damage if readable records are in it. A person then decides,
//! or other servers have the data; taking damage for a crash would lose what was acknowledged, in silence.
//!
//! Reads the file it is given; changes nothing. Used by `recover` and by whoever shows what it would say.

use std::io;

use crate::ids::Zxid;
use crate::limits::{LOG_BATCH_BYTES_MAX, LOG_BATCH_RECORDS_MAX};
use crate::storage::txnlog::{self, END_BYTE, FRAME_BYTES, PREFIX_BYTES, Parsed, SECTOR_BYTES};
use crate::sys::file_system::OpenFile;
use crate::sys::files;
use crate::txn::Txn;

/// Bytes read at once while looking through a file.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes read first while looking for the next record.
const FIRST_CHUNK_BYTES: usize = 4096;
/// What a sector that is gone takes of a record's checksum, at least, to be told from one that is there: the first half of
/// that field is always zero, and the second never.
const CHECKSUM_HALF_BYTES: usize = 4;

/// What a tail is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// The file ends there.
    Nothing,
    /// Only zeros.
    Zeros,
    /// What a crash leaves of unsynced records.
    Unsynced {
        /// The first readable record behind: it did reach the disk.
        next: Option<Next>,
    },
    /// The disk changed or lost what was synced.
    Damaged {
        /// The first readable record behind.
        next: Option<Next>,
    },
}

/// A readable record behind an unreadable one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next {
    /// Where it begins.
    pub at: u64,
    /// Where it ends.
    pub end: u64,
    /// Its zxid.
    pub zxid: Zxid,
}

/// The file that is judged, and where.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The log.
    pub file: &'a dyn OpenFile,
    /// The end of its last good record.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// The zxid of that record.
    pub last: Option<Zxid>,
}

/// How a log was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// `jute.maxbuffer` and its slack: what the length of a record may claim beyond the end of the file.
    pub record_bytes_max: usize,
    /// `forceSync`: each batch was synced before the next was written. Otherwise a crash may spoil any number of them.
    pub synced: bool,
}

impl Written {
    /// Bytes of a batch, or of a single record that is larger.
    fn batch_bytes_max(self) -> u64 {
        self.record_bytes_max.saturating_add(FRAME_BYTES).max(LOG_BATCH_BYTES_MAX) as u64
    }
}

/// Offset of the last byte in `from..to` that is not zero.
pub fn last_non_zero(file: &dyn OpenFile, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut end = to;
    while end > from {
        let start = from.max(end.saturating_sub(CHUNK_BYTES as u64));
        let part = &mut chunk[..(end - start) as usize];
        files::read_what_is_left(file, part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b != 0) {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Judges what follows the last good record.
pub fn judge(place: Place, written: Written) -> io::Result<Tail> {
    let Place { file, offset, length, last } = place;
    if offset >= length {
        return Ok(Tail::Nothing);
    }
    let Some(last_byte) = last_non_zero(file, offset, length)? else { return Ok(Tail::Zeros) };
    let end = last_byte + 1;
    let next = next_record(file, offset + 1, end, last)?;
    let unsynced = may_be_one_batch(place, end, next, written)? && is_unfinished(place, end, next, written)?;
    Ok(if unsynced { Tail::Unsynced { next } } else { Tail::Damaged { next } })
}

/// Whether all up to `end` may have been written between two syncs.
fn may_be_one_batch(place: Place, end: u64, next: Option<Next>, written: Written) -> io::Result<bool> {
    let bytes = end - place.offset;
    let Some(next) = next else {
        // It may be one record that is larger than a batch.
        return Ok(bytes <= written.batch_bytes_max() || !written.synced);
    };
    if !written.synced {
        return Ok(true);
    }
    if bytes > LOG_BATCH_BYTES_MAX as u64 {
        return Ok(false);
    }
    // The unreadable one, and this.
    let (mut records, mut from, mut last) = (2, next.end, Some(next.zxid));
    while let Some(found) = next_record(place.file, from, end, last)? {
        records += 1;
        (from, last) = (found.end, Some(found.zxid));
        if records > LOG_BATCH_RECORDS_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the record at the place is one whose write did not come to its end.
fn is_unfinished(place: Place, end: u64, next: Option<Next>, written: Written) -> io::Result<bool> {
    let offset = place.offset;
    // The zeros that the next record begins with may be the last of a sector that is lost.
    let bytes = next.map_or(end, |next| next.at + CHECKSUM_HALF_BYTES as u64) - offset;
    let mut bytes = vec![0; bytes.min(written.batch_bytes_max()) as usize];
    files::read_what_is_left(place.file, &mut bytes, offset)?;
    let frame = Frame::read(&bytes);
    if next.is_none() && frame.is_cut_short(&bytes, place.length - offset, written.record_bytes_max) {
        return Ok(true);
    }
    // Where its end is certain, what is behind it proves nothing about it.
    let own = txnlog::framed_bytes(&bytes).unwrap_or(bytes.len());
    Ok(lacks_a_sector(&bytes[..own], offset, &frame))
}

/// What a record says of itself, as far as it can be read.
struct Frame {
    checksum: i64,
    payload_bytes: i32,
}

impl Frame {
    fn read(bytes: &[u8]) -> Frame {
        let mut prefix = [0; PREFIX_BYTES];
        let there = bytes.len().min(PREFIX_BYTES);
        prefix[..there].copy_from_slice(&bytes[..there]);
        Frame {
            checksum: i64::from_be_bytes(prefix[..8].try_into().expect("8 bytes")),
            payload_bytes: i32::from_be_bytes(prefix[8..].try_into().expect("4 bytes")),
        }
    }

    /// Whether these bytes, behind which there are only zeros, are the beginning of such a record. They are not if they are
    /// all of one whose length alone was changed.
    fn is_cut_short(&self, bytes: &[u8], left: u64, record_bytes_max: usize) -> bool {
        let Ok(payload_bytes) = usize::try_from(self.payload_bytes) else { return false };
        let total = payload_bytes + FRAME_BYTES;
        if bytes.len() >= total || (total as u64 > left && payload_bytes > record_bytes_max) {
            return false;
        }
        let payload = bytes.get(PREFIX_BYTES..).and_then(|rest| rest.strip_suffix(&[END_BYTE]));
        payload.is_none_or(|payload| i64::from(simd_adler32::adler32(&payload)) != self.checksum)
    }
}

/// Whether a sector of this unreadable record, which stands at `offset` of a file, was never written: it reads as zeros,
/// behind what an earlier sync left of it.
fn lacks_a_sector(bytes: &[u8], offset: u64, frame: &Frame) -> bool {
    let in_first = (SECTOR_BYTES - offset as usize % SECTOR_BYTES) % SECTOR_BYTES;
    let (first, others) = bytes.split_at(in_first.min(bytes.len()));
    if others.chunks_exact(SECTOR_BYTES).any(|sector| sector.iter().all(|b| *b == 0)) {
        return true;
    }
    if first.len() <= CHECKSUM_HALF_BYTES || first.iter().any(|b| *b != 0) {
        return false;
    }
    // With less than all of the checksum gone, the rest of it must be right.
    first.len() >= 2 * CHECKSUM_HALF_BYTES
        || txnlog::framed_bytes(bytes).is_some_and(|whole| {
            let found = i64::from(simd_adler32::adler32(&&bytes[PREFIX_BYTES..whole - 1])).to_be_bytes();
            found[first.len()..] == frame.checksum.to_be_bytes()[first.len()..]
        })
}

/// The first whole record that begins in `from..end`, with a zxid above `last`.
pub fn next_record(file: &dyn OpenFile, from: u64, end: u64, last: Option<Zxid>) -> io::Result<Option<Next>> {
    // Mostly it is not far.
    let mut chunk = vec![0; FIRST_CHUNK_BYTES];
    let mut start = from;
    while start + FRAME_BYTES as u64 <= end {
        let length = chunk.len();
        let bytes = &mut chunk[..length.min((end - start) as usize)];
        files::read_what_is_left(file, bytes, start)?;
        for at in 0..=bytes.len() - PREFIX_BYTES {
            let record = &bytes[at..];
            // The checksum is 32 bits in a field of 64, and a length is positive: a cheap first look.
            if record[..CHECKSUM_HALF_BYTES] != [0; CHECKSUM_HALF_BYTES] || record[4..8] == [0; 4] {
                continue;
            }
            let total = i32::from_be_bytes(record[8..PREFIX_BYTES].try_into().expect("4 bytes"));
            let Some(total) = usize::try_from(total).ok().filter(|bytes| *bytes > 0).map(|b| b + FRAME_BYTES) else {
                continue;
            };
            let begin = start + at as u64;
            if total as u64 > end - begin {
                continue;
            }
            let zxid = match record.get(..total) {
                Some(record) => zxid_of(record),
                None if !ends_as_a_record(file, begin + total as u64)? => None,
                None => {
                    let mut record = vec![0; total];
                    files::read_what_is_left(file, &mut record, begin)?;
                    zxid_of(&record)
                }
            };
            if let Some(zxid) = zxid.filter(|zxid| last.is_none_or(|last| *zxid > last)) {
                return Ok(Some(Next { at: begin, end: begin + total as u64, zxid }));
            }
        }
        start += (bytes.len() - PREFIX_BYTES + 1) as u64;
        chunk.resize(CHUNK_BYTES, 0);
    }
    Ok(None)
}

fn ends_as_a_record(file: &dyn OpenFile, end: u64) -> io::Result<bool> {
    let mut last = [0];
    files::read_what_is_left(file, &mut last, end - 1)?;
    Ok(last == [END_BYTE])
}

fn zxid_of(record: &[u8]) -> Option<Zxid> {
    let Ok(Parsed::Record { payload, .. }) = txnlog::parse(record, record.len() as u64, 0) else { return None };
    Txn::from_bytes(payload).ok().map(|txn| txn.header.zxid)
}
