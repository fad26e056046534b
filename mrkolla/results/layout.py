"""Which names of a run folder are files and which are folders: what has the other kind was not made by mrkolla.

A run folder may be a stranger's, or damaged. Everything that is read or written later is listed here, so that a
folder in a file's place (or a pipe, which would be waited for without end) is one clear line before anything is made.
"""

from __future__ import annotations

from pathlib import Path

from mrkolla.base.errors import InputError

#: Where backups of the cloud are, which may hold secrets and are given to nobody with the run.
BACKUPS = "backups"
FOLDERS = (
    *(BACKUPS, "figures", "logs", "parts", "parts/*", "plan"),
    *("tools", "tools/hosts", "tools/services", "tools/tracing"),
)
FILES = (
    *("README.md", "SHA256SUMS", "check.json", "endpoints.json", "experiment.yaml", "fits.csv"),
    *("faults.csv", "faults.json"),
    *("joins.json", "journal.jsonl", "phases.csv", "phases.json", "points.json", "provenance.json", "report.html"),
    *("samples.parquet", "summary.csv", "wan.parquet", "parts/*/samples.parquet", "parts/*/wan.parquet"),
    *("figures/*.csv", "figures/*.pdf", "figures/*.png", "figures/*.svg", "tools/accesslog/*.parquet"),
    *("tools/shaker*/throughput.parquet", "tools/tracing/*.json", "tools/hosts/*.parquet"),
    "tools/services/*.parquet",
)


def need(folder: Path) -> None:
    """Raise InputError for a name of the run folder ``folder`` that has the wrong kind, or cannot be looked at."""
    try:
        for patterns, right, kind in ((FOLDERS, Path.is_dir, "folder"), (FILES, Path.is_file, "file")):
            for path in (path for pattern in patterns for path in sorted(folder.glob(pattern))):
                if not right(path) and not path.name.startswith("."):
                    raise InputError(f"{path}: is no {kind}: not as mrkolla made it; remove it, or move it elsewhere")
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error
