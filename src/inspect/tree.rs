//! A snapshot in memory, as it stands in its file: nodes in their order, sessions, lists. For tools that look at it from
//! several sides; a server's own form of it is `state`. Used by `snapshot`, and by `scripts`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::config::Compression;
use crate::ids::{SessionId, Zxid};
use crate::inspect::{FOUND, Failure, progress};
use crate::records::{Acl, Owner, OwnerRules, StatPersisted};
use crate::state::LoadError;
use crate::storage::names;
use crate::storage::snapshot::{self, Loaded, SnapshotSink};

/// One node.
#[derive(Debug)]
pub struct Node {
    /// From the root, which is "".
    pub path: String,
    /// Data; null is kept.
    pub data: Option<Box<[u8]>>,
    /// Its list in [`Tree::acls`]; -1 is world:anyone:cdrwa.
    pub acl: i64,
    /// As stored.
    pub stat: StatPersisted,
    /// Places in [`Tree::nodes`], in the order of the file.
    pub children: Vec<usize>,
}

impl Node {
    /// Bytes of data.
    pub fn bytes(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.len() as u64)
    }

    /// As people write it.
    pub fn shown_path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }
}

/// A whole snapshot. The root is the first node.
#[derive(Debug, Default)]
pub struct Tree {
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// Sessions and timeouts in ms, in the order of the file.
    pub sessions: Vec<(SessionId, i32)>,
    /// Access lists by their index in the file.
    pub acls: BTreeMap<i64, Vec<Acl>>,
    by_path: HashMap<String, usize>,
    /// The ids of the sessions.
    live: HashSet<SessionId>,
}

impl Tree {
    /// Reads a snapshot whole, every seal checked. Damage is a failure with code 1.
    pub fn read(path: &Path) -> Result<(Tree, Loaded), Failure> {
        let mut tree = Tree::default();
        let loaded = read_into(path, &mut tree)?;
        Ok((tree, loaded))
    }

    /// The node with this path.
    pub fn find(&self, path: &str) -> Option<&Node> {
        self.by_path.get(path.trim_end_matches('/')).map(|at| &self.nodes[*at])
    }

    /// A node's list; `None` if the file lacks it.
    pub fn acl_of(&self, node: &Node) -> Option<Vec<Acl>> {
        if node.acl == -1 { Some(Acl::open()) } else { self.acls.get(&node.acl).cloned() }
    }

    /// Nodes and bytes of data at and below each node, by place.
    pub fn weights(&self) -> Vec<(u64, u64)> {
        let mut weights: Vec<(u64, u64)> = self.nodes.iter().map(|node| (1, node.bytes())).collect();
        // Children stand behind their parents.
        for at in (0..self.nodes.len()).rev() {
            for child in &self.nodes[at].children {
                let (nodes, bytes) = weights[*child];
                weights[at].0 += nodes;
                weights[at].1 += bytes;
            }
        }
        weights
    }

    /// Who keeps a node alive. The key that decides what a TTL node is is not in the file: a session that is there owns its
    /// nodes, else every feature is read.
    pub fn owner(&self, node: &Node) -> Owner {
        let session = SessionId(node.stat.ephemeral_owner);
        if self.live.contains(&session) {
            return Owner::Session(session);
        }
        let rules = OwnerRules { extended_types: true, emulate_353: false };
        rules.decode(session.0).unwrap_or(Owner::Session(session))
    }

    /// The place of a node.
    pub fn place(&self, path: &str) -> Option<usize> {
        self.by_path.get(path.trim_end_matches('/')).copied()
    }

    /// Places sorted by path.
    pub fn sorted(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.nodes.len()).collect();
        places.sort_unstable_by(|a, b| self.nodes[*a].path.cmp(&self.nodes[*b].path));
        places
    }
}

/// Reads a snapshot into a sink, with progress.
pub fn read_into(path: &Path, sink: &mut impl SnapshotSink) -> Result<Loaded, Failure> {
    if path.is_dir() {
        // Opening it would go well, and reading it look like damage.
        return Err(Failure::unable(format!("{}: it is a folder; name a snapshot in it", path.display())));
    }
    let (bar, reader) = progress::file(path).map_err(Failure::at(path))?;
    let loaded = snapshot::load(compression(path).reader(reader), sink);
    bar.finish_and_clear();
    loaded.map_err(|error| Failure { code: FOUND, message: format!("{}: {error}", path.display()) })
}

/// By the file's name.
pub fn compression(path: &Path) -> Compression {
    Compression::of_name(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// The zxid in a snapshot's name.
pub fn zxid_of_name(path: &Path) -> Option<Zxid> {
    names::parse_snapshot(path.file_name()?.to_str()?).map(|(zxid, _)| zxid)
}

impl SnapshotSink for Tree {
    fn session(&mut self, id: SessionId, timeout_ms: i32) {
        self.sessions.push((id, timeout_ms));
        self.live.insert(id);
    }

    fn acl(&mut self, index: i64, list: Vec<Acl>) {
        self.acls.insert(index, list);
    }

    fn node(&mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: StatPersisted) -> Result<(), LoadError> {
        let at = self.nodes.len();
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = self.by_path.get(parent).ok_or_else(|| LoadError::NoParent { path: path.to_owned() })?;
            self.nodes[*parent].children.push(at);
        } else if at > 0 {
            return Err(LoadError::NoParent { path: path.to_owned() });
        }
        if self.by_path.insert(path.to_owned(), at).is_some() {
            return Err(LoadError::Twice { path: path.to_owned() });
        }
        self.nodes.push(Node { path: path.to_owned(), data: data.map(Box::from), acl, stat, children: Vec::new() });
        Ok(())
    }
}
