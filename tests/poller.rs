//! The polling thread with real sockets. The test is the pipeline: it takes the mail from the channel and posts the
//! answers, so every order is the test's own. Waiting is always for a message, bounded by a minute.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rookeeper::admin::words::{PollerView, Word};
use rookeeper::ids::{ConnId, SessionId};
use rookeeper::jute::Writer;
use rookeeper::limits;
use rookeeper::mail::{Fate, Outgoing, ToPipeline, ToPoller};
use rookeeper::net::{AdmitLimits, LoadLimits};
use rookeeper::parts::{Lender, Loan, Parts, Shared};
use rookeeper::sys::net::bind;
use rookeeper::threads::pipeline::PipelineMail;
use rookeeper::threads::poller::{self, PollerHandle, PollerMail, PollerOptions, Shedding};

const PATIENCE: Duration = Duration::from_secs(60);

/// A poller, and the pipeline's place.
struct World {
    address: SocketAddr,
    mail: Receiver<PipelineMail>,
    /// Taken from the channel, not looked at.
    waiting: VecDeque<Seen>,
    handle: PollerHandle,
    thread: JoinHandle<()>,
}

/// What the pipeline sees, in short.
#[derive(Debug, PartialEq)]
enum Seen {
    Connect(ConnId),
    Request(ConnId, i32),
    Disconnected(ConnId),
    Word(ConnId, Word, u32, usize),
}

fn seen(mail: ToPipeline) -> Option<Seen> {
    match mail {
        ToPipeline::Connect { conn, .. } => Some(Seen::Connect(conn)),
        ToPipeline::Request { conn, request, .. } => Some(Seen::Request(conn, request.xid)),
        ToPipeline::Disconnected { conn } => Some(Seen::Disconnected(conn)),
        // Said now and then, whenever that is.
        ToPipeline::Waits { .. } | ToPipeline::Taken { .. } => None,
        other => panic!("the poller does not say {other:?}"),
    }
}

impl World {
    fn new(options: PollerOptions) -> World {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 4096).unwrap();
        let address = listener.address;
        let (sender, mail) = unbounded();
        let (handle, thread) = poller::start(options, vec![listener], sender).unwrap();
        World { address, mail, waiting: VecDeque::new(), handle, thread }
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn next(&mut self) -> Seen {
        while self.waiting.is_empty() {
            match self.mail.recv_timeout(PATIENCE).expect("mail within a minute") {
                PipelineMail::Core(batch) => self.waiting.extend(batch.into_iter().filter_map(seen)),
                PipelineMail::Word { conn, word, view } => {
                    self.waiting.push_back(Seen::Word(conn, word, view.connection_count, view.connections.len()));
                }
                other => panic!("the poller does not say {other:?}"),
            }
        }
        self.waiting.pop_front().expect("not empty")
    }

    fn post(&self, conn: ConnId, bytes: Vec<u8>, answered: u32, fate: Fate) {
        let outgoing = vec![Outgoing {
            conn,
            frames: answered,
            bytes: bytes.into(),
            tell_drained: false,
            answered,
            fate,
            last: None,
        }];
        self.handle.post(PollerMail::Core(ToPoller { outgoing, ..ToPoller::default() }));
    }

    /// A connection with a session of this timeout.
    fn session(&mut self, timeout_ms: i32) -> (TcpStream, ConnId) {
        let mut stream = self.dial();
        stream.write_all(&connect()).unwrap();
        let Seen::Connect(conn) = self.next() else { panic!("connect comes first") };
        self.post(conn, b"hello".to_vec(), 0, Fate::Established { session: SessionId(1), timeout_ms });
        assert_eq!(receive(&mut stream, 5), b"hello");
        (stream, conn)
    }

    /// A request there, an answer back: everything the poller could do before is done after two of them.
    fn round_trip(&mut self, stream: &mut TcpStream, conn: ConnId) {
        stream.write_all(&request(77, &[])).unwrap();
        assert_eq!(self.next(), Seen::Request(conn, 77));
        self.post(conn, b"pong".to_vec(), 1, Fate::Open);
        assert_eq!(receive(stream, 4), b"pong");
    }

