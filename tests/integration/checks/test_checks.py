"""notify check and notify match: plain records about real directories."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.mounted import bound
from tests.unit.config.conftest import Site, open_to_all, unprivileged
from watchman import brokers, checks, config
from watchman.checks import trees
from watchman.checks.trees import walk
from watchman.limits import KernelLimit, instance_limit, watch_limit
from watchman.model import Broker, Config, Route, Watch
from watchman.mounts import filesystem_type
from watchman.router import Router

BASE = """
BROKERS = {'good': 'amqp://u:sesame@host//', 'bad': 'redis://host/0'}
WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]
PATTERNS = [('$D/ftp/*.csv', {'broker': 'good', 'task': 'import_csv'})]
MOVES = {'$D/ftp': '$D/store'}
DRY_RUN = ['$D/ftp/test/*']
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def open_site() -> Iterator[Site]:
    with open_to_all() as site:
        yield site


LIMIT = KernelLimit("fs.inotify.max_user_watches", 1000)


def check(loaded: Config, limit: KernelLimit | None = LIMIT) -> dict[str, checks.Check]:
    found = checks.check(
        loaded,
        check_broker=lambda broker: "connection refused" if broker.name == "bad" else None,
        limit=lambda: limit,
        preview=lambda route: brokers.preview(loaded.brokers[route.broker], loaded.celery, route),
    )
    bad = {one.subject: one for one in found if not one.ok}
    return {one.subject: one for one in found} | bad


def snapshot(root: Path) -> list[tuple[str, int, int, int]]:
    return sorted(
        (str(p), s.st_mode, s.st_mtime_ns, s.st_ctime_ns)
        for p in [root, *root.rglob("*")]
        for s in [p.lstat()]
    )


def test_everything_is_told_and_nothing_changed(site: Site) -> None:
    (site.ftp / "a/b").mkdir(parents=True)
    (site.ftp / "a/data.csv").write_text("1")
    loaded = site.load(BASE)
    before = snapshot(site.root)
    found = check(loaded)
    assert snapshot(site.root) == before
    (space,) = [found.pop(subject) for subject in [*found] if subject.startswith("space for ")]
    assert space.ok
    assert space.subject == f"space for STATE_DIR, LOG_DIR, moves to {site.store}"
    assert " free of " in space.detail
    kind = filesystem_type(str(site.ftp)) or "an unknown file system"
    instances = instance_limit()
    assert instances is not None
    assert found == {
        one.subject: one
        for one in (
            checks.Check(f"watch {site.ftp}", True, f"3 directories on {kind}, inotify"),
            checks.Check(
                f"completeness in {site.ftp}", True,
                "lease test: nothing that is open for writing is taken",
            ),
            checks.Check("inotify", True, "3 needed, 1000 allowed (fs.inotify.max_user_watches)"),
            checks.Check(
                "inotify instances",
                True,
                f"1 needed, {instances.number} allowed ({instances.setting})",
            ),
            checks.Check(
                f"move {site.ftp} to {site.store}", True, "same file system: files are renamed"
            ),
            checks.Check(f"STATE_DIR {site.root}/var", True, "will be created"),
            checks.Check(f"LOG_DIR {site.root}/var/log", True, "will be created"),
            checks.Check(f"PID_FILE {site.root}/var", True, "will be created"),
            checks.Check("broker good", True, "reachable"),
            checks.Check(
                "broker bad", False, "connection refused", "start it, or correct its URL in BROKERS"
            ),
            checks.Check(f"pattern {site.ftp}/*.csv", True, "goes to celery"),
        )
    }  # fmt: skip


