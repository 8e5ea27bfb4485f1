//! The world outside: clocks, files, mappings, sockets, signals, the end of the process. The only modules that may hold
//! `unsafe` or read a clock. Threads and storage call them; cores never do.

pub mod clock;
pub mod exit;
pub mod host;
