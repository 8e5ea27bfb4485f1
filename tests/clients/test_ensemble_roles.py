"""The roles beside leader and follower, and the less usual ways to make an ensemble, in mixes of Apache's servers and ours.

What is stated of a member here holds for both kinds, unless it says otherwise.
"""

import contextlib
import itertools
import os
import re
import socket

import pytest

from ensemble import records, resilient, write_many
from history import History
from rawzk import CHANGED, CREATED, Closed, Err, Flag, i32, i64, op_create, op_set
from server import free_port, wait_until

NOT_READ_ONLY, EPHEMERAL_ON_LOCAL_SESSION = -119, -120
NOT_SERVING = "This ZooKeeper instance is not currently serving requests\n"
_paths = (f"/r{number}" for number in itertools.count(1))


def await_mode(member, mode, deadline_s=20):
    wait_until(lambda: member.running() and member.mode() == mode, f"{member!r} becomes {mode}\n{member.log_tail()}", deadline_s)


def await_silence(*members):
    """None of them serves."""
    wait_until(lambda: not any(one.mode() for one in members), f"{members} stop serving", 10)


def seen(member, path):
    """The stat of a node on a member, as of now; None if it is not there."""
    with contextlib.closing(member.connect()) as zk:
        zk.sync(path).ok()
        found = zk.exists(path)
        zk.close_session()
    return None if found.err == Err.NO_NODE else found.stat()


def expired(answer):
    return answer.session == 0 and answer.timeout == 0


def check_clients(member, other):
    """What clients of the member do works, and is seen by those of the other."""
    path = next(_paths)
    with contextlib.closing(member.connect()) as zk, contextlib.closing(other.connect()) as elsewhere:
        zk.create(path, b"1").ok()
        zk.exists(f"{path}/w", watch=True)
        zk.get(path, watch=True).ok()
        elsewhere.sync(path).ok()
        assert elsewhere.get(path).data() == b"1"
        elsewhere.set(path, b"2").ok()
        elsewhere.create(f"{path}/w").ok()
        zk.sync(path).ok()
        assert sorted(zk.fired()) == sorted([(CHANGED, path), (CREATED, f"{path}/w")])
        assert zk.get(path).data() == b"2"
        assert zk.create(path).err == Err.NODE_EXISTS
        assert [err for _, err, _ in zk.multi(op_set(path, b"3"), op_create(f"{path}/m")).results()] == [0, 0]
        zk.create(f"{path}/e", flags=Flag.EPHEMERAL).ok()
        assert seen(other, f"{path}/e").ephemeralOwner == zk.session
        # The session moves away and back.
        for there in (other, member):
            moved = there.open()
            assert moved.handshake(session=zk.session, password=zk.password).session == zk.session
            zk.close()
            zk = moved
            assert zk.set(f"{path}/e", b"moved").err == Err.OK
        zk.close_session()
        zk.close()
        assert seen(other, f"{path}/e") is None
        elsewhere.close_session()


def check_expiry(member, other):
    """A client that is silent loses its session, one that pings does not."""
    path = next(_paths)
    busy, silent = [member.connect(timeout_ms=1000) for _ in range(2)]
    for zk, name in ((busy, path), (silent, f"{path}-silent")):
        zk.create(name, flags=Flag.EPHEMERAL).ok()
    silent.close()
    with contextlib.closing(busy), contextlib.closing(other.connect()) as zk:
        def gone():
            busy.ping()
            zk.ping()
            return zk.exists(f"{path}-silent").err == Err.NO_NODE
        wait_until(gone, "the silent session expires", 15)
        assert zk.exists(path).err == Err.OK
        busy.close_session()
        zk.close_session()


# -- observers

@pytest.fixture(scope="module", params=["?? ?A", "?A ?"], ids=["we lead", "Apache leads"])
def observed(request, mix, ensembles):
    """Two voters, the second of which leads, and observers behind them."""
    voters, observers = request.param.split()
    kinds = mix(voters + observers)
    ensemble = ensembles(kinds, observers=range(3, len(kinds) + 1)).start(leader=2)
    yield ensemble
    ensemble.close()


def observers_of(ensemble):
    return ensemble.others(*ensemble.voters)


