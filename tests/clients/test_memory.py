"""A server stays up in little memory, whatever its clients send or do not read: each in a memory cgroup of its own."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import re
import resource
import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgroups import MemoryGroup
from rawzk import Closed, Err, Op, Raw, create_record, frame, i32, multi_record, ustr
from server import wait_until

pytestmark = pytest.mark.rookeeper_only("Apache's server has a heap, and ends where that is full")

LIMIT_MB = 400
CROWD = 400


@pytest.fixture(autouse=True)
def enough_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))


@pytest.fixture
def group():
    group = MemoryGroup(LIMIT_MB)
    yield group
    # Its processes are gone by now, or about to be.
    for _ in range(100):
        with contextlib.suppress(OSError):
            return group.remove()
        time.sleep(0.05)
    group.remove()


@pytest.fixture
def small(group, start_server):
    """A server in the cgroup."""
    return start_server({"maxSessionTimeout": 60000, "4lw.commands.whitelist": "*"}, launcher=group.launcher)


@pytest.fixture
def crowd(small):
    """Connections with sessions, that end with the test."""
    members = []

    def gather(count=CROWD, handshake=True):
        for _ in range(count):
            raw = Raw(small.port, timeout_s=30)
            members.append(raw)
            if handshake:
                raw.handshake(timeout_ms=60000)
        return list(members)

    yield gather
    for raw in members:
        raw.close()


def session(server):
    raw = Raw(server.port, timeout_s=30)
    raw.handshake(timeout_ms=60000)
    return raw


def accounts(server):
    pattern = re.compile(r"^(\w+)_memory_account_bytes(_max)?$")
    found = {}
    for key, value in server.monitored().items():
        if match := pattern.match(key):
            found[match[1] + (match[2] or "")] = int(value)
    return found


def send_some(raws, data):
    """Sends the same to all, as much as their sockets take."""
    left = {raw: memoryview(data) for raw in raws}
    with selectors.DefaultSelector() as selector:
        for raw in raws:
            raw.sock.setblocking(False)
            selector.register(raw.sock, selectors.EVENT_WRITE, raw)
        while left and (ready := selector.select(0.5)):
            for key, _ in ready:
                try:
                    left[key.data] = left[key.data][key.data.sock.send(left[key.data]):]
                except OSError:
                    left[key.data] = b""
                if not left[key.data]:
                    selector.unregister(key.fileobj)
                    del left[key.data]
    for raw in raws:
        raw.sock.setblocking(True)


def read_all(raws, expected):
    """Reads from all at once until each has this many bytes; returns how many have."""
    got = dict.fromkeys(raws, 0)
    done = 0
    with selectors.DefaultSelector() as selector:
        for raw in raws:
            raw.sock.setblocking(False)
            selector.register(raw.sock, selectors.EVENT_READ, raw)
        while done < len(raws) and (ready := selector.select(10)):
            for key, _ in ready:
                try:
                    piece = len(key.data.sock.recv(1 << 20))
                except BlockingIOError:
                    continue
                except ConnectionError:
                    piece = 0
                got[key.data] += piece
                if not piece or got[key.data] >= expected:
                    done += 1
                    selector.unregister(key.fileobj)
    return sum(bytes_ >= expected for bytes_ in got.values())


def serves(server):
    """Somebody else is served, and soon."""
    zk = session(server)
    begin = time.monotonic()
    for number in range(20):
        zk.set("/zookeeper/quota", str(number).encode()).ok()
        zk.get("/zookeeper/quota").ok()
    assert time.monotonic() - begin < 5
    zk.close()


def fill(zk, parent, count, bytes_each):
    """So many children, some at a time."""
    zk.create(parent).ok()
    for start in range(0, count, 400):
        record = (lambda n: create_record(f"{parent}/{n}", bytes(bytes_each)))
        ops = [(Op.CREATE, create_record(f"{parent}/{n}", bytes(bytes_each)))
               for n in range(start, min(start + 400, count))]
        zk.call(Op.MULTI, multi_record(ops)).ok()


def test_the_budget_is_that_of_the_cgroup_and_is_told(small):
    told = accounts(small)
    assert told["process_max"] == LIMIT_MB << 20
    assert 0 < told["process"] < LIMIT_MB << 20
    assert (told["requests_max"], told["replies_max"]) == (4 << 20, 25 << 20)
    assert re.search(rf"memory budget: {LIMIT_MB} MB by \S+memory\S+; of that, beside the data: requests 4 MB, replies 25 MB, ",
                     small.log_tail(1000))


def test_who_sends_all_but_the_last_byte_takes_no_memory(small, group, crowd):
    raws = crowd()
    data = frame(i32(1) + i32(Op.SET_DATA) + ustr("/zookeeper/quota") + bytes(1_000_000))[:-1]
    send_some(raws, data)
    serves(small)
    told = accounts(small)
    assert told["requests"] <= told["requests_max"]
    assert group.peak_mb() < LIMIT_MB // 2


def test_before_a_session_a_megabyte_is_refused(small, group, crowd):
    raws = crowd(handshake=False)
    send_some(raws, frame(bytes(1_000_000))[:-1])
    for raw in raws:
        with pytest.raises(Closed):
            raw.next()
    serves(small)
    assert "a connect request of 1000000 bytes, where 1024 are enough for any" in small.log_tail(1000)
    assert group.peak_mb() < LIMIT_MB // 2


def test_many_who_do_not_read_one_large_node_share_it(small, group, crowd):
    zk = session(small)
    zk.create("/big", bytes(900_000)).ok()
    raws = crowd()
    for raw in raws:
        raw.send_frame(i32(1) + i32(Op.GET_DATA) + ustr("/big") + b"\x00")
    serves(small)
    # Each of them has a version of its own to wait for.
    for number, raw in enumerate(raws):
        zk.set("/big", bytes([number % 256]) * 900_000).ok()
        with contextlib.suppress(OSError):
            raw.send_frame(i32(2) + i32(Op.GET_DATA) + ustr("/big") + b"\x00")
    serves(small)
    assert group.peak_mb() < LIMIT_MB


def test_values_that_are_replaced_while_many_are_sent_them_had_room(small, crowd):
    """Each of them a value of its own: what leaves the tree while it is sent is memory for nobody else."""
    count, each = 150, 900_000
    zk = session(small)
    for n in range(count):
        zk.create(f"/value-{n}", bytes(each)).ok()
    raws = crowd(count)
    for n, raw in enumerate(raws):
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        send_some([raw], 3 * frame(i32(1) + i32(Op.GET_DATA) + ustr(f"/value-{n}") + b"\x00"))
    serves(small)
    told = accounts(small)
    assert told["replies"] > told["replies_max"] // 2, "they are sent as much as there is room for"
    assert told["replies"] < told["replies_max"] + 2 * each
    before_kib = small.resident_kib()
    for n in range(count):
        zk.set(f"/value-{n}", bytes(each)).ok()
    serves(small)
    told = accounts(small)
    assert told["replies"] < told["replies_max"] + 2 * each
    grown_kib = small.resident_kib() - before_kib
    assert grown_kib < count * each // 2 >> 10, f"{before_kib} KiB, and {grown_kib} more"


def test_a_long_list_is_made_once_for_all_who_ask_after_a_change(small, group, crowd):
    """A thousand watchers of a large parent are the same, four times as long."""
    zk = session(small)
    zk.create("/parent").ok()
    names = [f"dubbo%3A%2F%2F10.0.{n // 250}.{n % 250}%3A20880%2Fcom.example.Service%3F" + "x" * 600 for n in range(4000)]
    for start in range(0, len(names), 500):
        ops = [(Op.CREATE, create_record(f"/parent/{name}")) for name in names[start:start + 500]]
        zk.call(Op.MULTI, multi_record(ops)).ok()
    raws = crowd(250)
    length = 4 + 16 + 4 + sum(4 + len(name) for name in names) + 4 + len("new")
    assert length > 2_600_000
    zk.create("/parent/new").ok()
    send_some(raws, frame(i32(1) + i32(Op.GET_CHILDREN) + ustr("/parent") + b"\x00"))
    serves(small)
    assert read_all(raws, length) == len(raws), "none is closed"
    assert group.peak_mb() < LIMIT_MB
    assert "closing the connection" not in small.log_tail(1000)


def test_memory_that_is_free_goes_back(small):
    zk = session(small)
    before_kib = small.resident_kib()
    fill(zk, "/many", 60_000, 1000)
    zk.create("/stays", b"x").ok()
    full_kib = small.resident_kib()
    assert full_kib > before_kib + (60_000 * 1000 >> 10), "the data alone takes as much"
    for start in range(0, 60_000, 1000):
        ops = [(Op.DELETE, ustr(f"/many/{n}") + i32(-1)) for n in range(start, start + 1000)]
        zk.call(Op.MULTI, multi_record(ops)).ok()
    wait_until(lambda: small.resident_kib() < full_kib // 2, "what was freed is given back", 30)
    wait_until(lambda: "free memory is given back" in small.log_tail(1000), "it is told", 10)
    zk.ping()


@contextlib.contextmanager
def in_group(member, limit_mb):
    """The member has so much memory from its next start on."""
    group = MemoryGroup(limit_mb)
    member.launcher = group.launcher
    try:
        yield
    finally:
        member.kill()
        wait_until(lambda: not (group.folder / "cgroup.procs").read_text(), "the group is empty")
        group.remove()


def has_all_once(member, there, missing=()):
    with contextlib.closing(member.connect(timeout_s=30)) as reader:
        reader.sync("/").ok()
        assert reader.exists(there).err == 0 and all(reader.exists(path).err == Err.NO_NODE for path in missing)
        assert len(reader.call(Op.GET_CHILDREN, ustr("/many") + b"\x00").names()) == 80_000
    assert member.resident_kib() > 100 << 10, "two are more than there is room for"


def test_a_follower_needs_no_room_for_two_states_to_be_sent_a_snapshot(start_ensemble):
    """Its own goes first. Two would not fit."""
    ensemble = start_ensemble(leader=3, properties={"zookeeper.forceSnapshotSync": "true"})
    leader, follower = ensemble[3], ensemble[1]
    zk = leader.connect(timeout_ms=60_000, timeout_s=30)
    fill(zk, "/many", 80_000, 1000)
    follower.terminate()
    zk.create("/news").ok()
    with contextlib.closing(zk), in_group(follower, 180):
        mark = follower.log_mark()
        follower.start()
        wait_until(lambda: follower.said("snapshot .* written", mark), "the state that came is saved")
        has_all_once(follower, "/news")


def test_a_leader_of_before_needs_no_room_for_two_states_to_be_truncated(start_ensemble):
    """What only it had is taken back: its state is read again, once it is gone."""
    ensemble = start_ensemble(leader=3)
    leader, others = ensemble[3], [ensemble[1], ensemble[2]]
    with contextlib.closing(leader.connect(timeout_ms=60_000, timeout_s=30)) as zk:
        fill(zk, "/many", 80_000, 1000)
        # What the others are sent from now on is gone with them.
        for one in others:
            one.pause()
        zk.post(Op.CREATE, create_record("/only-here"))
        wait_until(lambda: leader.logged(b"/only-here"), "the leader logs it")
    for one in [leader, *others]:
        one.kill()
    for one in others:
        one.spawn()
    with contextlib.closing(ensemble.wait_serving(others).connect()) as zk:
        zk.create("/news").ok()
    with in_group(leader, 180):
        mark = leader.log_mark()
        leader.start()
        assert leader.said("the log is truncated to it", mark), leader.log_tail()
        has_all_once(leader, "/news", missing=["/only-here"])


PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


@contextlib.contextmanager
def stalled(server, thread):
    """One thread of the server stands still, as it would in a system call that does not return."""
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()
    [tid] = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == thread]
    libc = ctypes.CDLL(None, use_errno=True)

    def trace(request):
        if libc.ptrace(request, tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"thread {thread} cannot be traced")

    trace(PTRACE_SEIZE)
    trace(PTRACE_INTERRUPT)
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        trace(PTRACE_DETACH)


def test_a_leader_whose_log_disk_stalls_queues_no_more_than_it_has_room_for(kind, ensembles):
    """The followers carry the quorum meanwhile: what is committed could queue for its log without end."""
    ensemble = ensembles([kind] * 3, config={"4lw.commands.whitelist": "*"})
    leader, count, size = ensemble[3], 400, 10_000

    def write(raw):
        xids = [raw.post(Op.SET_DATA, ustr("/node") + i32(size) + bytes(size) + i32(-1)) for _ in range(count)]
        return sum(raw.await_reply(xid).err == Err.OK for xid in xids)

    with in_group(leader, LIMIT_MB), contextlib.ExitStack() as stack:
        ensemble.start(leader=3)
        raws = [stack.enter_context(contextlib.closing(leader.connect(timeout_ms=60_000, timeout_s=60))) for _ in range(8)]
        raws[0].create("/node").ok()
        pool = stack.enter_context(ThreadPoolExecutor(len(raws)))
        with stalled(leader, "txnlog"):
            written = [pool.submit(write, raw) for raw in raws]
            looks = [{}]

            def is_full():
                """And nothing more goes in."""
                looks.append(accounts(leader))
                queued = [look.get("log_queue", 0) for look in looks[-3:]]
                return min(queued) == max(queued) >= looks[-1]["log_queue_max"] and looks[-1]

            told = wait_until(is_full, "as much waits for the log as there is room for")
            assert told["log_queue_max"] < len(raws) * count * size // 4
            assert told["log_queue"] < 2 * told["log_queue_max"]
        assert [each.result() for each in written] == [count] * len(raws)
        assert leader.mode() == "leader"
        # It says so a megabyte at a time.
        wait_until(lambda: accounts(leader)["log_queue"] < 1 << 20, "the log has what it was given")


def test_a_leader_that_drops_a_stopped_follower_gives_its_memory_back(kind, ensembles):
    ensemble = ensembles([kind] * 3, config={"4lw.commands.whitelist": "*"})
    leader, stopped = ensemble[3], ensemble[1]
    with in_group(leader, LIMIT_MB), contextlib.ExitStack() as stack:
        ensemble.start(leader=3)
        zk = stack.enter_context(contextlib.closing(leader.connect(timeout_ms=60_000, timeout_s=60)))
        zk.create("/node").ok()
        links_kib = accounts(leader)["links_max"] >> 10
        before_kib = most_kib = leader.resident_kib()
        stopped.pause()
        stack.callback(stopped.resume)
        for number in itertools.count():
            zk.set("/node", bytes([number % 256]) * 900_000).ok()
            if leader.monitored()["synced_followers"] == "1":
                break
            most_kib = max(most_kib, leader.resident_kib())
        # A voter may lag by three times the account.
        assert most_kib - before_kib > 2 * links_kib
        wait_until(lambda: leader.resident_kib() < (before_kib + most_kib) // 2, "what it was to be sent is given back", 30)
        assert accounts(leader)["links"] < 1 << 20
        zk.ping()
