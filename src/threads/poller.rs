//! The poller: one thread with all client sockets. A turn: wait, take the pipeline's mail and write it out, read what is
//! readable, accept, send what was read to the pipeline, in one piece but for words and queries between. What is read of
//! whom, and what is written, is [`crate::engine::clients`]'s. Sockets are registered once, for edges.

mod acceptor;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::engine::clients::{Asked, Clients, Edge, Socket};
use crate::ids::ConnId;
use crate::limits;
use crate::mail::ToPoller;
use crate::metrics;
pub use crate::net::PollerOptions;
use crate::net::admit::Descriptors;
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
    clients: Clients<TcpStream>,
    spin: Spins,
    /// Told to stop: when the last attempt to flush ends, monotonic ms.
    stop_by_ms: Option<i64>,
    /// The clock, read once a turn.
    now_us: i64,
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
            clients: Clients::new(options.clone(), now_us, now_us.unsigned_abs()),
            spin: Spins::default(),
            options,
            descriptors,
            poll,
            acceptors,
            inbox,
            to_pipeline,
            stop_by_ms: None,
            now_us,
        }
    }

    fn run(mut self) {
        priority::take_short_turns();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_finished() {
            self.wait(&mut events);
            self.now_us = clock::mono_us();
            self.clients.set_time(self.now_us, clock::wall_ms());
            for event in &events {
                self.on_event(event);
            }
            self.take_mail();
            self.clients.serve_ready();
            self.pass_on_words();
            self.see_who_is_gone();
            self.accept();
            self.clients.close_shed();
            self.clients.relieve();
            self.clients.tell_taken();
            self.send_batch();
            self.clients.on_time();
            self.see_who_is_gone();
        }
        self.clients.end();
    }

    fn now_ms(&self) -> i64 {
        self.now_us / 1000
    }

    fn is_finished(&self) -> bool {
        self.stop_by_ms.is_some_and(|by_ms| by_ms <= self.now_ms() || self.clients.has_sent_all())
    }

    /// Waits for edges, mail or the next deadline; only looks when there is work left.
    fn wait(&mut self, events: &mut Events) {
        if self.has_work() {
            return self.look(events, Duration::ZERO);
        }
        events.clear();
        let in_flight = self.clients.are_asking();
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
            || self.clients.has_work()
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
        let retries_ms = self.acceptors.iter().filter_map(Acceptor::retry_ms).chain(self.stop_by_ms);
        let next_ms = retries_ms.fold(self.clients.next_deadline_ms(), i64::min);
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
        let ending = event.is_read_closed() || event.is_error();
        let edge =
            Edge { readable: event.is_readable() || ending, writable: event.is_writable() || event.is_error(), ending };
        self.clients.on_edge(conn_id(token), edge);
    }

    /// All that the pipeline has, then one write for each connection concerned.
    fn take_mail(&mut self) {
        while let Some(mail) = self.inbox.next() {
            self.on_mail(mail);
        }
        let applied = self.clients.flush_all();
        if applied.len() > 0 {
            let now_us = clock::mono_us();
            for (writes, applied_us) in applied {
                metrics::WRITE_REPLIED.record(now_us - applied_us, writes);
            }
        }
    }

    fn on_mail(&mut self, mail: PollerMail) {
        match mail {
            PollerMail::Core(mail) => {
                if mail.stop {
                    self.acceptors.clear();
                    self.stop_by_ms = Some(self.now_ms() + limits::STOP_FLUSH_MS);
                }
                self.clients.on_replies(mail);
            }
            PollerMail::Query { query, wants_connections, resets_connections } => {
                if resets_connections {
                    self.clients.reset_figures();
                }
                // A command refuses a list that is too long, see `admin::listed`.
                let is_shown = wants_connections && self.clients.len() <= limits::LISTED_MAX;
                let view = Box::new(self.clients.view(None, is_shown));
                self.tell_pipeline(PipelineMail::Query { query, view });
            }
            PollerMail::Shed { percent, to } => {
                let of = self.clients.len();
                // Whoever asked may have given up.
                let _ = to.send(Shedding { closed: self.clients.shed(percent), of });
            }
            PollerMail::Listen(address) => self.listen_at(address),
            PollerMail::StopAccepting => self.acceptors.clear(),
            PollerMail::HealthCheck(check) => check.reply(HealthReport::Alive),
        }
    }

    fn pass_on_words(&mut self) {
        for Asked { conn, word, view } in self.clients.take_words() {
            self.tell_pipeline(PipelineMail::Word { conn, word, view: Box::new(view) });
        }
    }

    /// The first acceptor is the one whose address a configuration of the ensemble may name.
    fn listen_at(&mut self, address: SocketAddr) {
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
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token(self.clients.next_id()), interest) {
            log::error!("cannot poll the connection of {peer}: {error}");
            self.acceptors[acceptor].admission.on_closed(peer.ip());
            return;
        }
        self.clients.welcome(stream, peer, acceptor);
    }

    /// Those who went make room for others.
    fn see_who_is_gone(&mut self) {
        for (acceptor, address) in self.clients.take_gone() {
            if let Some(acceptor) = self.acceptors.get_mut(acceptor) {
                acceptor.admission.on_closed(address);
            }
            self.acceptors.iter_mut().for_each(Acceptor::on_descriptor_free);
        }
    }

    /// Sends what was read of the connections.
    fn send_batch(&mut self) {
        let batch = self.clients.take_batch();
        if !batch.is_empty() {
            // A pipeline that has ended has left its last mail, which says to stop.
            let _ = self.to_pipeline.send(PipelineMail::Core(batch));
        }
    }

    /// Sends something that its core does not see, behind what was read before.
    fn tell_pipeline(&mut self, mail: PipelineMail) {
        self.send_batch();
        let _ = self.to_pipeline.send(mail);
    }
}

impl Socket for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

fn conn_id(token: Token) -> ConnId {
    ConnId { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
