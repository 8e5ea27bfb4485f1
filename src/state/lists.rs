//! Lists that are long: the names of a node's children and the paths of a session's ephemerals, as they are sent to those who
//! ask. A list is kept as pieces, each name in the one that its hash says, so that a child that comes or goes changes one
//! piece: a list of a million children is not made anew for it, and what is being sent of the state before stays as it was.
//! The first one is made some names at a time, while children come and go.
//!
//! Pieces are as in linear hashing: one is split in two, or joined to the one it came from, as the list grows or shrinks.
//! Kept is a list as long as that costs less than to make it again, and there is room. While somebody waits for it, it is kept
//! whatever comes, also when its node goes: it has no name then, and gets those of a node that comes into the same place.
//! Only the list of a session that ends is given up at once: there is nothing left to be put into it.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::ids::SessionId;
use crate::jute::{Writer, len_i32};
use crate::parts::{Rope, Strand};
use crate::state::NodeId;

/// Bytes of a piece, about: a change looks through one, and copies it while it is being sent.
const PIECE_BYTES: usize = 8 << 10;

/// A list is given up when, since it was asked for last, more than one of so many names came or went.
const NAMES_PER_CHANGE: usize = 16;

/// What a list takes beside its names, bytes: clients may ask for those of a hundred thousand nodes with a child each.
pub(super) const LIST_BYTES: usize = 256;

/// Hashes a name.
pub(super) type HashOf<'a> = &'a dyn Fn(&[u8]) -> u32;

/// What a list is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Listed {
    /// The names of a node's children.
    Children(NodeId),
    /// The paths of a session's ephemerals.
    Ephemerals(SessionId),
}

/// What is not in a list yet.
#[derive(Debug)]
pub(super) enum Rest {
    /// This child and those behind it, who are linked.
    Children(NodeId),
    /// Ephemerals that were there when the list began, those that went since included.
    Ephemerals {
        /// All of them.
        noted: Vec<NodeId>,
        /// Those that went: others may be in their places.
        gone: FxHashSet<NodeId>,
    },
}

impl Rest {
    fn is_empty(&self) -> bool {
        match self {
            Rest::Children(next) => *next == NodeId::NIL,
            Rest::Ephemerals { noted, .. } => noted.is_empty(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Rest::Children(_) => 0,
            Rest::Ephemerals { noted, gone } => (noted.len() + gone.len()) * size_of::<NodeId>(),
        }
    }
}

/// The names of one list.
#[derive(Debug)]
struct List {
    pieces: Vec<Arc<Strand>>,
    bytes: usize,
    names: usize,
    rest: Rest,
    /// Since it was asked for last.
    changes: usize,
    /// It was asked for since the last look for lists that nobody wants.
    is_wanted: bool,
    /// How many wait for it.
    awaited: usize,
    /// When it was given last, which counts such times; 0: never.
    asked: u64,
    /// As it was sent last.
    sent: Option<Arc<Rope>>,
}

/// Each name in a piece, with its length in front.
fn entries(piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let length = i32::from_be_bytes(*rest.first_chunk()?);
        let (entry, behind) = rest.split_at(4 + length.unsigned_abs() as usize);
        rest = behind;
        Some(entry)
    })
}

impl List {
    /// Of which nothing is there yet; so many bytes are expected.
    fn new(rest: Rest, bytes: usize) -> List {
        let pieces = vec![Arc::default(); bytes / PIECE_BYTES + 1];
        List { pieces, bytes: 0, names: 0, rest, changes: 0, is_wanted: true, awaited: 0, asked: 0, sent: None }
    }

    fn is_made(&self) -> bool {
        self.rest.is_empty()
    }

    fn on_asked(&mut self, asked: u64) {
        (self.changes, self.is_wanted, self.asked) = (0, true, asked);
    }

    /// Bytes that it takes.
    fn cost(&self) -> usize {
        LIST_BYTES + self.bytes + self.rest.bytes()
    }

