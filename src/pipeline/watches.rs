//! Who waits for which change (`WatchManager`, `WatcherModeManager`; the coexisting modes of 3.9). One entry per path and
//! connection, with a bit for each mode. Pure; the pipeline turns hits into notifications.
//!
//! A one-shot data watch is left by exists and getData, a one-shot child watch by getChildren. A persistent watch hears
//! of the node and of its children coming and going; a recursive one of every node at and below its path, but not of
//! children's lists changing.

use std::collections::{HashSet, VecDeque, hash_set};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use rustc_hash::FxHashMap;

use crate::ids::{ConnId, SessionId};
use crate::limits::WATCHERS_MOVED_AS_ONE;
use crate::ops::WatcherType;
use crate::shards::ShardedMap;
use crate::state::ChangeKind;

/// Modes of a watch; several may be set for one path and connection.
pub(super) mod mode {
    /// One-shot, data table.
    pub const DATA: u8 = 1;
    /// One-shot, child table.
    pub const CHILD: u8 = 2;
    /// Persistent, both tables.
    pub const PERSISTENT: u8 = 4;
    /// Persistent recursive.
    pub const RECURSIVE: u8 = 8;
}

/// What is in the data table, as `wchs` and friends count it.
const DATA_TABLE: u8 = mode::DATA | mode::PERSISTENT | mode::RECURSIVE;
/// What is in the child table.
const CHILD_TABLE: u8 = mode::CHILD | mode::PERSISTENT;

/// Who watches one path.
#[derive(Debug, Default)]
struct Watchers {
    /// In the order of their ids.
    list: Vec<(ConnId, u8)>,
    /// How many of them are in the data table.
    in_data: usize,
}

/// A path that is watched. There is one of each, so that it can be told by its address: a set of very many grows without
/// looking at what they say.
#[derive(Clone, Debug)]
struct Path(Arc<str>);

impl Path {
    fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Hash for Path {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.address().hash(hasher);
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Path {}

/// What one connection watches.
#[derive(Debug)]
struct Watched {
    session: SessionId,
    /// Empty once the connection is gone, while they are removed.
    paths: HashSet<Path, RandomState>,
    /// How many of them in the data table.
    in_data: usize,
}

/// Every watch of this server.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// What is watched, and by whom.
    by_path: ShardedMap<Arc<str>, Watchers>,
    by_conn: FxHashMap<ConnId, Watched>,
    /// Of connections that are gone: what is still to be removed, and hits nobody. Operators see it under its session.
    leaving: VecDeque<(ConnId, hash_set::IntoIter<Path>)>,
    /// Number of recursive watches: while there are none, no ancestor is looked up.
    recursive: usize,
    /// Number of watches in each table, so that telling them takes no walk.
    in_data: usize,
    in_child: usize,
    /// Paths and connections with data watches.
    data_paths: usize,
    data_conns: usize,
}

impl Watches {
    /// Whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Adds a mode; again has no effect.
    pub fn add(&mut self, path: &str, conn: ConnId, session: SessionId, bits: u8) {
        let key = match self.by_path.get_key_value(path) {
            Some((key, _)) => key.clone(),
            None => Arc::from(path),
        };
        let watchers = self.by_path.get_or_default(key.clone());
        let before = match watchers.list.binary_search_by_key(&conn, |w| w.0) {
            Ok(at) => {
                let entry = &mut watchers.list[at].1;
                let before = *entry;
                *entry |= bits;
                before
            }
            Err(at) => {
                watchers.list.insert(at, (conn, bits));
                let new = || Watched { session, paths: HashSet::default(), in_data: 0 };
                self.by_conn.entry(conn).or_insert_with(new).paths.insert(Path(key));
                0
            }
        };
        count(&mut watchers.in_data, &mut self.data_paths, before, before | bits);
        if bits & !before & mode::RECURSIVE != 0 {
            self.recursive += 1;
        }
        self.count_change(conn, before, before | bits);
    }

    /// An entry of a connection changes. Its path's own count is kept where that is at hand.
    fn count_change(&mut self, conn: ConnId, before: u8, after: u8) {
        let entry = |bits: u8, table: u8| usize::from(bits & table != 0);
        self.in_data = self.in_data + entry(after, DATA_TABLE) - entry(before, DATA_TABLE);
        self.in_child = self.in_child + entry(after, CHILD_TABLE) - entry(before, CHILD_TABLE);
        if let Some(watched) = self.by_conn.get_mut(&conn) {
            count(&mut watched.in_data, &mut self.data_conns, before, after);
        }
    }

