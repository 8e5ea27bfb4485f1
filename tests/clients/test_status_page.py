"""The status page in a real browser: what a person sees and does there, and that it asks nobody but its server."""

import contextlib

import pytest

from browser import BROWSER, Page
from http_client import ask
from rawzk import ALL, Flag, Raw, acl
from server import free_port, wait_until

pytestmark = [
    pytest.mark.rookeeper_only("Apache has no such page"),
    pytest.mark.skipif(not BROWSER, reason="no chromium; run `make test-deps` as root on Debian"),
]

# What a person may put into names and data to hurt another who looks.
NASTY = [
    "<img src=x onerror=alert(1)>", "<!--<script>alert(2)", "\"'`${alert(3)}&lt;", "javascript:alert(4)",
    "\u202etxt.exe", "%2e%2e", "{\"ts\":1700000000000000}", "long" * 100,
]


@contextlib.contextmanager
def looking(port, tmp_path, where="", **options):
    """A person at the page of a server; at the end nothing must have gone wrong, and nobody else been asked."""
    page_url = f"http://127.0.0.1:{port}/"
    with Page(page_url + where, tmp_path / f"profile{port}", **options) as page:
        yield page
        assert not page.complaints
        assert all(url.startswith((page_url, "data:,")) for url in page.asked_for), set(page.asked_for)


@pytest.fixture
def page_of(start_server, tmp_path):
    """A server with a page, a client of it, and a person who looks."""
    with contextlib.ExitStack() as ends:
        port = free_port()
        server = start_server({"admin.enableServer": None, "admin.serverPort": port})
        zk = ends.enter_context(contextlib.closing(Raw(server.port)))
        zk.handshake(timeout_ms=60_000)

        def look(where="", **options):
            page = ends.enter_context(looking(port, tmp_path, where, **options))
            page.sees("zookeeper", "#tree")
            return page

        yield zk, look


def tree_of(page):
    """The lines of the tree that are in sight."""
    return page.text("#tree").split("\n")


def open_line(page, name, then):
    page.click("#tree button", name)
    page.sees(then, "#node")


def test_a_person_sees_the_server_its_tree_and_its_writes(page_of):
    zk, look = page_of
    zk.create("/app").ok()
    for n in range(20):
        zk.set("/app", str(n).encode()).ok()
    zk.exists("/app", watch=True)
    page = look()
    for expected in ["standalone", "synced", "acknowledged", "/app", "EXIS", f"{zk.session:x}"]:
        page.sees(expected)
    assert tree_of(page) == ["/", "app", "zookeeper"]
    assert "no answer" not in page.text()


def cells(page, table):
    """The texts of a table, a list for each line below its head."""
    return page.run(f"[...document.querySelectorAll('{table} tr')].slice(1).map(line => [...line.cells].map(one => one.innerText))")


def test_sessions_are_listed_with_their_ephemerals_and_watches_are_counted_by_kind(page_of):
    zk, look = page_of
    for path in ["/a", "/b"]:
        zk.create(path, flags=Flag.EPHEMERAL).ok()
        zk.exists(path, watch=True).ok()
    zk.children("/", watch=True).ok()
    page = look()
    page.sees(f"0x{zk.session:x}", "#sessions")
    assert cells(page, "#sessions") == [[f"0x{zk.session:x}", "40 s", "2"]]
    figures = page.run("[...document.querySelectorAll('#figures div')].map(one => [...one.children].map(part => part.innerText))")
    assert [figure for figure in figures if figure[0].startswith("Watches")] == [["Watches on data", "2"], ["Watches on children", "1"]]


