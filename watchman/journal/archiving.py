"""The daemon's side of the archive: has segments written, clears the journal, drops what is old."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
from collections.abc import Callable

from watchman.journal import archive, sealing
from watchman.journal.ended import Ended
from watchman.journal.sealed import Segment
from watchman.journal.store import Journal

log = logging.getLogger("watchman.journal")

KEEP = 250_000
"""Ended deliveries in the journal that are no reason to seal."""
AT_A_TIME = 250
"""Rows deleted in one transaction: a few ms, as all who record wait for it."""
AT_ONCE = 5
"""Segments that are looked at for the first time in one step."""
BUSY, IDLE = 0.2, 0.02
"""Seconds between two of them while files come, and while none do."""
_LOOK, _NEVER = 0.5, 1e9
"""Seconds between two looks whether a sealing is over; for ever."""
AGAIN = 600.0
"""Seconds until sealing is tried again where it was of no use, unless :data:`MORE` have come."""
MORE = 50_000


class Archive:
    """Seals what ended, and forgets it when it is old. For one thread, whose steps stay short.

    Raises nothing but JournalError: a part of the archive that cannot be used is said, once.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._state_dir = os.path.dirname(journal.path)
        self._process: subprocess.Popen[bytes] | None = None
        self._clearing: tuple[int, int] | None = None
        """Behind which seq, and up to which, archived rows may still be in the journal."""
        self._cleared: list[archive.SegmentFile] = []
        """The segments of which none are, when :attr:`_clearing` is over."""
        self._open: dict[str, Segment] = {}
        self._noted: dict[str, int] = {}
        """By path of a segment: when the last of its deliveries ended, in ns."""
        self._said: set[str] = set()
        self._due = 0.0
        self._pause = BUSY
        self._tried_at = 0.0
        self._tried_with: int | None = None
        """How many had ended when sealing was of no use; None where it was."""
        self._begin_clearing()

    @property
    def active(self) -> bool:
        """Whether :meth:`step` has something to do."""
        return self._process is not None or self._clearing is not None

    def check(self, before_ns: int, now: float) -> None:
        """Drop segments all of whose deliveries ended before a time; seal if enough have ended.

        To be called now and then; ``now`` is of the monotonic clock.
        """
        self._drop_before(before_ns)
        if self.active:
            return
        ended = self._journal.ended()
        tried = self._tried_with
        if ended <= KEEP or (
            tried is not None and ended < tried + MORE and now < self._tried_at + AGAIN
        ):
            return
        self._tried_at, self._tried_with = now, ended
        try:
            seen = sealing.mark(self._cleared)
            self._process = sealing.start(self._state_dir, seen, KEEP, sealing.ROWS)
        except OSError as error:
            self._say(f"Finished deliveries stay in the journal: {error.strerror}")

    @property
    def pause(self) -> float:
        """Seconds after which the next :meth:`step` is of use at the latest."""
        if self._clearing is None:
            return _LOOK if self._process is not None else _NEVER
        return self._pause

    def step(self, now: float, *, idle: Callable[[], bool]) -> None:
        """Go on by a few ms, if it is time; ``idle()`` says that no files come."""
        if self._process is not None:
            self._look_at_sealing(self._process)
        elif self._clearing is not None and now >= self._due:
            try:
                self._clear(*self._clearing)
            except OSError as error:
                self._say(
                    f"The history in {archive.directory_of(self._state_dir)} cannot be used: "
                    f"{error.strerror}; finished deliveries stay in the journal meanwhile"
                )
                self._end_clearing()
            self._pause = IDLE if idle() else BUSY
            self._due = now + self._pause

    def close(self) -> None:
        """End a sealing that is under way: the next one begins anew."""
        self._close_segments()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._take_output(process)

    def _look_at_sealing(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            return
        self._process = None
        word, more = sealing.outcome(self._take_output(process))
        if word == sealing.FAILED:
            self._say(
                f"Finished deliveries stay in the journal for now: they cannot be put into "
                f"{archive.directory_of(self._state_dir)}: {more}; check free space and "
                "permissions there. Nothing is lost"
            )
        elif word == sealing.CHANGED:
            self._begin_clearing()
        elif word == sealing.SEALED:
            log.debug("The history has got a part: %s", more)
            self._tried_with = None
            self._begin_clearing()

    @staticmethod
    def _take_output(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        with process.stdout as output:
            return output.read()

    # What is archived leaves the journal

    def _begin_clearing(self) -> None:
        """Look for rows of the journal that are in a segment as well.

        That means next to nothing where there are none: it goes by the rows of the journal.
        """
        try:
            known = {file.path for file in self._cleared}
            self._cleared = archive.files(self._state_dir)
            new = [file for file in self._cleared if file.path not in known]
            if new:
                # Who renamed it may have been killed before its name was on disk.
                archive.sync(archive.directory_of(self._state_dir))
                archive.sync(self._state_dir)
        except OSError as error:
            self._say(
                f"The history in {archive.directory_of(self._state_dir)} cannot be used: "
                f"{error.strerror}; finished deliveries stay in the journal meanwhile"
            )
            self._cleared, new = [], []
        if new:
            self._clearing = min(file.first for file in new) - 1, max(file.last for file in new)

    def _end_clearing(self) -> None:
        self._clearing = None
        self._close_segments()

    def _clear(self, after: int, last: int) -> None:
        """Delete the next rows that are archived. Raises OSError and JournalError."""
        rows, after = self._journal.page_ended(after, last, AT_A_TIME)
        archived = self._archived(rows)
        if archived:
            self._journal.drop_archived(archived)
        self._clearing = after, last
        if after >= last:
            self._end_clearing()

    def _archived(self, rows: list[Ended]) -> list[Ended]:
        """Return those that a segment has just as they are."""
        left = {seq: (state, noted_ns) for seq, state, noted_ns in rows}
        found = []
        for file in self._cleared:
            wanted = [seq for seq in left if file.first <= seq <= file.last]
            if wanted:
                for seq, there in self._having(file, wanted).items():
                    if left[seq] == there:
                        found.append((seq, *left.pop(seq)))
        return found

    def _having(self, file: archive.SegmentFile, seqs: list[int]) -> dict[int, tuple[int, int]]:
        try:
            segment = self._open.get(file.path)
            if segment is None:
                segment = self._open[file.path] = Segment(file.path)
            return dict(segment.having(seqs))
        except FileNotFoundError:
            return {}
        except sqlite3.Error as error:
            self._say_unreadable(file, error)
            return {}

    def _close_segments(self) -> None:
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    # What is old goes

    def _drop_before(self, before_ns: int) -> None:
        # Opening one takes half a ms, and files may be waiting.
        new = [file for file in self._cleared if file.path not in self._noted][AT_ONCE:]
        for file in [file for file in self._cleared if file not in new]:
            if self._last_noted_ns(file) < before_ns:
                try:
                    os.unlink(file.path)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    self._say(f"Not removed, although it is too old: {file.path}: {error.strerror}")
                    continue
                self._cleared.remove(file)
                self._noted.pop(file.path, None)

    def _last_noted_ns(self, file: archive.SegmentFile) -> int:
        """Return when the last of its deliveries ended; where it cannot be told, when it was made.

        That was later.
        """
        known = self._noted.get(file.path)
        if known is None:
            try:
                segment = Segment(file.path)
                known = segment.last_noted_ns
                segment.close()
            except (sqlite3.Error, OSError) as error:
                self._say_unreadable(file, error)
                try:
                    known = os.stat(file.path).st_mtime_ns
                except OSError:
                    known = (1 << 63) - 1
            self._noted[file.path] = known
        return known

    def _say_unreadable(self, file: archive.SegmentFile, error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            line = archive.unreadable(file, error)
            self._say(line[0].upper() + line[1:])

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            log.error("%s", line)
