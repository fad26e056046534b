"""A small cloud in network namespaces: a real Keystone behind a real HAProxy, and real token middleware in two OSRs.

Each region is a namespace with a subnet of its own behind a router namespace, as on the local testbed. HAProxy's files
come from Kolla's own roles and templates, fed with mrkolla's plan. Behind an OSR's HAProxy, Nova, Neutron and Glance
are empty WSGI applications behind the real keystonemiddleware, one process each, with a real memcached for tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mrkolla import config
from mrkolla.base.remote import Host
from mrkolla.bench import BenchContext, BenchPoint
from mrkolla.bench.accesslog import AccessLog
from mrkolla.bench.middleware import Middleware
from mrkolla.config.placement import AR, OSR, PlacedHost, Region
from mrkolla.kolla import places, plan
from mrkolla.kolla.env import KollaEnv
from mrkolla.wan.driver import command
from tests import programs
from tests.integration import environments
from tests.integration.claims import claim
from tests.integration.keystone_conf import CONF

PASSWORD = "not-a-real-secret"
DOMAINS = {"user_domain_name": "Default", "project_domain_name": "Default"}
ADMIN = {"username": "admin", "password": PASSWORD, "project_name": "admin", **DOMAINS}
ROUTER = "mrkmw-router"
SUBNETS = {"AR": 160, "OSR1": 161, "OSR2": 162}
PORTS = {"compute": 8774, "network": 9696, "image": 9292}

KEYSTONE = '''\
"""Keystone on ADDRESS:PORT; prints a line for each request to it, but those of HAProxy's health checks."""
import json, sys
from waitress.server import create_server
from keystone.server.wsgi import initialize_public_application

# Keystone reads the command line itself.
listen = sys.argv.pop()
keystone = initialize_public_application()

def counted(environ, start):
    if environ["REQUEST_METHOD"] == "OPTIONS":
        start("200 OK", [("Content-Length", "0")])
        return [b""]
    print(json.dumps({"agent": environ.get("HTTP_USER_AGENT", ""), "method": environ["REQUEST_METHOD"]}), flush=True)
    return keystone(environ, start)

# SQLite has one writer.
server = create_server(counted, listen=listen, threads=1)
print("{}", flush=True)
server.run()
'''

SERVICE = '''\
"""A service behind the real middleware; prints for each call its token's digest and the middleware's requests."""
import hashlib, json, os, sys, threading
from keystoneauth1 import session
from keystonemiddleware import auth_token
from waitress.server import create_server

asked = threading.local()
original = session.Session.request
def request(self, *arguments, **keywords):
    asked.count = getattr(asked, "count", 0) + 1
    return original(self, *arguments, **keywords)
session.Session.request = request

def empty(environ, start):
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
    return [b"{}"]

guarded = auth_token.AuthProtocol(empty, {"auth_type": "password", "auth_url": os.environ["KEYSTONE"],
    "www_authenticate_uri": os.environ["KEYSTONE"], "username": "admin", "password": os.environ["ADMIN_PASSWORD"],
    "project_name": "admin", "user_domain_id": "default", "project_domain_id": "default",
    "memcached_servers": sys.argv[2], "memcache_security_strategy": "ENCRYPT", "memcache_secret_key": "k",
    "token_cache_time": os.environ["TOKEN_CACHE"]})

def counted(environ, start):
    if environ["REQUEST_METHOD"] == "OPTIONS":
        return empty(environ, start)
    asked.count = 0
    try:
        return guarded(environ, start)
    finally:
        token = hashlib.sha1(environ.get("HTTP_X_AUTH_TOKEN", "").encode()).hexdigest()
        print(json.dumps({"token": token, "keystone": asked.count}), flush=True)

server = create_server(counted, listen=sys.argv[1], threads=4)
print("{}", flush=True)
server.run()
'''

BACKGROUND = '''\
"""What a region's services ask Keystone by themselves: a token now and then, and its validation."""
import os, sys, time
import requests
url = os.environ["KEYSTONE"] + "/v3/auth/tokens"
user = {"name": "admin", "domain": {"id": "default"}, "password": os.environ["ADMIN_PASSWORD"]}
body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
http = requests.Session()
http.headers["User-Agent"] = "nova-compute keystoneauth1/5.0 python-requests/2.0"
print("{}", flush=True)
while True:
    token = http.post(url, json=body).headers["X-Subject-Token"]
    http.get(url, headers={"X-Auth-Token": token, "X-Subject-Token": token})
    time.sleep(float(sys.argv[1]))
