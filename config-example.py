"""An example configuration: copy it to config.py and adapt it.

It is Python: constants, functions and imports of your own are welcome. `notify check` tests
what it says, `notify match PATH` tells what would become of a file.
"""

from collections import OrderedDict

# True if ProFTPD makes the directories: it creates some under a temporary name (.dst…) and
# renames them. Both settings work; it is kept so that older configurations load.
ProFTPD = True

# Where tasks are sent: a name of your choice, and a URL; a list of URLs for failover; or a dict
# with 'url' and transport options. A broker that is down holds up only its own tasks.
BROKERS = {
    "import": "amqp://guest:guest@localhost:5672//",
    "forecast": {"url": "redis://localhost:6379/0", "socket_timeout": 5},
}

# The directories to watch: the arguments of pyinotify's add_watch, and more:
#   settle      seconds without a change before a file counts as complete (default: 0 where the
#               kernel tells whether a file is still open for writing, else 10)
#   existing    what to do at the first run with files that are there already:
#               'new' (only note them), 'all' (send them), 'none' (never catch up)
#   method      'auto', 'inotify', or 'poll' (network file systems), every `interval` seconds
#   kind        'files', or 'directories': one task for each finished directory
#   unfinished  names of directories that are still being filled, for kind='directories' (default:
#               those whose extension begins with .tmp, such as series.tmp1234)
#   marker      the name of a file that must be in a directory before it is finished
WATCHES = [
    {"path": "/srv/ftp", "rec": True, "auto_add": True},
]

# Which file becomes which task. Patterns are compared with the whole path, before it is moved;
# * also stands for slashes; upper and lower case differ. The first that matches wins.
# The task gets the final path as its argument, then `args` and `kwargs`; `options` are those of
# Celery's apply_async. An upload that was aborted looks complete to the kernel; so a pattern, or a
# watch for all below it, may ask for more:
#   complete          what it must be: 'auto' (whole, by its content), 'gzip', 'netcdf4', 'csv'
#                     or another format, with ':thorough' behind it read as a whole; a dict with
#                     'marker', 'checksum' or 'size' and how the file beside it is called, such as
#                     '{name}.sha256' or 'MD5SUMS' ({stem} is the name without its last suffix); a
#                     function of path and open file: True, False or a reason; a list of these
#   incomplete_after  seconds for which a file may stay partial (default: 3600)
#   incomplete_task   the task for it then; without one `notify failed` lists it
#   marker_action     what becomes of the files beside it: 'move' with it, 'remove' or 'keep'
# Files that belong together are moved together, and give one task with the paths of all as `files`:
#   with              how those are called that go with the one that matches: ['{stem}.shx',
#                     '{stem}.dbf', '{stem}.prj?']; those with a ? may be missing
#   set_after         seconds for which a set waits for these, or for further files where one of
#                     them is uploaded again (default: 5)
PATTERNS = OrderedDict(
    [
        ("/srv/ftp/*/events/*.csv", {"broker": "import", "task": "import_events"}),
        ("/srv/ftp/*.csv", {"broker": "import", "task": "import_timeseries"}),
        (
            "/srv/ftp/*.nc",
            {
                "broker": "forecast",
                "task": "run_forecast",
                "kwargs": {"model": "rain"},
                "options": {"queue": "slow", "expires": 6 * 3600},
            },
        ),
        # One task for up to 100 files, which it gets as files=[…]; none waits longer than 5 s.
        (
            "/srv/ftp/*.json",
            {
                "broker": "import",
                "task": "import_messages",
                "batch": {"size": 100, "seconds": 5},
            },
        ),
    ]
)

# Files below a key are moved before their task is sent, whether or not a pattern matches:
# /srv/ftp/alice/data.csv to /mnt/storage/incoming/alice/data.csv. The destination itself must
# exist, so that an unmounted share is never filled. Nothing is ever overwritten.
MOVES = {
    # "/srv/ftp": "/mnt/storage/incoming",
}

# Where files go that have stayed partial; it must exist, and must not be watched. By default they
# stay where they are.
QUARANTINE = None

# Names that are never looked at: what servers and clients call a file while it is uploaded. This
# is the default; a list of your own replaces it. Those of the second part are about files alone,
# whatever their case: a directory x.tmp is one like any other.
IGNORE = [
    ".in.*.",  # ProFTPD
    ".dst*",
    ".pureftpd-upload.*",
    ".~tmp~",  # rsync
    ".*.[A-Za-z0-9][A-Za-z0-9][A-Za-z0-9][A-Za-z0-9][A-Za-z0-9][A-Za-z0-9]",
    "*.part",  # Firefox, Nextcloud
    "*.partial",  # rclone
    "*.filepart",  # WinSCP
    "*.tmp",
    ".in.*",  # lftp
    ".sftpgo-upload.*",
    ".syncthing.*.tmp",
    "~syncthing~*.tmp",
    ".*.~[0-9a-f]*",  # Nextcloud's client
    ".mutagen-temporary-*",
    ".azdownload-*",
    "*.part.minio",
    "*_.gstmp",
    "*.crdownload",
    "*.opdownload",
    "*.!qb",
    "*.!ut",
]

# Paths that are logged, but neither moved nor sent.
DRY_RUN = [
    # "/srv/ftp/test/*",
]

# Logs in which FTP servers tell who uploaded what: it becomes headers of the tasks. Formats are
# xferlog, vsftpd, clf, stats, w3c, and extended (with the server's LogFormat as 'log_format').
# `prefixes` say where the paths in a log lead: {"/": "/srv/ftp/{user}"}, where each user is shut
# in. Such an entry is {"path": "/var/log/vsftpd.log", "format": "vsftpd", "prefixes": …}. More in
# docs/transfer-logs.rst.
TRANSFER_LOGS = []

# A dictConfig dict; without it, the same goes to stderr. Instead of it, LOG_FORMAT may be "json":
# one JSON object on each line.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "simple": {"format": "%(asctime)s [%(levelname)s] %(name)s: %(message)s"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "simple"},
    },
    "root": {"level": "INFO", "handlers": ["console"]},
}

# From which size on `notify start` rotates its output (watchman.out, watchman.err), and how many
# older files of each it keeps. 0 megabytes: never, as where logrotate does it.
LOG_MEGABYTES = 50
LOG_FILES = 5

# Where watchman keeps its journal, its process id and its output as a daemon; relative to this
# file. Not below a watched directory. The last two go with STATE_DIR unless they are set.
STATE_DIR = "var"
PID_FILE = "var/watchman.pid"
LOG_DIR = "var/log"

# How long `notify history` remembers.
HISTORY_DAYS = 30

# Whom to tell, besides the log: a list of arguments (a program, run without a shell, that reads
# JSON from its standard input), a URL to which JSON is POSTed, a function that takes a dict, or the
# dotted path of one. A trouble is told once when it begins and once when it is over; failed
# deliveries are gathered for five seconds. A call has 30 s, and no file waits for it.
ON_TROUBLE = None  # such as "https://hooks.example.org/watchman"
ON_RECOVERED = None
ON_FAILED = None  # such as ["/usr/local/bin/mail-json", "root"]

# Metrics, written every 15 s for the textfile collector of Prometheus's node_exporter, such as
# "/var/lib/prometheus/node-exporter/watchman.prom".
METRICS_FILE = None