def test_two_mounts_of_one_file_system_are_told_from_one(site: Site) -> None:
    """No rename crosses from one bind mount to another, though the device is the same."""
    done = subprocess.run(
        ["mount", "--bind", str(site.store), str(site.store)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError, match="cross-device"):
            os.rename(site.ftp, site.store / "there")
        found = check(site.load(BASE))[f"move {site.ftp} to {site.store}"]
    finally:
        subprocess.run(["umount", str(site.store)], check=True)
    assert found.ok
    assert found.detail.startswith("same file system, but two mounts of it")
    assert "copied" in found.detail


def test_one_directory_at_two_paths_is_told(site: Site) -> None:
    other = site.root / "bound"
    other.mkdir()
    loaded = site.load(BASE.replace("WATCHES = [", f"WATCHES = [{{'path': {str(other)!r}}}, "))
    assert check(loaded)[f"watch {site.ftp}"].ok
    with bound(site.ftp, other):
        found = check(loaded)[f"watch {site.ftp}"]
    assert found.detail == f"is the same directory as {other}"
    assert found.remedy == "remove one of the two from WATCHES"


@pytest.mark.parametrize("others", [0, 7])
@pytest.mark.parametrize("setting", ["fs.inotify.max_user_watches", "user.max_inotify_watches"])
def test_a_limit_that_is_too_low(
    site: Site, setting: str, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.ftp / "a/b/c").mkdir(parents=True)
    monkeypatch.setattr("watchman.checks.report.watches_of_others", lambda _own: others)
    taken = f", 7 taken by other processes of user {os.geteuid()}" if others else ""
    found = check(site.load(BASE), limit=KernelLimit(setting, 3))["inotify"]
    assert found == checks.Check(
        "inotify",
        False,
        f"4 needed, 3 allowed ({setting}){taken}",
        f"sysctl {setting}={2 * (4 + others)}",
    )
    assert check(site.load(BASE), limit=None)["inotify"].ok


def test_watches_of_other_processes_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    program = (
        "import sys; from watchman.sources.instance import Instance; one = Instance();"
        "[one.listen(path, 0x100) for path in sys.argv[1:]]; print('there', flush=True); input()"
    )
    argv = [sys.executable, "-c", program, *(str(path) for path in tmp_path.iterdir())]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        # Of all processes only this one: others come and go.
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / str(other.pid)).symlink_to(f"/proc/{other.pid}")
        (proc / "self").symlink_to("/proc/self")
        assert trees.watches_of_others(frozenset(), str(proc)) == 3
        assert trees.watches_of_others(frozenset({other.pid}), str(proc)) == 0
        # Children of whom is left out are left out, too.
        assert trees.watches_of_others(frozenset({os.getpid()}), str(proc)) == 0
        other.communicate("\n")


def test_the_kernel_s_own_limit(tmp_path: Path) -> None:
    limit = watch_limit()
    assert limit is not None
    assert limit.number > 0
    assert watch_limit(str(tmp_path)) is None
    user, namespace = (
        tmp_path / "fs/inotify/max_user_watches",
        tmp_path / "user/max_inotify_watches",
    )
    for path in (user, namespace):
        path.parent.mkdir(parents=True)
    namespace.write_text("9\n")
    assert watch_limit(str(tmp_path)) == ("user.max_inotify_watches", 9)
    user.write_text("7\n")
    assert watch_limit(str(tmp_path)) == ("fs.inotify.max_user_watches", 7)
    user.write_text("11\n")
    assert watch_limit(str(tmp_path)) == ("user.max_inotify_watches", 9)


def test_a_polled_watch_needs_no_inotify(site: Site) -> None:
    found = check(site.load("WATCHES = [{'path': '$D/ftp', 'method': 'poll'}]"))
    assert "inotify" not in found
    assert found[f"watch {site.ftp}"].detail.endswith("polled")


def test_a_directory_that_vanished_since(site: Site) -> None:
    loaded = site.load(BASE)
    site.ftp.rmdir()
    site.store.rmdir()
    found = check(loaded)
    assert not found[f"watch {site.ftp}"].ok
    assert found[f"move {site.ftp} to {site.store}"].remedy == "create or mount it"


