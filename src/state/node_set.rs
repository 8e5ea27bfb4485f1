//! A set of nodes that can be walked some of it at a time while it changes: in places, from the last to the first. What goes
//! leaves its place to the last one, and what comes is the last; so a walk towards the first meets everything that is there
//! from its beginning to its end, some of it twice.

use rustc_hash::FxHashMap;

use crate::state::NodeId;

/// The set.
#[derive(Debug, Default)]
pub struct NodeSet {
    nodes: Vec<NodeId>,
    places: FxHashMap<NodeId, usize>,
}

impl NodeSet {
    /// Adds a node; again has no effect.
    pub(super) fn insert(&mut self, id: NodeId) {
        self.places.entry(id).or_insert_with(|| {
            self.nodes.push(id);
            self.nodes.len() - 1
        });
    }

    /// Takes a node out, if it is in.
    pub(super) fn remove(&mut self, id: NodeId) {
        let Some(place) = self.places.remove(&id) else { return };
        self.nodes.swap_remove(place);
        if let Some(&moved) = self.nodes.get(place) {
            self.places.insert(moved, place);
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// In the order of their places.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_walk_from_the_last_to_the_first_misses_nobody_who_stays() {
        let mut set = NodeSet::default();
        (0..1000).for_each(|n| set.insert(NodeId(n)));
        let (mut met, mut end, mut random) = (BTreeSet::new(), set.len(), 1u32);
        while end > 0 {
            end = end.min(set.len());
            let from = end.saturating_sub(10);
            met.extend(set.as_slice()[from..end].iter().copied());
            end = from;
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            set.remove(NodeId(random >> 16 & 1023));
            set.insert(NodeId(5000 + end as u32));
            set.insert(NodeId(5000 + end as u32));
        }
        let stayed: BTreeSet<NodeId> = set.as_slice().iter().copied().filter(|id| id.0 < 5000).collect();
        assert!(stayed.len() < 1000 && stayed.is_subset(&met));
        assert_eq!(set.len(), set.as_slice().iter().collect::<BTreeSet<_>>().len());
        set.as_slice().to_vec().into_iter().for_each(|id| set.remove(id));
        assert!(set.is_empty() && set.places.is_empty());
    }
}
