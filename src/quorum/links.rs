//! Who connects to whom on the election port (`QuorumCnxManager`): one link per pair of servers, dialled by the larger
//! id; a smaller one dials only to say its name and is dialled back. Pure: what happened to links goes in, [`Effect`]s
//! (`DialElection`, `SendElection`, `Close`) come out. Driven by [`super::peer`].
//!
//! A server may also have to be found: reached where a list of members has it, to see that it is there
//! ([`super::gossip`]). The link that comes of it counts as found there. To the larger one the name is left, and the link
//! with which it comes back counts.
//!
//! Only the newest message for a server matters, so that one place per server is enough of a queue. A link carries one
//! message at a time, and a new link begins with the message that waits or else with the last one sent: whatever happens
//! to links, the newest vote arrives once there is one. What is not true any more is taken back, and no link begins with it:
//! a vote once this server has a role, a role once it looks, a list of members that another one has replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use crate::config::ensemble::{HostPort, PeerAddress};
use crate::ids::{LinkId, ServerId};
use crate::quiet::Quiet;
use crate::quorum::gossip::is_among;
use crate::quorum::notification::Hello;
use crate::quorum::{Effect, WARNING_PAUSE_MS};

/// The least time between two attempts to dial a server, and the first wait after one that brought no link.
const MIN_BACKOFF_MS: i64 = 100;
/// Waits double up to this.
const MAX_BACKOFF_MS: i64 = 5_000;
/// Servers that are in no configuration are remembered up to this many.
const MAX_STRANGERS: usize = 64;

/// The links of one server's election port. A change of the configuration closes all and makes a new one.
#[derive(Debug)]
pub struct Links {
    my_id: ServerId,
    /// The initial message, encoded.
    hello: Vec<u8>,
    peers: BTreeMap<ServerId, Peer>,
    /// Links that belong to a peer, kept or only to say the own name.
    servers: BTreeMap<LinkId, ServerId>,
    effects: Vec<Effect>,
}

/// All about one other server.
#[derive(Debug, Default)]
struct Peer {
    /// From the configuration; empty for a stranger.
    configured: Vec<PeerAddress>,
    /// From its last hello.
    told: Vec<PeerAddress>,
    /// Where a newer configuration has it, if it is to be found.
    listed: Vec<PeerAddress>,
    /// The last attempt was there.
    tried_listed: bool,
    /// It is being dialled where it said, and the configuration says otherwise. It is dialled there next, should this attempt
    /// fail: a name may mean nothing here, and what others say of it must not keep it from ever being dialled there.
    is_elsewhere: bool,
    /// Where it said it is while it was dialled somewhere else: dialled after that.
    told_meanwhile: Vec<PeerAddress>,
    contact: Contact,
    /// Beside a link: whether it is where it is to be found.
    probe: Probe,
    /// Where the present attempt is.
    dialing: Vec<PeerAddress>,
    /// Where the name was left, and it has not come back since.
    introduced: Vec<PeerAddress>,
    /// Where it was dialled for the one link, or the name left; empty if it came by itself.
    found: Vec<PeerAddress>,
    /// Waits for a link, or for the link to be free.
    queued: Option<Vec<u8>>,
    /// The last message that was given to a link.
    last: Option<Vec<u8>>,
    /// When the last attempt began. One that nobody answered took its time, and the next one need not wait as long again:
    /// the network may come back at any moment.
    tried_ms: Option<i64>,
    /// About two servers with its id.
    clashes: Option<Quiet>,
    /// From then to the next attempt, unless there is something new to say; doubles until a link is established.
    backoff_ms: i64,
}

/// How a peer can be reached now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Contact {
    #[default]
    None,
    Dialing,
    /// Dialled, and it is the larger one: closed as soon as it has the hello.
    Introducing(LinkId),
    /// The one link; busy until the kernel has taken what was sent, the hello or `Peer::last`.
    Up {
        link: LinkId,
        busy: bool,
    },
}

/// An attempt to find a server that has a link.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Probe {
    #[default]
    None,
    Dialing,
    /// As for [`Contact::Introducing`].
    Introducing(LinkId),
}

