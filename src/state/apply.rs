//! The one way to change the state: a transaction, in zxid order (`DataTree.processTxn`). The same rules serve a live
//! commit and recovery from a fuzzy snapshot of Apache's, where a transaction may find its work done already: then the
//! error is part of the outcome and the state stays as the other servers' does.

use std::sync::Arc;

use crate::codes::Code;
use crate::ids::{SessionId, Zxid};
use crate::metrics;
use crate::records::{Owner, Stat};
use crate::state::acl::AclList;
use crate::state::quota::{self, LIMITS, STATS, StatsTrack};
use crate::state::{NodeId, State, path};
use crate::txn::{CreateTxn, SetAclTxn, SetDataTxn, Txn, TxnBody, TxnHeader};
use crate::wrong::{self, Wrong};

/// What happened to a node, for watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It was made.
    Created,
    /// It was deleted.
    Deleted,
    /// Its data was replaced.
    DataChanged,
    /// A child of it was made or deleted.
    ChildrenChanged,
}

/// One change that watches may be waiting for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which node; the root is "/".
    pub path: Arc<str>,
    /// Its list then: who may not read the node hears nothing of it.
    pub acl: Option<AclList>,
}

/// What a transaction came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Done; the reply has no body of its own (delete, check, sessions).
    Done,
    /// Done; the node's stat as it was then.
    Stat(Stat),
    /// Nothing, with this code.
    Failed(i32),
    /// One for each part of a multi.
    Multi(Vec<Applied>),
}

fn failed(code: Code) -> Applied {
    Applied::Failed(code.value())
}

/// Where changes go. `None` when nobody watches: then they are not even made.
type Changes<'a> = Option<&'a mut Vec<Change>>;

impl State {
    /// Applies the next transaction. Changes are told in the order in which watches must hear of them.
    pub fn apply(&mut self, txn: &Txn, mut changes: Option<&mut Vec<Change>>) -> Applied {
        let applied = self.apply_body(&txn.header, &txn.body, &mut changes);
        if txn.header.zxid > self.last_zxid {
            self.last_zxid = txn.header.zxid;
        }
        if self.rules.digest_enabled {
            self.digests.on_applied(txn.header.zxid, txn.digest, self.tree.digest());
        }
        applied
    }

    /// Applies a transaction from the log.
    pub fn replay(&mut self, txn: &Txn) {
        self.apply(txn, None);
    }

    fn apply_body(&mut self, header: &TxnHeader, body: &TxnBody, changes: &mut Changes<'_>) -> Applied {
        match body {
            TxnBody::CreateSession { timeout_ms } => {
                self.sessions.insert(header.client_id, *timeout_ms);
                Applied::Done
            }
            TxnBody::CloseSession { paths } => self.close_session(header, paths.as_deref(), changes),
            TxnBody::Create(create) => self.create(header, create, changes),
            TxnBody::Delete { path, .. } => self.delete(header.zxid, path, changes),
            TxnBody::SetData(set) | TxnBody::Reconfig(set) => self.set_data(header, set, changes),
            TxnBody::SetAcl(set) => self.set_acl(set),
            TxnBody::Check(_) => Applied::Done,
            TxnBody::Multi(subs) => self.multi(header, subs, changes),
            TxnBody::Error(code) => Applied::Failed(*code),
            TxnBody::Unknown { .. } => failed(Code::Unimplemented),
        }
    }

    fn multi(&mut self, header: &TxnHeader, subs: &[TxnBody], changes: &mut Changes<'_>) -> Applied {
        if subs.iter().any(TxnBody::is_error) {
            if wrong::is_on(Wrong::MultiPartlyApplied) {
                for sub in subs.iter().take_while(|sub| !sub.is_error()) {
                    self.apply_body(header, sub, changes);
                }
            }
            let codes = subs.iter().map(|sub| match sub {
                TxnBody::Error(code) => Applied::Failed(*code),
                // Those before the failing one would have succeeded: their code is 0.
                _ => Applied::Failed(0),
            });
            return Applied::Multi(codes.collect());
        }
        let mut results = Vec::with_capacity(subs.len());
        for sub in subs {
            if matches!(sub, TxnBody::Unknown { .. }) {
                break;
            }
            results.push(self.apply_body(header, sub, changes));
        }
        Applied::Multi(results)
    }

