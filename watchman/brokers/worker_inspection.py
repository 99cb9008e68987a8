"""Who takes tasks from a broker: what workers answer, and what the broker says of its queues.

Celery's own ``inspect`` asks the workers. Of AMQP's queues and exchanges the broker itself tells,
by passive declarations: these make nothing. Every question is bounded in time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from watchman.brokers.app import connect_options, let_go, make_application, make_connection
from watchman.brokers.filesystem import embedded_folders
from watchman.brokers.urls import AMQP, scheme_of
from watchman.masking import mask
from watchman.model import Broker

ANSWER_SECONDS = 1.5
"""For so long workers may think about an answer."""
LONGEST = 20.0
"""Seconds after which a broker that does not answer is given up."""
_NOT_FOUND = 404


class Workers(NamedTuple):
    """What is known of a broker's consumers."""

    problem: str = ""
    """Why nothing is known; all else is empty then."""
    tasks: Mapping[str, frozenset[str]] = {}
    """The names of the tasks that each worker knows."""
    queues: Mapping[str, frozenset[str]] = {}
    """The names of the queues that each worker takes from."""
    consumers: Mapping[str, int | None] = {}
    """How many consumers each queue has that was asked for; None if there is no such queue.
    Empty where the broker cannot be asked."""
    exchanges: Mapping[str, bool] = {}
    """Whether each exchange is there that was asked for. Empty where the broker cannot be asked."""


def ask(
    broker: Broker,
    settings: Mapping[str, Any],
    state_dir: str,
    queues: Iterable[str],
    exchanges: Iterable[str],
    longest: float = LONGEST,
) -> Workers:
    """Ask a broker's workers what they know, and the broker for these queues and exchanges.

    ``settings`` are celeryconfig.py's. Returns within ``longest`` seconds, whatever hangs.
    """
    answers: list[Workers] = []

    def run() -> None:
        try:
            answers.append(_ask(broker, settings, state_dir, queues, exchanges))
        except Exception as error:  # noqa: BLE001 — of kombu, the broker's library, Celery
            wrong = mask(f"{type(error).__name__}: {error}", *broker.urls)
            answers.append(Workers(wrong))

    thread = threading.Thread(target=run, name=f"ask {broker.name}", daemon=True)
    thread.start()
    thread.join(longest)
    return answers[0] if answers else Workers(f"no answer within {longest:g} s")


def _ask(
    broker: Broker,
    settings: Mapping[str, Any],
    state_dir: str,
    queues: Iterable[str],
    exchanges: Iterable[str],
) -> Workers:
    app = make_application(settings)
    # Its producers would be those of the application's own broker, which is not ours.
    app.control.mailbox.producer_pool = None
    embedded = scheme_of(broker.urls[0]) == "filesystem"
    options = connect_options(app, broker, embedded_folders(state_dir) if embedded else {})
    if embedded and not os.path.isdir(options["control_folder"]):
        return Workers()  # no worker has ever been there, and nothing is to be made by asking
    with _connected(app, broker, options) as (connection, url):
        inspect = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
        tasks = inspect.registered() or {}
        taken = inspect.active_queues() or {}
        found = Workers(
            "",
            # A rate limit stands behind the name of its task.
            {name: frozenset(one.split(" ")[0] for one in some) for name, some in tasks.items()},
            {name: frozenset(one["name"] for one in some) for name, some in taken.items()},
        )
        if scheme_of(url) not in AMQP:
            return found
        return found._replace(
            consumers={name: _consumers(connection, name) for name in queues},
            exchanges={name: _is_exchange(connection, name) for name in exchanges},
        )


@contextlib.contextmanager
def _connected(app: Any, broker: Broker, options: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Yield a connection to the first URL that can be used, and that URL. Raises its error."""
    for number, url in enumerate(broker.urls, 1):
        connection = make_connection(app, url, options)
        try:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0)
            except Exception:
                if number == len(broker.urls):
                    raise
                continue
            yield connection, url
            return
        finally:
            with contextlib.suppress(Exception):
                connection.release()
            let_go(connection)


def _consumers(connection: Any, queue: str) -> int | None:
    """Return how many consumers a queue has; None if there is no such queue."""
    declared = _declared(connection, lambda channel: channel.queue_declare(queue, passive=True))
    return None if declared is None else int(declared.consumer_count)


def _is_exchange(connection: Any, exchange: str) -> bool:
    def declare(channel: Any) -> bool:
        channel.exchange_declare(exchange, "", passive=True)
        return True

    return _declared(connection, declare) is not None


def _declared(connection: Any, declare: Callable[[Any], Any]) -> Any:
    """Return what a passive declaration gives; None where there is nothing of that name.

    On a channel of its own: such an answer closes it. Raises every other error.
    """
    channel = connection.channel()
    try:
        return declare(channel)
    except connection.channel_errors as error:
        if getattr(error, "code", None) != _NOT_FOUND:
            raise
        return None
    finally:
        with contextlib.suppress(Exception):
            channel.close()
