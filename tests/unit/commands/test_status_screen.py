"""How ``status --watch`` draws over its last screen."""

from __future__ import annotations

import os
import shutil

import pytest

from watchman.commands import status_screen


def test_a_long_line_takes_one_row_of_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal cuts lines meanwhile; otherwise those that wrap push the first ones out."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 5)))
    status_screen._redraw("\n".join(["x" * 200] * 9))
    drawn = capsys.readouterr().out
    cut, wrap = drawn.index("\x1b[?7l"), drawn.index("\x1b[?7h")
    assert cut < drawn.index("x")
    assert drawn.rindex("\n") < wrap
    assert drawn.count("\n") == 4
    assert "and 6 more lines: 'notify status'" in drawn
