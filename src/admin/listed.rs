//! The lists that may be too long to be made while everybody waits: how long each is, and what is said of one that is longer
//! than [`LISTED_MAX`]. A four-letter word shows that many entries and adds a line, for scripts read it line by line; a
//! command of the admin server refuses, for a program must not take a part for the whole. Called by the two tables only.

use std::fmt::Write;

use super::words::QueryContext;
use crate::limits::LISTED_MAX;

/// One of the lists.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    what: &'static str,
    count: fn(&QueryContext<'_>) -> u64,
    /// What to ask for instead; words and commands have the same short names.
    instead: &'static str,
}

/// Open connections.
pub const CONNECTIONS: Listed = Listed {
    what: "connections",
    count: |context| u64::from(context.poller.connection_count),
    instead: "srvr has their number",
};
/// Watches on data.
pub const WATCHES: Listed =
    Listed { what: "watches", count: |context| context.server.data_watch_count(), instead: "wchs has them in numbers" };
/// Sessions.
pub const SESSIONS: Listed =
    Listed { what: "sessions", count: |context| context.server.listed_sessions(), instead: "mntr has their number" };
/// Ephemeral nodes.
pub const EPHEMERALS: Listed = Listed {
    what: "ephemeral nodes",
    count: |context| context.server.ephemerals_count(),
    instead: "mntr has their number",
};

impl Listed {
    /// How many there are and how many of them are too many, if some are.
    fn excess(&self, context: &QueryContext) -> Option<(u64, u64)> {
        let count = (self.count)(context);
        count.checked_sub(LISTED_MAX as u64).filter(|left_out| *left_out > 0).map(|left_out| (count, left_out))
    }

    /// Why the list is not shown; `None` if it is.
    pub fn refusal(&self, context: &QueryContext) -> Option<String> {
        let Listed { what, instead, .. } = self;
        let (count, _) = self.excess(context)?;
        Some(format!("{count} {what}: more than {LISTED_MAX} are not listed; {instead}"))
    }

    /// The line that says how many are missing, if some are.
    pub fn push_left_out(&self, out: &mut String, context: &QueryContext) {
        let Listed { what, instead, .. } = self;
        if let Some((count, left_out)) = self.excess(context) {
            let _ =
                writeln!(out, "{left_out} of {count} {what} left out: no more than {LISTED_MAX} are listed; {instead}");
        }
    }
}
