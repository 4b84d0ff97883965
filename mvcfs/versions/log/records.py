"""Records of the ref log: what they hold, and their bytes.

A record is the unit of publishing: what it says becomes true at once or not at all. This module only knows shapes, in
both directions; whether a record may follow another is `reflog`'s matter, what it does to the refs `refs`'s.
Everything here is immutable and pure, and may be used in any thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from mvcfs.errors import CorruptData, UnsupportedFormat
from mvcfs.types import StoredFile
from mvcfs.versions.git.format import object_id
from mvcfs.versions.log.json_fields import Fields, encode, hex_item, text_item

FORMAT = 1
MAX_RECORD_BYTES = 64 << 20
"""A record or checkpoint longer than this is damaged; a publish keeps far below it."""

_FILE_NAME = re.compile(r"(?:git/[0-9A-Za-z_-]+\.pack|manifests/[0-9A-Za-z_-]+\.arrow|packs/[0-9A-Za-z_-]+)")
_OBJECT_TYPES = ("commit", "tree", "blob", "tag")


@dataclass(frozen=True, slots=True)
class InlineObject:
    """A Git object that travels in a record.

    Attributes:
        kind: `commit`, `tree`, `blob` or `tag`.
        data: Its content, without Git's header.
        number: The record that brought it.
        oid: Its id, computed.
    """

    kind: str
    data: bytes
    number: int
    oid: str


@dataclass(frozen=True, slots=True)
class BranchMove:
    """Makes a branch, moves it, renames it, or shows it again. `protected` None leaves the flag as it is."""

    branch: str
    name: str
    tip: str | None
    version: int
    protected: bool | None = None


@dataclass(frozen=True, slots=True)
class BranchHide:
    """Deletes a branch: it is hidden, its versions stay."""

    branch: str


@dataclass(frozen=True, slots=True)
class BranchDrop:
    """Lets go of a deleted branch for good."""

    branch: str


@dataclass(frozen=True, slots=True)
class WorkMove:
    """Moves a branch's work in progress, or (`work` None) ends it; `base` is the tip that it has taken in."""

    branch: str
    work: str | None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class TagChange:
    """Makes or moves a tag, or removes it (`target` None)."""

    tag: str
    target: str | None


@dataclass(frozen=True, slots=True)
class AliasChange:
    """Makes or moves an alias, or removes it (`target` None). `log` is the commit that keeps this move."""

    alias: str
    target: str | None
    who: str = ""
    why: str = ""
    log: str | None = None


RefChange = BranchMove | BranchHide | BranchDrop | WorkMove | TagChange | AliasChange


@dataclass(frozen=True, slots=True)
class Condemned:
    """A store file that may be deleted after `until_ns`.

    Attributes:
        name: The file.
        until_ns: When, ns since 1970.
        joined: All that it holds is in other live files, so that nobody needs it any more: it may go earlier.
    """

    name: str
    until_ns: int
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """Versions [first, last] of a branch, ends included, that have lost their large-file data."""

    branch: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Somebody's claim, until a time: the right to publish first, or commits that must be kept whole."""

    holder: str
    purpose: str
    until_ns: int
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the ref log. See docs/format.md for each field.

    Attributes:
        packed: Inline objects of records up to this number are in live Git packs from here on; None: nothing new.
    """

    model: str
    number: int
    previous: str | None
    txn: str
    time_ns: int
    host: str
    user: str
    software: str
    kind: str
    refs: tuple[RefChange, ...] = ()
    objects: tuple[InlineObject, ...] = ()
    packed: int | None = None
    git: tuple[StoredFile, ...] = ()
    manifests: tuple[StoredFile, ...] = ()
    packs: tuple[StoredFile, ...] = ()
    drop: tuple[str, ...] = ()
    condemn: tuple[Condemned, ...] = ()
    rescue: tuple[str, ...] = ()
    expire: tuple[Expired, ...] = ()
    lease: Lease | None = None


def inline_object(kind: str, data: bytes, number: int) -> InlineObject:
    """An inline object with its id."""
    return InlineObject(kind, data, number, object_id(kind, data))


def digest(data: bytes) -> str:
    """What the next record's `previous` says of a record with these bytes."""
    return hashlib.sha256(data).hexdigest()


