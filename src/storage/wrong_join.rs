//! The file that says where a leader's history was put behind this server's though that leader told nothing of it
//! (`wrong-join`, beside the epochs): it is there from before the first transaction behind the joint is logged until a digest
//! proves that the two histories are one; if they are not, until what that leader sent is taken out of the log, and longer
//! where this server gave up an end of its own history for it. Written by `engine::quorum`, read and carried out by a start.
//!
//! | the file says | a start |
//! |---|---|
//! | `unproven` | looks, as it replays the log, what the first digest behind the joint says: the file goes, or says `joined`, or stays where nothing tells |
//! | `joined` | takes back what stands behind the joint, as [`truncate`] does; then sets currentEpoch back; then the file says what is left to say, or goes |
//! | `short`, `mixed` | leaves everything as it is: this server has no voice until a leader's history is durable here, and then the file goes |
//!
//! Each step is durable before the next. Without the file, a server that ended in the middle of it would not start, or with
//! both histories in its log.
//!
//! It holds a line for each field, and their Adler-32 in the last one; it is replaced by way of `wrong-join.tmp`.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ids::{ServerId, Zxid};
use crate::mail::Dropped;
use crate::quorum::{JoinStage, WrongJoin};
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{self, EpochError};
use crate::storage::logdir::{LogReader, Step};
use crate::storage::truncate::{TruncateError, truncate};
use crate::storage::{ANEW, names};
use crate::sys::files::{self, Dir};

/// Why what a leader with another history sent is not taken back. The server does not start.
#[derive(Debug, Error)]
pub enum WrongJoinError {
    /// The disk.
    #[error("{}: {source}; {}", path.display(), files::advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not what is written there.
    #[error("{} cannot be understood: it was damaged or edited. It says from where on the logs here may hold what a leader with another history sent. {ANEW}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The logs cannot be cut.
    #[error(transparent)]
    Truncate(#[from] TruncateError),
    /// The epoch cannot be set back.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> WrongJoinError {
    let path = path.to_owned();
    move |source| WrongJoinError::Io { path, source }
}

/// Makes this what the file says; with `None` there is none. Durable on return.
pub fn write(dir: &Dir, wrong: Option<&WrongJoin>) -> Result<(), WrongJoinError> {
    let written = match wrong {
        Some(wrong) => dir.replace_durably(names::WRONG_JOIN, names::WRONG_JOIN_TMP, text(wrong).as_bytes()),
        None => dir.remove_durably(names::WRONG_JOIN),
    };
    written.map_err(io_error(&dir.join(names::WRONG_JOIN)))
}

/// What the file says, if it is there.
pub fn read(dir: &Dir) -> Result<Option<WrongJoin>, WrongJoinError> {
    let path = dir.join(names::WRONG_JOIN);
    let bytes = match dir.read_small(names::WRONG_JOIN) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(source) => return Err(WrongJoinError::Io { path, source }),
    };
    match parse(&bytes) {
        Some(wrong) => Ok(Some(wrong)),
        None => Err(WrongJoinError::Malformed { path }),
    }
}

/// Before anything is recovered: takes back what the last process had begun to take back. Gives what the file says then.
pub fn resume(dirs: &DataDirs, record_bytes_max: usize) -> Result<Option<WrongJoin>, WrongJoinError> {
    let dir = &dirs.snapshots;
    let Some(wrong) = read(dir)? else { return Ok(None) };
    // Whoever wrote it may have ended before it was durable.
    let path = dir.join(names::WRONG_JOIN);
    dir.files.make_durable(&path).map_err(io_error(&path))?;
    if wrong.stage != JoinStage::Joined {
        return Ok(Some(wrong));
    }
    log::warn!(
        "a leader with another history was followed from {} on: what it sent is taken back before this server starts",
        wrong.joint
    );
    let left = match truncate(dirs, wrong.joint, Dropped::Foreign, record_bytes_max) {
        Ok(()) => {
            epochs::set_back(dir, wrong.epoch)?;
            wrong.taken_back()
        }
        Err(TruncateError::Impossible { .. }) if !holds_behind(dirs, wrong.joint, record_bytes_max) => {
            log::warn!("nothing of it is here: what can be read ends before {}", wrong.joint.next());
            epochs::set_back(dir, wrong.epoch)?;
            wrong.taken_back()
        }
        Err(error @ TruncateError::Impossible { .. }) => {
            log::error!(
                "{error}, so that both histories stand there; this server has no voice until a leader has sent it everything"
            );
            Some(wrong.not_taken_back())
        }
        Err(error) => return Err(error.into()),
    };
    write(dir, left.as_ref())?;
    Ok(left)
}

