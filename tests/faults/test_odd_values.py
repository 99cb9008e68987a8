"""Numbers, times and names that somebody outside chose, through the whole way of a file.

Programs of uploads with every odd value, to a real daemon that is killed and started again, with
reports asked meanwhile. WATCHMAN_LONG=1 makes it more rounds; WATCHMAN_SEED another program.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.started import notify
from tests.faults.driver import Daemon, Sent, in_directory, in_redis
from tests.json_lines import parsed
from tests.servers import tail
from tests.servers.fuse import FuseServer, is_possible
from tests.servers.proftpd import ProFTPD
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.file_access import PATH_MAX

LONG = os.environ.get("WATCHMAN_LONG") == "1"
ROUNDS, UPLOADS = (40, 40) if LONG else (2, 20)
SEED = int(os.environ.get("WATCHMAN_SEED", "1"))

BILLION = 10**9
# Around 1677 and 2262, where 64 bits of nanoseconds end; 1901 and 2446, where ext4's seconds do;
# and what tmpfs and FUSE take besides.
SECONDS = [
    0, -1, -(1 << 31) - 1, -9_223_372_037, -9_223_372_036, -9_300_000_000, 9_223_372_036,
    9_223_372_037, 9_300_000_000, 10_413_792_000, 15_032_385_535, 15_032_385_536,
    253_402_300_800, 1 << 53, 1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63),
]  # fmt: skip
SIZES = [0, 1, 100, 5000, 1 << 40, (1 << 43) + 1, (1 << 62) + 1, (1 << 63) - 1]
INODES = [0, 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 64) - 1]
OWNERS = [0, 65534, 65535, 65536, 3_000_000_000, (1 << 32) - 2]
NAMES = [
    b"a" * 255, b"\xff" * 255, "ü".encode() * 127, "\U0001f4a9".encode() * 63, b"x" * 251 + b".csv",
    b"y." + b"e" * 253, b"byte-\xff\xfe", b"\xed\xb3\xbf", b"\xf4\x90\x80\x80", b"\xc3",
    b"new\nline", b"\n", b"\x1b[2J\x1b]0;x\x07", b"tab\there", b"\x7f\x9b", b"\r", b"\x01",
    "\u202ecsv.exe".encode(), "\u2028".encode(), "\ufeff".encode(), "\u2066x".encode(),
    b"-rf", b"--", b"--help", b" ", b" x ", b"~", b"...", b".hidden",
    b"%s%n%d", b"%(asctime)s", b"{}", b"{0.__class__}", b"$(id)", b"`id`", b"'\"", b"\\",
    b"'; DROP TABLE deliveries; --", b"*", b"[a-z]", b"[!", b"?", b"a*b[c]?", b"#", b"&;|",
    b"<b>", b"a@1596705456400.csv", b"@", b"null", b"0", b"1e308", b"2147483648",
    b".watchman-00000000-0000-5000-8000-000000000000.tmp", b".watchman-.tmp",
    b".watchman-x.mark.tmp", b"journal.db", b"heartbeat",
]  # fmt: skip

CONFIG = """\
BROKERS = {{'b': {broker!r}}}
WATCHES = [
    {{'path': p, 'rec': True, 'auto_add': True, 'method': 'inotify', 'settle': s}}
    for p, s in {files!r}
] + [{{'path': p, 'kind': 'directories', 'method': 'inotify'}} for p in {directories!r}]
PATTERNS = [('*', {{'broker': 'b', 'task': 'task'}})]
MOVES = {moves!r}
"""


def is_own_name(name: bytes) -> bool:
    """One that the mover would give: never an arrival where files are moved."""
    return name.startswith(b".watchman-") and name.endswith(b".tmp")


@dataclass
class Uploads:
    """Uploads of one run, and what has to become of them."""

    chance: random.Random
    fuse: FuseServer | None
    tasks: set[str] = field(default_factory=set)
    """Paths that must have a task."""
    free: set[str] = field(default_factory=set)
    """Paths that need none: nobody can open them, they are too large for where they are moved, or
    their names are the mover's own."""
    contents: dict[str, bytes] = field(default_factory=dict)

    def at(self, seconds: int) -> int:
        return max(-(1 << 63) * BILLION, seconds * BILLION + self.chance.choice([0, 1, 999999999]))

    def file(self, directory: bytes, name: bytes, *, moved: bool) -> None:
        """Upload one file."""
        chance = self.chance
        path = os.path.join(directory, name)
        shown = os.fsdecode(path)
        size = chance.choice(SIZES)
        hidden = os.path.join(directory, b".in.%d." % chance.randrange(10**9))
        content = b"%d" % chance.randrange(10**9)
        how = chance.choice(["write", "rename", "link", "after"])
        first = hidden if how in ("rename", "link") else path
        times = (self.at(chance.choice(SECONDS)), self.at(chance.choice(SECONDS)))
        with open(first, "wb") as file:
            file.write(content)
            file.flush()
            # Where the file system has no such size, it is the content's.
            with contextlib.suppress(OSError):
                os.truncate(file.fileno(), size)
            with contextlib.suppress(OSError):
                os.chown(file.fileno(), chance.choice(OWNERS), chance.choice(OWNERS))
            if how != "after":
                set_times(file.fileno(), times)
            self._claim(first)
            found = os.fstat(file.fileno())
        if how == "rename":
            os.rename(hidden, path)
        elif how == "link":
            os.link(hidden, path)
            os.unlink(hidden)
        elif how == "after":
            set_times(path, times)
        if is_own_name(name) or (moved and found.st_size >= 1 << 40):
            self.free.add(shown)
        else:
            self.tasks.add(shown)
            if found.st_size < 1 << 20:
                self.contents[shown] = content[: found.st_size].ljust(found.st_size, b"\0")

    def directory(self, above: bytes, name: bytes) -> None:
        """Fill a directory under an unfinished name, and rename it."""
        hidden = os.path.join(above, b"%d.tmp" % self.chance.randrange(10**9))
        path = os.path.join(above, name)
        os.mkdir(hidden)
        for inside in self.chance.sample(NAMES, 2):
            with open(os.path.join(hidden, inside), "wb") as file:
                set_times(file.fileno(), 2 * (self.at(self.chance.choice(SECONDS)),))
        set_times(hidden, 2 * (self.at(self.chance.choice(SECONDS)),))
        self._claim(hidden)
        os.rename(hidden, path)
        self.tasks.add(os.fsdecode(path))

    def _claim(self, path: bytes) -> None:
        """On FUSE: give it numbers that no other file system gives."""
        shown = os.fsdecode(path)
        if self.fuse is None or not shown.startswith(f"{self.fuse.point}/"):
            return
        chance = self.chance
        values = {
            "inode": chance.choice(INODES),
            "mtime_ns": self.at(chance.choice(SECONDS)),
            "ctime_ns": self.at(chance.choice(SECONDS)),
            "birth_ns": self.at(chance.choice(SECONDS)),
        }
        some = chance.sample(list(values), chance.randint(1, len(values)))
        self.fuse.claim(shown, **{name: values[name] for name in some})

    def neighbour(self, directory: bytes, number: int) -> None:
        """Upload an ordinary file, which must get its task whatever lies beside it."""
        path = Path(os.fsdecode(os.path.join(directory, b"neighbour%d.csv" % number)))
        self.contents[str(path)] = b"neighbour"
        path.write_bytes(b"neighbour")
        self.tasks.add(str(path))


