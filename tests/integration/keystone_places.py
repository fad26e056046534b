"""Keystones, each with a real MariaDB and the HAProxy that Kolla's roles make of mrkolla's plan, in namespaces.

An OSR's database is made a copy of the AR's by the script that a deployment runs, or is a member of its cluster,
configured by the playbook that a deployment includes. The Fernet keys are copied by hand: Kolla's containers, which
take them by SSH, are not here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mrkolla.kolla import places
from mrkolla.kolla.env import PLAYBOOKS, KollaEnv
from mrkolla.wan import LocalLink, Wan
from mrkolla.wan.driver import command
from tests import programs
from tests.integration import middleware_cloud as made
from tests.integration.middleware_cloud import Running, region, space

ROOT, REPLICA, KEYSTONE = "root-of-the-test", "replica-of-the-test", "keystone-of-the-test"
GALERA = Path("/usr/lib/galera/libgalera_smm.so")

#: What of Kolla's galera.cnf bears on replication; no name server can be reached from these namespaces.
MARIADB = """\
[mysqld]
datadir = {folder}/data
socket = {folder}/socket
pid-file = {folder}/pid
log_error = {folder}/log.err
bind-address = {address}
port = 3306
log_bin = mysql-bin
binlog_format = ROW
default-storage-engine = innodb
innodb_autoinc_lock_mode = 2
innodb_buffer_pool_size = 64M
skip-name-resolve
performance_schema = OFF
wsrep_on = ON
wsrep_provider = {galera}
wsrep_cluster_name = openstack
wsrep_cluster_address = gcomm://
wsrep_node_address = {address}:4567
wsrep_provider_options = gmcast.listen_addr=tcp://{address}:4567
wsrep_sst_method = mariabackup
wsrep_sst_auth = root:{root}
"""

#: In place of Kolla's module, which needs a container engine: keeps what it is told.
MODULE = """\
#!/usr/bin/python
# WANT_JSON
import json, sys
said = json.load(open(sys.argv[1]))
open(said["volumes"][0].split(":")[0] + "container.json", "w").write(json.dumps(said))
print(json.dumps({"changed": True}))
"""

CONF = """\
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = mysql+pymysql://keystone:{password}@{address}:{port}/keystone
[fernet_tokens]
key_repository = {fernet}
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
"""


@dataclass
class Places:
    """The AR and OSR1, running."""

    running: Running
    folder: Path
    wan: Wan | None = None

    def url(self, name: str) -> str:
        """The region's Keystone, through its HAProxy."""
        return f"http://{region(name).vip}:5000"

    def sql(self, name: str, statement: str, user: str = "root", password: str = ROOT, port: int = 3306) -> str:
        """What the region's MariaDB at ``port`` answers."""
        argv = ["mariadb", "-N", "-h", region(name).control.address, "-P", str(port), "-u", user, "-e", statement]
        return inside(name, argv, MYSQL_PWD=password)

    def copy(self) -> str:
        """Run the script that makes OSR1's copy; what it said."""
        there, here = region("AR").control.address, region("OSR1").control.address
        with (PLAYBOOKS / "mrkolla-replica.sh").open() as script:
            return inside(
                "OSR1",
                ["bash", "-s", there, here, "3306", "root"],
                stdin=script,
                MYSQL_PWD=ROOT,
                REPLICA_PASSWORD=REPLICA,
                KEYSTONE_PASSWORD=KEYSTONE,
            )

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """No packet between OSR1 and any other region while the context lasts, and nobody is told."""
        here = region("OSR1").subnet
        rules = [[way, here, "blackhole"] for way in ("from", "to")]
        for rule in rules:
            command(["ip", "rule", "add", *rule], netns=made.ROUTER)
        try:
            yield
        finally:
            for rule in rules:
                command(["ip", "rule", "delete", *rule], netns=made.ROUTER)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """This thread, and those that it starts, in the region's network namespace while the context lasts."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{space(name)}") as there:
        assert libc.setns(there.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


def inside(name: str, argv: list[str], stdin=subprocess.DEVNULL, **environment: str) -> str:
    """Run ``argv`` in the region's namespace; returns what it printed."""
    line = ["nsenter", f"--net=/run/netns/{space(name)}", "--", *argv]
    env = os.environ | environment
    done = subprocess.run(line, stdin=stdin, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"{argv[:3]}: {(done.stdout + done.stderr)[-2000:]}"
    return done.stdout


def _mariadb(running: Running, name: str, folder: Path, more: str) -> None:
    """A MariaDB of one node at the region's host, with an administrator who may come from anywhere."""
    folder.mkdir()
    address, file = region(name).control.address, folder / "my.cnf"
    file.write_text(MARIADB.format(folder=folder, address=address, galera=GALERA, root=ROOT) + more)
    install = ["mariadb-install-db", f"--defaults-file={file}", "--user=root", "--wsrep-on=OFF"]
    inside(name, [*install, "--auth-root-authentication-method=normal", "--skip-test-db"])
    grants = [f"ALTER USER root@localhost IDENTIFIED BY '{ROOT}'", f"CREATE USER root@'%' IDENTIFIED BY '{ROOT}'"]
    grants += ["GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION"]
    # One statement a line, as such a server reads them.
    (folder / "grant.sql").write_text("".join(f"{one};\n" for one in ("FLUSH PRIVILEGES", *grants)))
    server = ["mariadbd", f"--defaults-file={file}", "--user=root"]
    with (folder / "grant.sql").open() as statements:
        inside(name, [*server, "--bootstrap", "--wsrep-on=OFF", "--skip-log-bin"], stdin=statements)
    start_database(running, name, places.DATABASE_PORT)


def start_database(running: Running, name: str, port: int) -> None:
    """Start the region's MariaDB, which is configured, as Kolla's container does, and wait until it answers."""
    folder = running.folder / f"db-{name}"
    server, log = ["mariadbd", f"--defaults-file={folder / 'my.cnf'}", "--user=root"], folder / "log.err"
    if (folder / "data" / "grastate.dat").exists():  # as mariadbd-safe, which would outlive the test
        inside(name, [*server, "--wsrep-recover"])
        server.append("--wsrep-start-position=" + re.findall(r"Recovered position: *([\w:-]+)", log.read_text())[-1])
    if port == places.MEMBER_PORT:
        server = ["bash", str(PLAYBOOKS / "mrkolla-galera.sh"), *server]
    running.start(f"mariadb-{name}", name, server, ready=False)
    client = ["mariadb", "-h", region(name).control.address, "-P", str(port), "-u", "root", "-e", "SELECT 1"]
    argv, end = ["nsenter", f"--net=/run/netns/{space(name)}", "--", *client], time.monotonic() + 120
    while subprocess.run(argv, env=os.environ | {"MYSQL_PWD": ROOT}, capture_output=True).returncode:
        assert running.processes[-1].poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.3)


