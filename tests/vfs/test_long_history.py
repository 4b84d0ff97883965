"""A model of many versions of large files, on two mounts: manifests are joined, and every version stays readable."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from mvcfs.vfs.commands.check import check_store
from tests.vfs.test_review_hosts import Host, two_hosts


def large(version: int) -> bytes:
    return random.Random(version).randbytes(70_000)


def count_files(folder: Path) -> Counter[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Counter(path.parent.name for path in files)


async def versions(host: Host, first: int, last: int) -> None:
    for version in range(first, last + 1):
        await host.put(b"p", large(version))
        assert (await host.commit())["version"] == version
        await (await host.engine.model("m")).housekeeping.keep()


async def test_manifests_of_many_versions_are_joined(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (writer, reader):
        await versions(writer, 1, 5)
        await reader.refresh()
        assert await reader.read(b"p") == large(5)
        await versions(writer, 6, 80)
        # The reader knows the manifests of the first versions only; they are gone by now.
        assert await reader.read(b"p", b"main@3") == large(3)
        await reader.refresh()
        for version in (1, 2, 7, 8, 9, 40, 64, 79, 80):
            assert await reader.read(b"p", b"main@%d" % version) == large(version)
        model = await reader.engine.model("m")
        refs = model.data.repository.refs
        assert len(refs.manifests) <= 14
        counts = count_files(tmp_path / "store")
        assert counts["manifests"] <= 14 + 64
        report = await check_store(reader.engine, data=True)
        assert report["problems"] == []
        assert report["counts"]["large_files"] == 80
        assert [note for note in report["notes"] if "manifests/" in note["file"]] == []
        # What is stored already is not stored again, whichever manifest says so.
        packs = counts["packs"]
        await reader.put(b"q", large(2))
        await reader.commit()
        assert count_files(tmp_path / "store")["packs"] == packs
        local = tmp_path / "a" / "stores"
        assert sum(1 for _ in local.rglob("manifests/*.arrow")) <= 14


async def test_a_commit_does_not_wait_for_a_join(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (writer, reader):
        await versions(writer, 1, 7)
        await writer.put(b"p", large(8))
        await writer.commit()
        model = await writer.engine.model("m")
        content = model.data.content
        join = content.join_manifests
        committed: list[object] = []

        async def slow(names: object) -> object:
            await writer.put(b"p", large(9))
            committed.append((await writer.commit())["version"])
            await reader.refresh()
            await reader.put(b"q", large(10))
            committed.append((await reader.commit())["version"])
            return await join(names)  # type: ignore[arg-type]

        content.join_manifests = slow  # type: ignore[method-assign, assignment]
        await model.housekeeping.keep()
        assert committed[:2] == [9, 10]
        assert len(model.data.repository.refs.manifests) <= 3
        await reader.refresh()
        assert await reader.read(b"p", b"main@8") == large(8)
