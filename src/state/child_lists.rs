//! Long lists of children, each made once for all who ask for it while it is being sent to one of them, and no child came
//! or went. Who is sent it keeps it; here is only known where it is. Used by `tree`.

use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use crate::state::NodeId;

/// The lists that are being sent, by their nodes.
#[derive(Debug, Default)]
pub(super) struct ChildLists(FxHashMap<NodeId, Weak<Vec<u8>>>);

impl ChildLists {
    /// The list of this node, if somebody is being sent it.
    pub fn get(&self, parent: NodeId) -> Option<Arc<Vec<u8>>> {
        self.0.get(&parent).and_then(Weak::upgrade)
    }

    /// Takes in the list of a node.
    pub fn share(&mut self, parent: NodeId, list: Vec<u8>) -> Arc<Vec<u8>> {
        let list = Arc::new(list);
        self.0.retain(|_, list| list.strong_count() > 0);
        self.0.insert(parent, Arc::downgrade(&list));
        list
    }

    /// A child of this node came or went.
    pub fn on_changed(&mut self, parent: NodeId) {
        self.0.remove(&parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shared_while_somebody_is_sent_it_and_it_is_right() {
        let mut lists = ChildLists::default();
        let sent = lists.share(NodeId(1), vec![1]);
        assert!(lists.get(NodeId(1)).is_some_and(|list| Arc::ptr_eq(&list, &sent)));
        lists.on_changed(NodeId(1));
        assert_eq!(lists.get(NodeId(1)), None);
        drop(lists.share(NodeId(2), vec![2]));
        assert_eq!(lists.get(NodeId(2)), None);
        lists.share(NodeId(3), vec![3]);
        assert_eq!(lists.0.len(), 1, "those that are sent to nobody are forgotten");
    }
}
