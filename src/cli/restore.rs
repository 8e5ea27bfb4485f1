//! `rookeeper restore`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::tools::EXIT_CODES;
use crate::inspect::{Folders, Outcome, restore};

/// What to restore and where to.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Restore {
    /// The folder that `rookeeper backup` made
    #[arg(value_name = "backup")]
    backup: PathBuf,
    /// The new data directory; it must be empty, but may hold myid
    #[arg(long, value_name = "folder")]
    data_dir: PathBuf,
    /// The new directory of the transaction logs, if it is another
    #[arg(long, value_name = "folder")]
    data_log_dir: Option<PathBuf>,
    /// Restore for a member of an ensemble: writes myid and both epoch files
    #[arg(long, value_name = "id")]
    myid: Option<i64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Restore {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        let folders = Folders { data: self.data_dir.clone(), logs: self.data_log_dir.clone() };
        restore::restore(&self.backup, &folders, self.myid, self.json, out)
    }
}
