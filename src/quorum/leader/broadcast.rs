//! The leader proposes, counts ACKs, commits, answers syncs, and finds out who is still there.
//!
//! A released learner takes what it is told for the answer to the oldest request that it passed on, and one that comes out
//! of turn leaves all the later ones unanswered (`CommitProcessor.queuedWriteRequests`). So commits and answers to syncs
//! leave in the order in which the requests came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Leader, Learner, Phase, Proposal, Stage, proposal_packet};
use crate::config::Members;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Synced, ToPipeline};
use crate::memory::Account;
use crate::metrics;
use crate::quorum::committed_log::follows;
use crate::quorum::packet::Packet;
use crate::quorum::transitions::enter;
use crate::quorum::{Effect, LinkId, proposed_members};

impl Leader {
    pub(super) fn propose(&mut self, records: Vec<LogRecord>) {
        let mut last = self.last_proposed;
        for record in &records {
            if self.stage < Stage::Broadcast || record.zxid.epoch() != self.epoch || !follows(last, record.zxid) {
                let zxid = record.zxid;
                return self
                    .end(format!("transaction {zxid} was made behind {last} in epoch {:#x}: a bug", self.epoch));
            }
            last = record.zxid;
        }
        let Some(first) = records.first().map(|record| record.zxid) else { return };
        for members in records.iter().filter_map(|record| proposed_members(&record.payload)) {
            match members.map(|members| self.configs.see(members)) {
                Ok(true) => self.save_configs(),
                Ok(false) => {}
                Err(why) => return self.end(format!("a configuration was made that cannot be read ({why}): a bug")),
            }
        }
        for (link, learner) in self.learners.iter_mut().filter(|(_, l)| l.is_forwarding() && !l.observer) {
            let sends = records.iter().map(|r| Effect::Send { link: *link, packet: proposal_packet(r) });
            self.effects.extend(sends);
            learner.unacked.get_or_insert((first, self.now_ms));
        }
        self.last_proposed = last;
        metrics::PROPOSAL_COUNT.add(records.len() as i64);
        let proposed_ms = self.now_ms;
        let proposals = records.into_iter().map(|record| Proposal { record, acks: BTreeSet::new(), proposed_ms });
        self.outstanding.extend(proposals);
    }

    /// This server's own log has it.
    pub(super) fn on_durable(&mut self, synced: Synced) {
        let zxid = synced.zxid;
        let first = self.outstanding.front().map_or(Zxid::ZERO, |proposal| proposal.record.zxid);
        let known = usize::try_from(self.durable.0 + 1 - first.0).unwrap_or(0);
        for proposal in self.outstanding.iter().skip(known).take_while(|proposal| proposal.record.zxid <= zxid) {
            metrics::PROPOSAL_ACK_CREATION_LATENCY.record(self.now_ms - proposal.proposed_ms);
        }
        self.durable = self.durable.max(zxid);
        self.synced.push(synced);
    }

    pub(super) fn on_ack(&mut self, link: LinkId, zxid: Zxid) {
        let epoch_start = self.epoch_start();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if zxid.counter() != 0 {
            return self.on_proposal_ack(link, zxid);
        }
        match learner.phase {
            Phase::NewLeader if zxid != epoch_start => {
                self.close(link, format!("it acknowledged epoch {:#x} instead of {:#x}", zxid.epoch(), self.epoch));
            }
            Phase::NewLeader => {
                enter(&mut learner.phase, Phase::Synced);
                learner.sync = None;
                learner.deadline_ms = i64::MAX;
                match self.stage {
                    Stage::Broadcast => self.say_up_to_date(link),
                    _ => self.advance(),
                }
            }
            // That of UPTODATE among them: it follows from what comes behind it.
            _ => {}
        }
    }

