"""Listeners of the sources and of the pipeline's parts that keep what they are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from watchman.model import Delivery, Move


class UnwatchedHeard:
    """What cannot be watched, and why; None: it can again."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str | None]] = []
        self.gone: list[str] = []

    def say(self, path: str, error: OSError | None) -> None:
        self.said.append((path, error.strerror if error else None))

    @property
    def well(self) -> list[bool]:
        """Whether all was well, each time that something was said."""
        return [error is None for _, error in self.said]

    def left(self, path: str) -> None:
        self.gone.append(path)


class NoTrouble(UnwatchedHeard):
    """Where everything can be watched."""

    def say(self, path: str, error: OSError | None) -> None:
        raise AssertionError(f"{path}: {error}")


class PartsHeard:
    """Who is woken, what is to be looked at again, what has failed."""

    def __init__(self) -> None:
        self.woken: list[str | Move] = []
        self.paths: list[str] = []
        self.failures: list[Delivery] = []

    def wake(self, concerned: Iterable[str | Move]) -> None:
        self.woken += concerned

    def changed(self, paths: Sequence[str]) -> None:
        self.paths += paths

    def failed(self, deliveries: list[Delivery]) -> None:
        self.failures += deliveries
