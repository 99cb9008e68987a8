"""The daemon's end of the processes that read files: it asks, and hears the answers.

The processes are started, not forked: they have nothing of the daemon's in their memory, and can
be started again at any time. One that ends at a file is an answer about that file; one that hangs
in the kernel, in a file system that does not answer, is left there, and another takes its place.

A function of the user's may hang for as long as a check may take. So there is one process more for
each function that was asked, and beside these functions get at most half of all: what is asked of
other files never waits for one, nor does one function for another. Nor does a small file wait for
large ones, however many there are: at least one process is left to what is small. A small file that
takes long all the same, as a bomb does, is given up after two seconds, and asked about as if it
were large.
"""

from __future__ import annotations

import array
import collections
import contextlib
import fcntl
import logging
import mmap
import os
import select
import socket
import struct
import subprocess
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watchman import limits
from watchman.model import Criterion
from watchman.soft_lock import soft_lock
from watchman.troubles import Troubles
from watchman.verdicts.started_reader import TOOK_TOO_LONG, StartedReader, start_reader, why_ended
from watchman.verdicts.verdict import (
    CPU,
    LARGEST_QUESTION,
    SLOT,
    WALL,
    CheckRequest,
    CriterionCheck,
    FileVerdict,
    Kind,
    decode_answers,
    encode_requests,
    processor_time,
)

log = logging.getLogger("watchman.notify")

LEAST, MOST = 3, 8
"""Processes: at least so many, so that one file which takes long leaves room for others."""
MORE = 8
"""Processes that are added for functions of the user's, however many there are of those."""
SPARE = 32
"""Processes that may be left behind where they hang; then nothing is checked any more."""
TOGETHER, SMALL = 12, 1 << 18
"""Files up to so many bytes of which a format is asked go to a process so many at a time: a message
costs as much as to look at one. The others are asked again where one of them takes long."""
LARGE = 1 << 24
"""Bytes from which on a file is large; to read less mostly takes a fraction of a second."""
QUICK = 2
"""Seconds of processor time that one may take in the plain lane."""
IN_FLIGHT = 1024
"""Questions of the plain lane that are asked at a time; more wait with whoever asks. What has been
answered is recorded together: with fewer, more time goes into commits and opening directories."""
AHEAD = 16
"""Questions of each other lane that wait here for room; more wait with whoever asks."""
LOOK = 1.0
"""Seconds between two looks whether a process takes too long."""
LOST = 5.0
"""Seconds after which a question is lost that was taken, and that no process is at."""
_SLOTS = MOST + MORE + SPARE
AGAIN = 1.0
"""Seconds after which a process is started again that ended without being at any file."""
_INT = struct.Struct("i")
WAITING = "files that are to be whole"
"""The subject of the trouble that none can be read."""

Answered = Callable[[FileVerdict], None]
"""Called with the answer, in the pool's thread; it must not block."""
NO_ANSWER = FileVerdict(Kind.UNKNOWN, "its check got lost")
"""The answer where the process is gone that took the question, and nobody knows: ask again."""
TAKES_LONG = FileVerdict(Kind.UNKNOWN, "its check takes long")
"""The answer where the plain lane's time was too short: ask again, as of a file of LARGE bytes."""


class Reading(NamedTuple):
    """A file that a process is at."""

    path: str
    asked: tuple[str, ...]
    """What it must be: formats, companions' names, functions."""
    seconds: float
    """For how long."""


class Lane(NamedTuple):
    """What a question waits for: only those of its own lane."""

    functions: tuple[str, ...] = ()
    """The user's functions among what is asked of a file, by what they are registered as."""
    is_large: bool = False
    """Whether reading may take long; of files without functions."""


PLAIN, LARGE_FILES = Lane(), Lane(is_large=True)


@dataclass
class _Question:
    """A question that is to be asked, or under way."""

    path: str
    asked: tuple[CriterionCheck, ...]
    lane: Lane
    answered: Answered
    seconds: int
    """Of processor time that it may take."""
    descriptors: list[int]
    """Our own, until it is asked."""
    together: range = range(0)
    """The numbers of all in its message; it has one of them."""


