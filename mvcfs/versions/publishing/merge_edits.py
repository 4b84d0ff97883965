"""The edits that merge: another line of history into a branch, and a version's changes out of it again.

*Ours* is the branch, *theirs* what is merged into it. Where both changed the same, nothing is decided here: the conflict is told,
and the edit is made once a side was chosen for each.

For threads: reads and writes `GitObjects` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mvcfs.errors import InvalidArgument
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.walks import merge_base
from mvcfs.versions.merging import merge
from mvcfs.versions.merging.merge import MergeConflict, merge_trees
from mvcfs.versions.merging.rename_alignment import Known
from mvcfs.versions.merging.rename_notes import renamed_since
from mvcfs.versions.publishing.edits import Edited, PathConflict, tree_at
from mvcfs.versions.trees.edit import TreeEdit
from mvcfs.versions.trees.renames import base_name, joined, parent_of

OURS, THEIRS, BOTH = "ours", "theirs", "both"

_KINDS = {
    merge.CHANGED_BOTH: "changed",
    merge.ADDED_BOTH: "added",
    merge.DELETED_BY_OURS: "deleted-theirs",
    merge.DELETED_BY_THEIRS: "deleted-ours",
    merge.KINDS_DIFFER: "kinds",
    merge.RENAMED_BOTH: "renamed",
}
"""The branch is what is published, which `merge_trees` calls theirs: its merged tree holds the branch's side of a conflict."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Which side is taken where both changed the same.

    Attributes:
        default: `OURS`, `THEIRS` or `BOTH` for all conflicts, None for none.
        by_path: For single paths.
        label: What names theirs, where both are kept.
    """

    default: str | None = None
    by_path: Mapping[bytes, str] = field(default_factory=dict)
    label: str = "theirs"

    def of(self, conflict: PathConflict) -> str | None:
        """The choice for a conflict."""
        for path in (conflict.path, conflict.theirs_path):
            if path is not None and path in self.by_path:
                return self.by_path[path]
        return self.default


@dataclass(frozen=True, slots=True)
class MergeEdit:
    """A commit and all that led to it is merged into the branch.

    Attributes:
        commit: The commit.
        choices: What is taken where both changed the same.
    """

    commit: str
    choices: Choices

    def apply(self, objects: GitObjects, tip: str | None) -> Edited:
        """See `mvcfs.versions.publishing.edits.Edit.apply`."""
        theirs, _ = tree_at(objects, self.commit)
        assert theirs is not None
        if tip is None:
            return Edited(theirs, self.commit)
        base = merge_base(objects, tip, self.commit)
        tree, time_ns = tree_at(objects, tip)
        assert tree is not None
        if base == self.commit:
            return Edited(tree, is_contained=True)
        known = Known(renamed_since(objects, base, self.commit), renamed_since(objects, base, tip))
        before = tree_at(objects, base)[0]
        return _merged(objects, before, tree, theirs, self.choices, time_ns, self.commit, known)


@dataclass(frozen=True, slots=True)
class RevertEdit:
    """What a version changed is undone, what came after it stays.

    Attributes:
        commit: The version's commit.
        shown: The version, for messages.
        choices: What is taken where it was changed again since: theirs is what was there before the version.
    """

    commit: str
    shown: str
    choices: Choices

    def apply(self, objects: GitObjects, tip: str | None) -> Edited:
        """See `mvcfs.versions.publishing.edits.Edit.apply`."""
        if tip is None or merge_base(objects, tip, self.commit) != self.commit:
            raise InvalidArgument(f"{self.shown} is not in this branch: there is nothing of it to undo")
        parents = objects.read_commit(self.commit).parents
        before = tree_at(objects, parents[0] if parents else None)[0]
        changed, _ = tree_at(objects, self.commit)
        tree, time_ns = tree_at(objects, tip)
        assert tree is not None
        return _merged(objects, changed, tree, before, self.choices, time_ns, None)


def _merged(
    objects: GitObjects,
    base: str | None,
    ours: str,
    theirs: str | None,
    choices: Choices,
    time_ns: int,
    merges: str | None,
    known: Known | None = None,
) -> Edited:
    result = merge_trees(objects, base, theirs, ours, default_mtime_ns=time_ns, known=known)
    edit = TreeEdit(objects, result.tree, default_mtime_ns=time_ns)
    conflicts = [_told(conflict, choices) for conflict in result.conflicts]
    unknown = set(choices.by_path)
    unknown.difference_update(*[(conflict.path, conflict.theirs_path or b"") for conflict in conflicts])
    if unknown:
        shown = ", ".join(path.decode("utf-8", "surrogateescape") for path in sorted(unknown))
        raise InvalidArgument(f"there is no conflict at {shown}: nothing to choose there")
    like = TreeEdit(objects, theirs, default_mtime_ns=time_ns)
    settled = [_settle(edit, conflict, choices.label, like) for conflict in conflicts]
    tree = result.tree if result.tree is not None and not any(settled) else edit.write()
    return Edited(tree, merges, tuple(conflicts))


def _told(conflict: MergeConflict, choices: Choices) -> PathConflict:
    """A conflict as seen from the branch, with its choice."""
    told = PathConflict(
        conflict.path, _KINDS[conflict.kind], conflict.theirs, conflict.ours, theirs_path=conflict.ours_path
    )
    return replace(told, choice=choices.of(told))


def _settle(edit: TreeEdit, conflict: PathConflict, label: str, like: TreeEdit) -> bool:
    """Does what was chosen to a tree that holds our side; whether that was anything."""
    path, theirs = conflict.path, conflict.theirs
    if conflict.choice == THEIRS:
        if conflict.theirs_path is not None:
            edit.move(path, _free(edit, conflict.theirs_path, label), like=like)
        elif theirs is None:
            edit.remove(path)
        else:
            edit.put(path, theirs, like=like)
    elif conflict.choice == BOTH and theirs is not None:
        if conflict.theirs_path is not None:
            path = _free(edit, conflict.theirs_path, label)
        elif conflict.ours is not None:
            path = beside(edit, path, label)
        edit.put(path, theirs, like=like)
    else:
        return False
    return True


def _free(edit: TreeEdit, path: bytes, label: str) -> bytes:
    """A path, or one beside it where there is something else."""
    return beside(edit, path, label) if edit.has(path) else path


def beside(edit: TreeEdit, path: bytes, label: str) -> bytes:
    """A free path for theirs beside ours: `model.safetensors` gives `model.LABEL.safetensors`.

    What follows the last dot of a name stays its end, unless the dot is the first character; of a directory's name the label is
    the end. Where the name is taken, the label gets a number.
    """
    name = base_name(path)
    dot = name.rfind(b".")
    stem, end = (name[:dot], name[dot:]) if dot > 0 and not edit.is_directory(path) else (name, b"")
    mark = label.replace("/", "-").encode("utf-8", "surrogateescape")
    number = 1
    while True:
        more = b"" if number == 1 else b"-%d" % number
        found = joined(parent_of(path), stem + b"." + mark + more + end)
        if not edit.has(found):
            return found
        number += 1
