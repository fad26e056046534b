"""An OSR's own Keystone takes the AR's tokens, the AR takes its tokens, and it sees what changes at the AR."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from mrkolla.check.cleanup import PREFIX
from mrkolla.check.client import connect, one_line
from mrkolla.check.guest import API_ERRORS
from mrkolla.check.model import CloudView, Finding, RegionView
from mrkolla.check.person import DOMAIN, description

_PAUSE_S = 0.1


def check_keystone(
    view: CloudView, region: RegionView, admin: Any, stop: threading.Event, facts: list[tuple[str, str, str]]
) -> list[Finding]:
    """Look at the Keystone of ``region`` as the administrator, who is ``admin`` at the AR's.

    What was measured goes to ``facts``. A project is made at the AR for it, and removed.
    """

    def found(what: str, expected: str, error: object) -> Finding:
        text = one_line(error) if isinstance(error, BaseException) else str(error)
        return Finding(region.name, "identity", "", what, expected, text)

    assert region.keystone, "it has one"
    try:
        with connect(view, view.admin_auth, region.name, keystone=region.keystone) as local:
            places = {"the region's": (local, region.keystone), "the admin region's": (admin, view.keystone_url)}
            for whose, other in zip(places, reversed(places), strict=True):
                validates, url = places[other]
                about = {"X-Subject-Token": places[whose][0].session.get_token()}
                status = validates.session.get(f"{url}/v3/auth/tokens", headers=about, raise_exc=False).status_code
                if status != 200:
                    return [found(f"a token of {whose} Keystone at the other one", "valid", f"status {status}")]
            return _follows(view, region, admin, local, stop, facts)
    except API_ERRORS as error:
        return [found(f"its Keystone at {region.keystone}", "logins, and the admin region's tokens", error)]


def _follows(
    view: CloudView,
    region: RegionView,
    admin: Any,
    local: Any,
    stop: threading.Event,
    facts: list[tuple[str, str, str]],
) -> list[Finding]:
    """Make a project at the AR, and wait until the region's Keystone knows it."""
    name = f"{PREFIX}{secrets.token_hex(4)}-keystone"
    project = admin.identity.create_project(name=name, domain_id=DOMAIN, description=description())
    try:
        began = time.monotonic()
        while local.identity.find_project(project.id, ignore_missing=True) is None:
            waited = time.monotonic() - began
            if waited > view.settle_s or stop.is_set():
                outcome = f"not after {waited:.0f} s"
                return [Finding(region.name, "identity", "", "what changes at the admin region", "seen", outcome)]
            time.sleep(_PAUSE_S)
        facts.append((region.name, "a change at the admin region is seen after", f"{time.monotonic() - began:.1f} s"))
        return []
    finally:
        admin.identity.delete_project(project.id)
