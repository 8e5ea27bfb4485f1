//! Packets of the quorum port (`QuorumPacket`, `LearnerInfo`, `Learner`, `LearnerHandler`): bytes both ways, decoded once
//! into what they mean. Pure; used by the cores and by `threads::quorum`.

use crate::ids::{ServerId, SessionId, Zxid};
use crate::state::acl::AuthId;

/// Who sent it: two kinds mean different things from a learner and from a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// A follower or observer.
    Learner,
    /// A leader or an observer master.
    Leader,
}

/// A packet, by what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// 1, learner: a client's write, or sync, for the leader.
    Request(ForwardedRequest),
    /// 2: a transaction, `Txn::to_bytes`.
    Proposal { zxid: Zxid, payload: Vec<u8> },
    /// 3: a proposal is durable; or, with counter 0, NEWLEADER or UPTODATE is taken in.
    Ack { zxid: Zxid },
    /// 4
    Commit { zxid: Zxid },
    /// 5; from a learner with the sessions heard of since the last one, and the leader's zxid echoed.
    Ping { zxid: Zxid, touched: Vec<(SessionId, i32)> },
    /// 6, learner: is this session alive?
    Revalidate { session: SessionId, timeout_ms: i32 },
    /// 6, leader: the answer.
    Revalidated { session: SessionId, valid: bool },
    /// 7, leader: everything before the sync is on its way in front of this.
    Sync,
    /// 8, to observers: a committed transaction.
    Inform { zxid: Zxid, payload: Vec<u8> },
    /// 9: a commit that makes a new configuration the one in force.
    CommitAndActivate { zxid: Zxid, designated: ServerId },
    /// 10: the history is complete; `config` is the leader's newest configuration as text, empty if there is none.
    NewLeader { zxid: Zxid, config: Vec<u8> },
    /// 11 from a follower, 16 from an observer.
    LearnerInfo(LearnerInfo),
    /// 12: a quorum has the history: serve.
    UpToDate,
    /// 13: what is missing follows as proposals and commits.
    Diff { zxid: Zxid },
    /// 14: what is behind this zxid is to be forgotten.
    Trunc { zxid: Zxid },
    /// 15: the whole state follows on the stream.
    Snap { zxid: Zxid },
    /// 17: the epoch that is to begin.
    LeaderInfo { epoch: u32 },
    /// 18: the learner's last logged zxid and its currentEpoch; `None` if it had accepted this very epoch before.
    AckEpoch { zxid: Zxid, epoch: Option<u32> },
    /// 19, to observers: [`Packet::Inform`] and [`Packet::CommitAndActivate`] in one.
    InformAndActivate { zxid: Zxid, designated: ServerId, payload: Vec<u8> },
    /// Anything else: passed over.
    Unknown { kind: i32 },
}

/// FOLLOWERINFO and OBSERVERINFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// OBSERVERINFO.
    pub observer: bool,
    /// The epoch it last promised to join.
    pub accepted_epoch: u32,
    /// Who it is; `None` in the oldest forms, which carry none.
    pub server: Option<ServerId>,
    /// 0x10000 since ZAB 1.0; below, the exchange differs and is refused.
    pub protocol: i32,
    /// Version of its committed configuration; 0 if not sent.
    pub config_version: i64,
}

/// A request as it travels to the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardedRequest {
    /// The client's session.
    pub session: SessionId,
    /// The client's xid; 0 for createSession and what a server does by itself.
    pub cxid: i32,
    /// Opcode.
    pub op: i32,
    /// The request record as the client sent it.
    pub body: Vec<u8>,
    /// The identities of the client's connection; `None` for what a server does by itself.
    pub auth: Option<Vec<AuthId>>,
}
