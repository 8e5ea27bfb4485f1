"""Tools that work on a server's files: Apache's names against Apache's own classes, and our own commands."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import termios
import threading

import pytest

from rawzk import Closed, Raw
from server import JARS, REPOSITORY, free_port, program, wait_until
from workload import Workload, differences, dump

VECTORS = REPOSITORY / "tests/vectors"
# The tests that compare need this zone and this charset on both sides.
ENVIRONMENT = {**os.environ, "TZ": "Europe/Berlin", "LC_ALL": "C.UTF-8"}
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]
JACKSON = f"{JARS}/jackson-core.jar"
SERVER = "org.apache.zookeeper.server"
CLASSES = {
    "zkTxnLogToolkit.sh": f"{SERVER}.persistence.TxnLogToolkit",
    "zkSnapShotToolkit.sh": f"{SERVER}.SnapshotFormatter",
    "zkSnapshotComparer.sh": f"{SERVER}.SnapshotComparer",
    "zkCleanup.sh": f"{SERVER}.PurgeTxnLog",
}


def run(command, cwd, answers=b"", **environment):
    return subprocess.run([str(word) for word in command], cwd=cwd, input=answers, capture_output=True, timeout=120,
                          env={**ENVIRONMENT, **environment})


@pytest.fixture(scope="session")
def tool(kind):
    """Runs our binary."""
    if kind != "rookeeper":
        pytest.skip("about our own tools")
    return lambda *arguments, cwd="/", **options: run([program(), *arguments], cwd, **options)


@pytest.fixture
def same(tool, apache_jars, tmp_path):
    """Runs a tool of Apache's and ours in equal folders; both must say and leave the same. Gives what ours said."""

    def normal(output, name):
        lines = output.decode().splitlines(keepends=True)
        lines = [line for line in lines if not (line.startswith(("Deserialized", "Processed")) and "seconds" in line)]
        return "".join(lines).replace(str(tmp_path / name), "HERE")

    def compare(script, *arguments, files=(), answers=b"", java_arguments=None, environment=None):
        results = {}
        for name in ("theirs", "ours"):
            folder = tmp_path / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file in files:
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, folder / file.name)
            if name == "ours":
                done = tool(script, *arguments, cwd=folder, answers=answers, **(environment or {}))
            else:
                theirs = arguments if java_arguments is None else java_arguments
                done = run([*JAVA, "-cp", apache_jars, CLASSES[script], *theirs], folder, answers)
            # Apache fills its copies up with zeros, which say nothing.
            left = {path.relative_to(folder): path.read_bytes().rstrip(b"\0") for path in folder.rglob("*") if path.is_file()}
            results[name] = normal(done.stdout, name), done.returncode, left, done.stderr.decode()
        theirs, ours = results["theirs"], results["ours"]
        assert ours[0] == theirs[0], f"{script} {arguments}: {theirs[3]} / {ours[3]}"
        assert ours[1] == theirs[1], f"{script} {arguments}: {theirs[3]} / {ours[3]}"
        assert ours[2] == theirs[2]
        return ours[0]

    return compare


@pytest.fixture(scope="session")
def written(kind, tmp_path_factory):
    """Logs and snapshots of a server that did a bit of everything."""
    from server import Server

    directory = tmp_path_factory.mktemp("written")
    config = {"extendedTypesEnabled": "true", "maxSessionTimeout": 7_200_000, "preAllocSize": 64, "snapCount": 60,
              "DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU=", "enforceQuota": "true"}
    server = Server(kind, directory, config).start()
    try:
        workload = Workload("offline tools")
        workload.attach(server.port)
        workload.run(300)
        folder = server.data_dir / "version-2"
        wait_until(lambda: len(list(folder.glob("snapshot.*"))) > 2, "three snapshots")
    finally:
        server.terminate() if server.running() else None
    return sorted(path for path in folder.iterdir() if path.name.startswith(("log.", "snapshot.")))


def logs(files):
    return [path for path in files if path.name.startswith("log.")]


def snapshots(files):
    return [path for path in files if path.name.startswith("snapshot.")]


