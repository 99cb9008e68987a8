"""The URLs of one broker: which is in use, and what each said where none can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from watchman.brokers.answers import Answers, Unusable
from watchman.masking import public_url


class Droppable(Protocol):
    """A connection."""

    def drop(self) -> None:
        """Let go of it."""
        ...


Connection = TypeVar("Connection", bound=Droppable)


class Failover:
    """Connects to the first URL that can be used, beginning with the last one that could be."""

    def __init__(self, urls: tuple[str, ...], answers: Answers) -> None:
        self._urls = urls
        self._answers = answers
        self._first = 0

    def connect(
        self,
        open_one: Callable[[str], Connection],
        trial: Callable[[Connection], Exception | None] = lambda _: None,
    ) -> Connection:
        """Return an open connection on which ``trial`` found nothing wrong.

        A server that answers may still be of no use: a replica, one that is loading its data.
        Raises Unusable with what each URL said.
        """
        errors: list[tuple[str, Exception]] = []
        for number in range(len(self._urls)):
            at = (self._first + number) % len(self._urls)
            try:
                opened = open_one(self._urls[at])
            except Exception as error:  # noqa: BLE001 — each library raises errors of its own
                errors.append((self._urls[at], error))
                continue
            wrong = trial(opened)
            if wrong is None:
                self._first = at
                self._answers.where = public_url(self._urls[at])
                return opened
            opened.drop()
            errors.append((self._urls[at], wrong))
        raise Unusable(errors)

    def go_on(self) -> None:
        """Begin with the next URL: the one in use has broken, or turned out to be of no use."""
        self._first = (self._first + 1) % len(self._urls)
