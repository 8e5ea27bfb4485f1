"""The four-letter words, as monitoring tools read them."""

import contextlib
import re
import resource
import socket
import struct

import pytest

from http_client import ask
from rawzk import Flag, Raw, acl, op_create, op_delete
from server import four_letter_word, free_port, wait_until

WORDS = "conf cons crst dirs dump envi gtmk ruok stmk srst srvr stat wchc wchp wchs mntr isro hash".split()
REFUSED = "{} is not executed because it is not in the whitelist.\n"
HEX = r"0x[0-9a-f]+"

# The brief form of a connection, as Metricbeat and Datadog read it, and the long form of `cons`.
BRIEF = re.compile(r"^ /[0-9.:]+:\d+\[\d+\]\(queued=\d+,recved=\d+,sent=\d+\)$")
LONG = re.compile(
    rf"^ /[0-9.:]+:\d+\[\d+\]\(queued=\d+,recved=\d+,sent=\d+,sid={HEX},lop=[A-Z0-9]+,est=\d+,to=\d+,"
    rf"(lcxid={HEX},)?lzxid={HEX},lresp=\d+,llat=\d+,minlat=\d+,avglat=\d+,maxlat=\d+\)$")


@pytest.fixture
def quiet(start_server):
    """A server of its own with every word allowed."""
    return start_server(full=True)


# -- transport

def test_only_srvr_is_allowed_by_default(defaults):
    for word in WORDS:
        answer = defaults.four(word + "\n" if word != "stmk" else b"stmk" + bytes(8))
        assert (answer == REFUSED.format(word)) == (word != "srvr"), word


def test_the_whitelist_is_a_list(start_server):
    server = start_server(config={"4lw.commands.whitelist": " ruok , conf,nope "})
    assert server.four("ruok") == "imok"
    assert server.four("conf").startswith("clientPort=")
    assert server.four("srvr").startswith("Zookeeper version")
    assert server.four("mntr") == REFUSED.format("mntr")


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b" ", b"x" * 5000])
def test_bytes_after_the_word_are_ignored(server, tail):
    assert server.four(b"ruok" + tail) == "imok"
    assert server.four(b"srvr" + tail).startswith("Zookeeper version")


