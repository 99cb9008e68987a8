"""What uploaders do: the steps of the program tests, each told to the model."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable

from tests.faults.expected import Expected, digest

OLD = 1_500_000_000_000_000_000
HELD = "held"
_HEAD = 9
_PIECE = 1 << 20


class Uploads(Expected):
    """Acts in ``up``, and in ``stage``."""

    _number = 0

    def _content(self, size: int) -> bytes:
        self._number += 1
        head = b"%08d\n" % self._number
        return head + b"%d" % (self._number % 10) * (size - len(head))

    def _path(self, name: str) -> str:
        if name.startswith("away/"):
            return str(self.stage / name)
        return str(self.up / name)

    def _place(self, name: str) -> str | None:
        """Return the path for a file, with the directories above it; None if it cannot be."""
        path = self._path(name)
        if os.path.isdir(path):
            return None
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    # Steps on files

    def write(self, name: str, size: int, times: str) -> None:
        path = self._place(name)
        if path is None or self._is_shared(path):
            return
        descriptor = self._open(path)
        content = self._content(size)
        self._fill(descriptor, content, keep=OLD if times == "keep" else None)
        self._arrive(path, digest(content))
        self._touch_siblings(path, written=True)
        if times == "after":
            self.utime(name, OLD)

    def _open(self, path: str) -> int:
        """Open a file to write it anew, or make it."""
        while True:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
            except FileNotFoundError:
                self._moved(path)
                with contextlib.suppress(FileExistsError):
                    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            else:
                self._lose(path)
                return descriptor

    def _fill(self, descriptor: int, content: bytes, keep: int | None = None) -> None:
        try:
            for start in range(0, len(content), _PIECE):
                os.write(descriptor, content[start : start + _PIECE])
            if keep is not None:
                os.utime(descriptor, ns=(keep, keep))
        finally:
            os.close(descriptor)

    def _is_shared(self, path: str) -> bool:
        """With MOVES the store may have the same inode: writing would spoil it for anybody."""
        try:
            return self.moves and os.lstat(path).st_nlink > 1
        except FileNotFoundError:
            return False

    def rewrite(self, name: str) -> None:
        """Write in place what is as long, and put the old time back."""
        self._change(name, lambda size: (0, size, True))

    def append(self, name: str) -> None:
        self._change(name, lambda size: (size, 15, False))

    def _change(self, name: str, plan: Callable[[int], tuple[int, int, bool]]) -> None:
        path = self._path(name)
        if os.path.isdir(path) or self._is_shared(path):
            return
        try:
            descriptor = os.open(path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        status = os.fstat(descriptor)
        start, size, keep = plan(status.st_size)
        self._lose(path)
        content = self._content(max(size, _HEAD))
        whole = os.pread(descriptor, start, 0) + content
        os.lseek(descriptor, start, os.SEEK_SET)
        self._fill(descriptor, content, keep=status.st_mtime_ns if keep else None)
        self._arrive(path, digest(whole))
        self._touch_siblings(path, written=True)
        self.maybe[path] += 1

    def open_only(self, name: str) -> None:
        """Open for writing, and write nothing."""
        path = self._path(name)
        if os.path.isdir(path):
            return
        try:
            os.close(os.open(path, os.O_RDWR))
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        if path in self._silent | self._touched or not (self.ctime_tells or self.polled):
            self.most[path] += 1
            self._silent.discard(path)
        self._opened.add(path)

    def rename(self, name: str, to: str) -> None:
        path, target = self._path(name), self._place(to)
        if os.path.isdir(path) or target is None or path == target:
            return
        try:
            if os.path.exists(target) and os.path.samefile(path, target):
                return
            self._touch_siblings(path, written=False)
            os.rename(path, target)
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        digest = self.items[path]
        self._lose(path)
        self._lose(target)
        self._arrive(target, digest)

    def there_and_back(self, name: str, to: str) -> None:
        self.rename(name, to)
        self.rename(to, name)

    def replace(self, name: str, size: int, times: str, hidden: bool) -> None:
        """Write under another name and rename it over this one."""
        path = self._place(name)
        if path is None:
            return
        directory, last = os.path.split(path)
        beside = f"{directory}/.in.{last}." if hidden else f"{self.stage}/new"
        content = self._content(size)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._fill(descriptor, content, keep=OLD if times == "keep" else None)
        self._touch_siblings(path, written=False)
        os.rename(beside, path)
        self._lose(path)
        self._arrive(path, digest(content))
        if times == "after":
            self.utime(name, OLD)

    def link(self, name: str, to: str) -> None:
        path, target = self._path(name), self._place(to)
        if os.path.isdir(path) or target is None:
            return
        try:
            os.link(path, target)
        except FileExistsError:
            return
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        self._moved(target)
        self._arrive(target, self.items[path])
        self._touch_siblings(target, written=False)

    def link_in(self, name: str, size: int) -> None:
        """Make a file elsewhere, link it to its name, and unlink the other one."""
        path = self._place(name)
        if path is None:
            return
        content = self._content(size)
        descriptor = os.open(self.stage / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._fill(descriptor, content)
        with contextlib.suppress(FileExistsError):
            os.link(self.stage / "new", path)
            self._moved(path)
            self._arrive(path, digest(content))
            self._silent.add(path)
        os.unlink(self.stage / "new")

    def delete(self, name: str) -> None:
        path = self._path(name)
        if os.path.isdir(path):
            return
        try:
            self._touch_siblings(path, written=False)
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        self._lose(path)
        self._left.pop(path, None)

    def remake(self, name: str) -> None:
        """Delete a file and make another, with the same size and time, and the inode perhaps."""
        path = self._path(name)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if os.path.isdir(path):
            return
        self.delete(name)
        content = self._content(max(status.st_size, _HEAD))
        descriptor = self._open(path)
        self._fill(descriptor, content, keep=status.st_mtime_ns)
        self._arrive(path, digest(content))

    def utime(self, name: str, time_ns: int) -> None:
        self._touch(name, lambda path: os.utime(path, ns=(time_ns, time_ns)))
        self.maybe[self._path(name)] += 1

    def chmod(self, name: str, mode: int) -> None:
        self._touch(name, lambda path: os.chmod(path, mode))

    def _touch(self, name: str, change: Callable[[str], None]) -> None:
        path = self._path(name)
        if os.path.isdir(path):
            return
        try:
            change(path)
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        self._silent.discard(path)
        self._touched.add(path)
        if path in self._opened:
            self.most[path] += 1
        self._touch_siblings(path, written=False)

    def truncate(self, name: str, size: int) -> None:
        path = self._path(name)
        if os.path.isdir(path) or self._is_shared(path):
            return
        try:
            if os.lstat(path).st_size == size:
                return
            os.truncate(path, size)
            with open(path, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            self._moved(path)
            return
        self._lose(path)
        self._arrive(path, digest(content))
        self._touch_siblings(path, written=True)

    # Steps on directories

    def rename_directory(self, name: str, to: str) -> None:
        before, after = self._path(name), self._path(to)
        if not os.path.isdir(before) or os.path.lexists(after):
            return
        os.makedirs(os.path.dirname(after), exist_ok=True)
        os.rename(before, after)
        for path in [path for path in self.items if path.startswith(f"{before}/")]:
            target = after + path[len(before) :]
            self._carry(path, target)

    def swing(self, name: str, over: str, times: int) -> None:
        """Rename a directory there and back."""
        for _ in range(times):
            self.rename_directory(name, over)
            self.rename_directory(over, name)

    def delete_directory(self, name: str) -> None:
        path = self._path(name)
        held = set(self._held_paths())
        if any(one.startswith(f"{path}/") for one in held):
            return
        shutil.rmtree(path, ignore_errors=True)
        for below in [below for below in self.items if below.startswith(f"{path}/")]:
            if not os.path.lexists(below):
                self._lose(below)

    # Files that stay open

    def hold(self, folder: str) -> None:
        """Write half a file, and keep it open."""
        self._number += 1
        path = self._place(f"{folder}/{HELD}{self._number}".lstrip("/"))
        assert path is not None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        content = self._content(70)
        os.write(descriptor, content[:30])
        self.held[descriptor] = content

    def finish(self) -> None:
        """Complete and close what is held open."""
        while self.held:
            descriptor, content = self.held.popitem()
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            os.write(descriptor, content[30:])
            os.close(descriptor)
            if path.startswith(f"{self.up}/"):
                self._arrive(path, digest(content))
            else:
                self.items[path] = digest(content)

    def close(self) -> None:
        """Close what is held open."""
        for descriptor in self.held:
            os.close(descriptor)
        self.held.clear()
