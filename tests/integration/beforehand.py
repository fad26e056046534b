"""What tests build first, built beside the tests that come before: ``python -m tests.integration.beforehand LOG FILE…``

Builds go to mrkolla's cache, whose locks keep a test that comes too early waiting. One that fails is told in the log
alone: the test that needs it builds it again, and fails with the reason.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mrkolla.bench.toolenv import ToolEnvironment
from mrkolla.config import releases
from mrkolla.kolla import env
from tests.integration import environments, newton_lab, oar_cluster, plain

Build = Callable[[Path], object]


def _kolla(release: str, log: Path) -> object:
    return env.ensure(releases.release(release), log)


def _tool(name: str, log: Path) -> object:
    return ToolEnvironment.from_lock(name).ensure(log)


def _keystone(log: Path) -> object:
    return environments.keystone()


def _toolbox(log: Path) -> object:
    return newton_lab.toolbox()


def _oar(log: Path) -> object:
    return oar_cluster.environment(oar_cluster.root(log), log)


_NEWTON, _NEWEST = partial(_kolla, "newton"), partial(_kolla, "2026.1")
_RALLY, _SHAKER = partial(_tool, "rally"), partial(_tool, "shaker")
_PLAIN = tuple(partial(plain.rootfs, suite) for suite in plain.DEBIAN)

#: File of tests -> what it builds. The cloud's own parts (images, the default release) are built by its first command.
BUILDS: dict[str, tuple[Build, ...]] = {
    "test_newton": (_NEWTON, _toolbox, _keystone),
    "test_probe_keystone": (_keystone,),
    "test_region_keystone": (_keystone,),
    "test_releases": (_NEWEST,),
    "test_edits_fake": (_NEWEST,),
    "test_middleware_keystone": (_keystone,),
    "test_backup": (_keystone,),
    "test_rally_keystone": (_keystone, _RALLY),
    "test_oar": (_oar,),
    "test_shaker": (_SHAKER,),
    "test_plain_links": _PLAIN,
}


def main(log: Path, files: list[str]) -> None:
    """Build what ``files`` need, in their order."""
    wanted = dict.fromkeys(build for file in files for build in BUILDS.get(file, ()))
    for build in wanted:
        try:
            build(log)
        except Exception:  # noqa: BLE001 (see above)
            with log.open("a") as out:
                traceback.print_exc(file=out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
