"""zkServer.sh as scripts, Ansible roles and public test suites use it, beside Apache's own: the same arguments, lines on
standard output, exit codes. `--server=apache` runs Apache's script alone.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

from server import REPOSITORY, START_DEADLINE_S, free_port, java_class_path, program, wait_until

APACHES = pathlib.Path("/usr/share/zookeeper/bin/zkServer.sh")


class Script:
    """One installation of the script, with a configuration of its own."""

    launcher = []  # what stands before the command

    def __init__(self, kind, directory, config=None):
        self.kind, self.directory = kind, directory
        directory.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        if kind == "apache":
            shutil.copy(APACHES, self.bin)
            # What Debian's file sets, without its fixed folders.
            (self.bin / "zkEnv.sh").write_text(
                f'ZOOCFGDIR=${{ZOOCFGDIR:-{self.bin}/../conf}}\nZOOCFG=$ZOOCFGDIR/${{ZOOCFG:-zoo.cfg}}\nJAVA=/usr/bin/java\n'
                f'if [ "$1" = --config ]; then ZOOCFGDIR=$2; ZOOCFG=$2/zoo.cfg; shift 2; fi\nCLASSPATH={java_class_path()}\n')
        else:
            (self.bin / "rookeeper").symlink_to(program())
            for name in ("zk.sh", "zkEnv.sh"):
                shutil.copy(REPOSITORY / "bin" / name, self.bin)
            (self.bin / "zkServer.sh").symlink_to("zk.sh")
        self.port, self.data = free_port(), directory / "data"
        self.conf = directory / "conf"
        self.conf.mkdir()
        self.configure(config or {"clientPort": self.port})
        self.variables = {"ZOO_LOG_DIR": str(directory / "logs"), "USER": "me", "PATH": os.environ["PATH"],
                          "JMXDISABLE": "true", "SERVER_JVMFLAGS": "-Xmx128m -Dzookeeper.admin.enableServer=false"}

    def configure(self, config):
        lines = {"dataDir": self.data, "tickTime": 500, "admin.enableServer": "false", **config}
        (self.conf / "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    def __call__(self, *arguments, **variables):
        """Exit code, standard output with what differs by nature taken out, standard error."""
        done = subprocess.run([*self.launcher, self.bin / "zkServer.sh", *arguments], env={**self.variables, **variables}, text=True,
                              capture_output=True, cwd=self.directory, stdin=subprocess.DEVNULL, timeout=60)
        text = done.stdout.replace(str(self.directory), "DIR").replace(str(self.port), "PORT")
        return done.returncode, re.sub(r"process \d+", "process PID", text), done.stderr

    def said(self, *arguments, **variables):
        return self(*arguments, **variables)[:2]

    def pid(self):
        return int((self.data / "zookeeper_server.pid").read_text())

    def wait_serving(self):
        wait_until(lambda: self.said("status")[0] == 0, f"the server of {self.kind} serves", START_DEADLINE_S)

    def close(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid(), signal.SIGKILL)


@pytest.fixture
def scripts(kind, tmp_path):
    """Ours, and Apache's where it is installed."""
    kinds = [kind] if kind == "apache" or not (APACHES.exists() and shutil.which("java")) else [kind, "apache"]
    made = []

    def make(**options):
        made.extend(Script(one, tmp_path / f"{one}{len(made)}", **options) for one in kinds)
        return made[-len(kinds):]

    yield make
    for script in made:
        script.close()


def test_a_day_with_the_script(scripts):
    for script in scripts():
        none = (0, "Stopping zookeeper ... no zookeeper to stop (could not find file DIR/data/zookeeper_server.pid)\n")
        found = "Client port found: PORT. Client address: localhost. Client SSL: false.\n"
        down = (1, f"{found}Error contacting service. It is probably not running.\n")
        assert script.said("stop") == none
        assert script.said("status") == down
        assert script.said("start") == (0, "Starting zookeeper ... STARTED\n")
        assert not (script.data / "zookeeper_server.pid").read_text().endswith("\n")
        assert script.said("start") == (1, "Starting zookeeper ... already running as process PID.\n")
        script.wait_serving()
        assert script.said("status") == (0, f"{found}Mode: standalone\n")
        before = script.pid()
        assert script.said("restart") == (0, "Stopping zookeeper ... STOPPED\nStarting zookeeper ... STARTED\n")
        assert script.pid() != before
        script.wait_serving()
        assert script.said("stop") == (0, "Stopping zookeeper ... STOPPED\n")
        assert script.said("stop") == none
        assert list((script.directory / "logs").glob("zookeeper-me-server-*.out"))


