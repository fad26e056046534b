"""Hosts on one Linux machine (testbed ``local``)."""

from mrkolla.providers.local.configuration import LocalConf
from mrkolla.providers.local.provider import Local, load

__all__ = ["Local", "LocalConf", "load"]
