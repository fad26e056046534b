"""What Kolla's container images are, as data: users, packages, scripts.

kolla-ansible asks little of an image: a user with Kolla's numeric id, ``kolla_start`` as the command, the helper
scripts that its tasks and config.json files name, and the service's own program. Everything below names such an
interface; the scripts themselves come from Kolla's release on PyPI when the images are built.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mrkolla.kolla.image_names import DISTRO

#: Debian packages of the one root file system from which every image is derived.
PACKAGES = (
    # what Kolla's base image has
    *("python3", "python3-venv", "dumb-init", "sudo", "gawk", "iproute2", "iputils-ping", "kmod", "lsof", "netbase"),
    *("procps", "socat", "patch", "curl", "ca-certificates", "locales", "tzdata", "less", "openssh-client"),
    *("openssh-server", "rsync", "cron", "logrotate", "expect", "jq", "crudini", "iptables", "ebtables", "conntrack"),
    *("ipset", "dnsmasq-base", "dnsmasq-utils", "radvd", "pv"),
    # shared services
    *("apache2", "libapache2-mod-wsgi-py3", "uwsgi-core", "uwsgi-plugin-python3", "mariadb-server", "mariadb-backup"),
    *("galera-4", "rabbitmq-server", "memcached", "haproxy", "keepalived"),
    # OpenStack
    *("keystone", "python3-keystone", "glance-api", "placement-api", "nova-api", "nova-conductor", "nova-scheduler"),
    *("nova-compute", "nova-novncproxy", "neutron-server", "neutron-openvswitch-agent", "neutron-dhcp-agent"),
    *("neutron-l3-agent", "neutron-metadata-agent", "neutron-common", "openvswitch-switch", "openstack-dashboard"),
    *("python3-django-horizon", "python3-openstackclient", "python3-openstacksdk", "python3-pymysql"),
    *("python3-memcache", "python3-pymemcache", "python3-osc-placement"),
    # guests
    *("python3-libvirt", "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils"),
)

#: What is not unpacked of them: the packages' own tests (globs).
UNUSED = ("/usr/lib/python3/dist-packages/*/tests/*",)

#: Scripts of every image: path in Kolla's docker/ tree -> name in /usr/local/bin.
BASE_SCRIPTS = {
    "base/set_configs.py": "kolla_set_configs",
    "base/start.sh": "kolla_start",
    "base/copy_cacerts.sh": "kolla_copy_cacerts",
    "base/install_projects.sh": "kolla_install_projects",
    "base/httpd_setup.sh": "kolla_httpd_setup",
    "base/healthcheck_curl": "healthcheck_curl",
    "base/healthcheck_filemod": "healthcheck_filemod",
    "base/healthcheck_listen": "healthcheck_listen",
    "base/healthcheck_port": "healthcheck_port",
    "base/healthcheck_socket": "healthcheck_socket",
    "kolla-toolbox/kolla_toolbox.sh": "kolla_toolbox",
    "keystone/keystone/keystone_bootstrap.sh": "kolla_keystone_bootstrap",
    "mariadb/mariadb-server/security_reset.expect": "kolla_security_reset",
    "mariadb/mariadb-server/healthcheck_mariadb": "healthcheck_mariadb",
    "mariadb/mariadb-clustercheck/socat_wrapper.sh": "socat_wrapper",
    "rabbitmq/rabbitmq/healthcheck_rabbitmq": "healthcheck_rabbitmq",
    "haproxy/haproxy/ensure_latest_config.sh": "kolla_ensure_haproxy_latest_config",
    "openvswitch/openvswitch-base/ovs_wrapper.sh": "ovs_wrapper",
}

#: sudo rules: path in docker/ -> name in /etc/sudoers.d.
SUDOERS = {
    "mariadb/mariadb-server/mariadb_sudoers": "kolla_mariadb_sudoers",
    "glance/glance-base/glance_sudoers": "kolla_glance_sudoers",
    "nova/nova-base/nova_sudoers": "kolla_nova_sudoers",
    "neutron/neutron-base/neutron_sudoers": "kolla_neutron_sudoers",
    "kolla-toolbox/ansible_sudoers": "kolla_ansible_sudoers",
}

#: Ansible collections that kolla_toolbox runs modules of.
TOOLBOX_COLLECTIONS = (
    "ansible/posix",
    "community/general",
    "community/mysql",
    "community/rabbitmq",
    "openstack/cloud",
    "openvswitch/openvswitch",
)


@dataclass(frozen=True)
class Image:
    """One image: its scripts (name in /usr/local/bin -> path in docker/, None: empty), user and Dockerfile lines.

    ``own`` are files of ours: name in mrkolla/images/ -> path in the image, and mode.
    """

    scripts: dict[str, str | None] = field(default_factory=dict)
    user: str | None = None
    lines: tuple[str, ...] = ()
    own: dict[str, tuple[str, int]] = field(default_factory=dict)


def _start(path: str) -> dict[str, str | None]:
    return {"kolla_extend_start": path}


def _pair(base: str, key: str, own: str | None) -> dict[str, str | None]:
    # A project's base image has a start script that calls the one of the service: an empty one where it has none.
    return {"kolla_extend_start": base, f"kolla_{key}_extend_start": own}


# OpenSSH 10 (trixie) knows no DSA keys, which Kolla's start script of these images still makes.
_NO_DSA = ("RUN sed -i 's/\"dsa\" //' /usr/local/bin/kolla_extend_start",)
# The start script loads the kernel's openvswitch module; with the user-space data path none is needed.
_NO_MODPROBE = ("RUN printf '#!/bin/sh\\nexit 0\\n' > /usr/local/sbin/modprobe && chmod 755 /usr/local/sbin/modprobe",)
_TOOLBOX = (
    "ENV PATH=/opt/ansible/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    " ANSIBLE_LIBRARY=/usr/share/ansible",
    'LABEL mrkolla.toolbox="1"',
)
# Kolla's module calls `ansible` there hundreds of times: a server that stays answers. The label tells the module (by an
# edit of Kolla's) that passwords may come by another way than the arguments of a process.
_SERVER = {
    "toolbox-client.py": ("/opt/ansible/bin/ansible", 0o755),
    "toolbox-server.py": ("/usr/local/lib/mrkolla/toolbox-server.py", 0o644),
}
_LIBVIRT = (
    "RUN rm -f /etc/libvirt/qemu/networks/default.xml /etc/libvirt/qemu/networks/autostart/default.xml"
    " && usermod -aG nova libvirt-qemu && chmod 744 /usr/local/bin/kolla_nova_libvirt_start",
)
# An ENTRYPOINT of its own resets the command, so both are given.
_MARIADB = ('ENTRYPOINT ["dumb-init","--"]', 'CMD ["kolla_start"]')

_NOVA = "nova/nova-base/extend_start.sh"
_NEUTRON = "neutron/neutron-base/extend_start.sh"
_OVS = "openvswitch/openvswitch-base/extend_start.sh"

#: Every image that the default set-up of an AR or an OSR runs.
IMAGES: dict[str, Image] = {
    "cron": Image(_start("cron/extend_start.sh")),
    "kolla-toolbox": Image(_start("kolla-toolbox/extend_start.sh"), "ansible", _TOOLBOX, _SERVER),
    "haproxy": Image(),
    "haproxy-ssh": Image(_start("haproxy/haproxy-ssh/extend_start.sh"), None, _NO_DSA),
    "keepalived": Image(
        {"kolla_extend_start": "keepalived/extend_start.sh", "check_alive.sh": "keepalived/check_alive.sh"},
        None,
        ("RUN mv /usr/local/bin/check_alive.sh / && chmod 755 /check_alive.sh",),
    ),
    "mariadb-server": Image(_start("mariadb/mariadb-server/extend_start.sh"), "mysql", _MARIADB),
    "mariadb-clustercheck": Image(_start("mariadb/mariadb-clustercheck/extend_start.sh")),
    "memcached": Image({}, "memcached"),
    "rabbitmq": Image(_start("rabbitmq/rabbitmq/extend_start.sh"), "rabbitmq"),
    "keystone": Image(_start("keystone/keystone/extend_start.sh")),
    "keystone-fernet": Image(_start("keystone/keystone-fernet/extend_start.sh")),
    "keystone-ssh": Image(_start("keystone/keystone-ssh/extend_start.sh"), None, _NO_DSA),
    "horizon": Image(_start("horizon/extend_start.sh")),
    "glance-api": Image(
        _pair("glance/glance-base/extend_start.sh", "glance", "glance/glance-api/extend_start.sh"), "glance"
    ),
    "placement-api": Image(
        _pair("placement/placement-base/extend_start.sh", "placement", "placement/placement-api/extend_start.sh")
    ),
    "openvswitch-db-server": Image(
        _pair(_OVS, "openvswitch", "openvswitch/openvswitch-db-server/extend_start.sh"),
    ),
    "openvswitch-vswitchd": Image(
        _pair(_OVS, "openvswitch", "openvswitch/openvswitch-vswitchd/extend_start.sh"), None, _NO_MODPROBE
    ),
    "nova-api": Image(_pair(_NOVA, "nova", "nova/nova-api/extend_start.sh")),
    "nova-conductor": Image(_pair(_NOVA, "nova", "nova/nova-conductor/extend_start.sh"), "nova"),
    "nova-scheduler": Image(_pair(_NOVA, "nova", None), "nova"),
    "nova-novncproxy": Image(_pair(_NOVA, "nova", None), "nova"),
    "nova-compute": Image(_pair(_NOVA, "nova", "nova/nova-compute/extend_start.sh"), "nova"),
    "nova-ssh": Image(_start("nova/nova-ssh/extend_start.sh"), None, _NO_DSA),
    "nova-libvirt": Image(
        {
            "kolla_extend_start": "nova/nova-libvirt/extend_start.sh",
            "kolla_nova_libvirt_start": "nova/nova-libvirt/kolla_nova_libvirt_start.sh",
        },
        None,
        _LIBVIRT,
    ),
    "neutron-server": Image(_pair(_NEUTRON, "neutron", "neutron/neutron-server/extend_start.sh"), "neutron"),
    "neutron-openvswitch-agent": Image(_pair(_NEUTRON, "neutron", None), "neutron"),
    "neutron-metadata-agent": Image(_pair(_NEUTRON, "neutron", None), "neutron"),
    "neutron-dhcp-agent": Image(_pair("neutron/neutron-dhcp-agent/extend_start.sh", "neutron", None), "neutron"),
    "neutron-l3-agent": Image(_pair("neutron/neutron-l3-agent/extend_start.sh", "neutron", None), "neutron"),
}


def tag(release: str) -> str:
    """The tag that kolla-ansible gives images of ``release`` (``openstack_tag`` with its distribution suffix)."""
    return f"{release}-{DISTRO[0]}-{DISTRO[1]}"
