"""Three servers as one service, in every mix of Apache's and ours and led by either.

The ensembles are shared by the tests of a mix, which run in the order they stand in; each ends with all servers equal.
"""

import contextlib
import itertools

import pytest

from ensemble import resilient, write_many
from rawzk import (ALL, OPEN, READ, Closed, Err, Flag, Op, acl, buf, create_record, i32, op_check, op_create,
                   op_create_ttl, op_delete, op_set, ustr)
from server import wait_until
from workload import Workload

# The kinds of the servers 1, 2, 3 (see `mix`); 3 leads first.
MIXES = {
    "alone": "???",
    "we lead two of Apache's": "AA?",
    "Apache leads two of ours": "??A",
    "Apache leads one of each": "?AA",
    "we lead one of each": "A??",
}
HOUR_MS = 3_600_000
SESSION_MOVED = -118
_roots = itertools.count(1)


@pytest.fixture(scope="module", params=MIXES)
def mixed(request, mix, ensembles):
    ensemble = ensembles(mix(MIXES[request.param])).start(leader=3)
    yield ensemble
    ensemble.close()


@pytest.fixture(autouse=True)
def equal_afterwards(mixed):
    yield
    mixed.check_equal()


@pytest.fixture
def clients(mixed):
    """A session on each server."""
    opened = [one.connect() for one in mixed]
    yield opened
    for zk in opened:
        with contextlib.suppress(Closed, OSError, AssertionError):
            zk.close_session()
        zk.close()


@pytest.fixture
def root(clients):
    path = f"/m{next(_roots)}"
    clients[0].create(path).ok()
    for zk in clients:
        zk.sync(path).ok()
    return path


def everywhere(clients, read, expected):
    """What every server answers, once it has caught up."""
    for zk in clients:
        zk.sync("/").ok()
        assert read(zk) == expected


# -- requests

def test_writes_through_every_server_are_seen_on_all(clients, root):
    for index, zk in enumerate(clients):
        path = f"{root}/n{index}"
        assert zk.create(path, b"1").path() == path
        assert zk.set(path, b"2").stat().version == 1
        assert zk.create2(f"{path}/s-", flags=Flag.SEQUENTIAL).path_and_stat()[0] == f"{path}/s-0000000000"
        assert zk.delete(f"{path}/s-0000000000").err == Err.OK
        everywhere(clients, lambda other: other.get(path).data(), b"2")
        everywhere(clients, lambda other: other.children(path).names(), [])


def test_failed_writes_answer_the_same_everywhere(clients, root):
    for zk in clients:
        assert zk.create(root).err == Err.NODE_EXISTS
        assert zk.set(f"{root}/none", b"").err == Err.NO_NODE
        assert zk.set(root, b"", version=9).err == Err.BAD_VERSION
        assert zk.delete("/zookeeper").err in (Err.BAD_ARGUMENTS, Err.NOT_EMPTY)
        assert zk.create(f"{root}/a/b").err == Err.NO_NODE
        assert zk.create(f"{root}/x", acls=acl((ALL, "nonsense", "x"))).err == Err.INVALID_ACL


def test_multis_pass_and_fail_whole(clients, root):
    for index, zk in enumerate(clients):
        path = f"{root}/m{index}"
        passed = zk.multi(op_create(path, b"a"), op_create(f"{path}/b", op=Op.CREATE2), op_set(path, b"c"),
                          op_check(path, 1), op_create_ttl(f"{path}/t", HOUR_MS), op_delete(f"{path}/b")).results()
        assert [err for _, err, _ in passed] == [0] * 6
        failed = zk.multi(op_set(path, b"lost"), op_create(f"{path}/lost"), op_check(path, 7), op_delete(path)).results()
        assert [value for _, _, value in failed] == [0, 0, Err.BAD_VERSION, Err.RUNTIME_INCONSISTENCY]
        everywhere(clients, lambda other: (other.get(path).data(), other.children(path).names()), (b"c", ["t"]))


def test_requests_of_one_session_stay_in_order(clients, root):
    """Reads wait for the writes before them, also when the writes travel to the leader and back."""
    for index, zk in enumerate(clients):
        path = f"{root}/o{index}"
        zk.create(path, b"-").ok()
        posted = []
        for turn in range(50):
            posted.append((zk.post(Op.SET_DATA, ustr(path) + buf(b"%d" % turn) + i32(-1)), None))
            posted.append((zk.post(Op.GET_DATA, ustr(path) + b"\x00"), b"%d" % turn))
        for xid, expected in posted:
            reply = zk.await_reply(xid)
            assert expected is None or reply.data() == expected


def test_syncs_among_writes_keep_their_place(clients, root):
    """A learner of Apache's that hears of a sync behind a later commit never answers that write, nor any after it."""
    for index, zk in enumerate(clients):
        path = f"{root}/s{index}"
        zk.create(path, b"-").ok()
        for _ in range(5):
            posted = []
            for _ in range(20):
                posted.append(zk.post(Op.SET_DATA, ustr(path) + buf(b"") + i32(-1)))
                posted.append(zk.post(Op.SYNC, ustr(path)))
            for xid in posted:
                zk.await_reply(xid).ok()


