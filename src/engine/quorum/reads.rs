//! What is read of the disk for a member, beside its turns: a learner's part of the log, what was let go of memory, and the
//! state after a truncation. Parts are large, so the next one is read when the last one was taken.

use std::collections::VecDeque;

use crate::ids::{LinkId, Zxid};
use crate::mail::LogRecord;
use crate::quorum::LogPart;

/// A learner's part of the log: its last transaction, and what is behind that if it is there and worth reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The learner's.
    pub link: LinkId,
    /// Its last transaction.
    pub from: Zxid,
    /// Up to here.
    pub to: Zxid,
}

/// What is to be read next, behind what was asked for before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToRead {
    /// For a learner; comes back as [`Found::Part`].
    Part(Part),
    /// What was let go of memory: these transactions, both included, which the log has synced; [`Found::Back`].
    Back {
        /// The first.
        from: Zxid,
        /// The last.
        to: Zxid,
    },
    /// The state as of a transaction, behind which everything is removed. The pipeline gets it.
    State {
        /// That transaction.
        to: Zxid,
    },
    /// The history ends here: what is read from now on is of another one.
    Forget,
}

/// What was read.
#[derive(Debug)]
pub enum Found {
    /// A learner's part.
    Part {
        /// The learner's.
        link: LinkId,
        /// What there is.
        part: LogPart,
    },
    /// What was let go.
    Back(Vec<LogRecord>),
}

/// Parts that wait for each other.
#[derive(Debug, Default)]
pub struct Reads {
    waiting: VecDeque<Part>,
    /// One is being read, or on its way back.
    is_reading: bool,
}

impl Reads {
    /// Another one. Gives what is to be read now.
    #[must_use]
    pub fn push(&mut self, part: Part) -> Option<Part> {
        self.waiting.push_back(part);
        self.next(|_| true)
    }

    /// One came back. Gives what is to be read now; not those of links that are gone.
    #[must_use]
    pub fn on_part(&mut self, is_there: impl Fn(LinkId) -> bool) -> Option<Part> {
        self.is_reading = false;
        self.next(is_there)
    }

    fn next(&mut self, is_there: impl Fn(LinkId) -> bool) -> Option<Part> {
        while !self.is_reading
            && let Some(part) = self.waiting.pop_front()
        {
            if is_there(part.link) {
                self.is_reading = true;
                return Some(part);
            }
        }
        None
    }

    /// Nobody waits for a part any more.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_read_at_a_time_and_none_for_who_is_gone() {
        let part = |link| Part { link: LinkId(link), from: Zxid(1), to: Zxid(2) };
        let mut reads = Reads::default();
        assert_eq!(reads.push(part(1)), Some(part(1)));
        for link in 2..=5 {
            assert_eq!(reads.push(part(link)), None);
        }
        assert_eq!(reads.on_part(|link| link.0 > 3), Some(part(4)));
        reads.forget();
        assert_eq!(reads.on_part(|_| true), None);
        assert_eq!(reads.push(part(6)), Some(part(6)));
    }
}
