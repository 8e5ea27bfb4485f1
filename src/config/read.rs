//! The thin shell round `Config::load`: reads the files, the environment and the resolver. Called by `main` only.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use super::error::{ConfigError, Warning};
use super::load::World;
use super::settings::Config;
use super::syntax::properties_from_flags;

/// Reads a configuration file and what belongs to it: myid, dynamic files, the JVM flags of the environment.
/// The warnings come with an error too: a misspelt key is often the reason of it.
pub fn read(path: &Path, command_line: &[(String, String)]) -> (Result<Config, ConfigError>, Vec<Warning>) {
    let text = match OperatingSystem.read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return (Err(ConfigError::unreadable(path, "file is missing")), Vec::new()),
        Err(error) => return (Err(ConfigError::unreadable(path, error)), Vec::new()),
    };
    let environment = environment_properties(|name| std::env::var(name).ok());
    Config::load(path, &text, command_line, &environment, &OperatingSystem)
}

/// The properties that Apache's scripts would put on java's command line, in the order in which they would stand there.
pub fn environment_properties(variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut properties = Vec::new();
    let no_autocreate = variable("ZOO_DATADIR_AUTOCREATE_DISABLE").filter(|v| !v.is_empty());
    if no_autocreate.is_some() {
        properties.push(("zookeeper.datadir.autocreate".to_string(), "false".to_string()));
    }
    for name in ["JAVA_OPTS", "SERVER_JVMFLAGS", "JVMFLAGS"] {
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
