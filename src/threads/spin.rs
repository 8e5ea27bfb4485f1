//! Looking again for a moment instead of going to sleep. Waking a thread costs tens of microseconds on a virtual machine
//! whose cores are idle, more than most requests; so a thread whose last waits were short stays awake through the next
//! one, giving its core to whoever wants it (`yield`). A thread whose waits are long sleeps at once, and so does one whose
//! core is wanted by others. Used by the shells.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::limits;
use crate::sys::clock;

/// How many short waits are remembered at most.
const CREDIT_MAX: u32 = 8;

/// What a long wait costs: spinning goes on while more than two of three waits are short.
const LONG_WAIT_COST: u32 = 2;

/// A thread that comes back this much later than it meant to gave its core to somebody outside, microseconds: our own
/// threads take less, a slice of the scheduler is longer.
const CROWDED_US: i64 = 1_000;

/// For how long it does not do so again, microseconds: the first time, and at most when it goes on meeting others there.
const REST_US_MIN: i64 = 50_000;
const REST_US_MAX: i64 = 5_000_000;

/// Decides for one thread. Where others want its core it sleeps: the scheduler wakes a thread that slept ahead of those that
/// ran, and puts one that yielded behind them.
#[derive(Debug)]
pub struct Spin {
    max_us: i64,
    credit: u32,
    rest_us: i64,
    rests_until_us: i64,
}

/// One wait: when it began, and until when to stay awake in it, monotonic microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    start_us: i64,
    until_us: i64,
}

impl Wait {
    /// Whether to look again rather than sleep.
    pub fn is_awake(self, now_us: i64) -> bool {
        now_us < self.until_us
    }
}

impl Spin {
    /// Waits of up to this many microseconds are short; 0 never spins.
    pub fn new(max_us: i64) -> Spin {
        Spin { max_us, credit: 0, rest_us: 0, rests_until_us: 0 }
    }

    /// A wait begins.
    pub fn begin(&self, now_us: i64) -> Wait {
        let budget_us = if self.credit > 0 && now_us >= self.rests_until_us { self.max_us } else { 0 };
        Wait { start_us: now_us, until_us: now_us + budget_us }
    }

    /// Nothing came while it was awake, or something did: no more yielding in this wait.
    pub fn stop_looking(&mut self, wait: Wait, now_us: i64) {
        if wait.until_us == wait.start_us || now_us - wait.until_us < CROWDED_US {
            return;
        }
        let again = now_us - self.rests_until_us < self.rest_us;
        self.rest_us = if again { (self.rest_us * 2).min(REST_US_MAX) } else { REST_US_MIN };
        self.rests_until_us = now_us + self.rest_us;
    }

    /// The wait is over, spinning and sleeping taken together.
    pub fn end(&mut self, wait: Wait, now_us: i64) {
        if now_us - wait.start_us <= self.max_us {
            self.credit = (self.credit + 1).min(CREDIT_MAX);
        } else {
            self.credit = self.credit.saturating_sub(LONG_WAIT_COST);
        }
    }
}

/// The two kinds of wait of a thread, which differ in how long is short.
#[derive(Debug)]
pub struct Spins {
    /// For whatever comes next.
    idle: Spin,
    /// For an answer that is on its way: a sync of the log takes longer than a request's hop.
    in_flight: Spin,
}

impl Default for Spins {
    fn default() -> Spins {
        Spins { idle: Spin::new(limits::SPIN_IDLE_US), in_flight: Spin::new(limits::SPIN_IN_FLIGHT_US) }
    }
}

impl Spins {
    /// The one for the wait that begins.
    pub fn when(&mut self, in_flight: bool) -> &mut Spin {
        if in_flight { &mut self.in_flight } else { &mut self.idle }
    }
}

