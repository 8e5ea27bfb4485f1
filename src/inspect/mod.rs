//! What an operator looks at and does with the files of a server, ours or Apache's: dump, check, cut, compare, purge,
//! back up, restore. Every file is read by `storage`'s readers; here is only what is said about them. Called by `cli`
//! and `scripts`.
//!
//! Every command ends in an [`Outcome`]: [`GOOD`], [`FOUND`] or a [`Failure`].

pub mod backup;
mod checksum;
pub mod log;
mod log_text;
mod progress;
pub mod purge;
pub mod restore;
pub mod snapshot;
pub mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Exit code: nothing is wrong.
pub const GOOD: i32 = 0;
/// Exit code: it was done, and what it looked for is there: damage, a difference.
pub const FOUND: i32 = 1;
/// Exit code: it could not be done.
pub const UNABLE: i32 = 2;

/// Longest record that a log may claim beyond its own end: twice the default of `jute.maxbuffer`. Longer ones are read
/// where they are really there.
pub const RECORD_BYTES_MAX: usize = 2 * 0xf_ffff;

/// Why a command ended early.
#[derive(Debug)]
pub struct Failure {
    /// For the process.
    pub code: i32,
    /// One line for standard error; empty if nothing is to be said.
    pub message: String,
}

/// An exit code, or why there is none.
pub type Outcome = Result<i32, Failure>;

impl Failure {
    /// It could not be done, and why.
    pub fn unable(message: impl fmt::Display) -> Failure {
        Failure { code: UNABLE, message: message.to_string() }
    }

    /// A file or folder did not do what it should.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure::unable(format!("{}: {error}", path.display()))
    }
}

/// From writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read it has seen enough.
            return Failure { code: GOOD, message: String::new() };
        }
        Failure::unable(format!("standard output: {error}"))
    }
}

/// The two folders of a server, as named by somebody: `dataDir` and `dataLogDir`, without `version-2`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folders {
    /// Snapshots and epochs.
    pub data: PathBuf,
    /// Logs, if they are elsewhere.
    pub logs: Option<PathBuf>,
}

impl Folders {
    /// What a zoo.cfg says about them, whatever else is wrong with it.
    pub fn of_config(path: &Path) -> Result<Folders, Failure> {
        let text = std::fs::read(path).map_err(Failure::at(path))?;
        let (data, logs) = crate::config::data_dirs(&text);
        let data = data.ok_or_else(|| Failure::unable(format!("{}: no dataDir is set", path.display())))?;
        Ok(Folders { data, logs })
    }

    /// Where the files are.
    pub fn dirs(&self) -> crate::storage::dirs::DataDirs {
        crate::storage::dirs::DataDirs::new(&self.data, self.logs.as_deref())
    }
}
