"""Where it may listen."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from watchman.errors import WatchmanError
from watchman.web.server import listen


@contextlib.contextmanager
def listening(text: str, *, has_passwords: bool) -> Iterator[list[str]]:
    places = listen(text, has_passwords=has_passwords)
    try:
        yield [place.url for place in places]
    finally:
        for place in places:
            place.socket.close()


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:"),
        ("127.5.5.5:0", "http://127.5.5.5:"),
        ("localhost:0", "http://"),
    ],
)
def test_this_machine_needs_no_passwords(text: str, start: str) -> None:
    with listening(text, has_passwords=False) as urls:
        assert urls
        assert all(url.startswith(start) for url in urls)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"])
def test_others_do(host: str) -> None:
    with pytest.raises(WatchmanError, match="other machines can ask there") as error:
        listen(f"{host}:0", has_passwords=False)
    assert "--auth" in str(error.value)
    assert "\n" not in str(error.value)


def test_with_passwords_others_may_ask() -> None:
    with listening("0.0.0.0:0", has_passwords=True) as urls:
        assert urls[0].startswith("http://0.0.0.0:")


@pytest.mark.parametrize(
    "text",
    [
        "9002", ":9002", "localhost", "localhost:", "localhost:x", "localhost:65536", "::1:9002",
        "localhost:-1", "localhost:٣", "", "\x1b[1m:80",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(WatchmanError) as error:
        listen(text, has_passwords=True)
    assert str(error.value).startswith("--listen ")
    assert str(error.value).endswith(
        "an address and a port are meant, such as 127.0.0.1:9002 or [::1]:9002"
    )
    assert "\x1b" not in str(error.value)


def test_a_port_of_many_digits_is_none() -> None:
    with pytest.raises(WatchmanError, match="an address and a port are meant"):
        listen("127.0.0.1:" + "9" * 5000, has_passwords=False)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300, "a..b"])
def test_a_host_that_is_not_found_is_told(host: str) -> None:
    with pytest.raises(WatchmanError, match=r"^--listen .*: .*; an address and a port are meant"):
        listen(f"{host}:80", has_passwords=True)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WatchmanError, match=r"in use; choose another address or port$"):
            listen(f"127.0.0.1:{port}", has_passwords=False)
