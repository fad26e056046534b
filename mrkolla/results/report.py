"""The report: one HTML page that needs nothing else, made from a run folder alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from mrkolla.errors import InputError
from mrkolla.results import figures, tables
from mrkolla.results.links import link_table
from mrkolla.results.stats import Analysis, analyse
from mrkolla.results.store import RunFolder
from mrkolla.results.summary import write_summary
from mrkolla.results.words import slope_text

# Of the hundreds of packages, those that shape a result; the others stand below them, folded.
_MAIN_PACKAGES = ("ansible-core", "enoslib", "keystoneauth1", "kolla-ansible", "openstacksdk", "pandas", "pyarrow",
                  "rally", "scipy")  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure of the report: what it is called, what it shows in words, and its data URI."""

    title: str
    words: str
    uri: str


def _picture(title: str, words: str, figure: Any) -> Picture:
    data = base64.b64encode(figures.svg(figure).encode()).decode()
    return Picture(title, words, f"data:image/svg+xml;base64,{data}")


def _pictures(analysis: Analysis) -> list[Picture]:
    found = []
    for title, fits in figures.panels(analysis):
        words = "; ".join(f"{fit['origin_region']}: {slope_text(fit)}" for _, fit in fits.iterrows())
        found.append(_picture(title, f"{title}, latency against measured RTT. {words}",
                              figures.panel_figure(analysis, title, fits)))  # fmt: skip
    return found


def topology(experiment: dict[str, Any]) -> tables.Grid:
    """Regions of ``experiment.yaml`` with their hosts per role and their compute driver."""
    admin = experiment.get("admin_region") or {}
    rows = [[str(admin.get("name", "AR")), "admin region", str(admin.get("control", 1)), "–", "–", "–"]]
    for region in experiment.get("regions") or []:
        driver = str(region.get("compute_driver", "qemu"))
        if region.get("fake_computes"):
            driver += f", {region['fake_computes']} compute services"
        counts = [str(region.get(role, default)) for role, default in (("control", 1), ("network", 0), ("compute", 1))]
        rows.append([str(region.get("name", "")), "OpenStack region", *counts, driver])
    head = ["region", "kind", "control hosts", "network hosts", "compute hosts", "compute driver"]
    return tables.Grid("What ran", head, rows, frozenset({2, 3, 4}))


def _facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what else of the experiment a reader asks for first."""
    keystone = experiment.get("keystone") or {}
    own = {k: "Kolla's own" if v is None else v for k, v in keystone.items()}
    testbed, wan = experiment.get("testbed") or {}, experiment.get("wan") or {}
    sweep = experiment.get("sweep") or {}
    rtts = [_rtt(value) for value in sweep.get("rtt_ms") or []]
    found = {
        "release": experiment.get("release"),
        "testbed": testbed.get("kind"),
        "WAN driver": wan.get("driver"),
        "RTT asked (ms)": ", ".join(rtts),
        "repetitions": sweep.get("repetitions"),
        "benchmarks": ", ".join(str(b.get("tool")) for b in experiment.get("bench") or []),
        "Keystone": ", ".join(f"{k}: {v}" for k, v in own.items()),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def _rtt(value: Any) -> str:
    return " ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:g}"


def _provenance(record: dict[str, Any]) -> dict[str, Any]:
    packages = record.get("packages") or {}
    revision = record.get("revision") or {}
    commit = revision.get("commit")
    dirty = " with uncommitted changes" if revision.get("dirty") else ""
    main = {
        "mrkolla": record.get("mrkolla") or "not installed",
        "revision": f"{commit}{dirty}" if commit else "unknown",
    }
    main |= {"made": record.get("made"), "Python": record.get("python")}
    main |= {name.replace("_", " "): value for name, value in (record.get("machine") or {}).items()}
    main |= {name: packages[name] for name in _MAIN_PACKAGES if name in packages}
    known = {"packages", "revision", "made", "python", "machine", "mrkolla"}
    rest = {name: value for name, value in record.items() if name not in known}
    return {
        "main": [(k, "unknown" if v is None else str(v)) for k, v in main.items()],
        "packages": sorted(packages.items()),
        "rest": yaml.safe_dump(rest, sort_keys=False, allow_unicode=True, width=100) if rest else "",
    }


def write_report(
    folder: RunFolder | Path | str,
    *,
    title: str | None = None,
    analysis: Analysis | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into a run folder from what the folder holds, and give its path.

    ``title`` is by default the experiment's name, ``analysis`` is made when it is not given, ``remarks`` are
    sentences shown at the top (say, that a host was slow). ``experiment.yaml``, ``endpoints.json``, ``points.json``
    and ``provenance.json`` are used when they are there. A run without any usable sample (all points refused) still
    gets its report, which says so.

    Raises:
        InputError: not a run folder, of another schema version, or a file of it cannot be read.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    experiment = run.read_yaml("experiment.yaml", {}) or {}
    points = run.points()
    samples, why = None, ""
    if analysis is None:
        try:
            analysis = analyse(run.read_samples())
        except InputError as error:
            if not points:  # nothing ran at all: there is nothing to report
                raise
            why = str(error).removeprefix(f"{run.path}: ")
    if run.parts() or (run.path / "samples.parquet").exists():
        samples = run.read_samples(["scenario", "action", "origin_region", "error", "warmup"], refused=True)
    links = link_table(run)
    wan = None
    if (links["rtt_asked_ms"].notna() & links["median_ms"].notna()).any():
        wan = _picture("Links", "Asked against measured RTT of each link", figures.wan_figure(links))
    errors = tables.error_grid(samples) if samples is not None else None
    grids = {
        "topology": topology(experiment) if experiment else None,
        "endpoints": tables.endpoint_grid(run.read_json("endpoints.json", [])),
        "latency": tables.latency_grid(analysis) if analysis else None,
        "points": tables.point_grid(points),
        "errors": errors,
    }
    status = [p.get("status", "done") for p in points]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        title=title or experiment.get("name") or run.name,
        run=run.name,
        remarks=list(remarks),
        why=why,
        facts=_facts(experiment),
        grids=grids,
        analysis=analysis,
        counts={s: status.count(s) for s in ("done", "refused", "failed") if s in status},
        samples=len(samples) if samples is not None else 0,
        pictures=_pictures(analysis) if analysis else [],
        wan=wan,
        provenance=_provenance(run.read_json("provenance.json", {})),
    )
    return run.write_text("report.html", page)


def write_all(folder: RunFolder | Path | str, *, title: str | None = None, remarks: Sequence[str] = ()) -> Analysis:
    """Everything made from samples: joins the parts, writes ``summary.csv``, ``fits.csv``, ``figures/``, the report.

    Raises:
        InputError: there is no usable sample (:func:`write_report` alone reports such a run), or a file is broken.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    if run.parts():
        run.consolidate()
    analysis = analyse(run.read_samples())
    write_summary(run, analysis)
    figures.write_figures(run, analysis, link_table(run))
    write_report(run, title=title, analysis=analysis, remarks=remarks)
    return analysis
