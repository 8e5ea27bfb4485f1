//! `zkCli.sh` (`ZooKeeperMain`): the shell with its options as Apache reads them.

use std::path::PathBuf;

use crate::shell::{self, Start};
use crate::sys::exit::ExitCode;

/// The script: runs the shell; the exit code.
pub fn run_shell(args: &[String]) -> i32 {
    match understand(args) {
        Ok((start, words)) => i32::from(shell::run(start, words)),
        Err(why) => {
            eprintln!("Error: {why}");
            ExitCode::Unexpected as i32
        }
    }
}

/// Options up to the first word without a dash, which begins the command. Unknown ones are passed over in silence; one
/// without its value is said and ends the options (`ZooKeeperMain.MyCommandOptions.parseOptions`).
fn understand(args: &[String]) -> Result<(Start, &[String]), String> {
    let mut start = Start::default();
    let mut args = args.iter();
    loop {
        let rest = args.as_slice();
        let Some(word) = args.next() else { return Ok((start, rest)) };
        let mut value = || {
            let value = args.next();
            if value.is_none() {
                eprintln!("Error: no argument found for option {word}");
            }
            value
        };
        match word.as_str() {
            "-server" => start.servers = value().unwrap_or(&start.servers).clone(),
            "-timeout" => {
                let Some(text) = value() else { continue };
                start.timeout_ms =
                    text.parse().map_err(|_| format!("-timeout {text}: not a number of milliseconds"))?;
            }
            "-client-configuration" => start.client_configuration = value().map(PathBuf::from),
            "-r" => start.read_only = true,
            "-waitforconnection" => start.wait_for_connection = true,
            option if option.starts_with('-') => {}
            _ => return Ok((start, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_known_are_passed_over() {
        let understood = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            understand(&args).map(|(start, words)| (start, words.to_vec())).unwrap()
        };
        let (start, words) = understood("-foo -server h:1 -r --help get -s /a");
        assert_eq!((start.servers.as_str(), start.read_only), ("h:1", true));
        assert_eq!(words, ["get", "-s", "/a"]);
        assert_eq!(understood("-r -server").0.servers, Start::default().servers);
    }
}
