//! What the admin server's threads ask of the pipeline, by way of the poller, which adds its part. The pipeline's thread
//! answers between two turns ([`AdminQuery::answer`]): as briefly as can be, for everybody waits.

use crossbeam_channel::Sender;

use crate::admin::commands::{Answer, Asker, CommandQuery};
use crate::admin::view::{Denied, Mode, SnapshotProgress};
use crate::admin::words::QueryContext;
use crate::admin::{mntr, prometheus};

/// A question, and where its answer goes.
#[derive(Debug)]
pub enum AdminQuery {
    /// What a command of the table shows.
    Command {
        /// As it was asked for.
        query: CommandQuery,
        /// Gets the answer.
        to: Sender<Answer>,
    },
    /// The gauges of the metrics are to be brought up to date.
    Metrics {
        /// Gets the rows of the table that this server shows.
        to: Sender<Vec<bool>>,
    },
    /// Whether somebody may do everything.
    Authorize {
        /// Who.
        asker: Asker,
        /// Gets the answer.
        to: Sender<Result<(), Denied>>,
    },
    /// How far a snapshot is, or a change of the data.
    Progress {
        /// Gets the answer.
        to: Sender<Progress>,
    },
}

/// How far the server is with what an operator wants.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What it is.
    pub mode: Mode,
    /// It serves nobody, and all that was logged is applied.
    pub is_at_rest: bool,
    /// How far the snapshot is that was wanted last.
    pub snapshot: SnapshotProgress,
}

impl AdminQuery {
    /// Answers.
    pub fn answer(self, context: &QueryContext) {
        let server = context.server;
        match self {
            AdminQuery::Command { query, to } => reply(&to, query.answer(context)),
            AdminQuery::Metrics { to } => {
                mntr::publish(context);
                reply(&to, prometheus::shown(server));
            }
            AdminQuery::Authorize { asker, to } => reply(&to, asker.authorize(server)),
            AdminQuery::Progress { to } => {
                let (mode, is_at_rest, snapshot) = (server.mode(), server.is_at_rest(), server.snapshot_progress());
                reply(&to, Progress { mode, is_at_rest, snapshot });
            }
        }
    }
}

/// Whoever asked may have given up, and nobody takes the answer.
fn reply<T>(to: &Sender<T>, answer: T) {
    let _ = to.send(answer);
}
