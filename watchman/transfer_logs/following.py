"""Reads a log as it grows, through rotation, truncation and restarts.

A position is kept: which file (device and inode), how far, and a hash of its first bytes. With it
a log is found again by another name, and one that was copied and truncated (logrotate's
``copytruncate``) is told from one that has grown. Servers write on in a renamed log for as long as
a session of theirs lasts: it is read as well, until the next rotation.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

CHUNK = 1 << 18
"""Bytes read at a time."""
LOOK_BACK = 1 << 20
"""Bytes before its end from which on a log is read that was never read before."""
LONGEST_LINE = 1 << 16
"""What is longer without a newline is passed over."""
_HEAD = 1024
"""Bytes at the beginning that tell a log from another with its inode."""
_MOST_ROTATED = 20
"""Rotated logs that are looked at."""
_COMPRESSED = (b".gz", b".bz2", b".xz", b".zst")
_OF_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that tell nothing of a file, and go away."""


class Position(NamedTuple):
    """How far a log was read."""

    device: int
    inode: int
    offset: int
    """In bytes: the next line begins here."""
    head: bytes
    """A hash of its first bytes, of ``offset`` at the most."""


class _File:
    """An open log, and how far it was read. Closed where it cannot be used."""

    def __init__(self, path: str) -> None:
        # Without waiting for whoever would write into a FIFO.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            self._first = self._beginning()
        except BaseException:
            self.close()
            raise
        self.identity = status.st_dev, status.st_ino
        self.offset = 0
        """Where the next read begins."""
        self._rest = b""
        """What was read of a line that is not whole yet."""
        self._skipping = False
        """Whether the rest of a line that is too long is still to come."""

    def start_at(self, offset: int) -> None:
        """Read from a byte on."""
        self.offset, self._rest, self._skipping = offset, b"", False
        self._first = self._beginning()

    def start_near_end(self) -> None:
        """Read from the first line on that begins in the last LOOK_BACK bytes."""
        offset = max(0, os.fstat(self.descriptor).st_size - LOOK_BACK)
        self.start_at(offset)
        self._skipping = offset > 0

    def position(self) -> Position:
        """Return where the next line begins."""
        offset = self.offset - len(self._rest)
        return Position(*self.identity, offset, _hash(self._first[:offset]))

    def is_at(self, position: Position) -> bool:
        """Say whether this is the log that a position is in, however it is called by now."""
        if not position.offset:
            return self.identity == position[:2]  # all begin as nothing does
        size = os.fstat(self.descriptor).st_size
        length = min(position.offset, _HEAD)
        return size >= position.offset and _hash(self._beginning()[:length]) == position.head

    def read(self) -> list[bytes] | None:
        """Return the whole lines in the next chunk; None where there is nothing new."""
        chunk = os.pread(self.descriptor, CHUNK, self.offset)
        if not chunk:
            return None
        if len(self._first) < _HEAD:
            self._first = self._beginning()
        self.offset += len(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if self._skipping and lines:
            self._skipping = False
            del lines[0]
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._skipping = b"", True
        return lines

    @property
    def is_removed(self) -> bool:
        """Whether it has no name any more."""
        return not os.fstat(self.descriptor).st_nlink

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def _beginning(self) -> bytes:
        return os.pread(self.descriptor, _HEAD, 0)


def _hash(beginning: bytes) -> bytes:
    return hashlib.sha256(beginning).digest()


class FollowedLog:
    """One log, which need not be there yet.

    Raises OSError where it cannot be opened or read; the next call tries again.
    """

    def __init__(self, path: str, position: Position | None) -> None:
        self.path = path
        self._kept = position
        """Where to go on, until the log was opened for the first time."""
        self._file: _File | None = None
        self._older: list[_File] = []
        """Those that the log was before, oldest first."""
        self.is_missing = False
        """Whether nothing has its name at the moment."""
        self.lost = False
        """Set where lines may have been written that nobody can read any more."""
        self.unreadable: list[str] = []
        """What could not be looked at when what the log was before was looked for."""

    @property
    def descriptor(self) -> int | None:
        """The open log's descriptor, to be watched; None while there was none."""
        return None if self._file is None else self._file.descriptor

    def position(self) -> Position | None:
        """Return where reading is to go on after a restart; None if nothing was read."""
        return self._kept if self._file is None else self._file.position()

    def read(self) -> Iterator[list[bytes]]:
        """Yield new lines, a chunk at a time, until there are no more."""
        self._look()
        for file in self._files():
            lines = file.read()
            while lines is not None:
                if lines:
                    yield lines
                lines = file.read()
        # What has been compressed since is not kept from being removed.
        for older in [older for older in self._older if older.is_removed]:
            self._older.remove(older)
            older.close()

    def close(self) -> None:
        """Close the log; the position stays that of now."""
        self._kept = self.position()
        for file in self._files():
            file.close()
        self._older, self._file = [], None

    def _files(self) -> list[_File]:
        return [*self._older, *([] if self._file is None else [self._file])]

    def _look(self) -> None:
        """Find out whether the log is still the one that is open."""
        file = self._file
        try:
            if file is None:
                self._file = self._begin()
            else:
                status = os.stat(self.path)
                if (status.st_dev, status.st_ino) != file.identity:
                    self._replace_older([file], _File(self.path))
                elif not file.is_at(file.position()):
                    # Truncated: what was not read yet may have been copied before that.
                    self._replace_older(self._rotated(file.position()), file)
                    file.start_at(0)
            self.is_missing = False
        except FileNotFoundError:
            self.is_missing = True  # it may just be rotated: what is open is read on

    def _replace_older(self, older: list[_File], file: _File) -> None:
        for one in self._older:
            one.close()
        self._older, self._file = older, file

    def _begin(self) -> _File:
        """Open the log, and what it was before, at the kept position or near its end."""
        kept, file = self._kept, _File(self.path)
        try:
            if kept is None and not self.is_missing:
                file.start_near_end()
            elif kept is None:
                file.start_at(0)  # it was made since
            elif file.is_at(kept):
                file.start_at(kept.offset)
            else:
                self._older = self._rotated(kept)
        except BaseException:
            file.close()
            raise
        return file

    def _rotated(self, position: Position) -> list[_File]:
        """Open the log that a position is in under its new name, and those that came after it.

        What cannot be opened is passed over: it may be anybody's that begins with the log's name.
        Where the log is not found, that is noted as lost.
        """
        self.unreadable = []
        found: list[_File] = []
        with contextlib.ExitStack() as undo:
            for path in self._rotated_names():
                try:
                    file = _File(path)
                except OSError as error:
                    self._pass_over(path, error)
                    continue
                undo.callback(file.close)
                found.insert(0, file)
                if file.is_at(position):
                    file.start_at(position.offset)
                    undo.pop_all()
                    return found
        self.lost = True
        return []

    def _rotated_names(self) -> list[str]:
        """Return what the log may have become, the newest first: it with something behind.

        Or with its number or date before its suffix (logrotate's ``extension``).
        """
        directory, name = os.path.split(os.fsencode(self.path))
        found = []
        try:
            names = os.listdir(directory)
        except OSError as error:
            self._pass_over(os.fsdecode(directory), error)
            return []
        stem, suffix = map(re.escape, os.path.splitext(name))
        numbered = re.compile(stem + rb"[-._]?\d[-._\d]*" + suffix)
        for other in names:
            is_rotated = other.startswith(name) or (suffix and numbered.fullmatch(other))
            if is_rotated and other != name and not other.endswith(_COMPRESSED):
                path = os.fsdecode(os.path.join(directory, other))
                try:
                    status = os.stat(path)
                except OSError as error:
                    self._pass_over(path, error)
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)[:_MOST_ROTATED]]

    def _pass_over(self, path: str, error: OSError) -> None:
        """Note that a file beside the log cannot be looked at; raise what says nothing of it."""
        if error.errno in _OF_OURS:
            raise error
        if error.errno != errno.ENOENT:
            self.unreadable.append(f"{path} ({error.strerror})")
