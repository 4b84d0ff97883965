from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mvcfs.content import staging_files, staging_layer
from mvcfs.content.staging import BLOCK_BYTES, Staging
from mvcfs.content.staging_state import decode_state
from mvcfs.errors import CorruptData, LimitExceeded, NotFound, Transient

B = BLOCK_BYTES


class BytesBase:
    """A base whose reads can be held up, counted and made to fail."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.reads: list[tuple[int, int]] = []
        self.gate: trio.Event | None = None
        self.error: Exception | None = None

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.data[offset : offset + length]


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "staging", limit_bytes=1 << 30, min_free_bytes=0)


def names(staging: Staging) -> set[str]:
    return set(os.listdir(staging.directory))


async def content(file: Any) -> bytes:
    return bytes(await file.read(0, file.size_bytes + 10))


async def test_a_new_file_is_written_without_leaving_the_task(staging: Staging) -> None:
    file = staging.create()
    coroutine = file.write(0, b"abc")
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert await content(file) == b"abc"
    assert file.size_bytes == 3
    assert staging.directory.stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o777 for p in staging.directory.iterdir()] == [0o600]


async def test_nothing_is_on_disk_before_a_change(staging: Staging) -> None:
    base = BytesBase(b"x" * 100)
    file = staging.create(base)
    assert file.size_bytes == 100
    assert await file.read(90, 20) == b"x" * 10
    assert await file.read(100, 1) == b""
    assert names(staging) == set()
    assert decode_state(file.state()).layers == ()


async def test_a_small_change_of_a_large_file_copies_only_the_block_it_touches(staging: Staging) -> None:
    data = secrets.token_bytes(5 * B + 17)
    base = BytesBase(data)
    file = staging.create(base)
    await file.write(2 * B + 5, b"HELLO")
    assert base.reads == [(2 * B, B)]
    assert await content(file) == data[: 2 * B + 5] + b"HELLO" + data[2 * B + 10 :]
    base.reads.clear()
    await file.write(2 * B + 100, b"again")
    await file.write(3 * B, bytes(B))
    await file.write(5 * B, b"y" * 30)
    assert base.reads == []
    assert staging.used_bytes < 3 * B
    file.close()
    on_disk = sum(p.stat().st_blocks * 512 for p in staging.directory.iterdir())
    assert staging.used_bytes == on_disk


async def test_truncated_bytes_never_come_back(staging: Staging) -> None:
    base = BytesBase(b"x" * (3 * B))
    file = staging.create(base)
    await file.truncate(10)
    await file.truncate(3 * B)
    assert await content(file) == b"x" * 10 + bytes(3 * B - 10)
    await file.write(100, b"y")
    again = staging.load(file.state(), base, same_boot=True)
    assert await content(again) == b"x" * 10 + bytes(90) + b"y" + bytes(3 * B - 101)


async def test_a_write_waiting_for_its_base_lands_wholly_above_a_freeze(staging: Staging) -> None:
    data = b"x" * (2 * B)
    base = BytesBase(data)
    file = staging.create(base)
    await file.write(B, b"a" * B)
    base.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.write, B - 4, b"12345678")
        await trio.testing.wait_all_tasks_blocked()
        assert file.state_version == 1
        frozen = file.freeze()
        base.gate.set()
    assert await frozen.read(0, 2 * B) == b"x" * B + b"a" * B
    assert await content(file) == b"x" * (B - 4) + b"12345678" + b"a" * (B - 4)
    assert not file.unchanged_since(frozen)


async def test_a_read_beside_a_waiting_write_sees_the_old_block_then_the_new(staging: Staging) -> None:
    base = BytesBase(b"x" * B)
    file = staging.create(base)
    await file.truncate(B)
    base.gate = trio.Event()
    seen: list[bytes] = []

    async def read() -> None:
        seen.append(bytes(await file.read(0, B)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.write, 5, b"y")
        nursery.start_soon(file.write, 7, b"z")
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        base.gate.set()
    assert seen == [b"x" * B]
    assert await file.read(0, 10) == b"xxxxxyxzxx"


async def test_a_truncation_beside_a_waiting_write_keeps_what_was_cut_off_away(staging: Staging) -> None:
    base = BytesBase(b"x" * B)
    file = staging.create(base)
    await file.truncate(B - 1)
    base.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.write, 100, b"y")
        await trio.testing.wait_all_tasks_blocked()
        await file.truncate(10)
        base.gate.set()
    assert await content(file) == b"x" * 10 + bytes(90) + b"y"


@pytest.mark.parametrize("error", [CorruptData("bad"), Transient("away")])
async def test_a_failing_base_leaves_the_file_unchanged(staging: Staging, error: Exception) -> None:
    base = BytesBase(b"x" * 100)
    file = staging.create(base)
    base.error = error
    with pytest.raises(type(error)):
        await file.write(50, b"y")
    with pytest.raises(type(error)):
        await file.read(0, 10)
    assert (file.size_bytes, file.state_version, names(staging)) == (100, 0, set())
    base.error = None
    assert await content(file) == b"x" * 100


async def test_a_base_that_gives_too_little_is_corrupt(staging: Staging) -> None:
    base = BytesBase(b"x" * 100)
    file = staging.create(base)
    await file.truncate(99)
    base.data = b"x" * 50
    with pytest.raises(CorruptData):
        await file.write(60, b"y")


async def test_a_frozen_view_outlives_writes_settling_and_removal(staging: Staging) -> None:
    file = staging.create()
    await file.write(0, b"one")
    frozen = file.freeze()
    assert file.unchanged_since(frozen)
    await file.write(1, b"XX")
    await file.truncate(2)
    file.settle(frozen, BytesBase(b"one"))
    state = file.state()
    assert await staging.reap() == 0
    file.destroy()
    await staging.reap()
    assert await frozen.read(0, 10) == b"one"
    assert len(names(staging)) == 1
    assert len(decode_state(state).layers) == 1
    frozen.release()
    frozen.release()
    assert await staging.reap() == 1
    assert names(staging) == set()
    assert staging.used_bytes == 0


async def test_what_was_written_since_stays_over_the_settled_base(staging: Staging) -> None:
    old = BytesBase(b"o" * (3 * B))
    file = staging.create(old)
    await file.write(5, b"first")
    frozen = file.freeze()
    await file.write(2 * B + 5, b"second")
    settled = BytesBase(await frozen.read(0, 3 * B))
    expected = await content(file)
    before = file.state()
    file.settle(frozen, settled)
    frozen.release()
    assert file.state_version == 3
    assert await content(file) == expected
    assert await content(staging.load(before, old, same_boot=True)) == expected
    after = file.state()
    await staging.reap()
    assert await content(staging.load(after, settled, same_boot=True)) == expected
    with pytest.raises(CorruptData, match="missing"):
        staging.load(before, old, same_boot=True)


async def test_files_stay_until_the_new_state_was_asked_for_and_rows_are_durable(tmp_path: Path) -> None:
    steps: list[str] = []

    async def sync_rows() -> None:
        steps.append(f"sync with {len(os.listdir(tmp_path))}")

    staging = Staging(tmp_path, limit_bytes=1 << 20, min_free_bytes=0, sync_rows=sync_rows)
    file = staging.create()
    await file.write(0, b"one")
    frozen = file.freeze()
    file.settle(frozen, BytesBase(b"one"))
    frozen.release()
    assert await staging.reap() == 0
    assert len(names(staging)) == 1
    file.state()
    assert staging.doomed_bytes == 4096
    assert await staging.reap() == 1
    assert steps == ["sync with 1"]
    assert (staging.used_bytes, staging.doomed_bytes) == (0, 0)


async def test_an_older_view_settled_late_changes_nothing(staging: Staging) -> None:
    file = staging.create()
    await file.write(0, b"one")
    first = file.freeze()
    await file.write(0, b"two")
    second = file.freeze()
    file.settle(second, BytesBase(b"two"))
    file.settle(first, BytesBase(b"one"))
    assert await content(file) == b"two"
    with pytest.raises(ValueError, match="stand for"):
        file.settle(second, BytesBase(b"long"))
    second.release()
    with pytest.raises(ValueError, match="released"):
        file.settle(second, BytesBase(b"two"))


async def test_a_released_layer_is_written_again(staging: Staging) -> None:
    file = staging.create()
    await file.write(0, b"one")
    for _ in range(20):
        file.freeze().release()
        await file.write(0, b"two")
    assert file.state_version == 1
    assert len(names(staging)) == 1


async def test_commits_that_fail_again_and_again_do_not_pile_layers_up(staging: Staging) -> None:
    base = BytesBase(secrets.token_bytes(4 * B + 5))
    expected = bytearray(base.data)
    file = staging.create(base)
    for n in range(20):
        offset = (n * 700_001) % (5 * B)
        data = bytes([n]) * (B // 2)
        expected.extend(bytes(max(0, offset + len(data) - len(expected))))
        expected[offset : offset + len(data)] = data
        if n == 9:
            await file.truncate(2 * B + 7)
            del expected[2 * B + 7 :]
            expected.extend(bytes(max(0, offset + len(data) - len(expected))))
            expected[offset : offset + len(data)] = data
        frozen = None
        await file.write(offset, data)
        frozen = file.freeze()
        await file.write(0, b"%d" % n)
        expected[: len(b"%d" % n)] = b"%d" % n
        frozen.release()
        if n % 3 == 0:
            await file.fsync()
        layers = decode_state(file.state()).layers
        assert len(layers) <= 5
        assert await content(file) == expected
        assert await content(staging.load(file.state(), base, same_boot=True)) == expected
    await staging.reap()
    assert len(names(staging)) <= 2 * 5


async def test_reload_in_the_same_boot_and_after_a_power_loss(staging: Staging) -> None:
    file = staging.create()
    never = file.state()
    await file.write(0, b"a" * 10)
    unsynced = file.state()
    with pytest.raises(NotFound):
        staging.load(never, None, same_boot=False)
    with pytest.raises(NotFound):
        staging.load(unsynced, None, same_boot=False)
    assert await content(staging.load(unsynced, None, same_boot=True)) == b"a" * 10
    version = file.state_version
    await file.fsync()
    assert file.state_version == version + 1
    await file.fsync()
    assert file.state_version == version + 1
    await file.write(10, b"b" * 10)
    assert file.state_version == version + 1
    again = staging.load(file.state(), None, same_boot=False)
    assert await content(again) == b"a" * 10
    await again.truncate(20)
    assert await content(again) == b"a" * 10 + bytes(10)


async def test_an_unsynced_layer_falls_back_to_what_is_below(staging: Staging) -> None:
    base = BytesBase(b"x" * (2 * B))
    file = staging.create(base)
    await file.write(5, b"y")
    assert await content(staging.load(file.state(), base, same_boot=False)) == base.data
    await file.fsync()
    synced = b"xxxxxy" + b"x" * (2 * B - 6)
    await file.write(B + 5, b"z")
    frozen = file.freeze()
    await file.write(7, b"w")
    again = staging.load(file.state(), base, same_boot=False)
    assert await content(again) == synced
    again.state()
    assert await staging.reap() == 2
    frozen.release()


async def test_an_empty_file_that_was_synced_is_there_after_a_power_loss(staging: Staging) -> None:
    file = staging.create()
    await file.fsync()
    assert await content(staging.load(file.state(), None, same_boot=False)) == b""


async def test_sweep_removes_what_no_state_names(staging: Staging) -> None:
    kept, gone = staging.create(BytesBase(b"x" * 9)), staging.create(BytesBase(b"x" * 9))
    await kept.write(0, b"y")
    await gone.write(0, b"y")
    (staging.directory / "foreign").write_bytes(b"")
    again = Staging(staging.directory, limit_bytes=1 << 20, min_free_bytes=0)
    assert again.sweep([kept.state()]) == 2
    assert len(names(again)) == 5
    assert await again.reap() == 2
    assert len(names(again)) == 3
    assert await content(again.load(kept.state(), BytesBase(b"x" * 9), same_boot=True)) == b"y" + b"x" * 8
    assert again.used_bytes > 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format":2}', '{"format":1,"synced":true,"layers":[["../x",true,null]]}']
)
def test_a_state_that_is_none_is_refused(staging: Staging, text: str) -> None:
    with pytest.raises(CorruptData):
        staging.load(text, None, same_boot=True)


async def test_a_missing_file_a_short_map_and_a_wrong_base_are_named(staging: Staging) -> None:
    base = BytesBase(b"x" * 100)
    file = staging.create(base)
    await file.write(0, b"y")
    state = file.state()
    name = decode_state(state).layers[0].name
    with pytest.raises(CorruptData, match=name):
        staging.load(state, None, same_boot=True)
    with pytest.raises(CorruptData, match=name):
        staging.load(state, BytesBase(b"x"), same_boot=True)
    os.truncate(staging.directory / f"{name}.map", 3)
    with pytest.raises(CorruptData, match=name):
        staging.load(state, base, same_boot=True)
    file.close()
    os.unlink(staging.directory / name)
    with pytest.raises(CorruptData, match=name):
        staging.load(state, base, same_boot=True)


async def test_a_symlink_in_place_of_a_staging_file_is_not_followed(staging: Staging, tmp_path: Path) -> None:
    file = staging.create()
    await file.write(0, b"y")
    state = file.state()
    file.close()
    name = decode_state(state).layers[0].name
    (staging.directory / name).rename(tmp_path / "elsewhere")
    (staging.directory / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        staging.load(state, None, same_boot=True)


async def test_descriptors_are_bounded(tmp_path: Path) -> None:
    staging = Staging(tmp_path, limit_bytes=1 << 30, min_free_bytes=0)
    files = [staging.create(BytesBase(b"x" * 10)) for _ in range(staging_files.OPEN_FILES_MAX)]
    for n, file in enumerate(files):
        await file.write(0, b"%d" % n)
        assert len(staging.files) <= staging_files.OPEN_FILES_MAX
    for n, file in enumerate(files):
        assert bytes(await file.read(0, 3)).startswith(b"%d" % n)
        assert len(staging.files) <= staging_files.OPEN_FILES_MAX
    opened = len(os.listdir("/proc/self/fd"))
    for file in files:
        file.close()
    assert len(staging.files) == 0
    assert len(os.listdir("/proc/self/fd")) <= opened - staging_files.OPEN_FILES_MAX


async def test_at_the_bound_a_writer_waits_until_something_is_removed(tmp_path: Path) -> None:
    staging = Staging(tmp_path, limit_bytes=64 << 10, min_free_bytes=0)
    pressed: list[int] = []
    staging.on_pressure = lambda: pressed.append(staging.waiting_writers)
    first, second = staging.create(), staging.create()
    await first.write(0, bytes(48 << 10))
    done = trio.Event()

    async def write() -> None:
        await second.write(0, bytes(32 << 10))
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert (staging.waiting_writers, pressed) == (1, [1])
        assert not done.is_set()
        first.destroy()
        with trio.fail_after(10):
            await done.wait()
    assert staging.waiting_writers == 0
    assert staging.used_bytes == 32 << 10


async def test_a_waiting_writer_can_be_interrupted_and_has_changed_nothing(tmp_path: Path) -> None:
    staging = Staging(tmp_path, limit_bytes=64 << 10, min_free_bytes=0)
    staging.can_free = lambda: True
    file = staging.create()
    await file.write(0, bytes(60 << 10))
    with trio.move_on_after(0.05) as scope:
        await file.write(60 << 10, b"x" * 8192)
    assert scope.cancelled_caught
    assert (file.size_bytes, staging.waiting_writers) == (60 << 10, 0)


async def test_where_nothing_can_be_freed_the_bound_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    staging = Staging(tmp_path, limit_bytes=64 << 10, min_free_bytes=0)
    staging.on_pressure = lambda: None
    staging.can_free = lambda: False
    file = staging.create()
    with pytest.raises(LimitExceeded, match=str(tmp_path)):
        await file.write(0, bytes(65 << 10))
    await file.write(0, bytes(64 << 10))
    with pytest.raises(LimitExceeded, match=str(tmp_path)):
        await file.write(64 << 10, b"x")
    assert file.size_bytes == 64 << 10
    await file.truncate(0)
    await file.write(0, b"x")


async def test_free_space_of_the_disk_is_left_to_others(tmp_path: Path) -> None:
    staging = Staging(tmp_path, limit_bytes=1 << 40, min_free_bytes=1 << 60)
    with pytest.raises(LimitExceeded, match="left free"):
        await staging.create().write(0, b"x")


class FullDisk:
    """The os module with a disk that takes a number of bytes in writes."""

    def __init__(self, room: int, error: int) -> None:
        self.room = room
        self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        count = min(self.room, len(data))
        self.room -= count
        return os.pwrite(fd, bytes(data)[:count], offset)


async def test_a_full_disk_is_waited_for_while_something_can_be_freed(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(10, errno.ENOSPC)
    monkeypatch.setattr(staging_layer, "_os", disk)
    chances = [False, True]

    def make_room() -> None:
        disk.room = 1000

    staging.on_pressure = make_room
    staging.can_free = chances.pop
    file = staging.create()
    await file.write(0, b"x" * 100)
    assert await content(file) == b"x" * 100
    disk.room = 0
    with pytest.raises(LimitExceeded, match=str(staging.directory)):
        await file.write(50, b"y" * 100)
    assert await content(file) == b"x" * 100


@pytest.mark.parametrize(("number", "expected"), [(errno.EIO, OSError), (errno.EFBIG, LimitExceeded)])
async def test_other_errors_of_the_disk_are_passed_on(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    disk = FullDisk(3, number)
    monkeypatch.setattr(staging_layer, "_os", disk)
    file = staging.create()
    frozen = file.freeze()
    with pytest.raises(expected):
        await file.write(0, b"12345")
    assert not file.unchanged_since(frozen)
    assert await content(file) == b"123"


async def test_holes_count_as_what_they_take(staging: Staging) -> None:
    file = staging.create()
    await file.truncate(1 << 40)
    await file.write(1 << 39, b"x")
    assert file.size_bytes == 1 << 40
    file.close()
    assert staging.used_bytes < 64 << 10
    frozen = file.freeze()
    await file.write(5, b"y")
    file.settle(frozen, BytesHole(1 << 40))
    frozen.release()
    assert bytes(await file.read(0, 7)) == b"\0\0\0\0\0y\0"


class BytesHole:
    """A large base of zeros."""

    def __init__(self, size: int) -> None:
        self.size_bytes = size

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(length)


async def test_a_write_that_waits_while_its_file_is_removed_leaves_nothing(staging: Staging) -> None:
    base = BytesBase(b"x" * 100)
    base.gate = trio.Event()
    file = staging.create(base)
    errors: list[Exception] = []

    async def write() -> None:
        try:
            await file.write(5, b"y")
        except NotFound as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        file.destroy()
        base.gate.set()
    assert len(errors) == 1
    assert names(staging) == set()
