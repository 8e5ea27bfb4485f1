//! The two epochs of a member of an ensemble, each in a file beside the snapshots: which epoch it promised to join, and
//! whose history it holds (`QuorumPeer.loadDataBase`, `AtomicFileOutputStream`). Read at start, written by
//! `engine::quorum`; everything is durable when a call returns.
//!
//! A file holds one decimal number, and is replaced by way of `unfinished-epoch`: `currentEpoch.tmp`, by way of which Apache
//! replaces the one, says that this server may have transactions of a later epoch than currentEpoch (see
//! [`EpochFiles::announce`]), and must be whole wherever a server ends.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::ids::Zxid;
use crate::quorum::Epochs;
use crate::storage::{ANEW, names};
use crate::sys::files::{self, Dir};

const ACCEPTED: &str = "acceptedEpoch";
const CURRENT: &str = "currentEpoch";
/// The epoch that `currentEpoch` is about to be.
const CURRENT_TMP: &str = "currentEpoch.tmp";

/// Why the epochs are not to be had. The server cannot take part.
#[derive(Debug, Error)]
pub enum EpochError {
    /// The disk.
    #[error("{}: {source}; {}", path.display(), files::advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a number.
    #[error("{} holds {found:?} where an epoch belongs, a decimal number: it was damaged or edited. {ANEW}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its first line, the beginning of it.
        found: String,
    },
    /// The data is of an epoch that this server has not joined.
    #[error("{} says {current}, but the last transaction here, {last}, is of epoch {}: files of different times or servers are mixed. {ANEW}", path.display(), last.epoch())]
    Behind {
        /// The file.
        path: PathBuf,
        /// What it says.
        current: u32,
        /// The last transaction on disk.
        last: Zxid,
    },
    /// The epoch promised is before the epoch joined.
    #[error("acceptedEpoch is {accepted}, less than currentEpoch, {current}, in {}: files of different times or servers are mixed. {ANEW}", dir.display())]
    Backwards {
        /// The folder.
        dir: PathBuf,
        /// What one file says.
        accepted: u32,
        /// What the other says.
        current: u32,
    },
}

/// Both files.
#[derive(Debug)]
pub struct EpochFiles {
    dir: Dir,
    epochs: Epochs,
    /// What `currentEpoch.tmp` is known to say.
    announced: Option<u32>,
}

impl EpochFiles {
    /// Reads both in the snapshot folder. A file that is missing is written, with the epoch of the last transaction on disk.
    ///
    /// That transaction may be of a later epoch than currentEpoch if the server ended between making the one durable and
    /// the other: `currentEpoch.tmp` then proves it. The transaction's epoch is taken and not what the file says, since
    /// only that much of the history is surely here.
    ///
    /// What they say is made durable first: whoever wrote it may have ended before it was.
    pub fn open(dir: &Dir, last: Zxid) -> Result<EpochFiles, EpochError> {
        for path in [ACCEPTED, CURRENT, CURRENT_TMP].map(|name| dir.join(name)) {
            dir.files.make_durable(&path).map_err(|source| EpochError::Io { path, source })?;
        }
        let found = (read(dir, ACCEPTED)?, read(dir, CURRENT)?);
        let epochs = Epochs { accepted: found.0.unwrap_or(last.epoch()), current: found.1.unwrap_or(last.epoch()) };
        let mut files = EpochFiles { dir: dir.clone(), epochs, announced: None };
        let behind = last.epoch() > epochs.current;
        if behind && !is_announced(dir, last)? {
            return Err(EpochError::Behind { path: dir.join(CURRENT), current: epochs.current, last });
        }
        let current = epochs.current.max(last.epoch());
        if epochs.accepted < current {
            return Err(EpochError::Backwards { dir: dir.to_path_buf(), accepted: epochs.accepted, current });
        }
        if behind || found.1.is_none() {
            files.set_current(current)?;
        }
        if found.0.is_none() {
            files.set_accepted(epochs.accepted)?;
        }
        Ok(files)
    }

    /// What the files say.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Replaces acceptedEpoch.
    pub fn set_accepted(&mut self, epoch: u32) -> Result<(), EpochError> {
        self.replace(ACCEPTED, epoch)?;
        self.epochs.accepted = epoch;
        Ok(())
    }

