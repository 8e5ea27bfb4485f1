"""Quotas: the counters the server keeps, and the limits it enforces."""

import pytest

from rawzk import Err, Flag, op_create, op_set

LIMITS, STATS = "/zookeeper_limits", "/zookeeper_stats"


@pytest.fixture
def quota(zk, root):
    """Arms a quota on a path as the command line tool does: limits first, then stats."""
    def arm(path, limits):
        at = "/zookeeper/quota"
        for part in path.split("/")[1:]:
            at += "/" + part
            assert zk.create(at, None).err in (0, Err.NODE_EXISTS)
        zk.create(at + LIMITS, limits.encode()).ok()
        zk.create(at + STATS, b"count=0,bytes=0").ok()
        return at
    return arm


def usage(zk, at):
    return zk.get(at + STATS).data().decode()


def test_the_server_counts_the_subtree_with_its_root(zk, root, quota):
    zk.create(root + "/a", b"12345").ok()
    at = quota(root, "count=10,bytes=-1")
    assert usage(zk, at) == "count=2,bytes=5"


def test_creates_sets_and_deletes_move_the_counters_without_a_trace(zk, root, quota):
    at = quota(root, "count=100,bytes=1000")
    stat = zk.exists(at + STATS).stat()
    zk.create(root + "/a", b"123").ok()
    zk.create(root + "/a/b", b"45").ok()
    assert usage(zk, at) == "count=3,bytes=5"
    zk.set(root + "/a", b"1").ok()
    assert usage(zk, at) == "count=3,bytes=3"
    zk.delete(root + "/a/b").ok()
    assert usage(zk, at) == "count=2,bytes=1"
    after = zk.exists(at + STATS).stat()
    assert (after.version, after.mzxid, after.pzxid) == (stat.version, stat.mzxid, stat.pzxid)
    assert after.dataLength == len("count=2,bytes=1")


def test_counters_move_without_events(zk, root, quota):
    at = quota(root, "count=100,bytes=1000")
    zk.get(at + STATS, watch=True).ok()
    zk.create(root + "/a", b"123").ok()
    assert zk.fired() == []


def test_ephemerals_count_until_their_session_ends(zk, connect, root, quota):
    at = quota(root, "count=100,bytes=1000")
    owner = connect()
    owner.create(root + "/e", b"123", flags=Flag.EPHEMERAL).ok()
    assert usage(zk, at) == "count=2,bytes=3"
    owner.close_session().ok()
    assert usage(zk, at) == "count=1,bytes=0"


def test_soft_limits_only_count(zk, root, quota):
    at = quota(root, "count=1,bytes=1")
    zk.create(root + "/a", b"much more").ok()
    assert usage(zk, at) == "count=2,bytes=9"


def test_a_hard_count_limit_may_be_reached_but_not_passed(zk, root, quota):
    at = quota(root, "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2")
    zk.create(root + "/a").ok()
    assert zk.create(root + "/b").err == Err.QUOTA_EXCEEDED
    assert zk.create(root + "/a/b").err == Err.QUOTA_EXCEEDED
    assert zk.create(root + "/s", flags=Flag.SEQUENTIAL).err == Err.QUOTA_EXCEEDED
    assert usage(zk, at) == "count=2,bytes=0"
    zk.delete(root + "/a").ok()
    zk.create(root + "/b").ok()


def test_a_hard_byte_limit(zk, root, quota):
    at = quota(root, "count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=-1")
    zk.create(root + "/a", b"12345").ok()
    assert zk.create(root + "/b", b"123456").err == Err.QUOTA_EXCEEDED
    zk.create(root + "/b", b"12345").ok()
    zk.create(root + "/empty", b"").ok()
    assert zk.set(root + "/a", b"123456").err == Err.QUOTA_EXCEEDED
    zk.set(root + "/a", b"54321").ok()
    zk.set(root + "/a", b"1").ok()
    assert usage(zk, at) == "count=4,bytes=6"


