//! Every packet as bytes and back, and bytes that are none.

use super::*;

const CONFIG: &str = "server.1=127.0.0.1:3101:4101:participant\nserver.2=127.0.0.1:3102:4102:participant\n\
    server.3=127.0.0.1:3103:4103:participant\nversion=0";

/// Bytes in hexadecimal, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn encoded(packet: &Packet, from: From) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(from, &mut out);
    out
}

fn decoded(bytes: &[u8], from: From) -> Result<Option<Packet>, PacketError> {
    let mut decoder = PacketDecoder::new(from, 1000);
    decoder.feed(bytes);
    decoder.next_packet()
}

fn info(observer: bool) -> LearnerInfo {
    LearnerInfo {
        observer,
        accepted_epoch: 0,
        server: Some(ServerId(1)),
        protocol: PROTOCOL,
        config_version: 0,
        history: None,
    }
}

/// What was captured between servers of Apache.
fn captured() -> Vec<(From, Packet, Vec<u8>)> {
    let zxid = Zxid(0x1_0000_0000);
    let session = SessionId(0x0100_001f_49b3_0000);
    let config: String = CONFIG.bytes().map(|b| format!("{b:02x}")).collect();
    let create = "000000022f78 0000000131 00000001 0000001f 00000005776f726c64 00000006616e796f6e65 00000000";
    let request = |cxid, op, body: &str, auth: Option<Vec<AuthId>>| {
        Packet::Request(ForwardedRequest { session, cxid, op, body: hex(body), auth })
    };
    let cases: Vec<(From, Packet, String)> = vec![
        (
            From::Learner,
            Packet::LearnerInfo(info(false)),
            "0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff".into(),
        ),
        (
            From::Leader,
            Packet::LeaderInfo { epoch: 1, ours: None },
            "00000011 0000000100000000 00000004 00010000 ffffffff".into(),
        ),
        (
            From::Learner,
            Packet::AckEpoch { zxid: Zxid(0), epoch: Some(0), reach: None },
            "00000012 0000000000000000 00000004 00000000 ffffffff".into(),
        ),
        (From::Leader, Packet::Diff { zxid: Zxid(0) }, "0000000d 0000000000000000 ffffffff ffffffff".into()),
        (
            From::Leader,
            Packet::NewLeader { zxid, config: CONFIG.into() },
            format!("0000000a 0000000100000000 00000084 {config} ffffffff"),
        ),
        (From::Learner, Packet::Ack { zxid }, "00000003 0000000100000000 ffffffff ffffffff".into()),
        (From::Leader, Packet::UpToDate, "0000000c ffffffffffffffff ffffffff ffffffff".into()),
        (From::Leader, Packet::Ping { zxid, touched: vec![] }, "00000005 0000000100000000 ffffffff ffffffff".into()),
        (From::Learner, Packet::Ping { zxid, touched: vec![] }, "00000005 0000000100000000 00000000 ffffffff".into()),
        (
            From::Learner,
            request(1, 1, create, Some(vec![AuthId::new("ip", "127.0.0.1")])),
            format!(
                "00000001 ffffffffffffffff 0000003a 0100001f49b30000 00000001 00000001 {create} \
                 00000001 000000026970 000000093132372e302e302e31"
            ),
        ),
        (
            From::Learner,
            request(0, -10, "00002710", None),
            "00000001 ffffffffffffffff 00000014 0100001f49b30000 00000000 fffffff6 00002710 ffffffff".into(),
        ),
    ];
    cases.into_iter().map(|(from, packet, bytes)| (from, packet, hex(&bytes))).collect()
}