class Pool:
    """Has files checked. Nothing is started before :meth:`start`.

    ``config_path`` is the configuration whose callables are to be called; empty for none.
    """

    def __init__(self, troubles: Troubles, config_path: str = "") -> None:
        self._troubles = troubles
        self.error: BaseException | None = None
        """What ended the thread."""
        self._config_path = config_path
        self._count = max(LEAST, min(len(os.sched_getaffinity(0)), MOST))
        self._under_way: dict[int, _Question] = {}
        self._numbers: Counter[Lane] = Counter()
        """How many questions are under way by their lanes; of each that was ever asked."""
        self._gathered: list[_Question] = []
        """Those of small files that are to be asked in one message; they count as under way."""
        self._held: dict[Lane, collections.deque[_Question]] = {}
        """Those that wait for room in their lanes."""
        self._last = 0
        self._stopping = False
        self._lock = threading.Lock()
        self._workers: dict[int, StartedReader] = {}
        """By the descriptor that tells of its end."""
        self._left: list[StartedReader] = []
        self._missing: dict[int, float] = {}
        """Questions that were taken, and that no process is at; since when that was seen first."""
        self._search_at = 0.0
        self._started_at: list[float] = []
        self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)

    # For those who ask

    def start(self) -> None:
        """Start the processes, and listen."""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("watchman-verdicts", os.MFD_CLOEXEC)
        os.ftruncate(self._memory, SLOT.size * _SLOTS)
        self._shared = mmap.mmap(self._memory, 0)
        self._thread.start()

    def ask(
        self,
        path: str,
        asked: Sequence[CriterionCheck],
        descriptors: Sequence[int],
        size: int,
        answered: Answered,
    ) -> bool:
        """Have a file of ``size`` bytes checked, by :meth:`flush` at the latest.

        The first descriptor is the file's, which must be open for reading only; the others are
        those of companions. They are the pool's from now on. False where there is no room now: then
        they stay the caller's. Not before :meth:`start`.
        """
        lane = lane_of(asked, size)
        seconds = QUICK if lane == PLAIN else processor_time(descriptors[0])
        new = _Question(path, tuple(asked), lane, answered, seconds, list(descriptors))
        with self._lock:
            if self._stopping:
                return False
            if not self._has_room(lane) or self._held.get(lane):
                return lane != PLAIN and self._hold(new)
            if size <= SMALL and all(one.kind == "format" for one in asked):
                self._gathered.append(new)
                if len(self._gathered) >= TOGETHER:
                    self._send_gathered()
            elif not (self._send_gathered() and self._send([new])):
                return False
            self._numbers[lane] += 1
            return True

    def flush(self) -> None:
        """Ask what was gathered: whoever asks calls this when it has asked all for now."""
        with self._lock:
            self._send_gathered()

    def _send_gathered(self) -> bool:
        """Ask what was gathered; False where there is no room for all of it. With the lock."""
        while self._gathered:
            if not self._send(self._gathered[:TOGETHER]):
                return False
            del self._gathered[:TOGETHER]
        return True

    def _hold(self, new: _Question) -> bool:
        """Keep a question until there is room in its lane; False if many wait. With the lock.

        So the next is asked without a turn of whoever asks, which may write to a disk in each.
        """
        held = self._held.setdefault(new.lane, collections.deque())
        if len(held) >= AHEAD:
            return False
        held.append(new)
        return True

    def _send_held(self) -> None:
        """Ask what was kept, as far as there is room now."""
        with self._lock:
            self._send_gathered()
            for lane in list(self._held):
                held = self._held[lane]
                while held and self._has_room(lane):
                    if not self._send([held[0]]):
                        return
                    self._numbers[lane] += 1
                    held.popleft()
                    # Behind the others: where there are many, each gets its turn.
                    self._held[lane] = self._held.pop(lane)

    def _send(self, questions: Sequence[_Question]) -> bool:
        """Ask in one message; False where there is no room for it. With the lock."""
        together = range(self._last + 1, self._last + 1 + len(questions))
        requests, descriptors = [], array.array("i")
        for number, one in zip(together, questions, strict=True):
            about = one.path, one.asked, len(one.descriptors), one.seconds
            requests.append(CheckRequest(number, *about))
            descriptors.extend(one.descriptors)
            one.together = together
        # Before they are sent: an answer may come at once.
        self._under_way.update(zip(together, questions, strict=True))
        try:
            # socket.send_fds leaves its flags out (Python 3.11), and would wait.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
            self._ours.sendmsg([encode_requests(requests)], [rights], socket.MSG_DONTWAIT)
        except OSError as error:
            for number in together:
                del self._under_way[number]
            if not isinstance(error, BlockingIOError):
                # ETOOMANYREFS: too many descriptors are on their way. What else there is, is said.
                log.debug("A file cannot be checked now: %s", error)
            return False
        self._last = together[-1]
        for one in questions:
            _close_all(one.descriptors)
        return True

    def _has_room(self, lane: Lane) -> bool:
        """Say whether one more of this lane may be asked. With the lock."""
        half = (self._count + 1) // 2
        if lane == PLAIN:
            return self._numbers[PLAIN] < IN_FLIGHT
        if lane == LARGE_FILES:
            # Beside what was added for them, functions take all but one of their half.
            left = self._count - (half if self._config_path else 1)
            return self._numbers[LARGE_FILES] < left
        of_functions = sum(n for one, n in self._numbers.items() if one.functions)
        if self._numbers[lane]:
            return of_functions < half
        # The first of its kind is what a process was added for.
        return of_functions < half + MORE

    def _take(self, number: int) -> _Question | None:
        """Return a question that is not under way any more; None if it was not."""
        with self._lock:
            question = self._under_way.pop(number, None)
            if question is not None:
                self._numbers[question.lane] -= 1
            return question

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that are there now; from any thread."""
        return [worker.process.pid for worker in list(self._workers.values())]

    def reading(self, least: float) -> list[Reading]:
        """Return the files that are being read for so many seconds or more; from any thread."""
        now = time.monotonic()
        found = []
        for worker in list(self._workers.values()):
            question, seconds = self._under_way.get(worker.number), now - worker.since
            if question is not None and seconds >= least:
                arguments = tuple(one.argument for one in question.asked)
                found.append(Reading(question.path, arguments, seconds))
        return sorted(found, key=lambda one: one.seconds, reverse=True)

    def stop(self, timeout: float = 2.0) -> None:
        """End the processes; what is under way is not answered any more."""
        self._stopping = True
        if self._thread.ident is None:
            return
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout)

    # The thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._fill()
                self._listen()
                self._send_held()
                self._look()
                self._look_for_lost()
        except BaseException as error:
            if not self._stopping:
                log.exception("Checking files ended")
                self.error = error
        finally:
            self._close()

    def _fill(self) -> None:
        """Start what is missing of the processes."""
        now = time.monotonic()
        self._started_at = [at for at in self._started_at if now - at < AGAIN]
        with self._lock:
            of_functions = [lane for lane in self._numbers if lane.functions]
        wanted = self._count + min(len(of_functions), MORE)
        while len(self._workers) < wanted and len(self._left) < SPARE:
            if len(self._started_at) >= 2 * wanted:
                return  # they end as soon as they begin: not that often
            self._started_at.append(now)
            try:
                self._start_one()
            except OSError as error:
                why = limits.explain(error) or f"{error.strerror}; mend that"
                reason = f"no process that reads files can be started: {why}; it is tried again"
                self._troubles.begin(WAITING, reason)
                return
        self._troubles.end(WAITING, line="%s are read again")

    def _start_one(self) -> None:
        used = {worker.slot for worker in (*self._workers.values(), *self._left)}
        slot = next(slot for slot in range(_SLOTS) if slot not in used)
        SLOT.pack_into(self._shared, SLOT.size * slot, 0)
        worker = start_reader(slot, self._theirs.fileno(), self._memory, self._config_path)
        self._workers[worker.descriptor] = worker

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        for descriptor in self._workers:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(LOOK * 1000):
            if descriptor == self._ours.fileno():
                self._hear()
            else:
                self._ended(self._workers.pop(descriptor))

    def _hear(self) -> None:
        """Take all answers that are there."""
        with soft_lock():
            for _ in range(IN_FLIGHT):
                try:
                    data = self._ours.recv(LARGEST_QUESTION, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                if not data:
                    return  # it was shut down
                try:
                    answers = decode_answers(data)
                except ValueError:
                    continue
                for number, verdict in answers:
                    self._answer(number, verdict)

    def _answer(self, number: int, verdict: FileVerdict) -> None:
        question = self._take(number)
        if question is not None:
            question.answered(verdict)

    def _ask_others_again(self, number: int) -> None:
        """Answer for those that came in one message with another, and wait behind it."""
        question = self._under_way.get(number)
        for other in () if question is None else question.together:
            if other != number:
                self._answer(other, NO_ANSWER)

    def _ended(self, worker: StartedReader) -> None:
        """Answer for a process that has ended."""
        self._hear()
        status = worker.process.wait()
        (number,) = SLOT.unpack_from(self._shared, SLOT.size * worker.slot)
        worker.close()
        question = self._under_way.get(number)
        if question is not None:
            self._ask_others_again(number)
            takes_long = question.lane == PLAIN and status in TOOK_TOO_LONG
            ended = FileVerdict(Kind.UNKNOWN, why_ended(status))
            self._answer(number, TAKES_LONG if takes_long else ended)

    def _look(self) -> None:
        """End the processes that take too long, and leave those that cannot be ended."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            (number,) = SLOT.unpack_from(self._shared, SLOT.size * worker.slot)
            if number != worker.number:
                worker.number, worker.since = number, now
            question = self._under_way.get(number)
            if question is None:
                continue
            if now - worker.since >= LOOK:
                self._ask_others_again(number)
            # Its own alarm comes first, unless it hangs: no process is left behind any sooner.
            if now - worker.since < max(question.seconds, CPU) * WALL + 2 * LOOK:
                continue
            worker.kill()
            if not worker.has_ended(LOOK):
                del self._workers[worker.descriptor]
                self._left.append(worker)
                reason = "its file system does not answer"
                self._answer(number, FileVerdict(Kind.UNKNOWN, reason))
        for worker in [one for one in self._left if one.process.poll() is not None]:
            self._left.remove(worker)
            worker.close()

    def _look_for_lost(self) -> None:
        """Answer for questions of processes that were killed before they said what they are at.

        The kernel gives them out in their order.
        """
        now, under_way = time.monotonic(), list(self._under_way)
        if now < self._search_at:
            return
        self._search_at = now + LOOK
        workers = (*self._workers.values(), *self._left)
        at = {SLOT.unpack_from(self._shared, SLOT.size * one.slot)[0] for one in workers}
        # What is not taken yet is still charged to our end of the socket.
        (waiting,) = _INT.unpack(fcntl.ioctl(self._ours, termios.TIOCOUTQ, bytes(_INT.size)))
        taken_before = max(at, default=0) if waiting else self._last + 1
        # Those in the same message have their turn after it, or were answered with it.
        for number in [one for one in at if one in self._under_way]:
            at.update(self._under_way[number].together)
        missing = [number for number in under_way if number < taken_before and number not in at]
        self._missing = {number: self._missing.get(number, now) for number in missing}
        for number in [one for one, since in self._missing.items() if now - since >= LOST]:
            self._answer(number, NO_ANSWER)

    def _close(self) -> None:
        for worker in (*self._workers.values(), *self._left):
            worker.kill()
        for worker in self._workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(LOOK)
            worker.close()
        for worker in self._left:
            worker.close()
        self._workers.clear()
        with self._lock:
            for questions in (self._gathered, *self._held.values()):
                for question in questions:
                    _close_all(question.descriptors)
                questions.clear()
        self._ours.close()
        self._theirs.close()
        self._shared.close()
        os.close(self._memory)


def lane_of(asked: Iterable[Criterion | CriterionCheck], size: int) -> Lane:
    """Return the lane of a file of ``size`` bytes."""
    functions = [one.argument for one in asked if one.kind == "callable"]
    if functions:
        return Lane(tuple(functions))
    return LARGE_FILES if size >= LARGE else PLAIN


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
