//! ZAB, the leader's side: finds an epoch, brings learners up to date, broadcasts (`Leader`, `LearnerHandler`). A pure
//! state machine, driven by [`super::peer`]; packets and times in, [`Effect`]s out.
//!
//! A leader goes through its stages once: [`Stage::Discovery`], [`Stage::Promises`], [`Stage::Synchronization`],
//! [`Stage::Broadcast`]. So does each learner through its [`Phase`]s; one that comes late finds the leader ahead and
//! does not wait. What a learner does wrong closes that learner and nothing else.
//!
//! Every learner gets each transaction behind its sync point exactly once and in order: committed ones with the
//! synchronization, outstanding ones behind NEWLEADER, later ones as they are proposed. Their commits wait until
//! UPTODATE is sent, since released learners fail on one that comes earlier.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::history::{History, Plan, follows};
use super::packet::{LearnerInfo, Packet};
use super::voters::Configs;
use super::{Effect, Epochs, LinkId, Timing};
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Role, ToPipeline, ToQuorum};

/// ZAB 1.0, ZooKeeper 3.4 and later.
const PROTOCOL_MIN: i32 = 0x10000;

/// Above, zxids would be negative.
const EPOCH_MAX: u32 = i32::MAX as u32;

/// Committed transactions that are kept for learners that wait for a snapshot or for the disk log. When it is more, the
/// one that lags most starts again.
const PINNED_BYTES_MAX: usize = 512 << 20;

/// Bytes that may wait for one learner. One that reads is far below, also when it is sent 500 big transactions.
const UNSENT_BYTES_MAX: usize = 512 << 20;

/// Snapshots streamed at a time; participants are never refused (`leader.maxConcurrentSnapSyncs`).
const SNAPSHOTS_MAX: usize = 10;

/// The leader of an ensemble, from the won election until it loses its quorum.
#[derive(Debug)]
pub struct Leader {
    my_id: ServerId,
    configs: Configs,
    timing: Timing,
    epochs: Epochs,
    history: History,
    now_ms: i64,
    stage: Stage,
    /// When the stage must be over; does not matter in broadcast.
    stage_deadline_ms: i64,
    /// The epoch of this reign, 0 until it is found.
    epoch: u32,
    /// Discovery: the greatest epoch that any learner promised to join.
    accepted_max: u32,
    /// Voters that said which epoch they had promised, then voters that promised the new one.
    reported: BTreeSet<ServerId>,
    promised: BTreeSet<ServerId>,
    learners: BTreeMap<LinkId, Learner>,
    /// Proposed and not committed, contiguous.
    outstanding: VecDeque<Proposal>,
    last_proposed: Zxid,
    /// The last committed, the start of the epoch at first.
    committed: Zxid,
    /// What this server's own log has on disk.
    durable: Zxid,
    /// Syncs that wait until a transaction is committed; ascending, as they were asked for.
    syncs: VecDeque<(Zxid, LinkId)>,
    next_ping_ms: i64,
    /// Every second ping is a tick, at which the quorum must be there.
    ping_is_tick: bool,
    effects: Vec<Effect>,
    ended: Option<String>,
}

/// How far the reign is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// Learners say which epochs they promised, until a quorum has.
    Discovery,
    /// A quorum must promise to join the new epoch.
    Promises,
    /// A quorum must have the whole history.
    Synchronization,
    /// Serving.
    Broadcast,
}

/// How far a learner is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It is to say who it is.
    Connected,
    /// It waits for the epoch.
    Introduced,
    /// It knows the epoch and is to promise.
    Invited,
    /// It promised and waits for a quorum of those.
    Promised,
    /// The disk log is read for it.
    ReadingLog { from: Zxid, to: Zxid },
    /// It gets a snapshot; `cut` is where that stands, or, before the first piece, a point not behind it.
    Snapshot { cut: Zxid, begun: bool },
    /// It has NEWLEADER and is to acknowledge.
    NewLeader,
    /// It has the history and waits for a quorum of those.
    Synced,
    /// UPTODATE is sent: broadcast.
    UpToDate,
}

