//! One server of an ensemble, whole: it settles, looks for a leader, then leads, follows or observes until that ends, and
//! settles again (`QuorumPeer`). Holds what outlives a role: the epochs, the configuration, the window of committed
//! transactions, the election and its links. Pure; driven by `threads::quorum` and by the simulation.
//!
//! Settling is what makes a vote honest: everything that this server logged is applied and durable before it says how far
//! its history reaches.

use std::mem;

use super::election::Election;
use super::history::History;
use super::leader::Leader;
use super::learner::Learner;
use super::links::Links;
use super::notification::{Hello, Notification};
use super::observer_master::{ObserverMaster, Output};
use super::packet::Packet;
use super::voters::Configs;
use super::{Effect, Epochs, LinkId, OnLink, PeerRules, PeerState, Standing, Vote};
use crate::admin::view::QuorumView;
use crate::config::ensemble::PeerAddress;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Role, ToPipeline, ToQuorum};
use crate::metrics;
use crate::state::State;

/// Roles in a row that end before they serve and are tried again at once: more than a handful is no bad luck.
const FUTILE_MAX: u32 = 5;

/// Pause before the next one.
const FUTILE_PAUSE_MS: i64 = 200;

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
    /// The data is not known to be complete (nothing was found where something should be): it must not be voted for.
    pub distrusted: bool,
    /// What this server says first on a link of the election port.
    pub hello: Vec<u8>,
    /// `readonlymode.enabled`: how long to look before reads are served without a quorum.
    pub read_only_after_ms: Option<i64>,
    /// `observer.syncEnabled` and `syncEnabled`: an observer logs what it is told.
    pub observer_logs: bool,
}

/// What a server is doing.
#[derive(Debug)]
enum Doing {
    /// Waits for the pipeline to apply, and for the log to sync, all that was logged.
    Settling { applied: Option<Zxid>, history: History },
    /// Elects.
    Looking { last: Zxid, history: History, since_ms: i64, read_only: bool },
    /// Leads, or tries to.
    Leading(Box<Leader>),
    /// Follows or observes, or tries to.
    Learning(Box<Learner>),
    /// Told to stop.
    Stopped,
}

/// The core. See the module.
#[derive(Debug)]
pub struct Peer {
    my_id: ServerId,
    configs: Configs,
    rules: PeerRules,
    epochs: Epochs,
    distrusted: bool,
    read_only_after_ms: Option<i64>,
    observer_logs: bool,
    election: Election,
    links: Links,
    doing: Doing,
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
    /// The history here cannot be continued from the leader's: the next one is asked for everything.
    wants_snapshot: bool,
    /// As an observer, this server logged nothing.
    unlogged: bool,
    /// Who leads next without an election.
    successor: Option<ServerId>,
    effects: Vec<Effect>,
}

impl Peer {
    /// A server that begins to look for a leader.
    pub fn new(start: PeerStart, now_ms: i64) -> Peer {
        let PeerStart { my_id, configs, rules, epochs, last, recent, distrusted, hello, .. } = start;
        let mut peer = Peer {
            my_id,
            configs,
            rules,
            epochs,
            distrusted,
            read_only_after_ms: start.read_only_after_ms,
            observer_logs: start.observer_logs,
            election: Election::with_intervals(my_id, rules.notice_ms.0, rules.notice_ms.1),
            links: Links::new(my_id, hello),
            doing: Doing::Stopped,
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
            wants_snapshot: false,
            unlogged: false,
            successor: None,
            effects: Vec::new(),
        };
        peer.look(last, History::keeping(rules.history_max, last, recent));
        peer.pump();
        peer
    }

