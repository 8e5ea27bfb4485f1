"""A ZooKeeper client that hides nothing: frames, headers and records by hand.

The functions build and read Jute records; `Raw` is one TCP connection. Everything a server sends is kept in the
order of arrival, so that tests can speak about bytes and about order.
"""

import itertools
import socket
import struct
import time
from dataclasses import dataclass

# -- numbers of the protocol


class Op:
    NOTIFICATION, CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN, SYNC = range(10)
    PING, GET_CHILDREN2, CHECK, MULTI, CREATE2, RECONFIG, CHECK_WATCHES, REMOVE_WATCHES = range(11, 19)
    CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = range(19, 23)
    AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES2, ADD_WATCH, WHO_AM_I = range(100, 108)
    CREATE_SESSION, CLOSE_SESSION, ERROR = -10, -11, -1


class Err:
    OK = 0
    RUNTIME_INCONSISTENCY = -2
    MARSHALLING = -5
    UNIMPLEMENTED = -6
    BAD_ARGUMENTS = -8
    NO_NODE = -101
    NO_AUTH = -102
    BAD_VERSION = -103
    NO_CHILDREN_FOR_EPHEMERALS = -108
    NODE_EXISTS = -110
    NOT_EMPTY = -111
    SESSION_EXPIRED = -112
    INVALID_ACL = -114
    AUTH_FAILED = -115
    NO_WATCHER = -121
    RECONFIG_DISABLED = -123
    QUOTA_EXCEEDED = -125


class Flag:
    PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL, CONTAINER, TTL, SEQUENTIAL_TTL = range(7)


CREATED, DELETED, CHANGED, CHILD = 1, 2, 3, 4

# -- writing records


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def boolean(value):
    return b"\x01" if value else b"\x00"


def buf(value):
    return i32(-1) if value is None else i32(len(value)) + value


def ustr(value):
    return buf(value.encode() if isinstance(value, str) else value)


def vector(items):
    return i32(-1) if items is None else i32(len(items)) + b"".join(items)


def strings(items):
    return vector(None if items is None else [ustr(item) for item in items])


def acl(*entries):
    """An ACL list from (perms, scheme, id) triples."""
    return vector([i32(perms) + ustr(scheme) + ustr(name) for perms, scheme, name in entries])


READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31
OPEN = acl((ALL, "world", "anyone"))


def create_record(path, data=b"", acls=OPEN, flags=0):
    return ustr(path) + buf(data) + acls + i32(flags)


def frame(payload):
    return i32(len(payload)) + payload


# -- reading records

STAT_FIELDS = ("czxid", "mzxid", "ctime", "mtime", "version", "cversion", "aversion", "ephemeralOwner",
               "dataLength", "numChildren", "pzxid")


@dataclass(frozen=True)
class Stat:
    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeralOwner: int
    dataLength: int
    numChildren: int
    pzxid: int


