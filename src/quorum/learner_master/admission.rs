//! Who is taken as a learner, and who is left out: by its configuration, its epoch, or the history that it comes with.

use std::mem;

use super::{EPOCH_MAX, LearnerHandler, LearnerMaster, Phase};
use crate::ids::{ServerId, Zxid};
use crate::quorum::ALARM_PAUSE_MS;
use crate::quorum::joint::{Ends, HistoryEnd, Reach, Relation, choices, give_up_by_hand, note_foreign};
use crate::quorum::packet::{LearnerInfo, Packet};
use crate::quorum::transitions::enter;
use crate::quorum::{Effect, LinkId};

/// Elections that a server of the same ensemble can have taken part in while this one was not there.
const EPOCHS_AHEAD_MAX: u32 = 1 << 16;

impl LearnerMaster {
    /// Who introduces itself, or why that one is not taken.
    pub fn check_info(&self, info: &LearnerInfo) -> Result<ServerId, String> {
        let committed_version = self.configs.committed.version;
        match info.server {
            None => Err("it does not say which server it is; upgrade it".to_string()),
            Some(ServerId(id)) if id == self.my_id.0 => {
                Err(format!("it says that it is server {id}, which is this one; correct its myid"))
            }
            Some(ServerId(id)) if info.config_version > committed_version => Err(format!(
                "server {id} has a configuration of version {:#x}, activated after {committed_version:#x} here",
                info.config_version
            )),
            Some(ServerId(id)) if info.accepted_epoch > self.plausible_epoch_max() => Err(format!(
                "server {id} says that it promised epoch {:#x}, which no election can have led to from {:#x} here; if \
                 that is true, its data is of another ensemble: remove it",
                info.accepted_epoch, self.epochs.accepted
            )),
            Some(server) => Ok(server),
        }
    }

    /// A learner has introduced itself. Whether it is taken; an older connection of the same server is closed then.
    pub fn introduce(&mut self, link: LinkId, server: ServerId, info: &LearnerInfo) -> bool {
        if !self.configs.is_member(server) && !self.takes_unlisted(link, server) {
            self.close(link, format!("server {} is in no list of members", server.0));
            return false;
        }
        let same =
            |(_, learner): &(&LinkId, &LearnerHandler)| learner.phase != Phase::Connected && learner.server == server;
        if let Some((&older, learner)) = self.learners.iter().find(same) {
            // A server that is part of this epoch and heard of cannot have promised a later one: this is not it. If it is
            // after all, the older connection will soon fall silent.
            if matches!(learner.phase, Phase::Synced | Phase::UpToDate) && info.accepted_epoch > self.epoch {
                let promised = info.accepted_epoch;
                self.close(link, format!("server {}, said to have promised epoch {promised:#x}, is here", server.0));
                return false;
            }
            self.close(older, format!("server {} connected again", server.0));
        }
        let Some(learner) = self.learners.get_mut(&link) else { return false };
        (learner.server, learner.observer, learner.end) = (server, info.observer, info.history);
        enter(&mut learner.phase, Phase::Introduced);
        learner.deadline_ms = i64::MAX;
        true
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

    /// Tells a learner of the epoch, which it is to promise.
    pub fn invite(&mut self, link: LinkId) {
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
    pub fn refuse_later_history(&mut self, link: LinkId, server: ServerId, end: HistoryEnd) {
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
    pub fn refuse_foreign_history(&mut self, link: LinkId, server: ServerId, last: Zxid) {
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
    pub fn hear_of_foreign(&mut self, link: LinkId) {
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
            let is_outdated = |learner: &LearnerHandler| match ends.contains(learner.last) {
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

    /// A learner promised the epoch, and waits to be synchronized. Which server it is.
    pub fn on_promised(&mut self, link: LinkId, zxid: Zxid, reach: Option<Box<Reach>>) -> Option<ServerId> {
        let learner = self.learners.get_mut(&link)?;
        (learner.last, learner.reach) = (zxid, reach);
        enter(&mut learner.phase, Phase::Promised);
        learner.deadline_ms = i64::MAX;
        Some(learner.server)
    }
}
