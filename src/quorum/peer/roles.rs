//! How a server goes on from role to role: one that has ended is left, all that was logged is settled, a leader looked for,
//! the next one entered; and what a role wants is noted and passed on.

use std::collections::BTreeSet;
use std::mem;

use super::{Before, Doing, Peer, Refused};
use crate::config::Members;
use crate::ids::{ServerId, Zxid};
use crate::mail::{Dropped, Role, ToPipeline};
use crate::metrics;
use crate::quorum::election::{Shunned, UNTRUSTED};
use crate::quorum::history::History;
use crate::quorum::joint::{Ends, ForeignEnds, HistoryEnd, choices, give_up_by_hand, note_foreign};
use crate::quorum::leader::Leader;
use crate::quorum::learner::{Learner, Refusal, RefusalKind, Uncommitted};
use crate::quorum::notification::{Hello, Notification};
use crate::quorum::observer_master::{ObserverMaster, Output};
use crate::quorum::voters::Configs;
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
            let effects = match &mut self.doing {
                Doing::Leading(leader) => leader.take_effects(),
                Doing::Learning(learner) => learner.take_effects(),
                Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => Vec::new(),
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
        let Doing::Learning(learner) = &mut self.doing else { return };
        for (server, ends) in learner.take_leader_foreign() {
            if self.may_refuse(server, &ends) {
                note_foreign(&mut self.refused_histories, server, ends);
            }
        }
    }

    /// The leader of ours that this server serves with knows by now what this one knew. Whom it refuses later on is refused
    /// here, too, and whom it has taken is not.
    fn follow_in_refusing(&mut self) {
        let Doing::Learning(learner) = &mut self.doing else { return };
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
        let refused = match &self.doing {
            Doing::Leading(leader) => leader.refused_histories(),
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
            && let Doing::Looking { last, .. } = self.doing
        {
            self.start_election(last);
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
                let compares = matches!(&self.doing, Doing::Learning(learner) if learner.leader_compares());
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
        matches!(&self.doing, Doing::Learning(learner) if !learner.leader_compares())
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
        let Doing::Leading(leader) = &self.doing else { return };
        if !leader.is_serving() || self.now_ms < self.seek_from_ms {
            return;
        }
        self.seek_from_ms = self.now_ms.saturating_add(self.rules.notice_ms.1.max(1));
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
            self.election.settle(self.state(), self.vote);
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
        let Doing::Looking { last, .. } = self.doing else { return None };
        self.gossip.keep(&self.links.linked());
        let to_find = self.gossip.to_find(&self.configs, &|server| self.links.found(server));
        for (server, addresses) in to_find {
            let mut frame = Vec::new();
            self.election.word().encode(&mut frame);
            self.links.find(server, &addresses, frame, self.now_ms);
        }
        self.gossip.believed(&self.configs, self.is_empty(last), &|server| self.links.found(server))
    }

    /// Nothing was heard for a while: whoever is to be found is asked again, and a newer list that is not taken is spoken of.
    fn ask_again(&mut self) {
        let Doing::Looking { last, .. } = self.doing else { return };
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
        let what = match &self.doing {
            Doing::Leading(leader) => {
                let with: Vec<String> = leader.synced().map(|server| server.0.to_string()).collect();
                let with = match with.len() {
                    0 => "alone".to_owned(),
                    1 => format!("with server {}", with[0]),
                    _ => format!("with servers {}", with.join(", ")),
                };
                format!("leading in epoch {epoch:#x}, {with}")
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
        let (uncommitted, history) = match mem::replace(&mut self.doing, Doing::Stopped) {
            Doing::Leading(mut leader) => {
                self.successor = leader.successor();
                self.refused_histories = leader.take_refused_histories();
                (Uncommitted::new(0), leader.history())
            }
            Doing::Learning(mut learner) => {
                if let Some(refusal) = learner.take_refusal() {
                    if refusal.kind == RefusalKind::Candidate && !learner.leader_compares() {
                        self.note_impostor();
                    }
                    self.note_refusal(learner.master(), learner.last(), refusal);
                }
                self.wants_snapshot |= learner.needs_snapshot();
                self.hollow |= learner.is_hollow();
                self.successor = learner.successor();
                (learner.take_uncommitted(), learner.history())
            }
            Doing::Settling { .. } | Doing::Looking { .. } | Doing::Stopped => return false,
        };
        // The clients first: nobody may be answered by what is not known to be committed.
        self.leave_clients();
        // From a role alone, as the match above has it.
        self.doing = Doing::Settling { applied: None, tree: None, history, uncommitted };
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
        let Doing::Settling { history, uncommitted, .. } = &mut self.doing else { return };
        let mut txns = Vec::new();
        while let Some((txn, record)) = uncommitted.take_kept() {
            history.push(record);
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
        let Doing::Settling { applied: Some(last), tree, .. } = &mut self.doing else { return false };
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
        let Doing::Settling { history, .. } = &mut self.doing else { return false };
        let mut history = mem::replace(history, History::new(last, Vec::new()));
        if history.last() != last {
            history.reset(last);
        }
        history.know_last(tree);
        (self.appended, self.durable) = (last, last);
        match self.successor.take().filter(|_| self.damage.is_none()) {
            Some(leader) => self.follow_appointed(leader, last, history),
            None => self.look(last, history),
        }
        true
    }

    /// The snapshot did not come for which the state was forgotten: the state is read again, for this server may have to lead.
    /// That is a truncation which leaves all. False: what is here is no good, and the next leader is asked for a snapshot.
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
        if let Doing::Settling { history, .. } = &mut self.doing {
            history.truncate(to);
            if let Some((_, before)) = self.joined {
                history.agree_as_before(before.agreement);
            }
        }
        (self.truncating, self.rereading) = (true, true);
        self.effects.push(Effect::Truncate { to, dropped: Dropped::Foreign });
    }

    /// What a leader with another history sent is out of the log, or has to stay there. If it is out, this server did not take
    /// that leader's history after all.
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
        self.doing.become_next(Doing::Looking { last, history, since_ms: self.now_ms, read_only: false });
        self.election.appoint(state, vote, self.now_ms);
        self.speak_anew();
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

    pub(super) fn look(&mut self, last: Zxid, history: History) {
        log::info!("looking for a leader, with history up to {last} of epoch {:#x}", self.epochs.current);
        self.alarm_ms = self.alarm_ms.max(self.now_ms + self.rules.timing.init_ms);
        self.doing.become_next(Doing::Looking { last, history, since_ms: self.now_ms, read_only: false });
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
        if let Doing::Leading(leader) = &mut self.doing {
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
    /// history find each other, for the leader is passed over; or the leader serves without this server, and is followed with
    /// a snapshot. What was cut off to follow the leader is not put back: then it must not help to elect.
    pub(super) fn on_wrong_joint(&mut self, WrongJoint { joint, seen }: WrongJoint) {
        let (first, before) = self.joined.unwrap_or((joint, self.entered));
        let joint = joint.min(first);
        let found = WrongJoint { joint, seen };
        log::warn!(
            "server {}: {found}. A majority lost its data once, or this server was restored from elsewhere. What that leader \
             sent is taken back; once a quorum follows it without this server, a snapshot is asked for, and own files are kept",
            self.my_id.0
        );
        if let Doing::Learning(learner) = &mut self.doing {
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
            && let Doing::Looking { last, .. } = self.doing
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
        let Doing::Looking { since_ms, read_only, .. } = &mut self.doing else { return };
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
        self.seek_from_ms = self.now_ms.saturating_add(self.rules.notice_ms.0);
        let Doing::Looking { last, history, since_ms, read_only } = &mut self.doing else { return false };
        metrics::ELECTION_TIME.record(self.now_ms - *since_ms);
        let (last, read_only) = (*last, *read_only);
        let history = mem::replace(history, History::new(last, Vec::new()));
        self.entered = Before { epoch: self.epochs.current, last, agreement: history.agreement() };
        if read_only {
            log::info!("Read-only server stopped: there is a leader, server {}", vote.leader.0);
            self.leave_clients();
        }
        let configs = self.configs.clone();
        let role = if vote.leader == self.my_id {
            log::info!("leading: elected with {vote}");
            let mut leader = Leader::new(self.my_id, configs, self.rules, self.epochs, history, last, self.now_ms);
            self.heard.iter().for_each(|(server, end)| leader.on_history_heard(*server, *end));
            leader.refuse_histories(mem::take(&mut self.refused_histories));
            leader.elected_by(self.election.electors());
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
            Doing::Learning(Box::new(learner))
        };
        self.doing.become_next(role);
        self.election.settle(self.state(), self.vote);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::SessionId;
    use crate::mail::{LogRecord, ToQuorum};
    use crate::quorum::joint::{Relation, Told};
    use crate::quorum::notification::Hello;
    use crate::quorum::packet::{LearnerInfo, Packet};
    use crate::quorum::peer::PeerStart;
    use crate::quorum::{Epochs, Foreigners, LinkId, PeerRules, Timing};
    use crate::state::{JointVerdict, Loader, StateRules};
    use crate::txn::{Txn, TxnBody, TxnHeader};

    fn observer(id: i64, observer_pauses_ms: [i64; 2]) -> Peer {
        let members = format!("server.1=h:1:2\nserver.{id}=h:1:2:observer\n");
        Peer::new(start(id, Members::parse_text(members.as_bytes()).unwrap(), observer_pauses_ms), 0)
    }

    fn start(id: i64, committed: Members, observer_pauses_ms: [i64; 2]) -> PeerStart {
        let timing = Timing { tick_ms: 1000, init_ms: 5000, sync_ms: 2000, connect_ms: 5000 };
        PeerStart {
            my_id: ServerId(id),
            configs: Configs { committed, last_seen: None, reconfig_enabled: false },
            rules: PeerRules { observer_pauses_ms, ..timing.into() },
            epochs: Epochs::default(),
            last: Zxid::ZERO,
            recent: Vec::new(),
            tree: None,
            earlier: None,
            marks: Vec::new(),
            gives_up: false,
            damage: None,
            wrong_join: None,
            foreigners: Foreigners::new(),
            hello: Vec::new(),
            read_only_after_ms: None,
            observer_logs: true,
        }
    }

    /// A voter that was being sent a snapshot when its leader died, and has settled since.
    fn bereft() -> (Peer, Zxid) {
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let last = Zxid(1 << 32 | 5);
        let epochs = Epochs { accepted: 1, current: 1 };
        let mut peer = Peer::new(PeerStart { last, epochs, ..start(2, members, [0, 0]) }, 0);
        let history = History::new(last, Vec::new());
        let (configs, rules) = (peer.configs.clone(), peer.rules);
        let learner = Learner::new(ServerId(2), false, ServerId(3), configs, rules, epochs, history, last, 0);
        peer.doing = Doing::Learning(Box::new(learner));
        let link = LinkId(9);
        peer.on_leader_connected(link);
        let snap = Packet::Snap { zxid: Zxid(1 << 32 | 9), told: None };
        peer.on_packets(link, [Packet::LeaderInfo { epoch: 2, ours: None }, snap]);
        assert!(!peer.wants_packets());
        peer.take_effects();
        peer.on_link_closed(link);
        peer.on_inner(ToQuorum::Forgotten);
        peer.on_inner(ToQuorum::Settled { zxid: last, tree: None });
        let truncated = |effect: &Effect| match effect {
            Effect::Truncate { to, dropped: Dropped::Contained } => Some(*to),
            _ => None,
        };
        assert_eq!(peer.take_effects().iter().find_map(truncated), Some(last), "a truncation that leaves all");
        assert!(matches!(peer.doing, Doing::Settling { .. }), "without its state it must not lead");
        (peer, last)
    }

    #[test]
    fn a_state_that_was_forgotten_for_a_snapshot_that_did_not_come_is_read_again() {
        let (mut peer, last) = bereft();
        peer.on_truncated(Ok(last));
        assert!(matches!(peer.doing, Doing::Looking { .. }) && !peer.hollow && peer.damage.is_none());
        let (mut peer, _) = bereft();
        peer.on_truncated(Err("the disk is gone".to_owned()));
        assert!(matches!(peer.doing, Doing::Looking { .. }) && peer.abstains() && peer.wants_snapshot);
        assert!(peer.take_effects().iter().all(|effect| !matches!(effect, Effect::Truncate { .. })));
    }

    const JOINT: Zxid = Zxid(2 << 32 | 5);

    fn record(zxid: Zxid) -> LogRecord {
        let header = TxnHeader { client_id: SessionId(7), cxid: 1, zxid, time_ms: 1 };
        LogRecord { zxid, payload: Txn { header, body: TxnBody::Error(-101), digest: None }.to_bytes() }
    }

    /// Server 2 of three, whose history ends there in epoch 2; the end of epoch 1 is known to be agreed upon.
    fn voter(last: Zxid) -> Peer {
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let epochs = Epochs { accepted: 2, current: 2 };
        let recent = (1..=last.counter()).map(|counter| record(Zxid(2 << 32 | i64::from(counter)))).collect();
        let start = start(2, members, [0, 0]);
        let mut peer = Peer::new(PeerStart { last, epochs, recent, earlier: Some(Zxid(1 << 32 | 7)), ..start }, 0);
        peer.take_effects();
        peer
    }

    /// Server 3, which tells nothing of its history, leads this one in epoch 4, and puts its own behind the joint. What it
    /// says next is said here.
    fn follow(peer: &mut Peer, mode: Packet) -> LinkId {
        follow_in(4, peer, mode)
    }

    fn follow_in(epoch: u32, peer: &mut Peer, mode: Packet) -> LinkId {
        elect(peer, Vote { leader: ServerId(3), zxid: Zxid(3 << 32 | 9), epoch: 3 });
        let link = LinkId(9);
        peer.on_leader_connected(link);
        peer.on_packets(link, [Packet::LeaderInfo { epoch, ours: None }, mode]);
        link
    }

    fn elect(peer: &mut Peer, vote: Vote) {
        (peer.vote, peer.vote_has_epoch) = (vote, false);
        peer.elected = Some(vote);
        peer.pump();
    }

    fn propose_and_commit(zxid: Zxid) -> [Packet; 2] {
        [Packet::Proposal { zxid, payload: record(zxid).payload }, Packet::Commit { zxid }]
    }

    /// It serves as a follower of that leader, which has sent it another transaction of epoch 2.
    fn deceived() -> Peer {
        let mut peer = voter(JOINT);
        let link = follow(&mut peer, Packet::Diff { zxid: JOINT.next() });
        let new_leader = Packet::NewLeader { zxid: Zxid(4 << 32), config: Vec::new() };
        peer.on_packets(link, propose_and_commit(JOINT.next()).into_iter().chain([new_leader]));
        peer.on_inner(ToQuorum::Durable { zxid: JOINT.next(), at_us: 0 });
        peer.on_inner(ToQuorum::CaughtUp);
        peer.on_packets(link, [Packet::UpToDate]);
        assert!(peer.is_serving() && peer.epochs.current == 4);
        peer.take_effects();
        peer
    }

    fn wrong(joint: Zxid, seen: Zxid) -> ToQuorum {
        ToQuorum::Joint(JointVerdict::Wrong(WrongJoint { joint, seen }))
    }

    /// What is done about files, in order.
    fn on_disk(peer: &mut Peer) -> Vec<String> {
        let told = |effect: Effect| match effect {
            Effect::Truncate { .. }
            | Effect::SetCurrentEpoch(_)
            | Effect::SetBackEpoch(_)
            | Effect::MarkWrongJoin(_) => Some(format!("{effect:?}")),
            _ => None,
        };
        peer.take_effects().into_iter().filter_map(told).collect()
    }

    fn marked(joint: Zxid, last: Zxid, stage: JoinStage) -> String {
        marks(WrongJoin { joint, last, stage, ..MARK })
    }

    const MARK: WrongJoin = WrongJoin {
        joint: JOINT,
        epoch: 2,
        last: JOINT,
        agreed: Zxid(1 << 32 | 7),
        leader: ServerId(3),
        stage: JoinStage::Unproven,
    };

    fn marks(wrong: WrongJoin) -> String {
        format!("{:?}", Effect::MarkWrongJoin(Some(wrong)))
    }

    fn taken_out(to: Zxid) -> String {
        format!("{:?}", Effect::Truncate { to, dropped: Dropped::Foreign })
    }

    #[test]
    fn what_a_leader_with_another_history_sent_is_taken_back() {
        let mut peer = deceived();
        peer.on_inner(wrong(JOINT, JOINT.next()));
        assert_eq!(on_disk(&mut peer), [marked(JOINT, JOINT, JoinStage::Joined)], "a start knows of it first of all");
        peer.on_inner(ToQuorum::Settled { zxid: JOINT.next(), tree: None });
        assert_eq!(on_disk(&mut peer), [taken_out(JOINT)]);
        assert!(matches!(peer.doing, Doing::Settling { .. }), "it must not be said in an election before it is gone");
        peer.on_truncated(Ok(JOINT));
        assert_eq!(on_disk(&mut peer), ["SetBackEpoch(2)", "MarkWrongJoin(None)"]);
        // It votes as it did before: for those who have its history, and not for that leader nor another one like it.
        assert_eq!(peer.epochs, Epochs { accepted: 4, current: 2 });
        let Doing::Looking { last, history, .. } = &peer.doing else { panic!("it looks for a leader") };
        assert_eq!(
            (*last, history.agreed()),
            (JOINT, Zxid(1 << 32 | 7)),
            "what that leader knew of agreement is not so"
        );
        assert!(peer.refused.contains_key(&ServerId(3)) && peer.strange.contains_key(&ServerId(3)) && !peer.abstains());
        let ends = JOINT.next()..=Zxid(4 << 32 | 0xffff_ffff);
        assert_eq!(
            peer.refused_histories,
            BTreeMap::from([(ServerId(3), ends.into())]),
            "nor is it told to forget its own"
        );
        // Where nobody comes of it, an operator hears of it.
        peer.set_time(peer.alarm_ms);
        peer.tick();
        let alarm = peer.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Alarm(text) => Some(text),
            _ => None,
        });
        let alarm = alarm.expect("an alarm");
        assert!(alarm.contains("does not help to elect server 3: its history up to 0x200000005"), "{alarm}");
        assert!(alarm.contains("If its data are the right ones: stop the other servers"), "{alarm}");
    }

    #[test]
    fn a_start_and_a_leader_are_told_whose_history_is_another_one() {
        let ends = Ends::from(JOINT.next()..=Zxid(4 << 32 | 0xffff_ffff));
        let mut peer = deceived();
        peer.on_inner(wrong(JOINT, JOINT.next()));
        let kept = peer.take_effects().into_iter().take_while(|effect| !matches!(effect, Effect::MarkWrongJoin(_)));
        let kept = kept.filter_map(|effect| match effect {
            Effect::KeepForeigners(foreigners) => Some(foreigners),
            _ => None,
        });
        let foreigners = kept.last().expect("before anything is taken back");
        let strange = "its history up to 0x200000005 is another one than that of the leader which it followed from there: \
                       the data digest of 0x200000006 does not fit";
        let foreign = Foreign { ends: ends.clone(), strange: Some(strange.to_owned()) };
        assert_eq!(foreigners, Foreigners::from([(ServerId(3), foreign)]));
        let begun = |foreigners: Foreigners| {
            let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
            let epochs = Epochs { accepted: 4, current: 2 };
            let start = PeerStart { last: JOINT, epochs, foreigners, ..start(2, members, [0, 0]) };
            Peer::new(start, 0)
        };
        let mut peer = begun(foreigners);
        assert!(peer.strange.contains_key(&ServerId(3)) && !peer.abstains());
        peer.take_effects();
        elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
        let link = LinkId(9);
        peer.on_leader_connected(link);
        peer.on_packets(link, [Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) }]);
        let told = peer.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Send { packet: Packet::AckEpoch { reach, .. }, .. } => reach,
            _ => None,
        });
        assert_eq!(told.expect("its history").foreign, BTreeMap::from([(ServerId(3), ends)]));
        // It holds a leader's history: who is elected is not for it to doubt; that one may still be in the way.
        let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
        peer.on_packets(link, [Packet::Diff { zxid: JOINT }, new_leader]);
        assert_eq!(peer.foreigners.values().map(|foreign| foreign.strange.clone()).collect::<Vec<_>>(), [None]);
        peer.on_link_closed(link);
        peer.on_inner(ToQuorum::Settled { zxid: JOINT, tree: None });
        follow_in(6, &mut peer, Packet::Trunc { zxid: Zxid(JOINT.0 - 1) });
        let last = peer.take_effects().into_iter().rev().find_map(|effect| match effect {
            Effect::KeepForeigners(foreigners) => Some(foreigners),
            _ => None,
        });
        assert_eq!(last, Some(Foreigners::new()), "its history is another one now");
    }

    #[test]
    fn what_a_leader_of_ours_says_of_other_histories_holds_here_once_this_server_has_its_own() {
        let ends = || Ends::from(JOINT.next()..=Zxid(4 << 32 | 9));
        let mut peer = voter(JOINT);
        elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
        let link = LinkId(9);
        peer.on_leader_connected(link);
        let none = Ends::from(Zxid::ZERO..=Zxid(9));
        let ours = Some(BTreeMap::from([(ServerId(2), ends()), (ServerId(3), ends()), (ServerId(99), ends())]));
        peer.on_packets(link, [Packet::LeaderInfo { epoch: 5, ours }, Packet::Diff { zxid: JOINT }]);
        assert!(peer.refused_histories.is_empty());
        peer.on_packets(link, [Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() }]);
        assert_eq!(peer.refused_histories, BTreeMap::from([(ServerId(3), ends())]));
        assert_eq!(peer.foreigners, BTreeMap::from([(ServerId(3), Foreign { ends: ends(), strange: None })]));
        // Nobody is kept out for ever.
        peer.on_link_closed(link);
        peer.on_inner(ToQuorum::Settled { zxid: JOINT, tree: None });
        elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 5 });
        peer.on_leader_connected(link);
        let ours = Some(BTreeMap::from([(ServerId(1), none)]));
        let new_leader = Packet::NewLeader { zxid: Zxid(6 << 32), config: Vec::new() };
        peer.on_packets(link, [Packet::LeaderInfo { epoch: 6, ours }, Packet::Diff { zxid: JOINT }, new_leader]);
        assert_eq!(peer.refused_histories.keys().collect::<Vec<_>>(), [&ServerId(3)]);
    }

    #[test]
    fn a_later_history_that_was_refused_is_not_elected_where_its_leader_is_gone() {
        // Nothing was written in epoch 7.
        let later = HistoryEnd { epoch: 7, last: JOINT };
        let foreign = ForeignEnds::from([(ServerId(3), Ends::at(later))]);
        let says = |peer: &mut Peer, foreign: ForeignEnds| {
            peer.on_packets(LinkId(9), [Packet::TellingPing { zxid: Zxid(5 << 32), foreign }]);
        };
        let told = || {
            let mut peer = voter(JOINT);
            elect(&mut peer, Vote { leader: ServerId(1), zxid: JOINT, epoch: 2 });
            peer.on_leader_connected(LinkId(9));
            let info = Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) };
            let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
            peer.on_packets(LinkId(9), [info, Packet::Diff { zxid: JOINT }, new_leader, Packet::UpToDate]);
            // It follows already when its leader refuses that one. What it says of strangers and of this server is passed over.
            let others = [2, 99].map(|id| (ServerId(id), Ends::at(later)));
            says(&mut peer, foreign.clone().into_iter().chain(others).collect());
            assert!(peer.is_serving());
            assert_eq!(peer.refused_histories, foreign);
            peer
        };
        let leave = |peer: &mut Peer| {
            peer.on_link_closed(LinkId(9));
            peer.on_inner(ToQuorum::Settled { zxid: JOINT, tree: None });
            assert!(matches!(peer.doing, Doing::Looking { .. }));
            peer.take_effects();
        };
        let elects = |peer: &mut Peer, HistoryEnd { epoch, last }| {
            let vote = Vote { leader: ServerId(3), zxid: last, epoch: i64::from(epoch) };
            let word = Notification { state: PeerState::Looking, vote, round: 9, version: 2, config: None };
            peer.note_history(ServerId(3), &word);
            peer.election.on_notification(ServerId(3), &word, peer.now_ms);
            peer.set_time(peer.now_ms + 1000);
            peer.tick();
            matches!(peer.doing, Doing::Learning(_))
        };
        let mut peer = told();
        leave(&mut peer);
        assert!(!elects(&mut peer, later));
        peer.set_time(peer.next_deadline_ms().max(peer.alarm_ms));
        peer.tick();
        let alarm = peer.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Alarm(text) => Some(text),
            _ => None,
        });
        let alarm = alarm.expect("an alarm");
        assert!(
            alarm.contains(
                "does not help to elect server 3: its history of epoch 0x7, up to 0x200000005, is not the one"
            ),
            "{alarm}"
        );
        assert!(alarm.contains("stop server 3, move its version-2 folder away, and start it again"), "{alarm}");
        // A start knows of it, too. Whoever gives up its own history helps, and asks for all of the other one.
        for gives_up in [false, true] {
            let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
            let (epochs, foreigners) = (Epochs { accepted: 5, current: 5 }, peer.foreigners.clone());
            let start = PeerStart { last: JOINT, epochs, foreigners, gives_up, ..start(2, members, [0, 0]) };
            let mut begun = Peer::new(start, 0);
            assert_eq!(elects(&mut begun, later), gives_up);
            if !gives_up {
                continue;
            }
            begun.on_leader_connected(LinkId(9));
            begun.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 8, ours: None }]);
            let said = begun.take_effects().into_iter().find_map(|effect| match effect {
                Effect::Send { packet: Packet::AckEpoch { zxid, epoch, .. }, .. } => Some((zxid, epoch)),
                _ => None,
            });
            assert_eq!(said, Some((Zxid::ZERO, Some(5))), "it counts, or nobody leads");
        }
        // It comes with another history, or with one of this ensemble that ends there.
        assert!(elects(&mut peer, HistoryEnd { epoch: 5, last: Zxid(5 << 32 | 9) }));
        let mut peer = told();
        leave(&mut peer);
        assert!(elects(&mut peer, HistoryEnd { epoch: 5, last: JOINT }));
        // The leader took it meanwhile.
        let mut peer = told();
        says(&mut peer, ForeignEnds::new());
        assert!(peer.foreigners.is_empty());
        leave(&mut peer);
        assert!(elects(&mut peer, later));
    }

    #[test]
    fn a_later_history_that_lacks_what_was_agreed_upon_is_not_elected_again() {
        let refuses = |epoch| {
            let mut peer = voter(JOINT);
            elect(&mut peer, Vote { leader: ServerId(3), zxid: Zxid(1 << 32 | 6), epoch });
            peer.on_leader_connected(LinkId(9));
            let trunc = Packet::Trunc { zxid: Zxid(1 << 32 | 6) };
            peer.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 4, ours: None }, trunc]);
            assert!(!matches!(peer.doing, Doing::Learning(_)) && peer.refused.contains_key(&ServerId(3)));
            peer.refused_histories
        };
        let end = HistoryEnd { epoch: 3, last: Zxid(1 << 32 | 6) };
        assert_eq!(refuses(3), ForeignEnds::from([(ServerId(3), Ends::at(end))]));
        assert!(refuses(2).is_empty(), "one that is only behind");
    }

    #[test]
    fn a_leader_that_is_stopped_keeps_whom_it_left_out_for_its_next_start() {
        let mut peer = voter(JOINT);
        peer.refused_histories = BTreeMap::from([(ServerId(3), (JOINT.next()..=JOINT.next()).into())]);
        elect(&mut peer, Vote { leader: ServerId(2), zxid: JOINT, epoch: 2 });
        assert!(matches!(peer.doing, Doing::Leading(_)) && peer.foreigners.contains_key(&ServerId(3)));
        peer.on_inner(ToQuorum::Stop);
        // What comes in later changes nothing of it.
        peer.pump();
        assert!(matches!(peer.doing, Doing::Stopped) && peer.foreigners.contains_key(&ServerId(3)));
    }

    #[test]
    fn a_server_that_comes_with_a_third_history_or_none_is_no_longer_the_one_that_was_found_out() {
        let found_out = || {
            let mut peer = deceived();
            peer.on_inner(wrong(JOINT, JOINT.next()));
            peer.on_inner(ToQuorum::Settled { zxid: JOINT.next(), tree: None });
            peer.on_truncated(Ok(JOINT));
            assert!(matches!(peer.doing, Doing::Looking { .. }));
            peer.take_effects();
            peer
        };
        let hears = |peer: &mut Peer, zxid| {
            let vote = Vote { leader: ServerId(3), zxid, epoch: i64::from(zxid.epoch()) };
            let word = Notification { state: PeerState::Looking, vote, round: 1, version: 2, config: None };
            peer.note_history(ServerId(3), &word);
            peer.pump();
            let kept = peer.take_effects().into_iter().find_map(|effect| match effect {
                Effect::KeepForeigners(foreigners) => Some(foreigners),
                _ => None,
            });
            (kept, peer.strange.is_empty() && peer.refused_histories.is_empty())
        };
        // It has that history still.
        for end in [JOINT.next(), Zxid(3 << 32 | 9), Zxid(4 << 32 | 7)] {
            assert_eq!(hears(&mut found_out(), end), (None, false), "{end}");
        }
        // Its files were moved away, and a leader may have sent it what the ensemble has.
        for end in [Zxid::ZERO, Zxid(5 << 32 | 1)] {
            assert_eq!(hears(&mut found_out(), end), (Some(Foreigners::new()), true), "{end}");
        }
    }

    #[test]
    fn what_was_joined_before_anything_proved_it_is_taken_back_with_what_followed() {
        // The first of two leaders sends nothing whose digest tells.
        let seen = Zxid(5 << 32 | 1);
        let (mut peer, last) = left();
        assert!(matches!(peer.doing, Doing::Looking { .. }));
        let link = follow(&mut peer, Packet::Diff { zxid: last });
        peer.on_packets(link, propose_and_commit(seen));
        peer.take_effects();
        // The pipeline may know of the last one alone.
        peer.on_inner(wrong(last, seen));
        assert_eq!(on_disk(&mut peer), [marked(JOINT, JOINT, JoinStage::Joined)]);
        // Once a digest fits, that is over.
        let mut peer = deceived();
        peer.on_inner(ToQuorum::Joint(JointVerdict::Right));
        peer.on_link_closed(LinkId(9));
        peer.on_inner(ToQuorum::Settled { zxid: last, tree: None });
        let link = follow(&mut peer, Packet::Diff { zxid: last });
        peer.on_packets(link, propose_and_commit(seen));
        peer.take_effects();
        peer.on_inner(wrong(last, seen));
        let mark =
            WrongJoin { joint: last, epoch: 4, last, agreed: last, leader: ServerId(3), stage: JoinStage::Joined };
        assert_eq!(on_disk(&mut peer), [marks(mark)]);
    }

    #[test]
    fn a_start_is_told_of_a_joint_before_anything_behind_it_is_logged_and_until_something_told_of_it() {
        let logged = |effect: Effect| match effect {
            Effect::MarkWrongJoin(_) | Effect::Truncate { .. } => Some(format!("{effect:?}")),
            Effect::Log(_) => Some("log".to_owned()),
            _ => None,
        };
        let logged = |peer: &mut Peer| peer.take_effects().into_iter().filter_map(logged).collect::<Vec<_>>();
        let (unproven, gone) = (marks(MARK), format!("{:?}", Effect::MarkWrongJoin(None)));
        let mut peer = voter(JOINT);
        let link = follow(&mut peer, Packet::Diff { zxid: JOINT });
        assert!(logged(&mut peer).is_empty(), "nothing is there");
        peer.on_packets(link, propose_and_commit(JOINT.next()));
        assert_eq!(logged(&mut peer), [unproven.as_str(), "log"]);
        peer.on_packets(link, propose_and_commit(JOINT.next().next()));
        assert_eq!(logged(&mut peer), ["log"]);
        // It stays when another leader tells as little.
        peer.on_link_closed(link);
        let last = JOINT.next().next();
        peer.on_inner(ToQuorum::Durable { zxid: last, at_us: 0 });
        peer.on_inner(ToQuorum::Settled { zxid: last, tree: None });
        let link = follow(&mut peer, Packet::Diff { zxid: last });
        peer.on_packets(link, propose_and_commit(last.next()));
        assert_eq!(logged(&mut peer), ["log"]);
        peer.on_inner(ToQuorum::Joint(JointVerdict::Right));
        assert_eq!(logged(&mut peer), [gone.as_str()]);
        peer.on_packets(link, propose_and_commit(last.next().next()));
        assert_eq!(logged(&mut peer), ["log"]);
        // What is cut off for a leader is told of before.
        let own_end = Zxid(JOINT.0 + 2);
        let mut peer = voter(own_end);
        let link = follow(&mut peer, Packet::Trunc { zxid: JOINT });
        let cut = format!("{:?}", Effect::Truncate { to: JOINT, dropped: Dropped::Tail });
        assert_eq!(logged(&mut peer), [marked(JOINT, own_end, JoinStage::Unproven), cut]);
        peer.on_truncated(Ok(JOINT));
        peer.on_packets(link, propose_and_commit(Zxid(3 << 32 | 1)));
        assert_eq!(logged(&mut peer), ["log"]);
        peer.on_inner(ToQuorum::Joint(JointVerdict::Open));
        assert_eq!(logged(&mut peer), [gone]);
    }

    #[test]
    fn what_a_start_knows_of_a_joint_goes_with_what_it_was_known_of() {
        let begun = |stage| {
            let mut peer = voter(Zxid(JOINT.0 + 3));
            let members = peer.configs.committed.clone();
            let epochs = Epochs { accepted: 4, current: 4 };
            let wrong_join = Some(WrongJoin { stage, ..MARK });
            let start = PeerStart { last: Zxid(JOINT.0 + 3), epochs, wrong_join, ..start(2, members, [0, 0]) };
            peer = Peer::new(start, 0);
            peer.take_effects();
            peer
        };
        let mut peer = begun(JoinStage::Unproven);
        assert!(!peer.abstains());
        // What was noted of the time before counts.
        let seen = Zxid(5 << 32 | 1);
        let link = follow_in(5, &mut peer, Packet::Diff { zxid: Zxid(JOINT.0 + 3) });
        peer.on_packets(link, propose_and_commit(seen));
        assert!(on_disk(&mut peer).is_empty());
        peer.on_inner(wrong(JOINT, seen));
        assert_eq!(on_disk(&mut peer), [marks(WrongJoin { stage: JoinStage::Joined, ..MARK })]);
        // This server leads.
        let mut peer = begun(JoinStage::Unproven);
        elect(&mut peer, Vote { leader: ServerId(2), zxid: Zxid(JOINT.0 + 3), epoch: 4 });
        let link = LinkId(10);
        peer.on_learner_connected(link);
        let (accepted_epoch, server) = (4, Some(ServerId(1)));
        let info = LearnerInfo {
            observer: false,
            accepted_epoch,
            server,
            protocol: 0x10000,
            config_version: 0,
            history: None,
        };
        let ack = Packet::Ack { zxid: Zxid(5 << 32) };
        let promise = Packet::AckEpoch { zxid: Zxid(JOINT.0 + 3), epoch: Some(4), reach: None };
        peer.on_packets(link, [Packet::LearnerInfo(info), promise]);
        assert_eq!(on_disk(&mut peer), ["SetCurrentEpoch(5)"], "it may end before anybody has it");
        peer.on_packets(link, [ack.clone(), ack]);
        assert!(peer.is_serving() && peer.joined.is_none());
        assert_eq!(on_disk(&mut peer), ["MarkWrongJoin(None)"]);
    }

    /// It followed that leader, of which nothing told, and is looking for another one.
    fn left() -> (Peer, Zxid) {
        let (mut peer, last) = (deceived(), JOINT.next());
        peer.on_link_closed(LinkId(9));
        peer.on_inner(ToQuorum::Settled { zxid: last, tree: None });
        (peer, last)
    }

    /// Its leader of epoch 5 is gone; one with another history leads in epoch 6, and only what that sent is taken back.
    fn takes_back_nothing_before(mut peer: Peer, last: Zxid) {
        for now_ms in (0..10_000).step_by(500) {
            peer.set_time(now_ms);
            peer.tick();
        }
        peer.on_inner(ToQuorum::Settled { zxid: last, tree: None });
        let (seen, epoch) = (Zxid(6 << 32 | 1), peer.epochs.current);
        assert!(matches!(peer.doing, Doing::Looking { .. }) && epoch == 5);
        let link = follow_in(6, &mut peer, Packet::Diff { zxid: last });
        peer.on_packets(link, propose_and_commit(seen));
        peer.take_effects();
        peer.on_inner(wrong(last, seen));
        let agreed = peer.entered.agreement.last();
        let mark = WrongJoin { joint: last, epoch, last, agreed, stage: JoinStage::Joined, ..MARK };
        assert_eq!(on_disk(&mut peer), [marks(mark)]);
    }

    #[test]
    fn what_a_quorum_had_since_is_not_taken_back_with_what_was_joined_before() {
        // It led, and server 1 has what it has.
        let (mut peer, joined) = left();
        elect(&mut peer, Vote { leader: ServerId(2), zxid: joined, epoch: 4 });
        let (link, led) = (LinkId(10), Zxid(5 << 32 | 1));
        peer.on_learner_connected(link);
        let follower = LearnerInfo {
            observer: false,
            accepted_epoch: 4,
            server: Some(ServerId(1)),
            protocol: 0x10000,
            config_version: 0,
            history: None,
        };
        let ack = Packet::Ack { zxid: Zxid(5 << 32) };
        let promise = Packet::AckEpoch { zxid: joined, epoch: Some(4), reach: None };
        peer.on_packets(link, [Packet::LearnerInfo(follower), promise, ack.clone(), ack]);
        assert!(peer.is_serving() && peer.state() == PeerState::Leading);
        peer.on_inner(ToQuorum::Proposed(vec![record(led)]));
        peer.on_inner(ToQuorum::Durable { zxid: led, at_us: 0 });
        peer.on_packets(link, [Packet::Ack { zxid: led }]);
        peer.on_link_closed(link);
        takes_back_nothing_before(peer, led);
        // Or it followed a leader that compared the two histories.
        let (mut peer, joined) = left();
        elect(&mut peer, Vote { leader: ServerId(1), zxid: joined, epoch: 4 });
        let link = LinkId(10);
        peer.on_leader_connected(link);
        let new_leader = Packet::NewLeader { zxid: Zxid(5 << 32), config: Vec::new() };
        let diff = Packet::Diff { zxid: joined };
        peer.on_packets(
            link,
            [Packet::LeaderInfo { epoch: 5, ours: Some(ForeignEnds::new()) }, diff, new_leader, Packet::UpToDate],
        );
        assert!(peer.is_serving());
        peer.on_link_closed(link);
        takes_back_nothing_before(peer, joined);
    }

    /// Its own end was cut off for that leader, before it was found out.
    fn shortened() -> Peer {
        let own_end = Zxid(JOINT.0 + 2);
        let mut peer = voter(own_end);
        let link = follow(&mut peer, Packet::Trunc { zxid: JOINT });
        peer.on_truncated(Ok(JOINT));
        peer.on_packets(link, propose_and_commit(Zxid(3 << 32 | 1)));
        peer.take_effects();
        peer.on_inner(wrong(JOINT, Zxid(3 << 32 | 1)));
        assert_eq!(on_disk(&mut peer), [marked(JOINT, own_end, JoinStage::Joined)]);
        // The next leader is told of it. If that one is elected again, it is followed: this server has no voice.
        assert!(peer.foreigners[&ServerId(3)].ends.contains(Zxid(3 << 32 | 9)) && peer.strange.is_empty());
        peer.on_inner(ToQuorum::Durable { zxid: Zxid(3 << 32 | 1), at_us: 0 });
        peer.on_inner(ToQuorum::Settled { zxid: Zxid(3 << 32 | 1), tree: None });
        assert_eq!(on_disk(&mut peer), [taken_out(JOINT)]);
        peer
    }

    #[test]
    fn a_server_whose_end_was_cut_off_for_a_leader_with_another_history_does_not_help_to_elect() {
        let own_end = Zxid(JOINT.0 + 2);
        let mut peer = shortened();
        peer.on_truncated(Ok(JOINT));
        assert_eq!(on_disk(&mut peer), ["SetBackEpoch(2)".to_owned(), marked(JOINT, own_end, JoinStage::Short)]);
        assert!(peer.abstains() && peer.epochs.current == 2);
        // Nor after a start, until it has the history of a leader.
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let mark = WrongJoin { last: own_end, stage: JoinStage::Short, ..MARK };
        let epochs = Epochs { accepted: 4, current: 2 };
        let start = PeerStart { last: JOINT, epochs, wrong_join: Some(mark), ..start(2, members, [0, 0]) };
        let mut peer = Peer::new(start, 0);
        assert!(peer.abstains());
        let link = follow(&mut peer, Packet::Snap { zxid: Zxid(4 << 32), told: None });
        peer.gives_up = true;
        peer.on_inner(ToQuorum::Forgotten);
        if let Doing::Learning(learner) = &mut peer.doing {
            learner.give_up();
        }
        peer.on_snapshot(Box::new(Loader::new(StateRules::default()).finish(Zxid(4 << 32))));
        peer.on_inner(ToQuorum::Installed { zxid: Zxid(4 << 32) });
        assert!(peer.abstains() && on_disk(&mut peer).is_empty());
        peer.on_packets(link, [Packet::NewLeader { zxid: Zxid(4 << 32), config: Vec::new() }]);
        assert_eq!(on_disk(&mut peer), ["SetCurrentEpoch(4)", "MarkWrongJoin(None)"]);
        assert!(!peer.abstains());
    }

    #[test]
    fn a_server_that_cannot_take_back_what_was_sent_has_no_voice() {
        let mut peer = shortened();
        peer.on_truncated(Err("there is no snapshot that old".to_owned()));
        assert_eq!(on_disk(&mut peer), [marked(JOINT, Zxid(JOINT.0 + 2), JoinStage::Mixed)]);
        assert!(peer.abstains() && peer.wants_snapshot);
        assert!(peer.damage.as_ref().unwrap().contains("could not be taken out"), "{:?}", peer.damage);
    }

    #[test]
    fn a_foreign_history_stays_refused_until_this_servers_own_changes() {
        let ends = || BTreeMap::from([(ServerId(1), (JOINT..=JOINT).into())]);
        let joined = |mode: Packet| {
            let mut peer = voter(JOINT);
            peer.refused_histories = ends();
            follow(&mut peer, mode);
            peer
        };
        assert_eq!(joined(Packet::Diff { zxid: JOINT }).refused_histories, ends());
        assert!(joined(Packet::Trunc { zxid: Zxid(JOINT.0 - 1) }).refused_histories.is_empty());
        let mut peer = joined(Packet::Snap { zxid: Zxid(3 << 32 | 9), told: None });
        assert_eq!(peer.refused_histories, ends(), "it may not come");
        peer.on_inner(ToQuorum::Forgotten);
        if let Doing::Learning(learner) = &mut peer.doing {
            learner.give_up();
        }
        let other = || Box::new(Loader::new(StateRules::default()).finish(Zxid(3 << 32 | 9)));
        peer.on_snapshot(other());
        assert!(peer.refused_histories.is_empty());
        // Whatever becomes of this server before it serves with a leader of ours: what left its history within the part that
        // stays is another one still, and of a history that is taken over the leader has said it.
        let before = Zxid(JOINT.0 - 1);
        let told = BTreeMap::from([(ServerId(1), (Zxid(3 << 32 | 4)..=Zxid(3 << 32 | 4)).into())]);
        let joins_ours = |ends: &ForeignEnds, mode: Packet| {
            let mut peer = voter(JOINT);
            peer.refused_histories = ends.clone();
            elect(&mut peer, Vote { leader: ServerId(3), zxid: Zxid(3 << 32 | 9), epoch: 3 });
            peer.on_leader_connected(LinkId(9));
            peer.on_packets(LinkId(9), [Packet::LeaderInfo { epoch: 4, ours: Some(told.clone()) }, mode]);
            peer
        };
        let of_beginning = BTreeMap::from([(ServerId(1), (before..=JOINT).into())]);
        let trunc = || Packet::Trunc { zxid: before };
        assert_eq!(joins_ours(&of_beginning, trunc()).refused_histories, of_beginning);
        assert!(joins_ours(&ends(), trunc()).refused_histories.is_empty());
        let outdated = Told { relation: Relation::Contained, established: true };
        let mut peer = joins_ours(&ends(), Packet::Snap { zxid: Zxid(3 << 32 | 9), told: Some(outdated) });
        peer.on_inner(ToQuorum::Forgotten);
        peer.on_snapshot(other());
        assert_eq!(peer.refused_histories, told);
    }

    #[test]
    fn a_damaged_server_calls_an_operator_after_a_while_and_seldom_again_and_serves_nobody() {
        let members = Members::parse_text(b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\n").unwrap();
        let mut start = start(2, members, [0, 0]);
        start.damage = Some("log.5 cannot be read behind 0x7".into());
        start.read_only_after_ms = Some(2000);
        let mut peer = Peer::new(start, 0);
        let mut alarms = Vec::new();
        let mut now_ms = 0;
        while now_ms < 700_000 {
            for effect in peer.take_effects() {
                match effect {
                    Effect::Alarm(text) => alarms.push((now_ms, text)),
                    Effect::Pipeline(mail) => panic!("{mail:?}"),
                    _ => {}
                }
            }
            now_ms = peer.next_deadline_ms().clamp(now_ms + 1, now_ms + 60_000);
            peer.set_time(now_ms);
            peer.tick();
        }
        let times: Vec<i64> = alarms.iter().map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(times, [5000, 305_000, 605_000]);
        let expected =
            "server 2 has no leader to follow, and must not help to elect one: log.5 cannot be read behind 0x7";
        assert!(alarms[0].1.starts_with(expected), "{}", alarms[0].1);
        assert!(alarms[0].1.contains("out of reach: 1, 3."), "{}", alarms[0].1);
    }

    /// What is said on this link of an election.
    fn words(peer: &mut Peer, to: LinkId) -> Vec<(PeerState, Vote)> {
        let notification = |effect: Effect| match effect {
            Effect::SendElection { link, bytes } if link == to => Notification::decode(bytes.get(4..)?).ok(),
            _ => None,
        };
        peer.take_effects().into_iter().filter_map(notification).map(|n| (n.state, n.vote)).collect()
    }

    /// Server 1, which this one dials back, has a new link.
    fn comes(peer: &mut Peer, back: LinkId) -> Vec<(PeerState, Vote)> {
        peer.on_election_hello(LinkId(back.0 + 100), &Hello { server: ServerId(1), addresses: Vec::new() });
        peer.on_election_dialed(back, ServerId(1));
        let mut said = words(peer, back);
        for _ in 0..2 {
            peer.on_election_flushed(back);
            said.extend(words(peer, back));
        }
        said
    }

    #[test]
    fn a_new_link_begins_with_nothing_that_is_not_true_any_more() {
        let (mut peer, three) = (voter(JOINT), LinkId(3));
        peer.on_inner(ToQuorum::Settled { zxid: JOINT, tree: None });
        peer.on_election_hello(three, &Hello { server: ServerId(3), addresses: Vec::new() });
        let vote = Vote { leader: ServerId(3), zxid: JOINT.next(), epoch: 2 };
        let says = |state| Notification { state, vote, round: 1, version: 2, config: None };
        peer.on_notification(three, &says(PeerState::Looking));
        assert_eq!(comes(&mut peer, LinkId(11)), [(PeerState::Looking, vote)], "it is in time for this election");
        peer.on_election_closed(LinkId(11));

        // The vote is for nobody any more who comes with an empty disk and takes up what is better than its own.
        peer.set_time(1_000);
        peer.tick();
        assert!(matches!(peer.doing, Doing::Learning(_)));
        assert_eq!(comes(&mut peer, LinkId(12)), []);
        let asks =
            Notification { vote: Vote { leader: ServerId(1), zxid: Zxid(0), epoch: 0 }, ..says(PeerState::Looking) };
        peer.on_notification(LinkId(12), &asks);
        assert_eq!(words(&mut peer, LinkId(12)), [(PeerState::Following, vote)]);
        peer.on_election_flushed(LinkId(12));
        peer.on_election_closed(LinkId(12));

        // Nor whom it followed, once it does not.
        peer.set_time(20_000);
        peer.tick();
        peer.on_inner(ToQuorum::Settled { zxid: JOINT, tree: None });
        assert!(matches!(peer.doing, Doing::Looking { .. }));
        let own = Vote { leader: ServerId(2), zxid: JOINT, epoch: 2 };
        assert_eq!(comes(&mut peer, LinkId(13)), [(PeerState::Looking, own)]);
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
        let mut one = observer(2, [0, 1_000_000]);
        assert_ne!(one.pause_ms(), one.pause_ms());
        assert!(observer(2, [i64::MAX, i64::MAX]).pause_ms() >= 0);
        assert_eq!(observer(2, [0, 0]).pause_ms(), 0);
    }
}
