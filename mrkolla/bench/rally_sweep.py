"""Runs on a control host, in Rally's environment: removes what Rally's tasks left in the cloud, and says what.

    python -c CODE < {"platform": SPECIFICATION, "owners": [UUID, ...]}

Rally cleans up after each workload by itself; this finds what a failed cleanup or an abort leaves. Only what bears
the name of one of the owners (a task or a workload of this call) is touched: regions share one Keystone, and another
region's load may run. Prints {"removed": {kind: count}, "left": [what, and why]}.
"""

import json
import re
import sys
import time

import openstack
from keystoneauth1 import exceptions as keystone
from openstack import exceptions

GONE_S = 60
ERRORS = (exceptions.SDKException, keystone.ClientException)


def pattern(owners):
    """What the names look like that Rally gives to resources of these owners (UUIDs)."""
    marks = "|".join(sorted({owner.replace("-", "")[:8] for owner in owners}))
    return re.compile(rf"[sc]_rally_({marks})_[A-Za-z0-9]{{8}}")


class Sweep:
    """One sweep over a region and what it shares. ``cloud`` is a connection."""

    def __init__(self, cloud, owners, admin):
        self.cloud, self.admin, self.names = cloud, admin, pattern(owners)
        self.removed, self.left = {}, []

    def run(self):
        for service, kinds in (
            ("compute", (self.servers, self.flavors)),
            ("network", (self.networks,)),
            ("image", (self.images,)),
            ("identity", (self.identity,) if self.admin else ()),
        ):
            if self.cloud.endpoint_for(service) is None:
                continue
            for kind in kinds:
                try:
                    kind()
                # Where one service answers otherwise than its API says, what is left at the others is still removed.
                except (*ERRORS, LookupError, TypeError, ValueError) as error:
                    self.left.append(f"{service}: {one_line(error)}")
        return {"removed": self.removed, "left": self.left}

    def each(self, kind, found, delete):
        """Delete those of ``found`` that have one of the names; returns those that were, or are to be, gone."""
        deleted = []
        for resource in [resource for resource in found if self.names.match(resource.name or "")]:
            try:
                delete(resource)
                deleted.append(resource)
            except ERRORS as error:
                self.left.append(f"{kind} {resource.name}: {one_line(error)}")
        if deleted:
            self.removed[kind] = self.removed.get(kind, 0) + len(deleted)
        return deleted

    def servers(self):
        compute = self.cloud.compute
        query = {"all_projects": True} if self.admin else {}
        servers = self.each("server", compute.servers(**query), compute.delete_server)
        end = time.monotonic() + GONE_S
        while servers and time.monotonic() < end:
            time.sleep(2)
            ids = {server.id for server in compute.servers(**query)}
            servers = [server for server in servers if server.id in ids]
        if servers:
            self.removed["server"] -= len(servers)
        self.left += [f"server {server.name}: still there after {GONE_S} s" for server in servers]

    def flavors(self):
        if self.admin:
            self.each("flavor", self.cloud.compute.flavors(is_public=None), self.cloud.compute.delete_flavor)

    def networks(self):
        network = self.cloud.network

        def router(one):
            for port in network.ports(device_id=one.id):
                if port.device_owner.startswith("network:router_interface"):
                    network.remove_interface_from_router(one, port_id=port.id)
            network.delete_router(one)

        def whole(one):
            for port in network.ports(network_id=one.id):
                if not port.device_owner.startswith("network:"):
                    network.delete_port(port)
            network.delete_network(one)

        self.each("router", network.routers(), router)
        self.each("network", network.networks(), whole)
        self.each("security group", network.security_groups(), network.delete_security_group)

    def images(self):
        self.each("image", self.cloud.image.images(), self.cloud.image.delete_image)

    def identity(self):
        identity = self.cloud.identity
        self.each("user", identity.users(), identity.delete_user)
        self.each("project", identity.projects(), self.project)
        self.each("role", identity.roles(), identity.delete_role)
        self.each("service", identity.services(), identity.delete_service)

    def project(self, one):
        # Neutron makes a default group with a project's first network, and keeps it when the project is gone.
        if self.cloud.endpoint_for("network") is not None:
            for group in self.cloud.network.security_groups(project_id=one.id):
                self.cloud.network.delete_security_group(group)
        self.cloud.identity.delete_project(one)


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def main():
    request = json.load(sys.stdin)
    platform = request["platform"]
    person = platform.get("admin") or platform["users"][0]
    cloud = openstack.connect(
        auth={"auth_url": platform["auth_url"], **person},
        region_name=platform["region_name"],
        interface=platform["endpoint_type"],
        cacert=platform.get("https_cacert"),
        load_yaml_config=False,
        load_envvars=False,
        app_name="mrkolla",
        api_timeout=60,
    )
    with cloud:
        print(json.dumps(Sweep(cloud, request["owners"], "admin" in platform).run()))


if __name__ == "__main__":
    main()
