//! What other servers say of who belongs to the ensemble, while this one looks for a leader, and when it is believed. Pure;
//! driven by [`super::peer`].
//!
//! A notification carries the list of members that its sender has in force. A server that was away, or joins, learns of a
//! newer one so. But what is taken decides whose votes count, for good; a message may be old, its sender a stranger, and
//! Apache's servers tell of lists that were only proposed. So a newer list is taken when
//!
//! 1. **a quorum of its own voters stands behind it.** A server does if it is a voter of the list, and the last that it said
//!    on its link carries that very list; and if this server found it: the link came of a dial from here, to where the list
//!    has that server, or a list that is known here. This server itself stands behind every list in which it votes at its
//!    own addresses, unless its data is empty: servers that were wiped must not make each other a quorum of a list of former
//!    days. A list that was proposed to this server needs one server that was found and has it in force, and votes in it or
//!    in the one before, for that may be all it leaves behind: what is not known here is only that it was committed.
//! 2. **it has to do with this server's ensemble.** A member of a list that is known here tells of it, and was found where
//!    that list has it; or the list has this server at its own addresses.
//!
//! Who tells of it first does not matter. To find out, this server dials the voters of such a list.
//!
//! What that does not protect from: the election port asks nobody for a password. Whoever may connect to it, has a list that
//! names this server at its addresses, and answers at those of enough others of that list, is believed. One server is enough
//! for a list of two or three, this one being of them: so does a server come back whose ensemble has moved on without it, and
//! has lost another one since.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Members;
use crate::config::ensemble::PeerAddress;
use crate::config::voters::Configs;
use crate::ids::ServerId;

/// Bytes of a list that is heeded, far more than any has: one is kept for each link.
const LIST_BYTES_MAX: usize = 64 << 10;

/// The lists that other servers told of. As many at most as there are links to servers, which [`super::links`] bounds.
#[derive(Debug)]
pub struct Gossip {
    my_id: ServerId,
    /// The last that each server said, if that is newer than what is in force here.
    told: BTreeMap<ServerId, Members>,
    /// The version of the list that was not taken the last time that was looked at, and of the one of which that was said.
    doubted: i64,
    refused: i64,
}

/// Where a server was found, if its link came of a dial from here; else nothing.
pub type Found<'a> = dyn Fn(ServerId) -> &'a [PeerAddress] + 'a;

impl Gossip {
    /// Nothing was heard.
    pub fn new(my_id: ServerId) -> Gossip {
        Gossip { my_id, told: BTreeMap::new(), doubted: 0, refused: 0 }
    }

    /// A server said what it has in force. A text that cannot be read is passed over, as is one that is not newer.
    pub fn hear(&mut self, from: ServerId, text: Option<&[u8]>, configs: &Configs) {
        let text = text.filter(|text| configs.reconfig_enabled && text.len() <= LIST_BYTES_MAX);
        let members = text.and_then(|text| Members::parse_text(text).ok());
        match members.filter(|members| members.version > configs.committed.version) {
            Some(members) => self.told.insert(from, members),
            None => self.told.remove(&from),
        };
    }

    /// Nobody else is there to stand behind anything.
    pub fn keep(&mut self, linked: &BTreeSet<ServerId>) {
        self.told.retain(|server, _| linked.contains(server));
    }

    /// This server does not look any more.
    pub fn clear(&mut self) {
        self.told.clear();
    }

    /// The newest list that is to be taken, and a server that tells of it. `is_empty`: this server has no data.
    pub fn believed(&self, configs: &Configs, is_empty: bool, found: &Found<'_>) -> Option<(ServerId, Members)> {
        let lists = self.told.iter().filter(|(_, list)| list.version > configs.committed.version);
        let believed = lists.filter(|(_, list)| {
            let is_proposed = configs.last_seen.as_ref().is_some_and(|seen| is_same(seen, list));
            let is_committed = is_proposed && self.tellers(list, configs, found).any(|server| configs.is_voter(server));
            let behind = || self.behind(list, configs, is_empty, found);
            self.is_ours(list, configs, found) && (is_committed || list.is_quorum(&behind()))
        });
        believed.max_by_key(|(_, list)| list.version).map(|(server, list)| (*server, list.clone()))
    }

    /// Whom to dial, and where: who told of a list, and the voters of lists that have to do with this ensemble.
    pub fn to_find(&self, configs: &Configs, found: &Found<'_>) -> Vec<(ServerId, Vec<PeerAddress>)> {
        let mut wanted = BTreeMap::new();
        for (teller, list) in &self.told {
            let known = configs.addresses(*teller);
            if !known.is_empty() {
                wanted.insert(*teller, known);
            }
            if self.is_ours(list, configs, found) {
                wanted.extend(list.participants().map(|server| (ServerId(server.id), server.addresses.clone())));
            }
        }
        wanted.remove(&self.my_id);
        wanted.into_iter().collect()
    }

