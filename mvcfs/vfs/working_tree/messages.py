"""What an automatic version says: a line on what changed, the author, and trailers on where it came from.

Of the writing process only its name, its user and the ids that schedulers give its job are kept, never its command line
or other variables. Threading: anywhere; reads `/proc` of another process, which may be gone.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvcfs.types import Author, Caller
from mvcfs.versions.trees.versioned_part import Difference
from mvcfs.vfs.working_tree.freeze import PlannedDir, PlannedFile

JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "POD_NAME", "RAY_JOB_ID", "MLFLOW_RUN_ID")
"""Environment variables of the writing process that name its job; POD_NAME is Kubernetes' usual downward-API name."""
STORED_TRAILER = "Mvcfs-Stored"
_MAX_ENVIRON_BYTES = 1 << 20
_SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote, as far as the writing process shows it."""

    uid: int
    process: str = ""
    jobs: tuple[tuple[str, str], ...] = ()


def look_at_writer(caller: Caller) -> Writer:
    """What the process of a caller shows of itself."""
    if caller.pid <= 0:
        return Writer(caller.uid)
    root = Path("/proc") / str(caller.pid)
    try:
        process = (root / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return Writer(caller.uid)
    return Writer(caller.uid, process, _jobs(root / "environ"))


def _jobs(environ: Path) -> tuple[tuple[str, str], ...]:
    try:
        with environ.open("rb") as file:
            data = file.read(_MAX_ENVIRON_BYTES)
    except OSError:
        return ()
    variables = dict(item.split(b"=", 1) for item in data.split(b"\0") if b"=" in item)
    found = ((name, variables.get(name.encode())) for name in JOB_VARIABLES)
    return tuple((name, value.decode("utf-8", "replace")[:200]) for name, value in found if value)


def user_name(uid: int) -> str:
    """The name of a user number, the number itself where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def author_of(uid: int, host: str) -> Author:
    """The author that stands for a local user."""
    name = user_name(uid)
    return Author(name, f"{name}@{host}")


def trailers(writer: Writer | None, host: str, stored_bytes: int | None = None) -> str:
    """The trailer block of a version's message, without a blank line before it.

    Args:
        writer: The process that wrote last.
        host: This host.
        stored_bytes: What the version's packs and manifests added to the store. It stands here because the log forgets
            which record brought which file.
    """
    lines = [f"Mvcfs-Host: {_line(host)}"]
    if stored_bytes is not None:
        lines.append(f"{STORED_TRAILER}: {stored_bytes}")
    if writer is not None and writer.process:
        lines.append(f"Mvcfs-Process: {_line(writer.process)}")
    if writer is not None:
        lines.extend(f"Mvcfs-Job: {name}={_line(value)}" for name, value in writer.jobs)
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def with_trailers(message: str, block: str) -> str:
    """A message with its trailers as Git reads them."""
    return f"{message.rstrip()}\n\n{block}"


def format_bytes(count: int) -> str:
    """A size as people read it: `12.4 GB`, powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


@dataclass(slots=True)
class _Group:
    files: int = 0
    size_bytes: int = 0


def describe_changes(root: PlannedDir, known: Mapping[bytes, bool]) -> str:
    """The subject of an automatic version: `Add checkpoint-500/ (64 files, 12.4 GB); remove old.bin`.

    Args:
        root: The plan's root.
        known: For each name of the root that the plan has: whether the base has it.
    """
    verbs: dict[str, list[str]] = {"add": [], "change": [], "remove": []}
    for name, entry in sorted(root.entries.items()):
        shown = os.fsdecode(name).encode("utf-8", "replace").decode()
        if entry is None:
            verbs["remove"].append(shown)
            continue
        verb = "change" if known.get(name, False) else "add"
        verbs[verb].append(_describe_entry(shown, entry))
    return _sentence(verbs)


def describe_differences(differences: Sequence[Difference]) -> str:
    """The same for a version of work: from what differs under the root's names."""
    verbs: dict[str, list[str]] = {"add": [], "change": [], "remove": []}
    for one in differences:
        shown = os.fsdecode(one.name).encode("utf-8", "replace").decode()
        if one.verb != "remove":
            shown = _describe(shown, one.files, one.bytes) if one.is_dir else f"{shown} ({format_bytes(one.bytes)})"
        verbs[one.verb].append(shown)
    return _sentence(verbs)


def _sentence(verbs: Mapping[str, list[str]]) -> str:
    parts = [f"{verb} {_some(names)}" for verb, names in verbs.items() if names]
    text = "; ".join(parts) or "change attributes"
    return text[0].upper() + text[1:]


def _describe(shown: str, files: int, size_bytes: int) -> str:
    if not files:
        return f"{shown}/"
    return f"{shown}/ ({files} {'file' if files == 1 else 'files'}, {format_bytes(size_bytes)})"


def _describe_entry(shown: str, entry: PlannedFile | PlannedDir) -> str:
    if isinstance(entry, PlannedFile):
        return f"{shown} ({format_bytes(entry.size_bytes)})"
    group = _Group()
    for file in entry.files():
        group.files += 1
        group.size_bytes += file.size_bytes
    return _describe(shown, group.files, group.size_bytes)


def _some(names: list[str]) -> str:
    if len(names) <= _SHOWN_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN_NAMES])} and {len(names) - _SHOWN_NAMES} more"
