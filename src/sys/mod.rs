//! The world outside: clocks, files, mappings, sockets, signals, the end of the process. The only modules that may hold
//! `unsafe` or read a clock. Threads and storage call them; cores never do.

pub mod clock;
pub mod exit;
pub mod file_system;
pub mod files;
pub mod host;
pub mod http;
pub mod log_ahead;
pub mod logging;
pub mod mapped_log;
pub mod memory;
pub mod net;
pub mod notify;
pub mod paced_file;
pub mod priority;
pub mod process;
pub mod rlimit;
pub mod stop;
pub mod systemd;
pub mod tasks;
