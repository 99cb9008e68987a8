"""Which group of the help each command is in: the one place where that is said.

``notify --help``, the manual page and the completions are made of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

GROUPS = {
    "Prepare": "init check match config demo",
    "Run": "run start stop restart reload",
    "Ask": "status where history failed scan metrics health web",
    "Repair": "retry discard resend hold release backup",
}
"""The names of the commands, in the order in which they are shown."""


def grouped(commands: click.Group) -> Iterator[tuple[str, list[tuple[str, click.Command]]]]:
    """Yield each group's title, and the commands in it by their names.

    A command that is in no group comes last, under "Other": a test does not let that be.
    """
    left = {name: one for name, one in commands.commands.items() if not one.hidden}
    for title, names in GROUPS.items():
        yield title, [(name, left.pop(name)) for name in names.split() if name in left]
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
        widest = max(map(len, self.commands), default=0)
        for title, commands in grouped(self):
            if commands:
                with formatter.section(title):
                    rows = [(name.ljust(widest), summary(one)) for name, one in commands]
                    formatter.write_dl(rows)
