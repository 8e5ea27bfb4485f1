//! One client connection without its socket: bytes in, steps out; replies in, bytes out. Pure. Called by `net::ingress`
//! (input) and `threads::poller` (output, view).
//!
//! ```text
//! Fresh ──word──> Word ─────────────answer─────┐        anything that breaks the rules: a CloseCause,
//!   │  └─"stmk"─> Mask ──8 bytes──> Word       ├──> Closing    and the socket is closed at once
//!   └─connect request─> Connecting ──> Established ──Fate::Close
//! ```

use std::net::SocketAddr;

use crate::admin::words::{ConnView, SessionView, Word};
use crate::ids::{ConnId, SessionId};
use crate::jute::JuteError;
use crate::limits::{self, CONNECT_BYTES_MAX};
use crate::mail::{Fate, Outgoing};
use crate::metrics;
use crate::net::load::{Account, Load, takes_room};
use crate::net::output::Output;
use crate::net::stats::Stats;
use crate::ops::{ConnectRequest, Request, decode, decode_connect};

/// A telnet client's "interrupt, do": closed without a word.
const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

/// An input buffer that is empty keeps at most this capacity, bytes: ten thousand idle connections cost little.
const IDLE_CAPACITY: usize = 256;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing complete arrived: a four-letter word or a connect request may follow.
    Fresh,
    /// `stmk` arrived, its eight bytes did not.
    Mask,
    /// A word is being answered; what else arrives is thrown away.
    Word,
    /// The connect request is with the pipeline. What is behind it waits: an auth packet is answered at once, and that
    /// must not come before the answer to this.
    Connecting,
    /// It has a session.
    Established {
        /// Session id.
        session: SessionId,
        /// Negotiated timeout.
        timeout_ms: i32,
        /// Since when, wall clock, ms.
        since_wall_ms: i64,
    },
    /// What is queued is still sent; what arrives is thrown away.
    Closing,
}

/// Why a connection is closed on the spot.
#[derive(Debug, thiserror::Error)]
pub enum CloseCause {
    /// `NIOServerCnxn.readLength`
    #[error("a message of length {length} is malformed or longer than jute.maxbuffer={max}")]
    FrameLength {
        /// As sent.
        length: i32,
        /// `jute.maxbuffer`.
        max: usize,
    },
    /// Whoever has no session is given no room.
    #[error("a connect request of {length} bytes, where {CONNECT_BYTES_MAX} are enough for any")]
    ConnectLength {
        /// As sent.
        length: usize,
    },
    /// Too short for a request header.
    #[error("a message without a whole request header: {0}")]
    Header(JuteError),
    /// The first message is no connect request.
    #[error("a connect request that cannot be read: {0}")]
    Connect(JuteError),
    /// `largeRequestMaxBytes`
    #[error("a large request of {length} bytes over largeRequestMaxBytes")]
    LargeRequest {
        /// Length of the frame.
        length: usize,
    },
    /// Others wait for the room that its frame takes.
    #[error("a message of {length} bytes that comes too slowly, while others wait for the room that it takes")]
    Slow {
        /// Length of the frame.
        length: usize,
    },
    /// `connection_throttle_tokens`
    #[error("a connect request over the rate of connection_throttle_tokens")]
    Throttled,
    /// Bytes behind a word or a closed session.
    #[error("too many bytes after the end of the conversation")]
    Discarded,
    /// The client does not read what it gets.
    #[error(
        "{unsent} bytes wait for this client, which does not read them, and there is no room left for what others are told"
    )]
    Unsent {
        /// How many.
        unsent: usize,
    },
    /// Nothing was heard of it for too long.
    #[error("silence")]
    Silent,
    /// By the admin command `shed_connections`.
    #[error("shed_connections")]
    Shed,
    /// A telnet client gave up.
    #[error("telnet close")]
    Telnet,
    /// The client closed.
    #[error("end of stream")]
    EndOfStream,
    /// The connection broke.
    #[error("{0}")]
    Broken(std::io::Error),
    /// The conversation is over.
    #[error("done")]
    Done,
}

