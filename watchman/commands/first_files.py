"""What ``notify init`` writes: files that work at once, and say where to go on."""

from __future__ import annotations

CONFIG = '''\
"""What watchman watches, and which upload becomes which task. It is Python.

`notify check` tests what it says, `notify match PATH` tells what would become of a file, and
`notify reload` has a running daemon read it again.
"""

import os
from glob import escape

HERE = os.path.dirname(os.path.abspath(__file__))
UPLOAD = os.path.join(HERE, "upload")

# Where tasks are sent: a name of your choice, and a URL. filesystem:// is a broker in a directory
# below STATE_DIR, without a server, for workers on this machine. Others are
# "amqp://user:password@host//" and "redis://host:6379/0".
BROKERS = {
    "local": "filesystem://",
}

# The directories to watch: "rec" with those that are below it now, "auto_add" with those that are
# made there later.
WATCHES = [
    {"path": UPLOAD, "rec": True, "auto_add": True},
]

# Which file becomes which task: patterns for the whole path, * also stands for slashes, and the
# first that matches wins. Brackets in UPLOAD are part of its name: that is what escape is for. The
# task gets the path as its argument.
PATTERNS = [
    (escape(UPLOAD) + "/*.csv", {"broker": "local", "task": "import_table"}),
    (escape(UPLOAD) + "/*", {"broker": "local", "task": "import_file"}),
]

# Files below a key are moved to the directory behind it, which must exist, before their task is
# sent. Nothing is ever overwritten.
MOVES = {
    # UPLOAD: "/mnt/storage",
}

# Where watchman keeps its journal, its process id and its output; relative to this file.
STATE_DIR = "var"

# How long `notify history` remembers.
HISTORY_DAYS = 30

# More settings, with comments: {example}
'''

CELERYCONFIG = '''\
"""Celery's own settings for sending tasks, by their new or their old names; not both.

No broker_url here: the brokers are those of BROKERS in config.py. Tasks go to a queue named
"celery" unless they are routed, by 'queue' in PATTERNS or by a line like this one here:

    task_routes = {"import_*": {"queue": "import"}}
"""

# Logging is set up by LOGGING in config.py.
worker_hijack_root_logger = False
'''

TASKS = '''\
"""The tasks that config.py names, for a worker: celery -A tasks worker --loglevel INFO"""

import os

from celery import Celery
from celery.utils.log import get_task_logger
from watchman.brokers.filesystem import embedded_options

HERE = os.path.dirname(os.path.abspath(__file__))

# The broker below STATE_DIR of config.py. With a broker that has a server, its URL is enough.
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = embedded_options(os.path.join(HERE, "var"))

log = get_task_logger(__name__)


@app.task(name="import_table", bind=True)
def import_table(self, path):
    # self.request.id stays the same if a task is ever sent twice, which only a crash can cause;
    # self.request.headers tell where the file came from: watchman_source, watchman_size …
    with open(path, newline="") as table:
        log.info("%s has %d lines", path, sum(1 for _ in table))


@app.task(name="import_file")
def import_file(path):
    log.info("%s has %d bytes", path, os.path.getsize(path))
'''
