"""Which paths each operation takes, and the error for the others."""

import pytest

from rawzk import Err, Flag, Op, boolean, buf, op_check, ustr, i32

CONTROL = ["\x01", "\x1e", "\x1f", "\x7f", "\x9f"]
PRIVATE = ["\ud7ff\ue000", "\uf8ff", "\ufff0", "\uffff", "\U0001F600"]


@pytest.mark.parametrize("name", ["...", ".a", "a..", "..a", " ", "\u00e4\u6f22\u00a0", "%2F", "\uf900", "\uffef"])
def test_unusual_names_are_fine(zk, root, name):
    path = f"{root}/{name}"
    assert zk.create(path, b"x").path() == path
    assert zk.get(path).data() == b"x"
    assert zk.children(root).names() == [name]


@pytest.mark.parametrize("tail", ["/", "/.", "/..", "/a/", "//a", "/./a", "/../a", "/a/.", "/a/.."])
def test_relative_and_empty_components_are_bad_arguments(zk, root, tail):
    zk.create(root + "/a").ok()
    for path in [root + tail, root + "/a" + tail]:
        parent_exists = zk.exists(path.rpartition("/")[0]).err == 0
        assert zk.create(path).err == (Err.BAD_ARGUMENTS if parent_exists else Err.NO_NODE)


@pytest.mark.parametrize("char", CONTROL + PRIVATE + ["\x00"])
def test_forbidden_characters_are_bad_arguments(zk, root, char):
    path = (f"{root}/b{char}").encode("utf-8", "surrogatepass")
    assert zk.create(path).err == Err.BAD_ARGUMENTS
    assert zk.set(path).err == Err.BAD_ARGUMENTS
    assert zk.set_acl(path, i32(0)).err == Err.BAD_ARGUMENTS
    assert zk.multi(op_check(path)).results() == [(-1, Err.BAD_ARGUMENTS, Err.BAD_ARGUMENTS)]


@pytest.mark.parametrize("path, err", [
    ("", Err.BAD_ARGUMENTS), ("x", Err.BAD_ARGUMENTS), ("x/y", Err.NO_NODE), ("/nope/x", Err.NO_NODE),
    ("/nope/", Err.NO_NODE), ("/", Err.NODE_EXISTS),
])
def test_create_looks_for_the_parent_before_it_judges_the_path(zk, path, err):
    assert zk.create(path).err == err


@pytest.mark.parametrize("tail, name", [("/", "0000000000"), ("/.", ".0000000000"), ("/..", "..0000000000")])
def test_a_sequential_create_judges_the_path_with_its_suffix(zk, root, tail, name):
    assert zk.create(root + tail, flags=Flag.SEQUENTIAL).path() == f"{root}/{name}"


@pytest.mark.parametrize("path, err", [
    ("", Err.BAD_ARGUMENTS), ("x", Err.BAD_ARGUMENTS), ("/", Err.BAD_ARGUMENTS), ("/a\x00", Err.BAD_ARGUMENTS),
    ("/zookeeper", Err.BAD_ARGUMENTS), ("/zookeeper/quota", Err.BAD_ARGUMENTS),
    ("/zookeeper/config", Err.BAD_ARGUMENTS), ("/nope/x", Err.NO_NODE), ("/nope", Err.NO_NODE),
    ("/nope/../x", Err.NO_NODE), ("/nope\x1e", Err.NO_NODE),
])
def test_delete_refuses_only_what_it_must(zk, path, err):
    assert zk.delete(path).err == err


@pytest.mark.parametrize("path", ["x", "/nope/", "//", "/a/../b", "/b\x1e", "/b\x00", "nope"])
def test_reads_do_not_judge_paths(zk, path):
    for reply in [zk.get(path), zk.children(path), zk.children2(path), zk.get_acl(path)]:
        assert reply.err == Err.NO_NODE
    assert zk.exists(path).err == (Err.BAD_ARGUMENTS if "\x00" in path else Err.NO_NODE)
    assert zk.sync(path).path() == path
    zk.add_watch(path, 0).ok()


def test_the_empty_path_is_the_root_for_reads(zk):
    root_stat = zk.exists("/").stat()
    assert zk.exists("").stat() == root_stat
    assert zk.get("").data_and_stat() == zk.get("/").data_and_stat()
    assert zk.children("").names() == zk.children("/").names()
    assert zk.children2("").names_and_stat()[1] == root_stat


def test_a_null_string_is_an_error_and_not_the_root(zk):
    assert zk.call(Op.EXISTS, buf(None) + boolean(False)).err == Err.MARSHALLING
    assert zk.call(Op.SET_DATA, ustr("") + buf(b"") + i32(-1)).err == Err.BAD_ARGUMENTS
