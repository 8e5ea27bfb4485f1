//! The quorum thread: owns every socket between servers, on the election port and on the quorum port, and has what its
//! core wants carried out, in its order ([`crate::engine::quorum`]). Waits in its poll; the disk makes it wait for small
//! files only, those of the epochs and the members (a millisecond, and only around elections and reconfigurations).
//!
//! `listeners` are what it listens on, `dial` is how it connects; `link` is one connection, `inbound` what is heard on it,
//! `links` are all of them, `callers` what the log says of those who came; `reader` reads; `pipeline_batch` is what the
//! pipeline is told. Here is the turn of its loop, and who is told what.

mod callers;
mod dial;
pub mod inbound;
mod link;
mod links;
mod listeners;
mod pipeline_batch;
mod reader;

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::admin::view::QuorumView;
use crate::config::Members;
use crate::config::ensemble::HostPort;
use crate::config::ensemble::PeerAddress;
use crate::engine::quorum::{Environment, Member, Store};
use crate::ids::{ServerId, Zxid};
use crate::mail::{ToPipeline, ToQuorum, ToTxnlog};
use crate::quiet::suppressed;
use crate::quorum::packet::Packet;
use crate::quorum::peer::PeerStart;
use crate::quorum::{LinkId, LinkPriority};
use crate::sys::clock;
use crate::sys::exit::fatal;
use crate::sys::net::Listener;
use crate::sys::priority;
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::pipeline::PipelineMail;
use crate::threads::poller::PollerHandle;
use crate::threads::txnlog::TxnlogMail;

use callers::{About, Caller, Callers};
use dial::{Dials, Failed, Whom};
use inbound::{Heard, Port};
use link::Link;
use links::{Links, Room};
use listeners::{Accepted, Listeners};
use pipeline_batch::PipelineBatch;
use reader::{Read, Reader};

pub use links::{LinkRules, UNANSWERED_MS_MIN};
pub use listeners::{LineSource, ListenError, Place, patiently};
pub use reader::ReadRules;

const WAKER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 256;
/// Mail of other threads that is read before the sockets have their turn.
const MAIL_PER_TURN: usize = 16;

/// Mail of this thread.
#[derive(Debug)]
pub enum QuorumMail {
    /// For its core, from another thread of the server.
    Core(ToQuorum),
    /// Are you there?
    HealthCheck(HealthCheck),
    /// What operators may see is wanted.
    View {
        /// Who wants it.
        to: Sender<QuorumView>,
        /// Whether the figures of the connections begin anew.
        resets_links: bool,
    },
    /// What was read for this thread.
    Read(Read),
    /// The addresses of a host, for a dial; empty if there are none.
    Resolved {
        /// Which dial.
        dial: u64,
        /// What was found.
        addresses: Vec<SocketAddr>,
    },
    /// Where this server is by a new configuration, or which of its hosts has no address.
    Moved {
        /// There, with what was found.
        place: Place,
        /// Whether all was found.
        result: Result<(), ListenError>,
    },
    /// Where clients are to connect by a new configuration.
    ClientsMoved {
        /// As it is written.
        to: HostPort,
        /// What was found.
        address: io::Result<SocketAddr>,
    },
}

/// How everybody else talks to the quorum thread.
pub type QuorumHandle = Handle<QuorumMail>;

/// What the thread works with.
#[derive(Debug)]
pub struct QuorumConfig {
    /// What the core begins with.
    pub start: PeerStart,
    /// What is on disk.
    pub store: Store,
    /// How it is read.
    pub reads: ReadRules,
    /// Where its clients connect, by the list of members.
    pub client: Option<HostPort>,
    /// Whether a port is open for them; else that host had no address.
    pub client_is_open: bool,
    /// Where this server is, by its configuration; its hosts are looked up.
    pub place: Place,
    /// `electionPortBindRetry`: how often its hosts are looked up when they change, 0 for ever.
    pub bind_attempts: Option<u32>,
    /// `cnxTimeout`: how long a dial may take.
    pub dial_timeout_ms: i64,
    /// For connections of both ports.
    pub links: LinkRules,
}

/// Whom the thread talks to.
#[derive(Debug)]
pub struct Neighbours {
    /// The state machine.
    pub pipeline: Sender<PipelineMail>,
    /// The log.
    pub txnlog: Sender<TxnlogMail>,
    /// The clients.
    pub poller: PollerHandle,
}

