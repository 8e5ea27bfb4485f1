//! The quorum thread: owns every socket between servers, on the election port and on the quorum port, and tells its member
//! ([`crate::engine::quorum`]) what happens on them. Waits in its poll; the disk makes it wait for small files only, those of
//! the epochs and the members (a millisecond, and only around elections and reconfigurations).
//!
//! `listeners` are what it listens on, `dial` is how it connects, `reader` reads the log. Here is its loop.

mod dial;
mod listeners;
mod reader;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::admin::view::QuorumView;
use crate::config::Members;
use crate::config::ensemble::HostPort;
use crate::config::ensemble::PeerAddress;
use crate::engine::quorum::link::Socket;
use crate::engine::quorum::links::{LinkRules, Links};
use crate::engine::quorum::reads::{Found, ToRead};
use crate::engine::quorum::{Environment, Failure, Member, Store, Whom};
use crate::ids::LinkId;
use crate::limits::FILE_DESCRIPTORS;
use crate::mail::{ToPipeline, ToQuorum, ToTxnlog};
use crate::quorum::peer::PeerStart;
use crate::sys::clock;
use crate::sys::exit::fatal;
use crate::sys::net::{Listener, end_unanswered, prepare_client};
use crate::sys::{priority, rlimit};
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::pipeline::PipelineMail;
use crate::threads::poller::PollerHandle;
use crate::threads::txnlog::TxnlogMail;

use dial::{Dials, Failed};
use listeners::{Accepted, Listeners};
use reader::Reader;

pub use listeners::{LineSource, ListenError, Place, patiently};
pub use reader::ReadRules;

const WAKER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 256;
/// The shortest [`QuorumConfig::unanswered_ms`]: the kernel sends what is lost again several times within this.
pub const UNANSWERED_MS_MIN: u64 = 1_000;
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
    Read(Found),
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
    /// `tcpKeepAlive`: whether the kernel probes silent links of the election port.
    pub tcp_keepalive: bool,
    /// How long what is said on the election port may go without an answer of the other side's kernel: then the link is
    /// dead, and another is made.
    pub unanswered_ms: u64,
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
            let strangers_below = rlimit::open_files().saturating_sub(FILE_DESCRIPTORS);
            let links = Links::new(config.links, strangers_below);
            let host = Host {
                reader,
                txnlog: neighbours.txnlog,
                pipeline: neighbours.pipeline,
                listeners,
                dials: Dials::new(handle, config.dial_timeout_ms),
                registry,
                tcp_keepalive: config.tcp_keepalive,
                unanswered: Duration::from_millis(config.unanswered_ms),
                now_ms: 0,
            };
            let member = Member::new(config.start, config.store, links, clock::mono_us() / 1000);
            Quorum { poll, inbox, member, host, stopped: false }.run();
        };
        std::thread::Builder::new().name("quorum".into()).spawn(body)
    }
}

struct Quorum {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    member: Member<TcpStream>,
    host: Host,
    stopped: bool,
}

/// What is around the member on this host.
struct Host {
    reader: Reader,
    txnlog: Sender<TxnlogMail>,
    pipeline: Sender<PipelineMail>,
    listeners: Listeners,
    dials: Dials,
    registry: Registry,
    tcp_keepalive: bool,
    unanswered: Duration,
    now_ms: i64,
}

impl Quorum {
    fn run(mut self) {
        priority::take_short_turns();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.set_time();
        self.member.begin(&mut self.host);
        while !self.stopped {
            self.member.end_turn(&mut self.host);
            self.wait(&mut events);
            self.set_time();
            for event in &events {
                self.on_event(event);
            }
            self.member.serve_ready(&mut self.host);
            for _ in 0..MAIL_PER_TURN {
                if self.member.is_proposing() {
                    self.member.propose(&mut self.host);
                } else if let Some(mail) = self.inbox.next() {
                    self.on_mail(mail);
                } else {
                    break;
                }
            }
            for failed in self.host.dials.overdue(self.host.now_ms) {
                self.dial_failed(failed);
            }
            self.member.on_time(&mut self.host);
            self.member.publish();
        }
    }

    fn set_time(&mut self) {
        self.host.now_ms = clock::mono_us() / 1000;
        self.member.set_time(self.host.now_ms);
    }

