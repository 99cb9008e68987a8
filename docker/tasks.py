"""The tasks of the development set-up: they log what they get. BROKER_URL says from where."""

import os

from celery import Celery
from celery.utils.log import get_task_logger

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True
log = get_task_logger(__name__)


@app.task(name="lizard_task")
def lizard_task(path):
    """Log the size of a file that came as /srv/ftp/*.csv."""
    log.info("%s has %d bytes", path, os.path.getsize(path))


@app.task(name="3di_task")
def threedi_task(path):
    """Log the size of a file that came as /srv/ftp/*.nc."""
    log.info("%s has %d bytes", path, os.path.getsize(path))
