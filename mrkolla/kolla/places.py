"""Where Keystone is: in the AR alone (``central``), or in each OSR too, beside the AR's (docs/keystone.md).

``remote_db``: the OSR's Keystone works on the AR's database, over the link. ``replica``: it works on a copy of it in
the OSR's own MariaDB, which follows the AR's; it may read it alone, so HAProxy sends what writes to the AR.
``galera``: it works on a second MariaDB of the OSR, a member of the Galera cluster that the AR's MariaDB is.

What Kolla has a variable or a configuration file for is said here; the rest (the AR's Fernet keys, the copy, the member
of the cluster) is done by ``playbooks/mrkolla-keystone-place.yml``, which an edit has Kolla's keystone role include.
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError
from mrkolla.config import Experiment
from mrkolla.config.placement import AR, OSR, Region
from mrkolla.config.releases import release as release_of
from mrkolla.kolla import addresses, wiring

CENTRAL, REMOTE_DB, REPLICA, GALERA = "central", "remote_db", "replica", "galera"
DATABASE_PORT = 3306
#: Kolla's own port of a Galera cluster, which the AR's MariaDB listens at.
CLUSTER_PORT = 4567
#: Those of an OSR's second MariaDB: for clients, for the cluster, and for what brings it up to date (partly, wholly).
MEMBER_PORT, MEMBER_CLUSTER_PORT, MEMBER_IST_PORT, MEMBER_SST_PORT = 3307, 4667, 4668, 4644
MEMBER_FILE = "mrkolla-galera.cnf"
#: Kolla's variable that edits and the playbook know such a region by.
MARK = "mrkolla_keystone"
#: How often an OSR takes the AR's Fernet keys (s); the AR has a new key for days before it uses it.
KEYS_EVERY_S = 300
#: For how long a Keystone on a copy, or in the cluster, keeps what it knows (s): nobody tells its cache, the region's
#: memcached, what was changed elsewhere.
CACHE_S = 5
#: Of keystone.conf: the time for all, and for the sections whose own one is longer (300 to 3600 s).
_CACHE = f"[cache]\nexpiration_time = {CACHE_S}\n" + "".join(
    f"\n[{section}]\ncache_time = {CACHE_S}\n" for section in ("domain_config", "identity", "receipt", "revoke")
)
#: The lines of HAProxy's configuration that make the AR's Keystone a server of the OSR's.
_BACKEND = "mrkolla_admin_keystone"
BACKEND_FILE = "haproxy/services.d/mrkolla-keystone.cfg"


def has_own(experiment: Experiment, region: Region) -> bool:
    """Whether ``region`` is an OSR with a Keystone of its own."""
    return region.kind == OSR and experiment.keystone.topology != CENTRAL


def urls(experiment: Experiment, region: Region, admin: Region) -> tuple[str, str]:
    """The base URLs of the Keystone that ``region`` asks, without the version: for services, and for clients."""
    if has_own(experiment, region):
        url = addresses.keystone_url(region)
        return url, url
    return addresses.keystone_url(admin), addresses.keystone_public_url(admin)


def variables(experiment: Experiment, region: Region, admin: Region) -> dict[str, Any]:
    """What makes the run of an OSR have a Keystone as the topology says; nothing where it has none."""
    if not has_own(experiment, region):
        return {}
    topology = experiment.keystone.topology
    values: dict[str, Any] = {
        "enable_keystone": True,
        # The AR's run made the database, its users and what Keystone starts with; this one finds them.
        "use_preconfigured_databases": "{{ role_name | default('') == 'keystone' }}",
        "multiple_regions_names": [],
        # When the keys are taken from the AR: the script that would make new ones does so (an edit).
        "fernet_key_rotation_interval": KEYS_EVERY_S,
        MARK: {"topology": topology, "admin": admin.control.address},
    }
    if topology == REMOTE_DB:
        values["keystone_database_address"] = f"{admin.vip}:{DATABASE_PORT}"
    if topology == GALERA:
        values["keystone_database_address"] = f"{region.control.address}:{MEMBER_PORT}"
    if experiment.keystone.workers is not None:
        values["keystone_api_workers"] = experiment.keystone.workers
    return values


def users(experiment: Experiment, region: str) -> dict[str, str]:
    """Kolla's variables for the names under which services of the OSR ``region`` log in, where they are its own."""
    if experiment.keystone.service_users != "per_region":
        return {}
    return {f"{service}_keystone_user": f"{service}-{region}" for service in wiring.SERVICES}


def frontend_lines(experiment: Experiment, region: Region) -> list[str]:
    """Lines of each HTTP frontend of the region's HAProxy: what of Keystone's requests goes to the AR.

    Those that only read stay, and so does the one that issues a token, which writes nothing.
    """
    if not (has_own(experiment, region) and experiment.keystone.topology == REPLICA):
        return []
    rule = f"use_backend {_BACKEND} if {{ dst_port {addresses.KEYSTONE_PORT} }}"
    return [
        f"{rule} !{{ method GET HEAD OPTIONS POST }}",
        f"{rule} {{ method POST }} !{{ path /v3/auth/tokens }}",
    ]


