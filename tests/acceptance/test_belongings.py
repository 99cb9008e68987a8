"""What a configuration connects and imports belongs to it: a reload leaves nothing behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests import embedded
from tests.acceptance.started import Daemon
from tests.waiting import wait_until

CONFIG = """\
import os
from celery.signals import before_task_publish
from watchman import signals
import helper_site

BROKERS = {{'b': {{'url': 'filesystem://'}}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}},
           ({upload!r}, 4095, 'mysite.events.Processor')]
PATTERNS = [({upload!r} + '/*', {{'broker': 'b', 'task': 't'}})]
LOGGING = {{
    'version': 1,
    'formatters': {{'f': {{'format': '[%(levelname)s] %(name)s: %(message)s'}}}},
    'handlers': {{
        'h': {{'class': 'logging.StreamHandler', 'formatter': 'f'}},
        'own': {{'class': 'logging.FileHandler', 'filename': {own!r}}},
    }},
    'root': {{'level': 'INFO', 'handlers': ['h']}},
    'loggers': {{'watchman.notify': {{'handlers': ['own']}}}},
}}

def note(what):
    with open({notes!r}, 'a') as file:
        file.write(what + '\\n')

@signals.arrived.connect
def arrived(sender, **_):
    note('arrived {number} ' + helper_site.WORD)

@before_task_publish.connect
def publishing(**_):
    note('publishing {number}')
"""
PROCESSOR = "import pyinotify\nclass Processor(pyinotify.ProcessEvent):\n    pass\n"


class Place:
    def __init__(self, daemon: Callable[..., Daemon], tmp_path: Path, upload: Path) -> None:
        self.upload = upload
        self.notes = tmp_path / "notes"
        self.own = tmp_path / "own.log"
        self.notes.touch()
        self.daemon = daemon("")
        directory = self.daemon.config.parent
        (directory / "mysite").mkdir()  # a package without __init__.py
        (directory / "mysite/events.py").write_text(PROCESSOR)
        self.helper = directory / "helper_site.py"
        self.configure(0)

    def configure(self, number: int, without: str = "") -> None:
        """Write the configuration with that number, without what stands from ``without`` on."""
        self.helper.write_text(f"WORD = 'word{number}'\n")
        text = CONFIG.format(
            upload=str(self.upload), notes=str(self.notes), own=str(self.own), number=number
        )
        self.daemon.config.write_text(text[: text.index(without)] if without else text)

    def reload(self) -> None:
        before = self.daemon.count(": Watching ")
        self.daemon.send(signal.SIGHUP)
        self.daemon.wait_for(": Watching ", before + 1)

    def uploaded(self, name: str) -> list[str]:
        """Upload a file; return what was noted of it: what is noted of the next one comes after."""
        before = len(self.noted())
        for number in range(2):
            sent = self.daemon.count("Sending task")
            (self.upload / f"{name}{number}").write_text("x")
            self.daemon.wait_for("Sending task", sent + 1)
        wait_until(
            lambda: sum(line.startswith("arrived") for line in self.noted()[before:]) >= 2,
            20,
            "both arrivals are noted",
        )
        return self.noted()[before:]

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


def test_reloads_leave_nothing_behind(
    daemon: Callable[..., Daemon], tmp_path: Path, upload: Path
) -> None:
    place = Place(daemon, tmp_path, upload)
    with place.daemon:
        assert set(place.uploaded("a")) == {"arrived 0 word0", "publishing 0"}
        for number in (1, 2, 3):
            place.configure(number)
            place.reload()
        noted = place.uploaded("b")
        assert noted.count("arrived 3 word3") == 2
        assert set(noted) == {"arrived 3 word3", "publishing 3"}
        # A mistake changes nothing, whatever the file did before it.
        place.daemon.config.write_text(place.daemon.config.read_text() + "1 / 0\n")
        place.daemon.send(signal.SIGHUP)
        place.daemon.wait_for("Not reloaded: config.py, line ")
        noted = place.uploaded("c")
        assert (noted.count("arrived 3 word3"), set(noted)) == (
            2,
            {"arrived 3 word3", "publishing 3"},
        )
        # What was deleted does not go on.
        place.configure(4, without="@before_task_publish")
        place.reload()
        assert place.uploaded("d") == ["arrived 4 word4"] * 2


ROUTER = """
class MyRouter:
    def route_for_task(self, name, *_, **__):
        return {'queue': 'fast'}
"""


def test_a_router_beside_the_configuration_routes(
    daemon: Callable[..., Daemon], upload: Path, storage: Path
) -> None:
    notify = daemon(
        f"BROKERS = {{'b': 'filesystem://'}}\nWATCHES = [{{'path': {str(upload)!r}}}]\n"
        f"PATTERNS = [({str(upload)!r} + '/*', {{'broker': 'b', 'task': 't'}})]\n"
        f"MOVES = {{{str(upload)!r}: {str(storage)!r}}}\n"
    )
    directory = notify.config.parent
    (directory / "routers_site.py").write_text(ROUTER)
    (directory / "celeryconfig.py").write_text("CELERY_ROUTES = ('routers_site.MyRouter',)\n")
    with notify:
        (upload / "a.csv").write_text("x")
        sent = wait_until(lambda: embedded.messages(directory / "var"), 20, "a task")
    [message] = sent
    properties = json.loads(message.read_text())["properties"]
    assert properties["delivery_info"]["routing_key"] == "fast"
