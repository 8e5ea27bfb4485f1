"""Stopping a server in the middle of its work, again and again: nothing acknowledged is lost, nothing goes back."""

import os
import random

from load import Load
from server import wait_until

ROUNDS = 8
SEED = os.environ.get("SEED", "1")
CONFIG = {"4lw.commands.whitelist": "*", "snapCount": 400, "preAllocSize": 256}


def work(load, at_least):
    """Lets the writers run until so many more writes are acknowledged."""
    target = load.acknowledged() + at_least
    load.start()
    wait_until(lambda: load.acknowledged() >= target or any(not writer.is_alive() for writer in load.writers),
               f"{at_least} more writes are acknowledged", 30)


def test_kill_9_in_a_loop_under_load(start_server):
    """Snapshots and log rolls happen all the time, so some kills fall into them."""
    server = start_server(config=CONFIG)
    load = Load(server.port, writers=4, seed=SEED)
    chance = random.Random(SEED)
    zxid = 0
    for _ in range(ROUNDS):
        work(load, at_least=chance.randrange(100, 1500))
        server.kill()
        load.stopped()
        server.start()
        assert server.last_zxid() > zxid
        assert server.monitored()["digest_mismatches_count"] == "0"
        load.settle()
        zxid = server.last_zxid()


def test_sigterm_under_load_keeps_everything_and_is_quick(start_server, kind):
    server = start_server(config=CONFIG)
    load = Load(server.port, writers=4, seed=SEED)
    for _ in range(2):
        work(load, at_least=500)
        exit_ = server.terminate()
        load.stopped()
        assert exit_.code == (143 if kind == "apache" else 0), server.log_tail()
        assert exit_.seconds < 2
        server.start()
        load.settle()


def test_a_kill_while_starting_does_no_harm(start_server):
    server = start_server(config=CONFIG)
    load = Load(server.port, writers=2, seed=SEED)
    work(load, at_least=1000)
    server.kill()
    load.stopped()
    for _ in range(5):
        server.spawn()
        wait_until(lambda: server.log_path.stat().st_size or not server.running(), "it says its first words", 10)
        server.kill()
    server.start()
    load.settle()