def backend(experiment: Experiment, admin: Region) -> str:
    """The AR's Keystone as a backend of an OSR's HAProxy; while it does not answer, what writes gets a 503 at once."""
    seconds = experiment.keystone.connect_timeout or 10
    text = "The admin region's Keystone, which alone can change something, does not answer."
    error = json.dumps({"error": {"code": 503, "title": "Service Unavailable", "message": text}})
    quoted = error.replace("'", r"'\''")
    error_lines = [
        f"    http-error status {status} content-type application/json string '{quoted}'" for status in (503, 504)
    ]
    return "\n".join(
        [
            f"backend {_BACKEND}",
            "    mode http",
            "    retries 0",
            f"    timeout connect {seconds}s",
            f"    timeout server {seconds}s",
            "    option httpchk GET /v3",
            *error_lines,
            f"    server {admin.name} {admin.vip}:{addresses.KEYSTONE_PORT} check inter {seconds}s fastinter 1s fall 2"
            " rise 1 on-marked-down shutdown-sessions",
            "",
        ]
    )


def database(region: Region) -> str:
    """What the OSR's MariaDB is configured with so that it can follow the AR's: a part of ``galera.cnf``.

    Its own transactions must be told from the AR's by their server and domain, for which its VIP's number serves. A
    link that was cut is noticed after ``slave_net_timeout``.
    """
    number = int(ip_address(region.vip))
    lines = [f"server_id = {number}", f"gtid_domain_id = {number}", "replicate_wild_do_table = keystone.%"]
    return "\n".join(["[mysqld]", *lines, "slave_net_timeout = 10", "wsrep_restart_slave = ON", ""])


def member(region: Region, admin: Region) -> str:
    """What an OSR's second MariaDB is configured with, over what Kolla says of the region's own.

    Its vote weighs nothing, so the AR's side of a cut is the cluster, whichever regions are on the other one, and the
    AR's MariaDB, which begins as a cluster of its own, never is a second one. A member that is cut off answers what
    reads (``wsrep_dirty_reads``). Regions are Galera's segments.

    Whoever joins asks the AR first: a member that has just joined lacks what came before, and who took its data from
    that one was refused ("IST didn't contain all write sets"). A comma at the end: if it is away, any other will do.
    """
    address = region.control.address
    peers = ",".join(f"{host.address}:{CLUSTER_PORT}" for host in admin.with_role("control"))
    donors = "".join(f"{host.name}," for host in admin.with_role("control"))
    options = [
        f"gmcast.listen_addr=tcp://{address}:{MEMBER_CLUSTER_PORT}",
        f"ist.recv_addr={address}:{MEMBER_IST_PORT}",
        f"gmcast.segment={1 + int(ip_address(region.vip)) // 256 % 255}",
        "pc.weight=0",
    ]
    lines = [
        f"port = {MEMBER_PORT}",
        "log_error = /var/log/kolla/mariadb/mrkolla-galera.log",
        "innodb_buffer_pool_size = 128M",
        "innodb_log_file_size = 96M",
        f"wsrep_cluster_address = gcomm://{peers}",
        f"wsrep_provider_options = {';'.join(options)}",
        f"wsrep_node_address = {address}:{MEMBER_CLUSTER_PORT}",
        f"wsrep_sst_receive_address = {address}:{MEMBER_SST_PORT}",
        f"wsrep_sst_donor = {donors}",
        "wsrep_dirty_reads = ON",
    ]
    return "\n".join(["[mysqld]", *lines, ""])


def config(experiment: Experiment, region: Region, admin: Region) -> dict[str, str]:
    """Files of ``node_custom_config`` that a replica, or a member of the AR's cluster and that cluster, need."""
    topology = experiment.keystone.topology
    if topology == GALERA and region.kind == AR and len(region.with_role("control")) == 1:
        # With Kolla's own address, "gcomm://", Galera refuses to start if it had other members when it ended: they may
        # have newer data. Members without a vote cannot.
        return {"galera.cnf": "[mysqld]\nwsrep_cluster_address = gcomm://0.0.0.0\n"}
    if not (has_own(experiment, region) and topology in (REPLICA, GALERA)):
        return {}
    keystone = {"keystone.conf": _CACHE}
    if topology == GALERA:
        return keystone | {MEMBER_FILE: member(region, admin)}
    return keystone | {
        "galera.cnf": database(region),
        BACKEND_FILE: backend(experiment, admin),
    }


def refuse(experiment: Experiment, admin: Region) -> None:
    """Raise InputError where the release or the testbed cannot have the topology asked for."""
    topology = experiment.keystone.topology
    if topology == CENTRAL:
        return
    if release_of(experiment.release).has_admin_url:
        raise InputError(
            f"keystone.topology: release {experiment.release} has its one Keystone in the admin region: take {CENTRAL}"
        )
    if ip_address(admin.control.address) not in ip_network(admin.subnet, strict=False):
        raise InputError(
            f"keystone.topology: {topology} needs the admin region's hosts by the addresses of its services, and the"
            f" testbed '{experiment.testbed.kind}' reaches them by others ({admin.control.address}): take {CENTRAL}"
        )


def need_same(experiment: Experiment, folder: Path) -> None:
    """Raise InputError where the plan in ``folder``, by which a cloud is deployed, has Keystone in another place."""
    state = in_plan(folder)
    asked = experiment.keystone.topology, experiment.keystone.service_users
    if state is not None and state != asked:
        raise InputError(
            f"keystone: the cloud '{experiment.name}' is there with topology {state[0]} and service_users {state[1]},"
            f" and cannot be given {' and '.join(asked)}: put them back, or 'mrkolla destroy' first"
        )


def in_plan(folder: Path) -> tuple[str, str] | None:
    """The topology and the service users of the plan in ``folder``; None where there is none of an OSR."""
    for path in sorted(folder.glob("*/globals.yml")):
        values = yamltext.read(path.read_text())
        if not values.get("enable_horizon"):
            service_users = "per_region" if "nova_keystone_user" in values else "shared"
            return values.get(MARK, {}).get("topology", CENTRAL), service_users
    return None
