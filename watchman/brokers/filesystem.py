"""The embedded broker: kombu's ``filesystem://`` transport, with a writer that never tears.

kombu's own writer opens the final name and then writes, so a busy consumer reads half a message.
Ours writes a temporary name that no reader looks at, fsyncs, and renames. Readers are stock.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from watchman.brokers.base import Connection, DirectPublisher, Encoded, Outcomes, name_of
from watchman.brokers.faults import Fault
from watchman.brokers.json_format import JsonFormat
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.template import EncodedMessage, WireFormat
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
    options = embedded_folders(state_dir)
    for path in (os.path.join(state_dir, DIRECTORY), *(options[name] for name in _FOLDERS)):
        os.makedirs(path, mode=0o700, exist_ok=True)
    return options


_FOLDERS = {
    "data_folder_in": "messages",
    "control_folder": "control",
    "processed_folder": "processed",
}


def embedded_folders(state_dir: str) -> dict[str, Any]:
    """Return the options for the embedded broker; nothing is made."""
    options = {option: os.path.join(state_dir, DIRECTORY, _FOLDERS[option]) for option in _FOLDERS}
    return {**options, "data_folder_out": options["data_folder_in"], "store_processed": True}


class _Written(NamedTuple):
    """A message that has no name yet that readers look at."""

    position: int
    """Its place in the batch."""
    temporary: str
    final: str


class MessageFolder(Connection):
    """The directory of the messages; nothing is open that could break.

    Several of BROKERS may have it, each with a thread of its own. Raises OSError where it cannot be
    made or looked through.
    """

    _lock: ClassVar = threading.Lock()
    _swept: ClassVar[set[str]] = set()
    """Where this process has removed what an earlier one has left."""
    _last: ClassVar[int] = 0
    """The number of the last name of all: two of one name would be one message."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.path = str(options["data_folder_out"])
        self._processed = str(options["processed_folder"])
        self._pruned = -math.inf
        """When that was, by the monotonic clock."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        """Remove what a crash before the rename has left: the journal still has those messages.

        Once: what comes later is another broker's, and about to be renamed.
        """
        if self.path not in self._swept:
            for path in Path(self.path).glob(f"{TEMPORARY}*"):
                path.unlink(missing_ok=True)
            self._swept.add(self.path)

    def write(self, position: int, queue: str, text: str) -> _Written:
        """Write one message under a temporary name."""
        # kombu takes the first name of its sorted list: a time of always 19 digits is send order.
        with self._lock:
            MessageFolder._last = number = max(self._last + 1, time.time_ns())
        name = f"{number:019d}_{os.getpid()}.{queue}.msg"
        temporary = os.path.join(self.path, TEMPORARY + name)
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
        return _Written(position, temporary, os.path.join(self.path, name))

    def sync(self) -> None:
        """Make the names last."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def prune(self) -> None:
        """Remove what workers took long ago."""
        moment, now = time.monotonic(), time.time()
        if moment - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = moment
        with contextlib.suppress(OSError), os.scandir(self._processed) as entries:
            for entry in entries:
                # Taking a message is a rename, and that sets its ctime.
                taken = entry.stat(follow_symlinks=False).st_ctime
                if entry.name.endswith(".msg") and now - taken > KEEP_SECONDS:
                    os.unlink(entry.path)


class FilesystemPublisher(DirectPublisher[MessageFolder]):
    """Publishes to the embedded broker; there is one for a state directory at a time.

    Exchanges and signals are for kombu's own writer.
    """

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any], state_dir: str) -> None:
        defaults = embedded_folders(state_dir)
        by_kombu = KombuPublisher(broker, celery_settings, defaults)
        super().__init__(broker, celery_settings, by_kombu, defaults, "embedded broker")
        self._state_dir = state_dir

    def _wire_format(self) -> WireFormat:
        return JsonFormat()

    def _connect(self) -> MessageFolder:
        """Return the directory of the messages, making it if need be. Raises OSError."""
        embedded_options(self._state_dir)
        return MessageFolder(self._options)

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Write the batch's messages; see :class:`watchman.model.Publisher`."""
        try:
            self._connected()
        except OSError as error:
            return [self._answers.again(error)] * len(batch)
        return super().publish(batch)

    def _send_encoded(self, batch: Sequence[Message], encoded: Encoded, outcomes: Outcomes) -> None:
        written: list[_Written] = []
        for index, each in enumerate(encoded):
            if isinstance(each, Outcome):
                outcomes[index] = each
            elif answer := self._answers.answer_if_paused(each.target):
                outcomes[index] = answer
            elif each.target.exchange:
                outcomes[index] = self._fallback.publish([batch[index]])[0]
            else:
                wrote = self._write(index, each)
                if isinstance(wrote, Outcome):
                    outcomes[index] = wrote
                else:
                    written.append(wrote)
        self._show(written, outcomes)

    def _write(self, index: int, encoded: EncodedMessage) -> _Written | Outcome:
        queue, name = encoded.target.routing_key, name_of(encoded.target)
        if "/" in queue or "\0" in queue:
            return self._answers.refused("its name cannot be part of a file's name", name)
        try:
            return self._connected().write(index, queue, encoded.payload)
        except OSError as error:
            hopeless = error.errno in (errno.ENAMETOOLONG, errno.EINVAL)
            fault = Fault.MESSAGE if hopeless else Fault.BROKER
            return self._answers.for_fault(fault, error, name)
        except ValueError as error:  # a name that is no text
            return self._answers.refused(error, name)

    def _show(self, written: list[_Written], outcomes: Outcomes) -> None:
        """Give the messages their final names, in order, and make that last."""
        for index, temporary, final in written:
            try:
                os.rename(temporary, final)
            except OSError as error:
                outcomes[index] = self._answers.again(error)
            else:
                outcomes[index] = ACCEPTED
        if not written:
            return
        try:
            self._connected().sync()
        except OSError as error:
            for index, _, _ in written:
                outcomes[index] = self._answers.again(error)

    def keepalive(self) -> str | None:
        """Remove what workers took long ago; say if the directories cannot be written to."""
        if self._connection is not None:
            self._connection.prune()
        return self.check()

    def check(self) -> str | None:
        """See whether the directories are there and writable, or can be made; makes none."""
        path = os.path.join(self._state_dir, DIRECTORY, _FOLDERS["data_folder_in"])
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return None
        return self._answers.reason(f"{path} is no directory that can be written to")
