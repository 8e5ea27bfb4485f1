//! The quorum thread: owns every socket between servers, on the election port and on the quorum port, and carries out
//! what [`Peer`] wants, in its order. Waits in its poll; the disk makes it wait for the epoch files (a millisecond, and
//! only around elections), for a learner's part of the log, and while a truncated history is read again.

mod dial;
mod link;

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::admin::view::QuorumView;
use crate::config::ensemble::{HostPort, PeerAddress};
use crate::ids::{ServerId, Zxid};
use crate::mail::{Heartbeat, LogRecord, Mail, News, ToPipeline, ToPoller, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::quiet::Quiet;
use crate::quorum::peer::{Peer, PeerStart};
use crate::quorum::voters::Configs;
use crate::quorum::{Effect, LinkId, Standing};
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
use crate::storage::logdir;
use crate::storage::recover::{RecoverOptions, recover};
use crate::sys::clock;
use crate::sys::exit::{ExitCode, fatal};
use crate::sys::net::{BindError, Listener, bind, resolve};
use crate::sys::priority;
use crate::sys::rlimit;
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::poller::PollerHandle;
use crate::txn::TxnHeader;

use dial::{Dials, Failed, Whom};
use link::{Heard, Link, Port, READ_BYTES};

/// The host to listen on when it is to be all of them.
const ANY_HOST: &str = "::";
const WAKER: Token = Token(usize::MAX);
/// Listener n of the election port has the token `FIRST_ELECTION_DOOR - n`, of the ports for learners
/// `FIRST_QUORUM_DOOR - n`.
const FIRST_ELECTION_DOOR: usize = usize::MAX - 1;
const FIRST_QUORUM_DOOR: usize = usize::MAX / 2;
/// More addresses than a server has.
const DOORS_MAX: usize = 1 << 16;
/// Between two attempts to look up a host of this server, or to bind its election port (`QuorumCnxManager.Listener`).
const BIND_PAUSE: Duration = Duration::from_secs(1);
const EVENTS_PER_TURN: usize = 256;
/// Connections of one port that have not said who they are. One more takes the place of the oldest.
const SILENT_MAX: usize = 256;
/// Descriptors that connections leave to the files of the store.
const KEPT_DESCRIPTORS: u64 = 64;
/// Bytes that wait for learners, of all together: beyond, those that do not read are closed. What the protocol sends at
/// once to a learner that reads is less.
const UNSENT_BYTES_MAX: usize = 256 << 20;
/// The same where only voters are left: one that comes late may be sent all that was committed meanwhile.
const VOTERS_UNSENT_BYTES_MAX: usize = 768 << 20;
/// What waits for one learner before it is compared with the others.
const UNSENT_BYTES_SOME: usize = 1 << 20;
/// Mail of other threads that is read before the sockets have their turn.
const MAIL_PER_TURN: usize = 16;
/// Bytes of transactions that are proposed at once: with more, the first would wait until the last is ready for everybody.
const PROPOSED_BYTES_AT_ONCE: usize = 256 << 10;
/// Bytes of log that a learner is brought up to date with; more is told as a snapshot.
const DIFF_BYTES_MAX: usize = 64 << 20;

/// Mail of this thread.
#[derive(Debug)]
pub enum QuorumMail {
    /// From another thread of the server.
    Inner(ToQuorum),
    /// Are you there?
    Heartbeat(Heartbeat),
    /// What operators may see is wanted.
    View {
        /// Who wants it.
        to: Sender<QuorumView>,
        /// Whether the figures of the connections begin anew.
        resets_links: bool,
    },
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
        result: Result<(), BindError>,
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
    /// The epochs on disk.
    pub epoch_files: EpochFiles,
    /// Where its clients connect, by the list of members.
    pub client: Option<HostPort>,
    /// Where this server is, by its configuration; its hosts are looked up.
    pub place: Place,
    /// `electionPortBindRetry`: how often its hosts are looked up when they change, 0 for ever.
    pub bind_attempts: u32,
    /// The configuration on disk.
    pub config_files: ConfigFiles,
    /// Folders.
    pub dirs: DataDirs,
    /// How a history is read again.
    pub recover: RecoverOptions,
    /// The largest packet, bytes of its data.
    pub packet_bytes_max: usize,
    /// `cnxTimeout`: how long a dial may take.
    pub dial_timeout_ms: i64,
    /// How long a stranger may take to say who it is.
    pub hello_timeout_ms: i64,
    /// `tcpKeepAlive`: whether the kernel probes silent links of the election port.
    pub tcp_keepalive: bool,
    /// `snapshotSizeFactor`: how much log a learner may be sent, as a part of the newest snapshot's size; `Some(0)` is
    /// without bound, `None` never.
    pub snapshot_size_factor: Option<f64>,
}

/// Where a server listens for others.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its own lines.
    pub addresses: Vec<PeerAddress>,
    /// `quorumListenOnAllIPs`: whatever the host is.
    pub on_all_ips: bool,
    /// The addresses of its hosts, looked up once: a name server may be slow just when this server is to lead.
    pub found: BTreeMap<String, SocketAddr>,
}

