"""After power loss (another boot): what was fsynced is there, the rest is old or gone, never garbage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.working_tree import overlay
from tests.vfs.test_filesystem_model import ROOT, Driver, opened


async def test_only_what_was_fsynced_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        fs = engine.filesystem()
        driver = Driver(fs)
        main = (await fs.lookup((await fs.mkdir(1, b"m", 0o755, ROOT)).ino, b"main", ROOT)).ino
        files = {}
        for name in (b"versioned", b"synced", b"unsynced"):
            if name == b"synced":
                await engine.commands["commit"]({"mount_path": "m/main", "message": "x"})
            files[name], _ = await fs.create(main, name, 0o644, os.O_RDWR, ROOT)
            await fs.write(files[name].fh, 0, name * 20_000)
        await fs.write(files[b"versioned"].fh, 0, b"not durable")
        await fs.fsync(files[b"synced"].fh, False)
        await fs.write(files[b"synced"].fh, 140_000, b"later")
    monkeypatch.setattr(overlay, "boot_id", lambda: "another boot")
    for _ in range(2):
        async with opened(store, cache) as engine:
            driver = Driver(engine.filesystem())
            names = [name for name, _ in await driver.list(await driver.ino(()))]
            assert sorted(names) == [b"synced", b"versioned"]
            assert await driver.read(await driver.ino((b"versioned",))) == b"versioned" * 20_000
            kept = await driver.read(await driver.ino((b"synced",)))
            assert len(kept) == 120_000
            assert kept == b"synced" * 20_000


async def test_rename_over_syncs_the_new_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that replaces a file by rename finds the old or the new content, never an empty file."""
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        fs = engine.filesystem()
        main = (await fs.lookup((await fs.mkdir(1, b"m", 0o755, ROOT)).ino, b"main", ROOT)).ino
        for name in (b"f", b"f.new"):
            file, _ = await fs.create(main, name, 0o644, os.O_RDWR, ROOT)
            await fs.write(file.fh, 0, name * 1000)
            await fs.release(file.fh)
        await fs.rename(main, b"f.new", main, b"f", 0, ROOT)
    monkeypatch.setattr(overlay, "boot_id", lambda: "another boot")
    async with opened(store, cache) as engine:
        driver = Driver(engine.filesystem())
        assert await driver.read(await driver.ino((b"f",))) == b"f.new" * 1000