def test_stages_are_those_of_the_writes_since_the_page_was_opened(page_of):
    zk, look = page_of
    for n in range(20):
        zk.set("/", str(n).encode()).ok()
    page = look()
    page.sees("the last", "#stagespan")
    for n in range(7):
        zk.set("/", str(n).encode()).ok()
    counted = lambda: {line[0]: line[2] for line in cells(page, "#stages")}
    wait_until(lambda: counted()["acknowledged"] == "7", "seven writes are counted")
    # A server that was started again counts anew.
    stage = "{ counts: [%d, 4, 0], count: %d, sum_us: 9 }"
    assert page.run(f"since({stage % (5, 9)}, {stage % (3, 7)})") is None
    assert page.run(f"since({stage % (5, 9)}, {stage % (104, 108)}).counts") == [99, 0, 0]
    of = lambda part: page.run("quantile({ counts: [98, 1, 1], count: 100 }, [10, 2000], %s)" % part)
    assert [of(part) for part in (0.5, 0.98, 0.99, 0.999)] == ["10 µs", "10 µs", "2 ms", "> 2 ms"]


def test_lines_of_the_tree_open_close_and_show_their_node(page_of):
    zk, look = page_of
    for path in ["/app", "/app/locks", "/app/locks/one", "/app/config"]:
        zk.create(path, f"data of {path}.".encode()).ok()
    page = look()
    open_line(page, "app", "data of /app.")
    open_line(page, "locks", "data of /app/locks.")
    open_line(page, "one", "data of /app/locks/one.")
    whole = ["/", "app", "config", "locks", "one", "zookeeper"]
    assert tree_of(page) == whole
    # What is chosen again closes, and opens as it was.
    open_line(page, "app", "data of /app.")
    assert tree_of(page) == whole
    page.click("#tree button", "app")
    assert tree_of(page) == ["/", "app", "zookeeper"]
    page.click("#tree button", "app")
    wait_until(lambda: tree_of(page) == whole, "it opens again")
    # A line without anything below has no sign of opening.
    assert page.run("[...document.querySelectorAll('#tree button:not([aria-expanded])')].map(one => one.textContent)") == ["one"]
    page.click("footer a")
    page.sees("watch_summary")
    # That list is like Apache's, without an icon.
    assert all("favicon.ico" in str(one) for one in page.complaints)
    page.complaints.clear()


def test_the_tree_can_be_walked_with_keys(page_of):
    zk, look = page_of
    for path in ["/app", "/app/config"]:
        zk.create(path, f"data of {path}.".encode()).ok()
    page = look()
    wait_until(lambda: page.press("Tab") or page.focused() == "/", "Tab gets to the tree")
    page.press("ArrowDown")
    page.press("ArrowRight")
    page.sees("data of /app.", "#node")
    page.press("ArrowDown")
    assert page.focused() == "config"
    page.press("Enter")
    page.sees("data of /app/config.", "#node")
    page.press("ArrowLeft")
    assert page.focused() == "app"
    page.press("ArrowLeft")
    assert tree_of(page) == ["/", "app", "zookeeper"]
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_choice_outlives_updates_and_a_reload(page_of):
    zk, look = page_of
    for path in ["/app", "/app/a b#ü", "/app/a b#ü/deep"]:
        zk.create(path, f"data of {path}.".encode()).ok()
    page = look()
    open_line(page, "app", "data of /app.")
    open_line(page, "a b#ü", "data of /app/a b#ü.")
    zk.set("/app/a b#ü", b"set meanwhile").ok()
    zk.create("/app/later").ok()
    page.sees("set meanwhile", "#node")
    shown = ["/", "app", "a b#ü", "deep", "zookeeper"]
    assert tree_of(page) == shown
    page.tell("Page.reload")
    page.sees("set meanwhile", "#node")
    assert set(shown) < set(tree_of(page))
    # An address that names nothing shows how far it leads, one of nobody's making the root.
    for where, told in [("%2Fapp%2Fgone", "data of /app."), ("%E0%A4%A", "Children changed")]:
        page.run(f"location.hash = '{where}'")
        page.tell("Page.reload")
        page.sees(told, "#node")


