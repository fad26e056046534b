#!/usr/bin/env python3
"""Makes what the documentation shows of runs: results/sample, docs/figures, and the tables that runs fill.

    python docs/tools/evidence.py --sample RUN     # a new run of configs/two_regions.yaml
    python docs/tools/evidence.py --links FILE     # what tests/bench/bench_wan.py --json FILE wrote
    python docs/tools/evidence.py --join RUN       # a new run of experiments/region_join.py
    python docs/tools/evidence.py --catalog RUN    # a new run of experiments/catalog_regions.py
    python docs/tools/evidence.py --table RUN      # a new run of experiments/rally_table.py; writes its bundle, too
    python docs/tools/evidence.py --places RUN...  # new runs of experiments/keystone_place.py, all of one series
    python docs/tools/evidence.py                  # all of it again from the runs that are kept

A table stands in a page between ``<!-- evidence: NAME -->`` and ``<!-- end -->``. docs/data/evidence.json says which
run made what, and the digest of the code that measured it. tests/unit/test_evidence.py fails when a table is not what
this makes, when the sample's figures are not what today's code draws, or when the code that measures has changed.
What no run is on record for stands in its page as it was.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

TOP = Path(__file__).parents[2]
sys.path[:0] = [str(TOP), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from mrkolla.base.errors import InputError, MrkollaError  # noqa: E402 (of this checkout)
from mrkolla.results import RunFolder, analyse, bundle, write_all  # noqa: E402
from mrkolla.results.attribution import EXPLAINED  # noqa: E402
from mrkolla.results.explained import predicted, split  # noqa: E402
from mrkolla.results.faults import share_text  # noqa: E402
from mrkolla.results.figures import k_by_number, regions_figure, style  # noqa: E402
from mrkolla.results.gathering import GROUP  # noqa: E402
from mrkolla.results.places import OPERATIONS, places, places_figure  # noqa: E402
from mrkolla.results.published import published  # noqa: E402
from mrkolla.results.split import PARTS  # noqa: E402
from mrkolla.results.stats import Analysis, labels  # noqa: E402
from mrkolla.results.words import k_text, k_wire_text, ms, number  # noqa: E402

SAMPLE, FIGURES, DATA = TOP / "results/sample", TOP / "docs/figures", TOP / "docs/data"
RECORD = DATA / "evidence.json"
PAGES = ("README.md", "docs/keystone.md", "docs/results.md", "docs/validation.md")
# What the sample has of a run folder: no logs, no parts, no inventories (they name the machine's folders).
_KEPT = ("*.json", "*.jsonl", "experiment.yaml", "samples.parquet", "wan.parquet", "tools/accesslog/*", "tools/hosts/*",
         "tools/probe/*", "tools/tracing/*", "plan/edits.yaml", "plan/*/globals.yml", "plan/*/config/**/*")  # fmt: skip
# The code that a number of a run hangs on: what makes samples, and what the links are made of.
_LINKS = ("mrkolla/wan/*.py",)
_COUNTS = ("mrkolla/bench/accesslog*.py", "mrkolla/bench/keystone_count.py", "mrkolla/kolla/httplog.py", *_LINKS)
_PROBE = ("mrkolla/bench/probe*.py", *_COUNTS)
MEASURES = {
    "results/sample": _PROBE,
    "docs/data/links.json": _LINKS,
    "docs/figures/region_join.png": _PROBE,
    "docs/data/regions.csv": ("mrkolla/cloud/membership/listed.py", *_PROBE),
    "docs/data/places.csv": ("mrkolla/bench/rally*.py", "mrkolla/kolla/places.py", *_PROBE),
    "docs/data/rally_table.csv": ("mrkolla/bench/rally*.py", *_PROBE),
    "docs/figures/rally_table.png": ("mrkolla/bench/rally*.py", *_PROBE),
    "docs/figures/timeline.png": ("mrkolla/bench/rally*.py", "mrkolla/bench/tracing.py", *_COUNTS),
}
#: Figures of data that is kept: the data, and what draws it.
OF_DATA = {
    "docs/figures/k_vs_regions.svg": ("docs/data/regions.csv", regions_figure),
    "docs/figures/keystone_place.svg": ("docs/data/places.csv", places_figure),
}
#: Drawn from the code and from what is kept; tests of their own hold them.
DRAWN = ("docs/figures/rooms.svg", "docs/figures/two_regions.svg", *OF_DATA)
WORDS = {
    "token_issue_new_connection": "token, new connection",
    "token_issue_kept_connection": "token, kept connection",
    "token_validate": "validate a token",
    "glance_fresh_token": "list images at the OSR's own Glance, token not seen before",
    "glance_cached_token": "the same, token in the cache",
    "neutron_fresh_token": "list networks at the OSR's own Neutron, token not seen before",
    "neutron_cached_token": "the same, token in the cache",
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_TABLE = re.compile(r"(<!-- evidence: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def digest(patterns: Iterable[str], read: Mapping[str, bytes] | None = None) -> str:
    """SHA-256 of the code in ``read`` (path -> bytes); by default in this checkout's files that ``patterns`` name."""
    total = hashlib.sha256()
    names = set(read) if read is not None else {
        str(path.relative_to(TOP)) for pattern in patterns for path in TOP.glob(pattern)
    }  # fmt: skip
    for name in sorted(names):
        source = (read[name] if read is not None else (TOP / name).read_bytes()).decode()
        total.update(f"{name}\0{code(source)}\0".encode())
    return total.hexdigest()


