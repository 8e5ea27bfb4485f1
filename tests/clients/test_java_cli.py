"""Apache's own command line client, command by command."""

import re

import pytest

from java_cli import JavaCli
from rawzk import Raw


@pytest.fixture
def cli(apache_jars, server):
    return JavaCli(apache_jars, server.port)


STAT = re.compile(
    r"cZxid = 0x[0-9a-f]+\nctime = .* \d{4}\nmZxid = 0x[0-9a-f]+\nmtime = .* \d{4}\npZxid = 0x[0-9a-f]+\n"
    r"cversion = (-?\d+)\ndataVersion = (\d+)\naclVersion = (-?\d+)\nephemeralOwner = (0x[0-9a-f]+)\n"
    r"dataLength = (\d+)\nnumChildren = (\d+)$")


def stat_of(text):
    """cversion, version, aversion, owner, length and children from the stat block that ends `text`."""
    return STAT.search(text).groups()


def test_a_day_at_the_command_line(cli, root):
    def ask(*commands):
        return cli.session(*[command.replace("ROOT", root) for command in commands])

    created = ask("create ROOT/a hello", "create -s ROOT/a/q- x", "create -e ROOT/a/e x", "create -s -e ROOT/a/se- x",
                  "create -c ROOT/c", "create -t 100000 ROOT/t x", "create -s -t 100000 ROOT/t- x", "ls ROOT",
                  "ls ROOT/a", "ls -R ROOT", "ls -s ROOT/a", "stat ROOT/a/e", "getEphemerals ROOT",
                  "getAllChildrenNumber ROOT")
    assert "JLine support is" in created[0] and created[0].endswith(f"Created {root}/a")
    assert created[1:7] == [f"Created {root}/{name}" for name in (
        "a/q-0000000000", "a/e", "a/se-0000000002", "c", "t", "t-0000000003")]
    assert created[7] == "[a, c, t, t-0000000003]"
    assert created[8] == "[e, q-0000000000, se-0000000002]"
    assert sorted(created[9].splitlines()) == sorted([root, *(f"{root}/{name}" for name in (
        "a", "a/e", "a/q-0000000000", "a/se-0000000002", "c", "t", "t-0000000003"))])
    assert created[10].startswith("[e, q-0000000000, se-0000000002]")
    assert stat_of(created[10]) == ("3", "0", "0", "0x0", "5", "3")
    assert stat_of(created[11])[3] != "0x0"
    assert created[12] == f"[{root}/a/e, {root}/a/se-0000000002]"
    assert created[13] == "7"

    values = ask("get ROOT/a", "get -s ROOT/a", "set -s ROOT/a new", "set -v 9 ROOT/a no", "set -v 1 ROOT/a newer",
                 "get ROOT/a", "create ROOT/null", "get ROOT/null", "sync ROOT/a", "delete ROOT/null", "get ROOT/null",
                 "delete ROOT/a", "deleteall ROOT/a", "ls ROOT", "create ROOT/c", "create ROOT/no/where", "config")
    assert values[0].endswith("hello")
    assert values[1].startswith("hello\n") and stat_of(values[1])[1:3] == ("0", "0")
    assert stat_of(values[2])[1] == "1"
    assert values[3] == f"version No is not valid : {root}/a"
    assert values[4:9] == ["", "newer", f"Created {root}/null", "null", "Sync is OK"]
    assert values[10] == f"Node does not exist: {root}/null"
    assert values[11] == f"Node not empty: {root}/a"
    assert values[12:] == ["", "[c, t, t-0000000003]", f"Node already exists: {root}/c",
                           f"Node does not exist: {root}/no/where", ""]


