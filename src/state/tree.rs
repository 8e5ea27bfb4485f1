//! The znodes: an arena of nodes and one index from (parent, name) to node. Knows names, data, stats and who is whose
//! child; nothing of transactions, permissions or watches. Used by `state` alone.
//!
//! ```text
//! node:  stat 64 | payload (name, data) 16 + heap | parent, first child, siblings | prefix crc | acl | numbers
//! index: 64 tables of (hash 32, node 32); names are compared in the nodes
//! ```
//! A node costs about 130 bytes beside its name and data. The index is in shards so that none of them is ever large
//! enough for its growth to hold up a request.

use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxHashSet;

use crate::ids::SessionId;
use crate::jute::{Writer, len_i32};
use crate::limits::LISTED_AT_ONCE;
use crate::parts::{Rope, SHARED_BYTES_MIN};
use crate::records::{Owner, StatPersisted};
use crate::state::acl::AclId;
use crate::state::cut::Cut;
use crate::state::digest::{self, Prefix};
use crate::state::lists::{Listed, Lists, Rest};
use crate::state::touched::{Touched, Trace};

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
    descendants: u32,
    /// The last snapshot cut that has this node in it already.
    cut: u16,
    data_is_null: bool,
    counts: bool,
}

/// A larger node is felt in every host: there are millions of them.
const _: () = assert!(size_of::<Node>() == 120);

impl Node {
    /// The last component of its path; empty for the root.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).expect("names are stored from strings")
    }

    fn name_bytes(&self) -> &[u8] {
        &self.payload[..self.name_len as usize]
    }

    fn is(&self, parent: NodeId, name: &str) -> bool {
        self.parent == parent && self.name_bytes() == name.as_bytes()
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

    /// All nodes below it.
    pub fn descendants(&self) -> u32 {
        self.descendants
    }

    /// Whether it is a node, and not a free place.
    pub fn is_in_use(&self) -> bool {
        self.parent != NodeId::NIL
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

/// Bytes of a name, and of a path, that a list is expected to have, at most.
const NAME_BYTES_EXPECTED_MAX: u32 = 64;
const PATH_BYTES_EXPECTED_MAX: usize = 128;

/// Full paths of nodes, one after the other. Most are siblings of the one before, and their parent's path is walked up to
/// once.
#[derive(Debug)]
pub(super) struct Paths {
    parent: NodeId,
    parent_len: usize,
    path: String,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { parent: NodeId::ROOT, parent_len: 0, path: String::new() }
    }
}

impl Paths {
    /// Of a node other than the root.
    pub fn of(&mut self, tree: &Tree, id: NodeId) -> &str {
        let node = tree.node(id);
        if node.parent() != self.parent {
            self.parent = node.parent();
            tree.write_path(self.parent, &mut self.path);
            self.parent_len = self.path.len();
        }
        self.path.truncate(self.parent_len);
        self.path.push('/');
        self.path.push_str(node.name());
        &self.path
    }
}

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
    /// Long lists that somebody asked for.
    lists: Lists,
    listed_at_once: usize,
    /// Nodes with more children than are listed at once.
    wide: usize,
    /// The snapshot that is being taken, if one is.
    cut: Option<Cut>,
    cut_generation: u16,
    /// What changed, while somebody is to be told of that.
    touched: Option<Touched>,
}

/// hashbrown looks at the top and the bottom bits: spread 32 over 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash(hasher: &foldhash::fast::RandomState, parent: NodeId, name: &[u8]) -> u32 {
    // foldhash mixes well enough for any 32 bits to do.
    hasher.hash_one((parent.0, name)) as u32
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new(LISTED_AT_ONCE)
    }
}