/// One more of each kind, its bytes as the protocol lays them out.
fn others() -> Vec<(From, Packet)> {
    let (zxid, session, payload) = (Zxid(0x2_0000_0007), SessionId(5), vec![1, 2, 3]);
    let designated = ServerId(3);
    vec![
        (From::Leader, Packet::Proposal { zxid, payload: payload.clone() }),
        (From::Leader, Packet::Commit { zxid }),
        (From::Leader, Packet::TellingPing { zxid, foreign: ForeignEnds::new() }),
        (
            From::Leader,
            Packet::TellingPing { zxid, foreign: ForeignEnds::from([(designated, (zxid..=zxid.next()).into())]) },
        ),
        (From::Learner, Packet::Ping { zxid, touched: vec![(session, 4000), (SessionId(-6), 1)] }),
        (From::Learner, Packet::Revalidate { session, timeout_ms: 4000 }),
        (From::Leader, Packet::Revalidated { session, valid: true }),
        (From::Leader, Packet::Sync),
        (From::Leader, Packet::Inform { zxid, payload: payload.clone() }),
        (From::Leader, Packet::CommitAndActivate { zxid, designated }),
        (From::Leader, Packet::NewLeader { zxid, config: vec![] }),
        (From::Learner, Packet::LearnerInfo(info(true))),
        (From::Leader, Packet::Trunc { zxid }),
        (From::Leader, Packet::Snap { zxid, told: None }),
        (From::Learner, Packet::AckEpoch { zxid, epoch: None, reach: None }),
        (From::Leader, Packet::InformAndActivate { zxid, designated, payload }),
        (From::Leader, Packet::Unknown { kind: 77 }),
    ]
}

#[test]
fn packets_are_written_and_read_as_apache_writes_them() {
    for (from, packet, bytes) in captured() {
        assert_eq!(encoded(&packet, from), bytes, "{packet:?}");
        assert_eq!(decoded(&bytes, from), Ok(Some(packet)));
    }
}

#[test]
fn every_packet_survives_its_bytes_however_they_are_cut() {
    let mut packets = others();
    packets.extend(captured().into_iter().map(|(from, packet, _)| (from, packet)));
    for sender in [From::Learner, From::Leader] {
        let sent: Vec<Packet> = packets.iter().filter(|(from, _)| *from == sender).map(|(_, p)| p.clone()).collect();
        let mut stream = Vec::new();
        sent.iter().for_each(|packet| packet.encode(sender, &mut stream));
        for step in [1, 7, stream.len()] {
            let mut decoder = PacketDecoder::new(sender, 1000);
            let mut received = Vec::new();
            for piece in stream.chunks(step) {
                decoder.feed(piece);
                while let Some(packet) = decoder.next_packet().unwrap() {
                    received.push(packet);
                }
            }
            assert_eq!(received, sent);
        }
    }
}

#[test]
fn learners_of_older_releases_say_less_about_themselves() {
    let data = hex("0000000000000001 00010000 0000000000000007");
    let read = |bytes: Option<&[u8]>| {
        let mut packet = hex("0000000b 0000000300000000");
        packet.put_buffer(bytes);
        packet.put_int(-1);
        decoded(&packet, From::Learner).unwrap().unwrap()
    };
    let now = LearnerInfo { accepted_epoch: 3, config_version: 7, ..info(false) };
    let without_version = LearnerInfo { config_version: 0, ..now };
    let server_alone = LearnerInfo { protocol: 0, ..without_version };
    let nothing = LearnerInfo { server: None, ..server_alone };
    assert_eq!(read(Some(&data)), Packet::LearnerInfo(now));
    assert_eq!(read(Some(&data[..12])), Packet::LearnerInfo(without_version));
    assert_eq!(read(Some(&data[..8])), Packet::LearnerInfo(server_alone));
    assert_eq!(read(None), Packet::LearnerInfo(nothing));
}

#[test]
fn a_length_that_no_packet_has_is_refused_before_its_bytes_come() {
    let data = "00000002 0000000000000001";
    let refused = |tail: &str| decoded(&hex(&format!("{data} {tail}")), From::Leader).unwrap_err();
    for (len, text) in [(i32::MAX, "7fffffff"), (-2, "fffffffe"), (1001, "000003e9")] {
        assert_eq!(refused(text), PacketError::BadDataLength { kind: 2, len, max: 1000 });
    }
    assert_eq!(refused("ffffffff 7fffffff"), PacketError::BadIdentities { kind: 2 });
    assert_eq!(refused("ffffffff 00000001 7fffffff"), PacketError::BadIdentities { kind: 2 });
    assert_eq!(decoded(&hex(&format!("{data} ffffffff 00000001 0000")), From::Leader), Ok(None));
}

