"""kazoo's own view of the protocol: data, errors, transactions, ACLs, chroot, and what survives a restart."""

import threading

import pytest
from kazoo.client import KazooState
from kazoo.exceptions import (AuthFailedError, BadArgumentsError, BadVersionError, ConnectionLoss, InvalidACLError, NoAuthError,
                              NodeExistsError, NoChildrenForEphemeralsError, NoNodeError, NotEmptyError,
                              RolledBackError, RuntimeInconsistency)
from kazoo.security import make_acl, make_digest_acl

from server import wait_until


def test_basic_operations(kazoo, root):
    zk = kazoo()
    assert zk.create(root + "/a/b", b"x", makepath=True) == root + "/a/b"
    path, stat = zk.create(root + "/with", b"stat", include_data=True)
    assert stat == zk.get(root + "/with")[1]
    assert zk.create(root + "/s-", sequence=True).endswith("s-0000000002")
    assert sorted(zk.get_children(root)) == ["a", "s-0000000002", "with"]
    names, parent = zk.get_children(root, include_data=True)
    assert parent.numChildren == len(names) == 3
    assert zk.set(root + "/a", b"new").version == 1
    assert zk.exists(root + "/nope") is None
    assert zk.sync(root) == root
    zk.delete(root + "/a", recursive=True)
    assert zk.exists(root + "/a") is None


def test_errors_arrive_as_their_exceptions(kazoo, root):
    zk = kazoo()
    zk.create(root + "/e", ephemeral=True)
    zk.create(root + "/full/child", makepath=True)
    for error, call in [
        (NoNodeError, lambda: zk.get(root + "/nope")), (NodeExistsError, lambda: zk.create(root + "/e")),
        (NoChildrenForEphemeralsError, lambda: zk.create(root + "/e/x")),
        (BadVersionError, lambda: zk.set(root, b"", version=9)), (NotEmptyError, lambda: zk.delete(root + "/full")),
        (InvalidACLError, lambda: zk.set_acls(root, [make_acl("nope", "x", all=True)])),
        (BadArgumentsError, lambda: zk.create(root + "/b\x00")), (BadArgumentsError, lambda: zk.create(root + "/b\x1e")),
        (BadArgumentsError, lambda: zk.delete("/")),
    ]:
        with pytest.raises(error):
            call()


def test_null_and_empty_data(kazoo, root):
    zk = kazoo()
    zk.create(root + "/empty", b"")
    assert zk.get(root + "/empty")[0] == b""


def test_transactions(kazoo, root):
    zk = kazoo()
    done = zk.transaction()
    done.create(root + "/a", b"1")
    done.set_data(root + "/a", b"2")
    done.check(root + "/a", version=1)
    done.delete(root + "/a")
    results = done.commit()
    assert results[0] == root + "/a" and results[1].version == 1 and results[2:] == [True, True]
    failing = zk.transaction()
    failing.create(root + "/b")
    failing.delete(root + "/nope")
    failing.create(root + "/c")
    assert [type(result) for result in failing.commit()] == [RolledBackError, NoNodeError, RuntimeInconsistency]
    assert zk.get_children(root) == []


def test_acls_and_authentication(kazoo, root):
    owner = kazoo(auth_data=[("digest", "owner:secret")])
    owner.create(root + "/a", b"x", acl=[make_digest_acl("owner", "secret", all=True)])
    owner.create(root + "/c", b"x", acl=[make_acl("auth", "", all=True)])
    stranger = kazoo()
    for path in ("/a", "/c"):
        with pytest.raises(NoAuthError):
            stranger.get(root + path)
    stranger.add_auth("digest", "owner:secret")
    assert stranger.get(root + "/a")[0] == stranger.get(root + "/c")[0] == b"x"
    acls, _ = owner.get_acls(root + "/c")
    assert acls == [make_digest_acl("owner", "secret", all=True)]


def test_an_unknown_auth_scheme_is_an_auth_failure(kazoo):
    zk = kazoo()
    with pytest.raises(AuthFailedError):
        zk.add_auth("unknown-scheme", "x:y")


