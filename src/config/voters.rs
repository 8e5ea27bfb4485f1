//! Who votes and what a quorum is, of one configuration or, while another is proposed, of two (`QuorumMaj`,
//! `QuorumHierarchical`, `SyncedLearnerTracker`). Pure; used by all cores of the ensemble.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Members;
use crate::config::ensemble::{PeerAddress, PeerRole, QuorumRule};
use crate::ids::ServerId;

/// The configuration in force, and the one that may follow it.
#[derive(Clone, PartialEq, Debug)]
pub struct Configs {
    /// In force.
    pub committed: Members,
    /// Proposed, and newer than the committed one; not known to be committed.
    pub last_seen: Option<Members>,
    /// `reconfigEnabled`: whether they may change.
    pub reconfig_enabled: bool,
}

impl Configs {
    /// Whether the server is a participant of either configuration.
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.each().any(|members| members.is_participant(server))
    }

    /// Whether the server is in either configuration, whatever it does there.
    pub fn is_member(&self, server: ServerId) -> bool {
        self.each().any(|members| members.servers.contains_key(&server.0))
    }

    /// Whether these servers are a quorum of every configuration. Servers that do not vote may be among them.
    pub fn is_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.each().all(|members| members.is_quorum(servers))
    }

    /// The participants of both configurations.
    pub fn voters(&self) -> BTreeSet<ServerId> {
        self.each().flat_map(|members| members.participants().map(|server| ServerId(server.id))).collect()
    }

    /// Takes note of a configuration that was proposed (`setLastSeenQuorumVerifier`). `false`: that changes nothing.
    pub fn see(&mut self, members: Members) -> bool {
        let is_news = self.reconfig_enabled && members.version > self.newest().version;
        if is_news {
            self.last_seen = Some(members);
        }
        is_news
    }

    /// Puts a configuration in force (`setQuorumVerifier`). `false`: that changes nothing.
    pub fn activate(&mut self, members: Members) -> bool {
        if !self.reconfig_enabled || members.version <= self.committed.version {
            return false;
        }
        self.last_seen.take_if(|last_seen| last_seen.version <= members.version);
        self.committed = members;
        true
    }

    /// The configuration with the greatest version.
    pub fn newest(&self) -> &Members {
        self.last_seen.as_ref().unwrap_or(&self.committed)
    }

    /// Where a server listens: by the list in force, and by the one that may follow. It may have found either in force;
    /// nowhere, if it is a stranger.
    pub fn addresses(&self, server: ServerId) -> Vec<PeerAddress> {
        let mut known = Vec::new();
        for address in self.each().flat_map(|members| members.addresses(server)) {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        known
    }

    fn each(&self) -> impl Iterator<Item = &Members> {
        std::iter::once(&self.committed).chain(&self.last_seen)
    }
}

impl Members {
    /// Whether the server is listed and does not vote.
    pub fn is_observer(&self, server: ServerId) -> bool {
        self.servers.get(&server.0).is_some_and(|server| server.role == PeerRole::Observer)
    }

    /// Where the others reach the server; nowhere if it is not listed.
    pub fn addresses(&self, server: ServerId) -> &[PeerAddress] {
        self.servers.get(&server.0).map_or(&[], |server| &server.addresses)
    }

    /// Whether the server votes.
    pub fn is_participant(&self, server: ServerId) -> bool {
        self.servers.get(&server.0).is_some_and(|server| server.role == PeerRole::Participant)
    }

