"""Whatever stands in config.py and celeryconfig.py: a configuration, or one line a problem."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.started import notify
from tests.unit.config.conftest import Site, unprivileged
from watchman import brokers, config, processors
from watchman.config import config_file
from watchman.config.problems import Problems
from watchman.errors import ConfigError
from watchman.journal.arguments import decode, encode
from watchman.model import Config
from watchman.router import Router

CONFIGURATIONS = int(os.environ.get("WATCHMAN_FUZZ", "400"))

# Objects that are no plain values, each worse than the other.
EVIL = """
import collections, datetime, enum, pathlib
def _raises(error):
    def method(self, *_):
        raise error
    return method
class _Rude(Exception):
    def __str__(self):
        raise ValueError('no words')
def _evil(error, base=object, *names):
    every = ('__bool__', '__eq__', '__len__', '__iter__', '__hash__', '__repr__', '__str__',
             '__getitem__', '__contains__', '__lt__', '__fspath__', 'items', 'get', 'keys')
    return type('Evil', (base,), {name: _raises(error) for name in names or every})
class _Liar:
    @property
    def __class__(self):
        raise RuntimeError('no class')
class _Text(str):
    __eq__ = __hash__ = casefold = startswith = _raises(RuntimeError('text'))
class _Number(int):
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __hash__ = _raises(RuntimeError('number'))
class _Names(enum.Enum):
    one = 1
_deep = []
_deep.append(_deep)
_round = {}
_round['url'] = _round['version'] = _round
_nested = 'x'
for _ in range(5000):
    _nested = [_nested]
