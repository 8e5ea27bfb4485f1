"""Clients that write and read all along while servers fail, and what must be true of everything they were told.

Each client has one session and does one request at a time, on any of the servers; when its connection goes it renews
the session elsewhere. A write whose answer never came may have happened or not. `History.check` then holds the record
against ZooKeeper's promises:

* an acknowledged write is there at the end, and every write happened at most once, whole;
* writes are linearizable in the order of their zxids: one that began after another was acknowledged has a larger one;
* what one session sees never goes back, on whichever server it is;
* a read after a sync sees what had been acknowledged to anybody before the sync began.
"""

import contextlib
import itertools
import random
import threading
import time
from dataclasses import dataclass

from rawzk import Closed, Err, Op, buf, create_record, i32, multi_record, op_check, op_set, ustr

ROOT = "/history"
REGISTERS = [f"{ROOT}/r{index}" for index in range(3)]
PAIR = [f"{ROOT}/x", f"{ROOT}/y"]  # always written together in one multi
ANSWER_S = 2.0


@dataclass
class Done:
    """One request. `zxid` is that of the reply; `version` and `mzxid` belong to the node that was read or written."""

    kind: str
    server: int
    session: tuple
    path: str
    value: bytes
    begin: float
    end: float | None = None  # None: no answer
    zxid: int = 0
    mzxid: int = 0
    version: int = -1


class Client(threading.Thread):
    def __init__(self, history, index, home):
        super().__init__(daemon=True, name=f"client{index}")
        self.history, self.index, self.home = history, index, home
        self.random = random.Random(f"{history.seed}/{index}")
        self.numbers = itertools.count(1)
        self.zk = None
        self.member = None
        self.session, self.password, self.last_zxid = 0, bytes(16), 0
        self.generation = 0
        self.failure = None

    # -- connection

    def _connect(self):
        """Renews the session somewhere, first where it was (with `home`: nowhere else)."""
        members = [self.home] if self.home else self.random.sample(self.history.members, len(self.history.members))
        for member in members:
            zk = None
            try:
                zk = member.open(timeout_s=ANSWER_S)
                answer = zk.handshake(timeout_ms=self.history.session_ms, session=self.session,
                                      password=self.password, last_zxid=self.last_zxid)
            except (Closed, OSError, AssertionError):
                if zk:
                    zk.close()
                continue
            if answer.session == 0:
                zk.close()
                self.history.expired += 1
                self.generation += 1
                self.session, self.password, self.last_zxid = 0, bytes(16), 0
                return
            self.session, self.password = answer.session, answer.password
            self.zk, self.member = zk, member
            return
        self.history.stopping.wait(0.02)

    def _drop(self):
        self.zk.close()
        self.zk = None

    def run(self):
        try:
            while not self.history.stopping.is_set():
                if self.zk is None:
                    self._connect()
                    continue
                try:
                    self._step()
                except (Closed, OSError):
                    self._drop()
                except AssertionError as error:
                    if "no answer" not in str(error):
                        raise
                    self._drop()
                if self.random.random() < self.history.roaming and self.zk:
                    self._drop()
                if self.history.pause_s:
                    time.sleep(self.history.pause_s)
            if self.zk:
                with contextlib.suppress(Closed, OSError, AssertionError):
                    self.zk.close_session()
                self._drop()
        except BaseException as error:  # noqa: BLE001, raised again by `History.stop`
            self.failure = error

    # -- requests

    def _request(self, kind, path, value, op, record):
        done = Done(kind, self.member.sid, (self.index, self.generation), path, value, time.monotonic())
        self.history.done.append(done)
        reply = self.zk.call(op, record)
        if reply.err == Err.NO_NODE and kind == "read":
            raise AssertionError(f"{path} is gone on {self.member!r}")
        reply.ok()
        done.zxid = reply.zxid
        self.last_zxid = max(self.last_zxid, reply.zxid)
        return done, reply

    def _finish(self, done, stat=None):
        if stat:
            done.version, done.mzxid = stat.version, stat.mzxid
        done.end = time.monotonic()

    def _step(self):
        choice = self.random.random()
        value = b"%d/%d" % (self.index, next(self.numbers))
        if choice < 0.25:
            path = f"{ROOT}/log/{self.index}-{value.decode().split('/')[1]}"
            done, _ = self._request("create", path, value, Op.CREATE, create_record(path, value))
            self._finish(done)
        elif choice < 0.5:
            path = self.random.choice(REGISTERS)
            done, reply = self._request("set", path, value, Op.SET_DATA, ustr(path) + buf(value) + i32(-1))
            self._finish(done, reply.stat())
        elif choice < 0.6:
            record = multi_record([op_set(path, value) for path in PAIR])
            done, reply = self._request("pair", PAIR[0], value, Op.MULTI, record)
            assert [err for _, err, _ in reply.results()] == [0, 0]
            self._finish(done, reply.results()[0][2])
        elif choice < 0.65:
            record = multi_record([op_set(PAIR[0], b"never"), op_check(PAIR[1], 1 << 30)])
            done, reply = self._request("failing", PAIR[0], b"never", Op.MULTI, record)
            assert [value for _, _, value in reply.results()] == [0, Err.BAD_VERSION]
            self._finish(done)
        else:
            path = self.random.choice(REGISTERS + PAIR)
            begin = None
            if choice > 0.85:
                begin = time.monotonic()
                self.zk.sync(path).ok()
            done, reply = self._request("synced" if begin else "read", path, None, Op.GET_DATA, ustr(path) + b"\x00")
            done.begin = begin or done.begin
            done.value, stat = reply.data_and_stat()
            self._finish(done, stat)


