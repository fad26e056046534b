"""A short-lived local host whose Docker has the built images, to write or push them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mrkolla.base import cache, remote
from mrkolla.providers.local import Local


@contextmanager
def lone_host(provider: Local) -> Iterator[remote.Host]:
    """The one host of ``provider`` while the context lasts; what a process that was killed left of it goes first.

    Its name and addresses are the same each time, so another process that wants it waits: it would remove this one's.
    """
    name = provider.provider_conf.name
    with cache.locked(name, lambda text: provider.say(f"waiting for another mrkolla's host '{name}'")):
        try:
            provider.destroy()
            provider.init()
            yield provider.host(provider.machines()[0])
        finally:
            provider.destroy()
