"""Our shell: beside Apache's on the same server, where both have the command; at a terminal; and what only ours has."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from java_cli import JavaCli, OurCli
from server import free_port, wait_until


@pytest.fixture
def java(apache_jars, server):
    return JavaCli(apache_jars, server.port)


@pytest.fixture
def ours(server):
    return OurCli(server.port)


# -- beside Apache's shell

def alike(text, root):
    """What two runs of the same commands have in common: no paths, transactions, times or sessions of their own."""
    text = text.replace(root, "ROOT")
    text = re.sub(r"^([cmp]Zxid) = 0x[0-9a-f]+$", r"\1 = Z", text, flags=re.M)
    text = re.sub(r"^([cm]time) = \w{3} \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}$", r"\1 = T", text, flags=re.M)
    text = re.sub(r"^ephemeralOwner = 0x[1-9a-f][0-9a-f]+$", "ephemeralOwner = S", text, flags=re.M)
    # 3.9 shows a zxid behind each event, the reference is 3.8.
    text = re.sub(r"^(WatchedEvent .*) zxid: -?\d+$", r"\1", text, flags=re.M)
    # Apache's shell may or may not print this before its process ends.
    return text.replace("\nWATCHER::\n\nWatchedEvent state:Closed type:None path:null\n", "")


EVENT = re.compile(r"^\nWATCHER::\n\n(WatchedEvent .*)\n", flags=re.M)


def events_apart(text):
    """The lines, and the events: another thread prints them, before or after what a command prints meanwhile."""
    return EVENT.sub("", text).splitlines(), EVENT.findall(text)


def test_a_session_is_printed_as_by_apaches_shell(java, ours, root):
    commands = """
        getEphemerals
        create ROOT/a hello
        create ROOT/a
        create -s ROOT/a/q- x
        create -e ROOT/a/e x
        create -s -e ROOT/a/se- x
        create ROOT/a/e/child x
        create -c ROOT/c
        create -t 100000 ROOT/t x
        create -st100000 ROOT/t- x
        create -c -s ROOT/no
        create -t soon ROOT/no
        create -t 0 ROOT/no
        create -e -t 5 ROOT/no
        create -c -t 5 ROOT/no
        create ROOT/no/where
        create relative x
        create ROOT/end/ x
        create ROOT//x
        create ROOT/../x
        create ROOT/ö 'two words'
        create "ROOT/b c" "it's"
        create ROOT/p x digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=:cdrwa,world:anyone:ra
        create ROOT/no x nonsense
        create ROOT/no x world:anyone:xyz
        create
        create -z ROOT/no
        ls ROOT
        ls -s ROOT/a
        ls -R ROOT
        ls ROOT/nope
        ls -R ROOT/nope
        ls relative
        ls
        ls -?
        ls --all ROOT
        ls ROOT watch
        get ROOT/a
        get -s ROOT/ö
        get ROOT/nope
        get "ROOT/b c"
        set ROOT/a new
        set -s ROOT/a newer
        set -v 9 ROOT/a no
        set -v 2 ROOT/a 'third time'
        set -v2 ROOT/a no
        get ROOT/a
        stat ROOT/a/e
        stat ROOT/nope
        stat
        create ROOT/null
        get ROOT/null
        create ROOT/empty ''
        get ROOT/empty
        delete -v 7 ROOT/null
        delete ROOT/null
        delete ROOT/null
        delete ROOT/a
        delete /zookeeper
        getEphemerals ROOT/a/e
        getAllChildrenNumber ROOT
        getAllChildrenNumber
        deleteall ROOT/a
        deleteall ROOT/a
        deleteall -b many ROOT/c
        deleteall -b 2 ROOT/c
        deleteall -b 0 ROOT/t
        ls ROOT
        getAcl ROOT/p
        getAcl -s ROOT/ö
        setAcl ROOT/ö auth::cdrwa
        addauth digest u:p
        addauth
        getAcl ROOT/p
        setAcl -s ROOT/ö auth::cdrwa
        getAcl ROOT/ö
        setAcl -v 7 ROOT/ö world:anyone:r
        setAcl ROOT/ö nope:x:r
        setAcl ROOT/ö
        setAcl -R ROOT/p world:anyone:cdrwa
        create ROOT/quota 12345
        listquota ROOT/quota
        setquota ROOT/quota
        setquota -n 1 -b 2 ROOT/quota
        setquota -n 0 ROOT/quota
        setquota -n x ROOT/quota
        setquota -n 5 ROOT/nope
        setquota -n 5 /zookeeper/quota/x
        setquota -n 5 ROOT/quota
        setquota -B 2 ROOT/quota
        listquota ROOT/quota
        create ROOT/quota/deep
        setquota -n 5 ROOT/quota/deep
        setquota -n 5 ROOT
        set ROOT/quota 123456
        delquota -B ROOT/quota
        listquota ROOT/quota
        delquota -n -b ROOT/quota
        delquota ROOT/quota
        delquota ROOT/quota
        listquota ROOT/quota
        ls /zookeeper/quota
        sync ROOT
        sync
        config
        reconfig
        reconfig -add 1=x -members 2=y
        reconfig -file /nope -members 2=y
        reconfig -v x -remove 1
        removewatches ROOT/nope
        addWatch
        addWatch -m some ROOT
        printwatches
        printwatches off
        printwatches
        redo 200
        redo 27
        history
        redo 115
        close
        ls /
        set -v 9 ROOT no
    """.split("\n")
    commands = [command.strip() for command in commands if command.strip()]
    roots = {java: root + "/java", ours: root + "/ours"}
    answers = {}
    for shell, own in roots.items():
        answers[shell] = shell.streams(f"create {own}", *[command.replace("ROOT", own) for command in commands])
    for stream in ("out", "err"):
        theirs, mine = (events_apart(alike(getattr(answers[shell], stream), roots[shell])) for shell in (java, ours))
        assert mine == theirs, stream
    assert answers[ours].code == answers[java].code == 0


@pytest.mark.parametrize("words, code", [
    ("ls ROOT", 0), ("create ROOT/x data", 0), ("get -s ROOT/nope", 1), ("stat", 1), ("set -v 1 ROOT", 1)])
def test_one_command_has_apaches_streams_and_exit_code(java, ours, root, zk, words, code):
    answers = []
    for name, shell in (("java", java), ("ours", ours)):
        zk.create(f"{root}/{name}").ok()
        answers.append(shell.once(*words.replace("ROOT", f"{root}/{name}").split()))
    theirs, mine = answers
    assert mine.code == theirs.code == code
    assert alike(mine.out, f"{root}/ours") == alike(theirs.out, f"{root}/java")
    if words.startswith("set"):  # 3.9 changed the usage of this one
        assert mine.err.startswith("set path data [-s] [-v version] [-b]\n -b         Supply data in base64 format\n")
    else:
        assert alike(mine.err, f"{root}/ours") == alike(theirs.err, f"{root}/java")


def test_an_unknown_word_shows_the_commands_and_is_127(java, ours):
    theirs, mine = java.once("rmr", "/x"), ours.once("rmr", "/x")
    assert (mine.code, mine.out.replace(" zxid: -1", "")) == (127, theirs.out) and theirs.code == 127
    later = ("\tget ", "\tset ", "\texit ", "\texport ", "\timport ", "\twatch ")
    assert [line for line in mine.err.splitlines() if not line.startswith(later)] == [
        line for line in theirs.err.splitlines() if not line.startswith(later)]


def test_watches_are_printed_as_by_apaches_shell(java, ours, root):
    """Apache's shell prints events whenever it comes to it, so that only the lines themselves can be compared."""
    printed = []
    for shell, own in ((java, root + "/java"), (ours, root + "/ours")):
        answer = shell.streams(
            f"create {own} x", f"get -w {own}", f"set {own} y", f"ls -w {own}", f"create {own}/v x", f"stat -w {own}/v",
            f"delete {own}/v", f"addWatch {own}", f"create {own}/deep x", f"sync {own}", f"removewatches {own}",
            f"addWatch -m persistent {own}", f"set {own} z", f"sync {own}", f"removewatches -a {own}",
            f"removewatches {own}", f"sync {own}")
        printed.append(sorted(alike(answer.out + answer.err, own).splitlines()))
    assert printed[1] == printed[0]
    assert sum("WatchedEvent" in line for line in printed[1]) >= 8


