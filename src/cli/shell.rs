//! `rookeeper cli [options] [command...]`. Called by `main`; what it does is in [`crate::shell`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::shell::{self, Start};

/// Apache's option words, and what clap knows them as.
const APACHE_OPTIONS: [(&str, &str); 5] = [
    ("-server", "--server"),
    ("-timeout", "--timeout"),
    ("-r", "--read-only"),
    ("-client-configuration", "--client-configuration"),
    ("-waitforconnection", "--wait-for-connection"),
];

/// What `rookeeper cli` was told.
#[derive(Debug, Args)]
#[command(after_help = "The options of zkCli.sh are understood too: -server, -timeout, -r, -waitforconnection, \
                        -client-configuration.\nWithout a command, lines are read: at a terminal with editing, history \
                        and completion.\n`rookeeper cli help` lists the commands. Exit code: 0, 1 for an error, 127 for \
                        an unknown command.")]
pub struct Shell {
    /// The servers of the ensemble, and the node to take for the root
    #[arg(short, long, value_name = "HOST:PORT,...[/CHROOT]", default_value_t = Start::default().servers)]
    server: String,

    /// The session timeout to ask for, in milliseconds
    #[arg(short, long, value_name = "MS", default_value_t = Start::default().timeout_ms, value_parser = clap::value_parser!(i32).range(1..))]
    timeout: i32,

    /// Also connect to a server that has lost its quorum and only answers reads
    #[arg(short, long)]
    read_only: bool,

    /// Wait for a server before the first command, for the session timeout at most
    #[arg(short, long)]
    wait_for_connection: bool,

    /// A properties file for Apache's client; read only to refuse what this shell does not have
    #[arg(long, value_name = "FILE")]
    client_configuration: Option<PathBuf>,

    /// Print results as JSON, a line each, and errors likewise on standard error
    #[arg(long)]
    json: bool,

    /// A command and its words, as in `ls -s /app`
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Shell {
    /// Runs the shell; the exit code.
    pub fn run(&self) -> i32 {
        let start = Start {
            servers: self.server.clone(),
            timeout_ms: self.timeout,
            read_only: self.read_only,
            wait_for_connection: self.wait_for_connection,
            client_configuration: self.client_configuration.clone(),
            json: self.json,
        };
        i32::from(shell::run(start, &self.words))
    }
}

/// The arguments of the process with Apache's option words of `cli` as clap knows them.
pub(super) fn translated(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_none_or(|command| command != "cli") {
        return arguments;
    }
    let mut rest = arguments[2..].iter_mut();
    while let Some(argument) = rest.next() {
        let known = APACHE_OPTIONS.iter().find(|(apache, ours)| argument == apache || argument == ours);
        let takes_value = known.is_some_and(|(_, ours)| !matches!(*ours, "--read-only" | "--wait-for-connection"));
        if let Some((_, ours)) = known {
            *argument = ours.into();
        } else if !argument.to_string_lossy().starts_with('-') {
            break;
        }
        if takes_value {
            rest.next();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn shell(line: &str) -> Shell {
        let arguments = ["rookeeper", "cli"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        match Cli::read(arguments).unwrap().command {
            Command::Shell(shell) => shell,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn apaches_options_and_ours_mean_the_same() {
        for line in ["-server h:1/x -timeout 5 -r -waitforconnection ls -R /", "-s h:1/x -t 5 -r -w ls -R /"] {
            let shell = shell(line);
            assert_eq!((shell.server.as_str(), shell.timeout, shell.read_only), ("h:1/x", 5, true), "{line}");
            assert!(shell.wait_for_connection);
            assert_eq!(shell.words, ["ls", "-R", "/"]);
        }
    }

    #[test]
    fn what_stands_behind_the_command_is_the_commands() {
        let shell = shell("--json set -s /a -server --json");
        assert_eq!((shell.server.as_str(), shell.json), ("localhost:2181", true));
        assert_eq!(shell.words, ["set", "-s", "/a", "-server", "--json"]);
    }
}
