"""What ``notify check`` says of the processes that read files, and of TRANSFER_LOGS."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from tests.running import config_for
from watchman.checks.completeness_checks import check_completeness
from watchman.checks.result import Check
from watchman.model import Criteria, Criterion, TransferLog
from watchman.verdicts import started_reader
from watchman.verdicts.trial import try_out

LINE = "Thu Nov 26 17:00:00 2026 1 host 5 {path} b _ i r anna ftp 0 * c\n"


def asking(tmp_path: Path, *each: Criterion) -> list[Check]:
    config = config_for(tmp_path, tmp_path / "s", criteria=(Criteria(each),))
    return list(check_completeness(config))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no filter for it")
def test_the_processes_are_tried_out_and_how_they_are_confined(tmp_path: Path) -> None:
    (found,) = asking(tmp_path, Criterion("format", "gzip"))
    user = "nobody" if os.geteuid() == 0 else f"{os.geteuid()}"
    assert found.ok
    assert not found.remedy
    assert found.detail.startswith(f"files are read by processes of user {user}, without network")
    assert found.detail.endswith("confined by seccomp")


def test_processes_that_cannot_be_started_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(started_reader, "_PROGRAM", "{module:.0}raise SystemExit(3)")
    found = try_out(timeout=1.0)
    assert found.trouble == "no process answers within 1 s"
    monkeypatch.setattr(started_reader.sys, "executable", str(tmp_path / "none"))  # type: ignore[attr-defined]  # — where it imports sys
    found = try_out(timeout=1.0)
    assert found.trouble.startswith("no process that reads files can be started: No such file")
    assert capfd.readouterr().err == ""


def test_where_nothing_is_read_none_is_started(tmp_path: Path) -> None:
    (found,) = asking(tmp_path, Criterion("marker", "{name}.done"))
    assert found.ok
    assert "no file has to be read" in found.detail
    assert list(check_completeness(config_for(tmp_path, tmp_path / "s"))) == []


def log_check(tmp_path: Path, path: Path) -> Check:
    prefixes = {"/": str(tmp_path / "up")}
    one = TransferLog(str(path), "xferlog", "", prefixes, utc=False, wait=0.05)
    config = config_for(tmp_path, tmp_path / "s", transfer_logs=(one,))
    (found,) = check_completeness(config)
    assert found.subject == f"transfer log {path}"
    return found


def test_a_log_is_there_readable_and_of_its_format(tmp_path: Path) -> None:
    path = tmp_path / "xferlog"
    missing = log_check(tmp_path, path)
    assert (missing.ok, missing.detail) == (False, "does not exist")
    path.write_text("")
    empty = log_check(tmp_path, path)
    assert empty.ok
    assert empty.detail.startswith("no line in it yet; last written 20")
    path.write_text(LINE.format(path="/a.csv") * 3000 + "the beginning of a li")
    good = log_check(tmp_path, path)
    assert (good.ok, good.remedy) == (True, "")
    assert good.detail.startswith("the last 200 lines understood as xferlog, uploads: 200; last ")
    day = time.time() - 3 * 86_400
    os.utime(path, (day, day))
    old = log_check(tmp_path, path)
    assert old.ok
    assert "see that the server still writes there" in old.remedy
    with path.open("a") as file:
        file.write("\nsomething else\n")
    some = log_check(tmp_path, path)
    assert some.ok
    assert "2 of the last 200 lines are not of the format xferlog" in some.detail
    path.write_text("something else\n" * 3)
    bad = log_check(tmp_path, path)
    assert (bad.ok, bad.detail) == (False, "not of the format xferlog: the last 3 lines")
    path.unlink()
    os.mkfifo(path)
    fifo = log_check(tmp_path, path)
    assert (fifo.ok, fifo.detail) == (False, "cannot be read: it is no regular file")