# -- what only ours has

def test_results_and_errors_are_json_when_wanted(ours, root, run):
    def ask(*words):
        done = run([ours._program()[0], "cli", "-server", f"127.0.0.1:{ours.port}", "--json", *words])
        return done.returncode, [json.loads(line) for line in (done.stdout or done.stderr).splitlines()]

    code, [made] = ask("create", f"{root}/j", "text")
    assert (code, made["path"], made["stat"]["version"]) == (0, f"{root}/j", 0)
    assert ask("get", f"{root}/j") == (0, [{"path": f"{root}/j", "data": "text"}])
    assert ask("ls", root) == (0, [{"path": root, "children": ["j"]}])
    assert ask("ls", "-R", root) == (0, [{"path": root}, {"path": f"{root}/j"}])
    code, [refused] = ask("delete", "-v", "3", f"{root}/j")
    assert (code, refused["error"], refused["path"]) == (1, "BadVersion", f"{root}/j")
    assert ask("nope")[0] == 127


def test_bytes_go_in_and_come_out(ours, root):
    answer = ours.streams(f"create {root}/b", f"set -b {root}/b /wBoaQ==", f"get -b {root}/b", f"get -x {root}/b")
    assert "/wBoaQ==\n" in answer.out
    assert "|00000000| ff 00 68 69                                     |..hi            |" in answer.out


