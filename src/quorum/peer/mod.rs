//! One server of an ensemble, whole: it quiesces, looks for a leader, then leads, follows or observes until that ends, and
//! quiesces again (`QuorumPeer`). Holds what outlives a role: the epochs, the configuration, the window of committed
//! transactions, the election and its links. Pure; driven by `engine::quorum` and by the simulation.
//!
//! Quiescing is what makes a vote honest: everything that this server logged is applied and durable before it says how far
//! its history reaches.
//!
//! Here is what goes in and what can be seen; `roles` is what comes of it.

mod roles;

use std::collections::BTreeMap;
use std::mem;

use crate::admin::view::QuorumView;
use crate::config::voters::Configs;
use crate::ids::{LinkId, ServerId, Zxid};
use crate::mail::{LogRecord, ToQuorum};
use crate::memory::Account;
use crate::metrics;
use crate::quorum::committed_log::{Agreement, CommittedLog};
use crate::quorum::election::Election;
use crate::quorum::gossip::Gossip;
use crate::quorum::joint::{ForeignEnds, HistoryEnd, RecordMark};
use crate::quorum::leader::Leader;
use crate::quorum::learner::{Learner, Uncommitted};
use crate::quorum::links::Links;
use crate::quorum::notification::{Hello, Notification};
use crate::quorum::observer_master::ObserverMaster;
use crate::quorum::packet::Packet;
use crate::quorum::{Effect, Epochs, Foreigners, LinkPriority, LogPart, OnLink, PeerRules, PeerState, Vote, WrongJoin};
use crate::state::{JointVerdict, State};

/// What a server begins with.
#[derive(Debug)]
pub struct PeerStart {
    /// `myid`.
    pub my_id: ServerId,
    /// Who belongs to the ensemble.
    pub configs: Configs,
    /// What zoo.cfg says.
    pub rules: PeerRules,
    /// From the epoch files.
    pub epochs: Epochs,
    /// The last transaction recovered; all of it is applied and durable.
    pub last: Zxid,
    /// The last committed ones, up to `last`.
    pub recent: Vec<LogRecord>,
    /// The digest of the tree after it.
    pub tree: Option<u64>,
    /// The last transaction of the epochs before that of `last`, if the logs tell.
    pub earlier: Option<Zxid>,
    /// How transactions in front of the recent ones are known.
    pub marks: Vec<RecordMark>,
    /// An operator agreed to lose what the ensemble lacks of this server's history.
    pub gives_up: bool,
    /// What of the data cannot be read, or that nothing is where something should be: it must not be voted for.
    pub damage: Option<String>,
    /// What is left of a leader with another history that was followed: of that, too, it must not be voted for.
    pub wrong_join: Option<WrongJoin>,
    /// Histories that are known to be others.
    pub foreigners: Foreigners,
    /// What this server says first on a link of the election port.
    pub hello: Vec<u8>,
    /// `readonlymode.enabled`: how long to look before reads are served without a quorum.
    pub read_only_after_ms: Option<i64>,
    /// `observer.syncEnabled` and `syncEnabled`: an observer logs what it is told.
    pub observer_logs: bool,
}

/// What a server is doing.
#[derive(Debug)]
enum Activity {
    /// Waits for the pipeline to apply, and for the log to sync, all that was logged. What was not committed is given to
    /// it, piece by piece if it has to be read back.
    Quiescing { applied: Option<Zxid>, tree: Option<u64>, committed_log: CommittedLog, uncommitted: Uncommitted },
    /// Elects.
    Looking { last: Zxid, committed_log: CommittedLog, since_ms: i64, read_only: bool },
    /// Leads, or tries to.
    Leading(Box<Leader>),
    /// Follows or observes, or tries to.
    Learning(Box<Learner>),
    /// Told to stop.
    Stopped,
}

impl Activity {
    fn name(&self) -> &'static str {
        match self {
            Activity::Quiescing { .. } => "quiescing",
            Activity::Looking { .. } => "looking",
            Activity::Leading(_) => "leading",
            Activity::Learning(_) => "learning",
            Activity::Stopped => "stopped",
        }
    }

    /// The next that a server does.
    ///
    /// # Panics
    /// If that cannot follow: see [`super::transitions`].
    fn become_next(&mut self, next: Activity) {
        use Activity::{Leading, Learning, Looking, Quiescing, Stopped};
        let may = match (&*self, &next) {
            (Quiescing { .. }, Looking { .. }) | (Looking { .. }, Leading(_) | Learning(_)) => true,
            // Told so at any time.
            (_, Stopped) => true,
            _ => false,
        };
        assert!(may, "this server cannot go from {} to {}", self.name(), next.name());
        *self = next;
    }
}

