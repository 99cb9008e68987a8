"""A mistake in the configuration: one line each, exit status 78, and nothing is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.acceptance.started import notify
from tests.checkout import ROOT

GOOD = {
    "BROKERS": "BROKERS = {'import': 'amqp://user:sesame@127.0.0.1:9//'}",
    "WATCHES": "WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]",
    "PATTERNS": "PATTERNS = [('$D/ftp/*.csv', {'broker': 'import', 'task': 't'})]",
    "MOVES": "MOVES = {'$D/ftp': '$D/store'}",
}


def watch(entry: str) -> str:
    return f"WATCHES = [{entry}]"


def pattern(options: str) -> str:
    return f"PATTERNS = [('$D/ftp/*.csv', {options})]"


# What is written instead of, or besides, what is good -> how the one line begins, without $D.
MISTAKES = {
    "syntax error": ("X = (", "config.py, line 5: syntax error"),
    "exception": ("X = 1 / 0", "config.py, line 5: ZeroDivisionError"),
    "missing module": ("import no_such_module", "config.py, line 5: ModuleNotFoundError"),
    "exit": ("raise SystemExit(0)", "config.py, line 5: SystemExit"),
    "unknown setting": ("WATCHS = []", "WATCHS: unknown setting; write WATCHES"),
    "unknown broker": (
        pattern("{'broker': 'improt', 'task': 't'}"),
        "PATTERNS['$D/ftp/*.csv']: unknown broker 'improt'; write 'import'",
    ),
    "nested watches": (
        watch("{'path': '$D/ftp', 'rec': True}, {'path': '$D/ftp/sub'}"),
        "WATCHES[1]: the directory $D/ftp/sub lies in $D/ftp",
    ),
    "move into the watch": (
        "MOVES = {'$D/ftp': '$D/ftp/sub'}",
        "MOVES['$D/ftp']: the destination $D/ftp/sub lies in the watched directory $D/ftp",
    ),
    "no task": (
        pattern("{'broker': 'import'}"),
        "PATTERNS['$D/ftp/*.csv']: has no 'task'; write the name of a Celery task",
    ),
    "unsupported URL": (
        "BROKERS = {'import': 'pigeon://user:sesame@host/'}",
        "BROKERS['import']: pigeon://*@host/: unknown scheme 'pigeon'",
    ),
    "no URL": (
        "BROKERS = {'import': 'rabbitmq'}",
        "BROKERS['import']: 'rabbitmq' is no URL; write",
    ),
    "no scheme": (
        "BROKERS = {'import': 'amqp:user:sesame@host//'}",
        "BROKERS['import']: '*@host//' is no URL; write",
    ),
    "exception with a URL": (
        "raise ValueError('amqp://user:sesame@host//')",
        "config.py, line 5: ValueError: amqp://*@host//",
    ),
    "package not installed": (
        "BROKERS = {'import': 'qpid://user:sesame@host/'}",
        "BROKERS['import']: qpid://*@host/: the Python package for qpid:// is missing; run pip",
    ),
    "unknown key": (
        watch("{'path': '$D/ftp', 'autoadd': True}"),
        "WATCHES[0]: unknown key 'autoadd'; write 'auto_add'",
    ),
    "no processor": (
        watch("('$D/ftp', 4095, 'nowhere.Processor'), {'path': '$D/ftp'}"),
        "WATCHES[0]: the processor 'nowhere.Processor' cannot be imported",
    ),
    "an option beside": (
        pattern("{'broker': 'import', 'task': 't', 'queue': 'q'}"),
        "PATTERNS['$D/ftp/*.csv']: 'queue' is an option of the message; write 'options'",
    ),
    "unknown option": (
        pattern("{'broker': 'import', 'task': 't', 'options': {'prioritiy': 1}}"),
        "PATTERNS['$D/ftp/*.csv']: unknown option 'prioritiy'; write 'priority'",
    ),
    "state in the watch": (
        "STATE_DIR = '$D/ftp/state'",
        "STATE_DIR: $D/ftp/state lies in the watched directory $D/ftp",
    ),
    "no handler": (
        "LOGGING = {'version': 1, 'root': {'handlers': ['console']}}",
        "LOGGING, logger 'root': unknown handler 'console'",
    ),
    "a log file that cannot be": (
        "LOGGING = {'version': 1, 'root': {'handlers': ['f']}, 'handlers': {'f': "
        "{'class': 'logging.FileHandler', 'filename': '$D/gone/watchman.log'}}}",
        "LOGGING",
    ),
    "a handler of no class": (
        "LOGGING = {'version': 1, 'root': {'handlers': ['f']}, 'handlers': {'f': "
        "{'class': 'logging.NoSuchHandler'}}}",
        "LOGGING",
    ),
}


class Place:
    """A directory with all that the good configuration names; $D in texts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("ftp/sub", "store"):
            (root / name).mkdir(parents=True)

    def write(self, text: str, name: str = "config.py") -> None:
        (self.root / name).write_text(text.replace("$D", str(self.root)), encoding="utf-8")

    def contents(self) -> list[Path]:
        return sorted(self.root.rglob("*"))

    def problems(self) -> list[str]:
        """Run the command; return what it says, after what holds for every mistake."""
        before = self.contents()
        done = notify("run", "--config", self.root / "config.py", cwd=self.root)
        assert done.returncode == 78, done.stderr
        assert done.stdout == ""
        assert self.contents() == before, "something was started"
        assert "Traceback" not in done.stderr
        assert "sesame" not in done.stderr
        lines = done.stderr.splitlines()
        assert lines
        assert all(line.startswith("notify: ") for line in lines), done.stderr
        shown = [line[len("notify: ") :].replace(str(self.root), "$D") for line in lines]
        return [re.sub(r"\*+@", "*@", line) for line in shown]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(("text", "begins"), MISTAKES.values(), ids=MISTAKES)
