"""A daemon runs the threads and processes that it needs, and no more."""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance.daemon.site import Site
from tests.integration.pipeline.test_parts import NEEDED, instances
from tests.waiting import wait_until

LOG_WRITERS = {
    "StreamHandler": "LOGGING's default handler",
    "_StderrHandler": "logging's own, for what has no handler",
    "out": "the process's output",
    "err": "the process's error output",
}
"""One for each, so that none that hangs holds up the daemon."""


def test_a_daemon_with_one_watch(site: Site) -> None:
    pid = site.start()
    (site.data / "f.csv").write_text("x")
    wait_until(lambda: site.status()["deliveries"], what="a file has gone all the way")
    assert instances(pid) == 1
    assert len(os.listdir(f"/proc/{pid}/task")) == len(NEEDED) + len(LOG_WRITERS)
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == "", "no process besides"
    site.stop()
