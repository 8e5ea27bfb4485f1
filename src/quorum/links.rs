//! Who connects to whom on the election port (`QuorumCnxManager`): one link per pair of servers, dialled by the larger
//! id; a smaller one dials only to say its name and is dialled back. Pure: what happened to links goes in, [`Effect`]s
//! (`DialElection`, `SendElection`, `Close`) come out. Driven by [`super::peer`].
//!
//! Only the newest message for a server matters, so that one place per server is enough of a queue. A link carries one
//! message at a time, and a new link begins with the message that waits or else with the last one sent: whatever happens
//! to links, the newest vote arrives once there is one.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;

use crate::config::ensemble::PeerAddress;
use crate::ids::ServerId;
use crate::quorum::notification::Hello;
use crate::quorum::{Effect, LinkId};

/// The least time between two attempts to dial a server, and the first wait after one that brought no link.
const MIN_BACKOFF_MS: i64 = 100;
/// Waits double up to this.
const MAX_BACKOFF_MS: i64 = 5_000;
/// Servers that are in no configuration are remembered up to this many.
const MAX_STRANGERS: usize = 64;

/// The links of one server's election port. A change of the configuration closes all and makes a new one.
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
#[derive(Default)]
struct Peer {
    /// From the configuration; empty for a stranger.
    configured: Vec<PeerAddress>,
    /// From its last hello.
    told: Vec<PeerAddress>,
    contact: Contact,
    /// Waits for a link, or for the link to be free.
    queued: Option<Vec<u8>>,
    /// The last message that was given to a link.
    last: Option<Vec<u8>>,
    /// When the last attempt began.
    dialed_ms: Option<i64>,
    /// From then to the next attempt, unless there is something new to say. 0 once a link was established.
    backoff_ms: i64,
}

/// How a peer can be reached now.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Contact {
    #[default]
    None,
    Dialing,
    /// Dialled, and it is the larger one: closed as soon as it has the hello.
    Introducing(LinkId),
    Up {
        link: LinkId,
        carrying: Carrying,
    },
}

/// What a link has not yet handed to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrying {
    Nothing,
    Hello,
    /// `Peer::last`
    Message,
}

impl Links {
    /// No links. `hello` is the encoded initial message of this server.
    pub fn new(my_id: ServerId, hello: Vec<u8>) -> Links {
        Links { my_id, hello, peers: BTreeMap::new(), servers: BTreeMap::new(), effects: Vec::new() }
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

    /// The same for every server that was heard of.
    pub fn connect_all(&mut self, now_ms: i64) {
        let all: Vec<ServerId> = self.peers.keys().copied().collect();
        all.into_iter().for_each(|server| self.redial(server, now_ms));
    }

    /// Dials again for messages that wait. To be called only while this server looks: with a role it waits for those who
    /// look, and a message for a server that is gone may wait forever.
    pub fn tick(&mut self, now_ms: i64) {
        let waiting = self.peers.iter().filter(|(_, peer)| peer.waits());
        let waiting: Vec<ServerId> = waiting.map(|(server, _)| *server).collect();
        waiting.into_iter().for_each(|server| self.redial(server, now_ms));
    }

    /// When `tick` has something to do; `i64::MAX` for never.
    pub fn next_deadline_ms(&self) -> i64 {
        let waiting = self.peers.values().filter(|peer| peer.waits());
        waiting.map(|peer| peer.dialed_ms.map_or(0, |at| at + peer.backoff_ms)).min().unwrap_or(i64::MAX)
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
        if let Some(peer) = self.peers.get_mut(&server)
            && !addresses.is_empty()
        {
            peer.configured = addresses.to_vec();
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
        peer.told = usable(&hello.addresses);
        if server > self.my_id {
            self.establish(server, link, Carrying::Nothing);
            return self.pump(server);
        }
        // It dials because it has no link: one that is thought to be up is dead.
        let addresses = if peer.told.is_empty() { peer.configured.clone() } else { peer.told.clone() };
        if let Contact::Up { link: old, .. } = peer.contact {
            self.drop_link(server, old, format!("server {} has lost it and comes again", server.0));
        }
        self.close(link, format!("server {} has the smaller id and is dialled back", server.0));
        self.dial(server, addresses, now_ms);
    }

    /// A dialled link is up.
    pub fn on_dialed(&mut self, link: LinkId, server: ServerId) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return self.close(link, format!("server {} is not to be reached any more", server.0));
        };
        if peer.contact != Contact::Dialing {
            // Its own link was quicker; a hello would make it close that one.
            return self.close(link, format!("server {} is connected already", server.0));
        }
        if server < self.my_id {
            self.establish(server, link, Carrying::Hello);
        } else {
            peer.contact = Contact::Introducing(link);
            self.servers.insert(link, server);
        }
        self.effects.push(Effect::SendElection { link, bytes: self.hello.clone() });
    }