    fn create(&mut self, header: &TxnHeader, create: &CreateTxn, changes: &mut Changes<'_>) -> Applied {
        let Some((parent_path, name)) = path::place(&create.path) else { return failed(Code::NoNode) };
        let Some(parent) = self.tree.lookup(parent_path) else { return failed(Code::NoNode) };
        let parent_stat = *self.tree.node(parent).stat();
        let cversion = match create.parent_cversion {
            -1 => parent_stat.cversion.wrapping_add(1),
            given => given,
        };
        // A fuzzy snapshot may hold the parent as a later child left it: counters only rise.
        if cversion > parent_stat.cversion {
            self.tree.update(parent, |stat| {
                stat.cversion = cversion;
                stat.pzxid = header.zxid.0;
            });
        }
        let list: AclList = create.acl.as_slice().into();
        if let Some(existing) = self.tree.child(parent, name) {
            // The node came with the snapshot, perhaps before its list did: 3.8.5 and 3.9.4 set it again.
            self.replace_acl(existing, &list);
            return failed(Code::NodeExists);
        }
        let owner = create.owner.owner(header.client_id);
        let stat = crate::records::StatPersisted {
            czxid: header.zxid.0,
            mzxid: header.zxid.0,
            pzxid: header.zxid.0,
            ctime: header.time_ms,
            mtime: header.time_ms,
            ephemeral_owner: owner.raw(),
            ..Default::default()
        };
        let acl = self.acls.acquire_list(&list);
        let inserted = self.tree.insert(parent, name, &create.path, create.data.as_deref(), acl, stat);
        let id = inserted.expect("it was looked up above");
        // As the next start reads it.
        let owner = self.owner(id);
        self.register_owner(id, owner);
        if let Owner::Ttl { .. } = owner {
            metrics::TTL_NODE_CREATED_COUNT.add(1);
        }
        self.quota_created(&create.path, create.data.as_deref());
        self.tell(changes, ChangeKind::Created, &create.path, id);
        self.tell(changes, ChangeKind::ChildrenChanged, parent_path, parent);
        Applied::Stat(self.stat(id))
    }

    fn replace_acl(&mut self, id: NodeId, list: &AclList) {
        let acl = self.acls.acquire_list(list);
        self.acls.release(self.tree.node(id).acl());
        self.tree.set_acl(id, acl, |_| ());
    }

    fn delete(&mut self, zxid: Zxid, path: &str, changes: &mut Changes<'_>) -> Applied {
        let Some((parent_path, name)) = path::place(path) else { return failed(Code::NoNode) };
        let Some(parent) = self.tree.lookup(parent_path) else { return failed(Code::NoNode) };
        // The parent is marked even when the node is gone already, as in Apache: replay must end at the same pzxid.
        if zxid.0 > self.tree.node(parent).stat().pzxid && !wrong::is_on(Wrong::ChildZxidKept) {
            self.tree.update(parent, |stat| stat.pzxid = zxid.0);
        }
        let Some(id) = self.tree.child(parent, name) else { return failed(Code::NoNode) };
        if self.tree.node(id).num_children() > 0 {
            // Only a log that contradicts itself gets here; a subtree must not vanish for it.
            return failed(Code::NotEmpty);
        }
        self.tell(changes, ChangeKind::Deleted, path, id);
        self.forget_owner(id);
        self.quota_deleted(path, self.tree.node(id).data_len());
        if !wrong::is_on(Wrong::AclKept) {
            self.acls.release(self.tree.node(id).acl());
        }
        self.tree.remove(id);
        self.tell(changes, ChangeKind::ChildrenChanged, parent_path, parent);
        Applied::Done
    }

    fn forget_owner(&mut self, id: NodeId) {
        match self.owner(id) {
            Owner::None => {}
            Owner::Session(session) => {
                self.tree.on_ephemeral_gone(session, id);
                if let Some(nodes) = self.ephemerals.get_mut(&session) {
                    nodes.remove(&id);
                    if nodes.is_empty() {
                        self.ephemerals.remove(&session);
                    }
                }
            }
            Owner::Container => {
                self.containers.remove(id);
            }
            Owner::Ttl { .. } => {
                self.ttls.remove(id);
                metrics::TTL_NODE_DELETED_COUNT.add(1);
            }
        }
    }

