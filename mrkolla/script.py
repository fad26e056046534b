"""What every experiment script has: its options, the way to a deployed cloud, its exit code."""

from __future__ import annotations

import argparse
import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mrkolla import batch, config, providers
from mrkolla.errors import LackError, MrkollaError


@dataclass(frozen=True)
class Options:
    """The options of an experiment script: ``FILE --testbed --results --run --new --destroy``."""

    file: Path
    testbed: Path | None = None
    results: Path = Path("results")
    run: str | None = None
    new: bool = False
    destroy: bool = False


def add_options(parser: argparse.ArgumentParser, default: Path | None) -> None:
    """Add the options of :class:`Options` to ``parser``; without ``default`` the FILE must be given."""
    extra = {"nargs": "?", "default": default} if default else {}
    parser.add_argument("file", metavar="FILE", type=Path, help=f"experiment file (default: {default})", **extra)
    parser.add_argument("--testbed", type=Path, metavar="FILE", help="take the testbed: section of this file instead")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where run folders are")
    parser.add_argument("--run", metavar="RUN", help="go on with this run (a folder or its name)")
    parser.add_argument("--new", action="store_true", help="start a new run even if one is unfinished")
    parser.add_argument("--destroy", action="store_true", help="destroy the cloud at the end")


def options(script: str, description: str | None = None, argv: list[str] | None = None) -> Options:
    """Read the command line of ``script`` (its ``__file__``); FILE is by default configs/SCRIPT.yaml beside it."""
    path = Path(script).resolve()
    default = path.parent.parent / "configs" / f"{path.stem}.yaml"
    parser = argparse.ArgumentParser(
        prog=path.name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, default)
    return Options(**vars(parser.parse_args(argv)))


def up(given: Options | Path | str, **kwargs) -> Cloud:  # noqa: F821 (loaded below)
    """A deployed and checked cloud for an experiment file (or the options of a script).

    An unfinished run of the same experiment is gone on with. A cloud of the same experiment that is up is used again,
    in a new run folder; otherwise it is deployed. ``kwargs`` are those of :class:`Options`. Raises
    :class:`~mrkolla.errors.MrkollaError`.
    """
    from mrkolla.experiment import Cloud
    from mrkolla.progress import Progress
    from mrkolla.runs import choose_run

    wanted = given if isinstance(given, Options) else Options(file=Path(given), **kwargs)
    experiment = batch.in_job(config.load(wanted.file, wanted.testbed))
    batch.refuse_when_done()
    providers.testbed(experiment.testbed.kind).need()  # before a run folder is made
    providers.foresee(experiment, wanted.results)
    folder = choose_run(experiment, wanted.results, wanted.run or batch.chained_run(), wanted.new)
    batch.record_run(folder.name)
    stack = ExitStack()
    progress = stack.enter_context(Progress(log=folder.path / "logs" / "mrkolla.log"))
    try:
        progress.note(f"run folder: {folder.path}")
        cloud = Cloud(experiment, folder, progress, destroy=wanted.destroy)
        stack.push(cloud)
        cloud.closing = stack
        return cloud.up()
    except BaseException:
        stack.__exit__(*sys.exc_info())
        raise


def main(body: Callable[[], None]) -> None:
    """Run ``body`` and end the process: 0, or the exit code of the error, after one clear message."""
    sys.exit(guarded(body))


def guarded(body: Callable[[], int | None]) -> int:
    """Run ``body`` and return its exit code; errors that a person can mend are told without a traceback."""

    def end(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, end)
    try:
        return body() or 0
    except MrkollaError as error:
        # A job that stops in good time is no error.
        print(error if isinstance(error, batch.Stopped) else f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as cut:
        print(f"interrupted ({str(cut) or 'SIGINT'}): the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except subprocess.TimeoutExpired as late:
        command = " ".join(map(str, late.cmd)) if isinstance(late.cmd, (list, tuple)) else late.cmd
        print(
            f"error: '{command[:100]}' did not end within {late.timeout:.0f} s: is the machine busy?", file=sys.stderr
        )
        return LackError.exit_code
    except OSError as refused:
        if refused.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        print(f"error: {refused.filename or 'a file'} cannot be written: {refused.strerror}", file=sys.stderr)
        return LackError.exit_code
