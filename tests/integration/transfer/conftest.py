"""Servers that log their transfers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.transfer.logged import SERVERS, Logged


@pytest.fixture(params=SERVERS)
def logged(request: pytest.FixtureRequest, ftp_directory: Path) -> Iterator[Logged]:
    """Each server, with a log in each of its formats."""
    with ExitStack() as stack:
        yield SERVERS[request.param](ftp_directory, stack)