/// A server's history before it followed a leader.
#[derive(Clone, Copy, Default, Debug)]
struct Before {
    /// currentEpoch.
    epoch: u32,
    /// The last transaction.
    last: Zxid,
    /// What was known to be agreed upon.
    agreement: Agreement,
}

impl Before {
    /// As the last process noted it.
    fn of(wrong: &WrongJoin) -> Before {
        Before { epoch: wrong.epoch, last: wrong.last, agreement: Agreement::up_to(wrong.agreed) }
    }
}

/// A leader that this server does not follow.
#[derive(Clone, Copy, Debug)]
struct Refused {
    /// Until then it is passed over; then it may have changed.
    shunned_until_ms: i64,
    /// For how long that is, each time longer.
    pause_ms: i64,
    /// The ensemble does without this server, which has no voice in it any more.
    abstains: bool,
}

/// The core. See the module.
#[derive(Debug)]
pub struct Peer {
    my_id: ServerId,
    configs: Configs,
    rules: PeerRules,
    epochs: Epochs,
    /// What makes this server abstain from elections, until a leader's history is durable here.
    damage: Option<String>,
    /// When the operator hears of it next.
    alarm_ms: i64,
    /// Leaders that this server does not follow, since that would lose what was acknowledged.
    refused: BTreeMap<ServerId, Refused>,
    /// Epochs with which a history ended that lacked what is in this server's, and until when it elects nobody with such
    /// a one.
    lacking: BTreeMap<u32, i64>,
    /// When the operator hears of that next.
    refusal_alarm_ms: i64,
    /// Since when a leader of an earlier epoch than this server's history is there.
    outdated: Option<(ServerId, i64)>,
    gives_up: bool,
    /// Where the histories of the others end, as they said last.
    heard: BTreeMap<ServerId, HistoryEnd>,
    /// Where histories of servers of Apache end that this one refused as a leader.
    refused_histories: ForeignEnds,
    /// What a start is told of that.
    foreigners: Foreigners,
    read_only_after_ms: Option<i64>,
    observer_logs: bool,
    election: Election,
    links: Links,
    gossip: Gossip,
    activity: Activity,
    /// Beside a follower's role, where observers are taken.
    observers: Option<ObserverMaster>,
    /// The vote that the present role came from.
    vote: Vote,
    /// The election has decided; the role is entered next.
    elected: Option<Vote>,
    /// The role's epoch is told in answers to those who look.
    vote_has_epoch: bool,
    now_ms: i64,
    /// The last transaction given to the log, and the last one that is durable.
    appended: Zxid,
    durable: Zxid,
    /// An answer of the disk is due whose question must not be forgotten: the log is being cut, a state being saved.
    truncating: bool,
    installing: bool,
    /// Since when no client is served.
    unavailable_since_ms: i64,
    /// Roles in a row that ended before they served: whatever is in the way, it is not tried without end and pause.
    futile: u32,
    /// An observer that lost its leader lets others go first.
    look_from_ms: i64,
    /// How often that was.
    losses: u64,
    /// The pipeline has forgotten its state, and was given no other.
    hollow: bool,
    /// It is being read again, from what is on disk.
    rereading: bool,
    /// The history here cannot be continued from the leader's: the next one is asked for everything.
    wants_snapshot: bool,
    /// Leading: when voters that do not follow are told of it next.
    seek_from_ms: i64,
    /// What a start is told of a leader of whose history nothing was known.
    wrong_join: Option<WrongJoin>,
    /// Leaders with other histories that only zxids joined to this server's, and how that was seen. From those it takes a
    /// snapshot and nothing else.
    strange: BTreeMap<ServerId, String>,
    /// This server's history when the present role began.
    entered: Before,
    /// The first joint of which nothing is known but its zxid, and this server's history before.
    joined: Option<(Zxid, Before)>,
    /// As an observer, this server logged nothing.
    unlogged: bool,
    /// Who leads next without an election.
    successor: Option<ServerId>,
    effects: Vec<Effect>,
}

/// The gauges of every role, of a server that has none.
fn publish_no_role() {
    Leader::publish_none();
    Learner::publish_none();
    metrics::OBSERVER_MASTER_ID.set(0);
}

