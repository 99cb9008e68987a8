"""This process's own command line, and executing it anew."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def execute_again(*options: bytes) -> NoReturn:
    """Execute this process's command line again, with these options of the interpreter before.

    The process keeps its number, its parent and its descriptors.
    """
    interpreter, *arguments = _command_line()
    os.execv(sys.executable, [interpreter, *options, *arguments])  # noqa: S606 — itself


def _command_line() -> list[bytes]:
    """Return the bytes that the process was started with: decoding may have lost some of them."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except OSError:
        words = []
    if len(words) == len(sys.orig_argv):
        return words
    return [os.fsencode(word) for word in sys.orig_argv]
