//! Leader: writes that wait until less is proposed and not committed, and less is given to this server's own log and not
//! synced (its disk may stall while the followers carry the quorum). So the bytes that the log, the quorum and every
//! learner have to work at are bounded whatever clients and learners send, and what waits here costs its request alone.
//! Strictly in the order in which the requests came, from wherever: a session's writes stay in order, and so do a
//! learner's, which counts on it.
//!
//! What waits is bounded by what was let in: of this server's clients, and of those of learners of ours, by the doors they
//! came by (`net::load`). Apache's learners pass on whatever their clients send, and their acknowledgements come by the
//! same connection, which therefore must be read: beyond a bound the body of such a request is dropped, and its client is
//! told that it was not executed.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::ids::{LinkId, SessionId};
use crate::limits;
use crate::mail::ForwardedRequest;
use crate::memory::Account;
use crate::pipeline::{Origin, Pipeline, Update};
use crate::state::acl::AuthId;

/// A request that becomes a transaction in its turn; or a learner's sync, which comes after those before it.
#[derive(Debug)]
pub(super) enum Awaiting {
    /// Of a client of this server.
    Own {
        /// Who waits for it.
        origin: Origin,
        /// Its session.
        session: SessionId,
        /// The identities it arrived with.
        auth: Arc<[AuthId]>,
        /// What is asked.
        update: Update,
    },
    /// Of a client of a learner.
    Forwarded {
        /// Whose.
        learner: LinkId,
        /// What is asked.
        request: ForwardedRequest,
        /// Its body was dropped.
        is_refused: bool,
    },
}

/// What waits, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    awaiting: VecDeque<Awaiting>,
    /// Bytes of learners' requests among them.
    forwarded_bytes: FxHashMap<LinkId, usize>,
    /// Bytes proposed and not committed.
    pub proposed_bytes: usize,
    /// Bytes of records that this server's own log was given and, as far as it said, has not synced.
    log_bytes: usize,
    /// Those among them of which the log is not asked yet to say when it has them.
    unasked_bytes: usize,
}

impl Backlog {
    /// A record is on its way to this server's own log.
    pub fn on_record(&mut self, bytes: usize) {
        self.log_bytes += bytes;
        self.unasked_bytes += bytes;
    }

    /// What the log is to say once it has all that it was given, if that is worth it.
    pub fn ask_log(&mut self) -> Option<usize> {
        (self.unasked_bytes >= limits::LOGGED_BYTES_AT_ONCE).then(|| std::mem::take(&mut self.unasked_bytes))
    }

    /// For operators.
    pub fn publish(&self, is_alone: bool) {
        Account::Proposals.publish(self.proposed_bytes);
        // A server alone commits what its log has.
        Account::LogQueue.publish(if is_alone { self.proposed_bytes } else { self.log_bytes });
        Account::Forwarded.publish(self.forwarded_bytes.values().copied().max().unwrap_or(0));
    }

    /// For operators, where this server proposes nothing any more.
    pub fn publish_none() {
        [Account::Proposals, Account::LogQueue, Account::Forwarded].into_iter().for_each(|account| account.publish(0));
    }

    fn push(&mut self, mut next: Awaiting, forwarded_bytes_max: usize) {
        if let Awaiting::Forwarded { learner, request, is_refused } = &mut next
            && request.size() > limits::SMALL_FRAME_BYTES
        {
            let bytes = self.forwarded_bytes.entry(*learner).or_default();
            if *bytes > 0 && *bytes + request.size() > forwarded_bytes_max {
                (request.body, request.auth, *is_refused) = (Vec::new(), None, true);
            } else {
                *bytes += request.size();
            }
        }
        self.awaiting.push_back(next);
    }

    fn pop(&mut self) -> Option<Awaiting> {
        let next = self.awaiting.pop_front()?;
        if let Awaiting::Forwarded { learner, request, .. } = &next
            && request.size() > limits::SMALL_FRAME_BYTES
            && let Some(bytes) = self.forwarded_bytes.get_mut(learner)
        {
            *bytes -= request.size();
        }
        if self.awaiting.is_empty() {
            self.forwarded_bytes.clear();
        }
        Some(next)
    }

    /// The learner is gone, and nobody waits for what it passed on.
    pub fn forget_learner(&mut self, gone: LinkId) {
        self.awaiting.retain(|next| !matches!(next, Awaiting::Forwarded { learner, .. } if *learner == gone));
        self.forwarded_bytes.remove(&gone);
    }

    /// Nothing of it becomes a transaction any more. Gives those who wait.
    pub fn give_up(&mut self) -> Vec<Origin> {
        self.forwarded_bytes.clear();
        let origin = |next| match next {
            Awaiting::Own { origin, .. } => Some(origin),
            Awaiting::Forwarded { .. } => None,
        };
        self.awaiting.drain(..).filter_map(origin).collect()
    }
}

impl Pipeline {
    /// A request becomes a transaction, at once or in its turn.
    pub(super) fn propose_in_turn(&mut self, request: Awaiting) {
        if self.backlog.awaiting.is_empty() && self.may_propose() {
            self.propose_request(request);
        } else {
            self.backlog.push(request, self.rules.forwarded_bytes_max);
        }
    }

    /// This server's own log has so many bytes more. Where others carry the quorum it may be far behind the commits.
    pub(super) fn on_logged(&mut self, bytes: usize) {
        self.backlog.log_bytes -= bytes;
        if self.leads() {
            self.propose_awaiting();
        }
    }

    /// Something was committed or logged: on with what waits, as far as there is room.
    pub(super) fn propose_awaiting(&mut self) {
        while self.may_propose()
            && let Some(request) = self.backlog.pop()
        {
            self.propose_request(request);
        }
    }

    /// One transaction more, of whatever size: one that is larger than the bound is proposed alone.
    fn may_propose(&self) -> bool {
        self.backlog.proposed_bytes < self.rules.proposed_bytes_max
            && self.backlog.log_bytes < self.rules.log_queue_bytes_max
            && !self.is_reconfiguring()
    }

    fn propose_request(&mut self, request: Awaiting) {
        match request {
            Awaiting::Own { origin, session, auth, update } => self.propose_update(origin, session, &auth, update),
            Awaiting::Forwarded { learner, request, is_refused } => {
                self.propose_forwarded(learner, &request, is_refused);
            }
        }
    }
}
