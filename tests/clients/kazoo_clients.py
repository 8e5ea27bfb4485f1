"""Fixtures' helpers for kazoo: clients that are stopped with their test."""

import contextlib

from kazoo.client import KazooClient


class Kazoos:
    """Opens kazoo clients on one server and closes all of them at the end."""

    def __init__(self, default_port):
        self.default_port = default_port
        self.opened = []

    # kazoo's own back-off doubles up to a minute, which would make every restart a matter of luck.
    QUICK = {"max_tries": -1, "delay": 0.05, "backoff": 1, "max_jitter": 0.1}

    def __call__(self, port=None, chroot="", timeout=10.0, **options):
        client = KazooClient(hosts=f"127.0.0.1:{port or self.default_port}{chroot}", timeout=timeout,
                             connection_retry=dict(self.QUICK), **options)
        self.opened.append(client)
        client.start(timeout=15)
        return client

    def close(self):
        for client in self.opened:
            with contextlib.suppress(Exception):
                client.stop()
                client.close()
