"""Servers whose histories are not of one ensemble: nothing that was acknowledged is given up without a copy or an operator."""

import contextlib
import shutil

import pytest

from ensemble import Ensemble, write_many
from server import wait_until

MIXES = {"alone": "???", "Apache leads": "?AA", "Apache was alone": "A??"}


@pytest.fixture(params=MIXES)
def kinds(request, mix, kind):
    if kind == "apache":
        pytest.skip("Apache gives the only copy up")
    found = mix(MIXES[request.param])
    if "apache" in found:
        request.getfixturevalue("apache_jars")
    return found


@contextlib.contextmanager
def alone(member):
    """The same server without a list of members."""
    listed = {key: member.config.pop(key) for key in list(member.config) if key.startswith("server.")}
    member.start()
    yield
    member.terminate()
    member.config.update(listed)


def logged(member):
    """What its logs hold, without the padding."""
    return {path.name: path.read_bytes().rstrip(b"\0") for path in member.log_files()}


def still_has(member, logs):
    return all((member.data_dir / "version-2" / name).read_bytes().startswith(data) for name, data in logs.items())


def test_the_only_copy_of_the_data_is_not_given_up_for_an_empty_ensemble(kinds, tmp_path):
    ensemble = Ensemble(tmp_path, kinds)
    one, two, three = ensemble
    try:
        with alone(one):
            write_many(one, "/old", 20)
        old = logged(one)
        ensemble.wait_serving([two.spawn(), three.spawn()])
        write_many(three, "/new", 5)
        one.spawn()
        out = one if one.kind == "rookeeper" else three
        wait_until(lambda: out.said(r"ERROR.*(acknowledged when it was alone|that no election led to)"), "the ERROR", 60)
        assert one.mode() is None and two.mode() and three.mode()
        assert still_has(one, old)
        if one.kind == "rookeeper":
            one.terminate()
            (one.data_dir / "give-up-history").touch()
            one.spawn()
            ensemble.wait_serving()
            ensemble.check_equal()
            kept = list((one.data_dir / "version-2").glob("replaced-*"))
            assert kept and any(kept[0].glob("log.*"))
            assert one.said(r"WARN.*replaced by the leader's history")
            assert not (one.data_dir / "give-up-history").exists()
    finally:
        ensemble.close()


@pytest.mark.parametrize("word", ["???", "?AA", "A??"])
def test_who_kept_a_history_of_a_later_epoch_does_not_depose_those_that_lost_theirs(start_ensemble, mix, kind, word):
    if kind == "apache":
        pytest.skip("Apache's leader steps down for it")
    ensemble = start_ensemble(mix(word))
    one, two, three = ensemble
    write_many(one, "/old", 20)
    for _ in range(2):
        leader = ensemble.leader()
        leader.kill()
        ensemble.wait_serving(ensemble.others(leader))
        leader.spawn()
        ensemble.wait_serving()
    for member in ensemble:
        member.kill()
    for member in (two, three):
        shutil.rmtree(member.data_dir / "version-2")
        member.spawn()
    leader = ensemble.wait_serving([two, three])
    write_many(three, "/new", 3)
    one.spawn()
    says = one if one.kind == "rookeeper" else leader
    wait_until(lambda: says.said(r"ERROR.* history of epoch"), "the ERROR", 60)
    write_many(two, "/later", 3)
    assert one.mode() is None and leader.mode() == "leader"

    def check():
        trees = [member.tree() for member in (two, three)]
        assert trees[0] == trees[1]
        assert [sum(path.startswith(name) for path in trees[0]) for name in ("/old/", "/new/", "/later/")] == [0, 3, 3]

    check()
    if word == "A??":
        # Nor does it take the leader's place when that is gone: the follower has heard of it.
        follower = two if leader is three else three
        wait_until((follower.data_dir / "version-2" / "foreign-histories").exists, "it hears of it", 20)
        mark = follower.log_mark()
        leader.kill()
        wait_until(lambda: follower.said(r"ERROR.*does not help to elect server 1: its history of epoch 0x3", mark),
                   "the ERROR", 60)
        assert one.mode() is None and follower.mode() is None
        # Each of the two knows it when it starts, too.
        follower.terminate()
        for member in (leader, follower):
            member.spawn()
        ensemble.wait_serving([two, three])
        check()
        # What the ERROR says: its data are moved away. It counts from then on.
        one.kill()
        shutil.rmtree(one.data_dir / "version-2")
        one.spawn()
        ensemble.wait_serving()
        ensemble.check_equal()
        leader = ensemble.leader()
        leader.kill()
        ensemble.wait_serving(ensemble.others(leader))


def test_a_history_that_only_the_zxids_join_to_an_apache_leaders_is_replaced(start_ensemble, mix, kind):
    """Both began with epoch 1. Apache's leader sends a DIFF; the first digest behind it says that it does not fit."""
    if kind == "apache":
        pytest.skip("Apache counts a wrong digest and stays different")
    ensemble = start_ensemble(mix("?AA"))
    one, two, three = ensemble
    write_many(one, "/old", 20)
    for member in ensemble:
        member.kill()
    for member in (two, three):
        shutil.rmtree(member.data_dir / "version-2")
        member.spawn()
    ensemble.wait_serving([two, three])
    write_many(three, "/new", 40)
    one.spawn()
    wait_until(lambda: one.said(r"WARN.*is another one than that of the leader"), "the WARN", 60)
    ensemble.wait_serving()
    found = one.digest_mismatches()
    write_many(one, "/later", 5)
    trees = [member.tree() for member in ensemble]
    assert trees[0] == trees[1] == trees[2]
    assert [sum(path.startswith(name) for path in trees[0]) for name in ("/old/", "/new/", "/later/")] == [0, 40, 5]
    assert one.digest_mismatches() == found
    assert one.said(r"WARN.*\d+ transactions, up to 0x1\w+, are replaced by the leader's history")
    kept = [log.read_bytes() for log in (one.data_dir / "version-2").glob("replaced-*/log.*")]
    assert any(b"/old/n0000000019" in log for log in kept)


