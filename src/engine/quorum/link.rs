//! One connection between servers: bytes to and from the kernel; what they say is `inbound`'s.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::callers::Caller;
use super::inbound::{Heard, Port};
use super::links::LinkRules;
use super::pipeline_batch::PipelineTold;
use crate::admin::view::LinkView;
use crate::ids::ServerId;
use crate::quorum::packet::{From, Packet};

/// Bytes read of one link before others have their turn.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// Bytes of one read.
pub const READ_BYTES: usize = 64 << 10;
/// [`LinkRules::block_bytes`] of a host.
pub const BLOCK_BYTES: usize = 256 << 10;
/// A queue that was once long gives its memory back.
const OUT_BYTES_KEPT: usize = 64 << 10;

/// A connected socket, which never waits: what cannot be read or written now is [`io::ErrorKind::WouldBlock`].
pub trait Socket: Read + Write {
    /// Its number among all open files.
    fn descriptor(&self) -> u64;
}

/// The connection.
#[derive(Debug)]
pub struct Link<S> {
    /// Its bytes go through this.
    pub(super) socket: S,
    /// Its other side.
    pub peer: SocketAddr,
    /// It came by itself.
    is_accepted: bool,
    /// The member that it says it is.
    pub member: Option<ServerId>,
    port: Port,
    /// When it must have said who it is.
    pub hello_by_ms: Option<i64>,
    /// The other side closed it: what was read is still to be heard.
    pub ended: bool,
    /// It is about to be closed: nothing is kept for it any more.
    is_closing: bool,
    /// Something whole was heard of it.
    spoke: bool,
    /// Bytes came since that was asked last.
    heard: bool,
    out: Outbound,
    /// Where snapshot pieces end, in bytes of the whole stream.
    pieces: VecDeque<u64>,
    pieces_sent: usize,
    /// The kernel takes more.
    writable: bool,
    /// Something was sent since it was last asked whether all is.
    unflushed: bool,
    /// For operators; what waits is not counted here.
    figures: LinkView,
}

/// Bytes that wait for the kernel, in blocks: many small packets are one call, and what is sent gives its memory back.
#[derive(Debug, Default)]
struct Outbound {
    /// As in [`LinkRules`].
    block_bytes: usize,
    blocks: VecDeque<Vec<u8>>,
    /// Bytes of the first block that the kernel has.
    sent: usize,
    /// Bytes of the whole stream, up to the end of the last block and up to what the kernel has.
    queued_total: u64,
    sent_total: u64,
    /// Requests of clients, which wait until little else does: acknowledgements and pings pass by them.
    requests: VecDeque<Vec<u8>>,
    requests_bytes: usize,
}

impl Outbound {
    /// Adds what is written to the block that is filled now.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.blocks.back().is_none_or(|block| block.len() >= self.block_bytes) {
            self.blocks.push_back(Vec::new());
        }
        let block = self.blocks.back_mut().expect("there is one now");
        let before = block.len();
        write(block);
        self.queued_total += (block.len() - before) as u64;
    }

    /// Adds a request behind the others.
    fn write_request(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.requests.is_empty() && self.in_blocks() < self.block_bytes {
            return self.write(write);
        }
        let mut request = Vec::new();
        write(&mut request);
        self.requests_bytes += request.len();
        self.requests.push_back(request);
    }

    fn in_blocks(&self) -> usize {
        (self.queued_total - self.sent_total) as usize
    }

    /// Bytes that the kernel has not taken.
    fn unsent(&self) -> usize {
        self.in_blocks() + self.requests_bytes
    }

    /// The next bytes for the kernel.
    fn front(&self) -> &[u8] {
        self.blocks.front().map_or(&[], |block| &block[self.sent..])
    }

    /// The kernel took these.
    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        self.sent_total += bytes as u64;
        if let Some(mut front) = self.blocks.pop_front_if(|front| self.sent >= front.len()) {
            self.sent = 0;
            if self.blocks.is_empty() {
                // The next packet has room at once.
                front.clear();
                front.shrink_to(OUT_BYTES_KEPT);
                self.blocks.push_back(front);
            }
        }
        while self.in_blocks() < self.block_bytes
            && let Some(request) = self.requests.pop_front()
        {
            self.requests_bytes -= request.len();
            self.write(|block| block.extend_from_slice(&request));
        }
    }
}

