"""The thread that reads TRANSFER_LOGS, and what senders and the journal are told of them.

A line may be written before its file is closed (vsftpd) or a moment after (ProFTPD, pure-ftpd). So
the journal asks for it while an arrival is recorded, and where it comes later it is noted when it
does. No file waits for that; a task does, a few ms (``wait``), where a log may still tell.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

from watchman import clock, limits
from watchman.errors import JournalError, SourceError
from watchman.journal import Journal
from watchman.model import Delivery, TransferLog, Upload, Version
from watchman.pipeline.parts_listener import PartsListener
from watchman.pipeline.schedule import CHECK
from watchman.sources import instance
from watchman.sources.instance import Instance
from watchman.text import printable
from watchman.transfer_logs import extended, line_formats
from watchman.transfer_logs.following import FollowedLog, Position
from watchman.transfer_logs.line import Parser
from watchman.transfer_logs.line_matching import Arrival, Matching
from watchman.transfer_logs.mapping import Prefixes
from watchman.troubles import Troubles

log = logging.getLogger("watchman.notify")

PAUSE = 0.005
"""Seconds between two reads: what comes meanwhile is read together."""
READ_AGAIN = 60.0
"""Seconds of lines that are read again after a restart: their files may not be recorded yet."""
WRITE = 1.0
"""Seconds between two commits of what was read."""
END = 5.0
"""Seconds that the thread gets at the end. It may hang: logs can be on any file system."""
_LOG = instance.IN_MODIFY | instance.IN_ATTRIB | instance.IN_MOVE_SELF | instance.IN_DELETE_SELF
_DIRECTORY = instance.IN_CREATE | instance.IN_MOVED_TO
_UNREAD, _GARBAGE, _UNMAPPED = "transfer log", "lines", "paths"
"""Kinds of troubles."""


class _Log:
    """A log, how its lines are read, and what came of them."""

    def __init__(self, entry: TransferLog, position: Position | None) -> None:
        self.entry = entry
        self.prefixes = Prefixes(entry.prefixes)
        self.parse = parser_of(entry)
        self.followed = FollowedLog(entry.path, position)
        self.watched: int | None = None
        """The descriptor that is watched."""
        self.is_listening = False
        """Whether its directory is watched."""
        self.since_missing: float | None = None
        self.is_read = True
        """Whether it could be read when that was last tried, or is only not there."""
        self.garbage = 0
        self.unmapped = 0
        self.positions: collections.deque[tuple[float, Position]] = collections.deque()
        """How far it was read, and when."""

    def note_position(self, now: float) -> None:
        """Remember how far it was read, once in a while."""
        position = self.followed.position()
        if position is not None and (not self.positions or now - self.positions[-1][0] > WRITE):
            self.positions.append((now, position))

    def position(self, now: float) -> Position | None:
        """Return where to go on after a restart, the last time; None if that was told before."""
        found = None
        while self.positions and self.positions[0][0] <= now - READ_AGAIN:
            found = self.positions.popleft()[1]
        return found


def parser_of(entry: TransferLog) -> Parser:
    """Return what reads the lines of a log."""
    if entry.format == "extended":
        return extended.parser(entry.log_format, utc=entry.utc)
    return line_formats.parser(entry.format, utc=entry.utc)


class TransferLogReader:
    """Follows the logs in a thread of its own, and is asked by the senders' and the recorders'."""

    def __init__(
        self,
        entries: Sequence[TransferLog],
        journal: Journal,
        troubles: Troubles,
        listener: PartsListener,
    ) -> None:
        self._journal = journal
        self._listener = listener
        self._troubles = troubles
        self._matching = Matching()
        self._logs = [_Log(entry, _position(journal, entry.path)) for entry in entries]
        self._longest_wait = max(entry.wait for entry in entries)
        self._told = threading.Condition()
        """For those who wait for a line."""
        self._instance: Instance | None = None
        self._written_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transfer-logs", daemon=True)
        self.error: BaseException | None = None
        """What ended the thread."""

    # Called by others

    def start(self) -> None:
        """Begin to read; from now on the journal asks about each file that it records."""
        self._journal.uploads.drop_after(self._journal.last_seq())
        self._journal.uploads.logged = self
        self._thread.start()

    def stop(self) -> None:
        """End the thread. One that hangs ends with the process, and has no effect."""
        self._stopping.set()
        self._journal.uploads.logged = None
        if self._instance is not None:
            self._instance.wake()
        with self._told:
            self._told.notify_all()
        if self._thread.ident is not None:
            self._thread.join(END)
            if self._thread.is_alive():
                self._journal.shut_out(self._thread)

    def arrived(self, seq: int, path: bytes, version: Version) -> Upload | None:
        """Return what a log tells of a file that is being recorded; else wait for its line."""
        return self._matching.arrived(Arrival(seq, path, version), time.monotonic())

    def verdict(self, path: str, version: Version) -> bool | None:
        """Say whether a log calls a file complete as it is; None where none tells."""
        return self._matching.verdict(os.fsencode(path), version, time.monotonic())

    def await_line(self, path: str) -> None:
        """Have the file at a path looked at again when a log tells of it."""
        self._matching.await_line(os.fsencode(path), time.monotonic())

    def of(self, deliveries: Sequence[Delivery]) -> Mapping[int, Upload]:
        """Return what logs tell of deliveries, by seq; for those that just came, after a moment."""
        uploads = self._journal.uploads
        found = uploads.of([delivery.seq for delivery in deliveries])
        now_ns = time.time_ns()
        late = [
            delivery
            for delivery in deliveries
            if clock.is_recent(delivery.arrived_ns, now_ns, self._longest_wait)
            and delivery.seq not in found
        ]
        if not late:
            return found

        def all_told() -> bool:
            now = time.monotonic()
            waited_for = any(self._matching.waits(os.fsencode(one.source), now) for one in late)
            return self._stopping.is_set() or not waited_for

        with self._told:
            self._told.wait_for(all_told, max(0.0, max(map(self._until, late)) - time.time()))
        return found | uploads.of([delivery.seq for delivery in late])

    def _until(self, delivery: Delivery) -> float:
        """Return until when (s since the epoch) a task waits for its file's line."""
        waits = [
            one.entry.wait
            for one in self._logs
            if one.is_read and one.prefixes.may_lead_to(delivery.source)
        ]
        return delivery.arrived_ns / 1e9 + max(waits, default=0.0)

    # The thread

    def _run(self) -> None:
        try:
            with contextlib.suppress(SourceError):  # it is looked every two seconds then
                self._instance = Instance()
                self._instance.start()
            while not self._stopping.is_set():
                self._turn()
            self._write(time.monotonic())
        except JournalError as error:
            self.error = error
        except BaseException as error:
            log.exception("Reading transfer logs ended")
            self.error = error
        finally:
            for one in self._logs:
                one.followed.close()
            if self._instance is not None:
                self._instance.close()

    def _turn(self) -> None:
        for one in self._logs:
            self._read(one)
        now = time.monotonic()
        if now - self._written_at >= WRITE:
            self._write(now)
        if self._instance is None:
            self._stopping.wait(CHECK)
        elif self._instance.take(CHECK if self._journal.uploads.is_written else WRITE):
            self._stopping.wait(PAUSE)

    def _read(self, one: _Log) -> None:
        """Read what is new in a log; say what is wrong with it."""
        try:
            for lines in one.followed.read():
                self._take(one, lines)
                if self._stopping.is_set():
                    return
            one.is_read = True
        except OSError as error:
            one.is_read = False
            wrong = f"{error.strerror}; give watchman's user read permission, or correct the path"
            wrong = limits.explain(error) or wrong
            self._troubles.begin(
                one.entry.path,
                f"the transfer log cannot be read: {wrong}; nobody knows who uploads what",
                _UNREAD,
            )
            return
        now = time.monotonic()
        one.note_position(now)
        self._watch(one)
        self._say(one, now)

    def _take(self, one: _Log, lines: Sequence[bytes]) -> None:
        now = time.monotonic()
        for raw in lines:
            try:
                line = one.parse(raw)
            except ValueError:
                one.garbage += 1
                continue
            if line is None:
                continue
            path = one.prefixes.path(line)
            if path is None:
                one.unmapped += 1
                continue
            told = self._matching.logged(path, line, now)
            waiting = self._matching.take_awaited(path, now, exact=line.exact)
            if waiting:
                self._listener.changed(list(map(os.fsdecode, waiting)))
            if told is not None:
                arrival, upload = told
                self._journal.uploads.note(arrival.seq, upload)
                self._matching.settled(arrival, now)
        with self._told:
            self._told.notify_all()

    def _watch(self, one: _Log) -> None:
        """Have the kernel tell of the log as it is open now, and of what takes its place."""
        if self._instance is None:
            return
        if not one.is_listening:
            directory = os.path.dirname(one.entry.path)
            one.is_listening = self._instance.listen(directory, _DIRECTORY) >= 0
        descriptor = one.followed.descriptor
        if descriptor is not None and descriptor != one.watched:
            with contextlib.suppress(OSError):  # it is looked every two seconds then
                self._instance.add(descriptor, _LOG)
                one.watched = descriptor

    def _write(self, now: float) -> None:
        positions = {one.entry.path: one.position(now) for one in self._logs}
        self._journal.uploads.write(
            {path: position for path, position in positions.items() if position is not None}
        )
        self._written_at = now

    # What is wrong

    def _say(self, one: _Log, now: float) -> None:
        path, troubles = one.entry.path, self._troubles
        if one.followed.is_missing:
            if one.since_missing is None:
                one.since_missing = now
            if now - one.since_missing >= CHECK:  # else it is just being rotated
                troubles.begin(
                    path,
                    "the transfer log is not there; have the server write it, or correct "
                    "TRANSFER_LOGS: until then nobody knows who uploaded what",
                    _UNREAD,
                )
            return
        one.since_missing = None
        troubles.end(path, _UNREAD, line="%s: the transfer log is read")
        if one.followed.lost:
            one.followed.lost = False
            unreadable = "; ".join(one.followed.unreadable)
            log.warning(
                "%s: the transfer log was rotated or emptied, and what it was before is not beside "
                "it%s: who uploaded the files of that time may be missing",
                printable(path),
                printable(
                    f", unless it is what cannot be read: {unreadable}" if unreadable else ""
                ),
            )
        if one.garbage:
            troubles.begin(
                path,
                f"{one.garbage} lines are none of the format {one.entry.format}, and left out; "
                "correct 'format' (or 'log_format') in TRANSFER_LOGS if they are many",
                _GARBAGE,
            )
        if one.unmapped:
            troubles.begin(
                path,
                f"{one.unmapped} lines are about paths that 'prefixes' leads nowhere; write "
                "'prefixes': {'/': '/the/directory'} for a server in a chroot",
                _UNMAPPED,
            )


def _position(journal: Journal, path: str) -> Position | None:
    kept = journal.uploads.position(path)
    return None if kept is None else Position(*kept)
