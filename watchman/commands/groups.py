"""Which commands there are, in which group of the help, and where: the one place of all three.

``notify --help``, the manual page and the completions are made of it. A command's module is
imported when it is asked for: all of them together take a third of the time of a short command.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click

_HERE = "watchman.commands"
GROUPS = {
    "Prepare": {
        "init": f"{_HERE}.init",
        "check": f"{_HERE}.prepare",
        "match": f"{_HERE}.prepare",
        "config": f"{_HERE}.config",
        "demo": "watchman.cli",
    },
    "Run": {
        "run": "watchman.cli",
        "start": f"{_HERE}.lifecycle",
        "stop": f"{_HERE}.lifecycle",
        "restart": f"{_HERE}.lifecycle",
        "reload": f"{_HERE}.lifecycle",
    },
    "Ask": {
        "status": f"{_HERE}.lifecycle",
        "where": f"{_HERE}.where",
        "history": f"{_HERE}.history",
        "failed": f"{_HERE}.history",
        "scan": f"{_HERE}.scan",
        "metrics": f"{_HERE}.metrics_and_health",
        "health": f"{_HERE}.metrics_and_health",
        "web": "watchman.web.command",
    },
    "Repair": {
        "retry": f"{_HERE}.deliveries",
        "discard": f"{_HERE}.deliveries",
        "resend": f"{_HERE}.resend",
        "hold": f"{_HERE}.holding",
        "release": f"{_HERE}.holding",
        "backup": f"{_HERE}.backup",
    },
}
"""The names of the commands, in the order in which they are shown, and their modules."""
_MODULES = {name: module for names in GROUPS.values() for name, module in names.items()}


def every(commands: click.Group) -> dict[str, click.Command]:
    """Return all commands by their names."""
    ctx = click.Context(commands)
    found = {name: commands.get_command(ctx, name) for name in commands.list_commands(ctx)}
    return {name: command for name, command in found.items() if command is not None}


def grouped(commands: click.Group) -> Iterator[tuple[str, list[tuple[str, click.Command]]]]:
    """Yield each group's title, and the commands in it by their names.

    A command that is in no group comes last, under "Other": a test does not let that be.
    """
    left = {name: one for name, one in every(commands).items() if not one.hidden}
    for title, names in GROUPS.items():
        yield title, [(name, left.pop(name)) for name in names if name in left]
    if left:
        yield "Other", sorted(left.items())


def summary(command: click.Command) -> str:
    """Return the first sentence of a command's help, whole."""
    return command.get_short_help_str(limit=1000).removesuffix(".")


class GroupedHelp(click.Group):
    """A group of commands whose help shows them in groups, each with its whole summary."""

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 — click calls it so
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the groups, all of them with one column for the names."""
        widest = max(map(len, every(self)), default=0)
        for title, commands in grouped(self):
            if commands:
                with formatter.section(title):
                    rows = [(name.ljust(widest), summary(one)) for name, one in commands]
                    formatter.write_dl(rows)


class LazyCommands(GroupedHelp):
    """Commands whose modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, those that are not imported too."""
        return sorted({*super().list_commands(ctx), *_MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import what has the command, if there is one of that name."""
        if cmd_name not in self.commands and cmd_name in _MODULES:
            for command in importlib.import_module(_MODULES[cmd_name]).COMMANDS:
                self.add_command(command)
        return super().get_command(ctx, cmd_name)
