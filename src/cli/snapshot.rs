//! `rookeeper snapshot dump|check|diff|summary`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::tools::EXIT_CODES;
use crate::inspect::Outcome;
use crate::inspect::snapshot;

/// What to do with snapshots: plain, .gz or .snappy, ours or Apache's.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Print the znodes, sorted by path, and the sessions
    Dump(Dump),
    /// Read it as a server does: seals, structure, digest
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Print what is different between two snapshots
    #[command(after_help = EXIT_CODES)]
    Diff(Diff),
    /// Print counts and sizes, by subtree, and which znodes stand out
    Summary(Summary),
}

/// `snapshot dump`
#[derive(Debug, Args)]
pub struct Dump {
    /// The snapshot
    #[arg(value_name = "snapshot")]
    path: PathBuf,
    /// Only this znode and those below it
    #[arg(long, value_name = "znode", default_value = "/")]
    below: String,
    /// Show the data of znodes, not only its size
    #[arg(long, short)]
    data: bool,
    /// One JSON object a line; data in base64, zxids in hex
    #[arg(long)]
    json: bool,
}

/// `snapshot check`
#[derive(Debug, Args)]
pub struct Check {
    /// The snapshot
    #[arg(value_name = "snapshot")]
    path: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `snapshot diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The older snapshot
    #[arg(value_name = "left")]
    left: PathBuf,
    /// The newer snapshot
    #[arg(value_name = "right")]
    right: PathBuf,
    /// Only this znode and those below it
    #[arg(long, value_name = "znode", default_value = "/")]
    below: String,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// `snapshot summary`
#[derive(Debug, Args)]
pub struct Summary {
    /// The snapshot
    #[arg(value_name = "snapshot")]
    path: PathBuf,
    /// Only this znode and those below it
    #[arg(long, value_name = "znode", default_value = "/")]
    below: String,
    /// How many levels of subtrees are listed
    #[arg(long, value_name = "levels", default_value_t = 1)]
    depth: usize,
    /// How many of the largest znodes, and of those with the most children, are named
    #[arg(long, value_name = "count", default_value_t = 10)]
    largest: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Snapshot {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        match self {
            Snapshot::Dump(dump) => snapshot::dump(&dump.path, &dump.below, dump.json, dump.data, out),
            Snapshot::Check(check) => snapshot::check(&check.path, check.json, out),
            Snapshot::Diff(diff) => snapshot::diff(&diff.left, &diff.right, &diff.below, diff.json, out),
            Snapshot::Summary(summary) => {
                let (top, depth, largest, json) = (summary.below.clone(), summary.depth, summary.largest, summary.json);
                snapshot::summary(&summary.path, &snapshot::Summary { top, depth, largest, json }, out)
            }
        }
    }
}
