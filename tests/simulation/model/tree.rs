//! The nodes, now and as they were after any transaction, and what changes them. Plain maps: slow, and easy to believe.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rookeeper::ids::Zxid;
use rookeeper::records::Acl;

use super::answer::Stat;
use super::code::{self, Code};

/// Whose a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Nobody,
    Session(i64),
    Container,
    Ttl(i64),
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    pub data: Option<Rc<[u8]>>,
    pub acl: Rc<[Acl]>,
    pub owner: Owner,
    pub children: Rc<BTreeSet<String>>,
    /// Children that were ever made: the number of the next sequential one.
    pub made: i32,
    pub created: Zxid,
    pub modified: Zxid,
    pub child_changed: Zxid,
    pub created_ms: i64,
    pub modified_ms: i64,
    pub version: i32,
    pub acl_version: i32,
}

impl Node {
    fn reserved(children: &[&str], acl: Rc<[Acl]>, acl_version: i32) -> Node {
        Node {
            data: Some(Rc::from([])),
            acl,
            owner: Owner::Nobody,
            children: Rc::new(children.iter().map(|name| (*name).to_owned()).collect()),
            made: 0,
            created: Zxid::ZERO,
            modified: Zxid::ZERO,
            child_changed: Zxid::ZERO,
            created_ms: 0,
            modified_ms: 0,
            version: 0,
            acl_version,
        }
    }

    pub fn stat(&self) -> Stat {
        let num_children = self.children.len() as i32;
        Stat {
            czxid: self.created.0,
            mzxid: self.modified.0,
            ctime: self.created_ms,
            mtime: self.modified_ms,
            version: self.version,
            cversion: self.made.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.acl_version,
            ephemeral_owner: if let Owner::Session(session) = self.owner { session } else { 0 },
            data_length: self.data.as_ref().map_or(0, |data| data.len() as i32),
            num_children,
            pzxid: self.child_changed.0,
        }
    }
}

/// What happened to a node, by the number of its event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Created = 1,
    Deleted = 2,
    DataChanged = 3,
    ChildrenChanged = 4,
}

/// Something that watches may be left for.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: Kind,
    pub path: Rc<str>,
    /// Of the node that it is about, then.
    pub acl: Rc<[Acl]>,
}

/// When and by which transaction.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub zxid: Zxid,
    pub time_ms: i64,
}

/// What a node was, from which transaction on.
type Past = Vec<(Zxid, Option<Rc<Node>>)>;

/// See the module.
#[derive(Debug)]
pub struct Tree {
    nodes: BTreeMap<String, Rc<Node>>,
    past: BTreeMap<String, Past>,
    changes: Vec<(Zxid, Change)>,
    /// What the running transaction found and made.
    undo: Vec<(String, Option<Rc<Node>>)>,
    fresh: Vec<Change>,
    quotas: usize,
}

const QUOTA: &str = "/zookeeper/quota";
pub const CONFIG: &str = "/zookeeper/config";
/// What nobody deletes.
pub const RESERVED: [&str; 4] = ["/", "/zookeeper", QUOTA, CONFIG];
const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";

/// Parent and name. `None` for the root, and for what is no path.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if path == "/" {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

