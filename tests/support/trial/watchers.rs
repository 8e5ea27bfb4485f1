//! A second, naive implementation of watches: a set of who waits for what. Used by `trial`.

use std::collections::BTreeSet;

use rookeeper::ops::WatcherType;
use rookeeper::state::ChangeKind;

/// What a watch was left by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// exists, getData
    Data,
    /// getChildren
    Child,
    Persistent,
    Recursive,
}

/// Every watch: client, path, kind.
#[derive(Default, Debug)]
pub struct Watchers {
    all: BTreeSet<(usize, String, Kind)>,
}

fn kinds(selected: WatcherType) -> &'static [Kind] {
    match selected {
        WatcherType::Data => &[Kind::Data],
        WatcherType::Children => &[Kind::Child],
        WatcherType::Persistent => &[Kind::Persistent],
        WatcherType::PersistentRecursive => &[Kind::Recursive],
        WatcherType::Any => &[Kind::Data, Kind::Child, Kind::Persistent, Kind::Recursive],
    }
}

impl Watchers {
    pub fn add(&mut self, client: usize, path: &str, kind: Kind) {
        self.all.insert((client, path.to_owned(), kind));
    }

    pub fn forget(&mut self, client: usize) {
        self.all.retain(|watch| watch.0 != client);
    }

    pub fn clear(&mut self) {
        self.all.clear();
    }

    pub fn has(&self, client: usize, path: &str, selected: WatcherType) -> bool {
        kinds(selected).iter().any(|&kind| self.all.contains(&(client, path.to_owned(), kind)))
    }

    pub fn remove(&mut self, client: usize, path: &str, selected: WatcherType) {
        for &kind in kinds(selected) {
            self.all.remove(&(client, path.to_owned(), kind));
        }
    }

    /// How many there are, as servers count: a persistent watch is in two tables.
    pub fn count(&self) -> usize {
        let table = |kinds: &[Kind]| {
            let inside = self.all.iter().filter(|watch| kinds.contains(&watch.2));
            inside.map(|watch| (watch.0, &watch.1)).collect::<BTreeSet<_>>().len()
        };
        table(&[Kind::Data, Kind::Persistent, Kind::Recursive]) + table(&[Kind::Child, Kind::Persistent])
    }

    /// Who hears of a change; one-shot watches are used up.
    pub fn fire(&mut self, change: ChangeKind, at: &str) -> BTreeSet<usize> {
        // The empty path is no ancestor of any.
        let below = |top: &str| at.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
        let is_inside = |top: &str| at != top && (top == "/" || (!top.is_empty() && below(top)));
        let hears = |(_, path, kind): &&(usize, String, Kind)| match (change, kind) {
            (ChangeKind::Created | ChangeKind::DataChanged, Kind::Data) => path == at,
            (ChangeKind::Created | ChangeKind::DataChanged, Kind::Child) => false,
            (ChangeKind::Deleted, Kind::Data | Kind::Child) => path == at,
            (ChangeKind::ChildrenChanged, Kind::Child) => path == at,
            (ChangeKind::ChildrenChanged, Kind::Data | Kind::Recursive) => false,
            (_, Kind::Persistent) => path == at,
            (_, Kind::Recursive) => path == at || is_inside(path),
        };
        let hit: Vec<_> = self.all.iter().filter(hears).cloned().collect();
        for watch in hit.iter().filter(|watch| matches!(watch.2, Kind::Data | Kind::Child)) {
            self.all.remove(watch);
        }
        hit.into_iter().map(|watch| watch.0).collect()
    }
}