/// Receives, staying awake for a moment when that has paid lately.
pub fn receive<T>(receiver: &Receiver<T>, spin: &mut Spin, timeout: Duration) -> Result<T, RecvTimeoutError> {
    if let Ok(mail) = receiver.try_recv() {
        return Ok(mail);
    }
    let mut now_us = clock::mono_us();
    let wait = spin.begin(now_us);
    let mut result = Err(RecvTimeoutError::Timeout);
    while result.is_err() && wait.is_awake(now_us) {
        std::thread::yield_now();
        result = receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        now_us = clock::mono_us();
    }
    spin.stop_looking(wait, now_us);
    if result.is_err() {
        result = receiver.recv_timeout(timeout);
    }
    spin.end(wait, clock::mono_us());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait that begins then and is over so much later, asleep or awake.
    fn wait(spin: &mut Spin, start_us: i64, waited_us: i64) {
        let wait = spin.begin(start_us);
        spin.end(wait, start_us + waited_us);
    }

    /// A thread whose waits were short lately.
    fn awake(max_us: i64) -> Spin {
        let mut spin = Spin::new(max_us);
        (0..20).for_each(|turn| wait(&mut spin, turn * 100, max_us));
        assert!(stays_awake(&spin, 2_000));
        spin
    }

    fn stays_awake(spin: &Spin, now_us: i64) -> bool {
        spin.begin(now_us).is_awake(now_us)
    }

    #[test]
    fn a_thread_with_short_waits_stays_awake_and_one_with_long_waits_sleeps() {
        assert!(!stays_awake(&Spin::new(50), 0));
        let mut spin = awake(50);
        (0..4).for_each(|turn| wait(&mut spin, 2_000 + turn * 100, 51));
        assert!(!stays_awake(&spin, 3_000));
    }

    #[test]
    fn zero_never_spins() {
        let mut spin = Spin::new(0);
        (0..2).for_each(|turn| wait(&mut spin, turn, 0));
        assert!(!stays_awake(&spin, 2));
    }

    /// A wait then, in which the core is given away for five milliseconds if it is given away.
    fn meet_others(spin: &mut Spin, now_us: i64) {
        let wait = spin.begin(now_us);
        spin.stop_looking(wait, if wait.is_awake(now_us) { now_us + 5_000 } else { now_us });
    }

    #[test]
    fn a_thread_whose_core_others_want_sleeps_at_once_and_tries_again_ever_more_rarely() {
        let mut spin = awake(50);
        let mut tries = Vec::new();
        for now_us in (10_000..60_000_000).step_by(10_000) {
            if stays_awake(&spin, now_us) {
                tries.push(now_us);
            }
            meet_others(&mut spin, now_us);
        }
        let pauses: Vec<i64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses[0] >= REST_US_MIN && pauses.is_sorted());
        assert!((14..25).contains(&tries.len()), "{tries:?}");
        assert!(*pauses.last().unwrap() <= REST_US_MAX + 20_000);
    }

    #[test]
    fn a_core_that_was_lost_once_costs_a_short_rest_each_time() {
        let mut spin = awake(50);
        for now_us in (10_000..10_000_000).step_by(1_000_000) {
            assert!(stays_awake(&spin, now_us));
            meet_others(&mut spin, now_us);
            assert!(!stays_awake(&spin, now_us + 5_000 + REST_US_MIN - 1));
            assert!(stays_awake(&spin, now_us + 5_000 + REST_US_MIN));
        }
    }

    #[test]
    fn mail_that_is_there_is_received_and_a_lost_channel_noticed() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut spin = Spin::new(10);
        sender.send(7).unwrap();
        assert_eq!(receive(&receiver, &mut spin, Duration::ZERO), Ok(7));
        assert_eq!(receive(&receiver, &mut spin, Duration::ZERO), Err(RecvTimeoutError::Timeout));
        drop(sender);
        let timeout = Duration::from_secs(60);
        assert_eq!(receive(&receiver, &mut spin, timeout), Err(RecvTimeoutError::Disconnected));
    }
}
