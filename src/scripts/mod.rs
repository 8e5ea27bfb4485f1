//! Apache's scripts under their own names, a file each: the same arguments, lines, streams and exit codes, so that what was
//! written for Apache's goes on working. What they do is done by `storage`, `inspect`, `shell` and `sys`; here is how
//! Apache has it said. Called by `cli::scripts`. Every script takes the arguments behind its name; the offline tools, which
//! look at files, also what to write to.

mod cleanup;
mod initialize;
mod java;
mod snapshot_comparer;
mod snapshot_formatter;
mod snapshot_summary;
mod txn_log_toolkit;
mod zk_cli;
mod zk_server;

pub use cleanup::clean_up;
pub use initialize::initialize;
pub use snapshot_comparer::compare_snapshots;
pub use snapshot_formatter::format_snapshot;
pub use snapshot_summary::summarize_snapshot;
pub use txn_log_toolkit::txn_log_toolkit;
pub use zk_cli::run_shell;
pub use zk_server::control_server;

use crate::inspect::Failure;
use crate::sys::exit::ExitCode;

const UNEXPECTED: i32 = ExitCode::Unexpected as i32;
const INVALID_INVOCATION: i32 = ExitCode::InvalidInvocation as i32;

fn unexpected(message: impl ToString) -> Failure {
    Failure { code: UNEXPECTED, message: message.to_string() }
}

fn invalid(message: impl ToString) -> Failure {
    Failure { code: INVALID_INVOCATION, message: message.to_string() }
}
