"""``config``: the configuration that is in effect, and where each value comes from."""

from __future__ import annotations

import os
import pprint
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from watchman.commands.common import as_json_option, common, echo, load, print_json
from watchman.commands.fitting import columns
from watchman.text import printable

DEFAULT = "default"


class _Value(NamedTuple):
    """A setting in effect."""

    name: str
    value: Any
    """Plain values, without secrets."""
    origin: str
    """A file's name, or ``default``."""


@click.command(
    help=(
        "Print the configuration in effect, and where each value comes from.\n\n"
        "Secrets are masked. A default is marked as one; the rest is from the file named."
    )
)
@common
@as_json_option
def config(as_json: bool) -> None:
    values = list(_values())
    if as_json:
        print_json([one._asdict() for one in values])
        return
    origin = None
    for one in sorted(values, key=lambda value: value.origin == DEFAULT):
        if one.origin != origin:
            echo(f"{'' if origin is None else chr(10)}# {printable(one.origin)}")
            origin = one.origin
        echo(f"{printable(one.name)} = {_shown(one.value)}")


def _values() -> Iterator[_Value]:
    from watchman.config import effective

    loaded = load()
    directory = os.path.dirname(loaded.path)
    for setting, value in effective.settings(loaded).items():
        given = setting in loaded.given
        yield _Value(setting, value, loaded.path if given else DEFAULT)
    celery = os.path.join(directory, "celeryconfig.py")
    for setting, value in effective.celery_settings(loaded).items():
        yield _Value(setting, value, celery)


def _shown(value: Any) -> str:
    """Return a value as Python, a list or dict with each of its entries on a line of its own.

    On a terminal a longer entry has several, still as Python.
    """
    if isinstance(value, list) and value:
        return "\n".join(["[", *(f"    {_text(one)}," for one in value), "]"])
    if isinstance(value, Mapping) and value:
        rows = (
            f"    {printable(repr(name))}: {_text(one, len(repr(name)) + 2)},"
            for name, one in value.items()
        )
        return "\n".join(["{", *rows, "}"])
    return _text(value)


def _text(value: Any, behind: int = 0) -> str:
    """Return a value as Python; so many letters stand before it in its line."""
    width = columns()
    room = sys.maxsize if width is None else max(20, width - 5 - behind)
    lines = pprint.pformat(value, width=room, sort_dicts=False).splitlines()
    return f"\n{' ' * (4 + behind)}".join(map(printable, lines))


COMMANDS = (config,)
