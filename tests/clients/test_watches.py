"""Which change fires which watch, and in which order relative to replies."""

import pytest

from rawzk import (ALL, CHANGED, CHILD, CREATED, DELETED, Err, Event, Flag, Op, Reply, acl, buf, create_record, i32,
                   op_check, op_create, op_delete, op_set, ustr)

PERSISTENT, RECURSIVE = 0, 1


def test_a_notification_byte_for_byte(zk, root, connect, kind):
    zk.get(root, watch=True).ok()
    zxid = connect().set(root, b"x").zxid
    payload = zk.recv_frame()
    assert payload[:4] == i32(-1)
    assert payload[12:] == i32(0) + i32(CHANGED) + i32(3) + ustr(root)
    header_zxid = int.from_bytes(payload[4:12], "big", signed=True)
    assert header_zxid in ({-1} if kind == "apache" else {-1, zxid})  # 3.9 names the causing transaction


# -- one-shot watches

def test_each_watch_fires_once(zk, root):
    zk.get(root, watch=True).ok()
    zk.set(root, b"1").ok()
    zk.set(root, b"2").ok()
    assert zk.fired() == [(CHANGED, root)]


@pytest.mark.parametrize("change, expected", [
    ("create", (CREATED, "/n")), ("delete", (DELETED, "/a")), ("set", (CHANGED, "/a")),
])
def test_exists_watches_see_creation_deletion_and_data(zk, root, change, expected):
    zk.create(root + "/a").ok()
    zk.exists(root + "/a", watch=True).ok()
    assert zk.exists(root + "/n", watch=True).err == Err.NO_NODE
    {"create": lambda: zk.create(root + "/n"), "delete": lambda: zk.delete(root + "/a"),
     "set": lambda: zk.set(root + "/a")}[change]().ok()
    assert zk.fired() == [(expected[0], root + expected[1])]


@pytest.mark.parametrize("read", ["children", "children2"])
def test_child_watches_see_creation_and_deletion_of_direct_children_only(zk, root, read):
    def watch():
        getattr(zk, read)(root, watch=True).ok()
    zk.create(root + "/a").ok()
    watch()
    zk.set(root, b"").ok()
    zk.set(root + "/a", b"").ok()
    zk.create(root + "/a/deep").ok()
    zk.delete(root + "/a/deep").ok()
    assert zk.fired() == []
    zk.create(root + "/b").ok()
    watch()
    zk.delete(root + "/b").ok()
    assert zk.fired() == [(CHILD, root), (CHILD, root)]


def test_failed_reads_leave_no_watch(zk, root):
    path = root + "/n"
    for reply in (zk.get(path, watch=True), zk.children(path, watch=True), zk.children2(path, watch=True)):
        assert reply.err == Err.NO_NODE
    zk.create(path).ok()
    zk.create(path + "/child").ok()
    assert zk.fired() == []


def test_set_acl_check_and_failed_writes_fire_nothing(zk, root):
    zk.get(root, watch=True).ok()
    zk.children(root, watch=True).ok()
    zk.set_acl(root, acl((ALL, "world", "anyone"))).ok()
    assert zk.set(root, b"", 99).err == Err.BAD_VERSION
    assert zk.create(root + "/.").err == Err.BAD_ARGUMENTS
    zk.multi(op_check(root, 0)).ok()
    zk.multi(op_set(root), op_create(root + "/a"), op_check("/nope")).ok()
    assert zk.fired() == []


def test_the_same_watch_twice_fires_once(zk, root):
    zk.get(root, watch=True).ok()
    zk.get(root, watch=True).ok()
    zk.exists(root, watch=True).ok()
    zk.set(root, b"").ok()
    assert zk.fired() == [(CHANGED, root)]


def test_a_deleted_node_reports_once_for_data_and_child_watches_and_uses_both_up(zk, root):
    path = root + "/a"
    zk.create(path).ok()
    zk.get(path, watch=True).ok()
    zk.children(path, watch=True).ok()
    zk.delete(path).ok()
    zk.create(path).ok()
    zk.create(path + "/x").ok()
    assert zk.fired() == [(DELETED, path)]


def test_a_child_watch_alone_also_reports_the_deletion(zk, root):
    zk.create(root + "/a").ok()
    zk.children(root + "/a", watch=True).ok()
    zk.delete(root + "/a").ok()
    assert zk.fired() == [(DELETED, root + "/a")]


# -- order

def test_creation_comes_before_the_parents_children(zk, root):
    assert zk.exists(root + "/a", watch=True).err == Err.NO_NODE
    zk.children(root, watch=True).ok()
    zk.create(root + "/a").ok()
    assert zk.fired() == [(CREATED, root + "/a"), (CHILD, root)]


