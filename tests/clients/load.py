"""Writers that know exactly what they may find after a crash.

A writer pipelines its requests on one connection and works in its own subtree. Replies come in order, so after a crash
its subtree must hold what was acknowledged plus a *prefix* of what was under way: anything else is a lost or a torn
write. `settle` checks that and goes on from what it found.
"""

import random
import threading
from collections import deque

from rawzk import Closed, Op, Raw, create_record, buf, i32, multi_record, op_set, ustr

WINDOW = 16
KEYS = 24
PAIR = ("x", "y")  # always written together in one multi


class Writer(threading.Thread):
    """One client under load. `state` is what its subtree holds after everything acknowledged so far."""

    def __init__(self, port, index, seed):
        super().__init__(daemon=True, name=f"writer{index}")
        self.port, self.root = port, f"/w{index}"
        self.random = random.Random(f"{seed}/{index}")
        self.state = None
        self.pending = deque()
        self.acknowledged = 0
        self.sequence = 0
        self.failure = None

    # -- the subtree

    def prepare(self):
        zk = self._connect()
        zk.create(self.root).ok()
        for name in PAIR:
            zk.create(f"{self.root}/{name}", b"0").ok()
        self.state = {name: b"0" for name in PAIR}
        zk.close_session()

    def _connect(self):
        zk = Raw(self.port, timeout_s=20)
        zk.handshake(timeout_ms=30000)
        return zk

    def found(self):
        zk = self._connect()
        names = zk.children(self.root).names()
        held = {name: zk.get(f"{self.root}/{name}").data() for name in names}
        zk.close_session()
        return held

    @staticmethod
    def applied(state, change):
        """The state after one request; a change is a dictionary of new values, None for a deletion."""
        merged = {**state, **change}
        return {name: value for name, value in merged.items() if value is not None}

    def settle(self):
        """Compares the subtree with what may be there and takes it as the new state."""
        found, allowed = self.found(), self.state
        for change in [{}, *self.pending]:
            allowed = self.applied(allowed, change)
            if allowed == found:
                self.state = found
                self.pending.clear()
                return
        raise AssertionError(
            f"{self.root} after {self.acknowledged} acknowledged writes:\nacknowledged {self.state}\n"
            f"under way {list(self.pending)}\nfound {found}")

    # -- the load

    def _next_request(self, state):
        """A request that will succeed on `state`, and what it changes."""
        self.sequence += 1
        value = b"%d" % self.sequence
        kind = self.random.random()
        name = f"k{self.random.randrange(KEYS)}"
        path = f"{self.root}/{name}"
        if kind < 0.15:
            pair = {name: value for name in PAIR}
            return Op.MULTI, multi_record([op_set(f"{self.root}/{name}", value) for name in PAIR]), pair
        if name not in state:
            return Op.CREATE, create_record(path, value), {name: value}
        if kind < 0.3:
            return Op.DELETE, ustr(path) + i32(-1), {name: None}
        return Op.SET_DATA, ustr(path) + buf(value) + i32(-1), {name: value}

    def run(self):
        try:
            zk = self._connect()
            ahead = self.state
            while True:
                while len(self.pending) < WINDOW:
                    op, record, change = self._next_request(ahead)
                    ahead = self.applied(ahead, change)
                    self.pending.append(change)
                    zk.post(op, record)
                reply = zk.next()
                assert reply.err == 0, f"{self.root}: {reply}"
                self.state = self.applied(self.state, self.pending.popleft())
                self.acknowledged += 1
        except (Closed, ConnectionError):
            pass
        except BaseException as error:  # noqa: BLE001, raised again by `Load.stopped`
            self.failure = error


class Load:
    """A set of writers that run until their server goes away, again and again."""

    def __init__(self, port, writers, seed):
        self.port, self.seed = port, seed
        self.writers = [Writer(port, index, seed) for index in range(writers)]
        for writer in self.writers:
            writer.prepare()

    def start(self):
        for writer in self.writers:
            writer.start()

    def acknowledged(self):
        return sum(writer.acknowledged for writer in self.writers)

    def stopped(self):
        """Waits for the writers to notice that the server has gone."""
        for writer in self.writers:
            writer.join(30)
            assert not writer.is_alive(), f"{writer.name} does not notice that its server has gone"
            if writer.failure:
                raise writer.failure

    def settle(self):
        """After a restart: checks every writer's subtree and readies fresh threads for the next round."""
        for index, old in enumerate(self.writers):
            old.settle()
            fresh = Writer(self.port, index, f"{self.seed}/{old.sequence}")
            fresh.state, fresh.sequence, fresh.acknowledged = old.state, old.sequence, old.acknowledged
            self.writers[index] = fresh