/// One connection to the quorum port.
#[derive(Debug)]
struct Learner {
    phase: Phase,
    /// Known once it is introduced.
    server: ServerId,
    observer: bool,
    /// A follower that votes.
    voter: bool,
    /// It is closed then; `i64::MAX` while it waits for this server.
    deadline_ms: i64,
    /// Until then it counts as there.
    alive_until_ms: i64,
    /// Its last logged transaction as it said, then the last commit told while it was synchronized.
    last: Zxid,
    /// What was proposed when UPTODATE was sent: an ACK of anything later proves that it got there.
    proposed_at_uptodate: Zxid,
    /// It is beyond UPTODATE: before, a learner of 3.8 that loses the connection reports a history without what it
    /// acknowledged.
    counts: bool,
    /// ACKs that came before it counted.
    early_acks: BTreeSet<Zxid>,
    /// A proposal it has not acknowledged, and since when.
    unacked: Option<(Zxid, i64)>,
}

/// A transaction that is not committed.
#[derive(Debug)]
struct Proposal {
    record: LogRecord,
    acks: BTreeSet<ServerId>,
}

impl Learner {
    fn new(now_ms: i64, timing: &Timing) -> Learner {
        Learner {
            phase: Phase::Connected,
            server: ServerId(0),
            observer: false,
            voter: false,
            deadline_ms: now_ms + timing.init_ms,
            alive_until_ms: now_ms + timing.init_ms + timing.sync_ms,
            last: Zxid::ZERO,
            proposed_at_uptodate: Zxid::ZERO,
            counts: false,
            early_acks: BTreeSet::new(),
            unacked: None,
        }
    }

    /// Whether new transactions are sent to it as they come.
    fn is_forwarding(&self) -> bool {
        matches!(self.phase, Phase::NewLeader | Phase::Synced | Phase::UpToDate)
    }

    /// What it needs of the history: everything behind this.
    fn pins(&self) -> Option<Zxid> {
        match self.phase {
            Phase::ReadingLog { to, .. } => Some(to),
            Phase::Snapshot { cut, .. } => Some(cut),
            _ => None,
        }
    }
}

