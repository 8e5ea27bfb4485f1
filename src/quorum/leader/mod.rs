//! ZAB, the leader's side: finds an epoch, brings learners up to date, broadcasts (`Leader`, `LearnerHandler`). A pure
//! state machine, driven by [`super::peer`]; packets and times in, [`Effect`]s out.
//!
//! A leader goes through its stages once: [`Stage::Discovery`], [`Stage::Promises`], [`Stage::Synchronization`],
//! [`Stage::Broadcast`]. So does each learner through its [`Phase`]s; one that comes late finds the leader ahead and
//! does not wait. What a learner does wrong closes that learner and nothing else.
//!
//! Every learner gets each transaction behind its sync point exactly once and in order: what is committed when it is
//! synchronized in front of NEWLEADER, what was committed or proposed since then behind UPTODATE, later ones as they are
//! proposed. Nothing is between NEWLEADER and UPTODATE, so that a learner keeps no more without a commit than this leader
//! does, however long it takes to get there; and whatever it acknowledges, it acknowledges as one that follows.

mod broadcast;
mod discovery;
mod reconfiguration;
mod synchronization;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use super::committed_log::{CommittedLog, Known};
use super::joint::{ForeignEnds, HistoryEnd, Reach, Relation};
use super::packet::{LearnerInfo, Packet};
use super::transitions::Transitions;
use super::voters::Configs;
use super::{Effect, Epochs, LinkId, LinkPriority, OnLink, PeerRules, Timing, WARNING_PAUSE_MS};
use crate::admin::view::LearnerView;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Synced, ToPipeline, ToQuorum};
use crate::metrics;
use crate::quiet::Quiet;

/// ZAB 1.0, ZooKeeper 3.4 and later.
const PROTOCOL_MIN: i32 = 0x10000;

/// Above, zxids would be negative.
const EPOCH_MAX: u32 = i32::MAX as u32;

/// Elections that a server of the same ensemble can have taken part in while this one was not there.
const EPOCHS_AHEAD_MAX: u32 = 1 << 16;

/// How long learners may take to go to the next leader.
const HANDOVER_MS: i64 = 500;

/// The leader of an ensemble, from the won election until it loses its quorum.
#[derive(Debug)]
pub struct Leader {
    my_id: ServerId,
    /// This is a follower that takes observers: no quorum is its concern, and followers are not taken.
    observers_only: bool,
    configs: Configs,
    rules: PeerRules,
    timing: Timing,
    epochs: Epochs,
    /// The epoch whose history this server held when it was elected.
    history_epoch: u32,
    committed_log: CommittedLog,
    now_ms: i64,
    began_ms: i64,
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
    /// Voters that will not follow: they elected this leader and look for another one, or have a longer history.
    lost: BTreeSet<ServerId>,
    /// Who elected it; nobody, if the leader before named it.
    electors: BTreeSet<ServerId>,
    learners: BTreeMap<LinkId, Learner>,
    /// Proposed and not committed, contiguous.
    outstanding: VecDeque<Proposal>,
    last_proposed: Zxid,
    /// The last committed, the start of the epoch at first.
    committed: Zxid,
    /// What this server's own log has on disk.
    durable: Zxid,
    /// When it got there, as far as the pipeline was not told.
    synced: Vec<Synced>,
    next_ping_ms: i64,
    /// Every second ping is a tick, at which the quorum must be there.
    ping_is_tick: bool,
    /// What was committed at the last ping, and pings in a row at which nothing had been though a quorum should have it.
    committed_at_ping: Zxid,
    stalled_pings: i64,
    /// Reconfigurations committed in this reign, and who was to lead after each.
    activations: BTreeMap<Zxid, ServerId>,
    handover: Option<Handover>,
    /// Where the histories of servers end, as they said on the election port when they began to look.
    heard: BTreeMap<ServerId, HistoryEnd>,
    /// Servers of Apache that were sent back to say that: each once.
    sent_back: BTreeSet<ServerId>,
    /// Members whose histories are not of this ensemble, and when an operator hears of each next.
    foreign: BTreeMap<ServerId, i64>,
    /// Servers of Apache whose histories were found to be foreign, and where those may end: what is proposed here later
    /// reaches the same zxids, and does not make them one.
    refused: ForeignEnds,
    /// Members whose role is another here than there, as far as that was told.
    role_warnings: BTreeMap<ServerId, Quiet>,
    /// The pipeline does not know who follows now.
    followers_changed: bool,
    effects: Vec<Effect>,
    ended: Option<String>,
}