impl CloseCause {
    /// Whether people should hear of it.
    pub fn is_remarkable(&self) -> bool {
        use CloseCause::*;
        match self {
            FrameLength { .. }
            | ConnectLength { .. }
            | Header(_)
            | Connect(_)
            | LargeRequest { .. }
            | Throttled
            | Discarded => true,
            Unsent { .. } | Slow { .. } => true,
            Shed | Silent | Telnet | EndOfStream | Broken(_) | Done => false,
        }
    }
}

/// What the next bytes turned out to be.
#[derive(Debug)]
pub enum Step {
    /// Nothing complete: all bytes are taken.
    Starved,
    /// A frame of this length begins, which takes room.
    Large(usize),
    /// The handshake.
    Connect(ConnectRequest),
    /// A request, in a frame of so many bytes.
    Request(Request, usize),
    /// A four-letter word; `stmk` with its mask.
    Word(Word, Option<i64>),
    /// A word that is not on the whitelist; its answer is queued already.
    Forbidden(Word),
    /// Close.
    Close(CloseCause),
}

/// The rules that hold for every connection.
pub struct Rules<'a> {
    /// `jute.maxbuffer`.
    pub frame_bytes_max: usize,
    /// Words on the whitelist.
    pub allowed: &'a dyn Fn(Word) -> bool,
    /// For the limits on large requests.
    pub load: &'a Load,
    /// Whether requests that a leader may have to decide on keep their bytes.
    pub keep_bodies: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// Its name in mail.
    pub id: ConnId,
    /// Where from.
    pub peer: SocketAddr,
    /// Requests not answered.
    pub account: Account,
    /// What waits to be sent.
    pub output: Output,
    /// For `cons`.
    pub stats: Stats,
    /// When bytes were last read or written, monotonic ms.
    pub last_io_ms: i64,
    /// When it was accepted, or last waited for room of ours, monotonic ms: the handshake has its time from then on.
    pub begun_ms: i64,
    /// Bytes read of it.
    pub received_bytes: u64,
    /// The pipeline was told of it with `Connect`, and must be told `Disconnected`.
    pub known: bool,
    phase: Phase,
    input: Input,
    /// Length of the frame whose header is read.
    frame: Option<usize>,
    discarded: usize,
    /// Bytes that it took.
    sent_bytes: u64,
    sends: Pace,
    takes: Pace,
}

/// How bytes of a connection come, or go, from look to look.
#[derive(Debug, Default)]
struct Pace {
    /// All of them up to the last look.
    looked_at_bytes: u64,
    /// Looks in a row that found too little since the one before.
    slow_looks: u32,
}

impl Pace {
    /// Bytes since the last look; this is one.
    fn look(&mut self, all_bytes: u64) -> u64 {
        all_bytes - std::mem::replace(&mut self.looked_at_bytes, all_bytes)
    }