    /// What is to be said of a list that is not taken: once for each, and not when it was only just heard of.
    pub fn refusal(&mut self, configs: &Configs, is_empty: bool, found: &Found<'_>) -> Option<String> {
        let (teller, list) = self.told.iter().max_by_key(|(_, list)| list.version)?;
        let is_new = std::mem::replace(&mut self.doubted, list.version) != list.version;
        if is_new || list.version <= self.refused {
            return None;
        }
        self.refused = list.version;
        let behind = self.behind(list, configs, is_empty, found);
        let behind: Vec<String> = behind.iter().map(|server| server.0.to_string()).collect();
        let what = match self.is_ours(list, configs, found) {
            false => "no server that is known here says so, and it does not have this server where it is".to_owned(),
            true if behind.is_empty() => "nobody stands behind it of those who vote in it".to_owned(),
            true => format!("of those who vote in it only {} stand behind it, which are no quorum", behind.join(", ")),
        };
        Some(format!(
            "server {} says that the members of the ensemble are those of configuration {:x}. That is not taken: {what}. \
             If it is right, start the others, or write it into this server's configuration by hand",
            teller.0, list.version
        ))
    }

    /// The second rule.
    fn is_ours(&self, list: &Members, configs: &Configs, found: &Found<'_>) -> bool {
        let is_known = |server: ServerId| is_among(found(server), &configs.addresses(server));
        let mut tellers = self.told.iter().filter(|(_, told)| is_same(told, list));
        tellers.any(|(server, _)| is_known(*server)) || self.is_here(list, configs)
    }

    /// Who tells of a list, and was found.
    fn tellers<'a>(
        &'a self,
        list: &'a Members,
        configs: &'a Configs,
        found: &'a Found<'_>,
    ) -> impl Iterator<Item = ServerId> + 'a {
        let tellers = self.told.iter().filter(|(_, told)| is_same(told, list)).map(|(server, _)| *server);
        tellers.filter(|server| {
            let places = [list.addresses(*server), &configs.addresses(*server)].concat();
            is_among(found(*server), &places)
        })
    }

    /// Who stands behind a list, by the first rule.
    fn behind(&self, list: &Members, configs: &Configs, is_empty: bool, found: &Found<'_>) -> BTreeSet<ServerId> {
        let own = (!is_empty && self.is_here(list, configs)).then_some(self.my_id);
        let behind = self.tellers(list, configs, found).chain(own);
        behind.filter(|server| list.is_participant(*server)).collect()
    }

    /// Whether the list has this server where it knows itself.
    fn is_here(&self, list: &Members, configs: &Configs) -> bool {
        is_among(list.addresses(self.my_id), &configs.addresses(self.my_id))
    }
}

/// Whether the election ports of all of these are among those. Nowhere is no place.
pub fn is_among(some: &[PeerAddress], known: &[PeerAddress]) -> bool {
    let is_known = |at: &PeerAddress| known.iter().any(|k| (&k.host, k.election_port) == (&at.host, at.election_port));
    !some.is_empty() && some.iter().all(is_known)
}

