//! A second, naive implementation of the replicated state, to check the first one by: a sorted map of paths, changed by
//! logged transactions. Slow and short on purpose. Used by `trial`.

use std::collections::{BTreeMap, BTreeSet};

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::records::{Acl, CONTAINER_OWNER, Owner, Stat, StatPersisted};
use rookeeper::state::digest::{self, Prefix};
use rookeeper::state::{ChangeKind, State};
use rookeeper::txn::{CreateTxn, Txn, TxnBody, TxnHeader};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<Acl>,
    pub stat: StatPersisted,
}

/// Something watches may wait for: what, where, and the list of the node then.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: ChangeKind,
    pub path: String,
    pub acl: Vec<Acl>,
}

/// What a transaction, or one of a multi, came to.
pub type Outcome = Result<Option<Stat>, i32>;

/// The nodes by path (the root is "/") and the sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    pub sessions: BTreeMap<SessionId, i32>,
    pub zxid: Zxid,
}

/// The path as a key of the map.
pub fn key(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

fn parent_of(path: &str) -> &str {
    key(path.rsplit_once('/').map_or("?", |(parent, _)| parent))
}

/// Usage of quotas is counted by the state and not logged.
pub fn is_usage(path: &str) -> bool {
    path.starts_with("/zookeeper/quota/") && path.ends_with("/zookeeper_stats")
}

/// A stat without what is not known here.
pub fn shown(path: &str, stat: &Stat) -> Stat {
    if is_usage(path) { Stat { data_length: 0, ..*stat } } else { *stat }
}

impl Model {
    /// What a state holds.
    pub fn of(state: &State) -> Model {
        let mut nodes = BTreeMap::new();
        state.for_each_node(|path, node, acl, _| {
            let acl = acl.expect("no list is missing").to_vec();
            let node = Node { data: node.data().map(<[u8]>::to_vec), acl, stat: *node.stat() };
            assert!(nodes.insert(key(path).to_owned(), node).is_none(), "{path} is there twice");
        });
        Model { nodes, sessions: state.sessions().collect(), zxid: state.last_zxid() }
    }

    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(key(path))
    }

    pub fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let prefix = if key(path) == "/" { "/".to_owned() } else { format!("{path}/") };
        self.below(path).filter_map(move |p| p.strip_prefix(&prefix)).filter(|name| !name.contains('/'))
    }

    /// Paths below this one.
    pub fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let prefix = if key(path) == "/" { "/".to_owned() } else { format!("{path}/") };
        let inside = move |p: &&str| p.len() > prefix.len() && p.starts_with(&prefix);
        self.nodes.keys().map(String::as_str).filter(inside)
    }

    pub fn owned_by(&self, session: SessionId) -> Vec<String> {
        let owned = self.nodes.iter().filter(|(_, node)| node.stat.ephemeral_owner == session.0);
        owned.map(|(path, _)| path.clone()).collect()
    }

    /// As clients see it.
    pub fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[key(path)];
        let owner = match node.stat.ephemeral_owner {
            0 => Owner::None,
            CONTAINER_OWNER => Owner::Container,
            raw if raw < 0 => Owner::Ttl { ttl_ms: 0 },
            raw => Owner::Session(SessionId(raw)),
        };
        let children = u32::try_from(self.children(path).count()).expect("few");
        node.stat.shown(node.data.as_ref().map_or(0, Vec::len), children, owner)
    }

    pub fn check_stat(&self, path: &str, stat: &Stat) {
        assert_eq!(shown(path, stat), shown(path, &self.stat(path)), "{path}");
    }

    pub fn digest(&self) -> u64 {
        let part = |(path, node): (&String, &Node)| {
            let path = if path == "/" { "" } else { path };
            let counts = digest::counts(path);
            if counts { Prefix::of(path, node.data.as_deref()).node_digest(&node.stat) } else { 0 }
        };
        self.nodes.iter().map(part).fold(0, u64::wrapping_add)
    }

    fn event(&self, events: &mut Vec<Event>, kind: ChangeKind, path: &str) {
        let path = key(path).to_owned();
        events.push(Event { kind, acl: self.nodes[&path].acl.clone(), path });
    }

    /// Does what a transaction says. Gives what watches hear of, and what each of its parts came to.
    pub fn apply(&mut self, txn: &Txn) -> (Vec<Event>, Vec<Outcome>) {
        assert!(txn.header.zxid > self.zxid, "{} is logged behind {}", txn.header.zxid, self.zxid);
        self.zxid = txn.header.zxid;
        let mut events = Vec::new();
        let outcomes = match &txn.body {
            TxnBody::Multi(subs) if subs.iter().any(TxnBody::is_error) => {
                let code = |sub: &TxnBody| if let TxnBody::Error(code) = sub { *code } else { 0 };
                subs.iter().map(|sub| Err(code(sub))).collect()
            }
            TxnBody::Multi(subs) => subs.iter().map(|sub| self.apply_one(&txn.header, sub, &mut events)).collect(),
            one => vec![self.apply_one(&txn.header, one, &mut events)],
        };
        (events, outcomes)
    }

    fn apply_one(&mut self, header: &TxnHeader, body: &TxnBody, events: &mut Vec<Event>) -> Outcome {
        match body {
            TxnBody::CreateSession { timeout_ms } => {
                self.sessions.insert(header.client_id, *timeout_ms);
                Ok(None)
            }
            TxnBody::CloseSession { paths } => {
                self.sessions.remove(&header.client_id);
                let mut owned = self.owned_by(header.client_id);
                if let Some(paths) = paths {
                    assert_eq!(*paths, owned, "closeSession lists the ephemerals");
                }
                owned.drain(..).for_each(|path| self.delete(header.zxid, &path, events));
                Ok(None)
            }
            TxnBody::Create(create) => Ok(Some(self.create(header, create, events))),
            TxnBody::Delete { path, .. } => {
                self.delete(header.zxid, path, events);
                Ok(None)
            }
            TxnBody::SetData(set) => {
                let node = self.nodes.get_mut(&set.path).expect("logged after it was checked");
                node.data = set.data.clone();
                assert_eq!(set.version, node.stat.version.wrapping_add(1));
                node.stat.version = set.version;
                node.stat.mzxid = header.zxid.0;
                node.stat.mtime = header.time_ms;
                self.event(events, ChangeKind::DataChanged, &set.path);
                Ok(Some(self.stat(&set.path)))
            }
            TxnBody::SetAcl(set) => {
                let node = self.nodes.get_mut(&set.path).expect("logged after it was checked");
                node.acl = set.acl.clone();
                assert_eq!(set.version, node.stat.aversion.wrapping_add(1));
                node.stat.aversion = set.version;
                Ok(Some(self.stat(&set.path)))
            }
            TxnBody::Check(check) => {
                assert_eq!(check.version, self.nodes[&check.path].stat.version.wrapping_add(1));
                Ok(None)
            }
            TxnBody::Error(code) => Err(*code),
            other => panic!("{other:?} is never logged here"),
        }
    }

    fn create(&mut self, header: &TxnHeader, create: &CreateTxn, events: &mut Vec<Event>) -> Stat {
        let zxid = header.zxid.0;
        let parent = self.nodes.get_mut(parent_of(&create.path)).expect("logged after it was checked");
        assert_eq!(create.parent_cversion, parent.stat.cversion + 1, "creations are counted one by one");
        parent.stat.cversion = create.parent_cversion;
        parent.stat.pzxid = zxid;
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: header.time_ms,
            mtime: header.time_ms,
            ephemeral_owner: create.owner.owner(header.client_id).raw(),
            ..StatPersisted::default()
        };
        let node = Node { data: create.data.clone(), acl: create.acl.clone(), stat };
        assert!(self.nodes.insert(create.path.clone(), node).is_none(), "{} was there", create.path);
        self.event(events, ChangeKind::Created, &create.path);
        self.event(events, ChangeKind::ChildrenChanged, parent_of(&create.path));
        self.stat(&create.path)
    }

    fn delete(&mut self, zxid: Zxid, path: &str, events: &mut Vec<Event>) {
        assert_eq!(self.children(path).next(), None, "{path} has no children when it is deleted");
        self.event(events, ChangeKind::Deleted, path);
        self.nodes.remove(path);
        self.nodes.get_mut(parent_of(path)).expect("there is a parent").stat.pzxid = zxid.0;
        self.event(events, ChangeKind::ChildrenChanged, parent_of(path));
    }

    /// Everything a state says of itself is what follows from this.
    pub fn check(&self, state: &State) {
        let theirs = Model::of(state);
        assert_eq!(theirs.zxid, self.zxid);
        assert_eq!(theirs.sessions, self.sessions);
        self.check_nodes(&theirs);
        assert_eq!(state.tree_digest(), self.digest(), "the digest is that of the nodes");
        assert_eq!(state.tree_digest(), theirs.digest());
        assert_eq!(state.digest_mismatches(), 0);
        self.check_figures(state, &theirs);
    }

    /// The same nodes, but for the counters of quotas.
    pub fn check_nodes(&self, theirs: &Model) {
        for (path, node) in &self.nodes {
            let Some(other) = theirs.nodes.get(path) else { panic!("{path} is missing") };
            let mut other = other.clone();
            if is_usage(path) {
                other.data = node.data.clone();
            }
            assert_eq!(other, *node, "{path}");
        }
        assert_eq!(theirs.nodes.len(), self.nodes.len(), "there are nodes that should not be");
    }

    fn check_figures(&self, state: &State, theirs: &Model) {
        let tree = state.tree();
        assert_eq!(tree.len(), self.nodes.len());
        let bytes = |(path, node): (&String, &Node)| {
            (if path == "/" { 0 } else { path.len() }) + node.data.as_ref().map_or(0, Vec::len)
        };
        assert_eq!(state.approximate_data_size(), theirs.nodes.iter().map(bytes).sum::<usize>() as u64);
        for path in theirs.nodes.keys() {
            let id = tree.lookup(path).unwrap_or_else(|| panic!("{path} cannot be looked up"));
            assert_eq!(state.stat(id), theirs.stat(path), "{path}");
            assert_eq!(tree.node(id).descendants() as usize, self.below(path).count(), "{path}");
        }
        let mut owned = 0;
        for session in state.sessions_with_ephemerals() {
            let mut paths: Vec<String> = state.ephemerals_of(session);
            paths.sort_unstable();
            assert_eq!(paths, self.owned_by(session));
            assert!(self.sessions.contains_key(&session), "ephemerals of {session}, which has ended");
            owned += paths.len();
        }
        let with_owner = |test: fn(i64) -> bool| self.nodes.values().filter(|n| test(n.stat.ephemeral_owner)).count();
        assert_eq!(state.ephemerals_count(), owned);
        assert_eq!(owned, with_owner(|raw| raw > 0));
        assert_eq!(state.containers().len(), with_owner(|raw| raw == CONTAINER_OWNER));
        assert_eq!(state.ttls().len(), with_owner(|raw| raw < 0 && raw != CONTAINER_OWNER));
        self.check_quotas(state);
    }

    fn check_quotas(&self, state: &State) {
        let subject = |path: &String| {
            let inside = path.strip_prefix("/zookeeper/quota")?.strip_suffix("/zookeeper_limits")?;
            inside.starts_with('/').then(|| inside.to_owned())
        };
        let limited: BTreeSet<String> = self.nodes.keys().filter_map(subject).collect();
        let theirs: BTreeSet<String> = state.quotas().iter().map(str::to_owned).collect();
        assert_eq!(theirs, limited, "the paths with a quota");
    }
}
