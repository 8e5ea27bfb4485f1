//! Lists of very many children, and of very many ephemerals of one session, are made some of them in each turn, between the
//! requests of others (`state::lists`). Whoever asked for some waits meanwhile; what it asks behind that is not looked at, for
//! its own next write must not come before the list.
//!
//! A list is that of the moment when it is given, and so are all of one multiRead: what came and went while it was made is in
//! it or is not, as it is then. So it agrees with the zxid that it is given with, and with every event that its client was told
//! before.
//!
//! The lists that somebody waits for are made in turn. Where they would take more than the account of lists has, those of the
//! one who has waited for longest are made first, however large they are.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ConnId;
use crate::limits::{CHILDREN_FEW, LISTERS_PER_TURN, LISTS_LOOK_MS, MULTI_LISTS_AT_ONCE};
use crate::memory::Account;
use crate::ops::{Op, ReadOp};
use crate::pipeline::{Pipeline, Read, Slot};
use crate::records::perms;
use crate::state::{Listed, State};

/// Who waits for lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order they came.
    waiters: BTreeMap<u64, Waiter>,
    next_number: u64,
    /// Those of them whose lists are not all begun, in that order.
    unbegun: VecDeque<u64>,
    /// From here on they are looked at in the next turn.
    look_from: u64,
    next_look_ms: i64,
}

/// A connection that waits for lists.
#[derive(Debug)]
struct Waiter {
    conn: ConnId,
    lists: Vec<Listed>,
    /// So many of them are begun.
    begun: usize,
    /// So many are made.
    made: usize,
}

impl Waiter {
    /// Of those that are begun, from the first on that is still to be made.
    fn unmade(&mut self, state: &State) -> &[Listed] {
        let rest = &self.lists[self.made..self.begun];
        self.made += rest.iter().take_while(|&&listed| !state.is_being_listed(listed)).count();
        &self.lists[self.made..self.begun]
    }

    fn waits(&mut self, state: &State) -> bool {
        self.unmade(state);
        self.made < self.lists.len()
    }

    fn release(&self, state: &mut State) {
        self.lists[..self.begun].iter().for_each(|&listed| state.release_list(listed));
    }
}

impl Pipeline {
    /// Whether this asks for lists that are still to be made. That begins then, and its connection waits.
    pub(super) fn awaits_list(&mut self, id: ConnId, read: &Read) -> bool {
        if read.refusal.is_some() || read.is_listed {
            return false;
        }
        // Nearly always there is no large one, and none need be looked up.
        let is_wide = self.state.tree().is_wide();
        let children = |path: &String| self.readable(path, perms::READ, &read.auth).ok().map(Listed::Children);
        let listed_at_once = self.state.rules().listed_at_once;
        let few = CHILDREN_FEW.min(listed_at_once);
        let is_worth_it = |listed: &Listed| match listed {
            Listed::Children(id) => self.state.tree().node(*id).num_children() as usize >= few,
            Listed::Ephemerals(_) => true,
        };
        let mut lists: Vec<Listed> = match &read.request.op {
            Op::GetChildren { target, .. } if is_wide => children(&target.path).into_iter().collect(),
            Op::MultiRead(ops) if is_wide || ops.len() > MULTI_LISTS_AT_ONCE => {
                ops.iter().filter_map(listed_path).filter_map(children).filter(is_worth_it).collect()
            }
            Op::GetEphemerals { .. } => {
                self.conns.get(&id).and_then(|conn| conn.session).map(Listed::Ephemerals).into_iter().collect()
            }
            _ => return false,
        };
        lists.sort_unstable();
        lists.dedup();
        let names: usize = lists.iter().map(|&listed| self.state.unlisted(listed)).sum();
        if names <= listed_at_once {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.in_turns, true)
        {
            let number = self.listing.next_number;
            self.listing.waiters.insert(number, Waiter { conn: id, lists, begun: 0, made: 0 });
            self.listing.unbegun.push_back(number);
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
            self.begin_some();
            let first = self.listing.waiters.values_mut().next();
            let first = first.map_or(&[][..], |waiter| waiter.unmade(&self.state));
            self.state.list_some(first, self.rules.lists_bytes_max);
            self.answer_listers();
        }
        self.state.bound_lists(self.rules.lists_bytes_max);
        Account::Lists.publish(self.state.tree().listed_bytes());
    }

    /// Begins as many lists as names are listed in a turn. Those that are there already are waited for, too: they must not go
    /// while the others are made.
    fn begin_some(&mut self) {
        let mut left = self.state.rules().listed_at_once;
        while let Some(number) = self.listing.unbegun.front() {
            if let Some(waiter) = self.listing.waiters.get_mut(number) {
                let count = left.min(waiter.lists.len() - waiter.begun);
                waiter.lists[waiter.begun..][..count].iter().for_each(|&listed| self.state.await_list(listed));
                waiter.begun += count;
                left -= count;
                if waiter.begun < waiter.lists.len() {
                    return;
                }
            }
            self.listing.unbegun.pop_front();
        }
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
            if self.conns.contains_key(&waiter.conn) && waiter.waits(&self.state) {
                continue;
            }
            let Some(waiter) = self.listing.waiters.remove(&number) else { continue };
            if let Some(Slot::Read(read)) = self.conns.get_mut(&waiter.conn).and_then(|conn| conn.waiting.front_mut()) {
                read.is_listed = true;
            }
            self.end_turns_of(waiter.conn);
            waiter.release(&mut self.state);
            left = left.saturating_sub(waiter.lists.len());
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
            waiter.release(&mut self.state);
        }
        self.listing.unbegun.clear();
    }
}

fn listed_path(op: &ReadOp) -> Option<&String> {
    match op {
        ReadOp::GetChildren { path } => Some(path),
        ReadOp::GetData { .. } => None,
    }
}