def _member(running: Running, kolla: KollaEnv, name: str) -> None:
    """The region's second MariaDB, as mrkolla-galera.yml has Kolla's templates configure it, its files elsewhere."""
    folder = running.folder / f"db-{name}"
    (folder / "data").mkdir(parents=True)
    # As the playbook stands in Kolla's folder: beside its roles.
    top, library = folder / "ansible", folder / "library"
    top.mkdir()
    library.mkdir()
    (library / "kolla_container.py").write_text(MODULE)
    (top / "roles").symlink_to(kolla.share / "ansible" / "roles")
    for file in PLAYBOOKS.glob("mrkolla-galera.*"):
        shutil.copy(file, top)
    engine, owner = folder / "engine", {"config_owner_user": "root", "config_owner_group": "root"}
    engine.write_text("#!/bin/sh\necho Synced\n")
    engine.chmod(0o755)
    play = {"hosts": "keystone", "gather_facts": True, "vars": {"ansible_become": False}}
    include = {"include_tasks": "{{ playbook_dir }}/mrkolla-galera.yml"}
    (top / "play.yml").write_text(json.dumps([play | {"tasks": [include]}]))
    more = {"kolla_container_engine": str(engine), "database_password": ROOT, "mariadb_shard_group": "mariadb", **owner}
    made.play(kolla, running.folder, name, top / "play.yml", library, **more)
    text = (running.folder / f"kolla-{name}" / "mrkolla-galera" / "galera.cnf").read_text()
    own = {"datadir": "data", "socket": "socket", "pid-file": "pid", "log_error": "log.err"}
    lines = [line for line in text.splitlines() if line.partition("=")[0].strip() not in own]
    place = next(number for number, line in enumerate(lines) if line.strip() == "[mysqld]")
    lines[place + 1 : place + 1] = [*(f"{key} = {folder / file}" for key, file in own.items()), "skip-name-resolve"]
    (folder / "my.cnf").write_text("\n".join([*lines, ""]))
    start_database(running, name, places.MEMBER_PORT)


def _keystone(running: Running, name: str, folder: Path, fernet: Path, port: int = 3306) -> dict[str, str]:
    """The region's Keystone configured; returns the environment that it runs with."""
    folder.mkdir()
    text = CONF.format(folder=folder, password=KEYSTONE, address=region(name).control.address, port=port, fernet=fernet)
    own = running.folder / "plan" / name / "config" / "keystone.conf"
    (folder / "keystone.conf").write_text(text + (own.read_text() if own.exists() else ""))
    return {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(folder)}


def _manage(name: str, folder: Path, environment: dict[str, str], *arguments: str) -> None:
    program = str(made.python().with_name("keystone-manage"))
    inside(name, [program, "--config-file", str(folder / "keystone.conf"), *arguments], **environment)


