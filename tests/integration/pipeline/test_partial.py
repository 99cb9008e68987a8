"""Files with criteria: whole ones are announced, partial ones wait, some are given up."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import logging
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import no_descriptor_left
from tests.journals import counts, failures
from tests.running import await_noted, config_for, running
from tests.waiting import wait_until
from watchman import file_access, signals
from watchman.config import load
from watchman.file_access import Look
from watchman.model import (
    Config,
    Criteria,
    Criterion,
    Delivery,
    Existing,
    Message,
    Route,
    State,
    Version,
    Watch,
)
from watchman.monitoring import Monitoring
from watchman.pipeline import Pipeline, companion_removal
from watchman.pipeline.file_check import Companion, FileCheck
from watchman.pipeline.question_queue import SOME
from watchman.sources.at_start import AtStart
from watchman.sources.tree import Root
from watchman.verdicts import pool

WHOLE = gzip.compress(b"rain\n" * 500)
GZIP = (Criterion("format", "gzip"),)
DONE = (Criterion("marker", "{name}.done"),)
SHA256 = (Criterion("checksum", "{name}.sha256"),)


def asking(
    root: Path,
    state: Path,
    each: tuple[Criterion, ...],
    more: Mapping[str, Any] = {},
    **changes: Any,
) -> Config:
    """A configuration that asks this of each ``*.gz`` below ``root``."""
    patterns = ((f"{root}/*.gz", Route("b", "task")),)
    criteria = (Criteria(each, **more),)
    return config_for(root, state, patterns=patterns, criteria=criteria, **changes)


def is_waiting(pipeline: Pipeline, path: Path) -> bool:
    return any(one.path == str(path) for one in pipeline.journal.partial.below(str(path.parent)))


def await_waiting(pipeline: Pipeline, path: Path) -> None:
    wait_until(lambda: is_waiting(pipeline, path), 60, f"{path} waits")


def await_sent(sent: Any, *paths: Path) -> list[Message]:
    wait_until(lambda: len(sent.messages) >= len(paths), 60, f"{len(paths)} tasks")
    assert sorted(sent.paths) == sorted(map(str, paths))
    return list(sent.messages)


def test_a_whole_file_is_announced_and_a_partial_one_when_it_is_whole(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    whole, half = root / "whole.gz", root / "half.gz"
    with running(asking(root, state, GZIP)) as (pipeline, sent):
        whole.write_bytes(WHOLE)
        half.write_bytes(WHOLE[:-5])
        await_waiting(pipeline, half)
        await_sent(sent, whole)
        await_noted(pipeline, "half.gz", "ends in the middle")
        with half.open("ab") as stream:
            stream.write(WHOLE[-5:])
        await_sent(sent, whole, half)
        wait_until(lambda: not is_waiting(pipeline, half))
        wait_until(lambda: not pipeline.parts.notes())
    assert f"{half} waits: it ends in the middle of what is compressed" in caplog.messages
    assert [line for line in caplog.messages if line == f"Notified of {half}"]


def test_a_partial_file_waits_across_a_restart_and_is_no_news(root: Path, state: Path) -> None:
    half = root / "half.gz"
    config = asking(root, state, GZIP, watch={"existing": Existing.NONE})
    with running(config) as (pipeline, sent):
        half.write_bytes(WHOLE[:-5])
        await_waiting(pipeline, half)
        (before,) = pipeline.journal.partial.below(str(root))
        pipeline.rescan()
    with running(config) as (pipeline, sent):
        await_waiting(pipeline, half)
        (after,) = pipeline.journal.partial.below(str(root))
        assert after.since_ns == before.since_ns
        half.write_bytes(WHOLE)
        await_sent(sent, half)


def test_a_partial_file_that_settles_after_a_restart_goes_on_waiting(
    root: Path, state: Path
) -> None:
    """The scan is over before that; it was found all the same."""
    half = root / "half.gz"
    config = asking(root, state, GZIP, watch={"settle": 0.5})
    with running(config) as (pipeline, _):
        half.write_bytes(WHOLE[:-5])
        await_waiting(pipeline, half)
        (before,) = pipeline.journal.partial.below(str(root))
    with running(config) as (pipeline, _):
        wait_until(lambda: pipeline.parts.partial, 60, "it is judged")
        (after,) = pipeline.journal.partial.below(str(root))
        assert after == before


def test_what_became_whole_while_nobody_watched_is_announced(root: Path, state: Path) -> None:
    half, gone = root / "half.gz", root / "gone.gz"
    config = asking(root, state, GZIP)
    with running(config) as (pipeline, _):
        half.write_bytes(WHOLE[:-5])
        gone.write_bytes(WHOLE[:-5])
        await_waiting(pipeline, half)
        await_waiting(pipeline, gone)
    half.write_bytes(WHOLE)
    gone.unlink()
    with running(config) as (pipeline, sent):
        await_sent(sent, half)
        wait_until(lambda: not pipeline.journal.partial.below(str(root)))


def test_an_upload_of_the_same_size_and_time_is_judged_anew_after_a_kill(
    root: Path, state: Path
) -> None:
    """A scan alone would take it for what was announced: it is forgotten before it waits."""
    path = root / "a.gz"
    config = asking(root, state, GZIP)
    with running(config) as (pipeline, sent):
        path.write_bytes(WHOLE)
        await_sent(sent, path)
        times = path.stat()
        with path.open("r+b") as stream:
            stream.write(b"\0" * len(WHOLE))
            os.utime(stream.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
        await_waiting(pipeline, path)
        assert str(path) not in pipeline.journal.known.versions([str(path)])
    with running(config) as (pipeline, sent):
        await_waiting(pipeline, path)
        path.write_bytes(WHOLE)
        await_sent(sent, path)


class Told(Monitoring):
    """Keeps what ON_FAILED would be told of."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries += deliveries


