"""A memory cgroup for one server: version 1 or 2, whichever this machine has. Needs root, and fails loudly where none can be
made: a test of what fits into memory is worth nothing without it."""

import itertools
import os
import pathlib

ROOT = pathlib.Path("/sys/fs/cgroup")
NUMBERS = itertools.count(1)


class MemoryGroup:
    """`launcher` stands before a command that is to run in it."""

    def __init__(self, limit_mb):
        name = f"rookeeper-test-{os.getpid()}-{next(NUMBERS)}"
        self.is_v2 = (ROOT / "cgroup.controllers").exists()
        self.folder = (ROOT if self.is_v2 else ROOT / "memory") / name
        try:
            if self.is_v2:
                (ROOT / "cgroup.subtree_control").write_text("+memory")
            self.folder.mkdir()
            (self.folder / ("memory.max" if self.is_v2 else "memory.limit_in_bytes")).write_text(str(limit_mb << 20))
        except OSError as error:
            raise AssertionError(f"no memory cgroup can be made ({error}): these tests need root, and {ROOT} writable") from error
        self.launcher = ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    def peak_mb(self):
        """The most that was in use."""
        return int((self.folder / ("memory.peak" if self.is_v2 else "memory.max_usage_in_bytes")).read_text()) >> 20

    def remove(self):
        self.folder.rmdir()
