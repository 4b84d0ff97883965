"""Checkpoints of the ref log: the state after a record, so that opening a model costs a few reads.

A checkpoint says nothing that the records up to it don't say, but it outlives them: once records below it were trimmed
it is where the log begins, and the arbiter of whether a late record was in time. Pure; any thread.
"""

from __future__ import annotations

from typing import Any

from mvcfs.versions.log.json_fields import Fields, encode, hex_item
from mvcfs.versions.log.records import (
    FORMAT,
    AliasChange,
    TagChange,
    check_format,
    condemned_json,
    expired_json,
    file_reader,
    files_json,
    lease_json,
    object_json,
    parse_condemned,
    parse_expired,
    parse_lease,
    parse_numbered_object,
    ref_change_json,
)
from mvcfs.versions.log.refs import BranchState, RefTable
from mvcfs.versions.log.state import KEPT_TXNS, LogState


def parse_checkpoint(data: bytes, where: str) -> LogState:
    """The state that a checkpoint holds. `where` names the file in messages.

    Raises:
        CorruptData: The bytes are no checkpoint.
        UnsupportedFormat: A newer mvcfs wrote it.
    """
    fields = Fields.parse(data, where)
    check_format(fields, "checkpoint")
    number = fields.integer("number")
    table = RefTable.load(
        fields.items("branches", _parse_branch),
        fields.items("tags", _parse_tag),
        (*fields.items("aliases", _parse_alias), *fields.items("removed_aliases", _parse_removed_alias)),
        where,
    )
    return LogState(
        fields.hexadecimal("model", 32),
        number,
        fields.hexadecimal("record_sha256", 64),
        fields.integer("time_ns"),
        table.refs(
            number,
            fields.items("git", file_reader("git")),
            fields.items("manifests", file_reader("manifests")),
            fields.items("packs", file_reader("packs")),
        ),
        fields.items("condemned", parse_condemned),
        fields.items("expired", parse_expired),
        fields.items("leases", parse_lease),
        fields.items("objects", parse_numbered_object),
        fields.items("txns", hex_item(32))[-KEPT_TXNS:],
    )


def encode_checkpoint(state: LogState) -> bytes:
    """The bytes of a checkpoint; `parse_checkpoint` gives the state back."""
    refs = state.refs
    branches = (*refs.branches.values(), *refs.deleted)
    return encode(
        {
            "format": FORMAT,
            "model": state.model,
            "number": state.number,
            "record_sha256": state.sha256,
            "time_ns": state.time_ns,
            "branches": [_branch_json(branch) for branch in branches],
            "tags": [ref_change_json(TagChange(name, target)) for name, target in refs.tags.items()],
            "aliases": [
                ref_change_json(AliasChange(name, note.target, note.who, note.why, note.log))
                for name, note in refs.alias_notes.items()
            ],
            "removed_aliases": [
                {"alias": name, "log": log} for name, log in refs.alias_logs.items() if name not in refs.aliases
            ],
            "git": files_json(refs.git),
            "manifests": files_json(refs.manifests),
            "packs": files_json(refs.packs),
            "condemned": [condemned_json(entry) for entry in state.condemned],
            "expired": [expired_json(entry) for entry in state.expired],
            "leases": [lease_json(lease) for lease in state.leases],
            "objects": [object_json(entry, numbered=True) for entry in state.inline],
            "txns": list(state.txns),
        }
    )


def _branch_json(branch: BranchState) -> dict[str, Any]:
    value: dict[str, Any] = {"branch": branch.id, "name": branch.name, "tip": branch.tip, "version": branch.version}
    flags = {"deleted": branch.deleted, "protected": branch.protected}
    if branch.work is not None:
        value |= {"work": branch.work, "base": branch.work_base}
    return value | {key: True for key, flag in flags.items() if flag}


def _parse_branch(value: object, where: str) -> BranchState:
    fields = Fields(value, where)
    return BranchState(
        fields.hexadecimal("branch", 32),
        fields.text("name"),
        fields.optional_hexadecimal("tip", 40),
        fields.integer("version"),
        fields.flag("deleted"),
        fields.flag("protected"),
        fields.optional_hexadecimal("work", 40),
        fields.optional_hexadecimal("base", 40),
    )


def _parse_tag(value: object, where: str) -> TagChange:
    fields = Fields(value, where)
    return TagChange(fields.text("tag"), fields.hexadecimal("target", 40))


def _parse_alias(value: object, where: str) -> AliasChange:
    fields = Fields(value, where)
    return AliasChange(
        fields.text("alias"),
        fields.hexadecimal("target", 40),
        fields.text("who", ""),
        fields.text("why", ""),
        fields.optional_hexadecimal("log", 40),
    )


def _parse_removed_alias(value: object, where: str) -> AliasChange:
    fields = Fields(value, where)
    return AliasChange(fields.text("alias"), None, log=fields.hexadecimal("log", 40))
