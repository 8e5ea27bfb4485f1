//! The poller: one thread with all client sockets. A turn: wait, take the pipeline's mail and write it out, read what is
//! readable, accept, send everything that was read to the pipeline in one piece. The rules are in `net`.
//!
//! Sockets are registered once, for edges; what an edge announced is remembered in [`Client`] until it is used up. Who
//! has work left stands in `ready` and gets its next turn after the others.

mod acceptor;
mod client;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::admin::words::{PollerView, Word};
use crate::ids::ConnId;
use crate::limits;
use crate::mail::{Outgoing, ToPipeline, ToPoller};
use crate::memory::Account;
use crate::metrics;
pub use crate::net::PollerOptions;
use crate::net::admit::Descriptors;
use crate::net::conn::{CloseCause, Conn};
use crate::net::ingress::Ingress;
use crate::net::load::enough_per_look;
use crate::net::stats::Stats;
use crate::parts;
use crate::quiet::{Quiet, suppressed};
use crate::sys::clock;
use crate::sys::net::{Listener, bind};
use crate::sys::priority;
use crate::sys::rlimit;
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::pipeline::PipelineMail;
use crate::threads::queries::AdminQuery;
use crate::threads::spin::Spins;

use acceptor::{Accepted, Acceptor};
use client::Client;

/// Mail of this thread.
#[derive(Debug)]
pub enum PollerMail {
    /// From the pipeline, for the connections.
    Core(ToPoller),
    /// The admin server asks the pipeline, which is shown what the poller knows.
    Query {
        /// What it asks.
        query: AdminQuery,
        /// Whether the connections are wanted, or their number is enough.
        wants_connections: bool,
        /// Whether the figures of the connections begin anew.
        resets_connections: bool,
    },
    /// A part of the connections is to be closed, whoever they are; their sessions live on.
    Shed {
        /// How many of a hundred, 0 to 100.
        percent: u8,
        /// Who is told how many that are.
        to: Sender<Shedding>,
    },
    /// New clients are let in at this address instead of the present one. Those who are in stay.
    Listen(SocketAddr),
    /// The server is about to stop: close the listening sockets, serve who is connected.
    StopAccepting,
    /// Are you there?
    HealthCheck(HealthCheck),
}

/// How many connections are being closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shedding {
    /// So many,
    pub closed: usize,
    /// of so many.
    pub of: usize,
}

/// How everybody else talks to the poller.
pub type PollerHandle = Handle<PollerMail>;

const WAKER: Token = Token(usize::MAX);
/// Listener n has the token FIRST_LISTENER - n; connections are far below (slot in the lower, generation in the upper half).
const FIRST_LISTENER: usize = usize::MAX - 1;
const EVENTS_PER_TURN: usize = 1024;

/// Starts the thread. The listeners are bound already (`sys::net::bind`). It ends after [`ToPoller::stop`].
pub fn start(
    options: PollerOptions,
    listeners: Vec<Listener>,
    to_pipeline: Sender<PipelineMail>,
) -> io::Result<(PollerHandle, JoinHandle<()>)> {
    let descriptors = Descriptors::new(rlimit::raise_open_files());
    log::debug!("{descriptors:?}, {} for clients", descriptors.clients_max());
    let poll = Poll::new()?;
    let (handle, inbox) = mailbox(Waker::new(poll.registry(), WAKER)?);
    let mut acceptors: Vec<Acceptor> = listeners.into_iter().map(|l| Acceptor::new(l, options.admit)).collect();
    for (n, acceptor) in acceptors.iter_mut().enumerate() {
        poll.registry().register(acceptor.socket_mut(), Token(FIRST_LISTENER - n), Interest::READABLE)?;
    }
    let poller = Poller::new(options, descriptors, poll, acceptors, inbox, to_pipeline);
    let thread = std::thread::Builder::new().name("poller".into()).spawn(move || poller.run())?;
    Ok((handle, thread))
}

