"""Putting an overlay's changes back into a working tree when a store is mounted again.

After a hard kill all rows count. After power loss (another boot id) the rows count as far as SQLite's log reached the disk, and
the bytes of files as far as they were fsynced: a file that was never made durable falls back to what the version has
under its name, or is gone. Threading: trio thread, before the mount answers.
"""

from __future__ import annotations

import logging

from mvcfs.errors import NotFound
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.overlay import NodeRow, Overlay
from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)


def replay(tree: WorkingTree, overlay: Overlay, root_ino: int) -> int:
    """Rebuilds the changed nodes of a branch.

    Args:
        tree: The working tree at the base commit that the overlay names.
        overlay: The overlay.
        root_ino: Inode number of the branch's root in the overlay.

    Returns:
        How many files were given up after power loss.
    """
    rows = {row.ino: row for row in overlay.nodes(tree.branch_id)}
    if root_ino not in rows:
        overlay.drop_branch(tree.branch_id)
        return 0
    nodes: dict[int, Node] = {}
    lost: set[int] = set()
    for ino, row in rows.items():
        node = Node.from_row(tree, row)
        if not _attach_data(tree, node, row, overlay.boot):
            lost.add(ino)
            continue
        nodes[ino] = node
    with overlay.transaction():
        _attach_names(tree, overlay, nodes, lost)
        nodes[root_ino].parents = []
        _drop_nameless(tree, overlay, nodes, root_ino)
        overlay.drop_nodes(lost)
        for ino, node in nodes.items():
            # Recovered staging files are written from now on: their rows speak of this boot.
            if rows[ino].boot != overlay.boot:
                overlay.put_node(node.row(overlay.boot))
    tree.root = nodes[root_ino]
    if lost:
        log.warning(
            "%s/%s: %d files that no fsync made durable were lost with this machine's power",
            tree.model.name, tree.branch_name, len(lost),
        )  # fmt: skip
    return len(lost)


def _attach_data(tree: WorkingTree, node: Node, row: NodeRow, boot: str) -> bool:
    if row.staged is None:
        return True
    base = tree.model.source(row.content) if row.content is not None else None
    try:
        node.staged = tree.staging.load(row.staged, base, same_boot=row.boot == boot)
    except NotFound:
        # Nothing of it is durable: the version's content stands, where there is one.
        return row.content is not None
    return True


def _attach_names(tree: WorkingTree, overlay: Overlay, nodes: dict[int, Node], lost: set[int]) -> None:
    for parent_ino, name, ino in overlay.entries(tree.branch_id):
        parent = nodes.get(parent_ino)
        if parent is None:
            overlay.drop_entry(parent_ino, name)
            continue
        if ino is None:
            parent.delta[name] = None
            continue
        node = nodes.get(ino)
        if node is None:
            overlay.drop_entry(parent_ino, name)
            continue
        parent.delta[name] = node
        node.parents.append((parent, name))
        if node.link is not None:
            tree.links[node.link] = node


def _drop_nameless(tree: WorkingTree, overlay: Overlay, nodes: dict[int, Node], root_ino: int) -> None:
    for ino, node in list(nodes.items()):
        if ino == root_ino or node.parents:
            if not node.is_directory and node.nlink != len(node.parents) and node.link is None:
                node.nlink = 1
            continue
        if node.staged is not None:
            node.staged.destroy()
        overlay.drop_nodes([ino])
        del nodes[ino]