    /// Replaces currentEpoch.
    pub fn set_current(&mut self, epoch: u32) -> Result<(), EpochError> {
        if self.announced == Some(epoch) {
            let path = self.dir.join(CURRENT);
            let renamed = self.dir.files.rename_durably(&self.dir.join(CURRENT_TMP), &path);
            renamed.map_err(|source| EpochError::Io { path, source })?;
        } else {
            self.replace(CURRENT, epoch)?;
            let path = self.dir.join(CURRENT_TMP);
            self.dir.remove_durably(CURRENT_TMP).map_err(|source| EpochError::Io { path, source })?;
        }
        self.epochs.current = epoch;
        self.announced = None;
        Ok(())
    }

    /// To be said before a transaction, or a snapshot of this zxid, is made durable: a learner has those of its leader's
    /// epoch before it may set currentEpoch, and must be able to start again if it ends in between. Does something only at
    /// the first of an epoch.
    pub fn announce(&mut self, zxid: Zxid) -> Result<(), EpochError> {
        let epoch = zxid.epoch();
        if epoch <= self.epochs.current.max(self.announced.unwrap_or(0)) {
            return Ok(());
        }
        self.replace(CURRENT_TMP, epoch)?;
        self.announced = Some(epoch);
        Ok(())
    }

    fn replace(&self, name: &str, epoch: u32) -> Result<(), EpochError> {
        let written = self.dir.replace_durably(name, names::UNFINISHED_EPOCH, epoch.to_string().as_bytes());
        written.map_err(|source| EpochError::Io { path: self.dir.join(name), source })
    }
}

/// What the files of a server say that may be running, as far as they are there. currentEpoch is read first: so accepted
/// is not less. Changes nothing.
pub fn peek(dir: &Dir) -> Result<Option<Epochs>, EpochError> {
    let Some(current) = read(dir, CURRENT)? else { return Ok(None) };
    Ok(read(dir, ACCEPTED)?.map(|accepted| Epochs { accepted, current }))
}

/// Sets currentEpoch back, before anything is recovered: what this server had of a later epoch is taken back.
pub fn set_back(dir: &Dir, current: u32) -> Result<(), EpochError> {
    let mut files = EpochFiles { dir: dir.clone(), epochs: Epochs::default(), announced: None };
    files.set_current(current)
}

/// Writes both files of a server that is not there yet.
pub fn write_new(dir: &Dir, epochs: Epochs) -> Result<(), EpochError> {
    let mut files = EpochFiles { dir: dir.clone(), epochs, announced: None };
    files.set_accepted(epochs.accepted)?;
    files.set_current(epochs.current)
}

/// Whether this server was about to set currentEpoch to the epoch of this transaction, or a later one. Apache's server may
/// end before the file that it begins for that holds anything.
fn is_announced(dir: &Dir, last: Zxid) -> Result<bool, EpochError> {
    match bytes_of(dir, CURRENT_TMP)? {
        None => Ok(false),
        Some(bytes) if bytes.iter().all(|b| *b == 0) => Ok(true),
        Some(bytes) => Ok(number_in(&bytes, dir, CURRENT_TMP)? >= last.epoch()),
    }
}

/// The number in the first line; `None` if there is no such file.
fn read(dir: &Dir, name: &str) -> Result<Option<u32>, EpochError> {
    bytes_of(dir, name)?.map(|bytes| number_in(&bytes, dir, name)).transpose()
}

