//! Fast leader election (`FastLeaderElection`, `Vote`): who leads is decided by votes that every server sends to all
//! voters, round by round. Pure: notifications and time in, notifications and at last a vote out. Driven by
//! [`super::peer`], which owns the roles between two elections.
//!
//! Two tables count votes while a server looks. `received` holds what was said in this very round; when a quorum says
//! what this server proposes, and nothing better is heard for a moment, that is the outcome. `established` holds what
//! servers with a role say, of whatever round: a late server joins the ensemble that they form.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::quorum::joint::{ForeignEnds, HistoryEnd};
use crate::quorum::notification::Notification;
use crate::quorum::{PeerState, Vote};

/// How long a quorum must stay unchallenged (`finalizeWait`).
const FINALIZE_MS: i64 = 200;
/// What a server without a vote votes for.
const NOBODY: ServerId = ServerId(i64::MIN);
/// The zxid of a server that must not lead nor count: its store is damaged, or unexpectedly empty. Apache passes over
/// votes with it, too.
pub(super) const UNTRUSTED: Zxid = Zxid(-1);
/// Form of the notifications that are sent.
const VERSION: i32 = 2;
/// Senders whose notification is kept until the election begins.
const MAX_HELD: usize = 64;

/// One server's part in all its elections, from start to end of the election port.
#[derive(Debug)]
pub struct Election {
    my_id: ServerId,
    min_wait_ms: i64,
    max_wait_ms: i64,
    /// `None` until the first `look` or `set_configs`.
    configs: Option<Configs>,
    /// The committed configuration as it is sent along.
    config_text: Vec<u8>,
    stage: Stage,
    /// The logical clock; 0 at the start of the process.
    round: i64,

    /// The outcome of the last election, as others are told it; its epoch follows the leader's.
    vote: Vote,
    /// The round in which that was decided; -1 if this server got its role without an election.
    vote_round: i64,

    /// The vote that this election began with.
    own: Vote,
    /// The best vote heard in this round, or `own`.
    proposal: Vote,
    received: BTreeMap<ServerId, Heard>,
    established: BTreeMap<ServerId, Heard>,
    /// Who agreed when the last election was decided.
    electors: BTreeSet<ServerId>,
    /// `received` holds a quorum for `proposal`: at `deadline_ms` it is the outcome.
    finalizing: bool,
    wait_ms: i64,
    deadline_ms: i64,

    /// Servers that can be spoken to.
    linked: BTreeSet<ServerId>,
    /// What came while nobody could say what it means: the last of each sender.
    held: BTreeMap<ServerId, Notification>,
    /// What was answered last where one of the two has no vote, and when.
    answered: BTreeMap<ServerId, (Notification, i64)>,
    /// Who is passed over.
    shunned: Shunned,
    output: ElectionOutput,
}

/// What an election wants done.
#[derive(Debug, Default)]
pub struct ElectionOutput {
    /// Notifications, in order; never one to this server itself.
    pub sends: Vec<(ServerId, Notification)>,
    /// Nothing was heard for a while: dial every server that is not connected ([`super::links::Links::connect`]).
    pub connect_all: bool,
    /// The election is over: this server leads if it is the vote's leader, else it follows or observes it.
    pub elected: Option<Vote>,
}

/// Whose histories lack what is in this server's.
///
/// Who was elected without this server is joined all the same, unless that is excluded too: it tells how matters stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shunned {
    /// Neither elected nor joined.
    pub leaders: BTreeSet<ServerId>,
    /// Not elected.
    pub strange: BTreeSet<ServerId>,
    /// Nor are these, with that history.
    pub foreign: ForeignEnds,
    /// Nobody is elected whose last transaction is of one of these epochs. Unless a majority lost its data, all that is of
    /// one epoch follows one history, and what one of its members lacks, the others lack too. That is why it is for a while.
    pub epochs: BTreeSet<u32>,
}

