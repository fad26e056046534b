"""The sections of the experiment file as typed values; their attributes are the file's keys."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from mrkolla.base.plugins import WAN_DRIVERS
from mrkolla.config.base import MISSING, Bool, Float, Int, Model, OneOf, Text, bad, matching, problem, refuse

MAX_RTT_MS = 10_000
#: What links can do, Mbit/s: on a slower one an echo takes longer than the round trips that it is to measure; the queue
#: that a faster one needs is more than a driver can hold.
MIN_MBIT, MAX_MBIT = 0.1, 100_000
#: By how much (ms) a link's median may be off, where nothing else is asked for.
TOLERANCE_MS = 1.0
MAX_HOSTS = 1_000
MAX_DEPTH = 50


def _name(pattern: str, limit: int, rule: str) -> tuple[AfterValidator, WithJsonSchema]:
    """What holds a name to a rule; the JSON schema gets the same."""

    def check(name: str) -> str:
        if len(name) > limit:
            raise bad(f"'{name[:limit]}...' has {len(name)} characters; take {limit} or fewer")
        if not re.fullmatch(pattern, name):
            raise bad(f"'{name}' is not allowed: {rule}")
        return name

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "maxLength": limit})


#: How the names of synthetic regions begin; a number follows.
SYNTHETIC = "synthetic-"


def _no_synthetic(name: str) -> str:
    if re.fullmatch(rf"{SYNTHETIC}\d+", one_form(name)):
        raise bad(f"'{name}' is the name of a synthetic region; take another for a real one")
    return name


ExperimentName = Annotated[
    Text, *_name(r"[a-z0-9][a-z0-9_-]*", 40, "begin with a-z or 0-9, then a-z, 0-9, '_' and '-' (it names run folders)")
]
RegionName = Annotated[
    Text,
    *_name(r"[A-Za-z][A-Za-z0-9_-]*", 32, "begin with a letter, then letters, digits, '_' and '-' (it names hosts)"),
    AfterValidator(_no_synthetic),
]


def wrong_name(name: Any) -> str:
    """Why ``name``, which was not read with an experiment file, cannot be an experiment's; "" when it can."""
    try:
        TypeAdapter(ExperimentName).validate_python(name)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return ""


def _registry(text: str) -> str:
    match = re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]):(\d{1,5})", text)
    if not match or not 1 <= int(match[3]) <= 65535:
        raise bad(f"must be HOST:PORT, such as 127.0.0.1:5000, not '{text}'")
    return text


class Images(Model):
    """Where the container images come from."""

    source: Literal["build", "registry", "public"] = Field(
        "build", description="build (from packages, on this machine), registry (an own one) or public"
    )
    registry: Annotated[Text, AfterValidator(_registry)] | None = Field(
        None, description="HOST:PORT of the registry, with source registry only"
    )

    @model_validator(mode="after")
    def _registry_goes_with_source(self) -> Images:
        if self.source == "registry" and self.registry is None:
            refuse([problem("key is missing; source registry needs its HOST:PORT", ("registry",), None, MISSING)])
        if self.source != "registry" and self.registry is not None:
            text = f"is used with source registry only, not {self.source}; remove it or change source"
            refuse([problem(text, ("registry",), self.registry)])
        return self


_SECRET = re.compile(
    r"(^|[_.-])(pass|passwd|secret|token)$|(password|passphrase|secret_key|private_key|access_key|api_?key)$", re.I
)


