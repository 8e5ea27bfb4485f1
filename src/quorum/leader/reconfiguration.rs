//! The members of the ensemble change under the leader: which configuration is in force, and who leads in it
//! (`Leader.getDesignatedLeader`, `QuorumPeer.processReconfig`).

use std::collections::BTreeSet;

use super::{HANDOVER_MS, Handover, Leader, Phase};
use crate::config::Members;
use crate::ids::ServerId;
use crate::mail::ToPipeline;
use crate::quorum::Effect;

impl Leader {
    /// A list of members out of zoo.cfg, which nobody agreed upon yet, gets the start of this epoch for a version. From
    /// then on it wins over the lists of servers that are about to join.
    pub(super) fn propose_first_version(&mut self) {
        if self.master.configs.newest().version != 0 {
            return;
        }
        let mut members = self.master.configs.committed.clone();
        members.version = self.master.epoch_start().0;
        for server in members.servers.values_mut().filter(|server| server.client_is_from_zoo_cfg) {
            // The others are not told of it.
            (server.client, server.client_is_from_zoo_cfg) = (None, false);
        }
        if self.master.configs.see(members) {
            self.save_configs();
        }
    }

    pub(super) fn save_configs(&mut self) {
        self.master.effects.push(Effect::SaveConfigs(Box::new(self.master.configs.clone())));
    }

    /// The configuration is committed.
    pub(super) fn put_in_force(&mut self, members: Members, successor: ServerId) {
        if !self.master.configs.activate(members) {
            return;
        }
        self.save_configs();
        if successor != self.master.my_id {
            self.handover = Some(Handover { to: successor, deadline_ms: self.master.now_ms + HANDOVER_MS });
        }
    }

    /// Who leads under this configuration: this server, if it votes there and is where it was; else one of those who
    /// acknowledged it. They have all that this server has, since nothing is proposed behind it (see
    /// `Pipeline::is_reconfiguring`): whoever leads next refuses those who have more.
    pub(super) fn designate(&self, members: &Members, acks: &BTreeSet<ServerId>) -> ServerId {
        let place = |members: &Members| -> Vec<(String, u16)> {
            members.addresses(self.master.my_id).iter().map(|at| (at.host.clone(), at.quorum_port)).collect()
        };
        if members.is_participant(self.master.my_id) && place(members) == place(&self.master.configs.committed) {
            return self.master.my_id;
        }
        let mut candidates = acks.iter().filter(|id| **id != self.master.my_id && members.is_participant(**id));
        candidates.next().copied().unwrap_or(self.master.my_id)
    }

    /// Who could vote at once in a new configuration.
    pub(super) fn tell_followers(&mut self) {
        if std::mem::take(&mut self.followers_changed) {
            let followers = self.master.learners.values().filter(|l| !l.observer && l.phase == Phase::UpToDate);
            let followers = followers.map(|learner| learner.server).collect();
            self.master.tell_pipeline(ToPipeline::Followers(followers));
        }
    }
}
