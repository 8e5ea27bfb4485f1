"""A host of Debian's zookeeper package is changed over to ours, and back, by the very commands of README.md."""

import contextlib
import os
import re
import shutil

import pytest

import hosts as machines
from server import REPOSITORY, SUPER_DIGEST, wait_until
from workload import differences

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(machines.why_not() is not None, reason=machines.why_not() or ""),
    pytest.mark.skipif(not os.path.exists("/var/lib/dpkg/info/zookeeper.list"), reason="Debian's zookeeper is not installed"),
]
# Debian has no unit of its own for it: an operator wrote one, or systemd makes one of zookeeperd's init script.
UNIT = """[Service]
User=zookeeper
ExecStart=/usr/share/zookeeper/bin/zkServer.sh start-foreground
SuccessExitStatus=143
[Install]
WantedBy=multi-user.target
"""
INIT_SCRIPT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: zookeeper
# Required-Start: $remote_fs
# Required-Stop: $remote_fs
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
[ -e /usr/share/zookeeper/bin/zkEnv.sh ] || exit 0
exec setpriv --reuid=zookeeper --regid=zookeeper --clear-groups /usr/share/zookeeper/bin/zkServer.sh "$1"
"""
ZOO_CFG = f"""# Ours.
tickTime=500
initLimit=10
syncLimit=5
dataDir=/var/lib/zookeeper
clientPort=2181
4lw.commands.whitelist=*
DigestAuthenticationProvider.superDigest={SUPER_DIGEST}
"""
# A quorum of one: it has a myid, and its list of servers in a file that moves.
ENSEMBLE = "standaloneEnabled=false\nreconfigEnabled=true\nserver.7=h121:2888:3888\n"
# Debian's package as it is installed here, for apt to find without a network.
REPACK = r"""
folder=/root/repository
mkdir -p $folder/root/DEBIAN
dpkg -L zookeeper | sed -n 's,^/\(.\+\),\1,p' | grep -v '^\.$' | tar -C / -c --no-recursion -T - | tar -C $folder/root -x
for file in conffiles preinst postinst prerm postrm; do
  cp /var/lib/dpkg/info/zookeeper.$file $folder/root/DEBIAN/$file
