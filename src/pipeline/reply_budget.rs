//! The account of replies: what was told to connections and not taken yet, as far as the poller said. Above its bound no
//! large reply is made: the request waits, and is answered when there is room, so that a reply is made when it can be sent.
//! Small ones go on (pings, most reads), and the poller reads less of those who do not take theirs.
//!
//! What is shared counts once, from the moment it is lent until the last one who is sent it has it; of lists of children as
//! they were before and after a change, so does each piece that did not change. That the tree has the value, too, makes no
//! difference: one write, or the deletion of a node, leaves it to those who are sent it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use crate::codes::Code;
use crate::ids::ConnId;
use crate::ops::ReadOp;
use crate::parts::{Lender, Lent, Loan, Shared};
use crate::pipeline::{Pipeline, Query, Read};

/// Children from which on a list of them is large, and shared if its names make it long.
pub(super) const CHILDREN_LARGE: u32 = 128;
/// Bytes of a value, or entries of an access list, from which on it is large.
const DATA_BYTES_LARGE: usize = 4 << 10;
const ACL_ENTRIES_LARGE: usize = 64;
/// Loans that are remembered beyond those that were alive at the last look.
const LOANS_OVER_MAX: usize = 1024;

/// What is told and not taken.
#[derive(Debug, Default)]
pub(super) struct ReplyBudget {
    /// Bytes that connections have for themselves, of this step too.
    own_bytes: usize,
    /// Those of this step among them, not exactly.
    step_bytes: usize,
    /// Of the answer to a long multiRead that is being made.
    making_bytes: usize,
    /// What is lent, by the address of its bytes.
    loans: FxHashMap<usize, Weak<Loan>>,
    /// How many were alive at the last look.
    loans_alive: usize,
    lender: Lender,
    /// Whose next request waits for room, in the order they came.
    line: VecDeque<ConnId>,
    /// What the poller was told last: so many bytes are too many.
    excess_told: usize,
}

impl ReplyBudget {
    /// The one loan of these bytes.
    pub fn lend(&mut self, bytes: Shared, from: usize) -> Lent {
        let address = bytes.address();
        if let Some(lent) = self.loans.get(&address).and_then(Weak::upgrade) {
            return lent;
        }
        let lent = Arc::new(Loan::new(bytes, from, &self.lender));
        self.loans.insert(address, Arc::downgrade(&lent));
        if self.loans.len() > 2 * self.loans_alive + LOANS_OVER_MAX {
            self.loans.retain(|_, loan| loan.strong_count() > 0);
            self.loans_alive = self.loans.len();
        }
        lent
    }

    /// A reply was made, with so many bytes of its own.
    pub fn on_reply(&mut self, own_bytes: usize) {
        self.own_bytes += own_bytes;
        self.step_bytes += own_bytes;
    }

    /// So many bytes of its own an answer has by now that is made over several turns (`pipeline::long_reads`).
    pub fn on_making(&mut self, own_bytes: usize) {
        self.making_bytes = own_bytes;
    }

    /// The step is over: connections are told so many bytes of their own.
    pub fn on_told(&mut self, own_bytes: usize) {
        self.own_bytes = self.own_bytes.saturating_sub(std::mem::take(&mut self.step_bytes)) + own_bytes;
    }

    fn on_taken(&mut self, own_bytes: usize) {
        self.own_bytes = self.own_bytes.saturating_sub(own_bytes);
    }

    /// What is too much.
    fn excess(&self, bytes_max: usize) -> usize {
        (self.own_bytes + self.making_bytes + self.lender.lent_bytes() + 1).saturating_sub(bytes_max)
    }
}

impl Pipeline {
    /// Whether there is no room for the answer to this. Then its connection stands in line, unless it does already.
    pub(super) fn must_wait(&mut self, id: ConnId, read: &Read) -> bool {
        // Nearly always there is room, and the node need not be looked up for that.
        if !self.is_without_room() || !self.may_be_large(&read.query) {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.in_line, true)
        {
            self.reply_budget.line.push_back(id);
        }
        true
    }