    /// Asks a four-letter word and returns the poller's part of the answer.
    fn ask(&mut self, word: Word) -> Box<PollerView> {
        let mut stream = self.dial();
        stream.write_all(word.text().as_bytes()).unwrap();
        let Ok(PipelineMail::Word { conn, view, .. }) = self.mail.recv_timeout(PATIENCE) else { panic!("a word") };
        self.post(conn, b"text".to_vec(), 0, Fate::Close);
        assert_eq!(receive_all(&mut stream), b"text");
        view
    }

    fn stop(self) {
        self.handle.post(PollerMail::Core(ToPoller { stop: true, ..ToPoller::default() }));
        self.thread.join().expect("the poller ends without a panic");
    }
}

fn connect() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_int(45);
    bytes.extend_from_slice(&[0; 12]);
    bytes.put_int(10_000);
    bytes.put_long(0);
    bytes.put_buffer(Some(&[0; 16]));
    bytes.put_bool(false);
    bytes
}

/// A ping with something behind it.
fn request(xid: i32, tail: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_int(i32::try_from(8 + tail.len()).unwrap());
    bytes.put_int(xid);
    bytes.put_int(11);
    bytes.extend_from_slice(tail);
    bytes
}

fn receive(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// All up to the end of the stream, which must not be a reset.
fn receive_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end, not a reset");
    bytes
}

/// Waits until the other side closed, in whatever way.
fn await_close(stream: &mut TcpStream) {
    match stream.read(&mut [0; 64]) {
        Ok(0) => (),
        Ok(count) => panic!("{count} bytes from a connection that should be closed"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}"),
    }
}

fn unlimited() -> PollerOptions {
    PollerOptions { admit: AdmitLimits::default(), ..PollerOptions::default() }
}

fn outstanding(outstanding: usize) -> PollerOptions {
    PollerOptions { load: LoadLimits { outstanding, ..LoadLimits::default() }, ..unlimited() }
}

#[test]
fn two_thousand_idle_connections_leave_one_served() {
    let mut world = World::new(unlimited());
    let (mut busy, conn) = world.session(30_000);
    let idle: Vec<TcpStream> = (0..2000).map(|_| world.dial()).collect();
    for _ in 0..100 {
        world.round_trip(&mut busy, conn);
    }
    let mut asking = world.dial();
    asking.write_all(b"srvr").unwrap();
    let Seen::Word(word_conn, Word::Srvr, count, 0) = world.next() else { panic!("a word") };
    assert_eq!(count, 2002);
    world.post(word_conn, b"fine\n".to_vec(), 0, Fate::Close);
    assert_eq!(receive_all(&mut asking), b"fine\n");
    drop(idle);
    world.stop();
}

#[test]
fn surplus_connections_are_closed_and_the_first_stay() {
    let mut world =
        World::new(PollerOptions { admit: AdmitLimits { per_address: 3, total: 0 }, ..PollerOptions::default() });
    let mut inside: Vec<_> = (0..3).map(|_| world.session(30_000)).collect();
    for _ in 0..200 {
        // It may be closed before connect returns, which then says so.
        if let Ok(mut surplus) = TcpStream::connect(world.address) {
            surplus.set_read_timeout(Some(PATIENCE)).unwrap();
            await_close(&mut surplus);
        }
        let (stream, conn) = &mut inside[0];
        world.round_trip(stream, *conn);
    }
    let (stream, conn) = inside.pop().unwrap();
    drop(stream);
    assert_eq!(world.next(), Seen::Disconnected(conn));
    inside.push(world.session(30_000));
    for (stream, conn) in &mut inside {
        world.round_trip(stream, *conn);
    }
    world.stop();
}

#[test]
fn over_the_outstanding_limit_requests_wait_and_come_in_order() {
    let mut world = World::new(outstanding(2));
    let (mut stream, conn) = world.session(30_000);
    let (mut other, other_conn) = world.session(30_000);
    let flood: Vec<u8> = (1..=3000).flat_map(|xid| request(xid, &[])).collect();
    stream.write_all(&flood).unwrap();
    for xid in 1..=3 {
        assert_eq!(world.next(), Seen::Request(conn, xid));
    }
    world.round_trip(&mut other, other_conn);
    for xid in 4..=3000 {
        world.post(conn, vec![xid as u8], 1, Fate::Open);
        assert_eq!(world.next(), Seen::Request(conn, xid));
    }
    assert_eq!(receive(&mut stream, 2997).len(), 2997);
    world.stop();
}

