//! The ensemble: leader election and ZAB as pure state machines. Time, packets and what the disk and the pipeline say go
//! in; [`Effect`]s come out. No socket, no file, no clock, no randomness of its own. Driven by `engine::quorum`.
//!
//! Effects are carried out in the order they are given, each before the next: an epoch that is to be durable before a
//! packet leaves simply stands before it. What takes longer (the log, a truncation, a snapshot) comes back as an input.
//!
//! | file | what |
//! |---|---|
//! | [`packet`] | packets of the quorum port, bytes both ways |
//! | [`notification`] | messages of the election port, bytes both ways |
//! | [`voters`](crate::config::voters) | what a quorum is, of one configuration or of two |
//! | [`committed_log`] | the last committed transactions, and how a learner is brought up to date from them |
//! | [`joint`] | whether two histories are one, and what servers say of that |
//! | [`election`] | fast leader election |
//! | [`gossip`] | when a newer list of members is believed |
//! | [`links`] | who connects to whom on the election port |
//! | [`leader`], [`learner`] | ZAB: discovery, synchronization, broadcast |
//! | [`learner_master`] | what a leader does for its learners, and a follower for its observers |
//! | [`observer_master`] | a follower that takes observers, so that the leader need not |
//! | [`peer`] | the whole of one server: looking, leading, following, observing |
//! | [`replacement`] | the steps of a truncation and of an installation, for who carries them out |

pub mod committed_log;
pub mod election;
pub mod gossip;
pub mod joint;
pub mod leader;
pub mod learner;
mod learner_master;
pub mod links;
pub mod notification;
pub mod observer_master;
pub mod packet;
pub mod peer;
pub mod replacement;
mod transitions;

use std::collections::BTreeMap;
use std::fmt;

use crate::admin::view::LinkView;
use crate::config::Members;
use crate::config::ensemble::PeerAddress;
use crate::config::voters::Configs;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{Dropped, LogRecord, ToPipeline};
use crate::memory::Bounds;
use crate::state::{JointVerdict, State, WrongJoint};
use crate::txn::{self, Txn, TxnBody, TxnHeader};
use crate::wrong::{self, Wrong};
use joint::Ends;
use packet::Packet;

/// How often an operator is told of the same, ms.
const ALARM_PAUSE_MS: i64 = 300_000;

/// Shortest distance of two lines that who connects can bring about, ms.
const WARNING_PAUSE_MS: i64 = 60_000;

/// How much a learner matters when there is no room for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkPriority {
    /// It has not said who it is, or is in no configuration.
    Stranger,
    /// An observer by the configuration.
    Observer,
    /// A voter; or the leader, seen from a learner.
    Voter,
}

/// What the shell adds, of a link, to what operators are shown.
pub type OnLink<'a> = dyn Fn(LinkId) -> LinkView + 'a;

/// What a server is activity, with Apache's numbers on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// 0: electing.
    Looking,
    /// 1
    Following,
    /// 2
    Leading,
    /// 3
    Observing,
}

/// A vote: whom for, and how far that server's history reaches. Ordered by [`Vote::beats`], never field by field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The server voted for.
    pub leader: ServerId,
    /// Its last logged transaction.
    pub zxid: Zxid,
    /// Its currentEpoch; `i64` since observers vote with the smallest number.
    pub epoch: i64,
}

/// The two epoch files (`acceptedEpoch`, `currentEpoch`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Epochs {
    /// The newest epoch that this server promised to join.
    pub accepted: u32,
    /// The epoch whose history this server holds.
    pub current: u32,
}

/// A leader was followed that told nothing of its history. On disk from before what it sent is logged behind this server's
/// own; until that is proven to be one history, or, if it is not, until nothing is left of it (`storage::wrong_join`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongJoin {
    /// The last transaction that is surely this server's own.
    pub joint: Zxid,
    /// currentEpoch before.
    pub epoch: u32,
    /// Where this server's history ended before.
    pub last: Zxid,
    /// Up to where a quorum was known to have it.
    pub agreed: Zxid,
    /// Whom it followed from there, the last one if there were several.
    pub leader: ServerId,
    /// How far it is taken back.
    pub stage: JoinStage,
}