/// Another server is to lead by the configuration that is in force now. This one commits nothing more, and waits until
/// the learners are gone.
#[derive(Clone, Copy, Debug)]
struct Handover {
    to: ServerId,
    deadline_ms: i64,
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
    /// Its history is not of this ensemble; it is held for a while, so that it does not come again at once.
    Refused,
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

impl Transitions for Stage {
    fn may_become(&self, next: &Stage) -> bool {
        use Stage::{Broadcast, Discovery, Promises, Synchronization};
        matches!((self, next), (Discovery, Promises) | (Promises, Synchronization) | (Synchronization, Broadcast))
    }
}

impl Transitions for Phase {
    fn may_become(&self, next: &Phase) -> bool {
        use Phase::{
            Connected, Introduced, Invited, NewLeader, Promised, ReadingLog, Refused, Snapshot, Synced, UpToDate,
        };
        matches!(
            (self, next),
            (Connected, Introduced)
                | (Introduced, Invited | Refused)
                | (Invited, Promised)
                | (Promised, ReadingLog { .. } | Snapshot { begun: false, .. } | NewLeader | Refused)
                | (ReadingLog { .. }, Snapshot { begun: false, .. } | NewLeader | Refused)
                | (Snapshot { begun: false, .. }, Snapshot { begun: true, .. })
                | (Snapshot { begun: true, .. }, NewLeader)
                | (NewLeader, Synced)
                | (Synced, UpToDate)
        )
    }
}

/// How a learner is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sync {
    /// With what it lacks.
    Diff,
    /// With everything.
    Snapshot,
}

/// One connection to the quorum port.
#[derive(Debug)]
struct Learner {
    phase: Phase,
    /// How it is being brought up to date, until it acknowledges NEWLEADER.
    sync: Option<Sync>,
    /// Its synchronization is a snapshot, or was.
    got_snapshot: bool,
    /// Known once it is introduced.
    server: ServerId,
    observer: bool,
    /// It is closed then; `i64::MAX` while it waits for this server.
    deadline_ms: i64,
    /// Until then it counts as there.
    alive_until_ms: i64,
    /// It got more time since it was last heard of, because this server did not listen.
    excused: bool,
    /// Its last logged transaction, as it said; none if it asks for a snapshot.
    last: Zxid,
    /// Where its history ends, as a server of ours says when it connects.
    end: Option<HistoryEnd>,
    /// By what that can be known.
    reach: Option<Box<Reach>>,
    /// How it stands to this server's, as it is told with a snapshot.
    relation: Relation,
    /// The greatest proposal it acknowledged.
    last_acked: Zxid,
    /// The last commit it was told of, by the synchronization or later.
    commits_told: Zxid,
    /// Its syncs that wait until it is told of a commit; ascending, as they were asked for.
    syncs: VecDeque<Zxid>,
    /// A proposal it has not acknowledged, and since when.
    unacked: Option<(Zxid, i64)>,
}

/// A transaction that is not committed.
#[derive(Debug)]
struct Proposal {
    record: LogRecord,
    acks: BTreeSet<ServerId>,
    proposed_ms: i64,
}

impl Learner {
    fn new(now_ms: i64, timing: &Timing) -> Learner {
        Learner {
            phase: Phase::Connected,
            sync: None,
            got_snapshot: false,
            server: ServerId(0),
            observer: false,
            deadline_ms: now_ms + timing.init_ms,
            alive_until_ms: now_ms + timing.init_ms + timing.sync_ms,
            excused: false,
            last: Zxid::ZERO,
            end: None,
            reach: None,
            relation: Relation::Unknown,
            last_acked: Zxid::ZERO,
            commits_told: Zxid::ZERO,
            syncs: VecDeque::new(),
            unacked: None,
        }
    }

