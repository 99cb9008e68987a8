"""docs/ held against the source: every setting, every message, every command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import docs, readme
from tests.checkout import ROOT
from watchman import config, ignored_names
from watchman.brokers.app import TLS_OPTION
from watchman.brokers.capture import watchman_headers
from watchman.config import batch, criteria, loading, own_places, routes, watches
from watchman.model import Message, Route, State
from watchman.status.overview import Status, as_json
from watchman.verdicts import format_names

ERRORS = {
    "AlreadyRunning",
    "JournalDamaged",
    "JournalError",
    "NotRunning",
    "SourceError",
    "WatchmanError",
}
LEVELS = {"warning", "error", "critical", "exception"}
PASSED_ON = {"X", "X X", "X: X", "X X: X"}
"""Lines of the log that only pass on what is said elsewhere."""


def terms(page: str) -> list[str]:
    """Return the literals that a page defines, each in a line of its own."""
    lines = re.findall(r"^ *(``[^\n]+``)\n +\S", docs.text(page), re.MULTILINE)
    return [term for line in lines for term in re.findall(r"``(.+?)``", line)]


def headings(page: str) -> set[str]:
    return set(re.findall(r"^(\S.*)\n[-=~]{3,}$", docs.text(page), re.MULTILINE))


# Settings


def test_every_setting_is_explained() -> None:
    explained = headings("settings") | set(terms("settings"))
    assert set(loading.SETTINGS) | set(own_places.OLD_NAMES) <= explained
    assert {"INOTIFIER_WATCH_PATHS", "celeryconfig.py"} <= explained
    assert set(watches._KEYS) <= explained
    assert {*criteria.KEYS, *criteria.SET_KEYS, batch.KEY, "incomplete_task"} <= explained
    assert set(map(repr, format_names.FORMAT_NAMES)) <= explained
    assert set(routes._APPLY_ASYNC) | {"broker", "task", "args", "kwargs", "options"} <= explained
    assert {"url", TLS_OPTION, routes._NESTED_OPTIONS} <= explained


def test_no_setting_is_explained_that_is_none() -> None:
    known = {*loading.SETTINGS, *own_places.OLD_NAMES, *watches._KEYS, *routes._APPLY_ASYNC}
    known |= {"broker", "task", "args", "kwargs", "options", "INOTIFIER_WATCH_PATHS"}
    known |= {"url", TLS_OPTION, routes._NESTED_OPTIONS, *criteria.KEYS, "incomplete_task"}
    known |= {batch.KEY, *criteria.SET_KEYS}
    # What begins with a quote or a brace is a value.
    assert {term for term in terms("settings") if term[0].isalpha()} - known == set()


def test_all_names_that_are_ignored_are_listed() -> None:
    tables = docs.text("servers").split("Names that are ignored\n")[1].split("\nShares")[0]
    listed = {name.replace("XXXXXX", "[A-Za-z0-9]" * 6) for name in re.findall("``(.+?)``", tables)}
    assert listed == set(ignored_names.DEFAULT_IGNORE)


# Messages


def said(node: ast.expr) -> str | None:
    """Return a text of the source with X for what differs; None for another expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(\.\d)?[sdrf]", "X", node.value).replace("%%", "%")
    if isinstance(node, ast.JoinedStr):
        parts = (said(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
        return "".join(part or "" for part in parts)
    return None


def sources() -> Iterator[ast.AST]:
    for path in sorted((ROOT / "watchman").rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def messages() -> set[str]:
    """Return what is logged as a warning or worse, and what ends a command."""
    found = set()
    for node in sources():
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = ast.unparse(node.func)
        logger, _, level = function.rpartition(".")
        if function in ERRORS or (logger in {"log", "service_log"} and level in LEVELS):
            found.add(said(node.args[0]) or "X")
    return found - PASSED_ON


def as_pattern(term: str) -> str:
    """Return a message as the page quotes it as a pattern: capitals and … stand for anything."""
    parts = re.split(r"(\b[A-Z][A-Z_]+\b|…)", term)
    return "".join(".*" if n % 2 else re.escape(part) for n, part in enumerate(parts))


def quoted() -> list[str]:
    """Return all that the page of troubles quotes: messages, and what is said of their end."""
    found = re.findall(r"``((?:[^`]|`(?!`))+)``", docs.text("troubleshooting"))
    return [" ".join(one.split()) for one in found]


def test_every_message_is_explained() -> None:
    explained = [re.compile(as_pattern(term)) for term in quoted()]
    found = messages()
    assert len(found) > 60
    unexplained = [one for one in found if not any(each.fullmatch(one) for each in explained)]
    assert sorted(unexplained) == [], "docs/troubleshooting.rst says what to do about each"


def test_no_message_is_explained_that_nobody_says() -> None:
    texts = {text for node in sources() if isinstance(node, ast.expr) and (text := said(node))}
    stale = [
        term
        for term in terms("troubleshooting")
        if not any(re.search(as_pattern(term), text) for text in texts)
    ]
    assert stale == []


# What others read


def literals(page: str, section: str) -> set[str]:
    """Return all literals of a section of a page."""
    until_the_next = rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)"
    [part] = re.findall(until_the_next, docs.text(page), re.MULTILINE | re.DOTALL)
    return set(re.findall("``(.+?)``", part))


def test_all_keys_of_the_status_are_named() -> None:
    nothing = Status("inactive", None, None, None, [], 0, 0)
    assert set(as_json(nothing, 0)) <= literals("monitoring", "What is wrong")


def test_all_headers_are_named() -> None:
    message = Message("id", "/new", "/old", 1, 2, 3, Route("broker", "task"))
    named = literals("workers", "What a message tells")
    assert {name for name in named if name.startswith("watchman_")} == set(
        watchman_headers(message, "host")
    )


def test_all_states_are_named() -> None:
    named = literals("how-it-works", "States")
    assert named - {"notify discard", "discarded"} == {state.name.lower() for state in State}


def test_the_workers_tasks_read_the_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {block.caption: block.text for block in docs.blocks("workers")}
    message = Message("id", "/new", "/old", 1, 2, 3, Route("broker", "process_timeseries"))
    names: dict[str, Any] = {}
    exec(found["tasks.py"], names)  # noqa: S102 — what the page shows
    task = names["process_timeseries"]
    task.push_request(headers=watchman_headers(message, "host"))
    assert task.run("/new") == "/old with 1 bytes is /new"
    exec(found["worker.py"], names)  # noqa: S102 — the same
    assert names["app"].conf.broker_transport_options["data_folder_in"] == "var/broker/messages"
    assert (tmp_path / "var/broker/messages").is_dir()


# Blocks


def test_every_command_is_run_or_says_why_not() -> None:
    captions = [
        (page, block.caption)
        for page in docs.PAGES
        for block in docs.blocks(page)
        if block.language == "console" and not docs.is_question(block)
    ]
    assert len(captions) > 20
    known = ("", docs.BACKGROUND, docs.AS_ROOT)
    others = [one for one in captions if one[1] not in known]
    assert [one for one in others if not re.match(f"{docs.NOT_RUN}\\w", one[1])] == []
    assert {page for page, caption in captions if caption == docs.AS_ROOT} == {"deployment"}


def configurations() -> list[tuple[str, str]]:
    """Return the configurations of all pages, each with what continues it."""
    found: list[tuple[str, str]] = []
    for page in docs.PAGES:
        for block in docs.blocks(page):
            name, more, _ = block.caption.partition(docs.CONTINUED)
            if name.endswith(("config.py", "watcher.py")) and "celery" not in name:
                before = found.pop()[1] if more else ""
                found.append((page, before + block.text))
    return found


@pytest.mark.parametrize(("page", "text"), configurations())
def test_every_configuration_is_a_good_one(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(readme.placed(text, tmp_path), encoding="utf-8")
    for block in docs.blocks(page):
        if block.caption == "celeryconfig.py":
            (tmp_path / block.caption).write_text(block.text, encoding="utf-8")
    loaded = config.load(str(tmp_path / "config.py"), environ={})
    assert loaded.watches
    assert [line for line in loaded.warnings if "PATTERNS" not in line] == []


def test_every_page_is_in_the_contents() -> None:
    [tree] = re.findall(r"toctree::\n(.*?)\n\n\w", docs.text("index"), re.DOTALL)
    named = re.findall(r"^    ([\w-]+)$", tree, re.MULTILINE)
    assert sorted([*named, "index"]) == list(docs.PAGES)


def test_the_files_that_pages_name_are_there() -> None:
    named = {
        name
        for page in docs.PAGES
        for name in re.findall(r"\b(?:deploy|examples|docker|\.ci)/[\w./-]*\w", docs.text(page))
    }
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []
