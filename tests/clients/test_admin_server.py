"""The admin server: Apache's commands, their JSON, who may take snapshots, and what a stranger cannot do to it."""

import re
import socket

import pytest

from ensemble import Ensemble
from http_client import ask
from rawzk import Err, Raw, acl
from server import free_port, wait_until

COMMANDS = [
    "configuration", "connections", "dirs", "dump", "environment", "get_trace_mask", "hash", "initial_configuration",
    "is_read_only", "last_snapshot", "leader", "observers", "ruok", "server_stats", "stats", "voting_view", "watch_summary",
    "watches", "watches_by_path", "zabstate", "set_trace_mask", "set_trace_mask?traceMask=x", "set_trace_mask?traceMask=306",
    "nonsense", "a/b", "RUOK", "connection_stat_reset", "observer_connection_stat_reset", "stat_reset", "monitor",
]
ALIASES = {
    "conf": "configuration", "config": "configuration", "crst": "connection_stat_reset", "cons": "connections",
    "env": "environment", "envi": "environment", "gtmk": "get_trace_mask", "stmk": "set_trace_mask",
    "icfg": "initial_configuration", "isro": "is_read_only", "lsnp": "last_snapshot", "lead": "leader", "mntr": "monitor",
    "obsr": "observers", "orst": "observer_connection_stat_reset", "srvr": "server_stats", "stat": "stats",
    "srst": "stat_reset", "sysp": "system_properties", "wchs": "watch_summary", "wchc": "watches", "wchp": "watches_by_path",
}
# Java's objects come in the order of a hash.
UNORDERED = {"server_stats", "monitor", "environment"}


def shape(value):
    """What is there, without what differs between two servers: kinds of values, and the keys of objects in their order."""
    if isinstance(value, dict):
        if value and all(key.lstrip("-").isdigit() or key.startswith("/") for key in value):
            # Apache shows a time at which nobody expires any more.
            return {"number or path": shape(max(value.values(), key=bool))}
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def key_order(value):
    if isinstance(value, dict):
        return [(key, key_order(inner)) for key, inner in value.items() if key not in UNORDERED]
    return [key_order(value[0])] if isinstance(value, list) and value else None


class Admin:
    """A server with its admin server, and one client that leaves something to show."""

    def __init__(self, start_server, **options):
        self.port = free_port()
        config = {"admin.enableServer": None, "admin.serverPort": self.port, "4lw.commands.whitelist": "*",
                  **options.pop("config", {})}
        self.server = start_server(config, **options)

    def get(self, name, **options):
        return ask(self.port, f"/commands/{name}", **options)

    def leave_something(self):
        zk = Raw(self.server.port)
        zk.handshake(timeout_ms=20_000)
        zk.create("/a").ok()
        zk.create("/a/e", flags=1).ok()
        zk.exists("/nope", watch=True)
        zk.get("/a", watch=True).ok()
        return zk


since_39 = pytest.mark.rookeeper_only("since 3.9")
own = pytest.mark.rookeeper_only("Apache has no such thing")


@pytest.fixture
def admin(start_server):
    return Admin(start_server)


def test_every_answer_has_the_shape_of_apaches(start_server, kind):
    ours, theirs = Admin(start_server), Admin(start_server, kind="apache")
    clients = [one.leave_something() for one in (ours, theirs)]
    for name in COMMANDS:
        mine, apaches = ours.get(name), theirs.get(name)
        assert (mine.status, mine.headers["content-type"]) == (apaches.status, apaches.headers["content-type"]), name
        if name == "monitor":
            missing = apaches.json().keys() - mine.json().keys()
            assert not missing, missing
            continue
        assert shape(mine.json()) == shape(apaches.json()), name
        assert key_order(shape(mine.json())) == key_order(shape(apaches.json())), name
    for client in clients:
        client.close()


def test_the_text_is_printed_as_apache_prints_it(start_server, kind):
    ours, theirs = Admin(start_server), Admin(start_server, kind="apache")
    for name in ["ruok", "leader", "observers", "voting_view", "nonsense", "set_trace_mask?traceMask=7", "hash"]:
        assert ours.get(name).text == theirs.get(name).text, name
    lines = set(ask(theirs.port, "/commands").text.splitlines())
    assert lines <= set(ask(ours.port, "/commands").text.splitlines())
    assert ask(ours.port, "/commands").headers["content-type"] is None


