"""A member of an ensemble whose disk changed or lost what was synced: it is not counted on, and repaired from the others."""

import contextlib
import re

import pytest

from ensemble import records, write_many
from rawzk import Raw
from server import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.rookeeper_only("Apache refuses to start")]
SECTOR_BYTES = 512


def lose_a_sector(member, early):
    """Zeros one sector of its newest log, behind so many records."""
    log = member.log_files()[-1]
    at = [at for _, at in records(log)][early]
    sector = at - at % SECTOR_BYTES + SECTOR_BYTES
    with open(log, "r+b") as file:
        file.seek(sector)
        file.write(bytes(SECTOR_BYTES))
    return log


@pytest.mark.parametrize("word", ["???", "??A"])
def test_a_bad_sector_of_one_takes_nothing_that_a_majority_acknowledged(start_ensemble, mix, word):
    """1 is down while 2 and 3 acknowledge; then 2 loses a sector, and 1 and 2 come up. Only 3 has it all."""
    ensemble = start_ensemble(mix(word))
    one, two, three = ensemble
    one.kill()
    ensemble.wait_serving([two, three])
    write_many(three, "/acknowledged", 2000)
    two.kill()
    three.kill()
    damaged = lose_a_sector(two, early=100)
    before = damaged.read_bytes()
    one.spawn()
    two.spawn()
    wait_until(lambda: two.said("cannot read all of its history"), "2 says what it cannot read", 20)
    assert two.said(rf"ERROR.*{damaged.name} is damaged at offset \d+.*18\d\d whole records up to 0x")
    # Without 3 there is nobody to serve, and 2 leaves its files as they are.
    wait_until(lambda: one.said("looking for a leader"), "1 looks for a leader", 20)
    assert one.mode() is None and two.mode() is None
    assert damaged.read_bytes() == before
    three.spawn()
    ensemble.wait_serving()
    tree = ensemble.check_equal(after_faults=word != "???")
    assert sum(path.startswith("/acknowledged/") for path in tree) == 2000
    # What was behind the damage is still there, set aside, and the next start is like any other.
    last_bytes = before.rstrip(bytes(1))[-SECTOR_BYTES:]
    assert any(last_bytes in kept.read_bytes() for kept in two.data_dir.glob("version-2/replaced-*/*"))
    mark = two.log_mark()
    two.restart()
    ensemble.wait_serving()
    assert not two.said("cannot read all of its history", mark)


@pytest.mark.parametrize("damage", ["bit", "zeros"])
def test_damage_in_a_log_that_a_newer_snapshot_covers_is_told_and_no_obstacle(start_server, damage):
    server = start_server()
    folder = server.data_dir / "version-2"
    for begin in range(0, 60, 30):
        with contextlib.closing(Raw(server.port)) as zk:
            zk.handshake()
            for number in range(begin, begin + 30):
                zk.create(f"/{number}", b"x" * 100).ok()
            zk.close_session()
        server.terminate()
        if begin == 0:
            server.start()
    newest = max(folder.glob("snapshot.*"), key=lambda path: int(path.suffix[1:], 16))
    old = folder / "log.1"
    at = [at for _, at in records(old)][10]
    data = bytearray(old.read_bytes())
    if damage == "bit":
        data[at + 100] ^= 1
    else:
        data[at:at + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    old.write_bytes(data)
    mark = server.log_path.stat().st_size
    server.start()
    said = server.log_path.read_text()[mark:]
    told = rf"WARN .*{old} is damaged at offset {at}: .* passed over up to the next log: .*{newest.name} has all up to 0x"
    assert len(re.findall(told, said)) == 1, said
    with contextlib.closing(Raw(server.port)) as zk:
        zk.handshake()
        assert zk.exists("/").stat().numChildren == 61
