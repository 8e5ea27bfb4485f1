"""The deployment itself: three systemd machines, the package, the deploy script, and what happens to hosts in their lives.
Clients work all along; what was acknowledged is there at the end. The steps build on each other and stand in their order.
"""

import contextlib
import os
import re
import subprocess
import time

import pytest

import hosts as machines
from ensemble import Ensemble, write_many
from history import History
from server import REPOSITORY, wait_until

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(machines.why_not() is not None, reason=machines.why_not() or ""),
]
NAMES = ["h121", "h122", "h123"]
SETTINGS = {"tickTime": 500, "preAllocSize": 4096, "autopurge.purgeInterval": 0, "maxClientCnxns": 0}


def configure(host):
    """The operator's own settings, there before the package."""
    text = (REPOSITORY / "conf/host.cfg").read_text()
    for key, value in SETTINGS.items():
        text = re.sub(rf"^{re.escape(key)}=.*\n", "", text, flags=re.M) + f"{key}={value}\n"
    path = host.root / "etc/rookeeper/zoo.cfg"
    path.parent.mkdir()
    path.write_text(text)


def run_deploy(hosts, deb, names=NAMES):
    environment = {**os.environ, "SSH": str(hosts.shell()), "DEB": str(deb), "WAIT_S": "40"}
    done = subprocess.run([REPOSITORY / "scripts/deploy", *names], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def deploy(hosts, deb):
    """Deploys and returns what it said of each host, in order."""
    code, said, complaint = run_deploy(hosts, deb)
    assert code == 0, said + complaint
    return [tuple(line.removeprefix("deploy: ").split(": ", 1)) for line in said.splitlines()]


class Deployment(Ensemble):
    """The ensemble on the hosts."""

    def __init__(self, hosts, upgrade):
        self.hosts, self.members, self.upgrade = hosts, list(hosts), upgrade
        self.cut_off = []


def statuses(deployment):
    """What `zkServer.sh status` says on each host."""
    said = [host.run("zkServer.sh status 2>/dev/null", check=False).splitlines()[-1] for host in deployment]
    return sorted(line.removeprefix("Mode: ") for line in said)


@contextlib.contextmanager
def timed(what):
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.1f} s")


def go_on(history, at_least=50, deadline_s=30):
    target = history.acknowledged() + at_least
    wait_until(lambda: history.acknowledged() >= target or any(client.failure for client in history.clients),
               f"{at_least} more writes are acknowledged", deadline_s)


def test_the_life_of_three_hosts(kind, tmp_path):
    if kind == "apache":
        pytest.skip("Apache has no such package")
    with timed("two packages and three machines"):
        first, upgrade = (machines.package(version, tmp_path) for version in ("0.1.0", "0.1.1~next"))
        hosts = machines.Hosts(NAMES, configure)
    history = None
    try:
        deployment = Deployment(hosts, upgrade)
        with timed("the first deployment"):
            said = deploy(hosts, first)
        assert [host for host, what in said if what.startswith("installing")] == NAMES
        assert statuses(deployment) == ["follower", "follower", "leader"]
        for host in deployment:
            shown = re.compile(rf"{host.mode()}, epoch 1, last zxid 0x[0-9a-f]+$")
            wait_until(lambda: shown.match(host.unit("StatusText")["StatusText"]), f"{host!r} shows what it is")
            unit = host.unit("ActiveState", "UnitFileState", "NRestarts")
            assert unit == {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}
            assert host.unit("Id", "ActiveState", unit="zookeeper") == {"Id": "rookeeper.service", "ActiveState": "active"}
            # Exits with 1 should the exposure be above 2.0.
            host.run("systemd-analyze security --no-pager --threshold=20 rookeeper")
            owners = host.run("stat -c %U /var/lib/rookeeper/myid /var/lib/rookeeper/version-2").split()
            assert owners == ["zookeeper", "zookeeper"]

        history = History(deployment, roaming=0.002, pause_s=0.005)
        for step in LIFE:
            with timed(step.__name__):
                go_on(history)
                step(deployment, history)
                deployment.wait_serving(list(deployment))
        go_on(history)
        history.stop()
        assert history.expired == 0, "a session was lost"
        history.check(deployment.check_equal(), stale_syncs_on=deployment.cut_off)
        a_host_has_a_second_server(hosts.hosts[0])
        removal_keeps_the_data(hosts.hosts[0])
    except BaseException:
        print("\n".join(host.log_tail() for host in hosts))
        raise
    finally:
        if history:
            history.stopping.set()
        hosts.close()


def the_leaders_service_is_killed(deployment, history):
    leader = deployment.leader()
    leader.run("systemctl kill --kill-who=main -s KILL rookeeper")
    go_on(history)
    wait_until(leader.mode, f"systemd restarts the service on {leader!r}")
    assert leader.unit("NRestarts")["NRestarts"] == "1"


def the_leaders_link_is_cut(deployment, history):
    leader = deployment.leader()
    cables = deployment.hosts.cables
    cables.cut(*cables.pairs(leader.sid))
    deployment.cut_off.append(leader.sid)
    deployment.wait_serving(deployment.others(leader))
    go_on(history)
    cables.heal()


