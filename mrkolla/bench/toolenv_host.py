"""Runs on a host: makes a Python environment from an archive that comes over standard input.

    python3 -c CODE TARGET SHA256 < environment.tar.gz

Standard library alone, and any Python from 3.11 on. The environment has the layout of PEP 405 (``pyvenv.cfg``,
``bin/python``, ``lib/pythonX.Y/site-packages``); neither venv nor pip is needed, which Debian packs apart.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tarfile
import time

WAIT_S = 600


def install(stream, target, digest, wait_s=WAIT_S):
    """Make ``target`` from ``stream`` (bytes whose SHA-256 is ``digest``), whole or not at all.

    Raises OSError, tarfile.TarError or ValueError (the stream is not what it must be).
    """
    parent = os.path.dirname(target)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    with open(os.path.join(parent, ".lock"), "a", encoding="ascii") as lock:
        _hold(lock, time.monotonic() + wait_s)
        if os.path.exists(target):
            return
        half = target + ".half"
        shutil.rmtree(half, ignore_errors=True)
        os.mkdir(half, mode=0o755)
        try:
            _fill(half, _receive(stream, os.path.join(half, ".archive"), digest))
            os.rename(half, target)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise


def _hold(lock, end):
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise ValueError("another installation has held the lock for too long") from None
            time.sleep(0.2)


def _receive(stream, path, digest):
    total = hashlib.sha256()
    with open(path, "wb") as out:
        while block := stream.read(1 << 20):
            total.update(block)
            out.write(block)
    if total.hexdigest() != digest:
        raise ValueError("the archive did not arrive whole")
    return path


def _fill(folder, archive):
    with tarfile.open(archive) as tar:
        # Older Pythons have no filters; the archive is our own and was compared with its digest.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    os.unlink(archive)
    library = os.path.join(folder, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    os.makedirs(library)
    os.rename(os.path.join(folder, "site"), os.path.join(library, "site-packages"))
    python = os.path.realpath(sys.executable)
    for name in ("python", "python3"):
        os.symlink(python, os.path.join(folder, "bin", name))
    with open(os.path.join(folder, "pyvenv.cfg"), "w", encoding="utf-8") as out:
        version = ".".join(str(part) for part in sys.version_info[:3])
        out.write(f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\nversion = {version}\n")


def main():
    try:
        install(sys.stdin.buffer, *sys.argv[1:])
    except (OSError, tarfile.TarError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