#[test]
fn large_requests_wait_for_room_and_small_ones_pass_by() {
    let load = LoadLimits { bytes_max: 150_000, ..LoadLimits::default() };
    let mut world = World::new(PollerOptions { load, ..unlimited() });
    let (mut first, first_conn) = world.session(30_000);
    let (mut second, second_conn) = world.session(30_000);
    let (mut other, other_conn) = world.session(30_000);
    let large = |xid| request(xid, &[0; 100_000]);
    first.write_all(&large(1)).unwrap();
    assert_eq!(world.next(), Seen::Request(first_conn, 1));
    second.write_all(&large(2)).unwrap();
    for _ in 0..2 {
        world.round_trip(&mut other, other_conn);
    }
    world.post(first_conn, vec![1], 1, Fate::Open);
    assert_eq!(world.next(), Seen::Request(second_conn, 2));
    // What somebody asked who is gone takes room until it is done.
    drop(second);
    assert_eq!(world.next(), Seen::Disconnected(second_conn));
    first.write_all(&large(3)).unwrap();
    for _ in 0..2 {
        world.round_trip(&mut other, other_conn);
    }
    world.post(second_conn, Vec::new(), 1, Fate::Open);
    assert_eq!(world.next(), Seen::Request(first_conn, 3));
    world.stop();
}

#[test]
fn a_slow_reader_is_paused_others_are_served_and_nothing_is_lost() {
    const REPLY: usize = 1 << 20;
    let mut world = World::new(outstanding(0));
    let (mut slow, slow_conn) = world.session(30_000);
    let (mut other, other_conn) = world.session(30_000);
    let wanted = 64;
    (1..=wanted).for_each(|xid| slow.write_all(&request(xid, &[])).unwrap());
    let mut answered = 0;
    // Two round trips of the other connection without a request of this one: it is paused.
    let mut quiet = 0;
    while quiet < 2 {
        other.write_all(&request(5, &[])).unwrap();
        quiet += 1;
        loop {
            match world.next() {
                Seen::Request(conn, 5) if conn == other_conn => break,
                Seen::Request(conn, xid) if conn == slow_conn => {
                    answered += 1;
                    assert_eq!(xid, answered);
                    world.post(conn, vec![xid as u8; REPLY], 1, Fate::Open);
                    quiet = 0;
                }
                seen => panic!("{seen:?}"),
            }
        }
        world.post(other_conn, b"pong".to_vec(), 1, Fate::Open);
        assert_eq!(receive(&mut other, 4), b"pong");
    }
    assert!(answered < 32, "{answered} MiB were taken for a client that does not read");
    for xid in 1..=wanted {
        let reply = receive(&mut slow, REPLY);
        assert!(reply.iter().all(|byte| *byte == xid as u8));
        // What it has taken makes room for the next one.
        while answered < wanted && answered <= xid {
            let Seen::Request(conn, next) = world.next() else { panic!("a request") };
            answered += 1;
            assert_eq!((conn, next), (slow_conn, answered));
            world.post(conn, vec![next as u8; REPLY], 1, Fate::Open);
        }
    }
    world.stop();
}

#[test]
fn the_pipeline_hears_that_a_connection_went_with_what_others_share() {
    let mut world = World::new(unlimited());
    let (stream, conn) = world.session(10_000);
    world.handle.post(PollerMail::Core(ToPoller { excess_bytes: Some(1), ..ToPoller::default() }));
    let mut bytes = Parts::default();
    bytes.lend(Arc::new(Loan::new(Shared::Whole(Arc::new(vec![7; 8 << 20])), 0, &Lender::default())));
    let outgoing = Outgoing { conn, frames: 1, bytes, tell_drained: false, answered: 0, fate: Fate::Open, last: None };
    world.handle.post(PollerMail::Core(ToPoller { outgoing: vec![outgoing], ..ToPoller::default() }));
    drop(stream);
    let is_taken = |mail: &ToPipeline| matches!(mail, ToPipeline::Taken { .. });
    let is_gone = |mail: &ToPipeline| matches!(mail, ToPipeline::Disconnected { .. });
    let (mut gone, mut taken) = (false, false);
    while !gone || !taken {
        let Ok(PipelineMail::Core(batch)) = world.mail.recv_timeout(PATIENCE) else { panic!("it is told") };
        for mail in batch {
            gone |= is_gone(&mail);
            // What the socket took before is told, too.
            taken |= gone && is_taken(&mail);
        }
    }
    world.stop();
}

