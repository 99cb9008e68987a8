"""A file system in memory: what is in it, and the answers to the kernel's requests.

The protocol is fuse(4) and linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import errno
import stat
import struct
import time
from collections.abc import Callable

HEADER = struct.Struct("<IIQQIIII")
"""Length, opcode, unique number, node, uid, gid, pid, padding."""
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_SETATTR = struct.Struct("<II6Q8I")
_STATX_BASIC, _STATX_BTIME = 0x7FF, 0x800
_MASK = (1 << 64) - 1
_NOW_SENT = {1 << 7: "atime_ns", 1 << 8: "mtime_ns"}
"""FATTR_ATIME_NOW and FATTR_MTIME_NOW."""
_ROOT = 1
_BLOCK = 512
_NAME_MAX = 255
_LARGEST = 1 << 28
"""Bytes in a file: there are no holes here."""
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
INIT = 26
NO_ANSWER = frozenset({2, 36, 42})
"""FORGET, INTERRUPT (the request itself is answered in its time) and BATCH_FORGET."""


class Inode:
    """A file, a directory or a symlink."""

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = 0
        self.nlink = 2 if stat.S_ISDIR(mode) else 1
        self.data = bytearray()
        self.entries: dict[bytes, Inode] = {}
        self.claims: dict[str, int] = {}
        """What a look is told instead of the truth: see :meth:`FileSystem.claim`."""
        self.atime_ns = self.mtime_ns = self.ctime_ns = time.time_ns()

    def modified(self) -> None:
        """Note that the content changed."""
        self.mtime_ns = self.ctime_ns = time.time_ns()


class Failure(Exception):  # noqa: N818 — an answer to the kernel
    """An errno as the answer."""


class FileSystem:
    """The content, and the answers to requests: one method for each opcode."""

    def __init__(self) -> None:
        self._next = _ROOT
        self.inodes: dict[int, Inode] = {}
        self._make(stat.S_IFDIR | 0o755, 0, 0)
        self.mounted = 0
        """How often it was mounted: inode numbers are others each time."""
        self._answers: dict[int, Callable[[int, bytes, tuple[int, int]], bytes]] = {
            1: self._lookup,
            3: self._getattr,
            4: self._setattr,
            5: self._readlink,
            6: self._symlink,
            8: self._mknod,
            9: self._mkdir,
            10: self._remove,
            11: self._remove,
            12: self._rename,
            13: self._link,
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._statfs,
            INIT: self._init,
            27: self._open,
            28: self._readdir,
            35: self._create,
            45: self._rename2,
            52: self._statx,
            25: self._flush,
            # RELEASE, FSYNC, RELEASEDIR, FSYNCDIR, DESTROY
            **dict.fromkeys((18, 20, 29, 30, 38), _nothing),
        }

    def answer(self, request: bytes) -> bytes:
        """Return the whole answer to one request; empty where none is expected."""
        _, opcode, unique, node, uid, gid, _, _ = HEADER.unpack_from(request)
        if opcode in NO_ANSWER:
            return b""
        work = self._answers.get(opcode)
        try:
            if work is None:
                raise Failure(errno.ENOSYS)
            found = work(node, request[HEADER.size :], (uid, gid))
        except Failure as failure:
            return _OUT.pack(_OUT.size, -failure.args[0], unique)
        return _OUT.pack(_OUT.size + len(found), 0, unique) + found

    # Inodes

    def _make(self, mode: int, uid: int, gid: int) -> Inode:
        inode = self.inodes[self._next] = Inode(self._next, mode, uid, gid)
        self._next += 1
        return inode

    def _shown(self, number: int) -> int:
        return number + self.mounted * 1_000_000

    def claim(self, path: bytes, claims: dict[str, int]) -> None:
        """Have looks at ``path`` told these values: ``inode``, ``size``, ``mtime_ns``,
        ``ctime_ns``, ``birth_ns``. Whatever fits into 64 bits, with or without a sign. ``flush``
        is the error (errno) that each close(2) of it is told, ``look`` that of each look at it,
        ``list`` that of each listing. ``type`` is its type in a listing (DT_UNKNOWN is 0).
        """
        inode = self.inodes[_ROOT]
        for name in path.split(b"/"):
            inode = inode.entries[name]
        inode.claims = claims

    def _attributes(self, inode: Inode) -> bytes:
        said = inode.claims.get
        if said("look"):
            raise Failure(inode.claims["look"])
        times = (
            inode.atime_ns,
            said("mtime_ns", inode.mtime_ns),
            said("ctime_ns", inode.ctime_ns),
        )
        size = said("size", len(inode.data))
        seconds = [ns // 10**9 & _MASK for ns in times]
        rest = [ns % 10**9 for ns in times]
        owner = (inode.mode, inode.nlink, inode.uid, inode.gid, inode.rdev)
        number = said("inode", self._shown(inode.number))
        return _ATTR.pack(number, size, -(-size // _BLOCK), *seconds, *rest, *owner, 4096, 0)

    def _statx(self, node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
        """Tell what FUSE has no other request for: the time of birth."""
        inode = self.inodes[node]
        (
            number, size, blocks, *times, atime_rest, mtime_rest, ctime_rest,
            mode, nlink, uid, gid, _, block, _,
        ) = _ATTR.unpack(self._attributes(inode))  # fmt: skip
        atime, mtime, ctime = zip(times, (atime_rest, mtime_rest, ctime_rest), strict=True)
        birth_ns = inode.claims.get("birth_ns")
        birth = (0, 0) if birth_ns is None else (birth_ns // 10**9 & _MASK, birth_ns % 10**9)
        mask = _STATX_BASIC | (_STATX_BTIME if birth_ns is not None else 0)
        return struct.pack("<QII16x", 0, 0, 0) + struct.pack(
            "<IIQIIIHHQQQQ" + 4 * "QI4x" + "4I112x",
            mask, block, 0, nlink, uid, gid, mode, 0, number, size, blocks, 0,
            *atime, *birth, *ctime, *mtime, 0, 0, 0, 0,
        )  # fmt: skip

    def _entry(self, inode: Inode) -> bytes:
        return struct.pack("<QQQQII", inode.number, 0, 0, 0, 0, 0) + self._attributes(inode)

    def _child(self, directory: int, name: bytes) -> Inode:
        found = self.inodes[directory].entries.get(name)
        if found is None:
            raise Failure(errno.ENOENT)
        return found

    def _add(self, directory: int, name: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        above = self.inodes[directory]
        if name in above.entries:
            raise Failure(errno.EEXIST)
        if len(name) > _NAME_MAX:
            raise Failure(errno.ENAMETOOLONG)
        inode = above.entries[name] = self._make(mode, *owner)
        above.nlink += stat.S_ISDIR(mode)
        above.modified()
        return inode

    def _drop(self, above: Inode, name: bytes) -> None:
        inode = above.entries.pop(name)
        directory = stat.S_ISDIR(inode.mode)
        above.nlink -= directory
        inode.nlink -= 2 if directory else 1
        inode.ctime_ns = time.time_ns()
        above.modified()

    # Requests: (node, what follows the header, (uid, gid)) → what follows the answer's header

    def _init(self, _node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        major, _, readahead, _ = struct.unpack_from("<4I", data)
        big_writes = 1 << 5
        return struct.pack(
            "<IIIIHHIIHHI28x", major, 31, readahead, big_writes, 12, 10, 1 << 17, 1, 0, 0, 0
        )

    def _lookup(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        return self._entry(self._child(node, data.rstrip(b"\0")))

    def _getattr(self, node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self.inodes[node])

    def _setattr(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        inode = self.inodes[node]
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = (
            _SETATTR.unpack_from(data)
        )
        if valid & 1:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        if valid & 2:
            inode.uid = uid
        if valid & 4:
            inode.gid = gid
        if valid & 8:
            if size > _LARGEST:
                raise Failure(errno.EFBIG)
            inode.data[size:] = bytes(max(0, size - len(inode.data)))
            inode.modified()
        if valid & 16:
            inode.atime_ns = atime * 10**9 + atime_ns
        if valid & 32:
            inode.mtime_ns = mtime * 10**9 + mtime_ns
        for bit, attribute in _NOW_SENT.items():
            if valid & bit:
                setattr(inode, attribute, time.time_ns())
        inode.ctime_ns = time.time_ns()
        return self._getattr(node, b"", _owner)

    def _readlink(self, node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
        return bytes(self.inodes[node].data)

    def _symlink(self, node: int, data: bytes, owner: tuple[int, int]) -> bytes:
        name, target = data.split(b"\0")[:2]
        inode = self._add(node, name, stat.S_IFLNK | 0o777, owner)
        inode.data[:] = target
        return self._entry(inode)

    def _mknod(self, node: int, data: bytes, owner: tuple[int, int]) -> bytes:
        mode, rdev = struct.unpack_from("<II", data)
        inode = self._add(node, data[16:].rstrip(b"\0"), mode, owner)
        inode.rdev = rdev
        return self._entry(inode)

    def _mkdir(self, node: int, data: bytes, owner: tuple[int, int]) -> bytes:
        (mode,) = struct.unpack_from("<I", data)
        return self._entry(self._add(node, data[8:].rstrip(b"\0"), stat.S_IFDIR | mode, owner))

    def _remove(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        name = data.rstrip(b"\0")
        if self._child(node, name).entries:
            raise Failure(errno.ENOTEMPTY)
        self._drop(self.inodes[node], name)
        return b""

    def _rename(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        (target,) = struct.unpack_from("<Q", data)
        old, new = data[8:].split(b"\0")[:2]
        return self._move(node, old, target, new, 0)

    def _rename2(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        target, flags = struct.unpack_from("<QI", data)
        old, new = data[16:].split(b"\0")[:2]
        return self._move(node, old, target, new, flags)

    def _move(self, node: int, old: bytes, target: int, new: bytes, flags: int) -> bytes:
        moved, before, after = self._child(node, old), self.inodes[node], self.inodes[target]
        there = after.entries.get(new)
        if flags & _RENAME_EXCHANGE:
            if there is None:
                raise Failure(errno.ENOENT)
            before.entries[old], after.entries[new] = there, moved
            return b""
        if there is moved:
            return b""
        if there is not None:
            if flags & _RENAME_NOREPLACE:
                raise Failure(errno.EEXIST)
            if there.entries:
                raise Failure(errno.ENOTEMPTY)
            self._drop(after, new)
        after.entries[new] = before.entries.pop(old)
        directory = stat.S_ISDIR(moved.mode)
        before.nlink -= directory
        after.nlink += directory
        before.modified()
        after.modified()
        moved.ctime_ns = time.time_ns()
        return b""

    def _link(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        (number,) = struct.unpack_from("<Q", data)
        name, inode, above = data[8:].rstrip(b"\0"), self.inodes[number], self.inodes[node]
        if name in above.entries:
            raise Failure(errno.EEXIST)
        above.entries[name] = inode
        inode.nlink += 1
        inode.ctime_ns = time.time_ns()
        above.modified()
        return self._entry(inode)

    def _open(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack("<QII", node, 0, 0)

    def _create(self, node: int, data: bytes, owner: tuple[int, int]) -> bytes:
        _, mode = struct.unpack_from("<II", data)
        inode = self._add(node, data[16:].rstrip(b"\0"), stat.S_IFREG | stat.S_IMODE(mode), owner)
        return self._entry(inode) + struct.pack("<QII", inode.number, 0, 0)

    def _read(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        return bytes(self.inodes[node].data[offset : offset + size])

    def _write(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        content = self.inodes[node].data
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + size] = data[40 : 40 + size]
        self.inodes[node].modified()
        return struct.pack("<II", size, 0)

    def _flush(self, node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
        error = self.inodes[node].claims.get("flush")
        if error:
            raise Failure(error)
        return b""

    def _statfs(self, _node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
        return struct.pack(
            "<5Q4I24x", 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0
        )

    def _readdir(self, node: int, data: bytes, _owner: tuple[int, int]) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        error = self.inodes[node].claims.get("list")
        if error:
            raise Failure(error)
        found = b""
        entries = list(self.inodes[node].entries.items())
        for position, (name, inode) in enumerate(entries[offset:], offset + 1):
            kind = inode.claims.get("type", stat.S_IFMT(inode.mode) >> 12)
            one = struct.pack("<QQII", self._shown(inode.number), position, len(name), kind) + name
            one += bytes(-len(one) % 8)
            if len(found) + len(one) > size:
                break
            found += one
        return found


def _nothing(_node: int, _data: bytes, _owner: tuple[int, int]) -> bytes:
    return b""
