"""What README.rst shows: commands with their output, and Python."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.checkout import ROOT

_WHOLE = (ROOT / "README.rst").read_text(encoding="utf-8")


def _section(title: str) -> re.Pattern[str]:
    return re.compile(rf"^{title}\n-+\n(.*?)^(?=[^\n]+\n-{{3,}}\n)", re.DOTALL | re.MULTILINE)


_DOCKER = _section("Development with Docker")
_SYSTEMD = _section("Under systemd")

[DOCKER] = _DOCKER.findall(_WHOLE)
"""The section whose commands need an engine: tests/acceptance/docker looks at it."""
[SYSTEMD] = _SYSTEMD.findall(_WHOLE)
"""The section whose commands change the machine: tests/acceptance/deploy looks at it."""
TEXT = _SYSTEMD.sub("", _DOCKER.sub("", _WHOLE))
"""All the rest."""

# Directories of the README that a test must have somewhere else: in `…/srv/ftp` and the like.
_PLACES = re.compile(r"(?<![\w./-])/(?=(?:srv|mnt|data)\b)")
_BROKERS = re.compile(r"'(?:amqp|redis)://[^']*'")
_FORMS = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d{3})?"), r"TIME"),
    (re.compile(r"\d+ (s|min|h|d)( \d+ (min|h))? ago"), "AGE"),
    (re.compile(r"\b(pid|process|process id) \d+", re.IGNORECASE), r"\1 N"),
    (re.compile(r"\buptime \d+:\d\d:\d\d"), "UPTIME"),
    (re.compile(r"\b\d+(\.\d)?/s\b"), "RATE"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


class Shown(NamedTuple):
    """A command, and the output that is shown below it, which may be none."""

    command: str
    output: str


def shown() -> list[Shown]:
    """Return every command in the README, in order."""
    found: list[Shown] = []
    inside = False
    for line in TEXT.splitlines():
        if line.startswith("    $ "):
            found.append(Shown(line[6:], ""))
            inside = True
        elif inside and (line.startswith("    ") or not line):
            found[-1] = found[-1]._replace(output=f"{found[-1].output}{line[4:]}\n")
        else:
            inside = False
    return [one._replace(output=one.output.rstrip("\n")) for one in found]


def python(word: str) -> str:
    """Return the one Python block that has the word."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", TEXT, re.MULTILINE)
    assert len(blocks) == TEXT.count("code-block::")
    [block] = [block for block in blocks if word in block]
    return textwrap.dedent(block)


def literal(word: str) -> list[str]:
    """Return the lines of the one block after ``::`` that has the word."""
    blocks = re.findall(r"::\n\n((?:    .*\n)+)", TEXT)
    [block] = [block for block in blocks if word in block]
    return textwrap.dedent(block).splitlines()


def placed(text: str, base: Path) -> str:
    """Return a configuration or a command with the README's directories below ``base``."""
    return _PLACES.sub(f"{base}/", text)


def local(text: str, base: Path) -> str:
    """Return the same with the embedded broker in the place of others."""
    return without_brokers(placed(text, base))


def without_brokers(text: str) -> str:
    """Return a configuration with the embedded broker in the place of others."""
    return _BROKERS.sub("'filesystem://'", text)


def in_form(text: str, base: Path | None = None, checkout: Path | None = None) -> list[str]:
    """Return an output's lines without what differs each time: times, numbers, places."""
    if base is not None:
        text = text.replace(str(base), "")
    if checkout is not None:
        text = text.replace(str(checkout), "/opt/watchman")
    for pattern, form in _FORMS:
        text = pattern.sub(form, text)
    return [line.rstrip() for line in text.strip("\n").split("\n")]
