"""Makes the manual page of the help that the commands have:

    .venv/bin/python3 -m tests.manual > share/man/man1/notify.1

A test holds the page equal to what this makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from watchman.cli import main
from watchman.commands.groups import grouped, summary

_ELSEWHERE = {"--config", "--help"}
"""Options that every command has: they are told once."""
_EXIT_STATUS = {
    "0": "done",
    "1": "it did not work, or (status) the daemon is not active, or (check) something is wrong",
    "2": "the command was called in a way that it is not meant to be",
    "78": "the configuration has a mistake",
}
_ENVIRONMENT = {
    "WATCHMAN_CONFIG": "the configuration, where --config does not name it",
    "NO_COLOR": "set to anything: no colours",
}
_FILES = {
    "config.py": "the configuration, in the working directory",
    "celeryconfig.py": "Celery's own settings, beside it",
    "var/": "STATE_DIR beside it, unless it says otherwise: journal, history, process id, output",
}


def page() -> str:
    """Return the page, as troff with the macros of man(7)."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    context = main.make_context("notify", [], resilient_parsing=True)
    about, *more = _paragraphs(main)
    yield '.\\" Made by tests/manual.py of the help that the commands have.'
    yield '.TH NOTIFY 1 "" watchman "User Commands"'
    yield ".SH NAME"
    yield f"notify \\- {_escaped(about[0].lower() + about[1:].removesuffix('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B notify\n{_escaped(' '.join(main.collect_usage_pieces(context)))}"
    yield ".SH DESCRIPTION"
    yield from map(_escaped, more)
    yield ".SH OPTIONS"
    yield from _options(main, context, omitted=set())
    yield ".SH COMMANDS"
    yield "Each takes \\-\\-config as well, and \\-\\-help."
    for title, commands in grouped(main):
        yield f'.SS "{title}"'
        for name, command in commands:
            yield from _command(name, command, context)
    for title, rows in (
        ("EXIT STATUS", _EXIT_STATUS),
        ("ENVIRONMENT", _ENVIRONMENT),
        ("FILES", _FILES),
    ):
        yield f".SH {title}"
        yield from _described(rows.items())
    yield ".SH SEE ALSO"
    yield ".BR celery (1),\n.BR inotify (7)"


def _command(name: str, command: click.Command, above: click.Context) -> Iterator[str]:
    context = command.make_context(name, [], parent=above, resilient_parsing=True)
    arguments = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield ".TP"
    yield f".B {_escaped(' '.join([name, *arguments]))}"
    yield _escaped(f"{summary(command)}.")
    # A summary of its own stands before the help; else it is its first sentence.
    for text in _paragraphs(command)[0 if command.short_help else 1 :]:
        yield f".IP\n{_escaped(text)}"
    options = list(_options(command, context, omitted=_ELSEWHERE))
    if options:
        yield ".RS"
        yield from options
        yield ".RE"


def _paragraphs(command: click.Command) -> list[str]:
    """Return the paragraphs of a command's help, each in one line."""
    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", command.help or "")]


def _options(command: click.Command, context: click.Context, *, omitted: set[str]) -> Iterator[str]:
    for one in command.get_params(context):
        if isinstance(one, click.Option) and omitted.isdisjoint(one.opts):
            yield from _described([(_term(one), _meaning(one))])


def _term(option: click.Option) -> str:
    """Return an option as it is written; not as click has it, which differs between versions."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return names
    choices = getattr(option.type, "choices", None)
    return f"{names} {option.metavar or ('|'.join(choices) if choices else option.type.name)}"


def _meaning(option: click.Option) -> str:
    value = option.default
    shown = f"{value:g}" if isinstance(value, float) else value
    default = f" Default: {shown}." if option.show_default else ""
    return f"{option.help}{default}"


def _described(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield f".TP\n.B {_escaped(term)}\n{_escaped(text)}"


def _escaped(text: str) -> str:
    """Return text as it stands in troff: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


if __name__ == "__main__":
    print(page(), end="")
