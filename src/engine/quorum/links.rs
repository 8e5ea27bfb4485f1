//! All connections between servers: whom there is room for, who is closed when too much waits for learners, and which have
//! something to do that no event tells of.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::inbound::Heard;
use super::link::{Link, READ_BYTES, Socket};
use super::pipeline_batch::PipelineTold;
use crate::ids::LinkId;
use crate::limits::VOTERS_TIMES;
use crate::memory::{Account, Bounds};
use crate::quiet::{Quiet, suppressed};
use crate::quorum::LinkPriority;
use crate::state::StateRules;

/// Connections of one port that have not said who they are. One more takes the place of the oldest.
const SILENT_MAX: usize = 256;
/// Shortest distance of two complaints about strangers that are too many, ms.
const CROWD_INTERVAL_MS: i64 = 60_000;
/// What waits for one learner before it is compared with the others.
const UNSENT_BYTES_SOME: usize = 1 << 20;

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub struct LinkRules {
    /// The largest packet, bytes of its data.
    pub packet_bytes_max: usize,
    /// How long a stranger may take to say who it is.
    pub hello_timeout_ms: i64,
    /// What is sent with one call, at least, while more waits; and when what waits should not wait for more, bytes.
    pub block_bytes: usize,
    /// For a snapshot that is received.
    pub state: StateRules,
    /// How much may wait for learners.
    pub memory: Bounds,
}

/// Whether one more stranger can be taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It can.
    Enough,
    /// If this one makes room, the oldest of those that are silent.
    Of(LinkId),
    /// It cannot, and nobody is silent.
    None,
}

/// Every connection that is open.
#[derive(Debug)]
pub struct Links<S> {
    /// For all of them.
    pub rules: LinkRules,
    links: BTreeMap<LinkId, Link<S>>,
    next_link: u64,
    /// Links with bytes to read or to send that no event will tell of again.
    ready: Vec<LinkId>,
    /// Links that ended while effects were carried out, and why: the core hears of it when all are.
    broken: Vec<(LinkId, String)>,
    /// The first descriptor that is not for connections of strangers.
    strangers_below: u64,
    /// Complaints about strangers that are too many.
    crowd: Quiet,
    /// What is read goes by way of this.
    buffer: Vec<u8>,
}

impl<S: Socket> Links<S> {
    /// None yet. `strangers_below`: from this descriptor on they are not for connections of strangers.
    pub fn new(rules: LinkRules, strangers_below: u64) -> Links<S> {
        Links {
            rules,
            links: BTreeMap::new(),
            next_link: 0,
            ready: Vec::new(),
            broken: Vec::new(),
            strangers_below,
            crowd: Quiet::every(CROWD_INTERVAL_MS),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// One of them.
    pub fn get(&self, id: LinkId) -> Option<&Link<S>> {
        self.links.get(&id)
    }

    /// The same, to do something with it.
    pub fn get_mut(&mut self, id: LinkId) -> Option<&mut Link<S>> {
        self.links.get_mut(&id)
    }

    /// It is not one of them any more.
    pub fn remove(&mut self, id: LinkId) -> Option<Link<S>> {
        self.links.remove(&id)
    }

    // In and out.

    /// Whether a connection that was accepted can be taken in. If too many of its port are silent, the oldest of them is to
    /// make room: the newest may be a server that comes back.
    pub fn room_for(&mut self, stranger: &Link<S>, now_ms: i64) -> Room {
        let is_kept = stranger.descriptor() >= self.strangers_below;
        let silent = |other: &Link<S>| other.is_silent() && other.is_election() == stranger.is_election();
        let silent: Vec<LinkId> = self.links.iter().filter(|(_, other)| silent(other)).map(|(id, _)| *id).collect();
        if !is_kept && silent.len() < SILENT_MAX {
            return Room::Enough;
        }
        if let Some(others) = self.crowd.pass(now_ms) {
            let port = if stranger.is_election() { "election" } else { "quorum" };
            let (peer, count) = (stranger.peer, silent.len());
            log::warn!(
                "{count} connections to the {port} port have not said who they are; the oldest is closed for that \
                 of {peer}{}",
                suppressed(others)
            );
        }
        silent.first().map_or(Room::None, |oldest| Room::Of(*oldest))
    }

    /// The number of the next connection.
    pub fn next_id(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link - 1)
    }

    /// Takes in a connection.
    pub fn admit(&mut self, id: LinkId, link: Link<S>) {
        self.links.insert(id, link);
        self.ready.push(id);
    }

    /// Closes what the role had.
    pub fn leave_role(&mut self, told: &PipelineTold) {
        // What was said before may be what the others need to go on.
        self.links.values_mut().filter(|link| !link.is_election()).for_each(|link| drop(link.send(told)));
        self.links.retain(|_, link| link.is_election());
    }

    // Who wants what.

    /// There is something to read or to send, and no event tells of it.
    pub fn wake(&mut self, id: LinkId) {
        self.ready.push(id);
    }

    /// Whether [`Links::take_ready`] has any.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Those that are awake without an event.
    pub fn take_ready(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.ready)
    }

