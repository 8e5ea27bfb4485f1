"""What the doctor says on a machine with an installed unit: it judges the service, not the shell it is started from; what it
says comes true, and its remedies help.
"""

import json
import shutil

import pytest

import hosts as machines

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.rookeeper_only("about our own unit"),
    pytest.mark.skipif(machines.why_not() is not None, reason=machines.why_not() or ""),
]


class Patient:
    """A machine with the package, and what its doctor says of it."""

    def __init__(self, host):
        self.host, self.config = host, "/etc/rookeeper/zoo.cfg"

    def configure(self, data_dir):
        self.host.run(f"cat >{self.config}", stdin=f"dataDir={data_dir}\nclientPort=2181\npreAllocSize=1024\n")

    def findings(self, before=":"):
        """By check, warnings and worse."""
        said = json.loads(self.host.run(f"{before}; rookeeper doctor --json {self.config}", check=False))["findings"]
        return {finding["check"]: finding for finding in said if finding["severity"] != "note"}

    def start(self):
        """Whether the service starts, and if not how its server ended."""
        self.host.run("systemctl restart rookeeper", check=False)
        unit = self.host.unit("ActiveState", "ExecMainStatus")
        return unit["ActiveState"] == "active" or int(unit["ExecMainStatus"])


@pytest.fixture
def patient(kind, tmp_path):
    package = machines.package("0.1.0", tmp_path)
    hosts = machines.Hosts(["h124"], lambda host: shutil.copy(package, host.root / "var/cache/rookeeper.deb"))
    try:
        [host] = hosts
        host.run("dpkg --install /var/cache/rookeeper.deb")
        yield Patient(host)
    finally:
        hosts.close()


def test_the_doctor_judges_the_service_and_not_its_shell(patient):
    run = patient.host.run
    # Of root; but it is the unit's StateDirectory, which systemd gives to the service.
    run("chown root: /var/lib/rookeeper")
    patient.configure("/var/lib/rookeeper")
    found = patient.findings(before="ulimit -n 1024")
    assert not {"ownership", "sandbox", "open-files"} & set(found), found
    assert patient.start() is True

    patient.configure("/srv/zk")
    run("systemctl stop rookeeper; install -d -m 755 /srv/zk/version-2")
    found = patient.findings()["ownership"]
    assert "closed to zookeeper, as whom rookeeper.service runs" in found["what"], found
    assert patient.start() == 3
    run(found["remedy"])
    assert "ownership" not in patient.findings()
    assert patient.start() is True
    run("systemctl stop rookeeper; rm -r /srv/zk")
    found = patient.findings()["ownership"]
    assert patient.start() == 3
    run(found["remedy"])
    assert patient.start() is True

    run("systemctl stop rookeeper; install -d -o zookeeper /home/zk")
    patient.configure("/home/zk")
    found = patient.findings()
    assert "/home, which rookeeper.service may not write (ProtectHome=yes)" in found["sandbox"]["what"], found
    assert "ownership" not in found
    assert patient.start() == 2

    # An instance of the unit, with limits of its own.
    patient.config = "/etc/rookeeper/second/zoo.cfg"
    run("mkdir -p /etc/rookeeper/second /run/systemd/system/rookeeper@second.service.d"
        " && printf '[Service]\\nLimitNOFILE=1000\\n' >/run/systemd/system/rookeeper@second.service.d/few.conf"
        " && systemctl daemon-reload")
    patient.configure("/var/lib/rookeeper")
    assert "rookeeper@second.service may have 1000 files open" in patient.findings()["open-files"]["what"]