#[test]
fn who_has_most_of_what_waits_far_beyond_the_room_for_it_is_closed_and_others_are_served() {
    let mut world = World::new(PollerOptions { replies_bytes_max: 8 << 20, ..unlimited() });
    // No silence ends these sessions while the test waits.
    let (mut other, other_conn) = world.session(600_000);
    let (_deaf, conn) = world.session(600_000);
    for _ in 0..2 {
        // More than the kernel takes, and yet less than half as much again as there is room for.
        world.post(conn, vec![0; 5 << 20], 0, Fate::Open);
        world.round_trip(&mut other, other_conn);
    }
    world.post(conn, vec![0; 20 << 20], 0, Fate::Open);
    assert_eq!(world.next(), Seen::Disconnected(conn));
    world.round_trip(&mut other, other_conn);
    world.stop();
}

#[test]
fn a_frame_may_come_byte_by_byte_or_with_hundreds_of_others() {
    let mut world = World::new(unlimited());
    let mut stream = world.dial();
    let mut all = connect();
    all.extend(request(1, &[]));
    for byte in &all {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
    }
    let Seen::Connect(conn) = world.next() else { panic!("connect comes first") };
    world.post(conn, b"hello".to_vec(), 0, Fate::Established { session: SessionId(1), timeout_ms: 30_000 });
    assert_eq!(world.next(), Seen::Request(conn, 1));
    let many: Vec<u8> = (2..=500).flat_map(|xid| request(xid, &[0; 1000])).collect();
    stream.write_all(&many).unwrap();
    (2..=500).for_each(|xid| assert_eq!(world.next(), Seen::Request(conn, xid)));
    world.stop();
}