impl Place {
    /// Looks up the hosts that were not yet. That may take a while.
    pub fn look_up(&mut self) -> Result<(), BindError> {
        for (host, port) in self.doors(|address| address.election_port) {
            if let Entry::Vacant(unknown) = self.found.entry(host) {
                let found = resolve(unknown.key(), port).map_err(|source| {
                    let host = unknown.key().clone();
                    BindError { address: HostPort { host, port }.to_string(), source }
                })?;
                unknown.insert(found);
            }
        }
        Ok(())
    }

    /// Opens one of the ports on all hosts that are this server's, or on none. They are looked up before.
    pub fn listen(&self, port: impl Fn(&PeerAddress) -> u16) -> Result<Vec<Listener>, BindError> {
        let listen = |(host, port): (String, u16)| match self.found.get(&host) {
            Some(found) => bind(SocketAddr::new(found.ip(), port), -1),
            None => {
                let source = io::Error::new(io::ErrorKind::NotFound, "the host was not looked up");
                Err(BindError { address: HostPort { host, port }.to_string(), source })
            }
        };
        self.doors(port).into_iter().map(listen).collect()
    }

    fn is_looked_up(&self) -> bool {
        self.doors(|address| address.election_port).iter().all(|(host, _)| self.found.contains_key(host))
    }

    /// Where a port is open, each place once.
    fn doors(&self, port: impl Fn(&PeerAddress) -> u16) -> BTreeSet<(String, u16)> {
        let host = |address: &PeerAddress| if self.on_all_ips { ANY_HOST.to_owned() } else { address.host.clone() };
        self.addresses.iter().map(|address| (host(address), port(address))).collect()
    }
}

/// Whom the thread talks to.
#[derive(Debug)]
pub struct Neighbours {
    /// The state machine.
    pub pipeline: Sender<Vec<ToPipeline>>,
    /// The log.
    pub txnlog: Sender<ToTxnlog>,
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
        let mut election_doors: Vec<TcpListener> = election.into_iter().map(|listener| listener.socket).collect();
        for (n, door) in election_doors.iter_mut().enumerate() {
            poll.registry().register(door, Token(FIRST_ELECTION_DOOR - n), Interest::READABLE)?;
        }
        let body = move || {
            let QuorumConfig { start, .. } = config;
            let my_id = start.my_id;
            let rules = Fixed {
                observer_master_port: start.rules.observer_master_port,
                dirs: config.dirs,
                recover: config.recover,
                packet_bytes_max: config.packet_bytes_max,
                hello_timeout_ms: config.hello_timeout_ms,
                tcp_keepalive: config.tcp_keepalive,
                snapshot_size_factor: config.snapshot_size_factor,
                bind_attempts: config.bind_attempts,
                strangers_below: rlimit::open_files().saturating_sub(KEPT_DESCRIPTORS),
            };
            let dials = Dials::new(handle.clone(), config.dial_timeout_ms);
            Quorum {
                poll,
                inbox,
                peer: Peer::new(start, clock::mono_us() / 1000),
                epoch_files: config.epoch_files,
                config_files: config.config_files,
                my_id,
                place: config.place,
                moving_to: None,
                client: config.client,
                handle,
                rules,
                neighbours,
                election_doors,
                quorum_doors: Vec::new(),
                links: BTreeMap::new(),
                next_link: 0,
                dials,
                unproposed: Vec::new().into_iter(),
                restless: Vec::new(),
                broken: Vec::new(),
                crowd: Quiet::default(),
                buffer: vec![0; READ_BYTES],
                held: None,
                to_pipeline: Vec::new(),
                replacing: None,
                unsynced: VecDeque::new(),
                now_ms: 0,
                stopped: false,
            }
            .run();
        };
        std::thread::Builder::new().name("quorum".into()).spawn(body)
    }
}

/// What does not change.
#[derive(Debug)]
struct Fixed {
    observer_master_port: Option<u16>,
    dirs: DataDirs,
    recover: RecoverOptions,
    packet_bytes_max: usize,
    hello_timeout_ms: i64,
    tcp_keepalive: bool,
    snapshot_size_factor: Option<f64>,
    bind_attempts: u32,
    /// The first descriptor that is not for connections of strangers.
    strangers_below: u64,
}

/// How far the replacement of this server's history is; the order is that of `storage::truncate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replacing {
    /// The log and the snapshots are being cut behind this transaction.
    Cutting { to: Zxid },
    /// What is left was read again; the pipeline has it and saves it.
    SavingRest { to: Zxid },
    /// A snapshot that was under way meanwhile is being removed.
    CuttingAgain { to: Zxid },
    /// The pipeline has a state that the leader sent, and saves it.
    SavingReceived { zxid: Zxid },
    /// What came before it is being removed.
    Finishing { zxid: Zxid },
}

