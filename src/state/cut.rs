//! A snapshot being taken while the state goes on changing. It is a cut: exactly the state at the moment it began, so
//! its name, its digest and its content agree, and nothing need be replayed to make it whole.
//!
//! How: the tree is walked by arena place, a slice at a time, between requests. Before a node that the walk has not
//! reached is changed or removed, it is written to the cut as it is (`Tree::preserve`), after its ancestors. Nodes that
//! are made later are marked as done at birth. So every node of that moment is written once, parents first.

use crate::jute::Writer;
use crate::state::tree::Node;

/// Progress of a cut.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The next arena place to look at.
    pub next_slot: u32,
    /// Written, not handed over yet.
    pub out: Vec<u8>,
    /// Path of the node that is being written; kept for its capacity.
    pub path: String,
}

impl Cut {
    /// One node record: path, data, ACL index, stat.
    pub fn write_node(&mut self, node: &Node) {
        self.out.put_string(&self.path);
        self.out.put_buffer(node.data());
        self.out.put_long(node.acl().index());
        node.stat().write(&mut self.out);
    }
}