def test_watches_fire_for_writes_made_elsewhere(clients, root):
    for zk in clients:
        zk.get(root, watch=True).ok()
        zk.children(root, watch=True).ok()
        zk.exists(f"{root}/w", watch=True)
    clients[0].create(f"{root}/w").ok()
    clients[1].set(root, b"changed").ok()
    for zk in clients:
        zk.sync(root).ok()
        assert sorted(zk.fired()) == sorted([(1, f"{root}/w"), (3, root), (4, root)])


def test_acls_hold_on_every_server(clients, root):
    owner, friend, stranger = clients
    owner.auth("digest", b"owner:secret").ok()
    friend.auth("digest", b"owner:secret").ok()
    owner.create(f"{root}/mine", b"m", acls=acl((ALL, "auth", ""), (READ, "world", "anyone"))).ok()
    stranger.sync(root).ok()
    assert stranger.get(f"{root}/mine").data() == b"m"
    assert stranger.set(f"{root}/mine").err == Err.NO_AUTH
    assert stranger.create(f"{root}/mine/x").err == Err.NO_AUTH
    assert friend.set(f"{root}/mine", b"f").err == Err.OK
    assert friend.set_acl(f"{root}/mine", OPEN).err == Err.OK
    # An Apache leader checks a write against the old list until it has applied the new one itself, and a follower may
    # have done so before it. What waits for a sync comes behind that.
    stranger.sync(root).ok()
    assert stranger.set(f"{root}/mine", b"s").err == Err.OK


def test_random_requests_leave_equal_servers(mixed):
    for turn, one in enumerate(mixed):
        work = Workload(f"mixed/{turn}")
        work.attach(one.port)
        work.run(60)
        for session in work.sessions:
            session.close_session()


# -- sessions

def test_ephemerals_go_with_their_session_wherever_it_was(mixed, clients, root):
    for index, one in enumerate(mixed):
        path = f"{root}/e{index}"
        zk = one.connect()
        zk.create(path, flags=Flag.EPHEMERAL).ok()
        everywhere(clients, lambda other: other.exists(path).stat().ephemeralOwner, zk.session)
        zk.close_session()
        everywhere(clients, lambda other: other.exists(path).err, Err.NO_NODE)


def test_a_silent_session_expires_and_a_busy_one_does_not(mixed, clients, root):
    silent = [one.connect(timeout_ms=1000) for one in mixed]
    busy = [one.connect(timeout_ms=1000) for one in mixed]
    for index, (quiet, loud) in enumerate(zip(silent, busy)):
        quiet.create(f"{root}/silent{index}", flags=Flag.EPHEMERAL).ok()
        loud.create(f"{root}/busy{index}", flags=Flag.EPHEMERAL).ok()
        quiet.close()

    def expired():
        for loud in busy:
            loud.ping()
        return not [name for name in clients[0].children(root).names() if name.startswith("silent")]

    wait_until(expired, "the silent sessions expire", 15)
    everywhere(clients, lambda other: other.children(root).names(), ["busy0", "busy1", "busy2"])
    for loud in busy:
        loud.close_session()


def test_a_session_moves_between_servers(mixed, clients, root):
    """It keeps its id, its ephemeral nodes and its timeout; what still speaks for it on the old server is cut off."""
    for here, there in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]:
        path = f"{root}/moving{here}{there}"
        old = mixed.members[here].connect()
        old.create(path, flags=Flag.EPHEMERAL).ok()
        new = mixed.members[there].open()
        answer = new.handshake(timeout_ms=10_000, session=old.session, password=old.password)
        assert (answer.session, answer.password, answer.timeout) == (old.session, old.password, 10_000)
        assert new.set(path, b"moved").err == Err.OK
        with contextlib.suppress(Closed):
            assert old.set(path, b"late").err == SESSION_MOVED
            old.until_closed()
        assert new.get(path).data() == b"moved"
        new.close_session()
        everywhere(clients, lambda other: other.exists(path).err, Err.NO_NODE)
        old.close()


def test_a_wrong_password_moves_no_session(mixed):
    """It may cost the session its connection (Apache cuts it off), never its life."""
    for home in mixed:
        zk = home.connect()
        for one in mixed:
            with contextlib.closing(one.open()) as thief:
                assert thief.handshake(session=zk.session, password=b"\x07" * 16).session == 0
        with contextlib.closing(home.open()) as owner:
            assert owner.handshake(session=zk.session, password=zk.password).session == zk.session
            owner.close_session()
        zk.close()


# -- nodes that go by themselves

def test_ttl_and_container_nodes_go_everywhere(clients, root):
    for index, zk in enumerate(clients):
        zk.create_ttl(f"{root}/ttl{index}", 300).ok()
        zk.create_ttl(f"{root}/long{index}", HOUR_MS).ok()
        zk.create_container(f"{root}/box{index}").ok()
        zk.create(f"{root}/box{index}/x").ok()
        zk.delete(f"{root}/box{index}/x").ok()
    expected = ["long0", "long1", "long2"]
    wait_until(lambda: clients[0].children(root).names() == expected, "they are swept", 15)
    everywhere(clients, lambda other: other.children(root).names(), expected)


