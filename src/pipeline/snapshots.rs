//! When a snapshot is taken, and its progress (the counting half of `SyncRequestProcessor`). The pipeline makes the
//! bytes, a slice between two batches of requests; the snapshot thread writes them. The same bytes bring a learner up to
//! date that is too far behind (`LearnerHandler`).
//!
//! The state can be cut for one reader at a time: disk and learners take turns, a whole cut each.

use std::collections::VecDeque;

use crate::admin::view::SnapshotProgress;
use crate::ids::{LinkId, Now, Zxid};
use crate::jute::Writer;
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_IN_FLIGHT, SNAPSHOT_PIECES_IN_FLIGHT};
use crate::mail::{Role, ToQuorum, ToSnapshot};
use crate::memory::Account;
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::pipeline::rules::SnapshotRules;
use crate::state::State;

/// Magic, version and id, which files begin with and streams do not.
const FILE_HEADER_BYTES: usize = 16;
/// What a stream ends with.
const SIGNATURE: &str = "BenWasHere";

/// Whom the state is being cut for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Disk,
    Learner { link: LinkId, zxid: Zxid, pieces_in_flight: usize },
}

/// Counts since the last roll, and what is under way.
#[derive(Debug)]
pub(super) struct Snapshots {
    rules: SnapshotRules,
    /// Servers must not all take their snapshots at the same transaction.
    random: fastrand::Rng,
    txns: u64,
    bytes: u64,
    due_txns: u64,
    due_bytes: u64,
    wanted: bool,
    /// Begun and not done, as of this transaction. The cut ends first, the file a little later.
    running: Option<Zxid>,
    /// The last one could not be written, and none was begun since.
    failed: bool,
    /// The next one makes a state durable that was installed: it is taken whatever the role, and
    /// [`ToQuorum::Installed`] is said when it is done.
    installs: bool,
    chunks_in_flight: usize,
    /// Who the cut is for that is being taken.
    reader: Option<Reader>,
    /// Learners that wait for theirs.
    waiting: VecDeque<LinkId>,
    /// The tree's digest when the running one began.
    digest: Option<u64>,
    begun_mono_ms: i64,
}

impl Snapshots {
    pub fn new(rules: SnapshotRules, seed: u64) -> Snapshots {
        let mut snapshots = Snapshots {
            rules,
            random: fastrand::Rng::with_seed(seed),
            txns: 0,
            bytes: 0,
            due_txns: 0,
            due_bytes: 0,
            wanted: false,
            running: None,
            failed: false,
            installs: false,
            chunks_in_flight: 0,
            reader: None,
            waiting: VecDeque::new(),
            digest: None,
            begun_mono_ms: 0,
        };
        snapshots.start_counting();
        snapshots
    }

    /// Half of `n`, and up to the other half at random.
    fn between_half_and_whole(&mut self, n: u64) -> u64 {
        n / 2 + self.random.u64(..(n / 2).max(1))
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
            // While one is still running the log rolls all the same, and no second one is begun. After one that could not
            // be written the next comes when the thread that writes asks for it, however much is logged meanwhile.
            self.wanted |= !self.is_running() && !self.failed;
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

    /// The snapshot is on disk. `true`: that makes an installed state durable.
    pub fn on_done(&mut self, zxid: Zxid, bytes: u64, now: Now) -> bool {
        log::info!("snapshot {zxid} written, {bytes} bytes");
        self.running = None;
        metrics::SNAPSHOTTIME.record(now.mono_ms - self.begun_mono_ms);
        !self.wanted && std::mem::take(&mut self.installs)
    }

    /// For operators.
    pub fn publish(&self) {
        let to_learner = match self.reader {
            Some(Reader::Learner { pieces_in_flight, .. }) => pieces_in_flight,
            Some(Reader::Disk) | None => 0,
        };
        Account::SnapshotPieces.publish((self.chunks_in_flight + to_learner) * SNAPSHOT_CHUNK_BYTES);
    }

    /// The snapshot cannot be written; the thread that writes asks for another when it is time. One that was given up
    /// before is not the one that runs.
    pub fn on_failed(&mut self, zxid: Zxid, state: &mut State) {
        if self.running.take_if(|running| *running == zxid).is_none() {
            return;
        }
        self.failed = true;
        if self.reader == Some(Reader::Disk) {
            state.abandon_cut();
            self.reader = None;
        }
    }

    /// Whether a snapshot for the disk was begun and is not done.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How far the one is that was wanted last.
    pub fn progress(&self) -> SnapshotProgress {
        match (self.wanted || self.is_running(), self.failed) {
            (true, _) => SnapshotProgress::UnderWay,
            (false, true) => SnapshotProgress::Failed,
            (false, false) => SnapshotProgress::Done,
        }
    }

    /// A snapshot for the disk that is still being cut is given up, to be taken anew later: the snapshot thread throws
    /// away what it has of it when the next one begins. One that is cut whole will be done.
    pub fn give_up(&mut self, state: &mut State) {
        if self.reader == Some(Reader::Disk) {
            state.abandon_cut();
            self.reader = None;
            self.running = None;
            self.wanted = true;
        }
        self.installs = false;
    }

    /// The state was replaced.
    pub fn install(&mut self, durable: bool) {
        self.wanted |= durable;
        self.installs = durable;
    }

    /// The kernel took a piece of a learner's stream.
    pub fn on_piece_sent(&mut self, learner: LinkId) {
        if let Some(Reader::Learner { link, pieces_in_flight, .. }) = &mut self.reader
            && *link == learner
        {
            *pieces_in_flight = pieces_in_flight.saturating_sub(1);
        }
    }

    /// The learner is gone, and wants nothing more.
    pub fn end_stream(&mut self, learner: LinkId, state: &mut State) {
        self.waiting.retain(|&link| link != learner);
        if matches!(self.reader, Some(Reader::Learner { link, .. }) if link == learner) {
            state.abandon_cut();
            self.reader = None;
        }
    }

    /// So are all of them.
    pub fn end_streams(&mut self, state: &mut State) {
        self.waiting.clear();
        if let Some(Reader::Learner { link, .. }) = self.reader {
            self.end_stream(link, state);
        }
    }
}

impl Pipeline {
    /// A snapshot is taken as soon as possible.
    pub fn want_snapshot(&mut self) {
        self.snapshots.want();
    }

