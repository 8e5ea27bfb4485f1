"""Published dashboards and alert rules on our metrics: every series that they ask for and that Apache's server has in the
same role is there, of the same type, and says the same after the same work.

Debian ships no provider for Prometheus, so Apache's side is its `mntr`, which has the same figures under other names.
"""

import contextlib
import math
import re

import pytest

from http_client import ask
from rawzk import Flag, Raw
from server import REPOSITORY, Server, free_port, wait_until
from test_prometheus import PROVIDER, SAMPLE

pytestmark = pytest.mark.rookeeper_only("about the names and types of our metrics")

ASKED = [line.split() for line in (REPOSITORY / "tests/clients/testdata/dashboard_series.txt").read_text().splitlines()
         if not line.startswith("#")]
ROLES = ["standalone", "leader", "follower"]
SETS = re.compile(r"(?P<of>avg|min|max|cnt|sum)_(?P<key>\d+(?=_ack)|.+)_"
                  r"(?P<name>(write|read)_per_namespace|learner_handler_qp_(size|time_ms)|(?<!quorum_)ack_latency)")
SUFFIXES = {"cnt": "_count", "sum": "_sum"}
# What the same work leaves the same in every server.
SAME = [
    "znode_count", "ephemerals_count", "watch_count", "approximate_data_size", "num_alive_connections", "global_sessions",
    "local_sessions", "outstanding_requests", "connection_drop_probability", "quorum_size", "learners", "synced_observers",
    "synced_non_voting_followers", "pending_syncs", "connection_rejected", "node_changed_watch_count_sum",
    "node_children_watch_count_sum", "node_created_watch_count_sum", "node_deleted_watch_count_sum",
    "digest_mismatches_count", "unrecoverable_error_count", "outstanding_tls_handshake", "revalidate_count",
    "stale_sessions_expired", "write_per_namespace_sum", "read_per_namespace_sum", "last_client_response_size",
    "max_client_response_size",
]
# A connection of `mntr` itself is one that Apache counts.
ITSELF = {"num_alive_connections": 1}
# Where Apache has a figure and we have nothing, for there is no such thing here: its queues between processors, its cache
# of answers, the snapshot that it writes and reads at a start. That nothing waits for a learner is as it should be.
NOTHING_HERE = re.compile(
    "outstanding_changes_(queued|removed)|prep_process_time_.*|prep_processor_queue_time_ms_.*|sync_process_time_.*|"
    "(request_|commit_|read_|write_|server_write_|local_write_|pending_session_|requests_in_session_|session_queues_).*|"
    "(prep|sync)_processor_queue_size_.*|reads_.*|concurrent_.*|response_packet_.*|snapshottime_.*|snap_count|startup_snap_load_time_.*|learner_handler_qp_size_.*")


class Figures:
    """What one server says: (series, value of the label `key`) → value."""

    def __init__(self, series, kinds=None):
        self.series, self.kinds = series, kinds

    def keys(self, name):
        return {key for series, key in self.series if series == name}


def of_scrape(port, role):
    """Our metrics. How many packets wait for a learner is looked up at each ping."""
    if role == "leader":
        wait_until(lambda: ask(port, "/metrics").text.count("learner_handler_qp_size_count{") == 2, "both learners are pinged")
    text = ask(port, "/metrics").text
    series = {}
    for sample in filter(None, map(SAMPLE.fullmatch, text.splitlines())):
        labels = dict(re.findall(r'([a-z]+)="([^"]*)"', sample["labels"] or ""))
        key = "quantile" if "quantile" in labels else labels.get("key", "")
        series[sample["name"], key] = float(sample["value"])
    return Figures(series, dict(re.findall("^# TYPE (.+) (.+)$", text, re.M)))


def of_mntr(server):
    """The same of a server without a provider."""
    series = {}
    for name, value in server.monitored().items():
        key = ""
        if found := SETS.fullmatch(name):
            name, key = f"{found['of']}_{found['name']}", found["key"]
        of, _, rest = name.partition("_")
        if re.fullmatch(r"-?[0-9.]+(E-?\d+)?", value):
            name = rest + SUFFIXES[of] if of in SUFFIXES else name
            series[name, key] = float(value)
            if of == "cnt":
                series[rest, "quantile"] = math.nan
    return Figures(series)


