//! A follower or an observer: from dialling the leader to the last packet from it (`Learner`, `Follower`, `Observer`). It
//! promises the leader's epoch, is brought up to date, and from then on logs what is proposed, acknowledges what is
//! durable and delivers what is committed. Pure; run by [`super::peer`], one `Learner` per leader followed.
//!
//! | phase | waits for | goes on with |
//! |---|---|---|
//! | dialing | the connection | FOLLOWERINFO or OBSERVERINFO |
//! | epoch | LEADERINFO | the epoch durable, ACKEPOCH |
//! | mode | DIFF, TRUNC or SNAP, and nothing else | history, `Effect::Truncate`, stream |
//! | stream | the pipeline to forget its state, then the tree behind SNAP | `Effect::Install` |
//! | replacing | this server's own disk, after TRUNC and SNAP; packets are held | history, with those held |
//! | history | what is missing, up to NEWLEADER | the log and the pipeline |
//! | persisting | this server's log, up to NEWLEADER; behind a joint of which the leader tells nothing, the pipeline, too | currentEpoch durable, ACK(NEWLEADER) |
//! | waiting | UPTODATE | the role for the pipeline, ACK(UPTODATE) |
//! | serving | the end of the leader | |
//!
//! `judgment` says whether this server may give up its own history. `discovery` has the first two phases,
//! `synchronization` those from there to UPTODATE, `broadcast` what is told of transactions before and after it.
//! [`super::leader`] has the other side of the first and the last under the same name, [`super::learner_master`] that of
//! `synchronization`. `inflow` has what this server's disk is behind with, `joining` what is known of
//! the joint of the two histories.
//!
//! Rules that no phase breaks:
//! - A transaction that cannot be read is neither logged nor acknowledged. Everything logged can thus be applied.
//! - Zxids have no gap: the next of the epoch, or the first of a later one.
//! - Commits come in the order of the proposals, each once.
//! - ACK(NEWLEADER) is the first ACK, and says that everything before NEWLEADER is durable; then each proposal is
//!   acknowledged once, in order, when it is durable. Only what was committed before NEWLEADER is not.
//! - Behind a joint of which the leader tells nothing, ACK(NEWLEADER) waits until the pipeline has applied what was committed
//!   in front of NEWLEADER: the digests in that tell whether the two histories are one. Where nothing was, nothing tells; what
//!   is not committed is not waited for, for the leader may wait for this server to commit it.
//! - What the log is given in one step it gets in one batch, before the pipeline gets the same.

mod broadcast;
mod discovery;
mod forwarding;
mod inflow;
mod joining;
mod judgment;
mod reconfiguration;
mod synchronization;
mod uncommitted;

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::config::Members;
use crate::config::voters::Configs;
use crate::ids::{LinkId, ServerId, SessionId, Zxid};
use crate::mail::{LogRecord, ToPipeline, ToQuorum};
use crate::memory::Account;
use crate::quorum::committed_log::{CommittedLog, Known};
use crate::quorum::joint::ForeignEnds;
use crate::quorum::observer_master::Relay;
use crate::quorum::packet::Packet;
use crate::quorum::transitions::Transitions;
use crate::quorum::{Effect, Epochs, PeerRules, Timing};
use crate::txn::Txn;

pub use judgment::{Refusal, RefusalKind};
pub use uncommitted::Uncommitted;

use inflow::Inflow;
use joining::Joining;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Dialing { failed: u32, again_ms: Option<i64> },
    Epoch,
    Mode,
    Stream { zxid: Zxid },
    Replacing { to: Zxid },
    History,
    Persisting { up_to: Zxid },
    Waiting,
    Serving,
}

impl Transitions for Phase {
    fn may_become(&self, next: &Phase) -> bool {
        use Phase::{Dialing, Epoch, History, Mode, Persisting, Replacing, Serving, Stream, Waiting};
        matches!(
            (self, next),
            (Dialing { .. }, Dialing { .. } | Epoch)
                | (Epoch, Mode)
                | (Mode, Stream { .. } | Replacing { .. } | History)
                | (Stream { .. }, Replacing { .. })
                | (Replacing { .. }, History)
                | (History, Persisting { .. })
                | (Persisting { .. }, Waiting)
                | (Waiting, Serving)
        )
    }
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
    committed_log: CommittedLog,
    log_skipped: bool,
    snapshot_needed: bool,
    /// The pipeline was told to forget its state, and has not said that it has.
    forgetting: bool,
    /// Its state is forgotten, and no other was given to it.
    hollow: bool,
    /// This server cannot read its own history: what it says of it counts for nothing.
    distrusted: bool,
    /// An operator agreed to lose what the ensemble lacks.
    gives_up: bool,
    /// Servers whose histories are others, as far as this server found out.
    foreign: ForeignEnds,
    /// What is known of the joint between this server's history and the leader's.
    joining: Joining,
    /// Why this server does not follow, if that is for an operator to decide.
    refusal: Option<Refusal>,