    /// In which piece a name is.
    fn place(&self, hash: u32) -> usize {
        let mask = self.pieces.len().next_power_of_two() - 1;
        let place = hash as usize & mask;
        if place < self.pieces.len() { place } else { place & (mask >> 1) }
    }

    /// From which piece this one is split off.
    fn origin(place: usize) -> usize {
        place ^ (1 << place.ilog2())
    }

    fn add(&mut self, hash: u32, name: &[u8], hash_of: HashOf<'_>) {
        self.sent = None;
        let place = self.place(hash);
        let piece = &mut Arc::make_mut(&mut self.pieces[place]).bytes;
        piece.put_int(len_i32(name.len()));
        piece.extend_from_slice(name);
        self.bytes += 4 + name.len();
        self.names += 1;
        if self.bytes > self.pieces.len() * PIECE_BYTES {
            self.split(hash_of);
        }
    }

    fn split(&mut self, hash_of: HashOf<'_>) {
        let new = self.pieces.len();
        let old = std::mem::take(&mut self.pieces[Self::origin(new)]);
        self.pieces.push(Arc::default());
        let (mut stay, mut leave) = (Vec::new(), Vec::new());
        for entry in entries(&old.bytes) {
            let to = if self.place(hash_of(&entry[4..])) == new { &mut leave } else { &mut stay };
            to.extend_from_slice(entry);
        }
        (self.pieces[Self::origin(new)], self.pieces[new]) = (Arc::new(stay.into()), Arc::new(leave.into()));
    }

    /// Whether the name was in the list: it may be among the rest.
    fn remove(&mut self, hash: u32, name: &[u8]) -> bool {
        let place = self.place(hash);
        let mut from = 0;
        let is_it = |entry: &[u8]| {
            from += entry.len();
            &entry[4..] == name
        };
        let was_in = entries(&self.pieces[place].bytes).any(is_it);
        if was_in {
            self.sent = None;
            Arc::make_mut(&mut self.pieces[place]).bytes.drain(from - 4 - name.len()..from);
            self.bytes -= 4 + name.len();
            self.names -= 1;
        }
        if self.is_made() && self.pieces.len() > 1 && self.bytes < (self.pieces.len() - 1) * PIECE_BYTES / 4 {
            self.join_last();
        }
        was_in
    }

    fn join_last(&mut self) {
        let Some(last) = self.pieces.pop() else { return };
        let origin = Self::origin(self.pieces.len());
        Arc::make_mut(&mut self.pieces[origin]).bytes.extend_from_slice(&last.bytes);
    }
}

/// The names in a list that is sent.
pub(super) fn names_of(whole: &Rope) -> impl Iterator<Item = &[u8]> {
    // Their number is in front.
    whole.pieces().skip(1).flat_map(entries).map(|entry| &entry[4..])
}

/// All lists that are kept.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: FxHashMap<Listed, List>,
    /// Those that are not made yet, in turn. Some that are here may be made by now, or given up.
    unmade: VecDeque<Listed>,
    /// Bytes of all.
    bytes: usize,
    /// How many times one was given.
    asked: u64,
}

impl Lists {
    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is this list, made or not.
    pub fn has(&self, listed: Listed) -> bool {
        self.lists.contains_key(&listed)
    }

    /// Whether this list is complete.
    pub fn is_made(&self, listed: Listed) -> bool {
        self.lists.get(&listed).is_some_and(List::is_made)
    }

    /// Whether this list was begun and is not complete.
    pub fn is_being_made(&self, listed: Listed) -> bool {
        self.lists.get(&listed).is_some_and(|list| !list.is_made())
    }

    /// A list begins.
    pub fn begin(&mut self, listed: Listed, rest: Rest, bytes: usize) {
        let list = List::new(rest, bytes);
        self.bytes += list.cost();
        self.lists.insert(listed, list);
        self.unmade.push_back(listed);
    }

    /// The list that is to be gone on with: each in turn, so that a short one does not wait behind long ones.
    pub fn take_turn(&mut self) -> Option<Listed> {
        while let Some(listed) = self.unmade.pop_front() {
            if self.is_being_made(listed) {
                self.unmade.push_back(listed);
                return Some(listed);
            }
        }
        None
    }