impl Leader {
    /// A leader that was just elected. `last` is the last logged transaction, which is applied as well, and durable.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        timing: Timing,
        epochs: Epochs,
        mut history: History,
        last: Zxid,
        now_ms: i64,
    ) -> Leader {
        if history.last() != last {
            history.reset(last);
        }
        let mut leader = Leader {
            my_id,
            configs,
            timing,
            epochs,
            history,
            now_ms,
            stage: Stage::Discovery,
            stage_deadline_ms: now_ms + timing.init_ms,
            epoch: 0,
            accepted_max: epochs.accepted.max(last.epoch()),
            reported: BTreeSet::from([my_id]),
            promised: BTreeSet::from([my_id]),
            learners: BTreeMap::new(),
            outstanding: VecDeque::new(),
            last_proposed: last,
            committed: last,
            durable: last,
            syncs: VecDeque::new(),
            next_ping_ms: now_ms + (timing.tick_ms / 2).max(1),
            ping_is_tick: false,
            effects: vec![Effect::Listen(true)],
            ended: None,
        };
        leader.advance();
        leader
    }

    /// The time of the next input, monotonic ms.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// Someone connected to the quorum port.
    pub fn on_learner_connected(&mut self, link: LinkId) {
        if self.ended.is_none() {
            self.learners.insert(link, Learner::new(self.now_ms, &self.timing));
        }
    }

    /// A packet of a learner.
    pub fn on_packet(&mut self, link: LinkId, packet: Packet) {
        if self.ended.is_some() {
            return;
        }
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if learner.phase == Phase::UpToDate {
            learner.alive_until_ms = self.now_ms + self.timing.sync_ms;
            learner.deadline_ms = learner.alive_until_ms;
        }
        match (learner.phase, packet) {
            (Phase::Connected, Packet::LearnerInfo(info)) => self.on_introduced(link, info),
            (Phase::Connected, _) => {
                self.close(link, "its first packet is neither FOLLOWERINFO nor OBSERVERINFO".into())
            }
            (Phase::Invited, Packet::AckEpoch { zxid, epoch }) => self.on_promised(link, zxid, epoch),
            (Phase::NewLeader | Phase::Synced | Phase::UpToDate, Packet::Ack { zxid }) => self.on_ack(link, zxid),
            (Phase::UpToDate, Packet::Request(request)) => {
                self.tell_pipeline(ToPipeline::Forwarded { learner: link, request });
            }
            (Phase::UpToDate, Packet::Revalidate { session, timeout_ms }) => {
                self.tell_pipeline(ToPipeline::Revalidate { learner: link, session, timeout_ms });
            }
            (Phase::UpToDate, Packet::Ping { touched: sessions, .. }) => {
                if !sessions.is_empty() {
                    self.tell_pipeline(ToPipeline::Touched { sessions });
                }
            }
            // An answer to a ping that was sent before UPTODATE.
            (Phase::NewLeader | Phase::Synced, Packet::Ping { .. }) => {}
            (Phase::UpToDate, Packet::Unknown { .. }) => {}
            (phase, packet) => {
                let kind = name_of(&packet);
                self.close(link, format!("it sent {kind} while {}", waiting_for(phase)));
            }
        }
    }

    /// The connection is gone.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.forget(link);
    }

    /// What the pipeline and the log have to say.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        if self.ended.is_some() {
            return;
        }
        match mail {
            ToQuorum::Proposed(records) => self.propose(records),
            ToQuorum::Durable { zxid } => self.durable = self.durable.max(zxid),
            ToQuorum::Revalidated { learner, session, valid } => {
                self.send_if_there(learner, Packet::Revalidated { session, valid });
            }
            ToQuorum::SyncReady { learner, after } => self.syncs.push_back((after, learner)),
            ToQuorum::Snapshot { learner, zxid, bytes, last } => self.on_snapshot_piece(learner, zxid, bytes, last),
            ToQuorum::EpochExhausted => {
                let epoch = self.epoch;
                self.end(format!("the zxids of epoch {epoch} are used up; an election begins the next one"));
            }
            ToQuorum::Forward(_)
            | ToQuorum::Revalidate { .. }
            | ToQuorum::Touched(_)
            | ToQuorum::Installed { .. }
            | ToQuorum::Truncated { .. }
            | ToQuorum::Settled { .. }
            | ToQuorum::Stop => {}
        }
    }

    /// The kernel took a piece of a learner's snapshot.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        // The last pieces leave after NEWLEADER was queued behind them.
        if matches!(learner.phase, Phase::Snapshot { .. } | Phase::NewLeader) {
            learner.deadline_ms = deadline_ms;
            if learner.voter {
                self.stage_deadline_ms = deadline_ms;
            }
            self.tell_pipeline(ToPipeline::SnapshotPieceSent { learner: link });
        }
    }

    /// What [`Effect::ReadLog`] found; `None` if the log does not have all of it, or does not have the learner's last
    /// transaction itself.
    pub fn on_log_read(&mut self, link: LinkId, records: Option<Vec<LogRecord>>) {
        let Some(Phase::ReadingLog { from, to }) = self.learners.get(&link).map(|learner| learner.phase) else {
            return;
        };
        match records {
            Some(records) if joins(from, &records, to) => {
                self.send(link, Packet::Diff { zxid: self.history.last() });
                for record in records {
                    self.send_committed(link, record);
                }
                self.finish_sync(link, to);
            }
            _ => self.request_snapshot(link),
        }
    }

    /// Bytes that wait for a learner, after some were written: who does not read is closed.
    pub fn on_backlog(&mut self, link: LinkId, bytes: usize) {
        if bytes > UNSENT_BYTES_MAX {
            self.close(link, format!("{bytes} bytes wait for it; it does not read fast enough"));
        }
    }

    /// Deadlines and pings. Called when [`Leader::next_deadline_ms`] has come, or more often.
    pub fn tick(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if self.stage < Stage::Broadcast && self.now_ms >= self.stage_deadline_ms {
            let what = match self.stage {
                Stage::Discovery => "no quorum connected",
                Stage::Promises => "no quorum promised to join the new epoch",
                Stage::Synchronization | Stage::Broadcast => "no quorum was synchronized",
            };
            return self.end(format!("{what} within initLimit ({} ms)", self.timing.init_ms));
        }
        let late = self.learners.iter().filter(|(_, learner)| self.now_ms >= learner.deadline_ms);
        let late: Vec<(LinkId, Phase)> = late.map(|(link, learner)| (*link, learner.phase)).collect();
        for (link, phase) in late {
            self.close(link, format!("nothing came from it in time while {}", waiting_for(phase)));
        }
        if self.now_ms >= self.next_ping_ms {
            self.ping();
        }
    }

    /// When [`Leader::tick`] is to be called, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        if self.ended.is_some() {
            return i64::MAX;
        }
        let stage_ms = if self.stage < Stage::Broadcast { self.stage_deadline_ms } else { i64::MAX };
        let learners_ms = self.learners.values().map(|learner| learner.deadline_ms).min().unwrap_or(i64::MAX);
        self.next_ping_ms.min(stage_ms).min(learners_ms)
    }

    /// What is to be done, in order. ACKs are counted here, once for all that came since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        if self.ended.is_none() {
            self.commit();
            self.answer_syncs();
        }
        std::mem::take(&mut self.effects)
    }

    /// Why the reign is over, if it is.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// The epochs as they are on disk now, once the effects are carried out.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Whether a quorum has the history, so that clients are served.
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Broadcast && self.ended.is_none()
    }

    /// What is committed, for the next role.
    pub fn history(mut self) -> History {
        self.history.pin(None);
        self.history
    }

    // Discovery and promises

    fn on_introduced(&mut self, link: LinkId, info: LearnerInfo) {
        let committed_version = self.configs.committed.version;
        let problem = match info.server {
            _ if info.protocol < PROTOCOL_MIN => {
                let protocol = info.protocol;
                Some(format!("it speaks a protocol from before ZooKeeper 3.4 ({protocol:#x}); upgrade it"))
            }
            None => Some("it does not say which server it is; upgrade it".to_string()),
            Some(ServerId(id)) if id == self.my_id.0 => {
                Some(format!("it says that it is server {id}, which is this one; correct its myid"))
            }
            Some(ServerId(id)) if info.config_version > committed_version => Some(format!(
                "server {id} has a configuration of version {:x}, activated after {committed_version:x} here",
                info.config_version
            )),
            Some(ServerId(id)) if info.accepted_epoch >= EPOCH_MAX => Some(format!(
                "server {id} promised epoch {}, beyond the last possible one; remove its data",
                info.accepted_epoch
            )),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            return self.close(link, problem);
        }
        let Some(server) = info.server else { return };
        let same = |(link, learner): (&LinkId, &Learner)| {
            (learner.phase != Phase::Connected && learner.server == server).then_some(*link)
        };
        if let Some(older) = self.learners.iter().find_map(same) {
            self.close(older, format!("server {} connected again", server.0));
        }
        let voter = !info.observer && self.configs.is_voter(server);
        let Some(learner) = self.learners.get_mut(&link) else { return };
        (learner.server, learner.observer, learner.voter) = (server, info.observer, voter);
        learner.phase = Phase::Introduced;
        learner.deadline_ms = i64::MAX;
        if self.stage > Stage::Discovery {
            return self.invite(link);
        }
        self.accepted_max = self.accepted_max.max(info.accepted_epoch);
        if voter {
            self.reported.insert(server);
        }
        self.advance();
    }

    fn invite(&mut self, link: LinkId) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        if let Some(learner) = self.learners.get_mut(&link) {
            learner.phase = Phase::Invited;
            learner.deadline_ms = deadline_ms;
            self.send(link, Packet::LeaderInfo { epoch: self.epoch });
        }
    }

    fn on_promised(&mut self, link: LinkId, zxid: Zxid, epoch: Option<u32>) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let server = learner.server;
        // A server that had promised this very epoch before does not promise it again.
        if let (Stage::Promises, Some(epoch)) = (self.stage, epoch) {
            let own = (self.epochs.current, self.history.last());
            if (epoch, zxid) > own {
                let why = format!(
                    "server {} has a longer history (epoch {epoch:x}, zxid {zxid}) than this leader (epoch {:x}, zxid {})",
                    server.0, own.0, own.1
                );
                return self.close(link, why);
            }
            if learner.voter && zxid.0 != -1 {
                self.promised.insert(server);
            }
        }
        learner.last = zxid;
        learner.phase = Phase::Promised;
        learner.deadline_ms = i64::MAX;
        if self.stage > Stage::Promises {
            return self.start_sync(link);
        }
        self.advance();
    }

    /// Goes on to the next stage as long as a quorum allows it.
    fn advance(&mut self) {
        if self.stage == Stage::Discovery && self.configs.is_quorum(&self.reported) {
            if self.accepted_max >= EPOCH_MAX {
                return self.end("the epochs are used up; this ensemble needs a new data set".to_string());
            }
            self.epoch = self.accepted_max + 1;
            self.epochs.accepted = self.epoch;
            self.last_proposed = self.epoch_start();
            self.enter(Stage::Promises, Effect::SetAcceptedEpoch(self.epoch));
            self.links_in(Phase::Introduced).into_iter().for_each(|link| self.invite(link));
        }
        if self.stage == Stage::Promises && self.configs.is_quorum(&self.promised) {
            self.epochs.current = self.epoch;
            self.enter(Stage::Synchronization, Effect::SetCurrentEpoch(self.epoch));
            self.links_in(Phase::Promised).into_iter().for_each(|link| self.start_sync(link));
        }
        if self.stage == Stage::Synchronization {
            let synced = self.learners.values().filter(|learner| learner.voter && learner.phase == Phase::Synced);
            let mut synced: BTreeSet<ServerId> = synced.map(|learner| learner.server).collect();
            synced.insert(self.my_id);
            if self.configs.is_quorum(&synced) {
                self.committed = self.epoch_start();
                let role = Role::Leading { epoch: self.epoch };
                self.enter(Stage::Broadcast, Effect::Pipeline(ToPipeline::Role(role)));
                self.links_in(Phase::Synced).into_iter().for_each(|link| self.say_up_to_date(link));
            }
        }
    }

    fn enter(&mut self, stage: Stage, effect: Effect) {
        self.stage = stage;
        self.stage_deadline_ms = self.now_ms + self.timing.init_ms;
        self.effects.push(effect);
    }

    fn links_in(&self, phase: Phase) -> Vec<LinkId> {
        self.learners.iter().filter(|(_, learner)| learner.phase == phase).map(|(link, _)| *link).collect()
    }

    fn epoch_start(&self) -> Zxid {
        Zxid(i64::from(self.epoch) << 32)
    }

    // Synchronization

    fn start_sync(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let last = self.history.last();
        let processed = if self.stage == Stage::Broadcast { self.committed } else { last };
        match self.history.plan(learner.last, processed) {
            Plan::Diff { after } => {
                let zxid = if learner.last == processed { processed } else { last };
                self.send(link, Packet::Diff { zxid });
                self.finish_sync(link, after);
            }
            Plan::Trunc { to } => {
                self.send(link, Packet::Trunc { zxid: to });
                self.finish_sync(link, to);
            }
            Plan::Log { from, to } => {
                learner.phase = Phase::ReadingLog { from, to };
                self.pin();
                self.effects.push(Effect::ReadLog { link, from, to });
            }
            Plan::Snapshot => self.request_snapshot(link),
        }
    }

    fn request_snapshot(&mut self, link: LinkId) {
        let running = self.learners.values().filter(|learner| matches!(learner.phase, Phase::Snapshot { .. })).count();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if learner.observer && running >= SNAPSHOTS_MAX {
            return self.close(link, format!("{running} snapshots are being sent; this observer has to try again"));
        }
        // The pipeline has applied what was said to be committed, so the snapshot is not behind this point.
        learner.phase = Phase::Snapshot { cut: self.history.last(), begun: false };
        learner.deadline_ms = self.now_ms + self.timing.init_ms;
        self.pin();
        self.tell_pipeline(ToPipeline::StreamSnapshot { learner: link });
    }

    fn on_snapshot_piece(&mut self, link: LinkId, zxid: Zxid, bytes: Vec<u8>, last: bool) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let Phase::Snapshot { begun, .. } = learner.phase else { return };
        learner.deadline_ms = deadline_ms;
        if !begun {
            // A cut at the start of the epoch is one in front of its first transaction.
            if zxid < self.history.last() && !self.history.continues(zxid) {
                return self
                    .close(link, format!("its snapshot is as of {zxid}, and what follows is not at hand any more"));
            }
            learner.phase = Phase::Snapshot { cut: zxid, begun: true };
            self.pin();
            self.send(link, Packet::Snap { zxid });
        }
        self.effects.push(Effect::SendSnapshot { link, bytes });
        if last {
            self.finish_sync(link, zxid);
        }
    }

    /// What was committed behind `after`, NEWLEADER, and what is outstanding; from here on it gets what is proposed.
    fn finish_sync(&mut self, link: LinkId, after: Zxid) {
        let (now_ms, init_ms) = (self.now_ms, self.timing.init_ms);
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.phase = Phase::NewLeader;
        learner.deadline_ms = now_ms + init_ms;
        learner.last = self.history.last();
        for LogRecord { zxid, payload } in self.history.after(after).cloned() {
            self.effects.push(Effect::Send { link, packet: Packet::Proposal { zxid, payload } });
            self.effects.push(Effect::Send { link, packet: Packet::Commit { zxid } });
        }
        let config = self.configs.newest().to_string().into_bytes();
        let packet = Packet::NewLeader { zxid: Zxid(i64::from(self.epoch) << 32), config };
        self.effects.push(Effect::Send { link, packet });
        if !learner.observer {
            for proposal in &self.outstanding {
                self.effects.push(Effect::Send { link, packet: proposal_packet(&proposal.record) });
            }
        }
        self.pin();
    }

    fn send_committed(&mut self, link: LinkId, record: LogRecord) {
        let zxid = record.zxid;
        self.send(link, Packet::Proposal { zxid, payload: record.payload });
        self.send(link, Packet::Commit { zxid });
    }

    /// The learner serves from here on. Commits of what was outstanding when it was synchronized follow.
    fn say_up_to_date(&mut self, link: LinkId) {
        let first = self.epoch_start();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.phase = Phase::UpToDate;
        learner.alive_until_ms = self.now_ms + self.timing.sync_ms;
        learner.deadline_ms = learner.alive_until_ms;
        learner.proposed_at_uptodate = self.last_proposed;
        self.effects.push(Effect::Send { link, packet: Packet::UpToDate });
        if learner.observer {
            return;
        }
        learner.unacked = self.outstanding.back().map(|proposal| (proposal.record.zxid, self.now_ms));
        let held = learner.last.max(first).0 + 1..=self.committed.0;
        let commits = held.map(|zxid| Effect::Send { link, packet: Packet::Commit { zxid: Zxid(zxid) } });
        self.effects.extend(commits);
    }

    /// Keeps of the history what learners in the middle of it need.
    fn pin(&mut self) {
        self.history.pin(self.learners.values().filter_map(Learner::pins).min());
    }

    // Broadcast

    fn propose(&mut self, records: Vec<LogRecord>) {
        let mut last = self.last_proposed;
        for record in &records {
            if self.stage < Stage::Broadcast || record.zxid.epoch() != self.epoch || !follows(last, record.zxid) {
                let zxid = record.zxid;
                return self.end(format!("transaction {zxid} was made behind {last} in epoch {:x}: a bug", self.epoch));
            }
            last = record.zxid;
        }
        let Some(first) = records.first().map(|record| record.zxid) else { return };
        for (link, learner) in self.learners.iter_mut().filter(|(_, l)| l.is_forwarding() && !l.observer) {
            let sends = records.iter().map(|r| Effect::Send { link: *link, packet: proposal_packet(r) });
            self.effects.extend(sends);
            if learner.phase == Phase::UpToDate {
                learner.unacked.get_or_insert((first, self.now_ms));
            }
        }
        self.last_proposed = last;
        self.outstanding.extend(records.into_iter().map(|record| Proposal { record, acks: BTreeSet::new() }));
    }

    fn on_ack(&mut self, link: LinkId, zxid: Zxid) {
        let epoch_start = self.epoch_start();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if zxid.counter() != 0 {
            return self.on_proposal_ack(link, zxid);
        }
        match learner.phase {
            Phase::NewLeader if zxid != epoch_start => {
                self.close(link, format!("it acknowledged epoch {:x} instead of {:x}", zxid.epoch(), self.epoch));
            }
            Phase::NewLeader => {
                learner.phase = Phase::Synced;
                learner.deadline_ms = i64::MAX;
                match self.stage {
                    Stage::Broadcast => self.say_up_to_date(link),
                    _ => self.advance(),
                }
            }
            Phase::UpToDate => self.count(link),
            _ => {}
        }
    }

    fn on_proposal_ack(&mut self, link: LinkId, zxid: Zxid) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if learner.unacked.is_some_and(|(oldest, _)| oldest <= zxid) {
            // The oldest of those that are left is not known; from now on the newest must come in time.
            learner.unacked = (zxid < self.last_proposed).then_some((self.last_proposed, self.now_ms));
        }
        if !learner.voter {
            return;
        }
        let (server, counts) = (learner.server, learner.counts);
        let beyond_uptodate = learner.phase == Phase::UpToDate && zxid > learner.proposed_at_uptodate;
        let Some(proposal) = find(&mut self.outstanding, zxid) else { return };
        if counts {
            proposal.acks.insert(server);
            return;
        }
        learner.early_acks.insert(zxid);
        if beyond_uptodate {
            self.count(link);
        }
    }

    /// From now on the learner's ACKs count, also those that it sent before.
    fn count(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.counts = true;
        for zxid in std::mem::take(&mut learner.early_acks) {
            if let Some(proposal) = find(&mut self.outstanding, zxid) {
                proposal.acks.insert(learner.server);
            }
        }
    }

    /// Commits, in order, what a quorum has.
    fn commit(&mut self) {
        let before = self.committed;
        while let Some(proposal) = self.outstanding.front_mut() {
            if proposal.record.zxid <= self.durable {
                proposal.acks.insert(self.my_id);
            }
            if !self.configs.is_quorum(&proposal.acks) {
                break;
            }
            let Some(Proposal { record, .. }) = self.outstanding.pop_front() else { break };
            let zxid = record.zxid;
            for (link, learner) in self.learners.iter().filter(|(_, learner)| learner.is_forwarding()) {
                let packet = match (learner.observer, learner.phase) {
                    (true, _) => Packet::Inform { zxid, payload: record.payload.clone() },
                    (false, Phase::UpToDate) => Packet::Commit { zxid },
                    (false, _) => continue,
                };
                self.effects.push(Effect::Send { link: *link, packet });
            }
            self.committed = zxid;
            self.history.push(record);
        }
        if self.committed > before {
            self.tell_pipeline(ToPipeline::Committed { zxid: self.committed });
            self.drop_laggards();
        }
    }

    /// Learners for which too much is kept start again.
    fn drop_laggards(&mut self) {
        while self.history.bytes() > PINNED_BYTES_MAX {
            let pinning = self.learners.iter().filter_map(|(link, learner)| Some((learner.pins()?, *link)));
            let Some((_, link)) = pinning.min() else { return };
            self.close(link, format!("{} bytes were committed since its synchronization began", self.history.bytes()));
        }
    }

    fn answer_syncs(&mut self) {
        while let Some((after, link)) = self.syncs.front().copied()
            && after <= self.committed
        {
            self.syncs.pop_front();
            self.send_if_there(link, Packet::Sync);
        }
    }

    fn ping(&mut self) {
        let now_ms = self.now_ms;
        let half_tick_ms = (self.timing.tick_ms / 2).max(1);
        self.next_ping_ms = (self.next_ping_ms + half_tick_ms).max(now_ms + 1);
        self.ping_is_tick = !self.ping_is_tick;
        if !self.ping_is_tick && self.stage == Stage::Broadcast {
            let alive = self.learners.values().filter(|l| l.voter && now_ms < l.alive_until_ms);
            let mut alive: BTreeSet<ServerId> = alive.map(|learner| learner.server).collect();
            alive.insert(self.my_id);
            if !self.configs.is_quorum(&alive) {
                let alive: Vec<String> = alive.iter().map(|server| server.0.to_string()).collect();
                let alive = alive.join(", ");
                return self.end(format!("no quorum was heard of within syncLimit, only {alive}"));
            }
        }
        let sync_ms = self.timing.sync_ms;
        let slow = |(link, learner): (&LinkId, &Learner)| {
            let (zxid, since_ms) = learner.unacked?;
            (now_ms - since_ms >= sync_ms).then_some((*link, zxid))
        };
        for (link, zxid) in self.learners.iter().filter_map(slow).collect::<Vec<_>>() {
            self.close(link, format!("it did not acknowledge {zxid} within syncLimit ({sync_ms} ms)"));
        }
        // Never in front of NEWLEADER: released learners end their process then.
        for (link, _) in self.learners.iter().filter(|(_, learner)| learner.is_forwarding()) {
            let packet = Packet::Ping { zxid: self.last_proposed, touched: Vec::new() };
            self.effects.push(Effect::Send { link: *link, packet });
        }
    }

    // Links

    fn send(&mut self, link: LinkId, packet: Packet) {
        self.effects.push(Effect::Send { link, packet });
    }

    /// An answer of the pipeline; the learner may be gone.
    fn send_if_there(&mut self, link: LinkId, packet: Packet) {
        if self.learners.get(&link).is_some_and(|learner| learner.phase == Phase::UpToDate) {
            self.send(link, packet);
        }
    }

    fn tell_pipeline(&mut self, mail: ToPipeline) {
        self.effects.push(Effect::Pipeline(mail));
    }

    fn close(&mut self, link: LinkId, why: String) {
        if self.learners.contains_key(&link) {
            self.effects.push(Effect::Close { link, why });
            self.forget(link);
        }
    }

    /// A learner that is gone has no voice in what is not committed: it may come back, be cut back to what is, and be
    /// without what it acknowledged.
    fn forget(&mut self, link: LinkId) {
        let Some(learner) = self.learners.remove(&link) else { return };
        if learner.counts {
            for proposal in &mut self.outstanding {
                proposal.acks.remove(&learner.server);
            }
        }
        if matches!(learner.phase, Phase::Snapshot { .. } | Phase::NewLeader | Phase::Synced | Phase::UpToDate) {
            self.tell_pipeline(ToPipeline::LearnerGone { learner: link });
        }
        if learner.pins().is_some() {
            self.pin();
        }
    }

    fn end(&mut self, why: String) {
        self.ended.get_or_insert(why);
    }
}

