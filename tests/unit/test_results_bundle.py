"""One archive of a run: the same bytes each time, checksums, a README of columns, no secret, a report from it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mrkolla import results
from mrkolla.base.errors import CheckError, InputError
from mrkolla.cli import main as cli
from mrkolla.results import columns, parquet, secrets
from tests import synthetic

OPERATIONS = {k: synthetic.OPERATIONS[k] for k in ("token_issue_new_connection", "glance_cached_token")}
TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small synthetic run, as it is before anything was made from it, and the same with its report."""
    bare = synthetic.run(tmp_path_factory.mktemp("run"), rtts=(0, 50), samples=12, operations=OPERATIONS)
    whole = tmp_path_factory.mktemp("drawn") / bare.name
    shutil.copytree(bare.path, whole)
    results.write_all(results.RunFolder.open(whole))
    return bare.path, whole


@pytest.fixture
def run(drawn, tmp_path):
    """A copy of the run with its report."""
    shutil.copytree(drawn[1], tmp_path / "results" / drawn[1].name)
    folder = results.RunFolder.open(tmp_path / "results" / drawn[1].name)
    folder.write_text("plan/OSR1/globals.yml", "openstack_auth:\n  password: '{{ keystone_admin_password }}'\n")
    folder.write_text("logs/mrkolla.log", "said\n")
    folder.write_text("tools/probe/agents.json", "{}\n")
    return folder


def names(path):
    with tarfile.open(path) as archive:
        return [name.split("/", 1)[1] for name in archive.getnames()]


def test_what_was_not_made_yet_is_made(drawn, tmp_path):
    folder = results.RunFolder.open(shutil.copytree(drawn[0], tmp_path / drawn[0].name))
    assert {"report.html", "fits.csv", "figures/latency_vs_rtt.pdf"} <= set(results.bundle(folder).files)


def test_it_holds_data_plan_provenance_and_checksums(run, tmp_path):
    made = results.bundle(run, tmp_path / "out" / "x.tar.gz")
    assert made.path == tmp_path / "out" / "x.tar.gz" and names(made.path) == made.files
    wanted = {"README.md", "SHA256SUMS", "samples.parquet", "wan.parquet", "provenance.json", "experiment.yaml"}
    wanted |= {"points.json", "plan/OSR1/globals.yml", "summary.csv", "fits.csv", "report.html", "endpoints.json"}
    assert wanted | {"figures/latency_vs_rtt.pdf", "tools/probe/agents.json"} <= set(made.files)
    assert made.left_out == ["logs/", "parts/"]
    assert "logs/mrkolla.log" in results.bundle(run, tmp_path / "y.tar.gz", logs=True).files


def test_every_column_of_every_table_has_its_meaning(run):
    tables = sorted(run.path.rglob("*.csv"))
    assert len(tables) > 5
    for path in tables:
        with path.open(newline="") as file:
            assert [name for name in next(csv.reader(file)) if columns.meaning(name) is None] == [], path


def test_sha256sum_agrees(run, tmp_path):
    folder = results.unbundle(results.bundle(run).path, tmp_path)
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=folder.path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == len(
        (folder.path / "SHA256SUMS").read_text().splitlines()
    )


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    one = results.bundle(run, tmp_path / "1.tar.gz").path.read_bytes()
    for path in run.path.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    assert results.bundle(run, tmp_path / "2.tar.gz").path.read_bytes() == one
    with tarfile.open(tmp_path / "1.tar.gz") as archive:
        entries = archive.getmembers()
    assert {(e.uid, e.gid, e.uname, e.mode) for e in entries} == {(0, 0, "", 0o644)}
    assert len({e.mtime for e in entries}) == 1


