//! How much work is in flight, over all connections and for each: the door at which load waits, so that the queues behind
//! it need no bound of their own. Pure. Called by `net::ingress`, `net::conn` and `threads::poller`.
//!
//! A frame takes room from its first byte until its request is answered. Without room, its connection stands in line and
//! is not read. Whoever has room has all it needs to finish, so nobody waits for somebody who waits. A frame that is
//! larger than all the room there is comes in alone. Small frames take none: pings and reads pass by those in line, and
//! are bounded by their number.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::ids::ConnId;
use crate::limits;
use crate::memory::{Account as MemoryAccount, Bounds};

/// What may be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadLimits {
    /// `globalOutstandingLimit`: requests in process above which a connection that has one of them is not read.
    pub outstanding: usize,
    /// `largeRequestThreshold`: frames longer than this are large, bytes; `None` is off.
    pub large_threshold: Option<usize>,
    /// `largeRequestMaxBytes`: sum of large frames in flight.
    pub large_bytes_max: usize,
    /// The room there is: the account of requests.
    pub bytes_max: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        LoadLimits {
            outstanding: 1000,
            large_threshold: None,
            large_bytes_max: 100 << 20,
            bytes_max: Bounds::default().get(MemoryAccount::Requests),
        }
    }
}

/// The requests of one connection that are not answered: the size of each, in order.
#[derive(Debug, Default)]
pub struct Account {
    sizes: VecDeque<u32>,
    /// Length of the frame that is being received, if it takes room.
    receiving: usize,
    /// The connection stands in line.
    waits: bool,
}

impl Account {
    /// How many.
    pub fn unanswered(&self) -> usize {
        self.sizes.len()
    }

    /// Whether a frame with room is being received.
    pub fn is_receiving(&self) -> bool {
        self.receiving > 0
    }

    /// Whether the connection stands in line for room.
    pub fn waits(&self) -> bool {
        self.waits
    }
}

/// Whether a frame of this length takes room.
pub fn takes_room(length: usize) -> bool {
    length > limits::SMALL_FRAME_BYTES
}

/// Bytes that a frame with room must have brought since the last look, while others wait for that room. `came`: what each
/// such frame brought. Together they are to bring [`limits::FRAME_BYTES_PER_LOOK`], for they may share one slow link; who
/// brings less than a quarter of what the others do shares no link with them, and is asked for more, up to all of it.
pub fn enough_per_look(came: impl Iterator<Item = u64>) -> u64 {
    let (frames, sum) = came.fold((0, 0), |(frames, sum), came| (frames + 1, sum + came));
    let frames = u64::max(frames, 1);
    (sum / frames / 4).clamp(limits::FRAME_BYTES_PER_LOOK / frames, limits::FRAME_BYTES_PER_LOOK)
}

/// What is in flight.
#[derive(Debug)]
pub struct Load {
    limits: LoadLimits,
    requests: usize,
    /// Lengths of the frames that have room, received or not.
    bytes: usize,
    large_bytes: usize,
    /// Replies have no room left: who does not take its own is not read.
    replies_are_tight: bool,
    /// Who waits for room, and for how much, in the order they came.
    line: VecDeque<(ConnId, usize)>,
    /// Accounts of connections that closed with requests in process.
    departed: HashMap<ConnId, Account, FxBuildHasher>,
}

impl Load {
    /// Nothing is in flight.
    pub fn new(limits: LoadLimits) -> Load {
        Load {
            limits,
            requests: 0,
            bytes: 0,
            large_bytes: 0,
            replies_are_tight: false,
            line: VecDeque::new(),
            departed: HashMap::default(),
        }
    }

    /// Bytes of the frames that have room, received or not.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests in process.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Whether a connection with this account and so many unsent bytes may have another request read
    /// (`ZooKeeperServer.shouldThrottle`). When not, an answer to it, a write to it or room for it will come, and it is
    /// asked again.
    pub fn may_read(&self, account: &Account, unsent: usize) -> bool {
        let own = account.unanswered();
        let busy = self.requests > self.limits.outstanding;
        !account.waits
            && own < limits::UNANSWERED_PER_CONNECTION_MAX
            && unsent <= self.unsent_bytes_pause()
            && (own == 0 || !busy)
    }

    /// Whether replies have no room left.
    pub fn set_replies_tight(&mut self, are_tight: bool) {
        self.replies_are_tight = are_tight;
    }

    /// Unsent bytes above which a connection is not read.
    pub fn unsent_bytes_pause(&self) -> usize {
        if self.replies_are_tight { limits::UNSENT_BYTES_PAUSE_TIGHT } else { limits::UNSENT_BYTES_PAUSE }
    }

