"""One archive of a run: data, plan, provenance, checksums and a README of columns and units, without secrets.

The same run folder gives the same bytes. What is unpacked is a run folder again: ``mrkolla report`` works from it on
any machine.
"""

from __future__ import annotations

import calendar
import csv
import fnmatch
import gzip
import hashlib
import io
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mrkolla import archives
from mrkolla.errors import CheckError, InputError
from mrkolla.results import columns, schema
from mrkolla.results.report import write_all
from mrkolla.results.secrets import assert_no_secrets, suspects
from mrkolla.results.store import RunFolder

SUMS, README = "SHA256SUMS", "README.md"
# Never taken, whatever is in them: keys and passwords, what is half-written, what samples.parquet says already.
_NEVER = ("*password*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "clouds.y*ml", "*openrc*", "known_hosts*", ".*")
_FOLDERS_LEFT = ("parts", "logs")
_WHAT = {
    "experiment.yaml": "the experiment as it was run, every default written out",
    "provenance.json": "versions, machine, regions and hosts, git revision",
    "points.json": "each point: asked and measured round trips, status, warnings",
    "journal.jsonl": "what was done, step by step",
    "check.json": "what the check of the cloud saw",
    "endpoints.json": "the endpoint table of the cloud",
    "samples.parquet": "every measured operation, one row each",
    "wan.parquet": "every echo over the links, one row each",
    "summary.csv": "statistics per operation, region and point",
    "fits.csv": "service time and slope per operation and region",
    "report.html": "all of it to read, in one file",
    "plan": "inventory, globals and configuration of each run of Kolla, and the edits made to Kolla (no passwords)",
    "figures": "PDF and SVG, and their numbers as CSV",
    "tools": "what each benchmark tool wrote itself",
    "logs": "what each step wrote",
}


@dataclass(frozen=True)
class Bundle:
    """An archive that was written: its path, the files in it, those that were left out."""

    path: Path
    files: list[str]
    left_out: list[str] = field(default_factory=list)


def bundle(
    folder: RunFolder | Path | str, output: Path | str | None = None, *, secrets: Iterable[str] = (), logs: bool = False
) -> Bundle:
    """Write a run as one archive (tar.gz), by default ``NAME.tar.gz`` beside the run folder.

    ``secrets`` are values that must not be in it (the cloud's passwords); besides, files that look like a key or hold
    something that looks like a password are refused. ``logs`` takes the logs too. Statistics and report are made first
    when they are missing.

    Raises:
        InputError: not a run folder, no samples, or the archive cannot be written.
        CheckError: a secret stands in a file; names the file, never the secret. Nothing is written.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    run.join()
    if not (run.path / "samples.parquet").exists():
        raise InputError(f"{run.path}: nothing to bundle: no point of this run finished")
    if not all((run.path / name).exists() for name in ("summary.csv", "fits.csv", "report.html")):
        write_all(run)
    taken, left = _choose(run.path, logs)
    with tempfile.TemporaryDirectory(prefix="mrkolla-bundle-") as temporary:
        added = Path(temporary)
        (added / README).write_text(_readme(run, taken))
        sources = {name: run.path / name for name in taken} | {README: added / README}
        _refuse_secrets(run, sources, secrets)
        lines = []
        for name in sorted(sources):
            with sources[name].open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
        (added / SUMS).write_text("".join(lines))
        sources[SUMS] = added / SUMS
        path = Path(output) if output else run.path.parent / f"{run.run}.tar.gz"
        try:
            _write(path, sources, run.run)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    return Bundle(path, sorted(sources), left)


def _choose(folder: Path, logs: bool) -> tuple[list[str], list[str]]:
    """(files to take, files and folders left out), by their names within the run folder."""
    taken, left = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in _FOLDERS_LEFT and not (logs and name.parts[0] == "logs"):
            if len(name.parts) == 1:
                left.append(f"{name}/")
        elif any(fnmatch.fnmatch(part.lower(), never) for part in name.parts for never in _NEVER) or path.is_symlink():
            left.append(str(name))
        elif path.is_file() and str(name) not in (SUMS, README):  # of an earlier bundle, made anew
            taken.append(name.as_posix())
    return taken, left


def _refuse_secrets(run: RunFolder, sources: dict[str, Path], secrets: Iterable[str]) -> None:
    assert_no_secrets(run.path, secrets, only=[name for name in sources if name != README])
    found = [f"{name}, line {line}: {what}" for name, path in sorted(sources.items()) for line, what in suspects(path)]
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise CheckError(
            f"{run.path}: not bundled, this looks like a secret: {'; '.join(found[:3])}{more}: "
            "blank the value (***) or delete the file, then bundle again"
        )


def _write(path: Path, sources: dict[str, Path], top: str) -> None:
    """The archive, whole or not at all: sorted names, one owner, the run's time on every file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    when = re.search(r"\d{8}T\d{6}Z$", top)
    stamp = calendar.timegm(time.strptime(when[0], "%Y%m%dT%H%M%SZ")) if when else 0
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with (
            os.fdopen(handle, "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in sorted(sources):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime, entry.mode = sources[name].stat().st_size, stamp, 0o644
                with sources[name].open("rb") as file:
                    archive.addfile(entry, file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _readme(run: RunFolder, taken: list[str]) -> str:
    tops = list(dict.fromkeys(name.split("/")[0] for name in taken))
    record = run.read_json("provenance.json", {})
    commit = (record.get("revision") or {}).get("commit") or "unknown"
    lines = [
        f"# {run.run}",
        "",
        f"A run of mrkolla {record.get('mrkolla') or ''} (revision {commit}), schema version {schema.SCHEMA_VERSION}.",
        "",
        "    sha256sum -c SHA256SUMS            # the files are those that were bundled",
        f"    mrkolla report --run ../{run.run}   # statistics, figures and report again, from this folder alone",
        '    pandas.read_parquet("samples.parquet")',
        "",
        "| file | what it holds |",
        "|---|---|",
        *(f"| `{name}` | {_WHAT.get(name, '')} |" for name in tops),
        "",
        "Warm-up and failed operations, and points that were refused, are in `samples.parquet` and in no statistic.",
        "",
        "## samples.parquet",
        "",
        *columns.table(schema.SAMPLE_COLUMNS),
        "",
        "## wan.parquet",
        "",
        *columns.table(schema.WAN_COLUMNS),
    ]
    for name in taken:
        if name in ("summary.csv", "fits.csv") or (name.startswith("figures/") and name.endswith(".csv")):
            with (run.path / name).open(newline="") as file:
                head = next(csv.reader(file), [])
            lines += ["", f"## {name}", "", "Empty cells: not known.", "", *columns.csv_table(head)]
    return "\n".join(lines) + "\n"


def unbundle(archive: Path | str, into: Path | str) -> RunFolder:
    """Unpack an archive of :func:`bundle` below ``into`` and check its files against its checksums.

    A folder of that name that is there already is used as it is.

    Raises:
        InputError: not such an archive, or a file of it is missing or not the one that was bundled.
    """
    archive = Path(archive)
    try:
        with tarfile.open(archive, mode="r:gz") as packed:
            tops = {Path(name).parts[0] for name in packed.getnames()}
            if len(tops) != 1 or f"{next(iter(tops))}/{SUMS}" not in packed.getnames():
                raise InputError(f"{archive}: not an archive that 'mrkolla bundle' wrote")
            target = Path(into) / tops.pop()
            if not target.exists():
                with tempfile.TemporaryDirectory(prefix=".tmp-unbundle-", dir=into) as temporary:
                    archives.unpack(packed, Path(temporary), plain=True)
                    _check_sums(Path(temporary) / target.name, archive)
                    os.replace(Path(temporary) / target.name, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive}: cannot be unpacked: {error}") from error
    return RunFolder.open(target)


def _check_sums(folder: Path, archive: Path) -> None:
    with io.StringIO((folder / SUMS).read_text()) as sums:
        for line in sums:
            wanted, _, name = line.rstrip("\n").partition("  ")
            path = folder / name
            if not path.is_file():
                raise InputError(f"{archive}: {name} is missing in it")
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                    raise InputError(f"{archive}: {name} is not the file that was bundled (its checksum differs)")