    /// Whether the participants among these servers are a quorum: more than half of all participants, or, with groups,
    /// more than half of the weight in more than half of those groups that have any.
    pub fn is_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        let voting = servers.iter().filter(|server| self.is_participant(**server));
        let QuorumRule::Hierarchical { group_of, .. } = &self.rule else {
            return voting.count() > self.participants().count() / 2;
        };
        // Wider than a weight, so that no sum can overflow.
        let mut groups: BTreeMap<i64, (i128, i128)> = BTreeMap::new();
        for (server, group) in group_of {
            groups.entry(*group).or_default().0 += i128::from(self.weight(ServerId(*server)));
        }
        for server in voting {
            if let Some((_, acked)) = group_of.get(&server.0).and_then(|group| groups.get_mut(group)) {
                *acked += i128::from(self.weight(*server));
            }
        }
        let weighty = groups.values().filter(|(weight, _)| *weight != 0);
        let (mut of, mut won) = (0, 0);
        for (weight, acked) in weighty {
            of += 1;
            won += usize::from(*acked > weight / 2);
        }
        won > of / 2
    }

    /// What the server's voice weighs. Without groups every voice weighs the same, 1; with groups a server with 0 cannot
    /// be voted for, and one that is not listed has 0.
    pub fn weight(&self, server: ServerId) -> i64 {
        match &self.rule {
            QuorumRule::Majority => 1,
            QuorumRule::Hierarchical { weight_of, .. } => weight_of.get(&server.0).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Members {
        Members::parse_text(text.as_bytes()).unwrap()
    }

    fn flat(participants: &[i64], observers: &[i64]) -> Members {
        let line = |id: &i64, role: &str| format!("server.{id}=h:1:2:{role}\n");
        let mut text: String = participants.iter().map(|id| line(id, "participant")).collect();
        text.extend(observers.iter().map(|id| line(id, "observer")));
        members(&text)
    }

    fn set(ids: &[i64]) -> BTreeSet<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_participants() {
        let three = flat(&[1, 2, 3], &[4, 5]);
        assert!(three.is_quorum(&set(&[1, 3])));
        assert!(!three.is_quorum(&set(&[1])));
        assert!(!three.is_quorum(&set(&[1, 4, 5, 77])), "observers and strangers do not count");
        assert!(!flat(&[1, 2, 3, 4], &[]).is_quorum(&set(&[1, 2])));
        assert!(flat(&[1], &[]).is_quorum(&set(&[1])));
    }

    #[test]
    fn groups_need_most_of_the_weight_in_most_of_the_groups() {
        let mut text: String = (1..=9).map(|id| format!("server.{id}=h:1:2\n")).collect();
        text += "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\nweight.7=0\nweight.8=0\nweight.9=0\nweight.4=3\n";
        let groups = members(&text);
        // The third group has no weight: both others are needed.
        assert!(groups.is_quorum(&set(&[1, 2, 4])));
        assert!(!groups.is_quorum(&set(&[1, 2, 5, 6, 7, 8, 9])));
        assert!(!groups.is_quorum(&set(&[1, 2, 3])));
        assert_eq!((groups.weight(ServerId(4)), groups.weight(ServerId(7)), groups.weight(ServerId(99))), (3, 0, 0));
        let heavy = members(&format!("server.1=h:1:2\nserver.2=h:1:2\ngroup.1=1:2\nweight.1={}\n", i64::MAX));
        assert!(heavy.is_quorum(&set(&[1, 2])));
    }

    #[test]
    fn while_a_configuration_is_proposed_both_must_agree() {
        let (old, mut new) = (flat(&[1, 2, 3], &[]), flat(&[3, 4, 5], &[1]));
        new.version = 7;
        let one = Configs { committed: old.clone(), last_seen: None, reconfig_enabled: true };
        let both = Configs { committed: old, last_seen: Some(new), reconfig_enabled: true };
        assert!(one.is_quorum(&set(&[1, 2])) && !both.is_quorum(&set(&[1, 2])));
        assert!(!both.is_quorum(&set(&[1, 3])), "1 only observes in the new one");
        assert!(both.is_quorum(&set(&[2, 3, 4])));
        assert_eq!(both.voters(), set(&[1, 2, 3, 4, 5]));
        assert!(both.is_voter(ServerId(1)) && both.is_voter(ServerId(5)) && !one.is_voter(ServerId(5)));
        assert_eq!((one.newest().version, both.newest().version), (0, 7));
    }

    #[test]
    fn only_newer_configurations_are_seen_and_put_in_force() {
        let at = |version: i64| Members { version, ..flat(&[1, 2, 3], &[]) };
        let mut configs = Configs { committed: at(5), last_seen: None, reconfig_enabled: true };
        assert!(!configs.see(at(5)) && configs.see(at(8)) && !configs.see(at(7)));
        assert!(configs.activate(at(6)) && configs.last_seen.is_some(), "another proposal is still open");
        assert!(configs.activate(at(8)) && configs.last_seen.is_none() && !configs.activate(at(8)));
        let mut fixed = Configs { reconfig_enabled: false, ..configs };
        assert!(!fixed.see(at(9)) && !fixed.activate(at(9)));
    }
}
