"""Frames, headers, sizes and records that do not decode."""

import pytest

from rawzk import (OPEN, Closed, Err, Event, Op, acl, boolean, buf, create_record, frame, i32, i64, ustr)

MAX_BUFFER = 1048575


def test_frames_may_arrive_byte_by_byte(zk, root):
    for byte in frame(i32(9) + i32(Op.EXISTS) + ustr(root) + boolean(False)):
        zk.send_bytes(bytes([byte]))
    assert zk.next().ok().xid == 9


def test_many_frames_in_one_segment_are_answered_in_order(zk, root):
    requests = [frame(i32(xid) + i32(Op.GET_DATA) + ustr(root) + boolean(False)) for xid in range(1, 501)]
    zk.send_bytes(b"".join(requests))
    assert [zk.next().xid for _ in range(500)] == list(range(1, 501))


def test_a_reply_is_header_and_record_byte_for_byte(zk, root):
    zk.create(root + "/a", b"data").ok()
    reply = zk.get(root + "/a")
    stat = zk.exists(root + "/a").body
    assert reply.body == buf(b"data") + stat
    assert len(stat) == 68


@pytest.mark.parametrize("xid", [0, -1, -3, -100, 2**31 - 1, -2**31])
def test_the_xid_is_echoed_whatever_it_is(zk, root, xid):
    zk.send_frame(i32(xid) + i32(Op.EXISTS) + ustr("/nope") + boolean(False))
    payload = zk.recv_frame()
    assert payload[:4] == i32(xid)
    assert payload[12:] == i32(Err.NO_NODE)


def test_a_ping_always_answers_with_its_own_xid(zk):
    zk.post(Op.PING, xid=77)
    reply = zk.next()
    assert (reply.xid, reply.err, reply.body) == (-2, 0, b"")
    assert reply.zxid > 0


def test_trailing_bytes_of_a_request_are_ignored(zk, root):
    zk.call(Op.EXISTS, ustr(root) + boolean(False) + b"and more").ok()
    zk.call(Op.SET_DATA, ustr(root) + buf(b"x") + i32(-1) + bytes(100)).ok()


def test_any_byte_but_zero_is_true(zk, root):
    zk.call(Op.EXISTS, ustr(root) + b"\x7f").ok()
    zk.set(root, b"x").ok()
    assert zk.fired() == [(3, root)]


@pytest.mark.parametrize("data", [None, b""])
def test_null_and_empty_data_stay_what_they_are(zk, root, data):
    zk.create(root + "/n", data).ok()
    assert zk.get(root + "/n").data() == data
    zk.set(root + "/n", b"full").ok()
    zk.set(root + "/n", data).ok()
    value, stat = zk.get(root + "/n").data_and_stat()
    assert value == data and stat.dataLength == 0


# -- unknown and malformed requests

@pytest.mark.parametrize("op", [0, 10, -1, -12, 23, 99, 108, 888])
def test_an_unknown_operation_is_refused_and_closes(zk, op):
    zk.post(op, b"", xid=5)
    reply = zk.next()
    assert (reply.xid, reply.zxid, reply.err, reply.body) == (5, -1, Err.UNIMPLEMENTED, b"")
    with pytest.raises(Closed):
        zk.next()


@pytest.mark.rookeeper_only("Apache takes the internal operations createSession and deleteContainer from clients")
@pytest.mark.parametrize("op", [Op.CREATE_SESSION, Op.DELETE_CONTAINER])
def test_operations_between_servers_are_unknown_to_clients(zk, op, root):
    zk.post(op, ustr(root), xid=5)
    reply = zk.next()
    assert (reply.xid, reply.zxid, reply.err) == (5, -1, Err.UNIMPLEMENTED)
    with pytest.raises(Closed):
        zk.next()


