"""What fsck asks of this layer: are manifests and packs what they say, and do they say the same.

Threading: called on the trio thread; hashing and comparing columns is done in threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio
from blake3 import blake3

from mvcfs.content.config import ContentConfig
from mvcfs.content.manifest_file import Manifest
from mvcfs.content.manifests import ManifestSet
from mvcfs.content.pack_file import TRAILER_BYTES, PackFooter, decode_footer, footer_bytes
from mvcfs.errors import CorruptData, NotFound
from mvcfs.storage.protocol import Storage

Array = np.ndarray[Any, Any]

_MAX_OIDS = 100


@dataclass(frozen=True, slots=True)
class PackProblem:
    """Something wrong with a manifest or pack.

    Attributes:
        name: The file, relative to the model.
        text: What is wrong, for people.
        oids: Large files that it concerns (64 hex digits), at most 100.
    """

    name: str
    text: str
    oids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Referred:
    """A chunk of a pack that manifests refer to, with the files that need it."""

    hash: bytes
    offset: int
    length: int
    oids: tuple[str, ...]


async def check_manifest(manifests: ManifestSet, live_packs: Mapping[str, int], name: str) -> list[PackProblem]:
    """Problems of a live manifest: unreadable, or referring to packs or places that aren't there."""
    try:
        manifest = await manifests.get(name)
    except (CorruptData, NotFound) as error:
        return [PackProblem(name, str(error))]
    return await trio.to_thread.run_sync(_check_places, manifest, dict(live_packs))


async def check_pack(
    storage: Storage,
    model_path: str,
    manifests: ManifestSet,
    live_packs: Mapping[str, int],
    name: str,
    config: ContentConfig,
    *,
    data: bool,
) -> list[PackProblem]:
    """Problems of a live pack: missing, of another length, a footer that disagrees with manifests, damaged chunks."""
    path, expected = f"{model_path}/{name}", live_packs.get(name)
    referred = await _referred(manifests, name)
    everybody = _all_oids(referred)
    try:
        size = (await storage.stat(path)).size_bytes
    except NotFound:
        return [PackProblem(name, "the pack is not in the store", everybody)]
    problems = []
    if expected is None:
        problems.append(PackProblem(name, "the pack is not a live one"))
    elif size != expected:
        problems.append(PackProblem(name, f"the pack has {size} bytes, the log says {expected}", everybody))
    try:
        footer = await _read_footer(storage, path, size)
        problems += await trio.to_thread.run_sync(_check_footer, name, footer, referred)
    except CorruptData as error:
        problems.append(PackProblem(name, str(error)))
    if data:
        problems += await _check_chunks(storage, path, name, referred, size, config.range_bytes)
    return problems


def _check_places(manifest: Manifest, live_packs: Mapping[str, int]) -> list[PackProblem]:
    problems = []
    sizes = np.array([live_packs.get(name, 0) for name in manifest.packs], dtype=np.uint64)
    oids_of: dict[int, set[str]] = {}
    for (_, lengths, packs, offsets), oids in zip(manifest.chunk_columns(), manifest.chunk_oids(), strict=True):
        bad = offsets + lengths.astype(np.uint64) > sizes[packs]
        for number in np.unique(packs[bad]).tolist():
            found = oids_of.setdefault(number, set())
            found.update(_hex(oids[bad & (packs == number)]))
    for number, oids_bad in sorted(oids_of.items()):
        pack = manifest.packs[number]
        what = "which ends before" if pack in live_packs else "which is not a live pack"
        problems.append(PackProblem(manifest.name, f"refers to chunks of {pack}, {what}", _some(oids_bad)))
    return problems


async def _referred(manifests: ManifestSet, pack: str) -> list[_Referred]:
    """What the live manifests that can be read take from a pack, each chunk once, by offset."""
    found: dict[tuple[int, int, bytes], set[str]] = {}
    for name in manifests.live:
        try:
            manifest = await manifests.get(name)
        except (CorruptData, NotFound):
            continue  # check_manifest tells of it
        if pack in manifest.packs:
            part = await trio.to_thread.run_sync(_referred_by, manifest, manifest.packs.index(pack))
            for key, oids in part.items():
                found.setdefault(key, set()).update(oids)
    return [_Referred(hash, offset, length, _some(oids)) for (offset, length, hash), oids in sorted(found.items())]