"""

VALUES = [
    "None", "True", "False", "0", "-1", "1", "5", "1.5", "1e308", "-1e308", "float('inf')",
    "float('-inf')", "float('nan')", "10**400", "-10**400", "2**31", "2**63", "2**64", "1e-320",
    "10**5000", "1j", "''", "'x'", "'\\0'", "'\\n'", "'\\udcff'", "'\\ud800'", "'[z-a]'", "'['",
    "'a' * 100000", "'/' + 'a' * 5000", "'(' * 2000", "'x{99999999999999}'", "'?' * 500",
    "b'x'", "b'\\xff'", "bytearray(3)", "[]", "()", "{}", "set()", "{1, 2}", "[[]]", "[{}]",
    "{'a': {}}", "[None]", "[1, 2, 3]", "['x', 'y', 'z']", "{1: 2}", "{None: None}",
    "{('a',): 'b'}", "range(3)", "iter([])", "iter([('a', {})])", "(i for i in [1])",
    "(1 / i for i in [0])",
    "map(int, ['x'])", "len", "print", "object()", "object", "type", "Exception()", "_Rude()",
    "_evil(RuntimeError('evil'))()", "_evil(SystemExit(3))()", "_evil(KeyboardInterrupt())()",
    "_evil(GeneratorExit())()", "_evil(StopIteration())()", "_evil(_Rude())()",
    "_evil(RuntimeError('evil'), dict)(a=1)", "_evil(RuntimeError('evil'), list)([1])",
    "_evil(RuntimeError('bool'), object, '__bool__')()",
    "_evil(SystemExit(0), list, '__iter__')([1])",
    "_evil(RuntimeError('eq'), object, '__eq__')()",
    "_evil(RuntimeError('len'), dict, '__len__')()",
    "_evil(RuntimeError('path'), object, '__fspath__')()", "_Liar()", "_Text('x')", "_Number(5)",
    "_Names.one", "_deep", "_round", "_nested", "collections.OrderedDict(a=1)",
    "collections.defaultdict(list)", "collections.ChainMap({'a': 1})", "collections.UserDict(a=1)",
    "datetime.datetime.max", "datetime.datetime.min", "datetime.timedelta.max",
    "datetime.timedelta.min", "datetime.date.today()", "pathlib.Path('$D/ftp')", "'$D/ftp'",
    "'$D/store'", "'$D/config.py'", "'amqp://u:sesame@h//'", "'redis://h/1?socket_timeout=3'",
    "'redis://[::1'", "'amqp://h:99999//'", "'amqp://h:x//'", "['amqp://h', 'amqp://i']",
    "'filesystem://'", "'sqs://'", "'://'", "'import'", "'t'",
]  # fmt: skip

WATCH_KEYS = [
    "path", "rec", "auto_add", "mask", "do_glob", "exclude_filter", "quiet", "proc_fun", "settle",
    "existing", "method", "interval", "rescan", "kind", "unfinished", "marker", "nonsense",
]  # fmt: skip
OPTION_KEYS = [
    "queue", "exchange", "exchange_type", "routing_key", "priority", "expires", "countdown", "eta",
    "headers", "serializer", "compression", "time_limit", "soft_time_limit", "delivery_mode",
    "ignore_result", "reply_to", "shadow", "mandatory", "retry", "retry_policy", "user_id",
    "app_id", "task_id", "nonsense",
]  # fmt: skip
CELERY_KEYS = [
    "broker_transport_options", "broker_connection_timeout", "broker_heartbeat", "broker_use_ssl",
    "BROKER_TRANSPORT_OPTIONS", "BROKER_CONNECTION_TIMEOUT", "task_routes", "CELERY_ROUTES",
    "task_queues", "task_default_queue", "task_serializer", "task_compression", "timezone",
    "enable_utc", "task_repr_maxlevels", "task_send_sent_event", "broker_url", "include",
    "task_default_priority", "task_annotations", "accept_content", "anything",
]  # fmt: skip
LOGGING_KEYS = ["version", "formatters", "handlers", "loggers", "filters", "root", "nonsense"]
PLAIN = [
    "LOGGING", "ProFTPD", "BROKERS", "WATCHES", "PATTERNS", "MOVES", "IGNORE", "DRY_RUN",
    "STATE_DIR", "PID_FILE", "LOG_DIR", "HISTORY_DAYS", "TRANSFER_LOGS",
    "INOTIFIER_WATCH_PATHS",
]  # fmt: skip
ENDS = [
    "raise SystemExit", "raise SystemExit(0)", "raise KeyboardInterrupt", "raise GeneratorExit",
    "raise StopIteration", "raise _Rude", "raise BaseException", "globals()[5] = 1", "1 / 0",
    "globals().clear()", "del __builtins__", "import nowhere", "x = (", "\0", "'\xe4", "return 1",
]  # fmt: skip
GOOD = {
    "BROKERS": "{'import': 'amqp://u:sesame@host//'}",
    "WATCHES": "[{'path': '$D/ftp', 'rec': True, 'auto_add': True}]",
    "PATTERNS": "[('$D/ftp/*.csv', {'broker': 'import', 'task': 't'})]",
}


class Chance:
    """Configurations that are mostly good: whatever is wrong is met by what comes after it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._changes = (
            self._plain, self._watch, self._broker, self._route, self._options, self._move,
            self._logging,
        )  # fmt: skip

    def text(self) -> str:
        settings = dict(GOOD)
        for _ in range(self._random.randint(0, 2)):
            name, value = self._random.choice(self._changes)()
            settings[name] = value
        lines = [f"{name} = {value}" for name, value in settings.items()]
        if self._random.random() < 0.08:
            lines.insert(self._random.randint(0, 3), self._random.choice(ENDS))
        return EVIL + "\n".join(lines) + "\n"

    def celery(self) -> str:
        lines = [f"{self._random.choice(CELERY_KEYS)} = {self._value()}"]
        if self._random.random() < 0.05:
            lines.append(self._random.choice(ENDS))
        return EVIL + "\n".join(lines) + "\n"

    def _value(self) -> str:
        value = self._random.choice(VALUES)
        kind = self._random.random()
        if kind < 0.1:
            return f"[{value}, {self._random.choice(VALUES)}]"
        if kind < 0.2:
            return f"{{{self._random.choice(['url', 'a', '5'])!r}: {value}}}"
        return value

    def _plain(self) -> tuple[str, str]:
        return self._random.choice(PLAIN), self._value()

    def _watch(self) -> tuple[str, str]:
        key = self._random.choice(WATCH_KEYS)
        more = f"{{'path': '$D/ftp', 'rec': True, {key!r}: {self._value()}}}"
        triple = f"('$D/ftp', {self._value()}, {self._value()})"
        return "WATCHES", f"[{self._random.choice([more, more, more, triple, self._value()])}]"

    def _broker(self) -> tuple[str, str]:
        value = self._random.choice(
            [self._value(), f"{{'url': {self._value()}, 'socket_timeout': {self._value()}}}"]
        )
        return "BROKERS", f"{{'import': {value}}}"

    def _route(self) -> tuple[str, str]:
        key = self._random.choice(["broker", "task", "args", "kwargs", "options", "nonsense"])
        route = f"{{'broker': 'import', 'task': 't', {key!r}: {self._value()}}}"
        pattern = self._random.choice(["'$D/ftp/*.csv'", "'$D/ftp/*'", self._value()])
        return "PATTERNS", f"[({pattern}, {route})]"

    def _options(self) -> tuple[str, str]:
        options = f"{{{self._random.choice(OPTION_KEYS)!r}: {self._value()}}}"
        route = f"{{'broker': 'import', 'task': 't', 'options': {options}}}"
        return "PATTERNS", f"[('$D/ftp/*.csv', {route})]"

    def _move(self) -> tuple[str, str]:
        return "MOVES", f"{{{self._random.choice(['$D/ftp', '/'])!r}: {self._value()}}}"

    def _logging(self) -> tuple[str, str]:
        inner = self._random.choice(
            [
                f"'root': {{'handlers': {self._value()}}}",
                f"'loggers': {{'x': {self._value()}}}",
                f"'handlers': {{'h': {{'class': {self._value()}, 'formatter': {self._value()}}}}}",
                f"{self._random.choice(LOGGING_KEYS)!r}: {self._value()}",
            ]
        )
        return "LOGGING", f"{{'version': 1, {inner}}}"


