"""Creating nodes: kinds, flags, suffixes, and which error comes first."""

import pytest

from rawzk import ALL, OPEN, READ, Err, Flag, Op, acl, buf, create_record, i32, i64, ustr
from server import wait_until

MAX_TTL = (1 << 40) - 1
UNREADABLE = acl((READ, "world", "anyone"))


@pytest.mark.parametrize("flag, suffix, owned", [
    (Flag.PERSISTENT, "", False), (Flag.EPHEMERAL, "", True),
    (Flag.SEQUENTIAL, "0000000000", False), (Flag.EPHEMERAL_SEQUENTIAL, "0000000000", True),
])
def test_each_flag_makes_its_kind_of_node(zk, root, flag, suffix, owned):
    reply = zk.create(root + "/n", b"v", flags=flag)
    assert reply.ok().body == ustr(root + "/n" + suffix)
    stat = zk.exists(reply.path()).stat()
    assert stat.ephemeralOwner == (zk.session if owned else 0)
    assert (stat.czxid, stat.mzxid, stat.pzxid) == (reply.zxid,) * 3
    assert (stat.version, stat.cversion, stat.aversion, stat.numChildren) == (0, 0, 0, 0)
    assert stat.ctime == stat.mtime and stat.dataLength == 1


@pytest.mark.parametrize("flag", range(4))
def test_create2_also_returns_the_stat_a_read_will_show(zk, root, flag):
    path, stat = zk.create2(root + "/n", b"12345", flags=flag).path_and_stat()
    assert zk.get(path).data_and_stat() == (b"12345", stat)


def test_containers_and_ttl_nodes_do_not_show_an_owner(zk, root):
    for reply in [zk.create_container(root + "/c"), zk.create_ttl(root + "/t", MAX_TTL),
                  zk.create_ttl(root + "/s", 60000, flags=Flag.SEQUENTIAL_TTL)]:
        path, stat = reply.path_and_stat()
        assert stat.ephemeralOwner == 0
        assert zk.exists(path).stat() == stat


def test_containers_and_ttl_nodes_may_have_children(zk, root):
    zk.create_container(root + "/c").ok()
    zk.create_ttl(root + "/t", 60000).ok()
    for parent in ("/c", "/t"):
        zk.create(root + parent + "/child").ok()
        zk.create(root + parent + "/ephemeral", flags=Flag.EPHEMERAL).ok()


def test_the_suffix_counts_every_child_ever_created(zk, root):
    for name, flag in [("b", 0), ("s-", 2), ("", 2), ("e", 3)]:
        zk.create(f"{root}/{name}", flags=flag).ok()
    assert zk.children(root).names() == ["0000000002", "b", "e0000000003", "s-0000000001"]
    zk.delete(root + "/b").ok()
    assert zk.create(root + "/q", flags=2).path() == root + "/q0000000004"


def test_a_failed_create_does_not_count(zk, root):
    zk.create(root + "/a").ok()
    assert zk.create(root + "/a").err == Err.NODE_EXISTS
    assert zk.create(root + "/q", flags=2).path() == root + "/q0000000001"


def test_pipelined_sequential_creates_are_numbered_in_order(zk, root):
    for _ in range(50):
        zk.post(Op.CREATE, create_record(root + "/q", flags=Flag.SEQUENTIAL))
    assert [zk.next().path() for _ in range(50)] == [f"{root}/q{number:010}" for number in range(50)]


# -- flags and their errors

@pytest.mark.parametrize("op", [Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER])
@pytest.mark.parametrize("flag", [7, -1, 99, 2**31 - 1])
def test_an_unknown_flag_is_a_bad_argument(zk, root, op, flag):
    assert zk.create(root + "/x", flags=flag, op=op).err == Err.BAD_ARGUMENTS
    assert zk.create_ttl(root + "/x", 1000, flags=flag).err == Err.BAD_ARGUMENTS


@pytest.mark.parametrize("op", [Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER])
@pytest.mark.parametrize("flag", [Flag.TTL, Flag.SEQUENTIAL_TTL])
def test_only_create_ttl_makes_ttl_nodes(zk, root, op, flag):
    assert zk.create(root + "/x", flags=flag, op=op).err == Err.BAD_ARGUMENTS


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, -2**63, 2**63 - 1])
def test_a_ttl_outside_its_range_is_a_bad_argument(zk, root, ttl):
    assert zk.create_ttl(root + "/x", ttl).err == Err.BAD_ARGUMENTS


