//! What the pipeline does as time goes by, told with time as a value: sessions expire, nodes with a time to live and empty
//! containers go, late requests are refused. The log is this test: it commits when it is told to.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rookeeper::admin::view::ServerView;
use rookeeper::ids::{ConnId, Now, SessionId, Zxid};
use rookeeper::jute::Reader;
use rookeeper::limits::{
    CHILDLESS_LOOKED_AT_ONCE, EXPIRING_NODES, LISTED_AT_ONCE, LISTED_MAX, WATCHES_REMOVED_AT_ONCE, WATCHES_SET_AT_ONCE,
    WATCHES_SET_IN_TURNS,
};
use rookeeper::mail::{Fate, LogRecord, Outgoing, Role, ToPipeline};
use rookeeper::ops::{
    AuthOp, ConnectRequest, Create, Delete, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Request, SetAcl,
    SetData, SetWatches, WriteOp,
};
use rookeeper::pipeline::{Pipeline, Rules};
use rookeeper::records::{Acl, OwnerRules};
use rookeeper::state::{State, StateRules};
use rookeeper::txn::{CreateOwner, CreateTxn, Txn, TxnBody, TxnHeader};

const TICK_MS: i64 = 2000;

fn rules() -> Rules {
    Rules {
        tick_ms: TICK_MS,
        session_timeout_ms_min: 4000,
        session_timeout_ms_max: 40_000,
        extended_types: true,
        ..Rules::default()
    }
}

/// A pipeline whose log is always quick, and a clock that stands still until it is moved.
struct Server {
    core: Pipeline,
    now: Now,
    xid: i32,
}

/// What a connection was told.
#[derive(Debug, Default)]
struct Told {
    bytes: Vec<u8>,
    closed: bool,
}

impl Told {
    /// The error of the last reply.
    fn code(&self) -> i32 {
        let mut code = 0;
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let mut frame = Reader::new(rest);
            let length = frame.int().unwrap() as usize;
            let (_xid, _zxid) = (frame.int().unwrap(), frame.long().unwrap());
            code = frame.int().unwrap();
            rest = &rest[4 + length..];
        }
        code
    }
}

impl Server {
    fn new(rules: Rules) -> Server {
        Server::with(rules, &[])
    }

    /// With nodes that were made before, and what their making left the parent's count of creates at.
    fn with(rules: Rules, nodes: &[(&str, i32)]) -> Server {
        let owners = OwnerRules { extended_types: true, emulate_353: false };
        Server::with_state(rules, StateRules::new(owners, true), nodes)
    }

    fn with_state(rules: Rules, state_rules: StateRules, nodes: &[(&str, i32)]) -> Server {
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 };
        let mut state = State::fresh(state_rules);
        for (zxid, (path, parent_cversion)) in (1..).zip(nodes) {
            let header = TxnHeader { client_id: SessionId(1), cxid: 1, zxid: Zxid(zxid), time_ms: now.wall_ms };
            let create = CreateTxn {
                path: (*path).into(),
                data: None,
                acl: Acl::open(),
                owner: CreateOwner::None,
                with_stat: false,
                parent_cversion: *parent_cversion,
            };
            state.replay(&Txn { header, body: TxnBody::Create(create), digest: None });
        }
        Server { core: Pipeline::new(rules, state, now, 1), now, xid: 0 }
    }

    /// Time goes on, with a turn whenever one was asked for; whatever is due is done.
    fn wait(&mut self, ms: i64) {
        let end_ms = self.now.mono_ms + ms;
        while self.now.mono_ms < end_ms {
            let next_ms = self.core.next_deadline_ms().clamp(self.now.mono_ms + 1, end_ms);
            self.now.wall_ms += next_ms - self.now.mono_ms;
            self.now.mono_ms = next_ms;
            self.core.set_time(self.now, self.now.mono_ms * 1000);
            self.core.tick();
            self.commit(conn(u32::MAX));
        }
    }

    /// Commits until nothing is left to commit; gives what one connection was told meanwhile.
    fn commit(&mut self, whom: ConnId) -> Told {
        let mut told = Told::default();
        loop {
            let out = self.core.take_outbox();
            for outgoing in out.poller.outgoing.into_iter().filter(|o| o.conn == whom) {
                told.bytes.extend(outgoing.bytes.into_vec());
                told.closed |= outgoing.fate == Fate::Close;
            }
            match out.records.last() {
                Some(record) => self.core.step(ToPipeline::Committed { zxid: record.zxid, at_us: 0, synced: vec![] }),
                None => return told,
            }
        }
    }

    fn connect(&mut self, whom: ConnId) {
        let peer: SocketAddr = "127.0.0.1:1234".parse().unwrap();
        let request =
            ConnectRequest { last_zxid_seen: 0, timeout_ms: 4000, session_id: 0, password: vec![], read_only: None };
        self.core.step(ToPipeline::Connect { conn: whom, peer, request });
        assert!(!self.commit(whom).closed);
    }

    /// A request that was read `late_ms` ago.
    fn ask_late(&mut self, whom: ConnId, op_number: i32, op: Op, late_ms: i64) -> Told {
        self.xid += 1;
        let request = Request { xid: self.xid, op_number, op, body: Vec::new() };
        let received_us = (self.now.mono_ms - late_ms) * 1000;
        self.core.step(ToPipeline::Request { conn: whom, request, received_us });
        self.commit(whom)
    }

    fn ask(&mut self, whom: ConnId, op_number: i32, op: Op) -> Told {
        self.ask_late(whom, op_number, op, 0)
    }

    fn create(&mut self, whom: ConnId, code: OpCode, path: &str, flags: i32, ttl_ms: i64) {
        let create = Create { code, path: path.into(), data: None, acl: Some(Acl::open()), flags, ttl_ms };
        assert_eq!(self.ask(whom, code as i32, Op::Write(WriteOp::Create(create))).code(), 0);
    }

    fn auth(&mut self, whom: ConnId, scheme: &str, credentials: &str) -> Told {
        let op = Op::Auth(AuthOp::Scheme { scheme: Some(scheme.into()), credentials: Some(credentials.into()) });
        self.ask(whom, OpCode::Auth as i32, op)
    }

    fn has(&self, path: &str) -> bool {
        self.core.state().tree().lookup(path).is_some()
    }

    fn zxid(&self) -> Zxid {
        self.core.state().last_zxid()
    }
}

fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: slot }
}

fn get(path: &str) -> Op {
    Op::Read(ReadOp::GetData(PathWatch { path: path.into(), watch: false }))
}

#[test]
fn a_silent_session_expires_within_a_tick_of_its_timeout_and_takes_its_ephemerals_along() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.create(conn(1), OpCode::Create, "/e", 1, -1);
    server.wait(3000);
    server.ask(conn(1), OpCode::Ping as i32, Op::Read(ReadOp::Ping));
    server.wait(4000);
    assert!(server.has("/e"), "it was heard of 4 s ago");
    server.wait(TICK_MS);
    assert!(!server.has("/e"));
    assert_eq!(server.core.state().session_count(), 0);
}

#[test]
fn a_node_with_a_time_to_live_goes_when_it_is_over_and_childless() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.create(conn(1), OpCode::CreateTtl, "/t", 5, 100_000);
    server.create(conn(1), OpCode::CreateTtl, "/kept", 5, 100_000);
    server.create(conn(1), OpCode::Create, "/kept/child", 0, -1);
    server.wait(60_000);
    assert!(server.has("/t"));
    server.wait(60_000);
    assert!(!server.has("/t"));
    assert!(server.has("/kept"), "a child keeps it");
}

#[test]
fn a_container_goes_once_it_has_lost_its_last_child() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.create(conn(1), OpCode::CreateContainer, "/used", 4, -1);
    server.create(conn(1), OpCode::CreateContainer, "/unused", 4, -1);
    server.create(conn(1), OpCode::Create, "/used/e", 1, -1);
    server.wait(60_000);
    assert!(!server.has("/used/e"), "its session expired");
    server.wait(60_000);
    assert!(!server.has("/used"));
    assert!(server.has("/unused"), "it never had a child");
}

#[test]
fn removals_are_spaced_as_configured_and_spend_a_zxid_each() {
    let mut server = Server::new(Rules { container_max_per_minute: 60, ..rules() });
    server.connect(conn(1));
    for n in 0..3 {
        server.create(conn(1), OpCode::CreateTtl, &format!("/t{n}"), 5, 1);
    }
    server.wait(60_000);
    let before = server.zxid();
    assert_eq!([server.has("/t0"), server.has("/t1"), server.has("/t2")], [false, true, true]);
    server.wait(1000);
    server.wait(1000);
    assert_eq!([server.has("/t1"), server.has("/t2")], [false, false]);
    assert_eq!(server.zxid(), Zxid(before.0 + 2));
}

#[test]
fn a_request_that_waited_too_long_is_refused_and_takes_no_zxid() {
    let mut server = Server::new(Rules { throttled_op_wait_ms: 50, ..rules() });
    server.connect(conn(1));
    let before = server.zxid();
    assert_eq!(server.ask_late(conn(1), OpCode::GetData as i32, get("/"), 51).code(), -127);
    assert_eq!(server.ask_late(conn(1), OpCode::GetData as i32, get("/"), 50).code(), 0);
    assert_eq!(server.zxid(), before);
}

#[test]
fn a_request_older_than_its_session_timeout_is_dropped_with_its_connection() {
    let mut server = Server::new(Rules { drops_stale_requests: true, ..rules() });
    server.connect(conn(1));
    assert!(!server.ask_late(conn(1), OpCode::GetData as i32, get("/"), 3999).closed);
    let told = server.ask_late(conn(1), OpCode::GetData as i32, get("/"), 4001);
    assert!(told.closed && told.bytes.is_empty());
}

