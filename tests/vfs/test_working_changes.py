"""What `diff` says of a working tree is what it says of the version that is made of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.engine import Engine
from tests.vfs.test_filesystem_model import ROOT, Driver, Model, apply, opened, operations
from tests.vfs.test_review_hosts import two_hosts

Picture = dict[str, Any]


def flat(picture: Any, path: str = "") -> dict[str, Any]:
    """Files by path, and directories that are empty."""
    if picture[0] != "dir" or (path and not picture[2]):
        return {path: len(picture[2] if picture[0] == "file" else picture[1]) if picture[0] != "dir" else "empty"}
    found = {}
    for name, below in picture[2]:
        text = name.decode("utf-8", "surrogateescape")
        found |= flat(below, f"{path}/{text}" if path else text)
    return found


def files(state: dict[str, Any]) -> dict[str, int]:
    """The files of a state; a directory is no longer empty, or is so now, by what is said of files."""
    return {path: size for path, size in state.items() if size not in (None, "empty")}


def effect(report: Picture, before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a report says is there afterwards, by path, given what was there before; and changes of attributes alone."""
    sizes: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for row in report["changes"]:
        if row["change"] == "attributes":
            attributes[row["path"]] = {key: value for key, value in row["attributes"].items() if key == "mode"}
            continue
        if row["old_path"] is not None and row["kind"] == "directory":
            for path, size in before.items():
                if path == row["old_path"] or path.startswith(row["old_path"] + "/"):
                    sizes[path] = None
                    sizes[row["path"] + path[len(row["old_path"]) :]] = size
            continue
        if row["old_path"] is not None:
            sizes.setdefault(row["old_path"], None)
        if row["change"] == "removed":
            sizes.setdefault(row["path"], None)
        else:
            sizes[row["path"]] = "empty" if row["kind"] == "directory" else row["size_bytes"]
    return sizes, {path: modes for path, modes in attributes.items() if modes}


async def diff(engine: Engine, **args: Any) -> Picture:
    return dict(await engine.commands["diff"]({"mount_path": "m/main", **args}))


async def check(engine: Engine, driver: Driver, versions: int) -> int:
    """Compares reports on the working tree with those on the version that is made of it; returns how many versions there are."""
    main = await driver.picture(b"main")
    olds = sorted({min(1, versions), versions} - {0})
    working = {old: await diff(engine, mount_path=f"m/main@{old}", other_path="m/main") for old in olds}
    inverse = {old: await diff(engine, other=f"main@{old}") for old in olds}
    alone = await diff(engine)
    made = await engine.commands["commit"]({"mount_path": "m/main", "message": "x"})
    for old in olds:
        before = flat(await driver.picture(b"main@%d" % old))
        committed = await diff(engine, mount_path=f"m/main@{old}", other=f"main@{made['version']}")
        said, modes = effect(working[old], before)
        assert files(before | said) == files(flat(main))
        really, really_modes = effect(committed, before)
        # A large file that was written has no digest yet: whether it is what it was is known when it is hashed.
        unknown = {row["path"] for row in working[old]["changes"] if row["digest"] is None and row["kind"] == "file"}
        assert {p: s for p, s in said.items() if p not in unknown} == {
            p: s for p, s in really.items() if p not in unknown
        }
        assert {p: m for p, m in modes.items() if p not in unknown} == {
            p: m for p, m in really_modes.items() if p not in unknown
        }
        back, _ = effect(inverse[old], flat(main))
        assert files(flat(main) | back).keys() == files(before).keys()
    if versions:
        assert effect(alone, {}) == effect(working[versions], {})
    assert (await diff(engine))["changes"] == []
    return int(made["version"])


async def play(steps: list[tuple[Any, ...]], folder: Path) -> None:
    store, cache = folder / "store", folder / "cache"
    await Store.init(LocalStorage(store))
    model, versions = Model(), 0
    async with opened(store, cache) as engine:
        driver = Driver(engine.filesystem())
        await driver.fs.mkdir(1, b"m", 0o755, ROOT)
        for step, operation in enumerate([*steps, ("commit",)]):
            if operation[0] == "commit":
                versions = await check(engine, driver, versions)
            elif operation[0] != "kill":
                await apply(driver, model, model.choose(operation), step)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(operations, min_size=5, max_size=50))
def test_a_working_tree_differs_as_the_version_made_of_it_does(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, steps, Path(folder))


async def test_bytes_that_a_written_file_keeps(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (host, _):
        await host.put(b"big", bytes(range(256)) * 16_384)
        await host.put(b"small", b"one\n")
        await host.commit()
        main = await host.driver.ino(())
        big = (await host.fs.lookup(main, b"big", ROOT)).ino
        await host.driver.write(big, 10, b"x")
        await host.put(b"small", b"two\n")
        big_row, small_row = (await diff(host.engine, text=True))["changes"]
        assert (big_row["size_bytes"], big_row["digest"], big_row["shared_bytes"]) == (4 << 20, None, 3 << 20)
        assert small_row["text"] == "--- a/small\n+++ b/small\n@@ -1 +1 @@\n-one\n+two\n"
        await host.driver.write(big, 10, bytes([10]))
        await host.commit()
        assert [row["path"] for row in (await diff(host.engine, other="main@1"))["changes"]] == ["big", "small"]


async def test_ignored_files_and_refusals(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (host, other):
        assert (await diff(host.engine))["changes"] == []
        await host.put(b"a.tmp", b"1")
        assert (await diff(host.engine))["changes"] == []
        await host.put(b"a", b"1")
        (row,) = (await diff(host.engine))["changes"]
        assert (row["change"], row["path"], row["size_bytes"]) == ("added", "a", 1)
        await host.commit()
        with pytest.raises(NotFound, match="gone is in neither"):
            await diff(host.engine, mount_path="m/main/gone")
        with pytest.raises(NotFound, match="version"):
            await diff(host.engine, other="main@7")
        await host.engine.commands["branch_create"]({"mount_path": "m", "name": "exp", "revision": "main"})
        with pytest.raises(InvalidArgument, match="two versions"):
            await diff(host.engine, mount_path="m")
        await host.put(b"a", b"2")
        exp = await host.driver.ino((), b"exp")
        made, _ = await host.fs.create(exp, b"b", 0o644, 2, ROOT)
        await host.fs.release(made.fh)
        with pytest.raises(InvalidArgument, match="both have changes"):
            await diff(host.engine, other_path="m/exp")
        found = await diff(host.engine, mount_path="m/exp", other="main@1")
        assert [(row["change"], row["path"]) for row in found["changes"]] == [("removed", "b")]
        await other.refresh()
        assert (await diff(other.engine, mount_path="m/main@1"))["totals"]["added"] == 1
