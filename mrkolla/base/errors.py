"""What can go wrong, and the exit code that says so.

Every error that a person can cause or mend is a :class:`MrkollaError`: one line that says what is wrong, where
(file and key, region, host) and what to do. The command line prints that line and ends with ``exit_code``.
"""

from __future__ import annotations


class MrkollaError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class InputError(MrkollaError):
    """The experiment file, an option or an argument is wrong."""

    exit_code = 2


class LackError(MrkollaError):
    """The machine or the testbed lacks something (package, kernel feature, disk, rights, hosts)."""

    exit_code = 3


class DeployError(MrkollaError):
    """Building images, starting hosts or a run of Kolla failed."""

    exit_code = 4


class CheckError(MrkollaError):
    """A deployed cloud is not what it must be."""

    exit_code = 5


class WanError(MrkollaError):
    """A link does not have the round trip that was asked for, or its driver is dead."""

    exit_code = 6


class BenchError(MrkollaError):
    """A benchmark could not be run."""

    exit_code = 7


class FaultError(MrkollaError):
    """A fault could not be made, was not seen to begin or to end, or is still in force."""

    exit_code = 8
