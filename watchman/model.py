"""The words of watchman as types: frozen records, documented enums, protocols.

Everything that passes between two stages is defined here, so that no stage imports another.

Paths are ``str`` decoded with ``os.fsdecode``: bytes that are not UTF-8 are kept as lone
surrogates and come out again unchanged through ``os.fsencode``. Times are integers in
nanoseconds since the epoch and end in ``_ns``; durations are floats in seconds. Records on the
hot path are NamedTuples: several times cheaper to make than frozen dataclasses.

Words that are ours, in the order in which a file meets them (the others are those of inotify(7),
SQLite, Celery and AMQP):

watch
    A WATCHES entry: a directory, and how it is watched.
unit
    What a watch announces: a file, or with ``kind='directories'`` a directory as a whole.
container
    A directory whose directories are units: a watch's own path, or one that is no unit itself.

Hint:
    "Look here": a directory and a name in it, from a kernel event, a scan, or a file that turned
    out to have changed. It decides nothing; the file system does.
complete, finished
    Nobody has the file open for writing any more; the uploader is done with the directory.
version
    What tells two contents at one path apart: device, inode, size, mtime and ctime.
known
    The journal's table of the versions last dealt with, by path: what is in it is no news.
arrival
    A complete file, or finished directory, whose version is not known.
noted
    Known without a delivery: there before the first run, not asked for, or matched by DRY_RUN.
route
    A PATTERNS entry: which task, on which broker. An arrival takes the first that matches.
move, MOVES entry
    A source directory and a destination root. An arrival below the one is moved below the other.
criterion, criteria
    One thing that ``complete`` asks of a complete file before it is an arrival; all of them.
companion
    A file beside another, by which that one is told to be whole: a marker, a checksum, a size.
set
    A file and those that go with it (``with``), announced together when all are complete: the
    **main file**, which the pattern matches, and its **members**.
verdict
    What the bytes of a file tell: it is whole, it is **partial**, or nobody can say.
incomplete
    A file that has met its criteria not in time.
transfer log, upload
    A file in which a server writes a line for each transfer; what such a line tells of a file.
delivery
    An arrival on its way, one row of the journal; its **seq** is its number there, its **source**
    the path where it arrived, its **final** path the one that the task gets.
bundle
    Files that one task announces together, each a delivery of its own: a **set**, or a **batch**,
    which are files of one pattern (``batch``). Of those that are READY one is the **leader**:
    where it stands, senders find the bundle.
open batch
    A batch that further files join, until it is full or its time is over.
act
    What an operator did to a delivery: tried it again, or sent it again as a second delivery.
target
    The queue or exchange that a broker puts a message into; **paused** while it takes nothing.
hold
    An operator's word that tasks are to wait: those of a broker, of a task's name, or of what is
    below a directory. What a hold has kept is still READY.
stage
    A part of the pipeline with threads of its own.
station
    Where a thread works that may hang, and since when it has not come back.
trouble, note
    What is wrong, and the remedy; files that get no task, or get it late. Both are said once, and
    are in ``notify status`` as long as they last.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

_WILDCARD = re.compile("[*?[]")

record_of: Any = tuple.__new__
"""Makes a record of its type and a tuple of all its fields: ``record_of(Version, (…))``. For what
is made for each file: the type itself takes three times as long, and does the same."""


INCOMPLETE = "incomplete: "
"""How the reason of a delivery begins whose file has not met its criteria in time."""
DISCARDED = "discarded by "
"""How the reason of a delivery begins that somebody gave up."""


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
    COMPANION = -4
    """It only tells of the file that it stands beside."""
    MEMBER = -5
    """It goes with a main file that did not come, or others of whose set did not, in time."""


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


MOST_BATCHED = 1000
"""Files in a batch at the most: they are one message, and looked at together before it is sent."""
LONGEST_BATCH = 3600.0
"""Seconds for which a file waits for others at the most."""


class Batch(NamedTuple):
    """Which files of one route one task announces together (``batch``)."""

    size: int
    """How many at the most."""
    seconds: float
    """For how long the first of them waits for others at the most."""
    by_directory: bool = False
    """Whether all of them must be in one directory."""

    def as_given(self) -> dict[str, Any]:
        """Return it as a configuration says it."""
        by = {"by": "directory"} if self.by_directory else {}
        return {"size": self.size, "seconds": self.seconds, **by}


class BundleKind(enum.Enum):
    """Why files are announced together; the values are what the journal has."""

    SET = "set"
    """A main file and its members: without one of them there is no task."""
    BATCH = "batch"
    """Files of one route: if one of them vanishes, the task is about the others."""


class Bundle(NamedTuple):
    """Files that one task announces together."""

    id: int
    """Its number in the journal, never given to another one."""
    task_id: str
    kind: BundleKind


class Route(NamedTuple):
    """A PATTERNS entry: which task, on which broker, with what around the path."""

    broker: str
    task: str
    args: tuple[Any, ...] = ()
    """Further positional arguments, after the final path."""
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    """Celery's ``apply_async`` options: queue, priority, expires, countdown, headers …"""
    batch: Batch | None = None
    """Whether one task announces several files, and which."""


