"""The pages over a real journal, without a daemon and without a network."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.integration.pipeline.test_status import NOW, compose
from tests.running import config_for
from watchman import metrics
from watchman.journal import Journal, NewDelivery
from watchman.journal.failed_deliveries import Selection, retry
from watchman.journal.hold_orders import hold
from watchman.journal.partial import PartialFile
from watchman.model import INCOMPLETE, Config, HoldKind, Noted, Route, State, Upload, Version
from watchman.text import moment
from watchman.web import observed
from watchman.web.access import HEADERS, Access
from watchman.web.flask_app import create_app
from watchman.web.observed import PAGE, Observer, Overview

ROUTE = Route("lizard", "process")
SCRIPT = "/up/<script>alert('x')<\\script>&amp;\".csv"
STRAY = os.fsdecode(b"/up/\xff\xfe \n\x1b[1m.csv")
ID = "6f9619ff-8b86-5011-b42d-00cf4fc964ff"


class Tags(HTMLParser):
    """Reads a page as a browser does: the tags with their attributes, and the text."""

    def __init__(self, page: TestResponse) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.get_data(as_text=True))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self, start: str = "") -> list[str]:
        hrefs = [attributes.get("href") or "" for tag, attributes in self.tags if tag == "a"]
        return [href for href in hrefs if href.startswith(start)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path / "up", tmp_path / "state")


@pytest.fixture
def journal(config: Config) -> Iterator[Journal]:
    os.mkdir(config.state_dir)
    made = Journal(config.state_dir)
    yield made
    made.close()


@pytest.fixture
def client(config: Config, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(observed, "FRESH", 0.0)
    return create_app(config, Access(None)).test_client()


def record(
    journal: Journal,
    *paths: str,
    route: Route | None = ROUTE,
    final: str | None = None,
    task_id: str = "",
) -> None:
    first = journal.last_seq() + 1
    journal.record(
        [
            NewDelivery(
                task_id or f"id-{n}", path, final, Version(1, n, 2048, 3), 10**18 + n, route
            )
            for n, path in enumerate(paths, first)
        ]
    )


def listed(page: TestResponse) -> list[int]:
    return [int(link.rpartition("/")[2]) for link in Tags(page).links("/files/")]


def test_before_there_is_anything(client: FlaskClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    text = Tags(page).text
    assert "Inactive" in text
    assert "Nobody watches: 'notify start', or its supervisor, starts it." in text
    assert "Nothing is recorded yet." in text
    assert "Nothing is recorded yet." in Tags(client.get("/files")).text
    assert client.get("/status.json").get_json()["state"] == "inactive"


def test_each_page_says_whose_times_it_shows(
    client: FlaskClient, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks may be elsewhere."""
    record(journal, "/up/a")
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        for path in ("/", "/files", "/files/1"):
            page = Tags(client.get(path))
            assert "times in XYZ" in page.text
        assert "2001-09-09 06:46:40" in page.text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nothing_is_made_where_there_is_nothing(client: FlaskClient, config: Config) -> None:
    client.get("/")
    client.get("/files?q=x")
    assert not os.path.exists(config.state_dir)


