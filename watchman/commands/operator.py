"""Who runs a command, for the history; and that the daemon obeys."""

from __future__ import annotations

import os
import pwd

from watchman.model import Config
from watchman.text import printable


def operator() -> str:
    """Return the login name and uid of who runs this, and through whom."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}{_by()}"
    return f"{printable(name)} (uid {uid}{_by(', ')})"


def have_obeyed(config: Config) -> bool:
    """Have a running daemon obey what is in the journal now; else it does within ten seconds.

    Only ``config.state_dir`` is looked at. False where none has said that it does.
    """
    from watchman.status import daemon_socket

    answer = daemon_socket.request(config.state_dir, "orders")
    return answer is not None and answer.get("fresh") is True


def _by(before: str = " ") -> str:
    by = os.environ.get("SUDO_USER")
    return f"{before}sudo by {printable(by)}" if by else ""
