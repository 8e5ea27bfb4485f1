//! Apache's offline tools by the names of their scripts, arguments untouched: `inspect::apache` reads them as Apache
//! does. Called by `cli::tools`.

use std::io::{Write, stdin};

use clap::{Args, Subcommand};

use crate::cli::run::default_config_path;
use crate::inspect::{Outcome, apache};
use crate::sys::clock;

/// A script of Apache's.
#[derive(Debug, Subcommand)]
pub enum Script {
    #[command(name = "zkCleanup.sh", hide = true, disable_help_flag = true)]
    Cleanup(Raw),
    #[command(name = "zkTxnLogToolkit.sh", hide = true, disable_help_flag = true)]
    TxnLogToolkit(Raw),
    #[command(name = "zkSnapShotToolkit.sh", hide = true, disable_help_flag = true)]
    SnapShotToolkit(Raw),
    #[command(name = "zkSnapshotComparer.sh", hide = true, disable_help_flag = true)]
    SnapshotComparer(Raw),
    #[command(name = "zkSnapshotRecursiveSummaryToolkit.sh", hide = true, disable_help_flag = true)]
    SnapshotRecursiveSummaryToolkit(Raw),
    #[command(name = "zkServer-initialize.sh", hide = true, disable_help_flag = true)]
    ServerInitialize(Raw),
}

/// Whatever follows the name.
#[derive(Debug, Args)]
pub struct Raw {
    /// As Apache's script takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

impl Script {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        let config = || default_config_path(|name| std::env::var(name).ok());
        match self {
            Script::Cleanup(raw) => apache::clean_up(&config(), &raw.args, out),
            Script::TxnLogToolkit(raw) => apache::txn_log_toolkit(&raw.args, &mut stdin().lock(), out),
            Script::SnapShotToolkit(raw) => apache::format_snapshot(&raw.args, clock::wall_ms(), out),
            Script::SnapshotComparer(raw) => apache::compare_snapshots(&raw.args, &mut stdin().lock(), out),
            Script::SnapshotRecursiveSummaryToolkit(raw) => apache::summarize_snapshot(&raw.args, out),
            Script::ServerInitialize(raw) => {
                // The script says how it was called.
                let name = std::env::var("ZOOSCRIPT").unwrap_or_else(|_| "zkServer-initialize.sh".to_owned());
                apache::initialize(&name, &config(), &raw.args, out)
            }
        }
    }
}
