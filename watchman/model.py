"""The words of watchman as types: frozen records, documented enums, protocols.

Everything that passes between two stages is defined here, so that no stage imports another.
Paths are ``str`` decoded with ``os.fsdecode``: bytes that are not UTF-8 are kept as lone
surrogates and come out again unchanged through ``os.fsencode``. Times are integers in
nanoseconds since the epoch and end in ``_ns``; durations are floats in seconds. Records on the
hot path are NamedTuples: several times cheaper to make than frozen dataclasses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class State(enum.IntEnum):
    """What is true of a delivery, and what a restart does with it (ARCHITECTURE.md, "States")."""

    MOVING = 1
    """Route, task id and destination are recorded; the file is at its source, at its
    destination, or half-copied beside it. Restart: find out which, and go on."""
    READY = 2
    """The file is at its final path; the broker has not acknowledged. Restart: send (again)."""
    SENT = 3
    """The broker has acknowledged. Restart: nothing; kept for the history."""
    FAILED = 4
    """No retry can help. Restart: nothing; stays until an operator retries or discards it."""
    VANISHED = 5
    """The file was removed or replaced before it could be moved or sent. Restart: nothing."""
    MOVED = 6
    """The file is at its final path and no pattern asked for a task. Restart: nothing."""


class Noted(enum.IntEnum):
    """Why a version is known without a delivery. Where there is one, the journal has its seq."""

    UNKNOWN = 0
    """An older watchman has noted it."""
    UNASKED = -1
    """No pattern matched it and nothing moves it, or the watch's mask leaves it out."""
    BEFORE = -2
    """It was there before the first run, or before a start, and ``existing`` leaves that out."""
    DRY_RUN = -3
    """DRY_RUN matched it."""


class Version(NamedTuple):
    """What tells two contents at the same path apart; identity.py says how much each part tells.

    Every number fits into 64 bits with a sign, whatever an uploader has set.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    changed_ns: int = 0
    """The inode's ctime, which no uploader can set; 0 where it is not known, and for directories,
    whose ctime changes with their entries."""

    def same_content(self, other: Version) -> bool:
        """Compare inode, size and mtime.

        Without the device, whose number may change with each boot or mount, and without the
        ctime, which changes with modes, owners and links as well.
        """
        return self[1:4] == other[1:4]


class Route(NamedTuple):
    """A PATTERNS entry: which task, on which broker, with what around the path."""

    broker: str
    task: str
    args: tuple[Any, ...] = ()
    """Further positional arguments, after the final path."""
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    """Celery's ``apply_async`` options: queue, priority, expires, countdown, headers …"""


class Delivery(NamedTuple):
    """An arrival on its way: one row of the journal."""

    seq: int
    """Position in the journal; deliveries to one broker are sent in this order."""
    task_id: str
    source: str
    """The path before the move, the one that PATTERNS are matched against."""
    final: str
    """The path that the task gets; equal to ``source`` where nothing is moved."""
    version: Version
    arrived_ns: int
    route: Route | None
    """None where the file is only moved."""
    state: State
    kind: str = "files"
    """``files`` or ``directories``: the unit of the watch."""

    def in_state(self, state: State) -> Delivery:
        """Return the delivery in another state; several times faster than ``_replace``."""
        return Delivery(*self[:7], state, self.kind)


class Message(NamedTuple):
    """What a publisher needs to make one task message."""

    task_id: str
    path: str
    """The final path: the task's first positional argument."""
    source: str
    size: int
    mtime_ns: int
    arrived_ns: int
    route: Route


class Answer(enum.Enum):
    """What became of one message."""

    ACCEPTED = "accepted"
    """The broker has taken responsibility for it."""
    AGAIN = "again"
    """It may or may not be there (connection lost, time-out, alarm): send it again."""
    REFUSED = "refused"
    """The broker or the encoder will never take it as it is; a retry cannot help."""


class Outcome(NamedTuple):
    """A publisher's answer for one message, with the reason where it was not accepted."""

    answer: Answer
    reason: str = ""
    target: str = ""
    """With AGAIN: the queue or exchange that cannot take it now, as it is shown, where the broker
    takes what is for others; empty where nothing can be sent at all. Where the reason is empty
    too, it was not tried, because the target is on hold."""


