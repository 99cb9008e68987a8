"""A thread that is handed calls: the journal's part of sending, looks that may hang."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class CallThread:
    """Does calls one after the other. Its thread is started by the first.

    concurrent.futures' own threads would hold up the end of the process where one hangs, say on
    a share that is away; this one is a daemon thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        """None before the first call."""

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have ``work`` done after all that was submitted before; return its future."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self.thread.start()
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 — whoever asks for the result gets it
                future.set_exception(error)

        self._calls.put(call)
        return future

    def finish(self) -> None:
        """Wait until all that was submitted is done."""
        if self.thread is not None:
            self.submit(lambda: None).result()

    def stop(self) -> None:
        """End the thread after what was submitted."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
