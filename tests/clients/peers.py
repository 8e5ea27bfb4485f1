"""Peers by hand: what a server of an ensemble says on the election and the quorum port, byte by byte.

`Elector` is one connection to an election port, `Learner` one to a leader's quorum port, and `FalseLeader` a whole server
that gets itself elected. None of them knows any manners that a test does not give it.
"""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

from rawzk import Closed, Reader, buf, i32, i64, ustr, vector

LOOKING, FOLLOWING, LEADING, OBSERVING = range(4)


class Packet:
    REQUEST, PROPOSAL, ACK, COMMIT, PING, REVALIDATE, SYNC, INFORM = range(1, 9)
    NEWLEADER, FOLLOWERINFO, UPTODATE, DIFF, TRUNC, SNAP, OBSERVERINFO, LEADERINFO, ACKEPOCH = range(10, 19)


def zxid(epoch, counter=0):
    return epoch << 32 | counter


class Stream:
    """A TCP connection to or from a peer, with a deadline on everything."""

    def __init__(self, sock, timeout_s=10.0):
        self.sock, self.timeout_s = sock, timeout_s
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.sock.sendall(data)

    def take(self, size):
        data, deadline = b"", time.monotonic() + self.timeout_s
        while len(data) < size:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self.sock.recv(min(size - len(data), 1 << 16))
            except TimeoutError:
                raise AssertionError(f"the peer is silent; so far: {data!r}") from None
            except ConnectionError:
                raise Closed from None
            if not piece:
                raise Closed
            data += piece
        return data

    def until_closed(self, deadline_s):
        """Reads and throws away until the other side has closed."""
        end = time.monotonic() + deadline_s
        with contextlib.suppress(Closed):
            while time.monotonic() < end:
                with contextlib.suppress(AssertionError):
                    self.timeout_s = min(1.0, deadline_s)
                    self.take(1)
            raise AssertionError(f"still open after {deadline_s} s")

    def close(self):
        self.sock.close()


def dial(port, timeout_s=10.0):
    return Stream(socket.create_connection(("127.0.0.1", port), timeout=timeout_s), timeout_s)


# -- the election port

def hello(sid, address, version=-65536):
    return i64(version) + i64(sid) + buf(address.encode())


@dataclass(frozen=True)
class Notification:
    state: int
    leader: int
    zxid: int
    round: int
    epoch: int

    def frame(self, config=b""):
        body = i32(self.state) + i64(self.leader) + i64(self.zxid) + i64(self.round) + i64(self.epoch) + i32(2) + buf(config)
        return i32(len(body)) + body


class Elector(Stream):
    """Says hello as a server that would have dialed (its id is the larger one)."""

    def __init__(self, member, sid, address="127.0.0.1:1"):
        super().__init__(socket.create_connection(("127.0.0.1", member.election_port), timeout=10))
        self.send(hello(sid, address))

    def notify(self, notification):
        self.send(notification.frame())

    def next(self):
        reader = Reader(self.take(Reader(self.take(4)).i32()))
        return Notification(reader.i32(), *(reader.i64() for _ in range(4)))


# -- the quorum port

def packet(kind, zxid=0, data=None, authinfo=None):
    return i32(kind) + i64(zxid) + buf(data) + vector(authinfo)


def follower_info(sid, epoch=0, version=0, kind=Packet.FOLLOWERINFO):
    return packet(kind, zxid(epoch), i64(sid) + i32(0x10000) + i64(version))


class Packets(Stream):
    """A stream of packets, on either side."""

    def next(self):
        """The next (type, zxid, data)."""
        reader = Reader(self.take(16))
        kind, number, size = reader.i32(), reader.i64(), reader.i32()
        data = None if size < 0 else self.take(size)
        for _ in range(max(0, Reader(self.take(4)).i32())):
            for _ in range(2):
                self.take(max(0, Reader(self.take(4)).i32()))
        return kind, number, data

    def expect(self, *kinds):
        found = self.next()
        assert found[0] in kinds, f"expected {kinds}, got {found}"
        return found


