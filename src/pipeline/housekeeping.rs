//! Removal of containers without children and of TTL nodes whose time is up (`ContainerManager`): looked for at an
//! interval, removed evenly spaced, each by a transaction of the server's own.

use std::collections::VecDeque;

use crate::ids::{Now, SessionId};
use crate::limits::CHILDLESS_LOOKED_AT_ONCE;
use crate::pipeline::{Pipeline, Rules};
use crate::records::{Owner, StatPersisted};
use crate::state::NodeId;
use crate::txn::TxnHeader;

/// What is due.
#[derive(Debug)]
pub(super) struct Housekeeping {
    next_look_ms: i64,
    next_removal_ms: i64,
    /// Containers and TTL nodes at the last look that are not looked at yet; their places may be those of others by now.
    candidates: Vec<NodeId>,
    /// Found by the last look, not removed yet.
    due: VecDeque<String>,
}

impl Housekeeping {
    pub fn new(rules: &Rules, now: Now) -> Housekeeping {
        let next_look_ms = now.mono_ms + rules.container_check_interval_ms.max(1);
        Housekeeping { next_look_ms, next_removal_ms: 0, candidates: Vec::new(), due: VecDeque::new() }
    }

    pub fn next_deadline_ms(&self) -> i64 {
        if !self.candidates.is_empty() {
            return i64::MIN;
        }
        if self.due.is_empty() { self.next_look_ms } else { self.next_removal_ms.min(self.next_look_ms) }
    }
}

impl Pipeline {
    pub(super) fn remove_childless(&mut self) {
        let now_ms = self.now.mono_ms;
        if now_ms >= self.housekeeping.next_look_ms {
            self.housekeeping.next_look_ms = now_ms + self.rules.container_check_interval_ms.max(1);
            if self.housekeeping.due.is_empty() {
                self.housekeeping.candidates = self.state.containers().chain(self.state.ttls()).collect();
            }
        }
        self.look_at_some();
        let spacing_ms = 60_000 / self.rules.container_max_per_minute.max(1);
        while now_ms >= self.housekeeping.next_removal_ms
            && self.expiring.has_room()
            && let Some(path) = self.housekeeping.due.pop_front()
        {
            self.propose_removal(path);
            if spacing_ms > 0 {
                self.housekeeping.next_removal_ms = now_ms + spacing_ms;
            }
        }
    }

    fn propose_removal(&mut self, path: String) {
        if self.is_used_up() {
            return;
        }
        let zxid = self.last_proposed.next();
        if let Some(body) = self.prepare_removal(path, zxid) {
            let header = TxnHeader { client_id: SessionId::NONE, cxid: 0, zxid, time_ms: self.now.wall_ms };
            self.propose(header, body, None);
            self.expiring.add(zxid, 1);
        }
    }

    /// Whether a node is to be removed. Asked when it is looked for, and again when its turn comes, perhaps minutes later.
    pub(super) fn is_due(&self, stat: &StatPersisted, num_children: u32, owner: Owner) -> bool {
        let age_ms = self.now.wall_ms - stat.mtime;
        num_children == 0
            && match owner {
                Owner::Container if stat.cversion > 0 => true,
                Owner::Container => {
                    let max_ms = self.rules.container_never_used_ms_max;
                    max_ms > 0 && age_ms > max_ms
                }
                Owner::Ttl { ttl_ms } => ttl_ms > 0 && age_ms > ttl_ms,
                Owner::None | Owner::Session(_) => false,
            }
    }

    /// Looks at some of the candidates, between requests: there may be millions.
    fn look_at_some(&mut self) {
        let (tree, candidates) = (self.state.tree(), &mut self.housekeeping.candidates);
        let looked_at = candidates.split_off(candidates.len().saturating_sub(CHILDLESS_LOOKED_AT_ONCE));
        let is_due = |&id: &NodeId| {
            let node = tree.node(id);
            node.is_in_use() && self.is_due(node.stat(), node.num_children(), self.state.owner(id))
        };
        let mut due: Vec<String> = looked_at.into_iter().filter(is_due).map(|id| tree.path(id)).collect();
        due.sort_unstable();
        self.housekeeping.due.extend(due);
    }
}
