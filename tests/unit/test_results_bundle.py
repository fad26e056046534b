"""One archive of a run: the same bytes each time, checksums, a README of columns, no secret, a report from it."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from mrkolla import cli, results
from mrkolla.errors import CheckError, InputError
from mrkolla.results import columns, schema, secrets, synthetic

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan/OSR1/globals.yml", "database_password: hunter2hunter2\n"),
        ("tools/rally/env.json", '{"users": [{"password": "hunter2hunter2"}]}'),
        ("tools/rally/log.txt", "OS_PASSWORD=hunter2hunter2"),
        ("tools/x/key.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"),
        ("tools/x/headers.txt", "X-Auth-Token: 0123456789abcdef0123456789abcdef"),
        ("tools/x/page.html", "<b>gAAAAABn" + "x" * 80 + "</b>"),
        ("journal.jsonl", '{"error": "connect to mysql://nova:hunter2hunter2@10.0.0.1/nova"}'),
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_told(run, tmp_path, name, text):
    run.write_text(name, text)
    with pytest.raises(CheckError, match="looks like a secret") as refused:
        results.bundle(run, tmp_path / "x.tar.gz")
    assert name in str(refused.value) and "hunter2" not in str(refused.value)
    assert not list(tmp_path.glob("*.tar.gz"))


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
    (tmp_path / "x.yml").write_text(text)
    assert secrets.suspects(tmp_path / "x.yml") == []
    assert [found for path in (TOP / "results" / "sample").rglob("*") if path.is_file()
            for found in secrets.suspects(path)] == []  # fmt: skip


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


def test_readme_has_every_column_with_its_unit(wide, tmp_path):
    archive = results.bundle(wide[0], tmp_path / "x.tar.gz").path
    folder = results.unbundle(archive, tmp_path)
    text = (folder.path / "README.md").read_text()
    for name, column in (schema.SAMPLE_COLUMNS | schema.WAN_COLUMNS).items():
        assert f"| `{name}` | {column.type} | {column.unit or '–'} |" in text
    assert "| `duration_s` | double | s | yes |" in text
    for path in folder.path.rglob("*.csv"):
        with path.open(newline="") as file:
            unknown = [name for name in next(csv.reader(file)) if columns.meaning(name) is None]
        assert unknown == [], path
        assert f"## {path.relative_to(folder.path)}" in text


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


def test_what_is_no_bundle_or_was_changed_is_a_clear_error(run, tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        results.unbundle(tmp_path / "x.tar.gz", tmp_path)
    folder = results.unbundle(results.bundle(run).path, tmp_path / "..")
    (folder.path / "fits.csv").write_text("changed\n")
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz") as archive:
        archive.add(folder.path, arcname="y")
    with pytest.raises(InputError, match=r"fits\.csv is not the file that was bundled"):
        results.unbundle(tmp_path / "y.tar.gz", tmp_path)
    assert not (tmp_path / "y").exists()
    with tarfile.open(tmp_path / "z.tar.gz", "w:gz") as archive:
        archive.add(folder.path / "fits.csv", arcname="z/fits.csv")
    with pytest.raises(InputError, match="not an archive that"):
        results.unbundle(tmp_path / "z.tar.gz", tmp_path)


def test_a_run_without_samples_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="nothing to bundle"):
        results.bundle(results.RunFolder.create(tmp_path, "x"))
