"""The normal user that the check is, in a project of its own."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from mrkolla.check.cleanup import PREFIX, Undo

DOMAIN = "default"


@dataclass(frozen=True)
class Person:
    """A user with a project of the same name."""

    name: str
    password: str
    project_id: str

    def auth(self) -> dict[str, str]:
        """What it logs in with."""
        domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
        return {"username": self.name, "password": self.password, "project_name": self.name, **domains}


def description() -> str:
    """What a project of a check says of itself: by its time a later check knows what a killed one left."""
    return f"made by a mrkolla check at {int(time.time())}, removed by it"


def make_person(identity: Any, undo: Undo, prefix: str = PREFIX) -> Person:
    """A project and a user with the role member, both of one new name, removed by ``undo``."""
    name = prefix + secrets.token_hex(4)
    password = secrets.token_urlsafe(24)
    about = description()
    project = identity.create_project(name=name, domain_id=DOMAIN, description=about)
    undo.push("identity", f"project {name}", lambda: identity.delete_project(project.id))
    user = identity.create_user(
        name=name, password=password, domain_id=DOMAIN, default_project_id=project.id, description=about
    )
    undo.push("identity", f"user {name}", lambda: identity.delete_user(user.id))
    identity.assign_project_role_to_user(project.id, user.id, identity.find_role("member", ignore_missing=False).id)
    return Person(name, password, project.id)