/// What the thread owns.
struct Poller {
    options: PollerOptions,
    descriptors: Descriptors,
    poll: Poll,
    acceptors: Vec<Acceptor>,
    inbox: Inbox<PollerMail>,
    to_pipeline: Sender<PipelineMail>,
    ingress: Ingress,
    clients: Slab<Client>,
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
    next_sweep_ms: i64,
    /// Once, because it came late.
    sweep_is_put_off: bool,
    /// When those who have room, and those who wait for it, are looked at, monotonic ms.
    next_look_ms: i64,
    complaints: Quiet,
    spin: Spins,
    /// Told to stop: when the last attempt to flush ends, monotonic ms.
    stop_by_ms: Option<i64>,
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

impl Poller {
    fn new(
        options: PollerOptions,
        descriptors: Descriptors,
        poll: Poll,
        acceptors: Vec<Acceptor>,
        inbox: Inbox<PollerMail>,
        to_pipeline: Sender<PipelineMail>,
    ) -> Poller {
        let now_us = clock::mono_us();
        Poller {
            ingress: Ingress::new(&options, now_us.unsigned_abs()),
            next_sweep_ms: now_us / 1000 + options.sessionless_timeout_ms,
            sweep_is_put_off: false,
            next_look_ms: 0,
            spin: Spins::default(),
            options,
            descriptors,
            poll,
            acceptors,
            inbox,
            to_pipeline,
            clients: Slab::new(),
            generation: 0,
            buffer: vec![0; limits::READ_BYTES_PER_TURN].into_boxed_slice(),
            ready: Vec::new(),
            serving: Vec::new(),
            dirty: Vec::new(),
            shed: Vec::new(),
            lingering: VecDeque::new(),
            complaints: Quiet::default(),
            stop_by_ms: None,
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

    fn run(mut self) {
        priority::take_short_turns();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_finished() {
            self.wait(&mut events);
            (self.now_us, self.wall_ms) = (clock::mono_us(), clock::wall_ms());
            for event in &events {
                self.on_event(event);
            }
            self.take_mail();
            self.serve_ready();
            self.answer_words();
            self.accept();
            self.close_shed();
            self.relieve();
            self.tell_taken();
            self.send_batch();
            self.on_time();
        }
        self.clients.iter_mut().for_each(|(_, client)| client.end(&mut self.buffer));
    }

    fn now_ms(&self) -> i64 {
        self.now_us / 1000
    }

    fn is_finished(&self) -> bool {
        let Some(by_ms) = self.stop_by_ms else { return false };
        by_ms <= self.now_ms() || self.clients.iter().all(|(_, client)| client.conn.output.is_empty())
    }

    /// Waits for edges, mail or the next deadline; only looks when there is work left.
    fn wait(&mut self, events: &mut Events) {
        if self.has_work() {
            return self.look(events, Duration::ZERO);
        }
        events.clear();
        let in_flight = self.ingress.load.requests() > 0;
        let mut now_us = clock::mono_us();
        let wait = self.spin.when(in_flight).begin(now_us);
        while events.is_empty() && !self.has_work() && wait.is_awake(now_us) {
            std::thread::yield_now();
            self.look(events, Duration::ZERO);
            now_us = clock::mono_us();
        }
        self.spin.when(in_flight).stop_looking(wait, now_us);
        if events.is_empty() && !self.has_work() {
            if self.inbox.may_sleep() {
                self.look(events, self.until_deadline());
            }
            self.inbox.wake_up();
        }
        self.spin.when(in_flight).end(wait, clock::mono_us());
    }

    fn has_work(&self) -> bool {
        !self.inbox.is_empty()
            || !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.shed.is_empty()
            || self.ingress.load.first_with_room().is_some()
            || self.acceptors.iter().any(|acceptor| acceptor.is_ready(self.now_ms()))
    }

    fn look(&mut self, events: &mut Events, timeout: Duration) {
        match self.poll.poll(events, Some(timeout)) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => panic!("epoll_wait cannot fail on a descriptor of ours: {error}"),
        }
    }

    fn until_deadline(&self) -> Duration {
        let mut next_ms = self.next_sweep_ms;
        if self.looks() {
            next_ms = next_ms.min(self.next_look_ms);
        }
        if let Some((_, until_ms)) = self.lingering.front() {
            next_ms = next_ms.min(*until_ms);
        }
        for retry_ms in self.acceptors.iter().filter_map(Acceptor::retry_ms).chain(self.stop_by_ms) {
            next_ms = next_ms.min(retry_ms);
        }
        Duration::from_millis(u64::try_from(next_ms - self.now_ms()).unwrap_or(0))
    }

    fn on_event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        if let Some(acceptor) = self.acceptors.get_mut(FIRST_LISTENER - token.0) {
            acceptor.on_event();
            return;
        }
        let id = conn_id(token);
        let slot = id.slot as usize;
        // Closed earlier in this turn, or its slot used again.
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.conn.id == id) else { return };
        client.on_event(event);
        if event.is_writable() && !client.conn.output.is_empty() {
            mark_dirty(client, &mut self.dirty, slot);
        }
        if !client.paused {
            mark_ready(client, &mut self.ready, slot);
        }
    }