#[test]
fn only_a_client_that_names_another_ensemble_is_turned_away() {
    let mut server = Server::new(Rules { ensemble_names: Some(vec!["blue".into()]), ..rules() });
    server.connect(conn(1));
    assert_eq!(server.auth(conn(1), "ensemble", "blue").code(), 0);
    assert_eq!(server.auth(conn(1), "ensemble", "").code(), 0);
    assert!(server.auth(conn(1), "ensemble", "green").closed);
}

#[test]
fn enforced_authentication_lets_nothing_but_auth_through() {
    let mut server = Server::new(Rules { enforced_schemes: vec!["digest".into()], ..rules() });
    server.connect(conn(1));
    server.connect(conn(2));
    let refused = server.ask(conn(1), OpCode::Ping as i32, Op::Read(ReadOp::Ping));
    assert!(refused.closed && refused.code() == -124);
    assert_eq!(server.auth(conn(2), "digest", "u:p").code(), 0);
    assert_eq!(server.ask(conn(2), OpCode::GetData as i32, get("/")).code(), 0);
}

#[test]
fn a_client_that_asks_for_more_than_memory_holds_is_given_up_and_keeps_its_session() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    let data = Some(vec![7; 1 << 20]);
    let create =
        Create { code: OpCode::Create, path: "/big".into(), data, acl: Some(Acl::open()), flags: 0, ttl_ms: -1 };
    assert_eq!(server.ask(conn(1), 1, Op::Write(WriteOp::Create(create))).code(), 0);
    let reads = (0..10_000).map(|_| MultiReadOp::GetData { path: "/big".into() }).collect();
    let told = server.ask(conn(1), OpCode::MultiRead as i32, Op::Read(ReadOp::MultiRead(reads)));
    assert!(told.closed && told.bytes.is_empty());
    assert_eq!(server.core.state().session_count(), 1);
}

/// What each of these connections is told in this step: its bytes, and those that it does not share. And what the poller
/// hears of replies that are too many.
fn told(server: &mut Server) -> (Vec<(ConnId, usize, usize)>, Option<usize>) {
    let poller = server.core.take_outbox().poller;
    let told = |outgoing: &Outgoing| (outgoing.conn, outgoing.bytes.len(), outgoing.bytes.own_len());
    (poller.outgoing.iter().map(told).collect(), poller.excess_bytes)
}

fn read(server: &mut Server, whom: ConnId, op_number: OpCode, op: Op) {
    let request = Request { xid: 9, op_number: op_number as i32, op, body: Vec::new() };
    let received_us = server.now.mono_ms * 1000;
    server.core.step(ToPipeline::Request { conn: whom, request, received_us });
}

fn list(path: &str) -> Op {
    Op::Read(ReadOp::GetChildren { target: PathWatch { path: path.into(), watch: false }, with_stat: true })
}

#[test]
fn a_large_value_and_a_long_list_are_shared_by_all_who_are_sent_them() {
    let mut server = Server::new(rules());
    (1..=3).for_each(|n| server.connect(conn(n)));
    let data = Some(vec![7; 900_000]);
    let acl = Some(Acl::open());
    let big = Create { code: OpCode::Create, path: "/big".into(), data, acl, flags: 0, ttl_ms: -1 };
    assert_eq!(server.ask(conn(1), 1, Op::Write(WriteOp::Create(big))).code(), 0);
    for n in 0..200 {
        server.create(conn(1), OpCode::Create, &format!("/big/{n}{}", "x".repeat(300)), 0, -1);
    }
    for (op_number, op, bytes_min) in
        [(OpCode::GetData, get("/big"), 900_000), (OpCode::GetChildren2, list("/big"), 60_000)]
    {
        (1..=3).for_each(|n| read(&mut server, conn(n), op_number, op.clone()));
        let (told, _) = told(&mut server);
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|(_, bytes, own)| *bytes > bytes_min && *own < 200), "{told:?}");
    }
    // A list is that of its moment.
    read(&mut server, conn(1), OpCode::GetChildren2, list("/big"));
    let before = server.core.take_outbox().poller.outgoing.remove(0).bytes;
    server.create(conn(1), OpCode::Create, "/big/one-more", 0, -1);
    read(&mut server, conn(1), OpCode::GetChildren2, list("/big"));
    let after = server.core.take_outbox().poller.outgoing.remove(0).bytes.into_vec();
    let has_it = |bytes: &[u8]| bytes.windows(8).any(|part| part == b"one-more");
    assert!(!has_it(&before.into_vec()) && has_it(&after));
}

#[test]
fn a_large_reply_that_nobody_shares_waits_for_room_and_small_ones_pass_it_by() {
    let mut server = Server::new(Rules { replies_bytes_max: 100_000, ..rules() });
    (1..=5).for_each(|n| server.connect(conn(n)));
    let acl = Some(Acl::open());
    let node = Create { code: OpCode::Create, path: "/a".into(), data: Some(vec![7; 4000]), acl, flags: 0, ttl_ms: -1 };
    assert_eq!(server.ask(conn(1), 1, Op::Write(WriteOp::Create(node))).code(), 0);
    let gets = || Op::Read(ReadOp::MultiRead((0..10).map(|_| MultiReadOp::GetData { path: "/a".into() }).collect()));
    (1..=4).for_each(|n| read(&mut server, conn(n), OpCode::MultiRead, gets()));
    // Its order is kept, too.
    read(&mut server, conn(4), OpCode::Exists, exists(0).op);
    read(&mut server, conn(5), OpCode::Exists, exists(0).op);
    let (first, excess) = told(&mut server);
    assert_eq!(first.iter().map(|(who, ..)| *who).collect::<Vec<_>>(), [conn(1), conn(2), conn(3), conn(5)]);
    let bytes: usize = first.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(excess.is_some_and(|excess| excess > 0) && bytes > 120_000, "{excess:?} {bytes}");
    server.core.step(ToPipeline::Taken { bytes: 10_000 });
    assert_eq!(told(&mut server).0, [], "that is not enough");
    server.core.step(ToPipeline::Taken { bytes: bytes - 10_000 });
    let (rest, excess) = told(&mut server);
    assert!(matches!(rest[..], [(who, bytes, _)] if who == conn(4) && bytes > 40_000), "{rest:?}");
    assert_eq!(excess, Some(0));
}

fn set_acl(list: Vec<Acl>) -> Op {
    Op::Write(WriteOp::SetAcl(SetAcl { path: "/listed".into(), acl: Some(list), version: -1 }))
}

#[test]
fn a_list_has_at_most_4096_entries_but_may_repeat_them() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.create(conn(1), OpCode::Create, "/listed", 0, -1);
    let list = |count: u32| -> Vec<Acl> {
        (0..count).map(|n| Acl::new(31, "ip", &std::net::Ipv4Addr::from(n).to_string())).collect()
    };
    assert_eq!(server.ask(conn(1), 7, set_acl(list(4097))).code(), -114);
    assert_eq!(server.ask(conn(1), 7, set_acl(vec![Acl::new(31, "world", "anyone"); 50_000])).code(), 0);
    assert_eq!(server.ask(conn(1), 7, set_acl(list(4096))).code(), 0);
}

#[test]
fn what_auth_entries_become_is_bounded() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.create(conn(1), OpCode::Create, "/listed", 0, -1);
    assert_eq!(server.auth(conn(1), "digest", &format!("{}:p", "u".repeat(3900))).code(), 0);
    let list = |count: i32| (1..=count).map(|perms| Acl::new(perms, "auth", "")).collect();
    assert_eq!(server.ask(conn(1), 7, set_acl(list(300))).code(), -114);
    assert_eq!(server.ask(conn(1), 7, set_acl(list(200))).code(), 0);
}

#[test]
fn a_connection_has_room_for_a_thousand_identities_and_goes_on_without_the_next() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    for _ in 0..1000 {
        assert_eq!(server.auth(conn(1), "digest", "u:p").code(), 0);
    }
    let refused = (0..2000).find(|n| server.auth(conn(1), "digest", &format!("user{n}:p")).code() != 0);
    // Its address, `u`, and these.
    assert_eq!(refused, Some(1022));
    let again = server.auth(conn(1), "digest", "one:more");
    assert_eq!((again.code(), again.closed), (-8, false), "the connection stays");
    assert_eq!(server.auth(conn(1), "digest", "user5:p").code(), 0, "who it is already");
    let list = |user: &str| vec![Acl::new(31, "digest", user)];
    let own = vec![Acl::new(31, "auth", "")];
    server.create(conn(1), OpCode::Create, "/listed", 0, -1);
    assert_eq!(server.ask(conn(1), 7, set_acl(own)).code(), 0);
    assert_eq!(server.ask(conn(1), 7, set_acl(list("nobody:x"))).code(), 0, "with 1023 identities, against as many");
    assert_eq!(server.ask(conn(1), 7, set_acl(list("nobody:x"))).code(), -102);
}

#[test]
fn the_identities_of_all_connections_are_bounded_and_some_are_always_taken() {
    let mut server = Server::new(rules());
    let long = |n: usize| format!("{n}{}:p", "u".repeat(3000));
    let mut taken = 0;
    for n in 0..1000 {
        server.connect(conn(n));
        taken += (0..20).take_while(|id| server.auth(conn(n), "digest", &long(*id)).code() == 0).count();
    }
    assert!((8_000..13_000).contains(&taken), "{taken} of 20,000");
    server.connect(conn(5000));
    assert_eq!(server.auth(conn(5000), "digest", &long(1)).code(), 0);
    assert_eq!(server.auth(conn(5000), "digest", &long(2)).code(), -8);
    // Those who leave make room.
    (0..20).for_each(|n| server.core.step(ToPipeline::Disconnected { conn: conn(n) }));
    assert_eq!(server.auth(conn(5000), "digest", &long(2)).code(), 0);
}

