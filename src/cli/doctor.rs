//! `rookeeper doctor`: the arguments. Called by `cli::tools`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::run::tool_config_path;
use crate::doctor;
use crate::inspect::Outcome;

/// Which server's host, and how it is told.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 nothing but notes, 1 warnings, 2 errors (or wrong arguments).")]
pub struct Doctor {
    /// The server's configuration file [default: $ZOOCFGDIR/zoo.cfg, else conf/zoo.cfg, else
    /// /etc/rookeeper/zoo.cfg]
    #[arg(value_name = "zoo.cfg")]
    config: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> Outcome {
        let facts = doctor::probe(&tool_config_path(self.config.as_deref()));
        let findings = doctor::examine(&facts);
        if self.json {
            doctor::print_json(&findings, out)?;
        } else {
            doctor::print_text(&findings, out)?;
        }
        Ok(doctor::exit_code(&findings))
    }
}
