"""``web``: the page."""

from __future__ import annotations

from collections.abc import Sequence

import click

from watchman.commands.common import absolute, common, load_own, say
from watchman.commands.metrics_and_health import Age
from watchman.errors import WatchmanError


@click.command(
    help=(
        "Show in a browser how it stands and what became of files.\n\n"
        "It only reads, and asks as the user that it runs as: the one that watchman runs as, or "
        "root. From other machines it is best reached through ssh -L, or a proxy with TLS."
    )
)
@common
@click.option(
    "--listen",
    "address",
    default="127.0.0.1:9002",
    show_default=True,
    metavar="HOST:PORT",
    help="Where; what other machines can reach needs --auth.",
)
@click.option(
    "--auth",
    type=click.Path(),
    metavar="FILE",
    help="Names and passwords, made with 'htpasswd -B'; also apr1, SHA crypt and {SHA}.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A further name by which a proxy on this machine asks; without --auth it is refused.",
)
@click.option(
    "--max-age",
    type=Age(),
    default="10m",
    show_default=True,
    help="How long a delivery may wait, or a broker be down, before /healthz says 503.",
)
def web(address: str, auth: str | None, hosts: Sequence[str], max_age: float) -> None:
    try:
        import flask  # noqa: F401 — whether it is there
        import waitress  # noqa: F401 — whether it is there
        from passlib import context  # noqa: F401 — whether it is there
    except ImportError as error:
        raise WatchmanError(
            f"web needs {error.name}: pip install 'watchman[web]', from a checkout '.[web]'"
        ) from error
    from watchman.web.access import Access
    from watchman.web.flask_app import create_app
    from watchman.web.passwords import PasswordFile
    from watchman.web.server import listen, serve

    config = load_own()
    passwords = None if auth is None else PasswordFile(absolute(auth))
    places = listen(address, has_passwords=passwords is not None)
    serve(config, places, create_app(config, Access(passwords, hosts), max_age), say)


COMMANDS = (web,)
