"""A site for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import AS_NOBODY, Site
from tests.checkout import require_open_checkout
from tests.servers import require


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


@pytest.fixture
def users_site() -> Iterator[Site]:
    """A site of a user whom permissions hold back: root is turned into nobody."""
    # Not below tmp_path, which only its owner can enter.
    top = Path(tempfile.mkdtemp(prefix="watchman-test-"))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        require("setpriv")
        require_open_checkout()
        prefix = AS_NOBODY
    found = Site(top, prefix=prefix)
    if prefix:
        for path in (top, *top.rglob("*")):
            os.chown(path, 65534, 65534)
    try:
        yield found
    finally:
        found.kill()
        for path in (top, *top.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(top)