#[test]
fn numbers_of_sequential_nodes_go_on_below_zero_where_they_end() {
    let mut server = Server::with(rules(), &[("/q", -1), ("/q/first", i32::MAX - 1)]);
    server.connect(conn(1));
    for _ in 0..4 {
        server.create(conn(1), OpCode::Create, "/q/n-", 2, -1);
    }
    for number in ["2147483646", "2147483647", "-2147483648", "-2147483647"] {
        assert!(server.has(&format!("/q/n-{number}")), "{number}");
    }
    // Another name counts on; what is deleted is not used again; other nodes do not count.
    server.create(conn(1), OpCode::Create, "/q/plain", 0, -1);
    let delete = Delete { path: "/q/n--2147483647".into(), version: -1 };
    assert_eq!(server.ask(conn(1), 2, Op::Write(WriteOp::Delete(delete))).code(), 0);
    server.create(conn(1), OpCode::Create, "/q/m", 2, -1);
    server.create(conn(1), OpCode::Create, "/q/n-", 2, -1);
    assert!(server.has("/q/m-2147483646") && server.has("/q/n--2147483645"));
    let q = server.core.state().tree().lookup("/q").unwrap();
    assert_eq!(server.core.state().tree().node(q).stat().cversion, i32::MAX, "as with Apache's servers");
    assert_eq!(server.core.state().digest_mismatches(), 0);
}

#[test]
fn a_new_leader_goes_on_with_the_numbers_that_it_finds() {
    let old = ["/q/n-2147483647", "/q/n--2147483648", "/q/n--2147483640", "/q/n-2147483639", "/q/n-x"];
    let nodes: Vec<(&str, i32)> = old.into_iter().map(|path| (path, i32::MAX)).collect();
    let mut server = Server::with(rules(), &[&[("/q", -1)], &nodes[..]].concat());
    server.connect(conn(1));
    server.create(conn(1), OpCode::Create, "/q/n-", 2, -1);
    server.create(conn(1), OpCode::Create, "/q/o", 2, -1);
    assert!(server.has("/q/n--2147483639") && server.has("/q/o-2147483638"));
}

#[test]
fn a_session_does_not_expire_while_its_client_takes_a_long_reply() {
    let mut server = Server::new(Rules { full_bytes: 100, ..rules() });
    server.connect(conn(1));
    server.create(conn(1), OpCode::Create, "/e", 1, -1);
    // Two stats in one go are more than 100 bytes.
    server.core.step(ToPipeline::Request { conn: conn(1), request: exists(1), received_us: 0 });
    assert!(!server.ask(conn(1), OpCode::Exists as i32, exists(2).op).bytes.is_empty());
    server.wait(60_000);
    assert!(server.has("/e"), "its pings wait behind the reply");
    server.core.step(ToPipeline::Drained { conn: conn(1) });
    server.wait(60_000);
    assert!(!server.has("/e"));
}

#[test]
fn a_session_does_not_expire_while_its_own_write_is_on_its_way() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    server.ask_only(conn(1), OpCode::SetData, set("/"));
    let proposed = server.turn();
    for _ in 0..10 {
        server.now.mono_ms += 3000;
        assert!(server.turn().is_empty(), "the disk is slow, not the client");
    }
    server.core.step(ToPipeline::Committed { zxid: proposed[0].zxid, at_us: 0, synced: vec![] });
    server.wait(10_000);
    assert_eq!(server.core.state().session_count(), 0);
}

fn exists(xid: i32) -> Request {
    Request {
        xid,
        op_number: 3,
        op: Op::Read(ReadOp::Exists(PathWatch { path: "/".into(), watch: false })),
        body: Vec::new(),
    }
}

#[test]
fn a_session_with_more_ephemerals_than_a_record_can_name_closes_in_parts() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    let long = "x".repeat(50_000);
    for n in 0..100 {
        server.create(conn(1), OpCode::Create, &format!("/{n}{long}"), 1, -1);
    }
    let before = server.zxid();
    assert_eq!(server.ask(conn(1), OpCode::CloseSession as i32, Op::CloseSession).code(), 0);
    assert_eq!(server.core.state().ephemerals_count(), 0);
    assert_eq!(server.zxid(), Zxid(before.0 + 3), "5 MB of names, 2 MB each at most");
    assert_eq!(server.core.state().digest_mismatches(), 0);
}

impl Server {
    /// A turn in which nothing came: what is due is proposed. Gives the new transactions; nothing is committed.
    fn turn(&mut self) -> Vec<LogRecord> {
        self.core.set_time(self.now, self.now.mono_ms * 1000);
        self.core.tick();
        self.core.take_outbox().records
    }

    /// So many clients, each with an ephemeral, all of which but the first are silent until their time is up.
    fn silent_clients(&mut self, count: u32) {
        for n in 0..count {
            self.connect(conn(n));
            self.create(conn(n), OpCode::Create, &format!("/e{n}"), 1, -1);
        }
        self.wait(3000);
        self.ask(conn(0), OpCode::Ping as i32, Op::Read(ReadOp::Ping));
        self.wait(2999);
        self.now.mono_ms += 1;
    }

    /// Without waiting for a commit.
    fn ask_only(&mut self, whom: ConnId, op_number: OpCode, op: Op) {
        self.xid += 1;
        let request = Request { xid: self.xid, op_number: op_number as i32, op, body: Vec::new() };
        self.core.step(ToPipeline::Request { conn: whom, request, received_us: self.now.mono_ms * 1000 });
    }
}

#[test]
fn sessions_that_expire_at_once_end_between_the_requests_of_those_who_live() {
    let mut server = Server::new(rules());
    server.silent_clients(1000);
    let mut ended = server.turn();
    assert_eq!(ended.len(), EXPIRING_NODES / 2, "each takes a node along");
    assert!(server.turn().is_empty(), "that is enough until it is committed");
    assert!(server.core.next_deadline_ms() > server.now.mono_ms, "nothing is to be done meanwhile");
    // Who lives is next, however many are due; and so does who is heard of before his turn.
    server.ask_only(
        conn(0),
        OpCode::SetData,
        Op::Write(WriteOp::SetData(SetData { path: "/e0".into(), data: None, version: -1 })),
    );
    server.ask_only(conn(999), OpCode::Ping, Op::Read(ReadOp::Ping));
    let set = server.turn();
    assert_eq!((set.len(), set[0].zxid), (1, ended.last().unwrap().zxid.next()));
    let mut turns = 1;
    while let Some(last) = ended.last() {
        server.core.step(ToPipeline::Committed { zxid: last.zxid, at_us: 0, synced: vec![] });
        ended = server.turn();
        assert!(ended.len() <= EXPIRING_NODES / 2);
        turns += usize::from(!ended.is_empty());
    }
    assert_eq!(turns, 998_usize.div_ceil(EXPIRING_NODES / 2), "each commit makes room for the next");
    assert_eq!(server.core.state().session_count(), 2);
    assert!(server.has("/e0") && server.has("/e999"));
    assert_eq!(server.core.state().ephemerals_count(), 2);
}

#[test]
fn a_session_with_more_ephemerals_than_expire_at_once_expires_alone() {
    let mut server = Server::new(rules());
    server.connect(conn(1000));
    for n in 0..=EXPIRING_NODES {
        server.create(conn(1000), OpCode::Create, &format!("/many{n}"), 1, -1);
    }
    server.silent_clients(3);
    let first = server.turn();
    assert_eq!(first.len(), 1);
    server.core.step(ToPipeline::Committed { zxid: first[0].zxid, at_us: 0, synced: vec![] });
    assert_eq!(server.core.state().ephemerals_count(), 3);
    assert_eq!(server.turn().len(), 2);
}

#[test]
fn nodes_whose_removals_need_no_space_between_them_go_in_the_same_lots() {
    let mut server = Server::new(Rules { container_max_per_minute: 1_000_000, ..rules() });
    server.connect(conn(1));
    for n in 0..2 * EXPIRING_NODES {
        server.create(conn(1), OpCode::CreateTtl, &format!("/t{n}"), 5, 1);
    }
    server.wait(59_999);
    server.now.mono_ms += 1;
    let first = server.turn();
    assert_eq!(first.len(), EXPIRING_NODES);
    server.core.step(ToPipeline::Committed { zxid: first.last().unwrap().zxid, at_us: 0, synced: vec![] });
    assert_eq!(server.turn().len(), EXPIRING_NODES);
}

impl Server {
    /// A turn in which nothing came: what a connection is told in it, and the new transactions. Nothing is committed.
    fn turn_of(&mut self, whom: ConnId) -> (Vec<u8>, Vec<LogRecord>) {
        let out = self.core.take_outbox();
        let told = out.poller.outgoing.into_iter().filter(|outgoing| outgoing.conn == whom);
        (told.flat_map(|outgoing| outgoing.bytes.into_vec()).collect(), out.records)
    }

    /// With one node that has so many children, and two clients.
    fn with_children(count: usize) -> Server {
        let paths: Vec<String> = (0..count).map(|n| format!("/wide/{n}")).collect();
        let nodes: Vec<(&str, i32)> =
            std::iter::once("/wide").chain(paths.iter().map(String::as_str)).map(|path| (path, -1)).collect();
        let mut server = Server::with(rules(), &nodes);
        server.connect(conn(1));
        server.connect(conn(2));
        server
    }
}

fn set(path: &str) -> Op {
    Op::Write(WriteOp::SetData(SetData { path: path.into(), data: None, version: -1 }))
}

/// The number and the names of the first of these replies.
fn listed(told: &[u8]) -> (i32, Vec<String>) {
    let mut frame = Reader::new(&told[4..]);
    let (xid, _zxid, code) = (frame.int().unwrap(), frame.long().unwrap(), frame.int().unwrap());
    assert_eq!(code, 0);
    (xid, frame.strings().unwrap().unwrap())
}

