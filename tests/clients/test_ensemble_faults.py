"""Real processes that are killed, stopped and cut off while clients work; afterwards the whole history must be right."""

import contextlib
import itertools
import os
import threading

import pytest

from ensemble import SILENCE_S, write_many
from history import History
from rawzk import Err, Flag, Op, buf, create_record, i32, ustr
from server import wait_until

SEED = os.environ.get("SEED", "1")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def under_load():
    """Puts clients to work on an ensemble; `finish` ends them and checks everything."""
    histories = []

    def start(ensemble, **options):
        histories.append(History(ensemble, seed=SEED, **options))
        return histories[-1]

    yield start
    for history in histories:
        history.stopping.set()


def go_on(history, at_least=60, deadline_s=30):
    target = history.acknowledged() + at_least
    wait_until(lambda: history.acknowledged() >= target or any(client.failure for client in history.clients),
               f"{at_least} more writes are acknowledged", deadline_s)


def finish(ensemble, history, **options):
    ensemble.wait_serving(list(ensemble))
    go_on(history)
    history.stop()
    assert history.expired == 0, "a session was lost"
    history.check(ensemble.check_equal(after_faults=True), **options)


# -- kill -9

@pytest.mark.parametrize("word", ["???", "A??", "?AA"])
def test_kill_9_of_leaders_and_followers_in_turn(start_ensemble, under_load, kind, mix, word):
    """In a mix only ours are killed: Apache's 3.8 acknowledges a new leader's history before it has written it."""
    ensemble = start_ensemble(mix(word))
    history = under_load(ensemble)
    for turn in range(6 if word == "???" else 4):
        go_on(history)
        leader = ensemble.wait_serving()
        mortal = [one for one in ensemble if one.kind == kind]
        followers = [one for one in mortal if one is not leader]
        victim = leader if turn % 2 == 0 and leader in mortal or not followers else followers[turn // 2 % len(followers)]
        victim.kill()
        go_on(history)
        victim.start()
    finish(ensemble, history)


def test_kill_9_of_all_at_once(start_ensemble, under_load):
    ensemble = start_ensemble()
    history = under_load(ensemble)
    for _ in range(2):
        go_on(history, 200)
        for one in ensemble:
            one.kill()
        for one in ensemble:
            one.spawn()
        ensemble.wait_serving()
    finish(ensemble, history)


# -- a snapshot under load

@contextlib.contextmanager
def flood(member, paths, size, window=64):
    """A client that sets these nodes to so many bytes again and again, with so many requests on their way."""
    stopping, done = threading.Event(), []
    records = itertools.cycle([ustr(path) + buf(b"x" * size) + i32(-1) for path in paths])

    def work():
        with contextlib.closing(member.connect(timeout_s=60)) as zk:
            for _ in range(window):
                zk.post(Op.SET_DATA, next(records))
            while not stopping.is_set():
                zk.next().ok()
                done.append(None)
                zk.post(Op.SET_DATA, next(records))
            for _ in range(window):
                zk.next().ok()
            zk.close_session()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield done
    finally:
        stopping.set()
        worker.join()


def numbered(path, count):
    return [f"{path}/n{number:010}" for number in range(count)]


@pytest.mark.parametrize("word", ["???", "A??", "??A"])
def test_a_follower_comes_back_with_its_first_snapshot_while_writes_go_on(start_ensemble, mix, word):
    """Ours under our leader, Apache's under ours, ours under Apache's."""
    ensemble = start_ensemble(mix(word))
    follower, leader = ensemble[1], ensemble[3]
    write_many(leader, "/full", 200, size=20_000)
    follower.kill()
    follower.wipe()
    before, mark = int(leader.monitored()["snap_count"]), follower.log_mark()
    with flood(leader, numbered("/full", 200), size=20_000) as done:
        wait_until(lambda: len(done) > 200, "writes go on")
        follower.start()
        assert int(leader.monitored()["snap_count"]) == before + 1
        assert not follower.said("stopped (following|leading|observing)|Exception when following", mark)
        served = len(done)
        wait_until(lambda: len(done) > served + 200, "writes still go on")
    ensemble.check_equal()


@pytest.mark.parametrize("word", ["A?A"])
def test_a_snapshot_that_apache_makes_while_writes_go_on_is_no_damage(start_ensemble, mix, word):
    """It holds a part of what comes after it, so that digests differ until that is applied."""
    ensemble = start_ensemble(mix(word))
    follower, leader = ensemble[2], ensemble[3]
    write_many(leader, "/full", 2_000, size=5_000)
    follower.kill()
    follower.wipe()
    with flood(leader, numbered("/full", 2_000), size=1_000, window=256) as done:
        wait_until(lambda: len(done) > 200, "writes go on")
        follower.start()
        served = len(done)
        wait_until(lambda: len(done) > served + 500, "writes still go on")
    assert follower.digest_mismatches() == 0
    # What a restart finds on disk is no damage either.
    follower.restart()
    ensemble.wait_serving()
    assert follower.digest_mismatches() == 0
    ensemble.check_equal()


# -- SIGSTOP

def pause_for_longer_than_the_timeouts(ensemble, history, member):
    member.pause()
    try:
        others = ensemble.others(member)
        go_on(history)
        ensemble.wait_serving(others)
        # The writes of the time after which the others must have given it up.
        for _ in range(3):
            history.stopping.wait(SILENCE_S / 2)
            go_on(history, 20)
    finally:
        member.resume()
    ensemble.wait_serving(list(ensemble))


@pytest.mark.parametrize("word", ["???", "A?A"])
def test_servers_that_stop_for_longer_than_the_timeouts(start_ensemble, under_load, mix, word):
    ensemble = start_ensemble(mix(word))
    history = under_load(ensemble)
    go_on(history)
    leader = ensemble.leader()
    pause_for_longer_than_the_timeouts(ensemble, history, ensemble.others(leader)[0])
    leader = ensemble.leader()
    pause_for_longer_than_the_timeouts(ensemble, history, leader)
    finish(ensemble, history, stale_syncs_on=[leader.sid])


# -- sessions at the edge of their time

@contextlib.contextmanager
def pinging(*clients):
    """Clients that ping all the time, and are not bothered by a server that does not answer."""
    stopping = threading.Event()

    def work(zk):
        while not stopping.wait(0.2):
            zk.post(Op.PING, xid=-2)

    workers = [threading.Thread(target=work, args=(zk,)) for zk in clients]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stopping.set()
        for worker in workers:
            worker.join()


@pytest.mark.parametrize("word", ["???", "AA?"])
def test_a_leader_that_was_stopped_expires_nobody_whose_client_went_on(start_ensemble, mix, word):
    """Longer than the sessions' timeout, shorter than syncLimit: clients of the followers and of the leader itself."""
    ensemble = start_ensemble(mix(word), config={"tickTime": 500, "syncLimit": 20, "minSessionTimeout": 1500})
    leader = ensemble.leader()
    clients = [one.connect(timeout_ms=1500) for one in ensemble]
    paths = [f"/alive{number}" for number in range(len(clients))]
    for zk, path in zip(clients, paths):
        zk.create(path, flags=Flag.EPHEMERAL).ok()
    silent = leader.connect(timeout_ms=1500)
    silent.create("/silent", flags=Flag.EPHEMERAL).ok()
    with pinging(*clients):
        for _ in range(2):
            leader.pause()
            try:
                threading.Event().wait(3)
            finally:
                leader.resume()
        with contextlib.closing(leader.connect(timeout_ms=10_000)) as witness:
            # Expiry goes on: who is silent has its timeout, and no more.
            wait_until(lambda: witness.exists("/silent").err == Err.NO_NODE, "the silent session expires", 15)
            assert [witness.exists(path).err for path in paths] == [Err.OK] * len(paths)
    for zk in clients + [silent]:
        zk.close()


def test_writes_of_a_global_session_that_has_expired_are_not_done(start_ensemble, network):
    """With local sessions, a follower that is cut off from the leader sends them when the cut is healed."""
    local = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}
    limits = {"tickTime": 500, "syncLimit": 40, "minSessionTimeout": 1000}
    ensemble = start_ensemble(wires=network, config={**local, **limits})
    leader, follower = ensemble.leader(), ensemble.followers()[0]
    old, kept = follower.connect(timeout_ms=1000), follower.connect(timeout_ms=20_000)
    with contextlib.closing(leader.connect(timeout_ms=20_000)) as other:
        other.create("/value", b"first").ok()
        old.create("/mine", flags=Flag.EPHEMERAL).ok()
        network.cut((leader.sid, follower.sid), (follower.sid, leader.sid))
        old.post(Op.SET_DATA, ustr("/value") + buf(b"old") + i32(-1))
        old.post(Op.CREATE, create_record("/late"))
        kept.post(Op.CREATE, create_record("/local"))
        wait_until(lambda: other.exists("/mine").err == Err.NO_NODE, "the session expires", 15)
        other.set("/value", b"new").ok()
        network.heal()
        wait_until(lambda: other.exists("/local").err == Err.OK, "what the follower had comes", 15)
        assert other.get("/value").data() == b"new"
        assert other.exists("/late").err == Err.NO_NODE
        other.close_session()
    assert follower.mode() == "follower" and not leader.said("is gone: ")
    old.close()
    kept.close()


