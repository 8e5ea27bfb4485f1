//! Bytes on their way to clients. What is small is a connection's own; a large value, or a long list of children, is made
//! once, and all who are sent it share it. Made by `pipeline`, queued by `net::output`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::metrics::Gauge;

/// From how many bytes on sharing is worth a piece of its own.
pub const SHARED_BYTES_MIN: usize = 16 << 10;

/// A piece of ropes: of those that differ little, most have most pieces in common.
#[derive(Debug, Default)]
pub struct Strand {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many loans have it.
    loans: AtomicUsize,
}

impl From<Vec<u8>> for Strand {
    fn from(bytes: Vec<u8>) -> Strand {
        Strand { bytes, loans: AtomicUsize::new(0) }
    }
}

impl Clone for Strand {
    /// A copy is lent to nobody.
    fn clone(&self) -> Strand {
        Strand::from(self.bytes.clone())
    }
}

/// Shared bytes in pieces, one behind the other.
#[derive(Debug, Default)]
pub struct Rope {
    pieces: Vec<Arc<Strand>>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl FromIterator<Arc<Strand>> for Rope {
    fn from_iter<I: IntoIterator<Item = Arc<Strand>>>(pieces: I) -> Rope {
        let pieces: Vec<_> = pieces.into_iter().filter(|piece| !piece.bytes.is_empty()).collect();
        let end = |end: &mut usize, piece: &Arc<Strand>| {
            *end += piece.bytes.len();
            Some(*end)
        };
        let ends = pieces.iter().scan(0, end).collect();
        Rope { pieces, ends }
    }
}

impl Rope {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| piece.bytes.as_slice())
    }

    /// Bytes that it takes beside those of its pieces.
    fn overhead(&self) -> usize {
        self.pieces.len() * (size_of::<Arc<Strand>>() + size_of::<usize>())
    }

    /// From this byte on, up to the end of the piece that it is in.
    fn at(&self, offset: usize) -> &[u8] {
        let piece = self.ends.partition_point(|end| *end <= offset);
        let begin = if piece == 0 { 0 } else { self.ends[piece - 1] };
        self.pieces.get(piece).map_or(&[], |piece| &piece.bytes[offset - begin..])
    }
}

/// What is lent.
#[derive(Clone, Debug)]
pub enum Shared {
    /// Bytes in one piece.
    Whole(Arc<Vec<u8>>),
    /// Bytes in many.
    Rope(Arc<Rope>),
}

impl Shared {
    /// Where it is: another one at the same time is elsewhere.
    pub fn address(&self) -> usize {
        match self {
            Shared::Whole(bytes) => Arc::as_ptr(bytes) as usize,
            Shared::Rope(rope) => Arc::as_ptr(rope) as usize,
        }
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        match self {
            Shared::Whole(bytes) => bytes.len(),
            Shared::Rope(rope) => rope.len(),
        }
    }
}

/// Bytes that are being sent to somebody: all of those who are sent them hold the same loan.
#[derive(Debug)]
pub struct Loan {
    bytes: Shared,
    from: usize,
    lender: Lender,
}

/// Who lends, and what all that is lent by it holds in memory, bytes: a piece that several loans have counts once.
#[derive(Clone, Debug, Default)]
pub struct Lender(Arc<Gauge>);

impl Lender {
    /// Bytes.
    pub fn lent_bytes(&self) -> usize {
        usize::try_from(self.0.get()).unwrap_or(0)
    }

    fn add(&self, bytes: i64) {
        self.0.add(bytes);
        LENT_BYTES.add(bytes);
    }
}

/// A loan, as it is passed on.
pub type Lent = Arc<Loan>;

/// What all loans of the process cost, for operators.
static LENT_BYTES: Gauge = Gauge::new();

/// What all loans of the process cost, bytes: nobody decides by it.
pub fn published_lent_bytes() -> usize {
    usize::try_from(LENT_BYTES.get()).unwrap_or(0)
}

