"""ARCHITECTURE.md's layers, as pyproject.toml writes them down, hold in the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT, clone


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"], cwd=checkout, capture_output=True, text=True, check=False
    )


def test_every_contract_is_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("model.py", "import watchman.filesystem", "A module imports only from layers below it"),
        (
            "sender/sending.py",
            "import watchman.journal",
            "A module imports only from layers below it",
        ),
        ("unheard_of.py", "", "A module imports only from layers below it"),
        ("sender/sending.py", "import redis", "Only brokers/ knows Celery"),
        ("arrivals.py", "import pyinotify", "Only the inotify source and processors know"),
        ("router.py", "import sqlite3", "Only journal knows SQL"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    copy = clone(tmp_path)
    with (copy / "watchman" / module).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert [text for text in broken if text.startswith(contract)], done.stdout + done.stderr
