"""What the embedded broker, ``filesystem://``, holds below a STATE_DIR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def messages(state: Path) -> list[Path]:
    """Return the files of its messages, oldest first; what begins with a dot is being written."""
    return sorted((state / "broker/messages").glob("[!.]*.msg"))


def headers(state: Path) -> list[dict[str, Any]]:
    """Return the headers of its messages, oldest first."""
    return [json.loads(path.read_text())["headers"] for path in messages(state)]


def sources(state: Path) -> list[str]:
    """Return the paths that its messages are for, as they were found, sorted."""
    return sorted(one["watchman_source"] for one in headers(state))