impl Loan {
    /// Of everything from this place on. There is one at a time of the same bytes.
    pub fn new(bytes: Shared, from: usize, lender: &Lender) -> Loan {
        let held = match &bytes {
            Shared::Whole(bytes) => bytes.len(),
            Shared::Rope(rope) => {
                let is_first = |piece: &&Arc<Strand>| piece.loans.fetch_add(1, Relaxed) == 0;
                rope.overhead() + rope.pieces.iter().filter(is_first).map(|piece| piece.bytes.len()).sum::<usize>()
            }
        };
        lender.add(held as i64);
        Loan { bytes, from, lender: lender.clone() }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes.size() - self.from
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its end may free: all of the bytes, also while the tree has them, which may let them go at any time.
    pub fn cost(&self) -> usize {
        self.bytes.size()
    }

    /// From this byte on, as far as they are in one piece.
    pub fn at(&self, offset: usize) -> &[u8] {
        match &self.bytes {
            Shared::Whole(bytes) => &bytes[self.from + offset..],
            Shared::Rope(rope) => rope.at(self.from + offset),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let freed = match &self.bytes {
            Shared::Whole(bytes) => bytes.len(),
            Shared::Rope(rope) => {
                let is_last = |piece: &&Arc<Strand>| piece.loans.fetch_sub(1, Relaxed) == 1;
                rope.overhead() + rope.pieces.iter().filter(is_last).map(|piece| piece.bytes.len()).sum::<usize>()
            }
        };
        self.lender.add(-(freed as i64));
    }
}

/// Bytes for one connection, in order.
#[derive(Debug, Default)]
pub struct Parts {
    own: Vec<u8>,
    /// What stands between: in front of which of the own bytes, ascending.
    lent: Vec<(usize, Lent)>,
    lent_len: usize,
}

/// A place between two bytes of [`Parts`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    own: usize,
    lent: usize,
    len: usize,
}

/// A piece of [`Parts`].
#[derive(Debug)]
pub enum Piece {
    /// Nobody else has it.
    Own(Vec<u8>),
    /// Others may.
    Lent(Lent),
}

impl Piece {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Piece::Own(bytes) => bytes.len(),
            Piece::Lent(lent) => lent.len(),
        }
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From this byte on, as far as they stand together.
    pub fn at(&self, offset: usize) -> &[u8] {
        match self {
            Piece::Own(bytes) => &bytes[offset..],
            Piece::Lent(lent) => lent.at(offset),
        }
    }
}

impl From<Vec<u8>> for Parts {
    fn from(own: Vec<u8>) -> Parts {
        Parts { own, lent: Vec::new(), lent_len: 0 }
    }
}

impl Parts {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.own.len() + self.lent_len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that nobody shares.
    pub fn own_len(&self) -> usize {
        self.own.len()
    }

    /// The own bytes: what is appended stands behind everything.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends bytes that are shared.
    pub fn lend(&mut self, lent: Lent) {
        self.lent_len += lent.len();
        self.lent.push((self.own.len(), lent));
    }

    /// The end.
    pub fn mark(&self) -> Mark {
        Mark { own: self.own.len(), lent: self.lent.len(), len: self.len() }
    }

    /// Bytes behind a mark.
    pub fn len_since(&self, mark: Mark) -> usize {
        self.len() - mark.len
    }

    /// Takes back what stands behind a mark, but so many own bytes; those stand right behind it.
    pub fn cut(&mut self, mark: Mark, kept: usize) {
        self.lent.drain(mark.lent..).for_each(|(_, lent)| self.lent_len -= lent.len());
        self.own.truncate(mark.own + kept);
    }