    /// All that the pipeline has, then one write for each connection concerned.
    fn take_mail(&mut self) {
        while let Some(mail) = self.inbox.next() {
            self.on_mail(mail);
        }
        self.bulk_written = 0;
        let count = self.dirty.len();
        for n in 0..count {
            self.flush(self.dirty[n]);
        }
        self.dirty.drain(..count);
        if !self.applied.is_empty() {
            let now_us = clock::mono_us();
            for (writes, applied_us) in self.applied.drain(..) {
                metrics::WRITE_REPLIED.record(now_us - applied_us, writes);
            }
        }
    }

    fn on_mail(&mut self, mail: PollerMail) {
        match mail {
            PollerMail::Core(mail) => self.on_replies(mail),
            PollerMail::Query { query, wants_connections, resets_connections } => {
                if resets_connections {
                    self.reset_connections();
                }
                // A command refuses a list that is too long, see `admin::listed`.
                let is_shown = wants_connections && self.clients.len() <= limits::LISTED_MAX;
                let view = Box::new(self.view(None, is_shown));
                self.tell_pipeline(PipelineMail::Query { query, view });
            }
            PollerMail::Shed { percent, to } => self.shed(percent, &to),
            PollerMail::Listen(address) => self.move_door(address),
            PollerMail::StopAccepting => self.acceptors.clear(),
            PollerMail::HealthCheck(check) => check.reply(HealthReport::Alive),
        }
    }

    fn on_replies(&mut self, mail: ToPoller) {
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
        if mail.stop {
            self.acceptors.clear();
            self.stop_by_ms = Some(self.now_ms() + limits::STOP_FLUSH_MS);
        }
    }

    fn shed(&mut self, percent: u8, to: &Sender<Shedding>) {
        let all: Vec<ConnId> = self.clients.iter().map(|(_, client)| client.conn.id).collect();
        let of = all.len();
        let chosen = self.ingress.share(all, percent);
        // Whoever asked may have given up.
        let _ = to.send(Shedding { closed: chosen.len(), of });
        self.shed.extend(chosen);
    }

    fn close_shed(&mut self) {
        for id in self.shed.split_off(self.shed.len().saturating_sub(limits::SHED_PER_TURN)) {
            let slot = id.slot as usize;
            if self.clients.get(slot).is_some_and(|client| client.conn.id == id) {
                self.close(slot, &CloseCause::Shed);
            }
        }
    }

