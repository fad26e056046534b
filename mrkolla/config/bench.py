"""The own keys of each benchmark tool. A new tool is a model and a line in :data:`TOOL_OPTIONS`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from mrkolla.config.base import Int, Model, bad

Operation = Literal[
    "token_issue_new_connection",
    "token_issue_kept_connection",
    "token_validate",
    "glance_fresh_token",
    "glance_cached_token",
    "neutron_fresh_token",
    "neutron_cached_token",
]


class ToolOptions(Model):
    """An entry of ``bench``; each tool's model adds its own keys."""

    #: Whether a tool may be listed more than once (its entries' samples can then be told apart).
    several: ClassVar[bool] = False

    tool: str


def _each_once(operations: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for index, name in enumerate(operations or ()):
        if name in operations[:index]:
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
        None, min_length=1, description="operations to measure; null: all of them"
    )


#: Tool -> model of its entry in ``bench``.
TOOL_OPTIONS: dict[str, type[ToolOptions]] = {"probe": ProbeOptions}
