"""The guest of :mod:`mrkolla.images.guest` as one of two that talk to each other (``pair.sh`` is what they do).

Nothing is built anew: its disk is copied, and a small archive is put behind its initrd, which the kernel unpacks over
it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mrkolla.base import bootdisk, cache
from mrkolla.images import guest

HERE = Path(__file__).parent
#: The last number of the address of the guest that asks, and of the one that answers; ``pair.sh`` has them too.
ASKS, ANSWERS = 201, 202
#: Seconds after which it gives up.
DEADLINE_S = 2.0


def ensure(disk: Path) -> Path:
    """The disk for both guests (raw), made of the guest's ``disk`` on the first call (a second).

    Raises LackError when a tool is missing, DeployError when it cannot be made.
    """
    mark = cache.digest(disk.parent.name, HERE / "guest-dhcp.sh", HERE / "pair.sh")
    return cache.entry("guest", "pair", mark, lambda folder: _build(folder, disk)) / "pair.raw"


def _build(folder: Path, disk: Path) -> None:
    copy, initrd = folder / "pair.raw", folder / "initrd"
    shutil.copyfile(disk, copy)
    over = folder / "over"
    over.mkdir()
    shutil.copy(HERE / "pair.sh", over)
    # Called with the address that was given: the last thing that it does.
    (over / "dhcp.sh").write_text((HERE / "guest-dhcp.sh").read_text() + '/pair.sh "$ip" &\n')
    for script in over.iterdir():
        script.chmod(0o755)
    guest.pack(over, folder / "more")
    bootdisk.copy(copy, guest.START, "::/initrd", str(initrd))
    with initrd.open("ab") as out:
        out.write((folder / "more").read_bytes())
    bootdisk.copy(copy, guest.START, str(initrd), "::/initrd")
    shutil.rmtree(over)
    for path in (initrd, folder / "more"):
        path.unlink()
