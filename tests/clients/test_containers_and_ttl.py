"""Containers and TTL nodes go by themselves (the check runs every 100 ms on the shared server)."""

import pytest

from rawzk import CHILD, DELETED, Err, Flag, Op, op_create
from server import wait_until


def gone(zk, path):
    return wait_until(lambda: zk.exists(path).err == Err.NO_NODE, f"{path} is removed", 10)


def barrier(zk, root):
    """Waits until the removal of one more container shows that a whole check has run."""
    for number in range(2):
        path = f"{root}-barrier{number}"
        zk.create_container(path).ok()
        zk.create(path + "/c").ok()
        zk.delete(path + "/c").ok()
        gone(zk, path)


def test_a_container_goes_after_its_last_child(zk, root):
    zk.create_container(root + "/c").ok()
    for name in ("a", "b"):
        zk.create(f"{root}/c/{name}").ok()
    zk.delete(root + "/c/a").ok()
    barrier(zk, root)
    zk.exists(root + "/c").ok()
    zk.delete(root + "/c/b").ok()
    gone(zk, root + "/c")


def test_a_container_that_never_had_a_child_stays(zk, root):
    zk.create_container(root + "/c").ok()
    barrier(zk, root)
    zk.exists(root + "/c").ok()


def test_nested_containers_go_one_after_the_other(zk, root):
    zk.create_container(root + "/c").ok()
    zk.create_container(root + "/c/d").ok()
    zk.create(root + "/c/d/e").ok()
    zk.delete(root + "/c/d/e").ok()
    gone(zk, root + "/c")


def test_a_container_goes_with_the_ephemerals_of_its_users(zk, connect, root):
    zk.create_container(root + "/lock").ok()
    owner = connect()
    owner.create(root + "/lock/me", flags=Flag.EPHEMERAL_SEQUENTIAL).ok()
    owner.close_session().ok()
    gone(zk, root + "/lock")


def test_the_removal_fires_watches_like_any_delete(zk, root):
    zk.create_container(root + "/c").ok()
    zk.create(root + "/c/a").ok()
    zk.get(root + "/c", watch=True).ok()
    zk.children(root, watch=True).ok()
    zk.delete(root + "/c/a").ok()
    gone(zk, root + "/c")
    assert zk.fired() == [(DELETED, root + "/c"), (CHILD, root)]
    stat = zk.exists(root).stat()
    assert (stat.numChildren, stat.cversion) == (0, 2)


def test_a_ttl_node_goes_when_its_time_is_up(zk, root):
    zk.create_ttl(root + "/t", 1).ok()
    zk.create_ttl(root + "/long", 100000).ok()
    gone(zk, root + "/t")
    zk.exists(root + "/long").ok()


def test_a_write_starts_the_time_again(zk, root):
    """Written every few milliseconds for well over its TTL, the node is still there; left alone it goes."""
    created = zk.create_ttl(root + "/t", 800).path_and_stat()[1]
    stat = created
    while stat.mtime < created.mtime + 1600:
        stat = zk.set(root + "/t", b"again").stat()
    gone(zk, root + "/t")


def test_a_child_keeps_a_ttl_node(zk, root):
    zk.create_ttl(root + "/t", 1).ok()
    if zk.create(root + "/t/child").err == Err.NO_NODE:  # the check came in between
        zk.create_ttl(root + "/t", 300).ok()
        zk.create(root + "/t/child").ok()
    barrier(zk, root)
    zk.exists(root + "/t").ok()
    zk.delete(root + "/t/child").ok()
    gone(zk, root + "/t")


def test_ttl_and_containers_survive_a_restart_as_what_they_are(start_server, connect):
    server = start_server(full=True)
    zk = connect(port=server.port, timeout_ms=30000)
    zk.create_ttl("/long", 10_000_000).ok()
    zk.create_container("/c").ok()
    zk.create("/c/a").ok()
    server.restart()
    again = connect(port=server.port)
    again.exists("/long").ok()
    again.delete("/c/a").ok()
    gone(again, "/c")
    again.exists("/long").ok()


NEVER_USED = "znode.container.maxNeverUsedIntervalMs"


@pytest.mark.parametrize("place", ["properties", pytest.param("config", marks=pytest.mark.rookeeper_only(
    "in zoo.cfg Apache takes it for a key with zookeeper. before it, and does not look at it"))])
def test_a_container_that_never_had_a_child_goes_where_a_key_says_so(start_server, connect, place):
    server = start_server(full=True, **{place: {NEVER_USED: 1}})
    zk = connect(port=server.port, timeout_ms=30000)
    zk.multi(op_create("/used", op=Op.CREATE_CONTAINER, flags=Flag.CONTAINER), op_create("/used/a")).ok()
    zk.create_container("/c").ok()
    gone(zk, "/c")
    zk.exists("/used").ok()
