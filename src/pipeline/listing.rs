//! Lists of very many children are made some of them in each turn, between the requests of others (`state::child_lists`).
//! Whoever asked for one waits meanwhile; what it asks behind that is not looked at, for its own next write must not come
//! before the list. The list is that of the moment when it is given.

use std::collections::VecDeque;

use crate::ids::ConnId;
use crate::limits::{LISTERS_PER_TURN, LISTS_LOOK_MS};
use crate::ops::{Op, ReadOp};
use crate::pipeline::{Pipeline, Read};
use crate::records::perms;
use crate::state::NodeId;
use crate::state::acl::AuthId;

/// Who waits for lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order they came: whose children are to be listed for whom.
    line: VecDeque<(ConnId, Vec<NodeId>)>,
    next_look_ms: i64,
}

impl Listing {
    /// Nobody waits any more.
    pub fn give_up(&mut self) {
        self.line.clear();
    }
}

impl Pipeline {
    /// Whether this asks for lists that are still to be made. That begins then, and its connection waits.
    pub(super) fn awaits_list(&mut self, id: ConnId, read: &Read) -> bool {
        // Nearly always there is no such node, and none need be looked up.
        if read.refusal.is_some() || !self.state.tree().is_wide() {
            return false;
        }
        let paths: Vec<&str> = match &read.request.op {
            Op::GetChildren { target, .. } => vec![&target.path],
            Op::MultiRead(ops) => ops.iter().filter_map(listed_path).collect(),
            _ => return false,
        };
        let nodes: Vec<NodeId> = paths.into_iter().filter_map(|path| self.unlisted(path, &read.auth)).collect();
        if nodes.is_empty() {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.awaits_list, true)
        {
            self.listing.line.push_back((id, nodes));
        }
        true
    }

    fn unlisted(&mut self, path: &str, auth: &[AuthId]) -> Option<NodeId> {
        let node = self.readable(path, perms::READ, auth).ok()?;
        (!self.state.is_listed(node)).then_some(node)
    }

    /// Whether there is something to do for those who wait.
    pub(super) fn can_go_on_with_lists(&self) -> bool {
        self.state.is_listing() || (!self.listing.line.is_empty() && !self.is_reconfiguring())
    }

    /// On with what is being made; who waited for nothing else is answered.
    pub(super) fn go_on_with_lists(&mut self) {
        if self.now.mono_ms >= self.listing.next_look_ms {
            self.listing.next_look_ms = self.now.mono_ms + LISTS_LOOK_MS;
            self.state.forget_unwanted_lists();
        }
        self.state.list_some();
        if self.is_reconfiguring() {
            // What is held behind a list may be a write, and nothing may be proposed now.
            return;
        }
        for _ in 0..self.listing.line.len().min(LISTERS_PER_TURN) {
            let Some((id, nodes)) = self.listing.line.pop_front() else { return };
            if !self.conns.contains_key(&id) {
                continue;
            }
            if !nodes.iter().all(|&node| self.state.is_listed(node)) {
                self.listing.line.push_back((id, nodes));
            } else if let Some(conn) = self.conns.get_mut(&id) {
                conn.awaits_list = false;
                self.serve_waiting(id);
                self.take_up_held(id);
            }
        }
    }
}

fn listed_path(op: &ReadOp) -> Option<&str> {
    match op {
        ReadOp::GetChildren { path } => Some(path),
        ReadOp::GetData { .. } => None,
    }
}