# -- the network

@pytest.fixture
def cabled(request, start_ensemble, network, under_load, mix):
    """An ensemble on three hosts, of our kind or of a mix; clients live on the hosts and roam between them."""
    ensemble = start_ensemble(mix(getattr(request, "param", "???")), wires=network)
    history = under_load(ensemble)
    go_on(history)
    return ensemble, history


def keep_cut(ensemble, history, majority, more=60):
    """While a cut lasts, the majority finds itself and works."""
    wait_until(lambda: [one.mode() for one in majority].count("leader") == 1
               and all(one.mode() for one in majority), "the majority serves", 30)
    go_on(history, more)
    # Long enough for those cut off to notice.
    wait_until(lambda: all(one.mode() is None for one in ensemble.others(*majority)), "the minority stops serving",
               SILENCE_S * 4)


@pytest.mark.parametrize("cabled", ["???", "A??", "A?A"], indirect=True)
def test_one_server_after_the_other_is_cut_off(cabled, network):
    ensemble, history = cabled
    cut_off = []
    for member in [ensemble.followers()[0], ensemble.leader()]:
        network.cut(*network.pairs(member.sid))
        keep_cut(ensemble, history, ensemble.others(member))
        network.heal()
        ensemble.wait_serving(list(ensemble))
        cut_off.append(member.sid)
    finish(ensemble, history, stale_syncs_on=cut_off)