    /// A frame of this length is to be received. False: there is no room, the connection stands in line.
    pub fn admit(&mut self, conn: ConnId, account: &mut Account, length: usize) -> bool {
        if account.is_receiving() {
            return true;
        }
        if account.waits {
            return false;
        }
        if self.line.is_empty() && self.has_room(length) {
            self.take_room(account, length);
            return true;
        }
        account.waits = true;
        self.line.push_back((conn, length));
        false
    }

    /// Whether somebody waits for room.
    pub fn is_tight(&self) -> bool {
        !self.line.is_empty()
    }

    /// Who is first in line, if there is room for its frame now: it is to be let in.
    pub fn first_with_room(&self) -> Option<ConnId> {
        self.line.front().filter(|(_, length)| self.has_room(*length)).map(|(conn, _)| *conn)
    }

    /// The first in line, whose account this is, gets the room it waits for.
    pub fn let_first_in(&mut self, account: &mut Account) {
        let (_, length) = self.line.pop_front().expect("somebody is first");
        account.waits = false;
        self.take_room(account, length);
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes == 0 || self.bytes + length <= self.limits.bytes_max
    }

    fn take_room(&mut self, account: &mut Account, length: usize) {
        account.receiving = length;
        self.bytes += length;
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
        debug_assert!(account.receiving == length || !takes_room(length), "a frame is received once it has room");
        account.receiving = 0;
        account.sizes.push_back(u32::try_from(length).expect("frame lengths are 31 bits"));
        self.requests += 1;
        if self.is_large(length) {
            self.large_bytes += length;
        }
        true
    }

    /// The frame that was being received, or for which the connection stands in line, is no request, or never will be.
    pub fn on_frame_dropped(&mut self, conn: ConnId, account: &mut Account) {
        self.bytes -= std::mem::take(&mut account.receiving);
        if std::mem::take(&mut account.waits) {
            self.line.retain(|(waiting, _)| *waiting != conn);
        }
    }

    /// The oldest requests of a connection are answered.
    pub fn on_answered(&mut self, account: &mut Account, count: u32) {
        for _ in 0..count {
            let length = account.sizes.pop_front().expect("each request is answered once") as usize;
            self.forget(length);
        }
        assert!(self.requests > 0 || self.large_bytes == 0, "{} bytes of no request in process", self.large_bytes);
    }

    /// A connection is gone; what it asked for is still in process.
    pub fn on_closed(&mut self, conn: ConnId, mut account: Account) {
        self.on_frame_dropped(conn, &mut account);
        if account.unanswered() > 0 {
            self.departed.insert(conn, account);
        }
    }

    /// An answer to a connection that is gone.
    pub fn on_answered_departed(&mut self, conn: ConnId, count: u32) {
        let Some(mut account) = self.departed.remove(&conn) else { return };
        let known = u32::try_from(account.unanswered()).unwrap_or(u32::MAX);
        self.on_answered(&mut account, count.min(known));
        if account.unanswered() > 0 {
            self.departed.insert(conn, account);
        }
    }

    fn is_large(&self, length: usize) -> bool {
        self.limits.large_threshold.is_some_and(|threshold| length > threshold)
    }

    fn forget(&mut self, length: usize) {
        self.requests -= 1;
        if takes_room(length) {
            self.bytes -= length;
        }
        if self.is_large(length) {
            self.large_bytes -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 1 }
    }

    fn load(outstanding: usize) -> Load {
        let large = LoadLimits { large_threshold: Some(1000), large_bytes_max: 3000, ..LoadLimits::default() };
        Load::new(LoadLimits { outstanding, ..large })
    }

    /// With room for this many bytes.
    fn room(bytes_max: usize) -> Load {
        Load::new(LoadLimits { bytes_max, ..LoadLimits::default() })
    }

