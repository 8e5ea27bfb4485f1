//! How the process ends when it must: exit codes (Apache's `ExitCode`, so that scripts and units written for it go on
//! working, plus two of our own) and the one way to end on what the environment did.

/// Exit codes of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum ExitCode {
    /// An orderly end.
    Finished = 0,
    /// Port in use, data that cannot be recovered, a panic.
    Unexpected = 1,
    /// Wrong arguments or configuration.
    InvalidInvocation = 2,
    /// The data or log directory cannot be used, or is not what it was: another start would do no better, or harm. The unit
    /// makes none.
    DataDir = 3,
    /// The port of the admin server is in use, and the server stands alone.
    AdminServer = 4,
    /// A snapshot without which the server cannot go on could not be written.
    Snapshot = 10,
    /// The transaction log, or an epoch, could not be written or synced. Never retried: what the kernel did with the pages is unknown.
    TxnLog = 11,
}

/// Says what happened and ends the process at once, without unwinding: whatever was acknowledged is on disk already.
/// Call it where most is known: the message names what, where and what to do.
pub fn fatal(code: ExitCode, message: &str) -> ! {
    log::error!("{message}");
    log::info!("exiting with code {}", code as i32);
    std::process::exit(code as i32)
}
