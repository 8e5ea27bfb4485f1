"""setData, delete, setACL and check: versions, errors in order, and what they do to a stat."""

import pytest

from rawzk import ALL, OPEN, READ, CREATE, DELETE, Closed, Err, Flag, Op, acl, i32, op_check, ustr

CLOSED = acl((0, "world", "anyone"))


# -- stat

def test_set_data_returns_the_stat_a_read_will_show(zk, root):
    created = zk.exists(root).stat()
    reply = zk.set(root, b"new data")
    stat = reply.stat()
    assert (stat.version, stat.mzxid, stat.dataLength) == (1, reply.zxid, 8)
    assert (stat.czxid, stat.pzxid, stat.ctime, stat.cversion) == (created.czxid, created.pzxid, created.ctime, 0)
    assert zk.get(root).data_and_stat() == (b"new data", stat)


def test_setting_the_same_data_is_a_change(zk, root):
    first = zk.set(root, b"same").stat()
    second = zk.set(root, b"same").stat()
    assert (second.version, second.mzxid > first.mzxid) == (first.version + 1, True)


def test_children_change_only_cversion_and_pzxid_of_the_parent(zk, root):
    before = zk.exists(root).stat()
    created = zk.create(root + "/a").zxid
    assert zk.exists(root).stat() == before.__class__(**{
        **before.__dict__, "cversion": 1, "pzxid": created, "numChildren": 1})
    deleted = zk.delete(root + "/a").zxid
    assert zk.exists(root).stat() == before.__class__(**{**before.__dict__, "cversion": 2, "pzxid": deleted})


def test_set_acl_changes_only_aversion(zk, root):
    before = zk.exists(root).stat()
    stat = zk.set_acl(root, OPEN).stat()
    assert stat == before.__class__(**{**before.__dict__, "aversion": 1})


def test_grandchildren_do_not_show(zk, root):
    zk.create(root + "/a").ok()
    before = zk.exists(root).stat()
    zk.create(root + "/a/b").ok()
    zk.set(root + "/a", b"x").ok()
    assert zk.exists(root).stat() == before


# -- versions

@pytest.mark.parametrize("version, err", [(-1, 0), (0, 0), (1, Err.BAD_VERSION), (-2, Err.BAD_VERSION)])
def test_versions_must_match_or_be_minus_one(zk, root, version, err):
    zk.create(root + "/a").ok()
    assert zk.multi(op_check(root + "/a", version)).results()[0][1] == err
    assert zk.set(root + "/a", b"x", version).err == err
    assert zk.set_acl(root + "/a", OPEN, version).err == err
    zk.create(root + "/b").ok()
    assert zk.delete(root + "/b", version).err == err


def test_set_acl_checks_the_acl_version(zk, root):
    zk.set(root, b"x").ok()
    assert zk.set_acl(root, OPEN, 1).err == Err.BAD_VERSION
    assert zk.set_acl(root, OPEN, 0).stat().aversion == 1
    assert zk.set_acl(root, OPEN, 0).err == Err.BAD_VERSION


def test_pipelined_conditional_sets_see_each_other(zk, root):
    for version in (0, 1, 1, 2):
        zk.post(Op.SET_DATA, ustr(root) + i32(0) + i32(version))
    assert [zk.next().err for _ in range(4)] == [0, 0, Err.BAD_VERSION, 0]


# -- errors in order

def test_delete_names_the_first_broken_rule(zk, root):
    zk.create(root + "/p", acls=acl((READ | CREATE, "world", "anyone"))).ok()
    zk.create(root + "/p/c").ok()
    zk.create(root + "/full").ok()
    zk.create(root + "/full/c").ok()
    assert zk.delete(root + "/nope/x", 9).err == Err.NO_NODE
    assert zk.delete(root + "/p/nope", 9).err == Err.NO_AUTH
    assert zk.delete(root + "/p/c", 9).err == Err.NO_AUTH
    assert zk.delete(root + "/nope", 9).err == Err.NO_NODE
    assert zk.delete(root + "/full", 9).err == Err.BAD_VERSION
    assert zk.delete(root + "/full", 0).err == Err.NOT_EMPTY


def test_delete_needs_nothing_from_the_node_itself(zk, root):
    zk.create(root + "/c", acls=CLOSED).ok()
    assert zk.delete(root + "/c").ok().body == b""


def test_set_data_names_the_first_broken_rule(zk, root):
    zk.create(root + "/c", acls=CLOSED).ok()
    assert zk.set("bad", b"", 9).err == Err.BAD_ARGUMENTS
    assert zk.set(root + "/nope", b"", 9).err == Err.NO_NODE
    assert zk.set(root + "/c", b"", 9).err == Err.NO_AUTH
    assert zk.set(root, b"", 9).err == Err.BAD_VERSION


def test_set_acl_names_the_first_broken_rule(zk, root):
    zk.create(root + "/c", acls=acl((ALL - 16, "world", "anyone"))).ok()
    assert zk.set_acl("bad", i32(0), 9).err == Err.BAD_ARGUMENTS
    assert zk.set_acl(root + "/nope", i32(0), 9).err == Err.INVALID_ACL
    assert zk.set_acl(root + "/nope", OPEN, 9).err == Err.NO_NODE
    assert zk.set_acl(root + "/c", OPEN, 9).err == Err.NO_AUTH
    assert zk.set_acl(root, OPEN, 9).err == Err.BAD_VERSION


def test_errors_have_no_body_and_carry_the_zxid_they_took(connect, start_server):
    zk = connect(port=start_server().port)
    zxid = zk.create("/a").ok().zxid
    failures = [zk.create("/a"), zk.set("/nope"), zk.delete("/nope"), zk.set_acl("/nope", OPEN)]
    assert [reply.zxid for reply in failures] == [zxid + 1, zxid + 2, zxid + 3, zxid + 4]
    assert all(reply.body == b"" for reply in failures)
    assert zk.get("/nope").zxid == zxid + 4


# -- check alone

@pytest.mark.rookeeper_only("Apache 3.8.0 never answers a successful check outside a multi; 3.8.5 made it unknown")
def test_check_outside_a_multi_is_unknown(zk, root):
    zk.post(Op.CHECK, ustr(root) + i32(-1), xid=5)
    reply = zk.next()
    assert (reply.xid, reply.zxid, reply.err) == (5, -1, Err.UNIMPLEMENTED)
    with pytest.raises(Closed):
        zk.next()


# -- reserved nodes

def test_reserved_nodes_cannot_be_deleted_but_can_have_children(zk):
    for path in ("/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/"):
        assert zk.delete(path).err == Err.BAD_ARGUMENTS
    zk.create("/zookeeper/mine").ok()
    zk.delete("/zookeeper/mine").ok()


def test_only_super_may_write_the_config_node(zk, connect):
    assert zk.set("/zookeeper/config", b"x").err == Err.NO_AUTH
    assert zk.create("/zookeeper/config/x").err == Err.NO_AUTH
    assert zk.get_acl("/zookeeper/config").acl() == [(READ, "world", "anyone")]


def test_the_root_can_be_written_and_its_acl_changed_and_restored(zk):
    zk.set("/", b"root data").ok()
    assert zk.get("/").data() == b"root data"
    zk.set_acl("/", acl((READ, "world", "anyone"), (DELETE, "ip", "127.0.0.1"), (ALL, "digest", "a:b"))).ok()
    assert zk.create("/x").err == Err.NO_AUTH
    zk.auth("digest", b"super:test").ok()
    zk.set_acl("/", OPEN).ok()
    zk.create("/x", flags=Flag.EPHEMERAL).ok()
