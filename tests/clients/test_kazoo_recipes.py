"""The recipes people use ZooKeeper for, as kazoo writes them, with several clients at once."""

import contextlib
import datetime
import queue
import threading
from urllib.parse import quote

import pytest
from kazoo.exceptions import KazooException
from kazoo.recipe.cache import TreeCache
from kazoo.recipe.lease import NonBlockingLease
from kazoo.recipe.party import Party, ShallowParty
from kazoo.recipe.watchers import PatientChildrenWatch

from server import wait_until

DEADLINE_S = 20


def in_threads(*jobs):
    """Runs the jobs side by side and raises what one of them raised."""
    errors = queue.Queue()

    def guarded(job):
        try:
            job()
        except BaseException as error:  # noqa: BLE001, handed to the test's own thread
            errors.put(error)
    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a client is stuck"
    if not errors.empty():
        raise errors.get()


def test_a_lock_is_held_by_one_at_a_time_and_handed_on(kazoo, root):
    inside, most, turns = [], [], []

    def contender(name):
        client = kazoo()
        for _ in range(5):
            with client.Lock(root + "/lock", name):
                inside.append(name)
                most.append(len(inside))
                turns.append(name)
                client.get_children(root)
                inside.remove(name)
    in_threads(*[lambda name=f"c{number}": contender(name) for number in range(4)])
    assert max(most) == 1 and len(turns) == 20


def test_a_lock_is_free_again_when_its_holder_dies(kazoo, server, root):
    holder, waiter = kazoo(timeout=1.0), kazoo()
    assert holder.Lock(root + "/lock", "holder").acquire(timeout=5)
    lock = waiter.Lock(root + "/lock", "waiter")
    assert not lock.acquire(blocking=False)
    got = threading.Event()
    thread = threading.Thread(target=lambda: lock.acquire() and got.set(), daemon=True)
    thread.start()
    wait_until(lambda: len(lock.contenders()) == 2, "both stand in the queue")
    holder.stop()
    assert got.wait(DEADLINE_S)


def test_contenders_are_listed_in_order(kazoo, root):
    first, second = kazoo(), kazoo()
    lock = first.Lock(root + "/lock", "first")
    lock.acquire()
    other = second.Lock(root + "/lock", "second")
    thread = threading.Thread(target=other.acquire, daemon=True)
    thread.start()
    wait_until(lambda: other.contenders() == ["first", "second"], "the second contender appears")
    lock.release()
    thread.join(DEADLINE_S)
    assert other.is_acquired


def test_readers_share_and_a_writer_is_alone(kazoo, root):
    one, two, three = kazoo(), kazoo(), kazoo()
    readers = [one.ReadLock(root + "/rw", "r1"), two.ReadLock(root + "/rw", "r2")]
    for reader in readers:
        assert reader.acquire(timeout=5)
    writer = three.WriteLock(root + "/rw", "w")
    assert not writer.acquire(blocking=False)
    got = threading.Event()
    threading.Thread(target=lambda: writer.acquire() and got.set(), daemon=True).start()
    wait_until(lambda: len(one.get_children(root + "/rw")) == 3, "the writer stands in the queue")
    for reader in readers:
        assert not got.is_set()
        reader.release()
    assert got.wait(DEADLINE_S)
    assert not one.ReadLock(root + "/rw", "r3").acquire(blocking=False)
    writer.release()


def test_a_semaphore_has_as_many_leases_as_it_says(kazoo, root):
    clients = [kazoo() for _ in range(3)]
    semaphores = [client.Semaphore(root + "/sem", f"c{n}", max_leases=2) for n, client in enumerate(clients)]
    assert semaphores[0].acquire(timeout=5) and semaphores[1].acquire(timeout=5)
    assert not semaphores[2].acquire(blocking=False)
    semaphores[0].release()
    assert semaphores[2].acquire(timeout=5)


def test_an_election_has_one_leader_after_the_other(kazoo, root):
    leaders, at_once = [], []

    def candidate(name):
        client = kazoo()

        def lead():
            at_once.append(name)
            leaders.append((name, len(at_once)))
            client.sync(root)
            at_once.remove(name)
        client.Election(root + "/election", name).run(lead)
    in_threads(*[lambda name=f"c{number}": candidate(name) for number in range(4)])
    assert sorted(name for name, _ in leaders) == ["c0", "c1", "c2", "c3"]
    assert {together for _, together in leaders} == {1}


