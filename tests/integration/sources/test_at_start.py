"""Directories that were there at the start, found by a walk before their events are read.

Nothing runs here by itself: a test says when events are parsed and when a walk goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.sources.uploads import exchange
from tests.listeners import UnwatchedHeard
from tests.waiting import wait_until
from watchman import directory_identity
from watchman.model import Watch
from watchman.processors.exact_events import ExactEvents
from watchman.router import Router
from watchman.sources import instance
from watchman.sources.at_start import Starts
from watchman.sources.source import Source
from watchman.sources.tree import Reason
from watchman.sources.walk import LISTING

Start = Callable[..., Source]


@pytest.fixture
def start() -> Iterator[Start]:
    """Make sources whose first walk is queued."""
    sources: list[Source] = []

    def make(*roots: Path, starts: Starts | None = None, rec: bool = False) -> Source:
        watches = [Watch(str(root), rec=rec, auto_add=not rec) for root in roots]
        source = Source(watches, Router([]), UnwatchedHeard(), starts or Starts())
        sources.append(source)
        source.start(lambda _: Reason.START)
        return source

    yield make
    for source in sources:
        source.close()


def listed(source: Source) -> set[str]:
    """Walk what is queued, without reading an event; return the directories."""
    return {os.path.basename(listing.path) for listing in source.listings()}


def heard(source: Source) -> None:
    """Parse every event so far, without a walk."""
    mark = source.mark()
    while source.parsed < mark:
        source.wait(0.1)
    source.wait(0)


def settled(source: Source) -> set[str]:
    """Return the names of all that is watched when events and walks are through."""
    listed(source)
    while source.scanning or source.parsed < source.mark():
        heard(source)
        listed(source)
    return {os.path.basename(node.path) for node in source._watch_table.nodes.values()}


@pytest.fixture
def old(root: Path) -> Path:
    """A directory that is there at the start."""
    (root / "old/deep").mkdir(parents=True)
    return root / "old"


def test_a_walk_that_finds_it_under_another_name_first(start: Start, root: Path, old: Path) -> None:
    source = start(root)
    listed(source)
    (root / "a").mkdir()
    assert settled(source) == {"up", "a"}
    old.rename(root / "a/older")
    source.rescan(source.roots[0])
    listed(source)
    (root / "a/older").chmod(0o700)
    assert settled(source) == {"up", "a"}
    (root / "a/older").rename(root / "again")
    source.rescan(source.roots[0])
    assert settled(source) == {"up", "a"}


@pytest.mark.parametrize("first", [listed, heard])
def test_it_is_renamed_before_its_new_parent_is_watched(
    start: Start, root: Path, old: Path, first: Callable[[Source], None]
) -> None:
    source = start(root)
    listed(source)
    (root / "a/b").mkdir(parents=True)
    old.rename(root / "a/b/older")
    first(source)
    assert settled(source) == {"up", "a", "b"}
    (root / "a/b/older").chmod(0o700)
    assert settled(source) == {"up", "a", "b"}


def test_it_is_renamed_while_nobody_watches(start: Start, root: Path, old: Path) -> None:
    """As between two sources of a reload, or where the kernel's queue overflowed."""
    starts = Starts()
    source = start(root, starts=starts)
    listed(source)
    (root / "a").mkdir()
    assert settled(source) == {"up", "a"}
    old.rename(root / "a/older")
    (root / "old").mkdir()
    assert settled(start(root, starts=starts)) == {"up", "a", "old"}


def test_its_permissions_change_during_the_first_walk(start: Start, root: Path, old: Path) -> None:
    for number in range(2 * LISTING + 1):
        (root / f"f{number}").touch()
    source = start(root)
    walk = source.listings()
    assert next(walk).last is False
    old.chmod(0o700)
    heard(source)
    assert settled(source) == {"up"}


def test_it_is_renamed_once_more_while_its_new_parent_is_listed(
    start: Start, root: Path, old: Path
) -> None:
    """Of the first rename only one half is heard, and of the second one both."""
    source = start(root)
    listed(source)
    (root / "a").mkdir()
    for number in range(2 * LISTING + 1):
        (root / f"a/f{number}").touch()
    old.rename(root / "a/older")
    heard(source)
    assert next(source.listings()).path == str(root / "a")
    (root / "a/older").rename(root / "a/oldest")
    heard(source)
    assert settled(source) == {"up", "a"}


def test_another_directory_with_its_inode_number_is_followed(start: Start, root: Path) -> None:
    """Most file systems give the number that was freed last."""
    (root / "old").mkdir()
    starts = Starts()
    assert settled(start(root, starts=starts)) == {"up"}
    (root / "old").rmdir()
    (root / "new").mkdir()
    assert settled(start(root, starts=starts)) == {"up", "new"}
    (root / "new").rmdir()
    (root / "old").mkdir()
    assert settled(start(root, starts=starts)) == {"up", "old"}


