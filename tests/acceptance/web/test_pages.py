"""``notify web`` beside a daemon: what it shows, and that nothing asked of it harms anybody."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from passlib.context import CryptContext

from tests import embedded
from tests.acceptance.daemon.conftest import site as site  # noqa: PLC0414 — a fixture, for this module too
from tests.acceptance.daemon.conftest import users_site as users_site  # noqa: PLC0414 — the same
from tests.acceptance.daemon.site import Site
from tests.acceptance.web.pages import Pages, pages
from tests.waiting import wait_until

HELD, ASKED, AT_ONCE = 100, 1000, 8
IDLE = 600
ANSWERED = 1.0
"""Seconds for an answer while so many connections are idle."""
WITHIN = 8.0
"""Seconds for a task while all that is asked, on a machine that does other things as well."""


def messages(site: Site) -> int:
    return len(embedded.messages(site.top / "var"))


def upload(site: Site, name: bytes) -> None:
    with open(os.fsencode(site.data) + b"/" + name, "wb") as file:
        file.write(b"x")


def tree(top: Path) -> dict[str, tuple[int, int, int]]:
    """Return all that is in a directory, and what tells that it was written."""
    found = [top, *top.rglob("*")]
    return {str(p): (s.st_ino, s.st_size, s.st_mtime_ns) for p in found for s in [p.lstat()]}


def test_it_shows_the_daemon_and_its_end(site: Site) -> None:
    upload(site, b"early.csv")
    pid = site.start()
    upload(site, b"<script>alert(1)<\\script>.csv")
    upload(site, b"\xff.csv")
    wait_until(lambda: messages(site) == 2, 20.0, "the tasks")
    with pages(site) as web:
        page = web.get("/").body.decode()
        assert ">Active</h1>" in page
        assert f"process {pid}" in page
        assert "&lt;script&gt;alert(1)&lt;\\script&gt;.csv" in page
        assert "\\xff.csv" in page
        assert json.loads(web.get("/status.json").body)["state"] == "active"
        assert b"early.csv" not in web.get("/files?q=early.csv").body.partition(b"<table")[2]
        assert (
            "there before the first run" in web.get(f"/files?q={site.data}/early.csv").body.decode()
        )
        assert web.get("/files/1").status == 200
        site.stop()
        wait_until(lambda: b">Inactive</h1>" in web.get("/").body, 20.0, "it says so", interval=0.2)
        assert b"last sign of work" in web.get("/").body


def test_it_shows_all_that_status_shows(site: Site) -> None:
    """What waits to be moved, for 'complete' and for an operator, what is open, and what failed."""
    site.configure(
        f"MOVES = {{'{site.data}/moved': '{site.top}/store'}}\n"
        f"PATTERNS.insert(0, ('*.json', {{'broker': 'local', 'task': 't', 'complete': 'json'}}))\n"
    )
    (site.data / "moved").mkdir()
    site.start()
    assert site.notify("hold", "local").returncode == 0
    (site.data / "half.json").write_text('{"a": [1,')
    (site.data / "moved/stuck.csv").touch()
    (site.data / "held.csv").touch()
    (site.data / "nothing.txt").touch()
    with (site.data / "open.csv").open("w"):
        wait_until(lambda: is_all_there(site.status()), 20.0, "all of it", interval=0.2)
        told = site.status()
        with pages(site) as web:
            page = html.unescape(re.sub(r"\s+", " ", web.get("/").body.decode()))
    for subject, words in shown(told):
        assert subject in page, subject
        assert words in page, words
    assert "/s in, 0/s out" in page
    assert "1 being written, or not settled" in page
    assert "1 held" in page


def is_all_there(told: dict[str, Any]) -> bool:
    held = any(one["waiting"] for one in told["held"])
    stuck = any(one["reason"] for one in told["moves"])
    return held and stuck and all(told[key] for key in ("oldest_partial", "being_written", "notes"))


def shown(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What status tells by name, and in which words."""
    for one in (*told["troubles"], *told["notes"]):
        yield one["subject"], one["message"]
    for one in told["oldest_partial"]:
        yield one["path"], one["reason"]
    for one in told["held"]:
        yield one["name"], f"{one['waiting']} held"
    for one in told["being_written"]:
        yield one["path"], "being written"
    for one in told["watches"]:
        yield one["path"], one["handler"]
    for one in told["moves"]:
        yield one["root"], f"{one['waiting']} waiting to be moved"
        yield one["source"], one["reason"]


def test_it_ends_when_it_is_told_to(site: Site) -> None:
    with pages(site) as web:
        os.kill(web.pid, signal.SIGTERM)
        assert web.process.popen.wait(20) == 0
        log = (site.top / "web.log").read_text()
    assert log == f"{site.top}/var is shown on http://127.0.0.1:{web.port}/ until Ctrl-C\n"


def test_nothing_is_written(site: Site) -> None:
    site.start()
    for number in range(20):
        upload(site, b"%d.csv" % number)
    wait_until(lambda: messages(site) == 20, 20.0, "the tasks")
    site.stop()
    before = tree(site.top / "var")
    with pages(site) as web:
        for path in ("/", "/files", "/files?q=1.csv", "/files/1", "/status.json", "/nowhere"):
            web.get(path)
    assert tree(site.top / "var") == before


def test_it_reads_what_it_cannot_write(users_site: Site) -> None:
    site = users_site
    site.start()
    upload(site, b"a.csv")
    wait_until(lambda: messages(site) == 1, 20.0, "the task")
    state = site.top / "var"
    mode = state.stat().st_mode
    state.chmod(0o500)
    try:
        with pages(site) as web:
            assert b">Active</h1>" in web.get("/").body
            assert b"a.csv" in web.get("/files").body
    finally:
        state.chmod(mode)


