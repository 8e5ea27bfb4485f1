"""A client of another lineage: node-zookeeper-client, written in JavaScript from the protocol up."""

import json
import pathlib
import shutil

import pytest

NODE = pathlib.Path(__file__).parent / "node"


def test_the_npm_client_works(server, root, run):
    if not shutil.which("node") or not (NODE / "node_modules/node-zookeeper-client").exists():
        pytest.skip("no node, or node-zookeeper-client is not installed; run `make test-deps`")
    done = run(["node", NODE / "client.js", f"127.0.0.1:{server.port}", root])
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "created": root + "/a", "data": "hello", "sequential": root + "/s-0000000001",
        "children": ["a", "deep", "s-0000000001"], "exists": "NODE_EXISTS", "missing": "NO_NODE", "version": 1,
        "badVersion": "BAD_VERSION", "event": "NODE_DATA_CHANGED", "transaction": 3, "failing": "BAD_VERSION",
        "rolledBack": True, "noAuth": "NO_AUTH", "ephemeral": True, "gone": "NODE_DELETED",
    }
