"""A network of our own: a namespace for each host, joined by cables that are made, and broken, in user space.

Each namespace has one TUN device. What a host sends comes out of its device as IP packets; a thread carries them to the
device of the host they are for, later (`delay_s`) or not at all (`loss`). Every direction is a cable of its own, so that
a link can be cut one way. No firewall and no traffic control of the kernel is needed, only root.
"""

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = "cable"
_libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    """Why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "no `ip` program (Debian: iproute2)"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    probe = f"rk-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode != 0:
        return "network namespaces cannot be made here"
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def inside(namespace):
    """The calling thread lives in the namespace: sockets made there stay there."""
    if namespace is None:
        yield
        return
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _setns(other)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)
        os.close(other)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Wires:
    """Hosts 1…n with the addresses 10.88.0.1…n; `cut`, `delay` and `lose` change their cables at once."""

    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.names = {host: f"rk-{os.getpid()}-{host}" for host in self.hosts}
        self.random = random.Random(1)
        self.heal()
        self.devices = {}
        self.order = itertools.count()
        try:
            for host in self.hosts:
                self._add(host)
        except BaseException:
            self.close()
            raise
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._carry, daemon=True, name="wires")
        self.thread.start()

    @staticmethod
    def address(host):
        return f"10.88.0.{host}"

    def _add(self, host):
        name = self.names[host]
        _ip("netns", "add", name)
        with inside(name):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        self.devices[host] = fd
        _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", DEVICE)
        _ip("-n", name, "link", "set", DEVICE, "up")
        _ip("-n", name, "link", "set", "lo", "up")

    # -- what happens to the cables; each takes (from, to) pairs

    def heal(self):
        self.delay_s, self.loss = {}, {}

    def pairs(self, host):
        """Both directions between the host and every other."""
        return [pair for other in self.hosts if other != host for pair in ((host, other), (other, host))]

    def cut(self, *pairs):
        self.lose(1.0, *pairs)

    def lose(self, share, *pairs):
        self.loss = {**self.loss, **{pair: share for pair in pairs}}

    def delay(self, seconds, *pairs):
        self.delay_s = {**self.delay_s, **{pair: seconds for pair in pairs}}

    # -- the carrier

    def _carry(self):
        poller = select.poll()
        sender_of = {fd: host for host, fd in self.devices.items()}
        for fd in sender_of:
            poller.register(fd, select.POLLIN)
        late = []
        while not self.closing.is_set():
            wait_s = min(0.2, late[0][0] - time.monotonic()) if late else 0.2
            for fd, _ in poller.poll(max(0, wait_s * 1000)):
                self._take(fd, sender_of[fd], late)
            while late and late[0][0] <= time.monotonic():
                self._give(*heapq.heappop(late)[2:])

    def _take(self, fd, sender, late):
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4 or packet[16:19] != b"\x0a\x58\x00":
                continue
            cable = (sender, packet[19])
            if self.random.random() < self.loss.get(cable, 0):
                continue
            delay_s = self.delay_s.get(cable, 0)
            if delay_s:
                heapq.heappush(late, (time.monotonic() + delay_s, next(self.order), packet[19], packet))
            else:
                self._give(packet[19], packet)

    def _give(self, receiver, packet):
        if fd := self.devices.get(receiver):
            with contextlib.suppress(OSError):
                os.write(fd, packet)

    def close(self):
        if hasattr(self, "closing"):
            self.closing.set()
            self.thread.join()
        for fd in self.devices.values():
            os.close(fd)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
