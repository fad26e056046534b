"""What the check is told of a cloud, and what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrkolla.base import remote
from mrkolla.base.errors import CheckError


@dataclass(frozen=True)
class GuestImage:
    """The guest to boot: a disk (its format is its file's suffix, qcow2 or raw), or a kernel with its initrd.

    On its serial console it prints ``mrkolla-guest: dhcp ADDRESS`` and ``mrkolla-guest: booted``.
    """

    disk: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    ram_mb: int = 256
    disk_gb: int = 1

    @property
    def disk_format(self) -> str:
        """Glance's name of the disk's format."""
        return "qcow2" if self.disk and self.disk.suffix == ".qcow2" else "raw"


@dataclass(frozen=True)
class RegionView:
    """One region: ``kind`` is AR or OSR, ``vip`` the address of all its endpoints.

    ``services`` is service type -> interface -> URL as planned, without identity (empty for the AR); ``keystone`` the
    URL of an OSR's own Keystone (without /v3), None where it asks the AR's.
    """

    name: str
    kind: str
    vip: str
    control: Sequence[remote.Host] = ()
    compute: Sequence[remote.Host] = ()
    network: Sequence[remote.Host] = ()
    compute_driver: str = "qemu"
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keystone: str | None = None


@dataclass(frozen=True)
class CloudView:
    """A cloud as the check sees it.

    ``keystone_url`` is the AR's Keystone (``http://VIP:5000``, without /v3), ``public_url`` the one for clients from
    outside where that is another (https), ``admin_auth`` has username, password,
    project_name, user_domain_name and project_domain_name, ``interfaces`` are those that the release registers,
    ``client_interface`` the one that the check's own calls use. Times are in seconds: ``settle_s`` is given to
    services that come up, ``boot_s`` to a server until ACTIVE, and again to its guest. ``run`` runs a command on
    a host, as :func:`mrkolla.base.remote.run` does. ``screenshots`` is the folder for what a real browser saw; ``ca``
    is the certificate (PEM) by which https of the AR is trusted, None where it has none.
    """

    regions: Sequence[RegionView]
    keystone_url: str
    admin_auth: Mapping[str, str]
    interfaces: Sequence[str] = ("internal", "public")
    horizon_url: str | None = None
    guest_image: GuestImage | None = None
    client_interface: str = "public"
    settle_s: float = 60
    boot_s: float = 300
    run: Callable[..., subprocess.CompletedProcess[str]] = remote.run
    public_url: str | None = None
    screenshots: Path | None = None
    ca: Path | None = None

    def identity_url(self, interface: str, region: RegionView | None = None) -> str:
        """Keystone's URL (without /v3) that the catalog must have for ``interface`` in ``region`` (None: the AR)."""
        if region is not None and region.keystone:
            return region.keystone
        return (self.public_url or self.keystone_url) if interface == "public" else self.keystone_url

    @property
    def osrs(self) -> list[RegionView]:
        """The regions that run guests."""
        return [region for region in self.regions if region.kind == "OSR"]

    @property
    def admin_region(self) -> RegionView:
        """The region that has Keystone; CheckError when the view has none."""
        for region in self.regions:
            if region.kind == "AR":
                return region
        raise CheckError("the cloud to check has no admin region")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be. ``interface`` is "" where it says nothing."""

    region: str
    service: str
    interface: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.region, self.service, self.interface) if part)
        return f"{place}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass
class Report:
    """What a check saw.

    ``endpoints``: rows (region, service, type, interface, URL) as Keystone lists them. ``facts``: rows (region, what,
    value) of what worked. ``skipped``: lines on what was not tried, and why.
    """

    findings: list[Finding] = field(default_factory=list)
    endpoints: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing was found (something may have been skipped)."""
        return not self.findings

    def raise_for_findings(self) -> None:
        """Raise CheckError, one line a finding, when there are any."""
        if self.findings:
            raise CheckError("\n".join(str(finding) for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; it holds no secret."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "findings": [vars(finding) for finding in self.findings],
            "endpoints": [list(row) for row in self.endpoints],
            "facts": [list(row) for row in self.facts],
            "skipped": list(self.skipped),
        }