@pytest.mark.parametrize("flag", range(5))
def test_create_ttl_with_another_flag_is_a_bad_argument(zk, root, flag):
    assert zk.create_ttl(root + "/x", 1000, flags=flag).err == Err.BAD_ARGUMENTS


@pytest.mark.rookeeper_only("a negative TTL with a flag that is not TTL breaks Apache's server")
def test_create_ttl_with_another_flag_and_a_negative_ttl_is_a_bad_argument(zk, root):
    assert zk.create_ttl(root + "/x", -1, flags=Flag.PERSISTENT).err == Err.BAD_ARGUMENTS


def test_ttl_nodes_need_extended_types(connect, defaults):
    zk = connect(port=defaults.port)
    assert zk.create_ttl("/ttl", 1000).err == Err.UNIMPLEMENTED
    assert zk.create_ttl("/ttl", 1000, flags=Flag.SEQUENTIAL_TTL).err == Err.UNIMPLEMENTED
    assert zk.create("/ttl", flags=Flag.TTL).err == Err.UNIMPLEMENTED
    assert zk.create2("/ttl", flags=Flag.SEQUENTIAL_TTL).err == Err.UNIMPLEMENTED


def test_the_operation_and_not_the_flag_makes_a_container(zk, root):
    """Op 19 makes a container whatever the flag; ops 1 and 15 with the container flag a plain node."""
    zk.create_container(root + "/container", flags=Flag.PERSISTENT).ok()
    zk.create(root + "/plain", flags=Flag.CONTAINER).ok()
    zk.create2(root + "/plain2", flags=Flag.CONTAINER).ok()
    for parent in ("/container", "/plain", "/plain2"):
        zk.create(root + parent + "/child").ok()
        zk.delete(root + parent + "/child").ok()
    wait_until(lambda: zk.exists(root + "/container").err == Err.NO_NODE, "the empty container is removed")
    zk.exists(root + "/plain").ok()
    zk.exists(root + "/plain2").ok()


# -- which error wins: each case breaks all later rules too

def test_the_first_broken_rule_names_the_error(zk, root):
    zk.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    zk.create(root + "/closed", acls=UNREADABLE).ok()
    none = i32(0)
    cases = [
        # no slash beats the acl, the acl beats the parent, the parent beats its permission …
        ("bad flag", "noslash", none, 77, Err.BAD_ARGUMENTS),
        ("no slash", "noslash", none, 0, Err.BAD_ARGUMENTS),
        ("nul", root + "/a\x00", none, 0, Err.BAD_ARGUMENTS),
        ("acl", root + "/nope/.", none, 0, Err.INVALID_ACL),
        ("parent", root + "/nope/.", OPEN, 0, Err.NO_NODE),
        ("permission", root + "/closed/.", OPEN, 0, Err.NO_AUTH),
        ("path", root + "/e/.", OPEN, 0, Err.BAD_ARGUMENTS),
        ("ephemeral parent", root + "/e/child", OPEN, 0, Err.NO_CHILDREN_FOR_EPHEMERALS),
        ("ephemeral parent", root + "/e/child", OPEN, Flag.EPHEMERAL, Err.NO_CHILDREN_FOR_EPHEMERALS),
        ("exists", root + "/e", OPEN, 0, Err.NODE_EXISTS),
    ]
    for what, path, acls, flags, err in cases:
        assert zk.create(path, acls=acls, flags=flags).err == err, what


def test_a_bad_ttl_beats_everything_after_it(zk):
    assert zk.create_ttl("noslash", 0, acls=i32(0)).err == Err.BAD_ARGUMENTS
    assert zk.call(Op.CREATE_TTL, create_record("/a") + i32(0)).err == Err.MARSHALLING
    assert zk.call(Op.CREATE_TTL, ustr("/a") + buf(b"") + OPEN + i32(Flag.TTL) + i64(-5)).err == Err.BAD_ARGUMENTS


def test_creating_the_root_finds_it_there(zk):
    assert zk.create("/").err == Err.NODE_EXISTS


def test_a_failed_create_leaves_the_parent_alone(zk, root):
    before = zk.exists(root).stat()
    assert zk.create(root + "/.").err == Err.BAD_ARGUMENTS
    assert zk.create(root + "/x", acls=acl((ALL, "nope", "x"))).err == Err.INVALID_ACL
    assert zk.exists(root).stat() == before
