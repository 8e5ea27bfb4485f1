//! ZAB, the leader's side: finds an epoch, brings learners up to date, broadcasts (`Leader`, `LearnerHandler`). A pure
//! state machine, driven by [`super::peer`]; packets and times in, [`Effect`]s out.
//!
//! A leader goes through its stages once: [`Stage::Discovery`], [`Stage::Promises`], [`Stage::Synchronization`],
//! [`Stage::Broadcast`]. So does each learner through its [`Phase`]s; one that comes late finds the leader ahead and
//! does not wait. What a learner does wrong closes that learner and nothing else. What a leader does for its learners
//! alone, whatever epoch, quorum and proposals say, is in [`super::learner_master`].
//!
//! Every learner gets each transaction behind its sync point exactly once and in order: what is committed when it is
//! synchronized in front of NEWLEADER, what was committed or proposed since then behind UPTODATE, later ones as they are
//! proposed. Nothing is between NEWLEADER and UPTODATE, so that a learner keeps no more without a commit than this leader
//! does, however long it takes to get there; and whatever it acknowledges, it acknowledges as one that follows.

mod broadcast;
mod discovery;
mod reconfiguration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use super::committed_log::CommittedLog;
use super::joint::{ForeignEnds, HistoryEnd};
use super::learner_master::{EPOCH_MAX, LearnerHandler, LearnerMaster, Phase, Said};
use super::packet::Packet;
use super::transitions::Transitions;
use super::{Effect, Epochs, LinkId, LinkPriority, LogPart, OnLink, PeerRules};
use crate::admin::view::LearnerView;
use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Synced, ToQuorum};
use crate::metrics;

/// How long learners may take to go to the next leader.
const HANDOVER_MS: i64 = 500;

/// The leader of an ensemble, from the won election until it loses its quorum.
#[derive(Debug)]
pub struct Leader {
    master: LearnerMaster,
    began_ms: i64,
    stage: Stage,
    /// When the stage must be over; does not matter in broadcast.
    stage_deadline_ms: i64,
    /// Discovery: the greatest epoch that any learner promised to join.
    accepted_max: u32,
    /// Voters that said which epoch they had promised, then voters that promised the new one.
    reported: BTreeSet<ServerId>,
    promised: BTreeSet<ServerId>,
    /// Voters that will not follow: they elected this leader and look for another one, or have a longer history.
    lost: BTreeSet<ServerId>,
    /// Who elected it; nobody, if the leader before named it.
    electors: BTreeSet<ServerId>,
    /// Proposed and not committed, contiguous.
    outstanding: VecDeque<Proposal>,
    last_proposed: Zxid,
    /// What this server's own log has on disk.
    durable: Zxid,
    /// When it got there, as far as the pipeline was not told.
    synced: Vec<Synced>,
    /// Every second ping is a tick, at which the quorum must be there.
    ping_is_tick: bool,
    /// What was committed at the last ping, and pings in a row at which nothing had been though a quorum should have it.
    committed_at_ping: Zxid,
    stalled_pings: i64,
    handover: Option<Handover>,
    /// Servers of Apache that were sent back to say where their histories end: each once.
    sent_back: BTreeSet<ServerId>,
    /// The pipeline does not know who follows now.
    followers_changed: bool,
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

impl Transitions for Stage {
    fn may_become(&self, next: &Stage) -> bool {
        use Stage::{Broadcast, Discovery, Promises, Synchronization};
        matches!((self, next), (Discovery, Promises) | (Promises, Synchronization) | (Synchronization, Broadcast))
    }
}

/// A transaction that is not committed.
#[derive(Debug)]
struct Proposal {
    record: LogRecord,
    acks: BTreeSet<ServerId>,
    proposed_ms: i64,
}

impl Leader {
    /// A leader that was just elected. `last` is the last logged transaction, which is applied as well, and durable.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        rules: impl Into<PeerRules>,
        epochs: Epochs,
        committed_log: CommittedLog,
        last: Zxid,
        now_ms: i64,
    ) -> Leader {
        let mut master = LearnerMaster::new(my_id, configs, rules.into(), epochs, committed_log, last, now_ms);
        master.effects.push(Effect::Listen(true));
        let stage_deadline_ms = now_ms + master.timing.init_ms;
        let mut leader = Leader {
            master,
            began_ms: now_ms,
            stage: Stage::Discovery,
            stage_deadline_ms,
            accepted_max: epochs.accepted.max(last.epoch()),
            reported: BTreeSet::from([my_id]),
            promised: BTreeSet::from([my_id]),
            lost: BTreeSet::new(),
            electors: BTreeSet::new(),
            outstanding: VecDeque::new(),
            last_proposed: last,
            durable: last,
            synced: Vec::new(),
            ping_is_tick: false,
            committed_at_ping: last,
            stalled_pings: 0,
            handover: None,
            sent_back: BTreeSet::new(),
            followers_changed: false,
            ended: None,
        };
        leader.advance();
        leader
    }