    /// Sets the time for the calls that follow, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        match &mut self.doing {
            Doing::Leading(leader) => leader.set_time(now_ms),
            Doing::Learning(learner) => learner.set_time(now_ms),
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => {}
        }
        if let Some(observers) = &mut self.observers {
            observers.set_time(now_ms);
        }
    }

    /// When [`Peer::tick`] has something to do, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        let role = match &self.doing {
            Doing::Leading(leader) => leader.next_deadline_ms(),
            Doing::Learning(learner) => learner.next_deadline_ms(),
            Doing::Looking { since_ms, read_only: false, .. } => {
                self.read_only_after_ms.map_or(i64::MAX, |after_ms| since_ms + after_ms)
            }
            Doing::Settling { applied: Some(_), .. } if self.is_durable() => self.look_from_ms,
            Doing::Looking { .. } | Doing::Settling { .. } | Doing::Stopped => i64::MAX,
        };
        // With a role, a message for a server that is gone may wait for ever.
        let links = if let Doing::Looking { .. } = self.doing { self.links.next_deadline_ms() } else { i64::MAX };
        let observers = self.observers.as_ref().map_or(i64::MAX, ObserverMaster::next_deadline_ms);
        role.min(self.election.next_deadline_ms()).min(links).min(observers)
    }

    /// What is due by time alone.
    pub fn tick(&mut self) {
        match &mut self.doing {
            Doing::Leading(leader) => leader.tick(),
            Doing::Learning(learner) => learner.tick(),
            Doing::Looking { .. } => self.serve_reads_meanwhile(),
            Doing::Settling { .. } | Doing::Stopped => {}
        }
        if let Some(observers) = &mut self.observers {
            observers.tick();
        }
        self.election.tick(self.now_ms);
        if let Doing::Looking { .. } = self.doing {
            self.links.tick(self.now_ms);
        }
        self.pump();
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// What this server is doing, for those who show it.
    pub fn state(&self) -> PeerState {
        match &self.doing {
            Doing::Leading(_) => PeerState::Leading,
            Doing::Learning(_) if self.is_observer() => PeerState::Observing,
            Doing::Learning(_) => PeerState::Following,
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => PeerState::Looking,
        }
    }

    /// The leader's role, while this server has it.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.doing {
            Doing::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    /// The epochs as they are on disk.
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// What operators may see. `on_link` tells of a connection what the shell knows.
    pub fn view(&self, on_link: &OnLink<'_>) -> QuorumView {
        let (stage, leader, learners) = match &self.doing {
            Doing::Leading(leader) => (leader.stage_text(), Some(self.my_id), leader.learner_views(on_link)),
            Doing::Learning(learner) => {
                let observers = self.observers.as_ref().map_or_else(Vec::new, |master| master.learner_views(on_link));
                (learner.stage_text(), Some(self.vote.leader), observers)
            }
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => ("election", None, Vec::new()),
        };
        let leads = matches!(self.doing, Doing::Leading(_));
        QuorumView { my_id: self.my_id, stage, leads, leader, learners }
    }

    /// Brings the gauges of the ensemble up to date.
    pub fn publish(&self) {
        metrics::QUORUM_SIZE.set(self.configs.committed.participants().count() as i64);
        match &self.doing {
            Doing::Leading(leader) => leader.publish(),
            Doing::Learning(learner) => {
                metrics::OBSERVER_MASTER_ID.set(learner.master().0);
                self.observers.iter().for_each(ObserverMaster::publish);
            }
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => {}
        }
    }

    /// Whether this server serves clients in a role.
    pub fn is_serving(&self) -> bool {
        match &self.doing {
            Doing::Leading(leader) => leader.is_serving(),
            Doing::Learning(learner) => learner.is_serving(),
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => false,
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
            self.election.on_notification(from, notification, self.now_ms);
            if let Doing::Leading(leader) = &mut self.doing
                && notification.state == PeerState::Looking
                && self.election.electors().contains(&from)
            {
                leader.on_voter_lost(from);
            }
        }
        self.pump();
    }

    // The quorum port.

    /// A learner connected.
    pub fn on_learner_connected(&mut self, link: LinkId) {
        if let Doing::Leading(leader) = &mut self.doing {
            leader.on_learner_connected(link);
        } else if let Some(observers) = &mut self.observers {
            observers.on_connected(link);
        }
        self.pump();
    }

    /// [`Effect::DialLeader`] succeeded.
    pub fn on_leader_connected(&mut self, link: LinkId) {
        if let Doing::Learning(learner) = &mut self.doing {
            learner.on_leader_connected(link);
        }
        self.pump();
    }

    /// [`Effect::DialLeader`] failed; where and why, for the log.
    pub fn on_leader_unreachable(&mut self, why: &str) {
        if let Doing::Learning(learner) = &mut self.doing {
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
            match &mut self.doing {
                Doing::Leading(leader) => leader.on_packet(link, packet),
                Doing::Learning(learner) => learner.on_packet(packet),
                Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => break,
            }
        }
        self.pump();
    }

    /// Whether the leader's packets are to be read now: while this server has enough to do, they wait at the leader.
    pub fn wants_packets(&self) -> bool {
        match &self.doing {
            Doing::Learning(learner) => learner.wants_packets(),
            _ => true,
        }
    }

    /// Bytes of the leader came that are no whole packet yet.
    pub fn on_leader_heard(&mut self) {
        if let Doing::Learning(learner) = &mut self.doing {
            learner.on_heard();
        }
    }

    /// The state that followed a SNAP.
    pub fn on_snapshot(&mut self, state: Box<State>) {
        if let Doing::Learning(learner) = &mut self.doing {
            learner.on_snapshot(state);
        }
        self.pump();
    }

    /// The kernel took a piece of a snapshot stream.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        if let Doing::Leading(leader) = &mut self.doing {
            leader.on_snapshot_sent(link);
        } else if let Some(observers) = &mut self.observers {
            observers.on_snapshot_sent(link);
        }
        self.pump();
    }

    /// The link is closed from the other side, or broken.
    pub fn on_link_closed(&mut self, link: LinkId) {
        match &mut self.doing {
            Doing::Leading(leader) => leader.on_link_closed(link),
            Doing::Learning(_) if self.observers.as_ref().is_some_and(|observers| observers.has(link)) => {
                self.observers.iter_mut().for_each(|observers| observers.on_link_closed(link));
            }
            Doing::Learning(learner) => learner.on_link_closed(),
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => {}
        }
        self.pump();
    }

    /// How much a link of the quorum port matters.
    pub fn standing(&self, link: LinkId) -> Standing {
        match (&self.doing, &self.observers) {
            (Doing::Leading(leader), _) => leader.standing(link),
            (_, Some(observers)) if observers.has(link) => observers.standing(link),
            _ => Standing::Voter,
        }
    }

    // The disk, and the other threads.

    /// The answer to [`Effect::ReadLog`].
    pub fn on_log_read(&mut self, link: LinkId, records: Option<Vec<LogRecord>>) {
        if let Doing::Leading(leader) = &mut self.doing {
            leader.on_log_read(link, records);
        } else if let Some(observers) = &mut self.observers {
            observers.on_log_read(link, records);
        }
        self.pump();
    }

    /// The answer to [`Effect::Truncate`]: the last transaction that is left and applied, or why it could not be.
    pub fn on_truncated(&mut self, result: Result<Zxid, String>) {
        self.truncating = false;
        if let Ok(last) = result {
            (self.appended, self.durable) = (last, last);
        }
        match &mut self.doing {
            Doing::Learning(learner) => learner.on_truncated(result),
            Doing::Settling { applied, .. } => {
                // Whatever was applied before, this is what is left.
                if let (Some(applied), Ok(last)) = (applied.as_mut(), result) {
                    *applied = last;
                }
            }
            Doing::Leading(_) | Doing::Looking { .. } | Doing::Stopped => {}
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
            ToQuorum::Durable { zxid } => self.durable = *zxid,
            ToQuorum::Installed { zxid } => {
                self.installing = false;
                self.wants_snapshot = false;
                self.unlogged = false;
                if let Doing::Settling { applied: Some(applied), .. } = &mut self.doing {
                    // Whatever was applied before, this is what is there.
                    *applied = *zxid;
                }
                (self.appended, self.durable) = (*zxid, *zxid);
            }
            ToQuorum::Settled { zxid } => {
                // An earlier answer, from before the last transactions were delivered, is not the one.
                if let Doing::Settling { applied, .. } = &mut self.doing
                    && *zxid >= self.appended
                {
                    *applied = Some(*zxid);
                }
            }
            ToQuorum::Stop => return self.stop(),
            _ => {}
        }
        match (&mut self.doing, &mut self.observers) {
            (_, Some(observers)) if matches!(mail, ToQuorum::Snapshot { .. }) => observers.on_inner(mail),
            (Doing::Leading(leader), _) => leader.on_inner(mail),
            (Doing::Learning(learner), _) => learner.on_inner(mail),
            (Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped, _) => {}
        }
        self.pump();
    }

    fn stop(&mut self) {
        self.effects.push(Effect::LeaveRole { why: "this server stops".to_owned() });
        self.observers = None;
        self.doing = Doing::Stopped;
    }

    // Moving on.

    fn is_observer(&self) -> bool {
        self.configs.committed.is_observer(self.my_id)
    }

    /// Carries every consequence through until nothing is left to decide.
    fn pump(&mut self) {
        loop {
            let effects = match &mut self.doing {
                Doing::Leading(leader) => leader.take_effects(),
                Doing::Learning(learner) => learner.take_effects(),
                Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => Vec::new(),
            };
            effects.into_iter().for_each(|effect| self.pass_on(effect));
            self.pump_observers();
            self.pump_election();
            if !(self.leave_ended_role() || self.finish_settling() || self.enter_role()) {
                return;
            }
        }
    }

    /// A follower that serves takes observers, if it is told to; what passes between them and the leader.
    fn pump_observers(&mut self) {
        let Doing::Learning(learner) = &mut self.doing else { return };
        if !learner.is_serving() {
            return;
        }
        if self.observers.is_none() && self.configs.is_voter(self.my_id) && self.rules.observer_master_port.is_some() {
            learner.begin_to_relay();
            let (epochs, committed) = (learner.epochs(), learner.committed());
            let configs = self.configs.clone();
            let observers = ObserverMaster::new(self.my_id, configs, self.rules, epochs, committed, self.now_ms);
            self.observers = Some(observers);
        }
        let Some(observers) = &mut self.observers else { return };
        learner.take_relays().into_iter().for_each(|relay| observers.on_relay(relay));
        for output in observers.take() {
            match output {
                Output::Effect(effect) => self.effects.push(effect),
                Output::Upstream(link, packet) => {
                    learner.on_observer_packet(link, packet);
                    self.effects.append(&mut learner.take_effects());
                }
            }
        }
    }

    /// Notes what a role's effect means beyond the role.
    fn pass_on(&mut self, effect: Effect) {
        match &effect {
            Effect::SetAcceptedEpoch(epoch) => self.epochs.accepted = *epoch,
            Effect::SetCurrentEpoch(epoch) => {
                self.epochs.current = *epoch;
                // Whoever holds the history of an epoch's leader can be trusted with it.
                self.distrusted = false;
                self.wants_snapshot = false;
            }
            Effect::Log(records) => {
                if let Some(last) = records.last() {
                    self.appended = last.zxid;
                }
            }
            Effect::Truncate { .. } => self.truncating = true,
            Effect::Install(_) => self.installing = true,
            Effect::SaveConfigs(configs) => {
                self.set_configs((**configs).clone());
                self.election.set_configs(&self.configs);
            }
            _ => {}
        }
        self.effects.push(effect);
    }

    fn set_configs(&mut self, configs: Configs) {
        let before = mem::replace(&mut self.configs, configs);
        let own = self.configs.committed.addresses(self.my_id);
        if !own.is_empty() && own != before.committed.addresses(self.my_id) {
            let own: Vec<(String, u16)> = own.iter().map(|a| (a.host.clone(), a.election_port)).collect();
            self.links.set_hello(Hello::encode(self.my_id, &own, own.len() > 1));
        }
    }

    fn pump_election(&mut self) {
        if self.is_serving() && !mem::replace(&mut self.vote_has_epoch, true) {
            let unavailable_ms = self.now_ms - self.unavailable_since_ms;
            metrics::UNAVAILABLE_TIME.record(unavailable_ms);
            self.log_service(unavailable_ms);
            if self.state() == PeerState::Leading {
                metrics::LEADER_UNAVAILABLE_TIME.record(unavailable_ms);
            }
            self.vote.epoch = i64::from(self.epochs.current);
            self.election.settle(self.state(), self.vote);
        }
        self.election.set_linked(self.links.linked(), self.now_ms);
        let output = self.election.take();
        if output.connect_all {
            for server in self.peers() {
                let addresses = self.addresses(server);
                self.links.connect(server, &addresses, self.now_ms);
            }
        }
        for (to, notification) in output.sends {
            let mut frame = Vec::new();
            notification.encode(&mut frame);
            let addresses = self.addresses(to);
            self.links.send(to, frame, &addresses, self.now_ms);
        }
        if let Some((from, members)) = output.newer_config {
            let mut configs = self.configs.clone();
            if configs.activate(members) {
                self.set_configs(configs);
                return self.look_again(from);
            }
        }
        if let Some(vote) = output.elected {
            self.vote = vote;
            self.vote_has_epoch = false;
            self.elected = Some(vote);
        }
        self.effects.append(&mut self.links.take_effects());
    }

    /// For those who look after the server.
    fn log_service(&self, unavailable_ms: i64) {
        let epoch = self.epochs.current;
        let what = match &self.doing {
            Doing::Leading(leader) => {
                let with: Vec<String> = leader.synced().map(|server| server.0.to_string()).collect();
                format!("leading in epoch {epoch:#x}, with servers {}", with.join(", "))
            }
            Doing::Learning(learner) => {
                let what = if self.is_observer() { "observing" } else { "following" };
                format!("{what} server {} in epoch {epoch:#x}", learner.master().0)
            }
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => return,
        };
        log::info!("{what}: clients are served, after {unavailable_ms} ms without");
    }

    /// Everybody else who votes.
    fn peers(&self) -> Vec<ServerId> {
        self.configs.voters().into_iter().filter(|&server| server != self.my_id).collect()
    }

    /// Where a server listens by the newest configuration that knows it; nowhere, if it is a stranger.
    fn addresses(&self, server: ServerId) -> Vec<PeerAddress> {
        let known = [self.configs.newest(), &self.configs.committed].map(|members| members.addresses(server));
        known.into_iter().find(|addresses| !addresses.is_empty()).unwrap_or_default().to_vec()
    }

    /// The role is over: everybody is let go, and what was logged is applied before anything else.
    fn leave_ended_role(&mut self) -> bool {
        let why = match &self.doing {
            Doing::Leading(leader) => leader.ended(),
            Doing::Learning(learner) => learner.ended(),
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => None,
        };
        let Some(why) = why.map(str::to_owned) else { return false };
        if self.vote_has_epoch {
            self.unavailable_since_ms = self.now_ms;
        }
        self.effects.push(Effect::LeaveRole { why });
        self.observers = None;
        self.futile = if self.vote_has_epoch { 0 } else { self.futile + 1 };
        let (undelivered, history) = match mem::replace(&mut self.doing, Doing::Stopped) {
            Doing::Leading(leader) => {
                self.successor = leader.successor();
                (Vec::new(), leader.history())
            }
            Doing::Learning(mut learner) => {
                self.wants_snapshot |= learner.needs_snapshot();
                self.successor = learner.successor();
                (learner.undelivered(), learner.history())
            }
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => return false,
        };
        // The clients first: nobody may be answered by what is not known to be committed.
        self.leave_clients();
        if !undelivered.is_empty() {
            self.effects.push(Effect::Pipeline(ToPipeline::Deliver { txns: undelivered }));
        }
        self.election.leave();
        self.doing = Doing::Settling { applied: None, history };
        if self.futile > FUTILE_MAX {
            self.look_from_ms = self.now_ms + FUTILE_PAUSE_MS;
        }
        if self.is_observer() && self.successor.is_none() {
            self.look_from_ms = self.now_ms.saturating_add(self.pause_ms());
        }
        true
    }

    /// How long an observer waits before it looks: different on each of them and each time.
    fn pause_ms(&mut self) -> i64 {
        self.losses += 1;
        let mut seed = self.my_id.0.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.losses;
        let up_to = |max_ms: i64| {
            // The finish of splitmix64: every bit of the seed moves every bit of the result.
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % max_ms.cast_unsigned().max(1)).cast_signed()
        };
        self.rules.observer_pauses_ms.map(up_to).into_iter().fold(0, i64::saturating_add)
    }

    fn leave_clients(&mut self) {
        self.effects.push(Effect::Pipeline(ToPipeline::Role(Role::Looking)));
    }

    /// Whether the disk has all that it was given.
    fn is_durable(&self) -> bool {
        !self.truncating && !self.installing && self.durable >= self.appended
    }

    /// Once everything logged is applied and durable, the search begins.
    fn finish_settling(&mut self) -> bool {
        let is_durable = self.is_durable();
        let Doing::Settling { applied: Some(last), history } = &mut self.doing else { return false };
        if !is_durable || self.now_ms < self.look_from_ms {
            return false;
        }
        let last = *last;
        let mut history = mem::replace(history, History::new(last, Vec::new()));
        if history.last() != last {
            history.reset(last);
        }
        (self.appended, self.durable) = (last, last);
        match self.successor.take().filter(|_| !self.distrusted) {
            Some(leader) => self.follow_appointed(leader, last, history),
            None => self.look(last, history),
        }
        true
    }

    /// The leader before said who leads now.
    fn follow_appointed(&mut self, leader: ServerId, last: Zxid, history: History) {
        let vote = Vote { leader, zxid: last, epoch: i64::from(self.epochs.current) };
        let state = match leader {
            _ if leader == self.my_id => PeerState::Leading,
            _ if self.is_observer() => PeerState::Observing,
            _ => PeerState::Following,
        };
        self.vote = vote;
        self.vote_has_epoch = false;
        self.elected = Some(vote);
        self.doing = Doing::Looking { last, history, since_ms: self.now_ms, read_only: false };
        self.election.appoint(state, vote, self.now_ms);
    }

    /// A configuration newer than this server's was heard of: the search begins anew by its rules.
    fn look_again(&mut self, from: ServerId) {
        log::info!("configuration {:#x} is in force, as server {} says", self.configs.committed.version, from.0);
        self.effects.push(Effect::SaveConfigs(Box::new(self.configs.clone())));
        if let Doing::Looking { last, .. } = self.doing {
            self.start_election(last);
        }
        self.pump_election();
    }

    fn look(&mut self, last: Zxid, history: History) {
        log::info!("looking for a leader, with history up to {last} of epoch {:#x}", self.epochs.current);
        self.doing = Doing::Looking { last, history, since_ms: self.now_ms, read_only: false };
        self.start_election(last);
    }

    fn start_election(&mut self, last: Zxid) {
        let zxid = if self.distrusted { Zxid(-1) } else { last };
        let vote = Vote { leader: self.my_id, zxid, epoch: i64::from(self.epochs.current) };
        metrics::LOOKING_COUNT.add(1);
        self.elected = None;
        self.election.look(&self.configs, vote, self.now_ms);
    }

    /// Looking for long: clients that accept it may read meanwhile.
    fn serve_reads_meanwhile(&mut self) {
        let Doing::Looking { since_ms, read_only, .. } = &mut self.doing else { return };
        if !*read_only && self.read_only_after_ms.is_some_and(|after_ms| self.now_ms - *since_ms >= after_ms) {
            *read_only = true;
            self.effects.push(Effect::Pipeline(ToPipeline::Role(Role::ReadOnly)));
        }
    }

    /// The election has decided.
    fn enter_role(&mut self) -> bool {
        let Some(vote) = self.elected.take() else { return false };
        let Doing::Looking { last, history, since_ms, read_only } = &mut self.doing else { return false };
        metrics::ELECTION_TIME.record(self.now_ms - *since_ms);
        let (last, read_only) = (*last, *read_only);
        let history = mem::replace(history, History::new(last, Vec::new()));
        if read_only {
            self.leave_clients();
        }
        let configs = self.configs.clone();
        self.doing = if vote.leader == self.my_id {
            log::info!("leading: elected with {vote}");
            let leader = Leader::new(self.my_id, configs, self.rules, self.epochs, history, last, self.now_ms);
            Doing::Leading(Box::new(leader))
        } else {
            let observer = self.is_observer();
            let what = if observer { "observing" } else { "following" };
            log::info!("{what} server {}: elected with {vote}", vote.leader.0);
            let mut learner = Learner::new(
                self.my_id,
                observer,
                vote.leader,
                configs,
                self.rules,
                self.epochs,
                history,
                last,
                self.now_ms,
            );
            if observer && !self.observer_logs {
                learner.skip_log();
                self.unlogged = true;
            }
            if self.wants_snapshot || self.distrusted || (self.unlogged && !observer) {
                learner.ask_for_snapshot();
            }
            Doing::Learning(Box::new(learner))
        };
        self.election.settle(self.state(), self.vote);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Members;
    use crate::quorum::Timing;

    fn observer(id: i64, observer_pauses_ms: [i64; 2]) -> Peer {
        let members = format!("server.1=h:1:2\nserver.{id}=h:1:2:observer\n");
        let committed = Members::parse_text(members.as_bytes()).unwrap();
        let timing = Timing { tick_ms: 1000, init_ms: 5000, sync_ms: 2000, connect_ms: 5000 };
        let start = PeerStart {
            my_id: ServerId(id),
            configs: Configs { committed, last_seen: None, reconfig_enabled: false },
            rules: PeerRules { observer_pauses_ms, ..timing.into() },
            epochs: Epochs::default(),
            last: Zxid::ZERO,
            recent: Vec::new(),
            distrusted: false,
            hello: Vec::new(),
            read_only_after_ms: None,
            observer_logs: true,
        };
        Peer::new(start, 0)
    }

    #[test]
    fn observers_that_lose_their_leader_do_not_all_come_back_at_once() {
        let mut pauses_ms = Vec::new();
        for id in 2..=101 {
            pauses_ms.push(observer(id, [0, 200]).pause_ms());
        }
        assert!(pauses_ms.iter().all(|pause_ms| (0..200).contains(pause_ms)));
        pauses_ms.sort_unstable();
        pauses_ms.dedup();
        assert!(pauses_ms.len() > 50, "{pauses_ms:?}");
        let mut one = observer(2, [i64::MAX, i64::MAX]);
        assert!(one.pause_ms() != one.pause_ms() && one.pause_ms() >= 0);
        assert_eq!(observer(2, [0, 0]).pause_ms(), 0);
    }
}
