"""A host with the package, looked after by zkServer.sh and the tools as an operator types them: the configuration is that of
the service, and the server is systemd's.
"""

import re

import pytest

import hosts as machines
from server import REPOSITORY, wait_until

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(machines.why_not() is not None, reason=machines.why_not() or ""),
]
SETTINGS = {"tickTime": 500, "preAllocSize": 1024, "admin.enableServer": "false"}
CONFIG = "/etc/rookeeper/zoo.cfg"
NONE = "no zookeeper to stop (could not find file /var/lib/rookeeper/zookeeper_server.pid)"
NOBODY = "setpriv --reuid=nobody --regid=nogroup --clear-groups "


@pytest.fixture(scope="module")
def machine(kind, tmp_path_factory):
    if kind == "apache":
        pytest.skip("Apache has no such package")
    deb = machines.package("0.1.0", tmp_path_factory.mktemp("package"))
    hosts = machines.Hosts(["h121"], lambda host: None)
    host = hosts.hosts[0]
    try:
        (host.root / "root/rookeeper.deb").write_bytes(deb.read_bytes())
        host.run("dpkg -i /root/rookeeper.deb || apt-get -qq install -y /root/rookeeper.deb")
        yield host
    finally:
        print(host.log_tail())
        hosts.close()


@pytest.fixture
def host(machine):
    """The service is stopped and has the configuration of the package, as far as the machine is small."""
    text = (REPOSITORY / "conf/host.cfg").read_text()
    for key in SETTINGS:
        text = re.sub(rf"^{re.escape(key)}=.*\n", "", text, flags=re.M)
    machine.run(f"cat >{CONFIG}", stdin=text + "".join(f"{key}={value}\n" for key, value in SETTINGS.items()))
    yield machine
    machine.run("systemctl stop rookeeper 'rookeeper@*'; systemctl reset-failed")


def script(host, *arguments, launcher=""):
    """Exit code and output of zkServer.sh; what it says on standard error."""
    text = host.run(f"cd /; {launcher}zkServer.sh {' '.join(arguments)} 2>/tmp/complaint; echo exit $?")
    said, code = text.rsplit("exit ", 1)
    return (int(code), said.strip()), host.run("cat /tmp/complaint")


def server(host, unit="rookeeper"):
    return int(host.unit("MainPID", unit=unit)["MainPID"])


def is_active(host, unit="rookeeper"):
    return host.unit("ActiveState", unit=unit)["ActiveState"] == "active"


def test_the_script_starts_and_stops_the_service(host):
    assert script(host, "stop")[0] == (0, f"Stopping zookeeper ... {NONE}")
    assert script(host, "start")[0] == (0, "Starting zookeeper ... STARTED")
    wait_until(lambda: is_active(host), "the service serves")
    first = server(host)
    assert first and script(host, "start")[0] == (1, f"Starting zookeeper ... already running as process {first}.")
    assert script(host, "status")[0][1].endswith("Mode: standalone")
    assert script(host, "restart")[0] == (0, "Stopping zookeeper ... STOPPED\nStarting zookeeper ... STARTED")
    wait_until(lambda: is_active(host), "the service serves again")
    assert server(host) not in (0, first)
    assert host.run(f"stat -c %U /proc/{server(host)}") == "zookeeper"
    assert script(host, "stop")[0] == (0, "Stopping zookeeper ... STOPPED")
    assert host.unit("ActiveState", "MainPID") == {"ActiveState": "inactive", "MainPID": "0"}
    assert script(host, "stop")[0] == (0, f"Stopping zookeeper ... {NONE}")
    assert host.run("find /var/lib/rookeeper /var/log/rookeeper ! -user zookeeper") == ""


def test_whoever_is_not_root_hears_why_and_starts_no_server_beside_the_service(host):
    (code, said), complaint = script(host, "start", launcher=NOBODY)
    assert (code, said) == (1, "Starting zookeeper ... FAILED TO START")
    assert re.search(r"rookeeper\.service runs this configuration: Failed to start .*; do it as root$", complaint), complaint
    assert server(host) == 0 and host.mode() is None
    script(host, "start")
    wait_until(lambda: is_active(host), "the service serves")
    before = server(host)
    (code, said), _ = script(host, "restart", launcher=NOBODY)
    stop, start = said.splitlines()
    assert re.match(r"Stopping zookeeper ... NOT STOPPED: rookeeper\.service runs this configuration: .*; do it as root$", stop)
    assert (code, start) == (1, f"Starting zookeeper ... already running as process {before}.")
    assert server(host) == before


