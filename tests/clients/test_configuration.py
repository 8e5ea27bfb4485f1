"""zoo.cfg, start-up failures and the orderly stop, as an operator meets them."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from rawzk import Flag, Raw
from server import free_port, program, wait_until


@pytest.fixture
def refuse(start_server):
    """Starts a server that must refuse to run; returns its exit and its output."""
    def attempt(config):
        server = start_server(config=config, wait=False)
        return server, server.wait_exit(30), server.log_path.read_text()
    return attempt


# -- bad values: exit code 2, and (ours) one line that names file, line, key and value

BAD = [
    ("tickTime", "abc"), ("tickTime", "0"), ("clientPort", "70000"), ("clientPort", "abc"), ("dataDir", None),
    ("standaloneEnabled", "maybe"), ("electionAlg", "1"), ("peerType", "boss"), ("minSessionTimeout", "x"),
    ("maxClientCnxns", "many"), ("initLimit", ""), ("autopurge.purgeInterval", "often"), ("server.1", "localhost"),
    ("server.x", "127.0.0.1:2888:3888"),
]


@pytest.mark.parametrize("key, value", BAD)
def test_a_bad_value_ends_the_start_with_exit_code_2(refuse, kind, key, value):
    server, exit_, output = refuse(config={key: value})
    assert exit_.code == 2, output
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)
    if kind == "rookeeper" and value is not None:
        number = [line.partition("=")[0] for line in (server.directory / "zoo.cfg").read_text().splitlines()].index(key)
        complaint = [line for line in output.splitlines() if key in line]
        assert len(complaint) == 1, output
        for part in (str(server.directory / "zoo.cfg"), str(number + 1), value):
            assert part in complaint[0]


@pytest.mark.rookeeper_only("Apache serves it")
@pytest.mark.parametrize("key, value", [("sslQuorum", "true"), ("quorum.auth.serverRequireSasl", "true"),
                                        ("secureClientPort", 1)])
def test_protection_that_is_not_served_ends_the_start(refuse, key, value):
    server, exit_, output = refuse(config={key: value})
    assert exit_.code == 2, output
    assert f"{key}={value}: refused: " in output and "is not served by this version" in output
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_timeouts_in_the_wrong_order(refuse):
    _, exit_, output = refuse(config={"minSessionTimeout": 9000, "maxSessionTimeout": 8000})
    assert exit_.code == 2 and "minSessionTimeout" in output


def test_a_missing_file(kind, apache_jars, run, tmp_path, start_server):
    server = start_server()
    command = [str(tmp_path / "nope.cfg") if word.endswith("zoo.cfg") else word for word in server.command()]
    done = run(command)
    assert done.returncode == 2
    assert "nope.cfg" in done.stdout + done.stderr


# -- the environment is not as it should be

def test_a_port_in_use_is_named_and_ends_with_exit_code_1(refuse):
    with socket.socket() as taken:
        taken.bind(("", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        _, exit_, output = refuse(config={"clientPort": port})
        assert exit_.code == 1
        assert "in use" in output and "panicked" not in output


def test_a_data_directory_that_cannot_be_made_ends_with_exit_code_3(refuse, tmp_path):
    (tmp_path / "file").write_text("in the way")
    _, exit_, output = refuse(config={"dataDir": tmp_path / "file/data"})
    assert exit_.code == 3, output


@pytest.mark.rookeeper_only("Apache's goes on with the files that it may read, or ends with another code")
@pytest.mark.parametrize("file", ["log.*", "snapshot.*"])
def test_a_data_file_of_another_users_ends_with_exit_code_3_and_is_named(start_server, nobody, file):
    server = start_server(directory=nobody.folder / "server")
    zk = Raw(server.port)
    zk.handshake()
    zk.create("/a").ok()
    server.kill()
    folder = server.data_dir / "version-2"
    for path in [server.directory, *server.directory.rglob("*")]:
        shutil.chown(path, nobody.user)
    unreadable = next(folder.glob(file))
    os.chown(unreadable, 0, 0)
    unreadable.chmod(0o600)
    server.launcher = nobody.launcher
    exit_ = server.spawn().wait_exit()
    assert exit_.code == 3, server.log_tail()
    said = f"{unreadable} may not be read by nobody, as whom this server runs. As root: chown -R nobody {folder}"
    assert said in server.log_tail()
    assert subprocess.run(said.partition("As root: ")[2].split()).returncode == 0
    server.start()
    zk = Raw(server.port)
    zk.handshake()
    zk.exists("/a").ok()


def test_a_data_directory_that_may_not_be_written_ends_with_exit_code_3(start_server, nobody):
    (nobody.folder / "data/version-2").mkdir(parents=True)
    server = start_server(directory=nobody.folder / "server", config={"dataDir": nobody.folder / "data"})
    server.kill()
    server.launcher = nobody.launcher
    assert server.spawn().wait_exit().code == 3, server.log_tail()
    if server.kind == "rookeeper":
        assert f"{nobody.folder}/data/version-2 cannot be written: Permission denied" in server.log_tail()


def test_a_missing_data_directory_is_respected(refuse, tmp_path, kind):
    _, exit_, output = refuse(config={"dataDir": tmp_path / "missing", "datadir.autocreate": "false"})
    # Ours is started again by its unit: a disk may be mounted by then.
    assert exit_.code == (3 if kind == "apache" else 1), output
    assert not (tmp_path / "missing").exists()


def test_a_second_server_on_the_same_data_does_not_take_it_over(start_server, kind):
    """Apache lets them both write; ours refuses, or at the very least leaves the first one whole."""
    if kind == "apache":
        pytest.skip("apache: two servers on one data directory destroy each other's log")
    first = start_server()
    zk = Raw(first.port)
    zk.handshake()
    zk.create("/a").ok()
    second = start_server(config={"dataDir": first.data_dir}, wait=False)
    assert second.wait_exit(20).code not in (0, None)
    zk.create("/b").ok()
    first.restart()
    again = Raw(first.port)
    again.handshake()
    assert again.children("/").names() == ["a", "b", "zookeeper"]


# -- the syntax of the file

def test_the_file_is_a_java_properties_file(start_server, tmp_path):
    """Separators, comments, escapes, continued lines, and the last of two equal keys wins."""
    data = tmp_path / "d ata"
    server = start_server(config={
        "# a comment": "x", "! another": "y", "tickTime": "100\ntickTime : 300\nminSessionTimeout 777",
        "dataDir": str(data).replace(" ", "\\ "), "maxSessionTimeout": "98\\\n   76", "syncLimit ": " 5 ",
        "4lw.commands.whitelist": "*",
    })
    conf = dict(line.split("=", 1) for line in server.four("conf").splitlines())
    assert (conf["tickTime"], conf["minSessionTimeout"], conf["maxSessionTimeout"]) == ("300", "777", "9876")
    assert conf["dataDir"] == str(data / "version-2")


def test_unknown_keys_are_no_reason_to_stop(start_server, kind):
    server = start_server(config={
        "tickTme": 5, "serverCnxnFactory": "org.apache.zookeeper.server.NIOServerCnxnFactory",
        "authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider", "my.own.key": "value"})
    zk = Raw(server.port)
    zk.handshake()
    zk.create("/a").ok()
    if kind == "rookeeper":
        warning = [line for line in server.log_path.read_text().splitlines() if "tickTme" in line]
        assert len(warning) == 1 and "tickTime" in warning[0]


def test_properties_work_from_the_command_line(start_server):
    server = start_server(properties={"zookeeper.4lw.commands.whitelist": "ruok", "zookeeper.extendedTypesEnabled": "true",
                                      "zookeeper.snapCount": 50})
    assert server.four("ruok") == "imok"
    zk = Raw(server.port)
    zk.handshake()
    zk.create_ttl("/ttl", 100000).ok()


@pytest.mark.rookeeper_only("Apache's scripts, and not its server, read JVMFLAGS")
def test_properties_work_from_the_environment(start_server, monkeypatch):
    monkeypatch.setenv("SERVER_JVMFLAGS", "-Xmx1g -Dzookeeper.4lw.commands.whitelist=ruok,conf")
    monkeypatch.setenv("JVMFLAGS", "-Dzookeeper.extendedTypesEnabled=true")
    server = start_server()
    assert server.four("ruok") == "imok"
    zk = Raw(server.port)
    zk.handshake()
    zk.create_ttl("/ttl", 100000).ok()


def test_client_port_address_binds_only_there(start_server):
    server = start_server(config={"clientPortAddress": "127.0.0.1"})
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


def test_the_default_address_is_every_address(defaults):
    socket.create_connection(("127.0.0.2", defaults.port), timeout=2).close()
    socket.create_connection(("::1", defaults.port), timeout=2).close()


def test_an_address_may_have_its_interface_behind_it(start_server):
    server = start_server(config={"clientPortAddress": "0:0:0:0:0:0:0:1%lo"}, wait=False)

    def is_open():
        with contextlib.suppress(OSError):
            socket.create_connection(("::1", server.port), timeout=2).close()
            return True

    wait_until(is_open, "it listens there")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_zero_address_is_every_address_of_both_families(start_server, address):
    server = start_server(config={"clientPortAddress": address})
    socket.create_connection(("127.0.0.2", server.port), timeout=2).close()
    socket.create_connection(("::1", server.port), timeout=2).close()


def test_ipv6_clients_have_ipv4_identities_only_when_mapped(defaults):
    zk = Raw(defaults.port)
    zk.sock.close()
    zk.sock = socket.create_connection(("::1", defaults.port), timeout=10)
    zk.handshake()
    assert zk.who_am_i().who() == [("ip", "0:0:0:0:0:0:0:1")]
    zk.close_session()


def test_a_separate_log_directory(start_server, tmp_path):
    server = start_server(config={"dataLogDir": tmp_path / "logs"})
    zk = Raw(server.port)
    zk.handshake()
    zk.create("/a").ok()
    assert list((tmp_path / "logs/version-2").glob("log.*"))
    assert not list((server.data_dir / "version-2").glob("log.*"))
    assert list((server.data_dir / "version-2").glob("snapshot.*"))


def test_autopurge_keeps_what_is_needed(start_server):
    """It runs at start: of many snapshots three stay, with the logs that belong to them, and all data is there."""
    server = start_server(config={"snapCount": 20, "autopurge.snapRetainCount": 3, "autopurge.purgeInterval": 1,
                                  "preAllocSize": 64})
    zk = Raw(server.port)
    zk.handshake()
    for number in range(300):
        zk.create(f"/{number}").ok()
    folder = server.data_dir / "version-2"
    zk.close_session()
    assert len(list(folder.glob("snapshot.*"))) > 5
    server.restart()
    # The first purge may come before or after the snapshot that a start makes.
    wait_until(lambda: len(list(folder.glob("snapshot.*"))) <= 4, "old snapshots are purged")
    server.restart()
    again = Raw(server.port)
    again.handshake()
    assert again.exists("/").stat().numChildren == 301


@pytest.mark.rookeeper_only("Apache looks at the first and last bytes alone")
def test_autopurge_keeps_the_last_good_snapshot(start_server):
    """A byte of each of the three newest is flipped: they do not count, and good ones stay in their place."""
    server = start_server(config={"snapCount": 20, "preAllocSize": 64})
    zk = Raw(server.port)
    zk.handshake()
    for number in range(300):
        zk.create(f"/{number}").ok()
    zk.close_session()
    server.terminate()
    snapshots = sorted((server.data_dir / "version-2").glob("snapshot.*"), key=lambda path: int(path.suffix[1:], 16))
    oldest, last_good, bad = snapshots[0], snapshots[-4], snapshots[-3:]
    for path in bad:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    server.config.update({"autopurge.snapRetainCount": 3, "autopurge.purgeInterval": 1})
    server.start()
    wait_until(lambda: not oldest.exists(), "old snapshots are purged")
    said = server.log_path.read_text()
    assert all(f"{path.name} is not whole" in said for path in bad)
    assert last_good.exists()
    # Without any newer one it is what a start needs, and the logs behind it are there.
    server.terminate()
    for path in last_good.parent.glob("snapshot.*"):
        if int(path.suffix[1:], 16) > int(last_good.suffix[1:], 16):
            path.unlink()
    server.start()
    again = Raw(server.port)
    again.handshake()
    assert again.exists("/").stat().numChildren == 301


# -- the stop

def test_sigterm_ends_with_code_0_within_two_seconds(start_server, kind):
    server = start_server()
    zk = Raw(server.port)
    zk.handshake()
    zk.create("/a", flags=Flag.EPHEMERAL).ok()
    exit_ = server.terminate()
    assert exit_.code == (143 if kind == "apache" else 0)
    assert exit_.seconds < 2
    assert zk.until_closed() == []


def test_sigint_ends_too(start_server, kind):
    server = start_server()
    server.process.send_signal(signal.SIGINT)
    assert server.wait_exit(5).code == (130 if kind == "apache" else 0)


@pytest.mark.rookeeper_only("the words of our log")
def test_sigquit_says_what_each_thread_does_and_the_server_goes_on(start_server):
    server = start_server()
    server.process.send_signal(signal.SIGQUIT)
    wait_until(lambda: "thread report (" in server.log_path.read_text(), "the threads are told of")
    lines = server.log_path.read_text()
    for thread in ("poller", "pipeline", "txnlog"):
        assert re.search(rf"^thread {thread} \(\d+\): .*; \d+\.\d\d s of processor time$", lines, re.M), lines
    Raw(server.port).handshake()


def test_sighup_ends_only_who_was_not_told_to_ignore_it(start_server, kind):
    server = start_server()
    server.kill()
    server.launcher = ["nohup"]
    server.start()
    server.process.send_signal(signal.SIGHUP)
    Raw(server.port).handshake()
    assert server.terminate().code == (143 if kind == "apache" else 0)
    # Whoever runs the tests may have been told to ignore it.
    server.launcher = ["env", "--default-signal=HUP"]
    server.start()
    server.process.send_signal(signal.SIGHUP)
    assert server.wait_exit(5).code == (129 if kind == "apache" else 0)


def test_sigterm_does_not_wait_for_clients_that_hang(start_server):
    server = start_server()
    zk = Raw(server.port)
    zk.handshake()
    zk.create("/big", b"x" * 1_000_000).ok()
    half = Raw(server.port)
    half.send_bytes(b"\x00\x00\x00\x2d")

    def flood():
        try:
            for _ in range(300):
                zk.post(4, b"\x00\x00\x00\x04/big\x00")
        except OSError:
            pass
    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    wait_until(lambda: zk.sock.recv(1), "the answers begin")
    assert server.terminate().seconds < 2


@pytest.mark.rookeeper_only("the threads of our server have names")
def test_the_threads_have_their_roles_as_names(server):
    folder = f"/proc/{server.process.pid}/task"
    names = {open(f"{folder}/{task}/comm").read().strip() for task in os.listdir(folder)}
    assert {"poller", "pipeline", "txnlog"} <= names, names


@pytest.mark.rookeeper_only("the command line of our own program")
def test_wrong_arguments_are_explained():
    done = subprocess.run([program(), "frobnicate"], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr


@pytest.mark.rookeeper_only("Apache's do not start before 3.10")
def test_a_port_for_tls_in_the_own_line_is_kept_in_the_list_and_refused_by_name(start_server, tmp_path):
    directory = tmp_path / "one"
    (directory / "data").mkdir(parents=True)
    (directory / "data/myid").write_text("1\n")
    secure = free_port()
    place = f"127.0.0.1:{free_port()}:{free_port()}"
    server = start_server({"standaloneEnabled": "false", "initLimit": 5, "syncLimit": 2, "server.1": f"{place};;{secure}"},
                          directory=directory)
    zk = Raw(server.port)
    zk.handshake()
    text = zk.get("/zookeeper/config").data_and_stat()[0].decode()
    zk.close()
    assert text.startswith(f"server.1={place}:participant;;0.0.0.0:{secure}\nversion=")
    warned = (f"server.1: secureClientPort 0.0.0.0:{secure}, behind the second ';', is refused: TLS for clients is not served "
              f"by this version, and nobody listens there; clients connect to [::]:{server.port} without it")
    assert warned in server.log_path.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", secure), timeout=10)