class Learner(Packets):
    """One that goes through the handshake properly, as far as the test lets it."""

    def __init__(self, leader, sid):
        super().__init__(socket.create_connection(("127.0.0.1", leader.quorum_port), timeout=10))
        self.sid = sid

    def register(self, last=0):
        """FOLLOWERINFO … ACKEPOCH; returns the epoch."""
        self.send(follower_info(self.sid))
        _, number, _ = self.expect(Packet.LEADERINFO)
        self.send(packet(Packet.ACKEPOCH, last, i32(0)))
        return number >> 32

    def take_snapshot(self):
        """Reads the tree behind a SNAP."""
        number = lambda size: int.from_bytes(self.take(size), "big", signed=True)  # noqa: E731
        for _ in range(number(4)):
            self.take(12)
        for _ in range(number(4)):
            self.take(8)
            for _ in range(number(4)):
                self.take(4)
                self.take(number(4))
                self.take(number(4))
        while (path := self.take(number(4))) != b"/":
            self.take(max(0, number(4)))
            self.take(8 + 60)
        assert self.take(number(4)) == b"BenWasHere"

    def synchronize(self):
        """Up to and with the ACK of NEWLEADER and the first packet after it."""
        epoch = self.register()
        kind, _, _ = self.expect(Packet.SNAP, Packet.DIFF)
        if kind == Packet.SNAP:
            self.take_snapshot()
        while (found := self.next())[0] != Packet.NEWLEADER:
            assert found[0] in (Packet.PROPOSAL, Packet.COMMIT)
        self.send(packet(Packet.ACK, zxid(epoch)))
        while self.next()[0] != Packet.UPTODATE:
            pass
        self.send(packet(Packet.ACK, zxid(epoch)))


class FalseLeader:
    """A server with the best history of all, which `member` elects; `serve(packets)` says what it does with a learner."""

    def __init__(self, victim, sid, quorum_port, serve, epoch=1000):
        self.victim, self.sid, self.serve, self.epoch = victim, sid, serve, epoch
        self.served = 0
        self.failure = None
        self.closing = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", quorum_port))
        self.listener.settimeout(0.2)
        self.threads = [threading.Thread(target=self._guarded, args=[work], daemon=True)
                        for work in (self._lead, self._campaign)]
        for thread in self.threads:
            thread.start()

    def _guarded(self, work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001, raised again by `close`
            self.failure = error

    def _campaign(self):
        """Votes for itself, in whatever round the victim is."""
        elector = None
        while not self.closing.is_set():
            try:
                if elector is None:
                    elector = Elector(self.victim, self.sid)
                    elector.timeout_s = 0.5
                    elector.notify(Notification(LOOKING, self.sid, zxid(self.epoch), 1, self.epoch))
                theirs = elector.next()
                if theirs.state == LOOKING:
                    elector.notify(Notification(LOOKING, self.sid, zxid(self.epoch), theirs.round, self.epoch))
            except AssertionError:
                continue
            except (Closed, OSError):
                if elector:
                    elector.close()
                elector = None
                self.closing.wait(0.05)
        if elector:
            elector.close()

    def _lead(self):
        while not self.closing.is_set():
            try:
                sock, _ = self.listener.accept()
            except TimeoutError:
                continue
            packets = Packets(sock)
            try:
                packets.expect(Packet.FOLLOWERINFO)
                packets.send(packet(Packet.LEADERINFO, zxid(self.epoch + 1 + self.served), i32(0x10000)))
                packets.expect(Packet.ACKEPOCH)
                self.serve(packets)
            except (Closed, OSError):
                pass
            finally:
                packets.close()
                self.served += 1

    def close(self):
        self.closing.set()
        for thread in self.threads:
            thread.join(15)
        self.listener.close()
        if self.failure:
            raise self.failure


def snapshot_pieces(nodes):
    """The start of a tree with so many nodes, without its end."""
    yield i32(0) + i32(0)
    yield ustr("") + buf(b"") + i64(-1) + bytes(60)
    for index in range(nodes):
        yield ustr(f"/false{index}") + buf(b"x" * 100) + i64(-1) + bytes(60)
