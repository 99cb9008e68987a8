"""A root whose path leads elsewhere for a moment: nothing that was uploaded then is missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mounted import bound, mounted
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.model import Method, Watch, WatchKind
from watchman.pipeline import left_directories
from watchman.sources.base_source import BaseSource
from watchman.sources.tree import Root


@pytest.mark.parametrize("kind", WatchKind)
def test_what_came_while_a_directory_above_was_renamed(
    tmp_path: Path, kind: WatchKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed there and back between two checks: no event tells, and the root is the same."""
    monkeypatch.setattr("watchman.pipeline.schedule.CHECK", 3600.0)

    def upload(path: Path) -> None:
        if kind is WatchKind.FILES:
            path.write_text("x")
        else:
            path.mkdir()

    root, other = tmp_path / "above" / "up", tmp_path / "other"
    root.mkdir(parents=True)
    other.mkdir()
    config = config_for(root, tmp_path / "state", watch={"kind": kind})
    watch = config.watches[0]
    route = config.patterns[0][1]
    config = replace(
        config, watches=(watch, replace(watch, path=str(other))), patterns=(("*", route),)
    )
    with running(config) as (pipeline, sent):
        (tmp_path / "above").rename(tmp_path / "away")
        upload(tmp_path / "away" / "up" / "a.csv")
        upload(other / "mark")
        # Events come in order: by now it was looked for, and not found.
        wait_until(lambda: str(other / "mark") in sent.paths)
        (tmp_path / "away").rename(tmp_path / "above")
        for watcher in pipeline.parts._watchers:
            watcher.check_soon()
        wait_until(lambda: str(root / "a.csv") in sent.paths, what="what came meanwhile is sent")
        assert sent.paths.count(str(root / "a.csv")) == 1


@contextmanager
def share(root: Path, store: Path) -> Iterator[None]:
    """Mount what is in ``store``, which is on a device of its own."""
    before = os.stat(root)
    with bound(store, root):
        yield
    wait_until(lambda: os.stat(root).st_ino == before.st_ino)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("method", [Method.INOTIFY, Method.POLL])
def test_directories_are_not_announced_again_when_their_share_is_back(
    root: Path, state: Path, tmp_path: Path, method: Method
) -> None:
    watch = Watch(str(root), kind=WatchKind.DIRECTORIES, method=method, interval=0.1)
    config = config_for(root, state, watches=(watch,))
    with mounted(tmp_path / "store") as store:
        with share(root, store), running(config) as (pipeline, sent):
            (root / "a").mkdir()
            wait_until(lambda: sent.paths == [f"{root}/a"])
        with running(config) as (pipeline, sent):
            (behind,) = pipeline.parts._watchers[1].source.roots
            assert behind.identity == (os.stat(root).st_dev, os.stat(root).st_ino)
            with share(root, store):
                (root / "b").mkdir()
                wait_until(lambda: f"{root}/b" in sent.paths)
                assert sent.paths == [f"{root}/b"]


@pytest.mark.usefixtures("often")
def test_a_walk_that_comes_upon_a_mount_point_before_a_check_does(
    root: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below has not left, and is not announced again."""
    monkeypatch.setattr(left_directories, "LEFT", 0.1)
    poll, polled = BaseSource.poll, list[Root]()

    def unmounted_next(source: BaseSource[object], one: Root) -> None:
        poll(source, one)
        if is_to_go:
            polled.append(one)
            mounts.pop().__exit__(None, None, None)
            is_to_go.clear()

    monkeypatch.setattr(BaseSource, "poll", unmounted_next)
    options = {"method": Method.POLL, "interval": 0.1, "settle": 0.0}
    is_to_go, config = list[bool](), config_for(root, state, watch=options)
    (root / "behind").touch()
    with mounted(tmp_path / "store") as store:
        mounts = [share(root, store)]
        mounts[0].__enter__()
        with running(config) as (pipeline, sent):
            (root / "d").mkdir()
            (root / "d/a.csv").write_text("x")
            wait_until(lambda: sent.paths == [f"{root}/d/a.csv"])
            is_to_go.append(True)
            wait_until(
                lambda: not mounts and f"{root}/behind" in sent.paths, what="it is unmounted"
            )
            left = pipeline.parts.local.files._left
            wait_until(lambda: not (left._due or left._forgetting))
            with share(root, store):
                (root / "d/b.csv").write_text("x")
                wait_until(lambda: f"{root}/d/b.csv" in sent.paths)
                assert sent.paths.count(f"{root}/d/a.csv") == 1