def test_permissions_and_identities(cli, root):
    answers = cli.session(
        f"create {root}/p x", f"getAcl {root}/p", "addauth digest u:p", "whoami", f"setAcl {root}/p auth::cdrwa",
        f"getAcl -s {root}/p", f"setAcl {root}/p nope:x:r", f"setAcl -v 7 {root}/p world:anyone:r",
        f"setAcl -R {root}/p world:anyone:cdrw", f"getAcl {root}/p", f"setAcl {root}/p world:anyone:r")
    assert answers[1] == "'world,'anyone\n: cdrwa"
    assert sorted(answers[3].splitlines()) == ["Auth scheme: User", "digest: u", "ip: 127.0.0.1"]
    assert answers[4] == ""
    assert answers[5].startswith("'digest,'u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\n: cdrwa\n")
    assert stat_of(answers[5])[2] == "1"
    assert answers[6] == f"Acl is not valid : {root}/p"
    assert answers[7] == f"version No is not valid : {root}/p"
    assert answers[9] == "'world,'anyone\n: cdrw"
    assert answers[10] == f"Insufficient permission : {root}/p"


def test_quotas(cli, root):
    answers = cli.session(
        f"create {root}/q 12345", f"setquota -n 10 {root}/q", f"setquota -N 2 {root}/q", f"listquota {root}/q",
        f"create {root}/q/a x", f"create {root}/q/b x", f"delquota {root}/q", f"create {root}/q/b x",
        f"listquota {root}/q")
    limits = f"absolute path is /zookeeper/quota{root}/q/zookeeper_limits"
    assert answers[3].splitlines() == [
        limits, f"Output quota for {root}/q count=10,bytes=-1=;byteHardLimit=-1;countHardLimit=2",
        f"Output stat for {root}/q count=1,bytes=5"]
    assert answers[4] == f"Created {root}/q/a"
    assert answers[5] == f"Quota has exceeded : {root}/q/b"
    assert answers[7] == f"Created {root}/q/b"
    assert f"quota for {root}/q does not exist." in answers[8]


def test_watches(cli, root):
    """Events are printed by another thread of the client, anywhere between the lines of the commands."""
    printed = cli.transcript(
        f"create {root}/w x", f"get -w {root}/w", f"set {root}/w y", f"ls -w {root}", f"create {root}/v x",
        f"stat -w {root}/v", f"delete {root}/v", f"addWatch {root}/w", f"create {root}/w/deep x", f"sync {root}",
        f"removewatches {root}/w", f"removewatches {root}/nope", f"sync {root}")
    for event in (f"NodeDataChanged path:{root}/w", f"NodeChildrenChanged path:{root}", f"NodeDeleted path:{root}/v",
                  f"NodeCreated path:{root}/w/deep", f"PersistentWatchRemoved path:{root}/w"):
        assert f"WatchedEvent state:SyncConnected type:{event}\n" in printed, event
    assert f"No such watcher for {root}/nope" in printed


def test_one_shot_commands_and_their_exit_codes(cli, root):
    made = cli.once("create", root + "/x", "data")
    assert made.code == 0 and f"Created {root}/x\n" in made.err
    got = cli.once("get", root + "/x")
    assert got.code == 0 and got.out.endswith("\ndata\n")
    missing = cli.once("get", root + "/nope")
    assert missing.code == 1 and f"Node does not exist: {root}/nope\n" in missing.err
    reserved = cli.once("delete", "/zookeeper")
    assert reserved.code == 1 and "Arguments are not valid : /zookeeper" in reserved.err


def test_reconfig_is_refused(apache_jars, defaults, cli):
    default = JavaCli(apache_jars, defaults.port).once("reconfig", "-remove", "1")
    assert default.code == 1 and "Reconfig is disabled" in default.err
    enabled = cli.once("reconfig", "-remove", "1")
    assert enabled.code == 1 and "Unimplemented" in enabled.err


def test_the_ephemerals_of_a_finished_session_are_gone(cli, root, server):
    cli.session(f"create -e {root}/e x", f"create -s -e {root}/s- x", f"ls {root}")
    zk = Raw(server.port)
    zk.handshake()
    assert zk.children(root).names() == []
    zk.close_session()
