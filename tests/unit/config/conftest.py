"""A directory with a configuration, something to watch and somewhere to move to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.checkout import require_open_checkout
from watchman import config
from watchman.errors import ConfigError
from watchman.model import Config

NOBODY = 65534


class Site:
    """``root`` with ``ftp/`` to watch and ``store/`` to move to; in texts, $D stands for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ftp = root / "ftp"
        self.store = root / "store"
        self.ftp.mkdir()
        self.store.mkdir()

    def write(self, text: str, name: str = "config.py") -> Path:
        path = self.root / name
        path.write_text(text.replace("$D", str(self.root)), encoding="utf-8")
        return path

    def load(
        self, text: str, check_url: Callable[[str], str | None] | None = None, **environ: str
    ) -> Config:
        return config.load(str(self.write(text)), check_url=check_url, environ=environ)

    def problems(self, text: str) -> list[str]:
        """Return the problems that loading the text gives, with $D for the directory."""
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        return [problem.replace(str(self.root), "$D") for problem in caught.value.problems]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextmanager
def open_to_all() -> Iterator[Site]:
    """A site that any user can reach, unlike pytest's own directories."""
    root = tempfile.mkdtemp()
    os.chmod(root, 0o755)  # noqa: S103 — the user nobody is to get there
    yield Site(Path(root))
    shutil.rmtree(root)


@pytest.fixture
def open_site() -> Iterator[Site]:
    with open_to_all() as site:
        yield site


@contextmanager
def unprivileged() -> Iterator[int]:
    """Give up root's powers, where the tests have them; the user's number."""
    if os.getuid() != 0:
        yield os.getuid()
        return
    require_open_checkout()  # for what is imported meanwhile
    os.seteuid(NOBODY)
    try:
        yield NOBODY
    finally:
        os.seteuid(0)
