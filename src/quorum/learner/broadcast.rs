//! What a learner is told of transactions, from the first one after DIFF, TRUNC or SNAP on: proposals are logged and
//! acknowledged, commits are delivered.

use std::mem;

use super::{Learner, Phase};
use crate::ids::{ServerId, Zxid};
use crate::mail::LogRecord;
use crate::metrics;
use crate::quorum::Effect;
use crate::quorum::committed_log::follows;
use crate::quorum::observer_master::Relay;
use crate::quorum::packet::Packet;
use crate::txn::{Txn, TxnBody};

impl Learner {
    pub(super) fn on_history(&mut self, packet: Packet) -> Result<(), String> {
        if self.waits_for_log(&packet) {
            self.inflow.hold_again(packet);
            return Ok(());
        }
        if self.is_serving() {
            count(&packet);
        }
        match packet {
            Packet::Proposal { zxid, payload } => self.propose(zxid, payload)?,
            Packet::Commit { zxid } => self.commit(zxid, None)?,
            Packet::CommitAndActivate { zxid, designated } => self.commit_config(zxid, designated)?,
            Packet::Inform { zxid, payload } if self.observer => {
                self.propose(zxid, payload)?;
                self.commit(zxid, None)?;
            }
            Packet::InformAndActivate { zxid, designated, payload } if self.observer => {
                self.propose(zxid, payload)?;
                self.commit_config(zxid, designated)?;
            }
            Packet::NewLeader { zxid, config } => self.on_new_leader(zxid, config)?,
            Packet::UpToDate => self.on_up_to_date()?,
            Packet::Diff { .. } | Packet::Trunc { .. } | Packet::Snap { .. } => {
                return Err(format!("{} came in the middle of the history", packet.name()));
            }
            Packet::Ping { zxid, .. } if self.is_serving() => self.on_ping(zxid),
            Packet::TellingPing { zxid, foreign } if self.is_serving() => {
                self.joining.on_refused(foreign);
                self.on_ping(zxid);
            }
            Packet::Revalidated { session, valid } if self.is_serving() => {
                self.on_revalidated(session, valid);
            }
            Packet::Sync => self.on_synced(),
            // Apache passes over the rest, and pings before UPTODATE, too.
            _ => {}
        }
        Ok(())
    }

    fn propose(&mut self, zxid: Zxid, payload: Vec<u8>) -> Result<(), String> {
        if zxid <= self.base {
            // A snapshot holds more than its zxid says when transactions go on while it is sent.
            return Ok(());
        }
        self.inflow.check_bytes()?;
        let last = self.last;
        if !follows(last, zxid) {
            let why =
                format!("transaction {zxid} was sent behind {last}: some between them are missing, or it is repeated");
            if self.phase == Phase::History {
                self.end_for_snapshot(why);
                return Ok(());
            }
            return Err(why);
        }
        let of_epoch =
            if self.phase == Phase::History { zxid.epoch() <= self.epoch } else { zxid.epoch() == self.epoch };
        if !of_epoch {
            return Err(format!("transaction {zxid} is not of its epoch {:#x}", self.epoch));
        }
        let txn = Txn::from_bytes(&payload)
            .map_err(|why| format!("transaction {zxid} cannot be read, so it is not acknowledged ({why}): it is damaged, or made by a release that this one does not know"))?;
        if txn.header.zxid != zxid {
            return Err(format!("transaction {zxid} says it is {}", txn.header.zxid));
        }
        if let Some(members) = self.proposed_members(&txn)? {
            self.see(members);
        }
        self.last = zxid;
        let record = LogRecord { zxid, payload };
        if !self.log_skipped {
            self.to_log.push(record.clone());
            self.inflow.log(zxid, record.bytes());
        }
        self.uncommitted.push(txn, record);
        Ok(())
    }

    /// Whether this is the COMMIT of a transaction that has to be read back from the log.
    fn waits_for_log(&mut self, packet: &Packet) -> bool {
        let (Packet::Commit { zxid } | Packet::CommitAndActivate { zxid, .. }) = packet else { return false };
        if self.uncommitted.oldest() != Some(*zxid) || !self.uncommitted.must_read_back() {
            return false;
        }
        if let Some((from, to)) = self.uncommitted.read_back() {
            self.emit(Effect::ReadBack { from, to });
        }
        true
    }

    /// What [`Effect::ReadBack`] found: on with what came meanwhile.
    pub fn on_read_back(&mut self, records: Vec<LogRecord>) {
        self.uncommitted.on_read_back(records);
        self.heard_ms = self.now_ms;
        self.take_held();
    }

    pub(super) fn commit(&mut self, zxid: Zxid, designated: Option<ServerId>) -> Result<(), String> {
        if zxid <= self.base {
            return Ok(());
        }
        match self.uncommitted.oldest() {
            Some(oldest) if oldest == zxid => {}
            Some(oldest) => return Err(format!("COMMIT of {zxid}, though {oldest} is the next to be committed")),
            None => return Err(format!("COMMIT of {zxid}, though nothing proposed is uncommitted")),
        }
        // A COMMIT waits until it is read back; an INFORM, which has it all, is of no proposal that was sent before.
        let Some((txn, record)) = self.uncommitted.take_kept() else {
            return Err(format!("INFORM of {zxid}, which it had proposed before"));
        };
        if self.phase == Phase::History {
            self.committed_before_new_leader = zxid;
            while self.acks_due.front().is_some_and(|due| *due <= zxid) {
                self.acks_due.pop_front();
            }
        }
        if let TxnBody::CloseSession { .. } = txn.body {
            self.sessions.remove(&txn.header.client_id);
        }
        if !self.is_serving() {
            self.note_committed_config(&txn)?;
        }
        if self.relays.is_some() {
            self.relay(Relay::Committed(record.clone(), designated));
        }
        if self.is_serving() {
            self.committed_log.commit(record);
        } else {
            // A candidate says COMMIT of its own history, which no quorum may have.
            self.committed_log.push(record);
        }
        self.unapplied_bytes += txn.size_hint();
        self.to_deliver.push(txn);
        Ok(())
    }

    pub(super) fn on_durable(&mut self, zxid: Zxid) {
        let wanted = self.wants_packets();
        while let Some(durable) = self.inflow.pop_durable(zxid) {
            self.uncommitted.on_durable(durable);
            if !self.observer && durable > self.committed_before_new_leader {
                self.acks_due.push_back(durable);
            }
        }
        if !wanted {
            self.heard_ms = self.now_ms;
        }
        self.try_to_acknowledge();
        self.send_acks();
    }

    /// The pipeline has caught up by so much.
    pub(super) fn on_applied(&mut self, bytes: usize) {
        let wanted = self.wants_packets();
        self.unapplied_bytes = self.unapplied_bytes.saturating_sub(bytes);
        if !wanted {
            self.heard_ms = self.now_ms;
        }
    }

    pub(super) fn send_acks(&mut self) {
        if !matches!(self.phase, Phase::Waiting | Phase::Serving) || self.ended.is_some() {
            return;
        }
        for zxid in mem::take(&mut self.acks_due) {
            self.send(Packet::Ack { zxid });
        }
    }
}

/// What a learner in broadcast hears of.
fn count(packet: &Packet) {
    match packet {
        Packet::Proposal { .. } => metrics::LEARNER_PROPOSAL_RECEIVED_COUNT.add(1),
        Packet::Commit { .. }
        | Packet::CommitAndActivate { .. }
        | Packet::Inform { .. }
        | Packet::InformAndActivate { .. } => metrics::LEARNER_COMMIT_RECEIVED_COUNT.add(1),
        _ => {}
    }
}
