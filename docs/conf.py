"""How Sphinx makes the documentation: ``sphinx-build --fail-on-warning docs build/docs``."""

import re
from pathlib import Path

_SOURCE = Path(__file__).resolve().parent.parent / "watchman" / "__init__.py"

project = "watchman"
author = "the watchman authors"
copyright = "the watchman authors"  # noqa: A001 — the name that Sphinx reads
release = re.findall(r'^__version__ = "(.+)"$', _SOURCE.read_text("utf-8"), re.MULTILINE)[0]
language = "en"
nitpicky = True
smartquotes = False  # commands and messages are quoted as they are typed and printed
html_theme = "alabaster"
html_theme_options = {
    "description": "Uploads to Celery tasks",
    "fixed_sidebar": True,
    "page_width": "70rem",
    "body_max_width": "56rem",
}
html_show_sourcelink = False
html_copy_source = False
