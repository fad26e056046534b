"""The browser for tests that need one: Debian's, installed where it is missing (some 400 MB, a minute)."""

from __future__ import annotations

from mrkolla.check import browser
from tests import programs


def ensure() -> None:
    """Install what of the browser is missing, saying so; nothing where all is there."""
    programs.ensure(browser.packages(), "the tests of Horizon in a browser")
