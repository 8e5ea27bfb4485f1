//! The map of Rookeeper. Layers in order; a module imports from its own layer or from those above it in this list,
//! never from below. ARCHITECTURE.md draws the threads and follows one write through them.
//!
//! 1. Words everybody shares: [`ids`], [`codes`], [`limits`], [`metrics`], [`quiet`].
//! 2. Bytes and values: [`jute`], [`records`], [`txn`].
//! 3. What the data means: [`state`], [`ops`], [`config`]; and [`mail`], what threads say to each other.
//! 4. The cores, pure and strangers to each other: [`net`], [`pipeline`], [`quorum`], [`admin`].
//! 5. The world: [`sys`], [`storage`] over it; and the loops over the cores: [`threads`].
//! 6. What an operator asks for: [`cli`]; Apache's scripts by their names: [`compat`].

pub mod admin;
pub mod cli;
pub mod codes;
pub mod compat;
pub mod config;
pub mod ids;
pub mod jute;
pub mod limits;
pub mod mail;
pub mod metrics;
pub mod net;
pub mod ops;
pub mod pipeline;
pub mod quiet;
pub mod quorum;
pub mod records;
pub mod state;
pub mod storage;
pub mod sys;
pub mod threads;
pub mod txn;
