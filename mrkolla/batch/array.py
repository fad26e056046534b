"""One experiment as several clouds, a job of an array each: names, seeds, and what is varied from cloud to cloud."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import yaml

from mrkolla import config
from mrkolla.base.errors import InputError
from mrkolla.config import Experiment, placement
from mrkolla.config.testbeds import G5kTestbed

#: More clouds than this at once are taken for a slip.
MOST = 500


def read_vary(texts: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE,VALUE`` as key -> values, as they were written. Raises InputError for what is none."""
    vary: dict[str, str] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise InputError(f"--vary {text}: give KEY=VALUE,VALUE, such as keystone.topology=central,replica")
        if key in vary:
            raise InputError(f"--vary {key}: is given twice; give its values once, with commas between")
        vary[key] = values
    return vary


def expand(experiment: Experiment, copies: int, vary: Mapping[str, str]) -> list[Experiment]:
    """An experiment a cloud: each combination of the values of ``vary``, so many times.

    Each has a seed of its own, unless the seed is varied. Several are named NAME_1, NAME_2, ... The copies lie outside
    the values, so that the first jobs have each value. Raises InputError for a value that the experiment cannot have,
    and for too many clouds.
    """
    base = experiment.model_dump(mode="json")
    choices = {key: _values(base, key, text) for key, text in vary.items()}
    combinations = list(product(*choices.values()))
    if not 1 <= copies * len(combinations) <= MOST:
        raise InputError(f"--array: {copies} x {len(combinations)} clouds; give 1 to {MOST} in all")
    experiments = []
    for place, combination in enumerate(combinations * copies):
        values = experiment.model_dump(mode="json")
        words = []
        # What is varied comes after what is made here: a seed that is asked for is the seed.
        values["sweep"]["seed"] += place
        if copies * len(combinations) > 1:
            values["name"] = f"{experiment.name}_{place + 1}"
        for key, value in zip(choices, combination, strict=True):
            _put(values, key, value)
            words.append(f"{key}={value}")
        experiments.append(config.from_dict(values, f"--vary {' '.join(words)}" if words else f"--array {copies}"))
    return experiments


def _steps(key: str) -> list[str | int]:
    """``regions[1].compute`` as the steps to it."""
    steps = [int(step) if step.isdecimal() else step for step in re.split(r"[.\[\]]+", key) if step]
    if not steps:
        raise InputError(f"--vary {key}: the experiment has no such key")
    return steps


def _values(experiment: Mapping[str, Any], key: str, text: str) -> list[Any]:
    """The values of ``key`` in ``text``, as in the file; as text where the key has text (``2025.1`` is a number)."""
    now: Any = experiment
    for step in _steps(key):
        try:
            now = now[step]
        except (TypeError, KeyError, IndexError):
            now = None
    loader = yaml.BaseLoader if isinstance(now, str) else yaml.SafeLoader
    try:
        return list(yaml.load(f"[{text}]", Loader=loader))
    except (yaml.YAMLError, ValueError) as error:  # a day that there is not is a ValueError
        raise InputError(f"--vary {key}={text}: no values: {getattr(error, 'problem', None) or error}") from None


def _put(values: Any, key: str, value: Any) -> None:
    *path, last = _steps(key)
    try:
        for step in path:
            if isinstance(values, dict) and values.get(step) is None:
                values[step] = {}
            values = values[step]
        if isinstance(values, dict) == isinstance(last, int):
            raise TypeError
        values[last] = value
    except (TypeError, IndexError, KeyError):
        raise InputError(f"--vary {key}: the experiment has no such key") from None


def refuse_together(clouds: Sequence[Experiment]) -> None:
    """Raise InputError for clouds that cannot be up at the same time: by their names, addresses or dates."""
    names = Counter(config.one_form(cloud.name) for cloud in clouds)
    if doubled := [cloud.name for cloud in clouds if names[config.one_form(cloud.name)] > 1]:
        raise InputError(f"{len(doubled)} clouds are called '{doubled[0]}': give each file a name of its own")
    addresses: set[str] = set()
    for cloud in clouds if len(clouds) > 1 else ():
        bed = cloud.testbed_as(G5kTestbed)
        if bed.reservation:
            raise InputError("testbed.reservation: the jobs of an array cannot begin at a date (OAR); leave it out")
        places = [bed.vips, *(bed.place(name).vip for name in placement.region_names(cloud))]
        cloud_addresses = {address for address in places if address}
        if taken := cloud_addresses & addresses:
            raise InputError(
                f"testbed: {cloud.name} and a cloud before it have the address {min(taken)}: leave it out, and have"
                " each job reserve a subnet ('-l slash_22=1+nodes=N')"
            )
        addresses |= cloud_addresses
