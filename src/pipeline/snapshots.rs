//! When a snapshot is taken, and its progress (the counting half of `SyncRequestProcessor`). The pipeline makes the
//! bytes, a slice between two batches of requests; the snapshot thread writes them.

use crate::ids::{Now, Zxid};
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_IN_FLIGHT};
use crate::mail::ToSnapshot;
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::pipeline::rules::SnapshotRules;
use crate::state::State;

/// Counts since the last roll, and what is under way.
#[derive(Debug)]
pub(super) struct Snapshots {
    rules: SnapshotRules,
    /// State of a small generator (xorshift): servers must not all take their snapshots at the same transaction.
    random: u64,
    txns: u64,
    bytes: u64,
    due_txns: u64,
    due_bytes: u64,
    wanted: bool,
    /// Begun and not done. The cut ends first, the file a little later.
    running: bool,
    chunks_in_flight: usize,
    /// The tree's digest when the running one began.
    digest: Option<u64>,
    begun_mono_ms: i64,
}

impl Snapshots {
    pub fn new(rules: SnapshotRules, seed: u64) -> Snapshots {
        let mut snapshots = Snapshots {
            rules,
            random: seed | 1,
            txns: 0,
            bytes: 0,
            due_txns: 0,
            due_bytes: 0,
            wanted: false,
            running: false,
            chunks_in_flight: 0,
            digest: None,
            begun_mono_ms: 0,
        };
        snapshots.start_counting();
        snapshots
    }

    /// Half of `n`, and up to the other half at random.
    fn between_half_and_whole(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        n / 2 + self.random % (n / 2).max(1)
    }

    fn start_counting(&mut self) {
        self.txns = 0;
        self.bytes = 0;
        self.due_txns = self.between_half_and_whole(self.rules.snap_count);
        self.due_bytes = self.between_half_and_whole(self.rules.snap_size_bytes);
    }

    /// A transaction was logged. `true`: the log rolls behind it, and a snapshot is wanted.
    pub fn on_logged(&mut self, payload_bytes: usize) -> bool {
        self.txns += 1;
        self.bytes += payload_bytes as u64;
        let is_due = self.txns > self.due_txns || (self.rules.snap_size_bytes > 0 && self.bytes > self.due_bytes);
        if is_due {
            self.start_counting();
            // While one is still running the log rolls all the same, and no second one is begun.
            self.wanted = !self.running;
        }
        is_due
    }

    /// A snapshot is wanted apart from the counts: at start, when the newest one is not up to date.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    pub fn on_chunk_written(&mut self) {
        self.chunks_in_flight -= 1;
    }

    pub fn on_done(&mut self, zxid: Zxid, bytes: u64, now: Now) {
        log::info!("snapshot {zxid} written, {bytes} bytes");
        self.running = false;
        metrics::SNAPSHOTTIME.record(now.mono_ms - self.begun_mono_ms);
    }

    /// Whether there is something to do that waits for no mail.
    pub fn can_go_on(&self, state: &State) -> bool {
        (self.wanted && !self.running) || (state.is_cutting() && self.chunks_in_flight < SNAPSHOT_CHUNKS_IN_FLIGHT)
    }
}

impl Pipeline {
    /// A snapshot is taken as soon as possible.
    pub fn want_snapshot(&mut self) {
        self.snapshots.want();
    }

    /// Moves the snapshot on by one slice at most.
    pub(super) fn advance_snapshot(&mut self) {
        if !self.snapshots.can_go_on(&self.state) || self.stopping {
            return;
        }
        if self.snapshots.wanted && !self.snapshots.running {
            self.snapshots.wanted = false;
            self.snapshots.running = true;
            self.snapshots.begun_mono_ms = self.now.mono_ms;
            self.snapshots.digest = self.rules.digest_enabled.then(|| self.state.tree_digest());
            self.out.snapshot.push(ToSnapshot::Begin { zxid: self.state.last_zxid() });
            let head = self.state.begin_cut();
            return self.send_chunk(head);
        }
        let (bytes, done) = self.state.cut_slice(SNAPSHOT_CHUNK_BYTES);
        self.send_chunk(bytes);
        if done {
            self.out.snapshot.push(ToSnapshot::Finish { digest: self.snapshots.digest });
        }
    }

    fn send_chunk(&mut self, bytes: Vec<u8>) {
        self.snapshots.chunks_in_flight += 1;
        self.out.snapshot.push(ToSnapshot::Chunk(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_between_half_and_the_whole_count() {
        for seed in 1..50 {
            let mut s = Snapshots::new(SnapshotRules { snap_count: 100, snap_size_bytes: 0 }, seed);
            let due = (1..).find(|_| s.on_logged(10)).expect("it is due at some time");
            assert!((51..=101).contains(&due), "{due}");
        }
    }

    #[test]
    fn none_is_begun_while_one_is_running() {
        let mut s = Snapshots::new(SnapshotRules { snap_count: 2, snap_size_bytes: 0 }, 7);
        s.running = true;
        while !s.on_logged(1) {}
        assert!(!s.wanted);
    }
}