def test_who_does_not_answer_is_not_called_well(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = compose((7, NOW), troubles=[], brokers={})
    assert told.state == "active"
    seen = Overview(NOW, told, (), (), (), "")
    monkeypatch.setattr(Observer, "overview", lambda _: seen)
    page = client.get("/")
    assert "It does not answer now: what follows was true 10 s ago." in Tags(page).text
    assert "41/s in" not in Tags(page).text
    assert 'class="state-now fair"' in page.get_data(as_text=True)


def test_who_opens_its_journal_for_long_is_not_told_to_begin_anew(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = compose((7, NOW - 60 * 10**9), run_ns=16)
    seen = Overview(NOW, told, (), (), (), "")
    monkeypatch.setattr(Observer, "overview", lambda _: seen)
    text = Tags(client.get("/")).text
    assert "It does not watch yet: its log tells what it does" in text
    assert "notify restart" not in text
    told = compose((7, NOW - 60 * 10**9), beat_monotonic_ns=0)
    monkeypatch.setattr(Observer, "overview", lambda _: seen._replace(status=told))
    assert "notify restart" in Tags(client.get("/")).text


def test_what_is_read_for_long_is_shown(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = {"path": SCRIPT, "asked": ["gzip", "mine"], "since_ns": NOW}
    told = compose((7, NOW), being_read=[reading])
    seen = Overview(NOW, told, (), (), (), "")
    monkeypatch.setattr(Observer, "overview", lambda _: seen)
    text = Tags(client.get("/")).text
    assert "Being read for long" in text
    assert SCRIPT in text
    assert "gzip, mine" in text


@pytest.mark.parametrize("path", ["/", "/files", "/files?q=up", "/files/1", "/files/2"])
def test_names_become_no_html(client: FlaskClient, journal: Journal, path: str) -> None:
    record(journal, SCRIPT, STRAY, route=Route("<b>", "<img src=x onerror=alert(1)>"))
    journal.note([(1, State.FAILED, "<svg onload=alert(1)>"), (2, State.FAILED, "\udcff")])
    page = client.get(path)
    assert page.status_code == 200
    found = Tags(page)
    assert {tag for tag, _ in found.tags}.isdisjoint({"img", "b", "style"})
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert [one["src"] for one in scripts if not (one["src"] or "").startswith("/static/")] == []
    assert all(not name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert all("style" not in attributes for _, attributes in found.tags)
    if path != "/files/2":
        assert "<script>alert('x')<\\script>&amp;\".csv" in found.text
    if path != "/files/1":
        assert "\\xff\\xfe \\x0a\\x1b[1m.csv" in found.text


def test_a_stray_byte_can_be_asked_for(client: FlaskClient, journal: Journal) -> None:
    record(journal, "/up/a", STRAY)
    page = client.get("/files?q=%FF%FE%20%0A%1B[[]1m.csv")
    assert listed(page) == [2]
    assert listed(client.get("/files?q=%FF")) == [2]
    box = next(attrs for tag, attrs in Tags(page).tags if attrs.get("id") == "q")
    assert box["value"] == "\\xff\\xfe \\x0a\\x1b[[]1m.csv"


def test_a_file_is_found_by_what_is_known_of_it(client: FlaskClient, journal: Journal) -> None:
    record(journal, "/up/anna/1.csv", "/up/anna/2.csv")
    record(journal, "/up/b/1.csv", route=Route("other", "load"), final="/store/b.csv", task_id=ID)
    record(journal, "/up/b/3", route=None)
    journal.note([(1, State.SENT, ""), (2, State.VANISHED, "discarded by root")])
    for query, seqs in {
        "": [4, 3, 2, 1],
        "q=1.csv": [3, 1],
        "q=/up/anna": [2, 1],
        "q=/up/anna/": [2, 1],
        "q=/store/b.csv": [3],
        "q=/up/*/1.*": [3, 1],
        "q=ann": [2, 1],
        f"q={ID.upper()}": [3],
        "q=%232": [2],
        "q=3": [3, 4],
        "q=3&broker=other": [3],
        "q=3&broker=nobody": [],
        "q=3&state=failed": [],
        "q=3&until=2001-09-08": [],
        f"q={ID}&state=failed": [],
        "state=sent": [1],
        "state=discarded": [2],
        "state=vanished": [],
        "broker=other": [3],
        "task=load": [3],
        "task=process&state=sent": [1],
        "since=2001-09-09": [4, 3, 2, 1],
        "until=2001-09-08": [],
        "q=nowhere": [],
    }.items():
        page = client.get(f"/files?{query}")
        assert page.status_code == 200
        assert listed(page) == seqs, query
    assert (
        "Nothing has this name. These have it in their path:"
        in Tags(client.get("/files?q=ann")).text
    )
    assert "Nothing of the kind is recorded." in Tags(client.get("/files?q=nowhere")).text


def test_pages_go_on_where_the_last_one_ended(client: FlaskClient, journal: Journal) -> None:
    count = 2 * PAGE + 7
    record(journal, *(f"/up/{n}.csv" for n in range(count)), "/other")
    link: str | None = "/files?q=/up&broker=lizard"
    seen: list[int] = []
    while link:
        page = client.get(link)
        seen += listed(page)
        link = next(iter(link for link in Tags(page).links("/files?") if "before=" in link), None)
    assert seen == list(range(count, 0, -1))


def test_one_delivery_is_told(client: FlaskClient, journal: Journal) -> None:
    record(journal, "/up/a.csv", final="/store/a.csv", task_id=ID)
    record(journal, "/up/dir", route=None)
    text = " ".join(Tags(client.get("/files/1")).text.split())
    for words in (
        "/store/a.csv",
        "2.0 kB",
        ID,
        "process",
        "lizard",
        "Waits to be moved to /store/a.csv; watchman is not running",
    ):
        assert words in text
    journal.note([(1, State.FAILED, "the broker refused it")])
    text = Tags(client.get("/files/1")).text
    assert "Failed: the broker refused it; mend the cause, then 'notify retry 1'" in text
    for path in ("/files/3", "/files/0", f"/files/{10**18}", f"/files/{10**40}", "/files/-1"):
        assert client.get(path).status_code == 404


def test_what_an_operator_did_and_what_came_later_is_told(
    client: FlaskClient, journal: Journal, config: Config
) -> None:
    record(journal, "/up/[a].csv", "/up/b.csv")
    journal.note([(1, State.FAILED, "refused")])
    one = Selection(frozenset({1}))
    with retry(config.state_dir, one, lambda _: False, by="<anna>") as changes:
        assert len(list(changes.changed)) == 1
    record(journal, "/up/[a].csv")
    text = Tags(client.get("/files/1")).text
    assert "Tried again by <anna>" in text
    assert "Superseded by a later upload, delivery 3" in text
    assert "uperseded" not in Tags(client.get("/files/2")).text
    assert "uperseded" not in Tags(client.get("/files/3")).text


def test_a_file_is_told_as_where_tells_it(
    client: FlaskClient, journal: Journal, config: Config
) -> None:
    """By whom it came, that it was not whole, with what it goes, and who has it wait."""

    def new(seq: int, **more: Any) -> NewDelivery:
        version = Version(1, seq, 2048, 3)
        return NewDelivery(f"id-{seq}", f"/up/{seq}.csv", None, version, seq, ROUTE, **more)

    members = [new(2, set_id="id-set"), new(3, set_id="id-set")]
    journal.record([new(1, told=f"{INCOMPLETE}its end is <missing>"), *members])
    journal.uploads.note(1, Upload("<anna>", "host.example.org", "sftp", 2000, 1.5, 0))
    journal.uploads.write({})
    hold(config.state_dir, [(HoldKind.TASK, "process")], "bert")

    def told(seq: int) -> str:
        return " ".join(Tags(client.get(f"/files/{seq}")).text.split())

    one = told(1)
    assert "Uploaded by <anna> from host.example.org by sftp: 2.0 kB in 1.5 s" in one
    assert "Incomplete, 2.0 kB: delivery 1" in one
    assert "Not whole: its end is <missing>" in one
    assert "by bert: 'notify release'" in one
    assert "In a set of 2 files, task id id-set" in told(2)


def test_metrics_and_health_are_those_of_the_commands(
    client: FlaskClient, journal: Journal, config: Config
) -> None:
    record(journal, "/up/a")
    answer = client.get("/metrics")
    assert answer.content_type == metrics.CONTENT_TYPE
    assert answer.data.splitlines()[0] == metrics.exposition(config).splitlines()[0]
    assert b'watchman_arrivals_total{broker="lizard"} 1.0' in answer.data
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.get_data(as_text=True).startswith("CRITICAL: watchman is not running")


def test_what_has_no_task_is_told(client: FlaskClient, journal: Journal) -> None:
    journal.record([], [("/up/noted.txt", Version(1, 2, 3, 4), Noted.UNASKED)])
    text = Tags(client.get("/files?q=/up/noted.txt")).text
    assert "No task was sent for what is there: no pattern matched it." in text


def test_all_files_of_one_task_are_found_by_its_id(client: FlaskClient, journal: Journal) -> None:
    """While it is under way, each has another one."""
    version = Version(1, 1, 2048, 3)
    journal.record(
        [
            NewDelivery(f"{n}{ID[1:]}", f"/up/{n}", None, version, n, ROUTE, set_id=ID)
            for n in (1, 2)
        ]
    )
    assert listed(client.get(f"/files?q={ID.upper()}")) == [2, 1]


def test_what_is_not_whole_yet_is_told(client: FlaskClient, journal: Journal) -> None:
    journal.partial.note([PartialFile(SCRIPT, Version(1, 2, 3, 4), NOW, "no <end>")])
    expected = f"{SCRIPT} is not whole yet: no <end>; so since 2026-"
    for asked in (SCRIPT, SCRIPT.rpartition("/")[2]):
        text = " ".join(Tags(client.get("/files", query_string={"q": asked})).text.split())
        assert expected in text
        assert "Nothing of the kind" not in text


def test_what_waits_is_told_and_can_be_listed(client: FlaskClient, journal: Journal) -> None:
    """All that waits, of it what is to be moved, to be sent, and held: each where it is listed."""
    record(journal, "/up/a", "/up/b", "/up/c")
    record(journal, "/up/d", final="/store/d")
    hold(os.path.dirname(journal.path), [(HoldKind.BROKER, "lizard")], "anna")
    page = client.get("/")
    text = " ".join(Tags(page).text.split())
    assert "4 waiting 1 to be moved, 3 to be sent (3 held)" in text
    links = Tags(page).links("/files?state=")
    assert [len(listed(client.get(link))) for link in links[:2]] == [1, 3]


def test_what_was_sent_can_be_listed(client: FlaskClient, journal: Journal) -> None:
    record(journal, "/up/a", "/up/b")
    journal.note([(1, State.SENT, "")])
    (link,) = Tags(client.get("/")).links("/files?broker=lizard&state=sent")
    assert listed(client.get(link)) == [1]


def test_a_thousand_failed_are_one_trouble(client: FlaskClient, journal: Journal) -> None:
    record(journal, *(f"/up/{n}.csv" for n in range(1000)))
    journal.note([(n, State.FAILED, "refused") for n in range(1, 1001)])
    page = client.get("/")
    text = Tags(page).text
    assert "1,000 have failed: 'notify failed' tells why" in text
    assert "All 1,000 that failed" in text
    assert text.count("refused") == observed.SHOWN_FAILED + PAGE
    assert len(page.data) < 100_000
    assert listed(client.get("/files?state=failed")) == list(range(1000, 1000 - PAGE, -1))


def test_what_was_done_is_drawn(client: FlaskClient, journal: Journal) -> None:
    record(journal, "/up/a", "/up/b", "/up/c")
    journal.note([(1, State.SENT, "")])
    text = " ".join(Tags(client.get("/")).text.split())
    assert "The last hour 3 arrived 1 sent" in text
    assert client.get("/").get_data(as_text=True).count('class="sent" x=') == 2


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"]
)
@pytest.mark.parametrize("path", ["/", "/files/1", "/static/watchman.css", "/nowhere"])
def test_it_can_only_be_looked_at(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert HEADERS.items() <= dict(answer.headers).items()


def test_head_is_get_without_the_page(client: FlaskClient) -> None:
    answer = client.head("/")
    assert (answer.status_code, answer.data) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/..%2f"],
)
def test_what_is_not_there_says_so_and_nothing_else(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "There is nothing here." in Tags(answer).text


@pytest.mark.parametrize(
    "path", ["/", "/files", "/files/1", "/status.json", "/static/watchman.css", "/x"]
)
def test_each_answer_says_how_to_take_it(client: FlaskClient, journal: Journal, path: str) -> None:
    record(journal, "/up/a")
    answer = client.get(path)
    assert HEADERS.items() <= dict(answer.headers).items()
    assert (answer.headers["Cache-Control"] == "no-store") is not path.startswith("/static")
    answer.close()


def test_a_page_from_elsewhere_reads_nothing(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Host": "evil.example:9002"})
    assert answer.status_code == 421
    assert "Ask for localhost" in Tags(answer).text
    assert (
        client.get("/", headers={"Host": "evil.example"}, base_url="http://[::1]").status_code
        == 421
    )


def test_questions_that_cannot_be_understood(client: FlaskClient, journal: Journal) -> None:
    for query in ("state=<b>", "since=soon", "before=x", "q=%00"):
        answer = client.get(f"/files?{query}")
        assert answer.status_code == 400
        assert "<b>" not in answer.get_data(as_text=True)
        assert [attrs for _, attrs in Tags(answer).tags if attrs.get("role") == "alert"]


def test_what_takes_too_long_ends_and_says_so(
    client: FlaskClient, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(journal, *(f"/up/{n}.csv" for n in range(3000)))
    monkeypatch.setattr(observed, "SECONDS", 0.0)
    answer = client.get("/files?q=*[xy].nothing")
    assert answer.status_code == 503
    assert "this takes more than 0 s: ask for less" in Tags(answer).text


def test_few_ask_the_history_at_a_time(
    client: FlaskClient, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "_PATIENCE", 0.01)
    monkeypatch.setattr(threading, "BoundedSemaphore", lambda _: threading.Semaphore(0))
    busy = create_app(
        config_for(Path("/up"), Path(journal.path).parent), Access(None)
    ).test_client()
    for path in ("/files", "/files/1"):
        answer = busy.get(path)
        assert answer.status_code == 503
        assert "Several people ask at once" in Tags(answer).text
    assert answer.headers["Retry-After"] == "2"
    assert busy.get("/").status_code == 200


def test_who_asks_together_is_given_the_same(config: Config, journal: Journal) -> None:
    observer = Observer(config)
    first = observer.overview()
    record(journal, "/up/a")
    assert observer.overview() is first


def test_a_damaged_journal_is_told_and_the_rest_goes_on(
    client: FlaskClient, config: Config
) -> None:
    os.mkdir(config.state_dir)
    Path(config.state_dir, "journal.db").write_bytes(b"x" * 5000)
    page = client.get("/")
    assert page.status_code == 200
    assert "the journal" in Tags(page).text
    text = " ".join(Tags(page).text.split())
    assert "is damaged" in text
    for unknown in ("waiting", "failed", "arrived", "sent", "Nothing is recorded"):
        assert unknown not in text, unknown
    assert client.get("/status.json").get_json()["counted"] is False
    assert client.get("/files").status_code == 503


def test_our_own_mistakes_show_no_traceback(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(Observer, "_look", fail)
    monkeypatch.setattr(Observer, "find", fail)
    for path in ("/files", "/files?q=a"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "secret" not in answer.get_data(as_text=True)
        assert "the log of notify web tells what" in Tags(answer).text
    assert len([one for one in caplog.records if one.exc_info]) == 2


def test_json_is_what_status_says(client: FlaskClient, journal: Journal) -> None:
    record(journal, STRAY)
    answer = client.get("/status.json")
    assert answer.content_type == "application/json"
    found = json.loads(answer.data)
    assert found["deliveries"][0]["broker"] == "lizard"
    assert found["counted"]
    assert found["deliveries"][0]["count"] == 1


def test_what_a_number_finds_is_not_said_to_have_it_in_its_path(
    client: FlaskClient, journal: Journal
) -> None:
    record(journal, "/up/a", "/up/b", "/up/x2x")
    for asked, seqs in (("%232", [2]), ("2", [2, 3])):
        page = client.get(f"/files?q={asked}")
        assert listed(page) == seqs
        assert "These have it in their path" not in Tags(page).text


def test_what_failed_without_a_task_is_not_linked_to_all_that_failed(
    client: FlaskClient, journal: Journal
) -> None:
    record(journal, "/up/a", final="/store/a")
    record(journal, "/up/b", route=None, final="/store/b")
    journal.note([(1, State.FAILED, "refused"), (2, State.FAILED, "refused")])
    links = [link for link in Tags(client.get("/")).links("/files?") if "state=failed" in link]
    assert {link: listed(client.get(link)) for link in links} == {
        "/files?state=failed": [2, 1],
        "/files?broker=lizard&state=failed": [1],
    }


def test_the_next_upload_is_told_however_many_came_after_it(
    client: FlaskClient, journal: Journal
) -> None:
    record(journal, *["/up/a"] * 300)
    assert "by a later upload, delivery 2\n" in Tags(client.get("/files/1")).text
    assert "uperseded" not in Tags(client.get("/files/300")).text


def test_of_a_directory_is_told_when_it_was_made(client: FlaskClient, journal: Journal) -> None:
    """It is known by that, whatever is written in it."""
    for seq, made_ns in ((1, 10**18), (2, 0)):
        version = Version(1, seq, 0, made_ns)
        new = NewDelivery(f"{seq}", f"/up/{seq}", None, version, 2 * 10**18, ROUTE)
        journal.record([new._replace(kind="directories")])
    text = " ".join(Tags(client.get("/files/1")).text.split())
    assert "Last written" not in text
    assert f"Made, by its own time {moment(10**18)}" in text
    assert "by its own time" not in Tags(client.get("/files/2")).text