def test_without_permissions(open_site: Site) -> None:
    closed = open_site.ftp / "closed"
    closed.mkdir(mode=0)
    (open_site.root / "var").mkdir(mode=0o555)
    loaded = open_site.load(BASE)
    for directory in (open_site.ftp, open_site.store):
        directory.chmod(0o555)
    with unprivileged() as user:
        found = check(loaded)
    for directory in (open_site.ftp, open_site.store, closed):
        directory.chmod(0o755)
    assert found[f"watch {open_site.ftp}"] == checks.Check(
        f"watch {open_site.ftp}",
        False,
        f"1 cannot be read by user {user}, such as {closed}",
        "give this user read and search permission there",
    )
    for subject in (
        f"STATE_DIR {open_site.root}/var",
        f"move {open_site.ftp} to {open_site.store}",
    ):
        assert not found[subject].ok
        assert f"cannot be written by user {user}" in found[subject].detail


@pytest.mark.skipif(os.getuid() != 0, reason="needs files of another user")
def test_files_of_another_user_cannot_be_leased(open_site: Site) -> None:
    (open_site.ftp / "data.csv").touch()
    loaded = open_site.load(BASE)
    with unprivileged():
        found = check(loaded)[f"completeness in {open_site.ftp}"]
    assert found.ok
    assert "when it has not changed for 10 s" in found.detail
    assert "CAP_LEASE" in found.remedy


def test_the_lease_test_leaves_no_trace(site: Site) -> None:
    sample = site.ftp / "data.csv"
    sample.touch()
    before = signal.getsignal(signal.SIGIO)
    assert trees.lease_test(str(sample))
    assert signal.getsignal(signal.SIGIO) == before
    with sample.open("r+b") as file:
        assert fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_UNLCK
        assert trees.lease_test(str(sample)), "a file that is being written can be tested, too"


