"""What the command line does with results: compare two runs, bundle one, open a run or an archive of one."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mrkolla.errors import InputError
from mrkolla.results.store import RunFolder
from mrkolla.verbs import run_options

CHANGED = 10  # exit code
_ARCHIVES = (".tar.gz", ".tgz")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla compare``."""
    parser.add_argument("run_a", metavar="RUN_A", help="the run to compare with: a folder, its name, or a bundle")
    parser.add_argument("run_b", metavar="RUN_B", help="the run that may have changed")
    parser.add_argument("--alpha", type=float, default=0.05, help="chance of a false finding (default: 0.05)")
    parser.add_argument("--threshold", default="5%", help="smallest change that counts, such as 5%% or 0.05")
    parser.add_argument("--correction", choices=["holm", "fdr_bh"], default="holm", help="for many comparisons")
    parser.add_argument("--all", action="store_true", help="show what did not change too")
    parser.add_argument("--json", action="store_true", help="write everything as JSON")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


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
    """What changed from one run to another; 10 when something did."""
    from mrkolla.results.comparison import compare as compared
    from mrkolla.results.comparison import grid, verdict
    from mrkolla.results.tables import render

    threshold = share(args.threshold)
    with opened(args.results, args.run_a) as a, opened(args.results, args.run_b) as b:
        found = compared(a, b, alpha=args.alpha, threshold=threshold, correction=args.correction)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, default=str))
        return CHANGED if len(found.changes) else 0
    print(f"A: {found.name_a}\nB: {found.name_b}")
    for key, one, two in found.differences:
        print(f"differs: {key}: {one} | {two}")
    shown = grid(found, everything=args.all)
    if shown.rows:
        print(f"\n{render(shown.rich())}")
    for letter, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            more = f" and {len(only) - 3} more" if len(only) > 3 else ""
            print(f"only in {letter} (or with too few samples in the other): {', '.join(only[:3])}{more}")
    print(verdict(found))
    return CHANGED if len(found.changes) else 0


def report_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla report``."""
    run_options(parser)


def report(args: argparse.Namespace) -> int:
    """Tables, figures and the report of a run, again."""
    from mrkolla.results import latency_table, render, write_all

    with opened(args.results, args.run, keep=True) as folder:
        print(render(latency_table(write_all(folder))))
        print(folder.path / "report.html")
    return 0


def bundle_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla bundle``."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="the run: a folder or its name (default: the newest)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the archive (default: NAME.tar.gz beside it)"
    )
    parser.add_argument("--logs", action="store_true", help="take the logs too")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")


def bundle(args: argparse.Namespace) -> int:
    """One archive of a run, without secrets."""
    from mrkolla.results.bundling import bundle as bundled

    run = RunFolder.find(args.results, args.run)
    made = bundled(run, args.output, secrets=secrets_of(run), logs=args.logs)
    for name in made.left_out:
        print(f"left out: {name}")
    print(f"{made.path} ({len(made.files)} files, {made.path.stat().st_size / 1e6:.1f} MB)")
    return 0


def secrets_of(run: RunFolder) -> list[str]:
    """The secrets of the run's cloud, where this machine has them; [] elsewhere."""
    from mrkolla import cache
    from mrkolla.kolla import passwords

    name = (run.read_yaml("experiment.yaml", {}) or {}).get("name")
    folder = cache.root() / f"cloud-{name}"
    known: list[str] = []
    if (folder / "passwords.yml").is_file():
        known += passwords.values(yaml.safe_load((folder / "passwords.yml").read_text()) or {})
    if (folder / "bench-password").is_file():
        known.append((folder / "bench-password").read_text())
    return known


@contextmanager
def opened(results: Path, run: str | None, keep: bool = False) -> Iterator[RunFolder]:
    """A run by name, folder or archive. An archive is unpacked: beside itself with ``keep``, else for the while."""
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