impl Peer {
    /// A server that begins to look for a leader.
    pub fn new(start: PeerStart, now_ms: i64) -> Peer {
        let PeerStart { my_id, configs, rules, epochs, last, recent, wrong_join, hello, .. } = start;
        let damage = start.damage.or_else(|| wrong_join.and_then(|wrong| wrong.damage()));
        let joined = wrong_join.and_then(WrongJoin::unproven).map(|wrong| (wrong.joint, Before::of(&wrong)));
        let mut peer = Peer {
            my_id,
            configs,
            rules,
            epochs,
            damage,
            alarm_ms: now_ms,
            refused: BTreeMap::new(),
            lacking: BTreeMap::new(),
            refusal_alarm_ms: now_ms,
            outdated: None,
            gives_up: start.gives_up,
            heard: BTreeMap::new(),
            refused_histories: start.foreigners.iter().map(|(server, it)| (*server, it.ends.clone())).collect(),
            read_only_after_ms: start.read_only_after_ms,
            observer_logs: start.observer_logs,
            election: Election::new(my_id, rules.notification_interval_ms),
            links: Links::new(my_id, hello),
            gossip: Gossip::new(my_id),
            seek_from_ms: i64::MAX,
            activity: Activity::Quiescing {
                applied: Some(last),
                tree: None,
                committed_log: CommittedLog::new(last, Vec::new()),
                uncommitted: Uncommitted::new(0),
            },
            observers: None,
            vote: Vote { leader: my_id, zxid: last, epoch: i64::from(epochs.current) },
            elected: None,
            vote_has_epoch: false,
            now_ms,
            appended: last,
            durable: last,
            truncating: false,
            installing: false,
            unavailable_since_ms: now_ms,
            look_from_ms: now_ms,
            futile: 0,
            losses: 0,
            hollow: false,
            rereading: false,
            wants_snapshot: false,
            wrong_join,
            strange: start.foreigners.iter().filter_map(|(server, it)| Some((*server, it.strange.clone()?))).collect(),
            foreigners: start.foreigners,
            entered: Before::default(),
            joined,
            unlogged: false,
            successor: None,
            effects: Vec::new(),
        };
        let mut committed_log =
            CommittedLog::keeping(rules.history_max, rules.memory.get(Account::CommittedLog), last, recent);
        committed_log.know_last(start.tree);
        committed_log.know_epochs(start.earlier, start.marks);
        peer.look(last, committed_log);
        peer.pump();
        peer
    }

