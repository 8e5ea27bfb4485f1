"""multi and multiRead: exact bytes, all or nothing, and what a multi sees of itself."""

import pytest

from rawzk import (ALL, MULTI_END, OPEN, READ, WRITE, Err, Flag, Op, acl, boolean, buf, create_record, i32, multi_record,
                   op_check, op_children, op_create, op_create_ttl, op_delete, op_get, op_set, strings, ustr)
from server import wait_until

ROLLED_BACK, AFTER = 0, Err.RUNTIME_INCONSISTENCY


def failed(*errors):
    """The results of a failed multi."""
    return [(Op.ERROR, err, err) for err in errors]


def result_header(op, err=0):
    return i32(op) + b"\x00" + i32(err)


# -- bytes

def test_a_successful_multi_byte_for_byte(zk, root):
    a = root + "/a"
    reply = zk.multi(op_create(a, b"1"), op_set(a, b"2"), op_check(a, 1), op_delete(a))
    stat = reply.results()[1][2]
    assert (stat.czxid, stat.mzxid, stat.version, stat.dataLength) == (reply.zxid, reply.zxid, 1, 1)
    stat_bytes = reply.body[9 + len(ustr(a)) + 9:][:68]
    assert reply.body == (result_header(Op.CREATE) + ustr(a) + result_header(Op.SET_DATA) + stat_bytes
                          + result_header(Op.CHECK) + result_header(Op.DELETE) + MULTI_END)


def test_a_failed_multi_byte_for_byte(zk, root):
    reply = zk.multi(op_create(root + "/a"), op_check(root + "/nope"), op_create(root + "/b"))
    errors = (ROLLED_BACK, Err.NO_NODE, AFTER)
    assert reply.err == 0
    assert reply.body == b"".join(result_header(Op.ERROR, err) + i32(err) for err in errors) + MULTI_END


def test_an_unreadable_check_byte_for_byte(zk, root):
    zk.create(root + "/w", acls=acl((WRITE, "world", "anyone"))).ok()
    reply = zk.multi(op_check(root + "/w"))
    assert reply.body.hex() == "ffffffff00ffffff9affffff9affffffff01ffffffff"


def test_an_empty_multi_is_only_a_terminator_and_takes_a_zxid(connect, start_server):
    zk = connect(port=start_server().port)
    before = zk.ping().zxid
    reply = zk.multi()
    assert (reply.err, reply.zxid, reply.body.hex()) == (0, before + 1, "ffffffff01ffffffff")
    reply = zk.multi_read()
    assert (reply.err, reply.zxid, reply.body.hex()) == (0, before + 1, "ffffffff01ffffffff")


def test_a_failed_multi_takes_one_zxid(connect, start_server):
    zk = connect(port=start_server().port)
    before = zk.ping().zxid
    assert zk.multi(op_create("/a"), op_delete("/nope")).zxid == before + 1
    reply = zk.multi(op_create("/a"), op_create("/b"))
    assert reply.zxid == before + 2
    assert zk.exists("/b").stat().czxid == before + 2


def test_every_kind_of_create_has_its_result_type(zk, root, kind):
    results = zk.multi(
        op_create(root + "/1"), op_create(root + "/15", op=Op.CREATE2),
        op_create(root + "/19", op=Op.CREATE_CONTAINER, flags=Flag.CONTAINER), op_create_ttl(root + "/21", 60000),
    ).results()
    create2 = Op.CREATE if kind == "apache" else Op.CREATE2  # 3.8.0 lost the stat of create2; 3.8.2 gives it
    assert [result[0] for result in results] == [Op.CREATE, create2, Op.CREATE2, Op.CREATE2]
    for index, name in [(2, "/19"), (3, "/21")] + ([] if kind == "apache" else [(1, "/15")]):
        assert results[index][2] == (root + name, zk.exists(root + name).stat())


# -- what may be inside

@pytest.mark.parametrize("op, record", [
    (Op.GET_DATA, ustr("/") + b"\x00"), (Op.GET_CHILDREN, ustr("/") + b"\x00"), (Op.EXISTS, ustr("/") + b"\x00"),
    (Op.SET_ACL, ustr("/") + OPEN + i32(-1)), (Op.SYNC, ustr("/")), (Op.PING, b""), (99, b""), (Op.MULTI, MULTI_END),
])
def test_other_operations_spoil_the_whole_multi(zk, root, op, record):
    reply = zk.multi(op_create(root + "/a"), (op, record))
    assert (reply.err, reply.body) == (Err.MARSHALLING, b"")
    assert zk.exists(root + "/a").err == Err.NO_NODE