#[test]
fn a_request_of_a_client_with_too_many_identities_comes_without_its_body_however_it_is_cut() {
    let digest = |n: usize| AuthId::new("digest", format!("user{n}:hash"));
    let crowd = |ids: Vec<AuthId>| {
        let request = ForwardedRequest { session: SessionId(7), cxid: 3, op: 1, body: vec![1; 40], auth: Some(ids) };
        encoded(&Packet::Request(request), From::Learner)
    };
    let many = crowd((0..FORWARDED_IDENTITIES_MAX + 1).map(digest).collect());
    let long = crowd(vec![digest(1), AuthId::new("digest", "x".repeat(FORWARDED_IDENTITY_BYTES_MAX))]);
    let next = encoded(&Packet::Ack { zxid: Zxid(4) }, From::Learner);
    for packet in [many, long] {
        let stream = [&packet[..], &next].concat();
        for step in [997, 64 << 10, stream.len()] {
            let (mut decoder, mut heard) = (PacketDecoder::new(From::Learner, 1000), Vec::new());
            for piece in stream.chunks(step) {
                decoder.feed(piece);
                while let Some(packet) = decoder.next_packet().unwrap() {
                    heard.push(packet);
                }
            }
            let refused = ForwardedRequest { session: SessionId(7), cxid: 3, op: 1, body: vec![], auth: None };
            assert!(refused.is_unreadable());
            assert_eq!(heard, [Packet::Request(refused), Packet::Ack { zxid: Zxid(4) }]);
        }
    }
    // Of any other kind it ends the connection, as before.
    let mut ping = encoded(&Packet::Ping { zxid: Zxid(1), touched: vec![] }, From::Learner);
    ping.truncate(ping.len() - 4);
    ping.put_int(5000);
    assert_eq!(decoded(&ping, From::Learner), Err(PacketError::BadIdentities { kind: 5 }));
}

#[test]
fn data_that_is_not_what_the_type_says_is_an_error_each_time() {
    let mut decoder = PacketDecoder::new(From::Learner, 1000);
    decoder.feed(&hex("00000005 0000000100000000 00000003 000000 ffffffff"));
    assert!(matches!(decoder.next_packet(), Err(PacketError::Malformed { kind: 5, .. })));
    assert!(matches!(decoder.next_packet(), Err(PacketError::Malformed { kind: 5, .. })));
    for (bytes, from) in [
        ("00000002 0000000100000001 ffffffff ffffffff", From::Leader),
        ("00000011 8000000100000000 ffffffff ffffffff", From::Leader),
        ("00000001 ffffffffffffffff 00000004 00000001 ffffffff", From::Learner),
        ("00000012 0000000000000000 00000004 fffffffe ffffffff", From::Learner),
    ] {
        assert!(matches!(decoded(&hex(bytes), from), Err(PacketError::Malformed { .. })), "{bytes}");
    }
}

#[test]
fn what_this_sender_never_sends_is_unknown() {
    let commit = encoded(&Packet::Commit { zxid: Zxid(1) }, From::Leader);
    assert_eq!(decoded(&commit, From::Learner), Ok(Some(Packet::Unknown { kind: 4 })));
}

#[test]
fn behind_snap_the_stream_is_handed_back() {
    let mut bytes = encoded(&Packet::Snap { zxid: Zxid(9), told: None }, From::Leader);
    bytes.extend_from_slice(b"snapshot");
    let mut decoder = PacketDecoder::new(From::Leader, 1000);
    decoder.feed(&bytes);
    assert_eq!(decoder.next_packet(), Ok(Some(Packet::Snap { zxid: Zxid(9), told: None })));
    assert_eq!(decoder.take_rest(), b"snapshot");
    decoder.feed(&encoded(&Packet::UpToDate, From::Leader));
    assert_eq!(decoder.next_packet(), Ok(Some(Packet::UpToDate)));
    assert_eq!((decoder.next_packet(), decoder.take_rest()), (Ok(None), vec![]));
}
