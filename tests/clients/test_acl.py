"""ACL lists as they are stored, who matches them, and what getACL shows to whom."""

import base64
import hashlib

import pytest

from rawzk import (ADMIN, ALL, CREATE, DELETE, OPEN, READ, WRITE, Err, Op, Raw, acl, buf, create_record, i32, ustr)
from server import SUPER_DIGEST

NULL_LIST = i32(-1)


def digest_of(user, password):
    return f"{user}:" + base64.b64encode(hashlib.sha1(f"{user}:{password}".encode()).digest()).decode()


def stored(zk, path, *entries):
    """Creates a node with these entries and returns what getACL says about it."""
    zk.create(path, acls=acl(*entries)).ok()
    return zk.get_acl(path).acl()


# -- auth packets

def test_auth_is_answered_with_zxid_0_and_no_body(zk):
    for xid in (-4, 7):
        reply = zk.auth("digest", b"u:p", xid=xid)
        assert (reply.xid, reply.zxid, reply.err, reply.body) == (xid, 0, 0, b"")


@pytest.mark.parametrize("scheme", ["nope", "", "auth", "world", "super", "x509", "DIGEST"])
def test_an_unknown_scheme_fails_and_closes_but_spares_the_session(connect, scheme):
    zk = connect()
    zk.post(Op.AUTH, i32(0) + ustr(scheme) + buf(b"u:p"), xid=-4)
    reply = zk.next()
    assert (reply.xid, reply.zxid, reply.err, reply.body) == (-4, 0, Err.AUTH_FAILED, b"")
    assert zk.until_closed() == []
    connect(session=zk.session, password=zk.password).ping()


@pytest.mark.parametrize("record", [i32(0) + i32(-1) + buf(b"u:p"), i32(0) + ustr("digest") + i32(-1)])
def test_a_null_scheme_or_payload_fails(connect, record):
    zk = connect()
    assert zk.call(Op.AUTH, record, xid=-4).err == Err.AUTH_FAILED
    assert zk.until_closed() == []


@pytest.mark.parametrize("payload", [b"", b"nocolon", b":", b"a:b:c", b"\xff\xfe:\x00"])
def test_digest_takes_any_bytes(zk, payload):
    zk.auth("digest", payload).ok()
    zk.auth("digest", payload).ok()


@pytest.mark.parametrize("payload", [b"", b"none", b"10.1.1.1"])
def test_ip_ignores_its_payload(zk, payload):
    zk.auth("ip", payload).ok()
    assert zk.who_am_i().who() == [("ip", "127.0.0.1")]


def test_an_identity_applies_to_every_later_request_and_to_no_earlier(zk, root):
    zk.create(root + "/a", acls=acl((ALL, "digest", digest_of("u", "p")))).ok()
    zk.post(Op.GET_DATA, ustr(root + "/a") + b"\x00", xid=1)
    zk.post(Op.AUTH, i32(0) + ustr("digest") + buf(b"u:p"), xid=-4)
    zk.post(Op.GET_DATA, ustr(root + "/a") + b"\x00", xid=2)
    replies = {reply.xid: reply for reply in (zk.next() for _ in range(3))}
    assert [replies[xid].err for xid in (1, -4, 2)] == [Err.NO_AUTH, 0, 0]


# -- fixing up a list

@pytest.mark.parametrize("acls", [i32(0), NULL_LIST])
def test_an_empty_list_is_invalid(zk, root, acls):
    for op in (Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER):
        assert zk.create(root + "/a", acls=acls, op=op).err == Err.INVALID_ACL
    assert zk.set_acl(root, acls).err == Err.INVALID_ACL
    assert zk.set_acl(root + "/nope", acls).err == Err.INVALID_ACL


def test_exact_duplicates_are_stored_once(zk, root):
    a, b = (READ, "ip", "1.2.3.4"), (ALL, "world", "anyone")
    assert stored(zk, root + "/a", a, b, a, b, a) == [a, b]


def test_the_same_id_with_other_permissions_is_no_duplicate(zk, root):
    entries = [(READ, "world", "anyone"), (ADMIN, "world", "anyone")]
    assert stored(zk, root + "/a", *entries) == entries


@pytest.mark.parametrize("perms", [0, 31, 32, 0x7FFFFFFF, -1])
def test_permissions_are_stored_unchecked(zk, root, perms):
    entries = [(ALL, "world", "anyone"), (perms, "ip", "10.0.0.1")]
    assert stored(zk, root + "/a", *entries) == entries


@pytest.mark.parametrize("scheme, name", [
    ("world", "everyone"), ("world", ""), ("super", ""), ("super", "x"), ("sasl", "me"), ("x509", "CN=x"),
    ("nope", "x"), ("", "x"), ("auth", "x"), ("auth", None),
    ("digest", "a:"), ("digest", "a"), ("digest", ":"), ("digest", ""), ("digest", "a:b:c"),
    ("ip", "127.0.0.1/"), ("ip", "127.0.0.1/33"), ("ip", "127.0.0.1/-1"), ("ip", "127.0.0"), ("ip", "localhost"),
    ("ip", ""), ("ip", "256.1.1.1"), ("ip", "1.2.3.4/x"),
])
def test_invalid_entries(zk, root, scheme, name):
    for acls in (acl((ALL, scheme, name)), acl((ALL, "world", "anyone"), (ALL, scheme, name))):
        assert zk.create(root + "/a", acls=acls).err == Err.INVALID_ACL
        assert zk.set_acl(root, acls).err == Err.INVALID_ACL


