//! A follower or an observer: from dialling the leader to the last packet from it (`Learner`, `Follower`, `Observer`). It
//! promises the leader's epoch, is brought up to date, and from then on logs what is proposed, acknowledges what is
//! durable and delivers what is committed. Pure; run by [`super::peer`], one `Learner` per leader followed.
//!
//! | phase | waits for | goes on with |
//! |---|---|---|
//! | dialing | the connection | FOLLOWERINFO or OBSERVERINFO |
//! | epoch | LEADERINFO | the epoch durable, ACKEPOCH |
//! | mode | DIFF, TRUNC or SNAP, and nothing else | history, `Effect::Truncate`, stream |
//! | stream | the tree behind SNAP | `Effect::Install` |
//! | replacing | this server's own disk, after TRUNC and SNAP; packets are held | history, with those held |
//! | history | what is missing, up to NEWLEADER | the log and the pipeline |
//! | settling | this server's log, up to NEWLEADER | currentEpoch durable, ACK(NEWLEADER) |
//! | waiting | UPTODATE | the role for the pipeline, ACK(UPTODATE) |
//! | serving | the end of the leader | |
//!
//! Rules that no phase breaks:
//! - A transaction that cannot be read is neither logged nor acknowledged. Everything logged can thus be applied.
//! - Zxids have no gap: the next of the epoch, or the first of a later one.
//! - Commits come in the order of the proposals, each once.
//! - ACK(NEWLEADER) is the first ACK, and says that everything before NEWLEADER is durable; then each proposal is
//!   acknowledged once, in order, when it is durable. Only what was committed before NEWLEADER is not.
//! - What the log is given in one step it gets in one batch, before the pipeline gets the same.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::config::Members;
use crate::config::ensemble::PeerAddress;
use crate::ids::{ServerId, SessionId, Zxid};
use crate::mail::{LogRecord, Role, ToPipeline, ToQuorum};
use crate::metrics;
use crate::ops::OpCode;
use crate::quorum::history::{History, follows};
use crate::quorum::observer_master::Relay;
use crate::quorum::packet::{LearnerInfo, Packet};
use crate::quorum::voters::Configs;
use crate::quorum::{Effect, Epochs, LinkId, PeerRules, Timing};
use crate::state::State;
use crate::txn::{Txn, TxnBody, kind};

/// The protocol of ZAB 1.0, as LearnerInfo names it.
const PROTOCOL: i32 = 0x10000;
/// The first pause between two attempts to connect, doubled each time up to `leaderConnectDelayDuringRetryMs`.
const DIAL_DELAY_MIN_MS: i64 = 5;
/// A leader that refuses is tried this often at least, as Apache does.
const DIALS_MIN: u32 = 5;
/// And at least this long: another server may decide a little later that it leads, or open its port slowly. A leader that
/// died right after its election is given up on well before the connect budget is used up.
const REFUSED_MS_MIN: i64 = 2000;
/// Bytes given to the log and not yet durable from which on the leader is to wait.
const UNSYNCED_BYTES_ENOUGH: usize = 32 << 20;
/// Bytes of a leader's packets that are kept at most: proposals without a commit, records that the log has not synced,
/// packets held back. Beyond any burst of a leader that is well.
const BYTES_MAX: usize = 256 << 20;
/// What a packet costs beside its payload.
const PACKET_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Dialing { failed: u32, again_ms: Option<i64> },
    Epoch,
    Mode,
    Stream { zxid: Zxid },
    Replacing { to: Zxid },
    History,
    Settling { up_to: Zxid },
    Waiting,
    Serving,
}

/// A proposal without its commit.
#[derive(Debug)]
struct Pending {
    txn: Txn,
    record: LogRecord,
}

/// A record that the log has not synced.
#[derive(Debug)]
struct Unsynced {
    zxid: Zxid,
    bytes: usize,
}

/// The core of a follower or an observer.
#[derive(Debug)]
pub struct Learner {
    my_id: ServerId,
    observer: bool,
    leader: ServerId,
    configs: Configs,
    rules: PeerRules,
    timing: Timing,
    epochs: Epochs,
    history: History,
    log_skipped: bool,
    snapshot_needed: bool,

