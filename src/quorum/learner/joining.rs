//! What a learner knows of the joint between its own history and its leader's (`Joining`): whether the leader compares the
//! two, what it said of others' histories, and what becomes of this server's. Pure. Used by the learner only.

use std::mem;

use crate::ids::Zxid;
use crate::mail::Dropped;
use crate::quorum::joint::ForeignEnds;

/// What a pipeline is asked that is to apply what was delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CatchingUp {
    ToAsk,
    Asked,
}

/// The joint of one learner's history and its leader's.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// The leader compares histories before it joins them: it is none of Apache's.
    leader_compares: bool,
    /// Servers whose histories are others than the leader's, as it said.
    leader_foreign: ForeignEnds,
    /// The same while this server serves: all of them, those too that this server told it of.
    refused_by_leader: Option<ForeignEnds>,
    /// The leader's history was put behind this one by a zxid alone.
    joined: bool,
    /// The pipeline is to be asked, when it has what was delivered, or has been and has not answered.
    catching_up: Option<CatchingUp>,
    /// What becomes of this server's history, if the leader said enough to tell.
    dropped: Option<Dropped>,
    /// What the leader sends as a snapshot is committed.
    agreed: bool,
}

impl Joining {
    /// The leader said its epoch and, if it compares histories, which others are not its own.
    pub(super) fn on_leader_info(&mut self, foreign: Option<ForeignEnds>) {
        self.leader_compares = foreign.is_some();
        self.leader_foreign = foreign.unwrap_or_default();
    }

    /// The serving leader said all that it knows of others.
    pub(super) fn on_refused(&mut self, foreign: ForeignEnds) {
        self.refused_by_leader = Some(foreign);
    }

    /// Whether the leader compares histories before it joins them.
    pub(super) fn leader_compares(&self) -> bool {
        self.leader_compares
    }

    /// What the leader said of others when it said its epoch, once.
    pub(super) fn take_leader_foreign(&mut self) -> ForeignEnds {
        mem::take(&mut self.leader_foreign)
    }

    /// All that the leader knows of others now, once, if it said so since.
    pub(super) fn take_refused_by_leader(&mut self) -> Option<ForeignEnds> {
        self.refused_by_leader.take()
    }

    /// With SNAP the leader said enough to tell what becomes of this server's history, and whether the snapshot is agreed
    /// upon.
    pub(super) fn on_snapshot_told(&mut self, dropped: Dropped, agreed: bool) {
        (self.dropped, self.agreed) = (Some(dropped), agreed);
    }

    /// What becomes of this server's history, if the leader said enough to tell.
    pub(super) fn dropped(&self) -> Option<Dropped> {
        self.dropped
    }

    /// Whether what the leader sends as a snapshot is committed.
    pub(super) fn is_agreed(&self) -> bool {
        self.agreed
    }

    /// The leader's history goes on behind `last`. Whether only that zxid tells of the joint, which digests are to prove.
    pub(super) fn join(&mut self, last: Zxid) -> bool {
        let by_zxid_alone = !self.leader_compares && last > Zxid::ZERO;
        self.joined |= by_zxid_alone;
        by_zxid_alone
    }

    /// NEWLEADER came: behind a joint by a zxid alone, the pipeline has to catch up first.
    pub(super) fn on_new_leader(&mut self) {
        self.catching_up = self.joined.then_some(CatchingUp::ToAsk);
    }

    /// Whether the pipeline is to be asked now to catch up: once.
    pub(super) fn must_ask(&mut self) -> bool {
        let Some(asks @ CatchingUp::ToAsk) = &mut self.catching_up else { return false };
        *asks = CatchingUp::Asked;
        true
    }

    /// The pipeline has caught up.
    pub(super) fn on_caught_up(&mut self) {
        self.catching_up = None;
    }

    /// Whether the pipeline still has to catch up.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catching_up.is_some()
    }
}
