"""The C client: its library, driven by c/client.c, and Debian's cli_mt."""

import os
import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
CLI = "/usr/lib/zookeeper/bin/cli_mt"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """c/client.c, compiled."""
    if not shutil.which("gcc") or not os.path.exists("/usr/include/zookeeper/zookeeper.h"):
        pytest.skip("no gcc or no C client headers (Debian: gcc, libzookeeper-mt-dev); run `make test-deps` as root")
    binary = tmp_path_factory.mktemp("c") / "client"
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-DTHREADED", "-o", binary, HERE / "c/client.c",
                    "-lzookeeper_mt", "-lpthread"], check=True)
    return binary


@pytest.fixture
def scene(program, server, root, run):
    def play(name, *more):
        done = run([program, f"127.0.0.1:{server.port}", root, name, *more])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()
    return play


def test_basics(scene):
    assert scene("basics") == ["ok"]


def test_watches_fire_in_order(scene):
    assert scene("watches") == ["exists:1:/w;children:4:;data:3:/w;exists:2:/w;", "ok"]


def test_multi_results(scene):
    assert scene("multi") == ["0 -103 -2", "ok"]


def test_thousands_of_pipelined_requests_are_answered_in_order(scene):
    assert scene("pipeline") == ["4000 answers, 0 failed, 0 out of order", "ok"]


def test_a_session_is_resumed_by_another_process(scene):
    session, password = scene("leave")[0].split()
    assert scene("resume", session, password) == ["ok"]


def test_the_interactive_shell(server, root, run, zk):
    if not os.path.exists(CLI):
        pytest.skip("no cli_mt (Debian: zookeeper-bin); run `make test-deps` as root")
    commands = [f"create {root}/a", f"set {root}/a hello", f"get {root}/a", f"ls {root}", f"exists {root}/nope",
                f"create +e {root}/e", f"create +s {root}/s", f"delete {root}/s0000000002", f"ls {root}", "quit"]
    done = run([CLI, f"127.0.0.1:{server.port}"], input="\n".join(commands) + "\n")
    printed = done.stdout + done.stderr
    assert done.returncode == 0
    assert "hello" in printed
    assert zk.get(root + "/a").data() == b"hello"
    assert zk.exists(root + "/a").stat().version == 1
