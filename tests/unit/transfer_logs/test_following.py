"""A log is read to its end, once, however it is rotated, and whenever its reader stops."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from watchman.transfer_logs import following
from watchman.transfer_logs.following import FollowedLog, Position


def new_lines(log: FollowedLog) -> list[bytes]:
    return [line for lines in log.read() for line in lines]


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "xferlog"
    append(made, b"one", b"two")
    return made


def test_each_line_is_read_once(path: Path) -> None:
    log = FollowedLog(str(path), None)
    assert new_lines(log) == [b"one", b"two"]
    assert new_lines(log) == []
    append(path, b"three")
    assert new_lines(log) == [b"three"]
    log.close()


def test_half_a_line_waits_for_its_end(path: Path) -> None:
    log = FollowedLog(str(path), None)
    with path.open("ab") as file:
        file.write(b"thr")
    assert new_lines(log) == [b"one", b"two"]
    assert log.position() is not None
    again = FollowedLog(str(path), log.position())
    append(path, b"ee")
    assert new_lines(log) == [b"three"]
    assert new_lines(again) == [b"three"]
    log.close()
    again.close()


def test_a_restart_goes_on_where_it_was(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    append(path, b"three")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"three"]
    assert not again.lost
    again.close()


def test_a_log_that_was_renamed_is_read_on_and_so_is_the_new_one(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    path.rename(path.with_suffix(".1"))
    # Sessions that began before write on in the old one.
    append(path.with_suffix(".1"), b"three")
    assert new_lines(log) == [b"three"]
    assert log.is_missing
    append(path, b"four")
    append(path.with_suffix(".1"), b"five")
    assert sorted(new_lines(log)) == [b"five", b"four"]
    append(path.with_suffix(".1"), b"six")
    assert new_lines(log) == [b"six"]
    assert new_lines(log) == []
    log.close()


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_rotated_while_nobody_read(path: Path, rotations: int) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    expected = []
    for number in range(rotations):
        append(path, b"before %d" % number)
        expected.append(b"before %d" % number)
        for older in range(number, 0, -1):
            path.with_suffix(f".{older}").rename(path.with_suffix(f".{older + 1}"))
        path.rename(path.with_suffix(".1"))
        os.utime(path.with_suffix(".1"), ns=(number, number))
        path.touch()
    append(path, b"after")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [*expected, b"after"]
    assert not again.lost
    again.close()


@pytest.mark.parametrize("running", [True, False])
def test_copied_and_truncated(path: Path, running: bool) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    append(path, b"three")
    shutil.copy(path, path.with_suffix(".1"))
    os.truncate(path, 0)
    append(path, b"a line that makes it longer than it has been before")
    if not running:
        log.close()
        log = FollowedLog(str(path), log.position())
    assert new_lines(log) == [b"three", b"a line that makes it longer than it has been before"]
    assert not log.lost
    log.close()


@pytest.mark.parametrize("rotated", ["vsftpd-20261127.log", "vsftpd.1.log", "vsftpd.log.1"])
def test_a_rotated_log_may_keep_its_suffix(path: Path, rotated: str) -> None:
    """As logrotate's ``extension`` has it."""
    path = path.rename(path.with_name("vsftpd.log"))
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    append(path, b"three")
    path.rename(path.with_name(rotated))
    append(path, b"four")
    append(path.with_name("vsftpd-other.log"), b"of another server")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"three", b"four"]
    assert not again.lost
    again.close()


def test_what_was_compressed_meanwhile_is_said_to_be_lost(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    path.rename(path.with_suffix(".1.gz"))
    append(path, b"new")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"new"]
    assert again.lost
    again.close()