    /// What the look found. Whether that was too little for too long.
    fn judge(&mut self, is_slow: bool) -> bool {
        self.slow_looks = if is_slow { self.slow_looks + 1 } else { 0 };
        self.slow_looks >= limits::SLOW_LOOKS_MAX
    }
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(id: ConnId, peer: SocketAddr, now_ms: i64) -> Conn {
        Conn {
            id,
            peer,
            account: Account::default(),
            output: Output::default(),
            stats: Stats::default(),
            last_io_ms: now_ms,
            begun_ms: now_ms,
            received_bytes: 0,
            known: false,
            phase: Phase::Fresh,
            input: Input::default(),
            frame: None,
            discarded: 0,
            sent_bytes: 0,
            sends: Pace::default(),
            takes: Pace::default(),
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether what arrives is thrown away.
    pub fn is_deaf(&self) -> bool {
        matches!(self.phase, Phase::Word | Phase::Closing)
    }

    /// Whether nothing more is looked at before the pipeline has set up the session.
    pub fn awaits_session(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Whether all that is left to do is to send what is queued.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Whether bytes are waiting here that were read and not looked at, because the load did not allow it.
    pub fn holds_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes the next step: first from what is held, then from `bytes`, which shrinks by what was used.
    pub fn next(&mut self, bytes: &mut &[u8], rules: &Rules<'_>) -> Step {
        match self.phase {
            Phase::Word | Phase::Closing => self.discard(bytes),
            Phase::Mask => self.take_mask(bytes),
            Phase::Fresh | Phase::Connecting | Phase::Established { .. } => self.next_frame(bytes, rules),
        }
    }

    /// Keeps bytes for later, when a pause is over.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.input.hold(bytes);
    }

    /// What the pipeline has for this connection.
    pub fn on_outgoing(&mut self, outgoing: Outgoing, load: &mut Load, now_us: i64, wall_ms: i64) {
        load.on_answered(&mut self.account, outgoing.answered);
        self.stats.sent += u64::from(outgoing.frames);
        metrics::SENT.add(i64::from(outgoing.frames));
        if let Some(last) = outgoing.last {
            self.stats.on_answer(last, now_us);
        }
        if self.phase == Phase::Closing {
            return;
        }
        self.output.push(outgoing.bytes);
        match outgoing.fate {
            Fate::Established { session, timeout_ms } => {
                self.phase = Phase::Established { session, timeout_ms, since_wall_ms: wall_ms };
            }
            Fate::Close => self.become_closing(load),
            Fate::Open if self.phase == Phase::Word => self.become_closing(load),
            Fate::Open => (),
        }
    }

    /// Bytes that came of a frame that has room since the last look, if it is up to the client to send more.
    pub fn came_since_look(&mut self, is_up_to_client: bool) -> Option<u64> {
        let came = self.sends.look(self.received_bytes);
        (is_up_to_client && self.account.is_receiving()).then_some(came)
    }

    /// Others wait for room: fails if this connection's frame has some and comes too slowly. `came` is of
    /// [`Conn::came_since_look`], `enough` of [`load::enough_per_look`](crate::net::load::enough_per_look).
    pub fn look(&mut self, came: Option<u64>, enough: u64) -> Result<(), CloseCause> {
        let is_too_slow = self.sends.judge(came.is_some_and(|came| came < enough));
        match self.frame {
            Some(length) if is_too_slow => Err(CloseCause::Slow { length }),
            _ => Ok(()),
        }
    }

    /// The socket took so many bytes.
    pub fn on_sent(&mut self, count: usize, now_ms: i64) {
        self.output.advance(count);
        self.sent_bytes += count as u64;
        self.last_io_ms = now_ms;
    }

    /// From now on there is no room for what others are told, and this client is looked at.
    pub fn begin_looks_at_reading(&mut self) {
        self.takes = Pace { looked_at_bytes: self.sent_bytes, slow_looks: 0 };
    }

    /// Another look: whether this client takes too little of what waits for it, and that for some time.
    pub fn look_at_reading(&mut self) -> bool {
        let took = self.takes.look(self.sent_bytes);
        self.takes.judge(!self.output.is_empty() && took < limits::TAKEN_BYTES_PER_LOOK)
    }

    /// When it is closed unless something is read or written before, monotonic ms: in buckets of `grain_ms`, later than
    /// the timeout by at most one of them (`ExpiryQueue`). Before the handshake is whole, bytes give no more time: one in a
    /// while would keep a connection for ever.
    pub fn silent_until_ms(&self, grain_ms: i64) -> i64 {
        let (from_ms, timeout_ms) = match self.phase {
            Phase::Established { timeout_ms, .. } => (self.last_io_ms, i64::from(timeout_ms)),
            Phase::Fresh | Phase::Mask => (self.begun_ms, grain_ms),
            Phase::Word | Phase::Connecting | Phase::Closing => (self.last_io_ms, grain_ms),
        };
        ((from_ms + timeout_ms) / grain_ms + 1) * grain_ms
    }

    /// Whether it has taken all that it was told, and waits for an answer that is still to be made: its silence is ours.
    pub fn is_owed_answer(&self) -> bool {
        matches!(self.phase, Phase::Established { .. }) && self.account.unanswered() > 0 && self.output.is_empty()
    }

    /// The connection as `cons` shows it. `reads`: whether it is not paused; `grain_ms` as in [`Conn::silent_until_ms`].
    pub fn view(&self, reads: bool, grain_ms: i64) -> ConnView {
        let session = match self.phase {
            Phase::Established { session, timeout_ms, since_wall_ms } => {
                Some(self.view_session(session, timeout_ms, since_wall_ms))
            }
            Phase::Fresh | Phase::Mask | Phase::Word | Phase::Connecting | Phase::Closing => None,
        };
        let reads = reads && !self.is_deaf();
        ConnView {
            peer: self.peer,
            interest_ops: u8::from(reads) | if self.output.is_empty() { 0 } else { 4 },
            queued: u32::try_from(self.account.unanswered()).unwrap_or(u32::MAX),
            received: self.stats.received,
            sent: self.stats.sent,
            expires_mono_ms: self.silent_until_ms(grain_ms),
            session,
        }
    }

    /// Memory that the input takes.
    #[cfg(test)]
    pub fn input_capacity(&self) -> usize {
        self.input.held.capacity()
    }

    fn view_session(&self, id: SessionId, timeout_ms: i32, established_wall_ms: i64) -> SessionView {
        let [last_latency_ms, min_latency_ms, avg_latency_ms, max_latency_ms] = self.stats.latencies_ms();
        SessionView {
            id,
            timeout_ms,
            established_wall_ms,
            last: self.stats.last,
            last_response_mono_ms: self.stats.last_response_mono_ms,
            last_latency_ms,
            min_latency_ms,
            avg_latency_ms,
            max_latency_ms,
        }
    }

    fn become_closing(&mut self, load: &mut Load) {
        load.on_frame_dropped(self.id, &mut self.account);
        self.end_input();
    }

    fn end_input(&mut self) {
        self.phase = Phase::Closing;
        self.input = Input::default();
    }

    fn discard(&mut self, bytes: &mut &[u8]) -> Step {
        self.discarded += bytes.len();
        *bytes = &[];
        if self.discarded > limits::DISCARDED_BYTES_MAX { Step::Close(CloseCause::Discarded) } else { Step::Starved }
    }

    fn take_mask(&mut self, bytes: &mut &[u8]) -> Step {
        let Some(mask) = self.input.take_array(bytes) else { return Step::Starved };
        self.become_word();
        Step::Word(Word::Stmk, Some(i64::from_be_bytes(mask)))
    }

    fn become_word(&mut self) {
        self.phase = Phase::Word;
        self.input = Input::default();
    }

    fn next_frame(&mut self, bytes: &mut &[u8], rules: &Rules<'_>) -> Step {
        let length = match self.frame {
            Some(length) => length,
            None => {
                let Some(header) = self.input.take_array(bytes) else { return Step::Starved };
                if self.phase == Phase::Fresh
                    && let Some(step) = self.on_word(header, rules)
                {
                    // `stmk` may go on with the bytes at hand.
                    return if self.phase == Phase::Mask { self.take_mask(bytes) } else { step };
                }
                match check_length(i32::from_be_bytes(header), rules) {
                    Ok(length) if self.phase == Phase::Fresh && length > CONNECT_BYTES_MAX => {
                        return Step::Close(CloseCause::ConnectLength { length });
                    }
                    Ok(length) => length,
                    Err(cause) => return Step::Close(cause),
                }
            }
        };
        self.frame = Some(length);
        if takes_room(length) && !self.account.is_receiving() {
            return Step::Large(length);
        }
        let Some(frame) = self.input.take(length, bytes) else { return Step::Starved };
        self.frame = None;
        self.stats.received += 1;
        metrics::RECEIVED.add(1);
        if self.phase == Phase::Fresh {
            self.phase = Phase::Connecting;
            return decode_connect(frame).map_or_else(|e| Step::Close(CloseCause::Connect(e)), Step::Connect);
        }
        match decode(frame) {
            Ok(mut request) => {
                if rules.keep_bodies {
                    request.keep_body(frame);
                }
                Step::Request(request, length)
            }
            Err(error) => Step::Close(CloseCause::Header(error)),
        }
    }

    /// The first four bytes, should they be a word or nearly one.
    fn on_word(&mut self, bytes: [u8; 4], rules: &Rules<'_>) -> Option<Step> {
        if bytes == TELNET_CLOSE {
            return Some(Step::Close(CloseCause::Telnet));
        }
        let word = Word::from_bytes(bytes)?;
        self.stats.received += 1;
        metrics::RECEIVED.add(1);
        if !(rules.allowed)(word) {
            self.output.push(refusal(word).into());
            self.end_input();
            return Some(Step::Forbidden(word));
        }
        if word == Word::Stmk {
            self.phase = Phase::Mask;
        } else {
            self.become_word();
        }
        Some(Step::Word(word, None))
    }
}

/// The text a word gets that is not on the whitelist.
fn refusal(word: Word) -> Vec<u8> {
    format!("{} is not executed because it is not in the whitelist.\n", word.text()).into_bytes()
}

/// Lengths are Apache's: up to and including `jute.maxbuffer`.
fn check_length(length: i32, rules: &Rules<'_>) -> Result<usize, CloseCause> {
    match usize::try_from(length) {
        Ok(length) if length <= rules.frame_bytes_max => {
            if rules.load.has_room_for(length) {
                Ok(length)
            } else {
                Err(CloseCause::LargeRequest { length })
            }
        }
        _ => Err(CloseCause::FrameLength { length, max: rules.frame_bytes_max }),
    }
}

/// Bytes that were read and are not used up: the beginning of a frame, or whole frames during a pause. Grows only by
/// bytes that did arrive.
#[derive(Debug, Default)]
struct Input {
    held: Vec<u8>,
    /// Used up.
    start: usize,
}

impl Input {
    fn is_empty(&self) -> bool {
        self.start == self.held.len()
    }

    fn hold(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.make_room();
        self.held.extend_from_slice(bytes);
    }

    fn take_array<const N: usize>(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        self.take(N, bytes).map(|slice| slice.try_into().expect("take gives as many as were asked for"))
    }

    /// The next `count` bytes in one piece; while there are fewer, all there are is held and nothing returned.
    fn take<'a, 'b: 'a>(&'a mut self, count: usize, bytes: &mut &'b [u8]) -> Option<&'a [u8]> {
        let held = self.held.len() - self.start;
        if held == 0 {
            if let Some((taken, rest)) = bytes.split_at_checked(count) {
                *bytes = rest;
                return Some(taken);
            }
            self.release();
            self.hold(bytes);
            *bytes = &[];
            return None;
        }
        let (more, rest) = bytes.split_at(count.saturating_sub(held).min(bytes.len()));
        *bytes = rest;
        self.hold(more);
        let end = self.start + count;
        if end > self.held.len() {
            return None;
        }
        let taken = &self.held[self.start..end];
        self.start = end;
        Some(taken)
    }

    /// Drops what is used up, when that is cheap.
    fn make_room(&mut self) {
        if self.is_empty() {
            self.held.clear();
            self.start = 0;
        } else if self.start > self.held.len() / 2 {
            self.held.drain(..self.start);
            self.start = 0;
        }
    }

    /// Gives memory back.
    /// Call only while nothing is held.
    fn release(&mut self) {
        if self.held.capacity() > IDLE_CAPACITY {
            self.held = Vec::new();
        } else {
            self.held.clear();
        }
        self.start = 0;
    }
}
