//! Bytes on their way to clients. What is small is a connection's own; a large value, or a long list of children, is made
//! once, and all who are sent it share it. Made by `pipeline`, queued by `net::output`.

use std::ops::Deref;
use std::sync::Arc;

use crate::metrics::Gauge;

/// From how many bytes on sharing is worth a piece of its own.
pub const SHARED_BYTES_MIN: usize = 16 << 10;

/// Bytes that are being sent to somebody: all of those who are sent them hold the same loan.
#[derive(Debug)]
pub struct Loan {
    bytes: Arc<Vec<u8>>,
    from: usize,
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
    /// Of everything from this place on.
    pub fn new(bytes: Arc<Vec<u8>>, from: usize) -> Loan {
        let loan = Loan { bytes, from };
        LENT_BYTES.add(loan.cost() as i64);
        loan
    }

    /// What it costs: all of the bytes, also while the tree has them, which may let them go at any time.
    pub fn cost(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        LENT_BYTES.add(-(self.cost() as i64));
    }
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..]
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

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Lent(lent) => lent,
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
        self.for_each_piece(|piece| bytes.extend_from_slice(&piece));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(bytes: &[u8], from: usize) -> Lent {
        Arc::new(Loan::new(Arc::new(bytes.to_vec()), from))
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
        let loan = Loan::new(Arc::new(vec![0; 10]), 3);
        assert_eq!((loan.cost(), loan.len()), (10, 7));
    }
}
