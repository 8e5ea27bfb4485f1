//! The state as a leader sends it behind SNAP, into a [`State`] of this server, piece by piece as it comes
//! (`Learner.syncWithLeader`, `SerializeUtils.deserializeSnapshot`). Pure; used by `engine::quorum`.
//!
//! ```text
//! stream   = sessions  lists  nodes  "/"  "BenWasHere"
//! ```
//!
//! The parts are those of a snapshot file; there is no header before them and no seal behind.

use thiserror::Error;

use crate::ids::Zxid;
use crate::state::{LoadError, Loader, State, StateRules};
use crate::storage::chunks::{Measure, exactly};
use crate::storage::items::{BadItem, Items};

/// Ends the stream, a string.
pub const SIGNATURE: &[u8] = b"\0\0\0\x0aBenWasHere";

/// Why a stream makes no state. The connection is to be closed: where the stream ends cannot be told.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StreamError {
    /// A length or value that makes no sense.
    #[error("the leader's snapshot is malformed at byte {at}, in {inside}")]
    Malformed {
        /// Offset in the stream.
        at: u64,
        /// Which part.
        inside: &'static str,
    },
    /// A node or list that is longer than any may be.
    #[error(
        "the leader's snapshot has an entry of at least {bytes} bytes at byte {at}, in {inside}; {max} are allowed. If it is sound, raise jute.maxbuffer here to what the leader has"
    )]
    TooLong {
        /// Offset in the stream.
        at: u64,
        /// Which part.
        inside: &'static str,
        /// Its length, as far as it is known.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Something else where the signature belongs.
    #[error("the leader's snapshot does not end with its signature: bytes were lost or added")]
    BadSignature,
    /// It can be read, but it makes no state.
    #[error("the leader's snapshot makes no state: {0}")]
    Content(#[from] LoadError),
}

/// How far the stream is.
#[derive(Debug)]
pub enum Progress {
    /// Every byte was used, and more are needed.
    More,
    /// The state is complete.
    Done {
        /// The state, as of the end of the stream.
        state: Box<State>,
        /// How many of the bytes fed last belong to the stream: packets follow.
        used: usize,
    },
}

/// Builds the state while the stream comes in. Beside the state it holds one unfinished entry.
#[derive(Debug)]
pub struct SnapshotReceiver {
    /// `None` once the state is handed over.
    loader: Option<Loader>,
    zxid: Zxid,
    entry_bytes_max: usize,
    items: Items,
    /// The beginning of an entry, and how many bytes of it are needed before it is measured again.
    carry: Vec<u8>,
    wanted: usize,
    /// Offset of the next entry.
    at: u64,
}

impl SnapshotReceiver {
    /// Of a state as of `zxid`, which SNAP tells. An entry is as long as a transaction can be that makes it: its bound is
    /// that of a packet's data.
    pub fn new(rules: StateRules, zxid: Zxid, entry_bytes_max: usize) -> SnapshotReceiver {
        SnapshotReceiver {
            loader: Some(Loader::new(rules)),
            zxid,
            entry_bytes_max,
            items: Items::new(),
            carry: Vec::new(),
            wanted: 0,
            at: 0,
        }
    }

    /// Bytes taken so far, those of an unfinished entry not counted.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Takes the next bytes. After an error, or after the state was handed over, nothing more may be fed.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, StreamError> {
        let mut rest = bytes;
        loop {
            // Whole entries are taken where they lie.
            let in_place = self.carry.is_empty();
            if !in_place {
                let missing = self.wanted - self.carry.len();
                let (now, later) = rest.split_at(missing.min(rest.len()));
                self.carry.extend_from_slice(now);
                rest = later;
                if self.carry.len() < self.wanted {
                    return Ok(Progress::More);
                }
            }
            let have = if in_place { rest } else { &self.carry };
            let inside = self.items.inside();
            let measured = match inside {
                Some(_) => self.items.measure(have),
                None => exactly(SIGNATURE.len())(have),
            };
            let (at, place) = (self.at, inside.unwrap_or("the signature"));
            match measured {
                Measure::Bad => return Err(StreamError::Malformed { at, inside: place }),
                Measure::AtLeast(bytes) | Measure::Whole(bytes) if bytes > self.entry_bytes_max => {
                    return Err(StreamError::TooLong { at, inside: place, bytes, max: self.entry_bytes_max });
                }
                Measure::AtLeast(bytes) => {
                    self.wanted = bytes;
                    if in_place {
                        self.carry.extend_from_slice(rest);
                        return Ok(Progress::More);
                    }
                }
                Measure::Whole(length) => {
                    let Some(loader) = &mut self.loader else { return Err(StreamError::BadSignature) };
                    let entry = &have[..length];
                    if inside.is_none() {
                        let right = entry == SIGNATURE;
                        let loader = self.loader.take().filter(|_| right).ok_or(StreamError::BadSignature)?;
                        let left = if in_place { rest.len() - length } else { rest.len() };
                        let state = Box::new(loader.finish(self.zxid));
                        return Ok(Progress::Done { state, used: bytes.len() - left });
                    }
                    self.items.take(entry, loader).map_err(|bad| match bad {
                        BadItem::Malformed => StreamError::Malformed { at, inside: place },
                        BadItem::Refused(error) => error.into(),
                    })?;
                    self.at += length as u64;
                    if in_place {
                        rest = &rest[length..];
                    }
                    self.carry.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Writer;

    const ZXID: Zxid = Zxid(0x5_0000_0007);
    /// What a file has before the parts.
    const FILE_HEADER_BYTES: usize = 16;

    fn rules() -> StateRules {
        StateRules { digest_enabled: true, ..StateRules::default() }
    }

    fn tree() -> Vec<u8> {
        let mut state = State::fresh(rules());
        let mut bytes = state.begin_cut();
        loop {
            let (slice, done) = state.cut_slice(100);
            bytes.extend(slice);
            if done {
                return bytes.split_off(FILE_HEADER_BYTES);
            }
        }
    }

    fn stream() -> Vec<u8> {
        [&tree(), SIGNATURE].concat()
    }

    fn receiver() -> SnapshotReceiver {
        SnapshotReceiver::new(rules(), ZXID, 1000)
    }

    fn refused(bytes: &[u8]) -> StreamError {
        receiver().feed(bytes).unwrap_err()
    }

    #[test]
    fn a_stream_becomes_the_state_however_it_is_cut_and_what_follows_is_left() {
        let bytes = [&stream()[..], b"packet"].concat();
        for step in [1, 3, 60, bytes.len()] {
            let (mut receiver, mut before) = (receiver(), 0);
            let done = bytes.chunks(step).find_map(|piece| match receiver.feed(piece).unwrap() {
                Progress::More => {
                    before += piece.len();
                    None
                }
                Progress::Done { state, used } => Some((state, before + used)),
            });
            let (state, used) = done.unwrap();
            assert_eq!(used, stream().len());
            assert_eq!((state.last_zxid(), state.tree_digest()), (ZXID, State::fresh(rules()).tree_digest()));
        }
    }

    #[test]
    fn no_prefix_of_a_stream_is_one() {
        let bytes = stream();
        for end in 0..bytes.len() {
            assert!(matches!(receiver().feed(&bytes[..end]), Ok(Progress::More)), "{end}");
        }
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let mut bytes = stream();
        *bytes.last_mut().unwrap() = b'!';
        assert_eq!(refused(&bytes), StreamError::BadSignature);
    }

    #[test]
    fn a_length_that_no_entry_has_is_refused_before_its_bytes_come() {
        let path = |length: i32| [&[0; 8][..], &length.to_be_bytes()].concat();
        assert!(matches!(refused(&path(i32::MAX)), StreamError::TooLong { at: 8, inside: "the nodes", max: 1000, .. }));
        assert_eq!(refused(&path(-1)), StreamError::Malformed { at: 8, inside: "the nodes" });
        let mut list = vec![0; 4];
        list.put_int(1);
        list.put_long(1);
        list.put_int(i32::MAX);
        assert!(matches!(refused(&list), StreamError::TooLong { at: 8, inside: "the access lists", .. }));
    }

    #[test]
    fn a_node_without_its_parent_is_refused() {
        let mut bytes = vec![0; 8];
        bytes.put_string("/a/b");
        bytes.put_buffer(None);
        bytes.extend([0; 68]);
        assert_eq!(refused(&bytes), StreamError::Content(LoadError::NoParent { path: "/a/b".into() }));
    }
}
