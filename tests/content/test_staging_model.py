"""Staged files against a bytearray, with kills at any system call, reloads and power losses."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mvcfs.content import staged_file, staging_files, staging_layer, staging_sync
from mvcfs.content.staging import FrozenFile, StagedFile, Staging
from mvcfs.errors import NotFound

BLOCK = 64
SIZE_MAX = 6 * BLOCK
CHANGING = ("pwrite", "ftruncate", "unlink", "open", "fdatasync", "fsync")


class Killed(BaseException):
    """The daemon is gone."""


class Machine:
    """The os module of a computer that dies before a chosen system call, and remembers what was synced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.durable: dict[str, bytes] = {}
        self.left: int | None = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in CHANGING else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.left is not None:
                if self.left == 0:
                    raise Killed
                self.left -= 1
            result = real(*args, **options)
            if name == "fdatasync":
                path = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
                self.durable[path.name] = path.read_bytes()
            return result

        return call


class BytesBase:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    async def read(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + length]


@dataclass
class Row:
    """What the overlay's database holds of the file."""

    state: str
    base: BytesBase | None


@dataclass
class View:
    frozen: FrozenFile
    content: bytes


@dataclass
class World:
    """A file, what it should hold, and what of it would survive."""

    directory: Path
    base: BytesBase | None
    machine: Machine = field(init=False)
    staging: Staging = field(init=False)
    file: StagedFile = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine(self.directory)
        self.model = bytearray(self.base.data if self.base else b"")
        self.views: list[View] = []
        # What a power loss may leave: contents since the last sync, and rows since the last durable one.
        self.contents = [bytes(self.model)]
        self.ever_synced = self.base is not None
        self.start()
        self.file = self.staging.create(self.base)
        self.row = Row(self.file.state(), self.base)
        self.rows = [self.row]
        self.version = 0

    def start(self) -> None:
        self.staging = Staging(self.directory, limit_bytes=1 << 30, min_free_bytes=0, sync_rows=self.sync_rows)
        self.views.clear()

    async def sync_rows(self) -> None:
        self.rows = [self.row]

    def store(self, *, always: bool = False) -> None:
        if always or self.file.state_version != self.version:
            self.version = self.file.state_version
            self.row = Row(self.file.state(), self.base)
            self.rows.append(self.row)

    def changed(self) -> None:
        self.store()
        self.contents.append(bytes(self.model))

    async def content(self) -> bytes:
        return bytes(await self.file.read(0, self.file.size_bytes + 1))

    def reload(self) -> None:
        self.staging.close()
        self.start()
        self.staging.sweep([self.row.state])
        self.file = self.staging.load(self.row.state, self.row.base, same_boot=True)
        self.base = self.row.base
        self.version = self.file.state_version

    def lose_power(self, dice: random.Random) -> bool:
        """False if nothing is left, as it may be for a file that was never synced."""
        self.staging.close()
        for path in sorted(self.directory.iterdir()):
            _damage(path, self.machine.durable.get(path.name), dice)
        self.machine.durable = {p.name: p.read_bytes() for p in self.directory.iterdir()}
        self.row = dice.choice(self.rows)
        self.start()
        self.staging.sweep([self.row.state])
        self.base = self.row.base
        try:
            self.file = self.staging.load(self.row.state, self.row.base, same_boot=False)
        except NotFound:
            assert not self.ever_synced
            return False
        self.store(always=True)
        self.rows = [self.row]
        return True


def _damage(path: Path, durable: bytes | None, dice: random.Random) -> None:
    """What the disk may hold of a file after a power loss: any mixture of what was synced and what came later."""
    now = path.read_bytes()
    if durable is None:
        if dice.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(bytes(len(now)) if dice.random() < 0.5 else now[: dice.randint(0, len(now))])
        return
    size = dice.choice([len(durable), len(now)])
    blocks = []
    for start in range(0, size, BLOCK):
        source = dice.choice([durable, now])
        length = min(BLOCK, size - start)
        blocks.append(source[start : start + length].ljust(length, b"\0"))
    path.write_bytes(b"".join(blocks))


