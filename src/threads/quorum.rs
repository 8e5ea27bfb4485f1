//! The quorum thread: owns every socket between servers, on the election port and on the quorum port, and carries out
//! what [`Peer`] wants, in its order. Waits in its poll; the disk makes it wait for small files only, those of the epochs and
//! the members (a millisecond, and only around elections and reconfigurations).
//!
//! `doors` are what it listens on, `dial` is how it connects; `link` is one connection, `inbound` what is heard on it,
//! `links` are all of them, `callers` what the log says of those who came; `disk` writes, and has the log's
//! thread write; `reader` reads. Here is the turn of its loop, and who is told what.

mod callers;
mod dial;
mod disk;
mod doors;
pub mod inbound;
mod link;
mod links;
mod reader;

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::admin::view::QuorumView;
use crate::config::ensemble::HostPort;
use crate::ids::Zxid;
use crate::mail::{Dropped, Heartbeat, LogRecord, News, ToPipeline, ToQuorum, ToTxnlog};
use crate::quorum::packet::Packet;
use crate::quorum::peer::{Peer, PeerStart};
use crate::quorum::replacement::{Replacement, Step};
use crate::quorum::{Effect, LinkId};
use crate::sys::clock;
use crate::sys::net::Listener;
use crate::sys::priority;
use crate::threads::mailbox::{Handle, Inbox, mailbox};
use crate::threads::poller::PollerHandle;

use callers::{About, Caller, Callers, and_more};
use dial::{Dials, Failed, Whom};
use disk::Disk;
use doors::{Accepted, Doors};
use inbound::{Heard, Port};
use link::Link;
use links::{Links, Room};
use reader::{Read, Reader};

pub use disk::Store;
pub use doors::{DoorError, LineSource, Place, patiently};
pub use links::{LinkRules, UNANSWERED_MS_MIN};
pub use reader::ReadRules;

const WAKER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 256;
/// Mail of other threads that is read before the sockets have their turn.
const MAIL_PER_TURN: usize = 16;
/// Bytes of transactions that are proposed at once: with more, the first would wait until the last is ready for everybody.
const PROPOSED_BYTES_AT_ONCE: usize = 256 << 10;

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
        result: Result<(), DoorError>,
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
        let (poller, registry) = (neighbours.poller, poll.registry().try_clone()?);
        let doors = Doors::new(&config, election, registry.try_clone()?, handle.clone(), poller)?;
        let to_quorum = handle.clone();
        let reader = Reader::start(
            config.reads,
            move |read| to_quorum.post(QuorumMail::Read(read)),
            neighbours.pipeline.clone(),
        )?;
        let body = move || {
            Quorum {
                poll,
                inbox,
                peer: Peer::new(config.start, clock::mono_us() / 1000),
                disk: Disk::new(config.store, neighbours.txnlog),
                reader,
                replacement: Replacement::default(),
                pipeline: neighbours.pipeline,
                doors,
                dials: Dials::new(handle, config.dial_timeout_ms),
                links: Links::new(config.links, registry),
                callers: Callers::default(),
                held: None,
                unproposed: Vec::new().into_iter(),
                to_pipeline: Vec::new(),
                now_ms: 0,
                stopped: false,
            }
            .run();
        };
        std::thread::Builder::new().name("quorum".into()).spawn(body)
    }
}

