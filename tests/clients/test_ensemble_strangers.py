"""Strangers and broken peers on the ports between servers: dropped, while the ensemble goes on as if nothing were."""

import contextlib
import socket
import struct
import time

import pytest

from ensemble import SILENCE_S, write_many
from peers import (FOLLOWING, LEADING, LOOKING, Elector, Learner, Notification, Packet, dial, follower_info,
                   hello, packet, zxid)
from rawzk import Closed, Op, buf, i32, i64, ustr
from server import wait_until

NOISE = {
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x07" * 193,
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a length of 2 GiB": i32(0x7FFFFFFF) + b"x" * 100,
    "nothing": b"",
    "one byte": b"\x00",
    "the client protocol": i32(44) + bytes(44),
}


@pytest.fixture(scope="module")
def ensemble(kind, ensembles):
    # Apache's leader keeps everything a learner does not read in its memory until it gives the learner up.
    # Strangers are let in as Apache lets them in: what they do then is the matter here.
    return ensembles([kind] * 3, heap_mb=512, config={"allowUnlistedLearners": "true"}).start(leader=3)


@pytest.fixture(autouse=True)
def unharmed(ensemble):
    """Processes, leader and epoch stay what they were, writes pass all along, and all servers stay equal. A test that
    starts a process again says so here."""
    processes, leader = [one.process.pid for one in ensemble], ensemble.leader()
    epoch = leader.last_zxid() >> 32
    yield processes
    ensemble.wait_serving(list(ensemble))
    write_many(ensemble.followers()[0], "/still", 3)
    assert [one.process.pid for one in ensemble] == processes
    assert (ensemble.leader(), leader.last_zxid() >> 32) == (leader, epoch)
    ensemble.check_equal()


@pytest.fixture
def peers():
    """Collects connections to be closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda peer: stack.enter_context(contextlib.closing(peer))


@pytest.mark.rookeeper_only("its log is its own")
def test_the_logs_say_who_serves_with_whom(ensemble):
    leader = ensemble.leader()
    assert leader.said(r"leading in epoch 0x1, with servers? \d.*: serving clients")
    for one in ensemble.followers():
        assert leader.said(rf"synchronizing follower {one.sid} from 0x0 to 0x\w+ with (DIFF|TRUNC|SNAP)")
        assert leader.said(rf"follower {one.sid} is in sync")
        assert one.said(rf"following server {leader.sid} in epoch 0x1: serving clients")


# -- the election port

@pytest.mark.parametrize("noise", NOISE)
def test_noise_on_the_election_port(ensemble, peers, noise):
    for one in ensemble:
        peers(dial(one.election_port)).send(NOISE[noise])


HELLOS = {
    "an unknown version": hello(3, "127.0.0.1:1", version=-70000),
    "no address": i64(-65536) + i64(3) + i32(0),
    "a negative length": i64(-65536) + i64(3) + i32(-5),
    "an address of 100 kB": i64(-65536) + i64(3) + i32(100_000) + b"x" * 100_000,
    "an address without a port": hello(3, "127.0.0.1"),
    "a port out of range": hello(3, "127.0.0.1:99999999999"),
    "bytes that are no text": i64(-65536) + i64(3) + buf(b"\xff\xfe\xfd:1"),
    "a negative id": hello(-7, "127.0.0.1:1"),
    "an unknown id": hello(77, "127.0.0.1:1"),
    "an id before 3.5": i64(3),
    "a small id, to be dialed back": hello(0, "127.0.0.1:1"),
}


@pytest.mark.parametrize("greeting", HELLOS)
def test_a_wrong_hello(ensemble, peers, greeting):
    for one in ensemble:
        peers(dial(one.election_port)).send(HELLOS[greeting])


def test_the_id_of_another_server_with_broken_frames(ensemble, peers):
    """An impostor takes the place of a peer's connection until the peer comes back; what it says is not understood."""
    good = Notification(LOOKING, 3, zxid(9), 1, 9).frame()
    for broken in [i32(0), i32(-1), i32(600_000), i32(3) + b"abc", i32(36) + bytes(36), good[:30],
                   good[:-4] + i32(1 << 30), good[:-4] + i32(-9), good + b"\x00" * 7]:
        for one in ensemble:
            impostor = peers(Elector(one, 3))
            with contextlib.suppress(OSError):
                impostor.send(broken)
                impostor.send(good)


