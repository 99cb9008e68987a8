"""Lines and arrivals, whichever come first, are brought together by path, size and time.

A line is for an arrival when its path is that of the file, its bytes are the file's (or were, with
those of the transfers before it that it may have resumed), and it was not over before the file was
written last. Where a format replaces characters of a name, all names that would be written alike
count as one: among files of one size in one directory ``a b`` may then be taken for ``a_b``. Where
sizes differ, the line before the last one of such names counts as well. What has the whole name is
kept by that, apart from these: in many a script all names of one length are alike. Two uploads of
one name and size within two seconds may be taken for one another.

Pure memory: what was read and recorded is passed in, and the time (``now``, of the monotonic
clock), from the threads of all that record and of the one that reads the logs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from watchman.model import Upload, Version
from watchman.transfer_logs.line import LogLine
from watchman.transfer_logs.mapping import fold

MOST_LINES = 50_000
"""Lines kept at a time, some 30 MB."""
KEEP_LINES = 3600.0
"""Seconds for which a line waits for its file: a scan of what came meanwhile may be slow."""
MOST_ARRIVALS = 20_000
KEEP_ARRIVALS = 600.0
"""Seconds for which an arrival without a line waits for it."""
MOST_AWAITED = 100_000
MOST_ALIKE = 8
"""Files whose names are written alike that wait for the next line about one of them."""
SLACK_NS = 2_000_000_000
"""A line may seem to be older than its file: most have whole seconds, and file systems some ms."""


class Arrival(NamedTuple):
    """What is known of a file that was recorded."""

    seq: int
    path: bytes
    version: Version


class _Transfer(NamedTuple):
    path: bytes
    line: LogLine
    before: tuple[int, ...]
    """How large the file may have been when this transfer began, if it resumed others."""
    earlier: _Transfer | None = None
    """The one before, where it may have been of another file, whose name is written alike."""


Value = TypeVar("Value")


class _Recent(Generic[Value]):
    """The newest values, by path: none that is too old, and not too many."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._values: OrderedDict[bytes, tuple[float, Value]] = OrderedDict()

    def put(self, key: bytes, value: Value, now: float) -> None:
        self._values[key] = now, value
        self._values.move_to_end(key)
        while len(self._values) > self._most or self._oldest() < now - self._seconds:
            self._values.popitem(last=False)

    def get(self, key: bytes, now: float) -> Value | None:
        since, value = self._values.get(key, (float("-inf"), None))
        return value if since >= now - self._seconds else None

    def drop(self, key: bytes) -> None:
        self._values.pop(key, None)

    def _oldest(self) -> float:
        return next(iter(self._values.values()))[0]


class _Waiting(Generic[Value]):
    """The newest values by path, found by all that some server may write for it."""

    def __init__(self, most: int, seconds: float) -> None:
        self._values: _Recent[Value] = _Recent(most, seconds)
        self._alike: _Recent[tuple[bytes, ...]] = _Recent(most, seconds)
        """By folded path: those that have values, the newest first."""

    def put(self, path: bytes, value: Value, now: float) -> None:
        others = self._alike_to(path, now)
        self._values.put(path, value, now)
        self._alike.put(fold(path), (path, *others)[:MOST_ALIKE], now)

    def get(self, path: bytes, now: float) -> Value | None:
        return self._values.get(path, now)

    def drop(self, path: bytes, now: float) -> None:
        self._values.drop(path)
        others = tuple(self._alike_to(path, now))
        if others:
            self._alike.put(fold(path), others, now)
        else:
            self._alike.drop(fold(path))

    def of(self, written: bytes, now: float, *, exact: bool) -> list[Value]:
        """Return the values of what may be ``written`` so, that of just this path first."""
        paths = written, *(() if exact else self._alike_to(written, now))
        found = (self.get(path, now) for path in paths)
        return [value for value in found if value is not None]

    def _alike_to(self, path: bytes, now: float) -> Iterator[bytes]:
        for other in self._alike.get(fold(path), now) or ():
            if other != path:
                yield other


