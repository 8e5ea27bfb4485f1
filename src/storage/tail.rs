//! What stands behind the last good record of the newest log, and whether a crash can have left it. A table:
//!
//! | behind the last good record | a crash? | what is done |
//! |---|---|---|
//! | nothing, or zeros | yes, or an orderly end | zeros are trimmed |
//! | a tear, no readable record after it | yes: a write cut short | cut |
//! | a tear with a zero sector, readable records after it | yes: the power went during a sync, which writes its sectors in any order | cut, a copy kept aside |
//! | a tear without one, readable records after it | no: synced records follow, so this one was whole | refused |
//!
//! Reads the file it is given; changes nothing. Used by `recover`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::ids::Zxid;
use crate::storage::txnlog::{self, Parsed};
use crate::txn::Txn;

/// Bytes read at once while looking for the last byte that is not zero.
const CHUNK_BYTES: usize = 1 << 20;

/// What a tail is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// The file ends there.
    Nothing,
    /// Only zeros.
    Zeros,
    /// What a crash leaves of unsynced records. `records_after`: readable records stand behind the first one lost.
    Unsynced {
        /// Whether some later record of the same sync did reach the disk.
        records_after: bool,
    },
    /// A readable record follows one that is not, and no write was lost between: the disk changed what was synced.
    Damaged {
        /// Where the readable record begins.
        at: u64,
        /// Its zxid.
        zxid: Zxid,
    },
}

/// Offset of the last byte in `from..to` that is not zero.
pub fn last_non_zero(file: &File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut end = to;
    while end > from {
        let start = from.max(end.saturating_sub(CHUNK_BYTES as u64));
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b != 0) {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Judges what follows `offset`, the end of the last good record, whose zxid is `last`.
pub fn judge(file: &File, offset: u64, length: u64, last: Option<Zxid>) -> io::Result<Tail> {
    if offset >= length {
        return Ok(Tail::Nothing);
    }
    let Some(last_byte) = last_non_zero(file, offset, length)? else { return Ok(Tail::Zeros) };
    let mut bytes = vec![0; (last_byte + 1 - offset) as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(match next_record(&bytes, last) {
        None => Tail::Unsynced { records_after: false },
        Some((at, _)) if txnlog::has_zero_sector(&bytes[..at], offset) => Tail::Unsynced { records_after: true },
        Some((at, zxid)) => Tail::Damaged { at: offset + at as u64, zxid },
    })
}

/// The first whole record in `bytes`, not at their very beginning, with a zxid above `last`.
fn next_record(bytes: &[u8], last: Option<Zxid>) -> Option<(usize, Zxid)> {
    for at in 1..bytes.len().saturating_sub(txnlog::FRAME_BYTES) {
        let rest = &bytes[at..];
        // The checksum is 32 bits in a field of 64: a cheap first look.
        if rest[..4] != [0; 4] {
            continue;
        }
        let Ok(Parsed::Record { payload, .. }) = txnlog::parse(rest, 0, rest.len() as u64, 0) else { continue };
        match Txn::from_bytes(payload) {
            Ok(txn) if last.is_none_or(|last| txn.header.zxid > last) => return Some((at, txn.header.zxid)),
            _ => {}
        }
    }
    None
}
