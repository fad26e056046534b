"""What every benchmark tool gets and gives."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from mrkolla.base import remote
from mrkolla.base.errors import BenchError
from mrkolla.base.plugins import Plugin
from mrkolla.config.bench import ToolOptions

SCHEMA_VERSION = 1

#: Seconds for an answer of an OpenStack service to the tools' own clients.
API_TIMEOUT_S = 60
# Kolla's toolbox is on every control host and carries openstacksdk and keystoneauth1.
TOOLBOX_PYTHON = ("docker", "exec", "-i", "kolla_toolbox", "/opt/ansible/bin/python")


class RegionLike(Protocol):
    """A region as placement gives it: a name and its control hosts, the first of which load starts from."""

    @property
    def name(self) -> str: ...

    @property
    def control(self) -> Any: ...


@dataclass(frozen=True)
class BenchPoint:
    """One combination of sweep values. Round trips are in ms, by the name of the OSR whose link has them."""

    id: str
    rtt_asked_ms: Mapping[str, float] = field(default_factory=dict)
    rtt_measured_ms: Mapping[str, float] = field(default_factory=dict)
    repetition: int = 1


@dataclass
class BenchContext:
    """The cloud as a tool sees it.

    ``auth`` has auth_url (without or with /v3), username, password, project_name, user_domain_name and
    project_domain_name of a normal user that the caller made. ``endpoints`` is region -> service type (``image``,
    ``network``, whatever there is) -> URL. ``launcher`` starts a command on a host and returns its process with text
    pipes; ``python`` is the command there that runs a Python which has keystoneauth1. ``progress`` is called
    with (region, done, total), ``warn`` with a line about a point that its samples do not tell, and ``begun`` once load
    that does not wait for answers (an open loop) runs in all regions.
    ``access_log`` is the running :class:`mrkolla.bench.accesslog.AccessLog` of all regions, for tools that count.
    """

    run: str
    admin_region: str
    regions: Sequence[RegionLike]
    auth: Mapping[str, str]
    endpoints: Mapping[str, Mapping[str, str]]
    seed: int = 1
    launcher: Callable[[remote.Host, list[str]], subprocess.Popen[str]] = remote.popen
    python: Sequence[str] = TOOLBOX_PYTHON
    progress: Callable[[str, int, int], None] = lambda region, done, total: None
    warn: Callable[[str], None] = lambda text: None
    begun: Callable[[], None] = lambda: None
    schema_version: int = SCHEMA_VERSION
    access_log: Any = None
    #: The admin region, for tools that reach its hosts; a folder for what a tool keeps as it comes (None: at the end).
    admin: RegionLike | None = None
    tools_folder: Path | None = None
    #: What the administrator logs in with (as ``auth``, without auth_url), for tools that make users; None: not given.
    admin_auth: Mapping[str, str] | None = None
    #: The certificate (PEM, on this machine) by which the https of ``auth``'s auth_url is trusted; None: not needed.
    ca: Path | None = None
    #: Region -> the URL of the Keystone that it has of its own.
    identity: Mapping[str, str] = field(default_factory=dict)

    def keystone(self, region: str) -> str:
        """The URL of the Keystone that ``region`` asks: its own, or that of ``auth``."""
        return self.identity.get(region, self.auth["auth_url"])

    def trust(self) -> dict[str, str]:
        """What an agent on a host is told of ``ca``: its text, as the parameter ``ca``, or nothing."""
        return {"ca": self.ca.read_text()} if self.ca else {}

    def host(self, region: RegionLike) -> remote.Host:
        """The host that load of ``region`` starts from: the first control host."""
        control = region.control
        if isinstance(control, (list, tuple)):
            if not control:
                raise BenchError(f"{region.name} has no control host to start load from")
            control = control[0]
        host: remote.Host = getattr(control, "host", control)
        return host

    def endpoint(self, region: str, service: str) -> str:
        """The URL of ``service`` in ``region``, without a slash at its end; BenchError when there is none."""
        try:
            return self.endpoints[region][service].rstrip("/")
        except KeyError:
            raise BenchError(f"{region}: no endpoint of type '{service}' is known to load") from None

    def python_command(self, *arguments: str) -> list[str]:
        """The command that runs Python with ``arguments`` on a host."""
        prefix = list(self.python)
        if prefix and prefix[-1] == "-":
            prefix.pop()
        return [*prefix, *arguments]

    def need_keystoneauth(self, region: RegionLike) -> None:
        """Raise BenchError unless that Python, on the host of ``region``, has keystoneauth1."""
        host = self.host(region)
        process = self.launcher(host, self.python_command("-c", "import keystoneauth1.identity.v3"))
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise BenchError(f"{region.name}: Python on {host.name} gave no answer in 60 s") from None
        if process.returncode != 0:
            why = (errors.strip() or f"status {process.returncode}").splitlines()[-1]
            raise BenchError(f"{region.name}: no Python with keystoneauth1 on {host.name}: {why}")


def sample(
    ctx: BenchContext, point: BenchPoint, region: str, *, tool: str, scenario: str, **columns: Any
) -> dict[str, Any]:
    """A row of samples.parquet for an operation that ``region`` started; results/README.md says what its columns are.

    Of ``columns``, ``iteration`` (from 0), ``start`` (ns since 1970, UTC) and ``duration_s`` must be given. The others
    have defaults: an operation that asked ``region`` itself, ran alone and did not fail, and whose requests to Keystone
    were not counted.
    """
    row = {
        "run": ctx.run,
        "point": point.id,
        "origin_region": region,
        "target_region": region,
        "tool": tool,
        "scenario": scenario,
        "action": None,
        "repetition": point.repetition,
        "warmup": False,
        "concurrency": 1,
        "token_cache": None,
        "error": None,
        "rtt_asked_ms": point.rtt_asked_ms.get(region),
        "rtt_measured_ms": point.rtt_measured_ms.get(region),
        "keystone_requests": None,
        "keystone_connections": None,
        "schema_version": ctx.schema_version,
    }
    return row | columns


class Tool(Plugin, ABC):
    """A benchmark tool: the class is the plug-in, and one object of it is one entry of ``bench``.

    It is called with the entry's keys, all but ``tool``, as :attr:`options` has validated them.
    """

    plugin_kind = "tool"
    #: The model of an entry of ``bench``.
    options: type[ToolOptions] = ToolOptions
    #: False where its operations ask no Keystone: nothing is counted for them then.
    asks_keystone: ClassVar[bool] = True
    #: True where it fills the links on purpose: what is late or lost on them meanwhile is its own doing.
    fills_links: ClassVar[bool] = False

    @classmethod
    def prepare_all(cls, ctx: BenchContext, tools: Sequence[Self]) -> None:
        """:meth:`prepare` of several at once, for tools that can share the work."""
        for tool in tools:
            tool.prepare(ctx)

    def prepare(self, ctx: BenchContext) -> None:
        """Once before the first point: make what is needed.

        Raises InputError for what cannot be run here, LackError or BenchError when a host lacks something.
        """

    @abstractmethod
    def run(self, ctx: BenchContext, point: BenchPoint, regions: Sequence[RegionLike]) -> Iterator[dict[str, Any]]:
        """Load ``regions`` at the same time and yield samples, rows of samples.parquet, as they come.

        Raises BenchError when the load could not be run; an operation that failed is a sample with an error. When the
        links break meanwhile, the standard input of all that was started by ``ctx.launcher`` ends: it has to end, too.
        :func:`sample` makes a row.
        """

    def versions(self) -> dict[str, str]:
        """Versions of what makes the load, by name, for the provenance of a run."""
        return {}

    def collect(self, ctx: BenchContext, folder: Path) -> list[Path]:
        """Write the tool's own output of all points so far into ``folder`` and return the files written."""
        return []