    /// Whether it has been sent the history, as of when that began.
    fn is_in_step(&self) -> bool {
        matches!(self.phase, Phase::NewLeader | Phase::Synced | Phase::UpToDate)
    }

    /// Whether it was told to go on from, or to give up, what it came with.
    fn sync_began(&self) -> bool {
        self.is_in_step() || matches!(self.phase, Phase::Snapshot { .. })
    }

    /// Whether a snapshot has replaced whatever it came with.
    fn has_whole_state(&self) -> bool {
        self.got_snapshot && self.is_in_step()
    }

    /// Whether transactions are sent to it as they come.
    fn is_forwarding(&self) -> bool {
        self.phase == Phase::UpToDate
    }

    /// For the log.
    fn kind(&self) -> &'static str {
        if self.observer { "observer" } else { "follower" }
    }

    /// What it needs of the history: everything behind this.
    fn pins(&self) -> Option<Zxid> {
        match self.phase {
            Phase::ReadingLog { to, .. } => Some(to),
            Phase::Snapshot { cut, .. } => Some(cut),
            Phase::NewLeader | Phase::Synced => Some(self.commits_told),
            _ => None,
        }
    }
}

impl Leader {
    /// A leader that was just elected. `last` is the last logged transaction, which is applied as well, and durable.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        rules: impl Into<PeerRules>,
        epochs: Epochs,
        mut committed_log: CommittedLog,
        last: Zxid,
        now_ms: i64,
    ) -> Leader {
        if committed_log.last() != last {
            committed_log.reset(last);
        }
        let rules = rules.into();
        let timing = rules.timing;
        let mut leader = Leader {
            my_id,
            observers_only: false,
            configs,
            rules,
            timing,
            epochs,
            history_epoch: epochs.current.max(last.epoch()),
            committed_log,
            now_ms,
            began_ms: now_ms,
            stage: Stage::Discovery,
            stage_deadline_ms: now_ms + timing.init_ms,
            epoch: 0,
            accepted_max: epochs.accepted.max(last.epoch()),
            reported: BTreeSet::from([my_id]),
            promised: BTreeSet::from([my_id]),
            lost: BTreeSet::new(),
            electors: BTreeSet::new(),
            learners: BTreeMap::new(),
            outstanding: VecDeque::new(),
            last_proposed: last,
            committed: last,
            durable: last,
            synced: Vec::new(),
            next_ping_ms: now_ms + (timing.tick_ms / 2).max(1),
            ping_is_tick: false,
            committed_at_ping: last,
            stalled_pings: 0,
            activations: BTreeMap::new(),
            handover: None,
            heard: BTreeMap::new(),
            foreign: BTreeMap::new(),
            sent_back: BTreeSet::new(),
            refused: ForeignEnds::new(),
            role_warnings: BTreeMap::new(),
            followers_changed: false,
            effects: vec![Effect::Listen(true)],
            ended: None,
        };
        leader.advance();
        leader
    }

    /// A follower's part of this: observers are brought up to date with what the follower knows to be committed, and
    /// hear of what is committed after that. Used by [`super::observer_master`].
    pub(super) fn for_observers(
        my_id: ServerId,
        configs: Configs,
        rules: PeerRules,
        epochs: Epochs,
        (committed, known): (Zxid, Known),
        now_ms: i64,
    ) -> Leader {
        let committed_log = CommittedLog::of_bytes(rules.observer_bytes_max, committed, known);
        let mut leader = Leader::new(my_id, configs, rules, epochs, committed_log, committed, now_ms);
        leader.observers_only = true;
        leader.stage = Stage::Broadcast;
        leader.epoch = epochs.current;
        leader.committed = committed.max(leader.epoch_start());
        leader.last_proposed = leader.committed;
        leader.effects = vec![Effect::ListenForObservers];
        leader
    }

    /// What is true after each input, whatever that was.
    ///
    /// # Panics
    /// If it is not: that is a bug, and nothing may be said because of it.
    pub(super) fn invariants(&self) {
        let (committed, proposed) = (self.committed, self.last_proposed);
        assert!(committed <= proposed, "committed {committed}, proposed {proposed}");
        if let (Some(first), Some(last), None) = (self.outstanding.front(), self.outstanding.back(), &self.ended) {
            let (first, last, count) = (first.record.zxid, last.record.zxid, self.outstanding.len());
            assert!(
                first.0 == committed.0 + 1 && last == proposed && last.0 - first.0 + 1 == count as i64,
                "{count} proposals from {first} to {last}, committed {committed}, proposed {proposed}"
            );
        }
    }

    /// Whether this is a connection of a learner.
    pub(super) fn has(&self, link: LinkId) -> bool {
        self.learners.contains_key(&link)
    }

    /// What the configuration says of a learner.
    pub fn priority(&self, link: LinkId) -> LinkPriority {
        let known = self.learners.get(&link).filter(|learner| learner.phase != Phase::Connected);
        match known.map(|learner| learner.server) {
            Some(server) if self.configs.is_voter(server) => LinkPriority::Voter,
            Some(server) if self.configs.is_member(server) => LinkPriority::Observer,
            _ => LinkPriority::Stranger,
        }
    }

    /// The time of the next input, monotonic ms.
    ///
    /// A turn that is late by more than half a tick is so because this server did not run, or had no time. No learner is
    /// judged by time in which it was not listened to: it gets one tick more, in which it is pinged and can answer. Only
    /// once until it is heard of again, for a server that is late all the time has to find out, too, that it is alone.
    pub fn set_time(&mut self, now_ms: i64) {
        let late_ms = now_ms.saturating_sub(self.next_deadline_ms().max(self.now_ms));
        self.now_ms = now_ms;
        if late_ms <= self.timing.tick_ms / 2 {
            return;
        }
        let judged_ms = now_ms + self.timing.tick_ms;
        for learner in self.learners.values_mut().filter(|learner| !learner.excused) {
            learner.excused = true;
            learner.deadline_ms = learner.deadline_ms.max(judged_ms);
            learner.alive_until_ms = learner.alive_until_ms.max(judged_ms);
            if let Some((_, since_ms)) = &mut learner.unacked {
                *since_ms = (*since_ms).max(judged_ms - self.timing.sync_ms);
            }
        }
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
        self.on_heard(link);
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.excused = false;
        match (learner.phase, packet) {
            (Phase::Connected, Packet::LearnerInfo(info)) => {
                self.compare_roles(&info);
                self.on_introduced(link, info);
            }
            (Phase::Connected, _) => self.close(
                link,
                "its first packet is neither FOLLOWERINFO nor OBSERVERINFO; if it is a server, one of its lines here or \
                 there may have the two ports swapped"
                    .into(),
            ),
            (Phase::Invited, Packet::AckEpoch { zxid, epoch, reach }) => self.on_promised(link, zxid, epoch, reach),
            (Phase::NewLeader | Phase::Synced | Phase::UpToDate, Packet::Ack { zxid }) => self.on_ack(link, zxid),
            (Phase::UpToDate, Packet::Request(request)) => {
                self.tell_pipeline(ToPipeline::Forwarded { learner: link, request });
            }
            (Phase::UpToDate, Packet::Revalidate { session, timeout_ms }) => {
                metrics::REVALIDATE_COUNT.add(1);
                self.tell_pipeline(ToPipeline::Revalidate { learner: link, session, timeout_ms });
            }
            (Phase::UpToDate, Packet::Ping { touched: sessions, .. }) => {
                if !sessions.is_empty() {
                    self.tell_pipeline(ToPipeline::Touched { sessions });
                }
            }
            // An answer to a ping that was sent before UPTODATE.
            (Phase::NewLeader | Phase::Synced, Packet::Ping { .. }) => {}
            (Phase::UpToDate, Packet::Unknown { .. }) | (Phase::Refused, _) => {}
            (phase, packet) => {
                let kind = packet.name();
                self.close(link, format!("it sent {kind} while {}", waiting_for(phase)));
            }
        }
    }

    /// Bytes of a learner came, a whole packet or not: large requests take their time.
    pub fn on_heard(&mut self, link: LinkId) {
        if let Some(learner) = self.learners.get_mut(&link).filter(|learner| learner.phase == Phase::UpToDate) {
            learner.alive_until_ms = self.now_ms + self.timing.sync_ms;
            learner.deadline_ms = learner.alive_until_ms;
        }
    }

    /// Says if the configuration of a learner is not that of this server.
    fn compare_roles(&mut self, info: &LearnerInfo) {
        let Some(server) = info.server else { return };
        let (here, there) = match (self.configs.is_voter(server), self.configs.is_member(server)) {
            (true, _) if info.observer => ("a participant", "an observer"),
            (false, true) if !info.observer => ("an observer", "a participant"),
            _ => return,
        };
        let id = server.0;
        let told = self.role_warnings.entry(server).or_insert_with(|| Quiet::every(WARNING_PAUSE_MS));
        if told.pass(self.now_ms).is_none() {
            return;
        }
        log::warn!("server {id} is {here} in the configuration of this server and {there} in its own: make them equal");
    }

    /// The servers that have the history.
    pub fn synced(&self) -> impl Iterator<Item = ServerId> {
        let synced = self.learners.values().filter(|learner| matches!(learner.phase, Phase::Synced | Phase::UpToDate));
        synced.map(|learner| learner.server)
    }

    /// A voter that elected this leader looks, as far as is known for this election's outcome (`Leader.reportLookingSid`).
    pub fn on_voter_looks(&mut self, server: ServerId) {
        let since_ms = self.now_ms - self.began_ms;
        let waited = self.rules.epoch_wait_ms.is_some_and(|wait_ms| since_ms >= wait_ms);
        if self.stage == Stage::Discovery && waited && self.ended.is_none() {
            metrics::QUIT_LEADING_DUE_TO_DISLOYAL_VOTER.add(1);
            self.end(format!(
                "server {}, which elected it, looks again after {since_ms} ms without an epoch",
                server.0
            ));
        }
    }

    /// These have elected it.
    pub fn elected_by(&mut self, electors: &BTreeSet<ServerId>) {
        self.electors.clone_from(electors);
    }

    /// A voter that elected this leader has left it, and looks for another one: it may have refused this history.
    pub fn on_voter_lost(&mut self, server: ServerId) {
        self.lose(
            server,
            format!(
                "server {}, which elected it, has left it, and the rest is no quorum; if it did not take this server's \
                 history, its log says why",
                server.0
            ),
        );
    }

    /// A voter will not follow. If those who elected this leader or have come since are no quorum without it, there will
    /// hardly be one: nobody joins a leader that no quorum follows. To wait for initLimit would only keep this server from
    /// the next election.
    fn lose(&mut self, server: ServerId, why: String) {
        if self.stage == Stage::Broadcast || self.ended.is_some() {
            return;
        }
        self.lost.insert(server);
        let here = self.learners.values().filter(|learner| learner.phase != Phase::Connected);
        let here = here.map(|learner| learner.server).chain([self.my_id]);
        let mut rest: BTreeSet<ServerId> = here.chain(self.electors.iter().copied()).collect();
        rest.retain(|server| !self.lost.contains(server));
        if !self.configs.is_quorum(&rest) {
            self.end(why);
        }
    }

    /// A server began to look, with a history that ends there. Servers of Apache say so nowhere else.
    pub fn on_history_heard(&mut self, server: ServerId, end: HistoryEnd) {
        self.heard.insert(server, end);
        if self.refused.get(&server).is_some_and(|ends| !ends.may_be(end)) {
            // Its data were exchanged: whether it is taken is looked at anew.
            self.refused.remove(&server);
        }
    }

    /// Histories that this server refused in an earlier reign.
    pub fn refuse_histories(&mut self, refused: ForeignEnds) {
        self.refused = refused;
    }

    /// Those that it refuses now.
    pub fn refused_histories(&self) -> &ForeignEnds {
        &self.refused
    }

    /// The same for the next reign.
    pub fn take_refused_histories(&mut self) -> ForeignEnds {
        mem::take(&mut self.refused)
    }

    /// The connection is gone.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.forget(link, "its connection ended");
    }

    /// What the pipeline and the log have to say.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        if self.ended.is_some() {
            return;
        }
        match mail {
            ToQuorum::Proposed(records) => self.propose(records),
            ToQuorum::Durable { zxid, at_us } => self.on_durable(Synced { zxid, at_us }),
            ToQuorum::Revalidated { learner, session, valid } => {
                self.send_if_there(learner, Packet::Revalidated { session, valid });
            }
            ToQuorum::SyncReady { learner, after } => self.on_sync_ready(learner, after),
            ToQuorum::Snapshot { learner, zxid, bytes, last } => self.on_snapshot_piece(learner, zxid, bytes, last),
            ToQuorum::EpochExhausted => {
                let epoch = self.epoch;
                self.end(format!("the zxids of epoch {epoch:#x} are used up; an election begins the next one"));
            }
            ToQuorum::Forward(_)
            | ToQuorum::Revalidate { .. }
            | ToQuorum::Applied { .. }
            | ToQuorum::Joint(_)
            | ToQuorum::CaughtUp
            | ToQuorum::Touched(_)
            | ToQuorum::Forgotten
            | ToQuorum::Installed { .. }
            | ToQuorum::Truncated { .. }
            | ToQuorum::Quiesced { .. }
            | ToQuorum::Stop => {}
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
        if let Some(Handover { to, deadline_ms }) = self.handover
            && self.now_ms >= deadline_ms
        {
            return self.end_handover(to);
        }
        if self.now_ms >= self.next_ping_ms {
            self.close_stalled_snapshots();
            self.ping();
        }
    }

    /// One state is streamed at a time: a learner that takes nothing of it for a tick makes room when others wait.
    fn close_stalled_snapshots(&mut self) {
        let waits = |learner: &Learner| matches!(learner.phase, Phase::Snapshot { begun: false, .. });
        if !self.learners.values().any(waits) {
            return;
        }
        let stalled_ms = self.timing.init_ms - self.timing.tick_ms;
        let stalled = |learner: &Learner| {
            matches!(learner.phase, Phase::Snapshot { begun: true, .. })
                && learner.deadline_ms - self.now_ms < stalled_ms
        };
        let stalled = self.learners.iter().filter(|(_, learner)| stalled(learner)).map(|(link, _)| *link);
        for link in stalled.collect::<Vec<_>>() {
            self.close(link, "it takes nothing of its snapshot, and others wait for theirs".to_string());
        }
    }

    /// When [`Leader::tick`] is to be called, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        if self.ended.is_some() {
            return i64::MAX;
        }
        let stage_ms = if self.stage < Stage::Broadcast { self.stage_deadline_ms } else { i64::MAX };
        let learners_ms = self.learners.values().map(|learner| learner.deadline_ms).min().unwrap_or(i64::MAX);
        let handover_ms = self.handover.map_or(i64::MAX, |handover| handover.deadline_ms);
        self.next_ping_ms.min(stage_ms).min(learners_ms).min(handover_ms)
    }

    /// What is to be done, in order. ACKs are counted here, once for all that came since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        if self.ended.is_none() {
            self.commit();
            self.tell_followers();
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
        self.stage == Stage::Broadcast && self.ended.is_none() && self.handover.is_none()
    }

    /// Who leads next, if this leader has named somebody.
    pub fn successor(&self) -> Option<ServerId> {
        self.handover.map(|handover| handover.to)
    }

    /// Brings the gauges up to date that a leader has.
    pub fn publish(&self) {
        let count = |is_one: fn(&Learner) -> bool| self.learners.values().filter(|l| is_one(l)).count() as i64;
        metrics::LEARNERS.set(count(|learner| learner.phase != Phase::Connected));
        metrics::SYNCED_FOLLOWERS.set(count(|learner| learner.is_in_step() && !learner.observer));
        let followers = self.learners.values().filter(|learner| learner.is_in_step() && !learner.observer);
        let without_vote = followers.filter(|learner| !self.configs.is_voter(learner.server)).count();
        metrics::SYNCED_NON_VOTING_FOLLOWERS.set(without_vote as i64);
        self.publish_observers();
        self.committed_log.publish(self.rules.memory);
        let syncs = self.learners.values().map(|learner| learner.syncs.len());
        metrics::PENDING_SYNCS.set(syncs.sum::<usize>() as i64);
    }

    /// The same where there is no leader any more.
    pub fn publish_none() {
        let gauges = [
            &metrics::LEARNERS,
            &metrics::SYNCED_FOLLOWERS,
            &metrics::SYNCED_NON_VOTING_FOLLOWERS,
            &metrics::SYNCED_OBSERVERS,
            &metrics::PENDING_SYNCS,
        ];
        gauges.into_iter().for_each(|gauge| gauge.set(0));
    }

    /// How far this reign is, as operators are told.
    pub fn stage_text(&self) -> &'static str {
        match self.stage {
            Stage::Discovery | Stage::Promises => "discovery",
            Stage::Synchronization => "synchronization",
            Stage::Broadcast => "broadcast",
        }
    }

    /// Who follows, by id.
    pub fn learner_views(&self, on_link: &OnLink<'_>) -> Vec<LearnerView> {
        let known = self.learners.iter().filter(|(_, learner)| learner.phase != Phase::Connected);
        let view = |(link, learner): (&LinkId, &Learner)| LearnerView {
            id: learner.server,
            link: on_link(*link),
            observer: learner.observer,
            synced: learner.is_in_step(),
            last: learner.last_acked.max(learner.commits_told).max(learner.last),
        };
        let mut views: Vec<LearnerView> = known.map(view).collect();
        views.sort_unstable_by_key(|view| view.id);
        views
    }

    /// The one that a follower has too that takes observers.
    pub(super) fn publish_observers(&self) {
        let observers = self.learners.values().filter(|learner| learner.is_in_step() && learner.observer);
        metrics::SYNCED_OBSERVERS.set(observers.count() as i64);
    }

    /// What is committed, for the next role.
    pub fn committed_log(mut self) -> CommittedLog {
        self.committed_log.pin(None);
        self.committed_log
    }

    fn send(&mut self, link: LinkId, packet: Packet) {
        self.effects.push(Effect::Send { link, packet });
    }

    /// An answer of the pipeline; the learner may be gone.
    pub(super) fn send_if_there(&mut self, link: LinkId, packet: Packet) {
        if self.learners.get(&link).is_some_and(|learner| learner.phase == Phase::UpToDate) {
            self.send(link, packet);
        }
    }

    fn tell_pipeline(&mut self, mail: ToPipeline) {
        self.effects.push(Effect::Pipeline(mail));
    }

    fn close(&mut self, link: LinkId, why: String) {
        if self.learners.contains_key(&link) {
            self.effects.push(Effect::Close { link, why: why.clone() });
            self.forget(link, &why);
        }
    }

    /// A learner that is gone has no voice in what is not committed: it may come back, be cut back to what is, and be
    /// without what it acknowledged.
    fn forget(&mut self, link: LinkId, why: &str) {
        let Some(learner) = self.learners.remove(&link) else { return };
        if learner.phase == Phase::UpToDate {
            log::warn!("lost {} {}: {why}", learner.kind(), learner.server.0);
        }
        if learner.phase == Phase::UpToDate {
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
        self.followers_changed |= learner.phase == Phase::UpToDate && !learner.observer;
        if let Some(Handover { to, .. }) = self.handover
            && self.learners.values().all(|learner| learner.phase != Phase::UpToDate)
        {
            self.end_handover(to);
        }
    }

    fn end_handover(&mut self, to: ServerId) {
        self.end(format!("server {} is to lead by the new configuration", to.0));
    }

    fn end(&mut self, why: String) {
        self.ended.get_or_insert(why);
    }
}

/// For the log.
fn waiting_for(phase: Phase) -> &'static str {
    match phase {
        Phase::Connected => "it was to say who it is",
        Phase::Refused => "its history is of another ensemble",
        Phase::Introduced => "it was to wait for the epoch",
        Phase::Invited => "it was to promise the new epoch",
        Phase::Promised => "it was to wait for a quorum of promises",
        Phase::ReadingLog { .. } | Phase::Snapshot { .. } => "it was to be synchronized",
        Phase::NewLeader => "it was to acknowledge NEWLEADER",
        Phase::Synced => "it was to wait for UPTODATE",
        Phase::UpToDate => "it was in broadcast",
    }
}

fn proposal_packet(record: &LogRecord) -> Packet {
    Packet::Proposal { zxid: record.zxid, payload: record.payload.clone() }
}