def load(site: Site) -> Config:
    return config.load(
        str(site.root / "config.py"),
        check_url=brokers.check_url,
        check_processor=processors.check,
        environ={},
    )


def outcome(site: Site, seed: int) -> Config | tuple[str, ...]:
    """Return the configuration or the problems; nothing else may come out of loading."""
    try:
        return load(site)
    except ConfigError as error:
        return error.problems
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {(site.root / 'config.py').read_text()}") from error


def complaints(problems: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the problems themselves."""
    found = [line for line in problems if "\n" in line or not line.isprintable()]
    found += [line for line in problems if line.startswith("BROKERS") and "sesame" in line]
    return found + [line for line in problems if ": " not in line or "; " not in line]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_any_configuration_loads_or_is_refused_in_lines(site: Site) -> None:
    good = bad = 0
    for seed in range(CONFIGURATIONS):
        chance = Chance(seed)
        site.write(chance.text().replace("\udcff", ""))
        (site.root / "celeryconfig.py").unlink(missing_ok=True)
        if seed % 3 == 0:
            site.write(chance.celery(), "celeryconfig.py")
        found = outcome(site, seed)
        if isinstance(found, Config):
            good += 1
            bounded(found)
        else:
            bad += 1
            assert found, seed
            assert complaints(found) == [], seed
    assert good > CONFIGURATIONS / 20
    assert bad > CONFIGURATIONS / 3


def bounded(loaded: Config) -> None:
    """Hold every number that reaches time, SQL, poll() or threading against what these take."""
    for watch in loaded.watches:
        seconds = (watch.settle or 0.0, watch.interval, watch.rescan)
        assert all(type(one) is float and 0 <= one <= 2_000_000 for one in seconds)
        assert watch.mask is None or 0 < watch.mask < 1 << 32
    assert 0 <= loaded.retention * 1e9 < 1 << 63
    for _, route in loaded.patterns:
        assert (route.broker + route.task).encode()
        broker, task, *_ = decode(route.broker, route.task, encode(route))
        assert (broker, task) == (route.broker, route.task)
    router = Router(loaded.patterns, loaded.moves, loaded.ignore, loaded.dry_run)
    router.route("/srv/ftp/a.csv")
    router.destination("/srv/ftp/a.csv")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "HISTORY_DAYS = 1e308",
            "HISTORY_DAYS: is 1e+308; write a number of days above 0, 36500 at the most",
        ),
        (
            "WATCHES = [{'path': '$D/ftp', 'settle': 2 * 10**6 + 1}]",
            "WATCHES[0]: 'settle' is 2000001; write a number of seconds, 2000000 at the most",
        ),
        (
            "WATCHES = [{'path': '$D/ftp', 'mask': 1 << 32}]",
            "WATCHES[0]: 'mask' is 4294967296; "
            "write event codes such as pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO",
        ),
        (
            "class X:\n    def __bool__(self): raise ValueError('no truth')\nProFTPD = X()",
            "ProFTPD: is <",
        ),
        (
            "class X(list):\n    def __iter__(self): raise SystemExit(0)\nIGNORE = X()",
            "IGNORE: cannot be used (SystemExit: 0); write plain dicts, lists, strings and numbers",
        ),
        (
            "class X(dict):\n    def items(self): raise ValueError('sesame')\nBROKERS = X()",
            "BROKERS: cannot be used (ValueError); write plain dicts, lists, strings and numbers",
        ),
        (
            "IGNORE = []\nIGNORE.append(IGNORE)",
            "IGNORE: cannot be used (TooDeepError: it contains itself, or is nested too deeply); "
            "write plain dicts, lists, strings and numbers",
        ),
        ("raise KeyboardInterrupt", "config.py, line 4: KeyboardInterrupt; the file must run to"),
        ("raise GeneratorExit", "config.py, line 4: GeneratorExit; the file must run to its end"),
    ],
)
def test_what_is_said(site: Site, text: str, problem: str) -> None:
    setting = text.partition(" ")[0]
    rest = [f"{name} = {value}" if name != setting else "" for name, value in GOOD.items()]
    [found] = site.problems("\n".join(rest) + "\n" + text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("broker_transport_options = 5", "of type int and cannot be used; write a dict"),
        ("BROKER_TRANSPORT_OPTIONS = [1]", "of type list and cannot be used; write a dict"),
        ("broker_connection_timeout = 'x'", "of type str and cannot be used; write a number"),
        ("BROKER_HEARTBEAT = 10**400", "of type int and cannot be used; write a number"),
    ],
)
def test_what_celery_reads_for_sending(site: Site, text: str, problem: str) -> None:
    site.write(text, "celeryconfig.py")
    [found] = site.problems("\n".join(f"{name} = {value}" for name, value in GOOD.items()))
    assert found.startswith(f"celeryconfig.py: {text.partition(' ')[0]} is {problem}")


class TestTheFileItself:
    @pytest.mark.parametrize("name", ["config.py", "celeryconfig.py"])
    def test_a_fifo_is_not_waited_for(self, site: Site, name: str) -> None:
        if name != "config.py":
            site.write("\n".join(f"{name} = {value}" for name, value in GOOD.items()))
        os.mkfifo(site.root / name)
        with pytest.raises(ConfigError) as caught:
            load(site)
        assert caught.value.problems == (
            f"{name}: {site.root}/{name} is no regular file; "
            "name a file: it is read again by each reload",
        )

    def test_a_device_is_not_opened(self, site: Site) -> None:
        (site.root / "config.py").symlink_to("/dev/zero")
        with pytest.raises(ConfigError, match="is no regular file"):
            load(site)

    def test_a_directory(self, site: Site) -> None:
        (site.root / "config.py").mkdir()
        with pytest.raises(ConfigError, match=r"config\.py is a directory; name the file itself"):
            load(site)

    def test_a_file_as_large_as_a_disk(self, site: Site) -> None:
        with open(site.root / "config.py", "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(ConfigError, match="has 1099511627776 bytes; name a configuration"):
            load(site)

    @pytest.mark.parametrize("name", ["config.py", "celeryconfig.py"])
    def test_a_link_to_nothing(self, site: Site, name: str) -> None:
        if name != "config.py":
            site.write("\n".join(f"{name} = {value}" for name, value in GOOD.items()))
        (site.root / name).symlink_to("gone")
        with pytest.raises(ConfigError, match="is a link to nothing; correct or remove it"):
            load(site)

    def test_a_directory_without_permission_is_not_said_to_be_missing(
        self, open_site: Site
    ) -> None:
        open_site.write("")
        open_site.root.chmod(0o600)
        with unprivileged(), pytest.raises(ConfigError) as caught:
            load(open_site)
        assert caught.value.problems == (
            f"config.py: {open_site.root}/config.py cannot be read (Permission denied); "
            "let this user read it, and search the directories above it",
        )
        open_site.root.chmod(0o755)

    def test_a_file_that_becomes_a_fifo_in_between(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = site.write("")
        before = os.stat(path)
        path.unlink()
        os.mkfifo(path)
        with monkeypatch.context() as patched:
            patched.setattr("watchman.config.config_file.os.stat", lambda _: before)
            problems = Problems()
            found = config_file.run(str(path), problems)
        assert found is None or found.values.keys() <= {"os"}


def test_a_filter_that_raises_leaves_nothing_out(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = site.load(
        "def _choose(path):\n    raise ValueError(path)\n"
        "WATCHES = [{'path': '$D/ftp', 'rec': True, 'exclude_filter': _choose}]"
    )
    exclude = loaded.watches[0].exclude
    assert exclude is not None
    assert [exclude("/a\n"), exclude("/b")] == [False, False]
    assert caplog.messages == [
        "WATCHES[0]: 'exclude_filter' raised ValueError: /a\\x0a for /a\\x0a, which is watched "
        "therefore; correct the function"
    ]


def test_the_command_says_it_without_a_traceback(site: Site) -> None:
    site.write("HISTORY_DAYS = 10**400\n" + "\n".join(f"{n} = {v}" for n, v in GOOD.items()))
    done = notify("run", "--config", site.root / "config.py", cwd=site.root)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("notify: HISTORY_DAYS: is 1000")
    assert done.stderr.count("\n") == 1


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m watchman match a"
    environment = {**os.environ, "PYTHONPATH": str(Path(config.__file__).parents[2])}
    environment.pop("WATCHMAN_CONFIG", None)
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith(
        "notify: configuration: config.py: the working directory cannot be told"
    )