    /// Takes modes away. Gives those that were there.
    pub fn remove(&mut self, path: &str, conn: ConnId, bits: u8) -> u8 {
        let Some(key) = self.key(path) else { return 0 };
        let (had, is_last, _) = self.take(path, conn, bits);
        if is_last {
            self.forget(&key, conn);
        }
        had
    }

    /// The path as it is kept.
    fn key(&self, path: &str) -> Option<Path> {
        self.by_path.get_key_value(path).map(|(key, _)| Path(key.clone()))
    }

    /// The same, but of the path alone: gives the modes that were there, whether that was the last of them, and how many
    /// other watchers of the path had to move.
    fn take(&mut self, path: &str, conn: ConnId, bits: u8) -> (u8, bool, usize) {
        let none = (0, false, 0);
        let Some(watchers) = self.by_path.get_mut(path) else { return none };
        let Ok(at) = watchers.list.binary_search_by_key(&conn, |w| w.0) else { return none };
        let before = watchers.list[at].1;
        let (had, left) = (before & bits, before & !bits);
        watchers.list[at].1 = left;
        count(&mut watchers.in_data, &mut self.data_paths, before, left);
        let mut moved = 0;
        if left == 0 {
            watchers.list.remove(at);
            moved = watchers.list.len() - at;
            if watchers.list.is_empty() {
                self.by_path.remove(path);
            }
        }
        self.count_change(conn, before, left);
        if had & mode::RECURSIVE != 0 {
            self.recursive -= 1;
        }
        (had, left == 0, moved)
    }

    fn forget(&mut self, path: &Path, conn: ConnId) {
        if let Some(watched) = self.by_conn.get_mut(&conn)
            && watched.paths.remove(path)
            && watched.paths.is_empty()
        {
            self.by_conn.remove(&conn);
        }
    }

    /// The modes of one connection on one path.
    pub fn modes(&self, path: &str, conn: ConnId) -> u8 {
        let Some(watchers) = self.by_path.get(path) else { return 0 };
        watchers.list.binary_search_by_key(&conn, |w| w.0).map_or(0, |at| watchers.list[at].1)
    }

    /// The connection is gone. Its watches go with the next calls of [`Watches::remove_some`]: it may have very many.
    pub fn remove_connection(&mut self, conn: ConnId) {
        if let Some(watched) = self.by_conn.get_mut(&conn) {
            self.leaving.push_back((conn, std::mem::take(&mut watched.paths).into_iter()));
        }
    }

    /// Whether there are watches of connections that are gone.
    pub fn is_removing(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Removes so many watches of connections that are gone, fewer where others who watch the same paths have to move for
    /// that.
    pub fn remove_some(&mut self, count: usize) {
        let mut done = 0;
        while done < count
            && let Some((conn, paths)) = self.leaving.front_mut()
        {
            let (conn, path) = (*conn, paths.next());
            done += 1;
            match path {
                Some(path) => done += self.take(&path.0, conn, u8::MAX).2 / WATCHERS_MOVED_AS_ONE,
                None => {
                    self.leaving.pop_front();
                    self.by_conn.remove(&conn);
                }
            }
        }
    }

    /// The connections that hear of a change, each once; one-shot watches are used up.
    pub fn triggered(&mut self, kind: ChangeKind, path: &str) -> Vec<ConnId> {
        let (at_path, used_up) = match kind {
            ChangeKind::Created | ChangeKind::DataChanged => (DATA_TABLE, mode::DATA),
            // One event tells both of the node's tables that it is gone.
            ChangeKind::Deleted => (DATA_TABLE | CHILD_TABLE, mode::DATA | mode::CHILD),
            ChangeKind::ChildrenChanged => (CHILD_TABLE, mode::CHILD),
        };
        let mut hit = self.use_up(path, at_path, used_up);
        if self.recursive > 0 && kind != ChangeKind::ChildrenChanged {
            let mut above = path;
            while above != "/" {
                above = match above.rsplit_once('/') {
                    None | Some(("", _)) => "/",
                    Some((parent, _)) => parent,
                };
                hit.extend(self.watchers_with(above, mode::RECURSIVE));
            }
            hit.sort_unstable();
            hit.dedup();
        }
        hit
    }

    /// The connections that have one of the modes at the path; each loses those that are used up.
    fn use_up(&mut self, path: &str, modes: u8, used_up: u8) -> Vec<ConnId> {
        let Some(key) = self.key(path) else { return Vec::new() };
        let Some(watchers) = self.by_path.get_mut(path) else { return Vec::new() };
        let hit = watchers.list.iter().filter(|w| w.1 & modes != 0).map(|w| w.0).collect();
        let mut changes = Vec::new();
        watchers.list.retain_mut(|(conn, bits)| {
            let after = *bits & !used_up;
            if after != *bits {
                changes.push((*conn, *bits, after));
                *bits = after;
            }
            after != 0
        });
        for (_, before, after) in &changes {
            count(&mut watchers.in_data, &mut self.data_paths, *before, *after);
        }
        if watchers.list.is_empty() {
            self.by_path.remove(path);
        }
        for (conn, before, after) in changes {
            self.count_change(conn, before, after);
            if after == 0 {
                self.forget(&key, conn);
            }
        }
        hit
    }

    fn watchers_with(&self, path: &str, bits: u8) -> impl Iterator<Item = ConnId> + '_ {
        self.by_path
            .get(path)
            .into_iter()
            .flat_map(|watchers| &watchers.list)
            .filter(move |w| w.1 & bits != 0)
            .map(|w| w.0)
    }

