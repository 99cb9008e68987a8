"""Lines for a terminal: none is broken within a word; a pipe gets them whole."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TextIO

from watchman.text import printable

_CODE = re.compile("\x1b\\[\\d*m")
_SPACE = "\0"
"""A space within a path: nothing that is printable has such a byte."""
_DEEPEST = 30
"""Columns that a continuation is indented by at the most."""


def columns(stream: TextIO | None = None) -> int | None:
    """Return the width of the terminal that a stream (standard output) is; None for no terminal."""
    stream = sys.stdout if stream is None else stream
    return shutil.get_terminal_size().columns if stream.isatty() else None


def unbroken(path: str) -> str:
    """Return a path as it is printed, of which :func:`fitted` breaks no space."""
    return printable(path).replace(" ", _SPACE)


def fitted(text: str, stream: TextIO | None = None) -> str:
    """Return lines that fit where they go; what belongs to a line is indented below it."""
    width = columns(stream)
    if width is None:
        return text.replace(_SPACE, " ")
    return "\n".join(_wrapped(line, width) for line in text.split("\n")).replace(_SPACE, " ")


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width or len(_CODE.sub("", line)) <= width:
        return line
    words = line.lstrip(" ")
    indent = _indent(_CODE.sub("", line))
    longest = max(map(len, line.split()))
    if indent + longest > width:
        # A path alone in its line can be read, and taken by a double click.
        indent = min(indent, 4)
    return textwrap.fill(
        words,
        width,
        # Not as a part of the text: textwrap drops that before a word which does not fit.
        initial_indent=line[: len(line) - len(words)],
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _indent(line: str) -> int:
    """Return where a line goes on: below what stands behind its first gap, or a bit deeper."""
    begin = len(line) - len(line.lstrip())
    gap = re.search(r"\S {2,}(?=\S)", line[: _DEEPEST + 1])
    return gap.end() if gap else begin + 4
