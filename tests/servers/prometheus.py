"""A Prometheus of the tests' own."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import Process, free_port, require, tail
from tests.waiting import wait_until

_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: watchman
    static_configs: [{{targets: ['{target}']}}]
"""


class Prometheus:
    """``prometheus`` on a free port, which scrapes one page and judges by one file of rules."""

    def __init__(self, directory: Path, target: str, rules: Path) -> None:
        binary = require("prometheus")
        config = directory / "prometheus.yml"
        config.write_text(_CONFIG.format(rules=rules, target=target), encoding="utf-8")
        self._port = free_port()
        argv = [binary, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        argv += [f"--web.listen-address=127.0.0.1:{self._port}"]
        self.log = directory / "prometheus.log"
        self._process = Process(argv, self.log)
        try:
            wait_until(self._is_ready, 30, "Prometheus answers")
        except AssertionError as error:
            self.stop()
            raise AssertionError(tail(self.log)) from error

    def _is_ready(self) -> bool:
        assert self._process.running, tail(self.log)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _ask(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        with urllib.request.urlopen(url, timeout=5) as got:
            return json.load(got)["data"]

    def value(self, query: str) -> float | None:
        """The value of a query with one result; None where there is none yet."""
        found = self._ask("query?" + urllib.parse.urlencode({"query": query}))["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """The alerts that fire at the moment."""
        alerts = self._ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def stop(self) -> None:
        self._process.stop()
