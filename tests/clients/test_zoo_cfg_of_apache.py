"""A whole zoo.cfg as it stands on production hosts of 3.8 and 3.9, copied unchanged: an ensemble starts with it, of Apache's
(`--server=apache`) and of ours, which warns of what has no meaning here, and of nothing else. Only folders and ports are
made to fit one machine.
"""

import re

import pytest

from ensemble import write_many
from server import free_port
from workload import differences

# Each with the warnings of ours. Blanks, comments and order are as these tools write them.
FLAVOURS = {}

FLAVOURS["container image"] = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir={dir}/data
clientPort={client}
# the maximum number of client connections.
# increase this if you need to handle more clients
maxClientCnxns=60
# The number of snapshots to retain in dataDir
autopurge.snapRetainCount=3
# Purge task interval in hours
# Set to "0" to disable auto purge feature
autopurge.purgeInterval=0

## Metrics Providers
#
# https://prometheus.io Metrics Exporter
metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider
metricsProvider.httpHost=127.0.0.1
metricsProvider.httpPort={metrics}
metricsProvider.exportJvmInfo=true
preAllocSize=65536
snapCount=100000
maxCnxns=0
reconfigEnabled=false
quorumListenOnAllIPs=false
4lw.commands.whitelist=srvr, mntr, ruok
maxSessionTimeout=40000
admin.serverPort={admin}
admin.enableServer=true
server.1=127.0.0.1:{quorum1}:{election1};{client1}
server.2=127.0.0.1:{quorum2}:{election2};{client2}
server.3=127.0.0.1:{quorum3}:{election3};{client3}
""", []

FLAVOURS["ansible role"] = """\
# Ansible managed
tickTime=2000
dataDir={dir}/data
dataLogDir={dir}/log
clientPort={client}
clientPortAddress=127.0.0.1
initLimit=5
syncLimit=2
maxClientCnxns=0
minSessionTimeout=4000
maxSessionTimeout=60000
autopurge.snapRetainCount=10
autopurge.purgeInterval=1
forceSync=yes
leaderServes=yes
standaloneEnabled=true
globalOutstandingLimit=1000
jute.maxbuffer=4194304
snapshot.trust.empty=true
fsync.warningthresholdms=200
admin.enableServer=false
4lw.commands.whitelist=*
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider
requireClientAuthScheme=sasl
jaasLoginRenew=3600000
nio.numWorkerThreads=16
commitProcessor.numWorkerThreads=4
watchManagerName=org.apache.zookeeper.server.watch.WatchManagerOptimized
jvm.pause.monitor=true
electionAlg=3

server.1=127.0.0.1:{quorum1}:{election1}
server.2=127.0.0.1:{quorum2}:{election2}
server.3=127.0.0.1:{quorum3}:{election3}
""", [
    "requireClientAuthScheme: unknown key; no known one is near it; it becomes property zookeeper.requireClientAuthScheme",
    "jaasLoginRenew: unknown key; no known one is near it; it becomes property zookeeper.jaasLoginRenew",
    "nio.numWorkerThreads: no effect on this server (threads; here one polls)",
    "commitProcessor.numWorkerThreads: no effect on this server (threads; here one decides)",
    "watchManagerName: no effect on this server (watch memory)",
    "jvm.pause.monitor: no effect on this server (pauses of the JVM)",
    "not served by this version: authProvider.1",
]

FLAVOURS["operator"] = """\
4lw.commands.whitelist=cons, envi, conf, crst, srvr, stat, mntr, ruok
dataDir={dir}/data
standaloneEnabled=false
reconfigEnabled=true
skipACL=yes
metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider
metricsProvider.httpPort={metrics}
metricsProvider.exportJvmInfo=true
metricsProvider.numWorkerThreads=10
initLimit=10
syncLimit=2
tickTime=2000
globalOutstandingLimit=1000
preAllocSize=65536
snapCount=10000
commitLogCount=500
snapSizeLimitInKb=4194304
maxCnxns=0
maxClientCnxns=60
minSessionTimeout=4000
maxSessionTimeout=40000
autopurge.snapRetainCount=3
autopurge.purgeInterval=1
quorumListenOnAllIPs=true
admin.serverPort={admin}
admin.commandURL=/commands
extendedTypesEnabled=true
audit.enable=true
dynamicConfigFile={dir}/zoo.cfg.dynamic
""", ["metricsProvider.numWorkerThreads: no effect on this server (threads)"]

# What its dynamicConfigFile says.
DYNAMIC = """\
server.1=127.0.0.1:{quorum1}:{election1}:participant;{client1}
server.2=127.0.0.1:{quorum2}:{election2}:participant;{client2}
server.3=127.0.0.1:{quorum3}:{election3}:participant;{client3}
"""

FLAVOURS["debian"] = """\
# http://hadoop.apache.org/zookeeper/docs/current/zookeeperAdmin.html

