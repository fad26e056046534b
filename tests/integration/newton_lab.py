"""What the tests of Newton's edits stand on: its trees without and with the edits, its Ansible, and a real Keystone.

Newton's services cannot be had any more, so its playbooks and its module meet today's Keystone (v3 alone), and its
``docker exec`` is a stand-in: a script of the tests that runs what Newton's own container would, on this machine.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mrkolla import config
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.releases import release
from mrkolla.kolla import edits, env, python27
from mrkolla.kolla.env import KollaEnv
from tests.integration import environments
from tests.integration.keystone_conf import CONF

NEWTON = release("newton")
#: What Newton's kolla_toolbox has, and the last of what that needs which Python 2.7 runs.
TOOLBOX = (
    *("ansible==2.1.1.0", "shade==1.5.0", "os-client-config==1.21.1", "keystoneauth1==2.12.3"),
    *("python-keystoneclient==3.5.1", "python-novaclient==6.0.2", "python-glanceclient==2.5.0"),
    *("python-cinderclient==1.9.0", "python-neutronclient==6.0.0", "python-ironicclient==1.7.1"),
    *("python-swiftclient==3.1.0", "python-troveclient==2.5.0", "python-designateclient==2.3.0"),
    *(
        "requests==2.11.1",
        "Jinja2==2.8.1",
        "MarkupSafe==1.1.1",
        "positional==1.1.2",
        "pyperclip<1.8",
        "PyYAML==5.4.1",
        "rfc3986==1.4.0",
    ),
)
QUIET = {"ANSIBLE_NOCOWS": "1", "PYTHONWARNINGS": "ignore", "ANSIBLE_RETRY_FILES_ENABLED": "0"}

SERVER = """\
import sys, threading
from waitress.server import create_server
from keystone.server.wsgi import initialize_public_application
server = create_server(initialize_public_application(), listen="127.0.0.1:0", threads=1)
threading.Thread(target=server.run, daemon=True).start()
print(server.effective_port, flush=True)
sys.stdin.read()
"""

DOCKER = """\
#!/bin/sh
# Stands for "docker exec keystone COMMAND": runs Newton's own script of that name on this machine.
[ "$1 $2 $3" = "exec keystone kolla_keystone_bootstrap" ] || { echo "not stood in for: $*" >&2; exit 64; }
shift 3
exec bash "%(script)s" "$@"
"""


def toolbox() -> Path:
    """The programs of an environment with :data:`TOOLBOX`."""
    return environments.environment("newton-toolbox", TOOLBOX, python27.find("2.7"))


@dataclass(frozen=True)
class Lab:
    """Newton: its environment, its tree without (``plain``) and with (``patched``) the edits, the plan of two OSRs."""

    env: KollaEnv
    plain: Path
    patched: Path
    plan: Path

    def playbook(
        self, tree: Path, region: str, arguments: list[str], variables: dict, path: Path | None = None, book=None
    ) -> str:
        """Run ``book`` (by default the release's own site.yml) of ``tree`` for a region of the plan, on this machine
        in place of that region's hosts; returns what Ansible said."""
        local = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(self.env.python),
            "network_interface": "lo",
            "set_sysctl": "no",
        }
        folder = self.plan / region
        argv = [str(self.env.bin / "ansible-playbook"), "-i", str(folder / "inventory.yml")]
        argv += ["-e", f"@{folder / 'globals.yml'}", "-e", f"@{self.plan / 'passwords.yml'}"]
        argv += ["-e", json.dumps(local | variables), *arguments, str(book or tree / "ansible" / "site.yml")]
        environ = os.environ | QUIET | {"ANSIBLE_GATHERING": "smart", "HOME": str(self.plan)}
        if path:
            environ["PATH"] = f"{path}:{environ['PATH']}"
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, env=environ)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def rendered(self, tree: Path, region: str, tags: str, target: Path, **variables) -> Path:
        """The configuration that ``tree``'s playbooks make for the first control host of ``region``."""
        host = f"{region.lower()}-control1"
        told = {"action": "config", "node_config_directory": str(target), **variables}
        self.playbook(tree, region, ["--tags", tags, "--limit", host], told)
        return target


def make(folder: Path) -> Lab:
    """The lab in ``folder``; raises LackError where Python 2.7 is missing."""
    made = env.ensure(NEWTON, folder / "kolla.log")
    for name in ("plain", "patched"):
        env.plain_copy(made, NEWTON, folder / name)
    edits.apply("newton", folder / "patched")
    experiment = config.from_dict(
        {
            "name": "newton",
            "release": "newton",
            "testbed": {"kind": "local"},
            "regions": [{"name": "OSR1"}, {"name": "OSR2"}],
        }
    )
    plan = DeployedCloud(experiment, Progress(file=(folder / "plan.log").open("w")), folder).write_plan(folder / "plan")
    return Lab(made, folder / "plain", folder / "patched", plan)


class Keystone:
    """A real Keystone of today in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, environments.keystone()
        folder.mkdir()
        (folder / "keystone.conf").write_text(CONF.format(folder=folder))
        (folder / "server.py").write_text(SERVER)
        owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
        for step in (["db_sync"], ["fernet_setup", *owner]):
            self.manage(*step)
        with contextlib.closing(sqlite3.connect(folder / "keystone.db")) as database:
            # Kept in the file: readers that Keystone leaves open do not block its writers.
            database.execute("PRAGMA journal_mode=WAL")

    @property
    def environ(self) -> dict[str, str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return os.environ | {"OS_KEYSTONE_CONFIG_DIR": str(self.folder), "PATH": path}

    def manage(self, *arguments: str) -> None:
        argv = [str(self.programs / "keystone-manage"), "--config-file", str(self.folder / "keystone.conf"), *arguments]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-2000:]

    def docker(self, tree: Path) -> Path:
        """A folder with the stand-in for ``docker``, to be put first in PATH."""
        folder = self.folder / "stand-in"
        folder.mkdir(exist_ok=True)
        script = tree / "docker" / "keystone" / "keystone" / "keystone_bootstrap.sh"
        manage = f'exec "{self.programs}/keystone-manage" --config-file "{self.folder}/keystone.conf" "$@"\n'
        for name, text in (("docker", DOCKER % {"script": script}), ("keystone-manage", f"#!/bin/sh\n{manage}")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        return folder

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Its URL (without the version), while it answers."""
        with (self.folder / "server.log").open("w") as log:
            server = subprocess.Popen(
                [str(self.programs / "python"), str(self.folder / "server.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ,
                text=True,
            )
        try:
            end = time.monotonic() + 90
            port = server.stdout.readline().strip()
            assert port and time.monotonic() < end, (self.folder / "server.log").read_text()[-2000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait(timeout=30)


def settings(path: Path) -> dict[tuple[str, str], str]:
    """A configuration file as (section, key) -> value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read_string(path.read_text())
    return {(section, key): value for section in parser.sections() for key, value in parser.items(section)} | {
        ("DEFAULT", key): value for key, value in parser.defaults().items()
    }


def assigned(path: Path) -> dict[str, str]:
    """What a file of Python sets: each statement by what it sets (or its text), in one notation."""
    found = {}
    for statement in ast.parse(path.read_text()).body:
        names = [ast.unparse(target) for target in statement.targets] if isinstance(statement, ast.Assign) else []
        found[", ".join(names) or ast.unparse(statement)] = ast.unparse(getattr(statement, "value", statement))
    return found
