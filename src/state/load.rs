//! Builds a [`State`] from the parts of a snapshot, in the order of the file: sessions, lists, nodes. Used by
//! `storage::snapshot`; checks what only the state can check, so that a bad file is an error and never a bad state.

use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::ids::{SessionId, Zxid};
use crate::records::{Acl, BadOwner, Owner, StatPersisted};
use crate::state::acl::AclId;
use crate::state::quota::{self, LIMITS, StatsTrack};
use crate::state::{NodeId, State, StateRules, path};

/// Why a snapshot's parts make no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A node without its parent before it. Another snapshot may be better.
    #[error("node {path} has no parent before it")]
    NoParent {
        /// The node.
        path: String,
    },
    /// A node twice.
    #[error("node {path} is there twice")]
    Twice {
        /// The node.
        path: String,
    },
    /// An owner that this version cannot read. Apache refuses to start on it.
    #[error("node {path}: {source}")]
    BadOwner {
        /// The node.
        path: String,
        /// What is wrong with it.
        source: BadOwner,
    },
}

/// A state in the making.
#[derive(Debug)]
pub struct Loader {
    state: State,
    /// Each list of the file and its place in the table; held by the loader until it is done.
    lists: FxHashMap<i64, AclId>,
    /// Siblings stand together in most snapshots: where the last node was put.
    last_parent: (String, NodeId),
}

impl Loader {
    /// With a bare root.
    pub fn new(rules: StateRules) -> Loader {
        Loader { state: State::empty(rules), lists: FxHashMap::default(), last_parent: (String::new(), NodeId::ROOT) }
    }

    /// A session.
    pub fn session(&mut self, id: SessionId, timeout_ms: i32) {
        self.state.sessions.insert(id, timeout_ms);
    }

    /// A list and its index in this file.
    pub fn acl(&mut self, index: i64, list: Vec<Acl>) {
        let id = self.state.acls.acquire_list(&list.into());
        if let Some(replaced) = self.lists.insert(index, id) {
            self.state.acls.release(replaced);
        }
    }

    fn acquire(&mut self, index: i64) -> AclId {
        if index == -1 {
            return AclId::OPEN;
        }
        let id = self.lists.get(&index).copied().unwrap_or(AclId::MISSING);
        self.state.acls.acquire(id);
        id
    }

    /// A node; its parent came before. The root has the empty path.
    pub fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_index: i64,
        stat: StatPersisted,
    ) -> Result<(), LoadError> {
        let owner = self.state.rules.owners.decode(stat.ephemeral_owner);
        let owner = owner.map_err(|source| LoadError::BadOwner { path: path.to_owned(), source })?;
        let acl = self.acquire(acl_index);
        if path.is_empty() {
            self.state.tree.set_data(NodeId::ROOT, "", data, |root| *root = stat);
            self.state.tree.set_acl(NodeId::ROOT, acl, |_| ());
            return Ok(());
        }
        let no_parent = || LoadError::NoParent { path: path.to_owned() };
        let (parent, name) = path::place(path).ok_or_else(no_parent)?;
        if self.last_parent.0 != parent {
            let id = self.state.tree.lookup(parent).ok_or_else(no_parent)?;
            self.last_parent.0.clear();
            self.last_parent.0.push_str(parent);
            self.last_parent.1 = id;
        }
        let inserted = self.state.tree.insert(self.last_parent.1, name, path, data, acl, stat);
        let id = inserted.ok_or_else(|| LoadError::Twice { path: path.to_owned() })?;
        self.state.register_owner(id, owner);
        Ok(())
    }

    /// Everything was read: the state as of this transaction.
    pub fn finish(mut self, zxid: Zxid) -> State {
        self.state.last_zxid = zxid;
        for (_, id) in self.lists.drain() {
            self.state.acls.release(id);
        }
        self.state.ensure_config_node();
        self.state.recount_quotas();
        self.state
    }
}

impl State {
    /// Remembers a new node with whoever keeps it alive.
    pub(super) fn register_owner(&mut self, id: NodeId, owner: Owner) {
        match owner {
            Owner::None => {}
            Owner::Session(session) => {
                self.ephemerals.entry(session).or_default().insert(id);
                self.tree.on_ephemeral(session, id);
            }
            Owner::Container => {
                self.containers.insert(id);
            }
            Owner::Ttl { .. } => {
                self.ttls.insert(id);
            }
        }
    }

    /// Arms every quota and counts its usage anew, as each start does (`DataTree.setupQuota`).
    fn recount_quotas(&mut self) {
        let Some(root) = self.tree.lookup(quota::ROOT) else { return };
        let limits: Vec<NodeId> = self.tree.subtree(root).filter(|&id| self.tree.node(id).name() == LIMITS).collect();
        for id in limits {
            let path = self.tree.path(id);
            if let Some(subject) = quota::subject(&path, LIMITS) {
                self.quotas.add(subject);
                self.recount_quota(subject);
            }
        }
    }

    /// Counts the usage of one path and writes it into its stats node, if that is there.
    pub(super) fn recount_quota(&mut self, subject: &str) {
        let (mut count, mut bytes) = (0i64, 0i64);
        if let Some(top) = self.tree.lookup(subject) {
            for id in self.tree.subtree(top) {
                count += 1;
                bytes += self.tree.node(id).data_len() as i64;
            }
        }
        self.write_usage(subject, count, bytes);
    }

    /// Rewrites a stats node in place: neither stat nor watches notice.
    pub(super) fn write_usage(&mut self, subject: &str, count: i64, bytes: i64) {
        let path = quota::stats_path(subject);
        if let Some(id) = self.tree.lookup(&path) {
            let text = StatsTrack::usage_text(count, bytes);
            self.tree.set_data(id, &path, Some(text.as_bytes()), |_| ());
        }
    }
}