def test_deletion_comes_before_the_parents_children(zk, root):
    zk.create(root + "/a").ok()
    zk.get(root + "/a", watch=True).ok()
    zk.children(root, watch=True).ok()
    zk.delete(root + "/a").ok()
    assert zk.fired() == [(DELETED, root + "/a"), (CHILD, root)]


def test_top_level_nodes_report_to_the_root(zk, root):
    zk.children("/", watch=True).ok()
    zk.create(root + "-top", flags=Flag.EPHEMERAL).ok()
    assert zk.fired() == [(CHILD, "/")]


def test_the_event_of_ones_own_write_comes_before_its_reply(zk, root):
    zk.get(root, watch=True).ok()
    xid = zk.post(Op.SET_DATA, ustr(root) + buf(b"x") + i32(-1))
    event, reply = zk.next(), zk.next()
    assert isinstance(event, Event) and event.key() == (CHANGED, root)
    assert isinstance(reply, Reply) and reply.xid == xid


def test_an_event_comes_before_any_read_that_shows_its_change(zk, connect, root):
    """Pipelined reads while another client writes: the new value never appears ahead of the event."""
    writer = connect()
    for number in range(30):
        value = str(number).encode()
        zk.get(root, watch=True).ok()
        for _ in range(20):
            zk.post(Op.GET_DATA, ustr(root) + b"\x00")
        writer.set(root, value).ok()
        for _ in range(20):
            zk.post(Op.GET_DATA, ustr(root) + b"\x00")
        seen_event, replies = False, 0
        while replies < 40 or not seen_event:
            found = zk.next()
            if isinstance(found, Event):
                seen_event = True
                continue
            replies += 1
            assert seen_event or found.data() != value
        assert seen_event


def test_events_follow_the_order_of_the_transactions(zk, connect, root):
    paths = [f"{root}/{number}" for number in range(20)]
    for path in paths:
        assert zk.exists(path, watch=True).err == Err.NO_NODE
    writer = connect()
    for path in reversed(paths):
        writer.post(Op.CREATE, create_record(path))
    for _ in paths:
        writer.next().ok()
    assert zk.fired() == [(CREATED, path) for path in reversed(paths)]


def test_a_multi_fires_in_the_order_of_its_operations_before_its_reply(zk, root):
    for name in ("/m1", "/m2"):
        assert zk.exists(root + name, watch=True).err == Err.NO_NODE
    zk.children(root, watch=True).ok()
    xid = zk.post(Op.MULTI, i32(Op.CREATE) + b"\x00" + i32(-1) + create_record(root + "/m1")
                  + i32(Op.CREATE) + b"\x00" + i32(-1) + create_record(root + "/m2")
                  + i32(-1) + b"\x01" + i32(-1))
    found = [zk.next() for _ in range(4)]
    assert [event.key() for event in found[:3]] == [(CREATED, root + "/m1"), (CHILD, root), (CREATED, root + "/m2")]
    assert found[3].xid == xid


def test_set_then_delete_fires_both_when_watched_again_in_between(zk, root):
    path = root + "/a"
    zk.create(path).ok()
    zk.get(path, watch=True).ok()
    zk.set(path, b"x").ok()
    zk.exists(path, watch=True).ok()
    zk.delete(path).ok()
    assert zk.fired() == [(CHANGED, path), (DELETED, path)]


# -- ephemerals

def test_closing_a_session_fires_for_each_ephemeral(zk, connect, root):
    owner = connect()
    for name in ("/a", "/b"):
        owner.create(root + name, flags=Flag.EPHEMERAL).ok()
        zk.exists(root + name, watch=True).ok()
    owner.close_session().ok()
    assert sorted(zk.fired()) == [(DELETED, root + "/a"), (DELETED, root + "/b")]


def test_a_closing_connection_gets_its_own_events_before_the_reply(connect, root):
    zk = connect()
    zk.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    zk.exists(root + "/e", watch=True).ok()
    zk.close_session().ok()
    assert [event.key() for event in zk.events] == [(DELETED, root + "/e")]


# -- persistent and recursive

def test_add_watch_answers_with_a_zero(zk, root):
    assert zk.add_watch(root, PERSISTENT).ok().body == i32(0)
    assert zk.add_watch(root + "/nope", RECURSIVE).ok().body == i32(0)


@pytest.mark.parametrize("mode", [-1, 2, 99])
def test_an_unknown_mode_is_a_marshalling_error(zk, root, mode):
    assert zk.add_watch(root, mode).err == Err.MARSHALLING


def test_a_persistent_watch_sees_its_node_and_its_children_again_and_again(zk, root):
    path = root + "/p"
    zk.add_watch(path, PERSISTENT).ok()
    for _ in range(2):
        zk.create(path).ok()
        zk.set(path, b"").ok()
        zk.create(path + "/c").ok()
        zk.set(path + "/c", b"").ok()
        zk.create(path + "/c/d").ok()
        zk.delete(path + "/c/d").ok()
        zk.delete(path + "/c").ok()
        zk.delete(path).ok()
    once = [(CREATED, path), (CHANGED, path), (CHILD, path), (CHILD, path), (DELETED, path)]
    assert zk.fired() == once * 2