/// How far a wrong join is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinStage {
    /// Nothing is: whether the two histories are one is not known.
    Unproven,
    /// What the leader sent stands in the log behind the joint, and is to be taken out.
    Joined,
    /// It is out. The end of this server's own history was cut off to follow that leader, and is not put back.
    Short,
    /// It cannot be taken out.
    Mixed,
}

impl WrongJoin {
    /// The same while nothing is known to be wrong.
    pub fn unproven(self) -> Option<WrongJoin> {
        Some(self).filter(|wrong| wrong.stage == JoinStage::Unproven)
    }

    /// What a start makes of a joint of which nothing was known, once it has replayed the log up to `reached`. What this
    /// server found out by itself before it died stands among the foreigners, though the transaction that told may be lost.
    pub fn judged(self, verdict: Option<JointVerdict>, known: &Foreigners, reached: Zxid) -> Option<WrongJoin> {
        let was_found = || {
            let by_itself =
                |foreign: &&Foreign| foreign.strange.is_some() && *foreign.ends.zxids.start() == self.joint.next();
            known.get(&self.leader).filter(by_itself).is_some()
        };
        match verdict {
            Some(JointVerdict::Right | JointVerdict::Open) => None,
            Some(JointVerdict::Wrong(_)) => Some(WrongJoin { stage: JoinStage::Joined, ..self }),
            // Nothing that was sent is here, nor was anything cut off for it.
            None if reached < self.joint || reached == self.joint && self.last == self.joint => None,
            None if was_found() => Some(WrongJoin { stage: JoinStage::Joined, ..self }),
            None => Some(self),
        }
    }

    /// What is left of it when what the leader sent is out of the log.
    pub fn taken_back(self) -> Option<WrongJoin> {
        (self.joint < self.last).then_some(WrongJoin { stage: JoinStage::Short, ..self })
    }

    /// The same where that cannot be.
    pub fn not_taken_back(self) -> WrongJoin {
        WrongJoin { stage: JoinStage::Mixed, ..self }
    }

    /// Why this server has no voice in elections until it has a leader's history; `None`: it has one.
    pub fn damage(&self) -> Option<String> {
        let WrongJoin { joint, last, .. } = self;
        match self.stage {
            JoinStage::Unproven | JoinStage::Joined => None,
            JoinStage::Short => Some(format!(
                "what it had behind {joint}, up to {last}, was taken off its history to follow a leader that turned out to \
                 have another one (that is kept in a folder beside its logs)"
            )),
            JoinStage::Mixed => Some(format!(
                "what stands in its log behind {joint} was sent by a leader that turned out to have another history, and \
                 could not be taken out"
            )),
        }
    }
}

/// A server whose history is known to be another one, which is not forgotten by a start (`storage::foreign`), until it comes
/// with a third one or with none, or this server's own is replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// Where that history may end.
    pub ends: Ends,
    /// How that was seen by this server when it followed that one.
    pub strange: Option<String>,
}

impl Foreign {
    /// A leader's that `joined` was found to have sent what is of another history; this server had promised `accepted`.
    pub fn found(joined: &WrongJoin, wrong: &WrongJoint, accepted: u32) -> Foreign {
        // Should it come to follow a server with this history, it has what it led with.
        let reign_end = Zxid(i64::from(accepted) << 32 | i64::from(u32::MAX));
        // A server that gave up an end of its own has no voice, and follows whoever is elected without it.
        let is_whole = joined.taken_back().is_none();
        Foreign { ends: (wrong.joint.next()..=reign_end).into(), strange: is_whole.then(|| wrong.to_string()) }
    }
}

/// All that are known.
pub type Foreigners = BTreeMap<ServerId, Foreign>;

/// Timing of the protocol, from zoo.cfg. All limits in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// `tickTime`.
    pub tick_ms: i64,
    /// `tickTime` × `initLimit`: to connect, to find an epoch, to synchronize.
    pub init_ms: i64,
    /// `tickTime` × `syncLimit`: how long a peer may be silent.
    pub sync_ms: i64,
    /// The budget for connecting to the leader: `connectToLearnerMasterLimit` ticks, else `init_ms`.
    pub connect_ms: i64,
}