VECTOR_FILES = sorted((VECTORS / "apache-3.8/version-2").iterdir())
COMPRESSED = sorted((VECTORS / "apache-3.8-compressed").glob("snapshot.*"))


# -- Apache's names

def test_a_log_is_printed_as_by_apache(same, written):
    # The session's own id makes each log of ours its own; a few say as much as all.
    for log in logs(VECTOR_FILES) + logs(written)[:3]:
        assert "EOF reached after" in same("zkTxnLogToolkit.sh", log.name, files=[log])


def test_a_snapshot_is_printed_as_by_apache(same, written):
    for snapshot in [*snapshots(VECTOR_FILES)[1:2], *COMPRESSED, snapshots(written)[-1]]:
        for option in ([], ["-d"]):
            assert "ZNode Details" in same("zkSnapShotToolkit.sh", *option, snapshot.name, files=[snapshot])


def test_the_json_of_a_snapshot_is_apaches(tool, apache_jars, written):
    snapshot = snapshots(written)[-1]
    if not pathlib.Path(JACKSON).exists():
        pytest.skip("no libjackson2-core-java, which Apache's tool needs for this")
    class_path = f"{apache_jars}:{JACKSON}"
    theirs = run([*JAVA, "-cp", class_path, CLASSES["zkSnapShotToolkit.sh"], "-json", snapshot], "/")
    ours = tool("zkSnapShotToolkit.sh", "-json", snapshot)
    parsed = [json.loads(done.stdout) for done in (theirs, ours)]
    for tree in parsed:
        assert tree[2].pop("timestamp") > 0
    assert parsed[0] == parsed[1]


def test_two_snapshots_are_compared_as_by_apache(same, written):
    old, new = snapshots(written)[1], snapshots(written)[-1]
    pair = ["-l", old.name, "-r", new.name]
    for limits in (["-b", "0", "-n", "0"], ["-b5", "-n=2", "-d"], ["--bytes=100", "--nodes", "10"]):
        same("zkSnapshotComparer.sh", *pair, *limits, files=[old, new])
    said = same("zkSnapshotComparer.sh", *pair, "-b", "1", "-n", "1", "-i", files=[old, new],
                answers=b"\n9\nx\n/a\n/nowhere\n1\n2\n\n\n\n\n\n\n")
    assert "Depth must be in range" in said and "neither found" in said


def test_a_log_is_chopped_as_by_apache(same):
    log = logs(VECTOR_FILES)[0]
    for zxid in ("7", "0x10", "#6e", "0x6f", "0x1000"):
        same("zkTxnLogToolkit.sh", "-c", log.name, "-z", zxid, files=[log])


def damaged(log, target, places):
    """A copy of a log in which the checksums of some records are wrong."""
    content, at, found = bytearray(log.read_bytes()), 16, 0
    while at + 12 < len(content):
        length = struct.unpack(">i", content[at + 8:at + 12])[0]
        if not length:
            break
        if found in places:
            content[at + 7] ^= 1
        at, found = at + 13 + length, found + 1
    target.write_bytes(content)
    return target


def test_checksums_are_repaired_as_by_apache(same, tmp_path):
    log = damaged(logs(VECTOR_FILES)[0], tmp_path / "log.1", [3, 20, 21])
    assert same("zkTxnLogToolkit.sh", "log.1", files=[log]).count("CRC ERROR - ") == 3
    assert same("zkTxnLogToolkit.sh", "-r", "-y", "log.1", files=[log]).count("CRC FIXED - ") == 3
    same("zkTxnLogToolkit.sh", "-ryv", "log.1", files=[log])
    assert "2 fixed CRC error(s)" in same("zkTxnLogToolkit.sh", "-r", "log.1", files=[log], answers=b"Yes\nno\nwhat\ny\n")
    same("zkTxnLogToolkit.sh", "-r", "log.1", files=[log], answers=b"a\n")


def test_a_torn_log_ends_as_with_apache(same, tmp_path):
    torn = VECTORS / "apache-3.8-damaged/torn-tail/version-2/log.17c"
    same("zkTxnLogToolkit.sh", torn.name, files=[torn])


