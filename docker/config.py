"""The configuration of the development set-up; hosts are the services of docker-compose.yml."""

ProFTPD = True

BROKERS = {
    "lizard": "amqp://guest:guest@rabbitmq:5672//",
    "3di": "redis://redis:6379/0",
}

WATCHES = [
    {"path": "/srv/ftp", "rec": True, "auto_add": True},
]

PATTERNS = [
    ("/srv/ftp/*.csv", {"broker": "lizard", "task": "lizard_task"}),
    ("/srv/ftp/*.nc", {"broker": "3di", "task": "3di_task"}),
]

MOVES = {}

# A volume: the journal outlives the container.
STATE_DIR = "/var/lib/watchman"
