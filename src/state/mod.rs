//! The replicated state: the same transactions make the same state, byte for byte, on every server. Znodes, sessions,
//! access lists, quotas and the data digest, with one way to change them: [`State::apply`]. Pure; owned by the pipeline
//! thread, built by `storage::recover`.

pub mod acl;
mod apply;
mod cut;
pub mod digest;
mod digest_check;
mod lists;
mod load;
mod node_set;
pub mod path;
pub mod pending;
pub mod quota;
mod touched;
mod tree;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

pub use apply::{Applied, Change, ChangeKind};
pub use digest_check::{JointVerdict, WrongJoint};
pub use lists::Listed;
pub use load::{LoadError, Loader};
pub use node_set::NodeSet;
pub use touched::Trace;
pub use tree::{Node, NodeId, Tree};

use crate::codes::Code;
use crate::ids::{SessionId, Zxid};
use crate::jute::{Writer, len_i32, put_counted};
use crate::limits::LISTED_AT_ONCE;
use crate::parts::Rope;
use crate::records::{Acl, Owner, OwnerRules, Stat, StatPersisted};
use crate::txn::TxnDigest;
use acl::{AclList, AclTable};
use digest_check::DigestCheck;
use quota::QuotaPaths;
use tree::Paths;

/// Magic and version of a snapshot file, with the database id -1 that Apache writes.
const SNAPSHOT_HEADER: (i32, i32, i64) = (0x5a4b_534e, 2, -1);

/// How the bytes of the state are to be understood; fixed for the life of the process.
#[derive(Clone, Copy, Debug)]
pub struct StateRules {
    /// How raw owners are read.
    pub owners: OwnerRules,
    /// Whether digests are compared and kept.
    pub digest_enabled: bool,
    /// Names of a list that are put into it at a time: [`LISTED_AT_ONCE`], except in tests.
    pub listed_at_once: usize,
}

impl StateRules {
    /// Those of a configuration.
    pub const fn new(owners: OwnerRules, digest_enabled: bool) -> StateRules {
        StateRules { owners, digest_enabled, listed_at_once: LISTED_AT_ONCE }
    }
}

impl Default for StateRules {
    fn default() -> StateRules {
        StateRules::new(OwnerRules::default(), false)
    }
}

/// Everything that is replicated.
#[derive(Debug)]
pub struct State {
    rules: StateRules,
    tree: Tree,
    acls: AclTable,
    /// Global sessions and their timeouts, ms.
    sessions: FxHashMap<SessionId, i32>,
    /// Nodes that end with their session. No entry is empty.
    ephemerals: FxHashMap<SessionId, FxHashSet<NodeId>>,
    containers: NodeSet,
    ttls: NodeSet,
    quotas: QuotaPaths,
    last_zxid: Zxid,
    digests: DigestCheck,
}

impl State {
    fn empty(rules: StateRules) -> State {
        State {
            rules,
            tree: Tree::new(rules.listed_at_once),
            acls: AclTable::new(),
            sessions: FxHashMap::default(),
            ephemerals: FxHashMap::default(),
            containers: NodeSet::default(),
            ttls: NodeSet::default(),
            quotas: QuotaPaths::default(),
            last_zxid: Zxid::ZERO,
            digests: DigestCheck::new(),
        }
    }

    /// The state before the first transaction: the root and the reserved nodes.
    pub fn fresh(rules: StateRules) -> State {
        let mut state = State::empty(rules);
        let stat = StatPersisted::default();
        for path in ["/zookeeper", quota::ROOT] {
            let (parent, name) = path::split(path).expect("absolute");
            let parent = state.tree.lookup(parent).expect("parents come first");
            state.tree.insert(parent, name, path, Some(&[]), acl::AclId::OPEN, stat);
        }
        state.ensure_config_node();
        state
    }

    /// Nothing, but what the next one follows: a state that was forgotten, since another takes its place.
    pub fn hollow(rules: StateRules, last_zxid: Zxid) -> State {
        let mut state = State::empty(rules);
        state.last_zxid = last_zxid;
        // Its digest is not that of its last transaction.
        state.doubt_digests();
        state
    }

