//! One connection between servers: bytes to and from the kernel, decoded by the port it is on.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::admin::view::LinkView;
use crate::quorum::notification::{ElectionDecoder, Hello, Notification};
use crate::quorum::packet::{From, Packet, PacketDecoder};
use crate::state::{State, StateRules};
use crate::storage::stream::{Progress, SnapshotReceiver};
use crate::sys::clock;
use crate::sys::net::prepare_client;

/// Bytes read of one link before others have their turn.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Packets handed over at once: many, so that a batch of proposals is one batch for the log.
const PACKETS_AT_ONCE: usize = 4096;
/// A queue that was once long gives its memory back.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// What a link carries, and how far its decoding is.
#[derive(Debug)]
pub enum Port {
    /// The election port, accepted: the other side says who it is.
    Nameless(ElectionDecoder),
    /// The election port: frames.
    Election(ElectionDecoder),
    /// The quorum port, accepted: a learner.
    Learner(PacketDecoder),
    /// The quorum port, dialled: the leader.
    Leader(PacketDecoder),
    /// The same, in the midst of a snapshot.
    Snapshot(PacketDecoder, Box<SnapshotReceiver>),
}

impl Port {
    /// An accepted connection of the election port.
    pub fn nameless() -> Port {
        Port::Nameless(ElectionDecoder::new())
    }

    /// A connection to another server's election port.
    pub fn known() -> Port {
        Port::Election(ElectionDecoder::new())
    }

    /// An accepted connection of the quorum port.
    pub fn learner(packet_bytes_max: usize) -> Port {
        Port::Learner(PacketDecoder::new(From::Learner, packet_bytes_max))
    }

    /// A connection to the leader.
    pub fn leader(packet_bytes_max: usize) -> Port {
        Port::Leader(PacketDecoder::new(From::Leader, packet_bytes_max))
    }
}

/// What came in.
#[derive(Debug)]
pub enum Heard {
    /// Nothing whole.
    Nothing,
    /// Who is there.
    Hello(Hello),
    /// A vote.
    Notification(Notification),
    /// Packets, in order.
    Packets(Vec<Packet>),
    /// The state that followed a SNAP.
    Snapshot(Box<State>),
}

/// The connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// Its other side.
    pub peer: SocketAddr,
    port: Port,
    /// When it must have said who it is.
    pub hello_by_ms: Option<i64>,
    /// The other side closed it: what was read is still to be heard.
    pub ended: bool,
    /// The state that a snapshot ended in.
    received: Option<Box<State>>,
    out: Vec<u8>,
    /// Bytes of `out` that the kernel has.
    sent: usize,
    /// Ends of snapshot pieces in `out`.
    pieces: VecDeque<usize>,
    pieces_sent: usize,
    /// The kernel takes more.
    writable: bool,
    /// Something was sent since it was last asked whether all is.
    unflushed: bool,
    buffer: Vec<u8>,
    /// For operators; what waits is not counted here.
    figures: LinkView,
}

impl Link {
    /// Over a connected socket.
    pub fn new(stream: TcpStream, peer: SocketAddr, port: Port, hello_by_ms: Option<i64>) -> Link {
        Link {
            stream,
            peer,
            port,
            hello_by_ms,
            ended: false,
            received: None,
            out: Vec::new(),
            sent: 0,
            pieces: VecDeque::new(),
            pieces_sent: 0,
            writable: true,
            unflushed: false,
            buffer: Vec::new(),
            figures: LinkView { peer: Some(peer), established_wall_ms: clock::wall_ms(), ..LinkView::default() },
        }
    }

    /// What operators may see of it.
    pub fn view(&self) -> LinkView {
        LinkView { queued_bytes: self.unsent() as u64, ..self.figures }
    }

    /// Packets are counted anew.
    pub fn reset_figures(&mut self) {
        let LinkView { peer, established_wall_ms, .. } = self.figures;
        self.figures = LinkView { peer, established_wall_ms, ..LinkView::default() };
    }

