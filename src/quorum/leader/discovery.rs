//! The leader finds its epoch: from the first packet of a learner to a quorum of promises, and from stage to stage.

use std::collections::BTreeSet;

use super::{EPOCH_MAX, Leader, Phase, Stage};
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{Role, ToPipeline};
use crate::quorum::Effect;
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::Reach;
use crate::quorum::packet::LearnerInfo;
use crate::quorum::transitions::enter;

impl Leader {
    pub(super) fn on_introduced(&mut self, link: LinkId, info: LearnerInfo) {
        let server = match self.master.check_info(&info) {
            Ok(server) => server,
            Err(problem) => return self.master.close(link, problem),
        };
        self.lost.remove(&server);
        if !self.master.introduce(link, server, &info) {
            return;
        }
        if self.stage > Stage::Discovery {
            let end = info.history.or(self.master.heard.get(&server).copied());
            if let Some(end) =
                end.filter(|end| self.stage == Stage::Broadcast && end.latest_epoch() > self.master.epoch)
            {
                return self.master.refuse_later_history(link, server, end);
            }
            if self.master.configs.is_voter(server) && info.accepted_epoch > self.master.epoch {
                // It was on its way into an epoch that never began, and can join no earlier one, ever.
                let (promised, epoch) = (info.accepted_epoch, self.master.epoch);
                let why = format!("server {} promised epoch {promised:#x}, later than {epoch:#x}", server.0);
                // By its history it may be one that must not end this reign. Whoever looks for a leader says where that ends.
                if self.stage == Stage::Broadcast && end.is_none() && self.sent_back.insert(server) {
                    return self.master.close(link, format!("{why}, and has not said yet where its history ends"));
                }
                return self.end(format!("{why}; an election begins a later one"));
            }
            return self.master.invite(link);
        }
        self.accepted_max = self.accepted_max.max(info.accepted_epoch);
        // Whoever still observes may be a participant of the configuration that is to follow: quorums pick who counts.
        self.reported.insert(server);
        self.advance();
    }

    pub(super) fn on_promised(&mut self, link: LinkId, zxid: Zxid, epoch: Option<u32>, reach: Option<Box<Reach>>) {
        // What asks for a snapshot has a history all the same.
        let zxid_of_history = reach.as_ref().map_or(zxid, |reach| reach.end.last);
        let Some(server) = self.master.on_promised(link, zxid, reach) else { return };
        // A server that had promised this very epoch before does not promise it again.
        // Nor does the promise of one that does not know its history help to form a quorum.
        if let (Stage::Promises, Some(epoch)) = (self.stage, epoch)
            && zxid != UNTRUSTED
        {
            let own = (self.master.epochs.current, self.master.committed_log.last());
            if (epoch, zxid_of_history) > own {
                let why = format!(
                    "server {} has a longer history (epoch {epoch:#x}, zxid {zxid_of_history}) than this leader (epoch {:#x}, zxid {})",
                    server.0, own.0, own.1
                );
                self.master.close(link, why.clone());
                // The leader before, maybe, which named this one before its history was here.
                return self.lose(server, format!("{why}, and the rest is no quorum"));
            }
            self.promised.insert(server);
        }
        if self.stage > Stage::Promises {
            return self.master.start_sync(link, Some(self.last_proposed));
        }
        self.advance();
    }

    /// Goes on to the next stage as long as a quorum allows it.
    pub(super) fn advance(&mut self) {
        if self.stage < Stage::Broadcast && self.master.now_ms >= self.stage_deadline_ms {
            // Those who answered have given this leader up while it slept.
            return;
        }
        if self.stage == Stage::Discovery && self.master.configs.is_quorum(&self.reported) {
            if self.accepted_max >= EPOCH_MAX {
                return self.end("the epochs are used up; this ensemble needs a new data set".to_string());
            }
            self.master.epoch = self.accepted_max + 1;
            self.master.epochs.accepted = self.master.epoch;
            self.last_proposed = self.master.epoch_start();
            self.propose_first_version();
            self.enter(Stage::Promises, Effect::SetAcceptedEpoch(self.master.epoch));
            self.master.links_in(Phase::Introduced).into_iter().for_each(|link| self.master.invite(link));
        }
        if self.stage == Stage::Promises && self.master.configs.is_quorum(&self.promised) {
            self.master.epochs.current = self.master.epoch;
            self.enter(Stage::Synchronization, Effect::SetCurrentEpoch(self.master.epoch));
            let links = self.master.links_in(Phase::Promised);
            // What one of them found out of another is known before that one is told to forget anything.
            links.iter().for_each(|link| self.master.relate(*link));
            links.into_iter().for_each(|link| self.master.start_sync(link, Some(self.last_proposed)));
        }
        if self.stage == Stage::Synchronization {
            let synced = self.master.learners.values().filter(|learner| learner.phase == Phase::Synced);
            let mut synced: BTreeSet<ServerId> = synced.map(|learner| learner.server).collect();
            synced.insert(self.master.my_id);
            if self.master.configs.is_quorum(&synced) {
                self.master.committed = self.master.epoch_start();
                // Whatever was proposed before is agreed upon now: the quorum has it from NEWLEADER.
                let successor = self.master.configs.last_seen.take().map(|members| {
                    let successor = self.designate(&members, &synced);
                    self.put_in_force(members, successor);
                    successor
                });
                let configs = Box::new(self.master.configs.clone());
                self.master.tell_pipeline(ToPipeline::Configs(configs));
                enter(&mut self.stage, Stage::Broadcast);
                self.master.established = true;
                if successor.is_none_or(|successor| successor == self.master.my_id) {
                    self.master.tell_pipeline(ToPipeline::Role(Role::Leading { epoch: self.master.epoch }));
                }
                self.master.links_in(Phase::Synced).into_iter().for_each(|link| self.say_up_to_date(link));
            }
        }
    }

    fn enter(&mut self, stage: Stage, effect: Effect) {
        enter(&mut self.stage, stage);
        self.stage_deadline_ms = self.master.now_ms + self.master.timing.init_ms;
        self.master.effects.push(effect);
    }
}
