//! The learner's part: what its clients write goes to the leader, and comes back as committed transactions
//! (`LearnerZooKeeperServer`, `FollowerRequestProcessor`, `LearnerSessionTracker`).

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use crate::ids::{ConnId, SessionId};
use crate::jute::Writer;
use crate::limits::APPLIED_BYTES_AT_ONCE;
use crate::mail::{ForwardedRequest, Role, ToQuorum};
use crate::ops::ReadOp;
use crate::pipeline::slow::Durable;
use crate::pipeline::{Asked, Origin, Pipeline, Proposal, Query, Read, ReplyShape, Slot, Update};
use crate::txn::{Txn, TxnBody, kind};

/// What a learner waits for. Ends with the role.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Writes at the leader, by session, in the order in which their transactions come. No entry is empty.
    forwarded: BTreeMap<SessionId, VecDeque<Origin>>,
    /// Whose syncs are at the leader, in the order in which they are confirmed.
    syncs: VecDeque<ConnId>,
    /// Who came with a session that the leader is asked about, in order. No entry is empty.
    revalidating: FxHashMap<SessionId, VecDeque<ConnId>>,
    /// Sessions heard of since the leader was last told, and their timeouts.
    touched: FxHashMap<SessionId, i32>,
    /// Bytes applied of which the quorum thread was not told.
    applied_bytes: usize,
}

impl Following {
    pub fn awaits_commit(&self) -> bool {
        !self.forwarded.is_empty()
    }

    pub fn touch(&mut self, session: SessionId, timeout_ms: i32) {
        self.touched.insert(session, timeout_ms);
    }

    /// Whose writes are at the leader.
    pub fn into_origins(self) -> Vec<Origin> {
        self.forwarded.into_values().flatten().collect()
    }

    /// Who waits for this transaction: the request at the head of what its session waits for, if it has the same cxid.
    fn origin_of(&mut self, txn: &Txn) -> Option<Origin> {
        let session = txn.header.client_id;
        let waiting = self.forwarded.get_mut(&session)?;
        let origin = waiting.pop_front_if(|origin| origin.xid == txn.header.cxid && origin.may_become(&txn.body))?;
        if waiting.is_empty() {
            self.forwarded.remove(&session);
        }
        Some(origin)
    }
}

impl Origin {
    /// Whether the request can have become this. What a server does by itself has cxid 0, and so may a client's request.
    fn may_become(&self, body: &TxnBody) -> bool {
        match body {
            TxnBody::Error(_) => true,
            TxnBody::CreateSession { .. } => matches!(self.reply, ReplyShape::Connect),
            TxnBody::CloseSession { .. } => matches!(self.reply, ReplyShape::Close),
            _ => !matches!(self.reply, ReplyShape::Connect | ReplyShape::Close),
        }
    }
}

impl Pipeline {
    fn forward(&mut self, session: SessionId, origin: Origin, request: ForwardedRequest) {
        if let Some(conn) = self.conns.get_mut(&origin.conn) {
            conn.waiting.push_back(Slot::Write);
        }
        self.following.forwarded.entry(session).or_default().push_back(origin);
        self.out.quorum.push(ToQuorum::Forward(request));
    }

    pub(super) fn forward_update(&mut self, id: ConnId, session: SessionId, asked: Asked, update: &Update) {
        self.upgrade_for(id, session, update);
        let origin = self.origin(id, session, &asked, update);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.closing |= matches!(update, Update::CloseSession);
        let auth = Some(conn.auth.to_vec());
        let Asked { xid: cxid, op_number: op, body, .. } = asked;
        self.forward(session, origin, ForwardedRequest { session, cxid, op, body, auth });
    }

