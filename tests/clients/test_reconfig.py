"""reconfig is refused by a standalone server."""

import pytest

from rawzk import Err, Op, Raw, i64, ustr


def reconfig(zk, joining=None, leaving=None, members=None, version=-1):
    return zk.call(Op.RECONFIG, ustr(joining) + ustr(leaving) + ustr(members) + i64(version))


MEMBER = "server.2=127.0.0.1:2888:3888;2181"


def test_reconfig_is_disabled_by_default(defaults):
    zk = Raw(defaults.port)
    zk.handshake()
    before = zk.ping().zxid
    reply = reconfig(zk, joining=MEMBER)
    assert (reply.err, reply.body) == (Err.RECONFIG_DISABLED, b"")
    assert reply.zxid == before + 1
    zk.close_session()


@pytest.mark.parametrize("fields", [{"joining": MEMBER}, {"members": MEMBER}, {"leaving": "1"}, {}])
def test_enabled_it_is_unimplemented_in_standalone(zk, fields):
    zk.auth("digest", b"super:test").ok()
    before = zk.ping().zxid
    reply = reconfig(zk, **fields)
    assert (reply.err, reply.body) == (Err.UNIMPLEMENTED, b"")
    assert reply.zxid == before + 1
    zk.ping()