def set_times(path: int | bytes, times: tuple[int, int]) -> None:
    """As utime(2); what a file system cannot keep is the nearest that it can, or as it was."""
    with contextlib.suppress(OSError, OverflowError):
        os.utime(path, ns=times)


class Site:
    """A configuration with every kind of watch, and its daemon."""

    def __init__(
        self,
        top: Path,
        other: Path,
        fuse: FuseServer | None,
        redis: RedisServer | None,
        daemon: Callable[..., Daemon],
    ) -> None:
        self.top, self.fuse, self._redis, self._daemon = top, fuse, redis, daemon
        self.store, self.shared = top / "store", other / "store"
        self.plain, self.near, self.back = top / "plain", top / "near", top / "back"
        self.far = other / "far"
        self.units = [top / "units", top / "units-near", top / "units-back", other / "units-far"]
        self.files = [self.plain, self.near, self.back, self.far]
        for path in (*self.files, *self.units, self.store, self.shared):
            path.mkdir()
        self.moves = {
            str(self.near): str(self.store), str(self.far): str(self.store),
            str(self.back): str(self.shared), str(self.units[1]): str(self.store),
            str(self.units[2]): str(self.shared), str(self.units[3]): str(self.store),
        }  # fmt: skip
        if fuse is not None:
            self._add_fuse(fuse)
        self.config = top / "config.py"
        self.config.write_text(
            CONFIG.format(
                broker="filesystem://" if redis is None else redis.url,
                files=[(str(path), self._settle(path)) for path in self.files],
                directories=[str(path) for path in self.units],
                moves=self.moves,
            )
        )
        self.running: Daemon | None = None

    def _add_fuse(self, fuse: FuseServer) -> None:
        names = ("plain", "near", "far", "units", "units-far", "store")
        plain, near, far, units, units_far, store = (fuse.point / name for name in names)
        for path in (plain, near, far, units, units_far, store):
            path.mkdir()
        self.files += [plain, near, far]
        self.units += [units, units_far]
        self.moves |= {
            str(near): str(store), str(far): str(self.store), str(units_far): str(self.store),
        }  # fmt: skip

    def _settle(self, path: Path) -> float | None:
        """FUSE has no leases: then sizes and times have to settle."""
        return 0.1 if self.is_on_fuse(path) else None

    def is_on_fuse(self, path: Path) -> bool:
        return self.fuse is not None and path.is_relative_to(self.fuse.point)

    def start(self) -> None:
        self.running = self._daemon(self.config).wait_watching()

    def kill(self) -> None:
        assert self.running is not None
        assert self.running.status is None, tail(self.running.log)
        self.running.kill()

    def is_moved(self, path: Path) -> bool:
        """Whether files go elsewhere from a directory."""
        return str(path) in self.moves

    def crosses(self, path: Path) -> bool:
        """Whether what is moved from there is copied."""
        to = self.moves.get(str(path))
        return to is not None and path.stat().st_dev != os.stat(to).st_dev

    def sent(self) -> list[Sent]:
        if self._redis is None:
            return in_directory(self.top / "var")
        return in_redis(self._redis.port)

    def failed(self) -> dict[str, str]:
        """Return the reasons of what failed, by source."""
        done = notify("failed", "--json", "--config", self.config, cwd=self.top)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return {one["source"]: one["reason"] for one in parsed(done.stdout)}

    def await_tasks(self, wanted: set[str]) -> list[Sent]:
        """Wait for the tasks of these paths; fail where the daemon ends."""
        sent: list[Sent] = []

        def there() -> bool:
            nonlocal sent
            assert self.running is not None
            assert self.running.status is None, tail(self.running.log)
            sent = self.sent()
            return wanted <= {message.source for message in sent}

        try:
            wait_until(there, 60, "tasks", interval=0.1)
        except AssertionError:
            missing = sorted(wanted - {message.source for message in sent})
            said = "\n".join(line[:300] for line in self.said()[-20:])
            raise AssertionError(
                f"no task: {[path[-99:] for path in missing[:9]]} of {len(missing)}:\n{said}"
            ) from None
        return sent

    def said(self) -> list[str]:
        """Return what the daemon has said of troubles."""
        assert self.running is not None
        return [line for line in self.running.output.splitlines() if "[INFO]" not in line]

    def reports_are_fit(self) -> None:
        """Ask everything that can be asked, in both forms."""
        for name, *more in (("status",), ("history", "--limit", "100000"), ("failed",), ("scan",)):
            for form in ((), ("--json",)):
                done = notify(name, *more, *form, "--config", self.config, cwd=self.top)
                # What failed, and a share that hangs, are troubles.
                assert done.returncode in ({0, 2} if name == "status" else {0}), (
                    name,
                    done.stdout[-500:],
                    done.stderr,
                )
                assert done.stderr == "", name
                assert all(line.isprintable() for line in done.stdout.split("\n")), name
                if form:
                    parsed(done.stdout) if name in {"history", "failed"} else json.loads(
                        done.stdout
                    )

    def unknown(self) -> set[str]:
        """Return what a scan finds and the journal does not know."""
        done = notify("scan", "--json", "--config", self.config, cwd=self.top)
        return {item["path"] for item in json.loads(done.stdout)}


