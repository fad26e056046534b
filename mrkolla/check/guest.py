"""A guest in one region, as a normal user: image, network, server, and what the guest itself says."""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from mrkolla.check.cleanup import Undo, delete_server
from mrkolla.check.client import one_line
from mrkolla.check.model import CloudView, Finding, GuestImage, RegionView

CIDR = "10.77.0.0/24"
POLL_S = 2
API_ERRORS = (SDKException, ClientException)


def guest_lines(console: str) -> tuple[str | None, bool]:
    """(the address that the guest says it got by DHCP, whether it says that it booted) from a console log."""
    address = re.search(r"mrkolla-guest: dhcp[ \t]+([^\s/]+)", console)
    booted = re.search(r"mrkolla-guest: booted\b", console)
    return (address[1] if address else None), bool(booted)


def same_address(one: str, other: str) -> bool:
    """Whether two texts are the same IP address; a text that is none is the same as nothing."""
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False


@dataclass
class Trial:
    """One region's guest: ``user`` and ``admin`` are connections to that region, ``project_id`` is the user's.

    :meth:`run` fills ``image`` (the name of the uploaded image), ``network`` (that of the network), ``findings``,
    ``facts`` and ``skipped``; ``undo`` removes what it made. ``say`` is told each step; ``stop`` ends its waits;
    ``may_boot`` is asked once all is made that a guest needs, and may take its time.
    """

    view: CloudView
    region: RegionView
    undo: Undo
    stop: threading.Event
    say: Callable[[str], None] = lambda step: None
    may_boot: Callable[[], bool] = lambda: True
    name: str = ""
    user: Any = None
    admin: Any = None
    project_id: str = ""
    image: str | None = None
    network: str | None = None
    findings: list[Finding] = field(default_factory=list)
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    #: Set once the image is there, or will not be.
    uploaded: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Upload, boot, read the console. A cloud that does not work gives a finding that names the service."""
        service = "image"
        try:
            self._be_patient()
            self.say("uploading the guest's image")
            image = self._upload()
            self.uploaded.set()
            service = "compute"
            self.say("making a flavor and a network")
            flavor = self._flavor()
            service = "network"
            network = self._network()
            service = "compute"
            server = None
            if self.may_boot():

                def made() -> str:
                    return self._server(self.name, image, flavor, {"uuid": network.id})

                server = self._active(made(), time.monotonic(), once_more=made)
            if server is not None:
                self._read_guest(server)
        except API_ERRORS as error:
            self._wrong(service, "guest", "each call answered", one_line(error))
        finally:
            self.uploaded.set()

    def _be_patient(self) -> None:
        """Have a 502, 503 or 504 tried again for half a minute: HAProxy gives some for services that just come up.

        Not Glance's: an upload that is sent twice would be cut short.
        """
        for proxy in (self.user.network, self.user.compute, self.admin.network, self.admin.compute):
            proxy.retriable_status_codes = [502, 503, 504]
            proxy.status_code_retries = 6  # after 0.5, 1, 2, ... 16 s (keystoneauth)

    def _wrong(self, service: str, what: str, expected: str, found: str) -> None:
        self.findings.append(Finding(self.region.name, service, "", what, expected, found))

    def _saw(self, what: str, value: str) -> None:
        self.facts.append((self.region.name, what, value))

    @property
    def _own_name(self) -> str:
        return f"{self.name}-{self.region.name}"

    def _upload(self) -> Any:
        guest, started = self.view.guest_image, time.monotonic()
        if guest and guest.disk:
            image = self._image("", filename=str(guest.disk), disk_format=guest.disk_format, container_format="bare")
        elif guest and guest.kernel and guest.initrd:
            kernel = self._image("-kernel", filename=str(guest.kernel), disk_format="aki", container_format="aki")
            initrd = self._image("-initrd", filename=str(guest.initrd), disk_format="ari", container_format="ari")
            parts = {"kernel_id": kernel.id, "ramdisk_id": initrd.id}
            image = self._image("", data=bytes(1 << 20), disk_format="ami", container_format="ami", **parts)
        else:
            image = self._image("", data=bytes(1 << 20), disk_format="raw", container_format="bare")
        self.image = self._own_name
        self._saw("image uploaded", f"{time.monotonic() - started:.1f} s")
        return image

    def _image(self, suffix: str, **keywords: Any) -> Any:
        name = self._own_name + suffix
        # Before it is made: an upload that fails half-way leaves an image without data.
        self.undo.push("image", f"image {name}", lambda: self._delete_images(name))
        return self.user.image.create_image(name, allow_duplicates=True, wait=True, timeout=300, **keywords)

    def _delete_images(self, name: str) -> None:
        for image in self.user.image.images(name=name):
            self.user.image.delete_image(image, ignore_missing=True)

    def _flavor(self) -> Any:
        guest = self.view.guest_image or GuestImage()
        flavor = self.admin.compute.create_flavor(
            name=self._own_name, ram=guest.ram_mb, vcpus=1, disk=guest.disk_gb, is_public=False
        )
        self.undo.push("compute", f"flavor {flavor.name}", lambda: self.admin.compute.delete_flavor(flavor.id))
        self.admin.compute.flavor_add_tenant_access(flavor.id, self.project_id)
        return flavor

    def _network(self) -> Any:
        # Neutron makes a default group with a project's first network; only an admin may delete it.
        self.undo.push("network", f"security groups of {self.name}", self._delete_groups)
        network = self.user.network.create_network(name=self._own_name)
        # Deleting a network deletes its subnets and DHCP ports too.
        self.undo.push("network", f"network {self._own_name}", lambda: self.user.network.delete_network(network.id))
        self.user.network.create_subnet(name=self.name, network_id=network.id, ip_version=4, cidr=CIDR, gateway_ip=None)
        self.network = self._own_name
        return network

    def _delete_groups(self) -> None:
        for group in list(self.admin.network.security_groups(project_id=self.project_id)):
            self.admin.network.delete_security_group(group.id)

    def _server(self, name: str, image: Any, flavor: Any, network: dict[str, str]) -> str:
        """Have a server made, with one card in ``network`` (as Nova takes it); returns its id."""
        server = self.user.compute.create_server(name=name, image_id=image.id, flavor_id=flavor.id, networks=[network])
        server_id: str = server.id
        self.undo.push("compute", f"server {name}", lambda: delete_server(self.user, server_id))
        return server_id

    def _active(self, made: str, started: float, once_more: Callable[[], str] | None = None) -> Any:
        """The server of that id, asked for at ``started``, when it is ACTIVE; None, with a finding, when it is not.

        For one in ERROR another is made by ``once_more``: Nova gives a server up at the first 504 of a service that
        just came up. That it took two is a fact of the report.
        """
        while True:
            server = self.user.compute.get_server(made)
            waited = time.monotonic() - started
            state = f"{server.status} ({server.task_state or 'no task'})"
            if server.status == "ACTIVE":
                self._saw("server ACTIVE", f"{waited:.1f} s")
                return server
            if server.status == "ERROR":
                fault = " ".join(str((server.fault or {}).get("message", "no reason given")).split())
                if once_more is not None:
                    self._saw("a first server", f"ERROR: {fault[:300]}")
                    return self._active(once_more(), time.monotonic())
                self._wrong("compute", "server", "ACTIVE", f"ERROR: {fault[:300]}")
                return None
            if waited > self.view.boot_s or self.stop.is_set():
                self._wrong("compute", "server", "ACTIVE", f"{state} after {waited:.0f} s")
                return None
            self.say(f"server {state}, {waited:.0f} s")
            self.stop.wait(POLL_S)

    def _read_guest(self, server: Any) -> None:
        """Compare what the guest says on its console with its port in Neutron."""
        ports = self.user.network.ports(device_id=server.id)
        due = [fixed["ip_address"] for port in ports for fixed in port.fixed_ips or []]
        if not due:
            self._wrong("network", "server's port", "an address", "none")
            return
        if self.region.compute_driver == "fake":
            self.skipped.append(f"{self.region.name}: guest's console: compute_driver fake runs no guest")
            return
        if self.view.guest_image is None:
            self.skipped.append(f"{self.region.name}: guest's console: no guest image was given")
            return
        started = time.monotonic()
        while True:
            console, trouble = self._console(server)
            address, booted = guest_lines(console)
            waited = time.monotonic() - started
            if address is not None and not any(same_address(address, expected) for expected in due):
                self._wrong("network", "guest's address by DHCP", " or ".join(due), address)
                return
            if address is not None and booted:
                self._saw("guest booted", f"{waited:.1f} s after ACTIVE")
                self._saw("guest's address by DHCP", address)
                return
            if waited > self.view.boot_s or self.stop.is_set():
                lines = [line.strip() for line in console.splitlines() if line.strip()]
                last = trouble or (f"'{lines[-1][:160]}'" if lines else "an empty console")
                missing = "its address by DHCP" if address is None else "'mrkolla-guest: booted'"
                self._wrong("compute", f"guest's console after {waited:.0f} s", missing, last)
                return
            self.say(f"guest boots, {waited:.0f} s")
            self.stop.wait(POLL_S)

    def _console(self, server: Any) -> tuple[str, str]:
        """(console log, why there is none): Nova has no log before the guest's first output."""
        try:
            return self.user.compute.get_server_console_output(server.id).get("output") or "", ""
        except API_ERRORS as error:
            return "", one_line(error)
