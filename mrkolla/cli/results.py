"""What the command line does with results: compare two, set some beside a publication, advise by them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkolla.base import arguments
from mrkolla.base.errors import InputError
from mrkolla.cli.common import format_option, offer_runs, print_json, run_options
from mrkolla.results.store import RunFolder

if TYPE_CHECKING:
    from mrkolla.results.comparison import Comparison

CHANGED = 10  # exit code
_ARCHIVES = (".tar.gz", ".tgz")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla compare``."""
    first = parser.add_argument(
        "run_a", metavar="RUN_A", help="the run to compare with: a folder, its name, or a bundle"
    )
    second = parser.add_argument("run_b", nargs="?", metavar="RUN_B", help="the run that may have changed")
    parser.add_argument(
        "--aa", action="store_true", help="compare RUN_A's odd repetitions with its even ones: what is found is false"
    )
    offer_runs(first, second)
    parser.add_argument("--alpha", type=float, default=0.05, help="chance of a false finding (default: 0.05)")
    parser.add_argument(
        "--threshold", default="5%", help="largest change that counts as none, such as 5%% or 0.05 (default: 5%%)"
    )
    parser.add_argument("--correction", choices=["holm", "fdr_bh"], default="holm", help="for many comparisons")
    parser.add_argument("--all", action="store_true", help="show what did not change too")
    format_option(parser)
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="as --format json")
    arguments.results_option(parser)


def share(text: str) -> float:
    """``5%``, ``5 %`` or ``0.05`` as 0.05.

    Raises:
        InputError: something else.
    """
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise InputError(f"--threshold '{text}': give a share, such as 5% or 0.05") from None


def compare(args: argparse.Namespace) -> int:
    """What changed from one run to another, or within one (--aa); 10 when something did."""
    from mrkolla.results.comparison import against_itself, itself_text
    from mrkolla.results.comparison import compare as compared

    if args.aa == (args.run_b is not None):
        raise InputError("compare: give two runs, or one and --aa")
    options = {"alpha": args.alpha, "threshold": share(args.threshold), "correction": args.correction}
    if args.aa:
        with opened(args.results, args.run_a) as run:
            comparison, splits = against_itself(run, **options)
        _show(comparison, args, f"Run: {run.name}", {"splits": splits})
        if args.format != "json":
            print(itself_text(splits, args.alpha))
    else:
        with opened(args.results, args.run_a) as a, opened(args.results, args.run_b) as b:
            comparison = compared(a, b, **options)
        _show(comparison, args, f"A: {comparison.name_a}\nB: {comparison.name_b}", {})
    return CHANGED if len(comparison.changes) else 0


def _show(comparison: Comparison, args: argparse.Namespace, names: str, extra: dict[str, Any]) -> None:
    from mrkolla.results.comparison import grid, verdict
    from mrkolla.results.tables import render

    if args.format == "json":
        print_json(comparison.to_dict() | extra)
        return
    print(names)
    for key, value_a, value_b in comparison.differences:
        print(f"differs: {key}: {value_a} | {value_b}")
    shown = grid(comparison, everything=args.all)
    if shown.rows:
        print(f"\n{render(shown.rich())}")
    for letter, only in (("A", comparison.only_a), ("B", comparison.only_b)):
        if only:
            rest = f" and {len(only) - 3} more" if len(only) > 3 else ""
            print(f"only in {letter}: {', '.join(only[:3])}{rest}")
    print(verdict(comparison))


def reproduce_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla reproduce``."""
    parser.add_argument("study", metavar="STUDY", help="juice, reliability or enos-wan-tcp")
    runs = parser.add_argument(
        "runs",
        nargs="*",
        default=[],
        metavar="RUN",
        help="runs to set beside it: folders, names, or bundles; none: what is lacking",
    )
    offer_runs(runs)
    format_option(parser)
    arguments.results_option(parser)


def reproduce(args: argparse.Namespace) -> int:
    """A published study beside runs: a verdict a shape, what is lacking, what cannot be compared."""
    from mrkolla.results.reproduce import grid, notes
    from mrkolla.results.reproduce import reproduce as beside
    from mrkolla.results.tables import render

    with ExitStack() as stack:
        runs = [stack.enter_context(opened(args.results, name)) for name in args.runs]
        shapes = beside(args.study, runs)
    if args.format == "json":
        rows = [shape.to_dict() for shape in shapes]
        print_json({"study": args.study, "shapes": rows, "notes": notes(args.study, shapes)})
        return 0
    print(render(grid(args.study, shapes).rich()))
    for line in notes(args.study, shapes):
        print(line)
    return 0


def advise_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla advise``."""
    parser.add_argument("file", metavar="FILE", type=arguments.path, help="regions, round trips and rates (YAML)")
    runs = parser.add_argument(
        "runs",
        nargs="*",
        default=["sample"],
        metavar="RUN",
        help="runs that measured: folders, names, or bundles (default: sample)",
    )
    offer_runs(runs)
    format_option(parser)
    arguments.results_option(parser)


