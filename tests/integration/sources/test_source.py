"""Nothing is missed, whatever uploaders do with files and directories: the table of misses, ours.

The rows are those that make a watcher built the usual way lose files. Each counts what is missing.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sources.uploads import (
    LONG,
    arrive,
    arrive_at_least,
    await_count,
    burst,
    exchange,
    link_unnamed,
)
from tests.listeners import UnwatchedHeard
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman import mounts
from watchman.model import Existing
from watchman.router import Router
from watchman.sources.at_start import Starts
from watchman.sources.reader import EventReader
from watchman.sources.source import Source
from watchman.sources.tree import Reason


def test_directories_made_just_before(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = [root / f"a{n}/b/c/d/file" for n in range(1000)]
        for path in paths:
            path.parent.mkdir(parents=True)
            path.write_text("x")
        arrive(sent, paths)


def test_directories_renamed_just_after_they_were_made(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(1000):
            (root / f".dst{n}").mkdir()
            path = (root / f".dst{n}").rename(root / f"dir{n}") / "file"
            path.write_text("x")
            paths.append(path)
        arrive(sent, paths)


def test_files_in_a_subtree_that_is_renamed(root: Path, state: Path) -> None:
    (root / "t0" / "x" / "y").mkdir(parents=True)
    with running(config_for(root, state)) as (_, sent):
        for n in range(300):
            after = (root / f"t{n}").rename(root / f"t{n + 1}")
            path = after / "x" / "y" / f"f{n}"
            path.write_text("x")
            # It leaves again before the next rename, so that each path is announced once.
            await_count(sent, n + 1)
            assert sent.messages[-1].path == str(path)
            path.unlink()


def test_trees_moved_in_from_outside(root: Path, state: Path, tmp_path: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(1000):
            tree = tmp_path / f"tree{n}"
            (tree / "a" / "b").mkdir(parents=True)
            (tree / "a" / "b" / "file").write_text("x")
            tree.rename(root / f"in{n}")
            paths.append(root / f"in{n}" / "a" / "b" / "file")
        arrive(sent, paths)


def test_a_burst(root: Path, state: Path) -> None:
    files, directories = (200_000 if LONG else 20_000), 100
    with running(config_for(root, state)) as (_, sent):
        burst(root, directories, files)
        paths = (root / f"d{n % directories}" / f"f{n}" for n in range(files))
        arrive(sent, paths, timeout=100)


def test_files_that_are_renamed_linked_and_named_late(
    root: Path, state: Path, tmp_path: Path
) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(200):
            (tmp_path / f"made{n}").write_text("x")
            os.link(tmp_path / f"made{n}", root / f"linked{n}")
            paths.append(root / f"linked{n}")
            paths.append((tmp_path / f"made{n}").rename(root / f"moved{n}"))
            descriptor = os.open(root, os.O_TMPFILE | os.O_WRONLY)
            os.write(descriptor, b"x")
            link_unnamed(descriptor, root / f"unnamed{n}")
            os.close(descriptor)
            paths.append(root / f"unnamed{n}")
            (root / f"{n}.part").write_text("x")
            paths.append((root / f"{n}.part").rename(root / f"{n}.whole"))
        arrive(sent, paths)


def test_directories_renamed_while_they_are_walked(root: Path, state: Path) -> None:
    """What a walk did not reach under the old name is found under the new one."""
    wide = root / "wide0"
    for n in range(300):
        (wide / f"{n}" / "deep").mkdir(parents=True)
        (wide / f"{n}" / "deep" / "file").write_text("x")
    with running(config_for(root, state, watch={"existing": Existing.ALL})) as (pipeline, sent):
        for n in range(20):
            pipeline.rescan()
            (root / f"wide{n}").rename(root / f"wide{n + 1}")
        arrive_at_least(sent, [root / "wide20" / f"{n}" / "deep" / "file" for n in range(300)])
        late = root / "wide20" / "7" / "deep" / "late"
        late.write_text("x")
        arrive_at_least(sent, [late])


def test_directories_that_are_exchanged(root: Path, state: Path) -> None:
    one, other = root / "one", root / "other"
    (one / "sub").mkdir(parents=True)
    (other / "sub").mkdir(parents=True)
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(100):
            exchange(one, other)
            for directory in (one, other):
                path = directory / "sub" / f"f{n}"
                path.write_text("x")
                paths.append(path)
            arrive_at_least(sent, paths[-2:])
            for path in paths[-2:]:
                path.unlink()
        arrive(sent, paths)


def test_directories_deleted_and_made_again_in_a_loop(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        again = root / "again"
        for n in range(500):
            (again / "sub").mkdir(parents=True)
            (again / "sub" / f"{n}").write_text("x")
            if n % 50 == 49:
                arrive_at_least(sent, [again / "sub" / f"{n}"])
            shutil.rmtree(again)
        (again / "sub").mkdir(parents=True)
        (again / "sub" / "last").write_text("x")
        arrive_at_least(sent, [again / "sub" / "last"])


def test_what_was_known_goes_with_its_directory(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that was deleted and made again is another one, even with the same inode."""
    monkeypatch.setattr("watchman.pipeline.left_directories.LEFT", 1.0)
    path = root / "again" / "file"
    with running(config_for(root, state)) as (pipeline, sent):
        for n in range(20):
            path.parent.mkdir()
            path.write_text("x")
            await_count(sent, n + 1)
            shutil.rmtree(path.parent)
        wait_until(lambda: not pipeline.journal.known.lookup(str(path.parent), ["file"]))
    assert sent.paths == [str(path)] * 20