    /// The config node, which old directories lack.
    fn ensure_config_node(&mut self) {
        if self.tree.lookup(path::CONFIG).is_some() {
            return;
        }
        let Some(parent) = self.tree.lookup("/zookeeper") else { return };
        let read_only: AclList = vec![Acl::new(crate::records::perms::READ, "world", "anyone")].into();
        let acl = self.acls.acquire_list(&read_only);
        let stat = StatPersisted { aversion: -1, ..StatPersisted::default() };
        self.tree.insert(parent, "config", path::CONFIG, Some(&[]), acl, stat);
    }

    /// The config node says this. Every server writes it for itself, without a transaction; only a reconfiguration is one
    /// (`ZKDatabase.initConfigInZKDatabase`). Nothing happens if it says so already.
    pub fn set_config(&mut self, text: &str, version: i64, now_ms: i64) {
        let Some(id) = self.tree.lookup(path::CONFIG) else { return };
        if self.tree.node(id).data() == Some(text.as_bytes()) {
            return;
        }
        self.tree.set_data(id, path::CONFIG, Some(text.as_bytes()), |stat| {
            stat.version = -1;
            stat.mzxid = version;
            stat.mtime = now_ms;
        });
    }

    /// How the state is read.
    pub fn rules(&self) -> StateRules {
        self.rules
    }

    /// The last transaction applied.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The znodes.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Sum of all node digests.
    pub fn tree_digest(&self) -> u64 {
        self.tree.digest()
    }

    /// The same, unless the tree may be that of a fuzzy snapshot which has not caught up with itself.
    pub fn exact_digest(&self) -> Option<u64> {
        self.digests.is_exact().then(|| self.tree_digest())
    }

    /// How often a recomputed digest was not the one that came with a transaction or snapshot.
    pub fn digest_mismatches(&self) -> u64 {
        self.digests.mismatches()
    }

    /// Zxid and digest of every 128th transaction, oldest first.
    pub fn digest_log(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.digests.log()
    }

    /// A snapshot says that the digest at this zxid is this: compared now, or when that transaction is applied. Before,
    /// digests mean nothing.
    pub fn expect_digest(&mut self, zxid: Zxid, version: i32, tree_digest: u64) {
        if self.rules.digest_enabled {
            let digest = TxnDigest { version, tree_digest };
            self.digests.expect(zxid, digest, self.last_zxid, self.tree.digest());
        }
    }

    /// The state is that of a snapshot that may hold a part of later transactions, and does not say up to which: digests
    /// mean nothing until the first that is right.
    pub fn doubt_digests(&mut self) {
        self.digests.doubt();
    }

    /// However this state was made, once this transaction is applied it is exact.
    pub fn exact_from(&mut self, zxid: Zxid) {
        self.digests.exact_from(zxid);
    }

    /// What is applied from here on is of a leader that said nothing of its history up to this transaction, the last one.
    pub fn join(&mut self, at: Zxid) {
        self.digests.join(at);
    }

    /// The same as soon as a replay has reached that transaction; then there is none to be waited for.
    pub fn pass_joint(&mut self, at: &mut Option<Zxid>) {
        if let Some(at) = at.take_if(|at| *at <= self.last_zxid) {
            self.join(at);
        }
    }

    /// This server leads: what it has is the ensemble's, and what comes is its own.
    pub fn leave_joint(&mut self) {
        self.digests.leave_joint();
    }

    /// Whether the leader's history is this one up to the joint, once the first digest behind it has told; once.
    pub fn take_joint_verdict(&mut self) -> Option<JointVerdict> {
        self.digests.take_joint_verdict()
    }

    /// Whether a joint turned out to be wrong.
    pub fn is_of_two_histories(&self) -> bool {
        self.digests.is_of_two_histories()
    }

    /// The digest that a snapshot of this state promises; none if digests are not kept, or the state is not known to be
    /// that of its last transaction.
    pub fn promised_digest(&self) -> Option<u64> {
        (self.rules.digest_enabled && self.digests.is_exact()).then(|| self.tree.digest())
    }

