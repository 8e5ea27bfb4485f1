"""A ZooKeeper server under test: Apache's or ours, behind one class.

Each server has its own directory, its own free port and its own log file, and is ended by its own pid.
Tests get servers from the fixtures in conftest.py and never start one themselves.
"""

import glob
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
JARS = "/usr/share/java"
START_DEADLINE_S = 60

# The password of the super user is "test" (the value kazoo's own harness uses).
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="

BASE_CONFIG = {
    "tickTime": 2000,
    "maxClientCnxns": 0,
    "preAllocSize": 4096,
    "admin.enableServer": "false",
}

# What Debian installs beside a JRE; a missing optional jar is no reason to stop.
JAR_PATTERNS = [
    "zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-simple.jar", "netty-*[a-z].jar",
    "commons-cli.jar", "commons-io.jar", "jline*.jar", "snappy-java.jar", "metrics-core.jar",
    # The admin server's.
    "jackson-*[a-z].jar", "jetty9-http.jar", "jetty9-io.jar", "jetty9-security.jar", "jetty9-server.jar", "jetty9-servlet.jar",
    "jetty9-util.jar", "jetty9-util-ajax.jar", "servlet-api.jar",
]


def program():
    """Our own: the release build, or what the environment variable ROOKEEPER names."""
    return pathlib.Path(os.environ.get("ROOKEEPER", REPOSITORY / "target/release/rookeeper")).resolve()


def java_class_path():
    found = [jar for pattern in JAR_PATTERNS for jar in sorted(glob.glob(f"{JARS}/{pattern}"))]
    return ":".join(found)


def wait_until(condition, what, deadline_s=20.0):
    """Polls until `condition()` is true and returns its value; fails with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"within {deadline_s} s this did not happen: {what}")
        time.sleep(0.01)


GIVEN_PORTS = set()


def free_port():
    """A port below the kernel's ephemeral range, so that no outgoing connection can sit on it meanwhile; never one twice."""
    while True:
        port = random.SystemRandom().randrange(12000, 30000)
        if port in GIVEN_PORTS:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            GIVEN_PORTS.add(port)
            return port


def four_letter_word(port, word, timeout_s=10.0, host="127.0.0.1"):
    """Sends one word and returns everything up to the server's close."""
    with socket.create_connection((host, port), timeout=timeout_s) as sock:
        sock.sendall(word if isinstance(word, bytes) else word.encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer.decode()


@dataclass
class Exit:
    """How a server ended: its exit code (negative: the signal) and how long it took to."""

    code: int
    seconds: float


class Server:
    """One server process with its configuration, data directory and log; start it as often as you like."""

    java_options = ["-Xmx512m"]
    keeps_config = False  # the server may change its configuration file, which is written once then
    launcher = []  # what stands before the command, as `ip netns exec NAME`

    def __init__(self, kind, directory, config=None, properties=None):
        self.kind = kind
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.data_dir = self.directory / "data"
        self.properties = dict(properties or {})
        self.config = {**BASE_CONFIG, "dataDir": self.data_dir, "clientPort": self.port, **(config or {})}
        self.log_path = self.directory / "server.log"
        self.process = None

    def __repr__(self):
        return f"<{self.kind} on {self.port}>"

    # -- process

    def command(self):
        """The command line, with the configuration file written beside it."""
        config_path = self.directory / "zoo.cfg"
        lines = [f"{key}={value}" for key, value in self.config.items() if value is not None]
        if not (self.keeps_config and config_path.exists()):
            config_path.write_text("\n".join(lines) + "\n")
        properties = [f"-D{name}={value}" for name, value in self.properties.items()]
        if self.kind == "rookeeper":
            return [*self.launcher, str(program()), "run", *properties, str(config_path)]
        # The digest of a path depends on the JVM's charset: without UTF-8 no other server would compute the same.
        return [
            *self.launcher, "java", *self.java_options, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-Dfile.encoding=UTF-8", "-cp", java_class_path(), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *properties,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config_path),
        ]

    def spawn(self):
        """Starts the process without waiting for it to serve."""
        assert not self.running(), "already running"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return self

    def start(self):
        """Starts the process and waits until it serves."""
        self.spawn()
        wait_until(self._serving_or_dead, f"{self!r} serves\n{self.log_tail()}", START_DEADLINE_S)
        return self

    def _serving_or_dead(self):
        if not self.running():
            raise AssertionError(f"{self!r} ended with {self.process.returncode}\n{self.log_tail()}")
        try:
            return "Mode:" in four_letter_word(self.port, "srvr", timeout_s=2)
        except OSError:
            return False

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait_exit(self, deadline_s=20.0):
        """Waits for the process to end by itself."""
        begin = time.monotonic()
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} still runs after {deadline_s} s\n{self.log_tail()}") from None
        return Exit(code, time.monotonic() - begin)

    def terminate(self, deadline_s=20.0):
        """The orderly stop."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit(deadline_s)

    def kill(self):
        """kill -9."""
        if self.running():
            self.process.kill()
            self.process.wait()

    def restart(self):
        """kill -9 and start again on the same directory and port."""
        self.kill()
        return self.start()

    def log_tail(self, lines=40):
        if not self.log_path.exists():
            return "(no output)"
        # Of a Java exception, not where it came through.
        told = [line for line in self.log_path.read_text(errors="replace").splitlines() if not line.startswith("\tat ")]
        state = "runs" if self.running() else "not started" if self.process is None else f"ended {self.process.returncode}"
        return f"--- output of {self!r}, {state}\n" + "\n".join(told[-lines:])

    # -- what it says

    def four(self, word, **options):
        return four_letter_word(self.port, word, **options)

    def monitored(self):
        """mntr as a dictionary of strings, without the zk_ prefix."""
        pairs = (line.split("\t", 1) for line in self.four("mntr").splitlines())
        return {key.removeprefix("zk_"): value for key, value in pairs}

    def last_zxid(self):
        return int(re.search(r"^Zxid: 0x([0-9a-f]+)$", self.four("srvr"), re.M).group(1), 16)

    def resident_kib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
