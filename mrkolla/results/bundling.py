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
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mrkolla.base import archives, files
from mrkolla.base.errors import CheckError, InputError
from mrkolla.results import columns, hosts, layout, schema, shapes
from mrkolla.results.report import write_all
from mrkolla.results.secrets import assert_no_secrets, suspects
from mrkolla.results.store import RUN_NAME, RunFolder

SUMS, README = "SHA256SUMS", "README.md"
# What a report writes, and the bundle's README: a folder whose other files are the same holds the same run.
_MADE_ANEW = (README, "summary.csv", "fits.csv", "phases.csv", "faults.csv", "figures", "report.html")
# Never taken, whatever is in them: keys and passwords, what is half-written, what samples.parquet says already.
_NEVER = ("*password*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "clouds.y*ml", "*openrc*", "known_hosts*", ".*")
_FOLDERS_LEFT = ("parts", "logs", layout.BACKUPS)
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
    "faults.json": "each fault: when it began and ended, when that was seen",
    "faults.csv": "each operation before, during and after each fault",
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
    if not RUN_NAME.fullmatch(run.run):
        raise InputError(f"{run.path}: a bundle has its run's name: call the folder NAME-YYYYmmddTHHMMSSZ first")
    taken, left_out = _choose(run.path, logs)
    with tempfile.TemporaryDirectory(prefix="mrkolla-bundle-") as temporary:
        added = Path(temporary)
        (added / README).write_text(_readme(run, taken))
        # Copies: a run that goes on writes its journal meanwhile, and what is looked at must be what is packed.
        for name in taken:
            (added / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, added / name)
        sources = {name: added / name for name in (*taken, README)}
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
    return Bundle(path, sorted(sources), left_out)


def _choose(folder: Path, logs: bool) -> tuple[list[str], list[str]]:
    """(files to take, files and folders left out), by their names within the run folder."""
    taken, left_out = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # A list of checksums, a name a line, cannot hold a name that is not printable.
        plain = str(name).isprintable()
        if name.parts[0] in _FOLDERS_LEFT and not (logs and name.parts[0] == "logs"):
            if len(name.parts) == 1:
                left_out.append(f"{name}/")
        elif any(fnmatch.fnmatch(part.lower(), never) for part in name.parts for never in _NEVER) or path.is_symlink():
            left_out.append(str(name) if plain else ascii(str(name)))
        elif path.is_dir():
            continue
        elif not path.is_file() or not plain:
            left_out.append(ascii(str(name)))
        elif str(name) not in (SUMS, README):  # of an earlier bundle, made anew
            taken.append(name.as_posix())
    return taken, left_out


def _refuse_secrets(run: RunFolder, sources: dict[str, Path], secrets: Iterable[str]) -> None:
    added = sources[README].parent
    assert_no_secrets(added, secrets, only=[name for name in sources if name != README], of=run.path)
    try:
        places = [(name, *suspect) for name, path in sorted(sources.items()) for suspect in suspects(path)]
    except InputError as error:
        raise InputError(str(error).replace(str(added), str(run.path))) from None
    findings = [f"{name}, line {line}: {what}" for name, line, what in places]
    if findings:
        rest = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
        raise CheckError(
            f"{run.path}: not bundled, this looks like a secret: {'; '.join(findings[:3])}{rest}: "
            "blank the value (***) or delete the file, then bundle again"
        )


def _write(path: Path, sources: dict[str, Path], top: str) -> None:
    """The archive, whole or not at all: sorted names, one owner, the run's time on every file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    when = re.search(r"\d{8}T\d{6}Z$", top)
    stamp = calendar.timegm(time.strptime(when[0], "%Y%m%dT%H%M%SZ")) if when else 0
    with (
        files.replaced(path) as new,
        new.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(sources):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mtime, entry.mode = sources[name].stat().st_size, stamp, 0o644
            with sources[name].open("rb") as file:
                archive.addfile(entry, file)


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
    if any(name.startswith(f"{hosts.FOLDER}/") for name in taken):
        lines += ["", f"## {hosts.FOLDER}/POINT.parquet", "", *columns.table(hosts.COLUMNS)]
    for name in taken:
        if name in ("summary.csv", "fits.csv", "faults.csv") or (name.startswith("figures/") and name.endswith(".csv")):
            # Somebody's own table may lie beside those of the figures, in whatever encoding.
            with (run.path / name).open(newline="", encoding="utf-8", errors="replace") as file:
                head = next(csv.reader(file), [])
            lines += ["", f"## {name}", "", "Empty cells: not known.", "", *columns.csv_table(head)]
    return "\n".join(lines) + "\n"


def unbundle(archive: Path | str, into: Path | str) -> RunFolder:
    """Unpack an archive of :func:`bundle` below ``into`` and check its files against its checksums.

    A run folder of that name that is there already is used when it holds the archive's files (what a report writes may
    have been made anew), and refused otherwise.

    Raises:
        InputError: not such an archive; a file of it is missing, not listed, or not the one that was bundled; or there
            is another folder of its name.
    """
    archive, into = Path(archive), Path(into)
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-unbundle-", dir=into) as temporary:
            names = archives.unpack(archive, Path(temporary))
            tops = {PurePosixPath(name).parts[0] for name in names}
            top = tops.pop() if len(tops) == 1 else ""
            # The archive names the folder that is made in `into`: only a run's name is taken.
            if not {f"{top}/{SUMS}", f"{top}/samples.parquet"} <= set(names) or not RUN_NAME.fullmatch(top):
                raise InputError(f"{archive}: not an archive that 'mrkolla bundle' wrote")
            folder = Path(temporary) / top
            sums = _listed(folder / SUMS, archive)
            for name in sorted({str(PurePosixPath(name).relative_to(top)) for name in names} - {SUMS} - set(sums)):
                raise InputError(f"{archive}: {name!a} is in it and not in its {SUMS}")
            for name in _changed(folder, sums):
                what = "is not the file that was bundled (its checksum differs)"
                raise InputError(f"{archive}: {name} {what if (folder / name).is_file() else 'is missing in it'}")
            _need_run(folder, archive)
            if (into / top).exists():
                _same_run(into / top, sums, archive)
            else:
                os.replace(folder, into / top)
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked to {into}: {error.strerror}") from error
    return RunFolder.open(into / top)


def _need_run(folder: Path, archive: Path) -> None:
    """Raise InputError where what was unpacked is no run folder; nothing of the archive is kept then."""
    try:
        run = RunFolder.open(folder)
        for name in shapes.NAMES:
            (run.read_yaml if name.endswith(".yaml") else run.read_json)(name)
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(archive))) from None


def _listed(file: Path, archive: Path) -> dict[str, str]:
    """The names in an archive's list of checksums, each with its checksum."""
    sums: dict[str, str] = {}
    try:
        lines = file.read_text().splitlines()
    except ValueError:
        raise InputError(f"{archive}: its {SUMS} is not text") from None
    for line in lines:
        checksum, _, name = line.partition("  ")
        path = PurePosixPath(name)
        inside = name.isprintable() and str(path) == name and not path.is_absolute() and ".." not in path.parts
        if not re.fullmatch("[0-9a-f]{64}", checksum) or not inside or name == ".":
            raise InputError(f"{archive}: its {SUMS} has a line that names no file of it: {line[:100]!a}")
        sums[name] = checksum
    return sums


def _changed(folder: Path, sums: dict[str, str]) -> Iterator[str]:
    """The files of ``sums`` that ``folder`` lacks, or has with other contents."""
    for name, checksum in sums.items():
        path = folder / name
        if not path.is_file():
            yield name
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
                yield name


def _same_run(folder: Path, sums: dict[str, str], archive: Path) -> None:
    data = {name: checksum for name, checksum in sums.items() if name.split("/")[0] not in _MADE_ANEW}
    for name in _changed(folder, data):
        raise InputError(
            f"{folder} is there and is not what {archive} holds ({name} differs): move one of them elsewhere, or give"
            " that folder with --run"
        )