def test_where_births_are_not_kept_name_and_inode_number_decide(
    start: Start, root: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_identity, "birth_ns", lambda name, directory: 0)
    starts = Starts()
    assert settled(start(root, starts=starts)) == {"up"}
    source = start(root, starts=starts)
    assert settled(source) == {"up"}
    old.rename(root / "older")
    assert settled(source) == {"up"}
    (root / "older/deep").rmdir()
    (root / "older").rmdir()
    (root / "new").mkdir()
    source.rescan(source.roots[0])
    assert settled(source) == {"up", "new"}


def test_one_that_takes_the_place_of_a_watched_directory(
    start: Start, root: Path, old: Path
) -> None:
    source = start(root)
    listed(source)
    (root / "a").mkdir()
    (root / "b/inside").mkdir(parents=True)
    assert settled(source) == {"up", "a", "b", "inside"}
    old.rename(root / "a")
    assert settled(source) == {"up", "b", "inside"}
    exchange(root / "a", root / "b")
    assert settled(source) == {"up", "a", "inside"}


def test_one_that_comes_back_from_elsewhere_is_new(
    start: Start, root: Path, old: Path, tmp_path: Path
) -> None:
    source = start(root)
    listed(source)
    old.rename(tmp_path / "away")
    (tmp_path / "away").rename(root / "back")
    assert settled(source) == {"up", "back", "deep"}
    source.rescan(source.roots[0])
    assert settled(source) == {"up", "back", "deep"}


def test_one_that_comes_back_inside_another_is_new(
    start: Start, root: Path, old: Path, tmp_path: Path
) -> None:
    source = start(root)
    listed(source)
    (tmp_path / "x").mkdir()
    old.rename(tmp_path / "x/y")
    (tmp_path / "x").rename(root / "x")
    assert settled(source) == {"up", "x", "y", "deep"}
    (root / "x").rename(root / "z")
    source.rescan(source.roots[0])
    assert settled(source) == {"up", "z", "y", "deep"}


def test_one_that_moves_to_another_watch_is_new_there(
    start: Start, root: Path, old: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    source = start(root, other)
    assert settled(source) == {"up", "other"}
    old.rename(other / "here")
    source.rescan(source.roots[1])
    listed(source)
    assert settled(source) == {"up", "other", "here", "deep"}
    (other / "here").rename(root / "back")
    source.rescan(source.roots[0])
    listed(source)
    assert settled(source) == {"up", "other", "back", "deep"}


@pytest.fixture
def raw(root: Path, old: Path) -> Iterator[ExactEvents]:
    """The events for a processor."""
    source = ExactEvents(Watch(str(root), auto_add=True), UnwatchedHeard())
    source.start()
    yield source
    source.close()


def told(source: ExactEvents, root: Path) -> set[str]:
    """Deal with all that happened so far; return the names of all that is watched."""
    mark = f"mark{len(os.listdir(root))}"
    (root / mark).touch()
    wait_until(lambda: mark in [event.name for event in source.take(0.1)], what="all is told")
    return {os.path.basename(source._tree.path(one)) for one in source._tree.by_wd.values()}


def test_a_processor_s_watch_leaves_it_out_of_a_new_directory(
    raw: ExactEvents, root: Path, old: Path
) -> None:
    (root / "a/b").mkdir(parents=True)
    old.rename(root / "a/b/older")
    assert told(raw, root) == {"up", "a", "b"}
    (root / "c").mkdir()
    (root / "a/b/older").rename(root / "c/again")
    assert told(raw, root) == {"up", "a", "b", "c"}
    exchange(root / "c", root / "a/b")
    assert told(raw, root) == {"up", "a", "b", "c"}


def test_a_processor_s_watch_leaves_it_out_after_an_overflow(
    raw: ExactEvents, root: Path, old: Path
) -> None:
    (root / "a").mkdir()
    assert told(raw, root) == {"up", "a"}
    old.rename(root / "a/older")
    raw._handle(instance.Raw(-1, instance.IN_Q_OVERFLOW, 0, ""))
    assert told(raw, root) == {"up", "a"}


def test_a_processor_s_watch_takes_it_in_when_it_comes_from_elsewhere(
    raw: ExactEvents, root: Path, old: Path, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    old.rename(tmp_path / "x/y")
    (tmp_path / "x").rename(root / "x")
    assert told(raw, root) == {"up", "x", "y", "deep"}
    raw._handle(instance.Raw(-1, instance.IN_Q_OVERFLOW, 0, ""))
    assert told(raw, root) == {"up", "x", "y", "deep"}


@pytest.mark.parametrize("first", [listed, heard])
def test_rec_alone_keeps_what_is_renamed_before_a_walk_finds_it_gone(
    start: Start, root: Path, old: Path, first: Callable[[Source], None]
) -> None:
    source = start(root, rec=True)
    assert settled(source) == {"up", "old", "deep"}
    old.rename(root / "new")
    source.rescan(source.roots[0])
    first(source)
    assert settled(source) == {"up", "new", "deep"}
    (root / "new/deep").rename(root / "deep")
    source.rescan(source.roots[0])
    first(source)
    assert settled(source) == {"up", "new", "deep"}
