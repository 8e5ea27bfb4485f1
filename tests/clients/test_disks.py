"""What the host runs out of, and what is done to a data folder: no room, no descriptors, folders and logs that go away
under a running server, modes of files."""

import os
import pathlib
import shutil
import socket
import stat
import subprocess

import pytest

from http_client import ask
from rawzk import Closed, Raw
from server import free_port, program, wait_until

pytestmark = pytest.mark.rookeeper_only("Apache's server ends, or writes on into nothing")


class SmallDisk:
    """A file system of its own at a folder."""

    def __init__(self, folder, size_kb):
        self.folder = folder
        self.ballast = folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        self.mount("-o", f"size={size_kb}k")

    def mount(self, *options):
        subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", self.folder], check=True)

    def resize(self, size_kb):
        self.mount("-o", f"remount,size={size_kb}k")

    def fill(self):
        with open(self.ballast, "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def make_room(self):
        self.ballast.unlink()


@pytest.fixture
def small_disk():
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    mine = []

    def make(folder, size_kb):
        mine.append(SmallDisk(pathlib.Path(folder), size_kb))
        return mine[-1]

    yield make
    for disk in mine:
        subprocess.run(["umount", "--lazy", disk.folder], check=False)


def connected(server):
    zk = Raw(server.port)
    zk.handshake()
    return zk


def said(server, what):
    return server.log_path.read_text(errors="replace").count(what)


def test_a_snapshot_without_room_is_put_off_and_the_log_goes_on(start_server, small_disk, tmp_path):
    disk = small_disk(tmp_path / "snapshots", 1024)
    admin_port = free_port()
    server = start_server(config={
        "dataDir": disk.folder, "dataLogDir": tmp_path / "logs", "snapCount": 10, "4lw.commands.whitelist": "*",
        "admin.enableServer": "true", "admin.serverPort": admin_port, "admin.serverAddress": "127.0.0.1",
    })
    zk = connected(server)
    for n in range(30):
        zk.create(f"/large-{n}", bytes(100_000)).ok()
    failures = lambda: int(server.monitored()["snapshot_failures_in_a_row"])
    wait_until(failures, "a snapshot fails")
    line = f"{disk.folder}/version-2/unfinished-snapshot cannot be written: No space left on device (os error 28); make room"
    assert said(server, line) and said(server, "it is tried again in 5 s"), server.log_tail()
    assert int(ask(admin_port, "/commands/monitor").json()["snapshot_failed_count"]) >= 1
    doctor = subprocess.run([program(), "doctor", server.directory / "zoo.cfg"], capture_output=True, text=True)
    assert "could not be written" in doctor.stdout, doctor.stdout
    # Others would be due now, and are not tried before the pause is over.
    for n in range(30):
        zk.create(f"/small-{n}").ok()
    disk.resize(64 << 10)
    wait_until(lambda: failures() == 0, "a snapshot is written", 30)
    assert said(server, "snapshots are written again")
    server.restart()
    assert len(connected(server).children("/").names()) == 61


def test_a_start_on_a_full_disk_waits_for_room_and_says_so(start_server, small_disk, tmp_path):
    disk = small_disk(tmp_path / "data", 16 << 10)
    server = start_server(config={"dataDir": disk.folder, "preAllocSize": 1024})
    connected(server).create("/a").ok()
    server.kill()
    disk.fill()
    waiting = "no room for the data: "
    server.spawn()
    wait_until(lambda: said(server, waiting), "it says that it waits")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    exit_ = server.terminate()
    assert exit_.code == 0 and said(server, "stopped while waiting for room"), server.log_tail()
    server.spawn()
    wait_until(lambda: said(server, waiting) == 2, "it says so again")
    disk.make_room()
    wait_until(server._serving_or_dead, "it serves")
    assert said(server, waiting) == 2, "once a minute"
    assert connected(server).children("/").names() == ["a", "zookeeper"]


def test_a_start_on_a_read_only_disk_waits_until_it_is_mounted_again(start_server, small_disk, tmp_path):
    disk = small_disk(tmp_path / "data", 16 << 10)
    server = start_server(config={"dataDir": disk.folder, "preAllocSize": 1024})
    connected(server).create("/a").ok()
    server.kill()
    disk.mount("-o", "remount,ro")
    waiting = "the data cannot be written: "
    server.spawn()
    wait_until(lambda: said(server, waiting), "it says that it waits")
    assert said(server, "mount it writable again. This server waits"), server.log_tail()
    disk.mount("-o", "remount,rw")
    wait_until(server._serving_or_dead, "it serves")
    assert said(server, waiting) == 1, "once a minute"
    assert connected(server).children("/").names() == ["a", "zookeeper"]


def test_a_start_on_a_full_disk_removes_what_autopurge_would(start_server, small_disk, tmp_path):
    disk = small_disk(tmp_path / "data", 48 << 10)
    config = {"dataDir": disk.folder, "preAllocSize": 1024, "snapCount": 10}
    server = start_server(config=config)
    zk = connected(server)
    for n in range(20):
        zk.create(f"/large-{n}", bytes(100_000)).ok()
    folder = disk.folder / "version-2"
    for n in range(200):
        zk.create(f"/small-{n}").ok()
        if len(list(folder.glob("snapshot.*"))) > 6:
            break
    server.kill()
    disk.fill()
    server.config["autopurge.purgeInterval"] = 1
    server.start()
    assert said(server, "what autopurge removes goes now"), server.log_tail()
    assert not said(server, "This server waits"), "that was enough"
    assert len(connected(server).children("/").names()) >= 21


def test_a_quorum_with_full_disks_comes_back_by_itself_once_there_is_room(start_ensemble, small_disk, kind):
    ensemble = start_ensemble()
    followers = [member for member in ensemble if member.sid != 3]
    disks = []
    for member in followers:
        member.kill()
        member.data_dir.rename(member.directory / "elsewhere")
        disks.append(small_disk(member.data_dir, 16 << 10))
        shutil.copytree(member.directory / "elsewhere", member.data_dir, dirs_exist_ok=True)
        member.start()
    for disk in disks:
        disk.fill()
    ensemble[3].kill()
    # Whoever is elected, or follows, cannot write its epoch.
    ended = wait_until(lambda: [one for one in followers if not one.running()], "an epoch cannot be written", 30)
    for member in ended:
        assert member.process.returncode == 11, member.log_tail()
        assert said(member, "an epoch cannot be written"), member.log_tail()
        # As the unit does.
        member.spawn()
        wait_until(lambda: said(member, "no room for the data"), "it waits")
    for disk in disks:
        disk.make_room()
    for member in followers:
        if not member.running():
            member.spawn()
    ensemble.wait_serving(followers)


@pytest.mark.parametrize("what", ["removed", "moved", "cut", "mounted over"])
def test_a_data_folder_that_goes_away_under_a_server_ends_it_at_once(start_server, small_disk, what):
    server = start_server()
    connected(server).create("/a").ok()
    folder = server.data_dir / "version-2"
    if what == "removed":
        shutil.rmtree(folder)
    elif what == "moved":
        server.data_dir.rename(server.directory / "elsewhere")
    elif what == "cut":
        for log in folder.glob("log.*"):
            os.truncate(log, 4096)
    else:
        small_disk(server.data_dir, 1024)
    exit_ = server.wait_exit(10)
    # The unit starts nothing after that: it would begin with nothing.
    assert exit_.code == 3, server.log_tail()
    words = {"removed": "was removed or moved away", "moved": "was removed or moved away",
             "cut": "was cut or overwritten by somebody else", "mounted over": "was removed or moved away"}
    assert words[what] in server.log_tail() and "restore a backup before the next start" in server.log_tail()


def test_snapshots_that_are_removed_under_a_server_are_taken_anew(start_server):
    server = start_server()
    zk = connected(server)
    zk.create("/a").ok()
    folder = server.data_dir / "version-2"
    removed = list(folder.glob("snapshot.*"))
    assert removed, "each start writes one"
    for snapshot in removed:
        snapshot.unlink()
    wait_until(lambda: list(folder.glob("snapshot.*")), "another one is there")
    assert f"no snapshot is left in {folder}, where there was one a second ago" in server.log_tail()
    # The log may be purged: the snapshot has everything.
    server.kill()
    for log in folder.glob("log.*"):
        log.unlink()
    server.start()
    connected(server).get("/a").ok()


def test_clients_leave_descriptors_to_files_servers_and_operators(start_server):
    admin_port = free_port()
    server = start_server(config={
        "snapCount": 10, "4lw.commands.whitelist": "*", "autopurge.purgeInterval": 1, "admin.enableServer": "true",
        "admin.serverPort": admin_port, "admin.serverAddress": "127.0.0.1",
    }, wait=False)
    server.kill()
    server.launcher = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"]
    server.start()
    sessions, refused = [], 0
    for _ in range(320):
        try:
            one = Raw(server.port)
            one.handshake()
            sessions.append(one)
        except (Closed, OSError):
            refused += 1
    assert 100 <= len(sessions) <= 108 and refused >= 200
    assert said(server, "of the 300 files that this process may open are kept for its data"), server.log_tail()
    assert said(server, "LimitNOFILE=65536")
    for n in range(30):
        sessions[0].create(f"/{n}").ok()
    snapshots = lambda: len(list((server.data_dir / "version-2").glob("snapshot.*")))
    wait_until(lambda: snapshots() >= 3, "snapshots are written")
    silent = [socket.create_connection(("127.0.0.1", admin_port)) for _ in range(40)]
    assert ask(admin_port, "/commands/ruok").status == 200
    assert not said(server, "Too many open files"), server.log_tail()
    for one in [*sessions, *silent]:
        one.close()
    wait_until(lambda: connected(server), "there is room for clients again")


def test_a_leader_with_few_descriptors_leads_on_under_a_crowd(start_ensemble):
    ensemble = start_ensemble(config={"snapCount": 20})
    for member in ensemble:
        member.kill()
        member.launcher = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"]
    ensemble.start(3)
    leader = ensemble[3]
    zk = connected(leader)
    crowd = []
    for _ in range(300):
        try:
            crowd.append(connected(leader))
        except (Closed, OSError):
            pass
    assert len(crowd) < 108
    for n in range(100):
        zk.create(f"/{n}").ok()
    snapshots = lambda: list((leader.data_dir / "version-2").glob("snapshot.*"))
    wait_until(lambda: len(snapshots()) >= 3, "snapshots are written")
    # A follower that comes back finds its leader.
    ensemble[1].restart()
    ensemble.wait_serving()
    assert leader.mode() == "leader" and not said(leader, "Too many open files"), leader.log_tail()
    for one in crowd:
        one.close()


def test_data_is_its_users_alone_whatever_the_umask(start_server):
    server = start_server(wait=False)
    server.kill()
    shutil.rmtree(server.data_dir, ignore_errors=True)
    server.launcher = ["sh", "-c", 'umask 000; exec "$@"', "sh"]
    server.config["snapCount"] = 10
    server.start()
    zk = connected(server)
    for n in range(30):
        zk.create(f"/{n}").ok()
    folder = server.data_dir / "version-2"
    wait_until(lambda: len(list(folder.glob("snapshot.*"))) >= 2, "a snapshot is written")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
