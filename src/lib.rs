//! The map of Rookeeper. Layers in order; a module imports from its own layer or from those above it in this list,
//! never from below, and no two import each other (`tests/layers.rs`). ARCHITECTURE.md draws the threads and follows one
//! write through them.
//!
//! 1. Words everybody shares: [`ids`], [`codes`], [`limits`], [`memory`], [`metrics`], [`quiet`], [`shards`],
//!    [`wrong`].
//! 2. Bytes and values: [`jute`], [`parts`], [`records`], [`txn`].
//! 3. What the data means: [`state`], [`ops`], [`config`]; and [`mail`], what threads say to each other.
//! 4. What operators are told, from what the cores and the host let see of themselves: [`admin`].
//! 5. The cores, pure and strangers to each other: [`net`], [`pipeline`], [`quorum`].
//! 6. The host: [`sys`].
//! 7. Files: [`storage`].
//! 8. What threads do in a turn: [`engine`].
//! 9. Who waits: the [`threads`].
//! 10. A client of our own: [`client`].
//! 11. What an operator does with the files and finds out about the host: [`inspect`], [`doctor`].
//! 12. What an operator asks for: [`shell`]; Apache's scripts by their names, [`scripts`].
//! 13. The command line: [`cli`], over everything.

pub mod admin;
mod arguments;
pub mod cli;
pub mod client;
pub mod codes;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod ids;
pub mod inspect;
pub mod jute;
pub mod limits;
pub mod mail;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod ops;
pub mod parts;
pub mod pipeline;
pub mod quiet;
pub mod quorum;
pub mod records;
pub mod scripts;
pub mod shards;
pub mod shell;
pub mod state;
pub mod storage;
pub mod sys;
pub mod threads;
pub mod txn;
pub mod wrong;