fn proposal_packet(record: &LogRecord) -> Packet {
    Packet::Proposal { zxid: record.zxid, payload: record.payload.clone() }
}

/// Proposals of one epoch are contiguous, so a zxid is a place.
fn find(outstanding: &mut VecDeque<Proposal>, zxid: Zxid) -> Option<&mut Proposal> {
    let first = outstanding.front()?.record.zxid;
    outstanding.get_mut(usize::try_from(zxid.0.checked_sub(first.0)?).ok()?)
}

/// Whether these records lead from one transaction to another without a gap.
fn joins(from: Zxid, records: &[LogRecord], to: Zxid) -> bool {
    let mut at = from;
    for record in records {
        if !follows(at, record.zxid) {
            return false;
        }
        at = record.zxid;
    }
    at == to
}

/// For the log.
fn waiting_for(phase: Phase) -> &'static str {
    match phase {
        Phase::Connected => "it was to say who it is",
        Phase::Introduced => "it was to wait for the epoch",
        Phase::Invited => "it was to promise the new epoch",
        Phase::Promised => "it was to wait for a quorum of promises",
        Phase::ReadingLog { .. } | Phase::Snapshot { .. } => "it was to be synchronized",
        Phase::NewLeader => "it was to acknowledge NEWLEADER",
        Phase::Synced => "it was to wait for UPTODATE",
        Phase::UpToDate => "it was in broadcast",
    }
}

/// For the log.
fn name_of(packet: &Packet) -> &'static str {
    match packet {
        Packet::Request(_) => "REQUEST",
        Packet::Proposal { .. } => "PROPOSAL",
        Packet::Ack { .. } => "ACK",
        Packet::Commit { .. } => "COMMIT",
        Packet::Ping { .. } => "PING",
        Packet::Revalidate { .. } | Packet::Revalidated { .. } => "REVALIDATE",
        Packet::Sync => "SYNC",
        Packet::Inform { .. } => "INFORM",
        Packet::CommitAndActivate { .. } => "COMMITANDACTIVATE",
        Packet::NewLeader { .. } => "NEWLEADER",
        Packet::LearnerInfo(_) => "FOLLOWERINFO or OBSERVERINFO",
        Packet::UpToDate => "UPTODATE",
        Packet::Diff { .. } => "DIFF",
        Packet::Trunc { .. } => "TRUNC",
        Packet::Snap { .. } => "SNAP",
        Packet::LeaderInfo { .. } => "LEADERINFO",
        Packet::AckEpoch { .. } => "ACKEPOCH",
        Packet::InformAndActivate { .. } => "INFORMANDACTIVATE",
        Packet::Unknown { .. } => "a packet of unknown type",
    }
}
