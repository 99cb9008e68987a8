"""``use_ssl`` of one broker: with a CA of the tests' own, to amqps and rediss."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.brokers.messages import answers, message, messages, route
from tests.servers import free_port, require
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from watchman.brokers import open_publisher
from watchman.model import ACCEPTED, Answer, Broker, Publisher


class Authority:
    """A certificate authority."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.openssl = require("openssl")
        self.certificate, self.key = directory / f"{name}.pem", directory / f"{name}.key"
        self._run(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", str(self.key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, names: str) -> tuple[Path, Path]:
        """Return certificate and key for these subject alternative names."""
        base = self.directory / name
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        certificate, key = base.with_suffix(".pem"), base.with_suffix(".key")
        extensions.write_text(f"subjectAltName={names}\n")
        self._run(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        self._run(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate)),
            *("-CAkey", str(self.key), "-CAcreateserial", "-days", "2"),
            *("-extfile", str(extensions), "-out", str(certificate)),
        )
        key.chmod(0o644)
        return certificate, key

    def _run(self, *arguments: str) -> None:
        subprocess.run([self.openssl, *arguments], check=True, capture_output=True, timeout=60)


class Secure(NamedTuple):
    """A server that speaks TLS on one port, and is looked into through another."""

    url: str
    wrong_name: str
    """The same server, by a name that is not in its certificate."""
    count: Callable[[str], int]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def client(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("client", "DNS:client")


@pytest.fixture(scope="module", params=["amqps", "rediss"])
def secure(
    request: pytest.FixtureRequest,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secure]:
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    directory, port = tmp_path_factory.mktemp("secure"), free_port()
    if request.param == "amqps":
        lines = {
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": authority.certificate,
            "ssl_options.certfile": certificate,
            "ssl_options.keyfile": key,
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
        settings = "".join(f"{name} = {value}\n" for name, value in lines.items())
        rabbit = RabbitServer(directory, settings=settings)
        rabbit.start()
        base = "amqps://guest:guest@{}:" + f"{port}//"
        yield Secure(base.format("127.0.0.1"), base.format("localhost"), rabbit.count)
        rabbit.stop()
        return
    tls = ["--tls-port", str(port), "--tls-auth-clients", "yes"]
    tls += ["--tls-ca-cert-file", str(authority.certificate)]
    tls += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    redis = RedisServer(directory, *tls)
    try:
        redis.start()
    except AssertionError:
        redis.stop()
        pytest.skip("this redis-server is built without TLS")

    def count(queue: str) -> int:
        with redis.client() as inside:
            return int(inside.llen(queue))

    yield Secure(f"rediss://127.0.0.1:{port}/0", f"rediss://localhost:{port}/0", count)
    redis.stop()
    shutil.rmtree(directory, ignore_errors=True)


def opened(url: str, settings: dict[str, Any] | None = None, **options: Any) -> Publisher:
    return open_publisher(Broker("broker", (url,), options), settings or {}, "/nonexistent")


@pytest.fixture
def trusted(authority: Authority, client: tuple[Path, Path]) -> dict[str, str]:
    certificate, key = map(str, client)
    return {"ca_certs": str(authority.certificate), "certfile": certificate, "keyfile": key}


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
@pytest.mark.parametrize("prefix", ["", "ssl_"])
def test_tasks_go_to_a_server_of_our_ca(
    secure: Secure, trusted: dict[str, str], queue: str, prefix: str, settings: dict[str, Any]
) -> None:
    use_ssl = {prefix + name: value for name, value in trusted.items()}
    publisher = opened(secure.url, settings, use_ssl=use_ssl)
    assert publisher.check() is None
    assert answers(publisher.publish(messages(route(queue), 300))) == {Answer.ACCEPTED}
    assert secure.count(queue) == 300
    publisher.close()


def test_a_server_of_another_ca_is_not_trusted(
    secure: Secure, trusted: dict[str, str], queue: str, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    for use_ssl in ({**trusted, "ca_certs": str(other.certificate)}, True):
        publisher = opened(secure.url, use_ssl=use_ssl)
        (said,) = publisher.publish([message(route(queue))])
        assert said.answer is Answer.AGAIN
        assert "certificate" in said.reason
        assert "certificate" in (publisher.check() or "")
        publisher.close()
    assert secure.count(queue) == 0


def test_a_server_of_another_name_is_not_trusted_unless_told_to_be(
    secure: Secure, trusted: dict[str, str], queue: str
) -> None:
    publisher = opened(secure.wrong_name, use_ssl=trusted)
    assert "certificate" in (publisher.check() or "")
    publisher.close()
    for more in ({"check_hostname": False}, {"cert_reqs": "none"}):
        publisher = opened(secure.wrong_name, use_ssl={**trusted, **more})
        assert publisher.publish([message(route(queue))]) == [ACCEPTED]
        publisher.close()
    assert secure.count(queue) == 2


def test_a_client_without_its_certificate_is_said_to_be_refused(
    secure: Secure, authority: Authority, queue: str
) -> None:
    publisher = opened(secure.url, use_ssl={"ca_certs": str(authority.certificate)})
    (said,) = publisher.publish([message(route(queue))])
    assert said.answer is Answer.AGAIN
    assert publisher.check()
    publisher.close()


def test_a_file_that_is_not_there_is_named(secure: Secure, trusted: dict[str, str]) -> None:
    publisher = opened(secure.url, use_ssl={**trusted, "keyfile": "/nonexistent/key.pem"})
    reason = publisher.check()
    assert reason is not None
    assert "keyfile '/nonexistent/key.pem' cannot be read" in reason
    publisher.close()


def test_an_unknown_way_to_verify_is_named(secure: Secure, trusted: dict[str, str]) -> None:
    publisher = opened(secure.url, use_ssl={**trusted, "cert_reqs": "maybe"})
    assert "cert_reqs 'maybe' is none of none, optional, required" in (publisher.check() or "")
    publisher.close()
    publisher = opened(secure.url, use_ssl={"ca_cert": trusted["ca_certs"]})
    assert "ca_cert is none of ca_certs, cert_reqs" in (publisher.check() or "")
    publisher.close()


def test_each_broker_has_its_own(
    secure: Secure, trusted: dict[str, str], redis_server: RedisServer, queue: str
) -> None:
    """Celery's broker_use_ssl is for all brokers that say nothing."""
    settings = {"broker_use_ssl": trusted}
    plain = opened(redis_server.url, settings, use_ssl=False)
    assert plain.publish([message(route(queue))]) == [ACCEPTED]
    plain.close()
    general = opened(secure.url, settings)
    assert general.publish([message(route(queue))]) == [ACCEPTED]
    general.close()
    with redis_server.client() as client:
        assert client.llen(queue) == 1
    assert secure.count(queue) == 1