/// The mail of a thread that is about to start: others want its handle before it has all it needs.
#[derive(Debug)]
pub struct Prepared {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    handle: QuorumHandle,
}

/// Makes the thread's mailbox.
pub fn prepare() -> io::Result<Prepared> {
    let poll = Poll::new()?;
    let (handle, inbox) = mailbox(Waker::new(poll.registry(), WAKER)?);
    Ok(Prepared { poll, inbox, handle })
}

impl Prepared {
    /// How to talk to the thread.
    pub fn handle(&self) -> QuorumHandle {
        self.handle.clone()
    }

    /// Starts the thread. The election port is bound already. It ends after [`ToQuorum::Stop`].
    pub fn start(
        self,
        config: QuorumConfig,
        election: Vec<Listener>,
        neighbours: Neighbours,
    ) -> io::Result<JoinHandle<()>> {
        let Prepared { poll, inbox, handle } = self;
        let (poller, registry) = (neighbours.poller, poll.registry().try_clone()?);
        let listeners = Listeners::new(&config, election, registry.try_clone()?, handle.clone(), poller)?;
        let to_quorum = handle.clone();
        let reader = Reader::start(
            config.reads,
            move |read| to_quorum.post(QuorumMail::Read(read)),
            neighbours.pipeline.clone(),
        )?;
        let body = move || {
            let host = Host {
                reader,
                txnlog: neighbours.txnlog,
                pipeline: PipelineBatch::new(neighbours.pipeline),
                listeners,
                dials: Dials::new(handle, config.dial_timeout_ms),
                links: Links::new(config.links, registry),
                callers: Callers::default(),
                now_ms: 0,
            };
            let member = Member::new(config.start, config.store, clock::mono_us() / 1000);
            Quorum { poll, inbox, member, host, held: None, stopped: false }.run();
        };
        std::thread::Builder::new().name("quorum".into()).spawn(body)
    }
}

struct Quorum {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    member: Member,
    host: Host,
    /// The link to the leader, while this server has enough to do with what it was sent.
    held: Option<LinkId>,
    stopped: bool,
}

/// What the member works with on this host.
struct Host {
    reader: Reader,
    txnlog: Sender<TxnlogMail>,
    pipeline: PipelineBatch,
    listeners: Listeners,
    dials: Dials,
    links: Links,
    callers: Callers,
    now_ms: i64,
}

impl Quorum {
    fn run(mut self) {
        priority::take_short_turns();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.host.now_ms = clock::mono_us() / 1000;
        self.carry_out();
        while !self.stopped {
            self.flush();
            if self.member.peer.wants_packets()
                && let Some(link) = self.held.take()
            {
                self.host.links.wake(link);
            }
            self.wait(&mut events);
            self.host.now_ms = clock::mono_us() / 1000;
            self.member.peer.set_time(self.host.now_ms);
            for event in &events {
                self.on_event(event);
                self.carry_out();
            }
            for link in self.host.links.take_ready() {
                self.serve(link);
                self.carry_out();
            }
            for _ in 0..MAIL_PER_TURN {
                if self.member.is_proposing() {
                    self.member.propose();
                } else if let Some(mail) = self.inbox.next() {
                    self.on_mail(mail);
                } else {
                    break;
                }
                self.carry_out();
            }
            self.on_time();
            self.carry_out();
            self.member.peer.publish();
            self.host.links.publish();
        }
    }