def code(source: str) -> str:
    """Python without its comments, docstrings and empty lines, which change nothing of what it measures."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            assert text.end_lineno is not None, "parsed from source"
            lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digest_at(commit: str, patterns: Iterable[str]) -> str:
    """:func:`digest` of the files as they were at ``commit``.

    Raises:
        InputError: the repository has no such commit.
    """
    names = _git("ls-tree", "-r", "--name-only", commit, "mrkolla/").split()
    names = [name for name in names if any(PurePosixPath(name).match(pattern) for pattern in patterns)]
    return digest((), {name: _git("show", f"{commit}:{name}").encode() for name in names})


def _git(*argv: str) -> str:
    done = subprocess.run(["git", "-C", str(TOP), *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {' '.join(argv[:3])}: {done.stderr.strip()}")
    return done.stdout


def of_run(run: RunFolder, what: str) -> dict[str, Any]:
    """The record of what a run made: its name, version, revision, and the digest of the code that measured it.

    Raises:
        InputError: the run's revision is not known, had uncommitted changes, or measured otherwise than this checkout.
    """
    provenance = run.read_json("provenance.json", {})
    revision = provenance.get("revision") or {}
    if not revision.get("commit") or revision.get("dirty"):
        raise InputError(
            f"{run.path}: provenance.json: revision: no commit, or with uncommitted changes: measure again"
        )
    record = {
        "run": run.run,
        "made": provenance.get("made"),
        "mrkolla": provenance.get("mrkolla"),
        "commit": revision["commit"],
    }
    record["measured_by"] = digest_at(revision["commit"], MEASURES[what])
    if record["measured_by"] != digest(MEASURES[what]):
        raise InputError(f"{run.path}: the code that measures has changed since {record['commit'][:12]}: measure again")
    return record


def take(run: RunFolder, into: Path = SAMPLE) -> None:
    """Keep ``run`` as the sample, with statistics, figures and report made by this checkout.

    Raises:
        InputError: not a whole run, or a file of it names a folder of the machine.
    """
    if any(point.get("status", "done") != "done" for point in run.points()):
        raise InputError(f"{run.path}: not every point is done")
    run.join()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / run.run
        for pattern in _KEPT:
            for path in run.path.glob(pattern):
                target = copy / path.relative_to(run.path)
                if path.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        for path in copy.rglob("*"):
            if path.is_file() and (b"/root/" in (data := path.read_bytes()) or b"/tmp/" in data or b"/home/" in data):
                raise InputError(f"{run.path / path.relative_to(copy)}: names a folder of this machine: not for others")
        write_all(copy)
        if into.exists():
            shutil.rmtree(into)
        shutil.copytree(copy, into)


def _rows(*cells: Iterable[Any]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in cells]


def _k_of(fits: list[dict[str, Any]]) -> str:
    return ", ".join(k_text(fit) if math.isnan(fit["k_wire"]) else k_wire_text(fit) for fit in fits)


def _trips(fits: list[dict[str, Any]]) -> str:
    return "–" if math.isnan(fits[0]["predicted"]) else f"{fits[0]['predicted']:.3g}"


def _by_operation(analysis: Analysis) -> dict[str, list[dict[str, Any]]]:
    fits = analysis.fits[analysis.fits["action"].isna()]
    fits = fits.assign(predicted=predicted(fits))
    return {
        name: sorted(fits[fits["scenario"] == name].to_dict("records"), key=lambda fit: fit["origin_region"])
        for name in WORDS
        if (fits["scenario"] == name).any()
    }


def k_table(analysis: Analysis) -> list[str]:
    """README: k of each operation beside what is predicted."""
    operations = _by_operation(analysis)
    wire = analysis.fits["k_wire"].notna().any()
    regions = ", in ".join(sorted(analysis.fits["origin_region"].unique()))
    what = "k of the wire" if wire else "k"
    head = [
        "operation, from an OSR",
        "predicted",
        f"{what} in {regions} (95 % interval)",
        *(["verdict"] if wire else []),
    ]
    rows = []
    for name, fits in operations.items():
        verdict = ", ".join(dict.fromkeys(fit["verdict"] for fit in fits))
        rows.append([WORDS[name], _trips(fits), _k_of(fits), *([verdict] if wire else [])])
    return _rows(head, ["---"] * len(head), *rows)


def costs_table(analysis: Analysis) -> list[str]:
    """Results: service time, predicted, k of the wire, k of the total."""
    operations = _by_operation(analysis)
    wire = analysis.fits["k_wire"].notna().any()
    regions = ", ".join(sorted(analysis.fits["origin_region"].unique()))
    head = ["operation, from an OSR", "service time", "predicted round trips"]
    head += [f"k of the wire: {regions}"] if wire else []
    head += [f"k of the total (95 % interval): {regions}"]
    rows = []
    for name, fits in operations.items():
        service = sum(fit["service_ms"] for fit in fits) / len(fits)
        row = [WORDS[name], f"{number(service, 0)} ms", _trips(fits)]
        row += [", ".join(map(k_wire_text, fits))] if wire else []
        rows.append([*row, ", ".join(map(k_text, fits))])
    return _rows(head, ["---"] * len(head), *rows)


def ran(run: RunFolder, analysis: Analysis) -> list[str]:
    """What the sample is, in a sentence."""
    provenance = run.read_json("provenance.json", {})
    machine = provenance.get("machine") or {}
    keys = analysis.gathered.keys
    operations, failed = int(keys["n"].sum() + keys["n_errors"].sum()), int(keys["n_errors"].sum())
    points = run.points()
    refused = sum(point.get("status", "done") != "done" for point in points)
    rtts = ", ".join(ms(level) for level in sorted(analysis.levels["level"].unique()))
    sentence = (
        f"Run `{run.run}`, mrkolla {provenance.get('mrkolla')} at"
        f" `{(provenance.get('revision') or {}).get('commit', '?')[:12]}`,"
        f" OpenStack {run.read_yaml('experiment.yaml', {}).get('release')}, {machine.get('cores_usable', '?')} cores"
        f" ({machine.get('cpu_model', '?')}): {operations:,} operations at {rtts} ms in {len(points)} points, of which"
        f" {refused or 'none'} refused; {failed or 'no'} operation{'s' if failed > 1 else ''} failed."
    )  # fmt: skip
    return textwrap.wrap(sentence, 125, break_on_hyphens=False)


def links_rows(links: list[dict[str, float]]) -> list[str]:
    """The link's round trip and what TCP carries over it."""
    head = ["round trip asked of a link", *(f"{ms(row['asked_ms'])} ms" for row in links)]
    return _rows(
        head, ["---"] * len(head),
        ["measured: median of 400 echoes", *(f"{number(row['median_ms'])} ms" for row in links)],
        ["one TCP stream over it (cubic)", *(f"{number(row['mbit'], 0)} Mbit/s" for row in links)],
    )  # fmt: skip