#[test]
fn a_list_of_very_many_children_is_made_between_the_requests_of_others() {
    let mut server = Server::with_children(10 * LISTED_AT_ONCE);
    server.ask_only(conn(1), OpCode::GetChildren, list("/wide"));
    let list_xid = server.xid;
    server.ask_only(conn(1), OpCode::SetData, set("/wide"));
    let (told, records) = server.turn_of(conn(1));
    assert!(told.is_empty() && records.is_empty(), "a write behind the list must not be seen in it");
    // Others go on meanwhile, and what they do is in the list: it is that of the moment when it is given.
    assert!(!server.ask(conn(2), OpCode::GetData as i32, get("/wide/7")).bytes.is_empty());
    server.create(conn(2), OpCode::Create, "/wide/new", 0, -1);
    let delete = Op::Write(WriteOp::Delete(Delete { path: "/wide/7".into(), version: -1 }));
    assert_eq!(server.ask(conn(2), OpCode::Delete as i32, delete).code(), 0);
    let mut turns = 0;
    let (told, records) = loop {
        turns += 1;
        let (told, records) = server.turn_of(conn(1));
        if !told.is_empty() {
            break (told, records);
        }
        assert!(server.core.wants_to_run() && records.is_empty() && turns < 10);
    };
    let (xid, names) = listed(&told);
    assert_eq!((xid, names.len(), records.len()), (list_xid, 10 * LISTED_AT_ONCE, 1));
    assert!(names.iter().any(|name| name == "new") && !names.iter().any(|name| name == "7"));
    assert!(!server.core.wants_to_run());
    // It is there for whoever asks next, and follows what changes.
    server.core.step(ToPipeline::Committed { zxid: records[0].zxid, at_us: 0, synced: vec![] });
    server.create(conn(2), OpCode::Create, "/wide/newer", 0, -1);
    let (_, names) = listed(&server.ask(conn(2), OpCode::GetChildren as i32, list("/wide")).bytes);
    assert_eq!(names.len(), 10 * LISTED_AT_ONCE + 1);
}

#[test]
fn a_list_behind_a_write_is_made_while_that_is_on_its_way() {
    let mut server = Server::with_children(3 * LISTED_AT_ONCE);
    server.ask_only(conn(1), OpCode::SetData, set("/wide"));
    server.ask_only(conn(1), OpCode::GetChildren, list("/wide"));
    server.ask_only(conn(1), OpCode::SetData, set("/wide"));
    let (told, first) = server.turn_of(conn(1));
    assert_eq!((told.len(), first.len()), (0, 1), "the second write waits for the list");
    server.core.step(ToPipeline::Committed { zxid: first[0].zxid, at_us: 0, synced: vec![] });
    let (told, second) = server.turn_of(conn(1));
    assert!(told.len() < 200 && !told.is_empty() && second.is_empty(), "the first write is answered");
    let (told, second) = server.turn_of(conn(1));
    assert!(told.len() > 3 * LISTED_AT_ONCE && second.len() == 1);
}

#[test]
fn who_leaves_while_a_list_is_made_is_waited_for_by_nobody() {
    let mut server = Server::with_children(LISTED_AT_ONCE + 1);
    server.ask_only(conn(1), OpCode::GetChildren, list("/wide"));
    server.core.step(ToPipeline::Disconnected { conn: conn(1) });
    server.turn();
    assert!(!server.core.wants_to_run());
    assert_eq!(server.core.state().tree().listed_bytes(), 0, "nor is it kept for anybody");
    server.ask_only(conn(2), OpCode::GetChildren, list("/wide"));
    let told: Vec<u8> = (0..3).flat_map(|_| server.turn_of(conn(2)).0).collect();
    assert_eq!(listed(&told).1.len(), LISTED_AT_ONCE + 1);
}

