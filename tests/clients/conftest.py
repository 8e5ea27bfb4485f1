"""Servers and connections for the tests.

`--server=apache` runs everything against Apache's server, which is the reference; the default is our own. Three ways
to get a server: `server` (shared, every feature switched on), `defaults` (shared, nothing switched on) and
`start_server(...)` (own process and directory for one test).
"""

import itertools
import os
import pathlib
import shutil
import subprocess
import tempfile
import types

import pytest

import wires
from ensemble import Ensemble
from kazoo_clients import Kazoos
from rawzk import Closed, Op, Raw
from server import SUPER_DIGEST, Server, java_class_path, program

FULL_CONFIG = {
    "tickTime": 200,
    "maxSessionTimeout": 60000,
    "4lw.commands.whitelist": "*",
    "extendedTypesEnabled": "true",
    "enforceQuota": "true",
    "reconfigEnabled": "true",
    "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
}
FULL_PROPERTIES = {"znode.container.checkIntervalMs": 100}


def pytest_addoption(parser):
    parser.addoption("--server", choices=["apache", "rookeeper"], default=os.environ.get("ZK_SERVER", "rookeeper"),
                     help="which server the tests run against (or environment ZK_SERVER)")
    parser.addoption("--write-kazoo-list", action="store_true", help="take what passes in kazoo's suite now for the measure")


def pytest_configure(config):
    for line in [
        "rookeeper_only(reason): Apache 3.8.0 behaves differently, and we follow a later release on purpose",
        "apache_only(reason): a statement about the reference server itself",
    ]:
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config, items):
    kind = config.getoption("--server")
    for item in items:
        for other in {"apache", "rookeeper"} - {kind}:
            if marker := item.get_closest_marker(f"{other}_only"):
                item.add_marker(pytest.mark.skip(reason=f"{other} only: {marker.args[0]}"))


# -- what the tests need from the machine

def _missing_for_apache():
    if not shutil.which("java"):
        return "no java; run `make test-deps` as root on Debian"
    if "zookeeper.jar" not in java_class_path():
        return "no Apache ZooKeeper jars (Debian: zookeeper, libzookeeper-java); run `make test-deps` as root"
    return None


@pytest.fixture(scope="session")
def apache_jars():
    """The class path of Debian's Apache ZooKeeper; skips the test where it is not installed."""
    if reason := _missing_for_apache():
        pytest.skip(reason)
    return java_class_path()


@pytest.fixture(scope="session")
def kind(request):
    chosen = request.config.getoption("--server")
    if chosen == "apache":
        request.getfixturevalue("apache_jars")
    elif not program().exists():
        pytest.exit(f"{program()} is missing: run `cargo build --release`", returncode=2)
    return chosen


# -- servers

STARTED = []


def _new_server(kind, directory, config=None, properties=None):
    server = Server(kind, directory, config, properties)
    STARTED.append(server)
    return server


class Shared:
    """A server that many tests use; one that died is replaced, so that it fails one test and not the rest."""

    def __init__(self, name, factory, kind, config, properties):
        self.name, self.factory, self.kind = name, factory, kind
        self.config, self.properties = config, properties
        self.current = None

    def get(self):
        if self.current is None or not self.current.running():
            directory = self.factory.mktemp(self.name)
            self.current = _new_server(self.kind, directory, self.config, self.properties).start()
        return self.current

    def stop(self):
        if self.current is not None:
            self.current.kill()


@pytest.fixture(scope="session")
def shared_full(kind, tmp_path_factory):
    shared = Shared("full", tmp_path_factory, kind, FULL_CONFIG, FULL_PROPERTIES)
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def shared_defaults(kind, tmp_path_factory):
    shared = Shared("defaults", tmp_path_factory, kind, {}, {})
    yield shared
    shared.stop()


@pytest.fixture
def server(shared_full):
    return shared_full.get()


@pytest.fixture
def defaults(shared_defaults):
    return shared_defaults.get()


@pytest.fixture
def start_server(kind, tmp_path, request):
    """Starts a server of the tested kind (or of `kind`) that ends with the test.

    `config` adds to the base configuration, `full=True` to the one of `server`; `wait=False` leaves it starting, and
    `launcher` stands before the command.
    """
    numbers = itertools.count(1)
    mine = []

    def start(config=None, properties=None, full=False, kind=kind, wait=True, directory=None, launcher=()):
        if kind == "apache":
            request.getfixturevalue("apache_jars")
        config = {**(FULL_CONFIG if full else {}), **(config or {})}
        properties = {**(FULL_PROPERTIES if full else {}), **(properties or {})}
        created = _new_server(kind, directory or tmp_path / f"server{next(numbers)}", config, properties)
        created.launcher = list(launcher)
        mine.append(created)
        return created.start() if wait else created.spawn()

    yield start
    for created in mine:
        created.kill()