    fn on_proposal_ack(&mut self, link: LinkId, zxid: Zxid) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if zxid <= self.last_proposed {
            learner.last_acked = learner.last_acked.max(zxid);
        }
        let acked = learner.last_acked;
        if learner.unacked.is_some_and(|(oldest, _)| oldest <= acked) {
            // The oldest of those that are left is not known; from now on the newest must come in time.
            learner.unacked = (acked < self.last_proposed).then_some((self.last_proposed, self.now_ms));
        }
        // Before UPTODATE it was sent nothing that is outstanding.
        if learner.observer || learner.phase != Phase::UpToDate {
            return;
        }
        let server = learner.server;
        let Some(proposal) = find(&mut self.outstanding, zxid) else { return };
        metrics::ACK_LATENCY.record(&server.0.to_string(), self.now_ms - proposal.proposed_ms);
        proposal.acks.insert(server);
    }

    /// Commits, in order, what a quorum has.
    pub(super) fn commit(&mut self) {
        while self.handover.is_none() {
            let before = self.committed;
            let reconfiguration = self.commit_up_to_reconfiguration();
            if self.committed > before {
                let links: Vec<LinkId> = self.learners.keys().copied().collect();
                links.into_iter().for_each(|link| self.tell_commits(link));
                let (at_us, synced) = (self.now_ms * 1000, std::mem::take(&mut self.synced));
                self.tell_pipeline(ToPipeline::Committed { zxid: self.committed, at_us, synced });
                self.drop_laggards();
            }
            let Some((members, successor)) = reconfiguration else { return };
            self.put_in_force(members, successor);
            if self.handover.is_some() {
                // The pipeline proposes nothing more until it hears that this server goes on.
                return;
            }
            let configs = Box::new(self.configs.clone());
            self.tell_pipeline(ToPipeline::Configs(configs));
        }
    }

    /// Stops behind a new configuration, since what a quorum is changes with it. That one is given, and who is to lead.
    fn commit_up_to_reconfiguration(&mut self) -> Option<(Members, ServerId)> {
        while let Some(proposal) = self.outstanding.front_mut() {
            if proposal.record.zxid <= self.durable {
                proposal.acks.insert(self.my_id);
            }
            if !self.configs.is_quorum(&proposal.acks) {
                break;
            }
            let Some(Proposal { record, acks, proposed_ms }) = self.outstanding.pop_front() else { break };
            metrics::QUORUM_ACK_LATENCY.record(self.now_ms - proposed_ms);
            metrics::COMMIT_COUNT.add(1);
            let members = proposed_members(&record.payload).and_then(Result::ok);
            let members = members.filter(|members| members.version > self.configs.committed.version);
            let reconfiguration = members.map(|members| {
                let successor = self.designate(&members, &acks);
                (members, successor)
            });
            self.tell_committed(record, reconfiguration.as_ref().map(|(_, successor)| *successor));
            if reconfiguration.is_some() {
                return reconfiguration;
            }
        }
        None
    }

    /// Everybody hears of a commit, and it belongs to the history. `designated`: it is a configuration, and says who is to
    /// lead by it.
    pub(in crate::quorum) fn tell_committed(&mut self, record: LogRecord, designated: Option<ServerId>) {
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

    /// Tells a follower of the commits that it was not told of.
    pub(super) fn tell_commits(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if learner.observer || learner.phase != Phase::UpToDate {
            return;
        }
        while learner.commits_told < self.committed {
            let zxid = Zxid(learner.commits_told.0 + 1);
            let packet = commit_packet(zxid, &self.activations);
            self.effects.push(Effect::Send { link, packet });
            learner.commits_told = zxid;
            learner.answer_syncs(link, &mut self.effects);
        }
    }

    /// What was committed and proposed since the learner's synchronization began.
    pub(super) fn send_missed(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let missed = self.committed_log.after(learner.commits_told);
        if learner.observer {
            let informs = missed.map(|record| inform_packet(record, &self.activations));
            self.effects.extend(informs.map(|packet| Effect::Send { link, packet }));
        } else {
            let pair = |record: &LogRecord| [proposal_packet(record), commit_packet(record.zxid, &self.activations)];
            let open = self.outstanding.iter().map(|proposal| proposal_packet(&proposal.record));
            self.effects.extend(missed.flat_map(pair).chain(open).map(|packet| Effect::Send { link, packet }));
            // Until all that is taken in, it is still being synchronized.
            let since_ms = self.now_ms + (self.timing.init_ms - self.timing.sync_ms).max(0);
            learner.unacked = (self.last_proposed > learner.commits_told).then_some((self.last_proposed, since_ms));
        }
        learner.commits_told = learner.commits_told.max(self.committed);
        self.pin();
    }

    /// A learner asked for a sync when this was the last proposed.
    pub(super) fn on_sync_ready(&mut self, link: LinkId, after: Zxid) {
        let learner = self.learners.get_mut(&link).filter(|learner| learner.phase == Phase::UpToDate);
        if let Some(learner) = learner {
            learner.syncs.push_back(after);
            learner.answer_syncs(link, &mut self.effects);
        }
    }

    /// Learners for which too much is kept start again.
    pub(in crate::quorum) fn drop_laggards(&mut self) {
        while self.committed_log.bytes() > self.rules.memory.get(Account::PinnedLog) {
            let pinning = self.learners.iter().filter_map(|(link, learner)| Some((learner.pins()?, *link)));
            let Some((_, link)) = pinning.min() else { return };
            self.close(
                link,
                format!("{} bytes were committed since its synchronization began", self.committed_log.bytes()),
            );
        }
    }

    pub(super) fn ping(&mut self) {
        let now_ms = self.now_ms;
        let half_tick_ms = (self.timing.tick_ms / 2).max(1);
        self.next_ping_ms = (self.next_ping_ms + half_tick_ms).max(now_ms + 1);
        self.ping_is_tick = !self.ping_is_tick;
        if !self.ping_is_tick && self.stage == Stage::Broadcast && !self.observers_only {
            // Who is left out stays connected for a while, and carries no quorum.
            let counts = |l: &&Learner| !l.observer && l.phase != Phase::Refused && now_ms < l.alive_until_ms;
            let alive = self.learners.values().filter(counts);
            let mut alive: BTreeSet<ServerId> = alive.map(|learner| learner.server).collect();
            alive.insert(self.my_id);
            if !self.configs.is_quorum(&alive) {
                let alive: Vec<String> = alive.iter().map(|server| server.0.to_string()).collect();
                let alive = alive.join(", ");
                return self.end(format!("no quorum was heard of within syncLimit, only {alive}"));
            }
        }
        if self.stage == Stage::Broadcast && self.is_stalled(half_tick_ms) {
            return;
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
        for (link, learner) in self.learners.iter().filter(|(_, learner)| learner.is_in_step()) {
            let waiting = self.outstanding.iter().rev().take_while(|one| one.record.zxid > learner.last_acked).count();
            metrics::LEARNER_HANDLER_QP_SIZE.record(&learner.server.0.to_string(), waiting as i64);
            let zxid = self.last_proposed;
            let packet = match learner.reach {
                // A follower that takes observers knows nothing of its own.
                Some(_) if !self.observers_only => Packet::TellingPing { zxid, foreign: self.refused.clone() },
                _ => Packet::Ping { zxid, touched: Vec::new() },
            };
            self.effects.push(Effect::Send { link: *link, packet });
        }
    }

    /// Whether the reign ends because nothing is committed any more. Learners that come back and go again keep up the
    /// appearance of a quorum, and so does this server if its own disk hangs; an election clears up who can make one. It is
    /// counted in pings: time in which this server did not run is nobody's fault.
    fn is_stalled(&mut self, half_tick_ms: i64) -> bool {
        let before = std::mem::replace(&mut self.committed_at_ping, self.committed);
        let waits = self.committed == before && self.handover.is_none();
        let Some(oldest) = self.outstanding.front().filter(|_| waits) else {
            self.stalled_pings = 0;
            return false;
        };
        self.stalled_pings += 1;
        let sync_ms = self.timing.sync_ms;
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

fn commit_packet(zxid: Zxid, activations: &BTreeMap<Zxid, ServerId>) -> Packet {
    match activations.get(&zxid) {
        Some(&designated) => Packet::CommitAndActivate { zxid, designated },
        None => Packet::Commit { zxid },
    }
}

fn inform_packet(record: &LogRecord, activations: &BTreeMap<Zxid, ServerId>) -> Packet {
    let (zxid, payload) = (record.zxid, record.payload.clone());
    match activations.get(&zxid) {
        Some(&designated) => Packet::InformAndActivate { zxid, designated, payload },
        None => Packet::Inform { zxid, payload },
    }
}

impl Learner {
    /// Answers the syncs that wait for no later commit than the last one told.
    fn answer_syncs(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        while self.syncs.pop_front_if(|after| *after <= self.commits_told).is_some() {
            effects.push(Effect::Send { link, packet: Packet::Sync });
        }
    }
}

/// Proposals of one epoch are contiguous, so a zxid is a place.
fn find(outstanding: &mut VecDeque<Proposal>, zxid: Zxid) -> Option<&mut Proposal> {
    let first = outstanding.front()?.record.zxid;
    outstanding.get_mut(usize::try_from(zxid.0.checked_sub(first.0)?).ok()?)
}