def test_a_null_scheme_is_invalid(zk, root):
    assert zk.create(root + "/a", acls=acl((ALL, None, "x"))).err == Err.INVALID_ACL
    beside_another = zk.create(root + "/a", acls=acl((ALL, "world", "anyone"), (ALL, None, "x"))).err
    assert beside_another in (Err.INVALID_ACL, Err.MARSHALLING)  # Apache stumbles when it compares the two


@pytest.mark.parametrize("scheme, name", [
    ("digest", "a:b"), ("digest", ":b"), ("digest", "a:b:"), ("ip", "127.0.0.1"), ("ip", "10.0.0.0/8"),
    ("ip", "0.0.0.0/0"), ("ip", "1.2.3.4/32"), ("world", "anyone"),
])
def test_valid_entries_are_stored_as_sent(zk, root, scheme, name):
    entries = [(ALL, "world", "anyone"), (READ, scheme, name)]
    assert stored(zk, root + "/a", *entries) == entries


@pytest.mark.parametrize("name", ["", "ignored", None])
def test_auth_becomes_one_entry_per_authenticated_identity(zk, root, name):
    zk.auth("digest", b"u:p").ok()
    zk.auth("digest", b"v:q").ok()
    entries = stored(zk, root + "/a", (READ | ADMIN, "auth", name))
    assert sorted(entries) == [(READ | ADMIN, "digest", digest_of("u", "p")), (READ | ADMIN, "digest", digest_of("v", "q"))]


