//! How a server goes on from role to role: one that has ended is left, all that was logged is applied and durable, a leader
//! looked for, the next one entered; and what a role wants is noted and passed on.

use std::collections::BTreeSet;
use std::mem;

use super::{Activity, Before, Peer, Refused};
use crate::config::Members;
use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::mail::{Dropped, Role, ToPipeline};
use crate::metrics;
use crate::quorum::committed_log::CommittedLog;
use crate::quorum::election::{Shunned, UNTRUSTED};
use crate::quorum::joint::{Ends, ForeignEnds, HistoryEnd, choices, give_up_by_hand, note_foreign};
use crate::quorum::leader::Leader;
use crate::quorum::learner::{Learner, Refusal, RefusalKind, Uncommitted};
use crate::quorum::notification::{Hello, Notification};
use crate::quorum::observer_master::{ObserverMaster, Output};
use crate::quorum::{ALARM_PAUSE_MS, Effect, Foreign, JoinStage, PeerState, Vote, WrongJoin};
use crate::state::WrongJoint;

/// Roles in a row that end before they serve and are tried again at once: more than a handful is no bad luck.
const FUTILE_MAX: u32 = 5;

/// Pause before the next one.
const FUTILE_PAUSE_MS: i64 = 200;

/// How long a leader is passed over that this server must not follow, at most.
const SHUNNED_MS: i64 = 60_000;

/// Pause before such a leader is tried again, while it may be a thing of the moment.
const REFUSAL_PAUSE_MS: i64 = 1000;

impl Peer {
    /// Carries every consequence through until nothing is left to decide.
    pub(super) fn pump(&mut self) {
        loop {
            let effects = match &mut self.activity {
                Activity::Leading(leader) => leader.take_effects(),
                Activity::Learning(learner) => learner.take_effects(),
                Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => Vec::new(),
            };
            effects.into_iter().for_each(|effect| self.pass_on(effect));
            self.follow_in_refusing();
            self.pump_observers();
            self.pump_election();
            if !(self.leave_ended_role() || self.finish_settling() || self.enter_role()) {
                return self.keep_foreigners();
            }
        }
    }

    /// What the leader said of other histories holds here, too: this server has the leader's.
    fn hear_of_foreign(&mut self) {
        let Activity::Learning(learner) = &mut self.activity else { return };
        for (server, ends) in learner.take_leader_foreign() {
            if self.may_refuse(server, &ends) {
                note_foreign(&mut self.refused_histories, server, ends);
            }
        }
    }

    /// The leader of ours that this server serves with knows by now what this one knew. Whom it refuses later on is refused
    /// here, too, and whom it has taken is not.
    fn follow_in_refusing(&mut self) {
        let Activity::Learning(learner) = &mut self.activity else { return };
        let Some(mut refused) = learner.take_refused_by_leader() else { return };
        refused.retain(|server, ends| self.may_refuse(*server, ends));
        self.refused_histories = refused;
    }

    /// What others say of a history must not keep this server out, nor use up memory, nor keep out one that has nothing.
    fn may_refuse(&self, server: ServerId, ends: &Ends) -> bool {
        server != self.my_id && self.configs.is_member(server) && ends.may_be_foreign()
    }

    /// A start knows what this process does of histories that are others.
    fn keep_foreigners(&mut self) {
        let refused = match &self.activity {
            Activity::Leading(leader) => leader.refused_histories(),
            _ => &self.refused_histories,
        };
        let is_kept = |(server, ends): (&ServerId, &Ends)| {
            let kept = self.foreigners.get(server);
            kept.is_some_and(|kept| kept.ends == *ends && kept.strange.as_ref() == self.strange.get(server))
        };
        if refused.len() == self.foreigners.len() && refused.iter().all(is_kept) {
            return;
        }
        let foreign = |(server, ends): (&ServerId, &Ends)| {
            (*server, Foreign { ends: ends.clone(), strange: self.strange.get(server).cloned() })
        };
        self.foreigners = refused.iter().map(foreign).collect();
        self.effects.push(Effect::KeepForeigners(self.foreigners.clone()));
    }

    /// The history of this leader is another one, behind the joint where its transactions were put behind this server's.
    fn note_foreign(&mut self, leader: ServerId, Foreign { ends, strange }: Foreign) {
        self.refused_histories.insert(leader, ends);
        self.strange.extend(strange.map(|what| (leader, what)));
        self.keep_foreigners();
    }

