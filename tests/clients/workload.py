"""A seeded random workload over everything that ends up on disk, and a dump of what a server shows of it."""

import random

from rawzk import (ALL, OPEN, READ, Err, Flag, Raw, acl, op_check, op_create, op_create_ttl, op_delete, op_set)

HOUR_MS = 3_600_000
SESSIONS = 4
ACLS = [
    OPEN, OPEN, OPEN, acl((ALL, "auth", "")), acl((READ, "world", "anyone"), (ALL, "auth", "")),
    acl((ALL, "ip", "127.0.0.0/8")), acl((ALL, "world", "anyone"), (READ, "digest", "a:b"), (0, "ip", "1.2.3.4")),
]
DATA = [None, b"", b"x", b"\x00\xff" * 20, "h\u00e4ndler \u6f22".encode(), b"k" * 10_000]
CREATE_FLAGS = [Flag.PERSISTENT] * 4 + [Flag.EPHEMERAL, Flag.SEQUENTIAL, Flag.EPHEMERAL_SEQUENTIAL]


class Workload:
    """A few sessions that do random things; its seed decides everything but the clock."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sessions = []
        self.quotas = 0

    # -- sessions

    def attach(self, port):
        """Renews every session on the server that now has the data, and opens those that are missing."""
        for client in self.sessions:
            client.close()
        self.sessions = [self._renewed(port, client) for client in self.sessions]
        self.port = port
        while len(self.sessions) < SESSIONS:
            self._open()

    def _renewed(self, port, old):
        client = Raw(port, timeout_s=30)
        client.handshake(timeout_ms=HOUR_MS, session=old.session, password=old.password)
        assert client.session == old.session, "the session did not survive"
        client.auth("digest", b"worker:secret").ok()
        return client

    def _open(self):
        client = Raw(self.port, timeout_s=30)
        client.handshake(timeout_ms=HOUR_MS)
        client.auth("digest", b"worker:secret").ok()
        self.sessions.append(client)

    def _replace_a_session(self):
        self.sessions.pop(self.random.randrange(len(self.sessions))).close_session().ok()
        self._open()

    # -- operations

    def _path(self):
        """One of a hundred paths, up to four deep, so that most of them exist some of the time."""
        depth = self.random.choice([1, 1, 2, 2, 2, 3, 4])
        names = "abcd\u00e4"
        return "".join("/" + self.random.choice(names) for _ in range(depth))

    def _data(self):
        return self.random.choice(DATA)

    def _version(self):
        return self.random.choice([-1, -1, -1, 0, 1, 7])

    def _multi_op(self):
        choice = self.random.randrange(6)
        path = self._path()
        if choice < 2:
            return op_create(path, self._data(), flags=self.random.choice(CREATE_FLAGS))
        if choice == 2:
            return op_delete(path)
        if choice == 3:
            return op_set(path, self._data(), self._version())
        if choice == 4:
            return op_create_ttl(path, HOUR_MS)
        return op_check(path, self._version())

    def _quota(self, client):
        """Arms a quota on a top-level node, with limits that later writes will meet."""
        path = "/" + self.random.choice("ab")
        at = "/zookeeper/quota" + path
        client.create(at, None)
        limits = self.random.choice(["count=3,bytes=10", "count=-1,bytes=-1=;byteHardLimit=20000;countHardLimit=12"])
        client.create(at + "/zookeeper_limits", limits.encode())
        client.create(at + "/zookeeper_stats", b"count=0,bytes=0")

    def _step(self, client):
        choice, path = self.random.random(), self._path()
        acls = self.random.choice(ACLS)
        if choice < 0.30:
            client.create(path, self._data(), acls, self.random.choice(CREATE_FLAGS))
        elif choice < 0.36:
            client.create2(path, self._data(), acls, self.random.choice(CREATE_FLAGS))
        elif choice < 0.40:
            client.create_container(path, self._data(), acls)
        elif choice < 0.44:
            client.create_ttl(path, self.random.choice([HOUR_MS, (1 << 40) - 1]), self._data(), acls)
        elif choice < 0.60:
            client.set(path, self._data(), self._version())
        elif choice < 0.72:
            client.delete(path, self._version())
        elif choice < 0.78:
            client.set_acl(path, acls, self._version())
        elif choice < 0.94:
            client.multi(*[self._multi_op() for _ in range(self.random.randrange(1, 6))])
        elif choice < 0.96:
            self._quota(client)
        else:
            self._replace_a_session()

    def run(self, steps):
        for _ in range(steps):
            self._step(self.random.choice(self.sessions))


def dump(port):
    """Everything a super user can read: path → (data, stat, acl)."""
    zk = Raw(port, timeout_s=30)
    zk.handshake(timeout_ms=HOUR_MS)
    zk.auth("digest", b"super:test").ok()
    tree, todo = {}, ["/"]
    while todo:
        path = todo.pop()
        reply = zk.get(path)
        if reply.err == Err.NO_NODE:
            continue
        tree[path] = (*reply.data_and_stat(), zk.get_acl(path).acl())
        todo += [path.rstrip("/") + "/" + name for name in zk.children(path).names()]
    zk.close_session().ok()
    return tree


def differences(before, after):
    """The two trees' differences as text, empty when they are equal."""
    return "\n".join(f"{path}:\n  before {before.get(path)}\n  after  {after.get(path)}"
                     for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path))
