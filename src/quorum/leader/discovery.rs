//! The leader finds its epoch: from the first packet of a learner to a quorum of promises, and from stage to stage.

use std::collections::BTreeSet;
use std::mem;

use super::{EPOCH_MAX, EPOCHS_AHEAD_MAX, Leader, Learner, PROTOCOL_MIN, Phase, Stage};
use crate::ids::{ServerId, Zxid};
use crate::mail::{Role, ToPipeline};
use crate::quorum::ALARM_PAUSE_MS;
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::{Ends, HistoryEnd, Reach, Relation, choices, give_up_by_hand, note_foreign};
use crate::quorum::packet::{LearnerInfo, Packet};
use crate::quorum::transitions::enter;
use crate::quorum::{Effect, LinkId};

impl Leader {
    pub(super) fn on_introduced(&mut self, link: LinkId, info: LearnerInfo) {
        let committed_version = self.configs.committed.version;
        let problem = match info.server {
            _ if info.protocol < PROTOCOL_MIN => {
                let protocol = info.protocol;
                Some(format!("it speaks a protocol from before ZooKeeper 3.4 ({protocol:#x}); upgrade it"))
            }
            _ if self.observers_only && !info.observer => {
                Some("only observers are taken on this port; followers connect to their leader".to_string())
            }
            None => Some("it does not say which server it is; upgrade it".to_string()),
            Some(ServerId(id)) if id == self.my_id.0 => {
                Some(format!("it says that it is server {id}, which is this one; correct its myid"))
            }
            Some(ServerId(id)) if info.config_version > committed_version => Some(format!(
                "server {id} has a configuration of version {:#x}, activated after {committed_version:#x} here",
                info.config_version
            )),
            Some(ServerId(id)) if info.accepted_epoch > self.plausible_epoch_max() => Some(format!(
                "server {id} says that it promised epoch {:#x}, which no election can have led to from {:#x} here; if \
                 that is true, its data is of another ensemble: remove it",
                info.accepted_epoch, self.epochs.accepted
            )),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            return self.close(link, problem);
        }
        let Some(server) = info.server else { return };
        self.lost.remove(&server);
        if !self.configs.is_member(server) && !self.takes_unlisted(link, server) {
            return self.close(link, format!("server {} is in no list of members", server.0));
        }
        let same = |(_, learner): &(&LinkId, &Learner)| learner.phase != Phase::Connected && learner.server == server;
        if let Some((&older, learner)) = self.learners.iter().find(same) {
            // A server that is part of this epoch and heard of cannot have promised a later one: this is not it. If it is
            // after all, the older connection will soon fall silent.
            if matches!(learner.phase, Phase::Synced | Phase::UpToDate) && info.accepted_epoch > self.epoch {
                let promised = info.accepted_epoch;
                return self
                    .close(link, format!("server {}, said to have promised epoch {promised:#x}, is here", server.0));
            }
            self.close(older, format!("server {} connected again", server.0));
        }
        let Some(learner) = self.learners.get_mut(&link) else { return };
        (learner.server, learner.observer, learner.end) = (server, info.observer, info.history);
        enter(&mut learner.phase, Phase::Introduced);
        learner.deadline_ms = i64::MAX;
        if self.stage > Stage::Discovery {
            let end = info.history.or(self.heard.get(&server).copied());
            if let Some(end) = end.filter(|end| self.stage == Stage::Broadcast && end.latest_epoch() > self.epoch) {
                return self.refuse_later_history(link, server, end);
            }
            if self.configs.is_voter(server) && info.accepted_epoch > self.epoch {
                // It was on its way into an epoch that never began, and can join no earlier one, ever.
                let (promised, epoch) = (info.accepted_epoch, self.epoch);
                let why = format!("server {} promised epoch {promised:#x}, later than {epoch:#x}", server.0);
                // By its history it may be one that must not end this reign. Whoever looks for a leader says where that ends.
                if self.stage == Stage::Broadcast && end.is_none() && self.sent_back.insert(server) {
                    return self.close(link, format!("{why}, and has not said yet where its history ends"));
                }
                return self.end(format!("{why}; an election begins a later one"));
            }
            return self.invite(link);
        }
        self.accepted_max = self.accepted_max.max(info.accepted_epoch);
        // Whoever still observes may be a participant of the configuration that is to follow: quorums pick who counts.
        self.reported.insert(server);
        self.advance();
    }

    /// Whether a server that is in no list is taken. It is sent everything there is, so an operator hears of it. Who is to
    /// join by reconfig comes like this.
    fn takes_unlisted(&mut self, link: LinkId, server: ServerId) -> bool {
        let taken = self.rules.unlisted.unwrap_or(self.configs.reconfig_enabled);
        let id = server.0;
        let what = match taken {
            true => format!(
                "server {id} is in no list of members, and follows without a vote: it is sent all data. If it is not to \
                 join, stop it; allowUnlistedLearners=false keeps such servers out"
            ),
            false => format!(
                "server {id} is in no list of members, and is refused. If it belongs here, list it as server.{id} on this \
                 server, too; allowUnlistedLearners=true lets such servers follow and observe"
            ),
        };
        self.effects.push(Effect::Warn { link, what });
        taken
    }

