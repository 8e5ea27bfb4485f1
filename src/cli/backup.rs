//! `rookeeper backup`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::folders::DataOf;
use crate::cli::tools::EXIT_CODES;
use crate::inspect::{Outcome, backup};
use crate::sys::clock;

/// What to copy and where to.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Backup {
    #[command(flatten)]
    data: DataOf,
    /// The new folder for the copy
    #[arg(long, short, value_name = "folder")]
    to: PathBuf,
    /// Print the manifest, as one JSON object
    #[arg(long)]
    json: bool,
}

impl Backup {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        backup::backup(&self.data.folders()?, &self.to, clock::wall_ms(), self.json, out)
    }
}
