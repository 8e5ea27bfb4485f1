"""Servers whose histories are not of one ensemble: nothing that was acknowledged is given up without a copy or an operator."""

import contextlib

import pytest

from ensemble import Ensemble, write_many
from server import wait_until

MIXES = {"alone": "???", "Apache leads": "?AA", "Apache was alone": "A??"}


@pytest.fixture(params=MIXES)
def kinds(request, mix, kind):
    if kind == "apache":
        pytest.skip("Apache gives the only copy up")
    found = mix(MIXES[request.param])
    if "apache" in found:
        request.getfixturevalue("apache_jars")
    return found


@contextlib.contextmanager
def alone(member):
    """The same server without a list of members."""
    listed = {key: member.config.pop(key) for key in list(member.config) if key.startswith("server.")}
    member.start()
    yield
    member.terminate()
    member.config.update(listed)


def test_the_only_copy_of_the_data_is_not_given_up_for_an_empty_ensemble(kinds, tmp_path):
    ensemble = Ensemble(tmp_path, kinds)
    one, two, three = ensemble
    try:
        with alone(one):
            write_many(one, "/old", 20)
        old = {path.name: path.read_bytes() for path in one.log_files()}
        ensemble.wait_serving([two.spawn(), three.spawn()])
        write_many(three, "/new", 5)
        one.spawn()
        out = one if one.kind == "rookeeper" else three
        wait_until(lambda: out.said(r"ERROR.*(acknowledged when it was alone|that no election led to)"), "the ERROR", 60)
        assert one.mode() is None and two.mode() and three.mode()
        assert all((one.data_dir / "version-2" / name).read_bytes().startswith(data.rstrip(b"\0"))
                   for name, data in old.items())
        if one.kind == "rookeeper":
            one.terminate()
            (one.data_dir / "give-up-history").touch()
            one.spawn()
            ensemble.wait_serving()
            ensemble.check_equal()
            kept = list((one.data_dir / "version-2").glob("replaced-*"))
            assert kept and any(kept[0].glob("log.*"))
            assert one.said(r"WARN.*replaced by the leader's history")
            assert not (one.data_dir / "give-up-history").exists()
    finally:
        ensemble.close()