#[test]
fn a_list_of_a_node_that_is_emptied_and_filled_again_while_it_is_made_is_given_all_the_same() {
    let count = 2 * LISTED_AT_ONCE;
    let mut server = Server::with_lists(rules(), &[count]);
    server.ask_only(conn(1), OpCode::GetChildren, list("/0"));
    server.turn_of(conn(1));
    let delete = |name: &String| MultiOp::Delete(Delete { path: format!("/0/{name}"), version: -1 });
    let mut ops: Vec<MultiOp> = children_of(&server, "/0").iter().map(delete).collect();
    ops.extend((0..count).map(|n| multi_create(&format!("/0/new{n}"))));
    server.ask_only(conn(2), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
    let mut told = Vec::new();
    for _ in 0..5 {
        let out = server.core.take_outbox();
        let of_first = out.poller.outgoing.into_iter().filter(|outgoing| outgoing.conn == conn(1));
        told.extend(of_first.flat_map(|outgoing| outgoing.bytes.into_vec()));
        out.records.last().into_iter().for_each(|last| server.committed(last.zxid));
    }
    assert!(!told.is_empty() && !server.core.wants_to_run(), "its client waits for ever");
    assert_eq!(listed(&told).1.len(), count);
}

#[test]
fn lists_are_given_whatever_becomes_of_their_nodes_while_they_are_made() {
    const ROUNDS: u32 = 100;
    let nodes = 6;
    let mut server = Server::with_lists(Rules { lists_bytes_max: 60_000, ..rules() }, &[LISTED_AT_ONCE + 100; 6]);
    let askers: Vec<ConnId> = (3..20).map(conn).collect();
    askers.iter().for_each(|&asker| server.connect(asker));
    (20..20 + ROUNDS).for_each(|leaver| server.connect(conn(leaver)));
    let mut leavers = (20..).map(conn);
    let mut random = 7u32;
    let mut below = move |bound: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % bound
    };
    let mut asked: BTreeMap<ConnId, Vec<usize>> = BTreeMap::new();
    let mut lists_given = 0;
    for round in 0..ROUNDS {
        // Each round one thing is done to one node, in one transaction, while lists are made.
        let node = below(nodes);
        let parent = format!("/{node}");
        let children = children_of(&server, &parent);
        let is_there = server.has(&parent);
        let gone = |names: &[String]| -> Vec<MultiOp> {
            names.iter().map(|name| MultiOp::Delete(Delete { path: format!("{parent}/{name}"), version: -1 })).collect()
        };
        let come = |count: usize| -> Vec<MultiOp> {
            (0..count).map(|n| multi_create(&format!("{parent}/{round}-{n}"))).collect()
        };
        let itself = || MultiOp::Delete(Delete { path: parent.clone(), version: -1 });
        let ops = match below(8) {
            0 if is_there => [gone(&children), vec![itself()]].concat(),
            1 if is_there => {
                [gone(&children), vec![itself(), multi_create(&parent)], come(LISTED_AT_ONCE + 50)].concat()
            }
            2 if is_there => [gone(&children), come(LISTED_AT_ONCE + 50)].concat(),
            3 if is_there => gone(&children[..children.len() / 2]),
            4 if is_there => come(LISTED_AT_ONCE / 2),
            0..5 => [vec![multi_create(&parent)], come(LISTED_AT_ONCE + 50)].concat(),
            5 if is_there && !children.is_empty() => [gone(&children[..1]), come(1)].concat(),
            _ => Vec::new(),
        };
        if !ops.is_empty() {
            server.ask_only(conn(1), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
        }
        for _ in 0..below(4) {
            let asker = askers[below(askers.len())];
            if asked.contains_key(&asker) {
                continue;
            }
            let wanted: Vec<usize> = (0..1 + below(3)).map(|_| below(nodes)).collect();
            let reads = wanted.iter().map(|n| MultiReadOp::GetChildren { path: format!("/{n}") }).collect();
            server.ask_only(asker, OpCode::MultiRead, Op::Read(ReadOp::MultiRead(reads)));
            asked.insert(asker, wanted);
        }
        if below(6) == 0 {
            // Somebody who has just asked leaves.
            let leaver = leavers.next().unwrap();
            server.ask_only(leaver, OpCode::GetChildren, list(&parent));
            lists_given += server.give_lists(&mut asked);
            server.core.step(ToPipeline::Disconnected { conn: leaver });
        }
        lists_given += server.give_lists(&mut asked);
    }
    for _ in 0..200 {
        lists_given += server.give_lists(&mut asked);
    }
    assert!(asked.is_empty(), "{asked:?} wait for ever");
    assert!(lists_given > ROUNDS as usize, "{lists_given}");
    assert!(!server.core.wants_to_run());
    // Nothing is left of them that nobody asks for.
    for _ in 0..3 {
        server.wait(60_000);
    }
    assert_eq!(server.core.state().tree().listed_bytes(), 0);
}

fn multi_create(path: &str) -> MultiOp {
    let acl = Some(Acl::open());
    MultiOp::Create(Create { code: OpCode::Create, path: path.into(), data: None, acl, flags: 0, ttl_ms: -1 })
}

fn children_of(server: &Server, path: &str) -> Vec<String> {
    let tree = server.core.state().tree();
    let Some(node) = tree.lookup(path) else { return Vec::new() };
    let mut names: Vec<String> = tree.children(node).map(|child| tree.node(child).name().to_owned()).collect();
    names.sort_unstable();
    names
}

impl Server {
    fn committed(&mut self, zxid: Zxid) {
        self.core.step(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
    }

    /// A turn, and what is proposed in it is committed. Each list that is given is what the state has. Gives how many were.
    fn give_lists(&mut self, asked: &mut BTreeMap<ConnId, Vec<usize>>) -> usize {
        let out = self.core.take_outbox();
        let mut given = 0;
        for outgoing in out.poller.outgoing {
            let whom = outgoing.conn;
            let bytes = outgoing.bytes.into_vec();
            if bytes.is_empty() || !asked.contains_key(&whom) {
                continue;
            }
            let mut frame = Reader::new(&bytes[8..]);
            assert_eq!((frame.long().unwrap(), frame.int().unwrap()), (self.zxid().0, 0));
            for node in asked.remove(&whom).unwrap() {
                let path = format!("/{node}");
                let (op, _, code) = (frame.int().unwrap(), frame.bool().unwrap(), frame.int().unwrap());
                if op == -1 {
                    assert_eq!((frame.int().unwrap(), code, self.has(&path)), (-101, -101, false));
                    continue;
                }
                let mut names = frame.strings().unwrap().unwrap();
                names.sort_unstable();
                assert!(names == children_of(self, &path), "{path}");
                given += 1;
            }
        }
        if let Some(last) = out.records.last() {
            self.committed(last.zxid);
        }
        given
    }
}

impl Server {
    /// With nodes that have so many children each, and two clients.
    fn with_lists(rules: Rules, children: &[usize]) -> Server {
        let mut paths = Vec::new();
        for (n, &count) in children.iter().enumerate() {
            paths.push(format!("/{n}"));
            paths.extend((0..count).map(|child| format!("/{n}/{child:06}")));
        }
        let nodes: Vec<(&str, i32)> = paths.iter().map(|path| (path.as_str(), -1)).collect();
        let mut server = Server::with(rules, &nodes);
        server.connect(conn(1));
        server.connect(conn(2));
        server
    }

    /// Asks for these lists in one request, and takes turns until it is answered. Gives how many children were listed, and
    /// how many turns that took.
    fn multi_list(&mut self, whom: ConnId, lists: &[usize]) -> (usize, usize) {
        let reads = lists.iter().map(|n| MultiReadOp::GetChildren { path: format!("/{n}") }).collect();
        self.ask_only(whom, OpCode::MultiRead, Op::Read(ReadOp::MultiRead(reads)));
        for turns in 0..1000 {
            let (told, _) = self.turn_of(whom);
            if !told.is_empty() {
                let mut frame = Reader::new(&told[16..]);
                assert_eq!(frame.int().unwrap(), 0);
                let mut names = 0;
                for _ in lists {
                    let header = (frame.int().unwrap(), frame.bool().unwrap(), frame.int().unwrap());
                    assert_eq!(header, (OpCode::GetChildren as i32, false, 0));
                    names += frame.strings().unwrap().unwrap().len();
                }
                return (names, turns);
            }
        }
        panic!("it is answered in the end");
    }
}

#[test]
fn a_request_for_very_many_lists_of_few_children_is_done_in_several_turns() {
    let mut server = Server::with_lists(rules(), &[100; 200]);
    let all: Vec<usize> = (0..200).collect();
    assert_eq!(server.multi_list(conn(1), &all), (20_000, 1));
    assert!(!server.core.wants_to_run());
    assert_eq!(server.core.state().tree().listed_bytes(), 0, "they are not kept");
    // Of more children they are.
    let mut server = Server::with_lists(rules(), &[200; 200]);
    assert_eq!(server.multi_list(conn(1), &all), (40_000, 12));
    assert!(server.core.state().tree().listed_bytes() > 10 * 40_000);
    assert_eq!(server.multi_list(conn(1), &all), (40_000, 0));
    // A few are not worth it.
    let mut server = Server::with_lists(rules(), &[100; 200]);
    assert_eq!(server.multi_list(conn(1), &all[..20]), (2000, 0));
}

/// A multiRead of the data, and of the children, of these nodes.
fn reads_of(paths: impl Iterator<Item = usize>) -> Op {
    let both = |n| {
        let path = format!("/{n}");
        [MultiReadOp::GetData { path: path.clone() }, MultiReadOp::GetChildren { path }]
    };
    Op::Read(ReadOp::MultiRead(paths.flat_map(both).collect()))
}

/// What one operation of such a request came to: the version and the number of children, or the names; or the error.
#[derive(PartialEq, Debug)]
enum Came {
    To(i32, i32),
    List(Vec<String>),
    Error(i32),
}

fn came(frame: &mut Reader<'_>) -> Came {
    match (frame.int().unwrap(), frame.bool().unwrap(), frame.int().unwrap()) {
        (4, false, 0) => {
            frame.buffer().unwrap();
            (0..4).for_each(|_| assert!(frame.long().is_ok()));
            let (version, _, _) = (frame.int().unwrap(), frame.int().unwrap(), frame.int().unwrap());
            frame.long().unwrap();
            let (_, num_children) = (frame.int().unwrap(), frame.int().unwrap());
            frame.long().unwrap();
            Came::To(version, num_children)
        }
        (8, false, 0) => {
            let mut names = frame.strings().unwrap().unwrap();
            names.sort_unstable();
            Came::List(names)
        }
        (-1, false, code) => {
            assert_eq!(frame.int().unwrap(), code);
            Came::Error(code)
        }
        header => panic!("{header:?}"),
    }
}

impl Server {
    /// The second client asks for this transaction, which is not committed yet. Gives what the first one is told in that turn,
    /// and the new transactions.
    fn change(&mut self, ops: Vec<MultiOp>) -> (Vec<u8>, Vec<LogRecord>) {
        self.ask_only(conn(2), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
        self.turn_of(conn(1))
    }
}

#[test]
fn a_long_multi_read_is_answered_between_the_requests_of_others_and_is_of_one_moment() {
    const NODES: usize = 6000;
    let mut server = Server::with_lists(rules(), &[3; NODES]);
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..NODES + 100));
    server.ask_only(conn(1), OpCode::SetData, set("/0"));
    let (mut turns, mut random) = (0, 7u32);
    let mut below = move |bound: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % bound
    };
    let told = loop {
        // Of what was read and what was not, something comes, goes and comes again at the same path, or changes.
        let mut ops: Vec<MultiOp> = Vec::new();
        for _ in 0..3 {
            let path = format!("/{}", below(NODES + 100));
            let children = children_of(&server, &path);
            let gone = |path: String| MultiOp::Delete(Delete { path, version: -1 });
            if !server.has(&path) {
                ops.push(multi_create(&path));
            } else if below(2) == 0 {
                ops.push(MultiOp::SetData(SetData { path, data: Some(vec![1; 9]), version: -1 }));
            } else {
                ops.extend(children.iter().map(|name| gone(format!("{path}/{name}"))));
                ops.push(gone(path.clone()));
                if below(2) == 0 {
                    ops.extend([multi_create(&path), multi_create(&format!("{path}/new"))]);
                }
            }
        }
        // A node that is deleted twice in it fails the transaction as a whole, which is nothing.
        let zxid = server.zxid().0;
        let (told, records) = server.change(ops);
        if !told.is_empty() {
            assert_eq!(records.len(), 2, "the write behind it is proposed now");
            assert_eq!(told[8..16], zxid.to_be_bytes());
            break told;
        }
        assert!(server.core.wants_to_run() && turns < 50);
        server.committed(records[0].zxid);
        turns += 1;
    };
    assert!(turns >= 3, "{turns}");
    let mut frame = Reader::new(&told[8..]);
    assert_eq!((frame.long().unwrap(), frame.int().unwrap()), (server.zxid().0, 0));
    for n in 0..NODES + 100 {
        let path = format!("/{n}");
        let (data, list) = (came(&mut frame), came(&mut frame));
        let tree = server.core.state().tree();
        match tree.lookup(&path) {
            None => assert_eq!((data, list), (Came::Error(-101), Came::Error(-101)), "{path}"),
            Some(node) => {
                let node = tree.node(node);
                assert_eq!(data, Came::To(node.stat().version, node.num_children() as i32), "{path}");
                assert_eq!(list, Came::List(children_of(&server, &path)), "{path}");
            }
        }
    }
    assert_eq!((frame.int().unwrap(), frame.bool().unwrap(), frame.int().unwrap()), (-1, true, -1));
    assert!(!server.core.wants_to_run());
}

