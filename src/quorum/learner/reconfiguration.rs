//! Configurations, as a learner hears of them: proposed, known to the leader, in force.

use super::Learner;
use crate::config::Members;
use crate::ids::{ServerId, Zxid};
use crate::mail::ToPipeline;
use crate::quorum::Effect;
use crate::state::State;
use crate::state::path;
use crate::txn::{Txn, TxnBody};

impl Learner {
    pub(super) fn commit_config(&mut self, zxid: Zxid, designated: ServerId) -> Result<(), String> {
        self.commit(zxid, Some(designated))?;
        if !self.is_serving() {
            return Ok(());
        }
        let committed = self.to_deliver.last().filter(|txn| txn.header.zxid == zxid);
        let members = committed.map(|txn| self.proposed_members(txn)).transpose()?.flatten();
        if let Some(members) = members {
            self.put_in_force(members, Some(designated));
            self.tell_configs();
        }
        Ok(())
    }

    /// A transaction was committed before UPTODATE: the configuration that it proposed is in force from then on.
    pub(super) fn note_committed_config(&mut self, txn: &Txn) -> Result<(), String> {
        if let Some(members) = self.proposed_members(txn)? {
            self.agree_on(members);
        }
        Ok(())
    }

    /// The configuration of a state that the leader sent is committed, and it is on disk before that state is: whoever has
    /// a history knows who voted for it.
    pub(super) fn see_config_of(&mut self, state: &State) {
        let tree = state.tree();
        let text = tree.lookup(path::CONFIG).and_then(|id| tree.node(id).data());
        if let Some(Ok(members)) = text.map(Members::parse_text) {
            self.see(members.clone());
            self.agree_on(members);
        }
    }

    fn agree_on(&mut self, members: Members) {
        if self.leader_config.as_ref().is_none_or(|known| known.version < members.version) {
            self.leader_config = Some(members);
        }
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

    /// What the leader says of the configuration. One that was proposed here under an older leader, and that this one has
    /// not heard of, is not in its history, so it will never be in force.
    pub(super) fn on_leader_config(&mut self, text: &[u8]) -> Result<(), String> {
        let members = Members::parse_text(text).map_err(|why| format!("its configuration cannot be read ({why})"))?;
        let epoch_start = self.epoch_start().0;
        let abandoned = |seen: &mut Members| seen.version > members.version && seen.version < epoch_start;
        if self.configs.last_seen.take_if(abandoned).is_some() {
            self.save_configs();
        }
        self.see(members.clone());
        if !self.is_open(&members) {
            self.agree_on(members);
        }
        Ok(())
    }

    /// Whether this is a list that the leader has proposed in its reign, and not yet committed. An Apache leader gives it to
    /// learners that come late as if it were in force; taken so, a minority could be a quorum of it.
    fn is_open(&self, members: &Members) -> bool {
        let proposed = Zxid(members.version);
        proposed.epoch() == self.epoch && proposed > self.epoch_start() && proposed > self.committed()
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
