"""watchman: every completed upload becomes one named Celery task on the right broker."""

__version__ = "1.0.0"
