"""Who runs a command, for the history."""

from __future__ import annotations

import os
import pwd

from watchman.text import printable


def operator() -> str:
    """Return the login name and uid of who runs this, and through whom."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}{_by()}"
    return f"{printable(name)} (uid {uid}{_by(', ')})"


def _by(before: str = " ") -> str:
    by = os.environ.get("SUDO_USER")
    return f"{before}sudo by {printable(by)}" if by else ""
