"""Ensembles under test: some servers on this machine, each of them Apache's or ours, on directories of their own.

A member keeps its directory, ports and id for good; its process, and the kind of it, may change (`replace`). Tests get
ensembles from the fixture `start_ensemble` or from fixtures of their own made with `Ensemble`.
"""

import contextlib
import pathlib
import re
import shutil
import signal

from rawzk import Closed, Err, Flag, Op, Raw, create_record, ustr
from server import SUPER_DIGEST, Server, free_port, wait_until
from wires import inside
from workload import differences

TICK_MS = 200
SYNC_LIMIT = 10
# How long a server may be silent before the others give it up.
SILENCE_S = TICK_MS * SYNC_LIMIT / 1000
CONFIG = {
    "tickTime": TICK_MS,
    "initLimit": 50,
    "syncLimit": SYNC_LIMIT,
    "maxSessionTimeout": 7_200_000,
    "preAllocSize": 1024,
    "4lw.commands.whitelist": "*",
    "extendedTypesEnabled": "true",
    "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
}
PROPERTIES = {"znode.container.checkIntervalMs": 100}
# Apache says only at this level how it was brought up to date.
TALKATIVE = [f"-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.quorum.{name}=info"
             for name in ("Learner", "LearnerHandler")]
SERVE_DEADLINE_S = 40
# What is asked of every node of a tree: data, ACL, names of the children.
QUESTIONS = [(Op.GET_DATA, b"\x00"), (Op.GET_ACL, b""), (Op.GET_CHILDREN, b"\x00")]


