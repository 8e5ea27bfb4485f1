//! The command line: what the binary can be asked to do. Called by `main`.
//!
//! A command has a file here with its arguments; what it does lives in a module of its own. A command is added by a variant
//! of [`Command`] and its arm in `main` (the compiler asks for it): help, man pages and completions come from the variant.

use clap::{Parser, Subcommand};

mod generate;
mod run;
mod script;

pub use generate::Generate;
pub use run::Run;
pub use script::Script;

/// A ZooKeeper ensemble server: the same clients, files and protocol, without a JVM.
#[derive(Debug, Parser)]
#[command(name = "rookeeper", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground
    Run(Run),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate(Generate),
    /// What zkServer.sh runs
    #[command(name = "zkServer.sh", hide = true, disable_help_flag = true)]
    ZkServer(Script),
}
