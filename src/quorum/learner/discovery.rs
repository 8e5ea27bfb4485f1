//! A learner finds its leader: the connection, FOLLOWERINFO or OBSERVERINFO, and the epoch that it promises to join.

use super::{Learner, Phase};
use crate::config::ensemble::PeerAddress;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::quorum::Effect;
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::{HistoryEnd, Reach};
use crate::quorum::packet::{LearnerInfo, PROTOCOL, Packet};
use crate::quorum::transitions::enter;

/// The first pause between two attempts to connect, doubled each time up to `leaderConnectDelayDuringRetryMs`.
const DIAL_DELAY_MIN_MS: i64 = 5;
/// A leader that refuses is tried this often at least, as Apache does.
const DIALS_MIN: u32 = 5;
/// And at least this long: another server may decide a little later that it leads, or open its port slowly. A leader that
/// died right after its election is given up on well before the connect budget is used up.
const REFUSED_MS_MIN: i64 = 2000;
impl Learner {
    /// The leader took the connection.
    pub fn on_leader_connected(&mut self, link: LinkId) {
        if self.ended.is_some() || self.link.is_some() {
            self.effects.push(Effect::Close { link, why: "no leader is waited for any more".into() });
            return;
        }
        self.link = Some(link);
        self.heard_ms = self.now_ms;
        enter(&mut self.phase, Phase::Epoch);
        self.send(Packet::LearnerInfo(LearnerInfo {
            observer: self.observer,
            accepted_epoch: self.epochs.accepted,
            server: Some(self.my_id),
            protocol: PROTOCOL,
            config_version: self.configs.committed.version,
            history: Some(self.history_end()),
        }));
    }

    /// No address of whoever was dialled answered; which those are, and why, for the log.
    pub fn on_leader_unreachable(&mut self, why: &str) {
        let Phase::Dialing { failed, .. } = self.phase else { return };
        let failed = failed + 1;
        // Who follows is often done a moment before who leads has opened its port.
        let delay_ms = DIAL_DELAY_MIN_MS.saturating_mul(1 << (failed - 1).min(10)).min(self.rules.redial_ms);
        let again_ms = self.now_ms + delay_ms;
        let is_over = |all_dialed_ms: i64| {
            let tried_enough = failed >= DIALS_MIN && self.now_ms - all_dialed_ms >= REFUSED_MS_MIN;
            tried_enough || again_ms >= all_dialed_ms + self.timing.connect_ms
        };
        if self.all_dialed_ms.is_some_and(is_over) {
            let spent_ms = self.now_ms - self.started_ms;
            let who = match self.observer_master_port() {
                Some(port) => format!("neither does a follower take connections at port {port}, nor the leader"),
                None => "it does not take connections".to_string(),
            };
            self.end(format!("{who} on its quorum port ({failed} attempts in {spent_ms} ms): {why}"));
        } else {
            enter(&mut self.phase, Phase::Dialing { failed, again_ms: Some(again_ms) });
        }
    }

    fn history_end(&self) -> HistoryEnd {
        HistoryEnd { epoch: self.epochs.current, last: self.last }
    }

    pub(super) fn dial(&mut self, failed: u32) {
        enter(&mut self.phase, Phase::Dialing { failed, again_ms: None });
        let mut masters = self.masters();
        if masters.is_empty() {
            return self.end("no configuration has its address");
        }
        let turn = failed as usize % masters.len();
        if turn + 1 == masters.len() && self.may_go_to_the_leader() {
            self.all_dialed_ms.get_or_insert(self.now_ms);
        }
        let (master, addresses) = masters.swap_remove(turn);
        self.master = master;
        self.emit(Effect::DialLeader { master, addresses });
    }

    /// Until when somebody is dialled, once all who may take this server were: one that does not answer may take up all the
    /// time that there is for the leader.
    pub(super) fn dialing_ends_ms(&self) -> Option<i64> {
        self.all_dialed_ms.map(|all_dialed_ms| all_dialed_ms + self.timing.connect_ms)
    }

    /// An observer gives followers the time to open their port: right after an election none has. But not all the time for
    /// which a leader waits for a quorum: one that a list that is not in force yet gives a vote is an observer until then,
    /// and if the leader needs it, no follower opens its port before.
    fn may_go_to_the_leader(&self) -> bool {
        let patience_ms = REFUSED_MS_MIN.min(self.timing.init_ms / 2);
        self.observer_master_port().is_none() || self.now_ms - self.started_ms >= patience_ms
    }

    /// Who may take this server, in the order in which they are dialled. Observers of an ensemble whose followers take them
    /// go to those; the leader comes last, and only after a while: it has not that port, and is found where the list of this
    /// server is so old that none of them is left.
    fn masters(&self) -> Vec<(ServerId, Vec<PeerAddress>)> {
        let mut masters = Vec::new();
        if let Some(port) = self.observer_master_port() {
            let at_port = |address: &PeerAddress| PeerAddress { quorum_port: port, ..address.clone() };
            let followers = self.configs.committed.participants().filter(|voter| voter.id != self.leader.0);
            masters.extend(followers.map(|voter| (ServerId(voter.id), voter.addresses.iter().map(at_port).collect())));
            // Observers are to spread over them, and a later role is to begin with another one.
            let turn = self.started_ms.wrapping_add(self.my_id.0).rem_euclid(masters.len().max(1) as i64);
            masters.rotate_left(turn as usize);
        }
        let leader = self.configs.addresses(self.leader);
        let is_known = !leader.is_empty() && (masters.is_empty() || self.may_go_to_the_leader());
        masters.extend(is_known.then_some((self.leader, leader)));
        masters
    }

    fn observer_master_port(&self) -> Option<u16> {
        self.rules.observer_master_port.filter(|_| self.observer)
    }

    pub(super) fn on_epoch(&mut self, packet: Packet) -> Result<(), String> {
        let Packet::LeaderInfo { epoch, ours } = packet else {
            return Err(format!("expected LEADERINFO, got {}; releases before 3.4 are not supported", packet.name()));
        };
        self.joining.on_leader_info(ours);
        let accepted = self.epochs.accepted;
        let end = self.history_end();
        if epoch < end.latest_epoch() {
            self.refuse_earlier_epoch(epoch);
            return Ok(());
        }
        if epoch < accepted {
            return Err(format!(
                "its epoch {epoch:#x} is older than {accepted:#x}, which this server promised to join"
            ));
        }
        if i32::try_from(epoch).is_err() {
            return Err(format!("epoch {epoch:#x} is beyond the last one"));
        }
        self.epoch = epoch;
        let mut current = None;
        if epoch > accepted {
            self.epochs.accepted = epoch;
            self.emit(Effect::SetAcceptedEpoch(epoch));
            current = Some(self.epochs.current);
        }
        let (zxid, current) = match (self.distrusted, self.snapshot_needed) {
            // Leaders count neither such a zxid nor a promise without an epoch, and compare no history with them.
            (true, _) => (UNTRUSTED, None),
            (false, true) => (Zxid::ZERO, current),
            (false, false) => (self.last, current),
        };
        let reach = Some(Box::new(Reach { foreign: self.foreign.clone(), ..self.committed_log.reach(end) }));
        self.send(Packet::AckEpoch { zxid, epoch: current, reach });
        enter(&mut self.phase, Phase::Mode);
        self.sync_began_ms = self.now_ms;
        Ok(())
    }
}
