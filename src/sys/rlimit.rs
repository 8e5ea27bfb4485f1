//! Limits of the process. Called at the start, by `threads::poller` and `threads::quorum`.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the number of file descriptors to the hard limit and returns what is in force. A refusal is only logged: the
/// server works with what it has.
pub fn raise_open_files() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            log::warn!("cannot read the limit of open files: {error}");
            return 0;
        }
    };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            log::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
            soft
        }
    }
}

/// How many file descriptors the process may have now.
pub fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