def test_aliases_answer_under_the_primary_name(admin):
    for alias, name in ALIASES.items():
        assert admin.get(alias).json()["command"] == name, alias


@pytest.mark.rookeeper_only("its HTTP is our own")
def test_methods_and_paths_that_are_not_there(admin):
    assert ask(admin.port, "/commands/ruok", "HEAD").status == 200
    assert ask(admin.port, "/commands/ruok", "POST", body=b"x").status == 405
    assert ask(admin.port, "/commands/ruok", "PUT", body=b"x").status == 405
    assert ask(admin.port, "/commands/ruok", "TRACE").status == 403
    assert ask(admin.port, "/elsewhere").status == 404


def test_options_and_whole_uris(admin, kind):
    for path in ["/commands/ruok", "/elsewhere", "*", f"http://127.0.0.1:{admin.port}/commands"]:
        answer = ask(admin.port, path, "OPTIONS")
        post = "POST, " if kind == "rookeeper" and "commands" in path else ""
        assert (answer.status, answer.headers["allow"]) == (200, f"GET, HEAD, {post}TRACE, OPTIONS"), path
    assert ask(admin.port, "http://elsewhere/commands/ruok?x=y").json()["command"] == "ruok"


@pytest.mark.rookeeper_only("Apache shows them")
def test_nobody_is_shown_a_password(start_server):
    secrets = {"ssl.keyStore.password": "hush1", "DigestAuthenticationProvider.superDigest": "super:hush2"}
    admin = Admin(start_server, config=secrets, properties={"zookeeper.ssl.trustStore.password": "hush3"})
    properties, text = (admin.get(name).json() for name in ("system_properties", "initial_configuration"))
    for name in ("ssl.keyStore.password", "DigestAuthenticationProvider.superDigest", "ssl.trustStore.password"):
        assert properties[f"zookeeper.{name}"] == "***"
    assert "ssl.keyStore.password=***\n" in text["initial_configuration"]
    for shown in (str(properties), str(text), admin.server.log_path.read_text()):
        assert "hush" not in shown


@own
def test_what_may_wait_in_memory_is_shown_by_every_way(start_server):
    port = free_port()
    admin = Admin(start_server, config={
        "memoryBudgetInMb": 400, "metricsProvider.httpPort": port,
        "metricsProvider.className": "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
    })
    told = admin.get("memory").json()
    assert told["budget_bytes"] == 400 << 20 and told["resident_bytes"] > 1 << 20
    bounds = {name: account["bytes_max"] for name, account in told["accounts"].items()}
    assert {"requests", "proposals", "log_queue", "replies", "links", "committed_log"} <= set(bounds)
    assert all(account["what"] and account["when_full"] for account in told["accounts"].values())
    bounds["process"] = told["budget_bytes"]
    # With this provider mntr has the names of the metrics, as Apache's.
    for text in [ask(port, "/metrics").text, admin.server.four("mntr")]:
        shown = re.findall(r'memory_account_bytes_max\{key="(\w+)",?\}\s(\S+)$', text, re.M)
        assert {name: int(float(value)) for name, value in shown} == bounds


def test_connection_figures_can_be_reset(admin):
    client = admin.leave_something()
    assert admin.get("connections").json()["connections"][0]["packets_received"] > 3
    admin.get("crst")
    assert admin.get("connections").json()["connections"][0]["packets_received"] == 0
    client.close()


def test_the_prefix_of_paths_can_be_chosen(start_server):
    admin = Admin(start_server, config={"admin.commandURL": "/zk"})
    assert ask(admin.port, "/zk/ruok").json()["command"] == "ruok"
    assert ask(admin.port, "/commands/ruok").status == 404