    now_ms: i64,
    started_ms: i64,
    /// When the leader was last heard of, or this server last had itself to wait for.
    heard_ms: i64,
    phase: Phase,
    link: Option<LinkId>,
    /// When the synchronization began.
    sync_began_ms: i64,
    /// The leader's epoch, once it is known.
    epoch: u32,
    ended: Option<String>,

    /// Where the history stands on to which the leader's packets are put. What is not beyond it is known already.
    base: Zxid,
    /// The last transaction taken in: logged, unless the log is skipped.
    last: Zxid,
    /// Up to here was committed before NEWLEADER: not acknowledged.
    settled: Zxid,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    unsynced: VecDeque<Unsynced>,
    unsynced_bytes: usize,
    held: VecDeque<Packet>,
    held_bytes: usize,
    /// Durable proposals that wait for ACK(NEWLEADER).
    acks_due: VecDeque<Zxid>,
    /// The ping to answer with the sessions that the pipeline is asked for.
    ping: Option<Zxid>,
    /// Syncs forwarded and not answered, and which observer's they are, if not the pipeline's.
    syncs: VecDeque<Option<LinkId>>,
    /// The same for sessions that the leader was asked about.
    revalidating: VecDeque<(SessionId, Option<LinkId>)>,
    /// Where the sessions are that came from observers of this server: at one of them, or by now here. To the leader that
    /// is all the same, so that it is for this server to see to it that nobody speaks for a session that has moved on.
    sessions: BTreeMap<SessionId, Option<LinkId>>,
    /// What observers are to hear, if this server takes any.
    relays: Option<Vec<Relay>>,
    /// Whose port was dialled: the leader's, or that of a follower which takes observers.
    master: ServerId,
    /// From NEWLEADER, or committed since: in force from UPTODATE on.
    leader_config: Option<Members>,
    /// Whom to turn to after this role, as the leader said.
    successor: Option<ServerId>,

    to_log: Vec<LogRecord>,
    to_deliver: Vec<Txn>,
    effects: Vec<Effect>,
}

impl Learner {
    /// Begins to follow; the first effect dials the leader. `last` is the last transaction logged, which is applied and
    /// durable.
    #[expect(clippy::too_many_arguments, reason = "all that one role hands to the next, each of its own type")]
    pub fn new(
        my_id: ServerId,
        observer: bool,
        leader: ServerId,
        configs: Configs,
        rules: impl Into<PeerRules>,
        epochs: Epochs,
        history: History,
        last: Zxid,
        now_ms: i64,
    ) -> Learner {
        let rules = rules.into();
        let mut learner = Learner {
            my_id,
            observer,
            leader,
            configs,
            rules,
            timing: rules.timing,
            epochs,
            history,
            log_skipped: false,
            snapshot_needed: false,
            now_ms,
            started_ms: now_ms,
            heard_ms: now_ms,
            sync_began_ms: now_ms,
            phase: Phase::Dialing { failed: 0, again_ms: None },
            link: None,
            epoch: 0,
            ended: None,
            base: last,
            last,
            settled: Zxid::ZERO,
            pending: VecDeque::new(),
            pending_bytes: 0,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            acks_due: VecDeque::new(),
            ping: None,
            syncs: VecDeque::new(),
            revalidating: VecDeque::new(),
            sessions: BTreeMap::new(),
            relays: None,
            master: leader,
            leader_config: None,
            successor: None,
            to_log: Vec::new(),
            to_deliver: Vec::new(),
            effects: Vec::new(),
        };
        learner.dial(0);
        learner
    }

    /// An observer that keeps nothing on disk but snapshots (`observer.syncEnabled=false`). A follower logs all the same.
    pub fn skip_log(&mut self) {
        self.log_skipped = self.observer;
    }

    /// The leader is told that this server has no history, so that it sends a snapshot. To be called before anything
    /// else, if [`Learner::needs_snapshot`] was true at the end of the last role.
    pub fn ask_for_snapshot(&mut self) {
        self.snapshot_needed = true;
    }

    /// Whether the history of this server and that of the leader did not fit together: only a snapshot helps.
    pub fn needs_snapshot(&self) -> bool {
        self.snapshot_needed
    }

