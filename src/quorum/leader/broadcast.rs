//! The leader proposes, counts ACKs, commits, answers syncs, and finds out who is still there.
//!
//! A released learner takes what it is told for the answer to the oldest request that it passed on, and one that comes out
//! of turn leaves all the later ones unanswered (`CommitProcessor.queuedWriteRequests`). So commits and answers to syncs
//! leave in the order in which the requests came.

use std::collections::{BTreeSet, VecDeque};

use super::{Leader, LearnerHandler, Phase, Proposal, Stage};
use crate::config::Members;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{LogRecord, Synced, ToPipeline};
use crate::metrics;
use crate::quorum::committed_log::follows;
use crate::quorum::joint::ForeignEnds;
use crate::quorum::learner_master::{commit_packet, proposal_packet};
use crate::quorum::packet::Packet;
use crate::quorum::{Effect, proposed_members};

impl Leader {
    pub(super) fn propose(&mut self, records: Vec<LogRecord>) {
        let mut last = self.last_proposed;
        for record in &records {
            if self.stage < Stage::Broadcast || record.zxid.epoch() != self.master.epoch || !follows(last, record.zxid)
            {
                let zxid = record.zxid;
                return self.end(format!(
                    "transaction {zxid} was made behind {last} in epoch {:#x}: a bug",
                    self.master.epoch
                ));
            }
            last = record.zxid;
        }
        let Some(first) = records.first().map(|record| record.zxid) else { return };
        for members in records.iter().filter_map(|record| proposed_members(&record.payload)) {
            match members.map(|members| self.master.configs.see(members)) {
                Ok(true) => self.save_configs(),
                Ok(false) => {}
                Err(why) => return self.end(format!("a configuration was made that cannot be read ({why}): a bug")),
            }
        }
        for (link, learner) in self.master.learners.iter_mut().filter(|(_, l)| l.is_forwarding() && !l.observer) {
            let sends = records.iter().map(|r| Effect::Send { link: *link, packet: proposal_packet(r) });
            self.master.effects.extend(sends);
            learner.unacked.get_or_insert((first, self.master.now_ms));
        }
        self.last_proposed = last;
        metrics::PROPOSAL_COUNT.add(records.len() as i64);
        let proposed_ms = self.master.now_ms;
        let proposals = records.into_iter().map(|record| Proposal { record, acks: BTreeSet::new(), proposed_ms });
        self.outstanding.extend(proposals);
    }

    /// This server's own log has it.
    pub(super) fn on_durable(&mut self, synced: Synced) {
        let zxid = synced.zxid;
        let first = self.outstanding.front().map_or(Zxid::ZERO, |proposal| proposal.record.zxid);
        let known = usize::try_from(self.durable.0 + 1 - first.0).unwrap_or(0);
        for proposal in self.outstanding.iter().skip(known).take_while(|proposal| proposal.record.zxid <= zxid) {
            metrics::PROPOSAL_ACK_CREATION_LATENCY.record(self.master.now_ms - proposal.proposed_ms);
        }
        self.durable = self.durable.max(zxid);
        self.synced.push(synced);
    }

    pub(super) fn on_ack(&mut self, link: LinkId, zxid: Zxid) {
        if zxid.counter() != 0 {
            return self.on_proposal_ack(link, zxid);
        }
        if self.master.on_new_leader_acked(link, zxid) {
            match self.stage {
                Stage::Broadcast => self.say_up_to_date(link),
                _ => self.advance(),
            }
        }
    }

    fn on_proposal_ack(&mut self, link: LinkId, zxid: Zxid) {
        let Some(learner) = self.master.learners.get_mut(&link) else { return };
        if zxid <= self.last_proposed {
            learner.last_acked = learner.last_acked.max(zxid);
        }
        let acked = learner.last_acked;
        if learner.unacked.is_some_and(|(oldest, _)| oldest <= acked) {
            // The oldest of those that are left is not known; from now on the newest must come in time.
            learner.unacked = (acked < self.last_proposed).then_some((self.last_proposed, self.master.now_ms));
        }
        // Before UPTODATE it was sent nothing that is outstanding.
        if learner.observer || learner.phase != Phase::UpToDate {
            return;
        }
        let server = learner.server;
        let Some(proposal) = find(&mut self.outstanding, zxid) else { return };
        metrics::ACK_LATENCY.record(&server.0.to_string(), self.master.now_ms - proposal.proposed_ms);
        proposal.acks.insert(server);
    }

