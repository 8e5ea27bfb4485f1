"""Sessions: closing, expiring, surviving."""

import time

import pytest

from rawzk import DELETED, Closed, Err, Flag, Op, Reply, create_record, frame, i32, ustr
from server import wait_until


def test_closing_answers_with_a_header_and_then_closes(connect):
    zk = connect()
    before = zk.ping().zxid
    reply = zk.close_session()
    assert (reply.err, reply.body) == (0, b"")
    assert reply.zxid > before
    with pytest.raises(Closed):
        zk.next()


def test_ephemerals_are_gone_when_the_close_is_answered(zk, connect, root):
    owner = connect()
    owner.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    owner.create(root + "/s", flags=Flag.EPHEMERAL_SEQUENTIAL).ok()
    owner.create(root + "/plain").ok()
    zxid = owner.close_session().zxid
    assert zk.children(root).names() == ["plain"]
    stat = zk.exists(root).stat()
    assert (stat.pzxid, stat.cversion, stat.numChildren) == (zxid, 5, 1)


def test_requests_behind_a_close_never_execute(zk, connect, root):
    for attempt in range(10):
        one = connect(shake=False)
        path = f"{root}/{attempt}"
        one.send_bytes(frame(one.connect_record())
                       + frame(i32(1) + i32(Op.CLOSE_SESSION))
                       + frame(i32(2) + i32(Op.CREATE) + create_record(path, flags=Flag.EPHEMERAL))
                       + frame(i32(3) + i32(Op.CREATE) + create_record(path + "p")))
        assert one.handshake_reply().session != 0
        replies = one.until_closed()
        assert replies[0].xid == 1 and replies[0].err == 0
        assert all(reply.err == Err.SESSION_EXPIRED for reply in replies[1:])
        one.session = 0
    assert zk.children(root).names() == []


def test_requests_before_a_close_execute(zk, connect, root):
    one = connect()
    for number in range(50):
        one.post(Op.CREATE, create_record(f"{root}/{number}"))
    one.post(Op.CLOSE_SESSION)
    assert [reply.err for reply in one.until_closed()] == [0] * 51
    one.session = 0
    assert zk.exists(root).stat().numChildren == 50


def test_an_ephemeral_created_just_before_the_close_goes_with_it(zk, connect, root):
    one = connect()
    one.post(Op.CREATE, create_record(root + "/e", flags=Flag.EPHEMERAL))
    one.post(Op.CLOSE_SESSION)
    assert [reply.err for reply in one.until_closed()] == [0, 0]
    one.session = 0
    assert zk.children(root).names() == []


def test_an_ephemeral_deleted_by_another_stays_deleted(zk, connect, root):
    owner = connect()
    owner.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    zk.delete(root + "/e").ok()
    zk.create(root + "/e", b"mine now").ok()
    owner.close_session().ok()
    assert zk.get(root + "/e").data() == b"mine now"


# -- expiry (ticks of 200 ms, so a session of 400 ms is gone within 600 ms of its last sign of life)

def test_a_silent_session_expires_and_its_ephemerals_go(zk, connect, root):
    owner = connect(timeout_ms=400)
    assert owner.negotiated_ms == 400
    owner.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    assert zk.exists(root + "/e", watch=True).err == 0
    session, password = owner.session, owner.password
    owner.reset()
    owner.session = 0
    wait_until(lambda: zk.exists(root + "/e").err == Err.NO_NODE, "the ephemeral of the silent session goes", 5)
    assert zk.fired() == [(DELETED, root + "/e")]
    assert connect(shake=False).handshake(session=session, password=password).session == 0


def test_expiry_closes_a_silent_connection_without_a_word(connect):
    zk = connect(timeout_ms=400)
    begin = time.monotonic()
    assert zk.until_closed() == []
    assert 0.3 < time.monotonic() - begin < 5
    zk.session = 0


@pytest.mark.parametrize("sign", ["ping", "read"])
def test_any_request_keeps_a_session_alive(connect, sign):
    zk = connect(timeout_ms=400)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        zk.ping() if sign == "ping" else zk.exists("/")
        time.sleep(0.1)  # the test is about the passing of time
    zk.ping()


def test_expiry_takes_one_transaction_per_session(start_server, connect):
    server = start_server(full=True)
    zk = connect(port=server.port)
    before = zk.ping().zxid
    ghosts = [connect(port=server.port, timeout_ms=400) for _ in range(3)]
    for ghost in ghosts:
        ghost.reset()
        ghost.session = 0
    wait_until(lambda: zk.ping().zxid == before + 6, "three sessions are opened and expire", 5)


def test_a_session_moves_to_a_new_connection_and_keeps_its_ephemerals(zk, connect, root):
    owner = connect(timeout_ms=1000)
    owner.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    for _ in range(5):
        owner = connect(session=owner.session, password=owner.password, timeout_ms=1000)
        assert zk.exists(root + "/e").stat().ephemeralOwner == owner.session
    assert owner.ephemerals().names() == [root + "/e"]


# -- restarts

@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_session_and_its_ephemerals_survive_a_restart(start_server, connect, how):
    server = start_server()
    zk = connect(port=server.port, timeout_ms=30000)
    zk.create("/e", b"mine", flags=Flag.EPHEMERAL).ok()
    zxid = zk.ping().zxid
    getattr(server, how)()
    server.start()
    again = connect(port=server.port, session=zk.session, password=zk.password, last_zxid=zxid, timeout_ms=30000)
    assert again.session == zk.session
    assert again.exists("/e").stat().ephemeralOwner == zk.session
    again.create("/f", flags=Flag.EPHEMERAL).ok()
    again.close_session().ok()
    other = connect(port=server.port)
    assert other.exists("/e").err == Err.NO_NODE
    assert other.exists("/f").err == Err.NO_NODE


def test_a_closed_session_stays_closed_after_a_restart(start_server, connect):
    server = start_server()
    zk = connect(port=server.port)
    session, password = zk.session, zk.password
    zk.close_session().ok()
    server.restart()
    assert connect(port=server.port, shake=False).handshake(session=session, password=password).session == 0


def test_a_session_that_nobody_renews_after_a_restart_expires(start_server, connect):
    server = start_server(full=True)
    zk = connect(port=server.port, timeout_ms=2000)
    zk.create("/e", flags=Flag.EPHEMERAL).ok()
    server.restart()
    other = connect(port=server.port)
    wait_until(lambda: other.exists("/e").err == Err.NO_NODE, "the forgotten session expires", 15)
    zk.session = 0


def test_session_ids_do_not_repeat_after_a_restart(start_server, connect):
    server = start_server()
    before = {connect(port=server.port).session for _ in range(3)}
    server.restart()
    after = {connect(port=server.port).session for _ in range(3)}
    assert not before & after


def test_close_takes_precedence_over_other_connections_of_the_session(zk, connect, root):
    """The second connection of a session wins; the first is closed and its later requests go nowhere."""
    first = connect()
    second = connect(session=first.session, password=first.password)
    try:
        first.post(Op.CREATE, create_record(root + "/x"))
        assert first.until_closed() == []
    except ConnectionError:
        pass
    first.session = 0
    second.create(root + "/y").ok()
    assert zk.children(root).names() == ["y"]
    assert isinstance(second.call(Op.SYNC, ustr("/")), Reply)