/// Whether a node may be called so (`PathUtils`).
pub fn is_valid(path: &str) -> bool {
    let is_good =
        |c: char| !matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff | 0x1_0000..);
    let Some(rest) = path.strip_prefix('/') else { return false };
    path.chars().all(is_good) && (rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

impl Tree {
    /// Before the first transaction.
    pub fn new() -> Tree {
        let open: Rc<[Acl]> = Rc::from([Acl::new(31, "world", "anyone")]);
        let read_only: Rc<[Acl]> = Rc::from([Acl::new(1, "world", "anyone")]);
        let mut nodes = BTreeMap::new();
        let mut add = |path: &str, node: Node| drop(nodes.insert(path.to_owned(), Rc::new(node)));
        add("/", Node::reserved(&["zookeeper"], open.clone(), 0));
        add("/zookeeper", Node::reserved(&["config", "quota"], open.clone(), 0));
        add(QUOTA, Node::reserved(&[], open, 0));
        add(CONFIG, Node { version: -1, ..Node::reserved(&[], read_only, -1) });
        let past = nodes.iter().map(|(path, node)| (path.clone(), vec![(Zxid::ZERO, Some(node.clone()))])).collect();
        Tree { nodes, past, changes: Vec::new(), undo: Vec::new(), fresh: Vec::new(), quotas: 0 }
    }

    pub fn get(&self, path: &str) -> Option<&Rc<Node>> {
        self.nodes.get(path)
    }

    pub fn require(&self, path: &str) -> Result<Rc<Node>, Code> {
        self.get(path).cloned().ok_or(code::NO_NODE)
    }

    /// The node as it was after this transaction.
    pub fn as_of(&self, path: &str, zxid: Zxid) -> Option<&Rc<Node>> {
        as_of(self.past.get(path)?, zxid)
    }

    /// All that were there after this transaction, in order.
    pub fn all_as_of(&self, zxid: Zxid) -> impl Iterator<Item = (&str, &Rc<Node>)> {
        self.past.iter().filter_map(move |(path, past)| Some((path.as_str(), as_of(past, zxid)?)))
    }

    /// What the transactions behind `after`, up to `to`, changed.
    pub fn changes(&self, after: Zxid, to: Zxid) -> &[(Zxid, Change)] {
        let from = self.changes.partition_point(|(zxid, _)| *zxid <= after);
        let end = self.changes.partition_point(|(zxid, _)| *zxid <= to);
        &self.changes[from.min(end)..end]
    }

    pub fn ephemerals_of(&self, session: i64) -> BTreeSet<String> {
        let own = self.nodes.iter().filter(|(_, node)| node.owner == Owner::Session(session));
        own.map(|(path, _)| path.clone()).collect()
    }

    // Transactions.

    /// Where a part that fails is taken back to.
    pub fn mark(&self) -> (usize, usize) {
        (self.undo.len(), self.fresh.len())
    }

    /// Nothing since the mark has been.
    pub fn take_back(&mut self, (undo, fresh): (usize, usize)) {
        for (path, node) in self.undo.split_off(undo).into_iter().rev() {
            self.set(&path, node);
        }
        self.fresh.truncate(fresh);
    }

    /// The transaction is done.
    pub fn commit(&mut self, zxid: Zxid) {
        let touched: BTreeSet<String> = self.undo.drain(..).map(|(path, _)| path).collect();
        for path in touched {
            let node = self.nodes.get(&path).cloned();
            self.past.entry(path).or_default().push((zxid, node));
        }
        self.changes.extend(self.fresh.drain(..).map(|change| (zxid, change)));
    }

    fn set(&mut self, path: &str, node: Option<Rc<Node>>) -> Option<Rc<Node>> {
        let is_new = node.is_some();
        let before = match node {
            Some(node) => self.nodes.insert(path.to_owned(), node),
            None => self.nodes.remove(path),
        };
        if path.ends_with(LIMITS) && path.starts_with(QUOTA) {
            self.quotas = self.quotas + usize::from(is_new) - usize::from(before.is_some());
        }
        before
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        let before = self.set(path, node.map(Rc::new));
        self.undo.push((path.to_owned(), before));
    }

    fn tell(&mut self, kind: Kind, path: &str, acl: &Rc<[Acl]>) {
        self.fresh.push(Change { kind, path: path.into(), acl: acl.clone() });
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get(path) {
            let mut node = Node::clone(node);
            change(&mut node);
            self.put(path, Some(node));
        }
    }

    /// A node whose parent is there.
    pub fn create(&mut self, at: Moment, path: &str, data: Option<&[u8]>, acl: Rc<[Acl]>, owner: Owner) {
        let Some((parent, name)) = split(path) else { return };
        self.change(parent, |node| {
            Rc::make_mut(&mut node.children).insert(name.to_owned());
            node.made += 1;
            node.child_changed = at.zxid;
        });
        let node = Node {
            data: data.map(Rc::from),
            acl: acl.clone(),
            owner,
            created: at.zxid,
            modified: at.zxid,
            child_changed: at.zxid,
            created_ms: at.time_ms,
            modified_ms: at.time_ms,
            ..Node::reserved(&[], acl.clone(), 0)
        };
        self.put(path, Some(node));
        if let Some(subject) = subject(path, STATS) {
            self.recount(subject);
        }
        self.use_quota(path, 1, data.map_or(0, <[u8]>::len) as i64);
        self.tell(Kind::Created, path, &acl);
        self.tell_children(parent);
    }

    pub fn delete(&mut self, at: Moment, path: &str) {
        let (Some((parent, name)), Some(node)) = (split(path), self.nodes.get(path).cloned()) else { return };
        self.put(path, None);
        self.change(parent, |node| {
            Rc::make_mut(&mut node.children).remove(name);
            node.child_changed = at.zxid;
        });
        self.use_quota(path, -1, -node.data.as_ref().map_or(0, |data| data.len() as i64));
        self.tell(Kind::Deleted, path, &node.acl);
        self.tell_children(parent);
    }

    fn tell_children(&mut self, parent: &str) {
        if let Some(acl) = self.nodes.get(parent).map(|node| node.acl.clone()) {
            self.tell(Kind::ChildrenChanged, parent, &acl);
        }
    }

    pub fn set_data(&mut self, at: Moment, path: &str, data: Option<&[u8]>, version: i32) {
        let Some(node) = self.nodes.get(path).cloned() else { return };
        self.change(path, |node| {
            node.data = data.map(Rc::from);
            (node.modified, node.modified_ms, node.version) = (at.zxid, at.time_ms, version);
        });
        let before = node.data.as_ref().map_or(0, |data| data.len() as i64);
        self.use_quota(path, 0, data.map_or(0, <[u8]>::len) as i64 - before);
        self.tell(Kind::DataChanged, path, &node.acl);
    }

    pub fn set_acl(&mut self, path: &str, acl: Rc<[Acl]>, version: i32) {
        self.change(path, |node| (node.acl, node.acl_version) = (acl, version));
    }

    // Quotas: a node with what is used, beside that with the limits, is kept up to date in place.

    /// The deepest path with limits that this one is, or is below.
    fn covering<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.quotas == 0 || path == "/zookeeper" || path.starts_with("/zookeeper/") {
            return None;
        }
        let mut at = path;
        while !at.is_empty() && at != "/" {
            if self.nodes.contains_key(&format!("{QUOTA}{at}{LIMITS}")) {
                return Some(at);
            }
            at = at.rsplit_once('/')?.0;
        }
        None
    }

    fn use_quota(&mut self, path: &str, nodes: i64, bytes: i64) {
        let Some(subject) = self.covering(path) else { return };
        let at = format!("{QUOTA}{subject}{STATS}");
        let Some(node) = self.nodes.get(&at) else { return };
        let text = String::from_utf8_lossy(node.data.as_deref().unwrap_or_default()).into_owned();
        let number = |key: &str| text.split(',').find_map(|part| part.strip_prefix(key)?.parse::<i64>().ok());
        let (count, size) = (number("count=").unwrap_or(-1), number("bytes=").unwrap_or(-1));
        self.write_usage(&at, count + nodes, size + bytes);
    }

    fn recount(&mut self, subject: &str) {
        let below = format!("{subject}/");
        let inside = self.nodes.iter().filter(|(path, _)| *path == subject || path.starts_with(&below));
        let (count, bytes) = inside.fold((0, 0), |(count, bytes), (_, node)| {
            (count + 1, bytes + node.data.as_ref().map_or(0, |data| data.len() as i64))
        });
        self.write_usage(&format!("{QUOTA}{subject}{STATS}"), count, bytes);
    }

    fn write_usage(&mut self, at: &str, count: i64, bytes: i64) {
        let text = format!("count={count},bytes={bytes}");
        self.change(at, |node| node.data = Some(Rc::from(text.as_bytes())));
    }
}

