//! The loops over the cores, a file per thread: drain the mail, step the core, deliver, wake each neighbour once.

pub mod admin;
mod data;
pub mod ensemble;
pub mod health;
pub mod mailbox;
pub mod memory;
pub mod options;
pub mod pipeline;
pub mod poller;
pub mod quorum;
pub mod restore;
pub mod snapshot;
pub mod spin;
pub mod start;
pub mod txnlog;
