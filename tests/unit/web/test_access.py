"""By which names this machine asks itself."""

from __future__ import annotations

import pytest

from watchman.web.access import HEADERS, Access


@pytest.mark.parametrize(
    "host",
    [
        "", "localhost", "LOCALHOST:9002", "localhost.", "127.0.0.1:80", "127.1.2.3", "[::1]:9002",
        "[::1]", "watch.example.org", "WATCH.example.org:443",
    ],
)  # fmt: skip
def test_these_are_ours(host: str) -> None:
    assert Access(None, ["watch.example.org"]).is_ours(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9002", "10.0.0.1",
        "0.0.0.0", "[::2]:9002", "[fe80::1]", "2130706433", "localhost@evil.example", " ", "[", "]",
        "::1", "watch.example.org.evil.example",
    ],
)  # fmt: skip
def test_these_are_not(host: str) -> None:
    assert not Access(None, ["watch.example.org"]).is_ours(host)


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
