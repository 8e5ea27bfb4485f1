//! `rookeeper purge`: the arguments. Called by `cli::tools`.

use std::io::Write;

use clap::Args;

use crate::cli::folders::DataOf;
use crate::inspect::{Outcome, purge};

/// What to keep and where.
#[derive(Debug, Args)]
pub struct Purge {
    #[command(flatten)]
    data: DataOf,
    /// How many of the newest snapshots are kept, with the logs that they need
    #[arg(short = 'n', long = "keep", value_name = "count", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..))]
    keep: u32,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Purge {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        purge::purge(&self.data.folders()?, self.keep as usize, self.dry_run, self.json, out)
    }
}