def test_the_next_candidate_leads_when_the_leader_dies(kazoo, root):
    leader, heir = kazoo(timeout=1.0), kazoo()
    leading, inherited = threading.Event(), threading.Event()
    forever = threading.Event()

    def lead():
        with contextlib.suppress(KazooException):  # its client is stopped while it leads
            leader.Election(root + "/e", "leader").run(lambda: (leading.set(), forever.wait(DEADLINE_S)))
    threading.Thread(daemon=True, target=lead).start()
    assert leading.wait(DEADLINE_S)
    threading.Thread(daemon=True, target=lambda: heir.Election(root + "/e", "heir").run(inherited.set)).start()
    wait_until(lambda: heir.Election(root + "/e").contenders() == ["leader", "heir"], "the heir is in line")
    leader.stop()
    assert inherited.wait(DEADLINE_S)
    forever.set()


def test_a_queue_is_first_in_first_out_and_gives_each_entry_once(kazoo, root):
    producer = kazoo()
    entries = producer.Queue(root + "/queue")
    for number in range(50):
        entries.put(b"%d" % number)
    assert len(entries) == 50
    taken = []

    def consume():
        mine = kazoo().Queue(root + "/queue")
        while (entry := mine.get()) is not None:
            taken.append(int(entry))
    in_threads(consume, consume)
    assert sorted(taken) == list(range(50))


def test_queue_entries_with_priority_come_first(kazoo, root):
    entries = kazoo().Queue(root + "/queue")
    entries.put(b"late", priority=200)
    entries.put(b"soon", priority=100)
    entries.put(b"now", priority=1)
    assert [entries.get() for _ in range(4)] == [b"now", b"soon", b"late", None]


def test_a_locking_queue_waits_for_entries_and_returns_those_of_the_dead(kazoo, root):
    producer, consumer, dying = kazoo(), kazoo(), kazoo(timeout=1.0)
    got = queue.Queue()
    waiting = consumer.LockingQueue(root + "/q")
    thread = threading.Thread(daemon=True, target=lambda: got.put(waiting.get(DEADLINE_S)))
    thread.start()
    entries = producer.LockingQueue(root + "/q")
    entries.put(b"first")
    assert got.get(timeout=DEADLINE_S) == b"first"
    assert waiting.consume()
    entries.put_all([b"second"])
    assert dying.LockingQueue(root + "/q").get(5) == b"second"
    dying.stop()
    again = consumer.LockingQueue(root + "/q")
    assert again.get(DEADLINE_S) == b"second"
    assert again.consume()
    assert len(entries) == 0


def test_a_barrier_holds_everyone_until_it_is_removed(kazoo, root):
    owner = kazoo()
    barrier = owner.Barrier(root + "/barrier")
    barrier.create()
    assert not barrier.wait(0.1)
    passed = []
    thread = threading.Thread(daemon=True, target=lambda: passed.append(kazoo().Barrier(root + "/barrier").wait(20)))
    thread.start()
    barrier.remove()
    thread.join(DEADLINE_S)
    assert passed == [True]


def test_a_double_barrier_lets_all_in_and_all_out_together(kazoo, root):
    entered, left = [], []

    def member(name):
        barrier = kazoo().DoubleBarrier(root + "/double", 3, name)
        barrier.enter()
        entered.append(name)
        barrier.leave()
        assert len(entered) == 3
        left.append(name)
    in_threads(*[lambda name=f"m{number}": member(name) for number in range(3)])
    assert len(left) == 3


@pytest.mark.parametrize("recipe", [Party, ShallowParty])
def test_a_party_knows_its_members(kazoo, root, recipe):
    clients = [kazoo(timeout=1.0) for _ in range(3)]
    parties = [recipe(client, root + "/party", f"p{number}") for number, client in enumerate(clients)]
    for party in parties:
        party.join()
    assert sorted(parties[0]) == ["p0", "p1", "p2"] and len(parties[0]) == 3
    parties[1].leave()
    clients[2].stop()
    wait_until(lambda: list(parties[0]) == ["p0"], "those who left are gone")


def test_a_counter_counts_every_increment_of_every_client(kazoo, root):
    def count():
        counter = kazoo().Counter(root + "/counter")
        for _ in range(10):
            counter += 1
        for _ in range(5):
            counter -= 1
    in_threads(count, count, count)
    assert kazoo().Counter(root + "/counter").value == 15


def test_a_lease_is_refused_while_another_holds_it(kazoo, root):
    hour = datetime.timedelta(hours=1)
    assert NonBlockingLease(kazoo(), root + "/lease", hour, identifier="a")
    assert not NonBlockingLease(kazoo(), root + "/lease", hour, identifier="b")


def test_a_partitioner_divides_a_set_between_its_members(kazoo, root):
    first, second = kazoo(), kazoo()
    parts = [client.SetPartitioner(root + "/set", set=range(6), identifier=name, time_boundary=0.2)
             for client, name in ((first, "a"), (second, "b"))]

    def both_acquired():
        for part in parts:
            if part.release:
                part.release_set()
            elif part.allocating:
                part.wait_for_acquire(0.05)
        return all(part.acquired and len(list(part)) == 3 for part in parts)
    wait_until(both_acquired, "both members have their half")
    assert sorted([*parts[0], *parts[1]]) == list(range(6))


