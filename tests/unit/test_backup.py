"""A backup: real files, tar and shells; SSH is a shell here, and docker and MariaDB know what they are told."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrkolla.base import remote, shell
from mrkolla.base.errors import CheckError, InputError, LackError
from mrkolla.base.progress import Progress
from mrkolla.cloud import backup as module
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.results import assert_no_secrets, bundling, layout
from mrkolla.results.secrets import Blanks
from tests.folders import DOCKER, FolderHost, placed, programs, write

MARIADB = """#!/bin/sh
tr '\\0' ' ' < /proc/$$/cmdline >> commands
echo "$MYSQL_PWD" > password
statement=$(cat)
case "$statement" in
*column_name*) cat columns ;;
*COUNT*) printf 'keystone.password\\t3\\nkeystone.credential\\t0\\n' ;;
*data_length*) echo 1000 ;;
esac
"""
DUMPER = """#!/bin/sh
tr '\\0' ' ' < /proc/$$/cmdline >> commands
cat dump
"""
COLUMNS = [
    ("keystone", "credential", "id"),
    ("keystone", "password", "password_hash"),
    ("keystone", "project", "id"),
    ("keystone", "project", "extra"),
    ("keystone", "user", "id"),
]
DUMP = r"""-- MariaDB dump
USE `keystone`;
CREATE TABLE `password` (`password_hash` varchar(255));
CREATE TABLE `project` (`id` varchar(64), `extra` text);
INSERT INTO `project` VALUES ('1','{}');
INSERT INTO `project` VALUES ('2','{\"password\": \"hunter2hunter2\"}');
INSERT INTO `project` VALUES ('3','it says DATABASE_PASSWORD here');
INSERT INTO `user` (`id`) VALUES ('u');
-- Dump completed on 2026-11-30
"""


@pytest.fixture
def cloud(experiment, tmp_path, monkeypatch):
    """A cloud of two regions whose hosts are folders below ``tmp_path / "hosts"``."""
    monkeypatch.setattr(module, "made_of", lambda hosts: {host.name: {"kernel": "6.1"} for host in hosts})
    cloud = DeployedCloud(experiment(), Progress(file=None), tmp_path / "run" / "logs")
    cloud.regions = [placed(region, tmp_path / "hosts") for region in cloud.regions[:2]]
    known = cloud.passwords()
    for region in cloud.regions:
        for one in region.hosts:
            fill(one.host.folder, known)
    names = [one.host.name for region in cloud.regions for one in region.hosts]
    cloud.testbed = SimpleNamespace(running=lambda _: dict.fromkeys(names, True), paused=lambda _: [])
    return cloud


def fill(folder: Path, known: dict) -> None:
    """What there is on a host of Kolla's."""
    programs(folder, docker=DOCKER, mariadb=MARIADB, mariadb_dump=DUMPER)
    write(folder / "columns", "".join("\t".join(row) + "\n" for row in COLUMNS))
    write(folder / "dump", DUMP.replace("DATABASE_PASSWORD", known["database_password"]))
    url = f"mysql+pymysql://keystone:{known['keystone_database_password']}@10.0.0.1:3306/keystone"
    conf = f"[database]\nconnection = {url}\n[unknown]\nadmin_password = somebody's own\nworkers = 4\n"
    write(folder / "etc/kolla/keystone/keystone.conf", conf + "url = rabbit://a:one1one@h1:1,b:two2two@h2:2//\n")
    write(folder / "etc/kolla/haproxy/haproxy.pem", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n")
    write(folder / "etc/kolla/nova-ssh/id_rsa", known["nova_ssh_key"]["private_key"])
    write(folder / "etc/kolla/nova-ssh/id_rsa.pub", known["nova_ssh_key"]["public_key"])
    write(folder / "etc/kolla/nova-libvirt/passwd.db", b"\0\1\2")
    (folder / "etc/kolla/keystone/outside").symlink_to("/etc/shadow")
    log = f"INFO made\nDEBUG key {known['keystone_admin_password']}\nDEBUG token gAAAAABm{'x' * 80} is old\n"
    write(folder / "volumes/kolla_logs/keystone/keystone.log", log)
    write(folder / "volumes/kolla_logs/keystone/keystone.log.2.gz", gzip.compress(log.encode()))
    write(folder / "volumes/kolla_logs/odd/core", b"\x7fELF\0\0")
    write(folder / "volumes/keystone_fernet_tokens/0", "c2VjcmV0IGtleSBvZiB0aGlydHktdHdvIGJ5dGVzIQ==")


def text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def everything(folder: Path) -> dict[str, str]:
    """Each file of a backup, as it can be read."""
    return {
        str(path.relative_to(folder)): text(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "\0" not in text(path)
    }


def test_logs_configuration_and_databases_without_a_secret(cloud, tmp_path):
    target = tmp_path / "run" / "backups" / "one"
    manifest = module.backup(cloud, target)
    found, known = everything(target), cloud.passwords()
    values = [*(value for value in known.values() if isinstance(value, str)), "somebody's own", "hunter2", "one1one"]
    values += ["two2two", "gAAAAAB", "PRIVATE KEY", "c2VjcmV0IGtleSBvZiB0aGlydHk"]
    for name, said in found.items():
        assert not [value for value in values if value in said], name
    host = "AR/ar-control1"
    assert found[f"{host}/configuration/keystone/keystone.conf"] == (
        "[database]\nconnection = mysql+pymysql://keystone:***@10.0.0.1:3306/keystone\n"
        "[unknown]\nadmin_password = ***\nworkers = 4\nurl = rabbit://a:***@h1:1,b:***@h2:2//\n"
    )
    for name in ("keystone.log.gz", "keystone.log.2.gz"):
        assert found[f"{host}/logs/keystone/{name}"] == "INFO made\nDEBUG key ***\nDEBUG token *** is old\n"
    assert f"{host}/configuration/nova-ssh/id_rsa.pub" in found
    dump = found["OSR1/databases.sql.gz"]
    assert "CREATE TABLE `password`" in dump and "VALUES ('3','it says *** here');" in dump
    assert manifest["regions"]["OSR1"]["rows"] == {
        "keystone": {"credential": 0, "password": 0, "project": 2, "user": 1}
    }
    left = {one["what"].removeprefix("AR/"): one for one in manifest["left_out"] if one["what"].startswith("AR/")}
    assert set(left) == {
        *("databases.sql.gz: keystone.password", "databases.sql.gz: keystone.project"),
        *(f"ar-control1/configuration/{name}" for name in ("haproxy/haproxy.pem", "nova-ssh/id_rsa")),
        *("ar-control1/configuration/nova-libvirt/passwd.db", "ar-control1/logs/odd/core"),
    }
    assert left["databases.sql.gz: keystone.password"]["rows"] == 3
    assert left["databases.sql.gz: keystone.project"]["rows"] == 1
    assert manifest["failed"] == [] and manifest["secrets"] is False and manifest["release"] == "2025.1"
    assert manifest["mrkolla"]
    assert manifest["regions"]["AR"]["hosts"]["ar-control1"]["made_of"] == {"kernel": "6.1"}
    assert json.loads((target / "manifest.json").read_text()) == manifest
    for one in manifest["files"]:
        data = (target / one["name"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert {one["name"] for one in manifest["files"]} | {"manifest.json"} == {
        path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()
    }


def test_with_secrets_all_is_there_as_it_is_for_its_owner_alone(cloud, tmp_path):
    before = os.umask(0)
    try:
        target = tmp_path / "run" / "backups" / "one"
        manifest = module.backup(cloud, target, with_secrets=True)
    finally:
        os.umask(before)
    there, host = cloud.regions[0].control.folder, target / "AR" / "ar-control1"
    for path in (there / "etc/kolla").rglob("*"):
        if path.is_file() and not path.is_symlink():
            copy = host / "configuration" / path.relative_to(there / "etc/kolla")
            assert copy.read_bytes() == path.read_bytes()
    assert text(host / "logs/keystone/keystone.log.gz") == text(there / "volumes/kolla_logs/keystone/keystone.log")
    assert text(host / "fernet-keys/0") == text(there / "volumes/keystone_fernet_tokens/0")
    assert text(target / "AR/databases.sql.gz") == text(there / "dump")
    assert (target / "passwords.yml").read_bytes() == cloud.passwords_file.read_bytes()
    assert manifest["left_out"] == [] and manifest["secrets"] is True
    for path in [target, *target.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_password_reaches_mariadb_and_no_command_line(cloud, tmp_path):
    module.backup(cloud, tmp_path / "one")
    folder, password = cloud.regions[1].control.folder, cloud.passwords()["database_password"]
    assert (folder / "password").read_text().strip() == password
    commands = (folder / "commands").read_text()
    assert "--ignore-table-data=keystone.password" in commands and password not in commands


def test_a_region_that_cannot_be_reached_is_told_and_the_others_are_kept(cloud, tmp_path):
    shutil.rmtree(cloud.regions[1].control.folder)
    programs(cloud.regions[0].control.folder, mariadb_dump="#!/bin/sh\necho 'no server' >&2\nexit 2\n")
    target = tmp_path / "one"
    manifest = module.backup(cloud, target)
    failed = {(one["region"], one["what"]): one["why"] for one in manifest["failed"]}
    assert "osr1-control1" in failed["OSR1", "all"] and "No route to host" in failed["OSR1", "all"]
    assert "'sh' failed: no server" in failed["AR", "databases"]
    assert (target / "AR/ar-control1/logs/keystone/keystone.log.gz").exists()
    assert (target / "OSR1/osr1-compute1").exists() and not (target / "AR/databases.sql.gz").exists()
    with pytest.raises(LackError, match=r"(?s)one: the backup lacks .*OSR1, osr1-control1, all: .*No route to host"):
        module.need_whole(manifest, target)


def test_a_host_that_is_down_is_not_asked(cloud, tmp_path):
    cloud.testbed.running = lambda _: {"ar-control1": True, "osr1-control1": False, "osr1-compute1": True}
    assert [one["why"] for one in module.backup(cloud, tmp_path / "one")["failed"]] == [
        "the host is down: 'mrkolla start' starts it"
    ]


@pytest.mark.parametrize(
    ("dump", "why"), [("USE `keystone`;\n", "was cut off"), (None, "'sh' failed"), ("", "was cut off")]
)
def test_a_dump_in_part_is_none(cloud, tmp_path, dump, why):
    for region in cloud.regions:
        (region.control.folder / "dump").unlink()
        if dump is not None:
            write(region.control.folder / "dump", dump)
    manifest = module.backup(cloud, tmp_path / "one", regions=["AR"])
    assert [one["what"] for one in manifest["failed"]] == ["databases"] and why in manifest["failed"][0]["why"]
    assert not list((tmp_path / "one").rglob("databases*"))
    assert not [one for one in manifest["left_out"] if "databases" in one["what"]]


def test_regions_alone_and_what_cannot_be_asked_for(cloud, tmp_path):
    manifest = module.backup(cloud, tmp_path / "one", regions=["OSR1", "OSR1"])
    assert list(manifest["regions"]) == ["OSR1"] and not (tmp_path / "one" / "AR").exists()
    with pytest.raises(InputError, match="no region 'OSR9'; there are AR, OSR1"):
        module.backup(cloud, tmp_path / "two", regions=["OSR9"])
    with pytest.raises(InputError, match="is there already"):
        module.backup(cloud, tmp_path / "one")
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "two", tmp_path / "file" / "deep" / "two"):
        with pytest.raises(InputError, match=r"file.*: it is no folder, or lies in a file: name another"):
            module.backup(cloud, target)
    cloud.testbed.paused = lambda _: ["ar-control1"]
    with pytest.raises(CheckError, match="is paused: 'mrkolla resume'"):
        module.backup(cloud, tmp_path / "two")
    cloud.testbed.running = lambda _: {}
    with pytest.raises(CheckError, match="there is no cloud 'demo'"):
        module.backup(cloud, tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir() if "two" in path.name or "tmp" in path.name) == []


def test_nothing_is_left_where_there_is_no_room_or_nobody_answers(cloud, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1000)
    with monkeypatch.context() as patched, pytest.raises(LackError, match=r"may need 0\.0 GB and 0\.0 GB are free"):
        patched.setattr(module.shutil, "disk_usage", lambda _: usage)
        module.backup(cloud, tmp_path / "run" / "one")
    shutil.rmtree(tmp_path / "hosts")
    with pytest.raises(LackError, match=r"no backup was made: AR, ar-control1, all: .*No route"):
        module.backup(cloud, tmp_path / "run" / "one")
    assert list((tmp_path / "run").glob("*one*")) == list((tmp_path / "run").glob(".tmp*")) == []


def test_one_that_is_interrupted_leaves_nothing_and_one_that_was_killed_is_removed(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "_interruptions", [])
    for region in cloud.regions:
        programs(region.control.folder, mariadb_dump="#!/bin/sh\ntouch begun\nexec sleep 600\n")
    left = tmp_path / "run" / ".tmp-backup-demo-abcdefgh"
    write(left / "AR" / "half", "")

    def interrupt() -> None:
        while not (cloud.regions[0].control.folder / "begun").exists():
            time.sleep(0.05)
        shell.interrupt()

    threading.Thread(target=interrupt, daemon=True).start()
    with suppress(LackError):  # in this thread there is no KeyboardInterrupt; some files may have come before
        module.backup(cloud, tmp_path / "run" / "one")
    assert not list((tmp_path / "run").rglob("databases*")) and not left.exists()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Maker, "made", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.backup(cloud, tmp_path / "run" / "two")
    assert not list((tmp_path / "run").glob(".tmp*")) and not (tmp_path / "run" / "two").exists()


def test_a_secret_that_was_overlooked_is_noticed_and_nothing_is_kept(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(Blanks, "known", lambda _, data: data)
    with pytest.raises(CheckError, match=r"no backup was kept: .*a secret stands in AR/"):
        module.backup(cloud, tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("admin_password = a b;c", "admin_password = ***"),
        ("  'SECRET_KEY': 'abc',", "  'SECRET_KEY': '***',"),
        ('"password_hash": "abc"', '"password_hash": "abc"'),
        ("send_service_user_token = True", "send_service_user_token = True"),
        ("  'can_set_password': False,", "  'can_set_password': False,"),
        (
            "Access denied for user 'root'@'h' (using password: NO)",
            "Access denied for user 'root'@'h' (using password: NO)",
        ),
        ("auth_type = password", "auth_type = password"),
        ("password_hash_rounds = 4", "password_hash_rounds = 4"),
        ("admin_password =", "admin_password ="),
        ("transport_url = rabbit://u:abc@h:1,v:def@i:2//", "transport_url = rabbit://u:***@h:1,v:***@i:2//"),
        ("www_authenticate_uri = http://10.0.0.1:5000", "www_authenticate_uri = http://10.0.0.1:5000"),
        ("wsrep_sst_auth = mariabackup:abc", "wsrep_sst_auth = ***"),
        ("INFO X-Auth-Token: 0123456789abcdef0123 sent", "INFO *** sent"),
        ('{"auth": {"password": "abcdefgh"}}', "***"),
    ],
)
def test_what_a_line_says_without_secrets(line, wanted):
    assert Blanks([]).line(f"{line}\n".encode()).decode() == f"{wanted}\n"


def test_reading_tells_what_a_host_said_of_it(tmp_path):
    host = FolderHost("h1", "10.0.0.1", folder=tmp_path)
    with remote.reading(host, ["cat"], b"abc") as stream:
        assert stream.read() == b"abc"
    with pytest.raises(ZeroDivisionError), remote.reading(host, ["yes"], timeout=60) as stream:
        assert stream.read(2) == b"y\n"
        raise ZeroDivisionError
    with (
        pytest.raises(LackError, match=r"h1 \(10\.0\.0\.1\): 'sh' failed: no"),
        remote.reading(host, ["sh", "-c", "echo no >&2; exit 3"]),
    ):
        pass
    with (
        pytest.raises(LackError, match="'sleep' did not end within 0 s"),
        remote.reading(host, ["sleep", "60"], timeout=0.3),
    ):
        pass


def test_the_report_and_bundles_leave_backups_alone(tmp_path):
    write(tmp_path / "backups" / "one" / "passwords.yml", "key: a-long-secret\n")
    write(tmp_path / "points.json", "[]")
    with pytest.raises(CheckError, match=r"a secret stands in backups/one/passwords\.yml"):
        assert_no_secrets(tmp_path, ["a-long-secret"])
    assert assert_no_secrets(tmp_path, ["a-long-secret"], without=layout.BACKUPS).files == 1
    assert bundling._choose(tmp_path, logs=True) == (["points.json"], ["backups/"])
