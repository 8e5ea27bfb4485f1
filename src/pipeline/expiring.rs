//! Sessions whose time is up end between the requests of those who live; containers and TTL nodes, too. Thousands may be due
//! at once: of them a leader has so many on their way that a write which comes now is held up neither by the making of their
//! transactions, nor in the log, nor when they are applied. Each commit makes room for the next, in the order in which they
//! were due, so that all are gone soon; who is heard of before his turn came lives on.

use std::collections::VecDeque;

use crate::ids::{SessionId, Zxid};
use crate::limits::EXPIRING_NODES;
use crate::metrics;
use crate::pipeline::{Conn, Pipeline};

/// What is proposed and not committed. Ends with the role.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// By the last transaction of each end.
    in_flight: VecDeque<(Zxid, usize)>,
    /// What all of them take away: sessions and nodes.
    nodes: usize,
}

impl Expiring {
    /// Whether one more may end.
    pub fn has_room(&self) -> bool {
        self.nodes < EXPIRING_NODES
    }

    /// The end of something is proposed, by this transaction.
    pub fn add(&mut self, zxid: Zxid, nodes: usize) {
        self.in_flight.push_back((zxid, nodes));
        self.nodes += nodes;
    }

    /// Everything up to this is applied.
    pub fn committed(&mut self, zxid: Zxid) {
        while let Some((_, nodes)) = self.in_flight.pop_front_if(|(proposed, _)| *proposed <= zxid) {
            self.nodes -= nodes;
        }
    }
}

impl Pipeline {
    /// Leader: when the next session, container or TTL node is due. Where there is no room for it, the next commit asks.
    pub(super) fn next_end_ms(&self) -> i64 {
        let due_ms = self.sessions.next_deadline_ms().min(self.housekeeping.next_deadline_ms());
        if self.expiring.has_room() { due_ms } else { due_ms.max(self.now.mono_ms + self.rules.tick_ms) }
    }

    /// Leader: ends sessions whose time is up, as many as there is room for. One with more ephemerals than that ends alone.
    pub(super) fn expire_sessions(&mut self) {
        while self.expiring.has_room()
            && let Some(session) = self.sessions.first_expired(self.now)
        {
            if self.is_owed_answer(session) {
                self.sessions.touch(session, self.now);
                continue;
            }
            if self.is_used_up() {
                return;
            }
            // In the words that alerts on Apache's log look for; so is the warning of a slow sync.
            log::info!("Expiring session {session}, timeout of {}ms exceeded", self.sessions.timeout_ms(session));
            metrics::STALE_SESSIONS_EXPIRED.add(1);
            let nodes = 1 + self.state.ephemerals_count_of(session);
            self.propose_close(session, 0, None);
            self.expiring.add(self.last_proposed, nodes);
        }
    }

    /// Any role: local sessions whose time is up end, some in each turn.
    pub(super) fn expire_locals(&mut self) {
        for _ in 0..EXPIRING_NODES {
            let Some(session) = self.locals.first_expired(self.now) else { return };
            if self.is_owed_answer(session) {
                self.locals.touch(session, self.now);
                continue;
            }
            log::info!("expiring local session {session}, timeout exceeded");
            let owner = self.locals.owner_here(session);
            self.locals.remove(session);
            if let Some(conn) = owner {
                self.close_connection(conn);
            }
        }
    }

    /// Whether the session's client waits for an answer of this server, which may be long in coming: its pings wait behind it.
    fn is_owed_answer(&self, session: SessionId) -> bool {
        let sessions = if self.is_local(session) { &self.locals } else { &self.sessions };
        let conn = sessions.owner_here(session).and_then(|owner| self.conns.get(&owner));
        conn.is_some_and(Conn::is_owed_answer)
    }

    /// Learner: clients of this server who wait for an answer of it are alive, though nothing is heard of them.
    pub(super) fn touch_those_who_wait(&mut self) {
        let waits = |conn: &Conn| Some((conn.session?, conn.timeout_ms)).filter(|_| conn.is_owed_answer());
        let waiting: Vec<_> = self.conns.values().filter_map(waits).collect();
        waiting.into_iter().for_each(|(session, timeout_ms)| self.touch(session, timeout_ms));
    }
}

impl Conn {
    /// Whether it has not had all that it asked for: it waits for its own write, or for what is made or has no room yet, or
    /// is busy with what it was told. Should it take nothing of that for as long as its timeout, the poller closes it.
    fn is_owed_answer(&self) -> bool {
        !self.closing && (self.is_full || !self.waiting.is_empty())
    }
}