    now_ms: i64,
    started_ms: i64,
    /// When the last of those was dialled first who may take this server: the leader, unless its address is not known.
    all_dialed_ms: Option<i64>,
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
    committed_before_new_leader: Zxid,
    uncommitted: Uncommitted,
    /// What this server's disk is behind with.
    inflow: Inflow,
    /// Bytes of what was delivered and, as far as the pipeline said, is not applied.
    unapplied_bytes: usize,
    /// Durable proposals that wait for ACK(NEWLEADER).
    acks_due: VecDeque<Zxid>,
    /// The ping to answer with the sessions that the pipeline is asked for.
    ping: Option<Zxid>,
    /// The last transaction that the leader said in a ping.
    pinged: Zxid,
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
    /// The newest that is known to be committed before UPTODATE: in force from then on.
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
        committed_log: CommittedLog,
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
            committed_log,
            log_skipped: false,
            snapshot_needed: false,
            forgetting: false,
            hollow: false,
            distrusted: false,
            gives_up: false,
            foreign: ForeignEnds::new(),
            joining: Joining::default(),
            refusal: None,
            now_ms,
            started_ms: now_ms,
            all_dialed_ms: None,
            heard_ms: now_ms,
            sync_began_ms: now_ms,
            phase: Phase::Dialing { failed: 0, again_ms: None },
            link: None,
            epoch: 0,
            ended: None,
            base: last,
            last,
            committed_before_new_leader: Zxid::ZERO,
            uncommitted: Uncommitted::new(rules.uncommitted_bytes_max),
            inflow: Inflow::new(rules.memory.get(Account::LogQueue)),
            unapplied_bytes: 0,
            acks_due: VecDeque::new(),
            ping: None,
            pinged: Zxid::ZERO,
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

    /// This server does not know its own history: the leader is not to count it for a quorum before it has that of the
    /// leader, and sends a snapshot. To be called before anything else.
    pub fn distrust_history(&mut self) {
        self.distrusted = true;
        self.snapshot_needed = true;
    }

    /// What the ensemble lacks of this server's history may go: an operator said so. To be called before anything else.
    pub fn give_up(&mut self) {
        self.gives_up = true;
    }

    /// What a leader of ours is to know of others. To be called before anything else.
    pub fn know_foreign(&mut self, foreign: ForeignEnds) {
        self.foreign = foreign;
    }

    /// Why this server does not follow, if an operator has to decide. Once, after the end.
    pub fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// Whether the history of this server and that of the leader did not fit together: only a snapshot helps.
    pub fn needs_snapshot(&self) -> bool {
        self.snapshot_needed
    }

    /// What is true after each input, whatever that was.
    ///
    /// # Panics
    /// If it is not: that is a bug, and nothing may be said because of it.
    pub(super) fn invariants(&self) {
        let Learner { base, last, committed_before_new_leader: committed, .. } = self;
        assert!(base <= last && committed <= last, "begun at {base}, committed {committed}, the last is {last}");
        self.inflow.invariants(*last);
    }

    /// The time of what is said next, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// The leader sent a packet.
    pub fn on_packet(&mut self, packet: Packet) {
        if self.ended.is_some() {
            return;
        }
        self.heard_ms = self.now_ms;
        if let Err(why) = self.take_packet(packet) {
            self.end(why);
        }
    }

    /// Whether this is the link to the leader.
    pub fn is_link(&self, link: LinkId) -> bool {
        self.link == Some(link)
    }

    /// The leader sent bytes, a whole packet or not: a part of the tree behind SNAP, or of a large one. So it is not silent.
    pub fn on_heard(&mut self, link: LinkId) {
        if self.is_link(link) {
            self.heard_ms = self.now_ms;
        }
    }

    /// The connection is closed, by whomever.
    pub fn on_link_closed(&mut self) {
        let why = match self.phase {
            Phase::Epoch => "it closed the connection before it said its epoch; its log says why",
            _ => "the connection is closed",
        };
        self.end(why);
    }

    /// Mail of the other threads.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        match mail {
            ToQuorum::Durable { zxid, .. } => self.on_durable(zxid),
            ToQuorum::Applied { bytes } => self.on_applied(bytes),
            ToQuorum::Installed { zxid } if self.phase == (Phase::Replacing { to: zxid }) => {
                self.snapshot_needed = false;
                self.replaced();
            }
            ToQuorum::CaughtUp => {
                self.joining.on_caught_up();
                self.try_to_acknowledge();
            }
            ToQuorum::Forgotten => {
                self.forgetting = false;
                self.heard_ms = self.now_ms;
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

    /// The leader's history turns out to be another one than that which it was put behind.
    pub fn leave(&mut self, why: String) {
        self.end(why);
    }

    /// Whom this server gets its transactions from.
    pub fn master(&self) -> ServerId {
        self.master
    }

    /// What the leader said of others, once: that holds here, too, once this server has the leader's history.
    pub fn take_leader_foreign(&mut self) -> ForeignEnds {
        self.joining.take_leader_foreign()
    }

    /// All that the leader knows of others now, once, if it said so since.
    pub fn take_refused_by_leader(&mut self) -> Option<ForeignEnds> {
        self.joining.take_refused_by_leader()
    }

    /// Whether the leader compares histories before it joins them.
    pub fn leader_compares(&self) -> bool {
        self.joining.leader_compares()
    }

    /// The last transaction that the leader is known to have proposed.
    pub fn leaders_last(&self) -> Option<Zxid> {
        self.is_serving().then(|| self.last.max(self.pinged))
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
            | Phase::Persisting { .. }
            | Phase::Waiting => "synchronization",
        }
    }

