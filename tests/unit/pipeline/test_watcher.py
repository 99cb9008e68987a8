"""What one loop over a source is told by the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from watchman.model import Watch
from watchman.pipeline.watcher import Watcher


def test_a_loop_that_hangs_does_not_gather_what_is_for_others() -> None:
    woken: list[bool] = []
    roots = [SimpleNamespace(watch=Watch("/here")), SimpleNamespace(watch=Watch("/there"))]
    source: Any = SimpleNamespace(roots=roots, wake=lambda: woken.append(True))
    nothing: Any = None
    watcher: Watcher[Any] = Watcher(source, nothing, nothing, nothing, resumed=False)
    for _ in range(100):
        watcher.look_again(["/elsewhere/file", "/hereafter/file"])
    assert (len(watcher._changed), woken) == (0, [])
    watcher.look_again(["/elsewhere/file", "/there/file", "/here/below/file"])
    assert list(watcher._changed) == ["/there/file", "/here/below/file"]
    assert woken == [True]