class Matching:
    """Remembers the last line of each file, and the arrivals that have none yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exact: _Recent[_Transfer] = _Recent(MOST_LINES, KEEP_LINES)
        """By path: of lines that have all of it."""
        self._transfers: _Recent[_Transfer] = _Recent(MOST_LINES, KEEP_LINES)
        """The others, by folded path."""
        self._arrivals: _Waiting[Arrival] = _Waiting(MOST_ARRIVALS, KEEP_ARRIVALS)
        self._awaited: _Waiting[bytes] = _Waiting(MOST_AWAITED, float("inf"))
        """Files that are no arrivals before a log calls them complete."""

    def logged(self, path: bytes, line: LogLine, now: float) -> tuple[Arrival, Upload] | None:
        """Take note of a line about a file; return the arrival that it is for, if that came first.

        It waits until :meth:`settled` says that this is on disk.
        """
        transfers, key = (self._exact, path) if line.exact else (self._transfers, fold(path))
        with self._lock:
            last = transfers.get(key, now)
            transfer = _Transfer(path, line, _sizes_before(last))
            if last is not None and not line.exact:
                transfer = transfer._replace(earlier=last._replace(earlier=None))
            transfers.put(key, transfer, now)
            arrivals = self._arrivals.of(path, now, exact=line.exact)
        arrival = next((one for one in arrivals if _fits(transfer, one)), None)
        return None if arrival is None else (arrival, upload(line))

    def settled(self, arrival: Arrival, now: float) -> None:
        """Wait for the line of an arrival no longer."""
        with self._lock:
            waiting = self._arrivals.get(arrival.path, now)
            if waiting is not None and waiting.seq == arrival.seq:
                self._arrivals.drop(arrival.path, now)

    def arrived(self, arrival: Arrival, now: float) -> Upload | None:
        """Return what is logged of a file that is being recorded; else wait for it.

        What it returns it returns again: the file may have to be recorded once more.
        """
        with self._lock:
            for last in self._last_of(arrival.path, now):
                for transfer in _newest_first(last):
                    if _fits(transfer, arrival):
                        self._arrivals.drop(arrival.path, now)
                        return upload(transfer.line)
            self._arrivals.put(arrival.path, arrival, now)
        return None

    def verdict(self, path: bytes, version: Version, now: float) -> bool | None:
        """Say whether the log calls a file complete; None where it says nothing of it as it is."""
        with self._lock:
            found = self._last_of(path, now)
        for last in found:
            for transfer in _newest_first(last):
                if not _is_later(transfer, version):
                    continue
                # Of names that are written alike only the size tells which one was meant.
                if transfer is last and transfer.path == path and not transfer.line.complete:
                    return False
                if _has_size(transfer, version.size):
                    return transfer.line.complete
        return None

    def _last_of(self, path: bytes, now: float) -> list[_Transfer]:
        """Return the last lines that may be about a file. With the lock."""
        found = self._exact.get(path, now), self._transfers.get(fold(path), now)
        return [one for one in found if one is not None]

    def await_line(self, path: bytes, now: float) -> None:
        """Remember that a file waits to be called complete."""
        with self._lock:
            self._awaited.put(path, path, now)

    def take_awaited(self, path: bytes, now: float, *, exact: bool) -> list[bytes]:
        """Return the files that wait for a line about a path, once; ``exact`` as in the line."""
        with self._lock:
            waiting = self._awaited.of(path, now, exact=exact)
            for one in waiting:
                self._awaited.drop(one, now)
        return waiting

    def waits(self, path: bytes, now: float) -> bool:
        """Say whether an arrival at a path has no line yet, and is still waited for."""
        with self._lock:
            return self._arrivals.get(path, now) is not None


def _newest_first(last: _Transfer | None) -> Iterator[_Transfer]:
    """Yield the transfers that may have been of a file."""
    while last is not None:
        yield last
        last = last.earlier


def _sizes_before(last: _Transfer | None) -> tuple[int, ...]:
    """Return how large a file may be that the next transfer goes on with."""
    if last is None:
        return ()
    if last.line.size is not None:
        return (last.line.size,)
    # Nor is it known whether the last one has resumed another; the newest few are enough.
    sent = last.line.transferred
    return (sent, *(before + sent for before in last.before))[:8]


def upload(line: LogLine) -> Upload:
    """Return what a worker and the history are told of a line."""
    return Upload(
        line.user, line.host, line.protocol, line.transferred, line.seconds, line.ended_ns
    )


def _fits(transfer: _Transfer, arrival: Arrival) -> bool:
    return (
        transfer.line.complete
        and _has_size(transfer, arrival.version.size)
        and _is_later(transfer, arrival.version)
    )


def _has_size(transfer: _Transfer, size: int) -> bool:
    line = transfer.line
    if line.size is not None:
        return line.size == size
    return size == line.transferred or any(
        size == before + line.transferred for before in transfer.before
    )


def _is_later(transfer: _Transfer, version: Version) -> bool:
    """Say whether a transfer was over after the file was written last.

    An uploader may set the modification time, to one in the future as well; the ctime only the
    kernel sets, and a change of mode or owner moves it too.
    """
    written_ns = min(version.mtime_ns, version.changed_ns or version.mtime_ns)
    ended_ns = transfer.line.ended_ns
    return not ended_ns or ended_ns + SLACK_NS >= written_ns
