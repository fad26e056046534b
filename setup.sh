#!/bin/sh
# Sets up what mrkolla needs: Debian packages (mrkolla/system-packages.txt) and a Python environment in .venv.
# It does nothing where all is there, says what it installs, and stops with one line where it cannot.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "setup: $*" >&2
    exit 3
}

packages=$(awk '!/^#/ && NF { print $1 }' mrkolla/system-packages.txt)
missing=""
for package in $packages; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "these Debian packages are missing:$missing; as root: apt-get install$missing"
        as_root=sudo
    fi
    echo "setup: installing Debian packages:$missing"
    # shellcheck disable=SC2086
    $as_root apt-get update -qq || fail "apt-get update failed: is the network reachable?"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        fail "apt-get install$missing failed"
fi

# Debian builds its Python with profiles: Ansible and the tests take a quarter less time than on one built without.
python=${PYTHON:-/usr/bin/python3}
[ -n "${PYTHON:-}" ] || "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or later is needed ($python is $("$python" --version 2>&1 || echo missing)); set PYTHON=..."

mark=$(cat setup.py setup.sh mrkolla/base/packages.py | sha256sum | cut -c1-16)
if [ "$(cat .venv/.mrkolla 2>/dev/null)" != "$mark" ]; then
    echo "setup: installing Python packages into .venv (half a minute)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv || fail "python3 -m venv .venv failed"
    # uv installs the many packages in a third of pip's time; packages.py gives it the settings of the user's pip.
    {
        PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install -q "$(sed -n 's/^ *"\(uv[>=].*\)",$/\1/p' setup.py)" &&
            .venv/bin/python -P mrkolla/base/packages.py --quiet pip install --python .venv/bin/python --editable '.[test,docs]'
    } 2>.venv/pip.log || {
        tail -n 3 .venv/pip.log >&2
        fail "the packages could not be installed (all words: .venv/pip.log): is the network (PyPI) reachable?"
    }
    # The first command compiles what commands import, and keeps it for those after it.
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/mrkolla status >/dev/null 2>&1 || true
    echo "$mark" >.venv/.mrkolla
fi
