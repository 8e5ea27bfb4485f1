//! The watches this client has left, so that they can be left again on the next server, and so that an event nobody
//! waits for is not shown (`ZKWatchManager`). Paths are the server's. Pure.

use std::collections::BTreeSet;

use super::event::Kind;
use crate::codes::Code;
use crate::ops::{Op, ReadOp, SetWatches, WatchSelection, WatcherType};

/// Bytes of paths in one setWatches request: far below any server's limit for a frame.
const SET_WATCHES_BYTES: usize = 128 << 10;

/// One of the lists of a setWatches request.
type ListOf = fn(&mut SetWatches) -> &mut Vec<String>;

/// Watches by kind.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watches {
    /// The server has answered: what the request left is there now.
    pub fn on_answer(&mut self, op: &Op, err: i32) {
        let ok = err == 0;
        match op {
            Op::Read(ReadOp::Exists(target)) if target.watch && ok => self.data.insert(target.path.clone()),
            Op::Read(ReadOp::Exists(target)) if target.watch && err == Code::NoNode.value() => {
                self.exist.insert(target.path.clone())
            }
            Op::Read(ReadOp::GetData(target)) if target.watch && ok => self.data.insert(target.path.clone()),
            Op::Read(ReadOp::GetChildren { target, .. }) if target.watch && ok => {
                self.child.insert(target.path.clone())
            }
            Op::Read(ReadOp::AddWatch { path, recursive: false }) if ok => self.persistent.insert(path.clone()),
            Op::Read(ReadOp::AddWatch { path, recursive: true }) if ok => self.recursive.insert(path.clone()),
            _ => false,
        };
    }

    /// A change was reported: whether somebody here waits for it. One-shot watches are spent.
    pub fn on_event(&mut self, kind: Kind, path: &str) -> bool {
        let mut hit = self.persistent.contains(path);
        match kind {
            Kind::NodeCreated | Kind::NodeDataChanged => {
                hit |= self.data.remove(path) | self.exist.remove(path) | self.is_below_recursive(path);
            }
            Kind::NodeDeleted => {
                hit |= self.data.remove(path)
                    | self.exist.remove(path)
                    | self.child.remove(path)
                    | self.is_below_recursive(path);
            }
            // A recursive watch hears of each node instead.
            Kind::NodeChildrenChanged => hit |= self.child.remove(path),
            _ => {}
        }
        hit
    }

    fn is_below_recursive(&self, path: &str) -> bool {
        let above = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| &path[..at]);
        above.chain(["/", path]).any(|watched| self.recursive.contains(watched))
    }

    /// Whether there is a watch that `which` means.
    pub fn has(&self, which: &WatchSelection) -> bool {
        let path = &which.path;
        let has = |sets: &[&BTreeSet<String>]| sets.iter().any(|set| set.contains(path));
        match which.kind {
            WatcherType::Children => has(&[&self.child]),
            WatcherType::Data => has(&[&self.data, &self.exist]),
            WatcherType::Persistent => has(&[&self.persistent]),
            WatcherType::PersistentRecursive => has(&[&self.recursive]),
            WatcherType::Any => has(&[&self.child, &self.data, &self.exist, &self.persistent, &self.recursive]),
        }
    }

    /// Forgets what `which` means; the kinds of what there was, once each.
    pub fn remove(&mut self, which: &WatchSelection) -> Vec<Kind> {
        let path = &which.path;
        let any = which.kind == WatcherType::Any;
        let mut removed = Vec::new();
        if (any || which.kind == WatcherType::Children) && self.child.remove(path) {
            removed.push(Kind::ChildWatchRemoved);
        }
        if (any || which.kind == WatcherType::Data) && (self.data.remove(path) | self.exist.remove(path)) {
            removed.push(Kind::DataWatchRemoved);
        }
        let persistent = (any || which.kind == WatcherType::Persistent) && self.persistent.remove(path);
        let recursive = (any || which.kind == WatcherType::PersistentRecursive) && self.recursive.remove(path);
        if persistent || recursive {
            removed.push(Kind::PersistentWatchRemoved);
        }
        removed
    }

    /// The requests that leave everything again on another server, in pieces of a bounded size.
    pub fn again(&self, relative_zxid: i64) -> Vec<SetWatches> {
        let mut pieces = Vec::new();
        let mut bytes = SET_WATCHES_BYTES;
        let lists: [(&BTreeSet<String>, ListOf); 5] = [
            (&self.data, |piece| &mut piece.data),
            (&self.exist, |piece| &mut piece.exist),
            (&self.child, |piece| &mut piece.child),
            (&self.persistent, |piece| &mut piece.persistent),
            (&self.recursive, |piece| &mut piece.persistent_recursive),
        ];
        for (paths, list_of) in lists {
            for path in paths {
                if bytes + path.len() > SET_WATCHES_BYTES {
                    pieces.push(empty(relative_zxid));
                    bytes = 0;
                }
                bytes += path.len() + size_of::<i32>();
                list_of(pieces.last_mut().expect("the first path makes a piece")).push(path.clone());
            }
        }
        pieces
    }
}

