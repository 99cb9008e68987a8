"""The embedded broker: kombu's ``filesystem://`` transport, with a writer that never tears.

kombu's own writer opens the final name and then writes, so a busy consumer reads half a message.
Ours writes a temporary name that no reader looks at, fsyncs, and renames. Readers are stock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from watchman.brokers.answers import Answers, name_of
from watchman.brokers.application import (
    connect_options,
    instrumented,
    make_application,
    make_connection,
)
from watchman.brokers.envelope import Envelopes
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.replies import Fault
from watchman.brokers.virtual import VirtualStyle
from watchman.model import ACCEPTED, Broker, Message, Outcome

DIRECTORY = "broker"
"""Below the state directory."""
TEMPORARY = ".watchman-"
KEEP_SECONDS = 86400.0
"""For so long what workers have taken stays in ``processed``, for a look after an accident."""
PRUNE_SECONDS = 600.0


def embedded_options(state_dir: str) -> dict[str, Any]:
    """Make the embedded broker's directories; return the options that a worker needs for it.

    They are Celery's ``broker_transport_options``. ``store_processed`` is on: without it kombu
    takes a message by moving it to the system's temporary directory, which is a copy where that
    is another file system, and two workers may then take the same one. Raises OSError.
    """
    base = os.path.join(state_dir, DIRECTORY)
    names = {"data_folder_in": "messages", "control_folder": "control"}
    options = {option: os.path.join(base, name) for option, name in names.items()}
    options["processed_folder"] = os.path.join(base, "processed")
    for path in (base, *options.values()):
        os.makedirs(path, mode=0o700, exist_ok=True)
    return {
        **options,
        "data_folder_out": options["data_folder_in"],
        "store_processed": True,
    }


class FilesystemPublisher:
    """Publishes to the embedded broker; there is one for a state directory at a time."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any], state_dir: str) -> None:
        self._broker = broker
        self._app = make_application(celery_settings)
        self._answers = Answers(broker, "embedded broker")
        self._state_dir = state_dir
        options = connect_options(self._app, broker, {})
        connection = make_connection(self._app, "filesystem://", options, tls=False)
        self._envelopes = Envelopes(self._app, connection, VirtualStyle())
        self._options = options
        self._folder: str | None = None
        self._processed = ""
        self._pruned = 0.0
        self._last = 0
        self._settings = celery_settings
        self._plain: KombuPublisher | None = None

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Write the batch's messages; see :class:`watchman.model.Publisher`."""
        try:
            folder = self._opened()
        except OSError as error:
            return [self._answers.again(error)] * len(batch)
        if instrumented(self._app):
            return self._through_kombu(batch)
        outcomes: list[Outcome | None] = [None] * len(batch)
        written: list[tuple[int, str, str]] = []
        for index, letter in enumerate(self._envelopes.letters(batch)):
            if isinstance(letter, Outcome):
                outcomes[index] = letter
            elif held := self._answers.on_hold(letter.target):
                outcomes[index] = held
            elif letter.target.exchange:
                outcomes[index] = self._through_kombu([batch[index]])[0]
            elif "/" in letter.target.routing_key or "\0" in letter.target.routing_key:
                reason = "its name cannot be part of a file's name"
                outcomes[index] = self._answers.refused(reason, name_of(letter.target))
            else:
                try:
                    names = self._write(folder, letter.target.routing_key, letter.payload)
                except OSError as error:
                    hopeless = error.errno in (errno.ENAMETOOLONG, errno.EINVAL)
                    fault = Fault.MESSAGE if hopeless else Fault.BROKER
                    name = name_of(letter.target)
                    outcomes[index] = self._answers.for_fault(fault, error, name)
                except ValueError as error:  # a name that is no text
                    outcomes[index] = self._answers.refused(error, name_of(letter.target))
                else:
                    written.append((index, *names))
        self._show(folder, written, outcomes)
        return [outcome or ACCEPTED for outcome in outcomes]

    def _opened(self) -> str:
        """Return the directory of the messages, making it if need be. Raises OSError."""
        if self._folder is None:
            options = {**embedded_options(self._state_dir), **self._options}
            folder = str(options["data_folder_out"])
            self._processed = str(options["processed_folder"])
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Left by a crash before the rename: the journal still has those messages.
            for path in Path(folder).glob(f"{TEMPORARY}*"):
                path.unlink(missing_ok=True)
            self._plain = KombuPublisher(self._broker, self._settings, options)
            self._plain.hold(self._answers.held)
            self._folder = folder
        return self._folder

    def _through_kombu(self, batch: Sequence[Message]) -> list[Outcome]:
        """For exchanges and signals: kombu's own writer."""
        if self._plain is None:
            return [self._answers.again("not open")] * len(batch)
        return self._plain.publish(batch)

    def _write(self, folder: str, queue: str, text: str) -> tuple[str, str]:
        """Write one message under a temporary name; return that and the final name."""
        # kombu takes the first name of its sorted list: a time of always 19 digits is send order.
        self._last = max(self._last + 1, time.time_ns())
        name = f"{self._last:019d}_{os.getpid()}.{queue}.msg"
        temporary = os.path.join(folder, TEMPORARY + name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o600)
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(text.encode("ascii"))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        return temporary, os.path.join(folder, name)

    def _show(
        self, folder: str, written: list[tuple[int, str, str]], outcomes: list[Outcome | None]
    ) -> None:
        """Give the messages their final names, in order, and make that last."""
        for index, temporary, final in written:
            try:
                os.rename(temporary, final)
            except OSError as error:
                outcomes[index] = self._answers.again(error)
        if not written:
            return
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            for index, _, _ in written:
                outcomes[index] = self._answers.again(error)

    def hold(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        self._answers.held = targets
        if self._plain is not None:
            self._plain.hold(targets)

    def tend(self) -> str | None:
        """Remove what workers took long ago; say if the directories cannot be written to."""
        self._prune()
        return self.check()

    def _prune(self) -> None:
        now = time.time()
        if not self._processed or now - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = now
        with contextlib.suppress(OSError), os.scandir(self._processed) as entries:
            for entry in entries:
                # Taking a message is a rename, and that sets its ctime.
                taken = entry.stat(follow_symlinks=False).st_ctime
                if entry.name.endswith(".msg") and now - taken > KEEP_SECONDS:
                    os.unlink(entry.path)

    def check(self) -> str | None:
        """See whether the directories are there and writable, or can be made."""
        path = os.path.join(self._state_dir, DIRECTORY, "messages")
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return None
        return self._answers.reason(f"{path} is no directory that can be written to")

    def close(self) -> None:
        """Nothing is open."""
        if self._plain is not None:
            self._plain.close()