def tcp_table(links: list[dict[str, float]]) -> list[str]:
    """TCP throughput beside the Enos WAN study's."""
    study = published("enos-wan-g5k", "TCP throughput")
    rows = []
    for row in links:
        reference = study.get(f"{row['asked_ms']:g}")
        if reference:
            value = float(reference["value"])
            rows.append([f"{ms(row['asked_ms'])} ms", number(value, 0), number(row["mbit"], 0),
                         f"{row['mbit'] / value:.2f}"])  # fmt: skip
    return _rows(["round trip", "Enos, Grid'5000 (Mbit/s)", "mrkolla (Mbit/s)", "ratio"], ["---"] * 4, *rows)


def tokens_table(analysis: Analysis) -> list[str]:
    """Authenticate and validate: juice's means beside the sample's, and the round trips that each pays."""
    rows = []
    for database in ("mariadb", "galera", "cockroachdb"):
        of = published("juice", f"authenticate+validate {database} high")
        first, middle, last = (float(of[rtt]["value"]) for rtt in ("0.08", "100", "300"))
        name = {"mariadb": "MariaDB", "galera": "Galera", "cockroachdb": "CockroachDB"}[database]
        rows.append([f"juice: {name}, 9 instances, high load", "Keystone and its database", f"{first:g} s",
                     f"{middle:g} s", f"{last:g} s (300 ms)", number((last - first) / 0.3, 1)])  # fmt: skip
    parts = ("token_issue_new_connection", "token_validate")
    fits = analysis.fits[analysis.fits["action"].isna() & analysis.fits["scenario"].isin(parts)]
    levels = analysis.levels[analysis.levels["action"].isna() & analysis.levels["scenario"].isin(parts)]
    k = fits["k_wire"].where(fits["k_wire"].notna(), fits["k"])
    for region in sorted(fits["origin_region"].unique()):
        medians = levels[levels["origin_region"] == region].groupby("level")["median_ms"].sum() / 1e3
        at = [f"{medians.iloc[0]:.2f} s"]
        # Where the sample has no such round trip: between its neighbours, which lie on a line.
        at += [f"{np.interp(100.0, medians.index, medians):.2f} s" + ("" if 100.0 in medians else " (between two)")]
        total = k[fits["origin_region"] == region].sum()
        rows.append([f"mrkolla: one Keystone, from {region}", "client and Keystone", *at,
                     f"{medians.iloc[-1]:.2f} s ({ms(medians.index.max())} ms)", number(total, 1)])  # fmt: skip
    head = ["what", "the distance is between", "no distance", "100 ms", "furthest", "round trips paid"]
    return _rows(head, ["---"] * len(head), *rows)


