"""Who belongs to an ensemble, after some were cut off, away, or wiped while that changed; and who is not believed."""

import contextlib
import threading
import time

import pytest
from kazoo.exceptions import ConnectionLoss, KazooException

import wires
from ensemble import Ensemble, write_many
from peers import FOLLOWING, LEADING, LOOKING, Elector, Notification, dial, zxid
from rawzk import Closed, Op, i32, i64, ustr
from server import free_port, wait_until
from test_ensemble_reconfig import client, config_of, line, reconfig

# How often a leader looks for voters that do not follow.
PROPERTIES = {"fastleader.maxNotificationInterval": 1000, "zookeeper.fastleader.maxNotificationInterval": 1000}


def members_of(text):
    return [int(line.split("=")[0].removeprefix("server.")) for line in text.splitlines() if line.startswith("server.")]


def open_line(member):
    """Its clients come from wherever they are."""
    return line(member).rpartition(":")[0].rpartition(";")[0] + f";{member.port}"


def lists(ensemble, listed, line=line):
    """Each member begins with the list of these and itself."""
    for one in ensemble:
        one.keeps_config = True
        one.config["clientPort"] = None
        for other in ensemble:
            knows = other.sid in listed or other is one
            one.config[f"server.{other.sid}"] = line(other) if knows else None
    return ensemble


def spawn(ensemble, *sids):
    for sid in sids:
        ensemble[sid].spawn()
    wait_until(lambda: all(ensemble[sid].mode() for sid in sids), f"servers {sids} serve", 30)


def reconfigured(ensemble, through, sids, know=None):
    """These become the members; the leader that is asked may go before it answers."""
    wanted = ",".join(f"server.{sid}={line(ensemble[sid])}" for sid in sids)

    def has_it(member):
        with contextlib.suppress(Closed):
            text = config_of(member)
            return text and members_of(text) == sorted(sids)

    def done():
        with contextlib.suppress(KazooException, OSError, AssertionError):
            reconfig(ensemble[through], members=wanted)
        return has_it(ensemble[through])

    wait_until(done, f"{sids} become the members", 30)
    for sid in know or sids:
        wait_until(lambda: has_it(ensemble[sid]), f"{ensemble[sid]!r} knows that {sids} are the members", 15)


@pytest.mark.parametrize("fourth", ["stays", "goes first"])
@pytest.mark.parametrize("word", ["?????", "???AA"])
def test_a_server_that_was_away_follows_an_ensemble_that_has_moved_on(ensembles, kind, mix, word, fourth):
    """Nobody is left of those whom it knows. Apache's servers look for nobody while they serve."""
    if kind == "apache":
        pytest.skip("it believes everybody")
    ensemble = lists(ensembles(mix(word), config={"reconfigEnabled": "true"}, properties=PROPERTIES), [1, 2, 3])
    spawn(ensemble, 1, 2, 3)
    spawn(ensemble, 4, 5)
    with client(ensemble[1]) as zk:
        zk.create("/before", b"x")
    ensemble[3].kill()
    reconfigured(ensemble, 1, [3, 4, 5], know=[4, 5])
    for sid in (1, 2):
        ensemble[sid].kill()
    if word == "?????" and fourth == "stays":
        spawn(ensemble, 3)
        assert members_of(config_of(ensemble[3])) == [3, 4, 5]
        ensemble[4].kill()
    else:
        ensemble[4].kill()
        ensemble[3].spawn()
    ensemble.wait_serving([ensemble[3], ensemble[5]])
    with client(ensemble[3]) as zk:
        assert zk.get("/before")[0] == b"x"
        zk.create("/after", b"x")
    assert members_of(config_of(ensemble[3])) == [3, 4, 5]