def assert_mixture(found: bytes, contents: list[bytes]) -> None:
    """Every block of `found` is that of one of `contents`, and its length that of one of them."""
    assert len(found) in {len(content) for content in contents}
    for start in range(0, len(found), BLOCK):
        part = found[start : start + BLOCK]
        candidates = {content[start : start + BLOCK].ljust(BLOCK, b"\0")[: len(part)] for content in contents}
        # Space that a later write opened up, but whose data didn't make it to the disk, reads as zeros.
        assert part in candidates | {bytes(len(part))}, f"block at {start} was never like this"


Op = tuple[str, int, int]


async def apply(world: World, op: Op, fill: int) -> None:
    kind, offset, length = op
    if kind == "write":
        await world.file.write(offset, bytes([fill]) * length)
    elif kind == "truncate":
        await world.file.truncate(offset)
    elif kind == "fsync":
        await world.file.fsync()


def apply_to_model(model: bytearray, op: Op, fill: int) -> None:
    kind, offset, length = op
    if kind == "write":
        model.extend(bytes(max(0, offset + length - len(model))))
        model[offset : offset + length] = bytes([fill]) * length
    elif kind == "truncate":
        del model[offset:]
        model.extend(bytes(offset - len(model)))


offsets = st.one_of(st.integers(0, SIZE_MAX), st.sampled_from([n * BLOCK + d for n in range(6) for d in (0, 1, 63)]))
lengths = st.one_of(st.integers(1, 3 * BLOCK), st.sampled_from([1, BLOCK, 2 * BLOCK]))
changes = st.one_of(
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("truncate"), offsets, st.just(0)),
)


def patched(machine: Machine) -> list[Any]:
    # Names in order, so that an example runs the same way twice.
    numbers = itertools.count()
    return (
        [mock.patch("secrets.token_hex", lambda n: f"{next(numbers):0{2 * n}x}")]
        + [mock.patch.object(module, "_os", machine) for module in (staging_files, staging_layer, staging_sync)]
        + [mock.patch.object(module, "BLOCK_BYTES", BLOCK) for module in (staging_layer, staging_sync, staged_file)]
    )


