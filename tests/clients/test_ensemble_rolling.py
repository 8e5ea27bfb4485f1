"""Replacing servers one by one while clients work: nobody loses a write or a session."""

import contextlib
import os

import pytest
from kazoo.client import KazooClient, KazooState

from ensemble import records
from history import History
from kazoo_clients import Kazoos
from rawzk import Raw
from server import SUPER_DIGEST, wait_until
from workload import differences, dump

SEED = os.environ.get("SEED", "1")
pytestmark = pytest.mark.timeout(300)
CONFIG = {"DigestAuthenticationProvider.superDigest": SUPER_DIGEST}


@pytest.fixture
def rolled(start_ensemble):
    """An ensemble of Apache's servers under load."""
    ensemble = start_ensemble(["apache"] * 3)
    history = History(ensemble, clients=4, seed=SEED, session_ms=30_000)
    yield ensemble, history
    history.stopping.set()


def go_on(history, at_least=100):
    target = history.acknowledged() + at_least
    wait_until(lambda: history.acknowledged() >= target or any(client.failure for client in history.clients),
               f"{at_least} more writes are acknowledged", 40)


def roll(ensemble, history, kind):
    """Followers first, the leader last, as an operator does it."""
    leader = ensemble.leader()
    for member in [*ensemble.others(leader), leader]:
        go_on(history)
        ensemble.replace(member, kind)
        ensemble.wait_serving()


@pytest.fixture
def bystander(rolled):
    """kazoo with an ephemeral node, a lock and a watch, which it expects to keep."""
    ensemble, _ = rolled
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in ensemble)
    client = KazooClient(hosts=hosts, timeout=30, connection_retry=dict(Kazoos.QUICK), command_retry=dict(Kazoos.QUICK))
    client.start(timeout=15)
    client.create("/bystander", ephemeral=True)
    yield client
    client.stop()
    client.close()


def test_an_ensemble_is_rolled_from_apache_to_ours_and_back_under_load(rolled, bystander, kind):
    ensemble, history = rolled
    seen, states = [], []
    bystander.ensure_path("/seen")
    bystander.DataWatch("/seen", lambda data, stat: seen.append(data) if stat else None)
    bystander.add_listener(states.append)
    lock = bystander.Lock("/lock", "bystander")
    assert lock.acquire(timeout=10)
    session = bystander.client_id
    for turn, kinds in enumerate([kind, "apache"]):
        roll(ensemble, history, kinds)
        assert {one.kind for one in ensemble} == {kinds}
        with contextlib.closing(ensemble[1].connect()) as zk:
            zk.set("/seen", b"%d" % turn).ok()
            zk.close_session()
        wait_until(lambda: seen[-1] == b"%d" % turn, "the watch fires", 10)
    go_on(history)
    history.stop()
    assert history.expired == 0, "a session was lost"
    assert bystander.client_id == session and KazooState.LOST not in states
    assert bystander.retry(bystander.exists, "/bystander").ephemeralOwner == session[0]
    assert lock.contenders() == ["bystander"]
    history.check(ensemble.check_equal(after_faults=True))


def test_a_log_in_which_transactions_stand_twice_opens(start_server, kind):
    """What Apache's 3.8 leaves behind when it loses its leader while it joins under load: between NEWLEADER and UPTODATE it
    logs what it is sent, but forgets that, and is sent it again. The second run is the same as the first, byte for byte."""
    server = start_server(kind="apache", config=CONFIG)
    with contextlib.closing(Raw(server.port)) as zk:
        zk.handshake()
        for index in range(20):
            zk.create(f"/n{index}", b"1").ok()
            zk.set(f"/n{index}", b"2").ok()
    before = dump(server.port)
    server.kill()
    log, = (server.data_dir / "version-2").glob("log.*")
    data, known = log.read_bytes(), list(records(log))
    end = known[-1][1] + 12 + int.from_bytes(data[known[-1][1] + 8:known[-1][1] + 12], "big") + 1
    log.write_bytes(data[:end] + data[known[-15][1]:end])
    again = start_server(kind=kind, config={**CONFIG, "dataDir": server.data_dir})
    assert again.last_zxid() == known[-1][0]
    assert differences(before, dump(again.port)) == ""