ACCEPTED = Outcome(Answer.ACCEPTED)


class Publisher(Protocol):
    """Hands messages to one broker. Used from one thread; every call is bounded in time.

    A publisher classifies and never retries: retry and back-off live in ``sender``, once.
    """

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Answer for each message of the batch, in its order. Never raises for broker trouble."""
        ...

    def hold(self, targets: frozenset[str]) -> None:
        """Send nothing to these targets from now on: answer with AGAIN and no reason at once."""
        ...

    def tend(self) -> str | None:
        """Keep an idle connection alive (heartbeats), or open it again; the reason why that fails.

        Called every few seconds when there is nothing to send.
        """
        ...

    def check(self) -> str | None:
        """Connect once; None if the broker can be used, else the reason why not."""
        ...

    def close(self) -> None:
        """Let go of the connection without waiting for the broker."""
        ...


@dataclass(frozen=True, slots=True)
class Broker:
    """A BROKERS entry."""

    name: str
    urls: tuple[str, ...]
    """Tried in order (failover); at least one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Celery's ``broker_transport_options`` for it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A WATCHES entry: a directory, and how it is watched."""

    path: str
    """Absolute and normalised; never ends in a slash unless it is the root directory."""
    rec: bool = False
    auto_add: bool = False
    mask: int | None = None
    """The kernel events with which something arrives; None for all that can complete a file."""
    exclude: Callable[[str], bool] | None = None
    """True for a directory that is not to be watched (pyinotify's ``exclude_filter``)."""
    quiet: bool = True
    """Accepted, as pyinotify has it, and without effect: what cannot be watched is always told."""
    settle: float | None = None
    """Seconds for which size and mtime must be unchanged; None for 0 where leases work and
    10 where they do not."""
    existing: str = "new"
    """``new``, ``all`` or ``none``: what the first run does with what is already there."""
    method: str = "auto"
    """``inotify``, ``poll``, or ``auto``: by the file system's type."""
    interval: float = 10.0
    """Seconds between two polls."""
    rescan: float = 3600.0
    """Seconds between two catch-up scans; 0 for never."""
    kind: str = "files"
    """``files`` or ``directories``."""
    unfinished: tuple[str, ...] | None = None
    """fnmatch patterns for the names of directories that are still being filled; None for those
    whose extension, what follows the last dot, begins with ``tmp``."""
    marker: str | None = None
    """The name of a file that must be in a directory before it is finished."""
    processor: Any = None
    """A pyinotify.ProcessEvent class or instance of the user's own that gets the raw events."""
    processor_name: str = ""
    """What to call it in the log: its dotted path."""
    pattern: str = ""
    """The pattern (pyinotify's ``do_glob``) that the path matches; empty where it was given."""

    @property
    def prefix(self) -> str:
        """The path with exactly one slash behind it."""
        return self.path.rstrip("/") + "/"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, validated configuration."""

    path: str
    watches: tuple[Watch, ...]
    brokers: Mapping[str, Broker]
    patterns: tuple[tuple[str, Route], ...]
    """In the order written; the first match wins."""
    moves: tuple[tuple[str, str], ...]
    """(source directory, destination root), longest source first."""
    ignore: tuple[str, ...]
    dry_run: tuple[str, ...]
    state_dir: str
    pid_file: str
    log_dir: str
    """Where the output of the daemon goes, as watchman.out and watchman.err, unless:"""
    logging: Mapping[str, Any]
    """A ``logging.config.dictConfig`` dict."""
    celery: Mapping[str, Any]
    """Settings of celeryconfig.py by their names as written there; no broker URL among them."""
    proftpd: bool = False
    retention: float = 30 * 86400.0
    """Seconds for which finished deliveries are kept for the history."""
    warnings: tuple[str, ...] = ()
    """What is accepted but ignored, one line each: said once at the start."""
    out_file: str = ""
    err_file: str = ""
    """Files for the daemon's output, where they are named one by one; empty: in ``log_dir``."""
    globs: tuple[Watch, ...] = ()
    """The entries with ``do_glob``: their paths are patterns. What matches is in ``watches``."""
    belongings: Any = field(default=None, compare=False, repr=False)
    """What its code brought into the process (``config.belongings``)."""
