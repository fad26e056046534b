"""What a testbed does: the base class of the plug-ins of that kind."""

from __future__ import annotations

import abc
import functools
import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mrkolla.base.errors import InputError, LackError
from mrkolla.base.plugins import Plugin
from mrkolla.config.testbeds import TestbedOptions

if TYPE_CHECKING:
    from mrkolla.config import Experiment
    from mrkolla.config.placement import Region
    from mrkolla.providers.prepare import Seen
    from mrkolla.wan import LocalLink, PlainLink

Say = Callable[[str], None]


@dataclass(frozen=True)
class SyntheticPlace:
    """The network namespace of a synthetic region, on this machine, and its link to the AR."""

    name: str
    namespace: Path
    link: LocalLink


class Testbed(Plugin, ABC):
    """A kind of hosts: gives those of an experiment, and takes them away. One object a kind, without state of its own.

    What is known of a cloud's hosts is on disk, in the cloud's folder: any process finds it. Methods that are not
    abstract may be left as they are; :meth:`can` tells which of them a testbed has.
    """

    __test__ = False  # its name makes pytest take it for a test
    plugin_kind = "testbed"
    #: The model of the section ``testbed``.
    options: type[TestbedOptions] = TestbedOptions
    #: Whether built images reach the hosts through a registry in each region, which the deployment feeds; else the
    #: hosts share this machine's disk.
    feeds: bool = False
    #: Whether Kolla's runs are accelerated where the experiment file does not say. True for hosts on which accelerated
    #: runs were seen to write the same files as other runs.
    accelerates: bool = False

    def can(self, method: str) -> bool:
        """Whether this testbed defines ``method`` itself."""
        return getattr(type(self), method) is not getattr(Testbed, method)

    @property
    def folder(self) -> Path:
        """The folder of its code. A saved cloud can be used with the same code only."""
        return Path(inspect.getfile(type(self))).parent

    # -- before anything is changed ------------------------------------------------------------------------------

    @abstractmethod
    def regions(self, experiment: Experiment) -> list[Region]:
        """The regions with their hosts, the AR first. Works before there are hosts, for a plan.

        Raises InputError for hosts that the file does not give.
        """

    def need(self) -> None:
        """Raise LackError, before anything is built, when this machine cannot be (or reach) the testbed."""

    def foresee(self, experiment: Experiment, results: Path) -> None:
        """Raise MrkollaError for what cannot suffice (hosts, time). ``results`` holds earlier runs, to judge it by."""

    def doctor(self, section: TestbedOptions) -> list[Seen]:
        """What every host of ``section`` has and lacks; changes nothing.

        Raises InputError where that cannot be told.
        """
        raise InputError(f"hosts of the testbed {self.name} are looked at when they are reserved")

    @abstractmethod
    def kolla_globals(self, experiment: Experiment, region: Region) -> dict[str, Any]:
        """Variables of globals.yml that hosts like these need in the run for ``region``."""

    def kolla_config(self, region: Region) -> dict[str, str]:
        """Files of ``node_custom_config`` that hosts like these need: path -> content."""
        return {}

    @abstractmethod
    def links(self, experiment: Experiment) -> Sequence[LocalLink] | Sequence[PlainLink]:
        """The link between each OSR and the AR: at a router on this machine, or between hosts that each do their part.

        Raises InputError or LackError where the hosts are not known yet.
        """

    # -- hosts, from first to last -------------------------------------------------------------------------------

    def prepare(self, log: Path, say: Say) -> None:
        """Build what every host starts from, unless it is in the cache."""

    @abstractmethod
    def reserve(self, experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
        """Have the hosts of ``experiment`` up, with Docker, reachable by SSH as root; those that are there are kept.

        ``images``: images that were built, for hosts on this machine's disk; others leave them (:attr:`feeds`). None:
        they come from a registry. Raises InputError (a cloud of that name has other hosts), LackError and DeployError.
        """

    @abstractmethod
    def seen(self, cloud: str) -> dict[str, bool] | None:
        """Each host of the cloud of that name, and whether it is up; None where this testbed has none for it.

        Raises LackError when it cannot be asked.
        """

    def running(self, experiment: Experiment) -> dict[str, bool]:
        """Each host of ``experiment``, and whether it is up; empty before they are reserved."""
        return self.seen(experiment.name) or {}

    @abstractmethod
    def destroy(self, cloud: str) -> None:
        """Remove, or leave as they were, the hosts of the cloud of that name; nothing happens where there is none.

        May be repeated, also after a crash. Raises LackError for what is left.
        """

    def power_off(self, experiment: Experiment) -> list[str]:
        """Shut all hosts down, their disks stay; returns the names of those that had to be killed."""
        raise InputError(f"hosts of the testbed {self.name} cannot be shut down and kept")

    def power_on(self, experiment: Experiment, log: Path, say: Say) -> None:
        """Start all hosts again as they were left."""
        raise InputError(f"hosts of the testbed {self.name} cannot be started again")

    def deadline(self, experiment: Experiment) -> float | None:
        """When the hosts are taken away (seconds since 1970); None: they stay, or are not reserved yet."""
        return None

    # -- hosts that can stand still ------------------------------------------------------------------------------

    def paused(self, cloud: str) -> list[str]:
        """Names of the hosts of the cloud of that name that stand still."""
        return []

    def pause(self, experiment: Experiment) -> None:
        """Have all processes of all hosts stand still. Raises LackError where the machine cannot."""
        raise InputError(f"hosts of testbed {self.name} cannot be paused: local ones can")

    def resume(self, experiment: Experiment) -> None:
        """Let hosts that were paused go on, and wait until they answer."""
        raise InputError(f"hosts of testbed {self.name} cannot be paused: local ones can")

    # -- faults --------------------------------------------------------------------------------------------------

    def fault(self, experiment: Experiment, host: str, do: str) -> tuple[list[list[str]], list[list[str]]]:
        """The commands, on this machine, that ``kill`` or ``freeze`` a whole host, and those that take it back.

        The latter may be run twice, and at any time. Raises InputError where that cannot be had.
        """
        raise InputError(f"hosts of testbed {self.name} cannot be made to {do}: local ones can; services can anywhere")

    # -- hosts whose names and network are this machine's --------------------------------------------------------

    def refuse_other(self, cloud: str) -> None:
        """Raise LackError when a cloud of that name on this machine belongs to another cache (``MRKOLLA_CACHE``)."""

    def is_others(self, cloud: str) -> bool:
        """Whether :meth:`refuse_other` would: then nothing of that name is touched."""
        try:
            self.refuse_other(cloud)
        except LackError:
            return True
        return False

    def has_remains(self, cloud: str) -> bool:
        """Whether something of the cloud of that name is on this machine, though its folder may be gone."""
        return False

    def enter(self, cloud: str) -> dict[str, list[str]]:
        """The hosts of the cloud that are up -> what a command line in their network begins with.

        Only where this machine may change the hosts' network: by it TCP is set at the ends of the links.
        """
        return {}

    # -- synthetic regions ---------------------------------------------------------------------------------------

    def synthetic(self, experiment: Experiment, names: Sequence[str]) -> list[SyntheticPlace]:
        """Where the synthetic regions ``names`` of a cloud are, or would be; changes nothing.

        Raises InputError where there is no room for so many.
        """
        raise InputError(f"on the testbed '{self.name}' there are no synthetic regions: on the local one there are")

    def make_synthetic(self, experiment: Experiment, names: Sequence[str]) -> None:
        """Make the networks of the synthetic regions ``names``; those that are there are left as they are."""
        self.synthetic(experiment, names)

    def remove_synthetic(self, cloud: str) -> None:
        """Remove the networks of all synthetic regions of the cloud of that name; may be repeated."""

    # -- copies of a cloud's disks -------------------------------------------------------------------------------

    def refuse_save(self, experiment: Experiment) -> None:
        """Raise InputError where a copy of the cloud's folder is no copy of the cloud."""
        if not self.can("copy_disks"):
            raise InputError(f"a cloud of the testbed {self.name} cannot be saved: its disks are not mrkolla's to copy")

    def copy_disks(self, experiment: Experiment, target: Path) -> None:
        """Copy each host's disk to ``target``/hosts/NAME, of all hosts at one moment."""
        raise InputError(f"disks of hosts of the testbed {self.name} cannot be copied")

    def disks_need(self, experiment: Experiment, images: Path | None) -> list[Any]:
        """Digests (JSON values) of what lies below the disks. A copy of the disks needs the same below it."""
        return []

    # -- regions that come and go --------------------------------------------------------------------------------

    def need_room(self, experiment: Experiment, region: str) -> None:
        """Raise LackError or InputError when the hosts of ``region`` cannot be had beside those that run.

        :meth:`reserve` with one region more then adds them.
        """

    def release(self, experiment: Experiment, region: str) -> None:
        """End the hosts of ``region`` and remove them; the others go on undisturbed. May be repeated."""
        raise LackError(f"on the testbed '{self.name}' no region can join or leave")


class ModuleTestbed(Testbed):
    """A testbed whose methods are the functions of a module, which is loaded when the first of them is called.

    So the model of its section can be loaded without the packages that its hosts need. :attr:`feeds` and
    :attr:`accelerates` are ``FEEDS`` and ``ACCELERATES`` of the module.
    """

    if TYPE_CHECKING:  # those that are abstract; all are set below

        def regions(self, experiment: Experiment) -> list[Region]: ...
        def kolla_globals(self, experiment: Experiment, region: Region) -> dict[str, Any]: ...
        def links(self, experiment: Experiment) -> Sequence[LocalLink] | Sequence[PlainLink]: ...
        def reserve(self, experiment: Experiment, images: Path | None, log: Path, say: Say) -> None: ...
        def seen(self, cloud: str) -> dict[str, bool] | None: ...
        def destroy(self, cloud: str) -> None: ...

    def __init__(self, name: str, options: type[TestbedOptions], module: str) -> None:
        self.name, self.options, self._module = name, options, module

    @property
    def module(self) -> ModuleType:
        """The module, loaded."""
        return importlib.import_module(self._module)

    def can(self, method: str) -> bool:
        """See :meth:`Testbed.can`."""
        return hasattr(self.module, method)

    @property
    def folder(self) -> Path:
        """See :attr:`Testbed.folder`."""
        return Path(self.module.__file__ or "").parent

    @property
    def feeds(self) -> bool:  # type: ignore[override]
        """See :attr:`Testbed.feeds`."""
        return getattr(self.module, "FEEDS", False)

    @property
    def accelerates(self) -> bool:  # type: ignore[override]
        """See :attr:`Testbed.accelerates`."""
        return getattr(self.module, "ACCELERATES", False)


def _function_of_module(method: str) -> Callable[..., Any]:
    default = getattr(Testbed, method)

    @functools.wraps(default, updated=())  # without the mark of an abstract method
    def call(self: ModuleTestbed, *args: Any, **options: Any) -> Any:
        function = getattr(self.module, method, None)
        return function(*args, **options) if function else default(self, *args, **options)

    return call


#: The methods that a testbed has, or may have, of its own.
METHODS = tuple(
    name for name, value in vars(Testbed).items() if inspect.isfunction(value) and name not in ("can", "is_others")
)
for _name in METHODS:
    setattr(ModuleTestbed, _name, _function_of_module(_name))
abc.update_abstractmethods(ModuleTestbed)
