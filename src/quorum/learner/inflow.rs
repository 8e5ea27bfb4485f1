//! What a learner took from its leader and this server's disk is behind with (`Inflow`): the records that the log has not
//! synced, and the packets that are held back, with the bytes of both and their bounds. Pure. Used by the learner only.

use std::collections::VecDeque;

use crate::ids::Zxid;
use crate::limits::TXN_OVERHEAD_BYTES;
use crate::quorum::packet::Packet;

/// A record that the log has not synced.
#[derive(Debug)]
struct Unsynced {
    zxid: Zxid,
    bytes: usize,
}

/// Records not synced and packets held back, both in the order in which they came.
#[derive(Debug)]
pub(super) struct Inflow {
    unsynced: VecDeque<Unsynced>,
    unsynced_bytes: usize,
    held: VecDeque<Packet>,
    held_bytes: usize,
    /// The account of the log: with this much not synced, nothing more is read.
    log_queue_bytes_max: usize,
}

impl Inflow {
    /// Nothing yet.
    pub(super) fn new(log_queue_bytes_max: usize) -> Inflow {
        Inflow {
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            log_queue_bytes_max,
        }
    }

    /// Bytes of the records that the log has not synced.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// Bytes of the packets held back.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the log keeps up, so that more is to be read.
    pub(super) fn log_keeps_up(&self) -> bool {
        self.unsynced_bytes < self.log_queue_bytes_max
    }

    /// Whether another packet may be taken in.
    pub(super) fn check_bytes(&self) -> Result<(), String> {
        // At the account of the log alone the learner stops reading.
        let bytes_max = 2 * self.log_queue_bytes_max;
        if self.unsynced_bytes.max(self.held_bytes) <= bytes_max {
            return Ok(());
        }
        Err(format!(
            "it sent more than {} MiB that this server cannot store yet: {} MiB not synced, {} MiB held back",
            bytes_max >> 20,
            self.unsynced_bytes >> 20,
            self.held_bytes >> 20
        ))
    }

    /// A record goes to the log.
    pub(super) fn log(&mut self, zxid: Zxid, bytes: usize) {
        self.unsynced.push_back(Unsynced { zxid, bytes });
        self.unsynced_bytes += bytes;
    }

    /// The log is durable up to `zxid`: the next record that is so by that, until there is none.
    pub(super) fn pop_durable(&mut self, zxid: Zxid) -> Option<Zxid> {
        let record = self.unsynced.pop_front_if(|record| record.zxid <= zxid)?;
        self.unsynced_bytes -= record.bytes;
        Some(record.zxid)
    }

    /// Whether the log has synced every record up to `zxid`.
    pub(super) fn is_durable(&self, zxid: Zxid) -> bool {
        self.unsynced.front().is_none_or(|record| record.zxid > zxid)
    }

    /// A packet has to wait, behind those that do.
    pub(super) fn hold(&mut self, packet: Packet) -> Result<(), String> {
        self.check_bytes()?;
        self.held_bytes += held_bytes(&packet);
        self.held.push_back(packet);
        Ok(())
    }

    /// The one that comes next after all has to wait, in front of those that came later.
    pub(super) fn hold_again(&mut self, packet: Packet) {
        self.held_bytes += held_bytes(&packet);
        self.held.push_front(packet);
    }

    /// The packet that has waited longest.
    pub(super) fn pop_held(&mut self) -> Option<Packet> {
        let packet = self.held.pop_front()?;
        self.held_bytes -= held_bytes(&packet);
        Some(packet)
    }

    /// Nobody takes the packets that are held any more.
    pub(super) fn drop_held(&mut self) {
        (self.held, self.held_bytes) = (VecDeque::new(), 0);
    }

    /// What is true whatever came, with `last` the last transaction taken in.
    ///
    /// # Panics
    /// If it is not.
    pub(super) fn invariants(&self, last: Zxid) {
        match (self.unsynced.front(), self.unsynced.back()) {
            (Some(first), Some(newest)) => {
                let (first, newest) = (first.zxid, newest.zxid);
                assert!(first <= newest && newest <= last, "not synced {first} to {newest}, the last is {last}");
            }
            _ => assert_eq!(self.unsynced_bytes, 0, "bytes of nothing that is not synced"),
        }
        assert!(!self.held.is_empty() || self.held_bytes == 0, "{} bytes of no packet held", self.held_bytes);
    }
}

fn held_bytes(packet: &Packet) -> usize {
    let payload_bytes = match packet {
        Packet::Proposal { payload, .. }
        | Packet::Inform { payload, .. }
        | Packet::InformAndActivate { payload, .. }
        | Packet::NewLeader { config: payload, .. } => payload.len(),
        _ => 0,
    };
    TXN_OVERHEAD_BYTES + payload_bytes
}
