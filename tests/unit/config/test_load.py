"""A good configuration becomes exactly the records that it says."""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.checkout import ROOT
from tests.unit.config.conftest import Site
from watchman import config, processors
from watchman.errors import ConfigError
from watchman.model import Broker, Existing, Method, Route, TransferLog, Watch, WatchKind

WATCHES = "WATCHES = [{'path': '$D/ftp'}]\n"
BROKERS = "BROKERS = {'a': 'amqp://host//', 'b': 'redis://host/0'}\n"
ROUTE = "{'broker': 'a', 'task': 't'}"


def test_defaults(site: Site) -> None:
    loaded = site.load(WATCHES)
    assert loaded.path == str(site.root / "config.py")
    assert loaded.watches == (Watch(str(site.ftp)),)
    assert (loaded.brokers, loaded.patterns, loaded.moves) == ({}, (), ())
    assert (loaded.dry_run, loaded.ignore) == ((), config.DEFAULT_IGNORE)
    assert loaded.state_dir == str(site.root / "var")
    assert loaded.pid_file == str(site.root / "var/watchman.pid")
    assert loaded.log_dir == str(site.root / "var/log")
    assert loaded.logging is config.DEFAULT_LOGGING
    assert (loaded.proftpd, loaded.celery, loaded.retention) == (False, {}, 30 * 86400.0)
    assert loaded.warnings == (
        "PATTERNS: is not set, so no task is sent; "
        "PATTERNS = [('/srv/ftp/*.csv', {'broker': 'name', 'task': 'my_task'})]",
    )


