"""What cannot be looked at: said once, tried again by itself, announced when it can be."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import no_descriptor_left
from tests.integration.pipeline.test_partial import GZIP, WHOLE, asking
from tests.running import config_for, running, troubles
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman.checks.scanning import unknown
from watchman.file_access import cannot_tell, look
from watchman.journal import Scan
from watchman.journal.journal_reader import open_reader
from watchman.model import Config, Existing, Version, Watch, WatchKind
from watchman.pipeline import Pipeline, schedule, unseen, watch_scan
from watchman.pipeline.file_check import FileCheck
from watchman.pipeline.first_runs import CLOCK_GRAIN_NS
from watchman.sources.tree import Listing, Node
from watchman.sources.walk import Walker

pytestmark = pytest.mark.usefixtures("often")

KINDS = pytest.mark.parametrize("kind", WatchKind)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(unseen, "LASTS", 0.2)
    caplog.set_level(logging.INFO, "watchman.notify")


@pytest.fixture
def share(tmp_path: Path) -> Iterator[FuseServer]:
    with FuseServer(tmp_path / "up") as server:
        yield server


def config_of(kind: WatchKind, root: Path, state: Path) -> Config:
    """A configuration that announces all files, or all directories, in ``root``."""
    watch = Watch(str(root), kind=kind, existing=Existing.ALL, settle=0.1, interval=0.2)
    return config_for(root, state, watches=(watch,))


def make(kind: WatchKind, path: Path) -> Path:
    path.mkdir() if kind is WatchKind.DIRECTORIES else path.write_text("x")
    return path


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [line for line in caplog.messages if words in line]


def await_trouble(pipeline: Pipeline, subject: str, *words: str) -> None:
    """Wait until a subject has a trouble with all of these words."""

    def has_trouble() -> bool:
        told = troubles(pipeline).get(subject, "")
        return bool(told) and all(word in told for word in words)

    wait_until(has_trouble, 30, f"{subject}: {words}")


@needs_fuse
@KINDS
def test_what_a_scan_cannot_look_at(
    share: FuseServer, state: Path, kind: WatchKind, caplog: pytest.LogCaptureFixture
) -> None:
    root, subject = share.point, f"{kind.value} in {share.point}"
    well, bad, other = (make(kind, root / name) for name in ("well", "bad", "other"))
    share.claim(bad, look=errno.EIO)
    share.claim(other, look=errno.EIO)
    with running(config_of(kind, root, state)) as (pipeline, sent):
        wait_until(lambda: sent.paths == [str(well)], 30)
        await_trouble(pipeline, subject, "2 of them", "Input/output error; look into the kernel's")
        assert not pipeline.parts.being_written(0.0, 5)
        share.claim(bad)
        wait_until(lambda: sent.paths == [str(well), str(bad)], 60)
        await_trouble(pipeline, subject, f"{other} cannot be looked at: ")
        share.claim(other, look=errno.ENOENT)
        wait_until(lambda: not troubles(pipeline), 60)
        assert sent.paths == [str(well), str(bad)]
    [begun] = said(caplog, "Input/output error")
    assert begun.startswith(f"{subject}: ")
    assert said(caplog, "none is left") == [f"{subject}: none is left that cannot be looked at"]


@needs_fuse
@KINDS
def test_what_cannot_be_looked_at_hides_no_other_where_a_listing_has_no_types(
    share: FuseServer, state: Path, kind: WatchKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY_UNWATCHED", 0.2)
    root = share.point
    bad, well = make(kind, root / "bad"), make(kind, root / "well")
    share.claim(bad, look=errno.EIO, type=0)
    with running(config_of(kind, root, state)) as (pipeline, sent):
        wait_until(lambda: sent.paths == [str(well)], 30)
        assert troubles(pipeline)[str(root)].startswith("Input/output error; ")
        share.claim(bad)
        wait_until(lambda: sent.paths == [str(well), str(bad)], 60)
        wait_until(lambda: not troubles(pipeline), 60)


@needs_fuse
@KINDS
def test_what_was_announced_and_cannot_be_looked_at_is_not_announced_again(
    share: FuseServer, state: Path, kind: WatchKind
) -> None:
    root, subject = share.point, f"{kind.value} in {share.point}"
    known, later = make(kind, root / "known"), root / "later"
    with running(config_of(kind, root, state)) as (pipeline, sent):
        wait_until(lambda: sent.paths == [str(known)], 30)
        share.claim(known, look=errno.EIO)
        await_trouble(pipeline, subject, f"{known} cannot be looked at")
        share.claim(known)
        wait_until(lambda: not troubles(pipeline), 60)
        make(kind, later)
        wait_until(lambda: str(later) in sent.paths, 30)
        assert sent.paths == [str(known), str(later)]


@needs_fuse
def test_a_root_that_cannot_be_looked_at_once_it_is_open(
    share: FuseServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, opened = share.point / "up", Walker._open
    root.mkdir()
    well = make(WatchKind.FILES, root / "well")

    def fails_from_now_on(walker: Walker, *args: Any) -> int:
        descriptor = opened(walker, *args)
        monkeypatch.setattr(Walker, "_open", opened)
        share.claim(root, look=errno.EIO)
        return descriptor

    monkeypatch.setattr(Walker, "_open", fails_from_now_on)
    with running(config_of(WatchKind.FILES, root, state)) as (pipeline, sent):
        await_trouble(pipeline, str(root), "Input/output error")
        share.claim(root)
        wait_until(lambda: sent.paths == [str(well)], 60)
        wait_until(lambda: not troubles(pipeline), 60)


@needs_fuse
def test_a_directory_that_cannot_be_looked_at_once_it_is_listed(
    share: FuseServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, forget_missing = share.point / "d", watch_scan.Scanner._forget_missing
    directory.mkdir()
    well = make(WatchKind.FILES, directory / "well")

    def fails_meanwhile(scanner: watch_scan.Scanner, listing: Listing, scanned: Scan) -> None:
        share.claim(directory, look=errno.EIO)
        try:
            forget_missing(scanner, listing, scanned)
        finally:
            share.claim(directory)

    monkeypatch.setattr(watch_scan.Scanner, "_forget_missing", fails_meanwhile)
    config = config_of(WatchKind.FILES, share.point, state)
    watches = (replace(config.watches[0], rec=True),)
    with running(replace(config, watches=watches)) as (_, sent):
        wait_until(lambda: sent.paths == [str(well)], 60)


@needs_fuse
@KINDS
def test_the_command_scan_says_what_it_cannot_look_at(
    share: FuseServer, state: Path, kind: WatchKind
) -> None:
    bad, config = share.point / "bad", config_of(kind, share.point, state)
    with running(config):
        pass
    make(kind, bad)
    share.claim(bad, look=errno.EIO)
    with open_reader(str(state)) as journal:
        [found] = unknown(config, journal)
    assert (found.path, found.state, found.note) == (str(bad), "unreadable", os.strerror(5))


@KINDS
def test_without_descriptors(
    root: Path, state: Path, kind: WatchKind, caplog: pytest.LogCaptureFixture
) -> None:
    with running(config_of(kind, root, state)) as (pipeline, sent):
        make(kind, root / "first")
        wait_until(lambda: sent.paths == [f"{root}/first"], 30)
        with no_descriptor_left():
            make_without_descriptor(kind, root / "second")
            await_trouble(pipeline, f"{kind.value} in {root}", "too many open files: ", "ulimit -n")
        wait_until(lambda: sent.paths == [f"{root}/first", f"{root}/second"], 60)
        wait_until(lambda: f"{kind.value} in {root}" not in troubles(pipeline), 60)
    assert len(said(caplog, f"{root}/second cannot be looked at: too many open files")) == 1
    assert len(said(caplog, "none is left")) == 1


def test_a_container_that_only_a_walk_can_open_is_not_walked_again_and_again(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one descriptor more is needed to judge what the walk has found."""
    tries: list[Node] = []
    opened = Node.open

    def no_descriptor(node: Node) -> int:
        if not lacking:
            return opened(node)
        tries.append(node)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    lacking = [True]
    monkeypatch.setattr(Node, "open", no_descriptor)
    with running(config_of(WatchKind.DIRECTORIES, root, state)) as (pipeline, sent):
        (root / "u").mkdir()
        await_trouble(pipeline, f"directories in {root}", f"{root}/u cannot be", "too many open")
        assert len(tries) < 10
        lacking.clear()
        wait_until(lambda: sent.paths == [f"{root}/u"], 60)
        wait_until(lambda: not troubles(pipeline), 60)