/// A new configuration has this server elsewhere.
#[derive(Debug)]
struct Moving {
    addresses: Vec<PeerAddress>,
    /// It was elected meanwhile, and opens the quorum port there.
    leads: bool,
}

struct Quorum {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    peer: Peer,
    epoch_files: EpochFiles,
    config_files: ConfigFiles,
    my_id: ServerId,
    place: Place,
    /// The hosts of a new configuration are being looked up.
    moving_to: Option<Moving>,
    client: Option<HostPort>,
    handle: QuorumHandle,
    rules: Fixed,
    neighbours: Neighbours,
    election_doors: Vec<TcpListener>,
    quorum_doors: Vec<TcpListener>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    dials: Dials,
    /// The rest of a large batch that the pipeline proposes.
    unproposed: std::vec::IntoIter<LogRecord>,
    /// Links with bytes to read or to send that no event will tell of again.
    restless: Vec<LinkId>,
    /// Links that ended while effects were carried out, and why: the core hears of it when all are.
    broken: Vec<(LinkId, String)>,
    /// Complaints about strangers that are too many.
    crowd: Quiet,
    /// What is read goes by way of this.
    buffer: Vec<u8>,
    /// The link to the leader, while this server has enough to do with what it was sent.
    held: Option<LinkId>,
    /// For the pipeline, at the end of the turn, or before something is sent.
    to_pipeline: Vec<ToPipeline>,
    replacing: Option<Replacing>,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
    now_ms: i64,
    stopped: bool,
}

impl Quorum {
    fn run(mut self) {
        priority::take_short_turns();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.now_ms = clock::mono_us() / 1000;
        self.carry_out();
        while !self.stopped {
            self.flush();
            if self.peer.wants_packets() {
                self.restless.extend(self.held.take());
            }
            self.wait(&mut events);
            self.now_ms = clock::mono_us() / 1000;
            self.peer.set_time(self.now_ms);
            for event in &events {
                self.on_event(event);
                self.carry_out();
            }
            for link in std::mem::take(&mut self.restless) {
                self.serve(link);
                self.carry_out();
            }
            for _ in 0..MAIL_PER_TURN {
                let Some(mail) = self.next_mail() else { break };
                self.on_mail(mail);
                self.carry_out();
            }
            self.on_time();
            self.carry_out();
            self.peer.publish();
        }
    }

