//! Connections fed through the ingress, as the poller does it: every way bytes can arrive, and everything they can be.

use std::net::SocketAddr;

use crate::admin::words::Word;
use crate::ids::{ConnId, SessionId, Zxid};
use crate::jute::Writer;
use crate::limits;
use crate::mail::{Fate, LastAnswer, Outgoing, ToPipeline};
use crate::net::conn::{CloseCause, Conn, Phase};
use crate::net::ingress::{Flow, Ingress};
use crate::net::{LoadLimits, PollerOptions, ThrottleOptions};

use crate::parts::Parts;

const ID: ConnId = ConnId { slot: 3, generation: 7 };

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_buffer(Some(body));
    bytes
}

fn connect() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_int(0);
    body.put_long(0);
    body.put_int(10_000);
    body.put_long(0);
    body.put_buffer(Some(&[0; 16]));
    body.put_bool(false);
    frame(&body)
}

fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_int(xid);
    bytes.put_int(op);
    bytes.extend_from_slice(body);
    frame(&bytes)
}

fn ping(xid: i32) -> Vec<u8> {
    request(xid, 11, &[])
}

fn set_data(xid: i32, len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string("/a");
    body.put_buffer(Some(&vec![b'x'; len]));
    body.put_int(-1);
    request(xid, 5, &body)
}

/// One connection at its ingress.
struct Table {
    ingress: Ingress,
    conn: Conn,
}