const STAGES: [JoinStage; 4] = [JoinStage::Unproven, JoinStage::Joined, JoinStage::Short, JoinStage::Mixed];

/// Whether anything is here that reaches behind this transaction, or may.
fn holds_behind(dirs: &DataDirs, joint: Zxid, record_bytes_max: usize) -> bool {
    let snapshots = names::list_snapshots(&dirs.snapshots);
    if snapshots.is_ok_and(|snapshots| snapshots.iter().all(|snapshot| snapshot.zxid <= joint))
        && let Ok(mut logs) = LogReader::open(&dirs.logs, joint.next(), record_bytes_max)
    {
        loop {
            match logs.step() {
                Step::Done => return false,
                Step::End => logs.leave(),
                Step::Entry(_) | Step::Broken(_) => return true,
            }
        }
    }
    true
}

fn stage_name(stage: JoinStage) -> &'static str {
    match stage {
        JoinStage::Unproven => "unproven",
        JoinStage::Joined => "joined",
        JoinStage::Short => "short",
        JoinStage::Mixed => "mixed",
    }
}

/// What the file says.
pub fn text(wrong: &WrongJoin) -> String {
    let WrongJoin { joint, epoch, last, agreed, leader, stage } = wrong;
    let (joint, last, agreed, leader, stage) = (joint.0, last.0, agreed.0, leader.0, stage_name(*stage));
    let fields =
        format!("joint {joint:x}\nepoch {epoch}\nlast {last:x}\nagreed {agreed:x}\nleader {leader}\nstage {stage}\n");
    format!("{fields}adler32 {:08x}\n", simd_adler32::adler32(&fields.as_bytes()))
}

/// `None`: it is not what [`text`] makes of anything.
pub fn parse(bytes: &[u8]) -> Option<WrongJoin> {
    let mut values = std::str::from_utf8(bytes).ok()?.lines().map(|line| line.split_once(' ').map(|(_, value)| value));
    let mut next = || values.next().flatten();
    let zxid = |hex: &str| i64::from_str_radix(hex, 16).ok().map(Zxid);
    let (joint, epoch, last, agreed) = (zxid(next()?)?, next()?.parse().ok()?, zxid(next()?)?, zxid(next()?)?);
    let (leader, stage) = (ServerId(next()?.parse().ok()?), next()?);
    let stage = STAGES.into_iter().find(|known| stage_name(*known) == stage)?;
    let wrong = WrongJoin { joint, epoch, last, agreed, leader, stage };
    (text(&wrong).as_bytes() == bytes).then_some(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const WRONG: WrongJoin = WrongJoin {
        joint: Zxid(0x1_0000_0005),
        epoch: 1,
        last: Zxid(0x1_0000_0009),
        agreed: Zxid(0x1_0000_0002),
        leader: ServerId(3),
        stage: JoinStage::Joined,
    };

    #[test]
    fn what_was_written_is_read_again_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &Dir::of_host(dir.path());
        assert_eq!(read(dir).unwrap(), None);
        write(dir, None).unwrap();
        for stage in STAGES {
            let wrong = WrongJoin { stage, ..WRONG };
            write(dir, Some(&wrong)).unwrap();
            assert_eq!(read(dir).unwrap(), Some(wrong));
        }
        write(dir, Some(&WRONG)).unwrap();
        let whole = fs::read(dir.join(names::WRONG_JOIN)).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        assert!(
            text.starts_with(
                "joint 100000005\nepoch 1\nlast 100000009\nagreed 100000002\nleader 3\nstage joined\nadler32 "
            ),
            "{text}"
        );
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&whole[..at], &flipped] {
                fs::write(dir.join(names::WRONG_JOIN), bytes).unwrap();
                let error = read(dir).unwrap_err();
                assert!(matches!(error, WrongJoinError::Malformed { .. }), "{at}: {error}");
            }
        }
        write(dir, None).unwrap();
        assert_eq!(read(dir).unwrap(), None);
    }
}
