//! What a server does for its learners, whether it leads or is a follower that takes observers (`LearnerMaster`): who they
//! are and how far each is, the committed transactions that bring them up to date, whom it refuses, and what they cost.
//! Pure. Owned and driven by [`super::leader`], which has epoch, quorum and proposals, and by [`super::observer_master`].
//!
//! [`handler`] has one learner, `admission` who is taken, `synchronization` how one is brought up to date.

mod admission;
mod handler;
mod synchronization;

use std::collections::BTreeMap;
use std::mem;

use super::committed_log::CommittedLog;
use super::joint::{ForeignEnds, HistoryEnd, Reach};
use super::packet::{LearnerInfo, PROTOCOL, Packet};
use super::transitions::enter;
use super::{Effect, Epochs, LinkId, LinkPriority, OnLink, PeerRules, Timing, WARNING_PAUSE_MS};
use crate::admin::view::LearnerView;
use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, ToPipeline};
use crate::memory::Account;
use crate::metrics;
use crate::quiet::Quiet;

pub use handler::{LearnerHandler, Phase, commit_packet, proposal_packet};

use handler::{Sync, inform_packet, waiting_for};

/// Above, zxids would be negative.
pub const EPOCH_MAX: u32 = i32::MAX as u32;

/// The learners of one server.
#[derive(Debug)]
pub struct LearnerMaster {
    /// This server.
    pub(super) my_id: ServerId,
    /// The configuration in force, and the one that may follow it.
    pub(super) configs: Configs,
    /// What zoo.cfg says of its part in the ensemble.
    pub(super) rules: PeerRules,
    /// The times in `rules`.
    pub(super) timing: Timing,
    /// The epochs on disk, once the effects are carried out.
    pub(super) epochs: Epochs,
    /// The epoch whose history this server held when it began.
    history_epoch: u32,
    /// The epoch that learners join, 0 until it is found.
    pub(super) epoch: u32,
    /// A quorum has the history.
    pub(super) established: bool,
    /// The last committed transactions, from which learners are brought up to date.
    pub(super) committed_log: CommittedLog,
    /// The last committed, the start of the epoch at first.
    pub(super) committed: Zxid,
    /// Reconfigurations committed in this epoch, and who was to lead after each.
    pub(super) activations: BTreeMap<Zxid, ServerId>,
    /// The time of this input, monotonic.
    pub(super) now_ms: i64,
    /// When the learners are pinged next.
    pub(super) next_ping_ms: i64,
    /// Those that are connected, each with how far it is.
    pub(super) learners: BTreeMap<LinkId, LearnerHandler>,
    /// Those that are gone since the owner last took them.
    gone: Vec<LearnerHandler>,
    /// Where the histories of servers end, as they said on the election port when they began to look. A follower is told of
    /// none.
    pub(super) heard: BTreeMap<ServerId, HistoryEnd>,
    /// Members whose histories are not of this ensemble, and when an operator hears of each next.
    foreign: BTreeMap<ServerId, i64>,
    /// Servers of Apache whose histories were found to be foreign, and where those may end: what is proposed here later
    /// reaches the same zxids, and does not make them one.
    pub(super) refused: ForeignEnds,
    /// Members whose role is another here than there, as far as that was told.
    role_warnings: BTreeMap<ServerId, Quiet>,
    /// What is to be done and was not taken yet, in order.
    pub(super) effects: Vec<Effect>,
}

/// What a learner said that is for the owner to answer.
#[derive(Debug)]
pub enum Said {
    /// Who it is, in a protocol that is spoken here.
    Info(LearnerInfo),
    /// It promised the epoch.
    AckEpoch {
        /// Its last logged transaction.
        zxid: Zxid,
        /// That of its history, unless it had promised this one before.
        epoch: Option<u32>,
        /// What a server of ours says of its history.
        reach: Option<Box<Reach>>,
    },
    /// Everything up to here is durable there.
    Ack {
        /// The start of the epoch for NEWLEADER and UPTODATE.
        zxid: Zxid,
    },
}

