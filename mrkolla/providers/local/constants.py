"""Names and numbers of the local testbed."""

#: Addresses that are used unless others are named: a part of the block for benchmarks of networks (RFC 2544).
DEFAULT_NETWORK = "198.18.0.0/16"
#: Prefix of network namespaces and interfaces on the machine, by which leftovers are known.
PREFIX = "mrk"
#: In a network of a region: its gateway, its first host, its virtual address, and the AR's for public endpoints.
GATEWAY, FIRST_HOST, VIP, PUBLIC_VIP = 254, 11, 10, 9
#: In the AR's network: the router of the synthetic regions.
SYNTHETIC_ROUTER = 253
#: Seconds to wait for sshd and dockerd of a host that boots, and for one that shuts down.
BOOT_TIMEOUT, STOP_TIMEOUT = 120, 120

#: What a host of an OSR takes once all runs: memory (PSS) of a control host, memory of any other host, disk.
CONTROL_GIB, OTHER_GIB, DISK_GB = 2.5, 0.5, 3
#: Memory that is reckoned for a fake compute. The first one of a host takes more: it loads what the others share.
FAKE_MIB = 45

#: Debian packages of a host: what kolla-ansible's bootstrap-servers would see to, and what people look with.
HOST_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "python3", "python3-docker"),
    *("python3-dbus", "python3-requests", "python3-yaml", "iproute2", "iputils-ping", "ca-certificates", "docker.io"),
    *("docker-cli", "iptables", "sudo", "procps", "curl", "kmod", "rsync", "less", "lsof", "netcat-openbsd", "jq"),
    *("acl", "util-linux-extra", "tcpdump", "ethtool", "iperf3", "iperf", "irtt"),
)