#[test]
fn a_long_multi_read_ends_whatever_is_changed_meanwhile() {
    const NODES: usize = 3000;
    // There is room for the answer and a few of the large values that it had before, but not for all that it had.
    let mut server = Server::with_lists(Rules { replies_bytes_max: 2 << 20, ..rules() }, &[1; NODES]);
    server.create(conn(2), OpCode::Create, "/big", 0, -1);
    let Op::Read(ReadOp::MultiRead(mut reads)) = reads_of(0..NODES) else { unreachable!("it is one") };
    reads.extend((0..160).map(|_| MultiReadOp::GetData { path: "/big".into() }));
    server.ask_only(conn(1), OpCode::MultiRead, Op::Read(ReadOp::MultiRead(reads)));
    let sets = |path: String, data| MultiOp::SetData(SetData { path, data, version: -1 });
    let mut turns = 0;
    let told = loop {
        // All that it reads.
        let mut ops: Vec<MultiOp> = (0..NODES).map(|n| sets(format!("/{n}"), None)).collect();
        ops.push(sets("/big".into(), Some(vec![7; 256 << 10])));
        server.ask_only(conn(2), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
        let out = server.core.take_outbox();
        let (told, of_others): (Vec<_>, _) =
            out.poller.outgoing.into_iter().partition(|outgoing| outgoing.conn == conn(1));
        if let Some(told) = told.into_iter().next() {
            break told.bytes.into_vec();
        }
        of_others.iter().for_each(|other| server.core.step(ToPipeline::Taken { bytes: other.bytes.own_len() }));
        assert_eq!(out.poller.excess_bytes.unwrap_or(0), 0, "{turns}");
        turns += 1;
        server.committed(out.records[0].zxid);
        assert!(turns < 100, "its client waits for ever");
    };
    server.ask(conn(2), OpCode::SetData as i32, set("/0"));
    assert!(!server.core.state().is_touched(), "what is touched is noted for nobody any more");
    let mut frame = Reader::new(&told[20..]);
    let version = turns;
    (0..NODES).for_each(|n| {
        assert_eq!(
            (came(&mut frame), came(&mut frame)),
            (Came::To(version, 1), Came::List(vec!["000000".into()])),
            "{n}"
        );
    });
    (0..160).for_each(|_| assert_eq!(came(&mut frame), Came::To(version, 0)));
}

#[test]
fn a_long_multi_read_of_a_client_that_is_busy_with_what_it_was_told_is_made_when_it_can_be_given() {
    let wide = LISTED_AT_ONCE;
    let mut server = Server::with_lists(Rules { full_bytes: 10_000, ..rules() }, &[wide, 2 * wide]);
    server.ask_only(conn(1), OpCode::Multi, Op::Write(WriteOp::Multi(vec![multi_create("/0/new")])));
    let reads = Op::Read(ReadOp::MultiRead(vec![MultiReadOp::GetChildren { path: "/0".into() }]));
    server.ask_only(conn(1), OpCode::MultiRead, reads);
    server.ask_only(conn(1), OpCode::SetData, set("/0"));
    let gets = (0..600).map(|_| MultiReadOp::GetData { path: "/0".into() }).collect();
    server.ask_only(conn(1), OpCode::MultiRead, Op::Read(ReadOp::MultiRead(gets)));
    let (_, records) = server.turn_of(conn(1));
    // The list is long when its turn comes, and is given at once, for the write behind it is due.
    records.iter().for_each(|record| server.committed(record.zxid));
    assert!(server.turn_of(conn(1)).0.len() > 10 * wide);
    (0..3).for_each(|_| assert_eq!(server.turn_of(conn(1)).0.len(), 0));
    server.ask(conn(2), OpCode::SetData as i32, set("/0"));
    server.core.step(ToPipeline::Drained { conn: conn(1) });
    let told: Vec<u8> = (0..3).flat_map(|_| server.turn_of(conn(1)).0).collect();
    let mut frame = Reader::new(&told[20..]);
    (0..600).for_each(|_| assert_eq!(came(&mut frame), Came::To(2, wide as i32 + 1)));
    assert!(!server.core.wants_to_run());
}

#[test]
fn long_multi_reads_are_answered_in_the_order_they_came_and_a_short_one_does_not_wait() {
    let mut server = Server::with_lists(rules(), &[1; 1500]);
    server.connect(conn(3));
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(2), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(3), OpCode::MultiRead, reads_of(0..100));
    let mut who = Vec::new();
    while server.core.wants_to_run() || who.is_empty() {
        who.extend(told(&mut server).0.iter().map(|(who, ..)| *who));
    }
    assert_eq!(who, [conn(3), conn(1), conn(2)]);
    // Who leaves is not waited for, whether that has begun or not.
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(2), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(3), OpCode::MultiRead, reads_of(0..1500));
    server.turn();
    server.core.step(ToPipeline::Disconnected { conn: conn(1) });
    server.core.step(ToPipeline::Disconnected { conn: conn(2) });
    let told: usize = (0..10).map(|_| server.turn_of(conn(3)).0.len()).sum();
    assert!(told > 1500 * 80 && !server.core.wants_to_run());
}

#[test]
fn a_long_multi_read_behind_a_write_tells_of_it_and_not_of_the_next() {
    let mut server = Server::with_lists(rules(), &[1; 1500]);
    server.ask_only(conn(1), OpCode::SetData, set("/7"));
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(1), OpCode::SetData, set("/7"));
    let (told, first) = server.turn_of(conn(1));
    assert_eq!((told.len(), first.len()), (0, 1), "the second write waits for the answer");
    assert!(!server.core.wants_to_run(), "nothing is to be done until the first one is committed");
    server.committed(first[0].zxid);
    let (write, _) = server.turn_of(conn(1));
    let told = loop {
        let (told, second) = server.turn_of(conn(1));
        assert_eq!(told.is_empty(), second.is_empty());
        if !told.is_empty() {
            break told;
        }
    };
    assert!(!write.is_empty());
    let mut frame = Reader::new(&told[20..]);
    let versions: Vec<Came> = (0..1500).map(|_| (came(&mut frame), came(&mut frame)).0).collect();
    assert_eq!((&versions[6], &versions[7]), (&Came::To(0, 1), &Came::To(1, 1)));
}

#[test]
fn what_a_long_multi_read_has_of_small_values_is_not_copied_when_it_is_put_together() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    let acl = Some(Acl::open());
    let node = Create { code: OpCode::Create, path: "/a".into(), data: Some(vec![7; 9000]), acl, flags: 0, ttl_ms: -1 };
    assert_eq!(server.ask(conn(1), 1, Op::Write(WriteOp::Create(node))).code(), 0);
    let gets =
        |count| Op::Read(ReadOp::MultiRead((0..count).map(|_| MultiReadOp::GetData { path: "/a".into() }).collect()));
    server.ask_only(conn(1), OpCode::MultiRead, gets(2000));
    let (mut turns, mut all) = (0, Vec::new());
    while all.is_empty() {
        turns += 1;
        all = told(&mut server).0;
    }
    let (_, bytes, own_bytes) = all[0];
    assert!(bytes > 2000 * 9000 && own_bytes < 200 && turns > 100, "{bytes} {own_bytes} {turns}");
}

#[test]
fn a_long_multi_read_waits_for_room_before_it_is_begun() {
    let mut server = Server::with_lists(Rules { replies_bytes_max: 100_000, ..rules() }, &[1; 1500]);
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..1500));
    server.ask_only(conn(2), OpCode::MultiRead, reads_of(0..1500));
    let mut first = Vec::new();
    while first.is_empty() {
        first = server.core.take_outbox().poller.outgoing;
    }
    let taken = |outgoing: &Outgoing| outgoing.bytes.own_len();
    let own_bytes: usize = first.iter().map(taken).sum();
    assert_eq!(first.len(), 1);
    for _ in 0..10 {
        assert!(server.core.take_outbox().poller.outgoing.is_empty());
    }
    assert!(!server.core.wants_to_run(), "nothing is to be done until there is room");
    // The first one's client takes it.
    drop(first);
    server.core.step(ToPipeline::Taken { bytes: own_bytes });
    let told: usize = (0..10).map(|_| server.turn_of(conn(2)).0.len()).sum();
    assert!(told > 1500 * 80, "{told}");
}

#[test]
fn a_long_multi_read_ends_though_a_node_with_a_long_list_is_made_anew_in_each_turn() {
    let wide = 2 * LISTED_AT_ONCE;
    let mut server = Server::with_lists(rules(), &[wide, 0]);
    // Another node takes the place that it leaves, or its list would be gone on with.
    let anew = |server: &Server, turn: usize| {
        let gone = |path: String| MultiOp::Delete(Delete { path, version: -1 });
        let mut ops: Vec<MultiOp> =
            children_of(server, "/0").into_iter().map(|name| gone(format!("/0/{name}"))).collect();
        ops.extend([gone("/0".into()), multi_create(&format!("/other{turn}")), multi_create("/0")]);
        ops.extend((0..wide).map(|n| multi_create(&format!("/0/{n:06}"))));
        ops
    };
    let paths = ["/1", "/0", "/1"];
    let reads = paths.map(|path| MultiReadOp::GetChildren { path: path.into() }).to_vec();
    server.ask_only(conn(1), OpCode::MultiRead, Op::Read(ReadOp::MultiRead(reads)));
    let mut turns = 0;
    let told = loop {
        let ops = anew(&server, turns);
        let (told, records) = server.change(ops);
        if !told.is_empty() {
            break told;
        }
        turns += 1;
        server.committed(records[0].zxid);
        assert!(turns < 20, "its client waits for ever");
    };
    let mut frame = Reader::new(&told[20..]);
    let lists = paths.map(|path| Came::List(children_of(&server, path)));
    assert_eq!([came(&mut frame), came(&mut frame), came(&mut frame)], lists);
    server.core.step(ToPipeline::Disconnected { conn: conn(1) });
    assert!(server.core.state().tree().listed_bytes() < 3 * 10 * wide, "no list of a node that went is kept");
}

#[test]
fn who_may_read_is_looked_at_as_of_the_moment_of_the_answer() {
    const NODES: usize = 6000;
    let mut server = Server::with_lists(rules(), &[1; NODES]);
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..NODES));
    server.turn();
    let nobody = Acl { perms: 31, scheme: Some("digest".into()), id: Some("nobody:x".into()) };
    for node in [0, NODES - 1] {
        let op = Op::Write(WriteOp::SetAcl(SetAcl {
            path: format!("/{node}"),
            acl: Some(vec![nobody.clone()]),
            version: -1,
        }));
        server.ask_only(conn(2), OpCode::SetAcl, op);
    }
    let (told, records) = server.turn_of(conn(1));
    assert!(told.is_empty());
    server.committed(records[1].zxid);
    let told = (0..10).map(|_| server.turn_of(conn(1)).0).find(|told| !told.is_empty()).unwrap();
    let mut frame = Reader::new(&told[20..]);
    for node in 0..NODES {
        let is_refused = |came: Came| came == Came::Error(-102);
        let both = (is_refused(came(&mut frame)), is_refused(came(&mut frame)));
        let wanted = [0, NODES - 1].contains(&node);
        assert_eq!(both, (wanted, wanted), "{node}");
    }
}

#[test]
fn what_there_is_of_a_long_answer_counts_while_it_is_made() {
    let mut server = Server::with_lists(Rules { replies_bytes_max: 200_000, ..rules() }, &[1; 6000]);
    server.connect(conn(3));
    let data = Some(vec![7; 5000]);
    let big = Create { code: OpCode::Create, path: "/big".into(), data, acl: Some(Acl::open()), flags: 0, ttl_ms: -1 };
    assert_eq!(server.ask(conn(2), 1, Op::Write(WriteOp::Create(big))).code(), 0);
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..6000));
    let mut excess = None;
    while excess.is_none() {
        let (told, excess_bytes) = told(&mut server);
        assert!(told.is_empty(), "it is not done when that is told");
        excess = excess_bytes.filter(|bytes| *bytes > 0);
    }
    // A large value waits for its room, and a short answer does not.
    read(&mut server, conn(2), OpCode::GetData, get("/big"));
    read(&mut server, conn(3), OpCode::GetData, get("/0"));
    assert_eq!(told(&mut server).0.iter().map(|(who, ..)| *who).collect::<Vec<_>>(), [conn(3)]);
    // Who leaves, leaves its room.
    server.core.step(ToPipeline::Disconnected { conn: conn(1) });
    let told: Vec<_> = (0..3).flat_map(|_| told(&mut server).0).filter(|(_, bytes, _)| *bytes > 0).collect();
    assert!(matches!(told[..], [(who, 5000.., _)] if who == conn(2)), "{told:?}");
    assert!(!server.core.wants_to_run());
}

