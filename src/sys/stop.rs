//! The last resort of an orderly stop: should a thread hang, the process ends all the same, in time for whoever waits.

use std::time::Duration;

use crate::sys::exit::{ExitCode, fatal};

/// How long an orderly stop may take, ms.
pub const STOP_MS_MAX: u64 = 1_800;

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