def test_wrong_verbs_and_what_goes_to_standard_error(scripts):
    for script in scripts():
        code, out, err = script("whatever")
        assert (code, out) == (0, "")
        announced = f"JMX disabled by user request\nUsing config: {script.bin}/../conf/zoo.cfg\n"
        usage = "[--config <conf-dir>] {start|start-foreground|stop|version|restart|status|print-cmd}\n"
        assert err == f"{announced}Usage: {script.bin}/zkServer.sh {usage}"
        assert script("stop", JMXDISABLE="")[2].startswith("ZooKeeper JMX enabled by default\nUsing config: ")


def test_the_configuration_is_named_in_three_ways(scripts):
    for script in scripts():
        other = script.directory / "other"
        script.conf.rename(other)
        for arguments, variables in [(["stop", str(other / "zoo.cfg")], {}), (["--config", str(other), "stop"], {}),
                                     (["stop"], {"ZOOCFGDIR": str(other)})]:
            code, out, err = script(*arguments, **variables)
            assert (code, out.count("could not find file DIR/data/")) == (0, 1), (script.kind, arguments, out, err)
            assert f"Using config: {other}/zoo.cfg\n" in err


def test_version_and_command_line(scripts):
    for script in scripts():
        code, out = script.said("version")
        assert code == 0 and re.fullmatch(r"Apache ZooKeeper, version 3\.8\.\d\S* \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", out)
        code, out = script.said("print-cmd", SERVER_JVMFLAGS="-Da.b=c")
        assert code == 0 and "-Da.b=c" in out
        assert re.search(r' "DIR/bin/../conf/zoo.cfg" > "DIR/logs/zookeeper-me-server-\S+\.out" 2>&1 < /dev/null\n$', out)


def test_a_pid_file_elsewhere_and_folders_that_may_not_be_made(scripts):
    for script in scripts():
        away = script.directory / "run" / "zk.pid"
        assert script.said("start", ZOOPIDFILE=str(away)) == (0, "Starting zookeeper ... STARTED\n")
        assert script.said("stop", ZOOPIDFILE=str(away)) == (0, "Stopping zookeeper ... STOPPED\n")
        script.configure({"dataDir": script.directory / "none", "clientPort": script.port})
        missing = "ZooKeeper data directory is missing at DIR/none fix the path or run initialize\n"
        assert script.said("start", ZOO_DATADIR_AUTOCREATE_DISABLE="1") == (1, missing)


@pytest.mark.parametrize("where", ["server line", "dynamic file", "nowhere"])
def test_where_status_looks_for_the_client_port(scripts, where):
    for script in scripts():
        script.data.mkdir()
        (script.data / "myid").write_text("1\n")
        line = f"127.0.0.1:2888:3888;127.0.0.1:{script.port}"
        if where == "server line":
            script.configure({"server.1": line})
        else:
            script.configure({"dynamicConfigFile": script.directory / "dynamic"})
            (script.directory / "dynamic").write_text(f"server.1={line}\n" if where == "dynamic file" else "")
        looked = {
            "server line": "",
            "dynamic file": "Client port not found in static config file. Looking in dynamic config file.\n",
            "nowhere": "Client port not found in static config file. Looking in dynamic config file.\n"
                       "Client port not found in the server configs\n"
                       "Client port not found. Looking for secureClientPort in the static config.\n"
                       "Unable to find either secure or unsecure client port in any configs. Terminating.\n",
        }[where]
        if where != "nowhere":
            looked += ("Client port found: PORT. Client address: 127.0.0.1. Client SSL: false.\n"
                       "Error contacting service. It is probably not running.\n")
        assert script.said("status") == (1, looked), script.kind


def test_in_the_foreground_signals_and_exit_codes_are_the_servers(kind, scripts):
    script = scripts()[0]
    log = (script.directory / "output").open("wb")
    server = subprocess.Popen([script.bin / "zkServer.sh", "start-foreground"], env=script.variables, stdout=log, stderr=log)
    try:
        script.wait_serving()
        server.terminate()
        assert server.wait(20) == (0 if kind == "rookeeper" else 143)
    finally:
        server.kill()
        server.wait()


@pytest.mark.rookeeper_only("the JVM takes longer to fail than the script looks, so Apache's says STARTED")
def test_a_wrong_configuration_fails_at_once_and_says_why(scripts):
    script = scripts()[0]
    script.configure({"clientPort": "here"})
    code, out, err = script("start")
    assert (code, out) == (1, "Starting zookeeper ... FAILED TO START\n")
    assert re.search(r"zoo\.cfg:\d+: clientPort=here: ", err)
    (script.conf / "zoo.cfg").unlink()
    code, out, err = script("start")
    assert (code, out) == (1, "Starting zookeeper ... FAILED TO START\n")
    assert "zoo.cfg: No such file or directory" in err


