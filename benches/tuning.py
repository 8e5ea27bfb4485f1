#!/usr/bin/env python3
"""What each candidate setting of the host or the service does to the latency of writes: a table for the docs.

    cc -O2 -o zkload zkload.c
    sudo .venv/bin/python benches/tuning.py --zkload ./zkload [--seconds 8] [--rounds 5] [--only nice,scheduler] [--noise cpu]

`zkload` is any load generator with the options used below that prints p50_us, p99_us and p999_us. One server runs all
along on the folder --data (default: a new one under /var/tmp, which should be on the disk that matters). For each neighbour
(none, one that wants every core, one that syncs large writes to the same disk, both) and each candidate the load runs
without and with the setting in turns, so that what drifts hits both alike; the table shows the medians of the rounds, and
`*` where every round with the setting was better (or `!`: worse) than every round without. Server and neighbour are in
control groups of their own with equal weights, as two services of systemd are. Everything is put back at the end.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/clients"))

from server import REPOSITORY, Server  # noqa: E402

LOADS = {"1 client": ["-c", "1", "-w", "1"], "8 clients": ["-c", "8", "-w", "1"]}
FIGURES = ["p50_us", "p99_us", "p999_us"]
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
IDLE_CLASS, BEST_EFFORT, REALTIME = 3, 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Left(Exception):
    """A candidate that this machine does not have."""


# -- candidates: each is entered before a round "with" and left behind it

def threads(pid, names=None):
    """The ids of the server's threads, of all or of those with these names."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if names is None or (task / "comm").read_text().strip() in names:
            yield int(task.name)


@contextlib.contextmanager
def niceness(server, value, names=None):
    before = {tid: os.getpriority(os.PRIO_PROCESS, tid) for tid in threads(server.process.pid, names)}
    for tid in before:
        os.setpriority(os.PRIO_PROCESS, tid, value)
    yield
    for tid, old in before.items():
        os.setpriority(os.PRIO_PROCESS, tid, old)


