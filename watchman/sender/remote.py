"""The last look at files on file systems that may hang: in threads of their own, and not for ever.

A broker's other deliveries wait for one such look at the most, for two seconds. Where a look does
not come back, those behind it on the same file system are passed over until it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait

from watchman import hanging
from watchman.model import Delivery
from watchman.sender.examination import Examined, directories_below, examine
from watchman.sender.helper import Helper
from watchman.text import printable

_SLICE = 0.02
"""Seconds between two looks at a thread that is waited for."""


class RemoteFiles:
    """Examines one broker's deliveries whose files are where a look may hang.

    Used from one thread at a time, but for :meth:`may_hang` and :meth:`give_up`.
    """

    def __init__(
        self,
        broker: str,
        root_of: Callable[[str], str],
        announced_later: Callable[[Delivery], bool],
    ) -> None:
        self._broker = broker
        self._root_of = root_of
        self._announced_later = announced_later
        self._places: Mapping[str, str] = {}
        self._prefixes: tuple[str, ...] = ()
        self._lookers: dict[str, _Looker] = {}
        self._held_up: set[str] = set()
        """Mount points on which the last look was given up."""
        self._given_up = False

    def may_hang(self, places: Mapping[str, str]) -> None:
        """Say where that is: path with a slash behind it → mount point."""
        self._places = places
        self._prefixes = tuple(places)

    @property
    def held_up_by(self) -> str:
        """The mount point of a file system that has not come back from a look; "" if all have."""
        for point in list(self._held_up):
            if self._hangs(point):
                return point
        return ""

    def _hangs(self, point: str) -> bool:
        looker = self._lookers.get(point)
        # Also where a look hung before a reload, or anybody else does: threads do not pile up.
        return (looker is not None and looker.hangs) or bool(hanging.silent([point]))

    def split(
        self, rows: Sequence[Delivery]
    ) -> tuple[Sequence[Delivery], dict[str, list[Delivery]]]:
        """Return the deliveries that can be looked at here, and the others by mount point."""
        prefixes, places = self._prefixes, self._places
        if not prefixes:
            return rows, {}
        here: list[Delivery] = []
        apart: dict[str, list[Delivery]] = {}
        for row in rows:
            if row.final.startswith(prefixes):
                prefix = max(filter(row.final.startswith, places), key=len)
                apart.setdefault(places[prefix], []).append(row)
            else:
                here.append(row)
        return here, apart

    def examine(self, apart: Mapping[str, list[Delivery]], found: Examined) -> Examined:
        """Return what was found together with what is found of the deliveries ``apart``."""
        for point, rows in apart.items():
            more = self._examine(point, rows)
            found = Examined(
                sorted(found.good + more.good),
                found.vanished + more.vanished,
                found.changed + more.changed,
                found.obstacle or more.obstacle,
            )
        return found

    def _examine(self, point: str, rows: Sequence[Delivery]) -> Examined:
        if not (self._given_up or self._hangs(point)):
            looker = self._lookers.setdefault(point, _Looker(f"sender-{self._broker}-{point}"))
            found = looker.look(self._look, rows, lambda: self._given_up)
            if found is not None:
                self._held_up.discard(point)
                return found
            hanging.ask([point])
        self._held_up.add(point)
        return Examined([], [], [], f"{printable(rows[0].final)}: {hanging.describe(point)}")

    def _look(self, rows: Iterable[Delivery]) -> Examined:
        with directories_below(self._root_of) as directories:
            return examine(rows, directories, self._announced_later)

    def give_up(self) -> None:
        """Wait for nothing any longer."""
        self._given_up = True

    def stop(self) -> None:
        """End the threads; one that hangs ends when it comes back."""
        for looker in self._lookers.values():
            looker.helper.stop()


class _Looker:
    """A thread for one file system."""

    def __init__(self, name: str) -> None:
        self.helper = Helper(name)
        self._under_way: Future[Examined] | None = None
        self._seen = 0

    @property
    def hangs(self) -> bool:
        """Whether it was given up, and has not come back."""
        return self._under_way is not None and not self._under_way.done()

    def look(
        self,
        work: Callable[[Iterable[Delivery]], Examined],
        rows: Sequence[Delivery],
        give_up: Callable[[], bool],
    ) -> Examined | None:
        """Return what ``work(rows)`` does; None where one row takes too long. Raises what it does.

        What comes of it later is forgotten: the rows are looked at again.
        """

        def counted() -> Iterator[Delivery]:
            for row in rows:
                self._seen += 1
                yield row

        future = self._under_way = self.helper.submit(lambda: work(counted()))
        seen, since = self._seen, time.monotonic()
        while not give_up():
            if wait([future], _SLICE).done:
                return future.result()
            now = time.monotonic()
            if self._seen != seen:
                seen, since = self._seen, now  # slow is not hung
            elif now - since > hanging.SILENT:
                break
        return None