@pytest.mark.parametrize("script, arguments", [
    ("zkTxnLogToolkit.sh", []), ("zkTxnLogToolkit.sh", ["-h"]), ("zkTxnLogToolkit.sh", ["-q", "x"]),
    ("zkTxnLogToolkit.sh", ["nowhere"]), ("zkTxnLogToolkit.sh", ["-c", "snapshot.0", "-z", "x"]),
    ("zkSnapShotToolkit.sh", []), ("zkSnapShotToolkit.sh", ["nowhere"]), ("zkSnapShotToolkit.sh", ["a", "b"]),
    ("zkSnapShotToolkit.sh", ["."]), ("zkSnapShotToolkit.sh", ["-d", "-json", "snapshot.0"]),
    ("zkSnapshotComparer.sh", []), ("zkSnapshotComparer.sh", ["-l", "a", "-r", "b", "-b", "1"]),
    ("zkSnapshotComparer.sh", ["-l", "snapshot.0", "-r", "snapshot.0", "-b", "x", "-n", "1"]), ("zkSnapshotComparer.sh", ["-x"]),
    ("zkSnapshotComparer.sh", ["-l", "snapshot.0", "-r", "nowhere", "-b", "1", "-n", "1"]),
])
def test_wrong_arguments_end_as_with_apache(same, script, arguments):
    same(script, *arguments, files=snapshots(VECTOR_FILES)[:1])


def test_what_is_not_a_log_or_snapshot_ends_as_with_apache(same, tmp_path):
    strange = tmp_path / "snapshot.1"
    strange.write_bytes(b"neither the one nor the other, but long enough")
    same("zkTxnLogToolkit.sh", "snapshot.1", files=[strange])
    same("zkSnapShotToolkit.sh", "snapshot.1", files=[strange])
    cut = VECTORS / "apache-3.8-damaged/truncated-snapshot/version-2/snapshot.167"
    same("zkSnapShotToolkit.sh", cut.name, files=[cut])


class Nested:
    """A file under another name in the folder that a tool runs in."""

    def __init__(self, path, name):
        self.path, self.name = path, name

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("arguments", [["-n", "3"], ["-n", "4"], ["-n", "2"], ["-n", "x"], ["-k", "3"], [], ["3"]])
def test_old_files_are_purged_as_by_apache(same, arguments, tmp_path):
    config = tmp_path / "zoo.cfg"
    config.write_text("dataDir=data\ndataLogDir=logs\nclientPort=1\n")
    files = [Nested(path, f"{'logs' if path.name.startswith('log') else 'data'}/version-2/{path.name}") for path in VECTOR_FILES]
    files += [Nested(path, f"data/version-2/{path.name}") for path in COMPRESSED[:1]] + [Nested(config, "zoo.cfg")]
    said = same("zkCleanup.sh", *arguments, files=files, java_arguments=["logs", "data", *arguments], environment={"ZOOCFGDIR": "."})
    assert ("Removing file: " in said) == (arguments in (["-n", "3"], ["-n", "4"]))


def test_inner_nodes_are_summed_up(tool):
    done = tool("zkSnapshotRecursiveSummaryToolkit.sh", COMPRESSED[0], "/", "1")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    nodes = json.loads((VECTORS / "apache-3.8/manifest.json").read_text())["nodes"]
    sizes = {node["path"]: node["stat"]["dataLength"] for node in nodes}
    app = [size for path, size in sizes.items() if path == "/app" or path.startswith("/app/")]
    assert lines[:3] == [" /", f"   children: {len(sizes) - 1}", f"   data: {sum(sizes.values())}"]
    at = lines.index("-- /app")
    assert lines[at:at + 3] == ["-- /app", f"--   children: {len(app) - 1}", f"--   data: {sum(app)}"]
    assert not any(line.startswith("---- ") for line in lines), "deeper than asked"
    assert lines[-1] == ""
    assert tool("zkSnapshotRecursiveSummaryToolkit.sh", COMPRESSED[0], "/").returncode == 2
    assert tool("zkSnapshotRecursiveSummaryToolkit.sh", COMPRESSED[0], "/", "x").returncode == 2
    assert tool("zkSnapshotRecursiveSummaryToolkit.sh", COMPRESSED[0], "/nowhere", "0").returncode == 1