def test_a_shrinking_write_still_above_the_limit_fails(zk, root, quota):
    zk.create(root + "/a", b"x" * 100).ok()
    quota(root, "count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=-1")
    assert zk.set(root + "/a", b"x" * 50).err == Err.QUOTA_EXCEEDED
    zk.set(root + "/a", b"y" * 100).ok()
    zk.set(root + "/a", b"x" * 10).ok()


def test_the_quota_is_checked_before_the_version_and_after_existence(zk, root, quota):
    quota(root, "count=-1,bytes=-1=;byteHardLimit=3;countHardLimit=1")
    assert zk.set(root, b"1234", 99).err == Err.QUOTA_EXCEEDED
    assert zk.set(root, b"123", 99).err == Err.BAD_VERSION
    assert zk.create(root + "/.", b"").err == Err.BAD_ARGUMENTS


def test_a_hard_limit_makes_a_multi_fail(zk, root, quota):
    quota(root, "count=-1,bytes=-1=;byteHardLimit=3;countHardLimit=2")
    results = zk.multi(op_create(root + "/a"), op_set(root + "/a", b"1234")).results()
    assert [err for _, err, _ in results] == [0, Err.QUOTA_EXCEEDED]
    assert zk.exists(root + "/a").err == Err.NO_NODE


def test_refusals_are_counted_by_namespace(zk, server, root, quota):
    quota(root, "count=-1,bytes=-1=;byteHardLimit=3;countHardLimit=-1")
    namespace = root.split("/")[1]

    def refused():
        lines = [line.split("\t") for line in server.four("mntr").splitlines()]
        return sum(int(float(value)) for name, value in lines
                   if name.endswith("quota_exceeded_error_per_namespace") and namespace in name)

    before = refused()
    for _ in range(2):
        assert zk.set(root, b"1234").err == Err.QUOTA_EXCEEDED
    assert refused() == before + 2


def test_a_hard_limit_silences_the_soft_one(zk, root, quota):
    at = quota(root, "count=1,bytes=1=;byteHardLimit=100;countHardLimit=100")
    zk.create(root + "/a", b"12345").ok()
    assert usage(zk, at) == "count=2,bytes=5"


def test_siblings_with_the_same_prefix_are_not_counted(zk, root, quota):
    zk.create(root + "/a").ok()
    at = quota(root + "/a", "count=10,bytes=-1")
    zk.create(root + "/ab").ok()
    zk.create(root + "/ab/c").ok()
    assert usage(zk, at) == "count=1,bytes=0"


def test_deleting_the_limits_freezes_the_counters(zk, root, quota):
    at = quota(root, "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2")
    zk.create(root + "/a").ok()
    zk.delete(at + LIMITS).ok()
    zk.create(root + "/b").ok()
    assert usage(zk, at) == "count=2,bytes=0"


def test_counters_are_right_again_after_a_restart(start_server, connect):
    server = start_server(full=True)
    zk = connect(port=server.port)
    zk.create("/q", b"abc").ok()
    zk.create("/zookeeper/quota/q", None).ok()
    zk.create("/zookeeper/quota/q" + LIMITS, b"count=100,bytes=100").ok()
    zk.create("/zookeeper/quota/q" + STATS, b"").ok()
    zk.create("/q/a", b"de").ok()
    server.restart()
    again = connect(port=server.port)
    assert usage(again, "/zookeeper/quota/q") == "count=2,bytes=5"
    again.create("/q/b", b"f").ok()
    assert usage(again, "/zookeeper/quota/q") == "count=3,bytes=6"


def test_without_enforce_quota_hard_limits_are_soft(connect, defaults):
    zk = connect(port=defaults.port)
    zk.create("/soft").ok()
    zk.create("/zookeeper/quota/soft", None).ok()
    zk.create("/zookeeper/quota/soft" + LIMITS, b"count=-1,bytes=-1=;byteHardLimit=1;countHardLimit=1").ok()
    zk.create("/zookeeper/quota/soft" + STATS, b"").ok()
    zk.create("/soft/a", b"12345").ok()
    assert usage(zk, "/zookeeper/quota/soft") == "count=2,bytes=5"
