"""What scripts/deploy refuses, before anything is changed, and what it writes: hosts are folders here, behind a stub of ssh."""

import os
import stat
import subprocess

import pytest

from server import REPOSITORY

NAMES = ["h121", "h122", "h123"]
LINES = "".join(f"server.{n}={name}:2888:3888\n" for n, name in enumerate(NAMES, 1))


class Fleet:
    """The hosts' folders. The stub moves every path of a script below the host's folder, and answers for what is asked."""

    def __init__(self, folder):
        self.folder = folder
        for name in NAMES:
            self.write(name, "etc/rookeeper/zoo.cfg", f"dataDir={folder}/{name}/data\n")
        programs = folder / "programs"
        programs.mkdir()
        # No server of Apache's runs; ours serves once one was restarted. h122 is the one with Debian's line in /etc/hosts.
        self.program(programs / "pgrep", "exit 1")
        self.program(programs / "systemctl", f"""case $* in
*restart*) echo $NAME >>{folder}/restarted ;;
*ActiveState*) echo active ;;
esac""")
        self.program(programs / "zkServer.sh", f"[ -e {folder}/restarted ] && echo Mode: follower")
        self.program(programs / "dpkg", f"echo >{folder}/changed")
        self.program(programs / "setpriv", 'shift 3; exec "$@"')
        self.program(programs / "chown", 'case $1 in -h) echo "$*" >>"$0.log" ;; *) exec /bin/chown "$@" ;; esac')
        self.program(programs / "getent", 'case $2 in h122) echo "127.0.1.1 STREAM h122" ;; *) echo "10.0.0.1 STREAM $2" ;; esac')
        self.ssh = folder / "ssh"
        self.program(self.ssh, f"""export NAME=$1 PATH={programs}:$PATH
case $2 in *mktemp*) exec sh -c "$2" ;; esac
sed -e "s|/etc/rookeeper|{folder}/$1/etc/rookeeper|g" -e "s|/var/lib/rookeeper|{folder}/$1/data|g" | sh -s""")
        (folder / "rookeeper.deb").write_text("")

    @staticmethod
    def program(path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, name, path, text):
        path = self.folder / name / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def deploy(self, *names):
        """Whether it installed anything, and its complaint."""
        (self.folder / "changed").unlink(missing_ok=True)
        (self.folder / "restarted").unlink(missing_ok=True)
        environment = {**os.environ, "SSH": str(self.ssh), "DEB": str(self.folder / "rookeeper.deb"), "WAIT_S": "5",
                       "TMPDIR": str(self.folder)}
        done = subprocess.run([REPOSITORY / "scripts/deploy", *names], env=environment, capture_output=True, text=True, timeout=60)
        return (self.folder / "changed").exists(), done.stderr

    def restarted(self):
        """The hosts whose service was, in order."""
        path = self.folder / "restarted"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def fleet(kind, tmp_path):
    if kind == "apache":
        pytest.skip("Apache has no such script")
    return Fleet(tmp_path)


def test_empty_hosts_become_an_ensemble_that_listens_where_the_others_are(fleet):
    for name in NAMES:
        (fleet.folder / name / "data").mkdir()
    outside = fleet.folder / "outside"
    outside.write_text("")
    (fleet.folder / "h121/data/myid").symlink_to(outside)
    before = {path.name for path in fleet.folder.iterdir()}
    assert fleet.deploy(*NAMES) == (True, "")
    for number, name in enumerate(NAMES, 1):
        config = (fleet.folder / name / "etc/rookeeper/zoo.cfg").read_text()
        assert LINES in config
        assert ("quorumListenOnAllIPs=true" in config.splitlines()) == (name == "h122")
        assert (fleet.folder / name / "data/myid").read_text() == f"{number}\n"
    assert outside.read_text() == "", "a link was followed"
    assert {path.name for path in fleet.folder.iterdir()} - before == {"changed", "restarted"}, "the package was left there"
    assert fleet.deploy(*NAMES) == (True, "")


def test_a_package_with_a_zoo_cfg_of_its_own_asks_nothing(fleet):
    """Nobody is there to answer; apt is asked where something is missing."""
    said = fleet.folder / "said"
    for program, code in [("dpkg", 1), ("apt-get", 0)]:
        fleet.program(fleet.folder / "programs" / program, f'echo "$*" >>{said}; exit {code}')
    fleet.deploy("h121")
    assert [command.count("--force-confold") for command in said.read_text().splitlines()] == [1, 1]


def test_whoever_leads_when_its_turn_comes_is_the_last(fleet):
    """Leadership moves from h123 to h122 when h121 is restarted."""
    fleet.program(fleet.folder / "programs/zkServer.sh",
                  f"[ -e {fleet.folder}/restarted ] && leader=h122 || leader=h123; "
                  "[ $NAME = $leader ] && echo Mode: leader || echo Mode: follower")
    assert fleet.deploy(*NAMES) == (True, "")
    assert fleet.restarted() == ["h121", "h123", "h122"]


@pytest.mark.parametrize("program, why", [("mktemp", "the package was not installed"), ("dpkg", "the package was not installed"),
                                          ("setpriv", "has the package and is not configured"),
                                          ("systemctl", "has the package and was not restarted")])