def check_format(fields: Fields, what: str) -> None:
    """Refuses what a newer mvcfs wrote.

    Raises:
        UnsupportedFormat: The format number is greater than ours.
    """
    version = fields.integer("format", minimum=1)
    if version > FORMAT:
        raise UnsupportedFormat(
            f"{fields.where}: this {what} has format {version}, this mvcfs reads up to {FORMAT}: use a newer mvcfs"
        )


def parse_record(data: bytes, where: str) -> Record:
    """A record from its bytes. `where` names the file in messages.

    Raises:
        CorruptData: The bytes are no record.
        UnsupportedFormat: A newer mvcfs wrote it.
    """
    fields = Fields.parse(data, where)
    check_format(fields, "record")
    number = fields.integer("number")
    previous = fields.optional_hexadecimal("previous", 64)
    if (previous is None) != (number == 0):
        raise CorruptData(f"{where}: record {number} {'lacks' if number else 'has'} a 'previous' hash")
    return Record(
        model=fields.hexadecimal("model", 32),
        number=number,
        previous=previous,
        txn=fields.hexadecimal("txn", 32),
        time_ns=fields.integer("time_ns"),
        host=fields.text("host", ""),
        user=fields.text("user", ""),
        software=fields.text("software", ""),
        kind=fields.text("kind", ""),
        refs=fields.items("refs", parse_ref_change),
        objects=fields.items("objects", lambda value, place: _parse_object(value, place, number)),
        packed=fields.integer("packed") if "packed" in fields else None,
        git=fields.items("git", file_reader("git")),
        manifests=fields.items("manifests", file_reader("manifests")),
        packs=fields.items("packs", file_reader("packs")),
        drop=fields.items("drop", _parse_file_name),
        condemn=fields.items("condemn", parse_condemned),
        rescue=fields.items("rescue", _parse_file_name),
        expire=fields.items("expire", parse_expired),
        lease=fields.item("lease", parse_lease),
    )


def encode_record(record: Record) -> bytes:
    """The bytes of a record; `parse_record` gives it back."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "model": record.model,
        "number": record.number,
        "previous": record.previous,
        "txn": record.txn,
        "time_ns": record.time_ns,
        "host": record.host,
        "user": record.user,
        "software": record.software,
        "kind": record.kind,
        "refs": [ref_change_json(change) for change in record.refs],
        "objects": [object_json(entry, numbered=False) for entry in record.objects],
        "packed": record.packed,
        "git": files_json(record.git),
        "manifests": files_json(record.manifests),
        "packs": files_json(record.packs),
        "drop": list(record.drop),
        "condemn": [condemned_json(entry) for entry in record.condemn],
        "rescue": list(record.rescue),
        "expire": [expired_json(entry) for entry in record.expire],
        "lease": None if record.lease is None else lease_json(record.lease),
    }
    return encode({key: entry for key, entry in value.items() if entry is not None and entry != []})


def parse_ref_change(value: object, where: str) -> RefChange:
    """One item of a record's `refs`."""
    fields = Fields(value, where)
    if "branch" in fields:
        branch = fields.hexadecimal("branch", 32)
        if "name" not in fields:
            if fields.flag("dropped"):
                return BranchDrop(branch)
            if fields.flag("deleted"):
                return BranchHide(branch)
            if fields.has_key("work"):
                work = fields.optional_hexadecimal("work", 40)
                return WorkMove(branch, work, fields.optional_hexadecimal("base", 40))
        return BranchMove(
            branch,
            fields.text("name"),
            fields.optional_hexadecimal("tip", 40),
            fields.integer("version"),
            fields.flag("protected") if "protected" in fields else None,
        )
    if "tag" in fields:
        return TagChange(fields.text("tag"), fields.optional_hexadecimal("target", 40))
    if "alias" in fields:
        return AliasChange(
            fields.text("alias"),
            fields.optional_hexadecimal("target", 40),
            fields.text("who", ""),
            fields.text("why", ""),
            fields.optional_hexadecimal("log", 40),
        )
    raise CorruptData(f"{where}: a ref change names a branch, a tag or an alias")