impl Shunned {
    fn has(&self, n: &Notification) -> bool {
        let elects = n.state == PeerState::Looking;
        let is_foreign = |vote: &Vote| {
            let end = HistoryEnd { epoch: u32::try_from(vote.epoch).unwrap_or(0), last: vote.zxid };
            self.foreign.get(&vote.leader).is_some_and(|ends| ends.may_be(end))
        };
        let lacks = |vote: &Vote| {
            self.strange.contains(&vote.leader) || is_foreign(vote) || self.epochs.contains(&vote.zxid.epoch())
        };
        self.leaders.contains(&n.vote.leader) || (elects && lacks(&n.vote))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No role, and the next election has not begun.
    Away,
    Voting,
    /// A role, which LOOKING peers are told about.
    Concluded(PeerState),
}

/// One server's word, as it is counted.
#[derive(Clone, Copy, Debug)]
struct Heard {
    state: PeerState,
    vote: Vote,
    round: i64,
    version: i32,
}

impl Heard {
    /// Whether two votes count as one (`Vote.equals`). The zxid and round of a server with a role are those of its own
    /// last election and differ between members of one ensemble. A form without version has no trustworthy epoch.
    fn agrees(&self, other: &Heard) -> bool {
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote && self.round == other.round;
        }
        let one_is_old = (self.version > 0) != (other.version > 0);
        self.vote.leader == other.vote.leader && (one_is_old || self.vote.epoch == other.vote.epoch)
    }
}

impl Election {
    /// Round 0, nothing known. The module is restarted (after a change of the configuration) by making a new one. Votes are
    /// sent again after the first wait, then after twice that, up to the second (`PeerRules::notification_interval_ms`).
    pub fn new(my_id: ServerId, (min_wait_ms, max_wait_ms): (i64, i64)) -> Election {
        let nothing = Vote { leader: NOBODY, zxid: Zxid(i64::MIN), epoch: i64::MIN };
        Election {
            my_id,
            min_wait_ms: min_wait_ms.max(1),
            max_wait_ms: max_wait_ms.max(min_wait_ms).max(1),
            configs: None,
            config_text: Vec::new(),
            stage: Stage::Away,
            round: 0,
            vote: nothing,
            vote_round: -1,
            own: nothing,
            proposal: nothing,
            received: BTreeMap::new(),
            established: BTreeMap::new(),
            electors: BTreeSet::new(),
            finalizing: false,
            wait_ms: min_wait_ms,
            deadline_ms: i64::MAX,
            linked: BTreeSet::new(),
            held: BTreeMap::new(),
            answered: BTreeMap::new(),
            shunned: Shunned::default(),
            output: ElectionOutput::default(),
        }
    }

    /// Who votes from now on, and the configuration that notifications carry. `look` does it too; a reconfiguration
    /// while this server has a role needs it.
    pub fn set_configs(&mut self, configs: &Configs) {
        self.config_text = configs.committed.to_string().into_bytes();
        self.configs = Some(configs.clone());
    }

    /// Who can be spoken to now: when all of them have voted, nobody is waited for. Not in the first election of a
    /// process, since the others may be starting too.
    pub fn set_linked(&mut self, linked: BTreeSet<ServerId>, now_ms: i64) {
        self.linked = linked;
        if self.finalizing {
            self.deadline_ms = self.deadline_ms.min(self.finalize_by_ms(now_ms));
        }
    }

    /// How long a better vote is waited for.
    fn finalize_by_ms(&self, now_ms: i64) -> i64 {
        if self.all_have_voted() { now_ms } else { now_ms + FINALIZE_MS }
    }

    fn all_have_voted(&self) -> bool {
        let votes = |server: &ServerId| {
            self.received.contains_key(server) || !self.configs.as_ref().is_some_and(|c| c.is_voter(*server))
        };
        self.round > 1 && self.linked.iter().all(votes)
    }

    /// Who is passed over from now on.
    pub fn shun(&mut self, shunned: Shunned) {
        self.shunned = shunned;
    }

    /// LOOKING begins, one round after the last. `own` is (this server, last logged zxid, currentEpoch);
    /// with the zxid -1 this server abstains: it counts for nobody, itself included, and only joins those who elected a
    /// leader without it.
    pub fn look(&mut self, configs: &Configs, own: Vote, now_ms: i64) {
        self.set_configs(configs);
        self.stage = Stage::Voting;
        self.round = self.round.saturating_add(1);
        self.own = initial_vote(configs, own);
        self.received.clear();
        self.established.clear();
        self.wait_ms = self.min_wait_ms;
        self.proposal = self.own;
        self.send_to_all();
        self.conclude(now_ms);
        for (from, notification) in mem::take(&mut self.held) {
            self.on_notification(from, &notification, now_ms);
        }
    }