def test_a_recursive_watch_sees_everything_below_but_no_child_events(zk, root):
    zk.add_watch(root, RECURSIVE).ok()
    for _ in range(2):
        zk.create(root + "/a").ok()
        zk.create(root + "/a/b").ok()
        zk.set(root + "/a/b", b"").ok()
        zk.delete(root + "/a/b").ok()
        zk.set(root, b"").ok()
        zk.delete(root + "/a").ok()
    once = [(CREATED, root + "/a"), (CREATED, root + "/a/b"), (CHANGED, root + "/a/b"), (DELETED, root + "/a/b"),
            (CHANGED, root), (DELETED, root + "/a")]
    assert zk.fired() == once * 2


def test_a_recursive_watch_on_the_root_sees_all(zk, connect, root):
    zk.add_watch("/", RECURSIVE).ok()
    connect().create(root + "/a").ok()
    assert (CREATED, root + "/a") in zk.fired()


def test_a_recursive_watch_does_not_see_siblings_that_share_its_prefix(zk, root):
    zk.create(root + "/a").ok()
    zk.add_watch(root + "/a", RECURSIVE).ok()
    zk.create(root + "/ab").ok()
    zk.create(root + "/ab/c").ok()
    assert zk.fired() == []


def test_one_change_is_one_event_through_two_matching_watches(zk, root):
    zk.create(root + "/a").ok()
    zk.add_watch(root, RECURSIVE).ok()
    zk.get(root + "/a", watch=True).ok()
    zk.set(root + "/a", b"").ok()
    assert zk.fired() == [(CHANGED, root + "/a")]


def test_a_child_watch_below_a_recursive_one_still_gets_its_child_event(zk, root):
    zk.create(root + "/a").ok()
    zk.add_watch(root, RECURSIVE).ok()
    zk.children(root + "/a", watch=True).ok()
    zk.create(root + "/a/b").ok()
    assert zk.fired() == [(CREATED, root + "/a/b"), (CHILD, root + "/a")]


def test_persistent_watches_see_ephemerals_go(zk, connect, root):
    zk.add_watch(root, PERSISTENT).ok()
    owner = connect()
    owner.create(root + "/e", flags=Flag.EPHEMERAL).ok()
    owner.close_session().ok()
    assert zk.fired() == [(CHILD, root), (CHILD, root)]


@pytest.mark.rookeeper_only("3.9's rule: modes live side by side; in 3.8 the later registration replaces the earlier")
def test_a_one_shot_watch_does_not_end_a_persistent_one(zk, root):
    zk.add_watch(root, PERSISTENT).ok()
    zk.get(root, watch=True).ok()
    zk.children(root, watch=True).ok()
    for _ in range(2):
        zk.set(root, b"").ok()
    zk.create(root + "/a").ok()
    zk.delete(root + "/a").ok()
    assert zk.fired() == [(CHANGED, root)] * 2 + [(CHILD, root)] * 2


# -- who may know

def test_events_about_unreadable_nodes_are_dropped_and_the_watch_is_spent(zk, connect, root):
    owner = connect()
    owner.auth("digest", b"o:o").ok()
    hidden = acl((ALL, "auth", ""))
    for name in ("/a", "/b"):
        assert zk.exists(root + name, watch=True).err == Err.NO_NODE
    owner.create(root + "/a", acls=hidden).ok()
    owner.create(root + "/b").ok()
    assert zk.fired() == [(CREATED, root + "/b")]
    owner.set_acl(root + "/a", acl((ALL, "world", "anyone"))).ok()
    owner.delete(root + "/a").ok()
    assert zk.fired() == []


def test_the_current_identities_count_and_not_those_at_registration(zk, connect, root):
    owner = connect()
    owner.auth("digest", b"o:o").ok()
    assert zk.exists(root + "/a", watch=True).err == Err.NO_NODE
    zk.auth("digest", b"o:o").ok()
    owner.create(root + "/a", acls=acl((ALL, "auth", ""))).ok()
    assert zk.fired() == [(CREATED, root + "/a")]


def test_child_events_need_read_on_the_parent(zk, connect, root):
    zk.create(root + "/p").ok()
    zk.children(root + "/p", watch=True).ok()
    owner = connect()
    owner.auth("digest", b"o:o").ok()
    owner.set_acl(root + "/p", acl((ALL, "auth", ""))).ok()
    owner.create(root + "/p/c").ok()
    assert zk.fired() == []


def test_watches_die_with_the_connection(zk, connect, root):
    watcher = connect()
    watcher.get(root, watch=True).ok()
    watcher.close_session().ok()
    zk.set(root, b"").ok()
    zk.multi(op_delete(root + "/nope")).ok()
    assert zk.fired() == []
