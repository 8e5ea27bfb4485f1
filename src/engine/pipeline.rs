//! What the pipeline's turn sends, in the one order there is:
//!
//! 1. what it has for the quorum thread: a sync stands before what was proposed after it;
//! 2. what it proposes, first to the quorum thread, which has the others log it meanwhile, then to this server's log;
//! 3. that the log begins a new file, and then what goes into the snapshot that begins there;
//! 4. what clients are told.

use crate::mail::{Mail, ToPipeline, ToPoller, ToQuorum, ToSnapshot, ToTxnlog};
use crate::metrics;
use crate::pipeline::Outbox;

/// Something for another thread.
#[derive(Debug)]
pub enum Post {
    /// In an ensemble only.
    Quorum(ToQuorum),
    /// For the log.
    Txnlog(ToTxnlog),
    /// For the snapshots.
    Snapshot(ToSnapshot),
    /// For the clients.
    Poller(ToPoller),
}

/// When a turn began, and when it sends what is in its outbox, monotonic microseconds.
#[derive(Clone, Copy, Debug)]
pub struct TurnTimes {
    /// It began.
    pub begun_us: i64,
    /// It sends.
    pub sent_us: i64,
}

/// Posts all that a turn has to say.
pub fn deliver(mut outbox: Outbox, in_ensemble: bool, times: TurnTimes, mut post: impl FnMut(Post)) {
    let TurnTimes { begun_us, sent_us } = times;
    if in_ensemble {
        outbox.quorum.into_iter().for_each(|mail| post(Post::Quorum(mail)));
    }
    if let Some(last) = outbox.records.last() {
        let zxid = last.zxid;
        let durable = if in_ensemble {
            post(Post::Quorum(ToQuorum::Proposed(outbox.records.clone())));
            Mail::Quorum(ToQuorum::Durable { zxid, at_us: 0 })
        } else {
            Mail::Pipeline(ToPipeline::Committed { zxid, at_us: 0, synced: Vec::new() })
        };
        metrics::WRITE_PREPARED.record(sent_us - begun_us, outbox.records.len());
        let logged = outbox.logged.map(|bytes| Mail::Pipeline(ToPipeline::Logged { bytes }));
        let then = std::iter::once(durable).chain(logged).collect();
        post(Post::Txnlog(ToTxnlog::Append { records: outbox.records, then, sent_us }));
    }
    if outbox.applied > 0 {
        metrics::WRITE_APPLIED.record(sent_us - begun_us, outbox.applied);
        outbox.poller.applied = Some((outbox.applied, sent_us));
    }
    if outbox.roll {
        post(Post::Txnlog(ToTxnlog::Roll));
    }
    outbox.snapshot.into_iter().for_each(|mail| post(Post::Snapshot(mail)));
    if outbox.stopped {
        post(Post::Txnlog(ToTxnlog::Stop));
        outbox.poller.stop = true;
    }
    if !outbox.poller.outgoing.is_empty() || outbox.poller.excess_bytes.is_some() || outbox.poller.stop {
        post(Post::Poller(outbox.poller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Zxid;
    use crate::mail::LogRecord;

    fn posted(in_ensemble: bool) -> Vec<&'static str> {
        let outbox = Outbox {
            records: vec![LogRecord { zxid: Zxid(7), payload: Vec::new() }],
            roll: true,
            snapshot: vec![ToSnapshot::Begin { zxid: Zxid(6) }],
            quorum: vec![ToQuorum::CaughtUp],
            stopped: true,
            ..Outbox::default()
        };
        let name = |post| match post {
            Post::Quorum(ToQuorum::CaughtUp) => "to quorum",
            Post::Quorum(ToQuorum::Proposed(_)) => "proposed",
            Post::Txnlog(ToTxnlog::Append { then, .. }) => match then[..] {
                [Mail::Quorum(ToQuorum::Durable { zxid: Zxid(7), .. })] => "logged, then durable",
                [Mail::Pipeline(ToPipeline::Committed { zxid: Zxid(7), .. })] => "logged, then committed",
                _ => "?",
            },
            Post::Txnlog(ToTxnlog::Roll) => "roll",
            Post::Snapshot(ToSnapshot::Begin { .. }) => "snapshot",
            Post::Txnlog(ToTxnlog::Stop) => "stop",
            Post::Poller(ToPoller { stop: true, .. }) => "poller stops",
            _ => "?",
        };
        let mut posts = Vec::new();
        deliver(outbox, in_ensemble, TurnTimes { begun_us: 1, sent_us: 2 }, |post| posts.push(name(post)));
        posts
    }

    #[test]
    fn what_a_turn_sends_comes_in_one_order() {
        let end = ["roll", "snapshot", "stop", "poller stops"];
        assert_eq!(posted(true), [&["to quorum", "proposed", "logged, then durable"][..], &end].concat());
        assert_eq!(posted(false), [&["logged, then committed"][..], &end].concat());
    }
}
