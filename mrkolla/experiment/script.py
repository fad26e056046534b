"""What every experiment script has: its options, the way to a deployed cloud, its exit code."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkolla import batch, config, providers
from mrkolla.base import arguments, shell, streams
from mrkolla.base.errors import InputError, LackError, MrkollaError
from mrkolla.base.lock import wait_option, writing

if TYPE_CHECKING:
    from mrkolla.experiment.cloud import Cloud

#: What a system says of a path that can be nothing's, and of one where nothing can be written.
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Options:
    """The options of an experiment script: ``FILE --testbed --results --run --new --destroy --fresh --wait``."""

    file: Path
    testbed: Path | None = None
    results: Path = Path("results")
    run: str | None = None
    new: bool = False
    destroy: bool = False
    fresh: bool = False
    wait: float = 0.0

    def __post_init__(self) -> None:
        for name in ("file", "testbed", "results"):
            if value := getattr(self, name):  # a script may give a path as text
                object.__setattr__(self, name, Path(value))


def add_options(parser: argparse.ArgumentParser, default: Path | None) -> None:
    """Add the options of :class:`Options` to ``parser``; without ``default`` the FILE must be given."""
    explained = f"experiment file (default: {default})" if default else "experiment file"
    parser.add_argument(
        "file", metavar="FILE", type=arguments.path, help=explained, nargs="?" if default else None, default=default
    )
    arguments.testbed_option(parser)
    arguments.results_option(parser)
    parser.add_argument("--run", metavar="RUN", help="go on with this run (a folder or its name)")
    parser.add_argument("--new", action="store_true", help="start a new run even if one is unfinished")
    parser.add_argument("--destroy", action="store_true", help="destroy the cloud at the end")
    parser.add_argument("--fresh", action="store_true", help="deploy even if the cache has the same cloud, deployed")
    wait_option(parser)


def options(script: str, description: str | None = None, argv: list[str] | None = None) -> Options:
    """Read the command line of ``script`` (its ``__file__``); FILE is by default configs/SCRIPT.yaml beside it.

    Raises InputError for an empty value.
    """
    path = Path(script).resolve()
    default = path.parent.parent / "configs" / f"{path.stem}.yaml"
    parser = argparse.ArgumentParser(
        prog=path.name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, default)
    values = parser.parse_args(argv)
    arguments.refuse_empty(values, path.name)
    return Options(**vars(values))


def up(given: Options | Path | str, *, topology: str | None = None, **kwargs: Any) -> Cloud:
    """A deployed and checked cloud for an experiment file (or the options of a script).

    An unfinished run of the same experiment is resumed. Where there is none, but the cloud of the same experiment is
    up, that cloud is used in a new run folder. Otherwise the cloud is deployed. ``kwargs`` are the attributes of
    :class:`Options`, when ``given`` is a file. With ``topology`` the file's ``keystone.topology`` is that one, and its
    name ends with it. Raises MrkollaError.
    """
    from mrkolla.base.progress import Progress
    from mrkolla.bench import make_tool
    from mrkolla.cloud import synthetic
    from mrkolla.experiment.cloud import Cloud
    from mrkolla.experiment.runs import choose_run

    options = given if isinstance(given, Options) else Options(file=Path(given), **kwargs)
    experiment = config.load(options.file, options.testbed)
    if topology is not None:
        values = experiment.model_dump(mode="json")
        values["keystone"]["topology"] = topology
        experiment = config.from_dict(values | {"name": f"{experiment.name}_{topology}"}, str(options.file))
    kind = experiment.testbed.kind
    experiment = batch.in_job(experiment)
    batch.refuse_when_done()
    for entry in experiment.bench:
        make_tool(entry.model_dump())  # one that cannot be made is told before there are hosts
    testbed = providers.testbed(experiment.testbed.kind)
    testbed.need()  # before a run folder is made
    testbed.foresee(experiment, options.results)
    synthetic.foresee(testbed, experiment)
    stack = ExitStack()
    held = stack.enter_context(writing(experiment.name, options.wait))  # before a run folder is chosen or made
    try:
        folder = choose_run(experiment, options.results, options.run or batch.chained_run(), options.new)
        held.sign(run=str(folder.path))
        batch.record_run(folder.name)
        progress = stack.enter_context(Progress(log=folder.path / "logs" / "mrkolla.log"))
        progress.note(f"run folder: {folder.path}")
        if experiment.testbed.kind != kind:
            progress.note(f"in a job: the hosts are its nodes (testbed {experiment.testbed.kind}), not testbed {kind}")
        cloud = Cloud(experiment, folder, progress, destroy=options.destroy, fresh=options.fresh)
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
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for what a shell starts with '&'
        numbers.append(signal.SIGINT)
    # A terminal that is closed ends nothing: not this, nor the commands that it has at work.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        streams.steady()
        _need_folder()
        with shell.interruptible(*numbers):
            status = body() or 0
        sys.stdout.flush()  # what cannot be written is an error here, and a traceback at the end of the process
        return status
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
        return _tell(refused)
    finally:
        signal.signal(signal.SIGHUP, before)


def _tell(refused: OSError) -> int:
    """Print what a system refused, where a person can mend it, and give the exit code; else raise it again."""
    if refused.errno in _NO_PATH and refused.filename:
        # Of two names, the second is the one that was asked for.
        print(f"error: {refused.filename2 or refused.filename}: {refused.strerror}", file=sys.stderr)
        return InputError.exit_code
    if refused.errno in _NO_ROOM:
        print(f"error: {refused.filename or 'a file'} cannot be written: {refused.strerror}", file=sys.stderr)
        return LackError.exit_code
    raise refused


def _need_folder() -> None:
    """Raise LackError when the working directory was removed: what is relative to it would be nowhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise LackError("the working directory is not there any more: cd to one that is") from None
