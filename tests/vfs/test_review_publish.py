"""A publish whose caller is cut off: what the log names stays in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from mvcfs.errors import Transient, UnknownOutcome
from mvcfs.storage.faults import Fault, FaultyStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.wrapper import Call
from mvcfs.versions.log import publish
from mvcfs.versions.store import Store
from tests.vfs.test_filesystem_model import ROOT, Driver, opened

COMMIT = {"mount_path": "m/main", "message": "x"}
DATA = bytes(range(256)) * 1000


async def whole(store: Path, cache: Path) -> None:
    """A mount elsewhere reads the file, and the store is complete."""
    async with opened(store, cache) as engine:
        driver = Driver(engine.filesystem())
        assert await driver.read(await driver.ino((b"f",))) == DATA
        assert not (await engine.commands["fsck"]({"data": True}))["problems"]


@pytest.mark.parametrize("how", ["cancelled", "unknown"])
async def test_files_of_a_published_version_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    faulty = FaultyStorage(LocalStorage(store))
    scope = trio.CancelScope()
    monkeypatch.setattr(publish, "_LOOK_AGAIN_S", ())

    async def cut(_call: Call) -> None:
        if how == "cancelled":
            scope.cancel()
        else:
            faulty.add(Fault(op="*", before=Transient("away"), times=None))

    async with opened(store, cache, faulty) as engine:
        driver = Driver(engine.filesystem())
        await driver.fs.mkdir(1, b"m", 0o755, ROOT)
        file, _ = await driver.fs.create(await driver.ino(()), b"f", 0o644, 2, ROOT)
        await driver.fs.write(file.fh, 0, DATA)
        await driver.fs.release(file.fh)
        after = UnknownOutcome("no answer") if how == "unknown" else None
        faulty.add(Fault(op="rename", path="*/log/*", hook=cut, after=after))
        if how == "cancelled":
            with scope:
                await engine.commands["commit"](COMMIT)
            assert scope.cancelled_caught
        else:
            with pytest.raises(UnknownOutcome):
                await engine.commands["commit"](COMMIT)
        faulty.clear()
        await whole(store, tmp_path / "elsewhere")
        await engine.commands["commit"](COMMIT)
        assert await driver.read(await driver.ino((b"f",))) == DATA
    await whole(store, cache)
