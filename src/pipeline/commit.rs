//! What a commit does, in zxid order: apply, fire watches, reply, then answer what waited behind it
//! (`FinalRequestProcessor`, the write half).

use crate::codes::Code;
use crate::ids::{ConnId, Zxid};
use crate::mail::Fate;
use crate::metrics;
use crate::pipeline::{Origin, Pipeline, Proposal, ReplyShape, SessionOwner, Slot, replies};
use crate::state::Applied;
use crate::txn::{Txn, TxnBody};
use crate::wrong::{self, Wrong};

/// For how many times `syncLimit` a global session is remembered that has ended. A learner that has not heard of it for one
/// is given up; the rest is for observers behind a follower, and for what a learner has taken and not looked at.
const ENDED_SYNC_LIMITS: i64 = 3;

impl Pipeline {
    /// `at_us`: since when a quorum has it, or this server alone.
    pub(super) fn on_committed(&mut self, zxid: Zxid, at_us: i64) {
        while let Some(mut proposal) = self.proposals.pop_front_if(|p| p.txn.header.zxid <= zxid) {
            proposal.durable = self.durable_since(proposal.txn.header.zxid, at_us);
            self.backlog.proposed_bytes -= proposal.bytes;
            self.commit(&proposal);
        }
        self.pending.committed(zxid);
        self.expiring.committed(zxid);
        if self.leads() {
            self.propose_awaiting();
        }
    }

    pub(super) fn commit(&mut self, proposal: &Proposal) {
        self.count_delay(&proposal.txn);
        if let Some(origin) = &proposal.origin {
            // What was asked before this write must not see it, even if its answers have to pile up for that.
            self.serve_all_waiting(origin.conn);
        }
        self.audit_ephemerals(&proposal.txn);
        let watched = !self.watches.is_empty();
        let mut changes = std::mem::take(&mut self.changes);
        let applied = self.state.apply(&proposal.txn, watched.then_some(&mut changes));
        if !wrong::is_on(Wrong::EventsAfterAnswer) {
            changes.drain(..).for_each(|change| self.fire(&change, proposal.txn.header.zxid));
        }
        count_writes(&proposal.txn.body);
        match proposal.txn.body {
            TxnBody::CreateSession { timeout_ms } if !self.leads() => {
                let session = proposal.txn.header.client_id;
                self.learn_session(session, timeout_ms);
                if let Some(conn) = proposal.origin.as_ref().map(|origin| origin.conn)
                    && self.conns.contains_key(&conn)
                {
                    self.sessions.own(session, SessionOwner::Conn(conn));
                }
            }
            TxnBody::CloseSession { .. } => self.end_session(proposal),
            _ => {}
        }
        if let Some(origin) = &proposal.origin {
            origin.audited.iter().for_each(|audited| audited.tell(&proposal.txn.body, &applied));
            self.reply_to_write(origin, proposal, &applied);
            self.serve_waiting(origin.conn);
        }
        changes.drain(..).for_each(|change| self.fire(&change, proposal.txn.header.zxid));
        self.changes = changes;
    }

    /// How long a transaction took from where it was made to here. The clocks of two servers may differ.
    fn count_delay(&self, txn: &Txn) {
        if !self.rules.ensemble {
            return;
        }
        let delay_ms = (self.now.wall_ms - txn.header.time_ms).max(0);
        metrics::PROPAGATION_LATENCY.record(delay_ms);
        if !self.leads() {
            metrics::COMMIT_PROPAGATION_LATENCY.record(delay_ms);
        }
    }

    /// The session is gone. Its connection closes: with the reply when it asked for it, without one when it expired.
    fn end_session(&mut self, proposal: &Proposal) {
        let session = proposal.txn.header.client_id;
        let owner = self.sessions.owner_here(session);
        if self.leads() && self.rules.local_sessions {
            self.sessions.end(session, ENDED_SYNC_LIMITS * self.rules.sync_ms, self.now);
        } else {
            self.sessions.remove(session);
        }
        let asked = proposal.origin.as_ref().map(|origin| origin.conn);
        if let Some(conn) = owner.filter(|&conn| asked != Some(conn)) {
            self.close_connection(conn);
        }
    }