/// Whether these are the same list. Where clients connect is not told by all who have it.
fn is_same(one: &Members, other: &Members) -> bool {
    let server = |list: &Members| -> Vec<_> {
        list.servers.values().map(|server| (server.id, server.role, server.addresses.clone())).collect()
    };
    one.version == other.version && one.rule == other.rule && server(one) == server(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    const V2: i64 = 0x1_0000_0005;
    const V3: i64 = 0x1_0000_0009;

    fn text(ids: &[i64], version: i64) -> Vec<u8> {
        let mut text = String::new();
        ids.iter().for_each(|id| writeln!(text, "server.{id}=h{id}:1:2").unwrap());
        (text + &format!("version={version:x}")).into_bytes()
    }

    fn list(ids: &[i64], version: i64) -> Members {
        Members::parse_text(&text(ids, version)).unwrap()
    }

    fn at(host: &str) -> Vec<PeerAddress> {
        vec![PeerAddress { host: host.to_owned(), quorum_port: 1, election_port: 2 }]
    }

    /// One who looks for a leader, and hears.
    struct Listener {
        gossip: Gossip,
        configs: Configs,
        is_empty: bool,
        found: BTreeMap<ServerId, Vec<PeerAddress>>,
    }

    impl Listener {
        fn new(me: i64, ids: &[i64]) -> Listener {
            let configs = Configs { committed: list(ids, 0x1_0000_0000), last_seen: None, reconfig_enabled: true };
            Listener { gossip: Gossip::new(ServerId(me)), configs, is_empty: false, found: BTreeMap::new() }
        }

        /// These say so, over links that came by themselves.
        fn hears(&mut self, from: &[i64], ids: &[i64], version: i64) {
            for server in from {
                self.gossip.hear(ServerId(*server), Some(&text(ids, version)), &self.configs);
            }
        }

        /// Whoever is to be dialled and is alive is found.
        fn dials(&mut self, alive: &[i64]) {
            for (server, addresses) in self.gossip.to_find(&self.configs, &|s| self.found.get(&s).map_or(&[], |at| at))
            {
                if alive.contains(&server.0) {
                    self.found.insert(server, addresses);
                }
            }
        }

        fn takes(&self) -> Option<i64> {
            let found = |server| self.found.get(&server).map_or(&[][..], |at| at);
            self.gossip.believed(&self.configs, self.is_empty, &found).map(|(_, list)| list.version)
        }

        fn to_find(&self) -> Vec<i64> {
            let found = |server| self.found.get(&server).map_or(&[][..], |at| at);
            self.gossip.to_find(&self.configs, &found).iter().map(|(server, _)| server.0).collect()
        }

        fn refusal(&mut self) -> String {
            let found = |server| self.found.get(&server).map_or(&[][..], |at: &Vec<PeerAddress>| at);
            self.gossip.refusal(&self.configs, self.is_empty, &found).unwrap_or_default()
        }

        fn refusal_at_last(&mut self) -> String {
            assert_eq!(self.refusal(), "", "it was only just heard of");
            self.refusal()
        }
    }

    #[test]
    fn a_list_is_taken_once_a_quorum_of_it_was_found_and_says_so() {
        // {1,2,3} has become {3,4,5} while 3 was down, and 1 and 2 are gone.
        let mut three = Listener::new(3, &[1, 2, 3]);
        three.is_empty = true;
        three.hears(&[4], &[3, 4, 5], V2);
        assert_eq!(three.to_find(), [4, 5], "a stranger tells of it, but it has this server where it is");
        three.dials(&[4, 5]);
        assert_eq!(three.takes(), None, "4 alone says so");
        assert!(three.refusal_at_last().contains("only 4 stand behind it"));
        assert_eq!(three.refusal(), "", "that was said");
        three.hears(&[5], &[3, 4, 5], V2);
        assert_eq!(three.takes(), Some(V2));
        // Who falls silent stands behind nothing.
        three.gossip.keep(&[ServerId(5)].into());
        assert_eq!(three.takes(), None);
    }

    #[test]
    fn a_server_with_data_stands_behind_a_list_that_has_it_and_an_empty_one_does_not() {
        for (is_empty, taken) in [(false, Some(V2)), (true, None)] {
            let mut three = Listener::new(3, &[1, 2, 3]);
            three.is_empty = is_empty;
            three.hears(&[5], &[3, 4, 5], V2);
            assert_eq!(three.takes(), None, "5 was not found yet");
            three.dials(&[5]);
            assert_eq!(three.takes(), taken);
        }
    }

    #[test]
    fn two_that_were_wiped_do_not_make_each_other_a_quorum_of_a_former_list() {
        // {1,…,5}, then {3,4,5}, then {1,2,3}; 4 and 5 are new and empty, and 3 says again what it said long ago.
        let mut four = Listener::new(4, &[1, 2, 3, 4, 5]);
        four.is_empty = true;
        four.hears(&[3], &[3, 4, 5], V2);
        four.dials(&[1, 2, 3, 5]);
        assert_eq!(four.takes(), None);
        four.hears(&[5], &[1, 2, 3, 4, 5], 0x1_0000_0000);
        four.hears(&[1, 2], &[1, 2, 3], V3);
        four.dials(&[1, 2, 3, 5]);
        assert_eq!(four.takes(), Some(V3), "whatever 3 still says");
        four.hears(&[3], &[1, 2, 3], V3);
        assert_eq!(four.takes(), Some(V3));
    }

    #[test]
    fn a_list_of_strangers_is_not_even_looked_into() {
        let mut three = Listener::new(3, &[1, 2, 3]);
        three.hears(&[101, 102], &[101, 102, 103], V2);
        assert_eq!(three.to_find(), [0; 0]);
        assert!(three.refusal_at_last().contains("no server that is known here says so"));
        // A host that has this server's id, and another address for it: another ensemble.
        let theirs = String::from_utf8(text(&[3, 101, 102], V2)).unwrap().replace("=h3:", "=elsewhere:");
        three.gossip.hear(ServerId(101), Some(theirs.as_bytes()), &three.configs);
        assert_eq!(three.to_find(), [0; 0]);
        // The id of a member is nothing, unless it is found where it is to be.
        three.hears(&[1], &[1, 101, 102], V3);
        assert_eq!(three.to_find(), [1]);
        three.found.insert(ServerId(1), at("elsewhere"));
        assert_eq!(three.to_find(), [1]);
        assert_eq!(three.takes(), None);
    }

    #[test]
    fn a_list_that_has_this_server_needs_more_than_the_word_of_a_stranger() {
        let mut three = Listener::new(3, &[1, 2, 3]);
        three.hears(&[101, 102], &[3, 101, 102], V2);
        assert_eq!(three.to_find(), [101, 102]);
        three.dials(&[]);
        assert_eq!(three.takes(), None, "nobody is where they say");
        three.found.insert(ServerId(101), at("elsewhere"));
        assert_eq!(three.takes(), None);
    }

    #[test]
    fn the_last_word_of_a_server_counts_and_lists_must_be_the_same() {
        let mut one = Listener::new(1, &[1, 2, 3]);
        one.is_empty = true;
        one.hears(&[2, 3], &[1, 2, 3, 4], V2);
        one.dials(&[2, 3]);
        assert_eq!(one.takes(), None, "two of four");
        one.hears(&[4], &[1, 2, 3, 4, 5], V2);
        one.dials(&[2, 3, 4]);
        assert_eq!(one.takes(), None, "another list of the same version");
        one.hears(&[4], &[1, 2, 3, 4], V2);
        assert_eq!(one.takes(), Some(V2));
        one.hears(&[3], &[1, 2, 3], 0x1_0000_0000);
        assert_eq!(one.takes(), None);
        for worthless in [&b"rubbish"[..], b"", &[b'#'; LIST_BYTES_MAX + 1]] {
            one.gossip.hear(ServerId(2), Some(worthless), &one.configs);
        }
        assert_eq!(one.gossip.told.len(), 1);
        one.gossip.clear();
        one.configs.reconfig_enabled = false;
        one.hears(&[2, 3, 4], &[1, 2, 3, 4], V2);
        assert_eq!((one.takes(), one.gossip.told.len()), (None, 0));
    }

    #[test]
    fn a_list_that_was_proposed_here_needs_one_who_has_it_in_force() {
        // {1,2,3} have become {3,…,7}; of those 3, 4 and 5 are left, and only 4 was told of the commit.
        for proposed in [false, true] {
            let mut three = Listener::new(3, &[1, 2, 3]);
            three.configs.last_seen = proposed.then(|| list(&[3, 4, 5, 6, 7], V2));
            three.hears(&[4], &[3, 4, 5, 6, 7], V2);
            assert_eq!(three.takes(), None, "anybody may say that it is 4");
            three.dials(&[4, 5]);
            assert_eq!(three.takes(), proposed.then_some(V2));
            three.hears(&[4], &[3, 4, 5, 6, 8], V2);
            three.dials(&[4, 5]);
            assert_eq!(three.takes(), None, "another list");
        }
    }

    #[test]
    fn of_a_list_that_was_proposed_here_one_that_it_leaves_behind_may_tell_too() {
        // {2,3} have become {1,3}, and only 2, which is not of them any more, was told of the commit.
        let mut three = Listener::new(3, &[2, 3]);
        three.configs.last_seen = Some(list(&[1, 3], V2));
        three.hears(&[2, 4], &[1, 3], V2);
        three.found.insert(ServerId(4), at("h4"));
        assert_eq!(three.takes(), None, "4 is a stranger, and anybody may say that it is 2");
        three.dials(&[2]);
        assert_eq!(three.takes(), Some(V2));
        three.configs.last_seen = Some(list(&[1, 2, 3], V2));
        assert_eq!(three.takes(), None, "another list was proposed");
    }

    #[test]
    fn a_member_that_has_moved_counts_where_either_list_has_it() {
        for host in ["h2", "new", "elsewhere"] {
            let mut one = Listener::new(1, &[1, 2]);
            let moved = String::from_utf8(text(&[1, 2], V2)).unwrap().replace("=h2:", "=new:");
            one.gossip.hear(ServerId(2), Some(moved.as_bytes()), &one.configs);
            one.found.insert(ServerId(2), at(host));
            assert_eq!(one.takes(), (host != "elsewhere").then_some(V2), "{host}");
        }
    }
}