    /// Sets the time for the calls that follow, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        match &mut self.activity {
            Activity::Leading(leader) => leader.set_time(now_ms),
            Activity::Learning(learner) => learner.set_time(now_ms),
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => {}
        }
        if let Some(observers) = &mut self.observers {
            observers.set_time(now_ms);
        }
    }

    /// When [`Peer::tick`] has something to do, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        let role = match &self.activity {
            Activity::Leading(leader) if leader.is_serving() => leader.next_deadline_ms().min(self.seek_from_ms),
            Activity::Leading(leader) => leader.next_deadline_ms(),
            Activity::Learning(learner) => learner.next_deadline_ms(),
            Activity::Looking { since_ms, read_only, .. } => {
                let alarm_ms = if self.may_call_operator() { self.alarm_ms } else { i64::MAX };
                let again_ms = match self.damage.is_some() || !self.strange.is_empty() || !self.refused.is_empty() {
                    true => self.shunned_until_ms(),
                    false => self.read_only_after_ms.filter(|_| !read_only).map_or(i64::MAX, |after| since_ms + after),
                };
                alarm_ms.min(again_ms)
            }
            Activity::Quiescing { applied: Some(_), .. } if self.is_durable() => self.look_from_ms,
            Activity::Quiescing { .. } | Activity::Stopped => i64::MAX,
        };
        // With a role, a message for a server that is gone may wait for ever.
        let links = if let Activity::Looking { .. } = self.activity { self.links.next_deadline_ms() } else { i64::MAX };
        let observers = self.observers.as_ref().map_or(i64::MAX, ObserverMaster::next_deadline_ms);
        role.min(self.election.next_deadline_ms()).min(links).min(observers)
    }

    /// What is due by time alone.
    pub fn tick(&mut self) {
        match &mut self.activity {
            Activity::Leading(leader) => leader.tick(),
            Activity::Learning(learner) => learner.tick(),
            Activity::Looking { .. } => self.look_on(),
            Activity::Quiescing { .. } | Activity::Stopped => {}
        }
        if let Some(observers) = &mut self.observers {
            observers.tick();
        }
        self.election.tick(self.now_ms);
        self.seek_voters();
        if let Activity::Looking { .. } = self.activity {
            self.links.tick(self.now_ms);
        }
        self.pump();
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        match &self.activity {
            Activity::Leading(leader) => leader.invariants(),
            Activity::Learning(learner) => learner.invariants(),
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => {}
        }
        mem::take(&mut self.effects)
    }

    /// What this server is activity, for those who show it.
    pub fn state(&self) -> PeerState {
        match &self.activity {
            Activity::Leading(_) => PeerState::Leading,
            Activity::Learning(_) if self.is_observer() => PeerState::Observing,
            Activity::Learning(_) => PeerState::Following,
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => PeerState::Looking,
        }
    }

    /// The leader's role, while this server has it.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.activity {
            Activity::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    /// The epochs as they are on disk.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// What operators may see. `on_link` tells of a connection what the shell knows.
    pub fn view(&self, on_link: &OnLink<'_>) -> QuorumView {
        let (stage, leader, learners) = match &self.activity {
            Activity::Leading(leader) => (leader.stage_text(), Some(self.my_id), leader.learner_views(on_link)),
            Activity::Learning(learner) => {
                let observers = self.observers.as_ref().map_or_else(Vec::new, |master| master.learner_views(on_link));
                (learner.stage_text(), Some(self.vote.leader), observers)
            }
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => ("election", None, Vec::new()),
        };
        let leads = matches!(self.activity, Activity::Leading(_));
        let leaders_last = match &self.activity {
            Activity::Learning(learner) => learner.leaders_last(),
            _ => None,
        };
        QuorumView { my_id: self.my_id, stage, leads, leader, leaders_last, learners }
    }

    /// Brings the gauges of the ensemble up to date.
    pub fn publish(&self) {
        metrics::QUORUM_SIZE.set(self.configs.committed.participants().count() as i64);
        match &self.activity {
            Activity::Leading(leader) => leader.publish(),
            Activity::Learning(learner) => {
                learner.publish();
                metrics::OBSERVER_MASTER_ID.set(learner.master().0);
                self.observers.iter().for_each(ObserverMaster::publish);
            }
            // Between two roles: nothing is left of the one before but what the next one begins with.
            Activity::Quiescing { committed_log, uncommitted, .. } => {
                publish_no_role();
                committed_log.publish(self.rules.memory);
                Account::Uncommitted.publish(uncommitted.kept_bytes());
            }
            Activity::Looking { committed_log, .. } => {
                publish_no_role();
                committed_log.publish(self.rules.memory);
            }
            Activity::Stopped => publish_no_role(),
        }
    }

    /// Whether this server serves clients in a role.
    pub fn is_serving(&self) -> bool {
        match &self.activity {
            Activity::Leading(leader) => leader.is_serving(),
            Activity::Learning(learner) => learner.is_serving(),
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => false,
        }
    }

    // The election port.

    /// A server that connected said who it is.
    pub fn on_election_hello(&mut self, link: LinkId, hello: &Hello) {
        self.links.on_hello(link, hello, self.now_ms);
        self.pump();
    }

    /// [`Effect::DialElection`] succeeded.
    pub fn on_election_dialed(&mut self, link: LinkId, server: ServerId) {
        self.links.on_dialed(link, server);
        self.pump();
    }

    /// [`Effect::DialElection`] failed.
    pub fn on_election_undialed(&mut self, server: ServerId) {
        self.links.on_undialed(server, self.now_ms);
        self.pump();
    }

    /// The kernel has all that was sent on the link.
    pub fn on_election_flushed(&mut self, link: LinkId) {
        self.links.on_flushed(link);
        self.pump();
    }

    /// The link is closed from the other side, or broken.
    pub fn on_election_closed(&mut self, link: LinkId) {
        self.links.on_closed(link);
        self.pump();
    }

    /// A notification came.
    pub fn on_notification(&mut self, link: LinkId, notification: &Notification) {
        if let Some(from) = self.links.server_of(link) {
            if let Activity::Looking { .. } | Activity::Quiescing { .. } = self.activity {
                self.gossip.hear(from, notification.config.as_deref(), &self.configs);
            }
            self.note_history(from, notification);
            self.election.on_notification(from, notification, self.now_ms);
            if let Activity::Leading(leader) = &mut self.activity
                && notification.state == PeerState::Looking
                && self.election.electors().contains(&from)
            {
                leader.on_voter_looks(from);
                if self.election.looks_again(notification) {
                    leader.on_voter_lost(from);
                }
            }
        }
        self.pump();
    }

    // The quorum port.

    /// A learner connected.
    pub fn on_learner_connected(&mut self, link: LinkId) {
        if let Activity::Leading(leader) = &mut self.activity {
            leader.on_learner_connected(link);
        } else if let Some(observers) = &mut self.observers {
            observers.on_connected(link);
        } else {
            // The role in which it was let in has ended meanwhile.
            self.effects.push(Effect::Close { link, why: "this server takes no learners".to_owned() });
        }
        self.pump();
    }

    /// [`Effect::DialLeader`] succeeded.
    pub fn on_leader_connected(&mut self, link: LinkId) {
        if let Activity::Learning(learner) = &mut self.activity {
            learner.on_leader_connected(link);
        }
        self.pump();
    }

    /// [`Effect::DialLeader`] failed; where and why, for the log.
    pub fn on_leader_unreachable(&mut self, why: &str) {
        if let Activity::Learning(learner) = &mut self.activity {
            learner.on_leader_unreachable(why);
        }
        self.pump();
    }

    /// Packets of one link, in order.
    pub fn on_packets(&mut self, link: LinkId, packets: impl IntoIterator<Item = Packet>) {
        let observers = self.observers.as_mut().filter(|observers| observers.has(link));
        if let Some(observers) = observers {
            packets.into_iter().for_each(|packet| observers.on_packet(link, packet));
            return self.pump();
        }
        for packet in packets {
            match &mut self.activity {
                Activity::Leading(leader) => leader.on_packet(link, packet),
                Activity::Learning(learner) if learner.is_link(link) => learner.on_packet(packet),
                _ => break,
            }
        }
        self.pump();
    }

    /// Whether the leader's packets are to be read now: while this server has enough to do, they wait at the leader.
    pub fn wants_packets(&self) -> bool {
        match &self.activity {
            Activity::Learning(learner) => learner.wants_packets(),
            _ => true,
        }
    }

    /// Bytes came on a link, a whole packet or not: its other side is alive.
    pub fn on_heard(&mut self, link: LinkId) {
        match (&mut self.activity, &mut self.observers) {
            (Activity::Leading(leader), _) => leader.on_heard(link),
            (Activity::Learning(_), Some(observers)) if observers.has(link) => observers.on_heard(link),
            (Activity::Learning(learner), _) => learner.on_heard(link),
            (Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped, _) => {}
        }
    }

    /// The state that followed a SNAP.
    pub fn on_snapshot(&mut self, state: Box<State>) {
        if let Activity::Learning(learner) = &mut self.activity {
            learner.on_snapshot(state);
        }
        self.pump();
    }

    /// The kernel took a piece of a snapshot stream.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        if let Activity::Leading(leader) = &mut self.activity {
            leader.on_snapshot_sent(link);
        } else if let Some(observers) = &mut self.observers {
            observers.on_snapshot_sent(link);
        }
        self.pump();
    }

    /// The link is closed from the other side, or broken.
    pub fn on_link_closed(&mut self, link: LinkId) {
        match &mut self.activity {
            Activity::Leading(leader) => leader.on_link_closed(link),
            Activity::Learning(_) if self.observers.as_ref().is_some_and(|observers| observers.has(link)) => {
                self.observers.iter_mut().for_each(|observers| observers.on_link_closed(link));
            }
            Activity::Learning(learner) if learner.is_link(link) => learner.on_link_closed(),
            _ => {}
        }
        self.pump();
    }

    /// Whether a server is in the list in force, or in the one that may follow.
    pub fn is_member(&self, server: ServerId) -> bool {
        self.configs.is_member(server)
    }

    /// How much a link of the quorum port matters.
    pub fn priority(&self, link: LinkId) -> LinkPriority {
        match (&self.activity, &self.observers) {
            (Activity::Leading(leader), _) => leader.priority(link),
            (_, Some(observers)) if observers.has(link) => observers.priority(link),
            _ => LinkPriority::Voter,
        }
    }

    // The disk, and the other threads.

    /// The answer to [`Effect::ReadLog`].
    pub fn on_log_read(&mut self, link: LinkId, part: LogPart) {
        if let Activity::Leading(leader) = &mut self.activity {
            leader.on_log_read(link, part);
        } else if let Some(observers) = &mut self.observers {
            observers.on_log_read(link, part);
        }
        self.pump();
    }

    /// The answer to [`Effect::ReadBack`].
    pub fn on_read_back(&mut self, records: Vec<LogRecord>) {
        match &mut self.activity {
            Activity::Learning(learner) => learner.on_read_back(records),
            Activity::Quiescing { uncommitted, .. } => {
                uncommitted.on_read_back(records);
                self.deliver_uncommitted();
            }
            Activity::Leading(_) | Activity::Looking { .. } | Activity::Stopped => {}
        }
        self.pump();
    }

    /// The answer to [`Effect::Truncate`]: the last transaction that is left and applied, or why it could not be.
    pub fn on_truncated(&mut self, result: Result<Zxid, String>) {
        self.truncating = false;
        self.end_taking_back(result.is_ok());
        if mem::take(&mut self.rereading)
            && let Err(why) = &result
        {
            // Whoever leads now has to send it everything, and it must not lead.
            self.damage.get_or_insert_with(|| format!("its history cannot be read again: {why}"));
            self.wants_snapshot = true;
        }
        if let Ok(last) = result {
            self.hollow = false;
            (self.appended, self.durable) = (last, last);
        }
        match &mut self.activity {
            Activity::Learning(learner) => learner.on_truncated(result),
            Activity::Quiescing { applied, tree, .. } => {
                // Whatever was applied before, this is what is left.
                if let (Some(applied), Ok(last)) = (applied.as_mut(), result) {
                    (*applied, *tree) = (last, None);
                }
            }
            Activity::Leading(_) | Activity::Looking { .. } | Activity::Stopped => {}
        }
        self.pump();
    }

    /// What another thread of this server says.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        match &mail {
            ToQuorum::Proposed(records) => {
                if let Some(last) = records.last() {
                    self.appended = last.zxid;
                }
            }
            ToQuorum::Durable { zxid, .. } => self.durable = *zxid,
            ToQuorum::Installed { zxid } => {
                self.installing = false;
                self.hollow = false;
                self.forget_joint();
                self.wants_snapshot = false;
                self.unlogged = false;
                if let Activity::Quiescing { applied: Some(applied), tree, .. } = &mut self.activity {
                    // Whatever was applied before, this is what is there.
                    (*applied, *tree) = (*zxid, None);
                }
                (self.appended, self.durable) = (*zxid, *zxid);
            }
            ToQuorum::Quiesced { zxid, tree } => {
                if let Activity::Quiescing { applied, tree: digest, uncommitted, .. } = &mut self.activity {
                    // An earlier answer, from before the last transactions were delivered, is not the one.
                    if *zxid >= self.appended {
                        *applied = Some(*zxid);
                        *digest = *tree;
                    } else if let Some((from, to)) = uncommitted.read_back() {
                        self.effects.push(Effect::ReadBack { from, to });
                    }
                }
            }
            ToQuorum::Joint(JointVerdict::Right | JointVerdict::Open) => self.forget_joint(),
            ToQuorum::Joint(JointVerdict::Wrong(wrong)) => self.on_wrong_joint(*wrong),
            ToQuorum::Stop => return self.stop(),
            _ => {}
        }
        match (&mut self.activity, &mut self.observers) {
            (_, Some(observers)) if matches!(mail, ToQuorum::Snapshot { .. }) => observers.on_inner(mail),
            (Activity::Leading(leader), _) => leader.on_inner(mail),
            (Activity::Learning(learner), _) => learner.on_inner(mail),
            (Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped, _) => {}
        }
        self.pump();
    }

    fn stop(&mut self) {
        self.effects.push(Effect::LeaveRole { why: "this server stops".to_owned() });
        self.observers = None;
        if let Activity::Leading(leader) = &mut self.activity {
            self.refused_histories = leader.take_refused_histories();
        }
        self.activity.become_next(Activity::Stopped);
    }

    /// Whether this server has no voice in elections: it does not know its own history, or the ensemble has another.
    fn abstains(&self) -> bool {
        self.damage.is_some() || self.refused.values().any(|refused| refused.abstains)
    }

    fn shunned_until_ms(&self) -> i64 {
        let leaders = self.refused.values().map(|refused| refused.shunned_until_ms);
        leaders.chain(self.lacking.values().copied()).min().unwrap_or(i64::MAX)
    }

    fn is_observer(&self) -> bool {
        self.configs.committed.is_observer(self.my_id)
    }

    /// Whether the disk has all that it was given.
    fn is_durable(&self) -> bool {
        !self.truncating && !self.installing && self.durable >= self.appended
    }
}