def _is_value(value: Any) -> bool:
    """Whether ``value`` can be a password: a text that is not empty, a number, or a list with one of these."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(inner, (str, int, float)) and _is_value(inner) for inner in value)
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


def _plain_values(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[InitErrorDetails]:
    """Problems of a value that is written to globals.yml and experiment.yaml: JSON's types, and no secret."""
    if len(loc) > MAX_DEPTH:
        yield problem(f"is nested more than {MAX_DEPTH} deep", loc[:1])
    elif isinstance(value, dict):
        for key, inner in value.items():
            place = (*loc, key)
            if not isinstance(key, str):
                yield problem(f"key {key!r} must be text; put it in quotes", loc, value)
            elif _is_value(inner) and _SECRET.search(key):
                yield problem(
                    "looks like a secret, and this file is copied to run folders; "
                    "leave it out (mrkolla makes the passwords, in plan/passwords.yml)",
                    place,
                )
            else:
                yield from _plain_values(inner, place)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _plain_values(inner, (*loc, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield problem("must be a finite number", loc, value)
    elif value is not None and not isinstance(value, (str, int, float)):
        yield problem(f"must be text, a number, true, false, a list or a map, not {type(value).__name__}", loc)


def _of_ansible(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[InitErrorDetails]:
    """Problems of Ansible's own variables in ``value``, however deep: a role may hand a map on to a task's variables.

    They say where and as whom Ansible runs what: ``ansible_connection: local`` would send a host's commands here.
    """
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in inside if len(loc) <= MAX_DEPTH else ():
        if str(key).strip().lower().startswith("ansible_"):
            text = "is Ansible's own, and says how hosts are reached: that is the testbed's to say; remove it"
            yield problem(text, (*loc, key))
        else:
            yield from _of_ansible(inner, (*loc, key))


def _globals(value: dict[str, Any]) -> dict[str, Any]:
    refuse([*_of_ansible(value), *_plain_values(value)])
    return value


def _config_folder(text: str, info: ValidationInfo) -> str:
    context = info.context or {}
    try:
        path = Path(context.get("folder") or ".", text).resolve()
        if context.get("files", True) and not path.is_dir():
            what = "not a folder" if path.exists() else "missing"
            raise bad(f"{path} is {what}; give a folder, relative to this file")
    except (OSError, RuntimeError) as error:
        raise bad(f"'{text}' cannot be read: {error}") from None
    return str(path)


def _traffic_file(text: str, info: ValidationInfo) -> str:
    context = info.context or {}
    try:
        path = Path(context.get("folder") or ".", text).resolve()
        if context.get("files", True) and not path.is_file():
            raise bad(f"{path} is no file; 'mrkolla traffic record RUN -o {text}' makes one")
    except (OSError, RuntimeError) as error:
        raise bad(f"'{text}' cannot be read: {error}") from None
    return str(path)


class Kolla(Model):
    """What a person passes through to Kolla; it must not clash with a value that mrkolla derives."""

    globals: Annotated[dict[Text, Any], AfterValidator(_globals)] = Field(
        default_factory=dict, description="variables for globals.yml"
    )
    config: Annotated[Text, AfterValidator(_config_folder)] | None = Field(
        None, description="folder used as node_custom_config, relative to this file; absolute once read"
    )


class CloudKolla(Kolla):
    """What goes for the runs of all regions."""

    accelerate: Bool | None = Field(
        None,
        description="run Kolla's playbooks by Mitogen (same files, sooner); null: on local hosts, for releases where it"
        " was seen; false: as Ansible itself does",
    )


class KeystoneSettings(Model):
    """Settings of Keystone, and of the services that ask it, that a running cloud can be given; null is Kolla's own."""

    hash_rounds: Int | None = Field(None, ge=4, le=31, description="bcrypt rounds of the password hash, 4 to 31")
    keep_alive: Bool | None = Field(None, description="whether Keystone keeps HTTP connections open")
    workers: Int | None = Field(None, ge=1, le=1_000, description="Keystone's worker processes, on each control host")
    token_cache: Int | None = Field(
        None, ge=0, le=31_536_000, description="seconds that services cache a validated token; 0: not at all"
    )
    connect_timeout: Int | None = Field(
        None,
        ge=0,
        le=3_600,
        description="seconds that services wait for a connection to Keystone, and then for its answer; 0 or null:"
        " without end, as upstream",
    )
    retries: Int | None = Field(
        None,
        ge=0,
        le=100,
        description="how often services try to connect to Keystone again; null: as upstream, 3 times",
    )


class Keystone(KeystoneSettings):
    """Keystone: its settings, and what a cloud has from its beginning."""

    topology: Literal["central", "remote_db", "replica", "galera"] = Field(
        "central",
        description="where it is: in the AR alone; in each OSR too, on the AR's database; on a read-only copy of it;"
        " or on a member of its Galera cluster",
    )
    service_users: Literal["shared", "per_region"] = Field(
        "shared", description="whether the services of all OSRs log in as the same users, or as users of each region"
    )


class AdminRegion(Model):
    """The AR: Horizon and the one Keystone."""

    name: RegionName = Field("AR", description="region name")
    control: Int = Field(1, ge=1, le=MAX_HOSTS, description="control hosts; 3 or more: MariaDB is a Galera cluster")
    tls: Bool = Field(False, description="https for its public endpoints, at an address of their own")
    kolla: Kolla = Field(default_factory=Kolla, description="pass-through for this region's run")


class Region(Model):
    """An OSR."""

    name: RegionName = Field(description="region name")
    control: Int = Field(1, ge=1, le=MAX_HOSTS, description="control hosts")
    network: Int = Field(0, ge=0, le=MAX_HOSTS, description="network hosts; 0: the control hosts do it")
    compute: Int = Field(1, ge=1, le=MAX_HOSTS, description="compute hosts")
    compute_driver: Literal["qemu", "kvm", "fake"] = Field("qemu", description="what runs the servers")
    fake_computes: Int | None = Field(
        None, ge=1, le=100_000, description="nova-compute services on the compute hosts, with compute_driver fake only"
    )
    kolla: Kolla = Field(default_factory=Kolla, description="pass-through for this region's run")

    @model_validator(mode="after")
    def _fake_only(self) -> Region:
        if self.fake_computes is not None and self.compute_driver != "fake":
            text = f"is used with compute_driver fake only, not {self.compute_driver}; remove it or change the driver"
            refuse([problem(text, ("fake_computes",), self.fake_computes)])
        return self


Group = Annotated[Text, matching(r"[^.]+\.[^.]+", "must be REGION.ROLE, such as OSR1.control")]


def split(group: str) -> tuple[str, str]:
    """Region and role of a ``REGION.ROLE``."""
    region, _, role = group.partition(".")
    return region, role


class InsideLink(Model):
    """A round trip that is added between the hosts of two roles of one region, at every point of the sweep."""

    one: Group = Field(alias="from", description="hosts at one end: REGION.ROLE, such as OSR1.control")
    other: Group = Field(alias="to", description="hosts at the other end: another role of the same region")
    rtt_ms: Float = Field(gt=0, le=MAX_RTT_MS, description="round trip between them, ms")

    @model_serializer
    def _as_in_the_file(self) -> dict[str, Any]:
        return {"from": self.one, "to": self.other, "rtt_ms": self.rtt_ms}

    @property
    def name(self) -> str:
        """What the link is called."""
        return f"{self.one} to {self.other}"

    @property
    def region(self) -> str:
        """The region that it is in."""
        return split(self.one)[0]


class Wan(Model):
    """The links between each OSR and the AR."""

    driver: Annotated[str, OneOf(WAN_DRIVERS, "auto")] = Field(
        "auto", description="auto: netem where the kernel has it"
    )
    deploy_rtt_ms: Float = Field(0.0, ge=0, le=MAX_RTT_MS, description="round trip in force while deploying, ms")
    jitter_ms: Float = Field(0.0, ge=0, le=MAX_RTT_MS, description="jitter of the round trip, ms")
    loss_percent: Float = Field(0.0, ge=0, lt=100, description="packets lost, percent each way")
    bandwidth_mbit: Float | None = Field(
        None, ge=MIN_MBIT, le=MAX_MBIT, description=f"Mbit/s each way, {MIN_MBIT} to {MAX_MBIT:,}; null: no cap"
    )
    tolerance_ms: Float = Field(
        TOLERANCE_MS,
        ge=0.1,
        le=100,
        description="by how much a median may be off, ms; 2 % of the round trip where more",
    )
    tcp: Literal["cubic", "reno", "bbr", "host"] | None = Field(
        None,
        description="TCP congestion control of the hosts towards other regions; host: as they have it; null: cubic on"
        " local hosts, else host",
    )
    links: tuple[InsideLink, ...] = Field((), description="links inside regions besides, at every point of the sweep")


Ms = Annotated[Float, Field(ge=0, le=MAX_RTT_MS)]
RttEntry = Annotated[
    Annotated[Ms, Tag("number")] | Annotated[dict[Text, Ms], Tag("map")],
    Discriminator(lambda value: "map" if isinstance(value, dict) else "number"),
]


class Synthetic(Model):
    """Synthetic regions: in Keystone's catalog, each with a link of its own, over which recorded requests come."""

    traffic: Annotated[Text, AfterValidator(_traffic_file)] = Field(
        description="what each replays, a file of 'mrkolla traffic record', relative to this file; absolute once read"
    )
    rtt_ms: tuple[Ms, Ms] = Field((5.0, 200.0), description="from, to: each has a round trip of its own between, ms")

    @model_validator(mode="after")
    def _rises(self) -> Synthetic:
        if self.rtt_ms[0] > self.rtt_ms[1]:
            refuse([problem("falls: give the shorter round trip first", ("rtt_ms",), self.rtt_ms)])
        return self


Concurrency = Annotated[Int, Field(ge=1, le=10_000)]
CatalogRegions = Annotated[Int, Field(ge=1, le=500)]


def _each_variant_once(variants: tuple[KeystoneSettings, ...]) -> tuple[KeystoneSettings, ...]:
    settings = [variant.model_dump(exclude_none=True) for variant in variants]
    text = "is the same as keystone[{}]; remove it"
    wrong = [(i, settings.index(setting)) for i, setting in enumerate(settings) if setting in settings[:i]]
    refuse([problem(text.format(first), (i,), settings[i]) for i, first in wrong])
    return variants


def _each_level_once(levels: tuple[int, ...]) -> tuple[int, ...]:
    refuse(
        [problem("is listed twice; remove one", (i,), level) for i, level in enumerate(levels) if level in levels[:i]]
    )
    return levels


class Sweep(Model):
    """The points to measure."""

    rtt_ms: tuple[RttEntry, ...] = Field(
        (0.0, 20.0, 50.0, 100.0, 200.0),
        min_length=1,
        description="round trips to the AR, ms: a number for all OSRs, or a map OSR -> ms",
    )
    repetitions: Int = Field(
        3, ge=1, le=10_000, description="how often each combination is measured; with precision: at most"
    )
    precision: Float | None = Field(
        None,
        gt=0,
        le=10,
        description="half-width (round trips) that the 95 % interval of k of the wire must have for all operations: the"
        " repetitions end when it has; null: all are made",
    )
    precision_total: Float | None = Field(
        None, gt=0, le=10, description="the same for k of the whole duration; null: not asked"
    )
    crossed: Bool = Field(
        False, description="each OSR takes the round trips in an order of its own: they differ at the same time"
    )
    seed: Int = Field(1, description="seed of the order of points and operations")
    keystone: Annotated[tuple[KeystoneSettings, ...], AfterValidator(_each_variant_once)] = Field(
        (), description="keystone sections, each laid over the file's own ({}: as it is); configured between points"
    )
    fake_computes: tuple[Annotated[Int, Field(ge=2, le=100_000)], ...] = Field(
        (), description="fake computes of each OSR, rising: more are added between points; needs compute_driver fake"
    )
    catalog_regions: Annotated[tuple[CatalogRegions, ...], AfterValidator(_each_level_once)] = Field(
        (),
        description="OpenStack regions in Keystone's catalog: those of the file, and more that have endpoints alone;"
        " registered between points, removed at the end",
    )
    synthetic_regions: Annotated[tuple[Annotated[Int, Field(ge=0, le=500)], ...], AfterValidator(_each_level_once)] = (
        Field((), description="how many of the regions of `synthetic` there are beside those of the file")
    )
    concurrency: Annotated[tuple[Concurrency, ...], AfterValidator(_each_level_once)] = Field(
        (), description="operations at once, for the tools that take it (rally); empty: what the tools themselves say"
    )
    apart: Bool = Field(False, description="each tool, and each of Rally's task files, is a point of its own")
    drift: Bool = Field(False, description="repeat the first point (of each keystone variant) at the end, and compare")


def one_form(name: str) -> str:
    """``name`` as names are compared: two that differ in case, or in '_' and '-', mean the same host and folder."""
    return name.lower().replace("_", "-")