/// What zoo.cfg says about a member's part in its ensemble, made by `threads::ensemble`. [`From<Timing>`] gives the defaults
/// for the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerRules {
    /// The limits in time.
    pub timing: Timing,
    /// `fastleader.minNotificationInterval`, `fastleader.maxNotificationInterval`: the first and the longest pause between
    /// notices of an election, ms.
    pub notification_interval_ms: (i64, i64),
    /// `commitLogCount`: committed transactions that are kept for learners.
    pub history_max: usize,
    /// `forceSnapshotSync`: every learner gets a snapshot.
    pub always_snapshot: bool,
    /// `leader.maxConcurrentSnapSyncs`: with this many learners being sent a snapshot, observers are refused another.
    pub snapshot_syncs_max: usize,
    /// `leader.maxConcurrentDiffSyncs`: the same without a snapshot.
    pub diff_syncs_max: usize,
    /// `leader.maxTimeToWaitForEpoch`: from when on a leader without an epoch gives up as soon as a voter that elected it
    /// looks again, ms.
    pub epoch_wait_ms: Option<i64>,
    /// `leaderConnectDelayDuringRetryMs`: pause before a learner dials again, ms.
    pub redial_ms: i64,
    /// `observer.reconnectDelayMs` and `observer.election.DelayMs`: an observer that lost its leader waits up to the one
    /// and up to the other before it looks, so that a crowd of them does not come at once, ms.
    pub observer_pauses_ms: [i64; 2],
    /// `observerMasterPort`: followers take observers on this port, and observers go there.
    pub observer_master_port: Option<u16>,
    /// `allowUnlistedLearners`: whether servers that are in no list of members are taken as learners; `None`: where lists
    /// can change, since who is to join follows before it is listed.
    pub unlisted: Option<bool>,
    /// `observerMaster.sizeLimit`: bytes of committed transactions that a follower keeps for observers.
    pub observer_bytes_max: usize,
    /// How much of everything may wait.
    pub memory: Bounds,
    /// Bytes of transactions without a commit that a learner keeps in memory, of what its log has: the account
    /// `uncommitted`, except in tests.
    pub uncommitted_bytes_max: usize,
}

/// What the disk log has for a learner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogPart {
    /// The learner's last transaction.
    pub joint: Option<LogRecord>,
    /// If the log goes on without it, the last one before.
    pub below: Option<LogRecord>,
    /// Everything behind it; `None` if there is a gap, if it is too much, or if it is not certain that the learner's last
    /// transaction stands before it (it does if it is there, or if the next one of its epoch is).
    pub records: Option<Vec<LogRecord>>,
}

