"""What Kolla must know of hosts that are containers: nothing may be raised above what their machine gives them."""

from __future__ import annotations

from typing import Any

from mrkolla.config.placement import OSR, Region


def kolla_globals(region: Region) -> dict[str, Any]:
    """Variables of globals.yml for ``region`` on such hosts."""
    values: dict[str, Any] = {
        "default_container_dimensions_docker": {},
        "qemu_max_files": 0,
        "qemu_max_processes": 0,
        "haproxy_max_connections": 4000,
        "mariadb_innodb_log_file_size_mb": 96,
    }
    if region.kind == OSR:
        values |= {
            "nova_libvirt_default_dimensions": {},
            "neutron_agents_wrappers": False,
            **{  # these sysctls exist in the machine's own network namespace alone
                f"neutron_l3_agent_host_ipv{family}_neigh_gc_thresh{number}": "KOLLA_SKIP"
                for family in (4, 6)
                for number in (1, 2, 3)
            },
        }
    return values
