"""setWatches after a reconnect, removeWatches, checkWatches."""

import pytest

from rawzk import CHANGED, CHILD, CREATED, DELETED, Err, Event, Op, Reply, i32, i64, strings

CHILDREN, DATA, ANY, PERSISTENT_TYPE, RECURSIVE_TYPE = 1, 2, 3, 4, 5
PERSISTENT, RECURSIVE = 0, 1


# -- catching up

def test_nothing_changed_nothing_fires(zk, root):
    zxid = zk.ping().zxid
    zk.set_watches(zxid, data=[root], exist=[root + "/n"], child=[root]).ok()
    assert zk.fired() == []


def test_equality_of_zxids_means_unchanged(zk, root):
    stat = zk.set(root, b"x").stat()
    zk.set_watches(stat.mzxid, data=[root]).ok()
    assert zk.fired() == []
    zk.set_watches(stat.mzxid - 1, data=[root]).ok()
    assert zk.fired() == [(CHANGED, root)]


def test_missed_changes_fire_once_each_in_the_order_of_the_lists(zk, root):
    before = zk.ping().zxid
    for name in ("changed", "kids", "new"):
        zk.create(f"{root}/{name}").ok()
    between = zk.ping().zxid
    zk.set(root + "/changed", b"x").ok()
    zk.create(root + "/kids/k").ok()
    zk.set_watches(between, data=[root + "/gone", root + "/changed", root + "/kids"], exist=[root + "/new"],
                   child=[root + "/gone2", root + "/kids", root + "/changed"]).ok()
    assert zk.fired() == [(DELETED, root + "/gone"), (CHANGED, root + "/changed"), (CREATED, root + "/new"),
                          (DELETED, root + "/gone2"), (CHILD, root + "/kids")]
    assert before < between


def test_the_events_come_before_the_reply_which_has_no_body(zk, root):
    zk.post(Op.SET_WATCHES, i64(0) + strings([root + "/gone"]) + strings([]) + strings([]), xid=-8)
    event, reply = zk.next(), zk.next()
    assert event == Event(DELETED, root + "/gone", zxid=-1)
    assert isinstance(reply, Reply) and (reply.xid, reply.err, reply.body) == (-8, 0, b"")


def test_the_xid_of_set_watches_is_echoed(zk):
    assert zk.call(Op.SET_WATCHES, i64(0) + strings([]) * 3, xid=55).xid == 55


def test_a_node_deleted_and_created_again_has_changed(zk, root):
    zk.create(root + "/a").ok()
    before = zk.ping().zxid
    zk.delete(root + "/a").ok()
    zk.create(root + "/a").ok()
    zk.set_watches(before, data=[root + "/a"]).ok()
    assert zk.fired() == [(CHANGED, root + "/a")]


def test_an_existing_node_fires_created_whatever_its_age(zk, root):
    zk.set_watches(zk.ping().zxid, exist=[root]).ok()
    assert zk.fired() == [(CREATED, root)]


def test_watches_that_did_not_fire_are_set(zk, root):
    zxid = zk.ping().zxid
    zk.set_watches(zxid, data=[root], exist=[root + "/n"], child=[root]).ok()
    zk.set(root, b"").ok()
    zk.create(root + "/n").ok()
    assert zk.fired() == [(CHANGED, root), (CREATED, root + "/n"), (CHILD, root)]


def test_watches_that_fired_are_spent(zk, root):
    zk.set_watches(0, data=[root], child=[root]).ok()
    fired = zk.fired()
    zk.set(root, b"").ok()
    zk.create(root + "/a").ok()
    assert (CHANGED, root) in fired
    assert zk.fired() == []


def test_persistent_watches_come_back_without_catching_up(zk, root):
    zk.create(root + "/p").ok()
    zk.create(root + "/r").ok()
    zk.set_watches2(0, persistent=[root + "/p", root + "/nope"], recursive=[root + "/r"]).ok()
    assert zk.fired() == []
    for _ in range(2):
        zk.set(root + "/p", b"").ok()
        zk.set(root + "/r", b"").ok()
    zk.create(root + "/r/x").ok()
    assert zk.fired() == [(CHANGED, root + "/p"), (CHANGED, root + "/r")] * 2 + [(CREATED, root + "/r/x")]


def test_set_watches2_also_catches_up(zk, root):
    zk.set_watches2(0, data=[root + "/gone"], exist=[root]).ok()
    assert zk.fired() == [(DELETED, root + "/gone"), (CREATED, root)]


def test_null_lists_are_marshalling_errors(zk):
    assert zk.set_watches(0, data=None).err == Err.MARSHALLING
    assert zk.set_watches2(0, recursive=None).err == Err.MARSHALLING
    zk.ping()