class Member(Server):
    """One server of an ensemble. `start` waits until it serves, which needs a quorum; `spawn` does not wait."""

    java_options = ["-Xms32m", "-Dorg.slf4j.simpleLogger.showDateTime=true",
                    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", *TALKATIVE]

    def __init__(self, sid, kind, directory, host, namespace, heap_mb):
        super().__init__(kind, directory)
        self.java_options = [*self.java_options, f"-Xmx{heap_mb}m"]
        self.sid, self.host, self.namespace = sid, host, namespace
        self.quorum_port, self.election_port = free_port(), free_port()
        if namespace:
            self.launcher = ["ip", "netns", "exec", namespace]

    def __repr__(self):
        return f"<{self.sid}: {self.kind} on {self.port}, peers on {self.quorum_port} {self.election_port}>"

    def spawn(self):
        self.data_dir.mkdir(exist_ok=True)
        (self.data_dir / "myid").write_text(f"{self.sid}\n")
        return super().spawn()

    def pause(self):
        """SIGSTOP: alive for the kernel, dead for everybody else. Returns when no thread runs any more: one that is busy
        stops a little later than the signal is sent."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")

        def runs(task):
            try:
                return (task / "stat").read_text().rpartition(")")[2].split()[0] != "T"
            except (FileNotFoundError, ProcessLookupError):
                return False  # it has ended meanwhile

        wait_until(lambda: not any(runs(task) for task in tasks.iterdir()), f"{self!r} stops", 10)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def wipe(self):
        """A new disk."""
        assert not self.running()
        shutil.rmtree(self.data_dir)

    # -- what it says

    def four(self, word, timeout_s=2):
        with inside(self.namespace):
            return super().four(word, timeout_s=timeout_s)

    def _serving_or_dead(self):
        if not self.running():
            raise AssertionError(f"{self!r} ended with {self.process.returncode}\n{self.log_tail()}")
        return self.mode() is not None

    def mode(self):
        """leader, follower, observer, … or None while it does not serve."""
        try:
            found = re.search(r"^Mode: (\S+)$", self.four("srvr"), re.M)
        except OSError:
            return None
        return found and found.group(1)

    def log_mark(self):
        """Where the log ends now, for `said`."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def said(self, pattern, mark=0):
        """Whether a line of the log after the mark matches."""
        with open(self.log_path, "rb") as log:
            log.seek(mark)
            return re.search(pattern, log.read().decode(errors="replace")) is not None

    def logged(self, marker):
        """Whether these bytes stand in a transaction log, committed or not."""
        return any(marker in path.read_bytes() for path in self.log_files())

    def digest_mismatches(self):
        return int(self.monitored()["digest_mismatches_count"])

    def log_files(self):
        return sorted((self.data_dir / "version-2").glob("log.*"), key=lambda path: int(path.suffix[1:], 16))

    # -- clients

    def open(self, timeout_s=10.0):
        """A connection without a session. A server of 3.8.0 may sleep through a lone request, even a read, until the next
        one comes to it (ZOOKEEPER-4537), so its clients ping."""
        with inside(self.namespace):
            return Raw(self.port, timeout_s=timeout_s, pings=self.kind == "apache")

    def connect(self, timeout_ms=10_000, timeout_s=10.0, **fields):
        """A connection with a session."""
        raw = self.open(timeout_s)
        try:
            raw.handshake(timeout_ms=timeout_ms, **fields)
        except AssertionError:
            if self.kind != "apache":
                raise
            # It may sleep through this as well, and without a session there are no pings.
            raw.close()
            raw = self.open(timeout_s)
            raw.handshake(timeout_ms=timeout_ms, **fields)
        assert raw.session, f"{self!r} refuses a session"
        return raw

    def tree(self):
        """Everything as of now, except what every server writes for itself: path → (data, stat, acl)."""
        with contextlib.closing(self.connect(timeout_s=30)) as zk:
            zk.auth("digest", b"super:test").ok()
            zk.sync("/").ok()
            found, level = {}, ["/"]
            while level:
                asked = [(path, [zk.post(op, ustr(path) + tail) for op, tail in QUESTIONS]) for path in level]
                level = []
                for path, xids in asked:
                    data, acls, names = [zk.await_reply(xid) for xid in xids]
                    found[path] = (*data.data_and_stat(), acls.acl())
                    level += [f"{path.rstrip('/')}/{name}" for name in names.names()]
            zk.close_session()
        return {path: node for path, node in found.items() if path != "/zookeeper/config"}


def records(log_path):
    """The (zxid, position) of each record of a transaction log."""
    data, at = log_path.read_bytes(), 16
    while at + 32 <= len(data):
        size = int.from_bytes(data[at + 8:at + 12], "big")
        if size <= 0:
            return
        yield int.from_bytes(data[at + 24:at + 32], "big", signed=True), at
        at += 12 + size + 1


class Ensemble:
    """Members 1…n of the given kinds; those in `observers` have no vote. With `wires` each lives on a host of its own."""

    def __init__(self, directory, kinds, config=None, properties=None, wires=None, heap_mb=128, observers=()):
        self.wires = wires
        self.members = [
            Member(sid, kind, directory / f"server{sid}", wires.address(sid) if wires else "127.0.0.1",
                   wires.names[sid] if wires else None, heap_mb)
            for sid, kind in enumerate(kinds, 1)
        ]
        self.voters = [one for one in self.members if one.sid not in observers]
        for one in self.members:
            # What differs between the members is given as a function of the member.
            given = {key: value(one) if callable(value) else value for key, value in (config or {}).items()}
            one.config.update({**CONFIG, **given})
            one.properties.update({**PROPERTIES, **(properties or {})})
        self.place(lambda one: f"{one.host}:{one.quorum_port}:{one.election_port}")

    def __repr__(self):
        return f"<ensemble of {', '.join(one.kind for one in self.members)}>"

    def __getitem__(self, sid):
        return self.members[sid - 1]

    def __iter__(self):
        return iter(self.members)

    def place(self, line):
        """Lists every member by what `line(member)` says of where it is."""
        for listed in self.members:
            role = "" if listed in self.voters else ":observer"
            for one in self.members:
                one.config[f"server.{listed.sid}"] = f"{line(listed)}{role}"

    def others(self, *members):
        return [one for one in self.members if one not in members]

    # -- processes

    def start(self, leader=None):
        """Starts all and waits until all serve. A fresh ensemble can be told who is to lead, if not the smallest id."""
        if leader:
            smaller = [one for one in self.voters if one.sid < leader]
            first = smaller[:len(self.voters) // 2] + [self[leader]]
            for one in first:
                one.spawn()
            self.wait_serving(first)
        for one in self.members:
            if not one.running():
                one.spawn()
        self.wait_serving()
        assert leader is None or self.leader().sid == leader
        return self

    def close(self):
        for one in self.members:
            one.kill()

    def wait_serving(self, members=None, deadline_s=SERVE_DEADLINE_S):
        """Waits until these members (default: those that run) serve under one leader, and returns it."""
        members = members or [one for one in self.members if one.running()]

        def together():
            for one in members:
                if not one.running():
                    raise AssertionError(f"{one!r} ended with {one.process.returncode}\n{one.log_tail()}")
            modes = [one.mode() for one in members]
            leaders = [one for one, mode in zip(members, modes) if mode == "leader"]
            return leaders[0] if all(modes) and len(leaders) == 1 else None

        try:
            return wait_until(together, f"{members} serve under one leader", deadline_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\n" + "\n".join(one.log_tail(25) for one in self.members)) from None

    def replace(self, member, kind):
        """Another kind of server on the same directory: how an ensemble is rolled."""
        member.terminate()
        member.kind = kind
        member.start()

    # -- roles

    def leader(self):
        leaders = [one for one in self.members if one.running() and one.mode() == "leader"]
        assert len(leaders) == 1, f"leaders: {leaders}"
        return leaders[0]

    def followers(self):
        return [one for one in self.members if one.running() and one.mode() == "follower"]

    # -- state

    def check_equal(self, after_faults=False):
        """Trees, stats and ACLs are equal everywhere, and no server has found a wrong digest; returns the tree.

        `after_faults`: Apache's servers may have counted wrong digests that were none (see `_count_nothing_now`)."""
        members = [one for one in self.members if one.running()]
        first, *rest = [(one, one.tree()) for one in members]
        for one, tree in rest:
            assert differences(first[1], tree) == "", f"before = {first[0]!r}, after = {one!r}"
        for one in members:
            if one.digest_mismatches() and not (after_faults and one.kind == "apache" and self._count_nothing_now(one)):
                raise AssertionError(f"{one!r} has found wrong digests\n{one.log_tail(200)}")
        return first[1]

    @staticmethod
    def _count_nothing_now(member):
        """Whether digests are right by now. Apache's 3.8 applies transactions twice, and finds digests wrong until that is
        over, when it stops following while it still applies what was committed (it reads its own log as well), and when
        it starts with a log in which a run stands twice. A tree that is really wrong stays so."""
        before = member.digest_mismatches()
        write_many(member, "/digest", 5)
        return member.digest_mismatches() == before


def resilient(call, what, deadline_s=SERVE_DEADLINE_S):
    """Repeats a call that fails while there is no service, until it succeeds."""
    def once():
        try:
            return call() or True
        except (Closed, OSError, AssertionError):
            return None
    return wait_until(once, what, deadline_s)


def write_many(member, path, count, size=20):
    """So many writes through one server, pipelined; returns when all are acknowledged."""
    with contextlib.closing(member.connect(timeout_s=60)) as zk:
        if zk.create(path).err not in (Err.OK, Err.NODE_EXISTS):
            raise AssertionError(f"cannot create {path}")
        for index in range(count):
            zk.post(Op.CREATE, create_record(f"{path}/n", b"x" * size, flags=Flag.SEQUENTIAL))
        for index in range(count):
            zk.next().ok()
        zk.close_session()
