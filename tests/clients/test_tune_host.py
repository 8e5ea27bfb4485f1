"""scripts/tune-host on a made-up /proc and /sys: what it changes, what it only shows, and the way back."""

import os
import subprocess

import pytest

from server import REPOSITORY

FILES = {"proc/sys/vm/swappiness": "60", "proc/sys/vm/dirty_ratio": "20", "proc/sys/vm/dirty_bytes": "0",
         "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
         "sys/block/vda/queue/scheduler": "none [mq-deadline]", "sys/block/vdb/queue/scheduler": "none [mq-deadline]"}


class Tune:
    """The script, and the host it changes: files in a folder."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, f"{text}\n")
        self.environment = {**os.environ, "TUNE_ROOT": str(folder), "RUNTIME_DIRECTORY": str(folder / "run")}

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def __call__(self, *arguments, **variables):
        """Exit code, what it said, and what is otherwise than at first."""
        done = subprocess.run([REPOSITORY / "scripts/tune-host", *arguments], env={**self.environment, **variables},
                              capture_output=True, text=True)
        now = {name: (self.folder / name).read_text().strip() for name in FILES}
        said = (done.stdout + done.stderr).replace(str(self.folder), "")
        return done.returncode, said, {name: text for name, text in now.items() if text != FILES[name]}


@pytest.fixture
def tune(tmp_path):
    return Tune(tmp_path)


def test_a_dry_run_shows_and_changes_nothing(tune):
    said = "/proc/sys/vm/swappiness: 60 -> 1\n/sys/kernel/mm/transparent_hugepage/enabled: always -> madvise\n"
    assert tune("--dry-run", "swappiness=1", "thp=madvise") == (0, said, {})


def test_what_was_set_is_put_back_to_the_first_value(tune):
    assert tune(ROOKEEPER_TUNING="swappiness=1 dirty_mb=256")[2] == {
        "proc/sys/vm/swappiness": "1", "proc/sys/vm/dirty_bytes": str(256 << 20)}
    # What the kernel does, and then somebody sets it once more.
    tune.write("proc/sys/vm/dirty_ratio", "0\n")
    assert tune("swappiness=5", "dirty_mb=128")[2]["proc/sys/vm/swappiness"] == "5"
    code, said, changed = tune("--undo")
    assert code == 0 and "/proc/sys/vm/swappiness: back to 60" in said
    # The kernel makes the bytes 0 when the ratio is set: that has to be the last word.
    assert said.index("dirty_bytes: back to") < said.index("dirty_ratio: back to 20") and set(changed) <= {"proc/sys/vm/dirty_bytes"}
    assert tune("--undo")[1] == "nothing was changed\n"


def test_a_setting_that_fails_puts_back_what_was_set_before(tune):
    """As systemd would not: it stops no service that failed to start."""
    disk = tune.folder / "sys/block/vda/queue/scheduler"
    disk.unlink()
    disk.symlink_to("/proc/version")  # can be read, not written
    stubs(tune, {"/": "vda"})
    tune.write("etc/rookeeper/zoo.cfg", "dataDir=/\n")
    code, said, changed = tune("swappiness=1", "thp=never", "scheduler=none", "dirty_mb=1")
    assert code == 1 and "/sys/block/vda/queue/scheduler: cannot be set to none" in said
    assert "/proc/sys/vm/swappiness: back to 60" in said and "dirty_bytes" not in said and "put back" not in said
    assert set(changed) == {"sys/kernel/mm/transparent_hugepage/enabled", "sys/block/vda/queue/scheduler"}
    assert changed["sys/kernel/mm/transparent_hugepage/enabled"] == "always"  # without the kernel's brackets
    assert tune("--undo")[1] == "nothing was changed\n"


@pytest.mark.parametrize("wrong", ["speed=11", "swappiness=201", "swappiness=", "swappiness=1 2", "thp=often", "dirty_mb=-1", "dirty_mb=08",
                                   "dirty_background_mb=99999999999999999999", "scheduler=../x", "swappiness"])
def test_a_wrong_setting_is_refused_before_anything_is_changed(tune, wrong):
    code, said, changed = tune("thp=never", wrong)
    assert (code, changed) == (1, {}) and f"tune-host: {wrong}" in said
    assert not (tune.folder / "run").exists()


def test_the_disks_are_those_of_every_instance(tune):
    folders = {str(tune.folder / name): disk for name, disk in [("first", "vda"), ("second", "vdb")]}
    stubs(tune, folders)
    for (folder, _), config in zip(folders.items(), ["zoo.cfg", "second/zoo.cfg"]):
        os.mkdir(folder)
        tune.write(f"etc/rookeeper/{config}", f"dataDir={folder}\n")
    assert tune("scheduler=none")[2] == {f"sys/block/{disk}/queue/scheduler": "none" for disk in ("vda", "vdb")}
    assert tune("--undo")[2].keys() == {f"sys/block/{disk}/queue/scheduler" for disk in ("vda", "vdb")}


def stubs(tune, disks):
    """The programs that tell on which disk a folder is."""
    for name, text in [("findmnt", 'for last; do :; done; echo "$last"'),
                       ("lsblk", "for last; do :; done; case $last in "
                        + " ".join(f'"{folder}") echo {disk} disk ;;' for folder, disk in disks.items()) + " esac")]:
        tune.write(f"programs/{name}", f"#!/bin/sh\n{text}\n").chmod(0o755)
    tune.environment["PATH"] = f"{tune.folder}/programs:{tune.environment['PATH']}"


def test_without_settings_nothing_is_done(tune):
    assert tune() == (0, "nothing to set: ROOKEEPER_TUNING is empty\n", {})
