"""The parts of the harness that could hide a failure, tested without a server."""

import pytest

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
