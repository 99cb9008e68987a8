"""The two systems before this one: their configurations as they stand, and what users typed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.started import MOVING, NOTIFIED, SENDING, Daemon, command, environment
from tests.acceptance.workers import Bench, queued
from tests.servers.rabbitmq import RabbitServer
from tests.unit.config.test_originals import CELERY, SECOND_SYSTEM
from tests.waiting import wait_until

# config.py as the first system's example has it: logging, then pyinotify, then what to send.
FIRST_SYSTEM = """\
LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'formatters': {
        'standard': {
            'format': '%(asctime)s [%(levelname)s] %(name)s: %(message)s',
        },
    },
    'handlers': {
        'console': {
            'class': 'logging.StreamHandler',
            'level': 'DEBUG',
            'formatter': 'standard',
        },
        'file': {
            'class': 'logging.handlers.RotatingFileHandler',
            'filename': '$D/watchman.log',
            'maxBytes': 10485760,
            'backupCount': 5,
            'level': 'INFO',
            'formatter': 'standard',
        },
    },
    'loggers': {
        'watchman': {
            'handlers': ['console', 'file'],
            'level': 'INFO',
            'propagate': False,
        },
    },
}

ProFTPD = True

BROKERS = {
    'lizard': '$RABBIT',
    '3di': '$REDIS',
}

WATCHES = [
    {'path': '$D/ftp', 'rec': True, 'auto_add': True},
]

PATTERNS = {
    ('$D/ftp/*.csv', {'broker': 'lizard', 'task': 'lizard_task'}),
    ('$D/ftp/*.tif', {'broker': 'lizard', 'task': 'lizard_nxt.tasks.import_raster_task'}),
    ('$D/ftp/*.nc', {'broker': '3di', 'task': '3di_task'}),
}

MOVES = {
    '$D/ftp': '$D/isilon/foo/bar',
}
"""


def test_the_first_system_s_configuration(
    tmp_path: Path,
    daemon: Callable[..., Daemon],
    rabbit_server: RabbitServer,
    on_rabbit: Bench,
    redis_url: str,
) -> None:
    rabbit_server.delete("single_worker")
    upload, storage = tmp_path / "ftp", tmp_path / "isilon/foo/bar"
    upload.mkdir()
    storage.mkdir(parents=True)
    text = FIRST_SYSTEM.replace("$D", str(tmp_path)).replace("$REDIS", redis_url)
    notify = daemon(text.replace("$RABBIT", rabbit_server.url))
    notify.config.with_name("celeryconfig.py").write_text(CELERY)
    names = ("username/lizard/events.csv", "username/dem.tif", "username/grid.nc")
    with notify:
        (upload / "username/lizard").mkdir(parents=True)
        for number, name in enumerate(names, 1):
            (upload / name).touch()
            notify.wait_for(SENDING, number)
        on_rabbit.wait_for([f"{storage}/{names[0]}"])
        wait_until(lambda: rabbit_server.count("single_worker") == 1, what="the routed task")
        [task] = wait_until(lambda: queued(redis_url), what="the task on Redis")
        notify.stop()
    assert task.path == f"{storage}/{names[2]}"
    assert [(storage / name).exists() for name in names] == [True] * 3
    assert [(upload / name).exists() for name in names] == [False] * 3
    tasks = ("lizard_task", "lizard_nxt.tasks.import_raster_task", "3di_task")
    expected = [
        line
        for name, sent in zip(names, tasks, strict=True)
        for line in (
            f"{NOTIFIED}{upload}/{name}",
            f"{MOVING}{upload}/{name} to {storage}/{name}",
            f"{SENDING}{sent}",
        )
    ]
    form = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] watchman\.notify(: .*)")
    for log in (notify.log, tmp_path / "watchman.log"):
        lines = [match[1] for line in log.read_text().splitlines() if (match := form.match(line))]
        assert lines[: len(expected)] == expected
    rabbit_server.delete("single_worker")


# dicomdb/apps/watcher/event_processors.py, which writes into the watcher's log and sends the task.
EVENT_PROCESSORS = """\
import os

import pyinotify

from dicomdb.apps.main.tasks import import_dicomdir


class DicomCelery(pyinotify.ProcessEvent):
    def process_IN_CREATE(self, event):
        print('LOG 1|CREATE EVENT: %s' % event.pathname)
        judge(event)

    def process_IN_MOVED_TO(self, event):
        print('LOG 1|MOVEDTO EVENT: %s' % event.pathname)
        judge(event)


def judge(event):
    if not event.dir:
        return
    if os.path.splitext(event.pathname)[1].startswith('.tmp'):
        print('LOG 2|NOTFINISHED: %s' % event.pathname)
        return
    print('LOG 2|FINISHED: %s' % event.pathname)
    if not event.name.startswith('test'):
        import_dicomdir.apply_async(kwargs={'dicom_dir': event.pathname})
"""
TASKS = """\
from celery import Celery

