"""The last look at files before their tasks are sent: still there, still the same, still free?

Where a look may hang, on a network file system say, it is taken in a thread of its own, and not
waited for for ever: see :class:`RemoteFiles`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple

from watchman import hanging
from watchman.directory_cache import DirectoryCache
from watchman.directory_identity import identify
from watchman.file_access import (
    GONE,
    GONE_ERRNOS,
    Look,
    Seen,
    for_listing,
    look,
    open_directory,
    relative_to,
)
from watchman.identity import Doubt, doubt, is_same_content
from watchman.model import Delivery
from watchman.sender.call_thread import CallThread
from watchman.soft_lock import soft_lock
from watchman.text import printable

FRESH = 1.0
"""Seconds after an arrival for which the lease test that came before it is not repeated."""
_SLICE = 0.02
"""Seconds between two looks at a thread that is waited for."""

_AWAY = frozenset({errno.ENOENT, errno.ESTALE})
"""Errnos of a directory whose share may not be mounted."""

# Verdicts on a delivery: None if all is as recorded, else why it has vanished; or:
_THE_FILE_IS_GONE = "the file is gone"
_REPLACED = "replaced by a newer upload"
_NOT_IT = "something else is in its place"
_CHANGED = ""
"""It has not vanished, but is not what was recorded: to be looked at again."""


class Prechecked(NamedTuple):
    """A page of deliveries, sorted by what a look at each has found."""

    good: list[Delivery]
    """As recorded."""
    vanished: list[tuple[Delivery, str]]
    """Removed or replaced, and how we know."""
    changed: list[Delivery]
    """Being written, or not what was recorded: to be looked at again."""
    obstacle: str
    """Why others could not be looked at and have to wait; empty if all could."""


def precheck(
    page: Iterable[Delivery],
    directories: DirectoryCache[str],
    announced_later: Callable[[Delivery], bool],
) -> Prechecked:
    """Sort deliveries by a look at each; ``directories`` are :func:`directories_below`'s.

    A file that could not be looked at (no permission, no descriptor, a share that is away) is
    not called gone: it is in none of the lists, only in ``obstacle``.
    """
    found = Prechecked([], [], [], "")
    now_ns = time.time_ns()
    fresh_ns = now_ns - int(FRESH * 1e9)
    obstacle = ""
    directories.renew()
    with soft_lock():
        for delivery in page:
            try:
                directory, _, name = delivery.final.rpartition("/")
                descriptor = directories.get(directory)
                if delivery.final != delivery.source or delivery.kind == "directories":
                    verdict = _is_there(delivery, name, descriptor, announced_later)
                else:
                    # From the future, by a clock that was set back, may be of any age.
                    is_fresh = fresh_ns < delivery.arrived_ns <= now_ns
                    if is_fresh and _is_same(delivery, name, descriptor):
                        verdict = None
                    else:
                        seen = look(name, descriptor) if descriptor >= 0 else GONE
                        verdict = _judge(delivery, seen, announced_later)
            except OSError as error:
                obstacle = obstacle or f"{printable(delivery.final)}: {error.strerror}"
                continue
            if verdict is None:
                found.good.append(delivery)
            elif verdict:
                found.vanished.append((delivery, verdict))
            else:
                found.changed.append(delivery)
    return found._replace(obstacle=obstacle)


def _is_there(
    delivery: Delivery, name: str, directory: int, announced_later: Callable[[Delivery], bool]
) -> str | None:
    """Return the verdict on a directory, or on what was moved: what it contains may change.

    A copy is not what was recorded, so something of its kind must do; but an uploader owns the
    directories that are made for it, and may have put anything there. Raises OSError where nothing
    can be said because a share may be unmounted: the directory above is not there either, or it
    may be the mount point, which is empty.
    """
    if -directory in _AWAY:
        raise OSError(-directory, os.strerror(-directory))
    if directory < 0:
        return _NOT_IT
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if _is_empty(directory) and os.fstat(directory).st_dev != delivery.version.device:
            reason = "nothing is there, as if its file system were not mounted"
            raise OSError(errno.ESTALE, reason) from None
        return _THE_FILE_IS_GONE
    if delivery.kind != "directories":
        return None if stat.S_ISREG(status.st_mode) else _NOT_IT
    found = identify(name, directory)
    if found is None:
        return _NOT_IT
    if delivery.final != delivery.source or is_same_content(delivery.version, found[0]):
        return None
    return _REPLACED if announced_later(delivery) else _NOT_IT


def _is_empty(directory: int) -> bool:
    descriptor = for_listing(os.dup(directory))
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is None
    finally:
        os.close(descriptor)


def _is_same(delivery: Delivery, name: str, directory: int) -> bool:
    """Say whether a file is still as it was recorded, without the lease test."""
    if directory < 0:
        return False
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    numbers = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return numbers == delivery.version[1:]


def _judge(
    delivery: Delivery, seen: Look, announced_later: Callable[[Delivery], bool]
) -> str | None:
    """Return the verdict on a delivery that was looked at.

    Raises OSError where it cannot be looked at: what is unknown is neither gone nor changed.
    """
    if seen.error == errno.EAGAIN:
        raise OSError(seen.error, "it cannot be opened now: another program has a lease on it")
    if seen.error:
        raise OSError(seen.error, os.strerror(seen.error))
    if seen.version is not None and is_same_content(delivery.version, seen.version):
        if seen.seen is Seen.BUSY:
            return _CHANGED
        doubts = doubt(delivery.version, seen.version)
        if doubts is not Doubt.NONE and announced_later(delivery):
            return _REPLACED
        return _CHANGED if doubts is Doubt.GRAVE else None
    if announced_later(delivery):
        return _REPLACED
    return _THE_FILE_IS_GONE if seen.version is None else _CHANGED


def directories_below(root_of: Callable[[str], str]) -> DirectoryCache[str]:
    """Return the directories of files, by path, each reached from its root by no symlink.

    ``root_of`` gives the directory of the configuration that a path is in. What is gone has, for a
    descriptor, the errno that says so as a negative number; what cannot be opened for another
    reason raises OSError.
    """

    def open_one(directory: str) -> int:
        root = root_of(f"{directory}/")
        try:
            return open_directory(root, relative_to(root, directory or "/"))
        except OSError as error:
            if error.errno not in GONE_ERRNOS:
                raise
            return -error.errno

    return DirectoryCache(open_one)


class RemoteFiles:
    """The precheck of one broker's deliveries whose files are where a look may hang.

    A broker's other deliveries wait for one such look at the most, for two seconds. Where a look
    does not come back, those behind it on the same file system are passed over until it does.

    Used from one thread at a time, but for :meth:`may_hang` and :meth:`give_up`.
    """

    def __init__(
        self,
        broker: str,
        root_of: Callable[[str], str],
        announced_later: Callable[[Delivery], bool],
    ) -> None:
        self._broker = broker
        self._root_of = root_of
        self._announced_later = announced_later
        self._places: Mapping[str, str] = {}
        self._prefixes: tuple[str, ...] = ()
        self._lookers: dict[str, _Looker] = {}
        self._held_up: set[str] = set()
        """Mount points on which the last look was given up."""
        self._given_up = False

    def may_hang(self, places: Mapping[str, str]) -> None:
        """Say where that is: path with a slash behind it → mount point."""
        self._places = places
        self._prefixes = tuple(places)

    @property
    def held_up_by(self) -> str:
        """The mount point of a file system that has not come back from a look; "" if all have."""
        for point in list(self._held_up):
            if self._hangs(point):
                return point
        return ""

    def _hangs(self, point: str) -> bool:
        looker = self._lookers.get(point)
        # Also where a look hung before a reload, or anybody else does: threads do not pile up.
        return (looker is not None and looker.hangs) or bool(hanging.silent([point]))

    def split(
        self, rows: Sequence[Delivery]
    ) -> tuple[Sequence[Delivery], dict[str, list[Delivery]]]:
        """Return the deliveries that can be looked at here, and the others by mount point."""
        prefixes, places = self._prefixes, self._places
        if not prefixes:
            return rows, {}
        here: list[Delivery] = []
        apart: dict[str, list[Delivery]] = {}
        for row in rows:
            if row.final.startswith(prefixes):
                prefix = max(filter(row.final.startswith, places), key=len)
                apart.setdefault(places[prefix], []).append(row)
            else:
                here.append(row)
        return here, apart

    def precheck(self, apart: Mapping[str, list[Delivery]], found: Prechecked) -> Prechecked:
        """Return what was found together with what is found of the deliveries ``apart``."""
        for point, rows in apart.items():
            more = self._precheck(point, rows)
            found = Prechecked(
                sorted(found.good + more.good),
                found.vanished + more.vanished,
                found.changed + more.changed,
                found.obstacle or more.obstacle,
            )
        return found

    def _precheck(self, point: str, rows: Sequence[Delivery]) -> Prechecked:
        if not (self._given_up or self._hangs(point)):
            looker = self._lookers.setdefault(point, _Looker(f"sender-{self._broker}-{point}"))
            found = looker.look(self._look, rows, lambda: self._given_up)
            if found is not None:
                self._held_up.discard(point)
                return found
            hanging.ask([point])
        self._held_up.add(point)
        return Prechecked([], [], [], f"{printable(rows[0].final)}: {hanging.describe(point)}")

    def _look(self, rows: Iterable[Delivery]) -> Prechecked:
        with directories_below(self._root_of) as directories:
            return precheck(rows, directories, self._announced_later)

    def give_up(self) -> None:
        """Wait for nothing any longer."""
        self._given_up = True

    def stop(self) -> None:
        """End the threads; one that hangs ends when it comes back."""
        for looker in self._lookers.values():
            looker.thread.stop()


class _Looker:
    """A thread for one file system."""

    def __init__(self, name: str) -> None:
        self.thread = CallThread(name)
        self._under_way: Future[Prechecked] | None = None
        self._seen = 0

    @property
    def hangs(self) -> bool:
        """Whether it was given up, and has not come back."""
        return self._under_way is not None and not self._under_way.done()

    def look(
        self,
        work: Callable[[Iterable[Delivery]], Prechecked],
        rows: Sequence[Delivery],
        give_up: Callable[[], bool],
    ) -> Prechecked | None:
        """Return what ``work(rows)`` does; None where one row takes too long. Raises what it does.

        What comes of it later is forgotten: the rows are looked at again.
        """

        def counted() -> Iterator[Delivery]:
            for row in rows:
                self._seen += 1
                yield row

        future = self._under_way = self.thread.submit(lambda: work(counted()))
        seen, since = self._seen, time.monotonic()
        while not give_up():
            if wait([future], _SLICE).done:
                return future.result()
            now = time.monotonic()
            if self._seen != seen:
                seen, since = self._seen, now  # slow is not hung
            elif now - since > hanging.SILENT:
                break
        return None
