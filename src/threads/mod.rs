//! The shells: one file a thread. Each drains its channel, steps its core, delivers, and wakes each neighbour once.

pub mod snapshot;
pub mod txnlog;
