"""The manual page and the completions: made of what the commands say themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import manual
from tests.checkout import ROOT
from tests.servers import require
from watchman.cli import main
from watchman.commands.groups import every

PAGE = ROOT / "share/man/man1/notify.1"
COMPLETION = ROOT / "share/bash-completion/completions/notify"


def test_the_manual_page_is_made_of_the_help() -> None:
    made = "run: .venv/bin/python3 -m tests.manual > share/man/man1/notify.1"
    assert PAGE.read_text(encoding="utf-8") == manual.page(), made


def test_man_shows_the_page_without_a_warning(tmp_path: Path) -> None:
    groff = require("groff")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-P-c", "-rLL=78n", str(PAGE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(".\b", "", done.stdout)  # bold is a letter struck twice
    for name in every(main):
        assert f"\n       {name}" in shown, name


def completed(directory: Path, *words: str) -> list[str]:
    """Return what bash completes, after it has loaded the file that a wheel installs."""
    script = directory / "bin/notify"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m watchman "$@"\n')
    script.chmod(0o755)
    # Not "nosort": that is for a terminal, which there is none of.
    lines = f"""
        compopt() {{ :; }}
        . {COMPLETION}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _notify_completion notify
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{script.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [require("bash"), "-c", lines, "bash", *words],
        cwd=directory,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    assert completed(tmp_path, "notify", "re") == sorted(
        name for name in every(main) if name.startswith("re")
    )
    assert completed(tmp_path, "notify", "stop", "--k") == ["--kill"]


@pytest.mark.parametrize(
    ("shell", "name"),
    [("zsh", "zsh/site-functions/_notify"), ("fish", "fish/vendor_completions.d/notify.fish")],
)
def test_other_shells_can_read_theirs(shell: str, name: str, tmp_path: Path) -> None:
    """Each asks click for its script; what click has for them, click tests itself."""
    file = ROOT / "share" / name
    assert f"_NOTIFY_COMPLETE={shell}_source notify" in file.read_text()
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", str(file)], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "watchman"],
        cwd=tmp_path,
        env={**os.environ, "_NOTIFY_COMPLETE": f"{shell}_source", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_notify_completion" in done.stdout