def test_a_service_that_fails_is_told_with_the_reason(host):
    host.run(f"echo tickTime=soon >>{CONFIG}")
    said, complaint = script(host, "start")
    assert said == (1, "Starting zookeeper ... FAILED TO START")
    assert f"{CONFIG}:" in complaint and "tickTime=soon: expected" in complaint
    # One that systemd would try again each second is stopped for good.
    host.run(f"sed -i /soon/d {CONFIG} && echo clientPort=22222 >>{CONFIG}")
    host.run("systemd-run --quiet --unit=taken python3 -c 'import socket, time; s = socket.socket();"
             " s.bind((\"\", 22222)); s.listen(); time.sleep(1000)'")
    wait_until(lambda: host.run("ss -Hltn sport = 22222"), "the port is taken")
    said, complaint = script(host, "start")
    assert said == (1, "Starting zookeeper ... FAILED TO START") and "22222" in complaint
    assert script(host, "stop")[0] == (0, "Stopping zookeeper ... STOPPED")
    assert host.unit("ActiveState") == {"ActiveState": "inactive"}
    host.run("systemctl stop taken")


def test_an_instance_is_systemds_and_any_other_configuration_is_not(host):
    settings = "".join(f"{key}={value}\n" for key, value in SETTINGS.items())
    host.run("install -d -m 775 -g zookeeper /etc/rookeeper/second && cat >/etc/rookeeper/second/zoo.cfg",
             stdin=settings + "dataDir=/var/lib/rookeeper/second\nclientPort=4181\n")
    second = ["--config", "/etc/rookeeper/second"]
    assert script(host, *second, "start")[0] == (0, "Starting zookeeper ... STARTED")
    wait_until(lambda: is_active(host, "rookeeper@second"), "the instance serves")
    assert server(host) == 0 and server(host, "rookeeper@second") != 0
    assert script(host, *second, "stop")[0] == (0, "Stopping zookeeper ... STOPPED")
    assert not is_active(host, "rookeeper@second")

    host.run("mkdir -p /srv/rookeeper && cat >/srv/rookeeper/zoo.cfg", stdin=settings + "dataDir=/srv/data\nclientPort=5181\n")
    other = ["--config", "/srv/rookeeper"]
    assert script(host, *other, "start")[0] == (0, "Starting zookeeper ... STARTED")
    assert server(host) == 0
    pid = int(host.run("cat /srv/data/zookeeper_server.pid"))
    assert host.run(f"stat -c %U /proc/{pid}") == "root"
    assert script(host, *other, "stop")[0] == (0, "Stopping zookeeper ... STOPPED")


@pytest.mark.parametrize("folder", ["/home/zk", "/usr/local/zk"])
def test_a_data_folder_out_of_the_units_reach_is_told_with_the_lines_that_help(host, folder):
    host.run(f"install -d -o zookeeper -g zookeeper {folder}/data && echo dataDir={folder}/data >>{CONFIG}")
    said, complaint = script(host, "start")
    assert said == (1, "Starting zookeeper ... FAILED TO START")
    advice = re.search(r"`systemctl edit rookeeper\.service`, put (.*) below \[Service\]", complaint)
    assert advice, complaint
    lines = "[Service]\n" + "\n".join(advice[1].split(" and ")) + "\n"
    drop_in = "/etc/systemd/system/rookeeper.service.d"
    host.run(f"mkdir -p {drop_in} && cat >{drop_in}/override.conf && systemctl daemon-reload", stdin=lines)
    try:
        assert script(host, "start")[0] == (0, "Starting zookeeper ... STARTED")
        wait_until(lambda: is_active(host), "the service serves")
        assert "snapshot." in host.run(f"ls {folder}/data/version-2")
    finally:
        host.run(f"systemctl stop rookeeper; rm -r {drop_in}; systemctl daemon-reload")


def test_the_tools_find_the_configuration_of_the_service(host):
    host.run("systemctl start rookeeper")
    assert "/var/lib/rookeeper" in host.run("cd / && rookeeper doctor --json", check=False)
    host.run("cd / && rookeeper backup --to /root/backup && rookeeper purge")
    assert "snapshot." in host.run("find /root/backup")
