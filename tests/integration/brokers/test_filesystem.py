"""The embedded broker's directories, and what survives there."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from tests.integration.brokers.messages import answers, message, messages, route
from watchman.brokers import filesystem
from watchman.brokers.filesystem import FilesystemPublisher, embedded_options
from watchman.model import ACCEPTED, Answer, Broker


@pytest.fixture
def publisher(tmp_path: Path) -> FilesystemPublisher:
    return FilesystemPublisher(Broker("embedded", ("filesystem://",)), {}, str(tmp_path))


def folder(state_dir: Path) -> Path:
    return Path(embedded_options(str(state_dir))["data_folder_in"])


def test_directories_and_messages_are_the_owners_alone(
    tmp_path: Path, publisher: FilesystemPublisher
) -> None:
    before = os.umask(0)
    try:
        assert publisher.publish([message(route("q"))]) == [ACCEPTED]
    finally:
        os.umask(before)
    (file,) = folder(tmp_path).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for path in (file.parent, file.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_messages_are_flushed_before_they_are_shown_and_the_directory_after(
    tmp_path: Path, publisher: FilesystemPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file, then the names, then the directory: a power loss shows no torn message."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append(f"fsync {kind}")
        fsync(descriptor)

    def noted_rename(source: str, target: str) -> None:
        done.append("rename")
        rename(source, target)

    publisher.publish([message(route("q"))])
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    assert publisher.publish(messages(route("q"), 2)) == [ACCEPTED] * 2
    assert done == ["fsync file"] * 2 + ["rename"] * 2 + ["fsync directory"]


def test_a_message_cut_short_by_a_crash_is_removed(
    tmp_path: Path, publisher: FilesystemPublisher
) -> None:
    torn = folder(tmp_path) / f"{filesystem.TEMPORARY}1_2.q.msg"
    torn.write_text("{")
    assert publisher.publish([message(route("q"))]) == [ACCEPTED]
    assert not torn.exists()


def test_two_brokers_in_one_directory_leave_each_others_messages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is opened while the first writes, in the same moment."""
    monkeypatch.setattr("watchman.brokers.filesystem.time.time_ns", lambda: 1_800_000_000 * 10**9)
    options = filesystem.embedded_options(str(tmp_path))
    one = filesystem.MessageFolder(options)
    written = [one.write(0, "q", "1")]
    other = filesystem.MessageFolder(options)
    written.append(other.write(0, "q", "2"))
    for each in written:
        os.rename(each.temporary, each.final)
    found = sorted(folder(tmp_path).iterdir())
    assert [path.read_text() for path in found] == ["1", "2"]


def test_names_sort_in_send_order_even_if_the_clock_goes_back(
    tmp_path: Path, publisher: FilesystemPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_800_000_000_000_000_000, 0, -1_000_000_000_000))
    monkeypatch.setattr("watchman.brokers.filesystem.time.time_ns", lambda: next(clock))
    batch = messages(route("q"), 20)
    for each in batch:
        assert publisher.publish([each]) == [ACCEPTED]
    ids = [file.read_text() for file in sorted(folder(tmp_path).iterdir())]
    assert all(one.task_id in text for one, text in zip(batch, ids, strict=True))


def test_a_full_disk_is_tried_again_and_leaves_nothing(
    tmp_path: Path, publisher: FilesystemPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish([message(route("q"))])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (said,) = publisher.publish([message(route("q"))])
    assert said.answer is Answer.AGAIN
    assert "No space left" in said.reason
    assert len(list(folder(tmp_path).iterdir())) == 1


@pytest.mark.parametrize("queue", ["a/b", "../up", "n" * 300])
def test_a_queue_that_cannot_be_a_file_name_is_refused(
    tmp_path: Path, publisher: FilesystemPublisher, queue: str
) -> None:
    said = publisher.publish([message(route(queue)), message(route("good"))])
    assert [each.answer for each in said] == [Answer.REFUSED, Answer.ACCEPTED]
    assert len(list(folder(tmp_path).iterdir())) == 1


def test_what_workers_took_long_ago_is_removed(
    tmp_path: Path, publisher: FilesystemPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers(publisher.publish(messages(route("q"), 3))) == {Answer.ACCEPTED}
    processed = Path(embedded_options(str(tmp_path))["processed_folder"])
    for file in folder(tmp_path).iterdir():
        file.rename(processed / file.name)
    publisher.keepalive()
    assert len(list(processed.iterdir())) == 3
    monkeypatch.setattr(filesystem, "KEEP_SECONDS", -7200.0)
    before = time.time() - 3600.0
    monkeypatch.setattr(time, "time", lambda: before)  # the clock is set back meanwhile
    monkeypatch.setattr(filesystem, "PRUNE_SECONDS", 0.0)
    publisher.keepalive()
    assert not list(processed.iterdir())


def test_check_makes_nothing(tmp_path: Path, publisher: FilesystemPublisher) -> None:
    assert publisher.check() is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "broker").write_text("in the way")
    reason = publisher.check()
    assert reason is not None
    assert "broker" in reason
