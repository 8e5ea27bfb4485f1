//! What waits to be written to one connection. Replies stay in the buffers they were made in, large ones in those that all
//! who are sent the same share; nothing is copied but small pieces behind each other. Called by `net::conn`; the socket is the caller's.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::parts::{Parts, Piece};

/// Buffers below this size are put together when they have to wait, bytes: a slow reader of events costs what they weigh.
const MERGE_BYTES: usize = 4 << 10;

/// Buffers that one write may take.
pub const SLICES_MAX: usize = 16;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Output {
    queue: VecDeque<Piece>,
    /// How much of the first buffer is written.
    /// Invariant: less than its length.
    written: usize,
    /// Bytes in the queue that are not written.
    unsent: usize,
    /// Bytes of the queue that nobody else has.
    own: usize,
    /// Bytes of shared pieces that were written.
    returned: usize,
}

impl Output {
    /// Bytes that wait.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Bytes that wait, and that no other connection has.
    pub fn own(&self) -> usize {
        self.own
    }

    /// For what there would be room without this: the own bytes, and what was shared and is sent to nobody else.
    pub fn cost(&self) -> usize {
        let last = |piece: &Piece| match piece {
            Piece::Lent(lent) if Arc::strong_count(lent) == 1 => lent.cost(),
            Piece::Lent(_) | Piece::Own(_) => 0,
        };
        self.own + self.queue.iter().map(last).sum::<usize>()
    }

    /// Bytes of shared pieces that wait, in part or as a whole.
    pub fn shared(&self) -> usize {
        let shared = |piece: &Piece| if let Piece::Lent(lent) = piece { lent.len() } else { 0 };
        self.queue.iter().map(shared).sum()
    }

    /// Bytes of shared pieces that were written since the last call.
    pub fn take_returned(&mut self) -> usize {
        std::mem::take(&mut self.returned)
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends bytes.
    pub fn push(&mut self, parts: Parts) {
        parts.for_each_piece(|piece| self.push_piece(piece));
    }

    fn push_piece(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        self.unsent += piece.len();
        if let Piece::Own(bytes) = &piece {
            self.own += bytes.len();
            if let Some(Piece::Own(last)) = self.queue.back_mut()
                && last.len() + bytes.len() <= MERGE_BYTES
            {
                return last.extend_from_slice(bytes);
            }
        }
        self.queue.push_back(piece);
    }

    /// The next bytes to write, at most `max`. Returns how many slices were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX], max: usize) -> usize {
        let (mut room, mut filled, mut at) = (max, 0, self.written);
        for piece in &self.queue {
            while at < piece.len() {
                if filled == SLICES_MAX || room == 0 {
                    return filled;
                }
                let rest = piece.at(at);
                let taken = rest.len().min(room);
                slices[filled] = IoSlice::new(&rest[..taken]);
                room -= taken;
                filled += 1;
                at += taken;
            }
            at = 0;
        }
        filled
    }

    /// So many of those bytes were written.
    pub fn advance(&mut self, mut count: usize) {
        self.unsent = self.unsent.checked_sub(count).expect("no more is written than was offered");
        while let Some(first) = self.queue.front() {
            let rest = first.len() - self.written;
            if count < rest {
                self.written += count;
                return;
            }
            count -= rest;
            self.written = 0;
            match self.queue.pop_front() {
                Some(Piece::Own(bytes)) => self.own -= bytes.len(),
                Some(Piece::Lent(lent)) => self.returned += lent.len(),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{Lender, Loan, Shared, Strand};

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = output.slices(&mut slices, step);
            let taken: usize = slices[..filled].iter().map(|s| s.len()).sum();
            assert!(taken <= step && taken > 0);
            slices[..filled].iter().for_each(|slice| all.extend_from_slice(slice));
            output.advance(taken);
        }
        assert_eq!((output.unsent(), output.own()), (0, 0));
        all
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes() {
        for step in [1, 7, 4096, 5000, 1 << 20] {
            let mut output = Output::default();
            let mut expected = Vec::new();
            for (n, len) in [10usize, 0, 5000, 3, 4000, 200, 4096, 1, 9000].into_iter().enumerate() {
                let bytes = vec![n as u8; len];
                expected.extend_from_slice(&bytes);
                output.push(bytes.into());
            }
            assert_eq!(output.unsent(), expected.len());
            assert_eq!(drain(&mut output, step), expected);
        }
    }

    #[test]
    fn shared_pieces_are_sent_from_where_they_are_and_cost_who_has_them_last() {
        let rope = [vec![7; 20_000], vec![8; 30_000]].map(|bytes| Arc::new(Strand::from(bytes))).into_iter().collect();
        let lent = Arc::new(Loan::new(Shared::Rope(Arc::new(rope)), 0, &Lender::default()));
        let mut outputs: Vec<Output> = (0..3).map(|_| Output::default()).collect();
        for output in &mut outputs {
            let mut parts = Parts::from(vec![1; 24]);
            parts.lend(Arc::clone(&lent));
            parts.own().extend_from_slice(&[2; 68]);
            output.push(parts);
        }
        drop(lent);
        let costs = |outputs: &[Output]| outputs.iter().map(Output::cost).collect::<Vec<_>>();
        assert_eq!(costs(&outputs), [92, 92, 92]);
        let expected = [vec![1; 24], vec![7; 20_000], vec![8; 30_000], vec![2; 68]].concat();
        assert_eq!(drain(&mut outputs[0], 1000), expected);
        assert_eq!((outputs[0].take_returned(), outputs[0].take_returned()), (50_000, 0));
        outputs.truncate(2);
        assert_eq!(costs(&outputs), [0, 50_092]);
    }

    #[test]
    fn small_pieces_are_put_together() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(vec![1; 40].into());
        }
        assert!(output.queue.len() < 20);
        assert_eq!(drain(&mut output, 100).len(), 40_000);
    }
}