class Criterion(NamedTuple):
    """One thing that ``complete`` asks of a file."""

    kind: str
    """``format``, ``marker``, ``checksum``, ``size`` or ``callable``."""
    argument: str
    """The format; how the companion is called, with ``{name}`` and ``{stem}`` in it; a name
    pattern with ``{size}`` in it; what the callable is called."""
    function: Any = None
    """The callable."""


class Member(NamedTuple):
    """A file that goes with another one (``with``)."""

    template: str
    """How it is called, with ``{name}`` or ``{stem}`` of the main file in it."""
    optional: bool = False
    """Whether the set goes without it if it does not come in time."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """All that is asked of a file (``complete``, ``with``); what becomes of one without it."""

    each: tuple[Criterion, ...]
    incomplete_after: float = 3600.0
    """Seconds for which a file may stay as it is before it is incomplete."""
    incomplete: Route | None = None
    """The task that is sent for it then."""
    marker_action: str = "move"
    """What becomes of companions of one file: ``move`` with it, ``remove``, ``keep``."""
    members: tuple[Member, ...] = ()
    """The files that go with it; it is the main file of a set where there are any."""
    set_after: float = 5.0
    """Seconds since the last file of the set came, for which optional members, and further ones
    of a set that is uploaded again, are waited for."""


class Move(NamedTuple):
    """A MOVES entry: what is below ``source`` is moved to the same place below ``root``."""

    source: str
    root: str

    @property
    def subject(self) -> str:
        """What it is called among the troubles."""
        return f"moving {self.source} to {self.root}"


class HoldKind(enum.Enum):
    """What a hold is for; the values are what the journal and ``--json`` have."""

    BROKER = "broker"
    TASK = "task"
    DIRECTORY = "directory"


class Hold(NamedTuple):
    """An operator's word that tasks are to wait: they are recorded and moved, and not sent."""

    id: int
    """Its number in the journal, never given to another one."""
    kind: HoldKind
    name: str
    """The broker's or the task's name, or the path of the directory."""
    since_ns: int
    by: str
    """Who has ordered it."""


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
    """The value of the watch's :class:`WatchKind`, as the journal has it."""
    told: str = ""
    """What was told of the file: ``incomplete: …``, or its verified checksum, as ``sha256:…``."""
    bundle: int = 0
    """The number of the bundle that it belongs to; 0 for none."""

    @property
    def is_incomplete(self) -> bool:
        """Whether the file has not met its criteria in time."""
        return self.told.startswith(INCOMPLETE)

    @property
    def once_moved(self) -> State:
        """The state that follows MOVING."""
        if self.route is not None:
            return State.READY
        return State.FAILED if self.is_incomplete else State.MOVED


class ReadyPage(NamedTuple):
    """Deliveries in state READY, in the order in which they are to be sent."""

    rows: list[Delivery]
    """Those of one bundle follow each other, its leader first, and have the id of its task."""
    bundles: Mapping[int, Bundle]
    """Those that the rows belong to, by number."""
    last: int
    """The seq behind which the next page begins."""
    cut: bool
    """Whether there are more before that which was asked for."""


class Upload(NamedTuple):
    """What a transfer log tells of the upload that a file came by."""

    user: str
    """Empty where it is not told, as ``host`` and ``protocol``."""
    host: str
    """The client's name or address."""
    protocol: str
    """``ftp``, ``sftp`` …, as the server calls it."""
    size: int
    """Bytes that were transferred: fewer than the file has where an upload was resumed."""
    seconds: float | None
    """How long that took; None where the log does not tell."""
    ended_ns: int
    """When it was over by the server's clock; 0 where the log does not tell."""


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
    headers: Mapping[str, str | int | float] = {}
    """Further headers of this message alone; their names begin with ``watchman_``."""
    files: tuple[str, ...] = ()
    """Of a bundle: the final paths of all its files, the task's keyword argument ``files``."""


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
    too, it was not tried, because the target is paused."""


ACCEPTED = Outcome(Answer.ACCEPTED)


class Publisher(Protocol):
    """Hands messages to one broker. Used from one thread; every call is bounded in time.

    A publisher classifies and never retries: retry and back-off live in ``sender``, once.
    """

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Answer for each message of the batch, in its order. Never raises for broker trouble."""
        ...

    def pause(self, targets: frozenset[str]) -> None:
        """Send nothing to these targets from now on: answer with AGAIN and no reason at once."""
        ...

    def keepalive(self) -> str | None:
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
class TransferLog:
    """A TRANSFER_LOGS entry: a log in which a server tells of uploads."""

    path: str
    format: str
    """xferlog, vsftpd, clf, stats, w3c or extended."""
    log_format: str
    """ProFTPD's LogFormat of an extended log; else empty."""
    prefixes: Mapping[str, str]
    """Where paths in the log lead; ``{user}`` stands for the name of the user."""
    utc: bool
    """Whether times without a zone are UTC, as servers write them in a chroot."""
    wait: float
    """Seconds that a task waits at the most, from its file's arrival on, for the file's line."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Whom to tell of something: a command, a URL or a function; one of the three."""

    setting: str
    name: str
    """What to call it in messages."""
    command: tuple[str, ...] = ()
    """Program and arguments; the event comes on its standard input."""
    url: str = ""
    function: Any = None


