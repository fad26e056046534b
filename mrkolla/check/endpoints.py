"""The endpoint table: every service of a region at that region's address, identity at the AR's or its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mrkolla.check.model import CloudView, Finding

NOTHING = "nothing"


def comparable(url: str, identity: bool = False) -> str:
    """``url`` in the one spelling that is compared: no slash at its end, one way to write the project's id.

    For Keystone's own URL, with and without /v3 are the same.
    """
    url = url.strip().rstrip("/")
    for spelling in ("%(tenant_id)s", "%(project_id)s", "$(tenant_id)s"):
        url = url.replace(spelling, "$(project_id)s")
    return url.removesuffix("/v3").rstrip("/") if identity else url


def expected_endpoints(view: CloudView) -> dict[tuple[str, str, str], str]:
    """(region, service type, interface) -> URL of every endpoint that the cloud must have."""
    expected = {}
    for region in view.regions:
        for interface in view.interfaces:
            expected[region.name, "identity", interface] = view.identity_url(interface, region)
        for service, urls in region.services.items():
            for interface, url in urls.items():
                expected[region.name, service, interface] = url
    return expected


def endpoint_findings(view: CloudView, endpoints: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Compare ``endpoints`` with the plan.

    Each is a mapping with region, type, interface, url and enabled. Finds what is missing, doubled, disabled, at
    another region's address (crossed), at another URL, or not in the plan.
    """
    rows_by_key: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for endpoint in endpoints:
        rows_by_key.setdefault((endpoint["region"], endpoint["type"], endpoint["interface"]), []).append(endpoint)
    expected = expected_endpoints(view)
    findings = []
    for key, url in expected.items():
        rows = rows_by_key.get(key, [])
        if not rows:
            findings.append(Finding(*key, "endpoint missing", url, NOTHING))
        if len(rows) > 1:
            urls = ", ".join(sorted(row["url"] for row in rows))
            findings.append(Finding(*key, "endpoint doubled", f"once {url}", f"{len(rows)} times: {urls}"))
        for row in rows:
            if not row.get("enabled", True):
                findings.append(Finding(*key, "endpoint disabled", f"{url} enabled", f"{row['url']} disabled"))
            identity = key[1] == "identity"
            if comparable(row["url"], identity) != comparable(url, identity):
                what, owner = _wrong_address(view, row["url"], url)
                findings.append(Finding(*key, what, url, row["url"] + owner))
    names = {region.name for region in view.regions}
    planned = {key[:2] for key in expected}
    homes = {region.name: region.vip for region in view.osrs}
    for key in sorted(set(rows_by_key) - set(expected)):
        for row in rows_by_key[key]:
            # A service that a person added (enable_heat, say) is not in the plan: at its region's address it is right.
            if key[:2] not in planned and key[0] in homes and urlsplit(row["url"]).hostname == homes[key[0]]:
                continue
            what = "unexpected endpoint" if key[0] in names else "endpoint of an unknown region"
            findings.append(Finding(*key, what, NOTHING, row["url"]))
    return findings


def _wrong_address(view: CloudView, url: str, expected: str) -> tuple[str, str]:
    """What is wrong with ``url``, and whose address it is when that is another region's."""
    address, due = urlsplit(url).hostname, urlsplit(expected).hostname
    if address != due:
        for region in view.regions:
            if region.vip == address:
                return "endpoint crossed", f" ({region.name}'s address)"
        return "endpoint at a wrong address", ""
    return "endpoint with a wrong URL", ""


def list_endpoints(identity: Any) -> list[dict[str, Any]]:
    """All endpoints that Keystone has, from openstacksdk's ``identity`` proxy of an admin."""
    services = {service.id: service for service in identity.services()}
    rows = []
    for endpoint in identity.endpoints():
        service = services.get(endpoint.service_id)
        rows.append(
            {
                "region": endpoint.region_id or "(none)",
                "service": getattr(service, "name", None) or endpoint.service_id,
                "type": getattr(service, "type", None) or "(unknown)",
                "interface": endpoint.interface,
                "url": endpoint.url,
                "enabled": endpoint.is_enabled,
            }
        )
    return sorted(rows, key=lambda row: (row["region"], row["type"], row["interface"], row["url"]))
