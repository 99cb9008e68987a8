"""The running watchman's own word: a snapshot in ``status.json``."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from watchman.errors import WatchmanError
from watchman.model import Watch, WatchKind
from watchman.record_locks import lock_of
from watchman.replacement import remove_left, replace

FILE = "status.json"
HEARTBEAT = "heartbeat"
_LOOK = 0.01
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BLOCK = 512
"""Bytes in what st_blocks counts, stat(2)."""

FILES_HANDLER = "watchman.processors.CompletedFiles"
DIRECTORIES_HANDLER = "watchman.processors.FinishedDirectories"


class ShownWatch(TypedDict):
    """One watch."""

    path: str
    kind: str
    method: str
    """``inotify`` or ``poll``: what is in force."""
    handler: str
    """:func:`handler`."""
    directories: int


class _OfKind(TypedDict, total=False):
    """What an older watchman has written does not have."""

    kind: str
    """What tells a trouble from others of the same subject; not for people."""


class ShownTrouble(_OfKind):
    """Something that is not being watched (or not as it should be), or not being recorded."""

    subject: str
    message: str
    since_ns: int


class ShownBroker(TypedDict):
    """One broker's sender."""

    trouble: str
    """Why it takes no tasks; empty while it does."""
    since_ns: int
    """Since when there is trouble; 0 while there is none."""
    last_sent_ns: int
    """0 if nothing was sent since the start."""
    rate: float
    """Tasks a second that it took in the last minute."""


class ShownCopy(TypedDict):
    """A copy to another file system, in progress; sizes in bytes."""

    source: str
    final: str
    done: int
    total: int
    rate: float
    """Bytes a second, since it began."""
    eta_s: float | None
    """Seconds that are left; None where nobody can tell."""


class ShownMove(TypedDict):
    """One MOVES entry: fields of ``mover.DestinationStatus``."""

    source: str
    root: str
    waiting: int
    stuck_since_ns: int | None
    reason: str
    troubles: Sequence[Sequence[Any]]
    """(since_ns, what and where) each."""
    copies: Sequence[ShownCopy]
    rate: float
    """Files a second that were moved in the last minute."""
    eta_s: float | None
    """Seconds until what waits is moved, at that rate; None where nothing moves."""


class ShownScan(TypedDict):
    """A scan that has taken some seconds: a first run, or a catch-up."""

    paths: list[str]
    """The watches that are scanned together."""
    first_run: bool
    since_ns: int
    listed: int
    """Files that were looked at so far."""
    listing: bool
    """Whether there may be more of them."""
    new: int
    """Those of them that were not known."""
    done: int
    """Those of the new ones that have been dealt with."""
    rate: float
    """Files a second: listed, or dealt with when all are listed."""
    eta_s: float | None


class ShownOpen(TypedDict):
    """A file that is being written."""

    path: str
    since_ns: int
    """When it was first seen so."""


class ShownPartial(TypedDict):
    """A file that does not meet its criteria."""

    path: str
    since_ns: int
    """Since when it is as it is."""
    reason: str


class ShownReading(TypedDict):
    """A file that is read for long, to tell whether it is whole."""

    path: str
    asked: list[str]
    """What it must be: formats, companions' names, functions."""
    since_ns: int


class Snapshot(TypedDict):
    """What the pipeline knows of itself. Times are in ns since the epoch, 0 for never."""

    pid: int
    started_ns: int
    run_ns: int
    """:func:`run_of` the process: whose word this is, whatever the clock did since."""
    beat_ns: int
    """When this was written; the proof that events come through."""
    beat_monotonic_ns: int
    """The same by the monotonic clock, which goes on while the other is set."""
    clock_set_ns: int
    """By how much the clock of all other times was set since the process began."""
    watching: bool
    """Whether the first scan is over."""
    watches: list[ShownWatch]
    troubles: list[ShownTrouble]
    notes: list[ShownTrouble]
    """Files that get no task, or get it late, by watch."""
    brokers: dict[str, ShownBroker]
    moves: list[ShownMove]
    last_arrival_ns: int
    overflows: int
    rates: dict[str, float]
    """Deliveries a second over the last minute: ``in`` recorded, ``out`` sent, or moved without
    a task."""
    incomplete: int
    """How many files are being written, or have not settled."""
    being_written: list[ShownOpen]
    """The oldest few of those that are being written."""
    unjudged: int
    """How many files wait, complete, for a first word whether they meet their criteria."""
    partial: int
    """How many files wait, complete, because they do not meet their criteria."""
    oldest_partial: list[ShownPartial]
    """A few of those, of those that have waited for longest."""
    being_read: list[ShownReading]
    """Those that are read for more than some seconds."""
    scans: list[ShownScan]


