"""The Python environment of a benchmark tool: made here once, copied to hosts that have no internet.

An environment is a lock file (``locks/NAME.txt``: every package, pinned). :meth:`ToolEnvironment.ensure` makes an
archive of it in mrkolla's cache with this machine's pip, for the Python of the hosts (which may be another than the
one that runs mrkolla); :meth:`ToolEnvironment.install` puts it on a host as ``/opt/mrkolla/NAME-DIGEST``. Hosts need
a plain ``python3``: neither pip nor venv nor a compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement

from mrkolla.base import cache, remote, shell
from mrkolla.base.errors import BenchError, InputError, LackError
from mrkolla.bench import toolenv_host

#: Where environments are on hosts.
HOST_FOLDER = "/opt/mrkolla"
#: What locks are resolved for: the hosts' Python and newer.
OLDEST = (3, 11)
LOCKS = Path(__file__).parent / "locks"
# Changes whenever an archive made from the same lock would differ.
_FORMAT = 1
# What builds the few packages that have no wheel: pinned, and not fetched anew for each (no build isolation).
_BUILDERS = ("pip==25.3", "setuptools==80.9.0", "wheel==0.45.1", "pbr==7.1.3")
_GLIBC = (5, 12, 17, 24, 26, 27, 28, 31, 34, 35)
# Folders that packages put beside their modules, and that belong at the environment's top.
_DATA = ("etc", "share", "man", "include")


@dataclass(frozen=True)
class Target:
    """The Python of a host: version ("3.13") and machine ("x86_64", "aarch64")."""

    python: str = "3.13"
    machine: str = "x86_64"

    def pip_options(self) -> list[str]:
        """pip's options that choose wheels for this target and not for the Python that runs pip."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in _GLIBC]
        platforms += [f"{name}_{self.machine}" for name in ("manylinux1", "manylinux2010", "manylinux2014", "linux")]
        options = ["--python-version", self.python, "--implementation", "cp"]
        options += [word for name in platforms for word in ("--platform", name)]
        abis = (f"cp{self.python.replace('.', '')}", "abi3", "none")
        return options + [word for name in abis for word in ("--abi", name)]

    def applies(self, requirement: Requirement) -> bool:
        """Whether a requirement's marker holds on this target."""
        if requirement.marker is None:
            return True
        environment: dict[str, Any] = {**default_environment(), "python_version": self.python}
        environment["python_full_version"] = f"{self.python}.0"
        environment |= {"platform_machine": self.machine, "sys_platform": "linux", "platform_system": "Linux"}
        return requirement.marker.evaluate(environment)


