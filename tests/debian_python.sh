#!/bin/sh
# Makes .venv-debian and prints its Python: Debian's own, with the packages of .venv, which fit every Python of one minor
# version. Prints nothing where .venv has that very Python already.
set -eu
cd "$(dirname "$0")/.."
debian=${DEBIAN_PYTHON:-/usr/bin/python3}
version() { "$1" -c 'import sys; print(".".join(map(str, sys.version_info[:'"$2"'])))'; }

[ "$(version "$debian" 3)" != "$(version .venv/bin/python 3)" ] || exit 0
[ "$(version "$debian" 2)" = "$(version .venv/bin/python 2)" ] || {
    echo "$debian is $(version "$debian" 3), and the packages in .venv are for $(version .venv/bin/python 2):" \
        "remove .venv, then PYTHON=$debian make test-unit" >&2
    exit 3
}
"$debian" -m venv --clear --without-pip .venv-debian
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$packages')" >"$(echo .venv-debian/lib/python3*/site-packages)/packages.pth"
echo .venv-debian/bin/python
