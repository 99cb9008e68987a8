"""The checkout that the tests run from, and fresh copies of it, used as their users do."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def files() -> tuple[Path, ...]:
    """Return what a commit of all would hold, relative to the checkout: no ignored files."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    # The checkout may belong to somebody else than who runs the tests.
    trust = os.environ | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(ROOT),
    }
    done = subprocess.run(
        [*command, "--exclude-standard"], check=True, capture_output=True, env=trust
    )
    names = (os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    found = tuple(sorted(Path(name) for name in names if (ROOT / name).is_file()))
    assert Path("setup.py") in found
    return found


def clone(to: Path) -> Path:
    """Copy the working tree, as it would be committed now, to ``to``."""
    for name in files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
    return to


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