    /// A server could not be dialled.
    pub fn on_undialed(&mut self, server: ServerId) {
        if let Some(peer) = self.peers.get_mut(&server)
            && peer.contact == Contact::Dialing
        {
            peer.contact = Contact::None;
        }
    }

    /// The kernel took all that was sent on this link.
    pub fn on_flushed(&mut self, link: LinkId) {
        let Some(server) = self.server_of(link) else { return };
        let Some(peer) = self.peers.get_mut(&server) else { return };
        match &mut peer.contact {
            Contact::Introducing(_) => {
                self.drop_link(server, link, format!("server {} has the larger id and dials back", server.0));
            }
            Contact::Up { carrying, .. } => {
                let was = mem::replace(carrying, Carrying::Nothing);
                if was == Carrying::Hello && peer.queued.is_none() {
                    peer.queued = peer.last.clone();
                }
                self.pump(server);
            }
            Contact::None | Contact::Dialing => {}
        }
    }

    /// A link is gone. What it had not delivered waits for the next one.
    pub fn on_closed(&mut self, link: LinkId) {
        if let Some(server) = self.servers.remove(&link) {
            self.forget_link(server);
        }
    }

    /// Whose link it is; `None` before its hello and after its end.
    pub fn server_of(&self, link: LinkId) -> Option<ServerId> {
        self.servers.get(&link).copied()
    }

    /// Every link is closed and nobody is known any more.
    pub fn close_all(&mut self, why: &str) {
        self.peers.clear();
        for link in mem::take(&mut self.servers).into_keys() {
            self.close(link, why.to_string());
        }
    }

    /// What is to be done, once, in this order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// Makes this the one link of a server. It begins with the message that waits, or else with the last one again: the
    /// link before may have swallowed it.
    fn establish(&mut self, server: ServerId, link: LinkId, carrying: Carrying) {
        let contact = self.peers.get(&server).map_or(Contact::None, |peer| peer.contact);
        if let Contact::Up { link: old, .. } | Contact::Introducing(old) = contact {
            self.drop_link(server, old, format!("a newer link to server {} takes its place", server.0));
        }
        let Some(peer) = self.peers.get_mut(&server) else { return };
        peer.contact = Contact::Up { link, carrying };
        peer.backoff_ms = 0;
        if carrying == Carrying::Nothing && peer.queued.is_none() {
            peer.queued = peer.last.clone();
        }
        self.servers.insert(link, server);
    }

    /// Hands the message that waits to the link, if that is free.
    fn pump(&mut self, server: ServerId) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        let Contact::Up { link, carrying: carrying @ Carrying::Nothing } = &mut peer.contact else { return };
        let Some(bytes) = peer.queued.take() else { return };
        *carrying = Carrying::Message;
        peer.last = Some(bytes.clone());
        self.effects.push(Effect::SendElection { link: *link, bytes });
    }

    fn redial(&mut self, server: ServerId, now_ms: i64) {
        let backoff_ms = self.peers.get(&server).map_or(0, |peer| peer.backoff_ms);
        self.dial_after(server, backoff_ms.max(MIN_BACKOFF_MS), now_ms);
    }

    /// Dials where the configuration says, if the last attempt is old enough.
    fn dial_after(&mut self, server: ServerId, wait_ms: i64, now_ms: i64) {
        let Some(peer) = self.peers.get(&server) else { return };
        if peer.dialed_ms.is_some_and(|at| now_ms < at + wait_ms) {
            return;
        }
        let addresses = if peer.configured.is_empty() { &peer.told } else { &peer.configured };
        self.dial(server, addresses.clone(), now_ms);
    }

    /// One attempt at a time.
    fn dial(&mut self, server: ServerId, addresses: Vec<PeerAddress>, now_ms: i64) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if peer.contact != Contact::None || addresses.is_empty() {
            return;
        }
        peer.contact = Contact::Dialing;
        peer.dialed_ms = Some(now_ms);
        peer.backoff_ms = (peer.backoff_ms * 2).clamp(MIN_BACKOFF_MS, MAX_BACKOFF_MS);
        self.effects.push(Effect::DialElection { server, addresses });
    }

    fn drop_link(&mut self, server: ServerId, link: LinkId, why: String) {
        self.servers.remove(&link);
        self.forget_link(server);
        self.close(link, why);
    }

    fn forget_link(&mut self, server: ServerId) {
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if let Contact::Up { carrying: Carrying::Message, .. } = peer.contact
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
    /// Whether there is something to say, somewhere to dial, and nothing under way.
    fn waits(&self) -> bool {
        let has_address = !self.configured.is_empty() || !self.told.is_empty();
        self.queued.is_some() && self.contact == Contact::None && has_address
    }
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