def test_a_word_may_come_in_pieces(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        for byte in b"ruok":
            sock.sendall(bytes([byte]))
        assert sock.recv(100) == b"imok"
        assert sock.recv(100) == b""


def test_a_client_that_half_closes_gets_its_answer(server):
    """What `echo srvr | nc` does."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"srvr\n")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(4096):
            answer += piece
    assert answer.endswith(b"\n") and b"Mode: standalone" in answer


@pytest.mark.parametrize("word", [b"RUOK", b"xxxx", b"kill", b"\xff\xf4\xff\xfd"])
def test_other_words_just_close(server, word):
    try:
        assert server.four(word) == ""
    except ConnectionError:
        pass


def test_a_long_answer_arrives_whole(server, connect, root):
    zk = connect()
    for number in range(2000):
        zk.post(3, struct.pack(">i", len(f"{root}/{number:050}")) + f"{root}/{number:050}".encode() + b"\x01")
    for _ in range(2000):
        zk.next()
    answer = server.four("wchc")
    assert all(f"\t{root}/{number:050}\n" in answer for number in range(2000))


# -- the short ones

def test_ruok_isro_gtmk_stmk_have_no_newline(quiet):
    assert quiet.four("ruok") == "imok"
    assert quiet.four("isro") == "rw"
    assert quiet.four("gtmk") == "306"
    assert quiet.four(b"stmk" + struct.pack(">q", 4)) == "4"
    assert quiet.four("gtmk") == "4"


def test_resets_say_so_and_do_so(quiet):
    for _ in range(20):
        quiet.four("ruok")
    assert quiet.four("srst") == "Server stats reset.\n"
    assert quiet.four("crst") == "Connection stats reset.\n"
    received = int(re.search(r"^Received: (\d+)$", quiet.four("srvr"), re.M).group(1))
    assert received < 10


def test_dirs(quiet):
    assert re.fullmatch(r"datadir_size: \d+\nlogdir_size: \d+\n", quiet.four("dirs"))


def test_conf(quiet):
    answer = dict(line.split("=", 1) for line in quiet.four("conf").splitlines())
    assert list(answer) == ["clientPort", "secureClientPort", "dataDir", "dataDirSize", "dataLogDir", "dataLogSize",
                            "tickTime", "maxClientCnxns", "minSessionTimeout", "maxSessionTimeout",
                            "clientPortListenBacklog", "serverId"]
    assert answer["clientPort"] == str(quiet.port)
    assert answer["secureClientPort"] == "-1"
    assert answer["dataDir"] == answer["dataLogDir"] == str(quiet.data_dir / "version-2")
    assert (answer["tickTime"], answer["maxClientCnxns"]) == ("200", "0")
    assert (answer["minSessionTimeout"], answer["maxSessionTimeout"]) == ("400", "60000")
    assert (answer["clientPortListenBacklog"], answer["serverId"]) == ("-1", "0")


def test_envi(quiet):
    lines = quiet.four("envi").splitlines()
    assert lines[0] == "Environment:"
    keys = [line.partition("=")[0] for line in lines[1:]]
    assert keys == ["zookeeper.version", "host.name", "java.version", "java.vendor", "java.home", "java.class.path",
                    "java.library.path", "java.io.tmpdir", "java.compiler", "os.name", "os.arch", "os.version",
                    "user.name", "user.home", "user.dir", "os.memory.free", "os.memory.max", "os.memory.total"]
    assert re.match(r"zookeeper\.version=\d+\.\d+\.\d+", lines[1])  # kazoo reads the server's version here
    assert all(re.fullmatch(r"os\.memory\.\w+=\d+MB", line) for line in lines[-3:])


# -- srvr and stat

def after_the_version(lines):
    return [line.partition(":")[0] for line in lines]


SRVR_LINES = ["Latency min/avg/max", "Received", "Sent", "Connections", "Outstanding", "Zxid", "Mode", "Node count"]


def test_srvr_line_by_line(quiet):
    lines = quiet.four("srvr").splitlines()
    assert after_the_version(lines[1:]) == SRVR_LINES
    values = dict(line.split(": ") for line in lines[1:])
    assert re.fullmatch(r"\d+/\d+\.\d+/\d+", values["Latency min/avg/max"])
    assert re.fullmatch(HEX, values["Zxid"])
    assert values["Mode"] == "standalone"
    assert values["Node count"] == "5"  # the root is in the table twice
    assert all(values[key].isdigit() for key in ("Received", "Sent", "Connections", "Outstanding"))


def test_srvr_counts(quiet):
    zk = Raw(quiet.port)
    zk.handshake()
    for number in range(10):
        zk.create(f"/{number}").ok()
    values = dict(line.split(": ") for line in quiet.four("srvr").splitlines()[1:])
    assert (values["Connections"], values["Node count"], values["Zxid"]) == ("2", "15", "0xb")
    assert int(values["Received"]) >= 11 and int(values["Sent"]) >= 11


def test_stat_is_srvr_with_the_clients_in_between(quiet):
    zk = Raw(quiet.port)
    zk.handshake()
    lines = quiet.four("stat").splitlines()
    assert lines[0].startswith("Zookeeper version: ")
    assert lines[1] == "Clients:"
    end = lines.index("")
    assert end == 4 and all(BRIEF.match(line) for line in lines[2:end])
    assert after_the_version(lines[end + 1:]) == SRVR_LINES


def test_the_version_line_can_be_parsed(server, kind):
    first = server.four("srvr").splitlines()[0]
    assert first == server.four("stat").splitlines()[0]
    assert re.match(r"Zookeeper version: \d+\.\d+\.\d+-", first)
    if kind == "rookeeper":  # the form the parsers in the field accept
        assert re.fullmatch(r"Zookeeper version: \d+\.\d+\.\d+-[0-9A-Za-z]+, built on \d\d/\d\d/\d{4} \d\d:\d\d UTC", first)


# -- connections, sessions, watches

def test_cons(quiet):
    zk = Raw(quiet.port)
    zk.handshake(timeout_ms=10000)
    zk.create("/a").ok()
    zk.ping()
    answer = quiet.four("cons")
    assert answer.endswith(")\n\n")
    lines = answer.splitlines()[:-1]
    assert len(lines) == 2
    own = next(line for line in lines if LONG.match(line))
    probe = next(line for line in lines if line is not own)
    assert BRIEF.match(probe)
    assert f"sid={zk.session:#x},lop=PING," in own and ",to=10000," in own
    assert "recved=3,sent=3," in own
    quiet.four("crst")
    assert "recved=0,sent=0" in next(line for line in quiet.four("cons").splitlines() if "sid=" in line)


# What is asked once each, and how often it is counted then.
ASKED = [
    ("create", 4, lambda zk: (zk.create("/c").ok(), zk.create2("/c2").ok(), zk.create_container("/cc").ok(),
                              zk.create_ttl("/t", 60_000).ok())),
    ("delete", 1, lambda zk: zk.delete("/c2").ok()),
    ("exists", 2, lambda zk: (zk.exists("/c").ok(), zk.exists("/nope"))),
    ("get_data", 1, lambda zk: zk.get("/nope")),
    ("set_data", 1, lambda zk: (zk.set("/c").ok(), zk.set("/nope"), zk.set("/c", version=77))),
    ("get_acl", 1, lambda zk: zk.get_acl("/c").acl()),
    ("set_acl", 1, lambda zk: zk.set_acl("/c", acl((31, "world", "anyone"))).ok()),
    ("get_children", 2, lambda zk: (zk.children("/").names(), zk.children2("/"))),
    ("sync", 1, lambda zk: zk.sync("/").ok()),
    ("ping", 1, lambda zk: zk.ping()),
    ("multi", 2, lambda zk: (zk.multi(op_create("/m"), op_delete("/m")), zk.multi(op_delete("/nope")))),
    ("multi_read", 1, lambda zk: zk.multi_read()),
    ("check_watches", 1, lambda zk: zk.check_watches("/c", 1)),
    ("remove_watches", 1, lambda zk: zk.remove_watches("/c", 1)),
    ("add_watch", 1, lambda zk: zk.add_watch("/c", 0).ok()),
    ("set_watches", 2, lambda zk: (zk.set_watches(1), zk.set_watches2(1))),
    ("get_ephemerals", 1, lambda zk: zk.ephemerals()),
    ("get_all_children_number", 1, lambda zk: zk.descendants("/")),
    ("who_am_i", 1, lambda zk: zk.who_am_i().who()),
    ("close_session", 1, lambda zk: zk.close_session()),
]


@pytest.mark.rookeeper_only("since Apache's master")
def test_operations_are_counted_each_and_failed_writes_are_not(start_server):
    server = start_server({"extendedTypesEnabled": "true"}, full=True)

    def counted():
        names = {key.removeprefix("op_count_"): int(value) for key, value in server.monitored().items()
                 if key.startswith("op_count_")}
        return {name: count for name, count in names.items() if count}

    zk = Raw(server.port)
    zk.handshake()
    zk.auth("digest", b"u:p").ok()
    expected = {"create_session": 1, "total": 1}
    assert counted() == expected
    for name, count, ask in ASKED:
        ask(zk)
        expected[name] = count
        expected["total"] += count
        assert counted() == expected, name
    zk.close()


@pytest.mark.rookeeper_only("since Apache's master")
def test_ttl_nodes_are_counted_as_they_come_and_go(start_server):
    server = start_server({"extendedTypesEnabled": "true"}, full=True)

    def counted():
        return tuple(int(server.monitored()[f"ttl_node_{what}_count"]) for what in ("created", "deleted"))

    zk = Raw(server.port)
    zk.handshake()
    zk.create("/plain").ok()
    assert counted() == (0, 0)
    zk.create_ttl("/t", 60_000).ok()
    zk.create_ttl("/s-", 60_000, flags=Flag.SEQUENTIAL_TTL).ok()
    zk.create_ttl("/t", 60_000)
    assert counted() == (2, 0)
    zk.delete("/t").ok()
    zk.delete("/plain").ok()
    assert counted() == (2, 1)
    zk.create_ttl("/short", 1).ok()
    wait_until(lambda: counted() == (3, 2), "its time is up")
    zk.close()


@pytest.mark.parametrize("ask, lop", [
    (lambda zk: zk.create("/x"), "CREA"), (lambda zk: zk.get("/"), "GETD"), (lambda zk: zk.set("/"), "SETD"),
    (lambda zk: zk.exists("/"), "EXIS"), (lambda zk: zk.multi(), "MULT"), (lambda zk: zk.children("/"), "GETC"),
    (lambda zk: zk.sync("/"), "SYNC"), (lambda zk: (zk.create("/x"), zk.delete("/x")), "DELE"), (lambda zk: zk.get_acl("/"), "GETA"),
    (lambda zk: zk.add_watch("/", 0), "ADDW"), (lambda zk: zk.ephemerals("/"), "GETE"),
])
def test_cons_names_the_last_operation(server, zk, ask, lop):
    ask(zk)
    line = next(line for line in server.four("cons").splitlines() if f"sid={zk.session:#x}," in line)
    assert f"lop={lop}," in line
    zk.delete("/x")


def test_dump(quiet):
    zk = Raw(quiet.port)
    zk.handshake(timeout_ms=10000)
    zk.create("/e", flags=Flag.EPHEMERAL).ok()
    date = r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}"
    pattern = (
        r"SessionTracker dump:\n"
        r"Session Sets \(\d+\)/\(1\):\n"
        rf"(\d+ expire at {date}:\n(\t{HEX}\n)*)+"
        r"ephemeral nodes dump:\n"
        r"Sessions with Ephemerals \(1\):\n"
        rf"{zk.session:#x}:\n\t/e\n"
        r"Connections dump:\n"
        r"Connections Sets \(\d+\)/\(2\):\n"
        rf"(\d+ expire at {date}:\n(\tip: /[0-9.]+:\d+ sessionId: {HEX}\n)*)+")
    answer = quiet.four("dump")
    assert re.fullmatch(pattern, answer), answer
    assert f"\t{zk.session:#x}\n" in answer
    assert f"sessionId: {zk.session:#x}\n" in answer and "sessionId: 0x0\n" in answer


def test_watch_words_speak_of_data_watches_only(quiet):
    assert quiet.four("wchs") == "0 connections watching 0 paths\nTotal watches:0\n"
    first, second = Raw(quiet.port), Raw(quiet.port)
    for zk in (first, second):
        zk.handshake()
        zk.exists("/nope", watch=True)
    first.get("/", watch=True).ok()
    first.children("/zookeeper", watch=True).ok()
    assert quiet.four("wchs") == "2 connections watching 2 paths\nTotal watches:3\n"
    by_session = quiet.four("wchc")
    assert sorted(re.findall(r"(0x[0-9a-f]+)\n((?:\t/\w*\n)+)", by_session)) == sorted(
        [(f"{second.session:#x}", "\t/nope\n"), (f"{first.session:#x}", by_session_paths(by_session, first))])
    assert sorted(by_session_paths(by_session, first).split()) == ["/", "/nope"]
    by_path = quiet.four("wchp")
    assert f"/\n\t{first.session:#x}\n" in by_path
    assert set(re.search(r"/nope\n((\t0x[0-9a-f]+\n)+)", by_path).group(1).split()) == {
        f"{first.session:#x}", f"{second.session:#x}"}
    for answer in (by_session, by_path):
        assert answer.endswith("\n\n") or answer.endswith("\n")
    assert quiet.monitored()["watch_count"] == "4"


def by_session_paths(answer, zk):
    return re.search(rf"{zk.session:#x}\n((?:\t/\w*\n)+)", answer).group(1)


LISTED_MAX = 10_000


def left_out(what, count, instead):
    return f"{count - LISTED_MAX} of {count} {what} left out: no more than {LISTED_MAX} are listed; {instead}\n"


@pytest.mark.rookeeper_only("Apache lists everything, however long it takes")
def test_long_lists_of_watches_and_ephemerals_are_cut_and_say_so(quiet):
    zk = Raw(quiet.port)
    zk.handshake()
    count = LISTED_MAX + 7
    zk.set_watches(2**62, exist=[f"/{number:05}" for number in range(count)]).ok()
    for first in range(0, count, 1000):
        zk.multi(*(op_create(f"/e{number:05}", flags=Flag.EPHEMERAL) for number in range(first, min(first + 1000, count)))).ok()
    assert quiet.four("wchs") == f"1 connections watching {count} paths\nTotal watches:{count}\n"
    last = left_out("watches", count, "wchs has them in numbers")
    by_session = quiet.four("wchc")
    assert re.fullmatch(rf"{zk.session:#x}\n(\t/\d{{5}}\n){{{LISTED_MAX}}}\n", by_session.removesuffix(last)) and by_session.endswith(last)
    by_path = quiet.four("wchp")
    assert re.fullmatch(rf"(/\d{{5}}\n\t{zk.session:#x}\n){{{LISTED_MAX}}}\n", by_path.removesuffix(last)) and by_path.endswith(last)
    dump = quiet.four("dump")
    assert dump.count("\n\t/e") == LISTED_MAX
    assert dump.endswith(left_out("ephemeral nodes", count, "mntr has their number"))
    zk.remove_watches("/00000", 3).ok()
    for number in range(1, 7):
        zk.remove_watches(f"/{number:05}", 3).ok()
    assert quiet.four("wchp").count("\n\t0x") == LISTED_MAX and "left out" not in quiet.four("wchp")


@pytest.mark.rookeeper_only("Apache lists everything, however long it takes")
def test_long_lists_of_connections_are_cut_and_say_so(start_server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < LISTED_MAX + 500:
        pytest.skip(f"a process may open {hard} files here, `ulimit -Hn`: too few for {LISTED_MAX} connections")
    # However long it takes to make them, none must be closed for its silence.
    quiet = start_server(full=True, config={
        "nio.sessionlessCnxnTimeout": 600_000, "admin.enableServer": None, "admin.serverPort": (page := free_port())})
    listed = lambda: ask(page, "/commands/connections").json()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as open_connections:
        open_connections.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(LISTED_MAX):
            open_connections.enter_context(socket.create_connection(("127.0.0.1", quiet.port), timeout=10))
        last = left_out("connections", LISTED_MAX + 1, "srvr has their number")
        answers = {word: quiet.four(word) for word in ("cons", "stat", "dump")}
        # A command shows all or none.
        wait_until(lambda: len(listed().get("connections", [])) == LISTED_MAX, "as many as may be are listed")
        open_connections.enter_context(socket.create_connection(("127.0.0.1", quiet.port), timeout=10))
        wait_until(lambda: listed()["error"], "one more is too many")
        assert listed()["error"].startswith(f"{LISTED_MAX + 1} connections: more than {LISTED_MAX} are not listed")
    assert all(answer.endswith(last) for answer in answers.values())
    cons, stat, dump = (answers[word].removesuffix(last) for word in ("cons", "stat", "dump"))
    lines = cons.split("\n")
    assert lines[LISTED_MAX:] == ["", ""] and all(BRIEF.match(line) for line in lines[:LISTED_MAX])
    lines = stat.splitlines()
    assert lines[1] == "Clients:" and lines.index("") == 2 + LISTED_MAX
    assert after_the_version(lines[3 + LISTED_MAX:]) == SRVR_LINES
    assert dump.count("\tip: /") == LISTED_MAX


def test_hash_lists_digests_every_128_transactions(quiet):
    assert quiet.four("hash") == ""
    zk = Raw(quiet.port)
    zk.handshake()
    for number in range(300):
        zk.set("/", str(number).encode()).ok()
    lines = quiet.four("hash").splitlines()
    assert [line.split(":")[0] for line in lines] == ["80", "100"]
    assert all(re.fullmatch(r"[0-9a-f]+: \d+", line) for line in lines)


# -- mntr

def test_every_line_of_mntr_suits_telegraf(server):
    """Telegraf gives up on the whole answer when one line does not match."""
    lines = server.four("mntr").splitlines()
    telegraf = re.compile(r"^zk_(\w[\w.\-]*)\s+([\w.\-]+)")
    for line in lines:
        assert telegraf.match(line), line
        assert len(line.split("\t")) == 2, line
    for line in lines[1:]:
        assert re.fullmatch(r"zk_[\w.\-]+\t([\w.\-]+|[a-z]+ - [a-z]+)", line), line


def test_mntr_leads_with_what_short_readers_want(server):
    """check_zookeeper.py reads 2,048 bytes and no more."""
    head = server.four("mntr")[:2048]
    assert head.startswith("zk_version\t")
    assert head.splitlines()[1] == "zk_server_state\tstandalone"
    for key in ("avg_latency", "min_latency", "max_latency", "packets_received", "packets_sent",
                "num_alive_connections", "outstanding_requests", "znode_count", "watch_count", "ephemerals_count",
                "approximate_data_size", "open_file_descriptor_count", "max_file_descriptor_count", "uptime"):
        assert f"\nzk_{key}\t" in head, key


def test_mntr_values_follow_what_happens(quiet):
    zk = Raw(quiet.port)
    zk.handshake()
    before = quiet.monitored()
    zk.create("/a", b"12345").ok()
    zk.create("/e", flags=Flag.EPHEMERAL).ok()
    zk.get("/a", watch=True).ok()
    zk.children("/a", watch=True).ok()
    after = quiet.monitored()
    assert int(after["znode_count"]) == int(before["znode_count"]) + 2
    assert (after["ephemerals_count"], after["watch_count"], after["global_sessions"]) == ("1", "2", "1")
    assert int(after["approximate_data_size"]) == int(before["approximate_data_size"]) + len("/a12345/e")
    assert int(after["packets_received"]) > int(before["packets_received"])
    assert (after["digest_mismatches_count"], after["local_sessions"]) == ("0", "0")
    assert int(after["cnt_updatelatency"]) >= 2 and int(after["cnt_fsynctime"]) >= 2


def test_srst_zeroes_counters_and_spares_gauges(quiet):
    zk = Raw(quiet.port)
    zk.handshake()
    zk.create("/a").ok()
    quiet.four("srst")
    after = quiet.monitored()
    assert after["cnt_updatelatency"] == "0" and after["znode_count"] == "6"


@pytest.mark.rookeeper_only("compares with Apache's own keys")
def test_every_key_of_apaches_mntr_exists(start_server):
    """The key sets of both servers after the same little workload, quota gauges included."""
    def keys(server):
        zk = Raw(server.port)
        zk.handshake()
        zk.create("/ns", b"x").ok()
        zk.create("/zookeeper/quota/ns", None).ok()
        zk.create("/zookeeper/quota/ns/zookeeper_limits", b"count=1,bytes=1").ok()
        zk.create("/zookeeper/quota/ns/zookeeper_stats", b"").ok()
        zk.get("/ns").ok()
        return set(server.monitored())
    theirs = keys(start_server(full=True, kind="apache"))
    ours = keys(start_server(full=True, kind="rookeeper"))
    assert theirs - ours == set()


def test_not_yet_serving_or_gone_is_not_a_hang(start_server):
    server = start_server()
    server.kill()
    with pytest.raises(OSError):
        four_letter_word(server.port, "ruok", timeout_s=2)
    server.start()
    wait_until(lambda: "Mode" in server.four("srvr"), "it serves again")
