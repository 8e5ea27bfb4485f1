//! What is on disk: Apache's transaction logs and snapshots, read, written, recovered and purged. The grammars
//! ([`txnlog`], [`snapshot`], [`stream`], [`names`]) are pure; [`logdir`], [`recover`], [`truncate`], [`wrong_join`],
//! [`foreign`], [`epochs`] and [`purge`] go to the disk through `std::fs` and `sys::files`. Called by the txnlog, snapshot and
//! quorum threads and at start; the pipeline never touches a file.

mod chunks;
pub mod compress;
pub mod config_files;
pub mod dirs;
mod durable;
pub mod epochs;
pub mod foreign;
mod items;
pub mod logdir;
pub mod names;
pub mod purge;
pub mod recover;
pub mod repeats;
pub mod replaced;
pub mod snapshot;
pub mod stream;
pub mod tail;
pub mod truncate;
pub mod txnlog;
pub mod writer;
pub mod wrong_join;

/// What helps against files of which a server cannot make a history, where it has no others that repair it, or must not
/// begin.
const ANEW: &str = "Restore both version-2 folders from one backup of this server; or, in an ensemble, while the others \
                    serve without it, empty them (after copying them away), and it fetches the data from the others";