@needs_fuse
def test_a_marker_that_cannot_be_looked_at(share: FuseServer, state: Path) -> None:
    root = share.point
    marker = make(WatchKind.DIRECTORIES, root / "unit") / "done"
    marker.write_text("1")
    share.claim(marker, look=errno.EIO)
    config = config_of(WatchKind.DIRECTORIES, root, state)
    watches = (replace(config.watches[0], marker="done"),)
    with running(replace(config, watches=watches)) as (pipeline, sent):
        await_trouble(pipeline, f"directories in {root}", f"{root}/unit cannot be looked at")
        share.claim(marker)
        wait_until(lambda: sent.paths == [f"{root}/unit"], 60)
        wait_until(lambda: not troubles(pipeline), 60)


@needs_fuse
@pytest.mark.parametrize("how", ["look", "list"])
def test_what_cannot_be_looked_at_inside_is_not_that_nothing_changes(
    share: FuseServer, state: Path, how: str
) -> None:
    root = share.point
    inside = make(WatchKind.DIRECTORIES, root / "unit") / "inside"
    inside.mkdir()
    share.claim(inside, **{how: errno.EIO})
    with running(config_of(WatchKind.DIRECTORIES, root, state)) as (pipeline, sent):
        await_trouble(pipeline, f"directories in {root}", f"{root}/unit cannot be looked at")
        assert sent.paths == []
        share.claim(inside)
        wait_until(lambda: sent.paths == [f"{root}/unit"], 60)