    /// The time of what is said next, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// The leader took the connection.
    pub fn on_leader_connected(&mut self, link: LinkId) {
        if self.ended.is_some() || self.link.is_some() {
            self.effects.push(Effect::Close { link, why: "no leader is waited for any more".into() });
            return;
        }
        self.link = Some(link);
        self.heard_ms = self.now_ms;
        self.phase = Phase::Epoch;
        self.send(Packet::LearnerInfo(LearnerInfo {
            observer: self.observer,
            accepted_epoch: self.epochs.accepted,
            server: Some(self.my_id),
            protocol: PROTOCOL,
            config_version: self.configs.committed.version,
        }));
    }

    /// No address of the leader answered; which those are, and why, for the log.
    pub fn on_leader_unreachable(&mut self, why: &str) {
        let Phase::Dialing { failed, .. } = self.phase else { return };
        let failed = failed + 1;
        // Who follows is often done a moment before who leads has opened its port.
        let delay_ms = DIAL_DELAY_MIN_MS.saturating_mul(1 << (failed - 1).min(10)).min(self.rules.redial_ms);
        let again_ms = self.now_ms + delay_ms;
        let tried_enough = failed >= DIALS_MIN && self.now_ms - self.started_ms >= REFUSED_MS_MIN;
        if tried_enough || again_ms >= self.started_ms + self.timing.connect_ms {
            let spent_ms = self.now_ms - self.started_ms;
            self.end(format!(
                "it does not take connections on its quorum port ({failed} attempts in {spent_ms} ms): {why}"
            ));
        } else {
            self.phase = Phase::Dialing { failed, again_ms: Some(again_ms) };
        }
    }

    /// The leader sent a packet.
    pub fn on_packet(&mut self, packet: Packet) {
        if self.ended.is_some() {
            return;
        }
        self.heard_ms = self.now_ms;
        let taken = match self.phase {
            Phase::Replacing { .. } => self.hold(packet),
            _ => self.take_packet(packet),
        };
        if let Err(why) = taken {
            self.end(why);
        }
    }

    /// The leader sent bytes that are no packet yet: a part of the tree behind SNAP. So it is not silent.
    pub fn on_heard(&mut self) {
        self.heard_ms = self.now_ms;
    }

    /// The tree behind SNAP is complete and makes this state, as of the zxid in SNAP.
    pub fn on_snapshot(&mut self, state: Box<State>) {
        if self.ended.is_some() {
            return;
        }
        let found = state.last_zxid();
        match self.phase {
            Phase::Stream { zxid } if zxid == found => {
                self.phase = Phase::Replacing { to: zxid };
                self.stand_at(zxid);
                self.history.reset(zxid);
                self.emit(Effect::Install(state));
            }
            Phase::Stream { zxid } => self.end(format!("its snapshot is as of {found}, where SNAP says {zxid}")),
            _ => self.end("a snapshot came that SNAP did not announce"),
        }
    }

    /// The connection is closed, by whomever.
    pub fn on_link_closed(&mut self) {
        self.end("the connection is closed");
    }

    /// What came of [`Effect::Truncate`]: the last transaction that is left.
    pub fn on_truncated(&mut self, result: Result<Zxid, String>) {
        let Phase::Replacing { to } = self.phase else { return };
        match result {
            Ok(left) if left == to => self.replaced(),
            Ok(left) => {
                self.history.reset(left);
                self.stand_at(left);
                self.unfit(format!("TRUNC says {to} is the last common transaction, but the log has {left} there"));
            }
            Err(why) => self.unfit(format!("TRUNC to {to} failed: {why}")),
        }
    }

