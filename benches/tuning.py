#!/usr/bin/env python3
"""What each candidate setting of the host or the service does to the latency of writes: a table for the docs.

    cc -O2 -o zkload zkload.c
    sudo .venv/bin/python benches/tuning.py --zkload ./zkload [--seconds 3] [--rounds 5] [--only nice,slack] [--noise cpu]

`zkload` is any load generator with the options used below that prints p50_us, p99_us and p999_us. It stands for clients on
other hosts, so it is scheduled before everything else. The server writes to --data (default: a new folder under /var/tmp,
which should be on the disk that matters). For each load and each neighbour (none; as many loops as there are cores; two
that sync large writes to the same disk; both; and one that takes and gives back most of the memory that they have together)
a round goes through all settings, in another order each time, with a plain run between every few of them, so that what
drifts hits all alike. The table has the median of the plain runs and of each setting's, and `*` where at least nine in ten
pairs of a run with the setting and a plain one are better (`!`: worse).

Server and neighbours share one control group, as services of systemd do of which none has a CPUWeight=; the setting of that
name puts each into its own. Everything is put back at the end.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/clients"))

from server import REPOSITORY, Server  # noqa: E402

LOADS = {"1 client": ["-c", "1", "-w", "1"], "8 clients": ["-c", "8", "-w", "1"]}
FIGURES = ["p50_us", "p99_us", "p999_us"]
PLAIN = "plain"
PLAIN_EVERY = 5  # settings between two plain runs
BETTER = 0.9  # of the pairs
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}[os.uname().machine]
BEST_EFFORT, REALTIME = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Left(Exception):
    """A setting that this machine does not have."""


# -- settings: each is entered before a run and left behind it, and gives the server to load

def threads(pid, names=None):
    """The ids of the server's threads, of all or of those with these names."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if names is None or (task / "comm").read_text().strip() in names:
            yield int(task.name)


@contextlib.contextmanager
def niceness(bench, value, names=None):
    before = {tid: os.getpriority(os.PRIO_PROCESS, tid) for tid in threads(bench.server.process.pid, names)}
    for tid in before:
        os.setpriority(os.PRIO_PROCESS, tid, value)
    yield bench.server
    for tid, old in before.items():
        os.setpriority(os.PRIO_PROCESS, tid, old)