def test_a_tree_that_is_deleted_costs_few_commits(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit waits for the disk: one a directory would hold up everything behind it."""
    monkeypatch.setattr("watchman.pipeline.left_directories.LEFT", 0.0)
    paths = [root / f"d{n}" / "file" for n in range(500)]
    with running(config_for(root, state)) as (pipeline, sent):
        for path in paths:
            path.parent.mkdir()
            path.write_text("x")
        arrive(sent, paths)
        commits = []
        write = pipeline.journal._database.write

        def counting(work: Any) -> Any:
            commits.append(work)
            return write(work)

        monkeypatch.setattr(pipeline.journal._database, "write", counting)
        # Nothing is read meanwhile, so that it comes in one piece.
        with pipeline.parts.local.source._reader._reading:
            for path in paths:
                shutil.rmtree(path.parent)
        wait_until(lambda: pipeline.parts.local.source.directories == 1, what="they have left")
        (root / "last").write_text("x")
        arrive(sent, [*paths, root / "last"])
        last = str(paths[-1].parent)
        wait_until(lambda: not pipeline.journal.known.knows(last), what="they are forgotten")
        assert len(commits) < 30
        for path in paths:
            assert not pipeline.journal.known.lookup(str(path.parent), ["file"])


def test_a_directory_that_moves_in_and_out(root: Path, state: Path, tmp_path: Path) -> None:
    outside = tmp_path / "cycle"
    (outside / "sub").mkdir(parents=True)
    inside = root / "cycle"
    with running(config_for(root, state)) as (_, sent):
        for n in range(300):
            (outside / "sub" / f"{n}").write_text("x")
            outside.rename(inside)
            if n % 30 == 0:
                arrive_at_least(sent, [inside / "sub" / f"{n}"])
            inside.rename(outside)
            # What happens outside is nobody's business.
            (outside / "sub" / f"secret{n}").write_text("x")
            (outside / "sub" / f"secret{n}").unlink()
        outside.rename(inside)
        arrive_at_least(sent, [inside / "sub" / f"{n}" for n in range(300)])
        assert not [path for path in sent.paths if "secret" in path or str(outside) in path]


def test_new_directories_do_not_wait_for_a_long_scan(root: Path, state: Path) -> None:
    """The walk of what is new goes before the catch-up of what is old."""
    for n in range(50):
        (root / f"old{n}").mkdir()
    with running(config_for(root, state)) as (pipeline, _):
        source = pipeline.parts.local.source
    # Nothing runs any more: the order of the walks is what is asked.
    assert source.roots[0].children is not None
    node = source.roots[0].children["old7"]
    source._walks.add(source.roots[0], Reason.CATCH_UP)
    first = next(source.listings())
    assert first.node is source.roots[0]
    source._walks.add(node, Reason.NEW)
    assert next(source.listings()).node is node
    source._walks.close()


def test_a_walk_that_is_overtaken_by_a_rename(root: Path, state: Path) -> None:
    """It goes on in the renamed directory, under the old name, after the new one was walked."""
    (root / "old" / "a" / "b").mkdir(parents=True)
    watch = config_for(root, state).watches[0]
    source = Source([watch], Router([]), UnwatchedHeard(), Starts())
    source.start(lambda _: Reason.START)
    try:
        assert [next(source.listings()).path for _ in range(2)] == [str(root), str(root / "old")]
        (root / "new" / "inside").mkdir(parents=True)
        wait_until(lambda: source.wait(0.1) is not None and bool(source._walks._new), what="news")
        assert next(source.listings()).path == str(root / "new")
        # Nothing tells of its new name: the directory that it comes into is not watched yet.
        (root / "old").rename(root / "new" / "inside" / "moved")
        list(source.listings())
        while source.scanning or source.parsed < source.mark():
            source.wait(0.1)
            list(source.listings())
        nodes = source._watch_table.nodes.values()
        assert sorted(node.path for node in nodes) == [path for path, *_ in sorted(os.walk(root))]
    finally:
        source.close()


def test_a_deep_tree_takes_few_descriptors(root: Path, state: Path) -> None:
    """Uploaders decide how deep a tree is, and must not use up our descriptors."""
    deepest = root
    for _ in range(200):
        deepest /= "d"
    deepest.mkdir(parents=True)
    (deepest / "old").write_text("x")
    most = 0

    def count() -> bool:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        return done.is_set()

    done = threading.Event()
    watcher = threading.Thread(target=lambda: wait_until(count, 30, interval=0.0005))
    before = len(os.listdir("/proc/self/fd"))
    watcher.start()
    with running(config_for(root, state, watch={"existing": Existing.ALL})) as (_, sent):
        (deepest / "new").write_text("x")
        arrive(sent, [deepest / "old", deepest / "new"])
    done.set()
    watcher.join()
    assert most - before < 130


def test_the_reader_hands_out_bounded_pieces(tmp_path: Path) -> None:
    """Hints take several times the memory of their events, so they are made piece by piece."""
    reader = EventReader(-1)
    reader._chunks.extend([(b"x" * 400, 0)] * 10)
    reader._held = 4000
    assert len(reader.take(0, 1000)) == 3
    assert reader._held == 2800
    assert len(reader.take(0)) == 7
    assert reader._held == 0
    os.close(reader._stop_read)
    os.close(reader._stop_write)


def test_what_waits_long_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchman.sources.reader.PLAIN", 10_000)
    source, sink = os.pipe()
    reader = EventReader(source, packs=True)
    sent = [b"%05d" % n * 1000 for n in range(20)]
    for part in sent:
        os.write(sink, part)
        assert len(reader._read()) == 5000
    assert reader.mark() == 100_000
    assert reader._held < 20_000
    assert reader.take(0, 7500) == sent[:2]
    assert reader.take(0, 22_500) == sent[2:7]
    assert reader.take(0) == sent[7:]
    assert reader._held == 0
    for descriptor in (source, sink, reader._stop_read, reader._stop_write):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("kind", "polled"),
    [
        ("ext4", False),
        ("tmpfs", False),
        ("overlay", False),
        ("fuseblk", False),
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("smb3", True),
        ("9p", True),
        ("fuse", True),
        ("fuse.sshfs", True),
        ("fuse.rclone", True),
        ("virtiofs", True),
    ],
)
def test_what_is_polled(tmp_path: Path, kind: str, polled: bool) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"40 22 0:50 / /srv/up\\040loads rw,relatime shared:1 - {kind} host:/x rw\n"
    )
    found = mounts.filesystem_type("/srv/up loads/a", str(mountinfo))
    assert found == kind
    assert mounts.is_remote(found) is polled
    assert mounts.filesystem_type("/srv/up", str(mountinfo)) == "ext4"


def test_what_is_mounted_on_top_counts(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "40 22 0:50 / /srv rw - nfs4 host:/x rw\n"
        "41 40 0:51 / /srv rw - tmpfs tmpfs rw\n"
        "42 41 0:52 / /srv/sub/share rw - cifs //host/x rw\n"
    )
    table = mounts.mounts(str(mountinfo))
    assert mounts.filesystem_type("/srv/x", str(mountinfo)) == "tmpfs"
    assert mounts.below("/srv", table) == {
        "/srv/sub/share": mounts.Mount(42, "cifs", 52, "//host/x")
    }
    assert mounts.below("/srv/sub/share", table) == {}
