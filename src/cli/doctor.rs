//! `rookeeper doctor`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::run::default_config_path;
use crate::doctor;
use crate::inspect::Outcome;

/// Looks at this host with the eyes of the server that this zoo.cfg is for: disk, clocks, memory, limits, names and ports
/// of the other servers, timeouts, what lies about in the data. Each finding comes with its consequence and its remedy.
///
/// It changes nothing. For two seconds it syncs small files in the log directory, which are removed again; a server that
/// runs there feels that. Run it as the user that the server runs as.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 nothing but notes, 1 warnings, 2 errors (or wrong arguments).")]
pub struct Doctor {
    /// The server's configuration file [default: $ZOOCFGDIR/zoo.cfg, else conf/zoo.cfg]
    #[arg(value_name = "zoo.cfg")]
    config: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        let default = || default_config_path(|name| std::env::var(name).ok());
        let facts = doctor::probe(&self.config.clone().unwrap_or_else(default));
        let findings = doctor::examine(&facts);
        if self.json {
            doctor::print_json(&findings, out)?;
        } else {
            doctor::print_text(&findings, out)?;
        }
        Ok(doctor::exit_code(&findings))
    }
}
