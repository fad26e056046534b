"""Two Keystones, each with a real MariaDB and the HAProxy that Kolla's roles make of mrkolla's plan, in namespaces.

The OSR's database is made a copy of the AR's by the script that a deployment runs. The Fernet keys are copied by hand:
Kolla's containers, which take them by SSH, are not here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mrkolla.kolla import places
from mrkolla.kolla.env import PLAYBOOKS, KollaEnv
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
log_error = {folder}/log
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
wsrep_cluster_address = gcomm://
wsrep_node_address = {address}:4567
wsrep_provider_options = gmcast.listen_addr=tcp://{address}:4567
"""

CONF = """\
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = mysql+pymysql://keystone:{password}@{address}:3306/keystone
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

    def url(self, name: str) -> str:
        """The region's Keystone, through its HAProxy."""
        return f"http://{region(name).vip}:5000"

    def sql(self, name: str, statement: str, user: str = "root", password: str = ROOT) -> str:
        """What the region's MariaDB answers."""
        argv = ["mariadb", "-N", "-h", region(name).control.address, "-u", user, "-e", statement]
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
        """No packet between the regions while the context lasts, and nobody is told."""
        here, there = region("OSR1").subnet, region("AR").subnet
        rules = [["from", one, "to", other, "blackhole"] for one, other in ((here, there), (there, here))]
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
    file.write_text(MARIADB.format(folder=folder, address=address, galera=GALERA) + more)
    install = ["mariadb-install-db", f"--defaults-file={file}", "--user=root", "--wsrep-on=OFF"]
    inside(name, [*install, "--auth-root-authentication-method=normal", "--skip-test-db"])
    grants = [f"CREATE USER root@'%' IDENTIFIED BY '{ROOT}'", "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION"]
    # One statement a line, as such a server reads them.
    (folder / "grant.sql").write_text("".join(f"{one};\n" for one in ("FLUSH PRIVILEGES", *grants)))
    server = ["mariadbd", f"--defaults-file={file}", "--user=root"]
    with (folder / "grant.sql").open() as statements:
        inside(name, [*server, "--bootstrap", "--wsrep-on=OFF", "--skip-log-bin"], stdin=statements)
    running.start(f"mariadb-{name}", name, server, ready=False)
    end = time.monotonic() + 60
    while True:
        ping = subprocess.run(
            [
                "nsenter",
                f"--net=/run/netns/{space(name)}",
                "--",
                "mariadb",
                "-h",
                address,
                "-u",
                "root",
                "-e",
                "SELECT 1",
            ],
            env=os.environ | {"MYSQL_PWD": ROOT},
            capture_output=True,
        )
        if ping.returncode == 0:
            return
        assert running.processes[-1].poll() is None and time.monotonic() < end, (folder / "log").read_text()[-2000:]
        time.sleep(0.3)


def _keystone(running: Running, name: str, folder: Path, fernet: Path) -> dict[str, str]:
    """The region's Keystone configured; returns the environment that it runs with."""
    folder.mkdir()
    text = CONF.format(folder=folder, password=KEYSTONE, address=region(name).control.address, fernet=fernet)
    own = running.folder / "plan" / name / "config" / "keystone.conf"
    (folder / "keystone.conf").write_text(text + (own.read_text() if own.exists() else ""))
    return {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(folder)}


def _manage(name: str, folder: Path, environment: dict[str, str], *arguments: str) -> None:
    program = str(made.python().with_name("keystone-manage"))
    inside(name, [program, "--config-file", str(folder / "keystone.conf"), *arguments], **environment)


def _serve(running: Running, name: str, environment: dict[str, str]) -> None:
    argv = [str(made.python()), str(running.folder / "serve_keystone.py"), f"{region(name).control.address}:5000"]
    running.start(f"keystone-{name}", name, argv, env=environment)


@contextlib.contextmanager
def replica(kolla: KollaEnv) -> Iterator[Places]:
    """The AR and OSR1, whose Keystone works on a copy of the AR's database."""
    needed = [("haproxy", "haproxy"), ("mariadb-server", "mariadbd"), ("mariadb-client", "mariadb-dump")]
    programs.ensure(needed, "the tests of Keystone's place")
    names = ["AR", "OSR1"]
    folder = Path(tempfile.mkdtemp(prefix="mrkolla-places-"))  # a path that is short enough for sockets
    running = Running({name: region(name) for name in names}, folder)
    with made.network(names):
        try:
            files = made.render(kolla, folder, names, {"topology": places.REPLICA, "connect_timeout": 5})
            planned = folder / "plan" / "OSR1" / "config"
            shutil.copy(planned / places.BACKEND_FILE, files["OSR1"] / "services.d")
            (folder / "serve_keystone.py").write_text(made.KEYSTONE)
            _mariadb(running, "AR", folder / "db-AR", "")
            _mariadb(running, "OSR1", folder / "db-OSR1", (planned / "galera.cnf").read_text())
            it, admin = Places(running, folder), folder / "keystone-AR"
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
            assert "copied" in it.copy()
            shutil.copytree(admin / "fernet", folder / "fernet-OSR1")
            environment = _keystone(running, "OSR1", folder / "keystone-OSR1", folder / "fernet-OSR1")
            # As Kolla's bootstrap container does; there is nothing to change.
            _manage("OSR1", folder / "keystone-OSR1", environment, "db_sync")
            _serve(running, "OSR1", environment)
            for name in names:
                made.haproxy(running, name, files[name])
            time.sleep(6)  # HAProxy takes a server for up after two checks
            yield it
        finally:
            running.stop()
            shutil.rmtree(folder)
