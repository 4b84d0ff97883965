"""The deadline, retry and fault wrappers, each on its own and together."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from mvcfs.errors import AlreadyExists, NotFound, StorageError, Transient, UnknownOutcome
from mvcfs.storage.config import RetryPolicy
from mvcfs.storage.deadline import DeadlineStorage
from mvcfs.storage.faults import Fault, FaultyStorage
from mvcfs.storage.memory import MemoryStorage, MemoryStore
from mvcfs.storage.retry import RetryingStorage
from mvcfs.storage.wrapper import Call

GONE = Transient("gone")
UNKNOWN = UnknownOutcome("who knows")
POLICY = RetryPolicy(attempts=4, first_pause_s=1, max_pause_s=3, total_s=60)


def faulty(*plan: Fault) -> FaultyStorage:
    return FaultyStorage(MemoryStorage(), plan)


def retrying(storage: FaultyStorage, policy: RetryPolicy = POLICY) -> RetryingStorage:
    return RetryingStorage(storage, policy, rng=random.Random(1))


# -- faults ---------------------------------------------------------------------------------------------------------------


async def test_a_fault_before_the_call_does_nothing() -> None:
    storage = faulty(Fault("write_file", before=GONE))
    with pytest.raises(Transient):
        await storage.write_file("f", b"x")
    with pytest.raises(NotFound):
        await storage.stat("f")


async def test_a_lost_acknowledgement_did_it() -> None:
    storage = faulty(Fault("rename", after=UNKNOWN))
    await storage.write_file("f", b"x")
    with pytest.raises(UnknownOutcome):
        await storage.rename("f", "g")
    assert (await storage.stat("g")).size_bytes == 1


async def test_faults_count_and_match_by_glob() -> None:
    storage = faulty(Fault("sta*", "log/*", skip=1, times=2, before=GONE))
    await storage.mkdir("log")
    await storage.write_file("log/1", b"")
    outcomes = []
    for _ in range(5):
        await storage.stat("log")
        try:
            await storage.stat("log/1")
            outcomes.append(True)
        except Transient:
            outcomes.append(False)
    assert outcomes == [True, False, False, True, True]


async def test_a_rename_matches_by_its_target() -> None:
    storage = faulty(Fault("rename", "log/0*", times=None, before=GONE))
    await storage.mkdir("log")
    await storage.write_file("f", b"")
    with pytest.raises(Transient):
        await storage.rename("f", "log/01")
    await storage.rename("f", "log/1")


async def test_a_hook_sees_the_call() -> None:
    seen: list[str] = []

    async def hook(call: Call) -> None:
        seen.append(str(call))

    storage = faulty(Fault(hook=hook, times=None))
    writer = await storage.create("f")
    await writer.write(b"x")
    await writer.close()
    await storage.rename("f", "g")
    assert seen == ["create f", "writer.write f", "writer.close f", "rename f -> g"]
    assert [call.op for call in storage.calls] == ["create", "writer.write", "writer.close", "rename"]


async def test_a_delay(autojump_clock: trio.testing.MockClock) -> None:
    storage = faulty(Fault("stat", delay_s=7))
    began = trio.current_time()
    await storage.stat("")
    assert trio.current_time() - began == pytest.approx(7)


async def test_a_late_rename_happens_after_its_error() -> None:
    storage = faulty(Fault("rename", late=True, times=2))
    await storage.write_file("f", b"x")
    await storage.write_file("g", b"y")
    for source in ("f", "g"):
        with pytest.raises(UnknownOutcome):
            await storage.rename(source, "h")
    with pytest.raises(NotFound):
        await storage.stat("h")
    first, second = await storage.run_late()
    assert first is None
    assert isinstance(second, AlreadyExists)
    assert await storage.read_file("h", max_bytes=1) == b"x"
    assert await storage.run_late() == []


async def test_a_file_cut_by_a_crash() -> None:
    storage = faulty(Fault("create", "w", truncate_to=5), Fault("write_file", truncate_to=2))
    writer = await storage.create("w")
    await writer.write(b"1234")
    await writer.write(b"5678")
    with pytest.raises(UnknownOutcome):
        await writer.close()
    with pytest.raises(UnknownOutcome):
        await storage.write_file("f", b"1234")
    assert await storage.read_file("w", max_bytes=9) == b"12345"
    assert await storage.read_file("f", max_bytes=9) == b"12"


async def test_a_dead_host_says_so_until_it_is_back() -> None:
    store = MemoryStore(clock=lambda: 42)
    one, other = FaultyStorage(MemoryStorage(store)), MemoryStorage(store)
    one.die()
    with pytest.raises(Transient):
        await one.write_file("f", b"")
    await other.write_file("f", b"x")
    one.revive()
    assert (await one.stat("f")).mtime_ns == 42


# -- deadlines ------------------------------------------------------------------------------------------------------------


async def test_a_hung_call_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    storage = DeadlineStorage(faulty(Fault(hang=True, times=None)), metadata_s=3, data_s=20)
    for run, seconds, error in (
        (lambda: storage.stat("f"), 3, Transient),
        (lambda: storage.list_dir(""), 3, Transient),
        (lambda: storage.create("f"), 3, Transient),
        (lambda: storage.read_range("f", 0, 1), 20, Transient),
        (lambda: storage.read_file("f", max_bytes=1), 3, Transient),
        (lambda: storage.space(), 20, Transient),
        (lambda: storage.rename("f", "g"), 3, UnknownOutcome),
        (lambda: storage.mkdir("d"), 3, UnknownOutcome),
        (lambda: storage.delete("d"), 3, UnknownOutcome),
        (lambda: storage.delete("d", recursive=True), 20, UnknownOutcome),
        (lambda: storage.write_file("f", b""), 20, UnknownOutcome),
    ):
        began = trio.current_time()
        with pytest.raises(error, match=f"within {seconds} s"):
            await run()
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_a_hung_writer_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    storage = DeadlineStorage(faulty(Fault("writer.*", hang=True, times=None)), metadata_s=3, data_s=20)
    writer = await storage.create("f")
    with pytest.raises(Transient):
        await writer.write(b"x")
    with pytest.raises(UnknownOutcome):
        await writer.close()
    await writer.abort()


async def test_a_deadline_holds_inside_a_shield(autojump_clock: trio.testing.MockClock) -> None:
    storage = DeadlineStorage(faulty(Fault(hang=True)), metadata_s=3, data_s=20)
    with trio.CancelScope(shield=True), pytest.raises(Transient):
        await storage.stat("")


async def test_a_cancelled_caller_is_cancelled_not_told_of_a_deadline() -> None:
    storage = DeadlineStorage(faulty(Fault(hang=True)), metadata_s=300, data_s=300)
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.stat("")
    assert scope.cancelled_caught


# -- retries --------------------------------------------------------------------------------------------------------------


async def test_transient_failures_are_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    inner = faulty(Fault("write_file", times=3, before=GONE), Fault("rename", times=3, before=GONE))
    storage = retrying(inner)
    await storage.write_file("f", b"x")
    await storage.rename("f", "g")
    assert (await storage.stat("g")).size_bytes == 1
    assert [call.op for call in inner.calls] == ["write_file"] * 4 + ["rename"] * 4 + ["stat"]


async def test_attempts_are_bounded_and_pauses_grow(autojump_clock: trio.testing.MockClock) -> None:
    inner = faulty(Fault(times=None, before=GONE))
    began = trio.current_time()
    with pytest.raises(Transient):
        await retrying(inner).stat("f")
    assert len(inner.calls) == 4
    assert 3 <= trio.current_time() - began <= 6  # pauses of 1, 2, 3 s, each cut by half at most


async def test_no_attempt_begins_after_the_total_time(autojump_clock: trio.testing.MockClock) -> None:
    inner = faulty(Fault(times=None, delay_s=9, before=GONE))
    with pytest.raises(Transient):
        await retrying(inner, RetryPolicy(attempts=100, total_s=20)).stat("f")
    assert len(inner.calls) == 3


async def test_an_unknown_outcome_is_passed_up_unless_it_only_reads(autojump_clock: trio.testing.MockClock) -> None:
    inner = faulty(Fault(times=1, after=UNKNOWN), Fault("stat", times=2, before=UNKNOWN))
    storage = retrying(inner)
    with pytest.raises(UnknownOutcome):
        await storage.write_file("f", b"x")
    assert len(inner.calls) == 1
    assert (await storage.stat("f")).size_bytes == 1


async def test_a_refusal_is_not_tried_again() -> None:
    inner = faulty()
    with pytest.raises(NotFound):
        await retrying(inner).stat("f")
    assert len(inner.calls) == 1


async def test_a_writer_is_never_tried_again() -> None:
    inner = faulty(Fault("writer.*", times=None, before=GONE))
    writer = await retrying(inner).create("f")
    with pytest.raises(Transient):
        await writer.write(b"x")
    with pytest.raises(Transient):
        await writer.close()
    assert [call.op for call in inner.calls] == ["create", "writer.write", "writer.close"]


async def test_a_policy_without_attempts_is_an_error() -> None:
    with pytest.raises(StorageError, match="no attempt"):
        await retrying(faulty(), RetryPolicy(attempts=0)).stat("")


async def test_a_deadline_that_passed_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    inner = faulty(Fault("stat", hang=True, times=2))
    bounded = RetryingStorage(DeadlineStorage(inner, metadata_s=5, data_s=5), POLICY)
    assert (await bounded.stat("")).is_dir
