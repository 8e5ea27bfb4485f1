"""What Apache's check_zookeeper.py and its Ganglia module need, who watch ensembles with Nagios, Cacti and Ganglia: they
send `mntr` and `stat`, take no more of each answer than one read of 2048 bytes, and look for what they know.
"""

import contextlib
import re
import socket

import pytest

from ensemble import write_many
from server import Server

pytestmark = pytest.mark.rookeeper_only("holds ours against Apache's")

READ_BYTES = 2048
# What its Nagios services and its Ganglia module are about.
EVERYWHERE = {
    "zk_avg_latency", "zk_max_latency", "zk_min_latency", "zk_packets_received", "zk_packets_sent",
    "zk_num_alive_connections", "zk_outstanding_requests", "zk_znode_count", "zk_watch_count", "zk_ephemerals_count",
    "zk_approximate_data_size", "zk_open_file_descriptor_count", "zk_max_file_descriptor_count",
}
ON_LEADERS = {
    "zk_learners", "zk_synced_followers", "zk_pending_syncs", "zk_last_proposal_size", "zk_min_proposal_size",
    "zk_max_proposal_size",
}
# Of `stat` it takes these lines; whole numbers are all that it looks for, and a mean latency is none.
STAT_LINES = {
    "zk_packets_received": r"Received: (\d+)", "zk_packets_sent": r"Sent: (\d+)", "zk_outstanding_requests": r"Outstanding: (\d+)",
    "zk_zxid": "Zxid: (0x[0-9a-fA-F]+)", "zk_server_state": "Mode: (.*)", "zk_znode_count": r"Node count: (\d+)",
    "zk_last_proposal_size": r"Proposal sizes last/min/max: (\d+)", "zk_min_latency": r"Latency min/avg/max: (\d+)/(\d+)/(\d+)",
}


def first_read(server, word):
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as sock:
        sock.sendall(word.encode())
        # How much of it has come by the first read is chance; here it is all that may come.
        with sock.makefile("rb") as answer:
            return answer.read(READ_BYTES).decode()


def number_or_text(text):
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def of_mntr(server):
    """Lines of a key, a tab and a value; others are passed over. So is the last, which the read cuts where it happens to:
    of a fraction a whole number may be left."""
    words = [line.split("\t") for line in first_read(server, "mntr").split("\n")[:-1]]
    return {line[0].strip(): number_or_text(line[1].strip()) for line in words if len(line) == 2 and line[0].strip()}


def of_stat(server):
    """The version, then what comes behind the empty line that ends the list of clients."""
    head, _, rest = first_read(server, "stat").partition("\n\n")
    found = {"zk_version": head.splitlines()[0].partition(":")[2].strip()}
    for line in rest.splitlines():
        for key, pattern in STAT_LINES.items():
            if match := re.match(pattern, line):
                found[key] = number_or_text(match.group(1))
    return found


@pytest.fixture(scope="module")
def in_roles(kind, apache_jars, ensembles, tmp_path_factory):
    """Role → a server of ours and one of Apache's."""
    roles = {}
    with contextlib.ExitStack() as ends:
        for maker in [kind, "apache"]:
            alone = Server(maker, tmp_path_factory.mktemp("alone"), {"4lw.commands.whitelist": "*"})
            ends.callback(alone.kill)
            three = ensembles([maker] * 3).start(leader=3)
            write_many(three[3], "/work", 3)
            for role, server in [("standalone", alone.start()), ("leader", three[3]), ("follower", three[1])]:
                roles.setdefault(role, []).append(server)
        yield roles


@pytest.mark.parametrize("role", ["standalone", "leader", "follower"])
def test_it_finds_the_same_in_the_first_read(in_roles, role):
    ours, theirs = in_roles[role]
    mine, apaches = of_mntr(ours), of_mntr(theirs)
    wanted = EVERYWHERE | (ON_LEADERS if role == "leader" else set())
    assert not wanted - mine.keys()
    assert not wanted - apaches.keys()
    assert mine["zk_server_state"] == apaches["zk_server_state"] == role
    # Its Ganglia output is what whole numbers can be made of. A mean is one with a fraction, or none.
    kinds = {key: (type(mine[key]), type(apaches[key])) for key in mine.keys() & apaches.keys() - {"zk_avg_latency"}}
    assert all(one == other for one, other in kinds.values()), kinds
    assert isinstance(mine["zk_avg_latency"], float)
    if role != "leader":
        assert not ON_LEADERS & mine.keys()


@pytest.mark.parametrize("role", ["standalone", "leader", "follower"])
def test_it_finds_the_same_in_stat(in_roles, role):
    mine, apaches = map(of_stat, in_roles[role])
    assert mine.keys() == apaches.keys() >= {"zk_zxid", "zk_server_state", "zk_znode_count"}
    assert {key: type(value) for key, value in mine.items()} == {key: type(value) for key, value in apaches.items()}
    assert mine["zk_server_state"] == role
    assert mine["zk_version"].startswith("3.")