@pytest.fixture
def busy(site: Site) -> Iterator[tuple[Site, Pages]]:
    """A daemon, and pages of which more is asked than they can answer at once."""
    site.start()
    with pages(site) as web, ExitStack() as held, ThreadPoolExecutor(AT_ONCE) as crowd:
        for number in range(HELD):
            one = held.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=30))
            one.sendall((b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"", b"GE")[number % 3])
        paths = [
            "/",
            "/files?q=*[xy].csv",
            "/files?q=x",
            "/status.json",
            "/files/1",
            "/../../etc/passwd",
        ]
        asked = [crowd.submit(web.get, paths[n % len(paths)]) for n in range(ASKED)]
        yield site, web
        answers = Counter(future.result(60).status for future in asked)
        assert answers.keys() <= {200, 404, 503}, answers
        assert answers[200] > ASKED / 3, answers
        assert sum(answers.values()) == ASKED


def test_whatever_is_asked_files_go_their_way(busy: tuple[Site, Pages]) -> None:
    site, web = busy
    pid, taken = site.pid, []
    for number in range(20):
        begun = time.monotonic()
        upload(site, b"%d.csv" % number)
        wait_until(lambda: messages(site) == number + 1, WITHIN, "a task")  # noqa: B023 — at once
        taken.append(time.monotonic() - begun)
    assert web.process.running
    assert site.pid == pid
    print(f"tasks took {sorted(taken)[len(taken) // 2]:.3f} s, {max(taken):.3f} s at the most")


def test_killed_it_takes_nothing_with_it(busy: tuple[Site, Pages]) -> None:
    site, web = busy
    wait_until(lambda: web.get("/").status == 200, 30.0, "an answer in between")
    upload(site, b"a.csv")
    wait_until(lambda: messages(site) == 1, WITHIN, "a task")


def test_who_says_nothing_keeps_nobody_out(site: Site) -> None:
    site.start()
    with pages(site) as web, ExitStack() as held:
        whole = b"GET /static/watchman.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for number in range(IDLE):
            one = held.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=30))
            one.sendall((b"", b"GET / HT", whole)[number % 3])
        for _ in range(5):
            begun = time.monotonic()
            assert web.get("/healthz").status == 200
            assert time.monotonic() - begun < ANSWERED
        assert len(os.listdir(f"/proc/{web.pid}/fd")) < IDLE / 2
    assert (site.top / "web.log").read_text().count("\n") == 1


ODD = {
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n": 421,
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n": 421,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n": 421,
    b"GET / HTTP/1.0\r\n\r\n": 200,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example\r\n\r\n": 200,
    b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /static/..%2f..%2fapp.py HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /files?q=%FF%00 HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /files?q=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n": 405,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nuser=root": 405,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n": 400,
}

TOO_LARGE = {
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999: b"413",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 99_999 + b"\r\n\r\n": b"431",
}


def test_odd_requests_are_answered_and_harm_nothing(site: Site) -> None:
    with pages(site) as web:
        for request, status in ODD.items():
            answer = web.send(request)
            assert int(answer.split()[1]) == status, (request[:80], answer[:200])
            assert b"root:" not in answer
            assert b"Traceback" not in answer
        for request, code in TOO_LARGE.items():
            # It does not read on; where that cuts the connection, the answer may be lost.
            assert web.send(request).split()[1:2] in ([code], [])
        assert web.get("/").status == 200
        assert "Traceback" not in (site.top / "web.log").read_text()


def test_with_passwords_only_those_who_have_one(site: Site, tmp_path: Path) -> None:
    known = CryptContext(["bcrypt"], bcrypt__rounds=4).hash("secret")
    (tmp_path / "htpasswd").write_text(f"anna:{known}\n")

    def asked_as(words: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}

    with pages(site, "--auth", str(tmp_path / "htpasswd")) as web:
        for path in ("/", "/files", "/status.json", "/static/watchman.css", "/nowhere"):
            answer = web.get(path)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith('Basic realm="watchman"')
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert web.get("/", **asked_as("anna:secret")).status == 200
        # By whichever name: no page from elsewhere knows the password.
        assert web.get("/", Host="watch.example.org", **asked_as("anna:secret")).status == 200
        for words in ("anna:", "anna:Secret", "root:secret", ":", "anna"):
            assert web.get("/", **asked_as(words)).status == 401
        for header in ("Basic", "Basic x", "Basic ÿ", "Bearer secret", "Digest username=anna"):
            assert web.get("/", Authorization=header).status == 401


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:9002"], "other machines can ask there"),
        (["--listen", "9002"], "an address and a port are meant"),
        (["--auth", "missing"], "missing cannot be read: No such file or directory"),
        (["--listen", "192.0.2.1:9002", "--auth", "htpasswd"], "Cannot assign requested address"),
    ],
)
def test_what_it_refuses_is_told_in_a_line(site: Site, arguments: list[str], words: str) -> None:
    (site.top / "htpasswd").write_text("anna:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
    done = site.notify("web", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("notify: --")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_its_libraries_it_says_what_to_install(site: Site) -> None:
    (site.top / "flask.py").write_text("raise ModuleNotFoundError('no', name='flask')\n")
    done = site.notify("web")
    assert (done.returncode, done.stderr) == (
        1,
        "notify: web needs flask: pip install 'watchman[web]', from a checkout '.[web]'\n",
    )
