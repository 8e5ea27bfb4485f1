//! The commands that look at files and hosts and then end: one file each beside this one. Called by `main`.

use std::io::{self, BufWriter, Write};

use clap::Subcommand;

use crate::cli::backup::Backup;
use crate::cli::doctor::Doctor;
use crate::cli::log::Log;
use crate::cli::purge::Purge;
use crate::cli::restore::Restore;
use crate::cli::snapshot::Snapshot;
use crate::inspect::{Failure, Outcome};

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
    ///
    /// The server may be running.
    Purge(Purge),
    /// Copy a server's data, running or not, and verify the copy
    ///
    /// Copies the newest snapshot and the logs behind it. The server may be running, and serves on. The copy is recovered
    /// as a server would; what it holds is printed and written to its manifest.json, with the checksum of every file.
    Backup(Backup),
    /// Make a new data directory from a backup
    ///
    /// Checks a backup against its manifest, copies it into new folders, and recovers it there as a server would. Sessions
    /// come back too, with their ephemeral znodes, and expire unless their clients return.
    ///
    /// Restore every member of an ensemble from the same backup, with its own --myid, while none of them runs. A single
    /// member of an ensemble that works needs no backup: give it an empty data directory, and it fetches the data.
    Restore(Restore),
    /// Check this host and a zoo.cfg before they hurt
    ///
    /// Looks at this host with the eyes of the server that this zoo.cfg is for: disk, clocks, memory, limits, names and
    /// ports of the other servers, timeouts, what lies about in the data. Each finding comes with its consequence and its
    /// remedy.
    ///
    /// It changes nothing. For two seconds it syncs small files in the log directory, which are removed again; a server
    /// that runs there feels that. Run it as the user that the server runs as.
    Doctor(Doctor),
}

impl Tool {
    /// Does it; gives the exit code. What went wrong is on standard error.
    pub fn run(&self) -> i32 {
        ended(|out| match self {
            Tool::Log(log) => log.run(out),
            Tool::Snapshot(snapshot) => snapshot.run(out),
            Tool::Purge(purge) => purge.run(out),
            Tool::Backup(backup) => backup.run(out),
            Tool::Restore(restore) => restore.run(out),
            Tool::Doctor(doctor) => doctor.run(out),
        })
    }
}

/// Runs what writes to standard output and ends; the exit code.
pub(super) fn ended(run: impl FnOnce(&mut dyn Write) -> Outcome) -> i32 {
    // Warnings only: what a server tells of its start is no news here.
    log::set_max_level(log::LevelFilter::Warn);
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = run(&mut out);
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
