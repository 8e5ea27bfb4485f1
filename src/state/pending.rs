//! What is proposed and not applied yet, laid over the state (`outstandingChanges` of `ZooKeeperServer`): a write is
//! checked against the tree as it will be when its turn comes. Holds, per touched node, the record as the last proposal
//! leaves it, and the digest of the whole tree after all proposals. Used by `pipeline::prepare`; pure.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use rustc_hash::FxHashMap;

use crate::codes::Code;
use crate::ids::{SessionId, Zxid};
use crate::records::{Owner, Stat, StatPersisted};
use crate::state::acl::AclList;
use crate::state::digest::{self, Prefix};
use crate::state::{NodeId, State};

/// A node as it will be (`ChangeRecord`).
#[derive(Clone, Debug)]
pub struct NodeRecord {
    /// Stored stat.
    pub stat: StatPersisted,
    /// Who keeps it alive.
    pub owner: Owner,
    /// Its list.
    pub acl: AclList,
    /// Direct children.
    pub num_children: u32,
    /// Bytes of data.
    pub data_len: usize,
    /// CRC over path and data.
    pub prefix: Prefix,
}

impl NodeRecord {
    fn of_applied(state: &State, id: NodeId) -> Result<NodeRecord, Code> {
        let node = state.tree().node(id);
        Ok(NodeRecord {
            stat: *node.stat(),
            owner: state.owner(id),
            acl: state.acl(id)?.clone(),
            num_children: node.num_children(),
            data_len: node.data_len(),
            prefix: node.prefix(),
        })
    }

    /// As clients will see it.
    pub fn shown(&self) -> Stat {
        self.stat.shown(self.data_len, self.num_children, self.owner)
    }
}

/// What the last proposal that touched a path leaves there.
#[derive(Clone, Debug)]
struct Entry {
    /// `None`: the node is deleted.
    record: Option<NodeRecord>,
    zxid: Zxid,
}

impl Entry {
    /// Whose ephemeral stands there.
    fn session(&self) -> Option<SessionId> {
        match self.record.as_ref()?.owner {
            Owner::Session(session) => Some(session),
            Owner::None | Owner::Container | Owner::Ttl { .. } => None,
        }
    }
}

/// The proposals that are not applied yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// Seeded: clients choose the paths.
    entries: HashMap<Arc<str>, Entry, RandomState>,
    /// The ephemerals among them, by session, so that one that closes need not look through all. No entry is empty.
    ephemerals: FxHashMap<SessionId, HashSet<Arc<str>, RandomState>>,
    /// Which path was touched by which proposal, oldest first: what a commit takes away.
    touched: VecDeque<(Zxid, Arc<str>)>,
    /// Digest of the tree after every proposal.
    digest: u64,
    /// Inside a multi: what to put back should it fail.
    undo: Option<Undo>,
}

#[derive(Debug)]
struct Undo {
    before: Vec<(Arc<str>, Option<Entry>)>,
    touched_len: usize,
    digest: u64,
}

impl Pending {
    /// Nothing is proposed.
    pub fn new(state: &State) -> Pending {
        Pending { digest: state.tree_digest(), ..Pending::default() }
    }

    /// Digest of the tree after every proposal.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of touched paths, for the metrics.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the state is all there is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The node as it will be. The root's path is "" (and "/" is taken for it).
    pub fn find(&self, state: &State, path: &str) -> Result<Option<NodeRecord>, Code> {
        let path = if path == "/" { "" } else { path };
        if let Some(entry) = self.entries.get(path) {
            return Ok(entry.record.clone());
        }
        state.tree().lookup(path).map(|id| NodeRecord::of_applied(state, id)).transpose()
    }

    /// The node as it will be, or NONODE.
    pub fn require(&self, state: &State, path: &str) -> Result<NodeRecord, Code> {
        self.find(state, path)?.ok_or(Code::NoNode)
    }

    /// A proposal leaves this at the path; `before` is what [`Pending::find`] gave.
    pub fn put(&mut self, path: &str, before: Option<&NodeRecord>, after: Option<NodeRecord>, zxid: Zxid) {
        let path = if path == "/" { "" } else { path };
        if digest::counts(path) {
            let part = |record: Option<&NodeRecord>| record.map_or(0, |r| r.prefix.node_digest(&r.stat));
            self.digest = self.digest.wrapping_sub(part(before)).wrapping_add(part(after.as_ref()));
        }
        let path: Arc<str> = path.into();
        let earlier = self.replace(&path, Some(Entry { record: after, zxid }));
        if let Some(undo) = &mut self.undo {
            undo.before.push((path.clone(), earlier));
        }
        self.touched.push_back((zxid, path));
    }