    /// What is true after each input, whatever that was.
    ///
    /// # Panics
    /// If it is not: that is a bug, and nothing may be said because of it.
    pub(super) fn invariants(&self) {
        let (committed, proposed) = (self.master.committed, self.last_proposed);
        assert!(committed <= proposed, "committed {committed}, proposed {proposed}");
        assert!(!self.master.has_gone(), "the ACKs of a learner that is gone still count");
        if let (Some(first), Some(last), None) = (self.outstanding.front(), self.outstanding.back(), &self.ended) {
            let (first, last, count) = (first.record.zxid, last.record.zxid, self.outstanding.len());
            assert!(
                first.0 == committed.0 + 1 && last == proposed && last.0 - first.0 + 1 == count as i64,
                "{count} proposals from {first} to {last}, committed {committed}, proposed {proposed}"
            );
        }
    }

    /// What the configuration says of a learner.
    pub fn priority(&self, link: LinkId) -> LinkPriority {
        self.master.priority(link)
    }

    /// The time of the next input, monotonic ms.
    pub fn set_time(&mut self, now_ms: i64) {
        self.master.set_time(now_ms, self.next_deadline_ms());
    }

    /// Someone connected to the quorum port.
    pub fn on_learner_connected(&mut self, link: LinkId) {
        if self.ended.is_none() {
            self.master.on_learner_connected(link);
        }
    }

    /// A packet of a learner.
    pub fn on_packet(&mut self, link: LinkId, packet: Packet) {
        if self.ended.is_some() {
            return;
        }
        match self.master.on_packet(link, packet) {
            Some(Said::Info(info)) => self.on_introduced(link, info),
            Some(Said::AckEpoch { zxid, epoch, reach }) => self.on_promised(link, zxid, epoch, reach),
            Some(Said::Ack { zxid }) => self.on_ack(link, zxid),
            None => {}
        }
        self.see_who_is_gone();
    }

    /// Bytes of a learner came, a whole packet or not: large requests take their time.
    pub fn on_heard(&mut self, link: LinkId) {
        self.master.on_heard(link);
    }

