"""How long a task waits for its file's line."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.listeners import PartsHeard
from tests.waiting import wait_until
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, TransferLog, Version
from watchman.pipeline.log_reader import TransferLogReader
from watchman.troubles import Troubles


def test_that_lines_may_be_lost_is_said_with_what_could_not_be_looked_at(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, loop = tmp_path / "xferlog", tmp_path / "xferlog.1"
    log.write_text("a line\n")
    loop.symlink_to(loop)
    entry = TransferLog(str(log), "xferlog", "", {"/": "/"}, utc=False, wait=0.1)
    reader = TransferLogReader([entry], journal, Troubles(), PartsHeard())
    reader.start()
    try:
        wait_until(lambda: reader._logs[0].followed.position() == (*identity(log), 7, ANY))
        log.write_text("")
        wait_until(lambda: "rotated or emptied" in caplog.text)
    finally:
        reader.stop()
    assert [message for message in caplog.messages if "emptied" in message] == [
        f"{log}: the transfer log was rotated or emptied, and what it was before is not beside it, "
        f"unless it is what cannot be read: {loop} (Too many levels of symbolic links): who "
        "uploaded the files of that time may be missing"
    ]


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@pytest.mark.parametrize("ahead", [0, 86_400])
def test_what_no_line_tells_of_waits_for_a_moment(
    journal: Journal, tmp_path: Path, ahead: int
) -> None:
    """However far the clock was ahead when it arrived, if it was set back just then."""
    log = tmp_path / "xferlog"
    log.touch()
    entry = TransferLog(str(log), "xferlog", "", {"/": "/"}, utc=False, wait=0.1)
    reader = TransferLogReader([entry], journal, Troubles(), PartsHeard())
    reader.start()
    try:
        arrived_ns = time.time_ns() + ahead * 10**9
        version = Version(1, 2, 3, arrived_ns, arrived_ns)
        journal.record([NewDelivery("id", "/up/a", None, version, arrived_ns, Route("b", "t"))])
        rows = journal.page_ready("b", 0, 9)
        assert len(rows) == 1
        sender = threading.Thread(target=reader.of, args=(rows,), daemon=True)
        sender.start()
        wait_until(lambda: not sender.is_alive(), 20, "the sender goes on")
    finally:
        reader.stop()
