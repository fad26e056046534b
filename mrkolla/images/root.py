"""The one Debian root file system that speaks Kolla's image interface.

Debian's OpenStack packages are installed over Kolla's numeric user ids; then Kolla's own scripts (from its release on
PyPI) take their places, and what Debian configures in its own way is taken out of Kolla's way.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mrkolla.base import debian
from mrkolla.base.errors import DeployError
from mrkolla.config.releases import Release
from mrkolla.images.recipe import BASE_SCRIPTS, PACKAGES, SUDOERS, TOOLBOX_COLLECTIONS, UNUSED
from mrkolla.kolla.env import KollaEnv
from mrkolla.kolla.sources import Sources

HERE = Path(__file__).parent
_MANAGE = "/usr/share/openstack-dashboard/manage.py"
#: Nothing needs these in an image: it has no systemd, and Kolla's script makes Horizon's static files at each start.
_IDLE = ("/usr/bin/deb-systemd-helper", _MANAGE)
#: Homes that Kolla's images have and Debian's packages put elsewhere.
_HOMES = ["keystone", "glance", "placement", "nova", "neutron", "horizon", "rabbitmq", "mysql", "haproxy", "ansible"]


def build(
    folder: Path,
    release: Release,
    sources: Sources,
    env: Callable[[], KollaEnv],
    log: Path,
    detail: Callable[[str], None],
) -> None:
    """Make the root in ``folder`` (about 1.6 GB, a minute or two).

    ``env`` gives Kolla's environment, and is called when everything else is done: it may be made meanwhile. Raises
    DeployError when a package, a script or a step is missing.
    """
    users = folder.with_name(folder.name + ".users")
    users.mkdir()
    write_users(users, sources.users)
    hooks = [
        # Debian gives system users ids below 1000, Kolla's are above 42400: let both be system users (as Kolla does).
        'sed -i -e "s/#*LAST_SYSTEM_UID=999/LAST_SYSTEM_UID=59999/" -e "s/#*LAST_SYSTEM_GID=999/LAST_SYSTEM_GID=59999/"'
        ' "$1/etc/adduser.conf"',
        *(f'cat "{users}/{name}" >> "$1/etc/{name}"' for name in ("passwd", "group", "shadow")),
        'printf "#!/bin/sh\\nexit 101\\n" > "$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"',
        debian.fetch(PACKAGES),
        'chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends'
        f" -o Dpkg::Options::=--force-unsafe-io -o Acquire::Retries=3 install {' '.join(PACKAGES)}",
    ]
    base = ("adduser", "passwd", "ca-certificates", "python3-minimal")
    what, exclude = "the images' root file system", (*debian.UNREAD, *UNUSED)
    debian.build(folder, base, log, hooks=hooks, exclude=exclude, idle=_IDLE, detail=detail, what=what, timeout=2400)
    shutil.rmtree(users)
    detail("Kolla's scripts")
    finish(Root(folder, log), release, sources, env)


def write_users(folder: Path, module: Path) -> None:
    """Write the lines of passwd, group and shadow that Kolla's users need, from Kolla's own list of ids."""
    users = runpy.run_path(str(module))["USERS"]
    passwd, group, shadow, teams = [], [], [], set()
    names = sorted(key.removesuffix("-user") for key in users)
    for name in names:
        ids = users[f"{name}-user"]
        team = ids.get("group", name)
        if team not in teams and name != "kolla":
            group.append(f"{team}:x:{ids['gid']}:\n")
            teams.add(team)
        passwd.append(f"{name}:x:{ids['uid']}:{ids['gid']}::/var/lib/{name}:/usr/sbin/nologin\n")
        shadow.append(f"{name}:!:19000:0:99999:7:::\n")
    members = ",".join(name for name in names if name != "kolla")
    group.append(f"kolla:x:{users['kolla-user']['gid']}:{members}\n")
    for name, lines in (("passwd", passwd), ("group", group), ("shadow", shadow)):
        (folder / name).write_text("".join(lines))


class Root:
    """A root file system being finished: paths inside it, commands in it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log

    def __truediv__(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def run(self, *argv: str) -> None:
        """Run a command inside; its output goes to the log. Raises DeployError when it fails."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "VIRTUAL"))}
        env |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        with self.log.open("a") as log:
            done = subprocess.run(["chroot", str(self.folder), *argv], stdout=log, stderr=log, timeout=600, env=env)
        if done.returncode != 0:
            raise DeployError(f"finishing the images' root: '{' '.join(argv)[:100]}' failed; log: {self.log}")

    def install(self, source: Path, target: str, mode: int) -> None:
        path = self / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        shutil.copyfile(source, path)
        path.chmod(mode)

    def link(self, target: str, name: str) -> None:
        path = self / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def clear(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern.lstrip("/")):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def edit(self, name: str, pattern: str, new: str) -> None:
        path = self / name
        text, count = re.subn(pattern, new, path.read_text(), flags=re.M)
        if not count:
            raise DeployError(f"{name} in Debian's packages has changed: nothing matches {pattern!r}")
        path.write_text(text)


def finish(root: Root, release: Release, sources: Sources, env: Callable[[], KollaEnv]) -> None:
    """Everything after the packages; each step is one of Kolla's images' Dockerfiles put in Debian's terms."""
    docker = sources.docker

    def toolbox() -> None:
        _toolbox(root, docker, release, sources)
        _collections(root, env())

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(toolbox)
        _base(root, docker)
        _users(root)
        _openstack(root, docker)
        _shared_services(root, docker)
        _horizon(root)
        _entry_points(root)
        beside.result()
    root.clear("usr/sbin/policy-rc.d", "etc/machine-id", "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin")
    root.clear("var/lib/apt/lists/*", "etc/ssh/ssh_host_*")


def _base(root: Root, docker: Path) -> None:
    for source, name in BASE_SCRIPTS.items():
        root.install(docker / source, f"usr/local/bin/{name}", 0o755)
    start = root / "usr/local/bin/kolla_extend_start"
    start.touch()
    start.chmod(0o644)
    root.install(docker / "base/sudoers", "etc/sudoers", 0o440)
    root.clear("etc/sudoers.d/*")
    for source, name in SUDOERS.items():
        root.install(docker / source, f"etc/sudoers.d/{name}", 0o440)
    (root / "etc/sudoers.d").chmod(0o750)
    # Kolla's images carry their Python in a virtual environment: its paths lead to Debian's.
    root.link("/usr/bin", "var/lib/kolla/venv/bin")
    root.link("/usr/lib/python3", "var/lib/kolla/venv/lib/python3")
    root.link("dist-packages", "usr/lib/python3/site-packages")
    root.link("python3", "usr/bin/python")
    for name in ("etc/kolla/defaults", "var/lib/kolla/config_files", "var/log/kolla", "run/sshd", "run/mysqld"):
        (root / name).mkdir(parents=True, exist_ok=True)
    # The volume kolla_logs takes owner and mode from the image's folder: Kolla's group must be able to write.
    root.run("chown", ":kolla", "/var/log/kolla")
    (root / "var/log/kolla").chmod(0o2775)
    root.edit("etc/pam.d/sshd", r"^session(\s+)required(\s+)pam_loginuid.so", r"session\1optional\2pam_loginuid.so")


def _users(root: Root) -> None:
    lines = []
    for line in (root / "etc/passwd").read_text().splitlines():
        part = line.split(":")
        if part[0] in _HOMES:
            part[5] = f"/var/lib/{part[0]}"
        elif part[0] == "memcached":
            part[5] = "/run/memcache"
        if part[0] in ("keystone", "nova", "neutron"):
            part[6] = "/bin/bash"
        lines.append(":".join(part))
    (root / "etc/passwd").write_text("\n".join(lines) + "\n")
    for name in (*_HOMES, "memcached"):
        home = "/run/memcache" if name == "memcached" else f"/var/lib/{name}"
        (root / home).mkdir(parents=True, exist_ok=True)
        root.run("usermod", "--append", "--groups", "kolla", name)
        root.run("chown", "-R", f"{name}:", home)
    root.run("usermod", "--append", "--groups", "qemu", "nova")


def _openstack(root: Root, docker: Path) -> None:
    root.install(docker / "keystone/keystone-fernet/fetch_fernet_tokens.py", "usr/bin/fetch_fernet_tokens.py", 0o755)
    # Configuration of Debian's that oslo.config reads after Kolla's, and that would win.
    root.clear(*(f"etc/{name}/*.conf.d" for name in ("keystone", "glance", "placement", "nova", "neutron")))
    root.clear("etc/nova/nova-compute.conf")
    paths = "exec_dirs=/var/lib/kolla/venv/bin,/sbin,/usr/sbin,/bin,/usr/bin,/usr/local/bin,/usr/local/sbin"
    for name in ("glance", "nova", "neutron"):
        if (root / f"etc/{name}/rootwrap.conf").exists():
            root.edit(f"etc/{name}/rootwrap.conf", r"^exec_dirs.*", paths)
    # uWSGI changes the user but not the group, so Debian's files for root:SERVICE must be readable.
    for name in ("nova", "glance", "neutron", "placement", "keystone"):
        root.run("chmod", "-R", "a+rX", f"/etc/{name}")
    for name in ("dnsmasq", "haproxy", "keepalived", "neutron-keepalived-state-change", "radvd"):
        root.install(docker / f"neutron/neutron-base/{name}", f"usr/local/lib/neutron-wrappers/{name}", 0o755)
    for name in ("copy-wrappers", "delete-wrappers"):
        root.install(docker / f"neutron/neutron-base/{name}", f"usr/local/lib/neutron-wrappers/{name}", 0o755)
    (root / "usr/local/etc/neutron-wrappers").mkdir(parents=True, exist_ok=True)


def _shared_services(root: Root, docker: Path) -> None:
    # Apache serves nothing but what Kolla puts in conf-enabled.
    root.clear("etc/apache2/sites-enabled/*", "etc/apache2/conf-enabled/*")
    (root / "etc/apache2/ports.conf").write_text("")
    root.run("a2enmod", "-q", "wsgi", "headers")
    # Kolla's uWSGI is PyPI's, with the HTTP router built in; Debian's has it as a plugin.
    uwsgi = root / "usr/bin/uwsgi"
    uwsgi.unlink(missing_ok=True)
    uwsgi.write_text('#!/bin/sh\nexec /usr/bin/uwsgi-core --plugins-dir /usr/lib/uwsgi/plugins --plugins http "$@"\n')
    uwsgi.chmod(0o755)
    # Debian's MariaDB 11.8 fails a transaction whose row another one changed meanwhile, since 11.6.2's new default;
    # OpenStack does not try it again (Keystone answers 500 to a user's first two logins at once). Kolla's MariaDB of
    # this release is 10.11, where it is off. mariadbd reads this file before the one that Kolla writes.
    (root / "etc/my.cnf").write_text("[mysqld]\ninnodb_snapshot_isolation = OFF\n")
    root.clear("var/lib/mysql/*", "var/lib/rabbitmq/*", "var/lib/rabbitmq/.erlang.cookie")
    root.run("chown", "mysql", "/run/mysqld")
    root.install(HERE / "clustercheck.sh", "usr/bin/clustercheck", 0o755)
    (root / "usr/lib/rabbitmq/plugins").mkdir(parents=True, exist_ok=True)
    root.run("rabbitmq-plugins", "enable", "--offline", "rabbitmq_management", "rabbitmq_prometheus")
    root.run("chown", "-R", "rabbitmq:", "/var/lib/rabbitmq", "/etc/rabbitmq")
    (root / "var/lib/kolla/haproxy").mkdir(parents=True, exist_ok=True)
    root.run("chown", "haproxy:", "/var/lib/kolla/haproxy")


def _horizon(root: Root) -> None:
    package = "usr/lib/python3/dist-packages/openstack_dashboard"
    root.install(root / _MANAGE, "usr/bin/manage.py", 0o755)
    root.install(root / "usr/share/openstack-dashboard/wsgi.py", f"{package}/wsgi.py", 0o644)
    root.clear("etc/openstack-dashboard/local_settings.d/_000*debian*")
    # Debian keeps the secret key where only its own user can write.
    pattern = (
        r'os\.path\.join\("/",\s*"var",\s*"lib",\s*"openstack-dashboard",\s*"secret-key",\s*.\.secret_key_store.\)'
    )
    path = "etc/openstack-dashboard/local_settings.py"
    root.edit(path, pattern, 'os.path.join(LOCAL_PATH, ".secret_key_store")')
    root.link("/etc/openstack-dashboard/local_settings.py", f"{package}/local/local_settings.py")
    root.link("/etc/openstack-dashboard/local_settings.d", f"{package}/local/local_settings.d")


def _toolbox(root: Root, docker: Path, release: Release, sources: Sources) -> None:
    wheels = root / "wheels"
    shutil.copytree(sources.wheels, wheels)
    root.run("python3", "-m", "venv", "--without-pip", "--system-site-packages", "/opt/ansible")
    # Debian's pip runs from its wheel; modules are compiled below, on all cores.
    pip = next((root / "usr/share/python-wheels").glob("pip-*.whl"))
    install = ("install", "-q", "--no-index", "--no-compile", "--find-links", "/wheels", release.toolbox[0])
    root.run("/opt/ansible/bin/python", f"/usr/share/python-wheels/{pip.name}/pip", *install)
    shutil.rmtree(wheels)
    library = next((root / "opt/ansible/lib").glob("python3.*"))
    root.link(library.name, "opt/ansible/lib/python3")
    root.run("python3", "-m", "compileall", "-q", "-j", "0", f"/opt/ansible/lib/{library.name}")
    (root / "etc/ansible").mkdir(exist_ok=True)
    (root / "etc/ansible/hosts").write_text(
        "localhost ansible_connection=local ansible_python_interpreter=/opt/ansible/bin/python\n"
    )
    root.install(docker / "kolla-toolbox/ansible.cfg", "etc/ansible/ansible.cfg", 0o644)
    no_log(root)


def no_log(root: Root) -> None:
    """Take the log from kolla_toolbox's Ansible: passwords stand in it, and all services of a host can read it."""
    path = root / "etc/ansible/ansible.cfg"
    path.write_text(re.sub(r"^log_path\b.*\n?", "", path.read_text(), flags=re.M))


#: What a program in /usr/bin does at its first look for a plug-in (the path is part of the cache's key).
_LOOK = 'import sys; sys.path[0] = "/usr/bin"; from stevedore import _cache; _cache.Cache().get_group_all("")'


def _entry_points(root: Root) -> None:
    """Have stevedore's cache of entry points ready in each service's home.

    Without it the first program of each container reads what 300 packages register: 0.4 s of a core, some sixty times
    in a deployment. Where a path of Python's has changed, stevedore reads anew.
    """
    for name in ("keystone", "glance", "placement", "nova", "neutron"):
        root.run("env", f"HOME=/var/lib/{name}", "python3", "-c", _LOOK)
        root.run("chown", "-R", f"{name}:", f"/var/lib/{name}/.cache")


def _collections(root: Root, env: KollaEnv) -> None:
    for name in TOOLBOX_COLLECTIONS:
        target = root / f"usr/share/ansible/collections/ansible_collections/{name}"
        shutil.copytree(env.collections / name, target, symlinks=True, ignore=shutil.ignore_patterns("tests", "docs"))
    # Who calls them there may not write beside them; community.general is large, and none of it is called.
    often = [name for name in TOOLBOX_COLLECTIONS if name != "community/general"]
    folders = [f"/usr/share/ansible/collections/ansible_collections/{name}" for name in often]
    root.run("python3", "-m", "compileall", "-q", "-j", "0", *folders)