    /// Global sessions and their timeouts, ms.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        self.sessions.iter().map(|(&id, &timeout_ms)| (id, timeout_ms))
    }

    /// Number of global sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The table of access lists, for tests.
    pub fn acl_table(&self) -> &AclTable {
        &self.acls
    }

    /// Which paths have a quota.
    pub fn quotas(&self) -> &QuotaPaths {
        &self.quotas
    }

    /// The owner of a node.
    pub fn owner(&self, id: NodeId) -> Owner {
        // A bad owner was refused when it was loaded or proposed.
        self.rules.owners.decode(self.tree.raw_owner(id)).unwrap_or(Owner::None)
    }

    /// A node's stat as clients see it.
    pub fn stat(&self, id: NodeId) -> Stat {
        let node = self.tree.node(id);
        node.stat().shown(node.data_len(), node.num_children(), self.owner(id))
    }

    /// A node's list. The error is MARSHALLINGERROR: the snapshot it came from had no such list.
    pub fn acl(&self, id: NodeId) -> Result<&AclList, Code> {
        self.acls.get(self.tree.node(id).acl()).ok_or(Code::MarshallingError)
    }

    /// How many names a list has that is not kept; 0 if it is.
    pub fn unlisted(&self, listed: Listed) -> usize {
        match listed {
            Listed::Children(id) if self.tree.is_listed(id) => 0,
            Listed::Children(id) => self.tree.node(id).num_children() as usize,
            Listed::Ephemerals(session) if self.tree.has_listed(session) => 0,
            Listed::Ephemerals(session) => self.ephemerals_count_of(session),
        }
    }

    /// Whether a list was begun and is not complete.
    pub fn is_being_listed(&self, listed: Listed) -> bool {
        self.tree.is_being_listed(listed)
    }

    /// Somebody waits for a list: it is made, and kept until as many released it.
    pub fn await_list(&mut self, listed: Listed) {
        self.begin_list(listed);
        self.tree.await_list(listed);
    }

    fn begin_list(&mut self, listed: Listed) {
        match listed {
            Listed::Children(id) => self.tree.begin_children(id),
            Listed::Ephemerals(session) => {
                let ids = self.ephemerals.get(&session).into_iter().flatten();
                self.tree.begin_ephemerals(session, ids);
            }
        }
    }

    /// Somebody waits no more.
    pub fn release_list(&mut self, listed: Listed) {
        self.tree.release_list(listed);
    }

    /// Goes on with lists that are awaited by as many names as [`StateRules::listed_at_once`] says: with each in turn; where
    /// that many bytes are kept already, with these alone, one behind the other.
    pub fn list_some(&mut self, first: &[Listed], kept_bytes_max: usize) {
        self.tree.list_some(first, kept_bytes_max);
    }

    /// A list as it is sent: one for all who ask, as long as it does not change. What is not made of it is made at once.
    pub fn list(&mut self, listed: Listed) -> Arc<Rope> {
        self.begin_list(listed);
        self.tree.list(listed)
    }

    /// Writes the names of a node's children as they are sent: of a list, if there is one. For nodes that do not have many.
    pub fn write_children(&mut self, id: NodeId, out: &mut Vec<u8>) {
        if !self.tree.write_listed(Listed::Children(id), out) {
            self.tree.write_children(id, out);
        }
    }

    /// A list of a session's ephemerals, those that begin with this: their number in front.
    pub fn list_ephemerals_below(&mut self, session: SessionId, prefix: &str, out: &mut Vec<u8>) {
        let whole = self.list(Listed::Ephemerals(session));
        let below = lists::names_of(&whole).filter(|path| path.starts_with(prefix.as_bytes()));
        put_counted(out, |out| below.map(|path| out.put_buffer(Some(path))).count());
    }

    /// Of lists that nobody waits for, about so many bytes are kept at most, or the one that was asked for last.
    pub fn bound_lists(&mut self, kept_bytes_max: usize) {
        self.tree.bound_lists(kept_bytes_max);
    }

    /// Gives up the lists that nobody asked for since the last call.
    pub fn forget_unwanted_lists(&mut self) {
        self.tree.forget_unwanted_lists();
    }

    /// It is noted from now on which paths are touched: [`State::has_touched`]. Who asked before is not told any more.
    pub fn note_touched(&mut self) {
        self.tree.note_touched();
    }

    /// It need not be noted any more.
    pub fn end_touched(&mut self) {
        self.tree.end_touched();
    }

    /// Whether anything changed that is noted.
    pub fn is_touched(&self) -> bool {
        self.tree.is_touched()
    }

    /// Whether what a client is told of this path may have changed: its node came, went, or has other data, children, stat or
    /// access list.
    pub fn has_touched(&self, trace: Trace) -> bool {
        self.tree.has_touched(trace)
    }

    /// By which [`State::has_touched`] knows a path.
    pub fn trace(&self, path: &str) -> Trace {
        self.tree.trace(path)
    }

    /// Paths of a session's ephemerals, sorted.
    pub fn ephemerals_of(&self, session: SessionId) -> Vec<String> {
        let mut paths = Vec::with_capacity(self.ephemerals_count_of(session));
        self.for_each_ephemeral_of(session, |path| paths.push(path.to_owned()));
        paths.sort_unstable();
        paths
    }

    /// The same in no order.
    pub fn for_each_ephemeral_of(&self, session: SessionId, mut visit: impl FnMut(&str)) {
        let mut paths = Paths::default();
        for &id in self.ephemerals.get(&session).into_iter().flatten() {
            visit(paths.of(&self.tree, id));
        }
    }

    /// How many a session has.
    pub fn ephemerals_count_of(&self, session: SessionId) -> usize {
        self.ephemerals.get(&session).map_or(0, FxHashSet::len)
    }

    /// Every ephemeral with its session, in no order.
    pub fn ephemerals(&self) -> impl Iterator<Item = (SessionId, String)> + '_ {
        let of = |(&session, nodes)| std::iter::repeat(session).zip::<&FxHashSet<NodeId>>(nodes);
        self.ephemerals.iter().flat_map(of).map(|(session, &id)| (session, self.tree.path(id)))
    }

    /// Sessions that have ephemerals.
    pub fn sessions_with_ephemerals(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.ephemerals.keys().copied()
    }

    /// Number of ephemerals of all sessions.
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals.values().map(FxHashSet::len).sum()
    }

    /// Containers, whether or not they have children.
    pub fn containers(&self) -> &NodeSet {
        &self.containers
    }

    /// TTL nodes.
    pub fn ttls(&self) -> &NodeSet {
        &self.ttls
    }

    /// Bytes of all paths and data (`approximate_data_size`).
    pub fn approximate_data_size(&self) -> u64 {
        self.tree.bytes()
    }

    /// Every node, parents before children: path (the root's is ""), node, shown stat.
    pub fn for_each_node(&self, mut visit: impl FnMut(&str, &Node, Option<&AclList>, Stat)) {
        let mut path = String::new();
        for id in self.tree.subtree(NodeId::ROOT) {
            self.tree.write_path(id, &mut path);
            visit(&path, self.tree.node(id), self.acl(id).ok(), self.stat(id));
        }
    }

    /// A snapshot begins: the state as of now. Gives the bytes before the nodes: file header, sessions, lists. A cut
    /// that was not finished is given up.
    pub fn begin_cut(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let (magic, version, dbid) = SNAPSHOT_HEADER;
        out.put_int(magic);
        out.put_int(version);
        out.put_long(dbid);
        out.put_int(len_i32(self.sessions.len()));
        let mut sessions: Vec<(SessionId, i32)> = self.sessions().collect();
        sessions.sort_unstable();
        for (id, timeout_ms) in sessions {
            out.put_long(id.0);
            out.put_int(timeout_ms);
        }
        self.acls.write(&mut out);
        self.tree.begin_cut();
        out
    }

    /// The next bytes of the snapshot, roughly as many as wanted, and whether they are the last; the last ones end with
    /// the mark of the tree's end.
    pub fn cut_slice(&mut self, bytes_wanted: usize) -> (Vec<u8>, bool) {
        let (mut bytes, done) = self.tree.cut_slice(bytes_wanted);
        if done {
            bytes.put_string("/");
        }
        (bytes, done)
    }

    /// Whether a snapshot is being taken.
    pub fn is_cutting(&self) -> bool {
        self.tree.is_cutting()
    }

    /// Gives up the snapshot that is being taken.
    pub fn abandon_cut(&mut self) {
        self.tree.abandon_cut();
    }
}
