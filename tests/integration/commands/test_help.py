"""What the help says of commands: each in a group, and whole on a terminal of 80 columns."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from watchman.cli import main
from watchman.commands.groups import GROUPS, every, grouped, summary


def test_every_command_is_in_one_group_and_every_word_is_a_command() -> None:
    words = [name for names in GROUPS.values() for name in names]
    assert sorted(words) == sorted(every(main))
    assert [title for title, commands in grouped(main) if not commands] == []


def test_a_command_without_a_group_is_shown_all_the_same() -> None:
    lone = click.Group("lone", commands=[click.Command("stray", help="Do something.")])
    assert list(grouped(lone))[-1] == ("Other", [("stray", lone.commands["stray"])])


def test_each_summary_is_whole_in_one_line_at_80_columns() -> None:
    done = CliRunner().invoke(main, ["--help"], terminal_width=80)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    for name, command in every(main).items():
        (line,) = [line for line in lines if re.match(rf"  {name} ", line)]
        assert line.split(maxsplit=1)[1] == summary(command)


@pytest.mark.parametrize("name", sorted(every(main)))
def test_each_command_has_help_at_80_columns(name: str) -> None:
    done = CliRunner().invoke(main, [name, "-h"], prog_name="notify", terminal_width=80)
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: notify {name}")
    assert max(map(len, done.output.splitlines())) <= 80
