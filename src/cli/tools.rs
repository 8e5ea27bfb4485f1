//! The commands that look at files and hosts and then end: one file each beside this one. Called by `main`.

use std::io::{self, BufWriter, Write};

use clap::Subcommand;

use crate::cli::backup::Backup;
use crate::cli::doctor::Doctor;
use crate::cli::log::Log;
use crate::cli::purge::Purge;
use crate::cli::restore::Restore;
use crate::cli::scripts::Script;
use crate::cli::snapshot::Snapshot;
use crate::inspect::Failure;

/// What they end in, for their help.
pub const EXIT_CODES: &str = "Exit code: 0 good, 1 damage or a difference was found, 2 it could not be done.";

/// A command that ends by itself.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Look at transaction logs, check them, cut them
    #[command(subcommand)]
    Log(Log),
    /// Look at snapshots, check them, compare them
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Remove the snapshots and logs that a server does not need any more
    Purge(Purge),
    /// Copy a server's data, running or not, and verify the copy
    Backup(Backup),
    /// Make a new data directory from a backup
    Restore(Restore),
    /// Check this host and a zoo.cfg before they hurt
    Doctor(Doctor),
    #[command(flatten)]
    Script(Script),
}

impl Tool {
    /// Does it; gives the exit code. What went wrong is on standard error.
    pub fn run(&self) -> i32 {
        // Warnings only: what a server tells of its start is no news here.
        log::set_max_level(log::LevelFilter::Warn);
        let mut out = BufWriter::new(io::stdout().lock());
        let outcome = match self {
            Tool::Log(log) => log.run(&mut out),
            Tool::Snapshot(snapshot) => snapshot.run(&mut out),
            Tool::Purge(purge) => purge.run(&mut out),
            Tool::Backup(backup) => backup.run(&mut out),
            Tool::Restore(restore) => restore.run(&mut out),
            Tool::Doctor(doctor) => doctor.run(&mut out),
            Tool::Script(script) => script.run(&mut out),
        };
        let flushed = out.flush().map_err(Failure::from);
        match flushed.and(outcome) {
            Ok(code) => code,
            Err(Failure { code, message }) => {
                if !message.is_empty() {
                    eprintln!("{message}");
                }
                code
            }
        }
    }
}
