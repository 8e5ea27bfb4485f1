//! The network between the simulated servers: connections of the quorum and election ports, each direction an ordered
//! stream. What is sent while a direction is cut waits (TCP sends it again) until the cut heals or the connection breaks.
//! Only state and timing are here; `world` carries out what is due, `quorum` takes it in.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::rc::Rc;

use rookeeper::engine::clients;
use rookeeper::engine::quorum::link;

use crate::random::Random;

/// What travels.
#[derive(Debug)]
pub enum Item {
    /// Some bytes of the stream.
    Bytes(Vec<u8>),
    /// The other side closed, or the connection broke.
    Close,
}

/// What the kernel of one side has of a connection.
#[derive(Debug)]
pub struct Kernel {
    /// Bytes that came and were not read.
    arrived: VecDeque<u8>,
    /// Nothing more comes: the other side closed it, or it broke.
    ended: bool,
    /// Bytes that the process gave it and that are not under way.
    sent: Vec<u8>,
    /// So many more may be on their way, or unread.
    room: usize,
    /// The process was told that there is none.
    is_full: bool,
    /// Bytes that were read since the other side was told.
    read: usize,
    /// The process closed it, or is gone.
    closed: bool,
    /// The process is at its end: what it says now is not said.
    takes_no_more: bool,
    /// The process says nothing more, and reads on.
    shut: bool,
    /// The process knows it by this number.
    number: Option<u64>,
    /// The process was told to look at it, and has not yet.
    is_told: bool,
}

impl Kernel {
    pub fn new(room: usize) -> Kernel {
        Kernel {
            arrived: VecDeque::new(),
            ended: false,
            sent: Vec::new(),
            room,
            is_full: false,
            read: 0,
            closed: false,
            takes_no_more: false,
            shut: false,
            number: None,
            is_told: false,
        }
    }

    pub fn arrive(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
    }

    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn take_no_more(&mut self) {
        self.takes_no_more = true;
    }

    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// True once, when the process says nothing more.
    pub fn take_shut(&mut self) -> bool {
        std::mem::take(&mut self.shut)
    }

    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    pub fn take_read(&mut self) -> usize {
        std::mem::take(&mut self.read)
    }

    /// The other side has read so many bytes. True: this one waited for that.
    pub fn on_read_there(&mut self, bytes: usize) -> bool {
        self.room += bytes;
        bytes > 0 && std::mem::replace(&mut self.is_full, false)
    }

    /// The process looks at the connection of this number.
    pub fn is_looked_at(&mut self, number: u64) {
        self.is_told &= self.number != Some(number);
    }

    /// The number of the connection that the process is to look at, if it has not been told so.
    pub fn take_news(&mut self) -> Option<u64> {
        self.number.filter(|_| !self.closed && !std::mem::replace(&mut self.is_told, true))
    }
}

/// A process's handle on one side of a connection.
pub struct Socket(Rc<RefCell<Kernel>>);

impl Socket {
    pub fn new(kernel: Rc<RefCell<Kernel>>) -> Socket {
        Socket(kernel)
    }

