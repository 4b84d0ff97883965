"""A model as a plain bare Git repository: its packs, the objects that only the log holds, and its refs.

Real Git reads, checks and clones the result; large files are LFS pointers in it. For a thread.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pygit2

from mvcfs.errors import NotEmpty
from mvcfs.versions.log_state import LogState
from mvcfs.versions.objects import GitObjects
from mvcfs.versions.refs import Refs, new_id


def export_repository(objects: GitObjects, state: LogState, directory: Path) -> None:
    """Writes the repository into a directory that is new or empty.

    Raises:
        NotEmpty: There is something in it.
        OSError: It can't be written.
    """
    if directory.exists() and any(directory.iterdir()):
        raise NotEmpty(f"{directory} is not empty")
    pygit2.init_repository(str(directory), bare=True, initial_head="main")
    pack_dir = directory / "objects" / "pack"
    for path in objects.pack_dir.iterdir():
        if path.suffix in (".pack", ".idx"):
            shutil.copyfile(path, pack_dir / path.name)
    inline = {entry.oid for entry in state.inline}
    if inline:
        objects.write_pack(inline, pack_dir, f"pack-{new_id()}")
    lines = [f"{oid} {name}\n" for name, oid in sorted(_ref_names(state.refs).items())]
    (directory / "packed-refs").write_text("".join(lines), encoding="utf-8")


def _ref_names(refs: Refs) -> dict[str, str]:
    """Git's full name of every ref, and what it holds."""
    names = {f"refs/heads/{branch.name}": branch.tip for branch in refs.branches.values()}
    names |= {f"refs/mvcfs/deleted/{branch.id}": branch.tip for branch in refs.deleted}
    names |= {f"refs/tags/{name}": target for name, target in refs.tags.items()}
    names |= {f"refs/mvcfs/aliases/{name}": target for name, target in refs.aliases.items()}
    return {name: oid for name, oid in names.items() if oid is not None}
