//! Removal of containers without children and of TTL nodes whose time is up (`ContainerManager`): looked for at an
//! interval, removed evenly spaced, each by a transaction of the server's own.

use std::collections::VecDeque;

use crate::ids::{Now, SessionId};
use crate::limits::CHILDLESS_LOOKED_AT_ONCE;
use crate::pipeline::{Pipeline, Rules};
use crate::records::{Owner, StatPersisted};
use crate::state::{NodeId, NodeSet};
use crate::txn::TxnHeader;
use crate::wrong::{self, Wrong};

/// What is due.
#[derive(Debug)]
pub(super) struct Housekeeping {
    next_look_ms: i64,
    next_removal_ms: i64,
    /// A look goes on: this many containers and TTL nodes, the first in their sets, are not looked at yet.
    unseen_containers: usize,
    unseen_ttls: usize,
    /// Found by it, not removed yet.
    due: VecDeque<String>,
}

impl Housekeeping {
    pub fn new(rules: &Rules, now: Now) -> Housekeeping {
        let next_look_ms = now.mono_ms + rules.container_check_interval_ms.max(1);
        Housekeeping { next_look_ms, next_removal_ms: 0, unseen_containers: 0, unseen_ttls: 0, due: VecDeque::new() }
    }

    fn is_looking(&self) -> bool {
        self.unseen_containers + self.unseen_ttls > 0
    }

    /// Whether a look goes on now: not while enough is found.
    fn looks_on(&self) -> bool {
        self.is_looking() && self.due.len() < CHILDLESS_LOOKED_AT_ONCE
    }

    pub fn next_deadline_ms(&self) -> i64 {
        if self.looks_on() {
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
            if self.housekeeping.due.is_empty() && !self.housekeeping.is_looking() {
                self.housekeeping.unseen_containers = self.state.containers().len();
                self.housekeeping.unseen_ttls = self.state.ttls().len();
            }
        }
        if self.housekeeping.looks_on() {
            self.look_at_some();
        }
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
                Owner::Ttl { ttl_ms } if wrong::is_on(Wrong::TtlHalved) => age_ms > ttl_ms / 2,
                Owner::Ttl { ttl_ms } => ttl_ms > 0 && age_ms > ttl_ms,
                Owner::None | Owner::Session(_) => false,
            }
    }

    /// Looks at some, between requests: there may be millions.
    fn look_at_some(&mut self) {
        let (tree, house) = (self.state.tree(), &self.housekeeping);
        let (containers, unseen_containers) =
            last_of(self.state.containers(), house.unseen_containers, CHILDLESS_LOOKED_AT_ONCE);
        let (ttls, unseen_ttls) =
            last_of(self.state.ttls(), house.unseen_ttls, CHILDLESS_LOOKED_AT_ONCE - containers.len());
        let is_due = |&&id: &&NodeId| {
            let node = tree.node(id);
            self.is_due(node.stat(), node.num_children(), self.state.owner(id))
        };
        let mut due: Vec<String> = containers.iter().chain(ttls).filter(is_due).map(|&id| tree.path(id)).collect();
        due.sort_unstable();
        self.housekeeping.due.extend(due);
        (self.housekeeping.unseen_containers, self.housekeeping.unseen_ttls) = (unseen_containers, unseen_ttls);
    }
}

/// The last of so many that are unseen, `count` at most, and how many are left.
fn last_of(set: &NodeSet, unseen: usize, count: usize) -> (&[NodeId], usize) {
    let unseen = unseen.min(set.len());
    let left = unseen.saturating_sub(count);
    (&set.as_slice()[left..unseen], left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Zxid;
    use crate::records::{Acl, OwnerRules};
    use crate::state::{State, StateRules};
    use crate::txn::{CreateOwner, CreateTxn, Txn, TxnBody};

    #[test]
    fn no_more_is_found_at_a_time_than_can_be_removed_soon() {
        let owners = OwnerRules { extended_types: true, emulate_353: false };
        let mut state = State::fresh(StateRules::new(owners, false));
        let count = 4 * CHILDLESS_LOOKED_AT_ONCE;
        for n in 1..=count {
            let header = TxnHeader { client_id: SessionId(1), cxid: 1, zxid: Zxid(n as i64), time_ms: 0 };
            let create = CreateTxn {
                path: format!("/{n}"),
                data: None,
                acl: Acl::open(),
                owner: CreateOwner::Ttl { ttl_ms: 1 },
                with_stat: false,
                parent_cversion: -1,
            };
            state.replay(&Txn { header, body: TxnBody::Create(create), digest: None });
        }
        let rules = Rules { extended_types: true, container_max_per_minute: 1_000_000, ..Rules::default() };
        let mut now = Now { mono_ms: 0, wall_ms: 1_700_000_000_000 };
        let mut pipeline = Pipeline::new(rules, state, now, 1);
        now.mono_ms = 60_000;
        let mut most = 0;
        while pipeline.state().tree().len() > 100 || pipeline.housekeeping.is_looking() {
            pipeline.set_time(now, now.mono_ms * 1000);
            pipeline.tick();
            most = most.max(pipeline.housekeeping.due.len());
            match pipeline.take_outbox().records.last() {
                Some(record) => {
                    let zxid = record.zxid;
                    pipeline.step(crate::mail::ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
                }
                None => now.mono_ms = pipeline.next_deadline_ms().max(now.mono_ms + 1),
            }
        }
        assert!(most < 2 * CHILDLESS_LOOKED_AT_ONCE, "{most} of {count}");
    }
}
