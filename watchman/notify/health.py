"""What is wrong at the moment, said once; and the heartbeat, which goes through the kernel."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from watchman import guard, hanging, queued_logging, status
from watchman.filesystem import PATH_MAX
from watchman.journal import Journal
from watchman.mounts import is_polled
from watchman.mover import MoveStatus
from watchman.notify.destinations import subject_of
from watchman.notify.lasting import Lasting
from watchman.notify.schedule import RETRY_UNWATCHED
from watchman.sources.inotify import Source
from watchman.status.snapshot import Snapshot, TroubleStatus, WatchStatus
from watchman.text import printable

if TYPE_CHECKING:
    from watchman.notify.pipeline import Pipeline

log = logging.getLogger("watchman.notify")

BEAT = 10.0
"""Seconds between two touches of the heartbeat file."""
_LIMITS = {
    "fs.inotify.max_user_watches": "/proc/sys/fs/inotify/max_user_watches",
    "user.max_inotify_watches": "/proc/sys/user/max_inotify_watches",
}
"""The second is the one of the user namespace, which in a container may be another one."""
_ENOUGH = 524_288
_WATCHES = "inotify watches"


class Health:
    """Keeps ``STATE_DIR/status.json`` true while events come through."""

    def __init__(
        self, state_dir: str, source: Source, journal: Journal, lasting: Lasting | None = None
    ) -> None:
        self._state_dir = state_dir
        self._run_ns = status.run_of(state_dir)
        self._lasting = lasting or Lasting()
        self._lasting.begin()
        self._source = source
        self._journal = journal
        self._last: Snapshot | None = None
        self._started_ns = time.time_ns()
        self._file = os.path.join(state_dir, status.HEARTBEAT)
        self._next_beat = 0.0
        self._not_before = 0.0
        """When, by the monotonic clock, another question may be answered."""
        self._since: dict[str, int] = {}
        self._unwritten = False
        self._lock = threading.Lock()
        self.troubles: dict[str, str] = {}
        """What is not being watched, or not as it should be, and why."""
        self.unwatched: set[str] = set()
        """Directories for which the kernel has no watch left."""
        self._hanging: dict[str, TroubleStatus] = {}
        """What waits for a file system that does not answer."""
        self._listen()
        journal.patience.on_wait = self._journal_waits

    def _listen(self) -> None:
        with open(self._file, "ab"):
            self._source.listen(self._file)

    def trouble(self, path: str, error: OSError | None) -> None:
        """Take note of what a source says of a directory; None: it is fine again."""
        with self._lock:
            self._take_note(path, error)

    def _take_note(self, path: str, error: OSError | None) -> None:
        if error is not None and error.errno == errno.ENOSPC:
            self.unwatched.add(path)
            self._set(path, None, "")
        else:
            self.unwatched.discard(path)
            self._set(path, None if error is None else _reason(error), "Watching %s again")
        if len(self.unwatched) == 1:
            self._set(_WATCHES, _limit_reached(), "")
        elif not self.unwatched:
            self._set(_WATCHES, None, "%s are enough again")

    def left(self, path: str) -> None:
        """Take note that a directory with trouble is not there any more."""
        with self._lock:
            if self.troubles.pop(path, None) is not None:
                del self._since[path]
            if path in self.unwatched:
                self._take_note(path, None)

    def say(self, subject: str, reason: str | None) -> None:
        """Take note of what keeps files from being moved; None: nothing does."""
        with self._lock:
            self._set(subject, reason, "%s is possible again", "%s: %s")

    def hanging(self, found: Mapping[str, str]) -> None:
        """Take note of all that hangs: what waits → the mount point that it waits for."""
        if found.keys() == self._hanging.keys():
            return
        self._next_beat = 0.0
        for subject in self._hanging.keys() - found.keys():
            del self._hanging[subject]
            log.warning("%s: the file system answers again", printable(subject))
        for subject in found.keys() - self._hanging.keys():
            message = hanging.describe(found[subject])
            log.warning("%s: %s", printable(subject), message)
            since = time.time_ns()
            self._hanging[subject] = {"subject": subject, "message": message, "since_ns": since}

    def _set(
        self, subject: str, reason: str | None, healed: str, said: str = "Not watching %s: %s"
    ) -> None:
        if reason is None:
            if self.troubles.pop(subject, None) is not None:
                del self._since[subject]
                if healed:
                    log.warning(healed, printable(subject))
                self._next_beat = 0.0
            return
        if subject not in self.troubles:
            self._since[subject] = time.time_ns()
            log.warning(said, printable(subject), printable(reason))
            self._next_beat = 0.0
        self.troubles[subject] = reason

    def check(self, now: float) -> bool:
        """Touch the heartbeat when it is due; True if so."""
        if now < self._next_beat:
            return False
        self._next_beat = now + BEAT
        try:
            os.utime(self._file)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # the whole directory is gone, and the journal
                self._listen()
        return True

    def answer(self, pipeline: Pipeline) -> None:
        """Write the status file if the heartbeat was touched, by us or by who asks: events come."""
        now = time.monotonic()
        if self._source.beaten and now >= self._not_before:
            self._source.beaten = False
            self.write(pipeline)
            # However often somebody asks: the answers take a tenth of the time at most.
            after = time.monotonic()
            self._not_before = after + 10 * (after - now)

    def write(self, pipeline: Pipeline) -> None:
        """Write the status file; a full disk must not end the watching."""
        self._last = self.snapshot(pipeline)
        self._write(self._last)

    def last_word(self) -> None:
        """Say when this pipeline ended; nothing is watched until there is another."""
        if self._last is not None:
            self._last["watching"] = False
            self._renew()

    def _renew(self) -> None:
        """Say once more what was said last, with the troubles of now."""
        if self._last is not None:
            beat: Snapshot = {
                **self._last,
                "beat_ns": time.time_ns(),
                "beat_monotonic_ns": time.monotonic_ns(),
                "troubles": self._current_troubles(),
            }
            self._write(beat)

    def _journal_waits(self) -> None:
        """Renew the last word, with what everything waits for.

        Called by the thread that waits, which may hold what a new snapshot would need.
        """
        self._next_beat = 0.0
        self._renew()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            status.write(self._state_dir, snapshot)
        except OSError as error:
            if not self._unwritten:
                log.error("The status file cannot be written: %s", error)
            self._unwritten = True
        else:
            self._unwritten = False

    def snapshot(self, pipeline: Pipeline) -> status.Snapshot:
        """Return all that the pipeline knows of itself."""
        watches: list[WatchStatus] = [
            {
                "path": watch.path,
                "kind": watch.kind,
                "method": "poll" if is_polled(watch) else "inotify",
                "handler": status.handler(watch),
                "directories": pipeline.covers(watch),
            }
            for watch in pipeline.config.watches
        ]
        moves = pipeline.mover.status()
        found: status.Snapshot = {
            "pid": guard.pid(),
            "started_ns": self._started_ns,
            "run_ns": self._run_ns,
            "beat_ns": time.time_ns(),
            "beat_monotonic_ns": time.monotonic_ns(),
            "watching": pipeline.watching,
            "watches": watches,
            "notes": [
                {"subject": subject, "message": message, "since_ns": since_ns}
                for subject, message, since_ns in pipeline.remarks()
            ],
            "troubles": self._troubles_besides(moves) + _unsent(pipeline),
            "brokers": {
                name: {
                    "trouble": sender.trouble,
                    "since_ns": sender.trouble_since_ns,
                    "last_sent_ns": sender.last_sent_ns,
                }
                for name, sender in pipeline.senders.items()
            },
            "moves": [_as_status(move) for move in moves],
            "last_arrival_ns": pipeline.last_arrival_ns,
            "overflows": pipeline.overflows,
        }
        self._settle(found)
        return found

    def _settle(self, found: Snapshot) -> None:
        """Have troubles last that the pipeline before this one had already."""
        since = {f"trouble {one['subject']}": one["since_ns"] for one in found["troubles"]}
        since |= {f"broker {n}": b["since_ns"] for n, b in found["brokers"].items() if b["trouble"]}
        for move in found["moves"]:
            if move["stuck_since_ns"] is not None:
                since[f"move {move['source']} to {move['root']}"] = move["stuck_since_ns"]
        since = dict(self._lasting.settle(since))
        for one in found["troubles"]:
            one["since_ns"] = since[f"trouble {one['subject']}"]
        for name, broker in found["brokers"].items():
            broker["since_ns"] = since.get(f"broker {name}", broker["since_ns"])
        for move in found["moves"]:
            name = f"move {move['source']} to {move['root']}"
            move["stuck_since_ns"] = since.get(name, move["stuck_since_ns"])

    def _troubles_besides(self, moves: Iterable[MoveStatus]) -> list[TroubleStatus]:
        """Return all troubles but those of destinations of which the mover knows more."""
        told = {subject_of(move.source, move.root) for move in moves if move.reason}
        return [one for one in self._current_troubles() if one["subject"] not in told]

    def _current_troubles(self) -> list[TroubleStatus]:
        with self._lock:
            found: list[TroubleStatus] = [
                {"subject": subject, "message": reason, "since_ns": self._since[subject]}
                for subject, reason in self.troubles.items()
            ]
        found += [one.copy() for one in self._hanging.values()]
        patience = self._journal.patience
        if reason := patience.trouble:
            subject = self._journal.path
            found.append({"subject": subject, "message": reason, "since_ns": patience.since_ns})
        for subject, reason, since_ns in queued_logging.troubles():
            found.append({"subject": subject, "message": reason, "since_ns": since_ns})
        return found


def _as_status(move: MoveStatus) -> status.MoveStatus:
    copies = [copy._asdict() for copy in move.copies]
    found: status.MoveStatus = {**move._asdict(), "copies": copies}  # type: ignore[typeddict-item]  # — the same names
    return found


def _unsent(pipeline: Pipeline) -> list[TroubleStatus]:
    """Return what keeps senders from sending what is ready, their brokers' own troubles aside."""
    return [
        {"subject": subject, "message": message, "since_ns": since_ns}
        for sender in pipeline.senders.values()
        for subject, message, since_ns in sender.troubles()
    ]


def _reason(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{why}; give user {os.geteuid()} read and search permission there"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{why}; it is watched as soon as it is there"
    if error.errno == errno.ENAMETOOLONG:
        return (
            "directories in it are so deep that the paths of their files are longer than "
            f"{PATH_MAX} bytes, and no program can open those; move them up"
        )
    return f"{why}; it is tried again"


def _limit_reached() -> str:
    found = {name: limit for name, path in _LIMITS.items() if (limit := _read(path))}
    name = min(found, key=lambda name: found[name], default=next(iter(_LIMITS)))
    limit = found.get(name, 0)
    return (
        f"the limit of {limit} watches is reached; directories without one are only scanned, every "
        f"{RETRY_UNWATCHED:.0f} s; raise it with 'sysctl {name}={max(2 * limit, _ENOUGH)}'"
    )


def _read(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