impl Tree {
    /// A root with empty data and a stat of zeros. So many names are put into a long list at a time.
    pub fn new(listed_at_once: usize) -> Tree {
        let mut tree = Tree {
            nodes: Vec::new(),
            free: Vec::new(),
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            digest: 0,
            bytes: 0,
            lists: Lists::default(),
            listed_at_once,
            wide: 0,
            cut: None,
            cut_generation: 0,
            touched: None,
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
        hash(&self.hasher, parent, name.as_bytes())
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
            descendants: 0,
            // Not part of a cut that is being taken: it came later.
            cut: self.cut_generation,
            data_is_null: data.is_none(),
            counts: digest::counts(path),
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
        self.link(parent, id, hash);
        Some(id)
    }

    fn link(&mut self, parent: NodeId, id: NodeId, hash_of_id: u32) {
        let Tree { nodes, lists, hasher, .. } = self;
        let name = nodes[id.0 as usize].name_bytes();
        lists.on_come(Listed::Children(parent), hash_of_id, name, &|name| hash(hasher, parent, name));
        let first = self.node(parent).first_child;
        self.node_mut(id).next = first;
        if first != NodeId::NIL {
            self.node_mut(first).previous = id;
        }
        let above = self.node_mut(parent);
        above.first_child = id;
        above.num_children += 1;
        self.wide += usize::from(self.node(parent).num_children as usize == self.listed_at_once + 1);
        self.touch(parent);
        self.touch(id);
        self.count_below(id, |descendants| descendants + 1);
    }

    /// A node comes or goes: all above it have one descendant more or less.
    fn count_below(&mut self, id: NodeId, change: impl Fn(u32) -> u32) {
        let mut at = id;
        while at != NodeId::ROOT {
            at = self.node(at).parent;
            let above = self.node_mut(at);
            above.descendants = change(above.descendants);
        }
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
        self.unlink(id, hash);
        let node = self.node_mut(id);
        node.payload = Payload::Small(Box::default());
        node.name_len = 0;
        node.parent = NodeId::NIL;
        self.free.push(id);
    }

    fn unlink(&mut self, id: NodeId, hash: u32) {
        let Node { parent, next, previous, .. } = *self.node(id);
        self.touch(parent);
        self.touch(id);
        self.lists.on_child_gone(parent, id, next, hash, self.nodes[id.0 as usize].name_bytes());
        if next != NodeId::NIL {
            self.node_mut(next).previous = previous;
        }
        if previous != NodeId::NIL {
            self.node_mut(previous).next = next;
        }
        let above = self.node_mut(parent);
        if above.first_child == id {
            above.first_child = next;
        }
        above.num_children -= 1;
        self.wide -= usize::from(self.node(parent).num_children as usize == self.listed_at_once);
        self.count_below(id, |descendants| descendants - 1);
    }

    /// Changes a node's stat; the digest follows.
    pub fn update(&mut self, id: NodeId, change: impl FnOnce(&mut StatPersisted)) {
        self.preserve(id);
        let node = &mut self.nodes[id.0 as usize];
        let before = node.digest();
        change(&mut node.stat);
        let after = node.digest();
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
        self.touch(id);
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
        self.touch(id);
    }

    /// This node is not what it was, or is no more.
    fn touch(&mut self, id: NodeId) {
        if self.touched.is_some() {
            let trace = self.trace(&self.path(id));
            self.touched.iter_mut().for_each(|touched| touched.add(trace));
        }
    }

    /// What paths are touched is noted from now on.
    pub(super) fn note_touched(&mut self) {
        self.touched.get_or_insert_with(Touched::new).clear();
    }

    /// It need not be noted any more.
    pub(super) fn end_touched(&mut self) {
        self.touched = None;
    }

    /// Whether something changed.
    pub(super) fn is_touched(&self) -> bool {
        self.touched.as_ref().is_some_and(|touched| !touched.is_empty())
    }

    /// Whether a node at this path came, went, or changed; maybe so, if it is said.
    pub(super) fn has_touched(&self, trace: Trace) -> bool {
        self.touched.as_ref().is_some_and(|touched| touched.has(trace))
    }

    /// By which a path is asked for later.
    pub(super) fn trace(&self, path: &str) -> Trace {
        Trace::of(path, &self.hasher)
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

    /// Writes a list that is kept; `false` if it is not.
    pub(super) fn write_listed(&mut self, listed: Listed, out: &mut Vec<u8>) -> bool {
        self.lists.write(listed, out)
    }

    /// Whether there is a node whose children are not listed at once.
    pub fn is_wide(&self) -> bool {
        self.wide > 0
    }

    /// Whether the names of the children are kept as they are sent, or there are none.
    pub fn is_listed(&self, id: NodeId) -> bool {
        self.node(id).num_children == 0 || self.lists.is_made(Listed::Children(id))
    }

    /// Whether the paths of a session's ephemerals are kept as they are sent.
    pub(super) fn has_listed(&self, session: SessionId) -> bool {
        self.lists.is_made(Listed::Ephemerals(session))
    }

    /// Whether a list was begun and is not complete.
    pub(super) fn is_being_listed(&self, listed: Listed) -> bool {
        self.lists.is_being_made(listed)
    }

    /// Somebody waits for a list, which was begun: it is made, and kept until as many released it.
    pub(super) fn await_list(&mut self, listed: Listed) {
        self.lists.on_awaited(listed);
    }

    /// Somebody waits no more.
    pub(super) fn release_list(&mut self, listed: Listed) {
        self.lists.on_released(listed);
    }

    /// A list of children begins, if there is none.
    pub(super) fn begin_children(&mut self, id: NodeId) {
        let Node { first_child, num_children, .. } = *self.node(id);
        if !self.lists.has(Listed::Children(id)) {
            // Names of siblings are mostly of a size. One that is not must not decide: more pieces come as names do.
            let first = self.nodes.get(first_child.0 as usize).map_or(0, |child| child.name_len);
            let bytes = num_children as usize * (4 + first.min(NAME_BYTES_EXPECTED_MAX) as usize);
            self.lists.begin(Listed::Children(id), Rest::Children(first_child), bytes);
        }
    }

    /// A list of these ephemerals of a session begins, if there is none.
    pub(super) fn begin_ephemerals<'a>(&mut self, session: SessionId, ids: impl Iterator<Item = &'a NodeId>) {
        let listed = Listed::Ephemerals(session);
        if !self.lists.has(listed) {
            let noted: Vec<NodeId> = ids.copied().collect();
            let first = noted.first().map_or(0, |&id| self.path_len(id).min(PATH_BYTES_EXPECTED_MAX));
            let bytes = noted.len() * (4 + first);
            self.lists.begin(listed, Rest::Ephemerals { noted, gone: FxHashSet::default() }, bytes);
        }
    }

    /// Goes on with lists that are awaited by as many names as are put into them at a time: with each in turn; where that many
    /// bytes are kept already, with these alone, one behind the other.
    pub(super) fn list_some(&mut self, mut first: &[Listed], kept_bytes_max: usize) {
        self.lists.bound(kept_bytes_max);
        let mut left = self.listed_at_once;
        while left > 0 {
            while first.first().is_some_and(|&listed| !self.is_being_listed(listed)) {
                first = &first[1..];
            }
            let next = match self.lists.bytes() > kept_bytes_max {
                true => first.first().copied(),
                false => self.lists.take_turn(),
            };
            match next.map_or(0, |listed| self.list_next(listed, left)) {
                0 => return,
                listed => left -= listed,
            }
        }
    }

    /// Puts so many more names into a list, or all that are left. Gives how many there were.
    fn list_next(&mut self, listed: Listed, count: usize) -> usize {
        match listed {
            Listed::Children(parent) => self.list_next_children(parent, count),
            Listed::Ephemerals(session) => self.list_next_ephemerals(session, count),
        }
    }

    fn list_next_children(&mut self, parent: NodeId, count: usize) -> usize {
        let Tree { nodes, lists, hasher, .. } = self;
        let hash_of = |name: &[u8]| hash(hasher, parent, name);
        let mut at = lists.next_of(parent);
        for listed in 0..count {
            if at == NodeId::NIL {
                return listed;
            }
            let child = &nodes[at.0 as usize];
            lists.put_child(parent, hash_of(child.name_bytes()), child.name_bytes(), child.next, &hash_of);
            at = child.next;
        }
        count
    }

    fn list_next_ephemerals(&mut self, session: SessionId, count: usize) -> usize {
        let mut paths = Paths::default();
        for listed in 0..count {
            let Some(id) = self.lists.take_ephemeral(session) else { return listed };
            let path = paths.of(self, id).as_bytes();
            let Tree { lists, hasher, .. } = self;
            let hash_of = |path: &[u8]| hash(hasher, NodeId::ROOT, path);
            lists.put_ephemeral(session, hash_of(path), path, &hash_of);
        }
        count
    }

    /// A node has come that is an ephemeral of this session.
    pub(super) fn on_ephemeral(&mut self, session: SessionId, id: NodeId) {
        if self.lists.has(Listed::Ephemerals(session)) {
            let path = self.path(id);
            let Tree { lists, hasher, .. } = self;
            let hash_of = |path: &[u8]| hash(hasher, NodeId::ROOT, path);
            lists.on_come(Listed::Ephemerals(session), hash_of(path.as_bytes()), path.as_bytes(), &hash_of);
        }
    }

    /// That ephemeral goes.
    pub(super) fn on_ephemeral_gone(&mut self, session: SessionId, id: NodeId) {
        if self.lists.has(Listed::Ephemerals(session)) {
            let path = self.path(id);
            let hash = hash(&self.hasher, NodeId::ROOT, path.as_bytes());
            self.lists.on_ephemeral_gone(session, id, hash, path.as_bytes());
        }
    }

    /// All ephemerals of a session go: there is nothing left to be listed.
    pub(super) fn on_session_ends(&mut self, session: SessionId) {
        self.lists.forget(Listed::Ephemerals(session));
    }

    /// A list, as it is sent: made at once, as far as that is not done. It was begun.
    pub(super) fn list(&mut self, listed: Listed) -> Arc<Rope> {
        self.list_next(listed, usize::MAX);
        self.lists.whole(listed)
    }

    /// Of lists that nobody waits for, about so many bytes are kept at most.
    pub(super) fn bound_lists(&mut self, kept_bytes_max: usize) {
        self.lists.bound(kept_bytes_max);
    }

    /// Gives up lists that nobody asked for since the last call.
    pub(super) fn forget_unwanted_lists(&mut self) {
        self.lists.forget_unwanted();
    }

    /// Bytes of lists that are kept.
    pub fn listed_bytes(&self) -> usize {
        self.lists.bytes()
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
            if self.node(id).is_in_use() {
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
mod tests;