    /// The proposals up to this one are applied: the state says it all for what they touched last.
    pub fn committed(&mut self, zxid: Zxid) {
        while let Some((_, path)) = self.touched.pop_front_if(|(touched, _)| *touched <= zxid) {
            if let Place::Occupied(entry) = self.entries.entry(path)
                && entry.get().zxid <= zxid
            {
                let (path, entry) = entry.remove_entry();
                self.disown(&path, entry.session());
            }
        }
    }

    /// Another entry, or none, takes the place of this one.
    fn replace(&mut self, path: &Arc<str>, entry: Option<Entry>) -> Option<Entry> {
        let session = entry.as_ref().and_then(Entry::session);
        let earlier = match entry {
            Some(entry) => self.entries.insert(path.clone(), entry),
            None => self.entries.remove(path),
        };
        self.disown(path, earlier.as_ref().and_then(Entry::session));
        if let Some(session) = session {
            self.ephemerals.entry(session).or_default().insert(path.clone());
        }
        earlier
    }

    fn disown(&mut self, path: &str, session: Option<SessionId>) {
        if let Some(session) = session
            && let Some(paths) = self.ephemerals.get_mut(&session)
        {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
    }

    /// A multi begins: [`Pending::roll_back`] returns to here.
    pub fn begin(&mut self) {
        debug_assert!(self.undo.is_none(), "multis do not nest");
        self.undo = Some(Undo { before: Vec::new(), touched_len: self.touched.len(), digest: self.digest });
    }

    /// The multi succeeded.
    pub fn keep(&mut self) {
        self.undo = None;
    }

    /// The multi failed: everything is as before it, digest and counters included.
    pub fn roll_back(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        for (path, earlier) in undo.before.into_iter().rev() {
            self.replace(&path, earlier);
        }
        self.touched.truncate(undo.touched_len);
        self.digest = undo.digest;
    }

    /// A session's ephemerals as they will be, in path order.
    pub fn ephemerals_of(&self, state: &State, session: SessionId) -> Vec<String> {
        let owned = |entry: &Entry| entry.session() == Some(session);
        let mut paths = state.ephemerals_of(session);
        paths.retain(|path| self.entries.get(path.as_str()).is_none_or(owned));
        paths.extend(self.ephemerals.get(&session).into_iter().flatten().map(|path| path.to_string()));
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateRules;

    fn changed(record: &NodeRecord, version: i32) -> NodeRecord {
        let mut record = record.clone();
        record.stat.version = version;
        record
    }

    #[test]
    fn a_commit_takes_away_only_what_no_later_proposal_touches() {
        let state = State::fresh(StateRules::default());
        let mut pending = Pending::new(&state);
        let root = pending.require(&state, "/").expect("the root is there");
        pending.put("/", Some(&root), Some(changed(&root, 1)), Zxid(1));
        pending.put("/", Some(&root), Some(changed(&root, 2)), Zxid(2));
        pending.committed(Zxid(1));
        assert_eq!(pending.require(&state, "").map(|r| r.stat.version), Ok(2));
        pending.committed(Zxid(2));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_failed_multi_leaves_no_trace() {
        let state = State::fresh(StateRules::default());
        let mut pending = Pending::new(&state);
        let root = pending.require(&state, "/").expect("the root is there");
        pending.put("/", Some(&root), Some(changed(&root, 1)), Zxid(1));
        let digest = pending.digest();
        pending.begin();
        pending.put("/", Some(&changed(&root, 1)), None, Zxid(2));
        pending.put("/a", None, Some(root.clone()), Zxid(2));
        pending.roll_back();
        assert_eq!(pending.digest(), digest);
        assert_eq!(pending.require(&state, "/").map(|r| r.stat.version), Ok(1));
        assert!(pending.find(&state, "/a").expect("no list is missing").is_none());
    }

    #[test]
    fn a_sessions_ephemerals_follow_proposals_commits_and_failed_multis() {
        let state = State::fresh(StateRules::default());
        let mut pending = Pending::new(&state);
        let root = pending.require(&state, "/").expect("the root is there");
        let of = |session: i64| NodeRecord { owner: Owner::Session(SessionId(session)), ..root.clone() };
        let paths = |pending: &Pending, session| pending.ephemerals_of(&state, SessionId(session));
        pending.put("/b", None, Some(of(1)), Zxid(1));
        pending.put("/a", None, Some(of(1)), Zxid(2));
        pending.put("/b", Some(&of(1)), None, Zxid(3));
        pending.begin();
        pending.put("/b", None, Some(of(2)), Zxid(4));
        pending.put("/a", Some(&of(1)), None, Zxid(4));
        assert_eq!((paths(&pending, 1), paths(&pending, 2)), (vec![], vec!["/b".to_owned()]));
        pending.roll_back();
        assert_eq!((paths(&pending, 1), paths(&pending, 2)), (vec!["/a".to_owned()], vec![]));
        pending.committed(Zxid(3));
        assert!(pending.is_empty() && pending.ephemerals.is_empty());
    }
}