@pytest.mark.parametrize("word", ["?????", "AAA??"])
def test_two_that_were_wiped_and_are_added_again_serve_nothing_of_their_own(ensembles, kind, mix, word):
    """They were the ensemble once, and the others say so again when they get a new connection."""
    ensemble = lists(ensembles(mix(word), config={"reconfigEnabled": "true"}, properties=PROPERTIES), [1, 2, 3])
    spawn(ensemble, 1, 2, 3)
    spawn(ensemble, 4, 5)
    with client(ensemble[1]) as zk:
        zk.create("/before", b"x")
    reconfigured(ensemble, 4, [4, 5], know=[1, 2, 3, 4, 5])
    # The others lose their leader, and ask these two for one.
    for sid in (4, 5):
        ensemble[sid].kill()
        spawn(ensemble, sid)
        ensemble.wait_serving()
    reconfigured(ensemble, 1, [1, 2, 3], know=[1, 2, 3, 4, 5])
    for sid in (4, 5):
        ensemble[sid].kill()
        ensemble[sid].wipe()
        for file in ensemble[sid].directory.glob("zoo.cfg*"):
            file.unlink()
    for sid in (4, 5):
        ensemble[sid].spawn()
    wait_until(lambda: ensemble[4].mode() and ensemble[5].mode(), "they serve", 30)
    reconfigured(ensemble, 1, [1, 2, 3, 4, 5])
    ensemble.wait_serving()
    for one in ensemble:
        with client(one) as zk:
            assert zk.exists("/before"), f"{one!r} has an ensemble of its own"