    /// A learner needs the state as of now, or a little later. A leader brings learners up to date before it serves.
    pub(super) fn stream_snapshot(&mut self, learner: LinkId) {
        let is_served = matches!(self.snapshots.reader, Some(Reader::Learner { link, .. }) if link == learner);
        let may_lead = matches!(self.role, Role::Leading { .. } | Role::Looking | Role::Following);
        if may_lead && !is_served && !self.snapshots.waiting.contains(&learner) {
            self.snapshots.waiting.push_back(learner);
        }
    }

    pub(super) fn on_snapshot_done(&mut self, zxid: Zxid, bytes: u64) {
        if self.snapshots.on_done(zxid, bytes, self.now) {
            self.out.quorum.push(ToQuorum::Installed { zxid });
        }
    }

    /// Whether a snapshot for the disk is to begin. While a leader is looked for none is: what is not committed may be
    /// taken back; nor of two histories that are not one, for a start could not tell them any more.
    fn is_disk_next(&self) -> bool {
        let may_begin = self.serves_all() && !self.state.is_of_two_histories();
        self.snapshots.wanted && !self.snapshots.is_running() && (may_begin || self.snapshots.installs)
    }

    /// Whether there is something to do that waits for no mail.
    pub(super) fn can_go_on_with_snapshot(&self) -> bool {
        !self.stopping
            && match self.snapshots.reader {
                None => self.is_disk_next() || !self.snapshots.waiting.is_empty(),
                Some(Reader::Disk) => self.snapshots.chunks_in_flight < SNAPSHOT_CHUNKS_IN_FLIGHT,
                Some(Reader::Learner { pieces_in_flight, .. }) => pieces_in_flight < SNAPSHOT_PIECES_IN_FLIGHT,
            }
    }

    /// Moves the cut on by one slice at most.
    pub(super) fn advance_snapshot(&mut self) {
        if !self.can_go_on_with_snapshot() {
            return;
        }
        let Some(reader) = self.snapshots.reader else { return self.begin_cut() };
        let (bytes, done) = self.state.cut_slice(SNAPSHOT_CHUNK_BYTES);
        if done {
            self.snapshots.reader = None;
        }
        match reader {
            Reader::Disk => {
                self.send_chunk(bytes);
                if done {
                    self.out.snapshot.push(ToSnapshot::Finish { digest: self.snapshots.digest });
                }
            }
            Reader::Learner { link, zxid, .. } => self.send_piece(link, zxid, bytes, done),
        }
    }

    /// The disk first, which seldom wants a snapshot, and none while one is still being written; learners as they came.
    fn begin_cut(&mut self) {
        let zxid = self.state.last_zxid();
        let for_disk = self.is_disk_next();
        let head = self.state.begin_cut();
        if for_disk {
            self.snapshots.wanted = false;
            self.snapshots.running = Some(zxid);
            self.snapshots.failed = false;
            self.snapshots.begun_mono_ms = self.now.mono_ms;
            self.snapshots.digest = self.state.promised_digest();
            self.snapshots.reader = Some(Reader::Disk);
            self.out.snapshot.push(ToSnapshot::Begin { zxid });
            self.send_chunk(head);
        } else if let Some(link) = self.snapshots.waiting.pop_front() {
            self.snapshots.reader = Some(Reader::Learner { link, zxid, pieces_in_flight: 0 });
            self.send_piece(link, zxid, head[FILE_HEADER_BYTES..].to_vec(), false);
        }
    }

    fn send_chunk(&mut self, bytes: Vec<u8>) {
        self.snapshots.chunks_in_flight += 1;
        self.out.snapshot.push(ToSnapshot::Chunk(bytes));
    }

    fn send_piece(&mut self, learner: LinkId, zxid: Zxid, mut bytes: Vec<u8>, last: bool) {
        if last {
            bytes.put_string(SIGNATURE);
        }
        if let Some(Reader::Learner { pieces_in_flight, .. }) = &mut self.snapshots.reader {
            *pieces_in_flight += 1;
        }
        self.out.quorum.push(ToQuorum::Snapshot { learner, zxid, bytes, last });
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
        s.running = Some(Zxid(1));
        while !s.on_logged(1) {}
        assert!(!s.wanted);
    }

    #[test]
    fn after_one_that_failed_none_is_due_before_it_is_asked_for() {
        let mut s = Snapshots::new(SnapshotRules { snap_count: 2, snap_size_bytes: 0 }, 7);
        let mut state = State::fresh(crate::state::StateRules::default());
        s.running = Some(Zxid(1));
        s.on_failed(Zxid(1), &mut state);
        let rolls = (0..100).filter(|_| s.on_logged(1)).count();
        assert!(rolls > 30 && !s.wanted, "the log rolls all the same");
        s.want();
        assert!(s.wanted);
    }
}
