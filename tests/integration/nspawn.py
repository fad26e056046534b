"""A control group for each systemd-nspawn host that tests start by themselves.

Hosts that share one take each other's processes for leftovers of their own services.
"""

from __future__ import annotations

import time
from pathlib import Path

from mrkolla.base.errors import DeployError

TOPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup")
#: For ``sh -c``: enter the group $1, mount the overlay with options $2 at $3, then become the words that follow.
ENTER_AND_MOUNT = """
for top in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ ! -w "$top/cgroup.procs" ] || { mkdir -p "$top/$1" && echo $$ >"$top/$1/cgroup.procs"; } || exit 1
done
mount -t overlay overlay -o "$2" "$3" && shift 3 && exec "$@"
"""


def argv(group: str, overlay: str, target: Path, *words: str) -> list[str]:
    """The command that starts ``words`` in a mount namespace and control group of its own, with its overlay mounted."""
    own = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", ENTER_AND_MOUNT, "sh"]
    return [*own, group, overlay, str(target), *words]


def remove_group(name: str, patience: float = 10) -> None:
    """Remove the control group ``name`` and those below it, whose processes may just be ending."""
    for top in TOPS:
        for folder in sorted(Path(top).glob(f"{name}/**/"), reverse=True):
            _remove(folder, patience)


def _remove(folder: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as busy:
            if time.monotonic() > end:
                raise DeployError(f"{folder} cannot be removed: {busy.strerror}") from busy
            time.sleep(0.1)
