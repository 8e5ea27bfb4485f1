//! The quorum thread: owns every socket between servers, on the election port and on the quorum port, and carries out
//! what [`Peer`] wants, in its order. Waits in its poll; the disk makes it wait for the epoch files (a millisecond, and
//! only around elections), for a learner's part of the log, and while a truncated history is read again.

mod dial;
mod link;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::admin::view::QuorumView;
use crate::config::ensemble::{HostPort, PeerAddress};
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, Mail, ToPipeline, ToPoller, ToQuorum, ToTxnlog};
use crate::metrics;
use crate::quorum::peer::{Peer, PeerStart};
use crate::quorum::voters::Configs;
use crate::quorum::{Effect, LinkId};
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::{EpochError, EpochFiles};
use crate::storage::logdir;
use crate::storage::recover::{RecoverOptions, recover};
use crate::sys::clock;
use crate::sys::exit::{ExitCode, fatal};
use crate::sys::net::{BindError, Listener, bind};
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::poller::PollerHandle;
use crate::txn::TxnHeader;

pub use dial::resolve;
use dial::{Dials, Whom};
use link::{Heard, Link, Port};

const WAKER: Token = Token(usize::MAX);
/// Listener n of the election port has the token `FIRST_ELECTION_DOOR - n`, of the ports for learners
/// `FIRST_QUORUM_DOOR - n`.
const FIRST_ELECTION_DOOR: usize = usize::MAX - 1;
const FIRST_QUORUM_DOOR: usize = usize::MAX / 2;
/// More addresses than a server has.
const DOORS_MAX: usize = 1 << 16;
const EVENTS_PER_TURN: usize = 256;
/// Connections of strangers, on both ports together, that have not said who they are.
const NAMELESS_MAX: usize = 256;
/// Bytes that wait for a learner before it counts as one that does not read.
const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Bytes of log that a learner is brought up to date with; more is told as a snapshot.
const DIFF_BYTES_MAX: usize = 64 << 20;

