"""Git trees from what a working tree changed: a base tree, and the names that differ from it.

The id of the tree depends on the final entries and attributes only, not on the base or the order of changes: directories that
look the same are the same object, which is what makes merging and reading cheap. Entries that nobody changed are passed on
as they stand, those that plain Git put there included; their bytes are not read.

Threading: reads and writes `GitObjects` only, so a big change may be built in a thread.
"""

from __future__ import annotations

import stat

from mvcfs.types import Attributes, BlobContent, Content, DirChange, FileChange, LargeContent
from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.format import MODE_FILE, RawEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import is_pointer, make_pointer
from mvcfs.versions.names import (
    ATTRS_NAME,
    ESCAPE_PREFIX,
    GITATTRIBUTES,
    GITMODULES,
    ROOT_ROW,
    escape_name,
    is_entry_name,
    is_harmless_gitmodules,
    is_refused,
)
from mvcfs.versions.trees.attr_store import AttrStore
from mvcfs.versions.trees.attributes import SHARD_ABOVE, AttrRow, git_mode
from mvcfs.versions.trees.reader import DEFAULT_MODES, EMPTY_TREE_OID, normal_mode, row_fits

_BLOCK_ATTRIBUTES = Attributes(stat.S_IFREG | 0o644, 0, 0, 0)
"""What the row of a `.gitattributes` says that no reader of the mount sees."""

_TEXT_LIMIT_BYTES = 1 << 20
"""A longer `.gitattributes` or `.gitmodules` isn't looked into, it stands under an escaped name."""


def build_tree(objects: GitObjects, change: DirChange) -> str:
    """Writes the trees of a changed root directory and of all changed directories below.

    Args:
        objects: Where to read the base and write.
        change: The root; its attributes go into the row `.`.

    Returns:
        The id of the root's tree.

    Raises:
        NotFound: An object of the base is missing.
        CorruptData: One is damaged.
        ValueError: A name that no directory can hold, attributes of another kind of file than the change, or bytes that
            git-lfs would read as a pointer (such a file must come as a `LargeContent`).
    """
    # Not recursive: a tree may be deeper than Python's stack.
    order = [change]
    for directory in order:
        order.extend(child for child in directory.changes.values() if isinstance(child, DirChange))
    built: dict[int, str] = {}
    for directory in reversed(order):
        built[id(directory)] = _build(objects, directory, built, root=directory is change)
    return built[id(change)]


def _build(objects: GitObjects, change: DirChange, built: dict[int, str], *, root: bool) -> str:
    if not change.attributes.is_dir:
        raise ValueError("a directory with the attributes of something else")
    if not root and not change.changes and change.base_tree is not None and change.base_tree != EMPTY_TREE_OID:
        return change.base_tree
    directory = _Directory(objects, change.base_tree)
    for name in change.changes:
        directory.remove(name)
    for name, what in change.changes.items():
        if isinstance(what, DirChange):
            directory.put_directory(name, what.attributes, built[id(what)])
        elif what is not None:
            directory.put_file(name, what)
    return directory.finish(change.attributes if root else None)


