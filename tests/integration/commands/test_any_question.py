"""Any question to ``history`` and ``failed`` is answered as a look at every delivery answers it."""

from __future__ import annotations

import datetime
import fnmatch
import glob
import itertools
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.json_lines import parsed
from watchman.cli import main
from watchman.journal import Archive, Journal, NewDelivery, archive, digesting, digests, sealing
from watchman.model import Move, Route, State, Version

COUNT = 400
NAMES = [
    *("plain.csv", "x.csv", "data[1].csv", "[a].csv", "[", "*", "?.csv", "new\nline", "-rf"),
    *("--all", " ", "12", "'\"`$(x)", "größe", "\udcff\udcfe", "%", "\\", "a" * 255),
]
FOLDERS = ["/up/", "/up/sub/", "/up/[x]/", "/up/-d/", "/up/\udcff/", "/dst/", "/dst/*/"]
ROUTES = [Route("b", "load"), Route("c", "load"), Route("c", "ta sk\n"), Route("b", "größe")]
ENDS = [
    *[(State.SENT, "")] * 12,
    *[(State.VANISHED, "its file has GONE"), (State.VANISHED, "discarded by größe")],
    *[(State.MOVED, ""), (State.FAILED, "refused: 404"), (State.FAILED, "100%\n[x]")],
    *[(State.READY, "the broker is down"), (State.READY, "")],
]
BEGIN = 1_764_000_000 * 10**9
STEPS = [1000, 10**9, 10**12, -(10**12)]  # of a clock that is set back now and then
ARRIVALS = [
    *itertools.accumulate(
        random.Random(1).choices(STEPS, k=COUNT), lambda before, step: max(0, before + step)
    )
]
"""When each of the deliveries arrived, in ns after BEGIN."""
Item = dict[str, Any]
Test = Callable[[Item], bool]


class Asked(NamedTuple):
    """An option as it is typed, and what it asks of a delivery."""

    option: str
    holds: Test

    def __repr__(self) -> str:
        return self.option


class Every(list[Item]):
    """All deliveries; not to be shown."""

    def __repr__(self) -> str:
        return "every"


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Every]:
    """All deliveries of a journal with digests, and of its archive, the newest first."""
    top = tmp_path_factory.mktemp("any")
    (top / "config.py").write_text("BROKERS = {}\nWATCHES = []\nPATTERNS = []\nSTATE_DIR = 'var'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.delenv("WATCHMAN_CONFIG", raising=False)
        for module in (digests, digesting):
            patch.setattr(module, "BITS", 4)
        fill(top / "var")
        items = Every(parsed(ask("history", "--all")))
        assert len(items) == COUNT
        assert [BEGIN + after for after in reversed(ARRIVALS)] == [ns(one) for one in items]
        yield items


def ns(item: Item) -> int:
    arrived = datetime.datetime.fromisoformat(item["arrived"])
    return round(arrived.timestamp()) * 10**9 + arrived.microsecond * 1000


def fill(state: Path) -> None:
    """Make the journal."""
    state.mkdir(mode=0o700)
    chance = random.Random(1)
    journal = Journal(str(state))
    news = []
    for n, after in enumerate(ARRIVALS, 1):
        source, final = (chance.choice(FOLDERS) + chance.choice(NAMES) for _ in range(2))
        moved = chance.random() < 0.3
        about = Version(1, n, n, n), BEGIN + after, chance.choice(ROUTES)
        task_id = str(uuid.UUID(int=n, version=5))
        move = Move("/up", "/dst") if moved else None
        news.append(NewDelivery(task_id, source, final if moved else None, *about, move=move))
    journal.record(news)
    journal.note([(n, *chance.choice(ENDS)) for n in range(1, COUNT + 1) if chance.random() < 0.9])
    for _ in range(2):
        sealing.seal(str(state), sealing.mark(archive.files(str(state))), 100, 70)
        work = Archive(journal)
        while work.active:
            work.step(time.monotonic(), idle=(1).__bool__)
        work.close()
    while journal.digests.step(journal.last_seq()):
        pass
    journal.close()
    assert len(archive.files(str(state))) == 2


def ask(*arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments[:1], "--json", *arguments[1:]])
    assert isinstance(done.exception, SystemExit | None), (arguments, done.exc_info)
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert done.exit_code == (1 if done.stderr else 0), (arguments, done.stderr)
    return done.stdout


def is_at(path: str, asked: str) -> bool:
    if path == asked or path.startswith(f"{asked.rstrip('/')}/"):
        return True
    return bool(set(asked) & set("*?[")) and fnmatch.fnmatchcase(path, asked)


