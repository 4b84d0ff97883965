"""Joined manifests say what their inputs said, and a lookup follows a manifest to where it was joined."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.content import manifest_file, manifest_join, manifest_writing
from mvcfs.content.manifest_file import ROW, ChunkRef, Manifest
from mvcfs.content.manifest_join import write_joined_manifest
from mvcfs.content.manifest_writing import SpooledFile, write_manifest
from mvcfs.errors import CorruptData
from mvcfs.types import StoredFile
from tests.content.content_tools import MODEL, BytesSource, Rig, noise, open_rig

PACKS = [f"packs/{number:032x}" for number in range(6)]


def make(folder: Path, number: int, files: dict[int, list[int]], packs: list[str]) -> Manifest:
    """A manifest of files: number of its oid to lengths of its chunks."""
    rows, spooled = [], []
    for key, lengths in files.items():
        first, start = len(rows), 0
        for length in lengths:
            pack = (key + length) % len(packs)
            rows.append((bytes([length % 250 + 1, key]) * 16, start, 7 * start, length, pack))
            start += length
        spooled.append(SpooledFile(bytes([key]) * 32, start, ((first, len(lengths)),)))
    spool = folder / f"spool-{number}"
    np.array(rows, dtype=ROW).tofile(spool)
    path = folder / f"{number}.arrow"
    write_manifest(path, spooled, spool, packs)
    return Manifest.load(path, f"manifests/{number}", check=True)


def said(manifest: Manifest) -> dict[bytes, list[ChunkRef]]:
    found = {}
    for oid in manifest.files()[0].astype("V32").tolist():
        chunks = manifest.find(oid)
        assert chunks is not None
        found[oid] = chunks.refs(0, chunks.size_bytes)
    return found


inputs = st.lists(
    st.dictionaries(st.integers(1, 12), st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(inputs, st.integers(2, 7))
def test_a_joined_manifest_says_what_its_inputs_say(files: list[dict[int, list[int]]], run: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for module in (manifest_file, manifest_join, manifest_writing):
            patch.setattr(module, "RUN_CHUNKS", run)
        folder = Path(name)
        made = [make(folder, number, one, PACKS[number : number + 2]) for number, one in enumerate(files)]
        size = write_joined_manifest(folder / "joined", made)
        joined = Manifest.load(folder / "joined", "joined", check=True)
        assert size == (folder / "joined").stat().st_size
        wanted: dict[bytes, list[ChunkRef]] = {}
        for manifest in reversed(made):
            wanted |= said(manifest)
        assert said(joined) == wanted
        assert set(joined.packs) == {chunk.pack for chunks in wanted.values() for chunk in chunks}
        assert all(len(batch.hash) <= run for batch in joined.batches)


async def join_all(rig: Rig) -> StoredFile:
    """What a publisher does, and what the log says then."""
    inputs, rig.manifests = rig.manifests, []
    joined = await rig.content.join_manifests([file.name for file in inputs])
    rig.manifests = [joined]
    rig.content.set_live(rig.manifests, rig.packs)
    for file in inputs:
        del rig.storage.files[f"{MODEL}/{file.name}"]
    return joined


async def test_its_maker_reads_on_without_fetching_it(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        contents = [(await rig.store(noise(3000, seed)))[0] for seed in range(5)]
        joined = await join_all(rig)
        rig.storage.reads.clear()
        for seed, content in enumerate(contents):
            reader = await rig.content.open(content)
            assert await reader.read(0, 3000) == noise(3000, seed)
        assert [path for path, _, _ in rig.storage.reads if "manifests" in path] == []
        local = sorted(path.name for path in (tmp_path / "local" / "manifests").iterdir())
        assert local == [joined.name.rpartition("/")[2]]
        # The index of known chunks needn't learn it, and what was stored before is known.
        upload = rig.content.upload()
        await upload.add(BytesSource(noise(3000, 2)))
        assert upload.stored_bytes == 0
        assert await upload.finish() == ((), ())


async def test_a_reader_follows_a_manifest_that_was_joined(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        contents = [(await rig.store(noise(3000, seed)))[0] for seed in range(4)]
        asked: list[str] = []

        async def reread() -> None:
            asked.append("reread")
            late.set_live(rig.manifests, rig.packs)

        reader, late = rig.another("reader", reread=reread), rig.another("late", reread=reread)
        before = await reader.open(contents[0])
        await join_all(rig)
        for seed, content in enumerate(contents):
            opened = await reader.open(content)
            assert await opened.read(0, 3000) == noise(3000, seed)
        assert asked == []  # it had them all
        assert await before.read(100, 50) == noise(3000, 0)[100:150]

        opened = await late.open(contents[3])
        assert await opened.read(0, 3000) == noise(3000, 3)
        assert asked == ["reread"]
        await late.aclose()
        await reader.aclose()


async def test_one_that_is_gone_and_was_not_joined_is_damage(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        content = (await rig.store(noise(3000)))[0]
        asked = 0

        async def reread() -> None:
            nonlocal asked
            asked += 1

        reader = rig.another("reader", reread=reread)
        del rig.storage.files[f"{MODEL}/{rig.manifests[0].name}"]
        with pytest.raises(CorruptData, match="not in the store"):
            await reader.open(content)
        assert asked == 1
        await reader.aclose()
