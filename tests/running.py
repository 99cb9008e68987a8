"""A pipeline running in a thread, with a publisher that only remembers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.waiting import wait_until
from watchman.journal import Journal
from watchman.model import ACCEPTED, Broker, Config, Message, Outcome, Publisher, Route, Watch
from watchman.pipeline import Pipeline

IGNORE = (".in.*.", ".dst*", "*.part")


class Remembering:
    """A publisher that accepts everything, or answers what ``answer`` says."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answer: Outcome = ACCEPTED

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        answer = self.answer
        if answer is ACCEPTED:
            self.messages.extend(batch)
        return [answer] * len(batch)

    def pause(self, targets: frozenset[str]) -> None:
        """No target of its is ever in trouble."""

    def keepalive(self) -> str | None:
        """Nothing to keep alive."""
        return None

    def check(self) -> str | None:
        """It can always be used."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""

    @property
    def paths(self) -> list[str]:
        """The paths sent so far, in order."""
        return [message.path for message in self.messages]


def config_for(root: Path, state: Path, **changes: Any) -> Config:
    """A configuration with one watch on ``root`` and a task for everything below it."""
    watch = Watch(str(root), rec=True, auto_add=True, **changes.pop("watch", {}))
    config = Config(
        path="test",
        watches=(watch,),
        brokers={"b": Broker("b", ("memory://",))},
        patterns=((f"{root}/*", Route("b", "task")),),
        moves=(),
        ignore=IGNORE,
        dry_run=(),
        state_dir=str(state),
        pid_file="",
        log_dir="",
        logging={},
        celery={},
    )
    return replace(config, **changes)


class Owner:
    """Who runs a pipeline; each of its brokers has the same publisher."""

    def __init__(self, publisher: Publisher, ready: threading.Event) -> None:
        self.publisher = publisher
        self.ready = ready

    def open_publisher(self, _config: Config, _broker: str) -> Publisher:
        return self.publisher

    def now_watching(self, _config: Config) -> None:
        self.ready.set()


@contextlib.contextmanager
def running(
    config: Config, publisher: Remembering | None = None, **options: Any
) -> Iterator[tuple[Pipeline, Remembering]]:
    """Run a pipeline until the block ends; it watches when the block begins."""
    Path(config.state_dir).mkdir(parents=True, exist_ok=True)
    publisher = publisher or Remembering()
    ready = threading.Event()
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
    journal = Journal(config.state_dir)
    pipeline = Pipeline(config, journal, Owner(publisher, ready), **options)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pipeline.run()
        except BaseException as error:
            failures.append(error)
            ready.set()
            raise

    thread = threading.Thread(target=run, name="pipeline")
    thread.start()
    try:
        wait_until(ready.is_set, 20, "the pipeline watches")
        yield pipeline, publisher
    finally:
        pipeline.stop()
        thread.join(30)
        journal.close()
        signal.signal(signal.SIGIO, previous)
    assert not failures
    assert not thread.is_alive()


def troubles(pipeline: Pipeline) -> dict[str, str]:
    """What is wrong at the moment, by subject."""
    return {trouble.subject: trouble.message for trouble in pipeline.troubles.all()}


def await_noted(pipeline: Pipeline, *texts: str) -> None:
    """Wait until one note holds all of these; it comes a little after the journal has its file."""

    def noted() -> bool:
        notes = [note.message for note in pipeline.parts.notes()]
        return any(all(text in note for text in texts) for note in notes)

    wait_until(noted, 60, f"a note with {texts}")