@pytest.fixture
def emptied(tmp_path: Path, other_device: Path) -> Iterator[None]:
    """Remove at the end what is too deep for shutil.rmtree, which calls itself."""
    yield
    for path in (tmp_path, other_device):
        subprocess.run(["rm", "-rf", *path.iterdir()], check=True)


@pytest.fixture
def fuse(tmp_path: Path, emptied: None) -> Iterator[FuseServer | None]:
    """Our own FUSE file system, where it can be mounted; unmounted before all is emptied."""
    if not is_possible():
        yield None
        return
    with FuseServer(tmp_path / "fuse") as server:
        yield server


def a_round(site: Site, uploads: Uploads, number: int) -> None:
    """Upload odd things to every watch, each beside an ordinary neighbour."""
    chance = uploads.chance
    for place, root in enumerate(site.files):
        directory = os.fsencode(root) + b"/" + chance.choice(NAMES) + b"%d" % number
        directory = directory[: len(os.fsencode(root)) + 200] + b"%d" % number
        os.makedirs(directory, exist_ok=True)
        for name in chance.sample(NAMES, min(UPLOADS, len(NAMES))):
            uploads.file(directory, name, moved=site.is_moved(root))
        uploads.neighbour(directory, place)
    for root in site.units:
        for name in chance.sample(NAMES, 5):
            path = os.fsencode(root) + b"/" + name
            if b".tmp" not in name and os.fsdecode(path) not in uploads.tasks:
                uploads.directory(os.fsencode(root), name)
    uploads.neighbour(os.fsencode(site.plain), number)