def do_some_of_everything(zk):
    zk.create("/app", b"x" * 10).ok()
    zk.exists("/app/made", watch=True)
    for name in ["made", "doomed", "third"]:
        zk.create(f"/app/{name}", b"x" * 100).ok()
    zk.create("/app/mine", flags=Flag.EPHEMERAL).ok()
    zk.children("/app", watch=True).ok()
    zk.get("/app/made", watch=True).ok()
    zk.get("/app/doomed", watch=True).ok()
    zk.set("/app/made", b"y" * 50).ok()
    zk.delete("/app/doomed").ok()
    for name in ["made", "third"]:
        zk.get(f"/app/{name}", watch=True).ok()


@pytest.fixture(scope="module")
def figures(kind, apache_jars, ensembles, tmp_path_factory):
    """`figures[role]`: what ours and Apache's say in that role after the same work; each is asked for by a client of its
    own that is still there."""
    told = {}
    with contextlib.ExitStack() as ends:
        for maker in [kind, "apache"]:
            ports = {}

            def port_of(server):
                return ports.setdefault(server, free_port())

            provider = {"metricsProvider.className": PROVIDER} if maker == kind else {}
            alone = Server(maker, tmp_path_factory.mktemp("alone"), {"4lw.commands.whitelist": "*", **provider})
            ends.callback(alone.kill)
            if provider:
                alone.config["metricsProvider.httpPort"] = port_of(alone)
                provider["metricsProvider.httpPort"] = port_of
            three = ensembles([maker] * 3, config=provider).start(leader=3)
            for role, server in zip(ROLES, [alone.start(), three[3], three[1]]):
                zk = ends.enter_context(contextlib.closing(Raw(server.port, pings=maker == "apache")))
                zk.handshake(timeout_ms=60_000)
                if role != "follower":
                    do_some_of_everything(zk)
                zk.sync("/").ok()
                told.setdefault(role, []).append(of_scrape(ports[server], role) if provider else of_mntr(server))
        yield told


@pytest.mark.parametrize("role", ROLES)
def test_every_series_that_dashboards_ask_for_is_there(figures, role):
    ours, theirs = figures[role]
    wrong = []
    for name, kind, *label in ASKED:
        metric = re.sub("_(count|sum)$", "", name) if kind == "summary" else name
        mine, apaches = ours.keys(name), theirs.keys(name)
        # Apache takes the times of some acknowledgements only.
        if bool(mine) < bool(apaches) or (mine and not apaches and not label) or (mine and ours.kinds[metric] != kind):
            wrong.append((name, kind, ours.kinds.get(metric), mine, apaches))
        if any(bool(key) != bool(label) for key in mine - {"quantile"}):
            wrong.append((name, label, mine))
    assert not wrong


@pytest.mark.parametrize("role", ROLES)
def test_the_figures_of_the_same_work_are_the_same(figures, role):
    ours, theirs = figures[role]
    wrong = []
    for name in SAME:
        for key in ours.keys(name) & theirs.keys(name):
            mine, apaches = ours.series[name, key], theirs.series[name, key] - ITSELF.get(name, 0)
            if mine != apaches:
                wrong.append((name, key, mine, apaches))
    assert not wrong
    assert ours.series["znode_count", ""] == 9


@pytest.mark.parametrize("role", ROLES)
def test_nothing_stays_at_nothing_that_apache_counts(figures, role):
    ours, theirs = figures[role]
    for name, kind, *_ in ASKED:
        for key in ours.keys(name) & theirs.keys(name) - {"quantile"}:
            mine, apaches = ours.series[name, key], theirs.series[name, key]
            assert mine >= 0 or name.endswith("_size"), (name, mine)
            # What takes a millisecond there may take less here.
            rounds_to_nothing = "time" in name or "latency" in name
            if apaches > 0 and mine == 0 and not rounds_to_nothing:
                assert NOTHING_HERE.fullmatch(name) or name in ITSELF, (name, key, apaches)
