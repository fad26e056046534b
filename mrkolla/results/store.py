"""A run folder: where one execution of an experiment keeps all that it made.

A finished point is one folder below ``parts/``, renamed into place when it is complete: a run that is killed keeps
the points that it finished, and half a point is never read. ``consolidate`` joins them in ``samples.parquet`` and
``wan.parquet``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mrkolla.base import files, yamltext
from mrkolla.base.errors import InputError
from mrkolla.results import facts, layout, parquet, schema, shapes
from mrkolla.results.names import natural, part_name

if TYPE_CHECKING:
    import pandas as pd

#: A run folder's name.
RUN_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)-(?P<time>\d{8}T\d{6}Z)")
_MARKS = ("experiment.yaml", "journal.jsonl", "provenance.json", "samples.parquet", "parts")
_TABLES = {"samples": schema.SAMPLES, "wan": schema.WAN}
_SORT = {
    "samples": ["start", "origin_region", "tool", "scenario", "action", "iteration"],
    "wan": ["region", "time", "phase"],
}
_PARTS_KEY = b"mrkolla_parts"
_LOST = "its samples are not in the run folder any more: run the experiment again, with --run, to measure it again"


class RunFolder:
    """A run folder on disk; make one with :meth:`create`, :meth:`open` or :meth:`find`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The run's name, NAME-YYYYmmddTHHMMSSZ."""
        return self.path.resolve().name

    @property
    def run(self) -> str:
        """The name that the samples carry: the folder's own, unless it was renamed (then what they say)."""
        if not RUN_NAME.fullmatch(self.name):
            for file in [self.path / "samples.parquet", *(part / "samples.parquet" for part in self.parts())]:
                if file.exists() and (name := parquet.first(file, "run")):
                    return str(name)
        return self.name

    # -- which folder --------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, results_dir: Path | str, name: str) -> RunFolder:
        """A new folder ``results_dir/NAME-YYYYmmddTHHMMSSZ``; of two in one second the later gets the next second.

        Raises:
            InputError: ``name`` cannot be a folder's name, or ``results_dir`` cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(f"name {name!r}: use letters, digits, '_', '.' and '-' (it names the run folder)")
        now = datetime.now(UTC)
        for second in range(60):
            path = Path(results_dir) / f"{name}-{now + timedelta(seconds=second):%Y%m%dT%H%M%SZ}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise InputError(f"{results_dir}: cannot make a run folder here: {error.strerror}") from error
            for sub in ("plan", "figures", "logs", "tools", "parts"):
                (path / sub).mkdir()
            files.settle(path, path.parent)
            return cls(path)
        raise InputError(f"{results_dir}: sixty runs named {name} in one minute: wait, or give another name")

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run folder.

        Raises:
            InputError: not a folder, not a run folder, one with a folder in a file's place, or one of another schema
                version.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path}: no such run folder")
        if not cls.marked(path):
            raise InputError(f"{path}: not a run folder (it has none of {', '.join(_MARKS)})")
        layout.need(path)
        run = cls(path)
        for table in _TABLES:
            file = path / f"{table}.parquet"
            if file.exists():
                parquet.read_schema(file)
        return run

    @staticmethod
    def marked(path: Path) -> bool:
        """Whether a folder has what run folders have."""
        return any((path / mark).exists() for mark in _MARKS)

    @classmethod
    def runs(cls, results_dir: Path | str) -> list[Path]:
        """Run folders below ``results_dir``, oldest first (by the time in their names)."""
        dated = [(m["time"], p.name, p) for p in Path(results_dir).glob("*") if (m := RUN_NAME.fullmatch(p.name))]
        return [path for _, _, path in sorted(dated) if path.is_dir()]

    @classmethod
    def find(cls, results_dir: Path | str, run: str | Path | None = None) -> RunFolder:
        """The run folder that a person means.

        ``run`` is a path, a folder's name below ``results_dir``, or an experiment's name (its newest run); null is
        the newest run of all.

        Raises:
            InputError: there is none; names those that there are.
        """
        runs = cls.runs(results_dir)
        if run is None:
            if not runs:
                raise InputError(f"{results_dir}: no run here: start an experiment first, or say --results DIR")
            return cls.open(runs[-1])
        if (Path(results_dir) / run).is_dir():
            return cls.open(Path(results_dir) / run)
        if Path(run).is_dir():
            return cls.open(run)
        named = [p for p in runs if p.name.rpartition("-")[0] == str(run)]
        if named:
            return cls.open(named[-1])
        newest = ", ".join(p.name for p in reversed(runs[-3:])) or "none"
        raise InputError(f"run {str(run)!r}: neither a folder nor a run in {results_dir} (newest there: {newest})")

    # -- samples -------------------------------------------------------------------------------------------------

    def append_point(
        self, point: str, samples: Iterable[Mapping[str, Any]], wan_rows: Iterable[Mapping[str, Any]] = ()
    ) -> Path:
        """Keep a finished point: all of it or nothing. A point kept before is replaced.

        Rows are dicts with the columns of :mod:`mrkolla.results.schema`; ``run`` and ``point`` are filled in.

        Raises:
            InputError: a row does not fit the schema (row and column named); nothing is written.
        """
        by_table = {"samples": samples, "wan": wan_rows}
        tables = {
            which: schema.to_table(rows, which, {"run": self.name, "point": point}) for which, rows in by_table.items()
        }
        for which, table in tables.items():
            strangers = set(table["point"].unique().to_pylist()) - {point}
            if strangers:
                raise InputError(f"{which} of point {point}: rows of point {', '.join(sorted(strangers))} among them")
        parts = self.path / "parts"
        parts.mkdir(exist_ok=True)
        self._sweep(parts)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parts))
        temporary.chmod(0o755)
        for which, table in tables.items():
            ordered = table.sort_by([(c, "ascending") for c in _SORT[which]])
            file = temporary / f"{which}.parquet"
            pq.write_table(ordered, file, compression="zstd")
            files.settle(file)
        files.settle(temporary)
        final = parts / part_name(point)
        if final.exists():  # killed between the two renames, the point is measured again
            os.replace(final, parts / f"{temporary.name}-old")
        os.replace(temporary, final)
        files.settle(parts, self.path)
        self._sweep(parts)
        return final

    @staticmethod
    def _sweep(parts: Path) -> None:
        """Remove what a killed run left half-written."""
        for leftover in parts.glob(".tmp-*"):
            shutil.rmtree(leftover)

    def parts(self) -> list[Path]:
        """Folders of the finished points, in the order of their names (p2 before p10)."""
        folders = [p for p in (self.path / "parts").glob("*") if p.is_dir() and not p.name.startswith(".tmp-")]
        return sorted(folders, key=lambda p: natural(p.name))

    def join(self) -> None:
        """:meth:`consolidate` where needed: not when the joined files say what the parts say, or there are no parts.

        Raises:
            InputError: a part cannot be read.
        """
        if self.parts() and not all(self._files(which) == [self.path / f"{which}.parquet"] for which in _TABLES):
            self.consolidate()

    def consolidate(self) -> None:
        """Join all parts in ``samples.parquet`` and ``wan.parquet``; the same parts give the same bytes.

        Raises:
            InputError: no point was kept, or a part cannot be read.
        """
        parts = self.parts()
        if not parts:
            raise InputError(f"{self.path}: no finished point, so no samples to join")
        for which, table_schema in _TABLES.items():
            marked = table_schema.with_metadata({**table_schema.metadata, _PARTS_KEY: self._digest(parts)})
            paths = [part / f"{which}.parquet" for part in parts]
            with (
                files.replaced(self.path / f"{which}.parquet") as new,
                pq.ParquetWriter(new, marked, compression="zstd") as writer,
            ):
                for table in parquet.batches(paths):
                    writer.write_table(table.cast(marked))

    @staticmethod
    def _digest(parts: list[Path]) -> bytes:
        digest = hashlib.sha256()
        for part in parts:
            for which in _TABLES:
                digest.update(f"{part.name}/{which}\n".encode())
                try:
                    with (part / f"{which}.parquet").open("rb") as file:
                        digest.update(hashlib.file_digest(file, "sha256").digest())
                except OSError as error:
                    raise parquet.unreadable(part / f"{which}.parquet", error) from error
        return digest.hexdigest().encode()

    def read_table(self, which: str, columns: list[str] | None = None) -> pa.Table:
        """``samples`` or ``wan`` as an Arrow table; the parts themselves when they say more than the joined file.

        Raises:
            InputError: nothing was kept, a file cannot be read, or is of another schema version.
        """
        paths = self._files(which)
        if len(paths) == 1:
            return parquet.read(paths[0], columns)
        return pa.concat_tables([parquet.read(file, columns) for file in paths]).unify_dictionaries()

    def batches(self, which: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """:meth:`read_table` piece by piece (strings as codes): for tables that are too large to hold."""
        yield from parquet.batches(self._files(which), columns)

    def _files(self, which: str) -> list[Path]:
        """The Parquet files to read: the joined one, or the parts when they say more; versions are checked."""
        parts, joined = self.parts(), self.path / f"{which}.parquet"
        if joined.exists():
            columns = parquet.read_schema(joined)
            if not parts or columns.metadata.get(_PARTS_KEY) == self._digest(parts):
                return [joined]
        if not parts:
            raise InputError(f"{self.path}: no samples: no point of this run finished (see its logs and points.json)")
        paths = [part / f"{which}.parquet" for part in parts]
        for file in paths:
            parquet.read_schema(file)
        return paths

    def read_samples(self, columns: list[str] | None = None, *, refused: bool = False) -> pd.DataFrame:
        """Samples as a DataFrame (strings as categories), without those of points that are not done.

        ``columns`` limits what is read; ``refused`` also gives samples of points that ``points.json`` calls
        refused or failed.

        Raises:
            InputError: there is no sample, or none of a point that is done.
        """
        names = columns if columns is None or "point" in columns else [*columns, "point"]
        frame = self.read_table("samples", names).to_pandas(self_destruct=True)
        if not len(frame):
            raise InputError(f"{self.path}: no samples: every point is empty (see points.json and logs)")
        if not refused:
            bad = self.unused_points()
            if bad & set(frame["point"].unique()):
                frame = frame[~frame["point"].isin(bad)].reset_index(drop=True)
            if not len(frame):
                raise InputError(f"{self.path}: all points were refused or failed: points.json says why")
        return frame if columns is None else frame[columns]

    def read_wan(self) -> pd.DataFrame:
        """Echoes as a DataFrame; none is no error."""
        return self.read_table("wan").to_pandas()

    # -- other files ---------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file of the folder whole or not at all; ``name`` may have folders before it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, data)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """:meth:`write_bytes` of UTF-8 text; what is no character (half of a pair, a byte of a name) becomes '?'."""
        return self.write_bytes(name, text.encode(errors="replace"))

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON (indented; paths and times as text)."""
        return self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def read_json(self, name: str, default: Any = None) -> Any:
        """Read JSON; ``default`` when there is no such file.

        Raises:
            InputError: the file is not JSON, or not as mrkolla writes it.
        """
        return self._read(name, default, "JSON", json.loads)

    def read_yaml(self, name: str, default: Any = None) -> Any:
        """Read YAML; ``default`` when there is no such file.

        Raises:
            InputError: the file is not YAML, or not as mrkolla writes it.
        """
        return self._read(name, default, "YAML", yamltext.read)

    def _read(self, name: str, default: Any, form: str, parse: Callable[[str], Any]) -> Any:
        path = self.path / name
        if not path.exists():
            return default
        try:
            value = parse(shapes.text(path))
        except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
            raise InputError(f"{path}: not {form}: {' '.join(str(error).split())}") from error
        return shapes.checked(name, value, path)

    def points(self) -> list[dict[str, Any]]:
        """``points.json``: one dict a point, the last entry of a point that was tried again; [] without the file.

        Keys: point, rtt_asked_ms {region: ms}, repetition, status (done, refused, failed; lost: it was done, and its
        samples are not here), reason,
        links {region: {before_median_ms, before_p99_ms, after_median_ms, after_p99_ms}}, warnings [].
        """
        last = {entry["point"]: entry for entry in self.read_json("points.json", [])}
        # A bundle has the joined tables alone.
        if self.parts():
            for name, entry in last.items():
                if entry.get("status", "done") == "done" and not self.holds(name):
                    last[name] = {**entry, "status": "lost", "reason": _LOST}
        return list(last.values())

    def unused_points(self) -> set[str]:
        """Points that no statistic is made of: not done, or an earlier one again to see what drifted."""
        return {p["point"] for p in self.points() if p.get("status", "done") != "done" or p.get("repeats")}

    def holds(self, point: str) -> bool:
        """Whether what :meth:`append_point` kept of ``point`` is here and can be read."""
        try:
            for which in _TABLES:
                parquet.read_schema(self.path / "parts" / part_name(point) / f"{which}.parquet")
        except InputError:
            return False
        return True

    def keep_point(self, entry: Mapping[str, Any]) -> None:
        """Put the ``entry`` of a point into ``points.json``, in place of an earlier one."""
        entries = [point for point in self.read_json("points.json", []) if point["point"] != entry["point"]]
        self.write_json("points.json", [*entries, entry])

    def write_provenance(self, extra: Mapping[str, Any] | None = None) -> Path:
        """Write ``provenance.json``: :func:`mrkolla.results.provenance` with the caller's ``extra``."""
        return self.write_json("provenance.json", facts.provenance(extra))