impl Links {
    /// No links. `hello` is the encoded initial message of this server.
    pub fn new(my_id: ServerId, hello: Vec<u8>) -> Links {
        Links { my_id, hello, peers: BTreeMap::new(), servers: BTreeMap::new(), effects: Vec::new() }
    }

    /// The initial message of new links.
    pub fn set_hello(&mut self, hello: Vec<u8>) {
        self.hello = hello;
    }

    /// The newest message for a server takes the place of one that waits. Dials if there is no link, at once if the last
    /// attempt is not quite recent. `addresses` are the configured ones; with none, the server is dialled where it said.
    pub fn send(&mut self, to: ServerId, frame: Vec<u8>, addresses: &[PeerAddress], now_ms: i64) {
        if !self.know(to, addresses) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.queued = Some(frame);
        self.pump(to);
        self.dial_after(to, MIN_BACKOFF_MS, now_ms);
    }

    /// Dials a server that has no link, unless that failed just now.
    pub fn connect(&mut self, to: ServerId, addresses: &[PeerAddress], now_ms: i64) {
        if self.know(to, addresses) {
            self.redial(to, now_ms);
        }
    }

    /// Finds a server at these addresses: dials there too, unless its link came of a dial to one of its addresses. If nothing
    /// was said to it yet, this is.
    pub fn find(&mut self, server: ServerId, addresses: &[PeerAddress], frame: Vec<u8>, now_ms: i64) {
        if !self.know(server, &[]) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&server) else { return };
        peer.listed = usable_addresses(addresses);
        if peer.queued.is_none() && (peer.last.is_none() || peer.contact == Contact::None) {
            peer.queued = peer.last.clone().or(Some(frame));
        }
        self.pump(server);
        self.redial(server, now_ms);
    }

    /// Nobody is to be found any more.
    pub fn find_nobody(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.listed.clear());
    }

    /// Where the server of a link was found; nowhere if it has none, or came by itself.
    pub fn found(&self, server: ServerId) -> &[PeerAddress] {
        let up = self.peers.get(&server).filter(|peer| matches!(peer.contact, Contact::Up { .. }));
        up.map_or(&[], |peer| &peer.found)
    }

    /// What was said, or was to be said, is not true any more: no new link begins with it. Gives those who wait for an
    /// answer.
    pub fn take_back(&mut self) -> Vec<ServerId> {
        let mut waiting = Vec::new();
        for (server, peer) in &mut self.peers {
            peer.last = None;
            if peer.queued.take().is_some() {
                waiting.push(*server);
            }
        }
        waiting
    }

    /// Dials again for messages that wait, and those who are to be found. To be called only while this server looks: with a
    /// role it waits for those who look, and a message for a server that is gone may wait forever.
    pub fn tick(&mut self, now_ms: i64) {
        let waiting = self.peers.iter().filter(|(_, peer)| peer.waits() || peer.is_sought());
        let waiting: Vec<ServerId> = waiting.map(|(server, _)| *server).collect();
        waiting.into_iter().for_each(|server| self.redial(server, now_ms));
    }

    /// When `tick` has something to do; `i64::MAX` for never.
    pub fn next_deadline_ms(&self) -> i64 {
        let waiting = self.peers.values().filter(|peer| peer.waits() || peer.is_sought());
        waiting.map(|peer| peer.tried_ms.map_or(0, |at| at + peer.wait_ms())).min().unwrap_or(i64::MAX)
    }

    /// The configured addresses of a server; its own word counts where there are none. False if this server is not to
    /// be dealt with: it is this one, or one stranger too many.
    pub fn know(&mut self, server: ServerId, addresses: &[PeerAddress]) -> bool {
        if server == self.my_id {
            return false;
        }
        if !self.peers.contains_key(&server) {
            if addresses.is_empty() && !self.has_room() {
                return false;
            }
            self.peers.insert(server, Peer::default());
        }
        let Some(peer) = self.peers.get_mut(&server).filter(|_| !addresses.is_empty()) else { return true };
        let before = mem::replace(&mut peer.configured, addresses.to_vec());
        let has_left = before.iter().any(|address| !addresses.contains(address));
        if let (true, true, Contact::Up { link, .. }) = (has_left, server < self.my_id, peer.contact) {
            self.drop_link(server, link, format!("server {} moved: who answered the dial may be another", server.0));
        }
        true
    }

    /// An accepted link said who it is.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, now_ms: i64) {
        let server = hello.server;
        if server == self.my_id {
            let why = format!("it says it is server {}, which is this one: give each server its own myid", server.0);
            return self.close(link, why);
        }
        if !self.know(server, &[]) {
            let why = format!("server {} is in no configuration, and too many such servers came before", server.0);
            return self.close(link, why);
        }
        let Some(peer) = self.peers.get_mut(&server) else { return };
        let told = usable(&hello.addresses);
        if let Some(why) = peer.clash(&told)
            && peer.clashes.get_or_insert_with(|| Quiet::every(WARNING_PAUSE_MS)).pass(now_ms).is_some()
        {
            log::warn!("two servers say that they are server {}: {why}; give each its own myid", server.0);
        }
        peer.told = told;
        if server > self.my_id {
            let found = mem::take(&mut peer.introduced);
            self.establish(server, link, false, found);
            return self.pump(server);
        }
        // It dials because it has no link: one that is thought to be up is dead.
        let addresses = if peer.told.is_empty() { peer.configured.clone() } else { peer.told.clone() };
        if let Contact::Up { link: old, .. } = peer.contact {
            self.drop_link(server, old, format!("server {} has lost it and comes again", server.0));
        }
        self.close(link, format!("server {} has the smaller id and is dialled back", server.0));
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if peer.is_dialed() {
            if !are_among(&addresses, &peer.dialing) {
                peer.told_meanwhile = addresses;
            }
            return;
        }
        self.dial_as_told(server, addresses, now_ms);
    }

    /// A dialled link is up.
    pub fn on_dialed(&mut self, link: LinkId, server: ServerId) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return self.close(link, format!("server {} is not to be reached any more", server.0));
        };
        let is_probe = peer.probe == Probe::Dialing;
        if peer.contact != Contact::Dialing && !is_probe {
            // Its own link was quicker; a hello would make it close that one.
            return self.close(link, format!("server {} is connected already", server.0));
        }
        if server < self.my_id {
            peer.probe = Probe::None;
            let found = mem::take(&mut peer.dialing);
            self.establish(server, link, true, found);
        } else {
            match is_probe {
                true => peer.probe = Probe::Introducing(link),
                false => peer.contact = Contact::Introducing(link),
            }
            self.servers.insert(link, server);
        }
        self.effects.push(Effect::SendElection { link, bytes: self.hello.clone() });
    }

    /// A server could not be dialled. It may be elsewhere.
    pub fn on_undialed(&mut self, server: ServerId, now_ms: i64) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        match (peer.contact, peer.probe) {
            (Contact::Dialing, _) => peer.contact = Contact::None,
            (_, Probe::Dialing) => peer.probe = Probe::None,
            _ => return,
        }
        if mem::take(&mut peer.is_elsewhere) {
            let configured = peer.configured.clone();
            self.dial(server, configured, now_ms);
        } else {
            let told = mem::take(&mut peer.told_meanwhile);
            self.dial_as_told(server, told, now_ms);
        }
    }

    /// The kernel took all that was sent on this link.
    pub fn on_flushed(&mut self, link: LinkId) {
        let Some(server) = self.server_of(link) else { return };
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if peer.probe == Probe::Introducing(link) {
            peer.introduced = mem::take(&mut peer.dialing);
            return self.drop_link(server, link, format!("server {} has the larger id and dials back", server.0));
        }
        match &mut peer.contact {
            Contact::Introducing(_) => {
                peer.introduced = mem::take(&mut peer.dialing);
                self.drop_link(server, link, format!("server {} has the larger id and dials back", server.0));
            }
            Contact::Up { busy, .. } => {
                *busy = false;
                self.pump(server);
            }
            Contact::None | Contact::Dialing => {}
        }
    }

    /// A link is gone. What it had not delivered waits for the next one.
    pub fn on_closed(&mut self, link: LinkId) {
        if let Some(server) = self.servers.remove(&link) {
            self.forget_link(server, link);
        }
    }

    /// Whose link it is; `None` before its hello and after its end.
    pub fn server_of(&self, link: LinkId) -> Option<ServerId> {
        self.servers.get(&link).copied()
    }

    /// Servers that can be spoken to now.
    pub fn linked(&self) -> BTreeSet<ServerId> {
        self.servers.values().copied().collect()
    }

    /// What is to be done, once, in this order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// Makes this the one link of a server. It begins with the message that waits, or else with the last one again: the
    /// link before may have swallowed it.
    fn establish(&mut self, server: ServerId, link: LinkId, busy: bool, found: Vec<PeerAddress>) {
        let contact = self.peers.get(&server).map_or(Contact::None, |peer| peer.contact);
        if let Contact::Up { link: old, .. } | Contact::Introducing(old) = contact {
            self.drop_link(server, old, format!("a newer link to server {} takes its place", server.0));
        }
        let Some(peer) = self.peers.get_mut(&server) else { return };
        peer.contact = Contact::Up { link, busy };
        peer.found = found;
        peer.told_meanwhile.clear();
        peer.backoff_ms = 0;
        if peer.queued.is_none() {
            peer.queued = peer.last.clone();
        }
        self.servers.insert(link, server);
    }

    /// Hands the message that waits to the link, if that is free.
    fn pump(&mut self, server: ServerId) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        let Contact::Up { link, busy: busy @ false } = &mut peer.contact else { return };
        let Some(bytes) = peer.queued.take() else { return };
        *busy = true;
        peer.last = Some(bytes.clone());
        self.effects.push(Effect::SendElection { link: *link, bytes });
    }

    fn redial(&mut self, server: ServerId, now_ms: i64) {
        let Some(peer) = self.peers.get(&server) else { return };
        self.dial_after(server, peer.wait_ms(), now_ms);
    }

    /// Dials where the configuration says, if the last attempt is old enough.
    fn dial_after(&mut self, server: ServerId, wait_ms: i64, now_ms: i64) {
        let Some(peer) = self.peers.get(&server) else { return };
        let is_idle = peer.contact == Contact::None || peer.is_sought();
        if !is_idle || peer.tried_ms.is_some_and(|at| now_ms < at + wait_ms) {
            return;
        }
        let known = if peer.configured.is_empty() { &peer.told } else { &peer.configured };
        // In turn: it may be at either place.
        let is_listed = !peer.listed.is_empty() && (known.is_empty() || peer.is_sought() || !peer.tried_listed);
        let addresses = if is_listed { &peer.listed } else { known }.clone();
        self.dial(server, addresses, now_ms);
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.tried_listed = is_listed;
        }
    }

    /// Dials where it said it is.
    fn dial_as_told(&mut self, server: ServerId, addresses: Vec<PeerAddress>, now_ms: i64) {
        let Some(peer) = self.peers.get(&server) else { return };
        let is_elsewhere = !peer.configured.is_empty() && !are_among(&addresses, &peer.configured);
        self.dial(server, addresses, now_ms);
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.is_elsewhere = is_elsewhere && peer.is_dialed();
        }
    }

    /// One attempt at a time.
    fn dial(&mut self, server: ServerId, addresses: Vec<PeerAddress>, now_ms: i64) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if peer.probe != Probe::None || addresses.is_empty() {
            return;
        }
        match peer.contact {
            Contact::None => peer.contact = Contact::Dialing,
            Contact::Up { .. } => peer.probe = Probe::Dialing,
            Contact::Dialing | Contact::Introducing(_) => return,
        }
        peer.dialing.clone_from(&addresses);
        peer.is_elsewhere = false;
        peer.tried_ms = Some(now_ms);
        peer.backoff_ms = (peer.backoff_ms * 2).clamp(MIN_BACKOFF_MS, MAX_BACKOFF_MS);
        self.effects.push(Effect::DialElection { server, addresses });
    }

    fn drop_link(&mut self, server: ServerId, link: LinkId, why: String) {
        self.servers.remove(&link);
        self.forget_link(server, link);
        self.close(link, why);
    }

    fn forget_link(&mut self, server: ServerId, link: LinkId) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if peer.probe == Probe::Introducing(link) {
            peer.probe = Probe::None;
            return;
        }
        if let Contact::Up { busy: true, .. } = peer.contact
            && peer.queued.is_none()
        {
            peer.queued = peer.last.clone();
        }
        peer.contact = Contact::None;
    }

    fn close(&mut self, link: LinkId, why: String) {
        self.effects.push(Effect::Close { link, why });
    }

    /// Whether one more stranger fits; one without a link makes room.
    fn has_room(&mut self) -> bool {
        let strangers = self.peers.iter().filter(|(_, peer)| peer.configured.is_empty());
        if strangers.clone().count() < MAX_STRANGERS {
            return true;
        }
        let idle = strangers.clone().find(|(_, peer)| peer.contact == Contact::None).map(|(server, _)| *server);
        idle.is_some_and(|server| self.peers.remove(&server).is_some())
    }
}