    /// Commits, in order, what a quorum has.
    pub(super) fn commit(&mut self) {
        while self.handover.is_none() {
            let before = self.master.committed;
            let reconfiguration = self.commit_up_to_reconfiguration();
            if self.master.committed > before {
                let links: Vec<LinkId> = self.master.learners.keys().copied().collect();
                links.into_iter().for_each(|link| self.tell_commits(link));
                let (at_us, synced) = (self.master.now_ms * 1000, std::mem::take(&mut self.synced));
                self.master.tell_pipeline(ToPipeline::Committed { zxid: self.master.committed, at_us, synced });
                self.master.drop_laggards();
                self.see_who_is_gone();
            }
            let Some((members, successor)) = reconfiguration else { return };
            self.put_in_force(members, successor);
            if self.handover.is_some() {
                // The pipeline proposes nothing more until it hears that this server goes on.
                return;
            }
            let configs = Box::new(self.master.configs.clone());
            self.master.tell_pipeline(ToPipeline::Configs(configs));
        }
    }

    /// Stops behind a new configuration, since what a quorum is changes with it. That one is given, and who is to lead.
    fn commit_up_to_reconfiguration(&mut self) -> Option<(Members, ServerId)> {
        while let Some(proposal) = self.outstanding.front_mut() {
            if proposal.record.zxid <= self.durable {
                proposal.acks.insert(self.master.my_id);
            }
            if !self.master.configs.is_quorum(&proposal.acks) {
                break;
            }
            let Some(Proposal { record, acks, proposed_ms }) = self.outstanding.pop_front() else { break };
            metrics::QUORUM_ACK_LATENCY.record(self.master.now_ms - proposed_ms);
            metrics::COMMIT_COUNT.add(1);
            let members = proposed_members(&record.payload).and_then(Result::ok);
            let members = members.filter(|members| members.version > self.master.configs.committed.version);
            let reconfiguration = members.map(|members| {
                let successor = self.designate(&members, &acks);
                (members, successor)
            });
            self.master.tell_committed(record, reconfiguration.as_ref().map(|(_, successor)| *successor));
            if reconfiguration.is_some() {
                return reconfiguration;
            }
        }
        None
    }

    /// Tells a follower of the commits that it was not told of.
    pub(super) fn tell_commits(&mut self, link: LinkId) {
        let Some(learner) = self.master.learners.get_mut(&link) else { return };
        if learner.observer || learner.phase != Phase::UpToDate {
            return;
        }
        while learner.commits_told < self.master.committed {
            let zxid = Zxid(learner.commits_told.0 + 1);
            let packet = commit_packet(zxid, &self.master.activations);
            self.master.effects.push(Effect::Send { link, packet });
            learner.commits_told = zxid;
            learner.answer_syncs(link, &mut self.master.effects);
        }
    }

    /// The learner serves from here on, and gets what it missed, and what is proposed.
    pub(super) fn say_up_to_date(&mut self, link: LinkId) {
        self.master.say_up_to_date(link);
        let Some(learner) = self.master.learners.get_mut(&link).filter(|learner| !learner.observer) else { return };
        self.followers_changed = true;
        let (committed_log, activations) = (&self.master.committed_log, &self.master.activations);
        let missed = committed_log.after(learner.commits_told);
        let pair = |record: &LogRecord| [proposal_packet(record), commit_packet(record.zxid, activations)];
        let open = self.outstanding.iter().map(|proposal| proposal_packet(&proposal.record));
        let packets = missed.flat_map(pair).chain(open);
        self.master.effects.extend(packets.map(|packet| Effect::Send { link, packet }));
        // Until all that is taken in, it is still being synchronized.
        let since_ms = self.master.now_ms + (self.master.timing.init_ms - self.master.timing.sync_ms).max(0);
        learner.unacked = (self.last_proposed > learner.commits_told).then_some((self.last_proposed, since_ms));
        learner.commits_told = learner.commits_told.max(self.master.committed);
        self.master.pin();
    }