def test_a_host_that_fails_is_named_and_the_others_are_left_alone(fleet, program, why):
    failed = fleet.folder / "failed"
    for name in {program, "apt-get"}:
        fleet.program(fleet.folder / "programs" / name, f"echo $NAME >>{failed}; exit 1")
    _, complaint = fleet.deploy(*NAMES)
    assert complaint.endswith(f"deploy: h121: {why}; the hosts behind it were left as they are\n")
    assert set(failed.read_text().split()) == {"h121"} and fleet.restarted() == []


def test_without_hosts_nothing_is_built(fleet):
    programs = fleet.folder / "programs"
    fleet.program(programs / "cargo", "echo built")
    for command in (["make", "-s", "deploy"], [REPOSITORY / "scripts/deploy"]):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=10,
                              env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"})
        assert (done.returncode, done.stdout) == (2, "") and "which hosts?" in done.stderr


@pytest.mark.parametrize("file", ["log.1", "snapshot.0"])
def test_the_history_of_a_standalone_server_is_not_given_up(fleet, file):
    fleet.write("h123", f"data/version-2/{file}", "")
    changed, complaint = fleet.deploy(*NAMES)
    assert not changed
    assert "rookeeper backup" in complaint and "--myid" in complaint and "h123: nothing was changed" in complaint
    assert fleet.deploy("h123")[0], "a standalone server is upgraded"


def test_a_package_that_was_removed_does_not_hide_a_history(fleet):
    (fleet.folder / "h121/etc/rookeeper/zoo.cfg").unlink()
    fleet.write("h121", "data/version-2/log.1", "")
    changed, complaint = fleet.deploy(*NAMES)
    assert not changed and "rookeeper backup" in complaint
    fleet.write("h121", "data/myid", "1\n")
    assert fleet.deploy(*NAMES)[0], "a member comes back"


def test_a_member_with_a_history_is_taken(fleet):
    for name in ("h121", "h123"):
        fleet.write(name, "etc/rookeeper/zoo.cfg", f"dataDir={fleet.folder}/{name}/data\n{LINES}")
        fleet.write(name, "data/version-2/log.1", "")
    assert fleet.deploy(*NAMES)[0]


def test_a_name_that_is_loopback_is_refused_where_the_servers_are_somebody_elses(fleet):
    lines = f"dataDir={fleet.folder}/h122/data\n{LINES}"
    fleet.write("h122", "etc/rookeeper/zoo.cfg", lines)
    changed, complaint = fleet.deploy(*NAMES)
    assert not changed and "h122 is 127.0.1.1 here" in complaint
    fleet.write("h122", "etc/rookeeper/zoo.cfg", f"{lines}quorumListenOnAllIPs=true\n")
    assert fleet.deploy(*NAMES)[0]


def test_a_zoo_cfg_keeps_its_text_its_owner_and_its_mode(fleet):
    path = fleet.folder / "h121/etc/rookeeper/zoo.cfg"
    text = f"dataDir={fleet.folder}/h121/data\n# a \\n is no line, nor is \\101 an A\n"
    path.write_text(text)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        (fleet.folder / "h121/data").mkdir()
        os.chown(fleet.folder / "h121/data", 12345, 54321)
    before = path.stat()
    assert fleet.deploy(*NAMES) == (True, "")
    after = path.stat()
    assert path.read_text() == f"{text}\n{LINES}"
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert [child.name for child in path.parent.parent.iterdir()] == ["rookeeper"], "something was left there"


def test_root_writes_through_no_link_of_the_services(fleet):
    outside = fleet.folder / "outside"
    outside.write_text("root:x:0:0\n")
    path = fleet.folder / "h122/etc/rookeeper/zoo.cfg"
    path.unlink()
    path.symlink_to(outside)
    changed, complaint = fleet.deploy(*NAMES)
    assert not changed and "zoo.cfg is a link" in complaint and "h122: nothing was changed" in complaint
    assert outside.read_text() == "root:x:0:0\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are given away")
@pytest.mark.parametrize("there", [True, False])
def test_root_gives_no_folder_to_the_service_that_the_service_asks_for(fleet, there):
    path, data = fleet.folder / "h123/etc/rookeeper/zoo.cfg", fleet.folder / "h123/disk"
    path.write_text(f"dataDir={data}\n")
    if there:
        data.mkdir()
    os.chown(path, 12345, 12345)
    changed, complaint = fleet.deploy(*NAMES)
    assert not changed and f"chown -h zookeeper:zookeeper {data}" in complaint
    assert data.exists() == there
    # A dataDir that root wrote is made.
    os.chown(path, 0, 0)
    assert fleet.deploy(*NAMES) == (True, "")
    assert (data / "myid").read_text() == "3\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are given away")
@pytest.mark.parametrize("owner", [0, 12345])
def test_the_data_folder_of_a_member_stays_whose_it_is(fleet, owner):
    """Its zoo.cfg may be the service's, as after a reconfiguration; the data is behind a link that root made."""
    config, data, disk = (fleet.folder / f"h123/{path}" for path in ("etc/rookeeper/zoo.cfg", "link", "disk"))
    fleet.write("h123", "disk/myid", "3\n")
    disk.chmod(0o770)
    data.symlink_to(disk)
    text = f"dataDir={data}\ndynamicConfigFile={config}.dynamic.100000000\n"
    config.write_text(text)
    os.chown(config, owner, owner)
    assert fleet.deploy(*NAMES) == (True, "")
    assert config.read_text() == text
    given = (fleet.folder / "programs/chown.log").read_text()
    assert "h122/data" in given and "h123" not in given