def test_a_subtree_leaves_and_comes_back_elsewhere(ours, root, tmp_path):
    file = tmp_path / "subtree.json"
    made = ours.streams(
        f"create {root}/from 'top'", f"create {root}/from/null", f"create {root}/from/b", f"set -b {root}/from/b /wA=",
        f"create {root}/from/b/c ü world:anyone:cdra", f"create -e {root}/from/lock x",
        f"export {root}/from {file}", f"import {file} {root}/to", f"import {file} {root}/to",
        f"set {root}/to/b/c gone", f"set {root}/to changed", f"import -u {file} {root}/to", f"ls -R {root}/to",
        f"get {root}/to", f"get -b {root}/to/b", f"getAcl {root}/to/b/c")
    assert f"Exported 4 nodes of {root}/from" in made.err and f"left out: {root}/from/lock (ephemeral)" in made.err
    assert made.err.count(f"Imported 4 nodes to {root}/to") == 1
    assert f"{root}/to exists: nothing was imported; -u updates what exists" in made.err
    # c may not be written: an update stops there and says how far it came.
    assert f"Insufficient permission : {root}/to/b/c" in made.err
    listed = [f"{root}/to", f"{root}/to/b", f"{root}/to/null", f"{root}/to/b/c"]
    assert made.out.splitlines()[-8:] == [*listed, "top", "/wA=", "'world,'anyone", ": cdra"]
    document = json.loads(file.read_text())
    assert json.loads(ours.once("export", f"{root}/from").out) | {"left_out": []} == document | {"left_out": []}
    assert [node["path"] for node in document["nodes"]] == [
        f"{root}/from", f"{root}/from/b", f"{root}/from/b/c", f"{root}/from/null"]


def test_every_server_that_was_tried_is_named(ours, run):
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    done = run([ours._program()[0], "cli", "-server", ",".join(dead), "ls", "/"])
    assert done.returncode == 1
    assert done.stderr.startswith("KeeperErrorCode = ConnectionLoss for /\n")
    for server in dead:
        assert f"  {server}: connection refused: no server listens there\n" in done.stderr


