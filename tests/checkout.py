"""The checkout that the tests run from, and fresh copies of it."""

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
