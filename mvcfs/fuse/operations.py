"""The thin adapter between pyfuse3 and the file system: converts values, applies the errno table, and nothing else.

What to know of pyfuse3 here:
- Each handler runs in a task of its own. A handler that waits (for the store, for room in the staging folder) holds one
  of `MAX_TASKS` tasks; pyfuse3 reads no further request once all are held, so there are many more of them than a
  busy machine has waiting programs, and waiting without end is the file system's to avoid.
- There is no interrupt: once we have a request, the program behind it can't even be killed before we answer. And while
  a lookup waits, the kernel lets nobody make, remove or look up other names in that directory. So whatever waits in a
  handler waits within a deadline, never without end.
- pyfuse3 copies from EntryAttributes and never writes to what a handler returned, so one object is handed out as long
  as the file system returns the same Attr: building it is what directory listings would spend their time on.
- Without the xattr handlers getxattr answers ENOSYS. The kernel then never asks again, which makes `ls -l` twenty
  times and small writes three times as fast; that is why they are a class of their own.
- `access` isn't there: mounts always have default_permissions, so the kernel checks modes itself.
- "." and ".." are never looked up, since NFS export, which would need inodes that nobody remembers, isn't offered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, RequestContext, XAttrNameT

from mvcfs.errors import NotFound
from mvcfs.fuse.errnos import answers_errno
from mvcfs.fuse.served import ServedFileSystem
from mvcfs.types import Caller
from mvcfs.vfs.attr import Attr, Opened, SetAttr

MAX_TASKS = 200
"""Requests in work at once. An idle task costs some kilobytes; a machine that trains has tens of waiting threads."""

NAME_MAX = 255
"""Longest name in bytes, as on local disks and HDFS. The kernel itself refuses only what is over 1,024."""

BLOCK_BYTES = 128 * 1024
"""st_blksize. Programs size their buffers by it: larger makes small reads by Python fetch what nobody asked for."""

_STAT_UNIT_BYTES = 512
_CACHED_ATTRIBUTES = 100_000


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask)


def _file_info(opened: Opened) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(
        fh=FileHandleT(opened.fh), direct_io=opened.direct_io, keep_cache=opened.keep_cache and not opened.direct_io
    )


def entry_attributes(attr: Attr) -> pyfuse3.EntryAttributes:
    """Returns an Attr as pyfuse3 wants it."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = InodeT(attr.ino)
    entry.entry_timeout = attr.entry_timeout_s
    entry.attr_timeout = attr.attr_timeout_s
    entry.st_mode = ModeT(attr.mode)
    entry.st_nlink = attr.nlink
    entry.st_uid = attr.uid
    entry.st_gid = attr.gid
    entry.st_rdev = attr.rdev
    entry.st_size = attr.size_bytes
    entry.st_blksize = BLOCK_BYTES
    entry.st_blocks = -(-attr.size_bytes // _STAT_UNIT_BYTES)
    entry.st_atime_ns = attr.atime_ns
    entry.st_mtime_ns = attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
    return entry


class MountOperations(pyfuse3.Operations):
    """The requests of a mount, without those of extended attributes.

    Args:
        filesystem: Who answers.
        writeback: Whether the kernel may hold written data back. It then reads on write-only handles and places
            appended data itself, so files are opened for both and without O_APPEND.
    """

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, filesystem: ServedFileSystem, writeback: bool = False) -> None:
        super().__init__()
        self._fs = filesystem
        self._writeback = writeback
        self.enable_writeback_cache = writeback
        self._entries: dict[int, tuple[Attr, pyfuse3.EntryAttributes]] = {}

    def _entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        known = self._entries.get(attr.ino)
        if known is not None and (known[0] is attr or known[0] == attr):
            return known[1]
        if len(self._entries) >= _CACHED_ATTRIBUTES:
            self._entries.clear()
        entry = entry_attributes(attr)
        self._entries[attr.ino] = (attr, entry)
        return entry

    def _flags(self, flags: int) -> int:
        if not self._writeback:
            return flags
        if flags & os.O_ACCMODE == os.O_WRONLY:
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        return flags & ~os.O_APPEND

    # Names

    @answers_errno
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        """Finds a name. The kernel does so before it makes one, so this is where too long a name is refused."""
        if len(name) > NAME_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        return self._entry(await self._fs.lookup(parent_inode, name, _caller(ctx)))

    @answers_errno
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Gives lookups back."""
        for ino, _ in inode_list:
            self._entries.pop(ino, None)
        self._fs.forget(inode_list)

    @answers_errno
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Makes a file, fifo, socket or device."""
        return self._entry(await self._fs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @answers_errno
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Makes a directory."""
        return self._entry(await self._fs.mkdir(parent_inode, name, mode, _caller(ctx)))

    @answers_errno
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Removes a name of a file."""
        await self._fs.unlink(parent_inode, name, _caller(ctx))

    @answers_errno
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Removes an empty directory."""
        await self._fs.rmdir(parent_inode, name, _caller(ctx))

    @answers_errno
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Makes a symbolic link."""
        return self._entry(await self._fs.symlink(parent_inode, name, target, _caller(ctx)))

    @answers_errno
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        """Moves a name, with the flags of renameat2."""
        await self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, _caller(ctx))

    @answers_errno
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Gives a file one more name."""
        return self._entry(await self._fs.link(inode, new_parent_inode, new_name, _caller(ctx)))

    # Attributes

    @answers_errno
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        """Answers stat."""
        return self._entry(await self._fs.getattr(inode))

    @answers_errno
    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Changes mode, owner, times or size."""
        change = SetAttr(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(await self._fs.setattr(inode, change, fh, _caller(ctx)))

    @answers_errno
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Reads a symbolic link."""
        return FileNameT(await self._fs.readlink(inode))

    @answers_errno
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Answers df."""
        stat = await self._fs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = stat.block_bytes
        data.f_blocks = stat.blocks
        data.f_bfree = data.f_bavail = stat.free
        data.f_files = stat.files
        data.f_ffree = data.f_favail = stat.files_free
        data.f_namemax = stat.name_max
        return data

    # Open files

    @answers_errno
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> pyfuse3.FileInfo:
        """Opens a file; O_TRUNC is in the flags, the kernel leaves it to us."""
        return _file_info(await self._fs.open(inode, self._flags(flags), _caller(ctx)))

    @answers_errno
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Makes a file and opens it."""
        opened, attr = await self._fs.create(parent_inode, name, mode, self._flags(flags), _caller(ctx))
        return _file_info(opened), self._entry(attr)

    @answers_errno
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Reads; what comes back may be a view of memory, which pyfuse3 takes like bytes."""
        return await self._fs.read(fh, off, size)  # type: ignore[return-value]

    @answers_errno
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Writes."""
        return await self._fs.write(fh, off, buf)

    @answers_errno
    async def flush(self, fh: FileHandleT) -> None:
        """A close() of one of a handle's descriptors; its error is what close() returns."""
        await self._fs.flush(fh)

    @answers_errno
    async def release(self, fh: FileHandleT) -> None:
        """The last close."""
        await self._fs.release(fh)

    @answers_errno
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Makes a file durable."""
        await self._fs.fsync(fh, datasync)

    # Open directories

    @answers_errno
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Opens a directory."""
        return FileHandleT(await self._fs.opendir(inode, _caller(ctx)))

    @answers_errno
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Lists names with attributes until the reply is full; only what the reply took counts as looked up."""
        for next_id, name, attr in await self._fs.readdir(fh, start_id):
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._entry(attr), next_id):
                break
            if name not in (b".", b".."):
                self._fs.remember(attr.ino)

    @answers_errno
    async def releasedir(self, fh: FileHandleT) -> None:
        """Closes a directory."""
        await self._fs.releasedir(fh)

    @answers_errno
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Makes a directory's names durable."""
        await self._fs.fsyncdir(fh)


class XattrOperations(MountOperations):
    """The requests of a mount that shows and keeps extended attributes."""

    @answers_errno
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        """Sets an attribute; pyfuse3 has asked `getxattr` first where it must be there or mustn't."""
        await self._fs.setxattr(inode, name, value, _caller(ctx))

    @answers_errno
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """Reads an attribute."""
        try:
            return await self._fs.getxattr(inode, name)
        except NotFound:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR) from None

    @answers_errno
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Lists attributes."""
        return [XAttrNameT(name) for name in await self._fs.listxattr(inode)]

    @answers_errno
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Removes an attribute."""
        try:
            await self._fs.removexattr(inode, name, _caller(ctx))
        except NotFound:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR) from None