    /// One more waits for this list.
    pub fn on_awaited(&mut self, listed: Listed) {
        if let Some(list) = self.lists.get_mut(&listed) {
            list.awaited += 1;
        }
    }

    /// One fewer does. An empty list goes: its node may be gone, too.
    pub fn on_released(&mut self, listed: Listed) {
        let Some(list) = self.lists.get_mut(&listed) else { return };
        list.awaited -= 1;
        if list.awaited == 0 && (!list.is_made() || list.names == 0) {
            self.forget(listed);
        }
    }

    /// The first child that is not in the list.
    pub fn next_of(&self, parent: NodeId) -> NodeId {
        match self.lists.get(&Listed::Children(parent)) {
            Some(List { rest: Rest::Children(next), .. }) => *next,
            _ => NodeId::NIL,
        }
    }

    /// That child is put into the list, and this is the next.
    pub fn put_child(&mut self, parent: NodeId, hash: u32, name: &[u8], next: NodeId, hash_of: HashOf<'_>) {
        self.change(Listed::Children(parent), |list| {
            list.add(hash, name, hash_of);
            list.rest = Rest::Children(next);
        });
    }

    /// The next ephemeral that is not in the list; it is to be put into it.
    pub fn take_ephemeral(&mut self, session: SessionId) -> Option<NodeId> {
        let mut taken = None;
        self.change(Listed::Ephemerals(session), |list| {
            let Rest::Ephemerals { noted, gone } = &mut list.rest else { return };
            while let Some(id) = noted.pop() {
                if !gone.remove(&id) {
                    taken = Some(id);
                    break;
                }
            }
            if noted.is_empty() {
                list.rest = Rest::Ephemerals { noted: Vec::new(), gone: FxHashSet::default() };
            }
        });
        taken
    }

    /// That ephemeral is put into the list.
    pub fn put_ephemeral(&mut self, session: SessionId, hash: u32, path: &[u8], hash_of: HashOf<'_>) {
        self.change(Listed::Ephemerals(session), |list| list.add(hash, path, hash_of));
    }

    /// Changes a list, if there is one.
    fn change(&mut self, listed: Listed, change: impl FnOnce(&mut List)) {
        if let Some(list) = self.lists.get_mut(&listed) {
            let before = list.cost();
            change(list);
            self.bytes = self.bytes - before + list.cost();
        }
    }

    /// The list as it is sent, their number in front: that of a node without children, if there is none.
    pub fn whole(&mut self, listed: Listed) -> Arc<Rope> {
        let count = |names: usize| Arc::new(Strand::from(len_i32(names).to_be_bytes().to_vec()));
        let Some(list) = self.lists.get_mut(&listed) else {
            return Arc::new(std::iter::once(count(0)).collect());
        };
        self.asked += 1;
        list.on_asked(self.asked);
        let whole = || Arc::new(std::iter::once(count(list.names)).chain(list.pieces.iter().cloned()).collect());
        Arc::clone(list.sent.get_or_insert_with(whole))
    }

    /// Writes a short list as it is sent, if it is made. It is not shared.
    pub fn write(&mut self, listed: Listed, out: &mut Vec<u8>) -> bool {
        let Some(list) = self.lists.get_mut(&listed).filter(|list| list.is_made()) else { return false };
        self.asked += 1;
        list.on_asked(self.asked);
        out.put_int(len_i32(list.names));
        list.pieces.iter().for_each(|piece| out.extend_from_slice(&piece.bytes));
        true
    }

    /// A child, or an ephemeral, has come.
    pub fn on_come(&mut self, listed: Listed, hash: u32, name: &[u8], hash_of: HashOf<'_>) {
        self.change(listed, |list| list.add(hash, name, hash_of));
        self.on_changed(listed);
    }