    fn wait(&mut self, events: &mut Events) {
        events.clear();
        let sleeps = self.inbox.may_sleep() && self.member.may_sleep();
        let until_ms = self.member.next_deadline_ms().min(self.host.dials.next_deadline_ms());
        let wait_ms = if sleeps { (until_ms - clock::mono_us() / 1000).clamp(0, 60_000) } else { 0 };
        match self.poll.poll(events, Some(Duration::from_millis(wait_ms.unsigned_abs()))) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => panic!("epoll_wait cannot fail on a descriptor of ours: {error}"),
        }
        self.inbox.wake_up();
    }

    fn on_mail(&mut self, mail: QuorumMail) {
        match mail {
            QuorumMail::HealthCheck(check) => {
                self.host.reader.check_health(check, HealthReport::Epoch(i64::from(self.member.current_epoch())));
            }
            QuorumMail::Read(found) => self.member.on_read(found, &mut self.host),
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
                // Whoever asked may have given up.
                let _ = to.send(self.member.view(resets_links));
            }
            QuorumMail::Core(mail) => {
                self.stopped |= matches!(mail, ToQuorum::Stop);
                self.member.on_mail(mail, &mut self.host);
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        let Token(token) = event.token();
        match token {
            _ if event.token() == WAKER => {}
            _ if Listeners::has(token) => self.accept(token),
            _ if Dials::has(token) => match self.host.dials.on_event(token, event, self.host.now_ms) {
                dial::Outcome::Pending => {}
                dial::Outcome::Failed(failed) => self.dial_failed(failed),
                dial::Outcome::Connected(whom, stream, address) => {
                    self.member.on_dialed(whom, Ok((stream, address)), &mut self.host);
                }
            },
            _ => self.member.on_event(LinkId(token as u64), event.is_writable(), &mut self.host),
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Some(accepted) = self.host.listeners.accept(listener, self.host.now_ms) {
            let (stream, peer, is_election) = match accepted {
                Accepted::Election(stream, peer) => (stream, peer, true),
                Accepted::Learner(stream, peer) => (stream, peer, false),
            };
            self.member.on_accepted(stream, peer, is_election, &mut self.host);
        }
    }

    fn dial_failed(&mut self, (whom, why): Failed) {
        self.member.on_dialed(whom, Err(why), &mut self.host);
    }
}

impl Socket for TcpStream {
    fn descriptor(&self) -> u64 {
        u64::try_from(self.as_raw_fd()).unwrap_or(0)
    }
}

impl Environment for Host {
    type Socket = TcpStream;

    fn register(&mut self, id: LinkId, socket: &mut TcpStream, is_election: bool) -> io::Result<()> {
        let keepalive = self.tcp_keepalive && is_election;
        register(&self.registry, id, socket, is_election.then_some(self.unanswered), keepalive)
    }

    fn dial(&mut self, whom: Whom, is_member: bool, addresses: &[PeerAddress]) {
        let target = |at: &PeerAddress| match whom {
            Whom::Master(_) => (at.host.clone(), at.quorum_port),
            Whom::Election(_) => (at.host.clone(), at.election_port),
        };
        self.dials.begin(whom, is_member, addresses.iter().map(target).collect(), self.now_ms);
    }

    fn forget_leader(&mut self) {
        self.dials.forget_leader();
    }

    fn listen(&mut self, open: bool) {
        self.listeners.listen(open);
    }

    fn listen_for_observers(&mut self) {
        self.listeners.listen_for_observers();
    }

    fn move_to(&mut self, members: &Members) {
        self.listeners.move_to(members);
    }

    fn alarm(&mut self, what: String) {
        log::error!("{what}");
    }

    fn read(&mut self, what: ToRead) {
        self.reader.read(what);
    }

    fn tell_txnlog(&mut self, mail: ToTxnlog) {
        // The log ends the process when it fails, and else outlives this thread.
        let _ = self.txnlog.send(TxnlogMail::Core(mail));
    }

    fn tell_pipeline(&mut self, mail: Vec<ToPipeline>) {
        // After its end nobody waits for this.
        let _ = self.pipeline.send(PipelineMail::Core(mail));
    }

    fn on_done(&mut self, done: Result<(), Failure>) {
        let Err(failure) = done else { return };
        match failure.ends_with {
            Some(code) => fatal(code, &failure.to_string()),
            None => log::error!("{failure}"),
        }
    }

    fn mono_us(&self) -> i64 {
        clock::mono_us()
    }

    fn wall_ms(&self) -> i64 {
        clock::wall_ms()
    }
}

/// Registers a socket with the poll. Without an answer for as long as that, the kernel ends it: votes are few and small, and
/// whoever is there takes them. Links of the quorum port have pings instead.
fn register(
    registry: &Registry,
    id: LinkId,
    socket: &mut TcpStream,
    unanswered: Option<Duration>,
    keepalive: bool,
) -> io::Result<()> {
    prepare_client(socket, keepalive)?;
    if let Some(after) = unanswered {
        end_unanswered(socket, after)?;
    }
    let (token, interest) = (Token(id.0 as usize), Interest::READABLE | Interest::WRITABLE);
    match registry.register(socket, token, interest) {
        // It was registered while it was dialled.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => registry.reregister(socket, token, interest),
        result => result,
    }
}

/// Runs what waits for a name server, and posts what comes of it.
fn look_up(handle: &QuorumHandle, find: impl FnOnce() -> QuorumMail + Send + 'static) {
    let to = handle.clone();
    if let Err(error) = std::thread::Builder::new().name("resolver".into()).spawn(move || to.post(find())) {
        log::warn!("no thread to look up a host's address: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn what_nobody_answers_on_the_election_port_ends_the_link_in_a_time_that_is_set() {
        let poll = Poll::new().unwrap();
        let unanswered = Duration::from_millis(4321);
        let set = |is_election: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            register(poll.registry(), LinkId(1), &mut socket, is_election.then_some(unanswered), false).unwrap();
            SockRef::from(&socket).tcp_user_timeout().unwrap()
        };
        assert_eq!(set(true), Some(unanswered));
        // A learner that is slow to read a snapshot is there all the same.
        assert_eq!(set(false), None);
    }
}