def test_votes_of_strangers_do_not_count(ensemble, peers):
    """Two strangers that would outvote everybody, LOOKING and settled, in all rounds."""
    for one in ensemble:
        for sid in (101, 102):
            stranger = peers(Elector(one, sid))
            for state in (LOOKING, FOLLOWING, LEADING):
                for turn in (-1, 1, 5, 1 << 40):
                    stranger.notify(Notification(state, 101, zxid(1 << 20), turn, 1 << 20))


@pytest.mark.rookeeper_only("a line or more for each")
def test_a_flood_of_garbage_leaves_a_handful_of_lines(ensemble):
    leader = ensemble.leader()
    mark = leader.log_mark()
    for _ in range(300):
        for port in (leader.quorum_port, leader.election_port):
            with contextlib.closing(dial(port)) as peer:
                peer.send(b"\xff" * 100)
                with contextlib.suppress(Closed):
                    peer.take(1)
    assert leader.log_path.read_bytes()[mark:].count(b"\n") <= 4


def test_many_silent_connections_keep_no_server_out(ensemble, peers, kind):
    """Apache accepts one after the other and is deaf for as long as a stranger is silent; ours must not be."""
    for _ in range(200 if kind == "rookeeper" else 20):
        peers(dial(ensemble[3].election_port))
    if kind == "rookeeper":
        begin = time.monotonic()
        with contextlib.closing(Elector(ensemble[3], 200)) as asker:
            asker.notify(Notification(LOOKING, 200, 0, 1, 0))
            assert asker.next().leader == ensemble.leader().sid
        assert time.monotonic() - begin < SILENCE_S / 2


@pytest.mark.rookeeper_only("it waits on after each byte")
def test_who_says_who_it_is_byte_by_byte_is_not_waited_for(ensemble, peers):
    """Each byte comes in time, the whole does not."""
    slow = peers(dial(ensemble.leader().election_port))
    slow.sock.settimeout(SILENCE_S / 20)
    with contextlib.suppress(ConnectionError):
        for byte in hello(200, "127.0.0.1:1" * 8):
            slow.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                if not slow.sock.recv(1):
                    break
        else:
            raise AssertionError("it was let say everything")


def test_a_flood_of_malformed_notifications(ensemble, peers):
    """Under the id of a peer, and of nobody."""
    for one in ensemble:
        for sid in (3, 99):
            stranger = peers(Elector(one, sid))
            with contextlib.suppress(OSError):
                stranger.send((i32(1) + b"x") * 100_000)


def silent(peers, port, count):
    for _ in range(count):
        peers(dial(port))


@pytest.mark.rookeeper_only("it waits for the silent ones one after the other")
def test_a_follower_comes_in_between_silent_strangers(ensemble, peers, unharmed):
    leader, follower = ensemble.leader(), ensemble.followers()[0]
    before = leader.resident_kib()
    silent(peers, leader.election_port, 300)
    silent(peers, leader.quorum_port, 300)
    follower.kill()
    silent(peers, leader.quorum_port, 100)
    follower.start()
    unharmed[follower.sid - 1] = follower.process.pid
    assert leader.said(rf"WARN .*lost follower {follower.sid}: ")
    assert leader.resident_kib() - before < 16_000


# -- the quorum port

@pytest.mark.parametrize("noise", NOISE)
def test_noise_on_the_quorum_port(ensemble, peers, noise):
    for _ in range(3):
        peers(dial(ensemble.leader().quorum_port)).send(NOISE[noise])


@pytest.mark.rookeeper_only("it sends everybody everything")
def test_a_server_that_is_in_no_list_is_sent_nothing(start_ensemble):
    """By default, where lists cannot change; the log names the key, once for an address."""
    leader = start_ensemble().leader()
    for kind in (Packet.FOLLOWERINFO, Packet.OBSERVERINFO):
        with contextlib.closing(Learner(leader, 99)) as learner:
            learner.send(follower_info(99, kind=kind))
            with pytest.raises(Closed):
                learner.take(1)
    lines = [line for line in leader.log_path.read_text().splitlines() if "is in no list of members, and is refused" in line]
    assert len(lines) == 1 and "WARN" in lines[0] and "allowUnlistedLearners=true" in lines[0] and "127.0.0.1:" in lines[0]