def _named(of: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(operation, its rows), by name; those of :data:`WORDS` at the end, in the order there."""
    groups = {str(name): group for name, group in of.assign(operation=labels(of)).groupby("operation")}
    order = [*(name for name in groups if name not in WORDS), *(name for name in WORDS if name in groups)]
    return [(name, groups[name]) for name in order]


def regions_data(analysis: Analysis) -> pd.DataFrame:
    """What is kept of a sweep over the number of regions in the catalog: k of each operation at each number."""
    fits = k_by_number(analysis)
    if fits["regions"].nunique() < 2:
        raise InputError("the run has no two numbers of regions in the catalog: take one of catalog_regions.py")
    return fits.dropna(subset=["regions"])


def regions_table(of: pd.DataFrame, said: list[str]) -> list[str]:
    """Results: k of the wire at each number of regions in the catalog, and the figure of it."""
    numbers, origins = sorted(of["regions"].unique()), ", ".join(sorted(of["origin_region"].unique()))
    rows = []
    for name, group in _named(of):
        cells = []
        for number_ in numbers:
            fits = group[group["regions"] == number_].sort_values("origin_region")
            paid = ", ".join(map(k_wire_text, fits.to_dict("records")))
            cells.append(f"{fits['predicted'].mean():.3g}: {paid}" if len(fits) else "–")
        rows.append([WORDS.get(name, name), *cells])
    head = ["operation", *(f"{number_:g}" for number_ in numbers)]
    return [
        *said, "", f"Predicted: k of the wire in {origins} (95 % interval), by the number of regions.", "",
        *_rows(head, ["---"] * len(head), *rows), "",
        "![k of the wire against the number of regions in the catalog](figures/k_vs_regions.svg)",
    ]  # fmt: skip


def rally_data(analysis: Analysis) -> pd.DataFrame:
    """What is kept of a run of rally_table.py: fits of whole operations, and their split at the longest round trip."""
    parts = split(analysis)
    if "client_ms" not in parts:
        raise InputError("the run does not say where its operations' time went: HAProxy's logs are missing")
    fits = analysis.fits[analysis.fits["action"].isna() & analysis.fits["counted"].notna()]
    far = parts[parts["level"] == parts["level"].max()]
    names = ["keystone_requests", "keystone_connections", "keystone_windows", "predicted", "k_wire", "k_wire_low",
             "k_wire_high", "verdict", "passes"]  # fmt: skip
    return fits[[*GROUP, *names]].merge(far[[*GROUP, "level", "mean_ms", *PARTS]], on=GROUP, how="left")


def rally_table(of: pd.DataFrame, said: list[str]) -> list[str]:
    """Results: requests counted, round trips predicted and paid, and where the time went, of Rally and the probe."""
    at_keystone = of[["keystone_server_ms", "keystone_wait_ms", "keystone_rest_ms"]].sum(axis=1, min_count=3)
    of = of.assign(keystone_ms=at_keystone).fillna({"keystone_windows": 0.0})
    rows = []
    for name, group in _named(of):
        fits = group.sort_values("origin_region").to_dict("records")
        where = [number(group[part].mean(), 0) for part in ("wire_ms", "keystone_ms", "region_ms", "client_ms")]
        counts = [f"{group[f'keystone_{what}'].mean():.3g}" for what in ("requests", "connections", "windows")]
        verdicts = ", ".join(dict.fromkeys(fit["verdict"] for fit in fits))
        rows.append([WORDS.get(name, f"`{name}`"), " + ".join(counts), _trips(fits), _k_of(fits), verdicts,
                     " + ".join(where)])  # fmt: skip
    explained = (of["verdict"] == EXPLAINED).sum()
    head = ["operation", "requests + connections + waits for TCP", "predicted"]
    head += [f"k of the wire in {', in '.join(sorted(of['origin_region'].unique()))} (95 % interval)", "verdict"]
    head += [f"at {ms(of['level'].max())} ms: wire + Keystone + region + client (ms)"]
    return [
        *said, "", f"Of {len(of)} rows, an operation and a region each, {explained} are *explained*.", "",
        *_rows(head, ["---"] * len(head), *rows),
    ]  # fmt: skip


def keep_places(runs: list[RunFolder]) -> dict[str, Any]:
    """Keep of a series over Keystone's places what its table and figure show; returns its record."""
    what = "docs/data/places.csv"
    records = [_of_whole(run, what) for run in runs]
    names = ", ".join(f"`{run.run}`" for run in runs)
    said = [f"Runs {names}, mrkolla at `{records[0]['commit'][:12]}`."]
    return {**records[0], "sha256": _write_data(what, places(runs)), "ran": said}


def places_table(of: pd.DataFrame, said: list[str]) -> list[str]:
    """Keystone's place: what reading and writing cost and what was done while cut off, a column a topology."""
    rows, furthest = [], ms(of["rtt_ms"].max())
    for operation, words in OPERATIONS.items():
        row = [words]
        for _, group in of.groupby("topology", sort=False):
            cells = []
            for one in group[group["operation"] == operation].to_dict("records"):
                cells += [number(one["k_total"], 1), f"{number(one['median_ms'] / 1e3)} s"]
                cells += [] if math.isnan(one["done"]) else [share_text(one["done"])]
            row.append("; ".join(cells) or "–")
        rows.append(row)
    head = [
        f"k of the total; median at {furthest} ms; done while cut off",
        *dict.fromkeys(f"`{t}`" for t in of["topology"]),
    ]
    return [*said, "", *_rows(head, ["---"] * len(head), *rows), "",
            "![Reading, writing and a cut, by where Keystone is](figures/keystone_place.svg)"]  # fmt: skip


#: Table of a page -> (the data that is kept for it, how it is shown).
KEPT = {
    "regions": ("docs/data/regions.csv", regions_table),
    "rally": ("docs/data/rally_table.csv", rally_table),
    "places": ("docs/data/places.csv", places_table),
}
#: Table of a page -> what is kept of one run for it; places are kept of several (keep_places).
CHOSEN = {"regions": regions_data, "rally": rally_data}


def keep(name: str, run: RunFolder) -> dict[str, Any]:
    """Keep of ``run`` what the table ``name`` of :data:`CHOSEN` shows; returns its record."""
    what, _ = KEPT[name]
    record = _of_whole(run, what)
    analysis = write_all(run).of_services
    return {**record, "sha256": _write_data(what, CHOSEN[name](analysis)), "ran": ran(run, analysis)}


def _of_whole(run: RunFolder, what: str) -> dict[str, Any]:
    """:func:`of_run`; raises InputError for a run that has points to make still."""
    if lost := [point["point"] for point in run.points() if point.get("status", "done") != "done"]:
        raise InputError(
            f"{run.path}: {len(lost)} points are not done ({lost[0]}): give the experiment's command again"
        )
    return of_run(run, what)


def _write_data(what: str, frame: pd.DataFrame) -> str:
    """Write ``frame`` as the file ``what`` and return its SHA-256."""
    data = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    (TOP / what).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def kept_tables(record: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """The tables of :data:`KEPT`; None where no run is on record."""
    tables: dict[str, list[str] | None] = {}
    for name, (what, show) in KEPT.items():
        of = record.get(what)
        if of is None:
            tables[name] = None
            continue
        sentences = " ".join(of["ran"])
        if "bundle" in of:
            sentences += f" Its bundle, `{of['run']}.tar.gz`, has the SHA-256 `{of['bundle']}`."
        tables[name] = show(pd.read_csv(TOP / what), textwrap.wrap(sentences, 125, break_on_hyphens=False))
    return tables


def tables(sample: Path = SAMPLE, record: Mapping[str, Any] | None = None) -> dict[str, list[str] | None]:
    """Name -> lines of everything that a page takes from the runs that are kept; None: no such run is kept."""
    run = RunFolder.open(sample)
    analysis = analyse(run).of_services
    links = json.loads((DATA / "links.json").read_text())
    return {
        "k": k_table(analysis), "costs": costs_table(analysis), "ran": ran(run, analysis), "links": links_rows(links),
        "tcp": tcp_table(links), "tokens": tokens_table(analysis),
        **kept_tables(json.loads(RECORD.read_text()) if record is None else record),
    }  # fmt: skip


def filled(text: str, known: Mapping[str, list[str] | None]) -> str:
    """``text`` with its tables as ``known`` has them; those that are None there stay as they are.

    Raises:
        InputError: a table has a name that nothing is known by.
    """
    if wrong := {name for _, name, _ in _TABLE.findall(text)} - set(known):
        raise InputError(f"<!-- evidence: {min(wrong)} -->: no such table; there are {', '.join(sorted(known))}")

    def table(match: re.Match[str]) -> str:
        lines = known[match[2]]
        return match[0] if lines is None else match[1] + "".join(f"{line}\n" for line in lines) + match[3]

    return _TABLE.sub(table, text)


def drawn(name: str) -> str:
    """The figure ``name`` of :data:`OF_DATA`, of the data that is kept."""
    data, draw = OF_DATA[name]
    figure = draw(pd.read_csv(TOP / data))
    style.settle(figure)
    return style.svg(figure)


def stale(record: Mapping[str, Mapping[str, Any]], what: str) -> str | None:
    """Why ``what`` is not of this version; None: it is."""
    of = record.get(what)
    if of is None:
        return f"{what}: no run is on record that made it"
    if of["measured_by"] != digest(MEASURES[what]):
        return f"{what}: the code that measures has changed since {of['run']} ({str(of.get('commit'))[:12]})"
    path = TOP / what
    if path.is_file() and of.get("sha256") != hashlib.sha256(path.read_bytes()).hexdigest():
        return f"{what}: not as the command made it"
    return None


def main() -> int:
    """Take what is given, and make everything that can be made."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--sample", metavar="RUN", help="becomes results/sample")
    ask.add_argument("--links", metavar="FILE", type=Path, help="becomes docs/data/links.json")
    ask.add_argument("--join", metavar="RUN", help="region_join.png")
    ask.add_argument("--catalog", metavar="RUN", help="results.md: k against the number of regions, and its figure")
    ask.add_argument(
        "--table", metavar="RUN", help="results.md: round trips of Rally's operations, and figures; its bundle"
    )
    ask.add_argument("--places", metavar="RUN", nargs="+", help="keystone.md: what each place of Keystone's costs")
    args = ask.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    try:
        _take_runs(args, record)
        page_tables = tables(SAMPLE, record)
        for page in PAGES:
            path = TOP / page
            path.write_text(filled(path.read_text(), page_tables))
    except MrkollaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    subprocess.run([sys.executable, "docs/tools/rooms.py"], cwd=TOP, check=True, env=_here())
    graph = [sys.executable, "-m", "mrkolla", "graph", "configs/two_regions.yaml", "-o", DRAWN[1]]
    subprocess.run(graph, cwd=TOP, check=True, env=_here())
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    for what in MEASURES:
        print(f"stale: {why}" if (why := stale(record, what)) else f"{what}: of this version")
    return 0


def _take_runs(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Take what is given; ``record`` gets what made what."""
    if args.sample:
        run = RunFolder.find(TOP / "results", args.sample)
        record["results/sample"] = of_run(run, "results/sample")
        take(run)
    else:
        write_all(SAMPLE)
    # The report is a file of megabytes that anyone can make of the sample: its digest is kept.
    record["results/sample"]["report"] = hashlib.sha256((SAMPLE / "report.html").read_bytes()).hexdigest()
    if args.links:
        record["docs/data/links.json"] = _links(args.links)
    for name, figure, target in (
        (args.table, "latency_vs_rtt", "rally_table"), (args.table, "timeline-*", "timeline"),
        (args.join, "phases", "region_join"),
    ):  # fmt: skip
        if name:
            record[f"docs/figures/{target}.png"] = _figure(name, figure, FIGURES / f"{target}.png")
    if args.catalog:
        record["docs/data/regions.csv"] = keep("regions", RunFolder.find(TOP / "results", args.catalog))
    if args.table:
        run = RunFolder.find(TOP / "results", args.table)
        entry = keep("rally", run)
        packed = bundle(run).path
        print(f"the run's bundle: {packed}")
        record["docs/data/rally_table.csv"] = {**entry, "bundle": hashlib.sha256(packed.read_bytes()).hexdigest()}
    if args.places:
        series = [RunFolder.find(TOP / "results", name) for name in args.places]
        record["docs/data/places.csv"] = keep_places(series)
    for name, (data, _) in OF_DATA.items():
        if (TOP / data).exists():
            (TOP / name).write_text(drawn(name))


def _here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TOP)}


def _links(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_text())
    (DATA / "links.json").write_text(json.dumps(rows, indent=1) + "\n")
    commit = _git("rev-parse", "HEAD").strip()
    if _git("status", "--porcelain", "--", "mrkolla/wan").strip():
        raise InputError("mrkolla/wan has uncommitted changes: commit them, and measure again")
    measured_by = digest(MEASURES["docs/data/links.json"])
    sha256 = hashlib.sha256((DATA / "links.json").read_bytes()).hexdigest()
    return {"run": path.name, "commit": commit, "measured_by": measured_by, "sha256": sha256}


def _figure(name: str, figure: str, target: Path) -> dict[str, Any]:
    run = RunFolder.find(TOP / "results", name)
    record = of_run(run, str(target.relative_to(TOP)))
    write_all(run)
    figures = sorted((run.path / "figures").glob(f"{figure}.png"))
    if not figures:
        raise InputError(f"{run.path}: figures/{figure}.png: there is none")
    shutil.copyfile(figures[-1], target)
    return {**record, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}


if __name__ == "__main__":
    raise SystemExit(main())
