//! Which paths were touched since something began that must tell: who reads very much of the state, some of it at a time, reads
//! again what changed meanwhile. A bit for each of so many hashes of paths, for any number of changes; a path that shares its
//! bit with another is taken for touched, too.

use std::hash::BuildHasher;

/// Bits: 128 KiB of them. With a thousand changes one path of a thousand is read again for nothing.
const BITS: u32 = 1 << 20;

/// Where the bit of a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace(u32);

impl Trace {
    /// "" and "/" are the root.
    pub(super) fn of(path: &str, hasher: &foldhash::fast::RandomState) -> Trace {
        let path = if path == "/" { "" } else { path };
        Trace(hasher.hash_one(path.as_bytes()) as u32 % BITS)
    }

    fn place(self) -> (usize, u64) {
        ((self.0 / 64) as usize, 1 << (self.0 % 64))
    }
}

/// The paths that were touched.
#[derive(Debug)]
pub(super) struct Touched {
    bits: Vec<u64>,
    is_any: bool,
}

impl Touched {
    /// None.
    pub fn new() -> Touched {
        Touched { bits: vec![0; BITS as usize / 64], is_any: false }
    }

    /// None any more.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_any) {
            self.bits.fill(0);
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.is_any
    }

    pub fn add(&mut self, trace: Trace) {
        let (word, bit) = trace.place();
        self.bits[word] |= bit;
        self.is_any = true;
    }

    pub fn has(&self, trace: Trace) -> bool {
        let (word, bit) = trace.place();
        self.bits[word] & bit != 0
    }
}
