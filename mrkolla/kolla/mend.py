"""What a run of Kolla that was cut off leaves on hosts, and that its next run would stumble over.

Kolla takes a database volume that exists for a database that was set up: a run that ended between the two must not
leave it. Its set-up containers (``bootstrap_*``) go on after Ansible has ended, so they are waited for first.
"""

from __future__ import annotations

from mrkolla.base import remote
from mrkolla.base.errors import DeployError
from mrkolla.config.placement import Region

_SCRIPT = r"""
set -eu
bootstrapping() { docker ps --quiet --filter name=^bootstrap_; }
for _ in $(seq 120); do
    [ -n "$(bootstrapping)" ] || break
    sleep 1
done
[ -z "$(bootstrapping)" ] || { echo "a set-up container is still running: $(bootstrapping)" >&2; exit 1; }
failed=$(docker ps -a --filter name=^bootstrap_mariadb --format '{{.Status}}' | grep -v '^Exited (0)' || true)
docker ps -aq --filter name=^bootstrap_ | xargs -r docker rm -f >/dev/null
data=$(docker volume inspect mariadb --format '{{.Mountpoint}}' 2>/dev/null || true)
if [ -n "$data" ] && { [ -n "$failed" ] || ! ls "$data"/mysql/global_priv.* >/dev/null 2>&1; }; then
    docker rm -f mariadb >/dev/null 2>&1 || true
    docker volume rm mariadb >/dev/null
    echo "removed a database that was not set up to its end"
fi
"""


def mend(region: Region) -> list[str]:
    """Make the hosts of ``region`` ready for another run; returns what was done, a line each.

    Raises DeployError when a set-up container does not end within two minutes.
    """
    lines = []
    for host in region.with_role("control"):
        process = remote.run(host, ["sh", "-s"], input=_SCRIPT, timeout=180, check=False)
        if process.returncode != 0:
            raise DeployError(f"host {host.name}: {(process.stderr or process.stdout).strip()[-200:]}")
        lines += [f"{host.name}: {line}" for line in process.stdout.splitlines()]
    return lines
