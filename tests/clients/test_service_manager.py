"""What a service manager sees: a socket that is told when the server serves, what it is, that its threads answer, and that
it stops; and a journal whose lines have priorities.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import socket

import pytest

from server import Server, free_port, wait_until

pytestmark = pytest.mark.rookeeper_only("the JVM tells a service manager nothing")


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        told = []

        def listen():
            while True:
                try:
                    told.extend(heard.recv(4096).decode().splitlines())
                except BlockingIOError:
                    return told

        yield listen


@pytest.fixture
def new_server(kind, tmp_path):
    made = []

    def make(**config):
        made.append(Server(kind, tmp_path / f"server{len(made)}", config))
        return made[-1]

    yield make
    for server in made:
        server.kill()


def test_a_manager_is_told_when_the_server_serves_and_when_it_stops(manager, new_server):
    server = new_server().start()
    wait_until(lambda: "READY=1" in manager(), "the server says that it serves")
    wait_until(lambda: manager().count("WATCHDOG=1") > 2, "the watchdog is fed")
    assert any(re.fullmatch(r"STATUS=standalone, epoch 0, last zxid 0x0", line) for line in manager())
    assert not any(line.startswith("EXTEND_TIMEOUT") for line in manager()[manager().index("READY=1"):])
    server.terminate()
    assert manager()[-2:] == ["STOPPING=1", "STATUS=stopping"]


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WAIT_ALL = 17, 0x4206, 0x4207, 0x40000000


def ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of thread {thread}")


@contextlib.contextmanager
def held(server, name):
    """One thread of the server stands still, as if it were stuck; the others go on."""
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task")
    [thread] = [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name]
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WAIT_ALL)
    try:
        yield {(task / "comm").read_text().strip() for task in tasks.iterdir()
               if (task / "stat").read_text().rpartition(")")[2].split()[0] == "t"}
    finally:
        ptrace(PTRACE_DETACH, thread)


@pytest.mark.parametrize("thread", ["poller", "pipeline", "txnlog", "quorum"])
def test_one_thread_that_is_stuck_starves_the_watchdog_and_is_named(manager, new_server, monkeypatch, thread):
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    # Only a member of an ensemble has the last one; it may be the only member.
    alone = {"standaloneEnabled": "false", "initLimit": 5, "syncLimit": 5, "server.1": f"127.0.0.1:{free_port()}:{free_port()}"}
    server = new_server(**(alone if thread == "quorum" else {}))
    server.data_dir.mkdir()
    (server.data_dir / "myid").write_text("1\n")
    server.start()
    fed = lambda: manager().count("WATCHDOG=1")
    wait_until(lambda: "READY=1" in manager() and fed() > 2, "the watchdog is fed")
    with held(server, thread) as standing:
        assert standing == {thread}
        before = fed()
        named = re.compile(rf"the {thread} thread has not answered for \d+ ms; after 2 s the service manager restarts")
        wait_until(lambda: named.search(server.log_path.read_text()), "the log names the thread")
        # The answers of the last round may just have been on their way; a round every 500 ms has been due since.
        during = fed()
        assert during <= before + 1
    wait_until(lambda: fed() > during + 1, "the watchdog is fed again")
    assert re.search(rf"the {thread} thread goes on after \d+ ms", server.log_path.read_text())


def test_a_server_without_a_quorum_goes_on_starting(manager, new_server):
    members = {f"server.{n}": f"127.0.0.1:{free_port()}:{free_port()}" for n in (1, 2, 3)}
    server = new_server(initLimit=5, syncLimit=5, **members)
    server.data_dir.mkdir()
    (server.data_dir / "myid").write_text("1\n")
    server.spawn()
    wait_until(lambda: sum(line.startswith("EXTEND_TIMEOUT_USEC=") for line in manager()) > 2, "it asks for more time")
    assert "READY=1" not in manager()
    assert any(line.startswith("STATUS=looking for a leader") for line in manager())


def test_lines_for_the_journal_begin_with_their_priority(new_server, monkeypatch):
    server = new_server(noSuchKey=1)
    server.log_path.touch()
    place = server.log_path.stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{place.st_dev}:{place.st_ino}")
    server.start()
    lines = server.log_path.read_text().splitlines()
    assert lines and all(re.match(r"<[346]>\[\w+\] ", line) for line in lines), lines
    assert any(line.startswith("<4>[main] ") and "noSuchKey" in line for line in lines)
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    server.kill()
    before = server.log_path.stat().st_size
    server.start()
    assert re.match(r"\d{4}-\d\d-\d\d ", server.log_path.read_text()[before:])
