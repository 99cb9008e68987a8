"""Celery's own settings for sending tasks, by their new or their old names; not both.

No broker_url here: the brokers are those of BROKERS in config.py. Tasks go to a queue named
"celery" unless they are routed, by 'queue' in PATTERNS or by a line like this one here:

    task_routes = {"import_*": {"queue": "import"}}
"""

# Logging is set up by LOGGING in config.py.
worker_hijack_root_logger = False
