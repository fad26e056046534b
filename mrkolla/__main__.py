"""``python -m mrkolla``."""

from mrkolla.cli.main import main

main()
