//! Hostile and broken clients against the real server, over real sockets. While each kind is at it, a well-behaved client
//! goes on writing and reading; at the end the server is alive, has not taken more memory than it may, has logged no more
//! than a line a connection, and stops in an orderly way.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use rookeeper::ops::encode;
#[path = "support/server.rs"]
mod server;

use std::net::Shutdown;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rookeeper::jute::Writer;
use rookeeper::ops::{
    AuthOp, Create, Delete, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Request, SetAcl, SetData, SetWatches,
    WriteOp,
};
use rookeeper::records::Acl;
use server::{Client, Reply, Server, connect_frame};

/// `jute.maxbuffer`.
const FRAME_BYTES_MAX: usize = 0xf_ffff;
/// Memory that is fine on a host of 2 GB, MB. One connection may have 256 MB of replies waiting for it.
const RESIDENT_MB_MAX: u64 = 700;

/// A client that behaves: writes, reads back what it wrote, and expects to be answered.
struct Witness {
    client: Client,
    count: u32,
}

impl Witness {
    fn new(server: &Server) -> Witness {
        let mut client = Client::connect(server);
        assert_eq!(client.ask(1, create("/witness", b"")).err, 0);
        Witness { client, count: 0 }
    }

    fn goes_on(&mut self) {
        for _ in 0..20 {
            self.count += 1;
            let data = self.count.to_be_bytes();
            let set = SetData { path: "/witness".into(), data: Some(data.to_vec()), version: -1 };
            assert_eq!(self.client.ask(5, Op::Write(WriteOp::SetData(set))).err, 0);
            let read = self.client.ask(4, get("/witness"));
            assert_eq!(read.body[4..8], data);
        }
    }
}

fn create_as(path: &str, data: &[u8], acl: Vec<Acl>) -> Create {
    Create { code: OpCode::Create, path: path.into(), data: Some(data.to_vec()), acl: Some(acl), flags: 0, ttl_ms: -1 }
}

fn create(path: &str, data: &[u8]) -> Op {
    Op::Write(WriteOp::Create(create_as(path, data, Acl::open())))
}

fn get(path: &str) -> Op {
    Op::Read(ReadOp::GetData(PathWatch { path: path.into(), watch: false }))
}

/// Ends a server. It has complained at most so often, a line each; gives those lines.
fn end(server: Server, complaints_max: usize) -> Vec<String> {
    let peak_mb = server.resident_mb_max();
    println!("at most {peak_mb} MB were resident");
    assert!(peak_mb < RESIDENT_MB_MAX, "{peak_mb} MB were resident");
    let log = server.stop();
    let is_new = |line: &String| line.contains("this server begins with nothing");
    let is_complaint = |line: &String| (line.contains("WARN") || line.contains("ERROR")) && !is_new(line);
    let complaints: Vec<String> = log.into_iter().filter(is_complaint).collect();
    assert!(complaints.len() <= complaints_max, "too many complaints:\n{}", complaints.join("\n"));
    complaints
}

/// Bytes that follow from a seed.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// What makes the server close a connection, without and with a session.
fn broken_beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let length = |n: i32| n.to_be_bytes().to_vec();
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("negative length", length(-1)),
        ("least length", length(i32::MIN)),
        ("length beyond jute.maxbuffer", length(FRAME_BYTES_MAX as i32 + 1)),
        ("greatest length", length(i32::MAX)),
        ("empty connect request", length(0)),
        ("short connect request", [length(10), vec![0; 10]].concat()),
        ("password longer than the frame", {
            let mut content = vec![0; 24];
            content.put_int(1_000_000);
            encode::framed(&content)
        }),
        ("telnet", vec![0xff, 0xf4, 0xff, 0xfd, 0x06]),
    ]
}

#[test]
fn broken_bytes_close_their_connection_and_nothing_else() {
    let server = Server::start("maxClientCnxns=0", &[]);
    let mut witness = Witness::new(&server);
    let mut broken = 0;
    for (what, bytes) in broken_beginnings() {
        println!("{what}");
        let mut client = Client::dial(&server);
        client.say(&bytes);
        client.wait_for_the_end();
        broken += 1;
    }
    witness.goes_on();
    let short_header = encode::framed(&[0; 7]);
    let unknown = encode::framed(&encode::request(&Request {
        xid: 1,
        op_number: 77,
        op: Op::Read(ReadOp::Unknown),
        body: Vec::new(),
    }));
    for bytes in [(-5_i32).to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec(), short_header, unknown] {
        let mut client = Client::connect(&server);
        client.say(&bytes);
        client.wait_for_the_end();
        broken += 1;
    }
    witness.goes_on();
    for seed in 0..200 {
        let mut client = if seed % 2 == 0 { Client::dial(&server) } else { Client::connect(&server) };
        // As a length, the first bytes are negative.
        client.say(&[&[0x80], &noise(seed, 3000)[..]].concat());
        client.wait_for_the_end();
        broken += 1;
    }
    witness.goes_on();
    let complaints = end(server, broken);
    assert!(complaints[0].contains("malformed or longer than jute.maxbuffer"), "{complaints:?}");
    assert!(complaints.iter().any(|line| line.contains("unknown opcode 77")), "{complaints:?}");
}

