//! `rookeeper log dump|check|cut`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::tools::EXIT_CODES;
use crate::ids::Zxid;
use crate::inspect::Outcome;
use crate::inspect::log::{self, CutTo};

/// What cutting does to others.
const CUT_HELP: &str = "\
What is cut away may have been acknowledged to clients. A server that runs alone loses it for good. A member of an
ensemble has then promised what it no longer has: with it, a majority may be made of servers without those writes, and
they are lost for all. Rather than cut a member's log, move its version-2 folders away once the others have elected a
leader without it, and let it fetch everything from there.

With --in-place, a later log or a snapshot behind the cut in the same folder is refused (exit code 2).";

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Print the transactions
    Dump(Dump),
    /// Check every checksum, and that no transaction is missing
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Keep the beginning of a log and leave out the rest
    #[command(after_help = CUT_HELP)]
    Cut(Cut),
}

/// `log dump`
#[derive(Debug, Args)]
pub struct Dump {
    /// A log, or a data directory for all of its logs
    #[arg(value_name = "log or folder")]
    path: PathBuf,
    /// One JSON object a line; data in base64, zxids and digests in hex
    #[arg(long)]
    json: bool,
    /// Show the data of znodes, not only its size
    #[arg(long, short)]
    data: bool,
    /// Begin with this transaction (0x1f or 31)
    #[arg(long, value_name = "zxid", value_parser = zxid)]
    from: Option<Zxid>,
    /// End with this transaction
    #[arg(long, value_name = "zxid", value_parser = zxid)]
    to: Option<Zxid>,
    /// Only transactions on this znode or below it
    #[arg(long, value_name = "znode")]
    path_below: Option<String>,
}

/// `log check`
#[derive(Debug, Args)]
pub struct Check {
    /// A log, or a data directory for all of its logs, one after the other
    #[arg(value_name = "log or folder")]
    path: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `log cut`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["output", "in_place"])))]
pub struct Cut {
    /// The log
    #[arg(value_name = "log")]
    path: PathBuf,
    /// The last transaction to keep [default: the last that is readable]
    #[arg(long, value_name = "zxid", value_parser = zxid)]
    to: Option<Zxid>,
    /// Write the beginning to this new file; give it a name that does not begin with "log." if it stays in the data
    /// directory, since servers read all that do
    #[arg(long, short, value_name = "file")]
    output: Option<PathBuf>,
    /// Cut the log itself; the server must be stopped. A copy stays beside it as uncut-log.<zxid>
    #[arg(long)]
    in_place: bool,
}

impl Log {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        match self {
            Log::Dump(dump) => {
                let how = log::Dump {
                    json: dump.json,
                    data: dump.data,
                    from: dump.from,
                    to: dump.to,
                    path: dump.path_below.clone(),
                };
                log::dump(&dump.path, &how, out)
            }
            Log::Check(check) => log::check(&check.path, check.json, out),
            Log::Cut(cut) => {
                let target = cut.output.clone().map_or(CutTo::InPlace, CutTo::File);
                log::cut(&cut.path, cut.to, &target, out)
            }
        }
    }
}

/// A zxid as people write it: hex behind 0x, else decimal.
fn zxid(text: &str) -> Result<Zxid, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Zxid).map_err(|_| "expected a zxid, as 0x100000003 or 4294967299".to_owned())
}