@contextlib.contextmanager
def realtime(bench, names=None):
    tids = list(threads(bench.server.process.pid, names))
    for tid in tids:
        try:
            os.sched_setscheduler(tid, os.SCHED_RR, os.sched_param(1))
        except PermissionError as error:
            raise Left(f"no realtime scheduling here: {error}") from None
    yield bench.server
    for tid in tids:
        os.sched_setscheduler(tid, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def usual_turns(bench):
    """Without what the server does for itself on Linux 6.12 and later, `sys/priority`."""
    tids = list(threads(bench.server.process.pid, {"poller", "pipeline", "txnlog", "log-ahead"}))
    for tid in tids:
        take_turns(tid, 0)
    yield bench.server
    for tid in tids:
        take_turns(tid, 100_000)


def take_turns(tid, ns):
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, 0, 0, ns, 0, 0)
    if _libc.syscall(SCHED_SETATTR, tid, attributes, 0) != 0:
        raise Left(f"sched_setattr: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def io_class(bench, kind, level, names=None):
    tids = list(threads(bench.server.process.pid, names))
    for tid in tids:
        if _libc.syscall(IOPRIO_SET, 1, tid, kind << 13 | level) != 0:
            raise Left(f"ioprio_set: {os.strerror(ctypes.get_errno())}")
    yield bench.server
    for tid in tids:
        _libc.syscall(IOPRIO_SET, 1, tid, 0)


@contextlib.contextmanager
def timer_slack(bench, ns):
    files = [pathlib.Path(f"/proc/{tid}/timerslack_ns") for tid in threads(bench.server.process.pid)]
    before = [file.read_text() for file in files]
    for file in files:
        file.write_text(str(ns))
    yield bench.server
    for file, old in zip(files, before):
        file.write_text(old)


@contextlib.contextmanager
def of_the_host(bench, *settings):
    """By the script that a host would use, with the server's own configuration."""
    script = REPOSITORY / "scripts/tune-host"
    environment = {**os.environ, "ZOOCFG": str(bench.server.directory / "zoo.cfg"),
                   "RUNTIME_DIRECTORY": str(bench.server.directory / "tuning")}
    done = subprocess.run([script, *settings], env=environment, capture_output=True, text=True)
    try:
        if done.returncode or not (bench.server.directory / "tuning/old").exists():
            raise Left((done.stderr or done.stdout).strip().splitlines()[-1])
        yield bench.server
    finally:
        subprocess.run([script, "--undo"], env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def weight(bench, value):
    bench.groups.part(value)
    yield bench.server
    bench.groups.join()


@contextlib.contextmanager
def memory_locked(bench):
    """Another server, which called mlockall() before its first line."""
    yield bench.locked


SETTINGS = {
    "nice": ("Nice=-10", lambda bench: niceness(bench, -10)),
    "nice-hot": ("nice -10, poller, pipeline and txnlog only",
                 lambda bench: niceness(bench, -10, {"poller", "pipeline", "txnlog"})),
    "usual-turns": ("usual turns instead of short ones", usual_turns),
    "rr": ("CPUSchedulingPolicy=rr", realtime),
    "rr-poller": ("SCHED_RR, poller only", lambda bench: realtime(bench, {"poller"})),
    "rr-pipeline": ("SCHED_RR, pipeline only", lambda bench: realtime(bench, {"pipeline"})),
    "rr-txnlog": ("SCHED_RR, txnlog only", lambda bench: realtime(bench, {"txnlog"})),
    "weight": ("CPUWeight=1000", lambda bench: weight(bench, 1000)),
    "io-best": ("IOSchedulingPriority=0", lambda bench: io_class(bench, BEST_EFFORT, 0)),
    "io-rt": ("IOSchedulingClass=realtime", lambda bench: io_class(bench, REALTIME, 0)),
    "io-rt-log": ("I/O class realtime, txnlog only", lambda bench: io_class(bench, REALTIME, 0, {"txnlog"})),
    "slack": ("TimerSlackNSec=1", lambda bench: timer_slack(bench, 1)),
    "mlock": ("memory locked", memory_locked),
    "thp-always": ("huge pages: always", lambda bench: of_the_host(bench, "thp=always")),
    "thp-madvise": ("huge pages: madvise", lambda bench: of_the_host(bench, "thp=madvise")),
    "thp-never": ("huge pages: never", lambda bench: of_the_host(bench, "thp=never")),
    "swappiness": ("swappiness 1", lambda bench: of_the_host(bench, "swappiness=1")),
    "writeback": ("write-back from 16 MB, at most 256 MB",
                  lambda bench: of_the_host(bench, "dirty_background_mb=16", "dirty_mb=256")),
    "scheduler-none": ("disk scheduler none", lambda bench: of_the_host(bench, "scheduler=none")),
    "scheduler-deadline": ("disk scheduler mq-deadline", lambda bench: of_the_host(bench, "scheduler=mq-deadline")),
    "scheduler-kyber": ("disk scheduler kyber", lambda bench: of_the_host(bench, "scheduler=kyber")),
    "scheduler-bfq": ("disk scheduler bfq", lambda bench: of_the_host(bench, "scheduler=bfq")),
}


# -- neighbours

BUSY = "while True: sum(range(100000))"
SYNCING = """
import os, sys
block = os.urandom(1 << 20)
while True:
    with open(sys.argv[1], "wb") as file:
        for _ in range(256):
            file.write(block)
            file.flush()
            os.fdatasync(file.fileno())
"""
GREEDY = """
while True:
    taken = bytearray(200 << 20)
    for at in range(0, len(taken), 4096): taken[at] = 1
    del taken
"""
TIGHT_MB = 420  # with what the second server locks, hardly more than both sides need
NEIGHBOURS = {
    "none": [],
    "cpu": [BUSY] * os.cpu_count(),
    "disk": [SYNCING] * 2,
    "both": [BUSY] * os.cpu_count() + [SYNCING] * 2,
    "memory": [GREEDY],
}


class Groups:
    """The control groups: one for all, one each for the server and its neighbours; of either version."""

    def __init__(self):
        root = pathlib.Path("/sys/fs/cgroup")
        self.v2 = (root / "cgroup.controllers").exists()
        self.cpu = (root if self.v2 else root / "cpu") / "rookeeper-tuning"
        self.memory = self.cpu if self.v2 else root / "memory/rookeeper-tuning"
        self.pids = {"server": [], "neighbours": []}
        for group in {self.cpu, self.memory}:
            group.mkdir(exist_ok=True)
        if self.v2:
            for group in (root, self.cpu):
                (group / "cgroup.subtree_control").write_text("+cpu +memory")
        for name in ("together", "server", "neighbours"):
            (self.cpu / name).mkdir(exist_ok=True)
        # Without a share of its own, nobody in a group of version 1 may be scheduled as realtime.
        for group in (self.cpu, self.cpu / "together"):
            with contextlib.suppress(OSError):
                (group / "cpu.rt_runtime_us").write_text("800000")

    def take(self, whose, pid):
        self.pids[whose].append(pid)
        if not self.v2:
            (self.memory / "cgroup.procs").write_text(str(pid))
        (self.cpu / "together/cgroup.procs").write_text(str(pid))

    def forget(self, whose):
        self.pids[whose].clear()

    def part(self, value):
        """Server and neighbours into groups of their own, with this weight (of systemd's scale) and the usual one."""
        if self.v2:
            (self.cpu / "server/cpu.weight").write_text(str(value))
        else:
            (self.cpu / "server/cpu.shares").write_text(str(value * 1024 // 100))
        for whose, pids in self.pids.items():
            for pid in pids:
                (self.cpu / whose / "cgroup.procs").write_text(str(pid))

    def join(self):
        for pids in self.pids.values():
            for pid in pids:
                (self.cpu / "together/cgroup.procs").write_text(str(pid))

    def limit_memory(self, megabytes):
        name, unlimited = ("memory.max", "max") if self.v2 else ("memory.limit_in_bytes", "-1")
        (self.memory / name).write_text(str(megabytes << 20) if megabytes else unlimited)

    def close(self):
        for group in [*self.cpu.iterdir(), self.cpu, self.memory]:
            with contextlib.suppress(OSError):
                group.rmdir()


LOCK_MEMORY = """
#include <sys/mman.h>
__attribute__((constructor)) static void lock(void) { mlockall(MCL_CURRENT | MCL_FUTURE); }
"""


class Bench:
    """The server that is measured, the one with locked memory, and the control groups they are in."""

    def __init__(self, folder):
        self.folder, self.groups = folder, Groups()
        source, library = folder / "lock.c", folder / "lock.so"
        source.write_text(LOCK_MEMORY)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        # The usual size of log files.
        self.server = Server("rookeeper", folder / "server", {"preAllocSize": 65536})
        self.locked = Server("rookeeper", folder / "locked", {"preAllocSize": 65536})
        self.locked.launcher = ["env", f"LD_PRELOAD={library}"]

    def start(self):
        for server in (self.server, self.locked):
            server.start()
            self.groups.take("server", server.process.pid)

    @contextlib.contextmanager
    def beside(self, kind):
        """With this neighbour."""
        running = [subprocess.Popen([sys.executable, "-c", program, str(self.folder / f"noise{n}")])
                   for n, program in enumerate(NEIGHBOURS[kind])]
        for one in running:
            self.groups.take("neighbours", one.pid)
        self.groups.limit_memory(TIGHT_MB if kind == "memory" else None)
        try:
            yield
        finally:
            gone = [one for one in running if one.poll() is not None]
            for one in running:
                one.kill()
                one.wait()
            self.groups.forget("neighbours")
            self.groups.limit_memory(None)
        if gone:
            raise SystemExit(f"the neighbour {kind} ended early: what was measured was without it")

    def close(self):
        self.server.kill()
        self.locked.kill()
        self.groups.close()


# -- measuring

def measure(chosen, server, load):
    done = subprocess.run(
        ["chrt", "--rr", "50", chosen.zkload, "-s", f"127.0.0.1:{server.port}", "-d", str(chosen.seconds), "-W", "0.5",
         "-m", "set", *LOADS[load]], capture_output=True, text=True)
    found = dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))
    if done.returncode or found.get("errors", "0") != "0":
        raise SystemExit(f"{load}: {done.stdout}{done.stderr}")
    return [float(found[figure]) for figure in FIGURES]


def plan(names, order):
    """A round: every setting in a new order, with plain runs among them."""
    shuffled = order.sample(names, len(names))
    for at, name in enumerate(shuffled):
        if at % PLAIN_EVERY == 0:
            yield PLAIN
        yield name


def rounds(chosen, bench, names, load, left_out):
    """The figures of all runs of each setting, and of the plain ones."""
    runs = {name: [] for name in [PLAIN, *names]}
    order = random.Random(chosen.rounds)
    for _ in range(chosen.rounds):
        for name in plan([name for name in names if name not in left_out], order):
            try:
                with SETTINGS[name][1](bench) if name != PLAIN else contextlib.nullcontext(bench.server) as server:
                    runs[name].append(measure(chosen, server, load))
            except Left as why:
                left_out[name] = str(why)
    return runs


def cell(plain, runs, index):
    before, after = [row[index] for row in plain], [row[index] for row in runs]
    pairs = [(with_it, without) for with_it in after for without in before]
    better = sum(with_it < without for with_it, without in pairs) / len(pairs)
    worse = sum(with_it > without for with_it, without in pairs) / len(pairs)
    mark = " *" if better >= BETTER else " !" if worse >= BETTER else ""
    return f"{statistics.median(after):.0f}{mark}"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--zkload", required=True)
    options.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/var/tmp"))
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", default=",".join(SETTINGS), help=f"of {','.join(SETTINGS)}")
    options.add_argument("--noise", default=",".join(NEIGHBOURS), help=f"of {','.join(NEIGHBOURS)}")
    options.add_argument("--load", default="1 client", help=f"of {','.join(LOADS)}")
    chosen = options.parse_args()
    # Everything is put back at the end, also at an early one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))
    if os.geteuid() != 0:
        raise SystemExit("this changes priorities and settings of the host: run it as root")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rookeeper-tuning-", dir=chosen.data))
    left_out = {}
    bench = Bench(folder)
    try:
        bench.start()
        for load in chosen.load.split(","):
            for kind in chosen.noise.split(","):
                with bench.beside(kind):
                    # What the first run meets is not what the others do.
                    for server in (bench.server, bench.locked):
                        measure(chosen, server, load)
                    runs = rounds(chosen, bench, chosen.only.split(","), load, left_out)
                print(f"\n{load}, neighbour: {kind}\n\n| setting | p50 µs | p99 µs | p99.9 µs |\n| --- | --- | --- | --- |")
                for name, figures in runs.items():
                    if name not in left_out:
                        title = SETTINGS[name][0] if name != PLAIN else "without"
                        cells = " | ".join(cell(runs[PLAIN], figures, index) for index in range(len(FIGURES)))
                        print(f"| {title} | {cells} |", flush=True)
        for name, why in left_out.items():
            print(f"\nleft out: {SETTINGS[name][0]}: {why}")
    finally:
        bench.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