# The number of milliseconds of each tick
tickTime=2000
# The number of ticks that the initial 
# synchronization phase can take
initLimit=10
# The number of ticks that can pass between 
# sending a request and getting an acknowledgement
syncLimit=5
# the directory where the snapshot is stored.
dataDir={dir}/data
# Place the dataLogDir to a separate physical disc for better performance
# dataLogDir=/disk2/zookeeper

# the port at which the clients will connect
clientPort={client}

# specify all zookeeper servers
# The fist port is used by followers to connect to the leader
# The second one is used for leader election
server.1=127.0.0.1:{quorum1}:{election1}
server.2=127.0.0.1:{quorum2}:{election2}
server.3=127.0.0.1:{quorum3}:{election3}

# To avoid seeks ZooKeeper allocates space in the transaction log file in
# blocks of preAllocSize kilobytes. The default block size is 64M.
preAllocSize=65536

# Clients can submit requests faster than ZooKeeper can process them,
# especially if there are a lot of clients.
snapCount=1000

# Leader accepts client connections. Default value is "yes".
leaderServes=yes

admin.enableServer=false
tcpKeepAlive=true
""", []


@pytest.mark.parametrize("past", ["of its own", "with Apache's servers"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_zoo_cfg_of_apaches_works_unchanged(kind, ensembles, flavour, past):
    first_kind = kind if past == "of its own" else "apache"
    if first_kind != kind and kind == "apache":
        pytest.skip("Apache's servers after Apache's servers")
    text, warnings = FLAVOURS[flavour]
    ensemble = ensembles([first_kind] * 3)
    if first_kind == "apache":
        # Debian leaves that class out.
        text = text.replace("prometheus.PrometheusMetricsProvider", "impl.DefaultMetricsProvider")
    places = {}
    for one in ensemble:
        places |= {f"quorum{one.sid}": one.quorum_port, f"election{one.sid}": one.election_port, f"client{one.sid}": one.port}
    for one in ensemble:
        one.keeps_config = True
        here = {**places, "dir": one.directory, "client": one.port, "admin": free_port(), "metrics": free_port()}
        (one.directory / "zoo.cfg").write_text(text.format(**here))
        (one.directory / "zoo.cfg.dynamic").write_text(DYNAMIC.format(**here))
    ensemble.start()
    write_many(ensemble[1], "/a", 3)
    if first_kind != kind:
        for one in [*ensemble.followers(), ensemble.leader()]:
            ensemble.replace(one, kind)
        ensemble.wait_serving()
    write_many(ensemble[2], "/b", 3)
    first, *others = [one.tree() for one in ensemble]
    assert len([path for path in first if path.startswith(("/a", "/b"))]) == 2 * (1 + 3)
    assert [differences(first, tree) for tree in others] == ["", ""]
    for one in ensemble if kind == "rookeeper" else []:
        said = re.findall(rf"{re.escape(str(one.directory))}/zoo\.cfg(?::\d+)?: (.*)", one.log_path.read_text())
        assert sorted(said) == sorted(warnings)