def run_of(state_dir: str) -> int:
    """Return what tells the run that holds STATE_DIR from all before it; 0 for none.

    It is when the lock was written; not even the process id tells as much, in a container.
    """
    try:
        return os.stat(lock_of(state_dir)).st_mtime_ns
    except OSError:
        return 0


def have_written(state_dir: str, timeout: float) -> bool:
    """Have the running watchman write a new snapshot; False if it has not within ``timeout``.

    Whoever touches the heartbeat asks: that event comes to it through the kernel. ``timeout`` is
    in seconds. Raises WatchmanError where the last snapshot may not be read.
    """
    path = os.path.join(state_dir, FILE)
    deadline = time.monotonic() + timeout
    last = read(state_dir)
    if last is None or last["run_ns"] != run_of(state_dir):
        return False  # it has not said anything yet
    try:
        before = os.stat(path)
        os.utime(os.path.join(state_dir, HEARTBEAT))
        while time.monotonic() < deadline:
            now = os.stat(path)
            if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                return True
            time.sleep(_LOOK)
    except OSError:
        return False  # none is there, or it is another user's
    return False


def broker_trouble(name: str, broker: ShownBroker) -> ShownTrouble:
    """Return what is to be said of a broker that takes no tasks, and the remedy."""
    remedy = "see that it runs and can be reached: 'notify check' tries it, and tasks wait"
    message = f"{broker['trouble']}; {remedy}"
    return {"subject": f"broker {name}", "message": message, "since_ns": broker["since_ns"]}


def handler(watch: Watch) -> str:
    """Return the dotted name of what handles a watch's events."""
    if watch.processor_name:
        return watch.processor_name
    return DIRECTORIES_HANDLER if watch.kind is WatchKind.DIRECTORIES else FILES_HANDLER


def write(state_dir: str, snapshot: Mapping[str, Any]) -> None:
    """Replace the snapshot in one step (0600). NamedTuples in it are written as objects.

    Not fsynced: after a crash of the machine it is of no use. Raises OSError.
    """
    words = json.dumps(plain(snapshot)).encode("ascii")
    try:
        replace(os.path.join(state_dir, FILE), words)
    except OSError as error:
        if error.errno not in _FULL or not _overwrite(os.path.join(state_dir, FILE), words):
            raise


def remove_drafts(state_dir: str) -> None:
    """Remove what processes that were killed while they wrote a snapshot have left."""
    remove_left(os.path.join(state_dir, FILE))


def _overwrite(path: str, words: bytes) -> bool:
    """Write over the last snapshot, where a full disk has no room for a second; False if longer.

    In that case the file would be torn. Who reads meanwhile may find no snapshot.
    """
    try:
        with open(path, "r+b", buffering=0) as file:
            found = os.fstat(file.fileno())
            fits = len(words) <= found.st_blocks * _BLOCK
            if fits:
                file.write(words.ljust(found.st_size))
            return fits
    except OSError:
        return False


def read(state_dir: str) -> Snapshot | None:
    """Return the last snapshot, of whichever process wrote it; None if there is none.

    Raises WatchmanError where it may not be read.
    """
    path = os.path.join(state_dir, FILE)
    try:
        with open(path, encoding="ascii") as file:
            snapshot = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise WatchmanError(
            f"{path} cannot be read: {error.strerror}; try it as the user that watchman runs as"
        ) from error
    return understood(snapshot)


def understood(snapshot: Any) -> Snapshot | None:
    """Return what was read of JSON as a snapshot; None where it is none, or another version's."""
    if not isinstance(snapshot, dict) or not snapshot.keys() >= Snapshot.__required_keys__:
        return None
    found: Snapshot = snapshot  # type: ignore[assignment]  # — its keys have been looked at
    return found


def plain(value: Any) -> Any:
    """Return a snapshot, or a part of it, as JSON has it."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