fn bytes_of(dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, EpochError> {
    dir.read_small(name).map_err(|source| EpochError::Io { path: dir.join(name), source })
}

fn number_in(bytes: &[u8], dir: &Dir, name: &str) -> Result<u32, EpochError> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.parse().map_err(|_| EpochError::Malformed { path: dir.join(name), found: line.chars().take(40).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LAST: Zxid = Zxid(0x3_0000_0009);

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn opened(files: &[(&str, &str)]) -> Result<Epochs, String> {
        let dir = dir(files);
        EpochFiles::open(&Dir::of_host(dir.path()), LAST).map(|files| files.epochs()).map_err(|error| error.to_string())
    }

    fn text(dir: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn missing_files_get_the_epoch_of_the_last_transaction() {
        let dir = dir(&[]);
        let files = EpochFiles::open(&Dir::of_host(dir.path()), LAST).unwrap();
        assert_eq!(files.epochs(), Epochs { accepted: 3, current: 3 });
        assert_eq!((text(&dir, ACCEPTED), text(&dir, CURRENT)), ("3".into(), "3".into()));
    }

    #[test]
    fn what_was_set_is_read_again() {
        let dir = dir(&[(ACCEPTED, "5\nmore"), (CURRENT, "4\r\n")]);
        let mut files = EpochFiles::open(&Dir::of_host(dir.path()), LAST).unwrap();
        assert_eq!(files.epochs(), Epochs { accepted: 5, current: 4 });
        files.set_accepted(12).unwrap();
        files.set_current(11).unwrap();
        assert_eq!((text(&dir, ACCEPTED), text(&dir, CURRENT)), ("12".into(), "11".into()));
        let epochs = Epochs { accepted: 12, current: 11 };
        assert_eq!(
            (files.epochs(), EpochFiles::open(&Dir::of_host(dir.path()), LAST).unwrap().epochs()),
            (epochs, epochs)
        );
    }

    #[test]
    fn a_learner_that_ended_before_it_set_its_epoch_starts_again() {
        let dir = dir(&[(ACCEPTED, "8"), (CURRENT, "3")]);
        let mut files = EpochFiles::open(&Dir::of_host(dir.path()), LAST).unwrap();
        files.announce(Zxid(0x3_0000_000a)).unwrap();
        assert!(!dir.path().join(CURRENT_TMP).exists());
        files.announce(Zxid(0x8_0000_0001)).unwrap();
        // It ended with nothing new, with a part, with all of it.
        for (last, current) in [(LAST, 3), (Zxid(0x5_0000_0001), 5)] {
            assert_eq!(
                EpochFiles::open(&Dir::of_host(dir.path()), last).unwrap().epochs(),
                Epochs { accepted: 8, current }
            );
            files.announced = None;
            files.announce(Zxid(0x8_0000_0001)).unwrap();
        }
        let files = EpochFiles::open(&Dir::of_host(dir.path()), Zxid(0x8_0000_0001)).unwrap();
        assert_eq!(files.epochs(), Epochs { accepted: 8, current: 8 });
    }

    #[test]
    fn an_epoch_that_finds_no_room_changes_nothing_and_says_where() {
        let dir = dir(&[(ACCEPTED, "3"), (CURRENT, "3")]);
        let mut files = EpochFiles::open(&Dir::of_host(dir.path()), LAST).unwrap();
        let tmp = dir.path().join(names::UNFINISHED_EPOCH);
        std::os::unix::fs::symlink("/dev/full", &tmp).unwrap();
        let error = files.set_accepted(4).unwrap_err();
        assert!(matches!(&error, EpochError::Io { source, .. } if crate::sys::files::is_full(source)), "{error}");
        assert!(error.to_string().contains("acceptedEpoch"), "{error}");
        assert_eq!((files.epochs().accepted, text(&dir, ACCEPTED)), (3, "3".into()));
        fs::remove_file(tmp).unwrap();
        files.set_accepted(4).unwrap();
    }

    #[test]
    fn files_that_contradict_each_other_or_the_data_are_refused() {
        let refused = |files: &[(&str, &str)], what: &str| {
            let error = opened(files).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        refused(
            &[(ACCEPTED, "3"), (CURRENT, "2")],
            "currentEpoch says 2, but the last transaction here, 0x300000009, is of epoch 3",
        );
        refused(&[(ACCEPTED, "3"), (CURRENT, "2"), (CURRENT_TMP, "2")], "currentEpoch says 2");
        refused(&[(ACCEPTED, "3"), (CURRENT, "4")], "acceptedEpoch is 3, less than currentEpoch, 4");
        assert!(
            opened(&[(ACCEPTED, "3"), (CURRENT, "2"), (CURRENT_TMP, "")]).is_ok(),
            "a server of Apache ended there"
        );
        refused(&[(CURRENT, "4")], "acceptedEpoch is 3");
        for bad in ["", "x", "-1", " 4", "4294967296"] {
            refused(&[(ACCEPTED, "4"), (CURRENT, bad)], "where an epoch belongs");
        }
    }
}
