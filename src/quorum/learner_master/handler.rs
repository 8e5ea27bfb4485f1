//! One connection of a learner, as the server sees it that brings it up to date (`LearnerHandler`), and the packets that it
//! is told of transactions with. Used by [`super::LearnerMaster`], which has them all, and by the two that own one.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ServerId, Zxid};
use crate::mail::LogRecord;
use crate::quorum::joint::{HistoryEnd, Reach, Relation};
use crate::quorum::packet::Packet;
use crate::quorum::transitions::Transitions;
use crate::quorum::{Effect, LinkId, Timing};

/// How far a learner is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It is to say who it is.
    Connected,
    /// Its history is not of this ensemble; it is held for a while, so that it does not come again at once.
    Refused,
    /// It waits for the epoch.
    Introduced,
    /// It knows the epoch and is to promise.
    Invited,
    /// It promised and waits for a quorum of those.
    Promised,
    /// The disk log is read for it.
    ReadingLog { from: Zxid, to: Zxid },
    /// It gets a snapshot; `cut` is where that stands, or, before the first piece, a point not behind it.
    Snapshot { cut: Zxid, begun: bool },
    /// It has NEWLEADER and is to acknowledge.
    NewLeader,
    /// It has the history and waits for a quorum of those.
    Synced,
    /// UPTODATE is sent: broadcast.
    UpToDate,
}

impl Transitions for Phase {
    fn may_become(&self, next: &Phase) -> bool {
        use Phase::{
            Connected, Introduced, Invited, NewLeader, Promised, ReadingLog, Refused, Snapshot, Synced, UpToDate,
        };
        matches!(
            (self, next),
            (Connected, Introduced)
                | (Introduced, Invited | Refused)
                | (Invited, Promised)
                | (Promised, ReadingLog { .. } | Snapshot { begun: false, .. } | NewLeader | Refused)
                | (ReadingLog { .. }, Snapshot { begun: false, .. } | NewLeader | Refused)
                | (Snapshot { begun: false, .. }, Snapshot { begun: true, .. })
                | (Snapshot { begun: true, .. }, NewLeader)
                | (NewLeader, Synced)
                | (Synced, UpToDate)
        )
    }
}

/// How a learner is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// With what it lacks.
    Diff,
    /// With everything.
    Snapshot,
}

/// One connection to the quorum port.
#[derive(Debug)]
pub struct LearnerHandler {
    /// How far it is.
    pub phase: Phase,
    /// How it is being brought up to date, until it acknowledges NEWLEADER.
    pub(super) sync: Option<Sync>,
    /// Its synchronization is a snapshot, or was.
    pub(super) got_snapshot: bool,
    /// Known once it is introduced.
    pub server: ServerId,
    /// It connected as an observer: it is in no quorum.
    pub observer: bool,
    /// It is closed then; `i64::MAX` while it waits for this server.
    pub(super) deadline_ms: i64,
    /// Until then it counts as there.
    pub alive_until_ms: i64,
    /// It got more time since it was last heard of, because this server did not listen.
    pub(super) excused: bool,
    /// Its last logged transaction, as it said; none if it asks for a snapshot.
    pub last: Zxid,
    /// Where its history ends, as a server of ours says when it connects.
    pub(super) end: Option<HistoryEnd>,
    /// By what that can be known.
    pub reach: Option<Box<Reach>>,
    /// How it stands to this server's, as it is told with a snapshot.
    pub(super) relation: Relation,
    /// The greatest proposal it acknowledged.
    pub last_acked: Zxid,
    /// The last commit it was told of, by the synchronization or later.
    pub commits_told: Zxid,
    /// Its syncs that wait until it is told of a commit; ascending, as they were asked for.
    pub syncs: VecDeque<Zxid>,
    /// A proposal it has not acknowledged, and since when.
    pub unacked: Option<(Zxid, i64)>,
}

impl LearnerHandler {
    /// A connection that has said nothing yet.
    pub fn new(now_ms: i64, timing: &Timing) -> LearnerHandler {
        LearnerHandler {
            phase: Phase::Connected,
            sync: None,
            got_snapshot: false,
            server: ServerId(0),
            observer: false,
            deadline_ms: now_ms + timing.init_ms,
            alive_until_ms: now_ms + timing.init_ms + timing.sync_ms,
            excused: false,
            last: Zxid::ZERO,
            end: None,
            reach: None,
            relation: Relation::Unknown,
            last_acked: Zxid::ZERO,
            commits_told: Zxid::ZERO,
            syncs: VecDeque::new(),
            unacked: None,
        }
    }

    /// Whether it has been sent the history, as of when that began.
    pub fn is_in_step(&self) -> bool {
        matches!(self.phase, Phase::NewLeader | Phase::Synced | Phase::UpToDate)
    }

    /// Whether it was told to go on from, or to give up, what it came with.
    pub fn sync_began(&self) -> bool {
        self.is_in_step() || matches!(self.phase, Phase::Snapshot { .. })
    }

    /// Whether a snapshot has replaced whatever it came with.
    pub fn has_whole_state(&self) -> bool {
        self.got_snapshot && self.is_in_step()
    }

    /// Whether transactions are sent to it as they come.
    pub fn is_forwarding(&self) -> bool {
        self.phase == Phase::UpToDate
    }

    /// For the log.
    pub fn kind(&self) -> &'static str {
        if self.observer { "observer" } else { "follower" }
    }

    /// Answers the syncs that wait for no later commit than the last one told.
    pub fn answer_syncs(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        while self.syncs.pop_front_if(|after| *after <= self.commits_told).is_some() {
            effects.push(Effect::Send { link, packet: Packet::Sync });
        }
    }

    /// What it needs of the history: everything behind this.
    pub fn pins(&self) -> Option<Zxid> {
        match self.phase {
            Phase::ReadingLog { to, .. } => Some(to),
            Phase::Snapshot { cut, .. } => Some(cut),
            Phase::NewLeader | Phase::Synced => Some(self.commits_told),
            _ => None,
        }
    }
}

/// For the log.
pub fn waiting_for(phase: Phase) -> &'static str {
    match phase {
        Phase::Connected => "it was to say who it is",
        Phase::Refused => "its history is of another ensemble",
        Phase::Introduced => "it was to wait for the epoch",
        Phase::Invited => "it was to promise the new epoch",
        Phase::Promised => "it was to wait for a quorum of promises",
        Phase::ReadingLog { .. } | Phase::Snapshot { .. } => "it was to be synchronized",
        Phase::NewLeader => "it was to acknowledge NEWLEADER",
        Phase::Synced => "it was to wait for UPTODATE",
        Phase::UpToDate => "it was in broadcast",
    }
}

/// PROPOSAL of this record.
pub fn proposal_packet(record: &LogRecord) -> Packet {
    Packet::Proposal { zxid: record.zxid, payload: record.payload.clone() }
}

/// What tells a follower of a commit.
pub fn commit_packet(zxid: Zxid, activations: &BTreeMap<Zxid, ServerId>) -> Packet {
    match activations.get(&zxid) {
        Some(&designated) => Packet::CommitAndActivate { zxid, designated },
        None => Packet::Commit { zxid },
    }
}

/// What tells an observer of a commit.
pub fn inform_packet(record: &LogRecord, activations: &BTreeMap<Zxid, ServerId>) -> Packet {
    let (zxid, payload) = (record.zxid, record.payload.clone());
    match activations.get(&zxid) {
        Some(&designated) => Packet::InformAndActivate { zxid, designated, payload },
        None => Packet::Inform { zxid, payload },
    }
}