@dataclass(frozen=True)
class ToolEnvironment:
    """A tool's environment: ``requirements`` are all of its packages, transitively, each pinned (``NAME==VERSION``).

    A requirement may have a marker (``legacy-cgi==2.6.4; python_version >= "3.13"``). Raises InputError for one that is
    not pinned.
    """

    name: str
    requirements: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise InputError(f"tool environment '{self.name}': a name has small letters, digits and '_'")
        for text in self.requirements:
            try:
                pins = list(Requirement(text).specifier)
            except InvalidRequirement as error:
                raise InputError(f"tool environment {self.name}: '{text}' is no requirement: {error}") from error
            if [pin.operator for pin in pins] != ["=="] or "*" in pins[0].version:
                raise InputError(f"tool environment {self.name}: '{text}' is not pinned (NAME==VERSION)")

    @classmethod
    def from_lock(cls, name: str, folder: Path = LOCKS) -> ToolEnvironment:
        """The environment that ``FOLDER/NAME.txt`` lists: a requirement a line, ``#`` begins a comment."""
        lines = (line.partition("#")[0].strip() for line in (folder / f"{name}.txt").read_text().splitlines())
        return cls(name, tuple(line for line in lines if line))

    def packages(self, target: Target) -> list[str]:
        """``NAME==VERSION`` of all packages for ``target``, by name."""
        requirements = (Requirement(text) for text in self.requirements)
        return sorted(
            f"{requirement.name}{requirement.specifier}" for requirement in requirements if target.applies(requirement)
        )

    def version(self, package: str) -> str:
        """The pinned version of ``package``; KeyError when the environment has none."""
        for text in self.requirements:
            if (requirement := Requirement(text)).name.lower() == package.lower():
                return next(iter(requirement.specifier)).version
        raise KeyError(package)

    def mark(self, target: Target) -> str:
        """Digest of all that an archive for ``target`` is made from."""
        return cache.digest(_FORMAT, self.packages(target), _BUILDERS, [target.python, target.machine])

    def path(self, target: Target) -> str:
        """Where the environment for ``target`` is on a host."""
        return f"{HOST_FOLDER}/{self.name}-{self.mark(target)}"

    # -- here ----------------------------------------------------------------------------------------------------

    def ensure(
        self, log: Path, detail: Callable[[str], None] = lambda text: None, target: Target | None = None
    ) -> Path:
        """The archive (``.tar.gz``) for ``target`` (by default the local testbed's hosts), built on the first call.

        pip's own settings on this machine say where packages come from; the archive keeps nothing of them. Raises
        LackError (no disk, a package that cannot be had for ``target``) or DeployError (no network), with the last line
        that pip printed.
        """
        target = target or Target()

        def build(folder: Path) -> None:
            _Build(self, target, folder, log, detail).run()

        name = f"{self.name}-py{target.python}-{target.machine}"
        return cache.entry("tools", name, self.mark(target), build, waiting=detail) / "environment.tar.gz"

    # -- on hosts ------------------------------------------------------------------------------------------------

    def install(
        self, host: remote.Host, log: Path | None = None, detail: Callable[[str], None] = lambda text: None
    ) -> str:
        """Put the environment on ``host`` unless it is there, and return its path (``PATH/bin/python`` runs in it).

        The archive for the host's Python is built first if need be. The path appears whole or not at all. Raises
        LackError when the host has no fitting Python, cannot be reached or its disk is full.
        """
        target = host_target(host)
        path = self.path(target)
        if remote.run(host, ["test", "-x", f"{path}/bin/python"], check=False).returncode == 0:
            return path
        archive = self.ensure(log or cache.root() / "logs" / f"{self.name}-environment.log", detail, target)
        detail(f"{self.name} to {host.name} ({archive.stat().st_size / 1e6:.0f} MB)")
        code = Path(toolenv_host.__file__).read_text()
        line = host.ssh("python3", "-c", code, path, _sha256(archive))
        with archive.open("rb") as data:
            try:
                done = subprocess.run(line, stdin=data, capture_output=True, timeout=900, check=False)
            except subprocess.TimeoutExpired as error:
                raise LackError(f"{host.name}: {self.name} was not installed within 900 s") from error
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else f"status {done.returncode}"
            raise LackError(f"{host.name}: {self.name} could not be installed in {path}: {why}")
        return path

    def remove(self, host: remote.Host) -> None:
        """Remove every version of this environment from ``host`` (hosts that outlive the experiment)."""
        remote.run(host, ["sh", "-c", 'rm -rf -- "$1"-*', "sh", f"{HOST_FOLDER}/{self.name}"])


def host_target(host: remote.Host) -> Target:
    """The Python that ``host`` has; LackError when it has none or one that is too old."""
    code = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
    python, machine = remote.run(host, ["python3", "-c", code]).stdout.split()
    if tuple(int(part) for part in python.split(".")) < OLDEST:
        oldest = ".".join(str(part) for part in OLDEST)
        raise LackError(f"{host.name}: its Python is {python}; benchmark tools need {oldest} or later there")
    return Target(python, machine)


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


