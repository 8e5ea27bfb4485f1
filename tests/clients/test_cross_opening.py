"""One data directory, opened in turn by Apache's server and by ours: each finds exactly what the other left."""

import os
import subprocess

import pytest

from workload import Workload, differences, dump

CONFIG = {"4lw.commands.whitelist": "*", "maxSessionTimeout": 7_200_000, "preAllocSize": 64, "extendedTypesEnabled": "true",
          "enforceQuota": "true"}
PROPERTIES = {"znode.container.checkIntervalMs": 3_600_000}
STEPS = 150
SEED = os.environ.get("SEED", "1")
# How a server is ended, what is configured for all, and after how many transactions ours and Apache's take snapshots.
VARIANTS = {
    "killed": ("kill", {}, 100_000, 100_000),
    "stopped": ("terminate", {}, 60, 100_000),
    "gzip": ("kill", {"snapshot.compression.method": "gz"}, 60, 100_000),
    "snappy and a log folder": ("kill", {"snapshot.compression.method": "snappy", "dataLogDir": "LOGS"}, 60, 100_000),
    "fuzzy snapshots from Apache": ("kill", {}, 60, 60),
}


class Relay:
    """A data directory that is handed from server to server."""

    def __init__(self, start_server, tmp_path, variant, tested):
        self.how, extra, ours, theirs = VARIANTS[variant]
        self.start_server = start_server
        self.data = tmp_path / "shared-data"
        logs = {"dataLogDir": tmp_path / "shared-logs"} if "dataLogDir" in extra else {}
        self.config = {**CONFIG, **extra, **logs, "dataDir": self.data}
        self.snap_count = {tested: ours, "apache": theirs}
        self.log_dir = (logs.get("dataLogDir") or self.data) / "version-2"
        self.snapshot_dir = self.data / "version-2"
        self.server = None
        self.digest_is_exact = True

    def open(self, kind):
        config = {**self.config, "snapCount": self.snap_count[kind]}
        self.server = self.start_server(full=True, kind=kind, config=config, properties=PROPERTIES)
        return self.server

    def close(self):
        """Ends the server and returns what it held."""
        tree, counts = dump(self.server.port), self.counts()
        getattr(self.server, self.how)()
        # Apache reads a fuzzy snapshot's digest an instant before or after it has applied the next transaction, so
        # that, rarely, the next server to load it (Apache itself too) counts a mismatch.
        self.digest_is_exact = not (self.server.kind == "apache" and self.snap_count["apache"] < 1000)
        return tree, counts

    def counts(self):
        """Not approximate_data_size: Apache's forgets that quota counters change their length."""
        monitored = self.server.monitored()
        return {key: monitored[key] for key in ("znode_count", "ephemerals_count")}

    def open_and_compare(self, kind, before):
        tree, counts = before
        self.open(kind)
        if self.digest_is_exact:
            assert self.server.monitored()["digest_mismatches_count"] == "0", self.server.log_tail()
        assert differences(tree, dump(self.server.port)) == ""
        assert self.counts() == counts


@pytest.mark.parametrize("variant", VARIANTS)
def test_apache_ours_apache(start_server, tmp_path, apache_jars, kind, variant):
    relay = Relay(start_server, tmp_path, variant, kind)
    work = Workload(f"{variant}/{SEED}")
    before = None
    for opener in ["apache", kind, "apache", kind, "apache"]:
        if before is None:
            relay.open(opener)
        else:
            relay.open_and_compare(opener, before)
        work.attach(relay.server.port)
        work.run(STEPS)
        before = relay.close()
    check_with_apaches_tools(relay, apache_jars)


def test_ours_alone_then_apache(start_server, tmp_path, apache_jars, kind):
    """A directory that our server has made from nothing."""
    relay = Relay(start_server, tmp_path, "stopped", kind)
    work = Workload(f"from nothing/{SEED}")
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
        done = subprocess.run(["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp", apache_jars,
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
