"""What the commands print that report deliveries: JSON Lines."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the objects, one a line; every line has its end."""
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