def has(items: list[Item], asked: str) -> list[Item]:
    return [one for one in items if is_at(one["source"], asked) or is_at(one["final"], asked)]


def meant_by(items: list[Item], path: str) -> list[Item]:
    """Return those at a path; where there are none, those with a name."""
    found = has(items, os.path.abspath(path))
    anywhere = [f"*/{glob.escape(path)}"] if "[" in path else []
    for asked in (*anywhere, f"*/{path}"):
        if not found and not os.path.isabs(path):
            found = has(items, asked)
    return found


def word(item: Item) -> str:
    discarded = item["state"] == "vanished" and item["reason"].startswith("discarded by ")
    return "discarded" if discarded else str(item["state"])


def lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def option(name: str, values: list[str], holds: Callable[[Item, str], bool]) -> Any:
    return st.sampled_from(values).map(
        lambda value: Asked(f"--{name}={value}", lambda item: holds(item, value))
    )


def since(after_ns: int) -> Asked:
    limit = BEGIN + after_ns // 1000 * 1000
    text = datetime.datetime.fromtimestamp(limit // 10**9, datetime.timezone.utc)
    text = text.replace(microsecond=limit % 10**9 // 1000)
    return Asked(f"--since={text.isoformat()}", lambda item: ns(item) >= limit)


def until(after_s: int) -> Asked:
    text = datetime.datetime.fromtimestamp(BEGIN // 10**9 + after_s, datetime.timezone.utc)
    end = BEGIN + (after_s + 1) * 10**9
    return Asked(f"--until={text.isoformat()}", lambda item: ns(item) < end)


TIMES = st.one_of(
    st.sampled_from(ARRIVALS).flatmap(lambda at: st.sampled_from([at, at + 1000])).map(since),
    st.sampled_from(ARRIVALS).map(lambda at: until(at // 10**9)),
)
WORDS = ["moving", "ready", "sent", "failed", "vanished", "discarded", "moved"]
OTHERS = st.one_of(
    option("state", WORDS, lambda item, value: word(item) == value),
    option("broker", ["b", "c", "none", "", "\udcff"], lambda item, v: item["broker"] == v),
    option("task", ["load", "ta sk\n", "größe", "none"], lambda item, v: item["task"] == v),
    option(
        "id",
        [str(uuid.UUID(int=7, version=5)), str(uuid.UUID(int=399, version=5)).upper(), "x"],
        lambda item, value: item["task_id"] == value.lower(),
    ),
    option(
        "reason",
        ["404", "GONE", "gone", "größe", "GRÖSSE", "%", "\n", "e", "none", "x" * 5000],
        lambda item, value: lower(value) in lower(item["reason"]),
    ),
    option(
        "directory",
        ["/", "/up", "/up/sub/", "/up/[x]", "/dst/*", "/up/\udcff", "/dst/x.csv", "up", "x" * 5000],
        lambda item, value: any(
            path == os.path.abspath(value)
            or path.startswith(os.path.abspath(value).rstrip("/") + "/")
            for path in (item["source"], item["final"])
        ),
    ),
)
PATHS = st.one_of(
    st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from([*NAMES, "", "*", "[!a]*"])),
    st.sampled_from([*NAMES, "/", ".", "*.csv", "*/[!-z]*", "[]]", "nothing", "x" * 5000]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.one_of(OTHERS, OTHERS, TIMES), max_size=3, unique_by=lambda one: one.option[:5]),
    st.lists(PATHS, max_size=2),
    st.integers(1, 9) | st.none(),
)
def test_any_question(
    every: Every, asked: list[Asked], paths: list[str], limit: int | None
) -> None:
    options = [one.option for one in asked]
    begin, end = (re.search(rf"--{name}=([^ ]*)", " ".join(options)) for name in ("since", "until"))
    assume(not (begin and end and begin[1] > end[1]))  # a usage error
    most = ["--all"] if limit is None else [f"--limit={limit}"]
    met = [item for item in every if all(one.holds(item) for one in asked)]
    seqs = {item["seq"] for path in paths for item in meant_by(met, path)}
    expected = [item for item in met if item["seq"] in seqs] if paths else met
    assert parsed(ask("history", *most, *options, "--", *paths)) == expected[:limit]
    if not any(text.startswith("--state") for text in options):
        failed = [item for item in reversed(met) if item["state"] == "failed"]
        assert parsed(ask("failed", *most, *options)) == failed[:limit]
