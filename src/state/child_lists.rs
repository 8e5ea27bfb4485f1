//! Names of children as lists of them are sent, of nodes that have many and are asked for them. A list is kept as pieces,
//! each name in the one that its hash says, so that a child that comes or goes changes one piece: a list of a million
//! children is not made anew for it, and what is being sent of the state before stays as it was. The first one is made some
//! children at a time, while children come and go.
//!
//! Pieces are as in linear hashing: one is split in two, or joined to the one it came from, as the list grows or shrinks.
//! Kept is a list as long as that costs less than to make it again, and there is room. While somebody waits for it, it is kept
//! whatever comes, also when its node goes: it has no name then, and gets those of a node that comes into the same place.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::jute::{Writer, len_i32};
use crate::parts::{Rope, Strand};
use crate::state::NodeId;

/// Bytes of a piece, about: a change looks through one, and copies it while it is being sent.
const PIECE_BYTES: usize = 8 << 10;

/// A list is given up when, since it was asked for last, more than one of so many names came or went.
const NAMES_PER_CHANGE: usize = 16;

/// What a list takes beside its names, bytes: clients may ask for those of a hundred thousand nodes with a child each.
pub(super) const LIST_BYTES: usize = 256;

/// Hashes the name of a child.
pub(super) type HashOf<'a> = &'a dyn Fn(&[u8]) -> u32;

/// The names of one node's children.
#[derive(Debug)]
struct ChildList {
    pieces: Vec<Arc<Strand>>,
    bytes: usize,
    names: usize,
    /// The first of the children that are not in it yet, who are linked one behind the other.
    next: NodeId,
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

impl ChildList {
    /// Of children the first of which is this; so many bytes are expected.
    fn new(first: NodeId, bytes: usize) -> ChildList {
        let pieces = vec![Arc::default(); bytes / PIECE_BYTES + 1];
        ChildList {
            pieces,
            bytes: 0,
            names: 0,
            next: first,
            changes: 0,
            is_wanted: true,
            awaited: 0,
            asked: 0,
            sent: None,
        }
    }

    fn is_made(&self) -> bool {
        self.next == NodeId::NIL
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

    /// Nothing happens if the name is not in the list yet.
    fn remove(&mut self, hash: u32, name: &[u8]) {
        let place = self.place(hash);
        let mut from = 0;
        let is_it = |entry: &[u8]| {
            from += entry.len();
            &entry[4..] == name
        };
        if entries(&self.pieces[place].bytes).any(is_it) {
            self.sent = None;
            Arc::make_mut(&mut self.pieces[place]).bytes.drain(from - 4 - name.len()..from);
            self.bytes -= 4 + name.len();
            self.names -= 1;
        }
        if self.is_made() && self.pieces.len() > 1 && self.bytes < (self.pieces.len() - 1) * PIECE_BYTES / 4 {
            self.join_last();
        }
    }

    fn join_last(&mut self) {
        let Some(last) = self.pieces.pop() else { return };
        let origin = Self::origin(self.pieces.len());
        Arc::make_mut(&mut self.pieces[origin]).bytes.extend_from_slice(&last.bytes);
    }
}

/// All lists that are kept.
#[derive(Debug, Default)]
pub(super) struct ChildLists {
    lists: FxHashMap<NodeId, ChildList>,
    /// Those that are not made yet, in turn. Some that are here may be made by now, or given up.
    unmade: VecDeque<NodeId>,
    /// Bytes of all.
    bytes: usize,
    /// How many times one was given.
    asked: u64,
}

impl ChildLists {
    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is a list of these children, made or not.
    pub fn has(&self, parent: NodeId) -> bool {
        self.lists.contains_key(&parent)
    }

    /// Whether the list of these children is complete.
    pub fn is_made(&self, parent: NodeId) -> bool {
        self.lists.get(&parent).is_some_and(ChildList::is_made)
    }

    /// A list begins.
    pub fn begin(&mut self, parent: NodeId, first: NodeId, bytes: usize) {
        self.lists.insert(parent, ChildList::new(first, bytes));
        self.bytes += LIST_BYTES;
        self.unmade.push_back(parent);
    }

    /// The list that is to be gone on with: each in turn, so that a short one does not wait behind long ones.
    pub fn take_turn(&mut self) -> Option<NodeId> {
        while let Some(parent) = self.unmade.pop_front() {
            if self.next_of(parent) != NodeId::NIL {
                self.unmade.push_back(parent);
                return Some(parent);
            }
        }
        None
    }

    /// One more waits for this list.
    pub fn on_awaited(&mut self, parent: NodeId) {
        if let Some(list) = self.lists.get_mut(&parent) {
            list.awaited += 1;
        }
    }

