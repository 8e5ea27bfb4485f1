"""Hosts: systemd machines on this one, each booted by systemd-nspawn over an overlay of this machine's own root, on the
cables of `wires.py`. What is written there is gone when they are closed; the data folder survives a reboot, as a disk does.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import wires
from ensemble import Member
from server import REPOSITORY, program, wait_until

BOOT_DEADLINE_S = 60
DATA_MB = 160
# What a machine of the test has no use for, or what would want the real hardware.
MASKED = ["systemd-udevd", "systemd-timesyncd", "systemd-resolved", "systemd-networkd", "systemd-logind", "getty@tty1",
          "console-getty", "e2scrub_reap", "systemd-pstore", "avahi-daemon", "postgresql", "systemd-udev-trigger"]


def why_not():
    """Why there can be no such hosts here, or None."""
    if reason := wires.why_not():
        return reason
    for program, package in [("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"), ("dpkg-deb", "dpkg")]:
        if not shutil.which(program):
            return f"no {program} (Debian: {package}); run `make test-deps` as root"
    return None


def package(version, folder):
    """Our Debian package, made in the folder."""
    made = subprocess.run([REPOSITORY / "scripts/deb", program(), folder], env={**os.environ, "VERSION": version},
                          check=True, capture_output=True, text=True)
    return pathlib.Path(made.stdout.strip())


class Host(Member):
    """One machine, and the server on it as clients see it. `boot` and `power_off` are its switch."""

    def __init__(self, sid, name, cables, base):
        self.base = base / name
        super().__init__(sid, "rookeeper", self.base, cables.address(sid), cables.names[sid], heap_mb=0)
        self.name, self.port = name, 2181
        self.root, self.disk = self.base / "root", self.base / "disk"
        self.nspawn = None
        self.mounts = []
        self._mount("tmpfs", self.base / "layers", "size=2g")
        for folder in ("upper", "work"):
            (self.base / "layers" / folder).mkdir()
        layers = self.base / "layers"
        self._mount("overlay", self.root, f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work")
        self._mount("tmpfs", self.disk, f"size={DATA_MB}m")

    def __repr__(self):
        return f"<{self.name}>"

    def _mount(self, kind, where, options):
        where.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", kind, kind, "-o", options, where], check=True)
        self.mounts.append(where)

    # -- the machine

    def furnish(self, hosts):
        """Names, and nothing started that the test does not need."""
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{self.name}\n")
        # The own name as Debian's installer writes it.
        names = "".join(f"{'127.0.1.1' if host is self else host.host} {host.name}\n" for host in hosts)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (etc / "machine-id").write_text("")
        for wants in (etc / "systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        for unit in MASKED:
            link = etc / f"systemd/system/{unit}.service"
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        # Rebuilding the index of all man pages takes longer than everything else.
        (self.root / "var/lib/man-db/auto-update").unlink(missing_ok=True)

    def boot(self):
        with open(self.base / "console.log", "ab") as console:
            self.nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", f"--machine={self.name}",
                 f"--network-namespace-path=/run/netns/{self.namespace}", "--register=no", "--keep-unit",
                 "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only",
                 f"--bind={self.disk}:/var/lib/rookeeper", "--", "--unit=multi-user.target"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        wait_until(self._is_up, f"{self.name} boots, see {self.base}/console.log", BOOT_DEADLINE_S)
        return self

    def _is_up(self):
        assert self.nspawn.poll() is None, (self.base / "console.log").read_text(errors="replace")[-2000:]
        try:
            state = self.run("systemctl is-system-running", check=False)
        except OSError:
            return False
        # A service that waits for a quorum keeps a machine in `starting`.
        return state in ("running", "degraded", "starting")

    def init_pid(self):
        """The machine's first process, as this machine numbers it."""
        children = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        if not children:
            raise ProcessLookupError(f"{self.name} has no first process")
        return int(children[0])

    def run(self, command, check=True, stdin=None):
        """A shell command on the machine; its output."""
        done = subprocess.run(["nsenter", "-t", str(self.init_pid()), "-a", "--", "sh", "-c", command],
                              input=stdin, capture_output=True, text=True, timeout=100)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {command!r} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def power_off(self):
        """As by its plug: nothing on it gets to say goodbye."""
        with contextlib.suppress(OSError):
            os.kill(self.init_pid(), signal.SIGKILL)
        self.nspawn.wait(30)

    def close(self):
        if self.nspawn and self.nspawn.poll() is None:
            self.power_off()
        for where in reversed(self.mounts):
            subprocess.run(["umount", "--lazy", where], check=False)

    # -- the service

    def running(self):
        """The machine is on; systemd may be about to restart the server."""
        return self.nspawn is not None and self.nspawn.poll() is None

    def unit(self, *names, unit="rookeeper"):
        """Properties of the service, in this order."""
        shown = dict(line.split("=", 1) for line in self.run(f"systemctl show {unit} -p " + ",".join(names)).splitlines())
        return {name: shown[name] for name in names}

    def log_tail(self, lines=40):
        with contextlib.suppress(OSError, AssertionError, subprocess.TimeoutExpired):
            return f"--- journal of {self.name}\n" + self.run(f"journalctl -u rookeeper -n {lines} --no-pager", check=False)
        return f"--- {self.name} is off"


class Hosts:
    """As many machines as there are names, wired together."""

    def __init__(self, names, prepare):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="rk-hosts-"))
        numbers = range(1, len(names) + 1)
        self.cables = None
        self.hosts = []
        try:
            self.cables = wires.Wires(numbers)
            for sid, name in zip(numbers, names):
                self.hosts.append(Host(sid, name, self.cables, self.base))
            for host in self.hosts:
                host.furnish(self.hosts)
                prepare(host)
                host.boot()
        except BaseException:
            self.close()
            raise

    def __iter__(self):
        return iter(self.hosts)

    def shell(self):
        """A command that does what ssh does: `COMMAND HOST SCRIPT`."""
        path = self.base / "ssh"
        pids = " ".join(f"{host.name}) pid={host.init_pid()} ;;" for host in self.hosts)
        path.write_text(f'#!/bin/sh\ncase $1 in {pids} esac\nshift\nexec nsenter -t "$pid" -a -- sh -c "$*"\n')
        path.chmod(0o755)
        return path

    def close(self):
        for host in self.hosts:
            host.close()
        if self.cables:
            self.cables.close()
        shutil.rmtree(self.base, ignore_errors=True)
