"""Tasks to which no pattern leads any more, and that go all the same, as they were recorded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from watchman.checks.asked import Asked
from watchman.commands.common import warn
from watchman.model import Config, Route
from watchman.router import Router
from watchman.text import counted, printable

if TYPE_CHECKING:
    from watchman.journal.record import Record


class GonePatterns:
    """Counts such tasks by name and broker; none without a configuration."""

    def __init__(self, config: Config | None) -> None:
        self._router = None if config is None else Router(config.patterns, criteria=config.criteria)
        self._asked = None if config is None or not config.has_criteria else Asked(config)
        self._count: Counter[tuple[str, str]] = Counter()

    def route_of(self, record: Record) -> Route | None:
        """Return the route that a delivery's path has now; None if it has none.

        Where that is for another task: the one of incomplete files, if that is for its task.
        """
        if self._router is None:
            return None
        route, criteria = self._router.route(record.source), self._router.criteria(record.source)
        incomplete = None if criteria is None else criteria.incomplete
        if _is_of(record, incomplete) and not _is_of(record, route):
            return incomplete
        return route

    def is_main_file(self, record: Record) -> bool:
        """Say whether a delivery's path has a set now."""
        criteria = None if self._router is None else self._router.criteria(record.source)
        return criteria is not None and bool(criteria.members)

    def meet(self, record: Record) -> None:
        """Take note of a delivery that is on its way again."""
        if self._router is None or record.task is None:
            return
        if not self._is_led_to(record):
            self._count[record.task, record.broker or ""] += 1

    def _is_led_to(self, record: Record) -> bool:
        if _is_of(record, self.route_of(record)):
            return True
        if self._router is None or self._asked is None:
            return False
        main_files = self._asked.main_files(record.source)
        return any(_is_of(record, self._router.route(path)) for path in main_files)

    def tell(self) -> None:
        """Say how many there are, by task and broker."""
        for (task, broker), number in self._count.items():
            warn(
                f"no pattern leads to task {printable(task)} on broker {printable(broker)} any "
                f"more: {counted(number, 'delivery')} sent there all the same, as recorded"
            )


def _is_of(record: Record, route: Route | None) -> bool:
    return route is not None and (route.broker, route.task) == (record.broker, record.task)