def test_what_cannot_be_opened_to_tell_whether_it_is_whole(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = FileCheck.open

    def no_descriptor(check: FileCheck) -> Version:
        if lacking:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(check)

    lacking = [True]
    monkeypatch.setattr(FileCheck, "open", no_descriptor)
    with running(asking(root, state, GZIP)) as (pipeline, sent):
        (root / "a.gz").write_bytes(WHOLE)
        await_trouble(pipeline, f"files in {root}", f"{root}/a.gz cannot be read: ", "ulimit -n")
        lacking.clear()
        wait_until(lambda: sent.paths == [f"{root}/a.gz"], 60)
        wait_until(lambda: not troubles(pipeline), 60)
    assert len(said(caplog, "too many open files")) == 1
    assert len(said(caplog, "none is left that cannot be read")) == 1


def test_what_is_old_stays_so_where_it_cannot_be_opened(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(WatchKind.FILES, root / "old")
    changed = old.stat().st_ctime_ns
    wait_until(lambda: time.time_ns() > changed + 3 * CLOCK_GRAIN_NS)
    unseen_once = iter([cannot_tell(errno.EMFILE)])
    monkeypatch.setattr(watch_scan, "look", lambda *names: next(unseen_once, None) or look(*names))
    with running(config_for(root, state)) as (pipeline, sent):
        assert str(old) in pipeline.journal.known.versions([str(old)])
        make(WatchKind.FILES, root / "new")
        wait_until(lambda: sent.paths == [f"{root}/new"], 30)
    assert not list(unseen_once)


def make_without_descriptor(kind: WatchKind, path: Path) -> None:
    """Make a file or a directory while no descriptor is left."""
    os.mkdir(path) if kind is WatchKind.DIRECTORIES else os.mknod(path)
