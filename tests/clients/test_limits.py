"""Limits, floods, and clients that do not behave."""

import random
import resource
import socket
import threading
import time

from rawzk import ALL, Closed, Op, Raw, acl, buf, create_record, frame, i32, ustr
from server import wait_until


def session(server):
    raw = Raw(server.port)
    raw.handshake()
    return raw


def refused(server):
    try:
        raw = Raw(server.port)
        raw.handshake()
    except (Closed, ConnectionError):
        return True
    raw.close()
    return False


def test_max_client_cnxns_refuses_the_surplus_without_a_byte(start_server):
    server = start_server(config={"maxClientCnxns": 3})
    first = [session(server) for _ in range(3)]
    assert refused(server)
    for raw in first:
        raw.ping()
    first[0].close()
    wait_until(lambda: not refused(server), "a freed place can be taken again")


def test_max_client_cnxns_is_60_by_default(start_server):
    server = start_server(config={"maxClientCnxns": None})
    held = [session(server) for _ in range(60)]
    assert refused(server)
    held[0].ping()


def test_max_cnxns_counts_everybody(start_server):
    server = start_server(config={"maxCnxns": 4})
    held = [session(server) for _ in range(4)]
    assert refused(server)
    held[0].ping()


def test_a_client_that_does_not_read_harms_nobody(zk, connect, root):
    """It asks for 200 MB and reads nothing; the others are served meanwhile, and it can still have its answers."""
    zk.create(root + "/big", b"x" * 1_000_000).ok()
    lazy = connect()
    sent = 0
    request = frame(i32(1) + i32(Op.GET_DATA) + ustr(root + "/big") + b"\x00")
    lazy.sock.settimeout(1)
    try:
        for _ in range(200):
            lazy.send_bytes(request)
            sent += 1
    except TimeoutError:
        pass
    for number in range(50):
        zk.set(root, str(number).encode()).ok()
    lazy.timeout_s = 20
    for _ in range(sent):
        assert len(lazy.next().ok().body) == 1_000_000 + 4 + 68


def test_thousands_of_idle_connections_do_not_slow_the_others(connect, server, kind):
    """10,000 for us; Apache accepts too slowly for more than a few hundred in a test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 300 if kind == "apache" else min(10000, hard - 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    zk = connect(timeout_ms=60000)
    zk.create("/idle").ok()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    try:
        wait_until(lambda: int(server.monitored()["num_alive_connections"]) >= count, "all are accepted")
        begin = time.monotonic()
        for number in range(100):
            zk.set("/idle", str(number).encode()).ok()
        assert time.monotonic() - begin < 5
    finally:
        for sock in idle:
            sock.close()
    wait_until(lambda: int(server.monitored()["num_alive_connections"]) < count, "closed connections are forgotten")


def test_a_storm_of_connections_that_leave_at_once(zk, server, root):
    def storm():
        for _ in range(300):
            raw = Raw(server.port)
            raw.send_frame(raw.connect_record(timeout_ms=400))
            raw.reset()
    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        zk.set(root, str(number).encode()).ok()
    for thread in threads:
        thread.join()
    zk.ping()


def test_random_bytes_never_hurt(server, zk):
    """Deterministic noise in place of a handshake, of a request, and of a record."""
    noise = random.Random(7)
    for _ in range(100):
        raw = Raw(server.port)
        raw.send_bytes(noise.randbytes(noise.randrange(1, 200)))
        raw.close()
    for _ in range(100):
        raw = Raw(server.port)
        raw.handshake(timeout_ms=400)
        record = noise.randbytes(noise.randrange(0, 100))
        raw.send_frame(i32(1) + i32(noise.choice([*range(1, 10), *range(12, 23), *range(101, 108)])) + record)
        raw.reset()
    zk.ping()


def test_a_hostile_acl_costs_only_its_own_reply(zk, root):
    entries = [(1, "ip", f"10.{n >> 16}.{(n >> 8) & 255}.{n & 255}") for n in range(8000)]
    zk.call(Op.CREATE, create_record(root + "/a", acls=acl((ALL, "world", "anyone"), *entries)))
    zk.ping()
    assert zk.call(Op.CREATE, ustr(root + "/b") + buf(b"") + i32(0x7FFFFFF0)).err == -5