@pytest.mark.parametrize("ops", [
    [op_create("/a")], [op_check("/")], [op_get("/"), op_delete("/a")], [(Op.EXISTS, ustr("/") + b"\x00")],
])
def test_other_operations_spoil_the_whole_multi_read(zk, ops):
    reply = zk.multi_read(*ops)
    assert reply.err == Err.MARSHALLING
    assert reply.body in (b"", MULTI_END)  # Apache sends the empty list when all operations are writes


def test_a_multi_without_its_terminator_is_malformed(zk, root):
    record = multi_record([op_create(root + "/a")])[:-9]
    assert zk.call(Op.MULTI, record).err == Err.MARSHALLING
    assert zk.exists(root + "/a").err == Err.NO_NODE


def test_a_bad_path_is_an_error_of_its_operation(zk, root):
    assert zk.multi(op_create(root + "/.")).results() == failed(Err.BAD_ARGUMENTS)
    assert zk.multi(op_set("x")).results() == failed(Err.BAD_ARGUMENTS)
    assert zk.multi(op_check("/b/../a")).results() == failed(Err.BAD_ARGUMENTS)


@pytest.mark.parametrize("flag", [7, -1])
def test_a_bad_flag_or_acl_is_an_error_of_its_operation(zk, root, flag):
    assert zk.multi(op_create(root + "/a"), op_create(root + "/b", flags=flag)).results() == failed(
        ROLLED_BACK, Err.BAD_ARGUMENTS)
    assert zk.multi(op_create(root + "/a", acls=i32(0))).results() == failed(Err.INVALID_ACL)
    assert zk.multi(op_create(root + "/a", acls=i32(-1))).results() == failed(Err.INVALID_ACL)


# -- what it sees

def test_later_operations_see_earlier_ones(zk, root):
    a = root + "/a"
    zk.multi(op_create(a), op_create(a + "/b"), op_create(a + "/b/c"), op_delete(a + "/b/c"), op_delete(a + "/b"),
             op_delete(a), op_create(a, b"again"), op_set(a, b"", 0), op_set(a, b"2", 1), op_check(a, 2)).results()
    assert zk.get(a).data() == b"2"
    assert zk.exists(a).stat().version == 2


def test_create_child_delete_leaves_nothing(zk, root):
    zk.multi(op_create(root + "/a"), op_create(root + "/a/b"), op_delete(root + "/a/b"), op_delete(root + "/a"))
    assert zk.children(root).names() == []
    assert zk.exists(root).stat().cversion == 2


def test_sequential_names_count_on_within_a_multi(zk, root):
    results = zk.multi(*[op_create(root + "/s", flags=Flag.SEQUENTIAL)] * 3).results()
    assert [path for _, _, path in results] == [f"{root}/s{number:010}" for number in range(3)]


def test_a_failed_multi_rolls_counters_and_versions_back(zk, root):
    zk.multi(op_create(root + "/s", flags=Flag.SEQUENTIAL), op_set(root), op_check("/nope"))
    assert zk.create(root + "/s", flags=Flag.SEQUENTIAL).path() == root + "/s0000000000"
    assert zk.exists(root).stat().version == 0


def test_pipelined_failing_multis_all_see_the_right_state(zk, root):
    """ZOOKEEPER-1624: rolled-back changes of one multi must not confuse the next ones in the pipeline."""
    for _ in range(20):
        zk.post(Op.MULTI, multi_record([op_create(root + "/s", flags=Flag.SEQUENTIAL), op_create(root + "/dup")]))
    first, *others = [zk.next().results() for _ in range(20)]
    assert first == [(Op.CREATE, 0, root + "/s0000000000"), (Op.CREATE, 0, root + "/dup")]
    assert others == [failed(ROLLED_BACK, Err.NODE_EXISTS)] * 19


