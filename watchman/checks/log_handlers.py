"""What LOGGING names, tried without opening a file or a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from watchman.checks.result import Check
from watchman.config import beside
from watchman.model import Config

_SECTIONS = ("formatters", "filters", "handlers")


def check_logging(config: Config) -> list[Check]:
    """Import the classes that LOGGING names, and look at the directories of its files."""
    found = []
    with beside(os.path.dirname(config.path)):
        for section in _SECTIONS:
            for name, settings in config.logging.get(section, {}).items():
                if isinstance(settings, Mapping):
                    subject = f"LOGGING, {section[:-1]} {name}"
                    found += [Check(subject, False, *wrong) for wrong in _mistakes(settings)]
    return found


def _mistakes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong and what to do."""
    for key in ("class", "()"):
        wanted = settings.get(key)
        if isinstance(wanted, str):
            wrong = _unresolved(wanted)
            if wrong:
                yield f"{wanted} cannot be imported ({wrong})", f"correct its '{key}'"
    filename = settings.get("filename")
    if isinstance(filename, (str, os.PathLike)):
        path = os.path.abspath(filename)
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            yield f"the directory {directory} does not exist", "create it, or correct 'filename'"
        elif not _is_writable(path):
            yield (
                f"{path} cannot be written by user {os.geteuid()}",
                "give this user write permission, or correct 'filename'",
            )


def _unresolved(name: str) -> str:
    """Say why dictConfig cannot import what the name means; empty if it can."""
    from logging.config import BaseConfigurator

    if name.startswith(("ext://", "cfg://")):
        return ""
    try:
        BaseConfigurator({}).resolve(name)
    except Exception as error:  # noqa: BLE001 — importing runs the user's own code
        return str(error.__cause__ or error)
    return ""


def _is_writable(path: str) -> bool:
    if os.path.lexists(path):
        return not os.path.isdir(path) and os.access(path, os.W_OK, effective_ids=True)
    return os.access(os.path.dirname(path), os.W_OK | os.X_OK, effective_ids=True)
