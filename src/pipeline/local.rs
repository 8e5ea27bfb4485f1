//! Sessions that only this server knows (`LocalSessionTracker`, `UpgradeableSessionTracker`): no transaction makes or ends
//! them. They own no ephemerals: the first one makes a session global, or is refused. Like a server's clients they do not
//! outlive its role.

use crate::codes::Code;
use crate::ids::{ConnId, SessionId};
use crate::mail::{ForwardedRequest, ToQuorum};
use crate::metrics;
use crate::ops::{MultiOp, WriteOp};
use crate::pipeline::expiry::{SessionOwner, SessionTracker};
use crate::pipeline::{Pipeline, Update, replies};
use crate::txn::{TxnBody, TxnHeader, kind};

/// Whether the operation makes a node that ends with its session.
fn makes_ephemerals(update: &Update) -> bool {
    let is_ephemeral = |flags: i32| matches!(flags, 1 | 3);
    match update {
        Update::Write(WriteOp::Create(create)) => is_ephemeral(create.flags),
        Update::Write(WriteOp::Multi(ops)) => {
            ops.iter().any(|op| matches!(op, MultiOp::Create(create) if is_ephemeral(create.flags)))
        }
        _ => false,
    }
}

impl Pipeline {
    /// Whether the session lives, and on this server only.
    pub(super) fn is_local(&self, session: SessionId) -> bool {
        self.rules.local_sessions && self.locals.is_live(session)
    }

    /// Where the session is kept.
    pub(super) fn tracker_of(&mut self, session: SessionId) -> &mut SessionTracker {
        if self.is_local(session) { &mut self.locals } else { &mut self.sessions }
    }

    pub(super) fn begin_local_session(&mut self, id: ConnId, timeout_ms: i32) {
        let session = self.new_session_id();
        self.locals.add(session, timeout_ms, self.now);
        self.locals.own(session, SessionOwner::Conn(id));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.session = Some(session);
        }
        replies::count_op(Some(&metrics::OP_COUNT_CREATE_SESSION));
        self.welcome(id);
    }

    /// A local session that is about to make an ephemeral becomes global first, if that is allowed. Else the write fails.
    pub(super) fn upgrade_for(&mut self, id: ConnId, session: SessionId, update: &Update) {
        if !self.rules.local_sessions_upgrading || !self.is_local(session) || !makes_ephemerals(update) {
            return;
        }
        let Some(timeout_ms) = self.conns.get(&id).map(|conn| conn.timeout_ms) else { return };
        if self.leads() && self.is_used_up() {
            return;
        }
        self.locals.remove(session);
        self.sessions.add(session, timeout_ms, self.now);
        self.sessions.own(session, SessionOwner::Conn(id));
        if self.leads() {
            let zxid = self.last_proposed.next();
            let header = TxnHeader { client_id: session, cxid: 0, zxid, time_ms: self.now.wall_ms };
            self.propose(header, TxnBody::CreateSession { timeout_ms }, None);
        } else {
            let (op, body) = (kind::CREATE_SESSION, timeout_ms.to_be_bytes().to_vec());
            self.out.quorum.push(ToQuorum::Forward(ForwardedRequest { session, cxid: 0, op, body, auth: None }));
        }
    }

    /// What a client with a local session is told where the leader, who does not know the session, took it for expired.
    pub(super) fn err_for(&self, id: ConnId, err: i32) -> i32 {
        let session = self.conns.get(&id).and_then(|conn| conn.session);
        match session {
            Some(session) if err == Code::SessionExpired.value() && self.is_local(session) => {
                Code::EphemeralOnLocalSession.value()
            }
            _ => err,
        }
    }
}
