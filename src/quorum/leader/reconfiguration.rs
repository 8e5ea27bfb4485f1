//! The members of the ensemble change under the leader: which configuration is in force, and who leads in it
//! (`Leader.getDesignatedLeader`, `QuorumPeer.processReconfig`).

use std::collections::BTreeSet;

use super::{HANDOVER_MS, Handover, Leader, Phase};
use crate::config::Members;
use crate::ids::ServerId;
use crate::mail::{LogRecord, ToPipeline};
use crate::quorum::{Effect, proposed_members};

impl Leader {
    /// A list of members out of zoo.cfg, which nobody agreed upon yet, gets the start of this epoch for a version. From
    /// then on it wins over the lists of servers that are about to join.
    pub(super) fn propose_first_version(&mut self) {
        if self.configs.newest().version != 0 {
            return;
        }
        let mut members = self.configs.committed.clone();
        members.version = self.epoch_start().0;
        for server in members.servers.values_mut().filter(|server| server.client_is_from_zoo_cfg) {
            // The others are not told of it.
            (server.client, server.client_is_from_zoo_cfg) = (None, false);
        }
        if self.configs.see(members) {
            self.save_configs();
        }
    }

    pub(super) fn save_configs(&mut self) {
        self.effects.push(Effect::SaveConfigs(Box::new(self.configs.clone())));
    }

    /// The configuration is committed.
    pub(super) fn put_in_force(&mut self, members: Members, successor: ServerId) {
        if !self.configs.activate(members) {
            return;
        }
        self.save_configs();
        if successor != self.my_id {
            self.handover = Some(Handover { to: successor, deadline_ms: self.now_ms + HANDOVER_MS });
        }
    }

    /// A follower that takes observers: its own leader committed a configuration.
    pub(in crate::quorum) fn follow_configuration(&mut self, record: &LogRecord) {
        if let Some(Ok(members)) = proposed_members(&record.payload) {
            self.configs.activate(members);
        }
    }

    /// Who leads under this configuration: this server, if it votes there and is where it was; else one of those who
    /// acknowledged it. They have all that this server has, since nothing is proposed behind it (see
    /// `Pipeline::is_reconfiguring`): whoever leads next refuses those who have more.
    pub(super) fn designate(&self, members: &Members, acks: &BTreeSet<ServerId>) -> ServerId {
        let place = |members: &Members| -> Vec<(String, u16)> {
            members.addresses(self.my_id).iter().map(|at| (at.host.clone(), at.quorum_port)).collect()
        };
        if members.is_participant(self.my_id) && place(members) == place(&self.configs.committed) {
            return self.my_id;
        }
        let mut candidates = acks.iter().filter(|id| **id != self.my_id && members.is_participant(**id));
        candidates.next().copied().unwrap_or(self.my_id)
    }

    /// Who could vote at once in a new configuration.
    pub(super) fn tell_followers(&mut self) {
        if std::mem::take(&mut self.followers_changed) {
            let followers = self.learners.values().filter(|l| !l.observer && l.phase == Phase::UpToDate);
            let followers = followers.map(|learner| learner.server).collect();
            self.tell_pipeline(ToPipeline::Followers(followers));
        }
    }
}
