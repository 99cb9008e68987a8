"""The daemon's end of the processes that read files: it asks, and hears the answers.

The processes are started, not forked: they have nothing of the daemon's in their memory, and can
be started again at any time. One that ends at a file is an answer about that file; one that hangs
in the kernel, in a file system that does not answer, is left there, and another takes its place.

A function of the user's may hang for as long as a check may take. So there is one process more for
each function that was asked, and beside these functions get at most half of all: what is asked of
other files never waits for one, nor does one function for another.
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
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from watchman.model import Criterion
from watchman.soft_lock import soft_lock
from watchman.verdicts.reader_process import (
    CPU,
    CPU_PER_BYTE,
    LARGEST_QUESTION,
    SLOT,
    WALL,
)
from watchman.verdicts.verdict import CheckRequest, CriterionCheck, FileVerdict, Kind, decode_answer

log = logging.getLogger("watchman.notify")

LEAST, MOST = 3, 8
"""Processes: at least so many, so that one file which takes long leaves room for others."""
MORE = 8
"""Processes that are added for functions of the user's, however many there are of those."""
SPARE = 32
"""Processes that may be left behind where they hang; then nothing is checked any more."""
IN_FLIGHT = 256
"""Questions without functions that are asked at a time; more wait with whoever asks."""
AHEAD = 16
"""Questions with the same functions that wait here for room; more wait with whoever asks."""
LOOK = 1.0
"""Seconds between two looks whether a process takes too long."""
LOST = 5.0
"""Seconds after which a question is lost that was taken, and that no process is at."""
_SLOTS = MOST + MORE + SPARE
AGAIN = 1.0
"""Seconds after which a process is started again that ended without being at any file."""
_INT = struct.Struct("i")
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from {module} import main; main(*map(int, sys.argv[2:6]), *sys.argv[6:])"
)

Answered = Callable[[FileVerdict], None]
"""Called with the answer, in the pool's thread; it must not block."""
NO_ANSWER = FileVerdict(Kind.UNKNOWN, "its check got lost")
"""The answer where the process is gone that took the question, and nobody knows: ask again."""


class Reading(NamedTuple):
    """A file that a process is at."""

    path: str
    asked: tuple[str, ...]
    """What it must be: formats, companions' names, functions."""
    seconds: float
    """For how long."""


Functions = tuple[str, ...]
"""The user's functions among what is asked of a file, by what they are registered as."""


class _Asked(NamedTuple):
    """A question that is under way."""

    path: str
    asked: tuple[CriterionCheck, ...]
    functions: Functions
    answered: Answered
    seconds: float
    """How long it may take, by the clock."""


class _Held(NamedTuple):
    """A question that waits for its functions."""

    asked: _Asked
    descriptors: list[int]
    """Our own."""


class _Worker:
    """A process, and what it is at."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        self.slot = slot
        self.process = process
        self.descriptor = os.pidfd_open(process.pid)
        self.number = 0
        """The question that it was seen at last."""
        self.since = time.monotonic()

    def kill(self) -> None:
        """End it. One that hangs in the kernel ends when it comes back."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Give back what the daemon has of it."""
        os.close(self.descriptor)