def test_the_digest_of_the_check_vector(zk, root):
    zk.auth("digest", b"u:p").ok()
    assert stored(zk, root + "/a", (ALL, "auth", "")) == [(ALL, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")]


def test_auth_is_not_compared_with_the_entries_beside_it(zk, root):
    zk.auth("digest", b"u:p").ok()
    entry = (ALL, "digest", digest_of("u", "p"))
    assert stored(zk, root + "/a", (ALL, "auth", ""), entry) == [entry, entry]


def test_auth_leaves_ip_and_super_out(connect, root):
    zk = connect()
    zk.auth("digest", b"super:test").ok()
    assert stored(zk, root + "/a", (ALL, "auth", "")) == [(ALL, "digest", SUPER_DIGEST)]


def test_a_long_list_is_kept(zk, root):
    entries = [(READ, "ip", f"10.0.{number // 250}.{number % 250}") for number in range(1000)]
    assert stored(zk, root + "/a", (ALL, "world", "anyone"), *entries) == [(ALL, "world", "anyone"), *entries]


# -- who matches

def test_permissions_are_separate(zk, connect, root):
    """Each operation needs exactly its own bit: on the node, or on the parent for create and delete."""
    def attempts(client, path):
        return {READ: client.get(path), WRITE: client.set(path), CREATE: client.create(path + "/new"),
                DELETE: client.delete(path + "/old"), ADMIN: client.set_acl(path, acl((ALL, "digest", "x:y")))}
    for perms in (0, READ, WRITE, CREATE, DELETE, ADMIN):
        path = f"{root}/{perms}"
        zk.create(path).ok()
        zk.create(path + "/old").ok()
        zk.set_acl(path, acl((perms, "world", "anyone"))).ok()
        allowed = {bit for bit, reply in attempts(zk, path).items() if reply.err == 0}
        assert allowed == ({perms} if perms else set())


@pytest.mark.parametrize("name, matches", [
    ("127.0.0.1", True), ("127.0.0.0/8", True), ("0.0.0.0/0", True), ("127.0.0.1/32", True), ("127.0.0.2/30", True),
    ("127.0.0.2", False), ("127.0.0.4/30", False), ("10.0.0.0/8", False),
])
def test_ip_entries_match_by_their_mask(zk, root, name, matches):
    zk.create(root + "/a", acls=acl((READ, "ip", name))).ok()
    assert zk.get(root + "/a").err == (0 if matches else Err.NO_AUTH)


@pytest.mark.rookeeper_only("since 3.9.4")
def test_ip_entries_match_ipv6_clients(server, root):
    zk = Raw(server.port, host="::1")
    zk.handshake()
    assert zk.who_am_i().who() == [("ip", "0:0:0:0:0:0:0:1")]
    entries = {"::1": True, "0:0:0:0:0:0:0:1/128": True, "::/0": True, "::2": False, "2001:db8::/32": False,
               "127.0.0.1": False, "0.0.0.0/0": False}
    for number, (name, matches) in enumerate(entries.items()):
        zk.create(f"{root}/{number}", acls=acl((READ, "ip", name))).ok()
        assert zk.get(f"{root}/{number}").err == (0 if matches else Err.NO_AUTH), name
    for wrong in ("::1/129", "1::2::3", "12345::", "::ffff:127.0.0.1", "::1%lo"):
        assert zk.create(f"{root}/no", acls=acl((READ, "ip", wrong))).err == Err.INVALID_ACL, wrong
    zk.close()


def test_digest_entries_match_the_exact_text(zk, connect, root):
    zk.create(root + "/a", acls=acl((ALL, "digest", digest_of("u", "p")))).ok()
    wrong, right = connect(), connect()
    wrong.auth("digest", b"u:other").ok()
    right.auth("digest", b"x:y").ok()
    right.auth("digest", b"u:p").ok()
    assert wrong.get(root + "/a").err == Err.NO_AUTH
    right.get(root + "/a").ok()


def test_super_passes_every_check(zk, root):
    zk.create(root + "/a", acls=acl((0, "world", "anyone"))).ok()
    assert zk.get(root + "/a").err == Err.NO_AUTH
    zk.auth("digest", b"super:test").ok()
    zk.get(root + "/a").ok()
    zk.set(root + "/a").ok()
    zk.create(root + "/a/b").ok()
    zk.set_acl(root + "/a", OPEN).ok()


def test_a_wrong_super_password_is_an_ordinary_user(zk, root):
    zk.create(root + "/a", acls=acl((0, "world", "anyone"))).ok()
    zk.auth("digest", b"super:wrong").ok()
    assert zk.get(root + "/a").err == Err.NO_AUTH


def test_acls_are_not_inherited(zk, root):
    zk.create(root + "/p", acls=acl((CREATE, "world", "anyone"))).ok()
    zk.create(root + "/p/c", b"x").ok()
    assert zk.get(root + "/p/c").data() == b"x"
    assert zk.children(root + "/p").err == Err.NO_AUTH


def test_unchecked_operations(zk, root):
    zk.create(root + "/a", acls=acl((0, "world", "anyone"))).ok()
    zk.sync(root + "/a").ok()
    zk.add_watch(root + "/a", 0).ok()
    zk.check_watches(root + "/a", 3).ok()
    zk.remove_watches(root + "/a", 3).ok()
    zk.set_watches(0, data=[root + "/a"]).ok()
    assert zk.fired() == [(3, root + "/a")]


def test_existence_shows_before_permission(zk, root):
    zk.create(root + "/a", acls=acl((0, "world", "anyone"))).ok()
    assert zk.get(root + "/a/b").err == Err.NO_NODE
    assert zk.set(root + "/a/b").err == Err.NO_NODE


# -- what getACL shows

def test_digests_are_hidden_from_those_who_may_only_read(zk, connect, root):
    entries = [(READ, "world", "anyone"), (ALL, "digest", digest_of("u", "p")), (READ, "ip", "10.0.0.1"),
               (READ, "digest", ":x")]
    zk.create(root + "/a", acls=acl(*entries)).ok()
    assert zk.get_acl(root + "/a").acl() == [entries[0], (ALL, "digest", "u:x"), entries[2], (READ, "digest", ":x")]
    owner = connect()
    owner.auth("digest", b"u:p").ok()
    assert owner.get_acl(root + "/a").acl() == entries


def test_super_sees_digests(zk, connect, root):
    entries = [(READ, "world", "anyone"), (READ, "digest", "a:b")]
    zk.create(root + "/a", acls=acl(*entries)).ok()
    admin = connect()
    admin.auth("digest", b"super:test").ok()
    assert admin.get_acl(root + "/a").acl() == entries


# -- configuration

def test_skip_acl_lets_everyone_do_everything(start_server):
    zk = Raw(start_server(config={"skipACL": "yes"}).port)
    zk.handshake()
    zk.create("/a", acls=acl((0, "world", "anyone"))).ok()
    zk.set("/a").ok()
    zk.call(Op.CREATE, create_record("/a/b")).ok()


def test_another_digest_algorithm(start_server):
    zk = Raw(start_server(config={"DigestAuthenticationProvider.digestAlg": "SHA-256"}).port)
    zk.handshake()
    zk.auth("digest", b"u:p").ok()
    expected = "u:" + base64.b64encode(hashlib.sha256(b"u:p").digest()).decode()
    assert stored(zk, "/a", (ALL, "auth", "")) == [(ALL, "digest", expected)]
    assert zk.get("/a").err == 0


def test_enforced_authentication(start_server):
    server = start_server(config={"enforce.auth.enabled": "true", "enforce.auth.schemes": "digest"})
    stranger = Raw(server.port)
    stranger.handshake()
    stranger.post(Op.PING, xid=-2)
    reply = stranger.next()
    assert (reply.zxid, reply.err) == (0, -124)
    assert stranger.until_closed() == []
    friend = Raw(server.port)
    friend.handshake()
    friend.auth("digest", b"u:p").ok()
    friend.create("/a").ok()


def test_sasl_without_a_provider_is_answered_with_a_null_token(zk):
    reply = zk.call(Op.SASL, buf(b""))
    assert (reply.err, reply.body) == (0, i32(-1))
    zk.ping()