class _Build:
    """One build of an archive, in a folder of the cache."""

    def __init__(
        self, env: ToolEnvironment, target: Target, folder: Path, log: Path, detail: Callable[[str], None]
    ) -> None:
        self.env, self.target, self.folder, self.log, self.detail = env, target, folder, log, detail
        self.wheels, self.tree = folder / "wheels", folder / "tree"
        environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        # Without a compiler, what would be built for this machine's Python is built as plain Python, or not at all.
        environ |= {"CC": "/bin/false", "CXX": "/bin/false", "PYTHONNOUSERSITE": "1"}
        self.environ = {**environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(self) -> None:
        cache.need_disk(2, f"the environment of {self.env.name}")
        python = self.folder / "pip" / "bin" / "python"
        self._must([sys.executable, "-m", "venv", str(self.folder / "pip")], "making a virtual environment")
        self._must([str(python), "-m", "pip", "install", *_BUILDERS], "pip install")
        lock = self.folder / "packages.txt"
        lock.write_text("".join(f"{line}\n" for line in self.env.packages(self.target)))
        pip = [str(python), "-m", "pip"]
        fit = ["--no-deps", *self.target.pip_options()]
        self._must(
            [*pip, "download", *fit, "--no-build-isolation", "--dest", str(self.wheels), "--requirement", str(lock)],
            f"pip download for {self.env.name}",
        )
        self._build_sources(pip)
        self.tree.mkdir()
        install = [*pip, "install", *fit, "--only-binary=:all:", "--no-index", "--find-links", str(self.wheels)]
        install += ["--no-compile", "--target", str(self.tree / "site"), "--requirement", str(lock)]
        self._must(install, f"pip install for {self.env.name}")
        self._arrange()
        self.detail("archive")
        with tarfile.open(self.folder / "environment.tar.gz", "w:gz", compresslevel=6) as tar:
            for path in sorted(self.tree.iterdir()):
                tar.add(path, path.name, filter=_plain)
        for folder in (self.tree, self.wheels, self.folder / "pip"):
            shutil.rmtree(folder)

    def _build_sources(self, pip: list[str]) -> None:
        """Packages without a wheel become one that fits any Python; what cannot is refused by name."""
        for source in sorted(path for path in self.wheels.iterdir() if path.suffix != ".whl"):
            before = set(self.wheels.glob("*.whl"))
            argv = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(self.wheels), str(source)]
            self._must(argv, f"building {source.name}")
            wheels = [path.name for path in set(self.wheels.glob("*.whl")) - before]
            if not all(name.endswith("-none-any.whl") for name in wheels):
                fit = f"Python {self.target.python} on {self.target.machine}"
                raise LackError(f"{self.env.name}: {source.name} has no wheel for {fit}, and is not plain Python")
            source.unlink()

    def _arrange(self) -> None:
        """The layout of an environment: ``bin`` and data folders at the top, modules in ``site``."""
        site, scripts = self.tree / "site", self.tree / "bin"
        scripts.mkdir()
        for script in sorted((site / "bin").iterdir()) if (site / "bin").is_dir() else ():
            text = with_interpreter(script.read_bytes(), f"{self.env.path(self.target)}/bin/python")
            (scripts / script.name).write_bytes(text)
            (scripts / script.name).chmod(0o755)
        shutil.rmtree(site / "bin", ignore_errors=True)
        for name in _DATA:
            if (site / name).is_dir() and not (site / name / "__init__.py").exists():
                (site / name).rename(self.tree / name)

    def _must(self, argv: list[str], what: str) -> None:
        def line(text: str) -> None:
            if text.startswith(("Collecting", "Installing", "Building")):
                self.detail(text.split(" (from ", maxsplit=1)[0][:80])

        hint = "is the network (PyPI) reachable?"
        pidfile = self.folder / "pip.pid"
        shell.must(argv, self.log, timeout=1200, what=what, line=line, env=self.environ, hint=hint, pidfile=pidfile)


def with_interpreter(script: bytes, python: str) -> bytes:
    """``script`` (the bytes of an executable file) with its Python interpreter replaced by ``python``.

    Both forms that pip writes are known: a ``#!`` line, and a shell line for paths too long for that. A script of
    another interpreter is left as it is. Raises BenchError when ``python`` itself is too long a path.
    """
    if len(python) > 120:
        raise BenchError(f"{python}: too long a path for the first line of a script")
    first, newline, rest = script.partition(b"\n")
    line = f"#!{python}\n".encode()
    if first == b"#!/bin/sh" and rest.startswith(b"'''exec' "):
        return line + rest.split(b"\n", 2)[2]
    if newline and first.startswith(b"#!") and b"python" in first:
        return line + rest
    return script


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Archive members belong to root on the host, whoever built them here, and are readable by all."""
    if member.name.endswith((".pyc", "/__pycache__")):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = (member.mode | 0o444 | (0o111 if member.isdir() or member.mode & 0o100 else 0)) & 0o755
    return member