# -- a server that was away

def away_and_back(ensemble, member, meanwhile, wipe=False):
    """Kills a member, lets the others work, starts it again. Returns its leader and where its log stood."""
    member.kill()
    if wipe:
        member.wipe()
    leader = ensemble.wait_serving(ensemble.others(member))
    resilient(lambda: meanwhile(leader), "the others write")
    mark = member.log_mark()
    member.start()
    ensemble.wait_serving()
    return mark


def test_a_short_absence_is_made_up_from_memory(mixed):
    leader = mixed.leader()
    for member in mixed.others(leader):
        before = leader.monitored()
        away_and_back(mixed, member, lambda leader: write_many(leader, "/short", 20))
        after = leader.monitored()
        assert int(after["diff_count"]) > int(before["diff_count"])
        assert after["snap_count"] == before["snap_count"]
        mixed.check_equal()


def test_a_long_absence_is_made_up_from_the_log(mixed):
    """More than the leader keeps in memory."""
    leader = mixed.leader()
    for member in mixed.others(leader):
        before = leader.monitored()
        away_and_back(mixed, member, lambda leader: write_many(leader, "/long", 700))
        assert int(leader.monitored()["diff_count"]) > int(before["diff_count"])
        mixed.check_equal()


def test_a_new_disk_is_filled_with_a_snapshot(mixed):
    leader = mixed.leader()
    for member in mixed.others(leader):
        before = leader.monitored()
        away_and_back(mixed, member, lambda leader: write_many(leader, "/wiped", 30, size=2000), wipe=True)
        assert int(leader.monitored()["snap_count"]) > int(before["snap_count"])
        mixed.check_equal()
        # What came as a snapshot survives a restart.
        member.restart()
        mixed.wait_serving()
        mixed.check_equal()


def test_a_new_leader_brings_the_old_one_up_to_date(mixed):
    """Every server leads once, or as far as ids let it."""
    for _ in range(2):
        old = mixed.leader()
        away_and_back(mixed, old, lambda leader: write_many(leader, "/changes", 20))
        assert mixed.leader() is not old
        mixed.check_equal()


# -- an uncommitted tail

def leave_a_tail(ensemble, leader, tail):
    """The leader logs what nobody else has, and all die. The tail's node is not there for anybody yet."""
    followers = ensemble.others(leader)
    with contextlib.closing(leader.connect()) as zk:
        for one in followers:
            one.pause()
        for index in range(tail):
            zk.post(Op.CREATE, create_record(f"/tail-{leader.sid}-{index}", b"never committed %d" % index))
        wait_until(lambda: leader.logged(b"never committed %d" % (tail - 1)), "the leader logs its tail", 10)
        for one in followers:
            one.kill()
        leader.kill()


@pytest.mark.parametrize("newer", [0, 5], ids=["with nothing newer", "with newer writes"])
def test_an_uncommitted_tail_is_cut_off(mixed, newer):
    """With nothing newer a TRUNC does it; with writes of the new epoch Apache sends a snapshot."""
    write_many(mixed.leader(), "/before", 10)
    old = mixed.leader()
    leave_a_tail(mixed, old, tail=3)
    others = mixed.others(old)
    for one in others:
        one.spawn()
    leader = mixed.wait_serving(others)
    if newer:
        write_many(leader, "/newer", newer)
    mark = old.log_mark()
    old.start()
    mixed.wait_serving()
    if not newer:
        assert old.said("(?i)trunc", mark), old.log_tail()
    tree = mixed.check_equal()
    assert not [path for path in tree if path.startswith("/tail-")]
    # Nor does it come back from the disk.
    old.restart()
    mixed.wait_serving()
    assert not [path for path in mixed.check_equal() if path.startswith("/tail-")]


def test_a_tail_that_wins_the_election_is_kept(mixed):
    """Who has the longest history leads, and what it has logged is committed by that."""
    old = mixed.leader()
    leave_a_tail(mixed, old, tail=3)
    early = [old, mixed.others(old)[0]]
    for one in early:
        one.spawn()
    assert mixed.wait_serving(early) is old
    mixed.others(*early)[0].start()
    mixed.wait_serving()
    tree = mixed.check_equal()
    assert [tree[f"/tail-{old.sid}-{index}"][0] for index in range(3)] == [b"never committed %d" % n for n in range(3)]


@pytest.mark.rookeeper_only("a mix of its own servers, and its leader takes any number")
def test_a_client_of_an_apache_follower_with_too_many_identities_is_refused_alone(start_ensemble, mix):
    ensemble = start_ensemble(mix("A??"), leader=3)
    leader, apaches = ensemble[3], ensemble[1]
    with contextlib.closing(apaches.connect(timeout_s=30)) as zk:
        for number in range(1100):
            zk.auth("digest", b"user%d:p" % number).ok()
        assert zk.create("/refused").err == -8
    with contextlib.closing(apaches.connect()) as zk:
        zk.create("/taken").ok()
        zk.close_session()
    assert leader.said("has more identities than the 1024 that are taken")
    assert not leader.said("lost follower 1")
