"""A backup's dump is whole: loaded into an empty MariaDB it is what there was, and Keystone goes on from it."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from mrkolla import config
from mrkolla.base.progress import Progress
from mrkolla.cloud import backup
from mrkolla.cloud.databases import Databases
from mrkolla.cloud.deployed import DeployedCloud
from tests import programs
from tests.folders import DOCKER, placed, write
from tests.folders import programs as give
from tests.integration import environments
from tests.integration.middleware_cloud import KEYSTONE, PASSWORD

pytestmark = [pytest.mark.root]
#: Of this machine alone, so that both may have MariaDB's own port.
FULL, EMPTY = "127.77.0.1", "127.77.0.2"
MARIADB = """\
[mysqld]
datadir = {folder}/data
socket = {folder}/socket
pid-file = {folder}/pid
log_error = {folder}/log.err
bind-address = {address}
port = 3306
innodb_buffer_pool_size = 64M
skip-name-resolve
performance_schema = OFF
"""
CONF = """\
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = mysql+pymysql://keystone:{password}@{address}/keystone?charset=utf8
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
"""
#: What a dump may get wrong: characters, bytes, quotes, lines, nothing, fractions, views, triggers, procedures.
ODD = r"""
CREATE DATABASE odd CHARACTER SET utf8mb4;
USE odd;
CREATE TABLE kinds (id INT PRIMARY KEY AUTO_INCREMENT, words LONGTEXT, bytes LONGBLOB, at DATETIME(6), part DOUBLE,
    bits BIT(9), twice DOUBLE AS (part * 2) PERSISTENT);
INSERT INTO kinds (words, bytes, at, part, bits) VALUES
    ('a ''quote'', a "quote", a \\ and\na line; -- no comment', x'00ff0a270d1a5c', '2026-11-30 04:05:06.789012', 0.1,
    b'101'), ('💡 ü INSERT INTO `kinds` VALUES (1)', '', NULL, 1e-300, NULL), (NULL, NULL, NULL, NULL, NULL),
    ('', REPEAT(x'c3', 70000), '1970-01-01 00:00:00', -0.0, b'0');
CREATE TABLE `strange ``name` (`a key` INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES kinds (id));
INSERT INTO `strange ``name` VALUES (1, 1), (2, NULL);
CREATE VIEW seen AS SELECT id, words FROM kinds;
CREATE TRIGGER before_kinds BEFORE INSERT ON kinds FOR EACH ROW SET NEW.words = CONCAT(NEW.words, '!');
CREATE PROCEDURE asked() SELECT 1;
CREATE TABLE left_hand (id INT PRIMARY KEY);
CREATE TABLE right_hand (id INT PRIMARY KEY);
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A cloud of one region whose one host has a MariaDB with a real Keystone's rows; and an empty MariaDB."""
    programs.ensure([("mariadb-server", "mariadbd"), ("mariadb-client", "mariadb-dump")], "the tests of backups")
    keystone = environments.keystone()
    top = Path(tempfile.mkdtemp(prefix="mrkolla-backup-"))  # a path that is short enough for sockets
    experiment = config.from_dict(
        {"name": "kept", "release": "2025.1", "testbed": {"kind": "local"}, "regions": [{"name": "OSR1"}]}
    )
    with pytest.MonkeyPatch.context() as patched, contextlib.ExitStack() as running:
        running.callback(shutil.rmtree, top)
        patched.setenv("MRKOLLA_CACHE", str(top / "cache"))
        cloud = DeployedCloud(experiment, Progress(file=None), top / "logs")
        cloud.regions = [replace(placed(cloud.admin, top / "hosts"), vip=FULL)]
        host = cloud.admin.control
        cloud.testbed = SimpleNamespace(running=lambda _: {host.name: True}, paused=lambda _: [])
        give(host.folder, docker=DOCKER)
        write(host.folder / "etc/kolla/keystone/keystone.conf", "[DEFAULT]\n")
        write(host.folder / "volumes/kolla_logs/keystone/keystone.log", "INFO began\n")
        (host.folder / "volumes/keystone_fernet_tokens").mkdir(parents=True)
        password = cloud.passwords()["database_password"]
        known = SimpleNamespace(cloud=cloud, top=top, password=password, keystone=keystone)
        for address in (FULL, EMPTY):
            running.enter_context(mariadb(top / address, address, password))
        sql(known, FULL, ODD + grant(password))
        manage(known, top / "keystone-full", FULL, ["db_sync"], ["fernet_setup", *owner()], bootstrap())
        yield known


