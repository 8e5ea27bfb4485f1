//! Log lines on standard error: time, level, thread, text. Level by `RUST_LOG`, else info. Lines of the audit log have
//! the name of their logger instead of the thread, as Apache suggests. Called by `main` once.

use std::io::Write;

use crate::pipeline::audit;
use crate::sys::clock;

/// Starts logging.
pub fn init() {
    let env = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(env)
        .format(|out, record| {
            let at = jiff::Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
            let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
            if record.target() == audit::TARGET {
                return writeln!(out, "{at} {:<5} {}: {}", record.level(), record.target(), record.args());
            }
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?");
            writeln!(out, "{at} {:<5} [{name}] {}", record.level(), record.args())
        })
        .init();
}