    /// A child goes; behind it this one is linked.
    pub fn on_child_gone(&mut self, parent: NodeId, child: NodeId, next: NodeId, hash: u32, name: &[u8]) {
        let listed = Listed::Children(parent);
        self.change(listed, |list| match &mut list.rest {
            Rest::Children(first) if *first == child => *first = next,
            _ => {
                list.remove(hash, name);
            }
        });
        self.on_changed(listed);
    }

    /// An ephemeral goes.
    pub fn on_ephemeral_gone(&mut self, session: SessionId, id: NodeId, hash: u32, path: &[u8]) {
        let listed = Listed::Ephemerals(session);
        self.change(listed, |list| {
            if !list.remove(hash, path)
                && let Rest::Ephemerals { gone, .. } = &mut list.rest
            {
                gone.insert(id);
            }
        });
        self.on_changed(listed);
    }

    fn on_changed(&mut self, listed: Listed) {
        if let Some(list) = self.lists.get_mut(&listed) {
            list.changes += 1;
            if list.awaited == 0 && list.changes * NAMES_PER_CHANGE > list.names {
                self.forget(listed);
            }
        }
    }

    /// Gives a list up, whoever waits for it.
    pub fn forget(&mut self, listed: Listed) {
        if let Some(list) = self.lists.remove(&listed) {
            self.bytes -= list.cost();
        }
    }

    /// Gives up those that were not asked for for longest, down to three quarters of so many bytes if they are more. None that
    /// somebody waits for, and not the one that was asked for last: it may be larger than that.
    pub fn bound(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        let kept = |list: &List| list.awaited > 0 || (list.asked > 0 && list.asked == self.asked);
        let mut others: Vec<(u64, Listed)> =
            self.lists.iter().filter(|(_, list)| !kept(list)).map(|(&listed, list)| (list.asked, listed)).collect();
        others.sort_unstable();
        for (_, listed) in others {
            if self.bytes <= bytes_max / 4 * 3 {
                return;
            }
            self.forget(listed);
        }
    }

    /// Gives up those that nobody waits for or asked for since the last call.
    pub fn forget_unwanted(&mut self) {
        let is_wanted = |list: &mut List| std::mem::take(&mut list.is_wanted) || list.awaited > 0;
        let unwanted: Vec<Listed> =
            self.lists.iter_mut().filter_map(|(&listed, list)| (!is_wanted(list)).then_some(listed)).collect();
        unwanted.into_iter().for_each(|listed| self.forget(listed));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hash_of(name: &[u8]) -> u32 {
        name.iter().fold(7, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    fn names(list: &List) -> BTreeSet<String> {
        let entries = list.pieces.iter().flat_map(|piece| entries(&piece.bytes));
        let names: Vec<String> = entries.map(|e| String::from_utf8(e[4..].to_vec()).expect("names are text")).collect();
        assert_eq!(names.len(), list.names);
        assert_eq!(list.bytes, list.pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>());
        names.into_iter().collect()
    }

    #[test]
    fn pieces_split_and_join_and_lose_no_name() {
        let mut list = List::new(Rest::Children(NodeId::NIL), 0);
        let mut expected = BTreeSet::new();
        let add = |list: &mut List, n: usize| {
            let name = format!("child-{n}");
            list.add(hash_of(name.as_bytes()), name.as_bytes(), &hash_of);
            name
        };
        for n in 0..20_000 {
            expected.insert(add(&mut list, n));
        }
        let most = list.pieces.len();
        assert!(
            most > list.bytes / PIECE_BYTES / 2 && list.pieces.iter().all(|piece| piece.bytes.len() < 4 * PIECE_BYTES)
        );
        assert_eq!(names(&list), expected);
        for n in 100..20_000 {
            let name = format!("child-{n}");
            list.remove(hash_of(name.as_bytes()), name.as_bytes());
            expected.remove(&name);
        }
        assert_eq!(names(&list), expected);
        assert_eq!((most > 20, list.pieces.len()), (true, 1));
        for n in 100..5000 {
            expected.insert(add(&mut list, n));
        }
        assert_eq!(names(&list), expected);
    }
}
