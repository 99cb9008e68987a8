"""What docs/ shows: blocks of commands with their output, and files."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import readme
from tests.checkout import ROOT

DOCS = ROOT / "docs"
PAGES = tuple(sorted(path.stem for path in DOCS.glob("*.rst")))

NOT_RUN = "not run by the tests: "
"""How the caption of a block begins whose commands no test runs; the reason follows."""
BACKGROUND = "in another terminal"
AS_ROOT = "as root, with systemd"
CONTINUED = ", continued"
"""How the caption of a file's further part ends."""

_BLOCK = re.compile(
    r"^(?P<margin> *)\.\. code-block:: (?P<language>\w+)\n"
    r"(?P<options>(?:(?P=margin) +:\w+:.*\n)*)"
    r"\n(?P<body>(?:(?P=margin) {3,}.*\n|\n)+)",
    re.MULTILINE,
)
_FORMS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"@\d{13}\b"), "@MILLISECONDS"),
    (re.compile(r"\b[\d,]+(\.\d)? (kB|MB|GB|TB)\b"), "SIZE"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"), "TIME"),
    (re.compile(r"\b\d{19}\b"), "NANOSECONDS"),
    (re.compile(r"\b\d+ (s|min|h|d)( \d+ (min|h))?\b"), "SPAN"),
    (re.compile(r"\boldest=[\d.]+s"), "oldest=AGE"),
    (re.compile(r"\b\d+ allowed\b"), "N allowed"),
    (re.compile(r"\bdirectories on \w+"), "directories on FILESYSTEM"),
    (re.compile(r"[\d.,]+ \w+ free of [\d.,]+ \w+"), "SPACE"),
    (re.compile(r"\([\w.]+, user \S+\)"), "(PROGRAM)"),
    (re.compile(r"\b\S+ \(uid \d+[^)]*\)"), "SOMEBODY"),
)


PROGRAMS = {"notify": "watchman", "celery": "celery"}
"""What the pages type, and the module that it is."""


class Shown(NamedTuple):
    """A command, and the output that is shown below it, which may be none."""

    command: str
    output: str


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    caption: str
    text: str

    @property
    def commands(self) -> list[Shown]:
        """What is typed in a block of a terminal, in order."""
        found: list[Shown] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(Shown(line[2:], ""))
            elif found[-1].command.endswith("\\"):
                found[-1] = found[-1]._replace(command=f"{found[-1].command}\n{line}")
            else:
                found[-1] = found[-1]._replace(output=f"{found[-1].output}{line}\n")
        return found


def is_question(block: Block) -> bool:
    """Say whether a block is a question with its answer: tests/questions.py asks it."""
    return block.caption.endswith("?")


def programs(base: Path) -> Path:
    """Make the commands that the pages type, in a directory for the PATH; return it."""
    directory = base / "bin"
    directory.mkdir()
    for name, module in PROGRAMS.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o755)
    return directory


def text(page: str) -> str:
    """Return a page's source."""
    return (DOCS / f"{page}.rst").read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """Yield the code blocks of a page, in order."""
    source = text(page)
    count = 0
    for match in _BLOCK.finditer(source):
        caption = re.findall(r":caption: (.*)", match["options"])
        body = textwrap.dedent(match["body"]).strip("\n") + "\n"
        yield Block(match["language"], caption[0] if caption else "", body)
        count += 1
    assert count == source.count(".. code-block::"), f"a block of {page}.rst is not understood"


def in_form(printed: str, base: Path | None = None, site: Path | None = None) -> str:
    """Return an output without what differs each time: times, numbers, ids, places."""
    if site is not None:
        printed = printed.replace(str(site), "/home/anna/site")
    lines = "\n".join(readme.in_form(printed, base))
    for pattern, form in _FORMS:
        lines = pattern.sub(form, lines)
    return f"{lines.rstrip()}\n"


def is_shown(expected: str, printed: str) -> bool:
    """Say whether an output is what is shown, both in form; … stands for anything in a line, or
    for any lines.
    """
    pattern = "".join(
        "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        for line in in_form(expected).splitlines()
    )
    return re.fullmatch(pattern, printed) is not None