class TestWhichFile:
    def test_the_argument_wins(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two = site.write(WATCHES, "one.py"), site.write(WATCHES, "two.py")
        monkeypatch.chdir(site.root)
        environ = {"WATCHMAN_CONFIG": str(two)}
        assert config.load("one.py", environ=environ).path == str(one)
        assert config.load(environ=environ).path == str(two)

    def test_config_py_here(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        path = site.write(WATCHES)
        monkeypatch.chdir(site.root)
        assert config.load(environ={}).path == str(path)
        assert config.load(environ={"WATCHMAN_CONFIG": ""}).path == str(path)


class TestPython:
    def test_file_and_neighbours(self, site: Site) -> None:
        site.write("FOLDER = 'ftp'", "neighbour.py")
        loaded = site.load(
            "import os\nfrom neighbour import FOLDER\n"
            "WATCHES = [{'path': os.path.join(os.path.dirname(__file__), FOLDER)}]"
        )
        assert loaded.watches[0].path == str(site.ftp)
        # Still found, but after whatever is installed.
        assert sys.path.index(str(site.root)) == len(sys.path) - 1

    def test_a_reload_sees_a_changed_neighbour(self, site: Site) -> None:
        (site.root / "other").mkdir()
        text = "from neighbour import FOLDER\nWATCHES = [{'path': FOLDER}]"
        site.write("FOLDER = 'ftp'", "neighbour.py")
        assert site.load(text).watches[0].path == str(site.ftp)
        site.write("FOLDER = 'other'", "neighbour.py")
        assert site.load(text).watches[0].path == str(site.root / "other")

    def test_modules_from_elsewhere_are_kept(self, site: Site) -> None:
        sys.modules.pop("this_is_nowhere", None)
        site.write("", "this_is_nowhere.py")
        site.load("import colorsys, this_is_nowhere\n" + WATCHES)
        first = sys.modules["colorsys"]
        site.load("import colorsys\n" + WATCHES)
        assert sys.modules["colorsys"] is first
        assert "this_is_nowhere" not in sys.modules

    def test_byte_order_mark_and_coding(self, site: Site) -> None:
        path = site.root / "config.py"
        (site.root / "fé").mkdir()
        text = f"WATCHES = [{{'path': '{site.root}/fé'}}]"
        for content in (text.encode("utf-8-sig"), b"# coding: latin-1\n" + text.encode("latin-1")):
            path.write_bytes(content)
            assert config.load(str(path), environ={}).watches[0].path == f"{site.root}/fé"

    def test_byte_code_is_written_again_afterwards(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "dont_write_bytecode", False)
        site.write("", "neighbour.py")
        site.load("import neighbour\n" + WATCHES)
        assert sys.dont_write_bytecode is False
        assert not (site.root / "__pycache__").exists()


class TestNames:
    @pytest.mark.parametrize(
        "text",
        [
            "BASE_DIR = FTP_ROOT = DATA_DIR = HOST = LOGGER = '/x'",
            "BROKER = 'amqp://host//'\nBROKERS = {'a': BROKER}",
            "def watches(): return 1\nwatches()",
            "STAGE_DIR = '$D/store'\nMOVES = {'$D/ftp': STAGE_DIR}",
            "import logging\nfrom collections import OrderedDict as Pattern",
            "_WATCHS = 1",
            "for PATTERN in (): print(PATTERN)",
        ],
    )
    def test_helpers_are_left_alone(self, site: Site, text: str) -> None:
        site.load(text + "\n" + WATCHES + "PATTERNS = []\n")

    def test_imported_lookalikes_beside_the_setting(self, site: Site) -> None:
        site.write("BROKER = 'amqp://host//'\nBROKERS = {'a': BROKER}", "common.py")
        assert site.load("from common import *\n" + WATCHES).brokers.keys() == {"a"}

    def test_settings_of_others_are_named(self, site: Site) -> None:
        loaded = site.load(
            WATCHES + "PATTERNS = []\nBROKER_URL = 'amqp://u:sesame@h//'\nCELERY_ROUTES = {}\n"
            "INOTIFIER_DAEMON_UMASK = '/x'\n"
        )
        assert loaded.warnings == (
            "BROKER_URL: is ignored; write the brokers' URLs in BROKERS",
            "CELERY_ROUTES: is ignored here; Celery's settings belong in celeryconfig.py",
            "INOTIFIER_DAEMON_UMASK: is ignored; of that kind there are INOTIFIER_WATCH_PATHS, "
            "INOTIFIER_DAEMON_PID_FILE, INOTIFIER_DAEMON_STDOUT, INOTIFIER_DAEMON_STDERR",
        )


@pytest.mark.parametrize(
    ("kwargs", "warned"),
    [
        ("{'priority': 5, 'expires': 60}", "'priority', 'expires'"),
        ("{'queue': 'q'}", "'queue'"),
        ("{'priority': 5, 'model': 'rain'}", ""),
        ("{}", ""),
    ],
)
def test_kwargs_that_look_like_options(site: Site, kwargs: str, warned: str) -> None:
    route = f"{{'broker': 'a', 'task': 't', 'kwargs': {kwargs}}}"
    loaded = site.load(WATCHES + BROKERS + f"PATTERNS = [('$D/ftp/*', {route})]")
    expected = (
        f"PATTERNS['{site.ftp}/*']: 'kwargs' are arguments of the task, also {warned}; "
        "write 'options' instead of 'kwargs' if options of the message are meant"
    )
    assert loaded.warnings == ((expected,) if warned else ())


class TestBrokers:
    def test_the_three_forms(self, site: Site) -> None:
        loaded = site.load(
            WATCHES + "BROKERS = {'3di': 'redis://h/0', 'b': ['amqp://x;', ';amqp://y'],"
            " 'c': {'url': 'redis://h/1', 'visibility_timeout': 5},"
            " 'd': {'url': ('amqp://x',), 'transport_options': {'max_retries': 1}},"
            " 'e': 'amqp://x;amqp://y', 'f': 'amqp://x;AMQPS://y;pyamqp://z',"
            " 'g': ['redis://x', 'rediss://y', 'redis+socket:///z']}"
        )
        assert list(loaded.brokers.values()) == [
            Broker("3di", ("redis://h/0",)),
            Broker("b", ("amqp://x", "amqp://y")),
            Broker("c", ("redis://h/1",), {"visibility_timeout": 5}),
            Broker("d", ("amqp://x",), {"max_retries": 1}),
            Broker("e", ("amqp://x", "amqp://y")),
            Broker("f", ("amqp://x", "AMQPS://y", "pyamqp://z")),
            Broker("g", ("redis://x", "rediss://y", "redis+socket:///z")),
        ]

    def test_each_url_is_checked(self, site: Site) -> None:
        asked: list[str] = []

        def check(url: str) -> str | None:
            asked.append(url)
            return "not today" if url.endswith("y") else None

        with pytest.raises(ConfigError, match=r"BROKERS\['b'\]: not today"):
            site.load(WATCHES + "BROKERS = {'b': ['amqp://x', 'amqp://y']}", check)
        assert asked == ["amqp://x", "amqp://y"]

    def test_a_reason_that_ends_with_a_remedy_gets_no_second_one(self, site: Site) -> None:
        with pytest.raises(ConfigError) as caught:
            site.load(WATCHES + BROKERS, lambda url: "redis is missing; install it")
        assert caught.value.problems[0] == "BROKERS['a']: redis is missing; install it"


class TestWatches:
    def test_every_key(self, site: Site) -> None:
        loaded = site.load(
            "WATCHES = ({'path': '$D/ftp/', 'rec': 1, 'auto_add': True, 'mask': 136,"
            " 'quiet': False, 'settle': 2, 'existing': 'all', 'method': 'poll', 'interval': 3,"
            " 'rescan': 0, 'kind': 'directories', 'unfinished': '*.new', 'marker': 'READY',"
            " 'do_glob': False, 'exclude_filter': None, 'proc_fun': None},)"
        )
        assert loaded.watches == (
            Watch(
                str(site.ftp), rec=True, auto_add=True, mask=136, quiet=False, settle=2.0,
                existing=Existing.ALL, method=Method.POLL, interval=3.0, rescan=0.0,
                kind=WatchKind.DIRECTORIES,
                unfinished=("*.new",), marker="READY",
            ),
        )  # fmt: skip

    def test_quiet_is_said_to_do_nothing(self, site: Site) -> None:
        loaded = site.load("WATCHES = [{'path': '$D/ftp', 'quiet': False}]")
        assert (
            "WATCHES[0]: 'quiet' does nothing; what cannot be watched is told and tried again "
            "either way; leave it out"
        ) in loaded.warnings
        loaded = site.load("WATCHES = [{'path': '$D/ftp', 'quiet': True}]")
        assert not any("quiet" in warning for warning in loaded.warnings)

    @pytest.mark.parametrize(
        "function", ["handle", "'handlers.handle'", "lambda event: None", "print"]
    )
    def test_a_function_as_proc_fun(self, site: Site, function: str) -> None:
        (site.root / "handlers.py").write_text("def handle(event): pass\n")
        path = site.write(
            f"from handlers import handle\nWATCHES = [{{'path': '$D/ftp', 'proc_fun': {function}}}]"
        )
        loaded = config.load(str(path), check_processor=processors.check, environ={})
        assert callable(loaded.watches[0].processor)

    def test_several_directories_in_one_entry(self, site: Site) -> None:
        for name in ("a1", "a2", "b1"):
            (site.root / name).mkdir()
        (site.root / "a3").touch()
        loaded = site.load("WATCHES = [{'path': ['$D/a*', 'b1'], 'do_glob': True}]")
        assert [w.path for w in loaded.watches] == [str(site.root / n) for n in ("a1", "a2", "b1")]

    def test_relative_paths_and_path_objects(self, site: Site) -> None:
        loaded = site.load(
            "import pathlib\nWATCHES = [{'path': './ftp/../ftp//'},"
            " {'path': pathlib.Path(__file__).parent / 'store'}]"
        )
        assert [watch.path for watch in loaded.watches] == [str(site.ftp), str(site.store)]

    @pytest.mark.parametrize(
        "value", ["['$D/ftp/x', '.*\\\\.old$']", "lambda p: p.endswith(('.old', '/x'))"]
    )
    def test_exclude_filter(self, site: Site, value: str) -> None:
        [watch] = site.load(f"WATCHES = [{{'path': '$D/ftp', 'exclude_filter': {value}}}]").watches
        assert watch.exclude is not None
        ftp = str(site.ftp)
        assert watch.exclude(f"{ftp}/x") is True
        assert watch.exclude(f"{ftp}/a.old") is True
        assert watch.exclude(f"{ftp}/a") is False

    @pytest.mark.parametrize("raised", ["SystemExit(3)", "asyncio.CancelledError", "OSError(3)"])
    def test_an_exclude_filter_that_raises(
        self, site: Site, raised: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        [watch] = site.load(
            f"import asyncio\ndef leaving(path): raise {raised}\n"
            "WATCHES = [{'path': '$D/ftp', 'exclude_filter': leaving}]"
        ).watches
        assert watch.exclude is not None
        assert watch.exclude("/x") is False
        (record,) = caplog.records
        name = raised.partition("(")[0].rpartition(".")[2]
        assert f"'exclude_filter' raised {name}" in record.getMessage()

    def test_pyinotify_s_own_exclude_filter(self, site: Site) -> None:
        [watch] = site.load(
            "import pyinotify\nWATCHES = [{'path': '$D/ftp',"
            " 'exclude_filter': pyinotify.ExcludeFilter(['$D/ftp/x'])}]"
        ).watches
        assert watch.exclude is not None
        assert watch.exclude(f"{site.ftp}/x") is True
        assert watch.exclude(f"{site.ftp}/y") is False

    def test_what_is_excluded_may_be_watched_separately(self, site: Site) -> None:
        (site.ftp / "slow").mkdir()
        loaded = site.load(
            "WATCHES = [{'path': '$D/ftp', 'rec': True, 'exclude_filter': ['.*/slow']},"
            " {'path': '$D/ftp/slow', 'settle': 60}]"
        )
        assert len(loaded.watches) == 2

    def test_beside_and_below_a_flat_watch(self, site: Site) -> None:
        (site.ftp / "sub").mkdir()
        (site.root / "ftp2").mkdir()
        loaded = site.load("WATCHES = [{'path': p} for p in ('ftp', 'ftp/sub', 'ftp2')]")
        assert len(loaded.watches) == 3

    def test_a_symlink_to_a_watched_directory_is_the_same(self, site: Site) -> None:
        (site.root / "link").symlink_to("ftp")
        assert site.problems("WATCHES = [{'path': 'ftp'}, {'path': 'link'}]") == [
            "WATCHES[1]: the directory $D/link is already watched by WATCHES[0]; "
            "remove one of the two"
        ]


class TestProcessors:
    PROCESSOR = "class Raw:\n    pass\nraw = Raw()\nraw.__call__ = print\n"

    def test_tuple_with_a_dotted_path(self, site: Site) -> None:
        site.write(self.PROCESSOR, "my_processors.py")
        [watch] = site.load("WATCHES = [('$D/ftp', 4095, 'my_processors.Raw')]").watches
        assert watch.processor.__name__ == "Raw"
        assert watch.processor_name == "my_processors.Raw"
        assert (watch.mask, watch.rec, watch.kind) == (4095, False, WatchKind.FILES)

    def test_dict_with_a_class(self, site: Site) -> None:
        site.write(self.PROCESSOR, "my_processors.py")
        [watch] = site.load(
            "from my_processors import Raw\nWATCHES = [{'path': '$D/ftp', 'proc_fun': Raw}]"
        ).watches
        assert watch.processor.__name__ == "Raw"
        assert watch.processor_name == "my_processors.Raw"

    def test_the_check_is_asked(self, site: Site) -> None:
        path = site.write("WATCHES = [('$D/ftp', 4095, 'os.getcwd')]")
        asked: list[object] = []

        def check(processor: object) -> str | None:
            asked.append(processor)
            return "is no subclass of ProcessEvent"

        with pytest.raises(ConfigError) as caught:
            config.load(str(path), check_processor=check, environ={})
        assert caught.value.problems == (
            "WATCHES[0]: the processor os.getcwd is no subclass of ProcessEvent; "
            "name a subclass of pyinotify.ProcessEvent, or a function of one argument",
        )
        assert asked == [os.getcwd]

    def test_finished_directories(self, site: Site) -> None:
        [watch] = site.load(
            "WATCHES = [('$D/ftp', 4095, 'watchman.processors.FinishedDirectories')]"
        ).watches
        assert (watch.kind, watch.rec, watch.processor) == (WatchKind.DIRECTORIES, False, None)
        assert watch.processor_name == "watchman.processors.FinishedDirectories"
        assert watch.unfinished is None

    def test_a_processor_may_share_its_directory(self, site: Site) -> None:
        loaded = site.load(
            "WATCHES = [{'path': '$D/ftp', 'rec': True}, ('$D/ftp', 4095, 'os.getcwd')]"
        )
        assert len(loaded.watches) == 2


class TestPatterns:
    FORMS = (
        "PATTERNS = {('$D/ftp/*.b', ROUTE), ('$D/ftp/*.a', ROUTE), ('$D/ftp/*.c', ROUTE)}",
        "PATTERNS: object = {('$D/ftp/*.b', ROUTE), ('$D/ftp/*.a', ROUTE), ('$D/ftp/*.c', ROUTE)}",
        "PATTERNS = [('$D/ftp/*.b', ROUTE), ['$D/ftp/*.a', ROUTE], ('$D/ftp/*.c', ROUTE)]",
        "PATTERNS = (('$D/ftp/*.b', ROUTE), ('$D/ftp/*.a', ROUTE), ('$D/ftp/*.c', ROUTE))",
        "PATTERNS = {'$D/ftp/*.b': ROUTE, '$D/ftp/*.a': ROUTE, '$D/ftp/*.c': ROUTE}",
        "PATTERNS = OrderedDict([('$D/ftp/*.b', ROUTE), ('$D/ftp/*.a', ROUTE)])\n"
        "PATTERNS['$D/ftp/*.c'] = ROUTE",
    )

    @pytest.mark.parametrize("text", FORMS)
    def test_the_order_is_kept(self, site: Site, text: str) -> None:
        loaded = site.load(f"ROUTE = {ROUTE}\n{WATCHES}{BROKERS}{text}")
        assert loaded.patterns == tuple(
            (f"{site.ftp}/*.{end}", Route("a", "t")) for end in ("b", "a", "c")
        )
        assert loaded.warnings == ()

    def test_args_kwargs_and_options(self, site: Site) -> None:
        loaded = site.load(
            WATCHES + BROKERS + "import datetime\nPATTERNS = [('$D/ftp/*', {'broker': 'b',"
            " 'task': 't', 'args': [1, 'x'], 'kwargs': {'k': [None]}, 'options': {'queue': 'q',"
            " 'expires': datetime.timedelta(hours=1), 'eta': datetime.datetime(2030, 1, 1),"
            " 'headers': {'x': 1}, 'priority': 0}})]"
        )
        [(_, route)] = loaded.patterns
        assert route == Route(
            "b", "t", (1, "x"), {"k": [None]},
            {
                "queue": "q", "expires": 3600.0, "eta": datetime.datetime(2030, 1, 1),
                "headers": {"x": 1}, "priority": 0,
            },
        )  # fmt: skip

    def test_what_can_never_match_is_said(self, site: Site) -> None:
        loaded = site.load(
            f"ROUTE = {ROUTE}\n{WATCHES}{BROKERS}PATTERNS = [('/elsewhere/*', ROUTE),"
            " ('ftp/*.csv', ROUTE), ('*/x', ROUTE), ('/*', ROUTE), ('/*', ROUTE),"
            " ('$D/ft?/x', ROUTE)]"
        )
        assert loaded.warnings == (
            "PATTERNS['/elsewhere/*']: matches no path in any watched directory; "
            f"the directories watched are '{site.ftp}'",
            "PATTERNS['ftp/*.csv']: matches no path in any watched directory; "
            "it is compared with the whole path: begin it with / or *",
            "PATTERNS['/*']: is never reached: the same pattern stands above it; "
            "remove one of the two",
            f"PATTERNS['{site.root}/ft?/x']: is never reached: '*/x' matches all of it and stands "
            "above it; write it above that one",
        )

    def test_brackets_in_a_watched_path_are_said(self, site: Site) -> None:
        """They are part of its name; in a pattern they stand for one letter."""
        path = site.root / "site[1]"
        path.mkdir()
        loaded = site.load(
            f"from glob import escape\n{BROKERS}ROUTE = {ROUTE}\n"
            "WATCHES = [{'path': '$D/site[1]'}, {'path': '$D/ftp'}]\n"
            "PATTERNS = [('$D/site[1]/*.csv', ROUTE), (escape('$D/site[1]') + '/*.nc', ROUTE),"
            " ('$D/*.gz', ROUTE), ('$D/ftp/[ab].zip', ROUTE)]"
        )
        assert loaded.warnings == (
            f"PATTERNS['{path}/*.csv']: matches no path in {path}, as brackets stand for one of "
            f"the letters in them; write glob.escape('{path}') + '/*.csv'",
        )


class TestMoves:
    def test_the_longest_source_comes_first(self, site: Site) -> None:
        loaded = site.load(
            WATCHES + "MOVES = OrderedDict([('ftp', 'store'), ('$D/ftp/a/', '$D/store/')])"
        )
        assert loaded.moves == (
            (str(site.ftp / "a"), str(site.store)),
            (str(site.ftp), str(site.store)),
        )
        assert loaded.warnings == ()

    def test_none(self, site: Site) -> None:
        assert site.load(WATCHES + "MOVES = {}").moves == ()

    def test_a_source_that_is_not_watched(self, site: Site) -> None:
        loaded = site.load(WATCHES + "PATTERNS = []\nMOVES = {'/elsewhere': '$D/store'}")
        assert loaded.warnings == (
            "MOVES['/elsewhere']: neither lies in a watched directory nor contains one; "
            "nothing is moved",
        )

    def test_below_a_flat_watch_is_no_loop(self, site: Site) -> None:
        (site.ftp / "done").mkdir()
        assert len(site.load(WATCHES + "MOVES = {'$D/ftp': '$D/ftp/done'}").moves) == 1


def test_lists_and_places(site: Site) -> None:
    loaded = site.load(
        WATCHES + "IGNORE = []\nDRY_RUN = ('*/test/*',)\nSTATE_DIR = 's'\nPID_FILE = '/run/w.pid'\n"
        "LOG_DIR = 'a/../l'\nHISTORY_DAYS = 0.5\nProFTPD = True\nPATTERNS = []"
    )
    assert (loaded.ignore, loaded.dry_run) == ((), ("*/test/*",))
    assert loaded.state_dir == str(site.root / "s")
    assert (loaded.pid_file, loaded.log_dir) == ("/run/w.pid", str(site.root / "l"))
    assert (loaded.retention, loaded.proftpd) == (43200.0, True)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("logging_restored")
class TestLogging:
    @pytest.mark.parametrize(
        ("megabytes", "size"),
        [("0", 0), ("0.0", 0), ("1e-7", 1), ("0.02", 20_000), ("50", 50_000_000)],
    )
    def test_only_0_megabytes_mean_never(self, site: Site, megabytes: str, size: int) -> None:
        assert site.load(f"{WATCHES}LOG_MEGABYTES = {megabytes}").log_size == size

    def test_the_default_format(self, site: Site) -> None:
        code = f"""
            import logging
            from watchman import config
            config.apply_logging(config.load({str(site.write(WATCHES))!r}, environ={{}}))
            logging.getLogger("watchman.notify").info("Notified of %s", "/srv/ftp/data.csv")
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        date, _, rest = done.stderr.partition(" [")
        assert rest == "INFO] watchman.notify: Notified of /srv/ftp/data.csv\n"
        assert datetime.datetime.strptime(date, "%Y-%m-%d %H:%M:%S,%f").year >= 2024
        assert done.stdout == ""

    def test_handlers_beside_the_configuration(self, site: Site) -> None:
        site.write("import logging\nclass Mine(logging.Handler): pass", "my_handlers.py")
        config.apply_logging(
            site.load(
                WATCHES + "LOGGING = {'version': 1, 'disable_existing_loggers': False,"
                " 'handlers': {'m': {'class': 'my_handlers.Mine'}}, 'root': {'handlers': ['m']}}"
            )
        )
        assert [type(h).__name__ for h in logging.getLogger().handlers] == ["Mine"]

    def test_what_dictconfig_refuses_is_one_line(self, site: Site) -> None:
        loaded = site.load(
            WATCHES + "LOGGING = {'version': 1, 'handlers': {'file': {'class':"
            " 'logging.FileHandler', 'filename': '$D/no/such/log'}}}"
        )
        with pytest.raises(ConfigError) as caught:
            config.apply_logging(loaded)
        [problem] = caught.value.problems
        assert problem.startswith("LOGGING: Unable to configure handler 'file': ")
        assert f"No such file or directory: '{site.root}/no/such/log'" in problem


def test_the_example_configuration_loads(site: Site) -> None:
    text = (ROOT / "config-example.py").read_text(encoding="utf-8")
    assert "/srv/ftp" in text
    site.write((ROOT / "celeryconfig.py").read_text(encoding="utf-8"), "celeryconfig.py")
    loaded = site.load(text.replace("/srv/ftp", "$D/ftp"))
    assert loaded.warnings == ()
    assert loaded.ignore == config.DEFAULT_IGNORE
    assert {route.broker for _, route in loaded.patterns} == set(loaded.brokers)
    assert loaded.celery == {"worker_hijack_root_logger": False}


def test_loading_imports_nothing_heavy(site: Site) -> None:
    path = site.write(WATCHES + BROKERS + f"PATTERNS = [('$D/ftp/*', {ROUTE})]")
    code = (
        "import sys\nfrom watchman import config\n"
        f"config.load({str(path)!r}, environ={{}})\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "watchman.config" in loaded
    assert not loaded & {"celery", "kombu", "redis", "amqp", "pyinotify", "pydantic", "asyncio"}


def test_transfer_logs(site: Site) -> None:
    log_format = r"%h %u %m %s %b \"%f\""
    loaded = site.load(
        "BROKERS = {}\nWATCHES = [{'path': '$D/ftp'}]\nPATTERNS = []\nTRANSFER_LOGS = [\n"
        "    {'path': 'xferlog'},\n"
        "    {'path': '/x', 'format': 'extended', 'utc': True, 'wait': 2,\n"
        f"     'log_format': r'{log_format}', 'prefixes': {{'/': '/srv/ftp/{{user}}'}}}},\n"
        "]"
    )
    assert loaded.transfer_logs == (
        TransferLog(str(site.root / "xferlog"), "xferlog", "", {}, False, 0.05),
        TransferLog("/x", "extended", log_format, {"/": "/srv/ftp/{user}"}, True, 2.0),
    )
