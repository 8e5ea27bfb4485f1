//! The command line: what the binary can be asked to do. Called by `main`.
//!
//! A command has a file here with its arguments; what it does lives in a module of its own. A command is added by a variant
//! of [`Command`] and its arm in `main` (the compiler asks for it): help, man pages and completions come from the variant.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

mod backup;
mod doctor;
#[cfg(test)]
mod documented;
mod folders;
mod generate;
mod log;
mod purge;
mod restore;
mod run;
mod scripts;
mod shell;
mod snapshot;
mod tools;

pub use generate::Generate;
pub use run::Run;
pub use scripts::Script;
pub use shell::Shell;
pub use tools::Tool;

/// A ZooKeeper ensemble server: the same clients, files and protocol, without a JVM.
#[derive(Debug, Parser)]
#[command(name = "rookeeper", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the arguments of the process, its name first.
    pub fn read(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(shell::translated(arguments))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground
    Run(Run),
    #[command(flatten)]
    Tool(Tool),
    /// Talk to a running ensemble: an interactive shell, or one command
    #[command(name = "cli")]
    Shell(Shell),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate(Generate),
    #[command(flatten)]
    Script(Script),
}

impl Command {
    /// Whether it makes files and folders with data of a server.
    pub fn writes_data(&self) -> bool {
        matches!(self, Command::Run(_) | Command::Tool(_) | Command::Script(Script::TxnLogToolkit(_)))
    }
}