def test_the_events_of_many_set_watches_all_arrive(zk, root):
    """Clients split big sets; 1,000 data watches on nodes that have gone meanwhile all fire."""
    paths = [f"{root}/gone{number}" for number in range(1000)]
    for start in range(0, 1000, 50):
        zk.post(Op.SET_WATCHES, i64(1) + strings(paths[start:start + 50]) + strings([]) * 2, xid=-8)
    found = [zk.next() for _ in range(1020)]
    assert [event.path for event in found if isinstance(event, Event)] == paths


# -- removing

@pytest.mark.parametrize("table, survives_set, survives_create", [
    (CHILDREN, True, False), (DATA, False, True), (ANY, False, False)])
def test_remove_watches_drops_the_table_it_names(zk, root, table, survives_set, survives_create):
    zk.get(root, watch=True).ok()
    zk.children(root, watch=True).ok()
    assert zk.remove_watches(root, table).ok().body == b""
    zk.set(root, b"").ok()
    zk.create(root + "/a").ok()
    expected = [(CHANGED, root)] * survives_set + [(CHILD, root)] * survives_create
    assert zk.fired() == expected


@pytest.mark.parametrize("which", [CHILDREN, DATA, ANY])
def test_removing_what_is_not_there_is_no_watcher(zk, root, which):
    for reply in (zk.remove_watches(root, which), zk.check_watches(root, which)):
        assert (reply.err, reply.body) == (Err.NO_WATCHER, b"")


@pytest.mark.parametrize("which", [-1, 0, 6, 99])
def test_an_unknown_type_is_a_marshalling_error(zk, root, which):
    zk.get(root, watch=True).ok()
    assert zk.remove_watches(root, which).err == Err.MARSHALLING
    assert zk.check_watches(root, which).err == Err.MARSHALLING


def test_check_watches_removes_nothing(zk, root):
    zk.get(root, watch=True).ok()
    for _ in range(2):
        assert zk.check_watches(root, DATA).ok().body == b""
    zk.check_watches(root, ANY).ok()
    assert zk.check_watches(root, CHILDREN).err == Err.NO_WATCHER
    zk.set(root, b"").ok()
    assert zk.fired() == [(CHANGED, root)]


def test_a_path_must_match_exactly(zk, root):
    zk.add_watch(root, RECURSIVE).ok()
    assert zk.check_watches(root + "/a", ANY).err == Err.NO_WATCHER
    assert zk.remove_watches(root + "/a", ANY).err == Err.NO_WATCHER


def test_any_removes_persistent_watches_too(zk, root):
    zk.create(root + "/r").ok()
    zk.add_watch(root, PERSISTENT).ok()
    zk.add_watch(root + "/r", RECURSIVE).ok()
    zk.remove_watches(root, ANY).ok()
    zk.remove_watches(root + "/r", ANY).ok()
    zk.set(root, b"").ok()
    zk.set(root + "/r", b"").ok()
    assert zk.fired() == []


def test_removing_leaves_the_watches_of_others_alone(zk, connect, root):
    other = connect()
    for client in (zk, other):
        client.get(root, watch=True).ok()
    zk.remove_watches(root, DATA).ok()
    other.set(root, b"").ok()
    assert zk.fired() == []
    assert other.fired() == [(CHANGED, root)]


NINE = "3.9's rule: modes live side by side and are removed by type"


@pytest.mark.rookeeper_only(NINE)
def test_types_4_and_5_remove_persistent_and_recursive_watches(zk, root):
    zk.add_watch(root, PERSISTENT).ok()
    zk.check_watches(root, PERSISTENT_TYPE).ok()
    assert zk.check_watches(root, RECURSIVE_TYPE).err == Err.NO_WATCHER
    zk.remove_watches(root, PERSISTENT_TYPE).ok()
    zk.add_watch(root, RECURSIVE).ok()
    assert zk.remove_watches(root, PERSISTENT_TYPE).err == Err.NO_WATCHER
    zk.remove_watches(root, RECURSIVE_TYPE).ok()
    zk.set(root, b"").ok()
    assert zk.fired() == []


@pytest.mark.rookeeper_only(NINE)
def test_types_1_and_2_spare_persistent_watches(zk, root):
    zk.add_watch(root, PERSISTENT).ok()
    zk.get(root, watch=True).ok()
    zk.remove_watches(root, DATA).ok()
    assert zk.remove_watches(root, DATA).err == Err.NO_WATCHER
    zk.set(root, b"").ok()
    assert zk.fired() == [(CHANGED, root)]


@pytest.mark.rookeeper_only("in 3.8 checkWatches answers for any connection's watch")
def test_check_watches_looks_only_at_ones_own(zk, connect, root):
    connect().get(root, watch=True).ok()
    assert zk.check_watches(root, DATA).err == Err.NO_WATCHER


def test_a_truncated_request_is_a_marshalling_error(zk, root):
    assert zk.call(Op.SET_WATCHES, i64(0) + i32(5)).err == Err.MARSHALLING
    assert zk.call(Op.REMOVE_WATCHES, strings([root])[4:]).err == Err.MARSHALLING
