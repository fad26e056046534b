"""enoslib's own Vagrant provider, set up from the section ``testbed``.

enoslib puts every machine into every network that it knows, at addresses of its choice. Regions have theirs, so the
network is given machine by machine, as a line of the Vagrantfile that enoslib writes.
"""

from __future__ import annotations

from enoslib.infra.enos_vagrant.configuration import Configuration as VagrantConf

from mrkolla.config import Experiment
from mrkolla.config.vagrant import VagrantTestbed
from mrkolla.providers.vagrant.layout import Machine, machines

#: What the names of a cloud's machines and networks in libvirt begin with. A cloud's name has no dot.
PREFIX = "mrk."


def domain(cloud: str, machine: str) -> str:
    """What libvirt calls a machine."""
    return f"{PREFIX}{cloud}.{machine}"


def networks(cloud: str) -> tuple[str, str]:
    """What libvirt calls the network of Vagrant's own connections, and that between all machines."""
    return f"{PREFIX}{cloud}", f"{PREFIX}{cloud}.lan"


def dictionary(experiment: Experiment, box: str, emulated: bool) -> dict:
    """The provider's configuration as enoslib's own dictionary. ``emulated``: libvirt's machines run without KVM."""
    testbed = experiment.testbed_as(VagrantTestbed)
    rows = [
        {
            "roles": [machine.region, *machine.roles],
            "name_prefix": machine.name,
            "number": 1,
            "flavour_desc": {"core": machine.cpus, "mem": machine.memory_mb},
            "config_extra_vm": _network(experiment, machine),
        }
        for machine in machines(experiment)
    ]
    return {
        "backend": testbed.backend,
        "box": box,
        "user": "root",
        "config_extra": _extra(experiment, emulated),
        "resources": {"machines": rows, "networks": []},
    }


def configuration(experiment: Experiment, box: str, emulated: bool) -> VagrantConf:
    """:func:`dictionary`, checked by enoslib."""
    return VagrantConf.from_dictionary(dictionary(experiment, box, emulated))


def _network(experiment: Experiment, machine: Machine) -> str:
    testbed = experiment.testbed_as(VagrantTestbed)
    # By this name services register: it must be that of this address, not of the loopback's.
    options = [f'ip: "{machine.address}"', f'netmask: "{testbed.lan.netmask}"', "hostname: true"]
    if testbed.backend == "libvirt":
        options += [
            f'libvirt__network_name: "{networks(experiment.name)[1]}"',
            # No way out and none in: the cloud is not reachable from outside this machine.
            'libvirt__forward_mode: "none"',
            "libvirt__dhcp_enabled: false",
        ]
    return f"my.vm.network :private_network, {', '.join(options)}"


def _extra(experiment: Experiment, emulated: bool) -> str:
    testbed = experiment.testbed_as(VagrantTestbed)
    lines = [
        'config.vm.synced_folder ".", "/vagrant", disabled: true',
        "config.vm.box_check_update = false",
        # Whatever the box says: the well-known key must not stay in.
        "config.ssh.insert_key = true",
        f"config.vm.boot_timeout = {testbed.boot_s}",
    ]
    if testbed.backend == "libvirt":
        lines += _libvirt(experiment, emulated)
    return "\n  ".join(lines)


def _libvirt(experiment: Experiment, emulated: bool) -> list[str]:
    settings = {
        "default_prefix": domain(experiment.name, ""),
        "management_network_name": networks(experiment.name)[0],
        "management_network_address": str(experiment.testbed_as(VagrantTestbed).management),
        "graphics_type": "none",
    }
    if emulated:
        settings |= {"driver": "qemu", "cpu_mode": "custom", "cpu_model": "qemu64"}
    inside = [f'  lv.{key} = "{value}"' for key, value in settings.items()]
    if emulated:
        # QEMU 7.2 emulates CMPXCHG16B with wrong flags after it: Linux 6.12, whose allocator uses it, panics at random
        # while it boots. Without the instruction it takes another way.
        inside.append('  lv.cpu_feature :name => "cx16", :policy => "disable"')
    return ["config.vm.provider :libvirt do |lv|", *inside, "end"]
