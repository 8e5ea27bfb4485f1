//! The connections of clients, with their sockets: what is read of whom and when, what is written, who is closed. The rules
//! are in [`crate::net`]; the turns of the poller are told here what happened. What differs between a host and a simulation,
//! the sockets and how they come about, stays outside.
//!
//! A turn: edges, connections that came, the pipeline's replies and one write for each connection concerned
//! ([`Clients::flush_all`]), reading ([`Clients::serve_ready`]), the time; what there is for the pipeline is taken at its
//! end ([`Clients::take_batch`]).
//!
//! What an edge announced is remembered in [`Client`] until it is used up. Who has work left stands in `ready` and gets its
//! next turn after the others.

mod client;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use slab::Slab;

use crate::admin::words::{PollerView, Word};
use crate::ids::ConnId;
use crate::limits;
use crate::mail::{Outgoing, ToPipeline, ToPoller};
use crate::memory::Account;
use crate::metrics;
use crate::net::PollerOptions;
use crate::net::conn::{CloseCause, Conn};
use crate::net::ingress::Ingress;
use crate::net::load::enough_per_look;
use crate::net::stats::Stats;
use crate::parts;
use crate::quiet::{Quiet, suppressed};

use client::Client;

pub use client::{Edge, Socket};

/// A four-letter word that is to be answered.
#[derive(Debug)]
pub struct Asked {
    /// Where the text goes.
    pub conn: ConnId,
    /// Which.
    pub word: Word,
    /// What is known of the connections.
    pub view: PollerView,
}

/// See the module.
pub struct Clients<S> {
    options: PollerOptions,
    ingress: Ingress,
    clients: Slab<Client<S>>,
    /// Connections accepted so far.
    generation: u32,
    buffer: Box<[u8]>,
    /// Slots with work left; each client knows whether it is in (`queued`).
    ready: Vec<usize>,
    /// Spare of `ready`, empty between turns.
    serving: Vec<usize>,
    /// Slots with something new to write (`dirty`).
    dirty: Vec<usize>,
    /// Connections that an operator wants closed, some in each turn.
    shed: Vec<ConnId>,
    /// Closing connections, by the time at which patience ends, monotonic ms.
    lingering: VecDeque<(ConnId, i64)>,
    /// Connections that are gone: the listener that each came by, and where it came from.
    gone: Vec<(usize, IpAddr)>,
    next_sweep_ms: i64,
    /// Once, because it came late.
    sweep_is_put_off: bool,
    /// When those who have room, and those who wait for it, are looked at, monotonic ms.
    next_look_ms: i64,
    complaints: Quiet,
    /// Writes whose answers go out in this turn, and when they were applied, monotonic microseconds.
    applied: Vec<(usize, i64)>,
    /// Bytes that connections have for themselves: the sum of their `counted_unsent`.
    unsent: usize,
    /// Bytes written in this turn to connections for which much waits.
    bulk_written: usize,
    /// Such bytes that the pipeline does not know to be taken, those that wait included.
    untaken: usize,
    /// Shared bytes that were written, of which the pipeline was not told.
    returned: usize,
    /// As the pipeline said last: how much there is too much of what is told.
    excess: usize,
    /// The clocks, read once a turn.
    now_us: i64,
    wall_ms: i64,
}

impl<S: Socket> Clients<S> {
    /// None yet, at this time, monotonic microseconds. `seed` is where chance comes from.
    pub fn new(options: PollerOptions, now_us: i64, seed: u64) -> Clients<S> {
        Clients {
            ingress: Ingress::new(&options, seed),
            next_sweep_ms: now_us / 1000 + options.sessionless_timeout_ms,
            sweep_is_put_off: false,
            next_look_ms: 0,
            options,
            clients: Slab::new(),
            generation: 0,
            buffer: vec![0; limits::READ_BYTES_PER_TURN].into_boxed_slice(),
            ready: Vec::new(),
            serving: Vec::new(),
            dirty: Vec::new(),
            shed: Vec::new(),
            lingering: VecDeque::new(),
            gone: Vec::new(),
            complaints: Quiet::default(),
            applied: Vec::new(),
            unsent: 0,
            bulk_written: 0,
            untaken: 0,
            returned: 0,
            excess: 0,
            now_us,
            wall_ms: 0,
        }
    }

