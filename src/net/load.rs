//! How much work is in flight, over all connections and for each: the door at which load is refused, so that the queues
//! behind it need no bound of their own. Pure. Called by `net::desk` and `net::conn`.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::ids::ConnId;
use crate::limits;

/// What may be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadLimits {
    /// `globalOutstandingLimit`: requests in process above which a connection that has one of them is not read.
    pub outstanding: usize,
    /// `largeRequestThreshold`: frames longer than this are large, bytes; `None` is off.
    pub large_threshold: Option<usize>,
    /// `largeRequestMaxBytes`: sum of large frames in flight.
    pub large_bytes_max: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        LoadLimits { outstanding: 1000, large_threshold: None, large_bytes_max: 100 << 20 }
    }
}

/// The requests of one connection that are not answered: the size of each, in order.
#[derive(Debug, Default)]
pub struct Account {
    sizes: VecDeque<u32>,
}

impl Account {
    /// How many.
    pub fn unanswered(&self) -> usize {
        self.sizes.len()
    }
}

/// What is in flight.
#[derive(Debug)]
pub struct Load {
    limits: LoadLimits,
    requests: usize,
    request_bytes: usize,
    large_bytes: usize,
    /// Accounts of connections that closed with requests in process, and until when they count at most.
    departed: HashMap<ConnId, (Account, i64), FxBuildHasher>,
}

impl Load {
    /// Nothing is in flight.
    pub fn new(limits: LoadLimits) -> Load {
        Load { limits, requests: 0, request_bytes: 0, large_bytes: 0, departed: HashMap::default() }
    }

    /// Requests in process.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Whether a connection with this account and so many unsent bytes may have another request read
    /// (`ZooKeeperServer.shouldThrottle`). When not, an answer to it or a write to it will come, and it is asked again.
    pub fn may_read(&self, account: &Account, unsent: usize) -> bool {
        let own = account.unanswered();
        let busy = self.requests > self.limits.outstanding || self.request_bytes > limits::IN_FLIGHT_BYTES_MAX;
        own < limits::UNANSWERED_PER_CONNECTION_MAX && unsent <= limits::UNSENT_BYTES_PAUSE && (own == 0 || !busy)
    }

    /// Whether a frame of this length may be received.
    pub fn has_room_for(&self, length: usize) -> bool {
        !self.is_large(length) || self.large_bytes + length <= self.limits.large_bytes_max
    }

    /// A request was read. False: it is one large request too many, and is not counted.
    pub fn on_request(&mut self, account: &mut Account, length: usize) -> bool {
        if !self.has_room_for(length) {
            return false;
        }
        account.sizes.push_back(u32::try_from(length).expect("frame lengths are 31 bits"));
        self.requests += 1;
        self.request_bytes += length;
        if self.is_large(length) {
            self.large_bytes += length;
        }
        true
    }

    /// The oldest requests of a connection are answered.
    pub fn on_answered(&mut self, account: &mut Account, count: u32) {
        for _ in 0..count {
            let length = account.sizes.pop_front().expect("each request is answered once") as usize;
            self.forget(length);
        }
    }

    /// A connection is gone; what it asked for is still in process.
    pub fn on_closed(&mut self, conn: ConnId, account: Account, now_ms: i64) {
        if account.unanswered() > 0 {
            self.departed.insert(conn, (account, now_ms + limits::DEPARTED_MS));
        }
    }

    /// An answer to a connection that is gone.
    pub fn on_answered_departed(&mut self, conn: ConnId, count: u32) {
        let Some((mut account, until_ms)) = self.departed.remove(&conn) else { return };
        let known = u32::try_from(account.unanswered()).unwrap_or(u32::MAX);
        self.on_answered(&mut account, count.min(known));
        if account.unanswered() > 0 {
            self.departed.insert(conn, (account, until_ms));
        }
    }

    /// Forgets requests of closed connections that nobody answered in time.
    pub fn on_tick(&mut self, now_ms: i64) {
        let late: Vec<ConnId> = self.departed.iter().filter(|(_, d)| d.1 <= now_ms).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.on_answered_departed(conn, u32::MAX);
        }
    }

    fn is_large(&self, length: usize) -> bool {
        self.limits.large_threshold.is_some_and(|threshold| length > threshold)
    }

    fn forget(&mut self, length: usize) {
        self.requests -= 1;
        self.request_bytes -= length;
        if self.is_large(length) {
            self.large_bytes -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(outstanding: usize) -> Load {
        Load::new(LoadLimits { outstanding, large_threshold: Some(1000), large_bytes_max: 3000 })
    }

    #[test]
    fn over_the_limit_only_connections_without_a_request_in_process_are_read() {
        let mut load = load(2);
        let (mut busy, idle) = (Account::default(), Account::default());
        for _ in 0..3 {
            assert!(load.may_read(&busy, 0));
            assert!(load.on_request(&mut busy, 10));
        }
        assert!(!load.may_read(&busy, 0) && load.may_read(&idle, 0));
        load.on_answered(&mut busy, 1);
        assert!(load.may_read(&busy, 0));
    }

    #[test]
    fn request_bytes_in_flight_are_limited_too() {
        let mut load = Load::new(LoadLimits::default());
        let mut account = Account::default();
        while load.may_read(&account, 0) {
            assert!(load.on_request(&mut account, 1 << 20));
        }
        assert_eq!(account.unanswered(), 65);
    }

    #[test]
    fn a_connection_has_a_bound_of_its_own() {
        let mut load = load(usize::MAX);
        let mut account = Account::default();
        while load.may_read(&account, 0) {
            assert!(load.on_request(&mut account, 1));
        }
        assert_eq!(account.unanswered(), limits::UNANSWERED_PER_CONNECTION_MAX);
        assert!(!load.may_read(&Account::default(), limits::UNSENT_BYTES_PAUSE + 1));
    }

    #[test]
    fn large_requests_have_a_sum() {
        let mut load = load(100);
        let mut account = Account::default();
        assert!(load.on_request(&mut account, 1500) && load.on_request(&mut account, 1500));
        assert!(!load.has_room_for(1001) && load.has_room_for(1000));
        assert!(!load.on_request(&mut account, 1001));
        load.on_answered(&mut account, 1);
        assert!(load.has_room_for(1500) && !load.has_room_for(1501));
    }

    #[test]
    fn requests_of_a_closed_connection_count_until_answered_or_overdue() {
        let conn = ConnId { slot: 1, generation: 1 };
        let mut load = load(2);
        let mut account = Account::default();
        (0..5).for_each(|_| assert!(load.on_request(&mut account, 10)));
        load.on_closed(conn, account, 1000);
        assert_eq!(load.requests(), 5);
        load.on_answered_departed(conn, 3);
        assert_eq!(load.requests(), 2);
        load.on_tick(1000 + limits::DEPARTED_MS - 1);
        assert_eq!(load.requests(), 2);
        load.on_tick(1000 + limits::DEPARTED_MS);
        assert_eq!((load.requests(), load.request_bytes), (0, 0));
        load.on_answered_departed(conn, 7);
    }
}
