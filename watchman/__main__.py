"""The command ``notify``, as a console script and as ``python -m watchman``.

File names are bytes, and ours are UTF-8, whatever the locale says: under LANG=en_US (ISO-8859-1) or
LC_ALL=C, Python would decode them by another code, patterns would not match and tasks would get
paths that name nothing. So before anything is decoded that matters, the process takes the place of
itself in Python's UTF-8 mode (PEP 540). It keeps its number, its parent and its descriptors.
"""

from __future__ import annotations

import io
import os
import sys
import warnings


def main() -> None:
    """Run ``notify``."""
    if sys.getfilesystemencoding() != "utf-8":
        from watchman import itself

        itself.execute_again(b"-X", b"utf8")  # which always takes effect
    _standard_streams()
    # pyinotify imports it; where it is gone (Python 3.12) there is pyasyncore. With -W error, what
    # nobody here can change would be the end.
    warnings.filterwarnings("ignore", "The asyncore module is deprecated", DeprecationWarning)
    try:
        from watchman.cli import main as command

        command(prog_name="notify")
    except MemoryError as error:
        from watchman import limits

        sys.exit(f"notify: {limits.explain(error)}")


def _standard_streams() -> None:
    """Have all three: the journal must not be opened as number 2, and get what is said there.

    What an encoding of the user's choice (PYTHONIOENCODING) cannot hold is escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 — for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
