from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.content.budget import Budget


async def test_reserve_waits_until_bytes_come_back() -> None:
    budget = Budget(10)
    await budget.reserve(7)
    order: list[str] = []

    async def take(name: str, n: int) -> None:
        await budget.reserve(n)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "large", 10)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, "small", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        assert not budget.try_reserve(1)
        assert budget.waiting == 2
        budget.release(7)
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["large"]
        budget.release(10)
    assert order == ["large", "small"]
    assert budget.used_bytes == 1


async def test_a_request_over_the_limit_is_served_alone() -> None:
    budget = Budget(10)
    await budget.reserve(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 25)
        await trio.testing.wait_all_tasks_blocked()
        assert budget.used_bytes == 1
        budget.release(1)
    assert budget.used_bytes == 25
    assert not budget.try_reserve(1)
    budget.release(25)
    assert budget.try_reserve(10)


async def test_a_cancelled_wait_takes_nothing_and_lets_the_next_through() -> None:
    budget = Budget(10)
    await budget.reserve(5)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def large() -> None:
            with scope:
                await budget.reserve(9)

        nursery.start_soon(large)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(budget.reserve, 3)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert budget.used_bytes == 8
    assert budget.waiting == 0


async def test_pressure_asks_for_bytes_back() -> None:
    budget = Budget(10)
    cached = 10
    await budget.reserve(cached)
    asked: list[int] = []

    def reclaim(missing: int) -> None:
        asked.append(missing)
        budget.release(missing)

    budget.on_pressure(reclaim)
    await budget.reserve(4)
    assert asked == [4]
    assert budget.used_bytes == 10


async def test_hold_gives_back_after_an_error() -> None:
    budget = Budget(10)

    async def fail() -> None:
        async with budget.hold(6):
            assert budget.used_bytes == 6
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert budget.used_bytes == 0


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Budget(0)
    with pytest.raises(ValueError, match="held"):
        Budget(1).release(1)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3), st.booleans()), max_size=30))
def test_never_over_the_limit_and_everyone_is_served(requests: list[tuple[int, int, bool]]) -> None:
    async def main() -> None:
        budget = Budget(20)
        alone = 0

        async def client(n: int, delay: int, cancelled: bool) -> None:
            nonlocal alone
            with trio.CancelScope() as scope:
                if cancelled:
                    scope.deadline = trio.current_time() + delay
                async with budget.hold(n):
                    alone += n > 20
                    assert budget.used_bytes <= 20 or (alone and budget.used_bytes == n)
                    await trio.sleep(delay)
                    alone -= n > 20

        async with trio.open_nursery() as nursery:
            for n, delay, cancelled in requests:
                nursery.start_soon(client, n, delay, cancelled)
        assert budget.used_bytes == 0
        assert budget.waiting == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
