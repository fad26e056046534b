"""The testbeds that come with mrkolla, as plug-ins."""

from __future__ import annotations

from mrkolla.base.plugins import Finding
from mrkolla.config.static import StaticTestbed
from mrkolla.config.testbeds import G5kTestbed, LocalTestbed
from mrkolla.config.vagrant import VagrantTestbed
from mrkolla.providers.contract import ModuleTestbed


class _Local(ModuleTestbed):
    @classmethod
    def needs(cls) -> list[Finding]:
        """See :meth:`mrkolla.base.plugins.Plugin.needs`."""
        from mrkolla.providers import machine

        return machine.look()


LOCAL = _Local("local", LocalTestbed, "mrkolla.providers.local.testbed")
G5K = ModuleTestbed("g5k", G5kTestbed, "mrkolla.providers.g5k.testbed")
VAGRANT = ModuleTestbed("vagrant", VagrantTestbed, "mrkolla.providers.vagrant.testbed")
STATIC = ModuleTestbed("static", StaticTestbed, "mrkolla.providers.static.testbed")