fn empty(relative_zxid: i64) -> SetWatches {
    SetWatches {
        relative_zxid,
        data: Vec::new(),
        exist: Vec::new(),
        child: Vec::new(),
        persistent: Vec::new(),
        persistent_recursive: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::PathWatch;

    fn exists(path: &str) -> Op {
        Op::Read(ReadOp::Exists(PathWatch { path: path.into(), watch: true }))
    }

    #[test]
    fn a_one_shot_watch_is_spent_and_a_persistent_one_is_not() {
        let mut watches = Watches::default();
        watches.on_answer(&exists("/a"), 0);
        watches.on_answer(&Op::Read(ReadOp::AddWatch { path: "/p".into(), recursive: false }), 0);
        assert!(watches.on_event(Kind::NodeDataChanged, "/a"));
        assert!(!watches.on_event(Kind::NodeDataChanged, "/a"));
        for kind in [Kind::NodeChildrenChanged, Kind::NodeDeleted, Kind::NodeCreated] {
            assert!(watches.on_event(kind, "/p"));
            assert!(!watches.on_event(kind, "/p/x"));
        }
    }

    #[test]
    fn a_recursive_watch_hears_of_what_lies_below_but_not_of_lists() {
        let mut watches = Watches::default();
        watches.on_answer(&Op::Read(ReadOp::AddWatch { path: "/r".into(), recursive: true }), 0);
        assert!(watches.on_event(Kind::NodeCreated, "/r/a/b"));
        assert!(watches.on_event(Kind::NodeDeleted, "/r"));
        assert!(!watches.on_event(Kind::NodeChildrenChanged, "/r"));
        assert!(!watches.on_event(Kind::NodeCreated, "/rest"));
        watches.on_answer(&Op::Read(ReadOp::AddWatch { path: "/".into(), recursive: true }), 0);
        assert!(watches.on_event(Kind::NodeCreated, "/rest"));
    }

    #[test]
    fn a_failed_request_leaves_no_watch_but_exists_does_on_a_missing_node() {
        let mut watches = Watches::default();
        watches
            .on_answer(&Op::Read(ReadOp::GetData(PathWatch { path: "/a".into(), watch: true })), Code::NoNode.value());
        assert!(watches.again(5).is_empty());
        watches.on_answer(&exists("/a"), Code::NoNode.value());
        let again = watches.again(5);
        assert_eq!((again.len(), again[0].relative_zxid, again[0].exist.clone()), (1, 5, vec!["/a".to_string()]));
    }

    #[test]
    fn many_watches_come_in_pieces() {
        let mut watches = Watches::default();
        let long = "x".repeat(1000);
        for n in 0..300 {
            watches.on_answer(&exists(&format!("/{n}{long}")), 0);
        }
        let pieces = watches.again(0);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces.iter().map(|piece| piece.data.len()).sum::<usize>(), 300);
    }

    #[test]
    fn removal_names_what_was_there_once() {
        let mut watches = Watches::default();
        watches.on_answer(&exists("/a"), 0);
        for recursive in [false, true] {
            watches.on_answer(&Op::Read(ReadOp::AddWatch { path: "/a".into(), recursive }), 0);
        }
        let which = |kind| WatchSelection { path: "/a".into(), kind };
        assert!(!watches.has(&which(WatcherType::Children)));
        assert_eq!(watches.remove(&which(WatcherType::Children)), []);
        let all = [Kind::DataWatchRemoved, Kind::PersistentWatchRemoved];
        assert_eq!(watches.remove(&which(WatcherType::Any)), all);
        assert!(!watches.has(&which(WatcherType::Any)));
    }
}