def test_observers_serve_clients_as_followers_do(observed):
    follower, leader = observed.voters
    for one in observers_of(observed):
        assert one.mode() == "observer"
        check_clients(one, follower)
        check_clients(leader, one)
        check_expiry(one, follower)
    observed.check_equal()


def test_an_observer_that_was_away_catches_up(observed):
    leader = observed.leader()
    for one in observers_of(observed):
        before = leader.monitored()
        one.kill()
        write_many(leader, next(_paths), 20)
        one.start()
        assert int(leader.monitored()["diff_count"]) > int(before["diff_count"])
        observed.check_equal()
        one.kill()
        one.wipe()
        write_many(leader, next(_paths), 20)
        one.start()
        observed.check_equal()
        assert one.mode() == "observer"


def test_observers_are_no_part_of_the_quorum(observed):
    follower, leader = observed.voters
    follower.kill()
    await_silence(leader, *observers_of(observed))
    follower.spawn()
    observed.wait_serving()
    for one in observers_of(observed):
        check_clients(one, observed.leader())


# -- observer masters

def test_observers_live_behind_followers_and_move_on_when_theirs_dies(ensembles, mix):
    """Behind ours, then behind Apache's; an observer of either kind behind both."""
    ensemble = ensembles(mix("?A??A"), observers=(4, 5), config={"observerMasterPort": free_port()})
    for one in ensemble.voters:
        one.host = f"127.0.0.{one.sid}"
    ensemble.place(lambda one: f"{one.host}:{one.quorum_port}:{one.election_port}")
    ours, apaches, leader, *observers = ensemble
    for one in (ours, leader):
        one.spawn()
    ensemble.wait_serving()

    def check_behind(master, leader=leader):
        wait_until(lambda: master.monitored().get("synced_observers") == "2", f"both are behind {master!r}", 20)
        for one in observers:
            await_mode(one, "observer")
        assert leader.mode() == "leader" and leader.monitored().get("synced_observers", "0") == "0"
        for one in observers:
            check_clients(one, leader)
            check_expiry(one, leader)
        check_clients(*observers)
        # Apache's observer stops observing while it applies what was committed, when its master dies.
        ensemble.check_equal(after_faults=master is not ours)

    for one in observers:
        one.spawn()
    check_behind(ours)
    apaches.start()
    write_many(leader, next(_paths), 20)
    ours.kill()
    check_behind(apaches)
    # A new leader, and a follower of it.
    leader.kill()
    ours.spawn()
    assert ensemble.wait_serving([ours, apaches]) is apaches
    check_behind(ours, leader=apaches)
    ensemble.close()


# -- read-only mode

READ_ONLY = {"readonlymode.enabled": "true"}


def connect_read_only(member, **fields):
    """A connection that takes a read-only server, and the answer of the handshake."""
    raw = member.open()
    return raw, raw.handshake(read_only=True, **fields)


def refused_silently(member, **fields):
    with contextlib.closing(member.open()) as raw:
        with pytest.raises(Closed):
            raw.handshake(**fields)
        return raw.received == b""


def check_read_only(member, session, password, local):
    """What a server offers that is cut off from its quorum, to its own clients and to that of a session of before."""
    await_mode(member, "read-only")
    assert member.four("isro") == "ro"
    assert "READ-ONLY mode; serving only read-only clients" in member.four("srvr")
    assert refused_silently(member, read_only=False) and refused_silently(member, read_only=None)
    assert refused_silently(member, read_only=True, session=session, password=password)
    stranger, answer = connect_read_only(member, session=7, password=bytes(16))
    assert expired(answer) and answer.read_only
    stranger.close()
    if not local:
        # A session takes a write. The refusal stands where the handshake's answer is expected.
        with contextlib.closing(member.open()) as raw:
            raw.send_frame(raw.connect_record(read_only=True, timeout_ms=400))
            assert raw.recv_frame() == i32(0) + i64(member.last_zxid()) + i32(NOT_READ_ONLY)
            assert raw.until_closed() == []
        return
    zk, answer = connect_read_only(member)
    assert answer.session and answer.read_only
    assert zk.get("/zookeeper/config", watch=True).err == Err.OK
    assert "kept" in zk.children("/").names()
    for reply in (zk.create("/lost"), zk.set("/kept"), zk.delete("/kept"), zk.sync("/"), zk.multi(op_set("/kept")),
                  zk.create("/lost", flags=Flag.EPHEMERAL)):
        assert (reply.err, reply.zxid) == (NOT_READ_ONLY, member.last_zxid())
    again, answer = connect_read_only(member, session=zk.session, password=zk.password)
    assert answer.session == zk.session and answer.read_only
    assert again.get("/kept").data() == b"x"
    assert again.close_session().err == Err.OK
    assert again.until_closed() == []
    again.close()
    zk.close()