done
dpkg -s zookeeper | awk '/^[^ ]/ { keep = !/^(Status|Conffiles):/ } keep' >$folder/root/DEBIAN/control
dpkg-deb --build -Znone $folder/root $folder/zookeeper.deb
{
  cat $folder/root/DEBIAN/control
  echo Filename: ./zookeeper.deb
  echo Size: $(stat -c %s $folder/zookeeper.deb)
  echo SHA256: $(sha256sum <$folder/zookeeper.deb | cut -d ' ' -f 1)
} >$folder/Packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:$folder ./" >/etc/apt/sources.list
echo 'APT::Get::Assume-Yes "true"; APT::Sandbox::User "root";' >/etc/apt/apt.conf.d/90yes
apt-get -q update
"""


def commands(introduction):
    """The commands that README.md gives after these words."""
    found = re.search(rf"{re.escape(introduction)}\n\n```\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    assert found, f"README.md says nothing after {introduction!r}"
    return found.group(1)


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    return machines.package("0.1.0", tmp_path_factory.mktemp("package"))


@pytest.mark.parametrize("ensemble", [True, False], ids=["a member of an ensemble", "a server alone"])
def test_a_host_of_debians_package_is_changed_over_and_back(kind, apache_jars, deb, ensemble):
    if kind == "apache":
        pytest.skip("Apache has no such package")

    def prepare(host):
        shutil.copy(deb, host.root / "root")
        unit = host.root / ("etc/systemd/system/zookeeper.service" if ensemble else "etc/init.d/zookeeper")
        unit.write_text(UNIT if ensemble else INIT_SCRIPT)
        unit.chmod(0o644 if ensemble else 0o755)
        (host.root / "etc/default/zookeeper").write_text('JMXLOCALONLY=false\nJAVA_OPTS="-Dzookeeper.maxCnxns=123"\n')

    hosts = machines.Hosts(["h121"], prepare)
    host = hosts.hosts[0]
    try:
        host.run("set -e\n" + REPACK)
        # The operator's part. The server writes its configuration; one that is alone has no use for Debian's placeholder.
        (host.root / "etc/zookeeper/conf_example/zoo.cfg").write_text(ZOO_CFG + (ENSEMBLE if ensemble else ""))
        host.run("chown -R zookeeper: /etc/zookeeper/conf_example && echo 7 >/etc/zookeeper/conf/myid" if ensemble
                 else "rm /var/lib/zookeeper/myid")
        # An init script is not started by `enable --now`.
        host.run("systemctl enable zookeeper && systemctl start zookeeper")
        mode = "leader" if ensemble else "standalone"
        serves(host, mode, "apache", ensemble)
        add(host, "/from-apache")
        before, config = host.tree(), settings(host, "/etc/zookeeper/conf")
        assert ("dynamicConfigFile" in config) == ensemble

        run_all(host, commands("To change a host over, as root:"), ensemble)
        serves(host, mode, "rookeeper", ensemble)
        process = host.unit("MainPID")["MainPID"]
        assert "JAVA_OPTS=-Dzookeeper.maxCnxns=123" in host.run(f"tr '\\0' '\\n' </proc/{process}/environ").splitlines()
        assert differences(before, host.tree()) == ""
        assert settings(host, "/etc/rookeeper") == config
        if ensemble:
            assert host.run("cat /var/lib/zookeeper/myid; stat -c '%F %U' /var/lib/zookeeper/myid") == "7\nregular file zookeeper"
        add(host, "/from-ours")
        host.run(f"systemctl restart {'rookeeper' if ensemble else 'zookeeper'}")
        serves(host, mode, "rookeeper", ensemble)
        before = host.tree()
        assert {"/from-apache", "/from-ours"} <= set(before)

        run_all(host, commands("The way back:"), ensemble)
        serves(host, mode, "apache", ensemble)
        assert differences(before, host.tree()) == ""
        assert settings(host, "/etc/zookeeper/conf") == config
        add(host, "/from-apache-again")
    except BaseException:
        print(host.run("systemctl status --no-pager -n 30 zookeeper rookeeper", check=False))
        raise
    finally:
        hosts.close()


def run_all(host, script, ensemble):
    """Every command must succeed; some say of whom they are not."""
    not_for_us = "# of a server alone" if ensemble else "# of an ensemble"
    lines = [line for line in script.splitlines() if not_for_us not in line]
    print(host.run("cd /root; set -ex; exec 2>&1\n" + "\n".join(lines)))


def serves(host, mode, kind, own_unit):
    """This server serves, now and after a boot; the other one will not be in its way."""
    host.kind = kind
    if kind == "apache":
        expected = {"zookeeper": [("active", "enabled" if own_unit else "generated")],
                    "rookeeper": [("inactive", ""), ("inactive", "disabled")]}
    else:  # ours has both names, where nobody else has the other
        serving = ("active", "enabled")
        expected = {"zookeeper": [("inactive", "disabled") if own_unit else serving], "rookeeper": [serving]}
    for unit, states in expected.items():
        wait_until(lambda: tuple(host.unit("ActiveState", "UnitFileState", unit=unit).values()) in states, f"{unit} is {states[0]}")
    wait_until(lambda: host.mode() == mode, f"the server of {kind} serves")


def settings(host, folder):
    """What zoo.cfg says; of the file of the members, its name and what that says."""
    found = dict(line.split("=", 1) for line in host.run(f"cat {folder}/zoo.cfg").splitlines() if "=" in line)
    if path := found.get("dynamicConfigFile"):
        assert host.run(f"readlink -f {path}") == host.run(f"readlink -f {folder}") + "/" + path.rpartition("/")[2]
        found["dynamicConfigFile"] = path.rpartition("/")[2], host.run(f"cat {path}")
    return found


def add(host, path):
    with contextlib.closing(host.connect()) as zk:
        zk.create(path, b"data").ok()
        zk.close_session()
