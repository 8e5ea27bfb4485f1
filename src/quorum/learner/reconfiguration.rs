//! Configurations, as a learner hears of them: proposed, known to the leader, in force.

use super::Learner;
use crate::config::Members;
use crate::ids::{ServerId, Zxid};
use crate::mail::ToPipeline;
use crate::quorum::Effect;
use crate::txn::{Txn, TxnBody};

impl Learner {
    pub(super) fn commit_config(&mut self, zxid: Zxid, designated: ServerId) -> Result<(), String> {
        self.commit(zxid, Some(designated))?;
        let committed = self.to_deliver.last().filter(|txn| txn.header.zxid == zxid);
        let members = committed.map(|txn| self.proposed_members(txn)).transpose()?.flatten();
        if let Some(members) = members {
            if self.is_serving() {
                self.put_in_force(members, Some(designated));
                self.tell_configs();
            } else {
                self.leader_config = Some(members);
            }
        }
        Ok(())
    }

    /// The configuration that a transaction proposes, if such matter.
    pub(super) fn proposed_members(&self, txn: &Txn) -> Result<Option<Members>, String> {
        let TxnBody::Reconfig(set) = &txn.body else { return Ok(None) };
        if !self.configs.reconfig_enabled {
            return Ok(None);
        }
        let members = Members::parse_text(set.data.as_deref().unwrap_or_default());
        members.map(Some).map_err(|why| format!("the configuration in {} cannot be read ({why})", txn.header.zxid))
    }

    pub(super) fn see(&mut self, members: Members) {
        if self.configs.see(members) {
            self.save_configs();
        }
    }

    fn save_configs(&mut self) {
        self.emit(Effect::SaveConfigs(Box::new(self.configs.clone())));
    }

    pub(super) fn tell_configs(&mut self) {
        let configs = Box::new(self.configs.clone());
        self.emit(Effect::Pipeline(ToPipeline::Configs(configs)));
    }

    /// The newest configuration that the leader knows. One that was proposed here under an older leader, and that this
    /// one has not heard of, is not in its history, so it will never be in force.
    pub(super) fn on_leader_config(&mut self, text: &[u8]) -> Result<(), String> {
        let members = Members::parse_text(text).map_err(|why| format!("its configuration cannot be read ({why})"))?;
        let epoch_start = self.epoch_start().0;
        let abandoned = |seen: &mut Members| seen.version > members.version && seen.version < epoch_start;
        if self.configs.last_seen.take_if(abandoned).is_some() {
            self.save_configs();
        }
        self.see(members.clone());
        self.leader_config = Some(members);
        Ok(())
    }

    /// The ensemble agreed. When that changes what this server is, or whom it follows, the role is over.
    pub(super) fn put_in_force(&mut self, members: Members, designated: Option<ServerId>) {
        let before = self.configs.committed.clone();
        if !self.configs.activate(members) {
            return;
        }
        self.save_configs();
        let now = &self.configs.committed;
        let leader_stays = match designated {
            Some(designated) => designated == self.leader,
            None => now.is_participant(self.leader) && before.addresses(self.leader) == now.addresses(self.leader),
        };
        let observes = now.is_observer(self.my_id);
        if leader_stays && observes == self.observer {
            return;
        }
        self.successor = designated;
        self.end(match (leader_stays, observes) {
            (false, _) => "by the new configuration another server is to lead",
            (true, true) => "by the new configuration this server observes",
            (true, false) => "by the new configuration this server votes",
        });
    }
}
