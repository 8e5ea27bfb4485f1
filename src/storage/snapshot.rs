//! Grammar of a snapshot, `snapshot.<hex zxid>[.gz|.snappy]` (`FileSnap`, `SnapStream`, `DataTree`), and its streaming
//! reader and writer. Bytes come from a `Read` and go to a `Write`; which file that is, `recover` and
//! `engine::snapshots` say.
//!
//! ```text
//! snapshot = header  sessions  lists  nodes  "/"  seal  [digest seal  [last seal]]
//! header   = magic "ZKSN"  version i32 = 2  dbid i64 = -1
//! sessions = count i32  { id i64  timeout_ms i32 }
//! lists    = count i32  { index i64  vector<ACL> }
//! nodes    = { path  data  list index i64  StatPersisted }   the root first, as ""; parents before children
//! seal     = adler32 of every byte before it as i64  "/"     over the uncompressed bytes
//! digest   = zxid i64  version i32  value i64                since 3.6
//! last     = last processed zxid i64                         since 3.9; 3.8 does not look at it
//! ```
//!
//! Sections are positional and do not say what they are. Without a digest section 3.9's last section stands in its
//! place, and only its length tells.

use std::io::{self, Read, Write};

use thiserror::Error;

use crate::ids::{SessionId, Zxid};
use crate::jute::{Reader, Writer};
use crate::records::{Acl, StatPersisted};
use crate::state::LoadError;
use crate::storage::chunks::{self, Chunks, exactly};
pub use crate::storage::items::SnapshotSink;
use crate::storage::items::{BadItem, END_MARK, Items};
use crate::sys::files;
use crate::txn::DIGEST_VERSION;

/// "ZKSN".
pub const MAGIC: [u8; 4] = *b"ZKSN";
const HEADER_BYTES: usize = 16;
const SEAL_BYTES: usize = 8 + END_MARK.len();
/// The last section of 3.9 where the digest section should be: a zxid and its seal.
const LAST_SECTION_BYTES: usize = 8 + SEAL_BYTES;
/// Bytes behind the first seal that are looked at; far more than any version writes.
const TRAILER_BYTES_MAX: usize = 64 << 10;

/// Why a file is no usable snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The disk, or the compression.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Not a snapshot.
    #[error("does not begin as a snapshot does")]
    BadMagic,
    /// Its last bytes are not those of a whole one.
    #[error("is cut short")]
    CutShort,
    /// It ends too early.
    #[error("ends at byte {at}, inside {inside}")]
    Truncated {
        /// Offset in the uncompressed stream.
        at: u64,
        /// Which part.
        inside: &'static str,
    },
    /// A length or value that makes no sense.
    #[error("malformed at byte {at}, in {inside}")]
    Malformed {
        /// Offset in the uncompressed stream.
        at: u64,
        /// Which part.
        inside: &'static str,
    },
    /// A checksum does not match.
    #[error("{0} does not match the bytes before it")]
    BadSeal(&'static str),
    /// Its seals are right, but its content makes no state.
    #[error("{0}")]
    Content(#[from] LoadError),
}

impl SnapshotError {
    /// Whether it says that the data is not what was written. What the system refuses otherwise (rights, too many open
    /// files) says nothing about that.
    pub fn is_of_data(&self) -> bool {
        match self {
            // Errors of the compression have no number.
            SnapshotError::Io(error) => error.raw_os_error().is_none() || files::is_lost(error),
            _ => true,
        }
    }
}

/// The digest section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDigest {
    /// The transaction after which the tree had this digest.
    pub zxid: Zxid,
    /// Algorithm.
    pub version: i32,
    /// Sum of all node digests.
    pub value: u64,
}

/// What a snapshot says beside its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailer {
    /// `None` in files without the section, with "none" in it, or with the textual digest of version 1.
    pub digest: Option<SnapshotDigest>,
    /// 3.9's last section.
    pub last_processed: Option<Zxid>,
}

/// Counts of what was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// Sections behind the tree.
    pub trailer: Trailer,
    /// Nodes.
    pub nodes: u64,
    /// Uncompressed bytes up to the end of the tree.
    pub bytes: u64,
}

/// Reads a snapshot into a sink. Reading (and decompressing) and the checksum run on a second thread.
pub fn load(from: Box<dyn Read + Send>, sink: &mut impl SnapshotSink) -> Result<Loaded, SnapshotError> {
    chunks::read(from, |chunks| parse(chunks, sink))
}