    fn wait(&mut self, events: &mut Events) {
        events.clear();
        let sleeps = self.inbox.may_sleep() && !self.host.links.has_ready() && !self.member.is_proposing();
        let until_ms = self
            .member
            .peer
            .next_deadline_ms()
            .min(self.host.dials.next_deadline_ms())
            .min(self.host.links.next_hello_ms());
        let wait_ms = if sleeps { (until_ms - clock::mono_us() / 1000).clamp(0, 60_000) } else { 0 };
        match self.poll.poll(events, Some(Duration::from_millis(wait_ms.unsigned_abs()))) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => panic!("epoll_wait cannot fail on a descriptor of ours: {error}"),
        }
        self.inbox.wake_up();
    }

    fn on_time(&mut self) {
        self.member.peer.tick();
        for dial in self.host.dials.overdue(self.host.now_ms) {
            self.dial_failed(dial);
        }
        for link in self.host.links.late(self.host.now_ms) {
            self.lose(link, "it did not say who it is");
        }
    }

    fn on_mail(&mut self, mail: QuorumMail) {
        match mail {
            QuorumMail::HealthCheck(check) => {
                self.host.reader.check_health(check, HealthReport::Epoch(i64::from(self.member.current_epoch())));
            }
            QuorumMail::Read(Read::Part { link, part }) => {
                self.member.peer.on_log_read(link, part);
                self.host.reader.on_part(|link| self.host.links.get(link).is_some());
            }
            QuorumMail::Read(Read::Back(records)) => self.member.peer.on_read_back(records),
            QuorumMail::Resolved { dial, addresses } => {
                if let Some(failed) =
                    self.host.dials.on_resolved(dial, &addresses, self.poll.registry(), self.host.now_ms)
                {
                    self.dial_failed(failed);
                }
            }
            QuorumMail::Moved { place, result } => self.host.listeners.on_moved(place, result),
            QuorumMail::ClientsMoved { to, address } => self.host.listeners.on_clients_moved(&to, address),
            QuorumMail::View { to, resets_links } => {
                if resets_links {
                    self.host.links.reset_figures();
                }
                let on_link = |link| self.host.links.get(link).map(Link::view).unwrap_or_default();
                // Whoever asked may have given up.
                let _ = to.send(self.member.peer.view(&on_link));
            }
            QuorumMail::Core(mail) => {
                self.stopped |= matches!(mail, ToQuorum::Stop);
                self.member.on_mail(mail, &mut self.host);
            }
        }
    }

    // Sockets.

    fn on_event(&mut self, event: &Event) {
        let Token(token) = event.token();
        match token {
            _ if event.token() == WAKER => {}
            _ if Listeners::has(token) => self.accept(token),
            _ if Dials::has(token) => match self.host.dials.on_event(token, event, self.host.now_ms) {
                dial::Outcome::Pending => {}
                dial::Outcome::Failed(failed) => self.dial_failed(failed),
                dial::Outcome::Connected(whom, stream, address) => self.dialed(whom, stream, address),
            },
            _ => {
                let id = LinkId(token as u64);
                if let Some(link) = self.host.links.get_mut(id).filter(|_| event.is_writable()) {
                    link.on_writable();
                }
                self.serve(id);
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Some(accepted) = self.host.listeners.accept(listener, self.host.now_ms) {
            match accepted {
                Accepted::Election(stream, peer) => {
                    let by_ms = self.host.now_ms + self.host.links.rules.hello_timeout_ms;
                    self.admit_stranger(Link::new(stream, peer, Port::nameless(), Some(by_ms)));
                }
                Accepted::Learner(stream, peer) => {
                    let port = Port::learner(self.host.links.rules.packet_bytes_max);
                    if let Some(link) = self.admit_stranger(Link::new(stream, peer, port, None)) {
                        self.member.peer.on_learner_connected(link);
                        self.carry_out();
                    }
                }
            }
        }
    }

    /// Takes in a connection that was accepted, if there is room.
    fn admit_stranger(&mut self, link: Link) -> Option<LinkId> {
        match self.host.links.room_for(&link, self.host.now_ms) {
            Room::Enough => {}
            Room::None => return None,
            Room::Of(oldest) => {
                // Its first words may be here already, if many came at once.
                self.serve(oldest);
                if self.host.links.get(oldest).is_some_and(Link::is_silent) {
                    // Told with the want of room, once for many.
                    self.let_go(oldest, "it was silent, and others came", log::Level::Debug);
                    self.carry_out();
                }
            }
        }
        self.host.links.admit(link)
    }

    fn dialed(&mut self, whom: Whom, stream: mio::net::TcpStream, address: SocketAddr) {
        match whom {
            Whom::Master(_) => {
                let rules = self.host.links.rules;
                let port = Port::leader(rules.packet_bytes_max, rules.state);
                match self.host.links.admit(Link::new(stream, address, port, None)) {
                    Some(link) => self.member.peer.on_leader_connected(link),
                    None => self.member.peer.on_leader_unreachable("its socket cannot be used"),
                }
            }
            Whom::Election(server) => match self.host.links.admit(Link::new(stream, address, Port::known(), None)) {
                Some(link) => self.member.peer.on_election_dialed(link, server),
                None => self.member.peer.on_election_undialed(server),
            },
        }
    }

    fn dial_failed(&mut self, (whom, why): Failed) {
        match whom {
            Whom::Master(_) => self.member.peer.on_leader_unreachable(&why),
            Whom::Election(server) => self.member.peer.on_election_undialed(server),
        }
    }

    /// Reads what is there, up to a turn's worth, and tells the core.
    fn serve(&mut self, id: LinkId) {
        let Some(link) = self.host.links.get(id) else { return };
        let (is_to_leader, caller, peer) = (link.is_to_leader(), link.caller(), link.peer);
        if is_to_leader && !self.member.peer.wants_packets() {
            // The kernel holds them, and then the leader does.
            self.held = Some(id);
            return;
        }
        if let Some(Err(why)) = self.host.links.read(id) {
            return self.lose(id, &why);
        }
        if self.host.links.get_mut(id).is_some_and(Link::take_heard) {
            self.member.peer.on_heard(id);
        }
        while let Some(heard) = self.host.links.hear(id) {
            self.note_name(id, &heard);
            match heard {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Hello(hello)) => self.member.peer.on_election_hello(id, &hello),
                Ok(Heard::Notification(notification)) => self.member.peer.on_notification(id, &notification),
                Ok(Heard::Malformed(why)) => self.host.tell(caller, About::Malformed, log::Level::Warn, || {
                    format!("a notification from {peer} is passed over: {why}")
                }),
                Ok(Heard::Packets(packets)) => self.member.peer.on_packets(id, packets),
                Ok(Heard::Snapshot(state)) => self.member.peer.on_snapshot(state),
                Err(why) => return self.lose(id, &why),
            }
            self.carry_out();
        }
        match self.host.links.get(id) {
            Some(link) if link.ended => self.lose(id, "the other side closed it"),
            Some(_) => self.send(id),
            None => {}
        }
    }

    /// Who came says which member it is.
    fn note_name(&mut self, id: LinkId, heard: &Result<Heard, String>) {
        let server = match heard {
            Ok(Heard::Hello(hello)) => Some(hello.server),
            Ok(Heard::Packets(packets)) => match packets.first() {
                Some(Packet::LearnerInfo(info)) => info.server,
                _ => None,
            },
            _ => None,
        };
        if let Some(server) = server.filter(|server| self.member.peer.is_member(*server))
            && let Some(link) = self.host.links.get_mut(id)
        {
            link.member = Some(server);
        }
    }

    /// Everything that waits goes to the kernel as far as it takes it.
    fn flush(&mut self) {
        for link in self.host.links.with_output() {
            self.send(link);
        }
        self.carry_out();
        self.host.pipeline.pass_on();
    }

    fn send(&mut self, id: LinkId) {
        let told = self.host.pipeline.pass_on();
        let Some(link) = self.host.links.get_mut(id) else { return };
        if let Err(error) = link.send(&told) {
            return self.lose(id, &error.to_string());
        }
        let (pieces_sent, flushed) = (link.take_snapshot_pieces_sent(), link.take_flushed());
        for _ in 0..pieces_sent {
            self.member.peer.on_snapshot_sent(id);
        }
        if flushed {
            self.member.peer.on_election_flushed(id);
        }
    }

    /// The link is broken, or its other side is wrong: the core hears of it.
    fn lose(&mut self, id: LinkId, why: &str) {
        self.let_go(id, why, log::Level::Info);
        self.carry_out();
    }

    fn let_go(&mut self, id: LinkId, why: &str, level: log::Level) {
        let Some(link) = self.host.links.remove(id) else { return };
        let about = if level == log::Level::Warn { About::Dropped } else { About::Ended };
        self.host.tell(link.caller(), about, level, || format!("connection {} ended: {why}", link.describe()));
        if link.is_election() {
            self.member.peer.on_election_closed(id);
        } else {
            self.member.peer.on_link_closed(id);
        }
    }

    // Effects.

    fn carry_out(&mut self) {
        loop {
            let effects = self.member.peer.take_effects();
            let nothing = effects.is_empty();
            for effect in effects {
                if let Err(failure) = self.member.carry_out(effect, &mut self.host) {
                    match failure.ends_with {
                        Some(code) => fatal(code, &failure.to_string()),
                        None => log::error!("{failure}"),
                    }
                }
            }
            let broken = self.host.links.take_broken();
            if nothing && broken.is_empty() {
                return;
            }
            for (link, why) in broken {
                self.let_go(link, &why, log::Level::Warn);
            }
        }
    }
}