def test_a_server_without_quorum_serves_reads_until_it_has_one_again(ensembles, mix):
    """Without local sessions that is of little use: there is no new session, and an old one needs its leader."""
    ensemble = ensembles(mix("?A"), properties=READ_ONLY).start(leader=2)
    zk = ensemble[1].connect()
    zk.create("/kept", b"x").ok()
    for one, other in (tuple(ensemble), tuple(ensemble)[::-1]):
        assert one.four("isro") == "rw"
        other.kill()
        check_read_only(one, zk.session, zk.password, local=False)
        other.start()
        ensemble.wait_serving()
        check_clients(one, other)
        if one.kind == "rookeeper":
            assert one.said("Read-only server started") and one.said("Read-only server stopped")
    ensemble.check_equal()
    ensemble.close()


# -- local sessions

LOCAL = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}


def check_local_sessions(one, other):
    """A session of `one` costs no transaction, and is not known to `other`, before it makes an ephemeral."""
    path = next(_paths)
    write_many(one, next(_paths), 1)
    before = one.last_zxid()
    zk = one.connect()
    assert one.last_zxid() == before and int(one.monitored()["local_sessions"]) == 1
    assert zk.create(path, b"1").path() == path
    assert zk.set(path, b"2").stat().version == 1
    zk.get(path, watch=True).ok()
    with contextlib.closing(other.connect()) as elsewhere:
        elsewhere.sync(path).ok()
        assert elsewhere.get(path).data() == b"2"
        elsewhere.set(path, b"3").ok()
        elsewhere.close_session()
    zk.sync(path).ok()
    assert zk.fired() == [(CHANGED, path)]
    # It lives on one server, where it may change its connection.
    with contextlib.closing(other.open()) as stranger:
        assert expired(stranger.handshake(session=zk.session, password=zk.password))
    again = one.open()
    assert again.handshake(session=zk.session, password=zk.password).session == zk.session
    zk.close()
    assert one.last_zxid() == before + 3
    # With the ephemeral it becomes global, and moves.
    again.create(f"{path}/e", flags=Flag.EPHEMERAL).ok()
    assert (one.last_zxid(), int(one.monitored()["local_sessions"])) == (before + 5, 0)
    assert seen(other, f"{path}/e").ephemeralOwner == again.session
    with contextlib.closing(other.open()) as moved:
        assert moved.handshake(session=again.session, password=again.password).session == again.session
        again.close()
        moved.set(f"{path}/e", b"moved").ok()
        moved.close_session()
    assert seen(one, f"{path}/e") is None
    # One that is silent ends, without a transaction.
    before = one.last_zxid()
    with contextlib.closing(one.connect(timeout_ms=1000)):
        pass
    wait_until(lambda: int(one.monitored()["local_sessions"]) == 0, f"the session on {one!r} expires", 10)
    assert one.last_zxid() == before


@pytest.mark.parametrize("word", ["?A", "A?"])
def test_local_sessions(ensembles, mix, word):
    ensemble = ensembles(mix(word), config=LOCAL, properties=READ_ONLY).start(leader=2)
    follower, leader = ensemble
    check_local_sessions(follower, leader)
    check_local_sessions(leader, follower)
    ensemble.check_equal()

    # Cut off from the leader they are what a read-only server can offer.
    with contextlib.closing(follower.connect()) as zk:
        zk.create("/kept", b"x").ok()
        zk.create("/ephemeral", flags=Flag.EPHEMERAL).ok()
        zk.delete("/ephemeral").ok()
        leader.kill()
        check_read_only(follower, zk.session, zk.password, local=True)

    # Without upgrading they make no ephemerals.
    follower.terminate()
    for one in ensemble:
        one.config["localSessionsUpgradingEnabled"] = "false"
        one.spawn()
    ensemble.wait_serving()
    for one in ensemble:
        with contextlib.closing(one.connect()) as zk:
            path = next(_paths)
            assert zk.create(path, flags=Flag.EPHEMERAL).err == EPHEMERAL_ON_LOCAL_SESSION
            failed = zk.multi(op_create(path), op_create(f"{path}/e", flags=Flag.EPHEMERAL))
            assert failed.err == EPHEMERAL_ON_LOCAL_SESSION or failed.results()
            assert zk.create(path).path() == path
            zk.close_session()
    ensemble.check_equal()
    ensemble.close()


