"""Which directories a plan renames, as far as it shows. Threading: trio thread."""

from __future__ import annotations

from collections import defaultdict

from mvcfs.vfs.working_tree.freeze import Plan, PlannedDir


def renamed_directories(plan: Plan) -> dict[bytes, bytes]:
    """Directories of the base that stand under another path in the plan: new paths by old ones.

    A renamed directory keeps its base tree, so it is told by that also where everything in it is another one now. Where
    several had the same tree (empty ones, mostly) none is told.
    """
    gone: dict[str, list[bytes]] = defaultdict(list)
    came: dict[str, list[bytes]] = defaultdict(list)
    todo: list[tuple[bytes, PlannedDir]] = [(b"", plan.root)]
    while todo:
        prefix, directory = todo.pop()
        base = directory.node.base or {}
        for name, below in directory.entries.items():
            path = prefix + name
            entry = base.get(name)
            if below is None and entry is not None and entry.tree is not None:
                gone[entry.tree].append(path)
            elif isinstance(below, PlannedDir) and not below.is_new:
                todo.append((path + b"/", below))
            elif isinstance(below, PlannedDir) and below.base_tree is not None:
                came[below.base_tree].append(path)
    return {gone[tree][0]: came[tree][0] for tree in gone if len(gone[tree]) == len(came[tree]) == 1}
