//! One learner is brought up to date: DIFF, TRUNC or SNAP, what follows, NEWLEADER and UPTODATE.

use super::{LearnerHandler, LearnerMaster, Phase, Sync, inform_packet};
use crate::config::Members;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{LogRecord, ToPipeline};
use crate::metrics;
use crate::quorum::committed_log::{Plan, follows};
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::{Reach, Relation, Told, Witness};
use crate::quorum::packet::Packet;
use crate::quorum::transitions::enter;
use crate::quorum::{Effect, LogPart};

impl LearnerMaster {
    /// The kernel took a piece of a learner's snapshot: of this one, if it still gets one.
    pub fn on_snapshot_sent(&mut self, link: LinkId) -> Option<ServerId> {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        // The last pieces leave after NEWLEADER was queued behind them.
        let takes = |learner: &&mut LearnerHandler| matches!(learner.phase, Phase::Snapshot { .. } | Phase::NewLeader);
        let learner = self.learners.get_mut(&link).filter(takes)?;
        learner.deadline_ms = deadline_ms;
        let server = learner.server;
        self.tell_pipeline(ToPipeline::SnapshotPieceSent { learner: link });
        Some(server)
    }

    /// What [`Effect::ReadLog`] found. `proposed` as in [`LearnerMaster::start_sync`].
    pub fn on_log_read(&mut self, link: LinkId, part: LogPart, proposed: Option<Zxid>) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let Phase::ReadingLog { from, to } = learner.phase else { return };
        let agrees = match (&learner.reach, &part.joint) {
            // A zxid is all that servers of Apache say.
            (None, _) => Some(true),
            (Some(reach), Some(joint)) => {
                reach.witness(from).and_then(|theirs| Witness::of_record(joint).agrees(&theirs))
            }
            (Some(_), None) => None,
        };
        learner.relation = match (agrees, &part.joint) {
            (Some(true), Some(_)) => Relation::Contained,
            (Some(false), _) => Relation::Differs { at: from },
            (Some(true) | None, _) => {
                part.below.as_ref().map_or(Relation::Unknown, |below| parted_at(learner.reach.as_deref(), below))
            }
        };
        let (server, is_ours) = (learner.server, learner.reach.is_some());
        self.hear_of_foreign(link);
        let gets_all = self.gets_all(link);
        match part.records {
            Some(records) if agrees == Some(true) && !gets_all && joins(from, &records, to) => {
                self.send_diff(link, Packet::Diff { zxid: self.committed_log.last() }, records, to);
            }
            None if !is_ours && part.joint.is_none() && self.is_foreign(server, from, proposed) => {
                self.refuse_foreign_history(link, server, from);
            }
            _ => {
                if !is_ours && part.joint.is_none() && part.below.is_some() {
                    self.warn_of_loss(server, from, Plan::Snapshot, proposed);
                }
                self.request_snapshot(link);
            }
        }
    }

    /// Up to here the history of this server is the ensemble's.
    fn processed(&self) -> Zxid {
        if self.established { self.committed } else { self.committed_log.last() }
    }

    /// How a learner's history stands to this one, and what that learner says of others.
    pub fn relate(&mut self, link: LinkId) {
        let processed = self.processed();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.relation =
            learner.reach.as_ref().map_or(Relation::Unknown, |reach| self.committed_log.relation(reach, processed));
        self.hear_of_foreign(link);
    }

    /// Begins to bring a learner up to date that promised the epoch. `proposed`: the last proposed in it, which only the
    /// leader knows. A follower that takes observers may be behind them.
    pub fn start_sync(&mut self, link: LinkId, proposed: Option<Zxid>) {
        self.relate(link);
        let (last, processed) = (self.committed_log.last(), self.processed());
        let Some(learner) = self.learners.get(&link) else { return };
        let (server, learner_last, relation) = (learner.server, learner.last, learner.relation);
        let is_ours = learner.reach.is_some();
        // What a server of ours says of its history counts, also if it asks for a snapshot.
        let end = learner.reach.as_ref().map_or(learner_last, |reach| reach.end.last);
        let unheard = self.unheard_epoch(server).filter(|_| !is_ours && learner_last > Zxid::ZERO);
        let gets_all = self.gets_all(link) || unheard.is_some();
        let plan = match (self.committed_log.plan(end, processed), relation) {
            (_, _) if !is_ours && gets_all => Plan::Snapshot,
            (plan, _) if !is_ours => plan,
            (plan @ Plan::Diff { .. }, Relation::Contained) if !gets_all => plan,
            (_, Relation::Parted { at }) if !gets_all => Plan::Trunc { to: at },
            // Only the log can tell whether the histories are one.
            (plan @ Plan::Log { .. }, Relation::Unknown) => plan,
            // Nothing to compare, or another history.
            _ => Plan::Snapshot,
        };
        let forgets = matches!(plan, Plan::Trunc { .. } | Plan::Snapshot);
        if !is_ours {
            let was_refused = self.refused.get(&server).is_some_and(|ends| ends.contains(learner_last));
            if was_refused || (forgets && self.is_foreign(server, learner_last, proposed)) {
                return self.refuse_foreign_history(link, server, learner_last);
            }
            // It comes with another history, or with none.
            self.refused.remove(&server);
            self.foreign.remove(&server);
            if let Some(epoch) = unheard {
                log::warn!(
                    "server {} comes with a history of epoch {epoch:#x}, up to {learner_last}, in which none took part of \
                     those who elected this leader: by its zxids nothing is known of it, and it gets a snapshot. If a \
                     majority lost its data, this was the only copy: its logs stay in its version-2 folder until it purges \
                     them",
                    server.0
                );
            }
            if plan != Plan::Snapshot || self.committed_log.lacks(learner_last) {
                self.warn_of_loss(server, learner_last, plan, proposed);
            }
        } else {
            // It is compared: what an Apache server in its place had is over.
            self.refused.remove(&server);
        }
        match plan {
            Plan::Diff { after } => {
                let zxid = if learner_last == processed { processed } else { last };
                self.send_diff(link, Packet::Diff { zxid }, Vec::new(), after);
            }
            Plan::Trunc { to } => self.send_diff(link, Packet::Trunc { zxid: to }, Vec::new(), to),
            // Reading the log keeps everybody waiting: that is for members.
            Plan::Log { .. } if !self.configs.is_member(server) => self.request_snapshot(link),
            Plan::Log { from, to } => {
                if let Some(learner) = self.learners.get_mut(&link) {
                    enter(&mut learner.phase, Phase::ReadingLog { from, to });
                }
                self.pin();
                self.effects.push(Effect::ReadLog { link, from, to });
            }
            Plan::Snapshot => self.request_snapshot(link),
        }
    }

    /// Whether a snapshot is all that a learner gets: it asks for one, or everybody gets one.
    fn gets_all(&self, link: LinkId) -> bool {
        let asks =
            |learner: &LearnerHandler| learner.reach.as_ref().is_some_and(|reach| reach.end.last != learner.last);
        self.rules.always_snapshot || self.learners.get(&link).is_some_and(asks)
    }

    /// The epoch of a server's history, as it said when it began to look, if it is none of the histories that this leader was
    /// elected with, nor of this reign. Its leader may have ended before a quorum had it; or the epochs are others, and so
    /// is what has the same zxids.
    fn unheard_epoch(&self, server: ServerId) -> Option<u32> {
        let epoch = self.heard.get(&server)?.epoch;
        (epoch > self.history_epoch && epoch < self.epoch).then_some(epoch)
    }

    /// Whether a server of Apache would forget what no election of this ensemble passed over. Its last zxid is all that it
    /// says; that proves so much:
    ///
    /// - All of epoch 0 was acknowledged by a server alone.
    /// - Nothing is proposed in an epoch before a quorum has joined it, and of each quorum one had a voice in the election
    ///   of this leader, whose history is of the latest epoch of all of them. So a transaction of a later one is of another
    ///   ensemble, or a majority lost its data.
    /// - In its own epoch nobody but this leader proposes, and it knows up to where.
    /// - A history that is known from its beginning, and has nothing as early, shares nothing.
    ///
    /// What an election does leave, the end of an epoch that was proposed and not agreed upon, is none of these.
    fn is_foreign(&self, server: ServerId, last: Zxid, proposed: Option<Zxid>) -> bool {
        if last <= Zxid::ZERO || last.counter() == 0 {
            return false;
        }
        if last.epoch() == self.epoch {
            return proposed.is_some_and(|proposed| last > proposed);
        }
        let was_alone = self.heard.get(&server).is_none_or(|end| end.epoch == 0);
        last.epoch() > self.history_epoch
            || self.committed_log.begins_behind(last)
            || (last.epoch() == 0 && was_alone && !self.committed_log.continues(last))
    }

    fn warn_of_loss(&self, server: ServerId, theirs: Zxid, plan: Plan, proposed: Option<Zxid>) {
        if let Some(loss) = loss(theirs, self.committed_log.last(), plan).filter(|_| proposed.is_some()) {
            log::warn!("server {} {loss}", server.0);
        }
    }

    /// The learner is brought to `to`, from where the window goes on.
    fn send_diff(&mut self, link: LinkId, first: Packet, records: Vec<LogRecord>, to: Zxid) {
        if !self.begin_sync(link, Sync::Diff) {
            return;
        }
        self.log_sync(link, &first);
        self.send(link, first);
        for record in records {
            self.send_committed(link, record);
        }
        self.finish_sync(link, to);
    }

    fn log_sync(&self, link: LinkId, first: &Packet) {
        let Some(learner) = self.learners.get(&link) else { return };
        let (kind, server, from, to) = (learner.kind(), learner.server.0, learner.last, self.committed_log.last());
        let from = match from {
            UNTRUSTED => "a history that it does not trust".to_owned(),
            from => from.to_string(),
        };
        log::info!("synchronizing {kind} {server} from {from} to {to} with {}", first.name());
    }

    /// The synchronization begins, unless too many are under way; participants are never refused.
    fn begin_sync(&mut self, link: LinkId, sync: Sync) -> bool {
        let running = self.learners.values().filter(|learner| learner.sync == Some(sync)).count();
        let (max, count, inflight) = match sync {
            Sync::Diff => (self.rules.diff_syncs_max, &metrics::DIFF_COUNT, &metrics::INFLIGHT_DIFF_COUNT),
            Sync::Snapshot => (self.rules.snapshot_syncs_max, &metrics::SNAP_COUNT, &metrics::INFLIGHT_SNAP_COUNT),
        };
        let Some(learner) = self.learners.get_mut(&link) else { return false };
        if learner.observer && running >= max {
            self.close(link, format!("{running} others are being synchronized; this observer has to try again"));
            return false;
        }
        learner.sync = Some(sync);
        learner.got_snapshot = sync == Sync::Snapshot;
        count.add(1);
        inflight.record(running as i64 + 1);
        true
    }

    fn request_snapshot(&mut self, link: LinkId) {
        if !self.begin_sync(link, Sync::Snapshot) {
            return;
        }
        let Some(learner) = self.learners.get_mut(&link) else { return };
        // The pipeline has applied what was said to be committed, so the snapshot is not behind this point.
        enter(&mut learner.phase, Phase::Snapshot { cut: self.committed_log.last(), begun: false });
        learner.deadline_ms = self.now_ms + self.timing.init_ms;
        self.pin();
        self.tell_pipeline(ToPipeline::StreamSnapshot { learner: link });
    }

    /// A piece of the pipeline's state for a learner.
    pub fn on_snapshot_piece(&mut self, link: LinkId, zxid: Zxid, bytes: Vec<u8>, last: bool) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let Phase::Snapshot { begun, .. } = learner.phase else { return };
        learner.deadline_ms = deadline_ms;
        if !begun {
            // A cut at the start of the epoch is one in front of its first transaction.
            if zxid < self.committed_log.last() && !self.committed_log.continues(zxid) {
                return self
                    .close(link, format!("its snapshot is as of {zxid}, and what follows is not at hand any more"));
            }
            enter(&mut learner.phase, Phase::Snapshot { cut: zxid, begun: true });
            let established = self.established;
            let told = learner.reach.as_ref().map(|_| Told { relation: learner.relation, established });
            self.pin();
            let first = Packet::Snap { zxid, told };
            self.log_sync(link, &first);
            self.send(link, first);
        }
        self.effects.push(Effect::SendSnapshot { link, bytes });
        if last {
            self.finish_sync(link, zxid);
        }
    }

    /// What was committed behind `after`, and NEWLEADER. What comes later waits for UPTODATE.
    fn finish_sync(&mut self, link: LinkId, after: Zxid) {
        let epoch_start = self.epoch_start();
        let config = self.agreed_members().to_string().into_bytes();
        let deadline_ms = self.now_ms + self.timing.init_ms;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        enter(&mut learner.phase, Phase::NewLeader);
        learner.deadline_ms = deadline_ms;
        learner.commits_told = self.committed_log.last().max(epoch_start);
        for LogRecord { zxid, payload } in self.committed_log.after(after).cloned() {
            self.effects.push(Effect::Send { link, packet: Packet::Proposal { zxid, payload } });
            self.effects.push(Effect::Send { link, packet: Packet::Commit { zxid } });
        }
        let packet = Packet::NewLeader { zxid: epoch_start, config };
        self.effects.push(Effect::Send { link, packet });
        self.pin();
    }

    /// What NEWLEADER says, and UPTODATE puts in force. A list that is proposed follows as any other proposal and is in
    /// force at its commit, never before. Only one that this leader came with is agreed upon by UPTODATE: without a quorum
    /// of it there is none.
    fn agreed_members(&self) -> &Members {
        if self.established { &self.configs.committed } else { self.configs.newest() }
    }

    fn send_committed(&mut self, link: LinkId, record: LogRecord) {
        let zxid = record.zxid;
        self.send(link, Packet::Proposal { zxid, payload: record.payload });
        self.send(link, Packet::Commit { zxid });
    }

    /// The learner serves from here on. An observer gets what it missed; what a follower missed, and what is proposed, is
    /// the leader's to send.
    pub fn say_up_to_date(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        enter(&mut learner.phase, Phase::UpToDate);
        learner.alive_until_ms = self.now_ms + self.timing.sync_ms;
        learner.deadline_ms = learner.alive_until_ms;
        log::info!("{} {} is in sync", learner.kind(), learner.server.0);
        self.effects.push(Effect::Send { link, packet: Packet::UpToDate });
        if learner.observer {
            let missed = self.committed_log.after(learner.commits_told);
            let informs = missed.map(|record| inform_packet(record, &self.activations));
            self.effects.extend(informs.map(|packet| Effect::Send { link, packet }));
            learner.commits_told = learner.commits_told.max(self.committed);
            self.pin();
        }
    }

    /// Keeps of the history what learners in the middle of it need.
    pub fn pin(&mut self) {
        self.committed_log.pin(self.learners.values().filter_map(LearnerHandler::pins).min());
    }
}