    /// Whether large replies wait.
    pub(super) fn is_without_room(&self) -> bool {
        self.reply_budget.excess(self.rules.replies_bytes_max) > 0
    }

    fn may_be_large(&self, query: &Query) -> bool {
        let Query::Read(op) = query else { return false };
        let tree = self.state.tree();
        let node = |path: &str| tree.lookup(path).map(|id| tree.node(id));
        match op {
            ReadOp::GetData(target) => node(&target.path).is_some_and(|node| node.data_len() >= DATA_BYTES_LARGE),
            ReadOp::GetChildren { target, .. } => {
                node(&target.path).is_some_and(|node| node.num_children() >= CHILDREN_LARGE)
            }
            ReadOp::GetAcl { path } => {
                let list = tree.lookup(path).ok_or(Code::NoNode).and_then(|id| self.state.acl(id));
                list.is_ok_and(|list| list.len() >= ACL_ENTRIES_LARGE)
            }
            ReadOp::MultiRead(_) | ReadOp::GetEphemerals { .. } => true,
            _ => false,
        }
    }

    /// Connections took what they were told, or are gone: so many of their own bytes, and maybe some that were shared.
    pub(super) fn on_taken(&mut self, own_bytes: usize) {
        self.reply_budget.on_taken(own_bytes);
        self.serve_those_in_line();
    }

    /// As far as there is budget. That may come without a word: when the last one has what was shared.
    pub(super) fn serve_those_in_line(&mut self) {
        // Each once: who finds no room again stands at the end.
        for _ in 0..self.reply_budget.line.len() {
            if self.is_without_room() {
                return;
            }
            let Some(id) = self.reply_budget.line.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.in_line = false;
                self.serve_waiting(id);
            }
        }
    }

    /// The poller hears how much is too much, when that changes by something.
    pub(super) fn tell_excess(&mut self) {
        let own_bytes = self.out.poller.outgoing.iter().map(|outgoing| outgoing.bytes.own_len()).sum();
        self.reply_budget.on_told(own_bytes);
        let excess = self.reply_budget.excess(self.rules.replies_bytes_max);
        // Those in line are to hear when somebody took something, even if there was room a moment after they had none.
        let excess = excess.max(usize::from(!self.reply_budget.line.is_empty()));
        let is_news = (excess == 0) != (self.reply_budget.excess_told == 0)
            || excess.abs_diff(self.reply_budget.excess_told) > self.rules.replies_bytes_max / 16;
        if is_news {
            self.reply_budget.excess_told = excess;
            self.out.poller.excess_bytes = Some(excess);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once_until_all_have_it() {
        let mut budget = ReplyBudget::default();
        let value = Arc::new(vec![0; 1000]);
        let mut readers: Vec<Lent> = (0..10).map(|_| budget.lend(Shared::Whole(Arc::clone(&value)), 0)).collect();
        budget.on_reply(100);
        budget.on_told(100);
        assert_eq!(budget.excess(100), 1001);
        readers.truncate(1);
        budget.on_taken(0);
        assert_eq!(budget.excess(100), 1001);
        drop(readers);
        budget.on_taken(100);
        assert_eq!(budget.excess(100), 0);
    }

    #[test]
    fn values_that_leave_the_tree_while_they_are_sent_had_their_room_before() {
        let mut budget = ReplyBudget::default();
        let values: Vec<Arc<Vec<u8>>> = (0..100).map(|_| Arc::new(vec![0; 1000])).collect();
        let mut readers = Vec::new();
        for value in &values {
            if budget.excess(10_000) == 0 {
                readers.push(budget.lend(Shared::Whole(Arc::clone(value)), 0));
            }
        }
        drop(values);
        assert_eq!(readers.iter().map(|lent| lent.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn loans_that_are_over_are_forgotten() {
        let mut budget = ReplyBudget::default();
        for _ in 0..10_000 {
            drop(budget.lend(Shared::Whole(Arc::new(vec![0; 100])), 0));
        }
        assert!(budget.loans.len() <= LOANS_OVER_MAX + 1);
    }
}