class Piped:
    """A shell in JSON that is told line by line."""

    def __init__(self, program, servers):
        command = [program, "cli", "-server", servers, "--json"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        return self.process.wait(20)


def test_a_session_outlives_its_server(ours, start_server):
    server = start_server()
    shell = Piped(ours._program()[0], f"127.0.0.1:{free_port()},127.0.0.1:{server.port}")
    try:
        owner = shell.ask("create -e /mine x")["stat"]["ephemeralOwner"]
        shell.ask("stat -w /mine")
        server.restart()
        assert shell.ask("stat /mine")["stat"]["ephemeralOwner"] == owner
        assert shell.ask("set /mine y")["event"] == "NodeDataChanged"
    finally:
        assert shell.end() == 0


def test_a_session_outlives_each_server_of_an_ensemble(ours, start_ensemble):
    ensemble = start_ensemble()
    shell = Piped(ours._program()[0], ",".join(f"127.0.0.1:{server.port}" for server in ensemble))
    try:
        owner = shell.ask("create -e /mine x")["stat"]["ephemeralOwner"]
        for server in ensemble:
            server.kill()
            assert shell.ask("stat /mine")["stat"]["ephemeralOwner"] == owner
            server.start()
        assert shell.ask("set /mine y")["stat"]["version"] == 1
    finally:
        assert shell.end() == 0


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_the_shell_is_left_by_either_word(ours, root, word):
    answer = ours.streams(f"create {root}/{word}", word, f"create {root}/later")
    assert f"Created {root}/{word}" in answer.out + answer.err and "later" not in answer.out + answer.err
    assert answer.code == 0


def test_who_reads_no_further_ends_the_shell_quietly(ours, root):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(ours._command(["ls", "-R", root]), stdout=writer, stderr=subprocess.PIPE, timeout=20)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_list_of_servers_with_a_mistake_does_not_cost_the_session(ours, root):
    done = ours.streams("create -e ROOT/mine".replace("ROOT", root), "connect 127.0.0.1:1x", f"ls {root}")
    assert "the port is no number" in done.err
    assert "[mine]\n" in done.out


# -- at a terminal

class Terminal:
    """The shell on a terminal of its own, in a home of its own."""

    def __init__(self, program, port, home, **environment):
        variables = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "TERM": "xterm", **environment}
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            os.execve(program, [program, "cli", "-server", f"127.0.0.1:{port}"], variables)
        self.seen = ""

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def expect(self, pattern, meanwhile=lambda: None, within_s=20):
        """Reads until the pattern shows; what came with and before it is taken. Does `meanwhile` again and again."""
        end = time.monotonic() + within_s
        while not (found := re.search(pattern, self.seen)):
            meanwhile()
            ready, _, _ = select.select([self.terminal], [], [], 0.1)
            assert time.monotonic() < end, f"{pattern!r} does not show; there is {self.seen!r}"
            if not ready:
                continue
            try:
                piece = os.read(self.terminal, 65536)
            except OSError:
                piece = b""
            assert piece, f"the shell ended before {pattern!r}; there is {self.seen!r}"
            self.seen += piece.decode()
        self.seen = self.seen[found.end():]
        return found

    def end(self):
        os.kill(self.child, signal.SIGKILL)
        os.close(self.terminal)
        return os.waitpid(self.child, 0)[1]


@pytest.fixture
def terminal(ours, tmp_path):
    open_ones = []

    def start(**environment):
        open_ones.append(Terminal(ours._program()[0], ours.port, tmp_path, **environment))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.end()


PROMPT = r"\[zk: 127\.0\.0\.1:\d+\(CONNECTED\) %d\]"


