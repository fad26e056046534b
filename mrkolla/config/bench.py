"""The own keys of the benchmark tools that come with mrkolla. Each tool, a plug-in, has a model that is made from
:class:`ToolOptions`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from mrkolla.config.base import Bool, Float, Int, Model, Text, bad, problem, refuse

Operation = Literal[
    "token_issue_new_connection",
    "token_issue_kept_connection",
    "token_validate",
    "glance_fresh_token",
    "glance_cached_token",
    "neutron_fresh_token",
    "neutron_cached_token",
    "nova_fresh_token",
    "nova_cached_token",
]
#: What the probe does only where it does not wait for answers (``rate``).
OPEN_LOOP_ONLY = ("nova_fresh_token", "nova_cached_token")
# Characters that the label of Rally's files may have in a point's id.
_LONGEST_LABEL = 80


class ToolOptions(Model):
    """An entry of ``bench``; each tool's model adds its own keys, and has its name as the only value of ``tool``."""

    #: Whether a tool may be listed more than once (its entries' samples can then be told apart).
    several: ClassVar[bool] = False
    #: Whether the tool has a key ``concurrency``, a list, that a sweep may set.
    takes_concurrency: ClassVar[bool] = False

    tool: str

    def parts(self) -> list[ToolOptions]:
        """This entry as entries that can each be a point of their own."""
        return [self]

    def label(self) -> str:
        """A name for such a part in a point's id."""
        return self.tool

    def at_concurrency(self, level: int) -> ToolOptions:
        """This entry with ``level`` operations at once, where the tool can be told so."""
        return self.model_copy(update={"concurrency": (level,)}) if self.takes_concurrency else self

    def files(self) -> tuple[str, ...]:
        """Files outside the experiment file that say what is run."""
        return ()


def _each_once(operations: tuple[str, ...] | None) -> tuple[str, ...] | None:
    names = operations or ()
    for index, name in enumerate(names):
        if name in names[:index]:
            raise bad(f"operation '{name}' is listed twice; remove one")
    return operations


class ProbeOptions(ToolOptions):
    """The probe: single operations against Keystone, Glance and Neutron from each OSR's control host."""

    tool: Literal["probe"] = Field("probe", description="the tool's name")
    samples: Int = Field(
        200, ge=1, le=1_000_000, description="samples per operation, point, repetition and region; warm-up comes on top"
    )
    warmup: Int = Field(5, ge=0, le=1_000_000, description="warm-up samples per operation, marked as such in the table")
    operations: Annotated[tuple[Operation, ...] | None, AfterValidator(_each_once)] = Field(
        None, min_length=1, description="operations to measure; null: all of them (those of Nova: with a rate only)"
    )
    rate: Float | None = Field(
        None,
        gt=0,
        le=100,
        description="open loop: so many operations of each kind are started a second, whether earlier ones were"
        " answered or not; null: each waits for the one before it",
    )
    deadline_s: Float = Field(10.0, ge=0.1, le=600, description="with a rate: an operation that takes longer hung, s")
    admin: Bool = Field(False, description="with a rate: from the AR as well, its Keystone's operations alone")

    @model_validator(mode="after")
    def _open_loop_alone(self) -> ProbeOptions:
        if self.rate is None:
            wrong = [
                problem(f"'{name}' is measured with a rate only; give one", ("operations", index), name)
                for index, name in enumerate(self.operations or ())
                if name in OPEN_LOOP_ONLY
            ]
            wrong += [problem("is used with a rate only; give one", ("admin",), True)] if self.admin else []
            refuse(wrong)
        return self

    @property
    def lasts_s(self) -> float:
        """How long its load lasts, s; 0: until all was answered."""
        return (self.warmup + self.samples) / self.rate if self.rate else 0.0


