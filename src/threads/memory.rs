//! Gives memory back to the kernel that was freed and stays free: after a crowd of clients has left, or a learner that
//! lagged. A thread of its own, since no other has time for it, and not behind the others in priority: they wait for the
//! allocator meanwhile. `memory::Returns` decides.

use std::io;
use std::time::Duration;

use crate::memory::{Returns, megabytes};
use crate::sys::{clock, memory};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the thread, which ends with the process.
pub fn start() -> io::Result<()> {
    let body = || {
        let mut returns = Returns::default();
        while let Some(before) = memory::in_use() {
            if returns.look(before) {
                let begun_us = clock::mono_us();
                memory::give_back();
                let took_us = clock::mono_us() - begun_us;
                let after = memory::in_use().map_or(0, |after| after.resident);
                log::info!(
                    "free memory is given back: {} were resident, {} are ({took_us} us)",
                    megabytes(before.resident),
                    megabytes(after)
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(body).map(drop)
}
