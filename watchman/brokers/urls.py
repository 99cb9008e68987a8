"""Broker URLs: whether they can be used, with the options behind their ``?``.

Nothing is imported for that, and the network is not touched.
"""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from urllib.parse import parse_qsl, urlsplit

from watchman.masking import mask, public_url, remember, split_urls

AMQP = ("amqp", "amqps", "pyamqp")
REDIS = ("redis", "rediss", "sentinel")
# Scheme -> (module that must be importable, what to install).
_PLAIN = {
    **dict.fromkeys(AMQP, ("amqp", "celery")),
    **dict.fromkeys(REDIS, ("redis", "'celery[redis]'")),
}
_OTHERS = {
    "azureservicebus": ("azure.servicebus", "'kombu[azureservicebus]'"),
    "azurestoragequeues": ("azure.storage.queue", "'kombu[azurestoragequeues]'"),
    "confluentkafka": ("confluent_kafka", "'kombu[confluentkafka]'"),
    "consul": ("consul", "'kombu[consul]'"),
    "etcd": ("etcd", "python-etcd"),
    "gcpubsub": ("google.cloud.pubsub_v1", "'kombu[gcpubsub]'"),
    "kafka": ("confluent_kafka", "'kombu[confluentkafka]'"),
    "librabbitmq": ("librabbitmq", "librabbitmq"),
    "mongodb": ("pymongo", "'kombu[mongodb]'"),
    "pyro": ("Pyro4", "Pyro4"),
    "qpid": ("qpid", "qpid-python"),
    "slmq": ("softlayer_messaging", "softlayer-messaging"),
    "sqla": ("sqlalchemy", "sqlalchemy"),
    "sqlalchemy": ("sqlalchemy", "sqlalchemy"),
    "sqs": ("boto3", "'kombu[sqs]'"),
    "zookeeper": ("kazoo", "'kombu[zookeeper]'"),
}
_WITHOUT_HOST = frozenset({"filesystem"})
_IN_MEMORY = re.compile(
    r"memory(\+.*)?://|sqla(lchemy)?\+sqlite[^:]*:(//)?(/?(:memory:.*)?|.*mode=memory.*)$", re.I
)
# These take their credentials and hosts in ways of their own.
_HOST_OPTIONAL = frozenset({"sqs", "gcpubsub", "azureservicebus", "azurestoragequeues", "sqla"})

# kombu parses the options of these; other transports have ways of their own.
_WITH_OPTIONS = frozenset({*AMQP, "redis", "rediss"})
_NUMBERS = frozenset({"connect_timeout", "heartbeat"})
KNOWN = _NUMBERS | {"credential_provider", "insist", "login_method", "ssl"}
"""The parameters of ``kombu.Connection`` that a URL can hold as text."""
_TLS = "ssl_"
_CERT_REQS = ("CERT_REQUIRED", "required", "CERT_OPTIONAL", "optional", "CERT_NONE", "none")


def scheme_of(url: str) -> str:
    """Return the transport that a URL names, in lower case: ``sqla`` for ``sqla+sqlite://…``."""
    return url.partition("://")[0].partition("+")[0].lower() if "://" in url else ""


def check_url(url: str) -> str | None:
    """Return why a broker URL cannot be used, in one line, or None. Does not touch the network."""
    remember(url)
    shown = public_url(url)
    if "://" not in url:
        return f"{shown!r} is no URL; write it as SCHEME://HOST, for example redis://127.0.0.1/0"
    if any(";" in part for part in split_urls(url)):  # kombu would divide it there
        write = f"{shown} cannot be divided; write each URL with its scheme: amqp://one;amqp://two"
        return _apart(shown) if "@" in url else write
    scheme = scheme_of(url)
    if _IN_MEMORY.match(url):
        return (
            f"{shown} keeps tasks in watchman's own memory, where no worker finds them; write "
            "filesystem:// for a broker without a server"
        )
    if scheme in _WITHOUT_HOST:
        return None
    known = _PLAIN.get(scheme) or _OTHERS.get(scheme)
    if known is None:
        return _check_alias(scheme, shown)
    module, package = known
    if not _importable(module):
        return f"{shown}: the Python package for {scheme}:// is missing; run pip install {package}"
    wrong = _check_host(url, scheme, shown)
    if wrong is None:
        option = _check_options(url, scheme)
        wrong = None if option is None else f"{shown}: {option}"
    return wrong


def _check_alias(scheme: str, shown: str) -> str | None:
    """Look a rare scheme up in the transports of the kombu that is installed."""
    try:
        from kombu.transport import TRANSPORT_ALIASES
    except ImportError:
        return f"{shown}: Celery is missing; run pip install celery"
    if scheme in {alias.lower() for alias in TRANSPORT_ALIASES}:
        return None
    usual = ", ".join(f"{name}://" for name in (*_PLAIN, *sorted(_WITHOUT_HOST)))
    return f"{shown}: unknown scheme {scheme!r}; usual ones are {usual}"


def _check_host(url: str, scheme: str, shown: str) -> str | None:
    if "+" in url.partition("://")[0] or scheme in _HOST_OPTIONAL:
        return None
    for part in split_urls(url):
        rest = part.partition("://")[2]
        try:
            # kombu reads what follows the scheme as it would an HTTP URL.
            split = urlsplit("http://" + rest)
            host, port = split.hostname, split.port
        except ValueError as error:
            # It would repeat what may be half a password.
            return _apart(shown) if "@" in url else f"{shown}: {mask(str(error), url)}"
        if "@" in rest[len(split.netloc) :]:  # what is before it is half a password
            return _apart(shown)
        if not host:
            return f"{shown}: no host; write {scheme}://HOST"
        if port == 0:
            return f"{shown}: port 0 is none"
    return _check_database(url, scheme, shown)


def _apart(shown: str) -> str:
    """Return that special characters of a password have another meaning where they stand."""
    return (
        f"{shown} cannot be taken apart; write special characters of the user and the password as "
        "in %40 for @, %2F for /, %3F for ?, %23 for #, %3B for ;"
    )


def _check_database(url: str, scheme: str, shown: str) -> str | None:
    if scheme not in ("redis", "rediss"):
        return None
    database = urlsplit("http://" + url.partition("://")[2]).path.strip("/")
    if database and not database.isdigit():
        return f"{shown}: the database after the host must be a number, not {database!r}"
    return None


def _check_options(url: str, scheme: str) -> str | None:
    """Return which option of the URL cannot be used, and what to write; None if all can."""
    _, mark, query = url.partition("?")
    if not mark or scheme not in _WITH_OPTIONS or "+" in url.partition("://")[0] or "@" in query:
        return None
    for name, value in parse_qsl(query):
        if name in _NUMBERS and not _is_number(value):
            return f"the option {name!r} in the URL is {value!r}; write a number of seconds"
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            return f"the option {name!r} in the URL is {value!r}; write required, optional or none"
        if name not in KNOWN and not name.startswith(_TLS):
            return (
                f"the URL has an option {name!r}, which kombu does not know there; write it beside "
                f"the URL: {{'url': …, {name!r}: …}}"
            )
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and 0 <= float(text) <= 2_000_000
    except ValueError:
        return False


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
