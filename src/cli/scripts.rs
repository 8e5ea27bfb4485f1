//! Apache's scripts by their names, arguments untouched: [`crate::scripts`] reads them as Apache does. Called by `main`.

use std::io::stdin;

use clap::{Args, Subcommand};

use crate::cli::run::tool_config_path;
use crate::cli::tools::ended;
use crate::scripts;
use crate::sys::clock;

/// A script of Apache's: a hidden command, which the shell script of that name calls.
#[derive(Debug, Subcommand)]
pub enum Script {
    #[command(name = "zkServer.sh", hide = true, disable_help_flag = true)]
    Server(Raw),
    #[command(name = "zkCli.sh", hide = true, disable_help_flag = true)]
    Cli(Raw),
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

/// Apache's script of this name, its arguments untouched.
#[derive(Debug, Args)]
pub struct Raw {
    /// As Apache's script takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

impl Script {
    /// Does it; gives the exit code.
    pub fn run(&self) -> i32 {
        match self {
            Script::Server(raw) => scripts::control_server(&raw.args),
            Script::Cli(raw) => scripts::run_shell(&raw.args),
            Script::Cleanup(raw) => ended(|out| scripts::clean_up(&tool_config_path(None), &raw.args, out)),
            Script::TxnLogToolkit(raw) => ended(|out| scripts::txn_log_toolkit(&raw.args, &mut stdin().lock(), out)),
            Script::SnapShotToolkit(raw) => ended(|out| scripts::format_snapshot(&raw.args, clock::wall_ms(), out)),
            Script::SnapshotComparer(raw) => {
                ended(|out| scripts::compare_snapshots(&raw.args, &mut stdin().lock(), out))
            }
            Script::SnapshotRecursiveSummaryToolkit(raw) => ended(|out| scripts::summarize_snapshot(&raw.args, out)),
            Script::ServerInitialize(raw) => {
                // The script says how it was called.
                let name = std::env::var("ZOOSCRIPT").unwrap_or_else(|_| "zkServer-initialize.sh".to_owned());
                ended(|out| scripts::initialize(&name, &tool_config_path(None), &raw.args, out))
            }
        }
    }
}