def _referred_by(manifest: Manifest, number: int) -> dict[tuple[int, int, bytes], set[str]]:
    found: dict[tuple[int, int, bytes], set[str]] = {}
    for (hashes, lengths, packs, offsets), oids in zip(manifest.chunk_columns(), manifest.chunk_oids(), strict=True):
        mine = np.flatnonzero(packs == number)
        raw, names = hashes[mine].tobytes(), _hex(oids[mine])
        places = zip(offsets[mine].tolist(), lengths[mine].tolist(), names, strict=True)
        for index, (offset, length, oid) in enumerate(places):
            found.setdefault((offset, length, raw[32 * index : 32 * index + 32]), set()).add(oid)
    return found


async def _read_footer(storage: Storage, path: str, size: int) -> PackFooter:
    if size < TRAILER_BYTES:
        raise CorruptData("the pack is too short for a footer")
    trailer = await storage.read_range(path, size - TRAILER_BYTES, TRAILER_BYTES)
    length = footer_bytes(trailer, size)
    stream = await storage.read_range(path, size - TRAILER_BYTES - length, length)
    footer = await trio.to_thread.run_sync(decode_footer, stream)
    if len(footer.offsets) and int(footer.offsets[-1]) + int(footer.lengths[-1]) > size - TRAILER_BYTES - length:
        raise CorruptData("the pack's footer lists chunks beyond their end")
    return footer


def _check_footer(name: str, footer: PackFooter, referred: Sequence[_Referred]) -> list[PackProblem]:
    raw = footer.hashes.tobytes()
    listed = {
        (offset, length, raw[32 * index : 32 * index + 32])
        for index, (offset, length) in enumerate(zip(footer.offsets.tolist(), footer.lengths.tolist(), strict=True))
    }
    return [
        PackProblem(name, f"chunk {chunk.hash.hex()} at {chunk.offset} is not in the pack's footer", chunk.oids)
        for chunk in referred
        if (chunk.offset, chunk.length, chunk.hash) not in listed
    ]


async def _check_chunks(
    storage: Storage, path: str, name: str, referred: Sequence[_Referred], size: int, range_bytes: int
) -> list[PackProblem]:
    problems = []
    for group in _ranges(referred, range_bytes):
        begin = group[0].offset
        end = min(size, max(chunk.offset + chunk.length for chunk in group))
        data = b""
        if begin < end:
            try:
                data = await storage.read_range(path, begin, end - begin)
            except (CorruptData, NotFound):
                data = b""  # every chunk of the range then fails its hash
        for chunk in await trio.to_thread.run_sync(_damaged, data, begin, group):
            what = f"chunk {chunk.hash.hex()} at {chunk.offset} is damaged"
            problems.append(PackProblem(name, what, chunk.oids))
    return problems


def _ranges(referred: Sequence[_Referred], range_bytes: int) -> list[list[_Referred]]:
    groups: list[list[_Referred]] = []
    for chunk in referred:
        if groups and chunk.offset + chunk.length - groups[-1][0].offset <= range_bytes:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    return groups


def _damaged(data: bytes, begin: int, chunks: Sequence[_Referred]) -> list[_Referred]:
    view = memoryview(data)
    return [chunk for chunk in chunks if blake3(view[chunk.offset - begin :][: chunk.length]).digest() != chunk.hash]


def _hex(oids: Array) -> list[str]:
    raw = oids.tobytes().hex()
    return [raw[at : at + 64] for at in range(0, len(raw), 64)]


def _all_oids(referred: Sequence[_Referred]) -> tuple[str, ...]:
    return _some({oid for chunk in referred for oid in chunk.oids})


def _some(oids: set[str]) -> tuple[str, ...]:
    return tuple(sorted(oids)[:_MAX_OIDS])