#[test]
fn the_longest_frame_is_answered_and_one_byte_more_closes() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    let overhead = encode::request(&Request { xid: 1, op_number: 1, op: create("/long", b""), body: Vec::new() }).len();
    let data = vec![7; FRAME_BYTES_MAX - overhead];
    let mut client = Client::connect(&server);
    assert_eq!(client.ask(1, create("/long", &data)).err, 0);
    let read = client.ask(4, get("/long"));
    assert!(read.err == 0 && read.body[4..4 + data.len()] == data);
    client.send(1, create("/longer", &[&data[..], &[7]].concat()));
    client.wait_for_the_end();
    let mut client = Client::connect(&server);
    assert_eq!(client.ask(3, Op::Read(ReadOp::Exists(PathWatch { path: "/longer".into(), watch: false }))).err, -101);
    witness.goes_on();
    end(server, 1);
}

#[test]
fn clients_that_stop_halfway_hold_up_nobody() {
    let server = Server::start("maxClientCnxns=0", &[]);
    let mut witness = Witness::new(&server);
    let request =
        encode::framed(&encode::request(&Request { xid: 1, op_number: 1, op: create("/x", b"x"), body: Vec::new() }));
    let mut halves = Vec::new();
    for n in 0..100 {
        let mut client = Client::dial(&server);
        match n % 5 {
            0 => client.say(&connect_frame()[..n / 3]),
            1 => client.say(&connect_frame()),
            2 => client.say(&[&connect_frame(), &request[..n / 4]].concat()),
            3 => client.say(b"stm"),
            // As long as a connect request may be.
            _ => client.say(&1024_i32.to_be_bytes()),
        }
        if n % 2 == 0 {
            // Half-open: it will not say more, and reads on.
            client.stream.shutdown(Shutdown::Write).unwrap();
        }
        halves.push(client);
    }
    witness.goes_on();
    // Those who said they would not say more are closed; the server still waits for the others.
    halves.iter_mut().step_by(2).for_each(Client::wait_for_the_end);
    witness.goes_on();
    drop(halves);
    witness.goes_on();
    end(server, 0);
}

#[test]
fn a_slow_reader_gets_all_its_replies_once_it_reads() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    let mut slow = Client::connect(&server);
    assert_eq!(slow.ask(1, create("/mega", &noise(1, 1_000_000))).err, 0);
    let asked: Vec<i32> = (0..21).map(|_| slow.send(4, get("/mega"))).collect();
    witness.goes_on();
    for xid in asked {
        let reply = slow.reply();
        assert_eq!((reply.xid, reply.err), (xid, 0));
        assert!(reply.body[4..1_000_004] == noise(1, 1_000_000));
        witness.goes_on();
    }
    end(server, 0);
}

/// Asks for gigabytes and reads nothing: behind a write, so that all of it is due at once.
#[test]
fn readers_that_never_read_do_not_take_the_memory() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    assert_eq!(witness.client.ask(1, create("/mega", &noise(1, 1_000_000))).err, 0);
    let mut deaf = Vec::new();
    for n in 0..4 {
        let mut client = Client::connect(&server);
        let mut all = Vec::new();
        let mut add = |op_number, op| {
            all.extend(encode::framed(&encode::request(&Request { xid: 1, op_number, op, body: Vec::new() })));
        };
        if n % 2 == 0 {
            add(5, Op::Write(WriteOp::SetData(SetData { path: "/witness".into(), data: None, version: -1 })));
        }
        (0..3000).for_each(|_| add(4, get("/mega")));
        client.say(&all);
        deaf.push(client);
        witness.goes_on();
    }
    witness.goes_on();
    drop(deaf);
    witness.goes_on();
    end(server, 4);
}