impl Table {
    fn new(options: &PollerOptions) -> Table {
        let peer = SocketAddr::from(([127, 0, 0, 1], 4711));
        Table { ingress: Ingress::new(options, 1), conn: Conn::new(ID, peer, 1000) }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Flow, CloseCause> {
        self.ingress.take(&mut self.conn, bytes, 5_000_000)
    }

    fn outgoing(&mut self, bytes: &[u8], answered: u32, fate: Fate) {
        let outgoing = Outgoing {
            conn: ID,
            bytes: bytes.to_vec().into(),
            frames: answered,
            tell_drained: false,
            answered,
            fate,
            last: None,
        };
        self.conn.on_outgoing(outgoing, &mut self.ingress.load, 5_000_000, 9);
    }

    /// With a session.
    fn established() -> Table {
        let mut table = Table::new(&PollerOptions::default());
        table.feed(&connect()).unwrap();
        table.welcome();
        table.ingress.batch.clear();
        table
    }

    /// The pipeline sets up the session.
    fn welcome(&mut self) {
        self.outgoing(&[], 0, Fate::Established { session: SessionId(1), timeout_ms: 4000 });
    }

    /// The mail so far, in short.
    fn mail(&mut self) -> Vec<String> {
        let short = |mail: ToPipeline| match mail {
            ToPipeline::Connect { conn: ID, request, .. } => format!("connect {}", request.timeout_ms),
            ToPipeline::Request { conn: ID, request, .. } => format!("{}:{}", request.xid, request.op_number),
            other => format!("{other:?}"),
        };
        self.ingress.batch.drain(..).map(short).collect()
    }
}

fn words(allowed: &[Word]) -> PollerOptions {
    PollerOptions { words: allowed.to_vec(), ..PollerOptions::default() }
}

#[test]
fn a_connect_request_is_small_and_takes_no_room() {
    let mut table = Table::new(&PollerOptions::default());
    let long = i32::try_from(limits::CONNECT_BYTES_MAX + 1).unwrap().to_be_bytes();
    let error = table.feed(&long).unwrap_err();
    assert!(matches!(error, CloseCause::ConnectLength { length: 1025 }) && error.is_remarkable(), "{error}");
    let mut table = Table::new(&PollerOptions::default());
    table.feed(&i32::try_from(limits::CONNECT_BYTES_MAX).unwrap().to_be_bytes()).unwrap();
    assert_eq!(table.ingress.load.bytes(), 0);
}

#[test]
fn who_takes_nothing_while_there_is_no_room_for_replies_is_not_read_and_goes_after_some_looks() {
    let mut table = Table::established();
    table.outgoing(&[0; 50_000], 0, Fate::Open);
    assert!(table.ingress.may_read(&table.conn));
    table.ingress.load.set_replies_tight(true);
    assert!(!table.ingress.may_read(&table.conn));
    for _ in 1..limits::SLOW_LOOKS_MAX {
        assert!(!table.conn.look_at_reading());
    }
    table.outgoing(&[0; 100_000], 0, Fate::Open);
    table.conn.on_sent(70_000, 6000);
    assert!(!table.conn.look_at_reading(), "it takes what it can");
    for _ in 1..limits::SLOW_LOOKS_MAX {
        assert!(!table.conn.look_at_reading());
    }
    assert!(table.conn.look_at_reading());
    table.conn.on_sent(80_000, 7000);
    assert!(!table.conn.look_at_reading(), "nothing waits for it");
    assert!(table.ingress.may_read(&table.conn));
}

#[test]
fn frames_are_the_same_however_the_bytes_arrive() {
    let mut stream = connect();
    for xid in 1..=5 {
        stream.extend(ping(xid));
        stream.extend(set_data(xid + 100, 3000));
    }
    let mut whole = Table::new(&PollerOptions::default());
    assert_eq!(whole.feed(&stream).unwrap(), Flow::Paused);
    whole.welcome();
    assert_eq!(whole.feed(&[]).unwrap(), Flow::Open);
    let expected = whole.mail();
    assert_eq!(expected.len(), 11);
    assert_eq!(expected[..3], ["connect 10000", "1:11", "101:5"]);
    for step in [1, 2, 3, 5, 49, 50, 1000, 3031, 4096] {
        let mut table = Table::new(&PollerOptions::default());
        for piece in stream.chunks(step) {
            if table.feed(piece).unwrap() == Flow::Paused {
                table.welcome();
                assert_eq!(table.feed(&[]).unwrap(), Flow::Open);
            }
        }
        assert_eq!(table.mail(), expected, "{step} bytes at a time");
        assert!(!table.conn.holds_input());
    }
}

#[test]
fn the_longest_frame_is_jute_maxbuffer() {
    let at_the_limit = set_data(1, 0xf_ffff - 8 - 6 - 4 - 4);
    assert_eq!(at_the_limit[..4], 0xf_ffff_i32.to_be_bytes());
    let mut table = Table::established();
    table.feed(&at_the_limit).unwrap();
    assert_eq!(table.mail(), ["1:5"]);
    for length in [0x10_0000, i32::MAX, -1, i32::MIN] {
        let mut table = Table::established();
        let cause = table.feed(&length.to_be_bytes()).unwrap_err();
        assert!(matches!(cause, CloseCause::FrameLength { .. }) && cause.is_remarkable(), "{length}");
        let mut table = Table::new(&PollerOptions::default());
        assert!(table.feed(&length.to_be_bytes()).is_err(), "{length}");
    }
}

#[test]
fn a_frame_without_a_whole_header_closes() {
    for length in 0..8 {
        let mut table = Table::established();
        let cause = table.feed(&frame(&vec![0; length])).unwrap_err();
        assert!(matches!(cause, CloseCause::Header(_)), "{length}");
    }
    let mut table = Table::established();
    table.feed(&frame(&[0; 8])).unwrap();
    assert_eq!(table.mail(), ["0:0"]);
}

#[test]
fn a_short_connect_request_closes_and_nobody_hears_of_it() {
    for length in [0, 1, 27] {
        let mut table = Table::new(&PollerOptions::default());
        assert!(matches!(table.feed(&frame(&vec![0; length])), Err(CloseCause::Connect(_))));
        assert!(!table.conn.known && table.mail().is_empty());
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut table = Table::established();
    table.feed(&set_data(1, 1_000_000)[..100]).unwrap();
    assert!(table.conn.input_capacity() < 1024);
    table.feed(&set_data(1, 1_000_000)[100..]).unwrap();
    assert_eq!(table.mail(), ["1:5"]);
    assert!(table.conn.input_capacity() < 1024, "and nothing is kept afterwards");
}

#[test]
fn a_word_may_come_in_pieces_and_what_follows_is_ignored() {
    let stream = [&b"ruok\r\n"[..], &connect(), &[b'x'; 9000]].concat();
    for step in [1, 3, stream.len()] {
        let mut table = Table::new(&words(&[Word::Ruok]));
        stream.chunks(step).for_each(|piece| assert_eq!(table.feed(piece).unwrap(), Flow::Open));
        assert_eq!(table.ingress.words, [(ID, Word::Ruok, None)], "{step} bytes at a time");
        assert!(table.ingress.batch.is_empty() && !table.conn.holds_input());
        assert_eq!(table.conn.stats.received, 1);
        table.outgoing(b"imok", 0, Fate::Close);
        assert!(table.conn.is_closing() && table.conn.output.unsent() == 4);
    }
}

#[test]
fn a_word_is_not_followed_by_endless_bytes() {
    let mut table = Table::new(&words(&[Word::Ruok]));
    table.feed(b"ruok").unwrap();
    let mut fed = 0;
    let cause = loop {
        fed += 65536;
        if let Err(cause) = table.feed(&[0; 65536]) {
            break cause;
        }
    };
    assert!(matches!(cause, CloseCause::Discarded) && fed <= limits::DISCARDED_BYTES_MAX + 65536);
}

#[test]
fn stmk_waits_for_its_mask() {
    for step in [1, 4, 5, 12, 20] {
        let mut table = Table::new(&words(&[Word::Stmk]));
        let mut stream = b"stmk".to_vec();
        stream.put_long(0x1_0000_0002);
        stream.extend(b"trailing");
        stream.chunks(step).for_each(|piece| assert_eq!(table.feed(piece).unwrap(), Flow::Open));
        assert_eq!(table.ingress.words, [(ID, Word::Stmk, Some(0x1_0000_0002))], "{step}");
    }
}

#[test]
fn a_word_off_the_whitelist_gets_a_refusal() {
    for word in Word::ALL {
        let mut table = Table::new(&words(&[]));
        table.feed(word.text().as_bytes()).unwrap();
        assert!(table.ingress.words.is_empty() && table.conn.is_closing());
        let text = format!("{} is not executed because it is not in the whitelist.\n", word.text());
        assert_eq!(table.conn.output.unsent(), text.len());
    }
}

#[test]
fn other_letters_are_a_length_and_close() {
    for text in [&b"xxxx"[..], b"RUOK", b"ruo\n", b"GET ", &[0xff, 0xf4, 0xff, 0xfd]] {
        let mut table = Table::new(&words(Word::ALL));
        assert!(table.feed(text).is_err());
        assert!(table.ingress.words.is_empty());
    }
}

#[test]
fn after_the_handshake_a_word_is_a_length() {
    let mut table = Table::new(&words(Word::ALL));
    let mut stream = connect();
    stream.extend(b"ruok");
    table.feed(&stream).unwrap();
    table.welcome();
    assert!(matches!(table.feed(&[]), Err(CloseCause::FrameLength { .. })));
    assert!(table.conn.known, "the pipeline heard of it, so it must hear of the end");
}

#[test]
fn what_cannot_be_decoded_is_still_a_request() {
    let mut table = Table::established();
    table.feed(&request(5, 4, &[0xff; 3])).unwrap();
    let [ToPipeline::Request { request, .. }] = &table.ingress.batch[..] else { panic!("one request") };
    assert!(request.op.is_malformed());
}

#[test]
fn a_pause_holds_what_was_read_and_goes_on_in_order() {
    let load = LoadLimits { outstanding: 2, ..LoadLimits::default() };
    let mut table = Table::new(&PollerOptions { load, ..PollerOptions::default() });
    let mut stream = connect();
    (1..=10).for_each(|xid| stream.extend(ping(xid)));
    stream.extend(&ping(11)[..7]);
    assert_eq!(table.feed(&stream).unwrap(), Flow::Paused);
    assert_eq!(table.mail(), ["connect 10000"], "nothing overtakes the answer to the connect request");
    table.welcome();
    assert_eq!(table.feed(&[]).unwrap(), Flow::Paused);
    assert_eq!(table.mail(), ["1:11", "2:11", "3:11"]);
    let mut seen = 3;
    while seen < 10 {
        table.outgoing(&[], 1, Fate::Open);
        seen += 1;
        assert_eq!(table.feed(&[]).unwrap(), Flow::Paused);
        assert_eq!(table.mail(), [format!("{seen}:11")]);
    }
    table.outgoing(&[], 3, Fate::Open);
    assert_eq!(table.feed(&[]).unwrap(), Flow::Open);
    table.feed(&ping(11)[7..]).unwrap();
    assert_eq!(table.mail(), ["11:11"]);
}

#[test]
fn unread_replies_pause_and_their_leaving_resumes() {
    let mut table = Table::established();
    table.feed(&ping(1)).unwrap();
    table.outgoing(&vec![0; limits::UNSENT_BYTES_PAUSE + 1], 1, Fate::Open);
    assert_eq!(table.feed(&ping(2)).unwrap(), Flow::Paused);
    assert_eq!(table.mail(), ["1:11"]);
    table.conn.output.advance(1);
    assert_eq!(table.feed(&[]).unwrap(), Flow::Open);
    assert_eq!(table.mail(), ["2:11"]);
}

#[test]
fn one_large_request_too_many_closes_before_it_is_read() {
    let load = LoadLimits { large_threshold: Some(1000), large_bytes_max: 3000, ..LoadLimits::default() };
    let mut table = Table::new(&PollerOptions { load, ..PollerOptions::default() });
    table.feed(&connect()).unwrap();
    table.welcome();
    table.feed(&set_data(1, 2000)).unwrap();
    table.feed(&set_data(2, 900)).unwrap();
    let cause = table.feed(&set_data(3, 2000)[..4]).unwrap_err();
    assert!(matches!(cause, CloseCause::LargeRequest { length: 2022 }));
}

#[test]
fn a_connect_request_over_the_rate_closes_unheard() {
    let throttle = ThrottleOptions { tokens: 1, fill_time_ms: 1_000_000, ..ThrottleOptions::default() };
    let mut table = Table::new(&PollerOptions { throttle, ..PollerOptions::default() });
    table.feed(&connect()).unwrap();
    table.conn = Conn::new(ID, table.conn.peer, 1000);
    assert!(matches!(table.feed(&connect()), Err(CloseCause::Throttled)));
    assert!(!table.conn.known);
    assert_eq!(table.mail().len(), 1);
}

#[test]
fn nothing_is_read_of_a_closing_connection() {
    let mut table = Table::established();
    table.outgoing(b"bye", 0, Fate::Close);
    table.feed(&ping(1)).unwrap();
    table.outgoing(b"late", 0, Fate::Open);
    assert!(table.mail().is_empty());
    assert_eq!(table.conn.output.unsent(), 3);
}

#[test]
fn silence_ends_in_buckets_of_the_sessionless_timeout() {
    let mut table = Table::new(&PollerOptions::default());
    for (begun_ms, until_ms) in [(10_000, 30_000), (10_001, 30_000), (19_999, 30_000), (20_000, 40_000)] {
        table.conn.begun_ms = begun_ms;
        assert_eq!(table.conn.silent_until_ms(10_000), until_ms);
        // A byte in a while does not put that off.
        table.conn.last_io_ms = begun_ms + 9_000;
        assert_eq!(table.conn.silent_until_ms(10_000), until_ms);
    }
    let mut table = Table::established();
    table.conn.last_io_ms = 15_999;
    assert_eq!(table.conn.silent_until_ms(10_000), 20_000);
    table.conn.last_io_ms = 16_000;
    assert_eq!(table.conn.silent_until_ms(10_000), 30_000);
}

#[test]
fn cons_shows_what_went_through() {
    let mut table = Table::new(&PollerOptions::default());
    assert!(table.conn.view(true, 10_000).session.is_none());
    table.feed(&connect()).unwrap();
    let session = Fate::Established { session: SessionId(8), timeout_ms: 4000 };
    let connected = Outgoing {
        conn: ID,
        bytes: vec![0; 41].into(),
        frames: 1,
        tell_drained: false,
        answered: 0,
        fate: session,
        last: None,
    };
    table.conn.on_outgoing(connected, &mut table.ingress.load, 5_000_000, 77);
    table.feed(&[ping(1), ping(2)].concat()).unwrap();
    let last = LastAnswer { op: "PING", cxid: -2, zxid: Zxid(4), received_us: 4_990_000 };
    let answer = Outgoing {
        conn: ID,
        bytes: vec![0; 20].into(),
        frames: 1,
        tell_drained: false,
        answered: 1,
        fate: Fate::Open,
        last: Some(last),
    };
    table.conn.on_outgoing(answer, &mut table.ingress.load, 5_000_000, 78);
    let view = table.conn.view(true, 10_000);
    assert_eq!((view.interest_ops, view.queued, view.received, view.sent), (5, 1, 3, 2));
    let session = view.session.unwrap();
    assert_eq!((session.id, session.established_wall_ms, session.last_latency_ms), (SessionId(8), 77, 10));
    assert!(matches!(table.conn.phase(), Phase::Established { .. }));
}

#[test]
fn writes_and_syncs_keep_their_bytes_in_an_ensemble_only() {
    let bodies = |keep_bodies| {
        let mut table = Table::new(&PollerOptions { keep_bodies, ..PollerOptions::default() });
        table.feed(&connect()).unwrap();
        table.welcome();
        table.ingress.batch.clear();
        for bytes in
            [set_data(1, 1), request(2, 9, b"sync"), request(3, 4, b"read"), request(4, 13, b"check?"), ping(5)]
        {
            table.feed(&bytes).unwrap();
        }
        let body = |mail: ToPipeline| match mail {
            ToPipeline::Request { request, .. } => request.body,
            other => panic!("{other:?}"),
        };
        table.ingress.batch.drain(..).map(body).collect::<Vec<_>>()
    };
    let set = set_data(1, 1)[12..].to_vec();
    assert_eq!(bodies(true), [set, b"sync".to_vec(), Vec::new(), b"check?".to_vec(), Vec::new()]);
    assert!(bodies(false).iter().all(Vec::is_empty));
}

/// So much room, and a connection that has its session.
fn tables_with_room(bytes_max: usize) -> (Ingress, impl FnMut(&mut Ingress, u32) -> Conn) {
    let load = LoadLimits { bytes_max, ..LoadLimits::default() };
    let ingress = Ingress::new(&PollerOptions { load, ..PollerOptions::default() }, 1);
    let open = |ingress: &mut Ingress, slot| {
        let mut conn = Conn::new(ConnId { slot, generation: 1 }, SocketAddr::from(([127, 0, 0, 1], 1)), 0);
        ingress.take(&mut conn, &connect(), 0).unwrap();
        let fate = Fate::Established { session: SessionId(i64::from(slot)), timeout_ms: 4000 };
        conn.on_outgoing(answer(conn.id, 0, fate), &mut ingress.load, 0, 0);
        ingress.batch.clear();
        conn
    };
    (ingress, open)
}

fn answer(conn: ConnId, answered: u32, fate: Fate) -> Outgoing {
    Outgoing { conn, bytes: Parts::default(), frames: answered, tell_drained: false, answered, fate, last: None }
}

#[test]
fn unfinished_frames_take_room_and_whoever_has_room_can_finish() {
    let (mut ingress, mut open) = tables_with_room(25_000);
    let mut conns: Vec<Conn> = (1..=6).map(|slot| open(&mut ingress, slot)).collect();
    let frame = set_data(1, 10_000);
    // All at once, a piece of each: two have room.
    for conn in &mut conns {
        let flow = ingress.take(conn, &frame[..4000], 0).unwrap();
        assert_eq!(flow, if conn.id.slot <= 2 { Flow::Open } else { Flow::Paused });
        assert_eq!(ingress.may_read(conn), conn.id.slot <= 2);
    }
    // Small requests pass by those in line.
    let mut another = open(&mut ingress, 7);
    assert_eq!(ingress.take(&mut another, &ping(9), 0).unwrap(), Flow::Open);
    assert_eq!(ingress.batch.drain(..).count(), 1);
    let mut order = Vec::new();
    while order.len() < conns.len() {
        while let Some(id) = ingress.load.first_with_room() {
            let conn = &mut conns[id.slot as usize - 1];
            ingress.load.let_first_in(&mut conn.account);
            ingress.take(conn, &[], 0).unwrap();
        }
        let conn = conns.iter_mut().find(|conn| conn.account.is_receiving()).expect("somebody can always go on");
        assert_eq!(ingress.take(conn, &frame[4000..], 0).unwrap(), Flow::Open);
        assert!(matches!(ingress.batch.pop(), Some(ToPipeline::Request { conn: id, .. }) if id == conn.id));
        order.push(conn.id.slot);
        conn.on_outgoing(answer(conn.id, 1, Fate::Open), &mut ingress.load, 0, 0);
    }
    assert_eq!(order, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_a_connection_sends_ahead_waits_for_room_like_the_rest() {
    let (mut ingress, mut open) = tables_with_room(25_000);
    let mut conn = open(&mut ingress, 1);
    let stream: Vec<u8> = (1..=5).flat_map(|xid| set_data(xid, 10_000)).collect();
    assert_eq!(ingress.take(&mut conn, &stream, 0).unwrap(), Flow::Paused);
    assert_eq!(ingress.batch.len(), 2);
    for answered in 1..=3 {
        conn.on_outgoing(answer(conn.id, 1, Fate::Open), &mut ingress.load, 0, 0);
        assert_eq!(ingress.load.first_with_room(), Some(conn.id));
        ingress.load.let_first_in(&mut conn.account);
        ingress.take(&mut conn, &[], 0).unwrap();
        assert_eq!(ingress.batch.len(), 2 + answered);
    }
    assert!(!conn.holds_input() && !ingress.load.is_tight());
}

#[test]
fn who_ends_in_the_middle_of_a_frame_or_in_line_gives_its_room_and_its_place_back() {
    let (mut ingress, mut open) = tables_with_room(15_000);
    let [mut first, mut second, mut third] = [1, 2, 3].map(|slot| open(&mut ingress, slot));
    let frame = set_data(1, 10_000);
    for conn in [&mut first, &mut second, &mut third] {
        ingress.take(conn, &frame[..2000], 0).unwrap();
    }
    assert_eq!(ingress.load.first_with_room(), None);
    // The pipeline closes one in line, then the one with room.
    second.on_outgoing(answer(second.id, 0, Fate::Close), &mut ingress.load, 0, 0);
    first.on_outgoing(answer(first.id, 0, Fate::Close), &mut ingress.load, 0, 0);
    assert_eq!(ingress.load.first_with_room(), Some(third.id));
    ingress.load.on_closed(third.id, third.account);
    assert!(!ingress.load.is_tight());
}

#[test]
fn a_frame_that_stops_coming_is_given_up_only_when_its_client_is_to_blame() {
    let (mut ingress, mut open) = tables_with_room(15_000);
    let mut conn = open(&mut ingress, 1);
    let look = |conn: &mut Conn, bytes: u64, is_up_to_client: bool| {
        conn.received_bytes += bytes;
        let came = conn.came_since_look(is_up_to_client);
        conn.look(came, limits::FRAME_BYTES_PER_LOOK)
    };
    for _ in 0..10 {
        look(&mut conn, 0, true).expect("nothing is being received");
    }
    ingress.take(&mut conn, &set_data(1, 10_000)[..2000], 0).unwrap();
    for _ in 0..10 {
        look(&mut conn, 0, false).expect("it is not read");
        look(&mut conn, limits::FRAME_BYTES_PER_LOOK, true).expect("it comes");
    }
    for _ in 1..limits::SLOW_LOOKS_MAX {
        look(&mut conn, limits::FRAME_BYTES_PER_LOOK - 1, true).expect("it may come yet");
    }
    let cause = look(&mut conn, 0, true).unwrap_err();
    assert!(matches!(cause, CloseCause::Slow { .. }) && cause.is_remarkable(), "{cause}");
}

#[test]
fn a_share_has_as_many_as_were_asked_for_each_once_and_by_chance() {
    let mut ingress = Ingress::new(&PollerOptions::default(), 1);
    for (count, percent, wanted) in
        [(0, 50, 0), (1, 49, 0), (1, 50, 1), (10, 0, 0), (10, 30, 3), (7, 50, 4), (9, 100, 9)]
    {
        let mut taken = ingress.share((0..count).collect::<Vec<usize>>(), percent);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), wanted, "{percent} % of {count}");
        assert!(taken.iter().all(|&item| item < count));
    }
    let all: Vec<usize> = (0..1000).collect();
    assert_ne!(ingress.share(all.clone(), 50), ingress.share(all, 50));
}