#[test]
fn a_word_is_answered_whatever_follows_it() {
    let mut world = World::new(PollerOptions { words: vec![Word::Ruok, Word::Cons], ..unlimited() });
    let (_session, _) = world.session(30_000);
    for (word, tail) in [("ruok", 0), ("ruok", 2), ("ruok", 9000), ("cons", 300_000)] {
        for half_close in [false, true] {
            let mut stream = world.dial();
            stream.write_all(word.as_bytes()).unwrap();
            stream.write_all(&vec![b'\n'; tail]).unwrap();
            if half_close {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let Seen::Word(conn, seen, _, listed) = world.next() else { panic!("a word") };
            assert_eq!((seen.text(), listed > 0), (word, word == "cons"));
            world.post(conn, b"imok".to_vec(), 0, Fate::Close);
            assert_eq!(receive_all(&mut stream), b"imok");
        }
    }
    let mut stream = world.dial();
    stream.write_all(b"wchp\nmore").unwrap();
    assert_eq!(receive_all(&mut stream), b"wchp is not executed because it is not in the whitelist.\n");
    world.stop();
}

#[test]
fn a_closed_session_ends_without_a_reset_though_requests_follow() {
    let mut world = World::new(unlimited());
    let (mut stream, conn) = world.session(30_000);
    stream.write_all(&request(1, &[])).unwrap();
    assert_eq!(world.next(), Seen::Request(conn, 1));
    world.post(conn, b"bye".to_vec(), 1, Fate::Close);
    (2..200).for_each(|xid| stream.write_all(&request(xid, &[0; 100])).unwrap());
    assert_eq!(receive_all(&mut stream), b"bye");
    drop(stream);
    loop {
        match world.next() {
            Seen::Disconnected(closed) => break assert_eq!(closed, conn),
            Seen::Request(..) => (),
            seen => panic!("{seen:?}"),
        }
    }
    world.stop();
}

#[test]
fn bad_lengths_close_only_the_connection_they_came_by() {
    let mut world = World::new(unlimited());
    let (mut good, good_conn) = world.session(30_000);
    for bad in [&b"xxxx"[..], &[0xff, 0xff, 0xff, 0xff], &[0, 0x10, 0, 0], &[0, 0, 0, 3, 1, 2, 3]] {
        let mut stream = world.dial();
        stream.write_all(bad).unwrap();
        await_close(&mut stream);
        let (mut stream, conn) = world.session(30_000);
        stream.write_all(bad).unwrap();
        assert_eq!(world.next(), Seen::Disconnected(conn));
        await_close(&mut stream);
        world.round_trip(&mut good, good_conn);
    }
    world.stop();
}

#[test]
fn silent_connections_are_closed_with_and_without_a_session() {
    let mut world = World::new(PollerOptions { sessionless_timeout_ms: 20, ..unlimited() });
    await_close(&mut world.dial());
    let (mut stream, conn) = world.session(20);
    assert_eq!(world.next(), Seen::Disconnected(conn));
    await_close(&mut stream);
    world.stop();
}

#[test]
fn who_waits_for_an_answer_is_not_closed_for_silence() {
    let mut world = World::new(PollerOptions { sessionless_timeout_ms: 20, ..unlimited() });
    let (mut waiting, waits) = world.session(200);
    waiting.write_all(&request(77, &[])).unwrap();
    assert_eq!(world.next(), Seen::Request(waits, 77));
    // Both are silent, and this one for less long.
    let (_stream, silent) = world.session(200);
    assert_eq!(world.next(), Seen::Disconnected(silent));
    world.post(waits, b"pong".to_vec(), 1, Fate::Open);
    assert_eq!(receive(&mut waiting, 4), b"pong");
    assert_eq!(world.next(), Seen::Disconnected(waits));
    world.stop();
}

#[test]
fn mail_for_a_connection_that_is_gone_reaches_nobody() {
    let mut world = World::new(unlimited());
    let (stream, old) = world.session(30_000);
    drop(stream);
    assert_eq!(world.next(), Seen::Disconnected(old));
    let (mut stream, new) = world.session(30_000);
    assert_eq!((new.slot, new.generation > old.generation), (old.slot, true));
    world.post(old, b"late".to_vec(), 1, Fate::Close);
    world.round_trip(&mut stream, new);
    world.stop();
}

#[test]
fn stopping_sends_what_is_queued_and_then_ends() {
    let mut world = World::new(unlimited());
    let (mut stream, conn) = world.session(30_000);
    let reader = std::thread::spawn(move || receive_all(&mut stream).len());
    world.post(conn, vec![1; 8 << 20], 0, Fate::Open);
    let address = world.address;
    world.stop();
    assert_eq!(reader.join().unwrap(), 8 << 20);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn when_accepting_has_stopped_those_inside_are_served_on() {
    let mut world = World::new(unlimited());
    let (mut stream, conn) = world.session(30_000);
    world.handle.post(PollerMail::StopAccepting);
    world.round_trip(&mut stream, conn);
    assert!(TcpStream::connect(world.address).is_err());
    world.round_trip(&mut stream, conn);
    world.stop();
}

#[test]
fn connections_are_listed_with_what_went_through_and_count_from_zero_again() {
    let mut world = World::new(PollerOptions { words: Word::ALL.to_vec(), ..unlimited() });
    let (mut stream, conn) = world.session(30_000);
    world.round_trip(&mut stream, conn);
    let shown = |view: &PollerView| {
        let client = view.connections.iter().find(|client| client.session.is_some()).unwrap();
        (client.received, client.sent, client.queued, client.interest_ops)
    };
    assert_eq!(shown(&world.ask(Word::Cons)), (2, 1, 0, 1));
    world.ask(Word::Crst);
    assert_eq!(shown(&world.ask(Word::Stat)), (0, 0, 0, 1));
    world.stop();
}

#[test]
fn a_port_in_use_is_named() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), -1).unwrap();
    let error = bind(first.address, -1).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {}: ", first.address)), "{text}");
}

#[test]
fn a_part_of_the_connections_is_closed_and_the_others_go_on() {
    let mut world = World::new(unlimited());
    // More than are closed in one turn.
    let count = limits::SHED_PER_TURN + 44;
    let mut clients: Vec<(TcpStream, ConnId)> = (0..count).map(|_| world.session(10_000)).collect();
    let (to, told) = unbounded();
    world.handle.post(PollerMail::Shed { percent: 90, to });
    let closed = count * 9 / 10;
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Shedding { closed, of: count }));
    let mut gone = HashSet::new();
    while gone.len() < closed {
        let Seen::Disconnected(conn) = world.next() else { panic!("nothing else happens") };
        assert!(gone.insert(conn));
    }
    for (stream, conn) in &mut clients {
        if gone.contains(conn) {
            assert!(receive_all(stream).is_empty());
        } else {
            world.round_trip(stream, *conn);
        }
    }
    world.stop();
}
