//! The members of the ensemble: what a reconfig becomes on the leader, and the node that shows them
//! (`PrepRequestProcessor`, `ZKDatabase.initConfigInZKDatabase`).

use crate::codes::Code;
use crate::config::Members;
use crate::config::reconfig::ReconfigError;
use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::ops::Reconfig;
use crate::pipeline::{Complaint, Pipeline};
use crate::records::perms;
use crate::state::acl::AuthId;
use crate::state::digest::Prefix;
use crate::state::path;
use crate::txn::{SetDataTxn, TxnBody};

impl Pipeline {
    pub(super) fn on_configs(&mut self, configs: Configs) {
        let Members { version, .. } = configs.committed;
        let text = configs.committed.to_string();
        self.state.set_config(&text, version, self.now.wall_ms);
        let me = ServerId(self.rules.server_id);
        if let Some(client) = configs.committed.servers.get(&me.0).and_then(|server| server.client.as_ref()) {
            self.rules.settings.client_port = i32::from(client.port);
        }
        if let Some(quorum) = &mut self.rules.settings.quorum {
            quorum.peer_type = i32::from(configs.committed.is_observer(me));
            quorum.membership = Some(text);
        }
        self.configs = Some(configs);
        self.go_on();
    }

    /// Whether this leader has proposed a list of members that is not in force yet. Nothing is proposed behind it: it may
    /// name another leader, and whoever acknowledged it then has all that this one has. Everything behind it would wait for
    /// its commit anyway. When this server goes on leading it hears what is in force, else it hears of its next role.
    pub(super) fn is_reconfiguring(&self) -> bool {
        self.leads() && self.configs.as_ref().is_some_and(|configs| configs.last_seen.is_some())
    }

    /// On with what came while a reconfiguration was not committed.
    pub(super) fn go_on(&mut self) {
        // What waits there came earlier.
        self.propose_awaiting();
        for mail in std::mem::take(&mut self.parked) {
            self.step(mail);
        }
    }

    pub(super) fn prepare_reconfig(
        &mut self,
        auth: &[AuthId],
        zxid: Zxid,
        request: &Reconfig,
    ) -> Result<TxnBody, Code> {
        if !self.rules.reconfig_enabled {
            return Err(Code::ReconfigDisabled);
        }
        // Nothing to reconfigure in a standalone server.
        let Some(configs) = &self.configs else { return Err(Code::Unimplemented) };
        if configs.last_seen.is_some() {
            return Err(Code::ReconfigInProgress);
        }
        let committed = &configs.committed;
        if request.cur_config_id != -1 && request.cur_config_id != committed.version {
            return Err(Code::BadVersion);
        }
        let wanted = committed.requested(request, self.rules.members);
        if committed.version >= zxid.0 {
            let what = format!("the list in force has version {:x}, later than any of this epoch", committed.version);
            return Err(self.refuse_reconfig(&what, Code::BadArguments));
        }
        let members = match wanted {
            Ok(members) => Members { version: zxid.0, ..members },
            Err(ReconfigError::NotANumber(what)) => return Err(self.refuse_reconfig(&what, Code::MarshallingError)),
            Err(ReconfigError::Bad(what)) => return Err(self.refuse_reconfig(&what, Code::BadArguments)),
        };
        let participants_min = if self.rules.standalone_enabled { 2 } else { 1 };
        if members.participants().count() < participants_min {
            let what = format!("at least {participants_min} servers must be participants");
            return Err(self.refuse_reconfig(&what, Code::BadArguments));
        }
        let mut synced = self.followers.clone();
        synced.insert(ServerId(self.rules.server_id));
        if !members.is_quorum(&synced) {
            let synced: Vec<String> = synced.iter().map(|server| server.0.to_string()).collect();
            let what =
                format!("only servers {} are connected and synced, no quorum of the new list", synced.join(", "));
            return Err(self.refuse_reconfig(&what, Code::NewConfigNoQuorum));
        }
        let node = self.pending.require(&self.state, path::CONFIG)?;
        self.check_acl(&node.acl, perms::WRITE, auth)?;
        let text = members.to_string().into_bytes();
        let mut after = node.clone();
        after.stat.version = -1;
        after.stat.mzxid = zxid.0;
        after.stat.mtime = self.now.wall_ms;
        after.data_len = text.len();
        after.prefix = Prefix::of(path::CONFIG, Some(&text));
        self.pending.put(path::CONFIG, Some(&node), Some(after), zxid);
        if let Some(configs) = &mut self.configs {
            configs.last_seen = Some(members);
        }
        Ok(TxnBody::Reconfig(SetDataTxn { path: path::CONFIG.to_owned(), data: Some(text), version: -1 }))
    }

    fn refuse_reconfig(&mut self, what: &str, code: Code) -> Code {
        self.complain(Complaint::Reconfig, || format!("reconfiguration refused: {what}"));
        code
    }
}