#[test]
fn one_request_cannot_ask_for_more_than_a_reply_may_hold() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    assert_eq!(witness.client.ask(1, create("/mega", &noise(1, 1_000_000))).err, 0);
    let mut greedy = Client::connect(&server);
    let reads = (0..30_000).map(|_| MultiReadOp::GetData { path: "/mega".into() }).collect();
    greedy.send(22, Op::Read(ReadOp::MultiRead(reads)));
    greedy.wait_for_the_end();
    witness.goes_on();
    end(server, 1);
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    let limit = raise_open_files();
    let count = 10_000.min(limit.saturating_sub(200)) as usize;
    let server = Server::start("maxClientCnxns=0", &[]);
    let mut witness = Witness::new(&server);
    let before_mb = server.resident_mb();
    let mut idle: Vec<Client> = Vec::with_capacity(count);
    for n in 0..count {
        let mut client = Client::dial(&server);
        if n % 4 != 0 {
            client.say(&connect_frame());
        }
        idle.push(client);
        if n % 1000 == 0 {
            witness.goes_on();
        }
    }
    for (_, client) in idle.iter_mut().enumerate().filter(|(n, _)| n % 4 != 0) {
        assert!(client.try_frame().is_some(), "each of them gets its session");
    }
    witness.goes_on();
    let each_kb = (server.resident_mb() - before_mb) * 1024 / count as u64;
    assert!(each_kb < 10, "{each_kb} KB for each of {count} connections");
    drop(idle);
    witness.goes_on();
    end(server, 0);
}

fn raise_open_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

#[test]
fn floods_beyond_the_limits_of_connections_are_turned_away() {
    for limit in ["maxClientCnxns=20", "maxClientCnxns=0\nmaxCnxns=20"] {
        let server = Server::start(limit, &[]);
        let mut witness = Witness::new(&server);
        let mut inside: Vec<Client> = (1..20).map(|_| Client::connect(&server)).collect();
        for n in 0..500 {
            assert!(Client::try_connect(&server).is_none(), "one too many");
            if n % 100 == 0 {
                witness.goes_on();
            }
        }
        assert_eq!(inside[7].ask(4, get("/")).err, 0, "those who are in stay in");
        // Room for one: as soon as the server has seen that somebody left.
        drop(inside.pop());
        while Client::try_connect(&server).is_none() {}
        witness.goes_on();
        // About one line a second for a flood.
        end(server, 30);
    }
}

#[test]
fn monstrous_paths_are_refused() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    let mut client = Client::connect(&server);
    let long = format!("/{}", "a".repeat(1_000_000));
    let deep = "/a".repeat(500_000);
    let (no_node, bad_arguments) = (-101, -8);
    for path in [long.clone(), deep.clone()] {
        let target = PathWatch { path: path.clone(), watch: true };
        assert_eq!(client.ask(3, Op::Read(ReadOp::Exists(target.clone()))).err, no_node);
        assert_eq!(client.ask(4, Op::Read(ReadOp::GetData(target.clone()))).err, no_node);
        assert_eq!(client.ask(8, Op::Read(ReadOp::GetChildren { target, with_stat: false })).err, no_node);
        assert_eq!(client.ask(2, Op::Write(WriteOp::Delete(Delete { path: path.clone(), version: -1 }))).err, no_node);
        let set = SetData { path: path.clone(), data: None, version: -1 };
        assert_eq!(client.ask(5, Op::Write(WriteOp::SetData(set))).err, no_node);
        assert_eq!(client.ask(6, Op::Read(ReadOp::GetAcl { path: path.clone() })).err, no_node);
        assert_eq!(client.ask(106, Op::Read(ReadOp::AddWatch { path, recursive: true })).err, 0);
        witness.goes_on();
    }
    assert_eq!(client.ask(1, create(&deep, b"")).err, no_node);
    assert_eq!(client.ask(1, create(&format!("{long}/"), b"")).err, no_node);
    assert_eq!(client.ask(1, create(&format!("/{}\u{1}", "a".repeat(1_000_000)), b"")).err, bad_arguments);
    // A long name is a name.
    let xid = client.send(1, create(&long, b""));
    assert_eq!(client.reply().xid, -1, "the watches left above hear of it");
    assert_eq!(client.reply(), Reply { xid, err: 0, body: encode::string(&long) });
    assert_eq!(client.ask(3, Op::Read(ReadOp::Exists(PathWatch { path: long.clone(), watch: false }))).err, 0);
    client.send(2, Op::Write(WriteOp::Delete(Delete { path: long, version: -1 })));
    assert_eq!((client.reply().xid, client.reply().err), (-1, 0));
    witness.goes_on();
    // A line for reads and one for writes: such a name is too long for a metric.
    end(server, 2);
}

