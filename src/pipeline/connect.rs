//! The handshake: new sessions, renewed ones, and refusals (`ZooKeeperServer.processConnectRequest`,
//! `reopenSession`); ids and passwords of sessions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::codes::Code;
use crate::ids::{ConnId, Now, SessionId};
use crate::mail::{Fate, Role};
use crate::metrics;
use crate::ops::ConnectRequest;
use crate::pipeline::rules::Rules;
use crate::pipeline::{Complaint, Conn, Origin, Pipeline, SessionOwner, Slot, auth, replies};
use crate::txn::{TxnBody, TxnHeader};

/// Connect requests that waited for a role and are answered in one turn.
const CONNECTS_PER_TURN: usize = 256;

/// A connect request that waits until this server has a role (`connectHoldMs`). There are as many as connections at most,
/// and those that closed since within this time.
#[derive(Debug)]
pub(super) struct PendingConnect {
    pub conn: ConnId,
    handshake: Box<Handshake>,
    /// Then it is turned away, monotonic ms.
    until_ms: i64,
}

/// A connect request, and who sent it.
#[derive(Debug)]
pub(super) struct Handshake {
    peer: SocketAddr,
    request: ConnectRequest,
}

/// The secret that passwords are derived with; every server of an ensemble has the same.
const PASSWORD_SECRET: i64 = 0xB341_5C00;
/// Multiplier and increment of `java.util.Random`.
const LCG_MULTIPLIER: u64 = 0x5DEE_CE66D;
const LCG_INCREMENT: u64 = 0xB;
const LCG_MASK: u64 = (1 << 48) - 1;