def grant(password: str) -> str:
    return (
        "CREATE DATABASE IF NOT EXISTS keystone CHARACTER SET utf8mb3;"
        f"CREATE USER keystone@'%' IDENTIFIED BY '{password}'; GRANT ALL ON keystone.* TO keystone@'%';"
    )


def owner() -> list[str]:
    return ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]


def bootstrap() -> list[str]:
    url = "--bootstrap-public-url=http://somewhere:5000/v3"
    return ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "AR", url]


@contextlib.contextmanager
def mariadb(folder: Path, address: str, password: str) -> Iterator[None]:
    """A MariaDB at ``address``, with an administrator who may come from anywhere."""
    folder.mkdir()
    file = folder / "my.cnf"
    file.write_text(MARIADB.format(folder=folder, address=address))
    install = ["mariadb-install-db", f"--defaults-file={file}", "--user=root"]
    run([*install, "--auth-root-authentication-method=normal", "--skip-test-db"])
    server = ["mariadbd", f"--defaults-file={file}", "--user=root"]
    # Those who come from 127.0.0.1 would be another one, without a password.
    said = "FLUSH PRIVILEGES;\nDROP USER IF EXISTS root@'127.0.0.1', root@'::1';\n"
    said += f"CREATE USER root@'%' IDENTIFIED BY '{password}';\n"
    run([*server, "--bootstrap"], said + "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;\n")
    with subprocess.Popen(server, stdin=subprocess.DEVNULL) as process:
        try:
            ping = ["mariadb", "--host", address, "--user", "root", "--execute", "SELECT 1"]
            end = time.monotonic() + 60
            while subprocess.run(ping, env=os.environ | {"MYSQL_PWD": password}, capture_output=True).returncode:
                assert process.poll() is None and time.monotonic() < end, (folder / "log.err").read_text()[-2000:]
                time.sleep(0.2)
            yield
        finally:
            process.kill()


def run(argv: list[str], stdin: str | bytes = "", **environment: str) -> str:
    data = stdin if isinstance(stdin, bytes) else stdin.encode()
    done = subprocess.run(argv, input=data, env=os.environ | environment, capture_output=True, timeout=600)
    assert done.returncode == 0, f"{argv[:3]}: {(done.stdout + done.stderr)[-2000:]!r}"
    return done.stdout.decode()


def sql(scene: SimpleNamespace, address: str, statements: str | bytes) -> list[list[str]]:
    argv = ["mariadb", "--host", address, "--user", "root", "--batch", "--skip-column-names"]
    said = run([*argv, "--default-character-set=utf8mb4"], statements, MYSQL_PWD=scene.password)
    return [line.split("\t") for line in said.splitlines()]


def manage(scene: SimpleNamespace, folder: Path, address: str, *steps: list[str]) -> dict[str, str]:
    """Configure a Keystone on the MariaDB at ``address``, and run steps; returns the environment that it runs with."""
    folder.mkdir()
    text = CONF.format(folder=folder, password=scene.password, address=address)
    (folder / "keystone.conf").write_text(text)
    environment = {"OS_KEYSTONE_CONFIG_DIR": str(folder)}
    for step in steps:
        program = scene.keystone / "keystone-manage"
        run([str(program), "--config-file", str(folder / "keystone.conf"), *step], **environment)
    return environment


def content(scene: SimpleNamespace, address: str) -> dict[str, str]:
    """What is in the MariaDB: each table's rows as a checksum, each thing as the statement that makes it."""
    listed = "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema IN"
    names = [row for row in sql(scene, address, f"{listed} ('keystone', 'odd') ORDER BY 1, 2")]
    asked = [f"SHOW CREATE TABLE {quoted(*name[:2])};" for name in names]
    asked += [f"CHECKSUM TABLE {quoted(*name[:2])} EXTENDED;" for name in names if name[2] == "BASE TABLE"]
    asked += ["SHOW CREATE TRIGGER odd.before_kinds;", "SHOW CREATE PROCEDURE odd.asked;"]
    found = {}
    for statement in asked:
        (row,) = sql(scene, address, statement)
        # A trigger says last when it was made.
        found[statement] = "\t".join(row[:-1] if "TRIGGER" in statement else row)
    return found


def quoted(*names: str) -> str:
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def restored(scene: SimpleNamespace, target: Path) -> None:
    """Load the dump of a backup into the empty MariaDB, which has been emptied."""
    sql(scene, EMPTY, "DROP DATABASE IF EXISTS keystone; DROP DATABASE IF EXISTS odd;")
    sql(scene, EMPTY, gzip.decompress((target / "AR" / backup.DUMP).read_bytes()))