class Pool:
    """Has files checked. Nothing is started before :meth:`start`.

    ``config_path`` is the configuration whose callables are to be called; empty for none.
    """

    def __init__(self, config_path: str = "") -> None:
        self.error: BaseException | None = None
        """What ended the thread."""
        self._config_path = config_path
        self._count = max(LEAST, min(len(os.sched_getaffinity(0)), MOST))
        self._under_way: dict[int, _Asked] = {}
        self._numbers: Counter[Functions] = Counter()
        """How many questions are under way by their functions; of each that was ever asked."""
        self._held: dict[Functions, collections.deque[_Held]] = {}
        self._last = 0
        self._stopping = False
        self._lock = threading.Lock()
        self._workers: dict[int, _Worker] = {}
        """By the descriptor that tells of its end."""
        self._left: list[_Worker] = []
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
        answered: Answered,
    ) -> bool:
        """Have a file checked; False where there is no room now. The descriptors stay the caller's.

        The first is the file's, which must be open for reading only; the others are those of
        companions. Not before :meth:`start`.
        """
        functions = functions_of(asked)
        size = os.fstat(descriptors[0]).st_size
        seconds = (CPU + size * CPU_PER_BYTE) * WALL
        new = _Asked(path, tuple(asked), functions, answered, seconds)
        with self._lock:
            if self._stopping:
                return False
            if self._has_room(functions) and not self._held.get(functions):
                return self._send(new, descriptors)
            return bool(functions) and self._hold(new, descriptors)

    def _hold(self, new: _Asked, descriptors: Sequence[int]) -> bool:
        """Keep a question until there is room for its functions; False if many wait. With the lock.

        So the next is asked without a turn of whoever asks, which may write to a disk in each.
        """
        held = self._held.setdefault(new.functions, collections.deque())
        if len(held) >= AHEAD:
            return False
        own: list[int] = []
        try:
            own += map(os.dup, descriptors)
        except OSError:
            _close_all(own)
            return False
        held.append(_Held(new, own))
        return True

    def _send_held(self) -> None:
        """Ask what was kept, as far as there is room now."""
        with self._lock:
            for functions in list(self._held):
                held = self._held[functions]
                while held and self._has_room(functions):
                    if not self._send(*held[0]):
                        return
                    _close_all(held.popleft().descriptors)
                    # Behind the others: where there are many, each gets its turn.
                    self._held[functions] = self._held.pop(functions)

    def _send(self, new: _Asked, descriptors: Sequence[int]) -> bool:
        """Ask a question; False where there is no room for it. With the lock."""
        self._last += 1
        number = self._last
        self._under_way[number] = new
        self._numbers[new.functions] += 1
        question = CheckRequest(number, new.path, new.asked).encode()
        try:
            # socket.send_fds leaves its flags out (Python 3.11), and would wait.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            self._ours.sendmsg([question], [rights], socket.MSG_DONTWAIT)
        except OSError as error:
            del self._under_way[number]
            self._numbers[new.functions] -= 1
            if not isinstance(error, BlockingIOError):
                # ETOOMANYREFS: too many descriptors are on their way. What else there is, is said.
                log.debug("A file cannot be checked now: %s", error)
            return False
        return True

    def _has_room(self, functions: Functions) -> bool:
        """Say whether one more may be asked that has these functions. With the lock."""
        if not functions:
            return self._numbers[()] < IN_FLIGHT
        of_functions = self._numbers.total() - self._numbers[()]
        half = (self._count + 1) // 2
        if self._numbers[functions]:
            return of_functions < half
        # The first of its kind is what a process was added for.
        return of_functions < half + MORE

    def _take(self, number: int) -> _Asked | None:
        """Return a question that is not under way any more; None if it was not."""
        with self._lock:
            asked = self._under_way.pop(number, None)
            if asked is not None:
                self._numbers[asked.functions] -= 1
            return asked

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that are there now; from any thread."""
        return [worker.process.pid for worker in list(self._workers.values())]

    def reading(self, least: float) -> list[Reading]:
        """Return the files that are being read for so many seconds or more; from any thread."""
        now = time.monotonic()
        found = []
        for worker in list(self._workers.values()):
            asked, seconds = self._under_way.get(worker.number), now - worker.since
            if asked is not None and seconds >= least:
                arguments = tuple(one.argument for one in asked.asked)
                found.append(Reading(asked.path, arguments, seconds))
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
            wanted = self._count + min(len(self._numbers.keys() - {()}), MORE)
        while len(self._workers) < wanted and len(self._left) < SPARE:
            if len(self._started_at) >= 2 * wanted:
                return  # they end as soon as they begin: not that often
            self._started_at.append(now)
            self._start_one()

    def _start_one(self) -> None:
        used = {worker.slot for worker in (*self._workers.values(), *self._left)}
        slot = next(slot for slot in range(_SLOTS) if slot not in used)
        SLOT.pack_into(self._shared, SLOT.size * slot, 0)
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        module = "watchman.verdicts.reader_process"
        more = []
        if self._config_path:
            module, more = "watchman.config.callables", [self._config_path]
        numbers = (self._theirs.fileno(), self._memory, slot, os.getpid())
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-X", "utf8", "-c", _PROGRAM.format(module=module)),
                *(top, *map(str, numbers), *more),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            pass_fds=(self._theirs.fileno(), self._memory),
        )
        worker = _Worker(slot, process)
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
                    number, verdict = decode_answer(data)
                except ValueError:
                    continue
                self._answer(number, verdict)

    def _answer(self, number: int, verdict: FileVerdict) -> None:
        asked = self._take(number)
        if asked is not None:
            asked.answered(verdict)

    def _ended(self, worker: _Worker) -> None:
        """Answer for a process that has ended."""
        self._hear()
        status = worker.process.wait()
        (number,) = SLOT.unpack_from(self._shared, SLOT.size * worker.slot)
        worker.close()
        if number:
            self._answer(number, FileVerdict(Kind.UNKNOWN, _why(status)))

    def _look(self) -> None:
        """End the processes that take too long, and leave those that cannot be ended."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            (number,) = SLOT.unpack_from(self._shared, SLOT.size * worker.slot)
            if number != worker.number:
                worker.number, worker.since = number, now
            asked = self._under_way.get(number)
            if asked is None or now - worker.since < asked.seconds + 2 * LOOK:
                continue
            worker.kill()
            if not select.select([worker.descriptor], [], [], LOOK)[0]:
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
            for held in self._held.values():
                while held:
                    _close_all(held.popleft().descriptors)
        self._ours.close()
        self._theirs.close()
        self._shared.close()
        os.close(self._memory)


def functions_of(asked: Iterable[Criterion | CriterionCheck]) -> Functions:
    """Return the user's functions among what is asked."""
    return tuple(one.argument for one in asked if one.kind == "callable")


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _why(status: int) -> str:
    """Say why a process has ended while it read a file."""
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        return "its check took too long, and was ended"
    if status < 0:
        name = signal.Signals(-status).name
        return f"its check ended by signal {name}"
    return f"its check ended with status {status}"