def advise(args: argparse.Namespace) -> int:
    """What each place of Keystone would cost at an operator's round trips, and what survives a cut."""
    from mrkolla.config.sites import load_sites
    from mrkolla.results.advise import advise as by_runs
    from mrkolla.results.advise import cut_grid, latency_grid, notes, predictions
    from mrkolla.results.tables import render

    sites = load_sites(args.file)
    with ExitStack() as stack:
        advice = by_runs(sites, [stack.enter_context(opened(args.results, name)) for name in args.runs])
    if args.format == "json":
        table = predictions(advice)
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        cut = [
            {"topology": topology, "operation": name, "done": done, "started": started, "run": run}
            for (topology, name), (done, started, run) in advice.survives.items()
        ]
        print_json({"latency": rows, "cut": cut, "not_measured": advice.missing})
        return 0
    for grid in (latency_grid(advice), cut_grid(advice)):
        if grid.rows:
            print(render(grid.rich()))
    for line in notes(advice):
        print(line)
    return 0


def report_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla report``."""
    runs = parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="a run, as --run; several are joined: folders, names, or bundles"
    )
    offer_runs(runs)
    run_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=arguments.path,
        metavar="DIR",
        help="where the report of several runs goes (default: RESULTS/joined; what is there is replaced)",
    )
    format_option(parser)


def report(args: argparse.Namespace) -> int:
    """Tables, figures and the report of a run, again; or of several together."""
    from mrkolla.results import latency_table, render, write_all

    if args.runs and args.run:
        raise InputError("report: name the run once: RUN, or --run RUN")
    if len(args.runs) > 1:
        return _report_joined(args)
    if args.output:
        raise InputError("report: -o is for several runs; the report of one goes to its folder")
    with opened(args.results, (args.runs or [args.run])[0], keep=True) as folder:
        analysis, path = write_all(folder), folder.path / "report.html"
        if args.format == "json":
            fits = analysis.fits.astype(object).where(analysis.fits.notna(), None)
            print_json({"run": folder.name, "report": path, "operations": fits.to_dict("records")})
            return 0
        print(render(latency_table(analysis)))
        print(path)
    return 0


def _report_joined(args: argparse.Namespace) -> int:
    from mrkolla.results import joined
    from mrkolla.results.tables import render

    out = args.output or args.results / "joined"
    if RunFolder.marked(out):
        raise InputError(f"{out}: is a run folder: give another for the report of several runs")
    with ExitStack() as stack:
        statistics = joined.join([stack.enter_context(opened(args.results, name)) for name in args.runs])
        path = joined.write(statistics, out)
    if args.format == "json":
        tables = {
            "runs": statistics.runs,
            "over": statistics.over,
            "operations": statistics.named(statistics.analysis.fits),
        }
        rows = {n: table.astype(object).where(table.notna(), None).to_dict("records") for n, table in tables.items()}
        print_json({"report": path, "remarks": statistics.remarks, **rows})
        return 0
    for grid in (joined.runs_grid(statistics), joined.over_grid(statistics), joined.each_grid(statistics, brief=True)):
        print(render(grid.rich()))
    for remark in statistics.remarks:
        print(remark)
    print(path)
    return 0


def bundle_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla bundle``."""
    run = parser.add_argument(
        "run", nargs="?", metavar="RUN", help="the run: a folder or its name (default: the newest)"
    )
    offer_runs(run)
    parser.add_argument(
        "-o", "--output", type=arguments.path, metavar="FILE", help="the archive (default: NAME.tar.gz beside it)"
    )
    parser.add_argument("--logs", action="store_true", help="take the logs too")
    arguments.results_option(parser)


def bundle(args: argparse.Namespace) -> int:
    """One archive of a run, without secrets."""
    from mrkolla.results.bundling import bundle as bundled

    run = RunFolder.find(args.results, args.run)
    archive = bundled(run, args.output, secrets=secrets_of(run), logs=args.logs)
    for name in archive.left_out:
        print(f"left out: {name}")
    print(f"{archive.path} ({len(archive.files)} files, {archive.path.stat().st_size / 1e6:.1f} MB)")
    return 0


def secrets_of(run: RunFolder) -> list[str]:
    """The secrets of the run's cloud, where this machine has them; [] elsewhere.

    Raises:
        InputError: the run, which may be a stranger's, has a name that is no experiment's.
    """
    from mrkolla import config
    from mrkolla.base import cache
    from mrkolla.kolla import passwords

    experiment = run.read_yaml("experiment.yaml", {}) or {}
    if "name" not in experiment:
        return []
    name = experiment["name"]
    if wrong := config.wrong_name(name):
        raise InputError(f"{run.path / 'experiment.yaml'}: name: {wrong}")
    folder = cache.cloud(name)
    secrets: list[str] = []
    if (folder / "passwords.yml").is_file():
        secrets += passwords.values(passwords.load(folder / "passwords.yml"))
    if (folder / "bench-password").is_file():
        secrets.append((folder / "bench-password").read_text())
    return secrets


@contextmanager
def opened(results: Path, run: str | None, keep: bool = False) -> Iterator[RunFolder]:
    """A run by name, folder or archive. An archive is unpacked: with ``keep`` beside itself, else for a while."""
    if run is None or not run.endswith(_ARCHIVES):
        yield RunFolder.find(results, run)
        return
    from mrkolla.results.bundling import unbundle

    archive = Path(run) if Path(run).exists() else Path(results) / run
    if not archive.is_file():
        raise InputError(f"{run}: no such archive")
    if keep:
        yield unbundle(archive, archive.parent)
        return
    with tempfile.TemporaryDirectory(prefix="mrkolla-run-") as folder:
        yield unbundle(archive, folder)
