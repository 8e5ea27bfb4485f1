//! The znodes: an arena of nodes and one index from (parent, name) to node. Knows names, data, stats and who is whose
//! child; nothing of transactions, permissions or watches. Used by `state` alone.
//!
//! ```text
//! node:  stat 64 | payload (name, data) 16 + heap | parent, first child, siblings | prefix crc | acl | counts
//! index: 64 tables of (hash 32, node 32); names are compared in the nodes
//! ```
//! A node costs about 130 bytes beside its name and data. The index is in shards so that none of them is ever large
//! enough for its growth to hold up a request.

use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::jute::{Writer, len_i32};
use crate::parts::SHARED_BYTES_MIN;
use crate::records::{Owner, StatPersisted};
use crate::state::acl::AclId;
use crate::state::child_lists::ChildLists;
use crate::state::cut::Cut;
use crate::state::digest::{self, Prefix};

/// A node's place in the arena; places are used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// The root is always there, and always here.
    pub const ROOT: NodeId = NodeId(0);
    /// "No node" in a link.
    pub(super) const NIL: NodeId = NodeId(u32::MAX);
}

/// Name, then data. What is large is shared with those who are being sent it.
#[derive(Debug)]
enum Payload {
    Small(Box<[u8]>),
    Large(Arc<Vec<u8>>),
}

impl Payload {
    fn new(name: &str, data: Option<&[u8]>) -> Payload {
        let data = data.unwrap_or_default();
        let mut bytes = Vec::with_capacity(name.len() + data.len());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data);
        if bytes.len() < SHARED_BYTES_MIN {
            Payload::Small(bytes.into_boxed_slice())
        } else {
            Payload::Large(Arc::new(bytes))
        }
    }

    /// The bytes, unless somebody is being sent them.
    fn get_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Payload::Small(bytes) => Some(bytes),
            Payload::Large(bytes) => Arc::get_mut(bytes).map(Vec::as_mut_slice),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Small(bytes) => bytes,
            Payload::Large(bytes) => bytes,
        }
    }
}

/// One znode.
#[derive(Debug)]
pub struct Node {
    /// What is stored of it beside name and data. Change it only through [`Tree::update`].
    stat: StatPersisted,
    payload: Payload,
    name_len: u32,
    prefix: Prefix,
    acl: AclId,
    parent: NodeId,
    first_child: NodeId,
    next: NodeId,
    previous: NodeId,
    num_children: u32,
    /// The last snapshot cut that has this node in it already.
    cut: u16,
    data_is_null: bool,
    counts: bool,
    in_use: bool,
}

impl Node {
    /// The last component of its path; empty for the root.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.payload[..self.name_len as usize]).expect("names are stored from strings")
    }

    fn is(&self, parent: NodeId, name: &str) -> bool {
        self.parent == parent && &self.payload[..self.name_len as usize] == name.as_bytes()
    }

    /// Its data; null and empty are different.
    pub fn data(&self) -> Option<&[u8]> {
        if self.data_is_null { None } else { Some(&self.payload[self.name_len as usize..]) }
    }

    /// Its data, to be sent without a copy: what holds it, and from where on it is data. Only if it is large.
    pub fn shared_data(&self) -> Option<(Arc<Vec<u8>>, usize)> {
        match &self.payload {
            Payload::Large(bytes) if !self.data_is_null => Some((Arc::clone(bytes), self.name_len as usize)),
            _ => None,
        }
    }

    /// Bytes of data; 0 for null.
    pub fn data_len(&self) -> usize {
        self.payload.len() - self.name_len as usize
    }

    /// What is stored beside name and data.
    pub fn stat(&self) -> &StatPersisted {
        &self.stat
    }

    /// Its list.
    pub fn acl(&self) -> AclId {
        self.acl
    }

    /// Direct children.
    pub fn num_children(&self) -> u32 {
        self.num_children
    }

    /// Its parent; the root is its own.
    pub fn parent(&self) -> NodeId {
        self.parent
    }

    /// CRC over path and data.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Its part of the tree's digest.
    pub fn digest(&self) -> u64 {
        if self.counts { self.prefix.node_digest(&self.stat) } else { 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    hash: u32,
    node: NodeId,
}

const SHARDS: usize = 64;

/// All znodes.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    index: Vec<HashTable<IndexEntry>>,
    hasher: foldhash::fast::RandomState,
    digest: u64,
    /// Bytes of all paths and data.
    bytes: u64,
    lists: ChildLists,
    /// The snapshot that is being taken, if one is.
    cut: Option<Cut>,
    cut_generation: u16,
}

