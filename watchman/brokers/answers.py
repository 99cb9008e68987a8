"""What publishers answer: outcomes whose reasons say where it happened, and are fit to be shown."""

from __future__ import annotations

from collections.abc import Sequence

from watchman.brokers.recorder import Target
from watchman.brokers.replies import Fault
from watchman.masking import mask, public_url
from watchman.model import Answer, Broker, Outcome


class Unusable(Exception):  # noqa: N818 — a state of the broker; its name says all
    """No URL of a broker can be used; ``errors`` holds what each said."""

    def __init__(self, errors: Sequence[tuple[str, Exception]]) -> None:
        super().__init__("no URL can be used")
        self.errors = errors


class Answers:
    """Makes the outcomes of one broker's publisher."""

    def __init__(self, broker: Broker, where: str = "") -> None:
        self._urls = broker.urls
        self.where = where or public_url(broker.urls[0])
        """What a reason begins with: the URL in use, without its credentials."""
        self.held: frozenset[str] = frozenset()
        """Targets, as they are shown, that nothing is sent to for the time being."""

    def on_hold(self, target: Target) -> Outcome | None:
        """Return the answer where nothing is sent to the target for the time being."""
        if not self.held:
            return None
        name = shown(name_of(target))
        return Outcome(Answer.AGAIN, "", name) if name in self.held else None

    def reason(self, error: Exception | str) -> str:
        """Return what is wrong, in one line without credentials and control characters."""
        if isinstance(error, Unusable):
            found = (f"{public_url(url)}: {_kind(one)}{one}" for url, one in error.errors)
            return _cut(mask("; ".join(found), *self._urls))
        return _cut(f"{self.where}: {mask(f'{_kind(error)}{error}', *self._urls)}")

    def again(self, error: Exception | str, target: str = "") -> Outcome:
        """Return the answer for what can be tried again; ``target`` where the trouble is its."""
        return self._outcome(Answer.AGAIN, error, target)

    def refused(self, error: Exception | str, target: str = "") -> Outcome:
        """Return the answer for what can never be sent."""
        return self._outcome(Answer.REFUSED, error, target)._replace(target="")

    def for_fault(self, fault: Fault, error: Exception | str, target: str) -> Outcome:
        """Return the answer that follows from whose fault it is."""
        if fault is Fault.MESSAGE:
            return self.refused(error, target)
        return self.again(error, target if fault is Fault.TARGET else "")

    def _outcome(self, answer: Answer, error: Exception | str, target: str) -> Outcome:
        reason = self.reason(error)
        return Outcome(answer, f"{reason} ({shown(target)})" if target else reason, shown(target))


def _kind(error: Exception | str) -> str:
    return f"{type(error).__name__}: " if isinstance(error, Exception) else ""


def shown(target: str) -> str:
    """Return a target's name as it can be shown: it may be made of what an uploader chose."""
    return mask(target)[:_LONGEST]


_LONGEST = 300
_LONGEST_REASON = 1000


def _cut(reason: str) -> str:
    """Keep a broker from filling log and journal: a reason is noted with each delivery."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def name_of(target: Target) -> str:
    """Say where a message was to go."""
    return target_name(target.exchange, target.routing_key)


def target_name(exchange: str, routing_key: str) -> str:
    """Say where a message was to go."""
    if exchange:
        return f"exchange {exchange!r}, routing key {routing_key!r}"
    return f"queue {routing_key!r}"