#[test]
fn a_multi_read_that_is_long_only_when_its_turn_comes_holds_nothing_up_for_good() {
    let wide = LISTED_AT_ONCE;
    let mut server = Server::with_lists(Rules { replies_bytes_max: 100_000, ..rules() }, &[wide, 5 * wide]);
    // Somebody is being sent so much that there is no room.
    server.ask_only(conn(2), OpCode::GetChildren, list("/1"));
    let taken = loop {
        let outgoing = server.core.take_outbox().poller.outgoing;
        if !outgoing.is_empty() {
            break outgoing;
        }
    };
    let add = Op::Write(WriteOp::Multi(vec![multi_create("/0/new")]));
    server.ask_only(conn(1), OpCode::Multi, add);
    let reads = Op::Read(ReadOp::MultiRead(vec![MultiReadOp::GetChildren { path: "/0".into() }]));
    server.ask_only(conn(1), OpCode::MultiRead, reads);
    server.ask_only(conn(1), OpCode::SetData, set("/0"));
    let (_, records) = server.turn_of(conn(1));
    assert_eq!(records.len(), 2, "it was not long when it came, and the write behind it is on its way");
    server.committed(records[0].zxid);
    let (told, _) = server.turn_of(conn(1));
    assert!((1..1000).contains(&told.len()) && !server.core.wants_to_run(), "it waits for room");
    // That comes, and at the same moment the write behind it.
    drop(taken);
    server.committed(records[1].zxid);
    server.ask_only(conn(1), OpCode::Ping, Op::Read(ReadOp::Ping));
    let told: Vec<u8> = (0..3).flat_map(|_| server.turn_of(conn(1)).0).collect();
    assert!(told.len() > 10 * wide);
    assert_eq!(Reader::new(&told[told.len() - 16..]).int(), Ok(-2), "the ping is answered");
    assert!(!server.core.wants_to_run());
}

#[test]
fn a_long_multi_read_ends_with_the_role_in_which_it_was_asked() {
    let mut server = Server::with_lists(rules(), &[1; 3000]);
    server.ask_only(conn(1), OpCode::MultiRead, reads_of(0..3000));
    server.ask_only(conn(1), OpCode::SetData, set("/0"));
    server.turn();
    assert!(server.core.wants_to_run());
    server.core.step(ToPipeline::Role(Role::Looking));
    assert!(!server.core.wants_to_run(), "nothing is to be done for who was dismissed");
    let out = server.core.take_outbox().poller.outgoing;
    let of_first: Vec<&Outgoing> = out.iter().filter(|outgoing| outgoing.conn == conn(1)).collect();
    let [told] = of_first[..] else { panic!("{of_first:?}") };
    assert_eq!((told.bytes.len(), told.answered, told.fate), (0, 2, Fate::Close));
}

#[test]
fn lists_that_are_larger_together_than_there_is_room_for_are_made_in_turns_all_the_same() {
    let wide = 3 * LISTED_AT_ONCE;
    // Each takes ten bytes a child.
    let mut server = Server::with_lists(Rules { lists_bytes_max: 10 * wide, ..rules() }, &[wide; 4]);
    let kept = |server: &Server| server.core.state().tree().listed_bytes();
    assert_eq!(server.multi_list(conn(1), &[0, 1, 2]), (3 * wide, 9));
    server.turn();
    assert!((10 * wide..11 * wide).contains(&kept(&server)), "the one that was given last is kept");
    // Of two who ask at once for what has no room, one waits, and both are answered.
    let reads = |lists: [usize; 2]| {
        Op::Read(ReadOp::MultiRead(lists.iter().map(|n| MultiReadOp::GetChildren { path: format!("/{n}") }).collect()))
    };
    server.ask_only(conn(1), OpCode::MultiRead, reads([0, 1]));
    server.ask_only(conn(2), OpCode::MultiRead, reads([2, 3]));
    let (mut answered, mut most) = (0, 0);
    while server.core.wants_to_run() {
        let told = told(&mut server).0;
        answered += told.iter().filter(|(_, bytes, _)| *bytes > 20 * wide).count();
        most = most.max(kept(&server));
    }
    assert_eq!(answered, 2);
    assert!(most <= 35 * wide, "{most} of {} for all four", 40 * wide);
}

#[test]
fn a_list_that_is_not_so_long_does_not_wait_for_a_very_long_one() {
    let mut server = Server::with_lists(rules(), &[20 * LISTED_AT_ONCE, LISTED_AT_ONCE + 1]);
    server.ask_only(conn(1), OpCode::GetChildren, list("/0"));
    server.ask_only(conn(2), OpCode::GetChildren, list("/1"));
    let mut who = Vec::new();
    for turn in 1.. {
        who.extend(told(&mut server).0.iter().map(|(who, ..)| (*who, turn)));
        if !server.core.wants_to_run() {
            break;
        }
    }
    assert!(
        matches!(who[..], [(first, soon), (last, _)] if first == conn(2) && soon <= 4 && last == conn(1)),
        "{who:?}"
    );
}

/// The first client has so many ephemerals below a node, and a second one is there. Few names are listed at a time.
fn with_ephemerals(count: usize, listed_at_once: usize) -> Server {
    let state_rules = StateRules { listed_at_once, ..StateRules::new(OwnerRules::default(), true) };
    let mut server = Server::with_state(rules(), state_rules, &[("/e", -1), ("/f", -1)]);
    server.connect(conn(1));
    server.connect(conn(2));
    let create = |n| {
        MultiOp::Create(Create {
            code: OpCode::Create,
            path: format!("/{}/{n:06}", if n % 2 == 0 { "e" } else { "f" }),
            data: None,
            acl: Some(Acl::open()),
            flags: 1,
            ttl_ms: -1,
        })
    };
    server.ask(conn(1), OpCode::Multi as i32, Op::Write(WriteOp::Multi((0..count).map(create).collect())));
    server
}

fn get_ephemerals(prefix: &str) -> Op {
    Op::Read(ReadOp::GetEphemerals { prefix: Some(prefix.into()) })
}

impl Server {
    /// All ephemerals as the state has them, which are the first client's.
    fn owned(&self, prefix: &str) -> Vec<String> {
        let ephemerals = self.core.state().ephemerals().map(|(_, path)| path);
        let mut owned: Vec<String> = ephemerals.filter(|path| path.starts_with(prefix)).collect();
        owned.sort_unstable();
        owned
    }
}

#[test]
fn very_many_ephemerals_of_a_session_are_listed_between_the_requests_of_others() {
    let mut server = with_ephemerals(100, 10);
    server.ask_only(conn(1), OpCode::GetEphemerals, get_ephemerals("/"));
    server.ask_only(conn(1), OpCode::SetData, set("/e"));
    for _ in 0..3 {
        let (told, records) = server.turn_of(conn(1));
        assert!(told.is_empty() && records.is_empty(), "a write behind the list must not come before it");
    }
    // Of those that went, one was listed and one was to be; another node comes into its place.
    assert!(!server.ask(conn(2), OpCode::GetData as i32, get("/e/000010")).bytes.is_empty());
    assert!(server.core.wants_to_run());
    let delete = |path: &str| MultiOp::Delete(Delete { path: path.into(), version: -1 });
    let mut ops: Vec<MultiOp> = server.owned("/e").iter().map(|path| delete(path)).collect();
    ops.push(multi_create("/other"));
    server.ask_only(conn(2), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
    let (mut turns, mut told) = (0, Vec::new());
    while told.is_empty() {
        turns += 1;
        assert!(turns < 20);
        let out = server.core.take_outbox();
        told = out.poller.outgoing.into_iter().filter(|o| o.conn == conn(1)).flat_map(|o| o.bytes.into_vec()).collect();
        out.records.last().into_iter().for_each(|last| server.committed(last.zxid));
    }
    let (_, mut paths) = listed(&told);
    paths.sort_unstable();
    assert_eq!((paths.len(), paths), (50, server.owned("/")));
    assert!(!server.core.wants_to_run());
}

#[test]
fn ephemerals_are_listed_as_they_are_when_the_list_is_given_whatever_came_and_went() {
    let mut server = with_ephemerals(60, 7);
    let mut random = 11u32;
    let mut below = move |bound: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % bound
    };
    let (mut given, mut made_in_turns) = (0, 0);
    // One is committed in each turn, so that a list is given with the state that is seen here.
    let mut proposed: VecDeque<Zxid> = VecDeque::new();
    for round in 0..300 {
        // Behind a write of its own, or two, the list is begun before they are committed.
        for n in 0..below(3) {
            let path = format!("/{}/{round}-{n}", ["e", "f"][below(2)]);
            let create =
                Create { code: OpCode::Create, path, data: None, acl: Some(Acl::open()), flags: 1, ttl_ms: -1 };
            server.ask_only(conn(1), OpCode::Create, Op::Write(WriteOp::Create(create)));
        }
        let prefix = ["/", "/e", "/e/0000", "/f/", "/none"][below(5)];
        server.ask_only(conn(1), OpCode::GetEphemerals, get_ephemerals(prefix));
        let xid = server.xid;
        for turn in 0..100 {
            let owned = server.owned("/");
            if turn < 10 && !owned.is_empty() && below(2) == 0 {
                let mut ops = vec![MultiOp::Delete(Delete { path: owned[below(owned.len())].clone(), version: -1 })];
                ops.extend((below(2) == 0).then(|| multi_create(&format!("/x{round}-{turn}"))));
                server.ask_only(conn(2), OpCode::Multi, Op::Write(WriteOp::Multi(ops)));
            }
            let out = server.core.take_outbox();
            let mut told: Vec<u8> = out
                .poller
                .outgoing
                .into_iter()
                .filter(|o| o.conn == conn(1))
                .flat_map(|o| o.bytes.into_vec())
                .collect();
            let mut answered = false;
            while !told.is_empty() {
                let length = 4 + i32::from_be_bytes(*told.first_chunk().unwrap()) as usize;
                let reply: Vec<u8> = told.drain(..length).collect();
                if reply[4..8] == xid.to_be_bytes() {
                    let mut frame = Reader::new(&reply[8..]);
                    assert_eq!((frame.long().unwrap(), frame.int().unwrap()), (server.zxid().0, 0));
                    let mut paths = frame.strings().unwrap().unwrap();
                    paths.sort_unstable();
                    assert_eq!(paths, server.owned(if prefix == "/" { "" } else { prefix }), "round {round}");
                    (answered, given, made_in_turns) = (true, given + 1, made_in_turns + usize::from(turn > 2));
                }
            }
            proposed.extend(out.records.iter().map(|record| record.zxid));
            proposed.pop_front().into_iter().for_each(|zxid| server.committed(zxid));
            if answered {
                break;
            }
        }
    }
    assert_eq!(given, 300);
    assert!(made_in_turns > 20, "{made_in_turns}");
    server.commit(conn(1));
    assert!(!server.core.wants_to_run());
}

