//! Log lines on standard error. Level by `RUST_LOG`, else info. Called by `main` once.
//!
//! Where standard error is the journal, a line begins with its priority (`sd-daemon(3)`) and leaves the time to the
//! journal; elsewhere it says time, level, thread, text. Lines of the audit log have the name of their logger instead of
//! the thread, as Apache suggests.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

use log::Level;

use crate::config::AUDIT_LOGGER;
use crate::sys::clock;

/// Starts logging.
pub fn init() {
    let env = env_logger::Env::default().default_filter_or("info");
    let in_journal = is_journal();
    env_logger::Builder::from_env(env)
        .format(move |out, record| {
            let thread = std::thread::current();
            let thread = format!("[{}]", thread.name().unwrap_or("?"));
            let origin = if record.target() == AUDIT_LOGGER { format!("{AUDIT_LOGGER}:") } else { thread };
            let text = record.args().to_string();
            if in_journal {
                return out.write_all(journal_entry(record.level(), &origin, &text).as_bytes());
            }
            let at = jiff::Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
            let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
            writeln!(out, "{at} {:<5} {origin} {text}", record.level())
        })
        .init();
}

/// Each line of the text is an entry of its own there, and needs the priority again.
fn journal_entry(level: Level, origin: &str, text: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    text.lines().map(|line| format!("<{priority}>{origin} {line}\n")).collect()
}

/// `$JOURNAL_STREAM` names the journal's socket by device and inode; a service may have sent its output elsewhere since.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    !std::io::stderr().is_terminal()
        && std::fs::metadata("/proc/self/fd/2").is_ok_and(|data| named == format!("{}:{}", data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_told_the_priority_of_every_line() {
        assert_eq!(journal_entry(Level::Error, "[txnlog]", "disk full"), "<3>[txnlog] disk full\n");
        assert_eq!(journal_entry(Level::Warn, "[main]", "a\nb"), "<4>[main] a\n<4>[main] b\n");
        assert_eq!(journal_entry(Level::Info, "[main]", "up"), "<6>[main] up\n");
    }
}