    /// The first acceptor is the one whose address a configuration of the ensemble may name.
    fn move_door(&mut self, address: SocketAddr) {
        let Some(acceptor) = self.acceptors.first_mut() else { return };
        let (old, is_everywhere) = (acceptor.address(), address.ip().is_unspecified());
        if old == address || (is_everywhere && old.ip().is_unspecified() && old.port() == address.port()) {
            // It was to move, and back again before it had.
            return;
        }
        let listener = match bind(address, -1) {
            Ok(listener) => listener,
            Err(error) => {
                return log::error!(
                    "{error}: the new configuration names it for clients, who still reach this server at {old} only; end the process that has the port, then start this server again"
                );
            }
        };
        // The old socket is taken out of the poll by its end.
        acceptor.move_to(listener);
        let token = Token(FIRST_LISTENER);
        self.poll
            .registry()
            .register(acceptor.socket_mut(), token, Interest::READABLE)
            .expect("a new socket can be polled");
        log::info!("listening on {} from now on", acceptor.address());
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

    /// Events cannot wait. When they are far more than there is room for, whoever has most of it goes.
    fn relieve(&mut self) {
        let bytes_max = self.options.replies_bytes_max;
        while self.unsent > bytes_max + bytes_max / 2 {
            let most = self.clients.iter().max_by_key(|(_, client)| client.counted_unsent);
            let Some((slot, client)) = most else { return };
            let unsent = client.conn.output.unsent();
            self.close(slot, &CloseCause::Unsent { unsent });
        }
    }

    /// The pipeline hears when there is room for more.
    fn tell_taken(&mut self) {
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
    fn serve_ready(&mut self) {
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

    fn answer_words(&mut self) {
        for (conn, word, argument) in std::mem::take(&mut self.ingress.words) {
            let Some(client) = self.clients.get(conn.slot as usize).filter(|client| client.conn.id == conn) else {
                continue;
            };
            log::debug!("{} asks {}", client.conn.peer, word.text());
            if word == Word::Crst {
                // Here, for these figures are the poller's own; the pipeline only says so.
                self.reset_connections();
            }
            let wants_connections = matches!(word, Word::Cons | Word::Stat | Word::Dump);
            let view = Box::new(self.view(argument, wants_connections));
            self.tell_pipeline(PipelineMail::Word { conn, word, view });
        }
    }

    fn reset_connections(&mut self) {
        self.clients.iter_mut().for_each(|(_, client)| client.conn.stats = Stats::default());
    }

    fn view(&self, argument: Option<i64>, wants_connections: bool) -> PollerView {
        let grain_ms = self.options.sessionless_timeout_ms;
        let shown = self.clients.iter().take(if wants_connections { limits::LISTED_MAX } else { 0 });
        PollerView {
            argument,
            connections: shown.map(|(_, client)| client.conn.view(!client.paused, grain_ms)).collect(),
            connection_count: u32::try_from(self.clients.len()).expect("slots are 32 bits"),
        }
    }

    fn accept(&mut self) {
        let now_ms = self.now_ms();
        for n in 0..self.acceptors.len() {
            for _ in 0..limits::ACCEPTS_PER_TURN {
                if !self.acceptors[n].is_ready(now_ms) {
                    break;
                }
                let room = self.descriptors.check(self.clients.len());
                match self.acceptors[n].accept(room, self.options.tcp_keepalive, now_ms) {
                    Accepted::Client(stream, peer) => self.welcome(stream, peer, n),
                    Accepted::Surplus => metrics::CONNECTION_REJECTED.add(1),
                    Accepted::Nobody => break,
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr, acceptor: usize) {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.clients.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("slots are 32 bits");
        let id = ConnId { slot, generation: self.generation };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token(id), interest) {
            log::error!("cannot poll the connection of {peer}: {error}");
            self.acceptors[acceptor].admission.on_closed(peer.ip());
            return;
        }
        log::debug!("{peer} connected");
        entry.insert(Client::new(Conn::new(id, peer, self.now_us / 1000), stream, acceptor));
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
        if let Some(acceptor) = self.acceptors.get_mut(client.acceptor) {
            acceptor.admission.on_closed(peer.ip());
        }
        self.acceptors.iter_mut().for_each(Acceptor::on_descriptor_free);
    }

    /// Sends what was read of the connections.
    fn send_batch(&mut self) {
        if self.ingress.batch.is_empty() {
            return;
        }
        let next = Vec::with_capacity(self.ingress.batch.len());
        let batch = std::mem::replace(&mut self.ingress.batch, next);
        // A pipeline that has ended has left its last mail, which says to stop.
        let _ = self.to_pipeline.send(PipelineMail::Core(batch));
    }

    /// Sends something that its core does not see, behind what was read before.
    fn tell_pipeline(&mut self, mail: PipelineMail) {
        self.send_batch();
        let _ = self.to_pipeline.send(mail);
    }

    fn on_time(&mut self) {
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
        let is_silent = |client: &Client| {
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

fn mark_ready(client: &mut Client, ready: &mut Vec<usize>, slot: usize) {
    if !client.queued {
        client.queued = true;
        ready.push(slot);
    }
}

fn mark_dirty(client: &mut Client, dirty: &mut Vec<usize>, slot: usize) {
    if !client.dirty {
        client.dirty = true;
        dirty.push(slot);
    }
}

fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

fn conn_id(token: Token) -> ConnId {
    ConnId { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