    /// The kernel took a piece of a learner's snapshot.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        let server = self.master.on_snapshot_sent(link);
        if server.is_some_and(|server| self.master.configs.is_voter(server)) {
            self.stage_deadline_ms = self.master.now_ms + self.master.timing.init_ms;
        }
    }

    /// What [`Effect::ReadLog`] found.
    pub fn on_log_read(&mut self, link: LinkId, part: LogPart) {
        self.master.on_log_read(link, part, Some(self.last_proposed));
        self.see_who_is_gone();
    }

    /// The servers that have the history.
    pub fn synced(&self) -> impl Iterator<Item = ServerId> {
        let synced =
            self.master.learners.values().filter(|learner| matches!(learner.phase, Phase::Synced | Phase::UpToDate));
        synced.map(|learner| learner.server)
    }

    /// A voter that elected this leader looks, as far as is known for this election's outcome (`Leader.reportLookingSid`).
    pub fn on_voter_looks(&mut self, server: ServerId) {
        let since_ms = self.master.now_ms - self.began_ms;
        let waited = self.master.rules.epoch_wait_ms.is_some_and(|wait_ms| since_ms >= wait_ms);
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
        let here = self.master.learners.values().filter(|learner| learner.phase != Phase::Connected);
        let here = here.map(|learner| learner.server).chain([self.master.my_id]);
        let mut rest: BTreeSet<ServerId> = here.chain(self.electors.iter().copied()).collect();
        rest.retain(|server| !self.lost.contains(server));
        if !self.master.configs.is_quorum(&rest) {
            self.end(why);
        }
    }

    /// A server began to look, with a history that ends there. Servers of Apache say so nowhere else.
    pub fn on_history_heard(&mut self, server: ServerId, end: HistoryEnd) {
        self.master.heard.insert(server, end);
        if self.master.refused.get(&server).is_some_and(|ends| !ends.may_be(end)) {
            // Its data were exchanged: whether it is taken is looked at anew.
            self.master.refused.remove(&server);
        }
    }

    /// Histories that this server refused in an earlier reign.
    pub fn refuse_histories(&mut self, refused: ForeignEnds) {
        self.master.refused = refused;
    }

    /// Those that it refuses now.
    pub fn refused_histories(&self) -> &ForeignEnds {
        &self.master.refused
    }

    /// The same for the next reign.
    pub fn take_refused_histories(&mut self) -> ForeignEnds {
        mem::take(&mut self.master.refused)
    }

    /// The connection is gone.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.master.on_link_closed(link);
        self.see_who_is_gone();
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
                self.master.send_if_there(learner, Packet::Revalidated { session, valid });
            }
            ToQuorum::SyncReady { learner, after } => self.master.on_sync_ready(learner, after),
            ToQuorum::Snapshot { learner, zxid, bytes, last } => {
                self.master.on_snapshot_piece(learner, zxid, bytes, last)
            }
            ToQuorum::EpochExhausted => {
                let epoch = self.master.epoch;
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
        self.see_who_is_gone();
    }

    /// Deadlines and pings. Called when [`Leader::next_deadline_ms`] has come, or more often.
    pub fn tick(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if self.stage < Stage::Broadcast && self.master.now_ms >= self.stage_deadline_ms {
            let what = match self.stage {
                Stage::Discovery => "no quorum connected",
                Stage::Promises => "no quorum promised to join the new epoch",
                Stage::Synchronization | Stage::Broadcast => "no quorum was synchronized",
            };
            return self.end(format!("{what} within initLimit ({} ms)", self.master.timing.init_ms));
        }
        self.master.close_late();
        self.see_who_is_gone();
        if let Some(Handover { to, deadline_ms }) = self.handover
            && self.master.now_ms >= deadline_ms
        {
            return self.end_handover(to);
        }
        if self.master.now_ms >= self.master.next_ping_ms {
            self.master.close_stalled_snapshots();
            self.ping();
            self.see_who_is_gone();
        }
    }

    /// When [`Leader::tick`] is to be called, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        if self.ended.is_some() {
            return i64::MAX;
        }
        let stage_ms = if self.stage < Stage::Broadcast { self.stage_deadline_ms } else { i64::MAX };
        let handover_ms = self.handover.map_or(i64::MAX, |handover| handover.deadline_ms);
        self.master.next_deadline_ms().min(stage_ms).min(handover_ms)
    }

    /// What is to be done, in order. ACKs are counted here, once for all that came since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        if self.ended.is_none() {
            self.commit();
            self.tell_followers();
        }
        std::mem::take(&mut self.master.effects)
    }

    /// Why the reign is over, if it is.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// The epochs as they are on disk now, once the effects are carried out.
    pub fn epochs(&self) -> Epochs {
        self.master.epochs
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
        let count =
            |is_one: fn(&LearnerHandler) -> bool| self.master.learners.values().filter(|l| is_one(l)).count() as i64;
        metrics::LEARNERS.set(count(|learner| learner.phase != Phase::Connected));
        metrics::SYNCED_FOLLOWERS.set(count(|learner| learner.is_in_step() && !learner.observer));
        let followers = self.master.learners.values().filter(|learner| learner.is_in_step() && !learner.observer);
        let without_vote = followers.filter(|learner| !self.master.configs.is_voter(learner.server)).count();
        metrics::SYNCED_NON_VOTING_FOLLOWERS.set(without_vote as i64);
        self.master.publish_observers();
        self.master.committed_log.publish(self.master.rules.memory);
        let syncs = self.master.learners.values().map(|learner| learner.syncs.len());
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
        self.master.learner_views(on_link)
    }

    /// What is committed, for the next role.
    pub fn committed_log(mut self) -> CommittedLog {
        self.master.committed_log.pin(None);
        self.master.committed_log
    }

    /// A learner that is gone has no voice in what is not committed: it may come back, be cut back to what is, and be
    /// without what it acknowledged.
    fn see_who_is_gone(&mut self) {
        let gone = self.master.take_gone();
        if gone.is_empty() {
            return;
        }
        for learner in gone.iter().filter(|learner| learner.phase == Phase::UpToDate) {
            for proposal in &mut self.outstanding {
                proposal.acks.remove(&learner.server);
            }
            self.followers_changed |= !learner.observer;
        }
        if let Some(Handover { to, .. }) = self.handover
            && self.master.learners.values().all(|learner| learner.phase != Phase::UpToDate)
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
