//! A learner is brought up to date: its history goes on (DIFF), is cut (TRUNC), or is replaced by a snapshot (SNAP), and
//! packets are held while this server's own disk is waited for; then NEWLEADER is acknowledged, and UPTODATE begins service.

use std::mem;

use super::{Learner, Phase};
use crate::ids::Zxid;
use crate::mail::{Role, ToPipeline};
use crate::metrics;
use crate::quorum::Effect;
use crate::quorum::joint::{Relation, Told};
use crate::quorum::packet::Packet;
use crate::quorum::transitions::enter;
use crate::state::State;

impl Learner {
    pub(super) fn on_mode(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Snap { zxid, .. } if zxid.0 < 0 || zxid.epoch() > self.epoch => {
                return Err(format!("SNAP as of {zxid} is beyond its epoch {:#x}", self.epoch));
            }
            Packet::Snap { zxid, told } => {
                // A leader of Apache says nothing, and its tree may be this server's own.
                if let Some(Told { relation, established }) = told {
                    match self.judge(zxid, relation, established) {
                        Ok(dropped) => self.joining.on_snapshot_told(dropped, established),
                        Err(refusal) => {
                            self.refuse(refusal);
                            return Ok(());
                        }
                    }
                }
                enter(&mut self.phase, Phase::Stream { zxid });
                self.forget();
            }
            Packet::Diff { .. } | Packet::Trunc { .. }
                if self.distrusted || (self.snapshot_needed && self.last > Zxid::ZERO) =>
            {
                return Err(format!("expected SNAP, since this server's history does not fit, got {}", packet.name()));
            }
            Packet::Diff { .. } => {
                enter(&mut self.phase, Phase::History);
                self.tell_joint();
            }
            Packet::Trunc { zxid } if zxid.0 < 0 || zxid > self.last => {
                self.end_for_snapshot(format!("TRUNC to {zxid}, though this server's log ends at {}", self.last));
            }
            Packet::Trunc { zxid } => {
                let dropped = match self.judge(zxid, Relation::Parted { at: zxid }, false) {
                    Ok(dropped) => dropped,
                    Err(refusal) => {
                        self.refuse(refusal);
                        return Ok(());
                    }
                };
                enter(&mut self.phase, Phase::Replacing { to: zxid });
                self.stand_at(zxid);
                self.committed_log.truncate(zxid);
                self.emit(Effect::Truncate { to: zxid, dropped });
            }
            other => return Err(format!("expected DIFF, TRUNC or SNAP, got {}", other.name())),
        }
        Ok(())
    }

    /// A state comes, and memory may not hold two: nobody is served from the one that is here, and the disk has it.
    fn forget(&mut self) {
        if self.last > Zxid::ZERO {
            (self.forgetting, self.hollow) = (true, true);
            self.emit(Effect::Pipeline(ToPipeline::Forget));
        }
    }

    /// The tree behind SNAP is complete and makes this state, as of the zxid in SNAP.
    pub fn on_snapshot(&mut self, state: Box<State>) {
        if self.ended.is_some() {
            return;
        }
        let found = state.last_zxid();
        match self.phase {
            Phase::Stream { zxid } if zxid == found => {
                let dropped = match self.joining.dropped().map_or_else(|| self.judge_tree(&state), Ok) {
                    Ok(dropped) => dropped,
                    Err(refusal) => return self.refuse(refusal),
                };
                enter(&mut self.phase, Phase::Replacing { to: zxid });
                self.stand_at(zxid);
                self.committed_log.reset(zxid);
                self.see_config_of(&state);
                self.committed_log.know_last(state.exact_digest());
                if self.joining.is_agreed() {
                    self.committed_log.know_agreed();
                }
                self.hollow = false;
                self.emit(Effect::Install { state, dropped });
            }
            Phase::Stream { zxid } => self.end(format!("its snapshot is as of {found}, where SNAP says {zxid}")),
            _ => self.end("a snapshot came that SNAP did not announce"),
        }
    }

    /// What came of [`Effect::Truncate`]: the last transaction that is left.
    pub fn on_truncated(&mut self, result: Result<Zxid, String>) {
        let Phase::Replacing { to } = self.phase else { return };
        match result {
            Ok(left) if left == to => {
                self.tell_joint();
                self.replaced();
            }
            Ok(left) => {
                self.committed_log.reset(left);
                self.stand_at(left);
                self.end_for_snapshot(format!(
                    "TRUNC says {to} is the last common transaction, but the log has {left} there"
                ));
            }
            Err(why) => self.end_for_snapshot(format!("TRUNC to {to} failed: {why}")),
        }
    }

    /// The leader's history goes on from here. One that compares nothing knows of the joint by its zxid alone.
    fn tell_joint(&mut self) {
        if self.joining.join(self.last) {
            self.emit(Effect::Pipeline(ToPipeline::Joined(self.last)));
        }
    }

    fn stand_at(&mut self, zxid: Zxid) {
        self.base = zxid;
        self.last = zxid;
    }

    /// Only this server's own disk was waited for: on with what came meanwhile.
    pub(super) fn replaced(&mut self) {
        enter(&mut self.phase, Phase::History);
        self.heard_ms = self.now_ms;
        self.take_held();
    }

    /// What came while this server waited for its own disk.
    pub(super) fn take_held(&mut self) {
        while self.ended.is_none() && !self.uncommitted.is_reading() {
            let Some(packet) = self.inflow.pop_held() else { return };
            if let Err(why) = self.take_packet(packet) {
                self.end(why);
            }
        }
    }

    pub(super) fn on_new_leader(&mut self, zxid: Zxid, config: Vec<u8>) -> Result<(), String> {
        if self.phase != Phase::History {
            return Err("a second NEWLEADER".into());
        }
        if zxid != self.epoch_start() {
            return Err(format!("NEWLEADER {zxid} is not of its epoch {:#x}", self.epoch));
        }
        // Apache passes over a text this short, too.
        if config.len() > 1 && self.configs.reconfig_enabled {
            self.on_leader_config(&config)?;
        }
        enter(&mut self.phase, Phase::Persisting { up_to: self.last });
        // Not emitted: what is to be logged stays one batch.
        self.effects.push(Effect::Pipeline(ToPipeline::ExactFrom(self.last)));
        // A server that goes by another history must not say that it has this one.
        self.joining.on_new_leader();
        self.try_to_acknowledge();
        Ok(())
    }

    pub(super) fn try_to_acknowledge(&mut self) {
        let Phase::Persisting { up_to } = self.phase else { return };
        if self.ended.is_some() || self.joining.is_catching_up() || !self.inflow.is_durable(up_to) {
            return;
        }
        // Said again, too, by a server that did not know its history: from here on it does.
        if self.epochs.current != self.epoch || mem::take(&mut self.distrusted) {
            self.epochs.current = self.epoch;
            self.emit(Effect::SetCurrentEpoch(self.epoch));
        }
        enter(&mut self.phase, Phase::Waiting);
        self.heard_ms = self.now_ms;
        self.send(Packet::Ack { zxid: self.epoch_start() });
        self.send_acks();
    }

    pub(super) fn on_up_to_date(&mut self) -> Result<(), String> {
        match self.phase {
            Phase::Waiting => {}
            Phase::Serving => return Ok(()),
            _ => return Err("UPTODATE came before ACK(NEWLEADER) was sent".into()),
        }
        if let Some(members) = self.leader_config.take() {
            self.put_in_force(members, None);
            if self.ended.is_some() {
                return Ok(());
            }
        }
        enter(&mut self.phase, Phase::Serving);
        self.committed_log.know_agreed();
        let sync_time = if self.observer { &metrics::OBSERVER_SYNC_TIME } else { &metrics::FOLLOWER_SYNC_TIME };
        sync_time.record(self.now_ms - self.sync_began_ms);
        self.tell_configs();
        let role = if self.observer { Role::Observing } else { Role::Following };
        self.emit(Effect::Pipeline(ToPipeline::Role(role)));
        self.send(Packet::Ack { zxid: self.epoch_start() });
        Ok(())
    }
}
