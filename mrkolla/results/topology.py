"""Which regions a run had, with their hosts: from its provenance, else from its experiment file."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mrkolla.results.store import RunFolder
from mrkolla.results.tables import Grid


def regions_of_run(folder: RunFolder) -> list[dict[str, Any]]:
    """The regions of a run, the AR first: dicts with name, kind (AR, OSR), vip, hosts {role: number}, driver, lines.

    ``lines`` is what a drawing says below the name. What is not known is null; without provenance and experiment file
    there are no regions.
    """
    experiment = folder.read_yaml("experiment.yaml", {}) or {}
    placed = {str(r.get("name")): r for r in folder.read_json("provenance.json", {}).get("regions") or []}
    admin = experiment.get("admin_region") or {}
    regions = [{"control": 1, **admin, "name": str(admin.get("name", "AR")), "kind": "AR"}] if experiment else []
    for region in experiment.get("regions") or []:
        regions.append({"control": 1, "compute": 1, **region, "name": str(region.get("name", "")), "kind": "OSR"})
    names = {region["name"] for region in regions}  # a region may have joined later
    regions += [{"name": name, "kind": str(r.get("kind", "OSR"))} for name, r in placed.items() if name not in names]
    return sorted(
        (_region(region, placed.get(region["name"], {})) for region in regions), key=lambda r: r["kind"] != "AR"
    )


def _region(wanted: dict[str, Any], placed: dict[str, Any]) -> dict[str, Any]:
    hosts = {role: int(wanted.get(role) or 0) for role in ("control", "network", "compute")}
    if placed.get("hosts"):
        # A host with several roles counts for the one that it was asked for.
        roles: Counter[str] = Counter()
        for host in placed["hosts"]:
            host_roles = host.get("roles") or []
            roles[next((r for r in ("control", "compute", "network") if r in host_roles), "control")] += 1
        hosts = {role: roles.get(role, 0) for role in hosts}
    osr = wanted["kind"] != "AR"
    driver = None
    if osr and (hosts["compute"] or wanted.get("compute_driver")):
        driver = str(wanted.get("compute_driver", "qemu"))
        if wanted.get("fake_computes"):
            driver += f", {wanted['fake_computes']} compute services"
    vip = placed.get("vip")
    counts = ", ".join(f"{n} {role}" for role, n in hosts.items() if n)
    lines = [str(vip)] if vip else []
    lines += [counts] if counts else []
    lines += [driver] if driver else [] if osr else ["Keystone, Horizon"]
    return {
        "name": wanted["name"],
        "kind": wanted["kind"],
        "vip": vip,
        "hosts": hosts,
        "driver": driver,
        "lines": lines,
    }


def topology_grid(regions: list[dict[str, Any]]) -> Grid:
    """The regions as a table."""
    head = ["region", "kind", "address", "control hosts", "network hosts", "compute hosts", "compute driver"]
    kinds = {"AR": "admin region", "OSR": "OpenStack region"}
    rows = [
        [r["name"], kinds.get(r["kind"], r["kind"]), str(r["vip"] or "–"),
         *(str(r["hosts"][role]) if r["hosts"][role] else "–" for role in ("control", "network", "compute")),
         r["driver"] or "–"]
        for r in regions
    ]  # fmt: skip
    return Grid("What ran", head, rows, frozenset({3, 4, 5}))
