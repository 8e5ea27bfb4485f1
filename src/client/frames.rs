//! Frames out of a stream of bytes, however they are cut. Called by the client's thread only.

use std::io::{self, Read};

use crate::limits::ANSWER_BYTES_MAX;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 << 10;

/// What came and is not taken yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// The next whole frame, without its length.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.bytes[self.taken..];
        let Some((length, content)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX) else {
            let what = format!("{length} as the length of an answer: it does not speak ZooKeeper's protocol");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        if content.len() < length {
            return Ok(None);
        }
        let start = self.taken + 4;
        self.taken = start + length;
        Ok(Some(&self.bytes[start..self.taken]))
    }

    /// Reads what is there; the number of bytes, 0 at the end of the stream.
    pub fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + READ_BYTES, 0);
        let result = stream.read(&mut self.bytes[len..]);
        self.bytes.truncate(len + *result.as_ref().unwrap_or(&0));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let all = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 1..all.len() {
            let mut frames = Frames::default();
            let mut got = Vec::new();
            for piece in all.chunks(cut) {
                frames.fill(&mut &piece[..]).unwrap();
                while let Some(frame) = frames.next().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            assert_eq!(got, [vec![7, 8], vec![], vec![9]]);
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in [&b"HTTP/1.1"[..], &[0xff; 8]] {
            let mut frames = Frames::default();
            frames.fill(&mut &*text).unwrap();
            assert!(frames.next().is_err());
        }
    }
}