class Writers:
    """Threads that write all the time, each through whichever of these servers takes it; when they were answered."""

    def __init__(self, members, count=8):
        self.members, self.answered, self.stopping = members, [], threading.Event()
        self.threads = [threading.Thread(target=self._write, args=[number], daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def _write(self, number):
        turn = number
        while not self.stopping.is_set():
            turn += 1
            with contextlib.suppress(OSError, AssertionError, Closed):
                with contextlib.closing(self.members[turn % len(self.members)].connect(timeout_s=5)) as zk:
                    zk.create(f"/w{number}")
                    while not self.stopping.is_set():
                        zk.set(f"/w{number}", b"x" * 100).ok()
                        self.answered.append(time.monotonic())
            time.sleep(0.005)

    def longest_pause_s(self, since):
        times = sorted(at for at in self.answered if at >= since)
        return max(later - sooner for sooner, later in zip([since, *times], times))

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)


@pytest.mark.rookeeper_only("it is away for over 20 s")
@pytest.mark.parametrize("word", ["???", "?A?", "??A"])
def test_a_leader_that_moves_hands_over_while_writes_go_on_and_one_is_down(ensembles, mix, word):
    """A leader of Apache names one that may have less than itself; then an election follows, and either may lead."""
    ensemble = lists(ensembles(mix(word), config={"reconfigEnabled": "true"}), [1, 2, 3])
    spawn(ensemble, 2, 3)
    spawn(ensemble, 1)
    leader = ensemble[3]
    assert ensemble.leader() is leader
    ensemble[1].kill()
    writers = Writers([ensemble[2], leader])
    try:
        wait_until(lambda: len(writers.answered) > 100, "writes are answered")
        begin = time.monotonic()
        leader.quorum_port = free_port()
        with contextlib.suppress(ConnectionLoss):
            reconfig(ensemble[2], joining=f"server.3={line(leader)}")
        ensemble.wait_serving([ensemble[2], leader])
        target = len(writers.answered) + 100
        wait_until(lambda: len(writers.answered) > target, "writes are answered again", 40)
    finally:
        writers.stop()
    assert f":{leader.quorum_port}:" in config_of(leader)
    assert ensemble.leader() is ensemble[2] or leader.kind == "apache"
    assert writers.longest_pause_s(begin) < 5


@pytest.mark.rookeeper_only("it believes everybody")
def test_an_invented_list_of_members_is_not_believed(ensembles, kind):
    """Told by strangers, by who says that it is a member, and of all kinds of servers; while a server looks for its leader."""
    ensemble = lists(ensembles([kind] * 3, config={"reconfigEnabled": "true"}), [1, 2, 3])
    spawn(ensemble, 1, 2, 3)
    text = config_of(ensemble[1])
    nowhere = ["127.0.0.1:1:1:participant;127.0.0.1:1"] * 3
    listener = dial(ensemble[2].election_port)  # somebody else answers at that port
    own = line(ensemble[1])
    invented = [
        dict(zip((101, 102, 103), nowhere)),
        {1: own, 101: nowhere[0]},
        {1: own, 101: nowhere[0], 102: nowhere[0]},
        {1: nowhere[0], 101: line(ensemble[2]), 102: line(ensemble[3])},
        {3: nowhere[0], 101: nowhere[0]},
        {1: own, 3: nowhere[0]},
    ]
    lists_told = ["".join(f"server.{sid}={where}\n" for sid, where in one.items()) + "version=7fffffff00000001"
                  for one in invented]
    one = ensemble[1]
    for told in lists_told:
        one.kill()
        one.spawn()
        mark = one.log_mark()
        with contextlib.ExitStack() as strangers:
            for sid in (101, 102, 3):
                with contextlib.suppress(OSError):
                    wait_until(lambda: one.running() and _connects(one), "the election port is open", 10)
                    stranger = strangers.enter_context(contextlib.closing(Elector(one, sid)))
                    for state in (LOOKING, FOLLOWING, LEADING):
                        body = Notification(state, 101, zxid(1 << 20), 1, 1 << 20)
                        stranger.send(body.frame(told.encode()))
                    if sid == 3:
                        stranger.close()  # while it is there, nobody hears of the server whose id it uses
            wait_until(one.mode, f"{one!r} serves\n{one.log_tail()}", 20)
        assert config_of(one) == text, told
        assert not one.said("configuration 0x7fffffff00000001 is in force", mark)
    listener.close()


def _connects(member):
    try:
        dial(member.election_port).close()
        return True
    except OSError:
        return False


@pytest.fixture
def six_hosts():
    if reason := wires.why_not():
        pytest.skip(reason)
    hosts = wires.Wires(range(1, 7))
    yield hosts
    hosts.close()


@pytest.mark.rookeeper_only("it splits for good")
@pytest.mark.parametrize("word", ["??????", "???A??"])
def test_a_list_that_a_minority_proposed_splits_nothing(tmp_path, kind, mix, six_hosts, word):
    """The leader and a sixth are cut from three of five, and asked to go on with a fourth, which starts anew and learns of
    that from the leader."""
    ensemble = Ensemble(tmp_path, mix(word), wires=six_hosts, config={"reconfigEnabled": "true"})
    try:
        lists(ensemble, [1, 2, 3, 4, 5], open_line)
        spawn(ensemble, 3, 4, 5)
        spawn(ensemble, 1, 2, 6)
        assert ensemble.leader() is ensemble[5]
        majority, minority = (1, 2, 3), (4, 5, 6)
        cables = {host: [pair for other in majority for pair in ((host, other), (other, host))] for host in minority}
        wanted = ",".join(f"server.{sid}={open_line(ensemble[sid])}" for sid in minority)
        with contextlib.closing(ensemble[5].connect()) as zk:
            zk.auth("digest", b"super:test").ok()
            six_hosts.cut(*cables[5], *cables[6])
            zk.post(Op.RECONFIG, i32(-1) + i32(-1) + ustr(wanted) + i64(-1))
            wait_until(lambda: ensemble[4].logged(wanted[:20].encode()), "the fourth has it", 5)
            ensemble[4].kill()
            mark = ensemble[5].log_mark()
            ensemble[4].spawn()
            # Perhaps its time is up before.
            with contextlib.suppress(AssertionError):
                wait_until(lambda: ensemble[5].said("follower 4 is in sync", mark), "it follows again", 3)
            six_hosts.cut(*cables[4])
        leader = ensemble.wait_serving([ensemble[sid] for sid in majority], 30)
        write_many(leader, "/majority", 10)
        wait_until(lambda: not any(ensemble[sid].mode() for sid in minority), "the minority gives up", 30)
        six_hosts.heal()
        ensemble.wait_serving([ensemble[sid] for sid in majority + minority], 60)
        assert members_of(config_of(ensemble[5])) == [1, 2, 3, 4, 5]
        ensemble.check_equal()
    finally:
        ensemble.close()