    /// One fewer does. An empty list goes: its node may be gone, too.
    pub fn on_released(&mut self, parent: NodeId) {
        let Some(list) = self.lists.get_mut(&parent) else { return };
        list.awaited -= 1;
        if list.awaited == 0 && (!list.is_made() || list.names == 0) {
            self.forget(parent);
        }
    }

    /// The first child that is not in the list.
    pub fn next_of(&self, parent: NodeId) -> NodeId {
        self.lists.get(&parent).map_or(NodeId::NIL, |list| list.next)
    }

    /// That child is put into the list, and this is the next.
    pub fn put(&mut self, parent: NodeId, hash: u32, name: &[u8], next: NodeId, hash_of: HashOf<'_>) {
        if let Some(list) = self.lists.get_mut(&parent) {
            list.add(hash, name, hash_of);
            list.next = next;
            self.bytes += 4 + name.len();
        }
    }

    /// The list as it is sent, their number in front: that of a node without children, if there is none.
    pub fn whole(&mut self, parent: NodeId) -> Arc<Rope> {
        let count = |names: usize| Arc::new(Strand::from(len_i32(names).to_be_bytes().to_vec()));
        let Some(list) = self.lists.get_mut(&parent) else {
            return Arc::new(std::iter::once(count(0)).collect());
        };
        self.asked += 1;
        (list.changes, list.is_wanted, list.asked) = (0, true, self.asked);
        let whole = || Arc::new(std::iter::once(count(list.names)).chain(list.pieces.iter().cloned()).collect());
        Arc::clone(list.sent.get_or_insert_with(whole))
    }

    /// A child has come.
    pub fn on_linked(&mut self, parent: NodeId, hash: u32, name: &[u8], hash_of: HashOf<'_>) {
        let Some(list) = self.lists.get_mut(&parent) else { return };
        list.add(hash, name, hash_of);
        self.bytes += 4 + name.len();
        self.on_changed(parent);
    }

    /// A child goes; behind it this one is linked.
    pub fn on_unlinked(&mut self, parent: NodeId, child: NodeId, next: NodeId, hash: u32, name: &[u8]) {
        let Some(list) = self.lists.get_mut(&parent) else { return };
        let before = list.bytes;
        if list.next == child {
            list.next = next;
        } else {
            list.remove(hash, name);
        }
        self.bytes -= before - list.bytes;
        self.on_changed(parent);
    }

    fn on_changed(&mut self, parent: NodeId) {
        if let Some(list) = self.lists.get_mut(&parent) {
            list.changes += 1;
            if list.awaited == 0 && list.changes * NAMES_PER_CHANGE > list.names {
                self.forget(parent);
            }
        }
    }

    fn forget(&mut self, parent: NodeId) {
        if let Some(list) = self.lists.remove(&parent) {
            self.bytes -= list.bytes + LIST_BYTES;
        }
    }

    /// Gives up those that were not asked for for longest, down to three quarters of so many bytes if they are more. None that
    /// somebody waits for, and not the one that was asked for last: it may be larger than that.
    pub fn bound(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        let kept = |list: &ChildList| list.awaited > 0 || (list.asked > 0 && list.asked == self.asked);
        let mut others: Vec<(u64, NodeId)> =
            self.lists.iter().filter(|(_, list)| !kept(list)).map(|(&parent, list)| (list.asked, parent)).collect();
        others.sort_unstable();
        for (_, parent) in others {
            if self.bytes <= bytes_max / 4 * 3 {
                return;
            }
            self.forget(parent);
        }
    }

    /// Gives up those that nobody waits for or asked for since the last call.
    pub fn forget_unwanted(&mut self) {
        let is_wanted = |list: &mut ChildList| std::mem::take(&mut list.is_wanted) || list.awaited > 0;
        let unwanted: Vec<NodeId> =
            self.lists.iter_mut().filter_map(|(&parent, list)| (!is_wanted(list)).then_some(parent)).collect();
        unwanted.into_iter().for_each(|parent| self.forget(parent));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hash_of(name: &[u8]) -> u32 {
        name.iter().fold(7, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    fn names(list: &ChildList) -> BTreeSet<String> {
        let entries = list.pieces.iter().flat_map(|piece| entries(&piece.bytes));
        let names: Vec<String> = entries.map(|e| String::from_utf8(e[4..].to_vec()).expect("names are text")).collect();
        assert_eq!(names.len(), list.names);
        assert_eq!(list.bytes, list.pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>());
        names.into_iter().collect()
    }

    #[test]
    fn pieces_split_and_join_and_lose_no_name() {
        let mut list = ChildList::new(NodeId::NIL, 0);
        let mut expected = BTreeSet::new();
        let add = |list: &mut ChildList, n: usize| {
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