def ref_change_json(change: RefChange) -> dict[str, Any]:
    """A ref change as it stands in a record."""
    match change:
        case BranchMove():
            value: dict[str, Any] = {"branch": change.branch, "name": change.name}
            value |= {"tip": change.tip, "version": change.version}
            return value if change.protected is None else value | {"protected": change.protected}
        case BranchHide():
            return {"branch": change.branch, "deleted": True}
        case BranchDrop():
            return {"branch": change.branch, "dropped": True}
        case WorkMove():
            return {"branch": change.branch, "work": change.work, "base": change.base}
        case TagChange():
            return {"tag": change.tag, "target": change.target}
        case AliasChange():
            value = {"alias": change.alias, "target": change.target, "who": change.who, "why": change.why}
            return value if change.log is None else value | {"log": change.log}


def _parse_object(value: object, where: str, number: int | None = None) -> InlineObject:
    """An inline object; its record's number stands in it where it isn't given (in a checkpoint)."""
    fields = Fields(value, where)
    kind = fields.text("type")
    if kind not in _OBJECT_TYPES:
        raise fields.fail("type", "commit, tree, blob or tag")
    try:
        data = base64.b64decode(fields.text("data").encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptData(f"{where}: 'data' is no base64 ({error})") from error
    return inline_object(kind, data, fields.integer("number") if number is None else number)


def parse_numbered_object(value: object, where: str) -> InlineObject:
    """An inline object as a checkpoint holds it."""
    return _parse_object(value, where)


def object_json(entry: InlineObject, *, numbered: bool) -> dict[str, Any]:
    """An inline object for a record, or (`numbered`) for a checkpoint."""
    value: dict[str, Any] = {"type": entry.kind, "data": base64.b64encode(entry.data).decode("ascii")}
    return value | {"number": entry.number} if numbered else value


def file_reader(directory: str) -> Any:
    """A reader of `[name, size_bytes]` items for `Fields.items`; the names must be in this directory."""

    def read(value: object, where: str) -> StoredFile:
        if not isinstance(value, list) or len(value) != 2:
            raise CorruptData(f"{where}: [name, size] is expected")
        name = _parse_file_name(value[0], where)
        if not name.startswith(directory + "/"):
            raise CorruptData(f"{where}: {name!r} is not in {directory}/")
        return StoredFile(name, Fields({"size": value[1]}, where).integer("size"))

    return read


def _parse_file_name(value: object, where: str) -> str:
    name = text_item(value, where)
    if not _FILE_NAME.fullmatch(name):
        raise CorruptData(f"{where}: {name[:80]!r} is no name of a store file")
    return name


def files_json(files: tuple[StoredFile, ...]) -> list[list[object]]:
    """Store files as records and checkpoints list them."""
    return [[file.name, file.size_bytes] for file in files]


def parse_condemned(value: object, where: str) -> Condemned:
    """An item of `condemn`."""
    fields = Fields(value, where)
    return Condemned(_parse_file_name(fields.text("name"), where), fields.integer("until_ns"), fields.flag("joined"))


def condemned_json(entry: Condemned) -> dict[str, Any]:
    """A condemned file as it stands in a record."""
    value: dict[str, Any] = {"name": entry.name, "until_ns": entry.until_ns}
    return value | {"joined": True} if entry.joined else value


def _parse_pair(value: object, where: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise CorruptData(f"{where}: [first, last] is expected")
    fields = Fields({"first": value[0], "last": value[1]}, where)
    first = fields.integer("first", minimum=1)
    return first, fields.integer("last", minimum=first)


def parse_expired(value: object, where: str) -> Expired:
    """An item of `expire`."""
    fields = Fields(value, where)
    versions = fields.item("versions", _parse_pair)
    if versions is None:
        raise fields.fail("versions", "[first, last]")
    return Expired(fields.hexadecimal("branch", 32), *versions)


def expired_json(entry: Expired) -> dict[str, Any]:
    """Expired versions as they stand in a record."""
    return {"branch": entry.branch, "versions": [entry.first, entry.last]}


def parse_lease(value: object, where: str) -> Lease:
    """A record's `lease`."""
    fields = Fields(value, where)
    commits = fields.items("commits", hex_item(40))
    return Lease(fields.text("holder"), fields.text("purpose"), fields.integer("until_ns"), commits)


def lease_json(lease: Lease) -> dict[str, Any]:
    """A lease as it stands in a record."""
    value = {"holder": lease.holder, "purpose": lease.purpose, "until_ns": lease.until_ns}
    return value | {"commits": list(lease.commits)}
