"""``backup``: the journal and its archive, copied while the daemon runs."""

from __future__ import annotations

import click

from watchman.commands.common import absolute, common, load_own, say
from watchman.text import printable, size


@click.command(
    help=(
        "Copy journal and history into a tar FILE.\n\n"
        "FILE is replaced in one step; the daemon may run meanwhile. "
        "To restore it, stop watchman, move STATE_DIR away, and unpack FILE in a new one."
    )
)
@common
@click.argument("file", type=click.Path())
def backup(file: str) -> None:
    from watchman.journal.journal_backup import back_up

    target = absolute(file)
    copied = back_up(load_own().state_dir, target)
    parts = f"{copied.parts} part{'' if copied.parts == 1 else 's'} of the history"
    say(f"{printable(target)}: the journal and {parts}, {size(copied.size)}")


COMMANDS = (backup,)