FIRST_PACKETS = {
    "a PING": packet(Packet.PING),
    "an ACK": packet(Packet.ACK, zxid(1, 1)),
    "an unknown type": packet(99),
    "no data": packet(Packet.FOLLOWERINFO),
    "half a LearnerInfo": packet(Packet.FOLLOWERINFO, 0, bytes(5)),
    "a later configuration": follower_info(1, version=1 << 40),
    "data of 1 GiB": i32(Packet.FOLLOWERINFO) + i64(0) + i32(1 << 30) + bytes(1000),
    "a trailer of 2^31 entries": i32(Packet.FOLLOWERINFO) + i64(0) + buf(bytes(20)) + i32(0x7FFFFFFF),
    "half a packet": follower_info(1)[:17],
}


@pytest.mark.parametrize("first", FIRST_PACKETS)
def test_a_wrong_first_packet(ensemble, peers, first):
    peers(dial(ensemble.leader().quorum_port)).send(FIRST_PACKETS[first])


@pytest.mark.parametrize("sid", [99, 1, 3, -5], ids=["a stranger", "a follower's", "the leader's", "negative"])
def test_a_second_server_with_an_id(ensemble, peers, sid):
    learner = peers(Learner(ensemble.leader(), sid))
    with contextlib.suppress(Closed, OSError):
        learner.register()
        learner.next()


@pytest.mark.parametrize("epoch", [1 << 30, 1000])
@pytest.mark.parametrize("name", ["a stranger", "a follower"])
def test_an_epoch_from_the_future_is_not_believed(ensemble, peers, name, epoch):
    """Nor may it end the leader's reign: `ensemble` sees to that."""
    sid = 99 if name == "a stranger" else ensemble.followers()[0].sid
    for kind in (Packet.FOLLOWERINFO, Packet.OBSERVERINFO):
        learner = peers(Learner(ensemble.leader(), sid))
        # The leader may keep it waiting for initLimit, which is ten seconds.
        learner.timeout_s = 30
        with contextlib.suppress(Closed, OSError):
            learner.send(follower_info(sid, epoch=epoch, kind=kind))
            learner.expect(Packet.LEADERINFO)
            learner.send(packet(Packet.ACKEPOCH, zxid(1 << 30, 7), i32(1 << 30)))
            learner.next()


def test_acks_of_strangers_and_of_nothing_count_for_nothing(ensemble, peers):
    """A quorum of the real servers is needed: the ACKs of a stranger do not stand in for them."""
    leader = ensemble.leader()
    learner = peers(Learner(leader, 99))
    learner.synchronize()
    followers = ensemble.followers()
    with contextlib.closing(leader.connect()) as zk:
        zk.create("/acked", b"").ok()
        for one in followers:
            one.pause()
        try:
            last = leader.last_zxid()
            xid = zk.post(Op.SET_DATA, ustr("/acked") + buf(b"x") + i32(-1))
            for counter in range(1, 6):
                learner.send(packet(Packet.ACK, last + counter))
            zk.timeout_s = 0.5
            with pytest.raises(AssertionError, match="no answer"):
                zk.await_reply(xid)
        finally:
            for one in followers:
                one.resume()
        zk.timeout_s = 10
        zk.await_reply(xid).ok()
        zk.close_session()


MANNERS = {
    "an unknown type": packet(1234),
    "a REQUEST without data": packet(Packet.REQUEST, -1),
    "a REQUEST of half a header": packet(Packet.REQUEST, -1, bytes(11)),
    "a REQUEST of an unknown type": packet(Packet.REQUEST, -1, i64(1) + i32(1) + i32(4711)),
    "a REQUEST cut short": packet(Packet.REQUEST, -1, i64(1) + i32(1) + i32(1) + b"\x00\x00"),
    "a PING of half an entry": packet(Packet.PING, 0, bytes(7)),
    "a PING for sessions that are not": packet(Packet.PING, 0, (i64(12345) + i32(10_000)) * 1000),
    "a REVALIDATE of nothing": packet(Packet.REVALIDATE, -1, b""),
    "a REVALIDATE of a session that is not": packet(Packet.REVALIDATE, -1, i64(5) + i32(1000)),
    "an ACK from the future": packet(Packet.ACK, zxid(1 << 20, 1)),
    "a PROPOSAL": packet(Packet.PROPOSAL, zxid(1, 1), bytes(32)),
    "another FOLLOWERINFO": follower_info(99),
    "half a packet": packet(Packet.ACK, 5)[:9],
    "a huge packet": i32(Packet.REQUEST) + i64(-1) + i32(1 << 30) + bytes(10_000),
}


