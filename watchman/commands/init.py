"""``init``: the first configuration, which works without a server."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile

import click

from watchman.commands.common import absolute, say
from watchman.errors import WatchmanError
from watchman.text import printable

UPLOAD = "upload"
_PLACES = ("share/watchman/config-example.py", "config-example.py")


@click.command(
    help=(
        "Write a first configuration into DIRECTORY, by default here.\n\n"
        "config.py, celeryconfig.py and a worker's tasks.py work at once, with a broker that "
        "needs no server. Nothing that is there is overwritten."
    )
)
@click.argument("directory", default=".", type=click.Path())
def init(directory: str) -> None:
    from watchman.commands import first_files

    top = absolute(directory)
    if os.path.lexists(os.path.join(top, "config.py")):
        raise WatchmanError(
            f"{printable(top)} has a config.py, and nothing was changed; edit that one, or name "
            "another directory"
        )
    try:
        os.makedirs(os.path.join(top, UPLOAD), exist_ok=True)
        # config.py comes last: where something goes wrong before, this can be done again.
        _write(top, "celeryconfig.py", first_files.CELERYCONFIG)
        _write(top, "tasks.py", first_files.TASKS)
        _write(top, "config.py", first_files.CONFIG.replace("{example}", _example()))
    except OSError as error:
        name = printable(str(error.filename or top))
        raise WatchmanError(
            f"{name} cannot be written: {error.strerror}; correct that, or name another directory"
        ) from error
    say("\nNow start the daemon, upload a file, and see a worker do its task:\n")
    for line in _next_commands(top):
        say(f"    {printable(line)}")


def _write(top: str, name: str, text: str) -> None:
    """Write a file that is not there yet, whole or not at all. Raises OSError."""
    path = os.path.join(top, name)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=top) as scratch:
        draft = os.path.join(scratch, name)
        with open(draft, "x", encoding="utf-8") as file:
            file.write(text)
        try:
            os.link(draft, path)  # a rename would replace what is there
        except FileExistsError:
            say(f"{printable(path)} is there, and left as it is")
        else:
            say(f"{printable(path)} is written")


def _example() -> str:
    """Return where the example with all settings is: installed by a wheel, or in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for top in (package, sys.prefix):
        for place in _PLACES:
            path = os.path.join(top, place)
            if os.path.exists(path) and path.isprintable():
                return path
    return "config-example.py in watchman's sources"


def _next_commands(top: str) -> list[str]:
    """Return the three commands from here to a task, as they can be typed where init was."""
    here = os.path.realpath(top) == os.path.realpath(os.curdir)
    config = [] if here else ["--config", os.path.join(top, "config.py")]
    directory = [] if here else ["--workdir", top]
    file = os.path.join(UPLOAD if here else os.path.join(top, UPLOAD), "hello.txt")
    worker = [*_program("celery"), *directory, "-A", "tasks", "worker", "--loglevel", "INFO"]
    return [
        shlex.join([*_program("notify", "watchman"), *config, "start"]),
        f"echo hello > {shlex.quote(file)}",
        shlex.join(worker),
    ]


def _program(name: str, module: str = "") -> list[str]:
    """Return how a program of this installation is called: by its name if PATH leads to it."""
    ours = os.path.join(os.path.dirname(sys.executable), name)
    found = shutil.which(name)
    if not os.path.exists(ours):
        return [sys.executable, "-m", module or name]
    return [name] if found is not None and os.path.samefile(found, ours) else [ours]


COMMANDS = (init,)
