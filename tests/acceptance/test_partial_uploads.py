"""Uploads through every server that break off and are resumed: tasks for the whole ones alone.

WATCHMAN_LONG=1 takes 200 uploads for each of 15 ways, WATCHMAN_UPLOADS another number. A failure
names its seed, which WATCHMAN_SEED takes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import random
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.running import Remembering, config_for, running
from tests.servers.clients import End
from tests.servers.ways import WAYS, Way
from tests.waiting import wait_until
from watchman.file_access import Seen, look
from watchman.ignored_names import DEFAULT_IGNORE
from watchman.model import Criteria, Criterion, Route
from watchman.pipeline import Pipeline

LONG = os.environ.get("WATCHMAN_LONG") == "1"
UPLOADS = int(os.environ.get("WATCHMAN_UPLOADS", "200" if LONG else "12"))
SEED = int(os.environ.get("WATCHMAN_SEED", "16"))
CLIENTS = 6
"""That upload at a time."""
NETCDF = Path(__file__).parents[1] / "unit/verdicts/samples/enhanced.nc"
CRITERIA = {
    "gz": Criterion("format", "gzip"),
    "zip": Criterion("format", "zip"),
    "nc": Criterion("format", "netcdf4"),
    "csv": Criterion("format", "csv"),
    "bin": Criterion("checksum", "{name}.sha256"),
}


class Planned(NamedTuple):
    """A file, and what becomes of its upload."""

    name: str
    content: bytes
    end: End | None
    """None where it is whole at once."""
    resumed: bool
    cut: int
    """Bytes after which it breaks off."""


def contents(kind: str, number: int, chance: random.Random) -> bytes:
    noise = chance.randbytes(chance.randrange(5_000, 60_000))
    if kind == "gz":
        return gzip.compress(noise)
    if kind == "zip":
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("noise", noise)
        return made.getvalue()
    if kind == "nc":
        return NETCDF.read_bytes()
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([line, number, line * number] for line in range(2000))
        return text.getvalue().encode()
    return noise


def plan(chance: random.Random) -> Iterator[Planned]:
    """Plan a third whole, a third aborted, a third killed or reset; half of those resumed."""
    ends = (None, End.ABORT, End.KILL, None, End.ABORT, End.RESET)
    for number in range(UPLOADS):
        kind = list(CRITERIA)[number % len(CRITERIA)]
        content = contents(kind, number + 1, chance)
        cut = chance.randrange(1, len(content))
        resumed = number // len(ends) % 2 == 0
        yield Planned(f"{number}.{kind}", content, ends[number % len(ends)], resumed, cut)


def nobody_writes(root: Path, name: str) -> bool:
    """Say whether a server is done with a file, be it under ProFTPD's other name."""
    if (root / f".in.{name}.").exists():
        return False
    directory = os.open(root, os.O_RDONLY)
    try:
        return look(name, directory).seen in (Seen.COMPLETE, Seen.GONE)
    finally:
        os.close(directory)


class Uploaded(NamedTuple):
    """What was uploaded; paths."""

    whole: dict[str, bytes]
    """With what they hold."""
    broken: dict[str, bytes]
    """Those that nobody went on with, and what they would hold."""
    untold: set[str]
    """Those that were partial, at the end or for a while, and cannot be told to be."""


def upload(way: Way, planned: Planned, into: Uploaded) -> None:
    """Upload a file as it is planned."""
    name, content, path = planned.name, planned.content, way.root / planned.name
    if name.endswith(".bin"):
        told = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        way.client.whole(f"{name}.sha256", told.encode())
    if planned.end is None:
        way.client.whole(name, content)
    else:
        way.client.broken(name, content, planned.cut, planned.end)
        # Whoever goes on before the server is done with the first part has it twice, or instead.
        # Names of pure-ftpd -0 do not tell whose they are: this one's is among those of now.
        begun = list(way.root.glob(".pureftpd-upload.*"))
        wait_until(lambda: not any(one.exists() for one in begun), 30)
        wait_until(lambda: nobody_writes(way.root, name), 30)
        left = path.read_bytes() if path.exists() else None
        if left != content:
            if left is not None and not is_told(name, left):
                into.untold.add(str(path))
            if not planned.resumed:
                into.broken[str(path)] = content
                return
            way.client.resumed(name, content)
    into.whole[str(path)] = content
    wait_until(lambda: nobody_writes(way.root, name), 30)
    assert path.read_bytes() == content, f"{name} is not what was uploaded; seed {SEED}"


def is_told(name: str, left: bytes) -> bool:
    """Say whether what is left can be told to be partial: not where CSV ends between two lines."""
    return not (name.endswith(".csv") and left.endswith(b"\n"))


def waiting(pipeline: Pipeline, root: Path) -> dict[str, str]:
    return {one.path: one.reason for one in pipeline.journal.partial.below(str(root))}


def upload_all(way: Way) -> Uploaded:
    found = Uploaded({}, {}, set())
    everything = list(plan(random.Random(SEED)))
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(upload, way, planned, found) for planned in everything]:
            done.result()
    # A server may rename what was broken off after all.
    wait_until(lambda: all(nobody_writes(way.root, name) for name in os.listdir(way.root)), 30)
    for path, content in found.broken.copy().items():
        left = Path(path).read_bytes() if os.path.exists(path) else None
        if left in (None, content):
            del found.broken[path]
        if left == content:
            found.whole[path] = content
        elif left is not None and not is_told(path, left):
            found.untold.add(path)
    return found


def wait_for_tasks(pipeline: Pipeline, sent: Remembering, root: Path, whole: set[str]) -> None:
    def missing() -> list[str]:
        """What is whole and has no task, and why."""
        why = waiting(pipeline, root)
        return [f"{path}: {why.get(path)}" for path in sorted(whole - set(sent.paths))]

    try:
        wait_until(lambda: not missing(), 60)
    except AssertionError:
        raise AssertionError(f"seed {SEED}: {missing()}") from None


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("name", WAYS)
def test_tasks_exactly_for_the_whole_ones(name: str, tmp_path: Path, ftp_directory: Path) -> None:
    with ExitStack() as stack:
        way = WAYS[name](ftp_directory, stack)
        root = way.root
        patterns = tuple((f"{root}/*.{kind}", Route("b", "task")) for kind in CRITERIA)
        criteria = tuple(Criteria((one,)) for one in CRITERIA.values())
        asked = {"patterns": patterns, "criteria": criteria, "ignore": DEFAULT_IGNORE}
        config = config_for(root, tmp_path / "state", **asked)
        pipeline, sent = stack.enter_context(running(config))
        uploaded = upload_all(way)
        wait_for_tasks(pipeline, sent, root, set(uploaded.whole))
        told = uploaded.broken.keys() - uploaded.untold
        wait_until(lambda: told <= waiting(pipeline, root).keys(), 60, f"{told} waits")
        # Its row goes after its task may have been sent.
        wait_until(lambda: waiting(pipeline, root).keys().isdisjoint(uploaded.whole))
    assert sent.paths
    # Whoever was told nothing of a whole upload may upload it once more: two tasks are right.
    for message in sent.messages:
        content = uploaded.whole.get(message.path)
        is_whole = content is not None and message.size == len(content)
        assert is_whole or message.path in uploaded.untold, f"{message}; seed {SEED}"
    print(
        f"\n{name}, seed {SEED}: {UPLOADS} uploads, {len(uploaded.whole)} whole, "
        f"{len(told)} partial ones left, {len(uploaded.untold)} between two lines; "
        f"{len(sent.paths)} tasks"
    )