/// hashbrown looks at the top and the bottom bits: spread 32 over 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// A root with empty data and a stat of zeros.
    pub fn new() -> Tree {
        let mut tree = Tree {
            nodes: Vec::new(),
            free: Vec::new(),
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            digest: 0,
            bytes: 0,
            lists: ChildLists::default(),
            cut: None,
            cut_generation: 0,
        };
        let root = tree.place(tree.new_node(NodeId::ROOT, "", "", Some(&[]), AclId::OPEN, StatPersisted::default()));
        debug_assert_eq!(root, NodeId::ROOT);
        tree.digest = tree.node(root).digest();
        tree
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Never: the root is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Sum of all node digests.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of all paths and data.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    fn hash(&self, parent: NodeId, name: &str) -> u32 {
        // foldhash mixes well enough for any 32 bits to do.
        self.hasher.hash_one((parent.0, name.as_bytes())) as u32
    }

    fn shard(hash: u32) -> usize {
        (hash >> 16) as usize % SHARDS
    }

    /// The node with this full path; "" and "/" are the root. Odd paths simply do not exist.
    pub fn lookup(&self, path: &str) -> Option<NodeId> {
        if path.is_empty() || path == "/" {
            return Some(NodeId::ROOT);
        }
        path.strip_prefix('/')?.split('/').try_fold(NodeId::ROOT, |at, name| self.child(at, name))
    }

    /// The child with this name.
    pub fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let hash = self.hash(parent, name);
        let is_it = |e: &IndexEntry| e.hash == hash && self.node(e.node).is(parent, name);
        self.index[Self::shard(hash)].find(spread(hash), is_it).map(|e| e.node)
    }

    fn new_node(
        &self,
        parent: NodeId,
        path: &str,
        name: &str,
        data: Option<&[u8]>,
        acl: AclId,
        stat: StatPersisted,
    ) -> Node {
        Node {
            stat,
            payload: Payload::new(name, data),
            name_len: u32::try_from(name.len()).expect("paths are bounded by the frame"),
            prefix: Prefix::of(path, data),
            acl,
            parent,
            first_child: NodeId::NIL,
            next: NodeId::NIL,
            previous: NodeId::NIL,
            num_children: 0,
            // Not part of a cut that is being taken: it came later.
            cut: self.cut_generation,
            data_is_null: data.is_none(),
            counts: digest::counts(path),
            in_use: true,
        }
    }

    fn place(&mut self, node: Node) -> NodeId {
        match self.free.pop() {
            Some(id) => {
                self.nodes[id.0 as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                NodeId(u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit into memory"))
            }
        }
    }

    /// Adds a child; `None` when there is one of that name. `path` is its full path, which ends in `name`. The parent's
    /// counters are the caller's business (they depend on the transaction), its number of children is kept here.
    pub fn insert(
        &mut self,
        parent: NodeId,
        name: &str,
        path: &str,
        data: Option<&[u8]>,
        acl: AclId,
        stat: StatPersisted,
    ) -> Option<NodeId> {
        let hash = self.hash(parent, name);
        let is_it = |e: &IndexEntry| e.hash == hash && self.nodes[e.node.0 as usize].is(parent, name);
        let shard = &mut self.index[Self::shard(hash)];
        let Entry::Vacant(vacancy) = shard.entry(spread(hash), is_it, |e| spread(e.hash)) else { return None };
        // The place that `place` will give.
        let id = self
            .free
            .last()
            .copied()
            .unwrap_or(NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes fit into memory")));
        vacancy.insert(IndexEntry { hash, node: id });
        let node = self.new_node(parent, path, name, data, acl, stat);
        self.digest = self.digest.wrapping_add(node.digest());
        self.bytes += (path.len() + node.data_len()) as u64;
        let placed = self.place(node);
        debug_assert_eq!(placed, id);
        self.link(parent, id);
        Some(id)
    }

    fn link(&mut self, parent: NodeId, id: NodeId) {
        self.lists.on_changed(parent);
        let first = self.node(parent).first_child;
        self.node_mut(id).next = first;
        if first != NodeId::NIL {
            self.node_mut(first).previous = id;
        }
        let parent = self.node_mut(parent);
        parent.first_child = id;
        parent.num_children += 1;
    }

    /// Removes a node without children, other than the root. The caller releases its ACL.
    pub fn remove(&mut self, id: NodeId) {
        debug_assert!(id != NodeId::ROOT && self.node(id).num_children == 0);
        self.preserve(id);
        let node = self.node(id);
        let hash = self.hash(node.parent, node.name());
        let (digest, bytes) = (node.digest(), (self.path_len(id) + node.data_len()) as u64);
        if let Ok(entry) = self.index[Self::shard(hash)].find_entry(spread(hash), |e| e.node == id) {
            entry.remove();
        }
        self.digest = self.digest.wrapping_sub(digest);
        self.bytes -= bytes;
        self.unlink(id);
        let node = self.node_mut(id);
        node.payload = Payload::Small(Box::default());
        node.name_len = 0;
        node.in_use = false;
        self.free.push(id);
    }

    fn unlink(&mut self, id: NodeId) {
        let Node { parent, next, previous, .. } = *self.node(id);
        self.lists.on_changed(parent);
        if next != NodeId::NIL {
            self.node_mut(next).previous = previous;
        }
        if previous != NodeId::NIL {
            self.node_mut(previous).next = next;
        }
        let parent = self.node_mut(parent);
        if parent.first_child == id {
            parent.first_child = next;
        }
        parent.num_children -= 1;
    }

    /// Changes a node's stat; the digest follows.
    pub fn update(&mut self, id: NodeId, change: impl FnOnce(&mut StatPersisted)) {
        self.preserve(id);
        let node = &mut self.nodes[id.0 as usize];
        let before = node.digest();
        change(&mut node.stat);
        let after = node.digest();
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
    }

    /// Replaces a node's data and changes its stat.
    pub fn set_data(&mut self, id: NodeId, path: &str, data: Option<&[u8]>, change: impl FnOnce(&mut StatPersisted)) {
        self.preserve(id);
        let node = &mut self.nodes[id.0 as usize];
        let (before, bytes_before) = (node.digest(), node.data_len() as u64);
        let new_len = data.map_or(0, <[u8]>::len);
        let name_len = node.name_len as usize;
        let has_length = new_len == node.payload.len() - name_len;
        match node.payload.get_mut().filter(|_| has_length) {
            // Same size, as most updates are: keep the allocation.
            Some(bytes) => bytes[name_len..].copy_from_slice(data.unwrap_or_default()),
            None => node.payload = Payload::new(node.name(), data),
        }
        node.data_is_null = data.is_none();
        node.prefix = Prefix::of(if id == NodeId::ROOT { "" } else { path }, data);
        change(&mut node.stat);
        let after = node.digest();
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
        self.bytes = self.bytes - bytes_before + new_len as u64;
    }

    /// Replaces a node's list and changes its stat. The caller keeps the table's counts.
    pub fn set_acl(&mut self, id: NodeId, acl: AclId, change: impl FnOnce(&mut StatPersisted)) {
        self.update(id, change);
        self.node_mut(id).acl = acl;
    }

    /// The children, newest first.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut at = self.node(id).first_child;
        std::iter::from_fn(move || {
            let child = at;
            (child != NodeId::NIL).then(|| {
                at = self.node(child).next;
                child
            })
        })
    }

    /// Writes the names of the children, as lists of them are sent.
    pub fn write_children(&self, id: NodeId, out: &mut Vec<u8>) {
        out.put_int(len_i32(self.node(id).num_children() as usize));
        self.children(id).for_each(|child| out.put_string(self.node(child).name()));
    }

    /// The same for all who ask while it is being sent to one of them, and no child came or went.
    pub(super) fn list_children(&mut self, id: NodeId) -> Arc<Vec<u8>> {
        if let Some(list) = self.lists.get(id) {
            return list;
        }
        let mut list = Vec::new();
        self.write_children(id, &mut list);
        list.shrink_to_fit();
        self.lists.share(id, list)
    }

    /// Writes the full path of a node; "" for the root.
    pub fn write_path(&self, id: NodeId, out: &mut String) {
        out.clear();
        let mut line = Vec::with_capacity(8);
        let mut at = id;
        while at != NodeId::ROOT {
            line.push(at);
            at = self.node(at).parent;
        }
        for id in line.into_iter().rev() {
            out.push('/');
            out.push_str(self.node(id).name());
        }
    }

    fn path_len(&self, id: NodeId) -> usize {
        let (mut at, mut len) = (id, 0);
        while at != NodeId::ROOT {
            len += 1 + self.node(at).name_len as usize;
            at = self.node(at).parent;
        }
        len
    }

    /// The full path of a node; "" for the root.
    pub fn path(&self, id: NodeId) -> String {
        let mut path = String::new();
        self.write_path(id, &mut path);
        path
    }

    /// Number of nodes below this one.
    pub fn descendants(&self, id: NodeId) -> usize {
        if id == NodeId::ROOT {
            return self.len() - 1;
        }
        self.subtree(id).count() - 1
    }

    /// The node and all below it, parents before children.
    pub fn subtree(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut open = vec![id];
        std::iter::from_fn(move || {
            let at = open.pop()?;
            open.extend(self.children(at));
            Some(at)
        })
    }

    /// The owner as stored.
    pub fn raw_owner(&self, id: NodeId) -> i64 {
        self.node(id).stat.ephemeral_owner
    }

    /// Whether children are forbidden: it is a session's ephemeral.
    pub fn is_ephemeral(&self, id: NodeId, rules: crate::records::OwnerRules) -> bool {
        matches!(rules.decode(self.raw_owner(id)), Ok(Owner::Session(_)))
    }

    // ---- the snapshot cut: see `cut` ----

    /// Begins a cut: from now on every node is written to it as it is at this moment.
    pub(super) fn begin_cut(&mut self) {
        self.cut_generation = self.cut_generation.wrapping_add(1);
        self.cut = Some(Cut::default());
    }

    /// Gives up the cut that is being taken, if any.
    pub(super) fn abandon_cut(&mut self) {
        self.cut = None;
    }

    /// Whether a cut is being taken.
    pub(super) fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// Moves on by about `bytes_wanted` and gives what is ready. `true`: that was all, the cut is complete.
    pub(super) fn cut_slice(&mut self, bytes_wanted: usize) -> (Vec<u8>, bool) {
        let Some(mut cut) = self.cut.take() else { return (Vec::new(), true) };
        while cut.out.len() < bytes_wanted && (cut.next_slot as usize) < self.nodes.len() {
            let id = NodeId(cut.next_slot);
            cut.next_slot += 1;
            if self.node(id).in_use {
                self.write_to_cut(id, &mut cut);
            }
        }
        let bytes = std::mem::take(&mut cut.out);
        let done = cut.next_slot as usize >= self.nodes.len();
        if !done {
            self.cut = Some(cut);
        }
        (bytes, done)
    }

    /// Before a node changes: it goes into the cut as it is.
    fn preserve(&mut self, id: NodeId) {
        if let Some(mut cut) = self.cut.take() {
            self.write_to_cut(id, &mut cut);
            self.cut = Some(cut);
        }
    }

    /// Writes a node that is not in the cut yet, its ancestors first: readers want parents before children.
    fn write_to_cut(&mut self, id: NodeId, cut: &mut Cut) {
        let mut line = Vec::with_capacity(8);
        let mut at = id;
        while self.node(at).cut != self.cut_generation {
            line.push(at);
            if at == NodeId::ROOT {
                break;
            }
            at = self.node(at).parent;
        }
        for id in line.into_iter().rev() {
            self.write_path(id, &mut cut.path);
            let generation = self.cut_generation;
            let node = self.node_mut(id);
            node.cut = generation;
            cut.write_node(self.node(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_with(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            let parent = tree.lookup(path.rsplit_once('/').expect("absolute").0).expect("parents come first");
            let name = path.rsplit('/').next().expect("absolute");
            tree.insert(parent, name, path, Some(b"x"), AclId::OPEN, StatPersisted::default());
        }
        tree
    }

    #[test]
    fn nodes_are_found_by_path_and_odd_paths_are_not() {
        let tree = tree_with(&["/a", "/a/b", "/c"]);
        let b = tree.lookup("/a/b").expect("it was added");
        assert_eq!(tree.path(b), "/a/b");
        assert_eq!(tree.lookup(""), Some(NodeId::ROOT));
        for odd in ["/a/", "a", "//", "/a//b", "/b"] {
            assert_eq!(tree.lookup(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_digest_of_a_tree_does_not_depend_on_its_history() {
        let mut tree = tree_with(&["/a", "/a/b", "/c"]);
        let before = tree.digest();
        let a = tree.lookup("/a").expect("there");
        tree.set_data(a, "/a", Some(b"longer"), |s| s.version = 1);
        let added = tree.insert(a, "z", "/a/z", None, AclId::OPEN, StatPersisted::default()).expect("new");
        tree.remove(added);
        tree.set_data(a, "/a", Some(b"x"), |s| s.version = 0);
        assert_eq!(tree.digest(), before);
        assert_eq!(tree.len(), 4);
    }

    #[test]
    fn removal_keeps_siblings_linked_and_places_are_used_again() {
        let mut tree = tree_with(&["/1", "/2", "/3"]);
        let two = tree.lookup("/2").expect("there");
        tree.remove(two);
        let mut names: Vec<_> = tree.children(NodeId::ROOT).map(|c| tree.node(c).name().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["1", "3"]);
        let four = tree.insert(NodeId::ROOT, "4", "/4", None, AclId::OPEN, StatPersisted::default());
        assert_eq!(four, Some(two));
        assert_eq!(tree.descendants(NodeId::ROOT), 3);
    }
}