# -- watchers

def test_a_data_watch_follows_a_node_through_its_life(kazoo, root):
    seen = queue.Queue()
    client, writer = kazoo(), kazoo()

    @client.DataWatch(root + "/config")
    def changed(data, stat):
        seen.put((data, stat.version if stat else None))
    assert seen.get(timeout=DEADLINE_S) == (None, None)
    writer.create(root + "/config", b"v0")
    assert seen.get(timeout=DEADLINE_S) == (b"v0", 0)
    for number in range(1, 6):
        writer.set(root + "/config", b"v%d" % number)
        assert seen.get(timeout=DEADLINE_S) == (b"v%d" % number, number)
    writer.delete(root + "/config")
    assert seen.get(timeout=DEADLINE_S) == (None, None)


def recorder(history):
    def record(data, stat):
        history.append(int(data))
    return record


def test_a_config_watch_ends_with_the_last_value_whatever_it_skipped(kazoo, root):
    """A hundred writes in a row: watchers may skip values, but never go back and always end at the last one."""
    writer = kazoo()
    writer.create(root + "/config", b"0")
    histories = [[] for _ in range(4)]
    for history in histories:
        kazoo().DataWatch(root + "/config", recorder(history))
    for number in range(1, 101):
        writer.set(root + "/config", b"%d" % number)
    wait_until(lambda: all(history[-1:] == [100] for history in histories), "every watcher sees the last value")
    assert all(history == sorted(history) for history in histories)


def test_a_children_watch_follows_the_members(kazoo, root):
    seen = queue.Queue()
    kazoo().ChildrenWatch(root, lambda names: seen.put(sorted(names)))
    assert seen.get(timeout=DEADLINE_S) == []
    member = kazoo()
    member.create(root + "/a", ephemeral=True)
    assert seen.get(timeout=DEADLINE_S) == ["a"]
    member.create(root + "/b", ephemeral=True)
    assert seen.get(timeout=DEADLINE_S) == ["a", "b"]
    member.stop()
    wait_until(lambda: seen.get(timeout=DEADLINE_S) == [], "the ephemerals of a stopped member are gone")


def test_a_patient_children_watch_waits_for_quiet(kazoo, root):
    client = kazoo()
    for name in ("a", "b"):
        client.create(f"{root}/{name}")
    names, event = PatientChildrenWatch(client, root, time_boundary=0.2).start().get(timeout=DEADLINE_S)
    assert sorted(names) == ["a", "b"]
    client.create(root + "/c")
    event.get(timeout=DEADLINE_S)


def test_a_tree_cache_mirrors_the_tree(kazoo, root):
    client, writer = kazoo(), kazoo()
    cache = TreeCache(client, root)
    cache.start()
    writer.create(root + "/a/b/c", b"deep", makepath=True)
    wait_until(lambda: (found := cache.get_data(root + "/a/b/c")) and found.data == b"deep", "the cache sees the node")
    writer.set(root + "/a/b/c", b"new")
    wait_until(lambda: cache.get_data(root + "/a/b/c").data == b"new", "the cache sees the change")
    writer.delete(root + "/a", recursive=True)
    wait_until(lambda: cache.get_data(root + "/a") is None, "the cache sees the deletion")
    cache.close()


def test_service_discovery_as_dubbo_does_it(kazoo, root):
    """Providers register url-encoded ephemerals; consumers watch the list and see members come and go."""
    base = root + "/dubbo/com.acme.Service"
    consumer, seen = kazoo(), queue.Queue()
    consumer.ensure_path(base + "/providers")
    consumer.create(base + "/consumers/" + quote("consumer://10.0.0.9/com.acme.Service?side=consumer", safe=""),
                    ephemeral=True, makepath=True)
    consumer.ChildrenWatch(base + "/providers", lambda names: seen.put(set(names)))
    assert seen.get(timeout=DEADLINE_S) == set()
    urls = [quote(f"dubbo://10.0.0.{n}:20880/com.acme.Service?application=shop&dubbo=2.0.2&methods=a,b&pid={n}"
                  f"&timestamp=1700000000{n}", safe="") for n in range(3)]
    providers = [kazoo(timeout=1.0) for _ in urls]
    for provider, url in zip(providers, urls, strict=True):
        provider.create(f"{base}/providers/{url}", b"", ephemeral=True)

    def last():
        found = None
        while not seen.empty():
            found = seen.get()
        return found
    wait_until(lambda: last() == set(urls), "the consumer sees all providers")
    providers[0].stop()
    wait_until(lambda: last() == set(urls[1:]), "the provider that stopped is gone")
    providers[1].delete(f"{base}/providers/{urls[1]}")
    wait_until(lambda: last() == {urls[2]}, "the provider that unregistered is gone")