app = Celery('dicomdb', broker='$REDIS')


@app.task(name='import_dicomdir')
def import_dicomdir(dicom_dir):
    pass
"""
PID_FILE = "INOTIFIER_DAEMON_PID_FILE = os.path.join(BASE_DIR,'watcher.pid')\n"
LINES = """\
LOG 1|CREATE EVENT: /data/test_finished
LOG 2|FINISHED: /data/test_finished
LOG 1|CREATE EVENT: /data/test_notfinished.tmp1234
LOG 2|NOTFINISHED: /data/test_notfinished.tmp1234
LOG 1|MOVEDTO EVENT: /data/test_nowfinished
LOG 2|FINISHED: /data/test_nowfinished
"""


class Project:
    """A Django project in ``/code``, whose settings and modules are where they always were."""

    def __init__(self, root: Path, redis_url: str) -> None:
        self.root = root
        self.app = root / "code/dicomdb"
        (root / "data").mkdir()
        (root / "tmp").mkdir()
        for package in ("settings", "apps", "apps/watcher", "apps/main"):
            (self.app / package).mkdir(parents=True)
            (self.app / package / "__init__.py").touch()
        (self.app / "__init__.py").touch()
        (self.app / "apps/watcher/event_processors.py").write_text(EVENT_PROCESSORS)
        (self.app / "apps/main/tasks.py").write_text(TASKS.replace("$REDIS", redis_url))
        settings = f"import os\n{SECOND_SYSTEM}{PID_FILE}".replace("$D/ftp", f"{root}/data")
        (self.app / "settings/watcher.py").write_text(settings)

    def type(self, line: str) -> tuple[int, str]:
        """Type a command in ``/code``; return its status, and all its output as if root were /."""
        name, *arguments = line.split()
        if name == "notify":
            argv = command("--config", "dicomdb/settings/watcher.py", *arguments)
        else:
            argv = line.replace(" /data/", f" {self.root}/data/").split()
        done = subprocess.run(
            argv,
            cwd=self.root / "code",
            env=environment(TMPDIR=str(self.root / "tmp")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.replace(str(self.root), "")

    def shown(self) -> str:
        """Return what the processor has written into the output file."""
        text = (self.app / "logs/watcher.out").read_text().replace(str(self.root), "")
        return "".join(line for line in text.splitlines(True) if line.startswith("LOG "))


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Iterator[Project]:
    made = Project(tmp_path, redis_url)
    yield made
    made.type("notify stop --timeout 5 --kill")


def test_the_second_system_s_walk_through(project: Project, redis_url: str) -> None:
    status, printed = project.type("notify start")
    assert status == 0, printed
    adding, watching = printed.splitlines()
    handler = "dicomdb.apps.watcher.event_processors.DicomCelery"
    assert adding == f"DEBUG Adding watch on /data, processed by {handler}"
    [pid] = re.findall(r"^Watching with process id (\d+); output in (?:.*)$", watching)
    assert watching.endswith("; output in /code/dicomdb/logs/watcher.out")
    assert project.type("cat dicomdb/watcher.pid") == (0, f"{pid}\n")
    assert project.type("ls dicomdb/logs") == (0, "watcher.err\nwatcher.out\n")
    assert project.type("notify status")[1].startswith(f"watchman is active: process {pid}, ")

    typed = (
        "mkdir /data/test_finished",
        "mkdir /data/test_notfinished.tmp1234",
        "mv /data/test_notfinished.tmp1234 /data/test_nowfinished",
    )
    lines = LINES.splitlines(keepends=True)
    for number, line in enumerate(typed, 1):
        assert project.type(line) == (0, "")
        expected = "".join(lines[: 2 * number])
        wait_until(lambda: project.shown() == expected, what=expected)  # noqa: B023 — at once

    # Out of the testing mode: the processor sends its own task.
    assert project.type("mkdir /data/series.tmp1") == (0, "")
    assert project.type("mv /data/series.tmp1 /data/series") == (0, "")
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.llen("celery") == 1, what="the task")

    assert project.type("notify stop") == (0, "Watching has been stopped.\n")
    assert project.type("ls dicomdb/logs") == (0, "watcher.err\nwatcher.out\n")
    status, printed = project.type("notify stop")
    assert (status, printed) == (1, "notify: No pid file exists at /code/dicomdb/watcher.pid.\n")
    assert project.type("notify status")[1].startswith("watchman is inactive; last seen ")


def test_the_second_system_s_files_go_elsewhere_where_they_cannot_be(project: Project) -> None:
    (project.app / "logs").touch()
    status, printed = project.type("notify start")
    assert status == 0, printed
    assert re.search(r"cannot be written: .*; using /tmp/\S+/watcher\.out until ", printed), printed
    assert re.search(r"output in /tmp/\S+/watcher\.out$", printed), printed
    assert project.type("notify stop") == (0, "Watching has been stopped.\n")