    /// Number of watches, both tables.
    pub fn count(&self) -> usize {
        self.in_data + self.in_child
    }

    /// Number of data watches.
    pub fn data_count(&self) -> usize {
        self.in_data
    }

    /// Number of paths that have data watches.
    pub fn data_path_count(&self) -> usize {
        self.data_paths
    }

    /// Number of connections that have data watches.
    pub fn data_conn_count(&self) -> usize {
        self.data_conns
    }

    /// Whose watches those of a connection are, also when it is gone.
    pub fn session_of(&self, conn: ConnId) -> SessionId {
        self.by_conn.get(&conn).map_or(SessionId::NONE, |watched| watched.session)
    }

    /// Data watches, those of a path together.
    pub fn data(&self) -> impl Iterator<Item = (&str, ConnId)> + '_ {
        self.by_path.iter().flat_map(|(path, watchers)| {
            watchers.list.iter().filter(|w| w.1 & DATA_TABLE != 0).map(move |w| (&**path, w.0))
        })
    }
}

/// One entry of a path, or of a connection, changes: how many of its entries are data watches, and how many have any.
fn count(entries: &mut usize, having: &mut usize, before: u8, after: u8) {
    match (before & DATA_TABLE != 0, after & DATA_TABLE != 0) {
        (false, true) => {
            *entries += 1;
            *having += usize::from(*entries == 1);
        }
        (true, false) => {
            *entries -= 1;
            *having -= usize::from(*entries == 0);
        }
        _ => {}
    }
}