/// The password of a session: 16 bytes of `java.util.Random` seeded with id and secret, so that any server knows it.
pub(super) fn password(session: SessionId) -> [u8; 16] {
    let mut state = ((session.0 ^ PASSWORD_SECRET) as u64 ^ LCG_MULTIPLIER) & LCG_MASK;
    let mut bytes = [0; 16];
    for word in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(LCG_MULTIPLIER).wrapping_add(LCG_INCREMENT) & LCG_MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// Where the ids of new sessions start: server id in the top byte, then 40 bits of the clock, then a counter. Apache
/// takes the time since boot, under which a rebooted host may give out the id of a session that still lives; the wall
/// clock has the same shape without that.
pub(super) fn first_session_id(rules: &Rules, now: Now) -> i64 {
    (((now.wall_ms << 24) as u64) >> 8) as i64 | (rules.server_id << 56)
}

impl Pipeline {
    pub(super) fn on_connect(&mut self, id: ConnId, peer: SocketAddr, request: &ConnectRequest) {
        let handshake = Box::new(Handshake { peer, request: request.clone() });
        let conn = Conn {
            peer: peer.ip(),
            session: None,
            timeout_ms: request.timeout_ms.clamp(self.rules.session_timeout_ms_min, self.rules.session_timeout_ms_max),
            handshake: Some(handshake),
            read_only_byte: request.read_only.is_some(),
            auth: auth::first_identities(peer.ip()),
            waiting: VecDeque::new(),
            is_full: false,
            held: VecDeque::new(),
            in_line: false,
            in_turns: false,
            released: None,
            closing: false,
            out: None,
        };
        let timeout_ms = conn.timeout_ms;
        self.conns.insert(id, conn);
        if self.role == Role::Looking && self.hold(id) {
            return;
        }
        let is_welcome = match self.role {
            Role::Leading { .. } => self.takes_clients(),
            Role::Following | Role::Observing => true,
            Role::ReadOnly => request.read_only == Some(true),
            Role::Looking => false,
        };
        if !is_welcome {
            return self.close_connection(id);
        }
        if self.stopping || request.last_zxid_seen > self.state.last_zxid().0 {
            if !self.stopping {
                let (seen, ours) = (request.last_zxid_seen, self.state.last_zxid());
                self.complain(Complaint::Ahead, || {
                    format!("refusing client {peer}: it has seen zxid 0x{seen:x}, this server only {ours}")
                });
            }
            return self.close_connection(id);
        }
        if request.session_id == 0 {
            return match self.role {
                _ if self.rules.local_sessions => self.begin_local_session(id, timeout_ms),
                Role::Leading { .. } => self.begin_session(id, timeout_ms),
                Role::Following | Role::Observing => self.forward_session(id, timeout_ms),
                Role::ReadOnly => self.refuse_write_of_session(id),
                Role::Looking => self.close_connection(id),
            };
        }
        metrics::CONNECTION_REVALIDATE_COUNT.add(1);
        let session = SessionId(request.session_id);
        // Apache closes the session's older connection even if the password then proves wrong; a stranger who guesses an
        // id could so disturb its owner. The right password is asked for first here.
        if request.password != password(session) {
            return self.refuse_session(id);
        }
        match self.role {
            _ if self.is_local(session) => self.renew_session(id, session),
            Role::Leading { .. } if self.sessions.is_live(session) => self.renew_session(id, session),
            Role::Leading { .. } => self.refuse_session(id),
            Role::Following | Role::Observing => self.forward_revalidation(id, session, timeout_ms),
            // A local session of another server is over. Else only the leader knows: one that this server has not heard of
            // may have been made since it was cut off.
            Role::ReadOnly if self.rules.local_sessions && self.sessions.is_unknown(session) => self.refuse_session(id),
            Role::ReadOnly | Role::Looking => self.close_connection(id),
        }
    }

    /// An unanswered connect request waits for the next role from now on, if such may wait. What was begun for it is over: a
    /// session that the leader of before has made for it nobody will ever use.
    pub(super) fn hold(&mut self, id: ConnId) -> bool {
        if self.stopping || self.rules.connect_hold_ms == 0 {
            return false;
        }
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.closing) else { return false };
        let Some(handshake) = conn.handshake.take() else { return false };
        conn.session = None;
        conn.waiting.clear();
        let until_ms = self.now.mono_ms + self.rules.connect_hold_ms;
        self.pending_connects.push_back(PendingConnect { conn: id, handshake, until_ms });
        true
    }

    /// There is a role: those who connected meanwhile are answered, in order. Many of them take several turns.
    pub(super) fn admit_pending_connects(&mut self) {
        for _ in 0..CONNECTS_PER_TURN {
            // A new session is a transaction, and nothing may be proposed behind a list of members.
            if self.role == Role::Looking || self.is_reconfiguring() {
                return;
            }
            let Some(PendingConnect { conn, handshake, .. }) = self.pending_connects.pop_front() else { return };
            if self.conns.contains_key(&conn) {
                self.on_connect(conn, handshake.peer, &handshake.request);
            }
        }
    }

    /// Whoever waited long enough goes to another server, unless there is a role by now.
    pub(super) fn refuse_late_connects(&mut self) {
        if self.role != Role::Looking {
            return;
        }
        let now_ms = self.now.mono_ms;
        while let Some(PendingConnect { conn, .. }) =
            self.pending_connects.pop_front_if(|pending| pending.until_ms <= now_ms)
        {
            self.close_connection(conn);
        }
    }

    /// When there is something to do for those who wait.
    pub(super) fn next_connect_timeout_ms(&self) -> i64 {
        match self.pending_connects.front() {
            Some(_) if self.is_reconfiguring() => i64::MAX,
            Some(_) if self.role != Role::Looking => self.now.mono_ms,
            Some(pending) => pending.until_ms,
            None => i64::MAX,
        }
    }

    /// Closes a connection after what it is still to be sent.
    pub(super) fn close_connection(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.closing = true;
        self.tell(id).fate = Fate::Close;
    }

    fn begin_session(&mut self, id: ConnId, timeout_ms: i32) {
        if self.is_used_up() {
            return self.close_connection(id);
        }
        let session = self.new_session_id();
        self.sessions.add(session, timeout_ms, self.now);
        self.sessions.own(session, SessionOwner::Conn(id));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.session = Some(session);
            conn.waiting.push_back(Slot::Write);
        }
        let header =
            TxnHeader { client_id: session, cxid: 0, zxid: self.last_proposed.next(), time_ms: self.now.wall_ms };
        let origin = Origin::of_connect(id, self.now_us);
        self.propose(header, TxnBody::CreateSession { timeout_ms }, Some(origin));
    }

    pub(super) fn new_session_id(&mut self) -> SessionId {
        loop {
            let id = SessionId(self.next_session_id);
            self.next_session_id = self.next_session_id.wrapping_add(1);
            // 0 means "no session" and the smallest number marks containers.
            if id.0 != 0 && id.0 != i64::MIN && self.sessions.is_unknown(id) && self.locals.is_unknown(id) {
                return id;
            }
        }
    }

    /// The connection takes over a session that lives.
    pub(super) fn renew_session(&mut self, id: ConnId, session: SessionId) {
        let Some(timeout_ms) = self.conns.get(&id).map(|conn| conn.timeout_ms) else { return };
        self.move_session(session, SessionOwner::Conn(id), timeout_ms);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.session = Some(session);
        }
        self.welcome(id);
    }

    /// A session gets a new owner; the connection of this server that had it closes.
    pub(super) fn move_session(&mut self, session: SessionId, to: SessionOwner, timeout_ms: i32) {
        let now = self.now;
        let earlier = self.tracker_of(session).renew(session, to, timeout_ms, now);
        if let Some(SessionOwner::Conn(conn)) = earlier.filter(|&earlier| earlier != to) {
            self.complain(Complaint::Moved, || {
                format!("session {session} moved to a new connection; the old one closed")
            });
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.session = None;
            }
            self.close_connection(conn);
        }
    }

    /// The answer that clients take for "your session has expired": all zeros.
    pub(super) fn refuse_session(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let read_only = conn.read_only_byte.then_some(self.role == Role::ReadOnly);
        let out = self.tell(id);
        out.frames += 1;
        replies::connect_response(out.bytes.own(), 0, 0, &[0; 16], read_only);
        self.close_connection(id);
    }

    /// A session takes a transaction, and there is no leader. The answer is that of any other write then, in place of the
    /// handshake's (`ReadOnlyRequestProcessor`). Apache reads no more of the connection and closes it when its timeout is
    /// over; at once, the client finds another server sooner.
    fn refuse_write_of_session(&mut self, id: ConnId) {
        let zxid = self.state.last_zxid();
        let out = self.tell(id);
        out.frames += 1;
        replies::reply(out.bytes.own(), 0, zxid, Code::NotReadOnly.value(), |_| {});
        self.close_connection(id);
    }

    /// The session is there: the connection may talk.
    pub(super) fn welcome(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(session) = conn.session else { return };
        conn.handshake = None;
        let (timeout_ms, read_only) = (conn.timeout_ms, conn.read_only_byte.then_some(self.role == Role::ReadOnly));
        let out = self.tell(id);
        out.frames += 1;
        replies::connect_response(out.bytes.own(), timeout_ms, session.0, &password(session), read_only);
        out.fate = Fate::Established { session, timeout_ms };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_apaches() {
        let hex = |bytes: [u8; 16]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(password(SessionId(0x0100_0019_c66d_0000))), "09abfbe9621ab3028f134f067b16b45a");
        assert_eq!(hex(password(SessionId(0x0100_001f_6b13_0000))), "2f9dc3ae90586b9e25e106125963f314");
    }
}