    fn wait(&mut self, events: &mut Events) {
        events.clear();
        let sleeps = self.inbox.may_sleep() && self.restless.is_empty() && self.unproposed.len() == 0;
        let until_ms = self.peer.next_deadline_ms().min(self.dials.next_deadline_ms()).min(self.next_hello_ms());
        let wait_ms = if sleeps { (until_ms - clock::mono_us() / 1000).clamp(0, 60_000) } else { 0 };
        match self.poll.poll(events, Some(Duration::from_millis(wait_ms.unsigned_abs()))) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => panic!("epoll_wait cannot fail on a descriptor of ours: {error}"),
        }
        self.inbox.wake_up();
    }

    fn next_hello_ms(&self) -> i64 {
        self.links.values().filter_map(|link| link.hello_by_ms).min().unwrap_or(i64::MAX)
    }

    fn on_time(&mut self) {
        self.peer.tick();
        for dial in self.dials.overdue(self.now_ms) {
            self.dial_failed(dial);
        }
        let late = |link: &Link| link.hello_by_ms.is_some_and(|by_ms| by_ms <= self.now_ms);
        let late: Vec<LinkId> = self.links.iter().filter(|(_, link)| late(link)).map(|(id, _)| *id).collect();
        for link in late {
            self.lose(link, "it did not say who it is");
        }
    }

    /// The next mail, or a part of it.
    fn next_mail(&mut self) -> Option<QuorumMail> {
        if self.unproposed.len() == 0 {
            match self.inbox.next()? {
                QuorumMail::Inner(ToQuorum::Proposed(records)) => self.unproposed = records.into_iter(),
                mail => return Some(mail),
            }
        }
        Some(QuorumMail::Inner(ToQuorum::Proposed(take_bytes(&mut self.unproposed, PROPOSED_BYTES_AT_ONCE))))
    }

    fn on_mail(&mut self, mail: QuorumMail) {
        match mail {
            QuorumMail::Heartbeat(heartbeat) => {
                heartbeat.answer(News::Epoch(i64::from(self.epoch_files.epochs().current)));
            }
            QuorumMail::Resolved { dial, addresses } => {
                if let Some(failed) = self.dials.on_resolved(dial, &addresses, self.poll.registry(), self.now_ms) {
                    self.dial_failed(failed);
                }
            }
            QuorumMail::Moved { place, result } => self.on_moved(place, result),
            QuorumMail::ClientsMoved { to, address } => self.on_clients_moved(&to, address),
            QuorumMail::View { to, resets_links } => {
                if resets_links {
                    self.links.values_mut().for_each(Link::reset_figures);
                }
                let on_link = |link| self.links.get(&link).map(Link::view).unwrap_or_default();
                // Whoever asked may have given up.
                let _ = to.send(self.peer.view(&on_link));
            }
            QuorumMail::Inner(ToQuorum::Truncated { to, possible }) => self.on_cut(to, possible),
            QuorumMail::Inner(ToQuorum::Installed { zxid }) => self.on_installed(zxid),
            QuorumMail::Inner(mail) => {
                if let ToQuorum::Durable { zxid } = mail {
                    self.count_acks(zxid);
                }
                self.stopped |= matches!(mail, ToQuorum::Stop);
                self.peer.on_inner(mail);
            }
        }
    }

    /// What this server's log has from a leader is acknowledged now.
    fn count_acks(&mut self, durable: Zxid) {
        let wall_ms = clock::wall_ms();
        while let Some((_, made_ms)) = self.unsynced.pop_front_if(|(zxid, _)| *zxid <= durable) {
            metrics::PROPOSAL_ACK_CREATION_LATENCY.record((wall_ms - made_ms).max(0));
        }
    }

    // Sockets.

    fn on_event(&mut self, event: &Event) {
        let Token(token) = event.token();
        match token {
            _ if event.token() == WAKER => {}
            _ if token > FIRST_ELECTION_DOOR - DOORS_MAX => self.accept_election(FIRST_ELECTION_DOOR - token),
            _ if token > FIRST_QUORUM_DOOR - DOORS_MAX && token <= FIRST_QUORUM_DOOR => {
                self.accept_learners(FIRST_QUORUM_DOOR - token);
            }
            _ if Dials::has(token) => match self.dials.on_event(token, event, self.now_ms) {
                dial::Outcome::Pending => {}
                dial::Outcome::Failed(failed) => self.dial_failed(failed),
                dial::Outcome::Connected(whom, stream, address) => self.dialed(whom, stream, address),
            },
            _ => {
                let id = LinkId(token as u64);
                if let Some(link) = self.links.get_mut(&id).filter(|_| event.is_writable()) {
                    link.on_writable();
                }
                self.serve(id);
            }
        }
    }

    fn accept_election(&mut self, door: usize) {
        while let Some((stream, peer)) = accept(self.election_doors.get(door)) {
            let by_ms = self.now_ms + self.rules.hello_timeout_ms;
            self.admit_stranger(Link::new(stream, peer, Port::nameless(), Some(by_ms)));
        }
    }

    fn accept_learners(&mut self, door: usize) {
        while let Some((stream, peer)) = accept(self.quorum_doors.get(door)) {
            let port = Port::learner(self.rules.packet_bytes_max);
            if let Some(link) = self.admit_stranger(Link::new(stream, peer, port, None)) {
                self.peer.on_learner_connected(link);
                self.carry_out();
            }
        }
    }

    /// Takes in a connection that was accepted. If too many of this port are silent, the oldest of them makes room: the
    /// newest may be a server that comes back.
    fn admit_stranger(&mut self, link: Link) -> Option<LinkId> {
        let is_kept = link.descriptor() >= self.rules.strangers_below;
        let silent = |other: &Link| other.is_silent() && other.is_election() == link.is_election();
        let silent: Vec<LinkId> = self.links.iter().filter(|(_, other)| silent(other)).map(|(id, _)| *id).collect();
        if is_kept || silent.len() >= SILENT_MAX {
            let port = if link.is_election() { "election" } else { "quorum" };
            if let Some(others) = self.crowd.pass(self.now_ms) {
                let (peer, count) = (link.peer, silent.len());
                log::warn!(
                    "{count} connections to the {port} port have not said who they are; the oldest is closed for that \
                     of {peer} ({others} like this before)"
                );
            }
            // Its first words may be here already, if many came at once.
            silent.first().into_iter().for_each(|oldest| self.serve(*oldest));
            match silent.first() {
                None => return None,
                Some(oldest) if self.links.get(oldest).is_some_and(Link::is_silent) => {
                    // Told above, once for many.
                    self.let_go(*oldest, "it was silent, and others came", log::Level::Debug);
                    self.carry_out();
                }
                Some(_) => {}
            }
        }
        self.admit(link)
    }

    /// Takes in a connection.
    fn admit(&mut self, mut link: Link) -> Option<LinkId> {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        if let Err(error) = link.register(self.poll.registry(), Token(id.0 as usize), self.rules.tcp_keepalive) {
            log::warn!("connection from {} refused: {error}", link.peer);
            return None;
        }
        self.links.insert(id, link);
        self.restless.push(id);
        Some(id)
    }

    fn dialed(&mut self, whom: Whom, stream: mio::net::TcpStream, address: SocketAddr) {
        match whom {
            Whom::Leader => {
                let port = Port::leader(self.rules.packet_bytes_max);
                match self.admit(Link::new(stream, address, port, None)) {
                    Some(link) => self.peer.on_leader_connected(link),
                    None => self.peer.on_leader_unreachable("its socket cannot be used"),
                }
            }
            Whom::Election(server) => match self.admit(Link::new(stream, address, Port::known(), None)) {
                Some(link) => self.peer.on_election_dialed(link, server),
                None => self.peer.on_election_undialed(server),
            },
        }
    }

    fn dial_failed(&mut self, (whom, why): Failed) {
        match whom {
            Whom::Leader => self.peer.on_leader_unreachable(&why),
            Whom::Election(server) => self.peer.on_election_undialed(server),
        }
    }

    /// Reads what is there, up to a turn's worth, and tells the core.
    fn serve(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.is_to_leader() && !self.peer.wants_packets() {
            // The kernel holds them, and then the leader does.
            self.held = Some(id);
            return;
        }
        let more = match link.read(&mut self.buffer) {
            Ok(more) => more,
            Err(why) => return self.lose(id, &why),
        };
        if self.links.get(&id).is_some_and(Link::is_to_leader) {
            self.peer.on_leader_heard();
        }
        if more {
            self.restless.push(id);
        }
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            match link.hear(self.rules.recover.rules, self.rules.packet_bytes_max) {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Hello(hello)) => self.peer.on_election_hello(id, &hello),
                Ok(Heard::Notification(notification)) => self.peer.on_notification(id, &notification),
                Ok(Heard::Packets(packets)) => self.peer.on_packets(id, packets),
                Ok(Heard::Snapshot(state)) => self.peer.on_snapshot(state),
                Err(why) => return self.lose(id, &why),
            }
            self.carry_out();
        }
        if self.links.get(&id).is_some_and(|link| link.ended) {
            self.lose(id, "the other side closed it");
        } else {
            self.send(id);
        }
    }

    /// Everything that waits goes to the kernel as far as it takes it.
    fn flush(&mut self) {
        let waiting: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.can_send() || link.has_sent()).map(|(id, _)| *id).collect();
        for link in waiting {
            self.send(link);
        }
        self.carry_out();
        self.tell_pipeline();
    }

    fn tell_pipeline(&mut self) {
        if !self.to_pipeline.is_empty() {
            // After its end nobody waits for this.
            let _ = self.neighbours.pipeline.send(std::mem::take(&mut self.to_pipeline));
        }
    }

    /// The pipeline hears of a commit before anybody else does: who was told of it elsewhere, and syncs and reads here,
    /// finds it.
    fn send(&mut self, id: LinkId) {
        self.tell_pipeline();
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Err(error) = link.send() {
            return self.lose(id, &error.to_string());
        }
        for _ in 0..link.take_snapshot_pieces_sent() {
            self.peer.on_snapshot_sent(id);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.take_flushed() {
            self.peer.on_election_flushed(id);
        }
    }

    /// The link is broken, or its other side is wrong: the core hears of it.
    fn lose(&mut self, id: LinkId, why: &str) {
        self.let_go(id, why, log::Level::Info);
        self.carry_out();
    }

    fn let_go(&mut self, id: LinkId, why: &str, level: log::Level) {
        let Some(link) = self.links.remove(&id) else { return };
        log::log!(level, "connection {} ended: {why}", link.describe());
        if link.is_election() {
            self.peer.on_election_closed(id);
        } else {
            self.peer.on_link_closed(id);
        }
    }

    // Effects.

    fn carry_out(&mut self) {
        loop {
            let effects = self.peer.take_effects();
            if effects.is_empty() && self.broken.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out_one(effect));
            for (link, why) in std::mem::take(&mut self.broken) {
                self.let_go(link, &why, log::Level::Warn);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { link, packet } => {
                if let Some(to) = self.links.get_mut(&link) {
                    to.push(&packet);
                    self.relieve(link);
                }
            }
            Effect::SendSnapshot { link, bytes } => {
                if let Some(to) = self.links.get_mut(&link) {
                    to.push_snapshot_piece(&bytes);
                }
            }
            Effect::SendElection { link, bytes } => {
                if let Some(to) = self.links.get_mut(&link) {
                    to.push_bytes(&bytes);
                }
            }
            Effect::Close { link, why } => {
                if let Some(mut link) = self.links.remove(&link) {
                    // What was said before may be the reason that the other side needs.
                    let _ = link.send();
                    log::info!("closed the connection {}: {why}", link.describe());
                }
            }
            Effect::DialLeader { addresses } => {
                let targets = addresses.iter().map(|a| (a.host.clone(), a.quorum_port)).collect();
                self.dials.begin(Whom::Leader, targets, self.now_ms);
            }
            Effect::DialElection { server, addresses } => {
                let targets = addresses.iter().map(|a| (a.host.clone(), a.election_port)).collect();
                self.dials.begin(Whom::Election(server), targets, self.now_ms);
            }
            Effect::Listen(open) => self.listen(open),
            Effect::ListenForObservers => self.listen_for_observers(),
            Effect::LeaveRole { why } => {
                log::warn!("left the role: {why}");
                // What was said before may be what the others need to go on.
                self.links.values_mut().filter(|link| !link.is_election()).for_each(|link| drop(link.send()));
                self.links.retain(|_, link| link.is_election());
                self.dials.forget_leader();
                self.listen(false);
            }
            Effect::SetAcceptedEpoch(epoch) => must(self.epoch_files.set_accepted(epoch)),
            Effect::SetCurrentEpoch(epoch) => must(self.epoch_files.set_current(epoch)),
            Effect::SaveConfigs(configs) => self.save_configs(&configs),
            Effect::Log(records) => self.log(records),
            Effect::Truncate { to } => {
                log::info!("the leader's history is this server's up to {to}: the log is truncated to it");
                self.replacing = Some(Replacing::Cutting { to });
                self.tell_txnlog(ToTxnlog::Truncate { to });
            }
            Effect::Install(state) => {
                let zxid = state.last_zxid();
                must(self.epoch_files.announce(zxid));
                self.replacing = Some(Replacing::SavingReceived { zxid });
                let install = Mail::Pipeline(ToPipeline::Install { state, durable: true });
                self.tell_txnlog(ToTxnlog::PrepareInstall { zxid, then: vec![install] });
            }
            Effect::ReadLog { link, from, to } => {
                let records = self.read_log(from, to);
                self.peer.on_log_read(link, records);
            }
            Effect::Pipeline(mail) => self.to_pipeline.push(mail),
        }
    }

    /// What waits for a learner is sent before it is much, and not kept if it is too much.
    fn relieve(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.should_send()
            && let Err(error) = link.send()
        {
            self.broken.push((id, error.to_string()));
        }
        if link.unsent() < UNSENT_BYTES_SOME {
            return;
        }
        let waiting = || self.links.iter().filter(|(_, link)| !link.is_election());
        let total: usize = waiting().map(|(_, link)| link.unsent()).sum();
        if total <= UNSENT_BYTES_MAX {
            return;
        }
        let worst = waiting().map(|(id, link)| (self.peer.standing(*id), Reverse(link.unsent()), *id)).min();
        if let Some((standing, Reverse(bytes), id)) = worst
            && (standing < Standing::Voter || total > VOTERS_UNSENT_BYTES_MAX)
            && let Some(link) = self.links.get_mut(&id)
        {
            link.doom();
            self.broken.push((id, format!("it does not read what it is sent: {bytes} of {total} bytes wait for it")));
        }
    }

    fn listen(&mut self, open: bool) {
        if let Some(moving) = &mut self.moving_to {
            moving.leads = open;
            if open {
                return;
            }
        }
        if !open {
            for mut door in self.quorum_doors.drain(..) {
                let _ = self.poll.registry().deregister(&mut door);
            }
            return;
        }
        if let Err(error) = self.open_doors(|a| a.quorum_port) {
            let hint = "end the process that has the port, or change this server's line in the configuration";
            let what = format!("{error}: this server was elected and cannot lead without its quorum port; {hint}");
            fatal(ExitCode::Unexpected, &what);
        }
    }

    fn save_configs(&mut self, configs: &Configs) {
        if let Err(error) = self.config_files.save(configs) {
            let what = format!("{error}; with reconfigEnabled the folder of the configuration file must be writable");
            if configs.last_seen.as_ref().is_some_and(|members| Zxid(members.version).counter() != 0) {
                // The proposal would be acknowledged, and forgotten at the next start.
                fatal(ExitCode::Unexpected, &what);
            }
            log::error!("{what}; the members at the next start are those that the file names now");
        }
        self.move_to(configs.committed.addresses(self.my_id));
        let own = configs.committed.servers.get(&self.my_id.0);
        if let Some(client) = own.and_then(|server| server.client.clone()) {
            self.move_clients_to(client);
        }
    }

    /// A configuration without an address for the clients of this server leaves them where zoo.cfg says.
    fn move_clients_to(&mut self, client: HostPort) {
        let before = self.client.replace(client.clone());
        if before.as_ref() == Some(&client) {
            return;
        }
        let same_port = before.as_ref().is_some_and(|place| place.port == client.port);
        let was_everywhere = before.and_then(|place| place.host.parse().ok());
        if !(same_port && was_everywhere.is_some_and(|ip: IpAddr| ip.is_unspecified())) {
            let find = move || QuorumMail::ClientsMoved { address: resolve(&client.host, client.port), to: client };
            look_up(&self.handle, find);
        }
    }

    fn on_clients_moved(&self, to: &HostPort, address: io::Result<SocketAddr>) {
        if self.client.as_ref() != Some(to) {
            return;
        }
        match address {
            Ok(address) => {
                self.neighbours.poller.post(ToPoller { listen: Some(address), ..ToPoller::default() });
            }
            Err(error) => log::error!("clients are to connect to {to}: {error}; nothing changes"),
        }
    }

    /// The election port opens where the configuration says; the quorum port does when this server leads again.
    fn move_to(&mut self, addresses: &[PeerAddress]) {
        let last = self.moving_to.as_ref().map_or(&self.place.addresses, |moving| &moving.addresses);
        if addresses.is_empty() || addresses == last {
            return;
        }
        let mut place = Place { addresses: addresses.to_vec(), ..self.place.clone() };
        let leads = self.moving_to.take().is_some_and(|moving| moving.leads);
        self.moving_to = Some(Moving { addresses: addresses.to_vec(), leads });
        if place.is_looked_up() {
            return self.on_moved(place, Ok(()));
        }
        let attempts = self.rules.bind_attempts;
        look_up(&self.handle, move || {
            let result = patiently(attempts, || place.look_up());
            QuorumMail::Moved { place, result }
        });
    }

    fn on_moved(&mut self, place: Place, result: Result<(), BindError>) {
        if self.moving_to.as_ref().is_none_or(|moving| moving.addresses != place.addresses) {
            // The configuration has changed again.
            return;
        }
        if let Err(error) = result {
            let hint = "the new configuration names this host; mend the name, then start again";
            fatal(ExitCode::Unexpected, &format!("{error}: {hint}"));
        }
        let leads = self.moving_to.take().is_some_and(|moving| moving.leads);
        let before = self.place.doors(|a| a.election_port);
        self.place = place;
        if self.place.doors(|a| a.election_port) != before {
            self.reopen_election_port();
        }
        if leads {
            self.listen(true);
        }
    }

    fn reopen_election_port(&mut self) {
        for mut door in self.election_doors.drain(..) {
            let _ = self.poll.registry().deregister(&mut door);
        }
        let doors = self.place.listen(|a| a.election_port).unwrap_or_else(|error| {
            let hint = "end the process that has it, then start again";
            fatal(
                ExitCode::Unexpected,
                &format!("{error}: the new configuration names this port for elections; {hint}"),
            )
        });
        for Listener { socket: mut door, address } in doors {
            log::info!("elections are held on {address} from now on");
            let token = Token(FIRST_ELECTION_DOOR - self.election_doors.len());
            self.poll.registry().register(&mut door, token, Interest::READABLE).expect("a new socket can be polled");
            self.election_doors.push(door);
        }
    }

    fn listen_for_observers(&mut self) {
        let Some(port) = self.rules.observer_master_port else { return };
        if let Err(error) = self.open_doors(|_| port) {
            log::error!("{error}: observers have to go elsewhere; change observerMasterPort, or free the port");
        } else {
            log::info!("taking observers on port {port}");
        }
    }

    /// Opens a port for learners.
    fn open_doors(&mut self, port: impl Fn(&PeerAddress) -> u16) -> Result<(), BindError> {
        for Listener { socket: mut door, .. } in self.place.listen(port)? {
            let token = Token(FIRST_QUORUM_DOOR - self.quorum_doors.len());
            self.poll.registry().register(&mut door, token, Interest::READABLE).expect("a new socket can be polled");
            self.quorum_doors.push(door);
        }
        Ok(())
    }

    fn tell_txnlog(&self, mail: ToTxnlog) {
        // The log ends the process when it fails, and else outlives this thread.
        let _ = self.neighbours.txnlog.send(mail);
    }

    fn log(&mut self, records: Vec<LogRecord>) {
        let Some(last) = records.last() else { return };
        let wall_ms = clock::wall_ms();
        for record in &records {
            let made_ms = TxnHeader::time_ms_in(&record.payload);
            metrics::PROPOSAL_LATENCY.record((wall_ms - made_ms).max(0));
            self.unsynced.push_back((record.zxid, made_ms));
        }
        must(self.epoch_files.announce(last.zxid));
        let then = vec![Mail::Quorum(ToQuorum::Durable { zxid: last.zxid })];
        self.tell_txnlog(ToTxnlog::Append { records, then, handed_us: clock::mono_us() });
    }

    fn read_log(&self, from: Zxid, to: Zxid) -> Option<Vec<LogRecord>> {
        let record_bytes_max = self.rules.recover.record_bytes_max;
        if !logdir::is_worth_reading(&self.rules.dirs, from, self.rules.snapshot_size_factor?) {
            return None;
        }
        match logdir::read_range(&self.rules.dirs, from, to, DIFF_BYTES_MAX, record_bytes_max) {
            Ok(records) => records,
            Err(error) => {
                log::warn!("{error}; a learner gets a snapshot instead");
                None
            }
        }
    }

    /// The log's thread cut the history, or found that it cannot.
    fn on_cut(&mut self, to: Zxid, possible: bool) {
        match self.replacing {
            Some(Replacing::Cutting { .. }) if !possible => {
                self.replacing = None;
                self.peer.on_truncated(Err(format!("{to} is not in this server's history")));
            }
            Some(Replacing::Cutting { to: wanted }) if wanted == to => {
                let options = RecoverOptions { as_of: Some(to), recent_max: 0, ..self.rules.recover };
                let recovered = recover(&self.rules.dirs, &options)
                    .unwrap_or_else(|error| fatal(error.exit_code(), &error.to_string()));
                self.replacing = Some(Replacing::SavingRest { to });
                self.to_pipeline.push(ToPipeline::Install { state: Box::new(recovered.state), durable: true });
            }
            Some(Replacing::CuttingAgain { to: wanted }) if wanted == to => {
                self.replacing = None;
                self.peer.on_truncated(Ok(to));
            }
            _ => log::error!("the log was cut to {to}, which nobody asked for"),
        }
    }

    /// A state that the pipeline was given is saved; or, at last, what came before it is removed.
    fn on_installed(&mut self, zxid: Zxid) {
        match self.replacing {
            Some(Replacing::SavingRest { to }) => {
                self.replacing = Some(Replacing::CuttingAgain { to });
                self.tell_txnlog(ToTxnlog::Truncate { to });
            }
            Some(Replacing::SavingReceived { zxid: received }) => {
                self.replacing = Some(Replacing::Finishing { zxid: received });
                let then = vec![Mail::Quorum(ToQuorum::Installed { zxid: received })];
                self.tell_txnlog(ToTxnlog::FinishInstall { zxid: received, then });
            }
            Some(Replacing::Finishing { .. }) => {
                self.replacing = None;
                self.peer.on_inner(ToQuorum::Installed { zxid });
            }
            _ => log::error!("a state as of {zxid} was saved, which nobody asked for"),
        }
    }
}