/// How a learner's history stands to one that goes on without its last transaction, right behind this record.
fn parted_at(reach: Option<&Reach>, below: &LogRecord) -> Relation {
    let at = below.zxid;
    let theirs = reach.and_then(|reach| reach.witness(at));
    match theirs.and_then(|theirs| Witness::of_record(below).agrees(&theirs)) {
        Some(true) => Relation::Parted { at },
        Some(false) => Relation::Differs { at },
        None => Relation::Absent { below: at },
    }
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

/// What becomes of transactions of a server of Apache that are not in this history. It keeps no copy of what it is told to
/// forget, and the zxids do not tell whether it was ever acknowledged: so the operator hears of it.
fn loss(theirs: Zxid, own: Zxid, plan: Plan) -> Option<String> {
    let becomes = match plan {
        _ if theirs.counter() == 0 => return None,
        Plan::Trunc { to } if to.epoch() < theirs.epoch() => format!(
            "it is told to forget all of its epoch {:#x}, of which there is nothing here, and deletes that",
            theirs.epoch()
        ),
        Plan::Trunc { to } => format!("it is told to forget what is behind {to}, and deletes that"),
        Plan::Snapshot if theirs > own => {
            "it gets a snapshot, which ends earlier. Its logs stay in its version-2 folder, and it may read them again \
             when it restarts"
                .to_owned()
        }
        Plan::Snapshot => {
            "it gets a snapshot, and serves what is in that. Its logs stay in its version-2 folder until it purges them"
                .to_owned()
        }
        Plan::Diff { .. } | Plan::Log { .. } => return None,
    };
    Some(format!(
        "comes with a history up to {theirs}, which this leader's, up to {own}, does not have: {becomes}. An election may \
         have passed over proposals that nobody acknowledged. If a majority lost its data instead, or got an older backup, \
         this was the only copy: keep a backup of that server's version-2 folder from before"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_hears_what_becomes_of_transactions_that_only_a_server_of_apache_has() {
        let z = |epoch: i64, counter: i64| Zxid(epoch << 32 | counter);
        let told = |theirs, plan| loss(theirs, z(4, 2), plan);
        assert_eq!(told(z(4, 0), Plan::Trunc { to: z(3, 9) }), None, "an epoch without transactions");
        assert_eq!(told(z(4, 1), Plan::Diff { after: z(4, 1) }), None);
        for (theirs, plan, words) in [
            (z(4, 9), Plan::Trunc { to: z(4, 2) }, "told to forget what is behind 0x400000002, and deletes that"),
            (z(3, 7), Plan::Trunc { to: z(2, 5) }, "told to forget all of its epoch 0x3"),
            (z(3, 7), Plan::Snapshot, "gets a snapshot, and serves what is in that. Its logs stay"),
            (z(5, 1), Plan::Snapshot, "gets a snapshot, which ends earlier. Its logs stay"),
        ] {
            let text = told(theirs, plan).expect("words");
            let zxids = format!("up to {theirs}, which this leader's, up to 0x400000002, does not have");
            assert!(text.contains(words) && text.contains(&zxids), "{text}");
        }
    }
}
