"""Every mistake is told in one line: the setting, what is wrong, what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.unit.config.conftest import Site, unprivileged
from watchman import config
from watchman.errors import EX_CONFIG, ConfigError

GOOD = {
    "BROKERS": "BROKERS = {'import': 'amqp://u:sesame@host//'}",
    "WATCHES": "WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]",
    "PATTERNS": "PATTERNS = [('$D/ftp/*.csv', {'broker': 'import', 'task': 't'})]",
}
WATCHES_REMEDY = "write WATCHES = [{'path': '/srv/ftp', 'rec': True, 'auto_add': True}]"
MOVES_REMEDY = "write MOVES = {'/srv/ftp': '/mnt/storage/incoming'}"
ROUTE = "{'broker': 'import', 'task': 't'}"
LABEL = "PATTERNS['$D/ftp/*.csv']"


def watch(entry: str) -> str:
    return f"WATCHES = [{entry}]"


def pattern(options: str) -> str:
    return f"PATTERNS = [('$D/ftp/*.csv', {options})]"


# What is written instead of, or besides, a good configuration -> the problems, exactly.
MISTAKES = [
    # Names of settings.
    ("WATCHS = []", ["WATCHS: unknown setting; write WATCHES, or give it a name less like it"]),
    ("PATTERN = 1", ["PATTERN: unknown setting; write PATTERNS, or give it a name less like it"]),
    ("BROKER = {}", ["BROKER: unknown setting; write BROKERS, or give it a name less like it"]),
    ("MOVE = {}", ["MOVE: unknown setting; write MOVES, or give it a name less like it"]),
    ("Moves = {}", ["Moves: unknown setting; write MOVES, or give it a name less like it"]),
    ("proftpd = 1", ["proftpd: unknown setting; write ProFTPD, or give it a name less like it"]),
    ("DRYRUN = []", ["DRYRUN: unknown setting; write DRY_RUN, or give it a name less like it"]),
    # Brokers: their values are never shown.
    (
        "BROKERS = ['amqp://u:sesame@host//']",
        [
            "BROKERS: is of type list, not a dict; "
            "write BROKERS = {'name': 'amqp://user:password@host:5672//'}",
            LABEL + ": there is no broker 'import'; write BROKERS = {'import': 'amqp://…'}",
        ],
    ),
    (
        "BROKERS = {'import': 'u:sesame@host'}",
        ["BROKERS['import']: it has no scheme such as amqp://; write transport://user@host/…"],
    ),
    (
        "BROKERS = {'import': {'url': 'amqps://host//', 'use_ssl': '/etc/ca.pem'}}",
        [
            "BROKERS['import']: 'use_ssl' is of type str; write "
            "'use_ssl': {'ca_certs': '/etc/ssl/my-ca.pem'}, or True for the system's CAs"
        ],
    ),
    (
        "BROKERS = {'import': ['amqp://a', 5]}",
        ["BROKERS['import']: a URL is of type int; write a URL, a list of URLs, or {'url': …, …}"],
    ),
    *(
        (
            f"BROKERS = {{'import': {urls}}}",
            [
                f"BROKERS['import']: its URLs are for {which}, and what is made for one transport "
                "cannot be sent by another; give each transport a name of its own"
            ],
        )
        for urls, which in (
            ("['amqp://u:sesame@a', 'redis://b']", "amqp and redis"),
            ("'redis://a;rediss://b;filesystem://'", "redis and filesystem"),
            ("{'url': ['pyamqp://a', 'sqs://b', 'AMQPS://c']}", "amqp and sqs"),
        )
    ),
    (
        "BROKERS = {'import': ';'}",
        ["BROKERS['import']: it has no scheme such as amqp://; write transport://user@host/…"],
    ),
    (
        "BROKERS = {'import': []}",
        [
            "BROKERS['import']: the list of URLs is empty; "
            "write a URL, a list of URLs, or {'url': …, …}"
        ],
    ),
    (
        "BROKERS = {'import': ''}",
        ["BROKERS['import']: a URL is empty; write a URL, a list of URLs, or {'url': …, …}"],
    ),
    (
        "BROKERS = {'import': {'uri': 'amqp://u:sesame@host//'}}",
        ["BROKERS['import']: has no 'url'; write {'url': 'amqp://…', …}"],
    ),
    (
        "BROKERS = {'import': 'amqp://a', 3: 'amqp://b'}",
        ["BROKERS[3]: the name is no string; write the name in quotes"],
    ),
    # Watches.
    ("WATCHES = []", [f"WATCHES: is empty, so nothing would be watched; {WATCHES_REMEDY}"]),
    ("WATCHES = '$D/ftp'", [f"WATCHES: '$D/ftp' is no list; {WATCHES_REMEDY}"]),
    (
        watch("'$D/ftp'"),
        [
            "WATCHES[0]: '$D/ftp' is neither a dict nor a tuple (path, mask, processor); "
            "write {'path': …, 'rec': True, 'auto_add': True}"
        ],
    ),
    (watch("{'rec': True}"), ["WATCHES[0]: has no 'path'; write 'path': '/the/directory'"]),
    (watch("{'path': 5}"), ["WATCHES[0]: 'path' is 5; write 'path': '/the/directory'"]),
    (watch("{'path': []}"), ["WATCHES[0]: 'path' is empty; write 'path': '/the/directory'"]),
    (
        watch("{'path': '$D/ftp', 'autoadd': True}"),
        ["WATCHES[0]: unknown key 'autoadd'; write 'auto_add'"],
    ),
    (
        watch("{'path': '$D/ftp', 'rec': 'yes'}"),
        ["WATCHES[0]: 'rec' is 'yes'; write True or False"],
    ),
    (
        watch("{'path': '$D/ftp', 'mask': 'IN_CREATE'}"),
        [
            "WATCHES[0]: 'mask' is 'IN_CREATE'; "
            "write event codes such as pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO"
        ],
    ),
    (
        watch("{'path': '$D/ftp', 'settle': -1}"),
        ["WATCHES[0]: 'settle' is -1; write a number of seconds, 2000000 at the most"],
    ),
    (
        watch("{'path': '$D/ftp', 'interval': 0}"),
        ["WATCHES[0]: 'interval' is 0; write a number of seconds above 0, 2000000 at the most"],
    ),
    (
        watch("{'path': '$D/ftp', 'existing': 'old'}"),
        ["WATCHES[0]: 'existing' is 'old'; write 'new', 'all' or 'none'"],
    ),
    (
        watch("{'path': '$D/ftp', 'method': 'polling'}"),
        ["WATCHES[0]: 'method' is 'polling'; write 'auto', 'inotify' or 'poll'"],
    ),
    (
        watch("{'path': '$D/ftp', 'exclude_filter': ['(']}"),
        [
            "WATCHES[0]: 'exclude_filter': '(' is no regular expression "
            "(missing ), unterminated subpattern at position 0); correct it"
        ],
    ),
    (
        watch("{'path': '$D/ftp', 'exclude_filter': '/srv/x'}"),
        [
            "WATCHES[0]: 'exclude_filter' is '/srv/x'; "
            "write a list of regular expressions, or a function of the path"
        ],
    ),
    (
        watch("('$D/ftp', 4095, 'nowhere.Processor')"),
        [
            "WATCHES[0]: the processor 'nowhere.Processor' cannot be imported "
            "(ModuleNotFoundError: No module named 'nowhere'); "
            "write 'package.module.Class', importable from beside the configuration"
        ],
    ),
    (
        watch("('$D/ftp', 4095, 'os.Nothing')"),
        [
            "WATCHES[0]: the processor 'os.Nothing' cannot be imported "
            "(module os has no 'Nothing'); "
            "write 'package.module.Class', importable from beside the configuration"
        ],
    ),
    (
        watch("('$D/ftp', 4095, 5)"),
        [
            "WATCHES[0]: the processor builtins.int cannot be called; "
            "name a subclass of pyinotify.ProcessEvent, or a function of one argument"
        ],
    ),
    (
        watch("{'path': '$D/ftp'}, {'path': '$D/ftp/'}"),
        [
            "WATCHES[1]: the directory $D/ftp is already watched by WATCHES[0]; "
            "remove one of the two"
        ],
    ),
    (
        watch("{'path': '$D/ftp/sub'}, {'path': '$D/ftp', 'rec': True}"),
        [
            "WATCHES[0]: the directory $D/ftp/sub lies in $D/ftp, "
            "which WATCHES[1] watches with all below it; remove one of the two"
        ],
    ),
    (  # A directory in sub could be noted by either, and who is first would decide.
        watch(
            "{'path': '$D/ftp', 'rec': True, 'kind': 'directories'}, "
            "{'path': '$D/ftp/sub', 'kind': 'directories', 'existing': 'none'}"
        ),
        [
            "WATCHES[1]: the directory $D/ftp/sub lies in $D/ftp, "
            "which WATCHES[0] watches with all below it; remove one of the two"
        ],
    ),
    # Patterns.
    (
        "PATTERNS = 5",
        [
            "PATTERNS: 5 is no list of pairs or dict; "
            "write PATTERNS = [('/srv/ftp/*.csv', {'broker': 'name', 'task': 'my_task'})]"
        ],
    ),
    (
        "PATTERNS = ['$D/*.csv']",
        [
            "PATTERNS[0]: '$D/*.csv' is no pair of a pattern and a dict; "
            "write ('/srv/ftp/*.csv', {'broker': …, 'task': …})"
        ],
    ),
    (pattern("'task'"), [LABEL + ": 'task' is no dict; write {'broker': …, 'task': …}"]),
    (
        pattern("{'broker': 'improt', 'task': 't'}"),
        [LABEL + ": unknown broker 'improt'; write 'import'"],
    ),
    (pattern("{'task': 't'}"), [LABEL + ": has no 'broker'; write 'broker': one of 'import'"]),
    (
        pattern("{'broker': 'import', 'taks': 't'}"),
        [
            LABEL + ": unknown key 'taks'; write 'task'",
            LABEL + ": has no 'task'; "
            "write the name of a Celery task, 'task': 'package.tasks.name'",
        ],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'args': 'abc'}"),
        [LABEL + ": 'args' is 'abc'; write a list of values that JSON can hold"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'args': [b'abc']}"),
        [LABEL + ": 'args' is [b'abc']; write a list of values that JSON can hold"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'kwargs': {1: 2}}"),
        [LABEL + ": 'kwargs' is {1: 2}; write a dict of names and values for JSON"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'queue': 'q'}"),
        [LABEL + ": 'queue' is an option of the message; write 'options': {'queue': …}"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'options': {'prioritiy': 1}}"),
        [LABEL + ": unknown option 'prioritiy'; write 'priority'"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'options': {'priority': 256}}"),
        [LABEL + ": option 'priority' is 256; write 0 to 255"],
    ),
    (
        pattern("{'broker': 'import', 'task': 't', 'options': {'task_id': 'x'}}"),
        [LABEL + ": 'task_id' cannot be set; remove it: it tells versions apart"],
    ),
    # Moves.
    ("MOVES = '$D/store'", [f"MOVES: '$D/store' is no dict; {MOVES_REMEDY}"]),
    ("MOVES = {'$D/ftp': 5}", [f"MOVES['$D/ftp']: the destination is no path; {MOVES_REMEDY}"]),
    (
        "MOVES = {'$D/ftp': '$D/ftp/'}",
        ["MOVES['$D/ftp']: source and destination are the same; remove it, or correct one"],
    ),
    (
        "MOVES = {'$D/ftp': '$D/ftp/sub'}",
        [
            "MOVES['$D/ftp']: the destination $D/ftp/sub lies in the watched directory $D/ftp, "
            "where what is moved would arrive again; choose one outside of it"
        ],
    ),
    (
        "MOVES = [('$D/ftp', '$D/store'), ('$D/ftp/', '$D/store')]",
        ["MOVES['$D/ftp/']: $D/ftp has two destinations; remove one of the two"],
    ),
    # The rest.
    ("ProFTPD = 'yes'", ["ProFTPD: is 'yes'; write True or False"]),
    (
        "IGNORE = '*.tmp'",
        ["IGNORE: '*.tmp' is no list of patterns; write IGNORE = ['*.part', '.*']"],
    ),
    (
        "DRY_RUN = [5]",
        ["DRY_RUN: [5] is no list of patterns; write DRY_RUN = ['/srv/ftp/test/*']"],
    ),
    (
        "STATE_DIR = '$D/ftp/state'",
        [
            "STATE_DIR: $D/ftp/state lies in the watched directory $D/ftp; "
            "choose a place outside of it"
        ],
    ),
    (
        "LOG_DIR = 'ftp'",
        ["LOG_DIR: $D/ftp lies in the watched directory $D/ftp; choose a place outside of it"],
    ),
    ("PID_FILE = 5", ["PID_FILE: 5 is no path; write PID_FILE = '/the/path'"]),
    *(
        (f"{setting} = '{path}'", [f"{setting}: $D/{path} is {whose}; choose another file"])
        for setting in ("PID_FILE", "INOTIFIER_DAEMON_STDOUT", "INOTIFIER_DAEMON_STDERR")
        for path, whose in (
            ("config.py", "the configuration"),
            ("celeryconfig.py", "the configuration"),
            *(
                (f"var/{name}", "a file of watchman's own in STATE_DIR")
                for name in (
                    *("journal.db", "journal.db-wal", "lock", "heartbeat", "status.json"),
                    *("socket", "history/x", "broker/messages/x"),
                )
            ),
        )
    ),
    (
        "STATE_DIR = 's'\nPID_FILE = 's/sub/../lock'",
        ["PID_FILE: $D/s/lock is a file of watchman's own in STATE_DIR; choose another file"],
    ),
    (
        "PID_FILE = 'var/log/watchman.out'",
        [
            "PID_FILE: $D/var/log/watchman.out is where the daemon's output goes; "
            "choose another file"
        ],
    ),
    (
        "INOTIFIER_DAEMON_STDERR = 'x'\nPID_FILE = 'x'",
        ["PID_FILE: $D/x is where the daemon's output goes; choose another file"],
    ),
    (
        "INOTIFIER_DAEMON_STDOUT = 'var/watchman.pid'",
        ["PID_FILE: $D/var/watchman.pid is where the daemon's output goes; choose another file"],
    ),
    # What holds watchman's own files.
    *(
        (
            f"MOVES = {{'ftp': '{root}'}}\n{more}",
            [
                f"MOVES['$D/ftp']: {shown} holds {held}, where an upload would become a file of "
                "watchman's own; choose another directory"
            ],
        )
        for root, shown, held, more in (
            (".", "$D", "$D/var, STATE_DIR", ""),
            ("s", "$D/s", "$D/s/deep/er, STATE_DIR", "STATE_DIR = 's/deep/er'"),
            (
                "var/broker",
                "$D/var/broker",
                "$D/var/broker, a directory of watchman's own in STATE_DIR",
                "",
            ),
            (
                "var/history",
                "$D/var/history",
                "$D/var/history, a directory of watchman's own in STATE_DIR",
                "",
            ),
            (".", "$D", "$D, from which the configuration is read", "STATE_DIR = '/var/lib/x'"),
            (
                "link",
                "$D/link",
                "$D, from which the configuration is read",
                "STATE_DIR = '/var/lib/x'\nimport os\nos.symlink('$D', '$D/link')",
            ),
        )
    ),
    (
        "QUARANTINE = '.'",
        [
            "QUARANTINE: $D holds $D/var, STATE_DIR, where an upload would become a file of "
            "watchman's own; choose another directory"
        ],
    ),
    (
        "WATCHES = [{'path': '.'}]\nPATTERNS = []\nSTATE_DIR = '/var/lib/x'",
        [
            "WATCHES: the configuration $D/config.py lies in the watched directory $D, and would "
            "be taken for an upload; put it outside of it"
        ],
    ),
    # Transfer logs.
    (
        "TRANSFER_LOGS = '/var/log/xferlog'",
        [
            "TRANSFER_LOGS: '/var/log/xferlog' is no list; write TRANSFER_LOGS = "
            "[{'path': '/var/log/proftpd/xferlog', 'format': 'xferlog'}]"
        ],
    ),
    (
        "TRANSFER_LOGS = [{'format': 'xfer', 'pth': '/x'}]",
        [
            "TRANSFER_LOGS[0]: unknown key 'pth'; write 'path'",
            "TRANSFER_LOGS[0]: 'path' is None; write 'path': '/the/log'",
            "TRANSFER_LOGS[0]: 'format' is 'xfer'; write one of xferlog, vsftpd, clf, stats, w3c, "
            "extended",
        ],
    ),
    (
        "TRANSFER_LOGS = [{'path': '/x'}, {'path': '/y/../x', 'format': 'clf'}]",
        ["TRANSFER_LOGS[1]: /x is there twice; remove one of the two"],
    ),
    (
        "TRANSFER_LOGS = [{'path': '/x', 'format': 'extended', 'log_format': '%f %m %b'}]",
        [
            "TRANSFER_LOGS[0]: 'log_format' has no outcome: write %{transfer-status}, or %s; "
            "change it, and the server's LogFormat"
        ],
    ),
    (
        "TRANSFER_LOGS = [{'path': '/x', 'format': 'extended'}]",
        [
            "TRANSFER_LOGS[0]: 'log_format' is None; write 'log_format': "
            "'%h %u %{iso8601} %m %s %b %T %f', as in proftpd.conf"
        ],
    ),
    (
        "TRANSFER_LOGS = [{'path': '/x', 'log_format': '%f', 'wait': -1, 'utc': 'yes'}]",
        [
            "TRANSFER_LOGS[0]: 'log_format' is for 'format': 'extended' alone; remove one, or "
            "change one",
            "TRANSFER_LOGS[0]: 'utc' is 'yes'; write True or False",
            "TRANSFER_LOGS[0]: 'wait' is -1; write a number of seconds, 60 at the most",
        ],
    ),
    (
        "TRANSFER_LOGS = [{'path': '/x', 'prefixes': {'/': 'ftp/{user}'}}]",
        [
            "TRANSFER_LOGS[0]: 'prefixes' has '/': 'ftp/{user}', and not two absolute paths; "
            "write 'prefixes': {'/': '/srv/ftp/{user}'}"
        ],
    ),
    (
        watch("{'path': '$D/ftp', 'require_log': True}"),
        [
            "WATCHES: $D/ftp: 'require_log' needs a log; write TRANSFER_LOGS = "
            "[{'path': '/var/log/proftpd/xferlog', 'format': 'xferlog'}], say"
        ],
    ),
    (
        watch("{'path': '$D/ftp', 'require_log': True, 'kind': 'directories'}"),
        ["WATCHES: $D/ftp: 'require_log' is about files; leave it out"],
    ),
    ("HISTORY_DAYS = 0", ["HISTORY_DAYS: is 0; write a number of days above 0, 36500 at the most"]),
    ("LOGGING = []", ["LOGGING: [] is no dict; write LOGGING = {'version': 1, …}"]),
    ("LOGGING = {}", ["LOGGING: has no 'version'; write 'version': 1"]),
    (
        "LOGGING = {'version': 1, 'handlers': {'console': {}}, 'root': {'handlers': ['consol']}}",
        ["LOGGING, logger 'root': unknown handler 'consol'; write 'console'"],
    ),
    (
        "LOGGING = {'version': 1, 'root': {'handlers': ['console']}}",
        [
            "LOGGING, logger 'root': unknown handler 'console'; "
            "there is none of that kind: define it, or remove its name"
        ],
    ),
    # The file as Python.
    (
        "WATCHES = [{]",
        [
            "config.py, line 4: syntax error: "
            "closing parenthesis ']' does not match opening parenthesis '{'; "
            "correct this line or the one above it"
        ],
    ),
    (
        "X = os.environ['NO SUCH NAME']",
        ["config.py, line 4: KeyError: 'NO SUCH NAME'; correct this line"],
    ),
    (
        "X = re.compile('x')",
        ["config.py, line 4: NameError: name 're' is not defined; write 'import re' at the top"],
    ),
    (
        "import no_such_module_here",
        [
            "config.py, line 4: ModuleNotFoundError: No module named 'no_such_module_here'; "
            "install 'no_such_module_here', or put it beside the configuration"
        ],
    ),
    ("raise SystemExit", ["config.py, line 4: SystemExit; the file must run to its end"]),
    (
        "raise ValueError('two\\nlines \\x1b[31m')",
        ["config.py, line 4: ValueError: two lines \\x1b[31m; correct this line"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistake(site: Site, text: str, expected: list[str]) -> None:
    (site.ftp / "sub").mkdir()
    setting = text.partition(" ")[0]
    good = [line if name != setting else "" for name, line in GOOD.items()]
    found = site.problems("\n".join([*good, text]))
    assert found == expected
    assert "sesame" not in "".join(found)


def test_the_good_configuration_is_good(site: Site) -> None:
    assert site.load("\n".join(GOOD.values())).warnings == ()


def test_all_problems_at_once_in_the_order_of_the_settings(site: Site) -> None:
    site.write("CELERY_ROUTES = {}\nworker_hijack_root_logger = False", "celeryconfig.py")
    found = site.problems(
        "HISTORY_DAYS = 'x'\nMOVES = 5\nPATTERNS = 5\nWATCHES = 5\nBROKERS = 5\n"
        "ProFTPD = 5\nLOGGING = 5\nWATCHS = 5\nIGNORE = 5\nSTATE_DIR = 5\nDRY_RUN = 5"
    )
    assert [problem.partition(":")[0] for problem in found] == [
        *("WATCHS", "LOGGING", "ProFTPD", "BROKERS", "WATCHES", "PATTERNS", "MOVES"),
        *("IGNORE", "DRY_RUN", "STATE_DIR", "HISTORY_DAYS", "celeryconfig.py"),
    ]


def test_each_problem_is_one_line_and_the_status_is_78(site: Site) -> None:
    site.write("x = (", "celeryconfig.py")
    path = site.write("WATCHES = [{'path': 5, 'rec\\n': 1}]\nraise_ = 1\n")
    with pytest.raises(ConfigError) as caught:
        config.load(str(path), environ={})
    assert caught.value.exit_status == EX_CONFIG == 78
    assert len(str(caught.value).splitlines()) == len(caught.value.problems) == 3


def test_no_watches_at_all(site: Site) -> None:
    assert site.problems("X = 1") == [
        f"WATCHES: is not set, so nothing would be watched; {WATCHES_REMEDY}"
    ]


def test_a_missing_file(site: Site) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(str(site.root / "none.py"), environ={})
    assert caught.value.problems == (
        f"configuration: {site.root}/none.py does not exist; "
        f"write one with 'notify init', or copy {ROOT}/config-example.py there, "
        "or name another with --config or WATCHMAN_CONFIG",
    )


def test_a_directory_instead_of_a_file(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"is a directory; name the file"):
        config.load(str(site.root), environ={})


@pytest.mark.parametrize("content", [b"X = '\xe4'\n", b"X = '\0'\n", b"# coding: nonsense\n"])
def test_bytes_that_are_no_text(site: Site, content: bytes) -> None:
    path = site.root / "config.py"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(str(path), environ={})
    [problem] = caught.value.problems
    assert problem.startswith("config.py")
    assert "UTF-8" in problem


WHATEVER_IS_THERE = (
    "WATCHES = [{'path': '$D/gone'}, {'path': '$D/config.py'}, {'path': '$D/config.py/x'},"
    " {'path': '$D/closed'}, {'path': '$D/closed/below'}, {'path': '$D/no*', 'do_glob': True}]\n"
    "MOVES = {'$D/gone': '$D/unmounted', '$D/closed': '$D/none.py', '$D/ftp': '$D/store'}"
)


def test_what_is_there_is_no_matter_of_the_configuration(open_site: Site) -> None:
    closed = open_site.root / "closed"
    (closed / "below").mkdir(parents=True)
    path = open_site.write(WHATEVER_IS_THERE)
    closed.chmod(0)
    open_site.store.chmod(0o555)
    try:
        with unprivileged():
            loaded = config.load(str(path), environ={})
    finally:
        for directory in (closed, open_site.store):
            directory.chmod(0o700)
    assert [Path(watch.path).name for watch in loaded.watches] == [
        "gone",
        "config.py",
        "x",
        "closed",
        "below",
    ]
    assert [Path(one.path).name for one in loaded.globs] == ["no*"]
    assert len(loaded.moves) == 3


def test_an_unreadable_file(open_site: Site) -> None:
    path = open_site.write("X = 1")
    path.chmod(0)
    expected = r"\(Permission denied\); let this user read it"
    with unprivileged(), pytest.raises(ConfigError, match=expected):
        config.load(str(path), environ={})


def test_credentials_in_a_reason_are_not_shown(site: Site) -> None:
    with pytest.raises(ConfigError) as caught:
        site.load(
            "\n".join(GOOD.values()), check_url=lambda url: f"cannot parse {url}: sesame is odd"
        )
    assert "sesame" not in str(caught.value)
    assert "BROKERS['import']: cannot parse" in str(caught.value)


def test_nothing_is_written(site: Site) -> None:
    site.write("NAME = 'helper'", "helper.py")
    before = sorted(Path(site.root).rglob("*"))
    site.write("import helper\n" + "\n".join(GOOD.values()))
    config.load(str(site.root / "config.py"), environ={})
    site.problems("import helper\nraise ValueError")
    assert sorted(set(Path(site.root).rglob("*")) - {site.root / "config.py"}) == before
