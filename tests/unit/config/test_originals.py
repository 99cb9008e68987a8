"""The configurations that watchman's users and those of its sibling have: they load unchanged.

Only the directories differ, because a watched directory must exist.
"""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from watchman.model import Route, WatchKind
from watchman.router import Router

BROKERS_AND_WATCHES = """
ProFTPD = True

BROKERS = {
    'lizard': 'amqp://guest:guest@rabbitmq:5672//',
    '3di': 'redis://redis:6379/0',
}

WATCHES = [
    {'path': '$D/ftp', 'rec': True, 'auto_add': True},
]
"""

BY_EXTENSION = """
PATTERNS = {
    ('$D/ftp/*.csv', {'broker': 'lizard', 'task': 'lizard_task'}),
    ('$D/ftp/*.nc', {'broker': '3di', 'task': '3di_task'}),
}
"""

BY_ORDER = """
PATTERNS = OrderedDict([
    ('$D/ftp/*/events/*.csv', {'broker': 'lizard', 'task': 'process_events'}),
    ('$D/ftp/*.csv', {'broker': 'lizard', 'task': 'process_timeseries'}),
])
"""

MOVES = """
MOVES = {
    '$D/ftp': '$D/isilon/foo/bar',
}
"""

CELERY = """
CELERYD_HIJACK_ROOT_LOGGER = False

CELERY_ROUTES = {
    'lizard_nxt.tasks.import_raster_task': {'queue': 'single_worker'},
}
"""

SECOND_SYSTEM = """
BASE_DIR = os.path.abspath(os.path.join(os.path.dirname( __file__ ), '..'))
LOG_DIR = os.path.join(BASE_DIR,'logs')
INOTIFIER_DAEMON_STDOUT = os.path.join(LOG_DIR,'watcher.out')
INOTIFIER_DAEMON_STDERR = os.path.join(LOG_DIR,'watcher.err')

def generate_watch_paths():
    '''Don't import pyinotify directly into settings
    '''
    import pyinotify
    return (
       (  os.path.join('$D/ftp'),
          pyinotify.ALL_EVENTS,
         'dicomdb.apps.watcher.event_processors.DicomCelery',
       ),
    )

INOTIFIER_WATCH_PATHS = generate_watch_paths()
"""

PROCESSORS = """
import pyinotify

class DicomCelery(pyinotify.ProcessEvent):
    def process_IN_CREATE(self, event):
        print(event.pathname)
"""


def test_by_extension(site: Site) -> None:
    loaded = site.load(BROKERS_AND_WATCHES + BY_EXTENSION)
    assert loaded.proftpd is True
    assert loaded.brokers["lizard"].urls == ("amqp://guest:guest@rabbitmq:5672//",)
    assert loaded.brokers["3di"].urls == ("redis://redis:6379/0",)
    [watch] = loaded.watches
    assert (watch.path, watch.rec, watch.auto_add) == (str(site.ftp), True, True)
    assert loaded.patterns == (
        (f"{site.ftp}/*.csv", Route("lizard", "lizard_task")),
        (f"{site.ftp}/*.nc", Route("3di", "3di_task")),
    )
    assert loaded.warnings == ()


@pytest.mark.parametrize("imported", ["", "from collections import OrderedDict\n"])
def test_the_order_matters(site: Site, imported: str) -> None:
    loaded = site.load(imported + BROKERS_AND_WATCHES + BY_ORDER)
    router = Router(loaded.patterns)
    for path, task in (
        ("user/events/a.csv", "process_events"),
        ("user/a.csv", "process_timeseries"),
    ):
        assert router.route(f"{site.ftp}/{path}") == Route("lizard", task)


def test_moves(site: Site) -> None:
    (site.root / "isilon/foo/bar").mkdir(parents=True)
    loaded = site.load(BROKERS_AND_WATCHES + BY_EXTENSION + MOVES)
    router = Router(loaded.patterns, loaded.moves)
    assert (
        router.destination(f"{site.ftp}/username/lizard/events.csv")
        == f"{site.root}/isilon/foo/bar/username/lizard/events.csv"
    )


def test_celery_s_old_names(site: Site) -> None:
    site.write(CELERY, "celeryconfig.py")
    loaded = site.load(BROKERS_AND_WATCHES + BY_EXTENSION)
    assert loaded.celery == {
        "CELERYD_HIJACK_ROOT_LOGGER": False,
        "CELERY_ROUTES": {"lizard_nxt.tasks.import_raster_task": {"queue": "single_worker"}},
    }


