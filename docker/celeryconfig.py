"""Celery's settings for the tasks that watchman sends in the development set-up."""

worker_hijack_root_logger = False
