//! Lists of very many children, and of very many ephemerals of one session, are made some of them in each turn, between the
//! requests of others (`state::lists`). Whoever asked for some waits meanwhile; what it asks behind that is not looked at, for
//! its own next write must not come before the list.
//!
//! A list is that of the moment when it is given: what came and went while it was made is in it or is not, as it is then. So it
//! agrees with the zxid that it is given with, and with every event that its client was told before.
//!
//! The lists that somebody waits for are made in turn. Where they would take more than the account of lists has, that of the one
//! who has waited for longest is made first, however large it is.

use std::collections::BTreeMap;

use crate::ids::ConnId;
use crate::limits::{LISTERS_PER_TURN, LISTS_LOOK_MS};
use crate::memory::Account;
use crate::ops::ReadOp;
use crate::pipeline::{Pipeline, Query, Read, Slot};
use crate::records::perms;
use crate::state::Listed;

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

/// A connection that waits for a list.
#[derive(Debug)]
struct Waiter {
    conn: ConnId,
    listed: Listed,
}

impl Pipeline {
    /// Whether this asks for a list that is still to be made. That begins then, and its connection waits.
    pub(super) fn awaits_list(&mut self, id: ConnId, read: &Read) -> bool {
        if read.is_listed {
            return false;
        }
        let listed = match &read.query {
            // Nearly always there is no large one, and none need be looked up.
            Query::Read(ReadOp::GetChildren { target, .. }) if self.state.tree().is_wide() => {
                self.readable(&target.path, perms::READ, &read.auth).ok().map(Listed::Children)
            }
            Query::Read(ReadOp::GetEphemerals { .. }) => {
                self.conns.get(&id).and_then(|conn| conn.session).map(Listed::Ephemerals)
            }
            _ => return false,
        };
        let Some(listed) = listed else { return false };
        if self.state.unlisted(listed) <= self.state.rules().listed_at_once {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.in_turns, true)
        {
            self.state.await_list(listed);
            self.listing.waiters.insert(self.listing.next_number, Waiter { conn: id, listed });
            self.listing.next_number += 1;
        }
        true
    }

    /// Whether there is something to do for those who wait: who waits for a list keeps it being made. While a list of members
    /// is not in force, nobody is answered, for what is held behind may be a write, and nothing may be proposed.
    pub(super) fn can_go_on_with_lists(&self) -> bool {
        (!self.listing.waiters.is_empty() || self.long_reads.list_awaited(&self.state).is_some())
            && !self.is_reconfiguring()
    }

    /// On with what is being made; who waited for nothing else is answered.
    pub(super) fn go_on_with_lists(&mut self) {
        if self.now.mono_ms >= self.listing.next_look_ms {
            self.listing.next_look_ms = self.now.mono_ms + LISTS_LOOK_MS;
            self.state.forget_unwanted_lists();
        }
        if self.can_go_on_with_lists() {
            let first = self.listing.waiters.values().next().map(|waiter| waiter.listed);
            let first: Vec<Listed> = first.into_iter().chain(self.long_reads.list_awaited(&self.state)).collect();
            self.state.list_some(&first, self.rules.lists_bytes_max);
            self.answer_listers();
        }
        self.state.bound_lists(self.rules.lists_bytes_max);
        Account::Lists.publish(self.state.tree().listed_bytes());
    }

    /// Each in turn; some in each turn of the pipeline.
    fn answer_listers(&mut self) {
        for _ in 0..self.listing.waiters.len().min(LISTERS_PER_TURN) {
            let next = self.listing.waiters.range(self.listing.look_from..).next();
            let Some((&number, waiter)) = next else {
                self.listing.look_from = 0;
                continue;
            };
            self.listing.look_from = number + 1;
            if self.conns.contains_key(&waiter.conn) && self.state.is_being_listed(waiter.listed) {
                continue;
            }
            let Some(waiter) = self.listing.waiters.remove(&number) else { continue };
            if let Some(Slot::Read(read)) = self.conns.get_mut(&waiter.conn).and_then(|conn| conn.waiting.front_mut()) {
                read.is_listed = true;
            }
            self.end_turns_of(waiter.conn);
            self.state.release_list(waiter.listed);
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
            self.state.release_list(waiter.listed);
        }
    }
}
