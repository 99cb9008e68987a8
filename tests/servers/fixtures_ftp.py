"""Fixtures for tests that upload; ``tests/conftest.py`` names this module as a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.proftpd import ProFTPD, public_directory, remove


@pytest.fixture
def ftp_directory() -> Iterator[Path]:
    """A directory that a transfer server's user can reach; removed afterwards."""
    made = public_directory()
    yield made
    remove(made)


@pytest.fixture
def proftpd(ftp_directory: Path) -> Iterator[ProFTPD]:
    """A running ProFTPD that writes files under their final names."""
    with ProFTPD(ftp_directory) as server:
        yield server


@pytest.fixture
def proftpd_hidden(ftp_directory: Path) -> Iterator[ProFTPD]:
    """A running ProFTPD with HiddenStores: ``.in.NAME.``, then a rename."""
    with ProFTPD(ftp_directory, hidden_stores=True) as server:
        yield server
