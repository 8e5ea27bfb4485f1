//! The thin shell round `Config::load`: reads the files, the environment and the resolver. Called by `main` only.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use super::error::{ConfigError, Origin, Warning};
use super::load::World;
use super::settings::Config;
use super::syntax::{properties_from_flags, words};

/// Reads a configuration file and what belongs to it: myid, dynamic files, the JVM flags of the environment.
/// The warnings come with an error too: a misspelt key is often the reason of it.
pub fn read(path: &Path, command_line: &[(String, String)]) -> (Result<Config, ConfigError>, Vec<Warning>) {
    let text = match OperatingSystem.read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return (Err(ConfigError::unreadable(path, "file is missing")), Vec::new()),
        Err(error) => return (Err(ConfigError::unreadable(path, error)), Vec::new()),
    };
    let variable = |name: &str| std::env::var(name).ok();
    let environment = environment_properties(variable);
    let (config, mut warnings) = Config::load(path, &text, command_line, &environment, &OperatingSystem);
    warnings.extend(agents(variable));
    (config, warnings)
}

/// Flags that are to load something into a Java machine.
fn agents(variable: impl Fn(&str) -> Option<String>) -> Vec<Warning> {
    let flags = FLAGS.into_iter().filter_map(variable).flat_map(|flags| words(&flags));
    let is_agent =
        |flag: &String| ["-javaagent:", "-agentlib:", "-agentpath:"].iter().any(|name| flag.starts_with(name));
    let what = |flag: String| {
        let what = format!(
            "{flag}: no effect, this server is no Java program; \
             metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider has its metrics"
        );
        Warning::new(&Origin::Environment, what)
    };
    flags.filter(is_agent).map(what).collect()
}

/// Where Apache's scripts take java's flags from, in the order in which they would stand there.
const FLAGS: [&str; 3] = ["JAVA_OPTS", "SERVER_JVMFLAGS", "JVMFLAGS"];

/// The properties that Apache's scripts would put on java's command line, in the order in which they would stand there.
pub fn environment_properties(variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut properties = Vec::new();
    let no_autocreate = variable("ZOO_DATADIR_AUTOCREATE_DISABLE").filter(|v| !v.is_empty());
    if no_autocreate.is_some() {
        properties.push(("zookeeper.datadir.autocreate".to_string(), "false".to_string()));
    }
    for name in FLAGS {
        properties.extend(properties_from_flags(&variable(name).unwrap_or_default()));
    }
    properties
}

struct OperatingSystem;

impl World for OperatingSystem {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            // A path through a file is missing too: what is wrong with the directory is told when it is prepared.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// IPv4 first, as Java prefers it for names with both.
    fn resolve(&self, host: &str) -> Option<IpAddr> {
        let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|a| a.ip()).collect();
        found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_a_java_machine_are_told_to_have_no_effect() {
        let flags = "-Xmx1g -javaagent:/opt/jmx.jar=7070:/etc/jmx.yml -Da=-javaagent:x";
        let told = agents(|name| (name == "SERVER_JVMFLAGS").then(|| flags.to_owned()));
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("environment: -javaagent:/opt/jmx.jar=7070:/etc/jmx.yml: no effect"), "{told:?}");
    }
}
