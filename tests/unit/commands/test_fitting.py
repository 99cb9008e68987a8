"""What is printed fits into a terminal, and is left alone elsewhere."""

from __future__ import annotations

import io

import pytest

from watchman.commands.fitting import fitted, unbroken

LONG = "/srv/ftp/anna/a-directory-with-quite-a-long-name/another-one-below-it/data-of-november.csv"
AWAY = "waits for broker away since 2026-11-26 17:02:47 because redis://127.0.0.1:9/0: refused"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def fit(line: str) -> list[str]:
    return fitted(line, Terminal()).split("\n")


def test_a_pipe_gets_whole_lines() -> None:
    assert fitted(LONG * 3, io.StringIO()) == LONG * 3


@pytest.mark.parametrize("line", ["", "short", "x" * 80, f"\x1b[32m{'x' * 80}\x1b[0m"])
def test_what_fits_is_left_as_it_is(line: str) -> None:
    assert fit(line) == [line]


def test_a_line_goes_on_below_what_stands_behind_its_first_gap() -> None:
    assert fit(f"  2026-11-26 17:02:47  {AWAY}") == [
        "  2026-11-26 17:02:47  waits for broker away since 2026-11-26 17:02:47 because",
        "                       redis://127.0.0.1:9/0: refused",
    ]
    assert fit(f"ok   {AWAY}")[1] == "     redis://127.0.0.1:9/0: refused"


def test_a_line_without_a_gap_goes_on_a_bit_deeper() -> None:
    assert fit(f"    {AWAY}")[1] == "        redis://127.0.0.1:9/0: refused"


def test_a_path_that_does_not_fit_keeps_its_place() -> None:
    assert fit(f"  {LONG}") == [f"  {LONG}"]
    assert fit(f"  {LONG}  {AWAY}")[0] == f"  {LONG}"


def test_a_path_is_not_broken_at_its_spaces() -> None:
    path = "/srv/ftp/anna/all that there is/of the whole last week of November.csv"
    assert fit(f"12  2026-11-26 17:02:47  {unbroken(path)}")[1].strip() == path
    assert fit(unbroken(path)) == [path]
    assert fitted(unbroken(path), io.StringIO()) == path


def test_a_path_is_never_broken_where_it_can_stand_alone() -> None:
    path = LONG[:70]
    assert fit(f"{'':23}moved to {path}") == [f"{'':23}moved to", f"    {path}"]
    assert fit(f"  now{'':18}  {LONG} is there")[1:] == [f"    {LONG}", "    is there"]


def test_each_line_is_fitted_by_itself() -> None:
    assert fit(f"{'x' * 80}\n{AWAY}\nend")[0] == "x" * 80
    assert fit(f"{AWAY}\nend")[-1] == "end"


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert fit(AWAY) == [AWAY]
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(line) <= 20 or " " not in line.strip() for line in fit(AWAY))