READS = {
    "exists": Op.EXISTS, "getData": Op.GET_DATA, "getACL": Op.GET_ACL, "getChildren": Op.GET_CHILDREN,
    "getChildren2": Op.GET_CHILDREN2, "sync": Op.SYNC, "checkWatches": Op.CHECK_WATCHES,
    "removeWatches": Op.REMOVE_WATCHES, "setWatches": Op.SET_WATCHES, "setWatches2": Op.SET_WATCHES2,
    "addWatch": Op.ADD_WATCH, "getEphemerals": Op.GET_EPHEMERALS, "getAllChildrenNumber": Op.GET_ALL_CHILDREN_NUMBER,
    "multiRead": Op.MULTI_READ,
}
WRITES = {
    "create": Op.CREATE, "create2": Op.CREATE2, "createContainer": Op.CREATE_CONTAINER, "createTTL": Op.CREATE_TTL,
    "delete": Op.DELETE, "setData": Op.SET_DATA, "setACL": Op.SET_ACL, "multi": Op.MULTI,
}


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_an_empty_body_is_a_marshalling_error_and_the_connection_stays(zk, name):
    op = {**READS, **WRITES}[name]
    reply = zk.call(op)
    assert (reply.err, reply.body) == (Err.MARSHALLING, b"")
    zk.ping()


@pytest.mark.parametrize("length", [-2, 100, 1 << 30, 2**31 - 1, -2**31])
def test_a_bad_length_inside_a_record_is_a_marshalling_error(zk, length):
    assert zk.call(Op.GET_DATA, i32(length) + b"/x\x00").err == Err.MARSHALLING
    assert zk.call(Op.SET_DATA, ustr("/x") + i32(length) + b"data").err == Err.MARSHALLING
    zk.ping()


def test_a_huge_acl_count_is_a_marshalling_error(zk, root):
    body = ustr(root + "/x") + buf(b"") + i32(2**31 - 1) + i32(31)
    assert zk.call(Op.CREATE, body).err == Err.MARSHALLING
    zk.ping()


def test_a_write_that_does_not_decode_still_takes_a_zxid(connect, start_server):
    server = start_server()
    zk = connect(port=server.port)
    before = zk.ping().zxid
    reply = zk.call(Op.CREATE, b"")
    assert (reply.err, reply.zxid) == (Err.MARSHALLING, before + 1)
    reply = zk.call(Op.GET_DATA, b"")
    assert (reply.err, reply.zxid) == (Err.MARSHALLING, before + 1)
    assert zk.call(Op.MULTI, b"").zxid == before + 2


NULL = i32(-1)


@pytest.mark.parametrize("name, op, record, err", [
    ("exists", Op.EXISTS, NULL + b"\x00", Err.MARSHALLING),
    ("getData", Op.GET_DATA, NULL + b"\x00", Err.MARSHALLING),
    ("getChildren", Op.GET_CHILDREN, NULL + b"\x00", Err.MARSHALLING),
    ("getChildren2", Op.GET_CHILDREN2, NULL + b"\x00", Err.MARSHALLING),
    ("getACL", Op.GET_ACL, NULL, Err.MARSHALLING),
    ("create", Op.CREATE, NULL + buf(b"") + OPEN + i32(0), Err.MARSHALLING),
    ("delete", Op.DELETE, NULL + i32(-1), Err.MARSHALLING),
    ("setData", Op.SET_DATA, NULL + buf(b"") + i32(-1), Err.BAD_ARGUMENTS),
    ("setACL", Op.SET_ACL, NULL + OPEN + i32(-1), Err.BAD_ARGUMENTS),
])
def test_a_null_path(zk, name, op, record, err):
    assert zk.call(op, record).err == err
    zk.ping()


def test_sync_echoes_a_null_path(zk):
    assert zk.call(Op.SYNC, NULL).ok().body == NULL


def test_a_vector_count_below_minus_one_is_an_empty_list(zk, root):
    assert zk.call(Op.CREATE, ustr(root + "/x") + buf(b"") + i32(-7) + i32(0)).err == Err.INVALID_ACL


def test_malformed_utf8_is_an_invalid_path(zk, root):
    bad = buf(root.encode() + b"/\xff\xfe")
    assert zk.call(Op.CREATE, bad + buf(b"") + OPEN + i32(0)).err == Err.BAD_ARGUMENTS
    zk.ping()