    /// Mail of the other threads.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        match mail {
            ToQuorum::Durable { zxid } => self.on_durable(zxid),
            ToQuorum::Installed { zxid } if self.phase == (Phase::Replacing { to: zxid }) => {
                self.snapshot_needed = false;
                self.replaced();
            }
            ToQuorum::Touched(sessions) => self.on_touched(sessions),
            ToQuorum::Forward(request) if self.is_serving() => {
                self.send_up(None, Packet::Request(request));
            }
            ToQuorum::Revalidate { session, timeout_ms } if self.is_serving() => {
                self.send_up(None, Packet::Revalidate { session, timeout_ms });
            }
            _ => {}
        }
    }

    /// From now on [`Learner::take_relays`] tells what observers of this server are to hear.
    pub fn begin_to_relay(&mut self) {
        self.relays = Some(Vec::new());
    }

    /// What observers are to hear, in order. It is for them once the effects of before are carried out.
    pub fn take_relays(&mut self) -> Vec<Relay> {
        self.relays.as_mut().map(mem::take).unwrap_or_default()
    }

    /// An observer of this server wants something of the leader: a REQUEST or a REVALIDATE.
    pub fn on_observer_packet(&mut self, observer: LinkId, packet: Packet) {
        if self.is_serving() {
            self.send_up(Some(observer), packet);
        }
    }

    /// Whom this server gets its transactions from.
    pub fn master(&self) -> ServerId {
        self.master
    }

    /// How far this role is, as operators are told.
    pub fn stage_text(&self) -> &'static str {
        match self.phase {
            Phase::Dialing { .. } | Phase::Epoch => "discovery",
            Phase::Serving => "broadcast",
            Phase::Mode
            | Phase::Stream { .. }
            | Phase::Replacing { .. }
            | Phase::History
            | Phase::Settling { .. }
            | Phase::Waiting => "synchronization",
        }
    }

    /// Time passes.
    pub fn tick(&mut self) {
        if self.ended.is_some() || self.deadline_ms().is_none_or(|deadline| self.now_ms < deadline) {
            return;
        }
        if let Phase::Dialing { failed, .. } = self.phase {
            if self.now_ms < self.started_ms + self.timing.connect_ms {
                return self.dial(failed);
            }
            return self.end(format!("it took no connection within {} ms", self.timing.connect_ms));
        }
        self.end(format!("silent for {} ms", self.now_ms - self.heard_ms));
    }

    /// When [`Learner::tick`] has something to do; `i64::MAX` if it is all up to others.
    pub fn next_deadline_ms(&self) -> i64 {
        if self.ended.is_some() { i64::MAX } else { self.deadline_ms().unwrap_or(i64::MAX) }
    }

    /// What is to be done, in order. Also after the end.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.flush();
        mem::take(&mut self.effects)
    }

    /// Why the role is over, if it is.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// As they are on disk once the effects are carried out.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// UPTODATE came and the role goes on.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving && self.ended.is_none()
    }

    /// Whether the log or the state is being replaced; if so at the end of the role, `on_truncated` or `Installed` is to
    /// be waited for, and told here, before anything else is begun.
    pub fn is_replacing(&self) -> bool {
        matches!(self.phase, Phase::Replacing { .. })
    }

    /// Whether the leader's packets are to be read now. While not, this server has enough to do with those it has, and the
    /// leader's silence means nothing.
    pub fn wants_packets(&self) -> bool {
        !self.is_replacing() && self.unsynced_bytes < UNSYNCED_BYTES_ENOUGH
    }

    /// The last transaction that was logged, or with a skipped log delivered.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// The role is over because of a new configuration, and this server leads in it: no election is needed.
    pub fn successor(&self) -> Option<ServerId> {
        self.successor
    }

    /// What is logged and not known to be committed. The role is over: the pipeline applies it, since the log has it, and
    /// from now on it belongs to the history.
    pub fn undelivered(&mut self) -> Vec<Txn> {
        let pending = mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if self.log_skipped {
            return Vec::new();
        }
        let mut txns = Vec::with_capacity(pending.len());
        for Pending { txn, record } in pending {
            self.history.push(record);
            txns.push(txn);
        }
        txns
    }

    /// The last transaction that is committed and was given to the pipeline.
    pub fn committed(&self) -> Zxid {
        self.history.last()
    }

    /// The committed window for the next role.
    pub fn history(self) -> History {
        self.history
    }

    // ---------------------------------------------------------------- connecting, and the epoch

    fn dial(&mut self, failed: u32) {
        self.phase = Phase::Dialing { failed, again_ms: None };
        let addresses = self.next_master(failed);
        if addresses.is_empty() {
            self.end("no configuration has its address");
        } else {
            self.emit(Effect::DialLeader { addresses });
        }
    }

    /// Observers of an ensemble whose followers take them go to one of those, else to the leader. Only followers have
    /// that port open, so that after a refusal the next voter is tried.
    fn next_master(&mut self, failed: u32) -> Vec<PeerAddress> {
        let Some(port) = self.rules.observer_master_port.filter(|_| self.observer) else {
            return self.leader_addresses();
        };
        let voters: Vec<_> = self.configs.committed.participants().collect();
        // Observers are to spread over the voters, and a later try is to begin with another one.
        let turn = self.started_ms.wrapping_add(self.my_id.0).wrapping_add(i64::from(failed));
        let Some(voter) = voters.get(turn.rem_euclid(voters.len().max(1) as i64) as usize) else { return Vec::new() };
        self.master = ServerId(voter.id);
        voter.addresses.iter().map(|address| PeerAddress { quorum_port: port, ..address.clone() }).collect()
    }

    fn leader_addresses(&self) -> Vec<PeerAddress> {
        let known = self.configs.committed.servers.get(&self.leader.0);
        let known = known.or_else(|| self.configs.newest().servers.get(&self.leader.0));
        known.map(|server| server.addresses.clone()).unwrap_or_default()
    }

    fn deadline_ms(&self) -> Option<i64> {
        let silent_ms = match self.phase {
            Phase::Dialing { again_ms, .. } => {
                let end_ms = self.started_ms + self.timing.connect_ms;
                return Some(again_ms.map_or(end_ms, |again_ms| again_ms.min(end_ms)));
            }
            Phase::Replacing { .. } | Phase::Settling { .. } => return None,
            Phase::Epoch | Phase::Mode | Phase::Stream { .. } | Phase::History => self.timing.init_ms,
            Phase::Waiting | Phase::Serving => self.timing.sync_ms,
        };
        self.wants_packets().then_some(self.heard_ms + silent_ms)
    }

    fn take_packet(&mut self, packet: Packet) -> Result<(), String> {
        match self.phase {
            Phase::Dialing { .. } => Err("a packet came before the connection".into()),
            Phase::Epoch => self.on_epoch(packet),
            Phase::Mode => self.on_mode(packet),
            Phase::Stream { zxid } => Err(format!("a packet came in the middle of the snapshot as of {zxid}")),
            Phase::Replacing { .. } => self.hold(packet),
            Phase::History | Phase::Settling { .. } | Phase::Waiting | Phase::Serving => self.on_history(packet),
        }
    }

    fn on_epoch(&mut self, packet: Packet) -> Result<(), String> {
        let Packet::LeaderInfo { epoch } = packet else {
            return Err(format!("expected LEADERINFO, got {}; releases before 3.4 are not supported", packet.name()));
        };
        let accepted = self.epochs.accepted;
        if epoch < accepted {
            return Err(format!(
                "its epoch {epoch:#x} is older than {accepted:#x}, which this server promised to join"
            ));
        }
        if i32::try_from(epoch).is_err() {
            return Err(format!("epoch {epoch:#x} is beyond the last one"));
        }
        self.epoch = epoch;
        let mut current = None;
        if epoch > accepted {
            self.epochs.accepted = epoch;
            self.emit(Effect::SetAcceptedEpoch(epoch));
            current = Some(self.epochs.current);
        }
        let zxid = if self.snapshot_needed { Zxid::ZERO } else { self.last };
        self.send(Packet::AckEpoch { zxid, epoch: current });
        self.phase = Phase::Mode;
        self.sync_began_ms = self.now_ms;
        Ok(())
    }

    // ---------------------------------------------------------------- synchronization

    fn on_mode(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Snap { zxid } if zxid.0 < 0 || zxid.epoch() > self.epoch => {
                return Err(format!("SNAP as of {zxid} is beyond its epoch {:#x}", self.epoch));
            }
            Packet::Snap { zxid } => self.phase = Phase::Stream { zxid },
            Packet::Diff { .. } | Packet::Trunc { .. } if self.snapshot_needed && self.last > Zxid::ZERO => {
                return Err(format!("expected SNAP, since this server's history does not fit, got {}", packet.name()));
            }
            Packet::Diff { .. } => self.phase = Phase::History,
            Packet::Trunc { zxid } if zxid.0 < 0 || zxid > self.last => {
                self.unfit(format!("TRUNC to {zxid}, though this server's log ends at {}", self.last));
            }
            Packet::Trunc { zxid } => {
                self.phase = Phase::Replacing { to: zxid };
                self.stand_at(zxid);
                self.history.truncate(zxid);
                self.emit(Effect::Truncate { to: zxid });
            }
            other => return Err(format!("expected DIFF, TRUNC or SNAP, got {}", other.name())),
        }
        Ok(())
    }

    fn stand_at(&mut self, zxid: Zxid) {
        self.base = zxid;
        self.last = zxid;
    }

    /// Only this server's own disk was waited for: on with what came meanwhile.
    fn replaced(&mut self) {
        self.phase = Phase::History;
        self.heard_ms = self.now_ms;
        self.held_bytes = 0;
        for packet in mem::take(&mut self.held) {
            if self.ended.is_some() {
                return;
            }
            if let Err(why) = self.take_packet(packet) {
                self.end(why);
            }
        }
    }

    fn hold(&mut self, packet: Packet) -> Result<(), String> {
        self.held_bytes += PACKET_BYTES + payload_bytes(&packet);
        self.held.push_back(packet);
        self.check_bytes()
    }

    fn on_new_leader(&mut self, zxid: Zxid, config: Vec<u8>) -> Result<(), String> {
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
        self.phase = Phase::Settling { up_to: self.last };
        self.try_to_settle();
        Ok(())
    }

    fn try_to_settle(&mut self) {
        let Phase::Settling { up_to } = self.phase else { return };
        if self.ended.is_some() || self.unsynced.front().is_some_and(|record| record.zxid <= up_to) {
            return;
        }
        if self.epochs.current != self.epoch {
            self.epochs.current = self.epoch;
            self.emit(Effect::SetCurrentEpoch(self.epoch));
        }
        self.phase = Phase::Waiting;
        self.heard_ms = self.now_ms;
        self.send(Packet::Ack { zxid: self.epoch_start() });
        self.send_acks();
    }

    fn on_up_to_date(&mut self) -> Result<(), String> {
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
        self.phase = Phase::Serving;
        let sync_time = if self.observer { &metrics::OBSERVER_SYNC_TIME } else { &metrics::FOLLOWER_SYNC_TIME };
        sync_time.record(self.now_ms - self.sync_began_ms);
        self.tell_configs();
        let role = if self.observer { Role::Observing } else { Role::Following };
        self.emit(Effect::Pipeline(ToPipeline::Role(role)));
        self.send(Packet::Ack { zxid: self.epoch_start() });
        Ok(())
    }

    // ---------------------------------------------------------------- proposals and commits, before and after UPTODATE

    fn on_history(&mut self, packet: Packet) -> Result<(), String> {
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
            Packet::Revalidated { session, valid } if self.is_serving() => {
                self.on_revalidated(session, valid);
            }
            Packet::Sync => match self.syncs.pop_front() {
                Some(Some(observer)) => self.relay(Relay::Answer(observer, Packet::Sync)),
                Some(None) => self.emit(Effect::Pipeline(ToPipeline::Synced)),
                None => {}
            },
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
        let last = self.last;
        if !follows(last, zxid) {
            let why =
                format!("transaction {zxid} was sent behind {last}: some between them are missing, or it is repeated");
            if self.phase == Phase::History {
                self.unfit(why);
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
        let bytes = record_bytes(&record);
        if !self.log_skipped {
            self.to_log.push(record.clone());
            self.unsynced.push_back(Unsynced { zxid, bytes });
            self.unsynced_bytes += bytes;
        }
        self.pending.push_back(Pending { txn, record });
        self.pending_bytes += bytes;
        self.check_bytes()
    }

    fn commit(&mut self, zxid: Zxid, designated: Option<ServerId>) -> Result<(), String> {
        if zxid <= self.base {
            return Ok(());
        }
        let head = self.pending.pop_front_if(|pending| pending.record.zxid == zxid);
        let Some(Pending { txn, record }) = head else {
            return Err(match self.pending.front() {
                Some(pending) => {
                    format!("COMMIT of {zxid}, though {} is the next to be committed", pending.record.zxid)
                }
                None => format!("COMMIT of {zxid}, though nothing proposed is uncommitted"),
            });
        };
        self.pending_bytes -= record_bytes(&record);
        if self.phase == Phase::History {
            self.settled = zxid;
            while self.acks_due.front().is_some_and(|due| *due <= zxid) {
                self.acks_due.pop_front();
            }
        }
        if let TxnBody::CloseSession { .. } = txn.body {
            self.sessions.remove(&txn.header.client_id);
        }
        if self.relays.is_some() {
            self.relay(Relay::Committed(record.clone(), designated));
        }
        self.history.push(record);
        self.to_deliver.push(txn);
        Ok(())
    }

    fn commit_config(&mut self, zxid: Zxid, designated: ServerId) -> Result<(), String> {
        self.commit(zxid, Some(designated))?;
        let committed = self.to_deliver.last().filter(|txn| txn.header.zxid == zxid);
        let members = committed.map(|txn| self.proposed_members(txn)).transpose()?.flatten();
        if let Some(members) = members {
            if self.is_serving() {
                self.put_in_force(members, Some(designated));
                self.tell_configs();
            } else {
                self.leader_config = Some(members);
            }
        }
        Ok(())
    }

    // ---------------------------------------------------------------- configurations

    /// The configuration that a transaction proposes, if such matter.
    fn proposed_members(&self, txn: &Txn) -> Result<Option<Members>, String> {
        let TxnBody::Reconfig(set) = &txn.body else { return Ok(None) };
        if !self.configs.reconfig_enabled {
            return Ok(None);
        }
        let members = Members::parse_text(set.data.as_deref().unwrap_or_default());
        members.map(Some).map_err(|why| format!("the configuration in {} cannot be read ({why})", txn.header.zxid))
    }

    fn see(&mut self, members: Members) {
        if self.configs.see(members) {
            self.save_configs();
        }
    }

    fn save_configs(&mut self) {
        self.emit(Effect::SaveConfigs(Box::new(self.configs.clone())));
    }

    fn tell_configs(&mut self) {
        let configs = Box::new(self.configs.clone());
        self.emit(Effect::Pipeline(ToPipeline::Configs(configs)));
    }

    /// The newest configuration that the leader knows. One that was proposed here under an older leader, and that this
    /// one has not heard of, is not in its history, so it will never be in force.
    fn on_leader_config(&mut self, text: &[u8]) -> Result<(), String> {
        let members = Members::parse_text(text).map_err(|why| format!("its configuration cannot be read ({why})"))?;
        let epoch_start = self.epoch_start().0;
        let abandoned = |seen: &mut Members| seen.version > members.version && seen.version < epoch_start;
        if self.configs.last_seen.take_if(abandoned).is_some() {
            self.save_configs();
        }
        self.see(members.clone());
        self.leader_config = Some(members);
        Ok(())
    }

    /// The ensemble agreed. When that changes what this server is, or whom it follows, the role is over.
    fn put_in_force(&mut self, members: Members, designated: Option<ServerId>) {
        let before = self.configs.committed.clone();
        if !self.configs.activate(members) {
            return;
        }
        self.save_configs();
        let now = &self.configs.committed;
        let leader_stays = match designated {
            Some(designated) => designated == self.leader,
            None => now.is_participant(self.leader) && before.addresses(self.leader) == now.addresses(self.leader),
        };
        let observes = now.is_observer(self.my_id);
        if leader_stays && observes == self.observer {
            return;
        }
        self.successor = designated;
        self.end(match (leader_stays, observes) {
            (false, _) => "by the new configuration another server is to lead",
            (true, true) => "by the new configuration this server observes",
            (true, false) => "by the new configuration this server votes",
        });
    }

    fn on_durable(&mut self, zxid: Zxid) {
        let wanted = self.wants_packets();
        while self.unsynced.front().is_some_and(|record| record.zxid <= zxid) {
            let Some(record) = self.unsynced.pop_front() else { break };
            self.unsynced_bytes -= record.bytes;
            if !self.observer && record.zxid > self.settled {
                self.acks_due.push_back(record.zxid);
            }
        }
        if !wanted {
            self.heard_ms = self.now_ms;
        }
        self.try_to_settle();
        self.send_acks();
    }

    fn send_acks(&mut self) {
        if !matches!(self.phase, Phase::Waiting | Phase::Serving) || self.ended.is_some() {
            return;
        }
        for zxid in mem::take(&mut self.acks_due) {
            self.send(Packet::Ack { zxid });
        }
    }

    // ---------------------------------------------------------------- sessions

    /// Answered with what the pipeline says. If it has not said anything when the next ping comes, the leader learns that
    /// this server is alive, and of the sessions later.
    fn on_ping(&mut self, zxid: Zxid) {
        match self.ping.replace(zxid) {
            Some(overdue) => self.send(Packet::Ping { zxid: overdue, touched: Vec::new() }),
            None => self.emit(Effect::Pipeline(ToPipeline::TellTouched)),
        }
    }

    /// Something that the leader answers, for the pipeline or for an observer.
    fn send_up(&mut self, observer: Option<LinkId>, mut packet: Packet) {
        match &mut packet {
            Packet::Request(request) if request.op == OpCode::Sync as i32 => self.syncs.push_back(observer),
            Packet::Request(request) if request.op == kind::CREATE_SESSION => {
                self.take_session(request.session, observer)
            }
            Packet::Request(request) if request.op == OpCode::CloseSession as i32 => {}
            // Whoever sent it waits for a transaction, which without a body is an error.
            Packet::Request(request) if self.sessions.get(&request.session).is_some_and(|owner| *owner != observer) => {
                request.body.clear();
            }
            Packet::Revalidate { session, .. } => {
                let session = *session;
                self.revalidating.push_back((session, observer));
                self.take_session(session, observer);
            }
            _ => {}
        }
        self.send(packet);
    }

    /// Who speaks for the session from now on. A session that no observer had is not noted.
    fn take_session(&mut self, session: SessionId, observer: Option<LinkId>) {
        if observer.is_some() || self.sessions.contains_key(&session) {
            self.sessions.insert(session, observer);
        }
    }

    fn on_revalidated(&mut self, session: SessionId, valid: bool) {
        let asked = self.revalidating.iter().position(|(asked, _)| *asked == session);
        match asked.and_then(|at| self.revalidating.remove(at)) {
            Some((_, Some(observer))) => self.relay(Relay::Answer(observer, Packet::Revalidated { session, valid })),
            Some((_, None)) | None => self.emit(Effect::Pipeline(ToPipeline::Revalidated { session, valid })),
        }
    }

    fn relay(&mut self, relay: Relay) {
        if let Some(relays) = &mut self.relays {
            relays.push(relay);
        }
    }

    fn on_touched(&mut self, touched: Vec<(SessionId, i32)>) {
        if self.ended.is_some() {
            return;
        }
        if let Some(zxid) = self.ping.take() {
            self.send(Packet::Ping { zxid, touched });
        }
    }

    // ---------------------------------------------------------------- effects and the end

    fn epoch_start(&self) -> Zxid {
        Zxid(i64::from(self.epoch) << 32)
    }

    fn send(&mut self, packet: Packet) {
        if let Some(link) = self.link {
            self.emit(Effect::Send { link, packet });
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.flush();
        self.effects.push(effect);
    }

    fn flush(&mut self) {
        if !self.to_log.is_empty() {
            self.effects.push(Effect::Log(mem::take(&mut self.to_log)));
        }
        if !self.to_deliver.is_empty() {
            let txns = mem::take(&mut self.to_deliver);
            self.effects.push(Effect::Pipeline(ToPipeline::Deliver { txns }));
        }
    }

    fn check_bytes(&self) -> Result<(), String> {
        if self.pending_bytes.max(self.unsynced_bytes).max(self.held_bytes) <= BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "it sent more than {} MiB that this server can neither store nor commit yet: {} MiB uncommitted, {} MiB not synced, {} MiB held back",
            BYTES_MAX >> 20,
            self.pending_bytes >> 20,
            self.unsynced_bytes >> 20,
            self.held_bytes >> 20
        ))
    }

    /// The role ends, and only a snapshot helps in the next one.
    fn unfit(&mut self, why: String) {
        self.snapshot_needed = true;
        self.end(format!("{why}; a snapshot will be asked for"));
    }

    fn end(&mut self, why: impl Into<String>) {
        if self.ended.is_none() {
            self.flush();
            self.held = VecDeque::new();
            self.ended = Some(format!("leader {}: {}", self.leader.0, why.into()));
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

fn record_bytes(record: &LogRecord) -> usize {
    PACKET_BYTES + record.payload.len()
}

fn payload_bytes(packet: &Packet) -> usize {
    match packet {
        Packet::Proposal { payload, .. }
        | Packet::Inform { payload, .. }
        | Packet::InformAndActivate { payload, .. }
        | Packet::NewLeader { config: payload, .. } => payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
