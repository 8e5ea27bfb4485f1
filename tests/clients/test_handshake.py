"""The first frame of a connection and its answer, byte for byte."""

import struct

import pytest

from rawzk import Closed, Err, Op, Raw, boolean, buf, frame, i32, i64


def password_of(session):
    """The password every ZooKeeper server computes for a session id: 16 bytes of Java's Random."""
    state = (session ^ 0xB3415C00 ^ 0x5DEECE66D) & ((1 << 48) - 1)
    out = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        out += struct.pack("<I", (state >> 16) & 0xFFFFFFFF)
    return out


def test_the_password_formula_matches_the_check_vector():
    assert password_of(0x01000019C66D0000).hex() == "09abfbe9621ab3028f134f067b16b45a"


def test_a_new_session_is_answered_byte_for_byte(connect):
    zk = connect(shake=False)
    answer = zk.handshake(timeout_ms=10000, read_only=False)
    expected = i32(0) + i32(10000) + i64(answer.session) + buf(password_of(answer.session)) + b"\x00"
    assert answer.raw == expected
    assert len(answer.raw) == 37


def test_without_the_read_only_byte_the_answer_has_none_either(connect):
    zk = connect(shake=False)
    answer = zk.handshake(read_only=None)
    assert answer.read_only is None
    assert len(answer.raw) == 36


def test_a_read_only_client_is_welcome_on_a_writable_server(connect):
    answer = connect(shake=False).handshake(read_only=True)
    assert answer.read_only is False
    assert answer.session != 0


def test_the_read_only_byte_may_come_in_a_segment_of_its_own(connect):
    zk = connect(shake=False)
    whole = frame(zk.connect_record(read_only=False))
    zk.send_bytes(whole[:-1])
    zk.send_bytes(whole[-1:])
    assert zk.handshake_reply().read_only is False


def test_consecutive_sessions_have_consecutive_ids_that_name_the_server(connect):
    first, second = connect().session, connect().session
    assert second == first + 1
    assert first >> 56 == 1


@pytest.mark.parametrize("asked, granted", [(-5, 4000), (0, 4000), (3999, 4000), (4000, 4000), (4001, 4001),
                                            (39999, 39999), (40001, 40000), (2**31 - 1, 40000)])
def test_timeouts_are_clamped_to_2_and_20_ticks(connect, defaults, asked, granted):
    assert connect(port=defaults.port, shake=False).handshake(timeout_ms=asked).timeout == granted


def test_configured_session_timeouts_win_over_ticks(connect, start_server):
    server = start_server(config={"minSessionTimeout": 1234, "maxSessionTimeout": 5678})
    assert connect(port=server.port, shake=False).handshake(timeout_ms=1).timeout == 1234
    assert connect(port=server.port, shake=False).handshake(timeout_ms=99999).timeout == 5678


@pytest.mark.parametrize("password", [None, b"", b"short", bytes(100)])
def test_a_new_session_may_bring_any_password(connect, password):
    answer = connect(shake=False).handshake(password=password)
    assert answer.session != 0
    assert len(answer.password) == 16


def test_the_protocol_version_is_ignored(connect):
    assert connect(shake=False).handshake(version=77).session != 0


def test_a_connect_request_may_arrive_byte_by_byte(connect):
    zk = connect(shake=False)
    for byte in frame(zk.connect_record()):
        zk.send_bytes(bytes([byte]))
    assert zk.handshake_reply().session != 0


def test_requests_sent_before_the_answer_are_served_in_order(connect):
    zk = connect(shake=False)
    pings = b"".join(frame(i32(xid) + i32(Op.GET_ALL_CHILDREN_NUMBER) + buf(b"/zookeeper")) for xid in (5, 6, 7))
    zk.send_bytes(frame(zk.connect_record()) + pings)
    assert zk.handshake_reply().session != 0
    assert [zk.next().xid for _ in range(3)] == [5, 6, 7]


@pytest.mark.parametrize("cut", [1, 8, 20, 27, 30])
def test_a_truncated_connect_request_closes(connect, cut):
    zk = connect(shake=False)
    zk.send_frame(zk.connect_record(read_only=None)[:cut])
    assert zk.until_closed() == []


def test_a_client_that_has_seen_the_future_is_closed_without_an_answer(connect):
    zk = connect(shake=False)
    zk.send_frame(zk.connect_record(last_zxid=1 << 40))
    assert zk.until_closed() == []


