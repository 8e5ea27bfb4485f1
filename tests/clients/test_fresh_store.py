"""A store nobody has written to: what is in it, and how its first transactions are numbered."""

import pytest

from rawzk import ALL, READ, Flag, Stat, acl, op_create

ZERO = Stat(*[0] * 11)


@pytest.fixture
def fresh(start_server, connect):
    server = start_server(config={"4lw.commands.whitelist": "*"})
    return server, lambda: connect(port=server.port, timeout_ms=30000)


def with_(stat, **changes):
    return Stat(**{**stat.__dict__, **changes})


def test_the_reserved_nodes(fresh):
    _, open_one = fresh
    zk = open_one()
    assert zk.get("/").data_and_stat() == (b"", with_(ZERO, cversion=-1, numChildren=1))
    assert zk.get("/zookeeper").data_and_stat() == (b"", with_(ZERO, cversion=-2, numChildren=2))
    assert zk.get("/zookeeper/quota").data_and_stat() == (b"", ZERO)
    assert zk.get("/zookeeper/config").data_and_stat() == (b"", with_(ZERO, aversion=-1))
    assert zk.children("/").names() == ["zookeeper"]
    assert zk.children("/zookeeper").names() == ["config", "quota"]
    assert zk.descendants("/") == 3
    for path in ("/", "/zookeeper", "/zookeeper/quota"):
        assert zk.get_acl(path).acl() == [(ALL, "world", "anyone")]
    assert zk.get_acl("/zookeeper/config").acl() == [(READ, "world", "anyone")]


def test_zxids_count_from_one_without_gaps(fresh):
    """Sessions, writes, failed writes and multis take one each; reads take none."""
    server, open_one = fresh
    assert server.last_zxid() == 0
    zk = open_one()
    assert zk.ping().zxid == 1
    assert zk.create("/a").zxid == 2
    assert zk.create("/a").zxid == 3
    assert zk.get("/a").zxid == 3
    assert zk.multi(op_create("/b"), op_create("/c")).zxid == 4
    other = open_one()
    assert other.ping().zxid == 5
    assert other.create("/e", flags=Flag.EPHEMERAL).zxid == 6
    assert other.close_session().zxid == 7
    assert zk.exists("/").stat().pzxid == 7
    assert zk.set_acl("/a", acl((ALL, "world", "anyone"))).zxid == 8
    assert server.last_zxid() == 8


def test_no_transactions_happen_by_themselves(fresh):
    """Pings, watches, four-letter words and idle clients leave the zxid alone (Java StatTest counts on it)."""
    server, open_one = fresh
    zk, idle = open_one(), open_one()
    zk.create("/foo").ok()
    idle.children("/foo", watch=True).ok()
    for number in range(10):
        stat = zk.create2(f"/foo/{number}").path_and_stat()[1]
        parent = zk.exists("/foo").stat()
        assert parent.pzxid == parent.czxid + number + 1 == stat.czxid
        assert parent.cversion == number + 1
        assert (parent.mzxid, parent.mtime) == (parent.czxid, parent.ctime)
        server.four("srvr"), server.four("mntr"), idle.ping()


def test_a_restart_goes_on_counting(fresh):
    server, open_one = fresh
    zk = open_one()
    zk.create("/a", b"kept").ok()
    stat = zk.exists("/a").stat()
    server.restart()
    assert server.last_zxid() == 2
    again = open_one()
    assert again.get("/a").data_and_stat() == (b"kept", stat)
    assert again.create("/b").zxid == 4


def test_the_clock_of_a_stat_is_wall_time(fresh):
    import time
    _, open_one = fresh
    before = int(time.time() * 1000)
    stat = open_one().create2("/a").path_and_stat()[1]
    assert before - 1000 <= stat.ctime <= int(time.time() * 1000) + 1000


def lines_of(member, what):
    return [line for line in member.log_path.read_text().splitlines() if what in line]


@pytest.mark.rookeeper_only("it does not say so")
def test_a_folder_without_data_is_told_as_long_as_it_is_empty(start_server):
    server = start_server()
    what = "has no data of ZooKeeper's: this server begins with nothing"
    [line] = lines_of(server, what)
    assert " WARN " in line and f"{server.data_dir}/version-2 {what}. If it had data, stop it and mend dataDir" in line
    server.restart()
    assert len(lines_of(server, what)) == 1


@pytest.mark.rookeeper_only("it does not say so")
def test_an_empty_server_alone_begins_with_nothing_whatever_db_autocreate_says(start_server, connect):
    server = start_server({"db.autocreate": "false"})
    connect(port=server.port).create("/a").ok()
    [line] = lines_of(server, "has no data of ZooKeeper's: this server begins with nothing")
    assert " WARN " in line and "If it had data, stop it and mend dataDir" in line
    assert not lines_of(server, "does not vote"), "it has nobody to get its data from"
    server.restart()
    assert connect(port=server.port).exists("/a").err == 0, "what it took is there"


@pytest.mark.rookeeper_only("it does not say so")
def test_an_empty_member_that_does_not_vote_says_so(start_ensemble):
    ensemble = start_ensemble()
    member = ensemble[1]
    member.kill()
    member.wipe()
    member.config["db.autocreate"] = "false"
    member.start()
    what = f"db.autocreate is false, and there is no file {member.data_dir}/initialize"
    [line] = lines_of(member, what)
    assert " WARN " in line and "this server does not vote until it has the data of a leader" in line
    assert "If it is new, run zkServer-initialize.sh" in line
    member.restart()
    assert len(lines_of(member, what)) == 1, "it has data by now"
