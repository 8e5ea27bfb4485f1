//! What threads do in their turns, as values that somebody drives: [`crate::threads`] with the host's files, clocks and
//! channels, `tests/simulation` with a disk in memory, a time of its own, and deaths between any two calls. Whatever is to
//! be done in a certain order is in here, so that it is written once, and the simulation judges what a server does.
//!
//! Nothing here waits, starts a thread, looks at a clock or ends the process: mail and the time are handed in, what is to be
//! posted and what failed is given back. Whoever drives decides when.

pub mod clients;
pub mod pipeline;
pub mod quorum;
pub mod snapshots;
pub mod txnlog;