def test_a_server_is_initialized(tool, tmp_path):
    (tmp_path / "zoo.cfg").write_text(f"  dataDir={tmp_path}/data\ndataLogDir={tmp_path}/logs\n")
    here = {"cwd": tmp_path, "ZOOCFGDIR": "."}
    done = tool("zkServer-initialize.sh", "--myid=5", **here)
    assert (done.returncode, done.stdout) == (0, b"Using myid of 5\n"), done.stderr
    assert (tmp_path / "data/myid").read_text() == "5\n"
    for name in ("data", "logs"):
        assert (tmp_path / name / "version-2").is_dir() and (tmp_path / name / "initialize").exists()
    done = tool("zkServer-initialize.sh", **here)
    assert done.returncode == 1 and b"already exists at" in done.stdout
    (tmp_path / "data/version-2/snapshot.0").write_bytes(b"x")
    done = tool("zkServer-initialize.sh", "--configfile", "zoo.cfg", "--force", **here)
    assert done.returncode == 0 and b"No myid provided" in done.stdout
    assert not (tmp_path / "data/myid").exists() and not list((tmp_path / "data/version-2").iterdir())
    for arguments, said in ((["--help"], b"usage: "), (["-x"], b"Unknown option: -x"), (["--configfile=no"], b"Unable to find")):
        done = tool("zkServer-initialize.sh", *arguments, **here)
        assert done.returncode == 1 and said in done.stdout


# -- our own

def test_transactions_are_dumped_as_json(tool):
    done = tool("log", "dump", "--json", "--path-below", "/app/cfg", VECTORS / "apache-3.8")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(txn["zxid"], txn["type"]) for txn in found[:3]] == [("0x5", "create"), ("0x8", "setData"), ("0x9", "setData")]
    # Its digest is the one that the real server computed.
    whole = [json.loads(line) for line in tool("log", "dump", "--json", VECTORS / "apache-3.8").stdout.splitlines()]
    assert (len(whole), whole[-1]["digest"]) == (397, "0x7221b56cd6")


def test_damage_is_found_and_named(tool):
    for folder, code, said in [("apache-3.8", 0, "good"), ("apache-3.8-damaged/flipped-byte", 1, "at offset 13282"),
                               ("apache-3.8-damaged/torn-tail", 0, "never finished"), ("apache-3.8-logged-twice", 0, "39 records")]:
        done = tool("log", "check", VECTORS / folder)
        assert done.returncode == code and said in done.stdout.decode(), folder
        answer = json.loads(tool("log", "check", "--json", VECTORS / folder).stdout)
        assert answer["good"] == (code == 0)
    for snapshot in [*snapshots(VECTOR_FILES), *COMPRESSED]:
        answer = json.loads(tool("snapshot", "check", "--json", snapshot).stdout)
        assert answer["good"] and (answer["digest"] is None or answer["digest"] == answer["digest_of_nodes"]), snapshot
    cut = tool("snapshot", "check", VECTORS / "apache-3.8-damaged/truncated-snapshot/version-2/snapshot.167")
    assert cut.returncode == 1 and b"ends at byte 13876" in cut.stdout


def test_a_missing_log_is_a_hole(tool, tmp_path):
    for log in logs(VECTOR_FILES):
        if log.name != "log.70":
            shutil.copy(log, tmp_path)
    done = tool("log", "check", tmp_path)
    assert done.returncode == 1 and b"transactions are missing: 0xec at offset 16 right behind 0x6f" in done.stdout