impl Host {
    /// One line about a connection, unless there were enough of them.
    fn tell(&mut self, caller: Caller, about: About, level: log::Level, text: impl FnOnce() -> String) {
        if let Some(others) = self.callers.pass(caller, about, self.now_ms) {
            log::log!(level, "{}{}", text(), suppressed(others));
        }
    }
}

impl Environment for Host {
    fn send(&mut self, link: LinkId, packet: Packet, priority: impl Fn(LinkId) -> LinkPriority) {
        if let Some(to) = self.links.get_mut(link) {
            to.push(&packet);
            let told = to.should_send().then(|| self.pipeline.pass_on());
            self.links.relieve(link, told, priority);
        }
    }

    fn send_snapshot(&mut self, link: LinkId, bytes: Vec<u8>) {
        if let Some(to) = self.links.get_mut(link) {
            to.push_snapshot_piece(&bytes);
        }
    }

    fn send_election(&mut self, link: LinkId, bytes: Vec<u8>) {
        if let Some(to) = self.links.get_mut(link) {
            to.push_bytes(&bytes);
        }
    }

    fn close(&mut self, link: LinkId, why: &str) {
        if let Some(mut link) = self.links.remove(link) {
            // What was said before may be the reason that the other side needs.
            let _ = link.send(&self.pipeline.pass_on());
            self.tell(link.caller(), About::Closed, log::Level::Info, || {
                format!("closed the connection {}: {why}", link.describe())
            });
        }
    }

