"""The Vagrant box that mrkolla builds: Debian with what every host needs, for libvirt.

Its disk has a FAT partition with kernel and initrd, which syslinux boots, and one with Debian. Nothing is mounted or
started to make it, so a build that is killed leaves files in the cache alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from mrkolla.base import bootdisk, cache, debian, files, shell
from mrkolla.base.errors import DeployError, LackError
from mrkolla.providers.local.constants import HOST_PACKAGES

Say = Callable[[str], None]
#: Debian packages of the box: a host's, a kernel, and what a host that is no container needs.
PACKAGES = (*HOST_PACKAGES, "linux-image-cloud-amd64", "initramfs-tools", "udev", "chrony", "systemd-resolved")
#: GB that the disk seems to have; it takes what is written to it.
DISK_GB = 40
_BOOT_START, _BOOT_SIZE = 1 << 20, 127 << 20
_ROOT_START = _BOOT_START + _BOOT_SIZE
#: Drivers of the initrd: those of libvirt's usual disks, so that it is small (without KVM, unpacking takes long).
_INITRD_MODULES = "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\next4\n"
_SYSLINUX = """\
DEFAULT host
TIMEOUT 1
LABEL host
  KERNEL /vmlinuz
  APPEND initrd=/initrd root=LABEL=root ro console=ttyS0 net.ifnames=0 quiet mitigations=off
