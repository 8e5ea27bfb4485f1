"""The status page in a real browser: what a person sees, and that it asks nobody but its server."""

import re
import shutil
import subprocess

import pytest

from http_client import ask
from rawzk import Raw
from server import free_port

pytestmark = [
    pytest.mark.rookeeper_only("Apache has no such page"),
    pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium; run `make test-deps` as root on Debian"),
]

# Without the last ones it looks for hosts of its maker's.
CHROMIUM = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--window-size=1280,1500", "--virtual-time-budget=6000",
]


def shown(url, profile, *more):
    """The page as it stands once its scripts have run."""
    command = [*CHROMIUM, f"--user-data-dir={profile}", "--dump-dom", *more, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return re.sub(r"<script>.*</script>", "", done.stdout, flags=re.S)


def text_of(html):
    return re.sub(r"<[^>]+>", " ", html)


@pytest.fixture
def admin_port():
    return free_port()


def test_a_person_sees_the_server_its_tree_and_its_writes(start_server, tmp_path, admin_port):
    server = start_server({"admin.enableServer": None, "admin.serverPort": admin_port})
    zk = Raw(server.port)
    zk.handshake(timeout_ms=60_000)
    zk.create("/app").ok()
    zk.create("/<img src=x>").ok()
    for n in range(20):
        zk.set("/app", str(n).encode()).ok()
    zk.exists("/app", watch=True)
    # What looks like a number of 64 bits inside text stays as it is.
    stamp = '{"ts":1700000000000000}'
    zk.set("/", stamp.encode()).ok()
    zk.create(f"/{stamp}").ok()
    zk.exists(f"/{stamp}", watch=True)
    page = shown(f"http://127.0.0.1:{admin_port}/", tmp_path / "profile")
    text = text_of(page)
    for expected in ["standalone", "synced", "acknowledged", "/app", "app", "zookeeper", f"{zk.session:x}"]:
        assert expected in text, expected
    assert "no answer" not in text
    assert f">{stamp}<" in page and f">/{stamp}<" in page
    assert "&lt;img src=x&gt;" in page and "<img" not in page
    zk.close()


def test_a_person_sees_who_leads_and_who_is_behind(start_ensemble, tmp_path):
    ports = [free_port() for _ in range(3)]
    ensemble = start_ensemble(config={
        "admin.enableServer": None, "admin.serverPort": lambda one: ports[one.sid - 1]})
    ensemble[1].kill()
    page = text_of(shown(f"http://127.0.0.1:{ports[2]}/", tmp_path / "leader"))
    assert "leader" in page and "in step" in page and "not connected" in page
    page = text_of(shown(f"http://127.0.0.1:{ports[1]}/", tmp_path / "follower"))
    assert "follower" in page and "this server" in page and "ask the leader" in page
    ensemble[3].kill()
    page = text_of(shown(f"http://127.0.0.1:{ports[1]}/", tmp_path / "alone"))
    assert "not serving" in page and "unknown: no leader" in page
    for name in ["ruok", "monitor"]:
        told = ask(ports[1], f"/commands/{name}").json()
        assert told == {"command": name, "error": "This ZooKeeper instance is not currently serving requests"}
