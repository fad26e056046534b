"""Python packages, installed by uv with the settings of the user's pip: uv itself reads none of them.

Run as a program (``setup.sh`` does, before mrkolla is installed) it is uv with those settings:
``python -P mrkolla/base/packages.py pip install ...``. It needs nothing but pip and the package ``uv``.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

# pip's setting -> uv's variables, and what uv has between two values. pip's file settings come from `pip config list`,
# its variables (PIP_INDEX_URL, ...) too.
_SETTINGS = {
    "index-url": (("UV_DEFAULT_INDEX",), None),
    "extra-index-url": (("UV_INDEX",), " "),
    "find-links": (("UV_FIND_LINKS",), ","),
    "constraint": (("UV_CONSTRAINT",), " "),
    "trusted-host": (("UV_INSECURE_HOST",), " "),
    "no-index": (("UV_NO_INDEX",), None),
    "timeout": (("UV_HTTP_TIMEOUT",), None),
    "cert": (("SSL_CERT_FILE",), None),
    "client-cert": (("SSL_CLIENT_CERT",), None),
    "proxy": (("HTTP_PROXY", "HTTPS_PROXY"), None),
}
# A later one wins: pip's order, for `pip install`.
_SECTIONS = ("global", "install", ":env:")


def settings(listed: str) -> dict[str, str]:
    """What `pip config list` printed, as variables of uv; settings that uv has no counterpart for are left out."""
    variables: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines()]
    for section in _SECTIONS:
        for name, _, value in lines:
            within, _, key = name.rpartition(".")
            key = "timeout" if key == "default-timeout" else key
            if within != section or key not in _SETTINGS:
                continue
            names, between = _SETTINGS[key]
            text = str(ast.literal_eval(value)).strip()
            words = text.split()
            variables |= dict.fromkeys(names, text if between is None else between.join(words))
    return variables


def environment() -> dict[str, str]:
    """The environment to run uv in: this process's, with the settings of the user's pip (uv's own variables win).

    The settings may hold a password: they are read when they are needed and kept nowhere.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, timeout=60, check=False).stdout
    # pip takes the best version of all indexes, uv by default those of the first that has the package.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **settings(listed), **os.environ}


def program() -> str:
    """Path of uv, as it was installed with mrkolla."""
    import uv

    return uv.find_uv_bin()


if __name__ == "__main__":
    uv = program()
    os.execve(uv, [uv, *sys.argv[1:]], environment())
