//! The loops over the cores, a file per thread: drain the mail, step the core, deliver, wake each neighbour once. What a
//! thread is sent is an enum of its own (`PipelineMail`, `PollerMail`, …): mail for its core, and what it answers itself.

pub mod admin;
mod data;
pub mod ensemble;
pub mod health;
pub mod mailbox;
pub mod memory;
pub mod options;
pub mod pipeline;
pub mod poller;
pub mod queries;
pub mod quorum;
pub mod restore;
pub mod snapshot;
pub mod spin;
pub mod start;
pub mod txnlog;