    /// A role is reached, or its epoch is new: how LOOKING peers are answered from now on.
    pub fn set_outcome(&mut self, state: PeerState, vote: Vote) {
        self.stage = Stage::Concluded(state);
        self.vote = vote;
        self.end_voting();
    }

    /// A role that no election gave: the leader before named the next one. Others are told so, those too who asked
    /// meanwhile.
    pub fn appoint(&mut self, state: PeerState, vote: Vote, now_ms: i64) {
        self.vote_round = -1;
        self.electors.clear();
        self.set_outcome(state, vote);
        for (from, notification) in mem::take(&mut self.held) {
            self.on_notification(from, &notification, now_ms);
        }
    }

    /// Says this server's present word again, unasked.
    pub fn tell_again(&mut self, to: impl IntoIterator<Item = ServerId>) {
        if self.stage == Stage::Away {
            return;
        }
        for server in to {
            let votes = self.configs.as_ref().is_some_and(|configs| configs.is_voter(server));
            let round = if votes && self.stage != Stage::Voting { self.vote_round } else { self.round };
            self.tell(server, round);
        }
    }

    /// The role is over, `look` comes later: until then peers get no answer, since the old one is wrong and the new one
    /// is not known. What they say is kept for the election.
    pub fn leave(&mut self) {
        self.stage = Stage::Away;
        self.end_voting();
    }

