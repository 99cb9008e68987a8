"""A hook's thread: one call at a time, a bounded queue in front of it, and trouble said once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from watchman.masking import mask
from watchman.model import Hook
from watchman.monitoring.hook_call import LIMIT, Commands, HookError, call
from watchman.text import printable
from watchman.troubles import Troubles

log = logging.getLogger("watchman.notify")

MOST = 100
"""Events that wait at most; what comes beyond that is left out, and counted."""
PAUSE = 1.0
"""Seconds from the end of one call to the next."""
_FAILS, _FULL = "fails", "full"
"""Kinds of trouble."""


class HookThread:
    """Calls one hook. The thread begins with the first event; nothing else here waits for it."""

    def __init__(self, hook: Hook, troubles: Troubles, commands: Commands) -> None:
        self.hook = hook
        self._commands = commands
        self._subject = f"hook {hook.setting}"
        self._troubles = troubles
        self._condition = threading.Condition()
        self._queue: deque[tuple[float, Callable[[], dict[str, Any]]]] = deque()
        self._left_out = 0
        """Events since the last call that found the queue full."""
        self._finishing = threading.Event()
        self._since: float | None = None
        """Since when, by the monotonic clock, the hook has not come back."""
        self._thread: threading.Thread | None = None

    def put(self, make: Callable[[], dict[str, Any]], *, after: float = 0.0) -> None:
        """Have the hook called with what ``make()`` returns, in so many seconds.

        ``make`` is called in the hook's thread.
        """
        with self._condition:
            if len(self._queue) >= MOST:
                self._left_out += 1
                why = (
                    f"{MOST} events wait for it already; further ones are left out; have it take "
                    "less time"
                )
                self._troubles.begin(self._subject, why, _FULL)
                return
            self._queue.append((time.monotonic() + after, make))
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            name = f"hook-{self.hook.setting}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._condition.notify()

    def replace(self, before: HookThread) -> None:
        """End the one before, and tell what waits for it: it may never come back to that."""
        with before._condition:
            waiting, before._queue = before._queue, deque()
            left_out = before._left_out
        before.finish()
        with self._condition:
            self._queue, self._left_out = waiting, left_out
            if waiting:
                self._wake()

    def check(self) -> None:
        """Say, once, that a call does not come back: no function of Python's can be ended."""
        since = self._since
        if since is not None and time.monotonic() - since > LIMIT:
            why = (
                f"{self.hook.name} has not come back for {LIMIT:.0f} s; nothing waits for it but "
                "what else it is to be told; correct it, and run 'notify reload'"
            )
            self._troubles.begin(self._subject, why, _FAILS)

    def finish(self) -> None:
        """End when all that waits has been told, at once."""
        with self._condition:
            self._finishing.set()
            self._condition.notify()
            for kind in (_FAILS, _FULL):
                self._troubles.end(self._subject, kind)

    def join(self, timeout: float) -> None:
        """Wait for the end, in seconds; a hook that takes longer is left behind."""
        if self._thread is not None:
            self._thread.join(max(0.0, timeout))

    def _run(self) -> None:
        while True:
            made = self._next()
            if made is None:
                return
            make, left_out = made
            self._call(make, left_out)
            self._finishing.wait(PAUSE)

    def _next(self) -> tuple[Callable[[], dict[str, Any]], int] | None:
        """Wait for the next event that is due; None at the end."""
        with self._condition:
            while True:
                if self._queue:
                    wait = self._queue[0][0] - time.monotonic()
                    if wait <= 0 or self._finishing.is_set():
                        break
                    self._condition.wait(wait)
                elif self._finishing.is_set():
                    return None
                else:
                    self._condition.wait()
            left_out, self._left_out = self._left_out, 0
            _, make = self._queue.popleft()
        if left_out:
            line = f"%s: {left_out} events were left out"
            self._troubles.end(self._subject, _FULL, line=line)
        return make, left_out

    def _call(self, make: Callable[[], dict[str, Any]], left_out: int) -> None:
        self._since = time.monotonic()
        try:
            call(self.hook, {**make(), "left_out": left_out}, self._commands)
        except HookError as error:
            self._fail(str(error))
        except BaseException as error:  # noqa: BLE001 — a function of the user's may raise anything
            self._fail(f"{type(error).__name__}: {error}")
        else:
            with self._condition:
                if not self._finishing.is_set():
                    self._troubles.end(self._subject, _FAILS, line="%s works again")
        finally:
            self._since = None

    def _fail(self, why: str) -> None:
        text = printable(" ".join(mask(why).split()))
        log.debug("Hook %s: %s", self.hook.setting, text)
        with self._condition:
            # From its end on the trouble is that of the one in its place.
            if not self._finishing.is_set():
                self._troubles.begin(self._subject, f"{self.hook.name}: {text}; correct it", _FAILS)
