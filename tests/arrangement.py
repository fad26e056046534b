"""Which tests run beside which, and in what order, where several processes run them (``pytest -n``, pytest-xdist).

One process has the real cloud, from its images to its end. One has all that starts hosts, links or services of its own,
which share addresses and names; that waits more than it works. Who is done first has the unit tests. Without ``-n`` the
order is the same, one after the other.

What holds round trips to milliseconds comes last, when the cloud is gone, and has the cores for itself
(:class:`Cores`): beside a process that works packets are late, and such tests would tell of the machine.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

CLOUD, HOSTS, LINKS = "cloud", "hosts", "links"

#: The order of a cloud's life, and then those that have clouds of their own (there is memory for one at a time). Last
#: the emulated machines: on busy cores they do not answer in time.
_CLOUD = ("test_two_regions", "test_measuring", "test_blackout", "test_region_join", "test_pairs", "test_destroy")
_CLOUD += ("test_shapes", "test_static_two_regions", "test_oar_two_regions", "test_vagrant")
#: What needs the images comes when they are there; what measures round trips when the cores are least busy.
_HOSTS = ("test_newton", "test_probe_keystone", "test_region_keystone", "test_releases", "test_wheel")
_HOSTS += ("test_edits_fake",)
_HOSTS += ("test_report_browser",)
_HOSTS += (
    "test_keystone_places",
    "test_keystone_galera",
    "test_backup",
    "test_middleware_keystone",
    "test_middleware_keepalive",
    "test_rally_keystone",
    "test_browser",
    "test_claims",
    "test_tap",
    "test_local",
)
_HOSTS += ("test_local_pause", "test_faults_hosts", "test_images", "test_toolbox", "test_accelerated")
_HOSTS += (
    "test_registry",
    "test_oar",
    "test_static_hosts",
    "test_plugins",
)
#: These have the cores for themselves.
_LINKS = ("test_shaker", "test_tcp", "test_links", "test_link_sabotage", "test_faults", "test_plain_links")
_LINKS += ("test_measured_wan", "test_measured_wan_static", "test_region_hosts", "test_synthetic")
#: Unit tests that compare with the installed release: those before install it.
_INSTALLED = ("test_edits", "test_images", "test_names")
#: The longest first, so that no process has one of them alone in the end.
_UNIT = ("test_results_wide", "test_results_report", "test_results_bundle", "test_results_attribution")
_UNIT += ("test_results_compare", "test_results_stats", "test_cli")

Place = tuple[int, str, int, str]


def place(file: PurePath, whole: bool) -> Place:
    """What to sort a file's tests by: number and name of the group, the file's place in it, the file.

    ``whole``: other tests than the unit tests run, too.
    """
    name = file.stem
    if name in _CLOUD:
        return 0, CLOUD, _CLOUD.index(name), name
    if alone(file):
        return 2 + len(_UNIT) + 1, LINKS, _LINKS.index(name), name
    if not _is_unit(file):
        return 1, HOSTS, _HOSTS.index(name) if name in _HOSTS else 0, name
    if whole and name in _INSTALLED:
        return 1, HOSTS, len(_HOSTS), name
    return 2 + (_UNIT.index(name) if name in _UNIT else len(_UNIT)), name, 0, name


def alone(file: PurePath) -> bool:
    """Whether a file's tests have the cores for themselves."""
    return file.stem in _LINKS and not _is_unit(file)


def nice(file: PurePath) -> int:
    """The niceness of a file's tests: the cloud's take longest, so what runs beside them leaves them the cores."""
    return 0 if alone(file) or (file.stem in _CLOUD and not _is_unit(file)) else 5


class Cores:
    """Who has the cores, by locks on files in ``folder``, which all processes of a run share."""

    def __init__(self, folder: Path) -> None:
        self._cores, self._gate = folder / "cores.lock", folder / "gate.lock"

    @contextmanager
    def had(self, alone: bool) -> Iterator[None]:
        """Wait until the cores are free of who has them ``alone`` (or of all, to have them so), and have them."""
        with self._cores.open("a") as cores:
            with self._gate.open("a") as gate:
                # Who waits to be alone holds the gate, so that no test begins before.
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(cores, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield


def _is_unit(file: PurePath) -> bool:
    return file.parent.name == "unit"


def arrange(items: list[pytest.Item]) -> None:
    """Sort ``items``; a file's tests stay in their order."""
    whole = not all(_is_unit(item.path) for item in items)
    items.sort(key=lambda item: place(item.path, whole))


def groups(names: Iterable[str]) -> dict[str, str]:
    """Test -> its group, of all tests of a run."""
    files = {name: PurePath(name.partition("::")[0]) for name in names}
    whole = not all(map(_is_unit, files.values()))
    return {name: place(file, whole)[1] for name, file in files.items()}
