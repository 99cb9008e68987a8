"""What the daemon writes: as JSON where that is asked for, and into files that stay small."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemon.site import Site
from tests.waiting import wait_until
from watchman import queued_logging
from watchman.daemon.rotation import Limits, RotatedStream

HOSTILE = 'a"\n\x1b[31m\u202eb\udcff.csv'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def upload(site: Site, *names: str) -> None:
    for name in names:
        with open(os.path.join(site.data, name), "w", encoding="ascii") as file:
            file.write("1\n")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_json_has_a_record_on_each_line_whatever_the_names_are(site: Site) -> None:
    site.configure("LOG_FORMAT = 'json'\n")
    started = site.notify("start").stdout
    assert started.endswith(f"; output in {site.out}\n")
    upload(site, HOSTILE, *(f"{number}.csv" for number in range(20)))
    wait_until(lambda: site.out.read_text().count("Sending task") == 21, 20, "all are sent")
    assert site.notify("stop").returncode == 0
    raw = site.out.read_bytes()
    assert raw.isascii()
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw) is None
    found = records(site.out)
    assert {frozenset(one) for one in found} == {frozenset({"time", "level", "logger", "message"})}
    times = [datetime.fromisoformat(one["time"]) for one in found]
    assert all(str(one.tzinfo) == "UTC" for one in times)
    said = [one for one in found if one["message"].startswith("Notified of ")]
    assert len(said) == 21
    assert {(one["level"], one["logger"]) for one in said} == {("INFO", "watchman.notify")}
    name = 'a"\\x0a\\x1b[31m\\u202eb\\xff.csv'
    assert f"Notified of {site.data}/{name}" in [one["message"] for one in said]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("LOG_FORMAT = 'xml'", "LOG_FORMAT: is 'xml'; write 'json' or 'text'"),
        (
            "LOG_FORMAT = 'json'\nLOGGING = {'version': 1}",
            "LOG_FORMAT: stands beside LOGGING; remove one of the two; a formatter of LOGGING can "
            "be watchman.json_lines.JsonLines",
        ),
        ("LOG_MEGABYTES = -1", "LOG_MEGABYTES: is -1; write a number, 1000000 at the most; 0 for"),
        ("LOG_FILES = 0", "LOG_FILES: is 0; write a whole number, 1 to 1000"),
    ],
)
def test_settings_that_cannot_be(site: Site, more: str, problem: str) -> None:
    site.configure(more + "\n")
    done = site.notify("check")
    assert done.returncode == 78
    assert f"notify: {problem}" in done.stderr


def test_output_files_are_rotated_and_no_line_is_lost(site: Site) -> None:
    site.configure("LOG_MEGABYTES = 0.02\nLOG_FILES = 50\n")
    site.start()
    names = [f"{number:04d}.csv" for number in range(400)]
    files = lambda: sorted(site.out.parent.glob("watchman.out*"))  # noqa: E731 — asked again and again

    def told() -> int:
        try:
            text = "".join(path.read_text() for path in files())
        except FileNotFoundError:  # one has just been given its next number
            return 0
        return len(set(re.findall(r"Notified of .*/(\d+\.csv)\n", text)))

    # Lines that come at once are written as one batch, and one batch may go beyond the limit.
    for count in range(0, len(names), 100):
        upload(site, *names[count : count + 100])
        wait_until(lambda: told() > count + 99, 30, "all are told of", 0.1)  # noqa: B023 — at once
    assert site.notify("stop").returncode == 0
    assert len(files()) > 2
    text = "".join(path.read_text() for path in files())
    for name in names:
        assert text.count(f"Notified of {site.data}/{name}\n") == 1
    assert all(path.read_bytes().endswith(b"\n") for path in files() if path.stat().st_size)


@contextlib.contextmanager
def stream(path: Path, limits: Limits) -> Iterator[RotatedStream]:
    with path.open("a", buffering=1, encoding="ascii") as file:
        yield RotatedStream(file, str(path), limits)


def test_only_so_many_files_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with stream(out, Limits(10, 3)) as written:
        for number in range(6):
            written.write(f"line {number} is long\n")
        written.write("no end")
        assert out.read_text() == ""
        written.write(" yet, and rather long\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.1", "out.2", "out.3"}
    assert (tmp_path / "out.1").read_text() == "no end yet, and rather long\n"
    assert (tmp_path / "out.3").read_text() == "line 4 is long\n"


def test_zero_is_never_and_a_reload_may_say_otherwise(tmp_path: Path) -> None:
    out, limits = tmp_path / "out", Limits(0, 1)
    with stream(out, limits) as written:
        written.write("a line that is long\n" * 3)
        assert not (tmp_path / "out.1").exists()
        limits.size = 10
        written.write("one more\n")
        assert (tmp_path / "out.1").read_text().count("\n") == 4


def test_a_file_that_somebody_else_has_rotated_is_opened_and_not_rotated_again(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with stream(out, Limits(10, 5)) as written:
        out.rename(tmp_path / "elsewhere")
        out.write_text("of another process\n")
        written.write("a line that is long\n")
        written.write("short\n")
    assert (tmp_path / "elsewhere").read_text() == "a line that is long\n"
    # What came before and this are more than the limit.
    assert (tmp_path / "out.1").read_text() == "of another process\nshort\n"


def test_a_name_that_cannot_be_moved_is_written_on_and_that_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.1").mkdir()
    with stream(out, Limits(10, 1)) as written:
        monkeypatch.setattr("sys.stderr", written)
        for _ in range(3):
            written.write("a line that is long\n")
        assert out.read_text().count("\n") == 3
        [(subject, message, _)] = queued_logging.troubles()
        why = (
            f"cannot be rotated: {out}.1: Is a directory; it is written on, and grows; correct "
            "that, or set LOG_MEGABYTES = 0"
        )
        assert (subject, message) == (str(out), why)
        (tmp_path / "out.1").rmdir()
        written.write("one more\n")
        assert queued_logging.troubles() == []
    assert (tmp_path / "out.1").read_text().count("\n") == 4
    assert [r.message for r in caplog.records] == [f"{out} {why}", f"{out} is no longer too large"]


def test_its_own_log_is_where_it_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.1").mkdir()
    with stream(out, Limits(10, 1)) as written:
        handler = logging.StreamHandler(written)
        log = logging.getLogger("watchman")
        log.addHandler(handler)
        try:
            log.warning("a line that is long")
        finally:
            log.removeHandler(handler)
    assert [line.split(":")[0] for line in out.read_text().splitlines()] == [
        "a line that is long",
        f"{out} cannot be rotated",
    ]


def test_older_files_stay_while_the_newest_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", os.replace
    for number in (1, 2, 3):
        (tmp_path / f"out.{number}").write_text(f"{number}")

    def refused(source: str, target: str) -> None:
        if source == str(out):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with stream(out, Limits(10, 4)) as written:
        for _ in range(5):
            written.write("a line that is long\n")
    assert [(tmp_path / f"out.{n}").read_text() for n in (2, 3, 4)] == ["1", "2", "3"]
