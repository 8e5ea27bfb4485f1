//! Lists of very many children are made some of them in each turn, between the requests of others (`state::child_lists`).
//! Whoever asked for some waits meanwhile; what it asks behind that is not looked at, for its own next write must not come
//! before the list. A list is that of the moment when it is given, and so are all of one multiRead.
//!
//! The lists that somebody waits for are made in turn. Where they would take more than the account of lists has, those of the
//! one who has waited for longest are made first, however large they are.

use std::collections::BTreeMap;

use crate::ids::ConnId;
use crate::limits::{LISTED_AT_ONCE, LISTERS_PER_TURN, LISTS_LOOK_MS, MULTI_LISTS_AT_ONCE};
use crate::memory::Account;
use crate::ops::{Op, ReadOp};
use crate::pipeline::{Pipeline, Read};
use crate::records::perms;
use crate::state::{NodeId, State};

/// Who waits for lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order they came.
    waiters: BTreeMap<u64, Waiter>,
    next_number: u64,
    /// From here on they are looked at in the next turn.
    look_from: u64,
    next_look_ms: i64,
}

/// A connection that waits for lists.
#[derive(Debug)]
struct Waiter {
    conn: ConnId,
    /// Whose children are to be listed.
    nodes: Vec<NodeId>,
    /// So many of them are.
    listed: usize,
}

impl Waiter {
    /// From the first on whose children are still to be listed.
    fn unlisted(&mut self, state: &State) -> &[NodeId] {
        let rest = &self.nodes[self.listed..];
        self.listed += rest.iter().take_while(|&&node| state.tree().is_listed(node)).count();
        &self.nodes[self.listed..]
    }
}

impl Pipeline {
    /// Whether this asks for lists that are still to be made. That begins then, and its connection waits.
    pub(super) fn awaits_list(&mut self, id: ConnId, read: &Read) -> bool {
        if read.refusal.is_some() {
            return false;
        }
        // Nearly always there is no large one, and none need be looked up.
        let is_wide = self.state.tree().is_wide();
        let paths: Vec<&str> = match &read.request.op {
            Op::GetChildren { target, .. } if is_wide => vec![&target.path],
            Op::MultiRead(ops) if is_wide || ops.len() > MULTI_LISTS_AT_ONCE => {
                ops.iter().filter_map(listed_path).collect()
            }
            _ => return false,
        };
        let node = |path| self.readable(path, perms::READ, &read.auth).ok();
        let mut nodes: Vec<NodeId> = paths.into_iter().filter_map(node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let tree = self.state.tree();
        let unlisted = nodes.iter().filter(|&&node| !tree.is_listed(node));
        let names: usize = unlisted.map(|&node| tree.node(node).num_children() as usize).sum();
        if names <= LISTED_AT_ONCE {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.in_turns, true)
        {
            // Those that are there already, too: they must not go while the others are made.
            nodes.iter().for_each(|&node| self.state.await_list(node));
            self.listing.waiters.insert(self.listing.next_number, Waiter { conn: id, nodes, listed: 0 });
            self.listing.next_number += 1;
        }
        true
    }

    /// Whether there is something to do for those who wait: who waits for a list keeps it being made. While a list of members
    /// is not in force, nobody is answered, for what is held behind may be a write, and nothing may be proposed.
    pub(super) fn can_go_on_with_lists(&self) -> bool {
        !self.listing.waiters.is_empty() && !self.is_reconfiguring()
    }

    /// On with what is being made; who waited for nothing else is answered.
    pub(super) fn go_on_with_lists(&mut self) {
        if self.now.mono_ms >= self.listing.next_look_ms {
            self.listing.next_look_ms = self.now.mono_ms + LISTS_LOOK_MS;
            self.state.forget_unwanted_lists();
        }
        if self.can_go_on_with_lists() {
            let first = self.listing.waiters.values_mut().next();
            let first = first.map_or(&[][..], |waiter| waiter.unlisted(&self.state));
            self.state.list_some(first, self.rules.lists_bytes_max);
            self.answer_listers();
        }
        self.state.bound_lists(self.rules.lists_bytes_max);
        Account::Lists.publish(self.state.tree().listed_bytes());
    }

    /// Each in turn; some in each turn of the pipeline.
    fn answer_listers(&mut self) {
        let mut left = LISTERS_PER_TURN;
        for _ in 0..self.listing.waiters.len().min(LISTERS_PER_TURN) {
            let next = self.listing.waiters.range_mut(self.listing.look_from..).next();
            let Some((&number, waiter)) = next else {
                self.listing.look_from = 0;
                continue;
            };
            self.listing.look_from = number + 1;
            if self.conns.contains_key(&waiter.conn) && !waiter.unlisted(&self.state).is_empty() {
                continue;
            }
            let Some(Waiter { conn, nodes, .. }) = self.listing.waiters.remove(&number) else { continue };
            self.end_turns_of(conn);
            nodes.iter().for_each(|&node| self.state.release_list(node));
            left = left.saturating_sub(nodes.len());
            if left == 0 {
                return;
            }
        }
    }

    /// What its connection waited for can be given: on with that, and with what it asked since.
    pub(super) fn end_turns_of(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.in_turns = false;
        conn.released = Some((self.now_us, "a long answer that its client asked for before, which was made in pieces"));
        self.serve_waiting(id);
        self.take_up_held(id);
    }

    /// Nobody waits any more.
    pub(super) fn give_up_lists(&mut self) {
        for waiter in std::mem::take(&mut self.listing.waiters).into_values() {
            waiter.nodes.iter().for_each(|&node| self.state.release_list(node));
        }
    }
}

fn listed_path(op: &ReadOp) -> Option<&str> {
    match op {
        ReadOp::GetChildren { path } => Some(path),
        ReadOp::GetData { .. } => None,
    }
}