def test_walking_is_bounded_and_follows_no_symlink(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    rules = Router([])
    assert walk(Watch(str(tmp_path), rec=True), rules).directories == 21
    assert walk(Watch(str(tmp_path)), rules).directories == 1
    excluded = Watch(str(tmp_path), rec=True, exclude=lambda path: path.endswith("d7"))
    assert walk(excluded, rules).directories == 20
    few = walk(Watch(str(tmp_path), rec=True), rules, limit=5)
    assert not few.whole
    moments = iter(range(0, 1000, 9))
    slow = walk(Watch(str(tmp_path), rec=True), rules, clock=lambda: float(next(moments)))
    assert not slow.whole


def test_the_file_system_s_type(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /srv\\040x rw shared:1 - nfs4 host:/x rw\n"
        "3 1 0:6 / /srv rw - xfs /dev/sdb rw\n"
        "4 1 0:7 / /srv rw - btrfs /dev/sdc rw\n"
    )
    for path, expected in {
        "/": "ext4", "/srv x/ftp": "nfs4", "/srv x2": "ext4", "/srv/ftp": "btrfs", "/srv": "btrfs",
    }.items():  # fmt: skip
        assert filesystem_type(path, str(mounts)) == expected, path
    assert filesystem_type("/", str(tmp_path / "none")) == ""
    assert filesystem_type("/proc") == "proc"


@pytest.fixture
def nfs_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("watchman.checks.report", "watchman.mounts"):
        monkeypatch.setattr(f"{module}.filesystem_type", lambda path: "nfs4")


@pytest.mark.usefixtures("nfs_everywhere")
def test_network_file_systems(site: Site) -> None:
    found = check(site.load("WATCHES = [{'path': '$D/ftp', 'method': 'inotify'}]"))
    assert not found[f"watch {site.ftp}"].ok
    assert "'poll'" in found[f"watch {site.ftp}"].remedy
    assert not found[f"STATE_DIR {site.root}/var"].ok
    found = check(site.load(BASE))
    assert found[f"watch {site.ftp}"].detail == "1 directory on nfs4, polled"


def match(site: Site, text: str, path: str) -> checks.Match:
    loaded = site.load(text)

    def preview(route: Route) -> checks.RouteTarget:
        return brokers.preview(loaded.brokers[route.broker], loaded.celery, route)

    return checks.match(loaded, path.replace("$D", str(site.root)), preview)


def test_the_quarantine_is_looked_for(site: Site) -> None:
    criteria = "PATTERNS = [('$D/ftp/*', {'broker': 'good', 'task': 't', 'complete': 'auto'})]\n"
    text = BASE + criteria + "QUARANTINE = '$D/quarantine'\n"
    subject = f"move {site.ftp} to {site.root}/quarantine"
    assert check(site.load(text))[subject].detail == "the destination does not exist"
    (site.root / "quarantine").mkdir()
    assert check(site.load(text))[subject].ok


def test_match_says_what_complete_asks(site: Site) -> None:
    asked = "[{'marker': '{name}.done'}, 'gzip', lambda path, file: True]"
    text = (
        BASE + f"PATTERNS = [('$D/ftp/*', {{'broker': 'good', 'task': 't', 'complete': {asked}}})]"
    )
    found = match(site, text, f"{site.ftp}/a.gz")
    assert found.asked[1:2] == ("whole gzip",)
    assert match(site, BASE, f"{site.ftp}/a.csv").condition == ""
    watch = BASE + "WATCHES = [{'path': '$D/ftp', 'rec': True, 'complete': 'auto'}]"
    assert match(site, watch, f"{site.ftp}/a.csv").asked == ("whole, by its format",)


def test_match_tells_everything(site: Site) -> None:
    path = f"{site.ftp}/user/data.csv"
    found = match(site, BASE, path)
    assert found == checks.Match(
        path,
        watch=str(site.ftp),
        pattern=f"{site.ftp}/*.csv",
        task="import_csv",
        broker="good",
        queue="celery",
        routing_key="celery",
        destination=f"{site.store}/user/data.csv",
    )
    assert found.text() == (
        f"{path}\n"
        f"  watch:    {site.ftp}\n"
        f"  pattern:  {site.ftp}/*.csv\n"
        "  task:     import_csv\n"
        "  broker:   good\n"
        "  queue:    celery\n"
        f"  moved to: {site.store}/user/data.csv"
    )


STEPS = """
BROKERS = {'good': 'redis://host/0'}
WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}, {'path': '$D/other'}]
PATTERNS = [
    ('$D/ftp/*.csv', {'broker': 'good', 'task': 'a'}),
    ('$D/*.csv', {'broker': 'good', 'task': 'b'}),
    ('$D/store/*.nc', {'broker': 'good', 'task': 'c'}),
    ('*.CSV', {'broker': 'good', 'task': 'd', 'options': {'exchange': 'x', 'routing_key': 'k'}}),
    ('data.*', {'broker': 'good', 'task': 'e'}),
]
MOVES = {'$D/ftp': '$D/store'}
IGNORE = ['*.part', '.*']
DRY_RUN = ['*/test/*']
"""


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("$D/ftp/a.csv", ["pattern: $D/ftp/*.csv", "before $D/*.csv, which matches too"]),
        ("$D/ftp/a.CSV", ["pattern: *.CSV", "queue: exchange 'x', routing key 'k'"]),
        (
            "$D/ftp/a.nc",
            [
                "no task: no pattern matches",
                "'$D/store/*.nc' matches where it is moved to; write the path before the move",
            ],
        ),
        ("$D/ftp/a.Csv", ["'*.CSV' would, but upper and lower case differ"]),
        (
            "$D/ftp/data.xml",
            ["'data.*' matches its name alone; write '*/data.*' for the whole path"],
        ),
        (
            "$D/ftp/.hidden/a.csv",
            [
                "no task: IGNORE matches $D/ftp/.hidden",
                "'.*' of IGNORE matches $D/ftp/.hidden",
                "the pattern '$D/ftp/*.csv' would match it",
            ],
        ),
        ("$D/ftp/a.csv.part", ["'*.part' of IGNORE matches a.csv.part"]),
        ("$D/ftp/test/a.csv", ["'*/test/*' of DRY_RUN matches it", "task: a"]),
        (
            "$D/other/a/b.csv",
            [
                "no task: $D/other is watched without what is below it ('rec', 'auto_add')",
                "the pattern '$D/*.csv' would match it",
            ],
        ),
        ("$D/none/a.csv", ["no task: it lies in no watched directory"]),
    ],
)
def test_match_tells_the_reason_at_each_step(site: Site, path: str, lines: list[str]) -> None:
    (site.root / "other").mkdir(exist_ok=True)
    found = match(site, STEPS, path)
    told = [" ".join(line.split()) for line in found.text().splitlines()]
    for line in lines:
        assert line.replace("$D", str(site.root)) in told, found.text()


