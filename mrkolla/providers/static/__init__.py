"""The static testbed: hosts of one's own, reached by SSH."""

from mrkolla.providers.static.provider import configuration, provider

__all__ = ["configuration", "provider"]
