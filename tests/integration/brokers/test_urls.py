"""Whether a URL can be used, and that its credentials are never shown."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from watchman.brokers import check_url, public_url
from watchman.brokers.urls import KNOWN
from watchman.masking import mask

GOOD = [
    "amqp://guest:guest@localhost//",
    "amqps://user:p%40ss@mq.example.com:5671/vhost",
    "pyamqp://mq",
    "amqp://a.example.com//;amqp://b.example.com//",
    "redis://127.0.0.1/0",
    "redis://:secret@cache:6380/12",
    "rediss://user:secret@cache/0?ssl_cert_reqs=required",
    "redis+socket:///run/redis.sock",
    "redis://[::1]:6379/0",
    "sentinel://one:26379;sentinel://two:26379",
    "filesystem://",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_good_url_has_no_reason_against_it(url: str) -> None:
    assert check_url(url) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no URL"),
        ("localhost:6379", "no URL"),
        ("redis:localhost", "no URL"),
        ("http://example.com", "unknown scheme 'http'"),
        ("reddis://localhost", "unknown scheme 'reddis'"),
        ("memory://", "own memory"),
        ("Memory://name", "own memory"),
        ("sqla+sqlite://", "own memory"),
        ("sqla+sqlite:///:memory:", "own memory"),
        ("sqlalchemy+sqlite:///file:x?mode=memory&uri=true", "own memory"),
        ("redis://", "no host"),
        ("redis:///0", "no host"),
        ("amqp://user:secret@/vhost", "no host"),
        ("amqp://host:notaport//", "port"),
        ("amqp://host:99999//", "out of range"),
        ("redis://host/zero", "must be a number"),
        ("amqp://a//;amqp:///x", "no host"),
        ("amqp://anna:12#secret@rabbit//", "%23 for #"),
        ("amqp://anna:12/secret@rabbit//", "%2F for /"),
        ("amqp://anna:12?secret@rabbit//", "%3F for ?"),
        ("amqp://u:p@12/secret@rabbit//", "%40 for @"),
        ("redis://:12#secret@cache/0", "%23 for #"),
        ("amqp://a//;amqp://anna:12#secret@rabbit//", "%23 for #"),
        ("amqp://anna:secret;open@rabbit:1//", "%3B for ;"),
        ("amqp://anna:12;secret@rabbit:1//", "%3B for ;"),
        ("sentinel://:secret;open@one:26379;sentinel://two:26379", "%3B for ;"),
        ("amqp://a;b", "each URL with its scheme"),
    ],
)
def test_a_bad_url_is_told_in_one_line(url: str, says: str) -> None:
    reason = check_url(url)
    assert reason is not None
    assert says in reason
    assert "\n" not in reason
    assert "secret" not in reason


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("sqs://", "kombu[sqs]"),
        ("mongodb://host/db", "kombu[mongodb]"),
        ("sqla+sqlite:///x.db", "sqlalchemy"),
        ("kafka://host", "kombu[confluentkafka]"),
        ("azureservicebus://a:b@host", "kombu[azureservicebus]"),
        ("redis://host/0", "celery[redis]"),
        ("amqp://host", "celery"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchman.brokers.urls.find_spec", lambda _name: None)
    reason = check_url(url)
    assert reason is not None
    assert "pip install" in reason
    assert package in reason


def test_nothing_heavy_is_imported_to_check_a_plain_url() -> None:
    program = (
        "import sys, watchman.brokers as b\n"
        "assert b.check_url('redis://h/0') is None and b.check_url('amqp://h') is None\n"
        "heavy = {'celery', 'kombu', 'redis', 'amqp', 'vine'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("amqp://u:p@h:1//", "amqp://**@h:1//"),
        ("redis://:p@h/0", "redis://**@h/0"),
        ("amqp://u:p/with/slash@h/v", "amqp://**@h/v"),
        ("amqp://u:p@with@h/v", "amqp://**@h/v"),
        ("amqp://u:p?x@h/v", "amqp://**@h/v"),
        ("amqp://u:p@a//;amqp://u:q@b//", "amqp://**@a//;amqp://**@b//"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=**&db=1"),
        ("redis://h/0?db=1&ssl_keyfile_password=p", "redis://h/0?db=1&ssl_keyfile_password=**"),
        ("sqs://?aws_secret_access_key=p", "sqs://?aws_secret_access_key=**"),
        ("redis://:p@Tail?x@127.0.0.1/0", "redis://**@127.0.0.1/0"),
        ("redis+socket:///x?password=p@ss/word", "redis+socket:///x?password=**"),
        ("redis://h/0?password=p@ss", "redis://**"),
        ("redis://:p?x=1@127.0.0.1/0", "redis://**"),
        ("sqla+sqlite:///a@b.db", "sqla+sqlite:///a@b.db"),
        ("redis+socket://:p@/run/r.sock", "redis+socket://**@/run/r.sock"),
    ],
)
def test_credentials_are_replaced(url: str, shown: str) -> None:
    assert public_url(url) == shown


@given(st.text(min_size=8, max_size=20, alphabet=st.characters(categories=["L", "N"])))
def test_a_password_is_never_shown(password: str) -> None:
    for url in (
        f"amqp://user:{password}@host/v",
        f"redis://:{password}@host/0",
        f"redis://host/0?password={password}",
        f"amqp://a:{password}@h;amqp://b:{password}@i",
        f"amqp://user:{password};open@host:1/v",
        f"amqp://user:open;{password}@host:1/v",
        f"amqp://user:12#{password}@host:1/v",
    ):
        assert password not in (check_url(url) or "")
        assert password not in public_url(url)
        assert password not in mask(f"cannot reach {url}: timed out", url)
        assert password not in (check_url(url + "/\x00bad:port") or "")


def test_a_password_is_masked_wherever_a_library_puts_it() -> None:
    urls = ("amqp://user:hunter22@host/v",)
    assert "hunter22" not in mask("login of user with hunter22 failed\nsee the log", *urls)
    assert mask("two\nlines", *urls) == "two lines"


def test_the_options_of_a_url_are_kombu_s() -> None:
    parameters = set(inspect.signature(Connection._init_params).parameters)
    of_the_address = {"self", "hostname", "userid", "password", "virtual_host", "port", "transport"}
    assert parameters - of_the_address <= KNOWN


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h/1?socket_timeout=3", "an option 'socket_timeout', which kombu does not know"),
        ("amqp://h//?heartbeat=abc", "the option 'heartbeat' in the URL is 'abc'; write a number"),
        ("amqp://h//?heartbeat=1e999", "the option 'heartbeat' in the URL is '1e999'; write a"),
        ("amqp://h//?connect_timeout=nan", "the option 'connect_timeout' in the URL is 'nan'"),
        ("rediss://h/0?ssl_cert_reqs=maybe", "'maybe'; write required, optional or none"),
        ("amqp://h//?heartbeat=30&login_method=PLAIN", None),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", None),
        ("rediss://h/0?ssl_check_hostname=false", None),
        ("amqp://h//", None),
    ],
)
def test_options_of_a_url(url: str, reason: str | None) -> None:
    found = check_url(url)
    if reason is None:
        assert found is None
        Connection(url)  # kombu agrees
    else:
        assert found is not None
        assert reason in found
        assert "; " in found