    /// Registers the socket with the poll.
    pub fn register(&mut self, registry: &Registry, token: Token, keepalive: bool) -> io::Result<()> {
        prepare_client(&self.stream, keepalive && self.is_election())?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        match registry.register(&mut self.stream, token, interest) {
            // It was registered while it was dialled.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                registry.reregister(&mut self.stream, token, interest)
            }
            result => result,
        }
    }

    /// On the election port.
    pub fn is_election(&self) -> bool {
        matches!(self.port, Port::Nameless(_) | Port::Election(_))
    }

    /// On the quorum port, with the leader at the other end.
    pub fn is_to_leader(&self) -> bool {
        matches!(self.port, Port::Leader(_) | Port::Snapshot(..))
    }

    /// It has not said who it is.
    pub fn is_nameless(&self) -> bool {
        matches!(self.port, Port::Nameless(_))
    }

    /// What the other side takes packets from this one for.
    fn from(&self) -> From {
        match self.port {
            Port::Learner(_) => From::Leader,
            _ => From::Learner,
        }
    }

    /// For the log.
    pub fn describe(&self) -> String {
        let (what, peer) = (
            match self.port {
                Port::Nameless(_) => "of a stranger on the election port,",
                Port::Election(_) => "of an election,",
                Port::Learner(_) => "of a learner,",
                Port::Leader(_) | Port::Snapshot(..) => "to the leader,",
            },
            self.peer,
        );
        format!("{what} {peer}")
    }

    // Out.

    /// Adds a packet.
    pub fn push(&mut self, packet: &Packet) {
        let from = self.from();
        packet.encode(from, &mut self.out);
        self.figures.sent += 1;
    }

    /// Adds bytes of the election port.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.unflushed = true;
    }

    /// Adds a piece of a snapshot.
    pub fn push_snapshot_piece(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.pieces.push_back(self.out.len());
    }

    /// Bytes that the kernel has not taken.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether there is something that the kernel may take now.
    pub fn can_send(&self) -> bool {
        self.writable && self.unsent() > 0
    }

    /// The kernel may take more.
    pub fn on_writable(&mut self) {
        self.writable = true;
    }

    /// Gives the kernel what it takes.
    pub fn send(&mut self) -> io::Result<()> {
        while self.can_send() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while self.pieces.pop_front_if(|end| *end <= self.sent).is_some() {
            self.pieces_sent += 1;
        }
        if self.sent == self.out.len() || self.sent > OUT_BYTES_KEPT {
            self.out.drain(..self.sent);
            self.pieces.iter_mut().for_each(|end| *end -= self.sent);
            self.sent = 0;
            if self.out.is_empty() {
                self.out.shrink_to(OUT_BYTES_KEPT);
            }
        }
        Ok(())
    }

    /// Snapshot pieces that the kernel took since the last call.
    pub fn take_snapshot_pieces_sent(&mut self) -> usize {
        std::mem::take(&mut self.pieces_sent)
    }

    /// True once after the kernel took everything of the election port.
    pub fn take_flushed(&mut self) -> bool {
        self.unsent() == 0 && std::mem::take(&mut self.unflushed)
    }

    // In.

    /// Reads what is there, up to a turn's worth. True: there may be more.
    pub fn read(&mut self) -> Result<bool, String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let mut total = 0;
        let result = loop {
            if self.ended || total >= READ_BYTES_PER_TURN {
                break Ok(!self.ended);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    total += n;
                    if let Err(why) = self.feed(&buffer[..n]) {
                        break Err(why);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error.to_string()),
            }
        };
        self.buffer = buffer;
        result
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.port {
            Port::Nameless(election) | Port::Election(election) => election.feed(bytes),
            Port::Learner(packets) | Port::Leader(packets) => packets.feed(bytes),
            Port::Snapshot(packets, receiver) => match receiver.feed(bytes).map_err(|error| error.to_string())? {
                Progress::More => {}
                Progress::Done { state, used } => {
                    packets.feed(&bytes[used..]);
                    self.received = Some(state);
                }
            },
        }
        Ok(())
    }

    /// The next thing that is whole, of what was read. `rules` are for a snapshot.
    pub fn hear(&mut self, rules: StateRules, entry_bytes_max: usize) -> Result<Heard, String> {
        match &mut self.port {
            Port::Nameless(election) => {
                let hello = election.next_hello().map_err(|error| error.to_string())?;
                let Some(hello) = hello else { return Ok(Heard::Nothing) };
                self.hello_by_ms = None;
                let decoder = std::mem::take(election);
                self.port = Port::Election(decoder);
                Ok(Heard::Hello(hello))
            }
            Port::Election(election) => match election.next_frame().map_err(|error| error.to_string())? {
                None => Ok(Heard::Nothing),
                Some(frame) => match Notification::decode(&frame) {
                    Ok(notification) => Ok(Heard::Notification(notification)),
                    Err(error) => {
                        log::warn!("a notification from {} is passed over: {error}", self.peer);
                        self.hear(rules, entry_bytes_max)
                    }
                },
            },
            Port::Learner(packets) => {
                let mut heard = Vec::new();
                while heard.len() < PACKETS_AT_ONCE
                    && let Some(packet) = packets.next_packet().map_err(|error| error.to_string())?
                {
                    self.figures.received += 1;
                    self.figures.requests += u64::from(matches!(packet, Packet::Request(_)));
                    heard.push(packet);
                }
                Ok(if heard.is_empty() { Heard::Nothing } else { Heard::Packets(heard) })
            }
            Port::Leader(packets) => {
                let mut heard = Vec::new();
                while heard.len() < PACKETS_AT_ONCE
                    && let Some(packet) = packets.next_packet().map_err(|error| error.to_string())?
                {
                    let begins = match packet {
                        Packet::Snap { zxid } => Some(zxid),
                        _ => None,
                    };
                    heard.push(packet);
                    if let Some(zxid) = begins {
                        let rest = packets.take_rest();
                        let packets = std::mem::replace(packets, PacketDecoder::new(From::Leader, 0));
                        let receiver = SnapshotReceiver::new(rules, zxid, entry_bytes_max);
                        self.port = Port::Snapshot(packets, Box::new(receiver));
                        self.feed(&rest)?;
                        break;
                    }
                }
                Ok(if heard.is_empty() { Heard::Nothing } else { Heard::Packets(heard) })
            }
            Port::Snapshot(packets, _) => match self.received.take() {
                None => Ok(Heard::Nothing),
                Some(state) => {
                    let packets = std::mem::replace(packets, PacketDecoder::new(From::Leader, 0));
                    self.port = Port::Leader(packets);
                    Ok(Heard::Snapshot(state))
                }
            },
        }
    }
}