/// Nothing may be promised on an epoch that is not on disk.
fn must(written: Result<(), EpochError>) {
    if let Err(error) = written {
        fatal(ExitCode::DataDir, &format!("{error}; make room or mend the disk, then start again"));
    }
}

/// The next records until they are this many bytes.
fn take_bytes(records: &mut std::vec::IntoIter<LogRecord>, bytes_max: usize) -> Vec<LogRecord> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max
        && let Some(record) = records.next()
    {
        bytes += record.payload.len();
        taken.push(record);
    }
    taken
}

/// Runs what waits for a name server, and posts what comes of it.
fn look_up(handle: &QuorumHandle, find: impl FnOnce() -> QuorumMail + Send + 'static) {
    let to = handle.clone();
    if let Err(error) = std::thread::Builder::new().name("resolver".into()).spawn(move || to.post(find())) {
        log::warn!("no thread to look up a host's address: {error}");
    }
}

/// Tries again what fails: the server that has a port may be about to end, the name server may still come up. For ever if
/// `attempts_max` is 0.
pub fn patiently<T>(attempts_max: u32, mut attempt: impl FnMut() -> Result<T, BindError>) -> Result<T, BindError> {
    let mut attempts = 1;
    loop {
        match attempt() {
            Err(error) if attempts_max == 0 || attempts < attempts_max => {
                log::warn!("{error}; trying again");
                std::thread::sleep(BIND_PAUSE);
                attempts += 1;
            }
            result => return result,
        }
    }
}

