#!/usr/bin/env python3
"""Three of Apache's servers beside three of ours, on this machine, in one run: a table of what clients notice.

    cc -O2 -o zkload zkload.c
    .venv/bin/python benches/ensemble.py --zkload ./zkload [--seconds 5] [--rounds 3] [--only rookeeper]

`zkload` is any load generator with the options used below that prints `ops_s=…` and `p50_us=…`. The ensembles run one
after the other, never both at once, and each round starts from an empty disk; the table shows the median of the rounds. The
time without service is that from kill -9 of the leader to the next acknowledged write, tried every 2 ms on the others.
"""

import argparse
import contextlib
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/clients"))

from ensemble import Ensemble  # noqa: E402
from rawzk import Closed, Err, Raw  # noqa: E402
from server import wait_until  # noqa: E402

CONFIG = {"tickTime": 2000, "initLimit": 10, "syncLimit": 5, "preAllocSize": 65536}
LOADS = {
    "set 1 x 1": ["-m", "set", "-c", "1", "-w", "1"],
    "set 32 x 32": ["-m", "set", "-c", "32", "-w", "32"],
    "mix (90% get) 32 x 4": ["-m", "mix", "-r", "90", "-c", "32", "-w", "4"],
}


def load(zkload, ensemble, seconds, options):
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in ensemble)
    done = subprocess.run([zkload, "-s", hosts, "-d", str(seconds), "-W", "2", *options], capture_output=True, text=True)
    found = dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))
    if done.returncode or found.get("errors") != "0":
        raise SystemExit(f"{options}: {done.stdout}{done.stderr}")
    return float(found["ops_s"]), float(found["p50_us"])


def try_to_write(port, path):
    with contextlib.suppress(Closed, OSError, AssertionError):
        with contextlib.closing(Raw(port, timeout_s=0.25)) as zk:
            zk.handshake(timeout_ms=6000)
            return bool(zk.session) and zk.create(path).err == Err.OK
    return False


def fail_over(ensemble, kills=5):
    """The gaps in milliseconds; ends the run if an acknowledged write is lost."""
    gaps, acknowledged = [], []
    for turn in range(kills):
        leader = ensemble.wait_serving(list(ensemble))
        survivors = ensemble.others(leader)
        path = f"/before-{turn}"
        wait_until(lambda: try_to_write(survivors[0].port, path), "a write before the kill")
        acknowledged.append(path)
        leader.kill()
        begin, tries = time.monotonic(), 0
        while True:
            tries += 1
            path = f"/after-{turn}-{tries}"
            if try_to_write(survivors[tries % 2].port, path):
                break
            if tries % 2 == 0:
                time.sleep(0.002)
        gaps.append((time.monotonic() - begin) * 1000)
        acknowledged.append(path)
        leader.start()
    for one in ensemble:
        tree = one.tree()
        if lost := [path for path in acknowledged if path not in tree]:
            raise SystemExit(f"lost on {one!r}: {lost}")
    return gaps


def measure(kind, zkload, seconds):
    with tempfile.TemporaryDirectory() as folder:
        ensemble = Ensemble(pathlib.Path(folder), [kind] * 3, config=CONFIG, heap_mb=1024)
        try:
            ensemble.start(leader=3)
            time.sleep(2)
            figures = {"idle: resident MB of each server": max(one.resident_kib() for one in ensemble) / 1024}
            for name, options in LOADS.items():
                per_s, p50_us = load(zkload, ensemble, seconds, options)
                figures |= {f"{name}: ops/s": per_s, f"{name}: p50 us": p50_us}
            figures["kill -9 of the leader: ms without writes"] = statistics.median(fail_over(ensemble))
            return figures
        finally:
            ensemble.close()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--zkload", required=True)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", choices=["apache", "rookeeper"])
    chosen = options.parse_args()
    kinds = [chosen.only] if chosen.only else ["apache", "rookeeper"]
    rounds = {kind: [] for kind in kinds}
    for _ in range(chosen.rounds):
        for kind in kinds:
            rounds[kind].append(measure(kind, chosen.zkload, chosen.seconds))
    print(f"{'':42}" + "".join(f"{kind:>12}" for kind in kinds) + ("       ratio" if len(kinds) == 2 else ""))
    for name in rounds[kinds[0]][0]:
        medians = [statistics.median(figures[name] for figures in rounds[kind]) for kind in kinds]
        ratio = f"{medians[1] / medians[0]:12.2f}" if len(kinds) == 2 else ""
        print(f"{name:42}" + "".join(f"{value:12.1f}" for value in medians) + ratio)


if __name__ == "__main__":
    main()
