//! Messages of the election port (`QuorumCnxManager.InitialMessage`, `FastLeaderElection.Notification`): bytes both ways.
//! Pure; used by [`super::election`], [`super::links`] and `threads::quorum`.

use crate::ids::ServerId;
use crate::quorum::{PeerState, Vote};

/// What the dialling side says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who dials.
    pub server: ServerId,
    /// Its election addresses as host and port; empty from a peer before 3.5.
    pub addresses: Vec<(String, u16)>,
}

/// A vote as it is told to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// What the sender is doing; `None` for a number that no release sends, which is ignored.
    pub state: PeerState,
    /// Whom it votes for or follows.
    pub vote: Vote,
    /// Its election round (logical clock).
    pub round: i64,
    /// 0 for the forms without version, 1, 2.
    pub version: i32,
    /// Its committed configuration as text, version 2 only.
    pub config: Option<Vec<u8>>,
}