fn as_of(past: &Past, zxid: Zxid) -> Option<&Rc<Node>> {
    let at = past.partition_point(|(since, _)| *since <= zxid).checked_sub(1)?;
    past[at].1.as_ref()
}

/// What a quota's node with this name is about.
fn subject<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.strip_prefix(QUOTA)?.strip_suffix(name).filter(|subject| subject.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zxid: i64) -> Moment {
        Moment { zxid: Zxid(zxid), time_ms: 7 }
    }

    fn open() -> Rc<[Acl]> {
        Rc::from([Acl::new(31, "world", "anyone")])
    }

    #[test]
    fn what_is_taken_back_has_not_been_and_what_was_is_remembered() {
        let mut tree = Tree::new();
        tree.create(at(1), "/a", Some(b"x"), open(), Owner::Nobody);
        tree.commit(Zxid(1));
        let mark = tree.mark();
        tree.create(at(2), "/a/b", None, open(), Owner::Nobody);
        tree.delete(at(2), "/a/b");
        tree.set_data(at(2), "/a", Some(b"yy"), 1);
        tree.take_back(mark);
        tree.commit(Zxid(2));
        tree.set_data(at(3), "/a", Some(b"yyy"), 1);
        tree.commit(Zxid(3));
        let length = |zxid| tree.as_of("/a", Zxid(zxid)).map(|node| (node.stat().data_length, node.stat().cversion));
        assert_eq!([0, 1, 2, 3].map(length), [None, Some((1, 0)), Some((1, 0)), Some((3, 0))]);
        let kinds: Vec<Kind> = tree.changes(Zxid::ZERO, Zxid(3)).iter().map(|(_, change)| change.kind).collect();
        assert_eq!(kinds, [Kind::Created, Kind::ChildrenChanged, Kind::DataChanged]);
    }

    #[test]
    fn a_quota_counts_what_is_there_and_what_comes() {
        let mut tree = Tree::new();
        for path in ["/a", "/a/b", "/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits"] {
            tree.create(at(1), path, Some(b"xx"), open(), Owner::Nobody);
        }
        tree.create(at(1), "/zookeeper/quota/a/zookeeper_stats", Some(b""), open(), Owner::Nobody);
        tree.create(at(1), "/a/c", Some(b"y"), open(), Owner::Nobody);
        tree.create(at(1), "/ab", Some(b"y"), open(), Owner::Nobody);
        tree.delete(at(1), "/a/b");
        let usage = tree.get("/zookeeper/quota/a/zookeeper_stats").and_then(|node| node.data.clone());
        assert_eq!(usage.as_deref(), Some(&b"count=2,bytes=3"[..]));
    }
}