class History:
    """Some clients on an ensemble. `roaming`: how often, per request, one leaves its server for another."""

    def __init__(self, members, clients=4, seed="1", session_ms=30_000, roaming=0.01, pause_s=0.002, at_home=False):
        self.members, self.seed, self.session_ms = list(members), seed, session_ms
        self.roaming, self.pause_s = roaming, pause_s
        self.done = []
        self.expired = 0
        self.stopping = threading.Event()
        with contextlib.closing(self.members[0].connect()) as zk:
            for path in [ROOT, f"{ROOT}/log", *REGISTERS, *PAIR]:
                zk.create(path, b"start").ok()
            zk.close_session()
        for one in self.members:
            with contextlib.closing(one.connect()) as zk:
                zk.sync(ROOT).ok()
                zk.close_session()
        self.clients = [Client(self, index, self.members[index % len(self.members)] if at_home else None)
                        for index in range(clients)]
        for client in self.clients:
            client.start()

    def writes(self):
        return [done for done in self.done if done.kind in ("create", "set", "pair")]

    def acknowledged(self):
        return sum(done.end is not None for done in self.writes())

    def stop(self):
        self.stopping.set()
        for client in self.clients:
            client.join(30)
            assert not client.is_alive(), f"{client.name} hangs"
            if client.failure:
                raise client.failure

    # -- the promises

    def check(self, tree, stale_syncs_on=()):
        """`tree` is what all servers hold at the end. `stale_syncs_on`: servers that were cut off or paused, which may
        have answered a sync as leaders of the past: nothing in the protocol keeps them from it."""
        acknowledged = [done for done in self.writes() if done.end is not None]
        assert acknowledged
        self._all_there(tree, acknowledged)
        self._in_order_of_zxids(acknowledged)
        self._one_history_of_each_node(tree)
        self._sessions_never_go_back()
        self._syncs_catch_up(acknowledged, stale_syncs_on)

    def _all_there(self, tree, acknowledged):
        for done in acknowledged:
            if done.kind == "create":
                assert done.path in tree, f"lost: {done}"
                data, stat, _ = tree[done.path]
                assert (data, stat.czxid) == (done.value, done.zxid), f"{done}: {stat}"
        tried = {done.path for done in self.done if done.kind == "create"}
        there = {path for path in tree if path.startswith(f"{ROOT}/log/")}
        assert there <= tried
        for paths, kinds in [([path], ("set",)) for path in REGISTERS] + [(PAIR, ("pair",))]:
            mine = [done for done in self.writes() if done.kind in kinds and done.path == paths[0]]
            sure = sum(done.end is not None for done in mine)
            for path in paths:
                assert sure <= tree[path][1].version <= len(mine), f"{path}: {sure} of {len(mine)}, {tree[path]}"
        assert tree[PAIR[0]][0] == tree[PAIR[1]][0]

    @staticmethod
    def _in_order_of_zxids(acknowledged):
        by_zxid = sorted(acknowledged, key=lambda done: done.zxid)
        for earlier, later in itertools.pairwise(by_zxid):
            assert earlier.zxid < later.zxid, f"two writes with one zxid: {earlier} {later}"
        # No write may begin after the end of one with a larger zxid.
        first_end = None
        for done in reversed(by_zxid):
            if first_end is not None:
                assert done.begin < first_end.end, f"not linearizable: {first_end} was answered before {done} began"
            if first_end is None or done.end < first_end.end:
                first_end = done

    def _one_history_of_each_node(self, tree):
        """All that was ever said of a node fits one sequence of versions, each with one zxid and one value."""
        for path in REGISTERS + PAIR:
            seen = {}
            said = [done for done in self.done if done.end is not None and done.version >= 0
                    and (done.path == path or done.kind == "pair" and path in PAIR)]
            final = tree[path][1]
            for version, mzxid, value in [(done.version, done.mzxid, done.value) for done in said] + [
                    (final.version, final.mzxid, tree[path][0])]:
                assert seen.setdefault(version, (mzxid, value)) == (mzxid, value), f"{path} has two versions {version}"
            zxids = [seen[version][0] for version in sorted(seen)]
            assert zxids == sorted(set(zxids)), f"{path}: versions and zxids disagree"
            assert max(seen) == final.version, f"{path} has gone back to {final}"
            values = [value for _, value in seen.values()]
            assert b"never" not in values and len(set(values)) == len(values)
        for done in self.done:
            if done.kind in ("set", "pair") and done.end is not None:
                assert done.mzxid == done.zxid, done

    def _sessions_never_go_back(self):
        newest, nodes = {}, {}
        for done in self.done:  # in the order of each session's requests
            if done.end is None:
                continue
            assert done.zxid >= newest.get(done.session, 0), f"goes back: {done}"
            newest[done.session] = done.zxid
            if done.mzxid:
                for path in PAIR if done.kind == "pair" else [done.path]:
                    key = done.session, path
                    assert done.mzxid >= nodes.get(key, 0), f"{path} goes back: {done}"
                    nodes[key] = done.mzxid

    def _syncs_catch_up(self, acknowledged, stale_syncs_on):
        for read in self.done:
            if read.kind != "synced" or read.end is None or read.server in stale_syncs_on:
                continue
            known = [done.zxid for done in acknowledged if done.end < read.begin
                     and (done.path == read.path or done.kind == "pair" and read.path in PAIR)]
            assert read.mzxid >= max(known, default=0), f"a read after sync misses {max(known):#x}: {read}"
