"""Apache's command line client and ours, run as programs: one command per run, or a whole session on standard input."""

import subprocess
from dataclasses import dataclass

from server import program


@dataclass
class Answer:
    code: int
    out: str
    err: str


class JavaCli:
    """ZooKeeperMain from Debian's jars. Without JLine it reads commands from standard input and shows no prompt."""

    def __init__(self, class_path, port):
        self.class_path, self.port = class_path, port

    def _program(self):
        return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", self.class_path,
                "-Dfile.encoding=UTF-8", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
                "org.apache.zookeeper.ZooKeeperMain"]

    def _command(self, words):
        return [*self._program(), "-waitforconnection", "-timeout", "20000", "-server", f"127.0.0.1:{self.port}", *words]

    def once(self, *words):
        """Runs a single command; the exit code is the command's."""
        done = subprocess.run(self._command(words), capture_output=True, text=True, timeout=60)
        return Answer(done.returncode, done.stdout, done.stderr)

    def streams(self, *commands):
        """Runs the commands in one session; both streams apart."""
        script = "".join(f"{command}\n" for command in commands)
        done = subprocess.run(self._command([]), input=script, capture_output=True, text=True, timeout=90)
        return Answer(done.returncode, done.stdout, done.stderr)

    def transcript(self, *commands):
        """Runs the commands in one session and returns everything printed on both streams."""
        script = "".join(f"{command}\n" for command in [*commands, "quit"])
        return subprocess.run(self._command([]), input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=90).stdout

    def session(self, *commands):
        """Runs the commands in one session and returns what each of them printed.

        An unknown word after each command is echoed by the client and marks the border.
        """
        marked = [line for number, command in enumerate(commands) for line in (command, f"MARK{number}")]
        rest = printed = self.transcript(*marked)
        answers = []
        for number, command in enumerate(commands):
            before, border, rest = rest.partition(f"Command not found: Command not found MARK{number}\n")
            assert border, f"no end of `{command}` in:\n{printed}"
            answers.append(strip_usage(before))
        return answers


class OurCli(JavaCli):
    """Our own, by the name and with the arguments of Apache's."""

    def __init__(self, port):
        self.port = port

    def _program(self):
        return [str(program()), "zkCli.sh"]


def strip_usage(text):
    """Drops the usage list that precedes each unknown word, and the welcome before the first command."""
    body, _, _ = text.partition("ZooKeeper -server host:port")
    return body.rpartition("WatchedEvent state:SyncConnected type:None path:null\n")[2].strip()