def a_stuck_server_is_restarted(deployment, history):
    """A process that lives and does nothing: the watchdog's part."""
    victim = deployment.followers()[0]
    before = victim.unit("MainPID")["MainPID"]
    victim.run("mkdir -p /run/systemd/system/rookeeper.service.d"
               " && printf '[Service]\\nWatchdogSec=2\\nTimeoutAbortSec=1\\n' >/run/systemd/system/rookeeper.service.d/quick.conf"
               " && systemctl daemon-reload && systemctl restart --no-block rookeeper")
    # The watchdog looks at a server that is active; until then there is the timeout of its start.
    before = wait_active_anew(victim, before)
    victim.run("systemctl kill --kill-who=main -s STOP rookeeper")
    wait_active_anew(victim, before)


def wait_active_anew(host, before):
    """Waits for a process after this one that serves; its id."""
    def anew():
        unit = host.unit("ActiveState", "MainPID")
        return unit["ActiveState"] == "active" and unit["MainPID"] not in (before, "0") and unit["MainPID"]
    return wait_until(anew, f"a new process serves on {host!r}")


def a_disk_is_full(deployment, history):
    victim = deployment.followers()[0]
    victim.run("dd if=/dev/zero of=/var/lib/rookeeper/filler bs=1M 2>/dev/null", check=False)
    # More than the log files that are made ahead.
    write_many(deployment.others(victim)[0], "/much", 120, size=100_000)
    wait_until(lambda: victim.mode() is None, f"{victim!r} ends, its disk being full")
    go_on(history)
    assert "Nothing acknowledged is lost" in victim.run("journalctl -u rookeeper -p err -o cat --no-pager")
    victim.run("rm /var/lib/rookeeper/filler")


def a_host_is_rebooted(deployment, history):
    leader = deployment.leader()
    leader.power_off()
    go_on(history)
    leader.boot()


def an_upgrade_is_rolled(deployment, history):
    deb = deployment.upgrade
    leader, victim = deployment.leader(), deployment.followers()[0]
    before = leader.unit("MainPID")
    # A host that does not come back ends it: the others go on as they are.
    victim.run("sed -i.good 's/^tickTime=.*/tickTime=soon/' /etc/rookeeper/zoo.cfg && systemctl stop rookeeper")
    code, _, complaint = run_deploy(deployment.hosts, deb)
    assert code == 1 and f"{victim.name}: does not serve" in complaint and "tickTime=soon" in complaint, complaint
    assert leader.unit("MainPID") == before
    go_on(history)
    victim.run("mv /etc/rookeeper/zoo.cfg.good /etc/rookeeper/zoo.cfg")
    said = deploy(deployment.hosts, deb)
    order = [host for host, what in said if what.startswith("installing")]
    assert sorted(order) == NAMES and order[-1] == leader.name
    for host in deployment:
        assert host.run("dpkg-query -W -f '${Version}' rookeeper") == "0.1.1~next"
    assert statuses(deployment) == ["follower", "follower", "leader"]
    code, said, complaint = run_deploy(deployment.hosts, deb, NAMES[:2])
    assert code == 1 and "other servers" in complaint and "installing" not in said


LIFE = [the_leaders_service_is_killed, a_stuck_server_is_restarted, the_leaders_link_is_cut, a_disk_is_full,
        a_host_is_rebooted, an_upgrade_is_rolled]


def a_host_has_a_second_server(host):
    """An instance of the unit, with folders of its own; it may write its configuration."""
    config = {"dataDir": "/var/lib/rookeeper/second", "preAllocSize": 1024, "admin.enableServer": "false",
              "standaloneEnabled": "false", "reconfigEnabled": "true", "initLimit": 10, "syncLimit": 5,
              "server.1": "127.0.0.1:4888:5888;4181"}
    host.run("install -d -m 775 -g zookeeper /etc/rookeeper/second && cat >/etc/rookeeper/second/zoo.cfg",
             stdin="".join(f"{key}={value}\n" for key, value in config.items()))
    host.run("install -d -o zookeeper -g zookeeper /var/lib/rookeeper/second && echo 1 >/var/lib/rookeeper/second/myid")
    host.run("systemctl enable --now rookeeper@second")
    assert host.unit("ActiveState", unit="rookeeper@second") == {"ActiveState": "active"}
    assert "rookeeper-tuning.service" in host.unit("After", unit="rookeeper@second")["After"].split()
    host.run("systemd-analyze security --no-pager --threshold=20 rookeeper@second")
    wait_until(lambda: "dynamicConfigFile=/etc/rookeeper/second/" in host.run("cat /etc/rookeeper/second/zoo.cfg"), "it says so")
    assert host.run("zkServer.sh --config /etc/rookeeper/second status 2>/dev/null").endswith("Mode: leader")
    # An upgrade restarts neither of them.
    host.run("systemctl stop rookeeper")
    assert "the old version runs until you say" in host.run("dpkg-reconfigure rookeeper")


def removal_keeps_the_data(host):
    # What the service may put into its folder is not what root removes.
    host.run("echo kept >/root/precious && ln -sf /root/precious /etc/rookeeper/zoo.cfg && mkdir /etc/rookeeper/zoo.cfg.bak")
    said = host.run("dpkg --purge rookeeper 2>&1")
    assert "the data is kept" in said
    assert host.unit("ActiveState", unit="rookeeper@second") == {"ActiveState": "inactive"}
    assert host.unit("LoadState", unit="zookeeper") == {"LoadState": "not-found"}
    assert host.run("ls /etc/systemd/system/*.wants | grep rookeeper", check=False) == "", "a service is enabled that is gone"
    assert host.run("cat /root/precious; ls /etc/rookeeper") == "kept\nsecond\nzoo.cfg.bak"
    assert "log." in host.run("ls /var/lib/rookeeper/version-2") and host.run("cat /var/lib/rookeeper/myid") == str(host.sid)