    fn dial_leader(&mut self, master: ServerId, addresses: &[PeerAddress]) {
        let targets = addresses.iter().map(|a| (a.host.clone(), a.quorum_port)).collect();
        self.dials.begin(Whom::Master(master), true, targets, self.now_ms);
    }

    fn dial_election(&mut self, server: ServerId, is_member: bool, addresses: &[PeerAddress]) {
        let targets = addresses.iter().map(|a| (a.host.clone(), a.election_port)).collect();
        self.dials.begin(Whom::Election(server), is_member, targets, self.now_ms);
    }

    fn listen(&mut self, open: bool) {
        self.listeners.listen(open);
    }

    fn listen_for_observers(&mut self) {
        self.listeners.listen_for_observers();
    }

    fn leave_role(&mut self) {
        self.links.leave_role(&self.pipeline.pass_on());
        self.dials.forget_leader();
        self.reader.forget_parts();
        self.listeners.listen(false);
    }

    fn move_to(&mut self, members: &Members) {
        self.listeners.move_to(members);
    }

    fn alarm(&mut self, what: String) {
        log::error!("{what}");
    }

    fn warn(&mut self, link: LinkId, what: &str) {
        if let Some((caller, peer)) = self.links.get(link).map(|link| (link.caller(), link.peer)) {
            self.tell(caller, About::Unlisted, log::Level::Warn, || format!("{what} (it is at {peer})"));
        }
    }

    fn read_part(&mut self, link: LinkId, from: Zxid, to: Zxid) {
        self.reader.read_part(link, from, to);
    }

    fn read_back(&mut self, from: Zxid, to: Zxid) {
        self.reader.read_back(from, to);
    }

    fn read_state(&mut self, to: Zxid) {
        self.reader.read_state(to);
    }

    fn forget_history(&mut self) {
        self.reader.forget();
    }

    fn tell_txnlog(&mut self, mail: ToTxnlog) {
        // The log ends the process when it fails, and else outlives this thread.
        let _ = self.txnlog.send(TxnlogMail::Core(mail));
    }

    fn tell_pipeline(&mut self, mail: ToPipeline) {
        self.pipeline.push(mail);
    }

    fn mono_us(&self) -> i64 {
        clock::mono_us()
    }

    fn wall_ms(&self) -> i64 {
        clock::wall_ms()
    }
}

/// Runs what waits for a name server, and posts what comes of it.
fn look_up(handle: &QuorumHandle, find: impl FnOnce() -> QuorumMail + Send + 'static) {
    let to = handle.clone();
    if let Err(error) = std::thread::Builder::new().name("resolver".into()).spawn(move || to.post(find())) {
        log::warn!("no thread to look up a host's address: {error}");
    }
}
