//! Fast leader election (`FastLeaderElection`, `Vote`): who leads is settled by votes that every server sends to all
//! voters, round by round. Pure: notifications and time in, notifications and at last a vote out. Driven by
//! [`super::peer`], which owns the roles between two elections.
//!
//! Two tables count votes while a server looks. `received` holds what was said in this very round; when a quorum says
//! what this server proposes, and nothing better is heard for a moment, that is the outcome. `established` holds what
//! servers with a role say, of whatever round: a late server joins the ensemble that they form.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::config::ensemble::{Members, PeerRole};
use crate::ids::{ServerId, Zxid};
use crate::quorum::notification::Notification;
use crate::quorum::voters::Configs;
use crate::quorum::{PeerState, Vote};

/// `fastleader.minNotificationInterval`: the first wait before votes are sent again.
const MIN_WAIT_MS: i64 = 200;
/// `fastleader.maxNotificationInterval`: waits double up to this.
const MAX_WAIT_MS: i64 = 60_000;
/// How long a quorum must stay unchallenged (`finalizeWait`).
const FINALIZE_MS: i64 = 200;
/// What a server without a vote votes for.
const NOBODY: ServerId = ServerId(i64::MIN);
/// The zxid of an empty store that must not lead nor count (`db.autocreate=false`, no `initialize` file).
const UNTRUSTED: Zxid = Zxid(-1);
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
    /// `received` holds a quorum for `proposal`: at `deadline_ms` it is the outcome.
    finalizing: bool,
    wait_ms: i64,
    deadline_ms: i64,

    /// What came while nobody could say what it means: the last of each sender.
    held: BTreeMap<ServerId, Notification>,
    output: ElectionOutput,
}

/// What an election wants done.
#[derive(Debug, Default)]
pub struct ElectionOutput {
    /// Notifications, in order; never one to this server itself.
    pub sends: Vec<(ServerId, Notification)>,
    /// Nothing was heard for a while: dial every server that is not connected ([`super::links::Links::connect_all`]).
    pub connect_all: bool,
    /// The election is over: this server leads if it is the vote's leader, else it follows or observes it.
    pub elected: Option<Vote>,
    /// A peer's committed configuration that is newer than this server's, heard while looking.
    pub newer_config: Option<Members>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No role, and the next election has not begun.
    Away,
    Voting,
    /// A role, which LOOKING peers are told about.
    Settled(PeerState),
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
    /// Round 0, nothing known. The module is restarted (after a change of the configuration) by making a new one.
    pub fn new(my_id: ServerId) -> Election {
        Election::with_intervals(my_id, MIN_WAIT_MS, MAX_WAIT_MS)
    }

