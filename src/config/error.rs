//! How a configuration is refused or grumbled at: one line each, with the place. Made by `config`, printed by `main`.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `-D` in JVM flags of the environment.
    Environment,
    /// `-D` of our own arguments.
    CommandLine,
    /// A line of zoo.cfg or of a dynamic file.
    Line(PathBuf, usize),
    /// The file as a whole.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Environment => f.write_str("environment"),
            Origin::CommandLine => f.write_str("command line"),
            Origin::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a server cannot start with this configuration; the process ends with code 2 (`ExitCode.INVALID_INVOCATION`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read: {why}")]
    Unreadable { path: String, why: String },
    /// Not properties syntax.
    #[error("{at}: {what}")]
    Syntax { at: Origin, what: String },
    #[error("{at}: {key}={value}: expected {expected}")]
    Value { at: Origin, key: String, value: String, expected: String },
    /// A good value that would be unsafe to ignore.
    #[error("{at}: {key}={value}: refused: {why}")]
    Refused { at: Origin, key: String, value: String, why: String },
    /// A rule between keys, or a missing one.
    #[error("{at}: {what}")]
    Rule { at: Origin, what: String },
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, why: impl fmt::Display) -> ConfigError {
        let path = path.display().to_string();
        let why = why.to_string();
        ConfigError::Unreadable { path, why }
    }

    pub(super) fn rule(at: Origin, what: impl Into<String>) -> ConfigError {
        let what = what.into();
        ConfigError::Rule { at, what }
    }
}

/// One line for the operator; the server starts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    pub(super) fn new(at: &Origin, what: impl fmt::Display) -> Warning {
        Warning(format!("{at}: {what}"))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