'''

PLAY = """\
- hosts: loadbalancer
  gather_facts: true
  vars: {{ansible_become: false}}
  vars_files: ["{roles}/loadbalancer/defaults/main.yml"]
  tasks:
    - file: {{path: "{{{{ node_config_directory }}}}/haproxy/services.d", state: directory}}
    - template:
        src: "{roles}/loadbalancer/templates/haproxy/haproxy_main.cfg.j2"
        dest: "{{{{ node_config_directory }}}}/haproxy/haproxy.cfg"
    - include_role: {{name: "{{{{ item }}}}", tasks_from: loadbalancer}}
      loop: {projects}
"""


def region(name: str) -> Region:
    """A region of one host in 198.19.160.0/22."""
    prefix = f"198.19.{SUBNETS[name]}"
    host = PlacedHost(
        Host(space(name), f"{prefix}.11", key=Path("/none")), frozenset({"control", "network", "compute"})
    )
    return Region(name, AR if name == "AR" else OSR, f"{prefix}.10", f"{prefix}.0/24", (host,))


def space(name: str) -> str:
    """The namespace of a region."""
    return f"mrkmw-{name.lower()}"


def launch(host: Host, argv: list[str]) -> subprocess.Popen[str]:
    """In place of SSH: start ``argv`` in the host's namespace."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    line = ["nsenter", f"--net=/run/netns/{host.name}", "--", *argv]
    return subprocess.Popen(line, text=True, bufsize=1, **pipes)


@contextlib.contextmanager
def network(names: list[str]) -> Iterator[None]:
    """Namespaces of the regions around a router."""
    claimed = claim("mrkmw")
    try:
        command(["ip", "netns", "add", ROUTER])
        command(["sysctl", "-qw", "net.ipv4.ip_forward=1"], netns=ROUTER)
        for name in names:
            made, prefix = region(name), f"198.19.{SUBNETS[name]}"
            host, end = space(name), f"p-{name.lower()}"
            command(["ip", "netns", "add", host])
            command(["ip", "link", "set", "lo", "up"], netns=host)
            command(["ip", "link", "add", "eth0", "netns", host, "type", "veth", "peer", end, "netns", ROUTER])
            command(["ip", "addr", "add", f"{prefix}.254/24", "dev", end], netns=ROUTER)
            command(["ip", "link", "set", end, "up"], netns=ROUTER)
            command(["ip", "addr", "add", f"{made.control.address}/24", "dev", "eth0"], netns=host)
            command(["ip", "addr", "add", f"{made.vip}/32", "dev", "eth0"], netns=host)
            command(["ip", "link", "set", "eth0", "up"], netns=host)
            command(["ip", "route", "add", "default", "via", f"{prefix}.254"], netns=host)
        yield
    finally:
        for name in [*names, None]:
            host = space(name) if name else ROUTER
            subprocess.run(["ip", "netns", "delete", host], capture_output=True, timeout=30, check=False)
        claimed.close()


def python() -> Path:
    """The Python that Keystone and the services run in."""
    return environments.keystone() / "python"


def render(kolla: KollaEnv, folder: Path, names: list[str], keystone: dict) -> dict[str, Path]:
    """Write the plan, have Kolla's own roles make each region's HAProxy files from it; region -> folder of files."""
    made = config.from_dict(
        {
            "name": "mw",
            "release": "2025.1",
            "testbed": {"kind": "local"},
            "keystone": keystone,
            "regions": [{"name": name} for name in SUBNETS if name != "AR"],
        }
    )
    planned, regions, found = folder / "plan", [region(name) for name in SUBNETS], {}
    own = {"network_interface": "eth0", "haproxy_max_connections": 1000}
    plan.write(planned, made, regions, lambda e, r: own, lambda r: {}, folder / "passwords.yml")
    for one in (each for each in regions if each.name in names):
        target = folder / f"kolla-{one.name}"
        projects = ["keystone"] if one.kind == AR else ["glance", "neutron", "nova"]
        if places.has_own(made, one):
            projects.append("keystone")
        roles = kolla.share / "ansible" / "roles"
        (folder / "play.yml").write_text(PLAY.format(roles=roles, projects=json.dumps(projects)))
        play(kolla, folder, one.name, folder / "play.yml")
        found[one.name] = next(target.rglob("haproxy.cfg")).parent
    return found


def play(kolla: KollaEnv, folder: Path, name: str, file: Path, library: Path | None = None, **more: str) -> None:
    """Have Ansible play ``file`` for a region of the plan in ``folder``, with Kolla's variables; ``more`` are others.

    What would be written to its host is in ``folder``/kolla-NAME. Modules of ``library`` stand before Kolla's.
    """
    planned, ansible = folder / "plan", kolla.share / "ansible"
    inventory = yaml.safe_load((planned / name / "inventory.yml").read_text())
    for host in inventory["all"]["hosts"].values():
        host["ansible_connection"] = "local"
        host["ansible_python_interpreter"] = "{{ ansible_playbook_python }}"
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    extra = [f"@{ansible}/group_vars/all.yml", f"@{planned}/{name}/globals.yml", f"@{planned}/passwords.yml"]
    extra += [f"node_config_directory={folder}/kolla-{name}", f"node_custom_config={planned}/{name}/config"]
    argv = [str(kolla.bin / "ansible-playbook"), "-i", str(folder / "inventory.yml"), str(file)]
    for one in (*extra, *(f"{key}={value}" for key, value in more.items())):
        argv += ["-e", one]
    environment = {
        **os.environ,
        "ANSIBLE_ROLES_PATH": str(ansible / "roles"),
        "ANSIBLE_ACTION_PLUGINS": str(ansible / "action_plugins"),
        "ANSIBLE_FILTER_PLUGINS": str(ansible / "filter_plugins"),
        "ANSIBLE_LIBRARY": os.pathsep.join(map(str, [*([library] if library else []), ansible / "library"])),
        "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
    }
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{space(name)}", "--", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@dataclass
class Running:
    """The running cloud: its regions, and where the services and Keystone say what they did."""

    regions: dict[str, Region]
    folder: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    def log(self, name: str) -> list[dict]:
        """The lines that ``name`` (keystone, OSR1-compute, ...) printed, but its first."""
        return [json.loads(line) for line in (self.folder / f"{name}.out").read_text().splitlines()[1:]]

    def start(self, name: str, where: str, argv: list[str], *, env: dict | None = None, ready: bool = True) -> None:
        """Start ``argv`` in a region's namespace; with ``ready`` its first line is waited for."""
        out = self.folder / f"{name}.out"
        with out.open("w") as stdout, (self.folder / f"{name}.err").open("w") as stderr:
            line = ["nsenter", f"--net=/run/netns/{space(where)}", "--", *argv]
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env)
        self.processes.append(process)
        end = time.monotonic() + 60
        while ready and not out.read_text():
            assert process.poll() is None, (self.folder / f"{name}.err").read_text()[-2000:]
            assert time.monotonic() < end, f"{name} did not start within 60 s"
            time.sleep(0.1)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
        for process in self.processes:
            process.wait(timeout=30)
        for where in self.regions:
            self.socket(where).unlink(missing_ok=True)

    def socket(self, where: str) -> Path:
        """That of HAProxy in the region ``where``."""
        return Path("/run") / f"{space(where)}.sock"


def haproxy(running: Running, where: str, files: Path) -> None:
    """Start HAProxy as Kolla's container does, but in the foreground and with a socket of its own."""
    main = files / "haproxy.cfg"
    # Not beside its files: a socket's path has 97 characters at most.
    text = re.sub(r"stats socket \S+ group kolla", f"stats socket {running.socket(where)}", main.read_text())
    main.write_text(text)
    program = shutil.which(os.environ.get("MRKOLLA_TEST_HAPROXY", "haproxy"))
    argv = [program, "-db", "-f", str(main), "-f", str(files / "services.d")]
    checked = subprocess.run(
        ["nsenter", f"--net=/run/netns/{space(where)}", "--", *argv, "-c"], capture_output=True, text=True, timeout=300
    )
    assert checked.returncode == 0, checked.stderr
    # Kolla has its own rules below the lines that a variable gives, whichever these are.
    warned = [line for line in checked.stderr.splitlines() if "WARNING" in line]
    assert not [line for line in warned if "will still be processed before" not in line], checked.stderr
    running.start(f"haproxy-{where}", where, argv, ready=False)
    time.sleep(1)
    assert running.processes[-1].poll() is None, (running.folder / f"haproxy-{where}.err").read_text()


def bootstrap(folder: Path) -> dict[str, str]:
    """Make Keystone's database; returns the environment that it runs with."""
    (folder / "keystone.conf").write_text(CONF.format(folder=folder))
    environment = {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(folder), "ADMIN_PASSWORD": PASSWORD}
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    manage = [str(python().with_name("keystone-manage")), "--config-file", str(folder / "keystone.conf")]
    url = f"http://{region('AR').vip}:5000"
    urls = [f"--bootstrap-{kind}-url={url}/v3" for kind in ("internal", "public")]
    for step in (
        ["db_sync"],
        ["fernet_setup", *owner],
        ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "AR", *urls],
    ):
        done = subprocess.run([*manage, *step], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    return environment


def background(running: Running, where: str, every_s: float) -> None:
    """Have a region ask Keystone by itself from now on."""
    environment = {**os.environ, "KEYSTONE": f"http://{region('AR').vip}:5000", "ADMIN_PASSWORD": PASSWORD}
    argv = [str(python()), str(running.folder / "background.py"), str(every_s)]
    running.start(f"background-{where}", where, argv, env=environment)


@contextlib.contextmanager
def cloud(kolla: KollaEnv, folder: Path, *, osrs: list[str], keystone: dict | None = None) -> Iterator[Running]:
    """The cloud, running; ``keystone`` is that section of the experiment file."""
    programs.ensure([("haproxy", "haproxy"), ("memcached", "memcached")], "the tests of the middleware probe")
    running = Running({name: region(name) for name in ("AR", *osrs)}, folder)
    with network(list(SUBNETS)):
        try:
            files = render(kolla, folder, ["AR", *osrs], keystone or {})
            environment = bootstrap(folder)
            for name, text in (("serve_keystone.py", KEYSTONE), ("service.py", SERVICE), ("background.py", BACKGROUND)):
                (folder / name).write_text(text)
            admin = running.regions["AR"]
            environment |= {"KEYSTONE": f"http://{admin.vip}:5000", "TOKEN_CACHE": "300"}
            argv = [str(python()), str(folder / "serve_keystone.py"), f"{admin.control.address}:5000"]
            running.start("keystone", "AR", argv, env=environment)
            haproxy(running, "AR", files["AR"])
            for name in osrs:
                address = running.regions[name].control.address
                cache_at = f"{address}:11211"
                running.start(
                    f"memcached-{name}", name, ["memcached", "-u", "nobody", "-l", address, "-U", "0"], ready=False
                )
                for service, port in PORTS.items():
                    argv = [str(python()), str(folder / "service.py"), f"{address}:{port}", cache_at]
                    running.start(f"{name}-{service}", name, argv, env=environment)
                haproxy(running, name, files[name])
            # HAProxy takes a server for up after two checks.
            time.sleep(6)
            yield running
        finally:
            running.stop()


def context(running: Running, log: AccessLog | None = None) -> BenchContext:
    osrs = [region for region in running.regions.values() if region.kind == "OSR"]
    endpoints = {
        region.name: {service: f"http://{region.vip}:{port}" for service, port in PORTS.items()} for region in osrs
    }
    auth = {"auth_url": f"http://{running.regions['AR'].vip}:5000", **ADMIN}
    return BenchContext("run", "AR", osrs, auth, endpoints, launcher=launch, python=[sys.executable], access_log=log)


def receiving(running: Running) -> AccessLog:
    return AccessLog(list(running.regions.values()), launcher=launch, python=[sys.executable])


def measured(tool: Middleware, running: Running, log: AccessLog) -> list[dict]:
    """The samples of one point."""
    ctx = context(running, log)
    tool.prepare(ctx)
    names = [region.name for region in ctx.regions]
    rows = list(tool.run(ctx, BenchPoint("p", dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.1)), ctx.regions))
    assert tool.warnings == []
    assert {row["error"] for row in rows} == {None}
    return rows
