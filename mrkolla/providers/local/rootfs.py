"""The root file system that every local host shares, read-only under an overlay of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mrkolla.base import cache, debian
from mrkolla.providers.local.constants import HOST_PACKAGES

_NEEDS = Path(__file__).with_name("needs.py")
_LIMITS = "[Service]\nLimitNOFILE=20000\nLimitNPROC=infinity\nOOMScoreAdjust=0\n"
_FILES = {
    # Kolla mounts folders of containers shared into the host and back.
    "etc/systemd/system/docker.service.d/mrkolla.conf": _LIMITS + "MountFlags=shared\n",
    "etc/systemd/system/containerd.service.d/mrkolla.conf": _LIMITS,
    "etc/systemd/journald.conf.d/mrkolla.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n",
    "etc/systemd/system.conf.d/mrkolla.conf": "[Manager]\nDefaultTimeoutStopSec=20s\n",
    # Containers that start as the host boots wait for what their services need (a prefix of units: kolla-*).
    "etc/systemd/system/kolla-.service.d/mrkolla.conf": (
        "[Service]\nExecStartPre=-/bin/sh -c 'test $(systemctl is-system-running) != starting"
        " || exec /usr/bin/python3 /usr/local/lib/mrkolla/needs.py %p'\n"
    ),
    "usr/local/lib/mrkolla/needs.py": _NEEDS.read_text(),
    # Without PAM no login starts a user manager, whose end would hold up each shutdown for its time-out.
    "etc/ssh/sshd_config.d/mrkolla.conf": (
        "UseDNS no\nUsePAM no\nPasswordAuthentication no\nMaxSessions 100\nMaxStartups 100\n"
    ),
    "etc/timezone": "Etc/UTC\n",
    "etc/hostname": "host\n",
    # networkd must leave alone what Neutron and Docker set up.
    "etc/systemd/networkd.conf.d/mrkolla.conf": (
        "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"
    ),
}
# irtt and iperf3 would serve for good; a play starts its own for as long as it lasts.
_SERVERS = ("irtt.service", "iperf3.service")
_MASKED = (
    *("systemd-resolved.service", "systemd-networkd-wait-online.service", "apt-daily.timer", "e2scrub_all.timer"),
    *_SERVERS,
)


def ensure(log: Path, detail: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of the hosts' root, built on the first call (a minute, 0.5 GB).

    Raises LackError (no mmdebstrap, no disk) or DeployError (no network).
    """
    mark = cache.digest(HOST_PACKAGES, _FILES, _MASKED, debian.SUITE, debian.UNREAD)
    return cache.entry("host", debian.SUITE, mark, lambda folder: _build(folder, log, detail)) / "root"


def _build(folder: Path, log: Path, detail: Callable[[str], None]) -> None:
    cache.need_disk(2, "the hosts' root file system")
    files = folder / "files"
    for name, text in _FILES.items():
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    hooks = [
        f'cp -r --no-preserve=ownership "{files}/." "$1/"',
        'ln -sfn /usr/share/zoneinfo/Etc/UTC "$1/etc/localtime"',
        'chroot "$1" systemctl -q enable systemd-networkd ssh docker',
        f'chroot "$1" systemctl -q mask {" ".join(_MASKED)}',
        'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/resolv.conf"',
        'touch "$1/etc/machine-id"',
        'mkdir -p "$1/var/lib/docker" "$1/lib/modules"',
    ]
    what = "the hosts' root file system"
    debian.build(folder / "root", HOST_PACKAGES, log, hooks=hooks, exclude=debian.UNREAD, detail=detail, what=what)