    fn reply_to_write(&mut self, origin: &Origin, proposal: &Proposal, applied: &Applied) {
        let id = origin.conn;
        let Some(conn) = self.conns.get_mut(&id) else {
            return self.answer_without_bytes(origin);
        };
        debug_assert!(matches!(conn.waiting.front(), Some(Slot::Write)), "replies leave in the order of requests");
        conn.waiting.pop_front();
        let zxid = proposal.txn.header.zxid;
        let counter = origin.reply.counter(&proposal.txn.body).filter(|_| !proposal.txn.body.is_error());
        if let ReplyShape::Connect = origin.reply {
            replies::count_op(counter);
            return match applied {
                // The leader did not take the session.
                Applied::Failed(_) => self.refuse_session(id),
                _ => self.welcome(id),
            };
        }
        let err = match applied {
            Applied::Failed(code) => *code,
            // A multi that failed as a whole (-5 among them) is an error transaction; one whose parts failed is not.
            Applied::Done | Applied::Stat(_) | Applied::Multi(_) => 0,
        };
        let err = self.err_for(id, err);
        if err == Code::SessionMoved.value() {
            return self.lose_session(origin);
        }
        replies::count_op(counter);
        self.count_stages(origin, proposal);
        let latency_ms = ((self.now_us - origin.received_us) / 1000).max(0);
        metrics::UPDATELATENCY.record(latency_ms);
        metrics::REQUEST_LATENCY.record(latency_ms);
        let out = self.tell(id);
        let before = out.bytes.len();
        replies::reply(out.bytes.own(), origin.xid, zxid, err, |body| {
            if err == 0 {
                replies::write_body(body, &origin.reply, &proposal.txn.body, applied);
            }
        });
        replies::count_size(out.bytes.len() - before);
        out.note(origin.reply.short(&proposal.txn.body), origin.xid, zxid, origin.received_us);
        if let ReplyShape::Close = origin.reply {
            out.fate = Fate::Close;
        }
    }

    /// The stages of a write that the pipeline knows; the shell, the log and the poller know the others.
    fn count_stages(&mut self, origin: &Origin, proposal: &Proposal) {
        let (waited_us, committed_us) = (origin.taken_us - origin.received_us, self.now_us - origin.taken_us);
        metrics::WRITE_RECEIVED.record(waited_us, 1);
        metrics::WRITE_ACKNOWLEDGED.record(committed_us, 1);
        self.out.applied += 1;
        if waited_us + committed_us > self.rules.slow_us {
            self.warn_of_slow_write(origin, proposal);
        }
    }

    /// Answers the reads that waited for a write, up to the connection's next write or until it is full.
    pub(super) fn serve_waiting(&mut self, id: ConnId) {
        while self.conns.get(&id).is_some_and(|conn| !conn.is_full) && self.serve_next_waiting(id, false) {}
    }

    /// Answers the reads that stand before the connection's next write, syncs too: that write is behind all that they
    /// wait for.
    fn serve_all_waiting(&mut self, id: ConnId) {
        loop {
            let front = self.conns.get_mut(&id).and_then(|conn| conn.waiting.front_mut());
            if let Some(Slot::Read(read)) = front {
                read.awaits_sync = false;
            }
            if !self.serve_next_waiting(id, true) {
                return;
            }
        }
    }

    /// Answers the read that the connection waits for; `false` when it waits for a write, for the leader, for room, or for
    /// nothing. With its own write due it can not wait for room, and a list is made, or watches are set, at once: that they are not
    /// before the write is even proposed is rare.
    fn serve_next_waiting(&mut self, id: ConnId, write_is_due: bool) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let is_ready = |slot: &mut Slot| matches!(slot, Slot::Read(read) if !read.awaits_sync);
        let Some(Slot::Read(mut read)) = conn.waiting.pop_front_if(is_ready) else {
            return false;
        };
        if write_is_due {
            if self.must_wait(id, &read) {
                self.tell(id).answered += 1;
                self.give_up_flood(id, &read);
            } else {
                self.serve_read(id, &mut read);
            }
            return true;
        }
        let Some(what) = self.waits_for(id, &mut read) else {
            self.serve_read(id, &mut read);
            return true;
        };
        read.wait(what, self.now_us);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.waiting.push_front(Slot::Read(read));
        }
        false
    }
}

/// Counts writes for their top-level namespaces: path and data (`DataTree.updateWriteStat`).
fn count_writes(body: &TxnBody) {
    let len = |data: &Option<Vec<u8>>| data.as_ref().map_or(0, Vec::len);
    let (path, bytes) = match body {
        TxnBody::Create(create) => (&create.path, len(&create.data)),
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => (&set.path, len(&set.data)),
        TxnBody::Delete { path, .. } => (path, 0),
        TxnBody::Multi(subs) if !subs.iter().any(TxnBody::is_error) => return subs.iter().for_each(count_writes),
        TxnBody::Multi(_)
        | TxnBody::SetAcl(_)
        | TxnBody::Check(_)
        | TxnBody::CreateSession { .. }
        | TxnBody::CloseSession { .. }
        | TxnBody::Error(_)
        | TxnBody::Unknown { .. } => return,
    };
    if let Some(namespace) = metrics::top_namespace(path) {
        metrics::WRITE_PER_NAMESPACE.record(namespace, (path.len() + bytes) as i64);
    }
}