/// Reads a snapshot to its end and checks everything that is sealed; nothing is kept of it.
pub fn check(from: Box<dyn Read + Send>) -> Result<Loaded, SnapshotError> {
    struct Nowhere;
    impl SnapshotSink for Nowhere {
        fn session(&mut self, _: SessionId, _: i32) {}
        fn acl(&mut self, _: i64, _: Vec<Acl>) {}
        fn node(&mut self, _: &str, _: Option<&[u8]>, _: i64, _: StatPersisted) -> Result<(), LoadError> {
            Ok(())
        }
    }
    load(from, &mut Nowhere)
}

/// Reads the whole file. A node the sink refuses does not end the reading: only behind the seal is it known whether the
/// file is damaged or really says so.
fn parse(mut chunks: Chunks, sink: &mut impl SnapshotSink) -> Result<Loaded, SnapshotError> {
    let header = chunks.item("the header", exactly(HEADER_BYTES))?;
    if header[..4] != MAGIC {
        return Err(SnapshotError::BadMagic);
    }
    let (mut items, mut refused) = (Items::new(), None);
    while let Some(inside) = items.inside() {
        let at = chunks.at();
        let item = chunks.item(inside, |have| items.measure(have))?;
        match items.take(item, sink) {
            Ok(()) => {}
            Err(BadItem::Malformed) => return Err(SnapshotError::Malformed { at, inside }),
            Err(BadItem::Refused(error)) => {
                refused.get_or_insert(error);
            }
        }
    }
    let bytes = chunks.at();
    let adler = chunks.adler();
    let trailer = parse_trailer(&chunks.rest(TRAILER_BYTES_MAX)?, bytes, adler)?;
    match refused {
        Some(error) => Err(error.into()),
        None => Ok(Loaded { trailer, nodes: items.nodes(), bytes }),
    }
}

/// Reads what stands behind the tree. `adler` is the checksum up to here, `at` the offset.
fn parse_trailer(bytes: &[u8], at: u64, mut adler: simd_adler32::Adler32) -> Result<Trailer, SnapshotError> {
    let mut rest = bytes;
    let mut trailer = Trailer::default();
    check_seal(&mut rest, &mut adler, at, "the seal of the tree")?;
    if rest.is_empty() {
        return Ok(trailer);
    }
    if rest.len() != LAST_SECTION_BYTES {
        let (digest, used) = parse_digest(rest).ok_or(SnapshotError::Truncated { at, inside: "the digest section" })?;
        trailer.digest = digest;
        adler.write(&rest[..used]);
        rest = &rest[used..];
        check_seal(&mut rest, &mut adler, at, "the seal of the digest")?;
    }
    if !rest.is_empty() {
        let inside = "the section of the last zxid";
        let (section, mut seal) = rest.split_at_checked(8).ok_or(SnapshotError::Truncated { at, inside })?;
        adler.write(section);
        check_seal(&mut seal, &mut adler, at, "the seal of the last zxid")?;
        trailer.last_processed = Reader::new(section).long().ok().map(Zxid);
    }
    Ok(trailer)
}

/// The digest section and its length.
fn parse_digest(bytes: &[u8]) -> Option<(Option<SnapshotDigest>, usize)> {
    let mut r = Reader::new(bytes);
    let (zxid, version) = (Zxid(r.long().ok()?), r.int().ok()?);
    if version < DIGEST_VERSION {
        r.string().ok()?;
        return Some((None, r.position()));
    }
    let value = r.long().ok()? as u64;
    // What Apache writes when no transaction was applied since its start.
    let none = zxid == Zxid::ZERO && value == 0;
    Some(((!none).then_some(SnapshotDigest { zxid, version, value }), r.position()))
}

/// Takes a seal off the front of `rest`.
fn check_seal(
    rest: &mut &[u8],
    adler: &mut simd_adler32::Adler32,
    at: u64,
    which: &'static str,
) -> Result<(), SnapshotError> {
    let Some((seal, after)) = rest.split_at_checked(SEAL_BYTES) else {
        return Err(SnapshotError::Truncated { at, inside: which });
    };
    if seal[..8] != i64::from(adler.finish()).to_be_bytes() || seal[8..] != END_MARK {
        return Err(SnapshotError::BadSeal(which));
    }
    adler.write(seal);
    *rest = after;
    Ok(())
}

/// Writes a snapshot: takes the stream up to the end of the tree as it comes, then seals it.
pub struct SnapshotWriter<W: Write> {
    to: crate::storage::compress::Encoder<W>,
    adler: simd_adler32::Adler32,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins one.
    pub fn new(method: crate::config::Compression, to: W) -> io::Result<SnapshotWriter<W>> {
        let to = crate::storage::compress::Encoder::new(method, to)?;
        Ok(SnapshotWriter { to, adler: simd_adler32::Adler32::new() })
    }

    /// The writer below.
    pub fn get_mut(&mut self) -> &mut W {
        self.to.get_mut()
    }

