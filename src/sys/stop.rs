//! The signals that stop a server, and the last resort of an orderly stop: should a thread hang, the process ends all the
//! same, in time for whoever waits.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::sys::exit::{ExitCode, fatal};
use crate::sys::process;

/// How long an orderly stop may take, ms.
pub const STOP_MS_MAX: u64 = 1_800;

/// Which signals stop a server. Every thread has them blocked, so that they wait for whoever asks. SIGHUP that was ignored
/// at start, by nohup, stays so: waiting for it would take it all the same.
pub fn signals() -> SigSet {
    let hangup = (!process::is_ignored(Signal::SIGHUP)).then_some(Signal::SIGHUP);
    [Signal::SIGTERM, Signal::SIGINT].into_iter().chain(hangup).collect()
}

/// Sleeps, but not on when one of [`signals`] comes.
pub fn sleep_unless_stopped(pause: Duration) -> Option<Signal> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(pause.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(pause.subsec_nanos()),
    };
    // SAFETY: the set and the time live through the call, and nothing is asked to be written.
    let taken = unsafe { libc::sigtimedwait(signals().as_ref(), std::ptr::null_mut(), &raw const timeout) };
    Signal::try_from(taken).ok()
}

/// Ends the process after this time unless it has ended by then. What was acknowledged is on disk either way.
pub fn end_within(ms: u64) {
    std::thread::Builder::new()
        .name("stop-watch".into())
        .spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            fatal(ExitCode::Unexpected, "stopping takes too long, ending at once; nothing acknowledged is lost");
        })
        .expect("a thread can be started while others are about to end");
}