    /// A frame of this length comes and is complete at once, if it has room.
    fn ask(load: &mut Load, id: ConnId, account: &mut Account, length: usize) -> bool {
        (!takes_room(length) || load.admit(id, account, length)) && load.on_request(account, length)
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
    fn bytes_have_a_sum_that_no_crowd_passes_and_the_first_request_of_a_connection_counts() {
        let mut load = Load::new(LoadLimits::default());
        let mut crowd: Vec<Account> = (0..700).map(|_| Account::default()).collect();
        let mut admitted = 0;
        for (slot, account) in crowd.iter_mut().enumerate() {
            assert!(load.may_read(account, 0));
            admitted += usize::from(ask(&mut load, conn(slot as u32), account, 1 << 20));
        }
        assert_eq!((admitted, load.bytes()), (64, LoadLimits::default().bytes_max));
        assert!(!load.may_read(&crowd[64], 0), "who stands in line is not read");
    }

    #[test]
    fn a_frame_takes_room_before_it_is_complete_and_those_in_line_get_in_as_they_came() {
        let mut load = room(10_000);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| Account::default());
        assert!(load.admit(conn(1), &mut a, 6_000) && !load.admit(conn(2), &mut b, 6_000));
        assert!(!load.admit(conn(3), &mut c, 2_000), "nobody overtakes, or a large request would wait for ever");
        assert!(load.on_request(&mut a, 6_000));
        assert_eq!(load.first_with_room(), None);
        load.on_answered(&mut a, 1);
        assert_eq!(load.first_with_room(), Some(conn(2)));
        load.let_first_in(&mut b);
        assert_eq!(load.first_with_room(), Some(conn(3)));
        load.let_first_in(&mut c);
        assert!(b.is_receiving() && c.is_receiving() && !load.is_tight());
        assert!(!load.admit(conn(4), &mut d, 2_001));
        load.on_closed(conn(4), d);
        assert!(!load.is_tight(), "who leaves stands in nobody's way");
        load.on_closed(conn(2), b);
        load.on_closed(conn(3), c);
        assert_eq!(load.bytes, 0);
    }

    #[test]
    fn what_is_larger_than_all_the_room_comes_in_alone() {
        let mut load = room(10_000);
        let [mut a, mut b, mut c] = [(); 3].map(|()| Account::default());
        assert!(ask(&mut load, conn(1), &mut a, 2_000) && !load.admit(conn(2), &mut b, 50_000));
        assert!(ask(&mut load, conn(3), &mut c, limits::SMALL_FRAME_BYTES), "a small frame passes by");
        assert_eq!(load.first_with_room(), None);
        load.on_answered(&mut a, 1);
        assert_eq!(load.first_with_room(), Some(conn(2)));
        load.let_first_in(&mut b);
        assert!(!load.admit(conn(1), &mut a, 2_000));
        assert!(load.on_request(&mut b, 50_000));
        load.on_answered(&mut b, 1);
        load.let_first_in(&mut a);
        assert_eq!(load.bytes, 2_000);
    }

    #[test]
    fn clients_that_share_a_slow_link_are_not_slow_but_those_who_hold_up_others_are() {
        let one = limits::FRAME_BYTES_PER_LOOK;
        assert_eq!(enough_per_look([].into_iter()), one);
        assert_eq!(enough_per_look([one / 2].into_iter()), one, "alone, it is to bring all of it");
        // Ten megabits a second for sixty-four clients.
        let share = 1_250_000 / 64;
        assert!(share < one && enough_per_look([share; 64].into_iter()) <= share);
        // Sixty-three that bring next to nothing, and one that does not come to its turn for them.
        let crowd = std::iter::repeat_n(one / 64, 63).chain([10 << 20]);
        assert!(enough_per_look(crowd) > one / 64);
        assert_eq!(
            enough_per_look([0, 1 << 30].into_iter()),
            one,
            "a slow link of one's own is not held against anybody"
        );
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
        load.set_replies_tight(true);
        assert!(!load.may_read(&Account::default(), limits::UNSENT_BYTES_PAUSE_TIGHT + 1));
    }

    #[test]
    fn large_requests_have_a_sum() {
        let mut load = load(100);
        let mut account = Account::default();
        assert!(ask(&mut load, conn(1), &mut account, 1500) && ask(&mut load, conn(1), &mut account, 1500));
        assert!(!load.has_room_for(1001) && load.has_room_for(1000));
        assert!(!load.on_request(&mut account, 1001));
        load.on_answered(&mut account, 1);
        assert!(load.has_room_for(1500) && !load.has_room_for(1501));
    }

    #[test]
    fn requests_of_a_closed_connection_count_until_they_are_answered() {
        let mut load = load(2);
        let mut account = Account::default();
        (0..5).for_each(|_| assert!(load.on_request(&mut account, 10)));
        load.on_closed(conn(1), account);
        assert_eq!(load.requests(), 5);
        load.on_answered_departed(conn(1), 3);
        assert_eq!(load.requests(), 2);
        load.on_answered_departed(conn(1), 2);
        assert_eq!((load.requests(), load.bytes), (0, 0));
        load.on_answered_departed(conn(1), 7);
    }
}