def test_files_of_another_users_are_named_and_left_alone(tool, nobody):
    folder = nobody.folder / "data/version-2"
    shutil.copytree(VECTORS / "apache-3.8/version-2", folder)
    for path in folder.iterdir():
        path.chmod(0o600)
    mine = nobody.folder / "mine"
    mine.mkdir()
    shutil.chown(mine, nobody.user)
    as_nobody = lambda *arguments: run([*nobody.launcher, program(), *arguments], "/")
    for arguments, code, named in [
        (["log", "check", folder / "log.ec"], 2, "log.ec"), (["log", "check", folder.parent], 2, "log.1"),
        (["log", "cut", folder / "log.ec", "--to", "0xf0", "--in-place"], 2, "log.ec"),
        (["snapshot", "dump", folder / "snapshot.a3"], 2, "snapshot.a3"),
        (["backup", "--data-dir", folder.parent, "--to", mine / "backup"], 2, ""),
        (["purge", "--data-dir", folder.parent], 2, "snapshot."),
    ]:
        done = as_nobody(*arguments)
        assert (done.returncode, done.stdout) == (code, b""), (arguments, done)
        assert f"{folder / named}".encode() in done.stderr and b"Permission denied" in done.stderr, (arguments, done)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (VECTORS / "apache-3.8/version-2").iterdir()}