    /// The same with `fastleader.minNotificationInterval` and `fastleader.maxNotificationInterval`, in milliseconds.
    pub fn with_intervals(my_id: ServerId, min_wait_ms: i64, max_wait_ms: i64) -> Election {
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
            finalizing: false,
            wait_ms: min_wait_ms,
            deadline_ms: i64::MAX,
            held: BTreeMap::new(),
            output: ElectionOutput::default(),
        }
    }

    /// Who votes from now on, and the configuration that notifications carry. `look` does it too; a reconfiguration
    /// while this server has a role needs it.
    pub fn set_configs(&mut self, configs: &Configs) {
        self.config_text = configs.committed.to_string().into_bytes();
        self.configs = Some(configs.clone());
    }

    /// LOOKING begins, one round after the last. `own` is (this server, last logged zxid, currentEpoch).
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
    pub fn settle(&mut self, state: PeerState, vote: Vote) {
        self.stage = Stage::Settled(state);
        self.vote = vote;
        self.end_voting();
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
        if voting {
            self.note_config(n);
        }
        // Of peers with a role nobody waits for an answer.
        let asks = n.state == PeerState::Looking;
        match (is_voter, voting) {
            (false, _) if asks => self.reply(from, self.round),
            (false, _) => {}
            (true, false) if asks => self.reply(from, self.vote_round),
            (true, false) => {}
            (true, true) => {
                if asks && n.round < self.round {
                    self.reply(from, self.round);
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

    /// A newer configuration goes to [`super::peer`]; a text that does not parse is passed over, as the vote counts anyway.
    fn note_config(&mut self, n: &Notification) {
        let Some(text) = &n.config else { return };
        if *text == self.config_text {
            return;
        }
        let Ok(members) = Members::parse_text(text) else { return };
        let known = [self.configs.as_ref().map(|c| &c.committed), self.output.newer_config.as_ref()];
        if known.into_iter().flatten().all(|k| members.version > k.version) {
            self.output.newer_config = Some(members);
        }
    }

    /// A voter's word while this server looks.
    fn count(&mut self, from: ServerId, n: &Notification, now_ms: i64) {
        if !self.configs.as_ref().is_some_and(|c| c.is_voter(n.vote.leader)) {
            return;
        }
        let is_stale = n.state == PeerState::Looking && n.round < self.round;
        if self.finalizing && (is_stale || !self.is_better(n.vote, self.proposal)) {
            self.deadline_ms = now_ms + FINALIZE_MS;
            return;
        }
        let heard = Heard { state: n.state, vote: n.vote, round: n.round, version: n.version };
        match n.state {
            PeerState::Looking if is_stale => {}
            PeerState::Looking if self.own.zxid == UNTRUSTED || n.vote.zxid == UNTRUSTED => {}
            PeerState::Looking => {
                if n.round > self.round {
                    self.round = n.round;
                    self.received.clear();
                    self.proposal = if self.is_better(n.vote, self.own) { n.vote } else { self.own };
                    self.send_to_all();
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
        leads && self.is_quorum(votes, heard)
    }

    fn is_quorum(&self, votes: &BTreeMap<ServerId, Heard>, heard: &Heard) -> bool {
        let supporters: BTreeSet<ServerId> =
            votes.iter().filter(|(_, v)| v.agrees(heard)).map(|(server, _)| *server).collect();
        self.configs.as_ref().is_some_and(|c| c.is_quorum(&supporters))
    }

    /// After all that was heard or sent: how long to wait, and for what.
    fn conclude(&mut self, now_ms: i64) {
        let proposed = self.proposed();
        self.finalizing = self.is_quorum(&self.received, &proposed);
        self.deadline_ms = now_ms + if self.finalizing { FINALIZE_MS } else { self.wait_ms };
    }

    fn decide(&mut self, vote: Vote) {
        let observes = self.configs.as_ref().is_some_and(|c| is_observer(c, self.my_id));
        let state = match vote.leader {
            leader if leader == self.my_id => PeerState::Leading,
            _ if observes => PeerState::Observing,
            _ => PeerState::Following,
        };
        self.vote_round = self.round;
        self.settle(state, vote);
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
                self.reply(voter, self.round);
            } else if counts {
                self.received.insert(voter, self.proposed());
            }
        }
    }

    /// This server's present word, to one server.
    fn reply(&mut self, to: ServerId, round: i64) {
        let (state, vote) = match self.stage {
            Stage::Settled(state) => (state, self.vote),
            _ => (PeerState::Looking, self.proposal),
        };
        let config = Some(self.config_text.clone());
        self.output.sends.push((to, Notification { state, vote, round, version: VERSION, config }));
    }
}

/// Who has no vote votes for nobody; an observer also hides its history, so that it takes up any vote it hears.
fn initial_vote(configs: &Configs, own: Vote) -> Vote {
    if is_observer(configs, own.leader) {
        return Vote { leader: NOBODY, zxid: Zxid(i64::MIN), epoch: i64::MIN };
    }
    let leader = if configs.committed.is_participant(own.leader) { own.leader } else { NOBODY };
    Vote { leader, ..own }
}

fn is_observer(configs: &Configs, server: ServerId) -> bool {
    configs.committed.servers.get(&server.0).is_some_and(|s| s.role == PeerRole::Observer)
}
