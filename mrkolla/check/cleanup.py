"""What the check makes it removes: in reverse order, always, and what stays is named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from openstack.exceptions import NotFoundException, SDKException

from mrkolla.check.client import one_line
from mrkolla.check.model import Finding, RegionView

PREFIX = "mrkolla-check-"
# A check takes minutes: what is older belongs to one that was killed.
STALE_S = 1800
TRIES = 6
PAUSE_S = 5


class Undo:
    """What was made in one region and how to remove it, in the order of making."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._made: list[tuple[str, str, Callable[[], Any]]] = []

    def push(self, service: str, name: str, remove: Callable[[], Any]) -> None:
        """Remember that ``name`` of ``service`` was made, and what removes it."""
        self._made.append((service, name, remove))

    def run(self, say: Callable[[str], None] = lambda text: None) -> list[Finding]:
        """Remove all, newest first; a finding for each thing that stays. Tried again when still in use."""
        findings = []
        while self._made:
            service, name, remove = self._made.pop()
            say(f"removing {name}")
            error = _tried(remove)
            if error is not None:
                findings.append(Finding(self.region, service, "", f"left over: {name}", "removed", one_line(error)))
        return findings


def _tried(remove: Callable[[], Any]) -> Exception | None:
    """Call ``remove`` until it works, TRIES times at most. Returns the last error, or None where it worked.

    What is gone already counts as removed.
    """
    error: Exception | None = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            with suppress(NotFoundException):
                remove()
        except Exception as failed:  # noqa: BLE001 - whatever it is, the rest is removed too, and this one is named
            error = failed
        else:
            return None
    return error


def delete_server(connection: Any, server_id: str, wait_s: float = 120) -> None:
    """Delete a server and wait until it is gone."""
    with suppress(NotFoundException):
        connection.compute.delete_server(server_id, ignore_missing=True)
        server = connection.compute.get_server(server_id)
        connection.compute.wait_for_delete(server, interval=2, wait=wait_s)


def stale(description: str | None, now: float, older_s: float = STALE_S) -> bool:
    """Whether a project's description says that a check made it longer than ``older_s`` seconds ago."""
    match = re.search(r"mrkolla check at (\d+)", description or "")
    return match is not None and now - int(match[1]) > older_s


def sweep(
    admins: dict[str, Any],
    identity: Any,
    regions: Sequence[RegionView],
    prefix: str = PREFIX,
    older_s: float = STALE_S,
) -> list[Finding]:
    """Remove what a killed check left behind; findings for what cannot be removed.

    ``admins`` is region name -> connection of an admin. Its projects are those whose names begin with ``prefix``, made
    longer than ``older_s`` seconds ago.
    """
    findings = []
    now = time.time()
    projects = [
        project
        for project in identity.projects()
        if project.name.startswith(prefix) and stale(project.description, now, older_s)
    ]
    for project in projects:
        for region in regions:
            undo = Undo(region.name)
            try:
                _find_leftovers(admins[region.name], project, undo)
            except SDKException as error:
                text = one_line(error)
                findings.append(Finding(region.name, "check", "", f"leftovers of {project.name}", "removed", text))
            findings += undo.run()
        undo = Undo("")
        undo.push("identity", project.name, partial(identity.delete_project, project))
        for user in identity.users(name=project.name):
            undo.push("identity", user.name, partial(identity.delete_user, user))
        findings += undo.run()
    return findings


def _find_leftovers(admin: Any, project: Any, undo: Undo) -> None:
    """Put everything of ``project`` in one region on ``undo``; what is removed first comes last."""
    for flavor in admin.compute.flavors(is_public=None):
        if flavor.name.startswith(project.name):
            undo.push("compute", flavor.name, partial(admin.compute.delete_flavor, flavor))
    for image in admin.image.images(owner=project.id):
        undo.push("image", image.name, partial(admin.image.delete_image, image))
    for group in admin.network.security_groups(project_id=project.id):
        undo.push("network", group.name, partial(admin.network.delete_security_group, group))
    for network in admin.network.networks(project_id=project.id):
        undo.push("network", network.name, partial(admin.network.delete_network, network))
    for server in admin.compute.servers(all_projects=True, project_id=project.id):
        undo.push("compute", server.name, partial(delete_server, admin, server.id))
