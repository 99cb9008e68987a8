"""Why a path is treated as it is: what ``match`` tells beside the outcome.

Asked for single paths by people, so each entry of the configuration is tried by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

from watchman.model import Config
from watchman.router import Router


def shadowed(config: Config, path: str) -> tuple[str, ...]:
    """Return the patterns that match the path as well, below the first one, which wins."""
    matching = [pattern for pattern, _ in config.patterns if fnmatchcase(path, pattern)]
    return tuple(matching[1:])


def why_left_out(config: Config, path: str) -> Iterator[str]:
    """Yield which entry of IGNORE or DRY_RUN matches the path, or a directory above it."""
    parts = path.split("/")
    for number in range(2, len(parts) + 1):
        part = "/".join(parts[:number])
        above = number < len(parts)
        name = os.path.basename(part)
        for pattern in config.ignore:
            if Router((), ignore=(pattern,)).ignored(name, part, directory=above):
                yield f"{pattern!r} of IGNORE matches {part if above else name}"
    yield from why_dry(config, path)


def why_dry(config: Config, path: str) -> Iterator[str]:
    """Yield which entry of DRY_RUN matches the path."""
    for pattern in config.dry_run:
        if fnmatchcase(path, pattern):
            yield f"{pattern!r} of DRY_RUN matches it"


def near_misses(config: Config, path: str, destination: str | None) -> Iterator[str]:
    """Yield which patterns would match but for a frequent mistake."""
    name = os.path.basename(path)
    for pattern, _ in config.patterns:
        if fnmatchcase(path, pattern):
            continue
        if fnmatchcase(path.lower(), pattern.lower()):
            yield f"{pattern!r} would, but upper and lower case differ"
        elif destination is not None and fnmatchcase(destination, pattern):
            yield f"{pattern!r} matches where it is moved to; write the path before the move"
        elif fnmatchcase(name, pattern):
            yield f"{pattern!r} matches its name alone; write '*/{pattern}' for the whole path"
