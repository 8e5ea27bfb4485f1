//! Who connects to the ports between servers, and how often the log says something about each: a flood of connections, or
//! of garbage on them, is no flood of lines. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ids::ServerId;
use crate::quiet::Quiet;

/// Shortest distance of two lines about one address, ms; each kind of line has its own.
const INTERVAL_MS: i64 = 60_000;
/// The same for one that says it is a member: members come and go together.
const MEMBERS_INTERVAL_MS: i64 = 1_000;
/// Lines that are kept apart. With more, all others count as of one address.
const KINDS_MAX: usize = 1024;

/// The other side of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Caller {
    /// This server dialled it.
    Dialled,
    /// It came by itself, and said that it is this member; or did not.
    Came(IpAddr, Option<ServerId>),
}

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    /// The connection broke, or ended.
    Ended,
    /// This server closed it.
    Closed,
    /// This server closed it, since it did not take what it was sent.
    Dropped,
    /// Something that it said cannot be read.
    Malformed,
    /// It is in no list of members.
    Unlisted,
}

/// The lines of late.
#[derive(Debug, Default)]
pub struct Callers {
    lines: BTreeMap<(Option<Caller>, About), Quiet>,
}

impl Callers {
    /// `Some(n)`: the line may be written, and n like it were not before.
    pub fn pass(&mut self, caller: Caller, about: About, now_ms: i64) -> Option<u64> {
        let interval_ms = match caller {
            Caller::Dialled => return Some(0),
            Caller::Came(_, Some(_)) => MEMBERS_INTERVAL_MS,
            Caller::Came(_, None) => INTERVAL_MS,
        };
        let mut key = (Some(caller), about);
        if self.lines.len() >= KINDS_MAX && !self.lines.contains_key(&key) {
            self.lines.retain(|_, quiet| !quiet.would_pass(now_ms));
            if self.lines.len() >= KINDS_MAX {
                key.0 = None;
            }
        }
        self.lines.entry(key).or_insert_with(|| Quiet::every(interval_ms)).pass(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(n: u32, member: Option<i64>) -> Caller {
        Caller::Came(IpAddr::from(n.to_be_bytes()), member.map(ServerId))
    }

    /// How many lines a second of connections leaves, a thousand a second for so long.
    fn lines(callers: &mut Callers, caller: Caller, about: About, from_ms: i64, to_ms: i64) -> Vec<u64> {
        (from_ms..to_ms).filter_map(|now_ms| callers.pass(caller, about, now_ms)).collect()
    }

    #[test]
    fn a_flood_is_one_line_a_minute_for_each_address_and_kind() {
        let mut callers = Callers::default();
        assert_eq!(lines(&mut callers, came(1, None), About::Malformed, 0, 120_001), [0, 59_999, 59_999]);
        assert_eq!(lines(&mut callers, came(1, None), About::Ended, 0, 20_000), [0]);
        assert_eq!(lines(&mut callers, came(2, None), About::Malformed, 0, 20_000), [0]);
        assert_eq!(lines(&mut callers, came(1, Some(3)), About::Ended, 0, 2_000), [0, 999]);
        assert_eq!(lines(&mut callers, Caller::Dialled, About::Ended, 0, 5), [0; 5]);
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_too() {
        let mut callers = Callers::default();
        let written = (0..100_000).filter(|n| callers.pass(came(*n, None), About::Ended, 5).is_some()).count();
        assert_eq!((written, callers.lines.len()), (KINDS_MAX + 1, KINDS_MAX + 1));
        // Those of before make room.
        assert_eq!(callers.pass(came(200_000, None), About::Ended, 60_005), Some(0));
        assert_eq!(callers.lines.len(), 1);
    }
}
