"""The checkout that the tests run from, and fresh copies of it, used as their users do."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@cache
def files() -> tuple[Path, ...]:
    """Return what a commit of all would hold, relative to the checkout: no ignored files.

    Without git, which who unpacked an archive may not have.
    """
    found: list[Path] = []
    for directory, names, others in os.walk(ROOT):
        below = Path(directory).relative_to(ROOT)
        names[:] = [name for name in names if name != ".git" and not ignored(below / name, True)]
        found += [below / name for name in others if not ignored(below / name, False)]
    found = [path for path in found if path != Path(".git")]  # a file, in a further work tree
    assert Path("setup.py") in found
    return tuple(sorted(found))


def ignored(path: Path, directory: bool) -> bool:
    """Say whether .gitignore names the path, relative to the checkout."""
    return any(
        (directory or not line.endswith("/"))
        and fnmatch(f"/{path}" if line.startswith("/") else path.name, line.rstrip("/"))
        for line in ignored_lines()
    )


@cache
def ignored_lines() -> tuple[str, ...]:
    lines = (ROOT / ".gitignore").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def clone(to: Path) -> Path:
    """Copy the working tree, as it would be committed now, to ``to``."""
    for name in files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
    return to


def pyproject() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    # Before 3.11 under its former name, which pytest brings along.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return dict(toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def project() -> dict[str, Any]:
    """Return what pyproject.toml says under ``[project]`` (PEP 621)."""
    return dict(pyproject()["project"])


def require_open_checkout() -> None:
    """Skip a test that runs watchman as another user, where none can get at the checkout."""
    if os.geteuid() == 0 and not others_can_use_it():
        pytest.skip(f"other users cannot read {ROOT}: use a checkout elsewhere, as in /opt")


@cache
def others_can_use_it() -> bool:
    setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*setpriv, sys.executable, "-c", "import watchman.cli, tests.waiting"],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def environment(**changes: str) -> dict[str, str]:
    """Return what a login shell has: nothing that names the virtual environment of the tests."""
    ours = {"PYTHON", "PYTHONPATH", "VIRTUAL_ENV", "WATCHMAN_CONFIG", "CELERY_BROKER_URL"}
    return {name: value for name, value in os.environ.items() if name not in ours} | changes


def run(
    command: str | Path, *arguments: str, cwd: str | Path = "/", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; ``changes`` are made to its environment."""
    return subprocess.run(
        [str(command), *arguments],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def typed(line: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Type a line into a shell; what is printed is in ``stdout``, errors among it."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