impl LearnerMaster {
    /// None yet. `last` is the last transaction of this server's history.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        rules: PeerRules,
        epochs: Epochs,
        mut committed_log: CommittedLog,
        last: Zxid,
        now_ms: i64,
    ) -> LearnerMaster {
        if committed_log.last() != last {
            committed_log.reset(last);
        }
        LearnerMaster {
            my_id,
            configs,
            rules,
            timing: rules.timing,
            epochs,
            history_epoch: epochs.current.max(last.epoch()),
            epoch: 0,
            established: false,
            committed_log,
            committed: last,
            activations: BTreeMap::new(),
            now_ms,
            next_ping_ms: now_ms + (rules.timing.tick_ms / 2).max(1),
            learners: BTreeMap::new(),
            gone: Vec::new(),
            heard: BTreeMap::new(),
            foreign: BTreeMap::new(),
            refused: ForeignEnds::new(),
            role_warnings: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Whether [`LearnerMaster::take_gone`] has any.
    pub fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Those that are gone since this was last asked.
    pub fn take_gone(&mut self) -> Vec<LearnerHandler> {
        mem::take(&mut self.gone)
    }

    /// Whether this is a connection of a learner.
    pub fn has(&self, link: LinkId) -> bool {
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
    pub fn set_time(&mut self, now_ms: i64, next_deadline_ms: i64) {
        let late_ms = now_ms.saturating_sub(next_deadline_ms.max(self.now_ms));
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
        self.learners.insert(link, LearnerHandler::new(self.now_ms, &self.timing));
    }

    /// A packet of a learner. What the owner has to answer is given.
    pub fn on_packet(&mut self, link: LinkId, packet: Packet) -> Option<Said> {
        self.on_heard(link);
        let learner = self.learners.get_mut(&link)?;
        learner.excused = false;
        match (learner.phase, packet) {
            (Phase::Connected, Packet::LearnerInfo(info)) => {
                self.compare_roles(&info);
                if info.protocol >= PROTOCOL {
                    return Some(Said::Info(info));
                }
                let protocol = info.protocol;
                let why = format!("it speaks a protocol from before ZooKeeper 3.4 ({protocol:#x}); upgrade it");
                self.close(link, why);
            }
            (Phase::Connected, _) => self.close(
                link,
                "its first packet is neither FOLLOWERINFO nor OBSERVERINFO; if it is a server, one of its lines here or \
                 there may have the two ports swapped"
                    .into(),
            ),
            (Phase::Invited, Packet::AckEpoch { zxid, epoch, reach }) => return Some(Said::AckEpoch { zxid, epoch, reach }),
            (Phase::NewLeader | Phase::Synced | Phase::UpToDate, Packet::Ack { zxid }) => return Some(Said::Ack { zxid }),
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
        None
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

    /// The connection is gone.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.forget(link, "its connection ended");
    }

    /// One state is streamed at a time: a learner that takes nothing of it for a tick makes room when others wait.
    pub fn close_stalled_snapshots(&mut self) {
        let waits = |learner: &LearnerHandler| matches!(learner.phase, Phase::Snapshot { begun: false, .. });
        if !self.learners.values().any(waits) {
            return;
        }
        let stalled_ms = self.timing.init_ms - self.timing.tick_ms;
        let stalled = |learner: &LearnerHandler| {
            matches!(learner.phase, Phase::Snapshot { begun: true, .. })
                && learner.deadline_ms - self.now_ms < stalled_ms
        };
        let stalled = self.learners.iter().filter(|(_, learner)| stalled(learner)).map(|(link, _)| *link);
        for link in stalled.collect::<Vec<_>>() {
            self.close(link, "it takes nothing of its snapshot, and others wait for theirs".to_string());
        }
    }

    /// Who follows, by id.
    pub fn learner_views(&self, on_link: &OnLink<'_>) -> Vec<LearnerView> {
        let known = self.learners.iter().filter(|(_, learner)| learner.phase != Phase::Connected);
        let view = |(link, learner): (&LinkId, &LearnerHandler)| LearnerView {
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
    pub fn publish_observers(&self) {
        let observers = self.learners.values().filter(|learner| learner.is_in_step() && learner.observer);
        metrics::SYNCED_OBSERVERS.set(observers.count() as i64);
    }

    /// A packet for a learner.
    pub fn send(&mut self, link: LinkId, packet: Packet) {
        self.effects.push(Effect::Send { link, packet });
    }

    /// An answer of the pipeline; the learner may be gone.
    pub fn send_if_there(&mut self, link: LinkId, packet: Packet) {
        if self.learners.get(&link).is_some_and(|learner| learner.phase == Phase::UpToDate) {
            self.send(link, packet);
        }
    }

    /// Mail for the pipeline.
    pub fn tell_pipeline(&mut self, mail: ToPipeline) {
        self.effects.push(Effect::Pipeline(mail));
    }

    /// Closes a connection, if it is there.
    pub fn close(&mut self, link: LinkId, why: String) {
        if self.learners.contains_key(&link) {
            self.effects.push(Effect::Close { link, why: why.clone() });
            self.forget(link, &why);
        }
    }

    fn forget(&mut self, link: LinkId, why: &str) {
        let Some(learner) = self.learners.remove(&link) else { return };
        if learner.phase == Phase::UpToDate {
            log::warn!("lost {} {}: {why}", learner.kind(), learner.server.0);
        }
        if matches!(learner.phase, Phase::Snapshot { .. } | Phase::NewLeader | Phase::Synced | Phase::UpToDate) {
            self.tell_pipeline(ToPipeline::LearnerGone { learner: link });
        }
        if learner.pins().is_some() {
            self.pin();
        }
        self.gone.push(learner);
    }

    /// Everybody hears of a commit, and it belongs to the history. `designated`: it is a configuration, and says who is to
    /// lead by it.
    pub fn tell_committed(&mut self, record: LogRecord, designated: Option<ServerId>) {
        let zxid = record.zxid;
        if let Some(designated) = designated {
            self.activations.insert(zxid, designated);
        }
        for (link, learner) in self.learners.iter_mut().filter(|(_, l)| l.is_forwarding() && l.observer) {
            let packet = inform_packet(&record, &self.activations);
            self.effects.push(Effect::Send { link: *link, packet });
            learner.commits_told = zxid;
            learner.answer_syncs(*link, &mut self.effects);
        }
        self.committed = zxid;
        self.committed_log.commit(record);
    }

    /// A learner asked for a sync when this was the last proposed.
    pub fn on_sync_ready(&mut self, link: LinkId, after: Zxid) {
        let learner = self.learners.get_mut(&link).filter(|learner| learner.phase == Phase::UpToDate);
        if let Some(learner) = learner {
            learner.syncs.push_back(after);
            learner.answer_syncs(link, &mut self.effects);
        }
    }

    /// Learners for which too much is kept start again.
    pub fn drop_laggards(&mut self) {
        while self.committed_log.bytes() > self.rules.memory.get(Account::PinnedLog) {
            let pinning = self.learners.iter().filter_map(|(link, learner)| Some((learner.pins()?, *link)));
            let Some((_, link)) = pinning.min() else { return };
            self.close(
                link,
                format!("{} bytes were committed since its synchronization began", self.committed_log.bytes()),
            );
        }
    }

    /// The connections of those that are in this phase.
    pub fn links_in(&self, phase: Phase) -> Vec<LinkId> {
        self.learners.iter().filter(|(_, learner)| learner.phase == phase).map(|(link, _)| *link).collect()
    }

    /// Behind it the transactions of the epoch begin.
    pub fn epoch_start(&self) -> Zxid {
        Zxid(i64::from(self.epoch) << 32)
    }

    /// Closes those from which nothing came in time.
    pub fn close_late(&mut self) {
        let late = self.learners.iter().filter(|(_, learner)| self.now_ms >= learner.deadline_ms);
        let late: Vec<(LinkId, Phase)> = late.map(|(link, learner)| (*link, learner.phase)).collect();
        for (link, phase) in late {
            self.close(link, format!("nothing came from it in time while {}", waiting_for(phase)));
        }
    }

    /// When something is due for a learner, or the next ping.
    pub fn next_deadline_ms(&self) -> i64 {
        let learners_ms = self.learners.values().map(|learner| learner.deadline_ms).min().unwrap_or(i64::MAX);
        self.next_ping_ms.min(learners_ms)
    }

    /// A ping is due: when the one after it is.
    pub fn schedule_ping(&mut self) {
        self.next_ping_ms = (self.next_ping_ms + self.half_tick_ms()).max(self.now_ms + 1);
    }

    /// The pause between two pings.
    pub fn half_tick_ms(&self) -> i64 {
        (self.timing.tick_ms / 2).max(1)
    }

    /// Pings those that have the history, each with its packet. `waiting`: how many proposals it has not acknowledged.
    pub fn ping(
        &mut self,
        packet: impl Fn(&LearnerHandler, &ForeignEnds) -> Packet,
        waiting: impl Fn(&LearnerHandler) -> usize,
    ) {
        // Never in front of NEWLEADER: released learners end their process then.
        for (link, learner) in self.learners.iter().filter(|(_, learner)| learner.is_in_step()) {
            metrics::LEARNER_HANDLER_QP_SIZE.record(&learner.server.0.to_string(), waiting(learner) as i64);
            let packet = packet(learner, &self.refused);
            self.effects.push(Effect::Send { link: *link, packet });
        }
    }

    /// An ACK came of a learner. Whether it is the one of NEWLEADER.
    pub fn on_new_leader_acked(&mut self, link: LinkId, zxid: Zxid) -> bool {
        let epoch_start = self.epoch_start();
        let Some(learner) = self.learners.get_mut(&link) else { return false };
        match learner.phase {
            Phase::NewLeader if zxid != epoch_start => {
                self.close(link, format!("it acknowledged epoch {:#x} instead of {:#x}", zxid.epoch(), self.epoch));
                false
            }
            Phase::NewLeader => {
                enter(&mut learner.phase, Phase::Synced);
                learner.sync = None;
                learner.deadline_ms = i64::MAX;
                true
            }
            // That of UPTODATE among them: it follows from what comes behind it.
            _ => false,
        }
    }
}
