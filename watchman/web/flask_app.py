"""What is at which path."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException

from watchman import __version__, metrics
from watchman.commands.history import WHY_NOTED
from watchman.errors import TimeLimitOver, WatchmanError
from watchman.journal.question import LARGEST
from watchman.model import Config
from watchman.status.overview import as_json
from watchman.text import printable
from watchman.web import file_page, observed, view
from watchman.web.access import Access
from watchman.web.observed import Observer
from watchman.web.passwords import BusyWithPasswords
from watchman.web.queries import STATES, BadQuestion, WebQuery, parse

log = logging.getLogger("watchman.web")

_SAID = {
    404: "There is nothing here.",
    405: "This can only be looked at.",
    421: (
        "It is asked for by a name that is not this machine's own. Ask for localhost, or name the "
        "other one with --host."
    ),
}
_BUSY = "Several people ask at once; ask again in a moment."


def create_app(config: Config, access: Access, max_age: float = metrics.MAX_AGE) -> Flask:
    """Return the application. It reads ``config.state_dir``, and what says who runs.

    ``max_age``: seconds after which what waits is no longer healthy.
    """
    app = Flask("watchman.web")
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["number"] = view.number
    app.url_map.merge_slashes = False
    host = printable(socket.gethostname())
    app.jinja_env.globals.update(host=host, version=__version__, zone=view.zone)
    access.guard(app)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(WatchmanError, _our_error)
    app.register_error_handler(Exception, _any_error)
    pages = _Pages(Observer(config, max_age))
    for path, answer in pages.paths().items():
        app.add_url_rule(
            path, answer.__name__, answer, methods=["GET"], provide_automatic_options=False
        )
    return app


class _Pages:
    """An answer for each path."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def paths(self) -> dict[str, Callable[..., Any]]:
        return {
            "/": self.overview,
            "/files": self.files,
            "/files/<int:seq>": self.file,
            "/status.json": self.status,
            "/metrics": self.metrics,
            "/healthz": self.healthz,
        }

    def overview(self) -> str:
        return render_template("overview.html", page=view.page(self._observer.overview()))

    def files(self) -> tuple[str, int]:
        asked, code, problem = WebQuery(), 200, ""
        found = observed.FoundDeliveries((), False, False, None, (), ())
        try:
            asked = parse(request.query_string)
            found = self._observer.find(asked)
        except BadQuestion as error:
            code, problem = 400, str(error)
        except TimeLimitOver as error:
            code, problem = 503, str(error)
        except observed.Busy:
            code, problem = 503, _BUSY
        now = time.time_ns()
        listed = [view.file(record, now) for record in found.records]
        shown = {name: printable(getattr(asked, name)) for name in WebQuery.__dataclass_fields__}
        page = render_template(
            "files.html",
            asked=asked,
            shown=shown,
            states=STATES,
            brokers=self._brokers(),
            problem=problem,
            found=found,
            files=listed,
            why_noted=WHY_NOTED[found.noted] if found.noted is not None else "",
            partial=[
                view.partial_file(one.path, one.since_ns, one.reason, now) for one in found.partial
            ],
            unreadable=list(map(printable, found.unreadable)),
        )
        return page, code

    def file(self, seq: int) -> str:
        told = self._observer.one(seq) if seq <= LARGEST else None
        if told is None:
            abort(404)
        overview = self._observer.overview()
        return render_template(
            "file.html",
            file=view.file(told.record, overview.now_ns),
            facts=file_page.facts(told.record),
            steps=file_page.steps(told, overview.status, overview.now_ns),
        )

    def status(self) -> Response:
        overview = self._observer.overview()
        return _json(as_json(overview.status, overview.now_ns))

    def metrics(self) -> Response:
        return Response(self._observer.exposition(), content_type=metrics.CONTENT_TYPE)

    def healthz(self) -> Response:
        found = self._observer.health()
        code = 200 if found.serving else 503
        return Response(f"{found.line}\n", code, content_type="text/plain; charset=utf-8")

    def _brokers(self) -> list[str]:
        """Return the names to choose from: those that anything was ever for."""
        try:
            found = self._observer.overview().status
        except WatchmanError:
            return []
        told = found.snapshot["brokers"] if found.snapshot else {}
        return sorted({*told, *(one.broker for one in found.deliveries if one.broker)})


def _json(value: Any) -> Response:
    return Response(json.dumps(value, indent=2, default=str), content_type="application/json")


def _error(code: int, words: str) -> tuple[str, int]:
    return render_template("error.html", code=code, words=words), code


def _http_error(error: HTTPException) -> Any:
    if error.response is not None or error.code is None or error.code < 400:
        return error  # it has an answer of its own
    page = _error(error.code, _SAID.get(error.code, error.name))
    return *page, [pair for pair in error.get_headers() if pair[0] in {"Allow", "Retry-After"}]


def _our_error(error: WatchmanError) -> Any:
    return _error(503, printable(str(error)))


def _any_error(error: Exception) -> Any:
    if isinstance(error, (observed.Busy, BusyWithPasswords)):
        return *_error(503, _BUSY), {"Retry-After": "2"}
    log.exception("%s cannot be answered", printable(request.path), exc_info=error)
    return _error(500, "Something is wrong with this page; the log of notify web tells what.")