#[test]
fn a_multi_of_ten_thousand_is_done_or_not_at_all() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    let mut client = Client::connect(&server);
    assert_eq!(client.ask(1, create("/m", b"")).err, 0);
    let creates = |name: &str| -> Vec<MultiOp> {
        (0..10_000).map(|n| MultiOp::Create(create_as(&format!("/m/{name}{n}"), b"", Acl::open()))).collect()
    };
    let count =
        |client: &mut Client| client.ask(104, Op::Read(ReadOp::GetAllChildrenNumber { path: "/m".into() })).body;
    let mut failing = creates("a");
    failing.push(MultiOp::Check { path: "/m".into(), version: 7 });
    assert_eq!(client.ask(14, Op::Write(WriteOp::Multi(failing))).err, 0);
    assert_eq!(count(&mut client), 0_i32.to_be_bytes());
    assert_eq!(client.ask(14, Op::Write(WriteOp::Multi(creates("b")))).err, 0);
    assert_eq!(count(&mut client), 10_000_i32.to_be_bytes());
    witness.goes_on();
    let deletes = (0..10_000).map(|n| MultiOp::Delete(Delete { path: format!("/m/b{n}"), version: -1 })).collect();
    assert_eq!(client.ask(14, Op::Write(WriteOp::Multi(deletes))).err, 0);
    let checks = (0..40_000).map(|_| MultiOp::Check { path: "/m".into(), version: -1 }).collect();
    assert_eq!(client.ask(14, Op::Write(WriteOp::Multi(checks))).err, 0);
    assert_eq!(count(&mut client), 0_i32.to_be_bytes());
    witness.goes_on();
    end(server, 0);
}

#[test]
fn lists_of_a_hundred_thousand_entries_are_refused_at_once() {
    let server = Server::start("", &["jute.maxbuffer=4194304"]);
    let mut witness = Witness::new(&server);
    let mut client = Client::connect(&server);
    let list: Vec<Acl> = (0..100_000).map(|n| Acl::new(31, "ip", &format!("10.{}.{}.1", n / 256, n % 256))).collect();
    let invalid_acl = -114;
    assert_eq!(client.ask(1, Op::Write(WriteOp::Create(create_as("/listed", b"", list.clone())))).err, invalid_acl);
    witness.goes_on();
    let same = vec![Acl::new(31, "world", "anyone"); 100_000];
    assert_eq!(client.ask(1, Op::Write(WriteOp::Create(create_as("/listed", b"", same)))).err, 0);
    // As many `auth` entries as fit, times as many identities as there is room for.
    let auths: Vec<Acl> = (1..=100_000).map(|perms| Acl::new(perms, "auth", "")).collect();
    for n in 0..50 {
        let credentials = Some(format!("user{n}:p").into_bytes());
        assert_eq!(client.ask(100, Op::Auth(AuthOp::Scheme { scheme: Some("digest".into()), credentials })).err, 0);
    }
    let set = SetAcl { path: "/listed".into(), acl: Some(auths), version: -1 };
    assert_eq!(client.ask(7, Op::Write(WriteOp::SetAcl(set))).err, invalid_acl);
    witness.goes_on();
    // Whoever adds more identities than there is room for goes on without them.
    let credentials = |n: i32| Some(format!("another{n}:p").into_bytes());
    let add = |n| Op::Auth(AuthOp::Scheme { scheme: Some("digest".into()), credentials: credentials(n) });
    let refused = (0..2000).filter(|n| client.ask(100, add(*n)).err == -8).count();
    assert_eq!(refused, 2000 - (1024 - 51));
    witness.goes_on();
    // Once a second, whatever is refused.
    end(server, 60);
}

#[test]
fn a_hundred_thousand_watches_on_one_connection_are_kept_and_fired() {
    let server = Server::start("", &[]);
    let mut witness = Witness::new(&server);
    let mut client = Client::connect(&server);
    for frame in 0..5 {
        let exist = (0..20_000).map(|n| format!("/w/{frame}-{n}")).collect();
        let nothing = Vec::new;
        let watches = SetWatches {
            relative_zxid: 0,
            data: nothing(),
            exist,
            child: nothing(),
            persistent: nothing(),
            persistent_recursive: nothing(),
        };
        assert_eq!(client.ask(101, Op::Read(ReadOp::SetWatches(Box::new(watches)))).err, 0);
        witness.goes_on();
    }
    let mut maker = Client::connect(&server);
    assert_eq!(maker.ask(1, create("/w", b"")).err, 0);
    for frame in 0..5 {
        let path = |n| format!("/w/{frame}-{n}");
        let creates = (0..10_000).map(|n| MultiOp::Create(create_as(&path(n), b"", Acl::open()))).collect();
        assert_eq!(maker.ask(14, Op::Write(WriteOp::Multi(creates))).err, 0);
        for n in 0..10_000 {
            let event = client.reply();
            assert_eq!((event.xid, &event.body[8..]), (-1, &encode::string(&path(n))[..]));
        }
        witness.goes_on();
    }
    drop(client);
    witness.goes_on();
    end(server, 0);
}