@pytest.mark.parametrize("word", MANNERS)
def test_a_learner_without_manners(ensemble, peers, word):
    learner = peers(Learner(ensemble.leader(), 99))
    learner.synchronize()
    with contextlib.suppress(Closed, OSError):
        learner.send(MANNERS[word])
        learner.timeout_s = 0.1
        with contextlib.suppress(AssertionError):
            while True:
                learner.next()


def remove_children(member, path):
    with contextlib.closing(member.connect(timeout_s=30)) as zk:
        for name in zk.children(path).names():
            zk.delete(f"{path}/{name}").ok()
        zk.close_session()


def with_a_small_buffer(leader, sid):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", leader.quorum_port))
    learner = Learner.__new__(Learner)
    super(Learner, learner).__init__(sock)
    learner.sid = sid
    return learner


def test_a_learner_that_stops_reading(ensemble, peers, kind):
    """More is written than sockets hold; it is given up after the time for silence, and memory with it."""
    leader = ensemble.leader()
    learner = peers(with_a_small_buffer(leader, 99))
    learner.synchronize()
    assert leader.monitored()["learners"] == "3"
    before = leader.resident_kib()
    writer = ensemble.followers()[0]
    for _ in range(3):
        write_many(writer, "/bulk", 100, 100_000)
    wait_until(lambda: leader.monitored()["learners"] == "2", "the learner is given up", SILENCE_S * 4)
    remove_children(writer, "/bulk")
    if kind == "rookeeper":
        assert leader.resident_kib() - before < 120_000


@pytest.mark.rookeeper_only("it keeps all of it")
def test_learners_that_answer_but_do_not_read(ensemble, peers):
    """Each alone would be bearable; what waits for all of them together is bounded."""
    leader = ensemble.leader()
    before = leader.resident_kib()
    learners = [peers(with_a_small_buffer(leader, 100 + index)) for index in range(12)]
    for learner in learners:
        learner.synchronize()
    writer, most = ensemble.followers()[0], 0
    for _ in range(10):
        write_many(writer, "/bulk", 40, 100_000)
        most = max(most, leader.resident_kib() - before)
        for learner in learners:
            with contextlib.suppress(OSError):
                learner.send(packet(Packet.PING, 0, b"") + packet(Packet.ACK, leader.last_zxid()))
    remove_children(writer, "/bulk")
    assert leader.said("does not read what it is sent")
    assert most < 400_000


def test_a_learner_that_stops_reading_in_the_middle_of_its_snapshot(ensemble, peers, kind):
    write_many(ensemble.leader(), "/big", 100, 100_000)
    leader = ensemble.leader()
    before = leader.resident_kib()
    learners = [peers(with_a_small_buffer(leader, 100 + index)) for index in range(5)]
    for learner in learners:
        learner.register()
        learner.expect(Packet.SNAP)
        learner.take(1000)
    write_many(ensemble.followers()[0], "/meanwhile", 50)
    if kind == "rookeeper":
        assert leader.resident_kib() - before < 60_000
    remove_children(leader, "/big")


def test_learners_that_go_away_in_every_phase(ensemble):
    leader = ensemble.leader()
    for packets in range(6):
        learner = Learner(leader, 99)
        with contextlib.suppress(Closed):
            learner.register()
            for _ in range(packets):
                learner.take(13)
        learner.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        learner.close()


@pytest.mark.rookeeper_only("its heap is too small here")
def test_a_burst_of_large_writes(ensemble):
    """The first of it leaves, and pings do, while the rest is still on its way: nobody takes the leader for dead."""
    write_many(ensemble.leader(), "/burst", 1000, 100_000)
    remove_children(ensemble.leader(), "/burst")
