"""What watchman is, needs and installs. The tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Return ``__version__`` from the package without importing it."""
    text = (HERE / "watchman" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("watchman/__init__.py: no __version__ line")
    return match[1]


def description() -> str:
    """Return the README, which a checkout that is being assembled may not have yet."""
    readme = HERE / "README.rst"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="watchman",
    version=version(),
    description="Watch upload directories; turn every completed upload into one Celery task.",
    long_description=description(),
    long_description_content_type="text/x-rst",
    author="the watchman authors",
    license="MIT",
    keywords=["inotify", "celery", "ftp", "proftpd", "sftp", "upload", "watch", "daemon"],
    classifiers=[
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Filesystems",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["watchman", "watchman.*"]),
    package_data={"watchman": ["py.typed"]},
    # Beside the interpreter of a wheel, where the error for a missing configuration finds it.
    data_files=[("share/watchman", ["config-example.py", "celeryconfig.py", "supervisord.conf"])],
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        # The last release, of 2015: pinned because watchman relies on how its parts behave.
        'pyinotify==0.9.6; sys_platform == "linux"',
        # pyinotify imports asyncore, which left the standard library in 3.12.
        'pyasyncore>=1.0.5; python_version >= "3.12"',
        # The extra is needed: celery and redis installed side by side fail at import.
        "celery[redis]>=5.4,<6",
        "kombu>=5.4,<6",
        "blinker>=1.6",
        "click>=8.1",
        "supervisor>=4.2.5",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "mypy>=1.11",
            "psutil>=6",
            "pytest>=8.2",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
        ],
    },
    entry_points={"console_scripts": ["notify = watchman.__main__:main"]},
)
