"""Call enoslib's Vagrant provider in a folder of its own: ``run.py VERB FOLDER``, with the provider's conf.json there.

enoslib works in the process's current folder, and Vagrant takes minutes: so it is a process of its own, which can be
bounded and ended. Stand-alone: it imports enoslib and Vagrant's Python package alone. Verbs: up (writes hosts.json:
name -> address, port, user, key, as enoslib has them), halt, destroy.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import enoslib as en
import vagrant
from enoslib.infra.enos_vagrant.configuration import Configuration


def up(provider: en.Vagrant) -> None:
    roles, _ = provider.init()
    hosts = {}
    for host in {host.alias: host for group in roles.values() for host in group}.values():
        row = {"address": host.address, "port": int(host.port), "user": host.user, "key": host.keyfile}
        hosts[host.alias] = row
    new = Path("hosts.new")
    new.write_text(json.dumps(hosts, indent=1))
    new.replace("hosts.json")


def halt(provider: en.Vagrant) -> None:
    vagrant.Vagrant(root=os.getcwd(), quiet_stdout=False, quiet_stderr=False).halt()


def destroy(provider: en.Vagrant) -> None:
    provider.destroy()


if __name__ == "__main__":
    verb, folder = sys.argv[1:]
    os.umask(0o077)
    os.chdir(folder)
    conf = Configuration.from_dictionary(json.loads(Path("conf.json").read_text()))
    try:
        {"up": up, "halt": halt, "destroy": destroy}[verb](en.Vagrant(conf))
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode if 0 < failed.returncode < 256 else 1)