class StagedFileMachine(RuleBasedStateMachine):
    """All that happens to a staged file, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.patches: list[Any] = []
        self.fill = 0

    def teardown(self) -> None:
        for patch in self.patches:
            patch.stop()
        if hasattr(self, "world"):
            self.world.staging.close()
        shutil.rmtree(self.directory)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return trio.run(function, *args)

    @initialize(base=st.one_of(st.none(), st.integers(0, 5 * BLOCK + 7)))
    def begin(self, base: int | None) -> None:
        data = None if base is None else BytesBase(bytes(i % 251 + 1 for i in range(base)))
        self.world = World(self.directory, data)
        self.patches = patched(self.world.machine)
        for patch in self.patches:
            patch.start()

    def next_fill(self) -> int:
        self.fill = self.fill % 255 + 1
        return self.fill

    @rule(op=changes)
    def change(self, op: Op) -> None:
        fill = self.next_fill()
        self.run(apply, self.world, op, fill)
        apply_to_model(self.world.model, op, fill)
        self.world.changed()

    @rule(ops=st.lists(changes, min_size=2, max_size=6), kept=st.integers(0, 63))
    def commit_in_vain(self, ops: list[Op], kept: int) -> None:
        """Freezes again and again; some views stay, none is settled."""
        world = self.world
        for number, op in enumerate(ops):
            view = View(world.file.freeze(), bytes(world.model))
            self.change(op)
            if kept >> number & 1:
                world.views.append(view)
            else:
                view.frozen.release()

    @rule(op=changes, kill_before=st.integers(0, 12))
    def change_and_die(self, op: Op, kill_before: int) -> None:
        world, fill = self.world, self.next_fill()
        old = bytes(world.model)
        apply_to_model(world.model, op, fill)
        world.machine.left = kill_before
        try:
            self.run(apply, world, op, fill)
        except Killed:
            pass
        else:
            world.changed()
            old = bytes(world.model)
        world.machine.left = None
        world.reload()
        found = self.run(world.content)
        assert_mixture(found, [old, bytes(world.model)])
        if op[0] == "truncate":
            assert found in (old, bytes(world.model))
        world.model[:] = found
        world.contents += [old, found]

    @rule()
    def reload(self) -> None:
        self.world.reload()

    @rule()
    def freeze(self) -> None:
        world = self.world
        world.views.append(View(world.file.freeze(), bytes(world.model)))

    @precondition(lambda self: self.world.views)
    @rule(seed=st.integers(0, 1 << 20))
    def release(self, seed: int) -> None:
        view = random.Random(seed).choice(self.world.views)
        self.world.views.remove(view)
        view.frozen.release()

    @precondition(lambda self: self.world.views)
    @rule(seed=st.integers(0, 1 << 20))
    def settle(self, seed: int) -> None:
        world = self.world
        view = random.Random(seed).choice(world.views)
        base = BytesBase(view.content)
        before = world.file.state_version
        world.file.settle(view.frozen, base)
        if world.file.state_version != before:
            world.base = base
            world.store()
            world.contents.append(view.content)

    @rule()
    def fsync(self) -> None:
        world = self.world
        self.run(apply, world, ("fsync", 0, 0), 0)
        world.store()
        self.run(world.sync_rows)
        world.contents = [bytes(world.model)]
        world.ever_synced = True

    @rule()
    def reap(self) -> None:
        self.run(self.world.staging.reap)

    @rule(seed=st.integers(0, 1 << 20))
    def power_loss(self, seed: int) -> None:
        world = self.world
        if not world.lose_power(random.Random(seed)):
            world.base = None
            world.file = world.staging.create()
            world.store(always=True)
            world.contents = [b""]
        found = self.run(world.content)
        assert_mixture(found, world.contents)
        world.model[:] = found
        world.contents.append(found)

    @invariant()
    def is_as_written(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        assert world.file.size_bytes == len(world.model)
        assert self.run(world.content) == bytes(world.model)
        for view in world.views:
            assert self.run(view.frozen.read, 0, SIZE_MAX * 2) == view.content

    @invariant()
    def is_counted(self) -> None:
        if hasattr(self, "world"):
            assert self.world.staging.used_bytes >= 0


TestStagedFileMachine = StagedFileMachine.TestCase
TestStagedFileMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("base_size", [None, 0, 3 * BLOCK + 9])
@pytest.mark.parametrize(
    "op",
    [
        ("write", 10, 5),
        ("write", BLOCK, BLOCK),
        ("write", 2 * BLOCK + 3, 4 * BLOCK),
        ("write", 3 * BLOCK + 5, 20),
        ("write", 5 * BLOCK, 9),
        ("truncate", 0, 0),
        ("truncate", BLOCK + 3, 0),
        ("truncate", 5 * BLOCK, 0),
        ("fsync", 0, 0),
    ],
)
@pytest.mark.parametrize("prepared", [False, True, "frozen"])
def test_a_kill_before_any_system_call_leaves_the_old_or_the_new(
    tmp_path: Path, base_size: int | None, op: Op, prepared: bool | str
) -> None:
    for kill_before in range(30):
        base = None if base_size is None else BytesBase(b"b" * base_size)
        directory = tmp_path / str(kill_before)
        world = World(directory, base)
        patches = patched(world.machine)
        for patch in patches:
            patch.start()
        try:
            if prepared:
                trio.run(apply, world, ("write", BLOCK + 2, 3), 7)
                apply_to_model(world.model, ("write", BLOCK + 2, 3), 7)
                world.changed()
            if prepared == "frozen":
                world.file.freeze()
            old = bytes(world.model)
            apply_to_model(world.model, op, 9)
            world.machine.left = kill_before
            died = False
            try:
                trio.run(apply, world, op, 9)
            except Killed:
                died = True
            else:
                world.store()
            world.machine.left = None
            world.reload()
            found = trio.run(world.content)
            assert_mixture(found, [old, bytes(world.model)] if died else [bytes(world.model)])
            # Whatever was left behind, the file goes on as any other.
            for later in (("truncate", 5 * BLOCK, 0), ("write", 3 * BLOCK + 30, 2), ("write", 0, 1)):
                model = bytearray(trio.run(world.content))
                trio.run(apply, world, later, 3)
                apply_to_model(model, later, 3)
                assert trio.run(world.content) == model
            world.staging.close()
            if not died:
                return
        finally:
            for patch in patches:
                patch.stop()
    pytest.fail("never got to the end")