    /// Those that ended while effects were carried out, and why.
    pub fn take_broken(&mut self) -> Vec<(LinkId, String)> {
        std::mem::take(&mut self.broken)
    }

    /// Those with something that the kernel may take now, or that has left.
    pub fn with_output(&self) -> Vec<LinkId> {
        self.filtered(|link| link.can_send() || link.has_sent())
    }

    /// Those that should have said who they are by now.
    pub fn late(&self, now_ms: i64) -> Vec<LinkId> {
        self.filtered(|link| link.hello_by_ms.is_some_and(|by_ms| by_ms <= now_ms))
    }

    /// When the next one is late.
    pub fn next_hello_ms(&self) -> i64 {
        self.links.values().filter_map(|link| link.hello_by_ms).min().unwrap_or(i64::MAX)
    }

    fn filtered(&self, wanted: impl Fn(&Link<S>) -> bool) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| wanted(link)).map(|(id, _)| *id).collect()
    }

    /// Their figures begin anew.
    pub fn reset_figures(&mut self) {
        self.links.values_mut().for_each(Link::reset_figures);
    }

    /// For operators.
    pub fn publish(&self) {
        Account::Links.publish(self.unsent());
    }

    fn unsent(&self) -> usize {
        self.links.values().filter(|link| !link.is_election()).map(Link::unsent).sum()
    }

    // Bytes.

    /// Reads what is there, up to a turn's worth.
    pub fn read(&mut self, id: LinkId) -> Option<Result<(), String>> {
        let more = self.links.get_mut(&id)?.read(&mut self.buffer);
        if more == Ok(true) {
            self.ready.push(id);
        }
        Some(more.map(|_| ()))
    }

    /// The next thing that is whole, of what was read.
    pub fn hear(&mut self, id: LinkId) -> Option<Result<Heard, String>> {
        Some(self.links.get_mut(&id)?.hear())
    }

    /// What waits for a learner is sent before it is much, if the pipeline was told, and not kept if it is too much.
    pub fn relieve(&mut self, id: LinkId, told: Option<PipelineTold>, priority: impl Fn(LinkId) -> LinkPriority) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(told) = told
            && let Err(error) = link.send(&told)
        {
            self.broken.push((id, error.to_string()));
        }
        if link.unsent() < UNSENT_BYTES_SOME {
            return;
        }
        let total = self.unsent();
        let bytes_max = self.rules.memory.get(Account::Links);
        if total <= bytes_max {
            return;
        }
        let much = self.links.iter().filter(|(_, link)| !link.is_election() && link.unsent() >= UNSENT_BYTES_SOME);
        let worst = much.map(|(id, link)| (priority(*id), Reverse(link.unsent()), *id)).min();
        if let Some((priority, Reverse(bytes), id)) = worst
            && (priority < LinkPriority::Voter || total > VOTERS_TIMES * bytes_max)
            && let Some(link) = self.links.get_mut(&id)
        {
            link.discard_and_close();
            self.broken.push((id, format!("it does not read what it is sent: {bytes} of {total} bytes wait for it")));
        }
    }
}