    /// The last epoch that another server can have promised; what a stranger says of one must not use the epochs up.
    fn plausible_epoch_max(&self) -> u32 {
        self.epochs.accepted.saturating_add(EPOCHS_AHEAD_MAX).min(EPOCH_MAX - 1)
    }

    fn invite(&mut self, link: LinkId) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        if let Some(learner) = self.learners.get_mut(&link) {
            enter(&mut learner.phase, Phase::Invited);
            learner.deadline_ms = deadline_ms;
            self.send(link, Packet::LeaderInfo { epoch: self.epoch, ours: Some(self.refused.clone()) });
        }
    }

    /// A promise of a later epoch may end a reign. A history of one may not: no election can have left this leader a quorum
    /// without it, unless a majority lost its disks. (A leader that lost its quorum to a later one finds that out by its
    /// followers, within syncLimit.)
    fn refuse_later_history(&mut self, link: LinkId, server: ServerId, end: HistoryEnd) {
        let why = format!(
            "server {} has a history of epoch {:#x}, up to {}, later than epoch {:#x}, in which server {} leads a quorum: \
             a majority lost its data, or this server is of another ensemble. {}",
            server.0,
            end.latest_epoch(),
            end.last,
            self.epoch,
            self.my_id.0,
            choices(server, &give_up_by_hand(server))
        );
        let since_ms = self.timing.sync_ms + self.timing.tick_ms;
        let lasts = self.call_operator(server, why, since_ms);
        match self.learners.get_mut(&link) {
            // It learns of the epoch, says the same, and stays away by itself.
            Some(learner) if learner.end.is_some() => self.invite(link),
            _ => {
                if lasts || self.refused.contains_key(&server) {
                    self.refused.insert(server, Ends::at(end));
                }
                self.hold_off(link);
            }
        }
    }

    /// A server of Apache that would have to forget what this ensemble cannot have passed over.
    pub(super) fn refuse_foreign_history(&mut self, link: LinkId, server: ServerId, last: Zxid) {
        if self.configs.is_member(server) && !self.refused.get(&server).is_some_and(|ends| ends.contains(last)) {
            self.refused.insert(server, (last..=last).into());
        }
        let why = format!(
            "server {} comes with a history up to {last} that no election led to and of which nothing is known here, where \
             the history ends at {}: it was a server alone, or of another ensemble, or a majority lost its data. To follow, \
             it would have to forget all of that. {}",
            server.0,
            self.committed_log.last(),
            choices(server, &give_up_by_hand(server))
        );
        self.call_operator(server, why, 0);
        self.hold_off(link);
    }

    /// What a learner found out of servers of Apache holds for all who have its history. One that was taken here before that
    /// was known has another tree than this server, wherever its history ends by now.
    pub(super) fn hear_of_foreign(&mut self, link: LinkId) {
        let Some(learner) = self.learners.get_mut(&link).filter(|learner| self.configs.is_member(learner.server))
        else {
            return;
        };
        let from = learner.server;
        let common = match learner.relation {
            Relation::Contained => Zxid(i64::MAX),
            Relation::Parted { at } => at.next(),
            // The log may tell later.
            Relation::Differs { .. } | Relation::Absent { .. } | Relation::Unknown => return,
        };
        let Some(reach) = learner.reach.as_mut().filter(|reach| !reach.is_empty()) else { return };
        for (server, mut ends) in mem::take(&mut reach.foreign) {
            // Who is left out is remembered: members alone, so that there are few.
            let is_other = server != self.my_id && self.configs.is_member(server);
            if !is_other || !ends.may_be_foreign() || *ends.zxids.start() > common {
                continue;
            }
            let present = self.learners.iter().find(|(_, learner)| {
                learner.server == server && learner.reach.is_none() && learner.phase != Phase::Refused
            });
            let is_outdated = |learner: &Learner| match ends.contains(learner.last) {
                true => learner.has_whole_state(),
                // It came with another history, or with none.
                false => learner.sync_began(),
            };
            if present.is_some_and(|(_, learner)| is_outdated(learner)) {
                continue;
            }
            let taken = present.filter(|(_, learner)| ends.contains(learner.last));
            let taken = taken.map(|(link, learner)| (*link, learner.last, learner.sync_began()));
            if taken.is_some_and(|(_, _, began)| began) {
                ends = (Zxid(1)..=Zxid(self.epoch_start().0 | i64::from(u32::MAX))).into();
            }
            note_foreign(&mut self.refused, server, ends);
            if let Some((link, last, _)) = taken {
                log::warn!(
                    "server {} found out that the history of server {}, which comes with one up to {last}, is another one",
                    from.0,
                    server.0
                );
                self.close(link, "its history is another one than that of this ensemble".to_owned());
            }
        }
    }

    /// Once it has been so for a while, and then at long intervals. Whether it was said now.
    fn call_operator(&mut self, server: ServerId, why: String, after_ms: i64) -> bool {
        if !self.configs.is_member(server) {
            return false;
        }
        let alarm_ms = self.foreign.entry(server).or_insert(self.now_ms + after_ms);
        let is_due = self.now_ms >= *alarm_ms;
        if is_due {
            *alarm_ms = self.now_ms + ALARM_PAUSE_MS;
            self.effects.push(Effect::Alarm(why));
        }
        is_due
    }

    /// The connection stays open for a while, and nothing is said.
    fn hold_off(&mut self, link: LinkId) {
        let deadline_ms = self.now_ms + self.timing.init_ms;
        if let Some(learner) = self.learners.get_mut(&link) {
            enter(&mut learner.phase, Phase::Refused);
            learner.deadline_ms = deadline_ms;
        }
    }

    pub(super) fn on_promised(&mut self, link: LinkId, zxid: Zxid, epoch: Option<u32>, reach: Option<Box<Reach>>) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let server = learner.server;
        // What asks for a snapshot has a history all the same.
        let zxid_of_history = reach.as_ref().map_or(zxid, |reach| reach.end.last);
        learner.reach = reach;
        // A server that had promised this very epoch before does not promise it again.
        // Nor does the promise of one that does not know its history help to form a quorum.
        if let (Stage::Promises, Some(epoch)) = (self.stage, epoch)
            && zxid != UNTRUSTED
        {
            let own = (self.epochs.current, self.committed_log.last());
            if (epoch, zxid_of_history) > own {
                let why = format!(
                    "server {} has a longer history (epoch {epoch:#x}, zxid {zxid_of_history}) than this leader (epoch {:#x}, zxid {})",
                    server.0, own.0, own.1
                );
                self.close(link, why.clone());
                // The leader before, maybe, which named this one before its history was here.
                return self.lose(server, format!("{why}, and the rest is no quorum"));
            }
            self.promised.insert(server);
        }
        learner.last = zxid;
        enter(&mut learner.phase, Phase::Promised);
        learner.deadline_ms = i64::MAX;
        if self.stage > Stage::Promises {
            return self.start_sync(link);
        }
        self.advance();
    }

    /// Goes on to the next stage as long as a quorum allows it.
    pub(super) fn advance(&mut self) {
        if self.stage < Stage::Broadcast && self.now_ms >= self.stage_deadline_ms {
            // Those who answered have given this leader up while it slept.
            return;
        }
        if self.stage == Stage::Discovery && self.configs.is_quorum(&self.reported) {
            if self.accepted_max >= EPOCH_MAX {
                return self.end("the epochs are used up; this ensemble needs a new data set".to_string());
            }
            self.epoch = self.accepted_max + 1;
            self.epochs.accepted = self.epoch;
            self.last_proposed = self.epoch_start();
            self.propose_first_version();
            self.enter(Stage::Promises, Effect::SetAcceptedEpoch(self.epoch));
            self.links_in(Phase::Introduced).into_iter().for_each(|link| self.invite(link));
        }
        if self.stage == Stage::Promises && self.configs.is_quorum(&self.promised) {
            self.epochs.current = self.epoch;
            self.enter(Stage::Synchronization, Effect::SetCurrentEpoch(self.epoch));
            let links = self.links_in(Phase::Promised);
            // What one of them found out of another is known before that one is told to forget anything.
            links.iter().for_each(|link| self.relate(*link));
            links.into_iter().for_each(|link| self.start_sync(link));
        }
        if self.stage == Stage::Synchronization {
            let synced = self.learners.values().filter(|learner| learner.phase == Phase::Synced);
            let mut synced: BTreeSet<ServerId> = synced.map(|learner| learner.server).collect();
            synced.insert(self.my_id);
            if self.configs.is_quorum(&synced) {
                self.committed = self.epoch_start();
                // Whatever was proposed before is agreed upon now: the quorum has it from NEWLEADER.
                let successor = self.configs.last_seen.take().map(|members| {
                    let successor = self.designate(&members, &synced);
                    self.put_in_force(members, successor);
                    successor
                });
                let configs = Box::new(self.configs.clone());
                self.tell_pipeline(ToPipeline::Configs(configs));
                enter(&mut self.stage, Stage::Broadcast);
                if successor.is_none_or(|successor| successor == self.my_id) {
                    self.tell_pipeline(ToPipeline::Role(Role::Leading { epoch: self.epoch }));
                }
                self.links_in(Phase::Synced).into_iter().for_each(|link| self.say_up_to_date(link));
            }
        }
    }

    fn enter(&mut self, stage: Stage, effect: Effect) {
        enter(&mut self.stage, stage);
        self.stage_deadline_ms = self.now_ms + self.timing.init_ms;
        self.effects.push(effect);
    }

    fn links_in(&self, phase: Phase) -> Vec<LinkId> {
        self.learners.iter().filter(|(_, learner)| learner.phase == phase).map(|(link, _)| *link).collect()
    }

    pub(super) fn epoch_start(&self) -> Zxid {
        Zxid(i64::from(self.epoch) << 32)
    }
}
