"""Hosts and regions in enoslib's words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import enoslib as en
import pytest
from enoslib.objects import Networks, Roles

from mrkolla import config
from mrkolla.base.enos import from_enoslib, to_enoslib
from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host
from mrkolla.cloud.roles import networks_of, roles_of
from mrkolla.experiment.cloud import Cloud
from mrkolla.providers.local import testbed as local_testbed
from mrkolla.providers.static import testbed as static_testbed


def test_a_host_is_reached_alike_by_both():
    host = Host("a1", "192.0.2.1", user="me", port=2222, key=Path("/k"), known_hosts=Path("/known"))
    made = to_enoslib(host)
    assert (made.address, made.alias, made.user, made.port, made.keyfile) == ("192.0.2.1", "a1", "me", 2222, "/k")
    options = made.extra["ansible_ssh_common_args"]
    assert "BatchMode=yes" in options
    assert "UserKnownHostsFile=/known" in options and "StrictHostKeyChecking=yes" in options
    back = from_enoslib(made)
    assert (back.name, back.address, back.user, back.port, back.key) == ("a1", "192.0.2.1", "me", 2222, Path("/k"))
    line = back.ssh("true", control=False)
    assert line.index("UserKnownHostsFile=/known") > 0 and line[-2:] == ["me@192.0.2.1", "true"]


def test_the_way_through_a_gateway_is_kept_and_comes_before_our_own_options():
    jump = '-o StrictHostKeyChecking=no -o ProxyCommand="ssh -W %h:%p access" -o ConnectTimeout=60'
    line = from_enoslib(en.Host("h", extra={"ansible_ssh_common_args": jump})).ssh("true", control=False)
    assert "ProxyCommand=ssh -W %h:%p access" in line
    assert line.index("ConnectTimeout=60") < line.index("ConnectTimeout=10")
    assert line[-2] == "root@h"


def test_a_host_that_is_not_reached_by_ssh_is_refused():
    with pytest.raises(InputError, match=r"h: it is reached by 'docker', but must be by ssh"):
        from_enoslib(en.Host("h", extra={"ansible_connection": "docker"}))


def names(roles: Roles, key: str) -> list[str]:
    return sorted(host.alias for host in roles[key])


def test_a_clouds_roles_are_its_regions_what_hosts_do_and_both(experiment):
    regions = local_testbed.regions(
        experiment(regions=[{"name": "OSR1", "compute": 2}, {"name": "OSR2", "network": 1}])
    )
    cloud = Cloud.__new__(Cloud)
    cloud.deployed = SimpleNamespace(regions=regions)
    roles = cloud.roles
    assert isinstance(roles, Roles) and isinstance(cloud.networks, Networks)
    assert sorted(roles) == sorted(
        ["AR", "AR.control", "AR.network", "control", "network", "compute"]
        + [f"{osr}{role}" for osr in ("OSR1", "OSR2") for role in ("", ".control", ".network", ".compute")]
    )
    assert names(roles, "OSR1") == ["osr1-compute1", "osr1-compute2", "osr1-control1"]
    assert names(roles, "OSR1.compute") == ["osr1-compute1", "osr1-compute2"]
    assert names(roles, "control") == ["ar-control1", "osr1-control1", "osr2-control1"]
    # Control hosts have HAProxy where no others have it.
    assert names(roles, "network") == ["ar-control1", "osr1-control1", "osr2-network1"]
    # The same host, in whichever role: enoslib's sets then know it once.
    assert len(roles["OSR1"] & roles["control"]) == 1
    assert len(roles.all()) == 7
    assert sorted(cloud.networks) == sorted(roles)
    subnets = {region.name: region.subnet for region in regions}
    assert [str(net.network) for net in cloud.networks["OSR2.network"]] == [subnets["OSR2"]]
    assert {str(net.network) for net in cloud.networks["control"]} == set(subnets.values())


def test_static_hosts_keep_their_user_port_and_key(tmp_path):
    hosts = [{"name": "h1", "address": "192.0.2.1", "port": 2222}, {"name": "h2", "address": "192.0.2.2", "user": "me"}]
    section = {
        **{"kind": "static", "key": str(tmp_path / "key"), "known_hosts": str(tmp_path / "known")},
        "regions": {
            "AR": {"vip": "192.0.2.100", "hosts": hosts[:1]},
            "OSR1": {"vip": "192.0.2.101", "hosts": [hosts[1], {"name": "h3", "address": "192.0.2.3"}]},
        },
    }
    given = config.from_dict(
        {"name": "demo", "release": "2025.1", "testbed": section, "regions": [{"name": "OSR1", "compute": 1}]}
    )
    regions = static_testbed.regions(given)
    roles, networks = roles_of(regions), networks_of(regions)
    (admin,) = roles["AR"]
    (compute,) = roles["OSR1.compute"]
    (control,) = roles["OSR1.control"]
    assert (admin.address, admin.port, admin.user) == ("192.0.2.1", 2222, "root")
    assert (control.user, compute.user) == ("me", "root")
    assert admin.keyfile == str(tmp_path / "key")
    # Hosts of no network that is a region's own: their addresses.
    assert {str(net.network) for net in networks["OSR1"]} == {"192.0.2.2/32", "192.0.2.3/32"}
