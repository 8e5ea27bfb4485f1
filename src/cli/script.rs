//! `rookeeper NAME.sh ...`: one of Apache's scripts, called by the script of that name. Its arguments are Apache's, not
//! clap's: they are handed on as they are.

use clap::Args;

/// The arguments of the script.
#[derive(Debug, Args)]
pub struct Script {
    /// As the script was given them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}
