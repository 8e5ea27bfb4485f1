//! Apache's offline tools under their own names: the same arguments, lines and exit codes, so that scripts written for
//! them go on working. What they do is done by `storage` and the other modules of `inspect`; here is how they say it.
//! Called by `cli::scripts`. Every tool takes the arguments behind its name and what to write to.

mod cleanup;
mod initialize;
mod java;
mod options;
mod snapshot_comparer;
mod snapshot_formatter;
mod snapshot_summary;
mod txn_log_toolkit;

pub use cleanup::clean_up;
pub use initialize::initialize;
pub use snapshot_comparer::compare_snapshots;
pub use snapshot_formatter::format_snapshot;
pub use snapshot_summary::summarize_snapshot;
pub use txn_log_toolkit::txn_log_toolkit;

use crate::inspect::Failure;

/// Exit code: something unexpected (`ExitCode.UNEXPECTED_ERROR`).
const UNEXPECTED: i32 = 1;
/// Exit code: wrong arguments (`ExitCode.INVALID_INVOCATION`).
const INVALID_INVOCATION: i32 = 2;

fn unexpected(message: impl ToString) -> Failure {
    Failure { code: UNEXPECTED, message: message.to_string() }
}

fn invalid(message: impl ToString) -> Failure {
    Failure { code: INVALID_INVOCATION, message: message.to_string() }
}