def test_names_and_data_of_strangers_are_only_text(page_of):
    zk, look = page_of
    for name in NASTY:
        zk.create(f"/{name}", name.encode()).ok()
        zk.exists(f"/{name}", watch=True)
    zk.create("/bytes", bytes(range(256))).ok()
    zk.create("/controls", b"\x1b[31mred\x00\x07 \xc2\x9b end\ttab").ok()
    zk.create("/markup", b"</pre></script><script>alert(5)</script><img src=x onerror=alert(6)>").ok()
    zk.create("/huge", b"y" * 900_000).ok()
    page = look()
    # As a person can tell it: what turns the text around it is shown by its number.
    readable = {name: name.replace("\u202e", "⟨202e⟩") for name in NASTY}
    for shown in readable.values():
        open_line(page, shown, f"/{shown}")
        page.sees(shown, "#node pre")
        assert shown in page.text("#watches")
    open_line(page, "bytes", "not text: in hexadecimal")
    assert page.text("#node pre").startswith("000102")
    open_line(page, "controls", "⟨1b⟩[31mred⟨00⟩⟨07⟩ ⟨9b⟩ end\ttab")
    open_line(page, "markup", "</pre></script><script>alert(5)</script><img src=x onerror=alert(6)>")
    open_line(page, "huge", "only the beginning")
    assert len(page.text("#node pre")) == 4096
    assert page.run("document.querySelectorAll('main img, main script, main a').length") == 0
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_what_anybody_may_not_read_is_not_shown(page_of):
    zk, look = page_of
    owner_only = acl((ALL, "digest", "owner:DJYoGOPDXzYJlKPhiLxGQNnbMOc="))
    zk.create("/closed", b"only for its owner", owner_only).ok()
    page = look()
    open_line(page, "zookeeper", "/zookeeper")
    open_line(page, "closed", "NoAuth")
    assert page.text("#node").splitlines()[0] == "/closed"
    assert "its ACL lets nobody read it who has not logged in" in page.text("#node")
    assert "only for its owner" not in page.text()
    open_line(page, "/", "Children changed")


def test_a_phone_shows_it_all_without_scrolling_aside(page_of):
    zk, look = page_of
    for name in ["app", "w" * 300]:
        zk.create(f"/{name}", b"x" * 500).ok()
    page = look(width=1280)
    page.resize(360, 740, phone=True)
    open_line(page, "w" * 300, "Data changed")
    open_line(page, "app", "/app")
    assert page.run("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    below = "document.querySelector('#node').getBoundingClientRect().top - document.querySelector('#tree').getBoundingClientRect().bottom"
    assert page.run(below) >= 0
    page.resize(1280, 900)
    assert page.run(below) < 0


def test_a_server_that_comes_back_is_shown_again(start_server, tmp_path):
    port = free_port()
    server = start_server({"admin.enableServer": None, "admin.serverPort": port})
    with Page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
        page.sees("standalone")
        server.kill()
        page.sees("no answer", "#fresh")
        server.start()
        page.sees("UTC", "#fresh")


def test_a_person_sees_who_leads_and_who_is_behind(start_ensemble, tmp_path):
    ports = [free_port() for _ in range(3)]
    ensemble = start_ensemble(config={
        "admin.enableServer": None, "admin.serverPort": lambda one: ports[one.sid - 1]})
    ensemble[1].kill()
    # Across epochs nobody knows how many transactions lie between two.
    with contextlib.closing(Raw(ensemble[3].port)) as zk:
        zk.handshake()
        zk.create("/in-this-epoch").ok()
    with looking(ports[2], tmp_path) as page:
        for expected in ["leader", "in step", "not connected"]:
            page.sees(expected)
    with looking(ports[1], tmp_path) as page:
        for expected in ["follower", "this server", "ask the leader"]:
            page.sees(expected)
        assert page.run("document.querySelector('#ensemble a').href") == f"http://127.0.0.1:{ports[1]}/"
        here = lambda: next(line for line in cells(page, "#ensemble") if line[1] == "this server")
        # Last zxid and how many are behind it.
        wait_until(lambda: here()[6:8] == [f"0x{ensemble[3].last_zxid():x}", "0"], "the follower has all that its leader has")
        ensemble[3].kill()
        for expected in ["not serving", "unknown: no leader"]:
            page.sees(expected)
        assert page.text("#treebox") == ""
    for name in ["ruok", "monitor"]:
        told = ask(ports[1], f"/commands/{name}").json()
        assert told == {"command": name, "error": "This ZooKeeper instance is not currently serving requests"}