def test_only_some_of_many_reasons_are_shown_but_json_has_all(site: Site) -> None:
    more = "".join(f"PATTERNS.append(('*{n}*', PATTERNS[0][1]))\n" for n in range(10))
    found = match(site, BASE + more, "$D/ftp/0123456789.csv")
    assert len(found.shadowed) == 10
    assert found.text().count("which matches too") == 5


DIRECTORIES = "WATCHES = [{'path': '$D/ftp', 'kind': 'directories'}]\n"


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        (BASE, "/elsewhere/a.csv", "it lies in no watched directory"),
        (BASE, "$D/ftp", "it lies in no watched directory"),
        (BASE, "$D/ftp/a.CSV", "no pattern matches"),
        (BASE, "$D/ftp/a/.in.x.csv.", "IGNORE matches $D/ftp/a/.in.x.csv."),
        (BASE, "$D/ftp/.dst0/a.csv", "IGNORE matches $D/ftp/.dst0"),
        (
            BASE,
            "$D/ftp/test/a.csv",
            "DRY_RUN matches: it is logged, but neither moved nor sent",
        ),
        (
            "WATCHES = [{'path': '$D/ftp'}]",
            "$D/ftp/a/b.csv",
            "$D/ftp is watched without what is below it ('rec', 'auto_add')",
        ),
        (
            "WATCHES = [{'path': '$D/ftp', 'rec': True, 'exclude_filter': ['.*/old$']}]",
            "$D/ftp/old/a/b.csv",
            "'exclude_filter' leaves it out of $D/ftp",
        ),
        (DIRECTORIES, "$D/ftp/a/b", "$D/ftp watches for whole directories"),
        (DIRECTORIES, "$D/ftp/a.tmp1", "its name says that it is unfinished ('unfinished')"),
        (DIRECTORIES, "$D/ftp/a", "no pattern matches"),
        (
            "WATCHES = [('$D/ftp', 4095, 'os.getcwd')]",
            "$D/ftp/a",
            "$D/ftp is left to the processor os.getcwd",
        ),
    ],
)
def test_match_says_why_there_is_no_task(site: Site, text: str, path: str, reason: str) -> None:
    found = match(site, text, path)
    assert found.reason == reason.replace("$D", str(site.root))
    assert f"no task:  {found.reason}" in found.text()
    assert found.ignored == ("IGNORE" in reason)
    assert found.dry_run == ("DRY_RUN" in reason)


def test_match_shows_odd_names_safely(site: Site) -> None:
    assert "\n  x" not in match(site, BASE, "$D/ftp/a\n  x\udcff.csv").text()


ENTERED = (
    "BROKERS = {'b': 'filesystem://'}\n"
    "PATTERNS = [('$D/ftp/*/unit*', {'broker': 'b', 'task': 't'})]\n"
    "WATCHES = [{'path': '$D/ftp', 'kind': 'directories', 'rec': True,"
    " 'exclude_filter': ['.*/out$']}]\n"
)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("$D/ftp/a/unit", ""),
        ("$D/ftp/a/b/unit", ""),
        (
            "$D/ftp/a/unit/below",
            "$D/ftp/a/unit is itself a directory that is moved or sent as a whole (unless it was "
            "there before the first run)",
        ),
        (
            "$D/ftp/a.tmp/unit",
            "$D/ftp/a.tmp is unfinished by its name, and nothing below it is looked at",
        ),
        ("$D/ftp/out/unit", "'exclude_filter' leaves out $D/ftp/out"),
        ("$D/ftp/a/out", "'exclude_filter' leaves out $D/ftp/a/out"),
    ],
)
def test_match_enters_directories_that_are_no_units(site: Site, path: str, reason: str) -> None:
    found = match(site, ENTERED, path)
    assert found.reason == reason.replace("$D", str(site.root))
    assert found.task == (None if reason else "t")