@contextlib.contextmanager
def realtime(server, names=None):
    tids = list(threads(server.process.pid, names))
    for tid in tids:
        try:
            os.sched_setscheduler(tid, os.SCHED_RR, os.sched_param(1))
        except PermissionError as error:
            raise Left(f"no realtime scheduling here: {error}") from None
    yield
    for tid in tids:
        os.sched_setscheduler(tid, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def io_class(server, kind, level, names=None):
    tids = list(threads(server.process.pid, names))
    for tid in tids:
        if _libc.syscall(IOPRIO_SET, 1, tid, kind << 13 | level) != 0:
            raise Left(f"ioprio_set: {os.strerror(ctypes.get_errno())}")
    yield
    for tid in tids:
        _libc.syscall(IOPRIO_SET, 1, tid, 0)


@contextlib.contextmanager
def timer_slack(server, ns):
    files = [pathlib.Path(f"/proc/{tid}/timerslack_ns") for tid in threads(server.process.pid)]
    before = [file.read_text() for file in files]
    for file in files:
        file.write_text(str(ns))
    yield
    for file, old in zip(files, before):
        file.write_text(old)


@contextlib.contextmanager
def of_the_host(server, *settings):
    """By the script that a host would use, with the server's own configuration."""
    script = REPOSITORY / "scripts/tune-host"
    environment = {**os.environ, "ZOOCFG": str(server.directory / "zoo.cfg"),
                   "RUNTIME_DIRECTORY": str(server.directory / "tuning")}
    done = subprocess.run([script, *settings], env=environment, capture_output=True, text=True)
    try:
        if done.returncode or not (server.directory / "tuning/old").exists():
            raise Left((done.stderr or done.stdout).strip())
        yield
    finally:
        subprocess.run([script, "--undo"], env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def weight(server, value):
    server.group.weigh(value)
    yield
    server.group.weigh(100)


@contextlib.contextmanager
def memory_kept(server):
    """What MemoryMin= does: the kernel takes no memory of the server for others."""
    server.group.keep_memory("2G")
    yield
    server.group.keep_memory("0")


CANDIDATES = {
    "nice": ("Nice=-10", lambda server: niceness(server, -10)),
    "nice-hot": ("nice -10, poller, pipeline and txnlog only",
                 lambda server: niceness(server, -10, {"poller", "pipeline", "txnlog"})),
    "rr": ("CPUSchedulingPolicy=rr", realtime),
    "rr-poller": ("SCHED_RR, poller only", lambda server: realtime(server, {"poller"})),
    "rr-pipeline": ("SCHED_RR, pipeline only", lambda server: realtime(server, {"pipeline"})),
    "rr-txnlog": ("SCHED_RR, txnlog only", lambda server: realtime(server, {"txnlog"})),
    "weight": ("CPUWeight=1000", lambda server: weight(server, 1000)),
    "io-best": ("IOSchedulingPriority=0", lambda server: io_class(server, BEST_EFFORT, 0)),
    "io-rt": ("IOSchedulingClass=realtime", lambda server: io_class(server, REALTIME, 0)),
    "io-rt-log": ("I/O class realtime, txnlog only", lambda server: io_class(server, REALTIME, 0, {"txnlog"})),
    "io-idle-snapshot": ("I/O class idle, snapshot only", lambda server: io_class(server, IDLE_CLASS, 0, {"snapshot"})),
    "slack": ("TimerSlackNSec=1", lambda server: timer_slack(server, 1)),
    "memory": ("MemoryMin=2G", memory_kept),
    "thp-madvise": ("huge pages: madvise", lambda server: of_the_host(server, "thp=madvise")),
    "thp-never": ("huge pages: never", lambda server: of_the_host(server, "thp=never")),
    "swappiness": ("swappiness 1", lambda server: of_the_host(server, "swappiness=1")),
    "writeback": ("write-back from 16 MB, at most 256 MB",
                  lambda server: of_the_host(server, "dirty_background_mb=16", "dirty_mb=256")),
    "scheduler-none": ("disk scheduler none", lambda server: of_the_host(server, "scheduler=none")),
    "scheduler-deadline": ("disk scheduler mq-deadline", lambda server: of_the_host(server, "scheduler=mq-deadline")),
    "scheduler-kyber": ("disk scheduler kyber", lambda server: of_the_host(server, "scheduler=kyber")),
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
NEIGHBOURS = {"none": (0, 0), "cpu": (os.cpu_count(), 0), "disk": (0, 2), "both": (os.cpu_count(), 2)}


class Group:
    """A control group under either version, as far as this machine has them; without, weights are left out."""

    def __init__(self, name):
        v2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        self.v2 = v2
        self.path = pathlib.Path("/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/cpu") / f"rookeeper-{name}"
        if v2:
            with contextlib.suppress(OSError):
                (self.path.parent / "cgroup.subtree_control").write_text("+cpu +io +memory")
        self.path.mkdir(exist_ok=True)
        if not v2:
            # Without a share of its own, nobody in it may be scheduled as realtime.
            with contextlib.suppress(OSError):
                (self.path / "cpu.rt_runtime_us").write_text("400000")

    def take(self, pid):
        (self.path / "cgroup.procs").write_text(str(pid))

    def weigh(self, value):
        try:
            if self.v2:
                (self.path / "cpu.weight").write_text(str(value))
            else:
                (self.path / "cpu.shares").write_text(str(value * 1024 // 100))
        except OSError as error:
            raise Left(str(error)) from None

    def keep_memory(self, size):
        if not self.v2:
            raise Left("needs control groups of version 2")
        (self.path / "memory.min").write_text(size)

    def close(self):
        with contextlib.suppress(OSError):
            self.path.rmdir()


@contextlib.contextmanager
def neighbour(kind, folder, group):
    busy, syncing = NEIGHBOURS[kind]
    commands = [[sys.executable, "-c", BUSY]] * busy
    commands += [[sys.executable, "-c", SYNCING, str(folder / f"noise{n}")] for n in range(syncing)]
    running = [subprocess.Popen(command) for command in commands]
    for one in running:
        group.take(one.pid)
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


# -- measuring

def measure(zkload, server, seconds, options):
    done = subprocess.run([zkload, "-s", f"127.0.0.1:{server.port}", "-d", str(seconds), "-W", "1", "-m", "set", *options],
                          capture_output=True, text=True)
    found = dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))
    if done.returncode or found.get("errors", "0") != "0":
        raise SystemExit(f"{options}: {done.stdout}{done.stderr}")
    return [float(found[figure]) for figure in FIGURES]


def compare(chosen, server, setting, options):
    """Rounds without and with, in turns."""
    without, with_it = [], []
    for turn in range(chosen.rounds):
        for is_on in (False, True) if turn % 2 == 0 else (True, False):
            with setting(server) if is_on else contextlib.nullcontext():
                (with_it if is_on else without).append(measure(chosen.zkload, server, chosen.seconds, options))
    return without, with_it


def cell(without, with_it, index):
    before, after = [row[index] for row in without], [row[index] for row in with_it]
    mark = " *" if max(after) < min(before) else " !" if min(after) > max(before) else ""
    return f"{statistics.median(before):.0f} → {statistics.median(after):.0f}{mark}"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--zkload", required=True)
    options.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/var/tmp"))
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", help=f"of {','.join(CANDIDATES)}")
    options.add_argument("--noise", help=f"of {','.join(NEIGHBOURS)}")
    chosen = options.parse_args()
    # Everything is put back at the end, also at an early one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))
    if os.geteuid() != 0:
        raise SystemExit("this changes priorities and settings of the host: run it as root")
    wanted = chosen.only.split(",") if chosen.only else list(CANDIDATES)
    kinds = chosen.noise.split(",") if chosen.noise else list(NEIGHBOURS)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rookeeper-tuning-", dir=chosen.data))
    groups = [Group("server"), Group("neighbour")]
    server = Server("rookeeper", folder / "server", {"preAllocSize": 65536})
    server.group = groups[0]
    try:
        server.start()
        groups[0].take(server.process.pid)
        measure(chosen.zkload, server, chosen.seconds, LOADS["8 clients"])
        print("| setting | load | neighbour | p50 µs | p99 µs | p99.9 µs |\n| --- | --- | --- | --- | --- | --- |")
        for name in wanted:
            title, setting = CANDIDATES[name]
            try:
                for kind in kinds:
                    with neighbour(kind, folder, groups[1]):
                        for load, arguments in LOADS.items():
                            rows = compare(chosen, server, setting, arguments)
                            cells = " | ".join(cell(*rows, index) for index in range(len(FIGURES)))
                            print(f"| {title} | {load} | {kind} | {cells} |", flush=True)
            except Left as why:
                print(f"| {title} | – | – | left out: {why} | | |", flush=True)
    finally:
        server.kill()
        for group in groups:
            group.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
