"""Task files in Rally's own format: read here, run on hosts as they are.

What a file leaves open (Jinja2 variables) is given by Rally's own task arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta

from mrkolla.base.errors import InputError
from mrkolla.config import Experiment, from_dict

#: What the first word of a scenario's name needs in the region: Keystone's type of the service. Of any other, Rally
#: itself knows what it needs.
_SERVICES = {
    "GlanceImages": "image",
    "Nova": "compute",
    "VMTasks": "compute",
    "Neutron": "network",
    "Quotas.nova": "compute",
    "Quotas.neutron": "network",
    "Quotas.cinder": "volumev3",
    "Cinder": "volumev3",
    "HeatStacks": "orchestration",
    "Octavia": "load-balancer",
    "SwiftObjects": "object-store",
    "Designate": "dns",
    "Barbican": "key-manager",
    "Magnum": "container-infra",
    "Ironic": "baremetal",
    "ManilaShares": "sharev2",
    "Trove": "database",
    "Gnocchi": "metric",
    "Authenticate.validate_glance": "image",
    "Authenticate.validate_nova": "compute",
    "Authenticate.validate_neutron": "network",
    "Authenticate.validate_cinder": "volumev3",
    "Authenticate.validate_heat": "orchestration",
    "Authenticate.validate_octavia": "load-balancer",
    "Authenticate.validate_ceilometer": "metering",
}
#: Scenarios whose operations are the AR's Keystone's alone.
_KEYSTONE = ("Keystone", "Authenticate.keystone")


def service_of(scenario: str) -> str | None:
    """The service type that ``scenario`` calls in its region; None where that is not known or it is Keystone."""
    prefixes = [prefix for prefix in _SERVICES if scenario.startswith(prefix)]
    return _SERVICES[max(prefixes, key=len)] if prefixes else None


def is_keystone(scenario: str) -> bool:
    """Whether ``scenario`` calls the admin region's Keystone and no service of an OSR."""
    return scenario.startswith(_KEYSTONE)


@dataclass(frozen=True)
class Job:
    """One task to run: its name in messages and file names, its text, and the arguments that render it."""

    name: str
    source: str
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def wire(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """As the agent on a host gets it; ``defaults`` are for what ``args`` do not name."""
        return {"name": self.name, "text": self.text, "args": {**defaults, **self.args}}


def variables(text: str) -> set[str]:
    """The names that a task leaves open. Raises ValueError with the line for what is no Jinja2."""
    try:
        # Only looked at, never rendered here: Rally renders it, and its functions need not be known.
        return meta.find_undeclared_variables(Environment().parse(text))
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None


def jobs(files: Sequence[str | Path], args: Mapping[str, Any], concurrency: Sequence[int]) -> list[Job]:
    """A job a file, or one a file and concurrency for those files that leave ``concurrency`` open.

    Raises InputError for a file that cannot be read or is no template.
    """
    all_jobs: list[Job] = []
    for path in (Path(file) for file in files):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InputError(f"Rally's task {path} cannot be read: {why}") from None
        try:
            names = variables(text)
        except ValueError as error:
            raise InputError(f"Rally's task {path}: {error}") from None
        name = _own_name(path.stem, {job.name for job in all_jobs})
        levels = [level for level in concurrency if "concurrency" in names]
        all_jobs += [Job(f"{name}-c{level}", str(path), text, {**args, "concurrency": level}) for level in levels]
        if not levels:
            all_jobs.append(Job(name, str(path), text, dict(args)))
    return all_jobs


def _own_name(stem: str, taken: set[str]) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem) or "task"
    number, candidate = 2, name
    while any(taken_name == candidate or taken_name.startswith(f"{candidate}-c") for taken_name in taken):
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def open_names(made: Iterable[Job]) -> set[str]:
    """The names that some job leaves open and its arguments do not give."""
    return {name for job in made for name in variables(job.text) - set(job.args)}


def rally_alone(
    experiment: Experiment, tasks: Sequence[str], regions: Sequence[str] | None, now: Experiment | None = None
) -> Experiment:
    """``experiment`` with ``tasks`` (paths) run by Rally from ``regions`` (None: all OSRs) in place of its tools.

    ``now`` has the regions that there are, where they are others than those of ``experiment``. Raises InputError for a
    file that is missing or a region that is no OSR.
    """
    if regions is not None:
        need_regions(regions, [region.name for region in (now or experiment).regions])
    entry = {"tool": "rally", "tasks": list(tasks), "regions": list(regions) if regions is not None else None}
    return from_dict({**experiment.model_dump(mode="json"), "bench": [entry]}, "the command line")


def need_regions(regions: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError unless all ``regions`` are OSRs, each named once."""
    for name in regions:
        if name not in known:
            raise InputError(f"Rally's regions: there is no OSR '{name}'; there are {', '.join(known)}")
        if regions.count(name) > 1:
            raise InputError(f"Rally's regions: '{name}' is listed twice; remove one")
