"""Reads, sync, ping and the questions a client asks about itself."""

import pytest

from rawzk import ALL, READ, ADMIN, WRITE, Err, Flag, Op, acl, i32, ustr, boolean, create_record


def test_missing_nodes(zk, root):
    path = root + "/nope"
    for reply in [zk.exists(path), zk.get(path), zk.children(path), zk.children2(path), zk.get_acl(path),
                  zk.call(Op.GET_ALL_CHILDREN_NUMBER, ustr(path))]:
        assert (reply.err, reply.body) == (Err.NO_NODE, b"")


def test_children_are_bare_names_and_children2_adds_the_stat(zk, root):
    for name in ("b", "a", "c"):
        zk.create(f"{root}/{name}").ok()
    zk.create(root + "/a/deeper").ok()
    assert zk.children(root).names() == ["a", "b", "c"]
    assert zk.children2(root).names_and_stat() == (["a", "b", "c"], zk.exists(root).stat())
    assert zk.children(root + "/b").body == i32(0)


def test_get_acl_returns_list_and_stat(zk, root):
    zk.create(root + "/a", acls=acl((READ, "ip", "10.0.0.0/8"), (ALL, "world", "anyone"))).ok()
    reply = zk.get_acl(root + "/a")
    assert reply.acl() == [(READ, "ip", "10.0.0.0/8"), (ALL, "world", "anyone")]
    assert reply.body.endswith(zk.exists(root + "/a").body)


# -- permissions of reads

WRITE_ONLY = acl((WRITE, "world", "anyone"), (ALL, "digest", "x:y"))


def test_without_read_the_data_and_children_are_refused(zk, root):
    zk.create(root + "/w", acls=WRITE_ONLY).ok()
    for reply in [zk.get(root + "/w"), zk.children(root + "/w"), zk.children2(root + "/w"), zk.get_acl(root + "/w"),
                  zk.call(Op.GET_ALL_CHILDREN_NUMBER, ustr(root + "/w"))]:
        assert (reply.err, reply.body) == (Err.NO_AUTH, b"")


@pytest.mark.rookeeper_only("exists checks READ since 3.8.4")
def test_exists_needs_read_and_leaves_no_watch_when_refused(zk, root, connect):
    zk.create(root + "/w", acls=WRITE_ONLY).ok()
    assert zk.exists(root + "/w", watch=True).err == Err.NO_AUTH
    assert zk.check_watches(root + "/w", 2).err == Err.NO_WATCHER


def test_a_readable_child_of_an_unreadable_parent_can_be_read(zk, root):
    zk.create(root + "/p").ok()
    zk.create(root + "/p/c", b"x").ok()
    zk.set_acl(root + "/p", WRITE_ONLY).ok()
    assert zk.get(root + "/p/c").data() == b"x"


@pytest.mark.parametrize("perms", [READ, ADMIN])
def test_get_acl_takes_read_or_admin(zk, root, perms):
    zk.create(root + "/a", acls=acl((perms, "world", "anyone"))).ok()
    zk.get_acl(root + "/a").ok()
    assert zk.get(root + "/a").err == (0 if perms == READ else Err.NO_AUTH)


# -- counting and listing

def test_all_children_number_counts_descendants(zk, root):
    for path in ("/a", "/a/b", "/a/b/c", "/ab"):
        zk.create(root + path).ok()
    assert zk.descendants(root) == 4
    assert zk.descendants(root + "/a") == 2
    assert zk.descendants(root + "/a/b/c") == 0


def test_ephemerals_are_those_of_this_session_by_text_prefix(zk, connect, root):
    other = connect()
    other.create(root + "/other", flags=Flag.EPHEMERAL).ok()
    for name in ("ab", "abc", "b"):
        zk.create(f"{root}/{name}", flags=Flag.EPHEMERAL).ok()
    zk.create(root + "/plain").ok()
    everything = [f"{root}/ab", f"{root}/abc", f"{root}/b"]
    assert zk.ephemerals(root + "/ab").names() == everything[:2]
    assert zk.ephemerals(root + "/nope").names() == []
    for prefix in ("/", "", " ", None):
        assert zk.ephemerals(prefix).names() == everything


def test_a_session_without_ephemerals_has_an_empty_list(zk):
    assert zk.ephemerals("/").body == i32(0)


def test_who_am_i_lists_every_identity(zk):
    assert zk.who_am_i().who() == [("ip", "127.0.0.1")]
    zk.auth("digest", b"ann:secret").ok()
    zk.auth("digest", b"bob:secret").ok()
    assert zk.who_am_i().who() == [("digest", "ann"), ("digest", "bob"), ("ip", "127.0.0.1")]
    zk.auth("digest", b"super:test").ok()
    assert ("super", "") in zk.who_am_i().who()
    assert ("digest", "super") in zk.who_am_i().who()


# -- sync, ping, order

def test_sync_echoes_the_path_whether_it_exists_or_not(zk, root):
    assert zk.sync(root).body == ustr(root)
    assert zk.sync("/nope/../x").body == ustr("/nope/../x")


def test_reads_sync_and_ping_carry_the_last_zxid_and_take_none(connect, start_server):
    server = start_server()
    zk = connect(port=server.port)
    zxid = zk.create("/a").zxid
    replies = [zk.get("/a"), zk.ping(), zk.sync("/"), zk.get("/nope"), zk.who_am_i(), zk.children("/"),
               zk.ephemerals(), zk.add_watch("/a", 0), zk.check_watches("/x", 3)]
    assert {reply.zxid for reply in replies} == {zxid}
    assert server.last_zxid() == zxid


def test_another_idle_client_learns_the_zxid_with_its_next_read(connect, zk, root):
    idle = connect()
    created = zk.create(root + "/a").zxid
    assert idle.get(root + "/a").zxid >= created


def test_replies_come_in_the_order_of_the_requests(zk, root):
    """Writes, reads, pings, syncs and multis mixed; every read sees the session's own earlier writes."""
    kinds = []
    for number in range(60):
        zk.post(Op.SET_DATA, ustr(root) + ustr(str(number)) + i32(-1))
        zk.post(Op.GET_DATA, ustr(root) + boolean(False))
        zk.post(Op.PING, xid=-2)
        zk.post(Op.SYNC, ustr(root))
        zk.post(Op.CREATE, create_record(f"{root}/{number}"))
        zk.post(Op.EXISTS, ustr(f"{root}/{number}") + boolean(False))
        kinds.append(number)
    for number in kinds:
        written, read, ping, sync, created, seen = (zk.next() for _ in range(6))
        assert read.data() == str(number).encode()
        assert ping.xid == -2 and sync.path() == root
        assert seen.stat().czxid == created.zxid > written.zxid


def test_a_write_does_not_overtake_an_earlier_read(zk, root):
    zk.set(root, b"old").ok()
    zk.post(Op.GET_DATA, ustr(root) + boolean(False))
    zk.post(Op.SET_DATA, ustr(root) + ustr("new") + i32(-1))
    assert zk.next().data() == b"old"
    zk.next().ok()
