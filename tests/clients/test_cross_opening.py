"""One data directory, opened in turn by Apache's server and by ours: each finds exactly what the other left."""

import subprocess

import pytest

from workload import Workload, differences, dump

CONFIG = {"4lw.commands.whitelist": "*", "maxSessionTimeout": 7_200_000, "preAllocSize": 64, "extendedTypesEnabled": "true",
          "enforceQuota": "true"}
PROPERTIES = {"znode.container.checkIntervalMs": 3_600_000}
STEPS = 250
VARIANTS = {
    "killed": ("kill", {}),
    "stopped": ("terminate", {"snapCount": 60}),
    "gzip": ("kill", {"snapCount": 60, "snapshot.compression.method": "gz"}),
    "snappy and a log folder": ("kill", {"snapCount": 60, "snapshot.compression.method": "snappy", "dataLogDir": "LOGS"}),
    "never a snapshot": ("kill", {"snapCount": 100000}),
}


class Relay:
    """A data directory that is handed from server to server."""

    def __init__(self, start_server, tmp_path, how, extra):
        self.start_server, self.how = start_server, how
        self.data = tmp_path / "shared-data"
        logs = {"dataLogDir": tmp_path / "shared-logs"} if "dataLogDir" in extra else {}
        self.config = {**CONFIG, **extra, **logs, "dataDir": self.data}
        self.log_dir = (logs.get("dataLogDir") or self.data) / "version-2"
        self.snapshot_dir = self.data / "version-2"
        self.server = None

    def open(self, kind):
        self.server = self.start_server(full=True, kind=kind, config=self.config, properties=PROPERTIES)
        return self.server

    def close(self):
        state = (self.server.last_zxid(), dump(self.server.port), self.counts())
        getattr(self.server, self.how)()
        return state

    def counts(self):
        """Not approximate_data_size: Apache's forgets that quota counters change their length."""
        monitored = self.server.monitored()
        return {key: monitored[key] for key in ("znode_count", "ephemerals_count")}

    def open_and_compare(self, kind, before):
        _, tree, counts = before
        self.open(kind)
        assert self.server.monitored()["digest_mismatches_count"] == "0", self.server.log_tail()
        assert differences(tree, dump(self.server.port)) == ""
        assert self.counts() == counts


@pytest.mark.parametrize("variant", VARIANTS)
def test_apache_ours_apache(start_server, tmp_path, apache_jars, kind, variant):
    how, extra = VARIANTS[variant]
    relay = Relay(start_server, tmp_path, how, extra)
    work = Workload(f"{variant}/1")
    for number, opener in enumerate(["apache", kind, "apache", kind, "apache"]):
        if number == 0:
            relay.open(opener)
        else:
            relay.open_and_compare(opener, before)
        work.attach(relay.server.port)
        work.run(STEPS)
        before = relay.close()
    check_with_apaches_tools(relay, apache_jars)


def test_ours_alone_then_apache(start_server, tmp_path, apache_jars, kind):
    """A directory that our server has made from nothing."""
    relay = Relay(start_server, tmp_path, "kill", {"snapCount": 60})
    work = Workload("from nothing")
    relay.open(kind)
    work.attach(relay.server.port)
    work.run(STEPS)
    before = relay.close()
    relay.open_and_compare("apache", before)
    work.attach(relay.server.port)
    work.run(STEPS)
    relay.close()
    check_with_apaches_tools(relay, apache_jars)


def check_with_apaches_tools(relay, apache_jars):
    """Apache's offline tools read every file: checksums right, records whole."""
    def tool(name, path):
        done = subprocess.run(["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", apache_jars,
                               "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
                               f"org.apache.zookeeper.server.{name}", str(path)],
                              capture_output=True, timeout=60)
        printed = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{name} {path}: {printed}{done.stderr.decode(errors='replace')}"
        return printed
    logs = sorted(relay.log_dir.glob("log.*"))
    assert logs
    for log in logs[-3:]:
        printed = tool("persistence.TxnLogToolkit", log)
        assert "EOF reached after" in printed and "CRC ERROR" not in printed
    snapshots = [path for path in relay.snapshot_dir.glob("snapshot.*") if path.name != "snapshot.0"]
    for snapshot in sorted(snapshots)[-2:]:
        assert "ZNode Details" in tool("SnapshotFormatter", snapshot)
