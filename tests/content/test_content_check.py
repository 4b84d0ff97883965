"""What fsck sees of large files, and manifests that somebody hostile wrote."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.content.manifest_file import ROW, SCHEMA, Manifest
from mvcfs.content.manifest_writing import SpooledFile, write_manifest
from mvcfs.content.pack_file import TRAILER_BYTES
from mvcfs.errors import CorruptData
from tests.content.content_tools import MODEL, noise, open_rig

PACK = "packs/" + "ab" * 16


async def test_a_sound_store_has_no_problems(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(50_000), noise(20_000, 1))
        await rig.store(noise(50_000) + b"more")
        for manifest in rig.manifests:
            assert await rig.content.check_manifest(manifest.name) == []
        for pack in rig.packs:
            assert await rig.content.check_pack(pack.name, data=True) == []


async def test_damage_is_found_and_names_its_files(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        content, other = await rig.store(noise(10_000), noise(50_000, 1))
        first = rig.packs[0]
        path = f"{MODEL}/{first.name}"
        whole = rig.storage.files[path]
        rig.damage(path, 10)
        assert await rig.content.check_pack(first.name, data=False) == []
        (problem,) = await rig.content.check_pack(first.name, data=True)
        assert problem.name == first.name
        assert "damaged" in problem.text
        assert problem.oids == (content.oid,)

        rig.storage.files[path] = whole[:-1]
        texts = [problem.text for problem in await rig.content.check_pack(first.name, data=False)]
        assert any("bytes, the log says" in text for text in texts)
        assert any("footer" in text for text in texts)

        rig.storage.files[path] = whole
        (ref, *_) = (await rig.content.open(content))._chunks.refs(0, 1)
        rig.damage(path, whole.rindex(ref.hash))
        (problem,) = await rig.content.check_pack(first.name, data=True)
        assert "footer" in problem.text
        assert problem.oids == (content.oid,)

        rig.storage.files[path] = whole
        rig.damage(path, len(whole) - TRAILER_BYTES + 3)
        (problem,) = await rig.content.check_pack(first.name, data=True)
        assert "footer" in problem.text

        del rig.storage.files[path]
        (problem,) = await rig.content.check_pack(first.name, data=True)
        assert "not in the store" in problem.text
        assert set(problem.oids) == {content.oid, other.oid}

        rig.content.set_live(rig.manifests, rig.packs[1:])
        problems = await rig.content.check_manifest(rig.manifests[0].name)
        assert [problem.name for problem in problems] == [rig.manifests[0].name]
        assert first.name in problems[0].text


async def test_a_damaged_manifest_is_a_problem(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(10_000))
        name = rig.manifests[0].name
        rig.storage.files[f"{MODEL}/{name}"] = rig.storage.files[f"{MODEL}/{name}"][:-5] + b"XXXXX"
        other = rig.another("elsewhere")
        (problem,) = await other.check_manifest(name)
        assert problem.name == name
        await other.aclose()


def write_hostile(path: Path, rows: list[tuple[bytes, int, list[dict[str, Any]]]], packs: Any = None) -> None:
    names = json.dumps([PACK] if packs is None else packs)
    schema = SCHEMA.with_metadata({"mvcfs.manifest": "1", "mvcfs.packs": names})
    columns = [[row[i] for row in rows] for i in range(3)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def chunk(start: int, length: int, pack: int = 0, offset: int = 0) -> dict[str, Any]:
    return {"hash": b"h" * 32, "length": length, "pack": pack, "offset": offset, "start": start}


A, B = b"a" * 32, b"b" * 32
HOSTILE = {
    "gap": [(A, 20, [chunk(0, 5), chunk(10, 10)])],
    "overlap": [(A, 15, [chunk(0, 10), chunk(5, 10)])],
    "does not begin at 0": [(A, 20, [chunk(5, 15)])],
    "too short": [(A, 20, [chunk(0, 10)])],
    "too long": [(A, 5, [chunk(0, 10)])],
    "no chunks": [(A, 5, [])],
    "empty chunk": [(A, 5, [chunk(0, 0), chunk(0, 5)])],
    "pack out of range": [(A, 5, [chunk(0, 5, pack=1)])],
    "offset out of range": [(A, 5, [chunk(0, 5, offset=2**64 - 2)])],
    "start out of range": [(A, 5, [chunk(2**64 - 2, 5)])],
    "unsorted": [(B, 5, [chunk(0, 5)]), (A, 5, [chunk(0, 5)])],
    "second run elsewhere": [(A, 10, [chunk(0, 5)]), (A, 10, [chunk(6, 4)])],
    "second run of another size": [(A, 10, [chunk(0, 5)]), (A, 11, [chunk(5, 6)])],
    "same file twice": [(A, 5, [chunk(0, 5)]), (A, 5, [chunk(0, 5)])],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_manifests_are_refused(tmp_path: Path, what: str) -> None:
    write_hostile(tmp_path / "m", HOSTILE[what])
    with pytest.raises(CorruptData, match=r"manifests/x\.arrow"):
        Manifest.load(tmp_path / "m", "manifests/x.arrow", check=True)


@pytest.mark.parametrize("packs", [None, [], ["packs/../../etc"], [1], {"a": 1}, "packs"])
def test_hostile_pack_names_are_refused(tmp_path: Path, packs: Any) -> None:
    good = [(A, 5, [chunk(0, 5)])]
    write_hostile(tmp_path / "m", good, packs)
    if packs is None:
        assert Manifest.load(tmp_path / "m", "m", check=True).find(A) is not None
    else:
        with pytest.raises(CorruptData):
            Manifest.load(tmp_path / "m", "m", check=True)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_manifest_files_are_refused_or_consistent(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m"
        write_hostile(path, [(A, 15, [chunk(0, 5), chunk(5, 10)]), (B, 5, [chunk(0, 5)])])
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(len(raw) - 20, len(raw)))])
        try:
            manifest = Manifest.load(path, "m", check=True)
        except CorruptData:
            return
        for oid in manifest.files()[0].astype("V32").tolist():
            found = manifest.find(oid)
            assert found is not None
            refs = found.refs(0, found.size_bytes)
            assert sum(ref.length for ref in refs) == found.size_bytes


def test_long_files_take_several_rows_and_batches(tmp_path: Path) -> None:
    count = 200_000
    rows = np.zeros(count, dtype=ROW)
    rows["hash"] = np.frombuffer(secrets.token_bytes(32 * count), "S32")
    rows["length"] = np.random.default_rng(0).integers(1, 9, count)
    rows["start"] = np.cumsum(rows["length"], dtype=np.uint64) - rows["length"]
    rows["start"][150_000:] -= rows["start"][150_000]
    rows["offset"] = np.arange(count)
    rows["pack"] = np.where(np.arange(count) % 3 == 0, 0, 2)
    sizes = [int(rows["length"][:150_000].sum()), int(rows["length"][150_000:].sum())]
    files = [
        SpooledFile(B, sizes[0], ((0, 60_000), (60_000, 90_000))),
        SpooledFile(A, sizes[1], ((150_000, 50_000),)),
        SpooledFile(b"c" * 32, 0, ()),
    ]
    spool = tmp_path / "spool"
    spool.write_bytes(rows.tobytes())
    packs = ["packs/" + c * 32 for c in "012"]
    size, used = write_manifest(tmp_path / "m", files, spool, packs)
    assert size == (tmp_path / "m").stat().st_size
    assert used == {packs[0], packs[2]}
    manifest = Manifest.load(tmp_path / "m", "m", check=True)
    assert manifest.files()[0].tolist() == [A, B, b"c" * 32]
    found = manifest.find(B)
    assert found is not None
    assert len(found.refs(0, sizes[0])) == 150_000
    for index in (0, 1, 59_999, 65_535, 65_536, 131_071, 131_072, 149_999):
        start = int(rows["start"][index])
        (ref,) = found.refs(start, start + 1)
        assert ref.hash == rows["hash"][index].ljust(32, b"\0")
        assert (ref.start, ref.offset, ref.length) == (start, index, int(rows["length"][index]))
        assert ref.pack == packs[int(rows["pack"][index])]
    around = found.refs(int(rows["start"][65_530]), int(rows["start"][65_540]))
    assert [ref.offset for ref in around] == list(range(65_530, 65_540))
    assert manifest.find(b"d" * 32) is None
    empty = manifest.find(b"c" * 32)
    assert empty is not None
    assert empty.refs(0, 10) == []
