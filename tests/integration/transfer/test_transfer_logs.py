"""Real servers' logs tell the tasks who uploaded their files."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.transfer.logged import (
    IGNORE,
    SERVERS,
    Logged,
    aborted,
    complete,
    resumed,
    session_ends,
    upload,
)
from tests.running import Remembering, config_for, running, troubles
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import (
    Answer,
    Config,
    Criteria,
    Criterion,
    Member,
    Outcome,
    Route,
    TransferLog,
    Upload,
)
from watchman.pipeline import Pipeline
from watchman.transfer_logs.line_matching import Matching


def config_of(logged: Logged, state: Path) -> Config:
    return config_for(logged.root, state, ignore=IGNORE, transfer_logs=(logged.log,))


def sent(publisher: Remembering, path: Path) -> dict[str, Any]:
    """Wait for the task of a file, and return its further headers."""

    def there() -> Any:
        return [message for message in publisher.messages if message.path == str(path)]

    (message,) = wait_until(there, 20, f"a task for {path}")
    return dict(message.headers)


NAMES = (
    "plain.csv",
    "with space.csv",
    "q\"uo'te.csv",
    "a  b _ i r x ftp 0 * c",
    "ü.csv",
    "[1] x.csv",
)


def test_each_task_tells_who_uploaded_its_file(logged: Logged, tmp_path: Path) -> None:
    with running(config_of(logged, tmp_path)) as (pipeline, publisher):
        with logged.connect() as ftp:
            for number, name in enumerate(NAMES):
                ftp.storbinary(f"STOR {name}", io.BytesIO(b"x" * number * 1000))
        for number, name in enumerate(NAMES):
            headers = sent(publisher, logged.root / name)
            assert headers["watchman_upload_user"] == logged.user, name
            assert headers["watchman_upload_host"] == "127.0.0.1"
            assert headers["watchman_upload_protocol"] == "ftp"
            assert headers["watchman_upload_size"] == number * 1000
            assert 0 <= headers.get("watchman_upload_seconds", 0) < 10
        assert troubles(pipeline) == {}
    with open_reader(str(tmp_path)) as reader:
        told = reader.uploads(range(1, len(NAMES) + 1))
    assert [told[seq].size for seq in sorted(told)] == [n * 1000 for n in range(len(NAMES))]


@pytest.fixture
def proftpd(ftp_directory: Path) -> Iterator[Logged]:
    with ExitStack() as stack:
        yield SERVERS["ProFTPD, xferlog"](ftp_directory, stack)


def told(state: Path, count: int) -> dict[int, Upload]:
    """Wait until the journal has so many uploads, and return them by seq."""

    def there() -> dict[int, Upload]:
        with open_reader(str(state)) as reader:
            found = reader.uploads(range(1, 100))
        return found if len(found) >= count else {}

    return wait_until(there, 20, f"{count} uploads in the journal")


def test_a_resumed_upload_has_the_bytes_of_its_last_transfer(
    proftpd: Logged, tmp_path: Path
) -> None:
    path = proftpd.root / "a.bin"
    with running(config_of(proftpd, tmp_path)) as (_, publisher):
        resumed(proftpd, path, bytes(9000))

        def whole() -> Any:
            return [one.headers for one in publisher.messages if one.size == 9000]

        (headers,) = wait_until(whole, 20, "the task of the whole file")
        assert headers["watchman_upload_user"] == "up"
        assert headers["watchman_upload_size"] == 6000


def test_what_nobody_logs_gets_its_task_without_waiting_long(
    proftpd: Logged, tmp_path: Path
) -> None:
    config = config_of(proftpd, tmp_path)
    config = replace(config, transfer_logs=(replace(proftpd.log, wait=0.2),))
    with running(config) as (_, publisher):
        (proftpd.root / "local.csv").write_bytes(b"x")
        assert sent(publisher, proftpd.root / "local.csv") == {}


def test_a_task_that_waits_for_its_broker_keeps_its_headers_across_a_restart(
    proftpd: Logged, tmp_path: Path
) -> None:
    down = Remembering()
    down.answer = Outcome(Answer.AGAIN, "it is down")
    config = config_of(proftpd, tmp_path)
    with running(config, down):
        complete(proftpd, proftpd.root / "a.csv", b"x" * 10)
        told(tmp_path, 1)
    # Nobody can read the line once more.
    Path(proftpd.log.path).write_bytes(b"")
    with running(config) as (_, publisher):
        headers = sent(publisher, proftpd.root / "a.csv")
    assert headers["watchman_upload_user"] == "up"


def test_what_was_uploaded_while_watchman_was_down(proftpd: Logged, tmp_path: Path) -> None:
    config = config_of(proftpd, tmp_path)
    with running(config):
        pass
    complete(proftpd, proftpd.root / "a.csv", b"x" * 10)
    with running(config) as (_, publisher):
        assert sent(publisher, proftpd.root / "a.csv")["watchman_upload_size"] == 10


@pytest.mark.parametrize("copied", [False, True], ids=["renamed", "copytruncate"])
def test_rotation_under_a_running_daemon(proftpd: Logged, tmp_path: Path, copied: bool) -> None:
    log = Path(proftpd.log.path)
    with running(config_of(proftpd, tmp_path)) as (pipeline, publisher):
        for number in range(3):
            path = proftpd.root / f"{number}.csv"
            complete(proftpd, path, b"x" * 10)
            assert sent(publisher, path)["watchman_upload_user"] == "up"
            if copied:
                shutil.copy(log, log.with_suffix(f".{number}"))
                os.truncate(log, 0)
            else:
                log.rename(log.with_suffix(f".{number}"))  # the next session makes another
        assert troubles(pipeline) == {}


def test_a_log_that_is_late_or_closed_to_us_is_a_trouble_until_it_is_read(
    proftpd: Logged, tmp_path: Path
) -> None:
    path, real = tmp_path / "late.log", Path(proftpd.log.path)
    config = config_of(proftpd, tmp_path / "state")
    config = replace(config, transfer_logs=(replace(proftpd.log, path=str(path)),))
    complete(proftpd, proftpd.root / "before.csv", b"x")  # the first one makes the log
    with running(config) as (pipeline, publisher):
        wait_until(lambda: "is not there" in troubles(pipeline).get(str(path), ""), 20)
        path.mkdir()
        wait_until(lambda: "no regular file" in troubles(pipeline).get(str(path), ""), 20)
        path.rmdir()
        path.symlink_to(real)
        wait_until(lambda: not troubles(pipeline), 20, "the log is read")
        complete(proftpd, proftpd.root / "a.csv", b"x" * 10)
        assert sent(publisher, proftpd.root / "a.csv")["watchman_upload_user"] == "up"


def test_garbage_is_counted_and_a_flood_delays_nothing(
    proftpd: Logged, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = Path(proftpd.log.path)
    other = "Thu Nov 26 15:48:20 2026 0 127.0.0.1 3 /elsewhere/{} b _ i r up ftp 0 * c\n"
    config = config_of(proftpd, tmp_path)
    config = replace(config, transfer_logs=(replace(proftpd.log, wait=20.0),))
    with running(config) as (pipeline, publisher):
        with log.open("a") as file:
            file.write("nonsense\n" * 1000)
            file.writelines(map(other.format, range(10_000)))
            file.write("\0\xff\n")
        complete(proftpd, proftpd.root / "a.csv", b"x" * 10)
        assert sent(publisher, proftpd.root / "a.csv")["watchman_upload_user"] == "up"
        wait_until(lambda: "1001 lines" in troubles(pipeline).get(str(log), ""), 20)
    said = [line for line in caplog.messages if "lines are none of the format" in line]
    assert len(said) == 1


def partial(pipeline: Pipeline) -> list[str]:
    """What is said of files that wait."""
    return [note.message for note in pipeline.parts.notes() if "transfer log" in note.message]


@pytest.fixture(params=["ProFTPD, xferlog", "vsftpd, xferlog", "pure-ftpd, clf"])
def required(request: pytest.FixtureRequest, ftp_directory: Path) -> Iterator[Logged]:
    with ExitStack() as stack:
        yield SERVERS[request.param](ftp_directory, stack)


def test_with_require_log_nothing_is_sent_that_no_log_calls_complete(
    required: Logged, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(
        required.root,
        tmp_path,
        ignore=IGNORE,
        transfer_logs=(required.log,),
        watch={"require_log": True},
    )
    local = required.root / "local.csv"
    with running(config) as (pipeline, publisher):
        local.write_bytes(b"nobody logs it")
        for number in range(20):
            complete(required, required.root / f"{number}.csv", b"x" * number)
        for number in range(20):
            headers = sent(publisher, required.root / f"{number}.csv")
            assert headers["watchman_upload_size"] == number
        wait_until(lambda: "no transfer log" in str(partial(pipeline)), 20, "it waits")
        assert str(local) not in publisher.paths
    # Nor after a restart; and what comes at once is not said to wait.
    with running(config) as (pipeline, publisher):
        wait_until(lambda: "no transfer log" in str(partial(pipeline)), 20, "it waits")
        assert publisher.paths == []
    assert {line.split()[0] for line in caplog.messages if " waits: " in line} <= {str(local)}


def test_names_in_another_script_are_told_apart_where_a_log_has_them_whole(tmp_path: Path) -> None:
    """Other formats would write all of them alike; what was uploaded while watchman was down."""
    root, log = tmp_path / "ftp", tmp_path / "uploads"
    root.mkdir()
    log.touch()
    form = "%h %u %{epoch} %m %{transfer-status} %b %{file-size} %f"
    entry = TransferLog(str(log), "extended", form, {}, utc=False, wait=0.05)
    required = {"require_log": True}
    config = config_for(root, tmp_path / "state", transfer_logs=(entry,), watch=required)
    with running(config):
        pass
    paths = [root / f"{name}.csv" for name in ("данные", "график", "погода", "осадки")]
    for path in paths:
        path.write_bytes(b"1")
        with log.open("a", encoding="utf-8") as lines:
            lines.write(f"10.0.0.1 anna {time.time():.0f} STOR success 1 1 {path}\n")
    with running(config, resumed=True) as (_, publisher):
        for path in paths:
            assert sent(publisher, path)["watchman_upload_user"] == "anna"


def test_what_a_log_has_called_complete_may_wait_longer_than_its_line_is_remembered(
    tmp_path: Path,
) -> None:
    root, log = tmp_path / "ftp", tmp_path / "uploads"
    root.mkdir()
    log.touch()
    form = "%h %u %{epoch} %m %{transfer-status} %b %f"
    config = config_for(
        root,
        tmp_path / "state",
        transfer_logs=(TransferLog(str(log), "extended", form, {}, utc=False, wait=0.05),),
        watch={"require_log": True},
        patterns=((f"{root}/*.csv", Route("b", "t")), (f"{root}/*.shp", Route("b", "t"))),
        criteria=(
            Criteria((Criterion("marker", "{name}.done"),)),
            Criteria((), members=(Member("{stem}.dbf"), Member("{stem}.shx"))),
        ),
    )

    def uploaded(name: str) -> None:
        (root / name).write_bytes(b"1")
        with log.open("a") as lines:
            lines.write(f"10.0.0.1 anna {time.time():.0f} STOR success 1 {root / name}\n")

    def await_reason(pipeline: Pipeline, reason: str) -> None:
        rows = pipeline.journal.partial.below
        wait_until(lambda: any(one.reason == reason for one in rows(str(root))), 20, reason)

    with running(config) as (pipeline, publisher):
        for name in ("a.csv", "a.shp", "a.dbf"):
            uploaded(name)
        await_reason(pipeline, "a.csv.done is not there")
        await_reason(pipeline, "a.shx is missing")
        assert pipeline.parts.log_reader is not None
        pipeline.parts.log_reader._matching = Matching()
        (root / "a.csv.done").touch()
        uploaded("a.shx")
        sent(publisher, root / "a.csv")
        sent(publisher, root / "a.shp")
        uploaded("b.csv")
        await_reason(pipeline, "b.csv.done is not there")
    log.write_bytes(b"")
    with running(config, resumed=True) as (pipeline, publisher):
        (root / "b.csv.done").touch()
        sent(publisher, root / "b.csv")


@pytest.mark.parametrize("settle", [None, 0.5])
def test_an_incomplete_upload_waits_until_it_is_resumed(
    proftpd: Logged, tmp_path: Path, settle: float | None
) -> None:
    path, data = proftpd.root / "a.bin", bytes(range(256)) * 30
    config = config_for(
        proftpd.root,
        tmp_path,
        ignore=IGNORE,
        transfer_logs=(proftpd.log,),
        watch={"require_log": True, "settle": settle},
    )
    with running(config) as (pipeline, publisher):
        session_ends(proftpd, lambda: aborted(proftpd, path, data[:5000]))
        wait_until(lambda: "incomplete" in str(partial(pipeline)), 20, "it waits")
        assert publisher.paths == []
    # What the log has said lasts, however much is written to it, and whoever reads it.
    Path(proftpd.log.path).write_bytes(b"")
    config = replace(config, watches=(replace(config.watches[0], require_log=False),))
    with running(config) as (pipeline, publisher):
        wait_until(lambda: "incomplete" in str(partial(pipeline)), 20, "it waits")
        assert publisher.paths == []
        with upload(proftpd, "STOR a.bin", data, rest=0) as (client, connection):
            connection.close()
            client.voidresp()
        assert sent(publisher, path)["watchman_upload_size"] == len(data)
        assert path.read_bytes() == data
        wait_until(lambda: not partial(pipeline), 20, "nothing waits")


def test_a_set_waits_for_what_logs_tell_of_its_members(proftpd: Logged, tmp_path: Path) -> None:
    root, data = proftpd.root, bytes(range(256)) * 30
    config = config_for(
        root,
        tmp_path,
        ignore=IGNORE,
        transfer_logs=(proftpd.log,),
        patterns=((f"{root}/*.shp", Route("b", "t")),),
        criteria=(Criteria((), members=(Member("{stem}.dbf"),), set_after=0.3),),
    )
    required = replace(config, watches=(replace(config.watches[0], require_log=True),))
    told = "a.dbf: a transfer log calls its upload incomplete"
    with running(required) as (pipeline, publisher):
        complete(proftpd, root / "a.shp", b"1")
        session_ends(proftpd, lambda: aborted(proftpd, root / "a.dbf", data[:5000]))
        wait_until(lambda: told in str(partial(pipeline)), 20, "it waits")
    Path(proftpd.log.path).write_bytes(b"")
    with running(config) as (pipeline, publisher):
        wait_until(lambda: told in str(partial(pipeline)), 20, "it waits")
        assert publisher.paths == []
        complete(proftpd, root / "a.dbf", data)
        wait_until(lambda: publisher.messages, 20, "the task of the set")
        (message,) = publisher.messages
        assert message.files == (str(root / "a.shp"), str(root / "a.dbf"))
        wait_until(lambda: not partial(pipeline), 20, "nothing waits")
    with running(required) as (pipeline, publisher):
        (root / "b.dbf").write_bytes(data)
        complete(proftpd, root / "b.shp", b"1")
        told = "b.dbf: no transfer log calls it complete"
        wait_until(lambda: told in str(partial(pipeline)), 20, "it waits")
        (root / "b.dbf").unlink()  # it is not the server's
        complete(proftpd, root / "b.dbf", data)
        wait_until(lambda: publisher.messages, 20, "the task of the set")
