"""What ``notify check`` says of hooks and METRICS_FILE."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.running import config_for
from watchman.checks.monitoring_checks import check_monitoring
from watchman.model import Hook


def test_programs_and_the_directory_are_looked_for(tmp_path: Path) -> None:
    hooks = {
        "ON_FAILED": Hook("ON_FAILED", "the command a", command=("/nonexistent/a", "b")),
        "ON_TROUBLE": Hook("ON_TROUBLE", "the command b", command=(sys.executable, "-c", "1/0")),
        "ON_RECOVERED": Hook("ON_RECOVERED", "http://**@host/", url="http://u:p@host/"),
    }
    file = tmp_path / "out/x.prom"
    config = config_for(tmp_path, tmp_path / "s", hooks=hooks, metrics_file=str(file))

    def found() -> dict[str, tuple[bool, str]]:
        return {one.subject: (one.ok, one.detail) for one in check_monitoring(config)}

    assert found() == {
        "ON_FAILED": (False, "there is no program /nonexistent/a"),
        "ON_TROUBLE": (True, "the command b"),
        "ON_RECOVERED": (True, "http://**@host/"),
        "METRICS_FILE": (False, f"{file.parent} cannot be written"),
    }
    file.parent.mkdir()
    assert found()["METRICS_FILE"] == (True, str(file))
    assert list(file.parent.iterdir()) == []
    assert check_monitoring(config_for(tmp_path, tmp_path / "s")) == []
