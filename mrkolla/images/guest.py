"""A small guest to boot in tests: Debian's kernel for virtual machines, busybox, and one script as its init.

It says on its serial console ``mrkolla-guest: booted`` and, once it has an address, ``mrkolla-guest: dhcp ADDRESS``.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mrkolla.base import bootdisk, cache, debian, shell
from mrkolla.base.errors import DeployError, LackError

HERE = Path(__file__).parent
#: Kernel modules of a virtio network card; their dependencies are found from modules.dep.
MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_rng")
_PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
_SIZE = 40 << 20
#: Where the disk's one partition begins, bytes.
START = 1 << 20

# Without KVM a quarter of the kernel's work is looking at what no guest here needs.
_SYSLINUX = """\
DEFAULT guest
TIMEOUT 1
LABEL guest
  KERNEL /vmlinuz
  APPEND initrd=/initrd console=ttyS0 panic=10 mitigations=off tsc=unstable random.trust_cpu=on \
cryptomgr.notests lsm= audit=0 numa=off nowatchdog
"""


def ensure(log: Path, detail: Callable[[str], None] = lambda text: None) -> Path:
    """The guest's disk (raw, bootable by BIOS), built on the first call (half a minute).

    Raises LackError when it has to be built and a tool, or root, is missing.
    """
    scripts = [HERE / "guest-init.sh", HERE / "guest-dhcp.sh"]
    mark = cache.digest(_PACKAGES, MODULES, _SYSLINUX, _SIZE, debian.SUITE, *scripts)
    return cache.entry("guest", debian.SUITE, mark, lambda folder: _build(folder, log, detail)) / "guest.raw"


def _build(folder: Path, log: Path, detail: Callable[[str], None]) -> None:
    bootdisk.need()
    need_cpio()
    if os.geteuid() != 0:
        raise LackError(
            f"the guest image is built by root: 'mrkolla images DIR' on a machine with root makes {folder.name};"
            f" copy it to {folder.parent}"
        )
    tree = folder / "tree"
    debian.build(tree, _PACKAGES, log, variant="extract", detail=detail, what="the guest")
    kernel = next(iter(sorted((tree / "boot").glob("vmlinuz-*"))), None)
    if kernel is None:
        raise DeployError("the guest's kernel package holds no kernel")
    root = folder / "initrd"
    for name in ("bin", "modules"):
        (root / name).mkdir(parents=True)
    busybox = next(path for path in (tree / "usr/bin/busybox", tree / "bin/busybox") if path.exists())
    shutil.copy(busybox, root / "bin" / "busybox")
    shutil.copy(HERE / "guest-init.sh", root / "init")
    shutil.copy(HERE / "guest-dhcp.sh", root / "dhcp.sh")
    (root / "bin" / "sh").symlink_to("busybox")
    for script in ("init", "dhcp.sh"):
        (root / script).chmod(0o755)
    _modules(tree, kernel.name.removeprefix("vmlinuz-"), root)
    initrd = folder / "initrd.img"
    pack(root, initrd)
    _disk(folder, kernel, initrd, log)
    cache.remove(tree)
    shutil.rmtree(root)


def _modules(tree: Path, version: str, root: Path) -> None:
    """Unpack the wanted modules and what they need into the initrd, and write the order in which to load them."""
    library = next(path for path in (tree / "usr/lib/modules", tree / "lib/modules") if path.is_dir()) / version
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")  # where depmod looks
    done = shell.call(["depmod", "-b", str(tree), version])
    if done.returncode != 0:
        raise DeployError(f"depmod failed: {done.stderr.strip()[-200:]}")
    needs = {}
    for line in (library / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).name.split(".ko")[0].replace("-", "_")] = [path, *rest.split()]
    order: list[str] = []
    for name in MODULES:
        # modules.dep lists what a module needs from the last to be loaded to the first; one built in is not there.
        for path in reversed(needs.get(name, [])):
            if path not in order:
                order.append(path)
    for path in order:
        data = (library / path).read_bytes()
        (root / "modules" / Path(path).name.removesuffix(".xz")).write_bytes(
            lzma.decompress(data) if path.endswith(".xz") else data
        )
    names = [Path(path).name.removesuffix(".xz") for path in order]
    (root / "modules.order").write_text("\n".join(names) + "\n")


def need_cpio() -> None:
    """Raise LackError without the program that packs an initrd."""
    if not shutil.which("cpio"):
        raise LackError("cpio is not installed: apt-get install cpio")


def pack(root: Path, target: Path) -> None:
    """Write what is in the folder ``root`` to ``target``, as an initrd. Raises LackError without cpio, DeployError."""
    need_cpio()
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    argv = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"]
    packed = subprocess.run(argv, cwd=root, input=names.encode(), capture_output=True, timeout=60)
    if packed.returncode != 0:
        raise DeployError(f"cpio failed: {packed.stderr.decode().strip()[-200:]}")
    # Not compressed: without KVM, unpacking takes longer than reading.
    target.write_bytes(packed.stdout)


def _disk(folder: Path, kernel: Path, initrd: Path, log: Path) -> None:
    """A disk with one FAT partition that syslinux boots from."""
    disk = folder / "guest.raw"
    with disk.open("wb") as out:
        out.truncate(_SIZE)
    (folder / "syslinux.cfg").write_text(_SYSLINUX)
    bootdisk.partition(disk, f"start={START // 512},type=c,bootable\n")
    files = {"vmlinuz": kernel, "initrd": initrd, "syslinux.cfg": folder / "syslinux.cfg"}
    bootdisk.boot_partition(disk, START, _SIZE - START, files, log)