/// The modes that a `WatcherType` of removeWatches and checkWatches means.
pub(super) fn modes_of(kind: WatcherType) -> u8 {
    match kind {
        WatcherType::Children => mode::CHILD,
        WatcherType::Data => mode::DATA,
        WatcherType::Any => u8::MAX,
        WatcherType::Persistent => mode::PERSISTENT,
        WatcherType::PersistentRecursive => mode::RECURSIVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: slot }
    }

    #[test]
    fn a_one_shot_watch_fires_once_and_a_persistent_one_stays() {
        let mut w = Watches::default();
        w.add("/a", conn(1), SessionId(1), mode::DATA);
        w.add("/a", conn(2), SessionId(1), mode::PERSISTENT);
        w.add("/a", conn(2), SessionId(1), mode::DATA);
        assert_eq!(w.triggered(ChangeKind::DataChanged, "/a"), [conn(1), conn(2)]);
        assert_eq!(w.triggered(ChangeKind::DataChanged, "/a"), [conn(2)]);
        assert_eq!(w.triggered(ChangeKind::ChildrenChanged, "/a"), [conn(2)]);
    }

    #[test]
    fn a_deletion_uses_up_both_tables_with_one_event() {
        let mut w = Watches::default();
        w.add("/a", conn(1), SessionId(1), mode::DATA | mode::CHILD);
        assert_eq!(w.triggered(ChangeKind::Deleted, "/a"), [conn(1)]);
        assert!(w.is_empty());
    }

    #[test]
    fn a_recursive_watch_hears_of_descendants_but_not_of_child_lists() {
        let mut w = Watches::default();
        w.add("/a", conn(1), SessionId(1), mode::RECURSIVE);
        w.add("/", conn(2), SessionId(1), mode::RECURSIVE);
        assert_eq!(w.triggered(ChangeKind::Created, "/a/b/c"), [conn(1), conn(2)]);
        assert_eq!(w.triggered(ChangeKind::Created, "/ab"), [conn(2)]);
        assert!(w.triggered(ChangeKind::ChildrenChanged, "/a").is_empty());
        assert_eq!(w.remove("/a", conn(1), modes_of(WatcherType::Children)), 0);
        assert_ne!(w.remove("/a", conn(1), modes_of(WatcherType::PersistentRecursive)), 0);
        w.remove_connection(conn(2));
        w.remove_some(2);
        assert!(w.is_empty() && w.recursive == 0 && !w.is_removing());
    }

    #[test]
    fn the_watches_of_a_connection_that_is_gone_go_some_at_a_time() {
        let mut w = Watches::default();
        for n in 0..10 {
            w.add(&format!("/{n}"), conn(1), SessionId(1), mode::DATA);
            w.add(&format!("/{n}"), conn(2), SessionId(1), mode::PERSISTENT);
        }
        w.remove_connection(conn(1));
        w.remove_connection(conn(3));
        w.remove_some(4);
        assert_eq!((w.count(), w.is_removing()), (26, true));
        // One that is used up meanwhile is not missed.
        (0..10).for_each(|n| drop(w.triggered(ChangeKind::Created, &format!("/{n}"))));
        w.remove_some(7);
        assert_eq!((w.count(), w.is_removing()), (20, false));
    }

    #[test]
    fn where_many_watch_one_path_fewer_are_removed_at_once() {
        let mut w = Watches::default();
        let many = 20 * u32::try_from(WATCHERS_MOVED_AS_ONE).expect("it is small");
        (0..many).for_each(|n| w.add("/a", conn(n), SessionId(1), mode::DATA));
        (0..many).for_each(|n| w.remove_connection(conn(n)));
        w.remove_some(100);
        assert!((1..20).contains(&(many as usize - w.count())), "each moves all behind it");
        while w.is_removing() {
            w.remove_some(100);
        }
        assert!(w.is_empty() && w.by_conn.is_empty() && w.count() == 0);
    }

    #[test]
    fn figures_count_data_watches_apart() {
        let mut w = Watches::default();
        w.add("/a", conn(1), SessionId(1), mode::CHILD);
        w.add("/a", conn(2), SessionId(1), mode::PERSISTENT);
        assert_eq!(w.count(), 3);
        assert_eq!((w.data_count(), w.data().collect::<Vec<_>>()), (1, vec![("/a", conn(2))]));
    }

    #[test]
    fn counts_follow_every_change() {
        let walked = |w: &Watches| {
            let tables = |bits: u8| usize::from(bits & DATA_TABLE != 0) + usize::from(bits & CHILD_TABLE != 0);
            let all = w.by_path.iter().flat_map(|(_, watchers)| &watchers.list).map(|w| tables(w.1)).sum::<usize>();
            let paths: HashSet<&str> = w.data().map(|(path, _)| path).collect();
            let conns: HashSet<ConnId> = w.data().map(|(_, conn)| conn).collect();
            (w.data().count(), all, paths.len(), conns.len())
        };
        let kinds = [ChangeKind::Created, ChangeKind::DataChanged, ChangeKind::Deleted, ChangeKind::ChildrenChanged];
        let mut w = Watches::default();
        let mut random: u32 = 1;
        for _ in 0..4000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [what, bits, at, who] = random.to_be_bytes();
            let path = ["/", "/a", "/a/b"][usize::from(at) % 3];
            match what % 8 {
                0..4 => w.add(path, conn(u32::from(who % 4)), SessionId(1), 1 << (bits % 4)),
                4 | 5 => drop(w.remove(path, conn(u32::from(who % 4)), bits % 16)),
                6 => drop(w.triggered(kinds[usize::from(bits % 4)], path)),
                _ => {
                    w.remove_connection(conn(u32::from(who % 4)));
                    w.remove_some(4);
                }
            }
            let counts = (w.data_count(), w.count(), w.data_path_count(), w.data_conn_count());
            assert_eq!(counts, walked(&w));
        }
    }
}