def test_lines_are_edited_completed_and_remembered(terminal, root, zk, tmp_path):
    zk.create(f"{root}/completed", b"the data").ok()
    shell = terminal(NO_COLOR="1")
    shell.expect("Welcome to ZooKeeper!")
    shell.expect(PROMPT % 0)
    shell.type("getAl\t")
    shell.expect("getAllChildrenNumber ")
    shell.type(f"{root}\r")
    shell.expect(r"\r\n1\r\n")
    shell.expect(PROMPT % 1)
    shell.type(f"get {root}/comp\t\r")
    shell.expect(f"get {root}/completed")
    shell.expect("the data\r\n")
    shell.expect(PROMPT % 2)
    shell.type("\x1b[A\x1b[A\r")
    shell.expect(f"getAllChildrenNumber {root}")
    shell.expect(r"\r\n1\r\n")
    shell.expect(PROMPT % 3)
    shell.type("addauth digest u:secret\r")
    shell.expect(PROMPT % 4)
    shell.type("quit\r")
    shell.expect("state:Closed")
    history = tmp_path / "rookeeper/cli_history"
    wait_until(lambda: history.exists() and "quit" in history.read_text(), "the lines are kept")
    kept = history.read_text()
    assert "getAllChildrenNumber" in kept and "secret" not in kept
    assert history.stat().st_mode & 0o077 == 0


def test_what_fits_is_listed(terminal, root, zk):
    for name in ["alpha", "alpine", "beta"]:
        zk.create(f"{root}/{name}").ok()
    shell = terminal(NO_COLOR="1")
    shell.expect(PROMPT % 0)
    shell.type(f"stat {root}/a\t")
    shell.expect(f"stat {root}/alp")
    shell.type("\t")
    shell.expect(r"alpha +alpine")
    shell.type("i\t\r")
    shell.expect(f"stat {root}/alpine")
    shell.expect("cZxid = ")


def test_lines_typed_ahead_and_pasted_are_all_done(terminal, root, zk):
    shell = terminal(NO_COLOR="1")
    shell.expect(PROMPT % 0)
    shell.type(f"create {root}/one\rcreate {root}/two\rls {root}\r")
    shell.expect(r"\[one, two\]\r\n")
    shell.expect(PROMPT % 3)
    # As a terminal sends what is pasted.
    shell.type(f"\x1b[200~create {root}/three\rls {root}\rls {root}/thr\x1b[201~ee\r")
    shell.expect(r"\[one, three, two\]\r\n")
    shell.expect(r"\[\]\r\n")
    shell.type("\x1b[A\r")
    shell.expect(f"ls {root}/three")
    shell.expect(r"\[\]\r\n")


def test_ctrl_c_ends_the_command_and_not_the_shell(terminal, root, zk):
    shell = terminal()
    shell.expect(r"\x1b\[1;34m\[zk: .* 0\] ")
    shell.type("half a line\x03")
    shell.expect(r" 0\] ")
    shell.type(f"watch -d {root}\r")
    # Nobody outside can tell when the watch is there.
    shell.expect(rf"NodeCreated.*{root}/live-\d+  news\r\n",
                 meanwhile=lambda: zk.create(f"{root}/live-", b"news", flags=2).ok())
    shell.type("\x03")
    shell.expect(PROMPT % 1)
    shell.type("ls /zookeeper\r")
    shell.expect(r"\[config, quota\]\r\n")
    shell.type("stat /zookeeper/nope\r")
    shell.expect(r"\x1b\[31mNode does not exist: /zookeeper/nope\x1b\[0m")


def test_events_show_while_a_line_is_edited(terminal, root, zk):
    shell = terminal(NO_COLOR="1")
    shell.expect(r" 0\] ")
    shell.type(f"addWatch {root}\r")
    shell.expect(PROMPT % 1)
    shell.type("get /unfinished")
    shell.expect("unfinished")
    zk.create(f"{root}/event").ok()
    shell.expect(rf"type:NodeCreated path:{root}/event zxid: -?\d+")
    shell.expect("get /unfinished")
