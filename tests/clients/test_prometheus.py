"""Metrics for Prometheus: Apache's names and series, and the stages of a write, which Apache lacks."""

import re
import socket

import pytest

from http_client import ask
from rawzk import Raw
from server import REPOSITORY, free_port

pytestmark = pytest.mark.rookeeper_only("Debian does not ship Apache's provider")

PROVIDER = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
STAGES = ["received", "prepared", "appended", "synced", "acknowledged", "applied", "replied"]
SAMPLE = re.compile(r'(?P<name>[a-z_0-9]+)(\{(?P<labels>([a-z]+="([^"\\\n]|\\.)*",)+)\})? (?P<value>NaN|-?[0-9.]+(E-?[0-9]+)?)')
# What the alert rules and dashboards that Apache publishes ask for.
ASKED_FOR = [
    "znode_count", "num_alive_connections", "approximate_data_size", "watch_count", "ephemerals_count", "election_time_count",
    "open_file_descriptor_count", "fsynctime_sum", "fsynctime_count", "snapshottime_sum", "snapshottime_count", "avg_latency",
    "outstanding_requests", "uptime", "packets_received", "packets_sent", "readlatency", "updatelatency", "global_sessions",
    "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
]


class Metered:
    def __init__(self, start_server, **config):
        self.port = free_port()
        self.server = start_server({
            "metricsProvider.className": PROVIDER, "metricsProvider.httpPort": self.port, "4lw.commands.whitelist": "*", **config})

    def text(self, query=""):
        answer = ask(self.port, f"/metrics{query}")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return answer.text

    def samples(self, query=""):
        """(name, labels) → value; every line must be one that a scraper takes."""
        found = {}
        for line in self.text(query).splitlines():
            if line.startswith("#"):
                continue
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            key = (sample["name"], sample["labels"] or "")
            assert key not in found, f"{key} twice"
            found[key] = float(sample["value"])
        return found

    def write(self, count):
        zk = Raw(self.server.port)
        zk.handshake()
        zk.create('/my "app"').ok()
        for n in range(count):
            zk.create(f'/my "app"/{n}', b"x").ok()
        zk.close_session()
        zk.close()


@pytest.fixture
def metered(start_server):
    return Metered(start_server)


def test_every_name_that_mntr_has_is_scraped_and_more(metered):
    known = (REPOSITORY / "src/admin/testdata/mntr_keys_3.8.txt").read_text().split()
    plain = {re.sub("^zk_", "", key) for key in known}
    names = {name for name, _ in metered.samples()}
    bare = {re.sub("_(count|sum|bucket)$", "", name) for name in names} | names
    missing = {
        key for key in plain - {"version", "server_state"}
        if key not in bare and re.sub("^(avg|min|max|cnt|sum|p50|p95|p99|p999)_", "", key) not in bare
    }
    assert not missing, missing
    assert not set(ASKED_FOR) - names


def test_each_kind_has_the_series_of_apaches_provider(metered):
    metered.write(5)
    samples, text = metered.samples(), metered.text()
    assert samples["znode_count", ""] == 11
    assert samples["updatelatency_count", ""] >= 6
    for quantile in ["0.5", "0.9", "0.99"]:
        assert ("updatelatency", f'quantile="{quantile}",') in samples
    assert ("fsynctime", 'quantile="0.5",') in samples
    assert samples["write_per_namespace_count", 'key="my \\"app\\"",'] == 6
    assert "# TYPE znode_count gauge\n" in text
    assert "# TYPE proposal_count counter\n" in text
    assert "# TYPE updatelatency summary\n" in text


def test_names_can_be_chosen(metered):
    assert set(metered.samples("?name[]=znode_count")) == {("znode_count", "")}
    assert set(metered.samples("?name[]=process_open_fds&name[]=znode_count")) == {("process_open_fds", ""), ("znode_count", "")}
    assert not metered.samples("?name[]=process_open")
    assert ask(metered.port, "/elsewhere").status == 404


def test_mntr_prints_the_same_series(metered):
    metered.write(1)
    lines = metered.server.four("mntr").splitlines()
    assert lines[1] == "zk_server_state\tstandalone"
    assert "zk_znode_count\t7.0" in lines
    assert any(line.startswith('zk_updatelatency{quantile="0.99"}\t') for line in lines)
    before = metered.samples()["updatelatency_count", ""]
    metered.server.four("srst")
    assert metered.samples()["updatelatency_count", ""] == before


def test_every_stage_of_every_write_is_counted(metered):
    metered.write(20)
    samples = metered.samples()
    for stage in STAGES:
        name = f"write_{stage}_seconds"
        buckets = [value for (sample, labels), value in samples.items() if sample == f"{name}_bucket"]
        assert buckets == sorted(buckets), stage
        assert buckets[-1] == samples[f"{name}_count", ""] >= 21, stage
        assert samples[f"{name}_sum", ""] > 0, stage


def test_what_the_process_takes_can_be_left_out(start_server):
    metered = Metered(start_server, **{"metricsProvider.exportJvmInfo": "false"})
    assert not any(name.startswith("process_") for name, _ in metered.samples())


def test_a_port_in_use_ends_the_start(start_server):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        server = start_server({"metricsProvider.className": PROVIDER, "metricsProvider.httpPort": taken.getsockname()[1]},
                              wait=False)
        assert server.wait_exit().code == 1