def test_a_file_that_stays_partial_is_incomplete_once(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = root / "half.gz"
    config = asking(root, state, GZIP, {"incomplete_after": 1.0})
    told = Told()
    with running(config, monitoring=told) as (pipeline, sent):
        half.write_bytes(WHOLE[:-5])
        wait_until(lambda: counts(pipeline.journal).get(("b", State.FAILED), (0,))[0] == 1, 60)
        wait_until(lambda: not is_waiting(pipeline, half))
        pipeline.rescan()
        wait_until(lambda: told.deliveries)
    said = [line for line in caplog.messages if "is incomplete: it ends in the middle" in line]
    assert len(said) == 1
    assert [(one.seq, one.source, one.state) for one in told.deliveries] == [
        (1, str(half), State.FAILED)
    ]
    with running(config) as (pipeline, sent):
        assert counts(pipeline.journal)[("b", State.FAILED)][0] == 1
        half.write_bytes(WHOLE)
        await_sent(sent, half)


def test_a_companion_whose_name_would_be_too_long_is_not_there(root: Path, state: Path) -> None:
    """It is one of a file of whose name the uploader has made nearly all that it can be."""
    file = root / f"{'a' * 250}.gz"
    with running(asking(root, state, DONE, {"incomplete_after": 1.0})) as (pipeline, _):
        file.write_bytes(WHOLE)
        wait_until(lambda: counts(pipeline.journal).get(("b", State.FAILED), (0,))[0] == 1, 30)
        (record,) = failures(pipeline.journal)
        assert f"{file.name}.done is not there" in record.reason


def test_a_file_that_waits_since_a_time_in_the_future_is_incomplete_in_its_time(
    root: Path, state: Path
) -> None:
    """By a clock that has been set back: it does not wait for as long as that was ahead."""
    half = root / "half.gz"
    with running(asking(root, state, GZIP)) as (pipeline, _):
        half.write_bytes(WHOLE[:-5])
        await_waiting(pipeline, half)
    connection = sqlite3.connect(state / "journal.db")
    connection.execute("UPDATE partial SET since_ns = since_ns + 86400000000000")
    connection.commit()
    connection.close()
    with running(asking(root, state, GZIP, {"incomplete_after": 1.0})) as (pipeline, _):
        wait_until(lambda: counts(pipeline.journal).get(("b", State.FAILED), (0,))[0] == 1, 20)


def test_an_incomplete_file_goes_to_the_quarantine_and_gets_its_task(
    root: Path, state: Path, tmp_path: Path
) -> None:
    quarantine = tmp_path / "quarantine"
    quarantine.mkdir()
    (quarantine / "sub").mkdir()
    (quarantine / "sub" / "half.gz").write_text("somebody's")
    (root / "sub").mkdir()
    half = root / "sub" / "half.gz"
    config = asking(
        root,
        state,
        GZIP,
        {"incomplete_after": 1.0, "incomplete": Route("b", "broken")},
        quarantine=str(quarantine),
    )
    with running(config) as (_, sent):
        half.write_bytes(WHOLE[:-5])
        wait_until(lambda: sent.messages, 60)
        (message,) = sent.messages
        assert message.route.task == "broken"
        assert str(message.headers["watchman_incomplete"]).startswith("it ends in the middle")
        assert message.path.startswith(f"{quarantine}/sub/half@")
        assert Path(message.path).read_bytes() == WHOLE[:-5]
        assert not half.exists()
    assert (quarantine / "sub" / "half.gz").read_text() == "somebody's"


def test_a_quarantined_file_without_a_task_has_failed(
    root: Path, state: Path, tmp_path: Path
) -> None:
    quarantine = tmp_path / "quarantine"
    quarantine.mkdir()
    config = asking(root, state, GZIP, {"incomplete_after": 1.0}, quarantine=str(quarantine))
    told = Told()
    with running(config, monitoring=told) as (pipeline, sent):
        (root / "half.gz").write_bytes(WHOLE[:-5])
        wait_until(lambda: counts(pipeline.journal).get(("", State.FAILED), (0,))[0] == 1, 60)
        (failed,) = wait_until(lambda: told.deliveries)
        assert (failed.final, failed.state) == (str(quarantine / "half.gz"), State.FAILED)
        assert (quarantine / "half.gz").read_bytes() == WHOLE[:-5]
        (root / "half.gz").write_bytes(WHOLE)
        await_sent(sent, root / "half.gz")


def test_a_marker_before_and_after_its_file(root: Path, state: Path) -> None:
    early, late = root / "early.gz", root / "late.gz"
    patterns = ((f"{root}/*", Route("b", "task")),)
    config = config_for(root, state, patterns=patterns, criteria=(Criteria(DONE),))
    with running(config) as (pipeline, sent):
        late.write_bytes(b"1")
        await_waiting(pipeline, late)
        (root / "late.gz.done").touch()
        await_sent(sent, late)
        (root / "early.gz.done").touch()
        early.write_bytes(b"1")
        await_waiting(pipeline, early)  # the marker is older
        (root / "early.gz.done").touch()
        await_sent(sent, late, early)


def test_a_marker_by_the_stem_where_the_pattern_tells_no_suffix(root: Path, state: Path) -> None:
    """It is no arrival, also where a pattern below matches it."""
    asked = Criteria((Criterion("marker", "{stem}.done"),))
    patterns = ((f"{root}/*.[gG][zZ]", Route("b", "task")), (f"{root}/*", Route("b", "other")))
    config = config_for(root, state, patterns=patterns, criteria=(asked, None))
    before, after, plain = root / "a.gz", root / "b.GZ", root / "c.txt"
    with running(config) as (pipeline, sent):
        before.write_bytes(WHOLE)
        await_waiting(pipeline, before)
        (root / "a.done").touch()
        await_sent(sent, before)
        (root / "b.done").touch()
        after.write_bytes(WHOLE)
        (root / "b.done").touch()
        plain.touch()
        await_sent(sent, before, after, plain)


@pytest.mark.parametrize("action", ["move", "remove", "keep"])
def test_what_becomes_of_a_marker(root: Path, state: Path, tmp_path: Path, action: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    config = asking(root, state, DONE, {"marker_action": action}, moves=((str(root), str(target)),))
    marker = root / "a.gz.done"
    with running(config) as (_, sent):
        (root / "a.gz").write_bytes(b"1")
        marker.touch()
        await_sent(sent, target / "a.gz")
        moved = target / "a.gz.done"
        if action == "move":
            wait_until(moved.exists)
        if action == "remove":
            wait_until(lambda: not marker.exists())
        assert marker.exists() == (action == "keep")
        assert moved.exists() == (action == "move")
        assert not list(root.glob(".watchman*"))


@pytest.mark.parametrize("later", [False, True], ids=["replaced", "and once more"])
def test_a_newer_marker_is_not_removed(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """Its uploader replaces it between the look at the old one and its removal."""
    marker = root / "a.gz.done"
    looked: list[Look] = []

    def look(name: str, directory: int) -> Look:
        looked.append(file_access.look(name, directory))
        marker.with_suffix(".new").write_text("newer")
        marker.with_suffix(".new").rename(marker)
        return looked[-1]

    def version_of(status: os.stat_result) -> Version:
        if later:
            marker.write_text("newest")
        return file_access.version_of(status)

    monkeypatch.setattr(companion_removal, "look", look)
    monkeypatch.setattr(companion_removal, "version_of", version_of)
    with running(asking(root, state, DONE, {"marker_action": "remove"})) as (_, sent):
        (root / "a.gz").write_bytes(b"1")
        marker.touch()
        await_sent(sent, root / "a.gz")
        wait_until(lambda: looked and not list(root.glob(".watchman*")))
        wait_until(marker.exists)
    assert marker.read_text() == ("newest" if later else "newer")
    assert sorted(path.name for path in root.iterdir()) == ["a.gz", "a.gz.done"]


def test_a_marker_that_cannot_be_removed_is_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marker = root / "a.gz.done"
    marker.touch()
    companion = Companion(marker.name, file_access.version_of(marker.stat()), "remove")
    node = Root(Watch(str(root)), AtStart(), polled=False)
    with no_descriptor_left():
        companion_removal.remove(node, companion)
    [said] = caplog.messages
    assert said.startswith(f"{marker} cannot be removed: too many open files: ")
    assert marker.exists()
    companion_removal.remove(node, companion)
    assert not marker.exists()


def test_a_checksum_is_verified_and_told(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    path, companion = root / "a.gz", root / "a.gz.sha256"
    right = hashlib.sha256(b"rain").hexdigest()
    with running(asking(root, state, SHA256)) as (_, sent):
        path.write_bytes(b"rai")
        companion.write_text(f"{right}  a.gz\n")
        wait_until(lambda: any("sum is" in line for line in caplog.messages), 60)
        assert not sent.messages
        with path.open("ab") as stream:
            stream.write(b"n")
        (message,) = await_sent(sent, path)
        assert message.headers["watchman_checksum"] == f"sha256:{right}"
    (said,) = (line for line in caplog.messages if "sum is" in line)
    assert right in said
    assert hashlib.sha256(b"rai").hexdigest() in said


def test_sizes_from_a_companion_and_from_the_name(root: Path, state: Path) -> None:
    for each, name in (
        ((Criterion("size", "{name}.size"),), "a.gz"),
        ((Criterion("size", "{stem}_{size}.gz"),), "a_4.gz"),
    ):
        state_of = state / name
        state_of.mkdir(parents=True)
        with running(asking(root, state_of, each)) as (pipeline, sent):
            path = root / name
            (root / "a.gz.size").write_text("4\n")
            path.write_bytes(b"123")
            await_waiting(pipeline, path)
            path.write_bytes(b"1234")
            await_sent(sent, path)


def test_a_criterion_of_a_watch_is_for_all_below(root: Path, state: Path) -> None:
    config = config_for(root, state, watch={"criteria": Criteria((Criterion("format", "auto"),))})
    with running(config) as (pipeline, sent):
        (root / "half.gz").write_bytes(WHOLE[:-5])
        await_waiting(pipeline, root / "half.gz")
        (root / "plain.txt").write_bytes(b"text")
        await_sent(sent, root / "plain.txt")


def test_renamed_and_removed_while_it_waits(root: Path, state: Path) -> None:
    half, other = root / "half.gz", root / "other.gz"
    with running(asking(root, state, GZIP)) as (pipeline, sent):
        (root / "sub").mkdir()
        inside = root / "sub" / "c.gz"
        for path in (half, inside):
            path.write_bytes(WHOLE[:-5])
            await_waiting(pipeline, path)
        half.rename(other)
        await_waiting(pipeline, other)
        wait_until(lambda: not is_waiting(pipeline, half))
        (root / "sub").rename(root / "moved")
        await_waiting(pipeline, root / "moved" / "c.gz")
        wait_until(lambda: not is_waiting(pipeline, inside))
        other.unlink()
        wait_until(lambda: not is_waiting(pipeline, other))
        (root / "moved" / "c.gz").write_bytes(WHOLE)
        await_sent(sent, root / "moved" / "c.gz")


def test_a_fifo_or_a_link_in_its_place_is_no_file(root: Path, state: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WHOLE)
    path = root / "a.gz"
    with running(asking(root, state, GZIP)) as (pipeline, sent):
        for make in (os.mkfifo, lambda path: path.symlink_to(elsewhere)):
            path.write_bytes(WHOLE[:-5])
            await_waiting(pipeline, path)
            path.unlink()
            make(path)
            wait_until(lambda: not is_waiting(pipeline, path))
            path.unlink()
        path.write_bytes(WHOLE)
        await_sent(sent, path)


def test_a_file_that_grows_while_it_is_read_is_judged_as_it_is_then(
    root: Path, state: Path
) -> None:
    """Appended to again and again; each time it is whole, and another arrival, or not yet."""
    path, parts = root / "a.gz", 30
    with running(asking(root, state, GZIP)) as (pipeline, sent):
        for part in range(parts):
            with path.open("ab") as stream:
                stream.write(WHOLE[:20])
                stream.flush()
                stream.write(WHOLE[20:])
            if part % 10 == 0:
                wait_until(lambda: sent.paths, 60)
        size = len(WHOLE) * parts
        wait_until(lambda: any(message.size == size for message in sent.messages), 60)
        assert not is_waiting(pipeline, path)
        assert {message.size % len(WHOLE) for message in sent.messages} == {0}


def test_files_without_criteria_are_not_asked_about(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        assert pipeline.parts.pool is None
        (root / "a.gz").write_bytes(WHOLE[:-5])
        await_sent(sent, root / "a.gz")


def test_a_burst_is_announced_whole(root: Path, state: Path) -> None:
    """More files than questions that are under way at a time."""
    paths = [root / f"{number}.gz" for number in range(700)]
    with running(asking(root, state, GZIP)) as (_, sent):
        for number, path in enumerate(paths):
            path.write_bytes(WHOLE if number % 7 else WHOLE[:-5])
        whole = [path for number, path in enumerate(paths) if number % 7]
        await_sent(sent, *whole)


def test_what_is_whole_is_recorded_before_all_are_asked_about(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [root / f"{number}.gz" for number in range(3 * SOME)]
    recorded: Counter[int] = Counter()

    @signals.arrived.connect
    def arrived(_: str, delivery: Delivery, **__: object) -> None:
        recorded[delivery.arrived_ns] += 1  # one commit's have one time

    with running(asking(root, state, GZIP)) as (pipeline, sent):
        handler = pipeline.parts.local.handler
        handle, go = handler.handle, threading.Event()

        def held(hints: Any) -> None:
            go.wait(60)
            handle(hints)

        with monkeypatch.context() as patched:
            patched.setattr(handler, "handle", held)
            for path in paths:
                path.write_bytes(WHOLE)
            go.set()
            await_sent(sent, *paths)
    assert sum(recorded.values()) == len(paths)
    assert max(recorded.values()) <= SOME


def test_a_function_of_the_configuration_decides(root: Path, tmp_path: Path) -> None:
    """True, False, a reason, and what it raises; it has the file open, and nothing else."""
    path = tmp_path / "config.py"
    path.write_text(
        "import os\n"
        "def whole(path, file):\n"
        "    text = file.read().decode()\n"
        "    if text == 'reason':\n"
        "        return 'it says so itself'\n"
        "    if text == 'blank':\n"
        "        return '\\n'\n"
        "    if text == 'raise':\n"
        "        raise ValueError(os.path.basename(path))\n"
        "    if text == 'exit':\n"
        "        raise SystemExit(os.path.basename(path))\n"
        "    if text == 'write':\n"
        "        open(path, 'w')\n"
        "    return text == 'whole'\n"
        "BROKERS = {'b': 'memory://'}\n"
        f"WATCHES = [{{'path': {str(root)!r}, 'rec': True}}]\n"
        f"PATTERNS = [({str(root / '*')!r},"
        " {'broker': 'b', 'task': 't', 'complete': ['auto', whole]})]\n"
        f"STATE_DIR = {str(tmp_path / 'state')!r}\n"
    )
    root.chmod(0o777)
    with running(load(str(path))) as (pipeline, sent):
        for text in ("whole", "reason", "blank", "raise", "exit", "write", "false"):
            (root / text).write_text(text)
        await_sent(sent, root / "whole")
        for text in ("reason", "blank", "raise", "exit", "write", "false"):
            await_waiting(pipeline, root / text)
        why = {Path(one.path).name: one.reason for one in pipeline.journal.partial.below(str(root))}
    name = f"PATTERNS['{root}/*']: 'complete'[1]"
    assert why["reason"] == "it says so itself"
    assert why["false"] == why["blank"] == f"{name} says so"
    assert why["raise"] == f"{name} raised ValueError: raise"
    assert why["exit"] == f"{name} raised SystemExit: exit"
    assert why["write"].startswith(f"{name} raised PermissionError")
    assert (root / "write").read_text() == "write"


def test_what_is_read_for_long_is_named_and_holds_up_nobody(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A function that does not come back; then its process is killed."""
    caplog.set_level(logging.INFO, "watchman.notify")
    path = tmp_path / "config.py"
    path.write_text(
        "import threading\n"
        "def whole(path, file):\n"
        "    return file.read() == b'whole' or threading.Event().wait()\n"
        "BROKERS = {'b': 'memory://'}\n"
        f"WATCHES = [{{'path': {str(root)!r}, 'rec': True}}]\n"
        f"PATTERNS = [({str(root / '*')!r},"
        " {'broker': 'b', 'task': 't', 'complete': ['auto', whole]})]\n"
        f"STATE_DIR = {str(tmp_path / 'state')!r}\n"
    )
    hung = root / "hung"
    with running(load(str(path))) as (pipeline, sent):
        hung.write_text("hang")
        wait_until(lambda: pipeline.parts.being_read(1.0), 60)
        (root / "other").write_text("whole")
        await_sent(sent, root / "other")
        [reading] = pipeline.parts.being_read(1.0)
        assert reading.path == str(hung)
        assert reading.asked == ("auto", f"PATTERNS['{root}/*']: 'complete'[1]")
        assert pipeline.parts.pool is not None
        for process in pipeline.parts.pool.processes:
            os.kill(process, signal.SIGKILL)
        await_waiting(pipeline, hung)
        assert not pipeline.parts.being_read(0.0)
        (root / "later").write_text("whole")
        await_sent(sent, root / "other", root / "later")
    assert f"{hung} waits: its check ended by signal SIGKILL" in caplog.messages


def test_a_function_that_hangs_holds_up_only_what_needs_it(root: Path, tmp_path: Path) -> None:
    """More files than there are processes: none of these may be lost to all others."""
    path = tmp_path / "config.py"
    path.write_text(
        "import threading\n"
        "def hangs(path, file):\n"
        "    return threading.Event().wait()\n"
        "def quick(path, file):\n"
        "    return True\n"
        "BROKERS = {'b': 'memory://'}\n"
        f"WATCHES = [{{'path': {str(root)!r}, 'rec': True}}]\n"
        "PATTERNS = [\n"
        f"    ({str(root / '*.')!r} + end, {{'broker': 'b', 'task': 't', 'complete': what}})\n"
        "    for end, what in (('hung', hangs), ('quick', quick), ('gz', 'gzip'))\n"
        "]\n"
        f"STATE_DIR = {str(tmp_path / 'state')!r}\n"
    )
    with running(load(str(path))) as (pipeline, sent):
        for number in range(2 * pool.MOST):
            (root / f"{number}.hung").write_text("hang")
        wait_until(lambda: pipeline.parts.being_read(0.0), 60)
        wait_until(lambda: pipeline.parts.unjudged == 2 * pool.MOST)
        quick, whole = root / "a.quick", root / "b.gz"
        quick.write_text("quick")
        whole.write_bytes(WHOLE)
        await_sent(sent, quick, whole)
        assert len(pipeline.parts.being_read(0.0)) <= pool.MOST // 2


def test_large_files_hold_up_no_small_one_however_many_wait(root: Path, state: Path) -> None:
    """More than are asked about, and wait in the pool; they have next to nothing on disk."""
    many = pool.MOST + pool.AHEAD + 4
    with running(asking(root, state, SHA256)) as (pipeline, sent):
        for number in range(many):
            (root / f"{number}.gz.sha256").write_text("0" * 64)
            with (root / f"{number}.gz").open("wb") as file:
                os.truncate(file.fileno(), 8 << 40)
        wait_until(lambda: pipeline.parts.unjudged == many)
        for name in ("a.gz", "b.gz"):
            (root / f"{name}.sha256").write_text(hashlib.sha256(WHOLE).hexdigest())
            (root / name).write_bytes(WHOLE)
        await_sent(sent, root / "a.gz", root / "b.gz")
        assert pipeline.parts.unjudged == many


def test_small_files_that_take_long_hold_up_no_others(root: Path, state: Path) -> None:
    """A few KB each, of which each makes 32 GB."""
    bomb = bz2.compress(b"\0" * (32 << 20)) * 1000
    with running(asking(root, state, (Criterion("format", "bzip2:thorough"),))) as (pipeline, sent):
        for number in range(pool.MOST):
            (root / f"{number}.gz").write_bytes(bomb)
        wait_until(lambda: len(pipeline.parts.being_read(0.5)) >= pool.LEAST, 20)
        (root / "small.gz").write_bytes(bz2.compress(b"rain"))
        await_sent(sent, root / "small.gz")
        assert pipeline.parts.unjudged == pool.MOST


def test_a_companion_that_somebody_has_open_is_looked_at_when_it_is_closed(
    root: Path, state: Path
) -> None:
    file, sums = root / "a.gz", root / "a.gz.sha256"
    with running(asking(root, state, SHA256)) as (pipeline, sent):
        sums.write_text(f"{hashlib.sha256(WHOLE).hexdigest()}  a.gz\n")
        wait_until(lambda: str(sums) in pipeline.journal.known.versions([str(sums)]))
        with sums.open("ab"):
            file.write_bytes(WHOLE)
            await_waiting(pipeline, file)
        await_sent(sent, file)


def test_what_cannot_be_opened_for_a_moment_is_not_partial(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    refused: list[object] = []
    opened = FileCheck.open

    def no_descriptor(check: FileCheck) -> Version:
        if refused:
            return opened(check)
        refused.append(check)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(FileCheck, "open", no_descriptor)
    with running(asking(root, state, GZIP)) as (_, sent):
        (root / "a.gz").write_bytes(WHOLE)
        await_sent(sent, root / "a.gz")
    assert refused
    assert not [line for line in caplog.messages if "waits" in line]