# -- settings of the leader, and what a quorum is

@pytest.mark.parametrize("word", ["A?", "?A"], ids=["we lead", "Apache leads"])
def test_a_leader_that_does_not_serve_leaves_clients_to_the_others(ensembles, mix, word):
    ensemble = ensembles(mix(word), properties={"zookeeper.leaderServes": "no"})
    follower, leader = ensemble
    for one in ensemble:
        one.spawn()
    await_mode(follower, "follower")
    check_clients(follower, follower)
    assert leader.four("srvr") == NOT_SERVING
    with contextlib.closing(leader.open()) as raw, pytest.raises(Closed):
        raw.handshake()
    ensemble.close()


def test_groups_and_weights_say_what_a_quorum_is(ensembles, mix):
    """Three groups, two of which are needed; of the first one server 1 is enough, and server 2 is not."""
    groups = {"group.1": "1:2", "group.2": "3", "group.3": "4", "weight.1": "2"}
    ensemble = ensembles(mix("??A?"), config=groups)
    one, two, three, four = ensemble
    for member in ensemble:
        member.spawn()
    ensemble.wait_serving()
    two.kill()
    four.kill()
    # Half of the servers.
    assert ensemble.wait_serving([one, three]) is three
    check_clients(one, three)
    four.start()
    one.kill()
    ensemble.wait_serving([three, four])
    check_clients(three, four)
    two.start()
    four.kill()
    await_silence(two, three)
    one.start()
    ensemble.wait_serving([one, two, three])
    check_clients(two, three)
    ensemble.check_equal()
    ensemble.close()


# -- epochs that are used up

def write_on(members, path, names):
    """One write after the other, each through the next member, whatever happens meanwhile."""
    connections = {}

    def write(member, name):
        zk = connections.pop(member.sid, None) or member.connect(timeout_s=3)
        try:
            assert zk.create(f"{path}/{name}").err in (Err.OK, Err.NODE_EXISTS)
        except BaseException:
            zk.close()
            raise
        connections[member.sid] = zk
        return True

    for name, member in zip(names, itertools.cycle(members)):
        resilient(lambda: write(member, name), f"{name} is written")
    for zk in connections.values():
        zk.close()


def counters_by_epoch(member):
    found = {}
    for path in member.log_files():
        for zxid, _ in records(path):
            found.setdefault(zxid >> 32, []).append(zxid & 0xffff_ffff)
    return found


LAST_COUNTER = "zookeeper.testingonly.lastZxidCounter"


def check_epochs(ensemble, last_counter):
    """Each but the last was used up, and each took one election."""
    for one in ensemble:
        counters = counters_by_epoch(one)
        *full, last = sorted(counters)
        assert [*full, last] == list(range(1, last + 1)) and len(full) >= 2
        assert all(counters[epoch] == list(range(1, last_counter + 1)) for epoch in full), f"{one!r}: {counters}"


@pytest.mark.rookeeper_only("Apache counts to the end, or begins with a gap")
def test_epochs_that_are_used_up_under_load_lose_nothing(ensembles, kind):
    ensemble = ensembles([kind] * 3, properties={LAST_COUNTER: 150}).start(leader=3)
    history = History(ensemble)
    wait_until(lambda: history.acknowledged() > 500 or any(client.failure for client in history.clients), "500 writes", 30)
    history.stop()
    assert history.expired == 0
    ensemble.wait_serving()
    history.check(ensemble.check_equal())
    check_epochs(ensemble, 150)
    ensemble.close()