@pytest.mark.rookeeper_only("Apache's script takes any process of that number for its server")
def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(scripts):
    script = scripts()[0]
    script.data.mkdir()
    with subprocess.Popen(["sleep", "100"]) as stranger:
        (script.data / "zookeeper_server.pid").write_text(str(stranger.pid))
        assert script.said("stop") == (0, "Stopping zookeeper ... STOPPED\n")
        assert stranger.poll() is None
        (script.data / "zookeeper_server.pid").write_text(str(stranger.pid))
        assert script.said("start") == (0, "Starting zookeeper ... STARTED\n")
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.rookeeper_only("Apache's script writes wherever a link leads")
def test_the_pid_is_not_written_through_a_link(scripts):
    script = scripts()[0]
    script.data.mkdir()
    precious = script.directory / "precious"
    precious.write_text("kept")
    (script.data / "zookeeper_server.pid").symlink_to(precious)
    code, out, err = script("start")
    assert (code, out) == (1, "Starting zookeeper ... FAILED TO WRITE PID\n")
    os.kill(int(re.search(r"the server runs as process (\d+)", err)[1]), signal.SIGKILL)
    assert precious.read_text() == "kept"


def test_a_server_of_another_users_goes_on_and_keeps_its_pid_file(kind, nobody):
    if kind == "apache":
        pytest.skip("Apache's says STOPPED whatever became of it")
    script = Script(kind, nobody.folder / "ours")
    try:
        assert script.said("start") == (0, "Starting zookeeper ... STARTED\n")
        script.wait_serving()
        script.launcher = nobody.launcher
        refused = "NOT STOPPED: process PID belongs to another user; stop it as that user, or as root\n"
        assert script.said("stop") == (1, f"Stopping zookeeper ... {refused}")
        assert script.said("status")[0] == 0 and script.pid()
        # Whoever may not even look hears why the file was not found.
        script.data.chmod(0o700)
        code, said, complaint = script("stop")
        assert (code, said) == (0, "Stopping zookeeper ... no zookeeper to stop (could not find file DIR/data/zookeeper_server.pid)\n")
        assert f"{script.data}/zookeeper_server.pid: Permission denied" in complaint
        script.launcher = []
        assert script.said("stop") == (0, "Stopping zookeeper ... STOPPED\n")
    finally:
        script.close()


@pytest.mark.rookeeper_only("a feature of zkEnv.sh from Apache's own archive, which Debian replaces")
def test_the_operators_own_files_are_sourced(scripts):
    script = scripts()[0]
    (script.conf / "zookeeper-env.sh").write_text(f"ZOO_LOG_DIR={script.directory}/elsewhere\n")
    (script.conf / "java.env").write_text('SERVER_JVMFLAGS="$SERVER_JVMFLAGS -Dfrom.file=1"\n')
    code, out = script.said("print-cmd")
    assert code == 0 and "-Dfrom.file=1" in out and "DIR/elsewhere/zookeeper-me-server-" in out


def test_a_broken_java_env_is_named_with_the_line(kind, tmp_path):
    if kind == "apache":
        pytest.skip("Apache's says it in its shell's words")
    script = Script(kind, tmp_path / "ours")
    settings = script.conf / "java.env"
    settings.write_text('SERVER_JVMFLAGS="-Da=1"\nJVMFLAGS="-Db=2\n')
    settings.chmod(0o644)
    code, _, complaint = script("version")
    complaint = complaint.replace("/bin/../conf", "/conf")
    assert code == 1 and re.search(rf"^{settings}: (line )?\d: ", complaint, re.M), complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone is careful")
def test_root_runs_only_settings_of_its_own(kind, tmp_path):
    if kind == "apache":
        pytest.skip("Apache's runs them all")
    script = Script(kind, tmp_path / "ours")
    settings = script.conf / "java.env"
    settings.write_text("echo read\n")
    settings.chmod(0o644)
    assert "read" in script.said("version")[1].splitlines()
    settings.chmod(0o664)
    code, said, complaint = script("version")
    assert "read" not in said.splitlines() and f"{settings} is left out" in complaint.replace("/bin/../conf", "/conf")
    settings.chmod(0o644)
    settings.rename(script.conf / "elsewhere")
    settings.symlink_to("elsewhere")
    assert "read" not in script.said("version")[1].splitlines()