def test_the_second_system(site: Site) -> None:
    pyinotify = pytest.importorskip("pyinotify")
    package = site.root / "dicomdb/apps/watcher"
    package.mkdir(parents=True)
    for directory in (site.root / "dicomdb", site.root / "dicomdb/apps", package):
        (directory / "__init__.py").touch()
    site.write(PROCESSORS, "dicomdb/apps/watcher/event_processors.py")
    loaded = site.load(SECOND_SYSTEM)
    [watch] = loaded.watches
    assert (watch.path, watch.mask) == (str(site.ftp), pyinotify.ALL_EVENTS)
    assert watch.processor_name == "dicomdb.apps.watcher.event_processors.DicomCelery"
    assert issubclass(watch.processor, pyinotify.ProcessEvent)
    assert loaded.log_dir == str(site.root.parent / "logs")
    assert loaded.warnings == ("INOTIFIER_WATCH_PATHS: is the old name of WATCHES; write WATCHES",)
    assert (loaded.out_file, loaded.err_file) == (
        f"{site.root.parent}/logs/watcher.out",
        f"{site.root.parent}/logs/watcher.err",
    )


def test_the_second_system_s_pid_file(site: Site) -> None:
    text = "WATCHES = [{'path': '$D/ftp'}]\nPATTERNS = []\nINOTIFIER_DAEMON_PID_FILE = 'w.pid'\n"
    loaded = site.load(text)
    assert loaded.pid_file == f"{site.root}/w.pid"
    assert loaded.warnings == (
        "INOTIFIER_DAEMON_PID_FILE: is the old name of PID_FILE; write PID_FILE",
    )
    assert site.load(text + "PID_FILE = 'x.pid'").pid_file == f"{site.root}/x.pid"
    assert site.problems(text.replace("'w.pid'", "'$D/ftp/w.pid'"))


def test_several_watch_paths_of_the_second_system(site: Site) -> None:
    pyinotify = pytest.importorskip("pyinotify")
    for name in ("a", "b"):
        (site.root / name).mkdir()
    loaded = site.load(
        "import pyinotify\n"
        "INOTIFIER_WATCH_PATHS = (\n"
        "    ('$D/a', pyinotify.IN_CREATE, 'watchman.processors.AllEventsSignaler'),\n"
        "    (os.path.join('$D', 'b'), pyinotify.ALL_EVENTS,\n"
        "     'watchman.processors.FinishedDirectories'),\n"
        ")\n"
    )
    assert [(watch.path, watch.mask) for watch in loaded.watches] == [
        (f"{site.root}/a", pyinotify.IN_CREATE),
        (f"{site.root}/b", pyinotify.ALL_EVENTS),
    ]
    assert [watch.kind for watch in loaded.watches] == [WatchKind.FILES, WatchKind.DIRECTORIES]


def test_a_list_of_urls_is_for_failover_and_moves_may_be_empty(site: Site) -> None:
    loaded = site.load(
        "BROKERS = {'lizard': ['amqp://guest:guest@one:5672//', 'amqp://guest:guest@two:5672//']}\n"
        "WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]\n"
        + BY_EXTENSION.replace("3di'", "lizard'")
        + "MOVES = {}\n"
    )
    [lizard] = loaded.brokers.values()
    assert lizard.urls == ("amqp://guest:guest@one:5672//", "amqp://guest:guest@two:5672//")
    assert loaded.moves == ()
    assert loaded.warnings == ()


@pytest.mark.parametrize("name", ["BROKER_URL", "broker_url"])
def test_a_broker_url_in_celeryconfig_is_said_to_be_ignored(site: Site, name: str) -> None:
    site.write(f"{name} = 'amqp://elsewhere//'\n", "celeryconfig.py")
    loaded = site.load(BROKERS_AND_WATCHES + BY_EXTENSION)
    assert loaded.celery == {}
    assert loaded.warnings == (
        f"celeryconfig.py: {name} is ignored; the brokers are those of BROKERS in config.py",
    )


def test_celery_s_new_names(site: Site) -> None:
    site.write(
        "worker_hijack_root_logger = False\n"
        "task_routes = {'lizard_nxt.tasks.import_raster_task': {'queue': 'single_worker'}}\n",
        "celeryconfig.py",
    )
    loaded = site.load(BROKERS_AND_WATCHES + BY_EXTENSION)
    assert set(loaded.celery) == {"worker_hijack_root_logger", "task_routes"}
    assert loaded.warnings == ()