def test_sync_echoes_a_path_beyond_the_basic_plane(zk, kind):
    """Java writes such a character as two surrogates of three bytes each; a plain UTF-8 echo serves clients better."""
    reply = zk.call(Op.SYNC, ustr("/\U0001F600")).ok()
    surrogates = buf(b"/\xed\xa0\xbd\xed\xb8\x80")
    assert reply.body in ({surrogates} if kind == "apache" else {surrogates, ustr("/\U0001F600")})


# -- sizes

def test_the_largest_frame_is_served(zk, root):
    size = MAX_BUFFER - len(i32(1) + i32(Op.CREATE) + create_record(root + "/big", b""))
    zk.create(root + "/big", b"x" * size).ok()
    reply = zk.get(root + "/big")
    assert reply.data() == b"x" * size


@pytest.mark.parametrize("announced", [MAX_BUFFER + 1, 2**31 - 1, -1, -2**31])
def test_a_frame_outside_the_limits_closes_and_spares_the_session(connect, announced):
    zk = connect()
    zk.send_bytes(i32(announced))
    assert zk.until_closed() == []
    connect(session=zk.session, password=zk.password).ping()


def test_the_limit_counts_from_the_first_frame_on(connect):
    zk = connect(shake=False)
    zk.send_bytes(i32(MAX_BUFFER + 1) + zk.connect_record())
    assert zk.until_closed() == []


@pytest.mark.parametrize("size", range(8))
def test_a_frame_too_short_for_a_header_closes(zk, size):
    zk.send_frame(bytes(size))
    assert zk.until_closed() == []


def test_a_four_letter_word_on_an_established_session_is_a_bad_length(zk):
    zk.send_bytes(b"ruok")
    assert zk.until_closed() == []


def test_a_smaller_jute_maxbuffer_is_honoured(connect, start_server):
    server = start_server(properties={"jute.maxbuffer": 5000})
    zk = connect(port=server.port)
    overhead = len(i32(1) + i32(Op.CREATE) + create_record("/big", b""))
    zk.create("/big", b"x" * (5000 - overhead)).ok()
    zk.post(Op.CREATE, create_record("/huge", b"x" * (5000 - overhead)))
    assert zk.until_closed() == []


def test_replies_may_be_larger_than_any_request(zk, root):
    """600 children with names of 4,000 bytes: a reply of 2.4 MB."""
    names = [f"{number:04}" + "n" * 3996 for number in range(600)]
    for name in names:
        zk.post(Op.CREATE, create_record(f"{root}/{name}"))
    for _ in names:
        zk.next().ok()
    assert zk.children(root).names() == sorted(names)


def test_half_a_frame_harms_nobody(connect, zk, root):
    stuck = connect()
    stuck.send_bytes(i32(100) + b"half")
    zk.set(root, b"still served").ok()
    stuck.reset()
    zk.ping()


def test_a_client_that_leaves_with_requests_under_way_harms_nobody(connect, zk, root):
    leaver = connect()
    for number in range(200):
        leaver.post(Op.CREATE, create_record(f"{root}/{number}"))
    leaver.reset()
    zk.ping()


def test_a_client_that_half_closes_still_gets_no_harm_done(connect, zk, root):
    import socket
    leaver = connect()
    leaver.post(Op.GET_DATA, ustr(root) + b"\x00")
    leaver.sock.shutdown(socket.SHUT_WR)
    found = leaver.until_closed()
    assert all(not isinstance(frame_, Event) for frame_ in found)
    zk.ping()


def test_an_acl_with_a_null_id_is_a_marshalling_error(zk, root):
    for scheme in ("digest", "ip"):
        assert zk.create(root + "/x", acls=acl((31, scheme, None))).err == Err.MARSHALLING


def test_numbers_are_big_endian(zk, root):
    zk.create(root + "/a").ok()
    body = zk.exists(root + "/a").ok().body
    assert body[:8] == i64(zk.exists(root + "/a").stat().czxid)
