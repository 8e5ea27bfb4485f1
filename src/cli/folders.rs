//! Which server's data a command is about: the same arguments for all of them. Used by `purge` and `backup`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::run::tool_config_path;
use crate::inspect::{Failure, Folders};

/// Where the data is.
#[derive(Debug, Args)]
pub struct DataOf {
    /// The server's configuration file; its dataDir and dataLogDir are taken [default: $ZOOCFGDIR/zoo.cfg, else
    /// conf/zoo.cfg, else /etc/rookeeper/zoo.cfg]
    #[arg(value_name = "zoo.cfg", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// The data directory, instead of a configuration file
    #[arg(long, value_name = "folder")]
    data_dir: Option<PathBuf>,
    /// The directory of the transaction logs, if it is another
    #[arg(long, value_name = "folder", requires = "data_dir")]
    data_log_dir: Option<PathBuf>,
}

impl DataOf {
    /// The folders.
    pub fn folders(&self) -> Result<Folders, Failure> {
        if let Some(data) = self.data_dir.clone() {
            return Ok(Folders { data, logs: self.data_log_dir.clone() });
        }
        Folders::of_config(&tool_config_path(self.config.as_deref()))
    }
}