def test_an_emptied_log_of_which_no_copy_is_left_is_said_to_be_lost(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    append(path, b"three")
    path.write_bytes(b"four\n")
    assert new_lines(log) == [b"four"]
    assert log.lost
    log.close()


def test_neighbours_that_cannot_be_read_are_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    append(path, b"three")
    path.rename(path.with_suffix(".1"))
    append(path, b"four")
    private, loop = path.with_name("xferlog-private"), path.with_name("xferlog-loop")
    append(private, b"of somebody else")
    os.utime(private, ns=(2**62, 2**62))  # the newest, which is looked at first
    loop.symlink_to(loop)
    before = len(os.listdir("/proc/self/fd"))
    open_ = os.open

    def refused(name: str, *flags: int) -> int:
        if name == str(private):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_(name, *flags)

    monkeypatch.setattr(os, "open", refused)
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"three", b"four"]
    assert not again.lost
    again.close()
    path.with_suffix(".1").unlink()
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"four"]
    assert again.lost
    assert sorted(again.unreadable) == [
        f"{loop} (Too many levels of symbolic links)",
        f"{private} (Permission denied)",
    ]
    again.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_kept_where_there_are_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is tried again, and nothing is lost."""
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    path.rename(path.with_suffix(".1"))
    append(path, b"three")
    append(path.with_suffix(".2"), b"other")
    os.utime(path.with_suffix(".2"), ns=(2**62, 2**62))
    before = len(os.listdir("/proc/self/fd"))
    open_ = os.open

    def no_more(name: str, *flags: int) -> int:
        if name.endswith(".1"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_(name, *flags)

    again = FollowedLog(str(path), log.position())
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_more)
        with pytest.raises(OSError, match="Too many open files"):
            new_lines(again)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not again.lost
    assert new_lines(again) == [b"other", b"three"]
    again.close()


def test_an_empty_log_is_not_taken_for_any_other(path: Path) -> None:
    os.truncate(path, 0)
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    append(path, b"three")
    path.rename(path.with_suffix(".1"))
    path.touch()
    append(path.with_name("xferlog-other"), b"of another server")
    os.utime(path.with_name("xferlog-other"), ns=(2**62, 2**62))
    again = FollowedLog(str(path), log.position())
    assert b"three" in new_lines(again)  # the other is the newest, and looked at first
    again.close()


def test_a_rotated_log_that_is_removed_keeps_no_space(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    path.rename(path.with_suffix(".1"))
    append(path, b"new")
    new_lines(log)
    before = len(os.listdir("/proc/self/fd"))
    path.with_suffix(".1").unlink()
    assert new_lines(log) == []
    assert len(os.listdir("/proc/self/fd")) == before - 1
    log.close()


def test_a_log_that_is_not_there_yet_is_read_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_BACK", 1)
    path = tmp_path / "late"
    log = FollowedLog(str(path), None)
    assert new_lines(log) == []
    assert log.is_missing
    assert log.position() is None
    append(path, b"one")
    assert new_lines(log) == [b"one"]
    assert log.position() is not None
    log.close()


def test_of_a_new_log_only_the_end_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_BACK", 6)
    append(path, b"three")
    log = FollowedLog(str(path), None)
    # Where the last six bytes begin is in the midst of a line, or behind one: nobody knows.
    assert new_lines(log) == []
    append(path, b"four")
    assert new_lines(log) == [b"four"]
    log.close()


def test_a_flood_comes_in_chunks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK", 100)
    log = FollowedLog(str(path), None)
    new_lines(log)
    lines = [b"line %d" % number for number in range(1000)]
    append(path, *lines)
    chunks = list(log.read())
    assert len(chunks) > 50
    assert [line for chunk in chunks for line in chunk] == lines
    log.close()


def test_a_line_without_end_is_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LONGEST_LINE", 1000)
    monkeypatch.setattr(following, "CHUNK", 300)
    log = FollowedLog(str(path), None)
    append(path, b"x" * 5000, b"three")
    assert new_lines(log)[-1] == b"three"
    assert b"x" * 5000 not in new_lines(log)
    log.close()


def test_another_log_with_the_same_name_and_inode_is_another(path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    path.write_bytes(b"elsewhere\n")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"elsewhere"]
    again.close()


def test_a_position_is_for_the_file_and_not_for_its_inode(path: Path, tmp_path: Path) -> None:
    log = FollowedLog(str(path), None)
    new_lines(log)
    log.close()
    copy = tmp_path / "restored"
    shutil.copy(path, copy)
    copy.replace(path)
    append(path, b"three")
    again = FollowedLog(str(path), log.position())
    assert new_lines(again) == [b"three"]
    again.close()


def test_what_is_no_file_is_an_error_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        log = FollowedLog(str(tmp_path / name), None)
        with pytest.raises(OSError, match="regular file"):
            new_lines(log)
        log.close()


def test_descriptors_are_given_back(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for position in (None, Position(1, 2, 3, b"none")):
        log = FollowedLog(str(path), position)
        new_lines(log)
        path.rename(path.with_suffix(".1"))
        append(path, b"new")
        new_lines(log)
        log.close()
        log.close()
    assert len(os.listdir("/proc/self/fd")) == before