/// Mail of this thread.
#[derive(Debug)]
pub enum QuorumMail {
    /// From another thread of the server.
    Inner(ToQuorum),
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
    /// Where this server is, by its configuration.
    pub place: Place,
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
#[derive(Debug)]
pub struct Place {
    /// Its own lines.
    pub addresses: Vec<PeerAddress>,
    /// Where its clients connect.
    pub client: Option<HostPort>,
    /// `quorumListenOnAllIPs`: whatever the host is.
    pub on_all_ips: bool,
}

impl Place {
    /// The sockets of one of the two ports.
    pub fn listen_addresses(&self, port: fn(&PeerAddress) -> u16) -> Vec<SocketAddr> {
        if self.on_all_ips {
            return self.addresses.iter().map(|address| any_address(port(address))).collect();
        }
        let targets: Vec<(String, u16)> = self.addresses.iter().map(|a| (a.host.clone(), port(a))).collect();
        resolve(&targets)
    }
}

impl Place {
    /// Where observers are taken: on the hosts of the quorum port.
    fn observer_addresses(&self, port: u16) -> Vec<SocketAddr> {
        let quorum = self.listen_addresses(|a| a.quorum_port);
        let mut addresses: Vec<SocketAddr> = quorum.iter().map(|a| SocketAddr::new(a.ip(), port)).collect();
        addresses.dedup();
        addresses
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
            };
            let dials = Dials::new(handle, config.dial_timeout_ms);
            Quorum {
                poll,
                inbox,
                peer: Peer::new(start, clock::mono_us() / 1000),
                epoch_files: config.epoch_files,
                config_files: config.config_files,
                my_id,
                place: config.place,
                rules,
                neighbours,
                election_doors,
                quorum_doors: Vec::new(),
                links: BTreeMap::new(),
                next_link: 0,
                dials,
                restless: Vec::new(),
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

struct Quorum {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    peer: Peer,
    epoch_files: EpochFiles,
    config_files: ConfigFiles,
    my_id: ServerId,
    place: Place,
    rules: Fixed,
    neighbours: Neighbours,
    election_doors: Vec<TcpListener>,
    quorum_doors: Vec<TcpListener>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    dials: Dials,
    /// Links with bytes to read or to send that no event will tell of again.
    restless: Vec<LinkId>,
    /// The link to the leader, while this server has enough to do with what it was sent.
    held: Option<LinkId>,
    /// For the pipeline, at the end of the turn.
    to_pipeline: Vec<ToPipeline>,
    replacing: Option<Replacing>,
    /// Records of a leader that the log was given, and when the leader made them by its wall clock: for the metrics.
    unsynced: VecDeque<(Zxid, i64)>,
    now_ms: i64,
    stopped: bool,
}

impl Quorum {
    fn run(mut self) {
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
            while let Some(mail) = self.inbox.next() {
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
        let sleeps = self.inbox.may_sleep() && self.restless.is_empty();
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

    fn on_mail(&mut self, mail: QuorumMail) {
        match mail {
            QuorumMail::Resolved { dial, addresses } => {
                if let Some(failed) = self.dials.on_resolved(dial, &addresses, self.poll.registry(), self.now_ms) {
                    self.dial_failed(failed);
                }
            }
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
            _ if Dials::has(token) => match self.dials.on_event(token, event) {
                dial::Outcome::Pending => {}
                dial::Outcome::Failed(whom) => self.dial_failed(whom),
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
            self.admit(Link::new(stream, peer, Port::nameless(), Some(by_ms)));
        }
    }

    fn accept_learners(&mut self, door: usize) {
        while let Some((stream, peer)) = accept(self.quorum_doors.get(door)) {
            let port = Port::learner(self.rules.packet_bytes_max);
            if let Some(link) = self.admit(Link::new(stream, peer, port, None)) {
                self.peer.on_learner_connected(link);
                self.carry_out();
            }
        }
    }

    /// Takes a new connection in, unless there are too many of strangers.
    fn admit(&mut self, mut link: Link) -> Option<LinkId> {
        if self.links.values().filter(|link| link.is_nameless()).count() >= NAMELESS_MAX {
            log::warn!("connection from {} refused: {NAMELESS_MAX} others have not said who they are", link.peer);
            return None;
        }
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
                    None => self.peer.on_leader_unreachable(),
                }
            }
            Whom::Election(server) => match self.admit(Link::new(stream, address, Port::known(), None)) {
                Some(link) => self.peer.on_election_dialed(link, server),
                None => self.peer.on_election_undialed(server),
            },
        }
    }

    fn dial_failed(&mut self, whom: Whom) {
        match whom {
            Whom::Leader => self.peer.on_leader_unreachable(),
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
        let more = match link.read() {
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
        let waiting: Vec<LinkId> = self.links.iter().filter(|(_, link)| link.can_send()).map(|(id, _)| *id).collect();
        for link in waiting {
            self.send(link);
        }
        self.carry_out();
        if !self.to_pipeline.is_empty() {
            // After its end nobody waits for this.
            let _ = self.neighbours.pipeline.send(std::mem::take(&mut self.to_pipeline));
        }
    }

    fn send(&mut self, id: LinkId) {
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
        let Some(link) = self.links.remove(&id) else { return };
        log::info!("connection {} ended: {why}", link.describe());
        if link.is_election() {
            self.peer.on_election_closed(id);
        } else {
            self.peer.on_link_closed(id);
        }
        self.carry_out();
    }

    // Effects.

    fn carry_out(&mut self) {
        loop {
            let effects = self.peer.take_effects();
            if effects.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out_one(effect));
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { link, packet } => {
                if let Some(to) = self.links.get_mut(&link) {
                    to.push(&packet);
                    self.check_backlog(link);
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
                    log::info!("closed {}: {why}", link.describe());
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
                log::info!("left the role: {why}");
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
            Effect::Fatal(message) => fatal(ExitCode::Unexpected, &message),
        }
    }

    fn check_backlog(&mut self, id: LinkId) {
        if self.links.get(&id).is_some_and(|link| link.unsent() > UNSENT_BYTES_MAX) {
            self.lose(id, "it does not read what it is sent");
        }
    }

    fn listen(&mut self, open: bool) {
        if !open {
            for mut door in self.quorum_doors.drain(..) {
                let _ = self.poll.registry().deregister(&mut door);
            }
            return;
        }
        for address in self.place.listen_addresses(|a| a.quorum_port) {
            if let Err(error) = self.open_door(address) {
                fatal(
                    ExitCode::Unexpected,
                    &format!(
                        "{error}: this server was elected and cannot lead without its quorum port; end the process that has the port, or change this server's line in the configuration"
                    ),
                );
            }
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
        if self.place.client.as_ref() == Some(&client) {
            return;
        }
        let same_port = self.place.client.as_ref().is_some_and(|place| place.port == client.port);
        let was_everywhere = self.place.client.as_ref().and_then(|place| place.host.parse().ok());
        if !(same_port && was_everywhere.is_some_and(|ip: IpAddr| ip.is_unspecified())) {
            match resolve(&[(client.host.clone(), client.port)]).first() {
                Some(&address) => {
                    self.neighbours.poller.post(ToPoller { listen: Some(address), ..ToPoller::default() });
                }
                None => log::error!("clients are to connect to {client}, which does not resolve; nothing changes"),
            }
        }
        self.place.client = Some(client);
    }

    /// The election port opens where the configuration says; the quorum port does when this server leads again.
    fn move_to(&mut self, addresses: &[PeerAddress]) {
        if addresses.is_empty() || addresses == self.place.addresses {
            return;
        }
        let before = self.place.listen_addresses(|a| a.election_port);
        self.place.addresses = addresses.to_vec();
        let now = self.place.listen_addresses(|a| a.election_port);
        if now == before {
            return;
        }
        for mut door in self.election_doors.drain(..) {
            let _ = self.poll.registry().deregister(&mut door);
        }
        for address in now {
            let mut door = match bind(address, -1) {
                Ok(listener) => listener.socket,
                Err(error) => fatal(
                    ExitCode::Unexpected,
                    &format!(
                        "{error}: the new configuration names this port for elections; end the process that has it, then start again"
                    ),
                ),
            };
            log::info!("elections are held on {address} from now on");
            let token = Token(FIRST_ELECTION_DOOR - self.election_doors.len());
            self.poll.registry().register(&mut door, token, Interest::READABLE).expect("a new socket can be polled");
            self.election_doors.push(door);
        }
    }

    fn listen_for_observers(&mut self) {
        for address in
            self.rules.observer_master_port.map(|port| self.place.observer_addresses(port)).unwrap_or_default()
        {
            match self.open_door(address) {
                Ok(()) => log::info!("taking observers on {address}"),
                Err(error) => {
                    log::error!("{error}: observers have to go elsewhere; change observerMasterPort, or free the port");
                }
            }
        }
    }

    /// Opens a port for learners.
    fn open_door(&mut self, address: SocketAddr) -> Result<(), BindError> {
        let mut door = bind(address, -1)?.socket;
        let token = Token(FIRST_QUORUM_DOOR - self.quorum_doors.len());
        self.poll.registry().register(&mut door, token, Interest::READABLE).expect("a new socket can be polled");
        self.quorum_doors.push(door);
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

/// The address to listen on when it is to be all of them.
fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}
