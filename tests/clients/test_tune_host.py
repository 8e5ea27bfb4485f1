"""scripts/tune-host on a made-up /proc and /sys: what it changes, what it only shows, and the way back."""

import os
import subprocess

import pytest

from server import REPOSITORY

FILES = {"proc/sys/vm/swappiness": "60", "proc/sys/vm/dirty_ratio": "20", "proc/sys/vm/dirty_bytes": "0",
         "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"}


@pytest.fixture
def tune(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    environment = {**os.environ, "TUNE_ROOT": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path / "run")}

    def run(*arguments, **variables):
        done = subprocess.run([REPOSITORY / "scripts/tune-host", *arguments], env={**environment, **variables},
                              capture_output=True, text=True)
        now = {name: (tmp_path / name).read_text().strip() for name in FILES}
        return done.returncode, done.stdout.replace(str(tmp_path), ""), {k: v for k, v in now.items() if v != FILES[k]}

    return run


def test_a_dry_run_shows_and_changes_nothing(tune):
    said = "/proc/sys/vm/swappiness: 60 -> 1\n/sys/kernel/mm/transparent_hugepage/enabled: always -> madvise\n"
    assert tune("--dry-run", "swappiness=1", "thp=madvise") == (0, said, {})


def test_what_was_set_is_put_back_to_the_first_value(tune):
    assert tune(ROOKEEPER_TUNING="swappiness=1 dirty_mb=256")[2] == {
        "proc/sys/vm/swappiness": "1", "proc/sys/vm/dirty_bytes": str(256 << 20)}
    assert tune("swappiness=5")[2]["proc/sys/vm/swappiness"] == "5"
    code, said, changed = tune("--undo")
    assert code == 0 and "/proc/sys/vm/swappiness: back to 60" in said
    # The kernel makes the bytes 0 when the ratio is set.
    assert "/proc/sys/vm/dirty_ratio: back to 20" in said and set(changed) <= {"proc/sys/vm/dirty_bytes"}
    assert tune("--undo")[1] == "nothing was changed\n"


def test_without_settings_nothing_is_done_and_unknown_ones_are_refused(tune):
    assert tune() == (0, "nothing to set: ROOKEEPER_TUNING is empty\n", {})
    assert tune("speed=11")[0] == 1