def test_an_epoch_of_ours_that_is_used_up_is_followed_by_the_next(ensembles, mix):
    ensemble = ensembles(mix("A??"), properties={LAST_COUNTER: 30}).start(leader=3)
    path, names = next(_paths), [f"n{number:02}" for number in range(60)]
    with contextlib.closing(ensemble[3].connect()) as zk:
        zk.create(path).ok()
    write_on(ensemble.members, path, names)
    ensemble.wait_serving()
    tree = ensemble.check_equal()
    assert sorted(found for found in tree if found.startswith(f"{path}/")) == [f"{path}/{name}" for name in names]
    check_epochs(ensemble, 30)
    ensemble.close()


def test_an_epoch_of_apaches_that_is_used_up_is_followed_by_the_next(ensembles, mix):
    """Apache's leader can be told to begin close to the end. That makes a gap, over which ours asks for a snapshot."""
    ensemble = ensembles(mix("AA?"))
    first, second, ours = ensemble
    for one in (first, second):
        one.properties["zookeeper.testingonly.initialZxid"] = 0xffff_ffe0
        one.properties["zookeeper.forceSnapshotSync"] = "true"
        one.spawn()
    assert ensemble.wait_serving() is second
    path, names = next(_paths), [f"n{number:02}" for number in range(40)]
    with contextlib.closing(second.connect()) as zk:
        zk.create(path).ok()
    ours.start()
    write_on(ensemble.members, path, names)
    leader = ensemble.wait_serving()
    assert ours.said("history up to 0x1fffffffe of epoch 0x1")
    assert leader.last_zxid() >> 32 >= 2
    tree = ensemble.check_equal()
    assert sorted(found for found in tree if found.startswith(f"{path}/")) == [f"{path}/{name}" for name in names]
    ensemble.close()


# -- addresses

def has_ipv6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")
def test_servers_with_several_addresses_and_with_ipv6(ensembles, mix):
    ensemble = ensembles(mix("??A"), properties={"zookeeper.multiAddress.enabled": "true"})
    hosts = {1: ["127.0.0.2", "127.0.0.3"], 2: ["[::1]", "127.0.0.1"], 3: ["[::1]"]}
    ensemble.place(lambda one: "|".join(f"{host}:{one.quorum_port}:{one.election_port}" for host in hosts[one.sid]))
    one, two, three = ensemble
    one.config["quorumListenOnAllIPs"] = "true"
    ensemble.start(leader=3)
    check_clients(one, three)
    three.kill()
    assert ensemble.wait_serving() is two
    check_clients(one, two)
    three.start()
    ensemble.wait_serving()
    check_clients(three, two)
    ensemble.check_equal()
    ensemble.close()


def names_of_its_own(member, folder):
    """The file with the names of hosts that the next process of this member finds."""
    hosts, lookup = folder / "hosts", folder / "nsswitch.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    lookup.write_text("hosts: files\n")
    mount = f'mount --bind {hosts} /etc/hosts && mount --bind {lookup} /etc/nsswitch.conf && exec "$@"'
    member.launcher = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    return hosts


@pytest.mark.rookeeper_only("it does not say so")
@pytest.mark.skipif(os.geteuid() != 0, reason="a file of host names of its own needs root")
@pytest.mark.parametrize("retry", [None, 0])
def test_an_own_name_that_is_another_hosts_is_looked_up_again(ensembles, kind, tmp_path, retry):
    """Stale at the start and right some seconds later, with any electionPortBindRetry."""
    ensemble = ensembles([kind] * 3, properties={} if retry is None else {"zookeeper.electionPortBindRetry": retry})
    late, *others = ensemble
    line = f"own.rookeeper.test:{late.quorum_port}:{late.election_port}"
    late.config["server.1"] = line
    hosts = names_of_its_own(late, tmp_path)
    with open(hosts, "a") as file:
        file.write("192.0.2.1 own.rookeeper.test\n")
    for one in ensemble:
        one.spawn()
    ensemble.wait_serving(others)
    told = rf"server.1={line} in \S+/zoo.cfg is 192.0.2.1, which no interface of this host has; \S+/myid says 1; trying again"
    wait_until(lambda: len(re.findall(told, late.log_path.read_text())) >= 3, late.log_tail(), 20)
    hosts.write_text("127.0.0.1 localhost own.rookeeper.test\n")
    await_mode(late, "follower")
    ensemble.close()


