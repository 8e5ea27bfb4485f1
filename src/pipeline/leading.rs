//! What learners ask of their leader: requests of their clients become transactions as those of its own clients do
//! (`Leader`, `LearnerHandler`, `PrepRequestProcessor`); and which sessions live, and where they are.

use crate::codes::Code;
use crate::ids::{LinkId, SessionId};
use crate::limits;
use crate::mail::{ForwardedRequest, ToQuorum};
use crate::ops::{Op, OpCode, decode_body};
use crate::pipeline::backlog::Awaiting;
use crate::pipeline::expiry::SessionOwner;
use crate::pipeline::{Complaint, Pipeline};
use crate::txn::{TxnBody, TxnHeader, kind};

impl Pipeline {
    /// Exactly one transaction of this session and cxid, whatever the request is: the learner waits for it. A sync gets an
    /// answer of its own.
    pub(super) fn on_forwarded(&mut self, learner: LinkId, request: ForwardedRequest) {
        if !self.leads() || self.stopping {
            return;
        }
        self.sessions.touch(request.session, self.now);
        self.propose_in_turn(Awaiting::Forwarded { learner, request, is_refused: false });
    }

    /// `is_refused`: it is not executed, since its learner has passed on too much.
    pub(super) fn propose_forwarded(&mut self, learner: LinkId, request: &ForwardedRequest, is_refused: bool) {
        let session = request.session;
        if request.op == OpCode::Sync as i32 {
            return self.out.quorum.push(ToQuorum::SyncReady { learner, after: self.last_proposed });
        }
        if request.op == OpCode::CloseSession as i32 {
            return self.propose_close(session, request.cxid, None);
        }
        if self.is_used_up() {
            return;
        }
        let zxid = self.last_proposed.next();
        let body = match request.op {
            _ if is_refused => Err(Code::ThrottledOp),
            kind::CREATE_SESSION => self.prepare_session(learner, request),
            _ => self.prepare_forwarded(learner, request),
        };
        let body = body.unwrap_or_else(|code| TxnBody::Error(code.value()));
        let header = TxnHeader { client_id: session, cxid: request.cxid, zxid, time_ms: self.now.wall_ms };
        self.propose(header, body, None);
    }

    /// The learner chose the id.
    fn prepare_session(&mut self, learner: LinkId, request: &ForwardedRequest) -> Result<TxnBody, Code> {
        let session = request.session;
        let timeout_ms = request.body.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        let timeout_ms = timeout_ms.ok_or(Code::MarshallingError)?;
        if matches!(session.0, 0 | i64::MIN) || self.is_local(session) {
            return Err(Code::BadArguments);
        }
        if self.sessions.is_unknown(session) {
            self.sessions.add(session, timeout_ms, self.now);
        } else if self.sessions.is_closing(session) {
            return Err(Code::SessionExpired);
        }
        self.sessions.own(session, SessionOwner::Learner(learner));
        Ok(TxnBody::CreateSession { timeout_ms })
    }

    fn prepare_forwarded(&mut self, learner: LinkId, request: &ForwardedRequest) -> Result<TxnBody, Code> {
        self.check_owner(request.session, learner)?;
        if request.is_unreadable() {
            let session = request.session;
            self.complain(Complaint::Identities, || {
                format!(
                    "a client of another server, of session {session}, has more identities than the {} that are taken: \
                     what it asks is refused",
                    limits::FORWARDED_IDENTITIES_MAX
                )
            });
            return Err(Code::BadArguments);
        }
        if request.body.len() > self.rules.request_bytes_max {
            // Nobody could read the transaction back.
            return Err(Code::MarshallingError);
        }
        match decode_body(request.op, &request.body) {
            Op::Write(op) => {
                let auth = request.auth.as_deref().unwrap_or_default();
                Ok(self.prepare(auth, request.session, self.last_proposed.next(), op))
            }
            op if op.is_malformed() => Err(Code::MarshallingError),
            // A check outside a multi among them: there is no such transaction.
            _ => Err(Code::Unimplemented),
        }
    }

    /// Whether the learner speaks for the session; one that nobody has becomes the learner's. Its local sessions are not
    /// known here, and never were: for a global one it speaks only after this leader made or confirmed it, and so knows it.
    /// What the learner sends before it hears of a global session's end comes within the time for which that is remembered.
    fn check_owner(&mut self, session: SessionId, learner: LinkId) -> Result<(), Code> {
        if self.rules.local_sessions && self.sessions.is_unknown(session) {
            return Ok(());
        }
        if self.sessions.is_closing(session) {
            return Err(Code::SessionExpired);
        }
        let sender = SessionOwner::Learner(learner);
        match self.sessions.owner(session) {
            Some(owner) if owner == sender => Ok(()),
            Some(_) => Err(Code::SessionMoved),
            None => {
                self.sessions.own(session, sender);
                Ok(())
            }
        }
    }

    /// A learner's client came with a session: if that is alive, it is the learner's from now on.
    pub(super) fn revalidate(&mut self, learner: LinkId, session: SessionId, timeout_ms: i32) {
        let valid = self.leads() && self.sessions.is_live(session);
        if valid {
            self.move_session(session, SessionOwner::Learner(learner), timeout_ms);
        }
        self.out.quorum.push(ToQuorum::Revalidated { learner, session, valid });
    }

    /// Learners heard of these sessions. Those that ended meanwhile are passed over. A follower heard it of observers, and
    /// tells its leader.
    pub(super) fn on_touched(&mut self, sessions: &[(SessionId, i32)]) {
        if !self.leads() {
            return sessions.iter().for_each(|&(session, timeout_ms)| self.following.touch(session, timeout_ms));
        }
        for &(session, timeout_ms) in sessions {
            self.sessions.touch_for(session, timeout_ms, self.now);
        }
    }

    pub(super) fn on_learner_gone(&mut self, learner: LinkId) {
        self.backlog.forget_learner(learner);
        self.snapshots.end_stream(learner, &mut self.state);
    }
}