def test_what_a_leader_or_a_follower_says_is_lost_one_way(cabled, network):
    """A follower that is not heard, then a leader that is not heard by one follower, then by nobody."""
    ensemble, history = cabled
    follower, leader = ensemble.followers()[0], ensemble.leader()
    network.cut((follower.sid, leader.sid))
    history.stopping.wait(SILENCE_S * 1.5)
    go_on(history)
    network.heal()
    ensemble.wait_serving(list(ensemble))

    leader = ensemble.leader()
    network.cut((leader.sid, ensemble.others(leader)[0].sid))
    history.stopping.wait(SILENCE_S * 1.5)
    go_on(history)
    network.heal()
    ensemble.wait_serving(list(ensemble))

    mute = ensemble.leader()
    network.cut(*[(mute.sid, other.sid) for other in ensemble.others(mute)])
    keep_cut(ensemble, history, ensemble.others(mute))
    network.heal()
    finish(ensemble, history, stale_syncs_on=[follower.sid, leader.sid, mute.sid])


def test_slow_and_lossy_cables(cabled, network):
    """100 ms each way, then one packet in twenty lost: slower, but no server is given up and no leader changes."""
    ensemble, history = cabled
    leader = ensemble.leader()
    everywhere = [pair for one in ensemble for pair in network.pairs(one.sid)]
    network.delay(0.1, *everywhere)
    go_on(history, 40)
    assert ensemble.leader() is leader
    network.heal()
    network.lose(0.05, *everywhere)
    go_on(history, 40)
    network.heal()
    finish(ensemble, history)


def test_a_follower_that_can_reach_only_the_other_follower(cabled, network):
    """The link between the leader and one follower is cut: the rest is a quorum, and the lone one may try in vain."""
    ensemble, history = cabled
    leader = ensemble.leader()
    lonely = ensemble.others(leader)[0]
    network.cut((leader.sid, lonely.sid), (lonely.sid, leader.sid))
    history.stopping.wait(SILENCE_S * 2)
    go_on(history)
    network.heal()
    finish(ensemble, history, stale_syncs_on=[leader.sid, lonely.sid])
