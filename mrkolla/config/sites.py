"""What an operator tells of a cloud that is planned: the round trips between its regions, and how much each asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from mrkolla.config.base import Float, Model, Text, problem, refuse, suggest
from mrkolla.config.load import load_as

#: Operations of a region, as the file names them, and in words.
OPERATIONS = {
    "issue_token": "issue a token",
    "validate_token": "validate a token",
    "fresh_request": "a request with a new token",
    "create_user": "create a user",
}
_Rtt = Annotated[Float, Field(ge=0, le=60_000)]
_Rate = Annotated[Float, Field(ge=0, le=1e6)]


class Sites(Model):
    """Regions by name. ``rtt_ms`` has each pair once, in either order; those with the admin region must be there."""

    admin: Text = "AR"
    rtt_ms: dict[str, dict[str, _Rtt]]
    rates: dict[str, dict[str, _Rate]] = Field(default_factory=dict)

    @property
    def regions(self) -> list[str]:
        """The OpenStack regions, as the file has them."""
        names = [name for source, rtts in self.rtt_ms.items() for name in (source, *rtts)]
        return [name for name in dict.fromkeys(names) if name != self.admin]

    def rtt(self, one: str, other: str) -> float | None:
        """The round trip between two regions, in ms; None where the file has none."""
        rtt_ms = self.rtt_ms.get(one, {}).get(other)
        return self.rtt_ms.get(other, {}).get(one) if rtt_ms is None else rtt_ms

    @model_validator(mode="after")
    def _sensible(self) -> Sites:
        refuse(list(self._wrong()), "sites")
        return self

    def _wrong(self) -> Iterator[InitErrorDetails]:
        if not self.regions:
            yield problem("has no pair of regions; write AR: {OSR1: 50} for 50 ms between these", ("rtt_ms",))
        for source, rtts in self.rtt_ms.items():
            for target, value in rtts.items():
                back = self.rtt_ms.get(target, {}).get(source)
                if source == target:
                    yield problem("is a region's round trip to itself; remove it", ("rtt_ms", source, target), value)
                elif back is not None and back != value:
                    text = f"is {value:g} here and {back:g} in rtt_ms.{target}.{source}; give each pair once"
                    yield problem(text, ("rtt_ms", source, target), value)
        for region in self.regions:
            if self.rtt(self.admin, region) is None:
                yield problem(f"has no round trip between {self.admin}, the admin region, and {region}", ("rtt_ms",))
        for region, rates in self.rates.items():
            if region not in self.regions:
                yield problem(f"is no region of rtt_ms; {suggest(region, self.regions)}", ("rates", region))
            for operation in rates:
                if operation not in OPERATIONS:
                    place = ("rates", region, operation)
                    yield problem(f"unknown operation; {suggest(operation, OPERATIONS)}", place)


def load_sites(path: Path | str) -> Sites:
    """Read such a file. Raises InputError with a line for each problem."""
    return load_as(path, Sites, "a file of regions and round trips")