def test_one_mistake_one_line(place: Place, text: str, begins: str) -> None:
    setting = text.partition(" ")[0]
    good = [line if name != setting else "" for name, line in GOOD.items()]
    place.write("\n".join([*good, text]))
    [problem] = place.problems()
    assert problem.startswith(begins)
    assert ";" in problem, "no remedy"


CELERY_MISTAKES = {
    "syntax": ("x = [", "celeryconfig.py, line 1: syntax error"),
    "mixture": (
        "CELERY_ROUTES = {}\nworker_hijack_root_logger = False",
        "celeryconfig.py: old setting names are mixed with new ones",
    ),
}


@pytest.mark.parametrize(("text", "begins"), CELERY_MISTAKES.values(), ids=CELERY_MISTAKES)
def test_a_mistake_in_celeryconfig(place: Place, text: str, begins: str) -> None:
    place.write("\n".join(GOOD.values()))
    place.write(text, "celeryconfig.py")
    [problem] = place.problems()
    assert problem.startswith(begins)


def test_no_configuration(place: Place) -> None:
    [problem] = place.problems()
    assert problem.startswith(
        f"configuration: $D/config.py does not exist; "
        f"write one with 'notify init', or copy {ROOT}/config-example.py there, or name"
    )


def test_bytes_that_are_no_text(place: Place) -> None:
    (place.root / "config.py").write_bytes(b"NAME = '\xe4'\n")
    [problem] = place.problems()
    assert problem.startswith("config.py")
    assert "UTF-8" in problem


def test_all_mistakes_at_once(place: Place) -> None:
    texts = [MISTAKES[name][0] for name in ("unknown setting", "no task", "unknown key")]
    place.write("\n".join([GOOD["BROKERS"], *texts]))
    begins = ["WATCHS: unknown", "WATCHES[0]: unknown key", "PATTERNS['$D/ftp/*.csv']"]
    problems = place.problems()
    assert [p for p, b in zip(problems, begins, strict=True) if not p.startswith(b)] == []


def test_the_good_configuration_is_good(place: Place) -> None:
    place.write("\n".join(GOOD.values()))
    done = notify("match", place.root / "ftp/a.csv", "--config", place.root / "config.py", cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