fn accept(door: Option<&TcpListener>) -> Option<(mio::net::TcpStream, SocketAddr)> {
    loop {
        match door?.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                log::warn!("a connection of another server was not accepted: {error}");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str) -> Place {
        let address = PeerAddress { host: host.to_owned(), quorum_port: 0, election_port: 0 };
        Place { addresses: vec![address], on_all_ips: false, found: BTreeMap::new() }
    }

    #[test]
    fn a_large_batch_is_proposed_in_parts_and_in_order() {
        let record = |n| LogRecord { zxid: Zxid(n), payload: vec![0; 100] };
        let mut records = (1..=7).map(record).collect::<Vec<_>>().into_iter();
        let mut parts = Vec::new();
        while records.len() > 0 {
            let part = take_bytes(&mut records, 250);
            parts.push(part.iter().map(|record| record.zxid.0).collect::<Vec<_>>());
        }
        assert_eq!(parts, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    }

    #[test]
    fn own_hosts_are_looked_up_once() {
        let mut place = place("a.host.that.is.nowhere.invalid");
        assert!(place.look_up().is_err() && place.listen(|a| a.quorum_port).is_err());
        // The name server is asked no more, whoever opens a port.
        place.found.insert(place.addresses[0].host.clone(), SocketAddr::from(([127, 0, 0, 1], 1)));
        place.look_up().unwrap();
        for _ in 0..2 {
            assert_eq!(place.listen(|a| a.quorum_port).unwrap()[0].address.ip(), IpAddr::from([127, 0, 0, 1]));
        }
    }

    #[test]
    fn a_host_without_an_address_is_an_error_with_its_name() {
        let mut place = place("a.host.that.is.nowhere.invalid");
        let error = patiently(1, || place.look_up()).unwrap_err().to_string();
        assert!(error.contains("a.host.that.is.nowhere.invalid:0"), "{error}");
    }
}