def test_match_names_the_exchange(site: Site) -> None:
    options = "'options': {'exchange': 'x', 'routing_key': 'k'}"
    text = BASE.replace("'task': 'import_csv'", f"'task': 'import_csv', {options}")
    assert match(site, text, "$D/ftp/a.csv").queue == "exchange 'x', routing key 'k'"


def test_match_says_what_celery_cannot_make(site: Site) -> None:
    text = BASE.replace("'import_csv'", "'import_csv', 'options': {'serializer': 'nope'}")
    found = match(site, text, "$D/ftp/a.csv")
    assert found.queue is None
    assert found.reason == (
        "Celery can make no message of it: SerializerNotInstalled: No encoder installed for nope"
    )


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("'serializer': 'nope'", "SerializerNotInstalled: No encoder installed for nope"),
        ("'compression': 'nope'", "nope"),
        ("'queue': 'q'", ""),
    ],
)
def test_check_has_celery_make_a_message_of_each_route(
    site: Site, option: str, problem: str
) -> None:
    site.write("task_create_missing_queues = True\n", "celeryconfig.py")
    text = BASE.replace("'import_csv'", f"'import_csv', 'options': {{{option}}}")
    found = check(site.load(text))[f"pattern {site.ftp}/*.csv"]
    assert found.ok == (not problem)
    assert problem in found.detail
    if not problem:
        assert found.detail == "goes to q"


LOGS = "WATCHES = [{'path': '$D/ftp'}]\nPATTERNS = []\nLOGGING = {'version': 1, %s}\n"


@pytest.mark.parametrize(
    ("section", "detail"),
    [
        (
            "'handlers': {'h': {'class': 'logging.FileHandler', 'filename': '$D/no/log'}}",
            "the directory $D/no does not exist",
        ),
        (
            "'handlers': {'h': {'class': 'logging.NoSuchHandler'}}",
            "logging.NoSuchHandler cannot be imported",
        ),
        ("'formatters': {'h': {'()': 'nowhere_site.F'}}", "nowhere_site.F cannot be imported"),
        ("'filters': {'h': {'()': 'beside_site.Missing'}}", "beside_site.Missing cannot be"),
        (
            "'handlers': {'h': {'class': 'logging.FileHandler', 'filename': '$D/ftp'}}",
            "$D/ftp cannot be written by user",
        ),
        ("'handlers': {'h': {'class': 'beside_site.Handler'}}", ""),
        ("'handlers': {'h': {'class': 'logging.FileHandler', 'filename': '$D/log'}}", ""),
        ("'handlers': {'h': {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}}", ""),
    ],
)
def test_check_tries_what_logging_names(site: Site, section: str, detail: str) -> None:
    site.write("import logging\nclass Handler(logging.Handler):\n    pass\n", "beside_site.py")
    before = sorted(site.root.iterdir())
    found = [one for one in check(site.load(LOGS % section)).values() if "LOGGING" in one.subject]
    assert [one.ok for one in found] == ([False] if detail else [])
    assert all(one.detail.startswith(detail.replace("$D", str(site.root))) for one in found)
    assert {path.name for path in site.root.iterdir()} - {path.name for path in before} <= {
        "config.py"
    }


def test_a_broker_that_no_pattern_names_and_one_that_raises(site: Site) -> None:
    loaded = site.load(BASE)

    def check_broker(broker: Broker) -> str | None:
        if broker.name == "good":
            raise TypeError("unexpected keyword")
        return None

    found = {one.subject: one for one in checks.check(loaded, check_broker)}
    assert found["broker good"].detail == "TypeError: unexpected keyword"
    assert not found["broker good"].ok
    assert found["broker bad"].detail == "reachable, but no pattern names it"


def test_the_broker_check_gets_each_broker(site: Site) -> None:
    asked: list[Broker] = []

    def check_broker(broker: Broker) -> str | None:
        asked.append(broker)
        return None

    loaded = config.load(str(site.write(BASE)), environ={})
    checks.check(loaded, check_broker=check_broker)
    assert asked == list(loaded.brokers.values())