def test_the_code_of_a_picture_is_no_token(tmp_path):
    picture = b'href="data:image/png;base64,\niVBORw0KGgoAAAA+gAAAAABn' + b"x" * 80 + b'=="'
    (tmp_path / "figure.svg").write_bytes(picture)
    assert secrets.suspects(tmp_path / "figure.svg") == []
    (tmp_path / "figure.svg").write_bytes(picture + b" gAAAAABn" + b"x" * 80)
    assert secrets.suspects(tmp_path / "figure.svg") == [(2, "a Keystone token")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan/OSR1/globals.yml", "database_password: hunter2hunter2\n"),
        ("tools/rally/env.json", '{"users": [{"password": "hunter2hunter2"}]}'),
        ("tools/rally/log.txt", "OS_PASSWORD=hunter2hunter2"),
        ("tools/x/key.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"),
        ("tools/x/headers.txt", "X-Auth-Token: 0123456789abcdef0123456789abcdef"),
        ("tools/x/page.html", "<b>gAAAAABn" + "x" * 80 + "</b>"),
        ("plan/AR/config/x.yml", "rabbit_pass: hunter2hunter2\n"),
        ("tools/x/log.txt", "Authorization: Bearer hunter2hunter2hunter2.x"),
        ("tools/x/log.txt", "authorization: Basic aHVudGVyMmh1bnRlcjI6eA=="),
        ("tools/x/log.txt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2lnbmF0dXJlaHVudGVyMg"),
        ("tools/x/env", "AWS_SECRET_ACCESS_KEY=hunter2hunter2/hunter2hunter2"),
        ("tools/x/env", "id AKIAHUNTER2HUNTER234"),
        ("tools/x/env", "ghp_hunter2hunter2hunter2hunter2hunter2h"),
        ("tools/x/env", "AccountName=x;AccountKey=hunter2hunter2=="),
        ("tools/x/run.sh", "curl -s -u admin:hunter2 http://192.0.2.1"),
        ("tools/x/run.json", '["curl", "-u", "admin:hunter2"]'),
        ("tools/x/run.sh", "mysql -h 192.0.2.1 -uroot -phunter2 -e 'show databases'"),
        ("tools/x/run.sh", "openstack user create --password hunter2hunter2 demo"),
        ("tools/x/env", "pass: hunter2hunter2"),
        ("tools/x/env.json", '{"token": "hunter2hunter2"}'),
        ("tools/x/env", "OS_TOKEN=hunter2hunter2"),
        ("tools/x/log.txt", "console at http://192.0.2.1/vnc?token=hunter2hunter2"),
        ("tools/x/log.txt", "Bearer hunterhunterhunterhunter"),
        ("tools/x/log.txt", "Authorization: Basic aHVudGVy"),
        ("tools/x/env", "password: none-of-hunter2"),
        ("tools/x/env", "password: trueblood-hunter2"),
        ("tools/x/env", "password: $hunter2Hunter"),
        ("tools/x/env", "password: $6$hunter2$hunter2"),
        ("tools/x/env", "passwd: ab1"),
        ("tools/x/env.json", '{"admin_pass": "ab1", "x": 1}'),
        ("tools/x/run.sh", "docker login -u me -p hunter2 192.0.2.1"),
        ("tools/x/run.sh", "mysql -pab"),
        ("tools/x/run.sh", "openstack user create --password ab1 demo"),
        ("tools/x/log.txt", "GET http://:hunter2@192.0.2.1/"),
        ("tools/x/log.txt", "GET https://me:p@192.0.2.1/"),
        ("journal.jsonl", '{"error": "connect to mysql://nova:hunter2hunter2@10.0.0.1/nova"}'),
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_told(run, tmp_path, name, text):
    run.write_text(name, text)
    with pytest.raises(CheckError, match="looks like a secret") as refused:
        results.bundle(run, tmp_path / "x.tar.gz")
    assert name in str(refused.value) and "hunter2" not in str(refused.value)
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.mark.parametrize("place", [50, 995, 1500, 9000])
def test_a_long_line_is_looked_at_to_its_end(tmp_path, monkeypatch, place):
    monkeypatch.setattr(secrets, "_CHUNK", 1000)
    monkeypatch.setattr(secrets, "_TAIL", 100)
    (tmp_path / "x.json").write_text("x " * (place // 2) + '{"admin_password": "hunter2hunter2"} ' + "x " * 3000)
    assert set(secrets.suspects(tmp_path / "x.json")) == {(1, "a password")}


def test_somebodys_own_table_beside_the_figures_is_packed(run, tmp_path):
    run.write_bytes("figures/mine.csv", "größe,n\n1,2\n".encode("latin-1"))
    assert "figures/mine.csv" in results.bundle(run, tmp_path / "x.tar.gz").files


def test_a_run_that_goes_on_writing_makes_a_whole_bundle(run, tmp_path):
    """What a file had when it was looked at is what is packed, with its checksum."""
    results.write_all(run)
    over = threading.Event()

    def write():
        while not over.wait(0.002):
            with (run.path / "journal.jsonl").open("a") as journal:
                journal.write('{"event": "beat"}\n')

    writer = threading.Thread(target=write)
    writer.start()
    try:
        packed = results.bundle(run, tmp_path / "x.tar.gz")
    finally:
        over.set()
        writer.join()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(packed.path, tmp_path / "elsewhere")
    results.unbundle(tmp_path / "elsewhere" / "x.tar.gz", tmp_path / "elsewhere")


def test_words_that_begin_as_tokens_do_cost_no_time(run, tmp_path):
    """Each of them was read to the end of the file, for a minute in all."""
    run.write_text("tools/slow.json", "eyJaaaaaaaaaa-" * 40_000)
    begin = time.process_time()
    assert list(secrets.suspects(run.path / "tools/slow.json")) == []
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("where", ["tools/rally/out.json", "tools/rally/out.json.gz", "samples.parquet"])
def test_a_known_secret_is_refused_wherever_it_stands(run, tmp_path, where):
    secret = "correct-horse-battery"
    if where == "samples.parquet":
        rows = synthetic.rows("p", 20, samples=8, operations=OPERATIONS)
        run.append_point("p", [{**row, "error": f"401 with {secret}"} for row in rows])
    else:
        data = f'{{"x": "{secret}"}}'.encode()
        run.write_bytes(where, gzip.compress(data) if where.endswith("gz") else data)
    with pytest.raises(CheckError) as refused:
        results.bundle(run, tmp_path / "x.tar.gz", secrets=[secret])
    assert where in str(refused.value) and secret not in str(refused.value)


def test_templates_blanks_and_stars_are_no_secrets(tmp_path):
    text = 'password: \'{{ x }}\'\npassword: ***\npassword: null\n"password": ""\npassword=$PASS\npasswords.yml: kept\n'
    text += (
        "ssh -p 2222 mysql\nmysql -p -e x\ncurl -u $USER:$PASS x\nbasic authentication\nauthority bearer\nby_pass: on\n"
    )
    text += 'password=${PASS}\npassword: $password\npassword=$1\npassword: None\npassword: no\n"password": true}\n'
    text += "in one pass: everything is read\na token: what Keystone gives\ntoken_cache: cached\n'token': null\n"
    text += "docker run -p 80:80 login\ndocker login -p $PASS x\npass: 3\ntoken issue: 98.1 ms\nhttp://host:80/a@b\n"
    text += "OS_TOKEN=\ntoken: {{ x }}\nsecret: ***\nbasic internationalization\nuser create --password with care\n"
    text += "mysql -p{{ x }}\nopenstack --password *** x\ntoken bearer of the house\nport: 8080 --user 1000\n"
    (tmp_path / "x.yml").write_text(text)
    assert secrets.suspects(tmp_path / "x.yml") == []
    assert [found for path in (TOP / "results" / "sample").rglob("*") if path.is_file()
            for found in secrets.suspects(path)] == []  # fmt: skip


@pytest.mark.parametrize("text", [b"PAR1 half of a table", None])
def test_a_table_whose_text_cannot_be_looked_at_is_refused(run, text, monkeypatch):
    """A secret in it would not be found; the line names the run's own file."""
    path = run.path / "tools" / "x" / "table.parquet"
    path.parent.mkdir()
    if text:
        path.write_bytes(text)
    else:
        pq.write_table(pa.table({"x": ["x"] * 300_000}), path)
        monkeypatch.setattr(parquet, "MOST_BYTES", 1_000_000)
    with pytest.raises(InputError, match=f"^{path}: (not a readable|takes )"):
        results.bundle(run)


def test_a_secret_in_codes_is_found(run):
    path = run.path / "tools" / "x.parquet"
    pq.write_table(pa.table({"x": pa.array(["password=hunter2hunter2"]).dictionary_encode()}), path)
    with pytest.raises(CheckError, match=r"tools/x\.parquet, line 0: a password"):
        results.bundle(run)


def test_files_of_keys_and_passwords_are_never_taken(run):
    for name in ("plan/passwords.yml", "plan/id_ed25519", "clouds.yaml", "tools/rally/admin-openrc.sh", ".hidden"):
        run.write_text(name, "anything")
    (run.path / "tools" / "link").symlink_to("/etc/hostname")
    made = results.bundle(run)
    assert not [name for name in made.files if "password" in name or "id_ed" in name or "openrc" in name]
    assert {"plan/passwords.yml", "clouds.yaml", "tools/link", ".hidden"} <= set(made.left_out)


def test_the_verb_knows_the_secrets_of_the_cloud(run, own_cache, capsys, signals):
    cloud = own_cache / f"cloud-{run.read_yaml('experiment.yaml')['name']}"
    cloud.mkdir(parents=True)
    (cloud / "passwords.yml").write_text(yaml.safe_dump({"keystone_admin_password": "sesame-open-wide"}))
    argv = ["bundle", str(run.path), "-o", str(run.path.parent / "b.tar.gz")]
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 0 and "left out: parts/" in capsys.readouterr().out
    run.write_text("tools/note.txt", "it said sesame-open-wide")
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    told = capsys.readouterr().err
    assert ended.value.code == 5 and "tools/note.txt" in told and "sesame" not in told


@pytest.mark.parametrize("name", ["x" * 300, "x/../..", 7, None])
def test_a_strangers_run_names_no_path_of_this_machine(run, own_cache, capsys, signals, name):
    run.write_text("experiment.yaml", yaml.safe_dump({**run.read_yaml("experiment.yaml"), "name": name}))
    with pytest.raises(SystemExit) as ended:
        cli.main(["bundle", str(run.path)])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert told.startswith(f"error: {run.path}/experiment.yaml: name: ")


def test_report_works_from_the_archive_on_another_machine(run, tmp_path):
    """Another folder, another home, no cache, and nothing of the run folder that the archive was made of."""
    archive = results.bundle(run, tmp_path / "elsewhere" / "x.tar.gz").path
    wanted = (run.path / "fits.csv").read_bytes()
    run.path.rename(tmp_path / "gone")
    env = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(TOP)}
    argv = [sys.executable, "-m", "mrkolla", "report", "--run"]
    done = subprocess.run([*argv, "x.tar.gz"], cwd=archive.parent, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = next(path for path in archive.parent.iterdir() if path.is_dir())
    assert "token_issue_new_connection" in done.stdout and (folder / "fits.csv").read_bytes() == wanted
    (folder / "report.html").unlink()
    done = subprocess.run(
        [*argv, f"../{folder.name}"], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()


def packed(path, folder, name=None, without=()):
    """An archive of a folder by hand, as a stranger makes one."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=name or folder.name, filter=lambda one: one if one.name not in without else None)
    return path


@pytest.fixture
def apart(run, tmp_path):
    """A bundle unpacked, to be changed and packed again, and an empty folder to unpack it in."""
    for name in ("apart", "into"):
        (tmp_path / name).mkdir()
    return results.unbundle(results.bundle(run).path, tmp_path / "apart").path, tmp_path / "into"


def test_what_is_no_bundle_or_was_changed_is_a_clear_error(apart, tmp_path):
    folder, into = apart
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        results.unbundle(tmp_path / "x.tar.gz", into)
    for without in (["SHA256SUMS"], ["samples.parquet"]):
        with pytest.raises(InputError, match="not an archive that"):
            results.unbundle(packed(tmp_path / "z.tar.gz", folder, without=[f"{folder.name}/{without[0]}"]), into)
    with pytest.raises(InputError, match=r"points\.json is missing in it"):
        results.unbundle(packed(tmp_path / "y.tar.gz", folder, without=[f"{folder.name}/points.json"]), into)
    (folder / "fits.csv").write_text("changed\n")
    with pytest.raises(InputError, match=r"fits\.csv is not the file that was bundled"):
        results.unbundle(packed(tmp_path / "y.tar.gz", folder), into)
    assert not list(into.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("points.json", "{}"),
        ("provenance.json", '{"x": "\\ud800"}'),
        ("experiment.yaml", 'name: "\\ud800"'),
        ("figures", "a file"),
        ("wan.parquet", "no table"),
    ],
)
def test_a_refused_archive_leaves_nothing(apart, tmp_path, name, text):
    """What is wrong with a run that is unpacked is found before it is put beside the archive."""
    folder, into = apart
    if (folder / name).is_dir():
        shutil.rmtree(folder / name)
    (folder / name).write_text(text)
    with (folder / "SHA256SUMS").open("w") as sums:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"):
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n")
    with pytest.raises(InputError, match=rf"^{tmp_path}/y\.tar\.gz/{name}: ") as refused:
        results.unbundle(packed(tmp_path / "y.tar.gz", folder), into)
    assert "tmp-unbundle" not in str(refused.value) and not list(into.iterdir())


def test_folders_of_the_archive_alone_are_not_made(apart, tmp_path):
    """An archive's own folders could stand where its run's files would: one comes with the files in it."""
    folder, into = apart
    for name in ("parts/x", "parts/y/samples.parquet", "phases.csv", "figures/latency_vs_rtt.svg.new"):
        (folder / name).mkdir(parents=True)
    unpacked = results.unbundle(packed(tmp_path / "y.tar.gz", folder), into)
    assert not list(unpacked.path.glob("parts")) and not (unpacked.path / "phases.csv").exists()


def test_what_the_list_of_checksums_cannot_hold_is_left_out(run, tmp_path):
    os.mkfifo(run.path / "tools" / "pipe")
    run.write_text("tools/line\nbreak", "x")
    made = results.bundle(run, tmp_path / "x.tar.gz")
    assert {"'tools/pipe'", "'tools/line\\nbreak'"} <= set(made.left_out)
    (tmp_path / "into").mkdir()
    results.unbundle(made.path, tmp_path / "into")


@pytest.mark.parametrize("name", [".ssh", "mrkolla", "results", "x-20260101T000000Z.tar"])
def test_the_archive_cannot_choose_what_folder_it_becomes(apart, tmp_path, name):
    folder, into = apart
    with pytest.raises(InputError, match="not an archive that"):
        results.unbundle(packed(tmp_path / "y.tar.gz", folder, name), into)
    assert not list(into.iterdir())


def test_a_file_that_is_not_listed_is_refused(apart, tmp_path):
    folder, into = apart
    (folder / "parts").mkdir()
    (folder / "parts" / "more").write_text("what no checksum covers")
    with pytest.raises(InputError, match=r"'parts/more' is in it and not in its SHA256SUMS"):
        results.unbundle(packed(tmp_path / "y.tar.gz", folder), into)


@pytest.mark.parametrize(
    "line", ["../../../../proc/kmsg", "/proc/kmsg", "a/../b", "", "./fits.csv", "no checksum", "\x1b[2J"]
)
def test_a_checksum_of_a_file_elsewhere_is_refused(apart, tmp_path, line):
    folder, into = apart
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {line}\n" if line != "no checksum" else "fits.csv\n")
    with pytest.raises(InputError, match="names no file of it") as refused:
        results.unbundle(packed(tmp_path / "y.tar.gz", folder), into)
    assert str(refused.value).isprintable()


def test_a_folder_that_is_there_wins_only_when_it_holds_the_same(run, tmp_path):
    archive = results.bundle(run).path
    assert results.unbundle(archive, archive.parent).path == run.path  # the run that it was made of, beside it
    (tmp_path / "into").mkdir()
    folder = results.unbundle(archive, tmp_path / "into")
    (folder.path / "report.html").write_text("made anew")
    assert results.unbundle(archive, tmp_path / "into").path == folder.path
    folder.write_text("points.json", "[]")
    with pytest.raises(InputError, match=r"is there and is not what .* holds \(points\.json differs\)"):
        results.unbundle(archive, tmp_path / "into")
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    with pytest.raises(InputError, match="is there and is not what"):
        results.unbundle(archive, tmp_path / "into")


def test_a_bundle_is_named_as_a_run(run, tmp_path):
    """Its name may come from the samples, which a stranger can have made: it is no path."""
    other = run.path.rename(run.path.with_name("copy"))
    assert results.bundle(other).path.name == f"{run.run}.tar.gz"
    (other / "samples.parquet").unlink()
    shutil.rmtree(other / "parts")
    synthetic_rows = synthetic.rows("p", 20, samples=8, operations=OPERATIONS)
    renamed = results.RunFolder(other)
    renamed.append_point("p", synthetic_rows)
    with pytest.raises(InputError, match="a bundle has its run's name"):
        results.bundle(renamed)


def test_a_run_without_samples_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="nothing to bundle"):
        results.bundle(results.RunFolder.create(tmp_path, "x"))