def test_a_multi_sees_pipelined_writes_before_it(zk, root):
    zk.post(Op.CREATE, create_record(root + "/a"))
    zk.post(Op.MULTI, multi_record([op_check(root + "/a", 0), op_delete(root + "/a")]))
    zk.post(Op.CREATE, create_record(root + "/a"))
    replies = [zk.next() for _ in range(3)]
    assert [reply.err for reply in replies] == [0, 0, 0]
    assert replies[1].results() == [(Op.CHECK, 0, None), (Op.DELETE, 0, None)]


def test_deleting_parent_and_child_in_the_wrong_order_fails(zk, root):
    zk.create(root + "/a").ok()
    zk.create(root + "/a/b").ok()
    assert zk.multi(op_delete(root + "/a"), op_delete(root + "/a/b")).results() == failed(Err.NOT_EMPTY, AFTER)
    zk.multi(op_delete(root + "/a/b"), op_delete(root + "/a")).ok()
    assert zk.exists(root + "/a").err == Err.NO_NODE


def test_everything_in_a_multi_shares_zxid_and_time(zk, root):
    zxid = zk.multi(op_create(root + "/a"), op_create(root + "/b"), op_create(root + "/a/c")).zxid
    stats = [zk.exists(root + name).stat() for name in ("/a", "/b", "/a/c")]
    assert {stat.czxid for stat in stats} == {zxid}
    assert len({stat.ctime for stat in stats}) == 1


def test_ephemerals_may_be_made_in_a_multi(zk, root):
    zk.multi(op_create(root + "/e", flags=Flag.EPHEMERAL), op_create(root + "/s", flags=Flag.EPHEMERAL_SEQUENTIAL)).ok()
    assert zk.ephemerals().names() == [root + "/e", root + "/s0000000001"]
    assert zk.multi(op_create(root + "/e2", flags=Flag.EPHEMERAL), op_create(root + "/e2/child")).results() == failed(
        ROLLED_BACK, Err.NO_CHILDREN_FOR_EPHEMERALS)


def test_inside_a_multi_the_flag_makes_the_container(zk, root):
    zk.multi(op_create(root + "/c", flags=Flag.CONTAINER)).ok()
    zk.create(root + "/c/child").ok()
    zk.delete(root + "/c/child").ok()
    wait_until(lambda: zk.exists(root + "/c").err == Err.NO_NODE, "the container made in a multi is removed")


def test_permissions_are_checked_for_every_operation(zk, root):
    zk.create(root + "/r", acls=acl((READ, "world", "anyone"))).ok()
    assert zk.multi(op_check(root + "/r"), op_set(root + "/r")).results() == failed(ROLLED_BACK, Err.NO_AUTH)
    assert zk.multi(op_check(root + "/r"), op_create(root + "/r/x")).results() == failed(ROLLED_BACK, Err.NO_AUTH)


def test_1500_operations_fit_into_a_multi(zk, root):
    results = zk.multi(*[op_create(f"{root}/{number}", b"x" * 50) for number in range(1500)]).results()
    assert len(results) == 1500
    assert zk.exists(root).stat().numChildren == 1500


# -- multiRead

def test_multi_read_answers_each_operation(zk, root):
    zk.create(root + "/a", b"data").ok()
    zk.create(root + "/w", acls=acl((WRITE, "world", "anyone"), (ALL, "digest", "a:b"))).ok()
    reply = zk.multi_read(op_get(root + "/a"), op_children(root), op_get(root + "/nope"), op_get(root + "/w"),
                          op_children(root + "/a"))
    stat = zk.exists(root + "/a")
    names = zk.children(root).body
    assert reply.body in {
        result_header(Op.GET_DATA) + buf(b"data") + stat.body + result_header(Op.GET_CHILDREN) + children
        + result_header(Op.ERROR, Err.NO_NODE) + i32(Err.NO_NODE)
        + result_header(Op.ERROR, Err.NO_AUTH) + i32(Err.NO_AUTH)
        + result_header(Op.GET_CHILDREN) + i32(0) + MULTI_END
        for children in (names, strings(["a", "w"]), strings(["w", "a"]))}


def test_multi_read_takes_no_zxid_and_sets_no_watch(connect, start_server):
    zk = connect(port=start_server().port)
    zxid = zk.create("/a").zxid
    assert zk.multi_read((Op.GET_DATA, ustr("/a") + boolean(True))).zxid == zxid
    zk.set("/a", b"x").ok()
    assert zk.fired() == []