class Reader:
    """Takes a record apart; `end()` insists that nothing is left."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, size):
        piece = self.data[self.at:self.at + size]
        assert len(piece) == size, f"record ends early: {self.data!r}"
        self.at += size
        return piece

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def bool(self):
        return self.take(1) != b"\x00"

    def buf(self):
        size = self.i32()
        return None if size < 0 else self.take(size)

    def ustr(self):
        raw = self.buf()
        return None if raw is None else raw.decode()

    def vector(self, item):
        return [item() for _ in range(self.i32())]

    def stat(self):
        return Stat(*struct.unpack(">qqqqiiiqiiq", self.take(68)))

    def end(self):
        assert self.at == len(self.data), f"unread bytes: {self.data[self.at:]!r}"


@dataclass(frozen=True)
class Reply:
    xid: int
    zxid: int
    err: int
    body: bytes

    def ok(self):
        assert self.err == 0, f"error {self.err}"
        return self

    def read(self, *kinds):
        """The body as a tuple of the given kinds ("ustr", "buf", "stat", …), all of it."""
        reader = Reader(self.ok().body)
        values = tuple(getattr(reader, kind)() for kind in kinds)
        reader.end()
        return values

    def path(self):
        return self.read("ustr")[0]

    def stat(self):
        return self.read("stat")[0]

    def data(self):
        return self.read("buf", "stat")[0]

    def path_and_stat(self):
        return self.read("ustr", "stat")

    def data_and_stat(self):
        return self.read("buf", "stat")

    def names(self):
        reader = Reader(self.ok().body)
        names = reader.vector(reader.ustr)
        reader.end()
        return sorted(names)

    def names_and_stat(self):
        reader = Reader(self.ok().body)
        names, stat = reader.vector(reader.ustr), reader.stat()
        reader.end()
        return sorted(names), stat

    def acl(self):
        reader = Reader(self.ok().body)
        entries = reader.vector(lambda: (reader.i32(), reader.ustr(), reader.ustr()))
        reader.stat()
        reader.end()
        return entries

    def who(self):
        reader = Reader(self.ok().body)
        ids = reader.vector(lambda: (reader.ustr(), reader.ustr()))
        reader.end()
        return sorted(ids)

    def results(self):
        """The results of a multi: a list of (type, err, value)."""
        reader = Reader(self.ok().body)
        found = []
        while True:
            kind, done, err = reader.i32(), reader.bool(), reader.i32()
            if done:
                assert (kind, err) == (-1, -1)
                reader.end()
                return found
            found.append((kind, err, self._result(reader, kind)))

    @staticmethod
    def _result(reader, kind):
        if kind == Op.CREATE:
            return reader.ustr()
        if kind == Op.CREATE2:
            return reader.ustr(), reader.stat()
        if kind == Op.SET_DATA:
            return reader.stat()
        if kind == Op.GET_DATA:
            return reader.buf(), reader.stat()
        if kind == Op.GET_CHILDREN:
            return sorted(reader.vector(reader.ustr))
        if kind == Op.ERROR:
            return reader.i32()
        assert kind in (Op.DELETE, Op.CHECK), f"unexpected result type {kind}"
        return None


@dataclass(frozen=True)
class Event:
    type: int
    path: str
    zxid: int = -1
    state: int = 3

    def key(self):
        return self.type, self.path


@dataclass(frozen=True)
class ConnectResponse:
    timeout: int
    session: int
    password: bytes
    read_only: bool | None
    raw: bytes


class Closed(Exception):
    """The server has closed the connection."""


MULTI_END = i32(-1) + b"\x01" + i32(-1)


def multi_record(ops):
    """A multi request from (op, record) pairs."""
    parts = [i32(op) + b"\x00" + i32(-1) + record for op, record in ops]
    return b"".join(parts) + MULTI_END


# -- the connection

PING_AFTER_S = 1.0


class Raw:
    """One connection. `call` waits for its own reply and collects the events that came before it.

    With `pings`, a request that is not answered soon is followed by a ping, as from every client that is more than this."""

    def __init__(self, port, timeout_s=10.0, pings=False, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout=timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port, self.opened_s = port, time.monotonic()
        self.timeout_s, self.pings = timeout_s, pings
        self.pings_due = 0
        self.received = b""
        self.events = []
        self.xids = itertools.count(1)
        self.session = 0
        self.password = bytes(16)
        self.negotiated_ms = 0

    # frames

    def send_bytes(self, data):
        self.sock.sendall(data)

    def send_frame(self, payload):
        self.sock.sendall(frame(payload))

    def _receive(self, size, deadline):
        ping_at = min(time.monotonic() + PING_AFTER_S, deadline) if self.pings and self.session else deadline
        while len(self.received) < size:
            self.sock.settimeout(max(0.001, ping_at - time.monotonic()))
            try:
                piece = self.sock.recv(1 << 20)
            except TimeoutError:
                if ping_at < deadline:
                    ping_at = deadline
                    self._ping_meanwhile()
                    continue
                raise AssertionError(f"no answer; so far: {self.received!r}") from None
            except ConnectionError:
                raise self._closed() from None
            if not piece:
                raise self._closed()
            self.received += piece
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def _closed(self):
        return Closed(f"port {self.port}, session {self.session:#x}, after {time.monotonic() - self.opened_s:.3f} s")

    def _ping_meanwhile(self):
        """Its reply, behind those that are waited for, is passed over."""
        try:
            self.post(Op.PING, xid=-2)
        except ConnectionError:
            return
        self.pings_due += 1

    def recv_frame(self):
        deadline = time.monotonic() + self.timeout_s
        size = struct.unpack(">i", self._receive(4, deadline))[0]
        return self._receive(size, deadline)

    def next(self):
        """The next frame as a Reply or an Event."""
        payload = self.recv_frame()
        xid, zxid, err = struct.unpack(">iqi", payload[:16])
        if xid == -2 and self.pings_due:
            self.pings_due -= 1
            return self.next()
        if xid != -1:
            return Reply(xid, zxid, err, payload[16:])
        reader = Reader(payload[16:])
        kind, state, path = reader.i32(), reader.i32(), reader.ustr()
        reader.end()
        return Event(kind, path, zxid, state)

    def until_closed(self):
        """Everything that still arrives before the server closes."""
        found = []
        try:
            while True:
                found.append(self.next())
        except Closed:
            return found

    def close(self):
        self.sock.close()

    def reset(self):
        """Drops the connection with a RST, as a dying host's kernel would."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # handshake

    @staticmethod
    def connect_record(timeout_ms=10000, session=0, password=bytes(16), last_zxid=0, read_only=False, version=0):
        tail = b"" if read_only is None else boolean(read_only)
        return i32(version) + i64(last_zxid) + i32(timeout_ms) + i64(session) + buf(password) + tail

    def handshake(self, **fields):
        """Sends a ConnectRequest (fields of `connect_record`) and remembers the answer."""
        self.send_frame(self.connect_record(**fields))
        return self.handshake_reply()

    def handshake_reply(self):
        raw = self.recv_frame()
        reader = Reader(raw)
        assert reader.i32() == 0
        timeout, session, password = reader.i32(), reader.i64(), reader.buf()
        read_only = reader.bool() if reader.at < len(raw) else None
        reader.end()
        self.session, self.password, self.negotiated_ms = session, password, timeout
        return ConnectResponse(timeout, session, password, read_only, raw)

    # requests

    def post(self, op, record=b"", xid=None):
        """Sends a request and returns its xid."""
        xid = next(self.xids) if xid is None else xid
        self.send_frame(i32(xid) + i32(op) + record)
        return xid

    def await_reply(self, xid):
        while True:
            found = self.next()
            if isinstance(found, Event):
                self.events.append(found)
                continue
            assert found.xid == xid, f"expected the reply to {xid}, got {found}"
            return found

    def call(self, op, record=b"", xid=None):
        return self.await_reply(self.post(op, record, xid))

    def fired(self):
        """Events collected so far as (type, path), after a ping has flushed out what is on its way."""
        self.ping()
        found, self.events = [event.key() for event in self.events], []
        return found

    # operations

    def create(self, path, data=b"", acls=OPEN, flags=0, op=Op.CREATE):
        return self.call(op, create_record(path, data, acls, flags))

    def create2(self, path, data=b"", acls=OPEN, flags=0):
        return self.create(path, data, acls, flags, op=Op.CREATE2)

    def create_container(self, path, data=b"", acls=OPEN, flags=Flag.CONTAINER):
        return self.create(path, data, acls, flags, op=Op.CREATE_CONTAINER)

    def create_ttl(self, path, ttl, data=b"", acls=OPEN, flags=Flag.TTL):
        return self.call(Op.CREATE_TTL, create_record(path, data, acls, flags) + i64(ttl))

    def delete(self, path, version=-1):
        return self.call(Op.DELETE, ustr(path) + i32(version))

    def exists(self, path, watch=False):
        return self.call(Op.EXISTS, ustr(path) + boolean(watch))

    def get(self, path, watch=False):
        return self.call(Op.GET_DATA, ustr(path) + boolean(watch))

    def set(self, path, data=b"", version=-1):
        return self.call(Op.SET_DATA, ustr(path) + buf(data) + i32(version))

    def get_acl(self, path):
        return self.call(Op.GET_ACL, ustr(path))

    def set_acl(self, path, acls, version=-1):
        return self.call(Op.SET_ACL, ustr(path) + acls + i32(version))

    def children(self, path, watch=False):
        return self.call(Op.GET_CHILDREN, ustr(path) + boolean(watch))

    def children2(self, path, watch=False):
        return self.call(Op.GET_CHILDREN2, ustr(path) + boolean(watch))

    def sync(self, path):
        return self.call(Op.SYNC, ustr(path))

    def ping(self):
        return self.call(Op.PING, xid=-2).ok()

    def multi(self, *ops):
        return self.call(Op.MULTI, multi_record(ops))

    def multi_read(self, *ops):
        return self.call(Op.MULTI_READ, multi_record(ops))

    def auth(self, scheme, credentials, xid=-4):
        return self.call(Op.AUTH, i32(0) + ustr(scheme) + buf(credentials), xid=xid)

    def set_watches(self, zxid, data=(), exist=(), child=()):
        record = i64(zxid) + strings(data) + strings(exist) + strings(child)
        return self.call(Op.SET_WATCHES, record, xid=-8)

    def set_watches2(self, zxid, data=(), exist=(), child=(), persistent=(), recursive=()):
        record = i64(zxid) + b"".join(map(strings, (data, exist, child, persistent, recursive)))
        return self.call(Op.SET_WATCHES2, record, xid=-8)

    def add_watch(self, path, mode):
        return self.call(Op.ADD_WATCH, ustr(path) + i32(mode))

    def check_watches(self, path, kind):
        return self.call(Op.CHECK_WATCHES, ustr(path) + i32(kind))

    def remove_watches(self, path, kind):
        return self.call(Op.REMOVE_WATCHES, ustr(path) + i32(kind))

    def ephemerals(self, prefix="/"):
        return self.call(Op.GET_EPHEMERALS, ustr(prefix))

    def descendants(self, path):
        return self.call(Op.GET_ALL_CHILDREN_NUMBER, ustr(path)).read("i32")[0]

    def who_am_i(self):
        return self.call(Op.WHO_AM_I)

    def close_session(self):
        """Ends the session and returns the reply; the server closes the socket after it."""
        reply = self.call(Op.CLOSE_SESSION)
        self.session = 0
        return reply


# -- records for multi

def op_create(path, data=b"", acls=OPEN, flags=0, op=Op.CREATE):
    return op, create_record(path, data, acls, flags)


def op_create_ttl(path, ttl, data=b"", acls=OPEN, flags=Flag.TTL):
    return Op.CREATE_TTL, create_record(path, data, acls, flags) + i64(ttl)


def op_delete(path, version=-1):
    return Op.DELETE, ustr(path) + i32(version)


def op_set(path, data=b"", version=-1):
    return Op.SET_DATA, ustr(path) + buf(data) + i32(version)


def op_check(path, version=-1):
    return Op.CHECK, ustr(path) + i32(version)


def op_get(path):
    return Op.GET_DATA, ustr(path) + b"\x00"


def op_children(path):
    return Op.GET_CHILDREN, ustr(path) + b"\x00"
