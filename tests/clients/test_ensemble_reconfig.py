"""The members of an ensemble change while it serves: one joins, one loses its vote, the leader is sent away.

Ensembles of ours, and with Apache's servers among them, led by either.
"""

import contextlib
import re

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadArgumentsError, BadVersionError, ConnectionLoss, NewConfigNoQuorumError, NoAuthError

from server import four_letter_word, free_port, wait_until

# The kinds of the servers 1 to 4; 3 leads first, 4 joins later.
MIXES = {"alone": "????", "we lead": "?A?A", "Apache leads": "A?A?"}


@pytest.fixture(params=MIXES)
def members(request, kind, ensembles):
    kinds = [{"A": "apache", "?": kind}[letter] for letter in MIXES[request.param]]
    if kind == "apache" and request.param != "alone":
        pytest.skip("a mix of Apache's servers with Apache's servers")
    ensemble = ensembles(kinds, config={"reconfigEnabled": "true"})
    for one in ensemble:
        one.keeps_config = True
        one.config["clientPort"] = None
        for other in ensemble:
            listed = other.sid < 4 or one.sid == 4
            one.config[f"server.{other.sid}"] = line(other) if listed else None
    yield ensemble
    ensemble.close()


def line(member, role="participant"):
    return f"{member.host}:{member.quorum_port}:{member.election_port}:{role};{member.host}:{member.port}"


@contextlib.contextmanager
def client(member, user="super:test"):
    zk = KazooClient(f"{member.host}:{member.port}", timeout=5, auth_data=[("digest", user)])
    zk.start(timeout=20)
    try:
        yield zk
    finally:
        zk.stop()
        zk.close()


def reconfig(member, joining=None, leaving=None, members=None, from_config=-1, user="super:test"):
    with client(member, user) as zk:
        data, stat = zk.reconfig(joining=joining, leaving=leaving, new_members=members, from_config=from_config)
    assert stat.version == -1
    return data.decode()


def version_of(text):
    return re.search(r"^version=([0-9a-f]+)$", text, re.M).group(1)


def config_of(member):
    """What a server says the configuration is, and None while it does not serve."""
    try:
        with contextlib.closing(member.connect()) as zk:
            text = zk.get("/zookeeper/config").data().decode()
            zk.close_session()
            return text
    except (OSError, AssertionError):
        return None


def await_config(members, text):
    for one in members:
        wait_until(lambda: config_of(one) == text, f"{one!r} has the new configuration\n{text}", 15)


def members_in(path):
    """The lines about members of a dynamic file; ours has a comment that says how it ends."""
    return re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)


def check_files(members, text):
    """Apache writes them a little later than it answers."""
    version = version_of(text)
    lines = "\n".join(sorted(text.splitlines()[:-1]))
    for one in members:
        dynamic = one.directory / f"zoo.cfg.dynamic.{version}"
        pointer = f"dynamicConfigFile={dynamic.resolve()}\n"
        wait_until(lambda: dynamic.exists() and members_in(dynamic) == lines, f"{one!r} writes {dynamic}", 5)
        wait_until(lambda: (one.directory / "zoo.cfg").read_text().endswith(pointer), f"{one!r} points there", 5)


def test_members_join_lose_their_vote_and_leave(members):
    one, two, three, four = members
    first = [one, two, three]
    for member in first[1:]:
        member.spawn()
    members.wait_serving(first[1:])
    one.spawn()
    members.wait_serving(first)
    assert members.leader() is three

    text = config_of(one)
    assert version_of(text) == "100000000"
    check_files(first, text)
    strangers = "".join(f",server.{sid}=127.0.0.1:{sid}:1{sid}:participant;1{sid}" for sid in (8, 9))
    for refusal, fields in [
        (NoAuthError, {"leaving": "1", "user": "super:wrong"}),
        (BadArgumentsError, {"joining": "nonsense", "user": "super:wrong"}),
        (BadArgumentsError, {"leaving": "1,2"}),
        (BadVersionError, {"leaving": "1", "from_config": 1 << 60}),
        (NewConfigNoQuorumError, {"members": f"server.1={line(one)}{strangers}"}),
    ]:
        for member in first[1:]:
            with pytest.raises(refusal):
                reconfig(member, **fields)

    # It waits as a follower that has no vote, and gets one.
    four.spawn()
    wait_until(lambda: four.mode() == "follower", f"{four!r} follows\n{four.log_tail()}", 20)
    text = reconfig(one, joining=f"server.4={line(four)}")
    assert f"server.4={line(four)}\n" in text
    await_config(members, text)
    check_files(members, text)

    text = reconfig(two, joining=f"server.1={line(one, 'observer')}", from_config=int(version_of(text), 16))
    wait_until(lambda: one.mode() == "observer", f"{one!r} observes\n{one.log_tail()}", 15)
    await_config(members, text)

    # The leader answers for its own removal.
    text = reconfig(three, leaving="3")
    leader = members.wait_serving([one, two, four], 15)
    assert leader in (two, four)
    await_config([one, two, four], text)
    check_files([one, two, four], text)
    wait_until(lambda: three.mode() == "follower", f"{three!r} follows without a vote\n{three.log_tail()}", 15)
    with client(one) as zk:
        zk.create("/after", b"x")
    members.check_equal()

    # What the files say holds at the next start.
    members.close()
    rest = [one, two, four]
    for member in rest:
        member.spawn()
    members.wait_serving(rest, 30)
    assert one.mode() == "observer"
    assert [version_of(config_of(member)) for member in rest] == [version_of(text)] * 3
    with client(one) as zk:
        assert zk.get("/after")[0] == b"x"


@pytest.mark.parametrize("word", ["??", "?A", "A?"])
def test_one_server_that_is_an_ensemble_grows(ensembles, mix, word):
    """standaloneEnabled=false"""
    ensemble = ensembles(mix(word), config={"reconfigEnabled": "true", "standaloneEnabled": "false"})
    one, two = ensemble
    for member in ensemble:
        member.keeps_config = True
        member.config["clientPort"] = None
        member.config.update({f"server.{other.sid}": line(other) for other in ensemble})
    one.config["server.2"] = None
    one.start()
    assert one.mode() == "leader"
    two.spawn()
    wait_until(lambda: two.mode() == "follower", f"{two!r} follows\n{two.log_tail()}", 20)
    text = reconfig(two, joining=f"server.2={line(two)}")
    await_config(ensemble, text)
    for member in ensemble:
        before, member.port = member.port, free_port()
        text = reconfig(one if member is two else two, joining=f"server.{member.sid}={line(member)}")
        await_config(ensemble, text)
        with pytest.raises(OSError):
            four_letter_word(before, "srvr")
    two.quorum_port, two.election_port = free_port(), free_port()
    text = reconfig(one, joining=f"server.2={line(two)}")
    await_config(ensemble, text)
    # Who is to lead drops its clients, and perhaps before this one is answered.
    with contextlib.suppress(ConnectionLoss):
        reconfig(two, leaving="1")
    wait_until(lambda: two.mode() == "leader", f"{two!r} leads\n{two.log_tail()}", 15)
    now = config_of(two)
    assert version_of(now) != version_of(text) and "server.1=" not in now