impl Peer {
    /// From the last attempt to the next, with nothing new to say.
    fn wait_ms(&self) -> i64 {
        self.backoff_ms.max(MIN_BACKOFF_MS)
    }

    /// Whether there is something to say, somewhere to dial, and nothing under way.
    fn waits(&self) -> bool {
        let has_address = ![&self.configured, &self.told, &self.listed].iter().all(|known| known.is_empty());
        self.queued.is_some() && self.contact == Contact::None && has_address
    }

    /// Whether an attempt is under way.
    fn is_dialed(&self) -> bool {
        self.contact == Contact::Dialing || self.probe != Probe::None
    }

    /// Whether it has a link, is to be found, and was not, with nothing under way.
    fn is_sought(&self) -> bool {
        let is_up = matches!(self.contact, Contact::Up { .. }) && self.probe == Probe::None;
        let places = [&self.listed[..], &self.configured].concat();
        is_up && !self.listed.is_empty() && !is_among(&self.found, &places)
    }
}

/// The same of a list of members.
fn usable_addresses(addresses: &[PeerAddress]) -> Vec<PeerAddress> {
    let places: Vec<_> = addresses.iter().map(|address| (address.host.clone(), address.election_port)).collect();
    usable(&places)
}

/// Whether elections are held at all of these places, by the others.
fn are_among(addresses: &[PeerAddress], known: &[PeerAddress]) -> bool {
    let same = |a: &PeerAddress, b: &PeerAddress| (&a.host, a.election_port) == (&b.host, b.election_port);
    addresses.iter().all(|address| known.iter().any(|other| same(address, other)))
}

/// Addresses that can be dialled: not those that only say "any of mine".
fn usable(addresses: &[(String, u16)]) -> Vec<PeerAddress> {
    let is_wildcard = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.is_empty() || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    };
    let usable = addresses.iter().filter(|(host, port)| *port != 0 && !is_wildcard(host));
    // The hello names no quorum port, and nobody asks for it here.
    usable.map(|(host, port)| PeerAddress { host: host.clone(), quorum_port: 0, election_port: *port }).collect()
}

impl Peer {
    /// Somebody says from elsewhere that it is this server, whose link is up.
    fn clash(&self, told: &[PeerAddress]) -> Option<String> {
        let known = if self.told.is_empty() { &self.configured } else { &self.told };
        let places = |addresses: &[PeerAddress]| {
            let place = |at: &PeerAddress| HostPort { host: at.host.clone(), port: at.election_port }.to_string();
            addresses.iter().map(place).collect::<Vec<String>>().join("|")
        };
        let is_up = matches!(self.contact, Contact::Up { .. });
        let differs = !known.is_empty() && !are_among(told, known);
        (is_up && differs).then(|| format!("one at {}, and one at {}, which is connected", places(told), places(known)))
    }
}

#[cfg(test)]
mod tests;
