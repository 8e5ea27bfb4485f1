//! From one role to the next: whoever waits is answered, what was logged is applied, the new role starts from the state
//! (`QuorumPeer`, and the `shutdown` of its servers). Called by the pipeline's `step`.

use rustc_hash::FxHashSet;

use crate::ids::{ConnId, Zxid};
use crate::mail::{Role, ToQuorum};
use crate::pipeline::backlog::Backlog;
use crate::pipeline::expiry::SessionTracker;
use crate::pipeline::housekeeping::Housekeeping;
use crate::pipeline::rewatching::Rewatching;
use crate::pipeline::watches::Watches;
use crate::pipeline::{Origin, Pipeline, ReplyShape, Slot};
use crate::state::State;
use crate::state::pending::Pending;

impl Pipeline {
    /// Whether this server makes transactions.
    pub(super) fn leads(&self) -> bool {
        matches!(self.role, Role::Leading { .. })
    }

    /// Whether a leader takes clients (`leaderServes`); alone it always does.
    pub(super) fn takes_clients(&self) -> bool {
        self.rules.leader_serves || !self.rules.ensemble
    }

    /// Whether this server has the state of its ensemble, and follows it.
    pub(super) fn serves_all(&self) -> bool {
        matches!(self.role, Role::Leading { .. } | Role::Following | Role::Observing)
    }

    pub(super) fn on_role(&mut self, role: Role) {
        assert!(role == Role::Looking || !self.is_hollow, "{role:?} without a state");
        if !matches!(role, Role::Leading { .. }) {
            // A leader is sending the state to learners before it serves.
            self.snapshots.end_streams(&mut self.state);
        }
        self.leave_role();
        self.role = role;
        self.followers.clear();
        self.started_mono_ms = self.now.mono_ms;
        self.epoch_used_up = false;
        self.owes_quiesced = role == Role::Looking;
        self.start_from_state();
        match role {
            Role::Leading { epoch } => self.lead(epoch),
            // What is under way may be of a history that the ensemble does not share.
            Role::Looking => self.snapshots.give_up(&mut self.state),
            Role::Following | Role::Observing | Role::ReadOnly => {}
        }
        self.go_on();
        self.admit_pending_connects();
    }

    /// Every connection closes, but those whose connect request can wait for the next role; every request is answered, what
    /// was proposed here is applied as the log has it.
    fn leave_role(&mut self) {
        self.give_up_backlog();
        let origins: Vec<Origin> = self.proposals.iter_mut().filter_map(|proposal| proposal.origin.take()).collect();
        let forwarded = std::mem::take(&mut self.following).into_origins();
        origins.iter().chain(&forwarded).for_each(|origin| self.answer_without_bytes(origin));
        // Those who wait for the next role have had nothing of this one.
        let pending: FxHashSet<ConnId> = self.pending_connects.iter().map(|pending| pending.conn).collect();
        let mut conns: Vec<ConnId> = self.conns.keys().copied().filter(|id| !pending.contains(id)).collect();
        conns.sort_unstable();
        for id in conns {
            if !self.hold(id) {
                self.dismiss(id);
            }
        }
        self.watches = Watches::default();
        self.give_up_lists();
        self.give_up_long_reads();
        self.rewatching = Rewatching::default();
        // Whatever was made here is in the log.
        self.on_committed(Zxid(i64::MAX), self.now_us);
        self.synced.clear();
        Backlog::publish_none();
    }

    /// What waits to be proposed never will be.
    fn give_up_backlog(&mut self) {
        self.backlog.give_up().iter().for_each(|origin| self.answer_without_bytes(origin));
    }

    /// A connection closes; what it still waits for beside its writes is answered without bytes.
    fn dismiss(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.session = None;
        (conn.is_full, conn.in_turns) = (false, false);
        let reads = conn.waiting.drain(..).filter(|slot| matches!(slot, Slot::Read(_))).count();
        let held = conn.held.drain(..).count();
        self.tell(id).answered += u32::try_from(reads + held).expect("UNANSWERED_PER_CONNECTION_MAX is small");
        self.close_connection(id);
    }

    /// A write is finished, and its client will not hear how.
    pub(super) fn answer_without_bytes(&mut self, origin: &Origin) {
        if let ReplyShape::Connect = origin.reply {
            return;
        }
        if self.conns.contains_key(&origin.conn) {
            self.tell(origin.conn).answered += 1;
        } else {
            self.answer_departed(origin.conn, 1);
        }
    }

    fn start_from_state(&mut self) {
        self.pending = Pending::new(&self.state);
        self.overflowed.clear();
        self.last_proposed = self.state.last_zxid();
        self.sessions = SessionTracker::of(&self.state, self.rules.tick_ms, self.now);
        self.locals = SessionTracker::new(self.rules.tick_ms);
        self.housekeeping = Housekeeping::new(&self.rules, self.now);
    }

    fn lead(&mut self, epoch: u32) {
        self.state.leave_joint();
        // A server alone goes on in the epoch that it has.
        self.last_proposed = self.last_proposed.max(Zxid(i64::from(epoch) << 32));
        // Their sessions expire once more.
        for session in self.state.orphans() {
            self.sessions.add(session, self.rules.session_timeout_ms_min, self.now);
        }
    }

    /// Whether this epoch has no zxid left. Then nothing more is proposed, and a new leader is asked for. A server alone
    /// counts on.
    pub(super) fn is_used_up(&mut self) -> bool {
        if !self.rules.ensemble || self.last_proposed.counter() < self.rules.last_counter {
            return false;
        }
        if !std::mem::replace(&mut self.epoch_used_up, true) {
            log::warn!("epoch {:x} has no zxid left; a new leader is elected", self.last_proposed.epoch());
            self.out.quorum.push(ToQuorum::EpochExhausted);
        }
        true
    }

    /// A write that can not be proposed: its client goes to the next leader.
    pub(super) fn give_up_write(&mut self, origin: &Origin) {
        self.answer_without_bytes(origin);
        self.close_connection(origin.conn);
    }

    /// Another state takes the place of this one.
    pub(super) fn install(&mut self, state: State, durable: bool) {
        self.replace_state(state);
        self.is_hollow = false;
        self.snapshots.install(durable);
        // It may have been read again, with what is behind a joint.
        self.tell_of_joint();
    }

    /// Another state is about to come, and memory may not hold two. What was logged is on disk.
    pub(super) fn forget(&mut self) {
        let hollow = State::hollow(self.state.rules(), self.state.last_zxid());
        self.replace_state(hollow);
        self.is_hollow = true;
        self.out.frees_memory = true;
        self.out.quorum.push(ToQuorum::Forgotten);
    }

    fn replace_state(&mut self, state: State) {
        self.snapshots.end_streams(&mut self.state);
        self.leave_role();
        self.snapshots.give_up(&mut self.state);
        self.state = state;
        self.start_from_state();
    }

    /// Says that everything is applied, once no snapshot of before can appear any more: what is cut off the log next must
    /// not be found in one.
    pub(super) fn say_quiesced(&mut self) {
        if self.owes_quiesced && !self.snapshots.is_running() {
            self.owes_quiesced = false;
            self.out.quorum.push(ToQuorum::Quiesced { zxid: self.state.last_zxid(), tree: self.state.exact_digest() });
        }
    }

    /// A server alone finishes what it logged. A member of an ensemble cannot wait for the others; its log keeps what was
    /// proposed.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.pending_connects.clear();
        self.give_up_backlog();
        if self.rules.ensemble {
            self.leave_role();
            self.configs = None;
            self.go_on();
        }
    }
}