def deep(root: Path, length: int, component: int, number: int) -> tuple[str, int]:
    """Make directories below ``root`` for a file's path of so many bytes.

    Return the path, and a descriptor of its directory: no other way leads to one that is too long.
    """
    path, here = os.fspath(root), os.open(root, os.O_PATH | os.O_DIRECTORY)
    part = f"{number}d".ljust(component, "d")
    while True:
        left = length - len(path) - 1
        if left <= len(part) + 10:
            return f"{path}/{'f' * left}", here
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=here)
        below = os.open(part, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        path, here = f"{path}/{part}", below


def upload_deep(site: Site, uploads: Uploads) -> set[str]:
    """Upload files whose paths are about as long as a path can be; return those that must fail."""
    too_long = set()
    for number, root in enumerate(site.files):
        for length in range(PATH_MAX - 3, PATH_MAX + 4):
            # Opened name by name, which takes our FUSE server long.
            component = uploads.chance.choice([60, 200] if site.is_on_fuse(root) else [20, 200])
            path, directory = deep(root, length, component, number)
            name = os.path.basename(path)
            flags = os.O_WRONLY | os.O_CREAT
            os.close(os.open(name, flags, 0o644, dir_fd=directory))
            os.close(directory)
            final = length - len(str(root)) + len(site.moves.get(str(root), str(root)))
            if length <= PATH_MAX < final:
                too_long.add(path)
            (uploads.tasks if max(length, final) <= PATH_MAX else uploads.free).add(path)
    for root in site.units:
        made = root / "deep.tmp"
        made.joinpath(*["d"] * 150).mkdir(parents=True)
        made.rename(root / "deep")
        across = site.crosses(root)
        (uploads.free if across else uploads.tasks).add(str(root / "deep"))
        too_long |= {str(root / "deep")} if across else set()
    return too_long


def check(site: Site, uploads: Uploads, sent: Sequence[Sent]) -> None:
    """Each upload has one id, and lies unharmed where its task says."""
    ids: dict[str, set[str]] = {}
    for message in sent:
        ids.setdefault(message.source, set()).add(message.task_id)
        content = uploads.contents.get(message.source)
        if content is not None:
            with open(os.fsencode(message.path), "rb") as file:
                assert file.read() == content, message
    assert not ids.keys() - uploads.tasks - uploads.free
    doubled = {source: many for source, many in ids.items() if len(many) > 1}
    assert not doubled
    assert len(set().union(*ids.values())) == len(ids)


@pytest.mark.usefixtures("emptied")
@pytest.mark.timeout(3600 if LONG else 180)
@pytest.mark.parametrize("broker", ["filesystem", "redis"])
def test_odd_values_end_nothing(
    tmp_path: Path,
    other_device: Path,
    fuse: FuseServer | None,
    daemon: Callable[..., Daemon],
    broker: str,
    request: pytest.FixtureRequest,
) -> None:
    server: RedisServer | None = None
    if broker == "redis":
        server = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
    site = Site(tmp_path, other_device, fuse, server, daemon)
    uploads = Uploads(random.Random(f"{SEED} {broker}"), fuse)
    site.start()
    for number in range(ROUNDS):
        down = number % 3 == 1
        if down:  # a scan finds them
            site.kill()
        a_round(site, uploads, number)
        if down:
            site.start()
        check(site, uploads, site.await_tasks(uploads.tasks))
        if number % 3 == 2:
            site.kill()
            site.start()
            a_round(site, uploads, ROUNDS + number)
            check(site, uploads, site.await_tasks(uploads.tasks))
    too_long = upload_deep(site, uploads)
    check(site, uploads, site.await_tasks(uploads.tasks))
    wait_until(lambda: site.failed().keys() >= too_long, 30, "what is too long has failed")
    site.kill()
    site.start()
    site.reports_are_fit()
    assert site.failed().keys() == too_long
    assert not site.unknown() - uploads.free
    assert site.running is not None
    site.running.stop()
    log = site.running.log.read_text()
    assert "Traceback" not in log
    assert "Not recorded" not in log


def test_mfmt_to_any_year_is_no_end(
    proftpd: ProFTPD, tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    """One command of FTP: MFMT gives a file a time that no 64 bits of nanoseconds hold."""
    root, state = proftpd.root, tmp_path / "var"
    config = tmp_path / "config.py"
    text = CONFIG.format(
        broker="filesystem://", files=[(str(root), None)], directories=[], moves={}
    )
    config.write_text(text)
    running = daemon(config).wait_watching()
    years = ("23000101000000", "16000101000000", "24460511000000", "99991231235959")
    wanted = set()
    with proftpd.ftp() as ftp:
        for year in years:
            for number, name in enumerate(("f.csv", "f.csv", "g.csv")):
                if number != 1:  # else a second upload of one name would come
                    ftp.storbinary(f"STOR {year}{name}", io.BytesIO(b"content"))
                with contextlib.suppress(ftplib.error_perm):  # where the server refuses the year
                    ftp.voidcmd(f"MFMT {year} {year}{name}")
                wanted.add(f"{root}/{year}{name}")
    far = (root / "23000101000000f.csv").stat().st_mtime
    assert far > 9_300_000_000, "the server takes no such time: nothing was tested"

    def sent() -> set[str]:
        assert running.status is None, tail(running.log)
        return {message.source for message in in_directory(state)}

    wait_until(lambda: sent() == wanted, 20, "all are sent")
    running.kill()
    running = daemon(config).wait_watching()
    with proftpd.ftp() as ftp:
        ftp.storbinary("STOR after.csv", io.BytesIO(b"content"))
    wait_until(lambda: sent() == wanted | {f"{root}/after.csv"}, 20, "what came after is sent")
    running.stop()
    ids = {(message.source, message.task_id) for message in in_directory(state)}
    assert len(ids) == len(wanted) + 1
