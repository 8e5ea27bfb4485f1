"""Bursts of large writes: they wait at the door, nobody is dropped, and small requests pass by."""

import contextlib
import re
import threading
import time

import pytest

from rawzk import Op, Raw, buf, frame, i32, ustr

MIB = 1 << 20
pytestmark = pytest.mark.rookeeper_only("Apache keeps in its heap whatever its clients send")


def peak_mib(member):
    """The most memory that the process ever had."""
    with open(f"/proc/{member.process.pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) // 1024


def burst(members, clients, size):
    """So many clients, each with a session, that write this much at once into one node. Returns the errors."""
    with contextlib.closing(members[0].connect(timeout_s=60)) as zk:
        zk.create("/burst").ok()
    conns = [members[n % len(members)].connect(timeout_ms=60_000, timeout_s=120) for n in range(clients)]
    record, go, errors = ustr("/burst") + buf(b"x" * size) + i32(-1), threading.Event(), []

    def write(conn):
        go.wait()
        try:
            conn.call(Op.SET_DATA, record).ok()
        except BaseException as error:  # noqa: BLE001, told to the test
            errors.append(repr(error)[:200])

    threads = [threading.Thread(target=write, args=(conn,), daemon=True) for conn in conns]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    with contextlib.closing(members[-1].connect(timeout_s=60)) as zk:
        zk.sync("/burst").ok()
        assert zk.get("/burst").data_and_stat()[1].version == clients
    for conn in conns:
        conn.close()
    return errors


def leavings(ensemble):
    return [line for one in ensemble for line in one.log_path.read_text(errors="replace").splitlines()
            if re.search(r"stopped (following|leading|observing)|lost (follower|observer)|does not read|it sent more than", line)]


def test_a_burst_of_requests_of_ten_megabytes_takes_no_quorum_away(start_ensemble):
    """More than the servers' queues hold together, if it were let in at once."""
    ensemble = start_ensemble(properties={"jute.maxbuffer": 50 * MIB},
                              config={"tickTime": 2000, "maxClientCnxns": 0, "preAllocSize": 65536})
    leader = ensemble.leader()
    assert burst(list(ensemble), 45, 10_000_000) == []
    assert ensemble.leader() is leader and leavings(ensemble) == []
    peaks = [peak_mib(one) for one in ensemble]
    assert max(peaks) < 1000, peaks


def test_two_of_three_serve_a_burst_of_requests_of_a_megabyte(start_ensemble):
    ensemble = start_ensemble(config={"tickTime": 2000, "maxClientCnxns": 0, "preAllocSize": 65536})
    ensemble[1].kill()
    leader = ensemble.wait_serving()
    assert burst(ensemble.others(ensemble[1]), 300, 1_000_000) == []
    assert ensemble.leader() is leader
    assert not [line for line in leavings(ensemble) if "follower 1:" not in line]


def test_a_follower_of_an_apache_leader_stays_however_much_that_proposes(start_ensemble, mix):
    """Apache's leader has no bound but its heap, and says the first COMMIT behind all that it proposed."""
    ensemble = start_ensemble(mix("??A"), heap_mb=2500,
                              config={"tickTime": 2000, "maxClientCnxns": 0, "preAllocSize": 65536})
    ensemble[1].kill()
    leader = ensemble.wait_serving()
    assert burst([leader], 350, 1_000_000) == []
    assert ensemble.leader() is leader
    follower = ensemble.others(ensemble[1], leader)[0]
    assert not [line for line in leavings([follower]) if "stopped following" in line]
    assert peak_mib(follower) < 600


def test_frames_that_are_announced_and_never_come_keep_room_for_seconds_only(start_server):
    """All the room there is, and small requests are served; then the large ones are."""
    server = start_server(config={"maxClientCnxns": 0})
    announcers = []
    for _ in range(70):
        raw = Raw(server.port)
        raw.handshake(timeout_ms=30_000)
        raw.send_bytes(i32(1_000_000) + i32(1))
        announcers.append(raw)
    zk = Raw(server.port, timeout_s=30)
    zk.handshake(timeout_ms=30_000)
    zk.create("/small", b"").ok()
    begun = time.monotonic()
    zk.send_bytes(frame(i32(77) + i32(Op.SET_DATA) + ustr("/small") + buf(b"x" * 900_000) + i32(-1)))
    other = Raw(server.port)
    other.handshake()
    while time.monotonic() - begun < 2:
        other.set("/small", b"s").ok()
        other.ping()
    assert zk.next().ok().xid == 77
    assert time.monotonic() - begun > 2, "there was room after all"
    assert re.search(r"a message of 1000000 bytes that comes too slowly", server.log_path.read_text())
    for raw in announcers:
        raw.close()
