//! What a snapshot holds between its head and its end mark, item by item: the sessions, the lists, the nodes. The same in
//! a file (`snapshot`) and in a leader's stream (`stream`); where the bytes come from, these two know. Pure.

use std::borrow::Cow;

use crate::ids::SessionId;
use crate::jute::{JuteError, Reader};
use crate::records::{Acl, StatPersisted};
use crate::state::{LoadError, Loader};
use crate::storage::chunks::{Measure, exactly};

const SESSION_BYTES: usize = 12;
/// List index and `StatPersisted`, behind a node's data.
const NODE_FIXED_BYTES: usize = 8 + 60;
/// An ACL entry with empty names.
const ACL_BYTES_MIN: usize = 12;
/// Marks the end of the tree, and of each seal of a file: the string "/".
pub(super) const END_MARK: [u8; 5] = [0, 0, 0, 1, b'/'];

/// Where the parts of a snapshot go, in the order of the file.
pub trait SnapshotSink {
    /// A session.
    fn session(&mut self, id: SessionId, timeout_ms: i32);
    /// A list and its index in this file.
    fn acl(&mut self, index: i64, list: Vec<Acl>);
    /// A node.
    fn node(&mut self, path: &str, data: Option<&[u8]>, acl_index: i64, stat: StatPersisted) -> Result<(), LoadError>;
}

impl SnapshotSink for Loader {
    fn session(&mut self, id: SessionId, timeout_ms: i32) {
        Loader::session(self, id, timeout_ms);
    }

    fn acl(&mut self, index: i64, list: Vec<Acl>) {
        Loader::acl(self, index, list);
    }

    fn node(&mut self, path: &str, data: Option<&[u8]>, acl_index: i64, stat: StatPersisted) -> Result<(), LoadError> {
        Loader::node(self, path, data, acl_index, stat)
    }
}

/// Why an item is not taken.
pub(super) enum BadItem {
    /// It is not what should be here: what follows cannot be told.
    Malformed,
    /// The sink does not want it; others may follow.
    Refused(LoadError),
}

/// Which item is next.
#[derive(Debug)]
enum Next {
    SessionCount,
    Session { left: i32 },
    ListCount,
    List { left: i32 },
    NodeOrEnd,
    Nothing,
}

/// The items in their order: says how long the next one is, and takes it apart once it is whole.
#[derive(Debug)]
pub(super) struct Items {
    next: Next,
    nodes: u64,
}

impl Items {
    /// At the first one.
    pub fn new() -> Items {
        Items { next: Next::SessionCount, nodes: 0 }
    }

    /// Nodes taken.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// The part that the next item is in; `None` behind the end mark.
    pub fn inside(&self) -> Option<&'static str> {
        match self.next {
            Next::SessionCount | Next::Session { .. } => Some("the sessions"),
            Next::ListCount | Next::List { .. } => Some("the access lists"),
            Next::NodeOrEnd => Some("the nodes"),
            Next::Nothing => None,
        }
    }

    /// How long the next item is, by the bytes of it that are there.
    pub fn measure(&self, have: &[u8]) -> Measure {
        match self.next {
            Next::SessionCount | Next::ListCount => exactly(4)(have),
            Next::Session { .. } => exactly(SESSION_BYTES)(have),
            Next::List { .. } => measure_list(have),
            Next::NodeOrEnd => measure_node(have),
            Next::Nothing => Measure::Bad,
        }
    }

    /// Takes the next item, which was measured and is whole.
    pub fn take(&mut self, item: &[u8], sink: &mut impl SnapshotSink) -> Result<(), BadItem> {
        let mut r = Reader::new(item);
        match self.next {
            Next::SessionCount => self.next = Next::sessions(r.int()?),
            Next::Session { left } => {
                sink.session(SessionId(r.long()?), r.int()?);
                self.next = Next::sessions(left - 1);
            }
            Next::ListCount => self.next = Next::lists(r.int()?),
            Next::List { left } => {
                sink.acl(r.long()?, Acl::read_list(&mut r)?.unwrap_or_default());
                self.next = Next::lists(left - 1);
            }
            Next::NodeOrEnd if item == END_MARK => self.next = Next::Nothing,
            Next::NodeOrEnd => {
                let node = Node::read(&mut r)?;
                self.nodes += 1;
                sink.node(&node.path, node.data, node.acl_index, node.stat).map_err(BadItem::Refused)?;
            }
            Next::Nothing => return Err(BadItem::Malformed),
        }
        Ok(())
    }
}

impl Next {
    /// A count below 0 counts nothing.
    fn sessions(left: i32) -> Next {
        if left > 0 { Next::Session { left } } else { Next::ListCount }
    }

    fn lists(left: i32) -> Next {
        if left > 0 { Next::List { left } } else { Next::NodeOrEnd }
    }
}

impl From<JuteError> for BadItem {
    fn from(_: JuteError) -> BadItem {
        BadItem::Malformed
    }
}

struct Node<'a> {
    path: Cow<'a, str>,
    data: Option<&'a [u8]>,
    acl_index: i64,
    stat: StatPersisted,
}

impl<'a> Node<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Node<'a>, JuteError> {
        Ok(Node { path: r.required_string()?, data: r.buffer()?, acl_index: r.long()?, stat: StatPersisted::read(r)? })
    }
}

/// Advances `at` over a length and the bytes it counts; -1 counts none.
fn skip_buffer(have: &[u8], at: &mut usize) -> Result<i32, Measure> {
    let Some(field) = have.get(*at..*at + 4) else { return Err(Measure::AtLeast(*at + 4)) };
    let length = i32::from_be_bytes(field.try_into().expect("4 bytes"));
    if length < -1 {
        return Err(Measure::Bad);
    }
    *at += 4 + length.max(0) as usize;
    Ok(length)
}

fn measure_list(have: &[u8]) -> Measure {
    let mut at = 8;
    let Some(count) = have.get(8..12) else { return Measure::AtLeast(12) };
    let count = i32::from_be_bytes(count.try_into().expect("4 bytes"));
    at += 4;
    for left in (0..count.max(0) as usize).rev() {
        at += 4;
        for _ in 0..2 {
            match skip_buffer(have, &mut at) {
                Ok(_) => {}
                // Those that follow take at least this much: long lists are not measured again for each entry.
                Err(Measure::AtLeast(bytes)) => return Measure::AtLeast(bytes + left * ACL_BYTES_MIN),
                Err(other) => return other,
            }
        }
    }
    if have.len() >= at { Measure::Whole(at) } else { Measure::AtLeast(at) }
}

fn measure_node(have: &[u8]) -> Measure {
    if have.len() >= END_MARK.len() && have[..END_MARK.len()] == END_MARK {
        return Measure::Whole(END_MARK.len());
    }
    let mut at = 0;
    match skip_buffer(have, &mut at) {
        Ok(-1) => return Measure::Bad,
        Ok(1) if have.len() < END_MARK.len() => return Measure::AtLeast(END_MARK.len()),
        Ok(_) => {}
        Err(measure) => return measure,
    }
    if let Err(measure) = skip_buffer(have, &mut at) {
        return measure;
    }
    at += NODE_FIXED_BYTES;
    if have.len() >= at { Measure::Whole(at) } else { Measure::AtLeast(at) }
}