    /// It is so late.
    pub fn set_time(&mut self, now_us: i64, wall_ms: i64) {
        (self.now_us, self.wall_ms) = (now_us, wall_ms);
    }

    fn now_ms(&self) -> i64 {
        self.now_us / 1000
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether requests are in flight.
    pub fn are_asking(&self) -> bool {
        self.ingress.load.requests() > 0
    }

    /// Whether nothing waits to be written.
    pub fn has_sent_all(&self) -> bool {
        self.clients.iter().all(|(_, client)| client.conn.output.is_empty())
    }

    /// Whether there is something to do that no edge tells of.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.shed.is_empty()
            || self.ingress.load.first_with_room().is_some()
    }

    /// When a turn is wanted at the latest, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        let look_ms = if self.looks() { self.next_look_ms } else { i64::MAX };
        let patience_ms = self.lingering.front().map_or(i64::MAX, |(_, until_ms)| *until_ms);
        self.next_sweep_ms.min(look_ms).min(patience_ms)
    }

    // Connections.

    /// The number of the next one.
    pub fn next_id(&self) -> ConnId {
        let slot = u32::try_from(self.clients.vacant_key()).expect("slots are 32 bits");
        ConnId { slot, generation: self.generation.wrapping_add(1) }
    }

    /// One came, by this listener. `socket` tells its edges by [`Clients::next_id`].
    pub fn welcome(&mut self, socket: S, peer: SocketAddr, listener: usize) {
        let id = self.next_id();
        self.generation = id.generation;
        log::debug!("{peer} connected");
        self.clients.insert(Client::new(Conn::new(id, peer, self.now_ms()), socket, listener));
    }

    /// There is something to read, or more can be written.
    pub fn on_edge(&mut self, id: ConnId, edge: Edge) {
        let slot = id.slot as usize;
        // Closed earlier in this turn, or its slot used again.
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.conn.id == id) else { return };
        client.on_edge(edge);
        if edge.writable && !client.conn.output.is_empty() {
            mark_dirty(client, &mut self.dirty, slot);
        }
        if !client.paused {
            mark_ready(client, &mut self.ready, slot);
        }
    }

    /// Those that went since this was asked last: the listener that each came by, and from where.
    pub fn take_gone(&mut self) -> Vec<(usize, IpAddr)> {
        std::mem::take(&mut self.gone)
    }

    /// A part of them is to be closed, so many of a hundred. Gives how many that are.
    pub fn shed(&mut self, percent: u8) -> usize {
        let all: Vec<ConnId> = self.clients.iter().map(|(_, client)| client.conn.id).collect();
        let chosen = self.ingress.share(all, percent);
        let count = chosen.len();
        self.shed.extend(chosen);
        count
    }

    /// Closes some of those.
    pub fn close_shed(&mut self) {
        for id in self.shed.split_off(self.shed.len().saturating_sub(limits::SHED_PER_TURN)) {
            let slot = id.slot as usize;
            if self.clients.get(slot).is_some_and(|client| client.conn.id == id) {
                self.close(slot, &CloseCause::Shed);
            }
        }
    }

    /// The server ends: what was written is to arrive.
    pub fn end(&mut self) {
        self.clients.iter_mut().for_each(|(_, client)| client.end(&mut self.buffer));
    }

    // Replies.

    /// What the pipeline has to say.
    pub fn on_replies(&mut self, mail: ToPoller) {
        self.applied.extend(mail.applied);
        for outgoing in mail.outgoing {
            self.untaken += outgoing.bytes.own_len();
            self.on_outgoing(outgoing);
        }
        if let Some(excess) = mail.excess_bytes {
            if self.excess == 0 {
                // What was seen when room was short before is no matter now.
                self.clients.iter_mut().for_each(|(_, client)| client.conn.begin_looks_at_reading());
            }
            self.excess = excess;
            self.ingress.load.set_replies_tight(excess > 0);
        }
    }

    fn on_outgoing(&mut self, outgoing: Outgoing) {
        let id = outgoing.conn;
        let slot = id.slot as usize;
        let shared = outgoing.bytes.len() - outgoing.bytes.own_len();
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.conn.id == id) else {
            self.returned += shared;
            self.ingress.load.on_answered_departed(id, outgoing.answered);
            return;
        };
        if client.conn.is_closing() {
            self.returned += shared;
        }
        client.tell_drained |= outgoing.tell_drained;
        client.conn.on_outgoing(outgoing, &mut self.ingress.load, self.now_us, self.wall_ms);
        mark_dirty(client, &mut self.dirty, slot);
        if client.paused {
            mark_ready(client, &mut self.ready, slot);
        }
    }

    fn flush(&mut self, slot: usize) {
        let now_ms = self.now_ms();
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.dirty) else { return };
        client.dirty = false;
        let waiting = client.conn.output.unsent();
        let is_bulk = waiting > limits::BULK_BYTES;
        if is_bulk && self.bulk_written >= limits::BULK_BYTES_PER_TURN {
            return mark_dirty(client, &mut self.dirty, slot);
        }
        match client.flush(now_ms) {
            Ok(true) => mark_dirty(client, &mut self.dirty, slot),
            Ok(false) => (),
            Err(cause) => return self.close(slot, &cause),
        }
        let (unsent, own) = (client.conn.output.unsent(), client.conn.output.own());
        if is_bulk {
            self.bulk_written += waiting - unsent;
        }
        self.unsent = self.unsent - client.counted_unsent + own;
        client.counted_unsent = own;
        self.returned += client.conn.output.take_returned();
        if client.tell_drained && unsent <= limits::UNSENT_BYTES_PAUSE {
            client.tell_drained = false;
            self.ingress.batch.push(ToPipeline::Drained { conn: client.conn.id });
        }
        if client.paused {
            mark_ready(client, &mut self.ready, slot);
        }
        if client.conn.is_closing() && !client.lingers {
            client.lingers = true;
            self.lingering.push_back((client.conn.id, now_ms + limits::LINGER_MS));
        }
    }

    /// One write for each connection that has something new. Gives what was answered by it: how many writes, and when they
    /// were applied.
    pub fn flush_all(&mut self) -> impl ExactSizeIterator<Item = (usize, i64)> {
        self.bulk_written = 0;
        let count = self.dirty.len();
        for n in 0..count {
            self.flush(self.dirty[n]);
        }
        self.dirty.drain(..count);
        self.applied.drain(..)
    }

    /// Events cannot wait. When they are far more than there is room for, whoever has most of it goes.
    pub fn relieve(&mut self) {
        let bytes_max = self.options.replies_bytes_max;
        while self.unsent > bytes_max + bytes_max / 2 {
            let most = self.clients.iter().max_by_key(|(_, client)| client.counted_unsent);
            let Some((slot, client)) = most else { return };
            let unsent = client.conn.output.unsent();
            self.close(slot, &CloseCause::Unsent { unsent });
        }
    }

    /// The pipeline hears when there is room for more.
    pub fn tell_taken(&mut self) {
        // A word that is refused was not told by the pipeline.
        let taken = self.untaken.saturating_sub(self.unsent);
        // While others wait for it, each byte.
        let enough = if self.excess > 0 { 0 } else { self.options.replies_bytes_max / 16 };
        if taken + self.returned > enough {
            self.untaken -= taken;
            self.returned = 0;
            self.ingress.batch.push(ToPipeline::Taken { bytes: taken });
        }
    }

    // Requests.

    /// Those who stood in line and have room now are read again.
    fn let_in(&mut self) {
        while let Some(id) = self.ingress.load.first_with_room() {
            let slot = id.slot as usize;
            let client = self.clients.get_mut(slot).expect("a connection that closes leaves the line");
            self.ingress.load.let_first_in(&mut client.conn.account);
            mark_ready(client, &mut self.ready, slot);
        }
    }

    /// One turn for each connection that has something to read.
    pub fn serve_ready(&mut self) {
        self.let_in();
        std::mem::swap(&mut self.ready, &mut self.serving);
        for n in 0..self.serving.len() {
            let slot = self.serving[n];
            let Some(client) = self.clients.get_mut(slot).filter(|client| client.queued) else { continue };
            client.queued = false;
            match client.serve(&mut self.ingress, &mut self.buffer, self.now_us) {
                Ok(true) => mark_ready(client, &mut self.ready, slot),
                Ok(false) => (),
                Err(cause) => {
                    self.close(slot, &cause);
                    continue;
                }
            }
            // The refusal of a word is queued by the connection itself.
            if client.conn.is_closing() && !client.lingers {
                mark_dirty(client, &mut self.dirty, slot);
            }
        }
        self.serving.clear();
    }

    /// The words that came.
    pub fn take_words(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        for (conn, word, argument) in std::mem::take(&mut self.ingress.words) {
            let Some(client) = self.clients.get(conn.slot as usize).filter(|client| client.conn.id == conn) else {
                continue;
            };
            log::debug!("{} asks {}", client.conn.peer, word.text());
            if word == Word::Crst {
                // Here, for these figures are the poller's own; the pipeline only says so.
                self.reset_figures();
            }
            let wants_connections = matches!(word, Word::Cons | Word::Stat | Word::Dump);
            asked.push(Asked { conn, word, view: self.view(argument, wants_connections) });
        }
        asked
    }

    /// The figures of the connections begin anew.
    pub fn reset_figures(&mut self) {
        self.clients.iter_mut().for_each(|(_, client)| client.conn.stats = Stats::default());
    }

    /// What operators are shown of them.
    pub fn view(&self, argument: Option<i64>, wants_connections: bool) -> PollerView {
        let grain_ms = self.options.sessionless_timeout_ms;
        let shown = self.clients.iter().take(if wants_connections { limits::LISTED_MAX } else { 0 });
        PollerView {
            argument,
            connections: shown.map(|(_, client)| client.conn.view(!client.paused, grain_ms)).collect(),
            connection_count: u32::try_from(self.clients.len()).expect("slots are 32 bits"),
        }
    }

    /// What there is for the pipeline.
    pub fn take_batch(&mut self) -> Vec<ToPipeline> {
        if self.ingress.batch.is_empty() {
            return Vec::new();
        }
        let next = Vec::with_capacity(self.ingress.batch.len());
        std::mem::replace(&mut self.ingress.batch, next)
    }

    /// The one way out for a connection.
    fn close(&mut self, slot: usize, cause: &CloseCause) {
        let client = self.clients.remove(slot);
        let peer = client.conn.peer;
        if !cause.is_remarkable() {
            log::debug!("{peer} closed: {cause}");
        } else if let Some(others) = self.complaints.pass(self.now_ms()) {
            log::warn!("closing the connection of {peer}: {cause}{}", suppressed(others));
        }
        self.unsent -= client.counted_unsent;
        self.returned += client.conn.output.shared();
        if matches!(cause, CloseCause::EndOfStream | CloseCause::Broken(_)) && !client.conn.is_deaf() {
            metrics::CONNECTION_DROP_COUNT.add(1);
        }
        self.ingress.load.on_closed(client.conn.id, client.conn.account);
        if client.conn.known {
            self.ingress.batch.push(ToPipeline::Disconnected { conn: client.conn.id });
        }
        self.gone.push((client.listener, peer.ip()));
    }

    // Time.

    /// Who had time enough is closed, and who waits is looked at.
    pub fn on_time(&mut self) {
        let now_ms = self.now_ms();
        Account::Requests.publish(self.ingress.load.bytes());
        Account::Replies.publish(self.unsent + parts::published_lent_bytes());
        while let Some((id, until_ms)) = self.lingering.front().copied().filter(|(_, until_ms)| *until_ms <= now_ms) {
            self.lingering.pop_front();
            self.on_patience_end(id, until_ms);
        }
        if self.looks() && now_ms >= self.next_look_ms {
            self.next_look_ms = now_ms + limits::LINE_LOOK_MS;
            if self.ingress.load.is_tight() {
                self.look_at_line(now_ms);
            }
            if self.excess > 0 {
                self.look_at_readers();
            }
        }
        if now_ms < self.next_sweep_ms {
            return;
        }
        if now_ms - self.next_sweep_ms > limits::SWEEP_LATE_MS && !std::mem::replace(&mut self.sweep_is_put_off, true) {
            // This server did not run: what clients said meanwhile may not all be read yet.
            self.next_sweep_ms = now_ms + limits::SWEEP_LATE_MS;
            return;
        }
        self.sweep_is_put_off = false;
        let grain_ms = self.options.sessionless_timeout_ms.max(1);
        self.next_sweep_ms = (now_ms / grain_ms + 1) * grain_ms;
        let is_silent = |client: &Client<S>| {
            !client.queued && !client.conn.is_owed_answer() && client.conn.silent_until_ms(grain_ms) <= now_ms
        };
        let silent: Vec<usize> = self.clients.iter().filter(|(_, c)| is_silent(c)).map(|(slot, _)| slot).collect();
        for slot in silent {
            metrics::SESSIONLESS_CONNECTIONS_EXPIRED.add(1);
            self.close(slot, &CloseCause::Silent);
        }
    }

    /// Who waits for room is alive, though nothing is read of it; who has room is to use it.
    fn look_at_line(&mut self, now_ms: i64) {
        let mut came = Vec::new();
        for (slot, client) in &mut self.clients {
            let conn = &mut client.conn;
            if conn.account.waits() {
                (conn.last_io_ms, conn.begun_ms) = (now_ms, now_ms);
                self.ingress.batch.push(ToPipeline::Waits { conn: conn.id });
            }
            let is_up_to_client = self.ingress.is_up_to_client(conn);
            came.push((slot, conn.came_since_look(is_up_to_client)));
        }
        let enough = enough_per_look(came.iter().filter_map(|(_, came)| *came));
        let mut slow = Vec::new();
        for (slot, came) in came {
            if let Err(cause) = self.clients[slot].conn.look(came, enough) {
                slow.push((slot, cause));
            }
        }
        slow.into_iter().for_each(|(slot, cause)| self.close(slot, &cause));
    }

    /// Whether somebody waits for others, who therefore are looked at.
    fn looks(&self) -> bool {
        self.ingress.load.is_tight() || self.excess > 0
    }

    /// There is no room for what is told: those who take too little go, the largest first and of these the oldest, until
    /// there is some.
    fn look_at_readers(&mut self) {
        let mut idle = Vec::new();
        for (slot, client) in &mut self.clients {
            if client.conn.look_at_reading() {
                idle.push((Reverse(client.conn.output.unsent()), client.conn.last_io_ms, slot));
            }
        }
        idle.sort_unstable();
        let wanted = self.excess + self.options.replies_bytes_max / 4;
        let mut freed = 0;
        for (Reverse(unsent), _, slot) in idle {
            if freed >= wanted {
                return;
            }
            // Of what several are sent only the last one's end frees anything.
            freed += self.clients[slot].conn.output.cost();
            self.close(slot, &CloseCause::Unsent { unsent });
        }
    }

    /// A closing connection had its time; it gets more while the client goes on taking bytes.
    fn on_patience_end(&mut self, id: ConnId, until_ms: i64) {
        let slot = id.slot as usize;
        let Some(client) = self.clients.get(slot).filter(|client| client.conn.id == id) else { return };
        if !client.conn.output.is_empty() && client.conn.last_io_ms > until_ms - limits::LINGER_MS {
            self.lingering.push_back((id, until_ms + limits::LINGER_MS));
        } else {
            self.close(slot, &CloseCause::Done);
        }
    }
}

fn mark_ready<S>(client: &mut Client<S>, ready: &mut Vec<usize>, slot: usize) {
    if !client.queued {
        client.queued = true;
        ready.push(slot);
    }
}

fn mark_dirty<S>(client: &mut Client<S>, dirty: &mut Vec<usize>, slot: usize) {
    if !client.dirty {
        client.dirty = true;
        dirty.push(slot);
    }
}
