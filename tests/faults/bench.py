"""A sender on a real journal, with a publisher that does as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journals import counts
from tests.running import Remembering
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.journal import Journal, NewDelivery
from watchman.model import Delivery, Publisher, Route, State
from watchman.sender import Sender

ROUTE = Route("b", "task")


class Told:
    """Keeps what a sender tells its listener."""

    def __init__(self, changed: list[str], failed: list[Delivery]) -> None:
        self._changed = changed
        self._failed = failed

    def sent(self, deliveries: list[Delivery]) -> None:
        """The journal has them."""

    def failed(self, deliveries: list[Delivery]) -> None:
        self._failed.extend(deliveries)

    def changed(self, paths: list[str]) -> None:
        self._changed.extend(paths)


class Bench:
    """A sender on a real journal."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "up"
        self.root.mkdir()
        self.journal = Journal(str(directory))
        self.publisher = Remembering()
        self.open: Callable[[], Publisher] = lambda: self.publisher
        self.changed: list[str] = []
        self.failed: list[Delivery] = []
        self._roots = str(self.root), str(directory)
        self.sender = self.another()

    def another(self) -> Sender:
        """Return another sender for the same broker and journal."""
        return Sender(
            "b",
            self.journal,
            self._open,
            lambda path: max(filter(path.startswith, self._roots), key=len),
            Told(self.changed, self.failed),
        )

    def _open(self) -> Publisher:
        return self.open()

    def record(
        self, name: str, content: str = "x", arrived_ns: int = 1, route: Route = ROUTE
    ) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        version = version_of(path.stat())
        self.journal.record(
            [NewDelivery(f"id {name} {content}", str(path), None, version, arrived_ns, route)]
        )
        return path

    def count_pages(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Return a list that grows by the rows of each page that is read from now on."""
        read: list[int] = []
        page_ready = self.journal.page_ready

        def counting(broker: str, after: int, limit: int) -> list[Delivery]:
            page = page_ready(broker, after, limit)
            read.append(len(page))
            return page

        monkeypatch.setattr(self.journal, "page_ready", counting)
        return read

    def states(self) -> dict[State, int]:
        return {state: count for (_, state), (count, _) in counts(self.journal).items()}

    def until(self, **states: int) -> None:
        wanted = {State[name]: count for name, count in states.items()}
        self.sender.wake()
        wait_until(lambda: self.states() == wanted, 10, f"{states}, not {self.states()}")

    def until_sent(self, count: int, seconds: float) -> None:
        wait_until(lambda: self.states() == {State.SENT: count}, seconds, f"{count} are sent")


def warnings_of(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]
