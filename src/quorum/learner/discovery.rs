//! A learner finds its leader: the connection, FOLLOWERINFO or OBSERVERINFO, and the epoch that it promises to join.

use super::{Learner, Phase};
use crate::config::ensemble::PeerAddress;
use crate::ids::{ServerId, Zxid};
use crate::quorum::election::UNTRUSTED;
use crate::quorum::joint::HistoryEnd;
use crate::quorum::packet::{LearnerInfo, Packet};
use crate::quorum::{Effect, LinkId};

/// The protocol of ZAB 1.0, as LearnerInfo names it.
const PROTOCOL: i32 = 0x10000;
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
        self.phase = Phase::Epoch;
        self.send(Packet::LearnerInfo(LearnerInfo {
            observer: self.observer,
            accepted_epoch: self.epochs.accepted,
            server: Some(self.my_id),
            protocol: PROTOCOL,
            config_version: self.configs.committed.version,
            history: Some(self.history_end()),
        }));
    }

    /// No address of the leader answered; which those are, and why, for the log.
    pub fn on_leader_unreachable(&mut self, why: &str) {
        let Phase::Dialing { failed, .. } = self.phase else { return };
        let failed = failed + 1;
        // Who follows is often done a moment before who leads has opened its port.
        let delay_ms = DIAL_DELAY_MIN_MS.saturating_mul(1 << (failed - 1).min(10)).min(self.rules.redial_ms);
        let again_ms = self.now_ms + delay_ms;
        let tried_enough = failed >= DIALS_MIN && self.now_ms - self.started_ms >= REFUSED_MS_MIN;
        if tried_enough || again_ms >= self.started_ms + self.timing.connect_ms {
            let spent_ms = self.now_ms - self.started_ms;
            self.end(format!(
                "it does not take connections on its quorum port ({failed} attempts in {spent_ms} ms): {why}"
            ));
        } else {
            self.phase = Phase::Dialing { failed, again_ms: Some(again_ms) };
        }
    }

    fn history_end(&self) -> HistoryEnd {
        HistoryEnd { epoch: self.epochs.current, last: self.last }
    }

    pub(super) fn dial(&mut self, failed: u32) {
        self.phase = Phase::Dialing { failed, again_ms: None };
        let addresses = self.next_master(failed);
        if addresses.is_empty() {
            self.end("no configuration has its address");
        } else {
            self.emit(Effect::DialLeader { addresses });
        }
    }

    /// Observers of an ensemble whose followers take them go to one of those, else to the leader. Only followers have
    /// that port open, so that after a refusal the next voter is tried.
    fn next_master(&mut self, failed: u32) -> Vec<PeerAddress> {
        let Some(port) = self.rules.observer_master_port.filter(|_| self.observer) else {
            return self.configs.addresses(self.leader);
        };
        let voters: Vec<_> = self.configs.committed.participants().collect();
        // Observers are to spread over the voters, and a later try is to begin with another one.
        let turn = self.started_ms.wrapping_add(self.my_id.0).wrapping_add(i64::from(failed));
        let Some(voter) = voters.get(turn.rem_euclid(voters.len().max(1) as i64) as usize) else { return Vec::new() };
        self.master = ServerId(voter.id);
        voter.addresses.iter().map(|address| PeerAddress { quorum_port: port, ..address.clone() }).collect()
    }

    pub(super) fn on_epoch(&mut self, packet: Packet) -> Result<(), String> {
        let Packet::LeaderInfo { epoch, compares } = packet else {
            return Err(format!("expected LEADERINFO, got {}; releases before 3.4 are not supported", packet.name()));
        };
        self.leader_compares = compares;
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
        let reach = Some(Box::new(self.history.reach(end)));
        self.send(Packet::AckEpoch { zxid, epoch: current, reach });
        self.phase = Phase::Mode;
        self.sync_began_ms = self.now_ms;
        Ok(())
    }
}