    /// For operators.
    pub fn publish(&self) {
        Account::LogQueue.publish(self.inflow.unsynced_bytes());
        Account::Unapplied.publish(self.unapplied_bytes);
        Account::Uncommitted.publish(self.uncommitted.kept_bytes() + self.inflow.held_bytes());
        self.committed_log.publish(self.rules.memory);
    }

    /// The same where there is no learner any more.
    pub fn publish_none() {
        [Account::LogQueue, Account::Unapplied, Account::Uncommitted]
            .into_iter()
            .for_each(|account| account.publish(0));
    }

    /// Time passes.
    pub fn tick(&mut self) {
        if self.ended.is_some() || self.deadline_ms().is_none_or(|deadline| self.now_ms < deadline) {
            return;
        }
        if let Phase::Dialing { failed, .. } = self.phase {
            if self.dialing_ends_ms().is_none_or(|end_ms| self.now_ms < end_ms) {
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

    /// Whether the pipeline's state was forgotten, and the one that was to take its place did not come.
    pub fn is_hollow(&self) -> bool {
        self.hollow
    }

    /// Whether the leader's packets are to be read now. While not, this server has enough to do with those it has, and the
    /// leader's silence means nothing.
    pub fn wants_packets(&self) -> bool {
        !self.is_replacing()
            && !self.forgetting
            && !self.uncommitted.is_reading()
            && self.inflow.log_keeps_up()
            && self.unapplied_bytes < self.rules.memory.get(Account::Unapplied)
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
    pub fn take_uncommitted(&mut self) -> Uncommitted {
        let none = Uncommitted::new(self.rules.uncommitted_bytes_max);
        let uncommitted = mem::replace(&mut self.uncommitted, none);
        if self.log_skipped { Uncommitted::new(0) } else { uncommitted }
    }

    /// The last transaction that is committed and was given to the pipeline.
    pub fn committed(&self) -> Zxid {
        self.committed_log.last()
    }

    /// The same, and how it is known.
    pub fn committed_known(&self) -> (Zxid, Known) {
        (self.committed_log.last(), self.committed_log.last_known())
    }

    /// The committed window for the next role.
    pub fn committed_log(self) -> CommittedLog {
        self.committed_log
    }

    fn deadline_ms(&self) -> Option<i64> {
        let silent_ms = match self.phase {
            Phase::Dialing { again_ms, .. } => return again_ms.into_iter().chain(self.dialing_ends_ms()).min(),
            Phase::Replacing { .. } | Phase::Persisting { .. } => return None,
            Phase::Epoch | Phase::Mode | Phase::Stream { .. } | Phase::History => self.timing.init_ms,
            Phase::Waiting | Phase::Serving => self.timing.sync_ms,
        };
        self.wants_packets().then_some(self.heard_ms + silent_ms)
    }

    fn take_packet(&mut self, packet: Packet) -> Result<(), String> {
        if self.uncommitted.is_reading() {
            return self.inflow.hold(packet);
        }
        match self.phase {
            Phase::Dialing { .. } => Err("a packet came before the connection".into()),
            Phase::Epoch => self.on_epoch(packet),
            Phase::Mode => self.on_mode(packet),
            Phase::Stream { zxid } => Err(format!("a packet came in the middle of the snapshot as of {zxid}")),
            Phase::Replacing { .. } => self.inflow.hold(packet),
            Phase::History | Phase::Persisting { .. } | Phase::Waiting | Phase::Serving => self.on_history(packet),
        }
    }

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
        if self.joining.must_ask() {
            self.effects.push(Effect::Pipeline(ToPipeline::CatchUp));
        }
    }

    /// The role ends, and only a snapshot helps in the next one.
    fn end_for_snapshot(&mut self, why: String) {
        self.snapshot_needed = true;
        self.end(format!("{why}; a snapshot will be asked for"));
    }

    fn end(&mut self, why: impl Into<String>) {
        if self.ended.is_none() {
            self.flush();
            self.inflow.drop_held();
            self.ended = Some(why.into());
        }
    }
}

#[cfg(test)]
mod tests;