def _serve(running: Running, name: str, environment: dict[str, str]) -> None:
    argv = [str(made.python()), str(running.folder / "serve_keystone.py"), f"{region(name).control.address}:5000"]
    running.start(f"keystone-{name}", name, argv, env=environment)


def _admin(running: Running, it: Places, names: list[str]) -> Path:
    """The AR's MariaDB and Keystone, with the endpoints of all ``names``; returns the folder of its Fernet keys."""
    admin = running.folder / "keystone-AR"
    own = running.folder / "plan" / "AR" / "config" / "galera.cnf"
    _mariadb(running, "AR", running.folder / "db-AR", own.read_text() if own.exists() else "")
    it.sql("AR", "CREATE DATABASE keystone")
    it.sql("AR", f"CREATE USER keystone@'%' IDENTIFIED BY '{KEYSTONE}'")
    it.sql("AR", "GRANT ALL ON keystone.* TO keystone@'%'")
    environment = _keystone(running, "AR", admin, admin / "fernet")
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    _manage("AR", admin, environment, "db_sync")
    _manage("AR", admin, environment, "fernet_setup", *owner)
    for name in names:
        urls = [f"--bootstrap-{kind}-url={it.url(name)}" for kind in ("internal", "public")]
        who = ["--bootstrap-password", made.PASSWORD, "--bootstrap-region-id", name]
        _manage("AR", admin, environment, "bootstrap", *who, *urls)
    _serve(running, "AR", environment)
    return admin / "fernet"


def _beside(running: Running, name: str, keys: Path, port: int) -> None:
    """An OSR's Keystone on its own database, with the AR's keys."""
    folder, fernet = running.folder / f"keystone-{name}", running.folder / f"fernet-{name}"
    shutil.copytree(keys, fernet)
    environment = _keystone(running, name, folder, fernet, port)
    # As Kolla's bootstrap container does; there is nothing to change.
    _manage(name, folder, environment, "db_sync")
    _serve(running, name, environment)


@contextlib.contextmanager
def _scene(kolla: KollaEnv, names: list[str], topology: str) -> Iterator[tuple[Places, dict[str, Path]]]:
    """Namespaces, and the files that Kolla's roles make of the plan; all that is started ends with it."""
    needed = [("haproxy", "haproxy"), ("mariadb-server", "mariadbd"), ("mariadb-client", "mariadb-dump")]
    needed += [("mariadb-backup", "mariadb-backup"), ("socat", "socat")] if topology == places.GALERA else []
    programs.ensure(needed, "the tests of Keystone's place")
    folder = Path(tempfile.mkdtemp(prefix="mrkolla-places-"))  # a path that is short enough for sockets
    running = Running({name: region(name) for name in names}, folder)
    with made.network(names):
        try:
            files = made.render(kolla, folder, names, {"topology": topology, "connect_timeout": 5})
            (folder / "serve_keystone.py").write_text(made.KEYSTONE)
            yield Places(running, folder), files
        finally:
            running.stop()
            shutil.rmtree(folder)


def _balance(running: Running, files: dict[str, Path]) -> None:
    for name, made_files in files.items():
        made.haproxy(running, name, made_files)
    time.sleep(6)  # HAProxy takes a server for up after two checks


@contextlib.contextmanager
def replica(kolla: KollaEnv) -> Iterator[Places]:
    """The AR and OSR1, whose Keystone works on a copy of the AR's database."""
    names = ["AR", "OSR1"]
    with _scene(kolla, names, places.REPLICA) as (it, files):
        running, planned = it.running, it.folder / "plan" / "OSR1" / "config"
        shutil.copy(planned / places.BACKEND_FILE, files["OSR1"] / "services.d")
        _mariadb(running, "OSR1", it.folder / "db-OSR1", (planned / "galera.cnf").read_text())
        keys = _admin(running, it, names)
        assert "copied" in it.copy()
        _beside(running, "OSR1", keys, places.DATABASE_PORT)
        _balance(running, files)
        yield it


@contextlib.contextmanager
def galera(kolla: KollaEnv) -> Iterator[Places]:
    """The AR, OSR1 and OSR2, whose Keystones work on members of the AR's cluster; links that can be delayed."""
    names = ["AR", "OSR1", "OSR2"]
    with _scene(kolla, names, places.GALERA) as (it, files):
        keys = _admin(it.running, it, names)
        for name in names[1:]:
            _member(it.running, kolla, name)
            _beside(it.running, name, keys, places.MEMBER_PORT)
        _balance(it.running, files)
        command(["ip", "link", "add", "uplink", "type", "bridge"], netns=made.ROUTER)
        links = [LocalLink(name, made.ROUTER, f"p-{name.lower()}", "uplink") for name in names[1:]]
        it.wan = Wan(links, it.folder / "wan")
        it.wan.start()
        try:
            yield it
        finally:
            it.wan.stop()