def test_a_purge_among_damaged_snapshots_removes_nothing_and_says_so(tool, tmp_path):
    folder = tmp_path / "version-2"
    shutil.copytree(VECTORS / "apache-3.8/version-2", folder)
    purges = [("purge", "--data-dir", tmp_path), ("purge", "--data-dir", tmp_path, "--json"), ("zkCleanup.sh", tmp_path, "-n", "3")]
    assert tool(*purges[0], "--dry-run").returncode == 0
    for name in ["snapshot.65", "snapshot.a3", "snapshot.167"]:
        damaged = bytearray((folder / name).read_bytes())
        damaged[len(damaged) // 2] ^= 0x20
        (folder / name).write_bytes(damaged)
    before = {path.name for path in folder.iterdir()}
    for arguments in purges:
        done = tool(*arguments)
        assert done.returncode == 1, (arguments, done)
        assert b"nothing is removed: of the newest 4 snapshots 3 are damaged, and 3 good ones are to stay" in done.stderr, done
        assert done.stderr.count(b" is not whole: ") == 3
        if "--json" in arguments:
            assert [pathlib.Path(one["file"]).name for one in json.loads(done.stdout)["damaged"]] == ["snapshot.167", "snapshot.a3", "snapshot.65"]
    assert {path.name for path in folder.iterdir()} == before


def test_a_log_is_cut(tool, tmp_path):
    log = tmp_path / "log.1"
    shutil.copy(logs(VECTOR_FILES)[0], log)
    whole = log.read_bytes()
    assert tool("log", "cut", log, "--to", "0x7", "--output", tmp_path / "beginning").returncode == 0
    assert whole.startswith((tmp_path / "beginning").read_bytes()) and log.read_bytes() == whole
    assert tool("log", "cut", log, "--to", "0x1000", "--in-place").returncode == 2, "it does not hold that one"
    assert tool("log", "cut", log, "--to", "7", "--in-place").returncode == 0
    assert log.read_bytes() == (tmp_path / "beginning").read_bytes()
    assert (tmp_path / "uncut-log.1").read_bytes() == whole
    assert json.loads(tool("log", "check", "--json", log).stdout)["last_zxid"] == "0x7"


def test_snapshots_are_compared_and_summed_up(tool):
    old, new = snapshots(VECTOR_FILES)[1], COMPRESSED[0]
    done = tool("snapshot", "diff", "--json", old, new)
    assert done.returncode in (0, 1)
    assert tool("snapshot", "diff", *COMPRESSED).returncode == 0, "the same tree, compressed in two ways"
    nodes = [json.loads(line) for line in tool("snapshot", "dump", "--json", "--data", new).stdout.splitlines()]
    paths = [node["path"] for node in nodes if "path" in node]
    assert len(paths) == 232 and paths == sorted(paths)
    summary = json.loads(tool("snapshot", "summary", "--json", new).stdout)
    assert (summary["nodes"], summary["sessions"], summary["containers"], summary["ttls"]) == (232, 3, 2, 2)


class Writer(threading.Thread):
    """Writes numbered nodes until told to stop; knows what was acknowledged."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.acknowledged, self.over = 0, False
        self.zk = Raw(port, timeout_s=30)
        self.zk.handshake(timeout_ms=600_000)
        self.zk.create("/written").ok()

    def run(self):
        try:
            while not self.over:
                self.zk.create(f"/written/n{self.acknowledged:06}", b"x" * 500).ok()
                self.acknowledged += 1
        except Closed:
            pass


@pytest.mark.parametrize("source", ["?", "A"])
def test_a_backup_of_a_server_under_load_is_whole(tool, start_server, mix, source, tmp_path):
    """Rolls, snapshots and purges go on all the time; the copy holds at least what was acknowledged before it began."""
    config = {"snapCount": 50, "preAllocSize": 64, "dataLogDir": tmp_path / "logs"}
    server = start_server(kind=mix(source)[0], config=config, full=True)
    writer = Writer(server.port)
    writer.start()
    try:
        for n in range(4):
            wait_until(lambda: writer.acknowledged > 100 * (n + 1), "some writes")
            before = writer.acknowledged
            backup = tmp_path / f"backup{n}"
            folders = ["--data-dir", server.data_dir, "--data-log-dir", tmp_path / "logs"]
            done = tool("backup", *folders, "--to", backup, "--json")
            after = writer.acknowledged
            assert done.returncode == 0, done.stderr
            manifest = json.loads(done.stdout)
            assert manifest == json.loads((backup / "manifest.json").read_text())
            # Beside those written: the root, /zookeeper with its two, /written.
            assert before <= manifest["nodes"] - 5 <= after + 1
            tool("purge", *folders)
    finally:
        writer.over = True
        writer.join()
    restored = tmp_path / "restored"
    assert tool("restore", backup, "--data-dir", restored).returncode == 0
    assert tool("restore", backup, "--data-dir", restored).returncode == 2, "there is data now"
    ours = start_server(config={"dataDir": restored}, full=True)
    # As in Apache, the word counts the root under both of its names.
    assert int(ours.monitored()["znode_count"]) == manifest["nodes"] + 1
    assert int(ours.monitored()["digest_mismatches_count"]) == 0


def test_a_backup_that_was_changed_is_not_restored(tool, tmp_path):
    backup = tmp_path / "backup"
    assert tool("backup", "--data-dir", VECTORS / "apache-3.8", "--to", backup).returncode == 0
    log = backup / "version-2/log.17c"
    content = log.read_bytes()
    log.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = tool("restore", backup, "--data-dir", tmp_path / "new")
    assert done.returncode == 1 and b"it is not what was backed up" in done.stderr
    assert not (tmp_path / "new/version-2").exists()
    (backup / "manifest.json").unlink()
    assert tool("restore", backup, "--data-dir", tmp_path / "new").returncode == 2


def test_a_damaged_server_is_not_backed_up(tool, tmp_path):
    done = tool("backup", "--data-dir", VECTORS / "apache-3.8-damaged/flipped-byte", "--to", tmp_path / "backup")
    assert done.returncode == 1 and b"damaged at offset 13282" in done.stderr
    assert not (tmp_path / "backup/manifest.json").exists()


def test_an_ensemble_is_restored_from_a_backup_of_one_member(tool, start_ensemble, tmp_path):
    ensemble = start_ensemble()
    leader = ensemble.leader()
    zk = leader.connect()
    for n in range(50):
        zk.create(f"/n{n}", b"data").ok()
    last = leader.last_zxid()
    follower = next(member for member in ensemble if member is not leader)
    wait_until(lambda: follower.last_zxid() >= last, "the follower has it all")
    backup = tmp_path / "backup"
    manifest = json.loads(tool("backup", "--data-dir", follower.data_dir, "--to", backup, "--json").stdout)
    assert int(manifest["zxid"], 16) >= last
    before = dump(follower.port)
    epoch = manifest["current_epoch"]
    assert manifest["accepted_epoch"] >= epoch >= 1
    for member in ensemble:
        member.kill()
    for member in ensemble:
        member.wipe()
        done = tool("restore", backup, "--data-dir", member.data_dir, "--myid", member.sid)
        assert done.returncode == 0, done.stderr
        assert (member.data_dir / "version-2/currentEpoch").read_text() == str(epoch)
    for member in ensemble:
        member.spawn()
    wait_until(lambda: all(member.mode() for member in ensemble), "the ensemble serves", 40)
    after = dump(ensemble[1].port)
    drop = lambda tree: {path: found for path, found in tree.items() if not path.startswith("/zookeeper")}
    assert not differences(drop(before), drop(after))
    wait_until(lambda: all(member.last_zxid() >> 32 > epoch for member in ensemble), "a new epoch has begun")


def test_a_cut_says_which_ways_there_are_to_do_it(tool, tmp_path):
    done = tool("log", "cut", tmp_path / "log.1")
    assert done.returncode == 2 and "<--output <file>|--in-place>" in done.stderr.decode()
    done = tool("log", "cut", tmp_path / "log.1", "--in-place", "--output", tmp_path / "new")
    assert done.returncode == 2 and "cannot be used with" in done.stderr.decode()


@pytest.mark.parametrize("command", [["check"], ["check", "--json"], ["dump"], ["summary"]])
def test_a_folder_is_not_taken_for_a_damaged_snapshot(tool, tmp_path, command):
    done = tool("snapshot", *command, tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "it is a folder; name a snapshot in it" in done.stderr.decode()


def test_the_doctor_looks_at_a_running_server(tool, start_server):
    server = start_server()
    done = tool("doctor", "--json", server.directory / "zoo.cfg")
    answer = json.loads(done.stdout)
    assert done.returncode == (2 if answer["errors"] else 1 if answer["warnings"] else 0), done.stderr
    by_check = {}
    for finding in answer["findings"]:
        by_check.setdefault(finding["check"], []).append(finding)
        assert finding["severity"] == "note" or (finding["consequence"] and finding["remedy"]), finding
    assert len([f for f in by_check["disk-sync"] if "p50" in f["what"]]) >= 3
    assert any("a server is running" in f["what"] for f in by_check["data-dir"])
    assert by_check["purge"][0]["severity"] == "warning"
    assert not list(server.data_dir.rglob("doctor-probe-*")) and server.running()
    assert "ports" not in by_check, "the server itself has them"


def listening():
    taken = socket.create_server(("", free_port()))
    return taken, taken.getsockname()[1]


def test_the_doctor_finds_ports_that_are_taken_or_where_nobody_listens(tool, tmp_path):
    def found(*lines):
        config.write_text("".join(f"{line}\n" for line in [f"dataDir={data}", "initLimit=10", "syncLimit=5", *lines]))
        said = [f for f in json.loads(tool("doctor", "--json", config).stdout)["findings"] if f["check"] == "ports"]
        return [f"{f['severity']} {f['what']}" for f in said if f["severity"] != "note"]

    data, config = tmp_path / "data", tmp_path / "zoo.cfg"
    data.mkdir()
    (data / "myid").write_text("1\n")
    (taken, port), (election, election_port) = listening(), listening()
    admin, metrics, free = f"admin.serverPort={port}", f"metricsProvider.httpPort={port}", free_port()
    prometheus = "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
    with taken, election:
        for line, setting in [(f"clientPort={port}\nadmin.enableServer=false", "clientPort"), (f"clientPort={free}\n{admin}", "admin.serverPort"),
                              (f"clientPort={free}\nadmin.enableServer=false\n{prometheus}\n{metrics}", "metricsProvider.httpPort")]:
            [said] = found(line)
            assert said.startswith(f"error {setting}: cannot listen on ") and "in use" in said, said
        assert not found(f"clientPort={free}", f"admin.serverPort={free_port()}")
        closed, other = free_port(), f"server.2=127.0.0.1:{free_port()}:{election_port}"
        me = lambda election: f"server.1=127.0.0.1:{free_port()}:{election};{free}"
        said = found(admin, me(free_port()), f"{other};{closed}")
        assert len(said) == 2 and said[0].startswith("warning admin.serverPort: cannot listen on "), said
        assert said[1] == f"warning server.2 (127.0.0.1:{closed}, clients): nobody listens there"
        [said] = found("admin.enableServer=false", me(port), f"{other};{port}")
        assert said.startswith(f"error this server's own line: cannot listen on 127.0.0.1:{port}: "), said


def test_long_work_shows_how_far_it_is_at_a_terminal(tool, tmp_path):
    def shown(*arguments):
        ours, its = os.openpty()
        termios.tcsetwinsize(its, (24, 80))
        done = subprocess.run([program(), *map(str, arguments)], stdout=subprocess.PIPE, stderr=its, timeout=60,
                              env={**os.environ, "TERM": "xterm"})
        os.close(its)
        assert done.returncode == 0
        seen = b""
        # The end of what a terminal has is an error of its own.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 1 << 16):
                seen += piece
        os.close(ours)
        return seen.decode(), done.stdout.decode()

    data, backup = tmp_path / "data", tmp_path / "backup"
    shutil.copytree(VECTORS / "apache-3.8", data)
    for command in (["backup", "--data-dir", data, "--to", backup], ["restore", backup, "--data-dir", tmp_path / "new"]):
        bars, said = shown(*command)
        assert re.search(r"log\.\w+ .*B/", bars) and re.search(r"proving .*B/", bars), bars
        assert "proving " not in said
    bars, said = shown("purge", "--data-dir", data)
    assert re.search(r"removing .*B/", bars), bars
    assert re.search(r"^removed .*/snapshot\.0$", said, re.M) and "removing" not in said
    assert "removing" not in shown("purge", "--data-dir", data, "--dry-run")[0]


@pytest.mark.parametrize("key", ["dataDir", "dataLogDir"])
def test_the_doctor_knows_a_place_for_temporary_files(tool, tmp_path, key):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        places = {"dataDir": tmp_path / "data", "dataLogDir": tmp_path / "logs", key: temporary}
        config = tmp_path / "zoo.cfg"
        config.write_text("clientPort=1\n" + "".join(f"{name}={place}\n" for name, place in places.items()))
        done = tool("doctor", "--json", config)
    found = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "temporary-dir"]
    what = f"{temporary}/version-2 is in /var/tmp, the place for temporary files"
    assert done.returncode == 2 and ("error", what) in [(f["severity"], f["what"]) for f in found], found


def test_the_doctor_finds_what_is_wrong_with_an_ensemble(tool, tmp_path):
    data = tmp_path / "data"
    (data / "version-2").mkdir(parents=True)
    (data / "myid").write_text("1\n")
    (data / "version-2/log.5.bak").write_bytes(b"x")
    (data / "version-2/uncut-log.5").write_bytes(b"x")
    servers = ["127.0.0.1:1:2", "no-such-host.invalid:2888:3888", "127.0.0.1:3:4", "192.0.2.1:5:6"]
    lines = [f"server.{n + 1}={server}" for n, server in enumerate(servers)]
    config = tmp_path / "zoo.cfg"
    config.write_text("\n".join([f"dataDir={data}", "clientPort=1", "initLimit=10", "syncLimit=5", *lines]) + "\n")
    done = tool("doctor", config)
    said = done.stdout.decode()
    assert done.returncode == 2
    for line in ["error    names: server.2: the name no-such-host.invalid cannot be resolved", "warning  members: 4 servers vote",
                 "warning  ports: server.3 (127.0.0.1:4, election): nobody listens there",
                 "warning  leftovers: " + str(data / "version-2/log.5.bak"), "uncut-log.5"]:
        assert line in said, f"{line} is not in\n{said}"
    (data / "myid").write_text("7\n")
    done = tool("doctor", "--json", config)
    assert done.returncode == 2 and any(f["check"] == "config" for f in json.loads(done.stdout)["findings"])