def test_a_chroot_hides_the_rest(kazoo, root):
    zk = kazoo(chroot=root)
    zk.create("/inside", b"x")
    assert zk.get_children("/") == ["inside"]
    assert kazoo().get(root + "/inside")[0] == b"x"


def test_the_server_version_and_four_letter_words(kazoo):
    zk = kazoo()
    assert zk.server_version() >= (3, 5)
    assert zk.command(b"ruok") == "imok"
    assert zk.command(b"isro") == "rw"


def test_a_request_that_is_too_large_costs_the_connection_and_not_the_session(kazoo, root):
    zk = kazoo()
    session = zk.client_id
    with pytest.raises(ConnectionLoss):
        zk.create(root + "/big", bytes(2 << 20))
    wait_until(lambda: zk.connected, "the client comes back")
    zk.retry(zk.create, root + "/small")
    assert zk.client_id == session


def test_many_requests_under_way_at_once(kazoo, root):
    zk = kazoo()
    pending = [zk.create_async(f"{root}/{number}", b"%d" % number) for number in range(2000)]
    assert [result.get(20) for result in pending] == [f"{root}/{number}" for number in range(2000)]
    reads = [zk.get_async(f"{root}/{number}") for number in range(2000)]
    assert [int(result.get(20)[0]) for result in reads] == list(range(2000))


# -- restarts

def test_everything_is_as_it_was_after_kill_9_and_restart(kazoo, start_server):
    """The session, its ephemerals and its identities: the client resumes as if nothing had been."""
    server = start_server()
    zk = kazoo(port=server.port, timeout=10.0, auth_data=[("digest", "u:p")])
    states = []
    zk.add_listener(states.append)
    session = zk.client_id
    zk.create("/e", b"mine", ephemeral=True)
    zk.create("/secret", b"s", acl=[make_digest_acl("u", "p", all=True)])
    server.restart()
    wait_until(lambda: KazooState.CONNECTED in states, "kazoo reconnects")
    assert zk.client_id == session
    assert zk.retry(zk.exists, "/e").owner_session_id == session[0]
    assert zk.get("/secret")[0] == b"s"
    assert KazooState.LOST not in states


def test_watching_recipes_go_on_after_a_restart(kazoo, start_server):
    """kazoo sets its watches anew by reading: what is seen must go on from where it was."""
    server = start_server()
    watcher, writer = kazoo(port=server.port, timeout=10.0), kazoo(port=server.port, timeout=20.0)
    writer.create("/data", b"0")
    writer.create("/parent", b"")
    values, children = [], []
    watcher.DataWatch("/data", lambda data, stat, event: values.append(data))
    watcher.ChildrenWatch("/parent", lambda names: children.append(sorted(names)))
    writer.create("/parent/mine", ephemeral=True)
    wait_until(lambda: children[-1:] == [["mine"]], "the child is seen")
    server.restart()
    wait_until(lambda: watcher.connected and writer.connected, "both are back")
    writer.retry(writer.set, "/data", b"1")
    writer.retry(writer.create, "/parent/second")
    wait_until(lambda: values[-1:] == [b"1"], "the change of the data is seen")
    wait_until(lambda: children[-1:] == [["mine", "second"]], "the new child is seen beside the old")
    assert [] not in children[1:]


def test_recipes_survive_a_restart(kazoo, start_server):
    server = start_server()
    holder, waiter = kazoo(port=server.port, timeout=10.0), kazoo(port=server.port, timeout=20.0)
    lock = holder.Lock("/lock", "holder")
    lock.acquire()
    got = threading.Event()
    second = waiter.Lock("/lock", "waiter")
    threading.Thread(target=lambda: second.acquire() and got.set(), daemon=True).start()
    wait_until(lambda: len(lock.contenders()) == 2, "the waiter is in line")
    server.restart()
    wait_until(lambda: holder.connected and waiter.connected, "both are back")
    assert not got.is_set()
    lock.release()
    assert got.wait(20)
