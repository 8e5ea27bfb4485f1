"""What released servers of Apache's do wrong: a server of ours among them must neither suffer from it nor repeat it.

Each test sets the trap with real servers. With `--server=apache` it shows that the trap is one.
"""

import contextlib
import shutil

import pytest

from ensemble import write_many
from rawzk import Closed, Err, Op, i32, ustr


@pytest.mark.parametrize("stands", ["before the gap", "at its end"])
@pytest.mark.parametrize("word", ["A??", "?AA", "A?A", "???"])
def test_a_leader_whose_log_has_a_gap(start_ensemble, kind, mix, word, stands):
    """Server 1 is brought over a long absence by a snapshot: what that holds is missing from its log. Then it leads server
    2, whose history ends before or in the gap. Where the log may always be used (`snapshotSizeFactor=0`) Apache's leader
    sends what it finds there: a history with a hole, or one that is cut back to before the hole."""
    ensemble = start_ensemble(mix(word), config={"snapshotSizeFactor": -1})
    gapped, behind, source = ensemble
    write_many(source, "/early", 10)
    behind.kill()
    kept = behind.directory / "kept"
    shutil.copytree(behind.data_dir, kept)
    behind.start()
    write_many(source, "/logged", 10)
    gapped.kill()
    write_many(source, "/gap", 600)
    before = source.monitored()
    gapped.start()
    assert source.monitored()["snap_count"] > before["snap_count"], "server 1 was to get a snapshot"
    behind.kill()
    write_many(source, "/late", 10)
    source.kill()
    gapped.kill()
    if stands == "before the gap":
        behind.wipe()
        kept.rename(behind.data_dir)
    gapped.config["snapshotSizeFactor"] = 0
    gapped.spawn()
    behind.spawn()
    assert ensemble.wait_serving([gapped, behind]) is gapped
    source.start()
    ensemble.wait_serving()
    if kind == "apache":
        with pytest.raises(AssertionError, match="before = "):
            ensemble.check_equal()
    else:
        tree = ensemble.check_equal()
        assert tree["/gap"][1].numChildren == 600


@pytest.mark.rookeeper_only("a check outside a multi ends the service of Apache's ensembles, for good")
@pytest.mark.parametrize("word", ["?AA", "???", "A??"])
def test_a_check_outside_a_multi_goes_nowhere(start_ensemble, kind, mix, word):
    ensemble = start_ensemble(mix(word))
    for one in [one for one in ensemble if one.kind == kind]:
        with contextlib.closing(one.connect()) as zk, contextlib.suppress(Closed):
            assert zk.call(Op.CHECK, ustr("/") + i32(-1)).err != Err.OK
    write_many(ensemble[1], "/still", 3)
    ensemble.leader().restart()
    ensemble.wait_serving()
    write_many(ensemble[1], "/still", 3)
    ensemble.check_equal()