class MiddlewareOptions(ToolOptions):
    """The middleware probe: API requests of Nova, Neutron and Glance by the state of the token cache, counted."""

    tool: Literal["middleware"] = Field("middleware", description="the tool's name")
    samples: Int = Field(50, ge=1, le=1_000_000, description="samples per operation, state, point and region")
    warmup: Int = Field(3, ge=0, le=1_000_000, description="warm-up samples before them, marked as such in the table")
    operations: tuple[Literal["nova_list", "neutron_list", "glance_list"], ...] | None = Field(
        None, min_length=1, description="operations to measure; null: all of them"
    )
    states: tuple[Literal["cold", "warm", "fresh"], ...] | None = Field(
        None, min_length=1, description="cold (cache emptied), warm, fresh (a new token each request); null: all"
    )
    idle_s: Float = Field(10.0, ge=0, le=3600, description="seconds without load that each point begins with")
    memcached_port: Int = Field(11211, ge=1, le=65535, description="port of the regions' memcached")


def _task_files(paths: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    context = info.context or {}
    files: list[str] = []
    for text in paths:
        try:
            candidate = Path(context.get("folder") or ".", text).resolve()
            path = candidate if candidate.is_file() or not Path(text).is_file() else Path(text).resolve()
            if context.get("files", True) and not path.is_file():
                raise bad(f"{path} is {'no file' if path.exists() else 'missing'}; give files, relative to this one")
        except (OSError, RuntimeError) as error:  # a link that leads to itself, a text that is no name
            raise bad(f"'{text[:60]}' cannot be read: {error}"[:200]) from None
        if str(path) in files:
            raise bad(f"task file '{text}' is listed twice; remove one")
        files.append(str(path))
    return tuple(files)


def _scenario_files(names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    # A bare name is one of the project's own; anything else is a file.
    files = {name: _task_files((name,), info)[0] for name in names if "/" in name or name.endswith((".yaml", ".yml"))}
    return tuple(files.get(name, name) for name in names)


class ShakerOptions(ToolOptions):
    """Shaker: what the links carry, and the round trip with and without load, between hosts of regions."""

    tool: Literal["shaker"] = Field("shaker", description="the tool's name")
    scenarios: Annotated[tuple[Text, ...], AfterValidator(_scenario_files)] = Field(
        ("link",),
        min_length=1,
        description="Shaker's scenario files, relative to this file, or names of the project's own (in configs/shaker)",
    )
    pairs: tuple[str, ...] = Field(
        ("admin", "between"),
        min_length=1,
        description="who is played against whom: admin (each OSR to the AR), between (each two OSRs), ONE:OTHER",
    )
    together: bool = Field(False, description="all pairs at once; false: each has its link for itself")
    expect_mbit: Float | None = Field(None, gt=0, description="bandwidth of the links to compare with; null: none")
    max_s: Float = Field(600.0, ge=10, le=86400, description="bound of one play in seconds")
    port: Int = Field(5999, ge=1024, le=65000, description="port of Shaker's server on a host of the origin")

    def files(self) -> tuple[str, ...]:
        return tuple(name for name in self.scenarios if "/" in name)


class RallyOptions(ToolOptions):
    """Rally: task files in its own format, from each OSR's control host, every iteration and action a sample."""

    takes_concurrency: ClassVar[bool] = True

    tool: Literal["rally"] = Field("rally", description="the tool's name")
    tasks: Annotated[tuple[Text, ...], AfterValidator(_task_files)] = Field(
        min_length=1,
        description="Rally's task files, relative to this file (configs/rally has some); absolute once read",
    )
    args: dict[Text, Any] = Field(default_factory=dict, description="Rally's task arguments, for all of the files")
    regions: tuple[Text, ...] | None = Field(None, min_length=1, description="OSRs that load starts from; null: all")
    concurrency: tuple[Annotated[Int, Field(ge=1, le=10_000)], ...] = Field(
        (), description="values that files which leave 'concurrency' open are run with, one after the other"
    )
    warmup: Int = Field(1, ge=0, le=1_000_000, description="first iterations of each worker, marked as warm-up")
    max_s: Float = Field(3600.0, ge=10, le=604_800, description="bound of one point, all files and regions, seconds")

    def parts(self) -> list[ToolOptions]:
        return [self.model_copy(update={"tasks": (task,)}) for task in self.tasks]

    def label(self) -> str:
        # Files of a run are called after it, so it has no other characters than these, and not too many.
        return re.sub(r"[^A-Za-z0-9_.+-]", "_", "+".join(Path(task).stem for task in self.tasks))[:_LONGEST_LABEL]

    def files(self) -> tuple[str, ...]:
        return self.tasks
