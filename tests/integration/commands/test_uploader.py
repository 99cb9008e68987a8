"""Who uploaded a file, in the JSON of all commands that print deliveries."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from watchman.file_access import version_of
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, State, Upload

TOLD = {
    "user": "anna",
    "host": None,
    "protocol": "sftp",
    "size": 3,
    "seconds": 0.5,
    "ended": "1970-01-01T00:00:07+00:00",
}


def test_deliveries_have_their_uploader(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (site.top / "var").mkdir(mode=0o700)
    journal = Journal(str(site.top / "var"))
    for number, state in enumerate((State.SENT, State.FAILED, State.SENT), 1):
        path = site.data / f"{number}.csv"
        path.write_text("abc")
        route, version = Route("local", "tasks.load"), version_of(path.stat())
        journal.record([NewDelivery(f"id {number}", str(path), None, version, 9, route)])
        journal.note([(number, state, "")])
    for seq in (1, 2):
        journal.uploads.note(seq, Upload("anna", "", "sftp", 3, 0.5, 7 * 10**9))
    journal.uploads.write({})
    journal.close()

    for arguments, expected in (
        (("history",), [None, TOLD, TOLD]),
        (("failed",), [TOLD]),
        (("resend", "1", "--yes"), [TOLD]),
    ):
        done = site.notify(*arguments, "--json")
        assert [one["upload"] for one in parsed(done.stdout)] == expected, (arguments, done.stderr)
    for number, upload in ((2, TOLD), (3, None)):
        (found,) = parsed(site.notify("where", f"{number}.csv", "--json").stdout)
        assert found["deliveries"][0]["upload"] == upload
