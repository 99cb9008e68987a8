"""notify config: the values in effect, where each comes from, and no secret."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemon.site import Site
from watchman.config.loading import SETTINGS

SECRETS = ("sesame", "hunter2", "Tr0ub4dor", "hush")
MORE = """
import logging.handlers
BROKERS['far'] = ['amqp://u:sesame@one//', 'amqp://u:sesame@two//']
BROKERS['other'] = {'url': 'redis://:sesame@host/0', 'password': 'hunter2', 'health_check': 5}
PATTERNS.append(('*/x', {'broker': 'far', 'task': 't', 'kwargs': {'api_token': 'Tr0ub4dor'}}))
WATCHES[0]['exclude_filter'] = lambda path: path.endswith('/old')
LOGGING = {'version': 1, 'handlers': {'mail': {
    'class': 'logging.handlers.SMTPHandler', 'mailhost': 'localhost', 'fromaddr': 'a',
    'toaddrs': 'b', 'subject': 's', 'credentials': ('me', 'hush'),
}}}
HISTORY_DAYS = 7
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, MORE)
    (tmp_path / "celeryconfig.py").write_text(
        "result_backend = 'redis://:sesame@host/1'\ntask_default_queue = 'mine'\n"
    )
    yield found
    found.kill()


def told(site: Site) -> dict[str, tuple[Any, str]]:
    done = site.notify("config", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return {one["name"]: (one["value"], one["origin"]) for one in json.loads(done.stdout)}


def test_every_setting_has_its_value_and_where_it_comes_from(site: Site) -> None:
    found = told(site)
    ours = str(site.top / "config.py")
    assert set(found) >= set(SETTINGS) - {"LOG_FORMAT"}
    given = {"BROKERS", "WATCHES", "PATTERNS", "LOGGING", "HISTORY_DAYS"}
    assert {name for name, (_, origin) in found.items() if origin == ours} == given
    assert found["HISTORY_DAYS"][0] == 7
    assert found["STATE_DIR"] == (str(site.top / "var"), "default")
    assert found["task_default_queue"] == ("mine", str(site.top / "celeryconfig.py"))
    (watch,) = found["WATCHES"][0]
    assert watch["path"] == str(site.data)
    assert (watch["rec"], watch["existing"], watch["kind"]) == (True, "new", "files")
    assert watch["exclude_filter"].endswith("<lambda>")
    assert found["PATTERNS"][0][0] == [
        f"{site.data}/*.csv", {"broker": "local", "task": "tasks.load"},
    ]  # fmt: skip


def test_no_secret_is_shown(site: Site) -> None:
    done = site.notify("config")
    assert (done.returncode, done.stderr) == (0, ""), done
    both = done.stdout + site.notify("config", "--json").stdout
    assert [one for one in SECRETS if one in both] == []
    brokers = told(site)["BROKERS"][0]
    assert brokers["far"] == {"url": ["amqp://**@one//", "amqp://**@two//"]}
    assert brokers["other"] == {"url": "redis://**@host/0", "password": "**", "health_check": 5}
    assert told(site)["result_backend"][0] == "redis://**@host/1"


def test_where_messages_go_is_no_secret(site: Site) -> None:
    options = "{'exchange': 'x', 'routing_key': 'a.b'}"
    site.configure(
        f"PATTERNS = [('*/x', {{'broker': 'local', 'task': 't', 'options': {options}}})]\n"
    )
    (site.top / "celeryconfig.py").write_text("task_default_routing_key = 'a.c'\n")
    found = told(site)
    assert found["PATTERNS"][0][0][1]["options"] == {"exchange": "x", "routing_key": "a.b"}
    assert found["task_default_routing_key"][0] == "a.c"


def test_as_text_it_is_python_in_parts_by_origin(site: Site) -> None:
    text = site.notify("config").stdout
    tree = ast.parse(text)
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert values["HISTORY_DAYS"] == 7
    assert {name: value for name, (value, _) in told(site).items()} == values
    parts = [line for line in text.splitlines() if line.startswith("# ")]
    assert parts == [
        f"# {site.top}/config.py", f"# {site.top}/celeryconfig.py", "# default",
    ]  # fmt: skip


def test_a_mistake_is_told_as_everywhere(site: Site) -> None:
    site.configure("HISTORY_DAYS = 'x'\n")
    done = site.notify("config")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("notify: HISTORY_DAYS: is 'x'; write")
