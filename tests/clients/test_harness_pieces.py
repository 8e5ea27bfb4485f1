"""The parts of the harness that could hide a failure, tested without a server."""

import pytest

from history import PAIR, REGISTERS, Done, History
from load import Writer
from rawzk import Op, Reply, Stat, i32, multi_record, op_check
from workload import differences


def writer(state, pending, found):
    one = Writer(port=0, index=0, seed=1)
    one.state = state
    one.pending.extend(pending)
    one.found = lambda: found
    return one


@pytest.mark.parametrize("found", [{"a": b"1"}, {"a": b"2"}, {}])
def test_a_writer_accepts_what_was_acknowledged_and_any_prefix_of_the_rest(found):
    one = writer({"a": b"1"}, [{"a": b"2"}, {"a": None}], found)
    one.settle()
    assert one.state == found and not one.pending


@pytest.mark.parametrize("found", [{"a": b"0"}, {"a": b"1", "x": b"1"}, {"x": b"1"}, {}])
def test_a_writer_refuses_lost_reordered_and_torn_writes(found):
    with pytest.raises(AssertionError):
        writer({"a": b"1"}, [{"a": b"2"}, {"x": b"1", "y": b"1"}], found).settle()


def test_differences_name_the_path():
    assert differences({"/a": 1}, {"/a": 1}) == ""
    assert "/b" in differences({"/a": 1, "/b": 2}, {"/a": 1, "/b": 3})


def test_results_of_a_multi_are_taken_apart():
    body = i32(-1) + b"\x00" + i32(-101) + i32(-101) + i32(-1) + b"\x01" + i32(-1)
    assert Reply(1, 1, 0, body).results() == [(Op.ERROR, -101, -101)]
    assert multi_record([op_check("/a", 3)]).endswith(i32(-1) + b"\x01" + i32(-1))
    with pytest.raises(AssertionError):
        Reply(1, 1, 0, body + b"x").results()


def test_a_stat_is_68_bytes():
    assert Reply(1, 1, 0, bytes(68)).stat() == Stat(*[0] * 11)


# -- the checker of histories

PATH = REGISTERS[0]
NOTHING = (b"start", Stat(1, 1, 0, 0, 0, 0, 0, 0, 5, 0, 1), [])


def told(*done, tree=None):
    """A history of these requests, and the tree it is said to have left."""
    history = History.__new__(History)
    history.done = list(done)
    empty = {path: NOTHING for path in REGISTERS + PAIR}
    return lambda **options: history.check({**empty, **(tree or {})}, **options)


def wrote(begin, end, zxid, version, session=0, value=None):
    return Done("set", 1, (session, 0), PATH, value or b"v%d" % version, begin, end, zxid, zxid, version)


def read(begin, end, zxid, mzxid, version, session=1, kind="read", server=2):
    return Done(kind, server, (session, 0), PATH, b"v%d" % version, begin, end, zxid, mzxid, version)


def node(zxid, version, value=None):
    return {PATH: (value or b"v%d" % version, Stat(1, zxid, 0, 0, version, 0, 0, 0, 2, 0, 1), [])}


UNANSWERED = Done("set", 1, (2, 0), PATH, b"?", 0.5, None)
RIGHT = [
    told(wrote(1, 2, 10, 1), tree=node(10, 1)),
    told(wrote(1, 2, 10, 1), wrote(3, 4, 11, 2), read(3, 5, 11, 10, 1), tree=node(11, 2)),
    told(wrote(1, 4, 11, 2), wrote(2, 3, 10, 1, session=3), tree=node(11, 2)),
    told(UNANSWERED, wrote(1, 2, 10, 1), tree=node(11, 2, b"?")),
    told(wrote(1, 2, 10, 1), read(1.5, 3, 9, 1, 0, kind="synced"), tree=node(10, 1)),
]
WRONG = {
    "a lost write": told(wrote(1, 2, 10, 1), wrote(3, 4, 11, 2), tree=node(10, 1)),
    "a lost node": told(wrote(1, 2, 10, 1), Done("create", 1, (0, 0), "/history/log/0-1", b"", 1, 2, 9), tree=node(10, 1)),
    "a write that happened twice": told(wrote(1, 2, 10, 1), tree=node(11, 2, b"v1")),
    "an order against time": told(wrote(1, 2, 11, 2), wrote(3, 4, 10, 1), tree=node(11, 2)),
    "one zxid for two": told(wrote(1, 2, 10, 1), wrote(1, 4, 10, 2), tree=node(10, 2)),
    "two histories": told(wrote(1, 2, 10, 1), read(3, 4, 10, 9, 1), tree=node(10, 1)),
    "two values": told(wrote(1, 2, 10, 1, value=b"a"), read(3, 4, 10, 10, 1), tree=node(10, 1, b"a")),
    "a session that goes back": told(wrote(1, 2, 10, 1), read(3, 4, 10, 10, 1), read(5, 6, 10, 1, 0), tree=node(10, 1)),
    "a server that is behind": told(wrote(1, 2, 10, 1), read(3, 4, 10, 10, 1), read(5, 6, 9, 10, 1), tree=node(10, 1)),
    "a sync in vain": told(wrote(1, 2, 10, 1), read(3, 4, 9, 1, 0, kind="synced"), tree=node(10, 1)),
    "half a multi": told(wrote(1, 2, 10, 1), tree={**node(10, 1), PAIR[0]: node(9, 1)[PATH]}),
}


@pytest.mark.parametrize("check", RIGHT)
def test_a_right_history_passes(check):
    check()


@pytest.mark.parametrize("check", WRONG.values(), ids=WRONG)
def test_a_wrong_history_is_caught(check):
    with pytest.raises(AssertionError):
        check()


def test_a_stale_sync_is_excused_where_it_is_announced():
    check = told(wrote(1, 2, 10, 1), read(3, 4, 9, 1, 0, kind="synced", server=2), tree=node(10, 1))
    check(stale_syncs_on=[2])