    pub(super) fn ping(&mut self) {
        let now_ms = self.master.now_ms;
        self.master.schedule_ping();
        self.ping_is_tick = !self.ping_is_tick;
        if !self.ping_is_tick && self.stage == Stage::Broadcast {
            // Who is left out stays connected for a while, and carries no quorum.
            let counts = |l: &&LearnerHandler| !l.observer && l.phase != Phase::Refused && now_ms < l.alive_until_ms;
            let alive = self.master.learners.values().filter(counts);
            let mut alive: BTreeSet<ServerId> = alive.map(|learner| learner.server).collect();
            alive.insert(self.master.my_id);
            if !self.master.configs.is_quorum(&alive) {
                let alive: Vec<String> = alive.iter().map(|server| server.0.to_string()).collect();
                let alive = alive.join(", ");
                return self.end(format!("no quorum was heard of within syncLimit, only {alive}"));
            }
        }
        if self.stage == Stage::Broadcast && self.is_stalled(self.master.half_tick_ms()) {
            return;
        }
        let sync_ms = self.master.timing.sync_ms;
        let slow = |(link, learner): (&LinkId, &LearnerHandler)| {
            let (zxid, since_ms) = learner.unacked?;
            (now_ms - since_ms >= sync_ms).then_some((*link, zxid))
        };
        for (link, zxid) in self.master.learners.iter().filter_map(slow).collect::<Vec<_>>() {
            self.master.close(link, format!("it did not acknowledge {zxid} within syncLimit ({sync_ms} ms)"));
        }
        let (zxid, outstanding) = (self.last_proposed, &self.outstanding);
        let packet = |learner: &LearnerHandler, refused: &ForeignEnds| match learner.reach {
            Some(_) => Packet::TellingPing { zxid, foreign: refused.clone() },
            None => Packet::Ping { zxid, touched: Vec::new() },
        };
        let waiting = |learner: &LearnerHandler| {
            outstanding.iter().rev().take_while(|one| one.record.zxid > learner.last_acked).count()
        };
        self.master.ping(packet, waiting);
    }

    /// Whether the reign ends because nothing is committed any more. Learners that come back and go again keep up the
    /// appearance of a quorum, and so does this server if its own disk hangs; an election clears up who can make one. It is
    /// counted in pings: time in which this server did not run is nobody's fault.
    fn is_stalled(&mut self, half_tick_ms: i64) -> bool {
        let before = std::mem::replace(&mut self.committed_at_ping, self.master.committed);
        let waits = self.master.committed == before && self.handover.is_none();
        let Some(oldest) = self.outstanding.front().filter(|_| waits) else {
            self.stalled_pings = 0;
            return false;
        };
        self.stalled_pings += 1;
        let sync_ms = self.master.timing.sync_ms;
        if self.stalled_pings * half_tick_ms <= sync_ms {
            return false;
        }
        let (zxid, count) = (oldest.record.zxid, self.outstanding.len());
        let acks: Vec<String> = oldest.acks.iter().map(|server| server.0.to_string()).collect();
        let acks = if acks.is_empty() { "nobody".to_string() } else { format!("{} only", acks.join(", ")) };
        let why = if zxid <= self.durable {
            "the disks and links of the others are too slow, or they cannot follow"
        } else {
            "this server's own log did not sync it: look at its disk"
        };
        self.end(format!(
            "nothing was committed within syncLimit ({sync_ms} ms): {count} transactions are proposed, the oldest, {zxid}, \
             is acknowledged by {acks}; {why}"
        ));
        true
    }
}

/// Proposals of one epoch are contiguous, so a zxid is a place.
fn find(outstanding: &mut VecDeque<Proposal>, zxid: Zxid) -> Option<&mut Proposal> {
    let first = outstanding.front()?.record.zxid;
    outstanding.get_mut(usize::try_from(zxid.0.checked_sub(first.0)?).ok()?)
}