    /// A peer said something (`WorkerReceiver`, then a turn of `lookForLeader`).
    pub fn on_notification(&mut self, from: ServerId, n: &Notification, now_ms: i64) {
        if from == self.my_id {
            return;
        }
        let is_voter = match &self.configs {
            Some(configs) if self.stage != Stage::Away => configs.is_voter(from),
            _ => return self.hold(from, n),
        };
        let voting = self.stage == Stage::Voting;
        // Of peers with a role nobody waits for an answer.
        let asks = n.state == PeerState::Looking;
        match (is_voter, voting) {
            (false, _) if asks => self.answer(from, now_ms),
            (false, _) => {}
            (true, false) if asks => self.tell(from, self.vote_round),
            (true, false) => {}
            (true, true) => {
                if asks && n.round < self.round && self.votes() {
                    self.tell(from, self.round);
                } else if asks && n.round < self.round {
                    // It may know better that this server has a vote.
                    self.answer(from, now_ms);
                }
                self.count(from, n, now_ms);
            }
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: i64) {
        if now_ms < self.deadline_ms {
            return;
        }
        if self.finalizing {
            return self.decide(self.proposal);
        }
        // Apache sends again only if some queue is empty, else it just connects. A queue holds one message, and the vote
        // in it is replaced by the same or a newer one: to send always comes to the same.
        self.wait_ms = self.wait_ms.saturating_mul(2).min(self.max_wait_ms);
        self.send_to_all();
        self.output.connect_all = true;
        self.conclude(now_ms);
    }

    /// When `tick` has something to do; `i64::MAX` for never.
    pub fn next_deadline_ms(&self) -> i64 {
        self.deadline_ms
    }

    /// What is to be done, once.
    pub fn take(&mut self) -> ElectionOutput {
        mem::take(&mut self.output)
    }

    fn hold(&mut self, from: ServerId, n: &Notification) {
        if self.held.len() < MAX_HELD || self.held.contains_key(&from) {
            self.held.insert(from, n.clone());
        }
    }

    /// A voter's word while this server looks.
    fn count(&mut self, from: ServerId, n: &Notification, now_ms: i64) {
        // What is said of this server as a leader is of a former life, if it must not lead.
        let of_former_life = n.vote.leader == self.my_id && self.own.zxid == UNTRUSTED;
        if of_former_life || (n.vote.leader != self.my_id && self.shunned.has(n)) {
            return;
        }
        if !self.configs.as_ref().is_some_and(|c| c.is_voter(n.vote.leader)) {
            // A voter of the next configuration that has not heard of it votes for nobody, and takes up only votes of its
            // own round. Apache passes over it, and where its voice is needed nobody is ever elected.
            if n.state == PeerState::Looking && n.round > self.round && !self.finalizing {
                self.begin_round(n.round, self.own);
                self.conclude(now_ms);
            }
            return;
        }
        let is_stale = n.state == PeerState::Looking && n.round < self.round;
        if self.finalizing && (is_stale || !self.is_better(n.vote, self.proposal)) {
            if n.state == PeerState::Looking && n.round == self.round {
                let heard = Heard { state: n.state, vote: n.vote, round: n.round, version: n.version };
                self.received.insert(from, heard);
            }
            self.deadline_ms = self.finalize_by_ms(now_ms);
            return;
        }
        let heard = Heard { state: n.state, vote: n.vote, round: n.round, version: n.version };
        match n.state {
            PeerState::Looking if is_stale => {}
            PeerState::Looking if self.own.zxid == UNTRUSTED || n.vote.zxid == UNTRUSTED => {}
            PeerState::Looking => {
                if n.round > self.round {
                    self.begin_round(n.round, if self.is_better(n.vote, self.own) { n.vote } else { self.own });
                } else if self.is_better(n.vote, self.proposal) {
                    self.proposal = n.vote;
                    self.send_to_all();
                }
                self.received.insert(from, heard);
            }
            PeerState::Following | PeerState::Leading => {
                if n.round == self.round {
                    // Apache keeps no version here, so that within a round the leader alone has to agree: its epoch
                    // changes from the old to the new one at a different time on each member.
                    self.received.insert(from, Heard { version: 0, ..heard });
                    if self.is_followed(&self.received, &heard) {
                        return self.decide(n.vote);
                    }
                }
                self.established.insert(from, heard);
                if self.is_followed(&self.established, &heard) {
                    self.round = n.round;
                    return self.decide(n.vote);
                }
            }
            PeerState::Observing => {}
        }
        self.conclude(now_ms);
    }

    /// Others are in a later round: what was said in this one counts no more.
    fn begin_round(&mut self, round: i64, proposal: Vote) {
        self.round = round;
        self.received.clear();
        self.proposal = proposal;
        self.send_to_all();
    }

    /// `totalOrderPredicate`: a server of weight 0 cannot be voted for.
    fn is_better(&self, new: Vote, than: Vote) -> bool {
        let weighs = self.configs.as_ref().is_some_and(|c| c.committed.weight(new.leader) != 0);
        weighs && new.beats(&than)
    }

    /// Whether a quorum follows the leader of this vote, and the leader says so itself (`checkLeader`): a crashed leader
    /// is not elected over and over by those who have not noticed. This server is told that it leads only by votes of
    /// its own round, else they speak of its former life.
    fn is_followed(&self, votes: &BTreeMap<ServerId, Heard>, heard: &Heard) -> bool {
        let leader = heard.vote.leader;
        let leads = match leader == self.my_id {
            true => heard.round == self.round,
            false => votes.get(&leader).is_some_and(|l| l.state == PeerState::Leading),
        };
        if leader == self.my_id {
            return leads && self.is_quorum(votes, heard);
        }
        // That leader has its quorums. A configuration that only this server has seen may never have got further, and
        // must not keep it from those who go on without it.
        let supporters = supporters(votes, heard);
        leads && self.configs.as_ref().is_some_and(|c| c.committed.is_quorum(&supporters))
    }

    fn is_quorum(&self, votes: &BTreeMap<ServerId, Heard>, heard: &Heard) -> bool {
        self.configs.as_ref().is_some_and(|c| c.is_quorum(&supporters(votes, heard)))
    }

    /// After all that was heard or sent: how long to wait, and for what.
    fn conclude(&mut self, now_ms: i64) {
        let proposed = self.proposed();
        self.finalizing = self.is_quorum(&self.received, &proposed);
        self.deadline_ms = if self.finalizing { self.finalize_by_ms(now_ms) } else { now_ms + self.wait_ms };
    }

    /// Who agreed when the last election was decided; nobody, if this server joined an ensemble.
    pub fn electors(&self) -> &BTreeSet<ServerId> {
        &self.electors
    }

    /// Whether this is said by one who looks for another leader than the last election gave: in a later round, or in the same
    /// one, where it heard of a better one before it had decided itself.
    pub fn looks_again(&self, n: &Notification) -> bool {
        let changed = n.round == self.vote_round && n.vote.leader != self.vote.leader;
        n.state == PeerState::Looking && (n.round > self.vote_round || changed)
    }

    fn decide(&mut self, vote: Vote) {
        let agree = |(server, heard): (&ServerId, &Heard)| (heard.vote == vote).then_some(*server);
        self.electors = self.received.iter().filter_map(agree).collect();
        let observes = self.configs.as_ref().is_some_and(|c| c.committed.is_observer(self.my_id));
        let state = match vote.leader {
            leader if leader == self.my_id => PeerState::Leading,
            _ if observes => PeerState::Observing,
            _ => PeerState::Following,
        };
        self.vote_round = self.round;
        self.set_outcome(state, vote);
        self.output.elected = Some(vote);
    }

    fn end_voting(&mut self) {
        self.received.clear();
        self.established.clear();
        self.finalizing = false;
        self.deadline_ms = i64::MAX;
    }

    fn proposed(&self) -> Heard {
        Heard { state: PeerState::Looking, vote: self.proposal, round: self.round, version: VERSION }
    }

    /// The proposal, to all voters. To this server itself that is an entry in its own table.
    fn send_to_all(&mut self) {
        let Some(configs) = &self.configs else { return };
        let counts = self.own.zxid != UNTRUSTED && configs.is_voter(self.proposal.leader);
        for voter in configs.voters() {
            if voter != self.my_id {
                self.tell(voter, self.round);
            } else if counts {
                self.received.insert(voter, self.proposed());
            }
        }
    }

    /// What a server that nothing was said to is to hear.
    pub fn word(&self) -> Notification {
        self.word_of(self.round)
    }

    fn word_of(&self, round: i64) -> Notification {
        let (state, vote) = match self.stage {
            Stage::Concluded(state) => (state, self.vote),
            _ => (PeerState::Looking, self.proposal),
        };
        Notification { state, vote, round, version: VERSION, config: Some(self.config_text.clone()) }
    }

    /// Whether this server has a vote.
    fn votes(&self) -> bool {
        self.configs.as_ref().is_some_and(|configs| configs.is_voter(self.my_id))
    }

    /// Answers where one of the two has no vote, but says nothing twice in a moment: a server without one answers a vote of an
    /// earlier round, and is answered by a voter, and so the two would go on for as long as there is no leader.
    fn answer(&mut self, to: ServerId, now_ms: i64) {
        let word = self.word_of(self.round);
        if self.answered.get(&to).is_some_and(|(said, at_ms)| *said == word && now_ms < at_ms + self.min_wait_ms) {
            return;
        }
        if self.answered.len() >= MAX_HELD {
            self.answered.clear();
        }
        self.answered.insert(to, (word.clone(), now_ms));
        self.output.sends.push((to, word));
    }

    /// This server's present word, to one server.
    fn tell(&mut self, to: ServerId, round: i64) {
        self.output.sends.push((to, self.word_of(round)));
    }
}

fn supporters(votes: &BTreeMap<ServerId, Heard>, heard: &Heard) -> BTreeSet<ServerId> {
    votes.iter().filter(|(_, vote)| vote.agrees(heard)).map(|(server, _)| *server).collect()
}

/// Who has no vote votes for nobody; an observer also hides its history, so that it takes up any vote it hears. Nobody's
/// vote is worse than that of a server that does not know its history.
fn initial_vote(configs: &Configs, own: Vote) -> Vote {
    if configs.committed.is_observer(own.leader) {
        return Vote { leader: NOBODY, zxid: Zxid(i64::MIN), epoch: i64::MIN };
    }
    let leader = if configs.committed.is_participant(own.leader) { own.leader } else { NOBODY };
    let epoch = if own.zxid == UNTRUSTED { i64::MIN } else { own.epoch };
    Vote { leader, epoch, ..own }
}

#[cfg(test)]
mod tests;
