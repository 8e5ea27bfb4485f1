//! Whether a learner gives up its own history for the leader's. What ZAB guarantees is the measure: all that stands in a log
//! in front of its last epoch was agreed upon, since the first transaction of an epoch follows what its quorum had; and all
//! of epoch 0 was acknowledged by a server alone, which had no election. A leader of the same ensemble lacks none of that,
//! unless a majority lost its disks. So to drop more than a part of the last epoch is for an operator to decide.

use super::Learner;
use crate::ids::Zxid;
use crate::mail::Dropped;
use crate::quorum::joint::{Relation, choices, give_up_by_hand};
use crate::state::State;

/// Why this server does not follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// For the operator: what is the matter, and what the choices are.
    pub why: String,
}

/// What a refusal means for elections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// The leader's epoch is earlier than this server's history. If that leader has just lost its quorum, it ends soon.
    LaterHistory,
    /// An ensemble that serves lacks what was acknowledged here: this server is left out, and has no voice.
    Established,
    /// A leader that is not known to serve lacks it: this server does not help that one.
    Candidate,
}

impl Learner {
    /// What becomes of this server's history when the leader's takes its place, which ends with `zxid` or joins there.
    pub(super) fn judge(&self, zxid: Zxid, relation: Relation, established: bool) -> Result<Dropped, Refusal> {
        let last = self.last;
        match relation {
            _ if last == Zxid::ZERO && !self.distrusted => return Ok(Dropped::Contained),
            Relation::Contained if !self.distrusted => return Ok(Dropped::Contained),
            Relation::Contained => return Ok(Dropped::Unproven),
            _ if self.gives_up || last == Zxid::ZERO => return Ok(Dropped::Unproven),
            _ => {}
        }
        let leader = self.leader.0;
        let kind = if established { RefusalKind::Established } else { RefusalKind::Candidate };
        let refuse = |what: String| {
            let to_give_up = "create the empty file give-up-history in its dataDir and restart it; it then follows, and its \
                              files are kept in version-2/replaced-…";
            Err(Refusal { kind, why: format!("{what}. {}", choices(self.my_id, to_give_up)) })
        };
        if self.epochs.current == 0 && last.epoch() == 0 {
            return refuse(format!(
                "server {leader} leads, and is not known to have the {} transactions, up to {last}, that this server \
                 acknowledged when it was alone",
                last.counter()
            ));
        }
        // What of this server's history is left, at most.
        let left = match relation {
            Relation::Parted { at } | Relation::Differs { at } | Relation::Absent { below: at } => at,
            Relation::Unknown | Relation::Contained => zxid,
        };
        // What the leader itself proposed in its reign is for it to take back; it may not have told its log of all of it.
        let agreed = self.committed_log.agreed_before(self.epoch);
        if left < agreed {
            return refuse(format!(
                "server {leader} leads, has this server's history at most up to {left}, and lacks what was agreed upon \
                 behind that, up to {agreed} (this server's last transaction is {last})"
            ));
        }
        match relation {
            Relation::Differs { at } if !established => refuse(format!(
                "server {leader} was elected, and transaction {at} is another one there than here: a majority lost \
                     its data once, and both histories may have been acknowledged. This server does not help it to lead"
            )),
            Relation::Parted { .. } => Ok(Dropped::Tail),
            Relation::Differs { .. } | Relation::Absent { .. } | Relation::Unknown | Relation::Contained => {
                Ok(Dropped::Unproven)
            }
        }
    }

    /// The same for a leader that says nothing of it: one with this server's tree has its history.
    pub(super) fn judge_tree(&self, state: &State) -> Result<Dropped, Refusal> {
        let own = self.committed_log.last_known().tree();
        let relation = match own {
            Some(tree) if tree == state.tree_digest() => Relation::Contained,
            _ => Relation::Unknown,
        };
        self.judge(state.last_zxid(), relation, false)
    }

    pub(super) fn refuse_earlier_epoch(&mut self, epoch: u32) {
        let (leader, last) = (self.leader.0, self.last);
        let why = format!(
            "server {leader} leads in epoch {epoch:#x}, and this server has a history of epoch {:#x}, up to {last}: a \
             majority of the servers lost its data, or this server is of another ensemble. {}",
            self.epochs.current.max(last.epoch()),
            choices(self.my_id, &give_up_by_hand(self.my_id))
        );
        self.refuse(Refusal { kind: RefusalKind::LaterHistory, why });
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.end("it lacks what this server has");
    }
}
