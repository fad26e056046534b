"""Whether a host's Docker runs what Kolla runs: a privileged container on the host's own network, processes and /run.
Whether its Python has what Kolla's modules import.

Read on standard input by the host's Python. The image is the host's own `true` and the libraries that it needs, so no
registry is asked. Prints {"ok", "said"}; leaves nothing.
"""

import io
import json
import re
import subprocess
import sys
import tarfile

IMAGE = "mrkolla-check:1"


def call(*argv, input=None, timeout=90):
    done = subprocess.run(argv, input=input, capture_output=True, timeout=timeout)
    return done.returncode, (done.stderr + done.stdout).decode(errors="replace").strip()


def image():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        code, libraries = call("ldd", "/usr/bin/true")
        files = ["/usr/bin/true", *(re.findall(r"(/\S+) \(0x", libraries) if code == 0 else [])]
        for path in dict.fromkeys(files):
            with open(path, "rb") as file:
                data = file.read()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode, entry.size = 0o755, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def check():
    # As Kolla's modules do it: Ubuntu 24.04's first python3-docker can be imported, and reaches no Docker.
    program = "import dbus, requests, docker; docker.from_env(version='auto').version()"
    code, output = call("/usr/bin/python3", "-c", program)
    if code:
        why = (output or f"status {code}").splitlines()[-1]
        return f"its Python cannot (upgrade python3-docker; Ubuntu: from its updates): {why}"
    code, output = call("docker", "import", "-", IMAGE, input=image())
    if code:
        return output or f"docker import: status {code}"
    try:
        options = ["--rm", "--privileged", "--net=host", "--pid=host", "-v", "/run:/run:shared"]
        code, output = call("docker", "run", *options, IMAGE, "/usr/bin/true")
        return output or f"status {code}" if code else None
    finally:
        call("docker", "rmi", "-f", IMAGE)


try:
    problem = check()
except (OSError, subprocess.TimeoutExpired) as failed:
    problem = str(failed)
# Docker's client says more around its error, before or after, by its version: a log of what followed, where help is.
lines = [line for line in (problem or "").splitlines() if line.strip() and not line.startswith(("time=", "Run '"))]
print(json.dumps({"ok": problem is None, "said": lines[-2:] or [problem or ""]}))
sys.exit(0)