    fn set_data(&mut self, header: &TxnHeader, set: &SetDataTxn, changes: &mut Changes<'_>) -> Applied {
        let Some(id) = self.tree.lookup(&set.path) else { return failed(Code::NoNode) };
        let bytes_before = self.tree.node(id).data_len() as i64;
        self.tree.set_data(id, &set.path, set.data.as_deref(), |stat| {
            stat.version = set.version;
            stat.mzxid = header.zxid.0;
            stat.mtime = header.time_ms;
        });
        let bytes = set.data.as_ref().map_or(0, Vec::len) as i64;
        self.quota_used(&set.path, 0, bytes - bytes_before);
        self.tell(changes, ChangeKind::DataChanged, path::shown(&set.path), id);
        Applied::Stat(self.stat(id))
    }

    fn set_acl(&mut self, set: &SetAclTxn) -> Applied {
        let Some(id) = self.tree.lookup(&set.path) else { return failed(Code::NoNode) };
        self.replace_acl(id, &set.acl.as_slice().into());
        self.tree.update(id, |stat| stat.aversion = set.version);
        Applied::Stat(self.stat(id))
    }

    fn close_session(&mut self, header: &TxnHeader, paths: Option<&[String]>, changes: &mut Changes<'_>) -> Applied {
        let session = header.client_id;
        self.sessions.remove(&session);
        self.tree.on_session_ends(session);
        for path in paths.unwrap_or_default() {
            self.delete(header.zxid, path, changes);
        }
        if !wrong::is_on(Wrong::EphemeralOutlivesSession) {
            self.delete_ephemerals(session, header.zxid, changes);
        }
        Applied::Done
    }

    /// Deletes what the tree still knows of a session, in path order so that every server does the same.
    fn delete_ephemerals(&mut self, session: SessionId, zxid: Zxid, changes: &mut Changes<'_>) {
        for path in self.ephemerals_of(session) {
            self.delete(zxid, &path, changes);
        }
    }

    /// Sessions that do not exist and have ephemerals, which old releases may leave. What may be TTL nodes from the time
    /// before the key was taken away are not among them: Apache deletes those, children and all.
    pub fn orphans(&self) -> Vec<SessionId> {
        let dead = self.ephemerals.keys().copied().filter(|id| !self.sessions.contains_key(id));
        let (kept, mut dead): (Vec<_>, Vec<_>) = dead.partition(|&session| self.rules.owners.may_be_ttl(session));
        if !kept.is_empty() {
            let count: usize = kept.iter().map(|session| self.ephemerals[session].len()).sum();
            log::warn!(
                "{count} nodes seem to be TTL nodes, and extendedTypesEnabled is false: they are kept as ephemerals without a \
                 session; set the key again, or delete them"
            );
        }
        dead.sort_unstable();
        dead
    }

    /// Deletes the ephemerals of sessions that do not exist, as every start of a standalone server or leader does
    /// (`ZooKeeperServer.loadData`). Not logged. Gives the sessions.
    pub fn delete_orphans(&mut self) -> Vec<SessionId> {
        let dead = self.orphans();
        for &session in &dead {
            self.delete_ephemerals(session, self.last_zxid, &mut None);
        }
        dead
    }

    fn tell(&self, changes: &mut Changes<'_>, kind: ChangeKind, path: &str, id: NodeId) {
        if let Some(changes) = changes {
            changes.push(Change { kind, path: path::shown(path).into(), acl: self.acl(id).ok().cloned() });
        }
    }

    // ---- quotas ----

    fn quota_created(&mut self, path: &str, data: Option<&[u8]>) {
        if let Some(subject) = quota::subject(path, LIMITS) {
            self.quotas.add(subject);
        }
        if let Some(subject) = quota::subject(path, STATS) {
            self.recount_quota(subject);
        }
        self.quota_used(path, 1, data.map_or(0, <[u8]>::len) as i64);
    }

    fn quota_deleted(&mut self, path: &str, bytes: usize) {
        if let Some(subject) = quota::subject(path, LIMITS) {
            self.quotas.remove(subject);
        }
        if !wrong::is_on(Wrong::QuotaKeepsDeleted) {
            self.quota_used(path, -1, -(bytes as i64));
        }
    }

    fn quota_used(&mut self, path: &str, count_diff: i64, bytes_diff: i64) {
        let Some(subject) = self.quotas.covering(path).map(str::to_owned) else { return };
        let Some(id) = self.tree.lookup(&quota::stats_path(&subject)) else { return };
        let usage = StatsTrack::parse(self.tree.node(id).data());
        // Clients may write these texts too.
        let (count, bytes) = (usage.count.saturating_add(count_diff), usage.bytes.saturating_add(bytes_diff));
        self.write_usage(&subject, count, bytes);
    }
}
