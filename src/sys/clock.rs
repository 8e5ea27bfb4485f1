//! The only place that reads a clock. Shells read it once a step and hand the value to their core.
#![expect(clippy::disallowed_methods, reason = "this is the place the rule sends everybody to")]

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Now;

/// Monotonic time counts from an arbitrary point well above zero, so that differences to "never" stay positive.
const MONO_ORIGIN_US: i64 = 1_000_000_000;

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Monotonic microseconds: for stage latencies.
pub fn mono_us() -> i64 {
    MONO_ORIGIN_US + i64::try_from(origin().elapsed().as_micros()).expect("a process does not run for 292,000 years")
}

/// Milliseconds since 1970; 0 should the clock be set before that.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Both clocks, for one step of a core.
pub fn now() -> Now {
    Now { mono_ms: mono_us() / 1000, wall_ms: wall_ms() }
}

/// What the kernel says about the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Discipline {
    /// Something keeps it on time: chrony, ntpd, systemd-timesyncd.
    pub synchronised: bool,
    /// How far it may be off, as far as that is known.
    pub error_max_us: i64,
}

/// Asks the kernel; `None` where it may not be asked.
pub fn discipline() -> Option<Discipline> {
    // SAFETY: every field is an integer, for which zero is a value; with `modes` 0 the call only reads.
    let (state, clock) = unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut clock), clock)
    };
    let synchronised = state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0;
    (state >= 0).then_some(Discipline { synchronised, error_max_us: clock.maxerror })
}
