"""A leader that breaks off or says nonsense: its learner drops it and is as it was when honest servers come."""

import pytest

from ensemble import write_many
from peers import FalseLeader, Packet, packet, snapshot_pieces, zxid
from rawzk import i32, i64, ustr
from server import wait_until


def half_a_snapshot(packets):
    packets.send(packet(Packet.SNAP, zxid(1000, 5)))
    for piece in snapshot_pieces(500):
        packets.send(piece)
    packets.send(ustr("/cut off")[:6])


def a_snapshot_with_a_wrong_signature(packets):
    packets.send(packet(Packet.SNAP, zxid(1000, 5)))
    for piece in snapshot_pieces(5):
        packets.send(piece)
    packets.send(ustr("/") + ustr("BenWasNot!"))
    packets.until_closed(10)


def a_node_without_a_parent(packets):
    packets.send(packet(Packet.SNAP, zxid(1000, 5)))
    packets.send(b"".join(snapshot_pieces(1)) + ustr("/a/b/c") + i32(-1) + i64(-1) + bytes(60) + ustr("/") + ustr("BenWasHere"))


def a_snapshot_of_billions(packets):
    packets.send(packet(Packet.SNAP, zxid(1000, 5)) + i32(0x7FFFFFFF) + i64(1) + i32(5))


def a_node_of_a_gigabyte(packets):
    packets.send(packet(Packet.SNAP, zxid(1000, 5)) + i32(0) + i32(0) + ustr("") + i32(1 << 30) + bytes(1000))


def history_that_is_no_history(packets):
    packets.send(packet(Packet.DIFF, zxid(1000, 5)) + packet(Packet.PROPOSAL, zxid(1000, 4), b"\x00" * 11))


def silence(packets):
    packets.sock.recv(1)


def a_wrong_first_packet(packets):
    packets.send(packet(Packet.PING))


EVERYWHERE = [half_a_snapshot, a_snapshot_of_billions, a_snapshot_with_a_wrong_signature, history_that_is_no_history]
# What ends the process of Apache's server, or is taken for good by it.
OURS = [a_wrong_first_packet, a_node_of_a_gigabyte, a_node_without_a_parent]


@pytest.fixture
def betrayed(start_ensemble):
    """An ensemble with something in it, of which only server 1 runs, and server 2 is about to be impersonated."""
    ensemble = start_ensemble()
    write_many(ensemble[1], "/kept", 30)
    before = ensemble.check_equal()
    for one in ensemble:
        one.kill()
    ensemble[1].spawn()
    return ensemble, before


def test_the_learner_drops_it_and_loses_nothing(betrayed, kind):
    ensemble, before = betrayed
    victim = ensemble[1]
    for serve in EVERYWHERE + (OURS if kind == "rookeeper" else []):
        false = FalseLeader(victim, 2, ensemble[2].quorum_port, serve)
        try:
            wait_until(lambda: false.served >= 2 or not victim.running() or false.failure, f"it follows: {serve.__name__}", 20)
            assert victim.running(), f"{serve.__name__}\n{victim.log_tail()}"
            assert victim.mode() is None
        finally:
            false.close()
    # The epochs it has accepted are behind it only for a leader that hears of them before it leads.
    ensemble[3].spawn()
    ensemble.wait_serving([victim, ensemble[3]])
    ensemble[2].start()
    after = ensemble.check_equal()
    assert {path: node for path, node in after.items() if path.startswith("/kept")} == {
        path: node for path, node in before.items() if path.startswith("/kept")}