"""
_FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults,noatime 0 1\n",
    "etc/hostname": "box\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n",
    # networkd must leave alone what Neutron and Docker set up.
    "etc/systemd/networkd.conf.d/mrkolla.conf": (
        "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"
    ),
    "etc/systemd/journald.conf.d/mrkolla.conf": "[Journal]\nRuntimeMaxUse=32M\n",
    "etc/systemd/system.conf.d/mrkolla.conf": "[Manager]\nDefaultTimeoutStopSec=30s\n",
    # Without PAM no login starts a user manager, whose end would hold up each shutdown for its time-out.
    "etc/ssh/sshd_config.d/mrkolla.conf": (
        "UseDNS no\nUsePAM no\nPasswordAuthentication no\nMaxSessions 100\nMaxStartups 100\n"
    ),
    # Each machine has keys of its own, made at its first boot.
    "etc/systemd/system/ssh.service.d/mrkolla.conf": "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/initramfs-tools/conf.d/mrkolla.conf": "MODULES=list\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": _INITRD_MODULES,
    "etc/timezone": "Etc/UTC\n",
}
_MASKED = (
    *("systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"),
    *("irtt.service", "iperf3.service", "dpkg-db-backup.timer", "fstrim.timer"),
)


def mark() -> str:
    """Digest of everything that the box is made from."""
    return cache.digest(PACKAGES, DISK_GB, _SYSLINUX, _FILES, _MASKED, debian.SUITE, _hooks(Path("x"), "key"))


def name() -> str:
    """The name that the box has in Vagrant."""
    return f"mrkolla/{debian.SUITE}-{mark()}"


def need() -> None:
    """Raise LackError when this machine cannot build a box."""
    bootdisk.need()
    programs = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}
    if missing := sorted(package for program, package in programs.items() if not shutil.which(program)):
        raise LackError(f"testbed.box: build needs more programs: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise LackError("testbed.box: build makes a root file system: run as root, or name a box that is there")


def ensure(public_key: str, log: Path, say: Say = lambda text: None) -> Path:
    """The box's file, built on the first call (two minutes, 0.6 GB).

    ``public_key``: that by which Vagrant logs in at first (the well-known one, which it then replaces). Raises
    LackError and DeployError.
    """
    return cache.entry("box", debian.SUITE, mark(), lambda folder: _build(folder, public_key, log, say)) / "mrkolla.box"


def _hooks(files: Path, public_key: str) -> list[str]:
    return [
        f'cp -r --no-preserve=ownership "{files}/." "$1/"',
        'chmod 440 "$1/etc/sudoers.d/vagrant"',
        'chroot "$1" useradd --create-home --shell /bin/bash --password "*" vagrant',
        'install -d -m 700 "$1/home/vagrant/.ssh"',
        f'echo "{public_key}" > "$1/home/vagrant/.ssh/authorized_keys"',
        'chmod 600 "$1/home/vagrant/.ssh/authorized_keys"',
        'chroot "$1" chown -R vagrant:vagrant /home/vagrant',
        'ln -sfn /usr/share/zoneinfo/Etc/UTC "$1/etc/localtime"',
        'chroot "$1" systemctl -q enable systemd-networkd ssh docker chrony',
        f'chroot "$1" systemctl -q mask {" ".join(_MASKED)}',
        'chroot "$1" update-initramfs -u -k all',
        'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/resolv.conf"',
        'touch "$1/etc/machine-id"',
        # The name server is the one that DHCP tells of.
        'ln -s /run/systemd/resolve/resolv.conf "$1/etc/resolv.conf"',
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/var/cache/apt/archives/*.deb',
    ]


def _build(folder: Path, public_key: str, log: Path, say: Say) -> None:
    cache.need_disk(4, "building a Vagrant box")
    for path, text in _FILES.items():
        target = folder / "files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    root = folder / "root"
    hooks = _hooks(folder / "files", public_key)
    debian.build(root, PACKAGES, log, hooks=hooks, detail=say, what="the box's root file system")
    say("disk")
    disk = folder / "disk.raw"
    _disk(folder, root, disk, log)
    cache.remove(root)
    say("box")
    image = folder / "box.img"
    argv = ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", str(disk), str(image)]
    shell.must(argv, log, timeout=900, what="qemu-img", pidfile=folder / "qemu-img.pid")
    disk.unlink()
    with files.replaced(folder / "mrkolla.box") as new, tarfile.open(new, "w") as tar:
        for file, text in _box_files().items():
            (folder / file).write_text(text)
            tar.add(folder / file, file)
        tar.add(image, image.name)
    image.unlink()


def _box_files() -> dict[str, str]:
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GB}
    return {"metadata.json": json.dumps(metadata) + "\n", "Vagrantfile": 'Vagrant.configure("2") do |config|\nend\n'}


def _disk(folder: Path, root: Path, disk: Path, log: Path) -> None:
    """A sparse raw disk with the two partitions."""
    total = DISK_GB << 30
    with disk.open("wb") as out:
        out.truncate(total)
    kernel = _newest(root, "vmlinuz-*")
    initrd = _newest(root, "initrd.img-*")
    (folder / "syslinux.cfg").write_text(_SYSLINUX)
    table = f"start={_BOOT_START // 512},size={_BOOT_SIZE // 512},type=c,bootable\nstart={_ROOT_START // 512},type=83\n"
    bootdisk.partition(disk, table)
    files = {"vmlinuz": kernel, "initrd": initrd, "syslinux.cfg": folder / "syslinux.cfg"}
    bootdisk.boot_partition(disk, _BOOT_START, _BOOT_SIZE, files, log)
    options = f"offset={_ROOT_START},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(root), "-E", options, str(disk)]
    argv.append(f"{(total - _ROOT_START) // 1024}k")
    shell.must(argv, log, timeout=900, what="mke2fs", pidfile=folder / "mke2fs.pid")


def _newest(root: Path, pattern: str) -> Path:
    paths = sorted((root / "boot").glob(pattern))
    if not paths:
        raise DeployError(f"the box's kernel package left no /boot/{pattern}")
    return paths[-1]


def vagrant_public_key(env: dict[str, str], home: Path) -> str:
    """The public half of the key that Vagrant tries first; Vagrant itself puts the private one into its ``home``."""
    private = home / "insecure_private_key"
    if not private.exists():
        shell.call(["vagrant", "box", "list"], env=env, timeout=120)
    done = shell.call(["ssh-keygen", "-y", "-f", str(private)])
    if done.returncode != 0:
        raise LackError(f"Vagrant's own key {private} cannot be read: {done.stderr.strip()}; remove it, then try again")
    return " ".join(done.stdout.split()[:2])
