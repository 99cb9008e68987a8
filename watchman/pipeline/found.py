"""A complete file, as the modules of this package hand it to each other."""

from __future__ import annotations

from typing import NamedTuple

from watchman.identity import Evidence
from watchman.model import Version
from watchman.sources.tree import Node


class Found(NamedTuple):
    """A complete file, known or not."""

    node: Node
    name: str
    path: str
    version: Version
    evidence: Evidence