# -- ensembles

@pytest.fixture(scope="session")
def mix(kind):
    """The kinds of servers for a word like "A??": A is one of Apache's, ? one of the tested kind."""
    def kinds(word):
        if kind == "apache" and "A" in word:
            pytest.skip("a mix of Apache's servers with Apache's servers")
        return [{"A": "apache", "?": kind}[letter] for letter in word]
    return kinds


@pytest.fixture(scope="module")
def ensembles(kind, request, tmp_path_factory):
    """Makes ensembles that end with the module: `ensembles(["apache", kind, kind], config={…}).start()`."""
    mine = []

    def make(kinds, **options):
        if "apache" in kinds:
            request.getfixturevalue("apache_jars")
        created = Ensemble(tmp_path_factory.mktemp("ensemble"), kinds, **options)
        mine.append(created)
        STARTED.extend(created)
        return created

    yield make
    for created in mine:
        created.close()


@pytest.fixture
def start_ensemble(kind, request, tmp_path):
    """Starts an ensemble that ends with the test, of three servers of the tested kind unless told otherwise."""
    mine = []

    def start(kinds=None, leader=3, **options):
        kinds = kinds or [kind] * 3
        if "apache" in kinds:
            request.getfixturevalue("apache_jars")
        created = Ensemble(tmp_path / f"ensemble{len(mine) + 1}", kinds, **options)
        mine.append(created)
        STARTED.extend(created)
        return created.start(leader)

    yield start
    for created in mine:
        created.close()


@pytest.fixture
def network():
    """Three hosts joined by cables that can be cut; skips the test where that is not possible."""
    if reason := wires.why_not():
        pytest.skip(reason)
    hosts = wires.Wires([1, 2, 3])
    yield hosts
    hosts.close()


@pytest.fixture
def nobody(kind, monkeypatch):
    """Another user than the tests': `nobody.launcher` stands before what it is to run, `nobody.folder` is within its reach,
    and so is the program."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rk-nobody-"))
    folder.chmod(0o755)
    if kind == "rookeeper":
        monkeypatch.setenv("ROOKEEPER", str(shutil.copy(program(), folder / "rookeeper")))
    yield types.SimpleNamespace(
        folder=folder, launcher=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"], user="nobody")
    shutil.rmtree(folder)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when == "call":
        for used in STARTED[-5:]:
            if used.log_path.exists():
                report.sections.append((f"{used!r}", used.log_tail()))


# -- connections

@pytest.fixture
def connect(server):
    """Opens connections with a session each: `connect()`, `connect(timeout_ms=…)`, `connect(port=…)`."""
    opened = []

    def open_one(port=None, shake=True, **fields):
        raw = Raw(port or server.port)
        opened.append(raw)
        if shake:
            raw.handshake(**fields)
        return raw

    yield open_one
    for raw in opened:
        end_session(raw)


@pytest.fixture
def zk(connect):
    """A connection with a session on `server`; the session ends with the test."""
    return connect()


def end_session(raw):
    """Closes the session if the test left it usable, so that no later expiry writes into somebody else's test."""
    try:
        if raw.session:
            raw.timeout_s = 2
            raw.post(Op.CLOSE_SESSION)
            raw.until_closed()
    except (OSError, AssertionError, Closed):
        pass
    raw.close()


@pytest.fixture
def kazoo(server):
    """Opens kazoo clients: `kazoo()`, `kazoo(chroot="/app")`, `kazoo(port=…)`."""
    clients = Kazoos(server.port)
    yield clients
    clients.close()


_roots = itertools.count(1)


@pytest.fixture
def root(server, zk, request):
    """A fresh persistent node for this test to work under."""
    path = f"/t{next(_roots)}"
    zk.create(path).ok()
    return path


@pytest.fixture
def run():
    """Runs a program to its end and returns the completed process; fails with its output when it takes too long."""
    def run_one(command, deadline_s=60, **options):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, **options)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{command} took over {deadline_s} s:\n{late.stdout}\n{late.stderr}") from None
    return run_one