/// What a core wants done. In order, each before the next.
#[derive(Debug)]
pub enum Effect {
    /// A packet for a link of the quorum port, behind what was sent to it before.
    Send {
        /// Where to.
        link: LinkId,
        /// What.
        packet: Packet,
    },
    /// Raw bytes of a snapshot stream for a link of the quorum port, behind what was sent to it before.
    SendSnapshot {
        /// Where to.
        link: LinkId,
        /// A part of the stream; the shell says `on_snapshot_sent` once it is handed to the kernel.
        bytes: Vec<u8>,
    },
    /// The link is closed, whatever was still to be sent; nothing more is heard of it. One log line says why.
    Close {
        /// Which.
        link: LinkId,
        /// For the log; names the peer only if the core knows more than the shell (the server id).
        why: String,
    },
    /// Dial the leader's quorum port, or a follower's port for observers, all addresses at once; the first that answers
    /// counts. Comes back as `on_leader_connected` or `on_leader_unreachable`.
    DialLeader {
        /// The leader, or the follower that is to take this observer.
        master: ServerId,
        /// Where.
        addresses: Vec<PeerAddress>,
    },
    /// The quorum port is open (leading) or closed. Connections accepted come as `on_learner_connected`.
    Listen(bool),
    /// `observerMasterPort` is open, until the role is left. Connections accepted come as `on_learner_connected`.
    ListenForObservers,
    /// `acceptedEpoch` is this, durably, before the next effect.
    SetAcceptedEpoch(u32),
    /// `currentEpoch` is this, durably, before the next effect: this server has the leader's history.
    SetCurrentEpoch(u32),
    /// `currentEpoch` is this again, durably, before the next effect: what made it another one was taken back.
    SetBackEpoch(u32),
    /// What a start is to know of a joint, durably, before the next effect; `None`: nothing any more.
    MarkWrongJoin(Option<WrongJoin>),
    /// What a start is to know of histories that are known to be others, durably, before the next effect.
    KeepForeigners(Foreigners),
    /// The configuration files say this, durably, before the next effect. Only if they may change.
    SaveConfigs(Box<Configs>),
    /// For the log; `on_durable` with the last zxid comes back after the sync.
    Log(Vec<LogRecord>),
    /// Everything behind this transaction is removed from log and snapshots, and the pipeline gets the state that is left.
    /// `on_truncated` comes back.
    Truncate {
        /// The last transaction that stays.
        to: Zxid,
        /// What becomes of the rest.
        dropped: Dropped,
    },
    /// The pipeline's state is replaced by this one, which is as of its own `last_zxid`; the logs go away. `on_installed`
    /// comes back once a snapshot of it is durable.
    Install {
        /// The state.
        state: Box<State>,
        /// What becomes of what was here.
        dropped: Dropped,
    },
    /// Transactions of the disk log from behind `from` up to and including `to`, without a gap, and `from` itself, if it is
    /// there. `on_log_read` comes back.
    ReadLog {
        /// For which learner.
        link: LinkId,
        /// The learner's last transaction.
        from: Zxid,
        /// Where the committed window goes on.
        to: Zxid,
    },
    /// These transactions of this server's own log, all of which it has synced. `on_read_back` comes back.
    ReadBack {
        /// The first.
        from: Zxid,
        /// The last.
        to: Zxid,
    },
    /// Dial a server's election port. Comes back as `on_election_dialed` or `on_election_undialed`.
    DialElection {
        /// Whom.
        server: ServerId,
        /// Where.
        addresses: Vec<PeerAddress>,
    },
    /// Bytes for a link of the election port. `on_election_flushed` comes back when the kernel has them all.
    SendElection {
        /// Where to.
        link: LinkId,
        /// What: the initial message, or one frame.
        bytes: Vec<u8>,
    },
    /// What an operator must decide, or this server stays out: logged at ERROR. The core says it once and then at long
    /// intervals.
    Alarm(String),
    /// What an operator should know of whoever is at the other end of a link: logged at WARN with its address, not again for
    /// some time.
    Warn {
        /// Whom it is about.
        link: LinkId,
        /// For the log.
        what: String,
    },
    /// The role is over: every link of the quorum port is closed, dials are given up, the port is closed. Nothing more is
    /// heard of them.
    LeaveRole {
        /// For the log.
        why: String,
    },
    /// For the pipeline.
    Pipeline(ToPipeline),
}

/// The configuration that a transaction proposes, given what is logged of it; `None` for any other transaction.
fn proposed_members(payload: &[u8]) -> Option<Result<Members, String>> {
    // Nearly all are told apart by their kind alone.
    if TxnHeader::kind_in(payload) != Some(txn::kind::RECONFIG) {
        return None;
    }
    let txn = match Txn::from_bytes(payload) {
        Ok(txn) => txn,
        Err(error) => return Some(Err(error.to_string())),
    };
    let TxnBody::Reconfig(set) = txn.body else { return None };
    Some(Members::parse_text(set.data.as_deref().unwrap_or_default()).map_err(|error| error.to_string()))
}

impl Vote {
    /// Whether this vote wins over another: epoch, then zxid, then server (`FastLeaderElection.totalOrderPredicate`).
    pub fn beats(&self, other: &Vote) -> bool {
        if wrong::is_on(Wrong::VoteByServerFirst) {
            return (self.epoch, self.leader, self.zxid) > (other.epoch, other.leader, other.zxid);
        }
        (self.epoch, self.zxid, self.leader) > (other.epoch, other.zxid, other.leader)
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {:#x}, zxid {})", self.leader.0, self.epoch, self.zxid)
    }
}
