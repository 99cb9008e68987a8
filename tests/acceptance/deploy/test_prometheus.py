"""The alert rules and the dashboard: by promtool, by the metrics that there are, by Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.daemon.conftest import site as site  # noqa: PLC0414 — a fixture, for this module too
from tests.acceptance.daemon.site import Site
from tests.acceptance.deploy.units import DEPLOY
from tests.acceptance.web.pages import pages
from tests.servers import require
from tests.servers.prometheus import Prometheus
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/watchman.json"
CASES = Path(__file__).with_name("alerts_test.yml")
NAME = re.compile(r"\bwatchman_\w+")


def promtool(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [require("promtool"), *map(str, arguments)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_the_rules_are_sound(tmp_path: Path) -> None:
    done = promtool("check", "rules", RULES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    number = RULES.read_text().count("- alert: ")
    assert f"{number} rules found" in done.stdout


def test_each_alert_begins_and_ends_as_it_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path / "alerts.yml")
    cases = tmp_path / "cases.yml"
    shutil.copy(CASES, cases)
    done = promtool("test", "rules", cases, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # It would tell otherwise.
    cases.write_text(CASES.read_text().replace("eval_time: 8m", "eval_time: 3m"))
    assert promtool("test", "rules", cases, cwd=tmp_path).returncode == 1


def test_each_alert_has_its_cases() -> None:
    cases = CASES.read_text()
    for alert in re.findall(r"- alert: (\w+)", RULES.read_text()):
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", cases), alert
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", cases), alert


def expressions(value: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(value, dict):
        yield from (value[key] for key in ("expr", "definition") if key in value)
        for item in value.values():
            yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


@pytest.fixture
def told(site: Site) -> bytes:
    """The metrics of a daemon that has everything there is a metric for."""
    (site.top / "store").mkdir()
    site.configure(f"MOVES = {{'{site.data}/moved': '{site.top}/store'}}\n")
    site.start()
    (site.data / "1.csv").touch()
    wait_until(lambda: "Sending task" in site.out.read_text(), 20)
    (site.top / "store").rmdir()
    (site.data / "moved").mkdir()
    (site.data / "moved/1.csv").touch()

    def all_of_it() -> str | None:
        done = site.notify("metrics")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout if "watchman_oldest_move_seconds{" in done.stdout else None

    found = wait_until(all_of_it, 20, "a file waits to be moved")
    site.stop()
    return found.encode()


def test_every_metric_that_is_asked_for_is_there(told: bytes, tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    rules = re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE)
    asked = {name for text in (*expressions(board), *rules) for name in NAME.findall(text)}
    families = list(text_string_to_metric_families(told.decode()))
    there = {sample.name for family in families for sample in family.samples}
    assert len(asked) > 20
    assert asked - there == set()
    # And none is forgotten on the dashboard.
    unused = {name.removesuffix("_bucket") for name in there - asked} - {"watchman_latency_seconds"}
    assert unused == set()
    linted = subprocess.run(
        [require("promtool"), "check", "metrics"], input=told, capture_output=True, check=False
    )
    assert (linted.returncode, linted.stderr) == (0, b"")


def test_the_dashboard_is_one() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    places = [panel["gridPos"] for panel in panels]
    taken = {
        (place["x"] + x, place["y"] + y)
        for place in places
        for x in range(place["w"])
        for y in range(place["h"])
    }
    assert len(taken) == sum(place["w"] * place["h"] for place in places)
    assert max(x for x, _ in taken) < 24


@pytest.fixture
def prometheus(site: Site) -> Iterator[Prometheus]:
    """Scrapes the page of ``notify web`` every second; its alerts are as impatient."""
    rules = site.top / "alerts.yml"
    text = re.sub(r"for: \d+m", "for: 2s", RULES.read_text()).replace("> 600", "> 5")
    rules.write_text(text)
    with pages(site) as page:
        server = Prometheus(site.top, f"127.0.0.1:{page.port}", rules)
        try:
            yield server
        finally:
            server.stop()


@pytest.mark.timeout(240)
def test_a_burst_and_an_outage_as_prometheus_sees_them(
    site: Site, own_redis: RedisServer, prometheus: Prometheus
) -> None:
    site.configure(f"BROKERS = {{'local': {own_redis.url!r}}}\n")
    site.start()
    burst, waiting = 2000, 50

    def upload(first: int, number: int) -> None:
        for one in range(first, first + number):
            (site.data / f"{one}.csv").write_bytes(b"x")

    def seen(metric: str, value: float) -> None:
        query = f"sum({metric})"
        wait_until(lambda: prometheus.value(query) == value, 60, f"{query} is {value}", 0.2)

    def queued() -> int:
        with own_redis.client() as client:
            return int(client.llen("celery"))

    upload(0, burst)
    seen("watchman_sent_total", burst)
    seen("watchman_arrivals_total", burst)
    seen("watchman_latency_seconds_count", burst)
    assert queued() == burst
    # One may have begun meanwhile: what is scraped within a second is missed on a busy machine.
    wait_until(lambda: prometheus.firing() == set(), 60, "no alerts", 0.2)

    own_redis.stop()
    upload(burst, waiting)
    expected = {"WatchmanBrokerDown", "WatchmanTasksWait"}
    wait_until(lambda: prometheus.firing() == expected, 60, "the alerts", 0.2)
    seen("watchman_deliveries", waiting)
    seen("watchman_sent_total", burst)

    own_redis.start()
    wait_until(lambda: prometheus.firing() == set(), 90, "the alerts are over", 0.2)
    seen("watchman_sent_total", burst + waiting)
    seen("watchman_deliveries", 0)
    assert queued() == burst + waiting
    site.stop()