#[test]
fn a_session_that_ends_while_its_ephemerals_are_listed_leaves_nothing_behind() {
    for (code, op) in [(OpCode::CloseSession, Op::CloseSession), (OpCode::GetEphemerals, get_ephemerals("/"))] {
        let mut server = with_ephemerals(100, 10);
        server.ask_only(conn(1), OpCode::GetEphemerals, get_ephemerals("/"));
        server.ask_only(conn(1), code, op);
        server.turn();
        assert!(server.core.state().tree().listed_bytes() > 0);
        if code == OpCode::GetEphemerals {
            server.core.step(ToPipeline::Disconnected { conn: conn(1) });
            server.turn();
            server.wait(4000 + 2 * TICK_MS);
        } else {
            (0..20).for_each(|_| drop(server.commit(conn(1))));
        }
        assert_eq!((server.owned("/").len(), server.core.state().tree().listed_bytes()), (0, 0));
        assert!(!server.core.wants_to_run());
    }
}

#[test]
fn very_many_quotas_are_not_added_up_while_everybody_waits() {
    let quotas = |count: usize| -> Vec<String> {
        let of = |n| [format!("/zookeeper/quota/{n}"), format!("/zookeeper/quota/{n}/zookeeper_limits")];
        (0..count).flat_map(of).collect()
    };
    for (count, told) in [(LISTED_MAX, LISTED_MAX), (LISTED_MAX + 1, 0)] {
        let paths = quotas(count);
        let nodes: Vec<(&str, i32)> = paths.iter().map(|path| (path.as_str(), -1)).collect();
        assert_eq!(Server::with(rules(), &nodes).core.quotas().len(), told);
    }
}

fn set_watches(data: Vec<String>, relative_zxid: i64) -> Op {
    let none = Vec::new;
    Op::Read(ReadOp::SetWatches(Box::new(SetWatches {
        relative_zxid,
        data,
        exist: none(),
        child: none(),
        persistent: none(),
        persistent_recursive: none(),
    })))
}

#[test]
fn very_many_watches_are_set_between_the_requests_of_others_and_miss_nothing() {
    let count = 2 * WATCHES_SET_AT_ONCE;
    let mut server = Server::with_lists(rules(), &[count]);
    let seen = server.zxid().0;
    let paths: Vec<String> = (0..count).map(|n| format!("/0/{n:06}")).collect();
    server.ask_only(conn(1), OpCode::SetWatches, set_watches(paths, seen));
    server.ask_only(conn(1), OpCode::SetData, set("/0"));
    let (told, records) = server.turn_of(conn(1));
    assert!(told.is_empty() && records.is_empty(), "a write behind it is behind its answer");
    assert_eq!(server.core.watch_count() as usize, WATCHES_SET_AT_ONCE);
    // Another one's few are set meanwhile; and what changes is told, whether it is watched already or not yet.
    server.ask_only(conn(2), OpCode::SetWatches, set_watches(vec!["/0".into()], seen));
    for path in ["/0/000000", &format!("/0/{:06}", count - 1)] {
        server.ask_only(conn(2), OpCode::SetData, set(path));
    }
    let out = server.core.take_outbox();
    let answered: u32 = out.poller.outgoing.iter().filter(|o| o.conn == conn(2)).map(|o| o.answered).sum();
    assert_eq!((answered, out.records.len()), (1, 3), "the last of them was set, and its client goes on");
    let answer = out.poller.outgoing.into_iter().find(|o| o.conn == conn(1)).unwrap();
    assert_eq!((answer.answered, answer.frames), (1, 1));
    let told = {
        let zxid = out.records.last().unwrap().zxid;
        server.core.step(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
        server.core.take_outbox().poller.outgoing.into_iter().find(|o| o.conn == conn(1)).unwrap()
    };
    assert_eq!((told.answered, told.frames), (1, 3), "its write, and two events");
    assert_eq!(server.core.watch_count() as usize, count - 2);
    assert!(!server.core.wants_to_run());
}

#[test]
fn a_node_that_changes_before_its_watch_is_set_is_told_of() {
    let count = 3 * WATCHES_SET_AT_ONCE;
    let mut server = Server::with_lists(rules(), &[count]);
    let seen = server.zxid().0;
    let paths: Vec<String> = (0..count).map(|n| format!("/0/{n:06}")).collect();
    let last = paths[count - 1].clone();
    server.ask_only(conn(1), OpCode::SetWatches, set_watches(paths, seen));
    let watched = server.ask(conn(2), OpCode::SetWatches as i32, set_watches(vec!["/0".into()], seen));
    assert_eq!(watched.code(), 0);
    server.ask_only(conn(2), OpCode::SetData, set(&last));
    let (mut told, mut frames) = (Vec::new(), 0);
    while told.is_empty() || server.core.wants_to_run() {
        let out = server.core.take_outbox();
        if let Some(record) = out.records.last() {
            server.core.step(ToPipeline::Committed { zxid: record.zxid, at_us: 0, synced: vec![] });
        }
        for outgoing in out.poller.outgoing.into_iter().filter(|o| o.conn == conn(1)) {
            frames += outgoing.frames;
            told.extend(outgoing.bytes.into_vec());
        }
    }
    assert_eq!(frames, 2, "an event and the answer");
    let is_event = told.windows(last.len()).any(|part| part == last.as_bytes());
    assert!(is_event && server.core.watch_count() as usize == count);
}

#[test]
fn a_few_watches_are_set_at_once() {
    let mut server = Server::with_lists(rules(), &[WATCHES_SET_IN_TURNS]);
    let paths: Vec<String> = (0..WATCHES_SET_IN_TURNS).map(|n| format!("/0/{n:06}")).collect();
    server.ask_only(conn(1), OpCode::SetWatches, set_watches(paths, server.zxid().0));
    assert_eq!(server.core.watch_count() as usize, WATCHES_SET_IN_TURNS);
}

#[test]
fn the_watches_of_a_client_that_leaves_go_in_several_turns() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    let data = (0..2 * WATCHES_REMOVED_AT_ONCE).map(|n| format!("/{n}")).collect();
    let none = Vec::new;
    let watches = SetWatches {
        relative_zxid: 0,
        data: none(),
        exist: data,
        child: none(),
        persistent: none(),
        persistent_recursive: none(),
    };
    server.ask_only(conn(1), OpCode::SetWatches, Op::Read(ReadOp::SetWatches(Box::new(watches))));
    while server.core.wants_to_run() {
        server.turn();
    }
    server.core.step(ToPipeline::Disconnected { conn: conn(1) });
    assert_eq!(server.core.watch_count() as usize, 2 * WATCHES_REMOVED_AT_ONCE);
    server.turn();
    assert_eq!(server.core.watch_count() as usize, WATCHES_REMOVED_AT_ONCE);
    assert!(server.core.wants_to_run());
    // Operators see whose those are that are left, and as many as the totals say.
    let (by_path, by_session) = (server.core.watches_by_path(), server.core.watches_by_session());
    assert!(by_path.iter().all(|(_, sessions)| matches!(sessions[..], [session] if session != SessionId::NONE)));
    assert!(
        matches!(&by_session[..], [(session, paths)] if *session != SessionId::NONE && paths.len() == by_path.len())
    );
    let totals = server.core.watch_totals();
    let left = WATCHES_REMOVED_AT_ONCE as u64;
    assert_eq!((totals.connections, totals.paths, totals.watches), (1, left, left));
    assert_eq!(by_path.len() as u64, left);
    server.turn();
    server.turn();
    assert_eq!(server.core.watch_totals().connections, 0);
    assert_eq!(server.core.watch_count(), 0);
    assert!(!server.core.wants_to_run());
}

#[test]
fn what_may_be_due_for_removal_is_looked_at_in_several_turns() {
    let mut server = Server::new(rules());
    server.connect(conn(1));
    for n in 0..CHILDLESS_LOOKED_AT_ONCE {
        server.create(conn(1), OpCode::CreateTtl, &format!("/t{n}"), 5, 100_000_000);
    }
    server.create(conn(1), OpCode::CreateTtl, "/due", 5, 1);
    server.wait(59_999);
    server.now.mono_ms += 1;
    server.now.wall_ms += 1;
    let mut records = server.turn();
    assert!(server.core.next_deadline_ms() <= server.now.mono_ms, "there are more to look at");
    records.extend(server.turn());
    assert!(server.core.next_deadline_ms() > server.now.mono_ms);
    assert_eq!(records.len(), 1);
}
