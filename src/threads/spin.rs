//! Looking again for a moment instead of going to sleep. Waking a thread costs tens of microseconds on a virtual machine
//! whose cores are idle, more than most requests; so a thread whose last waits were short stays awake through the next
//! one, giving its core to whoever wants it (`yield`). A thread whose waits are long sleeps at once. Used by the shells.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::limits;
use crate::sys::clock;

/// How many short waits are remembered at most.
const CREDIT_MAX: u32 = 8;

/// What a long wait costs: spinning goes on while more than two of three waits are short.
const LONG_WAIT_COST: u32 = 2;

/// Decides for one thread.
#[derive(Debug)]
pub struct Spin {
    max_us: i64,
    credit: u32,
}

impl Spin {
    /// Waits of up to this many microseconds are short; 0 never spins.
    pub fn new(max_us: i64) -> Spin {
        Spin { max_us, credit: 0 }
    }

    /// How long to stay awake in the wait that begins, microseconds; 0 is not at all.
    pub fn budget_us(&self) -> i64 {
        if self.credit > 0 { self.max_us } else { 0 }
    }

    /// A wait is over, spinning and sleeping taken together.
    pub fn on_wait(&mut self, waited_us: i64) {
        if waited_us <= self.max_us {
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
    let start_us = clock::mono_us();
    let until_us = start_us + spin.budget_us();
    let mut result = Err(RecvTimeoutError::Timeout);
    while result.is_err() && clock::mono_us() < until_us {
        std::thread::yield_now();
        result = receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout);
    }
    if result.is_err() {
        result = receiver.recv_timeout(timeout);
    }
    spin.on_wait(clock::mono_us() - start_us);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_short_waits_stays_awake_and_one_with_long_waits_sleeps() {
        let mut spin = Spin::new(50);
        assert_eq!(spin.budget_us(), 0);
        (0..20).for_each(|_| spin.on_wait(30));
        assert_eq!(spin.budget_us(), 50);
        (0..4).for_each(|_| spin.on_wait(51));
        assert_eq!(spin.budget_us(), 0);
    }

    #[test]
    fn zero_never_spins() {
        let mut spin = Spin::new(0);
        spin.on_wait(0);
        spin.on_wait(0);
        assert_eq!(spin.budget_us(), 0);
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
