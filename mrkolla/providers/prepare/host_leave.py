"""Remove from a host what a cloud left on it: Kolla's containers with their units, volumes, images and settings.

Read on standard input by the host's Python. What was there before (containers, volumes and images named in the JSON
argument) stays. With {"sweep": true} there is no record of what was before, and mrkolla's own units, registry and names
go too. Prints {"removed": {...}, "failed": [...]}.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

before = json.loads(sys.argv[1])
removed = {}  # type: dict[str, int]
failed = []  # type: list[str]


def said(*argv, timeout=300):
    """What a command prints; nothing, and its last words among the failures, when it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        failed.append("{}: {}".format(" ".join(argv[:4]), (done.stderr.strip().splitlines() or ["failed"])[-1]))
        return ""
    return done.stdout


def call(*argv):
    return said(*argv).split()


def drop(kind, names, *argv):
    names = sorted(set(names))
    if names:
        call(*argv, *names)
    removed[kind] = removed.get(kind, 0) + len(names)


def docker_is_needed():
    """Whether Docker has containers; where it has, it is started. Stopped and without containers it stays stopped."""
    if subprocess.run(["systemctl", "-q", "is-active", "docker"], timeout=60).returncode == 0:
        return True
    folder = "/var/lib/docker"
    if os.path.exists("/etc/docker/daemon.json"):
        with open("/etc/docker/daemon.json") as settings:
            folder = json.loads(settings.read().strip() or "{}").get("data-root", folder)
    if not glob.glob(os.path.join(folder, "containers", "*")):
        return False
    call("systemctl", "start", "docker")
    return True


def empty_docker():
    """Remove Kolla's containers, their volumes and images."""
    containers = [name for name in call("docker", "ps", "-aq", "--filter", "label=kolla_version") if name]
    facts = json.loads(said("docker", "inspect", *containers) or "[]") if containers else []
    drop("containers", containers, "docker", "rm", "-f")
    volumes.update(mount["Name"] for container in facts for mount in container["Mounts"] if mount["Type"] == "volume")
    inventory = set(call("docker", "volume", "ls", "-q"))
    drop("volumes", volumes & inventory - set(before.get("volumes", [])), "docker", "volume", "rm", "-f")
    images.update(container["Image"] for container in facts)
    inventory = set()
    for line in call("docker", "images", "-a", "--no-trunc", "--format", "{{.ID}}={{.Repository}}"):
        inventory.add(line.partition("=")[0])
        if "/openstack.kolla" in line:  # pulled, by a run that did not get as far as its container
            images.add(line.partition("=")[0])
    drop("images", images & inventory - set(before.get("images", [])), "docker", "rmi", "-f")


if shutil.which("docker") and docker_is_needed():
    units = sorted(glob.glob("/etc/systemd/system/kolla-*-container.service"))
    if units:
        # All at once: each may take its container's whole time to stop.
        call("systemctl", "disable", "--now", *map(os.path.basename, units))
    for path in units:
        os.unlink(path)
    volumes = set()  # type: set[str]
    images = set()  # type: set[str]
    before_docker = list(failed)
    for attempt in range(4):
        # Docker 20.10 was seen to say that a container is gone, and then that its image is in use by it: mostly for
        # seconds, and else until it is started again, which is done where it runs nothing that would stop with it.
        time.sleep(3 * attempt)
        failed[:] = before_docker
        if attempt == 3 and not call("docker", "ps", "-q"):
            call("systemctl", "restart", "docker")
        empty_docker()
        if failed == before_docker:
            break
if before.get("sweep"):
    for unit in ("mrkolla-net.service", "mrkolla-registry.service"):
        if os.path.exists("/etc/systemd/system/" + unit):
            call("systemctl", "disable", "--now", unit)
            os.unlink("/etc/systemd/system/" + unit)
    for folder in ("/etc/mrkolla", "/var/lib/mrkolla-registry"):
        shutil.rmtree(folder, ignore_errors=True)
    with open("/etc/hosts") as names:
        text = names.read()
    text = re.sub(r"(?ms)^# BEGIN mrkolla (\S+)$.*?^# END mrkolla \1$\n?", "", text)
    # Not by a new file: in a container this one may be a mount.
    with open("/etc/hosts", "w") as names:
        names.write(re.sub(r"(?m)^#mrkolla# ", "", text))
if "/etc/kolla" not in before.get("folders", []) and os.path.isdir("/etc/kolla"):
    shutil.rmtree("/etc/kolla")
    removed["folders"] = 1
call("systemctl", "daemon-reload")
print(json.dumps({"removed": removed, "failed": failed}))