class _Directory:
    """One directory on its way from its base to its tree."""

    def __init__(self, objects: GitObjects, base_tree: str | None) -> None:
        self._objects = objects
        raw = [] if base_tree is None or base_tree == EMPTY_TREE_OID else objects.read_tree(base_tree)
        self._entries = {
            entry.name: entry._replace(mode=mode) if mode != entry.mode else entry
            for entry in raw
            if (mode := normal_mode(entry.mode)) is not None and is_entry_name(entry.name)
        }
        self._rows = AttrStore(objects, self._entries.pop(ATTRS_NAME, None))
        self._has_escaped = any(name.startswith(ESCAPE_PREFIX) for name in self._entries)
        # .gitattributes: the entry as the base has it, until something changes it or the large files.
        self._file = self._entries.pop(GITATTRIBUTES, None)
        self._file_changed = False
        self._user: bytes | None = None
        self._user_attributes: Attributes | None = None
        self._large: set[bytes] = set()
        if self._file is not None and stat.S_ISREG(self._file.mode):
            self._take_base_file(self._file)
        self._base_large = frozenset(self._large)

    def _take_base_file(self, entry: RawEntry) -> None:
        """Takes the base's `.gitattributes` apart."""
        parts = gitattributes.split(self._objects.read_kind(entry.oid, "blob"))
        row = self._rows.get(GITATTRIBUTES)
        if row is not None and not (row.tree_name is None and row_fits(row, entry)):
            row = None
        self._large.update((parts.large or frozenset()) & self._entries.keys())
        if parts.user or parts.large is None or (row is not None and row.block != "only"):
            self._user = parts.user
            self._user_attributes = None if row is None else row.attributes

    def remove(self, name: bytes) -> None:
        """Takes a true name out of the directory."""
        if not is_entry_name(name):
            raise ValueError(f"no directory entry can be called {name!r}")
        if name == GITATTRIBUTES:
            self._file, self._user, self._user_attributes, self._file_changed = None, None, None, True
        if self._has_escaped:
            self._remove_escaped(name)
        else:
            self._entries.pop(name, None)
            self._large.discard(name)
        self._rows.remove(name)

    def _remove_escaped(self, name: bytes) -> None:
        """As `remove`, where entries may stand for other names than their own."""
        names = [escape_name(name)]
        if not name.startswith(ESCAPE_PREFIX) or not any(
            row.entry_name == name and row.name != name for row in self._rows.all()
        ):
            names.append(name)
        for each in names:
            self._entries.pop(each, None)
            self._large.discard(each)

    def put_directory(self, name: bytes, attributes: Attributes, tree: str) -> None:
        """Puts a finished directory under a free name."""
        self._put(name, AttrRow(name, attributes, None, 0), tree, refused=name in (GITATTRIBUTES, GITMODULES))

    def put_file(self, name: bytes, change: FileChange) -> None:
        """Puts a file or symlink under a free name."""
        attributes, content = change.attributes, change.content
        if isinstance(content, BlobContent) and content.stripped:
            content = gitattributes.split(self._objects.read_kind(content.oid, "blob")).user
        if stat.S_ISLNK(attributes.mode):
            if isinstance(content, LargeContent):
                raise ValueError(f"symlink {name!r} with the content of a large file")
        elif not stat.S_ISREG(attributes.mode):
            raise ValueError(f"{name!r} is neither a file nor a symlink")
        elif name in (GITATTRIBUTES, GITMODULES):
            text = self._text(content)
            if name == GITATTRIBUTES and text is not None and gitattributes.is_composable(text):
                self._user, self._user_attributes = text, attributes
                return
            refused = text is None or name == GITATTRIBUTES or not is_harmless_gitmodules(text)
            self._put_content(name, attributes, content, refused=refused)
            return
        self._put_content(name, attributes, content, refused=name in (GITATTRIBUTES, GITMODULES))

    def _text(self, content: bytes | Content) -> bytes | None:
        """The bytes of a file that Git itself reads; None for one that it can't."""
        if isinstance(content, LargeContent):
            return None
        if isinstance(content, bytes):
            return content
        return self._objects.read_kind(content.oid, "blob") if content.size_bytes <= _TEXT_LIMIT_BYTES else None

    def _put_content(self, name: bytes, attributes: Attributes, content: bytes | Content, *, refused: bool) -> None:
        lfs = None
        if isinstance(content, bytes):
            if not attributes.is_symlink and is_pointer(content):
                raise ValueError(f"{name!r} reads as a Git LFS pointer and must be stored as a large file")
            oid, size = self._objects.write("blob", content), len(content)
        elif isinstance(content, LargeContent):
            oid, size, lfs = self._objects.write("blob", make_pointer(content)), content.size_bytes, content.oid
        else:
            oid, size = content.oid, content.size_bytes
        self._put(name, AttrRow(name, attributes, oid, size, lfs), oid, refused=refused)

    def _put(self, name: bytes, row: AttrRow, oid: str, *, refused: bool) -> None:
        """Puts an entry and its row under its name, or under the escaped one where Git refuses that."""
        tree_name = name
        if refused or is_refused(name):
            tree_name = escape_name(name)
            row = row._replace(tree_name=tree_name)
        self._entries[tree_name] = RawEntry(tree_name, git_mode(row.attributes.mode), oid)
        self._rows.put(row)
        if row.lfs is not None:
            self._large.add(tree_name)

    def finish(self, root_attributes: Attributes | None) -> str:
        """Writes the tree; `root_attributes` only for a root directory."""
        sharded = len(self._entries) > SHARD_ABOVE
        if self._file_changed or self._large != self._base_large:
            self._write_file()
        if root_attributes is None:
            self._rows.remove(ROOT_ROW)
        else:
            self._rows.put(AttrRow(ROOT_ROW, root_attributes, None, 0))
        entries = dict(self._entries)
        if self._file is not None:
            entries[GITATTRIBUTES] = self._file
        attrs = self._rows.write(entries, sharded=sharded, root=root_attributes is not None)
        entries[ATTRS_NAME] = attrs
        return self._objects.write_tree(entries.values())

    def _write_file(self) -> None:
        """Makes `.gitattributes` of the user's part and the block."""
        mode = MODE_FILE
        if self._file is not None:
            mode = self._file.mode
            if not self._can_be_rewritten(self._file):
                self._move_base_file_away(self._file)
                mode = MODE_FILE
        if self._user_attributes is not None:
            mode = git_mode(self._user_attributes.mode)
        row = self._rows.get(GITATTRIBUTES)
        escaped = row is not None and row.tree_name is not None
        if not escaped:
            self._rows.remove(GITATTRIBUTES)
        if self._user is None and not self._large:
            self._file = None
            return
        oid = self._objects.write("blob", gitattributes.compose(self._user or b"", self._large))
        self._file = RawEntry(GITATTRIBUTES, mode, oid)
        if self._user is None:
            if not escaped:
                self._rows.put(AttrRow(GITATTRIBUTES, _BLOCK_ATTRIBUTES, oid, 0, block="only"))
        elif self._user_attributes is not None:
            block = "end" if self._large else None
            self._rows.put(AttrRow(GITATTRIBUTES, self._user_attributes, oid, len(self._user), block=block))

    def _can_be_rewritten(self, entry: RawEntry) -> bool:
        """Whether the base's `.gitattributes` is a file that a block can be put behind."""
        if self._user is None:
            return stat.S_ISREG(entry.mode)
        return gitattributes.is_composable(self._user) and not is_pointer(self._user)

    def _move_base_file_away(self, entry: RawEntry) -> None:
        """Puts a `.gitattributes` that plain Git committed, and that can't take a block, under its escaped name."""
        row = self._rows.get(GITATTRIBUTES)
        tree_name = escape_name(GITATTRIBUTES)
        moved = RawEntry(tree_name, entry.mode, entry.oid)
        if row is None or not row_fits(row, entry):
            is_dir = stat.S_ISDIR(entry.mode)
            size = 0 if is_dir else self._objects.header(entry.oid)[1]
            attributes = Attributes(DEFAULT_MODES.get(entry.mode, entry.mode), 0, 0, 0)
            row = AttrRow(GITATTRIBUTES, attributes, None if is_dir else entry.oid, size)
        self._entries[tree_name] = moved
        self._rows.put(row._replace(tree_name=tree_name, block=None))
        self._user, self._user_attributes = None, None