def test_an_apache_server_with_the_only_copy_is_not_told_to_forget_it(start_ensemble, mix, kind):
    """The leader is of a later epoch, so that nothing but the epoch of its own history says that something was lost."""
    if kind == "apache":
        pytest.skip("Apache has it deleted")
    ensemble = start_ensemble(mix("A??"))
    one, two, three = ensemble
    write_many(one, "/old", 20)
    for member in ensemble:
        member.kill()
    old = logged(one)
    for member in (two, three):
        folder = member.data_dir / "version-2"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "acceptedEpoch").write_text("5\n")
        member.spawn()
    leader = ensemble.wait_serving([two, three])
    one.spawn()
    wait_until(lambda: leader.said(r"ERROR.*server 1 comes with a history up to 0x1\w+ that no election led to"), "the ERROR", 60)
    write_many(two, "/new", 5)
    assert one.mode() is None and leader.mode() == "leader"
    assert still_has(one, old)


def test_a_history_that_one_server_found_to_be_another_one_is_refused_by_its_leader_too(start_ensemble, mix, kind):
    """All began with epoch 1. Server 1 finds out behind the Apache leader; server 2, which leads next, has but zxids."""
    if kind == "apache":
        pytest.skip("Apache has it deleted")
    ensemble = start_ensemble(mix("??A"))
    one, two, three = ensemble
    write_many(three, "/old", 20)
    for member in ensemble:
        member.kill()
    old = logged(three)
    for member in (one, two):
        shutil.rmtree(member.data_dir / "version-2")
        member.spawn()
    ensemble.wait_serving([one, two])
    write_many(one, "/new", 3)
    for member in (one, two):
        member.kill()
    three.spawn()
    one.spawn()
    wait_until(lambda: one.said(r"WARN.*is another one than that of the leader"), "the WARN", 60)
    two.spawn()
    leader = ensemble.wait_serving([one, two])
    wait_until(lambda: leader.said(r"ERROR.*server 3 comes with a history up to 0x1\w+ that no election led to"), "the ERROR", 60)
    write_many(two, "/later", 3)
    assert three.mode() is None and leader.mode() == "leader"
    trees = [member.tree() for member in (one, two)]
    assert trees[0] == trees[1]
    assert [sum(path.startswith(name) for path in trees[0]) for name in ("/old/", "/new/", "/later/")] == [0, 3, 3]
    assert still_has(three, old)


def test_a_member_that_comes_back_with_an_older_copy_of_its_data_takes_what_it_lacks(start_ensemble, kind):
    if kind == "apache":
        pytest.skip("what Apache does with it is its own affair")
    ensemble = start_ensemble([kind] * 3)
    one, *others = ensemble
    write_many(one, "/before", 20)
    one.terminate()
    data = one.data_dir / "version-2"
    shutil.copytree(data, one.directory / "older")
    one.spawn()
    ensemble.wait_serving()
    write_many(one, "/after", 20)
    one.terminate()
    write_many(others[0], "/meanwhile", 5)
    shutil.rmtree(data)
    shutil.copytree(one.directory / "older", data)
    mark = one.log_mark()
    one.spawn()
    ensemble.wait_serving()
    tree = ensemble.check_equal()
    assert [sum(path.startswith(name) for path in tree) for name in ("/before/", "/after/", "/meanwhile/")] == [20, 20, 5]
    # What it had is a part of what the others have: nothing is set aside.
    assert not one.said(r"ERROR|replaced by the leader's history", mark)
    assert not list(data.glob("replaced-*")) and not list(data.glob("cut-*"))


def test_who_joins_with_a_history_of_its_own_gives_none_of_it_up(start_ensemble, kind, tmp_path):
    if kind == "apache":
        pytest.skip("Apache deletes what it has")
    ensemble = Ensemble(tmp_path, [kind] * 4, config={"reconfigEnabled": "true"})
    *first, four = ensemble
    for one in first:
        one.config.pop("server.4")
    try:
        with alone(four):
            write_many(four, "/own", 20)
        own = logged(four)
        for one in first:
            one.spawn()
        ensemble.wait_serving(first)
        write_many(first[0], "/new", 5)
        four.spawn()
        wait_until(lambda: four.said(r"ERROR.*acknowledged when it was alone"), "the ERROR", 60)
        assert four.mode() is None and still_has(four, own)
        four.terminate()
        (four.data_dir / "give-up-history").touch()
        four.spawn()
        ensemble.wait_serving()
        assert four.tree() == first[0].tree()
        kept = list((four.data_dir / "version-2").glob("replaced-*"))
        assert kept and any(kept[0].glob("log.*"))
    finally:
        ensemble.close()