    /// Writes over own bytes, at this distance behind a mark.
    pub fn put_at(&mut self, mark: Mark, offset: usize, bytes: &[u8]) {
        self.own[mark.own + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// In pieces.
    pub fn for_each_piece(self, mut take: impl FnMut(Piece)) {
        let Parts { own, lent, .. } = self;
        if lent.is_empty() {
            return take(Piece::Own(own));
        }
        let mut at = 0;
        for (before, lent) in lent {
            if before > at {
                take(Piece::Own(own[at..before].to_vec()));
            }
            at = before;
            take(Piece::Lent(lent));
        }
        if at < own.len() {
            take(Piece::Own(own[at..].to_vec()));
        }
    }

    /// All in one piece, for tests.
    pub fn into_vec(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.for_each_piece(|piece| {
            let begin = bytes.len();
            while bytes.len() < begin + piece.len() {
                bytes.extend_from_slice(piece.at(bytes.len() - begin));
            }
        });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(bytes: &[u8], from: usize) -> Lent {
        Arc::new(Loan::new(Shared::Whole(Arc::new(bytes.to_vec())), from, &Lender::default()))
    }

    #[test]
    fn shared_bytes_stand_where_they_were_put() {
        let mut parts = Parts::default();
        parts.lend(lent(b"xab", 1));
        parts.own().extend_from_slice(b"cd");
        let mark = parts.mark();
        parts.own().extend_from_slice(b"..");
        parts.lend(lent(b"ef", 0));
        parts.lend(lent(b"gh", 0));
        parts.put_at(mark, 1, b"!");
        assert_eq!((parts.len(), parts.own_len(), parts.len_since(mark)), (10, 4, 6));
        assert_eq!(parts.into_vec(), b"abcd.!efgh");
    }

    #[test]
    fn what_a_failure_wrote_is_taken_back() {
        let mut parts = Parts::from(b"ab".to_vec());
        parts.lend(lent(b"cd", 0));
        let mark = parts.mark();
        parts.own().extend_from_slice(b"header");
        parts.lend(lent(b"body", 0));
        parts.own().extend_from_slice(b"stat");
        parts.cut(mark, 4);
        assert_eq!((parts.len(), parts.len_since(mark)), (8, 4));
        assert_eq!(parts.into_vec(), b"abcdhead");
    }

    #[test]
    fn a_loan_costs_all_that_it_keeps_in_memory() {
        let lender = Lender::default();
        let loan = Loan::new(Shared::Whole(Arc::new(vec![0; 10])), 3, &lender);
        assert_eq!((loan.cost(), loan.len(), lender.lent_bytes()), (10, 7, 10));
    }

    #[test]
    fn a_rope_reads_as_one() {
        let pieces = [&b"abc"[..], b"", b"defgh"].map(|bytes| Arc::new(Strand::from(bytes.to_vec())));
        let loan = Loan::new(Shared::Rope(Arc::new(pieces.into_iter().collect())), 1, &Lender::default());
        assert_eq!((loan.len(), loan.cost()), (7, 8));
        assert_eq!([loan.at(0), loan.at(1), loan.at(2), loan.at(6)], [&b"bc"[..], b"c", b"defgh", b"h"]);
        let mut parts = Parts::default();
        parts.lend(Arc::new(loan));
        assert_eq!(parts.into_vec(), b"bcdefgh");
    }

    #[test]
    fn pieces_that_ropes_share_count_once_until_the_last_of_them_is_sent() {
        let mut pieces = [1; 10].map(|byte| Arc::new(Strand::from(vec![byte; 1000])));
        let lender = Lender::default();
        let mut lend = |changed: usize| {
            Arc::make_mut(&mut pieces[changed]).bytes.push(0);
            let rope: Rope = pieces.iter().cloned().collect();
            Loan::new(Shared::Rope(Arc::new(rope)), 0, &lender)
        };
        let (first, second, third) = (lend(0), lend(1), lend(2));
        let overhead = 10 * 16;
        assert_eq!(lender.lent_bytes(), 10_001 + 2 * 1001 + 3 * overhead);
        // What the first one alone has is one piece, and so it is with each.
        drop(first);
        assert_eq!(lender.lent_bytes(), 10_002 + 1001 + 2 * overhead);
        drop(third);
        assert_eq!(lender.lent_bytes(), 10_002 + overhead);
        drop(second);
        assert_eq!(lender.lent_bytes(), 0);
    }
}