    pub(super) fn forward_session(&mut self, id: ConnId, timeout_ms: i32) {
        let session = self.new_session_id();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.session = Some(session);
        }
        let origin = Origin::of_connect(id, self.now_us);
        let mut body = Vec::new();
        body.put_int(timeout_ms);
        self.forward(
            session,
            origin,
            ForwardedRequest { session, cxid: 0, op: kind::CREATE_SESSION, body, auth: None },
        );
    }

    /// A sync is answered here, once the leader has sent all that came before it.
    pub(super) fn forward_sync(&mut self, id: ConnId, session: SessionId, asked: Asked, op: ReadOp) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let read = Read::new(&asked, Query::Read(op), conn.auth.clone(), self.now_us);
        let auth = Some(conn.auth.to_vec());
        conn.waiting.push_back(Slot::Read(Read { awaits_sync: true, ..read }));
        self.following.syncs.push_back(id);
        let Asked { xid: cxid, op_number: op, body, .. } = asked;
        self.out.quorum.push(ToQuorum::Forward(ForwardedRequest { session, cxid, op, body, auth }));
    }

    pub(super) fn on_synced(&mut self) {
        let Some(id) = self.following.syncs.pop_front() else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let oldest = conn.waiting.iter_mut().find_map(|slot| match slot {
            Slot::Read(read) if read.awaits_sync => Some(read),
            Slot::Read(_) | Slot::Write => None,
        });
        if let Some(read) = oldest {
            read.awaits_sync = false;
        }
        self.serve_waiting(id);
    }

    /// Only the leader knows whether the session lives.
    pub(super) fn forward_revalidation(&mut self, id: ConnId, session: SessionId, timeout_ms: i32) {
        self.following.revalidating.entry(session).or_default().push_back(id);
        self.out.quorum.push(ToQuorum::Revalidate { session, timeout_ms });
    }

    pub(super) fn on_revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(asking) = self.following.revalidating.get_mut(&session) else { return };
        let id = asking.pop_front();
        if asking.is_empty() {
            self.following.revalidating.remove(&session);
        }
        let Some((id, conn)) = id.and_then(|id| Some((id, self.conns.get(&id)?))) else { return };
        let timeout_ms = conn.timeout_ms;
        if !valid {
            return self.refuse_session(id);
        }
        // The leader may have made it a moment ago: its transaction is still to come.
        self.learn_session(session, timeout_ms);
        self.renew_session(id, session);
    }

    /// A session that the ensemble has; the leader hears of it once from every learner.
    pub(super) fn learn_session(&mut self, session: SessionId, timeout_ms: i32) {
        if self.sessions.is_unknown(session) {
            self.sessions.add(session, timeout_ms, self.now);
        }
        self.following.touch(session, timeout_ms);
    }

    pub(super) fn tell_touched(&mut self) {
        self.touch_those_who_wait();
        let mut touched: Vec<(SessionId, i32)> = self.following.touched.drain().collect();
        touched.sort_unstable();
        self.out.quorum.push(ToQuorum::Touched(touched));
    }

    /// Transactions that the ensemble committed; or, while a leader is looked for, those that were logged.
    pub(super) fn on_delivered(&mut self, txns: Vec<Txn>) {
        if self.leads() {
            return log::error!("transactions of another leader were delivered to a leader; passed over");
        }
        for txn in txns {
            let origin = self.following.origin_of(&txn);
            let bytes = txn.size_hint();
            self.following.applied_bytes += bytes;
            self.out.roll |= self.snapshots.on_logged(bytes);
            self.commit(&Proposal { txn, origin, durable: Durable::default(), bytes: 0 });
        }
        self.tell_of_joint();
        if self.following.applied_bytes >= APPLIED_BYTES_AT_ONCE {
            let bytes = std::mem::take(&mut self.following.applied_bytes);
            self.out.quorum.push(ToQuorum::Applied { bytes });
        }
        self.owes_quiesced |= self.role == Role::Looking;
    }

    /// What the digests say of a joint, once they do.
    pub(super) fn tell_of_joint(&mut self) {
        self.out.quorum.extend(self.state.take_joint_verdict().map(ToQuorum::Joint));
    }

    /// The session of the connection is somewhere else: that is no answer for a client, the connection closes.
    pub(super) fn lose_session(&mut self, origin: &Origin) {
        self.answer_without_bytes(origin);
        if let Some(conn) = self.conns.get_mut(&origin.conn) {
            conn.session = None;
        }
        self.close_connection(origin.conn);
    }
}
