"""The JSON schema of the experiment file, for editors."""

from __future__ import annotations

from typing import Any

from mrkolla.config.model import Experiment, known_releases


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the experiment file.

    It says what a schema can say; :func:`mrkolla.config.load` checks more (names that must differ, regions that must
    exist).
    """
    content = Experiment.model_json_schema(mode="validation")
    content["properties"]["release"] |= {"enum": list(known_releases())} if known_releases() else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content, "title": "mrkolla experiment"}