    /// The next bytes of header, sessions, lists and nodes, the end mark included.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.adler.write(bytes);
        self.to.write_all(bytes)
    }

    fn seal(&mut self) -> io::Result<()> {
        let mut seal = Vec::with_capacity(SEAL_BYTES);
        seal.put_long(i64::from(self.adler.finish()));
        seal.extend_from_slice(&END_MARK);
        self.write(&seal)
    }

    /// The tree is complete: writes the seals, the digest section (always: a 3.9 server misreads what follows where it
    /// is missing) and, if wanted, 3.9's last section. `digest` is the tree's at `zxid`; `None` while digests are off.
    pub fn finish(mut self, zxid: Zxid, digest: Option<u64>, last_section: bool) -> io::Result<W> {
        self.seal()?;
        let mut section = Vec::new();
        section.put_long(digest.map_or(0, |_| zxid.0));
        section.put_int(DIGEST_VERSION);
        section.put_long(digest.unwrap_or(0) as i64);
        self.write(&section)?;
        self.seal()?;
        if last_section {
            self.write(&zxid.0.to_be_bytes())?;
            self.seal()?;
        }
        self.to.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Compression;
    use crate::state::{Loader, State, StateRules};
    use crate::storage::chunks::Chunk;
    use crossbeam_channel::bounded;

    fn rules() -> StateRules {
        StateRules { digest_enabled: true, ..StateRules::default() }
    }

    fn stream(state: &mut State) -> Vec<u8> {
        let mut bytes = state.begin_cut();
        loop {
            let (slice, done) = state.cut_slice(100);
            bytes.extend(slice);
            if done {
                return bytes;
            }
        }
    }

    fn written(digest: Option<u64>, last_section: bool) -> Vec<u8> {
        let mut state = State::fresh(rules());
        let mut writer = SnapshotWriter::new(Compression::None, Vec::new()).unwrap();
        writer.write(&stream(&mut state)).unwrap();
        writer.finish(Zxid(5), digest, last_section).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Loaded, SnapshotError> {
        load(Box::new(io::Cursor::new(bytes.to_vec())), &mut Loader::new(rules()))
    }

    #[test]
    fn what_was_written_reads_back() {
        let loaded = read(&written(Some(7), true)).unwrap();
        let digest = Some(SnapshotDigest { zxid: Zxid(5), version: 2, value: 7 });
        assert_eq!(loaded.trailer, Trailer { digest, last_processed: Some(Zxid(5)) });
        assert_eq!(loaded.nodes, 4);
        assert_eq!(read(&written(None, false)).unwrap().trailer, Trailer::default());
    }

    #[test]
    fn a_snapshot_of_3_9_without_digest_is_told_by_its_length() {
        let mut state = State::fresh(rules());
        let mut writer = SnapshotWriter::new(Compression::None, Vec::new()).unwrap();
        writer.write(&stream(&mut state)).unwrap();
        writer.seal().unwrap();
        writer.write(&9_i64.to_be_bytes()).unwrap();
        writer.seal().unwrap();
        let bytes = writer.to.finish().unwrap();
        assert_eq!(read(&bytes).unwrap().trailer, Trailer { digest: None, last_processed: Some(Zxid(9)) });
    }

    #[test]
    fn no_prefix_of_a_snapshot_is_one_but_those_that_end_behind_a_seal() {
        let bytes = written(Some(7), true);
        let ends: Vec<usize> = (1..bytes.len()).filter(|cut| read(&bytes[..*cut]).is_ok()).collect();
        assert_eq!(ends, [bytes.len() - 33 - 21, bytes.len() - 21]);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let bytes = written(Some(7), true);
        for at in 0..bytes.len() {
            // Version and database id are not looked at, but they are sealed.
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }

    /// Reads one byte at a time, so that every item lies across chunks.
    struct Trickle(io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(1);
            self.0.read(&mut out[..n])
        }
    }

    #[test]
    fn items_may_lie_across_chunks() {
        let bytes = written(Some(7), true);
        let (full, filled) = bounded(bytes.len());
        let (spare, _empty) = bounded(1);
        let mut adler = simd_adler32::Adler32::new();
        for byte in &bytes {
            full.send(Ok(Chunk { bytes: vec![*byte], adler_before: adler.finish() })).unwrap();
            adler.write(&[*byte]);
        }
        drop(full);
        let loaded = parse(Chunks::new(filled, spare), &mut Loader::new(rules())).unwrap();
        assert_eq!(loaded, read(&bytes).unwrap());
        let trickled = load(Box::new(Trickle(io::Cursor::new(bytes.clone()))), &mut Loader::new(rules())).unwrap();
        assert_eq!(trickled, loaded);
    }
}
