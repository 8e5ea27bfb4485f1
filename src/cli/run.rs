//! `rookeeper run [-Dname=value]... [zoo.cfg]`: the arguments of the server. Called by `main`; decides nothing beyond them.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::property;

const DEFAULT_DIR: &str = "conf";
/// Where `make install` and the package have zoo.cfg.
const INSTALLED_DIR: &str = "/etc/rookeeper";

/// What `rookeeper run` was told.
#[derive(Debug, Args)]
pub struct Run {
    /// Set a system property, as java's -D does; zoo.cfg overrides it where it can name the same
    #[arg(short = 'D', value_name = "name=value")]
    properties: Vec<String>,

    /// The configuration file [default: $ZOOCFGDIR/zoo.cfg, else conf/zoo.cfg]
    #[arg(value_name = "zoo.cfg")]
    config: Option<PathBuf>,
}

impl Run {
    /// The `-D` properties in order.
    pub fn properties(&self) -> Vec<(String, String)> {
        self.properties.iter().map(|text| property(text)).collect()
    }

    /// The file to read.
    pub fn config_path(&self, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
        self.config.clone().unwrap_or_else(|| default_config_path(DEFAULT_DIR, variable))
    }
}

/// The file that a tool is about, if none is named: the server's own default or, where that is not there, the one of the
/// installed service. The server does not go that far: beside the service it would be a second one, on the same data.
pub fn tool_config_path(named: Option<&Path>) -> PathBuf {
    let find = || find_config(|name| std::env::var(name).ok(), Path::exists);
    named.map_or_else(find, Path::to_owned)
}

fn find_config(variable: impl Fn(&str) -> Option<String>, exists: impl Fn(&Path) -> bool) -> PathBuf {
    let default = default_config_path(DEFAULT_DIR, &variable);
    if exists(&default) {
        return default;
    }
    Some(default_config_path(INSTALLED_DIR, variable)).filter(|path| exists(path)).unwrap_or(default)
}

/// As zkEnv.sh has it: ZOOCFG (default zoo.cfg) in ZOOCFGDIR or, without that, in this folder.
fn default_config_path(dir: &str, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let given = |name| variable(name).filter(|v| !v.is_empty());
    let name = PathBuf::from(given("ZOOCFG").unwrap_or_else(|| "zoo.cfg".to_string()));
    if name.components().count() > 1 {
        return name;
    }
    PathBuf::from(given("ZOOCFGDIR").unwrap_or_else(|| dir.to_string())).join(name)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn run(args: &[&str]) -> Run {
        let all = ["rookeeper", "run"].iter().chain(args);
        let Command::Run(run) = Cli::try_parse_from(all).unwrap().command else { panic!("another command") };
        run
    }

    #[test]
    fn properties_keep_their_order_and_may_hold_equal_signs() {
        let run = run(&["-Da=1", "-Db=x=y", "-D", "c=2", "-Dd", "zoo.cfg"]);
        let expected = [("a", "1"), ("b", "x=y"), ("c", "2"), ("d", "")];
        assert_eq!(run.properties(), expected.map(|(k, v)| (k.to_string(), v.to_string())));
        assert_eq!(run.config_path(|_| None), PathBuf::from("zoo.cfg"));
    }

    #[test]
    fn without_a_file_the_environment_names_it_as_for_apache_scripts() {
        let path = |dir: &str, file: &str| {
            run(&[]).config_path(|name| match name {
                "ZOOCFGDIR" => Some(dir.to_string()),
                "ZOOCFG" => Some(file.to_string()),
                _ => None,
            })
        };
        assert_eq!(path("", ""), PathBuf::from("conf/zoo.cfg"));
        assert_eq!(path("/etc/zk", ""), PathBuf::from("/etc/zk/zoo.cfg"));
        assert_eq!(path("/etc/zk", "a.cfg"), PathBuf::from("/etc/zk/a.cfg"));
        assert_eq!(path("/etc/zk", "/x/a.cfg"), PathBuf::from("/x/a.cfg"));
    }

    #[test]
    fn a_tool_without_a_file_takes_the_installed_one_if_there_is_no_other() {
        let path = |dir: &str, there: &[&str]| {
            let variable = |name: &str| (name == "ZOOCFGDIR").then(|| dir.to_string());
            let exists = |path: &Path| there.iter().any(|there| path == Path::new(there));
            find_config(variable, exists).display().to_string()
        };
        let (here, installed) = ("conf/zoo.cfg", "/etc/rookeeper/zoo.cfg");
        assert_eq!(path("", &[here, installed]), here);
        assert_eq!(path("", &[installed]), installed);
        assert_eq!(path("", &[]), here);
        assert_eq!(path("/etc/zk", &[here, installed]), "/etc/zk/zoo.cfg");
    }

    #[test]
    fn a_second_file_or_an_unknown_flag_is_refused() {
        for args in [&["a", "b"][..], &["--what"], &["-X"]] {
            let all = ["rookeeper", "run"].iter().chain(args);
            assert!(Cli::try_parse_from(all).is_err(), "{args:?}");
        }
    }
}
