"""``python -m watchman`` is ``notify``."""

from watchman.cli import main

main(prog_name="notify")
