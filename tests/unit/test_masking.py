"""Passwords leave the process in no text, however they were written and whoever repeats them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.integration.brokers.messages import message, route
from tests.servers import free_port
from watchman import masking
from watchman.brokers import check_url, open_publisher
from watchman.masking import mask, public, public_url
from watchman.model import Broker

PASSWORDS = [
    "Zq7plain",
    "Zq7@Xk9tail",
    "Zq7?Xk9tail",
    "Zq7@Xk9tail?Wv5x",
    "Zq7/Xk9word",
    "Zq7:Xk9word",
    "Zq7#Xk9word",
    "Zq7;Xk9word",
    "Zq7%40Xk9word",
    "Zq7?Xk9tail=Wv5x",
    "[Zq7Xk9]",
    "Zq7 Xk9word",
]
PIECES = ["zq7", "xk9", "wv5"]
URLS = [
    "redis://:{}@127.0.0.1:{}/0",
    "redis://user:{}@127.0.0.1:{}/0",
    "amqp://user:{}@127.0.0.1:{}//",
    "redis://127.0.0.1:{1}/0?password={0}",
    "redis+socket:///nonexistent{1}?password={0}",
    "mongodb://user:{}@127.0.0.1:{}/db",
    "user:{}@127.0.0.1:{}//",
    "amqp:user:{}@127.0.0.1:{}//",
    "amqp:/user:{}@127.0.0.1:{}//",
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test has remembered is no secret of another's."""
    factory = logging.getLogRecordFactory()
    monkeypatch.setattr(masking, "_secrets", set())
    monkeypatch.setattr(masking, "_pattern", None)
    yield
    logging.setLogRecordFactory(factory)


def leaks(text: str) -> list[str]:
    return [piece for piece in PIECES if piece in text.lower()]


@pytest.mark.parametrize("form", URLS)
@pytest.mark.parametrize("password", PASSWORDS)
def test_no_shape_of_a_password_is_shown(password: str, form: str) -> None:
    url = form.format(password, free_port())
    assert not leaks(public_url(url))
    assert not leaks(check_url(url) or "")
    assert not leaks(mask(f"cannot reach {url}, that is {url!r}: login with {password} failed"))
    for piece in password.split("@"):
        assert not leaks(mask(f"Error 111 connecting to {piece.lower()}:6379"))


@pytest.mark.parametrize("form", [*URLS[:3], URLS[4]])
@pytest.mark.parametrize("password", PASSWORDS)
def test_what_libraries_say_of_a_url_is_shown_without_it(
    password: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them takes such a URL apart in a way of its own, and looks up half a password."""
    caplog.set_level(logging.DEBUG)
    broker = Broker("b", (form.format(password, free_port()),))
    if check_url(broker.urls[0]):
        pytest.skip("the configuration does not take it")
    publisher = open_publisher(broker, {}, "/nonexistent")
    reason = publisher.check()
    (said,) = publisher.publish([message(route("q"))])
    publisher.close()
    assert reason
    assert not leaks(reason)
    assert not leaks(said.reason)
    assert not leaks(caplog.text)


def test_secrets_in_options_are_remembered() -> None:
    options = {
        "sentinel_kwargs": {"password": "Zq7Xk9inner"},
        "global_keyprefix": "kept:",
        "ssl_keyfile": "/etc/key.pem",
        "tlsCertificateKeyFilePassword": "Zq7Xk9file",
    }
    open_publisher(Broker("b", ("redis://127.0.0.1:1/0",), options), {}, "/nonexistent")
    assert mask("AUTH Zq7Xk9inner kept: /etc/key.pem") == "AUTH ** kept: /etc/key.pem"
    assert mask("PEM Zq7Xk9file") == "PEM **"
    assert public({**options, "routing_key": "a.b", "profile_token": "Zq7"}) == {
        "sentinel_kwargs": {"password": "**"},
        "global_keyprefix": "kept:",
        "ssl_keyfile": "/etc/key.pem",
        "tlsCertificateKeyFilePassword": "**",
        "routing_key": "a.b",
        "profile_token": "**",
    }


def test_log_records_and_tracebacks_are_blotted(caplog: pytest.LogCaptureFixture) -> None:
    open_publisher(Broker("b", ("amqp://user:Zq7Xk9word@host//",)), {}, "/nonexistent")
    logging.getLogger("kombu.connection").warning("Connecting as %s", {"password": "Zq7Xk9word"})
    try:
        raise ValueError("amqp://user:Zq7Xk9word@host is wrong")
    except ValueError:
        logging.getLogger("watchman.notify").exception("The sender died")
    assert "Connecting as {'password': '**'}" in caplog.text
    assert "ValueError: amqp://user:**@host is wrong" in caplog.text
    assert not leaks(caplog.text)
