//! What waits to be written to one connection. Replies stay in the buffers they were made in; nothing is copied but
//! small pieces behind each other. Called by `net::conn`; the socket is the caller's.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Buffers below this size are put together when they have to wait, bytes: a slow reader of events costs what they weigh.
const MERGE_BYTES: usize = 4 << 10;

/// Buffers that one write may take.
pub const SLICES_MAX: usize = 16;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Output {
    queue: VecDeque<Vec<u8>>,
    /// How much of the first buffer is written.
    /// Invariant: less than its length.
    written: usize,
    /// Bytes in the queue that are not written.
    unsent: usize,
}

impl Output {
    /// Bytes that wait.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.unsent += bytes.len();
        match self.queue.back_mut() {
            Some(last) if last.len() + bytes.len() <= MERGE_BYTES => last.extend_from_slice(&bytes),
            _ => self.queue.push_back(bytes),
        }
    }

    /// The next bytes to write, at most `max`. Returns how many slices were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX], max: usize) -> usize {
        let mut room = max;
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
            let rest = if filled == 0 { &bytes[self.written..] } else { &bytes[..] };
            let taken = rest.len().min(room);
            if taken == 0 {
                break;
            }
            *slice = IoSlice::new(&rest[..taken]);
            room -= taken;
            filled += 1;
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
            self.queue.pop_front();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Output::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(output.unsent(), 0);
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
                output.push(bytes);
            }
            assert_eq!(output.unsent(), expected.len());
            assert_eq!(drain(&mut output, step), expected);
        }
    }

    #[test]
    fn small_pieces_are_put_together() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(vec![1; 40]);
        }
        assert!(output.queue.len() < 20);
        assert_eq!(drain(&mut output, 100).len(), 40_000);
    }
}