struct Quorum {
    poll: Poll,
    inbox: Inbox<QuorumMail>,
    peer: Peer,
    disk: Disk,
    reader: Reader,
    replacement: Replacement,
    pipeline: Sender<Vec<ToPipeline>>,
    doors: Doors,
    dials: Dials,
    links: Links,
    callers: Callers,
    /// The link to the leader, while this server has enough to do with what it was sent.
    held: Option<LinkId>,
    /// The rest of a large batch that the pipeline proposes.
    unproposed: std::vec::IntoIter<LogRecord>,
    /// For the pipeline, at the end of the turn, or before something is sent.
    to_pipeline: Vec<ToPipeline>,
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
            if self.peer.wants_packets()
                && let Some(link) = self.held.take()
            {
                self.links.wake(link);
            }
            self.wait(&mut events);
            self.now_ms = clock::mono_us() / 1000;
            self.peer.set_time(self.now_ms);
            for event in &events {
                self.on_event(event);
                self.carry_out();
            }
            for link in self.links.take_restless() {
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
            self.links.publish();
        }
    }

    fn wait(&mut self, events: &mut Events) {
        events.clear();
        let sleeps = self.inbox.may_sleep() && !self.links.are_restless() && self.unproposed.len() == 0;
        let until_ms = self.peer.next_deadline_ms().min(self.dials.next_deadline_ms()).min(self.links.next_hello_ms());
        let wait_ms = if sleeps { (until_ms - clock::mono_us() / 1000).clamp(0, 60_000) } else { 0 };
        match self.poll.poll(events, Some(Duration::from_millis(wait_ms.unsigned_abs()))) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => panic!("epoll_wait cannot fail on a descriptor of ours: {error}"),
        }
        self.inbox.wake_up();
    }

    fn on_time(&mut self) {
        self.peer.tick();
        for dial in self.dials.overdue(self.now_ms) {
            self.dial_failed(dial);
        }
        for link in self.links.late(self.now_ms) {
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
                self.reader.beat(heartbeat, News::Epoch(i64::from(self.disk.current_epoch())));
            }
            QuorumMail::Read(Read::Part { link, part }) => {
                self.peer.on_log_read(link, part);
                self.reader.on_part(|link| self.links.get(link).is_some());
            }
            QuorumMail::Read(Read::Back(records)) => self.peer.on_read_back(records),
            QuorumMail::Resolved { dial, addresses } => {
                if let Some(failed) = self.dials.on_resolved(dial, &addresses, self.poll.registry(), self.now_ms) {
                    self.dial_failed(failed);
                }
            }
            QuorumMail::Moved { place, result } => self.doors.on_moved(place, result),
            QuorumMail::ClientsMoved { to, address } => self.doors.on_clients_moved(&to, address),
            QuorumMail::View { to, resets_links } => {
                if resets_links {
                    self.links.reset_figures();
                }
                let on_link = |link| self.links.get(link).map(Link::view).unwrap_or_default();
                // Whoever asked may have given up.
                let _ = to.send(self.peer.view(&on_link));
            }
            QuorumMail::Inner(ToQuorum::Truncated { to, possible }) => {
                let step = self.replacement.on_cut(to, possible);
                self.on_step(step);
            }
            QuorumMail::Inner(ToQuorum::Forgotten) => match self.replacement.on_forgotten() {
                None => self.peer.on_inner(ToQuorum::Forgotten),
                step => self.on_step(step),
            },
            QuorumMail::Inner(ToQuorum::Installed { zxid }) => {
                let step = self.replacement.on_installed(zxid);
                self.on_step(step);
            }
            QuorumMail::Inner(mail) => {
                if let ToQuorum::Durable { zxid, .. } = mail {
                    self.disk.count_acks(zxid);
                }
                self.stopped |= matches!(mail, ToQuorum::Stop);
                self.peer.on_inner(mail);
            }
        }
    }

    /// The replacement of this server's history goes on.
    fn on_step(&mut self, step: Option<Step>) {
        match step {
            None => {}
            Some(Step::Cut { to, dropped }) => self.disk.cut(to, dropped),
            Some(Step::Forget) => self.to_pipeline.push(ToPipeline::Forget),
            Some(Step::ReadAgain { to }) => self.reader.read_state(to),
            Some(Step::Finish { zxid }) => self.disk.finish_install(zxid),
            Some(Step::Truncated(result)) => self.peer.on_truncated(result),
            Some(Step::Installed(zxid)) => self.peer.on_inner(ToQuorum::Installed { zxid }),
        }
    }

    // Sockets.

    fn on_event(&mut self, event: &Event) {
        let Token(token) = event.token();
        match token {
            _ if event.token() == WAKER => {}
            _ if Doors::has(token) => self.accept(token),
            _ if Dials::has(token) => match self.dials.on_event(token, event, self.now_ms) {
                dial::Outcome::Pending => {}
                dial::Outcome::Failed(failed) => self.dial_failed(failed),
                dial::Outcome::Connected(whom, stream, address) => self.dialed(whom, stream, address),
            },
            _ => {
                let id = LinkId(token as u64);
                if let Some(link) = self.links.get_mut(id).filter(|_| event.is_writable()) {
                    link.on_writable();
                }
                self.serve(id);
            }
        }
    }

    fn accept(&mut self, door: usize) {
        while let Some(accepted) = self.doors.accept(door, self.now_ms) {
            match accepted {
                Accepted::Election(stream, peer) => {
                    let by_ms = self.now_ms + self.links.rules.hello_timeout_ms;
                    self.admit_stranger(Link::new(stream, peer, Port::nameless(), Some(by_ms)));
                }
                Accepted::Learner(stream, peer) => {
                    let port = Port::learner(self.links.rules.packet_bytes_max);
                    if let Some(link) = self.admit_stranger(Link::new(stream, peer, port, None)) {
                        self.peer.on_learner_connected(link);
                        self.carry_out();
                    }
                }
            }
        }
    }

    /// Takes in a connection that was accepted, if there is room.
    fn admit_stranger(&mut self, link: Link) -> Option<LinkId> {
        match self.links.room_for(&link, self.now_ms) {
            Room::Enough => {}
            Room::None => return None,
            Room::Of(oldest) => {
                // Its first words may be here already, if many came at once.
                self.serve(oldest);
                if self.links.get(oldest).is_some_and(Link::is_silent) {
                    // Told with the want of room, once for many.
                    self.let_go(oldest, "it was silent, and others came", log::Level::Debug);
                    self.carry_out();
                }
            }
        }
        self.links.admit(link)
    }

    fn dialed(&mut self, whom: Whom, stream: mio::net::TcpStream, address: SocketAddr) {
        match whom {
            Whom::Master(_) => {
                let rules = self.links.rules;
                let port = Port::leader(rules.packet_bytes_max, rules.state);
                match self.links.admit(Link::new(stream, address, port, None)) {
                    Some(link) => self.peer.on_leader_connected(link),
                    None => self.peer.on_leader_unreachable("its socket cannot be used"),
                }
            }
            Whom::Election(server) => match self.links.admit(Link::new(stream, address, Port::known(), None)) {
                Some(link) => self.peer.on_election_dialed(link, server),
                None => self.peer.on_election_undialed(server),
            },
        }
    }

    fn dial_failed(&mut self, (whom, why): Failed) {
        match whom {
            Whom::Master(_) => self.peer.on_leader_unreachable(&why),
            Whom::Election(server) => self.peer.on_election_undialed(server),
        }
    }

    /// Reads what is there, up to a turn's worth, and tells the core.
    fn serve(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id) else { return };
        let (is_to_leader, caller, peer) = (link.is_to_leader(), link.caller(), link.peer);
        if is_to_leader && !self.peer.wants_packets() {
            // The kernel holds them, and then the leader does.
            self.held = Some(id);
            return;
        }
        if let Some(Err(why)) = self.links.read(id) {
            return self.lose(id, &why);
        }
        if self.links.get_mut(id).is_some_and(Link::take_heard) {
            self.peer.on_heard(id);
        }
        while let Some(heard) = self.links.hear(id) {
            self.note_name(id, &heard);
            match heard {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Hello(hello)) => self.peer.on_election_hello(id, &hello),
                Ok(Heard::Notification(notification)) => self.peer.on_notification(id, &notification),
                Ok(Heard::Malformed(why)) => self.tell(caller, About::Malformed, log::Level::Warn, || {
                    format!("a notification from {peer} is passed over: {why}")
                }),
                Ok(Heard::Packets(packets)) => self.peer.on_packets(id, packets),
                Ok(Heard::Snapshot(state)) => self.peer.on_snapshot(state),
                Err(why) => return self.lose(id, &why),
            }
            self.carry_out();
        }
        match self.links.get(id) {
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
        if let Some(server) = server.filter(|server| self.peer.is_member(*server))
            && let Some(link) = self.links.get_mut(id)
        {
            link.member = Some(server);
        }
    }

    /// One line about a connection, unless there were enough of them.
    fn tell(&mut self, caller: Caller, about: About, level: log::Level, text: impl FnOnce() -> String) {
        if let Some(others) = self.callers.pass(caller, about, self.now_ms) {
            log::log!(level, "{}{}", text(), and_more(others));
        }
    }

    /// Everything that waits goes to the kernel as far as it takes it.
    fn flush(&mut self) {
        for link in self.links.with_output() {
            self.send(link);
        }
        self.carry_out();
        self.tell_pipeline();
    }

    fn tell_pipeline(&mut self) {
        if !self.to_pipeline.is_empty() {
            // After its end nobody waits for this.
            let _ = self.pipeline.send(std::mem::take(&mut self.to_pipeline));
        }
    }

    /// The pipeline hears of a commit before anybody else does: who was told of it elsewhere, and syncs and reads here,
    /// finds it.
    fn send(&mut self, id: LinkId) {
        self.tell_pipeline();
        let Some(link) = self.links.get_mut(id) else { return };
        if let Err(error) = link.send() {
            return self.lose(id, &error.to_string());
        }
        let (pieces_sent, flushed) = (link.take_snapshot_pieces_sent(), link.take_flushed());
        for _ in 0..pieces_sent {
            self.peer.on_snapshot_sent(id);
        }
        if flushed {
            self.peer.on_election_flushed(id);
        }
    }

    /// The link is broken, or its other side is wrong: the core hears of it.
    fn lose(&mut self, id: LinkId, why: &str) {
        self.let_go(id, why, log::Level::Info);
        self.carry_out();
    }

    fn let_go(&mut self, id: LinkId, why: &str, level: log::Level) {
        let Some(link) = self.links.remove(id) else { return };
        let about = if level == log::Level::Warn { About::Dropped } else { About::Ended };
        self.tell(link.caller(), about, level, || format!("connection {} ended: {why}", link.describe()));
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
            let nothing = effects.is_empty();
            effects.into_iter().for_each(|effect| self.carry_out_one(effect));
            let broken = self.links.take_broken();
            if nothing && broken.is_empty() {
                return;
            }
            for (link, why) in broken {
                self.let_go(link, &why, log::Level::Warn);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { link, packet } => {
                if let Some(to) = self.links.get_mut(link) {
                    to.push(&packet);
                    self.links.relieve(link, |link| self.peer.standing(link));
                }
            }
            Effect::SendSnapshot { link, bytes } => {
                if let Some(to) = self.links.get_mut(link) {
                    to.push_snapshot_piece(&bytes);
                }
            }
            Effect::SendElection { link, bytes } => {
                if let Some(to) = self.links.get_mut(link) {
                    to.push_bytes(&bytes);
                }
            }
            Effect::Close { link, why } => {
                if let Some(mut link) = self.links.remove(link) {
                    // What was said before may be the reason that the other side needs.
                    let _ = link.send();
                    self.tell(link.caller(), About::Closed, log::Level::Info, || {
                        format!("closed the connection {}: {why}", link.describe())
                    });
                }
            }
            Effect::DialLeader { master, addresses } => {
                let targets = addresses.iter().map(|a| (a.host.clone(), a.quorum_port)).collect();
                self.dials.begin(Whom::Master(master), true, targets, self.now_ms);
            }
            Effect::DialElection { server, addresses } => {
                let targets = addresses.iter().map(|a| (a.host.clone(), a.election_port)).collect();
                self.dials.begin(Whom::Election(server), self.peer.is_member(server), targets, self.now_ms);
            }
            Effect::Alarm(what) => log::error!("{what}"),
            Effect::Warn { link, what } => {
                if let Some((caller, peer)) = self.links.get(link).map(|link| (link.caller(), link.peer)) {
                    self.tell(caller, About::Unlisted, log::Level::Warn, || format!("{what} (it is at {peer})"));
                }
            }
            Effect::Listen(open) => self.doors.listen(open),
            Effect::ListenForObservers => self.doors.listen_for_observers(),
            Effect::LeaveRole { why } => {
                log::warn!("left the role: {why}");
                self.links.leave_role();
                self.dials.forget_leader();
                self.reader.forget_parts();
                self.doors.listen(false);
            }
            Effect::SetAcceptedEpoch(epoch) => self.disk.set_accepted_epoch(epoch),
            Effect::SetCurrentEpoch(epoch) => self.disk.set_current_epoch(epoch),
            Effect::SetBackEpoch(epoch) => self.disk.set_back_epoch(epoch),
            Effect::MarkWrongJoin(wrong) => self.disk.mark_wrong_join(wrong.as_ref()),
            Effect::KeepForeigners(foreigners) => self.disk.keep_foreigners(&foreigners),
            Effect::SaveConfigs(configs) => {
                self.disk.save_configs(&configs);
                self.doors.move_to(&configs.committed);
            }
            Effect::Log(records) => self.disk.log(records),
            Effect::Truncate { to, dropped } => {
                log::info!("{}", truncation(to, dropped));
                self.replacement.begin_truncation(to, dropped);
                self.reader.forget();
                self.disk.cut(to, dropped);
            }
            Effect::Install { state, dropped } => {
                self.replacement.begin_installation(state.last_zxid());
                self.reader.forget();
                self.disk.prepare_install(state, dropped);
            }
            Effect::ReadLog { link, from, to } => self.reader.read_part(link, from, to),
            Effect::ReadBack { from, to } => self.reader.read_back(from, to),
            Effect::Pipeline(mail) => self.to_pipeline.push(mail),
        }
    }
}

/// Why the log is truncated.
fn truncation(to: Zxid, dropped: Dropped) -> String {
    match dropped {
        Dropped::Contained => format!("this server's history up to {to} is read again"),
        Dropped::Tail | Dropped::Unproven => {
            format!("the leader's history is this server's up to {to}: the log is truncated to it")
        }
        Dropped::Foreign => {
            format!(
                "this server's own history ends at {to}: the log is truncated to it, as it was before it followed a leader with another one"
            )
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