    pub fn register(&mut self, number: u64) {
        self.0.borrow_mut().number = Some(number);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        if kernel.arrived.is_empty() {
            return if kernel.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = kernel.arrived.read(buffer)?;
        kernel.read += count;
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        if kernel.takes_no_more {
            return Ok(bytes.len());
        }
        let count = bytes.len().min(kernel.room);
        if count == 0 {
            kernel.is_full = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        kernel.room -= count;
        kernel.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl clients::Socket for Socket {
    fn end_writing(&self) -> io::Result<()> {
        self.0.borrow_mut().shut = true;
        Ok(())
    }
}

impl link::Socket for Socket {
    fn descriptor(&self) -> u64 {
        0
    }
}

/// One side of a connection.
#[derive(Clone, Debug)]
pub struct End {
    pub server: usize,
    pub incarnation: u32,
    pub kernel: Rc<RefCell<Kernel>>,
}

/// What is under way in one direction.
#[derive(Debug, Default)]
pub struct Stream {
    items: VecDeque<(u64, Item)>,
    /// No later item arrives before this.
    last_us: u64,
    /// Nothing more is taken in: closed by the sender, or broken.
    ended: bool,
    /// An event for the first item is in the world's queue.
    pub scheduled: bool,
}

/// A connection; `ends[0]` dialed. `streams[side]` is what that side sends.
#[derive(Debug)]
pub struct Conn {
    pub ends: [End; 2],
    pub streams: [Stream; 2],
}

/// See the module.
#[derive(Debug)]
pub struct Net {
    /// By number, which is never used again; a connection goes when nothing can happen on it any more.
    pub conns: Vec<Option<Conn>>,
    /// `cut[a][b]`: nothing gets from a to b.
    cut: Vec<Vec<bool>>,
    /// `slow_us[a][b]`: what each item from a to b takes beyond the usual.
    slow_us: Vec<Vec<u64>>,
    /// What an item takes at least.
    base_us: u64,
    /// One item in this many is lost and sent again.
    loss: u64,
    /// Bytes of one direction of a connection that may be under way, or unread.
    pub window: usize,
}

/// How long TCP waits before it sends again.
const RETRANSMIT_US: u64 = 200_000;

impl Net {
    pub fn new(servers: usize, random: &mut Random) -> Net {
        Net {
            conns: Vec::new(),
            cut: vec![vec![false; servers]; servers],
            slow_us: vec![vec![0; servers]; servers],
            base_us: random.scaled(30, 3000),
            loss: 0,
            // Drawn apart: it changes nothing else of a seed.
            window: *random.clone().pick(&[1 << 10, 64 << 10, 4 << 20]),
        }
    }

    pub fn set_loss(&mut self, one_in: u64) {
        self.loss = one_in;
    }

    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    pub fn set_slow(&mut self, from: usize, to: usize, us: u64) {
        self.slow_us[from][to] = us;
    }

    /// No connection can be set up between them.
    pub fn is_unreachable(&self, a: usize, b: usize) -> bool {
        self.cut[a][b] || self.cut[b][a]
    }

    /// Every cut heals, everything is as quick as it was.
    pub fn heal(&mut self) {
        self.cut.iter_mut().for_each(|row| row.fill(false));
        self.slow_us.iter_mut().for_each(|row| row.fill(0));
        self.loss = 0;
    }

    /// How long something takes from one server to another.
    pub fn latency_us(&self, from: usize, to: usize, random: &mut Random) -> u64 {
        let lost = if random.one_in(self.loss) { RETRANSMIT_US } else { 0 };
        self.base_us + random.below(self.base_us) + self.slow_us[from][to] + lost
    }

    pub fn connect(&mut self, ends: [End; 2]) -> usize {
        let conn = Conn { ends, streams: Default::default() };
        self.conns.push(Some(conn));
        self.conns.len() - 1
    }

    /// Sends bytes on behalf of a side; they may arrive in two pieces, wherever they are cut. Gives the time of an event that
    /// is to be scheduled for the stream.
    pub fn send_bytes(
        &mut self,
        conn: usize,
        side: usize,
        mut bytes: Vec<u8>,
        now_us: u64,
        random: &mut Random,
    ) -> Option<u64> {
        let mut due = None;
        if random.one_in(4) {
            let rest = bytes.split_off(random.index(bytes.len() + 1));
            due = self.send(conn, side, Item::Bytes(bytes), now_us, random);
            bytes = rest;
        }
        due.or(self.send(conn, side, Item::Bytes(bytes), now_us, random))
    }

    /// Sends on behalf of a side. Gives the time of an event that is to be scheduled for the stream.
    pub fn send(&mut self, conn: usize, side: usize, item: Item, now_us: u64, random: &mut Random) -> Option<u64> {
        let [from, to] = self.servers(conn, side)?;
        let at = now_us + self.latency_us(from, to, random);
        let stream = &mut self.conns[conn].as_mut()?.streams[side];
        if stream.ended {
            return None;
        }
        stream.ended = matches!(item, Item::Close);
        stream.last_us = stream.last_us.max(at);
        let due = stream.last_us;
        stream.items.push_back((due, item));
        self.next_event(conn, side)
    }

    /// Who sends by this side, and to whom.
    fn servers(&self, conn: usize, side: usize) -> Option<[usize; 2]> {
        let ends = &self.conns[conn].as_ref()?.ends;
        Some([ends[side].server, ends[1 - side].server])
    }

    /// The other side.
    pub fn other_end(&self, conn: usize, side: usize) -> Option<End> {
        self.conns[conn].as_ref().map(|conn| conn.ends[1 - side].clone())
    }

    /// The connection breaks: what was under way is lost, both sides hear of it.
    pub fn reset(&mut self, conn: usize, now_us: u64, random: &mut Random) -> [Option<u64>; 2] {
        for side in 0..2 {
            if let Some(conn) = self.conns[conn].as_mut() {
                let Stream { items, ended, .. } = &mut conn.streams[side];
                items.clear();
                *ended = false;
            }
        }
        [0, 1].map(|side| self.send(conn, side, Item::Close, now_us, random))
    }

    /// This side heard that the other one closed, and says nothing more.
    pub fn finish(&mut self, conn: usize, side: usize) {
        if self.conns[conn].as_ref().is_some_and(|conn| !conn.streams[side].ended) {
            self.silence(conn, side);
        }
    }

    /// Nobody is there on this side any more: the other side hears so.
    pub fn refuse(&mut self, conn: usize, side: usize, now_us: u64, random: &mut Random) -> Option<u64> {
        let stream = &mut self.conns[conn].as_mut()?.streams[side];
        stream.items.clear();
        stream.ended = false;
        self.send(conn, side, Item::Close, now_us, random)
    }

    /// What was sent by this side and is under way is lost, and nothing more comes from it: the power went.
    pub fn silence(&mut self, conn: usize, side: usize) {
        if let Some(conn) = self.conns[conn].as_mut() {
            conn.streams[side].items.clear();
            conn.streams[side].ended = true;
        }
    }

    /// When the next item of a stream is due, if that is to be scheduled.
    pub fn next_event(&mut self, conn: usize, side: usize) -> Option<u64> {
        let conn = self.conns[conn].as_mut()?;
        let (from, to) = (conn.ends[side].server, conn.ends[1 - side].server);
        let stream = &mut conn.streams[side];
        if stream.scheduled || self.cut[from][to] {
            return None;
        }
        let due = stream.items.front()?.0;
        stream.scheduled = true;
        Some(due)
    }

    /// Takes what has arrived. Gives who gets it.
    pub fn arrived(&mut self, conn: usize, side: usize, now_us: u64) -> Option<(End, Item)> {
        let conn = self.conns[conn].as_mut()?;
        let (from, to) = (conn.ends[side].server, conn.ends[1 - side].server);
        let stream = &mut conn.streams[side];
        if self.cut[from][to] || stream.items.front()?.0 > now_us {
            return None;
        }
        let (_, item) = stream.items.pop_front()?;
        Some((conn.ends[1 - side].clone(), item))
    }

    /// Frees the connection once both sides have nothing left to say.
    pub fn forget_if_over(&mut self, conn: usize) {
        let over = self.conns[conn]
            .as_ref()
            .is_some_and(|conn| conn.streams.iter().all(|s| s.ended && s.items.is_empty() && !s.scheduled));
        if over {
            self.conns[conn] = None;
        }
    }
}
