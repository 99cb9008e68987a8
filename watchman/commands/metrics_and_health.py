"""``metrics`` and ``health``: for Prometheus, Nagios and their like."""

from __future__ import annotations

import re
from typing import Any

import click

from watchman.commands.common import as_json_option, common, load_own, print_json, say
from watchman.errors import WatchmanError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)


class Age(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A length of time: a number, and s, m, h or d behind it; seconds without. In seconds."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds. Raises BadParameter."""
        if isinstance(value, float):
            return value
        found = _AGE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.fail(f"{value!a} is no length of time: write 90s, 10m, 2h or 1d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.command(help="Print what is so at the moment in Prometheus's text format.")
@common
def metrics() -> None:
    from watchman.metrics import exposition

    say(exposition(load_own()).decode().rstrip("\n"))


@click.command(
    short_help="Say in one line whether all is well, as a Nagios plugin does.",
    help=(
        "Say in one line whether all is well, with the exit statuses of a Nagios plugin.\n\n"
        "0: events come, and nothing waits for too long. 1: files go their way, but somebody "
        "should look. 2: files are not noticed, or have waited for too long. 3: it cannot be told."
    ),
)
@common
@as_json_option
@click.option(
    "--max-age",
    type=Age(),
    default="10m",
    show_default=True,
    help="How long a delivery may wait, or a broker be down: 90s, 10m, 2h, 1d.",
)
@click.option(
    "--max-failed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="How many failed deliveries are no reason to look.",
)
@click.pass_context
def health(ctx: click.Context, max_age: float, max_failed: int, as_json: bool) -> None:
    from watchman.metrics import Health, Level
    from watchman.metrics import health as judged

    try:
        found = judged(load_own(), max_age=max_age, max_failed=max_failed)
    except WatchmanError as error:
        # Not even where to look is known.
        found = Health(Level.UNKNOWN, tuple(str(error).splitlines()), "")
    if as_json:
        print_json({"level": found.level.name, "reasons": found.reasons})
    else:
        say(found.line)
    ctx.exit(found.level)


COMMANDS = (metrics, health)
