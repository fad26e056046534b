"""The figures of a large run, drawn by a process of their own while the report is made.

Drawing hundreds of panels takes as long as the report does, and neither needs the other: on two cores the wait is
halved. The process is a new one, not a fork: the libraries have threads.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mrkolla.base import shell
from mrkolla.results.analysis import Analysis
from mrkolla.results.explained import split
from mrkolla.results.figures import latency
from mrkolla.results.figures.files import write_figures
from mrkolla.results.gathering import Gathered
from mrkolla.results.store import RunFolder

WORTH_IT = 4  # panels: fewer are drawn sooner than a process starts
_LONGEST_S = 600.0  # that the process may go on after the block
_GRACE_S = 5.0  # for it to remove a figure that is half written, when it is ended


@contextmanager
def drawing(folder: RunFolder, analysis: Analysis, found: pd.DataFrame) -> Iterator[None]:
    """:func:`write_figures`, done when the block ends; where there is a core for it, while the block runs.

    A process that could not do it (killed for memory, say, or stuck) is no failure: they are drawn here then, and what
    is wrong with them is raised.
    """
    splitted = split(analysis)
    if len(os.sched_getaffinity(0)) < 2 or len(latency.panels(analysis)) <= WORTH_IT:
        write_figures(folder, analysis, found, splitted)
        yield
        return
    top = str(Path(__file__).parents[3])
    with tempfile.TemporaryFile() as file:
        pickle.dump((folder.path, _thin(analysis), found, splitted), file, protocol=pickle.HIGHEST_PROTOCOL)
        file.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", __name__], start_new_session=True,  # Ctrl-C reaches it once, from here
            stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([top, *filter(None, [os.environ.get("PYTHONPATH")])])},
        )  # fmt: skip
    try:
        yield
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LONGEST_S)
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
        child.kill()
        status = child.wait()
    if status:
        write_figures(folder, analysis, found, splitted)


def _thin(analysis: Analysis) -> Analysis:
    """Without what no figure is drawn from: the samples themselves, and the draws of their medians."""
    gathered = analysis.gathered
    return replace(
        analysis,
        draws=np.empty((len(analysis.levels), 0), np.float32),
        gathered=Gathered(gathered.keys, [], [], [], [], gathered.errors, gathered.rows),
    )


if __name__ == "__main__":
    path, drawn, *tables = pickle.load(sys.stdin.buffer)
    with shell.interruptible(signal.SIGTERM):
        write_figures(RunFolder.open(path), drawn, *tables)