impl<S: Socket> Link<S> {
    /// Over a connected socket.
    pub fn new(
        socket: S,
        peer: SocketAddr,
        port: Port,
        hello_by_ms: Option<i64>,
        rules: &LinkRules,
        wall_ms: i64,
    ) -> Link<S> {
        Link {
            socket,
            peer,
            is_accepted: matches!(port, Port::Nameless(_) | Port::Learner(_)),
            member: None,
            port,
            hello_by_ms,
            ended: false,
            is_closing: false,
            spoke: false,
            heard: false,
            out: Outbound { block_bytes: rules.block_bytes, ..Outbound::default() },
            pieces: VecDeque::new(),
            pieces_sent: 0,
            writable: true,
            unflushed: false,
            figures: LinkView { peer: Some(peer), established_wall_ms: wall_ms, ..LinkView::default() },
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

    /// On the election port.
    pub fn is_election(&self) -> bool {
        matches!(self.port, Port::Nameless(_) | Port::Election(_))
    }

    /// On the quorum port, with the leader at the other end.
    pub fn is_to_leader(&self) -> bool {
        matches!(self.port, Port::Leader(_))
    }

    /// It was accepted and has not said anything whole: nobody knows who it is.
    pub fn is_silent(&self) -> bool {
        match self.port {
            Port::Nameless(_) => true,
            Port::Learner(_) => !self.spoke,
            Port::Election(_) | Port::Leader(_) => false,
        }
    }

    /// What the other side takes packets from this one for.
    fn from(&self) -> From {
        match self.port {
            Port::Learner(_) => From::Leader,
            _ => From::Learner,
        }
    }

    /// Who is there.
    pub fn caller(&self) -> Caller {
        if self.is_accepted { Caller::Came(self.peer.ip(), self.member) } else { Caller::Dialled }
    }

    /// For the log.
    pub fn describe(&self) -> String {
        let (what, peer) = (
            match self.port {
                Port::Nameless(_) => "of a stranger on the election port,",
                Port::Election(_) => "of an election,",
                Port::Learner(_) => "of a learner,",
                Port::Leader(_) => "to the leader,",
            },
            self.peer,
        );
        format!("{what} {peer}")
    }

    // Out.

    /// Adds a packet.
    pub fn push(&mut self, packet: &Packet) {
        if self.is_closing {
            return;
        }
        let from = self.from();
        match packet {
            Packet::Request(_) => self.out.write_request(|block| packet.encode(from, block)),
            _ => self.out.write(|block| packet.encode(from, block)),
        }
        self.figures.sent += 1;
    }

    /// Adds bytes of the election port.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.out.write(|block| block.extend_from_slice(bytes));
        self.unflushed = true;
    }

    /// Adds a piece of a snapshot.
    pub fn push_snapshot_piece(&mut self, bytes: &[u8]) {
        self.out.write(|block| block.extend_from_slice(bytes));
        self.pieces.push_back(self.out.queued_total);
    }

    /// Bytes that the kernel has not taken.
    pub fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// What waits is forgotten, and so is what comes: the link is about to be closed.
    pub fn discard_and_close(&mut self) {
        self.is_closing = true;
        self.out = Outbound { block_bytes: self.out.block_bytes, ..Outbound::default() };
    }

    /// The number of its socket among all open files.
    pub fn descriptor(&self) -> u64 {
        self.socket.descriptor()
    }

    /// Whether there is something that the kernel may take now.
    pub fn can_send(&self) -> bool {
        self.writable && self.unsent() > 0
    }

    /// Whether it is so much that it should not wait for more.
    pub fn should_send(&self) -> bool {
        self.writable && self.unsent() >= self.out.block_bytes
    }

    /// Whether [`Link::take_snapshot_pieces_sent`] or [`Link::take_flushed`] has something to tell.
    pub fn has_sent(&self) -> bool {
        self.pieces_sent > 0 || (self.unflushed && self.unsent() == 0)
    }

    /// The kernel may take more.
    pub fn on_writable(&mut self) {
        self.writable = true;
    }

    /// Gives the kernel what it takes.
    pub fn send(&mut self, _: &PipelineTold) -> io::Result<()> {
        while self.can_send() {
            match self.socket.write(self.out.front()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while self.pieces.pop_front_if(|end| *end <= self.out.sent_total).is_some() {
            self.pieces_sent += 1;
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

    /// Reads what is there, up to a turn's worth, by way of a buffer that all links share. True: there may be more.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        let mut total = 0;
        while !self.ended && total < READ_BYTES_PER_TURN {
            match self.socket.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    total += n;
                    self.heard = true;
                    self.port.feed(&buffer[..n])?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(!self.ended)
    }

    /// Whether bytes came since the last call, whole or not: its other side is alive.
    pub fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// The next thing that is whole, of what was read.
    pub fn hear(&mut self) -> Result<Heard, String> {
        let heard = self.port.hear()?;
        match &heard {
            Heard::Hello(_) => self.hello_by_ms = None,
            Heard::Packets(packets) if !self.is_to_leader() => {
                self.spoke = true;
                self.figures.received += packets.len() as u64;
                self.figures.requests += packets.iter().filter(|p| matches!(p, Packet::Request(_))).count() as u64;
            }
            _ => {}
        }
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as Other};

    use mio::net::TcpStream;

    use super::*;
    use crate::engine::quorum::inbound;
    use crate::engine::quorum::pipeline_batch::PipelineBatch;
    use crate::ids::Zxid;
    use crate::memory::Bounds;
    use crate::quorum::notification::Notification;
    use crate::quorum::{PeerState, Vote};
    use crate::state::StateRules;

    fn told() -> PipelineTold {
        PipelineBatch::default().pass_on(|_| ())
    }

    fn rules() -> LinkRules {
        LinkRules {
            packet_bytes_max: 1 << 20,
            hello_timeout_ms: 1000,
            block_bytes: BLOCK_BYTES,
            state: StateRules::default(),
            memory: Bounds::default(),
        }
    }

    /// A link, and what is at its other end.
    fn pair(port: Port) -> (Link<TcpStream>, Other) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = Other::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Link::new(TcpStream::from_std(stream), peer, port, None, &rules(), 0), other)
    }

    /// Reads until the other side has closed.
    fn read_all(link: &mut Link<TcpStream>) {
        while !link.ended {
            link.read(&mut [0; READ_BYTES]).unwrap();
        }
    }

    #[test]
    fn a_flood_of_malformed_notifications_ends_the_link_and_nothing_else() {
        let (mut link, mut other) = pair(Port::known());
        let frame = [0, 0, 0, 1, b'x'];
        other.write_all(&frame.repeat(100_000)).unwrap();
        drop(other);
        read_all(&mut link);
        let why = loop {
            match link.hear() {
                Ok(heard) => assert!(matches!(heard, Heard::Malformed(_)), "{heard:?}"),
                Err(why) => break why,
            }
        };
        assert!(why.contains("malformed"), "{why}");
    }

    #[test]
    fn what_the_kernel_does_not_take_leaves_whole_and_in_order_and_gives_its_memory_back() {
        let (mut link, mut other) = pair(Port::learner(1 << 20));
        let bytes: Vec<u8> = (0..16_000_000_u32).map(|n| (n / 3) as u8).collect();
        bytes.chunks(100_000).for_each(|piece| link.push_snapshot_piece(piece));
        assert!(link.should_send() && link.unsent() == bytes.len());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            other.read_to_end(&mut all).map(|_| all)
        });
        let mut pieces = 0;
        while link.unsent() > 0 {
            link.on_writable();
            link.send(&told()).unwrap();
            pieces += link.take_snapshot_pieces_sent();
        }
        assert_eq!(pieces, 160);
        assert!(link.out.blocks.len() == 1 && link.out.blocks[0].capacity() <= OUT_BYTES_KEPT);
        drop(link);
        assert!(reader.join().unwrap().unwrap() == bytes);
    }

    #[test]
    fn what_follows_a_snapshot_in_the_same_turn_is_packets() {
        let (mut link, mut other) = pair(Port::leader(1 << 20, StateRules::default()));
        let mut bytes = Vec::new();
        let snap = Packet::Snap { zxid: Zxid(7), told: None };
        snap.encode(From::Leader, &mut bytes);
        bytes.extend(inbound::tests::snapshot());
        let proposal = Packet::Proposal { zxid: Zxid(8), payload: vec![1; 3 * READ_BYTES] };
        proposal.encode(From::Leader, &mut bytes);
        // The snapshot begins in a read, and ends in one that is not the last of its turn.
        let writer = std::thread::spawn(move || other.write_all(&bytes));
        let mut heard = Vec::new();
        while !link.ended {
            link.read(&mut [0; READ_BYTES]).unwrap();
            loop {
                match link.hear().unwrap() {
                    Heard::Nothing => break,
                    Heard::Packets(packets) => heard.extend(packets),
                    Heard::Snapshot(state) => assert_eq!((state.last_zxid(), heard.len()), (Zxid(7), 1)),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(heard, [snap, proposal]);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn acknowledgements_and_pings_pass_by_large_requests_which_stay_in_order() {
        use crate::ids::SessionId;
        use crate::mail::ForwardedRequest;
        use crate::quorum::packet::PacketDecoder;
        let request =
            |cxid| ForwardedRequest { session: SessionId(1), cxid, op: 5, body: vec![7; 1 << 20], auth: None };
        let (mut link, mut other) = pair(Port::leader(2 << 20, StateRules::default()));
        (0..32).for_each(|cxid| link.push(&Packet::Request(request(cxid))));
        link.send(&told()).unwrap();
        assert!(link.unsent() > 4 << 20, "the kernel does not take it all");
        link.push(&Packet::Ack { zxid: Zxid(9) });
        link.push(&Packet::Request(request(32)));
        let reader = std::thread::spawn(move || {
            let (mut decoder, mut heard, mut buffer) =
                (PacketDecoder::new(From::Learner, 2 << 20), Vec::new(), [0; 4096]);
            while heard.len() < 34 {
                let n = other.read(&mut buffer).unwrap();
                decoder.feed(&buffer[..n]);
                while let Some(packet) = decoder.next_packet().unwrap() {
                    heard.push(match packet {
                        Packet::Request(request) => request.cxid,
                        Packet::Ack { zxid: Zxid(9) } => -1,
                        other => panic!("{other:?}"),
                    });
                }
            }
            heard
        });
        while link.unsent() > 0 {
            link.on_writable();
            link.send(&told()).unwrap();
        }
        let heard = reader.join().unwrap();
        let at = heard.iter().position(|one| *one == -1).unwrap();
        assert!(at < 32, "the acknowledgement came behind {at} requests");
        assert!(heard.iter().filter(|one| **one >= 0).copied().eq(0..33));
    }

    #[test]
    fn a_connection_is_silent_until_something_whole_came() {
        for (port, whole) in [
            (Port::nameless(), 7_i64.to_be_bytes().to_vec()),
            (Port::learner(100), [&[0, 0, 0, 5][..], &[0; 8], &[0xff; 8]].concat()),
        ] {
            let (mut link, mut other) = pair(port);
            other.write_all(&whole[..whole.len() - 1]).unwrap();
            assert!(matches!(hear_next(&mut link), Heard::Nothing) && link.is_silent());
            other.write_all(&whole[whole.len() - 1..]).unwrap();
            while matches!(hear_next(&mut link), Heard::Nothing) {}
            assert!(!link.is_silent());
        }
    }

    fn hear_next(link: &mut Link<TcpStream>) -> Heard {
        link.read(&mut [0; READ_BYTES]).unwrap();
        link.hear().unwrap()
    }

    #[test]
    fn a_malformed_notification_does_not_end_the_link() {
        let (mut link, mut other) = pair(Port::known());
        let vote = Vote { leader: ServerId(1), zxid: Zxid(2), epoch: 3 };
        let good = Notification { state: PeerState::Looking, vote, round: 4, version: 2, config: None };
        let mut bytes = vec![0, 0, 0, 1, b'x'];
        good.encode(&mut bytes);
        other.write_all(&bytes).unwrap();
        drop(other);
        read_all(&mut link);
        assert!(matches!(link.hear(), Ok(Heard::Malformed(_))));
        assert!(matches!(link.hear(), Ok(Heard::Notification(heard)) if heard == good));
        assert!(matches!(link.hear(), Ok(Heard::Nothing)));
    }
}