def test_an_own_line_with_the_zero_address_serves_both_families(ensembles, kind):
    """The others come by IPv6."""
    ensemble = ensembles([kind] * 3)
    for one in ensemble:
        for listed in ensemble:
            host = "0.0.0.0" if listed is one else "[::1]"
            one.config[f"server.{listed.sid}"] = f"{host}:{listed.quorum_port}:{listed.election_port};{listed.port}"
        one.config["clientPort"] = None
    ensemble.start()
    for one in ensemble:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, one.port), timeout=2).close()
    ensemble.close()


@pytest.mark.rookeeper_only("it closes them all")
def test_who_connects_while_a_leader_is_looked_for_is_answered_when_there_is_one(start_ensemble):
    ensemble = start_ensemble(config={"connectHoldMs": lambda one: 0 if one.sid == 2 else 20_000})
    one, two, three = ensemble
    three.kill()
    two.kill()
    wait_until(lambda: one.mode() is None, "1 looks for a leader", 10)
    two.spawn()
    with contextlib.closing(one.open(timeout_s=20)) as zk:
        zk.handshake()
        assert zk.session
    one.kill()
    wait_until(lambda: two.mode() is None, "2 looks for a leader", 10)
    with contextlib.closing(two.open()) as zk:
        zk.send_frame(zk.connect_record())
        assert zk.until_closed() == []


@pytest.mark.rookeeper_only("it closes them all")
def test_who_connected_just_before_its_leader_died_is_answered_by_the_next(start_ensemble):
    ensemble = start_ensemble(config={"connectHoldMs": 20_000})
    leader = ensemble.leader()
    follower = ensemble.others(leader)[0]
    leader.pause()
    with contextlib.closing(follower.open(timeout_s=20)) as zk:
        zk.send_frame(zk.connect_record())
        assert follower.mode() == "follower", "it has asked its leader for a session by now"
        leader.kill()
        assert zk.handshake_reply().session


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of host names of its own needs root")
def test_a_server_waits_for_names_that_do_not_resolve_yet(ensembles, kind, tmp_path):
    """First its own, which its election port needs; then that of its leader."""
    ensemble = ensembles([kind] * 3, properties={"zookeeper.electionPortBindRetry": 0})
    late, *others = ensemble
    names = {one.sid: f"server{one.sid}.rookeeper.test" for one in ensemble}
    for one in ensemble:
        late.config[f"server.{one.sid}"] = f"{names[one.sid]}:{one.quorum_port}:{one.election_port}"
    hosts = names_of_its_own(late, tmp_path)

    def name(*members):
        with open(hosts, "a") as file:
            file.writelines(f"127.0.0.1 {names[one.sid]}\n" for one in members)

    for one in ensemble:
        one.spawn()
    ensemble.wait_serving(others)
    wait_until(lambda: late.said(rf"cannot listen on {names[1]}:\d+: .*trying again"), late.log_tail(), 10)
    name(late)
    wait_until(lambda: late.said(rf"{names[3]} has no address that is known now"), late.log_tail(), 10)
    assert late.running() and late.mode() is None
    name(*others)
    await_mode(late, "follower")
    check_clients(late, others[0])
    ensemble.close()


@pytest.mark.rookeeper_only("Apache has the oracle, and words of its own")
def test_what_cannot_be_served_is_said_at_the_start(ensembles, kind):
    one, *_ = ensemble = ensembles([kind] * 3)
    one.config["server.1"] = f"nowhere.rookeeper.invalid:{one.quorum_port}:{one.election_port}"
    one.properties["zookeeper.electionPortBindRetry"] = 1
    one.spawn()
    assert one.wait_exit().code != 0
    assert re.search(r"cannot listen on nowhere.rookeeper.invalid:\d+: .*; .*mend the host's name", one.log_tail())
    two = ensemble[2]
    two.config["oraclePath"] = "/oracle"
    two.spawn()
    assert two.wait_exit().code != 0
    assert re.search(r"zoo.cfg:\d+: oraclePath=/oracle: .*the oracle of a two-server ensemble is not served", two.log_tail())


@pytest.mark.rookeeper_only("Apache's log is its own")
def test_one_of_three_alone_says_whom_it_misses(ensembles, kind):
    one, *others = ensembles([kind] * 3)
    one.spawn()
    for other in others:
        line = rf"WARN .*election port of server {other.sid} cannot be reached: 127.0.0.1:{other.election_port}: \w"
        wait_until(lambda: one.said(line), one.log_tail(), 10)
    one.kill()