class WatchKind(enum.Enum):
    """What a watch announces; the values are what a configuration says."""

    FILES = "files"
    DIRECTORIES = "directories"
    """A whole directory is one arrival, when it is finished."""


class Method(enum.Enum):
    """How a watch finds out what happens; the values are what a configuration says."""

    AUTO = "auto"
    """By the file system's type."""
    INOTIFY = "inotify"
    POLL = "poll"


class Existing(enum.Enum):
    """What a watch does with what was there before; the values are what a configuration says."""

    NEW = "new"
    """Its first run only notes it; what came while watchman was down is an arrival."""
    ALL = "all"
    """It is an arrival, in the first run as well."""
    NONE = "none"
    """Each start only notes it."""


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
    existing: Existing = Existing.NEW
    method: Method = Method.AUTO
    interval: float = 10.0
    """Seconds between two polls."""
    rescan: float = 3600.0
    """Seconds between two catch-up scans; 0 for never."""
    kind: WatchKind = WatchKind.FILES
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
    criteria: Criteria | None = None
    """What is asked of files below, where their pattern does not ask for anything itself."""
    require_log: bool = False
    """Whether a file waits until a transfer log calls it complete."""

    @property
    def top(self) -> str:
        """The directory below which no symlink is followed: what matches is made by uploaders."""
        if not self.pattern:
            return self.path
        # A wildcard that `glob.escape` has put into brackets counts as one, which does no harm.
        literal = _WILDCARD.split(self.pattern, maxsplit=1)[0]
        return literal if literal == self.pattern else literal.rpartition("/")[0] or "/"

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
    transfer_logs: tuple[TransferLog, ...] = ()
    proftpd: bool = False
    retention: float = 30 * 86400.0
    """Seconds for which finished deliveries are kept for the history."""
    warnings: tuple[str, ...] = ()
    """What is accepted but ignored, one line each: said once at the start."""
    log_size: int = 50_000_000
    """Bytes from which on a file of the daemon's output is rotated; 0 for never."""
    log_files: int = 5
    """How many rotated ones are kept of each."""
    out_file: str = ""
    err_file: str = ""
    """Files for the daemon's output, where they are named one by one; empty: in ``log_dir``."""
    globs: tuple[Watch, ...] = ()
    """The entries with ``do_glob``: their paths are patterns. What matches is in ``watches``."""
    criteria: tuple[Criteria | None, ...] = ()
    """What is asked of the files of each pattern; as many as ``patterns``, or none at all."""
    quarantine: str = ""
    """Where incomplete files are moved; empty where they stay."""
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The settings that config.py gives; the others have their defaults."""
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    """By setting: ON_FAILED, ON_TROUBLE, ON_RECOVERED."""
    metrics_file: str = ""
    """Where the metrics are written for node_exporter; empty: nowhere."""
    belongings: Any = field(default=None, compare=False, repr=False)
    """What its code brought into the process (``config.belongings``)."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route that a delivery can get: those of PATTERNS, and of what is incomplete."""
        asked = (one.incomplete for one in self.criteria if one is not None)
        incomplete = (route for route in asked if route is not None)
        return (*(route for _, route in self.patterns), *incomplete)

    @property
    def has_criteria(self) -> bool:
        """Whether anything is asked of any file."""
        watches = (*self.watches, *self.globs)
        return any(self.criteria) or any(watch.criteria is not None for watch in watches)

    @property
    def all_moves(self) -> tuple[tuple[str, str], ...]:
        """MOVES, and from each watch into the quarantine, where there is one."""
        if not self.quarantine or not (self.has_criteria or self.transfer_logs):
            return self.moves
        files = [watch.path for watch in self.watches if watch.kind is WatchKind.FILES]
        into = ((path, self.quarantine) for path in files)
        # Each once, as one thread moves: MOVES may lead there too, a path may be watched twice.
        return tuple(dict.fromkeys((*self.moves, *into)))
