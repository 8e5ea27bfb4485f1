"""kazoo's own tests, as its package ships them, against ensembles of ours: what passes on Apache 3.8.0 passes here.

`kazoo_suite/passes_on_apache.txt` is the list of that; `pytest --server=apache --write-kazoo-list` writes it anew.
"""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import xml.etree.ElementTree

import pytest

from server import REPOSITORY, java_class_path, program

HERE = pathlib.Path(__file__).parent / "kazoo_suite"
PYTHON = REPOSITORY / ".venv-kazoo/bin/python"
LIST = HERE / "passes_on_apache.txt"
# About as long as all the others together, so both halves run at once.
FIRST_HALF = ["test_client", "test_connection", "test_watchers", "test_partitioner"]
# TLS and SASL, which ours does not have yet: kazoo's client would ask for them without end.
NOT_YET = ["sasl", "ssl"]
LOG4J = ["slf4j-log4j12.jar", "log4j-1.2.jar", "jackson-annotations.jar", "jackson-core.jar", "jackson-databind.jar",
         *(f"jetty9-{name}.jar" for name in ("http", "io", "security", "server", "servlet", "util", "util-ajax")),
         "servlet-api.jar"]


def class_path():
    plain = [jar for jar in java_class_path().split(":") if "slf4j-simple" not in jar]
    return ":".join(plain + [f"/usr/share/java/{jar}" for jar in LOG4J])


def start_half(kind, name, arguments, port, folder):
    """Starts pytest in kazoo's environment; returns the process and where its report will be."""
    report = folder / f"{name}.xml"
    path = f"{HERE}:{os.environ['PATH']}" if kind == "rookeeper" else os.environ["PATH"]
    environment = {
        **os.environ, "PATH": path, "ROOKEEPER": str(program()),
        "ZOOKEEPER_CLASSPATH": class_path(), "ZOOKEEPER_VERSION": "3.8.0", "ZOOKEEPER_PORT_OFFSET": str(port),
        "JAVA_TOOL_OPTIONS": "-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1", "TMPDIR": str(folder),
    }
    for inherited in ["PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTHONPATH"]:
        environment.pop(inherited, None)
    with open(folder / f"{name}.out", "wb") as output:
        process = subprocess.Popen(
            [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=120", f"--junit-xml={report}", *arguments],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    return process, report


def outcomes(report):
    """Test → None if it passed, else what was reported."""
    found = {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname').split('kazoo.tests.')[-1]}.{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        found[name] = f"{bad[0].tag}: {bad[0].get('message')}" if bad else None
    return found


@pytest.mark.timeout(900)
def test_kazoos_own_suite(kind, tmp_path, request):
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON.parent.parent.name} with kazoo's test environment; run `make test-deps`")
    if kind == "apache":
        request.getfixturevalue("apache_jars")
    tests, = (PYTHON.parent.parent / "lib").glob("python3*/site-packages/kazoo/tests")
    files = sorted(tests.glob("test_*.py"))
    halves = {"first": [path for path in files if path.stem in FIRST_HALF],
              "second": [path for path in files if path.stem not in FIRST_HALF]}
    port = random.SystemRandom().randrange(30_000, 32_500, 100)
    running = []
    for index, (name, chosen) in enumerate(halves.items()):
        (tmp_path / name).mkdir()
        arguments = chosen if kind == "apache" else [*chosen, "-k", " and ".join(f"not {word}" for word in NOT_YET)]
        running.append(start_half(kind, name, arguments, port + 50 * index, tmp_path / name))
    try:
        for process, _ in running:
            process.wait(800)
    finally:
        for process, _ in running:
            # Its servers too, if it could not end them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = {}
    for _, report in running:
        found.update(outcomes(report))
    if request.config.getoption("--write-kazoo-list"):
        LIST.write_text("".join(f"{name}\n" for name, bad in sorted(found.items()) if bad is None))
    expected = [name for name in LIST.read_text().split()
                if kind == "apache" or not any(word in name.lower() for word in NOT_YET)]
    missed = [f"{name}: {found.get(name, 'did not run')}" for name in expected if found.get(name, "") is not None]
    assert not missed, f"{len(missed)} of {len(expected)}:\n" + "\n".join(missed)
