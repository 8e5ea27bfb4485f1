"""Real processes that are killed, stopped and cut off while clients work; afterwards the whole history must be right."""

import contextlib
import os
import threading

import pytest

from ensemble import SILENCE_S, write_many
from history import History
from rawzk import Op, buf, i32, ustr
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
def flood(member, size, window=64):
    """A client that sets a node to so many bytes again and again, with so many requests on their way."""
    stopping = threading.Event()
    path, done = "/flood", []
    record = ustr(path) + buf(b"x" * size) + i32(-1)

    def work():
        with contextlib.closing(member.connect(timeout_s=60)) as zk:
            zk.create(path).ok()
            for _ in range(window):
                zk.post(Op.SET_DATA, record)
            while not stopping.is_set():
                zk.next().ok()
                done.append(None)
                zk.post(Op.SET_DATA, record)
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


@pytest.mark.parametrize("word", ["???", "A??", "??A"])
def test_a_follower_comes_back_with_its_first_snapshot_while_writes_go_on(start_ensemble, mix, word):
    """Ours under our leader, Apache's under ours, ours under Apache's."""
    ensemble = start_ensemble(mix(word))
    follower, leader = ensemble[1], ensemble[3]
    write_many(leader, "/full", 200, size=20_000)
    follower.kill()
    follower.wipe()
    before, mark = int(leader.monitored()["snap_count"]), follower.log_mark()
    with flood(leader, size=20_000) as done:
        wait_until(lambda: len(done) > 200, "writes go on")
        follower.start()
        assert int(leader.monitored()["snap_count"]) == before + 1
        assert not follower.said("left the role|Exception when following", mark)
        served = len(done)
        wait_until(lambda: len(done) > served + 200, "writes still go on")
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