@own
def test_what_is_slow_is_told_with_its_stage_and_its_numbers(start_server):
    admin = Admin(start_server, config={"fsync.warningthresholdms": 0})
    admin.leave_something().close()
    assert admin.get("srvr").json()["server_stats"]["fsync_threshold_exceed_count"] >= 3
    log = admin.server.log_path.read_text()
    assert re.search(r"fsync-ing the write ahead log in \S+ took \d+ms for \d+ transactions of \d+ bytes", log)
    for request, stages in [
        (r"write of session 0x\w+ \(0x\w+\)", ["the pipeline to take it up", "the sync here", "the pipeline to apply it"]),
        (r"read of session 0x\w+ \(\w+\)", ["the pipeline to take it up", "what its client asked before"]),
    ]:
        each = ", ".join(rf"\d+ ms for {stage}" for stage in stages)
        assert re.search(rf"a {request} waited \d+ ms, most of it for ({'|'.join(stages)}): {each}$", log, re.M), log


# -- snapshots

def digest(user, password):
    return {"Authorization": f"digest {user}:{password}"}


@since_39
def test_a_snapshot_needs_somebody_who_may_do_everything_with_the_root(admin):
    missing = admin.get("snapshot")
    assert (missing.status, missing.json()["error"]) == (401, "Auth info is missing for the command")
    unknown = admin.get("snapshot", headers={"Authorization": "nonsense x"})
    assert (unknown.status, unknown.json()["error"]) == (401, "Not authenticated")
    zk = Raw(admin.server.port)
    zk.handshake()
    zk.auth("digest", b"boss:secret").ok()
    zk.set_acl("/", acl((31, "auth", ""))).ok()
    denied = admin.get("snapshot", headers=digest("clerk", "x"))
    assert (denied.status, denied.json()["error"]) == (403, "Not authorized")
    assert admin.get("snapshot", headers=digest("boss", "secret")).status == 200
    zk.close()


