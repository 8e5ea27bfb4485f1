//! What was proposed to a learner and is not committed. Few bytes of it are in memory: beyond, what this server's log has is
//! let go, and read back when its commit comes. A leader of Apache proposes as much as its heap holds, and the first COMMIT
//! stands behind all that on the link. Pure. Used by the learner, and by the peer once the role has ended.

use std::collections::VecDeque;

use crate::ids::Zxid;
use crate::mail::LogRecord;
use crate::txn::Txn;

/// How many bytes are read back at once; one transaction may have more.
const READ_BACK_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Proposal {
    zxid: Zxid,
    bytes: usize,
    /// `None`: it is in the log only.
    kept: Option<(Txn, LogRecord)>,
}

/// Proposals without a commit, in order.
#[derive(Debug)]
pub struct Uncommitted {
    proposals: VecDeque<Proposal>,
    kept_bytes: usize,
    kept_bytes_max: usize,
    /// Up to here is being read.
    reading: Option<Zxid>,
}

impl Uncommitted {
    /// None yet. Of what is durable, about `kept_bytes_max` bytes are kept in memory.
    pub fn new(kept_bytes_max: usize) -> Uncommitted {
        Uncommitted { proposals: VecDeque::new(), kept_bytes: 0, kept_bytes_max, reading: None }
    }

    /// Whether [`Uncommitted::on_read_back`] is waited for.
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Bytes of those that are in memory.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Another proposal.
    pub fn push(&mut self, txn: Txn, record: LogRecord) {
        let bytes = record.bytes();
        self.kept_bytes += bytes;
        self.proposals.push_back(Proposal { zxid: record.zxid, bytes, kept: Some((txn, record)) });
    }

    /// The log has it. What it had while there was room stays: that is committed first.
    pub fn on_durable(&mut self, zxid: Zxid) {
        if self.kept_bytes <= self.kept_bytes_max {
            return;
        }
        let Ok(at) = self.proposals.binary_search_by_key(&zxid, |proposal| proposal.zxid) else { return };
        let proposal = &mut self.proposals[at];
        if proposal.kept.take().is_some() {
            self.kept_bytes -= proposal.bytes;
        }
    }

    /// Which is the oldest, whose commit comes next.
    pub fn oldest(&self) -> Option<Zxid> {
        self.proposals.front().map(|oldest| oldest.zxid)
    }

    /// Whether the oldest one is in the log only.
    pub fn must_read_back(&self) -> bool {
        self.proposals.front().is_some_and(|oldest| oldest.kept.is_none())
    }

    /// The oldest one, if it is in memory.
    pub fn take_kept(&mut self) -> Option<(Txn, LogRecord)> {
        let Proposal { bytes, kept, .. } = self.proposals.pop_front_if(|oldest| oldest.kept.is_some())?;
        self.kept_bytes -= bytes;
        kept
    }

    /// What is to be read of the log, both ends included, if the oldest one is there only and nothing is being read.
    pub fn read_back(&mut self) -> Option<(Zxid, Zxid)> {
        if self.is_reading() {
            return None;
        }
        let mut bytes = 0;
        let in_log = self.proposals.iter().take_while(|proposal| {
            let is_next = proposal.kept.is_none() && (bytes == 0 || bytes + proposal.bytes <= READ_BACK_BYTES);
            bytes += proposal.bytes;
            is_next
        });
        self.reading = in_log.last().map(|last| last.zxid);
        Some((self.proposals.front()?.zxid, self.reading?))
    }

    /// What [`Uncommitted::read_back`] named.
    pub fn on_read_back(&mut self, records: Vec<LogRecord>) {
        let Some(up_to) = self.reading.take() else { return };
        let mut records = records.into_iter();
        for proposal in self.proposals.iter_mut().take_while(|proposal| proposal.zxid <= up_to) {
            let record = records.next().filter(|record| record.zxid == proposal.zxid);
            let record = record.expect("the log has what it has synced");
            let txn = Txn::from_bytes(&record.payload).expect("it was read before it was logged");
            self.kept_bytes += proposal.bytes;
            proposal.kept = Some((txn, record));
        }
    }
}
