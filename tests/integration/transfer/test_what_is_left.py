"""docs/servers.rst says what is left of an upload that breaks off: it is measured."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.servers.clients import End
from tests.servers.ways import WAYS, Way
from tests.waiting import wait_until
from watchman.file_access import Seen, look

ENDS = {"aborted": End.ABORT, "killed": End.KILL, "reset": End.RESET}
DATA = bytes(range(256)) * 800


def told() -> dict[str, dict[str, str]]:
    """Return the table: by way to upload, what is left after each end."""
    text = (ROOT / "docs" / "servers.rst").read_text(encoding="utf-8")
    (table,) = re.findall(r"^=[= ]+\nupload +aborted.*?\n\n", text, re.MULTILINE | re.DOTALL)
    rows = [re.split(r"  +", line) for line in table.split("\n") if line.strip("= ")]
    head, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def nobody_writes(root: Path) -> bool:
    directory = os.open(root, os.O_RDONLY)
    try:
        return all(look(name, directory).seen is not Seen.BUSY for name in os.listdir(root))
    finally:
        os.close(directory)


def cell(way: Way, name: str) -> str:
    """Say under which name there is some of a file: its own, another, or none."""
    if (way.root / name).exists():
        whole = (way.root / name).read_bytes() == DATA
        return "all of it" if whole else "its name"
    others = [path for path in way.root.iterdir() if path.is_file()]
    assert all(path.name.startswith(".") for path in others)
    return "another name" if others else "nothing"


def what_is_left(way: Way, name: str, expected: list[str]) -> str:
    """Return the cell, when the server is done; one that is not expected after some seconds."""
    with suppress(AssertionError):
        wait_until(lambda: nobody_writes(way.root) and cell(way, name) in expected, 5)
    return cell(way, name)


def is_called_complete(way: Way, name: str) -> bool:
    """Say whether the log's last line of a file ends in ``c``, as xferlog(5) has it."""
    if way.log is None or not way.log.exists():
        return False
    lines = [line for line in way.log.read_text().splitlines() if f"/{name} " in line]
    return bool(lines) and lines[-1].endswith("c")


@pytest.mark.parametrize("name", WAYS)
def test_the_table_is_what_servers_leave(name: str, ftp_directory: Path) -> None:
    with ExitStack() as stack:
        way = WAYS[name](ftp_directory, stack)
        wrong, sent = {}, []
        for number, (column, end) in enumerate(ENDS.items()):
            file, expected = f"{number}.bin", told()[name][column].split(" or ")
            if expected == ["not made"]:
                continue
            way.client.broken(file, DATA, len(DATA) // 3, end)
            left = what_is_left(way, file, expected)
            if left not in expected:
                wrong[column] = left, expected
            if left == "its name" and is_called_complete(way, file):
                sent.append(column)
            for path in way.root.iterdir():
                path.unlink(missing_ok=True)  # the server may be removing it
        assert wrong == {}
        # By chance ProFTPD sees the end of the control connection first.
        assert set(sent) <= set(told()[name]["require_log sends"].split(", "))


def test_the_table_has_every_way() -> None:
    assert list(told()) == list(WAYS)
