"""A disk that is full when a row must be written: the change is refused, and later ones go on once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvcfs.errors import LimitExceeded
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from tests.vfs.test_filesystem_model import ROOT, Driver, opened


async def test_changes_go_on_once_there_is_room(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        fs = engine.filesystem()
        main = (await fs.lookup((await fs.mkdir(1, b"m", 0o755, ROOT)).ino, b"main", ROOT)).ino
        await fs.mkdir(main, b"before", 0o755, ROOT)
        assert engine.overlay is not None
        # SQLite's own bound plays the full disk: not a page more than there is now.
        database = engine.overlay._db
        database.execute(f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0]}")
        made = []
        with pytest.raises(LimitExceeded, match="free space"):
            for number in range(1000):
                await fs.mkdir(main, b"%0200d" % number, 0o755, ROOT)
                made.append(b"%0200d" % number)
        with pytest.raises(LimitExceeded):
            await fs.mkdir(main, b"refused", 0o755, ROOT)
        engine.mend_overlay()
        assert engine.overlay.failed is not None
        database.execute("PRAGMA max_page_count=1000000")
        engine.mend_overlay()
        assert engine.overlay.failed is None
        await fs.mkdir(main, b"after", 0o755, ROOT)
    async with opened(store, cache) as engine:
        driver = Driver(engine.filesystem())
        names = {name for name, _ in await driver.list(await driver.ino(()))}
        assert {b"before", b"after", *made} <= names
        assert b"refused" not in names
