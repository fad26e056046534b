"""``python -m mrkolla``."""

from mrkolla.cli import main

main()
