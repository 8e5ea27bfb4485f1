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


@pytest.fixture
def reconfigurable(ensembles):
    """Ensembles whose members say in their server lines where clients connect; `listed` says who lists whom."""
    started = []

    def make(kinds, listed=lambda one, other: True, **config):
        ensemble = ensembles(kinds, config={"reconfigEnabled": "true", **config})
        started.append(ensemble)
        for one in ensemble:
            one.keeps_config = True
            one.config["clientPort"] = None
            for other in ensemble:
                one.config[f"server.{other.sid}"] = line(other) if listed(one, other) else None
        return ensemble

    yield make
    for ensemble in started:
        ensemble.close()


def restart(members):
    for one in members:
        one.kill()
    for one in members:
        one.spawn()


def test_several_addresses_are_refused_where_the_next_start_would_refuse_them(reconfigurable, mix):
    ensemble = reconfigurable(mix("???")).start()
    one = ensemble[1]
    before = config_of(one)
    second = f"{one.host}:{free_port()}:{free_port()}"
    several = f"{one.host}:{one.quorum_port}:{one.election_port}|{second};{one.host}:{one.port}"
    for fields in [{"joining": f"server.1={several}"},
                   {"members": f"server.1={several},server.2={line(ensemble[2])},server.3={line(ensemble[3])}"}]:
        with pytest.raises(BadArgumentsError):
            reconfig(ensemble[2], **fields)
    assert config_of(one) == before
    restart(ensemble)
    ensemble.wait_serving()


def test_a_client_port_that_moves_away_and_back_again_serves(reconfigurable, mix):
    ensemble = reconfigurable(mix("???")).start(leader=3)
    one = ensemble[1]
    marks = [(member, member.log_mark()) for member in ensemble]
    here, there = one.port, free_port()
    for port in there, here:
        moved = f"server.1={one.host}:{one.quorum_port}:{one.election_port};{one.host}:{port}"
        text = reconfig(ensemble[3], joining=moved)
        one.port = port
        wait_until(lambda: one.mode() == "follower", "clients are served there")
        await_config(ensemble, text)
    assert not any(member.said("cannot listen", mark) for member, mark in marks)


def test_what_others_allow_does_not_keep_a_server_from_starting(reconfigurable, mix):
    """Servers 2 and 3 may have several addresses, 1 is not set so; it gets the list all the same, and starts with it."""
    ensemble = reconfigurable(mix("???"), **{"multiAddress.enabled": lambda one: str(one.sid != 1).lower()})
    ensemble.start(leader=3)
    two = ensemble[2]
    second = f"{two.host}:{free_port()}:{free_port()}"
    text = reconfig(two, joining=f"server.2={two.host}:{two.quorum_port}:{two.election_port}|{second};{two.host}:{two.port}")
    assert "|" in text
    await_config(ensemble, text)
    restart(ensemble)
    ensemble.wait_serving()
    await_config(ensemble, text)


def test_an_own_address_that_does_not_resolve_is_done_without(reconfigurable, kind):
    ensemble = reconfigurable([kind] * 2, **{"multiAddress.enabled": "true"})
    for listed in ensemble:
        nowhere = f"nowhere{listed.sid}.invalid:{free_port()}:{free_port()}"
        several = f"{listed.host}:{listed.quorum_port}:{listed.election_port}|{nowhere};{listed.host}:{listed.port}"
        for one in ensemble:
            one.config[f"server.{listed.sid}"] = several
    ensemble.start()
    for one in ensemble if kind == "rookeeper" else []:
        assert one.said(rf"WARN.*nowhere{one.sid}\.invalid.*goes on with its other addresses")


@pytest.mark.parametrize("word", ["??", "?A", "A?"])
def test_servers_that_stopped_while_their_ports_moved_find_each_other(reconfigurable, mix, word):
    """Both know the old ports as those in force and the new ones as proposed."""
    ensemble = reconfigurable(mix(word)).start()
    check_files(ensemble, config_of(ensemble[1]))
    ensemble.close()
    for one in ensemble:
        one.quorum_port, one.election_port = free_port(), free_port()
    moved = "\n".join(f"server.{one.sid}={line(one)}" for one in ensemble) + "\nversion=200000000"
    for one in ensemble:
        (one.directory / "zoo.cfg.dynamic.next").write_text(moved)
        one.spawn()
    ensemble.wait_serving(deadline_s=30)
    await_config(ensemble, moved)
    check_files(ensemble, moved)


@pytest.mark.parametrize("word", ["????", "A?A?"])
@pytest.mark.parametrize("sees_it", [False, True], ids=["before", "meanwhile"])
def test_a_joiner_killed_before_it_hears_that_it_was_added_comes_back(reconfigurable, mix, word, sees_it):
    ensemble = reconfigurable(mix(word), listed=lambda one, other: other.sid < 4 or one.sid == 4)
    *first, four = ensemble
    for one in first[1:]:
        one.spawn()
    ensemble.wait_serving(first[1:])
    first[0].spawn()
    ensemble.wait_serving(first)
    four.spawn()
    wait_until(lambda: four.mode() == "follower", f"{four!r} follows\n{four.log_tail()}", 20)
    pointed = lambda: (four.directory / "zoo.cfg").read_text().startswith("#The last line names")
    wait_until(pointed, f"{four!r} has the list of the others, without itself", 5)
    if sees_it:
        # The others agree without it.
        four.pause()
        text = reconfig(first[0], joining=f"server.4={line(four)}")
    four.kill()
    mark = four.log_mark()
    four.spawn()
    wait_until(lambda: four.mode() == "follower", f"{four!r} follows again\n{four.log_tail()}", 20)
    assert four.said(r"WARN.*My id 4 \(.*myid\) not in the peer list of version 100000000, servers 1, 2, 3", mark)
    if not sees_it:
        text = reconfig(first[0], joining=f"server.4={line(four)}")
    await_config(ensemble, text)
    check_files(ensemble, text)
    # It has a vote: two of the four are no quorum, three are.
    first[0].kill()
    with client(four) as zk:
        zk.create("/by-three", b"x")
    ensemble.wait_serving([*first[1:], four])


def test_a_dynamic_file_that_was_cut_short_is_named(reconfigurable, kind):
    if kind == "apache":
        pytest.skip("Apache starts with what is left")
    ensemble = reconfigurable([kind] * 3).start()
    check_files(ensemble, config_of(ensemble[1]))
    one = ensemble[1]
    one.kill()
    path = one.directory / "zoo.cfg.dynamic.100000000"
    whole = path.read_bytes()
    path.write_bytes(whole[:whole.rindex(b"\n")])
    mark = one.log_mark()
    one.spawn()
    wait_until(lambda: not one.running(), f"{one!r} ends", 10)
    assert one.process.returncode == 2
    assert one.said(rf"{path}: the file is not as it was written: .* copy the members from another server", mark)
    # One of the others has it whole.
    path.write_bytes((ensemble[2].directory / path.name).read_bytes())
    one.spawn()
    ensemble.wait_serving()
