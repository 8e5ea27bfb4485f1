//! `rookeeper generate DIR`: man pages and shell completions from the definitions of the commands. `make install` calls it.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use thiserror::Error;

use super::Cli;

/// Where to.
#[derive(Debug, Args)]
pub struct Generate {
    /// Receives man1/*.1 and the folders bash, zsh and fish
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// A file could not be written.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct GenerateError {
    path: PathBuf,
    source: io::Error,
}

impl Generate {
    /// Writes everything; what is there is replaced.
    pub fn write(&self) -> Result<(), GenerateError> {
        let at = |folder: &str| {
            let path = self.dir.join(folder);
            fs::create_dir_all(&path).map(|()| path.clone()).map_err(|source| GenerateError { path, source })
        };
        let man = at("man1")?;
        let command = Cli::command();
        clap_mangen::generate_to(command, &man).map_err(|source| GenerateError { path: man, source })?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let folder = at(&shell.to_string())?;
            clap_complete::generate_to(shell, &mut Cli::command(), "rookeeper", &folder)
                .map_err(|source| GenerateError { path: folder, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_page_and_a_completion_and_no_hidden_one_has() {
        let dir = tempfile::tempdir().unwrap();
        Generate { dir: dir.path().to_owned() }.write().unwrap();
        let bash = fs::read_to_string(dir.path().join("bash/rookeeper.bash")).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let page = dir.path().join(format!("man1/rookeeper-{name}.1"));
            assert_eq!(page.exists(), !command.is_hide_set(), "{name}");
            assert!(command.is_hide_set() || bash.contains(name), "{name}");
        }
    }
}
