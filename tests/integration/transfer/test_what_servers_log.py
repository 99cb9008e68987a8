"""docs/transfer-logs.rst says what each server logs of each end of an upload: it is measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from ftplib import error_perm
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.integration.transfer.logged import (
    SERVERS,
    Logged,
    aborted,
    appended,
    complete,
    killed,
    reset,
    resumed,
    session_ends,
)
from watchman.pipeline.log_reader import parser_of
from watchman.transfer_logs.line import LogLine

ENDS: dict[str, Callable[[Logged, Path, bytes], None]] = {
    "complete": complete,
    "ABOR": aborted,
    "killed": killed,
    "reset": reset,
    "resumed": resumed,
    "appended": appended,
}
DATA = bytes(range(256)) * 400


def told() -> dict[str, dict[str, str]]:
    """Return the table: by server and log, what it says of each end."""
    text = (ROOT / "docs" / "transfer-logs.rst").read_text(encoding="utf-8")
    (table,) = re.findall(r"^=[= ]+\nlog +complete.*?\n\n", text, re.MULTILINE | re.DOTALL)
    rows = [re.split(r"  +", line) for line in table.split("\n") if line.strip("= ")]
    head, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def cell(lines: list[LogLine], size: int) -> str:
    """Return what the last line says, and of how many of the file's bytes."""
    if not lines:
        return "nothing"
    last = lines[-1]
    if not last.complete:
        return "incomplete"
    if last.size is not None and last.size != last.transferred:
        assert last.size == size
        return "both"
    return "complete" if last.transferred == size else "the rest"


def measure(server: Logged, end: Callable[[Logged, Path, bytes], None], path: Path) -> str:
    """Upload so that it comes to an end in a way; return what there is in the log."""
    log, parse = Path(server.log.path), parser_of(server.log)
    before = log.stat().st_size if log.exists() else 0
    refused = []

    def upload() -> None:
        try:
            end(server, path, DATA)
        except error_perm as error:
            refused.append(error)

    session_ends(server, upload)
    if refused:
        return "refused"
    parsed = [parse(line) for line in log.read_bytes()[before:].splitlines()]
    lines = [line for line in parsed if line is not None]
    assert all(line.path.endswith(path.name.encode()) for line in lines)
    return cell(lines, path.stat().st_size if path.exists() else -1)


def test_the_table_is_what_servers_do(logged: Logged, request: pytest.FixtureRequest) -> None:
    server = request.node.callspec.params["logged"]
    found = {name: measure(logged, end, logged.root / f"{name}.bin") for name, end in ENDS.items()}
    wrong = {
        name: (cell, expected)
        for name, expected in told()[server].items()
        if (cell := found[name]) not in expected.split(" or ")
    }
    assert wrong == {}


def test_the_table_has_every_server() -> None:
    assert list(told()) == list(SERVERS)