@pytest.mark.parametrize("seen", [-1, 0, 1])
def test_a_client_of_the_past_is_welcome(connect, seen):
    assert connect(shake=False).handshake(last_zxid=seen).session != 0


def test_the_future_also_keeps_a_renewing_session_out_but_alive(connect):
    zk = connect()
    other = connect(shake=False)
    other.send_frame(other.connect_record(last_zxid=1 << 40, session=zk.session, password=zk.password))
    assert other.until_closed() == []
    again = connect(shake=False)
    assert again.handshake(session=zk.session, password=zk.password).session == zk.session


# -- renewal

EXPIRED = i32(0) + i32(0) + i64(0) + buf(bytes(16))


def test_a_renewed_session_keeps_id_and_password_and_takes_the_new_timeout(connect):
    zk = connect(timeout_ms=10000)
    again = connect(shake=False)
    answer = again.handshake(session=zk.session, password=zk.password, timeout_ms=7000)
    assert (answer.session, answer.password, answer.timeout) == (zk.session, zk.password, 7000)


def test_renewing_closes_the_old_connection(connect):
    zk = connect()
    again = connect(session=zk.session, password=zk.password)
    assert zk.until_closed() == []
    again.ping()


@pytest.mark.parametrize("read_only, tail", [(None, b""), (False, b"\x00"), (True, b"\x00")])
def test_an_unknown_session_is_told_that_it_has_expired(connect, read_only, tail):
    zk = connect(shake=False)
    answer = zk.handshake(session=99999, password=bytes(16), read_only=read_only)
    assert answer.raw == EXPIRED + tail
    assert zk.until_closed() == []


def test_an_unknown_session_with_its_right_password_has_expired_too(connect):
    zk = connect(shake=False)
    assert zk.handshake(session=4711, password=password_of(4711)).raw == EXPIRED + b"\x00"
    assert zk.until_closed() == []


def test_a_wrong_password_is_refused_and_does_no_harm(connect):
    zk = connect()
    session, password = zk.session, zk.password
    thief = connect(shake=False)
    assert thief.handshake(session=session, password=b"x" * 16).raw == EXPIRED + b"\x00"
    assert thief.until_closed() == []
    again = connect(shake=False)
    assert again.handshake(session=session, password=password).session == session
    again.ping()


def test_a_closed_session_cannot_be_renewed(connect):
    zk = connect()
    session, password = zk.session, zk.password
    zk.close_session().ok()
    again = connect(shake=False)
    assert again.handshake(session=session, password=password).raw == EXPIRED + b"\x00"


def test_watches_and_auth_stay_behind_on_renewal(connect, root):
    zk = connect()
    zk.auth("digest", b"u:p").ok()
    zk.exists(root, watch=True).ok()
    again = connect(session=zk.session, password=zk.password)
    assert [scheme for scheme, _ in again.who_am_i().who()] == ["ip"]
    again.set(root, b"x").ok()
    assert again.fired() == []


def test_a_session_survives_its_connection(connect, root):
    zk = connect()
    session, password = zk.session, zk.password
    zk.create(root + "/e", flags=1).ok()
    zk.reset()
    again = connect(session=session, password=password)
    assert again.exists(root + "/e").stat().ephemeralOwner == session
    assert again.call(Op.EXISTS, buf(b"/nope") + boolean(False)).err == Err.NO_NODE


def test_a_connect_request_on_an_established_session_is_no_handshake(connect):
    """It reads as a request header: xid 0, type 0, which is no operation a client can ask for."""
    zk = connect()
    zk.send_frame(zk.connect_record())
    reply = zk.next()
    assert (reply.xid, reply.zxid, reply.err) == (0, -1, Err.UNIMPLEMENTED)
    with pytest.raises(Closed):
        zk.next()


def test_an_idle_connection_without_session_is_closed(start_server):
    server = start_server(config={"nio.sessionlessCnxnTimeout": 500})
    assert Raw(server.port).until_closed() == []


@pytest.mark.rookeeper_only("it keeps it for ever")
def test_a_byte_now_and_then_keeps_no_connection_without_session(start_server):
    server = start_server(config={"nio.sessionlessCnxnTimeout": 500})
    raw = Raw(server.port)
    raw.sock.settimeout(0.2)
    sent = 0
    for byte in [b"\x00"] * 3 + [b"\x2d"] + [b"\x00"] * 30:
        raw.send_bytes(byte)
        sent += 1
        try:
            assert raw.sock.recv(1) == b""
            break
        except TimeoutError:
            pass
    assert sent < 15
