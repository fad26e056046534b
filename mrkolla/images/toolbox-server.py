"""Runs Ansible's modules for calls of ``ansible localhost -m ...`` in kolla_toolbox: toolbox-client.py tells of them.

Everything that such calls import is imported once; a call is a fork, which runs the module's own code as Ansible's
ad-hoc command would, in some milliseconds of CPU instead of a second and more. It ends when nothing was asked for a
while.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress

#: Seconds without a call after which the server ends: its memory is wanted for other things.
IDLE = 90

PATH, sys.argv = sys.argv[1], ["ansible"]
from ansible import context  # noqa: E402
from ansible.module_utils.common.collections import ImmutableDict  # noqa: E402

context.CLIARGS = ImmutableDict(verbosity=0, extra_vars=(), check=False, diff=False)
from ansible.module_utils import basic  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.parsing.splitter import parse_kv  # noqa: E402
from ansible.plugins.loader import init_plugin_loader, module_loader  # noqa: E402
from ansible.release import __version__ as VERSION  # noqa: E402
from ansible.template import Templar  # noqa: E402

init_plugin_loader()
LOADER = DataLoader()
#: What the modules that Kolla calls import; one that is not there is not wanted by this release.
IMPORTS = (
    *("openstack", "openstack.connection", "openstack.identity.v3._proxy", "openstack.config"),
    *("openstack.service_description", "keystoneauth1.loading", "keystoneauth1.identity.v3", "keystoneauth1.session"),
    *("requests", "pymysql", "pymysql.cursors", "ansible.module_utils.common.arg_spec"),
    "ansible_collections.openstack.cloud.plugins.module_utils.openstack",
    "ansible_collections.community.mysql.plugins.module_utils.mysql",
    "ansible_collections.community.mysql.plugins.module_utils.user",
)


def variables(text: str) -> dict:
    """The words of ``-e``: key=value, where a value may be JSON."""
    values = {}
    for key, value in parse_kv(text).items():
        values[key] = value
        if isinstance(value, str) and value[:1] in ("{", "["):
            with suppress(ValueError):
                values[key] = json.loads(value)
    return values


def result(words: list[str]) -> dict:
    """What Ansible's ad-hoc command would say of this call: the module's own result."""
    options = dict(zip(words[3::2], words[4::2], strict=True))
    arguments = parse_kv(options.get("-a", ""))
    arguments = Templar(loader=LOADER, variables=variables(options.get("-e", ""))).template(arguments)
    plugin = module_loader.find_plugin_with_context(words[2])
    if not plugin.resolved:
        raise LookupError(words[2])
    name = plugin.resolved_fqcn
    settings = {
        **{"_ansible_check_mode": False, "_ansible_diff": False, "_ansible_verbosity": 0, "_ansible_debug": False},
        **{"_ansible_no_log": False, "_ansible_version": VERSION, "_ansible_module_name": name},
        **{"_ansible_syslog_facility": "LOG_USER", "_ansible_selinux_special_fs": [], "_ansible_socket": None},
        **{"_ansible_string_conversion_action": "warn", "_ansible_shell_executable": "/bin/sh"},
        **{"_ansible_keep_remote_files": False, "_ansible_tmpdir": None, "_ansible_remote_tmp": "/tmp"},
        **{"_ansible_ignore_unknown_opts": False, "_ansible_target_log_info": None},
    }
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **settings}}).encode()
    collection, _, module = name.rpartition(".")
    builtin = collection in ("ansible.builtin", "ansible.legacy")
    path = f"ansible.modules.{module}" if builtin else f"ansible_collections.{collection}.plugins.modules.{module}"
    output, trace = io.StringIO(), ""
    status: int | str = 0
    sys.stdout = output
    try:
        runpy.run_module(path, run_name="__main__")
    except SystemExit as error:
        status = error.code or 0
    except Exception:  # noqa: BLE001 - whatever a module raises is its result
        status, trace = 1, traceback.format_exc()
    finally:
        sys.stdout = sys.__stdout__
    text = output.getvalue().strip()
    try:
        answer = json.loads(text[text.index("{") :])
    except ValueError:
        answer = {"failed": True, "msg": "MODULE FAILURE", "module_stdout": text, "module_stderr": trace, "rc": 1}
    if status and "failed" not in answer:
        answer["failed"] = True
    return {"changed": False, "_ansible_no_log": False} | answer


def serve(link: socket.socket) -> None:
    """Answer one call, in a process of its own."""
    _, files, _, _ = socket.recv_fds(link, 16, 2)
    request, reply = files
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request, "rb") as file:
        words = json.loads(file.read())
    try:
        answer = result(words)
    except Exception:  # noqa: BLE001 - the log has it, and the caller goes another way
        traceback.print_exc()
        sys.stderr.flush()
        link.send(b"fail")  # the caller asks Ansible itself
        return
    with os.fdopen(reply, "wb") as file:
        file.write(json.dumps({"plays": [{"tasks": [{"hosts": {"localhost": answer}}]}]}).encode())
    link.send(b"done")


def main() -> None:
    lock = os.open(f"{PATH}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one serves, or is about to
    with suppress(FileNotFoundError):
        os.unlink(PATH)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(PATH)
    listener.listen(64)
    listener.settimeout(IDLE)
    for name in IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What is there now is not touched by the collector in forks, so it stays shared with them.
    gc.collect()
    gc.freeze()
    while True:
        try:
            link, _ = listener.accept()
        except TimeoutError:
            os.unlink(PATH)
            return
        _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid == os.getuid() and os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            os.close(lock)
            link.settimeout(None)
            with suppress(OSError):
                serve(link)
            os._exit(0)
        link.close()


if __name__ == "__main__":
    main()