def rows(scene: SimpleNamespace, address: str, manifest: dict) -> dict[str, dict[str, int]]:
    """The rows of each table that a manifest names, counted."""
    return {
        database: {
            table: int(sql(scene, address, f"SELECT COUNT(*) FROM {quoted(database, table)}")[0][0]) for table in tables
        }
        for database, tables in manifest["regions"]["AR"]["rows"].items()
    }


@contextlib.contextmanager
def writing(scene: SimpleNamespace) -> Iterator[None]:
    """Rows that come in pairs, each pair in a transaction, while the context lasts."""
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            both = [f"INSERT INTO odd.{hand}_hand VALUES ({number});" for hand in ("left", "right")]
            sql(scene, FULL, f"BEGIN; {both[0]} DO SLEEP(0.01); {both[1]} COMMIT;")
            number += 1

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_restored_into_an_empty_mariadb_the_dump_is_what_there_was(scene, tmp_path):
    manifest = backup.backup(scene.cloud, tmp_path / "one", with_secrets=True)
    assert manifest["failed"] == []
    restored(scene, tmp_path / "one")
    there, found = content(scene, FULL), content(scene, EMPTY)
    assert len(there) > 60
    assert found == there
    assert rows(scene, EMPTY, manifest) == manifest["regions"]["AR"]["rows"]
    assert manifest["regions"]["AR"]["rows"]["odd"]["strange `name"] == 2


def test_keystone_goes_on_from_what_was_restored(scene, tmp_path):
    backup.backup(scene.cloud, tmp_path / "one", with_secrets=True)
    restored(scene, tmp_path / "one")
    sql(scene, EMPTY, f"DROP USER IF EXISTS keystone@'%'; {grant(scene.password)}")
    environment = manage(scene, scene.top / "keystone-empty", EMPTY, ["fernet_setup", *owner()])
    (scene.top / "serve.py").write_text(KEYSTONE)
    argv = [str(scene.keystone / "python"), str(scene.top / "serve.py"), f"{EMPTY}:5077"]
    with subprocess.Popen(argv, env=os.environ | environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"{}\n"
            domain = {"id": "default"}
            who = {"user": {"name": "admin", "domain": domain, "password": PASSWORD}}
            identity = {"methods": ["password"], "password": who}
            body = {"auth": {"identity": identity, "scope": {"project": {"name": "admin", "domain": domain}}}}
            answer = requests.post(f"http://{EMPTY}:5077/v3/auth/tokens", json=body, timeout=30)
        finally:
            process.kill()
    assert answer.status_code == 201, answer.text
    assert answer.json()["token"]["catalog"][0]["endpoints"][0]["url"] == "http://somewhere:5000/v3"


def test_a_dump_is_of_one_moment_while_others_write(scene, tmp_path):
    with writing(scene):
        time.sleep(1)
        manifest = backup.backup(scene.cloud, tmp_path / "one", with_secrets=True)
    restored(scene, tmp_path / "one")
    told = manifest["regions"]["AR"]["rows"]["odd"]
    assert rows(scene, EMPTY, manifest)["odd"] == told
    assert told["left_hand"] == told["right_hand"] > 0


def test_without_secrets_all_tables_are_restored_and_the_secret_ones_are_empty(scene, tmp_path):
    manifest = backup.backup(scene.cloud, tmp_path / "one")
    assert manifest["failed"] == []
    restored(scene, tmp_path / "one")
    kept = manifest["regions"]["AR"]["rows"]
    assert rows(scene, EMPTY, manifest) == kept
    assert kept["keystone"]["password"] == 0 and kept["keystone"]["user"] == 1
    left = {one["what"].partition(": ")[2]: one["rows"] for one in manifest["left_out"]}
    assert left == {"keystone.password": 1}
    (hashed,) = sql(scene, FULL, "SELECT password_hash FROM keystone.password")
    for path in (tmp_path / "one").rglob("*.gz"):
        assert hashed[0] not in gzip.decompress(path.read_bytes()).decode()
    # A service's tables are made as they were, so that it can begin with them.
    made = {name: said for name, said in content(scene, FULL).items() if "CREATE TABLE" in name}
    assert made.items() <= content(scene, EMPTY).items()


def test_a_wrong_password_is_one_line(scene):
    wrong = Databases(scene.cloud.admin, scene.cloud.admin.control, "wrong")
    with pytest.raises(Exception, match=r"^ar-control1 \(.*'sh' failed: ERROR 1045.*Access denied"):
        wrong.size()