@since_39
def test_a_snapshot_holds_what_was_written_before_it_was_asked_for(admin, start_server, tmp_path):
    zk = admin.leave_something()
    zk.create("/last", b"written").ok()
    answer = admin.get("snapshot", headers=digest("u", "p"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert int(answer.headers["snapshot_size"]) == len(answer.body)
    assert int(answer.headers["last_zxid"], 16) == admin.server.last_zxid()
    other = tmp_path / "other"
    (other / "data" / "version-2").mkdir(parents=True)
    zxid = answer.headers["last_zxid"][2:]
    (other / "data" / "version-2" / f"snapshot.{zxid}").write_bytes(answer.body)
    copy = start_server(directory=other)
    reader = Raw(copy.port)
    reader.handshake()
    assert reader.get("/last").data_and_stat()[0] == b"written"
    reader.close()
    zk.close()


@since_39
def test_a_snapshot_may_stay_on_the_server(admin):
    answer = admin.get("snapshot?streaming=false", headers=digest("u", "p"))
    assert (answer.status, answer.json()) == (200, {"command": "snapshot", "error": None})
    assert answer.headers["last_zxid"] == "0x0"


@since_39
def test_snapshots_can_be_switched_off_and_come_at_intervals(start_server):
    off = Admin(start_server, config={"admin.snapshot.enabled": "false"})
    assert off.get("snapshot", headers=digest("u", "p")).status == 503
    seldom = Admin(start_server, config={"admin.rateLimiterIntervalInMS": 2_000_000_000})
    assert seldom.get("snapshot", headers=digest("u", "p")).status == 200
    assert seldom.get("snapshot", headers=digest("u", "p")).status == 429
    assert seldom.get("monitor").json()["snapshot_rate_limited_count"] == 1


@pytest.mark.rookeeper_only("Apache takes the interval for microseconds here")
def test_five_minutes_pass_between_two_snapshots(admin):
    assert [admin.get("snapshot", headers=digest("u", "p")).status for _ in range(2)] == [200, 429]


# -- shed_connections

def shed(admin, body, headers=digest("u", "p")):
    return ask(admin.port, "/commands/shed_connections", "POST", headers=headers, body=body)


@pytest.mark.rookeeper_only("since Apache's master")
def test_a_part_of_the_connections_is_closed_and_their_sessions_live_on(admin):
    clients = [Raw(admin.server.port) for _ in range(20)]
    for zk in clients:
        zk.handshake(timeout_ms=20_000)
    clients[0].create("/e", flags=1).ok()
    answer = shed(admin, b'{"percentage": 30}')
    assert answer.status == 200 and answer.text == (
        '{\n  "connections_shed" : 6,\n  "percentage_requested" : 30,\n  "command" : "shed_connections",\n  "error" : null\n}')
    wait_until(lambda: admin.server.monitored()["num_alive_connections"] == "15", "six of them are gone")
    assert shed(admin, b'{"percentage": 0}').json()["connections_shed"] == 0
    rest = ask(admin.port, "/commands/shed", "POST", headers=digest("u", "p"), body=b'{"percentage": 100}').json()
    assert (rest["command"], rest["connections_shed"], rest["percentage_requested"]) == ("shed_connections", 14, 100)
    for zk in clients:
        assert zk.until_closed() == []
    again = Raw(admin.server.port)
    assert again.handshake(session=clients[0].session, password=clients[0].password).session == clients[0].session
    again.exists("/e").ok()
    again.close()
    log = admin.server.log_path.read_text()
    assert "closing 6 of 20 connections: 127.0.0.1 asked for 30 % by shed_connections" in log


@pytest.mark.rookeeper_only("since Apache's master")
def test_who_asks_wrongly_closes_no_connection(admin):
    zk = admin.leave_something()
    for body, error in [
        (b"", "Request body is required"), (b"{}", "Missing required field: percentage"),
        (b'{"percentage": 101}', "Percentage must be between 0 and 100"),
        (b'{"percentage": "all"}', "Percentage must be between 0 and 100"),
        (b"percentage=30", "Invalid JSON or failed to read request body: "),
    ]:
        answer = shed(admin, body)
        assert answer.status == 400 and answer.json()["error"].startswith(error), body
    assert shed(admin, b" " * 5000).status == 413
    assert admin.get("shed_connections", headers=digest("u", "p")).status == 405
    missing = shed(admin, b'{"percentage": 100}', headers={})
    assert (missing.status, missing.json()["error"]) == (401, "Auth info is missing for the command")
    zk.ping()
    zk.close()


@pytest.mark.rookeeper_only("before 3.9.4 one permission is enough")
def test_who_commands_needs_each_permission_with_the_root_whichever_entry_gives_it(admin):
    zk = Raw(admin.server.port)
    zk.handshake()
    zk.auth("digest", b"boss:b").ok()
    # 1 is READ; the other permissions come by other entries.
    zk.set_acl("/", acl((1, "world", "anyone"), (2 | 4, "auth", ""), (8 | 16, "auth", ""))).ok()
    denied = shed(admin, b'{"percentage": 0}', headers=digest("clerk", "c"))
    assert (denied.status, denied.json()["error"]) == (403, "Not authorized")
    assert shed(admin, b'{"percentage": 0}', headers=digest("boss", "b")).status == 200
    zk.set_acl("/", acl((1, "world", "anyone"), (2 | 4 | 16, "auth", ""))).ok()
    assert shed(admin, b'{"percentage": 0}', headers=digest("boss", "b")).status == 403
    zk.close()


# -- restore

RESTORING = {"admin.rateLimiterIntervalInMS": 0}


def restore(admin, body, who=("u", "p")):
    return ask(admin.port, "/commands/restore", "POST", headers=digest(*who), body=body)


def data_at(server, path):
    zk = Raw(server.port)
    zk.handshake()
    reply = zk.get(path)
    zk.close_session()
    zk.close()
    return reply.data_and_stat()[0] if reply.err == 0 else reply.err


@since_39
def test_a_restored_server_has_what_the_snapshot_has_and_goes_on_from_there(start_server):
    admin = Admin(start_server, config=RESTORING)
    zk = admin.leave_something()
    zk.create("/kept", b"then").ok()
    snapshot = admin.get("snapshot", headers=digest("u", "p"))
    zk.set("/kept", b"later").ok()
    zk.create("/later").ok()
    answer = restore(admin, snapshot.body)
    assert (answer.status, answer.json()["last_zxid"]) == (200, int(snapshot.headers["last_zxid"], 16))
    zk.until_closed()
    assert data_at(admin.server, "/kept") == b"then"
    assert data_at(admin.server, "/later") == Err.NO_NODE
    after = Raw(admin.server.port)
    after.handshake()
    after.create("/after", b"new").ok()
    after.close()
    for end in [admin.server.kill, admin.server.terminate]:
        end()
        admin.server.start()
        assert data_at(admin.server, "/kept") == b"then"
        assert data_at(admin.server, "/later") == Err.NO_NODE
        assert data_at(admin.server, "/after") == b"new"


@since_39
def test_another_server_takes_the_snapshot(start_server):
    one, other = Admin(start_server, config=RESTORING), Admin(start_server, config=RESTORING)
    zk = one.leave_something()
    for n in range(300):
        zk.create(f"/n{n}", b"x" * 1000).ok()
    snapshot = one.get("snapshot", headers=digest("u", "p"))
    assert restore(other, snapshot.body).status == 200
    assert data_at(other.server, "/n299") == b"x" * 1000
    other.server.restart()
    assert data_at(other.server, "/n299") == b"x" * 1000
    zk.close()


@since_39
def test_what_cannot_be_restored_changes_nothing(start_server):
    admin = Admin(start_server, config=RESTORING)
    zk = admin.leave_something()
    snapshot = admin.get("snapshot", headers=digest("u", "p")).body
    damaged = snapshot.replace(b"/nope", b"/NOPE") if b"/nope" in snapshot else snapshot[:100] + b"!" + snapshot[101:]
    for body in [b"garbage", snapshot[:-20], damaged]:
        assert restore(admin, body).status == 500
    assert restore(admin, b"").status == 400
    assert ask(admin.port, "/commands/restore", "POST", body=snapshot).status == 401
    assert admin.get("restore", headers=digest("u", "p")).status == 405
    assert admin.get("monitor").json()["restore_error_count"] == 3
    zk.set("/a", b"still served").ok()
    zk.close()


@since_39
def test_restores_can_be_switched_off_and_come_at_intervals(start_server):
    off = Admin(start_server, config={"admin.restore.enabled": "false"})
    assert restore(off, b"x").status == 503
    seldom = Admin(start_server)
    assert [restore(seldom, b"x").status for _ in range(2)] == [500, 429]


# -- the tree

def node(admin, path, **options):
    return admin.get(f"node?path={path}", **options).json()


@own
def test_the_tree_shows_what_a_client_could_read_and_no_more(admin):
    zk = Raw(admin.server.port)
    zk.handshake()
    zk.auth("digest", b"boss:secret").ok()
    zk.create("/open", b"text").ok()
    zk.create("/binary", b"\xff\x00").ok()
    zk.create("/closed", b"hidden", acls=acl((31, "auth", ""))).ok()
    assert node(admin, "/open")["data"] == "text"
    assert node(admin, "/binary")["data_hex"] == "ff00"
    assert set(node(admin, "/")["children"]) == {"binary", "closed", "open", "zookeeper"}
    assert "NoAuth" in node(admin, "/closed")["error"]
    assert node(admin, "/closed", headers=digest("boss", "secret"))["data"] == "hidden"
    assert "NoNode" in node(admin, "/absent")["error"]
    zk.close()


# -- start

def test_a_port_in_use_ends_a_server_that_stands_alone(start_server):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        server = start_server({"admin.enableServer": None, "admin.serverPort": taken.getsockname()[1]}, wait=False)
        assert server.wait_exit().code == 4


def test_a_port_in_use_does_not_keep_a_member_from_its_ensemble(start_ensemble):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        ensemble = start_ensemble(config={"admin.enableServer": None, "admin.serverPort": taken.getsockname()[1]})
        assert sorted(one.mode() for one in ensemble) == ["follower", "follower", "leader"]


# -- strangers

@pytest.mark.rookeeper_only("its HTTP is our own")
def test_who_dawdles_or_floods_is_shown_out_and_others_are_served(start_server):
    admin = Admin(start_server, config={"admin.idleTimeout": 500})
    dawdlers = [socket.create_connection(("127.0.0.1", admin.port)) for _ in range(12)]
    for sock in dawdlers:
        sock.sendall(b"GET /comm")
    assert admin.get("ruok").status == 200
    with socket.create_connection(("127.0.0.1", admin.port)) as flood:
        flood.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert b" 431 " in flood.recv(4096)
    for sock in dawdlers:
        sock.settimeout(10)
        while sock.recv(4096):
            pass
        sock.close()
    with socket.create_connection(("127.0.0.1", admin.port)) as stranger:
        stranger.sendall(b"\x00\x00\x00\x2d\x00\x00\x00\x00")
        assert b" 400 " in stranger.recv(4096)
    assert admin.get("ruok").status == 200


# -- the status page

@own
def test_the_status_page_comes_whole_and_asks_nobody_else(admin):
    for path in ["/", "/status"]:
        page = ask(admin.port, path)
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        assert "connect-src 'self'" in page.headers["content-security-policy"]
        assert "://" not in page.text.replace("http://www.w3.org/2000/svg", "")


# -- in an ensemble

MEMBER_COMMANDS = ["configuration", "initial_configuration", "leader", "zabstate", "voting_view", "observers", "server_stats"]


def tell(member, command):
    return ask(member.config["admin.serverPort"], f"/commands/{command}").json()


def ensemble_with_an_observer(directory, made_of):
    """Three voters and an observer."""
    ensemble = Ensemble(directory, [made_of] * 4, config={
        "admin.enableServer": None, "admin.serverPort": lambda one: free_port(),
        "peerType": lambda one: "observer" if one.sid == 4 else "participant"})
    for one in ensemble:
        one.config["server.4"] += ":observer"
    return ensemble


def test_members_tell_of_their_ensemble_as_apaches_do(apache_jars, kind, tmp_path):
    shapes = {}
    for made_of in {"apache", kind}:
        ensemble = ensemble_with_an_observer(tmp_path / made_of, made_of)
        try:
            leader = ensemble.start().leader()
            client = leader.connect()
            client.create("/x").ok()
            follower = next(one for one in ensemble if one is not leader)
            shapes[made_of] = [
                {name: shape(tell(one, name)) for name in MEMBER_COMMANDS} for one in (leader, follower, ensemble[4])
            ]
            told = tell(follower, "leader")
            assert (told["is_leader"], told["leader_id"], told["leader_ip"]) == (False, leader.sid, "127.0.0.1")
            for one, voting in [(follower, True), (ensemble[4], False)]:
                told = tell(one, "zabstate")
                assert (told["myid"], told["voting"], told["zabstate"]) == (one.sid, voting, "broadcast")
                assert told["quorum_address"]["all_addresses"] == [f"127.0.0.1:{one.quorum_port}"]
            # Only the leader knows when sessions expire.
            assert tell(follower, "dump")["expiry_time_to_session_ids"] == {}
            observers = tell(leader, "observers")
            assert observers["synced_observers"] == 1
            assert observers["observers"][0]["sid"] == 4
            assert sorted(tell(ensemble[4], "voting_view")["current_config"]) == ["1", "2", "3"]
            client.close()
        finally:
            ensemble.close()
    for ours, apaches in zip(shapes[kind], shapes["apache"]):
        for name in MEMBER_COMMANDS:
            assert ours[name] == apaches[name], name


@since_39
def test_a_member_refuses_to_be_restored_and_says_what_to_do_instead(start_ensemble):
    ensemble = start_ensemble(config={"admin.enableServer": None, "admin.serverPort": lambda one: free_port()})
    leader = ensemble.leader()
    client = leader.connect()
    client.create("/kept", b"as it is").ok()
    for one in ensemble:
        port = one.config["admin.serverPort"]
        snapshot = ask(port, "/commands/snapshot", headers=digest("u", "p"))
        answer = ask(port, "/commands/restore", "POST", headers=digest("u", "p"), body=snapshot.body)
        assert answer.status == 500 and "rookeeper restore BACKUP --data-dir NEW --myid N" in answer.json()["error"]
    assert client.get("/kept").data_and_stat()[0] == b"as it is"
    client.close()