    /// A server whose history is known to be another one comes with a third, or with none: its files were moved away.
    fn forget_foreign(&mut self, server: ServerId, end: HistoryEnd) {
        if self.refused_histories.get(&server).is_none_or(|ends| ends.may_be(end)) {
            return;
        }
        self.refused_histories.remove(&server);
        if self.strange.remove(&server).is_some()
            && let Activity::Looking { last, .. } = self.activity
        {
            self.start_election(last);
        }
    }

    /// A follower that serves takes observers, if it is told to; what passes between them and the leader.
    fn pump_observers(&mut self) {
        let Activity::Learning(learner) = &mut self.activity else { return };
        if !learner.is_serving() {
            return;
        }
        if self.observers.is_none() && self.configs.is_voter(self.my_id) && self.rules.observer_master_port.is_some() {
            learner.begin_to_relay();
            let (epochs, committed) = (learner.epochs(), learner.committed_known());
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
        let mut unmarks = false;
        self.mark_joint(&effect);
        match &effect {
            Effect::SetAcceptedEpoch(epoch) => self.epochs.accepted = *epoch,
            Effect::SetCurrentEpoch(epoch) => {
                self.epochs.current = *epoch;
                self.gives_up = false;
                // Whoever holds the history of an epoch's leader can be trusted with it.
                if let Some(damage) = self.damage.take() {
                    log::info!(
                        "this server holds what a leader has, and votes again. Until now it did not, because of what is \
                         over with that: {damage}"
                    );
                }
                self.wants_snapshot = false;
                self.strange.clear();
                let compares = matches!(&self.activity, Activity::Learning(learner) if learner.leader_compares());
                if compares {
                    // What stands here is that leader's history, too.
                    self.joined = None;
                }
                let is_over = |wrong: &mut WrongJoin| compares || wrong.stage != JoinStage::Unproven;
                unmarks = self.wrong_join.take_if(is_over).is_some();
                self.hear_of_foreign();
            }
            Effect::Log(records) => {
                if let Some(last) = records.last() {
                    self.appended = last.zxid;
                }
            }
            // What was foreign to this history may be known to the one that takes its place, but what had left it before the
            // part that stays ends.
            Effect::Truncate { to, .. } => {
                self.truncating = true;
                let stays = !self.follows_untold();
                self.refused_histories.retain(|_, ends| stays && *ends.zxids.start() <= *to);
            }
            // The leader has said what is foreign to its own.
            Effect::Install { .. } => {
                self.installing = true;
                self.refused_histories.clear();
                self.hear_of_foreign();
            }
            Effect::Pipeline(ToPipeline::Joined(at)) => {
                let (first, _) = self.joined.get_or_insert((*at, self.entered));
                *first = (*first).min(*at);
            }
            Effect::SaveConfigs(configs) => self.set_configs((**configs).clone()),
            _ => {}
        }
        self.effects.push(effect);
        if unmarks {
            self.effects.push(Effect::MarkWrongJoin(None));
        }
    }

    /// A start must know of a joint before it finds anything behind it, and what was cut off for it.
    fn mark_joint(&mut self, effect: &Effect) {
        let (joint, before) = match (effect, self.joined) {
            (Effect::Log(_), Some(joined)) => joined,
            (Effect::Truncate { to, .. }, joined) if self.follows_untold() => {
                let (first, before) = joined.unwrap_or((*to, self.entered));
                (first.min(*to), before)
            }
            _ => return,
        };
        let wrong = self.wrong_join_of(joint, before, JoinStage::Unproven);
        if self.wrong_join.is_none_or(|known| known != wrong && known.stage == JoinStage::Unproven) {
            self.mark(Some(wrong));
        }
    }

    /// Whether the leader is one that tells nothing of its history.
    fn follows_untold(&self) -> bool {
        matches!(&self.activity, Activity::Learning(learner) if !learner.leader_compares())
    }

    fn wrong_join_of(&self, joint: Zxid, before: Before, stage: JoinStage) -> WrongJoin {
        let Before { epoch, last, agreement } = before;
        WrongJoin { joint, epoch, last, agreed: agreement.last(), leader: self.vote.leader, stage }
    }

    /// What was joined is one history, or nothing will ever tell.
    pub(super) fn forget_joint(&mut self) {
        self.joined = None;
        if self.wrong_join.and_then(WrongJoin::unproven).is_some() {
            self.mark(None);
        }
    }

    fn set_configs(&mut self, configs: Configs) {
        let before = mem::replace(&mut self.configs, configs);
        let own = self.configs.committed.addresses(self.my_id);
        if !own.is_empty() && own != before.committed.addresses(self.my_id) {
            let own: Vec<(String, u16)> = own.iter().map(|a| (a.host.clone(), a.election_port)).collect();
            self.links.set_hello(Hello::encode(self.my_id, &own, own.len() > 1));
        }
        self.election.set_configs(&self.configs);
        if self.configs.committed.version != before.committed.version {
            // An old list must not be told again.
            self.speak_anew();
        }
    }

    /// What was said is not true any more. No new link begins with it; who waits for an answer gets one that is.
    fn speak_anew(&mut self) {
        self.election.tell_again(self.links.take_back());
    }

    /// A leader tells voters that do not follow that it leads, and by which list: one that was away while that came about
    /// may know nobody who is in it.
    pub(super) fn seek_voters(&mut self) {
        let Activity::Leading(leader) = &self.activity else { return };
        if !leader.is_serving() || self.now_ms < self.seek_from_ms {
            return;
        }
        self.seek_from_ms = self.now_ms.saturating_add(self.rules.notification_interval_ms.1.max(1));
        let synced: BTreeSet<ServerId> = leader.synced().collect();
        let absent: Vec<ServerId> = self.peers().into_iter().filter(|voter| !synced.contains(voter)).collect();
        self.election.tell_again(absent);
    }

    fn pump_election(&mut self) {
        if self.is_serving() && !mem::replace(&mut self.vote_has_epoch, true) {
            self.refused.clear();
            self.lacking.clear();
            self.outdated = None;
            let unavailable_ms = self.now_ms - self.unavailable_since_ms;
            metrics::UNAVAILABLE_TIME.record(unavailable_ms);
            self.log_service(unavailable_ms);
            if self.state() == PeerState::Leading {
                metrics::LEADER_UNAVAILABLE_TIME.record(unavailable_ms);
                // A quorum has its history by now, whoever sent it.
                self.forget_joint();
            }
            self.vote.epoch = i64::from(self.epochs.current);
            self.election.set_outcome(self.state(), self.vote);
            self.speak_anew();
        }
        self.election.set_linked(self.links.linked(), self.now_ms);
        if let Some((from, members)) = self.hear_gossip() {
            let mut configs = self.configs.clone();
            if configs.activate(members) {
                self.set_configs(configs);
                return self.look_again(from);
            }
        }
        let mut output = self.election.take();
        if output.connect_all {
            self.ask_again();
            for server in self.peers() {
                let addresses = self.configs.addresses(server);
                self.links.connect(server, &addresses, self.now_ms);
            }
            output.sends.append(&mut self.election.take().sends);
        }
        for (to, notification) in output.sends {
            let mut frame = Vec::new();
            notification.encode(&mut frame);
            let addresses = self.configs.addresses(to);
            self.links.send(to, frame, &addresses, self.now_ms);
        }
        if let Some(vote) = output.elected {
            self.vote = vote;
            self.vote_has_epoch = false;
            self.elected = Some(vote);
            self.speak_anew();
        }
        self.effects.append(&mut self.links.take_effects());
    }

    /// Finds those who stand behind a newer list of members, and gives the list once they are a quorum of it.
    fn hear_gossip(&mut self) -> Option<(ServerId, Members)> {
        let Activity::Looking { last, .. } = self.activity else { return None };
        self.gossip.keep(&self.links.linked());
        let to_find = self.gossip.to_find(&self.configs, &|server| self.links.found(server));
        for (server, addresses) in to_find {
            let mut frame = Vec::new();
            self.election.word().encode(&mut frame);
            self.links.find(server, &addresses, frame, self.now_ms);
        }
        self.gossip.believed(&self.configs, self.is_empty(last), &|server| self.links.found(server))
    }

    /// Nothing was heard for a while: whoever is to be found is asked again, and a newer list that is not taken is spoken
    /// of.
    fn ask_again(&mut self) {
        let Activity::Looking { last, .. } = self.activity else { return };
        let to_find = self.gossip.to_find(&self.configs, &|server| self.links.found(server));
        self.election.tell_again(to_find.into_iter().map(|(server, _)| server));
        let is_empty = self.is_empty(last);
        if let Some(why) = self.gossip.refusal(&self.configs, is_empty, &|server| self.links.found(server)) {
            log::warn!("{why}");
        }
    }

    /// Whether this server's data cannot speak for its having been part of the ensemble.
    fn is_empty(&self, last: Zxid) -> bool {
        self.abstains() || (last == Zxid::ZERO && self.epochs.current == 0)
    }

    /// For those who look after the server.
    fn log_service(&self, unavailable_ms: i64) {
        let epoch = self.epochs.current;
        let what = match &self.activity {
            Activity::Leading(leader) => {
                let with: Vec<String> = leader.synced().map(|server| server.0.to_string()).collect();
                let with = match with.len() {
                    0 => "alone".to_owned(),
                    1 => format!("with server {}", with[0]),
                    _ => format!("with servers {}", with.join(", ")),
                };
                format!("leading in epoch {epoch:#x}, {with}")
            }
            Activity::Learning(learner) => {
                let what = if self.is_observer() { "observing" } else { "following" };
                format!("{what} server {} in epoch {epoch:#x}", learner.master().0)
            }
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => return,
        };
        log::info!("{what}: serving clients (unavailable for {unavailable_ms} ms)");
    }

    /// Everybody else who votes.
    fn peers(&self) -> Vec<ServerId> {
        self.configs.voters().into_iter().filter(|&server| server != self.my_id).collect()
    }

    /// The role is over: everybody is let go, and what was logged is applied before anything else.
    fn leave_ended_role(&mut self) -> bool {
        let why = match &self.activity {
            Activity::Leading(leader) => leader.ended().map(|why| format!("stopped leading: {why}")),
            Activity::Learning(learner) => learner.ended().map(|why| {
                let what = if self.is_observer() { "observing" } else { "following" };
                format!("stopped {what} server {}: {why}", learner.master().0)
            }),
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => None,
        };
        let Some(why) = why else { return false };
        if self.vote_has_epoch {
            self.unavailable_since_ms = self.now_ms;
        }
        self.effects.push(Effect::LeaveRole { why });
        self.observers = None;
        self.futile = if self.vote_has_epoch { 0 } else { self.futile + 1 };
        let (uncommitted, committed_log) = match mem::replace(&mut self.activity, Activity::Stopped) {
            Activity::Leading(mut leader) => {
                self.successor = leader.successor();
                self.refused_histories = leader.take_refused_histories();
                (Uncommitted::new(0), leader.committed_log())
            }
            Activity::Learning(mut learner) => {
                if let Some(refusal) = learner.take_refusal() {
                    if refusal.kind == RefusalKind::Candidate && !learner.leader_compares() {
                        self.note_impostor();
                    }
                    self.note_refusal(learner.master(), learner.last(), refusal);
                }
                self.wants_snapshot |= learner.needs_snapshot();
                self.hollow |= learner.is_hollow();
                self.successor = learner.successor();
                (learner.take_uncommitted(), learner.committed_log())
            }
            Activity::Quiescing { .. } | Activity::Looking { .. } | Activity::Stopped => return false,
        };
        // The clients first: nobody may be answered by what is not known to be committed.
        self.leave_clients();
        // From a role alone, as the match above has it.
        self.activity = Activity::Quiescing { applied: None, tree: None, committed_log, uncommitted };
        self.deliver_uncommitted();
        self.election.leave();
        if self.futile > FUTILE_MAX {
            self.look_from_ms = self.now_ms + FUTILE_PAUSE_MS;
        }
        if self.is_observer() && self.successor.is_none() {
            self.look_from_ms = self.now_ms.saturating_add(self.pause_ms());
        }
        true
    }

    /// What was logged and not committed is applied all the same, as far as it is in memory. The rest is read back when the
    /// pipeline says that it has applied this.
    pub(super) fn deliver_uncommitted(&mut self) {
        let Activity::Quiescing { committed_log, uncommitted, .. } = &mut self.activity else { return };
        let mut txns = Vec::new();
        while let Some((txn, record)) = uncommitted.take_kept() {
            committed_log.push(record);
            txns.push(txn);
        }
        if !txns.is_empty() {
            self.effects.push(Effect::Pipeline(ToPipeline::Deliver { txns }));
        }
    }

    /// How long an observer waits before it looks: different on each of them and each time.
    fn pause_ms(&mut self) -> i64 {
        self.losses += 1;
        // Neighbouring seeds must give pauses that differ.
        let own = fastrand::Rng::with_seed(self.my_id.0.cast_unsigned()).u64(..);
        let mut random = fastrand::Rng::with_seed(own ^ self.losses);
        let up_to = |max_ms: i64| random.i64(0..max_ms.max(1));
        self.rules.observer_pauses_ms.map(up_to).into_iter().fold(0, i64::saturating_add)
    }

    fn leave_clients(&mut self) {
        self.effects.push(Effect::Pipeline(ToPipeline::Role(Role::Looking)));
    }

    /// Once everything logged is applied and durable, the search begins.
    fn finish_settling(&mut self) -> bool {
        let is_durable = self.is_durable();
        let Activity::Quiescing { applied: Some(last), tree, .. } = &mut self.activity else { return false };
        if !is_durable || self.now_ms < self.look_from_ms {
            return false;
        }
        let (last, tree) = (*last, *tree);
        if let Some(wrong) = self.wrong_join.filter(|wrong| wrong.stage == JoinStage::Joined) {
            self.take_back(wrong.joint);
            return true;
        }
        if self.hollow && self.read_again(last) {
            return true;
        }
        let Activity::Quiescing { committed_log, .. } = &mut self.activity else { return false };
        let mut committed_log = mem::replace(committed_log, CommittedLog::new(last, Vec::new()));
        if committed_log.last() != last {
            committed_log.reset(last);
        }
        committed_log.know_last(tree);
        (self.appended, self.durable) = (last, last);
        match self.successor.take().filter(|_| self.damage.is_none()) {
            Some(leader) => self.follow_appointed(leader, last, committed_log),
            None => self.look(last, committed_log),
        }
        true
    }

    /// The snapshot did not come for which the state was forgotten: the state is read again, for this server may have to
    /// lead. That is a truncation which leaves all. False: what is here is no good, and the next leader is asked for a
    /// snapshot.
    fn read_again(&mut self, last: Zxid) -> bool {
        if self.damage.is_some() || self.unlogged {
            self.wants_snapshot = true;
            return false;
        }
        log::info!("the state as of {last}, which was to be replaced, is read again");
        (self.truncating, self.rereading) = (true, true);
        self.effects.push(Effect::Truncate { to: last, dropped: Dropped::Contained });
        true
    }

    /// Of two histories that were joined and are not one, this server's own stays. A start that found both in the log would
    /// serve a tree that nobody ever had.
    fn take_back(&mut self, to: Zxid) {
        if let Activity::Quiescing { committed_log, .. } = &mut self.activity {
            committed_log.truncate(to);
            if let Some((_, before)) = self.joined {
                committed_log.agree_as_before(before.agreement);
            }
        }
        (self.truncating, self.rereading) = (true, true);
        self.effects.push(Effect::Truncate { to, dropped: Dropped::Foreign });
    }

    /// What a leader with another history sent is out of the log, or has to stay there. If it is out, this server did not
    /// take that leader's history after all.
    pub(super) fn end_taking_back(&mut self, is_done: bool) {
        let Some(wrong) = self.wrong_join.filter(|wrong| wrong.stage == JoinStage::Joined) else { return };
        self.joined = None;
        if is_done {
            self.epochs.current = wrong.epoch;
            self.effects.push(Effect::SetBackEpoch(wrong.epoch));
        }
        self.mark(if is_done { wrong.taken_back() } else { Some(wrong.not_taken_back()) });
    }

    fn mark(&mut self, wrong: Option<WrongJoin>) {
        self.wrong_join = wrong;
        self.damage = wrong.and_then(|wrong| wrong.damage()).or(self.damage.take());
        self.effects.push(Effect::MarkWrongJoin(wrong));
    }

    /// The leader before said who leads now.
    fn follow_appointed(&mut self, leader: ServerId, last: Zxid, committed_log: CommittedLog) {
        let vote = Vote { leader, zxid: last, epoch: i64::from(self.epochs.current) };
        let state = match leader {
            _ if leader == self.my_id => PeerState::Leading,
            _ if self.is_observer() => PeerState::Observing,
            _ => PeerState::Following,
        };
        self.vote = vote;
        self.vote_has_epoch = false;
        self.elected = Some(vote);
        self.activity.become_next(Activity::Looking { last, committed_log, since_ms: self.now_ms, read_only: false });
        self.election.appoint(state, vote, self.now_ms);
        self.speak_anew();
    }

    /// A configuration newer than this server's was heard of: the search begins anew by its rules.
    fn look_again(&mut self, from: ServerId) {
        log::info!("configuration {:#x} is in force, as server {} says", self.configs.committed.version, from.0);
        self.effects.push(Effect::SaveConfigs(Box::new(self.configs.clone())));
        if let Activity::Looking { last, .. } = self.activity {
            self.start_election(last);
        }
        self.pump_election();
    }

    pub(super) fn look(&mut self, last: Zxid, committed_log: CommittedLog) {
        log::info!("looking for a leader, with history up to {last} of epoch {:#x}", self.epochs.current);
        self.alarm_ms = self.alarm_ms.max(self.now_ms + self.rules.timing.init_ms);
        self.activity.become_next(Activity::Looking { last, committed_log, since_ms: self.now_ms, read_only: false });
        self.start_election(last);
    }

    fn start_election(&mut self, last: Zxid) {
        let zxid = if self.abstains() { UNTRUSTED } else { last };
        let vote = Vote { leader: self.my_id, zxid, epoch: i64::from(self.epochs.current) };
        metrics::LOOKING_COUNT.add(1);
        self.elected = None;
        let refused = self.refused.iter().filter(|(_, refused)| refused.shunned_until_ms < i64::MAX);
        self.lacking.retain(|_, until_ms| self.now_ms < *until_ms);
        self.election.shun(Shunned {
            leaders: refused.map(|(leader, _)| *leader).collect(),
            strange: self.strange.keys().copied().collect(),
            foreign: self.preferred_foreigners(),
            epochs: self.lacking.keys().copied().filter(|epoch| *epoch != last.epoch()).collect(),
        });
        self.election.look(&self.configs, vote, self.now_ms);
        self.speak_anew();
    }

    /// A server of Apache says only here how far its own history reaches.
    pub(super) fn note_history(&mut self, from: ServerId, notification: &Notification) {
        let Notification { state: PeerState::Looking, vote: Vote { leader, zxid, epoch }, .. } = *notification else {
            return;
        };
        let Ok(epoch) = u32::try_from(epoch) else { return };
        if leader != from || zxid == UNTRUSTED || !self.configs.is_member(from) {
            return;
        }
        let end = HistoryEnd { epoch, last: zxid };
        self.heard.insert(from, end);
        self.forget_foreign(from, end);
        if let Activity::Leading(leader) = &mut self.activity {
            leader.on_history_heard(from, end);
        }
    }

    /// A leader of Apache lacks what was agreed upon, though it had a history of a later epoch when it was elected: no
    /// election of one ensemble leads to that.
    fn note_impostor(&mut self) {
        let Vote { leader, zxid, epoch } = self.vote;
        let Some(epoch) = u32::try_from(epoch).ok().filter(|epoch| *epoch > self.epochs.current) else { return };
        let ends = Ends::at(HistoryEnd { epoch, last: zxid });
        if self.may_refuse(leader, &ends) {
            note_foreign(&mut self.refused_histories, leader, ends);
        }
    }

    /// A leader was not followed, since what was acknowledged would be lost. `last` ends this server's history.
    fn note_refusal(&mut self, leader: ServerId, last: Zxid, refusal: Refusal) {
        if refusal.kind == RefusalKind::LaterHistory {
            // One that lost its quorum to a later leader does not last.
            let sure_ms = self.rules.timing.sync_ms + 2 * self.rules.timing.tick_ms;
            let (_, since_ms) = *self.outdated.get_or_insert((leader, self.now_ms));
            self.look_from_ms = self.now_ms + REFUSAL_PAUSE_MS.min(sure_ms);
            if self.outdated.is_some_and(|(outdated, _)| outdated != leader) {
                self.outdated = Some((leader, self.now_ms));
                return;
            }
            if self.now_ms - since_ms < sure_ms {
                return;
            }
        }
        let abstains = refusal.kind != RefusalKind::Candidate;
        self.pass_over(leader, REFUSAL_PAUSE_MS, abstains);
        // With another one of that history it would only be the same again, and two that wait for a quorum at once, each
        // with the other's voice missing, find out late: an elected leader waits for initLimit.
        let lacking = self.vote.zxid.epoch();
        if !abstains && lacking != last.epoch() {
            self.lacking.insert(lacking, self.now_ms + SHUNNED_MS.max(2 * self.rules.timing.init_ms));
        }
        if self.now_ms >= self.refusal_alarm_ms {
            self.refusal_alarm_ms = self.now_ms + ALARM_PAUSE_MS;
            self.effects.push(Effect::Alarm(refusal.why));
        }
    }

    /// That leader is neither elected nor joined for a while: so long the first time.
    fn pass_over(&mut self, leader: ServerId, first_ms: i64, abstains: bool) {
        // Who was only elected may serve a moment later, with others, and is followed then.
        let pause_ms = match self.refused.get(&leader) {
            _ if abstains => SHUNNED_MS,
            Some(refused) => (2 * refused.pause_ms).min(SHUNNED_MS),
            None => first_ms,
        };
        self.refused.insert(leader, Refused { shunned_until_ms: self.now_ms + pause_ms, pause_ms, abstains });
    }

    /// The leader's history does not go on from this server's, though their zxids do. Which of the two is the ensemble's is
    /// for a quorum to say. What the leader sent is taken back, and this server is what it was before: those who have its
    /// history find each other, for the leader is passed over; or the leader serves without this server, and is followed
    /// with a snapshot. What was cut off to follow the leader is not put back: then it must not help to elect.
    pub(super) fn on_wrong_joint(&mut self, WrongJoint { joint, seen }: WrongJoint) {
        let (first, before) = self.joined.unwrap_or((joint, self.entered));
        let joint = joint.min(first);
        let found = WrongJoint { joint, seen };
        log::warn!(
            "server {}: {found}. A majority lost its data once, or this server was restored from elsewhere. What that leader \
             sent is taken back; once a quorum follows it without this server, a snapshot is asked for, and own files are kept",
            self.my_id.0
        );
        if let Activity::Learning(learner) = &mut self.activity {
            learner.leave("its history is another one than this server's".to_owned());
        }
        self.successor = None;
        // A start must know of it, whatever comes next.
        let wrong = self.wrong_join_of(joint, before, JoinStage::Joined);
        if self.unlogged {
            return self.mark(Some(wrong.not_taken_back()));
        }
        let leader = self.vote.leader;
        self.note_foreign(leader, Foreign::found(&wrong, &found, self.epochs.accepted));
        self.mark(Some(wrong));
        if !self.strange.contains_key(&leader) {
            return;
        }
        // A quorum that follows it may be one of servers with this history, which are to find that out, too.
        self.pass_over(leader, self.rules.timing.init_ms.max(REFUSAL_PAUSE_MS), false);
    }

    /// Nobody is found yet.
    pub(super) fn look_on(&mut self) {
        if self.may_call_operator() {
            self.sound_alarm();
        }
        if self.now_ms >= self.shunned_until_ms()
            && let Activity::Looking { last, .. } = self.activity
        {
            // It may have changed.
            for refused in self.refused.values_mut().filter(|refused| refused.shunned_until_ms <= self.now_ms) {
                refused.shunned_until_ms = i64::MAX;
            }
            self.start_election(last);
        }
        self.serve_reads_meanwhile();
    }

    /// Of the histories that were refused those that an election would prefer to this one, unless it is to be given up.
    /// Whoever comes with an earlier one may have been sent it since by a leader that this server followed.
    fn preferred_foreigners(&self) -> ForeignEnds {
        let is_preferred = |(_, ends): &(&ServerId, &Ends)| ends.epoch >= self.epochs.current && !self.gives_up;
        self.refused_histories.iter().filter(is_preferred).map(|(server, ends)| (*server, ends.clone())).collect()
    }

    /// Whether there is something for which this server does not help to elect somebody.
    pub(super) fn may_call_operator(&self) -> bool {
        self.damage.is_some() || !self.strange.is_empty() || !self.refused_histories.is_empty()
    }

    /// Who would be elected if this server did not know better, and why it does not help.
    fn passed_over(&self) -> Option<(ServerId, String)> {
        let foreign = |(server, ends): (ServerId, Ends)| {
            let end = self.heard.get(&server).filter(|end| ends.may_be(**end))?;
            let (epoch, last) = (end.latest_epoch(), end.last);
            Some((
                server,
                format!(
                    "its history of epoch {epoch:#x}, up to {last}, is not the one of those who have served meanwhile"
                ),
            ))
        };
        let strange = self.strange.first_key_value().map(|(server, what)| (*server, what.clone()));
        strange.or_else(|| self.preferred_foreigners().into_iter().find_map(foreign))
    }

    /// Nobody is elected without this server, which must not help: an operator has to.
    fn sound_alarm(&mut self) {
        if self.now_ms < self.alarm_ms {
            return;
        }
        self.alarm_ms = self.now_ms + ALARM_PAUSE_MS;
        let names = |servers: Vec<ServerId>| match servers[..] {
            [] => "none".to_owned(),
            _ => servers.iter().map(|server| server.0.to_string()).collect::<Vec<_>>().join(", "),
        };
        let linked = self.links.linked();
        let (heard, away): (Vec<ServerId>, _) = self.peers().into_iter().partition(|server| linked.contains(server));
        let reach = format!("Servers in reach: {}; out of reach: {}", names(heard), names(away));
        let id = self.my_id.0;
        let text = match (&self.damage, self.passed_over()) {
            (Some(damage), _) => format!(
                "server {id} has no leader to follow, and must not help to elect one: {damage}. What only it acknowledged \
                 could be lost. {reach}. Start those that are down: a quorum of servers that know their history elects a \
                 leader, and this server takes from it what it lacks. If too many are lost for good, stop all servers and \
                 restore the data folders of a majority from one backup"
            ),
            (None, Some((leader, what))) => format!(
                "server {id} has no leader to follow, and does not help to elect server {}: {what}. {reach}. Start those \
                 that are down: the servers of one of the two histories elect a leader once they are a quorum. {}",
                leader.0,
                choices(leader, &give_up_by_hand(leader))
            ),
            (None, None) => {
                // It may come yet.
                self.alarm_ms = self.now_ms + self.rules.timing.init_ms;
                return;
            }
        };
        self.effects.push(Effect::Alarm(text));
    }

    /// Looking for long: clients that accept it may read meanwhile, unless what they would read is known to be incomplete.
    fn serve_reads_meanwhile(&mut self) {
        if self.damage.is_some() || self.hollow || !self.refused.is_empty() {
            return;
        }
        let Activity::Looking { since_ms, read_only, .. } = &mut self.activity else { return };
        if !*read_only && self.read_only_after_ms.is_some_and(|after_ms| self.now_ms - *since_ms >= after_ms) {
            *read_only = true;
            let ms = self.now_ms - *since_ms;
            // In the words that tests and people wait for in Apache's log.
            log::info!("Read-only server started, after {ms} ms without a leader: clients that allow it may read");
            self.effects.push(Effect::Pipeline(ToPipeline::Role(Role::ReadOnly)));
        }
    }

    /// The election has decided.
    fn enter_role(&mut self) -> bool {
        let Some(vote) = self.elected.take() else { return false };
        self.gossip.clear();
        self.links.find_nobody();
        self.seek_from_ms = self.now_ms.saturating_add(self.rules.notification_interval_ms.0);
        let Activity::Looking { last, committed_log, since_ms, read_only } = &mut self.activity else { return false };
        metrics::ELECTION_TIME.record(self.now_ms - *since_ms);
        let (last, read_only) = (*last, *read_only);
        let committed_log = mem::replace(committed_log, CommittedLog::new(last, Vec::new()));
        self.entered = Before { epoch: self.epochs.current, last, agreement: committed_log.agreement() };
        if read_only {
            log::info!("Read-only server stopped: there is a leader, server {}", vote.leader.0);
            self.leave_clients();
        }
        let configs = self.configs.clone();
        let role = if vote.leader == self.my_id {
            log::info!("LEADING: elected, vote {vote}");
            let mut leader =
                Leader::new(self.my_id, configs, self.rules, self.epochs, committed_log, last, self.now_ms);
            self.heard.iter().for_each(|(server, end)| leader.on_history_heard(*server, *end));
            leader.refuse_histories(mem::take(&mut self.refused_histories));
            leader.elected_by(self.election.electors());
            Activity::Leading(Box::new(leader))
        } else {
            let observer = self.is_observer();
            let what = if observer { "OBSERVING" } else { "FOLLOWING" };
            log::info!("{what} server {}: elected, vote {vote}", vote.leader.0);
            let mut learner = Learner::new(
                self.my_id,
                observer,
                vote.leader,
                configs,
                self.rules,
                self.epochs,
                committed_log,
                last,
                self.now_ms,
            );
            if observer && !self.observer_logs {
                learner.skip_log();
                self.unlogged = true;
            }
            if self.damage.is_some() || self.strange.contains_key(&vote.leader) {
                learner.distrust_history();
            }
            if self.gives_up {
                learner.give_up();
            }
            learner.know_foreign(self.refused_histories.clone());
            let gives_up_to_it = self.gives_up && self.refused_histories.contains_key(&vote.leader);
            if self.wants_snapshot || gives_up_to_it || (self.unlogged && !observer) {
                learner.ask_for_snapshot();
            }
            Activity::Learning(Box::new(learner))
        };
        self.activity.become_next(role);
        self.election.set_outcome(self.state(), self.vote);
        true
    }
}

#[cfg(test)]
mod tests;
